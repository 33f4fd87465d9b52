"""The calls that people and scripts make: one command, or one question, at a time; prices and quantities as decimals.

What cannot be taken is answered by a report that says why. A status says what no report can:

    INVALID_ARGUMENT     garbled, no account, an unknown symbol
    PERMISSION_DENIED    the venue lists its accounts, and this is none of them
    NOT_FOUND            GetOrder: no such order, or one that is forgotten
    UNAVAILABLE          GetOrder: the home engine does not answer
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from engine.core.order import IN_BOOK, More
from engine.core.order import Order as LiveOrder
from engine.core.venue import Venue
from engine.entry.link import HomeLink
from engine.entry.reference import Reference
from engine.entry.reports import Follower, Hub, Outbox
from engine.entry.router import Router
from engine.entry.streams import ORDERS, PEERS, abort, check_account, parse
from proto import orders_pb2 as pb
from proto.columns import (
    ALL_OR_NONE,
    BAD_CLIENT_ORDER_ID,
    BUY,
    CANCEL,
    CAPPED,
    FLAG_SELL,
    FORCES,
    MALFORMED,
    MASS_CANCEL,
    MASS_CANCELED,
    MEANING_SHIFT,
    MEANINGS,
    NEW,
    NO_TERMS,
    OUTCOME_UNKNOWN,
    POST_ONLY,
    PRIORITY_KEPT,
    REFUSED,
    REPEAT,
    REPLACE,
    REPORT_WIDTH,
    SELL,
    STP_CANCEL_NEWEST,
    STP_MODES,
    TIF_MASK,
    TIF_SHIFT,
    TYPE_MASK,
    TYPE_SHIFT,
    TYPES,
    UNAVAILABLE,
    UNKNOWN,
    Batch,
    Commands,
    ReportRow,
    Terms,
    answer_row,
    is_peg,
    is_priced,
    is_stop,
)
from proto.instrument import STATES, Instrument
from proto.orders import (
    BadValueError,
    decimal_text,
    liquidity,
    lots_of,
    read_reports,
    report_columns,
    ticks_of,
    write_batch,
    write_reports,
)
from proto.refusals import cut, explain

CALL_S: Final = 3.0  # longest wait of a unary call; a command's own deadline on its way is shorter

_M = TypeVar("_M", bound=Message)


class _Answer(NamedTuple):
    """A report to one call: its home, its number there, the log record that caused it and that record's time.

    `then` is what followed for the same order, each with its number.
    """

    home: int
    seq: int
    position: int
    time_ns: int
    row: ReportRow
    then: tuple[tuple[int, ReportRow], ...] = ()


class _Call(Follower):
    """A unary call that waits for the answer to its command, from each of some homes (also an Origin)."""

    def __init__(self, account: int, command: int, homes: Iterable[int]) -> None:
        super().__init__(account, Outbox(), {})
        self._command = command
        self._missing = dict.fromkeys(homes)
        self._found: list[_Answer] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def offer(self, home: int, first_seq: int, count: int, data: bytes, *, history: bool = False) -> None:
        if home not in self._missing:
            return
        reports = read_reports(data)
        for i, command in enumerate(reports.command):
            if command == self._command:
                columns = report_columns(reports)
                row = ReportRow._make(column[i] for column in columns)
                then = tuple(
                    (first_seq + j, ReportRow._make(column[j] for column in columns))
                    for j in range(i + 1, len(reports.command))
                    if first_seq and row.order_id and reports.order_id[j] == row.order_id
                )
                seq = first_seq and first_seq + i
                self._found.append(_Answer(home, seq, reports.position, reports.time_ns, row, then))
                del self._missing[home]
                break
        if not self._missing and not self._done.done():
            self._done.set_result(None)

    def tell(self, home: int, rows: list[int]) -> None:
        self.offer(home, 0, len(rows) // REPORT_WIDTH, write_reports(home, self.account, 0, 0, 0, rows))

    def begun(self) -> None: ...

    def ended(self) -> None: ...

    async def answers(self) -> tuple[list[_Answer], list[int]]:
        """The answers, and the homes that gave none in time."""
        await asyncio.wait([self._done], timeout=CALL_S)
        return self._found, list(self._missing)


class Calls:
    """The unary calls of the Orders service, and Peers.FindOrders, on raw messages (`handlers`)."""

    def __init__(
        self, router: Router, reference: Reference, hub: Hub, venue: Venue, links: dict[int, HomeLink]
    ) -> None:
        self._router = router
        self._reference = reference
        self._hub = hub
        self._venue = venue
        self._links = links

    def handlers(self) -> tuple[grpc.GenericRpcHandler, grpc.GenericRpcHandler]:
        """Those of the Orders service, and those of Peers."""
        unary = grpc.unary_unary_rpc_method_handler
        orders: dict[str, Any] = {
            "NewOrder": unary(self.new_order),
            "CancelOrder": unary(self.cancel_order),
            "ReplaceOrder": unary(self.replace_order),
            "MassCancel": unary(self.mass_cancel),
            "GetOrder": unary(self.get_order),
            "OpenOrders": unary(self.open_orders),
        }
        return (
            grpc.method_handlers_generic_handler(ORDERS, orders),
            grpc.method_handlers_generic_handler(PEERS, {"FindOrders": unary(self.find_orders)}),
        )

    async def new_order(self, data: bytes, context: Any) -> bytes:
        return await self._command(context, pb.NewOrderRequest, data, _new)

    async def cancel_order(self, data: bytes, context: Any) -> bytes:
        return await self._command(context, pb.CancelOrderRequest, data, _cancel)

    async def replace_order(self, data: bytes, context: Any) -> bytes:
        return await self._command(context, pb.ReplaceOrderRequest, data, _replace)

    async def _command(
        self, context: Any, kind: type[_M], data: bytes, batch_of: Callable[[Any, Instrument], Batch]
    ) -> bytes:
        """Send one command, and give the report that answers it, or says why it was not sent."""
        request: Any = await self._asked(context, kind, data)
        try:
            batch = batch_of(request, self._reference.instrument(request.symbol))
        except BadValueError as e:
            return self._refusal(request, e).SerializeToString()
        home = self._reference.home(batch.instrument[0])
        found, _ = await self._answers(batch, [home])
        if not found:
            row = answer_row(UNKNOWN, OUTCOME_UNKNOWN, batch.client_order_id[0], 0, 0, 0, 0, 0)
            found = [_Answer(home, 0, 0, 0, row)]
        return self._report(batch.account, found[0]).SerializeToString()

    async def mass_cancel(self, data: bytes, context: Any) -> bytes:
        request = await self._asked(context, pb.MassCancelRequest, data)
        instrument = None
        try:
            if request.symbol:
                instrument = self._reference.instrument(request.symbol)
            if not request.client_order_id:
                raise BadValueError(BAD_CLIENT_ORDER_ID, "a mass cancel needs an id of its own")
        except BadValueError as e:
            return pb.MassCancelReply(reports=[self._refusal(request, e)]).SerializeToString()
        batch = _one(request, MASS_CANCEL, 0 if instrument is None else instrument.id)
        homes = [self._router.engine, *self._links] if instrument is None else [self._reference.home(instrument.id)]
        found, missing = await self._answers(batch, homes)
        reply = pb.MassCancelReply(engines_missing=missing)
        for answer in found:
            if answer.row.reason == UNAVAILABLE or answer.row.kind == pb.REPORT_UNKNOWN:
                reply.engines_missing.append(answer.home)
            else:
                reply.reports.append(self._report(request.account, answer))
        return reply.SerializeToString()

    async def get_order(self, data: bytes, context: Any) -> bytes:
        request = await self._asked(context, pb.GetOrderRequest, data)
        instrument = await self._named(context, request.symbol)
        wish = pb.FindOrdersRequest(account=request.account, client_order_id=request.client_order_id)
        found = await self._find(self._reference.home(instrument.id), wish)
        if found is None:
            await abort(context, grpc.StatusCode.UNAVAILABLE, f"engine {instrument.engine} does not answer")
        for order in found.orders:
            if order.symbol == request.symbol:
                return order.SerializeToString()
        return await abort(context, grpc.StatusCode.NOT_FOUND, "no such order, or one that is forgotten")

    async def open_orders(self, data: bytes, context: Any) -> bytes:
        request = await self._asked(context, pb.OpenOrdersRequest, data)
        instrument = await self._named(context, request.symbol) if request.symbol else None
        wish = pb.FindOrdersRequest(account=request.account)
        homes = [self._router.engine, *self._links]
        if instrument is not None:
            wish.instrument = instrument.id
            homes = [self._reference.home(instrument.id)]
        reply = pb.OpenOrdersReply()
        for home, found in zip(homes, await asyncio.gather(*(self._find(home, wish) for home in homes)), strict=True):
            if found is None:
                reply.engines_missing.append(home)
            else:
                reply.orders.extend(found.orders)
        return reply.SerializeToString()

    async def find_orders(self, data: bytes, context: Any) -> bytes:
        """Peers.FindOrders: what another engine asks of this one as the home."""
        request = await parse(context, pb.FindOrdersRequest, data)
        return self._found(request).SerializeToString()

    async def _find(self, home: int, wish: pb.FindOrdersRequest) -> pb.FindOrdersReply | None:
        """What a home says of an account's orders; None if it does not answer."""
        if home == self._router.engine:
            return self._found(wish)
        link = self._links.get(home)
        if link is None or link.channel is None:
            return None
        try:
            call: Any = link.channel.unary_unary("/lobmesh.v1.Peers/FindOrders")
            return pb.FindOrdersReply.FromString(await call(wish.SerializeToString(), timeout=CALL_S / 3))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, DecodeError):
            return None

    def _found(self, wish: pb.FindOrdersRequest) -> pb.FindOrdersReply:
        if wish.client_order_id:
            order = self._venue.order(wish.account, wish.client_order_id)
            orders = [] if order is None else [order]
        else:
            orders = self._venue.open_orders(wish.account, wish.instrument)
        return pb.FindOrdersReply(orders=[self._order(order) for order in orders])

    async def _asked(self, context: Any, kind: type[_M], data: bytes) -> _M:
        """What somebody who may trade asks; aborts the call of anybody else."""
        request: Any = await parse(context, kind, data)
        await check_account(context, self._reference, request.account)
        return request  # type: ignore[no-any-return]  # one of ours, with an account

    async def _answers(self, batch: Batch, homes: list[int]) -> tuple[list[_Answer], list[int]]:
        call = _Call(batch.account, batch.client_order_id[0], homes)
        self._hub.follow(call)
        try:
            self._router.take(batch.account, 0, batch.stp, write_batch(batch), call)
            return await call.answers()
        finally:
            self._hub.unfollow(call)

    async def _named(self, context: Any, symbol: str) -> Instrument:
        """The instrument; aborts the call if there is none."""
        try:
            return self._reference.instrument(symbol)
        except BadValueError as e:
            return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(e))

    # What is said

    def _refusal(self, request: Any, refused: BadValueError) -> pb.Report:
        return pb.Report(
            kind=pb.REPORT_REFUSED,
            reason=refused.reason,  # type: ignore[arg-type]
            home=self._router.engine,
            account=request.account,
            client_order_id=request.client_order_id,
            symbol=request.symbol,
            detail=cut(str(refused)),
        )

    def _report(self, account: int, answer: _Answer) -> pb.Report:
        row = answer.row
        report = pb.Report(
            kind=row.kind,  # type: ignore[arg-type]
            reason=row.reason,  # type: ignore[arg-type]
            home=answer.home,
            seq=answer.seq,
            position=answer.position,
            account=account,
            client_order_id=row.client_order_id or row.command,
            order_id=row.order_id,
            side=row.flags & FLAG_SELL,  # type: ignore[arg-type]
            time_ns=answer.time_ns,
            priority_kept=bool(row.flags & PRIORITY_KEPT),
            repeat=bool(row.flags & REPEAT),
            liquidity=liquidity(row),
            trade_id=row.trade_id,
            then=[self._report(account, answer._replace(seq=seq, row=later, then=())) for seq, later in answer.then],
        )
        instrument = self._reference.instruments.get(row.instrument)
        if row.kind == REFUSED or row.kind == pb.REPORT_UNKNOWN:
            market = self._venue.markets.get(row.instrument)
            state = "" if market is None else STATES[market.state - 1]
            report.detail = explain(row.reason, instrument, symbols=self._reference.symbols, state=state)
        if instrument is not None:
            report.symbol = instrument.symbol
        if instrument is None or row.kind == MASS_CANCELED:  # orders are counted, not lots; or the instrument is none
            report.quantity = str(row.quantity)
            return report
        report.price = decimal_text(row.price, instrument.tick_size)
        report.quantity = decimal_text(row.quantity, instrument.lot_size)
        report.open = decimal_text(row.open, instrument.lot_size)
        report.filled = decimal_text(row.filled, instrument.lot_size)
        return report

    def _order(self, order: LiveOrder) -> pb.Order:
        instrument = self._reference.instruments[order.instrument]
        shown_order = pb.Order(
            account=order.account.id,
            client_order_id=order.client_order_id,
            order_id=order.order_id,
            symbol=instrument.symbol,
            side=order.side,  # type: ignore[arg-type]
            type=(order.flags & TYPE_MASK) >> TYPE_SHIFT,  # type: ignore[arg-type]
            time_in_force=(order.flags & TIF_MASK) >> TIF_SHIFT,  # type: ignore[arg-type]
            price=decimal_text(order.price, instrument.tick_size),
            quantity=decimal_text(order.quantity, instrument.lot_size),
            open=decimal_text(order.open, instrument.lot_size),
            filled=decimal_text(order.filled, instrument.lot_size),
            live=order.open > 0,
            post_only=bool(order.flags & POST_ONLY),
        )
        more = order.more
        shown_order.visible = shown_order.live and more is None
        if more is not None:
            _say_more(shown_order, order.flags, more, instrument)
        return shown_order


def _say_more(said: pb.Order, flags: int, more: More, instrument: Instrument) -> None:
    """What an order is beyond a plain one."""
    tick, lot, terms = instrument.tick_size, instrument.lot_size, more.terms
    if is_stop(flags):
        said.stop_price = decimal_text(more.stop_price, tick)
        said.triggered = more.fired
    if more.display:
        said.display = decimal_text(more.display, lot)
    if more.minimum:
        said.minimum = decimal_text(more.minimum, lot)
    said.all_or_none = more.all_or_none
    if terms is not None:
        said.expires_ns = terms.expires_ns
        if terms.offset:
            said.offset = decimal_text(terms.offset, tick)
    if more.partner is not None:
        said.oco = more.partner.client_order_id
    said.visible = said.live and more.where == IN_BOOK


def _new(request: pb.NewOrderRequest, instrument: Instrument) -> Batch:
    """Raises: BadValueError, as the next two."""
    tick, lot = instrument.tick_size, instrument.lot_size
    kind, force = request.type << TYPE_SHIFT, request.time_in_force << TIF_SHIFT
    # Numbers that mean nothing, before they could run into other bits.
    if request.side not in (BUY, SELL) or kind not in TYPES or force not in FORCES:
        raise BadValueError(MALFORMED, "unknown side, type or time in force")
    flags = request.side | kind | force | request.post_only * POST_ONLY | request.all_or_none * ALL_OR_NONE
    flags |= (is_peg(flags) and bool(request.price)) * CAPPED
    terms = Terms(
        ticks_of(request.stop_price, tick) if request.stop_price or is_stop(flags) else 0,
        lots_of(request.display, lot) if request.display else 0,
        lots_of(request.minimum, lot) if request.minimum else 0,
        request.expires_ns,
        ticks_of(request.offset, tick) if request.offset else 0,
        request.oco,
    )
    price = ticks_of(request.price, tick) if request.price or is_priced(flags) else 0
    return _one(request, NEW, instrument.id, flags, price, lots_of(request.quantity, lot), 0, terms)


def _cancel(request: pb.CancelOrderRequest, instrument: Instrument) -> Batch:
    return _one(request, CANCEL, instrument.id, target=request.target)


def _replace(request: pb.ReplaceOrderRequest, instrument: Instrument) -> Batch:
    tick = instrument.tick_size
    meaning = request.meaning << MEANING_SHIFT
    if meaning not in MEANINGS:
        raise BadValueError(MALFORMED, "unknown meaning of the quantity")
    price = ticks_of(request.price, tick) if request.price or not request.stop_price else 0
    quantity = lots_of(request.quantity, instrument.lot_size)
    terms = Terms(ticks_of(request.stop_price, tick)) if request.stop_price else NO_TERMS
    return _one(request, REPLACE, instrument.id, meaning, price, quantity, request.target, terms)


def _one(
    request: Any,
    op: int,
    instrument: int,
    flags: int = 0,
    price: int = 0,
    quantity: int = 0,
    target: int = 0,
    terms: Terms = NO_TERMS,
) -> Batch:
    """A batch of one command."""
    commands = Commands()
    commands.account, commands.stp = request.account, getattr(request, "self_trade_prevention", STP_CANCEL_NEWEST)
    if commands.stp not in STP_MODES:
        raise BadValueError(MALFORMED, "unknown self-trade prevention")
    said = terms if any(terms) else None
    commands.add(op, request.client_order_id, instrument, flags, price, quantity, target, said)
    return commands

"""The Orders service of an engine: sessions, the calls that people and scripts make, and drop copies.

All handlers take raw bytes. A session's commands are never made into messages of rows: the columns are checked, and the
bytes go into the log as they came. Bytes that are no message are the client's fault (INVALID_ARGUMENT) and change
nothing; so is a hello that cannot be. Everything else that is not done is answered by a report that says why.

    status               when
    INVALID_ARGUMENT     garbled, no hello, no account, an unknown symbol where no report can say so
    PERMISSION_DENIED    the venue lists its accounts, and this is none of them
    NOT_FOUND            GetOrder: no such order, or one that is forgotten
    OUT_OF_RANGE         a cursor whose reports are no longer held, or ahead of its home engine
    RESOURCE_EXHAUSTED   a reader too slow; a message too large; too many streams
    DATA_LOSS            reports were missed on the way: come back with the cursors
    UNAVAILABLE          the engine is stopping; GetOrder: the home engine does not answer
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from engine.core.order import IN_BOOK, More
from engine.core.order import Order as LiveOrder
from engine.core.venue import Venue
from engine.entry.links import HomeLink, Presence, begin, cancelled, end, first_to_end, write_all
from engine.entry.reports import Cut, CutOffError, Follower, Hub, Outbox
from engine.entry.router import Bucket, Entry
from proto import orders_pb2 as pb
from proto.cluster import STATES, Instrument
from proto.columns import (
    ALL_OR_NONE,
    BAD_CLIENT_ORDER_ID,
    CANCEL,
    CAPPED,
    FLAG_SELL,
    MALFORMED,
    MASS_CANCEL,
    MASS_CANCELED,
    MEANING_SHIFT,
    NEW,
    OUTCOME_UNKNOWN,
    POST_ONLY,
    PRIORITY_KEPT,
    REFUSED,
    REPEAT,
    REPLACE,
    REPORT_WIDTH,
    STP_CANCEL_NEWEST,
    STP_DECREMENT,
    TIF_MASK,
    TIF_SHIFT,
    TYPE_MASK,
    TYPE_SHIFT,
    UNAVAILABLE,
    UNKNOWN_INSTRUMENT,
    Batch,
    ReportRow,
    Terms,
)
from proto.orders import (
    BadValueError,
    GarbledError,
    decimal_text,
    liquidity,
    lots_of,
    read_reports,
    report_columns,
    ticks_of,
    unwrap,
    wrap,
    write_batch,
    write_reports,
)
from proto.refusals import cut, explain

STANDING_S: Final = 0.25  # how long a session waits to hear where its account stands at a home
CALL_S: Final = 3.0  # longest wait of a unary call; a command's own deadline on its way is shorter
DRAIN_S: Final = 5.0  # how long a session that said it is done still gets its answers

_PRICED: Final = (pb.ORDER_TYPE_LIMIT, pb.ORDER_TYPE_STOP_LIMIT, pb.ORDER_TYPE_ICEBERG)  # without a price: refused
_STATUS: Final = {
    Cut.SLOW: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Cut.GONE: grpc.StatusCode.OUT_OF_RANGE,
    Cut.ANEW: grpc.StatusCode.OUT_OF_RANGE,
    Cut.GAP: grpc.StatusCode.DATA_LOSS,
    Cut.STOPPED: grpc.StatusCode.UNAVAILABLE,
}


class SessionIds:
    """Numbers that no session of any engine had before: engine, milliseconds, a counter.

    `clock_ns` only spreads them: they rise also when it stands still.
    """

    def __init__(self, engine: int, clock_ns: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_ns = clock_ns
        self._last = 0

    def next(self) -> int:
        """54 bits of time, in units of 1/8192 ms, below 10 bits of engine."""
        now = (self._clock_ns() // 1_000_000 << 13) & (1 << 54) - 1
        self._last = max(now, self._last + 1)
        return self._engine << 54 | self._last


class Session:
    """One client's stream (engine/entry/router.py, Origin)."""

    def __init__(self, account: int, id: int, stp: int, *, cancel_on_disconnect: bool, bucket: Bucket | None) -> None:
        self.account = account
        self.id = id
        self.stp = stp
        self.bucket = bucket
        self.cancel_on_disconnect = cancel_on_disconnect
        self.outbox = Outbox()
        self._under_way = 0  # batches
        self._idle: asyncio.Future[None] | None = None

    @property
    def logged_id(self) -> int:
        """What the log knows it by: only sessions whose end cancels something are known there."""
        return self.id if self.cancel_on_disconnect else 0

    def tell(self, home: int, rows: list[int]) -> None:
        self.outbox.put(wrap(write_reports(home, self.account, 0, 0, 0, rows)), len(rows) // REPORT_WIDTH)

    def begun(self) -> None:
        self._under_way += 1

    def ended(self) -> None:
        self._under_way -= 1
        if self._idle is not None and not self._under_way and not self._idle.done():
            self._idle.set_result(None)

    async def answered(self) -> None:
        """Wait until every batch is answered, and the answers are in the outbox."""
        if self._under_way:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle


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


class OrdersServicer:
    """The service; `engine/node.py` puts it together with the rest of an engine."""

    def __init__(
        self,
        entry: Entry,
        hub: Hub,
        presence: Presence,
        venue: Venue,
        links: dict[int, HomeLink],
        ids: SessionIds,
    ) -> None:
        self._entry = entry
        self._hub = hub
        self._presence = presence
        self._venue = venue
        self._links = links
        self._ids = ids
        self._instruments: dict[int, Instrument] = {}
        self.symbols: dict[str, Instrument] = {}
        self.streams: dict[Outbox, None] = {}
        self._stopped = False

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Instruments of this and other engines, as they are known now; an id has the symbol that came last."""
        for instrument in instruments:
            before = self._instruments.get(instrument.id)
            if before is not None and before.symbol != instrument.symbol and self.symbols.get(before.symbol) is before:
                del self.symbols[before.symbol]
            self._instruments[instrument.id] = instrument
            self.symbols[instrument.symbol] = instrument

    def stop(self) -> None:
        """End every stream, in good order, and any that is opened yet: clients come back when the engine does."""
        self._stopped = True
        for outbox in self.streams:
            outbox.cut(Cut.STOPPED)

    # Sessions and drop copies

    async def session(self, _: AsyncIterator[bytes], context: Any) -> None:
        """One client's stream, to its end."""
        await begin(context)
        hello = await self._hello(context)
        session = self._open(hello)
        cursors = {c.home: c.last_seq for c in hello.cursors}
        follower = Follower(session.account, session.outbox, cursors, skip_lost=hello.skip_lost)
        self._opened(session.outbox)
        how, closed = _ENDED, True
        try:
            await self._follow(follower)
            await context.write(self._welcome(session, follower))
            await self._serve(context, session)
        except (GarbledError, DecodeError) as e:
            how = (grpc.StatusCode.INVALID_ARGUMENT, f"garbled: {e}")
        except CutOffError as e:
            how, closed = (_STATUS[e.cut], str(e)), e.cut is not Cut.STOPPED
        finally:
            # All that hangs on the session first: a client that does not read does not take its status either.
            self.streams.pop(session.outbox, None)
            self._hub.unfollow(follower)
            if closed:
                self._closed(session)
        await finish(context, how)

    async def executions(self, data: bytes, context: Any) -> None:
        """The account's reports from past numbers, then live, until the client has enough."""
        await begin(context)
        request = await parse(context, pb.ExecutionsRequest, data)
        await self._check_account(context, request.account)
        cursors = dict.fromkeys((self._entry.engine, *self._links), 0)
        cursors.update({c.home: c.last_seq for c in request.cursors})
        outbox = Outbox()
        follower = Follower(request.account, outbox, cursors, wrapped=False, oldest=True)
        self._opened(outbox)
        how = _ENDED
        try:
            await self._follow(follower)
            await first_to_end(write_all(context, outbox), outbox.broken())
        except CutOffError as e:
            how = (_STATUS[e.cut], str(e))
        finally:
            self.streams.pop(outbox, None)
            self._hub.unfollow(follower)
        await finish(context, how)

    def _opened(self, outbox: Outbox) -> None:
        self.streams[outbox] = None
        if self._stopped:
            outbox.cut(Cut.STOPPED)

    async def _hello(self, context: Any) -> pb.Hello:
        data = await context.read()
        request = await parse(context, pb.SessionRequest, b"" if data is grpc.aio.EOF else data)
        if request.WhichOneof("kind") != "hello":
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first request of a session is the hello")
        hello = request.hello
        await self._check_account(context, hello.account)
        if not STP_CANCEL_NEWEST <= hello.self_trade_prevention <= STP_DECREMENT:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "unknown self-trade prevention")
        return hello

    def _open(self, hello: pb.Hello) -> Session:
        bucket = Bucket(hello.throttle, asyncio.get_running_loop().time()) if hello.throttle else None
        session = Session(
            hello.account,
            hello.session or self._ids.next(),
            hello.self_trade_prevention,
            cancel_on_disconnect=hello.cancel_on_disconnect,
            bucket=bucket,
        )
        if session.cancel_on_disconnect:
            self._presence.opened(session.account, session.id, session)
            for link in self._links.values():
                link.session(session.account, session.id, closed=False)
        return session

    def _closed(self, session: Session) -> None:
        if session.cancel_on_disconnect and self._presence.closed(session.account, session.id, session):
            for link in self._links.values():
                link.session(session.account, session.id, closed=True)

    async def _follow(self, follower: Follower) -> None:
        """Have an account's reports of every home come to a follower. A home that hangs is not waited for long."""
        self._hub.follow(follower)
        asked = []
        for home, link in self._links.items():
            cursor = follower.cursors.get(home)
            if cursor is not None:
                follower.catching_up.add(home)
            link.follow(follower.account, cursor)
            if cursor is None:
                asked.append(asyncio.create_task(_begin(follower, home, link)))
        if asked:
            _, late = await asyncio.wait(asked, timeout=STANDING_S)
            for task in late:
                task.cancel()

    def _welcome(self, session: Session, follower: Follower) -> bytes:
        welcome = pb.Welcome(
            engine=self._entry.engine,
            session=session.id,
            cursors=[pb.Cursor(home=home, last_seq=last) for home, last in follower.began.items()],
            engines=[self._entry.engine, *self._links],
        )
        return pb.SessionReply(welcome=welcome).SerializeToString()

    async def _serve(self, context: Any, session: Session) -> None:
        """Commands in, reports out, until the client has said that it is done and has its answers."""
        reader = asyncio.create_task(self._receive(context, session))
        writer = asyncio.create_task(first_to_end(write_all(context, session.outbox), session.outbox.broken()))
        try:
            await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
                await asyncio.wait([asyncio.create_task(session.answered())], timeout=DRAIN_S)
                session.outbox.finish()
            await writer
        finally:
            await cancelled(reader, writer)

    async def _receive(self, context: Any, session: Session) -> None:
        take, committer = self._entry.take, self._entry.committer
        account, logged_id, stp, bucket = session.account, session.logged_id, session.stp, session.bucket
        loop = asyncio.get_running_loop()
        while (data := await context.read()) is not grpc.aio.EOF:
            commands = unwrap(data)
            if commands is None:
                request = pb.SessionRequest.FromString(data)
                if request.WhichOneof("kind") != "commands":
                    raise GarbledError("a request without commands")
                commands = request.commands
            take(account, logged_id, stp, commands, session, bucket, loop.time() if bucket is not None else 0.0)
            if committer.crowded:
                await committer.room()

    # Calls

    async def new_order(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.NewOrderRequest, data)
        await self._check_account(context, request.account)
        try:
            instrument = self._instrument(request.symbol)
            priced = bool(request.price) or request.type in _PRICED
            batch = _one(
                request,
                NEW,
                instrument,
                self_trade_prevention=request.self_trade_prevention,
                flags=_flags(
                    request.side,
                    request.type,
                    request.time_in_force,
                    request.post_only,
                    request.all_or_none,
                    capped=request.type >= pb.ORDER_TYPE_PEG_BID and bool(request.price),
                ),
                price=ticks_of(request.price, instrument.tick_size) if priced else 0,
                quantity=lots_of(request.quantity, instrument.lot_size),
                terms=_terms(request, instrument),
            )
        except BadValueError as e:
            return self._refusal(request, e)
        return await self._ask(batch)

    async def cancel_order(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.CancelOrderRequest, data)
        await self._check_account(context, request.account)
        try:
            batch = _one(request, CANCEL, self._instrument(request.symbol), target=request.target)
        except BadValueError as e:
            return self._refusal(request, e)
        return await self._ask(batch)

    async def replace_order(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.ReplaceOrderRequest, data)
        await self._check_account(context, request.account)
        try:
            instrument = self._instrument(request.symbol)
            if not 0 <= request.meaning <= pb.QUANTITY_REDUCE_BY:
                raise BadValueError(MALFORMED, "unknown meaning of the quantity")
            batch = _one(
                request,
                REPLACE,
                instrument,
                self_trade_prevention=request.self_trade_prevention,
                flags=request.meaning << MEANING_SHIFT,
                price=ticks_of(request.price, instrument.tick_size) if request.price or not request.stop_price else 0,
                quantity=lots_of(request.quantity, instrument.lot_size),
                target=request.target,
                terms=Terms(ticks_of(request.stop_price, instrument.tick_size)) if request.stop_price else None,
            )
        except BadValueError as e:
            return self._refusal(request, e)
        return await self._ask(batch)

    async def mass_cancel(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.MassCancelRequest, data)
        await self._check_account(context, request.account)
        instrument = None
        try:
            if request.symbol:
                instrument = self._instrument(request.symbol)
            if not request.client_order_id:
                raise BadValueError(BAD_CLIENT_ORDER_ID, "a mass cancel needs an id of its own")
        except BadValueError as e:
            refused = pb.Report.FromString(self._refusal(request, e))
            return pb.MassCancelReply(reports=[refused]).SerializeToString()
        batch = _one(request, MASS_CANCEL, instrument)
        homes = [self._entry.engine, *self._links] if instrument is None else [self._entry.home(instrument.id)]
        found, missing = await self._answers(batch, homes)
        reply = pb.MassCancelReply(engines_missing=missing)
        for answer in found:
            if answer.row.reason == UNAVAILABLE or answer.row.kind == pb.REPORT_UNKNOWN:
                reply.engines_missing.append(answer.home)
            else:
                reply.reports.append(self._report(request.account, answer))
        return reply.SerializeToString()

    async def get_order(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.GetOrderRequest, data)
        await self._check_account(context, request.account)
        instrument = self.symbols.get(request.symbol)
        if instrument is None:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, self._unknown(request.symbol))
        wish = pb.FindOrdersRequest(account=request.account, client_order_id=request.client_order_id)
        found = await self._find(self._entry.home(instrument.id), wish)
        if found is None:
            await abort(context, grpc.StatusCode.UNAVAILABLE, f"engine {instrument.engine} does not answer")
        for order in found.orders:
            if order.symbol == request.symbol:
                return order.SerializeToString()
        return await abort(context, grpc.StatusCode.NOT_FOUND, "no such order, or one that is forgotten")

    async def open_orders(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.OpenOrdersRequest, data)
        await self._check_account(context, request.account)
        instrument = self.symbols.get(request.symbol)
        if request.symbol and instrument is None:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, self._unknown(request.symbol))
        wish = pb.FindOrdersRequest(account=request.account)
        homes = [self._entry.engine, *self._links]
        if instrument is not None:
            wish.instrument = instrument.id
            homes = [self._entry.home(instrument.id)]
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
        if home == self._entry.engine:
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

    async def _ask(self, batch: Batch) -> bytes:
        """Send one command, and give the report that answers it."""
        home = self._entry.home(batch.instrument[0])
        found, _ = await self._answers(batch, [home])
        if not found:
            row = ReportRow(pb.REPORT_UNKNOWN, batch.client_order_id[0], 0, 0, 0, 0, 0, 0, 0, 0, 0, OUTCOME_UNKNOWN)
            found = [_Answer(home, 0, 0, 0, row)]
        return self._report(batch.account, found[0]).SerializeToString()

    async def _answers(self, batch: Batch, homes: list[int]) -> tuple[list[_Answer], list[int]]:
        call = _Call(batch.account, batch.client_order_id[0], homes)
        self._hub.follow(call)
        try:
            self._entry.take(batch.account, 0, batch.stp, write_batch(batch), call)
            return await call.answers()
        finally:
            self._hub.unfollow(call)

    # What is said

    def _instrument(self, symbol: str) -> Instrument:
        instrument = self.symbols.get(symbol)
        if instrument is None:
            raise BadValueError(UNKNOWN_INSTRUMENT, self._unknown(symbol))
        return instrument

    def _unknown(self, symbol: str) -> str:
        return explain(UNKNOWN_INSTRUMENT, symbol=symbol, symbols=self.symbols)

    def _refusal(self, request: Any, refused: BadValueError) -> bytes:
        return pb.Report(
            kind=pb.REPORT_REFUSED,
            reason=refused.reason,  # type: ignore[arg-type]
            home=self._entry.engine,
            account=request.account,
            client_order_id=request.client_order_id,
            symbol=request.symbol,
            detail=cut(str(refused)),
        ).SerializeToString()

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
        instrument = self._instruments.get(row.instrument)
        if row.kind == REFUSED or row.kind == pb.REPORT_UNKNOWN:
            market = self._venue.markets.get(row.instrument)
            state = "" if market is None else STATES[market.state - 1]
            report.detail = explain(row.reason, instrument, symbols=self.symbols, state=state)
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
        instrument = self._instruments[order.instrument]
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
            _say_more(shown_order, more, instrument)
        return shown_order

    async def _check_account(self, context: Any, account: int) -> None:
        if not account:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "no account is named")
        if self._venue.allowed and account not in self._venue.allowed:
            await abort(context, grpc.StatusCode.PERMISSION_DENIED, f"account {account} may not trade here")


async def _begin(follower: Follower, home: int, link: HomeLink) -> None:
    """Begin live at a home, as soon as it has said where the account stands."""
    last = await link.standing(follower.account)
    if last is not None and home not in follower.cursors:
        follower.stands(home, 1, last)


def _say_more(said: pb.Order, more: More, instrument: Instrument) -> None:
    """What an order is beyond a plain one."""
    tick, lot, terms = instrument.tick_size, instrument.lot_size, more.terms
    if said.type in (pb.ORDER_TYPE_STOP, pb.ORDER_TYPE_STOP_LIMIT):
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


def _flags(side: int, kind: int, force: int, post_only: bool, all_or_none: bool, *, capped: bool) -> int:
    """Raises: BadValueError for numbers that mean nothing, before they could run into other bits."""
    if not 0 <= side <= 1 or not 0 <= kind <= 7 or not 0 <= force <= 7:
        raise BadValueError(MALFORMED, "unknown side, type or time in force")
    flags = side | kind << TYPE_SHIFT | force << TIF_SHIFT
    return flags | post_only * POST_ONLY | all_or_none * ALL_OR_NONE | capped * CAPPED


def _terms(request: pb.NewOrderRequest, instrument: Instrument) -> Terms | None:
    """What a new order says beside the plain columns, if anything. Raises: BadValueError."""
    tick, lot = instrument.tick_size, instrument.lot_size
    stops = request.type in (pb.ORDER_TYPE_STOP, pb.ORDER_TYPE_STOP_LIMIT)
    terms = Terms(
        ticks_of(request.stop_price, tick) if request.stop_price or stops else 0,
        lots_of(request.display, lot) if request.display else 0,
        lots_of(request.minimum, lot) if request.minimum else 0,
        request.expires_ns,
        ticks_of(request.offset, tick) if request.offset else 0,
        request.oco,
    )
    return terms if any(terms) else None


def _one(
    request: Any,
    op: int,
    instrument: Instrument | None,
    *,
    self_trade_prevention: int = 0,
    flags: int = 0,
    price: int = 0,
    quantity: int = 0,
    target: int = 0,
    terms: Terms | None = None,
) -> Batch:
    """A batch of one command."""
    if not STP_CANCEL_NEWEST <= self_trade_prevention <= STP_DECREMENT:
        raise BadValueError(MALFORMED, "unknown self-trade prevention")
    return Batch(
        request.account,
        0,
        self_trade_prevention,
        [op],
        [request.client_order_id],
        [0 if instrument is None else instrument.id],
        [flags],
        [price],
        [quantity],
        [target],
        None if terms is None else [terms],
    )


_M = TypeVar("_M", bound=Message)


async def parse(context: Any, kind: type[_M], data: bytes) -> _M:
    """The message of that kind; aborts the call if the bytes are none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"garbled: not a {kind.DESCRIPTOR.name}")


_ENDED: Final = (grpc.StatusCode.OK, "")


async def finish(context: Any, how: tuple[grpc.StatusCode, str]) -> None:
    """End a stream, with a status if it did not end well."""
    if how != _ENDED:
        await end(context, *how)


async def abort(context: Any, code: grpc.StatusCode, details: str) -> NoReturn:
    """End a call with a status; the library's own `abort` does not say that it never returns."""
    await context.abort(code, details)
    raise AssertionError("abort returned")

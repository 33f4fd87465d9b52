"""A matcher so slow and so plain that it can be believed: every question is answered by looking at every order.

Written from the matching rules and the contracts in proto/, not from the engine, of which it shares only the names of
the numbers. It has no ladder, no queue and no index: a book is whichever orders are live, and priority is a sort. What
it says of a log record is a `Said`, in which nothing depends on how the engine keeps its accounts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.types import (
    ACCEPTED,
    BAD_QUANTITY,
    BELOW_FILLED,
    BUY,
    CANCEL,
    CANCELED,
    DISCONNECTED,
    DUPLICATE_ID,
    FLAG_SELL,
    IOC_REMAINDER,
    MAKER,
    MARKET_REMAINDER,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    MEANING_MASK,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    NEW,
    NO_LIQUIDITY,
    NO_REASON,
    NOT_FILLABLE,
    NOTHING_TO_CHANGE,
    NOTIONAL_LIMIT,
    NOTIONAL_TOO_LARGE,
    POST_ONLY,
    PRICE_OUT_OF_LIMITS,
    PRIORITY_KEPT,
    QUANTITY_LIMIT,
    REFUSED,
    REPEAT,
    REPLACE,
    REPLACED,
    REQUEUE,
    SELF_TRADE,
    STP_NONE,
    TIF_FOK,
    TIF_IOC,
    TIF_MASK,
    TOO_LATE,
    TRADED,
    TYPE_MARKET,
    TYPE_MASK,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    WOULD_TRADE,
    WRONG_INSTRUMENT,
    Batch,
    ReportRow,
)
from proto.cluster import Instrument
from proto.feed import ADD, DELETE, END, EXECUTE, MODIFY, SELL

Delta = tuple[int, int, int, int, int, int]


@dataclass
class Said:
    """What one log record causes.

    `reports` has, per account, its numbered reports with their numbers; `repeats` those that have none; `deltas`, per
    channel, what the feed carries.
    """

    reports: dict[int, list[tuple[int, ReportRow]]] = field(default_factory=dict)
    repeats: dict[int, list[ReportRow]] = field(default_factory=dict)
    deltas: dict[int, list[Delta]] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """A command as it was sent: two of one account with the same id are a repeat if they are equal."""

    account: int
    op: int
    client_order_id: int
    instrument: int
    flags: int
    price: int
    quantity: int
    target: int

    @property
    def side(self) -> int:
        return self.flags & FLAG_SELL

    @property
    def is_market(self) -> bool:
        return self.flags & TYPE_MASK == TYPE_MARKET

    @property
    def force(self) -> int:
        return self.flags & TIF_MASK


@dataclass(eq=False)
class Order:
    """An order, live while something is open. `arrival` is when it took its place in the queue."""

    entry: Command
    order_id: int
    session: int
    price: int
    quantity: int
    filled: int
    open: int
    arrival: int

    @property
    def account(self) -> int:
        return self.entry.account

    @property
    def side(self) -> int:
        return self.entry.side

    @property
    def instrument(self) -> int:
        return self.entry.instrument


class Oracle:
    """A venue of one engine, with the engine's commands and none of its haste."""

    def __init__(self, engine: int, instruments: Sequence[Instrument]) -> None:
        self._engine = engine
        self._instruments = {instrument.id: instrument for instrument in instruments}
        self._orders: list[Order] = []
        self._first_answers: dict[tuple[int, int], tuple[Command, ReportRow]] = {}
        self._next_number: dict[int, int] = {}
        self._next_trade: dict[int, int] = {}
        self._clock = 0
        self._said = Said()
        self._event: dict[int, list[Delta]] = {}

    def apply(self, batches: Sequence[Batch]) -> Said:
        self._said = Said()
        for batch in batches:
            columns = (
                batch.op, batch.client_order_id, batch.instrument, batch.flags,
                batch.price, batch.quantity, batch.target,
            )  # fmt: skip
            for row in zip(*columns, strict=True):
                self._command(Command(batch.account, *row), batch.session, batch.stp)
                self._end_event()
        return self._said

    def disconnect(self, account: int, session: int) -> Said:
        self._said = Said()
        for order in self._live(account):
            if order.session == session:
                self._cancel_order(order, 0, DISCONNECTED)
        self._end_event()
        return self._said

    def resting(self, instrument: int, side: int) -> list[tuple[int, int, int]]:
        """(order id, price, open quantity) in order of priority."""
        return [(order.order_id, order.price, order.open) for order in self._queue(instrument, side)]

    # Looking

    def _live(self, account: int) -> list[Order]:
        return [order for order in self._orders if order.open and order.account == account]

    def _queue(self, instrument: int, side: int) -> list[Order]:
        """The live orders of one side of a book: price first, then arrival."""
        live = [order for order in self._orders if order.open and (order.instrument, order.side) == (instrument, side)]
        return sorted(live, key=lambda order: (-order.price if side == BUY else order.price, order.arrival))

    def _opposite(self, order: Command, price: int) -> list[Order]:
        """The resting orders that `order` may trade with at `price`, the first to trade first."""
        others = self._queue(order.instrument, 1 - order.side)
        if order.is_market:
            return others
        return [other for other in others if (other.price <= price if order.side == BUY else other.price >= price)]

    def _find(self, account: int, client_order_id: int) -> Order | None:
        for order in self._orders:
            if (order.account, order.entry.client_order_id) == (account, client_order_id):
                return order
        return None

    # Commands

    def _command(self, command: Command, session: int, stp: int) -> None:
        known = self._first_answers.get((command.account, command.client_order_id))
        if known is None:
            first = {
                NEW: self._new, CANCEL: self._cancel, REPLACE: self._replace
            }.get(command.op, self._mass_cancel)(command, session, stp)  # fmt: skip
            self._first_answers[command.account, command.client_order_id] = command, first
        elif known[0] == command:
            repeat = known[1]._replace(flags=known[1].flags | REPEAT)
            self._said.repeats.setdefault(command.account, []).append(repeat)
        else:
            self._refuse(command, DUPLICATE_ID)

    def _new(self, command: Command, session: int, stp: int) -> ReportRow:
        reason = self._why_not_enter(command, stp)
        if reason:
            return self._refuse(command, reason)
        order_id = (self._engine << 48) + len(self._orders) + 1
        order = Order(
            command, order_id, session, command.price, command.quantity, 0, command.quantity, self._tick()
        )  # fmt: skip
        answer = self._report(ACCEPTED, command.client_order_id, order)
        self._orders.append(order)
        self._trade(order, command.client_order_id, stp)
        return answer

    def _why_not_enter(self, command: Command, stp: int) -> int:
        instrument = self._instruments.get(command.instrument)
        if instrument is None:
            return UNKNOWN_INSTRUMENT
        if command.is_market:
            if not self._queue(command.instrument, 1 - command.side):
                return NO_LIQUIDITY
        elif not instrument.price_min <= command.price <= instrument.price_max:
            return PRICE_OUT_OF_LIMITS
        others = self._opposite(command, command.price)
        if command.flags & POST_ONLY and others:
            return WOULD_TRADE
        if command.force == TIF_FOK:
            within_reach = 0
            for other in others:
                if other.account == command.account and stp != STP_NONE:
                    break
                within_reach += other.open
            if within_reach < command.quantity:
                return NOT_FILLABLE
        return NO_REASON

    def _cancel(self, command: Command, session: int, stp: int) -> ReportRow:
        order = self._target(command)
        if isinstance(order, int):
            return self._refuse(command, order)
        return self._cancel_order(order, command.client_order_id, NO_REASON)

    def _target(self, command: Command) -> Order | int:
        """The live order a command is about, or why there is none."""
        order = self._find(command.account, command.target)
        if order is None:
            return UNKNOWN_ORDER if command.instrument in self._instruments else UNKNOWN_INSTRUMENT
        if order.instrument != command.instrument:
            return WRONG_INSTRUMENT
        return order if order.open else TOO_LATE

    def _replace(self, command: Command, session: int, stp: int) -> ReportRow:
        order = self._target(command)
        if isinstance(order, int):
            return self._refuse(command, order)
        meaning = command.flags & MEANING_MASK
        total = command.quantity
        if meaning == MEANING_OPEN:
            total = order.filled + command.quantity
        elif meaning == MEANING_REDUCE_BY:
            total = order.quantity - command.quantity
        requeue = bool(command.flags & REQUEUE)
        reason = self._why_not_replace(order, command.price, total, requeue)
        if reason:
            return self._refuse(command, reason)
        keeps_place = command.price == order.price and total < order.quantity and not requeue
        if keeps_place:
            order.quantity = total
            order.open = total - order.filled
            self._tell(order, MODIFY, 0, order.open)
            return self._report(REPLACED, command.client_order_id, order, flags=PRIORITY_KEPT)
        self._tell(order, DELETE)
        order.price = command.price
        order.quantity = total
        order.open = total - order.filled
        order.arrival = self._tick()
        answer = self._report(REPLACED, command.client_order_id, order)
        self._trade(order, command.client_order_id, stp)
        return answer

    def _why_not_replace(self, order: Order, price: int, total: int, requeue: bool) -> int:
        instrument = self._instruments[order.instrument]
        if total <= order.filled:
            return BELOW_FILLED
        if total >= QUANTITY_LIMIT:
            return BAD_QUANTITY
        if abs(price * total) >= NOTIONAL_LIMIT:
            return NOTIONAL_TOO_LARGE
        if not instrument.price_min <= price <= instrument.price_max:
            return PRICE_OUT_OF_LIMITS
        if (price, total) == (order.price, order.quantity) and not requeue:
            return NOTHING_TO_CHANGE
        if order.entry.flags & POST_ONLY and self._opposite(order.entry, price):
            return WOULD_TRADE
        return NO_REASON

    def _mass_cancel(self, command: Command, session: int, stp: int) -> ReportRow:
        if command.instrument and command.instrument not in self._instruments:
            return self._refuse(command, UNKNOWN_INSTRUMENT)
        canceled = 0
        for order in self._live(command.account):
            if command.instrument in (0, order.instrument):
                self._cancel_order(order, 0, MASS_CANCEL_REASON)
                canceled += 1
        answer = ReportRow(
            MASS_CANCELED, command.client_order_id, 0, 0, command.instrument, 0, 0, canceled, 0, 0, 0, NO_REASON
        )  # fmt: skip
        return self._say(command.account, answer)

    # What happens to orders

    def _trade(self, order: Order, command: int, stp: int) -> None:
        """Trade while there is somebody to trade with, then rest or go."""
        reason = NO_REASON
        for other in self._opposite(order.entry, order.price):
            if other is order or not order.open:
                break
            if other.account == order.account and stp != STP_NONE:
                reason = SELF_TRADE
                break
            quantity = min(order.open, other.open)
            trade_id = self._next_trade[order.instrument] = self._next_trade.get(order.instrument, 0) + 1
            for party in (order, other):
                party.open -= quantity
                party.filled += quantity
            for party, asked, flags in ((order, command, 0), (other, 0, MAKER)):
                self._report(
                    TRADED, asked, party, flags=flags, price=other.price, quantity=quantity, trade_id=trade_id
                )  # fmt: skip
            self._tell(other, EXECUTE, other.price, quantity, trade_id)
        if not order.open:
            return
        if reason == NO_REASON and order.entry.is_market:
            reason = MARKET_REMAINDER
        elif reason == NO_REASON and order.entry.force in (TIF_IOC, TIF_FOK):
            reason = IOC_REMAINDER
        if reason:
            order.open = 0
            self._report(CANCELED, 0, order, reason=reason)
        else:
            self._tell(order, ADD, order.price, order.open)

    def _cancel_order(self, order: Order, command: int, reason: int) -> ReportRow:
        order.open = 0
        self._tell(order, DELETE)
        return self._report(CANCELED, command, order, reason=reason)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    # What is said of it

    def _refuse(self, command: Command, reason: int) -> ReportRow:
        concerned = command.client_order_id if command.op == NEW else command.target
        return self._say(command.account, ReportRow(
            REFUSED, command.client_order_id, concerned, 0, command.instrument, command.side,
            command.price, command.quantity, 0, 0, 0, reason,
        ))  # fmt: skip

    def _report(
        self,
        kind: int,
        command: int,
        order: Order,
        flags: int = 0,
        price: int | None = None,
        quantity: int | None = None,
        trade_id: int = 0,
        reason: int = NO_REASON,
    ) -> ReportRow:
        return self._say(order.account, ReportRow(
            kind, command, order.entry.client_order_id, order.order_id, order.instrument, order.side | flags,
            order.price if price is None else price, order.quantity if quantity is None else quantity,
            order.open, order.filled, trade_id, reason,
        ))  # fmt: skip

    def _say(self, account: int, row: ReportRow) -> ReportRow:
        number = self._next_number.get(account, 1)
        self._next_number[account] = number + 1
        self._said.reports.setdefault(account, []).append((number, row))
        return row

    def _tell(self, order: Order, op: int, price: int = 0, quantity: int = 0, trade_id: int = 0) -> None:
        channel = self._instruments[order.instrument].channel
        delta = op | order.side * SELL, order.instrument, order.order_id, price, quantity, trade_id
        self._event.setdefault(channel, []).append(delta)

    def _end_event(self) -> None:
        for channel, deltas in self._event.items():
            op, *rest = deltas.pop()
            self._said.deltas.setdefault(channel, []).extend([*deltas, (op | END, *rest)])  # type: ignore[arg-type]
        self._event = {}

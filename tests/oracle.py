"""A matcher so slow and so plain that it can be believed: every question is answered by looking at every order.

Written from engine/RULES.md and the contracts in proto/, not from the engine, of which it shares only the names of the
numbers. It has no ladder, no queue and no index: a book is whichever orders are live, priority is a sort, and what
would happen is found out by letting it happen to a copy. What it says of a log record is a `Said`, in which nothing
depends on how the engine keeps its accounts.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine.core.commands import (
    AddInstrument,
    BustTrade,
    ChangeInstrument,
    CorrectTrade,
    Delist,
    Kill,
    OperatorCommand,
    Roll,
    SetAccounts,
    SetState,
)
from engine.core.limits import LIMITS, Limits
from proto import feed
from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    AUCTION_TRADE,
    BAD_EXPIRY,
    BAD_LINK,
    BAD_OFFSET,
    BAD_QUANTITY,
    BAND,
    BELOW_FILLED,
    BUSTED,
    BUY,
    CANCEL,
    CANCELED,
    CAPPED,
    COLLAR,
    CORRECTED,
    DELISTED,
    DISCONNECTED,
    DISPLAY_TOO_SMALL,
    DUPLICATE_ID,
    EXPIRED,
    FLAG_SELL,
    HALTED_REASON,
    IOC_REMAINDER,
    KILLED,
    MAKER,
    MALFORMED,
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
    NOTIONAL_ABOVE_MAX,
    NOTIONAL_LIMIT,
    NOTIONAL_TOO_LARGE,
    OCO,
    POST_ONLY,
    PRICE_OUT_OF_LIMITS,
    PRIORITY_KEPT,
    QUANTITY_ABOVE_MAX,
    QUANTITY_LIMIT,
    REFUSED,
    REPEAT,
    REPLACE,
    REPLACED,
    REQUEUE,
    RESTATED,
    SELF_TRADE,
    SELL,
    STP_CANCEL_BOTH,
    STP_CANCEL_NEWEST,
    STP_CANCEL_OLDEST,
    STP_NONE,
    TIF_DAY,
    TIF_FOK,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TOO_LATE,
    TOO_MANY_TRADES,
    TOO_MANY_WAITING,
    TRADED,
    TRIGGERED,
    TYPE_ICEBERG,
    TYPE_LIMIT,
    TYPE_MARKET,
    TYPE_MASK,
    TYPE_PEG_BID,
    TYPE_PEG_MID,
    TYPE_PEG_OFFER,
    TYPE_STOP,
    TYPE_STOP_LIMIT,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    UNKNOWN_TRADE,
    WOULD_TRADE,
    WRONG_INSTRUMENT,
    WRONG_STATE,
    Batch,
    ReportRow,
    Terms,
)
from proto.instrument import PRO_RATA, STATES, Instrument

PRE_OPEN, OPEN, HALTED, AUCTION, CLOSED = range(1, len(STATES) + 1)
CALLS = (PRE_OPEN, AUCTION)  # where orders gather and none trades
STOPS = (TYPE_STOP, TYPE_STOP_LIMIT)
PEGS = (TYPE_PEG_BID, TYPE_PEG_OFFER, TYPE_PEG_MID)

# A decoded delta; those that carry an extra have it behind the instrument: (op, instrument, *extra).
Delta = tuple[int | str, ...]


@dataclass
class Said:
    """What one log record causes.

    `reports` has, per account, its numbered reports with their numbers; `repeats` those that have none; `deltas`, per
    channel, what the feed carries; `refused` why an operator's command had no effect.
    """

    reports: dict[int, list[tuple[int, ReportRow]]] = field(default_factory=dict)
    repeats: dict[int, list[ReportRow]] = field(default_factory=dict)
    deltas: dict[int, list[Delta]] = field(default_factory=dict)
    refused: int = NO_REASON


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
    terms: Terms

    def __deepcopy__(self, memo: object) -> "Command":
        return self

    @property
    def side(self) -> int:
        return self.flags & FLAG_SELL

    @property
    def kind(self) -> int:
        return self.flags & TYPE_MASK

    @property
    def force(self) -> int:
        return self.flags & TIF_MASK

    @property
    def looks_at_price(self) -> bool:
        return self.kind in (TYPE_LIMIT, TYPE_STOP_LIMIT, TYPE_ICEBERG) or (self.kind in PEGS and self.capped)

    @property
    def capped(self) -> bool:
        return bool(self.flags & CAPPED)

    @property
    def at_once(self) -> bool:
        """Nothing of it may rest."""
        return self.kind == TYPE_MARKET or self.force in (TIF_IOC, TIF_FOK)

    @property
    def fill_or_kill(self) -> bool:
        return self.force == TIF_FOK or (self.force == TIF_IOC and bool(self.flags & ALL_OR_NONE))


@dataclass(eq=False)
class Order:
    """An order, live while something is open.

    `where` it is: "incoming" while it trades, on the "book", "aside" (off the book, waiting for its condition), or
    "asleep" (a stop that is not breached, a peg that stands nowhere). `turn` is when it took its place among those who
    wait, `arrival` when what is shown of it took its place in the queue.
    """

    entry: Command
    session: int
    stp: int
    kind: int
    price: int
    quantity: int
    open: int
    all_or_none: bool
    minimum: int
    cap: int
    stop_price: int
    order_id: int = 0
    public_id: int = 0
    filled: int = 0
    tip: int = 0
    where: str = "incoming"
    turn: int = 0
    arrival: int = 0
    partner: "Order | None" = None
    picky: bool = False  # it set out to trade under a condition, so only with what is shown

    @property
    def account(self) -> int:
        return self.entry.account

    @property
    def side(self) -> int:
        return self.entry.side

    @property
    def instrument(self) -> int:
        return self.entry.instrument

    @property
    def display(self) -> int:
        return self.entry.terms.display

    @property
    def conditional(self) -> bool:
        return self.all_or_none or self.minimum > 0

    @property
    def need(self) -> int:
        """What a conditional order must get at once."""
        return self.open if self.all_or_none else min(self.minimum, self.open)

    @property
    def shown(self) -> int:
        return self.tip if self.kind == TYPE_ICEBERG else self.open


def order_of(command: Command, session: int, stp: int) -> Order:
    waits = not command.at_once
    return Order(
        command, session, stp, command.kind, command.price, command.quantity, command.quantity,
        all_or_none=waits and bool(command.flags & ALL_OR_NONE),
        minimum=command.terms.minimum if waits else 0,
        cap=command.price,
        stop_price=command.terms.stop_price,
    )  # fmt: skip


def better(side: int, price: int, other: int) -> bool:
    """Whether to buy (or sell) at `price` is to offer more (or ask less) than at `other`."""
    return price > other if side == BUY else price < other


@dataclass
class Ids:
    """The counter of the engine's order ids."""

    engine: int
    last: int = 0

    def next(self) -> int:
        self.last += 1
        return (self.engine << 48) + self.last


class Market:
    """One instrument: its live orders in no order at all, and what is said of them on the tape."""

    def __init__(self, definition: Instrument, ids: Ids, tape: list[object], limits: Limits) -> None:
        self.definition = definition
        self.limits = limits
        self.unsettled = False
        self.ids = ids
        self.tape = tape
        self.state = STATES.index(definition.state) + 1
        self.delisted = False
        self.orders: list[Order] = []
        self.last: int | None = None
        self.band_reference = definition.auction_reference
        self.statistics = [0] * 7
        self.indicated = 0, 0, 0
        self.session = 1
        self._trades = 0
        self._clock = 0

    # Looking

    def live(self) -> list[Order]:
        """By order id."""
        return sorted((order for order in self.orders if order.open), key=lambda order: order.order_id)

    def by_turn(self) -> list[Order]:
        return sorted(self.live(), key=lambda order: order.turn)

    def queue(self, side: int) -> list[Order]:
        """What stands on the book, in order of priority."""
        there = [order for order in self.live() if order.where == "book" and order.side == side]
        return sorted(there, key=lambda order: (-order.price if side == BUY else order.price, order.arrival))

    def within(self, order: Order) -> list[Order]:
        """Whom an incoming order would meet, in that order: at each price those on the book, then those aside."""
        meets = []
        for other in self.live():
            if other.side == order.side or (order.kind != TYPE_MARKET and better(order.side, other.price, order.price)):
                continue
            if other.where == "book":
                meets.append((other.price, 0, other.arrival, other))
            elif other.where == "aside" and other.conditional and not order.picky and other.need <= order.open:
                meets.append((other.price, 1, other.turn, other))
        return [
            other for *_, other in sorted(meets, key=lambda met: (met[0] if order.side == BUY else -met[0], *met[1:3]))
        ]

    def someone_on(self, side: int) -> bool:
        return any(order.side == side and order.where in ("book", "aside") for order in self.live())

    def best(self, side: int, pegs: bool = True) -> int | None:
        """The best price on the book, with or without what pegged orders show."""
        prices = [order.price for order in self.queue(side) if pegs or order.kind not in PEGS]
        return prices[0] if prices else None

    def breached(self, order: Order) -> bool:
        return order.where == "asleep" and order.kind in STOPS and self.breaches(order)

    def breaches(self, order: Order) -> bool:
        return self.last is not None and not better(1 - order.side, self.last, order.stop_price)

    def peg_price(self, order: Order) -> int | None:
        """Where a peg should stand; None: nowhere."""
        bid, offer = self.best(BUY, pegs=False), self.best(1, pegs=False)
        if order.kind == TYPE_PEG_BID:
            reference = bid
        elif order.kind == TYPE_PEG_OFFER:
            reference = offer
        elif bid is None or offer is None:
            reference = None
        else:
            reference = (bid + offer) // 2 if order.side == BUY else -(-(bid + offer) // 2)
        if reference is None:
            return None
        price = reference + order.entry.terms.offset
        if order.entry.capped:
            price = min(price, order.cap) if order.side == BUY else max(price, order.cap)
        return price if self.definition.price_min <= price <= self.definition.price_max else None

    def trial(self, order: Order) -> int:
        """How much of an order would trade at once: a copy of it does, in a copy of the market."""
        memo = {id(self.definition): self.definition, id(self.tape): []}
        market, same = copy.deepcopy((self, order), memo)
        same.where, same.picky = "incoming", same.conditional
        market.trade(same, 0)
        return same.filled - order.filled

    # Entering

    def enter(self, order: Order, command: int) -> None:
        """An order that was accepted or replaced goes where it belongs."""
        order.turn = self.tick()
        if self.state in CALLS:
            self.rest(order)
        elif order.kind in STOPS:
            if self.breaches(order):
                self.fire(order, command)
            else:
                order.where = "asleep"
        elif order.kind in PEGS:
            self.stand(order, command)
        elif not order.conditional or self.trial(order) >= order.need:
            self.take(order, command)
        else:
            order.where = "aside"

    def rest(self, order: Order) -> None:
        if order.kind in STOPS or order.kind in PEGS:
            order.where = "asleep"
        elif order.conditional:
            order.where = "aside"
        else:
            self.place(order)

    def place(self, order: Order) -> None:
        """Show it on the book, at the back of its level."""
        order.where = "book"
        order.arrival = self.tick()
        if order.kind == TYPE_ICEBERG:
            order.tip = min(order.display, order.open)
        if not order.public_id:
            order.public_id = order.order_id
        elif order.kind == TYPE_ICEBERG:
            order.public_id = self.ids.next()
        self.tell(order, feed.ADD, order.price, order.shown)

    def fire(self, order: Order, command: int) -> None:
        order.where = "incoming"
        order.kind = TYPE_MARKET if order.kind == TYPE_STOP else TYPE_LIMIT
        self.report(TRIGGERED, order, command)
        self.sever(order)
        if order.kind == TYPE_MARKET and not self.someone_on(1 - order.side):
            self.cancel(order, 0, NO_LIQUIDITY)
        else:
            self.take(order, command)

    def stand(self, order: Order, command: int) -> None:
        """Put a peg, which is off the book now, where it should stand."""
        price = self.peg_price(order)
        order.where = "asleep"
        if price is None:
            return
        stood = order.price
        order.price = price
        if order.entry.flags & POST_ONLY and self.would_take(order):
            order.price = stood
            self.cancel(order, 0, WOULD_TRADE)
        else:
            self.take(order, command)

    def would_take(self, order: Order) -> bool:
        return any(other.where == "book" for other in self.within(order))

    # Trading

    def take(self, order: Order, command: int) -> None:
        """Trade while there is somebody to trade with, then rest or go."""
        order.where, order.picky = "incoming", order.conditional
        reason = self.trade(order, command)
        if reason == BAND:
            self.state = AUCTION
            self.indicated = 0, 0, 0
            self.announce(BAND)
        if order.open:
            if reason in (SELF_TRADE, TOO_MANY_TRADES):
                self.cancel(order, 0, reason)
            elif order.kind == TYPE_MARKET or order.entry.at_once:
                self.cancel(order, 0, HALTED_REASON if reason == BAND else self.remainder(order))
            elif reason == BAND:
                self.rest(order)
            else:
                self.place(order)
        if reason == BAND:
            self.pegs_leave()
            self.indicate()
            self.tell_statistics()

    def remainder(self, order: Order) -> int:
        """Why what is left of an order that cannot rest is canceled."""
        if order.kind != TYPE_MARKET:
            return IOC_REMAINDER
        held_back = self.definition.collar and self.best(1 - order.side) is not None
        return COLLAR if held_back else MARKET_REMAINDER

    def trade(self, order: Order, command: int) -> int:
        """What an incoming order trades, and why it must stop although it could go on (NO_REASON: it could not)."""
        collar = self.collar(order)
        most = self._trades + self.limits.trades
        while order.open and not order.entry.flags & POST_ONLY:
            others = self.within(order)
            if not others:
                break
            first = others[0]
            if collar is not None and better(order.side, first.price, collar):
                break
            band = self.definition.band
            if band and abs(first.price - self.band_reference) > band:
                return BAND
            level = [other for other in others if other.where == "book" and other.price == first.price]
            own = [other for other in level or others[:1] if other.account == order.account and order.stp != STP_NONE]
            if not level or self.definition.allocation != PRO_RATA:
                own = own if first in own else []
            if own:
                if self.prevent(order, own[0], command):
                    return SELF_TRADE
            elif self._trades == most:
                return TOO_MANY_TRADES
            elif level and self.definition.allocation == PRO_RATA:
                if not self.share(order, level, command, most):
                    return TOO_MANY_TRADES
            else:
                self.execute(order, first, min(order.open, first.shown), command)
        return NO_REASON

    def collar(self, order: Order) -> int | None:
        """The last price at which a market order may trade."""
        if order.kind != TYPE_MARKET or not self.definition.collar:
            return None
        reference = self.last if self.last is not None else self.best(1 - order.side)
        if reference is None:
            return None
        return reference + self.definition.collar if order.side == BUY else reference - self.definition.collar

    def share(self, order: Order, level: list[Order], command: int, most: int) -> bool:
        """Pro-rata: each gets its part of what comes in, rounded down; what is left goes to the first. Whether trade
        `most` is not exceeded with that."""
        incoming = order.open
        whole = sum(other.open for other in level)
        parts = [min(other.open, incoming * other.open // whole) for other in level]
        left = min(incoming, whole) - sum(parts)
        for i, other in enumerate(level):
            more = min(left, other.open - parts[i])
            parts[i] += more
            left -= more
        for other, part in zip(level, parts, strict=True):
            while part and other.open:
                if self._trades == most:
                    return False
                slice_ = min(part, other.shown)
                part -= slice_
                self.execute(order, other, slice_, command)
        return True

    def execute(self, taker: Order, maker: Order, quantity: int, command: int) -> None:
        trade_id = self.count(taker, maker, maker.price, quantity)
        self.report(TRADED, taker, command, 0, maker.price, quantity, trade_id)
        self.report(TRADED, maker, 0, MAKER, maker.price, quantity, trade_id)
        if maker.where == "book":
            self.tell(maker, feed.EXECUTE, maker.price, quantity, trade_id)
            self.refill(maker)
        else:
            self.tape.append(
                (feed.TRADE | taker.side * feed.SELL, self.definition.id, 0, maker.price, quantity, trade_id)
            )
        self.sever(taker)
        self.sever(maker)

    def count(self, one: Order, other: Order, price: int, quantity: int) -> int:
        """Book a trade of two orders and give it a number."""
        for party in (one, other):
            party.open -= quantity
            party.filled += quantity
            party.minimum = 0
            party.tip -= quantity if party.where == "book" and party.kind == TYPE_ICEBERG else 0
        self.last = price
        before = self.statistics
        highest, lowest = (max(before[1], price), min(before[2], price)) if before[6] else (price, price)
        self.statistics = [
            before[0] if before[6] else price, highest, lowest, price,
            before[4] + quantity, before[5] + price * quantity, before[6] + 1,
        ]  # fmt: skip
        self._trades += 1
        return self._trades

    def refill(self, order: Order) -> None:
        if order.kind == TYPE_ICEBERG and order.open and not order.tip:
            self.place(order)

    def prevent(self, order: Order, own: Order, command: int) -> bool:
        """An incoming order meets one of its own account; whether that is the end of it."""
        if order.stp == STP_CANCEL_NEWEST:
            return True
        if order.stp in (STP_CANCEL_OLDEST, STP_CANCEL_BOTH):
            self.cancel(own, 0, SELF_TRADE)
            return order.stp == STP_CANCEL_BOTH
        less = min(order.open, own.open)
        self.shrink(own, less, 0)
        if order.open:
            self.shrink(order, less, command)
        return False

    def shrink(self, order: Order, less: int, command: int) -> None:
        """Decrement one of two orders of an account."""
        if order.open == less:
            self.cancel(order, 0, SELF_TRADE)
            return
        order.quantity -= less
        self.reduce(order, order.open - less)
        self.report(RESTATED, order, command, reason=SELF_TRADE)

    def reduce(self, order: Order, left: int) -> None:
        """Leave so much open, in its place; what is hidden goes first."""
        shown = order.shown
        order.open = left
        order.tip = min(order.tip, left)
        if order.where == "book" and order.shown < shown:
            self.tell(order, feed.MODIFY, 0, order.shown)

    # Leaving

    def cancel(self, order: Order, command: int, reason: int) -> ReportRow:
        self.unshow(order)
        order.open = 0
        answer = self.report(CANCELED, order, command, reason=reason)
        self.sever(order)
        return answer

    def unshow(self, order: Order) -> None:
        if order.where == "book":
            self.tell(order, feed.DELETE)
            order.where = "incoming"

    def sever(self, order: Order) -> None:
        """One of a pair traded, fired or went: the other goes."""
        other, order.partner = order.partner, None
        if other is not None:
            other.partner = None
            if other.open:
                self.cancel(other, 0, OCO)

    # Settling

    def settle(self) -> None:
        begun, steps, self.unsettled = self._trades, 0, False
        while self.state == OPEN and not self.unsettled:
            if self._trades - begun + steps >= self.limits.settling:
                self.unsettled = True
            elif self.settle_once():
                steps += 1
            else:
                break

    def settle_once(self) -> bool:
        """The first of all that may happen happens; whether there was any."""
        for order in self.by_turn():
            if order.where == "aside" and not order.conditional:
                self.take(order, 0)
                return True
        for order in self.by_turn():
            if self.breached(order):
                self.fire(order, 0)
                return True
        for order in self.by_turn():
            if order.where == "aside" and self.trial(order) >= order.need:
                self.take(order, 0)
                return True
        for order in self.by_turn():
            if order.kind in PEGS and self.peg_price(order) != (order.price if order.where == "book" else None):
                self.unshow(order)
                self.stand(order, 0)
                return True
        return False

    # States

    def change_state(self, state: int, reason: int) -> None:
        before = self.state
        if state == OPEN or (before, state) == (AUCTION, CLOSED):
            self.uncross()
        self.state = state
        self.announce(reason)
        if before == OPEN:
            self.pegs_leave()
        if state == CLOSED:
            for order in self.live():
                if order.open and order.entry.force == TIF_DAY:
                    self.cancel(order, 0, EXPIRED)
        self.settle()
        if self.state == state:  # else settling halted it, and said so
            self.indicated = 0, 0, 0
            self.indicate()
            self.tell_statistics()

    def pegs_leave(self) -> None:
        for order in self.by_turn():
            if order.kind in PEGS and order.where == "book":
                self.unshow(order)
                order.where = "asleep"

    def crossing(self) -> tuple[int, int, int]:
        """The price of an uncross, its volume and its imbalance; all 0 where nothing would trade."""
        bid, offer = self.best(BUY), self.best(1)
        if bid is None or offer is None or bid < offer:
            return 0, 0, 0
        reference = self.last if self.last is not None else self.definition.auction_reference
        choices = []
        for price in range(offer, bid + 1):
            buys = sum(order.open for order in self.queue(BUY) if order.price >= price)
            sells = sum(order.open for order in self.queue(1) if order.price <= price)
            volume, imbalance = min(buys, sells), buys - sells
            choices.append((-volume, abs(imbalance), abs(price - reference), price, imbalance))
        best = min(choices)
        return best[3], -best[0], best[4]

    def uncross(self) -> None:
        while self.crossing()[1]:
            price, _, _ = self.crossing()
            self.band_reference = price
            while True:
                buys = [order for order in self.queue(BUY) if order.price >= price]
                sells = [order for order in self.queue(1) if order.price <= price]
                if not buys or not sells:
                    break
                self.match(buys[0], sells[0], price)

    def match(self, buy: Order, sell: Order, price: int) -> None:
        quantity = min(buy.shown, sell.shown)
        trade_id = self.count(buy, sell, price, quantity)
        for party in (buy, sell):
            self.report(TRADED, party, 0, AUCTION_TRADE, price, quantity, trade_id)
        for party in (buy, sell):
            self.tell(party, feed.EXECUTE, price, quantity, trade_id)
        self.refill(buy)
        self.refill(sell)
        self.sever(buy)
        self.sever(sell)

    def indicate(self) -> None:
        if self.state in CALLS and self.crossing() != self.indicated:
            self.indicated = self.crossing()
            self.tape.append((feed.INDICATION, self.definition.id, *self.indicated))

    def end_event(self) -> None:
        """What an event that touched this market ends with."""
        self.settle()
        self.indicate()

    # Saying

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    def report(
        self,
        kind: int,
        order: Order,
        command: int,
        flags: int = 0,
        price: int | None = None,
        quantity: int | None = None,
        trade_id: int = 0,
        reason: int = NO_REASON,
    ) -> ReportRow:
        row = ReportRow(
            kind, command, order.entry.client_order_id, order.order_id, order.instrument, order.side | flags,
            order.price if price is None else price, order.quantity if quantity is None else quantity,
            order.open, order.filled, trade_id, reason,
        )  # fmt: skip
        self.tape.append((order.account, row))
        return row

    def tell(self, order: Order, op: int, price: int = 0, quantity: int = 0, trade_id: int = 0) -> None:
        self.tape.append((
            op | order.side * feed.SELL, self.definition.id, order.public_id, price, quantity, trade_id
        ))  # fmt: skip

    def announce(self, reason: int) -> None:
        self.tape.append((feed.STATUS, self.definition.id, self.state, reason))

    def tell_statistics(self) -> None:
        self.tape.append((feed.STATISTICS, self.definition.id, *self.statistics))


@dataclass
class Trade:
    """What was said of a trade to its parties, and what became of it."""

    rows: list[tuple[int, ReportRow]]
    session: int
    busted: bool = False


class Oracle:
    """A venue of one engine, with the engine's commands and none of its haste."""

    def __init__(self, engine: int, instruments: Sequence[Instrument], limits: Limits = LIMITS) -> None:
        self._ids = Ids(engine)
        self._tape: list[object] = []
        self._limits = limits
        self.markets = {each.id: Market(each, self._ids, self._tape, limits) for each in instruments}
        self._known: list[Order] = []
        self._first_answers: dict[tuple[int, int], tuple[Command, ReportRow]] = {}
        self._next_number: dict[int, int] = {}
        self._trades: dict[tuple[int, int], Trade] = {}
        self._kills: set[tuple[int, int]] = set()
        self._time = 0
        self._said = Said()

    # The ways in

    def apply(self, time_ns: int, batches: Sequence[Batch]) -> Said:
        self._begin(time_ns)
        for batch in batches:
            columns = (
                batch.op, batch.client_order_id, batch.instrument, batch.flags,
                batch.price, batch.quantity, batch.target, batch.terms or [Terms()] * len(batch),
            )  # fmt: skip
            for row in zip(*columns, strict=True):
                self._command(Command(batch.account, *row), batch.session, batch.stp)
                self._end_event()
        return self._said

    def disconnect(self, time_ns: int, account: int, session: int) -> Said:
        self._begin(time_ns)
        self._cancel_all([order for order in self._live(account) if order.session == session], DISCONNECTED)
        self._end_event()
        return self._said

    def tick(self, time_ns: int) -> Said:
        self._begin(time_ns)
        return self._said

    def operate(self, time_ns: int, command: OperatorCommand) -> Said:
        self._begin(time_ns)
        self._said.refused = self._operate(command)
        self._end_event()
        return self._said

    # Looking

    def shown(self, instrument: int, side: int) -> list[tuple[int, int, int]]:
        """(public id, price, quantity) of what the feed shows, in order of priority."""
        return [(order.public_id, order.price, order.shown) for order in self.markets[instrument].queue(side)]

    def levels(self, instrument: int, side: int) -> list[tuple[int, int, int]]:
        """(price, quantity, orders) of each level the feed shows, best first."""
        shown = self.shown(instrument, side)
        prices = dict.fromkeys(price for _, price, _ in shown)
        return [
            (price, sum(q for _, at, q in shown if at == price), sum(at == price for _, at, _ in shown))
            for price in prices
        ]

    def live(self) -> list[Order]:
        """All live orders, wherever they are, by order id."""
        return sorted([order for market in self.markets.values() for order in market.live()], key=lambda o: o.order_id)

    def names(self, account: int) -> list[tuple[int, int, int]]:
        """(client order id, instrument, flags) of the account's live orders, by order id."""
        entries = [order.entry for order in self._live(account)]
        return [(entry.client_order_id, entry.instrument, entry.flags) for entry in entries]

    def _live(self, account: int) -> list[Order]:
        return [order for order in self.live() if order.account == account]

    def _find(self, account: int, client_order_id: int) -> Order | None:
        for order in self._known:
            if (order.account, order.entry.client_order_id) == (account, client_order_id):
                return order
        return None

    def _market(self, instrument: int) -> Market | None:
        market = self.markets.get(instrument)
        return None if market is None or market.delisted else market

    def _killed(self, account: int, instrument: int) -> bool:
        return any(kill in self._kills for kill in ((account, instrument), (account, 0), (0, instrument), (0, 0)))

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
        market = self._market(command.instrument)
        if market is None:
            return self._refuse(command, UNKNOWN_INSTRUMENT)
        reason = self._why_not_enter(market, command, stp)
        if reason:
            return self._refuse(command, reason)
        order = order_of(command, session, stp)
        order.order_id = self._ids.next()
        order.partner = self._partner(command)
        if order.partner is not None:
            order.partner.partner = order
        self._known.append(order)
        market.orders.append(order)
        answer = market.report(ACCEPTED, order, command.client_order_id)
        market.enter(order, command.client_order_id)
        market.end_event()
        return answer

    def _partner(self, command: Command) -> Order | None:
        """The live order that `oco` names, if it may be linked."""
        other = self._find(command.account, command.terms.oco)
        if other is None or not other.open or other.partner is not None or other.instrument != command.instrument:
            return None
        return other

    def _why_not_enter(self, market: Market, command: Command, stp: int) -> int:
        definition, terms = market.definition, command.terms
        if self._killed(command.account, command.instrument):
            return KILLED
        if malformed(command):
            return MALFORMED
        if market.state in (HALTED, CLOSED) or (market.state in CALLS and command.at_once):
            return WRONG_STATE
        prices = [command.price] if command.looks_at_price else []
        prices += [terms.stop_price] if command.kind in STOPS else []
        if not all(definition.price_min <= price <= definition.price_max for price in prices):
            return PRICE_OUT_OF_LIMITS
        if command.kind == TYPE_ICEBERG and not 0 < terms.display < command.quantity:
            return BAD_QUANTITY
        if terms.minimum > command.quantity:
            return BAD_QUANTITY
        if command.kind == TYPE_ICEBERG and command.quantity > terms.display * self._limits.slices:
            return DISPLAY_TOO_SMALL
        reason = above_max(definition, command, command.price, command.quantity)
        if reason:
            return reason
        if command.force == TIF_GTD and terms.expires_ns <= self._time:
            return BAD_EXPIRY
        if bad_offset(command):
            return BAD_OFFSET
        if terms.oco and self._partner(command) is None:
            return BAD_LINK
        if self._too_many(market, order_of(command, 0, stp)):
            return TOO_MANY_WAITING
        return self._why_not_trade(market, command, stp) if market.state == OPEN else NO_REASON

    def _too_many(self, market: Market, order: Order) -> bool:
        """Whether there are too many live orders of a kind that waits for one more."""
        kind = kind_of_waiting(order)
        alike = [other for other in market.live() if kind and kind_of_waiting(other) == kind]
        own = [other for other in alike if other.account == order.account]
        return len(alike) >= self._limits.waiting or len(own) >= self._limits.own

    def _why_not_trade(self, market: Market, command: Command, stp: int) -> int:
        if command.kind in STOPS:
            return NO_REASON
        if command.kind == TYPE_MARKET and not market.someone_on(1 - command.side):
            return NO_LIQUIDITY
        order = order_of(command, 0, stp)
        if command.kind in PEGS:
            price = market.peg_price(order)
            if price is None:
                return NO_REASON
            order.price = price
        if command.flags & POST_ONLY and market.would_take(order):
            return WOULD_TRADE
        need = command.quantity if command.fill_or_kill else command.terms.minimum if command.at_once else 0
        if need:
            order.partner = self._partner(command)
            if order.partner is not None:
                order.partner.partner = order
            would = market.trial(order)
            if order.partner is not None:
                order.partner.partner = None
            if would < need:
                return NOT_FILLABLE
        return NO_REASON

    def _cancel(self, command: Command, session: int, stp: int) -> ReportRow:
        order = self._target(command)
        if isinstance(order, int):
            return self._refuse(command, order)
        market = self.markets[order.instrument]
        if market.state == CLOSED:
            return self._refuse(command, WRONG_STATE)
        answer = market.cancel(order, command.client_order_id, NO_REASON)
        market.end_event()
        return answer

    def _target(self, command: Command) -> Order | int:
        """The live order a command is about, or why there is none."""
        order = self._find(command.account, command.target)
        if order is None:
            return UNKNOWN_INSTRUMENT if self._market(command.instrument) is None else UNKNOWN_ORDER
        if order.instrument != command.instrument:
            return WRONG_INSTRUMENT
        return order if order.open else TOO_LATE

    def _replace(self, command: Command, session: int, stp: int) -> ReportRow:
        order = self._target(command)
        if isinstance(order, int):
            return self._refuse(command, order)
        market = self.markets[order.instrument]
        meaning = command.flags & MEANING_MASK
        total = command.quantity
        if meaning == MEANING_OPEN:
            total = order.filled + command.quantity
        elif meaning == MEANING_REDUCE_BY:
            total = order.quantity - command.quantity
        limit = order.cap if order.kind in PEGS else order.price
        price = command.price if order.entry.looks_at_price else limit
        stop_price = command.terms.stop_price if order.kind in STOPS else order.stop_price
        requeue = bool(command.flags & REQUEUE)
        same_price = (price, stop_price) == (limit, order.stop_price)
        nothing = same_price and total == order.quantity and not requeue
        reason = self._why_not_replace(market, order, command, price, stop_price, total, nothing)
        if reason:
            return self._refuse(command, reason)
        order.stp = stp
        if same_price and total < order.quantity and not requeue:
            order.quantity = total
            market.reduce(order, total - order.filled)
            answer = market.report(REPLACED, order, command.client_order_id, flags=PRIORITY_KEPT)
        else:
            market.unshow(order)
            order.cap = price
            order.price = order.price if order.kind in PEGS else price
            order.stop_price = stop_price
            order.quantity = total
            order.open = total - order.filled
            answer = market.report(REPLACED, order, command.client_order_id)
            market.enter(order, command.client_order_id)
        market.end_event()
        return answer

    def _why_not_replace(
        self, market: Market, order: Order, command: Command, price: int, stop_price: int, total: int, nothing: bool
    ) -> int:
        definition = market.definition
        if self._killed(order.account, order.instrument):
            return KILLED
        if market.state in (HALTED, CLOSED):
            return WRONG_STATE
        if command.terms != Terms(stop_price=command.terms.stop_price if order.kind in STOPS else 0):
            return MALFORMED
        if total <= order.filled:
            return BELOW_FILLED
        if total >= QUANTITY_LIMIT:
            return BAD_QUANTITY
        if order.entry.looks_at_price and abs(price * total) >= NOTIONAL_LIMIT:
            return NOTIONAL_TOO_LARGE
        prices = [price] if order.entry.looks_at_price else []
        prices += [stop_price] if order.kind in STOPS else []
        if not all(definition.price_min <= price <= definition.price_max for price in prices):
            return PRICE_OUT_OF_LIMITS
        if order.kind == TYPE_ICEBERG and total > order.display * self._limits.slices:
            return DISPLAY_TOO_SMALL
        reason = above_max(definition, order.entry, price, total)
        if reason:
            return reason
        if nothing:
            return NOTHING_TO_CHANGE
        if order.entry.flags & POST_ONLY and market.state == OPEN:
            as_replaced = replace(order, price=price, cap=price)
            stands: int | None = price
            if order.kind in PEGS:
                stands = market.peg_price(as_replaced)
            if stands is not None and market.would_take(replace(as_replaced, price=stands)):
                return WOULD_TRADE
        return NO_REASON

    def _mass_cancel(self, command: Command, session: int, stp: int) -> ReportRow:
        if command.instrument:
            market = self._market(command.instrument)
            if market is None:
                return self._refuse(command, UNKNOWN_INSTRUMENT)
            if market.state == CLOSED:
                return self._refuse(command, WRONG_STATE)
        orders = [
            order for order in self._live(command.account)
            if command.instrument in (0, order.instrument) and self.markets[order.instrument].state != CLOSED
        ]  # fmt: skip
        touched = self._cancel_only(orders, MASS_CANCEL_REASON)
        answer = ReportRow(
            MASS_CANCELED, command.client_order_id, 0, 0, command.instrument, 0, 0, len(orders), 0, 0, 0, NO_REASON
        )  # fmt: skip
        self._tape.append((command.account, answer))
        for market in touched:
            market.end_event()
        return answer

    def _cancel_all(self, orders: list[Order], reason: int) -> None:
        for market in self._cancel_only(orders, reason):
            market.end_event()

    def _cancel_only(self, orders: list[Order], reason: int) -> list[Market]:
        """The markets of these orders, by instrument."""
        for order in orders:
            if order.open:
                self.markets[order.instrument].cancel(order, 0, reason)
        return [self.markets[instrument] for instrument in sorted({order.instrument for order in orders})]

    def _refuse(self, command: Command, reason: int) -> ReportRow:
        concerned = command.client_order_id if command.op == NEW else command.target
        row = ReportRow(
            REFUSED, command.client_order_id, concerned, 0, command.instrument, command.side,
            command.price, command.quantity, 0, 0, 0, reason,
        )  # fmt: skip
        self._tape.append((command.account, row))
        return row

    # Operator commands

    def _operate(self, command: OperatorCommand) -> int:
        if isinstance(command, AddInstrument):
            return self._add(command.definition)
        if isinstance(command, ChangeInstrument):
            return self._change(command.definition)
        if isinstance(command, SetAccounts):
            return NO_REASON
        market = self._market(command.instrument)
        if market is None and not (isinstance(command, Kill) and command.instrument == 0):
            return UNKNOWN_INSTRUMENT
        if isinstance(command, Kill):
            return self._kill(command)
        assert market is not None
        if isinstance(command, SetState):
            if market.state == command.state:
                return NOTHING_TO_CHANGE
            market.change_state(command.state, NO_REASON)
        elif isinstance(command, Delist):
            self._cancel_only(market.live(), DELISTED)
            market.state, market.delisted = CLOSED, True
            market.announce(DELISTED)
        elif isinstance(command, BustTrade):
            return self._bust(market, command)
        elif isinstance(command, CorrectTrade):
            return self._correct(market, command)
        elif isinstance(command, Roll):
            if market.state != CLOSED:
                return WRONG_STATE
            market.session += 1
            market.statistics = [0] * 7
            market.band_reference = market.band_reference if market.last is None else market.last
            market.tell_statistics()
        return NO_REASON

    def _add(self, definition: Instrument) -> int:
        if any(
            definition.id == id or definition.symbol == market.definition.symbol for id, market in self.markets.items()
        ):
            return DUPLICATE_ID
        market = self.markets[definition.id] = Market(definition, self._ids, self._tape, self._limits)
        self._tell(definition)
        market.announce(NO_REASON)
        return NO_REASON

    def _change(self, definition: Instrument) -> int:
        market = self._market(definition.id)
        if market is None:
            return UNKNOWN_INSTRUMENT
        before = market.definition
        if before == definition:
            return NOTHING_TO_CHANGE
        fixed = ("symbol", "engine", "channel", "tick_size", "lot_size", "auction_reference", "state")
        if any(getattr(before, key) != getattr(definition, key) for key in fixed):
            return MALFORMED
        if definition.price_min > definition.price_max:
            return MALFORMED
        if before.allocation != definition.allocation and market.live():
            return WRONG_STATE
        if not before.band and market.last is not None:
            market.band_reference = market.last
        market.definition = definition
        self._tell(definition)
        market.end_event()
        return NO_REASON

    def _tell(self, definition: Instrument) -> None:
        self._tape.append((
            feed.DEFINITION, definition.id, definition.symbol, str(definition.tick_size), str(definition.lot_size),
            definition.price_min, definition.price_max,
        ))  # fmt: skip

    def _kill(self, command: Kill) -> int:
        kill = command.account, command.instrument
        if command.on == (kill in self._kills):
            return NOTHING_TO_CHANGE
        if not command.on:
            self._kills.remove(kill)
            return NO_REASON
        self._kills.add(kill)
        self._cancel_all(
            [o for o in self.live() if command.account in (0, o.account) and command.instrument in (0, o.instrument)],
            KILLED,
        )
        return NO_REASON

    def _bust(self, market: Market, command: BustTrade) -> int:
        trade = self._trades.get((command.instrument, command.trade_id))
        if trade is None:
            return UNKNOWN_TRADE
        if trade.busted:
            return TOO_LATE
        trade.busted = True
        self._tape += [(account, row._replace(kind=BUSTED, command=0)) for account, row in trade.rows]
        self._tape.append((feed.BUST, command.instrument, 0, 0, 0, command.trade_id))
        if trade.session == market.session:
            row = trade.rows[0][1]
            market.statistics[4] -= row.quantity
            market.statistics[5] -= row.price * row.quantity
            market.tell_statistics()
        return NO_REASON

    def _correct(self, market: Market, command: CorrectTrade) -> int:
        trade = self._trades.get((command.instrument, command.trade_id))
        if trade is None:
            return UNKNOWN_TRADE
        if trade.busted:
            return TOO_LATE
        before = trade.rows[0][1]
        if (before.price, before.quantity) == (command.price, command.quantity):
            return NOTHING_TO_CHANGE
        if not 0 < command.quantity < QUANTITY_LIMIT:
            return BAD_QUANTITY
        if not market.definition.price_min <= command.price <= market.definition.price_max:
            return PRICE_OUT_OF_LIMITS
        trade.rows = [
            (account, row._replace(price=command.price, quantity=command.quantity)) for account, row in trade.rows
        ]
        self._tape += [(account, row._replace(kind=CORRECTED, command=0)) for account, row in trade.rows]
        self._tape.append((
            feed.CORRECTION, command.instrument, 0, command.price, command.quantity, command.trade_id
        ))  # fmt: skip
        if trade.session == market.session:
            market.statistics[4] += command.quantity - before.quantity
            market.statistics[5] += command.price * command.quantity - before.price * before.quantity
            market.tell_statistics()
        return NO_REASON

    # Records and events

    def _begin(self, time_ns: int) -> None:
        """A record begins: what expired by its time goes before anything else."""
        self._said = Said()
        self._time = time_ns
        due = [
            order for order in self.live()
            if order.entry.force == TIF_GTD and order.entry.terms.expires_ns <= time_ns
        ]  # fmt: skip
        for order in sorted(due, key=lambda order: (order.entry.terms.expires_ns, order.order_id)):
            if order.open:
                self._cancel_all([order], EXPIRED)
                self._end_event()
        for _, market in sorted(self.markets.items()):
            if market.unsettled:
                market.end_event()
                self._end_event()

    def _end_event(self) -> None:
        """Give everybody their part of the tape."""
        events: dict[int, list[Delta]] = {}
        for entry in self._tape:
            assert isinstance(entry, tuple)
            if isinstance(entry[1], ReportRow):
                self._say(*entry)
            else:
                events.setdefault(self.markets[entry[1]].definition.channel, []).append(entry)
        self._tape.clear()
        for channel, deltas in events.items():
            last = deltas[-1]
            deltas[-1] = (int(last[0]) | feed.END, *last[1:])
            self._said.deltas.setdefault(channel, []).extend(deltas)
        for market in self.markets.values():
            market.orders = [order for order in market.orders if order.open]

    def _say(self, account: int, row: ReportRow) -> None:
        number = self._next_number.get(account, 1)
        self._next_number[account] = number + 1
        self._said.reports.setdefault(account, []).append((number, row))
        if row.kind == TRADED:
            session = self.markets[row.instrument].session
            trade = self._trades.setdefault((row.instrument, row.trade_id), Trade([], session))
            trade.rows.append((account, row))


def malformed(command: Command) -> bool:
    """Whether a new order's terms do not go together."""
    flags, terms, kind, force = command.flags, command.terms, command.kind, command.force
    post_only, all_or_none, minimum = bool(flags & POST_ONLY), bool(flags & ALL_OR_NONE), terms.minimum > 0
    return (
        (kind == TYPE_MARKET and (post_only or force == TIF_GTD))
        or (kind not in (TYPE_LIMIT, TYPE_MARKET) and force in (TIF_IOC, TIF_FOK))
        or (post_only and (kind in STOPS or force in (TIF_IOC, TIF_FOK)))
        or (terms.stop_price != 0 and kind not in STOPS)
        or (terms.display != 0 and kind != TYPE_ICEBERG)
        or (terms.expires_ns != 0 and force != TIF_GTD)
        or ((terms.offset != 0 or command.capped) and kind not in PEGS)
        or ((minimum or all_or_none) and kind != TYPE_LIMIT)
        or (minimum and all_or_none)
        or ((minimum or all_or_none) and (post_only or force == TIF_FOK))
    )  # fmt: skip


def kind_of_waiting(order: Order) -> str:
    """What such an order waits among, beside the book; nothing: it does not."""
    if order.kind in STOPS:  # one that fired is a market or a limit order
        return "stops"
    if order.kind in PEGS:
        return "pegs"
    return "conditional orders" if order.conditional else ""


def above_max(definition: Instrument, entry: Command, price: int, quantity: int) -> int:
    if definition.quantity_max and quantity > definition.quantity_max:
        return QUANTITY_ABOVE_MAX
    if definition.notional_max and entry.looks_at_price and abs(price) * quantity > definition.notional_max:
        return NOTIONAL_ABOVE_MAX
    return NO_REASON


def bad_offset(command: Command) -> bool:
    if command.kind not in PEGS:
        return False
    offset = command.terms.offset
    if command.side == SELL:
        return offset < 0 or (command.kind == TYPE_PEG_BID and offset == 0)
    return offset > 0 or (command.kind == TYPE_PEG_OFFER and offset == 0)

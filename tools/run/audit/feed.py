"""The audit of one stream of deltas, event by event: who was to trade next, and whether the book is crossed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bus.stream.mirror import Mirror, MirrorBook, MirrorError
from proto.feed import (
    ADD,
    END,
    EXECUTE,
    OP_MASK,
    OPEN,
    STATUS,
    TOLD,
    TRADE,
    Extra,
    Row,
)
from proto.instrument import FIFO, PRO_RATA
from proto.snapshot import Snapshot
from tools.run.audit.breaches import BOOKS, CROSSED, PRIORITY, SIDES, Breaches

TRADES_KEPT: Final = 500_000  # of a stream, for the reports to be held against; of older ones nothing is said
SHARES_KEPT: Final = 50_000  # shares by size, likewise
UNKNOWN_STATE: Final = 0


Listener = Callable[[MirrorBook | None, Row, Extra | None, int], None]
Allocation = Callable[[int], str]


def fifo(instrument: int) -> str:
    """First come, first served."""
    return FIFO


class Resting(NamedTuple):
    """What an EXECUTE took from: a public id, its side (1: sell), whether nothing of it is left, and the id of what was
    added in its place at once, at the same price (0: nothing was)."""

    id: int
    side: int
    emptied: bool
    next_id: int


@dataclass(slots=True)
class TradeTold:
    """A trade as the feed told it; of an uncross, with both resting sides."""

    price: int
    quantity: int
    time_ns: int
    resting: list[Resting] = field(default_factory=list)


class Shares(NamedTuple):
    """A level that was shared out by size: its queue before, what each order got of it, and in which trades."""

    instrument: int
    price: int
    time_ns: int
    queue: tuple[tuple[int, int], ...]
    got: dict[int, int]
    trades: tuple[int, ...]


class FeedAudit:
    """One stream of deltas. `begin` with its books, then `take` whole events in order; `lose` when some passed unseen.

    `allocation` is the rule of an instrument, FIFO or PRO_RATA; where it is neither, whose turn it is within a level is
    not judged. `before` is called with each delta, the book as it is until then, what it points at, and its time.

    Cost: O(1) a delta, O(log levels) where prices come or go; O(orders of a level) for one that is shared out by size.
    """

    def __init__(self, allocation: Allocation = fifo, before: Listener | None = None) -> None:
        self.mirror = Mirror()
        self.breaches = Breaches()
        self.following = False  # from `begin` to `lose`
        self.events = 0
        self.executions = 0
        self.told: dict[tuple[int, int], TradeTold] = {}  # by instrument and trade id
        self.told_from: dict[int, int] = {}  # the first trade of each instrument that was told since the last loss
        self.shares: list[Shares] = []
        self._allocation = allocation
        self._before = before
        self._emptied: list[tuple[int, int, int, TradeTold]] = []  # what may be followed by its next slice
        self._level: tuple[int, int, int] | None = None  # that is being shared out: instrument, side, price
        self._queue: dict[int, int] = {}
        self._got: dict[int, int] = {}
        self._got_in: list[int] = []
        self._unclear = False
        self._time_ns = 0
        self._entered: dict[int, None] = {}  # instruments whose book may have become crossed in this event

    def begin(self, snapshot: Snapshot) -> None:
        """Take the books as they are now. O(orders)."""
        self.mirror = Mirror()
        self.mirror.load(snapshot)
        self.told_from = {book.instrument: book.next_trade_id for book in snapshot.books}
        self.following = True
        self._forget_event()

    def lose(self) -> None:
        """Events passed unseen: nothing is judged until `begin`."""
        self.following = False

    def take(self, rows: Sequence[Row], times: Sequence[tuple[int, int]], extras: Sequence[Extra]) -> None:
        """Whole events, the next ones. `times`: which time begins at which row."""
        if not self.following:
            return
        begins = dict(times)
        for at, (op, instrument, order_id, price, quantity, trade_id) in enumerate(rows):
            if at in begins:
                self._time_ns = begins[at]
            code = op & OP_MASK
            if self._before is not None:
                extra = extras[order_id] if code in TOLD else None
                row = (op, instrument, order_id, price, quantity, trade_id)
                self._before(self.mirror.books.get(instrument), row, extra, self._time_ns)
            if code == EXECUTE:
                self._executes(instrument, order_id, op >> 4 & 1, price, quantity, trade_id)
            elif code == TRADE:
                self._trades(instrument, op >> 4 & 1, price, quantity, trade_id)
            else:
                if self._level is not None and (code == ADD or order_id in self._queue):
                    self._unclear = True
                if code == ADD:
                    self._entered[instrument] = None
                    if self._emptied:
                        self._follows(instrument, order_id, op >> 4 & 1, price)
                else:
                    self._emptied.clear()
                    if code == STATUS:
                        self._entered[instrument] = None
            try:
                self.mirror.apply([(op | END, instrument, order_id, price, quantity, trade_id)], extras)
            except MirrorError as e:
                self.breaches.add(BOOKS, f"on the feed: {e}")
                self.lose()
                return
            if op & END:
                self._ends()

    def _executes(self, instrument: int, order_id: int, side: int, price: int, quantity: int, trade_id: int) -> None:
        """A resting order is about to trade: is it its turn?"""
        self.executions += 1
        book = self.mirror.books.get(instrument)
        if book is None:
            return
        best, in_turn = book.best(side), book.front(side)
        left = in_turn.get(order_id)
        rule = self._allocation(instrument)
        what = f"instrument {instrument} trade {trade_id:,}: order {order_id}"
        if left is None:
            self.breaches.add(PRIORITY, f"{what} traded before better prices, from {best} on")
            left = 0
        elif rule == FIFO or (rule == PRO_RATA and book.state not in (OPEN, UNKNOWN_STATE)):
            first = next(iter(in_turn))
            if first != order_id:
                self.breaches.add(PRIORITY, f"{what} traded at {best} before {first}, which came first")
        if book.state == OPEN and left and price != best:
            self.breaches.add(PRIORITY, f"{what} traded at {price}, not at its own price {best}")
        if self._level is not None and self._level != (instrument, side, best):
            self._shared_out()
        if book.state == OPEN and rule == PRO_RATA and best is not None:
            if self._level is None:
                self._level, self._queue, self._got, self._got_in = (instrument, side, best), dict(in_turn), {}, []
            self._got_in.append(trade_id)
            self._got[order_id] = self._got.get(order_id, 0) + quantity
        told = self.told.get((instrument, trade_id))
        if told is None:
            self._emptied.clear()
            told = self._new(instrument, price, quantity, trade_id)
        elif (told.price, told.quantity) != (price, quantity):
            self.breaches.add(SIDES, f"{what}: its two sides differ on the feed")
        told.resting.append(Resting(order_id, side, left == quantity, 0))
        if left == quantity and best is not None:
            self._emptied.append((instrument, side, best, told))

    def _trades(self, instrument: int, aggressor: int, price: int, quantity: int, trade_id: int) -> None:
        """An order that is not displayed has traded: was nothing displayed before it?"""
        if self._level is not None:
            self._shared_out()
        self._emptied.clear()
        self._new(instrument, price, quantity, trade_id)
        book = self.mirror.books.get(instrument)
        best = book.best(1 - aggressor) if book else None
        if best is not None and (best <= price if aggressor == 0 else best >= price):
            text = f"instrument {instrument} trade {trade_id:,} at {price} before what is displayed at {best}"
            self.breaches.add(PRIORITY, text)

    def _new(self, instrument: int, price: int, quantity: int, trade_id: int) -> TradeTold:
        told = self.told[instrument, trade_id] = TradeTold(price, quantity, self._time_ns)
        self.told_from.setdefault(instrument, trade_id)
        if len(self.told) > TRADES_KEPT:
            oldest = next(iter(self.told))
            del self.told[oldest]
            self.told_from[oldest[0]] = oldest[1] + 1
        return told

    def _follows(self, instrument: int, order_id: int, side: int, price: int) -> None:
        """An order is added behind an EXECUTE that emptied one: it may be the next slice of an iceberg."""
        for at, (of, on, level, told) in enumerate(self._emptied):
            if (of, on, level) == (instrument, side, price):
                which = next(i for i, resting in enumerate(told.resting) if resting.side == side)
                told.resting[which] = told.resting[which]._replace(next_id=order_id)
                del self._emptied[at]
                return
        self._emptied.clear()

    def _shared_out(self) -> None:
        """A level that is shared by size has had its turn. It is unclear where a slice followed, of which more was
        there than was seen, and where an order of it left (the other half of a pair): its share was shared anew."""
        assert self._level
        instrument, _, price = self._level
        if not self._unclear and len(self.shares) < SHARES_KEPT:
            queue = tuple(self._queue.items())
            self.shares.append(Shares(instrument, price, self._time_ns, queue, self._got, tuple(self._got_in)))
        self._level, self._unclear = None, False

    def _ends(self) -> None:
        self.events += 1
        self._emptied.clear()
        if self._level is not None:
            self._shared_out()
        for instrument in self._entered:
            book = self.mirror.books[instrument]
            if book.state == OPEN:
                bid, ask = book.best(0), book.best(1)
                if bid is not None and ask is not None and bid >= ask:
                    text = f"instrument {instrument} at its delta {book.sequence:,}: {bid} bid, {ask} offered"
                    self.breaches.add(CROSSED, text)
        self._entered.clear()

    def _forget_event(self) -> None:
        self._emptied.clear()
        self._entered.clear()
        self._level, self._unclear = None, False


def shared_by_size(queue: Sequence[tuple[int, int]], total: int) -> dict[int, int]:
    """What each order of a queue gets of `total`: in proportion, rounded down; the rest first come first served."""
    whole = sum(quantity for _, quantity in queue)
    got = {id: total * quantity // whole for id, quantity in queue}
    rest = total - sum(got.values())
    for id, quantity in queue:
        more = min(rest, quantity - got[id])
        got[id] += more
        rest -= more
    return {id: quantity for id, quantity in got.items() if quantity}

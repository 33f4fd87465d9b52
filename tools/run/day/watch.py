"""An instrument's trading day as its feed tells it: its states, its uncrosses, its statistics beside its trades.

An uncross is held against the orders that the judge's book had just before, statistics against the trades since the
last ones. After a doubt (deltas that may have passed unheard) what rests on the book or on every trade is not judged;
a later session's trades are whole again.
"""

from dataclasses import dataclass, field
from typing import Final

from bus.stream.mirror import MirrorBook
from proto.feed import (
    AUCTION,
    BUST,
    CLOSED,
    CORRECTION,
    DELETE,
    EXECUTE,
    OP_MASK,
    OPEN,
    PRE_OPEN,
    STATE_NAMES,
    TRADE,
    Extra,
    Indication,
    Row,
    Statistics,
    Status,
)
from proto.snapshot import BookSnapshot

NOTHING: Final = Indication(0, 0, 0)
NO_STATISTICS: Final = Statistics(0, 0, 0, 0, 0, 0, 0)
GATHERING: Final = (PRE_OPEN, AUCTION)


@dataclass(frozen=True, slots=True)
class Phase:
    """A trading state from `time_ns` on; `reason` as in proto Reason, 0 for the operator's."""

    state: int
    reason: int
    time_ns: int

    @property
    def name(self) -> str:
        return STATE_NAMES[self.state]


@dataclass(frozen=True, slots=True)
class Uncross:
    """What traded when an auction ended, beside what was said of it before.

    prices      of its trades, in order of first appearance; volume in lots
    indicated   the last indication before it; None: not known
    visible     the most that the orders seen on the book just before could trade at one price; None: not known
    withdrawn   orders that left while it went on, as the other half of a pair that traded
    crossed     whether the orders seen still crossed behind it; None: not known
    """

    time_ns: int
    state: int  # that it led to
    prices: tuple[int, ...]
    volume: int
    trades: int
    indicated: Indication | None
    visible: int | None
    withdrawn: int
    crossed: bool | None


@dataclass(frozen=True, slots=True)
class StatisticsCheck:
    """Statistics that the feed gave, and what its trades came to.

    whole   none of the trades can have been missed
    rolled  these are a new day's
    """

    time_ns: int
    said: Statistics
    added: Statistics
    whole: bool
    rolled: bool = False


@dataclass(slots=True)
class _Uncrossing:
    """An uncross that goes on."""

    visible: int | None
    indicated: Indication | None
    prices: dict[int, None] = field(default_factory=dict)
    volume: int = 0
    trades: int = 0
    withdrawn: int = 0

    def ended(self, time_ns: int, state: int, crossed: bool | None) -> Uncross:
        prices = tuple(self.prices)
        return Uncross(
            time_ns, state, prices, self.volume, self.trades, self.indicated, self.visible, self.withdrawn, crossed
        )


class InstrumentDay:
    """See the module. `begin` with the book as it is when nothing moves; then every delta, in order, with the book
    before it. O(1) a delta, and O(ticks x orders) an uncross."""

    def __init__(self, engine: int) -> None:
        self.engine = engine
        self.phases: list[Phase] = []
        self.uncrosses: list[Uncross] = []
        self.sessions: list[StatisticsCheck] = []
        self.indication: Indication | None = NOTHING  # at present; None: not known
        self.doubted = False  # at any time
        self._whole = False
        self._unsure = False  # trades may have been missed: the next one's number tells
        self._retold = False  # the next state may be one that was told before
        self._changed = False  # the state, and the statistics that come with that are due
        self._last_trade = 0
        self._uncrossing: _Uncrossing | None = None

    @property
    def state(self) -> int:
        return self.phases[-1].state if self.phases else 0

    def begin(self, book: BookSnapshot, time_ns: int) -> None:
        """From here on: its state, its indication, its trades."""
        self.phases = [Phase(book.status.state, book.status.reason, time_ns)]
        self.indication = book.indication or NOTHING
        self._last_trade = book.last_trade_id
        self._whole = True

    def doubt(self) -> None:
        """Deltas of this instrument may have passed unheard."""
        self.doubted = self._unsure = self._retold = True
        self._uncrossing = None
        self.indication = None

    def seen_as(self, status: Status, time_ns: int) -> None:
        """After a doubt: the state that the book is in now. What led to it was not heard."""
        if status.state and (status.state, status.reason) != (self.phases[-1].state, self.phases[-1].reason):
            self.phases.append(Phase(status.state, status.reason, time_ns))

    def take(self, row: Row, extra: Extra | None, time_ns: int, book: MirrorBook | None) -> None:
        """The next delta, with what it points at if it tells of something."""
        op, _, _, price, quantity, trade_id = row
        code = op & OP_MASK
        if code in (EXECUTE, TRADE):
            if code == EXECUTE and self.state != OPEN and self._uncrossing is None:
                self._uncrossing = _Uncrossing(tradeable(book), self.indication)
            if trade_id != self._last_trade:
                self._traded(price, quantity, trade_id)
        if code in (BUST, CORRECTION):  # the statistics that follow take it in, and so are not those of the trades
            self._whole, self._changed = False, True
        if code == DELETE and self._uncrossing is not None:
            self._uncrossing.withdrawn += 1
        if isinstance(extra, Status):
            self._enter(extra, time_ns, book)
        elif isinstance(extra, Indication):
            self.indication = extra
        elif isinstance(extra, Statistics):
            self._summed(extra, time_ns, book)

    def _traded(self, price: int, quantity: int, trade_id: int) -> None:
        self._whole = self._whole and trade_id == self._last_trade + 1
        self._unsure = False
        self._last_trade = trade_id
        if self._uncrossing is not None:
            self._uncrossing.prices[price] = None
            self._uncrossing.volume += quantity
            self._uncrossing.trades += 1

    def _enter(self, status: Status, time_ns: int, book: MirrorBook | None) -> None:
        uncrossing, self._uncrossing = self._uncrossing, None
        ends = self.state == AUCTION if status.state == CLOSED else status.state == OPEN
        if uncrossing is None and ends and self.indication:  # what was indicated did not trade
            uncrossing = _Uncrossing(None, self.indication)
        if uncrossing is not None and (uncrossing.trades or uncrossing.indicated != NOTHING):
            self.uncrosses.append(uncrossing.ended(time_ns, status.state, tradeable(book) != 0))
        self.indication = None if self._retold else NOTHING
        self._retold = False
        if not self.phases or (status.state, status.reason) != (self.phases[-1].state, self.phases[-1].reason):
            self.phases.append(Phase(status.state, status.reason, time_ns))
            self._changed = True

    def _summed(self, said: Statistics, time_ns: int, book: MirrorBook | None) -> None:
        roll = self.state == CLOSED and (not self._changed or (self._unsure and said == NO_STATISTICS))
        added = (book.statistics if book is not None and not roll else None) or NO_STATISTICS
        if roll:
            self._whole, self._unsure = True, False
        self._changed = False
        self.sessions.append(StatisticsCheck(time_ns, said, added, self._whole and not self._unsure, roll))


def tradeable(book: MirrorBook | None) -> int:
    """The most that the orders of a book could trade at one price: every price at which somebody stands is tried."""
    if book is None:
        return 0
    bids, asks = ([(price, quantity) for _, price, quantity in book.orders(side)] for side in (0, 1))
    most = 0
    for price in {price for price, _ in (*bids, *asks)}:
        buys = sum(quantity for limit, quantity in bids if limit >= price)
        sells = sum(quantity for limit, quantity in asks if limit <= price)
        most = max(most, min(buys, sells))
    return most

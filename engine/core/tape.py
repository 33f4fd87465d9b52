"""The trades of an instrument, and what its session came to so far.

A trade is written down while it happens and added up when somebody asks: of the two only the first is on the way of
every order.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from engine.core.order import Order
from proto.columns import Boxed

TRADES_KEPT: Final = 32_768  # an instrument's last trades, at least, can be busted or corrected
TRADES_MAX: Final = 2 * TRADES_KEPT


class Trade(NamedTuple):
    """A trade, for the record: `one` took and `other` made, or, with the flag of an auction, bought and sold.

    What was open and filled of each is as it was then.
    """

    one: Order
    other: Order
    flag: int  # of the other's report: MAKER or AUCTION_TRADE
    price: Boxed
    quantity: Boxed
    one_open: Boxed
    one_filled: Boxed
    other_open: Boxed
    other_filled: Boxed


# The fields of a Trade, as a plain tuple: making a NamedTuple costs five times as much.
Entry = tuple[Order, Order, int, Boxed, Boxed, Boxed, Boxed, Boxed, Boxed]


class Statistics:
    """open, high, low and last in ticks, volume in lots, turnover in ticks times lots; all 0 before the first trade.

    first_trade_id  trades below it are of an earlier session
    tape            the last trades, of earlier sessions, too; the first is number `tape_id`
    """

    __slots__ = (
        "_added",
        "first_trade_id",
        "high",
        "last",
        "low",
        "open",
        "tape",
        "tape_id",
        "trades",
        "turnover",
        "volume",
    )

    def __init__(self) -> None:
        self.tape: list[Entry] = []
        self.tape_id = 1
        self._added = 1  # trades below it are in the sums
        self.first_trade_id = 1
        self.open = self.high = self.low = self.last = self.volume = self.turnover = self.trades = 0

    def begin(self, first_trade_id: int) -> None:
        """Begin a new session."""
        self._added = self.first_trade_id = first_trade_id
        self.open = self.high = self.low = self.last = self.volume = self.turnover = self.trades = 0

    def trim(self) -> None:
        """Forget the oldest trades, if there are very many. Cost: O(1) a trade since the last time."""
        if len(self.tape) >= TRADES_MAX:
            self.add_up()
            del self.tape[:TRADES_KEPT]
            self.tape_id += TRADES_KEPT

    def find(self, trade_id: int) -> Trade | None:
        """A trade that is still on record."""
        at = trade_id - self.tape_id
        return Trade._make(self.tape[at]) if 0 <= at < len(self.tape) else None

    def add_up(self) -> None:
        """Bring the sums up to the last trade. Cost: O(trades since the last time)."""
        for entry in self.tape[self._added - self.tape_id :]:
            price: int = entry[3]
            quantity: int = entry[4]
            if not self.trades:
                self.open = self.high = self.low = price
            elif price > self.high:
                self.high = price
            elif price < self.low:
                self.low = price
            self.last = price
            self.volume += quantity
            self.turnover += price * quantity
            self.trades += 1
        self.added()

    def added(self) -> None:
        """Take the sums to be of all that is on the tape, as they are when both come from a state."""
        self._added = self.tape_id + len(self.tape)

    def told(self) -> tuple[int, int, int, int, int, int, int]:
        """As the feed has them. A turnover beyond 64 bits is not told in full."""
        self.add_up()
        bound = (1 << 63) - 1
        turnover = min(max(self.turnover, -bound), bound)
        return (self.open, self.high, self.low, self.last, self.volume, turnover, self.trades)

    def contents(self) -> tuple[object, ...]:
        """All of it, as plain values."""
        tape = [(one.order_id, other.order_id, *rest) for one, other, *rest in self.tape]
        return (self.told(), self.turnover, self.first_trade_id, self.tape_id, tape)

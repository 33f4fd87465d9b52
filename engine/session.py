"""What a trading session came to so far: the numbers of its summary."""

from __future__ import annotations


class Session:
    """open, high, low and last in ticks, volume in lots, turnover in ticks times lots; all 0 before the first trade.

    first_trade_id  trades below it are of an earlier session
    """

    __slots__ = ("first_trade_id", "high", "last", "low", "open", "trades", "turnover", "volume")

    def __init__(self, first_trade_id: int) -> None:
        self.first_trade_id = first_trade_id
        self.open = 0
        self.high = 0
        self.low = 0
        self.last = 0
        self.volume = 0
        self.turnover = 0
        self.trades = 0

    def add(self, first: int, last: int, volume: int, turnover: int, trades: int) -> None:
        """Add a run of trades whose prices go one way, from `first` to `last`."""
        low, high = (first, last) if first <= last else (last, first)
        if not self.trades:
            self.open = first
            self.low = low
            self.high = high
        elif low < self.low:
            self.low = low
        if high > self.high:
            self.high = high
        self.last = last
        self.volume += volume
        self.turnover += turnover
        self.trades += trades

    def told(self) -> tuple[int, int, int, int, int, int, int]:
        """As the feed has them. A turnover beyond 64 bits is not told in full."""
        bound = (1 << 63) - 1
        turnover = min(max(self.turnover, -bound), bound)
        return (self.open, self.high, self.low, self.last, self.volume, turnover, self.trades)

    def numbers(self) -> list[int | str]:
        """The same, as an extra of the feed."""
        return [*self.told()]

"""What is traded here: the markets of an engine, the channels that they speak on, and events that span several."""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.market import Market
from proto.columns import DELTA_WIDTH, ChannelDeltas
from proto.feed import END
from proto.instrument import Instrument


class Listing:
    """The markets by instrument id, delisted ones among them, and the deltas of the record so far, by channel."""

    __slots__ = ("_deltas", "_extras", "markets")

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self.markets: dict[int, Market] = {}
        self._deltas: dict[int, list[int]] = {}
        self._extras: dict[int, list[list[int | str]]] = {}
        for channel in sorted({instrument.channel for instrument in instruments}):
            self.open(channel)
        for instrument in sorted(instruments, key=_by_id):
            self.add(instrument)

    def add(self, instrument: Instrument) -> Market:
        """Begin a market."""
        if instrument.channel not in self._deltas:
            self.open(instrument.channel)
        market = Market(instrument, self._deltas[instrument.channel], self._extras[instrument.channel])
        self.markets[instrument.id] = market
        return market

    def market(self, instrument: int) -> Market | None:
        """The market of an instrument that is listed."""
        market = self.markets.get(instrument)
        return None if market is None or market.delisted else market

    @property
    def channels(self) -> list[int]:
        """The channels that deltas go to, in the order in which they were opened."""
        return list(self._deltas)

    def begin_wide(self) -> dict[int, int]:
        """Where an event over several markets begins, on each channel."""
        return {channel: len(rows) for channel, rows in self._deltas.items()}

    def end_wide(self, marks: dict[int, int]) -> None:
        """End such an event, on each channel."""
        for channel, rows in self._deltas.items():
            if len(rows) > marks[channel]:
                for at in range(marks[channel], len(rows), DELTA_WIDTH):
                    rows[at] &= ~END
                rows[-DELTA_WIDTH] |= END

    def end(self) -> list[ChannelDeltas]:
        """Hand over the record's deltas."""
        deltas = []
        for channel, rows in self._deltas.items():
            if rows:
                extras = self._extras[channel]
                deltas.append(ChannelDeltas(channel, rows[:], extras[:]))
                rows.clear()  # the markets hold this very list
                if extras:
                    extras.clear()
        return deltas

    def open(self, channel: int) -> None:
        """Begin a channel."""
        self._deltas[channel] = []
        self._extras[channel] = []


def _by_id(instrument: Instrument) -> int:
    return instrument.id

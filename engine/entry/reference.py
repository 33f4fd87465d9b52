"""Reference data, as an engine knows it just now: what is traded, at which engine, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from proto.columns import UNKNOWN_INSTRUMENT
from proto.instrument import Instrument
from proto.orders import BadValueError
from proto.refusals import explain


class Reference:
    """Instruments of this and other engines. `allowed` gives the accounts that may trade; none means all."""

    def __init__(self, engine: int, allowed: Callable[[], Collection[int]]) -> None:
        self.engine = engine
        self._allowed = allowed
        self.instruments: dict[int, Instrument] = {}
        self.symbols: dict[str, Instrument] = {}
        self._foreign: set[int] = set()

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Those it knew, and these, as they are now; an id has the symbol that came last."""
        for instrument in instruments:
            before = self.instruments.get(instrument.id)
            if before is not None and before.symbol != instrument.symbol and self.symbols.get(before.symbol) is before:
                del self.symbols[before.symbol]
            self.instruments[instrument.id] = instrument
            self.symbols[instrument.symbol] = instrument
            if instrument.engine == self.engine:
                self._foreign.discard(instrument.id)
            else:
                self._foreign.add(instrument.id)

    def may_trade(self, account: int) -> bool:
        allowed = self._allowed()
        return not allowed or account in allowed

    def home(self, instrument: int) -> int:
        """The home engine of an instrument; this one for an instrument that nobody has."""
        known = self.instruments.get(instrument)
        return self.engine if known is None else known.engine

    def all_here(self, instruments: Collection[int]) -> bool:
        """Whether this engine is the home of all of these. Cost: a set's look-up each, at C speed."""
        return self._foreign.isdisjoint(instruments)

    def instrument(self, symbol: str) -> Instrument:
        """Raises: BadValueError (UNKNOWN_INSTRUMENT)."""
        instrument = self.symbols.get(symbol)
        if instrument is None:
            raise BadValueError(UNKNOWN_INSTRUMENT, explain(UNKNOWN_INSTRUMENT, symbol=symbol, symbols=self.symbols))
        return instrument

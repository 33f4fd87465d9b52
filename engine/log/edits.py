"""What becomes of an edit of cluster.toml when the engine starts again.

The log is what counts; the file began it. Of the file, only what was edited since it was last heeded is looked at:

    CHANGES     from now on, by a logged command: limits, bands, collars, allocation (without live orders), accounts
    IDENTIFIES  never: the start is refused, with the way out
    BEGINS      has no effect on an instrument that has begun
    PLACES      where the engine binds and what channels it has: as the file says, at each start

What an operator changed while the engine ran stays, and so does an instrument that is gone from the file: whoever edits
is told. Every edit is told in one line, and logged with the identity (engine/log/records.py). What the file last said
of an instrument that is gone from it is kept there, too: it may come back, and be edited meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from typing import Final

import msgspec

from engine.core.commands import AddInstrument, ChangeInstrument, OperatorCommand, SetAccounts
from engine.core.market import Market
from engine.core.operations import CHANGEABLE
from engine.core.venue import Venue
from engine.log.records import Identity
from proto.instrument import Instrument
from proto.table import edited, written


class Effect(Enum):
    """What an edit of a key has for an effect."""

    CHANGES = "from now on"
    IDENTIFIES = "refused"
    BEGINS = "only begins an instrument"
    PLACES = "from this start on"


INSTRUMENT: Final = {
    "id": Effect.IDENTIFIES,
    "symbol": Effect.IDENTIFIES,
    "engine": Effect.IDENTIFIES,
    "channel": Effect.IDENTIFIES,
    "tick_size": Effect.IDENTIFIES,
    "lot_size": Effect.IDENTIFIES,
    "state": Effect.BEGINS,
    "auction_reference": Effect.BEGINS,
    **dict.fromkeys(sorted(CHANGEABLE), Effect.CHANGES),
}
ACCOUNT: Final = {"id": Effect.CHANGES, "name": Effect.CHANGES}
ENGINE: Final = {
    "id": Effect.IDENTIFIES,
    "grpc": Effect.PLACES,
    "feed": Effect.PLACES,
    "channels": Effect.PLACES,
}
VENUE: Final = {"name": Effect.IDENTIFIES}

_ANEW: Final = "trade it under another id and symbol instead, and delist this one"


class Edits:
    """What follows from the file, as against what it said before: commands to log, lines to tell, or what forbids it.

    `elsewhere` are the file's instruments of other engines.
    """

    def __init__(self, before: Identity, now: Identity, venue: Venue, elsewhere: Iterable[Instrument] = ()) -> None:
        self.commands: list[OperatorCommand] = []
        self.told: list[str] = []
        self.refused: list[str] = []
        self.before = before
        self._gone: list[Instrument] = []  # from the file, and traded still
        self._now = now
        self._venue = venue
        self._elsewhere: dict[int | str, Instrument] = {}
        for instrument in elsewhere:
            self._elsewhere[instrument.id] = self._elsewhere[instrument.symbol] = instrument
        self._symbols = {market.instrument.symbol: id for id, market in venue.markets.items()}
        self._identities()
        if not self.refused:
            self._places()
            self._instruments()
            self._accounts()

    @property
    def heeded(self) -> Identity:
        """What is to be logged of the file: what it says now, and what it last said of what is gone from it."""
        return msgspec.structs.replace(self._now, instruments=(*self._now.instruments, *self._gone))

    def _identities(self) -> None:
        before, now, engine = self.before, self._now, self._venue.engine
        if engine != now.engine.id:
            whose = f"this is the log of engine {engine}"
            if engine == before.engine.id:  # else the log has no name yet
                whose += f" ({before.name} of the venue {before.venue})"
            self.refused.append(
                f"{whose}, and not of engine {now.engine.id}: name its own directory, or begin a new one"
            )
        elif before.venue != now.venue:
            self.refused.append(
                f"this is a log of the venue {written(before.venue)}, and the file is of {written(now.venue)}: name it "
                "as before, or begin a new log"
            )
        elif before.name != now.name:
            self.refused.append(
                f"this is the log of {before.name}, and not of {now.name}: start it with --name {before.name}"
            )

    def _places(self) -> None:
        before, now = self.before.engine, self._now.engine
        for key in edited(before, now):
            self.told.append(f"engine {now.id}: {_change(before, now, key)}")

    def _instruments(self) -> None:
        before = {instrument.id: instrument for instrument in self.before.instruments}
        now = {instrument.id: instrument for instrument in self._now.instruments}
        for id, instrument in now.items():
            market = self._venue.markets.get(id)
            if before.get(id) == instrument:
                continue
            if market is None:
                self._add(instrument)
            elif market.delisted:
                self.told.append(f"{instrument.symbol} (instrument {id}) was delisted: the edit has no effect")
            else:
                self._edit(market, before.get(id), instrument)
        for id, market in self._venue.markets.items():
            if id not in now and not market.delisted:
                self._outside(market.instrument, before.get(id))

    def _outside(self, present: Instrument, before: Instrument | None) -> None:
        """It is traded here, and not in the file, or as another engine's there. `before` None: an operator added it."""
        whose, ends = f"{present.symbol} (instrument {present.id})", f"tools.orders delist {present.symbol} ends it"
        other = self._elsewhere.get(present.id) or self._elsewhere.get(present.symbol)
        if before is not None:
            self._gone.append(before)
        if other is None:
            if before is not None:
                self.told.append(f"{whose} is gone from the file and stays: {ends}")
        elif before is None:
            its = f"{other.symbol} (instrument {other.id}) of engine {other.engine}"
            self.told.append(f"{whose} stays, an operator added it, and the file has {its}: {ends}")
        elif other.id == present.id:
            self.refused.append(f"{whose}: {_change(before, other, 'engine')} cannot be: {_ANEW}")
        else:
            its = f"instrument {other.id} of engine {other.engine}"
            self.refused.append(f"{whose}: it is {its} in the file, which cannot be: {_ANEW}")

    def _add(self, instrument: Instrument) -> None:
        known = self._symbols.get(instrument.symbol)
        if known is not None:
            what = f"instrument {instrument.id} ({instrument.symbol}) of the file is {known} in the log"
            way = "was delisted: write another symbol"
            if not self._venue.markets[known].delisted:
                way = f"an id stays: write {known} again, or another symbol"
            self.refused.append(f"{what}, and {way}")
            return
        self.commands.append(AddInstrument.of(instrument))
        self.told.append(f"{instrument.symbol} (instrument {instrument.id}) is traded from now on")

    def _edit(self, market: Market, before: Instrument | None, now: Instrument) -> None:
        """`before` None: an operator added it, and now it is in the file, too."""
        present, whose = market.instrument, f"{market.instrument.symbol} (instrument {now.id})"
        changes: dict[str, object] = {}
        for key in edited(before or present, now):
            to = getattr(now, key)
            if INSTRUMENT[key] is Effect.BEGINS:
                self.told.append(f"{whose}: {key} = {written(to)} only begins an instrument, and this one has begun")
            elif to == getattr(present, key):
                self.told.append(f"{whose}: {key} = {written(to)} already")
            elif INSTRUMENT[key] is Effect.IDENTIFIES:
                self.refused.append(f"{whose}: {_change(present, now, key)} cannot be: {_ANEW}")
            elif before is None or getattr(present, key) != getattr(before, key):
                stays = written(getattr(present, key))
                self.told.append(f"{whose}: {key} stays {stays}, an operator set it: write that to edit it again")
            else:
                changes[key] = to
        if not changes:
            return
        after = replace(present, **changes)  # type: ignore[arg-type]
        if after.price_min > after.price_max:
            self.refused.append(f"{whose}: price_min = {after.price_min} would be above price_max = {after.price_max}")
        elif "allocation" in changes and any(True for _ in self._venue.trading.live_on(market)):
            self.refused.append(
                f"{whose}: {_change(present, after, 'allocation')} while orders are live: cancel them first"
            )
        elif "band" in changes and not (present.band or market.band_reference or market.book.last_quantity):
            self.refused.append(
                f"{whose}: band = {after.band} needs a price that it is about: trade first, or an auction"
            )
        else:
            self.commands.append(ChangeInstrument.of(after))
            self.told += [f"{whose}: {_change(present, after, key)} from now on" for key in changes]

    def _accounts(self) -> None:
        before = {account.id: account for account in self.before.accounts}
        now = {account.id: account for account in self._now.accounts}
        if before == now:
            return
        self.commands.append(SetAccounts(self._now.accounts))
        new, gone = [id for id in now if id not in before], [id for id in before if id not in now]
        for id, account in now.items():
            if id in before and before[id] != account:
                self.told.append(f"account {id}: {_change(before[id], account, 'name')} from now on")
        if not now:
            self.told.append("every account may trade from now on")
        elif new:
            only = "" if before else ", and no others"
            self.told.append(f"may trade from now on{only}: account {', '.join(map(str, new))}")
        if gone and now:
            which = ", ".join(map(str, gone))
            self.told.append(f"may trade no more: account {which}; orders stay until an operator cancels them")


def _change(before: object, after: object, key: str) -> str:
    return f"{key} = {written(getattr(before, key))} -> {written(getattr(after, key))}"

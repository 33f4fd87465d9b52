"""An instrument: what it is, the check of it, its message and the way back, and what the feed says of it.

Its table in cluster.toml has a key for each field (proto/cluster.py), and so has what a log keeps of it. To add a
field: here, in the two messages of the .proto files that tell of it, and what an edit of it does (engine/log/edits.py).
"""

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from proto import table
from proto.columns import NOTIONAL_LIMIT, PRICE_LIMIT, QUANTITY_LIMIT
from proto.feed import STATE_NAMES, SYMBOL, U32_MAX, Definition
from proto.marketdata_pb2 import Instrument as Message

ENGINE_MAX: Final = 999
CHANNEL_MAX: Final = 99
INSTRUMENT_MAX: Final = U32_MAX
PRICE_MAX: Final = PRICE_LIMIT - 1  # ticks, either way
QUANTITY_MAX: Final = QUANTITY_LIMIT - 1  # lots
NOTIONAL_MAX: Final = NOTIONAL_LIMIT - 1  # ticks times lots

FIFO: Final = "fifo"
PRO_RATA: Final = "pro-rata"
STATES: Final = tuple(name for state, name in STATE_NAMES.items() if state)  # numbered from 1 on the feed

EngineId = Annotated[int, msgspec.Meta(ge=1, le=ENGINE_MAX)]
Channel = Annotated[int, msgspec.Meta(ge=1, le=CHANNEL_MAX)]
_Price = Annotated[int, msgspec.Meta(ge=-PRICE_MAX, le=PRICE_MAX)]
_Ticks = Annotated[int, msgspec.Meta(ge=0, le=PRICE_MAX)]
_State = Annotated[str, msgspec.Meta(pattern=rf"^({'|'.join(STATES)})\Z", description="one of " + ", ".join(STATES))]


class ListingError(ValueError):
    """A message describes no instrument: the peer's fault."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is traded, where, in which units, within which limits (both prices included) and by which rules.

    Of what is behind price_max, 0 means that there is none; engine/RULES.md says what each is for.
    """

    id: Annotated[int, msgspec.Meta(ge=1, le=INSTRUMENT_MAX)]
    symbol: Annotated[str, msgspec.Meta(pattern=rf"^{SYMBOL.pattern}\Z", description="1-16 of A-Z 0-9 . - _")]
    engine: EngineId
    channel: Channel
    tick_size: Decimal
    lot_size: Decimal
    price_min: _Price
    price_max: _Price
    quantity_max: Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)] = 0
    notional_max: Annotated[int, msgspec.Meta(ge=0, le=NOTIONAL_MAX)] = 0
    collar: _Ticks = 0
    band: _Ticks = 0
    allocation: Annotated[
        str, msgspec.Meta(pattern=rf"^({FIFO}|{PRO_RATA})\Z", description=f"{FIFO} or {PRO_RATA}")
    ] = FIFO
    auction_reference: _Price = 0
    state: _State = "open"

    @property
    def values(self) -> tuple[object, ...]:
        """All that defines it, in the order of its fields; sizes as text."""
        return tuple(_plain(getattr(self, name)) for name in FIELDS)

    @property
    def told(self) -> Definition:
        """What the feed says of it."""
        return Definition(self.symbol, f"{self.tick_size:f}", f"{self.lot_size:f}", self.price_min, self.price_max)


FIELDS: Final = tuple(field.name for field in fields(Instrument))
_DEFAULTS: Final = {"allocation": FIFO, "state": "open"}  # where a message says nothing


def read_table(values: table.Table) -> Instrument:
    """The instrument of a table of cluster.toml, its faults noted there."""
    instrument = values.read(Instrument, {"channel": 1})
    for fault in contradictions(instrument):
        values.fault(fault)
    return instrument


def contradictions(instrument: Instrument) -> list[str]:
    """What no field shows by itself, of one that begins."""
    i = instrument
    if i.price_min > i.price_max or i.price_min <= i.auction_reference <= i.price_max:
        return _crossed(i)
    if i.auction_reference:
        return [f"auction_reference = {i.auction_reference} is not within the price limits"]
    return [f"band = {i.band} needs an auction_reference: the first trade would halt trading"] if i.band else []


def message_of(instrument: Instrument) -> Message:
    """All that defines it."""
    sized = ((_SAID.get(name, name), getattr(instrument, name)) for name in FIELDS)
    said: dict[str, Any] = {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in sized}
    return Message(**said)


def instrument_of(message: Any, **given: object) -> Instrument:
    """The instrument that a message describes, or that an operator asks for; `given` is what the message does not say.

    What is left out is as in a cluster.toml that leaves it out. Raises: ListingError, naming every fault.
    """
    named = {name: _SAID[name] if name in _SAID and hasattr(message, _SAID[name]) else name for name in FIELDS}
    found: dict[str, Any] = {
        name: given[name] if name in given else getattr(message, named[name]) or _DEFAULTS.get(name, 0)
        for name in FIELDS
    }
    wrong = [fault for name in FIELDS if (fault := table.fault(Instrument, name, found[name])) is not None]
    if not wrong:
        found |= {name: Decimal(found[name]) for name in ("tick_size", "lot_size")}
        instrument = Instrument(**found)
        wrong = _crossed(instrument)
        if not wrong:
            return instrument
    raise ListingError("; ".join(wrong))


_SAID: Final = {"state": "first_state"}  # another name in a message, where a state is the present one


def _crossed(i: Instrument) -> list[str]:
    return [f"price_min = {i.price_min} is above price_max = {i.price_max}"] if i.price_min > i.price_max else []


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value

"""An instrument as machines tell each other of it, in the directory and in answers: a message, and back.

Every value that comes in is checked. A machine of an earlier version leaves the rules of trading out: they are then as
in a cluster.toml that leaves them out.
"""

import re
from decimal import Decimal
from typing import Final

from proto.cluster import FIFO, NOTIONAL_MAX, PRICE_MAX, PRO_RATA, QUANTITY_MAX, SIZE, STATES, Instrument
from proto.marketdata_pb2 import Instrument as Message

_SYMBOL: Final = re.compile(r"[A-Z0-9._-]{1,16}")


class ListingError(ValueError):
    """A message describes no instrument: the peer's fault."""


def message_of(instrument: Instrument) -> Message:
    """All that defines it."""
    return Message(
        id=instrument.id,
        symbol=instrument.symbol,
        engine=instrument.engine,
        channel=instrument.channel,
        tick_size=f"{instrument.tick_size:f}",
        lot_size=f"{instrument.lot_size:f}",
        price_min=instrument.price_min,
        price_max=instrument.price_max,
        quantity_max=instrument.quantity_max,
        notional_max=instrument.notional_max,
        collar=instrument.collar,
        band=instrument.band,
        allocation=instrument.allocation,
        auction_reference=instrument.auction_reference,
        first_state=instrument.state,
    )


def instrument_of(message: Message) -> Instrument:
    """The instrument that a message describes. Raises: ListingError if it cannot be one."""
    allocation, state = message.allocation or FIFO, message.first_state or "open"
    good = (
        message.id > 0
        and _SYMBOL.fullmatch(message.symbol)
        and message.engine > 0
        and message.channel > 0
        and _size(message.tick_size)
        and _size(message.lot_size)
        and -PRICE_MAX <= message.price_min <= message.price_max <= PRICE_MAX
        and message.quantity_max <= QUANTITY_MAX
        and message.notional_max <= NOTIONAL_MAX
        and max(message.collar, message.band) <= PRICE_MAX
        and allocation in (FIFO, PRO_RATA)
        and -PRICE_MAX <= message.auction_reference <= PRICE_MAX
        and state in STATES
    )
    if not good:
        raise ListingError(f"not an instrument: {message.symbol!r}")
    return Instrument(
        id=message.id,
        symbol=message.symbol,
        engine=message.engine,
        channel=message.channel,
        tick_size=Decimal(message.tick_size),
        lot_size=Decimal(message.lot_size),
        price_min=message.price_min,
        price_max=message.price_max,
        quantity_max=message.quantity_max,
        notional_max=message.notional_max,
        collar=message.collar,
        band=message.band,
        allocation=allocation,
        auction_reference=message.auction_reference,
        state=state,
    )


def _size(text: str) -> bool:
    return SIZE.fullmatch(text) is not None and Decimal(text) > 0

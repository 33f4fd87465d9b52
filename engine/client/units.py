"""What a user says, in whole ticks and lots: text and decimals are units, and a float is neither."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from engine.client.report import BadCommandError
from proto.columns import BAD_QUANTITY, MALFORMED
from proto.instrument import Instrument
from proto.orders import BadValueError, lots_of, ticks_of

Price = str | Decimal
Quantity = int | str | Decimal


def ticks(name: str, price: Price | None, exact: int | None, instrument: Instrument) -> int | None:
    """What a price says, in ticks; None if nothing. Raises: TypeError, BadCommandError."""
    if exact is not None:
        if price is not None:
            raise TypeError(f"{name} and {name}_ticks say the same: give one of them")
        return whole(f"{name}_ticks", exact)
    if price is None:
        return None
    if not isinstance(price, str | Decimal):
        kind = type(price).__name__
        raise TypeError(f"{name} is text or a Decimal, in units of price, not {kind}; whole ticks go by {name}_ticks=")
    return _converted(ticks_of, price, instrument.tick_size)


def lots(name: str, quantity: Quantity | None, exact: int | None, instrument: Instrument) -> int | None:
    """What a quantity says, in lots; None if nothing. Raises: TypeError, BadCommandError."""
    if exact is not None:
        if quantity is not None:
            raise TypeError(f"{name} and {name}_lots say the same: give one of them")
        return whole(f"{name}_lots", exact)
    if quantity is None:
        return None
    if isinstance(quantity, bool) or not isinstance(quantity, int | str | Decimal):
        kind = type(quantity).__name__
        raise TypeError(f"{name} is an int, text or a Decimal, in units, not {kind}; whole lots go by {name}_lots=")
    return _converted(lots_of, quantity, instrument.lot_size)


def needed_lots(quantity: Quantity | None, exact: int | None, instrument: Instrument) -> int:
    found = lots("quantity", quantity, exact, instrument)
    if found is None:
        raise BadCommandError(BAD_QUANTITY, "the quantity is missing")
    return found


def _converted(convert: Callable[[str, Decimal], int], value: Quantity, size: Decimal) -> int:
    try:
        return convert(str(value), size)
    except BadValueError as e:
        raise BadCommandError(e.reason, str(e)) from e
    except ValueError as e:  # an int of thousands of digits has no text
        raise BadCommandError(MALFORMED, str(e)) from e


def within(name: str, value: int, most: int) -> None:
    """Raises: ValueError for a whole number that is not within 0 and this; TypeError for what is none."""
    if not 0 <= whole(name, value) <= most:
        raise ValueError(f"{name} is a whole number from 0 to {most:,}, not {value:,}")


def whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
    return value

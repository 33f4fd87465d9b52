"""What an operator, or an edit of the venue's file, may tell the venue; RULES.md says what each does.

These are what the log writes, as they are: `tag` is the kind of a record's part (engine/log/records.py), so it never
changes its meaning, and a field that is added stands last and has a default.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from proto.cluster import Account
from proto.instrument import FIELDS, Instrument
from proto.table import field_types

Count = Annotated[int, msgspec.Meta(ge=0)]  # unsigned, 64 bits: msgpack has no larger ones
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Command(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass


class SetState(_Command, frozen=True, tag=3):
    """Put an instrument into a trading state (the feed's numbers)."""

    instrument: Count
    state: Byte


class Kill(_Command, frozen=True, tag=4):
    """Cancel and refuse the orders of an account (0: all) on an instrument (0: all); `on` False lifts it again."""

    account: Count
    instrument: Count
    on: bool


# The fields of a definition, one after the other.
_Defined: Final[Any] = msgspec.defstruct("_Defined", field_types(Instrument), bases=(_Command,))


class _Definition(_Defined):  # type: ignore[misc]  # made from Instrument's fields
    @classmethod
    def of(cls, definition: Instrument) -> Any:
        return cls(*[getattr(definition, name) for name in FIELDS])

    @property
    def definition(self) -> Instrument:
        return Instrument(*[getattr(self, name) for name in FIELDS])


class AddInstrument(_Definition, tag=5):  # type: ignore[call-arg]
    """Begin to trade an instrument."""


class Delist(_Command, frozen=True, tag=6):
    """Cancel everything on an instrument and trade it no more."""

    instrument: Count


class BustTrade(_Command, frozen=True, tag=7):
    """Declare a trade void."""

    instrument: Count
    trade_id: Count


class CorrectTrade(_Command, frozen=True, tag=8):
    """Declare that a trade was at another price (ticks) or of another quantity (lots)."""

    instrument: Count
    trade_id: Count
    price: int
    quantity: Count


class Roll(_Command, frozen=True, tag=9):
    """End the day of a closed instrument: its session's statistics begin anew."""

    instrument: Count


class ChangeInstrument(_Definition, tag=10):  # type: ignore[call-arg]
    """Trade an instrument under other limits from now on; what else defines it stays."""


class SetAccounts(_Command, frozen=True, tag=11):
    """Let these accounts trade from now on, and no others; none: every account."""

    accounts: tuple[Account, ...]


OperatorCommand: TypeAlias = (
    SetState | Kill | AddInstrument | Delist | BustTrade | CorrectTrade | Roll | ChangeInstrument | SetAccounts
)

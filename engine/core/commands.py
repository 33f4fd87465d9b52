"""What an operator may tell the venue; each is a log record of its own, and RULES.md says what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from proto.cluster import Instrument


@dataclass(frozen=True, slots=True)
class SetState:
    """Put an instrument into a trading state (the feed's numbers)."""

    instrument: int
    state: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Cancel and refuse the orders of an account (0: all) on an instrument (0: all); `on` False lifts it again."""

    account: int
    instrument: int
    on: bool


@dataclass(frozen=True, slots=True)
class AddInstrument:
    """Begin to trade an instrument."""

    definition: Instrument


@dataclass(frozen=True, slots=True)
class Delist:
    """Cancel everything on an instrument and trade it no more."""

    instrument: int


@dataclass(frozen=True, slots=True)
class BustTrade:
    """Declare a trade void."""

    instrument: int
    trade_id: int


@dataclass(frozen=True, slots=True)
class CorrectTrade:
    """Declare that a trade was at another price (ticks) or of another quantity (lots)."""

    instrument: int
    trade_id: int
    price: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Roll:
    """End the day of a closed instrument: its session's statistics begin anew."""

    instrument: int


OperatorCommand: TypeAlias = SetState | Kill | AddInstrument | Delist | BustTrade | CorrectTrade | Roll

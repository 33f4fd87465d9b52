"""How much one command may set off, and how much may wait; engine/RULES.md says what happens at each bound."""

from __future__ import annotations

from typing import Final, NamedTuple


class Limits(NamedTuple):
    """Bounds that hold for every instrument.

    trades    of one incoming order, at one go
    settling  things that happen while a market settles, and trades of them, before it pauses to the next record
    slices    an iceberg's quantity is at most so many times what it shows
    waiting   live orders of a kind (sleeping stops; conditional orders; pegs) on an instrument
    own       those of one account
    """

    trades: int = 10_000
    settling: int = 10_000
    slices: int = 1_000
    waiting: int = 1_000
    own: int = 200


LIMITS: Final = Limits()

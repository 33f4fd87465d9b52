"""The plan of a trading day: when its phases begin, what upsets it, and the rules its instruments trade by.

    share of the day    what is done
    0                   pre-open: orders gather, and the feed says what they would trade
    0.12                auction
    0.20                open: the auction uncrosses
    0.40                the shock: one instrument is suddenly worth far more, or less, than its band allows for
    halt + 0.14         an instrument that its band has halted is opened again: its auction uncrosses
    0.78                closing auction
    0.90                closed: the auction uncrosses, day orders expire
    0.95                roll: statistics begin anew

Nothing here knows a venue or a clock: seconds in, steps out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from proto.feed import AUCTION, CLOSED, OPEN, PRE_OPEN, STATE_NAMES
from proto.instrument import FIFO, PRO_RATA, STATES, Instrument

ROLL: Final = -1  # instead of a state
DURATION_S: Final = 40.0
DURATION_MIN_S: Final = 10.0
TRADERS_MIN: Final = 2  # one that makes a market, and one that takes

PLAN: Final = (
    (0.12, "opening auction", AUCTION, "opening auction"),
    (0.20, "trading", OPEN, "open"),
    (0.78, "closing auction", AUCTION, "closing auction"),
    (0.90, "closed", CLOSED, "closed: day orders expire"),
    (0.95, "closed", ROLL, "the day's roll: statistics begin anew"),
)
SHOCK: Final = 0.40
HALT: Final = 0.14
CLOSING: Final = 0.78

BAND: Final = 120  # ticks: far more than a fair price wanders between two auctions
COLLAR: Final = 40
JUMP: Final = 2 * BAND
EXPECTED: Final = (PRE_OPEN, AUCTION, OPEN, AUCTION, CLOSED)  # the states of a day in which nothing is halted


@dataclass(frozen=True, slots=True)
class PhaseChange:
    """What the operator does at that time to every instrument: a state, or ROLL."""

    at_s: float
    name: str
    state: int
    said: str


@dataclass(frozen=True, slots=True)
class Day:
    """The plan for a day of so many seconds, with one instrument that a shock awaits."""

    duration_s: float
    shocked: int  # instrument
    jump: int  # ticks

    @property
    def steps(self) -> tuple[PhaseChange, ...]:
        """What follows the pre-open phase, in order."""
        return tuple(PhaseChange(share * self.duration_s, name, state, said) for share, name, state, said in PLAN)

    @property
    def shock_s(self) -> float:
        return SHOCK * self.duration_s

    def shock_in_words(self, instruments: Sequence[Instrument]) -> str:
        instrument = next(instrument for instrument in instruments if instrument.id == self.shocked)
        less = "more" if self.jump > 0 else "less"
        return f"news: {instrument.symbol} is worth {abs(self.jump) * instrument.tick_size} {less}"

    def phase(self, now_s: float) -> str:
        """What the day is in, in words."""
        begun = [step.name for step in self.steps if step.at_s <= now_s]
        return begun[-1] if begun else STATE_NAMES[PRE_OPEN]

    def reopens_s(self, halted_s: float) -> float | None:
        """When an instrument that halted then is opened again; None: the closing auction comes first."""
        at_s = halted_s + HALT * self.duration_s
        return at_s if at_s < CLOSING * self.duration_s else None


class Agenda:
    """What is still to be done on a day. A step of the plan comes before what a halt asked for, and makes an end of
    that: what is halted when the closing auction begins stays so to the close."""

    def __init__(self, day: Day) -> None:
        self._day = day
        self._steps = list(day.steps)
        self._shock: tuple[int, ...] = (day.shocked,)
        self._reopens: dict[int, float] = {}  # halted instruments: when to open them again

    def halted(self, instrument: int, now_s: float) -> None:
        """The venue has halted an instrument."""
        at_s = self._day.reopens_s(now_s)
        if at_s is not None:
            self._reopens[instrument] = at_s

    def steps_due(self, now_s: float) -> list[PhaseChange]:
        due = [step for step in self._steps if step.at_s <= now_s]
        del self._steps[: len(due)]
        if due:
            self._reopens.clear()
        return due

    def shocks_due(self, now_s: float) -> tuple[int, ...]:
        """The instruments that news has come of, once."""
        if now_s < self._day.shock_s:
            return ()
        due, self._shock = self._shock, ()
        return due

    def openings_due(self, now_s: float) -> list[int]:
        """The instruments whose halt has lasted long enough."""
        due = [instrument for instrument, at_s in self._reopens.items() if at_s <= now_s]
        for instrument in due:
            del self._reopens[instrument]
        return due


def day_of(duration_s: float, instruments: Sequence[Instrument], seed: int) -> Day:
    """The day of these instruments: the seed says which of them is shocked, and which way."""
    chance = random.Random(f"{seed}/day")
    shocked = chance.choice([instrument.id for instrument in instruments])
    return Day(duration_s, shocked, chance.choice((-JUMP, JUMP)))


def ruled(instrument: Instrument) -> Instrument:
    """The same instrument by the rules of a trading day: it begins closed, with a band, a collar and a reference, and
    every other one shares out by size."""
    return replace(
        instrument,
        collar=COLLAR,
        band=BAND,
        allocation=FIFO if instrument.id % 2 else PRO_RATA,
        auction_reference=10_000 + 1_700 * (instrument.id % 10),
        state=STATES[CLOSED - 1],
    )

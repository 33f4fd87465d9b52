"""What shall go wrong: fault specs as text, and which messages they hit, decided from a seed.

    --faults drop=0.05,dup=0.02,reorder=0.02,kill=engine-2@5,restart=engine-2@9,pause=fabric-1@4:2

A rate is the chance that one message is hit. A timed fault happens to a named process so many seconds after trading
began. Each kind draws from a random sequence of its own, so adding a kind, or changing one's rate, does not change
which messages the others pick.
"""

import heapq
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

HOLD_FRAMES_MAX: Final = 4  # a reordered message lets up to so many later ones pass
HOLD_NS: Final = 20_000_000  # and goes out after this long even if none came

PROCESS: Final = re.compile(r"(?:engine|fabric)-[1-9][0-9]{0,2}")
KINDS_OF_PROCESS_FAULT: Final = ("kill", "restart", "pause")


class FaultError(ValueError):
    """A fault spec that cannot be used; `faults` has one line for each thing wrong with it."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class TimedFault:
    """Something done to a process, `at_s` seconds after trading began; `for_s` is how long a pause lasts."""

    kind: str
    name: str
    at_s: float
    for_s: float = 0.0

    def __str__(self) -> str:
        length = f":{self.for_s:g}" if self.kind == "pause" else ""
        return f"{self.kind}={self.name}@{self.at_s:g}{length}"


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A parsed spec: rates of message faults in the order of MESSAGE_FAULTS, timed faults in order of time."""

    rates: tuple[tuple[str, float], ...] = ()
    timed: tuple[TimedFault, ...] = ()

    def __str__(self) -> str:
        return ",".join([f"{kind}={rate:g}" for kind, rate in self.rates] + [str(fault) for fault in self.timed])

    def killed(self) -> tuple[str, ...]:
        """Processes that are down at the end, in the order they went."""
        down: dict[str, None] = {}
        for fault in self.timed:
            if fault.kind == "kill":
                down[fault.name] = None
            elif fault.kind == "restart":
                down.pop(fault.name, None)
        return tuple(down)


def parse(text: str) -> FaultSpec:
    """Read `drop=0.02,kill=engine-1@5,...`; the empty text means no faults. Raises: FaultError with every mistake."""
    rates: dict[str, float] = {}
    timed: list[TimedFault] = []
    wrong: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = item.partition("=")
        try:
            if kind in MESSAGE_FAULTS:
                if kind in rates:
                    raise FaultError([f"{kind} is given twice"])
                rates[kind] = _rate(item, value)
            elif kind in KINDS_OF_PROCESS_FAULT:
                timed.append(_timed(item, kind, value))
            else:
                known = ", ".join((*MESSAGE_FAULTS, *KINDS_OF_PROCESS_FAULT))
                raise FaultError([f"{item!r}: no such fault; there are {known}"])
        except FaultError as e:
            wrong += e.faults
    timed.sort(key=lambda fault: fault.at_s)
    wrong += _in_order(timed)
    if wrong:
        raise FaultError(wrong)
    return FaultSpec(tuple((kind, rates[kind]) for kind in MESSAGE_FAULTS if rates.get(kind)), tuple(timed))


def _rate(item: str, value: str) -> float:
    rate = _number(value)
    if rate is None or not 0 <= rate <= 1:
        raise FaultError([f"{item!r}: a rate is a number from 0 to 1"])
    return rate


def _timed(item: str, kind: str, value: str) -> TimedFault:
    name, at, when = value.partition("@")
    form = f"{kind}=NAME@SECONDS" + (":FOR" if kind == "pause" else "")
    start, colon, length = when.partition(":")
    at_s = _number(start)
    for_s = _number(length) if colon else 0.0
    if not at or at_s is None or for_s is None or bool(colon) != (kind == "pause"):
        raise FaultError([f"{item!r} is not of the form {form}"])
    if not PROCESS.fullmatch(name):
        raise FaultError([f"{item!r}: {name!r} is neither an engine (engine-1) nor a fabric node (fabric-1)"])
    if kind == "pause" and for_s == 0:
        raise FaultError([f"{item!r}: a pause lasts longer than 0 seconds"])
    return TimedFault(kind, name, at_s, for_s)


def _number(text: str) -> float | None:
    """A number as people write it; no sign, no infinity, not 'nan'."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _in_order(timed: Sequence[TimedFault]) -> list[str]:
    """Who is down cannot be killed or paused, who is up cannot be restarted."""
    wrong: list[str] = []
    down: dict[str, bool] = {}
    for fault in timed:
        is_down = down.get(fault.name, False)
        if fault.kind == "restart" and not is_down:
            wrong.append(f"{str(fault)!r}: {fault.name} was not killed before")
        elif fault.kind != "restart" and is_down:
            wrong.append(f"{str(fault)!r}: {fault.name} is down by then")
        down[fault.name] = fault.kind == "kill" if fault.kind != "pause" else is_down
    return wrong


@dataclass(order=True, slots=True)
class _Held:
    release_at: int  # index of the frame after which it goes
    release_ns: int
    order: int
    frame: bytes = field(compare=False)


class FaultPlan:
    """The messages of one line, one after the other: which go on, twice, later or not at all.

    Deterministic in (seed, line, rates, number of the message), but for a reordered message at the end of a burst,
    which waits for HOLD_NS of the time given. `counts` says what was done, `passed` counting what came in.
    """

    __slots__ = ("_held", "_kinds", "_order", "counts", "index")

    def __init__(self, rates: Sequence[tuple[str, float]], seed: int, line: str = "") -> None:
        self.index = 0
        self.counts: dict[str, int] = {"messages": 0} | dict.fromkeys(MESSAGE_FAULTS, 0)
        self._kinds = [(kind, rate, random.Random(f"{seed}/{line}/{kind}")) for kind, rate in rates]
        self._held: list[_Held] = []
        self._order = 0

    def frame(self, frame: bytes, now_ns: int) -> list[bytes]:
        """What to send now that `frame` came in: it, or what became of it, then held ones whose time has come."""
        self.index += 1
        self.counts["messages"] += 1
        sent = [frame]
        for kind, rate, chance in self._kinds:
            if chance.random() < rate:
                self.counts[kind] += 1
                sent = [out for each in sent for out in MESSAGE_FAULTS[kind](self, each, chance, now_ns)]
        while self._held and self._held[0].release_at <= self.index:
            sent.append(heapq.heappop(self._held).frame)
        return sent

    def due(self, now_ns: int) -> list[bytes]:
        """Held messages that have waited long enough, in the order they came."""
        due = sorted((held for held in self._held if held.release_ns <= now_ns), key=lambda held: held.order)
        if due:
            self._held = [held for held in self._held if held.release_ns > now_ns]
            heapq.heapify(self._held)
        return [held.frame for held in due]

    def next_due_ns(self) -> int | None:
        """When `due` has something next; None when nothing is held."""
        return min((held.release_ns for held in self._held), default=None)

    def hold(self, frame: bytes, frames: int, now_ns: int) -> None:
        """Keep `frame` until `frames` later ones have passed, or HOLD_NS."""
        self._order += 1
        heapq.heappush(self._held, _Held(self.index + frames, now_ns + HOLD_NS, self._order, frame))


def _drop(plan: FaultPlan, frame: bytes, chance: random.Random, now_ns: int) -> list[bytes]:
    return []


def _duplicate(plan: FaultPlan, frame: bytes, chance: random.Random, now_ns: int) -> list[bytes]:
    return [frame, frame]


def _reorder(plan: FaultPlan, frame: bytes, chance: random.Random, now_ns: int) -> list[bytes]:
    plan.hold(frame, chance.randint(1, HOLD_FRAMES_MAX), now_ns)
    return []


# What a hit does to a message, by kind, in the order in which they are tried.
MESSAGE_FAULTS: Final[dict[str, Callable[[FaultPlan, bytes, random.Random, int], list[bytes]]]] = {
    "drop": _drop,
    "dup": _duplicate,
    "reorder": _reorder,
}

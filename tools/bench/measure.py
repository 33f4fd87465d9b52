"""Figures that can be believed: rounds that take turns, the median, how far they strayed, and a hash of the work.

A machine that is shared runs at half speed for minutes, so a figure alone says little. Whatever is compared is run in
turns, round by round, and a ratio is the median of the rounds' own ratios: both sides of each saw the same machine.
"""

import datetime
import gc
import hashlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# For what one thread does without waiting for anything: the time it spends, and not what others take from it meanwhile.
cpu_ns: Final = time.thread_time_ns

PURE: Final = ("engine.core.venue", "engine.core.book", "proto.feed", "bus.stream.feed_client", "bus.stream.mirror")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a run is told. `quick` trades rounds and sizes for time, not names."""

    quick: bool = False
    seed: int = 7
    rounds: int = 0  # 0: as many as the part thinks right
    data: Path | None = None  # where recorded flow is; None: synthesise it
    peers: bool = False  # install the engines of PyPI

    def take(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full

    def turns(self, full: int, quick: int) -> int:
        """How many rounds."""
        return self.rounds or self.take(full, quick)


@dataclass(frozen=True, slots=True)
class Result:
    """One figure.

    baseline  what the same work cost, or how fast it went, without us, in the same unit; None: there is none
    ratio     value / baseline, the median of the rounds' own; None without a baseline
    spread    (highest - lowest) / median over the rounds; 0 for what cannot vary
    digest    hash of the work done: two results with the same digest did the same
    against   what the baseline is; goal: what the figure should reach. For people: not part of the JSON.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    spread: float = 0.0
    command: str = ""
    digest: str = ""
    against: str = ""
    goal: str = ""


Rounds = dict[str, list[float]]


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Run each contender once a round, `rounds` times; every second round goes backwards, so that nobody always
    follows the same one."""
    found: Rounds = {name: [] for name in contenders}
    names = list(contenders)
    for i in range(rounds):
        for name in names if i % 2 == 0 else reversed(names):
            found[name].append(contenders[name]())
    return found


def spread(values: Sequence[float]) -> float:
    """(highest - lowest) / median; 0 for fewer than two."""
    return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else 0.0


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


@dataclass(slots=True)
class PartReport:
    """All that one part found. `notes` are whole paragraphs: what to know."""

    part: str
    goal: str
    workload: str
    processes: str  # which processes shared the cores
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: str = ""

    @property
    def command(self) -> str:
        return f"python -m tools.bench {'core --peers' if self.part == 'peers' else self.part}"

    def add(
        self, name: str, unit: str, ours: Sequence[float], theirs: Sequence[float] = (), *,
        digest: str, against: str = "", goal: str = "",
    ) -> None:  # fmt: skip
        """The figure of rounds, beside that of the baseline's rounds if there is one."""
        baseline = statistics.median(theirs) if theirs else None
        beside = ratio(ours, theirs) if theirs else None
        self.results.append(
            Result(
                name, statistics.median(ours), unit, baseline, beside, spread(ours), self.command, digest, against, goal
            )
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the collector out, as an engine does: what lives stays where it is, and nothing is collected."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
        gc.collect()


def this_machine() -> str:
    """What a reader needs to judge a figure: where and when it was measured, whether the pure cores ran compiled, and
    how many processes of others wanted a core in the minute before (another part's own included, if one ran)."""
    return (
        f"{len(os.sched_getaffinity(0))} cores of {_cpu()}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {build()}, {datetime.date.today().isoformat()}, "
        f"load {os.getloadavg()[0]:.1f} before it began"
    )


def build() -> str:
    """`plain Python`, `compiled`, or which of the pure modules are compiled."""
    compiled = [name for name in PURE if not (__import__(name, fromlist=["_"]).__file__ or "").endswith(".py")]
    if len(compiled) in (0, len(PURE)):
        return "compiled" if compiled else "plain Python"
    return f"compiled: {', '.join(compiled)}"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hash_of(*parts: object) -> str:
    """16 hex digits over the parts: bytes as they are, anything else by its repr."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part if isinstance(part, bytes) else repr(part).encode())
    return hasher.hexdigest()[:16]


def say(text: str) -> None:
    """A word on progress, for whoever waits; results go to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)

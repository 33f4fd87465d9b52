"""The machine a figure was measured on: no figure means anything without it."""

import datetime
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CORES_MODULES: Final = (
    "engine.core.venue",
    "engine.core.book",
    "engine.core.matching",
    "proto.feed",
    "bus.stream.sequencer",
    "bus.stream.mirror",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader needs to judge a figure; `cores` says which pure cores ran compiled, `load` how many processes of
    others wanted a core in the minute before (the measurement's own included, if another part ran just then)."""

    cpu: str
    count: int
    system: str
    python: str
    date: str
    cores: str
    load: float

    def __str__(self) -> str:
        where = f"{self.count} cores of {self.cpu}, {self.system}, Python {self.python}, {self.cores}"
        return f"{where}, {self.date}, load {self.load:.1f} before it began"


def this_machine() -> Machine:
    """Where this process runs, and when."""
    return Machine(
        cpu=_cpu(),
        count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        date=datetime.date.today().isoformat(),
        cores=build_of(CORES_MODULES),
        load=os.getloadavg()[0],
    )


def build_of(modules: Iterable[str]) -> str:
    """`plain Python`, `compiled`, or which of the modules are compiled."""
    compiled = [name for name in modules if is_compiled(name)]
    if not compiled:
        return "plain Python"
    return "compiled" if len(compiled) == len(list(modules)) else f"compiled: {', '.join(compiled)}"


def is_compiled(module: str) -> bool:
    """Whether a module of ours runs as machine code."""
    file = __import__(module, fromlist=["__file__"]).__file__ or ""
    return not file.endswith(".py")


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

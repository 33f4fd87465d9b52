"""Readers who come and go while a cluster runs: each joins every stream in the middle, and checks what it then has.

    python -m tools.run.late_joiners 127.0.0.1:4000 --every 0.7

Each reads the feeds that the directory names, splices a snapshot into what it hears, and compares its books, in full
queue order and at one sequence, with those of a machine other than its source; then it leaves.

It speaks as tools/child.py says: after each reader the sums so far, {"came": N, "streams": N, "verified": N,
"differing": [...], "counters": {...}}.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.run.late_joiners", "late_joiners")

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any, Final

from bus.reader import Feed
from proto.dial import Parser
from tools.child import patience_asked, ready, run, say

STAY_S: Final = 3.0  # the longest that a reader waits for its books, on a quiet machine


class LateJoiners:
    """The sums over all who came."""

    def __init__(self, machines: Sequence[str]) -> None:
        self._machines = list(machines)
        self._came = 0
        self._streams = 0
        self._verified = 0
        self._differing: list[str] = []
        self._counters: dict[str, int] = {}

    async def come(self, stay_s: float) -> None:
        """One reader, from its first question to its leaving; nothing happens if nobody answers it."""
        machine = self._machines[self._came % len(self._machines)]
        async with Feed([machine]) as feed:
            compared = await feed.verify(self._came, stay_s)
            if not compared:
                self._machines.append(self._machines.pop(0))
                return
            self._came += 1
            self._streams += len(compared)
            self._verified += sum(each.equal for each in compared)
            self._differing += [difference for each in compared for difference in each.differences]
            for counters in feed.counters().values():
                for name, count in counters.items():
                    self._counters[name] = self._counters.get(name, 0) + count

    def sums(self) -> dict[str, Any]:
        return {
            "came": self._came,
            "streams": self._streams,
            "verified": self._verified,
            "differing": self._differing,
            "counters": self._counters,
        }


def parser() -> argparse.ArgumentParser:
    out = Parser(prog="python -m tools.run.late_joiners", description=__doc__.split("\n\n")[0])
    out.add_argument("machine", nargs="+", metavar="HOST:PORT", help="machines to ask in turn")
    out.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between one and the next")
    return out


async def come_and_go(machines: Sequence[str], every_s: float) -> None:
    joiners = LateJoiners(machines)
    ready("late-joiners")
    while True:
        await joiners.come(STAY_S * patience_asked())
        say(joiners.sums())
        await asyncio.sleep(every_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 2 for wrong usage."""
    args = parser().parse_args(argv)
    run(lambda: come_and_go(args.machine, args.every))
    return 0

"""Strangers who come and go while a cluster runs: each joins every stream in the middle, and checks what it then has.

    python -m tools.run.strangers 127.0.0.1:4000 --every 0.7

Each reads the feeds that the directory names, splices a snapshot into what it hears, and compares its books, in full
queue order and at one sequence, with those of a machine other than its source; then it leaves.

On stdout, JSON lines: {"ready": true, ...}, then after each stranger the sums so far, {"strangers": N, "streams": N,
"verified": N, "differing": [...], "counters": {...}}. SIGTERM ends it.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import grpc

from bus.access.exchange import DirectoryError, ask
from proto.dial import Parser
from tools import tail_feed
from tools.tail_feed import Listener

ASK_S: Final = 2.0
STAY_S: Final = 3.0  # the longest that a stranger waits for its books


class Strangers:
    """The sums over all who came."""

    def __init__(self, machines: Sequence[str]) -> None:
        self._machines = list(machines)
        self._came = 0
        self._streams = 0
        self._verified = 0
        self._differing: list[str] = []
        self._counters: dict[str, int] = {}

    async def come(self, stay_s: float) -> None:
        """One stranger, from its first question to its leaving; nothing happens if nobody answers it."""
        machine = self._machines[self._came % len(self._machines)]
        try:
            entries = await ask(machine, ASK_S)
            args = tail_feed.parser().parse_args([machine, "--quiet"])
            listener = Listener(args, entries, tail_feed.chosen(entries, ()))
        except (grpc.aio.AioRpcError, DirectoryError, tail_feed.CannotConnect):
            self._machines.append(self._machines.pop(0))
            return
        try:
            listener.start()
            await listener.verify_once(self._came, stay_s)
        finally:
            clients = listener.clients
            await listener.stop()
            self._came += 1
            self._streams += len(clients)
            self._verified += listener.said.verified
            self._differing += listener.said.differing
            for client in clients:
                for name, count in client.counters.as_dict().items():
                    self._counters[name] = self._counters.get(name, 0) + count

    def sums(self) -> dict[str, Any]:
        return {
            "strangers": self._came,
            "streams": self._streams,
            "verified": self._verified,
            "differing": self._differing,
            "counters": self._counters,
        }


def say(line: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)


def parser() -> argparse.ArgumentParser:
    out = Parser(prog="python -m tools.run.strangers", description=__doc__.split("\n\n")[0])
    out.add_argument("machine", nargs="+", metavar="HOST:PORT", help="machines to ask in turn")
    out.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between one and the next")
    return out


async def run(args: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    strangers = Strangers(args.machine)
    say({"ready": True, "name": "strangers", "pid": os.getpid()})
    while True:
        await strangers.come(STAY_S)
        say(strangers.sums())
        await asyncio.sleep(args.every)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 2 for wrong usage."""
    with suppress(asyncio.CancelledError):
        asyncio.run(run(parser().parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m engine.log.condense`: make a snapshot of an engine's state out of its log, beside the engine.

The engine starts it now and then, at low priority. It takes up the last snapshot, applies what was logged since, as a
restart would, and keeps the result: the engine itself spends nothing on it, and does not stop for it. Before it is
kept, the snapshot is loaded again and compared. It ends when its standard input does, so that it does not outlive the
engine.
"""

from __future__ import annotations

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("engine.log.condense", "condense")

import argparse
import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from engine.log.contract import LogError
from engine.log.kept import KeptReports
from engine.log.replay import Keeper, counting, replay, restore
from engine.log.state import AccountHistory, dump, load
from engine.log.view import SqliteLogView
from proto import logs
from proto.dial import Parser

EXIT_OK: Final = 0
EXIT_DIFFERS: Final = 1
EXIT_USAGE: Final = 2
EXIT_CANNOT_READ: Final = 3
ROOT: Final = Path(__file__).resolve().parents[2]
NICE: Final = 15
LOOK_S: Final = 1.0
WAIT_S: Final = 0.1
PAUSE_S: Final = 30.0  # between snapshots: under load they take a core that others could use

logger = logging.getLogger(__name__)


class SnapshotError(Exception):
    """What was loaded again is not what was written: our own bug. Nothing is kept."""


class Keeping(Keeper, Protocol):
    """A log to keep snapshots in."""

    def save_snapshot(self, position: int, body: bytes) -> None: ...


def condense(log: Keeping) -> int:
    """Keep a snapshot at the log's present end; gives its position.

    Raises: LogError, StartRefused among them; SnapshotError.
    """
    after, state = restore(log)
    kept = KeptReports(state.venue.engine)
    for history in state.histories:
        kept.restore(history.account, history.last_seq, history.batches)

    end = max(replay(log, state, after, *counting(state, kept.remember)))
    if end == after:
        return end
    state.histories = [AccountHistory(account, last_seq, batches) for account, last_seq, batches in kept.histories()]
    body = dump(state)
    again = load(body)
    if again.venue.digest() != state.venue.digest() or dump(again) != body:
        raise SnapshotError(f"the snapshot at position {end} does not lead back to the state it was made of")
    log.save_snapshot(end, body)
    return end


class Condenser:
    """The engine's side: has a snapshot made whenever enough has been logged since the last one.

    command   what makes one, but for its options
    every     commands
    logged    how many there have been, those replayed at the start included
    kept      called when one was made
    """

    def __init__(
        self, command: Sequence[str], every: int, logged: Callable[[], int], kept: Callable[[], Awaitable[None]]
    ) -> None:
        self._command = [*command, "--with-stdin"]
        self._every = every
        self._logged = logged
        self._kept = kept
        self.made = 0

    async def run(self) -> None:
        """Never ends; when it is canceled, what is under way ends too."""
        done = 0
        while True:
            await asyncio.sleep(LOOK_S)
            logged = self._logged()
            if logged - done < self._every:
                continue
            await self._make()
            done = logged
            await asyncio.sleep(PAUSE_S)

    async def _make(self) -> None:
        # Not asyncio's own way, which under uvloop forks: that copies the page tables of all the books.
        process = subprocess.Popen(  # noqa: ASYNC220
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT
        )
        try:
            while (code := process.poll()) is None:
                await asyncio.sleep(WAIT_S)
        finally:
            process.kill()
            process.wait()
            assert process.stdin
            process.stdin.close()
        if code == EXIT_OK:
            self.made += 1
            await self._kept()
        else:
            logger.warning("no snapshot could be made (exit code %d): the next start will take longer", code)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m engine.log.condense",
        description="Make a snapshot of an engine's state out of its log, so that its next start is short.",
        epilog="example: python -m engine.log.condense --data data/engine-1",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where its log is")
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input does")
    return parser


def leave_with_stdin() -> None:
    """End the process when its standard input does: it must not outlive who started it."""
    while os.read(0, 1):
        pass
    os._exit(EXIT_OK)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when there is a snapshot at the log's end, 1 if it came out wrong, 2 for wrong usage, 3 if the log cannot
    be read or the snapshot not be written."""
    args = parser().parse_args(argv)
    logs.set_up()
    if args.with_stdin:
        os.nice(NICE)
        threading.Thread(target=leave_with_stdin, daemon=True).start()
    gc.disable()  # a million orders are no garbage, and looking at them again and again takes long
    try:
        log = SqliteLogView(args.data)
        try:
            condense(log)
        finally:
            log.close()
    except SnapshotError as e:
        print(f"condense: {e}", file=sys.stderr)
        return EXIT_DIFFERS
    except (LogError, OSError) as e:
        print(f"condense: {e}", file=sys.stderr)
        return EXIT_CANNOT_READ
    return EXIT_OK

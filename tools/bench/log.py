"""The command log: an append that is durable, beside a bare write and fdatasync of the same bytes; and a restart.

The bytes are those an engine logs: records of one group of batches each, in the project's own encoding.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from engine.log import records
from engine.log.sqlite import SqliteLog
from proto.columns import STP_NONE
from tools.bench import flows, restart, show
from tools.bench.deltas import START_NS
from tools.bench.flows import ACCOUNT
from tools.bench.measure import Options, Report, hash_of, in_turns, result, say

COMMAND: Final = "python -m tools.bench log"
PREALLOCATED: Final = 8 << 20  # as the log's own write-ahead file


def run(options: Options) -> Report:
    """log.append_<rows>: seconds for one durable append of one record with so many commands; log.restart."""
    say("log: appends and bare syncs, in turns")
    appends = options.take(200, 30)
    rounds = options.turns(5, 3)
    flow = flows.load("normal", options.data, options.seed, 8_192)
    report = Report(
        "log",
        "a durable append costs about what a bare fdatasync of its bytes does; an engine with a million logged "
        f"commands serves within {restart.GOAL_S:g} s",
        f"records of 1, 64, 256 and 2,048 commands of {flow.source}, {appends} appends a round, on the disk of "
        f"{tempfile.gettempdir()}",
        "one process, one thread; the commit blocks it; a restarted engine runs alone",
    )
    for size in (1, 64, 256, 2_048):
        bodies = [record(commands) for commands in flows.batches(flow.rows, min(size, flows.BATCH * 8))]
        with tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as name:
            contenders = _Contenders(Path(name), bodies, appends)
            found = in_turns(
                {"log": contenders.log, "bare": contenders.bare, "preallocated": contenders.preallocated}, rounds
            )
            contenders.close()
        digest = hash_of(*bodies)
        report.results.append(
            result(
                f"log.append_{size}", "s", found["log"], found["preallocated"], command=COMMAND, digest=digest,
                against="write and fdatasync of the same bytes into a file that already has its size (median)",
            )
        )  # fmt: skip
        report.results.append(
            result(
                f"log.fdatasync_{size}", "s", found["bare"], found["preallocated"], command=COMMAND, digest=digest,
                against="write and fdatasync of the same bytes into a file that already has its size (median)",
            )
        )  # fmt: skip
        if size == flows.BATCH:
            report.notes.append(show.histogram("a durable append of 256 commands", contenders.latencies))
    report.notes.append(
        "log.append is engine/log on SQLite: write-ahead log, synchronous=FULL, a CRC and a chained hash a record. "
        "log.fdatasync appends the same bytes to a growing file and syncs it."
    )
    restart.run(options, report)
    return report


def record(commands: bytes) -> bytes:
    """The body of a log record of one batch."""
    return records.encode(records.Commands(1, START_NS, [records.Entered(ACCOUNT, 0, STP_NONE, commands)]))


class _Contenders:
    """A log and two bare files in one directory; each call gives the median seconds of an append."""

    def __init__(self, directory: Path, bodies: list[bytes], appends: int) -> None:
        self._bodies = [bodies[i % len(bodies)] for i in range(appends)]
        self._log = SqliteLog(directory / "log")
        self._growing = os.open(directory / "growing", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._sized = os.open(directory / "sized", os.O_WRONLY | os.O_CREAT)
        os.write(self._sized, bytes(PREALLOCATED))
        os.fsync(self._sized)
        self.latencies: list[float] = []

    def log(self) -> float:
        position = self._log.position
        if self._log.checkpoint_due:
            self._log.checkpoint()
        found = []
        for body in self._bodies:
            before = perf_counter_ns()
            position = self._log.append(position, [body])
            found.append((perf_counter_ns() - before) / 1e9)
        self.latencies += found
        return show.percentile(sorted(found), 0.5)

    def bare(self) -> float:
        return self._timed(self._growing, lambda: None)

    def preallocated(self) -> float:
        os.lseek(self._sized, 0, os.SEEK_SET)
        return self._timed(self._sized, self._rewind)

    def _rewind(self) -> None:
        if os.lseek(self._sized, 0, os.SEEK_CUR) > PREALLOCATED - (1 << 20):
            os.lseek(self._sized, 0, os.SEEK_SET)

    def _timed(self, fd: int, prepare: Callable[[], None]) -> float:
        found = []
        for body in self._bodies:
            prepare()
            before = perf_counter_ns()
            os.write(fd, body)
            os.fdatasync(fd)
            found.append((perf_counter_ns() - before) / 1e9)
        return show.percentile(sorted(found), 0.5)

    def close(self) -> None:
        self._log.close()
        os.close(self._growing)
        os.close(self._sized)

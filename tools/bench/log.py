"""The command log: an append that is durable, beside a bare write and fdatasync of the same bytes; and a restart.

The bytes are those an engine logs: records of one group of batches each, in the project's own encoding. The restart is
`python -m engine` as anyone starts it, from the start of its process to the line that says it serves, three engines in
turns: one whose log is empty, which is what a process costs by itself; one that reads its whole log; and one whose log
has a snapshot at its end, as `engine/log/condense.py` makes it beside a running engine.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Final

from bus.access.asking import Machine
from engine.core.rules import RULES
from engine.core.venue import RETAINED
from engine.log import records
from engine.log.sqlite import SqliteLog
from proto import cluster as cluster_file
from proto.cluster import Cluster, EngineEntry
from proto.columns import STP_NONE
from tools.bench import flows, show
from tools.bench.deltas import START_NS
from tools.bench.flows import ACCOUNT, BATCH, INSTRUMENT, LARGE
from tools.bench.measure import BenchOptions, PartReport, Rounds, hash_of, in_turns, say
from tools.child import Child, Children

PREALLOCATED: Final = 8 << 20  # as the log's own write-ahead file
COMMANDS: Final = 1_000_000
COMMANDS_QUICK: Final = 50_000
RECORDS: Final = 64  # in one append
START_S: Final = 60.0
GOAL_S: Final = 2.0
EMPTY: Final = "empty"
WHOLE: Final = "whole"
SNAPSHOT: Final = "snapshot"
CLUSTER: Final = Cluster("bench", (EngineEntry(INSTRUMENT.engine),), (INSTRUMENT,))


def run(options: BenchOptions) -> PartReport:
    """log.append_<rows>: seconds for one durable append of one record with so many commands; log.restart."""
    say("log: appends and bare syncs, in turns")
    appends = options.take(200, 30)
    flow = flows.load("normal", options.data, options.seed, 8_192)
    report = PartReport(
        "log",
        "a durable append costs about what a bare fdatasync of its bytes does; an engine with a million logged "
        f"commands serves within {GOAL_S:g} s",
        f"records of 1, 64, 256 and 2,048 commands of {flow.source}, {appends} appends a round, on the disk of "
        f"{tempfile.gettempdir()}",
        "one process, one thread; the commit blocks it; a restarted engine runs alone",
    )
    for size in (1, 64, 256, 2_048):
        bodies = [record(ACCOUNT, START_NS, commands) for commands in flows.batches(flow.rows, size)]
        with tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as name:
            contenders = _Contenders(Path(name), bodies, appends)
            found = in_turns({"log": contenders.log, "bare": contenders.bare}, options.turns(5, 3))
            contenders.close()
        report.add(
            f"log.append_{size}", "s", found["log"], found["bare"], digest=hash_of(*bodies),
            against="write and fdatasync of the same bytes into a file that already has its size (median)",
        )  # fmt: skip
    report.notes.append(
        "log.append is engine/log on SQLite: write-ahead log, synchronous=FULL, a CRC and a chained hash a record."
    )
    restart(options, report)
    return report


def record(account: int, time_ns: int, commands: bytes) -> bytes:
    """The body of a log record of one batch."""
    return records.encode(records.Group(1, time_ns, [records.Entered(account, 0, STP_NONE, commands)]))


class _Contenders:
    """A log and a bare file in one directory; each call gives the median seconds of an append."""

    def __init__(self, directory: Path, bodies: list[bytes], appends: int) -> None:
        self._bodies = [bodies[i % len(bodies)] for i in range(appends)]
        self._log = SqliteLog(directory / "log")
        self._bare = os.open(directory / "bare", os.O_WRONLY | os.O_CREAT)
        os.write(self._bare, bytes(PREALLOCATED))
        os.fsync(self._bare)

    def log(self) -> float:
        position = self._log.position
        if self._log.checkpoint_due:
            self._log.checkpoint()
        found = []
        for body in self._bodies:
            before = perf_counter_ns()
            position = self._log.append(position, [body])
            found.append((perf_counter_ns() - before) / 1e9)
        return show.percentile(sorted(found), 0.5)

    def bare(self) -> float:
        found = []
        at = PREALLOCATED
        for body in self._bodies:
            if at + len(body) > PREALLOCATED:
                at = os.lseek(self._bare, 0, os.SEEK_SET)
            before = perf_counter_ns()
            at += os.write(self._bare, body)
            os.fdatasync(self._bare)
            found.append((perf_counter_ns() - before) / 1e9)
        return show.percentile(sorted(found), 0.5)

    def close(self) -> None:
        self._log.close()
        os.close(self._bare)


# A restart


def restart(options: BenchOptions, report: PartReport) -> None:
    """log.restart from a snapshot, log.restart_whole from the first record on."""
    wanted = options.take(COMMANDS, COMMANDS_QUICK)
    rounds = options.turns(3, 1)
    flow = flows.load(LARGE, options.data, options.seed)
    say(f"log: restarts with {wanted:,} logged commands")
    with tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as name:
        directory = Path(name)
        config = directory / "cluster.toml"
        config.write_text(cluster_file.dumps(CLUSTER))
        fill(directory / WHOLE, flow, wanted)
        shutil.copytree(directory / WHOLE, directory / SNAPSHOT)
        subprocess.run([sys.executable, "-m", "engine.log.condense", "--data", directory / SNAPSHOT], check=True)
        found, digest = asyncio.run(_turns(directory, config, rounds))
    goal = f"<= {GOAL_S:g} s" if wanted == COMMANDS else ""
    for name, kind in (("log.restart", SNAPSHOT), ("log.restart_whole", WHOLE)):
        report.add(
            name, "s", found[kind], found[EMPTY], digest=digest, goal=goal,
            against="the start of an engine whose log is empty",
        )  # fmt: skip
    report.notes.append(
        f"log.restart is from the start of an engine's process to its serving, with {wanted:,} commands in its log "
        f"({flow.source}, again and again, an account each time) and a snapshot of its state at the log's end; "
        "log.restart_whole is the same without the snapshot. Both come to the same books."
    )


def fill(directory: Path, flow: flows.Flow, count: int) -> None:
    """A log of `count` commands in records of one batch; each repetition of the flow is another account's."""
    log = SqliteLog(directory)
    identity = records.identity_of(CLUSTER, INSTRUMENT.engine, f"engine-{INSTRUMENT.engine}", RETAINED)
    position = log.append(0, [records.encode(records.Epoch(0, "bench", 0, RULES, identity))])
    bodies: list[bytes] = []
    account = 0
    left = count
    while left:
        account += 1
        rows = flow.rows[:left]
        left -= len(rows)
        bodies += [record(account, START_NS + account, batch) for batch in flows.batches(rows, BATCH, account)]
    for first in range(0, len(bodies), RECORDS):
        position = log.append(position, bodies[first : first + RECORDS])
    log.close()


async def _turns(directory: Path, config: Path, rounds: int) -> tuple[Rounds, str]:
    """Seconds by kind, and a hash of the books that both come to."""
    found: Rounds = {kind: [] for kind in (EMPTY, WHOLE, SNAPSHOT)}
    books: dict[str, str] = {}
    with Children() as children:
        for i in range(rounds):
            for kind in found if i % 2 == 0 else reversed(found):
                arguments = ["--cluster", str(config), "--engine", str(INSTRUMENT.engine)]
                arguments += ["--data", str(directory / kind), "--snapshot-after", "0"]
                if kind == EMPTY and not found[EMPTY]:
                    arguments.append("--new")
                child = Child(f"engine-{kind}-{i}", "engine", arguments, directory / f"{kind}.log")
                began = perf_counter()
                await children.start(child)
                ready = await child.wait_ready(START_S)
                found[kind].append(perf_counter() - began)
                machine = Machine(ready["grpc"])
                books[kind] = hash_of((await machine.snapshot(INSTRUMENT.engine, INSTRUMENT.channel)).books)
                await machine.close()
                await child.stop()
    if books[WHOLE] != books[SNAPSHOT]:
        raise AssertionError("a restart from the snapshot has other books than one from the whole log")
    return found, books[WHOLE]

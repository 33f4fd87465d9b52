"""A restart: how long an engine with a million logged commands takes until it serves, from a snapshot and without one.

It is `python -m engine` as anyone starts it, timed from the start of its process to the line that says it serves.
Three engines take turns: one whose log is empty, which is what a process costs by itself; one that reads its whole log;
and one whose log has a snapshot at its end, as `engine/log/condense.py` makes it beside a running engine.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

from engine.log import records
from engine.log.sqlite import SqliteLog
from proto import cluster as cluster_file
from proto.cluster import Cluster, EngineEntry
from proto.columns import STP_NONE
from tools.bench import flows
from tools.bench.deltas import START_NS
from tools.bench.flows import BATCH, INSTRUMENT, LARGE
from tools.bench.measure import Options, Report, Rounds, hash_of, result, say
from tools.run.processes import Child, Children
from tools.tail.market_data import Machine

COMMAND: Final = "python -m tools.bench log"
COMMANDS: Final = 1_000_000
COMMANDS_QUICK: Final = 50_000
RECORDS: Final = 64  # in one append
START_S: Final = 60.0
GOAL_S: Final = 2.0
EMPTY: Final = "empty"
WHOLE: Final = "whole"
SNAPSHOT: Final = "snapshot"


def run(options: Options, report: Report) -> None:
    """log.restart from a snapshot, log.restart_whole from the first record on."""
    wanted = options.take(COMMANDS, COMMANDS_QUICK)
    rounds = options.turns(3, 1)
    flow = flows.load(LARGE, options.data, options.seed)
    say(f"log: restarts with {wanted:,} logged commands")
    with tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as name:
        directory = Path(name)
        config = directory / "cluster.toml"
        config.write_text(cluster_file.dumps(Cluster("bench", (EngineEntry(INSTRUMENT.engine),), (INSTRUMENT,))))
        fill(directory / WHOLE, flow, wanted)
        shutil.copytree(directory / WHOLE, directory / SNAPSHOT)
        subprocess.run(
            [sys.executable, "-m", "engine.log.condense", "--cluster", config, "--engine", str(INSTRUMENT.engine),
             "--data", directory / SNAPSHOT], check=True,
        )  # fmt: skip
        found, digest = asyncio.run(_turns(directory, config, rounds))
    goal = f"<= {GOAL_S:g} s" if wanted == COMMANDS else ""
    for name, kind in (("log.restart", SNAPSHOT), ("log.restart_whole", WHOLE)):
        report.results.append(result(
            name, "s", found[kind], found[EMPTY], command=COMMAND, digest=digest, goal=goal,
            against="the start of an engine whose log is empty",
        ))  # fmt: skip
    report.notes.append(
        f"log.restart is from the start of an engine's process to its serving, with {wanted:,} commands in its log "
        f"({flow.source}, again and again, an account each time) and a snapshot of its state at the log's end; "
        "log.restart_whole is the same without the snapshot. Both come to the same books."
    )


def fill(directory: Path, flow: flows.Flow, count: int) -> None:
    """A log of `count` commands in records of one batch; each repetition of the flow is another account's."""
    log = SqliteLog(directory)
    position = log.append(0, [records.encode(records.Epoch(0, "bench"))])
    bodies: list[bytes] = []
    account = 0
    left = count
    while left:
        account += 1
        rows = flow.rows[:left]
        left -= len(rows)
        for commands in flows.batches(rows, BATCH, account):
            part = records.Entered(account, 0, STP_NONE, commands)
            bodies.append(records.encode(records.Commands(1, START_NS + account, [part])))
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

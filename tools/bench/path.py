"""Where an order's time goes between two sockets: every stage by itself, and the processes they run in.

A stage is the engine's own function on the very bytes that the stage before it made, timed alone. What the process
spends beyond the sum of them is gRPC, the event loop, and the way from thread to thread.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bus.publisher import Publisher
from engine.core.venue import Venue
from engine.entry.door import check
from engine.log import records
from engine.log.sqlite import SqliteLog
from proto.columns import STP_NONE, Batch
from proto.orders import read_batch, read_reports, report_columns, unwrap, wrap, write_batch, write_reports
from tools.bench.deltas import RECORD_NS, START_NS
from tools.bench.flows import INSTRUMENT
from tools.bench.measure import cpu_ns

STAGES: Final = (
    ("client", "columns to bytes", "write_batch, wrap"),
    ("engine", "bytes to columns", "unwrap, read_batch"),
    ("engine", "the door", "check"),
    ("engine", "record", "records.encode"),
    ("log thread", "durable", "SqliteLog.append, processor time without the wait"),
    ("engine", "matching", "Venue.apply"),
    ("engine", "reports to bytes", "write_reports, wrap"),
    ("engine", "feed", "Publisher.publish: sequence, encode, send"),
    ("client", "bytes to reports", "unwrap, read_reports, report_columns"),
)


def stages(batches: Sequence[Batch], directory: Path) -> dict[str, float]:
    """Seconds an order of each stage, by its name. A group is logged as one record of one batch."""
    spent = dict.fromkeys((name for _, name, _ in STAGES), 0)
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    publisher = Publisher(INSTRUMENT.engine, {INSTRUMENT.channel: [INSTRUMENT.id]}, 1, 1, fresh=True)
    log = SqliteLog(directory)
    account = batches[0].account
    try:
        for i, made in enumerate(batches, 1):
            time_ns = START_NS + i * RECORD_NS
            marks = [cpu_ns()]
            request = wrap(write_batch(made))
            marks.append(cpu_ns())
            commands = unwrap(request)
            assert commands is not None
            batch = read_batch(account, 0, STP_NONE, commands)
            marks.append(cpu_ns())
            reasons = check(batch)
            marks.append(cpu_ns())
            body = records.encode(records.Commands(1, time_ns, [records.Entered(account, 0, STP_NONE, commands)]))
            marks.append(cpu_ns())
            log.append(log.position, [body])
            marks.append(cpu_ns())
            outcome = venue.apply(i, time_ns, [batch])
            marks.append(cpu_ns())
            replies = [
                wrap(write_reports(INSTRUMENT.engine, done.account, done.first_seq, i, time_ns, done.rows))
                for done in outcome.reports
            ]
            marks.append(cpu_ns())
            for changed in outcome.deltas:
                publisher.publish(changed.channel, time_ns, changed.rows, changed.extras)
            marks.append(cpu_ns())
            for reply in replies:
                reports = unwrap(reply)
                assert reports is not None
                report_columns(read_reports(reports))
            marks.append(cpu_ns())
            assert not reasons
            for name, before, after in zip(spent, marks, marks[1:], strict=False):
                spent[name] += after - before
    finally:
        log.close()
        publisher.close()
    count = sum(map(len, batches))
    return {name: ns / 1e9 / count for name, ns in spent.items()}


def threads(pid: int) -> dict[str, float]:
    """Processor seconds of a process so far, by thread: `main`, and the others by their names. Linux only."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = {}
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        head, _, tail = (task / "stat").read_text().rpartition(")")
        name = "main" if task.name == str(pid) else head.partition("(")[2].rstrip("/0123456789")
        fields = tail.split()
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / ticks
    return found


def table(measured: dict[int, dict[str, float]]) -> str:
    """Stages by size of batch, in nanoseconds an order."""
    lines = ["    where        what                 " + "".join(f"{f'{size} a batch':>16}" for size in measured)]
    for where, name, how in STAGES:
        cells = "".join(f"{each[name] * 1e9:13,.0f} ns" for each in measured.values())
        lines.append(f"    {where:12} {name:21}{cells}   {how}")
    sums = "".join(
        f"{sum(each[name] for where, name, _ in STAGES if where != 'client') * 1e9:13,.0f} ns"
        for each in measured.values()
    )
    lines.append(f"    engine       all of these         {sums}")
    return "\n".join(lines)


def ordered(spent: dict[str, float], orders: int) -> list[tuple[str, float]]:
    """Threads by what they spent, most first; those that did next to nothing are left out."""
    return sorted(((name, s) for name, s in spent.items() if s / orders > 10e-9), key=lambda item: -item[1])

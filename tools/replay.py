"""Replays recorded order flow, in a core of its own or through a running cluster, and says what came of it.

    python -m tools.replay WORKLOAD --in-process --answers
    python -m tools.replay MESSAGES.csv.gz --in-process --check ORDERBOOK.csv.gz
    python -m tools.replay WORKLOAD --cluster 127.0.0.1:5001 --symbol ALFA --answers

A file is a workload (tools.workload) or LOBSTER's messages (tools.lobster); its first bytes tell. The flow is one
account's, and self-trade prevention is off.
"""

import argparse
import asyncio
import gc
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Final, TextIO

from engine.client.client import Client, ClientError, Commands, Session
from engine.core.venue import Venue
from proto.cluster import PRICE_MAX, Instrument
from proto.columns import CANCEL, STP_NONE, Batch, ReportRow, report_rows
from proto.dial import Parser
from proto.orders import report_columns
from tools.flow import lobster, lobster_check, workload
from tools.flow.lobster import Command, Step
from tools.flow.lobster_check import LEVELS_JUDGED, Checker
from tools.flow.messages import FlowError, WorkloadRow, is_workload, read_books, read_messages, read_workload

HOLDS_EXIT: Final = 0
FAILS_EXIT: Final = 1
USAGE_EXIT: Final = 2
CLUSTER_EXIT: Final = 3
INTERRUPTED_EXIT: Final = 130

BATCH: Final = 256
BATCH_MAX: Final = 4_096
SHOWN_EVERY_S: Final = 0.1
PATIENCE_S: Final = 10.0
INSTRUMENT: Final = Instrument(1, "FLOW", 1, 1, Decimal("0.0001"), Decimal(1), -PRICE_MAX, PRICE_MAX)


@dataclass(slots=True)
class Findings:
    """What a replay has to say: to a reader, to a program, and whether all is as it should be."""

    lines: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    holds: bool = True


class Progress:
    """How far a replay is, on one line of a terminal; nothing where there is none."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = total
        self._out = out if out.isatty() else None
        self._next_s = 0.0

    def show(self, done: int) -> None:
        if self._out is not None and (now_s := perf_counter()) >= self._next_s:
            self._next_s = now_s + SHOWN_EVERY_S
            print(f"\r{done:,} of {self._total:,} messages", end="", file=self._out, flush=True)

    def clear(self) -> None:
        if self._out is not None:
            print("\r\x1b[K", end="", file=self._out, flush=True)


# A workload


def replay_workload(options: argparse.Namespace, rows: Sequence[WorkloadRow], progress: Progress) -> Findings:
    """Send a workload, then turn the reports into the benchmark's answers."""
    batches = list(workload.batches(rows, options.account, INSTRUMENT.id, options.batch))
    if options.cluster:
        reports, spent_ns = through_cluster(options, batches, progress)
    else:
        reports, spent_ns = apply_timed(batches, progress)
    rate = len(rows) * 10**9 // max(1, spent_ns)
    found = Findings(figures={"file": options.file.name, "messages": len(rows), "messages_per_s": rate})
    found.lines.append(f"{options.file.name}: {len(rows):,} messages at {rate:,} a second, {options.batch} at a time")
    if options.answers:
        answers = workload.answers(rows, reports)
        found.lines.append(f"{answers.trades:,} trades, {answers.resting:,} orders resting at the end")
        found.lines.append(f"SHA-256 of the answers {answers.sha256}")
        found.figures |= answers._asdict()
    return found


def apply_timed(batches: Sequence[Batch], progress: Progress) -> tuple[Iterable[ReportRow], int]:
    """The reports of a new venue's `apply`, and the nanoseconds spent in it and nowhere else."""
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    rows: list[int] = []
    spent_ns = done = 0
    with no_collection():
        for position, batch in enumerate(batches, 1):
            started_ns = perf_counter_ns()
            outcome = venue.apply(position, position, [batch])
            spent_ns += perf_counter_ns() - started_ns
            for reports in outcome.reports:
                rows += reports.rows
            done += len(batch)
            progress.show(done)
    progress.clear()
    venue.check()
    return report_rows(rows), spent_ns


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out, as an engine does."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


# LOBSTER


def replay_lobster(options: argparse.Namespace, out: TextIO) -> Findings:
    """Send what caused the messages, then say how the venue differs from Nasdaq."""
    messages = list(read_messages(options.file))
    books = list(read_books(options.check)) if options.check else []
    if not messages:
        raise FlowError(str(options.file), 0, "has no message")
    if options.check and len(books) != len(messages):
        raise FlowError(str(options.check), 0, f"has {len(books):,} books for {len(messages):,} messages")
    steps = list(lobster.plan(messages, books))
    checker = Checker(steps)
    if options.cluster:
        commands = [command for step in steps for command in (*step.commands, *step.after)]
        batches = [as_batch(options.account, part) for part in in_parts(commands, options.batch)]
        reports, _ = through_cluster(options, batches, Progress(len(commands), out))
        for report in reports:
            checker.reported(report)
    else:
        drive(steps, checker, options.account, Progress(len(messages), out))
    verdict = checker.verdict()
    found = Findings(holds=verdict.holds())
    found.lines.append(f"{options.file.name}: {len(messages):,} messages")
    found.lines += lobster_check.summary(verdict)
    found.figures = {"file": options.file.name, "messages": len(messages), **lobster_check.figures(verdict)}
    return found


def drive(steps: Sequence[Step], checker: Checker, account: int, progress: Progress) -> None:
    """Put a plan's commands through a new venue, one a record, and let the checker see what comes of each."""
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    book = venue.books[INSTRUMENT.id]
    position = 0
    for step in steps:
        for command in (*step.commands, *step.after):
            position += 1
            outcome = venue.apply(position, position, [as_batch(account, [command])])
            for reports in outcome.reports:
                for report in report_rows(reports.rows):
                    checker.reported(report)
            if outcome.deltas:
                bids, asks = ([(price, size) for price, size, _ in book.levels(side, LEVELS_JUDGED)] for side in (0, 1))
                checker.event(bids, asks)
        progress.show(step.row)
    progress.clear()
    venue.check()


def as_batch(account: int, commands: Sequence[Command]) -> Batch:
    op, own, *others = map(list, zip(*commands, strict=True))
    return Batch(account, 0, STP_NONE, op, own, [INSTRUMENT.id] * len(op), *others)


def in_parts(commands: Sequence[Command], size: int) -> Iterator[Sequence[Command]]:
    return (commands[at : at + size] for at in range(0, len(commands), size))


# Through a cluster


def through_cluster(
    options: argparse.Namespace, batches: Sequence[Batch], progress: Progress
) -> tuple[Iterable[ReportRow], int]:
    """What `send` returns, in an event loop of its own. Raises: ClientError."""
    client = Client([options.cluster], options.account, self_trade_prevention=STP_NONE, patience_s=PATIENCE_S)
    return asyncio.run(send(client, options.symbol, batches, options.rate, progress))


async def send(
    client: Client, symbol: str, batches: Sequence[Batch], rate: int, progress: Progress
) -> tuple[Iterable[ReportRow], int]:
    """The account's reports of these commands, and the nanoseconds until the last came. Raises: ClientError."""
    async with client.session() as session:
        instrument = instrument_of(client, symbol)
        last = client.next_id()
        started_ns = perf_counter_ns()
        reading = asyncio.create_task(read_through(session, last, progress))
        try:
            await submit(session, batches, instrument.id, rate)
            await session.submit(Commands([CANCEL], [last], [instrument.id], target=[last]))
            rows = await reading
        finally:
            reading.cancel()
        spent_ns = perf_counter_ns() - started_ns
    progress.clear()
    return rows, spent_ns


def instrument_of(client: Client, symbol: str) -> Instrument:
    """The one named, or without a name the venue's first. Raises: ClientError."""
    named = [one for one in client.instruments.values() if symbol in ("", one.symbol)]
    if not named:
        raise ClientError(f"no instrument {symbol} is traded there" if symbol else "no instrument is traded there")
    return min(named, key=lambda one: one.id)


async def submit(session: Session, batches: Sequence[Batch], instrument: int, rate: int) -> None:
    """Send, not above `rate` commands a second (0: as fast as may be)."""
    loop = asyncio.get_running_loop()
    started_s, sent = loop.time(), 0
    for batch in batches:
        if rate:
            await asyncio.sleep(started_s + sent / rate - loop.time())
        await session.submit(Commands(
            batch.op, batch.client_order_id, [instrument] * len(batch), batch.flags,
            batch.price, batch.quantity, batch.target,
        ))  # fmt: skip
        sent += len(batch)


async def read_through(session: Session, last: int, progress: Progress) -> list[ReportRow]:
    """The reports before the one that answers the command `last`, which is refused and so changes nothing."""
    rows: list[ReportRow] = []
    answered = 0
    async for reports in session.batches():
        part = list(map(ReportRow._make, zip(*report_columns(reports), strict=True)))
        rows += part
        answered += sum(1 for row in part if row.command)
        progress.show(answered)
        if part[-1].command == last:
            rows.pop()
            break
    return rows


# The command line


def parser() -> argparse.ArgumentParser:
    out = Parser(
        prog="python -m tools.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("file", type=Path, metavar="FILE", help="a workload or LOBSTER messages, plain or gzip")
    where = out.add_mutually_exclusive_group(required=True)
    where.add_argument("--in-process", action="store_true", help="through a core of its own; no cluster, no log")
    where.add_argument("--cluster", metavar="HOST:PORT", help="through any engine of a running cluster")
    out.add_argument("--answers", action="store_true", help="print the SHA-256 of a workload's answers")
    out.add_argument("--check", type=Path, metavar="FILE", help="compare with the books of this LOBSTER file")
    out.add_argument("--symbol", default="", help="which instrument of the cluster; default: its first")
    out.add_argument("--account", type=_count, default=1, metavar="N", help="whose orders they are; default 1")
    out.add_argument("--rate", type=_count, default=0, metavar="N", help="messages a second; default: no limit")
    out.add_argument("--batch", type=_count, default=BATCH, metavar="N", help=f"commands at a time; default {BATCH}")
    out.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if all went as it should, 1 if the venue differs from the files, 2 for wrong usage or a bad file, 3 if the
    cluster cannot be used, 130 on Ctrl-C.
    """
    options = parser().parse_args(argv)
    try:
        if problem := usage_problem(options):
            print(f"replay: {problem}", file=sys.stderr)
            return USAGE_EXIT
        if is_workload(options.file):
            if options.check:
                raise FlowError(str(options.check), 0, "there is no book to check for a workload; see --answers")
            rows = read_workload(options.file)
            found = replay_workload(options, rows, Progress(len(rows), sys.stderr))
        else:
            if options.answers:
                raise FlowError(str(options.file), 0, "is no workload, and only those have --answers; see --check")
            found = replay_lobster(options, sys.stderr)
    except FlowError as e:
        print(f"replay: {e}", file=sys.stderr)
        return USAGE_EXIT
    except workload.AnswerError as e:
        print(f"replay: {options.file}: {e}", file=sys.stderr)
        return FAILS_EXIT
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except ClientError as e:
        print(f"replay: {options.cluster}: {e}", file=sys.stderr)
        return CLUSTER_EXIT
    print(json.dumps(found.figures | {"holds": found.holds}) if options.json else "\n".join(found.lines))
    return HOLDS_EXIT if found.holds else FAILS_EXIT


def usage_problem(options: argparse.Namespace) -> str:
    """What is wrong with the options as a whole, or nothing."""
    if options.cluster and options.check:
        return "--check needs --in-process; run_cluster.py --replay FILE --check FILE compares books over gRPC"
    if options.in_process and (options.symbol or options.rate):
        return "--symbol and --rate need --cluster"
    if options.batch > BATCH_MAX:
        return f"--batch {options.batch} is above {BATCH_MAX:,}"
    return ""


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


if __name__ == "__main__":
    sys.exit(main())

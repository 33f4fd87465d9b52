"""Replays recorded order flow, in a core of its own or through a running cluster, and says what came of it.

    python -m tools.replay examples/flow.csv --in-process --answers
    python -m tools.replay MESSAGES.csv.gz --in-process --check ORDERBOOK.csv.gz
    python -m tools.replay WORKLOAD --cluster 127.0.0.1:5001 --symbol ALFA --answers

A file is a workload, as text (a line of column names, then a row a line; examples/flow.csv) or as a benchmark has it,
or LOBSTER's messages; its first bytes tell. The formats: tools/flow/messages.py. The flow is one account's, which has
not used its order ids before, and self-trade prevention is off.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.replay", "replay")

import argparse
import asyncio
import gc
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Final, TextIO

from engine.client import Client, ClientError, Commands, Session
from engine.core.venue import Venue
from proto.columns import CANCEL, DELTA_WIDTH, STP_NONE, Batch, ReportRow, report_rows
from proto.dial import Parser
from proto.instrument import PRICE_MAX, Instrument
from proto.orders import report_columns
from tools.flow import workload
from tools.flow.lobster_check import LEVELS_JUDGED
from tools.flow.messages import FlowError, is_lobster
from tools.flow.recorded import RecordedFlow, Replayed, UsedBeforeError
from tools.flow.sizes import Sizes

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


# In process


def through_core(flow: RecordedFlow, size: int, progress: Progress) -> int:
    """Put a flow through a new venue's `apply`; the nanoseconds spent in it and nowhere else.

    Where there is a book to check, one command a record, so that it can be seen after each.
    """
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    sizes = Sizes()
    spent_ns = done = 0
    with no_collection():
        for position, batch in enumerate(flow.batches(INSTRUMENT.id, 1 if flow.checked else size), 1):
            started_ns = perf_counter_ns()
            outcome = venue.apply(position, position, [batch])
            spent_ns += perf_counter_ns() - started_ns
            for reports in outcome.reports:
                for report in report_rows(reports.rows):
                    flow.reported(report)
            if flow.checked and outcome.deltas:
                for changed in outcome.deltas:
                    for row in delta_rows(changed.rows):
                        sizes.apply(row)
                flow.event(*sizes.best(LEVELS_JUDGED))
            done += len(batch)
            progress.show(done)
    progress.clear()
    venue.check()
    return spent_ns


def delta_rows(flat: Sequence[int]) -> Iterator[tuple[int, ...]]:
    values = iter(flat)
    return zip(*[values] * DELTA_WIDTH, strict=True)


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


# Through a cluster


def through_cluster(flow: RecordedFlow, options: argparse.Namespace, progress: Progress) -> int:
    """What `send` returns, in an event loop of its own. Raises: ClientError."""
    client = Client([options.cluster], options.account, self_trade_prevention=STP_NONE, patience_s=PATIENCE_S)
    return asyncio.run(send(client, options.symbol, flow, options.batch, options.rate, progress))


async def send(client: Client, symbol: str, flow: RecordedFlow, size: int, rate: int, progress: Progress) -> int:
    """Send a flow, and have it hear the account's reports; the nanoseconds until the last came. Raises: ClientError,
    UsedBeforeError."""
    async with client.session() as session:
        instrument = instrument_of(client, symbol)
        last = client.next_id()
        started_ns = perf_counter_ns()
        reading = asyncio.create_task(read_through(session, last, flow, progress))
        sending = asyncio.create_task(submit(session, flow.batches(instrument.id, size), last, rate))
        try:
            await asyncio.wait([reading, sending], return_when=asyncio.FIRST_EXCEPTION)
            for task in (reading, sending):
                if task.done():
                    task.result()
        finally:
            for task in (reading, sending):
                task.cancel()
        spent_ns = perf_counter_ns() - started_ns
    progress.clear()
    return spent_ns


def instrument_of(client: Client, symbol: str) -> Instrument:
    """The one named, or without a name the venue's first. Raises: ClientError."""
    named = [one for one in client.instruments.values() if symbol in ("", one.symbol)]
    if not named:
        raise ClientError(f"no instrument {symbol} is traded there" if symbol else "no instrument is traded there")
    return min(named, key=lambda one: one.id)


async def submit(session: Session, batches: Iterable[Batch], last: int, rate: int) -> None:
    """Send, not above `rate` commands a second (0: as fast as may be); then a cancel of nothing under the id `last`."""
    loop = asyncio.get_running_loop()
    started_s, sent = loop.time(), 0
    instruments: list[int] = []
    for batch in batches:
        if rate:
            await asyncio.sleep(started_s + sent / rate - loop.time())
        instruments = batch.instrument[:1]
        await session.submit(Commands(
            batch.op, batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity, batch.target,
        ))  # fmt: skip
        sent += len(batch)
    await session.submit(Commands([CANCEL], [last], instruments, target=[last]))


async def read_through(session: Session, last: int, flow: RecordedFlow, progress: Progress) -> None:
    """Hear the reports before the one that answers the command `last`, which is refused and so changes nothing."""
    answered = 0
    async for reports in session.batches():
        for row in map(ReportRow._make, zip(*report_columns(reports), strict=True)):
            if row.command == last:
                return
            answered += 1 if row.command else 0
            flow.reported(row)
        progress.show(answered)


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
        if options.answers and is_lobster(options.file):
            raise FlowError(str(options.file), 0, "is no workload, and only those have --answers; see --check")
        flow = RecordedFlow.read(options.file, options.check, options.account)
        progress = Progress(flow.commands, sys.stderr)
        if options.cluster:
            spent_ns = through_cluster(flow, options, progress)
        else:
            spent_ns = through_core(flow, options.batch, progress)
        outcome = flow.outcome()
    except FlowError as e:
        print(f"replay: {e}", file=sys.stderr)
        return USAGE_EXIT
    except (workload.AnswerError, UsedBeforeError) as e:
        print(f"replay: {options.file}: {e}", file=sys.stderr)
        return FAILS_EXIT
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except ClientError as e:
        print(f"replay: {options.cluster}: {e}", file=sys.stderr)
        return CLUSTER_EXIT
    tell(options, flow, outcome, spent_ns)
    return FAILS_EXIT if outcome.holds is False else HOLDS_EXIT


def tell(options: argparse.Namespace, flow: RecordedFlow, outcome: Replayed, spent_ns: int) -> None:
    """Print what came of it: lines for a reader, or one JSON object."""
    said: dict[str, object] = {"file": options.file.name, "messages": flow.messages}
    head = f"{options.file.name}: {flow.messages:,} messages"
    if not flow.steps:
        said["messages_per_s"] = rate = flow.messages * 10**9 // max(1, spent_ns)
        head += f" at {rate:,} a second, {options.batch} at a time"
    lines = [head, *outcome.lines, *outcome.details]
    if flow.steps or options.answers:
        said |= outcome.figures
    else:
        lines = lines[:1]
    print(json.dumps(said | {"holds": outcome.holds is not False}) if options.json else "\n".join(lines))


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

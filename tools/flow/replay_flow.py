"""Recorded flow as a process of a run: sent over gRPC, tallied, and judged by its reports and by the books on the feed.

    python -m tools.flow.replay_flow MESSAGES.csv.gz --check ORDERBOOK.csv.gz --join HOST:PORT --symbol MSFT --account 1

It speaks as tools/child.py says, and waits for the word to go; at its end it says {"finding": {...}}, what the venue made
of the file. A report is preceded by {"acknowledged": {...}}, what the account was told.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import grpc

from bus.access.exchange import DirectoryError, ask
from bus.access.subscriber import Subscriber
from bus.stream.actions import Action, Applied, AskRange, AskSnapshot, MissingSpan, State
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import Mirror
from engine.client.client import Client, ClientError, Commands, Session
from proto.cluster import Instrument
from proto.columns import STP_NONE, ReportRow
from proto.dial import Parser
from proto.feed import END
from proto.orders import report_columns
from tools.child import patience_asked, ready, run, say, told
from tools.flow import lobster, lobster_check, workload
from tools.flow.findings import FAILS, HOLDS, NOTE, UNKNOWN, Finding
from tools.flow.lobster import Step
from tools.flow.lobster_check import LEVELS_JUDGED, Checker
from tools.flow.messages import FlowError, WorkloadRow, is_workload, read_books, read_messages, read_workload
from tools.flow.order_counts import Tally
from tools.tail.market_data import Machine

TALLY_S: Final = 0.5
JOIN_S: Final = 10.0
ANSWERS_S: Final = 30.0  # for the last answers and the last event on the feed
POLL_S: Final = 0.01


class BooksOfFlow:
    """The book after each event of one instrument, from what a reader of the feed applied. Pure.

    Only this flow trades the instrument, so its events are the flow's commands that had an effect.
    """

    def __init__(self, instrument: int) -> None:
        self._instrument = instrument
        self._mirror: Mirror | None = None
        self.missed = 0  # deltas that a snapshot stood for: their events were not seen

    def begin(self, client: FeedClient) -> None:
        """Take the reader's books as they are: nothing has been sent yet."""
        self._mirror = Mirror()
        epoch, _ = client.position
        self._mirror.load(client.mirror.snapshot(client.engine, client.channel, client.incarnation, epoch, 0))

    def action(self, action: Action) -> Iterator[tuple[list[tuple[int, int]], list[tuple[int, int]]]]:
        """Bids and asks after each event in what the reader just did."""
        if self._mirror is None:
            return
        if isinstance(action, MissingSpan):
            self.missed += action.last - action.first + 1
        if not isinstance(action, Applied) or action.first != self._mirror.next_seq:
            return
        start = 0
        for at, row in enumerate(action.rows, 1):
            if row[0] & END:
                self._mirror.apply(action.rows[start:at], action.extras)
                start = at
                if row[1] == self._instrument:
                    book = self._mirror.books[self._instrument]
                    yield _top(book.levels(0, LEVELS_JUDGED)), _top(book.levels(1, LEVELS_JUDGED))


def _top(levels: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(price, size) for price, size, _ in levels]


class Flow:
    """What is sent and how it is judged, for one file."""

    def __init__(self, path: Path, check: Path | None) -> None:
        self.path = path
        self.messages = 0
        self.steps: list[Step] = []
        self.rows: list[WorkloadRow] = []
        self.checker: Checker | None = None
        self.reports: list[ReportRow] = []
        if is_workload(path):
            self.rows = read_workload(path)
            self.messages = len(self.rows)
            if check:
                raise FlowError(str(check), 0, "there is no book to check for a workload; its answers are checked")
        else:
            messages = list(read_messages(path))
            books = list(read_books(check)) if check else []
            if check and len(books) != len(messages):
                raise FlowError(str(check), 0, f"has {len(books):,} books for {len(messages):,} messages")
            self.messages = len(messages)
            self.steps = list(lobster.plan(messages, books))
            self.checker = Checker(self.steps)

    def batches(self, instrument: int, size: int) -> Iterator[Commands]:
        """All commands, in order."""
        if self.rows:
            for batch in workload.batches(self.rows, 0, instrument, size):
                columns = (batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity)
                yield Commands(batch.op, *columns, batch.target)
            return
        commands = [command for step in self.steps for command in (*step.commands, *step.after)]
        for start in range(0, len(commands), size):
            part = commands[start : start + size]
            op, ids, flags, price, quantity, target = map(list, zip(*part, strict=True))
            yield Commands(op, ids, [instrument] * len(part), flags, price, quantity, target)

    def reported(self, row: ReportRow) -> None:
        if self.checker:
            self.checker.reported(row)
        else:
            self.reports.append(row)

    def finding(self, seconds: float, missed: int) -> Finding:
        """What the venue made of the file."""
        title = self.path.name.split(".")[0]
        rate = f"{self.messages:,} messages in {seconds:.1f} s"
        if not self.checker:
            try:
                answers = workload.answers(self.rows, self.reports)
            except workload.AnswerError as e:
                return Finding(FAILS, title, rate, (str(e),))
            text = f"{rate}; {answers.trades:,} trades, {answers.resting:,} orders resting at the end"
            return Finding(NOTE, title, text, (f"SHA-256 of the answers {answers.sha256}",))
        verdict = self.checker.verdict()
        lines = lobster_check.summary(verdict)
        judged = [line.strip() for line in lines if not line.startswith("row ")]
        details = [line for line in lines if line.startswith("row ")]
        if missed:
            details.insert(0, f"{missed:,} deltas were not seen one by one on the feed: their rows could not be judged")
            return Finding(UNKNOWN, title, "; ".join([rate, *judged]), tuple(details))
        return Finding(HOLDS if verdict.holds() else FAILS, title, "; ".join([rate, *judged]), tuple(details))


class Replay:
    """One flow on its way through a cluster."""

    def __init__(self, flow: Flow, args: argparse.Namespace) -> None:
        self.flow = flow
        self.tally = Tally()
        self._args = args
        self._go = asyncio.Event()
        self._stopped = asyncio.Event()
        self._targets: dict[str, list[str]] = {"fabric": [], "engine": []}

    async def run(self) -> None:
        """Raises: ClientError, DirectoryError, TimeoutError."""
        args = self._args
        entries = await ask(args.join[0], JOIN_S)
        home = next(e for e in entries if not e.fabric and any(i.symbol == args.symbol for i in e.instruments))
        instrument = next(i for i in home.instruments if i.symbol == args.symbol)
        books = BooksOfFlow(instrument.id)

        def on_action(client: FeedClient, action: Action) -> None:
            for bids, asks in books.action(action):
                if self.flow.checker:
                    self.flow.checker.event(bids, asks)

        def sources(engine: int, asked: AskRange | AskSnapshot) -> Sequence[str]:
            return [home.grpc]

        subscriber = Subscriber(sources, random.Random(args.account), listen=on_action)
        listener = asyncio.create_task(self._listen())
        try:
            subscriber.follow(home.engine, home.feed, home.channels)
            client = subscriber.clients[home.engine, instrument.channel]
            async with asyncio.timeout(JOIN_S * patience_asked()):
                while client.state is not State.LIVE:
                    await asyncio.sleep(POLL_S)
            books.begin(client)
            way_in = Client(args.join, args.account, self_trade_prevention=STP_NONE, instruments=home.instruments)
            async with way_in.session() as session:
                ready(self.flow.path.name)
                await self._go.wait()
                seconds = await self._send(session, instrument, client, home.grpc)
                finding = asdict(self.flow.finding(seconds, books.missed))
                say({"tally": self.tally.to_json(), "done": True, "seconds": seconds, "finding": finding})
                await listener
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await subscriber.stop()

    async def _send(self, session: Session, instrument: Instrument, client: FeedClient, home: str) -> float:
        """Send all, and wait until it is answered and on the feed; the seconds to the last answer."""
        began = time.monotonic()
        reading = asyncio.create_task(self._read(session))
        telling = asyncio.create_task(self._tell())
        try:
            sent = 0
            for commands in self.flow.batches(instrument.id, self._args.batch):
                if self._stopped.is_set():
                    break
                if self._args.rate:
                    await asyncio.sleep(began + sent / self._args.rate - time.monotonic())
                now_ns = time.monotonic_ns()
                ids = [(id, instrument.id) for id in commands.client_order_id]
                self.tally.send(self._args.account, ids, now_ns)
                sent += len(ids)
                await session.submit(commands)
            deadline = time.monotonic() + ANSWERS_S * patience_asked()
            while self.tally.waiting and time.monotonic() < deadline and not reading.done():
                await asyncio.sleep(POLL_S)
            seconds = time.monotonic() - began
            await self._heard(client, home, deadline)
            if reading.done():
                reading.result()
            return seconds
        finally:
            reading.cancel()
            telling.cancel()
            await asyncio.gather(reading, telling, return_exceptions=True)

    async def _heard(self, client: FeedClient, home: str, deadline: float) -> None:
        """Wait until our reader stands where the engine does: all that was answered was published before."""
        machine = Machine(home)
        try:
            streams = await machine.streams()
        except grpc.aio.AioRpcError:
            return
        finally:
            await machine.close()
        end = next((s.epoch, s.next_seq - 1) for s in streams if s.channel == client.channel)
        while client.position < end and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)

    async def _read(self, session: Session) -> None:
        async for batch in session.batches():
            now_ns = time.monotonic_ns()
            rows = list(map(ReportRow._make, zip(*report_columns(batch), strict=True)))
            self.tally.numbered(batch.home, self._args.account, batch.first_seq, rows)
            for row in rows:
                self.tally.report(batch.home, self._args.account, row, now_ns)
                self.flow.reported(row)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TALLY_S)
            say({"tally": self.tally.to_json()})

    async def _listen(self) -> None:
        """Do what is told, to the end of it."""
        try:
            async for order in told():
                if order.get("go"):
                    self._go.set()
                if order.get("stop"):
                    self._stopped.set()
                    self._go.set()
                if order.get("report"):
                    say({"acknowledged": self.tally.acknowledged.to_json()})
                    say({"tally": self.tally.to_json(), "reported": True})
        finally:
            self._stopped.set()
            self._go.set()


def parser() -> argparse.ArgumentParser:
    out = Parser(prog="python -m tools.flow.replay_flow", description="Recorded flow for a running cluster.")
    out.add_argument("file", type=Path)
    out.add_argument("--check", type=Path)
    out.add_argument("--join", action="append", required=True, metavar="HOST:PORT", help="any machine (repeatable)")
    out.add_argument("--symbol", required=True)
    out.add_argument("--account", type=int, default=1)
    out.add_argument("--rate", type=int, default=0, help="commands a second; 0: as fast as they are taken")
    out.add_argument("--batch", type=int, default=256)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 2 when a file cannot be used, 3 when the cluster cannot."""
    args = parser().parse_args(argv)
    try:
        flow = Flow(args.file, args.check)
    except FlowError as e:
        print(f"replay: {e}", file=sys.stderr)
        return 2
    try:
        run(lambda: Replay(flow, args).run())
    except (ClientError, DirectoryError, TimeoutError) as e:
        print(f"replay: {type(e).__name__}: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())

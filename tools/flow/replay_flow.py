"""Recorded flow as a process of a run: sent over gRPC, tallied, and judged by its reports and by the books on the feed.

    python -m tools.flow.replay_flow MESSAGES.csv.gz --check ORDERBOOK.csv.gz --join HOST:PORT --symbol MSFT --account 1

It speaks as tools/child.py says, and waits for the word to go; at its end it says {"finding": {...}}, what the venue
made of the file. A report is preceded by {"acknowledged": {...}}, what the account was told.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.flow.replay_flow", "replay_flow")

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

from bus.access.asking import Machine
from bus.access.exchange import DirectoryError, ask
from bus.access.subscriber import Subscriber
from bus.stream.actions import Action, Applied, AskRange, AskSnapshot, MissingSpan, State
from bus.stream.feed_client import FeedClient
from engine.client import Client, ClientError, Commands, Session
from proto.columns import STP_NONE, ReportRow
from proto.dial import Parser
from proto.feed import END
from proto.instrument import Instrument
from proto.orders import report_columns
from tools.child import patience_asked, ready, run, say, say_tally, told
from tools.findings import FAILS, HOLDS, NOTE, UNKNOWN, Finding
from tools.flow import workload
from tools.flow.lobster_check import LEVELS_JUDGED
from tools.flow.messages import FlowError
from tools.flow.order_counts import OrderCounts
from tools.flow.recorded import RecordedFlow, UsedBeforeError
from tools.flow.sizes import Levels, Sizes

JOIN_S: Final = 10.0
ANSWERS_S: Final = 30.0  # for the last answers and the last event on the feed
POLL_S: Final = 0.01


class BooksOfFlow:
    """The book after each event of one instrument, from what a reader of the feed applied. Pure.

    Only this flow trades the instrument, so its events are the flow's commands that had an effect.
    """

    def __init__(self, instrument: int) -> None:
        self._instrument = instrument
        self._sizes: Sizes | None = None
        self._next_seq = 0
        self.missed = 0  # deltas that a snapshot stood for: their events were not seen

    def begin(self, client: FeedClient) -> None:
        """Take the reader's book as it is: nothing has been sent yet."""
        book = client.mirror.books[self._instrument]
        self._sizes = Sizes(book.orders(0), book.orders(1))
        self._next_seq = client.mirror.next_seq

    def action(self, action: Action) -> Iterator[tuple[Levels, Levels]]:
        """Bids and asks after each event in what the reader just did."""
        if self._sizes is None:
            return
        if isinstance(action, MissingSpan):
            self.missed += action.last - action.first + 1
        if not isinstance(action, Applied) or action.first != self._next_seq:
            return
        self._next_seq = action.last + 1
        for row in action.rows:
            if row[1] == self._instrument:
                self._sizes.apply(row)
                if row[0] & END:
                    yield self._sizes.best(LEVELS_JUDGED)


def finding(flow: RecordedFlow, seconds: float, missed: int) -> Finding:
    """What the venue made of the file."""
    title = flow.path.name.split(".")[0]
    rate = f"{flow.messages:,} messages in {seconds:.1f} s"
    try:
        outcome = flow.outcome()
    except (workload.AnswerError, UsedBeforeError) as e:
        return Finding(FAILS, title, rate, (str(e),))
    if outcome.holds is None:
        return Finding(NOTE, title, f"{rate}; {outcome.lines[0]}", tuple(outcome.lines[1:]))
    text = "; ".join([rate, *(line.strip() for line in outcome.lines)])
    if missed:
        unseen = f"{missed:,} deltas were not seen one by one on the feed: their rows could not be judged"
        return Finding(UNKNOWN, title, text, (unseen, *outcome.details))
    return Finding(HOLDS if outcome.holds else FAILS, title, text, tuple(outcome.details))


class Replay:
    """One flow on its way through a cluster."""

    def __init__(self, flow: RecordedFlow, args: argparse.Namespace) -> None:
        self.flow = flow
        self.tally = OrderCounts()
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
                self.flow.event(bids, asks)

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
                found = asdict(finding(self.flow, seconds, books.missed))
                say({"tally": self.tally.to_json(), "done": True, "seconds": seconds, "finding": found})
                await listener
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await subscriber.stop()

    async def _send(self, session: Session, instrument: Instrument, client: FeedClient, home: str) -> float:
        """Send all, and wait until it is answered and on the feed; the seconds to the last answer."""
        began = time.monotonic()
        reading = asyncio.create_task(self._read(session))
        telling = asyncio.create_task(say_tally(self.tally.to_json))
        try:
            sent = 0
            for batch in self.flow.batches(instrument.id, self._args.batch):
                if self._stopped.is_set():
                    break
                if self._args.rate:
                    await asyncio.sleep(began + sent / self._args.rate - time.monotonic())
                now_ns = time.monotonic_ns()
                ids = [(id, instrument.id) for id in batch.client_order_id]
                self.tally.send(self._args.account, ids, now_ns)
                sent += len(ids)
                columns = batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity
                await session.submit(Commands(batch.op, *columns, batch.target))
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
        flow = RecordedFlow.read(args.file, args.check, args.account)
    except FlowError as e:
        print(f"replay: {e}", file=sys.stderr)
        return 2
    try:
        run(lambda: Replay(flow, args).run())
    except (ClientError, DirectoryError, TimeoutError, UsedBeforeError) as e:
        print(f"replay: {type(e).__name__}: {e}", file=sys.stderr)
        return 3
    return 0

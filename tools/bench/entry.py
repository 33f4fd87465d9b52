"""Order entry through the whole venue, beside a gRPC echo of the same messages and the sum of its unavoidable parts.

The venue is an engine with its SQLite log on disk, its feed, and one fabric node that mirrors it; the client is this
process. A rate counts what was acknowledged, durable, published and mirrored. Latency is from the moment a batch was
due to be sent, whether or not the client was late (no coordinated omission).
"""

import asyncio
import itertools
import random
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

import grpc
import uvloop
import zmq

from bus.access.subscriber import Subscriber
from bus.stream.actions import Action, Applied, State
from bus.stream.feed_client import FeedClient
from engine.log import records
from engine.log.sqlite import SqliteLog
from proto import connect
from proto.columns import FLAG_SELL, MASS_CANCEL, NEW, STP_NONE, Batch
from proto.orders import write_batch
from tools.bench import echo, flows, show, venue
from tools.bench.deltas import START_NS
from tools.bench.flows import INSTRUMENT, LARGE
from tools.bench.measure import BenchOptions, PartReport, Rounds, hash_of, quiet, say
from tools.bench.venue import BatchStream, BenchVenue, EchoStream, SessionStream
from tools.flow import workload

SIZES: Final = (64, 256)
IN_FLIGHT: Final = 4_096  # commands on their way, whatever the batch
LOADS: Final = (10, 50, 90)  # per cent of the rate
LONELY_GAP_S: Final = 0.002  # between lonely orders: long enough that everything is idle again
SEEN_S: Final = 10.0
FRAME: Final = bytes(90)  # as long as a frame with one new order
GOAL_RATE: Final = 200_000


def run(options: BenchOptions) -> PartReport:
    """entry.rate, entry.lonely_p50, mirror.p50, and what is around them."""
    report = PartReport(
        "entry",
        f"{GOAL_RATE:,} orders/s at batches of 256; half of the columnar echo at 64; a lonely order within 1.5 times "
        "an empty call and a commit; order to mirror within twice a ping and a commit",
        "",
        "engine, fabric node, echo server and the client that measures, all on the same cores; the echo idles while "
        "the venue is measured, and the other way round",
    )
    with quiet(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(options, report))
    return report


async def _measure(options: BenchOptions, report: PartReport) -> None:
    say("entry: starting an engine, a fabric node and an echo")
    async with venue.running() as running:
        clients = Clients(running, options)
        report.workload = (
            f"{clients.flow.source}, one account a round; at most {IN_FLIGHT:,} commands in flight; self-trade "
            "prevention off"
        )
        say("entry: rates")
        rates = await clients.rates(options.turns(5, 2), report)
        say("entry: latencies under load")
        await clients.loads(statistics.median(rates[f"venue {SIZES[-1]}"]), options, report)
        say("entry: lonely orders")
        async with Lone.of(running, clients.account()) as lone:
            await lonely(lone, options, report)
    report.notes.append(
        "entry.pNN_L is the acknowledgement of a batch of 256 at L per cent of entry.rate, from its scheduled send; "
        "its baseline is the echo of the same batches at the same rate. entry.lonely is one order in an open session, "
        "its baseline an empty unary call plus a durable commit of the same bytes. mirror.pNN is from the send of a "
        "lonely order to its being in a peer's mirror; its baseline is a pyzmq ping of the frame's bytes (out and "
        "back: order in, delta out) plus the commit."
    )


class Clients:
    """Everything that is sent in batches, to the venue and to the echo."""

    def __init__(self, running: BenchVenue, options: BenchOptions) -> None:
        self.venue = running
        self.flow = flows.load(LARGE, options.data, options.seed, options.take(120_000, 20_000))
        self.account = itertools.count(1_000).__next__

    def batches(self, account: int, size: int) -> list[Batch]:
        return list(workload.batches(self.flow.rows, account, INSTRUMENT.id, size))

    async def rates(self, rounds: int, report: PartReport) -> Rounds:
        """The venue and the echo, in turns."""
        contenders: dict[str, Callable[[], Awaitable[float]]] = {}
        for size in SIZES:
            contenders[f"venue {size}"] = partial(self.venue_rate, size)
            contenders[f"echo {size}"] = partial(self.echo_rate, size)
        found: Rounds = {name: [] for name in contenders}
        for i in range(rounds + 1):
            for name in contenders if i % 2 else reversed(contenders):
                rate = await contenders[name]()
                if i:  # the first round warms up
                    found[name].append(rate)
        for name, size, goal in (
            ("entry.rate", 256, f">= {GOAL_RATE:,}, ratio >= 0.50"), ("entry.rate_64", 64, "ratio >= 0.50"),
        ):  # fmt: skip
            report.add(
                name, "orders/s", found[f"venue {size}"], found[f"echo {size}"], goal=goal,
                digest=hash_of(*map(write_batch, self.batches(1, size))),
                against="a gRPC stream that echoes the same columnar batches, built and read by the same client",
            )  # fmt: skip
        return found

    async def venue_rate(self, size: int) -> float:
        """Orders a second through the venue, up to the last one mirrored."""
        batches = self.batches(self.account(), size)
        async with _session(self.venue, batches[0].account) as stream:
            before = perf_counter_ns()
            total = await _pump(stream, batches)
            await self.venue.mirrored(self.venue.fabric)
            return total * 1e9 / (perf_counter_ns() - before)

    async def echo_rate(self, size: int) -> float:
        batches = self.batches(1, size)
        async with _echo(self.venue) as stream:
            before = perf_counter_ns()
            total = await _pump(stream, batches)
            return total * 1e9 / (perf_counter_ns() - before)

    async def loads(self, rate: float, options: BenchOptions, report: PartReport) -> None:
        """Batches of 256 sent at their times, at three shares of the rate; the echo at the same rates."""
        size = SIZES[-1]
        for load in LOADS:
            each = rate * load / 100
            wanted = max(10, int(each * options.take(4, 1) / 2 / size))
            ours: list[list[float]] = []
            theirs: list[list[float]] = []
            for _ in range(options.turns(3, 1)):
                async with _echo(self.venue) as stream:
                    theirs.append(await _paced(stream, self.repeated(wanted), each))
                ours.append([])
                while len(ours[-1]) < wanted:
                    account = self.account()
                    batches = self.batches(account, size)[: wanted - len(ours[-1])]
                    async with _session(self.venue, account) as stream:
                        ours[-1] += await _paced(stream, batches, each)
            for q in (50, 99):
                report.add(
                    f"entry.p{q}_{load}", "s", _percentiles(ours, q), _percentiles(theirs, q),
                    digest=hash_of(*map(write_batch, self.repeated(wanted))),
                    against="the echo of the same batches at the same rate",
                )  # fmt: skip

    def repeated(self, count: int) -> list[Batch]:
        """So many batches, the flow's again and again."""
        return list(itertools.islice(itertools.cycle(self.batches(1, SIZES[-1])), count))


# One order at a time


async def lonely(lone: "Lone", options: BenchOptions, report: PartReport) -> None:
    """One order in an idle venue, to its acknowledgement and to a peer's mirror, in turns with the parts."""
    rounds, samples = options.turns(5, 2), options.take(200, 60)
    await lone.round(20)
    found: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for name, values in (await lone.round(samples)).items():
            found.setdefault(name, []).append(values)
    digest = hash_of("lonely", samples)
    for name, kind, part, q, goal in (
        ("entry.lonely_p50", "order", "call", 50, "ratio <= 1.50"),
        ("entry.lonely_p99", "order", "call", 99, ""),
        ("mirror.p50", "mirror", "ping", 50, "ratio <= 2.00"),
        ("mirror.p99", "mirror", "ping", 99, ""),
    ):
        parts = zip(_percentiles(found[part], q), _percentiles(found["commit"], q), strict=True)
        what = "an empty unary call" if part == "call" else "a pyzmq ping of the same bytes"
        report.add(
            name, "s", _percentiles(found[kind], q), [*map(sum, parts)], digest=digest, goal=goal,
            against=f"{what} plus a durable commit of the same bytes",
        )  # fmt: skip
    for part in ("call", "commit", "ping"):
        report.add(f"entry.{part}_p50", "s", _percentiles(found[part], 50), digest=digest)


class Lone:
    """Single orders and what they are compared with, one after the other in an idle venue; and a mirror of the engine's
    books in this process, read as a fabric node reads, that notes when it changes."""

    def __init__(self, running: BenchVenue, session: SessionStream, account: int, empty: Any, ping: Any) -> None:
        self._session = session
        self._account = account
        self._empty = empty
        self._ping = ping
        self._ids = itertools.count(1)
        self._chance = random.Random(7)
        self._log = SqliteLog(running.directory / "baseline")
        self._began = 0
        self._applied: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._peer = Subscriber(lambda *_: [running.engine], random.Random(7), listen=self._listen)

    @staticmethod
    @asynccontextmanager
    async def of(running: BenchVenue, account: int) -> AsyncIterator["Lone"]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        ping = context.socket(zmq.PAIR)
        ping.connect(running.ping)
        async with _session(running, account) as session, _channel(running.echo) as channel:
            lone = Lone(running, session, account, channel.unary_unary(echo.EMPTY), ping)
            lone._peer.follow(INSTRUMENT.engine, running.feed)
            try:
                async with asyncio.timeout(SEEN_S):
                    while any(client.state is not State.LIVE for client in lone._peer.clients.values()):
                        await asyncio.sleep(0.01)
                yield lone
            finally:
                await lone._peer.stop()
                lone._log.close()
                context.destroy(linger=0)

    async def round(self, samples: int) -> dict[str, list[float]]:
        """Seconds of each kind, taken in turns."""
        kinds = {"order": self.order, "call": self.call, "commit": self.commit, "ping": self.ping}
        found: dict[str, list[float]] = {name: [] for name in (*kinds, "mirror")}
        for _ in range(samples):
            for name, kind in kinds.items():
                await asyncio.sleep(LONELY_GAP_S)
                found[name].append(await kind())
                if name == "order":
                    seen_ns = await asyncio.wait_for(self._applied, SEEN_S)
                    found["mirror"].append((seen_ns - self._began) / 1e9)
        return found

    def _listen(self, _: FeedClient, action: Action) -> None:
        if isinstance(action, Applied) and not self._applied.done():
            self._applied.set_result(perf_counter_ns())

    def _order(self) -> bytes:
        side = self._chance.getrandbits(1)
        price = 33_000 + (1 if side else -1) * self._chance.randrange(10, 200)
        columns = [NEW], [next(self._ids)], [INSTRUMENT.id], [side * FLAG_SELL], [price], [10], [0]
        return write_batch(Batch(self._account, 0, STP_NONE, *columns))

    async def order(self) -> float:
        commands = self._order()
        answered = self._session.answered
        self._applied = asyncio.get_running_loop().create_future()
        self._began = perf_counter_ns()
        await self._session.send(commands)
        while self._session.answered == answered:
            await self._session.receive()
        return (perf_counter_ns() - self._began) / 1e9

    async def call(self) -> float:
        before = perf_counter_ns()
        await self._empty(b"")
        return (perf_counter_ns() - before) / 1e9

    async def commit(self) -> float:
        part = records.Entered(self._account, 0, STP_NONE, self._order())
        body = records.encode(records.Group(1, START_NS, [part]))
        before = perf_counter_ns()
        self._log.append(self._log.position, [body])
        return (perf_counter_ns() - before) / 1e9

    async def ping(self) -> float:
        before = perf_counter_ns()
        self._ping.send(FRAME)
        self._ping.recv()
        return (perf_counter_ns() - before) / 1e9


# Streams


async def _pump(stream: BatchStream, batches: Sequence[Batch]) -> int:
    """Send all batches with a bounded number of commands in flight; how many were answered in the end."""
    total = sum(map(len, batches))
    room = asyncio.Event()
    sent = 0

    async def write() -> None:
        nonlocal sent
        for batch in batches:
            while sent - stream.answered >= IN_FLIGHT:
                room.clear()
                await room.wait()
            sent += len(batch)
            await stream.send(write_batch(batch))

    writer = asyncio.ensure_future(write())
    try:
        while stream.answered < total:
            await stream.receive()
            room.set()
    finally:
        writer.cancel()
    assert stream.answered == total, (stream.answered, total)
    return total


async def _paced(stream: BatchStream, batches: Sequence[Batch], each: float) -> list[float]:
    """Send batches when they are due, `each` commands a second; the latency of each from when it was due."""
    encoded = [write_batch(batch) for batch in batches]
    size = len(batches[0])
    latencies: list[float] = []
    ends = list(itertools.accumulate(map(len, batches)))
    start = perf_counter_ns() + 5_000_000
    due = [start + round(i * size * 1e9 / each) for i in range(len(batches))]

    async def write() -> None:
        for at, batch in zip(due, encoded, strict=True):
            while (early := at - perf_counter_ns()) > 0:
                await asyncio.sleep(early / 1e9)
            await stream.send(batch)

    writer = asyncio.ensure_future(write())
    try:
        while len(latencies) < len(batches):
            await stream.receive()
            now = perf_counter_ns()
            while len(latencies) < len(batches) and ends[len(latencies)] <= stream.answered:
                latencies.append((now - due[len(latencies)]) / 1e9)
    finally:
        writer.cancel()
    return latencies


@asynccontextmanager
async def _session(running: BenchVenue, account: int) -> AsyncIterator[SessionStream]:
    """A session with the engine; what still rests at its end is taken out, so that every round finds an empty book."""
    async with _channel(running.engine) as channel:
        stream = await SessionStream.open(channel, account)
        yield stream
        answered = stream.answered
        columns = [MASS_CANCEL], [(1 << 62) + account], [INSTRUMENT.id], [0], [0], [0], [0]
        await stream.send(write_batch(Batch(account, 0, STP_NONE, *columns)))
        while stream.answered == answered:
            await stream.receive()
        stream.close()


@asynccontextmanager
async def _echo(running: BenchVenue) -> AsyncIterator[EchoStream]:
    async with _channel(running.echo) as channel:
        call: Any = channel.stream_stream(echo.COLUMNS)
        stream = EchoStream(call())
        yield stream
        stream.close()


def _channel(address: str) -> grpc.aio.Channel:
    return connect.channel(address)


def _percentiles(rounds: Sequence[Sequence[float]], q: int) -> list[float]:
    return [show.percentile(sorted(values), q / 100) for values in rounds]

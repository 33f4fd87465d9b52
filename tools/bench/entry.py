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
from proto.columns import FLAG_SELL, MASS_CANCEL, NEW, STP_NONE, Batch
from proto.orders import write_batch
from proto.orders_pb2 import NewOrderRequest
from tools.bench import echo, flows, path, show, venue
from tools.bench.deltas import START_NS
from tools.bench.flows import INSTRUMENT, LARGE
from tools.bench.measure import Options, Report, Result, Rounds, hash_of, quiet, result, say
from tools.bench.venue import EchoStream, RowsStream, SessionStream, Stream, Venue
from tools.flow import workload

COMMAND: Final = "python -m tools.bench entry"
SIZES: Final = (64, 256)
IN_FLIGHT: Final = 4_096  # commands on their way, whatever the batch
UNARY_CALLS: Final = 16  # at once
LOADS: Final = (10, 50, 90)  # per cent of the rate
LONELY_GAP_S: Final = 0.002  # between lonely orders: long enough that everything is idle again
GOAL_RATE: Final = 200_000
COLUMNS: Final = ("op", "client_order_id", "instrument", "flags", "price", "quantity", "target")

Encode = Callable[[Batch], bytes]


def run(options: Options) -> Report:
    """entry.rate, entry.lonely_p50, mirror.p50, and what is around them."""
    report = Report(
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


async def _measure(options: Options, report: Report) -> None:
    say("entry: starting an engine, a fabric node and an echo")
    async with venue.running() as running:
        clients = Clients(running, options)
        report.workload = (
            f"{clients.flow.source}, one account a round; at most {IN_FLIGHT:,} commands in flight; self-trade "
            "prevention off"
        )
        say("entry: rates")
        rates = await clients.rates(options.turns(5, 2), report)
        report.notes.append(clients.path())
        say("entry: latencies under load")
        await clients.loads(statistics.median(rates[f"venue {SIZES[-1]}"]), options, report)
        say("entry: lonely orders")
        await clients.lonely(options, report)
    report.notes.append(
        "entry.pNN_L is the acknowledgement of a batch of 256 at L per cent of entry.rate, from its scheduled send; "
        "its baseline is the echo of the same batches at the same rate. entry.lonely is one order in an open session, "
        "its baseline an empty unary call plus a durable commit of the same bytes; entry.lonely_unary the same by the "
        "unary NewOrder. mirror.pNN is from the send of a lonely order to its being in a peer's mirror; its baseline "
        "is a pyzmq ping of the frame's bytes (out and back: order in, delta out) plus the commit."
    )


class Clients:
    """Everything that is sent, to the venue and to the echo."""

    def __init__(self, running: Venue, options: Options) -> None:
        self.venue = running
        self.flow = flows.load(LARGE, options.data, options.seed, options.take(120_000, 20_000))
        self._accounts = itertools.count(1_000)
        self._spent: dict[int, tuple[int, dict[str, float]]] = {}  # by size: orders, seconds by thread

    def batches(self, account: int, size: int, count: int = 0) -> list[Batch]:
        rows = self.flow.rows[:count] if count else self.flow.rows
        return list(workload.batches(rows, account, INSTRUMENT.id, size))

    # Rates

    async def rates(self, rounds: int, report: Report) -> Rounds:
        """The venue and four kinds of echo, in turns."""
        contenders: dict[str, Callable[[], Awaitable[float]]] = {}
        for size in SIZES:
            contenders[f"venue {size}"] = _bound(self.venue_rate, size)
            contenders[f"columns {size}"] = _bound(self.echo_rate, size, EchoStream, echo.COLUMNS, write_batch)
            contenders[f"rows {size}"] = _bound(self.echo_rate, size, RowsStream, echo.ROWS, as_rows)
            contenders[f"unary columns {size}"] = _bound(self.unary_rate, size, echo.COLUMNS_UNARY, write_batch)
            contenders[f"unary rows {size}"] = _bound(self.unary_rate, size, echo.ROWS_UNARY, as_rows)
        found: Rounds = {name: [] for name in contenders}
        for i in range(rounds + 1):
            for name in contenders if i % 2 else reversed(contenders):
                rate = await contenders[name]()
                if i:  # the first round warms up
                    found[name].append(rate)
        digest = hash_of(*map(write_batch, self.batches(1, SIZES[-1])))
        for size in reversed(SIZES):
            name = "entry.rate" if size == SIZES[-1] else f"entry.rate_{size}"
            goal = f">= {GOAL_RATE:,}" if size == SIZES[-1] else "ratio >= 0.50"
            report.results.append(result(
                name, "orders/s", found[f"venue {size}"], found[f"columns {size}"], command=COMMAND, digest=digest,
                against="a gRPC stream that echoes the same columnar batches, built and read by the same client",
                goal=goal,
            ))  # fmt: skip
        for kind in ("rows", "unary columns", "unary rows"):
            for size in SIZES:
                report.results.append(result(
                    f"entry.echo_{kind.replace(' ', '_')}_{size}", "orders/s", found[f"{kind} {size}"],
                    found[f"columns {size}"], command=COMMAND, digest=digest,
                    against="a gRPC stream that echoes the same columnar batches, built and read by the same client",
                ))  # fmt: skip
        return found

    async def venue_rate(self, size: int) -> float:
        """Orders a second through the venue, up to the last one mirrored."""
        batches = self.batches(next(self._accounts), size)
        async with _channel(self.venue.engine) as channel:
            stream = await SessionStream.open(channel, batches[0].account)
            spent_before = path.threads(self.venue.pid)
            before = perf_counter_ns()
            total = await _pump(stream, batches, write_batch)
            await self.venue.mirrored(self.venue.fabric)
            spent = perf_counter_ns() - before
            self._note(size, total, spent_before)
            await _clear(stream, batches[0].account)
            stream.close()
        return total * 1e9 / spent

    async def echo_rate(self, size: int, kind: Callable[[Any], Stream], method: str, encode: Encode) -> float:
        batches = self.batches(1, size)
        async with _channel(self.venue.echo) as channel:
            call: Any = channel.stream_stream(method)
            stream = kind(call())
            before = perf_counter_ns()
            total = await _pump(stream, batches, encode)
            spent = perf_counter_ns() - before
            stream.close()
        return total * 1e9 / spent

    async def unary_rate(self, size: int, method: str, encode: Encode) -> float:
        batches = self.batches(1, size)
        count = echo.columns_of if encode is write_batch else echo.rows_of
        remaining = iter(batches)
        async with _channel(self.venue.echo) as channel:
            call: Any = channel.unary_unary(method)

            async def work() -> None:
                for batch in remaining:
                    count(await call(encode(batch)))

            before = perf_counter_ns()
            await asyncio.gather(*(work() for _ in range(UNARY_CALLS)))
            spent = perf_counter_ns() - before
        return sum(map(len, batches)) * 1e9 / spent

    # Where the time goes

    def _note(self, size: int, orders: int, before: dict[str, float]) -> None:
        """Add what the engine's threads spent on so many orders."""
        count, spent = self._spent.get(size, (0, {}))
        for name, seconds in path.threads(self.venue.pid).items():
            spent[name] = spent.get(name, 0.0) + seconds - before.get(name, 0.0)
        self._spent[size] = (count + orders, spent)

    def path(self) -> str:
        """The stages of an order, each alone, and what the engine's threads spent in the rounds."""
        batches = {size: self.batches(1, size)[: 40_000 // size] for size in SIZES}
        measured = {size: path.stages(batches[size], self.venue.directory / f"path-{size}") for size in SIZES}
        parts = [
            "Where an order's time goes, socket to socket; each stage alone, processor time:",
            path.table(measured),
        ]
        for size, (count, spent) in self._spent.items():
            each = ", ".join(f"{name} {seconds / count * 1e9:,.0f} ns" for name, seconds in path.ordered(spent, count))
            parts.append(f"The engine's threads at batches of {size}, an order: {each}.")
        return "\n\n".join(parts)

    # Latency under load

    async def loads(self, rate: float, options: Options, report: Report) -> None:
        """Batches of 256 sent at their times, at three shares of the rate; the echo at the same rates."""
        size = SIZES[-1]
        seconds = options.take(4, 1) / 2
        for load in LOADS:
            each = rate * load / 100
            batches = self.batches(next(self._accounts), size)
            wanted = max(10, int(each * seconds / size))
            while len(batches) < wanted:
                batches += self.batches(next(self._accounts), size)
            theirs: list[list[float]] = []
            ours: list[list[float]] = []
            for _ in range(options.turns(3, 1)):
                theirs.append(await self._paced_echo(batches[:wanted], each))
                ours.append(await self._paced_venue(wanted, each))
            report.notes.append(show.histogram(
                f"acknowledgement of a batch of {size} at {load} % of the rate",
                [value for values in ours for value in values],
            ))  # fmt: skip
            digest = hash_of(*map(write_batch, self.batches(1, size)[:wanted]))
            for q in (50, 99):
                report.results.append(result(
                    f"entry.p{q}_{load}", "s", _percentiles(ours, q), _percentiles(theirs, q), command=COMMAND,
                    digest=digest, against="the echo of the same batches at the same rate",
                ))  # fmt: skip

    async def _paced_venue(self, wanted: int, each: float) -> list[float]:
        latencies: list[float] = []
        while len(latencies) < wanted:
            account = next(self._accounts)
            batches = self.batches(account, SIZES[-1])[: wanted - len(latencies)]
            async with _channel(self.venue.engine) as channel:
                stream = await SessionStream.open(channel, account)
                latencies += await _paced(stream, batches, each)
                await _clear(stream, account)
                stream.close()
        return latencies

    async def _paced_echo(self, batches: list[Batch], each: float) -> list[float]:
        async with _channel(self.venue.echo) as channel:
            call: Any = channel.stream_stream(echo.COLUMNS)
            stream = EchoStream(call())
            latencies = await _paced(stream, batches, each)
            stream.close()
        return latencies

    # One order at a time

    async def lonely(self, options: Options, report: Report) -> None:
        """One order in an idle venue, to its acknowledgement and to a peer's mirror, in turns with the parts."""
        rounds, samples = options.turns(5, 2), options.take(200, 60)
        account = next(self._accounts)
        async with (
            _channel(self.venue.engine) as channel,
            _channel(self.venue.echo) as echo_channel,
            _following(self.venue) as peer,
        ):
            lone = Lone(self.venue, await SessionStream.open(channel, account), account, echo_channel, channel, peer)
            try:
                await lone.round(20)
                found: dict[str, list[list[float]]] = {}
                for _ in range(rounds):
                    for name, values in (await lone.round(samples)).items():
                        found.setdefault(name, []).append(values)
            finally:
                lone.close()
        digest = hash_of("lonely", samples)
        report.results += lonely_results(found, digest)
        everything = [value for values in found["order"] for value in values]
        report.notes.append(show.histogram("a lonely order, acknowledged", everything))
        everything = [value for values in found["mirror"] for value in values]
        report.notes.append(show.histogram("a lonely order, in a peer's mirror", everything))


def lonely_results(found: dict[str, list[list[float]]], digest: str) -> list[Result]:
    results = []
    for name, kind, parts, q, goal in (
        ("entry.lonely_p50", "order", ("call", "commit"), 50, "ratio <= 1.50"),
        ("entry.lonely_p99", "order", ("call", "commit"), 99, ""),
        ("entry.lonely_unary_p50", "unary", ("call", "commit"), 50, "ratio <= 1.50"),
        ("mirror.p50", "mirror", ("ping", "commit"), 50, "ratio <= 2.00"),
        ("mirror.p99", "mirror", ("ping", "commit"), 99, ""),
    ):
        ours = _percentiles(found[kind], q)
        theirs = [sum(pair) for pair in zip(*(_percentiles(found[part], q) for part in parts), strict=True)]
        against = {
            "call": "an empty unary call plus a durable commit of the same bytes",
            "ping": "a pyzmq ping of the same bytes plus a durable commit",
        }[parts[0]]
        results.append(
            result(name, "s", ours, theirs, command=COMMAND, digest=digest, against=against, goal=goal)
        )  # fmt: skip
    results += [
        result(f"entry.{part}_p50", "s", _percentiles(found[part], 50), command=COMMAND, digest=digest)
        for part in ("call", "commit", "ping")
    ]
    return results


class Lone:
    """Single orders and what they are compared with, one after the other in an idle venue."""

    def __init__(
        self,
        running: Venue,
        session: SessionStream,
        account: int,
        echo_channel: grpc.aio.Channel,
        channel: grpc.aio.Channel,
        peer: "Peer",
    ) -> None:
        self._session = session
        self._account = account
        self._peer = peer
        self._empty: Any = echo_channel.unary_unary(echo.EMPTY)
        self._new_order: Any = channel.unary_unary("/lobmesh.v1.Orders/NewOrder")
        self._ids = itertools.count(1)
        self._chance = random.Random(7)
        self._log = SqliteLog(running.directory / "baseline")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ping = self._context.socket(zmq.PAIR)
        self._ping.connect(running.ping)

    async def round(self, samples: int) -> dict[str, list[float]]:
        """Seconds of each kind, taken in turns."""
        kinds: dict[str, Callable[[], Awaitable[float]]] = {
            "order": self.order,
            "call": self.call,
            "commit": self.commit,
            "unary": self.unary,
            "ping": self.ping,
        }
        found: dict[str, list[float]] = {name: [] for name in (*kinds, "mirror")}
        for _ in range(samples):
            for name, kind in kinds.items():
                await asyncio.sleep(LONELY_GAP_S)
                found[name].append(await kind())
                if name == "order":
                    found["mirror"].append(await self._peer.seen(self._began))
        return found

    def _order(self) -> Batch:
        side = self._chance.getrandbits(1)
        price = 33_000 + (1 if side else -1) * self._chance.randrange(10, 200)
        flags = side * FLAG_SELL
        return Batch(
            self._account, 0, STP_NONE, [NEW], [next(self._ids)], [INSTRUMENT.id], [flags], [price], [10], [0]
        )  # fmt: skip

    async def order(self) -> float:
        commands = write_batch(self._order())
        answered = self._session.answered
        self._peer.expect()
        self._began = before = perf_counter_ns()
        await self._session.send(commands)
        while self._session.answered == answered:
            await self._session.receive()
        return (perf_counter_ns() - before) / 1e9

    async def unary(self) -> float:
        price = 33_000 - self._chance.randrange(10, 200)
        request = NewOrderRequest(
            account=self._account + 1_000_000,
            client_order_id=next(self._ids),
            symbol=INSTRUMENT.symbol,
            price=f"{price / 100:.2f}",
            quantity="10",
        ).SerializeToString()
        before = perf_counter_ns()
        await self._new_order(request)
        return (perf_counter_ns() - before) / 1e9

    async def call(self) -> float:
        before = perf_counter_ns()
        await self._empty(b"")
        return (perf_counter_ns() - before) / 1e9

    async def commit(self) -> float:
        part = records.Entered(self._account, 0, STP_NONE, write_batch(self._order()))
        body = records.encode(records.Commands(1, START_NS, [part]))
        before = perf_counter_ns()
        self._log.append(self._log.position, [body])
        return (perf_counter_ns() - before) / 1e9

    async def ping(self) -> float:
        data = bytes(self._peer.frame_size)
        before = perf_counter_ns()
        self._ping.send(data)
        self._ping.recv()
        return (perf_counter_ns() - before) / 1e9

    def close(self) -> None:
        self._session.close()
        self._log.close()
        self._context.destroy(linger=0)


class Peer:
    """A mirror of the engine's books in this process, read as a fabric node reads, that notes when it changes."""

    def __init__(self, engine: str) -> None:
        self.frame_size = 90  # bytes of a frame with one new order
        self._engine = engine
        self._applied: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.subscriber = Subscriber(lambda *_: [engine], random.Random(7), listen=self._listen)

    def expect(self) -> None:
        """The next event is the one to be timed."""
        self._applied = asyncio.get_running_loop().create_future()

    def _listen(self, _: FeedClient, action: Action) -> None:
        if isinstance(action, Applied) and not self._applied.done():
            self._applied.set_result(perf_counter_ns())

    async def seen(self, since_ns: int) -> float:
        """Seconds from `since_ns` to the expected event's being in the mirror."""
        return (await asyncio.wait_for(self._applied, 10.0) - since_ns) / 1e9

    async def live(self) -> None:
        async with asyncio.timeout(10.0):
            while any(client.state is not State.LIVE for client in self.subscriber.clients.values()):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def _following(running: Venue) -> AsyncIterator[Peer]:
    peer = Peer(running.engine)
    peer.subscriber.follow(INSTRUMENT.engine, running.feed)
    try:
        await peer.live()
        yield peer
    finally:
        await peer.subscriber.stop()


async def _pump(stream: Stream, batches: Sequence[Batch], encode: Encode) -> int:
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
            await stream.send(encode(batch))

    writer = asyncio.ensure_future(write())
    try:
        while stream.answered < total:
            await stream.receive()
            room.set()
    finally:
        writer.cancel()
    assert stream.answered == total, (stream.answered, total)
    return total


async def _paced(stream: Stream, batches: Sequence[Batch], each: float) -> list[float]:
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


async def _clear(stream: SessionStream, account: int) -> None:
    """Take out what still rests, so that every round finds an empty book."""
    commands = write_batch(
        Batch(account, 0, STP_NONE, [MASS_CANCEL], [(1 << 62) + account], [INSTRUMENT.id], [0], [0], [0], [0])
    )
    answered = stream.answered
    await stream.send(commands)
    while stream.answered == answered:
        await stream.receive()


def as_rows(batch: Batch) -> bytes:
    return echo.rows_from(getattr(batch, name) for name in COLUMNS)


def _percentiles(rounds: Sequence[Sequence[float]], q: int) -> list[float]:
    return [show.percentile(sorted(values), q / 100) for values in rounds]


def _bound(function: Callable[..., Awaitable[float]], *arguments: Any) -> Callable[[], Awaitable[float]]:
    return lambda: function(*arguments)


def _channel(address: str) -> grpc.aio.Channel:
    options = [*echo.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options=options)

"""Recovery: from a gap to valid books, one reader alone and two hundred at once, and what orders notice of it.

The readers are the feed's own state machines and their gRPC calls, in this process, behind one SUB socket: what comes
over it is handed to each of them, but for the frames a round has them lose. They ask the fabric node, as anyone does.
The orders come from a process of their own, which is also who says how long they took.
"""

import asyncio
import contextlib
import gc
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from time import monotonic, monotonic_ns, perf_counter
from typing import Any, Final

import uvloop
import zmq

from bus.access.asking import Recovery
from bus.stream.actions import Action, AskRange, AskSnapshot, ClientLimits, State, Withdrawn
from bus.stream.feed_client import FeedClient
from proto import connect, feed, marketdata_pb2, marketdata_pb2_grpc
from proto.columns import CANCEL, NEW, STP_NONE, Batch
from proto.orders import write_batch
from proto.snapshot import Chunk, decode_snapshot, join_chunks
from tools.bench import echo, flows, show, venue
from tools.bench.child import PipeChild
from tools.bench.flows import INSTRUMENT, LARGE
from tools.bench.measure import BenchOptions, PartReport, hash_of, quiet, say
from tools.bench.venue import BenchVenue, SessionStream
from tools.flow import workload

HERD: Final = 200
LOST: Final = 5  # frames
RESTING: Final = 20_000  # messages of recorded flow before anything is measured
PAUSE_S: Final = 0.1  # between herds: then orders have their queue empty again
WAIT_S: Final = 30.0
PROBE: Final = 200  # account
GAP_S: Final = 0.005  # between its orders


def run(options: BenchOptions) -> PartReport:
    """recovery.gap_*, recovery.herd, recovery.ack_p99, and the bare calls beside them."""
    report = PartReport(
        "recovery",
        f"a gap repaired within 3 snapshot calls at p99; {HERD} readers within 1.5 times {HERD} empty calls; orders "
        "meanwhile at most 2 times as slow at p99",
        "",
        "engine, fabric node, echo, a client that enters an order every 5 ms, and the readers, all on the same cores",
    )
    with quiet(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(options, report))
    return report


async def _measure(options: BenchOptions, report: PartReport) -> None:
    say("recovery: starting an engine, a fabric node and an echo")
    async with venue.running() as running:
        flow = flows.load(LARGE, options.data, options.seed, RESTING)
        await _fill(running, flow)
        report.workload = f"{flow.source}; then an order every 5 ms; {LOST} frames lost at a time"
        with PipeChild("tools.bench.recovery:serve", running.engine) as orders:
            async with _reading(running, 1) as reader:
                await _alone(reader, options, report)
            async with _reading(running, HERD) as readers:
                await _together(readers, orders, running, options, report)
    report.notes.append(
        "recovery.gap is from the frame that shows a gap to books that are valid again, in a lone reader: its baseline "
        "is one GetRange call of the same frames to the same fabric node, and that of recovery.gap_p99_snapshot one "
        "GetSnapshot call, decoded. recovery.herd is the same for the last of 200 readers that lose the same frames; "
        "its baseline is 200 empty unary calls at once, to a server that does nothing. recovery.ack_p99 is an order's "
        "acknowledgement, from its scheduled send, while herd follows herd; its baseline the same with nobody asking. "
        "recovery.ack_p99_calls is that while the 200 empty calls are made: what the cores' being shared does alone."
    )


async def _fill(running: BenchVenue, flow: flows.Flow) -> None:
    """Enter recorded flow, so that there is a book to speak of."""
    async with connect.channel(running.engine) as channel:
        stream = await SessionStream.open(channel, 100)
        for batch in workload.batches(flow.rows, 100, INSTRUMENT.id, 256):
            due = stream.answered + len(batch)
            await stream.send(write_batch(batch))
            while stream.answered < due:
                await stream.receive()
        stream.close()
    await running.mirrored(running.fabric)


class Readers:
    """State machines that read one stream, each with its calls, and frames that some of them do not get."""

    def __init__(self, running: BenchVenue, count: int) -> None:
        # What a round holds back is no silence.
        limits = ClientLimits(silence_ns=int(WAIT_S * 1e9))
        self.clients = [
            FeedClient(INSTRUMENT.engine, INSTRUMENT.channel, random.Random(i), None, limits) for i in range(count)
        ]
        self.stub: Any = None
        self.frames: list[bytes] = []  # that came and were not handed out
        self.echo = running.echo
        self._recoveries = {
            client: Recovery(lambda engine, asked: [running.fabric], self._act) for client in self.clients
        }
        self._timers: dict[FeedClient, asyncio.TimerHandle] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set_hwm(0)
        self._socket.subscribe(feed.topic(feed.KIND_D, INSTRUMENT.engine, INSTRUMENT.channel))
        self._socket.connect(running.feed)
        self._came = asyncio.Event()
        self._settled = asyncio.Event()
        self._unsettled: set[FeedClient] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._drain)
        self._handing = True

    async def begin(self) -> None:
        """Have all of them read, valid; one after the other, since a machine gives a caller few snapshots at once."""
        for client in self.clients:
            self._act(client, client.start(monotonic_ns()))
            await self._until_live([client])

    async def gap(self, clients: list[FeedClient]) -> float:
        """Have these lose frames that all others get; seconds from the frame that shows it until all are valid."""
        self._handing = False
        try:
            while sum(map(_deltas, self.frames)) <= LOST:
                self._came.clear()
                await self._came.wait()
            frames, self.frames = self.frames, []
            while not _deltas(frames[-1]):
                frames.pop()
            # All of it is past when the loss is seen, as it is for a reader elsewhere: the fabric node has it.
            await asyncio.sleep(0.002)
            losing = set(clients)
            for client in self.clients:
                if client not in losing:
                    for frame in frames:
                        self._act(client, client.frame(frame, monotonic_ns()))
            began = perf_counter()
            for client in clients:
                for frame in frames[-1:]:
                    self._act(client, client.frame(frame, monotonic_ns()))
            # What comes meanwhile waits: two hundred readers would each have a process of their own for it.
            await self._until_live(clients)
            return perf_counter() - began
        finally:
            self._handing = True
            self._drain()

    async def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        for timer in self._timers.values():
            timer.cancel()
        for recovery in self._recoveries.values():
            await recovery.stop()
        self._socket.close(0)
        self._context.term()

    async def _until_live(self, clients: list[FeedClient]) -> None:
        self._unsettled = {client for client in clients if client.state is not State.LIVE}
        self._settled.clear()
        if self._unsettled:
            async with asyncio.timeout(WAIT_S):
                await self._settled.wait()

    def _drain(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self.frames.append(self._socket.recv(zmq.NOBLOCK))
        if self.frames:
            self._came.set()
        if self._handing:
            frames, self.frames = self.frames, []
            for frame in frames:
                for client in self.clients:
                    if client.state is not State.DOWN:
                        self._act(client, client.frame(frame, monotonic_ns()))

    def _act(self, client: FeedClient, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, AskRange | AskSnapshot):
                self._recoveries[client].ask(client, action)
            elif isinstance(action, Withdrawn):
                self._recoveries[client].withdraw(client)
        if client in self._unsettled and client.state is State.LIVE:
            self._unsettled.discard(client)
            if not self._unsettled:
                self._settled.set()
        # Silence is no matter here: only what is asked for has its time.
        timer = self._timers.pop(client, None)
        if timer is not None:
            timer.cancel()
        if client.state is not State.LIVE and client.deadline_ns is not None:
            wait_s = max(client.deadline_ns - monotonic_ns(), 0) / 1e9
            self._timers[client] = self._loop.call_later(wait_s, self._tick, client)

    def _tick(self, client: FeedClient) -> None:
        self._act(client, client.tick(monotonic_ns()))


def _deltas(frame: bytes) -> bool:
    return feed.decode_header(frame).count > 0


@asynccontextmanager
async def _reading(running: BenchVenue, count: int) -> AsyncIterator[Readers]:
    readers = Readers(running, count)
    async with connect.channel(running.fabric) as channel:
        stub: Any = marketdata_pb2_grpc.MarketDataStub
        readers.stub = stub(channel)
        try:
            await readers.begin()
            yield readers
        finally:
            await readers.close()


async def _alone(readers: Readers, options: BenchOptions, report: PartReport) -> None:
    """One reader's gaps, in turns with the calls that a repair cannot do without."""
    samples, rounds = options.take(60, 15), options.turns(5, 2)
    say(f"recovery: {rounds} rounds of {samples} gaps")
    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "gap": lambda: readers.gap(readers.clients[:1]),
        "range": lambda: _range(readers),
        "snapshot": lambda: _snapshot(readers),
    }
    found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for values in found.values():
            values.append([])
        for _ in range(samples):
            for kind, measure in kinds.items():
                found[kind][-1].append(await measure())
    digest = hash_of("alone", samples, LOST)
    everything = {kind: sorted(value for values in found[kind] for value in values) for kind in kinds}
    # A p99 is of all rounds together: in one of them it would be the slowest of a few.
    at = {(kind, 50): [show.percentile(sorted(values), 0.5) for values in found[kind]] for kind in kinds}
    at |= {(kind, 99): [show.percentile(everything[kind], 0.99)] for kind in kinds}
    for name, q, base, against, goal in (
        ("recovery.gap_p50", 50, "range", "one GetRange call of the same frames", ""),
        ("recovery.gap_p99", 99, "range", "one GetRange call of the same frames", "ratio <= 3.00"),
        ("recovery.gap_p99_snapshot", 99, "snapshot", "one GetSnapshot call, decoded", "ratio <= 3.00"),
    ):
        report.add(name, "s", at["gap", q], at[base, q], digest=digest, against=against, goal=goal)  # fmt: skip
    for kind in ("range", "snapshot"):
        for q in (50, 99):
            report.add(f"recovery.{kind}_p{q}", "s", at[kind, q], digest=digest)  # fmt: skip


async def _range(readers: Readers) -> float:
    client = readers.clients[-1]
    last = client.mirror.last_seq
    request = marketdata_pb2.RangeRequest(
        engine=INSTRUMENT.engine, channel=INSTRUMENT.channel, epoch=client.epoch, first_seq=max(1, last - LOST + 1),
        last_seq=last,
    )  # fmt: skip
    began = perf_counter()
    reply = await readers.stub.GetRange(request, timeout=WAIT_S)
    took = perf_counter() - began
    assert reply.status == marketdata_pb2.RANGE_OK
    return took


async def _snapshot(readers: Readers) -> float:
    request = marketdata_pb2.SnapshotRequest(engine=INSTRUMENT.engine, channel=INSTRUMENT.channel)
    began = perf_counter()
    chunks = [
        Chunk(chunk.index, chunk.count, chunk.crc32, chunk.body)
        async for chunk in readers.stub.GetSnapshot(request, timeout=WAIT_S)
    ]
    decode_snapshot(join_chunks(chunks))
    return perf_counter() - began


async def _together(
    readers: Readers, orders: PipeChild, running: BenchVenue, options: BenchOptions, report: PartReport
) -> None:
    """All readers' gaps, in turns with as many empty calls, and the orders' times during each and during neither."""
    rounds, herds = options.turns(5, 2), options.take(8, 3)
    say(f"recovery: {rounds} rounds of {herds} herds of {HERD}")
    found: dict[str, list[float]] = {"herd": [], "calls": []}
    acks: dict[str, list[float]] = {"herd": [], "calls": [], "quiet": []}
    async with connect.channel(running.echo) as channel:
        call: Any = channel.unary_unary(echo.EMPTY)

        async def calls() -> float:
            began = perf_counter()
            await asyncio.gather(*[call(b"") for _ in range(HERD)])
            return perf_counter() - began

        async def herd() -> float:
            return await readers.gap(readers.clients)

        async def nothing() -> float:
            await asyncio.sleep(found["calls"][-1])
            return 0.0

        await calls()
        await herd()
        await asyncio.to_thread(orders.ask)
        for _ in range(rounds):
            spans: dict[str, list[tuple[float, float]]] = {kind: [] for kind in acks}
            times: dict[str, list[float]] = {kind: [] for kind in acks}
            for _ in range(herds):
                for kind, measure in (("calls", calls), ("herd", herd), ("quiet", nothing)):
                    began = monotonic()
                    times[kind].append(await measure())
                    if kind == "calls":
                        found["calls"].append(times[kind][-1])
                    spans[kind].append((began, monotonic()))
                    await asyncio.sleep(PAUSE_S)
            found["calls"][-herds:] = [sorted(times["calls"])[herds // 2]]
            found["herd"].append(sorted(times["herd"])[herds // 2])
            noted = await asyncio.to_thread(orders.ask)
            for kind, ends in spans.items():
                acks[kind] += [took for due, took in noted if any(first <= due <= last for first, last in ends)]
    digest = hash_of("together", HERD, LOST)
    report.add("recovery.herd", "s", found["herd"], found["calls"], digest=digest,
            against=f"{HERD} empty unary calls at once", goal="ratio <= 1.50",)  # fmt: skip
    # Of all rounds together: one of them has too few orders for a percentile.
    for name, kind, q, goal in (
        ("recovery.ack_p50", "herd", 0.5, ""),
        ("recovery.ack_p99", "herd", 0.99, "ratio <= 2.00"),
        ("recovery.ack_p99_calls", "calls", 0.99, ""),
    ):
        at = {of: [show.percentile(sorted(values), q)] for of, values in acks.items()}
        against = "the same while nobody asks for anything"
        report.add(name, "s", at[kind], at["quiet"], digest=digest, against=against, goal=goal)  # fmt: skip


# The orders, in a process of their own


def serve(connection: "Connection[Any, Any]", endpoint: str) -> None:
    """Enter an order every few milliseconds; answer each question with what was noted since the last: [(due, seconds)].

    `due` is when an order was to be sent by the monotonic clock, the seconds are from then to its acknowledgement.
    """
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_enter(connection, endpoint))


async def _enter(connection: "Connection[Any, Any]", endpoint: str) -> None:
    async with connect.channel(endpoint) as channel:
        probe = Probe(await SessionStream.open(channel, PROBE))

        def answer() -> None:
            connection.recv()
            noted, probe.noted = probe.noted, []
            connection.send(noted)

        asyncio.get_running_loop().add_reader(connection.fileno(), answer)
        await asyncio.gather(probe.send(), probe.hear())


class Probe:
    """Orders at their times, each of which is canceled by the next command."""

    def __init__(self, stream: SessionStream) -> None:
        self._stream = stream
        self._due: deque[float] = deque()
        self.noted: list[tuple[float, float]] = []

    async def send(self) -> None:
        due, command = monotonic(), 0
        while True:
            due += GAP_S
            command += 1
            await asyncio.sleep(max(0.0, due - monotonic()))
            op, target = (CANCEL, command - 1) if command % 2 == 0 else (NEW, 0)
            batch = Batch(
                PROBE, 0, STP_NONE, [op], [command], [INSTRUMENT.id], [0], [INSTRUMENT.price_min], [1], [target]
            )
            self._due.append(due)
            await self._stream.send(write_batch(batch))

    async def hear(self) -> None:
        while True:
            answered = self._stream.answered
            await self._stream.receive()
            now = monotonic()
            for _ in range(self._stream.answered - answered):
                due = self._due.popleft()
                self.noted.append((due, now - due))

"""What trading notices of a snapshot of a book of a million orders, taken from the engine and from a fabric node.

First in this process, with an engine's own feed on an event loop: how long its longest slice takes, and how long the
longest wait for a turn of the loop is while orders come and go, the encoding on a thread included; and whether what
comes out is the book as it stood at the sequence it names. Then a whole venue: an order every five milliseconds, from
a process of its own, while one snapshot after another is asked for.
"""

import asyncio
import gc
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic, perf_counter, thread_time
from typing import Any, ClassVar, Final

import grpc
import uvloop

from engine.core.book import Book
from engine.core.venue import Venue as Core
from engine.publish import source as publish
from engine.publish.cut import Cut
from engine.publish.source import EngineFeed
from proto import marketdata_pb2, marketdata_pb2_grpc
from proto.columns import BUY, CANCEL, FLAG_SELL, NEW, SELL, STP_NONE, Batch
from proto.orders import write_batch
from proto.snapshot import decode_snapshot
from tools.bench import probe, show, venue
from tools.bench.core import read
from tools.bench.flows import INSTRUMENT
from tools.bench.measure import Options, Report, hash_of, quiet, result, say
from tools.bench.venue import SessionStream, Venue

COMMAND: Final = "python -m tools.bench scale"
ORDERS: Final = 1_000_000
ORDERS_QUICK: Final = 50_000
ACCOUNT: Final = 300
PROBE: Final = 200
BATCH: Final = 1_024
TRADED: Final = 64  # commands between two turns of the loop
LEVELS: Final = 10_000  # a side
MIDDLE: Final = 1 << 20  # ticks
GOAL_S: Final = 0.010
SWITCH_S: Final = 0.0005  # as an engine has it
CALL_S: Final = 120.0
QUIET_S: Final = 1.0  # without a snapshot, at most
PAUSE_S: Final = 0.2  # between snapshots


def run(options: Options, report: Report) -> None:
    """scale.snapshot_slice, scale.snapshot_slice_wall, scale.snapshot_stall, and scale.snapshot_ack_*."""
    count = options.take(ORDERS, ORDERS_QUICK)
    say(f"scale: snapshots of a book of {count:,} orders")
    with quiet(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_alone(count, options, report))
    say(f"scale: a venue with {count:,} orders")
    with quiet(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_venue(count, options, report))
    report.notes.append(
        f"The snapshots are of one book of {count:,} orders. scale.snapshot_slice is the longest slice, in processor "
        "time of the loop's thread, scale.snapshot_slice_wall by the clock, scale.snapshot_stall the longest wait "
        "for a turn of the loop from the first slice until the snapshot is encoded, beside the longest with no "
        f"snapshot; {TRADED} orders come or go between two turns. What was encoded is decoded and compared, order by "
        "order, with the book at the sequence that the snapshot names. scale.snapshot_ack_* is an order's "
        "acknowledgement in a whole venue, an order every 5 ms from its scheduled send, while one snapshot after "
        "another is asked of the fabric node or (_engine) of the engine, beside the same while nobody asks; _busy is "
        "while a process that has nothing to do with the venue computes as long as a fabric node's snapshot takes: "
        "what the cores' being shared does alone."
    )


def resting(first: int, count: int, chance: random.Random) -> Batch:
    """New orders that rest, at random prices on both sides."""
    sides = [chance.getrandbits(1) for _ in range(count)]
    return Batch(
        ACCOUNT, 0, STP_NONE, [NEW] * count, list(range(first, first + count)), [INSTRUMENT.id] * count,
        [side * FLAG_SELL for side in sides],
        [MIDDLE + (1 if side else -1) * chance.randrange(1, LEVELS + 1) for side in sides], [10] * count, [0] * count,
    )  # fmt: skip


# An engine's feed alone


class TimedCut:
    """A cut that notes how long its slices take."""

    walls: ClassVar[list[float]] = []
    cpus: ClassVar[list[float]] = []

    def __init__(self, books: Sequence[Book]) -> None:
        self._cut = Cut(books)
        self.note = self._cut.note
        self.orders = self._cut.orders

    @property
    def done(self) -> bool:
        return self._cut.done

    def copy(self) -> bool:
        wall, cpu = perf_counter(), thread_time()
        done = self._cut.copy()
        self.cpus.append(thread_time() - cpu)
        self.walls.append(perf_counter() - wall)
        return done


class Floor:
    """A core with `count` resting orders, and its feed."""

    def __init__(self, count: int, seed: int) -> None:
        self._core = Core(INSTRUMENT.engine, [INSTRUMENT])
        self._chance = random.Random(seed)
        self._position = 0
        self._live = list(range(1, count + 1))
        self._next_id = count + 1
        self.feed = EngineFeed(
            self._core, [INSTRUMENT], incarnation=1, epoch=1, fresh=False, endpoint="tcp://127.0.0.1:0",
            clock_ns=time.time_ns,
        )  # fmt: skip
        for first in range(1, count + 1, BATCH):
            self._apply(resting(first, min(BATCH, count + 1 - first), self._chance))

    def trade(self) -> None:
        """Some resting orders go, as many come."""
        chance = self._chance
        batch = resting(self._next_id, TRADED // 2, chance)
        self._next_id += TRADED
        for i in range(TRADED // 2):
            at = chance.randrange(len(self._live))
            batch.op.append(CANCEL)
            batch.client_order_id.append(self._next_id - TRADED // 2 + i)
            batch.instrument.append(INSTRUMENT.id)
            batch.flags.append(0)
            batch.price.append(0)
            batch.quantity.append(0)
            batch.target.append(self._live[at])
            self._live[at] = batch.client_order_id[i]
        self._apply(batch)

    def books(self) -> list[list[tuple[int, int, int]]]:
        """Bids and asks, every order."""
        book = self._core.books[INSTRUMENT.id]
        return [[(order.order_id, order.price, order.open) for order in book.orders(side)] for side in (BUY, SELL)]

    def _apply(self, batch: Batch) -> None:
        self._position += 1
        outcome = self._core.apply(self._position, self._position, [read(write_batch(batch))])
        self.feed.publish(self._position, outcome.deltas, idle=False)


class Turns:
    """Trades at every turn of the loop, and notes the longest wait for one."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self.longest = 0.0

    async def begin(self) -> None:
        """Forget what came before, whatever held up the loop until now."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            left = perf_counter()
            await asyncio.sleep(0)
            self.longest = max(self.longest, perf_counter() - left)
            self._floor.trade()


async def _alone(count: int, options: Options, report: Report) -> None:
    switch_s = sys.getswitchinterval()
    floor = Floor(count, options.seed)
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    setattr(publish, "Cut", TimedCut)  # noqa: B010  (a name that is not the module's own to give)
    turns = Turns(floor)
    trading = asyncio.ensure_future(turns.run())
    slices: list[float] = []
    walls: list[float] = []
    stalls: list[float] = []
    without: list[float] = []
    try:
        for _ in range(options.rounds or 1):
            TimedCut.cpus.clear()
            TimedCut.walls.clear()
            await turns.begin()
            began = perf_counter()
            taken = await floor.feed.snapshot(INSTRUMENT.engine, INSTRUMENT.channel, ())
            stall, books = turns.longest, floor.books()  # in one turn: nothing was traded between
            await turns.begin()
            body = await asyncio.to_thread(taken.encode)
            stalls.append(max(stall, turns.longest))
            slices.append(max(TimedCut.cpus))
            walls.append(max(TimedCut.walls))
            took = perf_counter() - began
            await turns.begin()
            await asyncio.sleep(min(took, QUIET_S))
            without.append(turns.longest)
            _compare(body, books, taken.position)
    finally:
        setattr(publish, "Cut", Cut)  # noqa: B010
        sys.setswitchinterval(switch_s)
        trading.cancel()
        await asyncio.gather(trading, return_exceptions=True)
        floor.feed.publisher.close()
    digest = hash_of(count, options.seed, LEVELS)
    goal = f"<= {GOAL_S * 1e3:g} ms"
    report.results += [
        result("scale.snapshot_slice", "s", slices, command=COMMAND, digest=digest, goal=goal),
        result("scale.snapshot_slice_wall", "s", walls, command=COMMAND, digest=digest),
        result(
            "scale.snapshot_stall", "s", stalls, without, command=COMMAND, digest=digest, goal=goal,
            against="the longest wait for a turn in a second without a snapshot",
        ),
    ]  # fmt: skip


def _compare(body: bytes, books: list[list[tuple[int, int, int]]], position: tuple[int, int, int]) -> None:
    snapshot = decode_snapshot(body)
    if (snapshot.incarnation, snapshot.epoch, snapshot.last_seq) != position:
        raise AssertionError("the snapshot names another sequence than it was taken at")
    for ours, theirs in zip(books, (snapshot.books[0].bids, snapshot.books[0].asks), strict=True):
        if ours != [tuple(order) for order in theirs]:
            raise AssertionError(f"the snapshot at {snapshot.last_seq} is not the book as it stood there")


# A whole venue


async def _venue(count: int, options: Options, report: Report) -> None:
    async with venue.running() as running:
        await _fill(running, count, options.seed)
        acks: dict[str, list[float]] = {"quiet": [], "busy": [], "engine": [], "fabric": []}
        took: dict[str, float] = {}
        async with probe.running(running.engine, PROBE) as orders:
            await _snapshot(running.fabric)  # the first one of each makes room in memory
            await _snapshot(running.engine)
            kinds: dict[str, Callable[[], Awaitable[None]]] = {
                "fabric": lambda: _snapshot(running.fabric),
                "engine": lambda: _snapshot(running.engine),
                "busy": lambda: _busy(took["fabric"]),
                "quiet": lambda: asyncio.sleep(took["fabric"]),
            }
            for _ in range(options.turns(2, 1)):
                for kind, work in kinds.items():
                    await asyncio.sleep(PAUSE_S)
                    await orders.taken()
                    began = monotonic()
                    await work()
                    took[kind] = (ended := monotonic()) - began
                    await asyncio.sleep(PAUSE_S)
                    acks[kind] += [spent for due, spent in await orders.taken() if began <= due <= ended]
    digest = hash_of(count, options.seed, LEVELS)
    for name, kind, q in (
        ("scale.snapshot_ack_p50", "fabric", 0.5),
        ("scale.snapshot_ack_p99", "fabric", 0.99),
        ("scale.snapshot_ack_p99_engine", "engine", 0.99),
        ("scale.snapshot_ack_p99_busy", "busy", 0.99),
    ):
        report.results.append(result(
            name, "s", _at(acks[kind], q), _at(acks["quiet"], q), command=COMMAND, digest=digest,
            against="the same while nobody asks for anything",
        ))  # fmt: skip


def _at(values: Sequence[float], q: float) -> list[float]:
    """Of all rounds together: in one of them a p99 would be the slowest of a few."""
    return [show.percentile(sorted(values), q)]


async def _fill(running: Venue, count: int, seed: int) -> None:
    chance = random.Random(seed)
    async with grpc.aio.insecure_channel(running.engine) as channel:
        stream = await SessionStream.open(channel, ACCOUNT)
        for first in range(1, count + 1, BATCH):
            batch = resting(first, min(BATCH, count + 1 - first), chance)
            await stream.send(write_batch(batch))
            while stream.answered < first - 1:  # one batch ahead
                await stream.receive()
        while stream.answered < count:
            await stream.receive()
        stream.close()
    await running.mirrored(running.fabric)


async def _busy(seconds: float) -> None:
    """Have a process that nobody waits for take a core for so long."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            await asyncio.sleep(seconds)
        finally:
            process.kill()


async def _snapshot(target: str) -> None:
    """Ask for all of the book, and let it go by: what reading it costs is its reader's."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        make: Any = marketdata_pb2_grpc.MarketDataStub
        request = marketdata_pb2.SnapshotRequest(engine=INSTRUMENT.engine, channel=INSTRUMENT.channel)
        chunks = 0
        async for _ in make(channel).GetSnapshot(request, timeout=CALL_S):
            chunks += 1
        assert chunks

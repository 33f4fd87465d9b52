"""Fabric nodes with real sockets, over a tiny engine: a publisher, its books, and a line that loses frames."""

import asyncio
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest

from bus.access.directory import Directory, Entry
from bus.access.exchange import DirectoryLoop
from bus.access.exchange import ask as listed
from bus.node import FabricNode
from bus.publisher import Publisher
from bus.service import SNAPSHOTS_PER_PEER, Look, MarketData, NotServed, StreamLook
from bus.stream.actions import Standing, State
from bus.stream.levels import by_order
from bus.stream.mirror import Mirror
from bus.stream.sequencer import RangeResult, RangeStatus
from proto import feed, marketdata_pb2, marketdata_pb2_grpc
from proto.feed import ADD, DEFINITION, DELETE, END, EXECUTE, MODIFY, SELL, Digest, Row
from proto.instrument import Instrument
from proto.snapshot import Chunk, Snapshot, decode_snapshot, join_chunks
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = patience(10.0)
SYMBOLS = {1: "ALFA", 2: "BETA", 3: "GAMA"}


class LossyPublisher(Publisher):
    """Loses frames with probability `loss`; the ring has them."""

    loss = 0.0
    rng = random.Random(5)
    lost = 0

    def _send(self, target: Any, frames: list[bytes], now_ns: int) -> None:
        kept = [frame for frame in frames if self.rng.random() >= self.loss]
        self.lost += len(frames) - len(kept)
        super()._send(target, kept, now_ns)


class TinyEngine:
    """As much of an engine as a fabric node can see: books that change, published, with ranges and snapshots."""

    def __init__(self, epoch: int = 1, truth: Mirror | None = None) -> None:
        self.turn = 0
        self.rng = random.Random(epoch)
        self.epoch = epoch
        self.truth = truth or Mirror()
        self.truth.last_seq = 0
        for book in self.truth.books.values():
            book.sequence = 0
        self.publisher = LossyPublisher(
            1, {1: list(SYMBOLS)}, 77, epoch, fresh=truth is None, digest=self.digest, quote=self.quote
        )
        self.next_order = epoch * 1_000_000
        self.next_trade = epoch * 1_000_000
        self.serves_snapshots = True
        self.serves_ranges = True
        self.market_data = MarketData(self)
        if truth is None:
            for instrument, symbol in SYMBOLS.items():
                self.publish([(DEFINITION | END, instrument, 0, 0, 0, 0)],
                             [feed.Definition(symbol, "0.01", "1", 1, 1_000_000)])  # fmt: skip

    @asynccontextmanager
    async def serving(self, join: Sequence[str] = ()) -> "AsyncIterator[TinyEngine]":
        server = grpc.aio.server()
        self.market_data.add_to(server)
        directory = DirectoryLoop(Directory(), join)
        directory.add_to(server)
        self.grpc = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self.publisher.start()
        self.known = tuple(self.instruments())
        directory.announce(
            Entry("engine-1", 1, False, 77, self.epoch, time.time_ns(), self.grpc, self.publisher.endpoint, self.known)
        )
        directory.start()
        try:
            yield self
        finally:
            await directory.stop()
            await self.publisher.stop()
            await server.stop(0)

    def digest(self, instrument: int) -> Digest:
        self.turn += 1
        return self.truth.digests(instrument)[self.turn % 2]

    def quote(self, instrument: int) -> feed.Quote:
        book = self.truth.books[instrument]
        bid, ask = [next(iter(book.levels(side, 1)), (0, 0, 0)) for side in (0, 1)]
        return feed.Quote(time.time_ns(), instrument, book.sequence, 2, *bid, *ask, 0, 0, 0)

    def publish(self, rows: list[Row], extras: list[feed.Extra] | None = None) -> None:
        self.truth.apply(rows, extras or [])
        self.publisher.publish(1, time.time_ns(), [value for row in rows for value in row], extras or [])

    def trade(self, events: int) -> None:
        rng = self.rng
        for _ in range(events):
            instrument = rng.choice(list(SYMBOLS))
            book = self.truth.books[instrument]
            orders = [(side, *order) for side in (0, 1) for order in book.orders(side)]
            row: Row
            if len(orders) < 20 or rng.random() < 0.5:
                side = rng.randrange(2)
                price = rng.randrange(95, 100) + 5 * side
                row = (ADD | END | side * SELL, instrument, self.next_order, price, rng.randrange(1, 100), 0)
                self.next_order += 1
            else:
                side, order_id, price, quantity = rng.choice(orders)
                kind = rng.choice((DELETE, EXECUTE, MODIFY)) | END | side * SELL
                if kind & 15 == DELETE:
                    row = (kind, instrument, order_id, 0, 0, 0)
                elif kind & 15 == EXECUTE:
                    self.next_trade += 1
                    row = (kind, instrument, order_id, price, rng.randrange(1, quantity + 1), self.next_trade)
                else:
                    row = (kind, instrument, order_id, 0, rng.randrange(1, 100), 0)
            self.publish([row])

    # The Source of its MarketData

    def position(self, engine: int, channel: int) -> tuple[int, int, int] | None:
        if not self.serves_snapshots:
            raise NotServed("not today")
        return (77, self.epoch, self.truth.last_seq) if (engine, channel) == (1, 1) else None

    def snapshot(self, engine: int, channel: int, instruments: Sequence[int]) -> Snapshot:
        return self.truth.snapshot(1, 1, 77, self.epoch, time.time_ns(), instruments)

    def find(self, engine: int, channel: int, epoch: int, first_seq: int, last_seq: int) -> RangeResult | None:
        if not self.serves_ranges:
            return RangeResult(RangeStatus.OUT_OF_RANGE, self.epoch, 0, 0, [])
        return self.publisher.find(channel, epoch, first_seq, last_seq)

    def look(self, symbol: str, depth: int, by_order: bool) -> Look | None:
        return None

    def instruments(self) -> Sequence[Instrument]:
        return [Instrument(i, symbol, 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000) for i, symbol in SYMBOLS.items()]

    def streams(self) -> Sequence[StreamLook]:
        return []


@asynccontextmanager
async def node_of(*join: str, name: str = "fabric-1") -> AsyncIterator[FabricNode]:
    node = FabricNode(name, engine=1, seed=5)
    await node.serve(join=join)
    try:
        yield node
    finally:
        await node.stop()


async def until(what: Callable[[], bool], why: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, why or "nothing came of it in time"
        await asyncio.sleep(0.005)


def in_step(node: FabricNode, engine: TinyEngine) -> bool:
    """Live at the engine's sequence, every book valid and the same in full queue order."""
    client = node.subscriber.clients.get((1, 1))
    return (
        client is not None
        and client.state is State.LIVE
        and client.position == (engine.epoch, engine.truth.last_seq)
        and all(client.standing(instrument) is Standing.VALID for instrument in SYMBOLS)
        and contents(client.mirror) == contents(engine.truth)
    )


def contents(mirror: Mirror) -> list[object]:
    return [
        (instrument, book.definition, book.sequence, book.last_trade_id, [list(book.orders(side)) for side in (0, 1)])
        for instrument, book in sorted(mirror.books.items())
    ]


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(patience(30)):
            await body()

    asyncio.run(bounded())


def test_a_node_that_comes_late_has_the_books_in_full_queue_order() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(500)
        async with engine.serving(), node_of(engine.grpc) as node:
            await until(lambda: in_step(node, engine))
            engine.trade(500)
            await until(lambda: in_step(node, engine))
            counters = node.subscriber.clients[1, 1].counters
            assert (counters.joins, counters.gaps, counters.covered, counters.received) == (1, 0, 503, 500)

    run(body)


def test_lost_frames_are_fetched_by_range_and_counted() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), node_of(engine.grpc) as node:
            await until(lambda: in_step(node, engine))
            engine.publisher.loss = 0.3
            for _ in range(30):
                engine.trade(10)
                await asyncio.sleep(0.002)
            engine.publisher.loss = 0.0
            await until(lambda: in_step(node, engine))
            client = node.subscriber.clients[1, 1]
            counters = client.counters
            assert engine.publisher.lost > 0
            assert counters.gaps_ranged > 0
            assert counters.gaps == counters.gaps_ranged
            assert {gap.source for gap in client.ledger.closed} == {engine.grpc}
            assert counters.received + counters.repaired + counters.covered == client.next_seq - 1 == 303

    run(body)


def test_what_the_engine_no_longer_holds_is_repaired_by_snapshot() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), node_of(engine.grpc) as node:
            await until(lambda: in_step(node, engine))
            engine.serves_ranges = False
            engine.publisher.loss = 1.0
            engine.trade(50)
            engine.publisher.loss = 0.0
            await until(lambda: in_step(node, engine))
            client = node.subscriber.clients[1, 1]
            counters = client.counters
            assert (counters.gaps, counters.gaps_snapshotted, counters.resnapshots) == (1, 1, 1)
            assert [gap.source for gap in client.ledger.closed] == [engine.grpc]

    run(body)


@pytest.mark.parametrize(
    "reply",
    [
        marketdata_pb2.RangeReply(status=9, epoch=1),  # type: ignore[arg-type]
        marketdata_pb2.RangeReply(status=marketdata_pb2.RANGE_UNKNOWN_STREAM),
        marketdata_pb2.RangeReply(status=marketdata_pb2.RANGE_OK, epoch=1, frames=[b"", b"no frame", bytes(70_000)]),
        marketdata_pb2.RangeReply(status=marketdata_pb2.RANGE_WRONG_EPOCH, epoch=2**64 - 1),
    ],
)
def test_whatever_a_range_is_answered_with_the_books_come_right(reply: marketdata_pb2.RangeReply) -> None:
    async def body() -> None:
        engine = TinyEngine()

        async def answer(request: object, context: object) -> marketdata_pb2.RangeReply:
            return reply

        engine.market_data.GetRange = answer  # type: ignore[method-assign]
        async with engine.serving(), node_of(engine.grpc) as node:
            await until(lambda: in_step(node, engine))
            engine.publisher.loss = 1.0
            engine.trade(50)
            engine.publisher.loss = 0.0
            await until(lambda: in_step(node, engine))
            assert node.subscriber.clients[1, 1].counters.gaps_snapshotted == 1

    run(body)


def test_a_book_that_went_wrong_is_found_by_its_digest_and_mended_alone() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), node_of(engine.grpc) as node:
            engine.trade(200)
            await until(lambda: in_step(node, engine))
            client = node.subscriber.clients[1, 1]
            order_id, _, quantity = next(client.mirror.books[2].orders(0))
            wrong: list[Row] = [(MODIFY | END, 2, order_id, 0, quantity ^ 64, 0)]
            client.mirror.apply(wrong)
            client.mirror.books[2].sequence -= 1
            client.mirror.last_seq -= 1
            await until(lambda: client.counters.instrument_repairs == 1)
            assert in_step(node, engine)
            assert (client.counters.resnapshots, client.counters.digests_differing) == (0, 1)

    run(body)


def test_an_engine_that_comes_back_elsewhere_is_found_by_its_id() -> None:
    async def body() -> None:
        first = TinyEngine()
        async with node_of() as node:
            async with first.serving([node.grpc]):
                first.trade(100)
                await until(lambda: in_step(node, first))
            await until(lambda: node.subscriber.clients[1, 1].state is State.ENDED)
            assert node.source.look("ALFA", 0, False).standing is Standing.STALE  # type: ignore[union-attr]
            second = TinyEngine(epoch=9, truth=first.truth)
            async with second.serving([node.grpc]):
                await until(lambda: in_step(node, second))
                second.trade(100)
                await until(lambda: in_step(node, second))

    run(body)


def test_snapshots_come_from_another_node_when_the_engine_gives_none() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(100)
        async with engine.serving(), node_of(engine.grpc) as first:
            await until(lambda: in_step(first, engine))
            engine.serves_snapshots = False
            async with node_of(engine.grpc, name="fabric-2") as second:
                engine.trade(100)
                await until(lambda: in_step(second, engine))
                assert first.market_data.served == 1

    run(body)


def test_however_many_ask_one_encoding_serves_all() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(2_000)
        async with engine.serving(), grpc.aio.insecure_channel(engine.grpc) as channel:
            stub: Any = marketdata_pb2_grpc.MarketDataStub
            asked = marketdata_pb2.SnapshotRequest(engine=1, channel=1)

            async def snapshot() -> Snapshot:
                chunks = [chunk async for chunk in stub(channel).GetSnapshot(asked)]
                return decode_snapshot(join_chunks([Chunk(c.index, c.count, c.crc32, c.body) for c in chunks]))

            answers = await asyncio.gather(*(snapshot() for _ in range(SNAPSHOTS_PER_PEER)))
            assert [answer.last_seq for answer in answers] == [2_003] * SNAPSHOTS_PER_PEER
            assert engine.market_data.snapshots == 1
            engine.trade(1)
            assert (await snapshot()).last_seq == 2_004
            assert engine.market_data.snapshots == 2

    run(body)


def test_a_node_answers_for_every_symbol_it_has_heard_of() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(300)
        stub: Any = marketdata_pb2_grpc.MarketDataStub
        async with engine.serving(), node_of(engine.grpc) as node, grpc.aio.insecure_channel(node.grpc) as channel:
            await until(lambda: in_step(node, engine))
            listed = await stub(channel).GetInstruments(marketdata_pb2.InstrumentsRequest())
            assert [(i.id, i.symbol, i.engine, i.channel, i.tick_size, i.lot_size) for i in listed.instruments] == [
                (instrument, symbol, 1, 1, "0.01", "1") for instrument, symbol in SYMBOLS.items()
            ]
            [stream] = (await stub(channel).GetStreams(marketdata_pb2.StreamsRequest())).streams
            assert (stream.engine, stream.channel, stream.epoch, stream.state) == (1, 1, 1, "live")
            seen = [stream.counters[name] for name in ("received", "repaired", "covered")]
            assert stream.next_seq == 304 == sum(seen) + 1
            book = await stub(channel).GetBook(marketdata_pb2.BookRequest(symbol="BETA", depth=2))
            truth = engine.truth.books[2]
            assert (book.symbol, book.instrument, book.state) == ("BETA", 2, marketdata_pb2.BOOK_VALID)
            assert (book.last_price, book.last_quantity, book.last_trade_id) == (
                truth.last_price, truth.last_quantity, truth.last_trade_id,
            )  # fmt: skip
            assert 0 <= book.age_ns < 3_000_000_000
            for side, levels in ((0, book.bids), (1, book.asks)):
                assert [(level.price, level.quantity, level.count) for level in levels] == truth.levels(side, 2)
                assert not any(level.orders for level in levels)

    run(body)


def test_a_symbol_of_an_engine_that_is_not_mirrored_is_known_and_its_book_is_not() -> None:
    async def body() -> None:
        engine = TinyEngine()
        node = FabricNode("fabric-2", engine=2, only=[2])
        async with engine.serving():
            await node.serve(join=[engine.grpc])
            await until(lambda: node.directory.instrument("ALFA") is not None)
            look = node.source.look("ALFA", 0, False)
            assert look is not None
            assert (look.instrument.id, look.standing, look.bids) == (1, Standing.UNKNOWN, [])
            assert node.source.streams() == []
            await node.stop()

    run(body)


class Aborted(Exception):
    pass


class Peer:
    """A caller's context."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code.name, details)


def test_one_peer_may_have_so_many_snapshots_under_way_and_no_more() -> None:
    async def body() -> None:
        engine = TinyEngine()
        asked = marketdata_pb2.SnapshotRequest(engine=1, channel=1)
        calls = [engine.market_data.GetSnapshot(asked, Peer()) for _ in range(SNAPSHOTS_PER_PEER + 1)]
        for call in calls[:-1]:
            await anext(call)
        with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
            await anext(calls[-1])
        await calls[0].aclose()  # type: ignore[attr-defined]
        await anext(engine.market_data.GetSnapshot(asked, Peer()))
        engine.publisher.close()

    run(body)


# As a process


@contextmanager
def process_of(*args: str) -> "Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]":
    process = subprocess.Popen(
        [sys.executable, "-m", "bus", *args], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], PATIENCE_S)[0], "no ready line"
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def started(*args: str) -> "AsyncIterator[tuple[subprocess.Popen[str], dict[str, Any]]]":
    process = process_of(*args)
    try:
        yield await asyncio.to_thread(process.__enter__)
    finally:
        process.__exit__(None, None, None)


async def book_at(target: str, symbol: str) -> marketdata_pb2.Book | grpc.aio.AioRpcError:
    stub: Any = marketdata_pb2_grpc.MarketDataStub
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            book: marketdata_pb2.Book = await stub(channel).GetBook(
                marketdata_pb2.BookRequest(symbol=symbol, by_order=True), timeout=patience(5)
            )
            return book
        except grpc.aio.AioRpcError as e:
            return e


async def until_served(target: str, engine: TinyEngine) -> None:
    """The process gives all three books as valid, at the engine's sequence, and they are the engine's."""
    deadline = time.monotonic() + PATIENCE_S
    for instrument, symbol in SYMBOLS.items():
        truth = engine.truth.books[instrument]
        while True:
            book = await book_at(target, symbol)
            if isinstance(book, grpc.aio.AioRpcError):
                assert book.code() is grpc.StatusCode.NOT_FOUND, book
            elif book.state == marketdata_pb2.BOOK_VALID and book.sequence == engine.truth.last_seq:
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert (book.epoch, book.instrument_sequence) == (engine.epoch, truth.sequence)
        for side, levels in ((0, book.bids), (1, book.asks)):
            assert [
                (level.price, level.quantity, level.count, [(o.order_id, o.quantity) for o in level.orders])
                for level in levels
            ] == by_order(truth.queues(side))


@pytest.mark.processes
def test_a_node_killed_and_started_again_is_in_step_again_and_a_clean_stop_is_clean() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(200)
        async with engine.serving():
            args = ("--engine", "1", "--join", engine.grpc)
            async with started(*args) as (first, ready):
                assert ready == {"ready": True, "name": "fabric-1", "grpc": ready["grpc"], "pid": first.pid}
                await until_served(ready["grpc"], engine)
                engine.trade(200)
                await until_served(ready["grpc"], engine)
                words = [sys.executable, "-m", "bus", *args]
                twin = await asyncio.to_thread(subprocess.run, words, cwd=ROOT, capture_output=True, text=True)
                why = f"the name fabric-1 is taken by another machine that runs at {ready['grpc']}"
                assert (twin.returncode, twin.stdout) == (3, "")
                assert twin.stderr == f"bus: fabric-1 cannot start: {why}\n"
                assert [entry.grpc for entry in await listed(engine.grpc) if entry.fabric] == [ready["grpc"]]
                first.send_signal(signal.SIGKILL)
                await asyncio.to_thread(first.wait)
                engine.trade(200)
                async with started(*args) as (second, ready):
                    assert [entry.grpc for entry in await listed(engine.grpc) if entry.fabric] == [ready["grpc"]]
                    await until_served(ready["grpc"], engine)
                    refused = await book_at(ready["grpc"], "NONE")
                    assert isinstance(refused, grpc.aio.AioRpcError)
                    assert refused.code() is grpc.StatusCode.NOT_FOUND
                    assert refused.details() == "no instrument 'NONE' is known here"
                    second.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(second.wait) == 0
                    assert second.stderr is not None
                    assert second.stderr.read() == ""

    run(body)


@pytest.mark.parametrize("args", [[], ["--name", "a b"], ["--engine", "0"], ["--engine", "1", "--join", "nowhere"]])
@pytest.mark.processes
def test_wrong_usage_is_told_and_exits_2(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "bus", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr


BROKEN = """
import asyncio, bus.node
from bus.process import main
serve = bus.node.FabricNode.serve
def fail():
    raise AssertionError("on purpose")
async def serve_and_fail(self, *args):
    asyncio.get_running_loop().call_soon(fail)
    return await serve(self, *args)
bus.node.FabricNode.serve = serve_and_fail
raise SystemExit(main(["--engine", "1"]))
"""


@pytest.mark.processes
def test_a_node_that_finds_a_fault_of_its_own_stops() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert "on purpose" in done.stderr


@pytest.mark.processes
def test_a_port_that_is_taken_exits_3() -> None:
    with process_of("--engine", "1") as (_, ready):
        done = subprocess.run(
            [sys.executable, "-m", "bus", "--engine", "2", "--grpc", ready["grpc"]],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env={**os.environ},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (3, "")
        assert "cannot start" in done.stderr

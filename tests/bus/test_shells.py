"""Publisher, recovery and service, each alone: what a working node would only show by being slow or lucky."""

import asyncio
import random
from collections.abc import Sequence

import pytest
import zmq

import bus.access.subscriber
import bus.publisher
from bus.access.asking import Recovery
from bus.access.directory import Directory, Entry
from bus.access.subscriber import Subscriber
from bus.node import FabricNode, MirrorSource
from bus.publisher import Publisher
from bus.service import MarketData, NotServed
from bus.stream.actions import AskRange, AskSnapshot, ClientLimits, State
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto import feed, marketdata_pb2
from proto.feed import ADD, END, END_OF_STREAM
from proto.snapshot import Snapshot
from tests.bus.stream.test_feed_client import beat, books_at, data, flip, in_repair, live_at
from tests.bus.test_node import Peer, TinyEngine, in_step, node_of, run, until

PATIENCE_MS = 5_000
ROW = [ADD | END, 1, 5, 100, 7, 0]


def reader_of(publisher: Publisher, context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(publisher.endpoint)
    socket.subscribe(b"D001")
    return socket


def test_a_new_reader_hears_where_the_stream_stands_at_once() -> None:
    now = [10**18]
    publisher = Publisher(1, {1: [1]}, 77, 5, fresh=False, clock_ns=lambda: now[0])
    publisher.tick(now[0])  # time stands still from here on: no heartbeat is due any more
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = reader_of(publisher, context)
    for _ in range(PATIENCE_MS // 10):
        publisher.tick(now[0])
        if socket.poll(10):
            break
    header = feed.decode(socket.recv(zmq.NOBLOCK)).header
    assert (header.count, header.first_seq, header.epoch) == (0, 1, 5)
    socket.close()
    context.term()
    publisher.close()


def test_heartbeats_come_when_idle_and_at_least_every_second_with_the_next_sequence() -> None:
    start = now = 10**18
    publisher = Publisher(1, {1: [1]}, 77, 5, fresh=False, clock_ns=lambda: now)
    beats: list[tuple[int, int]] = []
    heartbeat = publisher.heartbeat

    def noted(channel: int, now_ns: int) -> None:
        beats.append(((now_ns - start) // 1_000_000, publisher.next_seq(channel)))
        heartbeat(channel, now_ns)

    publisher.heartbeat = noted  # type: ignore[method-assign]
    publisher.tick(now)
    for ms in range(10, 3_000, 10):
        now = start + ms * 1_000_000
        if ms < 2_000:
            publisher.publish(1, now, ROW)
        publisher.tick(now)
    assert beats == [(0, 1), (1_000, 101), (2_000, 200), (2_250, 200), (2_500, 200), (2_750, 200)]
    publisher.close()


def test_what_is_published_with_more_to_come_leaves_within_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.publisher, "TICK_S", 100.0)

    async def body() -> None:
        publisher = Publisher(1, {1: [1]}, 77, 5, fresh=False)
        publisher.start()
        for n in range(1, 4):
            publisher.publish(1, n, ROW, idle=False)
            assert publisher.frames == n  # a heartbeat came first
            await until(lambda n=n: publisher.frames == n + 1)  # type: ignore[misc]
        await publisher.stop()

    run(body)


def test_the_end_of_the_stream_arrives() -> None:
    async def body() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        for _ in range(10):
            publisher = Publisher(1, {1: [1]}, 77, 5, fresh=False)
            publisher.start()
            socket = reader_of(publisher, context)
            await until(lambda socket=socket: socket.poll(0) != 0)  # type: ignore[misc]
            for n in range(100):
                publisher.publish(1, n, ROW)
            await publisher.stop()
            flags = 0
            while not flags & END_OF_STREAM:
                assert socket.poll(PATIENCE_MS), "the end of the stream was lost"
                flags = feed.decode_header(socket.recv()).flags
            socket.close()
        context.term()

    run(body)


def test_sockets_are_set_as_the_design_says() -> None:
    # What each is for shows only on bad days: a slow reader, a dead peer, a stop while frames are on their way.
    alive = {zmq.HEARTBEAT_IVL: 1_000, zmq.HEARTBEAT_TIMEOUT: 3_000, zmq.HEARTBEAT_TTL: 3_000}

    async def body() -> None:
        publisher = Publisher(1, {1: [1]}, 77, 5, fresh=False)
        expected = {zmq.SNDHWM: 8_192, zmq.LINGER: 2_000, zmq.MAXMSGSIZE: 1_024} | alive
        assert {option: publisher._socket.getsockopt(option) for option in expected} == expected
        subscriber = Subscriber(lambda engine, asked: [], random.Random(5))
        subscriber.follow(1, publisher.endpoint)
        [socket] = subscriber._lines[1].sockets
        expected = {zmq.RCVHWM: 8_192, zmq.SNDHWM: 0, zmq.LINGER: 0, zmq.MAXMSGSIZE: feed.FRAME_MAX} | alive
        assert {option: socket.getsockopt(option) for option in expected} == expected
        await subscriber.stop()
        await publisher.stop()

    run(body)


def test_a_burst_is_read_to_its_end_though_the_descriptor_tells_of_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.access.subscriber, "DRAIN_MAX", 4)

    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), node_of(engine.grpc) as node:
            await until(lambda: in_step(node, engine))
            engine.trade(2_000)
            await until(lambda: in_step(node, engine))

    run(body)


# Recovery


class Scripted(Recovery):
    """Every target fails, or hangs."""

    def __init__(self, targets: Sequence[str], hang: bool) -> None:
        super().__init__(lambda engine, asked: targets, lambda client, actions: self.done.append(client))
        self.done: list[FeedClient] = []
        self.tried: list[str] = []
        self.cancelled = 0
        self._hang = hang

    async def _snapshot(self, target: str, client: FeedClient, asked: AskSnapshot, left_s: float) -> Snapshot:
        self.tried.append(target)
        if self._hang:
            try:
                await asyncio.sleep(left_s)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        raise feed.FeedError("not today")


def asking() -> FeedClient:
    client = FeedClient(1, 1, random.Random(5), limits=ClientLimits(jitter_ns=0))
    client.start(0)
    client.frame(beat(11), 0)
    return client


def test_each_attempt_begins_with_the_next_source_and_tries_all() -> None:
    async def body() -> None:
        recovery = Scripted(["a", "b", "c"], hang=False)
        for attempt in range(4):
            recovery.ask(asking(), AskSnapshot(1, 0, attempt, False, 10**9))
        await until(lambda: len(recovery.done) == 4)
        assert recovery.tried == [*"abc", *"bca", *"cab", *"abc"]
        await recovery.stop()

    run(body)


def test_a_stream_has_one_call_at_a_time_and_none_that_is_withdrawn() -> None:
    async def body() -> None:
        recovery = Scripted(["a"], hang=True)
        client = asking()
        for ask in (1, 2):
            recovery.ask(client, AskSnapshot(ask, 0, 0, False, 10**12))
            await until(lambda ask=ask: len(recovery.tried) == ask)  # type: ignore[misc]
        assert recovery.cancelled == 1
        recovery.withdraw(client)
        await until(lambda: recovery.cancelled == 2)
        assert recovery.done == []
        await recovery.stop()

    run(body)


def test_an_ask_that_is_withdrawn_ends_its_call() -> None:
    async def body() -> None:
        subscriber = Subscriber(lambda engine, asked: ["a"], random.Random(5), limits=ClientLimits(jitter_ns=0))
        recovery = subscriber.recovery = Scripted(["a"], hang=True)
        client = FeedClient(1, 1, random.Random(5), limits=ClientLimits(jitter_ns=0))
        subscriber._act(client, client.start(0))
        subscriber._act(client, client.frame(beat(11), 0))
        await until(lambda: recovery.tried == ["a"])
        subscriber._act(client, client.stop(0))
        await until(lambda: recovery.cancelled == 1)
        await subscriber.stop()

    run(body)


def test_a_node_asks_the_engine_for_ranges_and_the_other_nodes_first_for_snapshots() -> None:
    async def body() -> None:
        node = FabricNode("fabric-1", engine=1)
        node.directory.merge(
            [
                Entry("engine-1", 1, False, 77, 5, 1, "h:1", "tcp://h:2"),
                Entry("fabric-1", 1, True, 0, 0, 1, "h:3"),
                Entry("fabric-2", 2, True, 0, 0, 1, "h:4"),
                Entry("fabric-3", 3, True, 0, 0, 1, "h:5"),
            ]
        )
        assert node._sources(1, AskRange(1, 5, 1, 2, 0, 10**9)) == ["h:1"]
        sources = node._sources(1, AskSnapshot(1, 0, 0, False, 10**9))
        assert (sorted(sources[:2]), sources[2:]) == (["h:4", "h:5"], ["h:1"])
        assert node._sources(1, AskSnapshot(1, 0, 0, True, 10**9)) == ["h:1"]
        assert node._sources(9, AskRange(1, 5, 1, 2, 0, 10**9)) == ["h:4", "h:5"]
        await node.subscriber.stop()

    run(body)


# What is served


def test_only_a_stream_in_step_is_served_and_no_book_in_doubt() -> None:
    client = live_at(10)
    source = MirrorSource({(1, 1): client}, Directory())
    assert source.position(1, 1) == (77, 5, 10)
    assert source.position(1, 2) is None
    flip(client, 4)
    client.frame(beat(11, sent=11_001, digests=books_at(10).digests(1)), 0)
    assert client.doubted == [1]
    with pytest.raises(NotServed):
        source.snapshot(1, 1, [])
    with pytest.raises(NotServed):
        source.snapshot(1, 1, [1])
    assert [book.instrument for book in source.snapshot(1, 1, [2]).books] == [2]
    behind = in_repair()
    assert behind.state is State.REPAIR
    with pytest.raises(NotServed, match="repair"):
        MirrorSource({(1, 1): behind}, Directory()).position(1, 1)


def test_who_asks_while_another_ones_snapshot_is_encoded_does_not_get_one_of_before() -> None:
    async def body() -> None:
        engine = TinyEngine()
        asked = marketdata_pb2.SnapshotRequest(engine=1, channel=1)

        async def last_seq() -> int:
            chunks = [chunk async for chunk in engine.market_data.GetSnapshot(asked, Peer())]
            return chunks[0].last_seq

        first = asyncio.create_task(last_seq())
        await asyncio.sleep(0)  # it has begun
        engine.trade(1)
        later = [asyncio.create_task(last_seq()) for _ in range(10)]
        assert await first == 3
        assert await asyncio.gather(*later) == [4] * 10
        assert engine.market_data.snapshots == 2
        engine.publisher.close()

    run(body)


def test_a_stream_that_is_not_known_is_not_found() -> None:
    async def body() -> None:
        engine = TinyEngine()
        with pytest.raises(Exception, match="NOT_FOUND"):
            await anext(engine.market_data.GetSnapshot(marketdata_pb2.SnapshotRequest(engine=9, channel=1), Peer()))
        engine.publisher.close()

    run(body)


def test_streams_say_what_became_of_each_gap() -> None:
    async def body() -> None:
        client = in_repair()
        service = MarketData(MirrorSource({(1, 1): client}, Directory()))
        reply = await service.GetStreams(marketdata_pb2.StreamsRequest(), Peer())
        [stream] = reply.streams
        [gap] = stream.gaps
        assert (gap.epoch, gap.first, gap.last, gap.cause, gap.how, gap.missing) == (5, 12, 13, "frame", "open", 2)
        client.failed(client.asking.last, "unavailable", 0)
        client.range_reply(client.asking.last, RangeStatus.OK, 5, [data(12, 2)], 7_000)
        client.ledger.closed[0].source = "127.0.0.1:4001"
        reply = await service.GetStreams(marketdata_pb2.StreamsRequest(), Peer())
        [gap] = reply.streams[0].gaps
        assert (gap.how, gap.took_ns, gap.ranged, gap.missing) == ("range", 7_000, 2, 0)
        assert gap.source == "127.0.0.1:4001"
        assert reply.streams[0].counters["missed"] == reply.streams[0].counters["missed_ranged"] == 2

    run(body)

"""What an engine publishes: a mirror that follows it has the engine's own books, and its digests."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from bus.service import MarketData
from bus.stream.actions import AskSnapshot, ClientLimits, Standing, State
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import Mirror
from bus.stream.sequencer import RangeStatus
from engine.core.commands import AddInstrument, BustTrade, Delist, OperatorCommand, Roll, SetState
from engine.core.venue import Venue
from engine.publish.cut import BookCopy
from engine.publish.source import EngineFeed
from proto import feed, marketdata_pb2
from proto.columns import BUY, CANCEL, NEW, REPLACE, SELL, Batch, Outcome
from proto.feed import END, MODIFY, Definition, Status
from proto.snapshot import Snapshot, decode_snapshot
from tests.engines import cluster_of

EPOCH = 5


class Bench:
    """A venue and its feed, without a process around them."""

    def __init__(self) -> None:
        self.instruments = cluster_of(1).instruments
        self.venue = Venue(1, self.instruments)
        self.feed = EngineFeed(
            self.venue,
            self.instruments,
            incarnation=9,
            epoch=EPOCH,
            fresh=True,
            endpoint="tcp://127.0.0.1:0",
            clock_ns=time.time_ns,
        )
        self.feed.open(1_000)
        self.position = EPOCH

    def trade(self, rng: random.Random, count: int) -> None:
        """Random commands of two accounts, in one record each."""
        for _ in range(count):
            self.position += 1
            account = rng.choice((7, 8))
            live = [order.client_order_id for order in self.venue.open_orders(account)]
            target = rng.choice(live) if live else 0
            op = rng.choice((NEW, NEW, NEW, CANCEL, REPLACE)) if target else NEW
            order = self.venue.order(account, target)
            instrument = rng.choice((10, 11)) if order is None or op == NEW else order.instrument
            batch = Batch(
                account, 0, 1, [op], [self.position], [instrument], [rng.choice((0, 1))], [rng.randint(95, 105)],
                [rng.randint(1, 20)], [target],
            )  # fmt: skip
            outcome = self.venue.apply(self.position, 1_000 + self.position, [batch])
            self.feed.publish(1_000 + self.position, outcome.deltas, idle=rng.random() < 0.5)

    def enter(self, side: int, price: int, quantity: int) -> None:
        """One order of one account on E1A, which may trade with itself."""
        self.position += 1
        batch = Batch(7, 0, 1, [NEW], [self.position], [10], [side], [price], [quantity], [0])
        self._publish(self.venue.apply(self.position, 1_000 + self.position, [batch]))

    def operate(self, command: OperatorCommand) -> None:
        self.position += 1
        outcome = self.venue.operate(self.position, 1_000 + self.position, command)
        assert not outcome.refused
        self._publish(outcome)

    def _publish(self, outcome: Outcome) -> None:
        self.feed.publish(1_000 + self.position, outcome.deltas, idle=True)

    def frames(self, first_seq: int) -> list[feed.Frame]:
        """All frames from a sequence on, as a reader would ask for them."""
        self.feed.publisher.heartbeat(1, time.time_ns())
        last = self.feed.publisher.next_seq(1) - 1
        found: list[feed.Frame] = []
        while first_seq <= last:
            answer = self.feed.find(1, 1, EPOCH, first_seq, last)
            assert answer is not None
            assert answer.status is RangeStatus.OK
            frames = [feed.decode(frame) for frame in answer.frames]
            found += frames
            first_seq = frames[-1].header.first_seq + frames[-1].header.count
        return found

    def snapshot(self, instruments: Sequence[int] = ()) -> Snapshot:
        """As a reader gets it."""
        return decode_snapshot(asyncio.run(self.feed.snapshot(1, 1, instruments)).encode())

    def agrees_with(self, mirror: Mirror) -> None:
        """Book for book, order for order, digest for digest."""
        for book in self.snapshot().books:
            mine = mirror.books[book.instrument]
            assert mine.snapshot() == book
            for _ in range(4):
                digest = self.feed._digest(book.instrument)
                assert mine.digest(digest.side, digest.low, digest.high) == digest


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.feed.publisher.end()
    bench.feed.publisher.close()


def test_the_first_event_of_an_epoch_says_what_is_traded(bench: Bench) -> None:
    (frame,) = bench.frames(1)
    assert (frame.header.first_seq, frame.header.count, frame.header.flags & feed.FRESH) == (1, 4, feed.FRESH)
    assert [row[0] for row in frame.rows] == [feed.DEFINITION, feed.STATUS, feed.DEFINITION, feed.STATUS | feed.END]
    assert frame.extras == [
        Definition("E1A", "0.01", "1", 1, 100_000), Status(feed.OPEN, 0),
        Definition("E1B", "0.01", "1", 1, 100_000), Status(feed.OPEN, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_mirror_of_the_feed_has_the_engines_books_and_digests(bench: Bench, seed: int) -> None:
    bench.trade(random.Random(seed), 400)
    mirror = Mirror()
    for frame in bench.frames(1):
        mirror.apply(frame.rows, frame.extras)
    assert mirror.next_seq == bench.feed.publisher.next_seq(1)
    bench.agrees_with(mirror)
    bench.venue.check()


@pytest.mark.parametrize("seed", range(2))
def test_a_snapshot_continues_with_the_frames_after_it(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    bench.trade(rng, 200)
    snapshot = bench.snapshot()
    assert (snapshot.engine, snapshot.channel) == (1, 1)
    assert bench.feed.position(1, 1) == (9, EPOCH, snapshot.last_seq)
    mirror = Mirror()
    mirror.load(snapshot)
    bench.trade(rng, 200)
    for frame in bench.frames(snapshot.last_seq + 1):
        rows = frame.rows[max(0, mirror.next_seq - frame.header.first_seq) :]
        mirror.apply(rows, frame.extras)
    bench.agrees_with(mirror)


def test_a_look_at_a_book_agrees_with_its_snapshot(bench: Bench) -> None:
    bench.trade(random.Random(3), 300)
    (book,) = bench.snapshot([10]).books
    look = bench.feed.look("E1A", 0, True)
    assert look is not None
    assert (look.standing, look.book.instrument_seq, look.book.last_trade_id) == (
        Standing.VALID, book.instrument_seq, book.last_trade_id,
    )  # fmt: skip
    for levels, orders in ((look.bids, book.bids), (look.asks, book.asks)):
        listed = [(id, price, quantity) for price, _, _, queue in levels for id, quantity in queue]
        assert listed == orders
        assert [(level[1], level[2]) for level in levels] == [
            (sum(quantity for _, quantity in queue), len(queue)) for _, _, _, queue in levels
        ]
    best = bench.feed.look("E1A", 1, False)
    assert best is not None
    assert best.bids == [(*look.bids[0][:3], [])]


@pytest.mark.parametrize("seed", range(4))
def test_a_reader_who_adds_up_the_trades_knows_the_session_and_one_who_joins_the_indication(
    bench: Bench, seed: int
) -> None:
    rng = random.Random(seed)
    mirror, indicated = Mirror(), 0
    for state in (feed.AUCTION, feed.OPEN, feed.CLOSED, feed.PRE_OPEN):
        bench.trade(rng, 60)
        bench.operate(SetState(10, state))
        bench.trade(rng, 30)
        for frame in bench.frames(mirror.next_seq):
            mirror.apply(frame.rows[max(0, mirror.next_seq - frame.header.first_seq) :], frame.extras)
        bench.agrees_with(mirror)
        joined = Mirror()
        joined.load(bench.snapshot())
        market = bench.venue.markets[10]
        for book in (mirror.books[10], joined.books[10]):
            assert (book.statistics, book.indication or (0, 0, 0)) == (market.book.session.told(), market.indication)
        indicated += market.indication.volume
        if state == feed.CLOSED:
            bench.operate(BustTrade(10, 1))
            bench.operate(Roll(10))
    assert market.book.session.trades == 0
    assert indicated


def test_a_book_over_grpc_has_its_session_its_state_and_its_indication(bench: Bench) -> None:
    asked = marketdata_pb2.BookRequest(symbol="E1A")

    def book() -> marketdata_pb2.Book:
        return asyncio.run(MarketData(bench.feed).GetBook(asked, None))

    assert book().statistics == marketdata_pb2.Statistics()
    for side, price, quantity in ((0, 100, 7), (1, 99, 3), (1, 100, 2), (0, 99, 4), (1, 98, 4)):
        bench.enter(side, price, quantity)
    assert book().statistics == marketdata_pb2.Statistics(
        open=100, high=100, low=99, last=99, volume=9, turnover=898, trades=4, vwap="0.9978"
    )
    assert (book().trading_state, book().HasField("indication")) == ("open", False)
    bench.operate(SetState(10, feed.AUCTION))
    bench.enter(0, 101, 9)
    bench.enter(1, 100, 5)
    assert book().indication == marketdata_pb2.Indication(price=100, volume=5, imbalance=4)
    listed = asyncio.run(MarketData(bench.feed).GetInstruments(marketdata_pb2.InstrumentsRequest(), None)).instruments
    assert [(i.symbol, i.trading_state, i.statistics.trades) for i in listed] == [
        ("E1A", "auction", 4),
        ("E1B", "open", 0),
    ]
    assert (listed[0].allocation, listed[0].first_state) == ("fifo", "open")


def test_others_streams_and_symbols_are_not_answered_for(bench: Bench) -> None:
    assert bench.feed.position(2, 1) is None
    assert bench.feed.position(1, 2) is None
    assert bench.feed.find(2, 1, EPOCH, 1, 1) is None
    assert bench.feed.look("NOPE", 0, False) is None
    assert [i.symbol for i in bench.feed.instruments()] == ["E1A", "E1B"]
    assert [(s.engine, s.channel, s.epoch, s.next_seq) for s in bench.feed.streams()] == [(1, 1, EPOCH, 5)]


def test_all_who_ask_while_a_snapshot_is_taken_share_it_and_trading_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Peer:
        def peer(self) -> str:
            return "ipv4:127.0.0.1:1"

    async def body() -> Mirror:
        rng = random.Random(4)
        bench.trade(rng, 300)
        monkeypatch.setattr(BookCopy.copy, "__defaults__", (10,))  # orders in a slice
        served = MarketData(bench.feed)
        asked = marketdata_pb2.SnapshotRequest(engine=1, channel=1)

        async def snapshot() -> Snapshot:
            bodies = [chunk.body async for chunk in served.GetSnapshot(asked, Peer())]
            return decode_snapshot(b"".join(bodies))

        before = bench.feed.position(1, 1)
        first = asyncio.create_task(snapshot())
        await asyncio.sleep(0)
        later = []
        for _ in range(3):
            bench.trade(rng, 5)
            await asyncio.sleep(0)
            later.append(asyncio.create_task(snapshot()))
        while not first.done():  # also after the last slice, while it is encoded
            bench.trade(rng, 1)
            await asyncio.sleep(0)
        found = await first
        assert await asyncio.gather(*later) == [found] * 3
        assert served.snapshots == 1
        assert before is not None
        assert found.last_seq > before[2]
        bench.trade(rng, 50)
        mirror = Mirror()
        mirror.load(found)
        for frame in bench.frames(found.last_seq + 1):
            skip = max(0, found.last_seq + 1 - frame.header.first_seq)
            mirror.apply(frame.rows[skip:], frame.extras)
        return mirror

    bench.agrees_with(asyncio.run(body()))


def test_an_added_instrument_is_in_digests_and_snapshots_and_a_delisted_one_has_no_definition(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror()
    mirror.load(bench.snapshot())
    new = replace(bench.instruments[0], id=99, symbol="NOVA")

    copied = bench.feed._copied

    async def added_meanwhile(channel: int, instruments: Sequence[int]) -> tuple[BookCopy, list[int]]:
        found = await copied(channel, instruments)
        if 99 not in bench.venue.markets:
            bench.operate(AddInstrument.of(new))
            bench.feed.learn(new)
        return found

    monkeypatch.setattr(bench.feed, "_copied", added_meanwhile)
    assert [book.instrument for book in bench.snapshot().books] == [10, 11, 99]
    channel = bench.feed.publisher._channels[1]
    assert set(channel.next_digests()) == {10, 11, 99}
    bench.agrees_with(follow(bench, mirror))
    assert bench.feed.look("NOVA", 0, False) is not None
    bench.operate(Delist(99))
    bench.feed.forget(new)
    bench.agrees_with(follow(bench, mirror))
    assert mirror.books[99].definition is None
    assert bench.feed.look("NOVA", 0, False) is None
    assert [i.symbol for i in bench.feed.instruments()] == ["E1A", "E1B"]


def test_quotes_say_the_trading_state_and_go_round_what_was_added(bench: Bench) -> None:
    quotes, now_ns = bench.feed.publisher._channels[1].quotes, time.time_ns()

    def told() -> dict[int, int]:
        nonlocal now_ns
        now_ns += 60_000_000
        taken = quotes.take(now_ns, bench.feed.publisher.next_seq(1), bench.feed._quote)
        said = [feed.decode(frame).quote for frame in taken]
        return {quote.instrument: quote.state for quote in said if quote is not None}

    quotes.subscribed(feed.topic(feed.KIND_Q, 1, 1))
    assert told() == {10: feed.OPEN, 11: feed.OPEN}
    bench.operate(SetState(10, feed.HALTED))
    assert told() == {10: feed.HALTED}
    new = replace(bench.instruments[0], id=99, symbol="NOVA", state="pre-open")
    bench.operate(AddInstrument.of(new))
    bench.feed.learn(new)
    assert told() == {99: feed.PRE_OPEN}


def test_a_channel_without_an_instrument_is_a_stream_all_the_same() -> None:
    venue = Venue(1, cluster_of(1).instruments)
    empty = EngineFeed(
        venue, cluster_of(1).instruments, incarnation=9, epoch=EPOCH, fresh=False, endpoint="tcp://127.0.0.1:0",
        clock_ns=time.time_ns, channels=3,
    )  # fmt: skip
    try:
        empty.open(1_000)
        assert [look.channel for look in empty.streams()] == [1, 2, 3]
        assert empty.position(1, 3) == (9, EPOCH, 0)
        assert decode_snapshot(asyncio.run(empty.snapshot(1, 3, ())).encode()).books == []
        empty.publisher.heartbeat(3, time.time_ns())
    finally:
        empty.publisher.end()
        empty.publisher.close()


def follow(bench: Bench, mirror: Mirror) -> Mirror:
    """The mirror, with what was published since."""
    for frame in bench.frames(mirror.next_seq):
        mirror.apply(frame.rows[max(0, mirror.next_seq - frame.header.first_seq) :], frame.extras)
    return mirror


def enter(bench: Bench, instrument: int, side: int, prices: Sequence[int]) -> None:
    """Orders that rest, in one record."""
    bench.position += 1
    count = len(prices)
    ids = [bench.position * 10_000 + nth for nth in range(count)]
    batch = Batch(
        7, 0, 1, [NEW] * count, ids, [instrument] * count, [side] * count, list(prices), [1_000] * count, [0] * count
    )
    outcome = bench.venue.apply(bench.position, 1_000 + bench.position, [batch])
    bench.feed.publish(1_000 + bench.position, outcome.deltas, idle=True)


def follower(bench: Bench, sent: list[bytes]) -> FeedClient:
    """A reader in step, that takes its snapshots from the engine."""
    client = FeedClient(1, 1, random.Random(5), limits=ClientLimits(jitter_ns=0))
    client.start(0)
    hear(bench, client, sent)
    assert client.state is State.LIVE
    return client


def hear(bench: Bench, client: FeedClient, sent: list[bytes]) -> None:
    """A heartbeat, and all that it leads to."""
    bench.feed.publisher.heartbeat(1, time.time_ns())
    for frame in sent:
        for action in [*client.frame(frame, 0), *client.tick(0)]:
            if isinstance(action, AskSnapshot):
                client.snapshot_reply(action.ask, bench.snapshot([action.instrument] if action.instrument else []), 0)
    sent.clear()


@pytest.mark.parametrize(("bids", "asks"), [(5, 5), (1_024, 1), (2_500, 1_200)])
def test_a_flipped_bit_is_found_within_the_heartbeats_that_the_feeds_page_gives_and_mended_alone(
    bench: Bench, bids: int, asks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(bench.feed.publisher, "_hand_out", sent.extend)
    for instrument, count in ((10, 1), (11, 5)):
        enter(bench, instrument, BUY, [100 + nth % 400 for nth in range(-(-bids // count))])
        enter(bench, instrument, SELL, [600 + nth % 300 for nth in range(-(-asks // count))])
    names, digests = 2, 4
    bound = -(-names * (max(1, -(-bids // 1024)) + max(1, -(-asks // 1024))) // digests) + 1
    client = follower(bench, sent)
    rng = random.Random(bids)
    for _ in range(25):
        instrument, side = rng.choice((10, 11)), rng.choice((BUY, SELL))
        book = client.mirror.books[instrument]
        order_id, _, quantity = rng.choice(list(book.orders(side)))
        flipped = quantity ^ (1 << rng.randrange(9))
        client.mirror.apply([(MODIFY | END | side * feed.SELL, instrument, order_id, 0, flipped, 0)])
        book.sequence -= 1
        client.mirror.last_seq -= 1
        beats, found = 0, client.counters.digests_differing
        while client.counters.digests_differing == found:
            beats += 1
            assert beats <= bound, (instrument, side, order_id)
            hear(bench, client, sent)
        assert client.doubted == []
        bench.agrees_with(client.mirror)
    assert (client.counters.instrument_repairs, client.counters.resnapshots) == (25, 0)

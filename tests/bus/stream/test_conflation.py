"""The conflated quotes, both ends: what is said and when, without sockets; then over one, with 2,000 subscriptions."""

import asyncio
import random
import resource
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import zmq

from bus.access.sockets import HIGH_WATER
from bus.access.subscriber import Subscriber
from bus.publisher import Publisher
from bus.stream.actions import Action, Applied, AskRange, AskSnapshot, ClientLimits, Standing, State, StateChanged
from bus.stream.conflation import AGAIN, BEAT_NS, PERIOD_NS, SILENCE_NS, TAKEN_MAX, Quoted, QuoteReader, Quotes
from bus.stream.delay import WINDOW_NS
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import FrameRing
from proto import feed
from proto.columns import BUY, NEW, Batch
from proto.feed import ADD, END, END_OF_STREAM, Quote
from tests.bus.stream.test_feed_client import standings
from tests.bus.test_node import PATIENCE_S, run, until
from tests.engine.publish.test_source import Bench
from tests.patience import patience

START = 10**18
MS = 1_000_000


class Market:
    """Books of one number each, the best bid."""

    def __init__(self, instruments: int = 3) -> None:
        self.bids = dict.fromkeys(range(1, instruments + 1), 100)
        self.quotes = Quotes(1, 1, 77, 5, list(self.bids))
        self.next_seq = 2
        self.now = START

    def quote(self, name: int) -> Quote:
        return Quote(self.now, name, self.next_seq - 1, 2, self.bids[name], 5, 1, 0, 0, 0, 0, 0, 0)

    def change(self, name: int, bid: int) -> None:
        self.bids[name] = bid
        self.next_seq += 1
        self.quotes.touch([name])

    def take(self, later_ms: int) -> list[bytes]:
        self.now += later_ms * MS
        return self.quotes.take(self.now, self.next_seq, self.quote)

    def told(self, later_ms: int) -> list[tuple[int, int]]:
        """Instrument and bid of each quote; (0, next sequence) for a heartbeat."""
        frames = [feed.decode(frame) for frame in self.take(later_ms)]
        return [
            (frame.quote.instrument, frame.quote.bid_price) if frame.quote else (0, frame.header.first_seq)
            for frame in frames
        ]


def read(market: Market, topic: bytes = b"Q001011.") -> Market:
    market.quotes.subscribed(topic)
    return market


def test_until_somebody_subscribes_nothing_is_said() -> None:
    market = Market()
    market.quotes.subscribed(b"Q002")
    market.quotes.subscribed(b"Q001021.")
    market.change(1, 101)
    assert (market.told(0), market.told(1_000), market.quotes.wanted) == ([], [], False)


def test_who_subscribes_is_told_how_things_stand() -> None:
    market = read(Market())
    assert market.told(0) == [(1, 100), (2, 100), (3, 100), (0, 2)]
    for topic in (b"", b"Q", b"Q001011.00000"):
        assert read(Market(), topic).told(0) == [(1, 100), (2, 100), (3, 100), (0, 2)]
    later = Market(AGAIN + 2)
    read(later, b"Q001011.0000000010")
    assert later.told(0)[0] == (10, 100)  # and then those whose turn it is


def test_a_quote_is_sent_when_it_changes_and_at_most_every_50_ms() -> None:
    market = read(Market())
    market.told(0)
    market.change(2, 101)
    assert market.told(10) == []
    market.change(2, 102)
    market.change(3, 99)
    assert market.told(40) == [(2, 102), (3, 99)]
    market.change(2, 103)
    market.change(2, 102)  # there and back: nothing to say
    assert market.told(50) == []
    sent = [START]
    for n in range(1_000):
        market.change(1, n)
        if any(name == 1 for name, _ in market.told(7)):
            sent.append(market.now)
    assert min(after - before for before, after in pairwise(sent[1:])) >= PERIOD_NS
    assert len(sent) > 100


def test_the_present_quotes_come_round_again_so_that_a_lost_one_does_no_lasting_harm() -> None:
    market = read(Market(20))
    market.told(0)
    heard: list[int] = []
    for _ in range(3):  # of 20 quotes, 8 with a heartbeat
        told = market.told(BEAT_NS // MS)
        assert told[-1] == (0, 2)
        heard += [name for name, _ in told[:-1]]
    assert sorted(set(heard)) == list(range(1, 21))


def test_the_work_at_a_time_is_bounded_and_everybody_has_a_turn() -> None:
    market = read(Market(1_000))
    told = [name for _ in range(4) for name, _ in market.told(1) if name]
    assert told == list(range(1, 1_001))
    assert len(told) > TAKEN_MAX


def test_the_end_says_what_has_changed_last() -> None:
    market = read(Market())
    market.told(0)
    market.change(3, 90)
    frames = [feed.decode(frame) for frame in market.quotes.end(market.now, market.next_seq, market.quote)]
    assert [frame.quote.instrument for frame in frames if frame.quote] == [3]
    assert frames[-1].header.flags & END_OF_STREAM


def test_a_quote_is_of_the_engines_book_after_all_that_was_published() -> None:
    bench = Bench()
    bench.trade(random.Random(5), 200)
    publisher = bench.feed.publisher
    for name in (10, 11):
        book = bench.venue.books[name]
        quote = bench.feed._quote(name)
        assert quote[2:4] == (publisher.instrument_seq(1, name), feed.OPEN)
        assert [quote[4:7], quote[7:10]] == [[*book.levels(side, 1), (0, 0, 0)][0] for side in (0, 1)]
        assert quote[10:] == (book.last_price, book.last_quantity, book.next_trade_id - 1)
        assert feed.decode(feed.encode_quote(1, 1, 9, 5, 1, 1, quote)).quote == quote
    empty = Bench()
    assert empty.feed._quote(10)[4:] == (0,) * 9
    empty.venue.apply(6, 1_001, [Batch(7, 0, 1, [NEW], [1], [10], [BUY], [99], [3], [0])])
    assert empty.feed._quote(10)[4:] == (99, 3, 1, 0, 0, 0, 0, 0, 0)
    bench.feed.publisher.close()
    empty.feed.publisher.close()


# The reader


def quote_frame(name: int, bid: int, sent: int, *, epoch: int = 5, incarnation: int = 77) -> bytes:
    quote = Quote(sent, name, 3, 2, bid, 5, 1, 0, 0, 0, 0, 0, 0)
    return feed.encode_quote(1, 1, incarnation, epoch, 9, sent, quote)


def beat(sent: int, *, flags: int = 0, epoch: int = 5) -> bytes:
    return feed.encode_quote_heartbeat(1, 1, flags, 77, epoch, 10, sent)


def reader() -> QuoteReader:
    found = QuoteReader(1, 1)
    found.start(0)
    return found


def bids(found: QuoteReader) -> dict[int, int]:
    return {name: quoted.quote.bid_price for name, quoted in found.quotes.items()}


def test_a_reader_of_quotes_has_the_last_one_of_each_instrument() -> None:
    found = reader()
    changed, quoted = found.frame(quote_frame(1, 100, 5), 0)
    assert changed == StateChanged(State.JOINING, State.LIVE, "heard")
    assert isinstance(quoted, Quoted)
    assert (quoted.epoch, quoted.sequence, quoted.quote.bid_price) == (5, 9, 100)
    found.frame(quote_frame(2, 200, 4), 0)
    assert found.frame(quote_frame(1, 99, 5), 0) == []  # again, or late
    found.frame(quote_frame(1, 98, 6), 0)
    assert (bids(found), found.old_frames) == ({1: 98, 2: 200}, 1)


def test_silence_makes_quotes_stale_and_a_heartbeat_proves_life() -> None:
    found = reader()
    found.frame(beat(1), 0)
    assert found.tick(SILENCE_NS - 1) == []
    assert [change.after for change in found.tick(SILENCE_NS)] == [State.STALE]
    assert (found.tick(SILENCE_NS), found.deadline_ns) == ([], None)
    found.frame(beat(2), SILENCE_NS)
    assert (found.state, found.deadline_ns) == (State.LIVE, 2 * SILENCE_NS)
    found.frame(beat(3, flags=END_OF_STREAM), SILENCE_NS)
    assert found.state is State.ENDED


def test_quotes_that_come_too_late_are_stale_until_they_come_in_time_again() -> None:
    found = QuoteReader(1, 1, lag_ns=100)
    found.start(0)
    found.frame(beat(10), 1_010)  # clocks differ by 1,000
    found.frame(quote_frame(1, 100, 20), 1_120)
    assert (found.state, found.age_ns(1_125)) == (State.LIVE, 105)
    (changed,) = found.frame(quote_frame(1, 99, 30), 1_131)
    assert changed == StateChanged(State.LIVE, State.STALE, "0 ms behind")
    assert (found.frame(quote_frame(2, 50, 31), 1_150), found.late_ns) == ([], 119)
    changed, quoted = found.frame(quote_frame(1, 98, 200), 1_202)
    assert changed == StateChanged(State.STALE, State.LIVE, "heard")
    assert isinstance(quoted, Quoted)
    assert (bids(found), found.late_ns) == ({1: 98, 2: 50}, 2)


def test_the_least_delay_of_quotes_is_that_of_the_last_minutes_and_anew_with_each_epoch() -> None:
    found = QuoteReader(1, 1, lag_ns=100)
    found.start(0)
    found.frame(beat(10), 10)
    drifted = 90  # some clock is slow; never so much at once that it would be late
    for window in (1, 2, 3):
        found.frame(beat(window * WINDOW_NS), window * (WINDOW_NS + drifted))
        found.frame(beat(window * WINDOW_NS + 1), window * (WINDOW_NS + drifted) + 1)
        assert (found.state, found.late_ns) == (State.LIVE, drifted)
    found.frame(beat(1, epoch=6), 4 * WINDOW_NS)
    assert (found.state, found.late_ns) == (State.LIVE, 0)


def test_a_higher_epoch_begins_anew_and_a_lower_one_is_dropped() -> None:
    found = reader()
    found.frame(quote_frame(1, 100, 50), 0)
    found.frame(quote_frame(2, 100, 1, epoch=6), 0)
    assert bids(found) == {2: 100}
    found.frame(quote_frame(1, 100, 99), 0)
    assert (bids(found), found.old_frames) == ({2: 100}, 1)


def test_another_incarnation_is_believed_when_the_first_is_silent() -> None:
    found = reader()
    found.frame(quote_frame(1, 100, 50), 0)
    other = quote_frame(1, 90, 51, epoch=1, incarnation=78)
    assert (found.frame(other, 0), found.foreign) == ([], 1)
    found.tick(SILENCE_NS)
    found.frame(other, SILENCE_NS)
    assert (bids(found), found.epoch) == ({1: 90}, 1)


def test_hostile_bytes_are_counted_and_nothing_else() -> None:
    found = reader()
    rng = random.Random(5)
    good = quote_frame(1, 100, 5)
    for _ in range(300):
        hostile = bytearray(good)
        hostile[rng.randrange(len(hostile))] ^= 1 << rng.randrange(8)
        assert found.frame(bytes(hostile), 0) == []
    assert (found.frame(b"Q", 0), found.frame(feed.encode_heartbeat(1, 1, 0, 77, 5, 1, 1), 0)) == ([], [])
    assert (found.bad_frames, found.quotes) == (302, {})


# Over sockets


class QuotingPublisher(Publisher):
    """Of 2,500 instruments, whose best bid is the count of their deltas."""

    def __init__(self, instruments: int) -> None:
        names = list(range(1, instruments + 1))
        super().__init__(1, {1: names}, 77, 5, fresh=True, quote=self.count)
        self.counts = dict.fromkeys(names, 0)

    def count(self, name: int) -> Quote:
        return Quote(time.time_ns(), name, self.counts[name], 2, self.counts[name], 1, 1, 0, 0, 0, 0, 0, 0)

    def add(self, name: int) -> None:
        self.counts[name] += 1
        self.publish(1, time.time_ns(), [ADD | END, name, name * 10_000 + self.counts[name], 100, 7, 0])


def test_two_thousand_subscriptions_by_instrument_all_take_effect() -> None:
    async def body() -> None:
        publisher = QuotingPublisher(2_500)
        publisher.start()
        publisher.add(1)
        subscriber = Subscriber(lambda engine, asked: [], random.Random(5))
        wanted = list(range(1, 2_001))
        subscriber.follow_quotes(1, 1, wanted)
        subscriber.follow(1, publisher.endpoint, channels=0)
        quotes = subscriber.quotes[1, 1].quotes
        await until(lambda: sorted(quotes) == wanted)
        for name in publisher.counts:
            publisher.add(name)
        await until(lambda: all(quotes[name].quote.bid_price == publisher.counts[name] for name in wanted))
        assert sorted(quotes) == wanted  # and no others
        await publisher.stop()
        await until(lambda: subscriber.quotes[1, 1].state is State.ENDED)
        await subscriber.stop()

    run(body)


def test_a_reader_that_lags_goes_over_to_the_quotes_and_comes_back_when_told() -> None:
    async def body() -> None:
        publisher = QuotingPublisher(3)
        publisher.start()
        behind = [0]
        subscriber = Subscriber(
            lambda engine, asked: [],
            random.Random(5),
            limits=ClientLimits(lag_ns=10**9, conflate=True),
            clock_ns=lambda: time.monotonic_ns() + behind[0],
        )
        subscriber.follow(1, publisher.endpoint)
        client = subscriber.clients[1, 1]
        await until(lambda: client.state is State.LIVE)  # by a fresh heartbeat
        publisher.add(1)
        await until(lambda: client.position == (5, 1))
        behind[0] = 2 * 10**9  # what comes from here on was sent two seconds ago
        publisher.add(2)
        await until(lambda: client.state is State.LAGGED)
        assert standings(client)[:1] == ["STALE"]
        await until(lambda: (1, 1) in subscriber.quotes and sorted(subscriber.quotes[1, 1].quotes) == [1, 2, 3])
        passed_over = client.counters.passed_over
        publisher.add(1)
        await until(lambda: subscriber.quotes[1, 1].quotes[1].quote.bid_price == 2)
        assert client.counters.passed_over == passed_over  # the stream itself is not subscribed to any more
        subscriber.come_back(1, 1)
        await until(lambda: client.state is State.SNAPSHOT)
        assert subscriber.quotes == {}
        await subscriber.stop()
        await publisher.stop()

    run(body)


def test_a_reader_that_lags_drops_what_waits_and_begins_again_in_the_present() -> None:
    async def body() -> None:
        publisher = QuotingPublisher(3)
        publisher.start()
        behind = [0]
        subscriber = Subscriber(
            lambda engine, asked: [],
            random.Random(5),
            limits=ClientLimits(lag_ns=10**9),
            clock_ns=lambda: time.monotonic_ns() + behind[0],
        )
        subscriber.follow(1, publisher.endpoint)
        client = subscriber.clients[1, 1]
        await until(lambda: client.state is State.LIVE)  # by a fresh heartbeat
        publisher.add(1)
        await until(lambda: client.position == (5, 1))
        behind[0] = 2 * 10**9
        for _ in range(50):
            publisher.add(2)
        await until(lambda: client.counters.lags == 1 and client.state is State.SNAPSHOT)
        await subscriber.stop()
        await publisher.stop()

    run(body)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_reader_that_never_reads_costs_the_publisher_neither_time_nor_memory_without_bound() -> None:
    frames, deltas = 60_000, 40
    with ExitStack() as closing:
        publisher = QuotingPublisher(3)
        closing.callback(publisher.close)
        closing.callback(publisher._socket.setsockopt, zmq.LINGER, 0)
        publisher._channels[1].sequencer.ring = FrameRing(100)  # of those for repair enough has been said elsewhere
        socket = closing.enter_context(closing.enter_context(zmq.Context()).socket(zmq.SUB))
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 100)
        socket.connect(publisher.endpoint)
        socket.subscribe(b"")
        deadline = time.monotonic() + PATIENCE_S
        while not socket.poll(10):  # a heartbeat, once it has been heard of
            publisher.tick(time.time_ns())
            assert time.monotonic() < deadline
        before, slowest = resident_bytes(), 0.0
        for n in range(frames):
            rows = [value for at in range(deltas) for value in (ADD | END, 1, n * deltas + at + 1, 100 + at, 7, 0)]
            began = time.perf_counter()
            publisher.publish(1, time.time_ns(), rows)
            slowest = max(slowest, time.perf_counter() - began)
        grown = resident_bytes() - before
        assert publisher.bytes > 10_000_000
        # A message of ZeroMQ takes some 100 bytes beside its content; 4 MB are for all else a process may need.
        waiting = HIGH_WATER + 100
        assert grown < waiting * (publisher.bytes // publisher.frames + 100) + 4_000_000 < publisher.bytes
        assert slowest < patience(0.5)  # it never waits for a reader; what it is held up by is this machine
        read = 0
        while socket.poll(100):
            socket.recv()
            read += 1
        assert 100 < read < frames  # the rest was lost at the high-water mark, not kept


def test_two_endpoints_of_one_engine_are_two_lines() -> None:
    async def body() -> None:
        publisher = QuotingPublisher(3)
        publisher.start()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        relay_in, relay_out = context.socket(zmq.SUB), context.socket(zmq.PUB)
        relay_in.connect(publisher.endpoint)
        relay_in.subscribe(b"D")
        port = relay_out.bind_to_random_port("tcp://127.0.0.1")
        rng = random.Random(5)

        async def relay() -> None:
            while True:
                while relay_in.poll(0):
                    frame = relay_in.recv()
                    if rng.random() < 0.8:
                        relay_out.send(frame)
                await asyncio.sleep(0.001)

        relaying = asyncio.create_task(relay())
        asked: list[object] = []

        def sources(engine: int, ask: AskRange | AskSnapshot) -> list[str]:
            asked.append(ask)
            return []

        limits = ClientLimits(reorder_ns=200 * MS)  # so long may the loop be kept from reading the other line
        subscriber = Subscriber(sources, random.Random(5), limits=limits)
        try:
            subscriber.follow(1, [publisher.endpoint, f"tcp://127.0.0.1:{port}"])
            client = subscriber.clients[1, 1]
            lines = client.lines
            assert lines is not None
            # Heartbeats come over both; before that, a frame sent would never be doubled.
            await until(lambda: client.state is State.LIVE and lines.up(time.monotonic_ns(), 750 * MS) == 2)
            for n in range(300):
                publisher.add(n % 3 + 1)
                if n % 10 == 0:
                    await asyncio.sleep(0.001)
            await until(lambda: client.position == (5, 300) and client.counters.duplicates > 100)
            await until(lambda: lines.up(time.monotonic_ns(), 750 * MS) == 2)
            # A line may run ahead of the other over something it lost; the other brings that, and nobody is asked.
            assert client.ledger.open == []
            assert client.counters.gaps == client.counters.gaps_late
            assert (client.counters.received, client.counters.repaired, asked) == (300, 0, [])
        finally:
            await subscriber.stop()
            relaying.cancel()
            context.destroy(0)
            await publisher.stop()

    run(body)


class SlowReader:
    """A process's worth of reader, on a thread: each frame takes it 20 ms, where a fast one takes 0.1."""

    def __init__(self, endpoint: str) -> None:
        self.counters: dict[str, int] = {}
        self.standings: dict[Standing, None] = {}
        self._endpoint = endpoint
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()))
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    async def _read(self) -> None:
        def slowly(client: FeedClient, action: Action) -> None:
            if isinstance(action, Applied):
                time.sleep(0.02)
            self.counters = client.counters.as_dict()
            self.standings[client.standing(1)] = None

        subscriber = Subscriber(
            lambda engine, asked: [], random.Random(5), listen=slowly, limits=ClientLimits(lag_ns=300 * MS)
        )
        subscriber.follow(1, self._endpoint)
        while not self._done.is_set():
            await asyncio.sleep(0.01)
        await subscriber.stop()


def test_a_reader_a_hundred_times_too_slow_knows_it_and_harms_nobody() -> None:
    async def body() -> None:
        publisher = QuotingPublisher(3)
        publisher.start()
        slow = SlowReader(publisher.endpoint)
        fast = Subscriber(lambda engine, asked: [], random.Random(6))
        try:
            fast.follow(1, publisher.endpoint)
            client = fast.clients[1, 1]
            await until(lambda: client.state is State.LIVE and slow.counters != {})
            published = 0
            while not slow.counters["lags"] and published < 20_000:
                for _ in range(5):
                    publisher.add(published % 3 + 1)
                    published += 1
                await asyncio.sleep(0.002)
            await until(lambda: client.position == (5, published))
            slow.stop()
            assert slow.counters["lags"] >= 1
            assert Standing.STALE in slow.standings
            assert (client.counters.gaps, client.counters.lags, publisher.unsent) == (0, 0, 0)
        finally:
            slow.stop()
            await fast.stop()
            await publisher.stop()

    run(body)

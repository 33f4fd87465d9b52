"""The reader's SDK over a tiny engine: events in order, books with their states, with asyncio and without."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Self

import grpc
import pytest

import bus.reader.inbox
import bus.reader.reading
from bus.access.asking import HistoryError
from bus.access.directory import Directory, Entry
from bus.access.exchange import DirectoryLoop
from bus.access.subscriber import Subscriber
from bus.reader.events import (
    Book,
    BookEvent,
    BookState,
    Event,
    GapOpened,
    GapRepaired,
    MissingSpan,
    StreamState,
    Trade,
    Trouble,
)
from bus.reader.feed import Feed
from bus.reader.history import FeedUseError
from bus.reader.inbox import Inbox
from bus.reader.reading import Back
from bus.stream.mirror import Mirror
from proto.feed import ADD, CLEAR, END, EXECUTE, SELL, STATUS
from tests.bus.test_node import SYMBOLS, TinyEngine, run, until
from tests.patience import patience
from tests.published import opened

CENT = Decimal("0.01")


def add(
    engine: TinyEngine, order_id: int, price: int, quantity: int, *, sell: bool = False, instrument: int = 1
) -> None:
    engine.publish([(ADD | END | sell * SELL, instrument, order_id, price, quantity, 0)])


def matches(book: Book, truth: Mirror, instrument: int) -> bool:
    """The same orders in the same order, in the units of people."""
    sides = [
        [(name, price * CENT, Decimal(quantity)) for name, price, quantity in truth.books[instrument].orders(side)]
        for side in (0, 1)
    ]
    return sides == [book.orders(0), book.orders(1)] and book.instrument_sequence == truth.books[instrument].sequence


@asynccontextmanager
async def listening(feed: Feed, *symbols: str) -> AsyncIterator[list[Event]]:
    """Events, as they come, in a list."""
    heard: list[Event] = []

    async def listen() -> None:
        async for event in feed.events(symbols):
            heard.append(event)  # noqa: PERF401

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)  # it runs
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def feed_of(engine: TinyEngine, *symbols: str) -> AsyncIterator[tuple[Feed, list[Event]]]:
    feed = Feed([engine.grpc])
    async with listening(feed, *symbols) as heard:
        yield feed, heard


def test_a_book_event_is_told_whole_then_its_trades_and_the_book_stands_there() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), listening(Feed([engine.grpc]), "ALFA") as heard:
            await until(lambda: any(isinstance(event, BookState) for event in heard))
            add(engine, 1, 1_025, 10, sell=True)
            add(engine, 2, 999, 5, instrument=2)  # of another book: not told
            engine.publish(
                [(EXECUTE | SELL, 1, 1, 1_025, 4, 1), (ADD | END, 1, 3, 1_020, 7, 0)]  # one command
            )
            await until(lambda: any(isinstance(event, Trade) for event in heard))
            told = [event for event in heard if isinstance(event, BookEvent | Trade)][-3:]
            first, second, trade = told
            assert isinstance(first, BookEvent)
            assert isinstance(second, BookEvent)
            assert (first.symbol, first.sequence, second.sequence) == ("ALFA", 4, 7)
            assert [(d.op, d.side, d.order_id, d.price, d.quantity) for d in second.deltas] == [
                ("execute", "sell", 1, Decimal("10.25"), Decimal(4)),
                ("add", "buy", 3, Decimal("10.20"), Decimal(7)),
            ]
            assert isinstance(trade, Trade)
            assert (trade.price, trade.quantity, trade.aggressor) == (Decimal("10.25"), Decimal(4), "buy")
            assert (trade.time_ns, trade.sequence) == (second.time_ns, 7)

    run(body)


def test_a_feed_that_is_entered_has_books_with_state_age_and_sequence() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(300)
        async with engine.serving(), Feed([engine.grpc]) as feed:
            await until(lambda: feed.book("BETA").valid)
            book = feed.book("BETA")
            assert matches(book, engine.truth, 2)
            assert (book.epoch, book.sequence, book.trading_state) == (1, engine.truth.last_seq, "unknown")
            assert 0 <= book.age_s < 2
            assert feed.book("BETA", depth=1).bids == book.bids[:1]
            assert sum((quantity for _, quantity in book.bids[0].orders), Decimal(0)) == book.bids[0].quantity
            assert feed.book("NOPE").state == "unknown"
            assert feed.symbols() == sorted(SYMBOLS.values())
        with pytest.raises(FeedUseError, match="does not run"):
            feed.book("BETA")

    run(body)


def test_under_loss_every_sequence_is_told_or_said_to_be_missing_and_the_ledger_adds_up() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), feed_of(engine) as (feed, heard):
            await until(lambda: feed.book("ALFA").valid)
            engine.publisher.loss = 0.1
            for _ in range(60):
                engine.trade(10)
                await asyncio.sleep(0)
            engine.publisher.loss = 0.0
            await until(lambda: all(matches(feed.book(symbol), engine.truth, i) for i, symbol in SYMBOLS.items()))
            await until(lambda: all(feed.book(symbol).valid for symbol in SYMBOLS.values()))
            last = engine.truth.last_seq
            told = {event.sequence for event in heard if isinstance(event, BookEvent)}  # of one delta each
            told |= {seq for e in heard if isinstance(e, MissingSpan) for seq in range(e.first, e.last + 1)}
            assert told == set(range(1, last + 1))
            opened = [event for event in heard if isinstance(event, GapOpened)]
            repaired = [event for event in heard if isinstance(event, GapRepaired)]
            assert len(opened) == len(repaired) > 0
            lines = feed.ledger()
            assert [(line.first, line.last) for line in lines] == [(event.first, event.last) for event in repaired]
            for line in lines:
                parts = line.late + line.ranged + line.snapshotted + line.abandoned + line.missing
                assert (parts, line.missing) == (line.last - line.first + 1, 0)
                assert line.source == (engine.grpc if line.ranged + line.snapshotted else "")
            assert [line.source for line in lines] == [event.source for event in repaired]
            assert engine.grpc in {line.source for line in lines}
            counters = feed.counters()[1, 1]
            assert counters["missed"] == sum(line.last - line.first + 1 for line in lines)
            assert {event.state for event in heard if isinstance(event, BookState)} >= {"valid", "doubtful"}

    run(body)


def test_an_iteration_that_is_broken_off_leaves_no_socket_open_though_its_loop_ends_at_once() -> None:
    async def first(target: str) -> Subscriber:
        feed = Feed([target])
        async for event in feed.events():
            if isinstance(event, BookState) and feed._reading is not None:
                return feed._reading.subscriber
        raise AssertionError("no event came")

    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving():
            subscriber = await asyncio.to_thread(lambda: asyncio.run(first(engine.grpc)))
            assert subscriber._context.closed

    run(body)


def test_an_engine_that_comes_back_elsewhere_is_followed_and_its_books_are_marked_meanwhile() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(50)
        server = grpc.aio.server()  # another machine of the venue, which stays
        machine = DirectoryLoop(Directory())
        machine.add_to(server)
        where = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        machine.announce(Entry("fabric-9", 0, True, 0, 0, time.time_ns(), where))
        machine.start()
        feed = Feed([where])
        async with listening(feed, "ALFA") as heard:
            async with engine.serving([where]):
                await until(lambda: feed.book("ALFA").valid)
            await until(lambda: feed.book("ALFA").state == "stale")
            second = TinyEngine(epoch=2, truth=engine.truth)
            async with second.serving([where]):
                second.trade(20)
                await until(lambda: feed.book("ALFA").valid and feed.book("ALFA").epoch == 2)
                assert matches(feed.book("ALFA"), second.truth, 1)
            states = [event.state for event in heard if isinstance(event, BookState)]
            assert states[0] == "valid" or states[:2] == ["doubtful", "valid"]
            assert "stale" in states
            assert any(isinstance(event, StreamState) and event.state == "ended" for event in heard)
        await machine.stop()
        await server.stop(0)

    run(body)


def test_of_other_streams_than_those_of_the_wanted_books_nothing_is_told() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), feed_of(engine, "NOPE") as (feed, heard), Feed([engine.grpc]) as other:
            await until(lambda: feed.book("ALFA").valid and other.book("ALFA").valid)
            engine.trade(10)
            await until(lambda: matches(feed.book("ALFA"), engine.truth, 1))
            assert heard == []

    run(body)


def test_nobody_there_is_told_and_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.reader.reading, "ANSWER_S", 0.1)

    async def body() -> None:
        async with listening(Feed(["127.0.0.1:1"])) as heard:
            await until(lambda: len(heard) == 1)
            assert heard == [Trouble("nobody answers at 127.0.0.1:1; trying on")]

    run(body)


class Aside:
    """A tiny engine on a thread of its own, for programs without asyncio."""

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def trade(self, count: int) -> None:
        self.loop.call_soon_threadsafe(self.engine.trade, count)

    async def _serve(self) -> None:
        self.loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        self.engine = TinyEngine()
        async with self.engine.serving():
            self._ready.set()
            await self._done.wait()


def patiently(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience(10)
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_asyncio_the_same_feed_is_read_with_for() -> None:
    with Aside() as aside, Feed([aside.engine.grpc]) as feed:
        patiently(lambda: feed.book("ALFA").valid)
        aside.trade(100)
        sequences: list[int] = []
        for event in feed.events():
            if isinstance(event, BookState):
                assert event.state == "valid"
                aside.trade(1)
            if isinstance(event, BookEvent):
                sequences.append(event.sequence)
                aside.trade(1)
                if len(sequences) == 20:
                    break
        assert sequences == list(range(sequences[0], sequences[0] + 20))
        patiently(lambda: matches(feed.book("ALFA"), aside.engine.truth, 1))
        assert feed._inboxes == []


def test_without_asyncio_and_without_with_the_feed_lives_as_long_as_the_iteration() -> None:
    with Aside() as aside:
        feed = Feed([aside.engine.grpc])
        for event in feed.events(["GAMA"]):
            if isinstance(event, BookState) and event.state == "valid":
                assert feed.book("GAMA").valid
                break
        assert (feed._thread, feed._reading, feed._inboxes) == (None, None, [])
        assert [thread.name for thread in threading.enumerate() if thread.name == "feed"] == []


def test_the_wrong_way_to_iterate_or_to_ask_is_told_at_once() -> None:
    with pytest.raises(ValueError):
        Feed("127.0.0.1:1")
    with pytest.raises(ValueError):
        Feed([])
    with pytest.raises(ValueError):
        Feed(["127.0.0.1:1"]).events("ALFA")

    async def body() -> None:
        async with Feed(["127.0.0.1:1"]) as feed:
            with pytest.raises(FeedUseError, match="async for"):
                next(iter(feed.events()))
            with pytest.raises(FeedUseError, match="already"):
                await feed.__aenter__()

    run(body)


ASKED: dict[str, Callable[[Feed], object]] = {
    "book": lambda feed: feed.book("ALFA"),
    "symbols": lambda feed: feed.symbols(),
    "streams": lambda feed: feed.streams(),
    "counters": lambda feed: feed.counters(),
    "ledger": lambda feed: feed.ledger(),
    "history": lambda feed: feed.history("ALFA", first=1),
    "come_back": lambda feed: feed.come_back(),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_feed_that_does_not_run_says_so_before_it_is_entered_and_after_it_was_left(what: str) -> None:
    feed = Feed(["127.0.0.1:1"])
    for _ in range(2):
        with pytest.raises(FeedUseError, match="does not run"):
            ASKED[what](feed)
        with feed:
            ASKED[what](feed)


def test_a_feed_that_was_left_shows_its_books_when_it_is_entered_again_either_way() -> None:
    with Aside() as aside:
        feed = Feed([aside.engine.grpc])

        async def with_asyncio() -> None:
            async with feed:
                await until(lambda: feed.book("ALFA").valid)

        for _ in range(2):
            with feed:
                patiently(lambda: feed.book("ALFA").valid)
                with pytest.raises(FeedUseError, match="already"):
                    feed.__enter__()
                assert feed.symbols() == sorted(SYMBOLS.values())
            asyncio.run(with_asyncio())


def test_of_two_iterations_the_second_goes_on_when_the_first_ends_and_the_last_one_stops_the_feed() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving():
            feed = Feed([engine.grpc])
            first = aiter(feed.events())
            while not isinstance(await anext(first), BookState):
                pass
            async with listening(feed) as second:
                await first.aclose()  # type: ignore[attr-defined]
                engine.trade(5)
                await until(lambda: sum(isinstance(event, BookEvent) for event in second) == 5)
                assert feed.book("ALFA").valid
            with pytest.raises(FeedUseError):
                feed.book("ALFA")

    run(body)


def test_an_iteration_ends_when_the_feed_is_left_by_another_thread_or_task() -> None:
    with Aside() as aside:
        feed = Feed([aside.engine.grpc])
        with feed:
            leaving = threading.Thread(target=lambda: feed.__exit__(None, None, None))
            for event in feed.events():
                if isinstance(event, BookState) and leaving.ident is None:
                    leaving.start()
            leaving.join()

        async def body() -> None:
            await feed.__aenter__()
            async with listening(feed) as heard:
                await until(lambda: len(heard) > 0)
                await asyncio.create_task(feed.__aexit__())
            assert feed._inboxes == []

        asyncio.run(body())


def test_what_a_thread_is_asked_after_it_has_ended_is_refused_and_not_waited_for() -> None:
    with Feed(["127.0.0.1:1"]) as feed:
        thread = feed._thread
        assert thread is not None
        history = feed.history("ALFA", first=1)
    for ask in (lambda: thread.do(lambda: 1), lambda: next(iter(history))):
        with pytest.raises(FeedUseError, match="left"):
            ask()


def test_what_a_book_went_through_is_told_again_by_whole_events_out_of_what_is_kept() -> None:
    async def body() -> None:
        engine = TinyEngine()
        async with engine.serving(), feed_of(engine) as (feed, heard):
            await until(lambda: feed.book("ALFA").valid)
            add(engine, 1, 1_025, 10, sell=True)  # 4
            engine.publish([(EXECUTE | SELL, 1, 1, 1_025, 4, 1), (ADD, 2, 2, 99, 7, 0), (ADD | END, 1, 3, 1_020, 7, 0)])
            add(engine, 4, 1_026, 1, sell=True)  # 8
            await until(lambda: feed.streams()[0].sequence == 8)
            changes = [event for event in heard if isinstance(event, BookEvent | Trade)]

            async def told(first: int, last: int, *symbols: str) -> list[tuple[str, int]]:
                past = [event async for event in feed.history(*symbols, first=first, last=last)]
                if len(symbols) > 1:
                    assert {repr(event) for event in past if event.sequence > 3} <= set(map(repr, changes))
                return [(event.symbol, event.sequence) for event in past]

            both = ("ALFA", "BETA")
            heard_of = [(event.symbol, event.sequence) for event in changes if event.sequence > 3]
            assert await told(1, 8, *both) == [("ALFA", 1), ("BETA", 2), *heard_of]
            assert await told(4, 5, *both) == [("ALFA", 4), ("ALFA", 7), ("ALFA", 7), ("BETA", 6)]
            assert await told(5, 0, "BETA") == [("BETA", 6)]
            assert await told(8, 0, "ALFA") == [("ALFA", 8)]
            with pytest.raises(HistoryError, match="unimplemented"):
                await told(6, 7, "ALFA")  # within an event: its engine's log would know, and there is none

    run(body)


@pytest.mark.parametrize("wrong", ["nowhere", "127.0.0.1:65536", "127.0.0.1", "::1:5"])
def test_what_is_no_address_is_refused_at_once(wrong: str) -> None:
    for options in ({"machines": [wrong]}, {"machines": ["127.0.0.1:1"], "source": wrong}):
        with pytest.raises(ValueError, match=re.escape(repr(wrong))):
            Feed(**options)


def test_a_book_that_was_delisted_keeps_its_name_to_the_end() -> None:
    stream = opened()
    events = stream.events(
        stream.hear(stream.publish([CLEAR, 1, 0, 0, 0, 0, STATUS | END, 1, 0, 0, 0, 0], extras=[[5, 49]]))
    )
    assert [(event.symbol, len(event.deltas)) for event in events if isinstance(event, BookEvent)] == [("ALFA", 2)]


def test_who_iterates_too_slowly_is_told_what_was_left_out_and_costs_no_more_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus.reader.inbox, "EVENTS_MAX", 10)
    woken: list[int] = []
    inbox = Inbox(frozenset(), lambda: woken.append(1))

    def put(sequence: int) -> None:
        inbox.put(BookEvent("ALFA", 5, sequence, 0, ()), (1, 1, 5, sequence, sequence))

    for sequence in range(1, 100):
        put(sequence)
    assert (len(inbox.events), len(woken)) == (10, 1)
    for _ in range(6):
        inbox.events.popleft()
    put(100)  # there is room again
    told = [event.sequence if isinstance(event, BookEvent) else event for event in inbox.events]
    assert told == [7, 8, 9, 10, MissingSpan(1, 1, 5, 11, 99, "slow"), 100]
    for _ in range(500):
        inbox.put(BookState("ALFA", "stale", "valid"), None)
    assert len(inbox.events) <= 20
    inbox.events.clear()
    for sequence in range(101, 120):
        put(sequence)
    inbox.events.clear()
    assert inbox.confess()
    assert list(inbox.events) == [MissingSpan(1, 1, 5, 111, 119, "slow")]


def test_a_book_that_was_read_conflated_comes_back_by_itself_after_a_while() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(50)
        async with engine.serving(), Feed([engine.grpc], lag_s=0.5, conflate=True, back_s=0.1) as feed:
            await until(lambda: feed.book("ALFA").valid)
            assert feed._reading is not None
            late_ns = 2_000_000_000  # so much later than what came before is all that comes from here on
            feed._reading.subscriber._clock_ns = lambda: time.monotonic_ns() + late_ns
            engine.trade(1)
            await until(lambda: feed.counters()[1, 1]["lags"] == 1)
            engine.trade(50)
            await until(lambda: all(matches(feed.book(symbol), engine.truth, i) for i, symbol in SYMBOLS.items()))
            await until(lambda: all(feed.book(symbol).valid for symbol in SYMBOLS.values()))

    run(body)


def test_best_prices_that_come_too_late_are_not_shown_as_present_either() -> None:
    async def body() -> None:
        engine = TinyEngine()
        engine.trade(50)
        async with engine.serving(), Feed([engine.grpc], lag_s=0.5, conflate=True) as feed:
            await until(lambda: feed.book("ALFA").valid)
            assert feed._reading is not None
            late_ns = 2_000_000_000
            feed._reading.subscriber._clock_ns = lambda: time.monotonic_ns() + late_ns
            engine.trade(1)
            await until(lambda: feed.book("ALFA").state == "conflated")
            late_ns += 400_000_000
            await until(lambda: feed.book("ALFA").age_s > 0.3)
            assert feed.book("ALFA").state == "conflated"
            late_ns += 400_000_000
            await until(lambda: feed.book("ALFA").state == "lagged")
            late_ns -= 800_000_000
            await until(lambda: feed.book("ALFA").state == "conflated")

    run(body)


def test_the_sooner_a_stream_is_too_fast_again_the_longer_it_is_left_alone() -> None:
    back = Back(1.0)
    now, waits = 100.0, []
    for _ in range(7):
        waits.append(back.gone_over(now))
        now += waits[-1] + 0.5  # it came back, and half a second later it lags again
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    assert back.gone_over(now + 16.0) == 1.0  # it could follow for a while


def test_coming_back_is_for_those_who_go_over() -> None:
    with pytest.raises(ValueError, match="back_s"):
        Feed(["127.0.0.1:1"], back_s=1.0)

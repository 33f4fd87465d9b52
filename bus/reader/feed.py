"""The SDK of a reader: a venue's books and all that happens to them, through any of its machines.

    async for event in Feed(["127.0.0.1:4000"]).events(symbols=["ALFA"]):
        match event:
            case Trade(symbol, price=price, quantity=quantity): ...
            case BookState(symbol, "valid"): ...

    async with Feed(["127.0.0.1:4000"]) as feed:      # or, without asyncio:  with Feed([...]) as feed:
        book = feed.book("ALFA")                      # state, age_s, sequence, bids, asks
        async for event in feed.events(): ...         #                       for event in feed.events(): ...

Events are values (bus/reader/events.py). A feed finds engines that move or join by the directory, repairs what it
misses, and never raises for what a machine or the network does: it tells.

Without asyncio a thread of its own does the work; with it, the running loop. Whoever iterates too slowly loses events,
not books, and is told which: at most EVENTS_MAX wait.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from decimal import Decimal
from time import monotonic_ns
from types import TracebackType
from typing import Any, Final, TypeVar

import grpc

from bus.access.directory import Changed, Conflict, Directory, Entry
from bus.access.directory import Event as DirectoryEvent
from bus.access.exchange import CHANNEL_OPTIONS, DirectoryLoop
from bus.access.subscriber import Subscriber
from bus.reader.events import (
    Book,
    BookEvent,
    BookState,
    Delta,
    Event,
    GapOpened,
    GapRepaired,
    LedgerLine,
    Level,
    MissingSpan,
    Quote,
    Sizes,
    StreamState,
    Trade,
    Trouble,
    told_of,
)
from bus.reader.history import History, HistoryError, events_of, told
from bus.stream import actions
from bus.stream.actions import Action, AskRange, AskSnapshot, Limits, Standing, State
from bus.stream.conflation import Quoted, QuoteReader
from bus.stream.feed_client import FeedClient
from bus.stream.levels import by_order
from bus.stream.mirror import BUY_SIDE, SELL_SIDE, MirrorBook
from proto import feed, marketdata_pb2, marketdata_pb2_grpc
from proto.feed import END, OP_MASK, TOLD, Definition

EVENTS_MAX: Final = 65_536  # waiting for one who iterates
YIELD_EVERY: Final = 64  # events, then the loop has its turn
BACK_TIMES: Final = 16
ANSWER_S: Final = 3.0  # for any machine named to answer, until that is said to be a trouble
WHOLE: Final = (Decimal(1), Decimal(1))  # ticks and lots, while their sizes are not known

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Feed:
    """A venue as its readers see it.

    machines   host:port of any machines of it, the nearest first
    lag_s      how far behind a stream may fall until it is begun anew in the present
    conflate   then read only best prices, until come_back()
    back_s     or until so long after; each time that the whole stream is too fast again, twice as long as before, up to
               BACK_TIMES as long. Best prices do not tell whether one could follow, so it is tried. 0: not by itself
    lines      by engine: further endpoints of its feed (relays), of which the first to bring a frame wins
    """

    def __init__(
        self,
        machines: Sequence[str],
        *,
        lag_s: float = 3.0,
        conflate: bool = False,
        back_s: float = 0.0,
        lines: Mapping[int, Sequence[str]] | None = None,
        seed: int | None = None,
    ) -> None:
        if isinstance(machines, str) or not machines:
            raise ValueError('machines: a list of one "host:port" or more')
        self._machines = list(machines)
        if back_s < 0 or (back_s and not conflate):
            raise ValueError("back_s: above 0, and with conflate")
        self._back_s = back_s
        self._limits = Limits(lag_ns=int(lag_s * 1e9), conflate=conflate)
        self._lines = dict(lines or {})
        self._rng = random.Random(seed)
        self._directory = Directory()
        self._inboxes: list[_Inbox] = []
        self._told: dict[tuple[int, int], dict[int, str]] = {}  # by stream: what each book's state was said to be
        self._sizes: dict[Definition, Sizes] = {}
        self._running: _Running | None = None
        self._thread: _Thread | None = None

    # To be entered, with asyncio or without

    async def __aenter__(self) -> Feed:
        if self._running is not None:
            raise RuntimeError("this feed is running already")
        self._told.clear()
        self._running = _Running(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.stop()
        for inbox in self._inboxes:
            inbox.close()

    def __enter__(self) -> Feed:
        if self._running is not None:
            raise RuntimeError("this feed is running already")
        self._thread = _Thread(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    # What there is to see

    def events(self, symbols: Iterable[str] = ()) -> Events:
        """All that happens to these books from now on, or to all; iterate with `for` or `async for`.

        Starts the feed if it is not running, and then stops it at the end of the iteration. It begins with the state of
        each book that is there.
        """
        if isinstance(symbols, str):
            raise ValueError("symbols: a list")
        return Events(self, frozenset(symbols))

    def book(self, symbol: str, depth: int = 0) -> Book:
        """The book as it stands, `depth` levels a side (0: all). Cost: O(orders in them). Raises: nothing."""
        return self._do(lambda: self._book(symbol, depth))

    def symbols(self) -> list[str]:
        """All that are known, in alphabetical order."""
        return self._do(lambda: sorted(instrument.symbol for instrument in self._directory.instruments()))

    def ledger(self) -> list[LedgerLine]:
        """Every gap that is open, and the last 1,024 closed ones of each stream, by stream, oldest first."""
        return self._do(self._gaps)

    def counters(self) -> dict[tuple[int, int], dict[str, int]]:
        """By engine and channel: what its reader has seen (bus/stream/ledger.py, Counters)."""
        return self._do(
            lambda: {stream: client.counters.as_dict() for stream, client in sorted(self._clients().items())}
        )

    def history(
        self, symbol: str, *, first: int = 0, last: int = 0, epoch: int = 0, from_ns: int = 0, to_ns: int = 0
    ) -> History:
        """What happened to a book long ago, out of its engine's log: its BookEvents and Trades, to be iterated.

        From a sequence of its stream, in `epoch` (0: the present one), or from a time; to a sequence of that epoch, or
        to before a time, or to the present. A sequence that lies in an event brings all of it. The feed must have been
        entered. It is slow: the engine has its log played again beside it.
        Raises, when iterated: HistoryError.
        """
        if self._running is None:
            raise RuntimeError("this feed is not running")
        request = marketdata_pb2.HistoryRequest(
            epoch=epoch, first_seq=first, last_seq=last, from_ns=from_ns, to_ns=to_ns
        )
        running, thread = self._running, self._thread
        return History(lambda: running.history(symbol, request), None if thread is None else thread.wait)

    def come_back(self) -> None:
        """From best prices to whole books, for all streams that went over."""
        self._do(self._come_back)

    # On the loop

    def _do(self, what: Callable[[], T]) -> T:
        return what() if self._thread is None else self._thread.do(what)

    def _clients(self) -> dict[tuple[int, int], FeedClient]:
        return {} if self._running is None else self._running.subscriber.clients

    def _come_back(self) -> None:
        if self._running is not None:
            for engine, channel in list(self._running.subscriber.clients):
                self._running.subscriber.come_back(engine, channel)

    def _gaps(self) -> list[LedgerLine]:
        return [
            LedgerLine(
                client.engine, client.channel, gap.epoch, gap.first, gap.last, gap.cause, gap.how, gap.took_ns / 1e6,
                gap.late, gap.ranged, gap.snapshotted, gap.abandoned, gap.missing, gap.source,
            )
            for _, client in sorted(self._clients().items())
            for gap in (*client.ledger.closed, *client.ledger.open)
        ]  # fmt: skip

    def _book(self, symbol: str, depth: int) -> Book:
        for stream, client in self._clients().items():
            for name, book in client.mirror.books.items():
                if self._symbol(book) != symbol:
                    continue
                sizes = self._sizes_of(book)
                state = self._state(client, name)
                if state == "conflated":
                    reader = self._readers()[stream]
                    return _conflated(symbol, reader.quotes[name], sizes, reader.age_ns(monotonic_ns()))
                epoch, sequence = client.position
                return Book(
                    symbol,
                    state,
                    client.age_ns(monotonic_ns()) / 1e9,
                    epoch,
                    sequence,
                    book.sequence,
                    feed.STATE_NAMES[book.state],
                    book.last_price * sizes[0] if book.last_trade_id else None,
                    book.last_quantity * sizes[1] if book.last_trade_id else None,
                    _levels(book, BUY_SIDE, depth, sizes),
                    _levels(book, SELL_SIDE, depth, sizes),
                )
        return Book(symbol, "unknown", 0.0, 0, 0, 0, feed.STATE_NAMES[0], None, None, (), ())

    def _readers(self) -> dict[tuple[int, int], QuoteReader]:
        return {} if self._running is None else self._running.subscriber.quotes

    def _quotes(self, stream: tuple[int, int]) -> dict[int, Quoted]:
        reader = self._readers().get(stream)
        return {} if reader is None or reader.state is not State.LIVE else reader.quotes

    def _state(self, client: FeedClient, name: int) -> str:
        """A book's state in words."""
        if client.state is State.LAGGED:
            return "conflated" if name in self._quotes((client.engine, client.channel)) else "lagged"
        return _WORDS[client.standing(name)]

    def _symbol(self, book: MirrorBook) -> str:
        return book.definition.symbol if book.definition is not None else str(book.instrument)

    def _sizes_of(self, book: MirrorBook) -> Sizes:
        definition = book.definition
        if definition is None:
            return WHOLE
        found = self._sizes.get(definition)
        if found is None:
            found = self._sizes[definition] = (Decimal(definition.tick_size), Decimal(definition.lot_size))
        return found

    # What happens, told to all who iterate

    def _tell(self, event: Event, symbol: str = "", stream: tuple[int, int, int, int, int] | None = None) -> None:
        for inbox in self._inboxes:
            if not symbol or not inbox.symbols or symbol in inbox.symbols:
                inbox.put(event, stream)

    def _tell_of(self, client: FeedClient, event: Event) -> None:
        """What concerns a whole stream, to all who follow a book of it."""
        for inbox in self._inboxes:
            wanted = [self._directory.instrument(symbol) for symbol in inbox.symbols]
            homes = [(found.engine, found.channel) for found in wanted if found is not None]
            if not inbox.symbols or (client.engine, client.channel) in homes:
                inbox.put(event, None)

    def _on_action(self, client: FeedClient, action: Action) -> None:
        stream = (client.engine, client.channel)
        if isinstance(action, actions.Applied):
            if self._inboxes:
                self._applied(client, action)
        elif isinstance(action, actions.StateChanged):
            self._tell_of(client, StreamState(*stream, action.after.value, action.before.value, action.reason))
        elif isinstance(action, actions.GapOpened):
            gap = action.gap
            self._tell_of(client, GapOpened(*stream, gap.epoch, gap.first, gap.last, gap.cause))
        elif isinstance(action, actions.GapRepaired):
            gap = action.gap
            took_ms = gap.took_ns / 1e6
            self._tell_of(client, GapRepaired(*stream, gap.epoch, gap.first, gap.last, gap.how, took_ms, gap.source))
        elif isinstance(action, actions.MissingSpan):
            self._tell_of(client, MissingSpan(*stream, action.epoch, action.first, action.last, "snapshot"))
        elif isinstance(action, actions.Lagged):
            if action.conflate and self._back_s and self._running is not None:
                self._running.back_later(client, self._back_s)
        elif isinstance(action, actions.Alarm):
            self._tell_of(client, Trouble(f"stream {client.engine}.{client.channel}: {action.text}"))

    def _applied(self, client: FeedClient, applied: actions.Applied) -> None:
        times = dict(applied.times)
        time_ns = 0
        pending: dict[int, list[Delta]] = {}
        books = client.mirror.books
        for at, row in enumerate(applied.rows):
            time_ns = times.get(at, time_ns)
            name = row[1]
            extra = applied.extras[row[2]] if row[0] & OP_MASK in TOLD else None
            pending.setdefault(name, []).append(Delta(row, self._sizes_of(books[name]), extra))
            if row[0] & END:
                for instrument, deltas in pending.items():
                    self._tell_event(client, books[instrument], applied.epoch, applied.first + at, time_ns, deltas)
                pending = {}

    def _tell_event(
        self, client: FeedClient, book: MirrorBook, epoch: int, sequence: int, time_ns: int, deltas: list[Delta]
    ) -> None:
        symbol = self._symbol(book)
        stream = (client.engine, client.channel, epoch, sequence + 1 - len(deltas), sequence)
        for event in told_of(symbol, epoch, sequence, time_ns, deltas):
            self._tell(event, symbol, stream)

    def _on_heard(self, client: FeedClient) -> None:
        """Tell the states of books that have changed, after all else that an input brought."""
        told = self._told.setdefault((client.engine, client.channel), {})
        books = client.mirror.books
        if client.state is State.LIVE and not client.doubted and told.get(0) == f"{len(books)}":
            return
        told[0] = ""
        for name, book in books.items():
            self._tell_state(told, self._symbol(book), name, self._state(client, name))
        if client.state is State.LIVE and not client.doubted:
            told[0] = f"{len(books)}"  # all is well, and stays so while it is LIVE

    def _tell_state(self, told: dict[int, str], symbol: str, name: int, state: str) -> None:
        before = told.get(name, "unknown")
        if state != before:
            told[name] = state
            self._tell(BookState(symbol, state, before), symbol)

    def _on_quote(self, reader: QuoteReader, quoted: Quoted | actions.StateChanged) -> None:
        stream = (reader.engine, reader.channel)
        client = self._clients().get(stream)
        if client is None:
            return
        self._told.setdefault(stream, {})[0] = ""
        self._on_heard(client)
        if isinstance(quoted, Quoted) and client.state is State.LAGGED:
            book = client.mirror.books.get(quoted.quote.instrument)
            if book is not None:
                symbol, sizes, quote = self._symbol(book), self._sizes_of(book), quoted.quote
                bid = _side(quote.bid_price, quote.bid_quantity, quote.bid_count, sizes)
                ask = _side(quote.ask_price, quote.ask_quantity, quote.ask_count, sizes)
                self._tell(Quote(symbol, quoted.epoch, quoted.sequence, quote.time_ns, bid, ask), symbol)

    def _states(self) -> list[BookState]:
        """What was told of every book, for who comes late."""
        return [
            BookState(self._symbol(client.mirror.books[name]), state, "unknown")
            for stream, client in sorted(self._clients().items())
            for name, state in self._told.get(stream, {}).items()
            if name in client.mirror.books
        ]


_WORDS: Final = {
    Standing.UNKNOWN: "unknown",
    Standing.VALID: "valid",
    Standing.DOUBTFUL: "doubtful",
    Standing.STALE: "stale",
}


def _levels(book: MirrorBook, side: int, depth: int, sizes: Sizes) -> tuple[Level, ...]:
    tick, lot = sizes
    return tuple(
        [
            Level(price * tick, quantity * lot, tuple([(order_id, left * lot) for order_id, left in orders]))
            for price, quantity, _, orders in by_order(book.queues(side), depth)
        ]
    )


def _side(price: int, quantity: int, count: int, sizes: Sizes) -> tuple[Decimal, Decimal, int] | None:
    return (price * sizes[0], quantity * sizes[1], count) if count else None


def _conflated(symbol: str, quoted: Quoted, sizes: Sizes, age_ns: int) -> Book:
    quote = quoted.quote
    bid = _side(quote.bid_price, quote.bid_quantity, quote.bid_count, sizes)
    ask = _side(quote.ask_price, quote.ask_quantity, quote.ask_count, sizes)
    bids, asks = [() if side is None else (Level(side[0], side[1], ()),) for side in (bid, ask)]
    traded = quote.last_trade_id > 0
    return Book(
        symbol,
        "conflated",
        age_ns / 1e9,
        quoted.epoch,
        quoted.sequence,
        quote.instrument_seq,
        feed.STATE_NAMES[quote.state],
        quote.last_price * sizes[0] if traded else None,
        quote.last_quantity * sizes[1] if traded else None,
        bids,
        asks,
    )


class _Back:
    """How long a stream is left to best prices: the longer, the sooner it was too fast again."""

    def __init__(self, back_s: float) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self._least_s = self._wait_s = back_s
        self._back_at: float | None = None  # when it came back, or comes

    def gone_over(self, now_s: float) -> float:
        """It goes over now; for how long."""
        if self.timer is not None:
            self.timer.cancel()
        if self._back_at is not None:
            soon = now_s - self._back_at < self._wait_s
            self._wait_s = min(2 * self._wait_s, BACK_TIMES * self._least_s) if soon else self._least_s
        self._back_at = now_s + self._wait_s
        return self._wait_s


class _Running:
    """The sockets of a feed, on the running loop."""

    def __init__(self, owner: Feed) -> None:
        self._owner = owner
        self._directory = owner._directory
        self._machines = owner._machines
        self.subscriber = Subscriber(
            self._sources,
            owner._rng,
            listen=owner._on_action,
            heard=owner._on_heard,
            quoted=owner._on_quote,
            limits=owner._limits,
        )
        self._backs: dict[tuple[int, int], _Back] = {}
        self._stopped = False
        self._loop = DirectoryLoop(self._directory, owner._machines)
        self._loop.listen(self._on_event)
        self._loop.start()
        self._waiting = asyncio.get_running_loop().create_task(self._wait())

    def back_later(self, client: FeedClient, back_s: float) -> None:
        """It has gone over to best prices: have it try the whole stream again."""
        stream = (client.engine, client.channel)
        back = self._backs.setdefault(stream, _Back(back_s))
        loop = asyncio.get_running_loop()
        wait_s = back.gone_over(loop.time())

        def come() -> None:
            if client.state is State.LAGGED:
                self.subscriber.come_back(*stream)
                self._owner._on_heard(client)

        back.timer = loop.call_later(wait_s, come)

    async def stop(self) -> None:
        """The sockets first: who breaks off an iteration and ends its loop leaves time for the first await, no more.

        Left open, they would hang whatever collects them.
        """
        self._stopped = True
        for back in self._backs.values():
            if back.timer is not None:
                back.timer.cancel()
        self._waiting.cancel()
        try:
            await self.subscriber.stop()
        finally:
            await asyncio.gather(self._waiting, return_exceptions=True)
            await self._loop.stop()

    async def _wait(self) -> None:
        if not await self._loop.joined(ANSWER_S):
            self._owner._tell(Trouble(f"nobody answers at {', '.join(self._machines)}; trying on"))

    async def history(
        self, symbol: str, request: marketdata_pb2.HistoryRequest
    ) -> AsyncGenerator[BookEvent | Trade, None]:
        await self._loop.joined(ANSWER_S)
        instrument = self._directory.instrument(symbol)
        home = None if instrument is None else self._directory.engine(instrument.engine)
        if instrument is None or home is None or home.left:
            raise HistoryError(f"no engine is known that has {symbol}")
        request.engine, request.channel = instrument.engine, instrument.channel
        sizes = (instrument.tick_size, instrument.lot_size)
        async with grpc.aio.insecure_channel(home.grpc, options=CHANNEL_OPTIONS) as channel:
            make: Any = marketdata_pb2_grpc.MarketDataStub
            frames = told(make(channel), request)
            async with aclosing(events_of(frames, symbol, instrument.id, sizes)) as events:
                async for event in events:
                    yield event

    def _on_event(self, event: DirectoryEvent) -> None:
        if self._stopped:
            return
        if isinstance(event, Changed):
            self._follow(event.entry)
        elif isinstance(event, Conflict):
            self._owner._tell(Trouble(str(event)))

    def _follow(self, entry: Entry) -> None:
        if not entry.fabric and not entry.left and entry.feed:
            endpoints = [entry.feed, *self._owner._lines.get(entry.engine, ())]
            self.subscriber.follow(entry.engine, endpoints, entry.channels)

    def _sources(self, engine: int, asked: AskRange | AskSnapshot) -> Sequence[str]:
        """Fabric nodes, the one named first at the head; then the engine."""
        home = self._directory.engine(engine)
        homes = [home.grpc] if home is not None and not home.left else []
        if isinstance(asked, AskSnapshot) and asked.home:
            return homes
        named = {target: at for at, target in enumerate(self._machines)}
        fabrics = [entry.grpc for entry in self._directory.fabrics()]
        fabrics.sort(key=lambda target: named.get(target, len(named)))
        return fabrics + homes


class _Thread:
    """A feed's loop, for programs without one."""

    def __init__(self, owner: Feed) -> None:
        self._owner = owner
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    def do(self, what: Callable[[], T]) -> T:
        if threading.current_thread() is self._thread:
            return what()
        done: Future[T] = Future()

        def perform() -> None:
            try:
                done.set_result(what())
            except BaseException as e:
                done.set_exception(e)

        self._loop.call_soon_threadsafe(perform)
        return done.result()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of something that takes its time."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._stopping = asyncio.Event()
            await self._owner.__aenter__()
        except BaseException as e:
            self._started.set_exception(e)
            return
        self._started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        await self._owner.__aexit__()


class _Inbox:
    """The events that wait for one who iterates."""

    def __init__(self, symbols: frozenset[str], wake: Callable[[], None]) -> None:
        self.symbols = symbols
        self.closed = False
        self.events: deque[Event] = deque()
        self._wake = wake
        self._untaken: dict[tuple[int, int], list[int]] = {}  # by stream: epoch, first and last of what did not fit

    def put(self, event: Event, stream: tuple[int, int, int, int, int] | None) -> None:
        if self._untaken and len(self.events) < EVENTS_MAX // 2:
            self._confess()
        if stream is not None and (self._untaken or len(self.events) >= EVENTS_MAX):
            engine, channel, epoch, first, last = stream
            span = self._untaken.get((engine, channel))
            if span is None or span[0] != epoch:
                self._confess((engine, channel))
                self._untaken[engine, channel] = [epoch, first, last]
            else:
                span[2] = last
            return
        if len(self.events) >= 2 * EVENTS_MAX:
            self.events.popleft()  # states only: what is newest counts
        self.events.append(event)
        if len(self.events) == 1:
            self._wake()

    def confess(self) -> bool:
        """With nothing else left: what did not fit. Whether there was something."""
        if not self._untaken:
            return False
        self._confess()
        return True

    def close(self) -> None:
        self.closed = True
        self._wake()

    def _confess(self, stream: tuple[int, int] | None = None) -> None:
        for engine, channel in [stream] if stream is not None else list(self._untaken):
            span = self._untaken.pop((engine, channel), None)
            if span is not None:
                self.events.append(MissingSpan(engine, channel, span[0], span[1], span[2], "slow"))


class Events:
    """What happens, to be iterated once or several times, each from its beginning on."""

    def __init__(self, owner: Feed, symbols: frozenset[str]) -> None:
        self._owner = owner
        self._symbols = symbols

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._with_asyncio()

    def __iter__(self) -> Iterator[Event]:
        return self._without()

    async def _with_asyncio(self) -> AsyncIterator[Event]:
        owner = self._owner
        if owner._thread is not None:
            raise RuntimeError("this feed runs without asyncio: iterate with `for`")
        woken = asyncio.Event()
        inbox = self._inbox(woken.set)
        mine = owner._running is None
        if mine:
            await owner.__aenter__()
        try:
            taken = 0
            while True:
                woken.clear()
                while len(inbox.events) or inbox.confess():
                    yield inbox.events.popleft()
                    taken += 1
                    if taken % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                if inbox.closed:
                    return
                await woken.wait()
        finally:
            owner._inboxes.remove(inbox)
            if mine:
                await owner.__aexit__()

    def _without(self) -> Iterator[Event]:
        owner = self._owner
        if owner._thread is None and owner._running is not None:
            raise RuntimeError("this feed runs with asyncio: iterate with `async for`")
        woken = threading.Event()
        mine = owner._thread is None
        if mine:
            inbox = self._inbox(woken.set)
            owner.__enter__()
        else:
            inbox = owner._do(lambda: self._inbox(woken.set))
        try:
            while True:
                woken.clear()
                while len(inbox.events) or owner._do(inbox.confess):
                    yield inbox.events.popleft()
                if inbox.closed:
                    return
                woken.wait()
        finally:
            if mine:
                owner.__exit__(None, None, None)
            owner._do(lambda: owner._inboxes.remove(inbox))

    def _inbox(self, wake: Callable[[], None]) -> _Inbox:
        inbox = _Inbox(self._symbols, wake)
        for state in self._owner._states():
            if not self._symbols or state.symbol in self._symbols:
                inbox.events.append(state)
        self._owner._inboxes.append(inbox)
        return inbox

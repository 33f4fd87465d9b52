"""The SDK of a reader: a venue's books and all that happens to them, through any of its machines.

    async for event in Feed(["127.0.0.1:4000"]).events(symbols=["ALFA"]):
        match event:
            case Trade(symbol, price=price, quantity=quantity): ...
            case BookState(symbol, "valid"): ...

    async with Feed(["127.0.0.1:4000"]) as feed:      # or, without asyncio:  with Feed([...]) as feed:
        book = feed.book("ALFA")                      # state, age_s, sequence, bids, asks
        async for event in feed.events(): ...         #                       for event in feed.events(): ...

Events are values (bus/reader/events.py). A feed finds engines that move or join by the directory, repairs what it
misses, and never raises for what a machine or the network does: it tells. What it cannot do because of how it is used
(asked before it is entered or after it is left, entered twice at once) raises FeedUseError, at once.

Without asyncio a thread of its own does the work; with it, the running loop. Whoever iterates too slowly loses events,
not books, and is told which: at most EVENTS_MAX wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeVar

from bus.access.asking import Tap
from bus.reader.events import Book, Comparison, Event, LedgerLine, Stream
from bus.reader.history import FeedUseError, History
from bus.reader.inbox import Inbox, Untold
from bus.reader.reading import EVERYWHERE, Reading, Settings
from bus.reader.thread import FeedThread
from bus.stream.actions import ClientLimits
from proto.dial import wrong_address
from proto.marketdata_pb2 import HistoryRequest

YIELD_EVERY: Final = 64  # events, then the loop has its turn

T = TypeVar("T")


class Feed:
    """A venue as its readers see it.

    machines   host:port of any machines of it, the nearest first
    lag_s      how far behind a stream may fall until it is begun anew in the present
    conflate   then read only best prices, until come_back()
    back_s     or until so long after; each time that the whole stream is too fast again, twice as long as before, up to
               16 times as long. Best prices do not tell whether one could follow, so it is tried. 0: not by itself
    lines      by engine: further endpoints of its feed (relays), of which the first to bring a frame wins
    feeds      by engine: the endpoint of its feed, in place of the one that it names (a proxy)
    engines    read these alone; empty: all there are
    source     ask this machine alone for what is missed
    taps       who is told of every frame and answer as it came (bus/access/asking.py, Tap)
    seed       of the jitter in its asking
    Raises: ValueError when these make no sense.

    It is entered once at a time, and may be entered again when it has been left.
    """

    def __init__(
        self,
        machines: Sequence[str],
        *,
        lag_s: float = 3.0,
        conflate: bool = False,
        back_s: float = 0.0,
        lines: Mapping[int, Sequence[str]] | None = None,
        feeds: Mapping[int, str] | None = None,
        engines: Collection[int] = (),
        source: str = "",
        taps: Sequence[Tap] = (),
        seed: int | None = None,
    ) -> None:
        if isinstance(machines, str) or not machines:
            raise ValueError('machines: a list of one "host:port" or more')
        for address in [*machines, *([source] if source else [])]:
            if wrong := wrong_address(address):
                raise ValueError(wrong)
        if back_s < 0 or (back_s and not conflate):
            raise ValueError("back_s: above 0, and with conflate")
        limits = ClientLimits(lag_ns=int(lag_s * 1e9), conflate=conflate)
        self._settings = Settings(
            list(machines), limits, back_s, dict(lines or {}), dict(feeds or {}), frozenset(engines), source,
            tuple(taps), seed,
        )  # fmt: skip
        self._inboxes: list[Inbox] = []
        self._reading: Reading | None = None
        self._thread: FeedThread | None = None
        self._iterations = 0  # that keep it running, where it was not entered
        self._lock = threading.Lock()  # of the two above, without asyncio

    # To be entered, with asyncio or without

    async def __aenter__(self) -> Feed:
        """Raises: FeedUseError if it is running already."""
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def __enter__(self) -> Feed:
        """Raises: FeedUseError if it is running already."""
        with self._lock:
            self._begin_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end_thread()

    # What there is to see

    def events(self, symbols: Iterable[str] = ()) -> Events:
        """All that happens to these books from now on, or to all; iterate with `for` or `async for`.

        Starts the feed if it is not running, and then stops it at the end of the iteration (of the last one, if there
        are several). It begins with the state of each book that is there, and ends when the feed is left.
        Raises: ValueError; when iterated, FeedUseError if the feed runs the other way.

            for event in Feed(["127.0.0.1:4001"]).events(["ALFA"]):
                print(event)
        """
        if isinstance(symbols, str):
            raise ValueError("symbols: a list")
        wanted = frozenset(symbols)
        return Events(lambda: self._with_asyncio(wanted), lambda: self._without(wanted))

    def book(self, symbol: str, depth: int = 0) -> Book:
        """The book as it stands, `depth` levels a side (0: all); its state is "unknown" if nothing is known of it.

        Cost: O(orders in them). Raises: FeedUseError when the feed does not run.

            with Feed(["127.0.0.1:4001"]) as feed:
                best = feed.book("ALFA", depth=1)
        """
        return self._do(lambda reading: reading.teller.book(symbol, depth))

    def symbols(self) -> list[str]:
        """All that are known, in alphabetical order. Raises: FeedUseError."""
        return self._do(lambda reading: sorted(i.symbol for i in reading.directory.instruments()))

    def streams(self) -> list[Stream]:
        """Where each stream stands, and what its reader counted, by engine and channel. Raises: FeedUseError."""
        return self._do(lambda reading: reading.teller.streams())

    def counters(self) -> dict[tuple[int, int], dict[str, int]]:
        """By engine and channel: what its reader has counted (bus/stream/ledger.py). Raises: FeedUseError."""
        return {(stream.engine, stream.channel): stream.counters for stream in self.streams()}

    def ledger(self) -> list[LedgerLine]:
        """Every gap that is open, and the last 1,024 closed ones of each stream, by stream, oldest first.

        Raises: FeedUseError.
        """
        return self._do(lambda reading: reading.teller.ledger())

    def history(
        self, *symbols: str, first: int = 0, last: int = 0, epoch: int = 0, from_ns: int = 0, to_ns: int = 0
    ) -> History:
        """What happened to books of one stream long ago: their BookEvents and Trades, to be iterated.

        From a sequence of the stream, in `epoch` (0: the present one), or from a time; to a sequence of that epoch, or
        to before a time, or to the present. A sequence that lies in an event brings all of it. It comes out of what
        machines keep for repairs, or, if it is older, out of the engine's log, which is played again beside it: that
        is slow.
        Raises: FeedUseError when the feed does not run; when iterated, HistoryError.

            for event in feed.history("ALFA", first=1):
                print(event)
        """
        if not symbols:
            raise ValueError("of which symbol?")
        reading, thread = self._running(), self._thread

        def begin() -> HistoryRequest:
            return HistoryRequest(epoch=epoch, first_seq=first, last_seq=last, from_ns=from_ns, to_ns=to_ns)

        return History(lambda: reading.history(symbols, begin()), None if thread is None else thread.wait)

    async def verify(self, turn: int = 0, timeout_s: float = 3.0) -> list[Comparison]:
        """Compare each stream's books, order by order, with another machine's: with each `turn`, with the next one's.

        Call it again and again; the first call may find that "not every delta since was seen". Only with asyncio.
        Takes up to `timeout_s` a stream. Raises: FeedUseError.
        """
        if self._thread is not None:
            raise FeedUseError("this feed runs without asyncio")
        return await self._running().verify(turn, timeout_s)

    def come_back(self) -> None:
        """From best prices to whole books, for all streams that went over. Raises: FeedUseError."""
        self._do(lambda reading: reading.come_back())

    # Running

    def _begin(self) -> None:
        if self._reading is not None:
            raise FeedUseError("this feed is running already: leave it first, or make another")
        self._reading = Reading(self._settings, self._tell, lambda: bool(self._inboxes))
        self._streams_of = self._reading.streams_of

    async def _end(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading.stop()
        for inbox in self._inboxes:
            inbox.close()

    def _begin_thread(self) -> None:
        if self._reading is not None or self._thread is not None:
            raise FeedUseError("this feed is running already: leave it first, or make another")
        self._thread = FeedThread(self._begin, self._end)

    def _end_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def _running(self) -> Reading:
        reading = self._reading
        if reading is None:
            raise FeedUseError("this feed does not run: enter it first, `with Feed([...]) as feed`")
        return reading

    def _do(self, what: Callable[[Reading], T]) -> T:
        """On the loop that it runs on."""
        thread = self._thread
        return what(self._running()) if thread is None else thread.do(lambda: what(self._running()))

    def _tell(self, event: Event, stream: tuple[int, int], symbol: str = "", span: Untold | None = None) -> None:
        """To all who want to know of this book, or follow one of that stream."""
        for inbox in self._inboxes:
            everything = not inbox.symbols or stream == EVERYWHERE
            if everything or symbol in inbox.symbols or (not symbol and stream in self._streams_of(inbox.symbols)):
                inbox.put(event, span)

    # Iterating

    async def _with_asyncio(self, symbols: frozenset[str]) -> AsyncIterator[Event]:
        if self._thread is not None:
            raise FeedUseError("this feed runs without asyncio: iterate with `for`")
        if self._reading is not None and self._reading.loop is not asyncio.get_running_loop():
            raise FeedUseError("this feed runs on another event loop")
        woken = asyncio.Event()
        keeps = self._reading is None or self._iterations > 0  # it running
        if self._reading is None:
            self._begin()
        self._iterations += keeps
        inbox = self._inbox(symbols, woken.set)
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
            self._inboxes.remove(inbox)
            self._iterations -= keeps
            if keeps and not self._iterations:
                await self._end()

    def _without(self, symbols: frozenset[str]) -> Iterator[Event]:
        woken = threading.Event()
        with self._lock:
            if self._thread is None and self._reading is not None:
                raise FeedUseError("this feed runs with asyncio: iterate with `async for`")
            keeps = self._thread is None or self._iterations > 0
            if self._thread is None:
                self._begin_thread()
            self._iterations += keeps
            assert self._thread is not None
            thread = self._thread
            inbox = thread.do(lambda: self._inbox(symbols, woken.set))
        try:
            while True:
                woken.clear()
                while len(inbox.events) or _confesses(thread, inbox):
                    yield inbox.events.popleft()
                if inbox.closed:
                    return
                woken.wait()
        finally:
            with self._lock:
                self._iterations -= keeps
                if keeps and not self._iterations:
                    self._end_thread()
                if self._thread is thread:
                    thread.do(lambda: self._inboxes.remove(inbox))
                else:
                    self._inboxes.remove(inbox)

    def _inbox(self, symbols: frozenset[str], wake: Callable[[], None]) -> Inbox:
        inbox = Inbox(symbols, wake)
        for _, state in self._running().teller.states():
            if not symbols or state.symbol in symbols:
                inbox.events.append(state)
        self._inboxes.append(inbox)
        return inbox


def _confesses(thread: FeedThread, inbox: Inbox) -> bool:
    """Whether there is something left to tell, of what did not fit; not if the feed is being left."""
    with suppress(FeedUseError):
        return not inbox.closed and thread.do(inbox.confess)
    return False


class Events:
    """What happens, to be iterated once or several times, each from its beginning on."""

    def __init__(
        self, with_asyncio: Callable[[], AsyncIterator[Event]], without: Callable[[], Iterator[Event]]
    ) -> None:
        self._with_asyncio = with_asyncio
        self._without = without

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._with_asyncio()

    def __iter__(self) -> Iterator[Event]:
        return self._without()

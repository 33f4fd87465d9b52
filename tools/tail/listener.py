"""What a listener says of the events of a feed, or of a recording: which lines, from where on, and until when."""

import argparse
import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bus.access.asking import Taken
from bus.reader import (
    Book,
    BookEvent,
    BookState,
    Comparison,
    Event,
    Feed,
    HistoryError,
    MissingSpan,
    Quote,
    Stream,
    StreamState,
    Trade,
)
from bus.stream.feed_client import FeedClient
from proto.instrument import Instrument
from tools.tail.ending import CannotConnect
from tools.tail.lines import (
    JsonLine,
    book_line,
    comparison_line,
    delta_lines,
    frame_line,
    in_words,
    line_of,
    quote_line,
    stats_line,
)
from tools.tail.record import SINCE_NS

HEAR_S: Final = 10.0  # for the first book
LOOK_S: Final = 0.02
VERIFY_S: Final = 1.0
STATS_S: Final = 1.0
TAPE_MAX: Final = 20  # trades
UNSHOWN: Final = ("verified", "quote", "book", "frame", "stats")  # lines that are no events below a ladder
SEEN_MAX: Final = 5  # events shown below a ladder
UNSAID_MAX: Final = 1_000_000  # lines waiting for a reader who is that much too slow
HEARING: Final = ("down", "joining")  # states of a stream of which nothing is known yet


class Shows(Protocol):
    """Where books and streams can be looked at: a feed, or the player of a recording."""

    def book(self, symbol: str, depth: int = 0) -> Book: ...

    def streams(self) -> list[Stream]: ...


@dataclass(slots=True)
class Said:
    """What there is to print, and why the listening ends.

    problem   what could not be written
    """

    lines: deque[JsonLine] = field(default_factory=deque)
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=SEEN_MAX))
    trades: dict[str, deque[Trade]] = field(default_factory=dict)  # by symbol, the newest first
    deltas: int = 0
    verified: int = 0
    differing: tuple[str, ...] = ()
    problem: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = "interrupted"

    def end(self, why: str) -> None:
        if not self.ended.is_set():
            self.why = why
            self.ended.set()


class Listener:
    """Takes in what happens, one event after the other, and says what of it is wanted."""

    def __init__(self, args: argparse.Namespace, instruments: Sequence[Instrument]) -> None:
        self.instruments = list(instruments)
        self.said = Said()
        self._args = args
        self._homes = {i.symbol: (i.engine, i.channel) for i in instruments}
        self._gathered: list[BookEvent] = []  # what one command changed, until all of it is here
        self._told_at: dict[str, tuple[int, int]] = {}  # with --from-snapshot: epoch and sequence of the book told
        # Older deltas are fetched and told first: those that come meanwhile wait here.
        self._later: list[BookEvent | Trade] | None = None
        if (args.from_seq or args.from_time) and not args.play:
            self._later = []

    @property
    def wants_history(self) -> bool:
        """Whether deltas older than those that come are to be told, and are not yet."""
        return self._later is not None

    def streams(self, shows: Shows) -> list[Stream]:
        """Those of the instruments listened to."""
        mine = set(self._homes.values())
        return [stream for stream in shows.streams() if (stream.engine, stream.channel) in mine]

    def take(self, event: Event, shows: Shows) -> None:
        """It happened just now, or as long ago as nobody took it in."""
        if self.said.ended.is_set():
            return
        if isinstance(event, BookEvent | Trade):
            if self._later is not None:
                self._later.append(event)
            else:
                self._take_change(event)
            return
        self._tell_gathered()
        if isinstance(event, BookState):
            if event.state == "valid" and self._args.from_snapshot and event.symbol in self._homes:
                self._tell_book(event.symbol, shows)
        elif isinstance(event, Quote):
            if event.symbol in self._homes and not self._args.quiet:
                self._say(quote_line(event, *self._homes[event.symbol]))
        elif (line := line_of(event)) is not None:
            self._say(line)
        if isinstance(event, MissingSpan):
            for symbol in [name for name in self._told_at if self._homes[name] == (event.engine, event.channel)]:
                del self._told_at[symbol]
        elif isinstance(event, StreamState):
            self._on_state(event, shows)

    def _on_state(self, event: StreamState, shows: Shows) -> None:
        if event.state == "live" and self._args.record:
            for stream in self.streams(shows):
                if (stream.engine, stream.channel) == (event.engine, event.channel):
                    name = {"engine": stream.engine, "channel": stream.channel, "epoch": stream.epoch}
                    self._say({"event": "recording", **name, "first": stream.sequence + 1})
        if self._args.exit_at_end and all(stream.state == "ended" for stream in self.streams(shows)):
            self.said.end("end of stream")

    def tap(self, client: FeedClient, taken: Taken, now_ns: int) -> None:
        """A reader has taken this in, with --raw (bus/access/asking.py, Tap)."""
        if isinstance(taken, bytes):
            self.take_frame(taken, now_ns + SINCE_NS)

    def take_frame(self, frame: bytes, time_ns: int) -> None:
        """A frame came at that time, with --raw."""
        if self.said.ended.is_set():
            return
        self._say(frame_line(frame, time_ns))
        self.said.deltas += 1
        if self.said.deltas == self._args.count:
            self.said.end("counted")

    def take_comparison(self, compared: Comparison) -> None:
        """Tell what came of it; a difference ends the listening."""
        if compared.differences:
            self.said.differing = tuple(compared.differences)
            self.said.end("a book differs")
        self.said.verified += compared.equal
        self._say(comparison_line(compared))

    def cannot_write(self, what: str) -> None:
        """The recording takes no more."""
        self.said.problem = what
        self.said.end("the recording cannot be written")

    def tell_stats(self, shows: Shows) -> None:
        """Where each stream stands."""
        for stream in self.streams(shows):
            self._say(stats_line(stream, time.time_ns()))

    def _take_change(self, event: BookEvent | Trade) -> None:
        if isinstance(event, Trade):
            self.said.trades.setdefault(event.symbol, deque(maxlen=TAPE_MAX)).appendleft(event)
            return
        self._gathered.append(event)
        if not event.more:
            self._tell_gathered()

    def _tell_gathered(self) -> None:
        """The deltas of one command, as far as they are wanted and not beyond the end."""
        args = self._args
        events, self._gathered = self._gathered, []
        for line, event in delta_lines([event for event in events if event.symbol in self._homes]):
            sequence = line["seq"]
            if self.said.ended.is_set():
                return
            if args.from_snapshot and not self._is_behind_book(event, sequence):
                continue
            if sequence < args.from_seq:
                continue
            if args.until_seq and sequence > args.until_seq:  # that delta is another book's, or was passed
                self.said.end("reached")
                return
            if not (args.quiet or args.raw or args.stats):
                self._say(line)
            if not args.raw:
                self.said.deltas += 1
            if sequence == args.until_seq:
                self.said.end("reached")
            elif self.said.deltas == args.count and not args.raw:
                self.said.end("counted")

    def _is_behind_book(self, event: BookEvent, sequence: int) -> bool:
        """Whether the book that was told, if one was, is without this delta."""
        told_at = self._told_at.get(event.symbol)
        return told_at is not None and (event.epoch, sequence) > told_at

    def _tell_book(self, symbol: str, shows: Shows) -> None:
        """The book as it now stands; deltas are told from there on."""
        book = shows.book(symbol)
        if book.valid and symbol not in self._told_at:
            self._told_at[symbol] = (book.epoch, book.sequence)
            self._say(book_line(book, *self._homes[symbol]))

    def _say(self, line: JsonLine) -> None:
        if len(self.said.lines) >= UNSAID_MAX:
            self.said.lines.popleft()
        self.said.lines.append(line)
        if line["event"] not in UNSHOWN and "seq" not in line:
            self.said.seen.append(in_words(line))

    # Beside a venue

    async def hear(self, feed: Feed) -> None:
        """End it all when not one stream has had a book in time. Raises: CannotConnect."""
        await asyncio.sleep(HEAR_S)
        streams = self.streams(feed)
        if all(stream.state in HEARING for stream in streams):
            self.said.end("nothing heard")
            feeds = ", ".join(sorted({f"engine-{stream.engine}" for stream in streams})) or "any engine"
            raise CannotConnect(f"nothing heard of {feeds} within {HEAR_S:g} s")

    async def verify(self, feed: Feed) -> None:
        """Again and again, one stream after the other, by one machine after the other."""
        mine = set(self._homes.values())
        for turn in itertools.count():
            await asyncio.sleep(VERIFY_S)
            for compared in await feed.verify(turn):
                if (compared.engine, compared.channel) in mine:
                    self.take_comparison(compared)

    async def stats(self, feed: Feed) -> None:
        """Again and again."""
        while True:
            await asyncio.sleep(STATS_S)
            self.tell_stats(feed)

    async def tell_history(self, feed: Feed) -> None:
        """The deltas from --from-seq or --from-time on, before any that came meanwhile. Raises: CannotConnect."""
        try:
            await self._tell_history(feed)
        except HistoryError as e:
            self.said.end("what was cannot be told")
            raise CannotConnect(f"what was is not told: {e}") from None

    async def _tell_history(self, feed: Feed) -> None:
        args = self._args
        while not (streams := self.streams(feed)) or any(stream.state != "live" for stream in streams):
            await asyncio.sleep(LOOK_S)
        told: dict[tuple[int, int], tuple[int, int]] = {}  # by stream: epoch and sequence up to which
        for stream in streams:
            home, last = (stream.engine, stream.channel), (stream.epoch, stream.sequence)
            told[home] = last
            symbols = [symbol for symbol, its in self._homes.items() if its == home]
            if args.from_time:
                history = feed.history(*symbols, from_ns=args.from_time)
            elif args.from_seq <= stream.sequence:
                history = feed.history(*symbols, first=args.from_seq, last=stream.sequence, epoch=stream.epoch)
            else:
                continue
            async for event in history:
                if (event.epoch, event.sequence) <= last:
                    self._take_change(event)
        later, self._later = self._later or [], None
        for event in later:
            if (event.epoch, event.sequence) > told.get(self._homes.get(event.symbol, (0, 0)), (0, 0)):
                self._take_change(event)


def chosen(known: Iterable[Instrument], symbols: Sequence[str]) -> list[Instrument]:
    """The instruments asked for, or all there are. Raises: CannotConnect."""
    by_symbol = {instrument.symbol: instrument for instrument in known}
    if not by_symbol:
        raise CannotConnect("no engine is known there, or none has instruments")
    missing = [symbol for symbol in symbols if symbol not in by_symbol]
    if missing:
        raise CannotConnect(f"no such symbol: {', '.join(missing)}; there are {', '.join(sorted(by_symbol))}")
    return [by_symbol[symbol] for symbol in symbols] or sorted(by_symbol.values(), key=lambda i: i.id)

"""Listens to a venue's feed as any stranger could: a ladder on a terminal, one JSON object a line anywhere else.

It asks one machine, any, who publishes what; subscribes to the engines; takes its snapshots from a fabric node, and
what it misses from wherever it can be had. Gaps, repairs and changes of state are part of what it shows.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import grpc
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bus.access.directory import Changed, Directory, Entry, Event
from bus.access.exchange import DirectoryError, DirectoryLoop, ask
from bus.access.subscriber import Subscriber
from bus.reader.history import HistoryError
from bus.stream.actions import (
    Action,
    Applied,
    AskRange,
    AskSnapshot,
    Limits,
    MissingSpan,
    Standing,
    State,
    StateChanged,
)
from bus.stream.conflation import Quoted, QuoteReader
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import BUY_SIDE, SELL_SIDE, MirrorBook
from proto.cluster import Instrument
from proto.dial import Parser
from proto.feed import OP_MASK, TRADE, FeedError, decode
from proto.feed import SELL as SELL_BIT
from proto.marketdata_pb2 import HistoryRequest
from proto.snapshot import Snapshot
from tools.ladder import DEPTH, VALID, LadderView, Level, draw, tape
from tools.tail.lines import Line, book_line, frame_line, lines_of, quote_line, sizes_of, stats_line
from tools.tail.market_data import Machine
from tools.tail.recorder import Recorder, Tap
from tools.tail.recording import FRAME, Player, Record, RecordingError, Writer, read, venue_of
from tools.tail.shadow import Recent, second_opinion

FINE_EXIT: Final = 0
DIFFERS_EXIT: Final = 1
USAGE_EXIT: Final = 2
CONNECT_EXIT: Final = 3
GAP_EXIT: Final = 4

WAIT_S: Final = 0.3  # between two tries, with --wait
CONNECT_S: Final = 5.0  # for the machine named to answer
REFUSED_S: Final = 1.0  # how long one that cannot be reached is tried again
HEAR_S: Final = 10.0  # for the first book
REDRAW_S: Final = 0.1
FLUSH_S: Final = 0.02
VERIFY_S: Final = 1.0
CATCH_UP_S: Final = 3.0  # to reach the sequence of another machine's snapshot
AGAIN_S: Final = 0.1  # between two requests for it
RECORDED_S: Final = 2.0  # at the end, for the recording to have all that was shown
STATS_S: Final = 1.0
TAPE_MAX: Final = 20  # trades
AROUND_LEVELS: Final = 5  # lines of a ladder that are no levels, and one for the cursor
UNSHOWN: Final = ("verified", "quote", "book", "frame", "stats")  # lines that are no events below a ladder
SEEN_MAX: Final = 5  # events shown below a ladder
PLAYED_AHEAD: Final = 10_000  # lines, before they are printed
UNSAID_MAX: Final = 1_000_000  # lines waiting for a reader who is that much too slow

STYLES: Final = {
    "": "",
    "bid": "green",
    "ask": "red",
    "price": "bold",
    "dim": "dim",
    "head": "bold",
    "alarm": "bold reverse",
}

EXAMPLES: Final = """\
examples:
  python -m tools.tail_feed 127.0.0.1:4001                      the first book, as a ladder
  python -m tools.tail_feed 127.0.0.1:4001 --symbol BRAVO --depth 5
  python -m tools.tail_feed 127.0.0.1:4001 --json --count 20    twenty deltas of all books
  python -m tools.tail_feed 127.0.0.1:4001 --verify --quiet | cat
  python -m tools.tail_feed 127.0.0.1:4001 --raw --count 1      one frame, field by field
  python -m tools.tail_feed 127.0.0.1:4001 --record feed.rec    keep what comes; look at it again, faster:
  python -m tools.tail_feed --play feed.rec --speed 4 --symbol ALFA
  python -m tools.tail_feed 127.0.0.1:4001 --json --from-time 2026-01-05T14:30      out of the engine's log
  python -m tools.tail_feed 127.0.0.1:4001 --feed 1=tcp://127.0.0.1:6000      engine 1 through a proxy
"""


class CannotConnect(Exception):
    """Nobody there, or nothing to read; the text says which."""


@dataclass(slots=True)
class Said:
    """What there is to print, and why the listening ends."""

    lines: deque[Line] = field(default_factory=deque)
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=SEEN_MAX))
    trades: dict[int, deque[tuple[bool, int, int]]] = field(default_factory=dict)  # by instrument, the newest first
    deltas: int = 0
    verified: int = 0
    differing: tuple[str, ...] = ()
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = "interrupted"

    def end(self, why: str) -> None:
        if not self.ended.is_set():
            self.why = why
            self.ended.set()


class Listener:
    """The venue's streams as one stranger reads them."""

    def __init__(self, args: argparse.Namespace, entries: Sequence[Entry], instruments: Sequence[Instrument]) -> None:
        self.instruments = list(instruments)
        self.said = Said()
        self._args = args
        self._count = args.count
        self._wanted = {instrument.id for instrument in instruments}
        self._overrides = _overrides(args.feed, sorted({instrument.engine for instrument in instruments}))
        self._entries = {entry.name: entry for entry in entries}
        self._recent: dict[FeedClient, Recent] = {}
        self._told: dict[FeedClient, None] = {}  # streams whose books were told, with --from-snapshot
        self._subscriber = Subscriber(
            self._sources, random.Random(), listen=self.on_action, quoted=self.on_quote,
            limits=Limits(conflate=args.conflate),
        )  # fmt: skip
        self._loop: DirectoryLoop | None = None
        self._recorder: Recorder | None = None
        self._tap: Tap | None = None
        # Older deltas are fetched and told first: those that come meanwhile wait here.
        self._later: list[tuple[FeedClient, Applied]] | None = None
        if (args.from_seq or args.from_time) and not args.play:
            self._later = []

    @property
    def wants_history(self) -> bool:
        """Whether deltas older than those that come are to be told, and are not yet."""
        return self._later is not None

    @property
    def wants_stats(self) -> bool:
        return bool(self._args.stats)

    @property
    def clients(self) -> list[FeedClient]:
        streams = dict.fromkeys((instrument.engine, instrument.channel) for instrument in self.instruments)
        clients = self._subscriber.clients
        return [clients[stream] for stream in streams if stream in clients]

    def client_of(self, instrument: Instrument) -> FeedClient | None:
        return self._subscriber.clients.get((instrument.engine, instrument.channel))

    def start(self) -> None:
        """Subscribe, and follow the directory for engines that move."""
        if self._args.record:
            writer = Writer(self._args.record, self.instruments, time.time_ns())
            self._recorder = Recorder(writer, self._sources, self._on_recording)
        if self._args.raw:
            self._tap = Tap(self._on_frame)
        directory = Directory()
        self._loop = DirectoryLoop(directory, [self._args.machine, *(entry.grpc for entry in self._entries.values())])
        self._loop.listen(self._on_event)
        self._loop.start()
        for entry in self._entries.values():
            self._follow(entry)

    async def stop(self) -> None:
        if self._loop:
            await self._loop.stop()
        if self._recorder:
            if not await self._recorder.reach(self.clients, RECORDED_S):
                print("tail_feed: the recording ends before what was shown", file=sys.stderr)
            await self._recorder.stop()
        if self._tap:
            self._tap.stop()
        await self._subscriber.stop()

    def now_ns(self) -> int:
        """On the clock that the readers' times are of."""
        return time.monotonic_ns()

    def tell_stats(self) -> None:
        """Where each stream stands."""
        for client in self.clients:
            self._say(stats_line(client, time.time_ns()))

    async def tell_history(self) -> None:
        """The deltas from --from-seq or --from-time on, before any that came meanwhile. Raises: CannotConnect."""
        try:
            await self._tell_history()
        except BaseException:
            self.said.end("what was cannot be told")
            raise

    async def _tell_history(self) -> None:
        assert self._later is not None
        while not all(client.epoch and client.state is State.LIVE for client in self.clients) or not self.clients:
            await asyncio.sleep(FLUSH_S)
        for client in self.clients:
            later = [applied.first for each, applied in self._later if each is client and applied.epoch == client.epoch]
            last = min(later, default=client.next_seq) - 1
            if self._args.from_time:
                older = await self._logged(client, last, from_ns=self._args.from_time)
            else:
                older = await self._older(client, self._args.from_seq, last)
            for applied in older:
                self._tell(client, applied)
        later_still, self._later = self._later, None
        for client, applied in later_still:
            self._tell(client, applied)

    async def _older(self, client: FeedClient, first: int, last: int) -> list[Applied]:
        """What was published from `first` to `last`. Raises: CannotConnect when nobody has it any more."""
        out: list[Applied] = []
        for target in self.sources(client.engine):
            machine = Machine(target)
            try:
                while first <= last:
                    frames = await machine.range(client.engine, client.channel, client.epoch, first, last)
                    for frame in map(decode, frames):
                        skip = max(0, first - frame.header.first_seq)
                        rows = frame.rows[skip : skip + last + 1 - first]
                        times = [(max(0, at - skip), time_ns) for at, time_ns in frame.times]
                        if rows:
                            end = first + len(rows) - 1
                            out.append(Applied(client.epoch, first, end, rows, times, frame.extras))
                            first = end + 1
            except (grpc.aio.AioRpcError, FeedError, LookupError):
                continue
            finally:
                await machine.close()
            return out
        # It is older than what is kept for repair: the engine's log has it.
        return out + await self._logged(client, last, epoch=client.epoch, first_seq=first, last_seq=last)

    async def _logged(self, client: FeedClient, last: int, **asked: int) -> list[Applied]:
        """What its engine's log tells of a stream, up to `last` of this epoch. Raises: CannotConnect."""
        request = HistoryRequest(engine=client.engine, channel=client.channel, **asked)
        out: list[Applied] = []
        why = "it is not there"
        for target in self.homes(client.engine):
            machine = Machine(target)
            try:
                async for frame in machine.history(request):
                    header = frame.header
                    rows = (
                        frame.rows if header.epoch < client.epoch else frame.rows[: max(0, last + 1 - header.first_seq)]
                    )
                    if rows:
                        end = header.first_seq + len(rows) - 1
                        out.append(Applied(header.epoch, header.first_seq, end, rows, frame.times, frame.extras))
                return out
            except HistoryError as e:
                why = str(e)
            finally:
                await machine.close()
        raise CannotConnect(f"engine-{client.engine} does not tell what was: {why}")

    def sources(self, engine: int) -> list[str]:
        """Who may know an engine's stream: fabric nodes, the one asked first at the head, then the engine."""
        if self._args.source:
            return [self._args.source]
        fabrics = [entry.grpc for entry in self._entries.values() if entry.fabric and not entry.left]
        fabrics.sort(key=lambda target: target != self._args.machine)
        return fabrics + self.homes(engine)

    def homes(self, engine: int) -> list[str]:
        """The engine itself, wherever it is now."""
        entries = self._entries.values()
        return [entry.grpc for entry in entries if entry.engine == engine and not entry.fabric and not entry.left]

    async def hear(self) -> None:
        """End it all when not one stream has had a book in time. Raises: CannotConnect."""
        await asyncio.sleep(HEAR_S)
        if not any(client.epoch and client.state is not State.JOINING for client in self.clients):
            self.said.end("nothing heard")
            feeds = ", ".join(sorted({f"engine-{client.engine}" for client in self.clients})) or "any engine"
            raise CannotConnect(f"nothing heard of {feeds} within {HEAR_S:g} s")

    async def verify(self) -> None:
        """Again and again, one stream after the other, by one machine after the other."""
        machines: dict[str, Machine] = {}
        try:
            for turn in itertools.count():
                await asyncio.sleep(VERIFY_S)
                for client in self.clients:
                    for target in self._others(client.engine, turn)[:1]:
                        machines.setdefault(target, Machine(target))
                        await self._verify(client, machines[target])
        finally:
            for machine in machines.values():
                await machine.close()

    async def verify_once(self, turn: int, timeout_s: float) -> int:
        """Each stream once, as soon as it is live; how many could be compared in time."""
        compared = 0
        deadline = time.monotonic() + timeout_s
        for client in self.clients:
            done = False
            while not done and time.monotonic() < deadline:
                await asyncio.sleep(FLUSH_S)
                for target in self._others(client.engine, turn)[:1] if client.state is State.LIVE else ():
                    machine = Machine(target)
                    done = await self._verify(client, machine)
                    await machine.close()
            compared += done
        return compared

    def _others(self, engine: int, turn: int) -> list[str]:
        """Who can give a second opinion: at first the engine itself, then everyone in turn but our own source."""
        own, *others = [*self.sources(engine), *self.homes(engine)]
        others = list(dict.fromkeys(target for target in reversed(others) if target != own)) or [own]
        turn %= len(others)
        return others[turn:] + others[:turn]

    async def _verify(self, client: FeedClient, machine: Machine) -> bool:
        """Compare with one machine's books, and tell what came of it; False if they could not be compared in time.

        A comparison wants our books whole and at that sequence, or beyond it with every delta between: so it waits for
        a repair, and asks again where a snapshot of our own or a new epoch came between.
        """
        name = next((entry.name for entry in self._entries.values() if entry.grpc == machine.target), machine.target)
        deadline = time.monotonic() + CATCH_UP_S
        stream = {"engine": client.engine, "channel": client.channel}
        why = "no snapshot"
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                snapshot = await machine.snapshot(client.engine, client.channel, (), left_s)
            except grpc.aio.AioRpcError as e:
                why = f"{e.code().name}: {e.details()}".rstrip(": ")
                await asyncio.sleep(AGAIN_S)  # it doubts its own book, perhaps; if it is down, another will be asked
                continue
            except FeedError as e:
                why = str(e)
                continue
            opinion, why = await self._opinion(client, snapshot, deadline)
            if opinion is not None:
                self._tell_opinion(client, name, snapshot, *opinion)
                return True
        self._say({"event": "unverified", **stream, "with": name, "why": why})
        return False

    async def _opinion(
        self, client: FeedClient, snapshot: Snapshot, deadline: float
    ) -> tuple[tuple[int, tuple[str, ...]] | None, str]:
        """The comparison, once our books are whole and reach the snapshot's; or nothing, and why."""
        recent = self._recent.setdefault(client, Recent())
        while True:
            if client.epoch > snapshot.epoch:
                return None, "the epoch changed meanwhile"
            behind = client.position < (snapshot.epoch, snapshot.last_seq)
            if not behind and client.state is State.LIVE and not client.doubted:
                opinion = second_opinion(client, recent, snapshot)
                return opinion, "" if opinion else "not every delta since was seen"
            if time.monotonic() > deadline:
                return None, f"the stream is {client.state.value}" + (", behind it" if behind else "")
            await asyncio.sleep(FLUSH_S)

    def _tell_opinion(
        self, client: FeedClient, name: str, snapshot: Snapshot, carried: int, differing: tuple[str, ...]
    ) -> None:
        epoch, sequence = client.position
        line: Line = {
            "event": "differs" if differing else "verified",
            "engine": client.engine,
            "channel": client.channel,
            "epoch": epoch,
            "sequence": sequence,
            "with": name,
            "carried": carried,
            "books": len(snapshot.books),
            "orders": sum(len(book.bids) + len(book.asks) for book in snapshot.books),
        }
        if differing:
            line["differences"] = list(differing)
            self.said.differing = differing
            self.said.end("a book differs")
        else:
            self.said.verified += 1
        self._say(line)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Changed):
            self._entries[event.entry.name] = event.entry
            self._follow(event.entry)

    def _follow(self, entry: Entry) -> None:
        mine = any(instrument.engine == entry.engine for instrument in self.instruments)
        if not entry.fabric and not entry.left and mine:
            endpoint = self._overrides.get(entry.engine, entry.feed)
            self._subscriber.follow(entry.engine, endpoint, entry.channels)
            if self._recorder:
                self._recorder.follow(entry.engine, endpoint, entry.channels)
            if self._tap:
                self._tap.follow(entry.engine, endpoint, entry.channels)

    def _on_recording(self, client: FeedClient) -> None:
        """Its books are whole now: from here on the recording misses nothing."""
        stream = {"engine": client.engine, "channel": client.channel}
        self._say({"event": "recording", **stream, "epoch": client.epoch, "first": client.next_seq})

    def _on_frame(self, engine: int, frame: bytes, now_ns: int) -> None:
        if self.said.ended.is_set():
            return
        self._say(frame_line(frame, now_ns))
        self.said.deltas += 1
        if self.said.deltas == self._count:
            self.said.end("counted")

    def on_quote(self, reader: QuoteReader, quoted: Quoted | StateChanged) -> None:
        """Take in a quote, where the stream itself was too fast, or that none comes in time. Called on the loop."""
        client = self._subscriber.clients.get((reader.engine, reader.channel))
        if client is None or self.said.ended.is_set():
            return
        if isinstance(quoted, StateChanged):
            stream = {"engine": reader.engine, "channel": reader.channel}
            change = {"from": quoted.before.value, "to": quoted.after.value, "why": quoted.reason}
            self._say({"event": "quotes", **stream, **change})
            return
        if client.state is State.LAGGED and quoted.quote.instrument in self._wanted and not self._args.quiet:
            self._say(quote_line(client, quoted))

    def quotes_of(self, instrument: Instrument) -> QuoteReader | None:
        """Who reads the quotes of a book whose stream was too fast, and has one; None: none came, or it is too old."""
        reader = self._subscriber.quotes.get((instrument.engine, instrument.channel))
        if reader is None or reader.state is not State.LIVE or instrument.id not in reader.quotes:
            return None
        return reader

    def _sources(self, engine: int, asked: AskRange | AskSnapshot) -> Sequence[str]:
        if isinstance(asked, AskSnapshot) and asked.home:
            return self.homes(engine)
        return self.sources(engine)

    def on_action(self, client: FeedClient, action: Action) -> None:
        """Take in what a reader did. Called on the loop, so it only notes what is to be printed."""
        if isinstance(action, Applied):
            self._recent.setdefault(client, Recent()).applied(action)
        elif isinstance(action, MissingSpan):
            self._recent.setdefault(client, Recent()).forget()
            self._told.pop(client, None)
        if self.said.ended.is_set():
            return
        if self._later is not None and isinstance(action, Applied):
            self._later.append((client, action))
            return
        if self._args.from_snapshot and client not in self._told:
            if isinstance(action, StateChanged) and action.after is State.LIVE:
                self._books_soon(client)
            if isinstance(action, Applied):
                return  # it is in the books that will be told
        self._tell(client, action)
        if self._args.exit_at_end and all(client.state is State.ENDED for client in self.clients):
            self.said.end("end of stream")

    def _tell(self, client: FeedClient, action: Action) -> None:
        """What the action has to say, unless it is not wanted, or beyond the end."""
        args = self._args
        for line in lines_of(client, action, self._wanted.__contains__):
            if not isinstance(action, Applied):
                self._say(line)
                continue
            if self.said.ended.is_set():
                return
            if line["event"] in ("execute", "trade"):
                self._trade(action, line)
            if line["seq"] < args.from_seq:
                continue
            if args.until_seq and line["seq"] > args.until_seq:  # that delta is another book's, or was passed
                self.said.end("reached")
                return
            if not (args.quiet or args.raw or args.stats):
                self._say(line)
            if not args.raw:
                self.said.deltas += 1
            if line["seq"] == args.until_seq:
                self.said.end("reached")
            elif self.said.deltas == self._count and not args.raw:
                self.said.end("counted")

    def _trade(self, applied: Applied, line: Line) -> None:
        op, instrument, _, price, quantity, _ = applied.rows[line["seq"] - applied.first]
        sold = bool(op & SELL_BIT) == (op & OP_MASK == TRADE)  # of an execution the bit is the resting order's side
        self.said.trades.setdefault(instrument, deque(maxlen=TAPE_MAX)).appendleft((sold, price, quantity))

    def _books_soon(self, client: FeedClient) -> None:
        """Tell them when all that came with this action is in them."""
        asyncio.get_running_loop().call_soon(self._tell_books, client)

    def _tell_books(self, client: FeedClient) -> None:
        """The stream's books as they now stand; deltas are told from here on."""
        if client.state is State.LIVE and client not in self._told:
            self._told[client] = None
            for instrument in client.mirror.books:
                if instrument in self._wanted:
                    self._say(book_line(client, instrument))

    def _say(self, line: Line) -> None:
        if len(self.said.lines) >= UNSAID_MAX:
            self.said.lines.popleft()
        self.said.lines.append(line)
        if line["event"] not in UNSHOWN and "seq" not in line:
            self.said.seen.append(in_words(line))


class Replayed(Listener):
    """A recording, told as if it came now: at its own speed, another, as fast as may be, or step by step."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._records = read(args.play)
        try:
            first = next(self._records)
        except StopIteration:
            raise RecordingError("there is nothing in it") from None
        venue = venue_of(first)
        entry = Entry("recording", 0, False, 0, 0, 0, "", "", tuple(venue), 1)
        super().__init__(args, (), chosen([entry], args.symbol))
        self._player = Player(venue)
        self._began_ns = first.time_ns
        self._books_due: list[FeedClient] = []

    @property
    def clients(self) -> list[FeedClient]:
        streams = dict.fromkeys((instrument.engine, instrument.channel) for instrument in self.instruments)
        return [self._player.clients[stream] for stream in streams]

    def client_of(self, instrument: Instrument) -> FeedClient | None:
        return self._player.clients.get((instrument.engine, instrument.channel))

    def start(self) -> None:
        """Nothing is to be subscribed to."""

    def now_ns(self) -> int:
        return self._player.now_ns

    async def hear(self) -> None:
        """The whole recording. Raises: RecordingError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        speed = 1.0 if self._args.speed is None else self._args.speed
        steps: asyncio.Queue[bool] = asyncio.Queue()
        if self._args.step:
            threading.Thread(target=_count_lines, args=(sys.stdin.fileno(), loop, steps), daemon=True).start()
        try:
            for record in self._records:
                if self._args.step and record.kind == FRAME:
                    if not await steps.get():
                        break
                elif speed and not self._args.step:
                    due = began + (record.time_ns - self._began_ns) / 1e9 / speed
                    if due > loop.time():
                        await asyncio.sleep(due - loop.time())
                elif len(self.said.lines) > PLAYED_AHEAD:
                    await asyncio.sleep(0)
                self._play(record)
                if self.said.ended.is_set():
                    return
            self.said.end("end of the recording")
        except BaseException:
            self.said.end("the recording cannot be read")
            raise

    def _play(self, record: Record) -> None:
        if self._args.raw and record.kind == FRAME:
            self._on_frame(record.engine, record.body, record.time_ns)
        for client, action in self._player.play(record):
            self.on_action(client, action)
        while self._books_due:
            self._tell_books(self._books_due.pop())

    def _books_soon(self, client: FeedClient) -> None:
        self._books_due.append(client)


def _count_lines(descriptor: int, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bool]) -> None:
    """Put True for each line that comes, then False. Whoever ends before that need not wait for it."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
        while read := os.read(descriptor, 65_536):
            for _ in range(read.count(b"\n")):
                loop.call_soon_threadsafe(lines.put_nowait, True)
        loop.call_soon_threadsafe(lines.put_nowait, False)


def in_words(line: Line) -> str:
    """An event for people: `gap 3,001 to 3,007 (frame)`."""
    span = f"{line['first']:,} to {line['last']:,}" if "last" in line else ""
    stream = f"engine-{line['engine']}" if "engine" in line else ""
    match line["event"]:
        case "gap":
            text = f"gap {span} ({line['cause']})"
        case "repaired":
            text = f"repaired {span} by {line['how']} in {line['took_ms']:.1f} ms"
        case "recording":
            text = f"recorded from {line['first']:,} on"
        case "covered":
            text = f"a snapshot stands for {span}"
        case "quotes":
            text = f"best prices {line['from']} to {line['to']}: {line['why']}"
        case "state":
            text = f"{line['from']} to {line['to']}: {line['why']}"
        case "differs":
            text = f"DIFFERS from {line['with']}: {'; '.join(line['differences'])}"
        case "alarm":
            text = f"ALARM {line['what']}"
        case event:
            text = f"{event} {line.get('symbol', '')} {line.get('why', '')}".rstrip()
    return f"{datetime.now():%H:%M:%S}  {stream}  {text}"


def view_of(listener: Listener, instrument: Instrument, depth: int, now_ns: int, note: str = "") -> LadderView:
    """What the ladder shows of a book, and how far it is to be believed."""
    client = listener.client_of(instrument)
    book = client.mirror.books.get(instrument.id) if client else None
    tick, lot = sizes_of(book) if book else (instrument.tick_size, instrument.lot_size)
    state, stream, epoch, sequence, gaps, age_s, lag_ms = "no book", "down", 0, 0, 0, 0.0, None
    if client:
        epoch, sequence = client.position
        stream, gaps = client.state.value, client.counters.gaps
        age_s = max(0, now_ns - client.heard_ns) / 1e9
        lag_ms = client.age_ns(client.heard_ns) / 1e6 if client.epoch else None
        standing = client.standing(instrument.id)
        state = "no book" if standing is Standing.UNKNOWN else standing.name.lower()
    bids, asks = _levels(book, BUY_SIDE, depth), _levels(book, SELL_SIDE, depth)
    last = (book.last_price, book.last_quantity) if book and book.last_trade_id else None
    if client and client.state is State.LAGGED:
        reader = listener.quotes_of(instrument)
        state = "lagged"
        if reader is not None:
            quoted, lag_ms = reader.quotes[instrument.id], reader.late_ns / 1e6
            quote, state, epoch, sequence = quoted.quote, "conflated", quoted.epoch, quoted.sequence
            bids = [Level(quote.bid_price, quote.bid_quantity, quote.bid_count)] if quote.bid_count else []
            asks = [Level(quote.ask_price, quote.ask_quantity, quote.ask_count)] if quote.ask_count else []
            last = (quote.last_price, quote.last_quantity) if quote.last_trade_id else None
    assert state != VALID or book is not None
    return LadderView(
        symbol=instrument.symbol,
        engine=instrument.engine,
        channel=instrument.channel,
        epoch=epoch,
        sequence=sequence,
        state=state,
        stream=stream,
        gaps=gaps,
        age_s=age_s,
        tick_size=tick,
        lot_size=lot,
        bids=bids,
        asks=asks,
        last=last,
        note=note,
        lag_ms=lag_ms,
    )


def _levels(book: MirrorBook | None, side: int, depth: int) -> list[Level]:
    return [Level(*level) for level in book.levels(side, depth)] if book else []


def _overrides(given: Sequence[str], engines: Sequence[int]) -> dict[int, str]:
    """Feed endpoints by engine. Raises: CannotConnect when it is not clear which engine one is for."""
    out: dict[int, str] = {}
    for text in given:
        engine, equals, endpoint = text.rpartition("=")
        if equals:
            out[int(engine)] = endpoint
        elif len(engines) == 1:
            out[engines[0]] = endpoint
        else:
            named = ", ".join(map(str, engines))
            raise CannotConnect(f"--feed {text}: of which engine ({named})? Say --feed ENGINE={text}, or --symbol")
    return out


async def listen(args: argparse.Namespace, out: TextIO) -> int:
    """From the first question to the exit code. Raises: CannotConnect; BrokenPipeError when nobody reads `out`."""
    listener = await _listener(args)
    said = listener.said
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, said.end, "interrupted")
    console = Console(file=out)
    ladder = not (args.json or args.raw) and console.is_terminal and not console.is_dumb_terminal
    tasks = [loop.create_task(listener.hear())]
    if args.verify:
        tasks.append(loop.create_task(listener.verify()))
    if listener.wants_history:
        tasks.append(loop.create_task(listener.tell_history()))
    if args.stats:
        tasks.append(loop.create_task(_stats(listener)))
    try:
        listener.start()
        if ladder:
            await _draw(listener, args.depth, out)
        else:
            await _print(listener, out)
        for task in tasks:
            if task.done():
                task.result()
        return _exit_code(listener)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.stop()


async def _listener(args: argparse.Namespace) -> "Listener":
    """Of a recording, or of the venue as soon as it is there. Raises: CannotConnect, RecordingError."""
    if args.play:
        return Replayed(args)
    while True:
        try:
            entries = await _entries(args.machine)
            return Listener(args, entries, chosen(entries, args.symbol))
        except CannotConnect:
            if not args.wait:
                raise
            await asyncio.sleep(WAIT_S)


async def _stats(listener: "Listener") -> None:
    while True:
        await asyncio.sleep(STATS_S)
        listener.tell_stats()


async def _entries(machine: str) -> tuple[Entry, ...]:
    """All that the machine knows of. One that is busy may refuse a connection at first. Raises: CannotConnect."""
    deadline = time.monotonic() + REFUSED_S
    while True:
        try:
            return await ask(machine, CONNECT_S)
        except grpc.aio.AioRpcError as e:
            if e.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise CannotConnect(f"{machine}: {e.code().name.lower().replace('_', ' ')}") from None
            await asyncio.sleep(0.1)
        except DirectoryError as e:
            raise CannotConnect(f"{machine}: {e}") from None


def chosen(entries: Iterable[Entry], symbols: Sequence[str]) -> list[Instrument]:
    """The instruments asked for, or all there are. Raises: CannotConnect."""
    known = {i.symbol: i for entry in entries if not entry.fabric and not entry.left for i in entry.instruments}
    if not known:
        raise CannotConnect("no engine is known there, or none has instruments")
    missing = [symbol for symbol in symbols if symbol not in known]
    if missing:
        raise CannotConnect(f"no such symbol: {', '.join(missing)}; there are {', '.join(sorted(known))}")
    return [known[symbol] for symbol in symbols] or sorted(known.values(), key=lambda instrument: instrument.id)


async def _print(listener: Listener, out: TextIO) -> None:
    said = listener.said
    while True:
        ended = said.ended.is_set()
        while said.lines:
            print(json.dumps(said.lines.popleft()), file=out)
        if ended:
            break
        out.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await said.ended.wait()
    if listener.wants_stats:
        listener.tell_stats()
        while said.lines:
            print(json.dumps(said.lines.popleft()), file=out)
    summary = {"event": "end", "why": said.why, "deltas": said.deltas, "verified": said.verified}
    gaps = sum(client.counters.gaps for client in listener.clients)
    print(json.dumps({**summary, "gaps": gaps, "open_gaps": _open_gaps(listener)}), file=out, flush=True)


async def _draw(listener: Listener, depth: int, out: TextIO) -> None:
    said = listener.said
    console = Console(file=out)
    ascii_only = not (out.encoding or "").lower().startswith("utf")
    size = console.size
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            ended = said.ended.is_set()
            said.lines.clear()
            if size != console.size:  # what was drawn is folded anew, who knows how
                console.clear()
                size = console.size
            live.update(_picture(listener, depth, *size, ascii_only), refresh=True)
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDRAW_S):
                    await said.ended.wait()


def _picture(listener: Listener, depth: int, width: int, height: int, ascii_only: bool) -> Group:
    """The chosen book and what happens to it: as many levels as there is room for above the rest, `depth` at most."""
    chosen, *others = listener.instruments
    note = f"{listener.said.verified} times verified" if listener.said.verified else ""
    trades = listener.said.trades.get(chosen.id, ())
    below = [_text([(tape(tuple(trades), chosen.tick_size, chosen.lot_size, width - 1), "dim")])]
    below += [_text([(f"  {seen}", "dim")]) for seen in listener.said.seen]
    if listener.wants_stats:
        below += [_text([(f"  {_counted(client)}", "dim")]) for client in listener.clients]
    if others:
        symbols = " ".join(instrument.symbol for instrument in others)
        below.append(_text([(f"  more with --symbol: {symbols}", "dim")]))
    levels = max(1, min(depth, (height - AROUND_LEVELS - len(below)) // 2))
    view = view_of(listener, chosen, levels, listener.now_ns(), note)
    lines = draw(view, levels, width - 1, ascii_only)
    return Group(*(_text((text, STYLES[style]) for text, style in line) for line in lines), *below)


def _counted(client: FeedClient) -> str:
    """All counters of a stream that are not 0, on one line."""
    counted = "  ".join(f"{name} {count:,}" for name, count in client.counters.as_dict().items() if count)
    return f"engine-{client.engine} channel {client.channel}: {counted}"


def _text(pieces: Iterable[tuple[str, str]]) -> Text:
    return Text.assemble(*pieces, no_wrap=True, overflow="crop")


def _open_gaps(listener: Listener) -> int:
    return sum(len(client.ledger.open) for client in listener.clients)


def _exit_code(listener: Listener) -> int:
    if listener.said.differing:
        return DIFFERS_EXIT
    return GAP_EXIT if _open_gaps(listener) else FINE_EXIT


def parser() -> argparse.ArgumentParser:
    out = Parser(
        prog="python -m tools.tail_feed",
        examples=f"{EXAMPLES}\n",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit 0 when it was told to end, 1 if --verify found a difference, 2 for wrong usage, 3 if it cannot "
        "connect,\n4 if a gap was open at the end.",
    )
    out.add_argument("machine", nargs="?", type=_endpoint, metavar="HOST:PORT", help="any engine or fabric node")
    out.add_argument("--symbol", action="append", default=[], metavar="NAME", help="only this book (repeatable)")
    out.add_argument("--depth", type=_count, default=DEPTH, metavar="N", help=f"levels a side; default {DEPTH}")
    out.add_argument("--count", type=_count, default=0, metavar="N", help="end after so many deltas")
    out.add_argument(
        "--from-seq", type=_count, default=0, metavar="N", help="tell the deltas from this sequence on, older ones too"
    )
    out.add_argument(
        "--from-time", type=_time, default=0, metavar="TIME",
        help="tell the deltas from this time on (2026-01-05T14:30, UTC if it does not say), of earlier epochs too",
    )  # fmt: skip
    out.add_argument("--until-seq", type=_count, default=0, metavar="N", help="end with the delta of that sequence")
    out.add_argument("--exit-at-end", action="store_true", help="end when every stream has said that it ends")
    out.add_argument("--wait", action="store_true", help="wait for a venue, and the symbols, to appear")
    out.add_argument("--raw", action="store_true", help="every frame as it comes, field by field, as JSON lines")
    out.add_argument("--stats", action="store_true", help="what the readers counted, each second, instead of deltas")
    out.add_argument("--record", type=Path, metavar="FILE", help="keep all that comes (tools/tail/recording.py)")
    out.add_argument("--play", type=Path, metavar="FILE", help="a recording instead of a venue")
    out.add_argument("--speed", type=_speed, metavar="X", help="of the recording; 0: as fast as may be; default 1")
    out.add_argument("--step", action="store_true", help="of the recording a frame for each line of stdin")
    out.add_argument("--from-snapshot", action="store_true", help="begin with the whole book, by order")
    out.add_argument("--json", action="store_true", help="JSON lines also on a terminal")
    out.add_argument(
        "--conflate", action="store_true", help="too far behind: go over to best prices alone, not to a new snapshot"
    )
    out.add_argument("--quiet", action="store_true", help="leave out the deltas: only what happens to the stream")
    out.add_argument("--verify", action="store_true", help="compare with another machine's books, again and again")
    out.add_argument("--source", type=_endpoint, metavar="HOST:PORT", help="ask this machine alone for what is missed")
    out.add_argument(
        "--feed",
        action="append",
        default=[],
        type=_feed,
        metavar="[ENGINE=]ENDPOINT",
        help="read this publisher instead",
    )
    return out


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"[^\s/]{1,255}:[0-9]{1,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def _feed(text: str) -> str:
    if not re.fullmatch(r"([0-9]{1,3}=)?[a-z]{3,6}://\S+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not [ENGINE=]ENDPOINT, such as 1=tcp://127.0.0.1:6000")
    return text


def _time(text: str) -> int:
    """Nanoseconds since the Unix epoch."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-01-05T14:30:00") from None
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is before 1970")
    return int(seconds * 1_000_000) * 1_000


def _speed(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed such as 4, 0.5, or 0")
    return float(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 1 a book differs, 2 wrong usage, 3 cannot connect, 4 a gap was open at the end."""
    given = parser()
    args = given.parse_args(argv)
    if (args.machine is None) == (args.play is None):
        given.error("HOST:PORT is needed, or --play FILE, not both")
    there = ("verify", "record", "wait", "source", "feed", "conflate", "from_time")
    if args.play and (wrong := [name for name in there if getattr(args, name)]):
        given.error(f"--{wrong[0].replace('_', '-')} does not go with --play: there is no venue")
    if not args.play and (args.step or args.speed is not None):
        given.error(f"--{'step' if args.step else 'speed'} goes with --play FILE only")
    if args.step and args.speed is not None:
        given.error("--speed does not go with --step")
    if args.from_time and args.from_seq:
        given.error("--from-time does not go with --from-seq")
    if args.from_snapshot and (args.from_seq or args.from_time):
        given.error("--from-snapshot does not go with --from-seq or --from-time: the book has what was before it")
    with contextlib.ExitStack() as files:
        try:
            if args.play:
                args.play = files.enter_context(args.play.open("rb"))
            if args.record:
                args.record = files.enter_context(args.record.open("wb"))
        except OSError as e:
            given.error(f"{e.filename}: {e.strerror}")
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        return asyncio.run(listen(args, sys.stdout))
    except RecordingError as e:
        print(f"tail_feed: {args.play.name}: {e}", file=sys.stderr)
        return CONNECT_EXIT
    except CannotConnect as e:
        print(f"tail_feed: {e}", file=sys.stderr)
        return CONNECT_EXIT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing complains at exit
        return FINE_EXIT
    except KeyboardInterrupt:
        return FINE_EXIT


if __name__ == "__main__":
    sys.exit(main())

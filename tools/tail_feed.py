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
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TextIO

import grpc
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bus.directory import Changed, Directory, Entry, Event
from bus.directory_service import DirectoryError, DirectoryLoop, ask
from bus.feed_client import (
    Action,
    Applied,
    AskRange,
    AskSnapshot,
    FeedClient,
    MissingSpan,
    Standing,
    State,
    StateChanged,
)
from bus.mirror import BUY_SIDE, SELL_SIDE, MirrorBook
from bus.subscriber import Subscriber
from proto.cluster import Instrument
from proto.feed import FeedError
from tools.feed_lines import Line, book_line, lines_of, sizes_of
from tools.ladder import DEPTH, VALID, LadderView, Level, draw
from tools.market_data import Machine
from tools.shadow import Recent, second_opinion

FINE_EXIT: Final = 0
DIFFERS_EXIT: Final = 1
USAGE_EXIT: Final = 2
CONNECT_EXIT: Final = 3
GAP_EXIT: Final = 4

CONNECT_S: Final = 5.0  # for the machine named to answer
REFUSED_S: Final = 1.0  # how long one that cannot be reached is tried again
HEAR_S: Final = 10.0  # for the first book
REDRAW_S: Final = 0.1
FLUSH_S: Final = 0.02
VERIFY_S: Final = 1.0
CATCH_UP_S: Final = 3.0  # to reach the sequence of another machine's snapshot
SEEN_MAX: Final = 5  # events shown below a ladder
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
  python -m tools.tail_feed 127.0.0.1:4001 --feed 1=tcp://127.0.0.1:6000      engine 1 through a proxy
"""


class CannotConnect(Exception):
    """Nobody there, or nothing to read; the text says which."""


@dataclass(slots=True)
class Said:
    """What there is to print, and why the listening ends."""

    lines: deque[Line] = field(default_factory=deque)
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=SEEN_MAX))
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
        self._subscriber = Subscriber(self._sources, random.Random(), listen=self.on_action)
        self._loop: DirectoryLoop | None = None

    @property
    def clients(self) -> list[FeedClient]:
        streams = dict.fromkeys((instrument.engine, instrument.channel) for instrument in self.instruments)
        clients = self._subscriber.clients
        return [clients[stream] for stream in streams if stream in clients]

    def client_of(self, instrument: Instrument) -> FeedClient | None:
        return self._subscriber.clients.get((instrument.engine, instrument.channel))

    def start(self) -> None:
        """Subscribe, and follow the directory for engines that move."""
        directory = Directory()
        self._loop = DirectoryLoop(directory, [self._args.machine, *(entry.grpc for entry in self._entries.values())])
        self._loop.listen(self._on_event)
        self._loop.start()
        for entry in self._entries.values():
            self._follow(entry)

    async def stop(self) -> None:
        if self._loop:
            await self._loop.stop()
        await self._subscriber.stop()

    def sources(self, engine: int) -> list[str]:
        """Who may know an engine's stream: fabric nodes, the one asked first at the head, then the engine."""
        fabrics = [entry.grpc for entry in self._entries.values() if entry.fabric and not entry.left]
        fabrics.sort(key=lambda target: target != self._args.machine)
        return fabrics + self.homes(engine)

    def homes(self, engine: int) -> list[str]:
        entries = self._entries.values()
        return [entry.grpc for entry in entries if entry.engine == engine and not entry.fabric and not entry.left]

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
        """Compare with one machine's books; False if that could not be done now."""
        try:
            snapshot = await machine.snapshot(client.engine, client.channel)
        except (grpc.aio.AioRpcError, FeedError):
            return False  # it is down, or doubts its own book: another will be asked
        deadline = time.monotonic() + CATCH_UP_S
        while client.position < (snapshot.epoch, snapshot.last_seq) and time.monotonic() < deadline:
            await asyncio.sleep(FLUSH_S)
        if client.state is not State.LIVE or client.doubted:
            return False
        opinion = second_opinion(client, self._recent.setdefault(client, Recent()), snapshot)
        if opinion is None:
            return False
        carried, differing = opinion
        name = next((entry.name for entry in self._entries.values() if entry.grpc == machine.target), machine.target)
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
        return True

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Changed):
            self._entries[event.entry.name] = event.entry
            self._follow(event.entry)

    def _follow(self, entry: Entry) -> None:
        mine = any(instrument.engine == entry.engine for instrument in self.instruments)
        if not entry.fabric and not entry.left and mine:
            endpoint = self._overrides.get(entry.engine, entry.feed)
            self._subscriber.follow(entry.engine, endpoint, entry.channels)

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
        if self._args.from_snapshot and client not in self._told:
            if isinstance(action, StateChanged) and action.after is State.LIVE:
                asyncio.get_running_loop().call_soon(self._tell_books, client)
            if isinstance(action, Applied):
                return  # it is in the books that will be told
        for line in lines_of(client, action, self._wanted.__contains__):
            if not (self._args.quiet and isinstance(action, Applied)):
                self._say(line)
            if isinstance(action, Applied):
                self.said.deltas += 1
                if self.said.deltas == self._count:
                    self.said.end("counted")
                    return

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
        if line["event"] not in ("verified", "book") and "seq" not in line:
            self.said.seen.append(in_words(line))


def in_words(line: Line) -> str:
    """An event for people: `gap 3,001 to 3,007 (frame)`."""
    span = f"{line['first']:,} to {line['last']:,}" if "first" in line else ""
    stream = f"engine-{line['engine']}" if "engine" in line else ""
    match line["event"]:
        case "gap":
            text = f"gap {span} ({line['cause']})"
        case "repaired":
            text = f"repaired {span} by {line['how']} in {line['took_ms']:.1f} ms"
        case "covered":
            text = f"a snapshot stands for {span}"
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
    state, stream, epoch, sequence, gaps, age_s = "no book", "down", 0, 0, 0, 0.0
    if client:
        epoch, sequence = client.position
        stream, gaps = client.state.value, client.counters.gaps
        age_s = max(0, now_ns - client.heard_ns) / 1e9
        standing = client.standing(instrument.id)
        state = "no book" if standing is Standing.UNKNOWN else standing.name.lower()
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
        bids=_levels(book, BUY_SIDE, depth),
        asks=_levels(book, SELL_SIDE, depth),
        last=(book.last_price, book.last_quantity) if book and book.last_trade_id else None,
        note=note,
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
    entries = await _entries(args.machine)
    listener = Listener(args, entries, chosen(entries, args.symbol))
    said = listener.said
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, said.end, "interrupted")
    ladder = not args.json and Console(file=out).is_terminal
    tasks = [loop.create_task(_hear(listener, out if not ladder else None))]
    if args.verify:
        tasks.append(loop.create_task(listener.verify()))
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


async def _hear(listener: Listener, out: TextIO | None) -> None:
    """End it all when not one stream has had a book in time."""
    await asyncio.sleep(HEAR_S)
    if not any(client.epoch and client.state is not State.JOINING for client in listener.clients):
        listener.said.end("nothing heard")
        feeds = ", ".join(sorted({f"engine-{client.engine}" for client in listener.clients})) or "any engine"
        raise CannotConnect(f"nothing heard of {feeds} within {HEAR_S:g} s")


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
    summary = {"event": "end", "why": said.why, "deltas": said.deltas, "verified": said.verified}
    gaps = sum(client.counters.gaps for client in listener.clients)
    print(json.dumps({**summary, "gaps": gaps, "open_gaps": _open_gaps(listener)}), file=out, flush=True)


async def _draw(listener: Listener, depth: int, out: TextIO) -> None:
    said = listener.said
    console = Console(file=out)
    ascii_only = not (out.encoding or "").lower().startswith("utf")
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            ended = said.ended.is_set()
            said.lines.clear()
            live.update(_picture(listener, depth, console.width, ascii_only), refresh=True)
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDRAW_S):
                    await said.ended.wait()


def _picture(listener: Listener, depth: int, width: int, ascii_only: bool) -> Group:
    chosen, *others = listener.instruments
    note = f"{listener.said.verified} times verified" if listener.said.verified else ""
    view = view_of(listener, chosen, depth, time.monotonic_ns(), note)
    lines = [_text((text, STYLES[style]) for text, style in line) for line in draw(view, depth, width - 1, ascii_only)]
    lines += [_text([(f"  {seen}", "dim")]) for seen in listener.said.seen]
    if others:
        symbols = " ".join(instrument.symbol for instrument in others)
        lines.append(_text([(f"  more with --symbol: {symbols}", "dim")]))
    return Group(*lines)


def _text(pieces: Iterable[tuple[str, str]]) -> Text:
    return Text.assemble(*pieces, no_wrap=True, overflow="crop")


def _open_gaps(listener: Listener) -> int:
    return sum(len(client.ledger.open) for client in listener.clients)


def _exit_code(listener: Listener) -> int:
    if listener.said.differing:
        return DIFFERS_EXIT
    return GAP_EXIT if _open_gaps(listener) else FINE_EXIT


class _Parser(argparse.ArgumentParser):
    """Help that begins with examples."""

    def format_help(self) -> str:
        return f"{EXAMPLES}\n{super().format_help()}"


def parser() -> argparse.ArgumentParser:
    out = _Parser(
        prog="python -m tools.tail_feed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit 0 when it was told to end, 1 if --verify found a difference, 2 for wrong usage, 3 if it cannot "
        "connect,\n4 if a gap was open at the end.",
    )
    out.add_argument("machine", type=_endpoint, metavar="HOST:PORT", help="any engine or fabric node")
    out.add_argument("--symbol", action="append", default=[], metavar="NAME", help="only this book (repeatable)")
    out.add_argument("--depth", type=_count, default=DEPTH, metavar="N", help=f"levels a side; default {DEPTH}")
    out.add_argument("--count", type=_count, default=0, metavar="N", help="end after so many deltas")
    out.add_argument("--from-snapshot", action="store_true", help="begin with the whole book, by order")
    out.add_argument("--json", action="store_true", help="JSON lines also on a terminal")
    out.add_argument("--quiet", action="store_true", help="leave out the deltas: only what happens to the stream")
    out.add_argument("--verify", action="store_true", help="compare with another machine's books, again and again")
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


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 1 a book differs, 2 wrong usage, 3 cannot connect, 4 a gap was open at the end."""
    args = parser().parse_args(argv)
    try:
        return asyncio.run(listen(args, sys.stdout))
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

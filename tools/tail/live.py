"""The ladder on a terminal, drawn again and again, and below it what happens to the stream."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bus.reader import Stream
from proto.dial import printable
from proto.instrument import Instrument
from tools.ladder import LadderView, draw, tape
from tools.tail.listener import Listener, Shows

REDRAW_S: Final = 0.1
AROUND_LEVELS: Final = 5  # lines of a ladder that are no levels, and one for the cursor
STYLES: Final = {
    "": "",
    "bid": "green",
    "ask": "red",
    "price": "bold",
    "dim": "dim",
    "head": "bold",
    "alarm": "bold reverse",
}


def is_terminal(out: TextIO) -> bool:
    """Whether a ladder can be drawn there."""
    console = Console(file=out)
    return console.is_terminal and not console.is_dumb_terminal


async def show(listener: Listener, shows: Shows, depth: int, stats: bool, out: TextIO) -> None:
    """Until the listening ends. Raises: OSError of `out`."""
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
            live.update(_picture(listener, shows, depth, stats, *size, ascii_only), refresh=True)
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDRAW_S):
                    await said.ended.wait()


def _picture(
    listener: Listener, shows: Shows, depth: int, stats: bool, width: int, height: int, ascii_only: bool
) -> Group:
    """The chosen book and what happens to it: as many levels as there is room for above the rest, `depth` at most."""
    chosen, *others = listener.instruments
    note = f"{listener.said.verified} times verified" if listener.said.verified else ""
    below = [text_of([(tape(tuple(listener.said.trades.get(chosen.symbol, ())), width - 1), "dim")])]
    below += [text_of([(f"  {seen}", "dim")]) for seen in listener.said.seen]
    if stats:
        below += [text_of([(f"  {_counted(stream)}", "dim")]) for stream in listener.streams(shows)]
    if others:
        symbols = " ".join(instrument.symbol for instrument in others)
        below.append(text_of([(f"  more with --symbol: {symbols}", "dim")]))
    levels = max(1, min(depth, (height - AROUND_LEVELS - len(below)) // 2))
    lines = draw(view_of(shows, chosen, levels, note), levels, width - 1, ascii_only)
    return Group(*(text_of((text, STYLES[style]) for text, style in line) for line in lines), *below)


def view_of(shows: Shows, instrument: Instrument, depth: int, note: str = "") -> LadderView:
    """What the ladder shows of a book, and how far it is to be believed."""
    home = (instrument.engine, instrument.channel)
    book = shows.book(instrument.symbol, depth)
    stream = next((stream for stream in shows.streams() if (stream.engine, stream.channel) == home), None)
    if stream is None:
        return LadderView(book, *home, "down", 0, note=note)
    return LadderView(book, *home, stream.state, stream.gaps, stream.lag_ms, note)


def _counted(stream: Stream) -> str:
    """All counters of a stream that are not 0, on one line."""
    counted = "  ".join(f"{name} {count:,}" for name, count in stream.counters.items() if count)
    return f"engine-{stream.engine} channel {stream.channel}: {counted}"


def text_of(pieces: Iterable[tuple[str, str]]) -> Text:
    """What came from elsewhere must not steer the terminal."""
    return Text.assemble(*((printable(text), style) for text, style in pieces), no_wrap=True, overflow="crop")

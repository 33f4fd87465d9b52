"""Listens to a venue's feed as any stranger could: a ladder on a terminal, one JSON object a line anywhere else.

It asks one machine, any, who publishes what; subscribes to the engines; takes its snapshots from a fabric node, and
what it misses from wherever it can be had. Gaps, repairs and changes of state are part of what it shows.
"""

import argparse
import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import grpc

from bus.access.directory import Entry
from bus.access.exchange import DirectoryError, ask
from bus.reader import Feed
from proto.dial import TCP, Parser, address, endpoint, printable, wrong_address
from proto.feed import TIME_MAX
from tools.ladder import DEPTH
from tools.tail.listen import CannotConnect, Frames, Listener, chosen
from tools.tail.play import RecordingError, play
from tools.tail.record import SEED, Recorder, Writer
from tools.tail.say import FINE_EXIT, CannotWrite, say_all

CONNECT_EXIT: Final = 3
WRITE_EXIT: Final = 5

WAIT_S: Final = 0.3  # between two tries, with --wait
CONNECT_S: Final = 5.0  # for the machine named to answer
REFUSED_S: Final = 1.0  # how long one that cannot be reached is tried again
COUNT_MAX: Final = 10**18

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


async def listen(args: argparse.Namespace, out: TextIO) -> int:
    """From the first question to the exit code.

    Raises: CannotConnect, RecordingError, CannotWrite; BrokenPipeError when nobody reads `out`.
    """
    if args.play:
        return await play(args, out)
    entries, listener = await _venue(args)
    taps: list[Frames | Recorder] = []
    if args.record:
        taps.append(Recorder(args.record, lambda why: listener.cannot_write(f"{args.record_name}: {why}")))
        args.record.begin(listener.instruments, time.time_ns())
    if args.raw:
        taps.append(Frames(listener))
    others = [e.grpc for e in entries if e.grpc != args.machine and not e.left and not wrong_address(e.grpc)]
    engines = {instrument.engine for instrument in listener.instruments}
    async with Feed(
        [args.machine, *others], conflate=args.conflate,
        feeds=_feeds(args.feed, sorted(engines)), engines=engines, source=args.source or "", taps=taps, seed=SEED,
    ) as feed:  # fmt: skip
        tasks: list[Coroutine[Any, Any, None]] = [_take(listener, feed), listener.hear(feed)]
        if args.verify:
            tasks.append(listener.verify(feed))
        if args.stats:
            tasks.append(listener.stats(feed))
        if listener.wants_history:
            tasks.append(listener.tell_history(feed))
        return await say_all(args, listener, feed, tasks, out)


async def _take(listener: Listener, feed: Feed) -> None:
    async for event in feed.events():
        listener.take(event, feed)


async def _venue(args: argparse.Namespace) -> tuple[tuple[Entry, ...], Listener]:
    """Who is there, as soon as somebody is. Raises: CannotConnect."""
    while True:
        try:
            entries = await _entries(args.machine)
            homes = [entry for entry in entries if not entry.fabric and not entry.left]
            return entries, Listener(args, chosen([i for entry in homes for i in entry.instruments], args.symbol))
        except CannotConnect:
            if not args.wait:
                raise
            await asyncio.sleep(WAIT_S)


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


def _feeds(given: Sequence[str], engines: Sequence[int]) -> dict[int, str]:
    """Feed endpoints by engine. Raises: CannotConnect when it is not clear which engine one is for."""
    out: dict[int, str] = {}
    for text in given:
        engine, equals, where = text.rpartition("=")
        if equals:
            out[int(engine)] = where
        elif len(engines) == 1:
            out[engines[0]] = where
        else:
            named = ", ".join(map(str, engines))
            raise CannotConnect(f"--feed {text}: of which engine ({named})? Say --feed ENGINE={text}, or --symbol")
    return out


# Options


def parser() -> argparse.ArgumentParser:
    out = Parser(
        prog="python -m tools.tail_feed",
        examples=f"{EXAMPLES}\n",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit 0 when it was told to end, 1 if --verify found a difference, 2 for wrong usage, 3 if it cannot "
        "connect,\n4 if a gap was open at the end, 5 if what it says, or the recording, cannot be written.",
    )
    out.add_argument("machine", nargs="?", type=address, metavar="HOST:PORT", help="any engine or fabric node")
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
    out.add_argument("--record", type=Path, metavar="FILE", help="keep all that comes (tools/tail/record.py)")
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
    out.add_argument("--source", type=address, metavar="HOST:PORT", help="ask this machine alone for what is missed")
    out.add_argument(
        "--feed",
        action="append",
        default=[],
        type=_feed,
        metavar="[ENGINE=]ENDPOINT",
        help="read this publisher instead",
    )
    return out


def _feed(text: str) -> str:
    engine, equals, where = text.rpartition("=")
    if equals and not (re.fullmatch("[0-9]{1,3}", engine) and int(engine)):
        raise argparse.ArgumentTypeError(f"{text!r} is not [ENGINE=]ENDPOINT, such as 1=tcp://127.0.0.1:6000")
    if where.startswith(TCP):
        endpoint(where)
    elif not re.fullmatch(r"ipc://\S+", where):
        raise argparse.ArgumentTypeError(f"{text!r} is not [ENGINE=]ENDPOINT, such as 1=tcp://127.0.0.1:6000")
    return text


def _time(text: str) -> int:
    """Nanoseconds since the Unix epoch."""
    try:
        when = datetime.fromisoformat(text)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-01-05T14:30:00") from None
    if not 0 < seconds < TIME_MAX // 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not within 1970 and 2262")
    return int(seconds * 1_000_000) * 1_000


def _speed(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed such as 4, 0.5, or 0")
    return float(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 0 < int(text) < COUNT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 10^18")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 1 a book differs, 2 wrong usage, 3 cannot connect, 4 a gap was open at the end, 5 what
    it says or records cannot be written."""
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
                args.record_name = args.record
                file: BinaryIO = files.enter_context(args.record.open("wb", buffering=0))
                args.record = Writer(file)
        except OSError as e:
            given.error(f"{e.filename or args.record}: {e.strerror}")
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        return asyncio.run(listen(args, sys.stdout))
    except RecordingError as e:
        return _complain(f"{args.play.name}: {e}", CONNECT_EXIT)
    except CannotConnect as e:
        return _complain(str(e), CONNECT_EXIT)
    except CannotWrite as e:
        _hush()
        return _complain(str(e), WRITE_EXIT)
    except BrokenPipeError:
        _hush()
        return FINE_EXIT
    except KeyboardInterrupt:
        return FINE_EXIT


def _complain(text: str, code: int) -> int:
    print(f"tail_feed: {printable(text)}", file=sys.stderr)
    return code


def _hush() -> None:
    """Nothing must complain at exit about what is still to be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

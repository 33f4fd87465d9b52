"""Listens to a venue's feed as any stranger could: a ladder on a terminal, one JSON object a line anywhere else.

It asks one machine, any, who publishes what; subscribes to the engines; takes its snapshots from a fabric node, and
what it misses from wherever it can be had. Gaps, repairs and changes of state are part of what it shows.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.tail_feed", "tail_feed")

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from proto.dial import Parser, path, printable, target, whole, wrong_endpoint
from tools.tail.ending import FINE_EXIT, CannotGoOn
from tools.tail.follow import run

DEPTH: Final = 10  # levels a side
NUMBER: Final = whole(1, 10**18)
TIME_MAX: Final = (1 << 63) - 1  # nanoseconds, as on the feed

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


def venue() -> argparse.ArgumentParser:
    """The options that do not go with a recording."""
    out = argparse.ArgumentParser(add_help=False)
    group = out.add_argument_group("of a venue, not of a recording")
    group.add_argument(
        "--from-time", type=_time, default=0, metavar="TIME",
        help="tell the deltas from this time on (2026-01-05T14:30, UTC if it does not say), of earlier epochs too",
    )  # fmt: skip
    group.add_argument("--wait", action="store_true", help="wait for a venue, and the symbols, to appear")
    group.add_argument("--record", type=path, metavar="FILE", help="keep all that comes (tools/tail/record.py)")
    group.add_argument(
        "--conflate", action="store_true", help="too far behind: go over to best prices alone, not to a new snapshot"
    )
    group.add_argument("--verify", action="store_true", help="compare with another machine's books, again and again")
    group.add_argument("--source", type=target, metavar="HOST:PORT", help="ask this machine alone for what is missed")
    group.add_argument(
        "--feed",
        action="append",
        default=[],
        type=_feed,
        metavar="[ENGINE=]ENDPOINT",
        help="read this publisher instead",
    )
    return out


def parser() -> argparse.ArgumentParser:
    out = Parser(
        prog="python -m tools.tail_feed",
        examples=f"{EXAMPLES}\n",
        description=__doc__,
        parents=[venue()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit 0 when it was told to end, 1 if --verify found a difference, 2 for wrong usage, 3 if it cannot "
        "connect,\n4 if a gap was open at the end, 74 if what it says, or the recording, cannot be written.",
    )
    out.add_argument("machine", nargs="?", type=target, metavar="HOST:PORT", help="any engine or fabric node")
    out.add_argument("--symbol", action="append", default=[], metavar="NAME", help="only this book (repeatable)")
    out.add_argument("--depth", type=NUMBER, default=DEPTH, metavar="N", help=f"levels a side; default {DEPTH}")
    out.add_argument("--count", type=NUMBER, default=0, metavar="N", help="end after so many deltas")
    out.add_argument(
        "--from-seq",
        type=NUMBER,
        default=0,
        metavar="N",
        help="tell the deltas from this sequence on, older ones too",
    )
    out.add_argument("--until-seq", type=NUMBER, default=0, metavar="N", help="end with the delta of that sequence")
    out.add_argument("--exit-at-end", action="store_true", help="end when every stream has said that it ends")
    out.add_argument("--raw", action="store_true", help="every frame as it comes, field by field, as JSON lines")
    out.add_argument("--stats", action="store_true", help="what the readers counted, each second, instead of deltas")
    out.add_argument("--play", type=path, metavar="FILE", help="a recording instead of a venue")
    out.add_argument("--speed", type=_speed, metavar="X", help="of the recording; 0: as fast as may be; default 1")
    out.add_argument("--step", action="store_true", help="of the recording a frame for each line of stdin")
    out.add_argument("--from-snapshot", action="store_true", help="begin with the whole book, by order")
    out.add_argument("--json", action="store_true", help="JSON lines also on a terminal")
    out.add_argument("--quiet", action="store_true", help="leave out the deltas: only what happens to the stream")
    return out


def _feed(text: str) -> str:
    engine, equals, where = text.rpartition("=")
    if equals and not (re.fullmatch("[0-9]{1,3}", engine) and int(engine)):
        raise argparse.ArgumentTypeError(f"{text!r} is not [ENGINE=]ENDPOINT, such as 1=tcp://127.0.0.1:6000")
    if not re.fullmatch(r"ipc://\S+", where) and (wrong := wrong_endpoint(where, somebody=True)):
        raise argparse.ArgumentTypeError(wrong)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 1 a book differs, 2 wrong usage, 3 cannot connect, 4 a gap was open at the end,
    74 it cannot write what it records. Raises: OSError when standard output takes no more."""
    given = parser()
    args = given.parse_args(argv)
    if (args.machine is None) == (args.play is None):
        given.error("HOST:PORT is needed, or --play FILE, not both")
    unset = vars(venue().parse_args([]))
    if args.play and (wrong := [name for name, value in unset.items() if getattr(args, name) != value]):
        given.error(f"--{wrong[0].replace('_', '-')} does not go with --play: there is no venue")
    if not args.play and (args.step or args.speed is not None):
        given.error(f"--{'step' if args.step else 'speed'} goes with --play FILE only")
    if args.step and args.speed is not None:
        given.error("--speed does not go with --step")
    if args.from_time and args.from_seq:
        given.error("--from-time does not go with --from-seq")
    if args.from_snapshot and (args.from_seq or args.from_time):
        given.error("--from-snapshot does not go with --from-seq or --from-time: the book has what was before it")
    try:
        return run(args)
    except CannotGoOn as e:
        print(f"tail_feed: {printable(str(e))}", file=sys.stderr)
        return e.code
    except (BrokenPipeError, KeyboardInterrupt):
        return FINE_EXIT  # whoever reads has seen enough

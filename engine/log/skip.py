"""`python -m engine.log.skip`: go on without a record that cannot be applied, and say in the log who answers for it.

An engine does not start on a log with a record that it cannot read or apply. Nothing that is acknowledged should ever
come to be such a record; if one is there all the same, this is the way past it: a further record says which one counts
as void, who decided so and why, and every replay heeds it from then on, whatever version of the program it is.
"""

from __future__ import annotations

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("engine.log.skip", "skip")

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engine.log.contract import Log, LogError
from engine.log.records import RecordError, Skipped, encode
from engine.log.replay import Inapplicable, StartRefused, replay, restore
from engine.log.sqlite import SqliteLog
from proto import logs
from proto.dial import Parser

EXIT_OK: Final = 0
EXIT_NOT_SKIPPED: Final = 1
EXIT_CANNOT_READ: Final = 3


def skip(log: Log, position: int, who: str, why: str, now_ns: int) -> int:
    """Have the record at `position` count as void; the position of the record that says so.

    Raises: StartRefused if that is not the record that keeps the log from being applied; RecordError for a reason that
    cannot be logged; LogError.
    """
    said = encode(Skipped(position, who, why, now_ns))
    after, state = restore(log)
    try:
        for _ in replay(log, state, after, lambda position, time_ns, outcome: None):
            pass
    except Inapplicable as e:
        if e.position != position:
            raise StartRefused(f"it is record {e.position} that cannot be applied, and not {position}") from None
        _, body = next(log.read(position - 1))
        if body[1:2] == b"\x01":
            raise StartRefused(f"record {position} opens an epoch: without it all that follows would be void") from None
        return log.append(log.position, [said])
    raise StartRefused("every record can be applied: there is nothing to pass over")


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m engine.log.skip",
        description="Have a record that cannot be applied count as void, so that the engine starts. It is logged, with "
        "who and why, and cannot be taken back.",
        epilog='example: python -m engine.log.skip --data data/engine-1 --record 4711 --who Ada --why "never answered"',
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the log is; its engine is down")
    parser.add_argument("--record", type=int, required=True, metavar="N", help="its position, as the engine names it")
    parser.add_argument("--who", required=True, metavar="NAME", help="who answers for it")
    parser.add_argument("--why", required=True, metavar="TEXT", help="for those who read the log later")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when it is passed over from now on, 1 if it is not the record to pass over, 2 for wrong usage.

    3 if the log cannot be read or written.
    """
    args = parser().parse_args(argv)
    logs.set_up()
    try:
        if not (args.data / "log.sqlite").exists():
            raise FileNotFoundError(f"no log in {args.data}")
        log = SqliteLog(args.data, wal_bytes=0)
        try:
            at = skip(log, args.record, args.who, args.why, time.time_ns())
        finally:
            log.close()
    except (StartRefused, RecordError) as e:
        print(f"skip: {e}", file=sys.stderr)
        return EXIT_NOT_SKIPPED
    except (LogError, OSError) as e:
        print(f"skip: {e}", file=sys.stderr)
        return EXIT_CANNOT_READ
    print(f"record {args.record} counts as void from now on: record {at} says so")
    return EXIT_OK

"""`python -m tools.log`: look at an engine's log, copy it while the engine runs, save what is left of a damaged one."""

from __future__ import annotations

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.log", "log")

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from engine.log.contract import LogDamaged, LogError
from engine.log.copies import copy
from engine.log.salvage import salvage, verify
from proto import logs
from proto.dial import Parser, path

EXIT_OK: Final = 0
EXIT_DAMAGED: Final = 1
EXIT_CANNOT: Final = 3


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.log",
        description="Look at an engine's log, copy it, or save what is left of it. Tells lines of JSON, or to a "
        "terminal a table. Exit codes: 0 all is sound; 1 something is damaged or missing; 2 wrong usage; 3 it cannot "
        "be done.",
        epilog="example: python -m tools.log backup data/engine-1 backups/monday",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, first: str, what: str, second: str = "", to: str = "") -> None:
        one = verbs.add_parser(name, help=about, description=about)
        one.add_argument("source", type=path, metavar=first, help=what)
        if second:
            one.add_argument("to", type=path, metavar=second, help=f"{to}; absent or empty")

    data = "an engine's data directory"
    verb("verify", "say of each file of a log whether it is sound; the engine may be running", "DATA", data)
    verb("salvage", "make a log of all that can be read of a damaged one, which stays as it is; the engine is down",
         "DATA", data, "TO", "the new data directory")  # fmt: skip
    verb("backup", "copy a log as it is at one moment; the engine may be running", "DATA", data, "TO", "the copy")
    verb("restore", "make a data directory of a backup, after checking it", "BACKUP", "what backup made",
         "DATA", "the data directory")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if all is sound; 1 if something is damaged or missing; 2 for wrong usage; 3 if it cannot be done."""
    args = parser().parse_args(argv)
    logs.set_up()
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "verify": _verify, "salvage": _salvage, "backup": _copy, "restore": _copy,
    }  # fmt: skip
    try:
        return verbs[args.verb](args)
    except LogDamaged as e:
        print(f"log: {args.source}: {e}", file=sys.stderr)
        return EXIT_DAMAGED
    except (LogError, OSError) as e:
        print(f"log: {e}", file=sys.stderr)
        return EXIT_CANNOT


def _verify(args: argparse.Namespace) -> int:
    looks = verify(args.source)
    _tell([asdict(look) for look in looks])
    return EXIT_OK if all(look.sound for look in looks) else EXIT_DAMAGED


def _salvage(args: argparse.Namespace) -> int:
    saved = salvage(args.source, args.to)
    _tell([asdict(saved)])
    return EXIT_DAMAGED if saved.missing or saved.apart else EXIT_OK


def _copy(args: argparse.Namespace) -> int:
    made = copy(args.source, args.to)
    _tell([{"first": made.dropped + 1, "last": made.position, "snapshots": len(made.snapshots)}])
    return EXIT_OK


def _tell(rows: list[dict[str, Any]]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            print(json.dumps(row))
        return
    width = max(len(name) for row in rows for name in row)
    for row in rows:
        if "file" in row:
            print(f"{'✓' if row['sound'] else '✗'} {row['file']:16} {row['found']}")
        else:
            print("\n".join(f"{name:{width}}  {value:,}" for name, value in row.items()))

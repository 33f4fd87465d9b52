"""`python -m tools.bench PART`: measure a part of the venue beside what its work costs without it."""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.bench.__main__", "bench")

import argparse
import dataclasses
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from proto.dial import USAGE, Parser, whole
from tools.bench import codec, core, entry, feed, flows, log, peers, recovery, scale, show
from tools.bench.measure import BenchOptions, PartReport, say, this_machine

Part = Callable[[BenchOptions], PartReport]
PARTS: Final[dict[str, Part]] = {
    "core": core.run,
    "codec": codec.run,
    "feed": feed.run,
    "entry": entry.run,
    "log": log.run,
    "recovery": recovery.run,
    "scale": scale.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when everything was measured, 1 when a part broke down (the others are measured all the same), 2 for wrong
    usage."""
    args = parser().parse_args(argv)
    if args.write and (args.write.is_dir() or not args.write.parent.is_dir()):  # said before the minutes, not after
        say(f"--write {args.write}: is a directory, or in none")
        return USAGE
    data = None if args.synthetic else flows.find_data()
    options = BenchOptions(args.quick, args.seed, args.rounds, data, getattr(args, "peers", False))
    runs = chosen(args.part, options.peers)
    code = 0
    for name, run in runs.items():
        machine = this_machine()
        try:
            report = dataclasses.replace(run(options), machine=machine)
        except Exception:  # whatever it was: the parts to come do not depend on it, and minutes of figures are at stake
            traceback.print_exc()
            say(f"{name} broke down; it has no figures")
            code = 1
            continue
        if args.json:
            for result in report.results:
                print(show.json_line(result), flush=True)
        else:
            print(f"## {report.part}\n\n{show.text(report)}\n", flush=True)
        if args.write:
            show.write(args.write, report)
            say(f"{name}: wrote {args.write}")
    return code


def chosen(part: str, with_peers: bool) -> dict[str, Part]:
    """What to run, in order; the engines of PyPI beside our core if they are asked for, or are there already."""
    runs: dict[str, Part] = {}
    for name in PARTS if part == "all" else [part]:
        runs[name] = PARTS[name]
        if name == "core" and (with_peers or peers.is_ready()):
            runs["peers"] = peers.run
    return runs


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m tools.bench", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name in (*PARTS, "all"):
        part = parts.add_parser(name, help="everything, in turn" if name == "all" else _idea(name))
        part.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes: every name, roughly")
        part.add_argument("--json", action="store_true", help="one JSON object a result instead of tables")
        part.add_argument("--seed", type=int, default=7, help="of what is synthesised (default 7)")
        part.add_argument(
            "--rounds", type=whole(0, 10_000), default=0, help="rounds of each comparison (0: as many as needed)"
        )
        part.add_argument("--synthetic", action="store_true", help="synthesise the flow even where recorded flow is")
        if name in ("core", "all"):
            part.add_argument(
                "--peers", action="store_true",
                help="install the matching engines of PyPI in an environment of their own; from then on they are "
                "driven beside ours",
            )  # fmt: skip
        part.add_argument("--write", type=Path, metavar="FILE", help="put the tables in this Markdown file too")
    return parser


def _idea(name: str) -> str:
    """The first line of a part's docstring."""
    doc = sys.modules[PARTS[name].__module__].__doc__ or ""
    return doc.splitlines()[0]

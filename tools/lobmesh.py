"""The command `lobmesh`: each of the programs under one word, with its own options, help and exit codes.

lobmesh run --faults "drop=0.05"        as  python run_cluster.py --faults "drop=0.05"
lobmesh tail 127.0.0.1:4001             as  python -m tools.tail_feed 127.0.0.1:4001
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.lobmesh", "lobmesh")

import importlib
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

USAGE: Final = 2


class Program(NamedTuple):
    """A module with `main(argv) -> exit code`, what its own help calls it, arguments that come first, and its idea."""

    module: str
    called: str
    first: tuple[str, ...]
    idea: str


PROGRAMS: Final[dict[str, Program]] = {
    "run": Program(
        "run_cluster", "python run_cluster.py", (), "a venue with traders and faults, and a verdict at the end"
    ),
    "serve": Program("run_cluster", "python run_cluster.py", ("--serve",), "a venue to play with, on fixed ports"),
    "tail": Program("tools.tail_feed", "python -m tools.tail_feed", (), "follow an engine's books, live or recorded"),
    "orders": Program("tools.orders.command", "python -m tools.orders", (), "orders by hand, and the operator's desk"),
    "log": Program("tools.log", "python -m tools.log", (), "look at an engine's log, back it up, save what is left"),
    "replay": Program("tools.replay", "python -m tools.replay", (), "recorded order flow through a core or a venue"),
    "faults": Program("tools.faults", "python -m tools.faults", (), "a proxy that troubles a feed on purpose"),
    "bench": Program("tools.bench.__main__", "python -m tools.bench", (), "what each part costs, beside a baseline"),
    "engine": Program("engine.process", "python -m engine", (), "one engine: order entry, log, matching, feed"),
    "fabric": Program("bus.process", "python -m bus", (), "one fabric node: mirrors of all books, snapshots, repairs"),
    "native": Program("tools.native", "python -m tools.native", (), "compile the pure cores; they run twice as fast"),
}


def usage() -> str:
    lines = [f"    {name:8} {program.idea}" for name, program in PROGRAMS.items()]
    return "\n".join([
        "usage: lobmesh COMMAND ...", "       lobmesh COMMAND --help", "       lobmesh --version", "", *lines,
    ])  # fmt: skip


def version() -> str:
    """What is installed; a checkout has no version of its own."""
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version("lobmesh"))
    except metadata.PackageNotFoundError:
        return "from its checkout"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the program; 2 for a word that is none, 130 on Ctrl-C."""
    word, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if word in ("-h", "--help", "help"):
        print(usage())
        return 0
    if word == "--version":
        print(f"lobmesh {version()}, Python {sys.version.split()[0]}")
        return 0
    if word not in PROGRAMS:
        known = ", ".join(PROGRAMS)
        print(f"lobmesh: {f'{word!r} is none of' if word else 'say one of'} {known}", file=sys.stderr)
        return USAGE
    module, called, first, _ = PROGRAMS[word]

    def loaded() -> int:
        importlib.import_module("proto.dial").Parser.renamed = (called, f"lobmesh {word}")
        return int(importlib.import_module(module).main([*first, *rest[:-1]]))

    name = called.split()[-1].removeprefix("tools.").removesuffix(".py")
    return program.outcome(loaded, name)

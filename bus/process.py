"""`python -m bus`: a fabric node as a process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from bus.access.exchange import DirectoryRefused
from bus.node import FabricNode
from proto import logs
from proto.dial import Parser, address, advertised, machine_name, target, whole
from proto.instrument import ENGINE_MAX

EXIT_OK: Final = 0
EXIT_BROKEN: Final = 1  # our own bug: a book may be wrong and called valid
EXIT_USAGE: Final = 2
EXIT_CANNOT_START: Final = 3

logger = logging.getLogger("bus")


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bus",
        description="A fabric node: mirrors the books of every engine it hears of, and serves snapshots, ranges and "
        "books for any of them. Prints one line of JSON when it serves.",
        epilog="example: python -m bus --name fabric-1 --join 127.0.0.1:4001",
    )
    parser.add_argument(
        "--engine", type=whole(1, ENGINE_MAX), default=0, metavar="N", help="the engine on the same machine"
    )
    parser.add_argument("--name", type=machine_name, help="unique; by default fabric-N for engine N")
    parser.add_argument("--grpc", type=address, default="127.0.0.1:0", metavar="HOST:PORT", help="where to serve")
    parser.add_argument(
        "--advertise-grpc", type=address, metavar="HOST:PORT",
        help="where others find it, if not where it serves (port 0: the one it serves at)",
    )  # fmt: skip
    parser.add_argument(
        "--join", type=target, action="append", default=[], metavar="HOST:PORT", help="any machine of the venue"
    )
    parser.add_argument(
        "--only", type=whole(1, ENGINE_MAX), nargs="+", default=[], metavar="N", help="mirror only these engines"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the jitter in its asking")
    parser.add_argument("--verbose", action="store_true", help="log states and gaps, too")
    return parser


async def run(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    broken: list[BaseException] = []

    def on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, AssertionError):
            broken.append(error)
            stopping.set()
        loop.default_exception_handler(context)

    loop.set_exception_handler(on_exception)
    displaced: list[str] = []

    def on_displaced(why: str) -> None:
        displaced.append(why)
        stopping.set()

    node = FabricNode(args.name, engine=args.engine, only=args.only, seed=args.seed, displaced=on_displaced)
    try:
        await node.serve(args.grpc, args.join, args.advertise_grpc)
    except (OSError, DirectoryRefused) as e:
        print(f"bus: {args.name} cannot start: {e}", file=sys.stderr)
        await node.stop()
        return EXIT_CANNOT_START
    ready = {"ready": True, "name": args.name, "grpc": node.grpc, "pid": os.getpid()}
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(ready), flush=True)
    await stopping.wait()
    await node.stop()
    if displaced:
        print(f"bus: {args.name} stopped: {displaced[0]}", file=sys.stderr)
        return EXIT_CANNOT_START
    return EXIT_BROKEN if broken else EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 after a clean stop, 1 after a fault of our own, 2 for wrong usage, 3 if it cannot start, or another
    machine has its name."""
    args = parser().parse_args(argv)
    if args.name is None:
        if not args.engine:
            print("bus: --name or --engine is needed", file=sys.stderr)
            return EXIT_USAGE
        args.name = f"fabric-{args.engine}"
    try:
        advertised(args.grpc, args.advertise_grpc, "--advertise-grpc")
    except ValueError as e:
        print(f"bus: {e}", file=sys.stderr)
        return EXIT_USAGE
    logs.set_up(verbose=args.verbose)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(run(args))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(args))

"""Start a cluster, let seeded traders or recorded flow loose on it, trouble it as told, and judge what became of it.

python run_cluster.py
python run_cluster.py --faults drop=0.05,dup=0.02,reorder=0.02 --seed 5
python run_cluster.py --faults kill=engine-2@5,restart=engine-2@9,pause=fabric-1@4:2
python run_cluster.py --trading-day
python run_cluster.py --replay MESSAGES.csv.gz --check ORDERBOOK.csv.gz
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from proto.dial import Parser
from proto.program import outcome
from tools.chaos.plan import FaultError, answers_in_words, in_words
from tools.faults import with_script
from tools.run.day.plan import DURATION_MIN_S, DURATION_S, TRADERS_MIN
from tools.run.live_view import render
from tools.run.venue import CannotStart, ClusterRun, Options, UsageError
from tools.run.verdict import FAILS, HOLDS, NOTE, UNKNOWN, Verdict, page

HOLDS_EXIT: Final = 0
FAILS_EXIT: Final = 1
USAGE_EXIT: Final = 2
START_EXIT: Final = 3
QUIT_EXIT: Final = 130

FRAME_S: Final = 0.25
WIDTH_MAX: Final = 120
WIDTH: Final = 100  # where no terminal says what it has
STYLES: Final = {HOLDS: "green", FAILS: "bold red", UNKNOWN: "yellow", NOTE: "", "dim": "dim", "head": "bold green"}


def parser() -> argparse.ArgumentParser:
    out = Parser(
        prog="run_cluster.py",
        usage="python run_cluster.py [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"what --faults may do to messages (KIND=CHANCE, or KIND=CHANCE@S:FOR):\n{in_words()}\n"
        f"and to the snapshots that fabric nodes give:\n{answers_in_words()}\n"
        "A partition cuts every engine's feed and all calls to fabric nodes; orders and calls to engines pass.\n\n"
        "Exit 0 if the verdict holds, 1 if it does not, 2 for wrong usage, 3 if the cluster could not start.\n"
        "Ctrl-C ends trading and gives the verdict; a second one quits (130).",
    )
    default = Options()
    venue = out.add_argument_group("the venue")
    venue.add_argument("--engines", type=_count, default=default.engines, metavar="N", help="default 3")
    venue.add_argument("--instruments", type=_count, default=default.instruments, metavar="N", help="default 6")
    venue.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="keep logs and books there; go on with what it holds"
    )
    flow = out.add_argument_group("the flow")
    flow.add_argument(
        "--traders", type=_count, default=default.traders, metavar="N", help="half make markets; default 12"
    )
    flow.add_argument(
        "--rate",
        type=_count,
        default=default.rate,
        metavar="N",
        help="orders/s; default 1,500, and no limit for a replay",
    )
    flow.add_argument("--duration", type=_seconds, metavar="S", help="default 20, and 40 for a trading day")
    flow.add_argument("--seed", type=int, default=default.seed, help="of traders and faults; default 1")
    flow.add_argument(
        "--trading-day",
        action="store_true",
        help="pre-open, opening auction, trading with a volatility halt, closing auction, close and roll",
    )
    flow.add_argument(
        "--replay", type=Path, nargs="+", default=[], metavar="FILE", help="recorded flow instead of traders"
    )
    flow.add_argument(
        "--check", type=Path, nargs="+", default=[], metavar="FILE", help="the books after it, file by file"
    )
    trouble = out.add_argument_group("trouble")
    trouble.add_argument(
        "--faults",
        default="",
        metavar="SPEC",
        help="drop=0.02,partition=1@S:FOR,kill=NAME@S,restart=NAME@S,pause=NAME@S:FOR,leave=NAME@S,join@S; see below",
    )
    trouble.add_argument("--script", type=Path, metavar="FILE", help="faults from a file, one or more a line")
    shown = out.add_argument_group("what is shown and kept")
    shown.add_argument("--report", type=Path, metavar="FILE", help="write the verdict there, as JSON")
    shown.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    shown.add_argument(
        "--no-progress", action="store_true", help="no live table, but a line for each thing that happens"
    )
    shown.add_argument("--keep-logs", action="store_true", help="keep what the processes wrote, and say where")
    return out


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 .. 1,000,000")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 .. 86,400 seconds")
    return number


def options_of(args: argparse.Namespace) -> Options:
    """Raises: FaultError, UsageError."""
    faults = with_script(args.faults, args.script)
    duration_s = args.duration or (DURATION_S if args.trading_day else Options().duration_s)
    if args.trading_day and args.replay:
        raise UsageError("--trading-day: recorded flow (--replay) has no trading day")
    if args.trading_day and duration_s < DURATION_MIN_S:
        raise UsageError(f"--trading-day: it takes {DURATION_MIN_S:g} s at least (--duration)")
    if args.trading_day and args.traders < TRADERS_MIN:
        raise UsageError(f"--trading-day: it takes {TRADERS_MIN} traders at least (--traders)")
    if args.engines > 99:
        raise UsageError("--engines: at most 99")
    if args.engines > args.instruments and not args.replay:
        raise UsageError(f"--instruments {args.instruments}: every one of the {args.engines} engines needs one")
    for fault in faults.timed:
        if fault.name and int(fault.name.rpartition("-")[2]) > args.engines + faults.joins:
            raise UsageError(f"--faults {fault}: there is no {fault.name}")
        if not args.replay and fault.at_s >= duration_s:
            raise UsageError(f"--faults {fault}: the run ends after {duration_s:g} s (--duration)")
    if args.check and len(args.check) != len(args.replay):
        raise UsageError("--check: one file for each file of --replay")
    for path in (*args.replay, *args.check):
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
    return Options(
        engines=args.engines,
        instruments=args.instruments,
        traders=args.traders,
        rate=args.rate,
        duration_s=duration_s,
        seed=args.seed,
        replay=tuple(args.replay),
        check=tuple(args.check),
        faults=faults,
        trading_day=args.trading_day,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if the verdict holds, 1 if it does not, 2 for wrong usage, 3 if it could not start, 130 if interrupted."""
    args = parser().parse_args(argv)
    try:
        options = options_of(args)
        directory = args.data_dir or Path(tempfile.mkdtemp(prefix="lobmesh-"))
        run = ClusterRun(options, directory)
    except (FaultError, UsageError) as e:
        print(f"run_cluster: {e}", file=sys.stderr)
        return USAGE_EXIT
    keep, code = args.keep_logs, START_EXIT
    try:
        verdict = asyncio.run(_watched(run, args))
        _tell(verdict, args)
        code = HOLDS_EXIT if verdict.holds else FAILS_EXIT
    except CannotStart as e:
        print(f"run_cluster: could not start: {e}", file=sys.stderr)
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("run_cluster: interrupted, no verdict", file=sys.stderr)
        code = QUIT_EXIT
    if args.data_dir is None:
        if keep or code in (FAILS_EXIT, START_EXIT):
            print(f"run_cluster: logs and books are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _watched(run: ClusterRun, args: argparse.Namespace) -> Verdict:
    """The run, with its picture on a terminal, and with the first and the second Ctrl-C."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(run.run())
    interrupts = 0

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        run.drain()
        if interrupts > 1:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupted)
    console = Console(stderr=args.json)
    if args.no_progress or not console.is_terminal:
        if not args.json:
            await _told(run, task)
        return await task
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while not task.done():
            live.update(render(run.board), refresh=True)
            await asyncio.wait([task], timeout=FRAME_S)
        live.update(render(run.board), refresh=True)
    return await task


class _Page(Console):
    """One that leaves it to us what happens when nobody reads it."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


async def _told(run: ClusterRun, task: asyncio.Task[Verdict]) -> None:
    """Without a picture: what happens, line by line."""
    told = 0
    while not task.done():
        await asyncio.wait([task], timeout=FRAME_S)
        try:
            for line in run.board.happened[told:]:
                print(line, flush=True)
        except BrokenPipeError:
            _say_no_more()
        told = len(run.board.happened)


def _tell(verdict: Verdict, args: argparse.Namespace) -> None:
    """The verdict on stdout, for people or for programs, and into the report."""
    said = json.dumps(verdict.to_json())
    if args.report:
        args.report.write_text(said + "\n")
    try:
        if args.json:
            print(said, flush=True)
            return
        console = _Page(highlight=False)
        ascii_only = not (console.encoding or "").lower().startswith("utf")
        width = min(console.width, WIDTH_MAX) if console.is_terminal else WIDTH
        for style, text in page(verdict, width, ascii_only):
            console.print(Text(text, style=STYLES[style]), no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)
        sys.stdout.flush()
    except BrokenPipeError:
        _say_no_more()


def _say_no_more() -> None:
    """Nobody reads stdout: have nothing complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(outcome(main, "run_cluster"))

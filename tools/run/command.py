"""Start a cluster, let seeded traders or recorded flow loose on it, trouble it as told, and judge what became of it.

python run_cluster.py
python run_cluster.py --serve
python run_cluster.py --faults drop=0.05,dup=0.02,reorder=0.02 --seed 5
python run_cluster.py --faults kill=engine-2@5,restart=engine-2@9,pause=fabric-1@4:2
python run_cluster.py --trading-day
python run_cluster.py --replay MESSAGES.csv.gz --check ORDERBOOK.csv.gz
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from proto.dial import PORT_MAX, Parser, UsageError
from tools.chaos.plan import FaultError, answers_in_words, in_words
from tools.chaos.script import with_script
from tools.findings import FAILS, HOLDS, NOTE, UNKNOWN
from tools.run.day.plan import DURATION_MIN_S, DURATION_S, TRADERS_MIN
from tools.run.live_view import render
from tools.run.options import FABRIC_PORTS, PORT, Options
from tools.run.page import page
from tools.run.venue import CannotStart, ClusterRun
from tools.run.verdict import Verdict

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
        "Exit 0 if the verdict holds, 1 if it does not, 2 for wrong usage, 3 if the cluster could not start or the\n"
        "report not be written. Ctrl-C ends trading and gives the verdict; a second one quits (130).",
    )
    default = Options()
    venue = out.add_argument_group("the venue")
    venue.add_argument("--engines", type=_count, default=default.engines, metavar="N", help="default 3")
    venue.add_argument("--instruments", type=_count, default=default.instruments, metavar="N", help="default 6")
    venue.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="keep logs and books there; go on with what it holds"
    )
    venue.add_argument(
        "--serve",
        action="store_true",
        help=f"a venue to play with: no end but Ctrl-C, no verdict, traders who go on; ports from {PORT:,} on",
    )
    venue.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help=f"engine-1 serves there, engine-2 at the next one, ..., fabric-1 at N + {FABRIC_PORTS}, ...; "
        "default: any, as the system says",
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
    flow.add_argument(
        "--duration", type=_seconds, metavar="S", help="default 20, and 40 for a trading day; 0 is --serve"
    )
    flow.add_argument("--seed", type=_seed, metavar="N", default=default.seed, help="of traders and faults; default 1")
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
    number = _whole(text)
    if not 1 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 .. 1,000,000")
    return number


def _seed(text: str) -> int:
    return _whole(text)


def _port(text: str) -> int:
    number = _whole(text)
    if not 1 <= number <= PORT_MAX - FABRIC_PORTS:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 .. {PORT_MAX - FABRIC_PORTS:,}")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 .. 86,400 seconds")
    return number


def options_of(args: argparse.Namespace) -> Options:
    """Raises: FaultError, UsageError."""
    faults = with_script(args.faults, args.script)
    serve = args.serve or args.duration == 0
    duration_s = args.duration or (DURATION_S if args.trading_day else Options().duration_s)
    if args.serve and args.duration:
        raise UsageError("--serve: it has no --duration")
    if serve and (args.trading_day or args.replay):
        raise UsageError(f"--serve: {'a trading day' if args.trading_day else 'recorded flow (--replay)'} has an end")
    if serve and (args.report or args.json):
        raise UsageError(f"{'--report' if args.report else '--json'}: --serve has no verdict")
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
        if not (args.replay or serve) and fault.at_s >= duration_s:
            raise UsageError(f"--faults {fault}: the run ends after {duration_s:g} s (--duration)")
    if args.check and len(args.check) != len(args.replay):
        raise UsageError("--check: one file for each file of --replay")
    for path in (*args.replay, *args.check):
        try:
            path.open("rb").close()
        except OSError as e:
            raise UsageError(f"{path}: {_why(e)}") from None
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
        serve=serve,
        port=args.port or (PORT if serve else 0),
    )


def _why(e: OSError) -> str:
    """`no such file or directory`"""
    text = e.strerror or str(e)
    return text[:1].lower() + text[1:]


def _room_in(directory: Path) -> None:
    """Make a data directory, and see that it can be written. Raises: UsageError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as e:
        raise UsageError(f"--data-dir {directory}: {_why(e)}") from None


def _report_in(path: Path | None) -> IO[str] | None:
    """The file for the verdict, held from the beginning: found out now if it cannot be. Raises: UsageError."""
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8")
    except OSError as e:
        raise UsageError(f"--report {path}: {_why(e)}") from None


def _free(ports: dict[str, str]) -> None:
    """Raises: CannotStart if somebody has one of them."""
    for name, target in ports.items():
        host, _, port = target.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as e:
                raise CannotStart(f"{target} for {name}: {_why(e)} (--port)") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if the verdict holds, 1 if it does not, 2 for wrong usage, 3 if it could not start or the report not be
    written, 130 if interrupted. Raises: OSError if there was no room for what it printed."""
    args = parser().parse_args(argv)
    report, own, code = None, None, START_EXIT
    lost: list[OSError] = []  # why a line could not be printed
    try:
        options = options_of(args)
        report = _report_in(args.report)
        if args.data_dir:
            _room_in(args.data_dir)
        else:
            own = tempfile.mkdtemp(prefix="lobmesh-")
        directory = args.data_dir or Path(own or "")
        run = ClusterRun(options, directory)
        _free(options.ports())
        verdict = asyncio.run(_watched(run, args, lost))
        if verdict is not None:
            code = HOLDS_EXIT if verdict.holds else FAILS_EXIT
            _tell(verdict, args, lost)
            if report is not None:
                code = code if _kept(verdict, report, args.report) else START_EXIT
        else:
            code = FAILS_EXIT if run.board.failed else HOLDS_EXIT
    except (FaultError, UsageError) as e:
        print(f"run_cluster: {e}", file=sys.stderr)
        code = USAGE_EXIT
    except CannotStart as e:
        print(f"run_cluster: could not start: {e}", file=sys.stderr)
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("run_cluster: interrupted, no verdict", file=sys.stderr)
        code = QUIT_EXIT
    finally:
        if report is not None:
            _close(report, args.report)
        if own is not None:
            if args.keep_logs or code in (FAILS_EXIT, START_EXIT):
                print(f"run_cluster: logs and books are in {own}", file=sys.stderr)
            else:
                shutil.rmtree(own, ignore_errors=True)
    if lost:
        raise lost[0]  # said in a line, with a code of its own, by proto/program.py
    return code


def _close(report: IO[str], path: Path) -> None:
    """Leave no empty file behind that was not there."""
    with contextlib.suppress(OSError):
        report.close()
        if path.is_file() and not path.stat().st_size:
            path.unlink()


async def _watched(run: ClusterRun, args: argparse.Namespace, lost: list[OSError]) -> Verdict | None:
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
            await _told(run, task, lost)
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


async def _told(run: ClusterRun, task: asyncio.Task[Verdict | None], lost: list[OSError]) -> None:
    """Without a picture: what happens, line by line."""
    told = 0
    while not task.done():
        await asyncio.wait([task], timeout=FRAME_S)
        try:
            for line in run.board.happened[told:]:
                print(line, flush=True)
        except OSError as e:  # the run goes on; that there was no room is said at its end, that nobody reads on never
            lost += [] if isinstance(e, BrokenPipeError) else [e]
            _say_no_more()
        told = len(run.board.happened)


def _kept(verdict: Verdict, report: IO[str], path: Path) -> bool:
    """Whether the verdict is in the report now; says so if not."""
    try:
        if stat.S_ISREG(os.fstat(report.fileno()).st_mode):
            report.truncate(0)
        report.write(json.dumps(verdict.to_json()) + "\n")
        report.flush()
    except OSError as e:
        print(f"run_cluster: --report {path}: {_why(e)}", file=sys.stderr)
        return False
    return True


def _tell(verdict: Verdict, args: argparse.Namespace, lost: list[OSError]) -> None:
    """The verdict on stdout, for people or for programs."""
    try:
        if args.json:
            print(json.dumps(verdict.to_json()), flush=True)
            return
        console = _Page(highlight=False)
        ascii_only = not (console.encoding or "").lower().startswith("utf")
        width = min(console.width, WIDTH_MAX) if console.is_terminal else WIDTH
        for style, text in page(verdict, width, ascii_only):
            console.print(Text(text, style=STYLES[style]), no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)
        sys.stdout.flush()
    except OSError as e:
        lost += [] if isinstance(e, BrokenPipeError) else [e]
        _say_no_more()


def _say_no_more() -> None:
    """Nobody reads stdout: have nothing complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

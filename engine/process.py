"""`python -m engine`: an engine as a process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
import zmq

from bus.access.claim import Held, claim
from bus.access.directory import Changed, Directory, Displaced, Event, Superseded
from bus.access.directory import Entry as Listed
from bus.access.exchange import DirectoryError, DirectoryLoop, DirectoryRefused, ask, new_start
from bus.access.inquiry import inquire
from bus.service import MarketData
from engine.clock.believed import SECOND_NS
from engine.clock.host import HostClock
from engine.core.commands import AddInstrument
from engine.log.condense import Condenser
from engine.log.contract import LogDamaged, LogError, OutcomeUnknown
from engine.log.records import RecordError
from engine.log.rereading import Rereading
from engine.log.sqlite import SqliteLog, holds_log
from engine.node import EXIT_CANNOT_START, EXIT_LOG_LOST, EXIT_OK, EXIT_USAGE, Engine, owner_name
from engine.publish.history import Historian
from engine.publish.source import EngineFeed
from proto import logs
from proto.cluster import Cluster, EngineEntry, load
from proto.dial import Parser, address, advertised, called, endpoint, machine_name, operator_token, path, target, whole
from proto.instrument import ENGINE_MAX, Instrument

SWITCH_S: Final = 0.0005  # of the interpreter: with its default of 5 ms a busy loop starves the log's thread
JOIN_S: Final = 5.0
PROGRESS_S: Final = 0.2
COUNT_MAX: Final = 10**18  # records or commands, more than there ever are
CLOCK_DAYS: Final = 7
DAYS_MAX: Final = 36_500
SNAPSHOT_COMMANDS: Final = 200_000  # half a second of replay

logger = logging.getLogger("engine")


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m engine",
        description="An engine: takes orders over gRPC, logs and matches them, and publishes what changes. Prints one "
        "line of JSON when it serves.",
        epilog="example: python -m engine --cluster cluster.toml --engine 1 --data data/engine-1 --new",
    )
    parser.add_argument("--cluster", type=path, required=True, metavar="FILE", help="the venue (proto/cluster.py)")
    parser.add_argument(
        "--engine", type=whole(1, ENGINE_MAX), required=True, metavar="N", help="which of its engines this is"
    )
    parser.add_argument("--data", type=path, required=True, metavar="DIR", help="where its log is")
    parser.add_argument(
        "--new", action="store_true",
        help="begin a log in the directory, which holds none; without it there has to be one",
    )  # fmt: skip
    parser.add_argument(
        "--accept-loss", action="store_true",
        help="start although the venue has seen more of this engine than its log holds, or another log of it: what is "
        "missing is lost, and is said so in the log",
    )  # fmt: skip
    parser.add_argument("--grpc", type=address, metavar="HOST:PORT", help="where to serve; by default as in the file")
    parser.add_argument("--feed", type=endpoint, metavar="ENDPOINT", help="where to publish; by default as in the file")
    parser.add_argument(
        "--advertise-feed", type=endpoint, metavar="ENDPOINT",
        help="where others find the feed, if not where it is bound (port 0: the one it is bound to)",
    )  # fmt: skip
    parser.add_argument(
        "--advertise-grpc", type=address, metavar="HOST:PORT",
        help="where others find it, if not where it serves (port 0: the one it serves at)",
    )  # fmt: skip
    parser.add_argument(
        "--join", type=target, action="append", default=[], metavar="HOST:PORT", help="any machine of the venue"
    )
    parser.add_argument(
        "--clock-bound", type=whole(0, DAYS_MAX), default=CLOCK_DAYS, metavar="DAYS",
        help="if more time has passed since the last record, orders expire only once an operator says that the clock "
        f"is right (default {CLOCK_DAYS})",
    )  # fmt: skip
    parser.add_argument("--name", type=machine_name, help="unique; by default engine-N")
    parser.add_argument(
        "--snapshot-after", type=whole(0, COUNT_MAX), default=SNAPSHOT_COMMANDS, metavar="COMMANDS",
        help=f"have a snapshot made of the log each time so much was logged (default {SNAPSHOT_COMMANDS:,}; 0: never)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-log", type=whole(0, COUNT_MAX), metavar="RECORDS",
        help="when a snapshot was made, drop what the two last ones cover from the log, but for its last RECORDS; by "
        "default all is kept. What is dropped is told by no history, and a start then needs a snapshot it can read: "
        "one of this version of the program or of the one before",
    )  # fmt: skip
    parser.add_argument(
        "--operator-token-file", type=operator_token, metavar="FILE", dest="operator_token",
        help="ask operators for the token in this file; without it only those on this machine are let in",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="log links and joins, too")
    return parser


class ClaimRefused(Exception):
    """The venue knows of something that forbids this start."""


class Process:
    """What is put together for one run of the process."""

    def __init__(self, cluster: Cluster, entry: EngineEntry, args: argparse.Namespace, log: SqliteLog) -> None:
        self._cluster = cluster
        self._entry = entry
        self._args = args
        self._log = log
        self._directory = DirectoryLoop(Directory(), args.join, position=lambda: log.position, clock_ns=self._now)
        self._start = new_start()
        self._follows = 0
        self._grpc = self._endpoint = ""  # not announced yet
        self._withheld: list[Instrument] = []  # added here, and another engine has them: not listed
        self._engine = Engine(
            cluster,
            entry.id,
            log,
            where=self._where,
            name=args.name,
            owner=owner_name(args.name),
            operator_token=args.operator_token or "",
        )

    def _now(self) -> int:
        return self._engine.clock_ns()

    def replay(self) -> None:
        """Blocks. Raises: LogError, RecordError."""
        shown, last = time.monotonic(), self._engine.log.position
        on_terminal = sys.stderr.isatty()
        for position in self._engine.replay():
            if on_terminal and time.monotonic() > shown + PROGRESS_S:
                shown = time.monotonic()
                print(f"\r{self._args.name}: {position:,} of {last:,} log records", end="", file=sys.stderr, flush=True)
        if on_terminal and last:
            print(f"\r{self._args.name}: {last:,} log records replayed", file=sys.stderr)

    async def run(self) -> int:
        """Serve until a signal, or until the engine has to stop; the exit code.

        Raises: what makes that it cannot start, ClaimRefused among it.
        """
        engine, entry, args = self._engine, self._entry, self._args
        engine.review()
        above = await self._claim()
        await self._look_for_others()
        begun = engine.begin(above)
        feed = EngineFeed(
            engine.venue,
            self._instruments(),
            incarnation=begun.incarnation,
            epoch=begun.epoch,
            fresh=begun.fresh,
            endpoint=args.feed or entry.feed,
            clock_ns=time.time_ns,
            channels=engine.channels,
        )
        engine.publish = feed.publish
        engine.listed = self._listed
        self._feed = feed
        feed.open(begun.time_ns)
        address = args.grpc or entry.grpc
        beside: list[asyncio.Task[None]] = []
        try:
            port = await engine.serve(address, [MarketData(feed, self._historian()), self._directory])
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stop)
            feed.publisher.start()
            grpc = f"{address.rpartition(':')[0]}:{port}"
            await self._announce(
                advertised(grpc, args.advertise_grpc), advertised(feed.publisher.endpoint, args.advertise_feed)
            )
            _quiet_collector()
            ready = {"name": args.name, "grpc": grpc, "feed": feed.publisher.endpoint, "pid": os.getpid()}
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps({"ready": True} | ready), flush=True)
            beside.append(asyncio.create_task(Rereading(self._log).run()))
            if args.snapshot_after > 0:
                beside.append(asyncio.create_task(self._condenser().run()))
            return await engine.stopping
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._directory.stop()
            await engine.stop()
            await feed.publisher.stop()

    async def _claim(self) -> int:
        """Ask the venue what it knows of this engine; the epoch that the next one has to be above.

        Raises: ClaimRefused if the engine runs elsewhere, or if something is missing here and nobody answers for it.
        """
        engine, args, log = self._engine, self._args, self._log
        mine = lambda entry: entry.name == args.name or (entry.engine == args.engine and not entry.fabric)  # noqa: E731
        answer = await inquire(args.join, mine, engine=args.engine)
        bound_ns = args.clock_bound * 86_400 * SECOND_NS
        clock = HostClock(last_ns=engine.venue.time_ns, bound_ns=bound_ns, peers_ns=answer.now_ns)
        engine.keep_time(clock)
        held = Held(log.incarnation, engine.epoch, log.position, engine.next_seqs)
        found = claim(args.name, args.engine, answer.seen, held)
        if found.taken:
            raise ClaimRefused(found.taken)
        self._follows = found.follows
        if not found.missing:
            return 0
        if not args.accept_loss:
            raise ClaimRefused(f"{found.missing}; to start without it: --accept-loss")
        logger.warning("accepted as lost: %s", found.missing)
        engine.owner = f"{engine.owner}, accepting a loss: {found.missing}"
        return found.above

    async def _look_for_others(self) -> None:
        """Raises: ClaimRefused if what is new in the file is another engine's, before it is logged."""
        engine, name = self._engine, self._args.name
        new = [command.definition for command in engine.review().commands if isinstance(command, AddInstrument)]
        if not self._log.position:
            new = list(self._cluster.instruments_of(self._entry.id))
        venue = await self._venue() if new else Directory()
        for instrument in new:
            for holder in (venue.engine_of(instrument.id), venue.engine_of(instrument.symbol)):
                if holder and not holder.left and holder.name != name:
                    what = f"{instrument.symbol} (instrument {instrument.id}) is new in the file"
                    raise ClaimRefused(
                        f"{what} and belongs to {holder.name}: take it out, or choose another id and symbol"
                    )

    async def _venue(self) -> Directory:
        """What the machines to be joined know of it."""
        venue = Directory()
        for seed in self._args.join:
            with contextlib.suppress(grpc.aio.AioRpcError, DirectoryError):  # the others say as much
                venue.merge(await ask(seed))
        return venue

    def _condenser(self) -> Condenser:
        engine, args = self._engine, self._args
        command = self._child("engine.log.condense")
        logged = lambda: engine.kept.remembered + engine.committer.commands  # noqa: E731
        return Condenser(command, args.snapshot_after, logged, self._forget)

    async def _forget(self) -> None:
        """Drop what the log need not keep: what every snapshot covers, but for the last records."""
        keep = self._args.keep_log
        if keep is None:
            return
        log = self._log
        try:
            through = min(log.position - keep, await asyncio.to_thread(lambda: log.covered))
            if through > 0:
                dropped = await asyncio.to_thread(log.drop_through, through)
                logger.info("the log begins behind its record %d", dropped)
        except LogError as e:  # the next append is refused, too, and says so to whoever waits
            logger.error("%s", e)

    def _historian(self) -> Historian:
        engine = self._engine
        return Historian(
            self._child("engine.publish.history"),
            lambda: (max(engine.venue.position, engine.begun.position), engine.begun.epoch),
        )

    def _child(self, module: str) -> list[str]:
        """What runs it over this engine's log."""
        args = self._args
        return [sys.executable, "-m", module, "--data", str(args.data.resolve())]

    async def _announce(self, grpc: str, feed: str) -> None:
        """Tell the venue where this engine is. Raises: DirectoryRefused if its file claims what another has."""
        self._directory.listen(self._heard)
        self._grpc, self._endpoint = grpc, feed
        self._list()
        self._directory.start()
        while True:
            try:
                joined = await self._directory.joined(JOIN_S)
                break
            except DirectoryRefused:
                if not await self._withhold():
                    raise
        if not joined:
            logger.warning("none of %s answers yet", ", ".join(self._args.join))

    async def _withhold(self) -> bool:
        """List without what was added here while another engine added it, too; False if there is no such instrument.

        The rest of this engine's instruments must not wait until an operator has settled that.
        """
        venue = await self._venue()
        file = [instrument.id for instrument in self._cluster.instruments_of(self._entry.id)]
        found = False
        for instrument in self._instruments():
            holders = (venue.engine_of(instrument.id), venue.engine_of(instrument.symbol))
            others = [
                holder.name for holder in holders if holder and not holder.left and holder.name != self._args.name
            ]
            if others and instrument.id not in file:
                logger.error(
                    "%s (instrument %d) was added here and belongs to %s: it is not listed, and no order comes here "
                    "for it. To be rid of it: python -m tools.orders --at %s delist %s --here",
                    instrument.symbol, instrument.id, others[0], self._grpc, instrument.symbol,
                )  # fmt: skip
                self._withheld.append(instrument)
                self._feed.forget(instrument)
                found = True
        if found:
            self._list()
        return found

    def _listed(self, instrument: Instrument) -> None:
        """An instrument was added or delisted while the engine runs: market data and the other engines are told."""
        if self._engine.venue.markets[instrument.id].delisted:
            self._feed.forget(instrument)
        else:
            self._feed.learn(instrument)
        if self._grpc:
            self._list()

    def _instruments(self) -> tuple[Instrument, ...]:
        """What is traded here: the file's, and those added since."""
        markets = [market for market in self._engine.venue.markets.values() if not market.delisted]
        return tuple(market.instrument for market in markets if market.instrument not in self._withheld)

    def _list(self) -> None:
        """Put this engine into the directory, as it is now. Raises: DirectoryRefused."""
        engine, entry = self._engine, self._entry
        self._directory.announce(
            Listed(
                name=self._args.name,
                engine=entry.id,
                fabric=False,
                incarnation=engine.begun.incarnation,
                epoch=engine.begun.epoch,
                version=time.time_ns(),
                grpc=self._grpc,
                feed=self._endpoint,
                instruments=self._instruments(),
                channels=engine.channels,
                start=self._start,
                follows=self._follows,
            )
        )

    def _heard(self, event: Event) -> None:
        match event:
            case Changed(entry) if not entry.fabric and entry.name != self._args.name:
                self._engine.learn(entry.instruments, [entry.engine])
            case Superseded(entry):
                logger.critical("epoch %d of this engine is at %s: stopping", entry.epoch, entry.grpc)
                self._stop(EXIT_LOG_LOST)
            case Displaced(why):
                logger.critical("%s: stopping", why)
                self._stop(EXIT_CANNOT_START)

    def _stop(self, code: int = EXIT_OK) -> None:
        if not self._engine.stopping.done():
            self._engine.stopping.set_result(code)

    def _where(self, engine: int) -> str | None:
        """Where an engine's gRPC port is: the directory alone knows."""
        entry = self._directory.directory.engine(engine)
        return None if entry is None or entry.left else entry.grpc


def _quiet_collector() -> None:
    """Collect no garbage from here on: the books are no garbage, and looking at them takes milliseconds.

    Engine collects what is young when nothing else is to be done (engine/node.py).
    """
    gc.freeze()
    gc.disable()


def _open_log(data: Path, *, new: bool) -> SqliteLog:
    """The log there; a new one only if it was asked for, and none in place of another. Raises: LogError, OSError."""
    if not new and not holds_log(data):
        raise LogError(f"there is no log in {data}: is it the right directory, and its disk mounted? --new begins one")
    log = SqliteLog(data)
    if new == (log.position > 0):
        log.close()
        if new:
            raise LogError(f"{data} holds a log of {log.position:,} records: --new would begin another")
        raise LogError(f"the log in {data} has no record yet: --new begins it")
    return log


def _cannot_start(args: argparse.Namespace, error: Exception) -> int:
    way = (
        f"; what can be read of it: {called('tools.log', 'log')} verify {args.data}"
        if isinstance(error, LogDamaged)
        else ""
    )
    why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
    print(f"engine: {args.name} cannot start: {why}{way}", file=sys.stderr)
    return EXIT_CANNOT_START


def _serve(process: Process) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(process.run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(process.run())


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 after a clean stop; 1 if the engine itself broke; 2 for wrong usage or a wrong cluster file.

    3 if it cannot start (no log, or one that is damaged, in use, or behind what the venue has seen; port, name or id
    taken); 4 if it had to stop because what its log holds is not known, or another writes to it.
    """
    args = parser().parse_args(argv)
    args.name = args.name or f"engine-{args.engine}"
    if args.keep_log is not None and args.snapshot_after <= 0:
        print("engine: --keep-log needs snapshots: --snapshot-after must not be 0", file=sys.stderr)
        return EXIT_USAGE
    logs.set_up(verbose=args.verbose)
    sys.setswitchinterval(SWITCH_S)
    try:
        cluster = load(args.cluster)
        entry = cluster.engine(args.engine)
        advertised(args.grpc or entry.grpc, args.advertise_grpc, "--advertise-grpc")
        advertised(args.feed or entry.feed, args.advertise_feed, "--advertise-feed")
    except KeyError:
        print(f"engine: {args.cluster} has no engine {args.engine}", file=sys.stderr)
        return EXIT_USAGE
    except ValueError as e:
        print(f"engine: {e}", file=sys.stderr)
        return EXIT_USAGE
    try:
        log = _open_log(args.data, new=args.new)
    except (LogError, OSError) as e:
        return _cannot_start(args, e)
    try:
        gc.disable()  # a replay makes books and no garbage
        process = Process(cluster, entry, args, log)
        process.replay()
        return _serve(process)
    except OutcomeUnknown as e:
        print(f"engine: {args.name} stopped: {e}", file=sys.stderr)
        return EXIT_LOG_LOST
    except (LogError, RecordError, RuntimeError, OSError, zmq.ZMQError, DirectoryRefused, ClaimRefused) as e:
        return _cannot_start(args, e)
    finally:
        log.close()

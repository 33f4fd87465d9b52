"""An engine in one piece: core, log, order entry and links, put together; `engine/process.py` makes a process of it.

engine = Engine(cluster, 1, log, where=directory_look_up)
for position in engine.replay(): ...             # blocks; the books, the reports and the epoch are those of the log
engine.begin()                                   # appends the epoch record: from here on this engine owns the log
port = await engine.serve("127.0.0.1:0")
await engine.stopping                            # ends when something makes it stop: an int, the exit code
await engine.stop()
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import msgspec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from engine.clock.host import HostClock
from engine.core.commands import AddInstrument, ChangeInstrument, OperatorCommand
from engine.core.rules import RULES
from engine.core.venue import RETAINED, Venue
from engine.entry.calls import Calls
from engine.entry.guard import Guard
from engine.entry.home import GRACE_S, Home, Presence
from engine.entry.link import ANSWER_S, HomeLink, LinkState
from engine.entry.operator import OperatorServicer
from engine.entry.reference import Reference
from engine.entry.release import Publish, Release
from engine.entry.reports import Hub
from engine.entry.router import Router
from engine.entry.sessions import SessionIds, Sessions
from engine.entry.streams import ORDERS, PEERS, Streams
from engine.log import records
from engine.log.commit import CommitState, Committer, Submission
from engine.log.contract import Log, LogConflict, LogFailed, OutcomeUnknown
from engine.log.edits import Edits
from engine.log.kept import KeptReports
from engine.log.records import identity_of
from engine.log.replay import StartRefused, counting, replay, restore
from engine.log.sqlite import SqliteLog
from engine.log.state import founded
from proto import connect
from proto.cluster import Cluster
from proto.instrument import Instrument

EXIT_OK: Final = 0
EXIT_BROKEN: Final = 1  # our own bug: the core or a release raised
EXIT_USAGE: Final = 2
EXIT_CANNOT_START: Final = 3
EXIT_LOG_LOST: Final = 4  # the log's outcome is unknown, or somebody else writes to it

STOP_S: Final = 1.0
LINKS: Final = PEERS  # its health: whether an order for any other engine can be carried there
HOUSE_S: Final = 0.1
IDLE_S: Final = 0.5  # without a command for so long, there is time to collect garbage

logger = logging.getLogger(__name__)


class Services(Protocol):
    """Other services on the engine's port: market data, the directory."""

    def add_to(self, server: grpc.aio.Server) -> None: ...


@dataclass(slots=True)
class Begun:
    """The epoch that `Engine.begin` opened."""

    epoch: int
    incarnation: int
    fresh: bool  # the log was empty: every book is, too
    time_ns: int  # no command will have an earlier one
    position: int  # of its record


def _unheard(instrument: Instrument) -> None:
    """Nobody asked to be told."""


class Engine:
    """One engine, in the running process. Everything but `replay` and `begin` wants the event loop."""

    def __init__(
        self,
        cluster: Cluster,
        engine: int,
        log: Log,
        *,
        where: Callable[[int], str | None],
        name: str = "",
        owner: str = "",
        clock_ns: Callable[[], int] = time.time_ns,
        grace_s: float = GRACE_S,
        answer_s: float = ANSWER_S,
        operator_token: str = "",
    ) -> None:
        self.engine = engine
        self.log = log
        self._file = identity_of(cluster, engine, name or f"engine-{engine}", RETAINED)
        self._state = founded(self._file)
        self.kept = KeptReports(engine)
        self.hub = Hub(self.kept)
        self.presence = Presence(grace_s)
        self.links: dict[int, HomeLink] = {}
        self.publish: Publish | None = None
        self.reference = Reference(engine, lambda: self.venue.operations.allowed)
        self.listed: Callable[[Instrument], None] = _unheard  # one was added or delisted while the engine runs
        self._cluster = cluster
        self._where = where
        self.owner = owner  # of the epoch to come, for people to read in the log
        self.clock_ns = clock_ns
        self._confirm_clock: Callable[[], str] = lambda: ""
        self._answer_s = answer_s
        self._guard = Guard(operator_token)
        self._reviewed: Edits | None = None
        self._edits: list[OperatorCommand] = []  # logged by `begin`, and not yet applied
        self._tasks: list[asyncio.Task[None]] = []
        self._server: grpc.aio.Server | None = None
        self._health: Any = None

    @property
    def venue(self) -> Venue:
        return self._state.venue

    @property
    def channels(self) -> int:
        """As many as the file says; more if an instrument was added on one that the file no longer has."""
        return max([self._file.engine.channels, *self.venue.channels])

    def replay(self) -> Iterator[int]:
        """Be what the log says, from its last snapshot on, or from its first record.

        Gives the position reached now and then. Raises: LogDamaged, StartRefused.
        """
        after, self._state = restore(self.log, self._file)
        for history in self._state.histories:
            self.kept.restore(history.account, history.last_seq, history.batches)
        yield from replay(self.log, self._state, after, *counting(self._state, self.kept.remember))

    def keep_time(self, clock: HostClock) -> None:
        """Log that time from now on; for between `replay` and `begin`."""
        self.clock_ns = clock
        self._confirm_clock = clock.confirm

    @property
    def epoch(self) -> int:
        """The log's, as far as it was replayed or begun."""
        return self._state.epoch

    @property
    def next_seqs(self) -> dict[int, int]:
        """By channel: the sequence that its next delta would have had in the epoch that the log ends with."""
        return self._state.numbering.next_seqs

    def review(self) -> Edits:
        """What was edited in the file since the last time. Raises: StartRefused where an edit cannot be."""
        if self._reviewed is None:
            self._reviewed = Edits(self._state.identity or self._first(), self._file, self.venue, self._elsewhere())
        if self._reviewed.refused:
            raise StartRefused("; ".join(self._reviewed.refused))
        return self._reviewed

    def begin(self, above: int = 0) -> Begun:
        """Open an epoch, higher than `above`: the log is this engine's from here on. With it goes what was edited in
        the file since the last time, a line each; it takes effect when the engine serves.

        Raises: LogError; StartRefused where an edit cannot be.
        """
        state, log, fresh = self._state, self.log, self.log.position == 0
        edits = self.review()
        if edits.told:  # all at once: so many lines that are alike would else be taken for a flood
            logger.warning("%s", "\n".join(f"cluster file: {line}" for line in edits.told))
        time_ns = max(self.clock_ns(), self.venue.time_ns)
        position = log.position + 1
        # Where the log had none, what has been replayed: a replay from the begin starts with it.
        heeded = edits.heeded if state.identity is not None else edits.before
        identity = None if state.identity == heeded else heeded
        opening = records.Epoch(state.epoch, self.owner[: records.OWNER_MAX], time_ns, RULES, identity, above)
        epoch = records.epoch_at(position, opening)
        changes = [records.encode(records.Group(epoch, time_ns, [command])) for command in edits.commands]
        log.append(log.position, [records.encode(opening), *changes])
        state.epoch, state.rules, state.identity = epoch, RULES, heeded
        self._edits = edits.commands
        self.begun = Begun(epoch, log.incarnation, fresh, time_ns, position)
        return self.begun

    def _first(self) -> records.Identity:
        """What the file is taken to have said when the log had nothing of it: what is traded, as it is."""
        if self.log.position:
            logger.warning(
                "the log says from now on whose it is: %s of the venue %s", self._file.name, self._file.venue
            )
        markets = [self.venue.markets.get(instrument.id) for instrument in self._file.instruments]
        return msgspec.structs.replace(
            self._file, instruments=tuple(market.instrument for market in markets if market is not None)
        )

    def _elsewhere(self) -> list[Instrument]:
        return [instrument for instrument in self._cluster.instruments if instrument.engine != self.engine]

    async def serve(self, address: str, services: Iterable[Services] = ()) -> int:
        """Open the port; the engine takes orders when this returns. Raises: OSError if the port cannot be had."""
        loop = asyncio.get_running_loop()
        self.stopping: asyncio.Future[int] = loop.create_future()
        release = Release(self.hub, self.publish, lambda: self.committer.backlog)
        self.committer = Committer(
            self.log,
            self.venue,
            self.begun.epoch,
            time_ns=self.begun.time_ns,
            clock_ns=self.clock_ns,
            release=release,
            stop=self._broken,
        )
        self.router = Router(self.reference, self.committer, self.presence.entered)
        self.streams = Streams()
        self._take_up(release)
        self.presence.committer = self.committer
        self.presence.found(self.venue.sessions(), loop.time())
        self.learn(self._cluster.instruments, [entry.id for entry in self._cluster.engines])
        self.learn([market.instrument for market in self.venue.markets.values()], [])
        port = await self._open(address, services)
        self._run(self._keep_house())
        return port

    def learn(self, instruments: Iterable[Instrument], engines: Iterable[int]) -> None:
        """Instruments and engines of the venue, from the cluster's file or because they joined."""
        self.reference.learn(instruments)
        for engine in sorted(set(engines) - {self.engine} - set(self.links)):
            link = HomeLink(self.engine, engine, self.hub, self._endpoint_of(engine), answer_s=self._answer_s)
            self.links[engine] = self.router.carriers[engine] = link
            self._run(link.run())

    async def stop(self) -> None:
        """End streams in good order, then the log's thread; the log itself is the caller's to close."""
        self.presence.committer = None  # our going is not our clients': their orders stay, and they come back
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        await self.streams.stop(STOP_S)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(STOP_S)
        self.committer.close()

    def _take_up(self, release: Release) -> None:
        """Apply the edits that were logged with the epoch, as a replay will."""
        first = self.begun.position + 1
        for position, command in enumerate(self._edits, first):
            release(position, self.begun.time_ns, self.venue.operate(position, self.begun.time_ns, command))
            if isinstance(command, AddInstrument | ChangeInstrument):
                self.listed(command.definition)
        self._edits = []

    async def _open(self, address: str, services: Iterable[Services]) -> int:
        router, reference, hub, links, streams = self.router, self.reference, self.hub, self.links, self.streams
        ids, begun = SessionIds(self.engine, self.clock_ns), self.begun
        sessions = Sessions(router, reference, hub, self.presence, links, streams, ids)
        calls = Calls(router, reference, hub, self.venue, links)
        home = Home(router, hub, self.presence, streams, epoch=begun.epoch, incarnation=begun.incarnation)
        operator = OperatorServicer(
            self.venue,
            self.committer,
            lambda: reference.symbols,
            self._listed,
            channels=self.channels,
            guard=self._guard,
            confirm_clock=self._confirm_clock,
        )
        server = connect.server()
        self._server = server
        server.add_generic_rpc_handlers((sessions.handlers(), *calls.handlers(), home.handlers(), operator.handlers()))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [f"lobmesh.v1.{name}" for name in ("Orders", "Operator", "Peers", "MarketData", "Directory")]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        for service in services:
            service.add_to(server)
        port = connect.bind(server, address)
        await server.start()
        await self._health.set("", _status(True))
        await self._health.set(ORDERS, _status(True))
        return port

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something go on beside; if it breaks, so does the engine."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    def _listed(self, instrument: Instrument) -> None:
        if not self.venue.markets[instrument.id].delisted:  # else another engine may have it by now
            self.learn([instrument], [])
        self.listed(instrument)

    def _endpoint_of(self, engine: int) -> Callable[[], str | None]:
        return lambda: self._where(engine)

    def _broken(self, error: BaseException) -> None:
        """No command may be answered any more: have the process end."""
        known = isinstance(error, OutcomeUnknown | LogConflict)
        logger.critical("stopping: %s", error, exc_info=None if known else error)
        self.streams.break_off()
        if not self.stopping.done():
            self.stopping.set_result(EXIT_LOG_LOST if known else EXIT_BROKEN)

    async def _keep_house(self) -> None:
        """Everything that is due now and then: sessions that did not come back, checkpoints, garbage, and to say
        whether the links to all other engines stand."""
        loop = asyncio.get_running_loop()
        seen, seen_at, clean = self.committer.commands, loop.time(), True
        told: dict[str, bool] = {}
        while True:
            takes = self.committer.state is CommitState.READY
            linked = all(link.state is LinkState.UP for link in self.links.values())
            for service, serves in {"": takes, ORDERS: takes, LINKS: linked}.items():
                if serves is not told.get(service):
                    told[service] = serves
                    await self._health.set(service, _status(serves))
            await asyncio.sleep(HOUSE_S)
            self.presence.tick(loop.time())
            due_ns = self.venue.next_due_ns
            if due_ns and due_ns <= self.clock_ns():
                self.committer.submit(Submission.tick())
            if self.committer.commands != seen:
                seen, seen_at, clean = self.committer.commands, loop.time(), False
            elif not clean and loop.time() > seen_at + IDLE_S:
                # The collector is off (engine/process.py). What came since the last time is looked at once; what is
                # still alive then is not looked at again.
                gc.collect(0)
                clean = True
            if isinstance(self.log, SqliteLog) and self.log.checkpoint_due:
                try:
                    await asyncio.to_thread(self.log.checkpoint)
                except LogFailed as e:
                    logger.error("%s", e)
                    self.committer.submit(Submission.tick())  # appends are refused, too: have that known


def _status(serves: bool) -> Any:
    status = health_pb2.HealthCheckResponse
    return status.SERVING if serves else status.NOT_SERVING


def owner_name(name: str) -> str:
    """Who owns an epoch, for people to read in the log."""
    return f"{name} pid {os.getpid()}"

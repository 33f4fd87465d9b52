"""The directory on the wire: it exchanges entries with every machine it knows, every second and at every change.

Each machine is called on its own, one call at a time and each with a deadline, so one that hangs holds up nobody. A
change travels at once: a round begins when an entry has changed, and again while a machine has not been told yet.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import grpc

from bus.access.directory import Changed, Conflict, Directory, Displaced, Entry, Event, Unconfirmed
from proto import cluster_pb2, cluster_pb2_grpc, connect, marketdata_pb2
from proto import instrument as listing
from proto.dial import wrong_address, wrong_endpoint, wrong_name
from proto.instrument import CHANNEL_MAX, ENGINE_MAX, Instrument, ListingError, instrument_of

PERIOD_S: Final = 1.0
DEADLINE_S: Final = 1.0
GOODBYE_S: Final = 0.5
GATHER_S: Final = 0.02  # news that comes together leaves together
DOUBT_TRIES: Final = 3
CONFLICT_KEY: Final = "lobmesh-conflict"  # in the trailing metadata of a refusal: what is claimed


_log = logging.getLogger(__name__)


class DirectoryError(ValueError):
    """A message is not an entry: the peer's fault."""


class DirectoryRefused(Exception):
    """A machine does not list us: our entry claims what another holds."""


def message_of(entry: Entry) -> cluster_pb2.DirectoryEntry:
    return cluster_pb2.DirectoryEntry(
        name=entry.name,
        engine=entry.engine,
        fabric=entry.fabric,
        incarnation=entry.incarnation,
        epoch=entry.epoch,
        version=entry.version,
        grpc=entry.grpc,
        feed=entry.feed,
        instruments=[listing.message_of(instrument) for instrument in entry.instruments],
        channels=entry.channels,
        left=entry.left,
        start=entry.start,
        follows=entry.follows,
    )


def entry_of(message: cluster_pb2.DirectoryEntry) -> Entry:
    """The entry that a message describes. Raises: DirectoryError if it cannot be one."""
    good = (
        not wrong_name(message.name)
        and message.engine <= ENGINE_MAX
        and (message.fabric or message.engine > 0)
        and not wrong_address(message.grpc, somebody=True)
        and (not message.feed or not wrong_endpoint(message.feed, somebody=True))
        and message.channels <= CHANNEL_MAX
    )
    if not good:
        raise DirectoryError(f"not a directory entry: {message.name!r}")
    return Entry(
        name=message.name,
        engine=message.engine,
        fabric=message.fabric,
        incarnation=message.incarnation,
        epoch=message.epoch,
        version=message.version,
        grpc=message.grpc,
        feed=message.feed,
        instruments=tuple(_instrument(instrument, message) for instrument in message.instruments),
        channels=message.channels,
        left=message.left,
        start=message.start,
        follows=message.follows,
    )


async def ask(target: str, timeout_s: float = DEADLINE_S) -> tuple[Entry, ...]:
    """All entries that the machine at `target` believes, asked as an onlooker: without being listed.

    Raises: grpc.aio.AioRpcError, DirectoryError.
    """
    return tuple(entry_of(message) for message in (await exchange(target, timeout_s)).entries)


async def exchange(target: str, timeout_s: float) -> cluster_pb2.DirectoryEntries:
    """What the machine at `target` answers an onlooker. Raises: grpc.aio.AioRpcError."""
    async with connect.channel(target) as channel:
        reply: cluster_pb2.DirectoryEntries = await _stub(channel).Exchange(
            cluster_pb2.DirectoryEntries(), timeout=timeout_s
        )
    return reply


def new_start() -> int:
    """A number for one start of a machine."""
    return secrets.randbits(64) or 1


class DirectoryLoop:
    """Keeps a `Directory` up to date over gRPC, on the running event loop, and answers the others.

        loop = DirectoryLoop(Directory(), seeds=["127.0.0.1:4000"])
        loop.add_to(server)                # a grpc.aio.server, before it starts
        loop.listen(on_event)              # told of each Changed, Unconfirmed, Conflict, Superseded, Displaced
        loop.announce(own_entry)           # not for an onlooker
        loop.start()
        await loop.joined(5.0)
        ...
        await loop.stop()                  # says good-bye

    `seeds` are called until one of them has answered, and again whenever nobody else does.
    """

    def __init__(
        self,
        directory: Directory,
        seeds: Sequence[str] = (),
        *,
        period_s: float = PERIOD_S,
        deadline_s: float = DEADLINE_S,
        position: Callable[[], int] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`position`: how far our own log reaches, if there is one; `clock_ns`: our time. Both are told to all."""
        self.directory = directory
        self.malformed = 0  # entries that were none
        self._seeds = tuple(dict.fromkeys(seeds))
        self._period_s = period_s
        self._deadline_s = deadline_s
        self._position = position
        self._clock_ns = clock_ns
        self._listeners: list[Callable[[Event], None]] = []
        self._channels: dict[str, grpc.aio.Channel] = {}  # by target
        self._calls: dict[str, asyncio.Task[None]] = {}  # under way, by target
        self._tries: dict[str, int] = {}  # of doubted entries, by name
        self._said: list[Conflict] = []
        self._message = cluster_pb2.DirectoryEntries()
        self._message_generation = -1
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._refused_why = ""
        self._late = False  # nobody waits to be joined any more
        self._answers = 0
        self._answers_before = 0
        self._task: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer Directory calls on a server that has not started yet."""
        add: Any = cluster_pb2_grpc.add_DirectoryServicer_to_server
        add(self, server)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each event from now on, on the event loop; it must not block."""
        self._listeners.append(listener)

    def announce(self, entry: Entry) -> None:
        """Make `entry` our own and tell everybody."""
        self._tell(self.directory.write(entry))

    def start(self) -> None:
        assert self._task is None
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def joined(self, timeout_s: float) -> bool:
        """Wait until a seed has answered: True; at once if there is no seed. False when none has in time.

        Raises: DirectoryRefused when the answer is that our entry claims what another holds: announce one that does
        not, and wait again.
        """
        if not self._seeds:
            self._late = True
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._answered.wait()
        except TimeoutError:
            self._late = True
            return False
        if self._refused_why:
            why, self._refused_why = self._refused_why, ""
            self._answered.clear()
            raise DirectoryRefused(why)
        return True

    async def stop(self) -> None:
        """Say good-bye to everybody, within half a second, and end."""
        tasks = [*self._calls.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._calls.clear()
        if self.directory.own is not None:
            self._tell(self.directory.leave(time.time_ns()))
            targets = dict.fromkeys(entry.grpc for entry in self.directory.peers())
            await asyncio.gather(*(self._exchange(target, GOODBYE_S) for target in targets))
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def Exchange(self, request: cluster_pb2.DirectoryEntries, context: Any) -> cluster_pb2.DirectoryEntries:
        """Take what the caller knows, give what we know; ALREADY_EXISTS, naming both, if we refuse the caller."""
        sender = str(getattr(request, "from"))
        events = self._merge(request, sender)
        self._tell(events)
        own = self.directory.own
        conflict = self.directory.conflict(sender)
        if conflict is None and own is not None and sender == own.name:
            conflict = next((event for event in events if isinstance(event, Conflict)), None)
        if conflict is not None:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, str(conflict), ((CONFLICT_KEY, conflict.what),))
        return self._current()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._begin_round()
            try:
                async with asyncio.timeout(self._period_s):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(GATHER_S)

    async def _begin_round(self) -> None:
        """Call everybody to whom no call is under way."""
        targets = self._targets()
        for target in targets:
            if target not in self._calls:
                task = asyncio.get_running_loop().create_task(self._call(target))
                self._calls[target] = task
        for target in [target for target in self._channels if target not in targets and target not in self._calls]:
            await self._channels.pop(target).close()

    def _targets(self) -> list[str]:
        directory = self.directory
        targets = [entry.grpc for entry in directory.peers()] + [entry.grpc for entry in directory.doubted()]
        if not self._answered.is_set() or self._answers == self._answers_before:
            targets += self._seeds
        self._answers_before = self._answers
        own = directory.own.grpc if directory.own is not None else ""
        return [target for target in dict.fromkeys(targets) if target != own]

    async def _call(self, target: str) -> None:
        generation = self.directory.generation
        try:
            answered = await self._exchange(target, self._deadline_s)
        finally:
            self._calls.pop(target, None)
        if not answered:
            self._count_doubts(target)
        elif self.directory.generation != generation:
            self._wake.set()

    async def _exchange(self, target: str, deadline_s: float) -> bool:
        """One call; True if it was answered. A refusal of what we said of ourselves before is no news."""
        own = self.directory.own
        if target not in self._channels:
            self._channels[target] = connect.channel(target)
        try:
            reply = await _stub(self._channels[target]).Exchange(self._current(), timeout=deadline_s)
        except grpc.aio.AioRpcError as e:
            if e.code() is grpc.StatusCode.ALREADY_EXISTS and self.directory.own is own:
                self._refused(target, e.details() or "", dict(e.trailing_metadata()).get(CONFLICT_KEY))
            elif e.code() is grpc.StatusCode.UNAVAILABLE:
                self.directory.unreachable(target)
            return False
        self._take_answer(reply)
        self._refused_why = ""
        self._answers += 1
        self._answered.set()
        return True

    def _refused(self, target: str, why: str, what: object) -> None:
        """Whoever was listed by somebody stays; who was not, and claims to be a machine that runs, is Displaced."""
        if why != self._refused_why:
            _log.error("%s does not list us: %s", target, why)
        self._refused_why = why
        own = self.directory.own
        self._answered.set()
        if own is None:
            return
        for twin in self.directory.doubted():
            if (twin.name, twin.grpc) == (own.name, target):
                self._tell(self.directory.confirm(twin, time.monotonic_ns()))
        if self._late and not self._answers and what in ("name", "engine"):
            self._tell([Displaced(why)])

    def _take_answer(self, reply: cluster_pb2.DirectoryEntries) -> None:
        """Its own entry, in an answer to our call, is the machine's own word."""
        sender = str(getattr(reply, "from"))
        self._tell(self._merge(reply, sender))
        for message in reply.entries:
            if message.name == sender:
                for entry in self._entries([message]):
                    self._tell(self.directory.confirm(entry, time.monotonic_ns()))
                    self.directory.heard(entry, time.monotonic_ns())

    def _merge(self, message: cluster_pb2.DirectoryEntries, sender: str) -> list[Event]:
        directory = self.directory
        news = [m for m in message.entries if not directory.knows(m.name, m.incarnation, m.epoch, m.version, m.start)]
        events = directory.merge(self._entries(news), sender)
        for reached in message.reached:
            directory.reach(reached.name, reached.start, reached.position)
        return events

    def _entries(self, messages: Iterable[cluster_pb2.DirectoryEntry]) -> list[Entry]:
        entries: list[Entry] = []
        for message in messages:
            try:
                entries.append(entry_of(message))
            except DirectoryError as e:
                self.malformed += 1
                _log.warning("%s", e)
        return entries

    def _count_doubts(self, target: str) -> None:
        """A doubted machine that does not answer is forgotten after three tries, until it is heard of again."""
        for entry in self.directory.doubted():
            if entry.grpc == target:
                self._tries[entry.name] = self._tries.get(entry.name, 0) + 1
                if self._tries[entry.name] >= DOUBT_TRIES:
                    del self._tries[entry.name]
                    self._tell(self.directory.forget_doubt(entry.name))

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Changed | Unconfirmed):
                self._wake.set()
            if isinstance(event, Conflict):
                if event in self._said:
                    continue
                self._said.append(event)
                _log.error("%s", event)
            for listener in self._listeners:
                listener(event)

    def _current(self) -> cluster_pb2.DirectoryEntries:
        """What we tell: built anew only when there is news."""
        directory = self.directory
        if self._message_generation != directory.generation:
            own = directory.own.name if directory.own is not None else ""
            entries = [message_of(entry) for entry in directory.entries()]
            self._message = cluster_pb2.DirectoryEntries(entries=entries)
            setattr(self._message, "from", own)
            self._message_generation = directory.generation
        if self._position is not None and directory.own is not None:
            directory.reach(directory.own.name, directory.own.start, self._position())
        self._message.now_ns = self._clock_ns()
        del self._message.reached[:]
        for told in directory.entries():
            if reached := directory.reached(told):
                self._message.reached.add(name=told.name, start=told.start, position=reached)
        return self._message


def _stub(channel: grpc.aio.Channel) -> Any:
    stub: Any = cluster_pb2_grpc.DirectoryStub
    return stub(channel)


def _instrument(message: marketdata_pb2.Instrument, entry: cluster_pb2.DirectoryEntry) -> Instrument:
    try:
        instrument = instrument_of(message)
    except ListingError as e:
        raise DirectoryError(f"{e} of {entry.name}") from e
    if instrument.engine != entry.engine or instrument.channel > entry.channels:
        raise DirectoryError(f"not an instrument of {entry.name}: {instrument.symbol!r}")
    return instrument

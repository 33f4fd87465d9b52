"""The machines of a run: an engine and a fabric node each, started, killed, paused and brought back by name."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from bus.access.asking import Machine
from engine.node import LINKS
from proto import connect
from proto.cluster import Cluster, EngineEntry, dumps
from tools.chaos.plan import FaultSpec
from tools.child import Child, Children, Patience, StartError
from tools.run.layout import symbol

START_S: Final = 30.0  # on a quiet machine
POLL_S: Final = 0.02
JOINS_MAX: Final = 3  # machines named to one that starts: any will do, a few in case one dies


class KilledMeanwhile(StartError):
    """A process was killed on purpose before it served."""


@dataclass(slots=True)
class Place:
    """One named process over the lives it leads: `child` and `machine` are of the present one."""

    name: str
    child: Child
    machine: Machine | None = None  # its market data service, from when it first serves
    down: bool = False  # killed, or told to leave, as the faults asked
    left: bool = False  # told to leave
    ended: bool = False  # by itself
    life: int = 0
    epochs: list[int] = field(default_factory=list)  # an engine's, one for each life
    killed_at_s: float | None = None
    kills: int = 0

    @property
    def id(self) -> int:
        return int(self.name.rpartition("-")[2])

    @property
    def asked(self) -> Machine:
        assert self.machine
        return self.machine

    @property
    def serving(self) -> bool:
        return self.machine is not None and not self.down and not self.ended and not self.child.paused

    @property
    def state(self) -> str:
        if self.down or self.ended:
            return "down"
        if self.child.paused:
            return "paused"
        return "up" if self.machine else "starts"


class Machines:
    """All places, and the fault proxy before what they publish and before the fabric nodes' ports, as far as messages
    or calls are to be troubled.

    `on_start` is told of each place that begins to serve, before anything else can happen.
    """

    def __init__(self, venue: Cluster, directory: Path, children: Children, on_start: Callable[[Place], None]) -> None:
        self.venue = venue
        self.directory = directory
        self.patience = Patience()
        self.ports: dict[str, str] = {}  # where a place is to serve, host:port, if not where the system chooses
        self.engines: dict[int, Place] = {}
        self.fabrics: dict[int, Place] = {}
        self.proxy: Child | None = None
        self._files: dict[int, Path] = {}  # of engines that joined: each knows itself alone
        self._children = children
        self._on_start = on_start

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.toml"

    def allocation(self, instrument: int) -> str:
        """How an instrument shares out a level; empty for one that is not the run's: somebody has added it."""
        return next((each.allocation for each in self.venue.instruments if each.id == instrument), "")

    def places(self) -> Iterator[Place]:
        yield from self.engines.values()
        yield from self.fabrics.values()

    def serving(self) -> list[Place]:
        return [place for place in self.places() if place.serving]

    def serving_engines(self) -> list[Place]:
        return [place for place in self.engines.values() if place.serving]

    def serving_fabrics(self) -> list[Place]:
        return [place for place in self.fabrics.values() if place.serving]

    def targets(self) -> list[str]:
        """Where the machines that serve are, host:port."""
        return [place.asked.target for place in self.places() if place.serving]

    def joins(self) -> list[str]:
        """The arguments that tell a process where the others are."""
        return [argument for target in self.targets()[:JOINS_MAX] for argument in ("--join", target)]

    def _one_of(self, id: int) -> list[str]:
        """The same, for one that joins in the middle: any one machine is enough, its own engine if that serves."""
        if id not in self._files:
            return self.joins()
        own = self.engines.get(id)
        return ["--join", own.asked.target] if own and own.serving else self.joins()[:2]

    def child(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """A process of this run, not started yet."""
        return Child(name, module, arguments, self.directory / "logs" / f"{name}.log", self.patience)

    async def start_proxy(self, faults: FaultSpec, seed: int) -> None:
        """Before any machine: its addresses are those that machines announce, also later ones. Raises: StartError."""
        ids = [engine.id for engine in self.venue.engines]
        ids += range(max(ids) + 1, max(ids) + 1 + faults.joins)
        arguments = [f"--line=engine-{id}" for id in ids]
        if faults.meet_calls:
            arguments += [f"--machine=fabric-{id}" for id in ids]
        arguments += ["--wait", "--faults", str(replace(faults, timed=())), "--seed", str(seed)]
        self.proxy = await self._children.start(self.child("faults", "tools.faults", arguments))
        await self.proxy.wait_ready(START_S)

    async def start_engines(self) -> None:
        """The first alone, since the others join it; they serve when any of them takes an order for any instrument.

        Raises: StartError.
        """
        first, *others = self.venue.engines
        await self.start_engine(first.id)
        await asyncio.gather(*(self.start_engine(engine.id) for engine in others))
        await asyncio.gather(*(self._linked(place) for place in self.engines.values()))

    async def _linked(self, place: Place) -> None:
        """Wait until an engine's links to the others stand. Raises: StartError."""
        began = time.monotonic()
        while not await serves(place.asked.target, LINKS):
            if time.monotonic() > began + START_S * self.patience.factor:
                waited = time.monotonic() - began
                raise StartError(f"{place.name} has no link to every other engine after {waited:.0f} s")
            await asyncio.sleep(POLL_S)

    async def start_fabrics(self) -> None:
        """Raises: StartError."""
        await asyncio.gather(*(self.start_fabric(engine.id) for engine in self.venue.engines))

    def expect(self) -> int:
        """Give the venue one engine more, with an instrument of its own, in a file that only that engine reads."""
        id = max(engine.id for engine in self.venue.engines) + 1
        last = max(self.venue.instruments, key=lambda instrument: instrument.id)
        entry = EngineEntry(id)
        name = symbol(last.id + 1)
        instrument = replace(last, id=last.id + 1, symbol=name, engine=id, channel=1, state="open")
        self._files[id] = self.directory / f"engine-{id}.toml"
        self._files[id].write_text(dumps(replace(self.venue, engines=(entry,), instruments=(instrument,))))
        venue = self.venue
        self.venue = replace(venue, engines=(*venue.engines, entry), instruments=(*venue.instruments, instrument))
        return id

    async def join(self, id: int) -> None:
        """Start an expected engine and its fabric node: each is told of one machine. Raises: StartError."""
        await self.start_engine(id)
        await self.start_fabric(id)

    async def leave(self, name: str, at_s: float) -> None:
        """Stop it as its owner would."""
        place = self.place(name)
        place.down = place.left = True
        place.killed_at_s = at_s
        await place.child.stop()

    async def start_engine(self, id: int) -> None:
        """For the first time or again. Raises: StartError."""
        name = f"engine-{id}"
        file = self._files.get(id, self.cluster_file)
        arguments = ["--cluster", str(file), "--engine", str(id), "--data", str(self.directory / name)]
        if id not in self.engines and not (self.directory / name / "log.sqlite").exists():
            arguments.append("--new")
        if self.proxy:
            arguments += ["--advertise-feed", self.proxy.ready["listen"][name]]
        arguments += self._port(name)
        place = await self._serve(self.engines, id, self.child(name, "engine", [*arguments, *self._one_of(id)]))
        if self.proxy:
            self.proxy.tell({"line": name, "upstream": place.child.ready["feed"]})
        try:
            streams = await place.asked.streams(START_S * self.patience.factor)
        except grpc.aio.AioRpcError as e:  # it has ended again, or was killed
            raise StartError(f"{name} served and then did not say what: {e.code().name}") from None
        place.epochs.append(max(stream.epoch for stream in streams))

    async def start_fabric(self, id: int) -> None:
        """For the first time or again. Raises: StartError."""
        name = f"fabric-{id}"
        arguments = ["--name", name, "--engine", str(id), *self._one_of(id)]
        before = self.proxy.ready.get("market_data", {}) if self.proxy else {}
        if name in before:
            arguments += ["--advertise-grpc", before[name]]
        arguments += self._port(name)
        place = await self._serve(self.fabrics, id, self.child(name, "bus", arguments))
        if self.proxy and name in before:
            self.proxy.tell({"machine": name, "market_data": place.child.ready["grpc"]})

    def _port(self, name: str) -> list[str]:
        return ["--grpc", self.ports[name]] if name in self.ports else []

    async def kill(self, name: str, at_s: float) -> None:
        place = self.place(name)
        place.down = True
        place.kills += 1
        place.killed_at_s = at_s
        await place.child.kill()

    async def restart(self, name: str) -> None:
        """Raises: StartError; the place then counts as ended by itself. KilledMeanwhile if it was, on its way back."""
        place = self.place(name)
        kills = place.kills
        try:
            if name.startswith("engine"):
                await self.start_engine(place.id)
            else:
                await self.start_fabric(place.id)
        except StartError as e:
            if place.kills != kills:
                raise KilledMeanwhile(str(e)) from None
            place.down, place.ended = False, True
            raise

    def place(self, name: str) -> Place:
        kind, _, id = name.partition("-")
        return (self.engines if kind == "engine" else self.fabrics)[int(id)]

    def ended(self) -> list[Place]:
        """Those that have just ended by themselves."""
        found = [place for place in self.places() if not place.down and not place.ended and not place.child.alive]
        for place in found:
            place.ended = True
        return found

    async def close(self) -> None:
        """Hang up; the processes are the caller's to end."""
        for place in self.places():
            if place.machine:
                await place.machine.close()

    async def _serve(self, places: dict[int, Place], id: int, child: Child) -> Place:
        """Begin a life of a place, the first or another, and wait until it serves."""
        place = places.get(id)
        if place is None:
            place = places[id] = Place(child.name, child)
        place.child = child
        await self._children.start(child)
        ready = await child.wait_ready(START_S)
        if place.machine:
            await place.machine.close()
        place.machine = Machine(ready["grpc"])
        place.life += 1
        place.down = place.left = False
        self._on_start(place)
        return place


async def serves(target: str, service: str, timeout_s: float = 2.0) -> bool:
    """Whether a process says of this service that it serves; False too while it does not answer or know of it."""
    async with connect.channel(target) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

"""A whole cluster for the length of a run: its processes started and troubled, watched, brought to rest, and judged."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from proto import cluster as cluster_file
from proto.cluster import Cluster, ClusterError
from proto.feed import FeedError, Snapshot
from tools import verdict as judge
from tools.compare import differences
from tools.fault_plan import FaultSpec, TimedFault
from tools.layout import made_up, symbols_of
from tools.live_view import Board, InstrumentRow, MachineRow
from tools.market_data import Machine, StreamState, book_state, resting
from tools.observer import Observer
from tools.processes import Child, Children, StartError
from tools.tally import Counted, added
from tools.verdict import Ended, Engine, Evidence, Finding, Marked, Mirror, Outage, Seen, Strangers, Verdict

RATE: Final = 1_500  # orders/s of all traders together
START_S: Final = 20.0
OPENING_S: Final = 60.0  # for the traders' opening ladders
DRAIN_S: Final = 15.0  # for the last answers
REST_S: Final = 15.0  # for every mirror to reach its owner's sequence
TICK_S: Final = 0.05
STRANGERS_S: Final = 0.5  # between one stranger's leaving and the next one's coming
LOOK_S: Final = 0.4  # between two looks at all machines
LIVE: Final = "live"

Answer = TypeVar("Answer")


class CannotStart(Exception):
    """The run did not come to its beginning; the text says why."""


class UsageError(Exception):
    """What was asked for does not fit together."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked to be."""

    engines: int = 3
    instruments: int = 6
    traders: int = 12
    rate: int = 0  # 0: RATE for traders, as fast as may be for a replay
    duration_s: float = 20.0
    seed: int = 1
    replay: tuple[Path, ...] = ()
    check: tuple[Path, ...] = ()
    faults: FaultSpec = field(default_factory=FaultSpec)

    def title(self) -> str:
        """One line that says what this run is."""
        if self.replay:
            flow = "replay of " + ", ".join(path.name for path in self.replay)
        else:
            flow = f"{self.traders} traders, seed {self.seed}"
        faults = f", faults {self.faults}" if str(self.faults) else ""
        return f"{self.engines} engines, {self.instruments} instruments, {flow}{faults}"


@dataclass(slots=True)
class _Place:
    """One named process over the lives it leads: `child` is the present one."""

    name: str
    child: Child
    machine: Machine | None = None
    down: bool = False  # killed, as the faults asked
    ended: bool = False  # by itself
    life: int = 0
    epochs: list[int] = field(default_factory=list)
    killed_at_s: float | None = None

    @property
    def id(self) -> int:
        return int(self.name.rpartition("-")[2])

    @property
    def asked(self) -> Machine:
        """Its market data service."""
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
        return "up" if self.machine else "starting"


class ClusterRun:
    """One run. `board` shows it while it goes on; `run` ends with its verdict.

    `drain` (a first Ctrl-C) ends trading early and goes on to the verdict. Cancelling the task ends everything at once.
    """

    def __init__(self, options: Options, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.venue = _venue(options, directory)
        self.board = Board(options.title(), duration_s=0.0 if options.replay else options.duration_s)
        self.board.machines = [MachineRow(engine.id) for engine in self.venue.engines]
        self.board.instruments = [
            InstrumentRow(i.symbol, i.engine, i.tick_size, i.lot_size) for i in self.venue.instruments
        ]
        self._children = Children()
        self._engines: dict[int, _Place] = {}
        self._fabrics: dict[int, _Place] = {}
        self._flows: list[Child] = []  # traders, or replays
        self._flow_lines: dict[str, dict[str, Any]] = {}  # the last tally of each
        self._flow_done: dict[str, asyncio.Event] = {}
        self._flow_reported: dict[str, asyncio.Event] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._proxy: Child | None = None
        self._strangers: Child | None = None
        self._strangers_line: dict[str, Any] = {}  # the last they said
        self._observer = Observer()
        self._drain = asyncio.Event()
        self._began = 0.0  # when trading began, on the monotonic clock
        self._traded_s = 0.0
        self._flow_s = 0.0  # as the longest replay says
        self._seen: dict[tuple[str, int, int, int], Seen] = {}
        self._first_trade: dict[int, int] = {}  # next trade id of each instrument when the run began
        self._history: list[tuple[float, dict[int, int]]] = []
        self._opening = Counted()  # what had happened before trading began
        self._checks: list[Finding] = []
        self._outages: list[Outage] = []
        self._out: dict[str, tuple[str, float, int]] = {}  # who is out: how, since when, answers elsewhere before

    def drain(self) -> None:
        self._drain.set()

    async def run(self) -> Verdict:
        """Raises: CannotStart; asyncio.CancelledError. No process is left behind, whatever happens."""
        with self._children:
            try:
                await self._start()
                await self._trade()
                evidence = await self._settle()
                ended = await self._stop()
                return judge.judge(replace(evidence, ended=ended))
            finally:
                for task in self._readers:
                    task.cancel()
                await asyncio.gather(*self._readers, return_exceptions=True)
                for place in self._places():
                    if place.machine:
                        await place.machine.close()
                await self._observer.stop()

    # Starting

    async def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "cluster.toml").write_text(cluster_file.dumps(self.venue))
        try:
            if self.options.faults.rates:
                await self._start_proxy()
            self._say("starting engines")
            first, *others = self.venue.engines
            await self._start_engine(first.id)
            await asyncio.gather(*(self._start_engine(engine.id) for engine in others))
            self._observer.start()
            await self._heard()
            await self._note_first_trades()
            if self.options.replay:
                await self._start_replays()
            else:
                self._say("opening ladders")
                await self._start_traders()  # so that the fabric nodes join a venue at work
            await asyncio.gather(*(self._start_fabric(engine.id) for engine in self.venue.engines))
            if self._proxy:
                await self._start_strangers()
            for flow in self._flows:
                flow.tell({"go": True})
        except StartError as e:
            raise CannotStart(str(e)) from None

    async def _start_proxy(self) -> None:
        arguments = [f"--line=engine-{engine.id}" for engine in self.venue.engines]
        rates = FaultSpec(self.options.faults.rates)
        arguments += ["--faults", str(rates), "--seed", str(self.options.seed)]
        self._proxy = await self._children.start(self._child("faults", "tools.faults", arguments))
        await self._proxy.wait_ready(START_S)

    async def _start_strangers(self) -> None:
        machines = [place.asked.target for place in self._fabrics.values()]
        arguments = [*machines, "--every", str(STRANGERS_S)]
        self._strangers = await self._children.start(self._child("strangers", "tools.strangers", arguments))
        await self._strangers.wait_ready(START_S)
        self._readers.append(asyncio.get_running_loop().create_task(self._read_strangers(self._strangers)))

    async def _read_strangers(self, child: Child) -> None:
        while (line := await child.line()) is not None:
            self._strangers_line = line

    async def _start_engine(self, id: int) -> None:
        place = self._engines.get(id)
        name = f"engine-{id}"
        arguments = ["--cluster", str(self.directory / "cluster.toml"), "--engine", str(id)]
        arguments += ["--data", str(self.directory / name), *self._joins(name)]
        if self._proxy:
            arguments += ["--advertise-feed", self._proxy.ready["listen"][name]]
        child = self._child(name, "engine", arguments)
        if place is None:
            place = self._engines[id] = _Place(name, child)
        await self._serve(place, child)
        self._observer.follow(name, child.ready["feed"])
        if self._proxy:
            self._proxy.tell({"line": name, "upstream": child.ready["feed"]})
        await self._note_epoch(place)

    async def _start_fabric(self, id: int) -> None:
        place = self._fabrics.get(id)
        name = f"fabric-{id}"
        arguments = ["--name", name, "--engine", str(id), *self._joins(name)]
        child = self._child(name, "bus", arguments)
        if place is None:
            place = self._fabrics[id] = _Place(name, child)
        await self._serve(place, child)

    async def _serve(self, place: _Place, child: Child) -> None:
        """Begin a (new) life of `place` and wait until it serves."""
        place.child = child
        await self._children.start(child)
        ready = await child.wait_ready(START_S)
        if place.machine:
            await place.machine.close()
        place.machine = Machine(ready["grpc"])
        place.life += 1
        place.down = False
        targets = [other.asked.target for other in self._places() if other.serving]
        for flow in self._flows:
            flow.tell({"machines": targets})

    async def _start_traders(self) -> None:
        arguments = ["--cluster", str(self.directory / "cluster.toml"), "--seed", str(self.options.seed)]
        arguments += ["--traders", str(self.options.traders), "--rate", str(self.options.rate or RATE)]
        if self._first_trade != dict.fromkeys(self._first_trade, 1):  # the venue goes on: its ids were given before
            arguments += ["--first-id", str(time.time_ns())]
        arguments += self._joins("traders")
        child = await self._start_flow("traders", "tools.trade", arguments)
        line = await _within(child.line(), OPENING_S)
        if line is None or "opened" not in line:
            raise StartError(f"the traders could not open: {line}\n{child.complaints()}")
        self._happened(f"{line['opened']:,} orders in the opening ladders")
        self._flow_lines[child.name] = line
        self._follow_flow(child)

    async def _start_replays(self) -> None:
        self._say("reading recorded flow")
        checks = self.options.check or (None,) * len(self.options.replay)
        starts = []
        for i, (path, check) in enumerate(zip(self.options.replay, checks, strict=True), 1):
            arguments = [str(path), "--symbol", self.venue.instruments[i - 1].symbol, "--account", str(i)]
            arguments += ["--rate", str(self.options.rate), *self._joins("replay")]
            arguments += ["--check", str(check)] if check else []
            starts.append(self._start_flow(f"replay-{i}", "tools.replay_flow", arguments))
        for child in await asyncio.gather(*starts):
            self._follow_flow(child)

    async def _start_flow(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        child = await self._children.start(self._child(name, module, arguments))
        self._flows.append(child)
        await child.wait_ready(START_S)
        return child

    def _follow_flow(self, child: Child) -> None:
        self._flow_done[child.name] = asyncio.Event()
        self._flow_reported[child.name] = asyncio.Event()
        self._readers.append(asyncio.get_running_loop().create_task(self._read_flow(child)))

    async def _read_flow(self, child: Child) -> None:
        """Keep the last tally of a flow; it is done when it says so, or has ended."""
        try:
            while (line := await child.line()) is not None:
                if "tally" in line:
                    self._flow_lines[child.name] = line
                if "finding" in line:
                    self._checks.append(Finding(**line["finding"] | {"details": tuple(line["finding"]["details"])}))
                if line.get("done"):
                    self._flow_s = max(self._flow_s, line.get("seconds", 0.0))
                    self._flow_done[child.name].set()
                if line.get("reported"):
                    self._flow_reported[child.name].set()
        finally:
            self._flow_done[child.name].set()
            self._flow_reported[child.name].set()

    def _child(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        return Child(name, module, arguments, self.directory / "logs" / f"{name}.log")

    def _joins(self, name: str) -> list[str]:
        """Any machine that serves will do; a few, in case one dies."""
        targets = [
            place.machine.target for place in self._places() if place.machine and place.serving and place.name != name
        ]
        return [argument for target in targets[:3] for argument in ("--join", target)]

    def _places(self) -> Iterator[_Place]:
        yield from self._engines.values()
        yield from self._fabrics.values()

    async def _note_epoch(self, place: _Place) -> None:
        assert place.machine
        streams = await place.machine.streams(START_S)
        place.epochs.append(max(stream.epoch for stream in streams))

    async def _heard(self) -> None:
        """Until the observer hears every engine: a trade from now on that it does not see is one that it misses."""
        deadline = time.monotonic() + START_S
        while not all(self._observer.watch.hears(engine.id) for engine in self.venue.engines):
            if time.monotonic() > deadline:
                raise StartError("nothing is heard on the engines' feeds")
            await asyncio.sleep(TICK_S)

    async def _note_first_trades(self) -> None:
        """Where each book's trade ids stood when the run began."""
        for snapshot in await self._owners():
            for book in snapshot.books:
                self._first_trade[book.instrument] = book.next_trade_id

    # Trading

    async def _trade(self) -> None:
        self._began = time.monotonic()
        self._opening = self._counted()
        self._say("trading")
        target = next(iter(self._fabrics.values())).asked.target
        self._happened(f"watch it: python -m tools.tail_feed {target} --symbol {self.venue.instruments[0].symbol}")
        faults = list(self.options.faults.timed)
        resumes: list[tuple[float, _Place]] = []
        next_look = 0.0
        while not self._over():
            now_s = self.board.now_s = time.monotonic() - self._began
            while faults and faults[0].at_s <= now_s:
                await self._do(faults.pop(0), resumes)
            for due, place in [each for each in resumes if each[0] <= now_s]:
                resumes.remove((due, place))
                place.child.resume()
                self._back(place.name)
                self._happened(f"{place.name} goes on")
            self._watch_processes()
            if now_s >= next_look:
                await self._look()
                next_look = time.monotonic() - self._began + LOOK_S
            await asyncio.sleep(TICK_S)
        self._traded_s = time.monotonic() - self._began
        for _, place in resumes:
            place.child.resume()
        for name in list(self._out):
            self._back(name)

    def _over(self) -> bool:
        if self._drain.is_set():
            return True
        if self.options.replay:
            return all(done.is_set() for done in self._flow_done.values())
        return time.monotonic() - self._began >= self.options.duration_s

    async def _do(self, fault: TimedFault, resumes: list[tuple[float, _Place]]) -> None:
        kind, _, id = fault.name.partition("-")
        place = (self._engines if kind == "engine" else self._fabrics)[int(id)]
        if fault.kind == "kill":
            self._happened(f"{fault.name} killed")
            await self._look()  # what it had seen goes with it
            place.down = True
            place.killed_at_s = fault.at_s
            await place.child.kill()
            self._gone(place, "killed")
        elif fault.kind == "restart":
            self._happened(f"{fault.name} restarted")
            start = self._start_engine if kind == "engine" else self._start_fabric
            try:
                await start(int(id))
                self._back(place.name)
            except StartError as e:
                place.ended = True
                self._happened(str(e).splitlines()[0])
        else:
            self._happened(f"{fault.name} paused for {fault.for_s:g} s")
            place.child.pause()
            self._gone(place, "paused")
            resumes.append((fault.at_s + fault.for_s, place))

    def _gone(self, place: _Place, how: str) -> None:
        self._out[place.name] = (how, self._now_s(), self._answered_elsewhere(place.name))

    def _back(self, name: str) -> None:
        how, since_s, before = self._out.pop(name)
        self._outages.append(Outage(name, how, since_s, self._now_s(), self._answered_elsewhere(name) - before))

    def _answered_elsewhere(self, name: str) -> int:
        """Orders answered so far, less those of the engine of that name."""
        by_home = self._counted().by_home
        return sum(count for home, count in by_home.items() if f"engine-{home}" != name)

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def _watch_processes(self) -> None:
        for place in self._places():
            if not place.down and not place.ended and not place.child.alive:
                place.ended = True
                self._happened(f"{place.name} ended by itself")

    # Looking

    async def _look(self) -> None:
        """Ask every machine how it stands, all at once; who does not answer is shown as before."""
        await asyncio.gather(*(self._look_at(place) for place in self._places()), self._look_at_books())
        counted = self._counted()
        elapsed = max(time.monotonic() - self._began, 1e-9)
        for row in self.board.machines:
            engine, fabric = self._engines.get(row.number), self._fabrics.get(row.number)
            row.engine = engine.state if engine else "starting"
            row.fabric = fabric.state if fabric else "starting"
            row.orders_per_s = self._rates(counted, elapsed).get(row.number, 0.0)
            row.epoch = engine.epochs[-1] if engine and engine.epochs else None
            seen = [seen for (name, *_), seen in self._seen.items() if name == f"fabric-{row.number}"]
            row.gaps = judge.counter(seen, "gaps")
            row.by_range = judge.counter(seen, "gaps_ranged")
            row.by_snapshot = judge.counter(seen, "gaps_snapshotted")
            row.by_late = judge.counter(seen, "gaps_late")
        for shown, instrument in zip(self.board.instruments, self.venue.instruments, strict=True):
            executed = counted.executed.get(instrument.id)
            shown.volume = executed.buys.quantity if executed else 0

    def _rates(self, counted: Counted, elapsed: float) -> dict[int, float]:
        """Answers a second of each home engine since the last few looks."""
        history = self._history
        history.append((elapsed, dict(counted.by_home)))
        del history[:-8]
        (since, before), (now, after) = history[0], history[-1]
        return {home: (count - before.get(home, 0)) / max(now - since, 1e-9) for home, count in after.items()}

    async def _look_at(self, place: _Place) -> None:
        if not place.serving or place.machine is None:
            return
        try:
            streams = await place.machine.streams(LOOK_S)
        except grpc.aio.AioRpcError:
            return
        self._note_streams(place, streams)

    def _note_streams(self, place: _Place, streams: Sequence[StreamState]) -> None:
        row = next(row for row in self.board.machines if row.number == place.id)
        if place.name.startswith("engine"):
            row.next_seq = max((stream.next_seq for stream in streams), default=None)
            return
        row.streams = len(streams)
        row.in_step = sum(stream.state == LIVE for stream in streams)
        for stream in streams:
            key = (place.name, place.life, stream.engine, stream.channel)
            self._seen[key] = Seen(place.name, stream.engine, stream.counters)

    async def _look_at_books(self) -> None:
        place = next((place for place in self._fabrics.values() if place.serving), None)
        if place is None or place.machine is None:
            return
        machine = place.machine
        for shown in self.board.instruments:
            try:
                book = await machine.book(shown.symbol, 1, LOOK_S)
            except grpc.aio.AioRpcError:
                continue
            shown.state = book_state(book)
            shown.bid = (book.bids[0].price, book.bids[0].quantity) if book.bids else None
            shown.ask = (book.asks[0].price, book.asks[0].quantity) if book.asks else None
            shown.last = book.last_price if book.last_trade_id else None

    def _counted(self) -> Counted:
        return added([Counted.from_json(line["tally"]) for line in self._flow_lines.values()])

    def _say(self, phase: str) -> None:
        self.board.phase = phase

    def _happened(self, what: str) -> None:
        self.board.happened.append(f"{self.board.now_s:6.1f} s  {what}")

    # Coming to rest

    async def _settle(self) -> Evidence:
        """Stop the flow, let every mirror reach its owner, and gather what there is to judge."""
        self._say("draining")
        for flow in self._flows:
            flow.tell({"stop": True})
        await _within(asyncio.gather(*(done.wait() for done in self._flow_done.values())), DRAIN_S)
        if self._strangers:
            await self._strangers.stop()
        self._say("coming to rest")
        await self._rest()
        for flow in self._flows:
            flow.tell({"report": True})
        await _within(asyncio.gather(*(told.wait() for told in self._flow_reported.values())), DRAIN_S)
        await self._look()
        mirrors, trade_ids = await self._compare()
        marked = await self._marks()
        self._observer.drain()
        watch = self._observer.watch
        proxied = await self._proxy_counts()
        self._say("at rest")
        return Evidence(
            symbols={i.id: i.symbol for i in self.venue.instruments},
            homes={i.id: i.engine for i in self.venue.instruments},
            engines=tuple(self._life_of(place) for place in self._engines.values()),
            counted=self._counted(),
            opening=self._opening,
            feed=watch.trades,
            feed_missed=watch.missed,
            trade_ids=trade_ids,
            mirrors=mirrors,
            seen=(*self._seen_by_fabrics(), *self._seen_by_strangers()),
            strangers=self._strangers_found(),
            outages=tuple(self._outages),
            fabrics_down=tuple((p.name, p.killed_at_s or 0.0) for p in self._fabrics.values() if p.down),
            seconds=self._flow_s or self._traded_s,
            marked=marked,
            proxied=proxied,
            checks=tuple(self._checks),
        )

    async def _rest(self) -> None:
        """Until every stream of every fabric node is live at its engine's sequence, or time is up."""
        deadline = time.monotonic() + REST_S
        while time.monotonic() < deadline:
            self._watch_processes()
            self._observer.drain()
            owners: dict[tuple[int, int], tuple[int, int]] = {}
            for place in self._serving(self._engines):
                for stream in await _answer(place.asked.streams()) or []:
                    owners[stream.engine, stream.channel] = (stream.epoch, stream.next_seq)
            level = [await self._level(place, owners) for place in self._serving(self._fabrics)]
            if all(level):
                return
            await asyncio.sleep(TICK_S)

    async def _level(self, place: _Place, owners: dict[tuple[int, int], tuple[int, int]]) -> bool:
        streams = await _answer(place.asked.streams()) or []
        self._note_streams(place, streams)
        mine = {(s.engine, s.channel): (s.epoch, s.next_seq) for s in streams if s.state == LIVE}
        return all(mine.get(stream) == stands for stream, stands in owners.items())

    def _serving(self, places: dict[int, _Place]) -> list[_Place]:
        return [place for place in places.values() if place.serving]

    async def _owners(self) -> list[Snapshot]:
        """The books of every engine that serves, channel by channel, as it has them itself."""
        out: list[Snapshot] = []
        for place in self._serving(self._engines):
            for channel in range(1, self.venue.engine(place.id).channels + 1):
                snapshot = await _answer(place.asked.snapshot(place.id, channel))
                if snapshot is not None:
                    out.append(snapshot)
        return out

    async def _compare(self) -> tuple[tuple[Mirror, ...], dict[int, int]]:
        """Every machine's copy of every stream beside its owner's; and how many trades each book made in this run."""
        mirrors: list[Mirror] = []
        trade_ids: dict[int, int] = {}
        for owner in await self._owners():
            for book in owner.books:
                trade_ids[book.instrument] = book.next_trade_id - self._first_trade.get(book.instrument, 1)
            mirrors += [await self._mirror(place, owner) for place in self._fabrics.values() if not place.down]
        asked = {mirror.engine for mirror in mirrors}
        silent = [place for place in self._engines.values() if not place.down and place.id not in asked]
        mirrors += [Mirror(place.name, place.id, 1, problem="gave no snapshot of its own books") for place in silent]
        return tuple(mirrors), trade_ids

    async def _mirror(self, place: _Place, owner: Snapshot) -> Mirror:
        where = (place.name, owner.engine, owner.channel, owner.epoch, owner.last_seq)
        if not place.serving or place.machine is None:
            return Mirror(*where, problem=f"is {place.state}")
        try:
            mirror = await place.machine.snapshot(owner.engine, owner.channel)
        except (grpc.aio.AioRpcError, FeedError) as e:
            return Mirror(*where, problem=f"gave no snapshot: {_why(e)}")
        return Mirror(*where, len(owner.books), resting(owner), differences(owner, mirror))

    async def _marks(self) -> tuple[Marked, ...]:
        """How each machine shows the books of engines that are down."""
        out: list[Marked] = []
        for engine in self._engines.values():
            if not engine.down:
                continue
            symbols = [i.symbol for i in self.venue.instruments_of(engine.id)]
            for place in self._serving(self._fabrics):
                streams = await _answer(place.asked.streams()) or []
                stream = next((s.state for s in streams if s.engine == engine.id), "unknown")
                books = [await _answer(place.asked.book(symbol)) for symbol in symbols]
                states = tuple("unknown" if book is None else book_state(book) for book in books)
                out.append(Marked(place.name, engine.id, stream, states))
        return tuple(out)

    def _seen_by_fabrics(self) -> list[Seen]:
        """Of every life that a fabric node led; those it did not survive end where they were last seen."""
        lives = {place.name: (place.life, place.down) for place in self._fabrics.values()}
        return [
            replace(seen, gone=life < lives[name][0] or lives[name][1])
            for (name, life, _, _), seen in self._seen.items()
        ]

    def _seen_by_strangers(self) -> list[Seen]:
        counters = self._strangers_line.get("counters", {})
        return [Seen("strangers", 0, counters, gone=True)] if counters else []

    def _strangers_found(self) -> Strangers | None:
        line = self._strangers_line
        if not line:
            return None
        return Strangers(line["strangers"], line["streams"], line["verified"], tuple(line["differing"]))

    async def _proxy_counts(self) -> dict[str, dict[str, int]]:
        if self._proxy is None or not self._proxy.alive:
            return {}
        self._proxy.tell({"report": True})
        line = await _within(self._proxy.line(), START_S)
        return dict(line["counts"]) if line else {}

    def _life_of(self, place: _Place) -> Engine:
        symbols = tuple(i.symbol for i in self.venue.instruments_of(place.id))
        return Engine(place.id, tuple(place.epochs), place.down, place.killed_at_s, symbols)

    async def _stop(self) -> tuple[Ended, ...]:
        """End every process as its owner would, and say which did not end well."""
        ended = [Ended(p.name, _how(p.child.returncode) + " by itself") for p in self._places() if p.ended]
        self._observer.drain()
        places = [place for place in self._places() if not place.down and not place.ended]
        children = [
            *([self._strangers] if self._strangers else []),
            *self._flows,
            *(p.child for p in places if p.name in _names(self._fabrics)),
        ]
        children += [
            *(p.child for p in places if p.name in _names(self._engines)),
            *([self._proxy] if self._proxy else []),
        ]
        early = [child for child in children if not child.alive and child.returncode]
        ended += [Ended(child.name, _how(child.returncode) + " by itself") for child in early]
        await self._children.stop()
        late = [child for child in children if child.returncode and child not in early]
        ended += [Ended(child.name, _how(child.returncode) + " when told to end") for child in late]
        return tuple(dict.fromkeys(ended))


def _names(places: dict[int, _Place]) -> list[str]:
    return [place.name for place in places.values()]


def _how(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def _why(e: Exception) -> str:
    if isinstance(e, grpc.aio.AioRpcError):
        return f"{e.code().name} {e.details() or ''}".strip()
    return str(e)


async def _answer(call: Awaitable[Answer]) -> Answer | None:
    """The answer of a machine; None if it gave none."""
    try:
        return await call
    except (grpc.aio.AioRpcError, FeedError):
        return None


async def _within(what: Awaitable[Answer], seconds: float) -> Answer | None:
    """Its result, or None when that takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError:
        return None


def _venue(options: Options, directory: Path) -> Cluster:
    """The venue of a data directory that was used before, or a new one. Raises: UsageError when it is another one."""
    path = directory / "cluster.toml"
    recorded = symbols_of([path.name for path in options.replay])
    new = made_up(options.engines, max(options.instruments, len(recorded)), recorded)
    if not path.exists():
        return new
    try:
        old = cluster_file.load(path)
    except ClusterError as e:
        raise UsageError(str(e)) from None
    if (old.engines, old.instruments) != (new.engines, new.instruments):
        given = f"--engines {len(old.engines)} --instruments {len(old.instruments)}"
        raise UsageError(f"{directory} holds the venue of another run: {given}")
    return old

"""A whole cluster for the length of a run: started, let loose on, troubled as told, brought to rest, and judged."""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from proto import cluster as cluster_file
from proto.cluster import Cluster, ClusterError
from proto.snapshot import Snapshot
from tools.chaos.plan import FaultSpec, TimedFault
from tools.flow.order_counts import Counted
from tools.run import verdict as judge
from tools.run.day.plan import day_of, ruled
from tools.run.day.run import DayRun
from tools.run.day.verdict import DayEvidence, day_to_json, judge_day
from tools.run.flows import Flows, within
from tools.run.layout import made_up, symbols_of
from tools.run.live_view import Board
from tools.run.machines import START_S, Machines, Place
from tools.run.observer import Observer
from tools.run.polling import LOOK_S, Lookout
from tools.child import Child, Children, StartError
from tools.run.verdict import Ended, Engine, Evidence, Moved, Outage, Seen, Verdict

RATE: Final = 1_500  # orders/s of all traders together
TICK_S: Final = 0.05


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
    trading_day: bool = False

    def title(self) -> str:
        """One line that says what this run is."""
        if self.replay:
            flow = "replay of " + ", ".join(path.name for path in self.replay)
        else:
            flow = f"{self.traders} traders, seed {self.seed}" + (", a trading day" if self.trading_day else "")
        faults = f", faults {self.faults}" if str(self.faults) else ""
        return f"{self.engines} engines, {self.instruments} instruments, {flow}{faults}"


class ClusterRun:
    """One run. `board` shows it while it goes on; `run` ends with its verdict.

    `drain` (a first Ctrl-C) ends trading early and goes on to the verdict. Cancelling the task ends everything at once.
    """

    def __init__(self, options: Options, directory: Path) -> None:
        self.options = options
        self.board = Board(options.title(), duration_s=0.0 if options.replay else options.duration_s)
        self._fresh = not (directory / "cluster.toml").exists()  # no order was ever entered here
        self._children = Children()
        self._machines = Machines(venue_of(options, directory), directory, self._children, self._on_start)
        self._flows = Flows(self._machines, self._children)
        self._lookout = Lookout(self._machines, self.board)
        self._observer = Observer()
        self._day: DayRun | None = None
        if options.trading_day:
            day = day_of(options.duration_s, self._machines.venue.instruments, options.seed)
            self._day = DayRun(day, self._machines, self._flows, self._lookout, self.board, self._happened)
        self._drain = asyncio.Event()
        self._began = 0.0  # when trading began, on the monotonic clock
        self._seconds = 0.0  # of trading
        self._opening = Counted()  # what had happened before
        self._next_trades: dict[int, int] = {}  # next trade id of each instrument when the run began
        self._restarts: list[asyncio.Task[None]] = []
        self._outages: list[Outage] = []
        self._moved: list[Moved] = []
        self._away: dict[str, tuple[str, float, int]] = {}  # how, since when, answers elsewhere before

    def drain(self) -> None:
        self._drain.set()

    async def run(self) -> Verdict:
        """Raises: CannotStart; asyncio.CancelledError. No process is left behind, whatever happens."""
        with self._children:
            try:
                await self._start()
                await self._trade()
                evidence = await self._settle()
                return judge.judge(replace(evidence, ended=await self._stop()))
            finally:
                if self._day:
                    await self._day.close()
                await self._flows.close()
                await self._machines.close()
                await self._observer.stop()

    # Starting

    async def _start(self) -> None:
        machines, options = self._machines, self.options
        machines.directory.mkdir(parents=True, exist_ok=True)
        machines.cluster_file.write_text(cluster_file.dumps(machines.venue))
        try:
            troubled = bool(options.faults.messages or options.faults.answers)
            if troubled:
                await machines.start_proxy(options.faults, options.seed)
            self.board.phase = "starting engines"
            await machines.start_engines()
            self._observer.start()
            await self._hear_all()
            if self._day:
                self.board.phase = "rolling the day"
                await self._day.prepare()
            owners = await self._lookout.owners()
            self._next_trades = _next_trades(owners)
            if self._day:
                await self._day.watch(self._observer, owners)
            await self._start_flows()  # first, so that the fabric nodes join a venue at work
            self.board.phase = "starting fabric nodes"
            await machines.start_fabrics()
            if troubled:
                await self._flows.start_strangers()
            self._flows.go()
        except StartError as e:
            raise CannotStart(str(e)) from None

    async def _start_flows(self) -> None:
        options = self.options
        if options.replay:
            self.board.phase = "reading recorded flow"
            await self._flows.start_replays(options.replay, options.check, options.rate)
            return
        self.board.phase = "opening ladders"
        first_id = 1 if self._fresh else time.time_ns()  # early ids were given before
        states = self._day.states if self._day else {}
        rate = options.rate or RATE
        opened = await self._flows.start_traders(options.traders, rate, options.seed, first_id, states)
        self._happened(f"{opened:,} orders in the opening ladders")

    async def _hear_all(self) -> None:
        """Until the observer hears every engine: a trade from now on that it does not see is one that it misses."""
        deadline = time.monotonic() + START_S
        while not all(self._observer.watch.hears(engine) for engine in self._machines.engines):
            if time.monotonic() > deadline:
                raise StartError("nothing is heard on the engines' feeds")
            await asyncio.sleep(TICK_S)

    def _on_start(self, place: Place) -> None:
        if "feed" in place.child.ready:
            self._observer.follow(place.name, place.child.ready["feed"])
        self._flows.tell_machines()

    # Trading

    async def _trade(self) -> None:
        self._began = time.monotonic()
        self._opening = self._flows.counted()
        self.board.phase = "trading"
        if self._machines.proxy:
            self._machines.proxy.tell({"begin": True})
        target = self._machines.serving_fabrics()[0].asked.target
        symbol = self._machines.venue.instruments[0].symbol
        self._happened(f"watch it: python -m tools.tail_feed {target} --symbol {symbol}")
        if self._day:
            self._day.begin()
        faults = [asyncio.create_task(self._trouble(fault)) for fault in self.options.faults.timed]
        try:
            next_look = 0.0
            while not self._over():
                self.board.now_s = self._now_s()
                if self._day:
                    self._day.tick(self._now_s())
                for place in self._machines.ended():
                    self._happened(f"{place.name} ended by itself")
                if self._now_s() >= next_look:
                    await self._lookout.look(self._flows.counted())
                    next_look = self._now_s() + LOOK_S
                await asyncio.sleep(TICK_S)
        finally:
            await _ended(faults)
        await asyncio.gather(*self._restarts)  # a machine on its way back is let in
        self._seconds = self._now_s()
        for place in self._machines.places():
            if place.child.paused:
                place.child.resume()
        for name in list(self._away):
            self._is_back(name)
        if self._day:
            await self._day.finish(self._drain.is_set())

    def _over(self) -> bool:
        if self._drain.is_set():
            return True
        return self._flows.done if self.options.replay else self._now_s() >= self.options.duration_s

    async def _trouble(self, fault: TimedFault) -> None:
        """Wait for the time of a fault, then do it."""
        await asyncio.sleep(fault.at_s - self._now_s())
        if fault.kind == "kill":
            await self._lookout.look(self._flows.counted())  # what it had seen goes with it
            await self._machines.kill(fault.name, fault.at_s)
            self._happened(f"{fault.name} killed")
            self._is_away(fault.name, "killed")
        elif fault.kind == "restart":
            self._happened(f"{fault.name} restarted")
            self._restarts.append(asyncio.create_task(self._restart(fault)))
        elif fault.kind in ("join", "leave"):
            self._restarts.append(asyncio.create_task(self._move(fault)))
        else:
            self._machines.place(fault.name).child.pause()
            self._happened(f"{fault.name} paused for {fault.for_s:g} s")
            self._is_away(fault.name, "paused")
            await asyncio.sleep(fault.at_s + fault.for_s - self._now_s())
            if self._away.get(fault.name, ("",))[0] == "paused":
                self._machines.place(fault.name).child.resume()
                self._happened(f"{fault.name} goes on")
                self._is_back(fault.name)

    async def _restart(self, fault: TimedFault) -> None:
        """Bring a machine back, on whatever port it gets, and wait until it is in step with all the others."""
        machines, lookout, name = self._machines, self._lookout, fault.name
        place, from_s = machines.place(name), self._now_s()
        port, before, answered = place.asked.target, lookout.seen(), self._answered_elsewhere(name)
        try:
            await machines.restart(name)
            self._is_back(name)
            took_s, missing = await membership.back(machines, place)
        except StartError as e:
            self._is_back(name)
            took_s, missing = self._now_s() - from_s, (str(e).splitlines()[0],)
            self._happened(missing[0])
        await lookout.look(self._flows.counted())
        what = f"at {place.asked.target}, before at {port}"
        self._moved.append(
            self._move_of(fault, name, "back in step", (took_s, missing), before, answered, from_s, what)
        )

    async def _move(self, fault: TimedFault) -> None:
        """Let a machine join or leave, and wait until all the others know."""
        machines, lookout = self._machines, self._lookout
        await lookout.look(self._flows.counted())  # what it had seen goes with it
        before, from_s = lookout.seen(), self._now_s()
        if fault.kind == "join":
            id = machines.expect()
            name = f"engine-{id}"
            answered = self._answered_elsewhere(name)
            lookout.expect(id)
            symbols = " ".join(instrument.symbol for instrument in machines.venue.instruments_of(id))
            self._happened(f"{name} joins with {symbols}, and fabric-{id} beside it")
            try:
                await machines.join(id)
                took_s, missing = await membership.joined(machines, machines.engines[id], machines.fabrics[id])
            except StartError as e:
                took_s, missing = self._now_s() - from_s, (str(e).splitlines()[0],)
            what = f"{symbols}: ordered and canceled through each engine; mirrored by each fabric node"
        else:
            name, what = fault.name, ""
            answered = self._answered_elsewhere(name)
            place = machines.place(name)
            await machines.leave(name, fault.at_s)
            self._happened(f"{name} left")
            took_s, missing = await membership.left(machines, place)
        await lookout.look(self._flows.counted())
        self._happened(f"all in step after {took_s:.1f} s" if not missing else f"not in step: {missing[0]}")
        how = "joined" if fault.kind == "join" else "left"
        self._moved.append(self._move_of(fault, name, how, (took_s, missing), before, answered, from_s, what))

    def _move_of(
        self,
        fault: TimedFault,
        name: str,
        how: str,
        found: tuple[float, tuple[str, ...]],
        before: Sequence[Seen],
        answered: int,
        from_s: float,
        what: str,
    ) -> Moved:
        """What a move came to: how long it took until all were in step, and who else noticed it."""
        took_s, missing = found
        faults = self.options.faults  # of these some make readers begin anew, too
        others = [each.kind for each in faults.timed if each.name != name and each.kind not in ("join", "leave")]
        quiet = not (faults.messages or faults.answers or others)
        disturbed = membership.disturbed(before, self._lookout.seen(), int(name.rpartition("-")[2]), name)
        return Moved(
            name=name,
            how=how,
            at_s=fault.at_s,
            took_s=took_s,
            missing=missing,
            disturbed=disturbed if quiet else None,
            answered_elsewhere=self._answered_elsewhere(name) - answered,
            from_s=from_s,
            to_s=self._now_s(),
            what="" if missing else what,
        )

    def _is_away(self, name: str, how: str) -> None:
        self._is_back(name)  # killed while it was paused
        self._away[name] = (how, self._now_s(), self._answered_elsewhere(name))

    def _is_back(self, name: str) -> None:
        if name in self._away:
            how, since_s, before = self._away.pop(name)
            self._outages.append(Outage(name, how, since_s, self._now_s(), self._answered_elsewhere(name) - before))

    def _answered_elsewhere(self, name: str) -> int:
        """Orders answered so far, less those of the engine of that name."""
        by_home = self._flows.counted().by_home
        return sum(count for home, count in by_home.items() if f"engine-{home}" != name)

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def _happened(self, what: str) -> None:
        self.board.happened.append(f"{self._now_s() if self._began else 0.0:6.1f} s  {what}")

    # Coming to rest

    async def _settle(self) -> Evidence:
        """Stop the flow, let every mirror reach its owner, and gather what there is to judge."""
        machines, flows, lookout = self._machines, self._flows, self._lookout
        self.board.phase = "draining"
        await flows.stop()
        self.board.phase = "coming to rest"
        await lookout.rest()
        await flows.report()
        await lookout.look(flows.counted())
        owners = await lookout.owners()
        mirrors, marked = await lookout.mirrors(owners), await lookout.marks()
        machines.ended()
        self._observer.drain()
        proxied, answers = await _proxy_counts(machines.proxy)
        day = await self._day_evidence()
        self.board.phase = "at rest"
        instruments = machines.venue.instruments
        return Evidence(
            symbols={i.id: i.symbol for i in instruments},
            homes={i.id: i.engine for i in instruments},
            engines=tuple(self._life_of(place) for place in machines.engines.values()),
            fabrics_down=tuple(
                (p.name, p.killed_at_s or 0.0) for p in machines.fabrics.values() if p.down and not p.left
            ),
            counted=flows.counted(),
            opening=self._opening,
            seconds=flows.seconds or self._seconds,
            feed=self._observer.watch.trades,
            feed_missed=self._observer.watch.missed,
            trade_ids={id: next_id - self._next_trades.get(id, 1) for id, next_id in _next_trades(owners).items()},
            mirrors=mirrors,
            marked=marked,
            seen=(*lookout.seen(), *flows.seen_by_strangers()),
            strangers=flows.strangers_found(),
            outages=tuple(self._outages),
            moved=tuple(self._moved),
            proxied=proxied,
            answers=answers,
            checks=(*flows.findings, *(judge_day(day) if day else ())),
            day=day_to_json(day) if day else None,
        )

    async def _day_evidence(self) -> DayEvidence | None:
        if self._day is None:
            return None
        troubled = bool(str(self.options.faults))
        return await self._day.evidence(self._now_s(), self._drain.is_set(), troubled, self._fresh)

    def _life_of(self, place: Place) -> Engine:
        symbols = tuple(i.symbol for i in self._machines.venue.instruments_of(place.id))
        return Engine(place.id, tuple(place.epochs), place.down, place.killed_at_s, place.left, symbols)

    async def _stop(self) -> tuple[Ended, ...]:
        """End every process as its owner would, and say which did not end well."""
        machines = self._machines
        others = [machines.proxy, self._flows.strangers, *self._flows.children]
        children = [place.child for place in machines.places() if not place.down]
        children += [child for child in others if child is not None]
        early = [child for child in children if not child.alive and child is not self._flows.strangers]
        await self._children.stop()
        ended = [Ended(child.name, f"{_how(child.returncode)} by itself") for child in early]
        late = [child for child in children if child.returncode and child not in early]
        return (*ended, *(Ended(child.name, f"{_how(child.returncode)} when told to end") for child in late))


def _next_trades(owners: Sequence[Snapshot]) -> dict[int, int]:
    """The next trade id of each instrument."""
    return {book.instrument: book.next_trade_id for owner in owners for book in owner.books}


def _how(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks; raise what one of them raised, our own bug."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _proxy_counts(proxy: Child | None) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """What was done to messages, line by line, and to calls, machine by machine."""
    if proxy is None or not proxy.alive:
        return {}, {}
    proxy.tell({"report": True})
    line = await within(proxy.line(), START_S)
    return (dict(line["counts"]), dict(line.get("answers", {}))) if line else ({}, {})


def venue_of(options: Options, directory: Path) -> Cluster:
    """The venue of a data directory that was used before, or a new one. Raises: UsageError when it is another one."""
    path = directory / "cluster.toml"
    recorded = symbols_of([path.name for path in options.replay])
    new = made_up(options.engines, max(options.instruments, len(recorded)), recorded)
    if options.trading_day:
        new = replace(new, instruments=tuple(map(ruled, new.instruments)))
    if not path.exists():
        return new
    try:
        old = cluster_file.load(path)
    except ClusterError as e:
        raise UsageError(str(e)) from None
    if (old.engines, old.instruments) != (new.engines, new.instruments):
        given = f"--engines {len(old.engines)} --instruments {len(old.instruments)}"
        given += " --trading-day" if any(instrument.band for instrument in old.instruments) else ""
        raise UsageError(f"{directory} holds the venue of another run: {given}")
    return old

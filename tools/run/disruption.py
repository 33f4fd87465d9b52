"""What is done to the processes of a run at the times that its faults name, and what the others made of it."""

import asyncio
from collections.abc import Callable, Sequence

from tools.chaos.plan import FaultSpec, TimedFault
from tools.child import StartError
from tools.run import membership
from tools.run.evidence import Moved, Outage, Seen
from tools.run.flows import Flows
from tools.run.machines import KilledMeanwhile, Machines
from tools.run.polling import Poller


class Disruption:
    """Kills, restarts, pauses, joins and leaves. `now_s` is the time since trading began, `say` tells people."""

    def __init__(
        self,
        faults: FaultSpec,
        machines: Machines,
        flows: Flows,
        poller: Poller,
        now_s: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.outages: list[Outage] = []
        self.moved: list[Moved] = []
        self._faults = faults
        self._machines = machines
        self._flows = flows
        self._poller = poller
        self._now_s = now_s
        self._say = say
        self._tasks: list[asyncio.Task[None]] = []
        self._returning: list[asyncio.Task[None]] = []
        self._away: dict[str, tuple[str, float, int]] = {}  # how, since when, answers elsewhere before
        self._again_s: dict[str, float] = {}  # when those on their way back were started
        self._killing: dict[str, asyncio.Lock] = {}  # held while a process is being killed

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._trouble(fault)) for fault in self._faults.timed]

    async def end(self) -> None:
        """Do no more; machines on their way in are let in. Raises what one of them raised, our own bug."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        await asyncio.gather(*self._returning)

    async def close(self) -> None:
        """Leave everything as it is."""
        tasks = [*self._tasks, *self._returning]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def over(self) -> None:
        """Wake whoever is paused; what is down stays down."""
        for place in self._machines.places():
            if place.child.paused:
                place.child.resume()
        for name in list(self._away):
            self._is_back(name)

    async def _trouble(self, fault: TimedFault) -> None:
        """Wait for the time of a fault, then do it."""
        await asyncio.sleep(fault.at_s - self._now_s())
        if fault.kind == "kill":
            async with self._killing.setdefault(fault.name, asyncio.Lock()):
                await self._poller.look(self._flows.counted())  # what it had seen goes with it
                await self._machines.kill(fault.name, fault.at_s)
                self._say(f"{fault.name} killed")
                self._is_away(fault.name, "killed")
        elif fault.kind == "restart":
            async with self._killing.setdefault(fault.name, asyncio.Lock()):
                self._say(f"{fault.name} is started again")
            self._returning.append(asyncio.create_task(self._restart(fault)))
        elif fault.kind in ("join", "leave"):
            self._returning.append(asyncio.create_task(self._move(fault)))
        elif fault.kind == "pause":
            child = self._machines.place(fault.name).child
            child.pause()
            self._say(f"{fault.name} paused for {fault.for_s:g} s")
            self._is_away(fault.name, "paused")
            await asyncio.sleep(fault.at_s + fault.for_s - self._now_s())
            if child.paused:  # also one that is on its way back
                child.resume()
                self._say(f"{fault.name} goes on")
            if self._away.get(fault.name, ("",))[0] == "paused":
                self._is_back(fault.name)
        else:
            raise AssertionError(f"nothing is done for {fault.kind!r}")

    async def _restart(self, fault: TimedFault) -> None:
        """Bring a machine back, on whatever port it gets, and wait until it is in step with all the others."""
        machines, poller, name = self._machines, self._poller, fault.name
        place, from_s = machines.place(name), self._now_s()
        self._again_s[name] = from_s
        port, before, answered = place.asked.target, poller.seen(), self._answered_elsewhere(name)
        try:
            await machines.restart(name)
            self._is_back(name)
            self._say(f"{name} serves again")
            began = f"served again at {self._now_s():.1f} s"
            took_s, missing = await membership.back(machines, place)
        except KilledMeanwhile:
            return  # it is away again, or still
        except StartError as e:
            self._is_back(name)
            began = f"was started again at {from_s:.1f} s"
            took_s, missing = self._now_s() - from_s, (str(e).splitlines()[0],)
            self._say(missing[0])
        await poller.look(self._flows.counted())
        what = f"at {place.asked.target}, before at {port}"
        self._note(name, "back in step", (took_s, missing), before, answered, (from_s, began), what, outage=True)

    async def _move(self, fault: TimedFault) -> None:
        """Let a machine join or leave, and wait until all the others know."""
        machines, poller = self._machines, self._poller
        await poller.look(self._flows.counted())  # what it had seen goes with it
        before, from_s = poller.seen(), self._now_s()
        if fault.kind == "join":
            id = machines.expect()
            name = f"engine-{id}"
            answered = self._answered_elsewhere(name)
            poller.expect(id)
            symbols = " ".join(instrument.symbol for instrument in machines.venue.instruments_of(id))
            self._say(f"{name} joins with {symbols}, and fabric-{id} beside it")
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
            self._say(f"{name} left")
            took_s, missing = await membership.left(machines, place)
        await poller.look(self._flows.counted())
        self._say(f"all in step after {took_s:.1f} s" if not missing else f"not in step: {missing[0]}")
        how = "joined" if fault.kind == "join" else "left"
        began = f"{how} at {fault.at_s:g} s"
        self._note(name, how, (took_s, missing), before, answered, (from_s, began), what)

    def _note(
        self,
        name: str,
        how: str,
        found: tuple[float, tuple[str, ...]],
        before: Sequence[Seen],
        answered: int,
        begin: tuple[float, str],
        what: str,
        outage: bool = False,
    ) -> None:
        """What a move came to: how long it took until all were in step, and who else noticed it."""
        took_s, missing = found
        quiet = not (self._faults.messages or self._faults.answers)  # these make readers begin anew, too
        names = {name, *(fault.name for fault in self._faults.timed if fault.name)}
        engines = {int(each.rpartition("-")[2]) for each in names if each.startswith("engine")}
        disturbed = membership.disturbed(before, self._poller.seen(), engines, names)
        self.moved.append(
            Moved(
                name=name,
                how=how,
                took_s=took_s,
                missing=missing,
                disturbed=disturbed if quiet else None,
                answered_elsewhere=self._answered_elsewhere(name) - answered,
                from_s=begin[0],
                to_s=self._now_s(),
                what="" if missing else what,
                began=begin[1],
                outage=outage,
            )
        )

    def _is_away(self, name: str, how: str) -> None:
        self._again_s.pop(name, None)
        if self._away.get(name, ("",))[0] == "killed":
            return  # on its way back: it is one outage
        self._is_back(name)  # killed while it was paused
        self._away[name] = (how, self._now_s(), self._answered_elsewhere(name))

    def _is_back(self, name: str) -> None:
        if name in self._away:
            how, since_s, before = self._away.pop(name)
            answered = self._answered_elsewhere(name) - before
            again_s = self._again_s.pop(name, None)
            self.outages.append(Outage(name, how, since_s, self._now_s(), answered, again_s))

    def _answered_elsewhere(self, name: str) -> int:
        """Orders answered so far, less those of the engine of that name."""
        by_home = self._flows.counted().by_home
        return sum(count for home, count in by_home.items() if f"engine-{home}" != name)

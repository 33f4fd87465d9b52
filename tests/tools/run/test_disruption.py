"""What becomes of an outage, told once, whatever happens during it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tools.chaos.plan import FaultSpec, TimedFault, parse
from tools.child import Patience
from tools.run.disruption import Disruption
from tools.run.evidence import Outage
from tools.run.machines import KilledMeanwhile


class Pausable:
    paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Venue:
    """Machines, flows and a poller that do as they are told, and a clock that goes by itself."""

    def __init__(self, restarts: list[Any]) -> None:
        self.now_s = 0.0
        self.said: list[str] = []
        self._restarts = restarts  # how long each takes, or what it raises
        child = Pausable()
        self._place = SimpleNamespace(asked=self, child=child, name="engine-1")
        self.target = "127.0.0.1:1"
        self.patience = Patience()

    def place(self, name: str) -> Any:
        return self._place

    async def kill(self, name: str, at_s: float) -> None:
        pass

    async def restart(self, name: str) -> None:
        what = self._restarts.pop(0)
        if isinstance(what, Exception):
            raise what
        self.now_s += what

    async def streams(self, timeout_s: float) -> list[Any]:
        return [SimpleNamespace(engine=1, channel=1, epoch=1, next_seq=1)]

    def serving_fabrics(self) -> list[Any]:
        return []

    async def look(self, counted: Any) -> None:
        pass

    def seen(self) -> list[Any]:
        return []

    def counted(self) -> Any:
        return SimpleNamespace(by_home={1: 5, 2: int(100 * self.now_s)})


def troubled(faults: str, *restarts: Any) -> Disruption:
    async def run() -> Disruption:
        venue: Any = Venue(list(restarts))
        spec = parse(faults)
        trouble = Disruption(spec, venue, venue, venue, lambda: float(venue.now_s), venue.said.append)
        for fault in spec.timed:
            venue.now_s = fault.at_s
            await trouble._trouble(fault)
            await asyncio.gather(*trouble._returning)
        return trouble

    return asyncio.run(run())


def test_a_restart_ends_an_outage_when_it_serves() -> None:
    trouble = troubled("kill=engine-1@1,restart=engine-1@2", 1.5)
    assert trouble.outages == [Outage("engine-1", "killed", 1.0, 3.5, 250, 2.0)]
    (moved,) = trouble.moved
    assert (moved.began, moved.outage) == ("served again at 3.5 s", True)


def test_one_that_is_killed_on_its_way_back_is_away_all_the_time_and_moved_once() -> None:
    faults = "kill=engine-1@1,restart=engine-1@2,kill=engine-1@3,restart=engine-1@4"
    trouble = troubled(faults, KilledMeanwhile("before it served"), 1.0)
    assert trouble.outages == [Outage("engine-1", "killed", 1.0, 5.0, 400, 4.0)]
    assert [moved.began for moved in trouble.moved] == ["served again at 5.0 s"]


def test_a_restart_waits_for_a_kill_that_takes_its_time() -> None:
    async def run() -> list[str]:
        venue: Any = Venue([1.0])
        done: list[str] = []
        looks = asyncio.Event()

        async def slow_look(counted: Any) -> None:
            await looks.wait()

        async def kill(name: str, at_s: float) -> None:
            done.append("killed")

        async def restart(name: str) -> None:
            done.append("started again")

        venue.look, venue.kill, venue.restart = slow_look, kill, restart
        spec = parse("kill=engine-1@1,restart=engine-1@2")
        trouble = Disruption(spec, venue, venue, venue, lambda: 9.0, venue.said.append)
        trouble.begin()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        looks.set()
        await asyncio.gather(*trouble._tasks)
        await trouble.end()
        return done

    assert asyncio.run(run()) == ["killed", "started again"]


def test_one_that_is_paused_on_its_way_back_goes_on_all_the_same() -> None:
    async def run() -> tuple[bool, list[str]]:
        venue: Any = Venue([])
        trouble = Disruption(parse(""), venue, venue, venue, lambda: 9.0, venue.said.append)
        trouble._is_away("engine-1", "killed")
        (pause,) = parse("pause=engine-1@2:1").timed
        await trouble._trouble(pause)
        return venue.place("engine-1").child.paused, list(trouble._away)

    assert asyncio.run(run()) == (False, ["engine-1"])


def test_a_kind_that_nobody_carries_out_is_no_pause() -> None:
    venue: Any = Venue([])
    trouble = Disruption(FaultSpec(), venue, venue, venue, lambda: 9.0, venue.said.append)
    with pytest.raises(AssertionError):
        asyncio.run(trouble._trouble(TimedFault("freeze", "engine-1", 1.0)))
    assert not venue.said

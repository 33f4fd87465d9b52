"""Processes by name over the lives they lead, without processes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tools.child import Children, StartError
from tools.run.layout import made_up
from tools.run.machines import KilledMeanwhile, Machines, Place


class Stuck:
    """A process that comes to serve only when it is told what becomes of it."""

    paused = False
    alive = True

    def __init__(self) -> None:
        self.killed = asyncio.Event()

    async def kill(self) -> None:
        self.killed.set()


@pytest.mark.parametrize("killed", [True, False])
def test_a_process_that_is_killed_on_its_way_back_has_not_ended_by_itself(tmp_path: Path, killed: bool) -> None:
    async def run() -> Place:
        machines = Machines(made_up(1, 1), tmp_path, Children(), lambda place: None)
        child: Any = Stuck()
        place = machines.engines[1] = Place("engine-1", child, down=True)

        async def start(id: int) -> None:
            if killed:
                await machines.kill("engine-1", 5.0)
            raise StartError("engine-1 ended with exit code -9 before it served")

        machines.start_engine = start  # type: ignore[method-assign]
        with pytest.raises(KilledMeanwhile if killed else StartError):
            await machines.restart("engine-1")
        return place

    place = asyncio.run(run())
    assert (place.down, place.ended) == (killed, not killed)


def test_an_instrument_that_is_not_the_runs_has_no_rule_of_sharing_out(tmp_path: Path) -> None:
    machines = Machines(made_up(1, 4), tmp_path, Children(), lambda place: None)
    assert [machines.allocation(id) for id in (1, 4, 99)] == ["fifo", "pro-rata", ""]

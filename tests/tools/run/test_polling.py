"""A copy is compared with its owner at one sequence, whichever of the two has gone on meanwhile."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bus.stream.actions import Applied
from proto.feed import ADD, DELETE, END, OPEN, Row, Status
from proto.snapshot import BookSnapshot, Snapshot
from tools.child import Children
from tools.run.evidence import MirrorMatch
from tools.run.feeds import StreamWatch
from tools.run.layout import made_up
from tools.run.live_view import Board
from tools.run.machines import Machines
from tools.run.polling import Poller

ADDED: Row = (ADD | END, 1, 9, 100, 50, 0)
OTHER: Row = (ADD | END, 1, 10, 99, 5, 0)
EXPIRED: Row = (DELETE | END, 1, 9, 100, 50, 0)


def books(last_seq: int, *bids: tuple[int, int, int], epoch: int = 1) -> Snapshot:
    book = BookSnapshot(1, None, Status(OPEN, 0), last_seq, 0, 0, 0, 1, None, None, list(bids), [])
    return Snapshot(1, 1, 77, epoch, last_seq, 0, [book])


class Place:
    """A fabric node that has one copy to give, and an owner that has another by now."""

    name = "fabric-1"
    serving = True
    state = "up"

    def __init__(self, *copies: Snapshot) -> None:
        self.asked: Any = self
        self._copies = list(copies)

    async def snapshot(self, engine: int, channel: int) -> Snapshot:
        return self._copies.pop(0) if len(self._copies) > 1 else self._copies[0]


class Heard:
    """The deltas of the stream as the judge has heard them."""

    def __init__(self) -> None:
        watch = StreamWatch()
        watch.live(1, lambda: books(0))
        watch.applied(Applied(1, 1, 3, [ADDED, OTHER, EXPIRED], [(0, 0)], []), lambda: books(0))
        self.watches = {(1, 1): watch}

    def hears(self, engine: int, channel: int, at: tuple[int, int]) -> bool:
        return self.watches[engine, channel].position >= at


def compared(tmp_path: Path, owner: Snapshot, *copies: Snapshot, now: Snapshot | None = None) -> MirrorMatch:
    async def compare() -> MirrorMatch:
        machines = Machines(made_up(1, 1), tmp_path, Children(), lambda place: None)
        place: Any = Place(*copies)
        home: Any = Place(now or owner)
        machines.engines[1] = home
        heard: Any = Heard()
        poller = Poller(machines, Board("a run"), lambda: heard)
        return await poller._mirror(place, owner)

    return asyncio.run(compare())


BEFORE = books(2, (9, 100, 50), (10, 99, 5))
AFTER = books(3, (10, 99, 5))


@pytest.mark.parametrize(("owner", "copy"), [(BEFORE, BEFORE), (BEFORE, AFTER), (AFTER, BEFORE), (AFTER, AFTER)])
def test_an_order_that_expires_between_two_questions_is_no_difference(
    owner: Snapshot, copy: Snapshot, tmp_path: Path
) -> None:
    mirror = compared(tmp_path, owner, copy)
    assert (mirror.differences, mirror.problem) == ((), "")
    assert mirror.last_seq == max(owner.last_seq, copy.last_seq)


@pytest.mark.parametrize(
    ("owner", "copy"),
    [
        (BEFORE, books(3, (9, 100, 50), (10, 99, 5))),
        (AFTER, books(2, (9, 100, 50), (10, 99, 6))),
        (BEFORE, books(2, (9, 100, 50), (10, 99, 5), epoch=2)),
    ],
)
def test_a_copy_that_is_wrong_is_so_at_whatever_sequence(owner: Snapshot, copy: Snapshot, tmp_path: Path) -> None:
    assert compared(tmp_path, owner, copy).differences


def test_one_that_cannot_be_brought_there_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = books(9, (10, 99, 5))  # nobody has heard of that yet
    monkeypatch.setattr("tools.run.polling.LOOK_S", 0.01)
    assert compared(tmp_path, BEFORE, ahead, AFTER).differences == ()
    monkeypatch.setattr("tools.run.polling.LEVEL_S", 0.05)
    never = compared(tmp_path, BEFORE, ahead)
    assert never.problem == "could not be brought to one sequence with its owner"

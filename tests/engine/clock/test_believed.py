"""The clock: each row of the table of engine/clock/believed.py, with both clocks set by hand."""

import logging

import pytest

from engine.clock.believed import ANCHOR_NS, SECOND_NS, TOLERANCE_NS, Clock, Doubt
from engine.clock.host import HostClock, in_words

START = 1_790_000_000 * SECOND_NS
MINUTE, HOUR, DAY, YEAR = 60 * SECOND_NS, 3_600 * SECOND_NS, 86_400 * SECOND_NS, 365 * 86_400 * SECOND_NS


class Clocks:
    """A wall clock that can be set, and one that only counts; both stand still unless time passes."""

    def __init__(self, last_ns: int = 0, peers_ns: tuple[int, ...] = (), wall_ns: int = START) -> None:
        self.wall, self.mono = wall_ns, 5 * SECOND_NS
        self.clock = Clock(self.wall, self.mono, last_ns=last_ns, bound_ns=7 * DAY, peers_ns=peers_ns)

    def after(self, passed_ns: int, jump_ns: int = 0) -> int:
        """The time, when so much has passed and the wall clock was set by so much."""
        self.wall += passed_ns + jump_ns
        self.mono += passed_ns
        return self.clock.read(self.wall, self.mono)


def test_a_wall_clock_that_agrees_is_the_time() -> None:
    clocks = Clocks()
    for passed, step in ((0, 0), (SECOND_NS, 3), (HOUR, -5), (MINUTE, 59 * SECOND_NS), (DAY, -30 * SECOND_NS)):
        assert clocks.after(passed, step) == clocks.wall
        assert (clocks.clock.doubt, clocks.clock.ahead_ns) == (None, 0)


def test_time_never_falls() -> None:
    clocks = Clocks()
    at = clocks.after(SECOND_NS)
    assert clocks.after(0, -30 * SECOND_NS) == at
    assert clocks.after(20 * SECOND_NS) == at
    assert clocks.after(11 * SECOND_NS) == clocks.wall > at


@pytest.mark.parametrize("jump", [10 * YEAR, HOUR, TOLERANCE_NS + 1, -TOLERANCE_NS - 1, -HOUR, -10 * YEAR])
def test_a_jump_beyond_a_minute_is_not_believed_and_taken_up_by_a_second_a_minute(jump: int) -> None:
    clocks = Clocks()
    at = clocks.after(SECOND_NS)
    assert clocks.after(SECOND_NS, jump) == at + SECOND_NS
    assert (clocks.clock.doubt, clocks.clock.ahead_ns) == (Doubt.JUMPED, jump)
    slewed = 0
    for _ in range(3):
        slewed += SECOND_NS if jump > 0 else -SECOND_NS
        now = clocks.after(MINUTE)
        if abs(jump - slewed) <= TOLERANCE_NS:
            assert (now, clocks.clock.doubt) == (max(clocks.wall, now), None)
            break
        assert now == at + SECOND_NS + clocks.mono - 7 * SECOND_NS + slewed
        assert clocks.clock.doubt is Doubt.JUMPED


def test_an_hour_is_taken_up_after_sixty_hours_and_never_at_once() -> None:
    clocks = Clocks()
    before = clocks.after(SECOND_NS, HOUR)
    minutes = 0
    while clocks.clock.doubt:
        now = clocks.after(MINUTE)
        minutes += 1
        assert MINUTE <= now - before <= 2 * MINUTE + 2 * SECOND_NS
        before = now
    assert (minutes, before) == (59 * 60, clocks.wall)  # the last minute is believed at once


def test_a_clock_that_is_set_right_again_is_believed_again() -> None:
    clocks = Clocks()
    clocks.after(SECOND_NS, 10 * YEAR)
    clocks.after(10 * SECOND_NS)
    now = clocks.after(SECOND_NS, -10 * YEAR)
    assert (clocks.clock.doubt, abs(now - clocks.wall) < SECOND_NS) == (None, True)


def test_many_small_steps_are_a_jump() -> None:
    clocks = Clocks()
    now = [clocks.after(SECOND_NS, 20 * SECOND_NS) for _ in range(10)]
    assert clocks.clock.doubt is Doubt.JUMPED
    assert now[-1] - START <= 10 * SECOND_NS + TOLERANCE_NS + SECOND_NS
    slow = Clocks()
    for _ in range(20):  # what a poor clock gains in an hour is none
        assert slow.after(ANCHOR_NS, 5 * SECOND_NS) == slow.wall
    assert slow.clock.doubt is None


def test_what_is_confirmed_is_believed_at_once() -> None:
    clocks = Clocks()
    clocks.after(SECOND_NS, 10 * YEAR)
    clocks.clock.confirm(clocks.wall, clocks.mono)
    assert clocks.after(SECOND_NS) == clocks.wall
    clocks.after(0, -2 * HOUR)
    clocks.clock.confirm(clocks.wall, clocks.mono)
    at = clocks.wall + 2 * HOUR
    assert (clocks.after(HOUR), clocks.after(HOUR - SECOND_NS)) == (at, at)  # until it has caught up
    assert clocks.after(MINUTE) == clocks.wall
    assert clocks.clock.doubt is None


@pytest.mark.parametrize(
    ("last", "peers", "doubt"),
    [
        (0, (), None),
        (0, (START + YEAR,), None),  # nothing is logged that could expire
        (START - 7 * DAY, (), None),
        (START - 7 * DAY - 1, (), Doubt.LONG),
        (START - 10 * YEAR, (), Doubt.LONG),
        (START - 10 * YEAR, (START + 5,), Doubt.LONG),  # the others may have the same wall clock
        (START - DAY, (START + 5, START - 9, START + 10 * YEAR), None),
        (START - DAY, (START - DAY,), Doubt.PEERS),
        (START - DAY, (START + MINUTE + 1,), Doubt.PEERS),
        (START - DAY, (START + MINUTE,), None),
        (START + MINUTE, (), None),
        (START + MINUTE + 1, (), Doubt.BEHIND),
        (START + 10 * YEAR, (START,), Doubt.BEHIND),
    ],
)
def test_at_a_start_what_has_passed_is_believed_up_to_a_bound(
    last: int, peers: tuple[int, ...], doubt: Doubt | None
) -> None:
    clocks = Clocks(last, peers)
    assert clocks.clock.doubt is doubt
    if doubt is None:
        assert clocks.after(SECOND_NS) == max(last, clocks.wall)
        return
    assert clocks.after(SECOND_NS) == last + SECOND_NS
    assert clocks.after(DAY) == last + SECOND_NS + DAY  # nothing is taken up before it is confirmed
    assert clocks.clock.doubt is doubt
    clocks.clock.confirm(clocks.wall, clocks.mono)
    assert clocks.after(SECOND_NS) == max(last + SECOND_NS + DAY, clocks.wall)


def test_what_is_doubted_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    wall, mono = START, 0
    clock = HostClock(last_ns=START - 3 * HOUR, bound_ns=DAY, wall_ns=lambda: wall, mono_ns=lambda: mono)
    for _ in range(3):
        mono += SECOND_NS
        wall += SECOND_NS
        clock()
    wall += 10 * YEAR
    for _ in range(3):
        clock()
    assert clock.confirm().startswith("the clock is confirmed, 3,650.0 days ahead of the time")
    assert clock.confirm() == ""
    wall -= HOUR
    for _ in range(3):
        clock()
    wall += HOUR
    clock()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 5, told
    starts = [
        "the log's last record is 3 h old",
        "the clock is 3,650.0 days ahead of the time that is logged, and is not believed: it jumped",
        "the clock is confirmed",
        "the clock is 60 min behind",
        "the clock is believed again",
    ]
    assert all(line.startswith(start) for line, start in zip(told, starts, strict=True)), told


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0.4 s"), (90, "90 s"), (750, "12.5 min"), (-9_000, "-2.5 h"), (4e6, "46.3 days")]
)
def test_a_length_of_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words

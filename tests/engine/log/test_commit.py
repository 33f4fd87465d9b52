"""The loop that logs, syncs, applies and releases: in that order, whatever the disk does."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from engine.core.commands import OperatorCommand, SetState
from engine.core.rules import RULES
from engine.log import records
from engine.log.commit import BACKLOG_MAX, GROUP_COMMANDS, CommitState, Committer, Submission
from engine.log.contract import LogConflict, OutcomeUnknown
from engine.log.memory import Disk, Fault, MemoryLog
from engine.log.replay import replay
from engine.log.state import EngineState as Before
from proto.columns import NEW, WRONG_STATE, Batch, Outcome
from proto.orders import write_batch
from tests.patience import patience


def batch_of(first: int, count: int = 1, session: int = 0) -> Batch:
    ids = list(range(first, first + count))
    ones, zeros = [1] * count, [0] * count
    return Batch(7, session, 0, [NEW] * count, ids, ones, zeros, ones, ones, zeros)


class Core:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.breaks = False

    def apply(self, position: int, time_ns: int, batches: list[Batch]) -> Outcome:
        if self.breaks:
            raise AssertionError("broken")
        self.told.append((position, time_ns, [id for batch in batches for id in batch.client_order_id]))
        return Outcome([], [])

    def disconnect(self, position: int, time_ns: int, account: int, session: int) -> Outcome:
        self.told.append((position, time_ns, (account, session)))
        return Outcome([], [])

    def operate(self, position: int, time_ns: int, command: OperatorCommand) -> Outcome:
        self.told.append((position, time_ns, command))
        return Outcome([], [], WRONG_STATE)

    def tick(self, position: int, time_ns: int) -> Outcome:
        self.told.append((position, time_ns))
        return Outcome([], [])


class Bench:
    """A committer on a simulated disk, with a clock that is set by hand."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.log = MemoryLog(self.disk)
        self.core = Core()
        self.now = 1_000
        self.answers: list[tuple[int, bool]] = []
        self.released: list[int] = []
        self.stopped: list[BaseException] = []
        self.committer = Committer(
            self.log,
            self.core,
            0,
            time_ns=500,
            clock_ns=lambda: self.now,
            release=lambda position, time_ns, outcome: self.released.append(position),
            stop=self.stopped.append,
            resume_s=0.001,
        )

    def submit(self, batch: Batch) -> None:
        first = batch.client_order_id[0]
        self.committer.submit(
            Submission.enter(batch, write_batch(batch), lambda position, _: self.answers.append((first, position > 0)))
        )

    async def settled(self) -> None:
        await asyncio.wait_for(self.committer.settled(), patience(5))

    def records(self) -> list[records.Record]:
        return [records.decode(body) for body in self.disk.bodies]


def run(test: Callable[[Bench], Awaitable[None]], disk: Disk | None = None) -> Bench:
    async def main() -> Bench:
        bench = Bench(disk)
        try:
            await test(bench)
        finally:
            bench.committer.close()
        return bench

    return asyncio.run(main())


class Gate:
    """A disk whose appends wait until they are let through."""

    def __init__(self, disk: Disk) -> None:
        self.reached = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        disk.before_append = self._before

    def _before(self, bodies: Sequence[bytes]) -> None:
        self.reached.release()
        assert self.open.acquire(timeout=patience(5))

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.acquire, timeout=patience(5))


def test_commands_that_arrive_together_are_logged_together_and_applied_in_order() -> None:
    async def test(bench: Bench) -> None:
        for first in (10, 20, 30):
            bench.submit(batch_of(first, 2))
        await bench.settled()

    bench = run(test)
    assert bench.core.told == [(1, 1_000, [10, 11, 20, 21, 30, 31])]
    assert bench.answers == [(10, True), (20, True), (30, True)]
    assert bench.released == [1]
    assert [record.parts for record in bench.records() if isinstance(record, records.Group)] == [
        [records.Entered(7, 0, 0, write_batch(batch_of(first, 2))) for first in (10, 20, 30)]
    ]


def test_nothing_is_applied_before_it_is_durable_and_the_next_gathers_meanwhile() -> None:
    disk = Disk()
    gate = Gate(disk)

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1))
        await gate.wait()
        bench.submit(batch_of(2))
        bench.submit(batch_of(3))
        await asyncio.sleep(0)
        assert (bench.core.told, bench.answers, bench.committer.backlog) == ([], [], 3)
        gate.open.release()
        await gate.wait()
        # The second append is under way; the first has been applied beside it, and no more than the first.
        assert bench.core.told == [(1, 1_000, [1])]
        gate.open.release()
        await bench.settled()

    bench = run(test, disk)
    assert bench.core.told == [(1, 1_000, [1]), (2, 1_000, [2, 3])]
    assert bench.answers == [(1, True), (2, True), (3, True)]


def test_a_group_is_bounded() -> None:
    async def test(bench: Bench) -> None:
        for first in range(0, 3 * GROUP_COMMANDS, 1_024):
            bench.submit(batch_of(first + 1, 1_024))
        await bench.settled()

    bench = run(test)
    assert [len(told[2]) for told in bench.core.told] == [GROUP_COMMANDS] * 3  # type: ignore[arg-type]


def test_a_large_backlog_makes_the_next_wait_for_room() -> None:
    disk = Disk()
    gate = Gate(disk)

    async def test(bench: Bench) -> None:
        for first in range(0, BACKLOG_MAX + 4_096, 4_096):
            bench.submit(batch_of(first + 1, 4_096))
        assert bench.committer.crowded
        waiting = asyncio.ensure_future(bench.committer.room())
        await gate.wait()
        assert not waiting.done()
        for _ in range(40):
            gate.open.release()
        await asyncio.wait_for(waiting, patience(5))
        assert not bench.committer.crowded
        await bench.settled()

    run(test, disk)


def test_logged_time_never_falls_though_the_clock_does() -> None:
    async def test(bench: Bench) -> None:
        for now in (100, 2_000, 1_500, 3_000):
            bench.now = now
            bench.submit(batch_of(now))
            await bench.settled()

    bench = run(test)
    assert [told[1] for told in bench.core.told] == [500, 2_000, 2_000, 3_000]


def test_the_end_of_a_session_is_a_record_of_its_own_in_its_place() -> None:
    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1, session=9))
        bench.committer.submit(Submission.disconnect(7, 9))
        bench.submit(batch_of(2))
        await bench.settled()

    bench = run(test)
    assert bench.core.told == [(1, 1_000, [1]), (2, 1_000, (7, 9)), (3, 1_000, [2])]
    assert bench.released == [1, 2, 3]


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.FULL, Fault.BUSY])
def test_a_failed_append_changes_nothing_and_refuses_all_that_wait_and_all_that_come(fault: Fault) -> None:
    disk = Disk()
    gate = Gate(disk)
    disk.faults.extend([None, fault])

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1))
        gate.open.release()
        await gate.wait()
        await bench.settled()
        bench.submit(batch_of(2))
        await gate.wait()
        bench.submit(batch_of(3))
        gate.open.release()
        await bench.settled()
        bench.submit(batch_of(4))

    bench = run(test, disk)
    assert bench.core.told == [(1, 1_000, [1])]
    assert bench.answers == [(1, True), (2, False), (3, False), (4, False)]
    assert bench.stopped == []
    assert len(disk.bodies) == 1


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(patience(5)):
        while not reached():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("fault", [Fault.FULL, Fault.BUSY])
def test_after_a_pause_a_tick_is_the_first_record_and_then_sessions_that_ended_meanwhile(fault: Fault) -> None:
    disk = Disk()
    disk.faults.extend([None, fault, fault, fault])

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1, session=9))
        await bench.settled()
        bench.submit(batch_of(2))
        bench.committer.submit(Submission.disconnect(7, 9))  # waits for the next record
        await bench.settled()
        bench.submit(batch_of(3))
        bench.committer.submit(Submission.disconnect(7, 8))
        assert (bench.committer.state, bench.committer.failure) == (CommitState.PAUSED, fault.value)
        await until(lambda: bench.committer.state is CommitState.READY)
        bench.submit(batch_of(4))
        await bench.settled()

    bench = run(test, disk)
    assert bench.answers == [(1, True), (2, False), (3, False), (4, True)]
    assert bench.core.told == [(1, 1_000, [1]), (2, 1_000), (3, 1_000, (7, 9)), (4, 1_000, (7, 8)), (5, 1_000, [4])]
    assert (bench.committer.failure, bench.stopped, len(disk.bodies)) == ("", [], 5)


@pytest.mark.parametrize(
    ("second", "state", "told"),
    [(Fault.BEFORE, CommitState.FAILED, []), (Fault.AFTER, CommitState.STOPPED, [OutcomeUnknown])],
)
def test_a_pause_ends_for_good_with_any_other_failure(second: Fault, state: CommitState, told: list[type]) -> None:
    disk = Disk()
    disk.faults.extend([Fault.FULL, second])

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1))
        await bench.settled()
        await until(lambda: bench.committer.state is not CommitState.PAUSED)
        assert bench.committer.state is state

    bench = run(test, disk)
    assert [type(error) for error in bench.stopped] == told
    assert bench.answers == [(1, False)]


def test_after_a_pause_a_log_that_ends_elsewhere_stops_the_engine() -> None:
    disk = Disk()
    disk.faults.append(Fault.BUSY)

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1))
        await bench.settled()
        bench.log.resume()
        bench.log.append(0, [b"what held it was a second writer"])
        await until(lambda: bench.committer.state is CommitState.STOPPED)

    bench = run(test, disk)
    assert [type(error) for error in bench.stopped] == [LogConflict]


@pytest.mark.parametrize("fault", [Fault.AFTER, Fault.LOST])
def test_an_unknown_outcome_stops_the_engine_and_answers_nobody(fault: Fault) -> None:
    disk = Disk()
    disk.faults.append(fault)

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1))
        await bench.settled()
        bench.submit(batch_of(2))

    bench = run(test, disk)
    assert (bench.core.told, bench.answers) == ([], [])
    assert [type(error) for error in bench.stopped] == [OutcomeUnknown]
    assert bench.committer.state is CommitState.STOPPED


def test_a_foreign_record_stops_the_engine() -> None:
    async def test(bench: Bench) -> None:
        bench.log.append(0, [b"somebody else's"])
        bench.submit(batch_of(1))
        await bench.settled()

    bench = run(test)
    assert bench.answers == []
    assert [type(error) for error in bench.stopped] == [LogConflict]


def test_a_broken_core_stops_the_engine_and_answers_nobody() -> None:
    async def test(bench: Bench) -> None:
        bench.core.breaks = True
        bench.submit(batch_of(1))
        await bench.settled()
        bench.submit(batch_of(2))

    bench = run(test)
    assert bench.answers == []
    assert [str(error) for error in bench.stopped] == ["broken"]


def test_what_an_operator_says_is_a_record_of_its_own_and_answered_with_its_position() -> None:
    disk = Disk()
    answers: list[tuple[int, int]] = []

    async def test(bench: Bench) -> None:
        said = Submission.operate(SetState(1, 3), lambda position, refused: answers.append((position, refused)))
        bench.submit(batch_of(1))
        bench.committer.submit(said)
        bench.committer.submit(Submission.tick())
        bench.submit(batch_of(2))
        await bench.settled()

    told = run(test, disk).core.told
    assert [entry[:1] + entry[2:] for entry in told] == [(1, [1]), (2, SetState(1, 3)), (3,), (4, [2])]
    assert answers == [(2, WRONG_STATE)]
    disk.crash()
    core = Core()
    list(replay(MemoryLog(disk), Before(core), 0, lambda position, time_ns, outcome: None))  # type: ignore[arg-type]
    assert core.told == told


def test_a_replay_tells_the_core_what_it_was_told_and_skips_what_is_void() -> None:
    disk = Disk()

    async def test(bench: Bench) -> None:
        bench.submit(batch_of(1, 3, session=9))
        bench.submit(batch_of(4))
        bench.committer.submit(Submission.disconnect(7, 9))
        await bench.settled()

    told = run(test, disk).core.told
    for record in (
        records.Epoch(0, "second owner", 0, RULES),  # position 3: the epoch is 3
        records.Group(0, 2_000, [records.Entered(7, 0, 0, write_batch(batch_of(5)))]),  # void: of the first owner
        records.Epoch(0, "too late"),  # void: the epoch is not 0 any more
        records.Group(3, 2_000, [records.Entered(7, 0, 0, write_batch(batch_of(6)))]),
        records.Group(3, 2_001, []),
    ):
        disk.bodies.append(records.encode(record))
    disk.crash()
    core = Core()
    released: list[int] = []
    state = Before(core)  # type: ignore[arg-type]
    reached = list(replay(MemoryLog(disk), state, 0, lambda position, time_ns, outcome: released.append(position)))
    assert core.told == [*told, (6, 2_000, [6]), (7, 2_001)]
    assert released == [1, 2, 6, 7]
    assert (reached[-1], state.epoch) == (7, 3)

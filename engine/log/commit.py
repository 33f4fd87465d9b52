"""Log, sync, apply, release: the one way by which a command reaches the core.

    submit    a batch joins those that gather
    log       all that has gathered, up to a bound, becomes the next record; a thread of its own makes it durable
    apply     once it is, and while the next record is being made durable, the core applies it
    release   what it caused goes out: reports, deltas, and word to whoever submitted it

So the core never holds a command that is not durable. A lonely command is logged at the end of the loop's turn in which
it came; under load the groups grow by themselves, since whatever comes during one sync shares the next.

    state     event                     next      what is done
    READY     append done               READY     the next group starts, then this one is applied and released
    READY     LogPaused                 PAUSED    this group and all that gathered is refused; nothing was applied
    READY     LogFailed                 FAILED    likewise
    READY     LogConflict, unknown      STOPPED   nothing is answered; `stop` is called: the process has to end
    READY     the core breaks           STOPPED   likewise
    PAUSED    submit                    PAUSED    refused at once, but that a session ended is kept; reads go on
    PAUSED    a second has passed       PAUSED    the log is asked to resume, and a tick is appended
    PAUSED    append done               READY     the tick is applied, then what was kept is logged
    PAUSED    LogPaused                 PAUSED    tried again after a second
    PAUSED    LogFailed, conflict, ...  as READY
    FAILED    submit                    FAILED    refused at once; reads go on
    STOPPED   anything                  STOPPED   no answer

The append that ends a pause carries nobody's command: if its outcome is unknown, too, nobody is left without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from enum import Enum
from queue import SimpleQueue
from typing import Final, Protocol

from engine.core.commands import OperatorCommand
from engine.log import records
from engine.log.contract import Log, LogFailed, LogPaused
from proto.columns import NO_REASON, Batch, Outcome

GROUP_COMMANDS: Final = 4_096  # a group takes no further batch once it has so many
GROUP_BYTES: Final = 1 << 20
RESUME_S: Final = 1.0  # between attempts to go on after a pause
BACKLOG_MAX: Final = 32_768  # commands not yet durable, beyond which sessions are read no further

logger = logging.getLogger(__name__)


class Core(Protocol):
    """What the loop needs of a venue."""

    def apply(self, position: int, time_ns: int, batches: list[Batch]) -> Outcome: ...

    def disconnect(self, position: int, time_ns: int, account: int, session: int) -> Outcome: ...

    def operate(self, position: int, time_ns: int, command: OperatorCommand) -> Outcome: ...

    def tick(self, position: int, time_ns: int) -> Outcome: ...


Release = Callable[[int, int, Outcome], None]  # position, time, outcome


# Called once: with the position of the record whose outcome has been released, and why an operator's command had no
# effect (or NO_REASON); or with position 0, when the log refused it.
Done = Callable[[int, int], None]


def _nobody(position: int, refused: int) -> None:
    """Nobody waits for it."""


class Submission:
    """One batch, or something that is a record of its own, and whom to tell. Raises: RecordError: it cannot be logged.

    The latter is what an operator said, the end of a session, or (`said` None) only that time passed.
    """

    __slots__ = ("batch", "count", "done", "part", "said")

    def __init__(self, said: records.Part | None, done: Done = _nobody, batch: Batch | None = None) -> None:
        self.said = said
        self.part = b"" if said is None else records.encode_part(said)
        self.batch = batch
        self.count = 1 if batch is None else len(batch)
        self.done = done

    @staticmethod
    def enter(batch: Batch, commands: bytes, done: Done) -> Submission:
        """A batch, and the CommandBatch that it was."""
        return Submission(records.Entered(batch.account, batch.session, batch.stp, commands), done, batch)

    @staticmethod
    def disconnect(account: int, session: int) -> Submission:
        """The end of a session that wants its orders canceled."""
        return Submission(records.Disconnected(account, session))

    @staticmethod
    def operate(command: OperatorCommand, done: Done) -> Submission:
        """What an operator said."""
        return Submission(command, done)

    @staticmethod
    def tick() -> Submission:
        """Time passed, and something is due."""
        return Submission(None)


class CommitState(Enum):
    READY = "ready"
    PAUSED = "the log cannot take anything just now: no new commands until it can"
    FAILED = "the log has failed: no new commands"
    STOPPED = "stopped"


class Committer:
    """The single writer of the core."""

    def __init__(
        self,
        log: Log,
        core: Core,
        epoch: int,
        *,
        time_ns: int,
        clock_ns: Callable[[], int],
        release: Release,
        stop: Callable[[BaseException], None],
        resume_s: float = RESUME_S,
    ) -> None:
        self.state = CommitState.READY
        self.failure = ""
        self.commands = 0  # in records that were appended
        self._core = core
        self._epoch = epoch
        self._clock_ns = clock_ns
        self._release = release
        self._stop = stop
        self._resume_s = resume_s
        self._ended: list[Submission] = []  # sessions that ended during a pause: to be logged when it is over
        self._position = log.position
        self._time_ns = time_ns  # of the last record; time never falls
        self._gathering: list[Submission] = []
        self._gathered = 0
        self._syncing: list[list[Submission]] = []  # by record; all of them have the last time
        self._in_flight = 0
        self._scheduled = False
        self._room: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = _LogThread(log, self._loop, self._synced)

    @property
    def backlog(self) -> int:
        """Commands taken and not yet durable."""
        return self._gathered + self._in_flight

    @property
    def crowded(self) -> bool:
        """Whether whoever can wait should await `room` before it brings more."""
        return self._gathered + self._in_flight > BACKLOG_MAX

    def submit(self, submission: Submission) -> None:
        """Take a batch. Its columns have been checked (engine/entry/door.py)."""
        if self.state is not CommitState.READY:
            if self.state is not CommitState.STOPPED:
                self._refuse(submission)
            return
        self._gathering.append(submission)
        self._gathered += submission.count
        if not self._scheduled and not self._syncing:
            # At the end of this turn of the loop: what arrived together is logged together.
            self._scheduled = True
            self._loop.call_soon(self._start)

    async def room(self) -> None:
        """Wait until the backlog is small enough for one more batch."""
        while self.crowded and self.state is CommitState.READY:
            waiting = self._loop.create_future()
            self._room.append(waiting)
            await waiting

    async def settled(self) -> None:
        """Wait until all that was submitted is released or refused."""
        while self.state is CommitState.READY and (self._gathering or self._syncing):
            waiting = self._loop.create_future()
            self._room.append(waiting)
            await waiting

    def close(self) -> None:
        """Stop taking commands and wait for the append under way. Blocks for one sync at most."""
        self.state = CommitState.STOPPED
        self._thread.close()

    def _start(self) -> None:
        self._scheduled = False
        if not self._gathering or self._syncing or self.state is not CommitState.READY:
            return
        group = self._take_group()
        self._append(_records(group), resume=False)

    def _resume(self) -> None:
        """Try whether the log takes anything again."""
        if self.state is not CommitState.PAUSED:
            return
        self._append([[Submission.tick()]], resume=True)

    def _append(self, group: list[list[Submission]], *, resume: bool) -> None:
        self._time_ns = max(self._clock_ns(), self._time_ns)
        self._syncing = group
        bodies = [
            records.encode_commands(self._epoch, self._time_ns, [one.part for one in record if one.part])
            for record in group
        ]
        self._thread.append(self._position, bodies, resume=resume)

    def _take_group(self) -> list[Submission]:
        count = size = taken = 0
        for submission in self._gathering:
            if count >= GROUP_COMMANDS or size >= GROUP_BYTES:
                break
            count += submission.count
            size += len(submission.part)
            taken += 1
        group = self._gathering[:taken]
        del self._gathering[:taken]
        self._gathered -= count
        self._in_flight = count
        self.commands += count
        return group

    def _synced(self, position: int, error: BaseException | None) -> None:
        """The log thread is done with the group."""
        done, time_ns = self._syncing, self._time_ns
        if self.state not in (CommitState.READY, CommitState.PAUSED):
            return
        if error is not None:
            self._fail(error)
            return
        if self.state is CommitState.PAUSED:
            logger.warning("the log takes commands again")
            self.state, self.failure = CommitState.READY, ""
            self._gathering, self._ended = self._ended, []
            self._gathered = len(self._gathering)
        assert position == self._position + len(done)
        first = self._position + 1
        self._position = position
        self._syncing = []
        self._in_flight = 0
        self._start()
        try:
            for record_position, record in enumerate(done, first):
                outcome = _apply(self._core, record_position, time_ns, record)
                self._release(record_position, time_ns, outcome)
                for submission in record:
                    submission.done(record_position, outcome.refused)
        except Exception as e:  # the core or a release is broken: stop rather than trade on
            self._halt(e)
        self._let_in()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, LogFailed):
            self._halt(error)
            return
        if isinstance(error, LogPaused):
            logger.error("no commands until the log takes them again: %s", error)
            self.state = CommitState.PAUSED
            self._loop.call_later(self._resume_s, self._resume)
        else:
            logger.error("no more commands: %s", error)
            self.state = CommitState.FAILED
        self.failure = str(error)
        refused = [submission for record in self._syncing for submission in record] + self._gathering
        self._syncing, self._gathering = [], []
        self._gathered = self._in_flight = 0
        for submission in refused:
            self._refuse(submission)
        self._let_in()

    def _refuse(self, submission: Submission) -> None:
        if self.state is CommitState.PAUSED and isinstance(submission.said, records.Disconnected):
            self._ended.append(submission)
        else:
            submission.done(0, NO_REASON)

    def _halt(self, error: BaseException) -> None:
        self.state = CommitState.STOPPED
        self._syncing, self._gathering = [], []
        self._let_in()
        self._stop(error)

    def _let_in(self) -> None:
        waiting, self._room = self._room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _apply(core: Core, position: int, time_ns: int, record: list[Submission]) -> Outcome:
    """Have the core do what a record says: batches that are applied together, or one thing that stands alone."""
    said = record[0].said
    if said is None:
        return core.tick(position, time_ns)
    if isinstance(said, records.Disconnected):
        return core.disconnect(position, time_ns, said.account, said.session)
    if isinstance(said, records.Entered):
        return core.apply(position, time_ns, [one.batch for one in record if one.batch is not None])
    return core.operate(position, time_ns, said)


def _records(group: list[Submission]) -> list[list[Submission]]:
    """Cut a group where a session ends or an operator speaks: that is a record of its own."""
    found: list[list[Submission]] = []
    together = False
    for submission in group:
        if together and submission.batch is not None:
            found[-1].append(submission)
        else:
            found.append([submission])
        together = submission.batch is not None
    return found


class _LogThread:
    """The thread in which appends block. One is under way at a time."""

    def __init__(
        self, log: Log, loop: asyncio.AbstractEventLoop, done: Callable[[int, BaseException | None], None]
    ) -> None:
        self._log = log
        self._loop = loop
        self._done = done
        self._asked: SimpleQueue[tuple[int, list[bytes], bool] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def append(self, expected: int, bodies: list[bytes], *, resume: bool) -> None:
        """`resume`: the log has paused, and is to go on first."""
        self._asked.put((expected, bodies, resume))

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            expected, bodies, resume = asked
            position, error = 0, None
            try:
                if resume:
                    self._log.resume()
                position = self._log.append(expected, bodies)
            except Exception as e:  # handed to the loop, which tells the kinds apart
                error = e
            try:
                self._loop.call_soon_threadsafe(self._done, position, error)
            except RuntimeError:  # the loop is closed: nobody waits for this any more
                return

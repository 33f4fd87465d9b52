"""The command log: what it is to be durable. engine/log/sqlite.py keeps one on a disk, engine/log/memory.py in memory.

A log is a row of records, numbered from 1 without holes; what a record means is the business of engine/log/records.py.
An append is durable when it returns. When it raises, the exception says what is known:

    LogConflict     `expected` is not the last position: nothing was appended, the log is as it was
    LogFailed       nothing was appended, now or ever again through this object; reads go on
    LogPaused       likewise, but `resume` may make appends possible again: there was no room (LogFull), or another
                    process was writing (LogBusy)
    OutcomeUnknown  it may or may not have become durable: only opening the log again tells; then as LogFailed

Nothing but what LogPaused says is tried again: after a failed sync the system may have dropped the very pages, and then
call the next sync a success.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

BODY_MAX: Final = 1 << 28  # bytes of a record
SNAPSHOTS_KEPT: Final = 2


class LogError(Exception):
    """The log cannot do what was asked."""


class LogLocked(LogError):
    """Another process, `pid` (0: unknown), has the log open."""

    def __init__(self, directory: str, pid: int) -> None:
        super().__init__(f"{directory} is in use by process {pid or 'unknown'}")
        self.pid = pid


class LogDamaged(LogError):
    """What was once durable is not there, or not as it was, from `position` on."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(f"log damaged at position {position}: {why}")
        self.position = position


class LogConflict(LogError):
    """An append expected the log to end at `expected`, and it ends at `position`."""

    def __init__(self, expected: int, position: int) -> None:
        super().__init__(f"append expected position {expected}, the log is at {position}")
        self.expected = expected
        self.position = position


class LogFailed(LogError):
    """Nothing was appended, and nothing will be any more."""


class LogPaused(LogFailed):
    """Nothing was appended, and nothing is until `Log.resume` succeeds."""


class LogFull(LogPaused):
    """For want of room."""


class LogBusy(LogPaused):
    """Another process was writing to the log's file, for longer than an append waits."""


class OutcomeUnknown(LogError):
    """The records after `expected` may or may not be durable."""

    def __init__(self, expected: int, why: str) -> None:
        super().__init__(f"append after position {expected}: outcome unknown: {why}")
        self.expected = expected


class Log(Protocol):
    """The contract. Calls block; `append` and `read` may be called from different threads, each from one at a time."""

    @property
    def position(self) -> int:
        """The last durable record's position; 0: the log is empty."""

    @property
    def incarnation(self) -> int:
        """A random number of 32 bits, not zero, made when the log was begun."""

    def append(self, expected: int, bodies: Sequence[bytes]) -> int:
        """Make `bodies` the records after `expected`, all or none, and give the new last position.

        Cost: one sync. Raises: LogConflict, LogFailed, OutcomeUnknown.
        """

    def resume(self) -> None:
        """Let appends be tried again after LogPaused, once the log is seen to end where it did.

        Raises: LogFailed (a LogPaused: try later), LogConflict if the log ends elsewhere.
        """

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        """The records after that position, in order, each with its position.

        Raises: LogDamaged, also if records after `after` were dropped; LogFailed once the log is closed.
        """

    def save_snapshot(self, position: int, body: bytes) -> None:
        """Keep the state that records up to `position` lead to. Raises: LogFailed (appends go on)."""

    def load_snapshot(self) -> tuple[int, bytes] | None:
        """The newest sound snapshot and its position. Raises: LogDamaged if none covers what was dropped."""

    def drop_through(self, position: int) -> int:
        """Forget records up to that position, or up to the last sound snapshot if that is less; give the position."""

    def close(self) -> None:
        """Let go of the log, for others to open. Twice is once."""

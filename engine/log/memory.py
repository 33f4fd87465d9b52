"""The command log on a simulated disk: what becomes of an append is decided by a test."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final

from engine.log.contract import (
    SNAPSHOTS_KEPT,
    LogBusy,
    LogConflict,
    LogDamaged,
    LogFailed,
    LogFull,
    LogLocked,
    LogPaused,
    OutcomeUnknown,
)


class Fault(Enum):
    """What a simulated disk does to an append."""

    BEFORE = "fails; nothing is durable"
    FULL = "has no room; nothing is durable"
    BUSY = "is held by another process; nothing is durable"
    AFTER = "is durable, but fails to say so"
    LOST = "is not durable, and fails to say so"


_PAUSES: Final[dict[Fault, type[LogPaused]]] = {Fault.FULL: LogFull, Fault.BUSY: LogBusy}


class Disk:
    """What outlives a `MemoryLog`, as a directory outlives a process. `faults` meet the next appends, None: no fault.

    `before_append(bodies)` is called before each append takes effect: a slow disk in simulated time.
    """

    __slots__ = ("before_append", "bodies", "dropped", "faults", "held", "incarnation", "snapshots")

    def __init__(self, incarnation: int = 1) -> None:
        self.incarnation = incarnation
        self.bodies: list[bytes] = []  # the first has the position dropped + 1
        self.dropped = 0
        self.snapshots: dict[int, bytes] = {}  # by position
        self.faults: deque[Fault | None] = deque()
        self.before_append: Callable[[Sequence[bytes]], None] | None = None
        self.held = False

    def crash(self) -> None:
        """The process that had the log is gone: another may open it."""
        self.held = False


class MemoryLog:
    """The log on a simulated disk: the same contract, no I/O, and faults on demand."""

    __slots__ = ("_closed", "_disk", "_failure", "_paused", "incarnation", "position")

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = disk if disk is not None else Disk()
        if self._disk.held:
            raise LogLocked("memory", 0)
        self._disk.held = True
        self._failure: str | None = None
        self._paused: type[LogPaused] | None = None
        self._closed = False
        self.incarnation = self._disk.incarnation
        self.position = self._disk.dropped + len(self._disk.bodies)

    def append(self, expected: int, bodies: Sequence[bytes]) -> int:
        assert bodies
        if self._failure is not None:
            raise self._refusal()
        if expected != self.position:
            raise LogConflict(expected, self.position)
        if self._disk.before_append is not None:
            self._disk.before_append(bodies)
        fault = self._disk.faults.popleft() if self._disk.faults else None
        if fault in (None, Fault.AFTER):
            self._disk.bodies.extend(bodies)
        if fault is not None:
            self._failure, self._paused = fault.value, _PAUSES.get(fault)
            if fault in (Fault.AFTER, Fault.LOST):
                raise OutcomeUnknown(expected, fault.value)
            raise self._refusal()
        self.position += len(bodies)
        return self.position

    def resume(self) -> None:
        if self._closed or (self._failure is not None and self._paused is None):
            raise self._refusal()
        self._failure = self._paused = None

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        while after < self.position:
            if self._closed:
                raise LogFailed("the log is closed")
            if after < self._disk.dropped:
                raise LogDamaged(after + 1, f"records up to {self._disk.dropped} were dropped")
            after += 1
            yield after, self._disk.bodies[after - self._disk.dropped - 1]

    def save_snapshot(self, position: int, body: bytes) -> None:
        assert self._disk.dropped <= position <= self.position
        assert position > 0
        self._disk.snapshots[position] = body
        for old in sorted(self._disk.snapshots)[:-SNAPSHOTS_KEPT]:
            del self._disk.snapshots[old]

    def load_snapshot(self) -> tuple[int, bytes] | None:
        return max(self._disk.snapshots.items(), default=None)

    def drop_through(self, position: int) -> int:
        if self._failure is not None:
            raise self._refusal()
        disk = self._disk
        through = max(disk.dropped, min(position, max(disk.snapshots, default=0)))
        del disk.bodies[: through - disk.dropped]
        disk.dropped = through
        return through

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._disk.held = False
            self._failure, self._paused = self._failure or "the log is closed", None

    def _refusal(self) -> LogFailed:
        return (self._paused or LogFailed)(self._failure)

"""One ask at a time: what is wanted, when it is asked for, by when it must be answered, and when again.

Delays are jittered by the `random.Random` passed in, so that readers of one stream who miss the same do not all ask at
one moment.
"""

from __future__ import annotations

import random
from enum import Enum

from bus.stream.actions import Action, AskRange, AskSnapshot, ClientLimits, Withdrawn


class Want(Enum):
    """What there is to ask for."""

    NOTHING = 0
    RANGE = 1
    SNAPSHOT = 2
    INSTRUMENT = 3  # a snapshot of one book
    CONFIRM = 4  # a snapshot, for its incarnation


class Asking:
    """The asks of one reader.

    want        what is wanted now
    tries       how often it was asked for without success
    due_ns      when it is asked for next, if no ask is out
    asked       the ask that is out
    expires_ns  when that is given up
    last        the number of the last ask
    """

    __slots__ = ("_limits", "_rng", "asked", "due_ns", "expires_ns", "last", "tries", "want")

    def __init__(self, limits: ClientLimits, rng: random.Random) -> None:
        self.want = Want.NOTHING
        self.tries = 0
        self.due_ns = 0
        self.asked: AskRange | AskSnapshot | None = None
        self.expires_ns = 0
        self._limits = limits
        self._rng = rng
        self.last = 0

    @property
    def deadline_ns(self) -> int | None:
        """When something is to be done: an ask, or giving one up. None: not before another input."""
        if self.asked is not None:
            return self.expires_ns
        return None if self.want is Want.NOTHING else self.due_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether to ask now."""
        return self.want is not Want.NOTHING and self.asked is None and now_ns >= self.due_ns

    def has_expired(self, now_ns: int) -> bool:
        """Whether the ask that is out was not answered in time."""
        return self.asked is not None and now_ns >= self.expires_ns

    def soon(self, want: Want, now_ns: int, wait_ns: int, actions: list[Action]) -> None:
        """Want something else than before: in `wait_ns`, and a moment that differs from reader to reader."""
        self.drop(actions)
        self.want = want
        self.tries = 0
        self.due_ns = now_ns + self._rng.randrange(self._limits.jitter_ns + 1) + wait_ns

    def drop(self, actions: list[Action]) -> None:
        """Want nothing any more."""
        if self.asked is not None:
            actions.append(Withdrawn(self.asked.ask))
            self.asked = None
        self.want = Want.NOTHING

    def answered(self, ask: int) -> AskRange | AskSnapshot | None:
        """The ask that this answers, if it is the one that is out."""
        asked = self.asked
        if asked is None or asked.ask != ask:
            return None
        self.asked = None
        return asked

    def done(self) -> None:
        """What was wanted has come."""
        self.want = Want.NOTHING
        self.tries = 0

    def failed(self, retry_ns: int, now_ns: int) -> bool:
        """It did not come: again from another source after `retry_ns`, doubled with each try. False: no more of it."""
        limits = self._limits
        self.asked = None
        self.tries += 1
        if self.want is Want.RANGE and self.tries >= limits.range_tries:
            return False
        if self.want is Want.INSTRUMENT and self.tries >= limits.instrument_tries:
            return False
        self.due_ns = now_ns + self.backoff(retry_ns, self.tries)
        return True

    def backoff(self, retry_ns: int, tries: int) -> int:
        """How long to wait before the next of so many tries."""
        return self._jittered(min(retry_ns << min(tries - 1, 16), self._limits.retry_ns_max))

    def range(self, epoch: int, first: int, last: int, now_ns: int) -> AskRange:
        """Ask for `first` to `last`; each try has twice the time of the one before."""
        timeout_ns = self._jittered(self._limits.range_ns << self.tries)
        self.last += 1
        asked = AskRange(self.last, epoch, first, last, self.tries, timeout_ns)
        self.asked = asked
        self.expires_ns = now_ns + timeout_ns
        return asked

    def snapshot(self, instrument: int, home: bool, now_ns: int) -> AskSnapshot:
        """Ask for the books of the stream, or one; `home`: of the publisher alone."""
        timeout_ns = self._limits.snapshot_ns
        self.last += 1
        asked = AskSnapshot(self.last, instrument, self.tries, home, timeout_ns)
        self.asked = asked
        self.expires_ns = now_ns + timeout_ns
        return asked

    def _jittered(self, time_ns: int) -> int:
        """Three to five quarters of it."""
        return time_ns * (768 + self._rng.randrange(513)) // 1024

"""What became of every sequence of a stream: the counters, and a line for every gap.

Three sums hold after every input, and the tests walk them:

    received + repaired + covered == next sequence - 1            (of the present epoch)
    late + ranged + snapshotted + abandoned + missing == last - first + 1    (of every gap)
    missed == missed_late + missed_ranged + missed_snapshotted + missed_abandoned + the open gaps' lengths
"""

from __future__ import annotations

from collections import deque
from typing import Final

KEPT: Final = 1024  # closed gaps remembered; the counters remember all


class Gap:
    """Sequences `first` to `last` (inclusive) that did not come when they were due, and how each was had in the end.

    `cause` says what showed it: "frame", "heartbeat" or "end"; or "lag", where the reader passed them over. `source` is
    the machine whose answer had some of it, the last one if there were several; empty where all of it came by itself.
    Times are the caller's nanoseconds; `closed_ns` is 0 while some of it is missing.
    """

    __slots__ = (
        "abandoned",
        "cause",
        "closed_ns",
        "epoch",
        "first",
        "last",
        "late",
        "opened_ns",
        "ranged",
        "snapshotted",
        "source",
    )

    def __init__(self, epoch: int, first: int, last: int, cause: str, opened_ns: int) -> None:
        self.epoch = epoch
        self.first = first
        self.last = last
        self.cause = cause
        self.opened_ns = opened_ns
        self.closed_ns = 0
        self.late = 0  # came after all, out of order
        self.ranged = 0  # fetched by range
        self.snapshotted = 0  # covered by a snapshot: the books have it, its trades were not seen
        self.abandoned = 0  # the epoch ended, or the stream began anew, before it was had
        self.source = ""

    @property
    def missing(self) -> int:
        return self.last - self.first + 1 - self.late - self.ranged - self.snapshotted - self.abandoned

    @property
    def how(self) -> str:
        """How it was repaired; where several ways met, the dearest one."""
        if self.missing:
            return "open"
        if self.abandoned:
            return "abandoned"
        if self.snapshotted:
            return "snapshot"
        return "range" if self.ranged else "late"

    @property
    def took_ns(self) -> int:
        """From seen to closed; 0 while it is open."""
        return self.closed_ns - self.opened_ns if self.closed_ns else 0

    def __repr__(self) -> str:
        return f"Gap({self.epoch}:{self.first}-{self.last} by {self.cause}, {self.how})"


class Counters:
    """What a stream's reader has seen. All begin at 0 and rise; the first three begin anew with each epoch."""

    __slots__ = (
        "bad_frames",
        "covered",
        "digests_differing",
        "digests_equal",
        "duplicates",
        "foreign",
        "gaps",
        "gaps_abandoned",
        "gaps_late",
        "gaps_ranged",
        "gaps_snapshotted",
        "heartbeats",
        "instrument_repairs",
        "joins",
        "lags",
        "lower_epoch",
        "misfits",
        "missed",
        "missed_abandoned",
        "missed_late",
        "missed_ranged",
        "missed_snapshotted",
        "overflows",
        "passed_over",
        "received",
        "regressions",
        "repaired",
        "resnapshots",
        "superseded",
    )

    def __init__(self) -> None:
        self.received = 0  # sequences from the live line
        self.repaired = 0  # sequences fetched by range
        self.covered = 0  # sequences a snapshot stood for
        self.heartbeats = 0
        self.duplicates = 0  # frames wholly old
        self.superseded = 0  # frames wholly old that a snapshot had overtaken
        self.regressions = 0  # an old sequence in a newer frame: the publisher broke its word
        self.lower_epoch = 0  # frames of an epoch that is over, or of a run that is
        self.foreign = 0  # frames of another incarnation
        self.bad_frames = 0
        self.misfits = 0  # deltas that did not fit the book
        self.overflows = 0  # times that held frames outgrew their bound
        self.lags = 0  # times that what came was too old
        self.passed_over = 0  # frames dropped unread since
        self.gaps = 0
        self.gaps_late = 0
        self.gaps_ranged = 0
        self.gaps_snapshotted = 0
        self.gaps_abandoned = 0
        self.missed = 0  # sequences, all gaps together; the next four, of those that are closed
        self.missed_late = 0
        self.missed_ranged = 0
        self.missed_snapshotted = 0
        self.missed_abandoned = 0
        self.joins = 0  # first snapshots of an epoch
        self.resnapshots = 0  # later ones
        self.instrument_repairs = 0  # one instrument, after its digest differed
        self.digests_equal = 0
        self.digests_differing = 0

    def as_dict(self) -> dict[str, int]:
        """By name, in alphabetical order."""
        return {name: getattr(self, name) for name in self.__slots__}


class Ledger:
    """The gaps of one stream: those open, and the last `KEPT` that were closed."""

    __slots__ = ("closed", "counters", "open")

    def __init__(self) -> None:
        self.counters = Counters()
        self.open: list[Gap] = []
        self.closed: deque[Gap] = deque(maxlen=KEPT)

    def begin(self, gap: Gap) -> None:
        self.counters.gaps += 1
        self.counters.missed += gap.last - gap.first + 1
        self.open.append(gap)

    def settle(self, now_ns: int) -> list[Gap]:
        """Move the gaps that miss nothing any more to the closed ones; return them, oldest first."""
        done = [gap for gap in self.open if not gap.missing]
        if done:
            self.open = [gap for gap in self.open if gap.missing]
            for gap in done:
                gap.closed_ns = now_ns
                self.counters.missed_late += gap.late
                self.counters.missed_ranged += gap.ranged
                self.counters.missed_snapshotted += gap.snapshotted
                self.counters.missed_abandoned += gap.abandoned
                name = _COUNTED[gap.how]
                setattr(self.counters, name, getattr(self.counters, name) + 1)
                self.closed.append(gap)
        return done

    def abandon(self, now_ns: int) -> list[Gap]:
        """The sequences of this epoch will not come any more."""
        for gap in self.open:
            gap.abandoned += gap.missing
        return self.settle(now_ns)


_COUNTED: Final = {
    "late": "gaps_late",
    "range": "gaps_ranged",
    "snapshot": "gaps_snapshotted",
    "abandoned": "gaps_abandoned",
}

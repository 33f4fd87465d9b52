"""A second opinion on a book: another machine's snapshot, brought forward by our own deltas, beside what we have.

The other machine's snapshot stands at some sequence; by the time it is here, our book has gone on. `Recent` keeps the
last deltas, so the snapshot can be carried to exactly the sequence where our book stands now, and compared there.
"""

from collections import deque
from typing import Final

from bus.stream.actions import Applied
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import Mirror, MirrorError
from proto.snapshot import Snapshot
from tools.tail.compare import differences

RECENT_MAX: Final = 100_000  # deltas kept, about


class Recent:
    """The last deltas of one stream, whole events, without a hole."""

    def __init__(self, deltas_max: int = RECENT_MAX) -> None:
        self._applied: deque[Applied] = deque()
        self._count = 0
        self._max = deltas_max

    def applied(self, applied: Applied) -> None:
        """Take in what the reader applied next."""
        if self._applied and (self._applied[-1].epoch, self._applied[-1].last + 1) != (applied.epoch, applied.first):
            self.forget()
        self._applied.append(applied)
        self._count += len(applied.rows)
        while self._count > self._max:
            self._count -= len(self._applied.popleft().rows)

    def forget(self) -> None:
        """A span was not seen: what came before it leads nowhere."""
        self._applied.clear()
        self._count = 0

    def reaches(self, epoch: int, sequence: int) -> bool:
        """Whether every delta after that one is here."""
        if not self._applied:
            return False
        first = self._applied[0]
        return first.epoch == epoch and first.first <= sequence + 1

    def carry(self, snapshot: Snapshot) -> Mirror:
        """The books of a whole stream after all deltas that are here. Raises: MirrorError when one does not fit."""
        mirror = Mirror()
        mirror.load(snapshot)
        for applied in self._applied:
            if applied.last > snapshot.last_seq:
                mirror.apply(applied.rows[max(0, snapshot.last_seq + 1 - applied.first) :], applied.extras)
        return mirror


def second_opinion(client: FeedClient, recent: Recent, snapshot: Snapshot) -> tuple[int, tuple[str, ...]] | None:
    """How many deltas the snapshot was carried, and where our books differ from it; None: they cannot be compared.

    The snapshot is of the whole stream, and not of our own making.
    Cost: O(orders + deltas carried).
    """
    epoch, sequence = client.position
    carried = sequence - snapshot.last_seq
    if snapshot.epoch != epoch or carried < 0 or (carried and not recent.reaches(epoch, snapshot.last_seq)):
        return None
    stream = (client.engine, client.channel)
    try:
        theirs = recent.carry(snapshot).snapshot(*stream, snapshot.incarnation, epoch, 0)
        mine = client.mirror.snapshot(*stream, client.incarnation, epoch, 0)
    except MirrorError as e:
        return carried, (str(e),)
    return carried, differences(theirs, mine)

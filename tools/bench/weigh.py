"""What an order weighs: the growth of a process that fills a venue, a mirror or a bare dict with them.

python -m tools.bench.weigh venue|mirror|dict COUNT        one JSON object: bytes an order, hash of the book
"""

import gc
import json
import os
import random
import sys
from pathlib import Path
from typing import Final

from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import Sequencer
from engine.core.venue import Venue
from proto.columns import ENGINE_SHIFT, FLAG_SELL, NEW, STP_NONE, Batch
from proto.feed import ADD, END, SELL
from proto.orders import write_batch
from tools.bench.core import read
from tools.bench.deltas import START_NS
from tools.bench.flows import ACCOUNT, INSTRUMENT
from tools.bench.measure import hash_of

BATCH: Final = 1_024
LEVELS: Final = 1_000  # a side
MIDDLE: Final = 1 << 20


def main() -> int:
    """Exit 0."""
    gc.disable()
    what, count = sys.argv[1], int(sys.argv[2])
    weighed, digest = {"venue": weigh_venue, "mirror": weigh_mirror, "dict": weigh_dict}[what](count)
    print(json.dumps({"bytes": weighed, "digest": digest}))
    return 0


class Scales:
    """Weighs from the first quarter on: before that, memory is used again that imports have let go of."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._from = (0, 0)
        self.bytes_each = 0.0

    def note(self, done: int) -> None:
        """So many orders are in."""
        if not self._from[0] and done >= self._count // 4:
            self._from = (done, resident())
        elif done == self._count:
            self.bytes_each = (resident() - self._from[1]) / (done - self._from[0])


def weigh_venue(count: int) -> tuple[float, str]:
    """Bytes a resting order, and a hash of the book."""
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    chance = random.Random(7)
    scales = Scales(count)
    for first in range(1, count + 1, BATCH):
        batch = _batch(range(first, min(count + 1, first + BATCH)), chance)
        venue.apply(first, START_NS + first, [read(write_batch(batch))])
        scales.note(first + len(batch) - 1)
    return scales.bytes_each, hash_of(venue.digest())


def weigh_mirror(count: int) -> tuple[float, str]:
    """Bytes a mirrored order, and a hash of the book. The ring of frames for others is not counted: it is bounded."""
    sequencer = Sequencer(INSTRUMENT.engine, INSTRUMENT.channel, 1, 1, True, ring_frames=1)
    client = FeedClient(INSTRUMENT.engine, INSTRUMENT.channel, random.Random(7))
    client.start(START_NS)
    chance = random.Random(7)
    scales = Scales(count)
    for first in range(1, count + 1, BATCH):
        batch = _batch(range(first, min(count + 1, first + BATCH)), chance)
        rows: list[int] = []
        for id, flags, price, quantity in zip(
            batch.client_order_id, batch.flags, batch.price, batch.quantity, strict=True
        ):
            side = SELL if flags & FLAG_SELL else 0
            rows += (ADD | END | side, INSTRUMENT.id, (INSTRUMENT.engine << ENGINE_SHIFT) + id, price, quantity, 0)
        sequencer.append(START_NS + first, rows)
        for frame in sequencer.take(START_NS, True):
            client.frame(frame, START_NS)
        scales.note(first + len(batch) - 1)
    assert client.mirror.books[INSTRUMENT.id].count == count
    return scales.bytes_each, hash_of(client.mirror.digests(INSTRUMENT.id))


def weigh_dict(count: int) -> tuple[float, str]:
    """The same orders as tuples in a dict."""
    chance = random.Random(7)
    scales = Scales(count)
    entries = {}
    base = INSTRUMENT.engine << ENGINE_SHIFT
    for i in range(1, count + 1):
        order_id = base + i
        entries[order_id] = (order_id, MIDDLE + chance.randrange(LEVELS), chance.randrange(1, 1_000), 0)
        if i % BATCH == 0 or i == count:
            scales.note(i)
    return scales.bytes_each, hash_of(len(entries))


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _batch(ids: range, chance: random.Random) -> Batch:
    sides = [chance.getrandbits(1) for _ in ids]
    count = len(ids)
    return Batch(
        ACCOUNT, 0, STP_NONE, [NEW] * count, list(ids), [INSTRUMENT.id] * count, [side * FLAG_SELL for side in sides],
        [MIDDLE + (1 if side else -1) * chance.randrange(1, LEVELS + 1) for side in sides],
        [chance.randrange(1, 1_000) for _ in ids], [0] * count,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

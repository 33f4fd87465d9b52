"""What an order weighs: the growth of a process that fills a venue, a mirror or a bare dict with them."""

import gc
import os
import random
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import Sequencer
from engine.core.venue import Venue
from proto.columns import ENGINE_SHIFT, FLAG_SELL, Batch
from proto.feed import ADD, END, SELL
from proto.orders import write_batch
from tools.bench.core import read
from tools.bench.deltas import START_NS
from tools.bench.flows import INSTRUMENT, resting
from tools.bench.measure import hash_of

BATCH: Final = 1_024
LEVELS: Final = 1_000  # a side


def serve(connection: "Connection[Any, Any]") -> None:
    """Answer (`venue`, `mirror` or `dict`, how many orders) with (bytes an order, hash of the book), once: memory that
    was used and let go of would not show."""
    gc.disable()
    what, count = connection.recv()
    fill: Callable[[Iterator[Batch]], Iterator[str]] = {"venue": _venue, "mirror": _mirror, "dict": _dict}[what]
    chance = random.Random(7)
    batches = (resting(at, min(BATCH, count + 1 - at), chance, LEVELS) for at in range(1, count + 1, BATCH))
    done, since, all_in = 0, (0, 0), 0
    for digest in fill(batches):
        if digest:  # made of all that is in, with memory of its own
            connection.send(((all_in - since[1]) / (done - since[0]), digest))
            return
        done = min(count, done + BATCH)
        all_in = _resident()
        if not since[0] and done >= count // 4:  # before that, memory is used again that imports have let go of
            since = (done, all_in)


def _venue(batches: Iterator[Batch]) -> Iterator[str]:
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    for i, batch in enumerate(batches, 1):
        venue.apply(i, START_NS + i, [read(write_batch(batch))])
        yield ""
    yield hash_of(venue.digest())


def _mirror(batches: Iterator[Batch]) -> Iterator[str]:
    """The ring of frames for others is not counted: it is bounded."""
    sequencer = Sequencer(INSTRUMENT.engine, INSTRUMENT.channel, 1, 1, True, ring_frames=1)
    client = FeedClient(INSTRUMENT.engine, INSTRUMENT.channel, random.Random(7))
    client.start(START_NS)
    for i, batch in enumerate(batches, 1):
        rows: list[int] = []
        for id, flags, price, quantity in zip(
            batch.client_order_id, batch.flags, batch.price, batch.quantity, strict=True
        ):
            side = SELL if flags & FLAG_SELL else 0
            rows += (ADD | END | side, INSTRUMENT.id, (INSTRUMENT.engine << ENGINE_SHIFT) + id, price, quantity, 0)
        sequencer.append(START_NS + i, rows)
        for frame in sequencer.take(START_NS, True):
            client.frame(frame, START_NS)
        yield ""
    yield hash_of(client.mirror.digests(INSTRUMENT.id))


def _dict(batches: Iterator[Batch]) -> Iterator[str]:
    """The same orders as tuples."""
    entries = {}
    for batch in batches:
        for id, price, quantity in zip(batch.client_order_id, batch.price, batch.quantity, strict=True):
            order_id = (INSTRUMENT.engine << ENGINE_SHIFT) + id
            entries[order_id] = (order_id, price, quantity, 0)
        yield ""
    yield hash_of(len(entries))


def _resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

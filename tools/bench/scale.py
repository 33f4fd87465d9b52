"""How costs grow with the orders that rest and the peers that listen; a snapshot's longest slice; what an order weighs.

A book of N orders is kept at N: each order that goes is one at random, so that nothing it needs is likely to be in a
cache, and one comes in its place. A bare dict of N entries is treated the same way; how its cost grows is what memory
itself imposes.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from time import time_ns
from typing import Final

from bus.publisher import Publisher
from engine.core.book import Book
from engine.core.venue import Venue
from engine.publish.cut import BookCopy
from proto.columns import CANCEL, Batch
from proto.orders import write_batch
from tools.bench import flows
from tools.bench.child import PipeChild
from tools.bench.core import read
from tools.bench.flows import BATCH, INSTRUMENT, resting
from tools.bench.measure import BenchOptions, PartReport, cpu_ns, hash_of, in_turns, quiet, say

SIZES: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
PEERS: Final = (1, 2, 4, 8, 16)
TICK_S: Final = 0.005
PER_LEVEL: Final = 20  # orders a level, until there are so many levels:
LEVELS_MAX: Final = 10_000  # a side
GOAL_GROWTH: Final = 1.5
GOAL_SLICE_S: Final = 0.010


def run(options: BenchOptions) -> PartReport:
    """scale.order_N, scale.growth, scale.peers_N, scale.snapshot_*, scale.memory_resting and scale.memory_mirrored."""
    report = PartReport(
        "scale",
        f"from 100 to 1,000,000 resting orders the cost per order grows at most {GOAL_GROWTH} times as a bare dict's "
        "does; it does not depend on the number of peers; a snapshot of a million orders holds up trading at "
        "most 10 ms at a time",
        f"one instrument, {PER_LEVEL} orders a level and at most {LEVELS_MAX:,} levels a side; half cancels of resting "
        f"orders at random, half new ones at random prices, in batches of {BATCH}",
        "one process; with peers, a second one that reads every socket",
    )
    orders(options, report)
    peers(options, report)
    weights(options, report)
    return report


# Resting orders


def orders(options: BenchOptions, report: PartReport) -> None:
    say("scale: filling books up to a million orders")
    count = options.take(40_960, 8_192)
    with quiet():
        books = {size: Crowd(size, options.seed) for size in SIZES}
        dicts = {size: BareDict(size, options.seed) for size in SIZES}
        contenders: dict[str, Callable[[], float]] = {}
        for size in SIZES:
            contenders[f"venue {size}"] = partial(books[size].cost, count)
            contenders[f"dict {size}"] = partial(dicts[size].cost, count)
        for warm in contenders.values():
            warm()
        say("scale: orders come and go")
        found = in_turns(contenders, options.turns(7, 3))
        for book in books.values():
            book.check()
        longest_s = longest_slice(books[SIZES[-1]].book)
    first, last = SIZES[0], SIZES[-1]
    growth = _ratios(found[f"venue {last}"], found[f"venue {first}"])
    bare = _ratios(found[f"dict {last}"], found[f"dict {first}"])
    digest = hash_of(*(books[size].digest for size in SIZES))
    report.add(
        "scale.growth", "x", growth, bare, digest=digest, goal=f"ratio <= {GOAL_GROWTH}",
        against="a bare dict: one entry popped at random, one set",
    )  # fmt: skip
    for size in SIZES:
        report.add(
            f"scale.order_{size}", "s", found[f"venue {size}"], found[f"dict {size}"],
            digest=books[size].digest, against="a bare dict: one entry popped at random, one set",
        )  # fmt: skip
    report.add(
        "scale.snapshot_slice", "s", [longest_s], digest=digest,
        goal=f"<= {GOAL_SLICE_S * 1e3:g} ms",
    )  # fmt: skip


def longest_slice(book: Book) -> float:
    """Seconds of the longest slice of a cut of a book, which nobody changes meanwhile."""
    cut = BookCopy([book])
    longest, done = 0, False
    while not done:
        before = cpu_ns()
        done = cut.copy()
        longest = max(longest, cpu_ns() - before)
    return longest / 1e9


class Crowd:
    """A venue with `size` resting orders."""

    def __init__(self, size: int, seed: int) -> None:
        self._venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
        self._chance = random.Random(f"{seed} {size}")
        self._levels = max(5, min(LEVELS_MAX, size // (2 * PER_LEVEL)))
        self._live = list(range(1, size + 1))
        self._next_id = size + 1
        self._position = 0
        for first in range(1, size + 1, 4_096):
            self._apply(resting(first, min(4_096, size + 1 - first), self._chance, self._levels))

    @property
    def book(self) -> Book:
        return self._venue.markets[INSTRUMENT.id].book

    @property
    def digest(self) -> str:
        return hash_of(*[order.order_id for side in (0, 1) for order in self.book.orders(side)], self._position)

    def check(self) -> None:
        assert sum(count for side in (0, 1) for _, _, count in self.book.levels(side)) == len(self._live)

    def cost(self, count: int) -> float:
        """Seconds an order, over `count` orders, half of which go and half of which come."""
        spent = 0
        for _ in range(count // BATCH):
            half = BATCH // 2
            batch = resting(self._next_id, half, self._chance, self._levels)
            for come in range(self._next_id, self._next_id + half):
                at = self._chance.randrange(len(self._live))
                for column, value in zip(
                    (batch.op, batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity),
                    (CANCEL, come + half, INSTRUMENT.id, 0, 0, 0),
                    strict=True,
                ):
                    column.append(value)
                batch.target.append(self._live[at])
                self._live[at] = come
            self._next_id += BATCH
            spent += self._apply(batch)
        return spent / 1e9 / (count // BATCH * BATCH)

    def _apply(self, batch: Batch) -> int:
        batch = read(write_batch(batch))
        self._position += 1
        before = cpu_ns()
        self._venue.apply(self._position, self._position, [batch])
        return cpu_ns() - before


class BareDict:
    """A dict of `size` entries by id."""

    def __init__(self, size: int, seed: int) -> None:
        self._chance = random.Random(f"{seed} {size}")
        self._size = size
        self._live = list(range(1, size + 1))
        self._entries = {id: (id, size, 10) for id in self._live}
        self._next_id = size + 1

    def cost(self, count: int) -> float:
        """Seconds a pop or a set, over `count` of them."""
        spent = 0
        entries, live, chance = self._entries, self._live, self._chance
        for _ in range(count // BATCH):
            places = [chance.randrange(self._size) for _ in range(BATCH // 2)]
            pairs = []
            for at in places:
                pairs.append((live[at], self._next_id))
                live[at] = self._next_id
                self._next_id += 1
            before = cpu_ns()
            for gone, come in pairs:
                price = entries.pop(gone)[1]
                entries[come] = (come, price, 10)
            spent += cpu_ns() - before
        return spent / 1e9 / (count // BATCH * BATCH)


# Peers


def peers(options: BenchOptions, report: PartReport) -> None:
    say("scale: peers")
    recorded = flows.load("normal", options.data, options.seed, options.take(40_000, 15_000))
    batches = flows.batches(recorded.rows)
    with ExitStack() as stack:
        crowds = {count: stack.enter_context(PipeChild("tools.bench.readers:serve", count)) for count in PEERS}
        with quiet():
            found = in_turns(
                {f"{count}": partial(publish_cost, batches, crowd) for count, crowd in crowds.items()},
                options.turns(5, 2),
            )
    for count in PEERS:
        report.add(
            f"scale.peers_{count}", "s", found[f"{count}"], found[f"{PEERS[0]}"],
            digest=hash_of(*batches), against="the same with one peer", goal="ratio ~ 1" if count > 1 else "",
        )  # fmt: skip
    report.notes.append(
        "scale.peers_N is the time that the engine's own thread spends on an order (apply, sequence, encode, hand to "
        "ZeroMQ) while N peers listen, each on a socket of its own; the sockets are served by ZeroMQ's thread."
    )


def publish_cost(batches: Sequence[bytes], crowd: PipeChild) -> float:
    """Seconds an order on the engine's thread, with the peers of `crowd` listening."""
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    publisher = Publisher(INSTRUMENT.engine, {1: [INSTRUMENT.id]}, 1, 1, fresh=True)
    try:
        crowd.tell(publisher.endpoint)
        while not crowd.connection.poll(TICK_S):
            publisher.tick(time_ns())
        crowd.answer()
        spent = count = 0
        for i, commands in enumerate(batches, 1):
            batch = read(commands)
            before = cpu_ns()
            outcome = venue.apply(i, i, [batch])
            for changed in outcome.deltas:
                publisher.publish(changed.channel, i, changed.rows, changed.extras)
            spent += cpu_ns() - before
            count += len(batch)
        assert publisher.unsent == 0
        publisher.end()
        crowd.answer()
    finally:
        publisher.close()
    return spent / 1e9 / count


# Memory


def weights(options: BenchOptions, report: PartReport) -> None:
    say("scale: weighing orders")
    count = options.take(1_000_000, 200_000)
    bare, _ = _weighed("dict", count)
    for what, name in (("venue", "resting"), ("mirror", "mirrored")):
        weight, digest = _weighed(what, count)
        report.add(
            f"scale.memory_{name}", "B", [weight], [bare], digest=digest, against="a dict of id to a tuple of four ints"
        )
    report.notes.append(
        f"Memory is the growth of a process's resident set over the last three quarters of {count:,} orders. A resting "
        "order includes what its account remembers of it, since a repeat of its command must be known."
    )


def _weighed(what: str, count: int) -> tuple[float, str]:
    with PipeChild("tools.bench.weigh:serve") as child:
        found: tuple[float, str] = child.ask(what, count)
        return found


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]

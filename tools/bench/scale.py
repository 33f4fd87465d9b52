"""How costs grow: with the orders that rest, with the peers that listen; what a snapshot costs; what an order weighs.

A book of N orders is kept at N: each order that goes is one at random, so that nothing it needs is likely to be in a
cache, and one comes in its place. A bare dict of N entries is treated the same way; how its cost grows is what memory
itself imposes.
"""

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Any, Final

from bus.publisher import Publisher
from engine.core.venue import Venue
from proto.columns import CANCEL, FLAG_SELL, NEW, STP_NONE, Batch
from proto.orders import write_batch
from tools.bench import flows, readers, show, slices
from tools.bench.core import read
from tools.bench.flows import ACCOUNT, BATCH, INSTRUMENT
from tools.bench.measure import Options, Report, Result, cpu_ns, hash_of, in_turns, quiet, ratio, result, say, spread

COMMAND: Final = "python -m tools.bench scale"
SIZES: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
PEERS: Final = (1, 2, 4, 8, 16)
MIDDLE: Final = 1 << 20  # ticks
PER_LEVEL: Final = 20  # orders a level, until there are so many levels:
LEVELS_MAX: Final = 10_000  # a side
GOAL_GROWTH: Final = 1.5
WIDTH: Final = 60  # characters of the plot's longest bar


def run(options: Options) -> Report:
    """scale.order_N, scale.growth, scale.peers_N, scale.snapshot_*, scale.memory_resting and scale.memory_mirrored."""
    report = Report(
        "scale",
        f"from 100 to 1,000,000 resting orders the cost per order grows at most {GOAL_GROWTH} times as a bare dict's "
        "does; it does not depend on the number of peers; a snapshot of a million orders holds up trading at "
        "most 10 ms at a time",
        f"one instrument, {PER_LEVEL} orders a level and at most {LEVELS_MAX:,} levels a side; half cancels of resting "
        f"orders at random, half new ones at random prices, in batches of {BATCH}",
        "one process; with peers, a second one that reads every socket; for scale.snapshot_ack, engine, fabric node, a "
        "client that enters an order every 5 ms, and whoever asks for the snapshots",
    )
    orders(options, report)
    peers(options, report)
    slices.run(options, report)
    weights(options, report)
    return report


# Resting orders


def orders(options: Options, report: Report) -> None:
    say("scale: filling books up to a million orders")
    count = options.take(40_960, 8_192)
    with quiet():
        books = {size: Crowd(size, options.seed) for size in SIZES}
        dicts = {size: BareDict(size, options.seed) for size in SIZES}
        contenders: dict[str, Callable[[], float]] = {}
        for size in SIZES:
            contenders[f"venue {size}"] = _bound(books[size].cost, count)
            contenders[f"dict {size}"] = _bound(dicts[size].cost, count)
        for warm in contenders.values():
            warm()
        say("scale: orders come and go")
        found = in_turns(contenders, options.turns(7, 3))
        for book in books.values():
            book.check()
    first, last = SIZES[0], SIZES[-1]
    growth = _ratios(found[f"venue {last}"], found[f"venue {first}"])
    bare = _ratios(found[f"dict {last}"], found[f"dict {first}"])
    digest = hash_of(*(books[size].digest for size in SIZES))
    report.results.append(Result(
        "scale.growth", statistics.median(growth), "x", statistics.median(bare), ratio(growth, bare), spread(growth),
        COMMAND, digest, "a bare dict: one entry popped at random, one set", f"ratio <= {GOAL_GROWTH}",
    ))  # fmt: skip
    for size in SIZES:
        report.results.append(result(
            f"scale.order_{size}", "s", found[f"venue {size}"], found[f"dict {size}"], command=COMMAND,
            digest=books[size].digest, against="a bare dict: one entry popped at random, one set",
        ))  # fmt: skip
    report.notes.append("Cost per order beside its cost at 100 resting orders, the venue's (#) and the dict's (o):\n\n"
                        + plot(found))  # fmt: skip


class Crowd:
    """A venue with `size` resting orders."""

    def __init__(self, size: int, seed: int) -> None:
        self._venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
        self._chance = random.Random(f"{seed} {size}")
        self._levels = max(5, min(LEVELS_MAX, size // (2 * PER_LEVEL)))
        self._live: list[int] = []
        self._next_id = 1
        self._position = 0
        self._size = size
        while len(self._live) < size:
            batch = _empty()
            for _ in range(min(4_096, size - len(self._live))):
                self._live.append(self._new(batch))
            self._apply(write_batch(batch))

    @property
    def digest(self) -> str:
        book = self._venue.markets[INSTRUMENT.id].book
        return hash_of(*[order.order_id for side in (0, 1) for order in book.orders(side)], self._position)

    def check(self) -> None:
        book = self._venue.markets[INSTRUMENT.id].book
        assert sum(count for side in (0, 1) for _, _, count in book.levels(side)) == self._size

    def cost(self, count: int) -> float:
        """Seconds an order, over `count` orders, half of which go and half of which come."""
        spent = 0
        for _ in range(count // BATCH):
            batch = _empty()
            for _ in range(BATCH // 2):
                at = self._chance.randrange(self._size)
                _add(batch, CANCEL, self._next_id, 0, 0, 0, self._live[at])
                self._next_id += 1
                self._live[at] = self._new(batch)
            spent += self._apply(write_batch(batch))
        return spent / 1e9 / (count // BATCH * BATCH)

    def _new(self, batch: Batch) -> int:
        chance = self._chance
        side = chance.getrandbits(1)
        away = chance.randrange(1, self._levels + 1)
        client_order_id = self._next_id
        self._next_id += 1
        _add(batch, NEW, client_order_id, side * FLAG_SELL, MIDDLE + (away if side else -away), 10, 0)
        return client_order_id

    def _apply(self, commands: bytes) -> int:
        batch = read(commands)
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


def plot(found: dict[str, list[float]]) -> str:
    """A bar for each size: how many times the cost at the smallest one."""
    lines = []
    marks = {"venue": "#", "dict": "o"}
    grown = {
        (name, size): ratio(found[f"{name} {size}"], found[f"{name} {SIZES[0]}"]) for name in marks for size in SIZES
    }
    unit = WIDTH / max(grown.values())
    for size in SIZES:
        for name, mark in marks.items():
            cost = show.figure(statistics.median(found[f"{name} {size}"]), "s")
            label = f"{size:>9,}" if name == "venue" else " " * 9
            bar = mark * max(1, round(unit * grown[name, size]))
            lines.append(f"    {label}  {bar:<{WIDTH}} {grown[name, size]:6.2f} x  {cost}")
    return "\n".join(lines)


# Peers


def peers(options: Options, report: Report) -> None:
    say("scale: peers")
    recorded = flows.load("normal", options.data, options.seed, options.take(40_000, 15_000))
    batches = flows.batches(recorded.rows)
    venues = {peers: readers.Crowd(peers) for peers in PEERS}
    try:
        contenders = {f"{peers}": _bound(publish_cost, batches, venues[peers]) for peers in PEERS}
        with quiet():
            found = in_turns(contenders, options.turns(5, 2))
    finally:
        for crowd in venues.values():
            crowd.close()
    for count in PEERS:
        report.results.append(result(
            f"scale.peers_{count}", "s", found[f"{count}"], found[f"{PEERS[0]}"], command=COMMAND,
            digest=hash_of(*batches), against="the same with one peer", goal="ratio ~ 1" if count > 1 else "",
        ))  # fmt: skip
    report.notes.append(
        "scale.peers_N is the time that the engine's own thread spends on an order (apply, sequence, encode, hand to "
        "ZeroMQ) while N peers listen, each on a socket of its own; the sockets are served by ZeroMQ's thread. Beside "
        "its cost with one peer:\n\n" + peers_plot(found)
    )


def peers_plot(found: dict[str, list[float]]) -> str:
    """A bar for each number of peers: how many times the cost with one."""
    grown = {count: ratio(found[f"{count}"], found[f"{PEERS[0]}"]) for count in PEERS}
    unit = WIDTH / max(2.0, *grown.values())  # so that what does not grow looks as if it did not
    return "\n".join(
        f"    {count:>9,}  {'#' * max(1, round(unit * grown[count])):<{WIDTH}} {grown[count]:6.2f} x  "
        + show.figure(statistics.median(found[f"{count}"]), "s")
        for count in PEERS
    )


def publish_cost(batches: Sequence[bytes], crowd: readers.Crowd) -> float:
    """Seconds an order on the engine's thread, with the peers of `crowd` listening."""
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    publisher = Publisher(INSTRUMENT.engine, {1: [INSTRUMENT.id]}, 1, 1, fresh=True)
    try:
        crowd.follow(publisher.endpoint, lambda: publisher.tick(time_ns()))
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
        crowd.finished()
    finally:
        publisher.close()
    return spent / 1e9 / count


# Memory


def weights(options: Options, report: Report) -> None:
    say("scale: weighing orders")
    count = options.take(1_000_000, 200_000)
    bare = _weighed("dict", count)["bytes"]
    for what, name in (("venue", "resting"), ("mirror", "mirrored")):
        weighed = _weighed(what, count)
        report.results.append(Result(
            f"scale.memory_{name}", weighed["bytes"], "B", bare, weighed["bytes"] / bare, 0.0,
            COMMAND, weighed["digest"], "a dict of id to a tuple of four ints", "",
        ))  # fmt: skip
    report.notes.append(
        f"Memory is the growth of a process's resident set over the last three quarters of {count:,} orders. A resting "
        "order includes what its account remembers of it, since a repeat of its command must be known."
    )


def _weighed(what: str, count: int) -> Any:
    """In a process of its own: memory that was used and let go of would not show."""
    arguments = [sys.executable, "-m", "tools.bench.weigh", what, str(count)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _empty() -> Batch:
    return Batch(ACCOUNT, 0, STP_NONE, [], [], [], [], [], [], [])


def _add(batch: Batch, op: int, command: int, flags: int, price: int, quantity: int, target: int) -> None:
    batch.op.append(op)
    batch.client_order_id.append(command)
    batch.instrument.append(INSTRUMENT.id)
    batch.flags.append(flags)
    batch.price.append(price)
    batch.quantity.append(quantity)
    batch.target.append(target)


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _bound(function: Callable[..., float], *arguments: object) -> Callable[[], float]:
    return lambda: function(*arguments)

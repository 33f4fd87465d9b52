"""The feed on one core: the engine's deltas in, the same book at a mirror out, and every byte between.

Timed: the sequencer's append and take, the bytes of the frames, their decoding with every check, the subscriber's
state machine and the mirror, and the digests of both sides. Not timed: the matching that causes the deltas, which runs
in between as it does in an engine, so that the deltas are as fresh as there.
"""

import json
import random
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Final

import zmq

from bus.stream.actions import ClientLimits, State
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import FrameRing, Sequencer
from engine.core.venue import Venue
from engine.publish.source import SLICE_ORDERS
from proto.columns import DELTA_WIDTH
from proto.feed import Digest, orders_hash
from tools.bench import deltas, flows
from tools.bench.core import read
from tools.bench.flows import INSTRUMENT
from tools.bench.measure import BenchOptions, PartReport, build, cpu_ns, hash_of, in_turns, quiet, say

DIGEST_EVERY: Final = 16_384  # deltas: far more often than a heartbeat of 250 ms would at these rates
GOAL_PLAIN: Final = 700_000
GOAL_COMPILED: Final = 1_200_000
BURST: Final = 512  # frames that the bare socket is given before it is read


def run(options: BenchOptions) -> PartReport:
    """feed.deltas beside naive JSON, and feed.socket beside bare sockets."""
    say("feed: preparing")
    recorded = flows.load(
        "normal-large" if not options.quick else "normal", options.data, options.seed, options.take(100_000, 20_000)
    )
    batches = flows.batches(recorded.rows)
    frames, digest, total = published(batches)
    rows = [row for event in deltas.of_flow(recorded) for row in _rows(event.rows)]
    rounds = options.turns(7, 3)
    say(f"feed: {total:,} deltas, {rounds} rounds")

    def ours() -> float:
        return total * 1e9 / mirrored(batches)

    def over_socket() -> float:
        return total * 1e9 / mirrored(batches, pair)

    def socket() -> float:
        return total * 1e9 / bare_socket(frames, pair)

    def naive() -> float:
        return len(rows) * 1e9 / naive_json(rows)

    with quiet(), Joined() as pair:
        found = in_turns({"ours": ours, "over": over_socket, "socket": socket, "json": naive}, rounds)
    goal = GOAL_COMPILED if build() == "compiled" else GOAL_PLAIN
    report = PartReport(
        "feed",
        f"at least {GOAL_PLAIN:,} deltas/s on one core in plain Python, {GOAL_COMPILED:,} compiled",
        f"{total:,} deltas of {recorded.source} in records of {flows.BATCH} commands; a digest of the book every "
        f"{DIGEST_EVERY:,} deltas, made by the engine's book and checked by the mirror",
        "one process, one thread; processor time, but for the sockets, whose I/O thread may use the other core",
    )
    report.add("feed.deltas", "deltas/s", found["ours"], found["json"], digest=digest,
               against="a naive JSON feed: one map a delta, json both ways, a book of dicts, no sequence, no check",
               goal=f">= {goal:,}")  # fmt: skip
    report.add("feed.socket", "deltas/s", found["over"], found["socket"], digest=digest,
               against="pyzmq alone: the very same frames from an XPUB to a SUB socket, received and thrown "
               "away")  # fmt: skip
    report.notes.append(
        "feed.deltas hands the frames on as bytes; feed.socket is the same with an XPUB and a SUB socket between, over "
        "TCP on this machine, both in one thread."
    )
    return report


def _rows(flat: Sequence[int]) -> list[tuple[int, ...]]:
    it = iter(flat)
    return list(zip(*[it] * DELTA_WIDTH, strict=True))


def published(batches: Sequence[bytes]) -> tuple[list[bytes], str, int]:
    """The frames that the timed run makes, a hash of them and of the last book, and how many deltas they hold."""
    line = Line()
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    frames: list[bytes] = []
    for i, commands in enumerate(batches, 1):
        time_ns = deltas.START_NS + i * deltas.RECORD_NS
        for changed in venue.apply(i, time_ns, [read(commands)]).deltas:
            made = line.publish(time_ns, changed.rows, venue)
            for data in made:
                line.receive(data, time_ns)
            frames += made
    venue.check()
    line.check(venue)
    return frames, hash_of(*frames, line.digest(venue)), line.sequencer.next_seq - 1


class Line:
    """A publisher and a subscriber without a socket between them."""

    def __init__(self) -> None:
        self.sequencer = Sequencer(INSTRUMENT.engine, INSTRUMENT.channel, 0xC0FFEE, 1, True)
        self.client = FeedClient(
            INSTRUMENT.engine, INSTRUMENT.channel, random.Random(7), FrameRing(), ClientLimits(silence_ns=1 << 62)
        )
        self.client.start(deltas.START_NS)
        self._digest_due = DIGEST_EVERY

    def publish(self, time_ns: int, rows: list[int], venue: Venue) -> list[bytes]:
        """The frames of a record, and now and then a heartbeat with the book's digest."""
        self.sequencer.append(time_ns, rows)
        frames = self.sequencer.take(time_ns, True)
        if self.sequencer.next_seq > self._digest_due:
            self._digest_due += DIGEST_EVERY
            frames += self.sequencer.heartbeat(time_ns, [self.digest(venue)])
        return frames

    def digest(self, venue: Venue) -> Digest:
        """The bids from the best on, as many as one digest holds."""
        book = venue.markets[INSTRUMENT.id].book
        low, high, words, _ = book.slice(0, None, SLICE_ORDERS)
        sequence = self.sequencer.instrument_seq(INSTRUMENT.id)
        return Digest(INSTRUMENT.id, sequence, 0, low, high, orders_hash(words))

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take a frame as a fabric node does, which also keeps it for others to ask for."""
        self.client.frame(data, now_ns)

    def check(self, venue: Venue) -> None:
        """All that was published is in the mirror, nothing had to be repaired, and the digests were compared."""
        client = self.client
        assert client.state is State.LIVE
        assert client.next_seq == self.sequencer.next_seq == client.counters.received + 1
        assert client.counters.digests_equal
        assert not client.counters.digests_differing
        client.mirror.check()
        sent = self.digest(venue)
        assert client.mirror.books[INSTRUMENT.id].digest(0, sent.low, sent.high) == sent


class Joined:
    """A PUB and a SUB socket, `publisher` and `subscriber`, that have found each other over TCP; nothing is dropped."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self.publisher = self._context.socket(zmq.XPUB)
        self.subscriber = self._context.socket(zmq.SUB)
        for socket in (self.publisher, self.subscriber):
            socket.set_hwm(0)
        port = self.publisher.bind_to_random_port("tcp://127.0.0.1")
        self.subscriber.subscribe(b"")
        self.subscriber.connect(f"tcp://127.0.0.1:{port}")
        self.publisher.setsockopt(zmq.RCVTIMEO, 10_000)
        self.subscriber.setsockopt(zmq.RCVTIMEO, 10_000)
        assert self.publisher.recv() == b"\x01", "the subscription has come"

    def __enter__(self) -> "Joined":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


def mirrored(batches: Sequence[bytes], pair: Joined | None = None) -> int:
    """Nanoseconds from deltas to an applied mirror, over a whole flow, with or without sockets between."""
    line = Line()
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    spent = 0
    clock = cpu_ns if pair is None else perf_counter_ns
    for i, commands in enumerate(batches, 1):
        time_ns = deltas.START_NS + i * deltas.RECORD_NS
        for changed in venue.apply(i, time_ns, [read(commands)]).deltas:
            before = clock()
            frames = line.publish(time_ns, changed.rows, venue)
            if pair is not None:
                for data in frames:
                    pair.publisher.send(data)
                frames = [pair.subscriber.recv() for _ in frames]
            for data in frames:
                line.receive(data, time_ns)
            spent += clock() - before
    line.check(venue)
    return spent


def bare_socket(frames: Sequence[bytes], pair: Joined) -> int:
    """Nanoseconds for the frames to go through a pair of sockets, in bursts, unread."""
    publisher, subscriber = pair.publisher, pair.subscriber
    before = perf_counter_ns()
    for at in range(0, len(frames), BURST):
        burst = frames[at : at + BURST]
        for data in burst:
            publisher.send(data)
        for _ in burst:
            subscriber.recv()
    return perf_counter_ns() - before


class NaiveBook:
    """What a first feed handler keeps: orders by id, quantities by price."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[str, int, int]] = {}
        self.levels: dict[str, dict[int, int]] = {"buy": {}, "sell": {}}

    def apply(self, message: dict[str, int | str]) -> None:
        kind, order_id = message["type"], int(message["order_id"])
        if kind == "add":
            side, price, quantity = str(message["side"]), int(message["price"]), int(message["quantity"])
            self.orders[order_id] = side, price, quantity
            level = self.levels[side]
            level[price] = level.get(price, 0) + quantity
            return
        side, price, left = self.orders[order_id]
        gone = left if kind == "delete" else int(message["quantity"])
        if kind == "modify":
            gone = left - gone
        if gone == left:
            del self.orders[order_id]
        else:
            self.orders[order_id] = side, price, left - gone
        level = self.levels[side]
        level[price] -= gone
        if not level[price]:
            del level[price]


def naive_json(rows: Sequence[Sequence[int]]) -> int:
    """Nanoseconds for a JSON feed of the same deltas, one message each, without a socket."""
    book = NaiveBook()
    spoken = [deltas.spoken(row) for row in rows]
    before = cpu_ns()
    for message in spoken:
        book.apply(json.loads(json.dumps(message).encode()))
    return cpu_ns() - before

"""One order at a time into a deep book: a delta on a socket, beside the whole book pushed over gRPC.

Pushing whole books is how an exchange of this kind begins. It costs what the book is deep, whatever the change.
"""

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any, Final

import grpc
import zmq

from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import Sequencer
from proto.columns import DELTA_WIDTH, ENGINE_SHIFT
from proto.feed import ADD, DELETE, END, SELL
from proto.marketdata_pb2 import Book, BookLevel
from tools.bench import deltas, echo, sockets
from tools.bench.flows import INSTRUMENT
from tools.bench.measure import Options, Result, hash_of, result

LEVELS: Final = (100, 1_000, 10_000)
MIDDLE: Final = 1 << 20  # ticks


def results(options: Options, command: str) -> list[Result]:
    """feed.book_N for each depth, in updates a second."""
    return asyncio.run(_results(options, command))


async def _results(options: Options, command: str) -> list[Result]:
    found = []
    async with echo.served() as address, grpc.aio.insecure_channel(address, options=echo.CHANNEL_OPTIONS) as channel:
        push: Any = channel.unary_unary(echo.BOOK, request_serializer=Book.SerializeToString)
        for levels in LEVELS:
            updates = options.take(400, 100)
            pushes = max(5, min(updates, options.take(20_000, 5_000) // levels))
            with Pair(levels) as pair:
                whole = WholeBook(levels)
                pair.rate(updates)
                await whole.rate(push, pushes)
                ours: list[float] = []
                theirs: list[float] = []
                for _ in range(options.turns(5, 3)):
                    ours.append(pair.rate(updates))
                    theirs.append(await whole.rate(push, pushes))
                pair.client.mirror.check()
                digest = hash_of(pair.client.mirror.digests(INSTRUMENT.id), levels)
            found.append(
                result(
                    f"feed.book_{levels}", "updates/s", ours, theirs, command=command, digest=digest,
                    against=f"the whole book pushed over gRPC after each order ({whole.size:,} bytes at the deepest)",
                )
            )  # fmt: skip
    return found


class WholeBook:
    """The ancestor's way: build the whole book, send it, have it read."""

    def __init__(self, levels: int) -> None:
        self._sides: dict[int, list[tuple[int, int]]] = {
            side: [(MIDDLE + (i if side else -i), 100 + i % 50) for i in range(1, levels + 1)] for side in (0, 1)
        }
        self.size = self.book(0).ByteSize()

    def book(self, sequence: int) -> Book:
        bids, asks = (
            [BookLevel(price=price, quantity=quantity, count=1) for price, quantity in self._sides[side]]
            for side in (0, 1)
        )
        return Book(symbol=INSTRUMENT.symbol, instrument=INSTRUMENT.id, sequence=sequence, bids=bids, asks=asks)

    async def rate(self, push: Any, count: int) -> float:
        before = perf_counter_ns()
        for sequence in range(count):
            await push(self.book(sequence))
        return count * 1e9 / (perf_counter_ns() - before)


class Pair:
    """A publisher and a subscriber over a real socket, in one process, one delta a frame."""

    def __init__(self, levels: int) -> None:
        self._sequencer = Sequencer(INSTRUMENT.engine, INSTRUMENT.channel, 0xC0FFEE, 1, True)
        self.client = FeedClient(INSTRUMENT.engine, INSTRUMENT.channel, random.Random(7))
        self._sockets = sockets.Joined()
        self._time_ns = deltas.START_NS
        self._next_id = INSTRUMENT.engine << ENGINE_SHIFT
        self._chance = random.Random(levels)
        self._levels = levels
        self.client.start(self._time_ns)
        rows: list[int] = []
        for side in (0, 1):
            for i in range(1, levels + 1):
                rows += self._add(side, MIDDLE + (i if side else -i))
        for frame in self._frames(rows):
            self.client.frame(frame, self._time_ns)

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def _add(self, side: int, price: int) -> Sequence[int]:
        self._next_id += 1
        return ADD | END | side * SELL, INSTRUMENT.id, self._next_id, price, 100, 0

    def _frames(self, rows: list[int]) -> list[bytes]:
        self._time_ns += deltas.RECORD_NS
        self._sequencer.append(self._time_ns, rows)
        return self._sequencer.take(self._time_ns, True)

    def rate(self, count: int) -> float:
        """Orders that come and go, each alone, each seen by the mirror before the next."""
        client, publisher, subscriber = self.client, self._sockets.publisher, self._sockets.subscriber
        spent = 0
        for i in range(count):
            if i % 2 == 0:
                side = self._chance.getrandbits(1)
                away = self._chance.randrange(1, self._levels + 1)
                rows = list(self._add(side, MIDDLE + (away if side else -away)))
            else:
                rows = [DELETE | END | rows[0] & SELL, *rows[1:DELTA_WIDTH]]
            before = perf_counter_ns()
            for frame in self._frames(rows):
                publisher.send(frame, zmq.DONTWAIT)
                client.frame(subscriber.recv(), self._time_ns)
            spent += perf_counter_ns() - before
        assert client.next_seq == self._sequencer.next_seq
        return count * 1e9 / spent

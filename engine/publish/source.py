"""Where the engine meets the bus: what the core did becomes the feed, and the core's books answer for it.

The first event of an epoch, on each channel, is the definition and the trading state of every instrument there. A book
in a digest or a snapshot is the core's own, as of all that was published: both happen in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from bus.publisher import Publisher
from bus.service import Look, StreamLook
from bus.stream.actions import Standing
from bus.stream.levels import Queues, ShownLevel, by_order, by_price
from bus.stream.sequencer import RangeResult
from engine.core.book import Book
from engine.core.venue import Venue
from engine.log.numbering import opening, statistics_of
from engine.publish.cut import BookCopy
from proto.columns import BUY, SELL, ChannelDeltas
from proto.feed import Digest, Indication, Quote, Statistics, Status, orders_hash
from proto.instrument import Instrument
from proto.snapshot import BookSnapshot, encode_books

LIVE: Final = "live"
SLICE_ORDERS: Final = 1_024  # a digest ends at the level that brings it to so many orders


class TakenBooks:
    """A snapshot taken, to be encoded once, on any thread (bus/service.py, Taken)."""

    __slots__ = ("_books", "_cut", "_head")

    def __init__(self, head: tuple[int, int, int, int, int, int], books: list[BookSnapshot], cut: BookCopy) -> None:
        self._head = head
        self._books = books
        self._cut = cut

    @property
    def position(self) -> tuple[int, int, int]:
        """Incarnation, epoch, sequence."""
        return self._head[2], self._head[3], self._head[4]

    def encode(self) -> bytes:
        orders = self._cut.orders
        return encode_books(
            self._head, ((book, orders(book.instrument, BUY), orders(book.instrument, SELL)) for book in self._books)
        )


class EngineFeed:
    """The streams of one engine in one epoch (engine/entry/release.py, Publish; bus/service.py, Source).

    Cost of a snapshot: 0.3 µs an order on the event loop, in slices of some milliseconds, 1 µs an order on a thread:
    so fabric nodes are asked first and an engine last.
    """

    def __init__(
        self,
        venue: Venue,
        instruments: Sequence[Instrument],
        *,
        incarnation: int,
        epoch: int,
        fresh: bool,
        endpoint: str,
        clock_ns: Callable[[], int],
        channels: int = 1,
    ) -> None:
        """Bind the socket. Raises: zmq.ZMQError if the endpoint cannot be had.

        The streams are channels 1 to `channels`, whether an instrument is there yet or not.
        """
        self._venue = venue
        self._instruments = {i.id: i for i in sorted(instruments, key=lambda instrument: instrument.id)}
        self._symbols = {instrument.symbol: instrument for instrument in self._instruments.values()}
        self._clock_ns = clock_ns
        self._channels: dict[int, list[int]] = {channel: [] for channel in range(1, channels + 1)}
        for instrument in self._instruments.values():
            self._channels[instrument.channel].append(instrument.id)
        self._cuts: dict[int, list[BookCopy]] = {}  # by channel: snapshots being taken
        self._turns: dict[int, tuple[int, int | None]] = {}  # by instrument: where its next digest begins
        self.publisher = Publisher(
            venue.engine,
            self._channels,
            incarnation,
            epoch,
            fresh=fresh,
            digest=self._digest,
            quote=self._quote,
            endpoint=endpoint,
            clock_ns=clock_ns,
        )

    def open(self, time_ns: int) -> None:
        """Publish the first event of the epoch."""
        for deltas in opening([self._venue.markets[name] for name in self._instruments]):
            self.publisher.publish(deltas.channel, time_ns, deltas.rows, deltas.extras)

    def learn(self, instrument: Instrument) -> None:
        """Answer for an instrument that was added or defined anew, whose deltas of that have been published."""
        new = instrument.id not in self._instruments
        self._instruments[instrument.id] = instrument
        self._symbols[instrument.symbol] = instrument
        if new:
            self._channels[instrument.channel].append(instrument.id)
            self.publisher.learn(instrument.channel, instrument.id)

    def forget(self, instrument: Instrument) -> None:
        """Answer no more for an instrument that was delisted; its stream goes on having its empty book."""
        self._symbols.pop(instrument.symbol, None)

    def publish(self, time_ns: int, deltas: list[ChannelDeltas], *, idle: bool) -> None:
        """Send what one log record changed; `idle`: nothing else is on its way."""
        for channel in deltas:
            for cut in self._cuts.get(channel.channel, ()):
                cut.note(channel.rows)
            self.publisher.publish(channel.channel, time_ns, channel.rows, channel.extras, idle)

    # What others ask (bus/service.py, Source)

    def position(self, engine: int, channel: int) -> tuple[int, int, int] | None:
        if not self._ours(engine, channel):
            return None
        publisher = self.publisher
        return publisher.incarnation, publisher.epoch, publisher.next_seq(channel) - 1

    async def snapshot(self, engine: int, channel: int, instruments: Sequence[int]) -> TakenBooks:
        """The books as they stand when the last slice is taken; between slices, trading goes on."""
        assert self._ours(engine, channel)
        cut, chosen = await self._copied(channel, instruments)
        while len(self._chosen(channel, instruments)) > len(chosen):  # one was added meanwhile
            cut, chosen = await self._copied(channel, instruments)
        publisher = self.publisher
        last_seq = publisher.next_seq(channel) - 1
        head = (engine, channel, publisher.incarnation, publisher.epoch, last_seq, self._clock_ns())
        return TakenBooks(head, [self._book(channel, name) for name in chosen], cut)

    async def _copied(self, channel: int, instruments: Sequence[int]) -> tuple[BookCopy, list[int]]:
        """The orders of the books that are asked for, and which these are."""
        chosen = self._chosen(channel, instruments)
        cut = BookCopy([self._venue.books[name] for name in chosen])
        cuts = self._cuts.setdefault(channel, [])
        cuts.append(cut)
        try:
            while not cut.done:
                began = time.thread_time()
                if not cut.copy():
                    await asyncio.sleep(time.thread_time() - began)  # half of the time is trading's
        finally:
            cuts.remove(cut)
        return cut, chosen

    def _chosen(self, channel: int, instruments: Sequence[int]) -> list[int]:
        return [name for name in self._channels[channel] if not instruments or name in instruments]

    def find(self, engine: int, channel: int, epoch: int, first_seq: int, last_seq: int) -> RangeResult | None:
        if not self._ours(engine, channel):
            return None
        return self.publisher.find(channel, epoch, first_seq, last_seq)

    def look(self, symbol: str, depth: int, orders: bool) -> Look | None:
        instrument = self._symbols.get(symbol)
        if instrument is None:
            return None
        book = self._venue.books[instrument.id]
        return Look(
            instrument,
            self.publisher.epoch,
            self.publisher.next_seq(instrument.channel) - 1,
            Standing.VALID,
            0,
            self._book(instrument.channel, instrument.id),
            _levels(book, BUY, depth, orders),
            _levels(book, SELL, depth, orders),
        )

    def instruments(self) -> Sequence[Instrument]:
        return sorted(self._symbols.values(), key=lambda instrument: instrument.id)

    def streams(self) -> Sequence[StreamLook]:
        publisher = self.publisher
        counters = {"frames": publisher.frames, "bytes": publisher.bytes, "unsent": publisher.unsent}
        return [
            StreamLook(publisher.engine, channel, publisher.epoch, LIVE, publisher.next_seq(channel), counters)
            for channel in self._channels
        ]

    def _ours(self, engine: int, channel: int) -> bool:
        return engine == self.publisher.engine and channel in self._channels

    def _book(self, channel: int, name: int) -> BookSnapshot:
        """All but the orders."""
        book, market = self._venue.books[name], self._venue.markets[name]
        return BookSnapshot(
            instrument=name,
            definition=None if market.delisted else market.instrument.told,
            status=self._status(name),
            instrument_seq=self.publisher.instrument_seq(channel, name),
            last_price=book.last_price,
            last_quantity=book.last_quantity,
            last_trade_id=book.next_trade_id - 1,
            next_trade_id=book.next_trade_id,
            statistics=self._summary(name),
            indication=self._indication(name),
            bids=[],
            asks=[],
        )

    def _summary(self, name: int) -> Statistics | None:
        """The session so far: a reader who adds up the trades has the same."""
        return statistics_of(self._venue.markets[name])

    def _indication(self, name: int) -> Indication | None:
        indication = self._venue.markets[name].indication
        return Indication(*indication) if any(indication) else None

    def _status(self, name: int) -> Status:
        market = self._venue.markets[name]
        return Status(market.state, market.reason)

    def _digest(self, name: int) -> Digest:
        """The next part of a book in turn: its bids from the best on, then its asks. Cost: 0.1 ms for 1,024 orders."""
        side, start = self._turns.get(name, (BUY, None))
        low, high, words, after = self._venue.markets[name].book.slice(side, start, SLICE_ORDERS)
        self._turns[name] = (SELL if side == BUY else BUY, None) if after is None else (side, after)
        sequence = self.publisher.instrument_seq(self._instruments[name].channel, name)
        return Digest(name, sequence, side, low, high, orders_hash(words))

    def _quote(self, name: int) -> Quote:
        """How the best prices stand. Cost: O(orders there)."""
        book = self._venue.books[name]
        sequence = self.publisher.instrument_seq(self._instruments[name].channel, name)
        bid = next(iter(book.levels(BUY, 1)), (0, 0, 0))
        ask = next(iter(book.levels(SELL, 1)), (0, 0, 0))
        last = (book.last_price, book.last_quantity, book.next_trade_id - 1)
        return Quote(self._clock_ns(), name, sequence, self._venue.markets[name].state, *bid, *ask, *last)


def _levels(book: Book, side: int, depth: int, orders: bool) -> list[ShownLevel]:
    return by_order(_queues(book, side), depth) if orders else by_price(book.levels(side, depth))


def _queues(book: Book, side: int) -> Queues:
    for level in book.asks if side else book.bids:
        yield level.price, [(order.order_id, order.open) for order in level]

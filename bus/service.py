"""MarketData over gRPC: snapshots, ranges and books for whoever asks, out of any source of them.

A fabric node's source is its mirrors, an engine's its own books. Work is bounded: however many ask for a stream's
snapshot, one encoding is under way at a time, and all who asked before it began share it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import partial
from typing import Any, Final, Protocol

import grpc

from bus.stream.actions import Standing
from bus.stream.ledger import Gap
from bus.stream.levels import ShownLevel
from bus.stream.sequencer import RangeResult
from proto import feed, marketdata_pb2, marketdata_pb2_grpc
from proto.feed import Statistics
from proto.instrument import Instrument, message_of
from proto.snapshot import BookSnapshot, Snapshot, chunks, encode_snapshot

ENCODINGS: Final = 64  # kept, all streams and selections together
SNAPSHOTS_PER_PEER: Final = 16  # at once, over one connection
BOOK_MAX: Final = 100_000  # orders or levels in one answer
INSTRUMENTS_MAX: Final = 1_024  # named in one request
HISTORIES: Final = 2  # told at once
HISTORY_S: Final = 60.0  # at most, for one


class NotServed(Exception):
    """This source knows the stream but cannot speak for it now: ask another."""


@dataclass(frozen=True, slots=True)
class Look:
    """A book to look at: all but its orders, and the levels shown. `age_ns`: since its stream was last heard."""

    instrument: Instrument
    epoch: int
    sequence: int
    standing: Standing
    age_ns: int
    book: BookSnapshot
    bids: list[ShownLevel]
    asks: list[ShownLevel]


@dataclass(frozen=True, slots=True)
class StreamLook:
    engine: int
    channel: int
    epoch: int
    state: str
    next_seq: int
    counters: dict[str, int]
    gaps: Sequence[Gap] = ()


_Position = tuple[int, int, int]  # incarnation, epoch, sequence


class Taken(Protocol):
    """A snapshot that has been taken and is still to be encoded."""

    @property
    def position(self) -> _Position:
        """Where it was taken."""

    def encode(self) -> bytes:
        """As encode_snapshot. Called once, on a thread of its own; must not hold the interpreter for long."""


class Source(Protocol):
    """Where the answers come from. Every method is called on the event loop and must not block."""

    def position(self, engine: int, channel: int) -> tuple[int, int, int] | None:
        """Incarnation, epoch and sequence of the stream's last event; None: no such stream. Raises: NotServed."""

    def snapshot(self, engine: int, channel: int, instruments: Sequence[int]) -> Snapshot | Awaitable[Taken]:
        """The stream's books, or those named that exist, at position(), or at a later one. Raises: NotServed."""

    def find(self, engine: int, channel: int, epoch: int, first_seq: int, last_seq: int) -> RangeResult | None:
        """Original frames; None: no such stream."""

    def look(self, symbol: str, depth: int, orders: bool) -> Look | None:
        """A book, `depth` levels a side (0: all); None: no such symbol. More than BOOK_MAX entries may be cut."""

    def instruments(self) -> Sequence[Instrument]:
        """All that look() knows, by id."""

    def streams(self) -> Sequence[StreamLook]:
        """By engine and channel."""


class Historian(Protocol):
    """Who knows what was published long ago."""

    def tell(self, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[marketdata_pb2.HistoryReply, None]:
        """The replies, the last one with its end. Closed when the caller has gone."""


_Key = tuple[int, int, tuple[int, ...]]
_Chunks = list[marketdata_pb2.SnapshotChunk]


class _Encoding:
    """One snapshot under way: who arrived before it was `taken` may have it."""

    __slots__ = ("taken", "task")

    def __init__(self) -> None:
        self.taken = 0  # not yet
        self.task: asyncio.Task[_Chunks] | None = None


class MarketData:
    """The service. `snapshots` counts encodings, `served` the callers they were for.

    Histories are told where there is a `historian`: one at a time over a connection, HISTORIES at a time in all, none
    for longer than HISTORY_S, however slowly it is read.
    """

    def __init__(self, source: Source, historian: Historian | None = None) -> None:
        self.source = source
        self._historian = historian
        self._telling: set[str] = set()  # peers
        self.snapshots = 0
        self.served = 0
        self._clock = 0  # of arrivals, and of snapshots taken
        self._encoded: OrderedDict[_Key, tuple[_Position, _Chunks]] = OrderedDict()
        self._encoding: dict[_Key, _Encoding] = {}
        self._serving: dict[str, int] = {}  # snapshots under way, by peer

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer MarketData calls on a server that has not started yet."""
        add: Any = marketdata_pb2_grpc.add_MarketDataServicer_to_server
        add(self, server)

    async def GetSnapshot(
        self, request: marketdata_pb2.SnapshotRequest, context: Any
    ) -> AsyncIterator[marketdata_pb2.SnapshotChunk]:
        if len(request.instruments) > INSTRUMENTS_MAX:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"more than {INSTRUMENTS_MAX} instruments")
        peer = context.peer()
        if self._serving.get(peer, 0) >= SNAPSHOTS_PER_PEER:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{SNAPSHOTS_PER_PEER} snapshots are under way")
        self._serving[peer] = self._serving.get(peer, 0) + 1
        try:
            for chunk in await self._chunks(request, context):
                yield chunk
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    async def GetRange(self, request: marketdata_pb2.RangeRequest, context: Any) -> marketdata_pb2.RangeReply:
        found = self.source.find(request.engine, request.channel, request.epoch, request.first_seq, request.last_seq)
        if found is None:
            return marketdata_pb2.RangeReply(status=marketdata_pb2.RANGE_UNKNOWN_STREAM)
        return marketdata_pb2.RangeReply(
            status=f"RANGE_{found.status.name}",
            epoch=found.epoch,
            held_first=found.held_first,
            held_last=found.held_last,
            frames=found.frames,
        )

    async def GetHistory(self, request: marketdata_pb2.HistoryRequest, context: Any) -> None:
        if self._historian is None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "history is told by the stream's engine alone: ask there"
            )
            raise AssertionError("abort raises")
        wrong = _wrong_history(request)
        if wrong:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong)
        if self.source.position(request.engine, request.channel) is None:
            end = marketdata_pb2.HistoryEnd(status=marketdata_pb2.HISTORY_UNKNOWN_STREAM, reason="no such stream here")
            await context.write(marketdata_pb2.HistoryReply(end=end))
            return
        peer = context.peer()
        if peer in self._telling or len(self._telling) >= HISTORIES:
            who = "another is told over this connection" if peer in self._telling else f"{HISTORIES} are told already"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{who}: ask again when it has ended")
        self._telling.add(peer)
        try:
            async with asyncio.timeout(HISTORY_S), aclosing(self._historian.tell(request)) as replies:
                async for reply in replies:
                    await context.write(reply)
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"cut after {HISTORY_S:g} s: ask again for what is behind the last frame",
            )
        finally:
            self._telling.remove(peer)

    async def GetBook(self, request: marketdata_pb2.BookRequest, context: Any) -> marketdata_pb2.Book:
        look = self.source.look(request.symbol, request.depth, request.by_order)
        if look is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no instrument {request.symbol!r} is known here")
            raise AssertionError("abort raises")
        if sum(len(level[3]) or 1 for side in (look.bids, look.asks) for level in side) > BOOK_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {BOOK_MAX} entries: ask for less depth")
        return book_message(look)

    async def GetInstruments(
        self, request: marketdata_pb2.InstrumentsRequest, context: Any
    ) -> marketdata_pb2.InstrumentsReply:
        return marketdata_pb2.InstrumentsReply(instruments=map(self._listed, self.source.instruments()))

    def _listed(self, instrument: Instrument) -> marketdata_pb2.Instrument:
        """An instrument and how it stands."""
        message = message_of(instrument)
        look = self.source.look(instrument.symbol, 1, False)
        if look is not None:
            message.trading_state = feed.STATE_NAMES[look.book.status.state]
            _say_statistics(message.statistics, look)
        return message

    async def GetStreams(self, request: marketdata_pb2.StreamsRequest, context: Any) -> marketdata_pb2.StreamsReply:
        return marketdata_pb2.StreamsReply(
            streams=[
                marketdata_pb2.Stream(
                    engine=look.engine,
                    channel=look.channel,
                    epoch=look.epoch,
                    state=look.state,
                    next_seq=look.next_seq,
                    counters=look.counters,
                    gaps=map(gap_message, look.gaps),
                )
                for look in self.source.streams()
            ]
        )

    async def _chunks(self, request: marketdata_pb2.SnapshotRequest, context: Any) -> _Chunks:
        """The snapshot at the stream's present position, encoded by us or for another who asks at the same time."""
        key = (request.engine, request.channel, tuple(sorted(set(request.instruments))))
        arrived = self._tick()
        self.served += 1
        while True:
            try:
                position = self.source.position(request.engine, request.channel)
                if position is None:
                    await context.abort(
                        grpc.StatusCode.NOT_FOUND, f"no stream {request.channel} of engine {request.engine} here"
                    )
                    raise AssertionError("abort raises")
                known = self._encoded.get(key)
                if known is not None and known[0] == position:
                    self._encoded.move_to_end(key)
                    return known[1]
                encoding = self._encoding.get(key) or self._begin(key)
                assert encoding.task is not None
                chunks = await asyncio.shield(encoding.task)
            except NotServed as e:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(e))
                raise AssertionError("abort raises") from e
            if encoding.taken > arrived:
                return chunks

    def _begin(self, key: _Key) -> _Encoding:
        """Have it taken, now or in slices, and encode it on a thread."""
        found = self.source.snapshot(*key)
        self.snapshots += 1
        encoding = self._encoding[key] = _Encoding()
        if isinstance(found, Snapshot):
            encoding.taken = self._tick()
        encoding.task = asyncio.get_running_loop().create_task(self._encode(key, encoding, found))
        return encoding

    async def _encode(self, key: _Key, encoding: _Encoding, found: Snapshot | Awaitable[Taken]) -> _Chunks:
        try:
            if isinstance(found, Snapshot):
                position: _Position = (found.incarnation, found.epoch, found.last_seq)
                encode: Callable[[], bytes] = partial(encode_snapshot, found)
            else:
                taken = await found
                encoding.taken = self._tick()
                position, encode = taken.position, taken.encode
            chunks = await asyncio.to_thread(_chunked, key[0], key[1], position, encode)
        finally:
            del self._encoding[key]
        self._encoded[key] = (position, chunks)
        self._encoded.move_to_end(key)
        while len(self._encoded) > ENCODINGS:
            self._encoded.popitem(last=False)
        return chunks

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _wrong_history(request: marketdata_pb2.HistoryRequest) -> str:
    """What is wrong with a request, or nothing."""
    if bool(request.first_seq) == bool(request.from_ns):
        return "either first_seq or from_ns"
    if request.from_ns and (request.last_seq or request.epoch or request.instrument):
        return "epoch, last_seq and instrument go with first_seq"
    if request.last_seq and request.to_ns:
        return "either last_seq or to_ns"
    if request.last_seq and request.last_seq < request.first_seq:
        return f"from {request.first_seq} to {request.last_seq}"
    if request.to_ns and request.to_ns <= request.from_ns:
        return f"from {request.from_ns} ns to before {request.to_ns} ns"
    return ""


def _chunked(engine: int, channel: int, position: _Position, encode: Callable[[], bytes]) -> _Chunks:
    incarnation, epoch, last_seq = position
    return [
        marketdata_pb2.SnapshotChunk(
            engine=engine,
            channel=channel,
            incarnation=incarnation,
            epoch=epoch,
            last_seq=last_seq,
            index=chunk.index,
            count=chunk.count,
            crc32=chunk.crc32,
            body=chunk.body,
        )
        for chunk in chunks(encode())
    ]


def gap_message(gap: Gap) -> marketdata_pb2.Gap:
    return marketdata_pb2.Gap(
        epoch=gap.epoch,
        first=gap.first,
        last=gap.last,
        cause=gap.cause,
        how=gap.how,
        took_ns=gap.took_ns,
        late=gap.late,
        ranged=gap.ranged,
        snapshotted=gap.snapshotted,
        abandoned=gap.abandoned,
        missing=gap.missing,
        source=gap.source,
    )


def book_message(look: Look) -> marketdata_pb2.Book:
    instrument, book = look.instrument, look.book
    message = marketdata_pb2.Book(
        symbol=instrument.symbol,
        instrument=instrument.id,
        engine=instrument.engine,
        channel=instrument.channel,
        epoch=look.epoch,
        sequence=look.sequence,
        instrument_sequence=book.instrument_seq,
        state=f"BOOK_{look.standing.name}",
        age_ns=look.age_ns,
        trading_state=feed.STATE_NAMES[book.status.state],
        trading_state_reason=book.status.reason,
        bids=map(_level, look.bids),
        asks=map(_level, look.asks),
        last_price=book.last_price,
        last_quantity=book.last_quantity,
        last_trade_id=book.last_trade_id,
        tick_size=format(instrument.tick_size, "f"),
        lot_size=format(instrument.lot_size, "f"),
    )
    _say_statistics(message.statistics, look)
    if book.indication is not None:
        price, volume, imbalance = book.indication
        message.indication.CopyFrom(marketdata_pb2.Indication(price=price, volume=volume, imbalance=imbalance))
    return message


def _say_statistics(message: marketdata_pb2.Statistics, look: Look) -> None:
    if look.standing is Standing.UNKNOWN:
        return
    message.SetInParent()
    statistics = look.book.statistics
    if statistics is not None:
        opened, high, low, last, volume, turnover, trades = statistics
        bounded = min(turnover, feed.TIME_MAX)
        said = marketdata_pb2.Statistics(
            open=opened, high=high, low=low, last=last, volume=volume, turnover=bounded, trades=trades,
            vwap=_vwap(statistics, look.instrument.tick_size),
        )  # fmt: skip
        message.CopyFrom(said)


def _vwap(statistics: Statistics, tick_size: Decimal) -> str:
    """The price of the average lot, as a decimal, to two digits more than a tick has."""
    if not statistics.volume:
        return ""
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(statistics.turnover) * tick_size / statistics.volume
        return f"{exact.quantize(tick_size.scaleb(-2).normalize()):f}"


def _level(level: ShownLevel) -> marketdata_pb2.BookLevel:
    price, quantity, count, orders = level
    return marketdata_pb2.BookLevel(
        price=price,
        quantity=quantity,
        count=count,
        orders=[marketdata_pb2.BookOrder(order_id=order_id, quantity=left) for order_id, left in orders],
    )

"""What the judge of a run sees for itself: every trade on every feed, and the books and streams of every machine.

The observer reads the engines' own publishers, not the lines with faults, so what it misses it says: trades on a feed
that nobody reported must not hide behind a loss.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import grpc
import zmq

from proto import feed, marketdata_pb2, marketdata_pb2_grpc
from proto.feed import EXECUTE, OP_MASK, FeedError, Frame, Snapshot
from tools.tally import TradeKey, TradeSum

DRAIN_S: Final = 0.02  # how often sockets are drained
BURST: Final = 2_000
HIGH_WATER_MARK: Final = 8_192
CALL_S: Final = 2.0
SNAPSHOT_S: Final = 10.0
MESSAGE_MAX: Final = 64 << 20


class TradeWatch:
    """Adds up the trades of streams, and notes which of their deltas it did not get. Pure: frames in."""

    def __init__(self) -> None:
        self.trades: dict[int, TradeSum] = {}
        self.missed: dict[int, int] = {}
        self.bad_frames = 0
        self._due: dict[tuple[int, int], tuple[int, int]] = {}  # by engine and channel: epoch, next sequence

    def frame(self, data: bytes) -> None:
        """Take in one frame; a damaged one is counted, an old one passed over."""
        try:
            frame = feed.decode(data)
        except FeedError:
            self.bad_frames += 1
            return
        header = frame.header
        if header.kind != feed.KIND_D:
            return
        epoch, due = self._due.get((header.engine, header.channel), (0, 1))
        if header.epoch < epoch:
            return
        if header.epoch > epoch:
            due = 1
        if header.first_seq > due:
            self.missed[header.engine] = self.missed.get(header.engine, 0) + header.first_seq - due
        self._add(frame, max(0, due - header.first_seq))
        self._due[header.engine, header.channel] = (header.epoch, max(due, frame.next_seq))

    def _add(self, frame: Frame, skip: int) -> None:
        for op, instrument, _, price, quantity, trade_id in frame.rows[skip:]:
            if op & OP_MASK == EXECUTE:
                self.trades.setdefault(instrument, TradeSum()).add(TradeKey(trade_id, price, quantity))


class Observer:
    """A TradeWatch with sockets, drained on the event loop."""

    def __init__(self) -> None:
        self.watch = TradeWatch()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self, name: str, endpoint: str) -> None:
        """Read this publisher; one that was followed under that name is given up, when what it sent has been read."""
        if name in self._sockets:
            self.drain()
            self._sockets.pop(name).close(linger=0)
        socket = self._context.socket(zmq.SUB)
        socket.set_hwm(HIGH_WATER_MARK)
        socket.setsockopt(zmq.SUBSCRIBE, b"D")
        socket.connect(endpoint)
        self._sockets[name] = socket

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.close()

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._sockets.clear()
        self._context.term()

    def drain(self) -> None:
        """Read all that has arrived."""
        for socket in self._sockets.values():
            for _ in range(BURST):
                try:
                    self.watch.frame(socket.recv(zmq.NOBLOCK))
                except zmq.Again:
                    break

    async def _run(self) -> None:
        while True:
            self.drain()
            await asyncio.sleep(DRAIN_S)


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream as a machine has it (proto Stream)."""

    engine: int
    channel: int
    epoch: int
    state: str
    next_seq: int
    counters: dict[str, int]


class Machine:
    """The market data service of one process, asked with a deadline. Every call raises grpc.aio.AioRpcError."""

    def __init__(self, target: str) -> None:
        self.target = target
        options = [("grpc.max_receive_message_length", MESSAGE_MAX), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(target, options=options)
        stub: Any = marketdata_pb2_grpc.MarketDataStub
        self._stub = stub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def streams(self, timeout_s: float = CALL_S) -> list[StreamState]:
        reply = await self._stub.GetStreams(marketdata_pb2.StreamsRequest(), timeout=timeout_s)
        return [StreamState(s.engine, s.channel, s.epoch, s.state, s.next_seq, dict(s.counters)) for s in reply.streams]

    async def book(self, symbol: str, depth: int = 1, timeout_s: float = CALL_S) -> marketdata_pb2.Book:
        request = marketdata_pb2.BookRequest(symbol=symbol, depth=depth)
        book: marketdata_pb2.Book = await self._stub.GetBook(request, timeout=timeout_s)
        return book

    async def snapshot(self, engine: int, channel: int, timeout_s: float = SNAPSHOT_S) -> Snapshot:
        """The whole of one stream's books. Raises also: FeedError when what comes is not one."""
        request = marketdata_pb2.SnapshotRequest(engine=engine, channel=channel)
        parts = [
            feed.Chunk(part.index, part.count, part.crc32, part.body)
            async for part in self._stub.GetSnapshot(request, timeout=timeout_s)
        ]
        return feed.decode_snapshot(feed.join_chunks(parts))


def book_state(book: marketdata_pb2.Book) -> str:
    """A book's state in the words that people read: valid, doubtful, stale, unknown."""
    return marketdata_pb2.BookState.Name(book.state).removeprefix("BOOK_").lower()


def resting(snapshot: Snapshot) -> int:
    """How many orders rest in all its books."""
    return sum(len(book.bids) + len(book.asks) for book in snapshot.books)

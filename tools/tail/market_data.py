"""The market data service of one machine, asked with deadlines: its streams, its books, its snapshots."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from bus.reader.history import told
from proto import marketdata_pb2, marketdata_pb2_grpc
from proto.feed import Frame
from proto.snapshot import Chunk, Snapshot, decode_snapshot, join_chunks

CALL_S: Final = 2.0
SNAPSHOT_S: Final = 10.0
MESSAGE_MAX: Final = 64 << 20


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

    async def serves(self, service: str, timeout_s: float = CALL_S) -> bool:
        """Whether it says of this service that it serves; False too while it does not answer or does not know of it.

        Raises: nothing.
        """
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            reply = await health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def streams(self, timeout_s: float = CALL_S) -> list[StreamState]:
        reply = await self._stub.GetStreams(marketdata_pb2.StreamsRequest(), timeout=timeout_s)
        return [StreamState(s.engine, s.channel, s.epoch, s.state, s.next_seq, dict(s.counters)) for s in reply.streams]

    async def book(self, symbol: str, depth: int = 1, timeout_s: float = CALL_S) -> marketdata_pb2.Book:
        request = marketdata_pb2.BookRequest(symbol=symbol, depth=depth)
        book: marketdata_pb2.Book = await self._stub.GetBook(request, timeout=timeout_s)
        return book

    async def snapshot(
        self, engine: int, channel: int, instruments: Sequence[int] = (), timeout_s: float = SNAPSHOT_S
    ) -> Snapshot:
        """A stream's books, or those named. Raises also: FeedError when what comes is not one."""
        request = marketdata_pb2.SnapshotRequest(engine=engine, channel=channel, instruments=instruments)
        parts = [
            Chunk(part.index, part.count, part.crc32, part.body)
            async for part in self._stub.GetSnapshot(request, timeout=timeout_s)
        ]
        return decode_snapshot(join_chunks(parts))

    async def range(self, engine: int, channel: int, epoch: int, first: int, last: int) -> list[bytes]:
        """Frames that hold `first` and what follows, at most to `last`. Raises also: LookupError when it has none."""
        request = marketdata_pb2.RangeRequest(
            engine=engine, channel=channel, epoch=epoch, first_seq=first, last_seq=last
        )
        reply = await self._stub.GetRange(request, timeout=CALL_S)
        if reply.status != marketdata_pb2.RANGE_OK or not reply.frames:
            raise LookupError(marketdata_pb2.RangeStatus.Name(reply.status))
        return list(reply.frames)

    def history(self, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[Frame, None]:
        """Frames made anew out of its log, if it is the stream's engine. Raises HistoryError instead."""
        return told(self._stub, request)


def book_state(book: marketdata_pb2.Book) -> str:
    """A book's state in the words that people read: valid, doubtful, stale, unknown."""
    return marketdata_pb2.BookState.Name(book.state).removeprefix("BOOK_").lower()


def resting(snapshot: Snapshot) -> int:
    """How many orders rest in all its books."""
    return sum(len(book.bids) + len(book.asks) for book in snapshot.books)

"""A stream's past, told again by its engine out of its log, however often one has to ask for the rest of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, Final

import grpc

from bus.reader.events import BookEvent, Delta, Sizes, Trade, told_of
from proto import feed, marketdata_pb2
from proto.feed import END, OP_MASK, TOLD, Frame

PULLED: Final = 256  # events at a time, across threads


class HistoryError(Exception):
    """There is no such history, or nobody who tells it; the text says why."""


class History:
    """Events of long ago, to be iterated once or several times, each from the beginning on."""

    def __init__(
        self,
        begin: Callable[[], AsyncGenerator[BookEvent | Trade, None]],
        wait: Callable[[Coroutine[Any, Any, list[BookEvent | Trade]]], list[BookEvent | Trade]] | None,
    ) -> None:
        """`wait` gives the result of a coroutine on another thread's loop; None: this is the loop."""
        self._begin = begin
        self._wait = wait

    def __aiter__(self) -> AsyncIterator[BookEvent | Trade]:
        if self._wait is not None:
            raise RuntimeError("this feed runs without asyncio: iterate with `for`")
        return self._begin()

    def __iter__(self) -> Iterator[BookEvent | Trade]:
        if self._wait is None:
            raise RuntimeError("this feed runs with asyncio: iterate with `async for`")
        events = self._begin()
        try:
            while pulled := self._wait(_pull(events)):
                yield from pulled
        finally:
            self._wait(_end(events))


async def _pull(events: AsyncGenerator[BookEvent | Trade, None]) -> list[BookEvent | Trade]:
    pulled: list[BookEvent | Trade] = []
    async for event in events:
        pulled.append(event)
        if len(pulled) == PULLED:
            break
    return pulled


async def _end(events: AsyncGenerator[BookEvent | Trade, None]) -> list[BookEvent | Trade]:
    await events.aclose()
    return []


async def events_of(
    frames: AsyncGenerator[Frame, None], symbol: str, instrument: int, sizes: Sizes
) -> AsyncGenerator[BookEvent | Trade, None]:
    """What happened to one instrument, as Feed.events tells it. Raises: what iterating `frames` does."""
    deltas: list[Delta] = []
    time_ns = 0
    async with aclosing(frames):
        async for frame in frames:
            times = dict(frame.times)
            for sequence, row in enumerate(frame.rows, frame.header.first_seq):
                time_ns = times.get(sequence - frame.header.first_seq, time_ns)
                if row[1] == instrument:
                    deltas.append(Delta(row, sizes, frame.extras[row[2]] if row[0] & OP_MASK in TOLD else None))
                if row[0] & END and deltas:
                    for event in told_of(symbol, frame.header.epoch, sequence, time_ns, deltas):
                        yield event
                    deltas = []


async def told(stub: Any, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[Frame, None]:
    """The frames, made anew, that hold what was asked for, by whole events.

    `stub` is a MarketDataStub of the stream's engine. Raises: HistoryError, also in the middle.
    """
    while True:
        end: marketdata_pb2.HistoryEnd | None = None
        try:
            async for reply in stub.GetHistory(request):
                for data in reply.frames:
                    yield feed.decode_reframed(data)
                if reply.HasField("end"):
                    end = reply.end
        except grpc.aio.AioRpcError as e:
            raise HistoryError(f"{e.code().name.lower()}: {e.details()}") from e
        except feed.FeedError as e:
            raise HistoryError(f"what came is no history: {e}") from e
        if end is None:
            raise HistoryError("cut off")
        if end.status == marketdata_pb2.HISTORY_OK:
            return
        if end.status != marketdata_pb2.HISTORY_CUT:
            status = marketdata_pb2.HistoryStatus.Name(end.status).removeprefix("HISTORY_").lower().replace("_", " ")
            raise HistoryError(f"{status}: {end.reason}")
        rest = marketdata_pb2.HistoryRequest()
        rest.CopyFrom(request)
        rest.epoch, rest.first_seq, rest.from_ns = end.epoch, end.next_seq, 0
        request = rest

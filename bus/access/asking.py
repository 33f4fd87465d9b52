"""Asks for market data over gRPC: one machine, or, for a stream that misses something, whichever machine has it.

`Machine` is the market data service of one process. `Recovery` fetches what readers of streams miss: one call at a time
for each stream, each with a deadline. Which machines to ask, and in which order, is the caller's to say; within one ask
every source has its turn until one of them answers, and each new attempt begins with the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc

from bus.stream.actions import Action, AskRange, AskSnapshot
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto import connect, marketdata_pb2, marketdata_pb2_grpc
from proto.feed import FeedError, Frame, decode_reframed
from proto.snapshot import SNAPSHOT_MAX, Chunk, Snapshot, decode_snapshot, join_chunks

CALL_S: Final = 2.0
SNAPSHOT_S: Final = 10.0
ON_LOOP_MAX: Final = 1 << 16  # bytes of a snapshot decoded on the event loop; a longer one goes to a thread

Sources = Callable[[int, AskRange | AskSnapshot], Sequence[str]]
Answered = Callable[[FeedClient, list[Action]], None]


class HistoryError(Exception):
    """There is no such history, or nobody who tells it; the text says why."""


class Ranged(NamedTuple):
    """An answer to an ask for frames, or why there are none."""

    status: RangeStatus
    epoch: int
    frames: list[bytes]


# What a reader takes in: a frame as it came, the answer to an ask, or why there is none. A tap is told on the event
# loop, right before, and at what time (by the reader's clock); it must neither block nor raise.
Taken = bytes | Snapshot | Ranged | str
Tap = Callable[[FeedClient, Taken, int], None]


@dataclass(frozen=True, slots=True)
class StreamStanding:
    """One stream as a machine has it (proto Stream)."""

    engine: int
    channel: int
    epoch: int
    state: str
    next_seq: int
    counters: dict[str, int]


class Machine:
    """The market data service of one process, `target` being its host:port. Every call raises grpc.aio.AioRpcError."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._channel = connect.channel(target)
        make: Any = marketdata_pb2_grpc.MarketDataStub
        self._stub = make(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def streams(self, timeout_s: float = CALL_S) -> list[StreamStanding]:
        """All that it reads, or publishes."""
        reply = await self._stub.GetStreams(marketdata_pb2.StreamsRequest(), timeout=timeout_s)
        return [
            StreamStanding(s.engine, s.channel, s.epoch, s.state, s.next_seq, dict(s.counters)) for s in reply.streams
        ]

    async def book(self, symbol: str, depth: int = 1, timeout_s: float = CALL_S) -> marketdata_pb2.Book:
        request = marketdata_pb2.BookRequest(symbol=symbol, depth=depth)
        book: marketdata_pb2.Book = await self._stub.GetBook(request, timeout=timeout_s)
        return book

    async def snapshot(
        self, engine: int, channel: int, instruments: Sequence[int] = (), timeout_s: float = SNAPSHOT_S
    ) -> Snapshot:
        """A stream's books, or those named. Raises also: FeedError when what comes is not one."""
        request = marketdata_pb2.SnapshotRequest(engine=engine, channel=channel, instruments=instruments)
        parts: list[Chunk] = []
        size = 0
        async for chunk in self._stub.GetSnapshot(request, timeout=timeout_s):
            parts.append(Chunk(chunk.index, chunk.count, chunk.crc32, chunk.body))
            size += len(chunk.body)
            if size > SNAPSHOT_MAX:
                raise FeedError("a snapshot too long")
        body = join_chunks(parts)
        return await asyncio.to_thread(decode_snapshot, body) if size > ON_LOOP_MAX else decode_snapshot(body)

    async def range(
        self, engine: int, channel: int, epoch: int, first: int, last: int, timeout_s: float = CALL_S
    ) -> marketdata_pb2.RangeReply:
        """Frames that hold `first` and what follows, at most to `last`, or why there are none."""
        request = marketdata_pb2.RangeRequest(
            engine=engine, channel=channel, epoch=epoch, first_seq=first, last_seq=last
        )
        reply: marketdata_pb2.RangeReply = await self._stub.GetRange(request, timeout=timeout_s)
        return reply

    async def history(self, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[Frame, None]:
        """The frames, made anew out of its log, that hold what was asked for, by whole events.

        However often one has to ask for the rest of it. Raises, also in the middle: HistoryError, and nothing else.
        """
        while True:
            end: marketdata_pb2.HistoryEnd | None = None
            try:
                async for reply in self._stub.GetHistory(request):
                    for data in reply.frames:
                        yield decode_reframed(data)
                    if reply.HasField("end"):
                        end = reply.end
            except grpc.aio.AioRpcError as e:
                raise HistoryError(f"{e.code().name.lower()}: {e.details()}") from e
            except FeedError as e:
                raise HistoryError(f"what came is no history: {e}") from e
            if end is None:
                raise HistoryError("cut off")
            if end.status == marketdata_pb2.HISTORY_OK:
                return
            if end.status != marketdata_pb2.HISTORY_CUT:
                status = marketdata_pb2.HistoryStatus.Name(end.status).removeprefix("HISTORY_")
                raise HistoryError(f"{status.lower().replace('_', ' ')}: {end.reason}")
            rest = marketdata_pb2.HistoryRequest()
            rest.CopyFrom(request)
            rest.epoch, rest.first_seq, rest.from_ns = end.epoch, end.next_seq, 0
            request = rest


@contextmanager
def _credited(client: FeedClient, target: str) -> Iterator[None]:
    """Note for each gap of which an answer brings something whose answer it was."""
    before = [(gap, gap.ranged + gap.snapshotted) for gap in client.ledger.open]
    yield
    for gap, had in before:
        if gap.ranged + gap.snapshotted > had:
            gap.source = target


class Recovery:
    """Asks for streams. `sources(engine, ask)` gives host:port of those who may know, best first.

    `done(client, actions)` is called with what a client makes of its answer; each of `taps` with the answer before.
    """

    def __init__(
        self,
        sources: Sources,
        done: Answered,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        taps: Sequence[Tap] = (),
    ) -> None:
        self.calls = 0
        self._sources = sources
        self._done = done
        self._clock_ns = clock_ns
        self._taps = tuple(taps)
        self._tasks: dict[FeedClient, asyncio.Task[None]] = {}
        self._machines: dict[str, Machine] = {}

    def ask(self, client: FeedClient, asked: AskRange | AskSnapshot) -> None:
        """Begin; what was asked for this stream before is given up."""
        self.withdraw(client)
        task = asyncio.get_running_loop().create_task(self._perform(client, asked))
        self._tasks[client] = task
        task.add_done_callback(lambda done: self._forget(client, done))

    def withdraw(self, client: FeedClient) -> None:
        task = self._tasks.pop(client, None)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for machine in self._machines.values():
            await machine.close()
        self._machines.clear()

    async def _perform(self, client: FeedClient, asked: AskRange | AskSnapshot) -> None:
        targets = list(self._sources(client.engine, asked))
        first = asked.attempt % len(targets) if targets else 0
        deadline_ns = self._clock_ns() + asked.timeout_ns
        why = "no source"
        refusal: marketdata_pb2.RangeReply | None = None
        for target in targets[first:] + targets[:first]:
            left_s = (deadline_ns - self._clock_ns()) / 1e9
            if left_s <= 0:
                break
            self.calls += 1
            try:
                if isinstance(asked, AskSnapshot):
                    self._snapshotted(client, asked, await self._snapshot(target, client, asked, left_s), target)
                    return
                stream = (client.engine, client.channel, asked.epoch)
                reply = await self._machine(target).range(*stream, asked.first, asked.last, left_s)
            except grpc.aio.AioRpcError as e:
                why = f"{target}: {e.code().name.lower()}: {e.details()}"
                continue
            except FeedError as e:
                why = f"{target}: {e}"
                continue
            if reply.status == marketdata_pb2.RANGE_OK:
                self._ranged(client, asked, reply, target)
                return
            if reply.status in (marketdata_pb2.RANGE_OUT_OF_RANGE, marketdata_pb2.RANGE_WRONG_EPOCH):
                refusal = reply
            why = f"{target}: range status {reply.status}"
        if refusal is not None and isinstance(asked, AskRange):
            self._ranged(client, asked, refusal, "")
            return
        now_ns = self._tapped(client, why)
        self._answered(client, client.failed(asked.ask, why, now_ns))

    async def _snapshot(self, target: str, client: FeedClient, asked: AskSnapshot, left_s: float) -> Snapshot:
        instruments = [asked.instrument] if asked.instrument else []
        return await self._machine(target).snapshot(client.engine, client.channel, instruments, left_s)

    def _snapshotted(self, client: FeedClient, asked: AskSnapshot, snapshot: Snapshot, target: str) -> None:
        now_ns = self._tapped(client, snapshot)
        with _credited(client, target):
            actions = client.snapshot_reply(asked.ask, snapshot, now_ns)
        self._answered(client, actions)

    def _ranged(self, client: FeedClient, asked: AskRange, reply: marketdata_pb2.RangeReply, target: str) -> None:
        ranged = Ranged(RangeStatus(reply.status), reply.epoch, list(reply.frames))
        now_ns = self._tapped(client, ranged)
        with _credited(client, target):
            actions = client.range_reply(asked.ask, *ranged, now_ns)
        self._answered(client, actions)

    def _tapped(self, client: FeedClient, taken: Taken) -> int:
        """Tell the taps; when it is taken in."""
        now_ns = self._clock_ns()
        for tap in self._taps:
            tap(client, taken, now_ns)
        return now_ns

    def _answered(self, client: FeedClient, actions: list[Action]) -> None:
        # The answer may lead to the next ask, which must not cancel the task that brings it.
        self._tasks.pop(client, None)
        self._done(client, actions)

    def _forget(self, client: FeedClient, task: asyncio.Task[None]) -> None:
        if self._tasks.get(client) is task:
            del self._tasks[client]
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                raise error  # our own bug: to the loop's exception handler

    def _machine(self, target: str) -> Machine:
        machine = self._machines.get(target)
        if machine is None:
            machine = self._machines[target] = Machine(target)
        return machine

"""Fetches what a reader misses, over gRPC: one call at a time for each stream, each with a deadline.

Which machines to ask, and in which order, is the caller's to say; within one ask every source has its turn until one
of them answers, and each new attempt begins with the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import grpc

from bus.access.exchange import CHANNEL_OPTIONS
from bus.stream.actions import Action, AskRange, AskSnapshot
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto import feed, marketdata_pb2, marketdata_pb2_grpc
from proto.snapshot import SNAPSHOT_MAX, Chunk, Snapshot, decode_snapshot, join_chunks

MESSAGE_MAX: Final = 4 << 20
ON_LOOP_MAX: Final = 1 << 16  # bytes of a snapshot decoded on the event loop; a longer one goes to a thread

Sources = Callable[[int, AskRange | AskSnapshot], Sequence[str]]
Done = Callable[[FeedClient, list[Action]], None]


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

    `done(client, actions)` is called with what a client makes of its answer.
    """

    def __init__(self, sources: Sources, done: Done, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.calls = 0
        self.failures = 0
        self._sources = sources
        self._done = done
        self._clock_ns = clock_ns
        self._tasks: dict[FeedClient, asyncio.Task[None]] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, Any] = {}

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
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        self._stubs.clear()

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
                    snapshot = await self._snapshot(target, client, asked, left_s)
                    with _credited(client, target):
                        actions = client.snapshot_reply(asked.ask, snapshot, self._clock_ns())
                    self._answered(client, actions)
                    return
                reply = await self._range(target, client, asked, left_s)
            except grpc.aio.AioRpcError as e:
                self.failures += 1
                why = f"{target}: {e.code().name.lower()}: {e.details()}"
                continue
            except feed.FeedError as e:
                self.failures += 1
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
        else:
            self._answered(client, client.failed(asked.ask, why, self._clock_ns()))

    async def _range(
        self, target: str, client: FeedClient, asked: AskRange, left_s: float
    ) -> marketdata_pb2.RangeReply:
        request = marketdata_pb2.RangeRequest(
            engine=client.engine,
            channel=client.channel,
            epoch=asked.epoch,
            first_seq=asked.first,
            last_seq=asked.last,
        )
        reply: marketdata_pb2.RangeReply = await self._stub(target).GetRange(request, timeout=left_s)
        return reply

    async def _snapshot(self, target: str, client: FeedClient, asked: AskSnapshot, left_s: float) -> Snapshot:
        request = marketdata_pb2.SnapshotRequest(
            engine=client.engine,
            channel=client.channel,
            instruments=[asked.instrument] if asked.instrument else [],
        )
        parts: list[Chunk] = []
        size = 0
        async for chunk in self._stub(target).GetSnapshot(request, timeout=left_s):
            parts.append(Chunk(chunk.index, chunk.count, chunk.crc32, chunk.body))
            size += len(chunk.body)
            if size > SNAPSHOT_MAX:
                raise feed.FeedError("a snapshot too long")
        body = join_chunks(parts)
        if size > ON_LOOP_MAX:
            return await asyncio.to_thread(decode_snapshot, body)
        return decode_snapshot(body)

    def _ranged(self, client: FeedClient, asked: AskRange, reply: marketdata_pb2.RangeReply, target: str) -> None:
        status = RangeStatus(reply.status)
        frames = list(reply.frames)
        with _credited(client, target):
            actions = client.range_reply(asked.ask, status, reply.epoch, frames, self._clock_ns())
        self._answered(client, actions)

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

    def _stub(self, target: str) -> Any:
        stub = self._stubs.get(target)
        if stub is None:
            options = [*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", MESSAGE_MAX)]
            channel = self._channels[target] = grpc.aio.insecure_channel(target, options=options)
            make: Any = marketdata_pb2_grpc.MarketDataStub
            stub = self._stubs[target] = make(channel)
        return stub

"""A reader that keeps what it receives: the sockets of a recording, and of frames shown raw."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

import zmq

from bus.access.asking import Recovery, Sources
from bus.stream.actions import Action, AskRange, AskSnapshot, State, StateChanged, Withdrawn
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto import feed
from proto.snapshot import Snapshot, encode_snapshot
from tools.tail.recording import FAILED, FRAME, RANGE, SEED, SNAPSHOT, Record, Writer, range_body

HIGH_WATER: Final = 100_000
TURN: Final = 1_000  # frames read before others have their turn
TICK_S: Final = 0.005


class Tap:
    """Every frame of some engines' channels, as it comes: `heard(engine, frame, time_ns)`, on the running loop."""

    def __init__(self, heard: Callable[[int, bytes, int], None]) -> None:
        self._heard = heard
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[int, tuple[str, zmq.Socket[bytes]]] = {}
        self._loop = asyncio.get_running_loop()

    def follow(self, engine: int, endpoint: str, channels: int) -> None:
        """Hear this engine there, from now on."""
        if engine in self._sockets:
            if self._sockets[engine][0] == endpoint:
                return
            self._leave(engine)
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        for channel in range(1, channels + 1):
            socket.subscribe(feed.topic(feed.KIND_D, engine, channel))
        self._sockets[engine] = (endpoint, socket)
        self._loop.add_reader(socket.fileno(), self._drain, engine, socket)
        self._drain(engine, socket)

    def stop(self) -> None:
        for engine in list(self._sockets):
            self._leave(engine)
        self._context.term()

    def _leave(self, engine: int) -> None:
        _, socket = self._sockets.pop(engine)
        self._loop.remove_reader(socket.fileno())
        socket.close()

    def _drain(self, engine: int, socket: zmq.Socket[bytes]) -> None:
        if socket.closed:
            return
        with contextlib.suppress(zmq.Again):
            for _ in range(TURN):
                self._heard(engine, socket.recv(zmq.NOBLOCK), time.time_ns())
            self._loop.call_soon(self._drain, engine, socket)


class _Kept:
    """A reader whose answers are written down as it takes them in: what Recovery needs of a FeedClient."""

    def __init__(self, client: FeedClient, writer: Writer) -> None:
        self.client = client
        self.engine, self.channel, self.ledger = client.engine, client.channel, client.ledger
        self._writer = writer

    def frame(self, frame: bytes, now_ns: int) -> list[Action]:
        self._keep(FRAME, now_ns, frame)
        return self.client.frame(frame, now_ns)

    def range_reply(
        self, ask: int, status: RangeStatus, epoch: int, frames: Sequence[bytes], now_ns: int
    ) -> list[Action]:
        self._keep(RANGE, now_ns, range_body(status, epoch, frames))
        return self.client.range_reply(ask, status, epoch, frames, now_ns)

    def snapshot_reply(self, ask: int, snapshot: Snapshot, now_ns: int) -> list[Action]:
        self._keep(SNAPSHOT, now_ns, encode_snapshot(snapshot))
        return self.client.snapshot_reply(ask, snapshot, now_ns)

    def failed(self, ask: int, reason: str, now_ns: int) -> list[Action]:
        self._keep(FAILED, now_ns, reason.encode())
        return self.client.failed(ask, reason, now_ns)

    def _keep(self, kind: bytes, now_ns: int, body: bytes) -> None:
        self._writer.write(Record(kind, now_ns, self.engine, self.channel, body))


class Recorder:
    """Reads streams for themselves, beside whoever shows them, and writes down all that its readers take in.

    `live` is told of each reader that comes to be, or comes back to being, live.
    """

    def __init__(self, writer: Writer, sources: Sources, live: Callable[[FeedClient], None]) -> None:
        self._writer = writer
        self._live = live
        self._kept: dict[bytes, _Kept] = {}
        self._recovery = Recovery(sources, self._answered, time.time_ns)
        self._tap = Tap(self._heard)
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def follow(self, engine: int, endpoint: str, channels: int) -> None:
        for channel in range(1, channels + 1):
            topic = feed.topic(feed.KIND_D, engine, channel)
            if topic not in self._kept:
                client = FeedClient(engine, channel, random.Random(SEED))
                self._kept[topic] = _Kept(client, self._writer)
                self._act(self._kept[topic], client.start(time.time_ns()))
        self._tap.follow(engine, endpoint, channels)

    async def reach(self, clients: Iterable[FeedClient], timeout_s: float) -> bool:
        """Wait until all that these other readers took in is recorded, their streams' ends too; False if it was not."""
        deadline = time.monotonic() + timeout_s
        while not all(self._has(client) for client in clients):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(TICK_S)
        return True

    def _has(self, client: FeedClient) -> bool:
        kept = self._kept.get(feed.topic(feed.KIND_D, client.engine, client.channel))
        if kept is None or not client.epoch:
            return True
        ended = client.state is State.ENDED
        return kept.client.position >= client.position and (not ended or kept.client.state is State.ENDED)

    async def stop(self) -> None:
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)
        self._tap.stop()
        await self._recovery.stop()
        self._writer.flush()

    def _heard(self, engine: int, frame: bytes, now_ns: int) -> None:
        kept = self._kept.get(frame[: feed.TOPIC_SIZE])
        if kept is not None:
            self._act(kept, kept.frame(frame, now_ns))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for kept in self._kept.values():
                due_ns = kept.client.deadline_ns
                if due_ns is not None and due_ns <= time.time_ns():
                    self._act(kept, kept.client.tick(time.time_ns()))

    def _answered(self, client: FeedClient, actions: list[Action]) -> None:
        self._act(cast(_Kept, client), actions)

    def _act(self, kept: _Kept, actions: list[Action]) -> None:
        asking: Any = kept
        for action in actions:
            if isinstance(action, AskRange | AskSnapshot):
                self._recovery.ask(asking, action)
            elif isinstance(action, Withdrawn):
                self._recovery.withdraw(asking)
            elif isinstance(action, StateChanged) and action.after is State.LIVE:
                self._live(kept.client)

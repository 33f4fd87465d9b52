"""Feeds on sockets, read into FeedClients: one SUB socket an engine, drained in a loop, with timers as they ask for.

Everything a client decides is carried out here: asks go to Recovery, alarms to the log, all else to `listen`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

import zmq

from bus.feed_client import (
    Action,
    Alarm,
    Applied,
    AskRange,
    AskSnapshot,
    FeedClient,
    GapOpened,
    Limits,
    StateChanged,
    Withdrawn,
)
from bus.publisher import HIGH_WATER, heartbeats
from bus.recovery import Recovery, Sources
from bus.sequencer import FrameRing
from proto import feed

DRAIN_MAX: Final = 256  # frames at a time, then others have their turn
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 1_000
TICK_NS_MAX: Final = 250_000_000  # the longest sleep: the socket's descriptor tells of changes only

logger = logging.getLogger(__name__)

Listener = Callable[[FeedClient, Action], None]


class _Line:
    """The socket to one engine, and the streams that come over it."""

    __slots__ = ("clients", "endpoint", "engine", "socket", "timer", "timer_ns")

    def __init__(self, engine: int) -> None:
        self.engine = engine
        self.endpoint = ""
        self.socket: zmq.Socket[bytes] | None = None
        self.clients: dict[bytes, FeedClient] = {}  # by topic
        self.timer: asyncio.TimerHandle | None = None
        self.timer_ns = 0


class Subscriber:
    """The streams one process reads, on the running event loop.

        subscriber = Subscriber(sources, random.Random(seed), ring_frames=16_384)
        subscriber.follow(1, "tcp://127.0.0.1:5555", channels=1)   # again, when the engine has moved
        subscriber.clients[1, 1].mirror.books
        await subscriber.stop()

    With `ring_frames`, frames are kept for others to ask for. `listen` is called with each client's actions, in order,
    on the loop; it must not block.
    """

    def __init__(
        self,
        sources: Sources,
        rng: random.Random,
        *,
        ring_frames: int = 0,
        listen: Listener | None = None,
        limits: Limits | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clients: dict[tuple[int, int], FeedClient] = {}  # by engine and channel
        self.recovery = Recovery(sources, self._answered, clock_ns)
        self._rng = rng
        self._ring_frames = ring_frames
        self._listen = listen
        self._limits = Limits() if limits is None else limits
        self._clock_ns = clock_ns
        self._lines: dict[int, _Line] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._loop = asyncio.get_running_loop()

    def follow(self, engine: int, endpoint: str, channels: int = 1) -> None:
        """Read an engine's channels, 1 to `channels`, from this endpoint from now on."""
        line = self._lines.get(engine)
        if line is None:
            line = self._lines[engine] = _Line(engine)
        if line.endpoint != endpoint:
            self._disconnect(line)
            line.endpoint = endpoint
            try:
                self._connect(line)
            except zmq.ZMQError as e:
                logger.error("engine %d cannot be read from %s: %s", engine, endpoint, e)
                self._disconnect(line)
        for channel in range(1, channels + 1):
            if (engine, channel) not in self.clients:
                self._add(line, channel)

    def leave(self, engine: int) -> None:
        """Forget this engine."""
        line = self._lines.pop(engine, None)
        if line is None:
            return
        self._drain(line)
        self._disconnect(line)
        if line.timer is not None:
            line.timer.cancel()
        for client in line.clients.values():
            self._act(client, client.stop(self._clock_ns()))
            del self.clients[client.engine, client.channel]

    async def stop(self) -> None:
        for engine in list(self._lines):
            self.leave(engine)
        await self.recovery.stop()
        self._context.term()

    # Sockets

    def _connect(self, line: _Line) -> None:
        socket = line.socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        socket.setsockopt(zmq.SNDHWM, 0)  # of subscriptions, which must not be lost
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, feed.FRAME_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        heartbeats(socket)
        socket.connect(line.endpoint)
        for topic in line.clients:
            socket.subscribe(topic)
        self._loop.add_reader(socket.fileno(), self._drain, line)

    def _disconnect(self, line: _Line) -> None:
        if line.socket is not None:
            self._loop.remove_reader(line.socket.fileno())
            line.socket.close()
            line.socket = None
        line.endpoint = ""

    def _add(self, line: _Line, channel: int) -> None:
        ring = FrameRing(self._ring_frames) if self._ring_frames else None
        rng = random.Random(self._rng.getrandbits(64))
        client = self.clients[line.engine, channel] = FeedClient(line.engine, channel, rng, ring, self._limits)
        topic = feed.topic(feed.KIND_D, line.engine, channel)
        line.clients[topic] = client
        if line.socket is not None:
            line.socket.subscribe(topic)
        self._act(client, client.start(self._clock_ns()))
        self._drain(line)  # a call on the socket can swallow what the descriptor would tell

    def _drain(self, line: _Line) -> None:
        """Read what is there, some of it at least, then see to the timers."""
        socket = line.socket
        if socket is None:
            return
        clients = line.clients
        now_ns = self._clock_ns()
        try:
            for _ in range(DRAIN_MAX):
                frame = socket.recv(zmq.NOBLOCK)
                client = clients.get(frame[: feed.TOPIC_SIZE])
                if client is not None:
                    actions = client.frame(frame, now_ns)
                    if actions:
                        self._act(client, actions)
            self._loop.call_soon(self._drain, line)
        except zmq.Again:
            pass
        self._set_timer(line)

    # Actions and time

    def _act(self, client: FeedClient, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Applied):
                pass
            elif isinstance(action, AskRange | AskSnapshot):
                self.recovery.ask(client, action)
            elif isinstance(action, Withdrawn):
                self.recovery.withdraw(client)
            elif isinstance(action, Alarm):
                logger.warning("stream %d.%d: %s", client.engine, client.channel, action.text)
            elif isinstance(action, StateChanged):
                logger.info(
                    "stream %d.%d: %s to %s: %s",
                    client.engine, client.channel, action.before.value, action.after.value, action.reason,
                )  # fmt: skip
            elif isinstance(action, GapOpened):
                logger.info("stream %d.%d: %r", client.engine, client.channel, action.gap)
            if self._listen is not None:
                self._listen(client, action)

    def _answered(self, client: FeedClient, actions: list[Action]) -> None:
        self._act(client, actions)
        line = self._lines.get(client.engine)
        if line is not None:
            self._set_timer(line)

    def _set_timer(self, line: _Line) -> None:
        """See that the first of the line's deadlines is kept. A timer that comes too early does no harm."""
        now_ns = self._clock_ns()
        due_ns = now_ns + TICK_NS_MAX
        for client in line.clients.values():
            deadline_ns = client.deadline_ns
            if deadline_ns is not None and deadline_ns < due_ns:
                due_ns = deadline_ns
        if line.timer is not None:
            if line.timer_ns <= due_ns:
                return
            line.timer.cancel()
        line.timer_ns = due_ns
        line.timer = self._loop.call_later(max(due_ns - now_ns, 0) / 1e9, self._tick, line)

    def _tick(self, line: _Line) -> None:
        line.timer = None
        self._drain(line)  # before silence is believed
        for client in list(line.clients.values()):
            actions = client.tick(self._clock_ns())
            if actions:
                self._act(client, actions)
        self._set_timer(line)

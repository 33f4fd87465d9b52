"""Feeds on sockets, read into FeedClients: a SUB socket for each endpoint, drained in a loop, with timers as asked for.

Everything a client decides is carried out here: asks go to Recovery, alarms to the log, all else to `listen`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import zmq

from bus.access.asking import Recovery, Sources, Tap
from bus.access.sockets import HIGH_WATER, connect
from bus.stream.actions import (
    Action,
    Alarm,
    Applied,
    AskRange,
    AskSnapshot,
    ClientLimits,
    GapOpened,
    Lagged,
    State,
    StateChanged,
    Withdrawn,
)
from bus.stream.conflation import Quoted, QuoteReader
from bus.stream.feed_client import FeedClient
from bus.stream.lines import Lines
from bus.stream.sequencer import FrameRing
from proto import feed

DRAIN_MAX: Final = 256  # frames at a time, then others have their turn
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 1_000
TICK_NS_MAX: Final = 250_000_000  # the longest sleep: the socket's descriptor tells of changes only

logger = logging.getLogger(__name__)

OnAction = Callable[[FeedClient, Action], None]
OnQuote = Callable[[QuoteReader, Quoted | StateChanged], None]


class _Line:
    """The sockets to one engine, one for each endpoint it is heard from, and the streams that come over them."""

    __slots__ = ("clients", "conflated", "endpoints", "engine", "quotes", "renewing", "sockets", "timer", "timer_ns")

    def __init__(self, engine: int) -> None:
        self.engine = engine
        self.endpoints: tuple[str, ...] = ()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.clients: dict[bytes, FeedClient] = {}  # by topic
        self.quotes: dict[bytes, QuoteReader] = {}  # by topic
        self.conflated: dict[bytes, tuple[int, ...]] = {}  # by topic of quotes: the instruments read, empty: all
        self.renewing = False
        self.timer: asyncio.TimerHandle | None = None
        self.timer_ns = 0

    def topics(self) -> list[bytes]:
        """What to subscribe to."""
        found = [topic for topic, client in self.clients.items() if not _gone_over(client)]
        for topic, instruments in self.conflated.items():
            if instruments:
                found += [topic + b"%010d" % instrument for instrument in (0, *instruments)]
            else:
                found.append(topic)
        return found


def _gone_over(client: FeedClient) -> bool:
    """Whether it has left the stream to whoever can follow it, and reads the quotes."""
    return client.limits.conflate and client.state is State.LAGGED


def jitter_of(seed: int, engine: int, channel: int) -> random.Random:
    """The chance in one stream's asking, whatever other streams there are: a recording is played with the same."""
    return random.Random(f"{seed} {engine}.{channel}")


class Subscriber:
    """The streams one process reads, on the running event loop.

        subscriber = Subscriber(sources, random.Random(seed), ring_frames=16_384)
        subscriber.follow(1, "tcp://127.0.0.1:5555", channels=1)   # again, when the engine has moved
        subscriber.clients[1, 1].mirror.books
        subscriber.follow_quotes(1, 1)                             # conflated, beside or instead
        subscriber.quotes[1, 1].quotes
        await subscriber.stop()

    An engine may be heard from several endpoints, of which the first to bring a frame wins. With `ring_frames`, frames
    are kept for others to ask for. `listen` is called with each client's actions, in order, on the loop, `heard` with
    each client after all it was told; `quoted` with what a QuoteReader tells. They must not block. Each of `taps`
    is told of all that the clients take in.

    A reader that lags gets a new connection, which drops what waits in the old one, for all streams of that engine.
    With `limits.conflate` it has only quotes from then on, until come_back().
    """

    def __init__(
        self,
        sources: Sources,
        rng: random.Random,
        *,
        ring_frames: int = 0,
        listen: OnAction | None = None,
        heard: Callable[[FeedClient], None] | None = None,
        quoted: OnQuote | None = None,
        limits: ClientLimits | None = None,
        taps: Sequence[Tap] = (),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clients: dict[tuple[int, int], FeedClient] = {}  # by engine and channel
        self.quotes: dict[tuple[int, int], QuoteReader] = {}
        self.recovery = Recovery(sources, self._answered, clock_ns, taps)
        self._taps = tuple(taps)
        self._seed = rng.getrandbits(64)
        self._ring_frames = ring_frames
        self._listen = listen
        self._heard = heard
        self._quoted = quoted
        self._limits = ClientLimits() if limits is None else limits
        self._clock_ns = clock_ns
        self._lines: dict[int, _Line] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._loop = asyncio.get_running_loop()

    def follow(self, engine: int, endpoint: str | Sequence[str], channels: int = 1) -> None:
        """Read an engine's channels, 1 to `channels`, from this endpoint, or these, from now on."""
        line = self._line(engine)
        for channel in range(1, channels + 1):
            if (engine, channel) not in self.clients:
                self._add(line, channel)
        self._connect_to(line, (endpoint,) if isinstance(endpoint, str) else tuple(dict.fromkeys(endpoint)))

    def follow_quotes(self, engine: int, channel: int, instruments: Sequence[int] = ()) -> None:
        """Read the conflated quotes of these instruments, or of all, over the lines to this engine."""
        line = self._line(engine)
        topic = feed.topic(feed.KIND_Q, engine, channel)
        if topic not in line.quotes:
            reader = QuoteReader(engine, channel, lag_ns=self._limits.lag_ns)
            line.quotes[topic] = self.quotes[engine, channel] = reader
            self._tell(reader, reader.start(self._clock_ns()))
        line.conflated[topic] = tuple(instruments)
        for socket in line.sockets:
            for name in line.topics():
                if name.startswith(topic):
                    socket.subscribe(name)
        self._drain_all(line)

    def come_back(self, engine: int, channel: int) -> None:
        """From the quotes to the stream itself, if that reader has gone over."""
        client = self.clients[engine, channel]
        if _gone_over(client):
            line = self._lines[engine]
            topic = feed.topic(feed.KIND_Q, engine, channel)
            line.conflated.pop(topic, None)
            reader = line.quotes.pop(topic, None)
            if reader is not None:
                del self.quotes[engine, channel]
                self._tell(reader, reader.stop())
            self._act(client, client.rejoin(self._clock_ns()))
            self._renew_soon(line)

    def leave(self, engine: int) -> None:
        """Forget this engine."""
        line = self._lines.pop(engine, None)
        if line is None:
            return
        self._drain_all(line)
        self._disconnect(line)
        if line.timer is not None:
            line.timer.cancel()
        for client in line.clients.values():
            self._act(client, client.stop(self._clock_ns()))
            del self.clients[client.engine, client.channel]
        for reader in line.quotes.values():
            self._tell(reader, reader.stop())
            del self.quotes[reader.engine, reader.channel]

    async def stop(self) -> None:
        """Close the sockets at once, before anything is awaited; then the calls."""
        for engine in list(self._lines):
            self.leave(engine)
        self._context.term()
        await self.recovery.stop()

    # Sockets

    def _line(self, engine: int) -> _Line:
        return self._lines.setdefault(engine, _Line(engine))

    def _connect_to(self, line: _Line, endpoints: tuple[str, ...]) -> None:
        if endpoints == line.endpoints:
            return
        self._disconnect(line)
        line.endpoints = endpoints
        several = len(endpoints) > 1
        for client in line.clients.values():
            client.lines = Lines(len(endpoints)) if several else None
        for endpoint in endpoints:
            try:
                self._connect(line, endpoint)
            except zmq.ZMQError as e:
                logger.error("engine %d cannot be read from %s: %s", line.engine, endpoint, e)
                self._disconnect(line)
                line.endpoints = ()
                return
        for number, socket in enumerate(line.sockets):
            self._loop.add_reader(socket.fileno(), self._drain, line, number)
        self._drain_all(line)  # a call on the socket can swallow what the descriptor would tell

    def _connect(self, line: _Line, endpoint: str) -> None:
        socket = self._context.socket(zmq.SUB)
        line.sockets.append(socket)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        socket.setsockopt(zmq.SNDHWM, 0)  # of subscriptions, which must not be lost
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, feed.FRAME_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        connect(socket, endpoint)
        for topic in line.topics():
            socket.subscribe(topic)

    def _disconnect(self, line: _Line) -> None:
        for socket in line.sockets:
            self._loop.remove_reader(socket.fileno())
            socket.close()
        line.sockets = []

    def _renew_soon(self, line: _Line) -> None:
        if not line.renewing:
            line.renewing = True
            self._loop.call_soon(self._renew, line)

    def _renew(self, line: _Line) -> None:
        """Drop whatever waits in the line, by a new one."""
        line.renewing = False
        if self._lines.get(line.engine) is not line:
            return
        for client in line.clients.values():
            if _gone_over(client) and (client.engine, client.channel) not in self.quotes:
                self.follow_quotes(client.engine, client.channel)
        endpoints, line.endpoints = line.endpoints, ()
        self._connect_to(line, endpoints)
        for client in list(line.clients.values()):
            if not _gone_over(client):
                self._act(client, client.rejoin(self._clock_ns()))

    def _add(self, line: _Line, channel: int) -> None:
        ring = FrameRing(self._ring_frames) if self._ring_frames else None
        rng = jitter_of(self._seed, line.engine, channel)
        client = self.clients[line.engine, channel] = FeedClient(line.engine, channel, rng, ring, self._limits)
        if len(line.endpoints) > 1:
            client.lines = Lines(len(line.endpoints))
        topic = feed.topic(feed.KIND_D, line.engine, channel)
        line.clients[topic] = client
        for socket in line.sockets:
            socket.subscribe(topic)
        self._act(client, client.start(self._clock_ns()))
        self._drain_all(line)

    def _drain_all(self, line: _Line) -> None:
        for number in range(len(line.sockets)):
            self._drain(line, number)

    def _drain(self, line: _Line, number: int) -> None:
        """Read what is there, some of it at least, then see to the timers."""
        if number >= len(line.sockets):
            return
        socket = line.sockets[number]
        clients = line.clients
        now_ns = self._clock_ns()
        try:
            for _ in range(DRAIN_MAX):
                frame = socket.recv(zmq.NOBLOCK)
                client = clients.get(frame[: feed.TOPIC_SIZE])
                if client is not None:
                    for tap in self._taps:
                        tap(client, frame, now_ns)
                    actions = client.frame(frame, now_ns, number)
                    if actions or self._heard is not None:
                        self._act(client, actions)
                elif frame[:1] == b"Q":
                    reader = line.quotes.get(frame[: feed.TOPIC_SIZE])
                    if reader is not None:
                        self._tell(reader, reader.frame(frame, now_ns))
            self._loop.call_soon(self._drain, line, number)
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
            elif isinstance(action, Lagged):
                line = self._lines.get(client.engine)
                if line is not None:
                    self._renew_soon(line)
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
        if self._heard is not None:
            self._heard(client)

    def _tell(self, reader: QuoteReader, told: Sequence[Quoted | StateChanged]) -> None:
        if self._quoted is not None:
            for one in told:
                self._quoted(reader, one)

    def _answered(self, client: FeedClient, actions: list[Action]) -> None:
        self._act(client, actions)
        line = self._lines.get(client.engine)
        if line is not None:
            self._set_timer(line)

    def _set_timer(self, line: _Line) -> None:
        """See that the first of the line's deadlines is kept. A timer that comes too early does no harm."""
        now_ns = self._clock_ns()
        due_ns = now_ns + TICK_NS_MAX
        deadlines = [client.deadline_ns for client in line.clients.values()]
        if line.quotes:
            deadlines += [reader.deadline_ns for reader in line.quotes.values()]
        for deadline_ns in deadlines:
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
        self._drain_all(line)  # before silence is believed
        for client in list(line.clients.values()):
            actions = client.tick(self._clock_ns())
            if actions:
                self._act(client, actions)
        for reader in list(line.quotes.values()):
            self._tell(reader, reader.tick(self._clock_ns()))
        self._set_timer(line)

"""An engine's feed on a socket: sequenced frames out, a heartbeat when there is nothing to say, never a wait.

One XPUB socket carries all channels of an engine. A reader that is too slow loses frames at its own high-water mark
and sees the gap; nobody else notices. Reading subscriptions is what the X is for: a new reader gets a heartbeat at
once, so it need not wait for one to know where the stream stands.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import zmq

from bus.access.sockets import HIGH_WATER, bind
from bus.stream.conflation import Quotes
from bus.stream.sequencer import AGE_NS_MAX, RangeResult, Sequencer
from proto.columns import DELTA_WIDTH
from proto.feed import Digest, Quote

MS: Final = 1_000_000
IDLE_NS: Final = 250 * MS  # a heartbeat after so long without a frame
BUSY_NS: Final = 1_000 * MS  # and after so long without a heartbeat
TICK_S: Final = 0.05
WELCOME_NS: Final = 20 * MS  # between heartbeats for new readers
DIGESTS: Final = 8  # a heartbeat; FEED.md says how soon a book has come round
LINGER_MS: Final = 2_000  # for the end of the stream to arrive
SUBSCRIPTION_MAX: Final = 1_024  # bytes

logger = logging.getLogger(__name__)


class _Channel:
    """A sequencer, and when it was last heard."""

    __slots__ = ("beat_ns", "instruments", "quotes", "sent_ns", "sequencer", "turn")

    def __init__(self, sequencer: Sequencer, quotes: Quotes, instruments: Sequence[int]) -> None:
        self.sequencer = sequencer
        self.quotes = quotes
        self.instruments = list(instruments)
        self.turn = 0  # of digests
        self.sent_ns = 0
        self.beat_ns = 0

    def next_digests(self) -> list[int]:
        count = min(DIGESTS, 2 * len(self.instruments))
        chosen = [self.instruments[(self.turn + i) % len(self.instruments)] for i in range(count)]
        self.turn += count
        return chosen


class Publisher:
    """The streams of one engine, in one epoch. All of it belongs to one thread.

        publisher = Publisher(1, {1: [1, 2, 3]}, incarnation, epoch, fresh=False, digest=book_digest)
        publisher.start()                      # heartbeats, on the running event loop
        publisher.publish(1, time_ns, rows, extras, idle=True)
        await publisher.stop()                 # the end of each stream, and up to two seconds for it to arrive

    `digest(instrument)` must give the digest of the book as of all that was published, with the sequence that
    `instrument_seq` gives; `quote(instrument)`, how its best prices stand then (None: no conflated stream). Without an
    event loop: call tick() every 50 ms or more often, and end(), then close().
    """

    def __init__(
        self,
        engine: int,
        channels: Mapping[int, Sequence[int]],
        incarnation: int,
        epoch: int,
        *,
        fresh: bool,
        digest: Callable[[int], Digest] | None = None,
        quote: Callable[[int], Quote] | None = None,
        endpoint: str = "tcp://127.0.0.1:0",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Bind. Raises: zmq.ZMQError if the endpoint cannot be had."""
        self.engine = engine
        self.incarnation = incarnation
        self.epoch = epoch
        self.frames = 0
        self.bytes = 0
        self.unsent = 0
        self._digest = digest
        self._quote = quote
        self._clock_ns = clock_ns
        self._channels = {
            channel: _Channel(
                Sequencer(engine, channel, incarnation, epoch, fresh),
                Quotes(engine, channel, incarnation, epoch, instruments),
                instruments,
            )
            for channel, instruments in channels.items()
        }
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each reader, not of each topic
        self._socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_MAX)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        try:
            self.endpoint = bind(self._socket, endpoint)
        except zmq.ZMQError:
            self.close()
            raise
        self._owed = False  # a heartbeat to new readers
        self._welcomed_ns = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.TimerHandle | None = None

    @property
    def channels(self) -> list[int]:
        return list(self._channels)

    def learn(self, channel: int, instrument: int) -> None:
        """An instrument joined the channel: digests and quotes go round it, too."""
        target = self._channels[channel]
        target.instruments.append(instrument)
        target.quotes.learn(instrument)

    def next_seq(self, channel: int) -> int:
        """What the next delta of the channel will be numbered."""
        return self._channels[channel].sequencer.next_seq

    def instrument_seq(self, channel: int, instrument: int) -> int:
        """The sequence of the instrument's last delta; 0 before its first."""
        return self._channels[channel].sequencer.instrument_seq(instrument)

    def find(self, channel: int, epoch: int, first_seq: int, last_seq: int) -> RangeResult | None:
        """Frames as they were published, or why not; None: no such channel."""
        found = self._channels.get(channel)
        return None if found is None else found.sequencer.ring.find(epoch, first_seq, last_seq)

    def publish(
        self,
        channel: int,
        time_ns: int,
        rows: Sequence[int],
        extras: Sequence[Sequence[object]] = (),
        idle: bool = True,
    ) -> None:
        """Number the deltas of whole events, and send the frames that are full.

        With `idle` (nothing else waits to be published) the rest goes, too; otherwise within a millisecond. `rows`
        is flat, as Sequencer.append takes it. Never blocks.
        """
        target = self._channels[channel]
        target.sequencer.append(time_ns, rows, extras)
        if target.quotes.wanted:
            target.quotes.touch(rows[1::DELTA_WIDTH])
        now_ns = self._clock_ns()
        self._send(target, target.sequencer.take(now_ns, idle), now_ns)
        if self._flush is None and self._loop is not None and target.sequencer.pending:
            self._flush = self._loop.call_later(AGE_NS_MAX / 1e9, self._flush_all)

    def heartbeat(self, channel: int, now_ns: int) -> None:
        """What pends, then the next sequence and the digests whose turn it is."""
        target = self._channels[channel]
        self._send(target, target.sequencer.take(now_ns, True), now_ns)
        digests = [] if self._digest is None else [self._digest(name) for name in target.next_digests()]
        target.beat_ns = now_ns
        self._send(target, target.sequencer.heartbeat(now_ns, digests), now_ns)

    def tick(self, now_ns: int) -> None:
        """Send what has waited long enough, and the heartbeats that are due."""
        self._welcome()
        for channel, target in self._channels.items():
            if target.sequencer.ended:
                continue
            self._send(target, target.sequencer.take(now_ns, False), now_ns)
            if now_ns - target.sent_ns >= IDLE_NS or now_ns - target.beat_ns >= BUSY_NS:
                self.heartbeat(channel, now_ns)
            if self._quote is not None:
                self._hand_out(target.quotes.take(now_ns, target.sequencer.next_seq, self._quote))

    def end(self) -> None:
        """The end of every stream; nothing may be published after it."""
        now_ns = self._clock_ns()
        for target in self._channels.values():
            if not target.sequencer.ended:
                if self._quote is not None:
                    self._hand_out(target.quotes.end(now_ns, target.sequencer.next_seq, self._quote))
                self._send(target, target.sequencer.end(now_ns), now_ns)

    def close(self) -> None:
        """Blocks until what was sent has left, or two seconds."""
        self._socket.close()
        self._context.term()

    # On an event loop

    def start(self) -> None:
        """Keep time on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._welcome)
        self._keep_time()

    async def stop(self) -> None:
        """End the streams, and wait for the end to arrive, for two seconds at most."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
        for timer in (self._timer, self._flush):
            if timer is not None:
                timer.cancel()
        self.end()
        self._socket.close()
        await asyncio.to_thread(self._context.term)

    def _keep_time(self) -> None:
        assert self._loop is not None
        self.tick(self._clock_ns())  # reads subscriptions, too: a send can swallow what the descriptor would tell
        self._timer = self._loop.call_later(TICK_S, self._keep_time)

    def _flush_all(self) -> None:
        self._flush = None
        now_ns = self._clock_ns()
        for target in self._channels.values():
            self._send(target, target.sequencer.take(now_ns, True), now_ns)

    def _welcome(self) -> None:
        """Tell new readers where the streams stand."""
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            said = self._socket.recv(zmq.NOBLOCK)
            if said[:1] != b"\x01":
                continue
            self._owed |= said[1:2] in (b"", b"D")
            if said[1:2] in (b"", b"Q"):
                for target in self._channels.values():
                    target.quotes.subscribed(said[1:])
        now_ns = self._clock_ns()
        if self._owed and now_ns - self._welcomed_ns >= WELCOME_NS:
            self._owed = False
            self._welcomed_ns = now_ns
            for channel, target in self._channels.items():
                if not target.sequencer.ended:
                    self.heartbeat(channel, now_ns)

    def _send(self, target: _Channel, frames: list[bytes], now_ns: int) -> None:
        if not frames:
            return
        target.sent_ns = now_ns
        self._hand_out(frames)

    def _hand_out(self, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                self._socket.send(frame, zmq.NOBLOCK)
            except zmq.Again:
                self.unsent += 1  # in the ring, for whoever asks
            self.bytes += len(frame)
        self.frames += len(frames)

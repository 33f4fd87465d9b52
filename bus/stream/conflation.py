"""The conflated stream (FEED.md, "Quotes"), both ends without sockets: the best bid and offer for whoever is slow.

A publisher remembers which books changed, and says of each how it stands, whole, not more often than every 50 ms. There
is nothing to repair: the next quote says it all, and the present ones come round again in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bus.stream.actions import State, StateChanged
from bus.stream.delay import Delay
from proto import feed
from proto.feed import END_OF_STREAM, KIND_Q, FeedError, Quote

MS: Final = 1_000_000
PERIOD_NS: Final = 50 * MS  # between two quotes of one instrument, at least
BEAT_NS: Final = 250 * MS
AGAIN: Final = 8  # quotes sent again with a heartbeat, in turn
TAKEN_MAX: Final = 256  # at a time: some 3 ms of work
SILENCE_NS: Final = 750 * MS
LAG_NS: Final = 3_000 * MS  # behind the line at its best: quotes that come so late are not of the present


class Quotes:
    """What one channel's slow readers are told. Costs next to nothing until somebody asks.

    `quote(instrument)`, where it is wanted, is how a book stands after all that was published.
    """

    __slots__ = (
        "_asked",
        "_beat_ns",
        "_channel",
        "_dirty",
        "_engine",
        "_epoch",
        "_incarnation",
        "_instruments",
        "_sent",
        "_sent_ns",
        "_turn",
        "wanted",
    )

    def __init__(self, engine: int, channel: int, incarnation: int, epoch: int, instruments: Sequence[int]) -> None:
        self._engine = engine
        self._channel = channel
        self._incarnation = incarnation
        self._epoch = epoch
        self._instruments = list(instruments)
        self._dirty: dict[int, None] = {}  # changed since their last quote, first come first
        self._asked: dict[int, None] = {}  # to be said again though nothing changed
        self._sent: dict[int, tuple[int, Quote]] = {}
        self._sent_ns = 0
        self._beat_ns = 0
        self._turn = 0
        self.wanted = False  # somebody has subscribed

    def learn(self, instrument: int) -> None:
        """One more instrument."""
        self._instruments.append(instrument)
        if self.wanted:
            self._asked[instrument] = None

    def touch(self, instruments: Iterable[int]) -> None:
        """These books have changed."""
        if self.wanted:
            self._dirty.update(dict.fromkeys(instruments))

    def subscribed(self, topic: bytes) -> None:
        """Somebody new reads what begins with `topic`: it is to be told how things stand."""
        own = feed.topic(KIND_Q, self._engine, self._channel)
        if not own.startswith(topic[: feed.TOPIC_SIZE]):
            return
        self.wanted = True
        self._beat_ns = 0
        name = topic[feed.TOPIC_SIZE :]
        if len(topic) == feed.TOPIC_SIZE_Q and name.isdigit():
            if int(name) in self._instruments:
                self._asked[int(name)] = None
        else:
            self._asked.update(dict.fromkeys(self._instruments))

    def take(self, now_ns: int, next_seq: int, quote: Callable[[int], Quote]) -> list[bytes]:
        """The quotes that are due, and a heartbeat if it is. Cost: 10 µs a quote, at most TAKEN_MAX of them."""
        if not self.wanted:
            return []
        if now_ns - self._beat_ns >= BEAT_NS:
            count = min(AGAIN, len(self._instruments))
            turns = range(self._turn, self._turn + count)
            self._asked.update(dict.fromkeys([self._instruments[i % len(self._instruments)] for i in turns]))
            self._turn += count
        frames = self._quotes(now_ns, next_seq, quote, TAKEN_MAX)
        if now_ns - self._beat_ns >= BEAT_NS:
            frames.append(self._beat(now_ns, next_seq, 0))
        return frames

    def end(self, now_ns: int, next_seq: int, quote: Callable[[int], Quote]) -> list[bytes]:
        """How everything stands that has changed, however recently; then the end of the stream."""
        if not self.wanted:
            return []
        self._sent = {name: (0, last) for name, (_, last) in self._sent.items()}
        return [
            *self._quotes(now_ns, next_seq, quote, len(self._instruments)),
            self._beat(now_ns, next_seq, END_OF_STREAM),
        ]

    def _quotes(self, now_ns: int, next_seq: int, quote: Callable[[int], Quote], count: int) -> list[bytes]:
        frames: list[bytes] = []
        if next_seq == 1:
            return frames  # nothing has been published that a quote could include
        for name in list({**self._asked, **self._dirty}):
            last_ns, last = self._sent.get(name, (0, None))
            if now_ns - last_ns < PERIOD_NS:
                continue
            if len(frames) == count:
                break
            self._dirty.pop(name, None)
            asked = name in self._asked
            self._asked.pop(name, None)
            present = quote(name)
            if asked or last is None or present[3:] != last[3:]:
                self._sent[name] = (now_ns, present)
                frames.append(
                    feed.encode_quote(
                        self._engine,
                        self._channel,
                        self._incarnation,
                        self._epoch,
                        next_seq - 1,
                        self._now(now_ns),
                        present,
                    )
                )
        return frames

    def _beat(self, now_ns: int, next_seq: int, flags: int) -> bytes:
        self._beat_ns = now_ns
        return feed.encode_quote_heartbeat(
            self._engine, self._channel, flags, self._incarnation, self._epoch, next_seq, self._now(now_ns)
        )

    def _now(self, now_ns: int) -> int:
        self._sent_ns = max(now_ns, self._sent_ns + 1)
        return self._sent_ns


@dataclass(frozen=True, slots=True)
class Quoted:
    """How a book stood after delta `sequence` of stream D."""

    epoch: int
    sequence: int
    quote: Quote


class QuoteReader:
    """A reader's side of one channel's quotes. Inputs are methods; each returns what there is to tell.

    state     input                              next
    DOWN      start                              JOINING
    JOINING   quote or heartbeat                 LIVE
    LIVE      silence for three heartbeats       STALE, and the quotes with it
    LIVE      one that comes `lag_ns` late       STALE; noted, but not told
    STALE     quote or heartbeat in time         LIVE
    any       end of stream                      ENDED
    ENDED     newer quote or heartbeat           LIVE
    any       higher epoch                       LIVE, all quotes forgotten
    any       lower epoch, older frame           same, dropped and counted
    LIVE      another incarnation                same, dropped and counted: one is believed in all other states

    How late one comes is its time from sender to reader less the least such time of the last minutes, as for deltas.

    quotes       by instrument
    deadline_ns  when tick() is wanted next
    Raises: nothing a peer can cause.
    """

    def __init__(self, engine: int, channel: int, silence_ns: int = SILENCE_NS, lag_ns: int = LAG_NS) -> None:
        self.engine = engine
        self.channel = channel
        self.state = State.DOWN
        self.quotes: dict[int, Quoted] = {}
        self.incarnation = 0
        self.epoch = 0
        self.heard_ns = 0
        self.bad_frames = 0
        self.old_frames = 0  # of an earlier epoch, or come too late
        self.foreign = 0
        self._silence_ns = silence_ns
        self._delay = Delay(lag_ns)
        self._sent_ns: dict[int, int] = {}  # by instrument; 0: heartbeats

    @property
    def deadline_ns(self) -> int | None:
        return self.heard_ns + self._silence_ns if self.state is State.LIVE else None

    def age_ns(self, now_ns: int) -> int:
        """Since the publisher was heard to stand where the quotes say, as far as one can know."""
        return max(0, now_ns - self.heard_ns) + self.late_ns

    @property
    def late_ns(self) -> int:
        """How much later than at its best the newest came."""
        return self._delay.late_ns

    def start(self, now_ns: int) -> list[StateChanged]:
        self.heard_ns = now_ns
        return self._go(State.JOINING, "started") if self.state is State.DOWN else []

    def stop(self) -> list[StateChanged]:
        self.quotes.clear()
        self._sent_ns.clear()
        self.incarnation = self.epoch = 0
        return self._go(State.DOWN, "stopped")

    def tick(self, now_ns: int) -> list[StateChanged]:
        """Time has passed."""
        due_ns = self.deadline_ns
        return self._go(State.STALE, "silence") if due_ns is not None and now_ns >= due_ns else []

    def frame(self, data: bytes, now_ns: int) -> list[Quoted | StateChanged]:
        """A frame of kind Q as it came off the wire."""
        if self.state is State.DOWN:
            return []
        try:
            frame = feed.decode(data)
        except FeedError:
            self.bad_frames += 1
            return []
        header = frame.header
        if (header.kind, header.engine, header.channel) != (KIND_Q, self.engine, self.channel):
            self.bad_frames += 1
            return []
        if self.epoch and header.incarnation != self.incarnation and self.state is State.LIVE:
            self.foreign += 1
            return []
        if header.incarnation != self.incarnation or header.epoch > self.epoch:
            self.incarnation, self.epoch = header.incarnation, header.epoch
            self.quotes.clear()
            self._sent_ns.clear()
            self._delay.forget()
        quote = frame.quote
        name = 0 if quote is None else quote.instrument
        if header.epoch < self.epoch or header.sent_ns <= self._sent_ns.get(name, -1):
            self.old_frames += 1
            return []
        self._sent_ns[name] = header.sent_ns
        self.heard_ns = now_ns
        self._delay.pass_time(now_ns)
        self._delay.now_ns = now_ns - header.sent_ns
        late = self._delay.is_too_late(self._delay.now_ns)
        told: list[Quoted | StateChanged] = []
        if header.flags & END_OF_STREAM:
            told += self._go(State.ENDED, "end of stream")
        elif late:
            told += self._go(State.STALE, f"{self.late_ns // MS} ms behind")
        else:
            told += self._go(State.LIVE, "heard")
        if quote is not None:
            self.quotes[name] = Quoted(header.epoch, header.first_seq, quote)
            if not late:
                told.append(self.quotes[name])
        return told

    def _go(self, state: State, reason: str) -> list[StateChanged]:
        if state is self.state:
            return []
        before, self.state = self.state, state
        return [StateChanged(before, state, reason)]

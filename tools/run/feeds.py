"""What the judge of a run hears for itself: the engines' own feeds, every delta audited, every trade added up.

These are the engines' own publishers, not the lines with faults. What passes unheard all the same (around the restart
of an engine) is counted: trades on a feed that nobody reported must not hide behind a loss.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from bus.access.subscriber import Subscriber
from bus.stream.actions import Action, Applied, AskRange, AskSnapshot, ClientLimits, MissingSpan, State, StateChanged
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import Mirror, MirrorBook, MirrorError
from proto.feed import EXECUTE, OP_MASK, TRADE, Extra, Row
from proto.snapshot import Snapshot
from tools.flow.order_counts import TradeKey, TradeSum
from tools.run.audit.feed import Allocation, FeedAudit, fifo
from tools.run.day.watch import InstrumentDay

RECENT_MAX: Final = 100_000  # deltas of a stream that a snapshot may be carried over, about
NEVER_NS: Final = 1 << 62  # a judge that comes late reads on

Stream = tuple[int, int]  # engine and channel
Position = tuple[int, int]  # epoch, and sequence of the last delta


class StreamWatch:
    """One stream: its audit, the sums of its trades, its instruments' days. Pure: what a reader applied comes in."""

    def __init__(self, allocation: Allocation = fifo) -> None:
        self.audit = FeedAudit(allocation, self._before)
        self.trades: dict[int, TradeSum] = {}
        self.days: dict[int, InstrumentDay] = {}
        self.missed = 0  # deltas of the present epochs that it did not see one by one
        self.position: Position = (0, 0)
        self._last: dict[int, int] = {}  # trade id of each instrument
        self._recent: deque[Applied] = deque()
        self._recent_count = 0

    def applied(self, applied: Applied, present: Callable[[], Snapshot]) -> None:
        """What the reader applied next; `present` are its books now, for where something was passed over."""
        epoch, sequence = self.position
        if (applied.epoch, applied.last) <= self.position:
            return  # a snapshot had it
        if not self.audit.following or (applied.epoch, applied.first) != (epoch, sequence + 1):
            self.passed_over(present)
            return
        self.position = (epoch, applied.last)
        self._recent.append(applied)
        self._recent_count += len(applied.rows)
        while self._recent_count > RECENT_MAX:
            self._recent_count -= len(self._recent.popleft().rows)
        self.audit.take(applied.rows, applied.times, applied.extras)

    def live(self, epoch: int, present: Callable[[], Snapshot]) -> None:
        """The reader has its books of an epoch."""
        if not self.audit.following or self.position[0] != epoch:
            self.passed_over(present)

    def carried(self, snapshot: Snapshot, sequence: int) -> Snapshot | None:
        """A snapshot of this stream brought forward to that sequence; None if the deltas between are not all here.

        Raises: MirrorError when one of them does not fit it.
        """
        due = snapshot.last_seq + 1
        mirror = Mirror()
        mirror.load(snapshot)
        for applied in self._recent:
            if applied.epoch == snapshot.epoch and applied.first <= due <= applied.last and due <= sequence:
                mirror.apply(applied.rows[due - applied.first : sequence + 1 - applied.first], applied.extras)
                due = min(applied.last, sequence) + 1
        if due != sequence + 1:
            return None
        where = (snapshot.engine, snapshot.channel, snapshot.incarnation, snapshot.epoch)
        return mirror.snapshot(*where, snapshot.time_ns)

    def passed_over(self, present: Callable[[], Snapshot]) -> None:
        """Go on from the reader's books: what led to them was not seen."""
        epoch, sequence = self.position
        try:
            snapshot = present()
        except MirrorError:  # one of them is being replaced
            self.audit.lose()
            return
        if epoch:
            self.missed += snapshot.last_seq - (sequence if snapshot.epoch == epoch else 0)
            for book in snapshot.books:
                if day := self.days.get(book.instrument):
                    day.doubt()
                    day.seen_as(book.status, snapshot.time_ns)
        self.position = (snapshot.epoch, snapshot.last_seq)
        self._recent.clear()
        self._recent_count = 0
        self._last = {book.instrument: book.last_trade_id for book in snapshot.books}
        self.audit.begin(snapshot)

    def _before(self, book: MirrorBook | None, row: Row, extra: Extra | None, time_ns: int) -> None:
        op, instrument, _, price, quantity, trade_id = row
        if (
            op & OP_MASK in (EXECUTE, TRADE) and self._last.get(instrument) != trade_id
        ):  # an uncross has both sides of one
            self._last[instrument] = trade_id
            self.trades.setdefault(instrument, TradeSum()).add(TradeKey(trade_id, price, quantity))
        day = self.days.get(instrument)
        if day is not None:
            day.take(row, extra, time_ns, book)


class Feeds:
    """A watch on every channel of every engine, on the running loop. `source` is where an engine answers, host:port."""

    def __init__(self, source: Callable[[int], str], allocation: Allocation = fifo) -> None:
        self.watches: dict[Stream, StreamWatch] = {}
        self._source = source
        self._allocation = allocation
        self._subscriber = Subscriber(
            self._sources, random.Random(0), listen=self._on_action, limits=ClientLimits(lag_ns=NEVER_NS)
        )

    @property
    def trades(self) -> dict[int, TradeSum]:
        """By instrument, as the feeds told them."""
        return {instrument: total for watch in self.watches.values() for instrument, total in watch.trades.items()}

    @property
    def missed(self) -> dict[int, int]:
        """Deltas that were not heard, by engine."""
        out: dict[int, int] = {}
        for (engine, _), watch in self.watches.items():
            if watch.missed:
                out[engine] = out.get(engine, 0) + watch.missed
        return out

    def follow(self, engine: int, endpoint: str, channels: int) -> None:
        """Read this engine there, from now on."""
        for channel in range(1, channels + 1):
            self.watches.setdefault((engine, channel), StreamWatch(self._allocation))
        self._subscriber.follow(engine, endpoint, channels)

    def hears(self, engine: int, channel: int, at: Position = (0, 1)) -> bool:
        """Whether this stream is followed, and has come as far as that."""
        watch = self.watches.get((engine, channel))
        return watch is not None and watch.audit.following and watch.position >= at

    async def stop(self) -> None:
        await self._subscriber.stop()

    def _sources(self, engine: int, asked: AskRange | AskSnapshot) -> Sequence[str]:
        target = self._source(engine)
        return [target] if target else []

    def _on_action(self, client: FeedClient, action: Action) -> None:
        stream = (client.engine, client.channel)
        watch = self.watches[stream]

        def present() -> Snapshot:
            return client.mirror.snapshot(*stream, client.incarnation, client.position[0], time.time_ns())

        if isinstance(action, Applied):
            watch.applied(action, present)
        elif isinstance(action, MissingSpan):
            if watch.position < (action.epoch, action.last):
                watch.passed_over(present)
        elif isinstance(action, StateChanged) and action.after is State.LIVE:
            watch.live(client.position[0], present)

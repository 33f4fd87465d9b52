"""What happened to books long ago, as events: out of what machines keep for repairs, or an engine's log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from bus.reader.events import BookEvent, Delta, TickAndLot, Trade, trades_of
from bus.stream.actions import Applied
from proto.feed import END, OP_MASK, TOLD, U64_MAX, Frame

PULLED: Final = 256  # events at a time, across threads


class FeedUseError(RuntimeError):
    """A feed was used as it cannot be: entered twice at once, asked while it does not run, iterated the wrong way."""


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
            raise FeedUseError("this feed runs without asyncio: iterate with `for`")
        return self._begin()

    def __iter__(self) -> Iterator[BookEvent | Trade]:
        if self._wait is None:
            raise FeedUseError("this feed runs with asyncio: iterate with `async for`")
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


class Past:
    """Puts deltas together to the events of some books, as Feed.events tells them.

    books     symbol and sizes, by instrument
    next_seq  the sequence behind the last event taken
    """

    def __init__(self, books: Mapping[int, tuple[str, TickAndLot]], next_seq: int) -> None:
        self.next_seq = next_seq
        self._books = books
        self._time_ns = 0
        self._pending: dict[int, list[Delta]] = {}

    async def events_of(self, spans: AsyncGenerator[Applied, None]) -> AsyncGenerator[BookEvent | Trade, None]:
        """What these deltas hold; an event whose end is not among them is left. Raises: what iterating `spans` does."""
        self._pending = {}
        async with aclosing(spans):
            async for span in spans:
                for event in self.take(span):
                    yield event

    def take(self, span: Applied) -> Iterator[BookEvent | Trade]:
        """The events that end in these deltas, which follow those taken before; behind each, its trades."""
        times = dict(span.times)
        for at, row in enumerate(span.rows):
            self._time_ns = times.get(at, self._time_ns)
            if row[1] in self._books:
                extra = span.extras[row[2]] if row[0] & OP_MASK in TOLD else None
                delta = Delta(row, span.first + at, self._books[row[1]][1], extra)
                self._pending.setdefault(row[1], []).append(delta)
            if row[0] & END:
                self.next_seq = span.first + at + 1
                yield from self._ended(span.epoch)

    def _ended(self, epoch: int) -> Iterator[BookEvent | Trade]:
        pending, self._pending = self._pending, {}
        left = len(pending)
        for instrument, deltas in pending.items():
            left -= 1
            symbol = self._books[instrument][0]
            event = BookEvent(symbol, epoch, deltas[-1].sequence, self._time_ns, tuple(deltas), left > 0)
            yield event
            yield from trades_of(event)


def span_of(frame: Frame, first: int = 0, end: int = U64_MAX) -> Applied:
    """The deltas of a frame from sequence `first` to before `end`; there must be some."""
    header = frame.header
    low, high = max(first, header.first_seq), min(end, frame.next_seq)
    skip = low - header.first_seq
    rows = frame.rows[skip : high - header.first_seq]
    times = [(max(0, at - skip), time_ns) for at, time_ns in frame.times if at < high - header.first_seq]
    return Applied(header.epoch, low, high - 1, rows, times, frame.extras)

"""The events that wait for one who iterates, whichever thread they are taken in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from bus.reader.events import Event, MissingSpan

EVENTS_MAX: Final = 65_536  # waiting for one who iterates

Untold = tuple[int, int, int, int, int]  # engine, channel, epoch, first and last sequence


class Inbox:
    """A bounded queue. What does not fit is told as a MissingSpan once there is room again.

    symbols   whose events are wanted; empty: all
    closed    nothing more will come
    """

    def __init__(self, symbols: frozenset[str], wake: Callable[[], None]) -> None:
        self.symbols = symbols
        self.closed = False
        self.events: deque[Event] = deque()
        self._wake = wake
        self._untaken: dict[tuple[int, int], list[int]] = {}  # by stream: epoch, first and last of what did not fit

    def put(self, event: Event, span: Untold | None) -> None:
        """Have it wait; `span` is what is missing if it is left out, None: it must not be."""
        if self._untaken and len(self.events) < EVENTS_MAX // 2:
            self._confess()
        if span is not None and (self._untaken or len(self.events) >= EVENTS_MAX):
            engine, channel, epoch, first, last = span
            untaken = self._untaken.get((engine, channel))
            if untaken is None or untaken[0] != epoch:
                self._confess((engine, channel))
                self._untaken[engine, channel] = [epoch, first, last]
            else:
                untaken[2] = last
            return
        if len(self.events) >= 2 * EVENTS_MAX:
            self.events.popleft()  # states only: what is newest counts
        self.events.append(event)
        if len(self.events) == 1:
            self._wake()

    def confess(self) -> bool:
        """With nothing else left: what did not fit. Whether there was something."""
        if not self._untaken:
            return False
        self._confess()
        return True

    def close(self) -> None:
        self.closed = True
        self._wake()

    def _confess(self, stream: tuple[int, int] | None = None) -> None:
        for engine, channel in [stream] if stream is not None else list(self._untaken):
            span = self._untaken.pop((engine, channel), None)
            if span is not None:
                self.events.append(MissingSpan(engine, channel, span[0], span[1], span[2], "slow"))

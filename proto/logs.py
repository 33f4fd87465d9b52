"""What every program does with its log lines: to stderr, and a flood of one and the same is one line a minute.

Two lines are the same if their logger, level and whole text are. Lines of one kind (the same words with other numbers
in them) may be as many as `KIND_MAX` a minute. What was held back is counted, and the next line of its kind says so.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TypeAlias

WINDOW_S: Final = 60.0
KIND_MAX: Final = 20  # lines of one kind in a window
KINDS_MAX: Final = 1_024  # remembered; beyond that the oldest are forgotten, and may be told again

_Key: TypeAlias = tuple[str, int, str]


def set_up(*, verbose: bool = False) -> None:
    """Log warnings to stderr, and with `verbose` what is normal, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Flood())
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[handler],
    )


def bound() -> None:
    """Bound what a program writes that does not `set_up`: its warnings go to stderr as they are, but in no flood."""
    last = logging.lastResort
    if last is not None and not any(isinstance(one, Flood) for one in last.filters):
        last.addFilter(Flood())


class Flood(logging.Filter):
    """Lets the first of many lines through. Cost: O(length of the line); `KINDS_MAX` texts and kinds are kept."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._texts = _Windows(1)
        self._kinds = _Windows(KIND_MAX)

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock_s()
        text = record.getMessage()
        kind = (record.name, record.levelno, str(record.msg))
        if not self._texts.admits((record.name, record.levelno, text), now):
            self._kinds.hold(kind, now)
            return False
        if not self._kinds.admits(kind, now):
            return False
        held = self._kinds.held(kind)
        if held:
            record.msg, record.args = f"{text} (and {held:,} more like it were not shown)", None
        return True


class _Windows:
    """For each key, how many were let through since its window began, and how many were held back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[_Key, list[float]] = {}  # when the window began, let through, held back

    def admits(self, key: _Key, now: float) -> bool:
        window = self._window(key, now)
        if window[1] < self._most:
            window[1] += 1
            return True
        window[2] += 1
        return False

    def hold(self, key: _Key, now: float) -> None:
        self._window(key, now)[2] += 1

    def held(self, key: _Key) -> int:
        """How many were held back since this was last asked."""
        window = self._seen[key]
        held, window[2] = int(window[2]), 0
        return held

    def _window(self, key: _Key, now: float) -> list[float]:
        window = self._seen.pop(key, None)
        if window is None:
            window = [now, 0, 0]
        elif now - window[0] >= WINDOW_S:
            window[0], window[1] = now, 0
        self._seen[key] = window  # the last that was seen stands last
        if len(self._seen) > KINDS_MAX:
            del self._seen[next(iter(self._seen))]
        return window

"""How late frames come: later than at their best, since no two clocks agree.

The delay of a frame is the time now less its sent_ns; what it is at its best is the least such difference of the last
five to ten minutes, since clocks drift. Only what exceeds that says anything.
"""

from __future__ import annotations

from typing import Final

WINDOW_NS: Final = 300_000_000_000  # half of the time over which the least is taken
NEVER_NS: Final = 1 << 62


class Delay:
    """The delays of one stream's frames. `limit_ns` is how late one may come; 0: any lag will do.

    least_ns, most_ns   at its best, and as much as may be; NEVER_NS before the first
    now_ns              of the newest frame
    window_least_ns     at its best since the window began
    """

    __slots__ = ("_limit_ns", "_window_end_ns", "least_ns", "most_ns", "now_ns", "window_least_ns")

    def __init__(self, limit_ns: int) -> None:
        self.now_ns = 0
        self._limit_ns = limit_ns
        self._window_end_ns = 0
        self.forget()

    @property
    def late_ns(self) -> int:
        """How much later than at its best the newest came."""
        return max(0, self.now_ns - self.least_ns)

    def forget(self) -> None:
        """What was says nothing of what comes."""
        self.least_ns = self.most_ns = self.window_least_ns = NEVER_NS

    def pass_time(self, now_ns: int) -> None:
        """A window may end."""
        if now_ns >= self._window_end_ns:
            self._window_end_ns = now_ns + WINDOW_NS
            self._expect(self.window_least_ns)
            self.window_least_ns = NEVER_NS

    def is_too_late(self, delay_ns: int) -> bool:
        """Take note of how long a frame took; whether that is too long."""
        if delay_ns < self.window_least_ns:
            self.window_least_ns = delay_ns
        if delay_ns < self.least_ns:
            self._expect(delay_ns)
        return delay_ns > self.most_ns

    def _expect(self, least_ns: int) -> None:
        if least_ns < NEVER_NS:
            self.least_ns = least_ns
            self.most_ns = least_ns + self._limit_ns if self._limit_ns else NEVER_NS

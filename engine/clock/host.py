"""The clocks of the machine, read for `Clock`, and what is to be said of them."""

import logging
import time
from collections.abc import Callable, Sequence

from engine.clock.believed import SECOND_NS, Clock, Doubt

CONFIRM = "python -m tools.orders --at HOST:PORT clock-ok"

logger = logging.getLogger(__name__)


def counted_ns() -> int:
    """A clock that is never set, and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class HostClock:
    """Call it for the time that is to be logged. What is doubted is told once, when it begins and when it ends."""

    def __init__(
        self,
        *,
        last_ns: int = 0,
        bound_ns: int = 0,
        peers_ns: Sequence[int] = (),
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = counted_ns,
    ) -> None:
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._clock = Clock(wall_ns(), mono_ns(), last_ns=last_ns, bound_ns=bound_ns, peers_ns=peers_ns)
        self._told: Doubt | None = None
        if last_ns:
            passed = (wall_ns() - last_ns) / SECOND_NS
            level = logging.WARNING if abs(passed) >= 60 else logging.INFO
            logger.log(level, "the log's last record is %s old", in_words(passed))
        if self._clock.doubt:
            self._tell()

    @property
    def doubt(self) -> Doubt | None:
        return self._clock.doubt

    def __call__(self) -> int:
        """Nanoseconds since the Unix epoch; never less than before. Cost: 0.9 µs."""
        now_ns = self._clock.read(self._wall_ns(), self._mono_ns())
        if self._clock.doubt is not self._told:
            self._tell()
        return now_ns

    def confirm(self) -> str:
        """An operator says that the wall clock is right; what was doubted, "" if nothing was."""
        self()
        doubt, ahead_ns = self._clock.doubt, self._clock.ahead_ns
        self._clock.confirm(self._wall_ns(), self._mono_ns())
        if doubt is None:
            return ""
        self._told = None
        said = f"the clock is confirmed, {_off(ahead_ns)} the time that was logged"
        logger.warning("%s", said)
        return said

    def _tell(self) -> None:
        doubt, self._told = self._clock.doubt, self._clock.doubt
        if doubt is None:
            logger.warning("the clock is believed again")
            return
        how = "it is taken up by a second a minute, or at once" if doubt is Doubt.JUMPED else "orders expire only"
        logger.error(
            "the clock is %s the time that is logged, and is not believed: %s; %s when it is confirmed: %s",
            _off(self._clock.ahead_ns), doubt.value, how, CONFIRM,
        )  # fmt: skip


def _off(ahead_ns: int) -> str:
    return f"{in_words(abs(ahead_ns) / SECOND_NS)} {'ahead of' if ahead_ns > 0 else 'behind'}"


def in_words(seconds: float) -> str:
    """For people: "90 s", "12.5 min", "3.2 h", "40 days"."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if abs(seconds) < until:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86_400:,.1f} days"

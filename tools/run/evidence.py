"""All that a run leaves behind for its judge."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.findings import Finding
from tools.flow.order_counts import Counted, TradeSum
from tools.run.audit.breaches import Breaches


@dataclass(frozen=True, slots=True)
class EngineLife:
    """An engine's life. `epochs` are those it announced, one for each start; `down` if it was killed and stayed so."""

    id: int
    epochs: tuple[int, ...]
    down: bool = False
    killed_at_s: float | None = None
    left: bool = False  # it was told to leave, not killed
    symbols: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"engine-{self.id}"

    @property
    def restarted(self) -> bool:
        return len(self.epochs) > 1


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended when nobody had asked it to, or not as it was asked."""

    name: str
    how: str


@dataclass(frozen=True, slots=True)
class MirrorMatch:
    """One machine's copy of one stream beside its owner's, both at rest. `differences` is empty when they are equal;
    `problem` says why they could not be compared."""

    machine: str
    engine: int
    channel: int
    epoch: int = 0
    last_seq: int = 0
    instruments: int = 0
    orders: int = 0
    differences: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Marked:
    """How a machine marks a stream whose engine is down: its state, and the states of its books."""

    machine: str
    engine: int
    stream: str
    books: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a machine's reader of one stream went through: FeedClient's counters. `gone`: that reader was killed, or
    has left, with whatever it had begun."""

    machine: str
    engine: int
    counters: dict[str, int]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """A time during which a process was killed or paused, and the orders that other engines answered meanwhile.

    `again_s` is when one that was killed was started again; `to_s` when it served, or went on.
    """

    name: str
    how: str
    from_s: float
    to_s: float
    answered_elsewhere: int
    again_s: float | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A machine that joined, left or came back while the others traded: how long until all were in step, what was
    missing then, whose readers had to begin anew, and the orders that others answered from its move until then.

    `began` is what it did at `from_s` in words; `outage` says that an Outage tells of the time before.
    """

    name: str
    how: str
    took_s: float
    missing: tuple[str, ...] = ()
    disturbed: tuple[str, ...] | None = ()  # None: others may have had reasons of their own
    answered_elsewhere: int = 0
    from_s: float = 0.0
    to_s: float = 0.0
    what: str = ""
    began: str = ""
    outage: bool = False


@dataclass(frozen=True, slots=True)
class LateJoinersFound:
    """Readers who came and went in the middle: how many, over how many streams, how many they found equal elsewhere."""

    came: int
    streams: int
    verified: int
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Audited:
    """What the audit went through, and what it found amiss (tools/run/audit)."""

    breaches: Breaches = field(default_factory=Breaches)
    events: int = 0  # on the feeds
    executions: int = 0
    by_size: int = 0  # levels that were shared out by size
    orders: int = 0
    reports: int = 0
    trades: int = 0  # that were held against both reports
    resting: int = 0  # orders on the books of the feeds in the end
    received: int = 0  # reports that were received while the run went on, and found again
    unheard: tuple[str, ...] = ()  # what could not be judged, and why
    whole: bool = True  # every report of every account was there
    unasked: frozenset[int] = (
        frozenset()
    )  # engines that did not give all reports, or of which not all accounts are known


@dataclass(frozen=True, slots=True)
class Other:
    """An account that is none of the run's own: its orders, trades and lots during the run."""

    account: int
    orders: int
    trades: int
    lots: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a run leaves behind for its judge."""

    symbols: dict[int, str]  # by instrument
    homes: dict[int, int]  # engine by instrument
    engines: tuple[EngineLife, ...]
    counted: Counted
    feed: dict[int, TradeSum]  # trades by instrument, as the feed told them
    feed_missed: dict[int, int]  # deltas of each engine's feed that the judge did not see
    trade_ids: dict[int, int]  # trades by instrument, as its book numbered them during the run
    mirrors: tuple[MirrorMatch, ...]
    seen: tuple[Seen, ...]
    seconds: float
    audited: Audited = field(default_factory=Audited)
    others: tuple[Other, ...] = ()
    marked: tuple[Marked, ...] = ()
    ended: tuple[Ended, ...] = ()
    proxied: dict[str, dict[str, int]] = field(default_factory=dict)  # what the fault proxy did, line by line
    answers: dict[str, dict[str, int]] = field(default_factory=dict)  # and to calls, fabric node by fabric node
    opening: Counted = field(default_factory=Counted)  # what was counted before the seconds began
    late_joiners: LateJoinersFound | None = None
    outages: tuple[Outage, ...] = ()
    fabrics_down: tuple[tuple[str, float], ...] = ()  # killed and not restarted: name, and when
    moved: tuple[Moved, ...] = ()
    checks: tuple[Finding, ...] = ()  # of replayed flow against recorded books; of a trading day
    day: dict[str, Any] | None = None  # what that day went through, for a program


def counter(seen: Sequence[Seen], *names: str) -> int:
    """The sum of these counters over all streams."""
    return sum(each.counters.get(name, 0) for each in seen for name in names)

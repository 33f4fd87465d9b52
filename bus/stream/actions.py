"""What a reader of a stream decides, as values: where it stands, what its books are worth, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from bus.stream.ledger import Gap
from proto.feed import Extra, Row

MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Times in nanoseconds, sizes in bytes, holes in deltas."""

    silence_ns: int = 750 * MS  # three heartbeats
    jitter_ns: int = MS // 2  # before a first ask, at most
    range_ns: int = 250 * MS  # for the first try; each further one gets twice the time
    range_tries: int = 3
    instrument_tries: int = 5  # for one doubted book
    snapshot_ns: int = 2_000 * MS
    bear_ns: int = 50 * MS  # until what is said after a snapshot bears it out, where the publisher broke its word
    retry_ns: int = 50 * MS  # after a failure; doubles, up to
    retry_ns_max: int = 2_000 * MS
    hole_max: int = 65_536  # a longer hole is left to a snapshot, which is cheaper
    held_max: int = 64 << 20
    doubted_max: int = 16  # books set aside; with more, all are asked for anew
    lag_ns: int = 3_000 * MS  # behind the line at its best; 0: any lag will do
    conflate: bool = False  # when lagged: over to the conflated quotes, and no snapshot
    reorder_ns: int = 5 * MS  # before a hole is asked for, while two lines are up


class State(Enum):
    """Where the reader of a stream stands."""

    DOWN = "down"
    JOINING = "joining"  # subscribed, nothing heard yet
    SNAPSHOT = "snapshot"  # frames are held, a snapshot is asked for
    LIVE = "live"
    REPAIR = "repair"  # frames are held behind a hole
    STALE = "stale"  # nothing heard for three heartbeats
    ENDED = "ended"
    LAGGED = "lagged"  # too far behind to be worth reading


class Standing(Enum):
    """What one book is worth. Numbers as BookState in marketdata.proto."""

    UNKNOWN = 0
    VALID = 1
    DOUBTFUL = 2
    STALE = 3


# What comes out


@dataclass(frozen=True, slots=True)
class AskRange:
    """Fetch the frames that hold `first` to `last`, within `timeout_ns`; `attempt` counts from 0."""

    ask: int
    epoch: int
    first: int
    last: int
    attempt: int
    timeout_ns: int


@dataclass(frozen=True, slots=True)
class AskSnapshot:
    """Fetch the books of the stream, or one (`instrument` not 0); each `attempt` from another source.

    home: only the publisher itself may answer.
    """

    ask: int
    instrument: int
    attempt: int
    home: bool
    timeout_ns: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The answer to this ask is not wanted any more."""

    ask: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    before: State
    after: State
    reason: str


class Applied(NamedTuple):  # a frame each: three times as fast to make as a frozen dataclass
    """Whole events, now in the books: deltas `first` to `last` of the stream, rows and times as in feed.Frame."""

    epoch: int
    first: int
    last: int
    rows: list[Row]
    times: list[tuple[int, int]]
    extras: list[Extra]


@dataclass(frozen=True, slots=True)
class GapOpened:
    gap: Gap


@dataclass(frozen=True, slots=True)
class GapRepaired:
    """`gap.how` says by what."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class MissingSpan:
    """A snapshot stands for `first` to `last`: their effect is in the books, their trades were not seen."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Doubted:
    """This book alone is not to be trusted."""

    instrument: int
    reason: str


@dataclass(frozen=True, slots=True)
class Trusted:
    """A doubted book was replaced."""

    instrument: int


@dataclass(frozen=True, slots=True)
class Lagged:
    """What comes is `lag_ns` old: drop whatever waits in the line, then call rejoin(); with `conflate`, read kind Q."""

    lag_ns: int
    conflate: bool


@dataclass(frozen=True, slots=True)
class Alarm:
    """The publisher, or the line, did what must not be."""

    text: str


Action = (
    AskRange
    | AskSnapshot
    | Withdrawn
    | StateChanged
    | Applied
    | GapOpened
    | GapRepaired
    | MissingSpan
    | Doubted
    | Trusted
    | Lagged
    | Alarm
)

"""What a reader of a feed is told, as values, in the order in which things happened.

Prices and quantities are `Decimal`, in the instrument's units; `ticks` and `lots` are the same as whole numbers. Times
are nanoseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from proto.feed import END, OP_MASK, OPS, SELL, Extra, Row

_NAMES: Final = {code: op.name for code, op in OPS.items()}
TickAndLot = tuple[Decimal, Decimal]  # of a tick and of a lot


class Delta:
    """One change of a book (FEED.md says what each op means).

    op        its name in `OPS` of proto/feed.py: "add", "cancel", ...
    sequence  of the stream
    end       whether it is the last of all that one command changed
    side      "buy" or "sell": of the resting order; of the aggressor, for "trade"
    extra     what a definition, a status, statistics or an indication say
    """

    __slots__ = ("_sizes", "end", "extra", "lots", "op", "order_id", "sequence", "side", "ticks", "trade_id")

    def __init__(self, row: Row, sequence: int, sizes: TickAndLot, extra: Extra | None) -> None:
        op, _, order_id, self.ticks, self.lots, self.trade_id = row
        self.op = _NAMES[op & OP_MASK]
        self.sequence = sequence
        self.end = bool(op & END)
        self.side = "sell" if op & SELL else "buy"
        self.order_id = order_id if extra is None else 0
        self.extra = extra
        self._sizes = sizes

    @property
    def price(self) -> Decimal:
        return self.ticks * self._sizes[0]

    @property
    def quantity(self) -> Decimal:
        return self.lots * self._sizes[1]

    def __repr__(self) -> str:
        return f"Delta({self.op} {self.side} {self.quantity} @ {self.price}, order {self.order_id})"


@dataclass(frozen=True, slots=True)
class BookEvent:
    """All that one command changed in one book; `sequence` is that of its last delta in the stream.

    `more`: the command changed other books of the stream, too, and what it changed there is told next.
    """

    symbol: str
    epoch: int
    sequence: int
    time_ns: int
    deltas: tuple[Delta, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Trade:
    """`aggressor` is "buy" or "sell"; it comes right behind the BookEvent that it is part of."""

    symbol: str
    epoch: int
    sequence: int
    time_ns: int
    trade_id: int
    price: Decimal
    quantity: Decimal
    aggressor: str


def trades_of(event: BookEvent) -> list[Trade]:
    """Each trade of one command once: where both sides rest, two of its deltas tell of it."""
    first: dict[int, Delta] = {}
    for delta in event.deltas:
        if delta.op in ("execute", "trade"):
            first.setdefault(delta.trade_id, delta)
    return [
        Trade(
            event.symbol,
            event.epoch,
            event.sequence,
            event.time_ns,
            trade_id,
            delta.price,
            delta.quantity,
            "buy" if (delta.side == "buy") == (delta.op == "trade") else "sell",  # or the side of who rested
        )
        for trade_id, delta in first.items()
    ]


@dataclass(frozen=True, slots=True)
class BookState:
    """A book is worth something else from here on.

    state   "valid": right, at its sequence. "doubtful": a hole or a difference, being repaired. "stale": nothing is
            heard. "lagged": what comes is too old. "conflated": only its best prices are read. "unknown": not there yet
    """

    symbol: str
    state: str
    before: str


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream went from one state to another (bus/stream/actions.py, State)."""

    engine: int
    channel: int
    state: str
    before: str
    reason: str


@dataclass(frozen=True, slots=True)
class QuotesState:
    """The best prices of a stream that is read conflated are worth something else: only in the state "live" are they
    of the present."""

    engine: int
    channel: int
    state: str
    before: str
    reason: str


@dataclass(frozen=True, slots=True)
class GapOpened:
    """Sequences `first` to `last` did not come; `cause` is "frame", "heartbeat", "end" or "lag".

    `doubtful` names the books that are not valid until it is repaired: not those that it cannot have touched.
    """

    engine: int
    channel: int
    epoch: int
    first: int
    last: int
    cause: str
    doubtful: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GapRepaired:
    """They were had after all: `how` is "late", "range", "snapshot" or "abandoned" (the epoch ended first).

    `source` is the machine whose answer had some of them, the last one if several had; empty: they came by themselves.
    """

    engine: int
    channel: int
    epoch: int
    first: int
    last: int
    how: str
    took_ms: float
    source: str = ""


@dataclass(frozen=True, slots=True)
class MissingSpan:
    """Of these sequences no events are told. `why` is "snapshot": they are in the books; "slow": they were not taken
    in time by whoever iterates."""

    engine: int
    channel: int
    epoch: int
    first: int
    last: int
    why: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """One book is wrong although nothing was lost, `reason` says how that was found; it is asked for again."""

    symbol: str
    engine: int
    channel: int
    reason: str


@dataclass(frozen=True, slots=True)
class Trusted:
    """A doubted book was replaced."""

    symbol: str
    engine: int
    channel: int


@dataclass(frozen=True, slots=True)
class Quote:
    """How a book that is read conflated stood when this was sent: best bid and offer as (price, quantity, orders), the
    last trade as (price, quantity); None where there is none."""

    symbol: str
    epoch: int
    sequence: int
    time_ns: int
    bid: tuple[Decimal, Decimal, int] | None
    ask: tuple[Decimal, Decimal, int] | None
    last: tuple[Decimal, Decimal] | None
    trading_state: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is wrong with the feed, in words. The feed goes on. `engine` 0: it is not about one stream."""

    text: str
    engine: int = 0
    channel: int = 0


Event = (
    BookEvent
    | Trade
    | BookState
    | StreamState
    | QuotesState
    | GapOpened
    | GapRepaired
    | MissingSpan
    | Doubted
    | Trusted
    | Quote
    | Trouble
)


@dataclass(frozen=True, slots=True)
class Level:
    """A price, all that rests there, and the orders, if they are known: (order id, quantity), first come first."""

    price: Decimal
    quantity: Decimal
    count: int
    orders: tuple[tuple[int, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class Book:
    """A book as it stood when it was asked for: a copy, which does not change.

    state       as in BookState: only a "valid" book is right, and at `sequence`
    age_s       since the publisher was heard to stand where the book stands
    sequence    of the stream; instrument_sequence, of this book alone
    bids, asks  best first; of a conflated book the best only, without orders
    """

    symbol: str
    state: str
    age_s: float = 0.0
    epoch: int = 0
    sequence: int = 0
    instrument_sequence: int = 0
    trading_state: str = "unknown"
    last_price: Decimal | None = None
    last_quantity: Decimal | None = None
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()

    @property
    def valid(self) -> bool:
        return self.state == "valid"

    def orders(self, side: int = 0) -> list[tuple[int, Decimal, Decimal]]:
        """(order id, price, quantity) of the bids (0) or asks (1), in priority order."""
        levels = self.asks if side else self.bids
        return [(order_id, level.price, quantity) for level in levels for order_id, quantity in level.orders]


@dataclass(frozen=True, slots=True)
class Stream:
    """Where the reader of one stream stands.

    state      as in StreamState
    sequence   of the last event in its books, in `epoch`
    lag_ms     how much later than at its best the newest frame came; None: nothing was heard yet
    open_gaps  those that are not repaired yet, of `gaps` in all
    counters   all that its reader counted (bus/stream/ledger.py)
    """

    engine: int
    channel: int
    state: str
    epoch: int
    sequence: int
    lag_ms: float | None
    books: int
    gaps: int
    open_gaps: int
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One gap: where, why, and how each part of it was had. The parts and `missing` make up `last` - `first` + 1."""

    engine: int
    channel: int
    epoch: int
    first: int
    last: int
    cause: str
    how: str
    took_ms: float
    late: int
    ranged: int
    snapshotted: int
    abandoned: int
    missing: int
    source: str = ""  # as in GapRepaired


@dataclass(frozen=True, slots=True)
class Comparison:
    """All books of a stream beside those of another machine, order by order, at one sequence.

    machine      whose books they were compared with, by its name
    carried      the deltas by which its snapshot was brought forward to where ours stand
    differences  where ours are not the same, in words; none: they are equal
    problem      why no comparison could be made, in words; empty: it was made
    """

    engine: int
    channel: int
    machine: str
    epoch: int = 0
    sequence: int = 0
    carried: int = 0
    books: int = 0
    orders: int = 0
    differences: Sequence[str] = ()
    problem: str = ""

    @property
    def equal(self) -> bool:
        return not self.problem and not self.differences

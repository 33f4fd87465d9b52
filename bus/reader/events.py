"""What a reader of a feed is told, as values, in the order in which things happened.

Prices and quantities are `Decimal`, in the instrument's units; `ticks` and `lots` are the same as whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bus.stream.mirror import BUY_SIDE
from proto.feed import (
    ADD,
    BUST,
    CANCEL,
    CLEAR,
    CORRECTION,
    DEFINITION,
    DELETE,
    EXECUTE,
    INDICATION,
    MODIFY,
    OP_MASK,
    SELL,
    STATISTICS,
    STATUS,
    TRADE,
    Extra,
    Row,
)

OPS: Final = {
    ADD: "add",
    CANCEL: "cancel",
    MODIFY: "modify",
    DELETE: "delete",
    EXECUTE: "execute",
    TRADE: "trade",
    CLEAR: "clear",
    DEFINITION: "definition",
    STATUS: "status",
    STATISTICS: "statistics",
    INDICATION: "indication",
    BUST: "bust",
    CORRECTION: "correction",
}
Sizes = tuple[Decimal, Decimal]  # of a tick and of a lot


class Delta:
    """One change of a book (FEED.md says what each op means).

    op        "add", "cancel", "modify", "delete", "execute", "trade", "clear", "definition", "status", "statistics",
              "indication", "bust", "correction"
    side      "buy" or "sell": of the resting order; of the aggressor, for "trade"
    extra     what a definition, a status, statistics or an indication say
    """

    __slots__ = ("_sizes", "extra", "lots", "op", "order_id", "side", "ticks", "trade_id")

    def __init__(self, row: Row, sizes: Sizes, extra: Extra | None) -> None:
        op, _, order_id, self.ticks, self.lots, self.trade_id = row
        self.op = OPS[op & OP_MASK]
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
    """All that one command changed in one book; `sequence` is that of its last delta in the stream."""

    symbol: str
    epoch: int
    sequence: int
    time_ns: int
    deltas: tuple[Delta, ...]


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


def told_of(symbol: str, epoch: int, sequence: int, time_ns: int, deltas: Sequence[Delta]) -> list[BookEvent | Trade]:
    """One command's changes of one book: the whole of them, then each trade once (where both sides rest it is two)."""
    told: list[BookEvent | Trade] = [BookEvent(symbol, epoch, sequence, time_ns, tuple(deltas))]
    trades: dict[int, Delta] = {}
    for delta in deltas:
        if delta.op in _TRADES:
            trades.setdefault(delta.trade_id, delta)
    for trade_id, delta in trades.items():
        buyer = (delta.side == "buy") == (delta.op == _TRADES[1])
        aggressor = "buy" if buyer else "sell"
        told.append(Trade(symbol, epoch, sequence, time_ns, trade_id, delta.price, delta.quantity, aggressor))
    return told


_TRADES: Final = ("execute", "trade")


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
    """A stream went from one state to another (bus/stream/feed_client.py, State)."""

    engine: int
    channel: int
    state: str
    before: str
    reason: str


@dataclass(frozen=True, slots=True)
class GapOpened:
    """Sequences `first` to `last` did not come; `cause` is "frame", "heartbeat", "end" or "lag"."""

    engine: int
    channel: int
    epoch: int
    first: int
    last: int
    cause: str


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
class Quote:
    """The best prices of a book that is read conflated: (price, quantity, orders), or None."""

    symbol: str
    epoch: int
    sequence: int
    time_ns: int
    bid: tuple[Decimal, Decimal, int] | None
    ask: tuple[Decimal, Decimal, int] | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is wrong with the feed, in words. The feed goes on."""

    text: str


Event = BookEvent | Trade | BookState | StreamState | GapOpened | GapRepaired | MissingSpan | Quote | Trouble


@dataclass(frozen=True, slots=True)
class Level:
    """A price, all that rests there, and the orders: (order id, quantity), first come first."""

    price: Decimal
    quantity: Decimal
    orders: tuple[tuple[int, Decimal], ...]


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
    age_s: float
    epoch: int
    sequence: int
    instrument_sequence: int
    trading_state: str
    last_price: Decimal | None
    last_quantity: Decimal | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def valid(self) -> bool:
        return self.state == "valid"

    def orders(self, side: int = BUY_SIDE) -> list[tuple[int, Decimal, Decimal]]:
        """(order id, price, quantity) of the bids (0) or asks (1), in priority order."""
        levels = self.asks if side else self.bids
        return [(order_id, level.price, quantity) for level in levels for order_id, quantity in level.orders]


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

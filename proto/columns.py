"""Commands in, reports and deltas out: all that a matching core reads and writes.

Prices are whole ticks, quantities whole lots, times nanoseconds since the Unix
epoch. What a tick or a lot is worth is the instrument's business, so no float
and no Decimal lives behind the door.

Everything on the order path travels in batches, as columns of plain ints or as
flat rows of them: making an object for each order would cost more than matching
it. The views at the end of this file give names to a row for whoever reads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, NamedTuple, TypeAlias

# An int that is passed on far more often than it is calculated with: ids, prices, quantities. The loose type keeps
# the compiled build from unpacking and packing it again at each step, which took a fifth of the time of matching.
Boxed: TypeAlias = Any

# Commands (proto Op).
NEW: Final = 1
CANCEL: Final = 2
REPLACE: Final = 3
MASS_CANCEL: Final = 4

# Sides.
BUY: Final = 0
SELL: Final = 1

# The flags of a command (proto CommandBatch.flags).
FLAG_SELL: Final = 1
TYPE_SHIFT: Final = 1
TYPE_MASK: Final = 7 << TYPE_SHIFT
TYPE_LIMIT: Final = 0 << TYPE_SHIFT
TYPE_MARKET: Final = 1 << TYPE_SHIFT
TYPE_STOP: Final = 2 << TYPE_SHIFT
TYPE_STOP_LIMIT: Final = 3 << TYPE_SHIFT
TYPE_ICEBERG: Final = 4 << TYPE_SHIFT
TYPE_PEG_BID: Final = 5 << TYPE_SHIFT
TYPE_PEG_OFFER: Final = 6 << TYPE_SHIFT
TYPE_PEG_MID: Final = 7 << TYPE_SHIFT
TYPES: Final = (
    TYPE_LIMIT, TYPE_MARKET, TYPE_STOP, TYPE_STOP_LIMIT, TYPE_ICEBERG, TYPE_PEG_BID, TYPE_PEG_OFFER, TYPE_PEG_MID,
)  # fmt: skip
PEGS: Final = frozenset((TYPE_PEG_BID, TYPE_PEG_OFFER, TYPE_PEG_MID))
TIF_SHIFT: Final = 4
TIF_MASK: Final = 7 << TIF_SHIFT
TIF_GTC: Final = 0 << TIF_SHIFT
TIF_DAY: Final = 1 << TIF_SHIFT
TIF_GTD: Final = 2 << TIF_SHIFT
TIF_IOC: Final = 3 << TIF_SHIFT
TIF_FOK: Final = 4 << TIF_SHIFT
FORCES: Final = (TIF_GTC, TIF_DAY, TIF_GTD, TIF_IOC, TIF_FOK)
POST_ONLY: Final = 1 << 7
MEANING_SHIFT: Final = 8
MEANING_MASK: Final = 3 << MEANING_SHIFT
MEANING_TOTAL: Final = 0 << MEANING_SHIFT
MEANING_OPEN: Final = 1 << MEANING_SHIFT
MEANING_REDUCE_BY: Final = 2 << MEANING_SHIFT
MEANINGS: Final = (MEANING_TOTAL, MEANING_OPEN, MEANING_REDUCE_BY)
REQUEUE: Final = 1 << 10
ALL_OR_NONE: Final = 1 << 11
CAPPED: Final = 1 << 12

# Self-trade prevention (proto SelfTradePrevention).
STP_CANCEL_NEWEST: Final = 0
STP_NONE: Final = 1
STP_CANCEL_OLDEST: Final = 2
STP_CANCEL_BOTH: Final = 3
STP_DECREMENT: Final = 4
STP_MODES: Final = (STP_CANCEL_NEWEST, STP_NONE, STP_CANCEL_OLDEST, STP_CANCEL_BOTH, STP_DECREMENT)

# Reports (proto ReportKind).
ACCEPTED: Final = 1
TRADED: Final = 2
CANCELED: Final = 3
REPLACED: Final = 4
REFUSED: Final = 5
MASS_CANCELED: Final = 6
UNKNOWN: Final = 7
TRIGGERED: Final = 8
RESTATED: Final = 9
BUSTED: Final = 10
CORRECTED: Final = 11

# The flags of a report (proto ReportBatch.flags); bit 0 is FLAG_SELL.
MAKER: Final = 2
PRIORITY_KEPT: Final = 4
REPEAT: Final = 8
AUCTION_TRADE: Final = 16  # of an uncross: neither maker nor taker

# Reasons (proto Reason).
NO_REASON: Final = 0
MALFORMED: Final = 1
BAD_QUANTITY: Final = 2
BAD_PRICE: Final = 3
NOTIONAL_TOO_LARGE: Final = 4
THROTTLED: Final = 5
BATCH_TOO_LARGE: Final = 6
BAD_CLIENT_ORDER_ID: Final = 7
UNKNOWN_ACCOUNT: Final = 8
UNKNOWN_INSTRUMENT: Final = 20
PRICE_OUT_OF_LIMITS: Final = 21
DUPLICATE_ID: Final = 22
UNKNOWN_ORDER: Final = 23
TOO_LATE: Final = 24
NO_LIQUIDITY: Final = 25
WOULD_TRADE: Final = 26
NOT_FILLABLE: Final = 27
BELOW_FILLED: Final = 28
NOTHING_TO_CHANGE: Final = 29
WRONG_INSTRUMENT: Final = 30
WRONG_STATE: Final = 31
KILLED: Final = 32
QUANTITY_ABOVE_MAX: Final = 33
NOTIONAL_ABOVE_MAX: Final = 34
BAD_EXPIRY: Final = 35
BAD_OFFSET: Final = 36
BAD_LINK: Final = 37
UNKNOWN_TRADE: Final = 38
DISPLAY_TOO_SMALL: Final = 39
IOC_REMAINDER: Final = 40
MARKET_REMAINDER: Final = 41
SELF_TRADE: Final = 42
MASS_CANCEL_REASON: Final = 43
DISCONNECTED: Final = 44
EXPIRED: Final = 45
COLLAR: Final = 46
OCO: Final = 47
HALTED_REASON: Final = 48
DELISTED: Final = 49
BAND: Final = 50
TOO_MANY_TRADES: Final = 51
UNAVAILABLE: Final = 60
OUTCOME_UNKNOWN: Final = 61
LOG_FAILED: Final = 62
TOO_MANY_WAITING: Final = 70

# Magnitudes that nothing exceeds, so that nothing can overflow later.
LIMIT: Final = 1 << 40  # of a quantity, and of a price's magnitude, exclusive
QUANTITY_LIMIT: Final = LIMIT
PRICE_LIMIT: Final = LIMIT
NOTIONAL_LIMIT: Final = 1 << 62

ENGINE_SHIFT: Final = 48  # order id = engine << 48 | counter

REPORT_WIDTH: Final = 12  # of a ReportRow
DELTA_WIDTH: Final = 6  # of a DeltaRow


class Terms(NamedTuple):
    """What an order or a replace says beside the plain columns; 0 is not said.

    stop_price  ticks; of a stop or stop-limit order
    display     lots an iceberg shows at most
    minimum     lots that must trade at once
    expires_ns  of a GTD order
    offset      ticks from a pegged order's reference
    oco         the client order id of the live order that this one is linked to
    """

    stop_price: int = 0
    display: int = 0
    minimum: int = 0
    expires_ns: int = 0
    offset: int = 0
    oco: int = 0


NO_TERMS: Final = Terms()


def is_stop(flags: int) -> bool:
    return flags & TYPE_MASK in (TYPE_STOP, TYPE_STOP_LIMIT)


def is_peg(flags: int) -> bool:
    return flags & TYPE_MASK in PEGS


def is_priced(flags: int) -> bool:
    """Whether the order's `price` says how far it may trade."""
    kind = flags & TYPE_MASK
    return kind in (TYPE_LIMIT, TYPE_STOP_LIMIT, TYPE_ICEBERG) or (flags & CAPPED != 0 and is_peg(flags))


def malformed(flags: int, terms: Terms) -> bool:
    """Whether type, time in force and conditions do not go together."""
    kind = flags & TYPE_MASK
    force = flags & TIF_MASK
    at_once = force in (TIF_IOC, TIF_FOK)
    conditional = terms.minimum != 0 or flags & ALL_OR_NONE != 0
    return (
        force not in FORCES
        or (kind == TYPE_MARKET and (flags & POST_ONLY != 0 or force == TIF_GTD))
        or (kind not in (TYPE_LIMIT, TYPE_MARKET) and at_once)
        or (flags & POST_ONLY != 0 and (at_once or is_stop(flags)))
        or (terms.stop_price != 0 and not is_stop(flags))
        or (terms.display != 0 and kind != TYPE_ICEBERG)
        or (terms.expires_ns != 0 and force != TIF_GTD)
        or (terms.offset != 0 and not is_peg(flags))
        or (flags & CAPPED != 0 and not is_peg(flags))
        or (conditional and (kind != TYPE_LIMIT or force == TIF_FOK or flags & POST_ONLY != 0))
        or (terms.minimum != 0 and flags & ALL_OR_NONE != 0)
        or terms.minimum < 0
        or terms.display < 0
    )


@dataclass(slots=True)
class Batch:
    """One account's commands as columns: row i of every column is command i.

    `session` is 0, or the session whose end cancels what it entered. `stp` is
    the self-trade prevention mode of whatever takes. All columns have the same
    length; the door has checked magnitudes, ops and flags. `terms` is None, as in almost every batch, or has
    one entry for each row.
    """

    account: int
    session: int
    stp: int
    op: list[int]
    client_order_id: list[Boxed]
    instrument: list[int]
    flags: list[int]
    price: list[Boxed]
    quantity: list[Boxed]
    target: list[Boxed]
    terms: list[Terms] | None = None

    def __len__(self) -> int:
        return len(self.op)


class Commands(Batch):
    """A batch that is being written: columns given whole, or row by row. A column left out is zero throughout.

    Cost: to make and encode 256 of them, 0.15 µs each when the columns are given whole.
    """

    __slots__ = ()

    def __init__(
        self,
        op: list[int] | None = None,
        client_order_id: list[Boxed] | None = None,
        instrument: list[int] | None = None,
        flags: list[int] | None = None,
        price: list[Boxed] | None = None,
        quantity: list[Boxed] | None = None,
        target: list[Boxed] | None = None,
    ) -> None:
        op = [] if op is None else op
        rest = (client_order_id, instrument, flags, price, quantity, target)
        ids, instruments, bits, prices, quantities, targets = [[0] * len(op) if one is None else one for one in rest]
        super().__init__(0, 0, 0, op, ids, instruments, bits, prices, quantities, targets)

    def add(
        self,
        op: int,
        client_order_id: Boxed,
        instrument: int,
        flags: int = 0,
        price: Boxed = 0,
        quantity: Boxed = 0,
        target: Boxed = 0,
        terms: Terms | None = None,
    ) -> None:
        """Add one row. A client order id of 0 stands for a new one, which the session gives it."""
        if terms is not None and self.terms is None:
            self.terms = [NO_TERMS] * len(self.op)
        if self.terms is not None:
            self.terms.append(terms or NO_TERMS)
        self.op.append(op)
        self.client_order_id.append(client_order_id)
        self.instrument.append(instrument)
        self.flags.append(flags)
        self.price.append(price)
        self.quantity.append(quantity)
        self.target.append(target)


def select(batch: Batch, keep: Sequence[int]) -> Batch:
    """The rows for which `keep` is not zero, in their order."""
    return Batch(
        batch.account,
        batch.session,
        batch.stp,
        list(compress(batch.op, keep)),
        list(compress(batch.client_order_id, keep)),
        list(compress(batch.instrument, keep)),
        list(compress(batch.flags, keep)),
        list(compress(batch.price, keep)),
        list(compress(batch.quantity, keep)),
        list(compress(batch.target, keep)),
        None if batch.terms is None else list(compress(batch.terms, keep)),
    )


@dataclass(slots=True)
class AccountReports:
    """Reports to one account: `rows` is flat, REPORT_WIDTH ints a report.

    Report i has the number first_seq + i; first_seq 0 means that they have no
    number, since they repeat what was said before.
    """

    account: int
    first_seq: int
    rows: list[int]


@dataclass(slots=True)
class ChannelDeltas:
    """What changed on one channel: `rows` is flat, DELTA_WIDTH ints a delta.

    The columns are those of a decoded feed row (proto/feed.py): op with side and
    end-of-event bits, instrument, order id or index into `extras`, price,
    quantity, trade id.
    """

    channel: int
    rows: list[int]
    extras: list[list[int | str]]


@dataclass(slots=True)
class Outcome:
    """All that one log record caused, in order. `refused` is why an operator's command had no effect, or NO_REASON."""

    reports: list[AccountReports]
    deltas: list[ChannelDeltas]
    refused: int = NO_REASON


class ReportRow(NamedTuple):
    """A report by name (proto ReportBatch says what each column means)."""

    kind: int
    command: int
    client_order_id: int
    order_id: int
    instrument: int
    flags: int
    price: int
    quantity: int
    open: int
    filled: int
    trade_id: int
    reason: int


def answer_row(
    kind: int, reason: int, command: Boxed, target: Boxed, instrument: int, flags: int, price: Boxed, quantity: Boxed
) -> ReportRow:
    """What is told of a command that has touched no order: what it asked for, and why."""
    side = flags & FLAG_SELL
    return ReportRow(kind, command, target or command, 0, instrument, side, price, quantity, 0, 0, 0, reason)


class DeltaRow(NamedTuple):
    """A delta by name."""

    op: int
    instrument: int
    order_id: int
    price: int
    quantity: int
    trade_id: int


def report_rows(rows: list[int]) -> Iterator[ReportRow]:
    """The reports in flat `rows`, in order."""
    return map(ReportRow._make, zip(*[iter(rows)] * REPORT_WIDTH, strict=True))


def delta_rows(rows: list[int]) -> Iterator[DeltaRow]:
    """The deltas in flat `rows`, in order."""
    return map(DeltaRow._make, zip(*[iter(rows)] * DELTA_WIDTH, strict=True))

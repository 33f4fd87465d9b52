"""The door: which commands may pass, and what is said of those that may not.

Nothing gets past it that could overflow, or that the core would have to doubt. A check looks at whole columns at C
speed and goes through single rows only when a column is known to have a bad one. The bytes of a good batch go on as
they came; of a batch with some bad rows, the good ones are encoded again, so that what is logged is what was let in.

    let_in(account, session, stp, commands)  ->  the batch, its bytes, and report rows for what was refused
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, compress
from operator import not_
from typing import Final

from proto.columns import (
    ALL_OR_NONE,
    BAD_CLIENT_ORDER_ID,
    BAD_PRICE,
    BAD_QUANTITY,
    BATCH_TOO_LARGE,
    CANCEL,
    CAPPED,
    FLAG_SELL,
    FORCES,
    MALFORMED,
    MASS_CANCEL,
    MEANINGS,
    NEW,
    NO_REASON,
    NO_TERMS,
    NOTIONAL_LIMIT,
    NOTIONAL_TOO_LARGE,
    POST_ONLY,
    PRICE_LIMIT,
    QUANTITY_LIMIT,
    REFUSED,
    REQUEUE,
    STP_MODES,
    THROTTLED,
    TYPES,
    UNKNOWN_ACCOUNT,
    Batch,
    Terms,
    answer_row,
    malformed,
    select,
)
from proto.orders import BATCH_MAX, GarbledError, read_batch, write_batch

THROTTLE_BURST_S: Final = 1.0  # a session may spend so many seconds' worth of commands at once
TIME_MAX: Final = (1 << 63) - 1
_SIZELESS: Final = frozenset((CANCEL, MASS_CANCEL))  # ops that need no quantity


def _sound_flags() -> frozenset[int]:
    """Every combination of flags that means something."""
    return frozenset(
        sell | kind | force | post | meaning | requeue | every | capped
        for sell in (0, FLAG_SELL)
        for kind in TYPES
        for force in FORCES
        for post in (0, POST_ONLY)
        for meaning in MEANINGS
        for requeue in (0, REQUEUE)
        for every in (0, ALL_OR_NONE)
        for capped in (0, CAPPED)
        if not malformed(kind | force | post | every | capped, NO_TERMS)
    )


SOUND_FLAGS: Final = _sound_flags()


class Throttle:
    """So many commands a second, and a burst of one second's worth. Time is the caller's, in seconds."""

    __slots__ = ("_left", "_rate", "_then")

    def __init__(self, rate: int, now: float) -> None:
        assert rate > 0
        self._rate = rate
        self._left = rate * THROTTLE_BURST_S
        self._then = now

    def take(self, count: int, now: float) -> int:
        """How many of so many commands may pass now."""
        self._left = min(self._rate * THROTTLE_BURST_S, self._left + (now - self._then) * self._rate)
        self._then = now
        allowed = min(count, int(self._left))
        self._left -= allowed
        return allowed


def let_in(
    account: int,
    session: int,
    stp: int,
    commands: bytes,
    throttle: Throttle | None = None,
    now: float = 0.0,
    *,
    known: bool = True,
) -> tuple[Batch, bytes, list[int]]:
    """The commands of a serialized CommandBatch that may pass, their bytes, and report rows that refuse the others.

    Those of an account that is not `known` are all refused.

    Cost: 0.2 µs a command when all are good. Raises: GarbledError, also for an account or a mode of self-trade
    prevention that cannot be.
    """
    check_origin(account, stp)
    batch = read_batch(account, session, stp, commands)
    reasons = check(batch) if known else [UNKNOWN_ACCOUNT] * len(batch)
    if throttle is not None:
        reasons = _throttled(reasons or [NO_REASON] * len(batch), throttle, now)
    if not any(reasons):
        return batch, commands, []
    passed = select(batch, [not reason for reason in reasons])
    return passed, write_batch(passed), refusals(batch, reasons)


def check_origin(account: int, stp: int) -> None:
    """Whatever comes from somebody says who, and how they prevent trades with themselves. Raises: GarbledError."""
    if not account:
        raise GarbledError("no account is named")
    if stp not in STP_MODES:
        raise GarbledError("unknown self-trade prevention")


def _throttled(reasons: list[int], throttle: Throttle, now: float) -> list[int]:
    """The reasons, and THROTTLED for what would pass and comes too early."""
    allowed = throttle.take(reasons.count(NO_REASON), now)
    counted = accumulate(not reason for reason in reasons)  # those that would pass, up to each
    return [
        reason or (THROTTLED if count > allowed else NO_REASON) for reason, count in zip(reasons, counted, strict=True)
    ]


def check(batch: Batch) -> list[int]:
    """The reason of each row, or an empty list if every row may pass.

    A batch whose columns do not agree is malformed as a whole. Cost: 0.07 µs a command when all are good.
    """
    op = batch.op
    count = len(op)
    for column in (batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity, batch.target):
        if len(column) != count:
            return [MALFORMED] * max(count, len(batch.client_order_id), 1)
    if batch.terms is not None and len(batch.terms) != count:
        return [MALFORMED] * max(count, 1)
    if count > BATCH_MAX:
        return [BATCH_TOO_LARGE] * count
    if not count or (batch.terms is None and _all_good(batch)):
        return []
    reasons = list(map(
        _row_fault, op, batch.client_order_id, batch.flags, batch.price, batch.quantity
    ))  # fmt: skip
    if batch.terms is not None:
        reasons = [reason or _terms_fault(terms) for reason, terms in zip(reasons, batch.terms, strict=True)]
    return reasons if any(reasons) else []


def _all_good(batch: Batch) -> bool:
    """Whether no row can be bad; a false alarm costs a walk through the rows."""
    op, quantity, price = batch.op, batch.quantity, batch.price
    largest = max(quantity)
    highest = max(max(price), -min(price))
    return (
        min(op) >= NEW
        and max(op) <= MASS_CANCEL
        and SOUND_FLAGS.issuperset(batch.flags)
        and 0 not in batch.client_order_id
        and largest < QUANTITY_LIMIT
        and highest < PRICE_LIMIT
        and largest * highest < NOTIONAL_LIMIT
        and (0 not in quantity or _SIZELESS.issuperset(compress(op, map(not_, quantity))))
    )


def _row_fault(op: int, client_order_id: int, flags: int, price: int, quantity: int) -> int:
    if not NEW <= op <= MASS_CANCEL or flags not in SOUND_FLAGS:
        return MALFORMED
    if not client_order_id:
        return BAD_CLIENT_ORDER_ID
    if quantity >= QUANTITY_LIMIT or (not quantity and op not in _SIZELESS):
        return BAD_QUANTITY
    if abs(price) >= PRICE_LIMIT:
        return BAD_PRICE
    if abs(price) * quantity >= NOTIONAL_LIMIT:
        return NOTIONAL_TOO_LARGE
    return NO_REASON


def _terms_fault(terms: Terms) -> int:
    stop_price, display, minimum, expires_ns, offset, oco = terms
    if min(display, minimum, expires_ns, oco) < 0 or expires_ns > TIME_MAX:
        return MALFORMED
    if max(display, minimum) >= QUANTITY_LIMIT:
        return BAD_QUANTITY
    return BAD_PRICE if max(abs(stop_price), abs(offset)) >= PRICE_LIMIT else NO_REASON


def refusals(batch: Batch, reasons: Sequence[int]) -> list[int]:
    """Report rows that refuse each row which has a reason. Columns of different lengths are read as far as they go."""
    rows: list[int] = []
    for i, reason in enumerate(reasons):
        if reason:
            said = (batch.client_order_id, batch.target, batch.instrument, batch.flags, batch.price, batch.quantity)
            rows.extend(answer_row(REFUSED, reason, *(_at(column, i) for column in said)))
    return rows


def answers(batch: Batch, kind: int, reason: int) -> list[int]:
    """Report rows that say the same of every command of a batch."""
    rows: list[int] = []
    said = (batch.client_order_id, batch.target, batch.instrument, batch.flags, batch.price, batch.quantity)
    for columns in zip(*said, strict=True):
        rows.extend(answer_row(kind, reason, *columns))
    return rows


def _at(column: list[int], row: int) -> int:
    return column[row] if row < len(column) else 0

"""What orders.proto carries, to bytes and back: commands, execution reports, and decimals as people write them.

A batch of commands is columns, a batch of reports flat rows (proto/columns.py); neither is ever a message for each
order. Nothing is judged here: whether a batch may pass is the door's to say (engine/entry/door.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from itertools import zip_longest
from operator import attrgetter
from typing import Final

from google.protobuf.message import DecodeError

from proto.columns import (
    AUCTION_TRADE,
    BAD_PRICE,
    BAD_QUANTITY,
    BUSTED,
    CORRECTED,
    MAKER,
    PRICE_LIMIT,
    QUANTITY_LIMIT,
    REPORT_WIDTH,
    TRADED,
    Batch,
    ReportRow,
    Terms,
)
from proto.orders_pb2 import (
    LIQUIDITY_AUCTION,
    LIQUIDITY_MAKER,
    LIQUIDITY_NONE,
    LIQUIDITY_TAKER,
    CommandBatch,
    Liquidity,
    ReportBatch,
)

BATCH_MAX: Final = 4_096  # commands that an engine takes in one batch
DECIMAL_TEXT_MAX: Final = 64  # characters

_TERMS: Final = attrgetter(*Terms._fields)  # the columns of a CommandBatch beside the plain ones
LIMITLESS: Final = 1 << 70  # a number that no column holds
_DECIMAL: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,6})?")
# Wide enough for any tick of 36 digits times any number of ticks; a result it cannot hold exactly is an error.
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN, Emin=-200, Emax=200, traps=[Inexact, InvalidOperation])


class GarbledError(ValueError):
    """Bytes that are no message of the kind they should be: the peer's fault."""


class BadValueError(ValueError):
    """A value that no order can have; `reason` says why (proto Reason)."""

    def __init__(self, reason: int, what: str) -> None:
        super().__init__(what)
        self.reason = reason


# Commands


def read_batch(account: int, session: int, stp: int, commands: bytes) -> Batch:
    """The columns of a serialized CommandBatch, a column left out as zeros; `check` says whether they will do.

    Cost: 0.13 µs a command. Raises: GarbledError.
    """
    try:
        message = CommandBatch.FromString(commands)
    except DecodeError as e:
        raise GarbledError("not a CommandBatch") from e
    op = message.op[:]
    zeros = [0] * len(op)
    terms: list[Terms] | None = None
    beside = _TERMS(message)
    if any(beside):
        terms = _terms(beside, len(op))
    return Batch(
        account,
        session,
        stp,
        op,
        message.client_order_id[:] or zeros,
        message.instrument[:] or zeros,
        message.flags[:] or zeros,
        message.price[:] or zeros,
        message.quantity[:] or zeros,
        message.target[:] or zeros,
        terms,
    )


def _terms(beside: tuple[Sequence[int], ...], count: int) -> list[Terms]:
    """The columns beside the plain ones, by row. Columns of another length give rows that `check` refuses."""
    columns = [list(column) or [0] * count for column in beside]
    return [Terms(*row) for row in zip_longest(*columns, fillvalue=-LIMITLESS)]


def write_batch(batch: Batch) -> bytes:
    """The CommandBatch of these columns. Cost: 0.13 µs a command."""
    message = CommandBatch(
        op=batch.op,
        client_order_id=batch.client_order_id,
        instrument=batch.instrument,
        flags=batch.flags,
        price=batch.price,
    )
    if any(batch.quantity):
        message.quantity.extend(batch.quantity)
    if any(batch.target):
        message.target.extend(batch.target)
    if batch.terms:
        for name, column in zip(Terms._fields, zip(*batch.terms, strict=True), strict=True):
            if any(column):
                getattr(message, name).extend(column)
    return message.SerializeToString()


# Reports


def write_reports(home: int, account: int, first_seq: int, position: int, time_ns: int, rows: list[int]) -> bytes:
    """The ReportBatch of flat report rows. Cost: 0.25 µs a report.

    Columns of small values are written by hand: packed varints of values that fit seven bits are just those bytes.
    """
    w = REPORT_WIDTH
    message = ReportBatch(
        home=home,
        account=account,
        first_seq=first_seq,
        position=position,
        time_ns=time_ns,
        command=rows[1::w],
        client_order_id=rows[2::w],
        price=rows[6::w],
        quantity=rows[7::w],
    )
    if any(order_ids := rows[3::w]):
        message.order_id.extend(order_ids)
    if any(opens := rows[8::w]):
        message.open.extend(opens)
    if any(filled := rows[9::w]):
        message.filled.extend(filled)
    if any(trade_ids := rows[10::w]):
        message.trade_id.extend(trade_ids)
    tail = _column(_KIND, rows[0::w])
    if any(flags := rows[5::w]):
        tail += _column(_FLAGS, flags)
    if any(reasons := rows[11::w]):
        tail += _column(_REASON, reasons)
    if max(instruments := rows[4::w]) < 128:
        tail += _column(_INSTRUMENT, instruments)
    else:
        message.instrument.extend(instruments)
    return message.SerializeToString() + tail


def _column(key: bytes, values: list[int]) -> bytes:
    """A packed column of values that are almost always below 128."""
    try:
        packed = bytes(values)
    except ValueError:  # one is above 255
        packed = b"\x80"
    return key + length_prefixed(packed if packed.isascii() else b"".join(map(varint, values)))


def _tag(field: int) -> bytes:
    """The key of a length-delimited field."""
    return varint(field << 3 | 2)


def varint(value: int) -> bytes:
    """The protobuf form of an unsigned number."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_prefixed(body: bytes) -> bytes:
    return varint(len(body)) + body


_KIND: Final = _tag(6)
_INSTRUMENT: Final = _tag(10)
_FLAGS: Final = _tag(11)
_REASON: Final = _tag(17)
_BYTES_FIELD_2: Final = _tag(2)


def wrap(body: bytes) -> bytes:
    """A message whose field 2 is `body`: SessionRequest.commands, SessionReply.reports and LinkReply.reports alike."""
    return _BYTES_FIELD_2 + varint(len(body)) + body


def unwrap(message: bytes) -> bytes | None:
    """Field 2 of a message that has it and nothing else, or None: then it has to be read the long way."""
    if message[:1] != _BYTES_FIELD_2:
        return None
    length = shift = 0
    for i, byte in enumerate(message[1:6], 2):
        length |= (byte & 127) << shift
        if byte < 128:
            return message[i:] if length == len(message) - i else None
        shift += 7
    return None


def read_reports(data: bytes) -> ReportBatch:
    """Raises: GarbledError."""
    try:
        return ReportBatch.FromString(data)
    except DecodeError as e:
        raise GarbledError("not a ReportBatch") from e


def report_columns(reports: ReportBatch) -> tuple[list[int], ...]:
    """All twelve columns, those left out as zeros; rows are `zip(*report_columns(reports))`."""
    zeros = [0] * len(reports.kind)
    return (
        reports.kind[:],
        reports.command[:] or zeros,
        reports.client_order_id[:] or zeros,
        reports.order_id[:] or zeros,
        reports.instrument[:] or zeros,
        reports.flags[:] or zeros,
        reports.price[:] or zeros,
        reports.quantity[:] or zeros,
        reports.open[:] or zeros,
        reports.filled[:] or zeros,
        reports.trade_id[:] or zeros,
        reports.reason[:] or zeros,
    )


def liquidity(row: ReportRow) -> Liquidity:
    """Which side of a trade it was, if it tells of one."""
    if row.kind not in (TRADED, BUSTED, CORRECTED):
        return LIQUIDITY_NONE
    if row.flags & AUCTION_TRADE:
        return LIQUIDITY_AUCTION
    return LIQUIDITY_MAKER if row.flags & MAKER else LIQUIDITY_TAKER


def later_reports(data: bytes, after: int) -> bytes:
    """The part of a numbered ReportBatch that comes after report `after`; some of it does."""
    reports = ReportBatch.FromString(data)
    skip = after + 1 - reports.first_seq
    if skip <= 0:
        return data
    rows = [value for row in list(zip(*report_columns(reports), strict=True))[skip:] for value in row]
    return write_reports(reports.home, reports.account, after + 1, reports.position, reports.time_ns, rows)


# Decimals


def ticks_of(text: str, tick_size: Decimal) -> int:
    """A price of whole ticks, of either sign. Raises: BadValueError (BAD_PRICE)."""
    if not text:
        raise BadValueError(BAD_PRICE, f"a price is needed, in steps of {tick_size:f}")
    ticks = _units(text, tick_size)
    if ticks is None or abs(ticks) >= PRICE_LIMIT:
        raise BadValueError(BAD_PRICE, f"price {shown(text)} is not on a tick of {tick_size:f}, or too far from zero")
    return ticks


def lots_of(text: str, lot_size: Decimal) -> int:
    """A quantity of whole lots, at least one. Raises: BadValueError (BAD_QUANTITY)."""
    lots = _units(text, lot_size)
    if lots is None or not 0 < lots < QUANTITY_LIMIT:
        raise BadValueError(BAD_QUANTITY, f"quantity {shown(text)} is not one lot of {lot_size:f} or more, or too many")
    return lots


def decimal_text(units: int, size: Decimal) -> str:
    """Ticks or lots as people write them: as many digits after the point as a tick or lot has."""
    return f"{_EXACT.multiply(Decimal(units), size):f}"


def notional_text(units: int, tick_size: Decimal, lot_size: Decimal) -> str:
    """Ticks times lots as people write a price times a quantity."""
    return decimal_text(units, _EXACT.multiply(tick_size, lot_size))


def shown(text: str) -> str:
    """Someone's input, cut and quoted for a message."""
    return repr(text[:32] + "…" if len(text) > 32 else text)


def _units(text: str, size: Decimal) -> int | None:
    """How many times `size` the text is; None if it is no number or not a whole number of times.

    A huge exponent is refused before it could become a huge integer.
    """
    if len(text) > DECIMAL_TEXT_MAX or not _DECIMAL.fullmatch(text):
        return None
    value = Decimal(text)
    if not value:
        return 0
    if not -60 < value.adjusted() < 60:
        return None
    try:
        units = _EXACT.divide(value, size)
        return int(units) if units == _EXACT.to_integral_value(units) else None
    except (Inexact, InvalidOperation):
        return None

"""What the venue answers, in words: execution reports, and the errors of the SDK.

A report is read in two ways. In words and decimals, for people: `kind`, `reason`, `side` and `liquidity` show as words,
`price` and the quantities are `Decimal`, in the instrument's units. As it came, for speed: `row` is the row of whole
ticks and lots, and a word is the number of the protocol that it stands for (`report.kind == TRADED`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

import grpc

from proto import orders_pb2 as pb
from proto.columns import (
    FLAG_SELL,
    MASS_CANCELED,
    PRIORITY_KEPT,
    REFUSED,
    REPEAT,
    UNKNOWN,
    ReportRow,
)
from proto.instrument import Instrument
from proto.orders import decimal_text, liquidity, report_columns
from proto.refusals import explain

NOT_KNOWN: Final = Decimal("NaN")


class Word(int):
    """A number of the protocol that shows as its name: `kind == TRADED`, and `str(kind) == "traded"`."""

    word: str

    def __new__(cls, number: int, word: str) -> Word:
        self = super().__new__(cls, number)
        self.word = word
        return self

    def __str__(self) -> str:
        return self.word

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(self.word, spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return Word, (int(self), self.word)


def words(enum: Any, prefix: str) -> dict[int, Word]:
    """The values of an enum of the protocol, as people write them: REPORT_MASS_CANCELED is mass-canceled."""
    return {number: Word(number, name.removeprefix(prefix).lower().replace("_", "-")) for name, number in enum.items()}


KINDS: Final = words(pb.ReportKind, "REPORT_")
REASONS: Final = words(pb.Reason, "REASON_")
SIDES: Final = words(pb.Side, "SIDE_")
LIQUIDITY: Final = words(pb.Liquidity, "LIQUIDITY_")


def word(among: Mapping[int, Word], number: int) -> Word:
    """A number of a later version of the protocol shows as itself."""
    return among[number] if number in among else Word(number, str(number))


class Report(NamedTuple):
    """One execution report: the answer to a command, or news of an order.

    home        the engine that numbers these reports
    seq         its number there, for this account: from 1, without holes; 0: a repeat, or a refusal by the door
    position    of the log record that caused it: all reports of one event have the same one, each side's
    time_ns     of that record, nanoseconds since the Unix epoch
    row         the columns as they came, in ticks and lots (proto/columns.py, ReportRow)
    definition  the instrument, or None while the client has not heard of it

    `price` is the trade's, or the order's limit; `quantity` the trade's, or the order's total; `open` what remains and
    `filled` what has traded so far: `Decimal`, in the instrument's units, NaN while the instrument is not known.
    `command` is the id of the command that this answers (0: none), `client_order_id` the order's own.
    """

    home: int
    seq: int
    position: int
    time_ns: int
    row: ReportRow
    definition: Instrument | None = None

    @property
    def kind(self) -> Word:
        """What happened: accepted, traded, canceled, replaced, refused, … (proto ReportKind)."""
        return word(KINDS, self.row.kind)

    @property
    def reason(self) -> Word:
        """Why it was refused, or canceled without being asked; else none (proto Reason)."""
        return word(REASONS, self.row.reason)

    @property
    def side(self) -> Word:
        """buy or sell."""
        return SIDES[self.row.flags & FLAG_SELL]

    @property
    def liquidity(self) -> Word:
        """Of a trade: maker, taker or auction; else none."""
        return LIQUIDITY[liquidity(self.row)]

    @property
    def symbol(self) -> str:
        """The instrument's symbol; `#id` while it is not known, and nothing for a mass cancel of everything."""
        if self.definition is not None:
            return self.definition.symbol
        return f"#{self.row.instrument}" if self.row.instrument else ""

    @property
    def instrument(self) -> int:
        """The instrument's id."""
        return self.row.instrument

    @property
    def command(self) -> int:
        return self.row.command

    @property
    def client_order_id(self) -> int:
        return self.row.client_order_id

    @property
    def order_id(self) -> int:
        """The order's public id, as the feed has it."""
        return self.row.order_id

    @property
    def trade_id(self) -> int:
        return self.row.trade_id

    @property
    def price(self) -> Decimal:
        return NOT_KNOWN if self.definition is None else _units(self.row.price, self.definition.tick_size)

    @property
    def quantity(self) -> Decimal:
        """Of a mass cancel, how many orders it canceled."""
        return Decimal(self.row.quantity) if self.row.kind == MASS_CANCELED else self._lots(self.row.quantity)

    @property
    def open(self) -> Decimal:
        return self._lots(self.row.open)

    @property
    def filled(self) -> Decimal:
        return self._lots(self.row.filled)

    @property
    def priority_kept(self) -> bool:
        """Of a replace: whether the order kept its place in the queue."""
        return bool(self.row.flags & PRIORITY_KEPT)

    @property
    def repeat(self) -> bool:
        """Whether this is an answer given again, to a command that was sent again."""
        return bool(self.row.flags & REPEAT)

    @property
    def detail(self) -> str:
        """Of a refusal: what the reason means, and what the instrument would have taken (proto/refusals.py)."""
        return explain(self.row.reason, self.definition) if self.row.kind in (REFUSED, UNKNOWN) else ""

    def _lots(self, lots: int) -> Decimal:
        return NOT_KNOWN if self.definition is None else _units(lots, self.definition.lot_size)

    def __str__(self) -> str:
        if self.row.kind in (REFUSED, UNKNOWN):
            return f"{self.kind} {self.symbol} {self.reason}, {self.detail}, id {self.command}"
        if self.row.kind == MASS_CANCELED:
            return f"{self.kind} {self.symbol or 'everything'}: {self.quantity} orders, id {self.command}"
        parts = [f"{self.kind} {self.symbol} {self.side} {self.quantity} @ {self.price}", f"open {self.open}"]
        parts += [f"{self.liquidity} of trade {self.trade_id}"] if self.trade_id else []
        parts += [str(self.reason)] if self.row.reason else []
        return ", ".join([*parts, f"id {self.client_order_id}"])

    def __repr__(self) -> str:
        return f"<Report {self.home}:{self.seq} {self}>"


def reports_of(batch: pb.ReportBatch, instruments: Mapping[Any, Instrument] | None = None) -> Iterator[Report]:
    """The reports of a batch, one by one, in words of these instruments, by id. Cost: 0.7 µs each."""
    known = instruments or {}
    for nth, columns in enumerate(zip(*report_columns(batch), strict=True)):
        row = ReportRow._make(columns)
        seq = batch.first_seq and batch.first_seq + nth
        yield Report(batch.home, seq, batch.position, batch.time_ns, row, known.get(row.instrument))


class MassCanceled(NamedTuple):
    """What a mass cancel did: how many orders were canceled, and the engines that did not say."""

    canceled: int
    engines_missing: list[int]


def _units(count: int, size: Decimal) -> Decimal:
    return Decimal(decimal_text(count, size))


# Errors


class ClientError(Exception):
    """The venue could not do what was asked."""


class RefusedError(ClientError):
    """A command was refused and had no effect.

    reason  why (proto Reason; it shows as a word)
    detail  which tick, which limits, which symbols there are; may be empty
    report  the venue's refusal; None if the command was not sent, since it could not have been taken
    """

    def __init__(self, reason: int, detail: str = "", report: Report | None = None) -> None:
        self.reason = word(REASONS, reason)
        self.detail = detail
        self.report = report
        super().__init__(f"refused: {self.reason}{f': {detail}' if detail else ''}")


class BadCommandError(RefusedError, ValueError):
    """A command that no venue could take was not sent: off the tick, beyond what a column holds, an id in use."""


class UnknownSymbolError(RefusedError, LookupError):
    """A symbol that the venue does not trade; `detail` names those that it does."""


class OutcomeUnknownError(ClientError):
    """A command was sent, and nobody said within the client's patience what became of it; `report.command` is its id.

    It may have had its effect: send the same again under the same id, which has one effect, or look at the order.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"command {report.command} was not answered by engine {report.home}")
        self.report = report


class UnreachableError(ClientError):
    """No engine that could take the session answers; the message says what was tried."""


class SessionClosedError(ClientError):
    """The session is not open: not entered yet, or closed, or its event loop has ended."""


class SessionError(ClientError):
    """The engine will not have this session, or this call; `code` is the status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


class IncompleteError(ClientError):
    """A list is not whole; the message says what is missing."""


class ReportsLostError(IncompleteError):
    """Reports that whoever reads will not get; `lost` has the first and the last number of them, by home."""

    def __init__(self, lost: Mapping[int, tuple[int, int]], why: str) -> None:
        parts = [f"engine {home}: {first:,} to {last:,}" for home, (first, last) in sorted(lost.items())]
        super().__init__(f"reports are lost ({'; '.join(parts) or 'without numbers'}): {why}")
        self.lost = dict(lost)

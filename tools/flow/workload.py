"""A benchmark's workload as an engine's commands, and the execution reports as the answers that benchmark asks for.

Many independent engines agree on the SHA-256 of the answers to a workload, so a venue that gives the same one matches
as they do. Answers are lines, sorted by (sequence, kind), joined by a newline each:

    0  accepted        0,sequence,side,order_id,price,quantity
    1  traded          1,sequence,price,quantity,maker_order_id,taker_order_id
    2  cancelled       2,sequence,side,order_id,price           also what an IOC order did not trade
    3  modified        3,sequence,side,order_id,price,quantity  the new price and quantity
    4  cancel refused  4,sequence,order_id
    5  modify refused  5,sequence,order_id

The flow's order ids are the orders' client order ids. A modify there is always "cancel, then enter again": a replace of
what is open that gives up its place. The flow is one participant's, who trades with himself.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from proto.columns import (
    ACCEPTED,
    CANCEL,
    CANCELED,
    FLAG_SELL,
    MAKER,
    MEANING_OPEN,
    NEW,
    REFUSED,
    REPLACE,
    REPLACED,
    REQUEUE,
    STP_NONE,
    TIF_IOC,
    TRADED,
    Batch,
    ReportRow,
)
from tools.flow import messages as flow
from tools.flow.messages import WorkloadRow

OWN: Final = 1 << 63  # cancels and modifies have this and their sequence as their own ids; order ids are below


_TRADED: Final = 1  # the one kind of line that answers no message


class AnswerError(ValueError):
    """A report that no answer of the benchmark's stands for: a venue that it was not made for, or a broken flow."""


class Answers(NamedTuple):
    """What a venue answered: the SHA-256 of the lines, and how many trades and resting orders they come to."""

    sha256: str
    trades: int
    resting: int


def batches(rows: Iterable[WorkloadRow], account: int, instrument: int, size: int) -> Iterator[Batch]:
    """The flow's commands, `size` at a time."""
    remaining = iter(rows)
    while part := list(islice(remaining, size)):
        batch = Batch(account, 0, STP_NONE, [], [], [], [], [], [], [])
        for kind, side, ioc, quantity, sequence, order_id, price in part:
            is_new = kind == flow.NEW
            flags = side * FLAG_SELL
            if kind == flow.MODIFY:
                flags |= MEANING_OPEN | REQUEUE
            elif ioc:
                flags |= TIF_IOC
            batch.op.append(NEW if is_new else CANCEL if kind == flow.CANCEL else REPLACE)
            batch.client_order_id.append(order_id if is_new else OWN | sequence)
            batch.instrument.append(instrument)
            batch.flags.append(flags)
            batch.price.append(price if kind != flow.CANCEL else 0)
            batch.quantity.append(quantity if kind != flow.CANCEL else 0)
            batch.target.append(order_id if not is_new else 0)
        yield batch


def answers(rows: Sequence[WorkloadRow], reports: Iterable[ReportRow]) -> Answers:
    """The answers that the account's `reports` amount to, each trade's two reports in their order.

    Cost: about 2 us a report. Raises: AnswerError.
    """
    entered = {row.order_id: row.sequence for row in rows if row.kind == flow.NEW}
    cancels = {row.sequence for row in rows if row.kind == flow.CANCEL}
    lines: list[tuple[int, int, str]] = []
    takers: dict[int, tuple[int, int]] = {}  # trade id -> sequence and order id of the taker
    live: dict[int, int] = {}
    trades = 0
    for report in reports:
        order_id = report.client_order_id
        live[order_id] = report.open
        if report.kind == TRADED and report.flags & MAKER:
            if report.trade_id not in takers:
                raise AnswerError(f"order {order_id} traded with another account")
            sequence, taker = takers.pop(report.trade_id)
            lines.append((sequence, 1, f"1,{sequence},{report.price},{report.quantity},{order_id},{taker}"))
            trades += 1
            continue
        command = report.command or order_id  # what is left of an IOC order answers no command but its own entry
        sequence = command ^ OWN if command >= OWN else entered[command]
        side = report.flags & FLAG_SELL
        if report.kind == TRADED:
            takers[report.trade_id] = sequence, order_id
        elif report.kind == ACCEPTED:
            lines.append((sequence, 0, f"0,{sequence},{side},{order_id},{report.price},{report.quantity}"))
        elif report.kind == CANCELED:
            lines.append((sequence, 2, f"2,{sequence},{side},{order_id},{report.price}"))
        elif report.kind == REPLACED:
            lines.append((sequence, 3, f"3,{sequence},{side},{order_id},{report.price},{report.open}"))
        elif report.kind == REFUSED and command >= OWN:
            del live[order_id]
            kind = 4 if sequence in cancels else 5
            lines.append((sequence, kind, f"{kind},{sequence},{order_id}"))
        else:
            raise AnswerError(f"message {sequence}: report of kind {report.kind}, reason {report.reason}")
    for _, order_id in takers.values():
        raise AnswerError(f"order {order_id} traded with another account")
    if missing := len(rows) - len({sequence for sequence, kind, _ in lines if kind != _TRADED}):
        raise AnswerError(f"{missing:,} messages have no answer: did this account use their ids before?")
    lines.sort(key=_by_sequence)
    text = "\n".join([line for _, _, line in lines])
    return Answers(hashlib.sha256(text.encode()).hexdigest(), trades, sum(map(bool, live.values())))


def _by_sequence(line: tuple[int, int, str]) -> tuple[int, int]:
    return line[:2]

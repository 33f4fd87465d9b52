"""The audit of drop copies: an order's life adds up, and nothing that was received is gone."""

import pytest

from proto.columns import (
    ACCEPTED,
    CANCELED,
    FLAG_SELL,
    MAKER,
    REFUSED,
    REPLACED,
    RESTATED,
    TRADED,
    TRIGGERED,
    ReportRow,
)
from tools.flow.acknowledged import Acknowledged, spans_of
from tools.run.audit.breaches import KEPT, LIFE, POSITIONS
from tools.run.audit.reports import ReportAudit

NEW = ReportRow(ACCEPTED, 1, 1, 11, 1, 0, 100, 10, 10, 0, 0, 0)


def traded(quantity: int, open: int, filled: int, trade_id: int = 1, flags: int = 0) -> ReportRow:
    return ReportRow(TRADED, 0, 1, 11, 1, flags, 100, quantity, open, filled, trade_id, 0)


def told(kind: int, total: int, open: int, filled: int) -> ReportRow:
    return ReportRow(kind, 0, 1, 11, 1, 0, 100, total, open, filled, 0, 0)


@pytest.mark.parametrize(
    ("rows", "breaches"),
    [
        ([NEW, traded(4, 6, 4), traded(6, 0, 10, 2)], 0),
        ([NEW, traded(4, 6, 4), told(CANCELED, 10, 0, 4)], 0),
        ([NEW, told(REPLACED, 12, 12, 0), traded(2, 10, 2), told(RESTATED, 8, 6, 2), told(TRIGGERED, 8, 6, 2)], 0),
        ([NEW, told(REFUSED, 0, 0, 0)], 0),
        ([NEW, told(CANCELED, 10, 0, 0), traded(10, 0, 10)], 2),  # behind its end, and what was not open
        ([NEW, traded(10, 0, 10), told(CANCELED, 10, 0, 10)], 1),
        ([NEW, traded(4, 7, 4)], 1),
        ([NEW, traded(4, 6, 5)], 1),
        ([NEW, traded(11, 0, 11)], 1),
        ([NEW, told(REPLACED, 12, 11, 0)], 1),
        ([NEW, NEW], 1),
        ([NEW, NEW._replace(order_id=12)], 1),  # an id that entered twice
        ([NEW._replace(open=9)], 1),
        ([traded(1, 5, 1)], 1),  # and was never accepted
    ],
)
def test_entered_is_open_and_traded_and_canceled(rows: list[ReportRow], breaches: int) -> None:
    audit = ReportAudit()
    audit.take(1, 7, 1, 0, rows)
    assert audit.breaches.counts == ({LIFE: breaches} if breaches else {})


def test_an_order_whose_first_reports_are_no_longer_kept_is_judged_from_there_on() -> None:
    audit = ReportAudit()
    audit.take(1, 7, 70_000, 0, [traded(4, 6, 4), told(CANCELED, 10, 0, 4)])
    assert (audit.breaches.counts, audit.whole) == ({}, False)
    audit.take(1, 7, 70_002, 0, [told(CANCELED, 10, 0, 4)])
    assert audit.breaches.counts == {LIFE: 1}


def test_a_hole_in_a_drop_copy_is_a_breach() -> None:
    audit = ReportAudit()
    audit.take(1, 7, 1, 0, [NEW])
    audit.take(1, 7, 3, 0, [traded(4, 6, 4)])
    assert audit.breaches.counts == {KEPT: 1}


def test_all_accounts_together_hold_nothing() -> None:
    audit = ReportAudit()
    audit.take(1, 7, 1, 0, [NEW, traded(4, 6, 4)])
    assert audit.net().counts == {POSITIONS: 1}
    seller = NEW._replace(order_id=12, flags=FLAG_SELL)
    audit.take(1, 8, 1, 0, [seller, traded(4, 6, 4, flags=FLAG_SELL | MAKER)._replace(order_id=12)])
    assert (audit.net().counts, audit.breaches.counts) == ({}, {})


def received(*parts: tuple[int, list[ReportRow]]) -> ReportAudit:
    acknowledged = Acknowledged()
    for first, rows in parts:
        acknowledged.add(1, 7, first, rows)
    return ReportAudit(spans_of(acknowledged.to_json()))


ROWS = [told(TRIGGERED, 10, 10, 0)] * 600


def test_what_was_received_must_be_in_the_drop_copy_as_it_was() -> None:
    same, other, shorter = (received((1, ROWS[:300]), (250, ROWS[:351])) for _ in range(3))
    same.take(1, 7, 1, 0, ROWS)
    other.take(1, 7, 1, 0, [*ROWS[:400], ROWS[0]._replace(open=9), *ROWS[401:]])
    shorter.take(1, 7, 1, 0, ROWS[:599])
    assert same.kept([1]) == (600, same.kept([1])[1])
    assert same.kept([1])[1].counts == {}
    assert other.kept([1])[1].texts == {
        KEPT: ["account 7 at engine-1: reports 256 to 511 are not as they were received"]
    }
    assert shorter.kept([1])[1].texts == {
        KEPT: ["account 7 at engine-1 had received reports to 600; its drop copy ends at 599"]
    }
    assert shorter.kept([2]) == (0, shorter.kept([2])[1])


def test_reports_older_than_those_that_are_kept_are_passed_over() -> None:
    audit = received((1, ROWS))
    audit.take(1, 7, 300, 0, ROWS[299:])
    found, breaches = audit.kept([1])
    assert (found, breaches.counts) == (89, {})  # of 512 on: what a whole sum is there of


def test_reports_that_were_missed_in_between_part_the_spans() -> None:
    audit = received((1, ROWS[:10]), (21, ROWS[20:30]))
    audit.take(1, 7, 1, 0, [*ROWS[:10], *[NEW] * 10, *ROWS[20:30]])
    assert audit.kept([1])[0] == 20

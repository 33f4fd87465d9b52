"""The feed held against the reports: what agrees passes, each way to disagree is named; the core keeps the rules."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from proto.columns import ACCEPTED, CANCELED, FLAG_SELL, MAKER, TRADED, ReportRow
from proto.feed import ADD, END, EXECUTE, OPEN, SELL
from proto.instrument import FIFO, PRO_RATA, Instrument
from tests.audited import END_NS, AuditedVenue, HeardInstrument
from tests.exchange import Exchange
from tests.flows import ADDED, ENGINE, INSTRUMENTS, Flow, Player, flows
from tools.flow.traders import made_traders
from tools.run.audit.breaches import BOOKS, PRIORITY, SIDES, Breaches
from tools.run.audit.reconcile import Live, Shown, reconcile, resting
from tools.run.audit.reports import ReportAudit

MAKES = ReportRow(ACCEPTED, 1, 1, 11, 1, FLAG_SELL, 100, 10, 10, 0, 0, 0)
TAKES = ReportRow(ACCEPTED, 1, 1, 12, 1, 0, 100, 4, 4, 0, 0, 0)
MADE = ReportRow(TRADED, 0, 1, 11, 1, FLAG_SELL | MAKER, 100, 4, 6, 4, 1, 0)
TOOK = ReportRow(TRADED, 1, 1, 12, 1, 0, 100, 4, 0, 4, 1, 0)


def traded(shown: int = 10, emptied: bool = False) -> HeardInstrument:
    """Order 11 rests, and 4 of it trade at 100."""
    heard = HeardInstrument(OPEN)
    heard.take((ADD | SELL | END, 1, 11, 100, 4 if emptied else shown, 0))
    heard.take((EXECUTE | SELL | END, 1, 11, 100, 4, 1))
    return heard


def reports(maker: list[ReportRow], taker: list[ReportRow]) -> ReportAudit:
    audit = ReportAudit(by_size=[1])
    audit.take(1, 7, 1, 0, maker)
    audit.take(1, 8, 1, 0, taker)
    return audit


@pytest.mark.parametrize(
    ("maker", "taker", "rule"),
    [
        ([MAKES, MADE], [TAKES, TOOK], ""),
        ([MAKES], [TAKES, TOOK], SIDES),  # the maker was told nothing
        ([MAKES, MADE], [TAKES], SIDES),
        ([MAKES], [TAKES], SIDES),
        ([MAKES, MADE._replace(price=101)], [TAKES, TOOK], SIDES),
        ([MAKES, MADE._replace(quantity=3)], [TAKES, TOOK], SIDES),
        ([MAKES, MADE._replace(flags=FLAG_SELL)], [TAKES, TOOK], SIDES),
        ([MAKES, MADE._replace(flags=FLAG_SELL)], [TAKES, TOOK._replace(flags=MAKER)], SIDES),
        ([MAKES, MADE, MADE._replace(trade_id=2)], [TAKES, TOOK, TOOK._replace(trade_id=2)], SIDES),  # not on the feed
    ],
)
def test_a_trade_is_told_to_both_sides_and_on_the_feed(
    maker: list[ReportRow], taker: list[ReportRow], rule: str
) -> None:
    found = reconcile(traded().watch.audit, reports(maker, taker), END_NS)
    assert list(found.counts) == ([rule] if rule else [])
    assert reconcile(traded().watch.audit, reports(maker, taker), 0).counts == {}  # all of it was later


def test_a_slice_that_does_not_follow_is_missed_and_one_that_does_belongs_to_the_same_order() -> None:
    heard = traded(emptied=True)  # and 6 of order 11 are hidden
    told = reports([MAKES, MADE], [TAKES, TOOK])
    assert reconcile(heard.watch.audit, told, END_NS).counts == {PRIORITY: 1}
    heard = HeardInstrument(OPEN)
    heard.take((ADD | SELL | END, 1, 11, 100, 4, 0))
    heard.take((EXECUTE | SELL, 1, 11, 100, 4, 1))
    heard.take((ADD | SELL | END, 1, 13, 100, 6, 0))
    assert reconcile(heard.watch.audit, told, END_NS).counts == {}
    heard.take((EXECUTE | SELL | END, 1, 13, 100, 2, 2))
    two = ReportRow(TRADED, 0, 2, 14, 1, FLAG_SELL | MAKER, 100, 2, 0, 2, 2, 0)  # says another order
    other = [ReportRow(ACCEPTED, 2, 2, 14, 1, FLAG_SELL, 100, 2, 2, 0, 0, 0), two]
    taker = [
        ReportRow(ACCEPTED, 2, 2, 15, 1, 0, 100, 2, 2, 0, 0, 0),
        ReportRow(TRADED, 2, 2, 15, 1, 0, 100, 2, 0, 2, 2, 0),
    ]
    found = reconcile(heard.watch.audit, reports([MAKES, MADE, *other], [TAKES, TOOK, *taker]), END_NS)
    assert found.counts == {SIDES: 1}


@pytest.mark.parametrize(("first", "second", "breaches"), [(2, 1, {}), (3, 0, {PRIORITY: 1}), (1, 2, {PRIORITY: 1})])
def test_a_level_is_shared_out_by_size(first: int, second: int, breaches: dict[str, int]) -> None:
    heard = HeardInstrument(OPEN, PRO_RATA)
    makers = [MAKES._replace(order_id=id, client_order_id=id, quantity=5, open=5) for id in (21, 22)]
    taker = [TAKES._replace(quantity=3, open=3)]
    for id in (21, 22):
        heard.take((ADD | SELL | END, 1, id, 100, 5, 0))
    left, trade = 3, 0
    for id, quantity in ((21, first), (22, second)):
        if quantity:
            left, trade = left - quantity, trade + 1
            heard.take((EXECUTE | SELL | (0 if left else END), 1, id, 100, quantity, trade))
            made = MADE._replace(order_id=id, client_order_id=id, quantity=quantity, open=5 - quantity, filled=quantity)
            makers.append(made._replace(trade_id=trade))
            taker.append(TOOK._replace(quantity=quantity, open=left, filled=3 - left, trade_id=trade))
    told = ReportAudit(by_size=[1])
    told.take(1, 7, 1, -1, makers[:2])
    told.take(1, 7, 3, 0, makers[2:])
    told.take(1, 8, 1, 0, taker)
    assert reconcile(heard.watch.audit, told, END_NS).counts == breaches


SHOWN = Shown(1, 11, 1, 100, 6)
LIVE = Live(11, 1, 6, True)


@pytest.mark.parametrize(
    ("shown", "live", "rows", "says"),
    [
        ([SHOWN], [LIVE], [MAKES, MADE], ""),
        ([SHOWN._replace(id=31)], [LIVE], [MAKES, MADE], ""),  # a later slice
        ([], [LIVE._replace(visible=False)], [MAKES, MADE], ""),  # a stop
        ([SHOWN._replace(quantity=7)], [LIVE], [MAKES, MADE], "shows 7 on the feed, and has 6 open"),
        ([SHOWN._replace(id=31, price=99)], [LIVE], [MAKES, MADE], "rests on instrument 1 at 99, and is nobody's"),
        ([], [LIVE], [MAKES, MADE], "is said to be in the book, and is not on the feed"),
        ([SHOWN], [], [MAKES, MADE], "has 6 open by its reports, and is not live at its engine"),
        ([SHOWN], [LIVE._replace(open=10)], [MAKES, MADE], "has 10 open at its engine, 6 by its reports"),
        ([SHOWN], [], [MAKES, MADE._replace(kind=CANCELED, open=0, filled=0)], "has come to its end, and rests"),
        ([], [LIVE._replace(order_id=77, visible=False)], [], "is live at its engine, and no report tells of it"),
    ],
)
def test_what_rests_is_what_the_reports_leave_open(
    shown: list[Shown], live: list[Live], rows: list[ReportRow], says: str
) -> None:
    found = resting(shown, live, reports(rows, []), END_NS, [1])
    assert [text.endswith(says) or says in text for texts in found.texts.values() for text in texts][:1] == (
        [True] if says else []
    )
    if rows:
        later = resting(shown, live, reports(rows, []), 0, [1])
        assert later.counts == {}  # the order was told of since


def test_where_not_all_were_asked_only_what_rests_is_judged() -> None:
    assert resting([SHOWN], None, reports([MAKES, MADE], []), END_NS, [1]).counts == {}
    assert resting([SHOWN._replace(id=31, price=9)], None, reports([MAKES, MADE], []), END_NS, [1]).counts == {BOOKS: 1}


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(flow=flows())
def test_whatever_the_core_does_by_the_rules_is_no_breach(flow: Flow) -> None:
    home, steps = flow
    venue = AuditedVenue(ENGINE, INSTRUMENTS, [ADDED])
    Player(home, venue).play(steps)
    assert venue.breaches() == Breaches()


PLAIN = Instrument(1, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000)
MARKET = (PLAIN, replace(PLAIN, id=2, symbol="BRAVO"), replace(PLAIN, id=4, symbol="DELTA", allocation=PRO_RATA))


@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_runs_traders_do_in_plain_and_mixed_markets_is_no_breach(seed: int) -> None:
    print(f"seed {seed}")
    assert MARKET[0].allocation == FIFO
    exchange = Exchange(made_traders(10, MARKET, seed), MARKET)
    exchange.run(8)
    assert exchange.audited.breaches() == Breaches()
    audit = exchange.audited.watches[1].audit
    assert audit.executions > 500
    assert len(audit.shares) > 50
    assert any(resting.next_id for told in audit.told.values() for resting in told.resting)

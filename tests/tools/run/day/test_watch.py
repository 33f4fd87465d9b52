"""What the judge makes of an instrument's feed: beside the core itself, and delta by delta."""

from dataclasses import replace
from decimal import Decimal

import pytest

from engine.core.commands import Roll
from proto.columns import BAND
from proto.feed import (
    ADD,
    AUCTION,
    BUST,
    CLOSED,
    DELETE,
    EXECUTE,
    INDICATION,
    OPEN,
    PRE_OPEN,
    SELL,
    STATISTICS,
    STATUS,
    TRADE,
    Extra,
    Indication,
    Statistics,
    Status,
)
from proto.instrument import PRO_RATA, Instrument
from tests.audited import HeardInstrument
from tests.exchange import Exchange
from tools.flow.traders import made_traders
from tools.run.day.plan import BAND as BAND_TICKS
from tools.run.day.plan import EXPECTED, JUMP
from tools.run.day.verdict import amiss, without_halts

BANDED = Instrument(
    1, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000, band=BAND_TICKS, auction_reference=9_000
)
PAIR = (BANDED, replace(BANDED, id=2, symbol="BRAVO", allocation=PRO_RATA, collar=40))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_whole_day_of_traders_is_heard_as_the_core_went_through_it(seed: int) -> None:
    print(f"seed {seed}")
    exchange = Exchange(made_traders(12, PAIR, seed), PAIR)
    exchange.enter(PRE_OPEN, 1, 2)
    exchange.watch()
    exchange.run(3)
    exchange.enter(AUCTION, 1, 2)
    exchange.run(1)
    exchange.enter(OPEN, 1, 2)
    exchange.run(3)
    exchange.agents[1].news.jump(1, JUMP)
    exchange.run(2)
    exchange.enter(OPEN, 1)
    exchange.run(2)
    exchange.enter(AUCTION, 1, 2)
    exchange.run(1)
    exchange.enter(CLOSED, 1, 2)
    sums = {id: market.book.session.told() for id, market in exchange.venue.markets.items()}
    for id in (1, 2):
        exchange.operate(Roll(id))
    for id, day in exchange.days.items():
        assert tuple(phase.state for phase in without_halts(day.phases)) == EXPECTED
        assert not day.doubted
        assert [session for session in day.sessions if session.said != session.added or not session.whole] == []
        assert [session.rolled for session in day.sessions] == [False] * (len(day.sessions) - 1) + [True]
        assert day.sessions[-2].added == sums[id]
        assert [amiss(uncross) for uncross in day.uncrosses] == [""] * len(day.uncrosses)
        assert all(uncross.volume and uncross.visible for uncross in day.uncrosses)
    assert [phase.state for phase in exchange.days[1].phases if phase.reason == BAND] == [AUCTION]
    assert [len(day.uncrosses) for day in exchange.days.values()] == [3, 2]
    assert exchange.audited.breaches().counts == {}


def begun(state: int = AUCTION) -> HeardInstrument:
    """Two buyers and a seller gather: 5 @ 101 and 5 @ 100 against 7 @ 100."""
    heard = HeardInstrument(state)
    add(heard, 1, 0, 101, 5)
    add(heard, 2, 0, 100, 5)
    add(heard, 3, SELL, 100, 7)
    tell(heard, INDICATION, Indication(100, 7, 3))
    return heard


def add(heard: HeardInstrument, order_id: int, side: int, price: int, quantity: int) -> None:
    heard.take((ADD | side, 1, order_id, price, quantity, 0))


def execute(heard: HeardInstrument, order_id: int, quantity: int, trade_id: int, price: int = 100) -> None:
    side = SELL if order_id in (3, 4) else 0
    heard.take((EXECUTE | side, 1, order_id, price, quantity, trade_id))


def tell(heard: HeardInstrument, op: int, extra: Extra, time_ns: int = 9) -> None:
    heard.take((op, 1, 0, 0, 0, 0), extra, time_ns)


def uncrossed(day: HeardInstrument, price: int = 100) -> None:
    """As it should be, if the price is."""
    for order_id, quantity, trade_id in ((1, 5, 1), (3, 5, 1), (2, 2, 2), (3, 2, 2)):
        execute(day, order_id, quantity, trade_id, price)


def test_an_uncross_is_its_trades_beside_what_was_indicated_and_seen() -> None:
    day = begun()
    uncrossed(day)
    tell(day, STATUS, Status(OPEN, 0))
    (uncross,) = day.day.uncrosses
    assert (uncross.prices, uncross.volume, uncross.trades, uncross.visible) == ((100,), 7, 2, 7)
    assert (uncross.indicated, uncross.crossed, uncross.withdrawn) == (Indication(100, 7, 3), False, 0)
    assert amiss(uncross) == ""


def test_what_is_wrong_with_an_uncross_is_said() -> None:
    wrong_price, two_prices, too_little, nothing = begun(), begun(), begun(), begun()
    tell(wrong_price, INDICATION, Indication(101, 7, 3))
    uncrossed(wrong_price)
    for order_id, quantity, trade_id, price in ((1, 3, 1, 100), (1, 2, 2, 101), (2, 2, 3, 100)):
        execute(two_prices, order_id, quantity, trade_id, price)
        execute(two_prices, 3, quantity, trade_id, price)
    execute(too_little, 1, 5, 1)
    execute(too_little, 3, 5, 1)
    days = (wrong_price, two_prices, too_little, nothing)
    for day in days:
        tell(day, STATUS, Status(OPEN, 0))
    assert [amiss(day.day.uncrosses[0]) for day in days] == [
        "traded at 100 ticks, 101 indicated",
        "traded at 2 prices: 100, 101",
        "left orders that could still trade",
        "did not trade what was indicated",
    ]


def test_an_indication_that_hides_what_could_trade_is_found_from_the_orders_seen() -> None:
    day = begun()
    add(day, 4, SELL, 101, 9)
    add(day, 5, 0, 101, 20)
    tell(day, INDICATION, Indication(100, 7, 18))  # it should be 16 at 101
    execute(day, 1, 5, 1)
    execute(day, 3, 5, 1)
    execute(day, 5, 2, 2)
    execute(day, 3, 2, 2)
    day.take((DELETE | SELL, 1, 4, 101, 9, 0))  # so that nothing crosses behind it
    tell(day, STATUS, Status(OPEN, 0))
    (uncross,) = day.day.uncrosses
    assert amiss(replace(uncross, withdrawn=0)) == "traded 7 lots, 16 would have at another price"


def test_other_halves_of_pairs_that_go_on_the_way_are_noted() -> None:
    day = begun()
    execute(day, 1, 5, 1)
    execute(day, 3, 5, 1)
    day.take((DELETE, 1, 2, 100, 5, 0))
    tell(day, STATUS, Status(CLOSED, 0))
    assert (day.day.uncrosses[0].withdrawn, amiss(day.day.uncrosses[0])) == (1, "")


def test_a_trade_while_open_is_none_of_an_uncross_and_counts_for_the_statistics() -> None:
    day = begun(OPEN)
    execute(day, 1, 5, 1, 101)
    day.take((TRADE | SELL, 1, 0, 102, 3, 2))
    tell(day, STATUS, Status(AUCTION, 0))
    tell(day, STATISTICS, Statistics(101, 102, 101, 102, 8, 811, 2))
    assert day.day.uncrosses == []
    assert day.day.sessions[0].said == day.day.sessions[0].added
    assert day.day.sessions[0].whole


def test_after_a_doubt_the_next_trades_number_says_whether_one_was_missed() -> None:
    unsure, missed, nothing_missed = begun(OPEN), begun(OPEN), begun(OPEN)
    for day in (unsure, missed, nothing_missed):
        execute(day, 1, 1, 1)
        day.day.doubt()
        tell(day, STATUS, Status(OPEN, 0))  # as an engine tells that comes back
    execute(missed, 1, 1, 3)
    execute(nothing_missed, 1, 1, 2)
    for day in (unsure, missed, nothing_missed):
        tell(day, STATUS, Status(CLOSED, 0))
        tell(day, STATISTICS, Statistics(1, 1, 1, 1, 1, 1, 1))
    assert [day.day.sessions[0].whole for day in (unsure, missed, nothing_missed)] == [False, False, True]
    assert [phase.state for phase in unsure.day.phases] == [OPEN, CLOSED]


def test_after_a_doubt_an_uncross_is_judged_by_what_was_heard_since() -> None:
    day = begun()
    day.day.doubt()
    tell(day, STATUS, Status(AUCTION, 0))
    uncrossed(day)
    tell(day, STATUS, Status(OPEN, 0))
    (uncross,) = day.day.uncrosses
    assert (uncross.indicated, uncross.visible, uncross.crossed, amiss(uncross)) == (None, 7, False, "")


def test_a_roll_begins_statistics_anew_and_a_close_without_trades_is_none() -> None:
    day = begun(OPEN)
    tell(day, STATUS, Status(CLOSED, 0))
    tell(day, STATISTICS, Statistics(0, 0, 0, 0, 0, 0, 0))
    tell(day, STATISTICS, Statistics(0, 0, 0, 0, 0, 0, 0))
    assert [session.rolled for session in day.day.sessions] == [False, True]


def test_statistics_that_were_not_begun_anew_are_found() -> None:
    day = begun(OPEN)
    execute(day, 1, 5, 1, 101)
    tell(day, STATUS, Status(CLOSED, 0))
    told = Statistics(101, 101, 101, 101, 5, 505, 1)
    tell(day, STATISTICS, told)
    tell(day, STATISTICS, told)
    assert [session.said == session.added for session in day.day.sessions] == [True, False]


def test_statistics_that_take_in_a_busted_trade_are_not_judged_until_the_roll() -> None:
    day = begun(OPEN)
    execute(day, 1, 5, 1, 101)
    tell(day, STATUS, Status(CLOSED, 0))
    tell(day, STATISTICS, Statistics(101, 101, 101, 101, 5, 505, 1))
    day.take((BUST, 1, 0, 0, 0, 1))
    tell(day, STATISTICS, Statistics(101, 101, 101, 101, 0, 0, 0))
    tell(day, STATISTICS, Statistics(0, 0, 0, 0, 0, 0, 0))
    assert [(session.whole, session.rolled) for session in day.day.sessions] == [
        (True, False),
        (False, False),
        (True, True),
    ]


def test_after_a_doubt_the_state_that_the_book_is_in_counts() -> None:
    heard = begun(PRE_OPEN)
    heard.day.doubt()
    for state in (PRE_OPEN, AUCTION, AUCTION):
        heard.day.seen_as(Status(state, 0), 7)
    tell(heard, STATUS, Status(OPEN, 0))
    assert [phase.state for phase in heard.day.phases] == [PRE_OPEN, AUCTION, OPEN]

"""Agents against the matching core itself: deterministic, busy, and never out of step with the venue."""

from dataclasses import replace
from decimal import Decimal

from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    AUCTION_TRADE,
    BAND,
    CANCELED,
    CAPPED,
    EXPIRED,
    MALFORMED,
    MASS_CANCEL,
    MASS_CANCELED,
    NEW,
    NO_REASON,
    OCO,
    POST_ONLY,
    REFUSED,
    REPLACE,
    REPLACED,
    RESTATED,
    SELF_TRADE,
    TIF_DAY,
    TIF_MASK,
    TIF_SHIFT,
    TRADED,
    TRIGGERED,
    TYPE_MASK,
    TYPE_SHIFT,
    TYPE_STOP_LIMIT,
    UNAVAILABLE,
    WRONG_STATE,
    ReportRow,
    is_peg,
)
from proto.feed import AUCTION, CLOSED, OPEN, PRE_OPEN
from proto.instrument import Instrument
from tests.exchange import Exchange
from tools.flow.traders import AWAY_S, RESTING_GOAL, STP_MODES, MarketMaker, News, made_traders

SEED = 3
INSTRUMENTS = tuple(
    Instrument(i, symbol, 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000)
    for i, symbol in enumerate(("ALFA", "BRAVO", "CHARLIE", "DELTA", "ECHO", "FOXTROT"), 1)
)


def test_with_one_seed_agents_send_the_same_commands_and_with_another_others() -> None:
    runs = []
    for seed in (SEED, SEED, SEED + 1):
        exchange = Exchange(made_traders(4, INSTRUMENTS, seed), INSTRUMENTS)
        exchange.run(3)
        runs.append(exchange.sent)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_agents_know_exactly_the_orders_that_rest_for_them() -> None:
    exchange = Exchange(made_traders(12, INSTRUMENTS, SEED), INSTRUMENTS)
    exchange.run(10)
    assert {TRIGGERED, RESTATED} <= {report.kind for report in exchange.reports}
    for agent in exchange.agents.values():
        orders = exchange.venue.open_orders(agent.account)
        live = {o.client_order_id: (o.instrument, o.side, o.open) for o in orders}
        assert {i: (o.instrument, o.sell, o.open) for i, o in agent.orders.items()} == live
        told = {o.client_order_id: o.price for o in orders if not is_peg(o.flags)}  # pegs move unsaid
        assert {i: agent.orders[i].price for i in told} == told
        asleep = {o.client_order_id: o.more.stop_price for o in orders if o.more and not o.more.fired}
        assert {i: order.stop_price for i, order in agent.orders.items() if order.stop_price} == {
            i: stop_price for i, stop_price in asleep.items() if stop_price
        }
        assert not any(order.busy for order in agent.orders.values())
    assert sum(agent.position[1] for agent in exchange.agents.values()) == 0
    exchange.venue.check()


def test_a_stop_that_has_fired_is_the_limit_order_it_is() -> None:
    noise = made_traders(2, INSTRUMENTS, SEED)[1]
    stop = next(c for c in noise.act(0.0, 200) if c.op == NEW and c.flags & TYPE_MASK == TYPE_STOP_LIMIT)
    id, lots = stop.client_order_id, stop.quantity
    accepted = ReportRow(ACCEPTED, id, id, 9, stop.instrument, 0, stop.price, lots, lots, 0, 0, NO_REASON)
    noise.report(accepted)
    assert noise.orders[id].stop_price > 0
    noise.report(accepted._replace(kind=TRIGGERED, command=0))
    assert noise.orders[id].stop_price == 0


def test_the_default_traders_keep_a_thousand_orders_resting() -> None:
    exchange = Exchange(made_traders(12, INSTRUMENTS, SEED), INSTRUMENTS)
    exchange.run(6, commands=20)
    assert sum(len(agent.orders) for agent in exchange.agents.values()) >= 1_000


def test_one_maker_alone_on_one_instrument_keeps_a_thousand_orders_resting() -> None:
    agent = made_traders(1, INSTRUMENTS[:1], SEED)[0]
    assert isinstance(agent, MarketMaker)
    exchange = Exchange([agent], INSTRUMENTS[:1])
    exchange.run(10, commands=200)
    assert len(agent.orders) >= 1_000
    assert len(agent.orders) == min(len(agent.orders), 2 * agent.levels)


def test_the_first_commands_of_makers_are_their_opening_ladders() -> None:
    agents = [agent for agent in made_traders(12, INSTRUMENTS, SEED) if isinstance(agent, MarketMaker)]
    opening = sum(len(agent.act(0.0, 10_000)) for agent in agents)
    assert opening >= RESTING_GOAL


def test_noise_uses_every_kind_of_command_and_meets_refusals_and_trades() -> None:
    exchange = Exchange(made_traders(12, INSTRUMENTS, SEED), INSTRUMENTS)
    exchange.run(30)
    assert {report.kind for report in exchange.reports} == {
        ACCEPTED, TRADED, CANCELED, REPLACED, REFUSED, MASS_CANCELED, TRIGGERED, RESTATED
    }  # fmt: skip
    refused = sum(report.kind == REFUSED for report in exchange.reports)
    assert refused < len(exchange.sent) / 10
    assert not any(report.reason == MALFORMED for report in exchange.reports if report.kind == REFUSED)
    assert {OCO, SELF_TRADE, EXPIRED} <= {report.reason for report in exchange.reports if report.kind == CANCELED}
    new = [command for command in exchange.sent if command.op == NEW]
    assert {command.flags >> 8 & 3 for command in exchange.sent if command.op == REPLACE} == {0, 1, 2}
    assert {(command.flags & TYPE_MASK) >> TYPE_SHIFT for command in new} == set(range(8))
    assert {(command.flags & TIF_MASK) >> TIF_SHIFT for command in new} == set(range(5))
    for flag in (POST_ONLY, ALL_OR_NONE, CAPPED):
        assert any(command.flags & flag for command in new), flag
    said = [command.terms for command in new if command.terms is not None]
    assert all(any(terms[i] for terms in said) for i in range(6)), "stop, display, minimum, expiry, offset, link"
    assert any(command.op == MASS_CANCEL for command in exchange.sent)
    assert {agent.stp for agent in exchange.agents.values()} == set(STP_MODES)


def test_before_the_opening_agents_enter_only_what_may_rest_and_the_books_cross() -> None:
    exchange = Exchange(made_traders(6, INSTRUMENTS, SEED), INSTRUMENTS)
    everything = tuple(instrument.id for instrument in INSTRUMENTS)
    exchange.enter(PRE_OPEN, *everything)
    exchange.run(3)
    assert not any(r.reason == WRONG_STATE or r.kind == TRADED for r in exchange.reports)
    exchange.enter(OPEN, *everything)
    uncrossed = {r.instrument for r in exchange.reports if r.kind == TRADED and r.flags & AUCTION_TRADE}
    assert uncrossed == set(everything)


def test_while_an_instrument_is_closed_agents_leave_it_alone_and_their_day_orders_are_gone() -> None:
    exchange = Exchange(made_traders(6, INSTRUMENTS, SEED), INSTRUMENTS)
    exchange.run(2)
    exchange.enter(CLOSED, 1)
    before = len(exchange.sent)
    exchange.run(1)
    assert 1 not in {command.instrument for command in exchange.sent[before:]}
    live = [order for account in exchange.agents for order in exchange.venue.open_orders(account, 1)]
    assert live
    assert not any(order.flags & TIF_MASK == TIF_DAY for order in live)
    assert sum(o.instrument == 1 for agent in exchange.agents.values() for o in agent.orders.values()) == len(live)


def test_when_the_fair_price_jumps_beyond_the_band_matching_halts_the_instrument() -> None:
    banded = (replace(INSTRUMENTS[0], band=120, auction_reference=10_000),)
    exchange = Exchange(made_traders(12, banded, SEED), banded)
    exchange.enter(PRE_OPEN, 1)
    exchange.run(1)
    exchange.enter(OPEN, 1)
    exchange.run(2)
    assert exchange.venue.markets[1].state == OPEN
    exchange.agents[1].news.jump(1, 240)
    exchange.run(1)
    market = exchange.venue.markets[1]
    assert (market.state, market.reason) == (AUCTION, BAND)


def test_every_command_is_answered_once() -> None:
    exchange = Exchange(made_traders(6, INSTRUMENTS, SEED), INSTRUMENTS)
    exchange.run(10)
    answers = [r.command for r in exchange.reports if r.command and r.kind in (ACCEPTED, REPLACED, REFUSED)]
    cancels = [c.client_order_id for c in exchange.sent if c.op == 2]
    assert len(answers) <= len(exchange.sent)
    assert len(cancels) > 0


def test_an_instrument_whose_engine_does_not_answer_is_left_alone_for_a_while() -> None:
    for agent in made_traders(2, INSTRUMENTS, SEED):
        (first, *_) = agent.act(0.0, 1)
        refused = ReportRow(  # type: ignore[call-arg]
            REFUSED, first.client_order_id, first.client_order_id, 0, first.instrument, *[0] * 6, UNAVAILABLE
        )
        agent.report(refused)
        soon = {command.instrument for command in agent.act(0.1, 1_500)}
        later = {command.instrument for command in agent.act(0.1 + AWAY_S, 1_500)}
        assert first.instrument not in soon, agent.kind
        assert len(soon) == len(INSTRUMENTS) - 1, agent.kind
        assert first.instrument in later, agent.kind


def test_all_agents_of_a_run_see_the_same_fair_price_however_often_they_look() -> None:
    often, seldom = News(INSTRUMENTS, SEED), News(INSTRUMENTS, SEED)
    for step in range(100):
        often.fair(1, step * 0.1)
    assert often.fair(1, 10.0) == seldom.fair(1, 10.0)


def test_a_maker_pulls_all_its_quotes_once_when_the_fair_price_has_jumped() -> None:
    exchange = Exchange(made_traders(1, INSTRUMENTS, SEED), INSTRUMENTS)
    exchange.run(1, commands=1_000)
    (maker,) = exchange.agents.values()
    before = sum(order.instrument == 1 for order in maker.orders.values())
    maker.news.jump(1, 240)
    exchange.send(maker, pulled := maker.act(exchange.now_s, 5))
    assert [(c.op, c.instrument) for c in pulled if c.op == MASS_CANCEL] == [(MASS_CANCEL, 1)]
    assert before > 0
    assert not any(order.instrument == 1 for order in maker.orders.values())
    again = maker.act(exchange.now_s, 1_000)
    assert not any(command.op == MASS_CANCEL for command in again)
    assert sum(command.op == NEW and command.instrument == 1 for command in again) == before


def test_an_instrument_with_an_auction_reference_is_worth_that_at_first() -> None:
    assert News((replace(INSTRUMENTS[0], auction_reference=9_000),), SEED).fair(1, 0.0) == 9_000


def test_prices_stay_within_narrow_limits() -> None:
    narrow = (Instrument(1, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), -5, 5),)
    news = News(narrow, SEED)
    assert all(-5 <= news.fair(1, float(now)) <= 5 for now in range(200))
    agent = made_traders(1, narrow, SEED)[0]
    assert all(-5 <= command.price <= 5 for command in agent.act(0.0, 500))

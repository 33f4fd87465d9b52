"""Agents against the matching core itself: deterministic, busy, and never out of step with the venue."""

from decimal import Decimal

from engine.types import (
    ACCEPTED,
    CANCELED,
    REFUSED,
    REPLACED,
    TRADED,
    UNAVAILABLE,
    Batch,
    ReportRow,
    report_rows,
)
from engine.venue import Venue
from proto.cluster import Instrument
from tools.traders import AWAY_S, RESTING_GOAL, Agent, Command, MarketMaker, News, made_traders

SEED = 3
INSTRUMENTS = tuple(
    Instrument(i, symbol, 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000)
    for i, symbol in enumerate(("ALFA", "BRAVO", "CHARLIE", "DELTA", "ECHO", "FOXTROT"), 1)
)


class Exchange:
    """Agents and a core in one process: each batch is applied at once, and every report delivered."""

    def __init__(self, agents: list[Agent]) -> None:
        self.venue = Venue(1, INSTRUMENTS)
        self.agents = {agent.account: agent for agent in agents}
        self.sent: list[Command] = []
        self.reports: list[ReportRow] = []
        self.position = 0

    def run(self, seconds: float, commands: int = 5, step_s: float = 0.1) -> None:
        for step in range(int(seconds / step_s)):
            for agent in self.agents.values():
                self.send(agent, agent.act(step * step_s, commands))

    def send(self, agent: Agent, commands: list[Command]) -> None:
        if not commands:
            return
        columns = [list(column) for column in zip(*commands, strict=True)]
        op, ids, instrument, flags, price, quantity, target = columns
        batch = Batch(agent.account, 0, 0, op, ids, instrument, flags, price, quantity, target)
        self.position += 1
        self.sent += commands
        for reports in self.venue.apply(self.position, self.position, [batch]).reports:
            for row in report_rows(reports.rows):
                self.reports.append(row)
                self.agents[reports.account].report(row)


def test_with_one_seed_agents_send_the_same_commands_and_with_another_others() -> None:
    runs = []
    for seed in (SEED, SEED, SEED + 1):
        exchange = Exchange(made_traders(4, INSTRUMENTS, seed))
        exchange.run(3)
        runs.append(exchange.sent)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_agents_know_exactly_the_orders_that_rest_for_them() -> None:
    exchange = Exchange(made_traders(6, INSTRUMENTS, SEED))
    exchange.run(10)
    for agent in exchange.agents.values():
        orders = exchange.venue.open_orders(agent.account)
        live = {o.client_order_id: (o.instrument, o.side, o.price, o.open) for o in orders}
        assert {i: (o.instrument, o.sell, o.price, o.open) for i, o in agent.orders.items()} == live
        assert not any(order.busy for order in agent.orders.values())
    assert sum(agent.position[1] for agent in exchange.agents.values()) == 0
    exchange.venue.check()


def test_the_default_traders_keep_a_thousand_orders_resting() -> None:
    exchange = Exchange(made_traders(12, INSTRUMENTS, SEED))
    exchange.run(6, commands=20)
    assert sum(len(agent.orders) for agent in exchange.agents.values()) >= 1_000


def test_one_maker_alone_on_one_instrument_keeps_a_thousand_orders_resting() -> None:
    agent = made_traders(1, INSTRUMENTS[:1], SEED)[0]
    assert isinstance(agent, MarketMaker)
    exchange = Exchange([agent])
    exchange.run(10, commands=200)
    assert len(agent.orders) >= 1_000
    assert len(agent.orders) == min(len(agent.orders), 2 * agent.levels)


def test_the_first_commands_of_makers_are_their_opening_ladders() -> None:
    agents = [agent for agent in made_traders(12, INSTRUMENTS, SEED) if isinstance(agent, MarketMaker)]
    opening = sum(len(agent.act(0.0, 10_000)) for agent in agents)
    assert opening >= RESTING_GOAL


def test_noise_uses_every_kind_of_command_and_meets_refusals_and_trades() -> None:
    exchange = Exchange(made_traders(6, INSTRUMENTS, SEED))
    exchange.run(20)
    assert {report.kind for report in exchange.reports} == {ACCEPTED, TRADED, CANCELED, REPLACED, REFUSED}
    refused = sum(report.kind == REFUSED for report in exchange.reports)
    assert refused < len(exchange.sent) / 10
    assert {command.flags >> 8 & 3 for command in exchange.sent if command.op == 3} == {0, 1, 2}
    assert {command.flags >> 4 & 7 for command in exchange.sent if command.op == 1} == {0, 3, 4}


def test_every_command_is_answered_once() -> None:
    exchange = Exchange(made_traders(6, INSTRUMENTS, SEED))
    exchange.run(10)
    answers = [r.command for r in exchange.reports if r.command and r.kind in (ACCEPTED, REPLACED, REFUSED)]
    cancels = [c.client_order_id for c in exchange.sent if c.op == 2]
    assert len(answers) <= len(exchange.sent)
    assert len(cancels) > 0


def test_an_instrument_whose_engine_does_not_answer_is_left_alone_for_a_while() -> None:
    for agent in made_traders(2, INSTRUMENTS, SEED):
        (first, *_) = agent.act(0.0, 1)
        refused = ReportRow(
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


def test_prices_stay_within_narrow_limits() -> None:
    narrow = (Instrument(1, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), -5, 5),)
    news = News(narrow, SEED)
    assert all(-5 <= news.fair(1, float(now)) <= 5 for now in range(200))
    agent = made_traders(1, narrow, SEED)[0]
    assert all(-5 <= command.price <= 5 for command in agent.act(0.0, 500))

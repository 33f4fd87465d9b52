"""The judge of a trading day, given one that went well, and others that did not."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from proto.columns import BAND
from proto.feed import (
    ADD,
    AUCTION,
    CLOSED,
    EXECUTE,
    INDICATION,
    OPEN,
    PRE_OPEN,
    SELL,
    STATISTICS,
    STATUS,
    Indication,
    Statistics,
    Status,
)
from proto.instrument import Instrument
from tests.audited import HeardInstrument
from tools.findings import FAILS, HOLDS, UNKNOWN, Finding
from tools.run.day.plan import Day
from tools.run.day.verdict import DayEvidence, day_to_json, happened, in_order, judge_day
from tools.run.drop_copies import OpenOrder
from tools.run.evidence import Evidence
from tools.run.page import page
from tools.run.verdict import Verdict as Judged

ALFA = Instrument(1, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000)
BRAVO = replace(ALFA, id=2, symbol="BRAVO", engine=2)
GTC, DAY, GTD = 0, 1, 2
SECOND = 1_000_000_000


class Feed:
    """What an instrument's feed tells, line by line; times in seconds."""

    def __init__(self, engine: int) -> None:
        self.heard = HeardInstrument(PRE_OPEN, engine=engine)
        self.day = self.heard.day
        self.at_s = 0.0
        self.trade_id = 0
        self.sums = Statistics(0, 0, 0, 0, 0, 0, 0)

    def state(self, state: int, reason: int = 0) -> None:
        self.heard.take((STATUS, 1, 0, 0, 0, 0), Status(state, reason), int(self.at_s * SECOND))

    def gather(self, price: int, quantity: int, order_id: int, above: int = 0) -> None:
        """A buyer, who would pay so much more, and a seller."""
        self.heard.take((ADD, 1, order_id, price + above, quantity, 0))
        self.heard.take((ADD | SELL, 1, order_id + 1, price, quantity, 0))
        self.heard.take((INDICATION, 1, 0, 0, 0, 0), Indication(price, quantity, 0))

    def cross(self, price: int, quantity: int, order_id: int) -> None:
        self.trade_id += 1
        self.heard.take((EXECUTE, 1, order_id, price, quantity, self.trade_id))
        self.heard.take((EXECUTE | SELL, 1, order_id + 1, price, quantity, self.trade_id))
        s = self.sums
        first = s.trades == 0
        self.sums = Statistics(
            price if first else s.open,
            max(s.high, price),
            price if first else min(s.low, price),
            price,
            s.volume + quantity,
            s.turnover + price * quantity,
            s.trades + 1,
        )

    def summed(self, more_volume: int = 0) -> None:
        said = self.sums._replace(volume=self.sums.volume + more_volume)
        self.heard.take((STATISTICS, 1, 0, 0, 0, 0), said, int(self.at_s * SECOND))

    def rolled(self) -> None:
        self.sums = Statistics(0, 0, 0, 0, 0, 0, 0)
        self.summed()


def went_well(feed: Feed, halted: bool = False) -> None:
    steps: list[tuple[float, int, int, Callable[[], None] | None]] = [
        (4, AUCTION, 0, lambda: feed.gather(10_000, 5, 10)),
        (8, OPEN, 0, lambda: feed.cross(10_000, 5, 10)),
        (32, AUCTION, 0, lambda: feed.gather(10_010, 7, 20)),
        (36, CLOSED, 0, lambda: feed.cross(10_010, 7, 20)),
    ]
    if halted:
        steps[2:2] = [
            (16, AUCTION, BAND, lambda: feed.gather(10_200, 3, 30)),
            (22, OPEN, 0, lambda: feed.cross(10_200, 3, 30)),
        ]
    for at_s, state, reason, then in steps:
        feed.at_s = at_s
        if state in (OPEN, CLOSED) and then:
            then()  # the uncross stands before the state that it leads to
        feed.state(state, reason)
        if state == AUCTION and then:
            then()
        feed.summed()
    feed.at_s = 38
    feed.rolled()


TOLD = (PRE_OPEN, AUCTION, OPEN, AUCTION, CLOSED)
TOLD_HALTED = (PRE_OPEN, AUCTION, OPEN, AUCTION, OPEN, AUCTION, CLOSED)


def evidence(alfa: Feed | None = None, bravo: Feed | None = None, **changes: Any) -> DayEvidence:
    """Two instruments of two engines; the second one was shocked and halted."""
    if alfa is None:
        went_well(alfa := Feed(1))
    if bravo is None:
        went_well(bravo := Feed(2), halted=True)
    whole = DayEvidence(
        day=Day(40.0, shocked=2, jump=240),
        instruments=(ALFA, BRAVO),
        watched={1: alfa.day, 2: bravo.day},
        began_ns=0,
        looks={(f"fabric-{n}", i): told for n in (1, 2) for i, told in ((1, TOLD), (2, TOLD_HALTED))},
        live=(OpenOrder(7, "ALFA", 1, GTC), OpenOrder(7, "BRAVO", 2, GTC), OpenOrder(8, "ALFA", 1, GTD)),
        lasting={7: 2, 8: 0},
        present=frozenset(("fabric-1", "fabric-2")),
    )
    return replace(whole, **changes)


def finding(evidence: DayEvidence, title: str) -> Finding:
    return next(each for each in judge_day(evidence) if each.title == title)


def test_a_good_day_holds_and_the_page_tells_it() -> None:
    findings = judge_day(evidence())
    assert [text for _, text in page(Judged(findings), width=110)] == [
        "The verdict holds.",
        " ✓ phases of the day  2 of 2 instruments went through pre-open, auction, open, auction, closed, as mirrors on",
        "                      2 machines showed",
        " ✓ auctions           5 uncrosses, each at the one price that was indicated, and no other would have traded",
        "                      more",
        "                      8.0 s  ALFA opens with 5 at 100.00",
        "                      8.0 s  BRAVO opens with 5 at 100.00",
        "                      22.0 s  BRAVO opens with 3 at 102.00",
        "                      36.0 s  ALFA closes with 7 at 100.10",
        "                      36.0 s  BRAVO closes with 7 at 100.10",
        " ✓ volatility halt    BRAVO jumped up by 2.40 at 16.0 s: the venue halted it, and an auction opened it",
        "                      16.0 s  BRAVO halted by its band; open again from 22.0 s",
        " ✓ the close          0 day orders live; 2 good till canceled and 1 good till a time carried over",
        " ✓ statistics         12 told on the feed, each equal to what the trades on it come to",
        "                      ALFA: open 100.00, high 100.10, low 100.00, last 100.10, volume 12 in 2 trades, VWAP",
        "                      100.058",
        "                      BRAVO: open 100.00, high 102.00, low 100.00, last 100.10, volume 15 in 3 trades, VWAP",
        "                      100.447",
    ]


def test_the_json_has_phases_events_and_statistics() -> None:
    said = day_to_json(evidence())
    assert said["phases"]["ALFA"][:2] == [{"at_s": 0.0, "state": "pre-open"}, {"at_s": 4.0, "state": "auction"}]
    assert [(event["at_s"], event["symbol"], event["what"]) for event in said["events"]] == [
        (8.0, "ALFA", "uncross"),
        (8.0, "BRAVO", "uncross"),
        (16.0, "BRAVO", "halt"),
        (22.0, "BRAVO", "uncross"),
        (36.0, "ALFA", "uncross"),
        (36.0, "BRAVO", "uncross"),
    ]
    assert said["events"][0] == {
        "at_s": 8.0, "symbol": "ALFA", "what": "uncross", "state": "open", "price": "100.00", "volume": "5", "trades": 1
    }  # fmt: skip
    assert said["statistics"]["ALFA"] == {
        "open": "100.00", "high": "100.10", "low": "100.00", "last": "100.10", "volume": "12", "trades": 2,
        "vwap": "100.058",
    }  # fmt: skip
    assert "day" not in Judged(()).to_json()
    assert Judged((), day=said).to_json()["day"] == said
    assert Evidence.__dataclass_fields__["day"].default is None


def test_what_happened_is_told_in_words_as_it_comes() -> None:
    went_well(bravo := Feed(2), halted=True)
    assert [event.text for event in happened(BRAVO, bravo.day)] == [
        "BRAVO opens with 5 at 100.00",
        "BRAVO halted by its band: auction",
        "BRAVO opens with 3 at 102.00",
        "BRAVO closes with 7 at 100.10",
    ]


def test_an_instrument_that_never_opened_again_fails() -> None:
    bravo = Feed(2)
    bravo.at_s = 4
    bravo.state(AUCTION)
    bravo.state(OPEN)
    bravo.at_s = 16
    bravo.state(AUCTION, BAND)
    day = evidence(bravo=bravo, looks={})
    assert finding(day, "volatility halt") == Finding(
        FAILS,
        "volatility halt",
        "BRAVO jumped up by 2.40 at 16.0 s",
        ("16.0 s  BRAVO halted by its band and never opened again",),
    )
    phases = finding(day, "phases of the day")
    assert (phases.mark, phases.details) == (FAILS, ("BRAVO went through pre-open, auction, open, auction",))


def test_a_shock_that_halts_nothing_fails() -> None:
    went_well(bravo := Feed(2))
    judged = finding(evidence(bravo=bravo), "volatility halt")
    assert (judged.mark, judged.text) == (FAILS, "BRAVO jumped up by 2.40 at 16.0 s and was not halted")


def test_a_halt_that_lasts_into_the_closing_auction_ends_with_it() -> None:
    bravo = Feed(2)
    for at_s, state, reason in ((4, AUCTION, 0), (8, OPEN, 0), (30, AUCTION, BAND), (36, CLOSED, 0)):
        bravo.at_s = at_s
        bravo.state(state, reason)
        bravo.summed()
    bravo.rolled()
    looks = {("fabric-1", 2): TOLD}
    marks = {each.title: each.mark for each in judge_day(evidence(bravo=bravo, looks=looks))}
    assert (marks["phases of the day"], marks["volatility halt"]) == (HOLDS, HOLDS)


def test_an_uncross_at_two_prices_fails() -> None:
    alfa = Feed(1)
    alfa.state(AUCTION)
    alfa.gather(10_000, 5, 10, above=1)
    alfa.cross(10_000, 3, 10)
    alfa.cross(10_001, 2, 10)
    alfa.at_s = 8
    alfa.state(OPEN)
    judged = finding(evidence(alfa=alfa), "auctions")
    assert (judged.mark, judged.text) == (FAILS, "1 of 4 went wrong")
    assert judged.details[0] == "8.0 s  ALFA opens with 5 at 100.00: traded at 2 prices: 10,000, 10,001"


def test_statistics_off_by_one_fail() -> None:
    went_well(alfa := Feed(1))
    alfa.at_s = 39
    alfa.summed(more_volume=1)
    judged = finding(evidence(alfa=alfa), "statistics")
    assert judged.mark == FAILS
    assert judged.details[0].startswith("39.0 s  ALFA: Statistics(open=0, high=0, low=0, last=0, volume=1")


def test_a_day_that_was_not_rolled_fails() -> None:
    went_well(alfa := Feed(1))
    del alfa.day.sessions[-1]
    judged = finding(evidence(alfa=alfa), "statistics")
    assert (judged.mark, judged.details[0]) == (FAILS, "ALFA: its day was not rolled")


@pytest.mark.parametrize(
    ("looks", "says"),
    [
        (
            (PRE_OPEN, OPEN, AUCTION, OPEN, CLOSED),
            "fabric-1 showed ALFA in pre-open, open, auction, open, closed, which is not what its feed told",
        ),
        ((PRE_OPEN, AUCTION, AUCTION, CLOSED), "fabric-1 showed ALFA only in pre-open, auction, auction, closed"),
    ],
)
def test_a_mirror_that_showed_other_phases_fails(looks: tuple[int, ...], says: str) -> None:
    judged = finding(evidence(looks={("fabric-1", 1): looks}), "phases of the day")
    assert (judged.mark, judged.details) == (FAILS, (says,))


def test_a_mirror_that_was_blind_for_a_while_must_be_right_in_the_end() -> None:
    missed = {("fabric-1", 1): (PRE_OPEN, CLOSED)}
    stuck = {("fabric-1", 1): (PRE_OPEN, AUCTION)}
    assert finding(evidence(looks=missed, troubled=True), "phases of the day").mark == HOLDS
    judged = finding(evidence(looks=stuck, troubled=True), "phases of the day")
    assert (judged.mark, judged.details) == (FAILS, ("fabric-1 shows ALFA as auction in the end",))
    gone = evidence(looks=stuck, troubled=True, present=frozenset())
    assert finding(gone, "phases of the day").mark == HOLDS


def test_a_day_order_that_is_live_after_the_close_fails() -> None:
    judged = finding(evidence(live=(OpenOrder(7, "ALFA", 3, DAY), OpenOrder(7, "ALFA", 4, GTC))), "the close")
    assert (judged.mark, judged.details) == (FAILS, ("account 7: day order 3 on ALFA is live",))


def test_orders_that_should_have_been_carried_over_and_were_not_fail() -> None:
    none = finding(evidence(live=(), lasting={}), "the close")
    assert (none.mark, none.details) == (FAILS, ("no order that is good till canceled is left",))
    fewer = finding(evidence(lasting={7: 3, 8: 0}), "the close")
    assert fewer.details == ("account 7: 2 orders live at the engines, 3 by its reports",)
    missing = finding(evidence(lasting={7: 3, 8: 0}, unasked=("at engine-2",)), "the close")
    assert (missing.mark, missing.details) == (
        HOLDS,
        ("not judged: the orders at engine-2, about which nobody answered",),
    )
    nobody = evidence(live=(), away=frozenset((1, 2)), lasting=None)
    assert finding(nobody, "the close").mark == UNKNOWN


def test_of_a_day_that_was_cut_short_only_what_was_is_judged() -> None:
    alfa, bravo = Feed(1), Feed(2)
    for feed in (alfa, bravo):
        feed.state(AUCTION)
    judged = judge_day(evidence(alfa, bravo, looks={}, cut_short=True))
    assert [each.mark for each in judged] == [UNKNOWN] * 5


def test_instruments_of_an_engine_that_is_down_are_not_judged() -> None:
    bravo = Feed(2)
    judged = judge_day(evidence(bravo=bravo, looks={}, away=frozenset((2,)), lasting=None))
    assert [each.mark for each in judged] == [HOLDS, HOLDS, UNKNOWN, HOLDS, HOLDS]
    assert judged[0].text.startswith("1 of 1 instrument went through")


def test_what_fell_into_a_restart_is_said_not_to_be_judged() -> None:
    bravo = Feed(2)
    bravo.state(AUCTION)
    bravo.day.doubt()
    bravo.state(AUCTION)
    bravo.state(CLOSED)
    bravo.rolled()
    judged = judge_day(evidence(bravo=bravo, looks={}, troubled=True))
    assert [each.mark for each in judged] == [UNKNOWN, HOLDS, UNKNOWN, HOLDS, HOLDS]
    assert judged[0].details == ("BRAVO: heard pre-open, auction, closed; the rest fell into a restart of its engine",)


@pytest.mark.parametrize(("seen", "yes"), [((), True), ((1, 3), True), ((3, 1), False), ((1, 1), False)])
def test_states_seen_are_in_order_if_they_are_those_told_with_some_left_out(seen: tuple[int, ...], yes: bool) -> None:
    assert in_order(seen, (1, 2, 3)) == yes

"""The plan of a trading day, as tables."""

from decimal import Decimal

import pytest

from proto import cluster
from proto.feed import AUCTION, CLOSED, OPEN
from proto.instrument import FIFO, PRO_RATA
from tools.run.day.plan import BAND, COLLAR, JUMP, ROLL, Agenda, Day, PhaseChange, day_of, ruled
from tools.run.layout import made_up

DAY = Day(100.0, shocked=2, jump=JUMP)
VENUE = made_up(3, 6)


def test_the_steps_of_a_day_are_shares_of_its_length() -> None:
    assert DAY.steps == (
        PhaseChange(12.0, "opening auction", AUCTION, "opening auction"),
        PhaseChange(20.0, "trading", OPEN, "open"),
        PhaseChange(78.0, "closing auction", AUCTION, "closing auction"),
        PhaseChange(90.0, "closed", CLOSED, "closed: day orders expire"),
        PhaseChange(95.0, "closed", ROLL, "the day's roll: statistics begin anew"),
    )
    assert [step.at_s for step in Day(10.0, 1, JUMP).steps] == pytest.approx([1.2, 2.0, 7.8, 9.0, 9.5])


@pytest.mark.parametrize(
    ("now_s", "phase"),
    [
        (0.0, "pre-open"),
        (11.9, "pre-open"),
        (12.0, "opening auction"),
        (20.0, "trading"),
        (77.9, "trading"),
        (78.0, "closing auction"),
        (90.0, "closed"),
        (99.9, "closed"),
    ],
)
def test_the_phase_is_the_last_that_began(now_s: float, phase: str) -> None:
    assert DAY.phase(now_s) == phase


@pytest.mark.parametrize(("halted_s", "opens_s"), [(40.0, 54.0), (63.9, 77.9), (64.1, None), (80.0, None)])
def test_a_halted_instrument_opens_again_unless_the_closing_auction_comes_first(
    halted_s: float, opens_s: float | None
) -> None:
    assert DAY.reopens_s(halted_s) == (None if opens_s is None else pytest.approx(opens_s))


def test_the_shock_comes_while_the_market_trades_and_leaves_time_to_open_again() -> None:
    reopens_s = DAY.reopens_s(DAY.shock_s + 10)
    assert DAY.phase(DAY.shock_s) == "trading"
    assert reopens_s is not None
    assert DAY.phase(reopens_s) == "trading"
    assert abs(DAY.jump) > BAND
    assert DAY.shock_in_words(VENUE.instruments) == "news: BRAVO is worth 2.40 more"


def test_with_one_seed_the_same_instrument_is_shocked_the_same_way_and_every_one_may_be() -> None:
    days = [day_of(40.0, VENUE.instruments, seed) for seed in range(60)]
    assert days == [day_of(40.0, VENUE.instruments, seed) for seed in range(60)]
    assert {day.shocked for day in days} == {instrument.id for instrument in VENUE.instruments}
    assert {day.jump for day in days} == {-JUMP, JUMP}


def test_instruments_of_a_day_begin_closed_with_a_band_a_collar_and_a_reference_and_share_out_in_two_ways() -> None:
    first, second = map(ruled, VENUE.instruments[:2])
    assert (first.state, first.band, first.collar, first.auction_reference) == ("closed", BAND, COLLAR, 11_700)
    assert (first.allocation, second.allocation) == (FIFO, PRO_RATA)
    assert first.tick_size == Decimal("0.01")
    venue = cluster.Cluster("day", VENUE.engines, tuple(map(ruled, VENUE.instruments)))
    assert cluster.loads(cluster.dumps(venue)) == venue


def test_an_agenda_gives_each_step_once_when_it_is_due_and_several_when_it_was_late() -> None:
    agenda = Agenda(DAY)
    assert agenda.steps_due(11.9) == []
    assert [step.state for step in agenda.steps_due(12.0)] == [AUCTION]
    assert agenda.steps_due(12.1) == []
    assert [step.state for step in agenda.steps_due(91.0)] == [OPEN, AUCTION, CLOSED]


def test_the_shock_comes_once() -> None:
    agenda = Agenda(DAY)
    assert [agenda.shocks_due(now_s) for now_s in (39.9, 40.0, 40.1)] == [(), (2,), ()]


def test_a_halted_instrument_is_opened_again_once_and_not_behind_the_closing_auction() -> None:
    agenda = Agenda(DAY)
    agenda.steps_due(20.0)
    agenda.halted(2, 40.0)
    agenda.halted(1, 63.0)
    assert [agenda.openings_due(now_s) for now_s in (53.9, 54.1, 54.2)] == [[], [2], []]
    assert [step.state for step in agenda.steps_due(78.0)] == [AUCTION]  # noticed late: 1 was due at 77
    assert agenda.openings_due(78.0) == []
    agenda.halted(3, 79.0)
    assert agenda.openings_due(99.0) == []

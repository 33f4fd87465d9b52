"""What is counted where commands are sent: once each, whatever is answered, and all of it adds up."""

from hypothesis import given
from hypothesis import strategies as st

from proto.columns import ACCEPTED, CANCELED, REFUSED, TYPE_MARKET, TYPE_PEG_BID, UNAVAILABLE, UNKNOWN
from tests.tools.run.test_verdict import row, tally
from tools.flow.order_counts import Counted, Latencies, OrderCounts, added
from tools.flow.traders import Command


def test_a_tally_counts_each_command_once_however_often_it_is_answered() -> None:
    out = tally()
    out.report(1, 7, row(CANCELED, 1, 1), 9_000_000)
    out.send(7, [(2, 2)], 0)
    out.report(1, 7, row(UNKNOWN, 2, 2), 9_000_000)
    assert (out.sent, out.answered, out.unknown) == (4, 3, 1)
    assert out.waiting_by_instrument() == {2: 1}
    assert out.by_home == {1: 3}


def test_a_command_sent_again_is_not_answered_by_saying_that_it_cannot_be_sent() -> None:
    out = tally()
    out.send(7, [(2, 2), (3, 2)], 0)
    out.send_again(7, 2)
    for command in (2, 3):
        out.report(2, 7, row(REFUSED, command, command, reason=UNAVAILABLE), 9_000_000)
    assert (out.unknown, out.refusals) == (1, {"would trade": 1, "unavailable": 1})
    assert out.waiting_by_instrument() == {2: 1}
    out.report(2, 7, row(ACCEPTED, 2, 2), 9_000_000)
    assert out.waiting_by_instrument() == {}


def test_a_hole_in_the_numbers_of_reports_is_counted() -> None:
    out = OrderCounts()
    for first, count in ((5, 2), (7, 1), (10, 1), (9, 1), (0, 3), (11, 1)):
        out.numbered(1, 7, first, [row(CANCELED, 0, 1)] * count)
    assert out.missed == 2


def test_tallies_add_up() -> None:
    one = Counted.from_json(tally().to_json())
    both = added([one, Counted.from_json(tally().to_json())])
    assert (both.sent, both.answered, both.answers) == (6, 6, {"accepted": 4, "refused": 2})
    assert both.executed[1].buys.quantity == 10
    assert both.latencies.count == 6
    assert one.sent == 3


@given(durations=st.lists(st.integers(0, 10**11), min_size=1, max_size=200), q=st.floats(0.01, 1))
def test_a_quantile_is_at_most_three_per_cent_too_high(durations: list[int], q: float) -> None:
    latencies = Latencies()
    for duration in durations:
        latencies.add(duration)
    exact = sorted(durations)[max(1, -int(-len(durations) * q // 1)) - 1]
    quantile = latencies.quantile(q)
    assert quantile is not None
    assert exact <= quantile <= exact + exact / 32 + 1
    assert Latencies().quantile(q) is None


def test_an_order_that_entered_otherwise_than_it_was_sent_is_told_apart() -> None:
    sent = Command(1, 5, 1, 1, 100, 7, 0)
    entered = row(ACCEPTED, 5, 5, flags=1, price=100, quantity=7)
    assert sent.entered_as(entered)
    for changed in ({"quantity": 8}, {"price": 101}, {"flags": 0}, {"instrument": 2}):
        assert not sent.entered_as(entered._replace(**changed))
    for kind in (TYPE_MARKET, TYPE_PEG_BID):  # their price is not looked at
        assert sent._replace(flags=1 | kind).entered_as(entered._replace(price=0))

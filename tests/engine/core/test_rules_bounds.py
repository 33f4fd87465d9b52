"""What one command may set off is bounded: engine/RULES.md, 13. The numbers are small here; those of a venue stand in
engine/core/limits.py."""

import pytest

from engine.core.limits import LIMITS, Limits
from tests.transcript import Floor


@pytest.fixture
def floor() -> Floor:
    return Floor(limits=Limits(trades=3, settling=3, slices=4, waiting=3, own=2))


def test_the_bounds_of_a_venue() -> None:
    assert Limits(trades=10_000, settling=10_000, slices=1_000, waiting=1_000, own=200) == LIMITS


@pytest.mark.parametrize(("order", "fine"), [("8@100 show 2", True), ("9@100 show 2", False), ("5@100 show 1", False)])
def test_an_iceberg_shows_at_least_its_share(floor: Floor, order: str, fine: bool) -> None:
    told = floor.say(f"ann sell 1 {order}")[0]
    assert told.startswith("ann: accepted") if fine else told == "ann: refused 1, display too small"


def test_an_iceberg_is_not_replaced_by_one_of_more_slices(floor: Floor) -> None:
    floor.say("ann sell 1 8@100 show 2", "bob buy 1 3@100")
    assert floor.say("ann replace 2 of 1 to 9@100") == ["ann: refused 2, display too small"]
    assert floor.say("ann replace 3 of 1 to 7@100")[0].startswith("ann: replaced")


def test_an_incoming_order_trades_so_often_at_most_and_the_rest_of_it_is_canceled(floor: Floor) -> None:
    floor.say(*(f"ann sell {id} 1@10{id}" for id in range(1, 6)))
    told = floor.say("bob buy 1 4@105")
    assert told[1:5] == [
        "bob: traded 1 buy 1@101 on ALFA as taker, trade 1, open 3, filled 1",
        "bob: traded 1 buy 1@102 on ALFA as taker, trade 2, open 2, filled 2",
        "bob: traded 1 buy 1@103 on ALFA as taker, trade 3, open 1, filled 3",
        "bob: canceled 1 buy 4@105 on ALFA, open 0, filled 3, too many trades",
    ]
    assert floor.say("book") == ["ALFA asks: 1@104#4 1@105#5"]


@pytest.mark.parametrize("maker", ["sell 1 4@100 show 1", "sell 1 3@100 show 1", "sell 1 2@100 show 1"])
def test_so_many_trades_are_all_that_an_order_may_need(floor: Floor, maker: str) -> None:
    size = int(maker.split()[2].split("@")[0])
    floor.say(f"ann {maker}")
    told = floor.say(f"bob buy 1 {size}@100")
    assert any("too many trades" in line for line in told) == (size > 3)


@pytest.mark.parametrize("condition", ["fok", "aon", "min 4", "min 4 ioc"])
def test_what_must_trade_at_once_counts_no_further_trade(floor: Floor, condition: str) -> None:
    floor.say(*(f"ann sell {id} 1@10{id}" for id in range(1, 6)))
    told = floor.say(f"bob buy 1 4@105 {condition}")
    assert not any("traded" in line for line in told)
    assert floor.say("book") == ["ALFA asks: 1@101#1 1@102#2 1@103#3 1@104#4 1@105#5"]


def test_pro_rata_shares_are_trades_too(floor: Floor) -> None:
    floor.say(*(f"ann sell {id} 5@100 on RATA" for id in range(1, 6)))
    told = floor.say("bob buy 1 10@100 on RATA")
    assert "bob: canceled 1 buy 10@100 on RATA, open 0, filled 6, too many trades" in told


def test_settling_pauses_and_goes_on_with_the_next_record(floor: Floor) -> None:
    floor.say(*(f"{who} sell {id} 1@{100 + id}" for who, id in (("ann", 1), ("ann", 2), ("ann", 3), ("ann", 4))))
    floor.say(*(f"{who} buy {id} 1@market stop 101" for who, id in (("bob", 1), ("bob", 2), ("cat", 1))))
    first = floor.say("cat buy 9 1@101")
    assert [line.split(",")[0] for line in first if "triggered" in line] == [
        "bob: triggered 1 buy 1@0 on ALFA",
        "bob: triggered 2 buy 1@0 on ALFA",
    ]
    assert floor.venue.next_due_ns == 1
    assert floor.say("clock 2")[0] == "cat: triggered 1 buy 1@0 on ALFA, open 1, filled 0"
    assert floor.venue.next_due_ns == 0
    assert floor.say("book") == []


def test_a_command_in_between_is_carried_out_and_its_event_settles_on(floor: Floor) -> None:
    floor.say(*(f"ann sell {id} 1@{100 + id}" for id in range(1, 6)))
    floor.say(*(f"{who} buy {id} 1@market stop 101" for who, id in (("bob", 1), ("bob", 2), ("cat", 1))))
    floor.say("cat buy 9 1@101", "ann cancel 6 of 5", "book")
    assert floor.say("book") == []


def test_so_many_stops_conditional_orders_and_pegs_wait_at_most(floor: Floor) -> None:
    for order in ("1@market stop 200", "2@100 aon", "1@bid"):
        floor.say("desk roll ALFA", *(f"ann buy {id} {order}" for id in ("1", "2")))
        assert floor.say(f"ann buy 3 {order}") == ["ann: refused 3, too many waiting"], "two of one account"
        floor.say(f"bob buy 1 {order}")
        assert floor.say(f"cat buy 1 {order}") == ["cat: refused 1, too many waiting"], "three in all"
        assert floor.say(f"cat buy 2 {order} on BETA".replace("100", "10").replace("200", "20"))[0].startswith(
            "cat: acc"
        )
        floor = Floor(limits=floor.venue.trading.limits)


def test_one_that_goes_makes_room_and_a_replace_needs_none(floor: Floor) -> None:
    floor.say("ann buy 1 1@market stop 200", "ann buy 2 1@market stop 200")
    assert floor.say("ann replace 3 of 2 to 2@0 stop 201")[0].startswith("ann: replaced")
    floor.say("ann cancel 4 of 1")
    assert floor.say("ann buy 5 1@market stop 200")[0].startswith("ann: accepted")

"""What each type of order, condition and time in force does: a rule of engine/RULES.md, a test of its name."""

import pytest

from tests.transcript import Floor


@pytest.fixture
def floor() -> Floor:
    return Floor()


# Market orders and the collar


def test_a_market_order_on_an_empty_other_side_is_refused(floor: Floor) -> None:
    assert floor.say("ann buy 1 5@market") == ["ann: refused 1, no liquidity"]


def test_a_conditional_order_is_another_side_although_it_may_not_be_met(floor: Floor) -> None:
    floor.say("bob sell 1 9@100 aon")
    assert floor.say("ann buy 1 5@market") == [
        "ann: accepted 1 buy 5@0 on ALFA, open 5, filled 0",
        "ann: canceled 1 buy 5@0 on ALFA, open 0, filled 0, market remainder",
    ]


def test_a_market_order_does_not_trade_beyond_the_collar(floor: Floor) -> None:
    floor.say("ann sell 1 1@100 on COLLAR", "ann sell 2 1@106 on COLLAR")
    assert floor.say("bob buy 1 2@market on COLLAR")[2:3] == [
        "bob: canceled 1 buy 2@0 on COLLAR, open 0, filled 1, collar",
    ]


def test_the_collar_of_a_sell_is_below_the_last_trade(floor: Floor) -> None:
    floor.say("ann buy 1 1@100 on COLLAR", "ann buy 2 1@95 on COLLAR", "ann buy 3 1@94 on COLLAR")
    floor.say("bob sell 1 3@market on COLLAR")
    assert floor.say("book") == ["COLLAR bids: 1@94#3"]


def test_a_fired_stop_is_a_market_order_within_the_collar(floor: Floor) -> None:
    floor.say("ann sell 1 1@100 on COLLAR", "ann sell 2 1@106 on COLLAR", "bob buy 1 1@market stop 100 on COLLAR")
    assert floor.say("cat buy 1 1@100 on COLLAR")[-2:] == [
        "bob: canceled 1 buy 1@0 on COLLAR, open 0, filled 0, collar",
        "feed: execute COLLAR sell #1 1@100 trade 1.",
    ]


# Post-only


def test_a_post_only_order_never_takes_but_a_conditional_order_may_take_from_it(floor: Floor) -> None:
    floor.say("ann sell 1 5@100 aon")
    assert floor.say("bob buy 1 5@100 post") == [
        "bob: accepted 1 buy 5@100 on ALFA, open 5, filled 0",
        "bob: traded 1 buy 5@100 on ALFA as maker, trade 1, open 0, filled 5",
        "ann: traded 1 sell 5@100 on ALFA as taker, trade 1, open 0, filled 5",
        "feed: add ALFA buy #2 5@100; execute ALFA buy #2 5@100 trade 1.",
    ]


def test_post_only_is_not_looked_at_before_the_opening(floor: Floor) -> None:
    floor.say("ann sell 1 5@100 on FIRST")
    assert floor.say("bob buy 1 5@100 post on FIRST")[0] == "bob: accepted 1 buy 5@100 on FIRST, open 5, filled 0"


# Icebergs


def test_an_iceberg_enters_with_its_full_quantity_and_then_shows_its_tip(floor: Floor) -> None:
    floor.say("ann sell 1 5@100")
    assert floor.say("bob buy 1 12@100 show 3")[-1] == (
        "feed: execute ALFA sell #1 5@100 trade 1; add ALFA buy #2 3@100."
    )


def test_a_tip_that_is_traded_away_is_followed_by_the_next_at_the_back_with_a_new_public_id(floor: Floor) -> None:
    floor.say("ann buy 1 5@100 show 2", "bob buy 1 1@100")
    assert floor.say("cat sell 1 2@100")[-1] == "feed: execute ALFA buy #1 2@100 trade 1; add ALFA buy #4 2@100."
    assert floor.say("book") == ["ALFA bids: 1@100#2 2@100#4"]


def test_what_an_iceberg_hides_shrinks_first_and_nobody_sees_it(floor: Floor) -> None:
    floor.say("ann buy 1 9@100 show 2")
    assert floor.say("ann replace 2 of 1 to 4@100") == [
        "ann: replaced by 2 1 buy 4@100 on ALFA, open 4, filled 0, kept its place",
    ]
    assert floor.say("ann replace 3 of 1 to 1@100")[1:] == ["feed: modify ALFA buy #1 to 1."]


# Stops


def test_a_stop_sleeps_off_the_book_and_the_feed(floor: Floor) -> None:
    assert floor.say("ann buy 1 5@100 stop 105") == ["ann: accepted 1 buy 5@100 on ALFA, open 5, filled 0"]


@pytest.mark.parametrize(("stop", "fires"), [(101, False), (100, True), (99, True)])
def test_a_buy_stop_fires_when_the_last_trade_is_at_or_above_its_price(floor: Floor, stop: int, fires: bool) -> None:
    floor.say("ann sell 1 1@100", f"bob buy 1 5@90 stop {stop}", "cat buy 1 1@100")
    assert floor.say("book") == (["ALFA bids: 5@90#2"] if fires else [])


@pytest.mark.parametrize(("stop", "fires"), [(99, False), (100, True), (101, True)])
def test_a_sell_stop_fires_when_the_last_trade_is_at_or_below_its_price(floor: Floor, stop: int, fires: bool) -> None:
    floor.say("ann buy 1 1@100", f"bob sell 1 5@110 stop {stop}", "cat sell 1 1@100")
    assert floor.say("book") == (["ALFA asks: 5@110#2"] if fires else [])


def test_a_stop_that_is_already_breached_fires_on_entry(floor: Floor) -> None:
    floor.say("ann sell 1 1@100", "bob buy 1 1@100")
    assert floor.say("bob buy 2 5@90 stop 100") == [
        "bob: accepted 2 buy 5@90 on ALFA, open 5, filled 0",
        "bob: triggered 2 buy 5@90 on ALFA, open 5, filled 0",
        "feed: add ALFA buy #3 5@90.",
    ]


def test_a_replace_can_breach_a_stop(floor: Floor) -> None:
    floor.say("ann sell 1 1@100", "bob buy 1 1@100", "bob buy 2 5@90 stop 101")
    assert floor.say("bob replace 3 of 2 to 5@91 stop 100") == [
        "bob: replaced by 3 2 buy 5@91 on ALFA, open 5, filled 0, to the back",
        "bob: triggered by 3 2 buy 5@91 on ALFA, open 5, filled 0",
        "feed: add ALFA buy #3 5@91.",
    ]


def test_a_stop_that_fires_without_another_side_is_canceled(floor: Floor) -> None:
    floor.say("ann sell 1 1@100", "bob buy 1 1@market stop 100")
    assert floor.say("cat buy 1 1@100")[-3:-1] == [
        "bob: triggered 1 buy 1@0 on ALFA, open 1, filled 0",
        "bob: canceled 1 buy 1@0 on ALFA, open 0, filled 0, no liquidity",
    ]


def test_of_two_breached_stops_the_first_that_came_fires_first(floor: Floor) -> None:
    floor.say("ann sell 1 1@100", "ann sell 2 1@101", "bob buy 1 1@market stop 100", "cat buy 1 1@market stop 99")
    heard = floor.say("ann buy 3 1@100 stp none")
    assert [line for line in heard if "triggered" in line or "no liquidity" in line] == [
        "bob: triggered 1 buy 1@0 on ALFA, open 1, filled 0",
        "cat: triggered 1 buy 1@0 on ALFA, open 1, filled 0",
        "cat: canceled 1 buy 1@0 on ALFA, open 0, filled 0, no liquidity",
    ]


def test_a_stop_that_can_fire_comes_before_a_conditional_order_that_can_trade(floor: Floor) -> None:
    floor.say("ann buy 1 2@100", "ann sell 2 1@101", "bob sell 1 3@99 aon", "bob sell 2 1@market stop 101")
    assert floor.say("cat buy 1 2@101")[-1] == (
        "feed: execute ALFA sell #2 1@101 trade 1; add ALFA buy #5 1@101; execute ALFA buy #5 1@101 trade 2."
    )


def test_a_stop_does_not_fire_while_trading_is_halted(floor: Floor) -> None:
    floor.say("ann sell 1 1@100", "bob buy 1 1@100", "desk state ALFA auction", "bob buy 2 5@90 stop 100")
    assert floor.say("desk state ALFA open")[0] == "bob: triggered 2 buy 5@90 on ALFA, open 5, filled 0"


# Pegged orders


@pytest.mark.parametrize(
    ("order", "price"),
    [("buy 1 1@bid", 98), ("buy 1 1@bid-2", 96), ("buy 1 1@offer-1", 102), ("buy 1 1@mid", 100),
     ("sell 1 1@offer", 103), ("sell 1 1@offer+2", 105), ("sell 1 1@bid+1", 99), ("sell 1 1@mid", 101)],
)  # fmt: skip
def test_a_peg_stands_at_its_reference_and_its_offset(floor: Floor, order: str, price: int) -> None:
    floor.say("ann buy 1 5@98", "ann sell 2 5@103")
    side = order.split()[0]
    assert floor.say(f"bob {order}")[1:] == [f"feed: add ALFA {side} #3 1@{price}."]


@pytest.mark.parametrize("order", ["buy 1 1@bid+1", "buy 1 1@offer", "sell 1 1@offer-1", "sell 1 1@bid"])
def test_a_peg_may_not_reach_through_its_reference(floor: Floor, order: str) -> None:
    assert floor.say(f"bob {order}") == ["bob: refused 1, bad offset"]


def test_a_peg_without_a_reference_sleeps_until_there_is_one(floor: Floor) -> None:
    assert floor.say("bob buy 1 1@bid") == ["bob: accepted 1 buy 1@0 on ALFA, open 1, filled 0"]
    assert floor.say("ann buy 1 5@98")[1:] == ["feed: add ALFA buy #2 5@98; add ALFA buy #1 1@98."]
    assert floor.say("ann cancel 2 of 1")[1:] == ["feed: delete ALFA buy #2; delete ALFA buy #1."]


def test_a_peg_does_not_follow_pegs(floor: Floor) -> None:
    floor.say("ann buy 1 5@98", "ann sell 2 5@103", "bob buy 1 1@mid")
    assert floor.say("cat buy 1 1@bid", "book") == ["ALFA bids: 1@100#3 5@98#1 1@98#4", "ALFA asks: 5@103#2"]


def test_a_peg_that_is_moved_goes_to_the_back_of_the_level(floor: Floor) -> None:
    floor.say("ann buy 1 5@98", "bob buy 1 1@bid")
    assert floor.say("cat buy 1 1@99", "book") == ["ALFA bids: 1@99#3 1@99#2 5@98#1"]


@pytest.mark.parametrize(("order", "price"), [("buy 1 1@bid cap 97", 97), ("sell 1 1@offer cap 105", 105)])
def test_a_cap_is_the_worst_price_of_a_peg(floor: Floor, order: str, price: int) -> None:
    floor.say("ann buy 1 5@98", "ann sell 2 5@103")
    assert floor.say(f"bob {order}")[1].endswith(f"#3 1@{price}.")


def test_two_pegs_that_meet_in_the_middle_trade(floor: Floor) -> None:
    floor.say("ann buy 1 5@98", "ann sell 2 5@102", "bob buy 1 1@mid")
    assert floor.say("cat sell 1 1@mid")[1] == "cat: traded 1 sell 1@100 on ALFA as taker, trade 1, open 0, filled 1"


def test_a_post_only_peg_that_would_trade_when_it_is_moved_is_canceled(floor: Floor) -> None:
    floor.say("ann buy 1 5@98", "ann sell 2 5@103", "bob buy 1 1@mid", "cat sell 1 1@mid post")
    assert floor.say("ann sell 3 1@102")[1:] == [
        "cat: canceled 1 sell 1@101 on ALFA, open 0, filled 0, would trade",
        "feed: add ALFA sell #5 1@102; delete ALFA sell #4.",
    ]


# Conditional orders


def test_a_conditional_order_rests_off_the_visible_book(floor: Floor) -> None:
    assert floor.say("ann buy 1 5@100 aon") == ["ann: accepted 1 buy 5@100 on ALFA, open 5, filled 0"]


def test_on_entry_a_minimum_trades_at_once_or_not_at_all(floor: Floor) -> None:
    floor.say("ann sell 1 2@100")
    assert floor.say("bob buy 1 5@100 min 3", "book") == ["ALFA asks: 2@100#1"]
    assert floor.say("bob buy 2 5@100 min 2", "book") == ["ALFA bids: 3@100#3"]


def test_a_resting_all_or_none_is_never_partly_filled_and_blocks_nobody(floor: Floor) -> None:
    floor.say("ann sell 1 5@100 aon", "ann sell 2 2@100", "ann sell 3 2@101")
    assert floor.say("bob buy 1 4@101", "book") == []
    assert floor.say("bob cancel 2 of 1") == ["bob: refused 2, too late"]


def test_displayed_before_conditional_at_one_price(floor: Floor) -> None:
    floor.say("ann sell 1 2@100 aon", "ann sell 2 2@100")
    assert floor.say("bob buy 1 2@100")[-1] == "feed: execute ALFA sell #2 2@100 trade 1."


def test_a_conditional_order_at_a_better_price_comes_before_a_displayed_one_at_a_worse(floor: Floor) -> None:
    floor.say("ann sell 1 2@99 aon", "ann sell 2 2@100")
    assert floor.say("bob buy 1 2@100")[-1] == "feed: trade ALFA buy 2@99 trade 1."


def test_a_conditional_order_takes_as_soon_as_it_can(floor: Floor) -> None:
    floor.say("ann sell 1 4@100 aon", "bob buy 1 2@100")
    assert floor.say("cat buy 1 2@101")[-1] == (
        "feed: add ALFA buy #3 2@101; execute ALFA buy #3 2@101 trade 1; execute ALFA buy #2 2@100 trade 2."
    )


def test_two_conditional_orders_never_trade_with_each_other(floor: Floor) -> None:
    floor.say("ann sell 1 5@100 aon")
    assert floor.say("bob buy 1 5@100 min 1") == ["bob: accepted 1 buy 5@100 on ALFA, open 5, filled 0"]


def test_after_its_first_fill_a_minimum_lapses_and_the_rest_is_shown(floor: Floor) -> None:
    floor.say("ann sell 1 5@100 min 3")
    assert floor.say("bob buy 1 4@100")[-1] == "feed: trade ALFA buy 4@100 trade 1; add ALFA sell #1 1@100."


def test_a_minimum_at_once_is_had_or_refused(floor: Floor) -> None:
    floor.say("ann sell 1 2@100")
    assert floor.say("bob buy 1 5@100 min 3 ioc") == ["bob: refused 1, not fillable"]
    assert floor.say("bob buy 2 5@100 min 2 ioc")[1:3] == [
        "bob: traded 2 buy 2@100 on ALFA as taker, trade 1, open 3, filled 2",
        "bob: canceled 2 buy 5@100 on ALFA, open 0, filled 2, IOC remainder",
    ]


def test_all_or_none_at_once_is_fill_or_kill(floor: Floor) -> None:
    floor.say("ann sell 1 2@100")
    assert floor.say("bob buy 1 3@100 aon ioc") == ["bob: refused 1, not fillable"]
    assert floor.say("bob buy 2 2@100 aon ioc", "book") == []


def test_a_conditional_order_counts_for_no_best_price(floor: Floor) -> None:
    floor.say("ann buy 1 5@98", "ann buy 2 5@99 aon")
    assert floor.say("bob buy 1 1@bid")[1:] == ["feed: add ALFA buy #3 1@98."]


# One cancels the other


@pytest.mark.parametrize("event", ["cat buy 1 1@105", "bob cancel 3 of 1", "desk kill bob"])
def test_when_one_of_a_pair_trades_or_is_canceled_the_other_is_canceled(floor: Floor, event: str) -> None:
    floor.say("bob sell 1 1@105", "bob sell 2 1@market stop 95 oco 1")
    assert "bob: canceled 2 sell 1@0 on ALFA, open 0, filled 0, one cancels the other" in floor.say(event)


def test_when_one_of_a_pair_fires_the_other_is_canceled_before_it_trades(floor: Floor) -> None:
    floor.say("ann buy 1 2@95", "bob sell 1 1@105", "bob sell 2 1@market stop 95 oco 1")
    assert floor.say("cat sell 1 1@95")[-5:-1] == [
        "ann: traded 1 buy 1@95 on ALFA as maker, trade 2, open 0, filled 2",
        "bob: triggered 2 sell 1@0 on ALFA, open 1, filled 0",
        "bob: canceled 1 sell 1@105 on ALFA, open 0, filled 0, one cancels the other",
        "bob: traded 2 sell 1@95 on ALFA as taker, trade 2, open 0, filled 1",
    ]


def test_a_replace_keeps_the_link(floor: Floor) -> None:
    floor.say("bob sell 1 1@105", "bob sell 2 1@market stop 95 oco 1", "bob replace 3 of 1 to 2@106")
    assert floor.say("bob cancel 4 of 1")[1] == (
        "bob: canceled 2 sell 1@0 on ALFA, open 0, filled 0, one cancels the other"
    )


@pytest.mark.parametrize("terms", ["oco 9", "oco 2", "oco 1 on BETA"])
def test_a_link_names_a_live_order_of_the_instrument_that_is_not_linked_yet(floor: Floor, terms: str) -> None:
    floor.say("bob sell 1 1@50", "bob sell 2 1@50", "bob sell 3 1@50 oco 2")
    assert floor.say(f"bob sell 4 1@50 {terms}") == ["bob: refused 4, bad link"]


def test_a_mass_cancel_counts_both_of_a_pair(floor: Floor) -> None:
    floor.say("bob sell 1 1@105", "bob sell 2 1@106 oco 1")
    assert floor.say("bob mass-cancel 3") == [
        "bob: canceled 1 sell 1@105 on ALFA, open 0, filled 0, mass cancel",
        "bob: canceled 2 sell 1@106 on ALFA, open 0, filled 0, one cancels the other",
        "bob: mass-canceled by 3: 2",
        "feed: delete ALFA sell #1; delete ALFA sell #2.",
    ]


# GTD and day


def test_an_order_expires_before_the_first_command_at_or_after_its_time(floor: Floor) -> None:
    floor.say("ann sell 1 5@100 until 10")
    assert floor.say("clock 9") == []
    assert floor.say("clock 10") == [
        "ann: canceled 1 sell 5@100 on ALFA, open 0, filled 0, expired",
        "feed: delete ALFA sell #1.",
    ]


def test_orders_expire_in_order_of_expiry_then_of_age_each_in_an_event_of_its_own(floor: Floor) -> None:
    floor.say("ann sell 1 1@100 until 12", "ann sell 2 1@100 until 11", "bob sell 1 1@100 until 11")
    assert floor.say("clock 12")[-1] == "feed: delete ALFA sell #2. delete ALFA sell #3. delete ALFA sell #1."


def test_an_expiry_must_be_later_than_now(floor: Floor) -> None:
    floor.say("clock 10")
    assert floor.say("ann buy 1 1@100 until 10") == ["ann: refused 1, bad expiry"]


def test_day_orders_expire_at_the_close_and_others_stay(floor: Floor) -> None:
    floor.say("ann buy 1 1@99 day", "ann buy 2 1@98", "ann sell 3 1@105 stop 110 day")
    assert floor.say("desk state ALFA closed")[:2] == [
        "ann: canceled 1 buy 1@99 on ALFA, open 0, filled 0, expired",
        "ann: canceled 3 sell 1@105 on ALFA, open 0, filled 0, expired",
    ]
    assert floor.say("book") == ["ALFA bids: 1@98#2"]


# What does not go together


@pytest.mark.parametrize(
    "order",
    ["5@market post", "5@market until 50", "5@market aon", "5@100 show 2 ioc", "5@100 show 2 fok", "5@bid ioc",
     "5@100 stop 90 fok", "5@100 stop 90 post", "5@market stop 90 min 2", "5@100 show 2 aon", "5@mid min 2",
     "5@100 aon post", "5@100 min 2 post", "5@100 min 2 fok", "5@100 aon fok", "5@100 aon min 2"],
)  # fmt: skip
def test_terms_that_do_not_go_together_are_malformed(floor: Floor, order: str) -> None:
    assert floor.say(f"ann buy 1 {order}") == ["ann: refused 1, malformed"]


def test_a_replace_states_no_stop_price_unless_a_stop_sleeps(floor: Floor) -> None:
    floor.say("ann buy 1 5@100")
    assert floor.say("ann replace 2 of 1 to 4@100 stop 90") == ["ann: refused 2, malformed"]

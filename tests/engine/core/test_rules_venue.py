"""Self-trade prevention, allocation, trading states, auctions and the operator's desk: a rule, a test of its name."""

import pytest

from tests.transcript import Floor


@pytest.fixture
def floor() -> Floor:
    return Floor()


# Self-trade prevention


def test_decrement_shrinks_what_an_iceberg_hides_first(floor: Floor) -> None:
    floor.say("bob sell 1 5@100 show 2")
    assert floor.say("bob buy 2 3@101 stp decrement")[1:] == [
        "bob: restated 1 sell 2@100 on ALFA, open 2, filled 0, self-trade",
        "bob: canceled 2 buy 3@101 on ALFA, open 0, filled 0, self-trade",
    ]


def test_what_was_lost_to_decrement_did_not_trade(floor: Floor) -> None:
    floor.say("bob sell 1 1@100", "ann sell 1 5@100")
    assert floor.say("bob buy 2 3@100 fok stp decrement") == ["bob: refused 2, not fillable"]
    assert floor.say("bob buy 3 3@100 fok stp oldest", "book") == ["ALFA asks: 2@100#2"]


def test_a_conditional_order_is_met_only_where_it_would_trade(floor: Floor) -> None:
    floor.say("bob sell 1 5@100 aon")
    assert floor.say("bob buy 2 3@100")[1:] == ["feed: add ALFA buy #2 3@100."]
    assert floor.say("bob buy 3 5@100")[1:2] == ["bob: canceled 3 buy 5@100 on ALFA, open 0, filled 0, self-trade"]


def test_a_fired_stop_goes_by_the_mode_it_was_entered_with(floor: Floor) -> None:
    floor.say("ann sell 1 1@100", "bob sell 1 1@101", "bob buy 2 1@101 stop 100 stp none")
    assert floor.say("cat buy 1 1@100")[-1] == (
        "feed: execute ALFA sell #1 1@100 trade 1; execute ALFA sell #2 1@101 trade 2."
    )


# Pro-rata


def test_pro_rata_shares_in_proportion_rounded_down_and_what_is_left_over_goes_to_the_first(floor: Floor) -> None:
    floor.say("ann sell 1 10@100 on RATA", "bob sell 1 20@100 on RATA", "ann sell 2 5@100 on RATA")
    assert floor.say("cat buy 1 11@100 on RATA", "book") == ["RATA asks: 6@100#1 14@100#2 4@100#3"]


def test_the_first_takes_as_much_of_what_is_left_over_as_it_can(floor: Floor) -> None:
    floor.say("ann sell 1 9@100 on RATA", "bob sell 1 9@100 on RATA", "ann sell 2 9@100 on RATA")
    assert floor.say("cat buy 1 5@100 on RATA", "book") == ["RATA asks: 6@100#1 8@100#2 8@100#3"]


def test_pro_rata_counts_what_is_hidden(floor: Floor) -> None:
    floor.say("ann sell 1 9@100 show 1 on RATA", "bob sell 1 1@100 on RATA")
    assert floor.say("cat buy 1 5@100 on RATA", "book") == ["RATA asks: 1@100#2 1@100#8"]


def test_pro_rata_keeps_the_better_price_first(floor: Floor) -> None:
    floor.say("ann sell 1 9@101 on RATA", "bob sell 1 1@100 on RATA")
    assert floor.say("cat buy 1 2@101 on RATA")[-1] == (
        "feed: execute RATA sell #2 1@100 trade 1; execute RATA sell #1 1@101 trade 2."
    )


def test_pro_rata_deals_with_own_orders_first(floor: Floor) -> None:
    floor.say("ann sell 1 4@100 on RATA", "bob sell 1 4@100 on RATA")
    assert floor.say("bob buy 2 2@100 on RATA")[1:] == [
        "bob: canceled 2 buy 2@100 on RATA, open 0, filled 0, self-trade"
    ]
    assert floor.say("bob buy 3 2@100 stp oldest on RATA", "book") == ["RATA asks: 2@100#1"]


# Trading states


@pytest.mark.parametrize("state", ["halted", "closed"])
def test_no_orders_are_taken_while_halted_or_closed(floor: Floor, state: str) -> None:
    floor.say("ann buy 1 5@100", f"desk state ALFA {state}")
    assert floor.say("ann buy 2 5@100") == ["ann: refused 2, wrong state"]
    assert floor.say("ann replace 3 of 1 to 4@100") == ["ann: refused 3, wrong state"]


@pytest.mark.parametrize("state", ["pre-open", "open", "halted", "auction"])
def test_cancels_are_allowed_except_when_closed(floor: Floor, state: str) -> None:
    floor.say("ann buy 1 5@100", "desk state ALFA closed")
    assert floor.say("ann cancel 2 of 1") == ["ann: refused 2, wrong state"]
    floor.say(f"desk state ALFA {state}")
    assert floor.say("ann cancel 3 of 1", "book") == []


@pytest.mark.parametrize("order", ["5@market", "5@100 ioc", "5@100 fok"])
def test_what_cannot_rest_is_refused_before_the_opening(floor: Floor, order: str) -> None:
    assert floor.say(f"ann buy 1 {order} on FIRST") == ["ann: refused 1, wrong state"]


def test_before_the_opening_the_book_may_be_crossed_and_the_indication_is_published(floor: Floor) -> None:
    floor.say("ann buy 1 5@102 on FIRST")
    assert floor.say("bob sell 1 3@99 on FIRST")[1:] == [
        "feed: add FIRST sell #2 3@99; indication FIRST 3@100, imbalance 2."
    ]
    assert floor.say("bob cancel 2 of 1 on FIRST")[1:] == [
        "feed: delete FIRST sell #2; indication FIRST 0@0, imbalance 0."
    ]


def test_stops_pegs_and_conditional_orders_sleep_until_the_opening(floor: Floor) -> None:
    floor.say("ann buy 1 5@99 on FIRST", "ann buy 2 5@bid on FIRST", "bob sell 1 5@99 aon on FIRST")
    assert floor.say("book") == ["FIRST bids: 5@99#1"]
    assert floor.say("desk state FIRST open")[2] == (
        "feed: status FIRST open; execute FIRST buy #1 5@99 trade 1; "
        "statistics FIRST open 99 high 99 low 99 last 99 volume 5 turnover 495 trades 1."
    )


def test_pegs_leave_the_book_when_open_ends(floor: Floor) -> None:
    floor.say("ann buy 1 5@99", "bob buy 1 5@bid", "desk state ALFA halted")
    assert floor.say("book") == ["ALFA bids: 5@99#1"]
    assert floor.say("desk state ALFA open", "book") == ["ALFA bids: 5@99#1 5@99#2"]


def test_a_state_does_not_follow_itself(floor: Floor) -> None:
    assert floor.say("desk state ALFA open") == ["desk: refused, nothing to change"]


# Uncross


def test_then_it_leaves_the_least_imbalance(floor: Floor) -> None:
    floor.say("ann buy 1 4@101 on FIRST", "ann buy 2 3@100 on FIRST")
    assert floor.say("bob sell 1 4@99 on FIRST")[1].endswith("indication FIRST 4@101, imbalance 0.")


@pytest.mark.parametrize(("bid", "offer", "price"), [(105, 95, 100), (105, 102, 102), (98, 95, 98)])
def test_then_it_is_nearest_the_reference(floor: Floor, bid: int, offer: int, price: int) -> None:
    floor.say(f"ann buy 1 4@{bid} on FIRST")
    assert floor.say(f"bob sell 1 4@{offer} on FIRST")[1].endswith(f"indication FIRST 4@{price}, imbalance 0.")


def test_between_a_surplus_of_buys_and_one_of_sells_it_is_where_nobody_is_left_over(floor: Floor) -> None:
    floor.say("ann buy 1 4@101 on FIRST", "ann buy 2 4@99 on FIRST", "bob sell 1 4@99 on FIRST")
    assert floor.say("bob sell 2 4@101 on FIRST")[1].endswith("sell #4 4@101.")  # 4@100 as before
    assert floor.say("desk state FIRST open")[0].startswith("ann: traded 1 buy 4@100")


def test_all_trades_of_an_uncross_are_at_one_price_with_icebergs_whole(floor: Floor) -> None:
    floor.say("ann buy 1 5@100 show 2 on FIRST", "bob buy 1 2@100 on FIRST", "cat sell 1 7@95 on FIRST")
    assert floor.say("desk state FIRST open")[-1] == (
        "feed: execute FIRST buy #1 2@100 trade 1; execute FIRST sell #3 2@100 trade 1; add FIRST buy #4 2@100; "
        "execute FIRST buy #2 2@100 trade 2; execute FIRST sell #3 2@100 trade 2; "
        "execute FIRST buy #4 2@100 trade 3; execute FIRST sell #3 2@100 trade 3; add FIRST buy #5 1@100; "
        "execute FIRST buy #5 1@100 trade 4; execute FIRST sell #3 1@100 trade 4; status FIRST open; "
        "statistics FIRST open 100 high 100 low 100 last 100 volume 7 turnover 700 trades 4."
    )


def test_in_an_uncross_an_account_may_trade_with_itself(floor: Floor) -> None:
    floor.say("ann buy 1 1@100 on FIRST", "ann sell 2 1@100 on FIRST")
    assert floor.say("desk state FIRST open", "book") == []


def test_the_closing_auction_uncrosses_too(floor: Floor) -> None:
    floor.say("desk state ALFA auction", "ann buy 1 1@100", "bob sell 1 1@100")
    assert floor.say("desk state ALFA closed")[0] == (
        "ann: traded 1 buy 1@100 on ALFA as auction, trade 1, open 0, filled 1"
    )


def test_halting_an_auction_does_not_uncross(floor: Floor) -> None:
    floor.say("desk state ALFA auction", "ann buy 1 1@100", "bob sell 1 1@100", "desk state ALFA halted")
    assert floor.say("book") == ["ALFA bids: 1@100#1", "ALFA asks: 1@100#2"]


# Bands


def test_a_trade_beyond_the_band_does_not_happen_and_halts_into_an_auction(floor: Floor) -> None:
    floor.say("ann sell 1 2@105 on BAND", "ann sell 2 2@106 on BAND")
    assert floor.say("bob buy 1 3@106 on BAND")[-1] == (
        "feed: execute BAND sell #1 2@105 trade 1; status BAND auction (band); add BAND buy #3 1@106; "
        "indication BAND 1@106, imbalance -1; "
        "statistics BAND open 105 high 105 low 105 last 105 volume 2 turnover 210 trades 1."
    )


def test_after_a_roll_the_last_price_of_the_day_is_the_reference_of_the_band(floor: Floor) -> None:
    floor.say("ann sell 1 1@104 on BAND", "bob buy 1 1@104 on BAND", "desk state BAND closed", "desk roll BAND")
    floor.say("desk state BAND open", "ann sell 2 1@109 on BAND", "ann sell 3 1@110 on BAND")
    assert floor.say("bob buy 2 2@110 on BAND")[1] == (
        "bob: traded 2 buy 1@109 on BAND as taker, trade 2, open 1, filled 1"
    )
    assert floor.say("book") == ["BAND bids: 1@110#5", "BAND asks: 1@110#4"]


# Mass cancel, kill switch


def test_the_kill_switch_cancels_and_refuses_until_it_is_lifted(floor: Floor) -> None:
    floor.say("ann buy 1 5@100", "bob buy 1 5@99")
    assert floor.say("desk kill ann") == [
        "ann: canceled 1 buy 5@100 on ALFA, open 0, filled 0, killed",
        "feed: delete ALFA buy #1.",
    ]
    assert floor.say("ann buy 2 5@100") == ["ann: refused 2, killed"]
    assert floor.say("desk lift ann") == []
    assert floor.say("ann buy 3 5@100", "book") == ["ALFA bids: 5@100#3 5@99#2"]


@pytest.mark.parametrize(("kill", "refused"), [
    ("kill", "ALFA BETA"), ("kill ann", "ALFA BETA"), ("kill on ALFA", "ALFA"), ("kill ann on BETA", "BETA"),
    ("kill bob", ""),
])  # fmt: skip
def test_the_kill_switch_is_by_account_by_instrument_or_both(floor: Floor, kill: str, refused: str) -> None:
    floor.say(f"desk {kill}")
    for i, symbol in enumerate(["ALFA", "BETA"], 1):
        killed = floor.say(f"ann buy {i} 1@10 on {symbol}") == [f"ann: refused {i}, killed"]
        assert killed == (symbol in refused)


def test_cancels_stay_allowed_under_the_kill_switch_of_another_instrument(floor: Floor) -> None:
    floor.say("ann buy 1 5@10 on BETA", "desk kill on ALFA")
    assert floor.say("ann cancel 2 of 1 on BETA", "book") == []


def test_a_kill_is_not_done_twice_nor_lifted_when_it_is_not_on(floor: Floor) -> None:
    assert floor.say("desk lift ann") == ["desk: refused, nothing to change"]
    assert floor.say("desk kill ann", "desk kill ann") == ["desk: refused, nothing to change"]


# The operator's desk


def test_a_bust_tells_both_sides_and_rewinds_nothing(floor: Floor) -> None:
    floor.say("ann sell 1 5@100", "bob buy 1 2@100")
    assert floor.say("desk bust ALFA 1") == [
        "bob: busted 1 buy 2@100 on ALFA, trade 1, open 0, filled 2",
        "ann: busted 1 sell 2@100 on ALFA, trade 1, open 3, filled 2",
        "feed: bust ALFA trade 1; statistics ALFA open 100 high 100 low 100 last 100 volume 0 turnover 0 trades 1.",
    ]
    assert floor.say("book") == ["ALFA asks: 3@100#1"]
    assert floor.say("desk state ALFA halted")[0].endswith("last 100 volume 0 turnover 0 trades 1.")


def test_a_correction_tells_both_sides_the_new_price_and_quantity(floor: Floor) -> None:
    floor.say("ann sell 1 5@100", "bob buy 1 2@100")
    assert floor.say("desk correct ALFA 1 to 1@99") == [
        "bob: corrected 1 buy 1@99 on ALFA, trade 1, open 0, filled 2",
        "ann: corrected 1 sell 1@99 on ALFA, trade 1, open 3, filled 2",
        "feed: correction ALFA trade 1 to 1@99; "
        "statistics ALFA open 100 high 100 low 100 last 100 volume 1 turnover 99 trades 1.",
    ]
    assert floor.say("desk state ALFA halted")[0].endswith("last 100 volume 1 turnover 99 trades 1.")


@pytest.mark.parametrize(("command", "reason"), [
    ("bust ALFA 2", "unknown trade"), ("bust NOWHERE 1", "unknown instrument"), ("bust BETA 1", "unknown trade"),
    ("correct ALFA 1 to 2@100", "nothing to change"), ("correct ALFA 1 to 2@1001", "price out of limits"),
    ("correct ALFA 1 to 0@100", "bad quantity"), ("correct ALFA 7 to 2@99", "unknown trade"),
])  # fmt: skip
def test_a_bust_or_correction_that_cannot_be_is_refused(floor: Floor, command: str, reason: str) -> None:
    floor.say("ann sell 1 5@100", "bob buy 1 2@100")
    assert floor.say(f"desk {command}") == [f"desk: refused, {reason}"]


def test_a_trade_is_busted_once(floor: Floor) -> None:
    floor.say("ann sell 1 5@100", "bob buy 1 2@100", "desk correct ALFA 1 to 1@99", "desk bust ALFA 1")
    assert floor.say("desk bust ALFA 1") == ["desk: refused, too late"]
    assert floor.say("desk correct ALFA 1 to 1@98") == ["desk: refused, too late"]


def test_a_roll_begins_the_statistics_anew_when_closed_and_only_then(floor: Floor) -> None:
    floor.say("ann sell 1 5@100", "bob buy 1 2@100")
    assert floor.say("desk roll ALFA") == ["desk: refused, wrong state"]
    floor.say("desk state ALFA closed")
    assert floor.say("desk roll ALFA") == [
        "feed: statistics ALFA open 0 high 0 low 0 last 0 volume 0 turnover 0 trades 0."
    ]
    assert floor.say("desk state ALFA open", "bob buy 2 1@100")[1].endswith("as taker, trade 2, open 0, filled 1")


def test_an_instrument_can_be_added_and_delisted_while_the_venue_runs(floor: Floor) -> None:
    assert floor.say("desk add NOVA") == ["feed: definition NOVA; status NOVA open."]
    floor.say("ann buy 1 5@100 on NOVA")
    assert floor.say("desk delist NOVA") == [
        "ann: canceled 1 buy 5@100 on NOVA, open 0, filled 0, delisted",
        "feed: delete NOVA buy #1; status NOVA closed (delisted).",
    ]
    assert floor.say("ann buy 2 5@100 on NOVA") == ["ann: refused 2, unknown instrument"]
    assert floor.say("ann cancel 3 of 1 on NOVA") == ["ann: refused 3, too late"]
    assert floor.say("desk add NOVA") == ["desk: refused, duplicate id"]


@pytest.mark.parametrize(("order", "reason"), [
    ("11@1", "quantity above the instrument's"), ("10@51", "notional above the instrument's"),
    ("11@market", "quantity above the instrument's"),
])  # fmt: skip
def test_an_instrument_may_bound_quantity_and_notional(floor: Floor, order: str, reason: str) -> None:
    assert floor.say(f"ann buy 1 {order} on SMALL") == [f"ann: refused 1, {reason}"]

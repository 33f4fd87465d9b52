"""The table at the head of RULES.md: each row is a test named by its sentence, and a transcript that reads as
documentation; and each sentence in bold there has a test that says it."""

import re
from pathlib import Path

import pytest

from tests.transcript import Floor

ROOT = Path(__file__).resolve().parents[3]
RULES = (ROOT / "engine" / "RULES.md").read_text()

# Each row's question: the tests that are named by its sentence.
ROWS = {
    "priority": ["priority_is_price_then_arrival_and_every_trade_is_at_the_resting_orders_price"],
    "order types": ["order_types_are_limit_market_stop_stop_limit_iceberg_and_pegged_to_bid_offer_or_mid"],
    "time in force": ["times_in_force_are_day_gtc_gtd_ioc_and_fok_and_post_only_is_a_flag"],
    "market order, remainder": [
        "what_is_left_of_a_market_order_is_canceled_refused_on_an_empty_book_and_never_beyond_the_collar"
    ],
    "FOK": ["fill_or_kill_is_decided_before_anything_moves_counting_only_what_it_may_trade_with"],
    "post-only that would trade": ["a_post_only_order_that_would_trade_is_refused_whenever_it_is_said"],
    "replace": ["a_replace_states_a_new_total_is_refused_at_or_below_what_is_filled_and_validated_whole_before"],
    "smaller size": [
        "a_smaller_size_keeps_its_place_a_larger_one_or_a_new_price_goes_to_the_back_and_the_report_says_which"
    ],
    "replace that crosses": ["a_replace_that_crosses_trades_at_the_makers_prices"],
    "cancel of something not live": ["a_cancel_of_something_not_live_is_refused_as_unknown_or_too_late"],
    "duplicate client id": [
        "a_duplicate_client_id_is_checked_first_the_same_command_has_one_effect_another_is_refused"
    ],
    "self-trade prevention": ["self_trade_prevention_is_none_newest_oldest_both_or_decrement_as_the_taker_says"],
    "iceberg": ["an_iceberg_enters_with_its_full_quantity_and_each_refill_goes_to_the_back_as_a_new_add"],
    "stop trigger": [
        "a_stop_fires_when_the_last_trade_is_at_or_beyond_its_price_on_entry_too_and_cascades_end_within_the_event"
    ],
    "expiry, session changes": [
        "expiry_and_changes_of_session_are_commands_with_a_time_and_the_core_never_looks_at_a_clock"
    ],
    "halt and auction": [
        "states_are_pre_open_open_halted_auction_and_closed_and_cancels_are_allowed_except_when_closed",
        "the_uncross_maximises_volume_then_leaves_the_least_imbalance_then_is_nearest_the_reference",
        "a_breach_of_the_price_band_halts_into_an_auction",
    ],
    "allocation": ["allocation_is_first_come_first_served_or_pro_rata_as_the_instrument_says"],
    "mass cancel, kill switch": [
        "mass_cancel_and_kill_switch_are_by_account_by_instrument_or_both_and_the_switch_refuses_until_lifted"
    ],
}

# The beginning of each sentence in bold: the test, here or in the other files, that says it.
SENTENCES = {
    "Best price first; at one price": "priority_is_price_then_arrival_and_every_trade_is_at_the_resting_orders_price",
    "settles": "a_stop_that_can_fire_comes_before_a_conditional_order_that_can_trade",
    "A market order on an empty": "a_market_order_on_an_empty_other_side_is_refused",
    "What is left of a market order": "the_rest_of_a_market_order_is_canceled",
    "A market order does not trade": "a_market_order_does_not_trade_beyond_the_collar",
    "A post-only order that would meet": "a_post_only_order_that_would_trade_is_refused",
    "An iceberg enters": "an_iceberg_enters_with_its_full_quantity_and_then_shows_its_tip",
    "A tip that is traded away": "a_tip_that_is_traded_away_is_followed_by_the_next_at_the_back_with_a_new_public_id",
    "A smaller total": "what_an_iceberg_hides_shrinks_first_and_nobody_sees_it",
    "A stop sleeps": "a_stop_sleeps_off_the_book_and_the_feed",
    "A stop that is already breached": "a_stop_that_is_already_breached_fires_on_entry",
    "Cascades run": "of_two_breached_stops_the_first_that_came_fires_first",
    "A fired stop without": "a_stop_that_fires_without_another_side_is_canceled",
    "A peg without a reference": "a_peg_without_a_reference_sleeps_until_there_is_one",
    "A peg is moved": "a_peg_that_is_moved_goes_to_the_back_of_the_level",
    "A conditional order rests off": "a_conditional_order_rests_off_the_visible_book",
    "On entry it trades": "on_entry_a_minimum_trades_at_once_or_not_at_all",
    "Displayed before conditional": "displayed_before_conditional_at_one_price",
    "Two conditional orders": "two_conditional_orders_never_trade_with_each_other",
    "After its first fill": "after_its_first_fill_a_minimum_lapses_and_the_rest_is_shown",
    "A resting all-or-none": "a_resting_all_or_none_is_never_partly_filled_and_blocks_nobody",
    "When one of a pair": "when_one_of_a_pair_trades_or_is_canceled_the_other_is_canceled",
    "An order expires": "an_order_expires_before_the_first_command_at_or_after_its_time",
    "Day orders expire": "day_orders_expire_at_the_close_and_others_stay",
    "Refused at or below": "a_replace_at_or_below_what_is_filled_is_refused",
    "Smaller at the same price": "a_smaller_size_keeps_its_place_and_the_report_says_so",
    "A replace that crosses": "a_replace_that_crosses_trades_at_the_makers_prices",
    "In an uncross an account": "in_an_uncross_an_account_may_trade_with_itself",
    "FOK, minimum and all-or-none": "a_fok_order_counts_only_what_it_may_trade_with",
    "At least `minimum` trades": "a_minimum_at_once_is_had_or_refused",
    "Entering OPEN uncrosses": "the_closing_auction_uncrosses_too",
    "Never crossed": "engine_and_slow_obvious_matcher_say_the_same",  # a witness looks after every record
    "The price is the tick": ROWS["halt and auction"][1],
    "All trades are at that price": "all_trades_of_an_uncross_are_at_one_price_with_icebergs_whole",
    "A trade beyond `band`": "a_trade_beyond_the_band_does_not_happen_and_halts_into_an_auction",
    "pro-rata: at each level": ("pro_rata_shares_in_proportion_rounded_down_and_what_is_left_over_goes_to_the_first"),
    "Kill (account or all": "the_kill_switch_cancels_and_refuses_until_it_is_lifted",
    "Delist: all orders": "an_instrument_can_be_added_and_delisted_while_the_venue_runs",
    "A command has one effect": "a_command_has_one_effect_however_often_its_id_is_sent",
    "Nothing else is rewound": "a_bust_tells_both_sides_and_rewinds_nothing",
}


def named() -> set[str]:
    """The names of all tests of the rules."""
    here = Path(__file__).parent
    files = [*here.glob("test_*rules*.py"), here / "test_oracle.py"]
    return {name for file in files for name in re.findall(r"^def test_(\w+)\(", file.read_text(), re.M)}


def table() -> dict[str, list[str]]:
    """Each row's question: its transcripts."""
    short = RULES.split("## 0. In short")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in short.splitlines() if line.startswith("| ")][1:]
    return {question.strip(): transcripts.split(",") for question, _, transcripts in rows}


def test_each_row_is_a_test_named_by_its_sentence_and_a_transcript() -> None:
    assert table().keys() == ROWS.keys()
    assert {name for names in ROWS.values() for name in names} <= named()
    for question, transcripts in table().items():
        for name in transcripts:
            assert (ROOT / "tests" / "engine" / "core" / "scenarios" / f"{name.strip()}.txt").exists(), question


def test_each_sentence_in_bold_has_a_test() -> None:
    bold = [sentence.replace("\n", " ") for sentence in re.findall(r"\*\*(.+?)\*\*", RULES, re.S)]
    said = {sentence: [start for start in SENTENCES if sentence.startswith(start)] for sentence in bold}
    assert [sentence for sentence, starts in said.items() if len(starts) != 1] == []
    assert len(bold) == len(SENTENCES)
    assert set(SENTENCES.values()) <= named()


@pytest.fixture
def floor() -> Floor:
    return Floor()


def fills(said: list[str]) -> list[str]:
    """What resting orders traded, as the feed tells it: quantity@price#public id."""
    found: list[str] = []
    for line in said:
        if line.startswith("feed: "):
            found += [f"{how}#{id}" for id, how in re.findall(r"execute \w+ \w+ #(\d+) (\S+) trade", line)]
    return found


def test_priority_is_price_then_arrival_and_every_trade_is_at_the_resting_orders_price(floor: Floor) -> None:
    floor.say("ann sell 1 5@101", "ann sell 2 5@100", "bob sell 1 5@100")
    assert fills(floor.say("cat buy 1 12@105")) == ["5@100#2", "5@100#3", "2@101#1"]


def test_order_types_are_limit_market_stop_stop_limit_iceberg_and_pegged_to_bid_offer_or_mid(floor: Floor) -> None:
    floor.say("ann buy 1 5@98", "ann sell 2 5@102")  # limits
    floor.say("ann buy 3 9@97 show 2", "bob buy 1 1@bid", "bob sell 2 1@offer", "bob buy 3 1@mid")
    assert floor.say("book") == ["ALFA bids: 1@100#6 5@98#1 1@98#4 2@97#3", "ALFA asks: 5@102#2 1@102#5"]
    floor.say("bob sell 4 1@market stop 98", "bob sell 5 1@110 stop 98")  # they sleep
    assert floor.say("book") == ["ALFA bids: 1@100#6 5@98#1 1@98#4 2@97#3", "ALFA asks: 5@102#2 1@102#5"]
    assert fills(floor.say("cat sell 1 2@market")) == ["1@100#6", "1@98#1", "1@98#1"]  # it fired the stop
    assert floor.say("book")[1].endswith("1@110#8")  # and the stop-limit


def test_times_in_force_are_day_gtc_gtd_ioc_and_fok_and_post_only_is_a_flag(floor: Floor) -> None:
    floor.say("ann buy 1 5@100", "ann buy 2 5@100 day", "ann buy 3 5@100 until 20", "ann buy 4 5@99 post day")
    assert (
        floor.say("bob sell 1 9@101 ioc")[-1] == "bob: canceled 1 sell 9@101 on ALFA, open 0, filled 0, IOC remainder"
    )
    assert floor.say("bob sell 2 16@100 fok") == ["bob: refused 2, not fillable"]
    assert floor.say("bob sell 3 1@100 post") == ["bob: refused 3, would trade"]
    assert [line.split(",")[0] for line in floor.say("clock 20")][:1] == ["ann: canceled 3 buy 5@100 on ALFA"]
    floor.say("desk state ALFA closed")
    assert floor.say("book") == ["ALFA bids: 5@100#1"]


def test_what_is_left_of_a_market_order_is_canceled_refused_on_an_empty_book_and_never_beyond_the_collar(
    floor: Floor,
) -> None:
    assert floor.say("bob buy 1 5@market") == ["bob: refused 1, no liquidity"]
    floor.say("ann sell 1 2@100", "ann sell 2 2@106 on COLLAR", "ann sell 3 2@100 on COLLAR")
    told = floor.say("bob buy 2 5@market")
    assert fills(told) == ["2@100#1"]
    assert "bob: canceled 2 buy 5@0 on ALFA, open 0, filled 2, market remainder" in told
    told = floor.say("bob buy 3 5@market on COLLAR")
    assert fills(told) == ["2@100#3"]
    assert "bob: canceled 3 buy 5@0 on COLLAR, open 0, filled 2, collar" in told


def test_fill_or_kill_is_decided_before_anything_moves_counting_only_what_it_may_trade_with(floor: Floor) -> None:
    floor.say("ann sell 1 3@100", "bob sell 1 3@100", "ann sell 2 3@101")
    assert floor.say("bob buy 2 5@101 fok") == ["bob: refused 2, not fillable"]  # one of the nine is its own
    assert fills(floor.say("bob buy 3 6@101 fok stp oldest")) == ["3@100#1", "3@101#3"]
    assert floor.say("book") == []


def test_a_post_only_order_that_would_trade_is_refused_whenever_it_is_said(floor: Floor) -> None:
    floor.say("ann sell 1 5@100")
    assert floor.say("bob buy 1 1@100 post") == ["bob: refused 1, would trade"]
    floor.say("bob buy 2 1@99 post")
    assert floor.say("bob replace 3 of 2 to 1@100") == ["bob: refused 3, would trade"]
    assert floor.say("book") == ["ALFA bids: 1@99#2", "ALFA asks: 5@100#1"]
    floor.say("bob buy 4 9@98 show 2 post", "bob buy 5 1@97 post until 99")  # whatever else it is
    assert floor.say("bob replace 6 of 4 to 9@100") == ["bob: refused 6, would trade"]
    assert floor.say("bob replace 7 of 5 to 1@100") == ["bob: refused 7, would trade"]
    assert floor.say("book") == ["ALFA bids: 1@99#2 2@98#3 1@97#4", "ALFA asks: 5@100#1"]


def test_a_replace_states_a_new_total_is_refused_at_or_below_what_is_filled_and_validated_whole_before(
    floor: Floor,
) -> None:
    floor.say("ann buy 1 9@100", "bob sell 1 4@100")
    for id, wrong in enumerate(("4@100", "3@100", "10@1001", "9@100"), 2):
        assert floor.say(f"ann replace {id} of 1 to {wrong}")[0].startswith(f"ann: refused {id}, ")
        assert floor.say("book") == ["ALFA bids: 5@100#1"]
    told = floor.say("ann replace 9 of 1 to 7@100")
    assert told[0] == "ann: replaced by 9 1 buy 7@100 on ALFA, open 3, filled 4, kept its place"


def test_a_smaller_size_keeps_its_place_a_larger_one_or_a_new_price_goes_to_the_back_and_the_report_says_which(
    floor: Floor,
) -> None:
    floor.say("ann buy 1 5@100", "bob buy 1 5@100")
    assert floor.say("ann replace 2 of 1 to 4@100")[0].endswith("kept its place")
    assert floor.say("book") == ["ALFA bids: 4@100#1 5@100#2"]
    assert floor.say("ann replace 3 of 1 to 5@100")[0].endswith("to the back")
    assert floor.say("book") == ["ALFA bids: 5@100#2 5@100#1"]
    assert floor.say("bob replace 2 of 1 to 4@99")[0].endswith("to the back")
    assert floor.say("book") == ["ALFA bids: 5@100#1 4@99#2"]


def test_a_replace_that_crosses_trades_at_the_makers_prices(floor: Floor) -> None:
    floor.say("ann sell 1 2@100", "ann sell 2 2@101", "bob buy 1 5@99")
    told = floor.say("bob replace 2 of 1 to 5@101")
    assert told[0].startswith("bob: replaced by 2")
    assert fills(told) == ["2@100#1", "2@101#2"]


def test_a_cancel_of_something_not_live_is_refused_as_unknown_or_too_late(floor: Floor) -> None:
    assert floor.say("ann cancel 1 of 9") == ["ann: refused 1, unknown order"]
    floor.say("ann buy 2 5@100", "ann cancel 3 of 2")
    assert floor.say("ann cancel 4 of 2") == ["ann: refused 4, too late"]


def test_a_duplicate_client_id_is_checked_first_the_same_command_has_one_effect_another_is_refused(
    floor: Floor,
) -> None:
    floor.say("ann buy 1 5@100", "desk state ALFA halted")
    assert floor.say("ann buy 1 5@100") == ["ann: again: accepted 1 buy 5@100 on ALFA, open 5, filled 0"]
    assert floor.say("ann buy 1 0@9999 on NOWHERE") == ["ann: refused 1, duplicate id"]
    assert floor.say("book") == ["ALFA bids: 5@100#1"]


@pytest.mark.parametrize(
    ("mode", "bids", "asks"),
    [
        ("", "", "5@100#1"),  # cancel newest is the default
        ("stp newest", "", "5@100#1"),
        ("stp none", "3@100#2", ""),
        ("stp oldest", "8@100#2", ""),
        ("stp both", "", ""),
        ("stp decrement", "3@100#2", ""),
    ],
)
def test_self_trade_prevention_is_none_newest_oldest_both_or_decrement_as_the_taker_says(
    floor: Floor, mode: str, bids: str, asks: str
) -> None:
    floor.say("ann sell 1 5@100 stp oldest")
    told = floor.say(f"ann buy 2 8@100 {mode}".strip())
    assert fills(told) == (["5@100#1"] if mode == "stp none" else [])
    expected = [f"ALFA {side}: {orders}" for side, orders in (("bids", bids), ("asks", asks)) if orders]
    assert floor.say("book") == expected


def test_an_iceberg_enters_with_its_full_quantity_and_each_refill_goes_to_the_back_as_a_new_add(floor: Floor) -> None:
    floor.say("ann sell 1 5@100")
    assert fills(floor.say("bob buy 1 9@100 show 2")) == ["5@100#1"]  # all nine, not the two it would show
    floor.say("cat buy 1 1@100")
    assert floor.say("book") == ["ALFA bids: 2@100#2 1@100#3"]
    told = floor.say("ann sell 2 2@100")
    assert told[-1].endswith("add ALFA buy #5 2@100.")
    assert floor.say("book") == ["ALFA bids: 1@100#3 2@100#5"]


def test_a_stop_fires_when_the_last_trade_is_at_or_beyond_its_price_on_entry_too_and_cascades_end_within_the_event(
    floor: Floor,
) -> None:
    floor.say("ann buy 1 1@100", "ann buy 2 1@99", "ann buy 3 9@98")
    floor.say("bob sell 1 1@market stop 100", "bob sell 2 1@market stop 99")
    told = floor.say("cat sell 1 1@100")
    assert fills(told) == ["1@100#1", "1@99#2", "1@98#3"]
    assert [line.count(".") for line in told if line.startswith("feed:")] == [1]  # one event
    assert fills(floor.say("bob sell 3 1@market stop 99")) == ["1@98#3"]  # breached already


def test_expiry_and_changes_of_session_are_commands_with_a_time_and_the_core_never_looks_at_a_clock(
    floor: Floor,
) -> None:
    floor.say("ann buy 1 5@100 until 20", "clock 19")
    assert floor.say("book") == ["ALFA bids: 5@100#1"]
    assert floor.say("clock 20")[0].endswith("expired")
    floor.say("ann buy 2 5@100 day")
    assert any(line.endswith("expired") for line in floor.say("desk state ALFA closed"))
    core = (ROOT / "engine").glob("*.py")
    clocks = {path.stem for path in core if re.search(r"^(import|from) (time|datetime)\b", path.read_text(), re.M)}
    assert not clocks & {"venue", "matching", "book", "pit", "desk", "market", "session", "auction", "plan", "order"}


def test_states_are_pre_open_open_halted_auction_and_closed_and_cancels_are_allowed_except_when_closed(
    floor: Floor,
) -> None:
    for n, state in enumerate(("pre-open", "halted", "auction", "closed", "open"), 1):
        floor.say(f"ann buy {10 * n} 1@100", f"desk state ALFA {state}")
        told = floor.say(f"ann cancel {10 * n + 1} of {10 * n}")
        assert told[0].startswith("ann: refused" if state == "closed" else "ann: canceled"), state
        floor.say("desk state ALFA open")


@pytest.mark.parametrize(
    ("orders", "price"),
    [
        (("buy 1 8@101", "sell 1 5@99", "sell 2 3@101"), 101),  # eight there, five elsewhere
        (("buy 1 5@102", "buy 2 2@100", "sell 1 5@99"), 101),  # five everywhere; below it two are left over
        (("buy 1 5@104", "sell 1 5@98"), 100),  # nothing is left over anywhere: the reference
    ],
)
def test_the_uncross_maximises_volume_then_leaves_the_least_imbalance_then_is_nearest_the_reference(
    floor: Floor, orders: tuple[str, ...], price: int
) -> None:
    floor.say(*(f"{'ann' if order[0] == 'b' else 'bob'} {order} on FIRST" for order in orders))
    told = floor.say("desk state FIRST open")
    assert {int(how.split("@")[1].split("#")[0]) for how in fills(told)} == {price}


def test_a_breach_of_the_price_band_halts_into_an_auction(floor: Floor) -> None:
    floor.say("ann sell 1 5@105 on BAND", "ann sell 2 5@106 on BAND")
    told = floor.say("bob buy 1 7@106 on BAND")
    assert fills(told) == ["5@105#1"]
    assert "status BAND auction (band)" in told[-1]


def test_allocation_is_first_come_first_served_or_pro_rata_as_the_instrument_says(floor: Floor) -> None:
    for id, instrument, expected in ((1, "ALFA", ["10@100#1", "10@100#2"]), (2, "RATA", ["5@100#4", "15@100#5"])):
        floor.say(f"ann sell {id} 10@100 on {instrument}", f"bob sell {id} 30@100 on {instrument}")
        assert fills(floor.say(f"cat buy {id} 20@100 on {instrument}")) == expected


def test_mass_cancel_and_kill_switch_are_by_account_by_instrument_or_both_and_the_switch_refuses_until_lifted(
    floor: Floor,
) -> None:
    floor.say("ann buy 1 1@10", "ann buy 2 1@10 on BETA", "bob buy 1 1@10", "bob buy 2 1@10 on BETA")
    floor.say("ann mass-cancel 3 on BETA")
    assert floor.say("book") == ["ALFA bids: 1@10#1 1@10#3", "BETA bids: 1@10#4"]
    floor.say("ann mass-cancel 4")
    assert floor.say("book") == ["ALFA bids: 1@10#3", "BETA bids: 1@10#4"]
    floor.say("desk kill bob on ALFA")
    assert floor.say("book") == ["BETA bids: 1@10#4"]
    assert floor.say("bob buy 3 1@10") == ["bob: refused 3, killed"]
    floor.say("desk lift bob on ALFA")
    assert floor.say("bob buy 4 1@10")[0].startswith("bob: accepted")
    floor.say("desk kill on BETA")
    assert floor.say("book") == ["ALFA bids: 1@10#5"]
    assert floor.say("ann buy 5 1@10 on BETA") == ["ann: refused 5, killed"]
    floor.say("desk lift on BETA", "desk kill bob")
    assert floor.say("bob buy 6 1@10 on BETA") == ["bob: refused 6, killed"]
    assert floor.say("ann buy 6 1@10 on BETA")[0].startswith("ann: accepted")
    floor.say("desk lift bob", "desk kill")
    assert floor.say("book") == []
    assert floor.say("bob buy 7 1@10") == ["bob: refused 7, killed"]
    floor.say("desk lift")
    assert floor.say("bob buy 8 1@10")[0].startswith("bob: accepted")

"""Transcripts: commands above the line, the whole output below. They read as documentation of the matching rules.

A file is a sequence of blocks, a blank line between them; what one leaves behind the next one finds. To write the
outputs anew: LOBMESH_REWRITE=1 python -m pytest tests/engine/core/test_scenarios.py, then read the difference.
"""

import os
import re
from pathlib import Path

import pytest

from tests.transcript import Floor

HERE = Path(__file__).parent
SCENARIOS = sorted((HERE / "scenarios").glob("*.txt"))
LINE = "----"
RULES = (Path(__file__).resolve().parents[3] / "engine" / "RULES.md").read_text()

# The beginning of each sentence in bold in RULES.md: the test that says it.
SENTENCES = {
    "Best price first; at one price": "at_one_price_whoever_came_first_trades_first",
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
    "The price is the tick": "then_it_leaves_the_least_imbalance",
    "All trades are at that price": "all_trades_of_an_uncross_are_at_one_price_with_icebergs_whole",
    "A trade beyond `band`": "a_trade_beyond_the_band_does_not_happen_and_halts_into_an_auction",
    "pro-rata: at each level": ("pro_rata_shares_in_proportion_rounded_down_and_what_is_left_over_goes_to_the_first"),
    "Kill (account or all": "the_kill_switch_cancels_and_refuses_until_it_is_lifted",
    "Delist: all orders": "an_instrument_can_be_added_and_delisted_while_the_venue_runs",
    "A command has one effect": "a_command_has_one_effect_however_often_its_id_is_sent",
    "An iceberg shows at least": "an_iceberg_shows_at_least_its_share",
    "An incoming order trades": "an_incoming_order_trades_so_often_at_most_and_the_rest_of_it_is_canceled",
    "Settling pauses": "settling_pauses_and_goes_on_with_the_next_record",
    "On an instrument at most": "so_many_stops_conditional_orders_and_pegs_wait_at_most",
    "Nothing else is rewound": "a_bust_tells_both_sides_and_rewinds_nothing",
}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_transcript_is_what_the_venue_says(path: Path) -> None:
    text = path.read_text()
    played = play(text)
    if os.environ.get("LOBMESH_REWRITE"):
        path.write_text(played)
    else:
        assert played == text


def test_the_transcripts_are_those_that_the_table_of_the_rules_names() -> None:
    short = RULES.split("## 0. In short")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in short.splitlines() if line.startswith("| ")][1:]
    named = sorted(name.strip() for _, _, names in rows for name in names.split(","))
    assert named == [path.stem for path in SCENARIOS]
    assert len(rows) >= 18


def test_each_sentence_in_bold_has_a_test() -> None:
    bold = [sentence.replace("\n", " ") for sentence in re.findall(r"\*\*(.+?)\*\*", RULES, re.S)]
    said = {sentence: [start for start in SENTENCES if sentence.startswith(start)] for sentence in bold}
    assert [sentence for sentence, starts in said.items() if len(starts) != 1] == []
    assert len(bold) == len(SENTENCES)
    files = [*HERE.glob("test_*rules*.py"), HERE / "test_oracle.py"]
    tests = {name for file in files for name in re.findall(r"^def test_(\w+)\(", file.read_text(), re.M)}
    assert set(SENTENCES.values()) <= tests


def play(text: str) -> str:
    """A transcript with its outputs as the venue gives them now."""
    floor = Floor()
    blocks = []
    for block in text.strip().split("\n\n"):
        commands = block.split("\n" + LINE)[0].splitlines()
        said = [line for command in commands if command and command[0] != "#" for line in floor.say(command)]
        blocks.append("\n".join([*commands, LINE, *said]) if any(line[0] != "#" for line in commands) else block)
    return "\n\n".join(blocks) + "\n"

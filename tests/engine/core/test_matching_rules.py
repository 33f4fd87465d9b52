"""The matching rules as a table: one behaviour, one test. Transcripts in scenarios/ tell the same at more length."""

import pytest

from proto.columns import NEW, NOTIONAL_LIMIT, QUANTITY_LIMIT, REPEAT, TIF_IOC, Batch, report_rows
from tests.transcript import Floor


@pytest.fixture
def floor() -> Floor:
    return Floor()


# Priority


def test_at_one_price_whoever_came_first_trades_first(floor: Floor) -> None:
    floor.say("ann buy 1 5@100", "bob buy 1 5@100", "ann buy 2 5@100")
    assert floor.say("cat sell 1 11@100", "book") == ["ALFA bids: 4@100#3"]


# Order types and times in force


def test_the_rest_of_a_market_order_is_canceled(floor: Floor) -> None:
    floor.say("ann buy 1 5@101")
    assert floor.say("bob sell 1 7@market") == [
        "bob: accepted 1 sell 7@0 on ALFA, open 7, filled 0",
        "bob: traded 1 sell 5@101 on ALFA as taker, trade 1, open 2, filled 5",
        "bob: canceled 1 sell 7@0 on ALFA, open 0, filled 5, market remainder",
        "ann: traded 1 buy 5@101 on ALFA as maker, trade 1, open 0, filled 5",
        "feed: execute ALFA buy #1 5@101 trade 1.",
    ]


def test_an_ioc_order_that_meets_nothing_is_not_an_event(floor: Floor) -> None:
    assert floor.say("bob buy 1 7@100 ioc") == [
        "bob: accepted 1 buy 7@100 on ALFA, open 7, filled 0",
        "bob: canceled 1 buy 7@100 on ALFA, open 0, filled 0, IOC remainder",
    ]


def test_a_fok_order_counts_only_what_it_may_trade_with(floor: Floor) -> None:
    floor.say("ann sell 1 5@100", "bob sell 1 5@100", "ann sell 2 5@100")
    assert floor.say("bob buy 2 6@100 fok") == ["bob: refused 2, not fillable"]
    assert floor.say("bob buy 3 6@100 fok stp none", "book") == ["ALFA asks: 4@100#2 5@100#3"]


def test_a_fok_order_that_stops_short_of_its_own_orders_is_filled(floor: Floor) -> None:
    floor.say("ann sell 1 5@100", "bob sell 1 5@101")
    assert floor.say("bob buy 2 5@101 fok", "book") == ["ALFA asks: 5@101#2"]


def test_a_market_order_may_be_fill_or_kill(floor: Floor) -> None:
    floor.say("ann sell 1 5@100")
    assert floor.say("bob buy 1 6@market fok") == ["bob: refused 1, not fillable"]
    assert floor.say("bob buy 2 5@market fok", "book") == []


def test_a_post_only_order_that_would_trade_is_refused(floor: Floor) -> None:
    floor.say("ann sell 1 5@100")
    assert floor.say("bob buy 1 5@100 post") == ["bob: refused 1, would trade"]


def test_a_post_only_order_would_trade_with_its_owners_orders_too(floor: Floor) -> None:
    floor.say("bob sell 1 5@100")
    assert floor.say("bob buy 2 5@100 post") == ["bob: refused 2, would trade"]


# Replace


def test_a_smaller_size_keeps_its_place_and_the_report_says_so(floor: Floor) -> None:
    floor.say("ann buy 1 5@100", "bob buy 1 5@100")
    assert floor.say("ann replace 2 of 1 to 3@100") == [
        "ann: replaced by 2 1 buy 3@100 on ALFA, open 3, filled 0, kept its place",
        "feed: modify ALFA buy #1 to 3.",
    ]
    assert floor.say("book") == ["ALFA bids: 3@100#1 5@100#2"]


@pytest.mark.parametrize("terms", ["to 2@100", "to 1@100", "by 3@100", "by 9@100"])
def test_a_replace_at_or_below_what_is_filled_is_refused(floor: Floor, terms: str) -> None:
    floor.say("ann buy 1 5@100", "bob sell 1 2@100")
    assert floor.say(f"ann replace 2 of 1 {terms}") == ["ann: refused 2, at or below what is filled"]
    assert floor.say("book") == ["ALFA bids: 3@100#1"]


def test_a_replace_that_crosses_trades_at_the_makers_prices(floor: Floor) -> None:
    floor.say("ann sell 1 5@101", "bob buy 1 7@99")
    assert floor.say("bob replace 2 of 1 to 7@105") == [
        "bob: replaced by 2 1 buy 7@105 on ALFA, open 7, filled 0, to the back",
        "bob: traded by 2 1 buy 5@101 on ALFA as taker, trade 1, open 2, filled 5",
        "ann: traded 1 sell 5@101 on ALFA as maker, trade 1, open 0, filled 5",
        "feed: delete ALFA buy #2; execute ALFA sell #1 5@101 trade 1; add ALFA buy #2 2@105.",
    ]


def test_a_replace_that_meets_an_own_order_is_canceled_by_self_trade_prevention(floor: Floor) -> None:
    floor.say("bob sell 1 5@101", "bob buy 2 7@99")
    assert floor.say("bob replace 3 of 2 to 7@101") == [
        "bob: replaced by 3 2 buy 7@101 on ALFA, open 7, filled 0, to the back",
        "bob: canceled 2 buy 7@101 on ALFA, open 0, filled 0, self-trade",
        "feed: delete ALFA buy #2.",
    ]


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ("to 5@1001", "price out of limits"),
        ("to 5@0", "price out of limits"),
        (f"to open {QUANTITY_LIMIT - 1}@100", "bad quantity"),
    ],
)
def test_a_refused_replace_leaves_the_order_as_it_was(floor: Floor, terms: str, reason: str) -> None:
    floor.say("ann buy 1 5@100", "bob sell 1 2@100")
    assert floor.say(f"ann replace 2 of 1 {terms}") == [f"ann: refused 2, {reason}"]
    assert floor.say("book") == ["ALFA bids: 3@100#1"]


def test_a_replace_cannot_grow_beyond_the_notional_limit() -> None:
    floor = Floor(price_max=1 << 39)
    price = 1 << 38
    quantity = NOTIONAL_LIMIT // price - 1
    floor.say(f"ann buy 1 {quantity}@{price}", f"bob sell 1 5@{price}")
    assert floor.say(f"ann replace 2 of 1 to open {quantity}@{price}") == ["ann: refused 2, notional too large"]


# Cancel


def test_a_cancel_of_a_cancel_is_refused_as_unknown(floor: Floor) -> None:
    floor.say("ann buy 1 5@100", "ann cancel 2 of 1")
    assert floor.say("ann cancel 3 of 2") == ["ann: refused 3, unknown order"]


@pytest.mark.parametrize("command", ["cancel 2 of 1 on BETA", "replace 2 of 1 to 3@10 on BETA"])
def test_a_command_about_an_order_on_another_instrument_is_refused(floor: Floor, command: str) -> None:
    floor.say("ann buy 1 5@100")
    assert floor.say(f"ann {command}") == ["ann: refused 2, wrong instrument"]


# Identity


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("ann buy 1 5@100", "ann: again: accepted 1 buy 5@100 on ALFA, open 5, filled 0"),
        ("ann cancel 3 of 2", "ann: again: canceled by 3 2 buy 5@99 on ALFA, open 0, filled 0"),
        (
            "ann replace 4 of 1 to 3@100",
            "ann: again: replaced by 4 1 buy 3@100 on ALFA, open 3, filled 0, kept its place",
        ),
        ("ann mass-cancel 5 on BETA", "ann: again: mass-canceled by 5: 0"),
        ("ann buy 6 5@2000", "ann: again: refused 6, price out of limits"),
    ],
)
def test_the_same_command_again_returns_the_first_report_and_does_nothing(
    floor: Floor, command: str, answer: str
) -> None:
    for line in (
        "ann buy 1 5@100", "ann buy 2 5@99", "ann cancel 3 of 2", "ann replace 4 of 1 to 3@100",
        "ann mass-cancel 5 on BETA", "ann buy 6 5@2000",
    ):  # fmt: skip
        floor.say(line)
    assert floor.say(command) == [answer]
    assert floor.say("book") == ["ALFA bids: 3@100#1"]


@pytest.mark.parametrize(
    "command", ["buy 1 6@100", "sell 1 5@100", "buy 1 5@100 ioc", "buy 1 5@10 on BETA", "cancel 1 of 1"]
)
def test_a_different_command_under_the_same_id_is_refused(floor: Floor, command: str) -> None:
    floor.say("ann buy 1 5@100")
    assert floor.say(f"ann {command}") == ["ann: refused 1, duplicate id"]
    assert floor.say("book") == ["ALFA bids: 5@100#1"]


def test_a_repeat_is_recognised_as_long_as_it_is_retained_and_live_orders_for_ever() -> None:
    floor = Floor(retained=3)
    floor.say("ann buy 1 5@100", "ann buy 2 5@99", *(f"ann cancel {id} of 77" for id in range(3, 9)))
    assert floor.say("ann cancel 8 of 77") == ["ann: again: refused 8, unknown order"]
    assert floor.say("ann buy 1 5@100") == ["ann: again: accepted 1 buy 5@100 on ALFA, open 5, filled 0"]
    assert floor.say("ann cancel 3 of 2") == [
        "ann: canceled by 3 2 buy 5@99 on ALFA, open 0, filled 0",
        "feed: delete ALFA buy #2.",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "buy 9 1@100 ioc", "buy 9 1@100 fok", "buy 9 1@5000", "buy 9 1@100 min 2", "cancel 9 of 1", "cancel 9 of 77",
        "replace 9 of 1 to 4@100", "replace 9 of 77 to 4@100", "mass-cancel 9 on BETA", "mass-cancel 9 on NOWHERE",
    ],
)  # fmt: skip
@pytest.mark.parametrize("again", [False, True])
def test_a_command_has_one_effect_however_often_its_id_is_sent(command: str, again: bool) -> None:
    floor = Floor(retained=4)
    floor.say("ann buy 1 5@90", "bob sell 1 50@100")
    first = floor.say(f"ann {command}")[0]
    for _ in range(12):
        if again:
            assert floor.say(f"ann {command}") == [f"ann: again: {first.removeprefix('ann: ')}"]
        else:
            assert floor.say("ann buy 9 3@3") == ["ann: refused 9, duplicate id"]


def test_a_command_is_remembered_past_many_repeats_in_its_own_batch() -> None:
    venue = Floor(retained=4).venue
    ids = [1, 1, 2, 1, 1, 3, 3, 1, 2, 4, 1, 4]
    batch = Batch(
        1, 0, 0, [NEW] * 12, ids, [1] * 12, [TIF_IOC] * 12, [5] * 12, [1] * 12, [0] * 12,
    )  # fmt: skip
    heard = [
        [
            (row.client_order_id, bool(row.flags & REPEAT))
            for reports in outcome.reports
            for row in report_rows(reports.rows)
        ]
        for outcome in (venue.apply(position, 1, [batch]) for position in (1, 2))
    ]
    assert [id for id, repeat in heard[0] if not repeat] == [1, 1, 2, 2, 3, 3, 4, 4]  # accepted and canceled
    assert heard[1] == [(id, True) for id in ids]


@pytest.mark.parametrize("live", [3, 5, 12])
def test_live_orders_take_no_room_from_the_commands_that_are_remembered(live: int) -> None:
    floor = Floor(retained=4)
    floor.say("bob sell 1 50@100", *(f"ann buy {id} 1@{id}" for id in range(1, live + 1)))
    for round in range(100, 200, 10):
        floor.say(f"ann buy {round} 1@100 ioc", *(f"ann cancel {round + nth} of 77" for nth in range(1, 4)))
        assert floor.say(f"ann buy {round} 1@100 ioc")[0].startswith(f"ann: again: accepted {round}")
    assert floor.say("ann buy 1 1@1")[0].startswith("ann: again: accepted 1")
    floor.say("ann cancel 500 of 1", "ann cancel 501 of 77", "ann cancel 502 of 77", "ann cancel 503 of 77")
    assert floor.say("ann buy 1 1@1")[0].startswith("ann: again: accepted 1")
    account = floor.venue.accounts[1]
    floor.say(*(f"ann cancel {id} of 77" for id in range(600, 640)))
    assert len(account.commands) == live - 1 + 4
    assert sorted(account.noted() + account.aside()) == sorted(account.commands)


# Self-trade prevention


def test_prevention_lets_an_order_rest_beside_an_own_one_that_it_does_not_meet(floor: Floor) -> None:
    assert floor.say("bob sell 1 5@101", "bob buy 2 5@100", "book") == ["ALFA bids: 5@100#2", "ALFA asks: 5@101#1"]


# Mass cancel, disconnect


def test_a_mass_cancel_takes_out_the_accounts_orders_in_one_event(floor: Floor) -> None:
    floor.say("ann buy 1 5@100", "bob buy 1 5@100", "ann sell 2 5@10 on BETA")
    assert floor.say("ann mass-cancel 3") == [
        "ann: canceled 1 buy 5@100 on ALFA, open 0, filled 0, mass cancel",
        "ann: canceled 2 sell 5@10 on BETA, open 0, filled 0, mass cancel",
        "ann: mass-canceled by 3: 2",
        "feed: delete ALFA buy #1; delete BETA sell #3.",
    ]
    assert floor.say("book") == ["ALFA bids: 5@100#2"]


def test_the_end_of_a_session_cancels_what_it_entered(floor: Floor) -> None:
    floor.say("ann buy 1 5@100 session 7", "ann buy 2 5@99 session 8", "ann buy 3 5@98")
    assert floor.say("ann disconnects 7") == [
        "ann: canceled 1 buy 5@100 on ALFA, open 0, filled 0, disconnected",
        "feed: delete ALFA buy #1.",
    ]


# Limits and instruments


@pytest.mark.parametrize("terms", ["5@0", "5@1001", "5@-51 on BETA", "5@51 on BETA"])
def test_a_price_outside_the_instruments_limits_is_refused(floor: Floor, terms: str) -> None:
    assert floor.say(f"ann buy 1 {terms}") == ["ann: refused 1, price out of limits"]


@pytest.mark.parametrize("terms", ["5@1", "5@1000", "5@-50 on BETA", "5@50 on BETA"])
def test_prices_at_the_limits_and_below_zero_are_good(floor: Floor, terms: str) -> None:
    assert floor.say(f"ann buy 1 {terms}")[0].startswith("ann: accepted 1")


@pytest.mark.parametrize("command", ["buy 1 5@100", "cancel 1 of 7", "replace 1 of 7 to 5@100", "mass-cancel 1"])
def test_an_instrument_that_is_not_traded_here_is_refused(floor: Floor, command: str) -> None:
    assert floor.say(f"ann {command} on NOWHERE") == ["ann: refused 1, unknown instrument"]


def test_instruments_do_not_meet(floor: Floor) -> None:
    assert floor.say("ann buy 1 5@10 on BETA", "bob sell 1 5@10", "book") == ["ALFA asks: 5@10#2", "BETA bids: 5@10#1"]


def test_trades_are_numbered_by_instrument(floor: Floor) -> None:
    floor.say("ann buy 1 5@10 on BETA", "ann buy 2 5@10", "bob sell 1 1@10", "bob sell 2 1@10")
    assert floor.say("bob sell 3 1@10 on BETA")[1] == (
        "bob: traded 3 sell 1@10 on BETA as taker, trade 1, open 0, filled 1"
    )

"""The judge, given evidence: what holds, what does not, and what it cannot know."""

from dataclasses import replace
from typing import Any

import pytest

from bus.reader.verify import differences
from proto.columns import (
    ACCEPTED,
    AUCTION_TRADE,
    FLAG_SELL,
    MAKER,
    REFUSED,
    TRADED,
    WOULD_TRADE,
    ReportRow,
)
from proto.feed import Definition, Status
from proto.snapshot import BookSnapshot, Snapshot
from tools.findings import FAILS, HOLDS, NOTE, Finding
from tools.findings import UNKNOWN as NOT_JUDGED
from tools.flow.order_counts import Counted, OrderCounts, TradeKey, TradeSum
from tools.run import evidence as v
from tools.run.audit.breaches import CROSSED, KEPT, Breaches
from tools.run.evidence import Audited, Evidence, Other
from tools.run.page import page
from tools.run.verdict import Verdict, judge

NO_COUNTERS = {"gaps": 0, "joins": 1, "covered": 40, "digests_equal": 9}


def row(kind: int, command: int, order: int, **columns: int) -> ReportRow:
    empty = ReportRow(kind, command, order, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    return empty._replace(**columns)


def tally() -> OrderCounts:
    """Two accounts trade 5 @ 100 once; a third is refused."""
    out = OrderCounts()
    out.send(7, [(1, 1)], 0)
    out.send(8, [(1, 1)], 0)
    out.send(9, [(1, 1)], 0)
    out.report(1, 7, row(ACCEPTED, 1, 1), 1_000_000)
    out.report(1, 8, row(ACCEPTED, 1, 1), 2_000_000)
    traded = row(TRADED, 0, 1, price=100, quantity=5, trade_id=1)
    out.report(1, 8, traded._replace(flags=FLAG_SELL), 2_000_000)
    out.report(1, 7, traded._replace(flags=MAKER), 2_000_000)
    out.report(1, 9, row(REFUSED, 1, 1, reason=WOULD_TRADE), 3_000_000)
    return out


def trades(*keys: TradeKey) -> TradeSum:
    out = TradeSum()
    for key in keys:
        out.add(key)
    return out


def evidence(**changes: Any) -> Evidence:
    counted = Counted.from_json(tally().to_json())
    whole = Evidence(
        symbols={1: "ALFA", 2: "BRAVO"},
        homes={1: 1, 2: 2},
        engines=(v.EngineLife(1, (1,), symbols=("ALFA",)), v.EngineLife(2, (1,), symbols=("BRAVO",))),
        counted=counted,
        feed={1: trades(TradeKey(1, 100, 5))},
        feed_missed={},
        trade_ids={1: 1, 2: 0},
        mirrors=tuple(v.MirrorMatch(f"fabric-{n}", e, 1, 1, 60, 1, 20) for e in (1, 2) for n in (1, 2)),
        seen=tuple(v.Seen(f"fabric-{n}", e, dict(NO_COUNTERS)) for e in (1, 2) for n in (1, 2)),
        seconds=2.0,
        audited=Audited(events=40, executions=1, orders=2, reports=5, trades=1, resting=40, received=5),
    )
    return replace(whole, **changes)


def finding(verdict: Verdict, title: str) -> Finding:
    return next(each for each in verdict.findings if each.title == title)


def test_a_good_run_holds_and_the_page_says_all_of_it() -> None:
    verdict = judge(evidence())
    assert verdict.holds
    assert [text for _, text in page(verdict, width=110)] == [
        "The verdict holds.",
        " ✓ every order answered             3 sent, 3 answered (2 accepted, 1 refused)",
        "                                    refused: would trade 1",
        " ✓ executed quantity conserved      1 trade, 5 lots: bought = sold = on the feed = in the books' trade ids",
        " ✓ never crossed while open         40 events on the feeds, the bid below the offer after each",
        " ✓ price and time priority          1 resting order met at the best price, each in its turn",
        " ✓ every order accounted for        2 orders in 5 reports: entered = open + traded + canceled, and nothing",
        "                                    behind an end",
        " ✓ both sides of every trade        1 trade on the feeds: one buyer and one seller each, of one price and",
        "                                    quantity",
        " ✓ positions net to zero            all accounts together hold nothing, in every instrument",
        " ✓ books as the reports leave them  40 orders on the feeds' books: live by their reports and at their engines",
        " ✓ what was acknowledged is there   5 reports received while it ran are in the drop copies as they were",
        " ✓ mirrors equal                    4 of 4 copies on 2 machines: 40 orders in 2 books, each in its place",
        "                                    engine-1 at epoch 1, sequence 60: 20 orders resting",
        "                                    engine-2 at epoch 1, sequence 60: 20 orders resting",
        " ✓ gaps seen and repaired           none seen",
        "                                    4 joins and 0 later snapshots stand for 160 deltas of the present epochs",
        " ✓ digests agree                    36 compared along the way, all equal",
        " · rates                            2 orders/s and 0 trades/s over 2.0 s; acknowledged in 2.03 ms (p50), 3.01",
        "                                    ms (p99)",
    ]


def test_the_page_fits_a_terminal_of_sixty_columns() -> None:
    lines = [text for _, text in page(judge(evidence()), width=60)]
    assert max(map(len, lines)) <= 60


def test_the_json_says_the_same_as_the_page() -> None:
    verdict = judge(evidence())
    said = verdict.to_json()
    assert said["holds"] is True
    assert [each["title"] for each in said["findings"]] == [each.title for each in verdict.findings]
    assert said["findings"][0]["mark"] == "holds"
    assert said["figures"] == {
        "orders_sent": 3,
        "orders_answered": 3,
        "orders_per_s": 1.5,
        "trades": 1,
        "trades_per_s": 0.5,
        "acknowledged_p50_ms": 2.032,
        "acknowledged_p99_ms": 3.015,
        "mirrors_compared": 4,
        "mirrors_equal": 4,
        "orders_resting": 40,
        "gaps": 0,
        "gaps_by_range": 0,
        "gaps_by_snapshot": 0,
        "gaps_by_late_frames": 0,
        "gaps_open": 0,
        "joins": 4,
        "later_snapshots": 0,
    }


def test_an_order_without_an_answer_fails_unless_its_engine_is_down() -> None:
    counted = Counted.from_json(tally().to_json())
    counted.sent += 1
    counted.waiting[2] = 1
    up = judge(evidence(counted=counted))
    assert not up.holds
    assert "1 about BRAVO unanswered" in finding(up, "every order answered").details
    engines = (v.EngineLife(1, (1,)), v.EngineLife(2, (1,), down=True, killed_at_s=1.5, symbols=("BRAVO",)))
    down = judge(evidence(counted=counted, engines=engines))
    assert down.holds
    assert finding(down, "every order answered").details[-1].startswith("1 went to engines that are down")
    assert finding(down, "engine-2") == Finding(
        NOT_JUDGED,
        "engine-2",
        "killed at 1.5 s and not restarted: BRAVO stopped, the others went on",
        (
            "judged: 0 of 0 machines mark its books as not current",
            "not judged: its last answers, its executed quantity, and its books, which nobody can now be asked about",
        ),
    )


def test_a_fabric_node_that_was_killed_for_good_is_said_not_to_be_judged() -> None:
    judged = finding(judge(evidence(fabrics_down=(("fabric-2", 3.0),))), "fabric-2")
    assert judged == Finding(
        NOT_JUDGED,
        "fabric-2",
        "killed at 3 s and not restarted: its engine and the other machines went on",
        ("not judged: its mirrors, which are gone with it",),
    )


def test_while_one_engine_is_away_the_others_must_go_on() -> None:
    going_on = v.Outage("engine-2", "killed", 3.0, 7.0, 2_000)
    verdict = judge(evidence(outages=(going_on,)))
    assert finding(verdict, "the others went on") == Finding(
        HOLDS,
        "the others went on",
        "through 1 outage",
        ("engine-2 was killed from 3.0 to 7.0 s: meanwhile 2,000 orders answered elsewhere (500/s)",),
    )
    again = finding(judge(evidence(outages=(replace(going_on, again_s=6.0),))), "the others went on").details
    assert again[0].startswith("engine-2 was killed at 3.0 s, started again at 6.0 s and served at 7.0 s: meanwhile")
    stopped = replace(going_on, answered_elsewhere=0)
    assert finding(judge(evidence(outages=(going_on, stopped))), "the others went on").mark == FAILS
    all_away = (stopped, replace(stopped, name="engine-1"))
    assert finding(judge(evidence(outages=all_away)), "the others went on").mark == HOLDS


def test_late_joiners_must_find_equal_books() -> None:
    came = v.LateJoinersFound(3, 9, 9)
    assert finding(judge(evidence(late_joiners=came)), "late joiners agree") == Finding(
        HOLDS,
        "late joiners agree",
        "3 readers came in the middle and left: 9 of 9 streams found equal at another machine, order by order at one "
        "sequence",
    )
    for bad in (replace(came, verified=8, differing=("ALFA bids: ...",)), replace(came, verified=0)):
        assert finding(judge(evidence(late_joiners=bad)), "late joiners agree").mark == FAILS
    late = finding(judge(evidence(late_joiners=replace(came, verified=7))), "late joiners agree")
    assert (late.mark, late.details) == (HOLDS, ("2 streams could not be compared in time",))


def test_a_machine_that_shows_a_dead_engines_books_as_valid_fails() -> None:
    engines = (v.EngineLife(1, (1,)), v.EngineLife(2, (1,), down=True, killed_at_s=1.5, symbols=("BRAVO",)))
    marked = (v.Marked("fabric-1", 2, "STALE", ("stale",)), v.Marked("fabric-2", 2, "LIVE", ("valid",)))
    judged = finding(judge(evidence(engines=engines, marked=marked)), "engine-2")
    assert judged.mark == FAILS
    assert judged.details[0] == ("judged: 1 of 2 machines mark its books as not current; fabric-2 shows them as valid")


def test_a_run_in_which_nothing_was_sent_proves_nothing() -> None:
    judged = finding(judge(evidence(counted=Counted())), "every order answered")
    assert (judged.mark, judged.details) == (FAILS, ("nothing was sent",))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feed": {}}, "ALFA: 0 in 0 trades on the feed, 5 in 1 reported"),
        ({"feed": {1: trades(TradeKey(1, 101, 5))}}, "ALFA: 5 in 1 trades on the feed, 5 in 1 reported"),
        ({"trade_ids": {1: 2, 2: 0}}, "ALFA: 2 trades at its engine, 1 reported"),
    ],
)
def test_trades_that_do_not_agree_everywhere_fail(changes: dict[str, Any], says: str) -> None:
    judged = finding(judge(evidence(**changes)), "executed quantity conserved")
    assert (judged.mark, judged.details) == (FAILS, (says,))


def test_a_trade_of_an_auction_has_neither_maker_nor_taker_and_is_conserved_all_the_same() -> None:
    auction = tally()
    trade = row(TRADED, 0, 1, price=101, quantity=4, trade_id=2, flags=AUCTION_TRADE)
    auction.report(1, 7, trade, 4_000_000)
    one_sided = Counted.from_json(auction.to_json())
    auction.report(1, 8, trade._replace(flags=AUCTION_TRADE | FLAG_SELL), 4_000_000)
    both = Counted.from_json(auction.to_json())
    heard = {"feed": {1: trades(TradeKey(1, 100, 5), TradeKey(2, 101, 4))}, "trade_ids": {1: 2, 2: 0}}
    assert judge(evidence(counted=both, **heard)).holds
    judged = finding(judge(evidence(counted=one_sided, **heard)), "executed quantity conserved")
    assert (judged.mark, judged.details) == (
        FAILS,
        ("ALFA: bought 9 in 2, sold 5 in 1, makers 9 in 2, takers 9 in 2",),
    )


def test_a_trade_reported_to_one_side_only_fails() -> None:
    one_sided = tally()
    one_sided.report(1, 7, row(TRADED, 0, 1, price=100, quantity=2, trade_id=2, flags=MAKER), 4_000_000)
    judged = finding(judge(evidence(counted=Counted.from_json(one_sided.to_json()))), "executed quantity conserved")
    assert judged.mark == FAILS
    assert judged.details[0] == "ALFA: bought 7 in 2, sold 5 in 1, makers 7 in 2, takers 5 in 1"


def test_trades_that_were_never_on_the_feed_of_an_engine_that_died_between_are_told_and_not_held_against_it() -> None:
    judged = finding(judge(evidence(feed={}, feed_missed={1: 30})), "executed quantity conserved")
    assert judged.mark == HOLDS
    assert judged.details == (
        "1 trade reported, and numbered by the book, but not seen on the feed: they fell into the time around a "
        "restart (30 deltas not heard by the judge)",
    )
    restarted = (v.EngineLife(1, (1, 57)), v.EngineLife(2, (1,)))
    assert finding(judge(evidence(feed={}, engines=restarted)), "executed quantity conserved").mark == HOLDS


def test_a_mirror_that_differs_or_cannot_be_had_fails_and_says_where() -> None:
    mirrors = (
        v.MirrorMatch("fabric-1", 1, 1, 1, 60, 1, 20, differences=("ALFA bids: 19 orders, 20 at its owner",)),
        v.MirrorMatch("fabric-2", 1, 1, problem="did not answer"),
        v.MirrorMatch("fabric-2", 2, 1, 1, 60, 1, 20),
    )
    judged = finding(judge(evidence(mirrors=mirrors)), "mirrors equal")
    assert judged == Finding(
        FAILS,
        "mirrors equal",
        "1 of 3 copies on 2 machines: 20 orders in 1 book, each in its place",
        (
            "fabric-1, engine-1 channel 1: ALFA bids: 19 orders, 20 at its owner",
            "fabric-2, engine-1 channel 1: did not answer",
        ),
    )


def test_gaps_are_told_by_how_they_were_repaired_and_one_left_open_fails() -> None:
    counters = {"gaps": 12, "gaps_ranged": 8, "gaps_snapshotted": 2, "gaps_late": 1, "joins": 1, "covered": 40}
    seen = (v.Seen("fabric-1", 1, counters),)
    judged = finding(judge(evidence(seen=seen)), "gaps seen and repaired")
    assert judged == Finding(
        FAILS,
        "gaps seen and repaired",
        "12 seen: 8 by range, 2 by snapshot, 1 by late frames",
        ("1 not closed", "1 join and 0 later snapshots stand for 40 deltas of the present epochs"),
    )
    closed = (v.Seen("fabric-1", 1, counters | {"gaps_late": 2}),)
    assert finding(judge(evidence(seen=closed)), "gaps seen and repaired").mark == HOLDS
    killed = (v.Seen("fabric-1", 1, counters, gone=True),)
    judged = finding(judge(evidence(seen=killed)), "gaps seen and repaired")
    assert (judged.mark, judged.text[-37:]) == (HOLDS, ", 1 open when their reader was killed")


def test_losses_that_nobody_noticed_fail() -> None:
    proxied = {"engine-1": {"messages": 1_000, "drop": 50, "dup": 20}}
    verdict = judge(evidence(proxied=proxied))
    assert finding(verdict, "gaps seen and repaired").details[0] == "50 messages lost and nobody noticed"
    assert finding(verdict, "faults") == Finding(
        NOTE, "faults", "of 1,000 messages on the feeds 50 dropped, 20 doubled"
    )
    assert not verdict.holds


def test_what_was_done_to_calls_is_told_for_all_fabric_nodes_together() -> None:
    answers = {
        "fabric-1": {"calls": 100, "partition": 7, "snapshots": 10, "fail": 2, "slow": 0, "stale": 1, "cut": 0},
        "fabric-2": {"calls": 20, "partition": 0, "snapshots": 4, "fail": 1, "slow": 1, "stale": 0, "cut": 2},
    }
    verdict = judge(evidence(proxied={"engine-1": {"messages": 3}}, answers=answers))
    assert finding(verdict, "faults of calls") == Finding(
        NOTE, "faults of calls",
        "of 14 snapshots asked of fabric nodes 3 refused, 1 late, 1 old ones, 2 cut in the middle; "
        "7 of 120 calls kept away by partitions",
    )  # fmt: skip


@pytest.mark.parametrize("counter", ["digests_differing", "misfits", "regressions", "bad_frames"])
def test_what_must_never_happen_fails(counter: str) -> None:
    seen = (v.Seen("fabric-1", 1, NO_COUNTERS | {counter: 1}),)
    assert finding(judge(evidence(seen=seen)), "digests agree").mark == FAILS


def test_a_restarted_engine_must_come_back_under_a_higher_epoch() -> None:
    risen = (v.EngineLife(1, (1, 57)), v.EngineLife(2, (1,)))
    assert finding(judge(evidence(engines=risen)), "engine-1 came back") == Finding(
        HOLDS,
        "engine-1 came back",
        "epoch 1 then 57 (the position in its log where it began); 20 orders in its books now",
    )
    same = (v.EngineLife(1, (1, 1)), v.EngineLife(2, (1,)))
    assert finding(judge(evidence(engines=same)), "engine-1 came back").mark == FAILS


def test_a_process_that_ended_by_itself_fails() -> None:
    judged = finding(judge(evidence(ended=(v.Ended("fabric-2", "ended by itself with exit code 1"),))), "processes")
    assert (judged.mark, judged.details) == (FAILS, ("fabric-2 ended by itself with exit code 1",))


BOOK = BookSnapshot(
    1,
    Definition("ALFA", "0.01", "1", 1, 1_000),
    Status(2, 0),
    9,
    100,
    5,
    1,
    2,
    None,
    None,
    [(11, 99, 5), (12, 99, 6)],
    [],
)
BOOKS = Snapshot(1, 1, 77, 1, 60, 0, [BOOK])


def with_book(**changes: Any) -> Snapshot:
    return BOOKS._replace(books=[BOOK._replace(**changes)])


def test_equal_books_have_no_differences_whenever_they_were_taken() -> None:
    assert differences(BOOKS, BOOKS._replace(time_ns=5)) == ()


@pytest.mark.parametrize(
    ("mirror", "says"),
    [
        (with_book(bids=[(12, 99, 6), (11, 99, 5)]), "ALFA bids: 2 orders, 2 at its owner; they differ from #1"),
        (with_book(bids=[(11, 99, 5), (12, 99, 7)]), "ALFA bids: 2 orders, 2 at its owner; they differ from #2"),
        (with_book(bids=[(11, 99, 5)]), "ALFA bids: 1 orders, 2 at its owner; they differ from #2"),
        (with_book(asks=[(13, 101, 1)]), "ALFA asks: 1 orders, 0 at its owner; they differ from #1"),
        (with_book(last_price=101), "ALFA last_price: 101 instead of 100"),
        (BOOKS._replace(last_seq=59), "last_seq 59 instead of 60"),
        (BOOKS._replace(epoch=2), "epoch 2 instead of 1"),
        (BOOKS._replace(books=[]), "instrument 1 only at its owner"),
    ],
)
def test_every_kind_of_difference_is_named(mirror: Snapshot, says: str) -> None:
    assert differences(BOOKS, mirror) == (says,)


def test_a_machine_that_joined_is_in_step_in_time_and_nobody_else_was_disturbed() -> None:
    moved = v.Moved(
        "engine-4", "joined", 0.3, (), (), 40, 8.0, 8.4, "ALFA: ordered through each engine", "joined at 8 s"
    )
    (found,) = [each for each in judge(evidence(moved=(moved,))).findings if each.title == "engine-4 joined"]
    assert found == Finding(
        HOLDS,
        "engine-4 joined",
        "it joined at 8 s; all in step within 0.3 s",
        (
            "ALFA: ordered through each engine",
            "meanwhile 40 orders answered elsewhere in 0.4 s, and no reader of another engine had to begin anew",
        ),
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"missing": ("fabric-1 is not in step with engine-4",)}, "fabric-1 is not in step with engine-4"),
        ({"disturbed": ("fabric-1 began anew with engine-2",)}, "fabric-1 began anew with engine-2"),
        ({"to_s": 10.0, "answered_elsewhere": 0}, "meanwhile 0 orders answered elsewhere in 2.0 s"),
    ],
)
def test_who_is_not_in_step_or_disturbs_others_fails(changes: dict[str, Any], says: str) -> None:
    moved = replace(v.Moved("engine-4", "left", 0.3, (), None, 40, 8.0, 8.4), **changes)
    (found,) = [each for each in judge(evidence(moved=(moved,))).findings if each.title == "engine-4 left"]
    assert (found.mark, found.details[0]) == (FAILS, says)


@pytest.mark.parametrize(
    ("seen", "kind", "mark", "says"),
    [
        ({"bad_frames": 30}, "corrupt", HOLDS, "30 frames were damaged, as the faults had it: seen, and nothing"),
        ({}, "truncate", FAILS, "30 messages hit on purpose, and nobody noticed that frames were damaged"),
        ({"regressions": 2}, "regress", HOLDS, "2 times a publisher went back in its sequence, as the"),
        ({"regressions": 2, "misfits": 1}, "regress", FAILS, "1 deltas did not fit the book"),
        ({"regressions": 2, "digests_differing": 1}, "regress", FAILS, "1 digests differed from a book"),
        ({"regressions": 2}, "drop", FAILS, "2 times a publisher went back in its sequence"),
        ({"misfits": 2}, "drop", FAILS, "2 deltas did not fit the book"),
    ],
)
def test_damage_done_on_purpose_must_be_noticed_and_no_other_may_be(
    seen: dict[str, int], kind: str, mark: str, says: str
) -> None:
    given = evidence(
        seen=(v.Seen("fabric-1", 1, {**NO_COUNTERS, "gaps": 1, "gaps_ranged": 1, **seen}),),
        proxied={"engine-1": {"messages": 100, kind: 30}},
    )
    (found,) = [each for each in judge(given).findings if each.title == "digests agree"]
    assert (found.mark, found.details[0].startswith(says)) == (mark, True), found


def test_what_the_audit_found_fails_rule_by_rule_and_is_told_in_part() -> None:
    breaches = Breaches()
    for at in range(20):
        breaches.add(CROSSED, f"instrument 1 at its delta {at}: 101 bid, 100 offered")
    breaches.add(KEPT, "account 101 at engine-1 had received reports to 9; its drop copy ends at 7")
    verdict = judge(evidence(audited=Audited(breaches)))
    crossed = finding(verdict, CROSSED)
    assert (crossed.mark, crossed.text) == (FAILS, "20 times not so")
    assert crossed.details[:1] == ("instrument 1 at its delta 0: 101 bid, 100 offered",)
    assert crossed.details[-1] == "and 12 more"
    assert finding(verdict, KEPT).mark == FAILS
    assert [each.title for each in verdict.findings if each.mark == FAILS] == [CROSSED, KEPT]


def test_a_rule_that_the_verdict_does_not_tell_cannot_be_broken_in_silence() -> None:
    breaches = Breaches()
    breaches.add("quotes within their limits", "instrument 1 at 102")
    with pytest.raises(AssertionError):
        judge(evidence(audited=Audited(breaches)))


def test_positions_are_not_judged_where_reports_are_no_longer_kept() -> None:
    assert finding(judge(evidence(audited=Audited(whole=False))), "positions net to zero").mark == NOT_JUDGED


def test_other_accounts_are_counted_and_named_and_held_against_nobody() -> None:
    verdict = judge(evidence(others=(Other(7, 3, 1, 5), Other(4711, 1, 0, 0))))
    assert verdict.holds
    assert finding(verdict, "others") == Finding(
        NOTE,
        "others",
        "2 accounts beside the run's own traded there",
        ("account 7: 3 orders, 1 trade of 5 lots", "account 4711: 1 order, 0 trades of 0 lots"),
    )


def test_rates_are_told_over_no_moment_and_a_slow_answer_with_its_reason() -> None:
    assert finding(judge(evidence(seconds=0.0)), "rates").text.startswith("3 orders and 1 trade: too short a time for")
    slow = tally()
    slow.send(7, [(9, 1)], 0)
    slow.report(1, 7, row(ACCEPTED, 9, 9), 5_000_000_000)
    counted = Counted.from_json(slow.to_json())
    away = v.Outage("engine-2", "killed", 3.0, 7.0, 2_000)
    assert finding(judge(evidence(counted=counted)), "rates").details == ()
    assert finding(judge(evidence(counted=counted, opening=counted)), "rates").details == (
        "beside 4 orders answered before these seconds, in the opening",
    )
    assert finding(judge(evidence(counted=counted, outages=(away,))), "rates").details == (
        "the slowest waited for engine-2 to come back, and count with all that time",
    )


def test_trades_at_an_engine_of_which_not_all_could_be_asked_are_not_judged() -> None:
    asked = Audited(unasked=frozenset([1]))
    judged = finding(judge(evidence(feed={}, audited=asked)), "executed quantity conserved")
    assert (judged.mark, judged.details) == (HOLDS, ("ALFA: not all who traded at engine-1 could be asked",))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"altered": 1}, "1 order entered otherwise than they were sent"),
        ({"outlived": 2}, "2 trades of orders that were to have expired before"),
        ({"missed": 3}, "3 execution reports are missing by their numbers"),
    ],
)
def test_what_traders_noticed_themselves_fails(wrong: dict[str, int], says: str) -> None:
    counted = Counted.from_json(tally().to_json() | wrong)
    judged = finding(judge(evidence(counted=counted)), "every order answered")
    assert (judged.mark, judged.details[0]) == (FAILS, says)

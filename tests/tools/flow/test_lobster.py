"""LOBSTER's messages as orders, and a venue judged by Nasdaq's books and fills."""

import io
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.core.venue import Venue
from proto.columns import (
    CANCEL,
    FLAG_SELL,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    NEW,
    REPLACE,
    REQUEUE,
    TIF_IOC,
    report_rows,
)
from tools import replay
from tools.flow.lobster import AGAIN, NAMELESS, OWN, Fill, FlowCommand, FlowStep, plan
from tools.flow.lobster_check import SHOWN_MAX, Checker, FlowCheck, summary
from tools.flow.messages import DELETED, EXECUTED, EXECUTED_HIDDEN, REDUCED, SUBMITTED, BookRow, Message
from tools.flow.recorded import RecordedFlow

DATA = Path(os.environ.get("LOBMESH_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data") / "lobster"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no LOBSTER samples in {DATA}")

MSFT = DATA / "msft_l50_1000" / "MSFT_message_50.csv.gz", DATA / "msft_l50_1000" / "MSFT_orderbook_50.csv.gz"
AMZN = DATA / "amzn_l10_20k" / "AMZN_message_20k.csv.gz", DATA / "amzn_l10_20k" / "AMZN_orderbook_20k.csv.gz"
AAPL = DATA / "aapl_l50" / "AAPL_message_50.csv.gz"

SILENT = replay.Progress(0, io.StringIO())

Levels = tuple[tuple[int, int], ...]


def messages(*rows: tuple[int, int, int, int, int]) -> list[Message]:
    """Kind, order id, size, price, direction: each a nanosecond after the other, executions in a row at one time."""
    found: list[Message] = []
    for row in rows:
        together = found and found[-1].kind == row[0] == EXECUTED and found[-1].direction == row[4]
        found.append(Message(found[-1].time_ns if together else len(found), *row))
    return found


def book(bids: Levels = (), asks: Levels = ()) -> BookRow:
    return BookRow(asks, bids)


def commands(flow: list[Message], books: Sequence[BookRow] = ()) -> list[list[tuple[FlowCommand, ...]]]:
    return [[step.commands, step.after] for step in plan(flow, books)]


def new(order_id: int, price: int, size: int, flags: int = 0) -> FlowCommand:
    return FlowCommand(NEW, order_id, flags, price, size, 0)


def driven(steps: Sequence[FlowStep], checker: Checker) -> FlowCheck:
    """What the checker says of our own venue, given these steps' commands."""
    flow = RecordedFlow(Path("flow"), 1, messages=1, steps=steps)
    flow.checker = checker
    replay.through_core(flow, 1, SILENT)
    return checker.verdict()


def judged(flow: list[Message], books: Sequence[BookRow] = ()) -> FlowCheck:
    steps = list(plan(flow, books))
    return driven(steps, Checker(steps))


# From messages to commands


def test_each_message_becomes_what_caused_it() -> None:
    flow = messages(
        (SUBMITTED, 1, 100, 50, 1),
        (REDUCED, 1, 30, 50, 1),
        (EXECUTED_HIDDEN, 0, 5, 51, 1),
        (DELETED, 1, 70, 50, 1),
    )
    assert commands(flow) == [
        [(), ()],
        [(new(1, 50, 100),), ()],
        [(FlowCommand(REPLACE, OWN + 1, MEANING_REDUCE_BY, 50, 30, 1),), ()],
        [(), ()],
        [(FlowCommand(CANCEL, OWN + 2, 0, 0, 0, 1),), ()],
    ]


def test_adjacent_executions_of_one_time_and_side_are_one_aggressive_order_at_the_worst_price() -> None:
    flow = messages(
        (SUBMITTED, 1, 100, 50, 1),
        (SUBMITTED, 2, 100, 49, 1),
        (SUBMITTED, 3, 100, 52, -1),
        (EXECUTED, 1, 100, 50, 1),
        (EXECUTED, 2, 30, 49, 1),
        (EXECUTED, 2, 20, 49, 1),
        (EXECUTED, 3, 10, 52, -1),
    )
    *_, sold, bought = plan(flow)
    fills = Fill(1, 100, 50), Fill(2, 50, 49)
    assert sold == FlowStep(6, (new(OWN + 1, 49, 150, TIF_IOC | FLAG_SELL),), fills, None, (None, None), (), fills)
    fill = (Fill(3, 10, 52),)
    assert bought == FlowStep(7, (new(OWN + 2, 52, 10, TIF_IOC),), fill, None, (None, None), (), fill)


def test_executions_of_different_times_are_different_orders() -> None:
    first, second = (Message(time_ns, EXECUTED, 1, 10, 50, 1) for time_ns in (7, 8))
    flow = [Message(1, SUBMITTED, 1, 100, 50, 1), first, second]
    assert [step.fills for step in plan(flow)] == [(), (), (Fill(1, 10, 50),), (Fill(1, 10, 50),)]


def test_executions_of_one_time_on_either_side_are_different_orders() -> None:
    entered = messages((SUBMITTED, 1, 100, 50, 1), (SUBMITTED, 2, 100, 51, -1))
    flow = [*entered, Message(7, EXECUTED, 1, 10, 50, 1), Message(7, EXECUTED, 2, 10, 51, -1)]
    assert [step.fills for step in plan(flow)][3:] == [(Fill(1, 10, 50),), (Fill(2, 10, 51),)]


def test_an_order_that_enters_behind_higher_ids_takes_its_place_before_them() -> None:
    flow = messages((SUBMITTED, 8, 100, 50, -1), (SUBMITTED, 5, 10, 50, -1))
    assert commands(flow)[2] == [
        (new(5, 50, 10, FLAG_SELL), FlowCommand(REPLACE, OWN + 1, FLAG_SELL | MEANING_OPEN | REQUEUE, 50, 100, 8)),
        (),
    ]


# What rested before the first message


def test_what_rested_before_is_sized_by_a_first_pass_and_the_rest_has_no_name() -> None:
    flow = messages((SUBMITTED, 9, 10, 51, 1), (EXECUTED, 4, 30, 50, 1), (DELETED, 4, 20, 50, 1))
    books = [
        book(bids=((51, 10), (50, 80)), asks=((53, 7),)),
        book(bids=((51, 10), (50, 50)), asks=((53, 7),)),
        book(bids=((51, 10), (50, 30)), asks=((53, 7),)),
    ]
    assert commands(flow, books)[0] == [
        (new(4, 50, 50), new(NAMELESS + 1, 50, 30), new(NAMELESS + 2, 53, 7, FLAG_SELL)),
        (),
    ]


def test_an_order_that_could_have_come_out_of_view_is_not_taken_to_have_rested_before() -> None:
    flow = messages(
        (SUBMITTED, 9, 10, 51, 1), (SUBMITTED, 10, 10, 52, 1), (DELETED, 10, 10, 52, 1), (DELETED, 4, 20, 50, 1)
    )
    books = [
        book(bids=((51, 10), (50, 20))),
        book(bids=((52, 10), (51, 10))),  # 50 is out of view
        book(bids=((51, 10), (50, 20))),
        book(bids=((51, 10),)),
    ]
    told = commands(flow, books)
    assert told[0] == [(new(NAMELESS + 1, 50, 20),), ()]
    assert told[-1] == [(FlowCommand(CANCEL, OWN + 2, 0, 0, 0, NAMELESS + 1),), ()]


def test_without_books_an_order_that_never_entered_does_so_when_it_is_named() -> None:
    flow = messages((EXECUTED, 4, 30, 50, 1), (SUBMITTED, 9, 10, 51, -1), (DELETED, 4, 20, 50, 1))
    assert commands(flow)[1:] == [
        [(new(4, 50, 50), new(OWN + 1, 50, 30, TIF_IOC | FLAG_SELL)), ()],
        [(new(9, 51, 10, FLAG_SELL),), ()],
        [(FlowCommand(CANCEL, OWN + 2, 0, 0, 0, 4),), ()],
    ]


# What happens out of view


def test_what_comes_into_view_unannounced_is_taken_over_after_the_row_was_judged() -> None:
    flow = messages((SUBMITTED, 9, 10, 52, 1), (DELETED, 9, 10, 52, 1), (DELETED, 3, 5, 50, 1))
    books = [book(bids=((52, 10), (51, 10))), book(bids=((51, 10), (50, 5))), book(bids=((51, 10), (49, 1)))]
    seeds, _, left, last = plan(flow, books)
    assert seeds.commands == (new(NAMELESS + 1, 51, 10),)
    assert (left.floors, left.after) == ((51, None), (new(NAMELESS + 2, 50, 5),))
    assert last.commands == (FlowCommand(CANCEL, OWN + 2, 0, 0, 0, NAMELESS + 2),)
    verdict = judged(flow, books)
    assert (verdict.rows, verdict.rows_agree, verdict.rows_identical) == (3, 3, 1)


def test_a_cancel_of_an_order_without_a_name_is_about_one_of_its_size() -> None:
    flow = messages(
        (SUBMITTED, 9, 10, 52, 1),
        (DELETED, 9, 10, 52, 1),
        (SUBMITTED, 11, 10, 52, 1),
        (DELETED, 11, 10, 52, 1),
        (DELETED, 3, 5, 50, 1),
    )
    seen = book(bids=((51, 10), (50, 7))), book(bids=((51, 10), (50, 12)))
    hidden = book(bids=((52, 10), (51, 10)))
    told = commands(flow, [hidden, seen[0], hidden, seen[1], seen[0]])
    assert [after for _, after in told if after] == [(new(NAMELESS + 2, 50, 7),), (new(NAMELESS + 3, 50, 5),)]
    assert told[-1] == [(FlowCommand(CANCEL, OWN + 3, 0, 0, 0, NAMELESS + 3),), ()]


def test_what_left_unseen_is_what_is_not_named_again() -> None:
    flow = messages(
        (SUBMITTED, 3, 10, 50, 1),
        (SUBMITTED, 4, 10, 50, 1),
        (SUBMITTED, 8, 10, 51, 1),
        (SUBMITTED, 9, 10, 52, 1),
        (DELETED, 9, 10, 52, 1),
        (DELETED, 4, 10, 50, 1),
    )
    books = [
        book(bids=((50, 10),)),
        book(bids=((50, 20),)),
        book(bids=((51, 10), (50, 20))),
        book(bids=((52, 10), (51, 10))),
        book(bids=((51, 10), (50, 10))),
        book(bids=((51, 10),)),
    ]
    assert commands(flow, books)[5] == [
        (FlowCommand(CANCEL, OWN + 1, 0, 0, 0, 9),), (FlowCommand(CANCEL, OWN + 2, 0, 0, 0, 3),)
    ]  # fmt: skip
    assert judged(flow, books).rows_agree == 6


# The checker


FLOW = messages(
    (SUBMITTED, 1, 100, 50, 1),
    (SUBMITTED, 2, 100, 50, 1),
    (SUBMITTED, 3, 100, 52, -1),
    (EXECUTED, 1, 100, 50, 1),
    (EXECUTED, 2, 20, 50, 1),
    (DELETED, 2, 80, 50, 1),
)
BOOKS = [
    book(bids=((50, 100),)),
    book(bids=((50, 200),)),
    book(bids=((50, 200),), asks=((52, 100),)),
    book(bids=((50, 100),), asks=((52, 100),)),
    book(bids=((50, 80),), asks=((52, 100),)),
    book(asks=((52, 100),)),
]


def test_a_venue_that_does_as_nasdaq_did_holds() -> None:
    verdict = judged(FLOW, BOOKS)
    assert verdict == FlowCheck(rows=5, rows_agree=5, rows_identical=5, takers=1, takers_agree=1)
    assert verdict.holds()
    assert summary(verdict) == [
        "rows that end an event: 5 of 5 agree at ten levels",
        "aggressive orders: 1 of 1 filled as on Nasdaq",
    ]


def test_a_wrong_size_is_found_at_its_row() -> None:
    wrong = [*BOOKS[:2], book(bids=((50, 199),), asks=((52, 100),)), *BOOKS[3:]]
    verdict = judged(FLOW, wrong)
    assert (verdict.rows_agree, verdict.holds()) == (4, False)
    assert summary(verdict)[-1] == "row 3: book: bid 50: 200 here, 199 on Nasdaq"


def test_a_level_too_many_is_found() -> None:
    wrong = [*BOOKS[:3], BOOKS[3], BOOKS[4], book()]
    assert summary(judged(FLOW, wrong))[-1] == "row 6: book: ask 52: 100 here, 0 on Nasdaq"


def test_a_fill_against_time_priority_is_the_files_doing_and_nothing_follows_from_it() -> None:
    flow = messages(
        (SUBMITTED, 1, 100, 50, 1),
        (SUBMITTED, 2, 100, 50, 1),
        (SUBMITTED, 3, 70, 50, 1),
        (EXECUTED, 2, 40, 50, 1),
        (REDUCED, 1, 10, 50, 1),
        (EXECUTED, 1, 90, 50, 1),
        (EXECUTED, 2, 60, 50, 1),
        (EXECUTED, 3, 1, 50, 1),
        (DELETED, 3, 69, 50, 1),
    )
    books = [book(bids=((50, size),)) if size else book() for size in (100, 200, 270, 230, 220, 130, 70, 69, 0)]
    *_, astray, _, _, last = plan(flow, books)
    assert (astray.fills, astray.here) == ((Fill(2, 40, 50),), (Fill(1, 40, 50),))
    assert astray.after == (  # order 1 gets back what it had, and its place before 2 and 3
        FlowCommand(REPLACE, OWN + 2, MEANING_REDUCE_BY, 50, 40, 2),
        FlowCommand(CANCEL, OWN + 3, 0, 0, 0, 1),
        new(AGAIN + 1, 50, 100),
        FlowCommand(REPLACE, OWN + 4, MEANING_OPEN | REQUEUE, 50, 60, 2),
        FlowCommand(REPLACE, OWN + 5, MEANING_OPEN | REQUEUE, 50, 70, 3),
    )
    assert last.commands == (FlowCommand(CANCEL, OWN + 8, 0, 0, 0, 3),)
    for given in (books, ()):
        verdict = judged(flow, given)
        assert verdict.holds()
        assert (verdict.rows, verdict.takers, verdict.takers_agree) == (verdict.rows_agree, 2, 1)
        assert summary(verdict)[-1] == (
            "row 4: aggressive order: filled by order 1 at 50 here, by order 2 at 50 on Nasdaq, which entered later: "
            "rows 1 and 2 (the file is not in price-time priority)"
        )


def test_where_the_file_is_not_in_priority_the_venue_must_be() -> None:
    flow = messages((SUBMITTED, 1, 9, 50, 1), (SUBMITTED, 2, 9, 50, 1), (EXECUTED, 2, 9, 50, 1))
    steps = list(plan(flow))
    (taker,) = steps[-1].commands
    wrong = [*steps[:-1], steps[-1]._replace(commands=(taker._replace(quantity=4),))]
    verdict = driven(wrong, Checker(wrong))  # as if it had traded less
    assert [(one.row, one.explained) for one in verdict.taker_differences] == [(3, False)]
    assert not verdict.holds()


def test_a_fill_that_passes_over_a_better_price_is_the_files_doing_in_the_row_of_the_book_too() -> None:
    flow = messages(
        (SUBMITTED, 1, 10, 51, 1), (SUBMITTED, 2, 10, 50, 1), (EXECUTED, 2, 10, 50, 1), (DELETED, 1, 10, 51, 1)
    )
    books = [book(((51, 10),)), book(((51, 10), (50, 10))), book(((51, 10),)), book()]
    verdict = judged(flow, books)
    assert verdict.holds()
    assert [(one.row, one.explained) for one in verdict.differences()] == [(3, True), (3, True)]


def test_an_order_that_rests_nowhere_is_the_files_doing() -> None:
    flow = messages((SUBMITTED, 1, 10, 50, 1), (DELETED, 7, 10, 50, -1), (DELETED, 1, 10, 50, 1))
    verdict = judged(flow, [book(((50, 10),)), book(((50, 10),)), book()])
    assert verdict.holds()
    assert summary(verdict)[-1].startswith("row 2: surprise: order 7 is named and rests nowhere")


def day(seed: int, count: int, against: float) -> tuple[list[Message], list[BookRow]]:
    """A made up day: orders enter, shrink, leave, and are executed, some of them against the priority of time."""
    rng = random.Random(seed)
    sides: dict[int, dict[int, dict[int, int]]] = {1: {}, -1: {}}
    flow: list[Message] = []
    books: list[BookRow] = []
    for i in range(1, count + 1):
        direction = rng.choice((1, -1))
        side = sides[direction]
        best = max(side) if direction == 1 and side else min(side, default=0)
        kind = rng.choice((SUBMITTED, SUBMITTED, REDUCED, DELETED, EXECUTED)) if side else SUBMITTED
        price = rng.choice(list(side)) if kind in (REDUCED, DELETED) else best
        if kind == SUBMITTED:
            price, order_id, size = 1_000 - direction * rng.randrange(1, 6), i, rng.randrange(2, 50)
            side.setdefault(price, {})[order_id] = size
        else:
            level = side[price]
            wrong = kind != EXECUTED or rng.random() < against
            order_id = rng.choice(list(level)) if wrong else next(iter(level))
            size = level[order_id]
            if kind == REDUCED and size == 1:
                kind = DELETED
            if kind == REDUCED or (kind == EXECUTED and rng.random() < 0.5):
                size = rng.randrange(1, max(2, size))
            level[order_id] -= size
            if not level[order_id]:
                del level[order_id]
            if not level:
                del side[price]
        flow.append(Message(i, kind, order_id, size, price, direction))
        bids, asks = (
            tuple((at, sum(sides[way][at].values())) for at in sorted(sides[way], reverse=way == 1)) for way in (1, -1)
        )
        books.append(BookRow(asks, bids))
    return flow, books


@pytest.mark.parametrize("view", [2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_a_day_with_many_fills_against_priority_agrees_in_every_row_all_the_same(seed: int, view: int) -> None:
    flow, books = day(seed, 1_500, 0.2)
    verdict = judged(flow, [BookRow(book.asks[:view], book.bids[:view]) for book in books])
    assert (verdict.rows_agree, verdict.unanswered, verdict.surprises) == (1_500, 0, [])
    assert 10 < len(verdict.taker_differences) < 100
    assert verdict.holds()
    assert len(summary(verdict)) == 2 + (view == 2) + SHOWN_MAX + 1


def test_a_venue_that_forgets_is_told_of_in_ten_lines_and_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fiftieth cancel of this one has no effect."""
    flow, books = day(9, 1_500, 0.0)
    steps = list(plan(flow, books))
    broken = [
        step._replace(commands=()) if i % 50 == 0 and [c.op for c in step.commands] == [CANCEL] else step
        for i, step in enumerate(steps)
    ]
    verdict = driven(broken, Checker(broken))
    assert not verdict.holds()
    assert len(verdict.differences()) > 100
    said = summary(verdict)
    assert len(said) == 2 + SHOWN_MAX + 1
    assert said[-1].endswith(" differences in all, 0 of them the file's own doing")


def test_ten_thousand_orders_at_one_price_are_looked_at_once_each() -> None:
    """Whatever rests at the levels that are judged: a row costs what it changes."""
    flow = messages(*((SUBMITTED, i, 1, 50, 1) for i in range(1, 10_001)))
    books = [book(((50, i),)) for i in range(1, 10_001)]
    steps = list(plan(flow, books))
    looked = 0

    def looking(frame: object, event: str, argument: object) -> None:
        nonlocal looked
        looked += event in ("call", "c_call")

    sys.setprofile(looking)
    try:
        verdict = driven(steps, Checker(steps))
    finally:
        sys.setprofile(None)
    assert verdict.rows_agree == 10_000
    assert looked < 10_000 * 200


def test_an_order_that_should_have_rested_and_traded_is_a_surprise() -> None:
    verdict = judged(messages((SUBMITTED, 1, 100, 50, 1), (SUBMITTED, 2, 100, 50, -1)))
    assert not verdict.holds()
    assert summary(verdict)[-1] == "row 2: surprise: order 2 traded on its entry with order 1; on Nasdaq it rested"


def test_what_was_not_answered_is_counted() -> None:
    steps = list(plan(FLOW, BOOKS))
    checker = Checker(steps)
    verdict = driven([step._replace(commands=()) if step.row == 3 else step for step in steps], checker)
    assert (verdict.rows, verdict.unanswered, verdict.unjudged) == (2, 1, 3)
    assert not verdict.holds()
    assert summary(verdict)[-2:] == [
        "not judged: 1 commands unanswered, 3 rows without a book", "  did this account use their ids before?",
    ]  # fmt: skip


@pytest.mark.parametrize("books_first", [True, False])
def test_reports_and_books_may_come_in_any_interleaving(books_first: bool) -> None:
    steps = list(plan(FLOW, BOOKS))
    checker = Checker(steps)
    venue = Venue(1, [replay.INSTRUMENT])
    reports, books = [], []
    for position, batch in enumerate(RecordedFlow(Path("flow"), 1, messages=1, steps=steps).batches(1, 1), 1):
        outcome = venue.apply(position, position, [batch])
        reports += [row for account in outcome.reports for row in report_rows(account.rows)]
        if outcome.deltas:
            levels = [[level[:2] for level in venue.books[1].levels(side, 10)] for side in (0, 1)]
            books.append(levels)
    if books_first:
        for bids, asks in books:
            checker.event(bids, asks)
    for row in reports:
        checker.reported(row)
    if not books_first:
        for bids, asks in books:
            checker.event(bids, asks)
    assert checker.verdict() == judged(FLOW, BOOKS)


def test_an_aggressive_order_that_meets_nothing_is_no_event() -> None:
    flow = messages((EXECUTED, 1, 10, 50, 1), (SUBMITTED, 2, 10, 50, 1))
    books = [book(), book(bids=((50, 10),))]
    steps = [step._replace(commands=step.commands[-1:]) for step in plan(flow, books)][1:]
    verdict = driven(steps, Checker(steps))
    assert (verdict.rows_agree, verdict.takers, verdict.takers_agree) == (2, 1, 0)
    assert summary(verdict)[-1] == "row 1: aggressive order: 0 filled here, 10 on Nasdaq"


# Real flow


@needs_data
@pytest.mark.parametrize(
    ("files", "rows", "identical", "takers", "agree", "differ"),
    [(MSFT, 925, 925, 35, 35, []), (AMZN, 19_850, 19_259, 600, 598, [4983, 10127])],
    ids=["msft", "amzn"],
)
def test_every_row_agrees_and_aggressive_orders_fill_as_on_nasdaq(
    files: tuple[Path, Path], rows: int, identical: int, takers: int, agree: int, differ: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert replay.main([str(files[0]), "--in-process", "--check", str(files[1]), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row for row, _ in said.pop("taker_differences")] == differ
    assert said == {
        "file": files[0].name,
        "messages": {925: 1000}.get(rows, 20_000),
        "rows": rows,
        "rows_agree": rows,
        "rows_identical": identical,
        "takers": takers,
        "takers_agree": agree,
        "unanswered": 0,
        "unjudged": 0,
        "row_differences": [],
        "surprises": [],
        "holds": True,
    }


@needs_data
def test_a_flow_without_books_is_judged_by_its_fills(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(AAPL), "--in-process", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["messages"], said["takers"], said["takers_agree"], said["rows"]) == (91_997, 3_323, 3_315, 0)
    roots = [row for row, cause in said["taker_differences"] if "which entered later" in cause]
    assert roots == [2411, 2420, 36332, 42575, 42576, 42577, 63789, 88000]


@needs_data
def test_a_book_file_of_another_length_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(MSFT[0]), "--in-process", "--check", str(AMZN[1])]) == 2
    assert capsys.readouterr() == ("", f"replay: {AMZN[1]}: has 20,000 books for 1,000 messages\n")

"""The audit of a feed, delta by delta: what is in order passes, and each breach of a rule is named."""

import pytest

from proto.feed import ADD, AUCTION, DELETE, END, EXECUTE, MODIFY, OPEN, SELL, STATUS, TRADE, Row, Status
from proto.instrument import FIFO, PRO_RATA
from tests.audited import HeardInstrument
from tools.run.audit.breaches import BOOKS, CROSSED, PRIORITY, SIDES
from tools.run.audit.feed import shared_by_size


def add(id: int, price: int, quantity: int = 5, side: int = 0, end: int = END) -> Row:
    return (ADD | side | end, 1, id, price, quantity, 0)


def execute(id: int, price: int, quantity: int, trade_id: int, side: int = 0, end: int = END) -> Row:
    return (EXECUTE | side | end, 1, id, price, quantity, trade_id)


def delete(id: int, side: int = 0) -> Row:
    return (DELETE | side | END, 1, id, 0, 0, 0)


TWO_BIDS = [add(1, 100), add(2, 100), add(3, 99), add(4, 101, side=SELL)]


@pytest.mark.parametrize(
    ("rows", "breaches"),
    [
        ([*TWO_BIDS, execute(1, 100, 5, 1), execute(2, 100, 2, 2), execute(2, 100, 3, 3), execute(3, 99, 5, 4)], {}),
        ([*TWO_BIDS, execute(2, 100, 5, 1)], {PRIORITY: 1}),  # the later one first
        ([*TWO_BIDS, execute(3, 99, 5, 1)], {PRIORITY: 1}),  # a worse price first
        ([*TWO_BIDS, (MODIFY | END, 1, 1, 0, 2, 0), execute(1, 100, 2, 1)], {}),  # smaller keeps its place
        ([*TWO_BIDS, delete(1), add(1, 100), execute(2, 100, 5, 1)], {}),  # behind, with its own id
        ([*TWO_BIDS, delete(1), add(1, 100), execute(1, 100, 5, 1)], {PRIORITY: 1}),
        ([add(1, 100), execute(1, 99, 5, 1)], {PRIORITY: 1}),  # not at its own price
        ([add(1, 100), execute(1, 101, 5, 1)], {PRIORITY: 1, BOOKS: 1}),
        ([*TWO_BIDS, add(5, 101, end=0), execute(4, 101, 5, 1, SELL)], {}),  # crossed within an event
        ([*TWO_BIDS, add(5, 101)], {CROSSED: 1}),
        ([*TWO_BIDS, add(5, 102), add(6, 90)], {CROSSED: 2}),
        ([add(1, 100), delete(1), execute(1, 100, 5, 1)], {PRIORITY: 1, BOOKS: 1}),  # it was gone
        ([add(1, 100), add(1, 100)], {BOOKS: 1}),
        ([add(1, 100), execute(1, 100, 6, 1)], {BOOKS: 1}),
        ([*TWO_BIDS, (TRADE | SELL | END, 1, 0, 100, 5, 1)], {PRIORITY: 1}),  # displayed ones come first
        ([*TWO_BIDS, (TRADE | SELL | END, 1, 0, 101, 5, 1), (TRADE | END, 1, 0, 100, 5, 2)], {}),
        ([add(1, 100), execute(1, 100, 1, 1), execute(1, 100, 2, 1)], {SIDES: 1}),
    ],
)
def test_while_open(rows: list[Row], breaches: dict[str, int]) -> None:
    heard = HeardInstrument(OPEN)
    for row in rows:
        heard.take(row)
    assert heard.watch.audit.breaches.counts == breaches


def test_a_crossed_book_is_none_while_orders_gather_and_is_one_when_it_opens_so() -> None:
    heard = HeardInstrument(AUCTION)
    for row in (add(1, 101), add(2, 100, side=SELL)):
        heard.take(row)
    assert heard.watch.audit.breaches.counts == {}
    heard.take((STATUS | END, 1, 0, 0, 0, 0), Status(OPEN, 0))
    assert heard.watch.audit.breaches.counts == {CROSSED: 1}


def test_an_uncross_takes_the_first_of_both_sides_at_one_price_also_where_levels_are_shared_out_by_size() -> None:
    for allocation in (FIFO, PRO_RATA):
        for first, breaches in ((1, {}), (2, {PRIORITY: 1})):
            heard = HeardInstrument(AUCTION, allocation)
            for row in (add(1, 101), add(2, 101), add(3, 99, 5, SELL)):
                heard.take(row)
            heard.take(execute(first, 100, 5, 1, end=0))
            heard.take(execute(3, 100, 5, 1, SELL, end=0))
            heard.take((STATUS | END, 1, 0, 0, 0, 0), Status(OPEN, 0))
            assert heard.watch.audit.breaches.counts == breaches


def test_the_next_slice_of_an_iceberg_is_known_by_where_it_comes() -> None:
    heard = HeardInstrument(OPEN)
    for row in (add(1, 100), execute(1, 100, 5, 1, end=0), add(7, 100)):
        heard.take(row)
    for row in (execute(7, 100, 5, 2, end=0), add(8, 101, side=SELL)):  # what is left of who took
        heard.take(row)
    told = heard.watch.audit.told
    assert [(resting.emptied, resting.next_id) for trade in told.values() for resting in trade.resting] == [
        (True, 7),
        (True, 0),
    ]


def test_a_level_shared_out_by_size_is_kept_with_its_queue_before() -> None:
    heard = HeardInstrument(OPEN, PRO_RATA)
    for row in (add(1, 100, 6), add(2, 100, 3), execute(1, 100, 4, 1, end=0), execute(2, 100, 2, 2)):
        heard.take(row)
    (shares,) = heard.watch.audit.shares
    assert (shares.queue, shares.got, shares.trades) == (((1, 6), (2, 3)), {1: 4, 2: 2}, (1, 2))
    assert heard.watch.audit.breaches.counts == {}


@pytest.mark.parametrize(
    ("queue", "total", "got"),
    [
        ([(1, 6), (2, 3)], 6, {1: 4, 2: 2}),
        ([(1, 5), (2, 5)], 3, {1: 2, 2: 1}),
        ([(1, 1), (2, 9)], 2, {1: 1, 2: 1}),
        ([(1, 1), (2, 1)], 2, {1: 1, 2: 1}),
        ([(1, 1), (2, 1)], 1, {1: 1}),
    ],
)
def test_shares_are_rounded_down_and_the_rest_goes_first_come_first_served(
    queue: list[tuple[int, int]], total: int, got: dict[int, int]
) -> None:
    assert shared_by_size(queue, total) == got

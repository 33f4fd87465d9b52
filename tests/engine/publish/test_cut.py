"""A copy taken in slices, with trading between them, is the book as it stands when the last slice ends."""

import random

import pytest

from engine.core.venue import Venue
from engine.publish.cut import BookCopy
from proto.columns import BUY, SELL, Batch, ChannelDeltas
from proto.feed import CLEAR, END
from tests.engines import cluster_of

Shown = tuple[int, int, int]


class Floor:
    """A venue whose commands are drawn by chance, on a few prices."""

    def __init__(self, seed: int, prices: int) -> None:
        self.rng = random.Random(seed)
        self.prices = prices
        self.instruments = [instrument.id for instrument in cluster_of(1).instruments]
        self.venue = Venue(1, cluster_of(1).instruments)
        self.position = 0

    def rows(self, count: int, aggressive: float = 0.4, known_part: float = 0.5) -> list[list[int]]:
        """The deltas of `count` random commands, record by record."""
        found: list[ChannelDeltas] = []
        for _ in range(count):
            self.position += 1
            rng = self.rng
            account = rng.choice((7, 8))
            live = self.venue.open_orders(account)
            known = rng.choice(live) if live and rng.random() < known_part else None
            op = rng.choice((2, 3, 3)) if known is not None else 1
            side = rng.choice((BUY, SELL))
            edge = 101 + rng.randint(0, self.prices) if side else 99 - rng.randint(0, self.prices)
            price = edge if rng.random() > aggressive else 200 - edge
            if known is not None and rng.random() < 0.5:
                price = known.price
            batch = Batch(
                account, 0, 1, [op], [self.position],
                [known.instrument if known is not None else rng.choice(self.instruments)], [side], [price],
                [rng.randint(1, 30)], [known.client_order_id if known is not None else 0],
            )  # fmt: skip
            found += self.venue.apply(self.position, self.position, [batch]).deltas
        return [deltas.rows for deltas in found]

    def books(self) -> dict[tuple[int, int], list[Shown]]:
        return {
            (name, side): [(order.order_id, order.price, order.open) for order in book.orders(side)]
            for name, book in self.venue.books.items()
            for side in (BUY, SELL)
        }


def copied(cut: BookCopy, floor: Floor) -> dict[tuple[int, int], list[Shown]]:
    return {(name, side): list(cut.orders(name, side)) for name in floor.venue.books for side in (BUY, SELL)}


@pytest.mark.parametrize("prices", [0, 3, 40])
@pytest.mark.parametrize("room", [1, 2, 7, 40])
def test_the_copy_is_the_book_at_the_last_slice(prices: int, room: int) -> None:
    for seed in range(25):
        floor = Floor(seed, prices)
        floor.rows(150, 0, 0)
        cut = BookCopy(list(floor.venue.books.values()))
        slices = 0
        while not cut.copy(room):
            slices += 1
            for rows in floor.rows(floor.rng.randint(0, min(room, 6)), aggressive=floor.rng.choice((0.0, 0.5))):
                cut.note(rows)
            assert slices < 5_000, f"seed {seed}: no end of it"
        assert slices >= 75 // room, f"seed {seed}"
        expected = floor.books()
        floor.rows(20)  # what comes later is not seen
        assert copied(cut, floor) == expected, f"seed {seed}"


def test_a_level_that_trades_away_while_it_is_copied_is_not_in_the_copy() -> None:
    floor = Floor(1, 0)
    for position in range(1, 11):
        floor.venue.apply(position, 1, [Batch(7, 0, 1, [1], [position], [10], [SELL], [100], [5], [0])])
    cut = BookCopy([floor.venue.books[10]])
    assert not cut.copy(6)
    taken = floor.venue.apply(11, 1, [Batch(8, 0, 1, [1], [1], [10], [BUY], [100], [50], [0])])
    cut.note(taken.deltas[0].rows)
    while not cut.copy(6):
        pass
    assert list(cut.orders(10, SELL)) == list(cut.orders(10, BUY)) == []


def test_a_cleared_book_is_not_in_the_copy_and_what_is_added_after_is() -> None:
    floor = Floor(1, 0)
    for position in range(1, 11):
        floor.venue.apply(position, 1, [Batch(7, 0, 1, [1], [position], [10], [BUY], [100], [5], [0])])
    cut = BookCopy([floor.venue.books[10]])
    assert not cut.copy(4)
    assert not cut.copy(4)
    for order in list(floor.venue.books[10].orders(BUY)):
        floor.venue.books[10].remove(order)
    cut.note([CLEAR | END, 10, 0, 0, 0, 0])
    added = floor.venue.apply(11, 1, [Batch(7, 0, 1, [1], [11], [10], [BUY], [100], [3], [0])])
    cut.note(added.deltas[0].rows)
    while not cut.copy(4):
        pass
    (order,) = floor.venue.books[10].orders(BUY)
    assert list(cut.orders(10, BUY)) == [(order.order_id, 100, 3)]


def test_books_without_orders_are_copied_at_once() -> None:
    floor = Floor(1, 0)
    assert BookCopy([]).done
    cut = BookCopy(list(floor.venue.books.values()))
    assert cut.copy()
    assert set(map(len, copied(cut, floor).values())) == {0}


def test_a_slice_is_as_long_as_it_is_told() -> None:
    floor = Floor(3, 5)
    floor.rows(600, 0, 0)
    cut = BookCopy(list(floor.venue.books.values()))
    orders = sum(map(len, floor.books().values()))
    slices = 1
    while not cut.copy(50):
        slices += 1
    assert orders == 600
    assert orders // 50 <= slices <= orders // 50 + 4

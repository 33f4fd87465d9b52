"""The best levels of one side of a book, as they are shown: their sums alone, or order by order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

ShownLevel = tuple[int, int, int, list[tuple[int, int]]]  # price, quantity, orders; (order id, quantity) if asked for
Queues = Iterable[tuple[int, Iterable[tuple[int, int]]]]  # price; (order id, quantity), first come first


def by_price(levels: Iterable[tuple[int, int, int]]) -> list[ShownLevel]:
    """Levels of (price, quantity, orders) without their orders."""
    return [(price, quantity, count, []) for price, quantity, count in levels]


def by_order(queues: Queues, depth: int = 0) -> list[ShownLevel]:
    """The first `depth` levels, or all, with their orders. Cost: O(orders in them)."""
    levels: list[ShownLevel] = []
    for price, queue in islice(queues, depth or None):
        orders = list(queue)
        levels.append((price, sum([quantity for _, quantity in orders]), len(orders), orders))
    return levels

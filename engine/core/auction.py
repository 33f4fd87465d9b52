"""The price of an auction: the tick at which the most changes hands.

Then the one with the least left over, then the nearest to the reference, then the lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.core.book import Book
from engine.core.order import whole_of


class Indication(NamedTuple):
    """What an uncross would do now: all 0 while nothing would trade. `imbalance` is the buys less the sells."""

    price: int
    volume: int
    imbalance: int


NO_INDICATION = Indication(0, 0, 0)


def indicate(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], reference: int) -> Indication:
    """The uncross of these levels, (price, quantity) each, best first.

    What would trade is the same for all ticks between two prices at which somebody stands, so only such
    spans are looked at, and in each the tick nearest the reference. Cost: O(n log n) in the levels that cross.
    """
    if not bids or not asks or bids[0][0] < asks[0][0]:
        return NO_INDICATION
    lowest, highest = asks[0][0], bids[0][0]
    buys = [(price, quantity) for price, quantity in bids if price >= lowest]
    sells = [(price, quantity) for price, quantity in asks if price <= highest]
    starts = sorted({lowest, *[price for price, _ in sells], *[price + 1 for price, _ in buys if price < highest]})
    bought = sum([quantity for _, quantity in buys])
    sold = 0
    best: tuple[int, int, int, int] | None = None
    found = NO_INDICATION
    for i, start in enumerate(starts):
        end = starts[i + 1] - 1 if i + 1 < len(starts) else highest
        while sells and sells[0][0] <= start:
            sold += sells.pop(0)[1]
        while buys and buys[-1][0] < start:
            bought -= buys.pop()[1]
        price = min(max(reference, start), end)
        volume = min(bought, sold)
        rank = (-volume, abs(bought - sold), abs(price - reference), price)
        if best is None or rank < best:
            best = rank
            found = Indication(price, volume, bought - sold)
    return found


def crossing(book: Book) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The bids and the asks that the other side reaches: each level's price and all that is open there, hidden or not;
    best first. Cost: O(orders on them)."""
    bid, ask = book.bids.best, book.asks.best
    bids: list[tuple[int, int]] = []
    asks: list[tuple[int, int]] = []
    if bid is None or ask is None or bid.price < ask.price:
        return bids, asks
    for level in book.bids:
        if level.price < ask.price:
            break
        bids.append((level.price, sum([whole_of(order).open for order in level])))
    for level in book.asks:
        if level.price > bid.price:
            break
        asks.append((level.price, sum([whole_of(order).open for order in level])))
    return bids, asks

"""The price of an auction: the tick at which the most changes hands.

Then the one with the least left over, then the nearest to the reference, then the lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


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

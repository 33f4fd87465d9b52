"""How much rests at each price of an instrument, by what the venue publishes: best levels without a walk of orders.

Cost: O(1) a delta, O(log prices) where a price comes or goes; a look costs what it returns.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from sortedcontainers import SortedDict

from proto.feed import ADD, CANCEL, CLEAR, DELETE, EXECUTE, MODIFY, OP_MASK, SELL

Levels = list[tuple[int, int]]  # (price, size), best first


class Sizes:
    """One instrument's book by price. What is not in a delta (definitions, trades) is passed over."""

    def __init__(self, bids: Iterable[tuple[int, int, int]] = (), asks: Iterable[tuple[int, int, int]] = ()) -> None:
        """Begin with these orders: (order id, price, quantity)."""
        self._orders: dict[int, tuple[int, int, int]] = {}  # side, price, quantity
        self._sides: tuple[SortedDict[int, int], SortedDict[int, int]] = SortedDict(), SortedDict()
        for side, orders in enumerate((bids, asks)):
            for order_id, price, quantity in orders:
                self._add(side, order_id, price, quantity)

    def apply(self, row: Sequence[int]) -> None:
        """Take in a delta of this instrument: op, instrument, order id, price, quantity, and the rest."""
        op, order_id, price, quantity = row[0] & OP_MASK, row[2], row[3], row[4]
        if op == ADD:
            self._add(1 if row[0] & SELL else 0, order_id, price, quantity)
        elif op in (CANCEL, EXECUTE):
            self._keep(order_id, self._orders[order_id][2] - quantity)
        elif op == MODIFY:
            self._keep(order_id, quantity)
        elif op == DELETE:
            self._keep(order_id, 0)
        elif op == CLEAR:
            self._orders.clear()
            for levels in self._sides:
                levels.clear()

    def best(self, depth: int) -> tuple[Levels, Levels]:
        """The best `depth` levels of bids and asks."""
        bids, asks = self._sides
        return [(-key, size) for key, size in islice(bids.items(), depth)], list(islice(asks.items(), depth))

    def _add(self, side: int, order_id: int, price: int, quantity: int) -> None:
        self._orders[order_id] = side, price, quantity
        levels = self._sides[side]
        key = price if side else -price
        levels[key] = levels.get(key, 0) + quantity

    def _keep(self, order_id: int, quantity: int) -> None:
        """This is left of an order."""
        side, price, before = self._orders.pop(order_id)
        levels = self._sides[side]
        key = price if side else -price
        size = levels[key] + quantity - before
        if size:
            levels[key] = size
        else:
            del levels[key]
        if quantity:
            self._orders[order_id] = side, price, quantity

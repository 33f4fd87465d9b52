"""The least that could be called a matcher: price, then arrival, and nothing else.

No ids of its own, no accounts, no repeats, no limits, no reports, no deltas: only trades, as tuples. It is what the
venue's core is measured against, since it does in the plainest way what no matcher can leave out. Everything is one
loop over columns, with the ladder a sorted list and a level a dict in order of arrival.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

from proto.columns import FLAG_SELL, NEW, REPLACE, TIF_IOC, TIF_MASK

Trade = tuple[int, int, int, int]  # taker, maker, price, quantity
Resting = list[int]  # order id, side, price, open


class BareMatcher:
    """One book. `trades` grows; ids are the client's, as commands name them."""

    def __init__(self) -> None:
        self.orders: dict[int, Resting] = {}
        self.trades: list[Trade] = []
        # Keys rise towards the best price: asks are kept negated.
        self._keys: tuple[list[int], list[int]] = ([], [])
        self._levels: tuple[dict[int, dict[int, Resting]], dict[int, dict[int, Resting]]] = ({}, {})

    def apply(
        self,
        ops: Sequence[int],
        ids: Sequence[int],
        flags: Sequence[int],
        prices: Sequence[int],
        quantities: Sequence[int],
        targets: Sequence[int],
    ) -> None:
        """The columns of a batch. Cost: O(1) a command or trade, O(log L) a level born or gone."""
        orders = self.orders
        trades = self.trades
        for op, order_id, flag, price, quantity, target in zip(
            ops, ids, flags, prices, quantities, targets, strict=True
        ):
            side = flag & FLAG_SELL
            if op != NEW:
                order = orders.pop(target, None)
                if order is None:
                    continue
                side = order[1]
                key = -order[2] if side else order[2]
                level = self._levels[side][key]
                del level[target]
                if not level:
                    del self._levels[side][key]
                    keys = self._keys[side]
                    del keys[bisect_left(keys, key)]
                if op != REPLACE:
                    continue
                order_id = target
            other = self._keys[1 - side]
            limit = price if side else -price
            while quantity and other and other[-1] >= limit:
                key = other[-1]
                level = self._levels[1 - side][key]
                while quantity and level:
                    maker = next(iter(level.values()))
                    traded = maker[3] if maker[3] < quantity else quantity
                    trades.append((order_id, maker[0], maker[2], traded))
                    quantity -= traded
                    maker[3] -= traded
                    if not maker[3]:
                        del level[maker[0]]
                        del orders[maker[0]]
                if not level:
                    del self._levels[1 - side][key]
                    other.pop()
            if quantity and flag & TIF_MASK != TIF_IOC:
                key = -price if side else price
                orders[order_id] = order = [order_id, side, price, quantity]
                levels = self._levels[side]
                found = levels.get(key)
                if found is None:
                    levels[key] = {order_id: order}
                    insort(self._keys[side], key)
                else:
                    found[order_id] = order

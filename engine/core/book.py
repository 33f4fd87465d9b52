"""The book of one instrument: who rests where, and in which order.

A side is a ladder of price levels; a level is a ring of orders in order of
arrival. The ladder is touched only when a level is born or dies, the best level
is always at hand, and an order leaves its ring without a search.

The book knows nothing of accounts' rights, of time, or of the feed: it keeps
what it is told to keep, and `check()` says whether it is still whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from engine.core.order import NOWHERE, Node, Order
from engine.core.tape import Statistics
from proto.columns import BUY, PRICE_LIMIT, SELL, Boxed


class Level(Node):
    """The orders at one price: a ring in order of arrival, of which the level itself is the seam."""

    __slots__ = ("price",)

    def __init__(self, price: Boxed, first: Order) -> None:
        self.prev = self.next = first
        self.price: Boxed = price
        first.prev = first.next = self

    def __iter__(self) -> Iterator[Order]:
        """The orders, first come first. The ring must not change meanwhile."""
        node = self.next
        while node is not self:
            assert isinstance(node, Order)
            yield node
            node = node.next


class Ladder:
    """One side's levels, by price.

    `best` is the level that trades first, or None. The keys are sorted and rise
    towards it (asks are kept negated), so that the best is always the last: where
    levels are born and die is near the best, and there a plain list moves little.

    Cost: O(1) to find a level or the best one, O(log L + d) to open or close one
    of L levels at d levels from the best.
    """

    __slots__ = ("_keys", "_sign", "best", "levels")

    def __init__(self, side: int) -> None:
        self._sign = 1 if side == BUY else -1
        self._keys: list[int] = []
        self.levels: dict[int, Level] = {}
        self.best: Level | None = None

    def open(self, price: Boxed, first: Order) -> Level:
        """A new level at `price`, where there is none, with its first order."""
        level = self.levels[price] = Level(price, first)
        key = price * self._sign
        keys = self._keys
        if not keys or key > keys[-1]:
            keys.append(key)
            self.best = level
        else:
            insort(keys, key)
        return level

    def close(self, level: Level) -> None:
        """Remove `level`, whose last order has just left."""
        price: Boxed = level.price
        del self.levels[price]
        keys = self._keys
        if self.best is level:
            keys.pop()
            self.best = self.levels[keys[-1] * self._sign] if keys else None
        else:
            del keys[bisect_left(keys, price * self._sign)]

    def __iter__(self) -> Iterator[Level]:
        """The levels, best first."""
        for key in reversed(self._keys):
            yield self.levels[key * self._sign]

    def since(self, price: int) -> Iterator[Level]:
        """The levels at `price` and worse, best first. Cost: O(log L), then O(1) each."""
        for at in range(bisect_right(self._keys, price * self._sign) - 1, -1, -1):
            yield self.levels[self._keys[at] * self._sign]

    def prices_from(self, worst: int) -> Iterator[int]:
        """The prices of the levels at `worst` and better, the best last. Cost: O(log L), then O(1) each."""
        for at in range(bisect_left(self._keys, worst * self._sign), len(self._keys)):
            yield self._keys[at] * self._sign

    def check(self) -> None:
        keys = self._keys
        assert keys == sorted(price * self._sign for price in self.levels), "the ladder and the levels differ"
        assert self.best is (self.levels[keys[-1] * self._sign] if keys else None), "the best level is not the best"


class Book:
    """All orders of one instrument that rest and are seen; of an iceberg, its tip."""

    __slots__ = ("asks", "bids", "instrument", "last_price", "last_quantity", "next_trade_id", "session")

    def __init__(self, instrument: int) -> None:
        self.instrument = instrument
        self.bids = Ladder(BUY)
        self.asks = Ladder(SELL)
        self.next_trade_id = 1
        self.last_price = 0
        self.last_quantity = 0
        self.session = Statistics()

    def rest(self, order: Order) -> None:
        """Put `order` at the back of its level. Cost: O(1), and O(log L) for a level's first order."""
        ladder = self.asks if order.side else self.bids
        level = ladder.levels.get(order.price)
        if level is None:
            ladder.open(order.price, order)
        else:
            order.price = level.price  # the same number, kept once
            last = level.prev
            order.prev = last
            order.next = level
            last.next = order
            level.prev = order

    def remove(self, order: Order) -> None:
        """Take `order` out of its level. Cost: O(1), and O(log L) for a level's last order."""
        before = order.prev
        after = order.next
        order.prev = order.next = NOWHERE
        if before is after:  # only the seam is left
            assert isinstance(after, Level)
            (self.asks if order.side else self.bids).close(after)
        else:
            before.next = after
            after.prev = before

    def reduce(self, order: Order, by: int) -> None:
        """Make what is open of `order` smaller by `by`; it keeps its place. Something must remain."""
        assert 0 < by < order.open
        order.open -= by

    def meets(self, side: int, price: int) -> bool:
        """Whether an order of `side` at `price` meets a resting one."""
        best = self.bids.best if side else self.asks.best
        return best is not None and (best.price >= price if side else best.price <= price)

    def orders(self, side: int) -> Iterator[Order]:
        """The resting orders of a side: best price first, then first come first."""
        for level in self.asks if side else self.bids:
            yield from level

    def levels(self, side: int, depth: int = 0) -> list[tuple[int, int, int]]:
        """Price, quantity and number of orders of the best `depth` levels (0: all), best first."""
        found = []
        for level in self.asks if side else self.bids:
            sizes = [order.open for order in level]
            found.append((level.price, sum(sizes), len(sizes)))
            if len(found) == depth:
                break
        return found

    def slice(self, side: int, start: int | None, size: int) -> tuple[int, int, list[int], int | None]:
        """Part of a side, for a digest: whole levels from `start` (None: the best) on, until they have `size` orders.

        Returns the lowest and the highest price it covers, its orders in priority
        order as flat order id, price, quantity, and where the next part starts; None
        if this is the last. All the parts of a side cover all prices.
        """
        first = start if start is not None else -PRICE_LIMIT if side else PRICE_LIMIT
        last = PRICE_LIMIT if side else -PRICE_LIMIT
        after: int | None = None
        words: list[int] = []
        for level in (self.asks if side else self.bids).since(first):
            for order in level:
                words += (order.order_id, level.price, order.open)
            if len(words) >= 3 * size:
                last = level.price
                after = last + 1 if side else last - 1
                break
        return (first, last, words, after) if side else (last, first, words, after)

    def check(self, crossed: bool = False) -> None:
        """Walk every invariant of the book, which may be crossed if `crossed`.

        Cost: O(orders). Raises: AssertionError for the first that is broken.
        """
        for side, ladder in ((BUY, self.bids), (SELL, self.asks)):
            ladder.check()
            for price, level in ladder.levels.items():
                assert level.price == price, "a level stands under another price"
                assert level.next is not level, "an empty level was left behind"
                node: Node = level
                for order in level:
                    assert order.prev is node, "the ring is broken"
                    assert order.price == price, "an order stands in another price's level"
                    assert order.side == side, "an order stands on the wrong side"
                    assert order.instrument == self.instrument, "an order stands in another instrument's book"
                    assert 0 < order.open == order.quantity - order.filled, "quantity is not conserved"
                    node = order
                assert level.prev is node, "the ring is broken at its end"
        bid, ask = self.bids.best, self.asks.best
        assert crossed or bid is None or ask is None or bid.price < ask.price, "the book is crossed"

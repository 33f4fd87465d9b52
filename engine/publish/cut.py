"""A copy of books as they stand at one moment, taken in slices between which they trade on.

A slice copies some orders, in priority order, and notes how many deltas had been published by then. Deltas that come
between slices are kept. What a delta changed of an order copied before it is put right when the copy is read; what
it changed of an order not copied yet is seen when that is copied. So the copy shows the books as they stand when
the last slice ends.

What is copied of a side is always its front: all levels down to a price, and at the next price the orders first in the
queue. An order added behind that point will be reached; one added before it, at the back of a level already passed, is
kept beside. Orders of the level that is being copied may leave it: before a slice goes on there, it takes back those
copied last that a delta has named meanwhile, so that the last one left is where it was, and its neighbour is next.

It needs every change of a book's queues to be among the deltas, as a mirror does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from engine.core.book import Book
from engine.core.order import Node, Order
from proto.columns import BUY, DELTA_WIDTH, SELL
from proto.feed import ADD, CANCEL, CLEAR, DELETE, EXECUTE, MODIFY, OP_MASK

SLICE_STEPS: Final = 4_096  # orders or deltas: 2 to 4 ms

_Shown = tuple[int, int, int]  # order id, price, quantity
_Changes = dict[int, list[tuple[int, int, int]]]  # by order id: which delta, what it was, how much


class _Slice:
    """Orders copied at one moment: after `stamp` deltas."""

    __slots__ = ("ids", "prices", "quantities", "stamp")

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.ids: list[int] = []
        self.prices: list[int] = []
        self.quantities: list[int] = []


class _Side:
    """One side of a book, as far as it is copied.

    passed    the last price whose level is copied whole; None before the first
    at        the price of the level that is copied in part; None if there is none
    front     the orders copied of that level
    late      by price, orders added to levels already passed: stamp, id, quantity
    """

    __slots__ = ("at", "book", "done", "front", "late", "passed", "side", "slices")

    def __init__(self, book: Book, side: int) -> None:
        self.book = book
        self.side = side
        self.done = False
        self.passed: int | None = None
        self.at: int | None = None
        self.front: list[Order] = []
        self.slices: list[_Slice] = []
        self.late: dict[int, list[tuple[int, int, int]]] = {}

    def covers(self, price: int) -> bool:
        """Whether a level at `price` has been passed, so that what is added to it will not be reached."""
        if self.done:
            return True
        if self.at is not None:
            return price < self.at if self.side else price > self.at
        if self.passed is None:
            return False
        return price <= self.passed if self.side else price >= self.passed

    def copy(self, stamp: int, room: int, changes: _Changes) -> int:
        """Go on for `room` orders and levels; gives how many steps it took."""
        taken = _Slice(stamp)
        steps = self._go_on(taken, room, changes) if self.at is not None else 0
        if self.at is None and steps < room:
            steps = self._new_levels(taken, steps, room)
        if taken.ids:
            self.slices.append(taken)
        return steps

    def _go_on(self, taken: _Slice, room: int, changes: _Changes) -> int:
        """Copy more of the level left in the middle."""
        front = self.front
        steps = 0
        while front:
            tail = self.slices[-1]
            changed = changes.get(tail.ids[-1])
            if changed is None or changed[-1][0] <= tail.stamp:
                break
            if steps >= room:
                return steps
            front.pop()
            tail.ids.pop()
            tail.prices.pop()
            tail.quantities.pop()
            if not tail.ids:
                self.slices.pop()
            steps += 1
        price = self.at
        assert price is not None
        if front:
            node: Node = front[-1].next
        else:
            level = (self.book.asks if self.side else self.book.bids).levels.get(price)
            if level is None:
                self._pass(price)
                return steps
            node = level.next
        return self._queue(taken, node, price, steps, room)

    def _new_levels(self, taken: _Slice, steps: int, room: int) -> int:
        ladder = self.book.asks if self.side else self.book.bids
        if self.passed is None:
            levels = iter(ladder)
        else:
            levels = ladder.since(self.passed + 1 if self.side else self.passed - 1)
        for level in levels:
            steps = self._queue(taken, level.next, level.price, steps + 1, room)
            if steps >= room:
                return steps
        self.done = True
        return steps

    def _queue(self, taken: _Slice, node: Node, price: int, steps: int, room: int) -> int:
        """Copy orders from `node` on to the seam of the ring, or until there is no room."""
        ids, prices, quantities, front = taken.ids, taken.prices, taken.quantities, self.front
        self.at = price
        while isinstance(node, Order):
            if steps >= room:
                return steps
            ids.append(node.order_id)
            prices.append(price)
            quantities.append(node.open)
            front.append(node)
            node = node.next
            steps += 1
        self._pass(price)
        return steps

    def _pass(self, price: int) -> None:
        self.passed = price
        self.at = None
        self.front = []


class BookCopy:
    """A copy of some books of one channel, in the making.

        cut = BookCopy(books)
        while not cut.copy():
            ...                          # trading goes on; cut.note(rows) for all that is published
        cut.orders(instrument, BUY)      # any time later, on any thread

    Cost: 0.3 µs an order, in slices of SLICE_STEPS; note() O(1), and 0.3 µs a delta in the next slice.
    """

    __slots__ = ("_changes", "_cleared", "_deltas", "_noted", "_sides", "done")

    def __init__(self, books: Sequence[Book]) -> None:
        self._sides = {(book.instrument, side): _Side(book, side) for book in books for side in (BUY, SELL)}
        self._noted: deque[Sequence[int]] = deque()
        self._deltas = 0  # looked at so far
        self._changes: _Changes = {}
        self._cleared: dict[int, int] = {}  # by instrument: which delta
        self.done = not self._sides

    @property
    def pending(self) -> int:
        """Deltas noted and not looked at."""
        return sum(map(len, self._noted)) // DELTA_WIDTH

    def note(self, rows: Sequence[int]) -> None:
        """Keep what was published, whole events, in order; `rows` is flat and must not change."""
        if not self.done:
            self._noted.append(rows)

    def copy(self, room: int = SLICE_STEPS) -> bool:
        """Take a slice; True when the copy is whole. Nothing may be published and not noted."""
        assert not self.done
        steps = 0
        while self._noted:
            rows = self._noted.popleft()
            self._look(rows)
            steps += len(rows) // DELTA_WIDTH
            if steps >= room and self._noted:
                return False  # the cursors must not move before all is looked at
        room = max(room - steps, room // 4)
        for side in self._sides.values():
            if not side.done:
                room -= side.copy(self._deltas, room, self._changes)
            if not side.done:
                return False
        self.done = True
        return True

    def orders(self, instrument: int, side: int) -> Iterator[_Shown]:
        """Order id, price and quantity of a side, in priority order, as of the end of the last slice. Once a side.

        What was read is let go of as it goes, since to let go of a million orders at once takes long.
        """
        assert self.done
        copied = self._sides[instrument, side]
        late = sorted(copied.late, reverse=side == BUY)
        late.reverse()  # the next one is the last
        at: int | None = None
        slices = copied.slices
        slices.reverse()
        while slices:
            part = slices.pop()
            for order_id, price, quantity in zip(part.ids, part.prices, part.quantities, strict=True):
                if price != at:
                    # First what was added to levels before this one, at the back of the last one too.
                    while late and (late[-1] < price if side else late[-1] > price):
                        yield from self._added(instrument, late[-1], copied.late.pop(late.pop()))
                    at = price
                left = self._left(instrument, part.stamp, order_id, quantity)
                if left:
                    yield order_id, price, left
        while late:
            yield from self._added(instrument, late[-1], copied.late.pop(late.pop()))

    def _added(self, instrument: int, price: int, orders: list[tuple[int, int, int]]) -> Iterator[_Shown]:
        for stamp, order_id, quantity in orders:
            left = self._left(instrument, stamp, order_id, quantity)
            if left:
                yield order_id, price, left

    def _left(self, instrument: int, stamp: int, order_id: int, quantity: int) -> int:
        """What is left of an order that had `quantity` after `stamp` deltas; 0: it is gone."""
        if self._cleared.get(instrument, 0) > stamp:
            return 0
        for delta, code, amount in self._changes.get(order_id, ()):
            if delta <= stamp:
                continue
            if code == MODIFY:
                quantity = amount
            elif code == DELETE:
                return 0
            else:
                quantity -= amount
                if not quantity:
                    return 0
        return quantity

    def _look(self, rows: Sequence[int]) -> None:
        """See what the deltas change of that which is copied. The cursors stand where they stood when it happened."""
        it = iter(rows)
        changes = self._changes
        for op, instrument, order_id, price, quantity, _ in zip(it, it, it, it, it, it, strict=True):
            self._deltas += 1
            code = op & OP_MASK
            if code == ADD:
                side = self._sides.get((instrument, op >> 4 & 1))
                if side is not None and side.covers(price):
                    side.late.setdefault(price, []).append((self._deltas, order_id, quantity))
            elif code in (CANCEL, MODIFY, DELETE, EXECUTE):
                changes.setdefault(order_id, []).append((self._deltas, code, quantity))
            elif code == CLEAR:
                self._cleared[instrument] = self._deltas
                for cleared in (BUY, SELL):
                    if (instrument, cleared) in self._sides:
                        self._sides[instrument, cleared].front = []  # its level begins anew, if it comes again

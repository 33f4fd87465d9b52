"""What waits beside the book, each kind found by what it waits for: a price that trades, a quantity, a reference.

Every kind has its live orders by id, in their turn: first come first. That is all there is to remember; the indexes
beside it follow from it and from the book, and bounds in plain integers say when there is nothing to look for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from engine.core.book import Book, Ladder
from engine.core.order import IN_BOOK, Order, needs, whole_of
from proto.columns import (
    BUY,
    CAPPED,
    FLAG_SELL,
    PRICE_LIMIT,
    SELL,
    TYPE_MASK,
    TYPE_PEG_BID,
    TYPE_PEG_MID,
    TYPE_PEG_OFFER,
    Boxed,
    is_peg,
)

NEVER: Final = 2 * PRICE_LIMIT  # beyond any price
_STALE_MIN: Final = 64

_Entry = tuple[int, int, Order]  # a price as a heap has it, the order's turn, the order


class Waiting:
    """Orders of one kind that wait, by id and in their turn, and how many there are of each account."""

    __slots__ = ("_turn", "of_account", "orders")

    def __init__(self) -> None:
        self.orders: dict[int, Order] = {}
        self.of_account: dict[int, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self.orders)

    def __iter__(self) -> Iterator[Order]:
        return iter(self.orders.values())

    def _join(self, order: Order) -> None:
        self._turn += 1
        order.extend().turn = self._turn
        self.orders[order.order_id] = order
        account = order.account.id
        self.of_account[account] = self.of_account.get(account, 0) + 1

    def _quit(self, order: Order) -> None:
        del self.orders[order.order_id]
        order.extend().turn = 0
        account = order.account.id
        left = self.of_account[account] - 1
        if left:
            self.of_account[account] = left
        else:
            del self.of_account[account]


class Stops(Waiting):
    """Sleeping stops, by the price at which they fire: a buy at `above` or higher, a sell at `below` or lower.

    Cost: O(log n) to add, to remove, and to find the next that fires.
    """

    __slots__ = ("_breached", "_sleeping", "above", "below")

    def __init__(self) -> None:
        super().__init__()
        self.above: Boxed = NEVER
        self.below: Boxed = -NEVER
        self._sleeping: tuple[list[_Entry], list[_Entry]] = ([], [])  # by side, the nearest first; some are stale
        self._breached: list[tuple[int, Order]] = []  # by turn, those that were when the last price was looked at

    def add(self, order: Order) -> None:
        self._join(order)
        self._sleep(order)
        for side in (BUY, SELL):
            if len(self._sleeping[side]) > 2 * len(self.orders) + _STALE_MIN:
                self._sleeping[side][:] = [entry for entry in self._sleeping[side] if _in_turn(entry[2], entry[1])]
                heapify(self._sleeping[side])

    def remove(self, order: Order) -> None:
        self._quit(order)
        self._tidy()

    def first_breached(self, last: int) -> Order | None:
        """The first that came of those that a last trade at `last` ticks fires."""
        sleeping, breached = self._sleeping, self._breached
        while self.above <= last or self.below >= last:
            _, turn, order = heappop(sleeping[BUY if self.above <= last else SELL])
            heappush(breached, (turn, order))
            self._tidy()
        while breached:
            turn, order = heappop(breached)
            if _in_turn(order, turn):
                if is_breached(order, last):
                    return order
                self._sleep(order)  # the price went back before its turn had come
        return None

    def _sleep(self, order: Order) -> None:
        more = order.extend()
        price = -more.stop_price if order.side else more.stop_price
        heappush(self._sleeping[order.side], (price, more.turn, order))
        self._tidy()

    def _tidy(self) -> None:
        for entries in self._sleeping:
            while entries and not _in_turn(entries[0][2], entries[0][1]):
                heappop(entries)
        buys, sells = self._sleeping
        self.above = buys[0][0] if buys else NEVER
        self.below = -sells[0][0] if sells else -NEVER

    def check(self) -> None:
        nearest = [order.extend().stop_price for order in self.orders.values() if not order.side]
        assert self._breached or self.above == min(nearest, default=NEVER), "the nearest buy stop is another"
        nearest = [order.extend().stop_price for order in self.orders.values() if order.side]
        assert self._breached or self.below == max(nearest, default=-NEVER), "the nearest sell stop is another"


def _in_turn(order: Order, turn: int) -> bool:
    """Whether an entry of an index still speaks of where the order waits."""
    return order.extend().turn == turn


def is_breached(order: Order, last: int) -> bool:
    stop_price = order.extend().stop_price
    return last <= stop_price if order.side else last >= stop_price


class Shelf:
    """The conditional orders of one side at one price, in their turn.

    `within` is what the visible orders of the other side have open that the price reaches, `least` the smallest
    quantity that one of these orders needs. `stirred`: something changed since they were tried.
    """

    __slots__ = ("key", "least", "orders", "price", "stirred", "within")

    def __init__(self, key: int, price: Boxed, within: int) -> None:
        self.key = key
        self.price: Boxed = price
        self.orders: dict[int, Order] = {}
        self.within = within
        self.least = 0
        self.stirred = False

    def weigh(self) -> None:
        self.least = min([needs(order) for order in self.orders.values()])


class Conditionals(Waiting):
    """Orders off the visible book that wait for a quantity, by side and price.

    `lowest_sell` and `highest_buy` are the prices from which on they have to do with the other side.

    Cost: O(log n) and the orders of its shelf to add or remove one, and, where it is the first at its price, the
    visible orders that the price reaches; O(shelves that reach it) for a change of the visible book.
    """

    __slots__ = ("_shelves", "highest_buy", "lowest_sell")

    def __init__(self) -> None:
        super().__init__()
        self.lowest_sell: Boxed = NEVER
        self.highest_buy: Boxed = -NEVER
        self._shelves: tuple[list[Shelf], list[Shelf]] = ([], [])  # by side, the best price first

    def add(self, order: Order, book: Book) -> Shelf:
        self._join(order)
        key: int = order.price if order.side else -order.price
        shelves = self._shelves[order.side]
        at = bisect_left(shelves, key, key=_key)
        if at == len(shelves) or shelves[at].key != key:
            other = book.bids if order.side else book.asks
            shelves.insert(at, Shelf(key, order.price, _within(other, order.side, order.price)))
            self._bound()
        shelf = shelves[at]
        need = needs(order)
        shelf.least = min(shelf.least, need) if shelf.orders else need
        shelf.orders[order.order_id] = order
        return shelf

    def remove(self, order: Order) -> None:
        self._quit(order)
        shelf = self.shelf(order)
        del shelf.orders[order.order_id]
        if shelf.orders:
            shelf.weigh()
        else:
            self._shelves[order.side].remove(shelf)
            self._bound()

    def shelf(self, order: Order) -> Shelf:
        """Where a conditional order is."""
        key: int = order.price if order.side else -order.price
        shelves = self._shelves[order.side]
        return shelves[bisect_left(shelves, key, key=_key)]

    def shrunk(self, order: Order) -> None:
        """One has less open, in its place: it may need less."""
        shelf = self.shelf(order)
        shelf.weigh()
        shelf.stirred = True

    def side(self, side: int) -> list[Shelf]:
        """The shelves of a side, the best price first."""
        return self._shelves[side]

    def changed(self, side: int, price: int, by: int) -> None:
        """The visible orders of `side` have so many lots more open at `price`, or others than before (0)."""
        for shelf in self._shelves[1 - side]:
            if shelf.price < price if side else shelf.price > price:
                return
            shelf.within += by
            shelf.stirred = True

    def stir(self) -> None:
        """Something changed that bears on all of them."""
        for shelves in self._shelves:
            for shelf in shelves:
                shelf.stirred = True

    def likely(self) -> list[Order]:
        """Those that could have what they need, as far as quantity goes, and have not been tried since something
        changed; in their turn."""
        found: list[Order] = []
        for shelves in self._shelves:
            for shelf in shelves:
                if not shelf.within:
                    break
                if shelf.stirred:
                    shelf.stirred = False
                    if shelf.least <= shelf.within:
                        found += [order for order in shelf.orders.values() if needs(order) <= shelf.within]
        if len(found) > 1:
            found.sort(key=_turn)
        return found

    def check(self, book: Book) -> None:
        assert sum([len(shelf.orders) for shelves in self._shelves for shelf in shelves]) == len(self.orders)
        for side, shelves in enumerate(self._shelves):
            assert [shelf.key for shelf in shelves] == sorted({shelf.key for shelf in shelves}), "shelves out of order"
            for shelf in shelves:
                other = book.bids if side else book.asks
                assert shelf.within == _within(other, side, shelf.price), "it is not known what is within reach"
                assert shelf.least == min([needs(order) for order in shelf.orders.values()])
                assert all(self.orders[id] is order for id, order in shelf.orders.items())

    def _bound(self) -> None:
        buys, sells = self._shelves
        self.highest_buy = buys[0].price if buys else -NEVER
        self.lowest_sell = sells[0].price if sells else NEVER


def _key(shelf: Shelf) -> int:
    return shelf.key


def _turn(order: Order) -> int:
    return order.extend().turn


def _within(other: Ladder, side: int, price: int) -> int:
    """What is open on the other side that a price of `side` reaches."""
    found = 0
    for level in other:
        if level.price < price if side else level.price > price:
            break
        for order in level:
            found += whole_of(order).open
    return found


class Pegs(Waiting):
    """Every live pegged order, asleep or on the book, and the references that they follow.

    `bid` and `offer` are the best prices of visible orders that are no pegs, when that was last looked at; None where
    there is nobody. No peg moves while the bid is anywhere within `bids`, and the offer within `offers` (an order that
    stands at its cap need not follow); `known` is False while that has to be found out.

    Cost: O(pegs at and before the best other order) to look, O(pegs) where a reference has moved.
    """

    __slots__ = ("_due", "bid", "bids", "known", "offer", "offers")

    def __init__(self) -> None:
        super().__init__()
        self.bid: int | None = None
        self.offer: int | None = None
        self.bids = self.offers = (-NEVER, NEVER)
        self.known = False
        self._due: list[tuple[int, Order]] = []  # by turn

    def add(self, order: Order) -> None:
        self._join(order)
        self.known = False

    def remove(self, order: Order) -> None:
        if order.order_id in self.orders:
            self._quit(order)

    def look(self, book: Book, price_min: int, price_max: int) -> None:
        """See where the references are, and, where one has moved, which pegs do not stand where they belong."""
        bid, offer = firm(book.bids), firm(book.asks)
        bid_moved, offer_moved = not self.known or bid != self.bid, not self.known or offer != self.offer
        if not bid_moved and not offer_moved:
            return
        self.bid, self.offer, self.known = bid, offer, True
        self.bids = self.offers = (-NEVER, NEVER)
        for order in self.orders.values():
            kind = order.flags & TYPE_MASK
            if kind != TYPE_PEG_OFFER:
                self.bids = _narrowed(self.bids, order, bid)
            if kind != TYPE_PEG_BID:
                self.offers = _narrowed(self.offers, order, offer)
            if (bid_moved and kind != TYPE_PEG_OFFER) or (offer_moved and kind != TYPE_PEG_BID):
                more = order.extend()
                stands = order.price if more.where == IN_BOOK else None
                if peg_price(order.flags, more.offset, more.cap, bid, offer, price_min, price_max) != stands:
                    heappush(self._due, (more.turn, order))

    def first_due(self) -> Order | None:
        """The first that came of those that may not stand where they belong."""
        while self._due:
            turn, order = heappop(self._due)
            if _in_turn(order, turn):
                return order
        return None


def _narrowed(within: tuple[int, int], order: Order, reference: int | None) -> tuple[int, int]:
    """The part of a range of one reference, now at `reference`, in which this peg, too, stays where it is."""
    low, high = within
    if reference is None:
        return NEVER, -NEVER  # whoever comes is one
    more = order.extend()
    turns = more.cap - more.offset  # the reference at which the cap begins to hold
    mid = order.flags & TYPE_MASK == TYPE_PEG_MID
    if order.flags & CAPPED and not mid and more.where == IN_BOOK and order.price == more.cap:
        return (low, min(high, turns)) if order.side else (max(low, turns), high)
    return max(low, reference), min(high, reference)


def peg_price(
    flags: int, offset: int, cap: int, bid: int | None, offer: int | None, price_min: int, price_max: int
) -> int | None:
    """Where a peg belongs, or None if it has to sleep."""
    kind = flags & TYPE_MASK
    sell = flags & FLAG_SELL
    if kind == TYPE_PEG_BID:
        reference = bid
    elif kind == TYPE_PEG_OFFER:
        reference = offer
    else:
        reference = (bid + offer + sell) // 2 if bid is not None and offer is not None else None
    if reference is None:
        return None
    price = reference + offset
    if flags & CAPPED:
        price = max(price, cap) if sell else min(price, cap)
    return price if price_min <= price <= price_max else None


def anchor(ladder: Ladder, reference: int, worst: int) -> int:
    """A price at which an order stands that is no peg, the worst of those up to `worst`: while it is there, the side's
    reference is no worse. Cost: O(log L), and O(pegs) on the way."""
    for price in ladder.prices_from(worst):
        if price == reference:
            break
        if any(not is_peg(order.flags) for order in ladder.levels[price]):
            return price
    return reference


def firm(ladder: Ladder) -> int | None:
    """The best price of a side's visible orders that are no pegs."""
    best = ladder.best
    if best is None:
        return None
    first = best.next
    assert isinstance(first, Order)
    if not is_peg(first.flags):  # almost always
        return best.price  # type: ignore[no-any-return]
    for level in ladder:
        for order in level:
            if not is_peg(order.flags):
                return level.price  # type: ignore[no-any-return]
    return None


class Deadlines:
    """GTD orders by when they expire, then by order id.

    Cost: O(log n) each, and now and then O(n) to drop those that are gone.
    """

    __slots__ = ("_entries", "_sweep_at")

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._sweep_at = _STALE_MIN

    def add(self, order: Order, expires_ns: int) -> None:
        heappush(self._entries, (expires_ns, order.order_id, order))
        if len(self._entries) > self._sweep_at:
            self._entries = [entry for entry in self._entries if entry[2].open]
            heapify(self._entries)
            self._sweep_at = 2 * len(self._entries) + _STALE_MIN

    @property
    def next_ns(self) -> int:
        """When one will be due, or may be; 0 if none will."""
        return self._entries[0][0] if self._entries else 0

    def due(self, time_ns: int) -> Order | None:
        """The next live one that is due by then; it is taken out."""
        while self._entries and self._entries[0][0] <= time_ns:
            order = heappop(self._entries)[2]
            if order.open:
                return order
        return None

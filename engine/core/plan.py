"""What an incoming order would do, found out before anything moves.

Whatever has to be decided on the whole of an order's trades (fill or kill, a minimum, all-or-none) is decided on a
plan; then the same plan is carried out. So what was promised and what is done cannot differ.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from engine.core.book import Level
from engine.core.market import Market
from engine.core.order import Order, needs, whole_of
from engine.core.waiting import Shelf
from proto.columns import (
    BAND,
    BUY,
    NO_REASON,
    OCO,
    SELF_TRADE,
    STP_CANCEL_BOTH,
    STP_CANCEL_NEWEST,
    STP_CANCEL_OLDEST,
    STP_NONE,
    TOO_MANY_TRADES,
)

# What a step does to the resting order.
TRADE: Final = 0
CANCEL_RESTING: Final = 1
DECREMENT: Final = 2


class Step(NamedTuple):
    kind: int
    order: Order
    quantity: int


class _Place:
    """An order in a queue as the plan goes through it: what it shows, and what is behind that."""

    __slots__ = ("hidden", "order", "shown")

    def __init__(self, order: Order, shown: int) -> None:
        self.order = order
        self.shown = shown
        self.hidden: int = order.open - shown

    def take(self, quantity: int) -> bool:
        """Trade as much of what is shown; whether the order then shows a new tip, at the back."""
        self.shown -= quantity
        if self.shown or not self.hidden:
            return False
        more = self.order.more
        assert more is not None
        self.shown = min(more.display, self.hidden)
        self.hidden -= self.shown
        return True

    def shrink(self, quantity: int) -> None:
        """Lose as much without a trade: the hidden first."""
        unseen = min(self.hidden, quantity)
        self.hidden -= unseen
        self.shown -= quantity - unseen


class Plan:
    """The steps of one incoming order, in order.

    traded  lots
    reason  why it goes no further: SELF_TRADE, BAND, OCO (it is canceled on the way), TOO_MANY_TRADES, or NO_REASON
    """

    __slots__ = (
        "_gone", "_left", "_market", "_open", "_partner", "_stp", "_taker", "_unlinked", "reason", "steps", "traded"
    )  # fmt: skip

    def __init__(
        self, market: Market, taker: Order, partner: Order | None, limit: int, stp: int, visible: bool, trades: int
    ) -> None:
        """Plan `taker` down to `limit`, in so many `trades` at most; `partner` is its OCO partner; `visible`: it meets
        no conditional orders.

        Cost: O(orders met), and with pro-rata O(orders of the levels met).
        """
        self._market = market
        self._taker = taker
        self._partner = partner
        self._stp = stp
        self._open: int = taker.open
        self._left = trades
        self._gone: set[int] = set()  # orders canceled on the way
        self._unlinked: set[int] = set()  # orders whose link was used up on the way
        self.steps: list[Step] = []
        self.traded = 0
        self.reason = NO_REASON
        self._sweep(limit, [] if visible else market.conditionals.side(1 - taker.side))

    def _sweep(self, limit: int, shelves: list[Shelf]) -> None:
        buys = self._taker.side == BUY
        levels = iter(self._market.book.asks if buys else self._market.book.bids)
        level = next(levels, None)
        at = 0
        while self._open and not self.reason:
            shelf = shelves[at] if at < len(shelves) else None
            if level is not None:
                price: int = level.price
                if shelf is not None:
                    price = min(price, shelf.price) if buys else max(price, shelf.price)
            elif shelf is not None:
                price = shelf.price
            else:
                return
            if price > limit if buys else price < limit:
                return
            if level is not None and level.price == price:
                if self._market.pro_rata:
                    self._share(deque([_Place(whole_of(order), order.open) for order in level]), price)
                else:
                    self._queue(level, price)
                level = next(levels, None)
            if shelf is not None and shelf.price == price:
                if shelf.least <= self._open:
                    for order in shelf.orders.values():
                        if self._open and not self.reason:
                            self._conditional(order, price)
                at += 1

    def _queue(self, level: Level, price: int) -> None:
        """First come first served; an iceberg's next tip comes behind everybody who is there."""
        back: deque[_Place] = deque()
        for order in level:
            if not self._open or self.reason:
                return
            self._meet(_Place(whole_of(order), order.open), back, price)
        while back and self._open and not self.reason:
            self._meet(back.popleft(), back, price)

    def _meet(self, place: _Place, back: deque[_Place], price: int) -> None:
        order = place.order
        if order.order_id in self._gone or self._beyond(price):
            return
        if order.account is self._taker.account and self._stp != STP_NONE:
            self._own(order, place.shown + place.hidden)
            return
        quantity = min(place.shown, self._open)
        refilled = place.take(quantity)
        self._trade(order, quantity)
        if refilled:
            back.append(place)

    def _share(self, places: deque[_Place], price: int) -> None:
        """Pro-rata: shares rounded down, then first come first served; again if somebody was canceled on the way."""
        while self._open and not self.reason:
            here = [place for place in places if place.shown and place.order.order_id not in self._gone]
            if not here or self._beyond(price):
                return
            if self._stp != STP_NONE:
                own = [place for place in here if place.order.account is self._taker.account]
                for place in own:
                    if self._open and not self.reason and place.order.order_id not in self._gone:
                        self._own(place.order, place.shown + place.hidden)
                        place.shown = place.hidden = 0
                if own:
                    continue
            total = sum([place.shown + place.hidden for place in here])
            incoming = min(self._open, total)
            shares = [incoming * (place.shown + place.hidden) // total for place in here]
            left = incoming - sum(shares)
            for i, place in enumerate(here):
                extra = min(left, place.shown + place.hidden - shares[i])
                shares[i] += extra
                left -= extra
            for place, share in zip(here, shares, strict=True):
                while share and not self.reason and place.order.order_id not in self._gone:
                    quantity = min(share, place.shown)
                    share -= quantity
                    if place.take(quantity):
                        places.remove(place)
                        places.append(place)
                    self._trade(place.order, quantity)

    def _conditional(self, order: Order, price: int) -> None:
        if order.order_id in self._gone:
            return
        open: int = order.open
        quantity = min(open, self._open)
        if quantity < needs(order) or self._beyond(price):
            return
        if order.account is self._taker.account and self._stp != STP_NONE:
            self._own(order, open)
        else:
            self._trade(order, quantity)

    def _beyond(self, price: int) -> bool:
        """Whether the band does not allow a trade there; that ends the plan."""
        band = self._market.instrument.band
        if band and abs(price - self._market.band_reference) > band:
            self.reason = BAND
        return self.reason != NO_REASON

    def _own(self, order: Order, open: int) -> None:
        """Meet an order of the same account."""
        if self._stp == STP_CANCEL_NEWEST:
            self.reason = SELF_TRADE
        elif self._stp in (STP_CANCEL_OLDEST, STP_CANCEL_BOTH):
            self.steps.append(Step(CANCEL_RESTING, order, 0))
            self._gone.add(order.order_id)
            self._act(order)
            if self._stp == STP_CANCEL_BOTH and not self.reason:
                self.reason = SELF_TRADE
        else:
            quantity = min(open, self._open)
            self.steps.append(Step(DECREMENT, order, quantity))
            if quantity == open:
                self._gone.add(order.order_id)
                self._act(order)
            self._open -= quantity
            if not self._open and not self.reason:
                self.reason = SELF_TRADE

    def _trade(self, order: Order, quantity: int) -> None:
        if not self._left:
            self.reason = TOO_MANY_TRADES
            return
        self._left -= 1
        self.steps.append(Step(TRADE, order, quantity))
        self._open -= quantity
        self.traded += quantity
        if self._partner is not None:
            self._unlinked.add(self._partner.order_id)
            self._gone.add(self._partner.order_id)
            self._partner = None
        self._act(order)

    def _act(self, order: Order) -> None:
        """Something happened to a resting order that takes its OCO partner along."""
        if order is self._partner:
            self._partner = None
            self.reason = OCO
            return
        more = order.more
        partner = more.partner if more is not None else None
        if partner is not None and order.order_id not in self._unlinked:
            self._unlinked.add(partner.order_id)
            self._gone.add(partner.order_id)

"""How a market settles: after a command, what has become possible happens until nothing more moves.

One command's event goes `place` (or what a replace or a cancel does), then `finish`: the market settles, and its last
delta ends the event. `come` is both, for an order that may leave nothing to settle.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.core.auction import crossing, indicate
from engine.core.book import Level
from engine.core.listing import Listing
from engine.core.market import Market
from engine.core.order import CONDITIONAL, IN_BOOK, INCOMING, PEG, STOP, Order, needs
from engine.core.trading import Trading
from engine.core.waiting import is_breached
from proto.columns import (
    DELTA_WIDTH,
    NO_LIQUIDITY,
    NO_REASON,
    POST_ONLY,
    TIF_FOK,
    TIF_IOC,
    TIF_MASK,
    TRIGGERED,
    TYPE_MASK,
    TYPE_STOP,
    WOULD_TRADE,
    Boxed,
    is_peg,
    is_stop,
)
from proto.feed import END, INDICATION, OPEN


class Settling:
    """Lets orders come to their markets, and the markets settle.

    `unsettled` has the markets that paused while they settled, by instrument.
    """

    __slots__ = ("trading", "unsettled")

    def __init__(self, trading: Trading) -> None:
        self.trading = trading
        self.unsettled: dict[int, Market] = {}

    def place(self, market: Market, order: Order, stp: int, command: Boxed) -> None:
        """Let an order trade, rest, or wait for its time: one that is new, or lost its place to a replace."""
        more = order.more
        flags = order.flags
        if more is not None:
            more.where = INCOMING
            if is_stop(flags) and not more.fired:
                book = market.book
                if market.state == OPEN and book.last_quantity and is_breached(order, book.last_price):
                    self._fire(market, order, command)
                else:
                    more.where = STOP
                    market.stops.add(order)
                return
            if is_peg(flags):
                more.where = PEG
                market.pegs.add(order)
                if market.state == OPEN:
                    self._move(market, order, market.peg_price(flags, more.offset, more.cap), command)
                return
            if (more.minimum or more.all_or_none) and flags & TIF_MASK not in (TIF_IOC, TIF_FOK):
                more.where = CONDITIONAL
                market.conditionals.add(order, market.book)
                if market.state == OPEN:
                    self._try(market, order, command)
                return
        if market.state == OPEN:
            self.trading.incoming(market, order, stp, command)
        else:
            self.trading.rest(market, order)

    def come(self, market: Market, order: Order, stp: int, command: Boxed, mark: int) -> None:
        """A plain order comes to an open market; its event, whose deltas began at `mark`, ends here.

        The market settles only if what has changed could let something happen.
        """
        book = market.book
        side = order.side
        best = book.bids.best if side else book.asks.best
        self.trading.incoming(market, order, stp, command)
        if market.stirred or not (self._rests_calmly(market, order) and self._took_calmly(market, order, best)):
            self.finish(market, mark)
        elif len(market.deltas) > mark:
            market.deltas[-DELTA_WIDTH] |= END

    def _rests_calmly(self, market: Market, order: Order) -> bool:
        """Whether nothing else may happen because of where an order stands now, if it does."""
        calm: bool = order.price >= market.add_ask_min if order.side else order.price <= market.add_bid_max
        return calm or not order.open

    def _took_calmly(self, market: Market, order: Order, best: Level | None) -> bool:
        """Whether nothing else may happen because of what an order has traded, from the level `best` on."""
        if best is None or not order.filled:
            return True
        last = market.book.last_price
        if not market.stops.below < last < market.stops.above:
            return False
        calm: bool
        if order.side:
            calm = best.price <= market.cut_bid_max and last > market.anchor_bid
        else:
            calm = best.price >= market.cut_ask_min and last < market.anchor_ask
        return calm

    def cancel_in_one(self, listing: Listing, orders: Iterable[Order], reason: int) -> None:
        """Cancel orders in one event, then let each market touched settle."""
        marks = listing.begin_wide()
        self.finish_wide(listing, marks, self.trading.cancel_each(listing, orders, reason))

    def finish_wide(self, listing: Listing, marks: dict[int, int], touched: list[Market]) -> None:
        """Let the markets touched settle, and end the event on each channel."""
        for market in touched:
            self.finish(market, len(market.deltas))
        listing.end_wide(marks)

    def settle_on(self) -> None:
        """Let the markets that paused go on, each in an event of its own."""
        for id in sorted(self.unsettled):
            market = self.unsettled.pop(id)
            if market.unsettled:
                self.finish(market, len(market.deltas))

    def finish(self, market: Market, mark: int) -> None:
        """End a command's event, whose deltas began at `mark`: settle, indicate, and say that it is over."""
        if market.state == OPEN:
            self._settle(market)
        if market.gathering:
            self._indicate(market)
        market.stirred = False
        market.heed()
        if market.summary_due:
            market.summary_due = False
            self.trading.tell_summary(market)
        if len(market.deltas) > mark:
            market.deltas[-DELTA_WIDTH] |= END

    def _settle(self, market: Market) -> None:
        """What is possible now happens, one thing after the other; too much of it waits for the next record."""
        end = market.book.next_trade_id + self.trading.limits.settling
        market.unsettled = False
        while market.state == OPEN:
            if market.book.next_trade_id >= end:
                market.unsettled = True
                self.unsettled[market.instrument.id] = market
                self.trading.bounded += 1
                return
            end -= 1
            if market.lapsed:
                order = market.lapsed.pop(0)
                more = order.more
                assert more is not None
                more.where = INCOMING
                self.trading.incoming(market, order, more.stp, 0)
            elif not (self._fire_one(market) or self._try_one(market) or self._move_one(market)):
                return

    def _fire_one(self, market: Market) -> bool:
        if not market.stops.orders or not market.book.last_quantity:
            return False
        order = market.stops.first_breached(market.book.last_price)
        if order is not None:
            self._fire(market, order, 0)
        return order is not None

    def _fire(self, market: Market, order: Order, command: Boxed) -> None:
        more = order.more
        assert more is not None
        if more.where == STOP:
            market.stops.remove(order)
        more.where = INCOMING
        more.fired = True
        self.trading.record.report(TRIGGERED, command, order, 0, NO_REASON)
        self.trading.unlink(market, order)
        if order.flags & TYPE_MASK == TYPE_STOP and self.trading.no_liquidity(market, order.side):
            self.trading.end(market, order, NO_LIQUIDITY, 0)
        else:
            self.trading.incoming(market, order, more.stp, command)

    def _try_one(self, market: Market) -> bool:
        if not market.conditionals.orders:
            return False
        likely = market.conditionals.likely()
        for nth, order in enumerate(likely):
            if self._try(market, order, 0):
                for other in likely[nth + 1 :]:
                    if other.open and other.extend().where == CONDITIONAL:
                        market.conditionals.shelf(other).stirred = True
                return True
        return False

    def _try(self, market: Market, order: Order, command: Boxed) -> bool:
        """Let a conditional order take what it needs from visible orders, if that is to be had."""
        more = order.more
        assert more is not None
        if needs(order) > market.conditionals.shelf(order).within:
            return False
        plan = self.trading.plan(market, order, more.partner, order.price, more.stp, True, self.trading.limits.trades)
        if plan.traded < needs(order):
            return False
        market.conditionals.remove(order)
        more.where = INCOMING
        more.minimum = 0
        self.trading.follow(market, order, plan, command)
        return True

    def _move_one(self, market: Market) -> bool:
        if not market.pegs.orders:
            return False
        market.look_at_pegs()
        while (order := market.pegs.first_due()) is not None:
            more = order.more
            assert more is not None
            price = market.peg_price(order.flags, more.offset, more.cap)
            if price != (order.price if more.where == IN_BOOK else None):
                self._move(market, order, price, 0)
                return True
        return False

    def _move(self, market: Market, order: Order, price: int | None, command: Boxed) -> None:
        """Put a peg where it belongs, or to sleep."""
        more = order.more
        assert more is not None
        if more.where == IN_BOOK:
            self.trading.leave(market, order)
        more.where = PEG
        if price is None:
            return
        if order.flags & POST_ONLY and market.book.meets(order.side, price):
            self.trading.end(market, order, WOULD_TRADE, 0)
            return
        order.price = price
        more.where = INCOMING
        self.trading.incoming(market, order, more.stp, command)

    def _indicate(self, market: Market) -> None:
        found = indicate(*crossing(market.book), market.reference)
        if found != market.indication:
            market.indication = found
            self.trading.tell(market, INDICATION, [found.price, found.volume, found.imbalance])

"""Where everything trades that is not plain: orders that wait, hide, follow or depend on each other, and auctions.

One command's event goes `place` (or what a replace or a cancel does), then `finish`: the market settles, and its last
delta ends the event. Engine/RULES.md has the rules in their order.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from engine.core.auction import NO_INDICATION, indicate
from engine.core.market import Market
from engine.core.matching import would_trade
from engine.core.order import (
    CONDITIONAL,
    IN_BOOK,
    INCOMING,
    LAPSED,
    PEG,
    STOP,
    Account,
    More,
    Order,
    needs,
    whole_of,
)
from engine.core.plan import CANCEL_RESTING, TRADE, UNBOUNDED, Plan
from proto import feed
from proto.columns import (
    ALL_OR_NONE,
    AUCTION_TRADE,
    BAND,
    BUY,
    CANCELED,
    CAPPED,
    COLLAR,
    DELTA_WIDTH,
    EXPIRED,
    HALTED_REASON,
    IOC_REMAINDER,
    MAKER,
    MARKET_REMAINDER,
    NO_LIQUIDITY,
    NO_REASON,
    OCO,
    POST_ONLY,
    RESTATED,
    SELF_TRADE,
    SELL,
    TIF_DAY,
    TIF_FOK,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TRADED,
    TRIGGERED,
    TYPE_MARKET,
    TYPE_MASK,
    TYPE_PEG_BID,
    TYPE_PEG_OFFER,
    TYPE_STOP,
    WOULD_TRADE,
    Boxed,
    Terms,
    is_peg,
    is_stop,
)
from proto.feed import ADD, AUCTION, CLOSED, DELETE, END, EXECUTE, INDICATION, MODIFY, OPEN, STATISTICS, STATUS

_EXPIRIES_MIN: Final = 64


class Pit:
    """What the venue is made of, and the slow way of every command."""

    def __init__(self, first_order_id: int) -> None:
        self.first_order_id = first_order_id
        self.orders_entered = 0
        self.position = 0
        self.time_ns = 0
        self.accounts: dict[int, Account] = {}
        self.markets: dict[int, Market] = {}
        self._touched: list[Account] = []
        self._expiries: list[tuple[int, int, Order]] = []
        self._expiries_due = _EXPIRIES_MIN  # so many of them, and the dead ones are dropped

    # Orders come

    def next_id(self) -> Boxed:
        self.orders_entered += 1
        return self.first_order_id + self.orders_entered

    def qualify(self, market: Market, order: Order, terms: Terms | None, stp: int, partner: Order | None) -> None:
        """Give a new order what it needs beyond a plain one."""
        flags = order.flags
        if flags & TIF_MASK == TIF_GTD:
            assert terms is not None
            self._will_expire(order, terms.expires_ns)
        special = flags & TYPE_MASK > TYPE_MARKET or flags & ALL_OR_NONE != 0
        if terms is None and not special:
            return
        more = order.extend()
        more.terms = terms
        more.stp = stp
        more.where = INCOMING
        if terms is not None:
            special = special or terms.minimum != 0 or partner is not None
            more.stop_price = terms.stop_price
            more.display = terms.display
            more.offset = terms.offset
            more.minimum = terms.minimum
        more.all_or_none = flags & ALL_OR_NONE != 0
        more.cap = order.price
        if special:
            self._attend(market, order)
        if partner is not None:
            other = partner.more
            if other is None:
                other = partner.extend()
                other.stp = stp
            self._attend(market, partner)
            more.partner = partner
            other.partner = order

    def _attend(self, market: Market, order: Order) -> None:
        """The market is special while this order lives."""
        more = order.more
        assert more is not None
        if not more.special:
            more.special = True
            market.specials += 1
            if not market.special:
                market.mind()

    def _will_expire(self, order: Order, expires_ns: int) -> None:
        heappush(self._expiries, (expires_ns, order.order_id, order))
        if len(self._expiries) > self._expiries_due:
            self._expiries = [entry for entry in self._expiries if entry[2].open]
            heapify(self._expiries)
            self._expiries_due = 2 * len(self._expiries) + _EXPIRIES_MIN

    def place(self, market: Market, order: Order, stp: int, command: Boxed) -> None:
        """Let an order trade, rest, or wait for its time: one that is new, or lost its place to a replace."""
        more = order.more
        flags = order.flags
        if more is not None:
            more.where = INCOMING
            if is_stop(flags) and not more.fired:
                market.stops[order.order_id] = order
                more.where = STOP
                if market.state == OPEN and self._breached(market, order):
                    self._fire(market, order, command)
                return
            if is_peg(flags):
                market.pegs[order.order_id] = order
                more.where = PEG
                if market.state == OPEN:
                    self._move(market, order, self._peg_price(market, order), command)
                return
            if (more.minimum or more.all_or_none) and flags & TIF_MASK not in (TIF_IOC, TIF_FOK):
                market.conditionals[order.order_id] = order
                more.where = CONDITIONAL
                if market.state == OPEN:
                    self._try(market, order, command)
                return
        if market.state == OPEN:
            self.incoming(market, order, stp, command)
        else:
            self._rest(market, order)

    def incoming(self, market: Market, order: Order, stp: int, command: Boxed) -> None:
        """Trade `order` by plan, then rest or cancel what is left of it. A post-only order never takes."""
        if order.flags & POST_ONLY:
            self._rest(market, order)
            return
        plan = Plan(market, order, partner_of(order), self.reach(market, order), stp, False)
        self._carry_out(market, order, plan, command)

    def reach(self, market: Market, order: Order) -> int:
        """The furthest price at which `order` may trade."""
        if order.flags & TYPE_MASK in (TYPE_MARKET, TYPE_STOP):
            return self.reach_of_market(market, order.side)
        price: int = order.price
        return price

    def reach_of_market(self, market: Market, side: int) -> int:
        """How far a market order's collar lets it go."""
        sign = -1 if side else 1
        collar = market.instrument.collar
        book = market.book
        best = book.bids.best if side else book.asks.best
        if not collar or (best is None and not book.last_quantity):
            return sign * UNBOUNDED
        reference: int = book.last_price if best is None or book.last_quantity else best.price
        return reference + sign * collar

    def market_remainder(self, market: Market, side: int) -> int:
        """Why the rest of a market order is canceled."""
        other = market.book.bids if side else market.book.asks
        return COLLAR if market.instrument.collar and other.best is not None else MARKET_REMAINDER

    def no_liquidity(self, market: Market, side: int) -> bool:
        """Whether there is nobody on the other side."""
        if (market.book.bids if side else market.book.asks).best is not None:
            return False
        return not any(order.side != side for order in market.conditionals.values())

    def _carry_out(self, market: Market, order: Order, plan: Plan, command: Boxed) -> None:
        self._take_steps(market, order, plan, command)
        if not order.open:
            return
        flags = order.flags
        kind = flags & TYPE_MASK
        force = flags & TIF_MASK
        reason = plan.reason
        market_order = kind in (TYPE_MARKET, TYPE_STOP)
        if reason == BAND:
            self._change_state(market, AUCTION, BAND)
            market.summary_due = True
            reason = HALTED_REASON if market_order or force in (TIF_IOC, TIF_FOK) else NO_REASON
            if reason == NO_REASON and is_peg(flags):
                more = order.more
                assert more is not None
                more.where = PEG
                self._pegs_leave(market)
                return
        elif reason == NO_REASON:
            if market_order:
                reason = self.market_remainder(market, order.side)
            elif force in (TIF_IOC, TIF_FOK):
                reason = IOC_REMAINDER
        if reason:
            self._end(market, order, reason, 0)
        else:
            self._rest(market, order)
        if plan.reason == BAND:
            self._pegs_leave(market)

    def _take_steps(self, market: Market, taker: Order, plan: Plan, command: Boxed) -> None:
        for kind, maker, quantity in plan.steps:
            if kind == TRADE:
                self._exchange(market, taker, maker, quantity, command)
            elif kind == CANCEL_RESTING:
                self.drop(market, maker, SELF_TRADE)
            else:
                self._decrement(market, taker, maker, quantity, command)

    def _exchange(self, market: Market, taker: Order, maker: Order, quantity: int, command: Boxed) -> None:
        """One trade, at the maker's price."""
        book = market.book
        at = maker.price
        trade_id = book.next_trade_id
        book.next_trade_id = trade_id + 1
        book.last_price = at
        book.last_quantity = quantity
        taker.open -= quantity
        taker.filled += quantity
        more = maker.more
        self._traded(market, taker, 0, at, quantity, trade_id, command)
        if more is not None and more.where == CONDITIONAL:
            maker.open -= quantity
            maker.filled += quantity
            self._traded(market, maker, MAKER, at, quantity, trade_id, 0)
            market.deltas.extend((
                feed.TRADE | taker.side << 4, book.instrument, 0, at, quantity, trade_id,
            ))  # fmt: skip
            del market.conditionals[maker.order_id]
            if maker.open:
                more.minimum = 0
                more.where = LAPSED
                market.lapsed.append(maker)
        else:
            self._execute(market, maker, MAKER, at, quantity, trade_id)
            self._refill(market, maker)
        book.session.tape.append((
            taker, maker, MAKER, at, quantity, taker.open, taker.filled, maker.open, maker.filled,
        ))  # fmt: skip
        book.session.trim()
        self._died(market, maker)
        self._died(market, taker)
        self._unlink(market, taker)
        self._unlink(market, maker)

    def _execute(self, market: Market, order: Order, flag: int, at: Boxed, quantity: int, trade_id: int) -> None:
        """Let a visible order trade: its report and its EXECUTE. An iceberg's next tip is the caller's to show."""
        shown = self._shown(order)
        if quantity < shown.open:
            market.book.reduce(shown, quantity)
        else:
            market.book.remove(shown)
            shown.open = 0
        shown.filled += quantity
        if shown is not order:
            order.open -= quantity
            order.filled += quantity
        self._traded(market, order, flag, at, quantity, trade_id, 0)
        market.deltas.extend((
            EXECUTE | order.side << 4, order.instrument, shown.order_id, at, quantity, trade_id,
        ))  # fmt: skip

    def _traded(
        self, market: Market, order: Order, flag: int, at: Boxed, quantity: int, trade_id: int, command: Boxed
    ) -> None:
        self._touch(order.account).reports.extend((
            TRADED, command, order.client_order_id, order.order_id, order.instrument, order.side | flag,
            at, quantity, order.open, order.filled, trade_id, NO_REASON,
        ))  # fmt: skip

    def _decrement(self, market: Market, taker: Order, maker: Order, quantity: int, command: Boxed) -> None:
        """Two orders of one account shrink instead of trading with each other."""
        if quantity < maker.open:
            maker.remember(maker.flags, maker.price, maker.quantity)
            self._shrink(market, maker, quantity)
            maker.quantity -= quantity
            self._report(RESTATED, 0, maker, 0, SELF_TRADE)
        else:
            self.drop(market, maker, SELF_TRADE)
        if not taker.open:  # it went with its partner
            return
        if quantity < taker.open:
            taker.remember(taker.flags, taker.price, taker.quantity)
            taker.open -= quantity
            taker.quantity -= quantity
            self._report(RESTATED, command, taker, 0, SELF_TRADE)
        else:
            self._end(market, taker, SELF_TRADE, 0)

    def _shrink(self, market: Market, order: Order, quantity: int) -> None:
        """Make what is open smaller, what is hidden first; something is left, and it keeps its place."""
        more = order.more
        if more is not None and more.where in (CONDITIONAL, LAPSED, STOP, PEG):
            order.open -= quantity
            return
        shown = self._shown(order)
        unseen = min(order.open - shown.open, quantity)
        seen = quantity - unseen
        if seen:
            market.book.reduce(shown, seen)
            market.deltas.extend((
                MODIFY | order.side << 4, order.instrument, shown.order_id, order.price, shown.open, 0,
            ))  # fmt: skip
        if shown is not order:
            shown.quantity -= seen
            order.open -= quantity

    # What is seen

    def _rest(self, market: Market, order: Order) -> None:
        """Put an order at the back of its level; of an iceberg, its tip."""
        shown = order
        more = order.more
        if more is not None:
            more.where = IN_BOOK
            if more.display:
                shown = self._next_tip(order, more)
        market.book.rest(shown)
        market.deltas.extend((
            ADD | order.side << 4, order.instrument, shown.order_id, order.price, shown.open, 0,
        ))  # fmt: skip

    def _next_tip(self, order: Order, more: More) -> Order:
        """What an iceberg shows next: an order of its own on the book, under a public id of its own after the first."""
        public_id = self.next_id() if more.tips else order.order_id
        more.tips += 1
        open: int = order.open
        tip = Order(
            order.account, order.client_order_id, public_id, order.instrument, order.flags, order.price,
            min(more.display, open), order.session,
        )  # fmt: skip
        tip.extend().whole = order
        more.tip = tip
        return tip

    def _refill(self, market: Market, order: Order) -> None:
        """Let an iceberg whose tip was traded away show the next."""
        more = order.more
        if more is None or more.tip is None or more.tip.open:
            return
        if order.open:
            self._rest(market, order)
        else:
            more.tip = None

    def _shown(self, order: Order) -> Order:
        """What stands on the book for an order: itself or its tip."""
        more = order.more
        return order if more is None or more.tip is None else more.tip

    # Orders go

    def drop(self, market: Market, order: Order, reason: int, command: Boxed = 0) -> None:
        """Cancel a live order, wherever it is, and its OCO partner behind it."""
        more = order.more
        where = IN_BOOK if more is None else more.where
        if where == IN_BOOK:
            self._leave(market, order)
        elif where == CONDITIONAL:
            del market.conditionals[order.order_id]
        elif where == STOP:
            del market.stops[order.order_id]
        elif where == LAPSED:
            market.lapsed.remove(order)
        self._end(market, order, reason, command)

    def _leave(self, market: Market, order: Order) -> None:
        """Take a visible order off the book."""
        shown = self._shown(order)
        market.book.remove(shown)
        market.deltas.extend((
            DELETE | order.side << 4, order.instrument, shown.order_id, order.price, shown.open, 0,
        ))  # fmt: skip
        if shown is not order:
            more = order.more
            assert more is not None
            more.tip = None

    def _end(self, market: Market, order: Order, reason: int, command: Boxed) -> None:
        """An order that stands nowhere is canceled."""
        order.open = 0
        self._report(CANCELED, command, order, 0, reason)
        self._died(market, order)
        self._unlink(market, order)

    def _died(self, market: Market, order: Order) -> None:
        more = order.more
        if order.open or more is None:
            return
        market.pegs.pop(order.order_id, None)
        if more.special:
            more.special = False
            market.specials -= 1
            if not market.specials:
                market.mind()

    def _unlink(self, market: Market, order: Order) -> None:
        """Something happened to one of a pair: cancel the other."""
        partner = partner_of(order)
        if partner is None:
            return
        more, other = order.more, partner.more
        assert more is not None
        assert other is not None
        assert other.partner is order, "a link with one end"
        more.partner = other.partner = None
        if partner.open:
            self.drop(market, partner, OCO)

    # The market settles

    def finish(self, market: Market, mark: int) -> None:
        """End a command's event, whose deltas began at `mark`: settle, indicate, and say that it is over."""
        if market.special:
            if market.state == OPEN:
                self._settle(market)
            if market.gathering:
                self._indicate(market)
        if market.summary_due:
            market.summary_due = False
            self.tell_summary(market)
        if len(market.deltas) > mark:
            market.deltas[-DELTA_WIDTH] |= END

    def _settle(self, market: Market) -> None:
        while market.state == OPEN:
            if market.lapsed:
                order = market.lapsed.pop(0)
                more = order.more
                assert more is not None
                more.where = INCOMING
                self.incoming(market, order, more.stp, 0)
            elif not (self._fire_one(market) or self._try_one(market) or self._move_one(market)):
                return

    def _fire_one(self, market: Market) -> bool:
        for order in market.stops.values():
            if self._breached(market, order):
                self._fire(market, order, 0)
                return True
        return False

    def _breached(self, market: Market, order: Order) -> bool:
        book = market.book
        more = order.more
        assert more is not None
        if not book.last_quantity:
            return False
        last: int = book.last_price
        return last <= more.stop_price if order.side else last >= more.stop_price

    def _fire(self, market: Market, order: Order, command: Boxed) -> None:
        more = order.more
        assert more is not None
        del market.stops[order.order_id]
        more.where = INCOMING
        more.fired = True
        self._report(TRIGGERED, command, order, 0, NO_REASON)
        self._unlink(market, order)
        if order.flags & TYPE_MASK == TYPE_STOP and self.no_liquidity(market, order.side):
            self._end(market, order, NO_LIQUIDITY, 0)
        else:
            self.incoming(market, order, more.stp, command)

    def _try_one(self, market: Market) -> bool:
        for order in market.conditionals.values():
            if would_trade(market.book, order.side, order.price) and self._try(market, order, 0):
                return True
        return False

    def _try(self, market: Market, order: Order, command: Boxed) -> bool:
        """Let a conditional order take what it needs from visible orders, if that is to be had."""
        more = order.more
        assert more is not None
        plan = Plan(market, order, more.partner, order.price, more.stp, True)
        if plan.traded < needs(order):
            return False
        del market.conditionals[order.order_id]
        more.where = INCOMING
        more.minimum = 0
        self._carry_out(market, order, plan, command)
        return True

    def _move_one(self, market: Market) -> bool:
        for order in market.pegs.values():
            more = order.more
            assert more is not None
            price = self._peg_price(market, order)
            if price != (order.price if more.where == IN_BOOK else None):
                self._move(market, order, price, 0)
                return True
        return False

    def _move(self, market: Market, order: Order, price: int | None, command: Boxed) -> None:
        """Put a peg where it belongs, or to sleep."""
        more = order.more
        assert more is not None
        if more.where == IN_BOOK:
            self._leave(market, order)
        more.where = PEG
        if price is None:
            return
        if order.flags & POST_ONLY and would_trade(market.book, order.side, price):
            self._end(market, order, WOULD_TRADE, 0)
            return
        order.price = price
        more.where = INCOMING
        self.incoming(market, order, more.stp, command)

    def _peg_price(self, market: Market, order: Order) -> int | None:
        more = order.more
        assert more is not None
        return peg_price(market, order.flags, more.offset, more.cap)

    def _pegs_leave(self, market: Market) -> None:
        """The market is no longer open: pegs sleep."""
        for order in market.pegs.values():
            more = order.more
            assert more is not None
            if more.where == IN_BOOK:
                self._leave(market, order)
                more.where = PEG

    # States and auctions

    def change_state(self, market: Market, state: int) -> None:
        """Uncross if that is due, then let orders follow the new state; the caller ends the event."""
        before = market.state
        if state == OPEN or (before == AUCTION and state == CLOSED):
            self._uncross(market)
        self._change_state(market, state, NO_REASON)
        if before == OPEN:
            self._pegs_leave(market)
        if state == CLOSED:
            for order in self.live_on(market):
                if order.open and order.flags & TIF_MASK == TIF_DAY:
                    self.drop(market, order, EXPIRED)

    def _change_state(self, market: Market, state: int, reason: int) -> None:
        market.state = state
        market.reason = reason
        market.indication = NO_INDICATION
        market.mind()
        self.tell(market, STATUS, [state, reason])

    def _indicate(self, market: Market) -> None:
        bids, asks = market.crossing()
        found = indicate(bids, asks, market.reference)
        if found != market.indication:
            market.indication = found
            self.tell(market, INDICATION, [found.price, found.volume, found.imbalance])

    def _uncross(self, market: Market) -> None:
        """Trade all that crosses at one price; again, should canceled OCO partners leave it crossed."""
        book = market.book
        while True:
            price, volume, _ = indicate(*market.crossing(), market.reference)
            if not volume:
                return
            market.band_reference = price
            while True:
                bids, asks = book.bids.best, book.asks.best
                if bids is None or asks is None or bids.price < price or asks.price > price:
                    break
                bid, ask = bids.next, asks.next
                assert isinstance(bid, Order)
                assert isinstance(ask, Order)
                self._cross(market, bid, ask, price)

    def _cross(self, market: Market, bid: Order, ask: Order, price: int) -> None:
        """One trade of an uncross, of what both show."""
        book = market.book
        quantity: int = min(bid.open, ask.open)
        trade_id = book.next_trade_id
        book.next_trade_id = trade_id + 1
        book.last_price = price
        book.last_quantity = quantity
        buyer, seller = whole_of(bid), whole_of(ask)
        for order in (buyer, seller):
            self._execute(market, order, AUCTION_TRADE, price, quantity, trade_id)
        book.session.tape.append((
            buyer, seller, AUCTION_TRADE, price, quantity, buyer.open, buyer.filled, seller.open, seller.filled,
        ))  # fmt: skip
        book.session.trim()
        for order in (buyer, seller):
            self._refill(market, order)
        for order in (buyer, seller):
            self._died(market, order)
        for order in (buyer, seller):
            self._unlink(market, order)

    def expire(self, time_ns: int) -> None:
        """Cancel the GTD orders whose time has come."""
        while self._expiries and self._expiries[0][0] <= time_ns:
            order = heappop(self._expiries)[2]
            if order.open:
                market = self.markets[order.instrument]
                mark = len(market.deltas)
                self.drop(market, order, EXPIRED)
                self.finish(market, mark)

    @property
    def next_expiry_ns(self) -> int:
        """When a GTD order will be due, or may be; 0 if none will."""
        return self._expiries[0][0] if self._expiries else 0

    def live_on(self, market: Market) -> list[Order]:
        """The live orders of an instrument, wherever they are, by order id. Cost: O(n log n)."""
        found = [whole_of(order) for side in (BUY, SELL) for order in market.book.orders(side)]
        found.extend(market.stops.values())
        found.extend(market.conditionals.values())
        found.extend(market.lapsed)
        found += [peg for peg in market.pegs.values() if peg.more is not None and peg.more.where == PEG]
        found.sort(key=_by_id)
        return found

    # Answers

    def tell(self, market: Market, op: int, extra: list[int | str]) -> None:
        """Put on the feed what does not fit a row."""
        market.deltas.extend((op, market.instrument.id, len(market.extras), 0, 0, 0))
        market.extras.append(extra)

    def tell_summary(self, market: Market) -> None:
        """Put the session so far on the feed."""
        market.summary = market.book.session.told()
        self.tell(market, STATISTICS, [*market.summary])

    def _touch(self, account: Account) -> Account:
        if not account.reports:
            self._touched.append(account)
        return account

    def _report(self, kind: int, command: Boxed, order: Order, flags: int, reason: int) -> None:
        self._touch(order.account).reports.extend((
            kind, command, order.client_order_id, order.order_id, order.instrument, order.side | flags,
            order.price, order.quantity, order.open, order.filled, 0, reason,
        ))  # fmt: skip


def partner_of(order: Order) -> Order | None:
    more = order.more
    return more.partner if more is not None else None


def peg_price(market: Market, flags: int, offset: int, cap: int) -> int | None:
    """Where a peg belongs now, or None if it has to sleep. Cost: O(pegs at and before the best other order)."""
    kind = flags & TYPE_MASK
    sell = flags & 1
    bid = offer = 0
    if kind != TYPE_PEG_OFFER:
        best = _best(market, BUY)
        if best is None:
            return None
        bid = best
    if kind != TYPE_PEG_BID:
        best = _best(market, SELL)
        if best is None:
            return None
        offer = best
    if kind == TYPE_PEG_BID:
        price = bid + offset
    elif kind == TYPE_PEG_OFFER:
        price = offer + offset
    else:
        price = (bid + offer + sell) // 2 + offset
    if flags & CAPPED:
        price = max(price, cap) if sell else min(price, cap)
    return price if market.price_min <= price <= market.price_max else None


def _best(market: Market, side: int) -> int | None:
    """The best price of a side's visible orders that are not pegs."""
    for level in market.side(side):
        for order in level:
            if not is_peg(order.flags):
                price: int = level.price
                return price
    return None


def _by_id(order: Order) -> Boxed:
    return order.order_id

"""What orders do in a market: they trade, rest, shrink and go. engine/RULES.md has the rules in their order.

There is one way for all. An order meets the book one resting order after the other (`_trade`); where what it meets has
to be known as a whole before anything moves, it goes by a `Plan`: next to conditional orders, in a band, pro-rata, and
where self-trade prevention does more than stop it.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.core.auction import NO_INDICATION
from engine.core.limits import Limits
from engine.core.listing import Listing
from engine.core.market import Market
from engine.core.order import (
    CONDITIONAL,
    IN_BOOK,
    LAPSED,
    PEG,
    STOP,
    More,
    Order,
    by_entry,
    whole_of,
)
from engine.core.plan import CANCEL_RESTING, TRADE, Plan
from engine.core.record import Record
from engine.core.tape import TRADES_MAX
from engine.core.waiting import Deadlines
from proto import feed
from proto.columns import (
    ALL_OR_NONE,
    BAND,
    BUY,
    CANCELED,
    COLLAR,
    HALTED_REASON,
    IOC_REMAINDER,
    MAKER,
    MARKET_REMAINDER,
    NO_REASON,
    OCO,
    POST_ONLY,
    PRICE_LIMIT,
    RESTATED,
    SELF_TRADE,
    SELL,
    STP_NONE,
    TIF_FOK,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TOO_MANY_TRADES,
    TRADED,
    TYPE_LIMIT,
    TYPE_MARKET,
    TYPE_MASK,
    TYPE_STOP,
    Boxed,
    Terms,
    is_peg,
)
from proto.feed import ADD, AUCTION, DELETE, EXECUTE, MODIFY, STATISTICS, STATUS
from proto.feed import SELL as SELL_BIT


class Trading:
    """The orders of all markets, as they trade.

    `bounded` counts how often a bound made a difference.
    """

    __slots__ = ("bounded", "deadlines", "first_order_id", "limits", "orders_entered", "record")

    def __init__(self, record: Record, first_order_id: int, limits: Limits) -> None:
        self.record = record
        self.limits = limits
        self.bounded = 0
        self.first_order_id = first_order_id
        self.orders_entered = 0
        self.deadlines = Deadlines()

    # Orders come

    def next_id(self) -> Boxed:
        self.orders_entered += 1
        return self.first_order_id + self.orders_entered

    def qualify(self, market: Market, order: Order, terms: Terms | None, stp: int, partner: Order | None) -> None:
        """Give a new order what it needs beyond a plain one."""
        flags = order.flags
        if flags & TIF_MASK == TIF_GTD:
            assert terms is not None
            self.deadlines.add(order, terms.expires_ns)
        if terms is None and flags & TYPE_MASK in (TYPE_LIMIT, TYPE_MARKET) and not flags & ALL_OR_NONE:
            return
        more = order.extend()
        more.terms = terms
        more.stp = stp
        if terms is not None:
            more.stop_price = terms.stop_price
            more.display = terms.display
            more.offset = terms.offset
            more.minimum = terms.minimum
        more.all_or_none = flags & ALL_OR_NONE != 0
        more.cap = order.price
        if partner is not None:
            other = partner.more
            if other is None:
                other = partner.extend()
                other.stp = stp
            more.partner = partner
            other.partner = order
            shown = self._shown(partner).extend()
            more.special = other.special = shown.special = True

    def incoming(self, market: Market, order: Order, stp: int, command: Boxed) -> None:
        """Trade `order`, then rest or cancel what is left of it. A post-only order never takes."""
        if order.flags & POST_ONLY:
            self.rest(market, order)
            return
        limit = order.price if not order.flags & TYPE_MASK else self.reach(market, order)
        left = self.limits.trades
        reason = NO_REASON
        planned = market.shared or (
            len(market.conditionals.orders) > 0 and self._meets_conditionals(market, order.side, limit)
        )
        if not planned:
            first = market.book.next_trade_id
            reason = self._trade(market, order, limit, stp, command)
            planned = reason == SELF_TRADE and stp > STP_NONE and order.open > 0
            left -= market.book.next_trade_id - first
        if planned:
            market.stirred = True
            self.follow(market, order, self.plan(market, order, partner_of(order), limit, stp, False, left), command)
        else:
            self._end_taking(market, order, reason)

    def reach(self, market: Market, order: Order) -> Boxed:
        """The furthest price at which `order` may trade."""
        if order.flags & TYPE_MASK not in (TYPE_MARKET, TYPE_STOP):
            return order.price
        sign = -1 if order.side else 1
        collar = market.instrument.collar
        book = market.book
        best = book.bids.best if order.side else book.asks.best
        if not collar or (best is None and not book.last_quantity):
            return sign * PRICE_LIMIT
        reference: int = book.last_price if best is None or book.last_quantity else best.price
        return reference + sign * collar

    def no_liquidity(self, market: Market, side: int) -> bool:
        """Whether there is nobody on the other side."""
        best = market.book.bids.best if side else market.book.asks.best
        return best is None and not market.conditionals.side(1 - side)

    def prospect(self, market: Market, order: Order, partner: Order | None, stp: int) -> int:
        """How much would trade if `order` came now. Cost: that of a plan."""
        return self.plan(market, order, partner, self.reach(market, order), stp, False, self.limits.trades).traded

    def plan(
        self, market: Market, taker: Order, partner: Order | None, limit: int, stp: int, visible: bool, trades: int
    ) -> Plan:
        plan = Plan(market, taker, partner, limit, stp, visible, trades)
        if plan.reason == TOO_MANY_TRADES:
            self.bounded += 1
        return plan

    def _meets_conditionals(self, market: Market, side: int, limit: Boxed) -> bool:
        """Whether an order that goes to `limit` may meet conditional orders, or takes what others of them wait for."""
        waiting = market.conditionals
        if side == BUY:
            best = market.book.asks.best
            return waiting.lowest_sell <= limit or (best is not None and best.price <= waiting.highest_buy)
        best = market.book.bids.best
        return waiting.highest_buy >= limit or (best is not None and best.price >= waiting.lowest_sell)

    def _trade(self, market: Market, taker: Order, limit: Boxed, stp: int, command: Boxed) -> int:
        """Trade `taker` against the book, at `limit` or better: best price first, then first come first served.

        Returns why it stops although it could go on: SELF_TRADE, TOO_MANY_TRADES, or NO_REASON. It may have been
        canceled, as the partner of an order that it met.

        Cost: O(1) per trade, and O(log L) per level emptied, for L levels.
        """
        book = market.book
        side = taker.side
        ladder = book.bids if side else book.asks
        reason = NO_REASON
        left: Boxed = taker.open
        level = ladder.best
        if level is None or (level.price < limit if side else level.price > limit):
            return NO_REASON
        past = taker.past
        linked = past is not None and isinstance(past, More) and past.partner is not None
        deltas = market.deltas
        instrument = book.instrument
        maker_bit = 0 if side else SELL_BIT
        maker_flags = MAKER if side else SELL | MAKER
        account = taker.account
        reports = account.reports
        touched = self.record.touched
        tape = book.session.tape
        filled: Boxed = taker.filled
        trade_id = book.next_trade_id
        end_id = trade_id + self.limits.trades
        at: Boxed = 0
        quantity: Boxed = 0
        client_order_id: Boxed = taker.client_order_id
        order_id: Boxed = taker.order_id
        while True:
            maker = level.next
            assert isinstance(maker, Order)
            owner = maker.account
            if owner is account and stp != STP_NONE:
                reason = SELF_TRADE
                break
            if trade_id == end_id:
                reason = TOO_MANY_TRADES
                self.bounded += 1
                break
            past = maker.past
            if linked or (past is not None and isinstance(past, More) and past.special):
                taker.open = left
                taker.filled = filled
                book.next_trade_id = trade_id
                self._exchange(market, taker, whole_of(maker), min(left, maker.open), command)
                left = taker.open
                filled = taker.filled
                trade_id = book.next_trade_id
                linked = False
            else:
                at = level.price
                maker_left: Boxed = maker.open
                if maker_left > left:
                    quantity = left
                    maker_left -= quantity
                    maker.open = maker_left
                else:
                    quantity = maker_left
                    book.remove(maker)
                    maker.open = maker_left = 0
                maker_filled: Boxed = maker.filled + quantity
                maker.filled = maker_filled
                left -= quantity
                filled += quantity
                if not reports:
                    touched.append(account)
                reports.extend((
                    TRADED, command, client_order_id, order_id, instrument, side,
                    at, quantity, left, filled, trade_id, NO_REASON,
                ))  # fmt: skip
                if not owner.reports:
                    touched.append(owner)
                owner.reports.extend((
                    TRADED, 0, maker.client_order_id, maker.order_id, instrument, maker_flags,
                    at, quantity, maker_left, maker_filled, trade_id, NO_REASON,
                ))  # fmt: skip
                deltas.extend((EXECUTE | maker_bit, instrument, maker.order_id, at, quantity, trade_id))
                tape.append((taker, maker, MAKER, at, quantity, left, filled, maker_left, maker_filled))
                trade_id += 1
            if not left:
                break
            level = ladder.best
            if level is None or (level.price < limit if side else level.price > limit):
                break
        if filled != taker.filled:
            taker.open = left
            taker.filled = filled
            book.next_trade_id = trade_id
            book.last_price = at
            book.last_quantity = quantity
            if len(tape) >= TRADES_MAX:
                book.session.trim()
        return reason

    def _end_taking(self, market: Market, order: Order, reason: int) -> None:
        """Rest or cancel what is left of an order that trades no further, for this reason if there is one."""
        if not order.open:
            if order.past is not None:
                self.died(market, order)
            return
        flags = order.flags
        kind = flags & TYPE_MASK
        force = flags & TIF_MASK
        market_order = kind in (TYPE_MARKET, TYPE_STOP)
        halts = reason == BAND
        if halts:
            self.begin_state(market, AUCTION, BAND)
            market.summary_due = market.stirred = True
            reason = HALTED_REASON if market_order or force in (TIF_IOC, TIF_FOK) else NO_REASON
            if reason == NO_REASON and is_peg(flags):
                more = order.more
                assert more is not None
                more.where = PEG
                self.pegs_leave(market)
                return
        elif reason == NO_REASON:
            if market_order:
                other = market.book.bids if order.side else market.book.asks
                reason = COLLAR if market.instrument.collar and other.best is not None else MARKET_REMAINDER
            elif force in (TIF_IOC, TIF_FOK):
                reason = IOC_REMAINDER
        if reason:
            self.end(market, order, reason, 0)
        else:
            self.rest(market, order)
        if halts:
            self.pegs_leave(market)

    def follow(self, market: Market, taker: Order, plan: Plan, command: Boxed) -> None:
        """Do what was planned, then rest or cancel what is left of the taker."""
        for kind, maker, quantity in plan.steps:
            if kind == TRADE:
                self._exchange(market, taker, maker, quantity, command)
            elif kind == CANCEL_RESTING:
                self.drop(market, maker, SELF_TRADE)
            else:
                self._decrement(market, taker, maker, quantity, command)
        self._end_taking(market, taker, plan.reason)

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
            market.conditionals.remove(maker)
            if maker.open:
                more.minimum = 0
                more.where = LAPSED
                market.lapsed.append(maker)
        else:
            self.execute(market, maker, MAKER, at, quantity, trade_id)
            self.refill(market, maker)
        book.session.tape.append((
            taker, maker, MAKER, at, quantity, taker.open, taker.filled, maker.open, maker.filled,
        ))  # fmt: skip
        book.session.trim()
        self.died(market, maker)
        self.died(market, taker)
        self.unlink(market, taker)
        self.unlink(market, maker)

    def execute(self, market: Market, order: Order, flag: int, at: Boxed, quantity: int, trade_id: int) -> None:
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
        market.conditionals.changed(order.side, shown.price, -quantity)
        self._traded(market, order, flag, at, quantity, trade_id, 0)
        market.deltas.extend((
            EXECUTE | order.side << 4, order.instrument, shown.order_id, at, quantity, trade_id,
        ))  # fmt: skip

    def _traded(
        self, market: Market, order: Order, flag: int, at: Boxed, quantity: int, trade_id: int, command: Boxed
    ) -> None:
        self.record.touch(order.account).extend((
            TRADED, command, order.client_order_id, order.order_id, order.instrument, order.side | flag,
            at, quantity, order.open, order.filled, trade_id, NO_REASON,
        ))  # fmt: skip

    def _decrement(self, market: Market, taker: Order, maker: Order, quantity: int, command: Boxed) -> None:
        """Two orders of one account shrink instead of trading with each other."""
        if quantity < maker.open:
            maker.remember(maker.flags, maker.price, maker.quantity)
            self.shrink(market, maker, quantity)
            maker.quantity -= quantity
            self.record.report(RESTATED, 0, maker, 0, SELF_TRADE)
        else:
            self.drop(market, maker, SELF_TRADE)
        if not taker.open:  # it went with its partner
            return
        if quantity < taker.open:
            taker.remember(taker.flags, taker.price, taker.quantity)
            taker.open -= quantity
            taker.quantity -= quantity
            self.record.report(RESTATED, command, taker, 0, SELF_TRADE)
        else:
            self.end(market, taker, SELF_TRADE, 0)

    def shrink(self, market: Market, order: Order, quantity: int) -> None:
        """Make what is open smaller, what is hidden first; something is left, and it keeps its place."""
        more = order.more
        if more is not None and more.where in (CONDITIONAL, LAPSED, STOP, PEG):
            order.open -= quantity
            if more.where == CONDITIONAL:
                market.conditionals.shrunk(order)
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
        market.conditionals.changed(order.side, order.price, -quantity)

    # What is seen

    def rest(self, market: Market, order: Order) -> None:
        """An order comes to stand on the book."""
        self._show(market, order, order.open)

    def _show(self, market: Market, order: Order, by: int) -> None:
        """Put an order at the back of its level; of an iceberg, its tip. So much more is open there."""
        shown = order
        more = order.more
        if more is not None:
            more.where = IN_BOOK
            more.special = more.partner is not None or more.display > 0 or is_peg(order.flags)
            if more.display:
                shown = self._next_tip(order, more)
        market.book.rest(shown)
        market.deltas.extend((
            ADD | order.side << 4, order.instrument, shown.order_id, order.price, shown.open, 0,
        ))  # fmt: skip
        if market.conditionals.orders:
            market.conditionals.changed(order.side, order.price, by)

    def _next_tip(self, order: Order, more: More) -> Order:
        """What an iceberg shows next: an order of its own on the book, under a public id of its own after the first."""
        public_id = self.next_id() if more.tips else order.order_id
        more.tips += 1
        open: int = order.open
        tip = Order(
            order.account, order.client_order_id, public_id, order.instrument, order.flags, order.price,
            min(more.display, open), order.session,
        )  # fmt: skip
        its = tip.extend()
        its.whole = order
        its.special = True
        more.tip = tip
        return tip

    def refill(self, market: Market, order: Order) -> None:
        """Let an iceberg whose tip was traded away show the next."""
        more = order.more
        if more is None or more.tip is None or more.tip.open:
            return
        if order.open:
            self._show(market, order, 0)
        else:
            more.tip = None

    def _shown(self, order: Order) -> Order:
        """What stands on the book for an order: itself or its tip."""
        more = order.more
        return order if more is None or more.tip is None else more.tip

    # Orders go

    def drop(self, market: Market, order: Order, reason: int, command: Boxed = 0) -> None:
        """Cancel a live order, wherever it is, and its OCO partner behind it."""
        self.take_up(market, order)
        self.end(market, order, reason, command)

    def take_up(self, market: Market, order: Order) -> None:
        """Take an order from wherever it is: it goes, or loses its place."""
        more = order.more
        where = IN_BOOK if more is None else more.where
        if where == IN_BOOK:
            self.leave(market, order)
        elif where == CONDITIONAL:
            market.conditionals.remove(order)
        elif where == STOP:
            market.stops.remove(order)
        elif where == LAPSED:
            market.lapsed.remove(order)
        if more is not None:
            market.pegs.remove(order)

    def leave(self, market: Market, order: Order) -> None:
        """Take a visible order off the book."""
        shown = self._shown(order)
        market.book.remove(shown)
        market.deltas.extend((
            DELETE | order.side << 4, order.instrument, shown.order_id, order.price, shown.open, 0,
        ))  # fmt: skip
        market.conditionals.changed(order.side, order.price, -order.open)
        if shown is not order:
            more = order.more
            assert more is not None
            more.tip = None

    def end(self, market: Market, order: Order, reason: int, command: Boxed) -> None:
        """An order that stands nowhere is canceled."""
        order.open = 0
        self.record.report(CANCELED, command, order, 0, reason)
        if order.past is not None:
            self.died(market, order)
            self.unlink(market, order)

    def died(self, market: Market, order: Order) -> None:
        """Nothing of an order is open any more, perhaps: a peg that is gone follows nothing."""
        if not order.open and order.more is not None and is_peg(order.flags):
            market.stirred = True
            market.pegs.remove(order)

    def unlink(self, market: Market, order: Order) -> None:
        """Something happened to one of a pair: cancel the other."""
        partner = partner_of(order)
        if partner is None:
            return
        more, other = order.more, partner.more
        assert more is not None
        assert other is not None
        assert other.partner is order, "a link with one end"
        more.partner = other.partner = None
        market.stirred = True
        if partner.open:
            self.drop(market, partner, OCO)

    def cancel_each(self, listing: Listing, orders: Iterable[Order], reason: int) -> list[Market]:
        """Cancel those that are still live when their turn comes; the markets touched, in order of instrument."""
        touched: dict[int, Market] = {}
        for order in orders:
            if order.open:
                market = listing.markets[order.instrument]
                touched[order.instrument] = market
                self.drop(market, order, reason)
        return [touched[id] for id in sorted(touched)]

    # The market

    def pegs_leave(self, market: Market) -> None:
        """The market is no longer open: pegs sleep."""
        for order in market.pegs:
            more = order.more
            assert more is not None
            if more.where == IN_BOOK:
                self.leave(market, order)
                more.where = PEG

    def begin_state(self, market: Market, state: int, reason: int) -> None:
        market.state = state
        market.reason = reason
        market.indication = NO_INDICATION
        market.mind()
        self.tell(market, STATUS, [state, reason])

    def live_on(self, market: Market) -> list[Order]:
        """The live orders of an instrument, wherever they are, by order id. Cost: O(n log n)."""
        found = [whole_of(order) for side in (BUY, SELL) for order in market.book.orders(side)]
        found.extend(market.stops)
        found.extend(market.conditionals)
        found.extend(market.lapsed)
        found += [peg for peg in market.pegs if peg.more is not None and peg.more.where == PEG]
        found.sort(key=by_entry)
        return found

    def tell(self, market: Market, op: int, extra: list[int | str]) -> None:
        """Put on the feed what does not fit a row."""
        market.deltas.extend((op, market.instrument.id, len(market.extras), 0, 0, 0))
        market.extras.append(extra)

    def tell_summary(self, market: Market) -> None:
        """Put the session so far on the feed."""
        market.summary = market.book.session.told()
        self.tell(market, STATISTICS, [*market.summary])


def partner_of(order: Order) -> Order | None:
    more = order.more
    return more.partner if more is not None else None

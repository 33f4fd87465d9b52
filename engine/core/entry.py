"""An account's commands: each is looked up by its id, refused or answered, and let loose on its market.

Who may do what, and which command was seen before, is decided here; what an order then does is in `trading`.
"""

from __future__ import annotations

from typing import Final

from engine.core.admission import kind_of_waiting, linkable, refusal, too_large
from engine.core.listing import Listing
from engine.core.market import Market
from engine.core.operations import KillSwitch
from engine.core.order import IN_BOOK, STOP, Account, Answer, More, Order, Row
from engine.core.record import Record
from engine.core.settling import Settling
from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    BAD_QUANTITY,
    BELOW_FILLED,
    CANCEL,
    CANCELED,
    CAPPED,
    DISPLAY_TOO_SMALL,
    DUPLICATE_ID,
    FLAG_SELL,
    KILLED,
    MALFORMED,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    MEANING_MASK,
    MEANING_OPEN,
    MEANING_TOTAL,
    NEW,
    NO_LIQUIDITY,
    NO_REASON,
    NO_TERMS,
    NOT_FILLABLE,
    NOTHING_TO_CHANGE,
    NOTIONAL_LIMIT,
    NOTIONAL_TOO_LARGE,
    POST_ONLY,
    PRICE_OUT_OF_LIMITS,
    PRIORITY_KEPT,
    QUANTITY_LIMIT,
    REFUSED,
    REPEAT,
    REPLACED,
    REQUEUE,
    TIF_DAY,
    TIF_FOK,
    TIF_IOC,
    TIF_MASK,
    TOO_LATE,
    TOO_MANY_WAITING,
    TYPE_MARKET,
    TYPE_MASK,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    WOULD_TRADE,
    WRONG_INSTRUMENT,
    WRONG_STATE,
    Batch,
    Boxed,
    Terms,
    is_peg,
    is_priced,
    is_stop,
    malformed,
)  # fmt: skip
from proto.feed import ADD, CLOSED, DELETE, END, MODIFY, OPEN

# An order with none of these flags is a limit order that rests if it does not trade.
_SPECIAL: Final = TYPE_MASK | TIF_MASK & ~TIF_DAY | POST_ONLY | ALL_OR_NONE | CAPPED


class OrderEntry:
    """What accounts may do. Each command returns why it is refused, or NO_REASON once it has been answered."""

    __slots__ = ("_kills", "_listing", "_markets", "_record", "_settling", "_trading")

    def __init__(self, record: Record, listing: Listing, settling: Settling, kills: KillSwitch) -> None:
        self._record = record
        self._listing = listing
        self._markets = listing.markets
        self._settling = settling
        self._trading = settling.trading
        self._kills = kills

    # New orders

    def new(
        self, account: Account, batch: Batch, command: Boxed, instrument: int, flags: int, price: Boxed, quantity: Boxed
    ) -> int:
        """A new order without terms."""
        market = self._markets.get(instrument)
        if market is None:
            return UNKNOWN_INSTRUMENT
        side = flags & FLAG_SELL
        plain = not flags & _SPECIAL
        calm = plain and (
            market.add_ask_min <= price <= market.plain_max if side
            else market.plain_min <= price <= market.add_bid_max
        )  # fmt: skip
        if not calm and not (
            (plain or flags & ~FLAG_SELL == TIF_IOC) and market.plain_min <= price <= market.plain_max
        ):
            return self.enter(account, batch, command, instrument, flags, price, quantity, None)
        trading = self._trading
        trading.orders_entered = counter = trading.orders_entered + 1
        order_id: Boxed = trading.first_order_id + counter
        account.commands[command] = order = Order(
            account, command, order_id, instrument, flags, price, quantity, batch.session
        )
        account.reports.extend((
            ACCEPTED, command, command, order_id, instrument, side, price, quantity, quantity, 0, 0, NO_REASON,
        ))  # fmt: skip
        book = market.book
        best = book.bids.best if side else book.asks.best
        if calm and (best is None or (best.price < price if side else best.price > price)):
            book.rest(order)
            market.deltas.extend((ADD | END | side << 4, instrument, order_id, price, quantity, 0))
        else:
            self._settling.come(market, order, batch.stp, command, len(market.deltas))
        return NO_REASON

    def enter(
        self, account: Account, batch: Batch, command: Boxed, instrument: int, flags: int, price: Boxed,
        quantity: Boxed, terms: Terms | None,
    ) -> int:  # fmt: skip
        """A new order of any kind."""
        market = self._listing.market(instrument)
        if market is None:
            return UNKNOWN_INSTRUMENT
        said = terms if terms is not None else NO_TERMS
        if flags & ALL_OR_NONE and flags & TIF_MASK == TIF_IOC and not malformed(flags, said):
            kept = flags & ~(ALL_OR_NONE | TIF_MASK) | TIF_FOK
        else:
            kept = flags
        order = Order(account, command, 0, instrument, kept, price, quantity, batch.session)
        partner = linkable(account, said.oco, instrument) if said.oco else None
        if self._kills.stops(account.id, instrument):
            reason = KILLED
        else:
            reason = refusal(market, account, flags, price, quantity, said, self._record.time_ns, self._trading.limits)
            if reason == NO_REASON and market.open:
                reason = self._prospect(market, order, said, partner, batch.stp)
        if reason:
            self._trading.bounded += reason in (DISPLAY_TOO_SMALL, TOO_MANY_WAITING)
            return reason
        order.order_id = order_id = self._trading.next_id()
        if kept != flags or is_peg(flags):
            order.remember(flags, price, quantity)
        account.commands[command] = order
        self._trading.qualify(market, order, terms, batch.stp, partner)
        account.reports.extend((
            ACCEPTED, command, command, order_id, instrument, order.side, price, quantity, quantity, 0, 0, NO_REASON,
        ))  # fmt: skip
        mark = len(market.deltas)
        if market.state == OPEN and partner is None and kind_of_waiting(market, kept, said) is None:
            self._settling.come(market, order, batch.stp, command, mark)
        else:
            self._settling.place(market, order, batch.stp, command)
            self._settling.finish(market, mark)
        return NO_REASON

    def _prospect(self, market: Market, order: Order, terms: Terms, partner: Order | None, stp: int) -> int:
        """Why a new order may not enter, as the other side stands, or NO_REASON."""
        flags = order.flags
        force = flags & TIF_MASK
        if is_stop(flags):
            return NO_REASON
        if flags & TYPE_MASK == TYPE_MARKET and self._trading.no_liquidity(market, order.side):
            return NO_LIQUIDITY
        if flags & POST_ONLY:
            price: int | None = order.price
            if is_peg(flags):
                price = market.peg_price(flags, terms.offset, order.price)
            return WOULD_TRADE if price is not None and market.book.meets(order.side, price) else NO_REASON
        needed = order.quantity if force == TIF_FOK else terms.minimum if force == TIF_IOC else 0
        if needed and self._trading.prospect(market, order, partner, stp) < needed:
            return NOT_FILLABLE
        return NO_REASON

    # Cancels

    def cancel(self, account: Account, command: Boxed, instrument: int, target: Boxed) -> int:
        order = account.commands.get(target)
        if not isinstance(order, Order) or not order.open or order.instrument != instrument:
            return self._no_target(order, instrument, target)
        market = self._markets[instrument]
        side = order.side
        price = order.price
        past = order.past
        if (
            (
                price < market.cut_ask_min or price == market.anchor_ask if side
                else price > market.cut_bid_max or price == market.anchor_bid
            )
            or (past is not None and isinstance(past, More) and (past.special or past.where != IN_BOOK))
        ):  # fmt: skip
            if market.state == CLOSED:
                return WRONG_STATE
            mark = len(market.deltas)
            self._trading.drop(market, order, NO_REASON, command)
            self._settling.finish(market, mark)
        else:
            market.book.remove(order)
            order_id = order.order_id
            market.deltas.extend((DELETE | END | side << 4, instrument, order_id, price, order.open, 0))
            order.open = 0
            account.reports.extend((
                CANCELED, command, target, order_id, instrument, side,
                price, order.quantity, 0, order.filled, 0, NO_REASON,
            ))  # fmt: skip
        account.commands[command] = order  # all that a repeat of this cancel is answered with
        return NO_REASON

    def mass_cancel(self, account: Account, row: Row) -> int:
        command, instrument = row[1], row[2]
        if instrument:
            market = self._listing.market(instrument)
            if market is None:
                return UNKNOWN_INSTRUMENT
            if market.state == CLOSED:
                return WRONG_STATE
        orders = [
            order for order in account.live()
            if instrument in (0, order.instrument) and self._markets[order.instrument].state != CLOSED
        ]  # fmt: skip
        marks = self._listing.begin_wide()
        touched = self._trading.cancel_each(self._listing, orders, MASS_CANCEL_REASON)
        report = (MASS_CANCELED, command, 0, 0, instrument, 0, 0, len(orders), 0, 0, 0, NO_REASON)
        account.reports.extend(report)
        account.commands[command] = (row, report, None)
        self._settling.finish_wide(self._listing, marks, touched)
        return NO_REASON

    # Replaces

    def replace(self, account: Account, stp: int, row: Row, terms: Terms | None) -> int:
        _, command, instrument, flags, price, quantity, target = row
        order = account.commands.get(target)
        if not isinstance(order, Order) or not order.open or order.instrument != instrument:
            return self._no_target(order, instrument, target)
        meaning = flags & MEANING_MASK
        if meaning == MEANING_TOTAL:
            total = quantity
        elif meaning == MEANING_OPEN:
            total = order.filled + quantity
        else:
            total = order.quantity - quantity
        market = self._markets[instrument]
        past = order.past
        if market.guarded or terms is not None or (past is not None and isinstance(past, More)):
            return self._replace_special(account, stp, row, terms, market, order, total)
        reason = self._replace_refusal(market, order, flags, price, total)
        if reason:
            return reason
        if past is None:
            order.past = (order.flags, order.price, order.quantity)
        trading = self._trading
        book = market.book
        deltas = market.deltas
        mark = len(deltas)
        side = order.side
        order_id = order.order_id
        before = order.price
        open = total - order.filled
        kept = PRIORITY_KEPT if price == before and open < order.open and not flags & REQUEUE else 0
        calm = (
            before >= market.cut_ask_min and before != market.anchor_ask if side
            else before <= market.cut_bid_max and before != market.anchor_bid
        )  # fmt: skip
        if kept:
            if calm:
                order.open = open
                deltas.extend((MODIFY | END | side << 4, instrument, order_id, price, open, 0))
            else:
                trading.shrink(market, order, order.open - open)
        else:
            if calm:
                book.remove(order)
                deltas.extend((DELETE | side << 4, instrument, order_id, before, order.open, 0))
            else:
                trading.take_up(market, order)
            order.price = price
            order.open = open
        order.quantity = total
        report = (
            REPLACED, command, target, order_id, instrument, side | kept,
            price, total, open, order.filled, 0, NO_REASON,
        )  # fmt: skip
        account.reports.extend(report)
        account.commands[command] = (row, report, None)
        if kept:
            if not calm:
                self._settling.finish(market, mark)
            return NO_REASON
        best = book.bids.best if side else book.asks.best
        if (
            calm
            and not order.flags & _SPECIAL
            and (best is None or (best.price < price if side else best.price > price))
            and (price >= market.add_ask_min if side else price <= market.add_bid_max)
        ):
            book.rest(order)
            deltas.extend((ADD | END | side << 4, instrument, order_id, price, open, 0))
        elif calm:
            self._settling.come(market, order, stp, command, mark)
        else:
            trading.incoming(market, order, stp, command)
            self._settling.finish(market, mark)
        return NO_REASON

    def _replace_refusal(self, market: Market, order: Order, flags: int, price: Boxed, total: int) -> int:
        """Why `order` may not become `total` at `price`, or NO_REASON."""
        if total <= order.filled:
            return BELOW_FILLED
        if total >= QUANTITY_LIMIT:
            return BAD_QUANTITY
        if abs(price) * total >= NOTIONAL_LIMIT:
            return NOTIONAL_TOO_LARGE
        if not market.price_min <= price <= market.price_max:
            return PRICE_OUT_OF_LIMITS
        if price == order.price and total == order.quantity and not flags & REQUEUE:
            return NOTHING_TO_CHANGE
        if order.flags & POST_ONLY and market.book.meets(order.side, price):
            return WOULD_TRADE
        return NO_REASON

    def _replace_special(
        self, account: Account, stp: int, row: Row, terms: Terms | None, market: Market, order: Order, total: int
    ) -> int:
        _, command, instrument, flags, price, _, target = row
        more = order.more
        stop = more is not None and more.where == STOP
        stop_price = terms.stop_price if terms is not None else 0
        priced = is_priced(order.flags)
        same = not flags & REQUEUE
        if is_peg(order.flags):
            assert more is not None
            same = same and (price == more.cap or not order.flags & CAPPED)
        elif priced:
            same = same and price == order.price
        if stop:
            assert more is not None
            same = same and stop_price == more.stop_price
        reason = self._special_replace_refusal(market, order, terms, price, total, same)
        if reason:
            return reason
        order.remember(order.flags, order.price, order.quantity)
        open = total - order.filled
        kept = same and open < order.open
        mark = len(market.deltas)
        if kept:
            self._trading.shrink(market, order, order.open - open)
            order.open = open
        else:
            self._trading.take_up(market, order)
            order.open = open
            if priced and not is_peg(order.flags):
                order.price = price
        order.quantity = total
        if more is not None:
            more.stp = stp
            more.cap = price
            if stop:
                more.stop_price = stop_price
        report = (
            REPLACED, command, target, order.order_id, instrument, order.side | (PRIORITY_KEPT if kept else 0),
            order.price, total, open, order.filled, 0, NO_REASON,
        )  # fmt: skip
        account.reports.extend(report)
        account.commands[command] = (row, report, terms)
        if not kept:
            self._settling.place(market, order, stp, command)
        self._settling.finish(market, mark)
        return NO_REASON

    def _special_replace_refusal(
        self, market: Market, order: Order, terms: Terms | None, price: int, total: int, same: bool
    ) -> int:
        """Why `order` may not become that, or NO_REASON."""
        more = order.more
        if self._kills.stops(order.account.id, order.instrument):
            return KILLED
        if not market.open and not market.gathering:
            return WRONG_STATE
        if terms is not None and (any(terms[1:]) or (terms.stop_price != 0 and (more is None or more.where != STOP))):
            return MALFORMED
        if total <= order.filled:
            return BELOW_FILLED
        if total >= QUANTITY_LIMIT:
            return BAD_QUANTITY
        stop = more is not None and more.where == STOP
        stop_price = terms.stop_price if terms is not None else 0
        if is_priced(order.flags):
            if abs(price) * total >= NOTIONAL_LIMIT:
                return NOTIONAL_TOO_LARGE
            if not market.price_min <= price <= market.price_max:
                return PRICE_OUT_OF_LIMITS
        if stop and not market.price_min <= stop_price <= market.price_max:
            return PRICE_OUT_OF_LIMITS
        if more is not None and more.display and more.display * self._trading.limits.slices < total:
            self._trading.bounded += 1
            return DISPLAY_TOO_SMALL
        reason = too_large(market, order.flags, price, total)
        if reason:
            return reason
        if same and total == order.quantity:
            return NOTHING_TO_CHANGE
        if order.flags & POST_ONLY and market.open:
            aim: int | None = price
            if is_peg(order.flags):
                assert more is not None
                aim = market.peg_price(order.flags, more.offset, price)
            if aim is not None and market.book.meets(order.side, aim):
                return WOULD_TRADE
        return NO_REASON

    # Answers

    def refuse(self, account: Account, row: Row, terms: Terms | None, reason: int) -> None:
        op, command, instrument, flags, price, quantity, target = row
        concerned = command if op == NEW else target
        report = (REFUSED, command, concerned, 0, instrument, flags & FLAG_SELL, price, quantity, 0, 0, 0, reason)
        account.reports.extend(report)
        if reason != DUPLICATE_ID:
            account.commands[command] = (row, report, terms)

    def _no_target(self, known: Order | Answer | None, instrument: int, target: Boxed) -> int:
        """Why what stands under the id `target` cannot be changed."""
        if not isinstance(known, Order) or known.client_order_id != target:  # it stands under its cancel's id, too
            return UNKNOWN_ORDER if self._listing.market(instrument) is not None else UNKNOWN_INSTRUMENT
        return TOO_LATE if known.instrument == instrument else WRONG_INSTRUMENT

    def again(self, account: Account, row: Row, terms: Terms | None) -> int:
        """Answer a command whose id was used before: say again what was said, or refuse what differs."""
        command = row[1]
        known = account.commands[command]
        if not isinstance(known, Order):
            same = row == known[0] and terms == known[2]
            report = known[1]
        elif known.client_order_id == command:
            flags, price, quantity = known.entered or (known.flags, known.price, known.quantity)
            more = known.more
            same = row[:6] == (NEW, command, known.instrument, flags, price, quantity) and terms == (
                more.terms if more is not None else None
            )
            report = (
                ACCEPTED, command, command, known.order_id, known.instrument, known.side,
                price, quantity, quantity, 0, 0, NO_REASON,
            )  # fmt: skip
        else:
            target = known.client_order_id
            same = terms is None and (row[0], row[2], row[6]) == (CANCEL, known.instrument, target)
            report = (
                CANCELED, command, target, known.order_id, known.instrument, known.side,
                known.price, known.quantity, 0, known.filled, 0, NO_REASON,
            )  # fmt: skip
        if not same:
            return DUPLICATE_ID
        if not account.repeats:
            self._record.repeated.append(account)
        account.repeats.extend((*report[:5], report[5] | REPEAT, *report[6:]))
        return NO_REASON

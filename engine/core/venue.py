"""The deterministic core of an engine: batches of commands in, reports and deltas out.

`apply` is all that ever changes it. It reads no clock, no file and no chance:
position and time come from the log record, so that applying a log again gives
the same books, reports, ids and deltas.

Who may do what, and which command was seen before, is decided here; how an
order trades is in `matching`, and where it rests in `book`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from engine.core.admission import linkable, refusal, too_large
from engine.core.book import Book
from engine.core.commands import OperatorCommand
from engine.core.desk import Desk
from engine.core.market import Market
from engine.core.matching import fillable, trade, would_trade
from engine.core.order import CONDITIONAL, IN_BOOK, LAPSED, STOP, Account, Answer, Order, Row
from engine.core.pit import peg_price
from engine.core.plan import Plan
from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    BAD_QUANTITY,
    BELOW_FILLED,
    CANCEL,
    CANCELED,
    CAPPED,
    DELTA_WIDTH,
    DISCONNECTED,
    DUPLICATE_ID,
    ENGINE_SHIFT,
    FLAG_SELL,
    IOC_REMAINDER,
    KILLED,
    MALFORMED,
    MASS_CANCEL,
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
    REPLACE,
    REPLACED,
    REPORT_WIDTH,
    REQUEUE,
    SELF_TRADE,
    STP_NONE,
    TIF_DAY,
    TIF_FOK,
    TIF_GTC,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TOO_LATE,
    TYPE_MARKET,
    TYPE_MASK,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    WOULD_TRADE,
    WRONG_INSTRUMENT,
    WRONG_STATE,
    AccountReports,
    Batch,
    Boxed,
    ChannelDeltas,
    Outcome,
    Terms,
    is_peg,
    is_priced,
    is_stop,
    malformed,
)  # fmt: skip
from proto.feed import ADD, CLOSED, DELETE, END, MODIFY
from proto.instrument import Instrument

RETAINED: Final = 8_192  # commands an account can repeat and be recognised, at least

# An order with none of these flags is a limit order that rests if it does not trade.
_SPECIAL: Final = TYPE_MASK | TIF_MASK & ~TIF_DAY | POST_ONLY | ALL_OR_NONE | CAPPED

# One with any of these goes the slow way.
_UNUSUAL: Final = TYPE_MASK & ~TYPE_MARKET | ALL_OR_NONE | CAPPED


class Venue(Desk):
    """All instruments and accounts of one engine."""

    def __init__(self, engine: int, instruments: Sequence[Instrument], *, retained: int = RETAINED) -> None:
        super().__init__(engine << ENGINE_SHIFT, instruments)
        self.engine = engine
        self.retained = retained
        self._repeated: list[Account] = []

    @property
    def books(self) -> dict[int, Book]:
        """The books by instrument id, in its order."""
        return {id: market.book for id, market in self.markets.items()}

    def apply(self, position: int, time_ns: int, batches: Sequence[Batch]) -> Outcome:
        """Apply one log record: every command of every batch, in order.

        Raises: nothing. A command that may not be is answered with a refusal.
        Cost: O(1) a command, O(1) more a trade, O(log L) a level born or gone.
        """
        self._open(position, time_ns)
        for batch in batches:
            account = self._account(batch.account)
            if not account.reports:
                self._touched.append(account)
            commands = account.commands
            before = len(commands)
            if batch.terms is not None or (self.kills and self._is_restricted(account)):
                self._apply_slowly(account, batch)
                account.note(batch.client_order_id, before)
                account.forget(self.retained, len(batch.op))
                continue
            assert len(batch.client_order_id) == len(batch.instrument) == len(batch.flags) == len(batch.op)
            assert len(batch.price) == len(batch.quantity) == len(batch.target) == len(batch.op)
            # Without `strict`, the compiled build goes by index and makes no row.
            for op, command, instrument, flags, price, quantity, target in zip(  # noqa: B905
                batch.op, batch.client_order_id, batch.instrument, batch.flags,
                batch.price, batch.quantity, batch.target,
            ):  # fmt: skip
                if command in commands:
                    reason = self._again(account, (op, command, instrument, flags, price, quantity, target), None)
                elif op == NEW:
                    reason = self._new(account, batch, command, instrument, flags, price, quantity)
                elif op == CANCEL:
                    reason = self._cancel(account, command, instrument, target)
                elif op == REPLACE:
                    reason = self._replace(account, batch.stp, command, instrument, flags, price, quantity, target)
                else:
                    reason = self._mass_cancel(account, (op, command, instrument, flags, price, quantity, target))
                if reason:
                    self._refuse(account, (op, command, instrument, flags, price, quantity, target), None, reason)
            account.note(batch.client_order_id, before)
            account.forget(self.retained, len(batch.op))
        return self._close()

    def disconnect(self, position: int, time_ns: int, account: int, session: int) -> Outcome:
        """Apply the end of a session: cancel what it entered."""
        self._open(position, time_ns)
        owner = self._account(account)
        self.cancel_in_one([order for order in owner.live() if order.session == session], DISCONNECTED)
        return self._close()

    def operate(self, position: int, time_ns: int, command: OperatorCommand) -> Outcome:
        """Apply an operator's command; the outcome says why, if it had no effect."""
        self._open(position, time_ns)
        refused = self.operate_on(command)
        outcome = self._close()
        outcome.refused = refused
        return outcome

    def tick(self, position: int, time_ns: int) -> Outcome:
        """Let time pass: what is due happens."""
        self._open(position, time_ns)
        return self._close()

    def order(self, account: int, client_order_id: int) -> Order | None:
        """The account's order with that id, live or not yet forgotten."""
        owner = self.accounts.get(account)
        known = owner.commands.get(client_order_id) if owner is not None else None
        return known if isinstance(known, Order) and known.client_order_id == client_order_id else None

    def open_orders(self, account: int, instrument: int = 0) -> list[Order]:
        """The account's live orders, of one instrument or (0) of all, in the order of their entry."""
        owner = self.accounts.get(account)
        if owner is None:
            return []
        return [order for order in owner.live() if instrument in (0, order.instrument)]

    def sessions(self) -> list[tuple[int, int]]:
        """Account and session of every session whose end would cancel a live order."""
        found = {
            (account.id, order.session): None
            for account in self.accounts.values()
            for order in account.live()
            if order.session
        }
        return list(found)

    def next_report(self, account: int) -> int:
        """The number of the account's next report."""
        owner = self.accounts.get(account)
        return owner.next_seq if owner is not None else 1

    # One record

    def _open(self, position: int, time_ns: int) -> None:
        assert position > self.position, "a log record was applied twice"
        assert time_ns >= self.time_ns, "logged time fell"
        self.position = position
        self.time_ns = time_ns
        if self._expiries and self._expiries[0][0] <= time_ns:
            self.expire(time_ns)

    def _close(self) -> Outcome:
        """Hand over what the record caused."""
        reports = []
        for account in self._touched:
            rows = account.reports
            if rows:
                reports.append(AccountReports(account.id, account.next_seq, rows))
                account.next_seq += len(rows) // REPORT_WIDTH
                account.reports = []
        self._touched.clear()
        for account in self._repeated:
            reports.append(AccountReports(account.id, 0, account.repeats))
            account.repeats = []
        self._repeated.clear()
        deltas = []
        for channel, rows in self._channels.items():
            if rows:
                extras = self._extras[channel]
                deltas.append(ChannelDeltas(channel, rows[:], extras[:]))
                rows.clear()  # the markets hold this very list
                if extras:
                    extras.clear()
        return Outcome(reports, deltas)

    def _account(self, id: int) -> Account:
        account = self.accounts.get(id)
        if account is None:
            account = self.accounts[id] = Account(id)
        return account

    # One command

    # Each returns why the command is refused, or NO_REASON once it has been answered.

    def _new(
        self, account: Account, batch: Batch, command: Boxed, instrument: int, flags: int, price: Boxed, quantity: Boxed
    ) -> int:
        market = self.markets.get(instrument)
        plain = not flags & _SPECIAL
        if market is None or not plain or not market.plain_min <= price <= market.plain_max:
            if (
                market is None or market.guarded or flags & _UNUSUAL or flags & TIF_MASK == TIF_GTD
                or batch.stp > STP_NONE
            ):  # fmt: skip
                return self._enter(account, batch, command, instrument, flags, price, quantity, None)
            reason = self._refusal(market, account, batch.stp, flags, price, quantity)
            if reason:
                return reason
        self.orders_entered = counter = self.orders_entered + 1
        order_id: Boxed = self.first_order_id + counter
        account.commands[command] = order = Order(
            account, command, order_id, instrument, flags, price, quantity, batch.session
        )
        side = flags & FLAG_SELL
        account.reports.extend((
            ACCEPTED, command, command, order_id, instrument, side, price, quantity, quantity, 0, 0, NO_REASON,
        ))  # fmt: skip
        book = market.book
        best = book.bids.best if side else book.asks.best
        if plain and (best is None or (best.price < price if side else best.price > price)):
            book.rest(order)
            market.deltas.extend((ADD | END | side << 4, instrument, order_id, price, quantity, 0))
        else:
            self._trade(market, order, batch.stp, command)
        return NO_REASON

    def _trade(self, market: Market, order: Order, stp: int, command: Boxed) -> None:
        """Trade `order` in a plain market, then rest or cancel what is left of it; this ends the event."""
        deltas = market.deltas
        before = len(deltas)
        flags = order.flags
        price = order.price
        market_order = flags & TYPE_MASK == TYPE_MARKET
        if market_order:
            price = self.reach_of_market(market, order.side)
        reason = trade(market.book, order, price, stp, command, self._touched, deltas)
        if order.open:
            if reason == SELF_TRADE and stp > STP_NONE:
                self.incoming(market, order, stp, command)
            else:
                if reason == NO_REASON:
                    if market_order:
                        reason = self.market_remainder(market, order.side)
                    elif flags & TIF_MASK in (TIF_IOC, TIF_FOK):
                        reason = IOC_REMAINDER
                if reason == NO_REASON:
                    self._rest(market, order)
                else:
                    order.open = 0
                    self._report(CANCELED, 0, order, 0, reason)
        if len(deltas) > before:
            deltas[-DELTA_WIDTH] |= END

    def _refusal(self, market: Market, account: Account, stp: int, flags: int, price: Boxed, quantity: Boxed) -> int:
        """Why a limit or market order without conditions may not enter a plain market, or NO_REASON."""
        side = flags & FLAG_SELL
        force = flags & TIF_MASK
        book = market.book
        if force not in (TIF_GTC, TIF_DAY, TIF_IOC, TIF_FOK):
            return MALFORMED
        if flags & POST_ONLY and (force in (TIF_IOC, TIF_FOK) or flags & TYPE_MASK == TYPE_MARKET):
            return MALFORMED
        if flags & TYPE_MASK == TYPE_MARKET:
            if (book.bids if side else book.asks).best is None:
                return NO_LIQUIDITY
            price = self.reach_of_market(market, side)
        elif not market.price_min <= price <= market.price_max:
            return PRICE_OUT_OF_LIMITS
        elif flags & POST_ONLY and would_trade(book, side, price):
            return WOULD_TRADE
        if force == TIF_FOK and not fillable(book, side, price, quantity, account, stp):
            return NOT_FILLABLE
        return NO_REASON

    def _cancel(self, account: Account, command: Boxed, instrument: int, target: Boxed) -> int:
        order = account.commands.get(target)
        if not isinstance(order, Order) or not order.open or order.instrument != instrument:
            return self._no_target(order, instrument, target)
        market = self.markets[instrument]
        if market.special:
            return self._cancel_slowly(account, command, market, order)
        market.book.remove(order)
        side = order.side
        order_id = order.order_id
        price = order.price
        market.deltas.extend((DELETE | END | side << 4, instrument, order_id, price, order.open, 0))
        order.open = 0
        account.reports.extend((
            CANCELED, command, target, order_id, instrument, side,
            price, order.quantity, 0, order.filled, 0, NO_REASON,
        ))  # fmt: skip
        account.commands[command] = order  # all that a repeat of this cancel is answered with
        return NO_REASON

    def _replace(
        self, account: Account, stp: int, command: Boxed, instrument: int, flags: int, price: Boxed, quantity: Boxed,
        target: Boxed,
    ) -> int:  # fmt: skip
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
        market = self.markets[instrument]
        row = (REPLACE, command, instrument, flags, price, quantity, target)
        if market.guarded:
            return self._replace_slowly(account, stp, row, None, market, order, total)
        reason = self._replace_refusal(market, order, flags, price, total)
        if reason:
            return reason
        if order.past is None:
            order.past = (order.flags, order.price, order.quantity)
        elif not isinstance(order.past, tuple):
            order.remember(order.flags, order.price, order.quantity)
        book = market.book
        side = order.side
        order_id = order.order_id
        open = total - order.filled
        kept = PRIORITY_KEPT if price == order.price and open < order.open and not flags & REQUEUE else 0
        if kept:
            book.reduce(order, order.open - open)
            market.deltas.extend((MODIFY | END | side << 4, instrument, order_id, price, open, 0))
        else:
            book.remove(order)
            market.deltas.extend((DELETE | side << 4, instrument, order_id, order.price, order.open, 0))
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
            return NO_REASON
        best = book.bids.best if side else book.asks.best
        if not order.flags & _SPECIAL and (best is None or (best.price < price if side else best.price > price)):
            book.rest(order)
            market.deltas.extend((ADD | END | side << 4, instrument, order_id, price, open, 0))
        else:
            self._trade(market, order, stp, command)
            market.deltas[-DELTA_WIDTH] |= END
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
        if order.flags & POST_ONLY and would_trade(market.book, order.side, price):
            return WOULD_TRADE
        return NO_REASON

    def _mass_cancel(self, account: Account, row: Row) -> int:
        op, command, instrument, _, _, _, _ = row
        if op != MASS_CANCEL:
            return MALFORMED
        if instrument:
            market = self.market(instrument)
            if market is None:
                return UNKNOWN_INSTRUMENT
            if market.state == CLOSED:
                return WRONG_STATE
        live = self.open_orders(account.id, instrument)
        orders = [order for order in live if self.markets[order.instrument].state != CLOSED]
        marks = self.begin_wide()
        touched = self.cancel_each(orders, MASS_CANCEL_REASON)
        report = (MASS_CANCELED, command, 0, 0, instrument, 0, 0, len(orders), 0, 0, 0, NO_REASON)
        account.reports.extend(report)
        account.commands[command] = (row, report, None)
        self.end_wide(marks, touched)
        return NO_REASON

    # One command, the slow way

    def _is_restricted(self, account: Account) -> bool:
        return any(id in (0, account.id) for id, _ in self.kills)

    def _apply_slowly(self, account: Account, batch: Batch) -> None:
        """The commands of a batch that has terms, or whose account may not do everything."""
        commands = account.commands
        every = batch.terms if batch.terms is not None else [NO_TERMS] * len(batch.op)
        for row, said in zip(
            zip(
                batch.op, batch.client_order_id, batch.instrument, batch.flags,
                batch.price, batch.quantity, batch.target, strict=True,
            ),
            every,
            strict=True,
        ):  # fmt: skip
            op, command, instrument, flags, price, quantity, target = row
            terms = said if any(said) else None
            if command in commands:
                reason = self._again(account, row, terms)
            elif op == NEW:
                reason = self._enter(account, batch, command, instrument, flags, price, quantity, terms)
            elif op == REPLACE:
                order = account.commands.get(target)
                if not isinstance(order, Order) or not order.open or order.instrument != instrument:
                    reason = self._no_target(order, instrument, target)
                else:
                    market = self.markets[instrument]
                    reason = self._replace_slowly(account, batch.stp, row, terms, market, order, _total(order, row))
            elif terms is not None:
                reason = MALFORMED
            elif op == CANCEL:
                reason = self._cancel(account, command, instrument, target)
            else:
                reason = self._mass_cancel(account, row)
            if reason:
                self._refuse(account, row, terms, reason)

    def _enter(
        self, account: Account, batch: Batch, command: Boxed, instrument: int, flags: int, price: Boxed,
        quantity: Boxed, terms: Terms | None,
    ) -> int:  # fmt: skip
        """A new order of any kind."""
        market = self.market(instrument)
        if market is None:
            return UNKNOWN_INSTRUMENT
        said = terms if terms is not None else NO_TERMS
        if flags & ALL_OR_NONE and flags & TIF_MASK == TIF_IOC and not malformed(flags, said):
            kept = flags & ~(ALL_OR_NONE | TIF_MASK) | TIF_FOK
        else:
            kept = flags
        order = Order(account, command, 0, instrument, kept, price, quantity, batch.session)
        partner = linkable(account, said.oco, instrument) if said.oco else None
        if self.is_killed(account.id, instrument):
            reason = KILLED
        else:
            reason = refusal(market, account, flags, price, quantity, said, self.time_ns)
            if reason == NO_REASON and market.open:
                reason = self._prospect(market, order, said, partner, batch.stp)
        if reason:
            return reason
        order.order_id = order_id = self.next_id()
        if kept != flags or is_peg(flags):
            order.remember(flags, price, quantity)
        account.commands[command] = order
        self.qualify(market, order, terms, batch.stp, partner)
        account.reports.extend((
            ACCEPTED, command, command, order_id, instrument, order.side, price, quantity, quantity, 0, 0, NO_REASON,
        ))  # fmt: skip
        mark = len(market.deltas)
        self.place(market, order, batch.stp, command)
        self.finish(market, mark)
        return NO_REASON

    def _prospect(self, market: Market, order: Order, terms: Terms, partner: Order | None, stp: int) -> int:
        """Why a new order may not enter, as the other side stands, or NO_REASON."""
        flags = order.flags
        force = flags & TIF_MASK
        if is_stop(flags):
            return NO_REASON
        if flags & TYPE_MASK == TYPE_MARKET and self.no_liquidity(market, order.side):
            return NO_LIQUIDITY
        if flags & POST_ONLY:
            price: int | None = order.price
            if is_peg(flags):
                price = peg_price(market, flags, terms.offset, order.price)
            return WOULD_TRADE if price is not None and would_trade(market.book, order.side, price) else NO_REASON
        needed = order.quantity if force == TIF_FOK else terms.minimum if force == TIF_IOC else 0
        if needed:
            plan = Plan(market, order, partner, self.reach(market, order), stp, False)
            if plan.traded < needed:
                return NOT_FILLABLE
        return NO_REASON

    def _cancel_slowly(self, account: Account, command: Boxed, market: Market, order: Order) -> int:
        if market.state == CLOSED:
            return WRONG_STATE
        mark = len(market.deltas)
        self.drop(market, order, NO_REASON, command)
        account.commands[command] = order
        self.finish(market, mark)
        return NO_REASON

    def _replace_slowly(
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
        reason = self._slow_replace_refusal(market, order, terms, price, total, same)
        if reason:
            return reason
        order.remember(order.flags, order.price, order.quantity)
        open = total - order.filled
        kept = same and open < order.open
        mark = len(market.deltas)
        if kept:
            self._shrink(market, order, order.open - open)
            order.open = open
        else:
            self._take_up(market, order)
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
            self.place(market, order, stp, command)
        self.finish(market, mark)
        return NO_REASON

    def _slow_replace_refusal(
        self, market: Market, order: Order, terms: Terms | None, price: int, total: int, same: bool
    ) -> int:
        """Why `order` may not become that, or NO_REASON."""
        more = order.more
        if self.is_killed(order.account.id, order.instrument):
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
        reason = too_large(market, order.flags, price, total)
        if reason:
            return reason
        if same and total == order.quantity:
            return NOTHING_TO_CHANGE
        if order.flags & POST_ONLY and market.open:
            aim: int | None = price
            if is_peg(order.flags):
                assert more is not None
                aim = peg_price(market, order.flags, more.offset, price)
            if aim is not None and would_trade(market.book, order.side, aim):
                return WOULD_TRADE
        return NO_REASON

    def _take_up(self, market: Market, order: Order) -> None:
        """Take an order that loses its place from wherever it is."""
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
        market.pegs.pop(order.order_id, None)

    # Answers

    def _refuse(self, account: Account, row: Row, terms: Terms | None, reason: int) -> None:
        op, command, instrument, flags, price, quantity, target = row
        concerned = command if op == NEW else target
        report = (REFUSED, command, concerned, 0, instrument, flags & FLAG_SELL, price, quantity, 0, 0, 0, reason)
        account.reports.extend(report)
        if reason != DUPLICATE_ID:
            account.commands[command] = (row, report, terms)

    def _no_target(self, known: Order | Answer | None, instrument: int, target: Boxed) -> int:
        """Why what stands under the id `target` cannot be changed."""
        if not isinstance(known, Order) or known.client_order_id != target:  # it stands under its cancel's id, too
            return UNKNOWN_ORDER if self.market(instrument) is not None else UNKNOWN_INSTRUMENT
        return TOO_LATE if known.instrument == instrument else WRONG_INSTRUMENT

    def _again(self, account: Account, row: Row, terms: Terms | None) -> int:
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
            self._repeated.append(account)
        account.repeats.extend((*report[:5], report[5] | REPEAT, *report[6:]))
        return NO_REASON

    # Whole

    def check(self) -> None:
        """Walk every invariant. Cost: O(everything). Raises: AssertionError for the first that is broken."""
        found = 0
        for market in self.markets.values():
            market.check()
            for order in self.live_on(market):
                found += 1
                assert order.account.commands.get(order.client_order_id) is order, "a live order was forgotten"
        live = sum(1 for account in self.accounts.values() for _ in account.live())
        assert live == found, "a live order is nowhere"

    def digest(self) -> str:
        """SHA-256 of the whole state, in hex: two venues that agree on it answer alike from here on."""
        hasher = hashlib.sha256()
        for part in self._state():
            hasher.update(repr(part).encode())
        return hasher.hexdigest()

    def _state(self) -> Iterator[tuple[object, ...]]:
        yield (self.engine, self.position, self.time_ns, self.orders_entered, self.retained)
        yield (list(self.kills), list(self.amended.items()), [entry[:2] for entry in sorted(self._expiries, key=_when)])
        if self.allowed:
            yield tuple(self.allowed.items())
        for market in self.markets.values():
            yield from market.contents()
        for account in self.accounts.values():
            yield (account.id, account.next_seq, account.noted(), account.aside())
            for command, known in account.commands.items():
                if isinstance(known, Order):
                    yield (
                        command, known.order_id, known.instrument, known.flags, known.price, known.quantity,
                        known.open, known.filled, known.session, known.entered,
                        known.more.state() if known.more is not None else None,
                    )  # fmt: skip
                else:
                    yield (command, known)


def _total(order: Order, row: Row) -> int:
    """The total that a replace states, whichever way it does."""
    meaning = row[3] & MEANING_MASK
    quantity: int = row[5]
    if meaning == MEANING_TOTAL:
        return quantity
    filled: int = order.filled
    total: int = order.quantity
    return filled + quantity if meaning == MEANING_OPEN else total - quantity


def _when(entry: tuple[int, int, Order]) -> tuple[int, int]:
    return entry[:2]

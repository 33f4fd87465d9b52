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

from engine.book import Book
from engine.matching import fillable, trade, would_trade
from engine.order import Account, Answer, Order, Row
from engine.types import (
    ACCEPTED,
    BAD_QUANTITY,
    BELOW_FILLED,
    CANCEL,
    CANCELED,
    DELTA_WIDTH,
    DISCONNECTED,
    DUPLICATE_ID,
    ENGINE_SHIFT,
    FLAG_SELL,
    IOC_REMAINDER,
    MALFORMED,
    MARKET_REMAINDER,
    MASS_CANCEL,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    MEANING_MASK,
    MEANING_OPEN,
    MEANING_TOTAL,
    NEW,
    NO_LIQUIDITY,
    NO_REASON,
    NOT_FILLABLE,
    NOTHING_TO_CHANGE,
    NOTIONAL_LIMIT,
    NOTIONAL_TOO_LARGE,
    POST_ONLY,
    PRICE_LIMIT,
    PRICE_OUT_OF_LIMITS,
    PRIORITY_KEPT,
    QUANTITY_LIMIT,
    REFUSED,
    REPEAT,
    REPLACE,
    REPLACED,
    REPORT_WIDTH,
    REQUEUE,
    TIF_DAY,
    TIF_FOK,
    TIF_GTC,
    TIF_IOC,
    TIF_MASK,
    TOO_LATE,
    TYPE_LIMIT,
    TYPE_MARKET,
    TYPE_MASK,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_ORDER,
    WOULD_TRADE,
    WRONG_INSTRUMENT,
    AccountReports,
    Batch,
    Boxed,
    ChannelDeltas,
    Outcome,
)
from proto.cluster import Instrument
from proto.feed import ADD, DELETE, END, MODIFY

RETAINED: Final = 16_384  # commands an account can repeat and be recognised, at least

# An order with none of these flags is a limit order that rests if it does not trade.
_SPECIAL: Final = TYPE_MASK | TIF_MASK & ~TIF_DAY | POST_ONLY


class Market:
    """An instrument as the venue trades it: its book, its limits, and the channel its deltas go to."""

    __slots__ = ("book", "deltas", "instrument", "price_max", "price_min")

    def __init__(self, instrument: Instrument, deltas: list[int]) -> None:
        self.instrument = instrument
        self.book = Book(instrument.id)
        self.price_min = instrument.price_min
        self.price_max = instrument.price_max
        self.deltas = deltas


class Venue:
    """All instruments and accounts of one engine."""

    def __init__(self, engine: int, instruments: Sequence[Instrument], *, retained: int = RETAINED) -> None:
        self.engine = engine
        self.first_order_id = engine << ENGINE_SHIFT
        self.retained = retained
        self.position = 0
        self.time_ns = 0
        self.orders_entered = 0
        self.accounts: dict[int, Account] = {}
        self._channels: dict[int, list[int]] = {
            channel: [] for channel in sorted({instrument.channel for instrument in instruments})
        }
        self.markets: dict[int, Market] = {
            instrument.id: Market(instrument, self._channels[instrument.channel])
            for instrument in sorted(instruments, key=lambda instrument: instrument.id)
        }
        self._touched: list[Account] = []
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
            for row in zip(
                batch.op, batch.client_order_id, batch.instrument, batch.flags,
                batch.price, batch.quantity, batch.target, strict=True,
            ):  # fmt: skip
                op = row[0]
                if row[1] in commands:
                    self._again(account, row)
                elif op == NEW:
                    self._new(account, batch, row)
                elif op == CANCEL:
                    self._cancel(account, row)
                elif op == REPLACE:
                    self._replace(account, batch, row)
                else:
                    self._mass_cancel(account, row)
            account.recent.extend(batch.client_order_id)
            account.forget(self.retained, 2 * len(batch.op))
        return self._close()

    def disconnect(self, position: int, time_ns: int, account: int, session: int) -> Outcome:
        """Apply the end of a session: cancel what it entered."""
        self._open(position, time_ns)
        owner = self._account(account)
        if not owner.reports:
            self._touched.append(owner)
        self._cancel_all(owner, [order for order in owner.live() if order.session == session], DISCONNECTED)
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
                deltas.append(ChannelDeltas(channel, rows[:], []))
                rows.clear()  # the markets hold this very list
        return Outcome(reports, deltas)

    def _account(self, id: int) -> Account:
        account = self.accounts.get(id)
        if account is None:
            account = self.accounts[id] = Account(id)
        return account

    # One command

    def _new(self, account: Account, batch: Batch, row: Row) -> None:
        _, command, instrument, flags, price, quantity, _ = row
        market = self.markets.get(instrument)
        plain = not flags & _SPECIAL
        if market is None or not plain or not market.price_min <= price <= market.price_max:
            reason = self._refusal(market, account, batch.stp, flags, price, quantity)
            if market is None or reason:
                self._refuse(account, row, reason)
                return
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

    def _trade(self, market: Market, order: Order, stp: int, command: int) -> None:
        """Trade `order`, then rest or cancel what is left of it; this ends the event."""
        deltas = market.deltas
        before = len(deltas)
        flags = order.flags
        price = order.price
        if flags & TYPE_MASK == TYPE_MARKET:
            price = -PRICE_LIMIT if order.side else PRICE_LIMIT
        reason = trade(market.book, order, price, stp, command, self._touched, deltas)
        if order.open:
            if reason == NO_REASON:
                if flags & TYPE_MASK == TYPE_MARKET:
                    reason = MARKET_REMAINDER
                elif flags & TIF_MASK in (TIF_IOC, TIF_FOK):
                    reason = IOC_REMAINDER
            if reason == NO_REASON:
                self._rest(market, order)
            else:
                order.open = 0
                self._report(CANCELED, 0, order, 0, reason)
        if len(deltas) > before:
            deltas[-DELTA_WIDTH] |= END

    def _rest(self, market: Market, order: Order) -> None:
        market.book.rest(order)
        market.deltas.extend((
            ADD | order.side << 4, order.instrument, order.order_id, order.price, order.open, 0,
        ))  # fmt: skip

    def _refusal(
        self, market: Market | None, account: Account, stp: int, flags: int, price: Boxed, quantity: Boxed
    ) -> int:
        """Why an order may not enter, or NO_REASON."""
        if market is None:
            return UNKNOWN_INSTRUMENT
        side = flags & FLAG_SELL
        kind = flags & TYPE_MASK
        force = flags & TIF_MASK
        book = market.book
        if kind == TYPE_MARKET:
            if flags & POST_ONLY:
                return MALFORMED
            if (book.bids if side else book.asks).best is None:
                return NO_LIQUIDITY
            price = -PRICE_LIMIT if side else PRICE_LIMIT
        elif kind != TYPE_LIMIT:
            return MALFORMED
        elif not market.price_min <= price <= market.price_max:
            return PRICE_OUT_OF_LIMITS
        if force not in (TIF_GTC, TIF_DAY, TIF_IOC, TIF_FOK):
            return MALFORMED
        if flags & POST_ONLY:
            if force in (TIF_IOC, TIF_FOK):
                return MALFORMED
            if would_trade(book, side, price):
                return WOULD_TRADE
        if force == TIF_FOK and not fillable(book, side, price, quantity, account, stp):
            return NOT_FILLABLE
        return NO_REASON

    def _cancel(self, account: Account, row: Row) -> None:
        _, command, instrument, _, _, _, target = row
        order = account.commands.get(target)
        if not isinstance(order, Order) or not order.open or order.instrument != instrument:
            self._refuse_target(account, row, order)
            return
        market = self.markets[instrument]
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

    def _replace(self, account: Account, batch: Batch, row: Row) -> None:
        _, command, instrument, flags, price, quantity, target = row
        order = account.commands.get(target)
        if not isinstance(order, Order) or not order.open or order.instrument != instrument:
            self._refuse_target(account, row, order)
            return
        meaning = flags & MEANING_MASK
        if meaning == MEANING_TOTAL:
            total = quantity
        elif meaning == MEANING_OPEN:
            total = order.filled + quantity
        else:
            total = order.quantity - quantity
        market = self.markets[instrument]
        reason = self._replace_refusal(market, order, flags, price, total)
        if reason:
            self._refuse(account, row, reason)
            return
        if order.entered is None:
            order.entered = (order.flags, order.price, order.quantity)
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
        account.commands[command] = (row, report)
        if not kept:
            self._trade(market, order, batch.stp, command)
            market.deltas[-DELTA_WIDTH] |= END

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

    def _mass_cancel(self, account: Account, row: Row) -> None:
        op, command, instrument, _, _, _, _ = row
        if op != MASS_CANCEL:
            self._refuse(account, row, MALFORMED)
            return
        if instrument and instrument not in self.markets:
            self._refuse(account, row, UNKNOWN_INSTRUMENT)
            return
        orders = self.open_orders(account.id, instrument)
        self._cancel_all(account, orders, MASS_CANCEL_REASON)
        report = (MASS_CANCELED, command, 0, 0, instrument, 0, 0, len(orders), 0, 0, 0, NO_REASON)
        account.reports.extend(report)
        account.commands[command] = (row, report)

    def _cancel_all(self, account: Account, orders: list[Order], reason: int) -> None:
        """Cancel live `orders` of `account` in one event a channel."""
        before = {channel: len(rows) for channel, rows in self._channels.items()}
        for order in orders:
            market = self.markets[order.instrument]
            market.book.remove(order)
            market.deltas.extend((
                DELETE | order.side << 4, order.instrument, order.order_id, order.price, order.open, 0,
            ))  # fmt: skip
            order.open = 0
            self._report(CANCELED, 0, order, 0, reason)
        for channel, rows in self._channels.items():
            if len(rows) > before[channel]:
                rows[-DELTA_WIDTH] |= END

    # Answers

    def _report(self, kind: int, command: int, order: Order, flags: int, reason: int) -> None:
        order.account.reports.extend((
            kind, command, order.client_order_id, order.order_id, order.instrument, order.side | flags,
            order.price, order.quantity, order.open, order.filled, 0, reason,
        ))  # fmt: skip

    def _refuse(self, account: Account, row: Row, reason: int) -> None:
        op, command, instrument, flags, price, quantity, target = row
        concerned = command if op == NEW else target
        report = (REFUSED, command, concerned, 0, instrument, flags & FLAG_SELL, price, quantity, 0, 0, 0, reason)
        account.reports.extend(report)
        if reason != DUPLICATE_ID:
            account.commands[command] = (row, report)

    def _refuse_target(self, account: Account, row: Row, known: Order | Answer | None) -> None:
        instrument = row[2]
        if not isinstance(known, Order) or known.client_order_id != row[6]:  # it stands under its cancel's id, too
            self._refuse(account, row, UNKNOWN_ORDER if instrument in self.markets else UNKNOWN_INSTRUMENT)
        else:
            self._refuse(account, row, TOO_LATE if known.instrument == instrument else WRONG_INSTRUMENT)

    def _again(self, account: Account, row: Row) -> None:
        """Answer a command whose id was used before: say again what was said, or refuse what differs."""
        command = row[1]
        known = account.commands[command]
        if not isinstance(known, Order):
            same = row == known[0]
            report = known[1]
        elif known.client_order_id == command:
            flags, price, quantity = known.entered or (known.flags, known.price, known.quantity)
            same = row[:6] == (NEW, command, known.instrument, flags, price, quantity)
            report = (
                ACCEPTED, command, command, known.order_id, known.instrument, known.side,
                price, quantity, quantity, 0, 0, NO_REASON,
            )  # fmt: skip
        else:
            target = known.client_order_id
            same = (row[0], row[2], row[6]) == (CANCEL, known.instrument, target)
            report = (
                CANCELED, command, target, known.order_id, known.instrument, known.side,
                known.price, known.quantity, 0, known.filled, 0, NO_REASON,
            )  # fmt: skip
        if not same:
            self._refuse(account, row, DUPLICATE_ID)
            return
        if not account.repeats:
            self._repeated.append(account)
        account.repeats.extend((*report[:5], report[5] | REPEAT, *report[6:]))

    # Whole

    def check(self) -> None:
        """Walk every invariant. Cost: O(everything). Raises: AssertionError for the first that is broken."""
        resting: dict[int, Order] = {}
        for market in self.markets.values():
            market.book.check()
            for side in (0, 1):
                for order in market.book.orders(side):
                    resting[order.order_id] = order
                    assert order.account.commands.get(order.client_order_id) is order, "a resting order was forgotten"
        live = sum(1 for account in self.accounts.values() for _ in account.live())
        assert live == len(resting), "a live order does not rest"

    def digest(self) -> str:
        """SHA-256 of the whole state, in hex: two venues that agree on it answer alike from here on."""
        hasher = hashlib.sha256()
        for part in self._state():
            hasher.update(repr(part).encode())
        return hasher.hexdigest()

    def _state(self) -> Iterator[tuple[object, ...]]:
        yield (self.engine, self.position, self.time_ns, self.orders_entered, self.retained)
        for id, market in self.markets.items():
            book = market.book
            yield (id, book.next_trade_id, book.last_price, book.last_quantity)
            for side in (0, 1):
                for order in book.orders(side):
                    yield (order.order_id, order.price, order.open)
        for account in self.accounts.values():
            yield (account.id, account.next_seq, list(account.recent))
            for command, known in account.commands.items():
                if isinstance(known, Order):
                    yield (
                        command, known.order_id, known.instrument, known.flags, known.price, known.quantity,
                        known.open, known.filled, known.session, known.entered,
                    )  # fmt: skip
                else:
                    yield (command, known)

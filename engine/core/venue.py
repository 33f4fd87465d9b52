"""The deterministic core of an engine: batches of commands in, reports and deltas out.

`apply` and its like are all that ever changes it. They read no clock, no file and no chance:
position and time come from the log record, so that applying a log again gives
the same books, reports, ids and deltas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from engine.core.book import Book
from engine.core.commands import OperatorCommand
from engine.core.entry import OrderEntry
from engine.core.limits import LIMITS, Limits
from engine.core.listing import Listing
from engine.core.market import Market
from engine.core.operations import KillSwitch, Operations
from engine.core.order import Account, Order
from engine.core.record import Record
from engine.core.settling import Settling
from engine.core.trading import Trading
from proto.columns import (
    CANCEL,
    DISCONNECTED,
    ENGINE_SHIFT,
    EXPIRED,
    MALFORMED,
    MASS_CANCEL,
    NEW,
    NO_TERMS,
    REPLACE,
    Batch,
    Outcome,
)
from proto.instrument import Instrument

RETAINED: Final = 8_192  # commands an account can repeat and be recognised, at least


class Venue:
    """All instruments and accounts of one engine, as its log tells of them record by record.

    listing     what is traded here
    trading     what orders do there
    settling    what the markets do after that
    kills       who may enter nothing where
    operations  what the operator does
    """

    def __init__(
        self,
        engine: int,
        instruments: Sequence[Instrument],
        *,
        retained: int = RETAINED,
        limits: Limits = LIMITS,
    ) -> None:
        self.engine = engine
        self.retained = retained
        self.accounts: dict[int, Account] = {}
        self.record = Record()
        self.listing = Listing(instruments)
        self.trading = Trading(self.record, engine << ENGINE_SHIFT, limits)
        self.settling = Settling(self.trading)
        self.kills = KillSwitch(self.listing)
        self.operations = Operations(self.listing, self.settling, self.kills)
        self._entry = OrderEntry(self.record, self.listing, self.settling, self.kills)

    @property
    def position(self) -> int:
        """The log position of the last record applied."""
        return self.record.position

    @property
    def time_ns(self) -> int:
        """The time of the last record applied."""
        return self.record.time_ns

    @property
    def markets(self) -> dict[int, Market]:
        """The markets by instrument id."""
        return self.listing.markets

    @property
    def channels(self) -> list[int]:
        """The channels that deltas go to."""
        return sorted(self.listing.channels)

    @property
    def books(self) -> dict[int, Book]:
        """The books by instrument id, in its order."""
        return {id: market.book for id, market in self.listing.markets.items()}

    @property
    def next_due_ns(self) -> int:
        """When a tick has something to do, or may have: a GTD order expires, or, at once, a market has more to settle.
        0 if there is nothing."""
        return max(self.time_ns, 1) if self.settling.unsettled else self.trading.deadlines.next_ns

    def apply(self, position: int, time_ns: int, batches: Sequence[Batch]) -> Outcome:
        """Apply one log record: every command of every batch, in order.

        Raises: nothing. A command that may not be is answered with a refusal.
        Cost: O(log n) a command, and O(1) more for all that it trades, moves or cancels; engine/RULES.md bounds that.
        """
        self._begin(position, time_ns)
        entry = self._entry
        for batch in batches:
            account = self._account(batch.account)
            if not account.reports:
                self.record.touched.append(account)
            commands = account.commands
            before = len(commands)
            if batch.terms is not None:
                self._apply_with_terms(account, batch)
            else:
                assert len(batch.client_order_id) == len(batch.instrument) == len(batch.flags) == len(batch.op)
                assert len(batch.price) == len(batch.quantity) == len(batch.target) == len(batch.op)
                # Without `strict`, the compiled build goes by index and makes no row.
                for op, command, instrument, flags, price, quantity, target in zip(  # noqa: B905
                    batch.op, batch.client_order_id, batch.instrument, batch.flags,
                    batch.price, batch.quantity, batch.target,
                ):  # fmt: skip
                    if command in commands:
                        reason = entry.again(account, (op, command, instrument, flags, price, quantity, target), None)
                    elif op == NEW:
                        reason = entry.new(account, batch, command, instrument, flags, price, quantity)
                    elif op == CANCEL:
                        reason = entry.cancel(account, command, instrument, target)
                    elif op == REPLACE:
                        row = (op, command, instrument, flags, price, quantity, target)
                        reason = entry.replace(account, batch.stp, row, None)
                    elif op == MASS_CANCEL:
                        reason = entry.mass_cancel(account, (op, command, instrument, flags, price, quantity, target))
                    else:
                        reason = MALFORMED
                    if reason:
                        row = (op, command, instrument, flags, price, quantity, target)
                        entry.refuse(account, row, None, reason)
            account.note(batch.client_order_id, before)
            account.forget(self.retained, len(batch.op))
        return self._end()

    def disconnect(self, position: int, time_ns: int, account: int, session: int) -> Outcome:
        """Apply the end of a session: cancel what it entered."""
        self._begin(position, time_ns)
        entered = [order for order in self._account(account).live() if order.session == session]
        self.settling.cancel_in_one(self.listing, entered, DISCONNECTED)
        return self._end()

    def operate(self, position: int, time_ns: int, command: OperatorCommand) -> Outcome:
        """Apply an operator's command; the outcome says why, if it had no effect."""
        self._begin(position, time_ns)
        refused = self.operations.carry_out(command)
        outcome = self._end()
        outcome.refused = refused
        return outcome

    def tick(self, position: int, time_ns: int) -> Outcome:
        """Let time pass: what is due happens."""
        self._begin(position, time_ns)
        return self._end()

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

    # One record

    def _begin(self, position: int, time_ns: int) -> None:
        self.record.begin(position, time_ns)
        while (order := self.trading.deadlines.due(time_ns)) is not None:
            market = self.listing.markets[order.instrument]
            mark = len(market.deltas)
            self.trading.drop(market, order, EXPIRED)
            self.settling.finish(market, mark)
        if self.settling.unsettled:
            self.settling.settle_on()

    def _end(self) -> Outcome:
        """Hand over what the record caused."""
        return Outcome(self.record.end(), self.listing.end())

    def _account(self, id: int) -> Account:
        account = self.accounts.get(id)
        if account is None:
            account = self.accounts[id] = Account(id)
        return account

    def _apply_with_terms(self, account: Account, batch: Batch) -> None:
        """The commands of a batch that has terms; most of its rows may have none."""
        entry = self._entry
        commands = account.commands
        assert batch.terms is not None
        for row, said in zip(
            zip(
                batch.op, batch.client_order_id, batch.instrument, batch.flags,
                batch.price, batch.quantity, batch.target, strict=True,
            ),
            batch.terms,
            strict=True,
        ):  # fmt: skip
            op, command, instrument, flags, price, quantity, target = row
            terms = said if said != NO_TERMS else None
            if command in commands:
                reason = entry.again(account, row, terms)
            elif op == NEW:
                if terms is None:
                    reason = entry.new(account, batch, command, instrument, flags, price, quantity)
                else:
                    reason = entry.enter(account, batch, command, instrument, flags, price, quantity, terms)
            elif op == REPLACE:
                reason = entry.replace(account, batch.stp, row, terms)
            elif terms is not None:
                reason = MALFORMED
            elif op == CANCEL:
                reason = entry.cancel(account, command, instrument, target)
            elif op == MASS_CANCEL:
                reason = entry.mass_cancel(account, row)
            else:
                reason = MALFORMED
            if reason:
                entry.refuse(account, row, terms, reason)

    # Whole

    def check(self) -> None:
        """Walk every invariant. Cost: O(everything). Raises: AssertionError for the first that is broken."""
        found = 0
        for market in self.listing.markets.values():
            market.check()
            for order in self.trading.live_on(market):
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
        yield (self.engine, self.position, self.time_ns, self.trading.orders_entered, self.retained)
        yield (list(self.kills.pairs), list(self.operations.amended.items()))
        if self.operations.allowed:
            yield tuple(self.operations.allowed.items())
        for market in self.listing.markets.values():
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

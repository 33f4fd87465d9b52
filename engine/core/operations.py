"""The operator's commands: what is decided about instruments, accounts and trades from outside the market."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from engine.core.commands import (
    AddInstrument,
    BustTrade,
    ChangeInstrument,
    CorrectTrade,
    Delist,
    Kill,
    OperatorCommand,
    Roll,
    SetAccounts,
    SetState,
)
from engine.core.listing import Listing
from engine.core.market import Market
from engine.core.order import Order, by_entry
from engine.core.phases import Phases
from engine.core.settling import Settling
from proto.cluster import Account
from proto.columns import (
    AUCTION_TRADE,
    BAD_QUANTITY,
    BUSTED,
    CORRECTED,
    DELISTED,
    DUPLICATE_ID,
    KILLED,
    MALFORMED,
    NO_REASON,
    NOTHING_TO_CHANGE,
    PRICE_OUT_OF_LIMITS,
    QUANTITY_LIMIT,
    TOO_LATE,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_TRADE,
    WRONG_STATE,
)
from proto.feed import BUST, CLOSED, CORRECTION, DEFINITION, PRE_OPEN, STATUS
from proto.instrument import Instrument
from proto.table import edited

# What of an instrument may change; allocation only while no order is live.
CHANGEABLE: Final = frozenset((
    "price_min", "price_max", "quantity_max", "notional_max", "collar", "band", "allocation",
))  # fmt: skip


class KillSwitch:
    """Who may enter nothing where: pairs of an account and an instrument, 0 for all, in order of the commands."""

    __slots__ = ("_listing", "pairs")

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.pairs: dict[tuple[int, int], bool] = {}

    def turn(self, account: int, instrument: int, on: bool) -> None:
        if on:
            self.pairs[account, instrument] = True
        else:
            del self.pairs[account, instrument]
        self.heed()

    def heed(self) -> None:
        """Let every market know whether it has to ask."""
        for id, market in self._listing.markets.items():
            market.killed = any(instrument in (0, id) for _, instrument in self.pairs)
            market.mind()

    def stops(self, account: int, instrument: int) -> bool:
        """Whether the account may enter nothing there."""
        pairs = self.pairs
        return bool(pairs) and (
            (0, 0) in pairs or (account, 0) in pairs or (0, instrument) in pairs or (account, instrument) in pairs
        )


class Operations:
    """Carries out what an operator says.

    amended  price and quantity (0: none) of trades that were busted or corrected, by instrument and trade
    allowed  accounts that may trade, and their names; without any, every account may
    """

    __slots__ = ("_kills", "_listing", "_phases", "_settling", "_trading", "allowed", "amended")

    def __init__(self, listing: Listing, settling: Settling, kills: KillSwitch) -> None:
        self._listing = listing
        self._settling = settling
        self._trading = trading = settling.trading
        self._phases = Phases(trading)
        self._kills = kills
        self.amended: dict[tuple[int, int], tuple[int, int]] = {}
        self.allowed: dict[int, str] = {}

    def carry_out(self, command: OperatorCommand) -> int:
        """Carry out a command, or say why not."""
        if isinstance(command, AddInstrument):
            return self._add(command.definition)
        if isinstance(command, Kill):
            return self._kill(command)
        if isinstance(command, SetAccounts):
            self.let_trade(command.accounts)
            return NO_REASON
        if isinstance(command, ChangeInstrument):
            return self._change(command.definition)
        market = self._listing.market(command.instrument)
        if market is None:
            return UNKNOWN_INSTRUMENT
        if isinstance(command, SetState):
            return self._set_state(market, command.state)
        if isinstance(command, Delist):
            return self._delist(market)
        if isinstance(command, Roll):
            return self._roll(market)
        if isinstance(command, BustTrade | CorrectTrade):
            return self._amend(market, command)
        assert_never(command)

    def _add(self, instrument: Instrument) -> int:
        for market in self._listing.markets.values():
            if instrument.id == market.instrument.id or instrument.symbol == market.instrument.symbol:
                return DUPLICATE_ID
        market = self._listing.add(instrument)
        self._kills.heed()
        mark = len(market.deltas)
        self._trading.tell(market, DEFINITION, list(instrument.told))
        self._trading.tell(market, STATUS, [market.state, market.reason])
        self._settling.finish(market, mark)
        return NO_REASON

    def _change(self, instrument: Instrument) -> int:
        """Define an instrument anew. Orders that rest stay where they are, and can be canceled."""
        market = self._listing.market(instrument.id)
        if market is None:
            return UNKNOWN_INSTRUMENT
        changes = edited(market.instrument, instrument)
        if not changes:
            return NOTHING_TO_CHANGE
        if not CHANGEABLE.issuperset(changes) or instrument.price_min > instrument.price_max:
            return MALFORMED
        if "allocation" in changes and any(order.open for order in self._trading.live_on(market)):
            return WRONG_STATE
        if not market.instrument.band and market.book.last_quantity:
            market.band_reference = market.book.last_price  # where trading is, should there be a band from now on
        market.define(instrument)
        mark = len(market.deltas)
        self._trading.tell(market, DEFINITION, list(instrument.told))
        self._settling.finish(market, mark)
        return NO_REASON

    def let_trade(self, accounts: Iterable[Account]) -> None:
        """These accounts and no others may trade; without any, every account may. The door heeds it."""
        self.allowed = {account.id: account.name for account in accounts}

    def _set_state(self, market: Market, state: int) -> int:
        if not PRE_OPEN <= state <= CLOSED:
            return WRONG_STATE
        if state == market.state:
            return NOTHING_TO_CHANGE
        mark = len(market.deltas)
        self._phases.change(market, state)
        market.summary_due = True
        self._settling.finish(market, mark)
        return NO_REASON

    def _delist(self, market: Market) -> int:
        mark = len(market.deltas)
        for order in self._trading.live_on(market):
            if order.open:
                self._trading.drop(market, order, DELISTED)
        market.delisted = True
        self._trading.begin_state(market, CLOSED, DELISTED)
        self._settling.finish(market, mark)
        return NO_REASON

    def _roll(self, market: Market) -> int:
        if market.state != CLOSED:
            return WRONG_STATE
        book = market.book
        book.session.begin(book.next_trade_id)
        if book.last_quantity:
            market.band_reference = book.last_price
        mark = len(market.deltas)
        self._trading.tell_summary(market)
        self._settling.finish(market, mark)
        return NO_REASON

    def _kill(self, command: Kill) -> int:
        if command.instrument and self._listing.market(command.instrument) is None:
            return UNKNOWN_INSTRUMENT
        if ((command.account, command.instrument) in self._kills.pairs) == command.on:
            return NOTHING_TO_CHANGE
        self._kills.turn(command.account, command.instrument, command.on)
        if command.on:
            self._settling.cancel_in_one(self._listing, self._killable(command), KILLED)
        return NO_REASON

    def _killable(self, command: Kill) -> list[Order]:
        found = []
        for id, market in self._listing.markets.items():
            if command.instrument in (0, id):
                found += [o for o in self._trading.live_on(market) if command.account in (0, o.account.id)]
        found.sort(key=by_entry)
        return found

    def _amend(self, market: Market, command: BustTrade | CorrectTrade) -> int:
        instrument = market.instrument.id
        key = (instrument, command.trade_id)
        trade = market.book.session.find(command.trade_id)
        if trade is None:
            return UNKNOWN_TRADE
        before = self.amended.get(key, (trade.price, trade.quantity))
        if not before[1]:
            return TOO_LATE
        after = (0, 0)
        if isinstance(command, CorrectTrade):
            after = (command.price, command.quantity)
            if not 0 < command.quantity < QUANTITY_LIMIT:
                return BAD_QUANTITY
            if not market.price_min <= command.price <= market.price_max:
                return PRICE_OUT_OF_LIMITS
            if after == before:
                return NOTHING_TO_CHANGE
        self.amended[key] = after
        session = market.book.session
        session.add_up()
        if command.trade_id >= session.first_trade_id:
            session.volume += after[1] - before[1]
            session.turnover += after[0] * after[1] - before[0] * before[1]
            market.summary_due = True
        mark = len(market.deltas)
        if isinstance(command, CorrectTrade):
            kind, told = CORRECTED, after
            market.deltas.extend((CORRECTION, instrument, 0, command.price, command.quantity, command.trade_id))
        else:
            kind, told = BUSTED, before
            market.deltas.extend((BUST, instrument, 0, 0, 0, command.trade_id))
        first_flag = AUCTION_TRADE if trade.flag == AUCTION_TRADE else 0
        for order, flag, open, filled in (
            (trade.one, first_flag, trade.one_open, trade.one_filled),
            (trade.other, trade.flag, trade.other_open, trade.other_filled),
        ):
            self._trading.record.touch(order.account).extend((
                kind, 0, order.client_order_id, order.order_id, instrument, order.side | flag,
                *told, open, filled, command.trade_id, NO_REASON,
            ))  # fmt: skip
        self._settling.finish(market, mark)
        return NO_REASON

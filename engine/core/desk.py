"""The operator's desk: what is decided about instruments, accounts and trades from outside the market."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

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
from engine.core.market import Market
from engine.core.order import Order
from engine.core.pit import Pit
from proto.cluster import Account
from proto.columns import (
    AUCTION_TRADE,
    BAD_QUANTITY,
    BUSTED,
    CORRECTED,
    DELISTED,
    DELTA_WIDTH,
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
from proto.feed import BUST, CLOSED, CORRECTION, DEFINITION, END, PRE_OPEN, STATUS
from proto.instrument import Instrument
from proto.table import edited

# What of an instrument may change; allocation only while no order is live.
CHANGEABLE: Final = frozenset((
    "price_min", "price_max", "quantity_max", "notional_max", "collar", "band", "allocation",
))  # fmt: skip


class Desk(Pit):
    """What an operator may do, on top of what orders do."""

    def __init__(self, first_order_id: int, instruments: Sequence[Instrument]) -> None:
        super().__init__(first_order_id)
        self._channels: dict[int, list[int]] = {}
        self._extras: dict[int, list[list[int | str]]] = {}
        self.kills: dict[tuple[int, int], bool] = {}  # (account or 0, instrument or 0), in order of the command
        self.amended: dict[tuple[int, int], tuple[int, int]] = {}  # price and quantity (0: none) by instrument, trade
        self.allowed: dict[int, str] = {}  # accounts that may trade, and their names; without any, every account may
        for channel in sorted({instrument.channel for instrument in instruments}):
            self._open_channel(channel)
        for instrument in sorted(instruments, key=_by_instrument):
            self._list(instrument)

    def operate_on(self, command: OperatorCommand) -> int:
        """Carry out an operator's command, or say why not."""
        if isinstance(command, AddInstrument):
            return self._add(command.definition)
        if isinstance(command, Kill):
            return self._kill(command)
        if isinstance(command, SetAccounts):
            self.let_trade(command.accounts)
            return NO_REASON
        if isinstance(command, ChangeInstrument):
            return self._change(command.definition)
        market = self.market(command.instrument)
        if market is None:
            return UNKNOWN_INSTRUMENT
        if isinstance(command, SetState):
            return self._set_state(market, command.state)
        if isinstance(command, Delist):
            return self._delist(market)
        if isinstance(command, Roll):
            return self._roll(market)
        return self._amend(market, command)

    def market(self, instrument: int) -> Market | None:
        """The market of an instrument that is listed."""
        market = self.markets.get(instrument)
        return None if market is None or market.delisted else market

    @property
    def channels(self) -> list[int]:
        """The channels that deltas go to."""
        return sorted(self._channels)

    def _open_channel(self, channel: int) -> None:
        self._channels[channel] = []
        self._extras[channel] = []

    def _list(self, instrument: Instrument) -> Market:
        if instrument.channel not in self._channels:
            self._open_channel(instrument.channel)
        market = Market(instrument, self._channels[instrument.channel], self._extras[instrument.channel])
        self.markets[instrument.id] = market
        return market

    def _add(self, instrument: Instrument) -> int:
        for market in self.markets.values():
            if instrument.id == market.instrument.id or instrument.symbol == market.instrument.symbol:
                return DUPLICATE_ID
        market = self._list(instrument)
        self._heed_kills()
        mark = len(market.deltas)
        self.tell(market, DEFINITION, list(instrument.told))
        self.tell(market, STATUS, [market.state, market.reason])
        self.finish(market, mark)
        return NO_REASON

    def _change(self, instrument: Instrument) -> int:
        """Define an instrument anew. Orders that rest stay where they are, and can be canceled."""
        market = self.market(instrument.id)
        if market is None:
            return UNKNOWN_INSTRUMENT
        changes = edited(market.instrument, instrument)
        if not changes:
            return NOTHING_TO_CHANGE
        if not CHANGEABLE.issuperset(changes) or instrument.price_min > instrument.price_max:
            return MALFORMED
        if "allocation" in changes and any(order.open for order in self.live_on(market)):
            return WRONG_STATE
        if not market.instrument.band and market.book.last_quantity:
            market.band_reference = market.book.last_price  # where trading is, should there be a band from now on
        market.define(instrument)
        mark = len(market.deltas)
        self.tell(market, DEFINITION, list(instrument.told))
        self.finish(market, mark)
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
        self.change_state(market, state)
        market.summary_due = True
        self.finish(market, mark)
        return NO_REASON

    def _delist(self, market: Market) -> int:
        mark = len(market.deltas)
        for order in self.live_on(market):
            if order.open:
                self.drop(market, order, DELISTED)
        market.delisted = True
        self._change_state(market, CLOSED, DELISTED)
        self.finish(market, mark)
        return NO_REASON

    def _roll(self, market: Market) -> int:
        if market.state != CLOSED:
            return WRONG_STATE
        book = market.book
        book.session.begin(book.next_trade_id)
        if book.last_quantity:
            market.band_reference = book.last_price
        mark = len(market.deltas)
        self.tell_summary(market)
        self.finish(market, mark)
        return NO_REASON

    # The kill switch

    def _kill(self, command: Kill) -> int:
        if command.instrument and self.market(command.instrument) is None:
            return UNKNOWN_INSTRUMENT
        pair = (command.account, command.instrument)
        if (pair in self.kills) == command.on:
            return NOTHING_TO_CHANGE
        if command.on:
            self.kills[pair] = True
        else:
            del self.kills[pair]
        self._heed_kills()
        if command.on:
            self.cancel_in_one(self._killable(command), KILLED)
        return NO_REASON

    def _killable(self, command: Kill) -> list[Order]:
        found = []
        for id, market in self.markets.items():
            if command.instrument in (0, id):
                found += [order for order in self.live_on(market) if command.account in (0, order.account.id)]
        found.sort(key=_by_order_id)
        return found

    def _heed_kills(self) -> None:
        for id, market in self.markets.items():
            market.killed = any(instrument in (0, id) for _, instrument in self.kills)
            market.mind()

    def is_killed(self, account: int, instrument: int) -> bool:
        """Whether the account may enter nothing there."""
        kills = self.kills
        return bool(kills) and (
            (0, 0) in kills or (account, 0) in kills or (0, instrument) in kills or (account, instrument) in kills
        )

    # Canceling many

    def cancel_in_one(self, orders: Iterable[Order], reason: int) -> None:
        """Cancel orders in one event, then let each market touched settle."""
        marks = self.begin_wide()
        self.end_wide(marks, self.cancel_each(orders, reason))

    def cancel_each(self, orders: Iterable[Order], reason: int) -> dict[int, Market]:
        """Cancel those that are still live when their turn comes; the markets touched, by instrument."""
        touched: dict[int, Market] = {}
        for order in orders:
            if order.open:
                market = self.markets[order.instrument]
                touched[order.instrument] = market
                self.drop(market, order, reason)
        return touched

    def begin_wide(self) -> dict[int, int]:
        """Where an event over several markets begins, on each channel."""
        return {channel: len(rows) for channel, rows in self._channels.items()}

    def end_wide(self, marks: dict[int, int], touched: dict[int, Market]) -> None:
        """Let the markets touched settle, in order of instrument, and end the event on each channel."""
        for id in sorted(touched):
            market = touched[id]
            if market.special:
                self.finish(market, len(market.deltas))
        for channel, rows in self._channels.items():
            if len(rows) > marks[channel]:
                for at in range(marks[channel], len(rows), DELTA_WIDTH):
                    rows[at] &= ~END
                rows[-DELTA_WIDTH] |= END

    # Trades that were not to be

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
            self._touch(order.account).reports.extend((
                kind, 0, order.client_order_id, order.order_id, instrument, order.side | flag,
                *told, open, filled, command.trade_id, NO_REASON,
            ))  # fmt: skip
        self.finish(market, mark)
        return NO_REASON


def _by_instrument(instrument: Instrument) -> int:
    return instrument.id


def _by_order_id(order: Order) -> int:
    order_id: int = order.order_id
    return order_id

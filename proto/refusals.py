"""Why a command was refused, in a sentence: what the reason means, and what the instrument would have taken.

An engine says it in `Report.detail`; whoever gets reports as columns makes the same sentence of the reason and the
instrument. No sentence is longer than DETAIL_MAX, whatever the symbols are and however many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proto import columns as c
from proto.instrument import Instrument
from proto.orders import decimal_text, notional_text, shown

DETAIL_MAX: Final = 240  # characters

_MEANS: Final = {
    c.MALFORMED: "type, time in force and conditions do not go together, or a number stands for none of them",
    c.BAD_QUANTITY: "the quantity is not a whole number of lots, at least one",
    c.BAD_PRICE: "the price is not on a tick",
    c.NOTIONAL_TOO_LARGE: "price times quantity is 2^62 ticks times lots or more",
    c.THROTTLED: "more commands a second than the session asked to be held to",
    c.BATCH_TOO_LARGE: "more commands in one batch than an engine takes",
    c.BAD_CLIENT_ORDER_ID: "a client order id is at least 1",
    c.UNKNOWN_ACCOUNT: "the venue lists its accounts, and this is none of them",
    c.UNKNOWN_INSTRUMENT: "there is no such instrument",
    c.PRICE_OUT_OF_LIMITS: "the price is outside the instrument's limits",
    c.DUPLICATE_ID: "another command of this account had this client order id",
    c.UNKNOWN_ORDER: "the account has no order of this client order id here",
    c.TOO_LATE: "the order is no longer live",
    c.NO_LIQUIDITY: "a market order needs an order on the other side",
    c.WOULD_TRADE: "a post-only order would have traded at once",
    c.NOT_FILLABLE: "a fill-or-kill order cannot be filled whole",
    c.BELOW_FILLED: "the new quantity is not above what is filled",
    c.NOTHING_TO_CHANGE: "the order is as the replace would have it",
    c.WRONG_INSTRUMENT: "the target is an order on another instrument",
    c.WRONG_STATE: "the instrument's trading state does not allow it",
    c.KILLED: "the kill switch is on",
    c.QUANTITY_ABOVE_MAX: "the quantity is above the instrument's largest",
    c.NOTIONAL_ABOVE_MAX: "price times quantity is above the instrument's largest",
    c.BAD_EXPIRY: "a GTD order expires later than now",
    c.BAD_OFFSET: "a peg's offset keeps it on its own side of its reference",
    c.BAD_LINK: "oco names no live order of the account on this instrument that is not linked yet",
    c.UNKNOWN_TRADE: "there is no such trade, or it is too old",
    c.DISPLAY_TOO_SMALL: "an iceberg shows at least a thousandth of its quantity",
    c.TOO_MANY_WAITING: "too many stops, pegs or conditional orders are live there, of the account or in all",
    c.UNAVAILABLE: "the instrument's home engine cannot be reached: not sent",
    c.OUTCOME_UNKNOWN: "the instrument's home engine did not answer: ask again under the same id",
    c.LOG_FAILED: "the engine cannot make commands durable, and takes none",
}


def explain(
    reason: int,
    instrument: Instrument | None = None,
    *,
    symbol: str = "",
    symbols: Iterable[str] = (),
    state: str = "",
) -> str:
    """What is to be said of a refusal for that reason (proto Reason); "" for a reason that refuses nothing.

    `symbol` is what was asked for if that is no instrument, `symbols` are those there are, `state` is the trading state
    that the instrument is in. Cost: O(symbols) if the instrument is unknown.
    """
    means = _MEANS.get(reason, "")
    if reason == c.UNKNOWN_INSTRUMENT:
        means = f"there is no instrument {shown(symbol)}" if symbol else means
        means += _there_are(sorted(symbols), DETAIL_MAX - len(means))
    elif instrument is not None:
        means += _takes(reason, instrument, state)
    return cut(means)


def cut(text: str) -> str:
    """A sentence, no longer than a detail may be."""
    return text if len(text) <= DETAIL_MAX else text[: DETAIL_MAX - 1] + "…"


def _takes(reason: int, instrument: Instrument, state: str) -> str:
    """What the instrument would have taken, if that is what the refusal is about."""
    symbol, tick, lot = instrument.symbol, instrument.tick_size, instrument.lot_size
    if reason in (c.BAD_PRICE, c.PRICE_OUT_OF_LIMITS):
        lowest, highest = decimal_text(instrument.price_min, tick), decimal_text(instrument.price_max, tick)
        return f": {symbol} takes {lowest} to {highest} in steps of {tick:f}"
    if reason == c.BAD_QUANTITY:
        return f": one of {symbol} is {lot:f}"
    if reason == c.QUANTITY_ABOVE_MAX:
        return f": {symbol} takes {decimal_text(instrument.quantity_max, lot)} an order at most"
    if reason == c.NOTIONAL_ABOVE_MAX:
        return f": {symbol} takes {notional_text(instrument.notional_max, tick, lot)} an order at most"
    if reason == c.WRONG_STATE and state:
        return f": {symbol} is {state}"
    return ""


def _there_are(symbols: list[str], room: int) -> str:
    """As many symbols as there is room for, and how many there are beside them."""
    if not symbols:
        return ""
    said = ": there are " if len(symbols) > 1 else ": there is "
    room -= len(said) + len(f" and {len(symbols)} more")
    told: list[str] = []
    for symbol in symbols:
        room -= len(symbol) + 2
        if room < 0 and told:
            break
        told.append(symbol)
    rest = len(symbols) - len(told)
    return said + ", ".join(told) + (f" and {rest} more" if rest else "")

"""Whether an order makes sense to the market it is for, before anyone looks at the other side."""

from __future__ import annotations

from engine.core.limits import Limits
from engine.core.market import Market
from engine.core.order import Account, Order
from engine.core.waiting import Waiting
from proto.columns import (
    ALL_OR_NONE,
    BAD_EXPIRY,
    BAD_LINK,
    BAD_OFFSET,
    BAD_QUANTITY,
    DISPLAY_TOO_SMALL,
    FLAG_SELL,
    MALFORMED,
    NO_REASON,
    NOTIONAL_ABOVE_MAX,
    PRICE_OUT_OF_LIMITS,
    QUANTITY_ABOVE_MAX,
    TIF_FOK,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TOO_MANY_WAITING,
    TYPE_ICEBERG,
    TYPE_MARKET,
    TYPE_MASK,
    TYPE_PEG_BID,
    TYPE_PEG_OFFER,
    WRONG_STATE,
    Terms,
    is_peg,
    is_priced,
    is_stop,
    malformed,
)


def refusal(
    market: Market, account: Account, flags: int, price: int, quantity: int, terms: Terms, time_ns: int, limits: Limits
) -> int:
    """Why such a new order may not enter, whatever the other side, or NO_REASON."""
    if malformed(flags, terms):
        return MALFORMED
    kind = flags & TYPE_MASK
    force = flags & TIF_MASK
    if market.gathering:
        if kind == TYPE_MARKET or force in (TIF_IOC, TIF_FOK):
            return WRONG_STATE
    elif not market.open:
        return WRONG_STATE
    if is_priced(flags) and not market.price_min <= price <= market.price_max:
        return PRICE_OUT_OF_LIMITS
    if is_stop(flags) and not market.price_min <= terms.stop_price <= market.price_max:
        return PRICE_OUT_OF_LIMITS
    if terms.minimum > quantity or (kind == TYPE_ICEBERG and not 0 < terms.display < quantity):
        return BAD_QUANTITY
    if kind == TYPE_ICEBERG and terms.display * limits.slices < quantity:
        return DISPLAY_TOO_SMALL
    reason = too_large(market, flags, price, quantity)
    if reason:
        return reason
    if force == TIF_GTD and terms.expires_ns <= time_ns:
        return BAD_EXPIRY
    if is_peg(flags) and not sound_offset(flags, terms.offset):
        return BAD_OFFSET
    if terms.oco and linkable(account, terms.oco, market.instrument.id) is None:
        return BAD_LINK
    waiting = kind_of_waiting(market, flags, terms)
    if waiting is not None and (len(waiting) >= limits.waiting or waiting.of_account.get(account.id, 0) >= limits.own):
        return TOO_MANY_WAITING
    return NO_REASON


def kind_of_waiting(market: Market, flags: int, terms: Terms) -> Waiting | None:
    """What such an order may wait among, beside the book."""
    if is_stop(flags):
        return market.stops
    if is_peg(flags):
        return market.pegs
    if (flags & ALL_OR_NONE or terms.minimum) and flags & TIF_MASK not in (TIF_IOC, TIF_FOK):
        return market.conditionals
    return None


def too_large(market: Market, flags: int, price: int, quantity: int) -> int:
    """Why so large an order may not be on this instrument, or NO_REASON."""
    instrument = market.instrument
    if instrument.quantity_max and quantity > instrument.quantity_max:
        return QUANTITY_ABOVE_MAX
    if instrument.notional_max and is_priced(flags) and abs(price) * quantity > instrument.notional_max:
        return NOTIONAL_ABOVE_MAX
    return NO_REASON


def sound_offset(flags: int, offset: int) -> bool:
    """Whether a peg stays on its own side of its reference."""
    kind = flags & TYPE_MASK
    if flags & FLAG_SELL:
        return offset > 0 if kind == TYPE_PEG_BID else offset >= 0
    return offset < 0 if kind == TYPE_PEG_OFFER else offset <= 0


def linkable(account: Account, client_order_id: int, instrument: int) -> Order | None:
    """The live order of that id, if a new one may be linked to it."""
    known = account.commands.get(client_order_id)
    if not isinstance(known, Order) or known.client_order_id != client_order_id:
        return None
    if not known.open or known.instrument != instrument:
        return None
    more = known.more
    return known if more is None or more.partner is None else None

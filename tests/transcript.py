"""Commands and outcomes as lines of text, so that a test reads as what people say on a trading floor.

    ann buy 1 5@101                   ann enters order 1: five lots at 101
    bob sell 2 5@market ioc           market; gtc (if nothing is said), day, ioc, fok; post
    bob sell 2 5@101 on BETA          ALFA if nothing is said
    bob sell 2 5@101 stp none         self-trade prevention: newest if nothing is said
    bob sell 2 5@101 session 7
    ann cancel 3 of 1                 command 3 is about order 1
    ann replace 4 of 1 to 3@101       in total; `to open 3@101` what shall remain, `by 2@101` so much less; requeue
    ann mass-cancel 5                 everywhere; `mass-cancel 5 on BETA` there only
    ann disconnects 7                 session 7 ends
    book                              what rests, best first: quantity@price#order id

What comes of it: a line for each report, to whom it goes first, then a line for each instrument's deltas, with a full
stop where an event ends.
"""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Final

from engine import types
from engine.types import (
    FLAG_SELL,
    MAKER,
    PRIORITY_KEPT,
    REPEAT,
    Batch,
    DeltaRow,
    Outcome,
    ReportRow,
    delta_rows,
    report_rows,
)
from engine.venue import Venue
from proto import feed
from proto.cluster import Instrument

ENGINE: Final = 1
INSTRUMENTS: Final = (
    Instrument(1, "ALFA", ENGINE, 1, Decimal("0.01"), Decimal(1), 1, 1000),
    Instrument(2, "BETA", ENGINE, 1, Decimal("0.01"), Decimal(1), -50, 50),
)
ACCOUNTS: Final = {"ann": 1, "bob": 2, "cat": 3}
_NAMES: Final = {id: name for name, id in ACCOUNTS.items()}
_SYMBOLS: Final = {instrument.id: instrument.symbol for instrument in INSTRUMENTS}
_IDS: Final = {instrument.symbol: instrument.id for instrument in INSTRUMENTS} | {"NOWHERE": 9}
_FORCES: Final = {"gtc": types.TIF_GTC, "day": types.TIF_DAY, "ioc": types.TIF_IOC, "fok": types.TIF_FOK}
_STP: Final = {"newest": types.STP_CANCEL_NEWEST, "none": types.STP_NONE}
_COUNTER: Final = (1 << types.ENGINE_SHIFT) - 1
_REASONS: Final = {
    types.BAD_QUANTITY: "bad quantity",
    types.NOTIONAL_TOO_LARGE: "notional too large",
    types.UNKNOWN_INSTRUMENT: "unknown instrument",
    types.PRICE_OUT_OF_LIMITS: "price out of limits",
    types.DUPLICATE_ID: "duplicate id",
    types.UNKNOWN_ORDER: "unknown order",
    types.TOO_LATE: "too late",
    types.NO_LIQUIDITY: "no liquidity",
    types.WOULD_TRADE: "would trade",
    types.NOT_FILLABLE: "not fillable",
    types.BELOW_FILLED: "at or below what is filled",
    types.NOTHING_TO_CHANGE: "nothing to change",
    types.WRONG_INSTRUMENT: "wrong instrument",
    types.IOC_REMAINDER: "IOC remainder",
    types.MARKET_REMAINDER: "market remainder",
    types.SELF_TRADE: "self-trade",
    types.MASS_CANCEL_REASON: "mass cancel",
    types.DISCONNECTED: "disconnected",
}
_OPS: Final = {feed.ADD: "add", feed.MODIFY: "modify", feed.DELETE: "delete", feed.EXECUTE: "execute"}


class Floor:
    """A venue that is spoken to in lines."""

    def __init__(self, retained: int = 1000, price_max: int = 1000) -> None:
        alfa, beta = INSTRUMENTS
        self.venue = Venue(ENGINE, [replace(alfa, price_max=price_max), beta], retained=retained)
        self._position = 0

    def say(self, *lines: str) -> list[str]:
        """What comes of the last of these lines; the book is walked after each. Raises: ValueError for no command."""
        heard: list[str] = []
        for line in lines:
            heard = list(self._book()) if line == "book" else list(self._told(self._apply(line.split())))
            self.venue.check()
        return heard

    def _apply(self, words: list[str]) -> Outcome:
        self._position += 1
        account = ACCOUNTS[words[0]]
        if words[1] == "disconnects":
            return self.venue.disconnect(self._position, self._position, account, int(words[2]))
        return self.venue.apply(self._position, self._position, [_batch(account, words[1], words[2:])])

    def _told(self, outcome: Outcome) -> Iterator[str]:
        for reports in outcome.reports:
            for row in report_rows(reports.rows):
                yield f"{_NAMES[reports.account]}: {_report(row)}"
        for channel in outcome.deltas:
            yield "feed: " + _deltas([*delta_rows(channel.rows)])

    def _book(self) -> Iterator[str]:
        for id, book in self.venue.books.items():
            for side, name in ((0, "bids"), (1, "asks")):
                orders = [f"{order.open}@{order.price}#{order.order_id & _COUNTER}" for order in book.orders(side)]
                if orders:
                    yield f"{_SYMBOLS[id]} {name}: {' '.join(orders)}"


def _batch(account: int, verb: str, words: list[str]) -> Batch:
    own = int(words.pop(0))
    option = dict(zip(words, [*words[1:], ""], strict=False))
    instrument = _IDS[option.get("on", "ALFA")]
    flags = price = quantity = target = 0
    if verb in ("buy", "sell"):
        op = types.NEW
        flags = FLAG_SELL if verb == "sell" else 0
        size, limit = words[0].split("@")
        quantity = int(size)
        if limit == "market":
            flags |= types.TYPE_MARKET
        else:
            price = int(limit)
        flags |= sum(force for name, force in _FORCES.items() if name in option)
        flags |= types.POST_ONLY if "post" in option else 0
    elif verb == "cancel":
        op = types.CANCEL
        target = int(option["of"])
    elif verb == "replace":
        op = types.REPLACE
        target = int(option["of"])
        flags, terms = (
            (types.MEANING_REDUCE_BY, option["by"]) if "by" in option
            else (types.MEANING_OPEN, option["open"]) if "open" in option
            else (types.MEANING_TOTAL, option["to"])
        )  # fmt: skip
        flags |= types.REQUEUE if "requeue" in option else 0
        quantity, price = map(int, terms.split("@"))
    elif verb == "mass-cancel":
        op = types.MASS_CANCEL
        instrument = instrument if "on" in option else 0
    else:
        raise ValueError(f"nobody says {verb!r}")
    session, stp = int(option.get("session", 0)), _STP[option.get("stp", "newest")]
    return Batch(account, session, stp, [op], [own], [instrument], [flags], [price], [quantity], [target])


def _report(row: ReportRow) -> str:
    again = "again: " if row.flags & REPEAT else ""
    return again + _report_once(row)


def _report_once(row: ReportRow) -> str:
    side = "sell" if row.flags & FLAG_SELL else "buy"
    order = f"{row.client_order_id} {side} {row.quantity}@{row.price} on {_SYMBOLS.get(row.instrument, 'nowhere')}"
    left = f"open {row.open}, filled {row.filled}"
    by = f" by {row.command}" if row.command not in (0, row.client_order_id) else ""
    reason = f", {_REASONS[row.reason]}" if row.reason else ""
    if row.kind == types.ACCEPTED:
        return f"accepted {order}, {left}"
    if row.kind == types.TRADED:
        role = "maker" if row.flags & MAKER else "taker"
        return f"traded{by} {order} as {role}, trade {row.trade_id}, {left}"
    if row.kind == types.CANCELED:
        return f"canceled{by} {order}, {left}{reason}"
    if row.kind == types.REPLACED:
        return f"replaced{by} {order}, {left}, {'kept its place' if row.flags & PRIORITY_KEPT else 'to the back'}"
    if row.kind == types.MASS_CANCELED:
        return f"mass-canceled by {row.command}: {row.quantity}"
    return f"refused {row.command}{reason}"


def _deltas(rows: list[DeltaRow]) -> str:
    text = ""
    for row in rows:
        side = "sell" if row.op & feed.SELL else "buy"
        code = row.op & feed.OP_MASK
        text += f"{_OPS[code]} {_SYMBOLS[row.instrument]} {side} #{row.order_id & _COUNTER}"
        if code == feed.MODIFY:
            text += f" to {row.quantity}"
        elif code != feed.DELETE:
            text += f" {row.quantity}@{row.price}"
        if code == feed.EXECUTE:
            text += f" trade {row.trade_id}"
        text += ". " if row.op & feed.END else "; "
    return text.strip()

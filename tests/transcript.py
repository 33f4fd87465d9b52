"""Commands and outcomes as lines of text, so that a test reads as what people say on a trading floor.

    ann buy 1 5@101                   ann enters order 1: five lots at 101
    bob sell 2 5@market ioc           market; gtc (if nothing is said), day, ioc, fok; post
    bob sell 2 5@101 on BETA          ALFA if nothing is said
    bob sell 2 5@101 stp none         self-trade prevention: newest if nothing is said; none, oldest, both, decrement
    bob sell 2 5@101 session 7
    bob sell 2 5@101 until 50         GTD
    bob sell 2 5@101 show 2           an iceberg
    bob sell 2 5@101 min 3            at least three at once; `aon`: all or none
    bob sell 2 5@market stop 98       a stop, or, with a price, a stop-limit
    bob sell 2 5@offer+1 cap 99       pegged to the bid, the offer or the mid; the cap is its worst price
    bob sell 2 5@101 oco 1            one cancels the other
    ann cancel 3 of 1                 command 3 is about order 1
    ann replace 4 of 1 to 3@101       in total; `to open 3@101` what shall remain, `by 2@101` so much less; requeue
    ann mass-cancel 5                 everywhere; `mass-cancel 5 on BETA` there only
    ann disconnects 7                 session 7 ends
    clock 50                          it is 50 now
    desk state ALFA auction           the operator: pre-open, open, halted, auction, closed
    desk kill ann on ALFA             `desk kill ann`, `desk kill on ALFA`, `desk kill`; `desk lift …` ends it
    desk bust ALFA 3                  trade 3; `desk correct ALFA 3 to 2@101`
    desk roll ALFA                    also `desk delist ALFA`, `desk add NOVA`
    book                              what a reader of the feed sees, best first: quantity@price#public id

What comes of it: a line for each report, to whom it goes first, then a line for each instrument's deltas, with a full
stop where an event ends.
"""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Final

from bus.stream.mirror import Mirror
from engine.core.commands import AddInstrument, BustTrade, CorrectTrade, Delist, Kill, OperatorCommand, Roll, SetState
from engine.core.limits import LIMITS, Limits
from engine.core.venue import Venue
from proto import columns as types
from proto import feed
from proto.columns import (
    AUCTION_TRADE,
    FLAG_SELL,
    MAKER,
    PRIORITY_KEPT,
    REPEAT,
    Batch,
    ChannelDeltas,
    DeltaRow,
    Outcome,
    ReportRow,
    Terms,
    delta_rows,
    report_rows,
)
from proto.instrument import PRO_RATA, STATES, Instrument

ENGINE: Final = 1
_CENT, _ONE = Decimal("0.01"), Decimal(1)
INSTRUMENTS: Final = (
    Instrument(1, "ALFA", ENGINE, 1, _CENT, _ONE, 1, 1000),
    Instrument(2, "BETA", ENGINE, 1, _CENT, _ONE, -50, 50),
    Instrument(3, "COLLAR", ENGINE, 1, _CENT, _ONE, 1, 1000, collar=5),
    Instrument(4, "BAND", ENGINE, 1, _CENT, _ONE, 1, 1000, band=5, auction_reference=100),
    Instrument(5, "RATA", ENGINE, 1, _CENT, _ONE, 1, 1000, allocation=PRO_RATA),
    Instrument(6, "FIRST", ENGINE, 1, _CENT, _ONE, 1, 1000, auction_reference=100, state="pre-open"),
    Instrument(7, "SMALL", ENGINE, 1, _CENT, _ONE, 1, 1000, quantity_max=10, notional_max=500),
)
ADDED: Final = Instrument(8, "NOVA", ENGINE, 1, _CENT, _ONE, 1, 1000)
ACCOUNTS: Final = {"ann": 1, "bob": 2, "cat": 3}
_NAMES: Final = {id: name for name, id in ACCOUNTS.items()}
_SYMBOLS: Final = {instrument.id: instrument.symbol for instrument in (*INSTRUMENTS, ADDED)}
_IDS: Final = {symbol: id for id, symbol in _SYMBOLS.items()} | {"NOWHERE": 9}
_FORCES: Final = {
    "gtc": types.TIF_GTC, "day": types.TIF_DAY, "until": types.TIF_GTD, "ioc": types.TIF_IOC, "fok": types.TIF_FOK
}  # fmt: skip
_PEGS: Final = {"bid": types.TYPE_PEG_BID, "offer": types.TYPE_PEG_OFFER, "mid": types.TYPE_PEG_MID}
_STP: Final = {
    "newest": types.STP_CANCEL_NEWEST, "none": types.STP_NONE, "oldest": types.STP_CANCEL_OLDEST,
    "both": types.STP_CANCEL_BOTH, "decrement": types.STP_DECREMENT,
}  # fmt: skip
_COUNTER: Final = (1 << types.ENGINE_SHIFT) - 1
_REASONS: Final = {
    types.MALFORMED: "malformed",
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
    types.WRONG_STATE: "wrong state",
    types.KILLED: "killed",
    types.QUANTITY_ABOVE_MAX: "quantity above the instrument's",
    types.NOTIONAL_ABOVE_MAX: "notional above the instrument's",
    types.BAD_EXPIRY: "bad expiry",
    types.BAD_OFFSET: "bad offset",
    types.BAD_LINK: "bad link",
    types.UNKNOWN_TRADE: "unknown trade",
    types.EXPIRED: "expired",
    types.COLLAR: "collar",
    types.OCO: "one cancels the other",
    types.HALTED_REASON: "halted",
    types.DELISTED: "delisted",
    types.BAND: "band",
    types.DISPLAY_TOO_SMALL: "display too small",
    types.TOO_MANY_TRADES: "too many trades",
    types.TOO_MANY_WAITING: "too many waiting",
}
_OPS: Final = {
    feed.ADD: "add", feed.MODIFY: "modify", feed.DELETE: "delete", feed.EXECUTE: "execute", feed.TRADE: "trade"
}  # fmt: skip


class Floor:
    """A venue that is spoken to in lines."""

    def __init__(self, retained: int = 1000, price_max: int = 1000, limits: Limits = LIMITS) -> None:
        alfa, *others = INSTRUMENTS
        self.venue = Venue(ENGINE, [replace(alfa, price_max=price_max), *others], retained=retained, limits=limits)
        self._reader = Mirror()
        self._position = 0
        self._time = 1

    def say(self, *lines: str) -> list[str]:
        """What comes of the last of these lines; the book is walked after each. Raises: ValueError for no command."""
        heard: list[str] = []
        for line in lines:
            heard = list(self._book()) if line == "book" else list(self._told(self._apply(line.split())))
            self.venue.check()
        return heard

    def _apply(self, words: list[str]) -> Outcome:
        self._position += 1
        if words[0] == "clock":
            self._time = int(words[1])
            return self.venue.tick(self._position, self._time)
        if words[0] == "desk":
            return self.venue.operate(self._position, self._time, _operator(words[1], words[2:]))
        account = ACCOUNTS[words[0]]
        if words[1] == "disconnects":
            return self.venue.disconnect(self._position, self._time, account, int(words[2]))
        return self.venue.apply(self._position, self._time, [_batch(account, words[1], words[2:])])

    def _told(self, outcome: Outcome) -> Iterator[str]:
        if outcome.refused:
            yield f"desk: refused, {_REASONS[outcome.refused]}"
        for reports in outcome.reports:
            for row in report_rows(reports.rows):
                yield f"{_NAMES[reports.account]}: {_report(row)}"
        for channel in outcome.deltas:
            self._read(channel)
            yield "feed: " + _deltas([*delta_rows(channel.rows)], channel.extras)

    def _read(self, channel: ChannelDeltas) -> None:
        carried = {
            feed.DEFINITION: feed.Definition, feed.STATUS: feed.Status, feed.STATISTICS: feed.Statistics,
            feed.INDICATION: feed.Indication,
        }  # fmt: skip
        extras = [feed.Status(0, 0)] * len(channel.extras)
        for row in delta_rows(channel.rows):
            if row.op & feed.OP_MASK in carried:
                made = carried[row.op & feed.OP_MASK]
                extras[row.order_id] = made(*channel.extras[row.order_id][: len(made._fields)])  # type: ignore[attr-defined]
        self._reader.apply([tuple(row) for row in delta_rows(channel.rows)], extras)  # type: ignore[misc]

    def _book(self) -> Iterator[str]:
        for id, book in sorted(self._reader.books.items()):
            for side, name in ((0, "bids"), (1, "asks")):
                orders = [f"{quantity}@{price}#{order & _COUNTER}" for order, price, quantity in book.orders(side)]
                if orders:
                    yield f"{_SYMBOLS[id]} {name}: {' '.join(orders)}"


def _operator(verb: str, words: list[str]) -> OperatorCommand:
    if verb in ("kill", "lift"):
        account = ACCOUNTS[words[0]] if words and words[0] != "on" else 0
        return Kill(account, _IDS[words[-1]] if "on" in words else 0, verb == "kill")
    instrument = _IDS[words[0]]
    if verb == "state":
        return SetState(instrument, STATES.index(words[1]) + 1)
    if verb == "bust":
        return BustTrade(instrument, int(words[1]))
    if verb == "correct":
        quantity, price = map(int, words[3].split("@"))
        return CorrectTrade(instrument, int(words[1]), price, quantity)
    if verb == "add":
        return AddInstrument.of(ADDED if words[0] == "NOVA" else INSTRUMENTS[0])  # type: ignore[no-any-return]
    if verb == "delist":
        return Delist(instrument)
    if verb == "roll":
        return Roll(instrument)
    raise ValueError(f"no operator says {verb!r}")


def _batch(account: int, verb: str, words: list[str]) -> Batch:
    own = int(words.pop(0))
    option = dict(zip(words, [*words[1:], ""], strict=False))
    instrument = _IDS[option.get("on", "ALFA")]
    flags = price = quantity = target = 0
    terms = Terms(stop_price=int(option.get("stop", 0)))
    if verb in ("buy", "sell"):
        op = types.NEW
        flags = FLAG_SELL if verb == "sell" else 0
        size, limit = words[0].split("@")
        quantity = int(size)
        kind, price, offset = _kind(limit, option)
        flags |= kind
        flags |= sum(force for name, force in _FORCES.items() if name in option)
        flags |= types.POST_ONLY if "post" in option else 0
        flags |= types.ALL_OR_NONE if "aon" in option else 0
        terms = _terms(option)._replace(offset=offset)
    elif verb == "cancel":
        op = types.CANCEL
        target = int(option["of"])
    elif verb == "replace":
        op = types.REPLACE
        target = int(option["of"])
        flags, size_price = (
            (types.MEANING_REDUCE_BY, option["by"]) if "by" in option
            else (types.MEANING_OPEN, option["open"]) if "open" in option
            else (types.MEANING_TOTAL, option["to"])
        )  # fmt: skip
        flags |= types.REQUEUE if "requeue" in option else 0
        quantity, price = map(int, size_price.split("@"))
    elif verb == "mass-cancel":
        op = types.MASS_CANCEL
        instrument = instrument if "on" in option else 0
    else:
        raise ValueError(f"nobody says {verb!r}")
    session, stp = int(option.get("session", 0)), _STP[option.get("stp", "newest")]
    said = None if terms == Terms() else [terms]
    return Batch(account, session, stp, [op], [own], [instrument], [flags], [price], [quantity], [target], said)


def _kind(limit: str, option: dict[str, str]) -> tuple[int, int, int]:
    """Type, price and offset of an order at `limit`."""
    for name, peg in _PEGS.items():
        if limit.startswith(name):
            capped = types.CAPPED if "cap" in option else 0
            return peg | capped, int(option.get("cap", 0)), int(limit.removeprefix(name) or 0)
    if limit == "market":
        return types.TYPE_STOP if "stop" in option else types.TYPE_MARKET, 0, 0
    kind = types.TYPE_STOP_LIMIT if "stop" in option else types.TYPE_ICEBERG if "show" in option else types.TYPE_LIMIT
    return kind, int(limit), 0


def _terms(option: dict[str, str]) -> Terms:
    return Terms(
        stop_price=int(option.get("stop", 0)),
        display=int(option.get("show", 0)),
        minimum=int(option.get("min", 0)),
        expires_ns=int(option.get("until", 0)),
        oco=int(option.get("oco", 0)),
    )


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
        role = "auction" if row.flags & AUCTION_TRADE else "maker" if row.flags & MAKER else "taker"
        return f"traded{by} {order} as {role}, trade {row.trade_id}, {left}"
    if row.kind == types.CANCELED:
        return f"canceled{by} {order}, {left}{reason}"
    if row.kind == types.REPLACED:
        return f"replaced{by} {order}, {left}, {'kept its place' if row.flags & PRIORITY_KEPT else 'to the back'}"
    if row.kind == types.TRIGGERED:
        return f"triggered{by} {order}, {left}"
    if row.kind == types.RESTATED:
        return f"restated{by} {order}, {left}{reason}"
    if row.kind in (types.BUSTED, types.CORRECTED):
        return f"{'busted' if row.kind == types.BUSTED else 'corrected'} {order}, trade {row.trade_id}, {left}"
    if row.kind == types.MASS_CANCELED:
        return f"mass-canceled by {row.command}: {row.quantity}"
    return f"refused {row.command}{reason}"


def _deltas(rows: list[DeltaRow], extras: list[list[int | str]]) -> str:
    text = ""
    for row in rows:
        code = row.op & feed.OP_MASK
        told = _told(row, extras[row.order_id]) if code in feed.TOLD else _delta(row, code)
        text += told + (". " if row.op & feed.END else "; ")
    return text.strip()


def _delta(row: DeltaRow, code: int) -> str:
    symbol, side = _SYMBOLS[row.instrument], "sell" if row.op & feed.SELL else "buy"
    if code == feed.BUST:
        return f"bust {symbol} trade {row.trade_id}"
    if code == feed.CORRECTION:
        return f"correction {symbol} trade {row.trade_id} to {row.quantity}@{row.price}"
    text = f"{_OPS[code]} {symbol} {side}"
    if code != feed.TRADE:
        text += f" #{row.order_id & _COUNTER}"
    if code == feed.MODIFY:
        text += f" to {row.quantity}"
    elif code != feed.DELETE:
        text += f" {row.quantity}@{row.price}"
    if code in (feed.EXECUTE, feed.TRADE):
        text += f" trade {row.trade_id}"
    return text


def _told(row: DeltaRow, extra: list[int | str]) -> str:
    symbol, code = _SYMBOLS[row.instrument], row.op & feed.OP_MASK
    if code == feed.STATUS:
        because = f" ({_REASONS[int(extra[1])]})" if extra[1] else ""
        return f"status {symbol} {STATES[int(extra[0]) - 1]}{because}"
    if code == feed.INDICATION:
        price, volume, imbalance = extra
        return f"indication {symbol} {volume}@{price}, imbalance {imbalance}"
    if code == feed.STATISTICS:
        first, high, low, last, volume, turnover, trades = extra
        return (
            f"statistics {symbol} open {first} high {high} low {low} last {last} volume {volume} turnover {turnover} "
            f"trades {trades}"
        )
    return f"definition {symbol}"

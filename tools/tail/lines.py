"""What a reader of the feed goes through, as objects to print one a line: deltas, gaps, repairs, changes of state.

Prices and quantities are decimal text. Every object has an `event`; those about one book a `symbol`.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

from bus.stream.actions import (
    Action,
    Alarm,
    Applied,
    Doubted,
    GapOpened,
    GapRepaired,
    MissingSpan,
    Standing,
    StateChanged,
    Trusted,
)
from bus.stream.conflation import Quoted
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import BUY_SIDE, SELL_SIDE, MirrorBook
from proto import feed
from proto.feed import (
    ADD,
    BUST,
    CANCEL,
    CLEAR,
    CORRECTION,
    DEFINITION,
    DELETE,
    END,
    EXECUTE,
    INDICATION,
    MODIFY,
    OP_MASK,
    SELL,
    STATISTICS,
    STATUS,
    TOLD,
    TRADE,
    Definition,
    Extra,
    FeedError,
    Indication,
    Row,
    Statistics,
    Status,
)

Line = dict[str, Any]

OPS: Final = {
    ADD: "add",
    CANCEL: "cancel",
    MODIFY: "modify",
    DELETE: "delete",
    EXECUTE: "execute",
    TRADE: "trade",
    CLEAR: "clear",
    DEFINITION: "definition",
    STATUS: "status",
    STATISTICS: "statistics",
    INDICATION: "indication",
    BUST: "bust",
    CORRECTION: "correction",
}
FLAGS: Final = {
    feed.END_OF_EVENT: "end of event",
    feed.HEARTBEAT: "heartbeat",
    feed.END_OF_STREAM: "end of stream",
    feed.FRESH: "fresh",
    feed.DIGEST: "digest",
}
BAD_SHOWN: Final = 64  # bytes of a frame that cannot be read
_WITH_PRICE: Final = (ADD, EXECUTE, TRADE, CORRECTION)
_WITH_QUANTITY: Final = (ADD, CANCEL, MODIFY, EXECUTE, TRADE, CORRECTION)
_WITH_ORDER: Final = (ADD, CANCEL, MODIFY, DELETE, EXECUTE)
_WITH_TRADE: Final = (EXECUTE, TRADE, BUST, CORRECTION)


def lines_of(client: FeedClient, action: Action, wanted: Callable[[int], bool]) -> Iterator[Line]:
    """The lines of one action of `client`; deltas of those instruments only that are `wanted`."""
    stream = {"engine": client.engine, "channel": client.channel}
    if isinstance(action, Applied):
        yield from _deltas(client, action, wanted)
    elif isinstance(action, StateChanged):
        yield {"event": "state", **stream, "from": action.before.value, "to": action.after.value, "why": action.reason}
    elif isinstance(action, GapOpened):
        gap = action.gap
        doubtful = [
            symbol_of(book) for i, book in client.mirror.books.items() if client.standing(i) is not Standing.VALID
        ]
        yield {
            "event": "gap", **stream, "epoch": gap.epoch, "first": gap.first, "last": gap.last, "cause": gap.cause,
            "not_valid": doubtful,
        }  # fmt: skip
    elif isinstance(action, GapRepaired):
        gap = action.gap
        yield {
            "event": "repaired", **stream, "epoch": gap.epoch, "first": gap.first, "last": gap.last, "how": gap.how,
            "took_ms": round(gap.took_ns / 1e6, 3),
        } | ({"source": gap.source} if gap.source else {})  # fmt: skip
    elif isinstance(action, MissingSpan):
        yield {"event": "covered", **stream, "epoch": action.epoch, "first": action.first, "last": action.last}
    elif isinstance(action, Doubted | Trusted):
        event = "doubted" if isinstance(action, Doubted) else "trusted"
        book = client.mirror.books.get(action.instrument)
        symbol = symbol_of(book) if book else str(action.instrument)
        why = {"why": action.reason} if isinstance(action, Doubted) else {}
        yield {"event": event, "symbol": symbol, **stream, **why}
    elif isinstance(action, Alarm):
        yield {"event": "alarm", **stream, "what": action.text}


def symbol_of(book: MirrorBook) -> str:
    """Its symbol, or the instrument's number while its definition is not known."""
    return book.definition.symbol if book.definition else str(book.instrument)


def sizes_of(book: MirrorBook | None) -> tuple[Decimal, Decimal]:
    """Tick and lot size; 1 and 1, that is whole ticks and lots, while they are not known."""
    if book is None or book.definition is None:
        return Decimal(1), Decimal(1)
    return Decimal(book.definition.tick_size), Decimal(book.definition.lot_size)


def book_line(client: FeedClient, instrument: int) -> Line:
    """A whole book, by order in queue order, as it stands: what deltas can be applied to."""
    book = client.mirror.books[instrument]
    tick, lot = sizes_of(book)
    epoch, sequence = client.position
    return {
        "event": "book",
        "symbol": symbol_of(book),
        "engine": client.engine,
        "channel": client.channel,
        "epoch": epoch,
        "sequence": sequence,
        "instrument_sequence": book.sequence,
        "state": client.standing(instrument).name.lower(),
        "trading_state": feed.STATE_NAMES[book.state],
        "bids": _orders(book, BUY_SIDE, tick, lot),
        "asks": _orders(book, SELL_SIDE, tick, lot),
    }


def _orders(book: MirrorBook, side: int, tick: Decimal, lot: Decimal) -> list[Line]:
    return [
        {"order_id": order_id, "price": f"{price * tick:f}", "quantity": f"{quantity * lot:f}"}
        for order_id, price, quantity in book.orders(side)
    ]


def _deltas(client: FeedClient, applied: Applied, wanted: Callable[[int], bool]) -> Iterator[Line]:
    times = dict(applied.times)
    time_ns = 0
    for i, row in enumerate(applied.rows):
        time_ns = times.get(i, time_ns)
        if wanted(row[1]):
            book = client.mirror.books.get(row[1])
            yield _delta(applied, applied.first + i, row, time_ns, book)


def _delta(applied: Applied, sequence: int, row: Row, time_ns: int, book: MirrorBook | None) -> Line:
    op, instrument, order_id, price, quantity, trade_id = row
    code = op & OP_MASK
    tick, lot = sizes_of(book)
    line: Line = {
        "event": OPS[code],
        "symbol": symbol_of(book) if book else str(instrument),
        "epoch": applied.epoch,
        "seq": sequence,
        "time_ns": time_ns,
    }
    if code <= TRADE:
        line["side"] = "sell" if op & SELL else "buy"
    if code in _WITH_ORDER:
        line["order_id"] = order_id
    if code in _WITH_PRICE:
        line["price"] = f"{price * tick:f}"
    if code in _WITH_QUANTITY:
        line["quantity"] = f"{quantity * lot:f}"
    if code in _WITH_TRADE:
        line["trade_id"] = trade_id
    if code in TOLD:
        line |= _extra(applied.extras[order_id])
    if op & END:
        line["end"] = True
    return line


def _extra(extra: Extra) -> Line:
    if isinstance(extra, Definition):
        return dict(extra._asdict())
    if isinstance(extra, Status):
        return {"state": feed.STATE_NAMES[extra.state], "reason": extra.reason}
    assert isinstance(extra, Statistics | Indication)
    return dict(extra._asdict())


def quote_line(client: FeedClient, quoted: Quoted) -> Line:
    """How a book stood when its quote was sent: best bid, best offer, last trade; null where there is none."""
    quote = quoted.quote
    book = client.mirror.books.get(quote.instrument)
    tick, lot = sizes_of(book)

    def side(price: int, quantity: int, orders: int) -> Line | None:
        if not orders:
            return None
        return {"price": f"{price * tick:f}", "quantity": f"{quantity * lot:f}", "orders": orders}

    return {
        "event": "quote",
        "symbol": symbol_of(book) if book else str(quote.instrument),
        "engine": client.engine,
        "channel": client.channel,
        "epoch": quoted.epoch,
        "sequence": quoted.sequence,
        "time_ns": quote.time_ns,
        "state": "conflated",
        "trading_state": feed.STATE_NAMES[quote.state],
        "bid": side(quote.bid_price, quote.bid_quantity, quote.bid_count),
        "ask": side(quote.ask_price, quote.ask_quantity, quote.ask_count),
        "last": {"price": f"{quote.last_price * tick:f}", "quantity": f"{quote.last_quantity * lot:f}"}
        if quote.last_trade_id
        else None,
    }


def frame_line(frame: bytes, time_ns: int) -> Line:
    """A frame as it came, field by field: its header, then what its body says. One that is none says why."""
    line: Line = {"event": "frame", "received_ns": time_ns, "bytes": len(frame)}
    try:
        decoded = feed.decode(frame)
    except FeedError as e:
        return line | {"bad": str(e), "hex": frame[:BAD_SHOWN].hex()}
    header = decoded.header
    line |= {
        "topic": frame[: feed.TOPIC_SIZE].decode(),
        "kind": chr(header.kind),
        "flags": [name for bit, name in FLAGS.items() if header.flags & bit],
        "engine": header.engine,
        "channel": header.channel,
        "count": header.count,
        "codec": header.codec,
        "incarnation": header.incarnation,
        "epoch": header.epoch,
        "first_seq": header.first_seq,
        "sent_ns": header.sent_ns,
        "follows": header.follows,
    }
    if decoded.rows:
        line |= {
            "instruments": [list(each) for each in decoded.instruments],
            "times": [list(each) for each in decoded.times],
            "deltas": [_raw_delta(row) for row in decoded.rows],
            "extras": [dict(extra._asdict()) for extra in decoded.extras],
        }
    if decoded.digests:
        line["digests"] = [dict(digest._asdict()) for digest in decoded.digests]
    return line


def _raw_delta(row: Row) -> Line:
    op, instrument, order_id, price, quantity, trade_id = row
    return {
        "op": OPS[op & OP_MASK], "sell": bool(op & SELL), "end": bool(op & END), "instrument": instrument,
        "order_id": order_id, "price": price, "quantity": quantity, "trade_id": trade_id,
    }  # fmt: skip


def stats_line(client: FeedClient, time_ns: int) -> Line:
    """Where a stream stands, and all that its reader counted."""
    epoch, sequence = client.position
    return {
        "event": "stats",
        "time_ns": time_ns,
        "engine": client.engine,
        "channel": client.channel,
        "state": client.state.value,
        "epoch": epoch,
        "sequence": sequence,
        "books": len(client.mirror.books),
        "open_gaps": len(client.ledger.open),
        **client.counters.as_dict(),
    }

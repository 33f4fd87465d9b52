"""What a reader of the feed goes through, as objects to print one a line: deltas, gaps, repairs, changes of state.

Prices and quantities are decimal text. Every object has an `event`; those about one book a `symbol`.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, assert_never

from bus.reader.events import (
    Book,
    BookEvent,
    BookState,
    Comparison,
    Delta,
    Doubted,
    Event,
    GapOpened,
    GapRepaired,
    MissingSpan,
    Quote,
    QuotesState,
    Stream,
    StreamState,
    Trade,
    Trouble,
    Trusted,
)
from proto import feed
from proto.feed import OP_MASK, OPS, SELL, Extra, FeedError, Row, Status

JsonLine = dict[str, Any]

FLAGS: Final = {
    feed.END_OF_EVENT: "end of event",
    feed.HEARTBEAT: "heartbeat",
    feed.END_OF_STREAM: "end of stream",
    feed.FRESH: "fresh",
    feed.DIGEST: "digest",
}
BAD_SHOWN: Final = 64  # bytes of a frame that cannot be read
_CARRIES: Final = {op.name: op.carries for op in OPS.values()}


def line_of(event: Event) -> JsonLine | None:
    """The line of what happens to a stream; None for what has lines of its own: deltas (delta_lines) and books."""
    match event:
        case StreamState():
            return _changed("state", event)
        case QuotesState():
            return _changed("quotes", event)
        case GapOpened():
            return _spanned("gap", event) | {"cause": event.cause, "not_valid": list(event.doubtful)}
        case GapRepaired():
            line = _spanned("repaired", event) | {"how": event.how, "took_ms": round(event.took_ms, 3)}
            return line | ({"source": event.source} if event.source else {})
        case MissingSpan():
            return _spanned("covered" if event.why == "snapshot" else "skipped", event)
        case Doubted():
            return {"event": "doubted", "symbol": event.symbol, **_stream(event), "why": event.reason}
        case Trusted():
            return {"event": "trusted", "symbol": event.symbol, **_stream(event)}
        case Trouble():
            return {"event": "alarm", **(_stream(event) if event.engine else {}), "what": event.text}
        case BookEvent() | Trade() | BookState() | Quote():
            return None
        case _:
            assert_never(event)


def _stream(event: Any) -> JsonLine:
    return {"engine": event.engine, "channel": event.channel}


def _spanned(name: str, event: GapOpened | GapRepaired | MissingSpan) -> JsonLine:
    return {"event": name, **_stream(event), "epoch": event.epoch, "first": event.first, "last": event.last}


def _changed(name: str, event: StreamState | QuotesState) -> JsonLine:
    return {"event": name, **_stream(event), "from": event.before, "to": event.state, "why": event.reason}


def delta_lines(events: list[BookEvent]) -> Iterator[tuple[JsonLine, BookEvent]]:
    """All that one command changed, by sequence, each line with the event that it is of."""
    deltas = [(delta, event) for event in events for delta in event.deltas]
    for delta, event in sorted(deltas, key=lambda pair: pair[0].sequence):
        yield _delta(event, delta), event


def _delta(event: BookEvent, delta: Delta) -> JsonLine:
    line: JsonLine = {
        "event": delta.op,
        "symbol": event.symbol,
        "epoch": event.epoch,
        "seq": delta.sequence,
        "time_ns": event.time_ns,
    }
    for name in _CARRIES[delta.op]:
        value = getattr(delta, name)
        if name == "extra":
            line |= _extra(value)
        else:
            line[name] = f"{value:f}" if isinstance(value, Decimal) else value
    if delta.end:
        line["end"] = True
    return line


def _extra(extra: Extra) -> JsonLine:
    if isinstance(extra, Status):
        return {"state": feed.STATE_NAMES[extra.state], "reason": extra.reason}
    return dict(extra._asdict())


def book_line(book: Book, engine: int, channel: int) -> JsonLine:
    """A whole book, by order in queue order, as it stands: what deltas can be applied to."""
    shown = ("epoch", "sequence", "instrument_sequence", "state", "trading_state")
    line: JsonLine = {"event": "book", "symbol": book.symbol, "engine": engine, "channel": channel}
    return line | {name: getattr(book, name) for name in shown} | {"bids": _orders(book, 0), "asks": _orders(book, 1)}


def _orders(book: Book, side: int) -> list[JsonLine]:
    return [
        {"order_id": order_id, "price": f"{price:f}", "quantity": f"{quantity:f}"}
        for order_id, price, quantity in book.orders(side)
    ]


def quote_line(quote: Quote, engine: int, channel: int) -> JsonLine:
    """How a book stood when its quote was sent: best bid, best offer, last trade; null where there is none."""

    def side(level: tuple[Decimal, Decimal, int] | None) -> JsonLine | None:
        return {"price": f"{level[0]:f}", "quantity": f"{level[1]:f}", "orders": level[2]} if level else None

    return {
        "event": "quote",
        "symbol": quote.symbol,
        "engine": engine,
        "channel": channel,
        "epoch": quote.epoch,
        "sequence": quote.sequence,
        "time_ns": quote.time_ns,
        "state": "conflated",
        "trading_state": quote.trading_state,
        "bid": side(quote.bid),
        "ask": side(quote.ask),
        "last": {"price": f"{quote.last[0]:f}", "quantity": f"{quote.last[1]:f}"} if quote.last else None,
    }


def comparison_line(compared: Comparison) -> JsonLine:
    """Whether our books are another machine's."""
    if compared.problem:
        return {"event": "unverified", **_stream(compared), "with": compared.machine, "why": compared.problem}
    line = {"epoch": compared.epoch, "sequence": compared.sequence, "with": compared.machine}
    line |= {"carried": compared.carried, "books": compared.books, "orders": compared.orders}
    if compared.differences:
        return {"event": "differs", **_stream(compared), **line, "differences": list(compared.differences)}
    return {"event": "verified", **_stream(compared), **line}


def stats_line(stream: Stream, time_ns: int) -> JsonLine:
    """Where a stream stands, and all that its reader counted."""
    said = asdict(stream)
    counters = said.pop("counters")
    shown = ("engine", "channel", "state", "epoch", "sequence", "books", "open_gaps")
    return {"event": "stats", "time_ns": time_ns, **{name: said[name] for name in shown}, **counters}


def frame_line(frame: bytes, time_ns: int) -> JsonLine:
    """A frame as it came, field by field: its header, then what its body says. One that is none says why."""
    line: JsonLine = {"event": "frame", "received_ns": time_ns, "bytes": len(frame)}
    try:
        decoded = feed.decode(frame)
    except FeedError as e:
        return line | {"bad": str(e), "hex": frame[:BAD_SHOWN].hex()}
    flags = [name for bit, name in FLAGS.items() if decoded.header.flags & bit]
    line |= {"topic": frame[: feed.TOPIC_SIZE].decode()}
    line |= asdict(decoded.header) | {"kind": chr(decoded.header.kind), "flags": flags}
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


def _raw_delta(row: Row) -> JsonLine:
    op, instrument, order_id, price, quantity, trade_id = row
    return {
        "op": OPS[op & OP_MASK].name, "sell": bool(op & SELL), "end": bool(op & feed.END), "instrument": instrument,
        "order_id": order_id, "price": price, "quantity": quantity, "trade_id": trade_id,
    }  # fmt: skip


def in_words(line: JsonLine) -> str:
    """An event for people: `gap 3,001 to 3,007 (frame)`."""
    span = f"{line['first']:,} to {line['last']:,}" if "last" in line else ""
    stream = f"engine-{line['engine']}" if "engine" in line else ""
    match line["event"]:
        case "gap":
            text = f"gap {span} ({line['cause']})"
        case "repaired":
            text = f"repaired {span} by {line['how']} in {line['took_ms']:.1f} ms"
        case "recording":
            text = f"recorded from {line['first']:,} on"
        case "covered":
            text = f"a snapshot stands for {span}"
        case "skipped":
            text = f"{span} skipped: too slow"
        case "quotes":
            text = f"best prices {line['from']} to {line['to']}: {line['why']}"
        case "state":
            text = f"{line['from']} to {line['to']}: {line['why']}"
        case "differs":
            text = f"DIFFERS from {line['with']}: {'; '.join(line['differences'])}"
        case "alarm":
            text = f"ALARM {line['what']}"
        case event:
            text = f"{event} {line.get('symbol', '')} {line.get('why', '')}".rstrip()
    return f"{datetime.now():%H:%M:%S}  {stream}  {text}"

"""The feed's bytes: one frame a message, readable by a stranger with FEED.md in hand.

`topic | header | body`: a fixed-width topic for ZeroMQ's prefix matching, a header that needs no
msgpack, and a msgpack body of delta-coded integers. Decoding treats every byte as hostile: what is
damaged, truncated, of a wrong type or out of range raises FeedError, and nothing else is ever raised.
Encoding trusts its caller: values out of range there are our own bug.

Prices are whole ticks, quantities whole lots, times nanoseconds since the Unix epoch.
"""

import hashlib
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from proto.columns import DELTA_WIDTH, LIMIT

# Operations: bits 0-3 of the op byte.
ADD: Final = 1
CANCEL: Final = 2
MODIFY: Final = 3
DELETE: Final = 4
EXECUTE: Final = 5
TRADE: Final = 6
CLEAR: Final = 7
DEFINITION: Final = 8
STATUS: Final = 9
STATISTICS: Final = 10
INDICATION: Final = 11
BUST: Final = 12
CORRECTION: Final = 13
OP_MASK: Final = 15
# Its other bits.
SELL: Final = 16  # side of the resting order; for TRADE, of the aggressor
END: Final = 32  # last delta of its event
TIMED: Final = 64  # on the wire only: the event's time less the previous event's follows


class Op(NamedTuple):
    """What an op is called, and what its deltas carry beside the instrument."""

    name: str
    carries: tuple[str, ...] = ()


OPS: Final = {
    ADD: Op("add", ("side", "order_id", "price", "quantity")),
    CANCEL: Op("cancel", ("side", "order_id", "quantity")),
    MODIFY: Op("modify", ("side", "order_id", "quantity")),
    DELETE: Op("delete", ("side", "order_id")),
    EXECUTE: Op("execute", ("side", "order_id", "price", "quantity", "trade_id")),
    TRADE: Op("trade", ("side", "price", "quantity", "trade_id")),
    CLEAR: Op("clear"),
    DEFINITION: Op("definition", ("extra",)),
    STATUS: Op("status", ("extra",)),
    STATISTICS: Op("statistics", ("extra",)),
    INDICATION: Op("indication", ("extra",)),
    BUST: Op("bust", ("trade_id",)),
    CORRECTION: Op("correction", ("price", "quantity", "trade_id")),
}
TOLD: Final = frozenset(code for code, op in OPS.items() if "extra" in op.carries)  # they point into the extras

# Header flags.
END_OF_EVENT: Final = 1
HEARTBEAT: Final = 2
END_OF_STREAM: Final = 4
FRESH: Final = 8
DIGEST: Final = 16
REFRAMED: Final = 32  # only in a history: decode_reframed
_ALL_FLAGS: Final = 31

# Kinds of stream.
KIND_D: Final = 0x44  # order-level deltas
KIND_Q: Final = 0x51  # conflated best bid and offer

# Trading states.
PRE_OPEN: Final = 1
OPEN: Final = 2
HALTED: Final = 3
AUCTION: Final = 4
CLOSED: Final = 5
STATE_NAMES: Final = {
    0: "unknown", PRE_OPEN: "pre-open", OPEN: "open", HALTED: "halted", AUCTION: "auction", CLOSED: "closed",
}  # fmt: skip

MAGIC: Final = 0xB7
VERSION: Final = 1
CODEC_MSGPACK: Final = 1
HEADER_SIZE: Final = 48
TOPIC_SIZE: Final = 8
TOPIC_SIZE_Q: Final = 18
CRC_AT: Final = TOPIC_SIZE + 12  # in a frame of kind D
FRAME_MAX: Final = 65_536  # bytes, topic included
DIGESTS_MAX: Final = 1_024  # in one heartbeat
U32_MAX: Final = (1 << 32) - 1
U64_MAX: Final = (1 << 64) - 1
TIME_MAX: Final = (1 << 63) - 1
ID_MAX: Final = (1 << 63) - 1  # of orders and trades: so the difference of two fits in 64 bits with its sign

_HEADER: Final = struct.Struct("<BBBBHHHBBIIIQQQ")
_HEADER_FRONT: Final = struct.Struct("<BBBBHHHBB")  # before the crc
_HEADER_BACK: Final = struct.Struct("<IIQQQ")  # after it
SYMBOL: Final = re.compile(r"[A-Z0-9._-]{1,16}")  # what an instrument is called
SIZE: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")  # of a tick or a lot
# The code of each valid op byte: anything else is refused by not being here.
_CODES: Final[dict[int, int]] = {
    code | side | end | timed: code
    for code, op in OPS.items()
    for side in ((0, SELL) if "side" in op.carries else (0,))
    for end in (0, END)
    for timed in (0, TIMED)
}


class FeedError(ValueError):
    """These bytes are no frame, or no snapshot, of this feed: the sender's fault or the line's."""


@dataclass(slots=True)
class Header:
    """What a frame says of itself. `first_seq` of a heartbeat is the next sequence to be published."""

    kind: int
    flags: int
    engine: int
    channel: int
    count: int
    codec: int
    incarnation: int
    epoch: int
    first_seq: int
    sent_ns: int
    follows: int = 0  # kind D: crc_of() the frame of deltas before it in the epoch; 0: it is the first


class Digest(NamedTuple):
    """The orders of one side between two prices, both included, in 8 bytes; compare only at `instrument_seq`.

    order_hash   orders_hash() of those orders
    """

    instrument: int
    instrument_seq: int
    side: int
    low: int
    high: int
    order_hash: int


class Definition(NamedTuple):
    """What an instrument is. Sizes are decimal texts; price limits are ticks."""

    symbol: str
    tick_size: str
    lot_size: str
    price_min: int
    price_max: int


class Status(NamedTuple):
    """Trading state, and why it was entered (0: no reason given)."""

    state: int
    reason: int


class Statistics(NamedTuple):
    """The session so far: prices in ticks, volume in lots, turnover in ticks times lots."""

    open: int
    high: int
    low: int
    last: int
    volume: int
    turnover: int
    trades: int


class Quote(NamedTuple):
    """Best bid and offer and last trade, conflated. A side without orders has quantity and count 0."""

    time_ns: int
    instrument: int
    instrument_seq: int
    state: int
    bid_price: int
    bid_quantity: int
    bid_count: int
    ask_price: int
    ask_quantity: int
    ask_count: int
    last_price: int
    last_quantity: int
    last_trade_id: int


class Indication(NamedTuple):
    """What an uncross would do now: all 0 if nothing would trade. `imbalance` is the buys less the sells, in lots."""

    price: int
    volume: int
    imbalance: int


Row = tuple[int, int, int, int, int, int]
Extra = Definition | Status | Statistics | Indication


@dataclass(slots=True)
class Frame:
    """A decoded frame.

    rows         (op with SELL and END, instrument, order_id, price, quantity, trade_id), in sequence;
                 what an op does not carry is 0; for the ops in TOLD order_id is the index into `extras`
    times        (row index, event time), where the time changes; the first is for row 0
    instruments  (instrument, its sequence at its first row here), in order of appearance
    """

    header: Header
    rows: list[Row]
    times: list[tuple[int, int]]
    instruments: list[tuple[int, int]]
    extras: list[Extra]
    digests: list[Digest]
    quote: Quote | None = None

    @property
    def next_seq(self) -> int:
        """The sequence due after this frame."""
        return self.header.first_seq + self.header.count

    def time_of(self, row: int) -> int:
        """Time of the event that row belongs to, in nanoseconds. O(log n)."""
        return self.times[bisect_right(self.times, (row, TIME_MAX)) - 1][1]

    def rows_from(self, first_seq: int) -> tuple[list[Row], list[tuple[int, int]]]:
        """Rows from a sequence inside this frame on, and `instruments` as they stand there. O(rows)."""
        skip = first_seq - self.header.first_seq
        assert 0 <= skip <= len(self.rows)
        if skip == 0:
            return self.rows, self.instruments
        sequences = dict(self.instruments)
        for row in self.rows[:skip]:
            sequences[row[1]] += 1
        rest = self.rows[skip:]
        return rest, [(instrument, sequences[instrument]) for instrument in dict.fromkeys(row[1] for row in rest)]


def topic(kind: int, engine: int, channel: int) -> bytes:
    """`D001001.`: kind, engine in 3 digits, channel in 2, version, a full stop; what a reader of D subscribes to."""
    return b"%c%03d%02d1." % (kind, engine, channel)


def quote_topic(engine: int, channel: int, instrument: int) -> bytes:
    """Topic of one instrument's quotes; instrument 0 carries the heartbeats of the conflated stream."""
    return topic(KIND_Q, engine, channel) + b"%010d" % instrument


# Encoding

_encoder: Final = msgspec.msgpack.Encoder()


def encode_frame(
    engine: int,
    channel: int,
    flags: int,
    incarnation: int,
    epoch: int,
    first_seq: int,
    sent_ns: int,
    times: Sequence[tuple[int, int]],
    instruments: Sequence[tuple[int, int]],
    rows: Sequence[int],
    extras: Sequence[Sequence[object]] = (),
    follows: int = 0,
) -> bytes:
    """A frame of kind D.

    flags is FRESH, REFRAMED or 0 (the end of event is read off the last row). rows is flat, DELTA_WIDTH values
    a delta. times and instruments are as in Frame; times change only at the first row of an event.
    extras is what the rows of the ops in TOLD point into. follows is as in Header.
    """
    # Ids of new orders are close to the largest one: a base 127 below it makes most of them one byte.
    base = max(0, max(rows[2::DELTA_WIDTH]) - 127)
    body = _Body(base, rows[3], instruments, extras)
    time_ns = times[0][1]
    start = 0
    for row, later_ns in times[1:]:
        at = row * DELTA_WIDTH
        body.add(rows[start:at])
        start = at + DELTA_WIDTH
        body.add_timed(rows[at:start], later_ns - time_ns)
        time_ns = later_ns
    body.add(rows[start:] if start else rows)
    count = len(rows) // DELTA_WIDTH
    if rows[-DELTA_WIDTH] & END:
        flags |= END_OF_EVENT
    head = topic(KIND_D, engine, channel)
    packed = _encoder.encode(body.parts(times[0][1]))
    return _framed(head, flags, engine, channel, count, incarnation, follows, epoch, first_seq, sent_ns, packed)


class _Body:
    """The body of a frame in the making: what the delta coding remembers between deltas."""

    __slots__ = ("_base", "_carried", "_extras", "_flat", "_index", "_instruments", "_price", "_price0", "_trades")

    def __init__(
        self, base: int, price0: int, instruments: Sequence[tuple[int, int]], extras: Sequence[Sequence[object]]
    ) -> None:
        self._base = base
        self._price0 = self._price = price0
        self._instruments = instruments
        self._index = {instrument: i for i, (instrument, _) in enumerate(instruments)}
        self._trades: dict[int, int] = {}
        self._extras = extras
        self._carried: list[Sequence[object]] = []
        self._flat: list[int] = []

    def parts(self, time0_ns: int) -> tuple[object, ...]:
        parts = (time0_ns, self._base, self._price0, self._instruments, self._flat)
        return (*parts, self._carried) if self._carried else parts

    def add_timed(self, rows: Sequence[int], step_ns: int) -> None:
        """The first delta of an event whose time is not the previous event's."""
        at = len(self._flat)
        self.add(rows)
        self._flat[at] |= TIMED
        self._flat.append(step_ns)

    def add(self, rows: Sequence[int]) -> None:
        base, index, flat, trades = self._base, self._index, self._flat, self._trades
        indexed = len(index) != 1
        previous = self._price
        it = iter(rows)
        for op, instrument, order_id, price, quantity, trade_id in zip(it, it, it, it, it, it, strict=True):
            code = op & OP_MASK
            flat.append(op)
            if indexed:
                flat.append(index[instrument])
            if code == ADD:
                flat += (order_id - base, price - previous, quantity)
                previous = price
            elif code == DELETE:
                flat.append(order_id - base)
            elif code == EXECUTE:
                flat += (order_id - base, price - previous, quantity, trade_id - trades.get(instrument, 0))
                previous = price
                trades[instrument] = trade_id
            elif code in (CANCEL, MODIFY):
                flat += (order_id - base, quantity)
            elif code == TRADE:
                flat += (price - previous, quantity, trade_id - trades.get(instrument, 0))
                previous = price
                trades[instrument] = trade_id
            elif code == CLEAR:
                pass
            elif code == BUST:
                flat.append(trade_id)
            elif code == CORRECTION:
                flat += (price - previous, quantity, trade_id)
                previous = price
            else:
                assert code in TOLD, f"op {op} is not encoded"
                flat.append(len(self._carried))
                self._carried.append(self._extras[order_id])
        self._price = previous


def encode_heartbeat(
    engine: int,
    channel: int,
    flags: int,
    incarnation: int,
    epoch: int,
    next_seq: int,
    sent_ns: int,
    digests: Sequence[Digest] = (),
    follows: int = 0,
) -> bytes:
    """A heartbeat of kind D; flags is any of FRESH and END_OF_STREAM. Digests are taken at next_seq.

    follows is as in Header.
    """
    flags |= HEARTBEAT | DIGEST if digests else HEARTBEAT
    body = _encoder.encode(digests) if digests else b""
    head = topic(KIND_D, engine, channel)
    return _framed(head, flags, engine, channel, 0, incarnation, follows, epoch, next_seq, sent_ns, body)


def encode_quote(
    engine: int, channel: int, incarnation: int, epoch: int, as_of_seq: int, sent_ns: int, quote: Quote
) -> bytes:
    """A frame of kind Q: the best bid and offer after delta `as_of_seq` of stream D."""
    head, body = quote_topic(engine, channel, quote.instrument), _encoder.encode(quote)
    return _framed(head, END_OF_EVENT, engine, channel, 1, incarnation, 0, epoch, as_of_seq, sent_ns, body)


def encode_quote_heartbeat(
    engine: int, channel: int, flags: int, incarnation: int, epoch: int, next_seq: int, sent_ns: int
) -> bytes:
    """A heartbeat of kind Q; flags is END_OF_STREAM or 0."""
    head = quote_topic(engine, channel, 0)
    return _framed(head, flags | HEARTBEAT, engine, channel, 0, incarnation, 0, epoch, next_seq, sent_ns, b"")


def _framed(
    head: bytes,
    flags: int,
    engine: int,
    channel: int,
    count: int,
    incarnation: int,
    follows: int,
    epoch: int,
    first_seq: int,
    sent_ns: int,
    body: bytes,
) -> bytes:
    front = head + _HEADER_FRONT.pack(MAGIC, VERSION, head[0], flags, engine, channel, count, CODEC_MSGPACK, 0)
    back = _HEADER_BACK.pack(incarnation, follows, epoch, first_seq, sent_ns) + body
    return b"%b%b%b" % (front, zlib.crc32(back, zlib.crc32(front)).to_bytes(4, "little"), back)


# Decoding

_Deltas = tuple[int, int, int, list[tuple[int, int]], list[int]]
_DeltasWithExtras = tuple[int, int, int, list[tuple[int, int]], list[int], list[list[int | str]]]
_deltas_decoder: Final = msgspec.msgpack.Decoder(_Deltas)
_deltas_with_extras_decoder: Final = msgspec.msgpack.Decoder(_DeltasWithExtras)
_digests_decoder: Final = msgspec.msgpack.Decoder(list[Digest])
_quote_decoder: Final = msgspec.msgpack.Decoder(Quote)


def decode_header(frame: bytes) -> Header:
    """The header, if topic, sizes, versions and flags are right; neither crc nor body is looked at. O(1)."""
    size = TOPIC_SIZE_Q if frame[:1] == b"Q" else TOPIC_SIZE
    if not size + HEADER_SIZE <= len(frame) <= FRAME_MAX:
        raise FeedError(f"a frame of {len(frame)} bytes")
    (magic, version, kind, flags, engine, channel, count, codec, reserved, _, incarnation, follows, epoch, first_seq,
     sent_ns) = _HEADER.unpack_from(frame, size)  # fmt: skip
    if magic != MAGIC or version != VERSION or codec != CODEC_MSGPACK:
        raise FeedError(f"magic {magic:#x}, version {version}, codec {codec}")
    if reserved or flags & ~_ALL_FLAGS:
        raise FeedError(f"reserved bits are set: flags {flags:#x}, reserved {reserved:#x}")
    known = kind in (KIND_D, KIND_Q) and 1 <= engine <= 999 and channel <= 99
    if not known or frame[:TOPIC_SIZE] != topic(kind, engine, channel):
        raise FeedError(f"topic {frame[:TOPIC_SIZE]!r} for kind {kind}, engine {engine}, channel {channel}")
    if epoch == 0 or first_seq == 0 or first_seq + count > U64_MAX or sent_ns > TIME_MAX:
        raise FeedError(f"epoch {epoch}, first sequence {first_seq}, count {count}, sent {sent_ns}")
    if flags & HEARTBEAT:
        wrong = count != 0 or flags & END_OF_EVENT != 0 or (kind == KIND_Q and flags & (FRESH | DIGEST) != 0)
    else:
        wrong = count == 0 or flags & (END_OF_STREAM | DIGEST) != 0 or (kind == KIND_Q and flags != END_OF_EVENT)
    if wrong or (kind == KIND_Q and count > 1):
        raise FeedError(f"flags {flags:#x} do not go with count {count}")
    if follows and kind == KIND_Q:
        raise FeedError("a quote follows no frame")
    return Header(kind, flags, engine, channel, count, codec, incarnation, epoch, first_seq, sent_ns, follows)


def crc_of(frame: bytes) -> int:
    """What a whole frame of kind D has as its crc32: the name by which the next one follows it. O(1)."""
    return int.from_bytes(frame[CRC_AT : CRC_AT + 4], "little")


def decode(frame: bytes) -> Frame:
    """The whole frame, every value checked. O(deltas)."""
    header = decode_header(frame)
    body_at = (TOPIC_SIZE if header.kind == KIND_D else TOPIC_SIZE_Q) + HEADER_SIZE
    crc_at = body_at - 36
    crc = zlib.crc32(frame[crc_at + 4 :], zlib.crc32(frame[:crc_at]))
    if crc != int.from_bytes(frame[crc_at : crc_at + 4], "little"):
        raise FeedError("crc32 differs")
    body = frame[body_at:]
    try:
        if header.flags & HEARTBEAT:
            return _decode_heartbeat(header, body, frame)
        if header.kind == KIND_Q:
            return _decode_quote(header, body, frame)
        return _decode_deltas(header, body)
    except FeedError:
        raise
    except (msgspec.MsgspecError, ValueError, KeyError, IndexError, StopIteration, RecursionError, MemoryError) as e:
        raise FeedError(f"body: {type(e).__name__}: {e}") from e


def decode_reframed(frame: bytes) -> Frame:
    """A frame of a history: it has the flag REFRAMED, which decode() refuses, and is as any other frame of deltas."""
    at = TOPIC_SIZE + 3
    if len(frame) < TOPIC_SIZE + HEADER_SIZE or not frame[at] & REFRAMED or frame[at] & (HEARTBEAT | FRESH):
        raise FeedError("not a frame of a history")
    front, crc, back = frame[: at + 9], frame[at + 9 : at + 13], frame[at + 13 :]
    if zlib.crc32(back, zlib.crc32(front)) != int.from_bytes(crc, "little"):
        raise FeedError("crc32 differs")
    front = front[:at] + bytes([front[at] & ~REFRAMED]) + front[at + 1 :]
    found = decode(front + zlib.crc32(back, zlib.crc32(front)).to_bytes(4, "little") + back)
    if found.header.follows:
        raise FeedError("a frame of a history follows no other")
    found.header.flags |= REFRAMED
    return found


def _decode_heartbeat(header: Header, body: bytes, frame: bytes) -> Frame:
    digests: list[Digest] = []
    if header.kind == KIND_Q and frame[TOPIC_SIZE:TOPIC_SIZE_Q] != b"0000000000":
        raise FeedError("a heartbeat on the topic of an instrument")
    if header.flags & DIGEST:
        digests = _digests_decoder.decode(body)
        if not 1 <= len(digests) <= DIGESTS_MAX:
            raise FeedError(f"{len(digests)} digests")
        for digest in digests:
            if not (
                0 < digest.instrument <= U32_MAX
                and digest.instrument_seq >= 0
                and digest.side in (0, 1)
                and -LIMIT <= digest.low <= digest.high <= LIMIT
                and digest.order_hash >= 0
            ):
                raise FeedError(f"{digest}")
    elif body:
        raise FeedError("a heartbeat with a body")
    return Frame(header, [], [], [], [], digests)


def _decode_quote(header: Header, body: bytes, frame: bytes) -> Frame:
    quote = _quote_decoder.decode(body)
    if not 0 < quote.instrument <= U32_MAX or frame[TOPIC_SIZE:TOPIC_SIZE_Q] != b"%010d" % quote.instrument:
        raise FeedError(f"instrument {quote.instrument} on topic {frame[:TOPIC_SIZE_Q]!r}")
    if min(quote) < 0 and min(quote[:4] + quote[5:7] + quote[8:10] + quote[11:]) < 0:
        raise FeedError(f"{quote}")
    for price, quantity, count in ((quote.bid_price, quote.bid_quantity, quote.bid_count),
                                   (quote.ask_price, quote.ask_quantity, quote.ask_count)):  # fmt: skip
        if not -LIMIT < price < LIMIT or (quantity == 0) != (count == 0) or (quantity == 0 and price != 0):
            raise FeedError(f"{quote}")
    if quote.time_ns > TIME_MAX or quote.state > CLOSED:
        raise FeedError(f"{quote}")
    if not -LIMIT < quote.last_price < LIMIT or quote.last_quantity >= LIMIT or quote.last_trade_id > ID_MAX:
        raise FeedError(f"{quote}")
    return Frame(header, [], [(0, quote.time_ns)], [(quote.instrument, quote.instrument_seq)], [], [], quote)


def _decode_deltas(header: Header, body: bytes) -> Frame:
    raw_extras: list[list[int | str]] = []
    if body[:1] == b"\x95":
        time_ns, base, price, instruments, flat = _deltas_decoder.decode(body)
    else:
        time_ns, base, price, instruments, flat, raw_extras = _deltas_with_extras_decoder.decode(body)
        if not raw_extras or body[:1] != b"\x96":
            raise FeedError("an empty list of extras, or an array of another form")
    if not (0 <= time_ns <= TIME_MAX and 0 <= base <= ID_MAX and -LIMIT < price < LIMIT):
        raise FeedError(f"time {time_ns}, order id base {base}, price base {price}")
    names = _names(instruments)
    indexed = len(names) != 1
    name = 0 if indexed else names[0]
    trades: dict[int, int] = {}
    extras: list[Extra] = []
    rows: list[Row] = []
    times = [(0, time_ns)]
    values = iter(flat)
    for op in values:
        code = _CODES[op]
        if indexed:
            name = names[next(values)]
        if code == ADD:
            order_id = next(values) + base
            price += next(values)
            quantity = next(values)
            if not (0 < order_id <= ID_MAX and -LIMIT < price < LIMIT and 0 < quantity < LIMIT):
                raise FeedError(f"delta {len(rows)}: order {order_id}, {quantity} at {price}")
            row = (op, name, order_id, price, quantity, 0)
        elif code == DELETE:
            order_id = next(values) + base
            if not 0 < order_id <= ID_MAX:
                raise FeedError(f"delta {len(rows)}: order {order_id}")
            row = (op, name, order_id, 0, 0, 0)
        elif code == EXECUTE or code == TRADE:  # noqa: SIM109 - half the cost
            order_id = next(values) + base if code == EXECUTE else 0
            price += next(values)
            quantity = next(values)
            step = next(values)
            trade_id = trades.get(name, 0) + step
            if not (-LIMIT < price < LIMIT and 0 < quantity < LIMIT and 0 < trade_id <= ID_MAX and step >= 0):
                raise FeedError(f"delta {len(rows)}: trade {trade_id}, {quantity} at {price}")
            if code == EXECUTE and not 0 < order_id <= ID_MAX:
                raise FeedError(f"delta {len(rows)}: order {order_id}")
            trades[name] = trade_id
            row = (op, name, order_id, price, quantity, trade_id)
        elif code == CANCEL or code == MODIFY:  # noqa: SIM109
            order_id = next(values) + base
            quantity = next(values)
            if not (0 < order_id <= ID_MAX and 0 < quantity < LIMIT):
                raise FeedError(f"delta {len(rows)}: order {order_id}, {quantity}")
            row = (op, name, order_id, 0, quantity, 0)
        elif code == CLEAR:
            row = (op, name, 0, 0, 0, 0)
        elif code == BUST or code == CORRECTION:  # noqa: SIM109
            quantity = 0
            if code == CORRECTION:
                price += next(values)
                quantity = next(values)
            trade_id = next(values)
            corrected = 0 < quantity < LIMIT if code == CORRECTION else quantity == 0
            if not (-LIMIT < price < LIMIT and corrected and 0 < trade_id <= ID_MAX):
                raise FeedError(f"delta {len(rows)}: trade {trade_id}, {quantity} at {price}")
            row = (op, name, 0, price if quantity else 0, quantity, trade_id)
        else:
            nth = next(values)
            if nth != len(extras):
                raise FeedError(f"delta {len(rows)}: extra {nth} where {len(extras)} is due")
            extras.append(_EXTRAS[code](raw_extras[nth]))  # KeyError if this op has none
            row = (op, name, nth, 0, 0, 0)
        if op >= TIMED:
            step = next(values)
            time_ns += step
            if not rows or not rows[-1][0] & END or step <= 0 or time_ns > TIME_MAX:
                raise FeedError(f"delta {len(rows)}: a time out of place")
            times.append((len(rows), time_ns))
            row = (op ^ TIMED, name, *row[2:])
        rows.append(row)
    if len(rows) != header.count or len(extras) != len(raw_extras):
        raise FeedError(f"{len(rows)} deltas of {header.count}, {len(extras)} extras of {len(raw_extras)}")
    if (rows[-1][0] & END != 0) != (header.flags & END_OF_EVENT != 0):
        raise FeedError("the flags and the last delta disagree about the end of the event")
    return Frame(header, rows, times, instruments, extras, [])


def _names(instruments: list[tuple[int, int]]) -> dict[int, int]:
    """Instrument by its index in the frame."""
    names: dict[int, int] = {}
    for instrument, sequence in instruments:
        if not 0 < instrument <= U32_MAX or sequence <= 0:
            raise FeedError(f"instrument {instrument} at sequence {sequence}")
        names[len(names)] = instrument
    if len(names) > 1 and len(set(names.values())) != len(names):
        raise FeedError("an instrument listed twice")
    return names


def read_definition(fields: Sequence[int | str]) -> Definition:
    """The first five elements; those a later version adds behind them are ignored."""
    symbol, tick_size, lot_size = fields[:3]
    price_min, price_max = _integers(fields[3:], 2)
    if not (isinstance(symbol, str) and isinstance(tick_size, str) and isinstance(lot_size, str)):
        raise FeedError("a symbol and two sizes are texts")
    if not (SYMBOL.fullmatch(symbol) and SIZE.fullmatch(tick_size) and SIZE.fullmatch(lot_size)):
        raise FeedError(f"symbol {symbol!r}, tick size {tick_size!r}, lot size {lot_size!r}")
    if not tick_size.strip("0.") or not lot_size.strip("0."):
        raise FeedError("a tick or a lot of zero")
    if not -LIMIT < price_min <= price_max < LIMIT:
        raise FeedError(f"price limits {price_min} and {price_max}")
    return Definition(symbol, tick_size, lot_size, price_min, price_max)


def read_status(fields: Sequence[int | str]) -> Status:
    status = Status(*_integers(fields, 2))
    if not (0 <= status.state <= CLOSED and 0 <= status.reason <= U32_MAX):
        raise FeedError(f"{status}")
    return status


def read_statistics(fields: Sequence[int | str]) -> Statistics:
    statistics = Statistics(*_integers(fields, 7))
    prices = statistics[:4]
    if not -LIMIT < min(prices) <= max(prices) < LIMIT or min(statistics.volume, statistics.trades) < 0:
        raise FeedError(f"{statistics}")
    return statistics


def read_indication(fields: Sequence[int | str]) -> Indication:
    indication = Indication(*_integers(fields, 3))
    if not -LIMIT < indication.price < LIMIT or indication.volume < 0:
        raise FeedError(f"{indication}")
    return indication


_EXTRAS: Final[dict[int, Callable[[Sequence[int | str]], Extra]]] = {
    DEFINITION: read_definition, STATUS: read_status, STATISTICS: read_statistics, INDICATION: read_indication,
}  # fmt: skip


def _integers(fields: Sequence[int | str], count: int) -> list[int]:
    """The first `count` elements, which must be integers."""
    integers = [field for field in fields[:count] if isinstance(field, int)]
    if len(integers) != count:
        raise FeedError(f"{count} integers expected in {fields!r}")
    return integers


def orders_hash(words: Sequence[int]) -> int:
    """64-bit hash of orders in priority order, as flat order id, price, quantity. O(orders), 70 ns each."""
    packed = struct.pack("<" + "QqQ" * (len(words) // 3), *words)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")

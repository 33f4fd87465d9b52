"""The codec: what goes in comes out, and what is damaged is refused with FeedError and nothing else."""

import random
import zlib
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import feed
from proto.columns import LIMIT
from proto.feed import FeedError, Frame, Row

TIME_NS = 1_700_000_000_000_000_000
STREAM: dict[str, Any] = {"engine": 12, "channel": 3, "incarnation": 99, "epoch": 5}

u64 = st.integers(1, feed.U64_MAX)
ids = st.integers(1, feed.ID_MAX)
prices = st.integers(1 - LIMIT, LIMIT - 1)
quantities = st.integers(1, LIMIT - 1)
sizes = st.from_regex(r"[1-9][0-9]{0,11}(\.[0-9]{1,12})?", fullmatch=True)
definitions = st.builds(
    lambda symbol, tick, lot, limits: feed.Definition(symbol, tick, lot, min(limits), max(limits)),
    st.text("ABCXYZ0189._-", min_size=1, max_size=16), sizes, sizes, st.tuples(prices, prices),
)  # fmt: skip
statuses = st.builds(feed.Status, st.integers(0, feed.CLOSED), st.integers(0, feed.U32_MAX))
totals = st.integers(0, feed.TIME_MAX)
statistics = st.builds(feed.Statistics, prices, prices, prices, prices, totals, totals, totals)
indications = st.builds(feed.Indication, prices, totals, st.integers(-feed.TIME_MAX, feed.TIME_MAX))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Any frame of deltas that a publisher may send."""
    names = draw(st.lists(st.integers(1, feed.U32_MAX), min_size=1, max_size=5, unique=True))
    codes = draw(st.lists(st.integers(feed.ADD, feed.STATISTICS), min_size=1, max_size=20))
    rows: list[Row] = []
    extras: list[feed.Extra] = []
    times = [(0, draw(st.integers(0, TIME_NS)))]
    trade_ids = dict.fromkeys(names, 0)
    for code in codes:
        name = draw(st.sampled_from(names))
        op = code | draw(st.sampled_from([0, feed.END]))
        if code <= feed.TRADE:
            op |= draw(st.sampled_from([0, feed.SELL]))
        order_id = draw(ids) if code <= feed.EXECUTE else 0
        price = draw(prices) if code in (feed.ADD, feed.EXECUTE, feed.TRADE) else 0
        quantity = draw(quantities) if code <= feed.TRADE and code != feed.DELETE else 0
        trade_id = 0
        if code in (feed.EXECUTE, feed.TRADE):
            trade_id = trade_ids[name] = trade_ids[name] + draw(st.integers(1, 1 << 50))
        if code >= feed.DEFINITION:
            order_id = len(extras)
            kinds = {feed.DEFINITION: definitions, feed.STATUS: statuses, feed.STATISTICS: statistics}
            extras.append(draw(kinds[code]))  # type: ignore[arg-type]
        if rows and rows[-1][0] & feed.END and draw(st.booleans()):
            times.append((len(rows), times[-1][1] + draw(st.integers(1, 1 << 40))))
        rows.append((op, name, order_id, price, quantity, trade_id))
    used = dict.fromkeys(row[1] for row in rows)
    flags = draw(st.sampled_from([0, feed.FRESH])) | (feed.END_OF_EVENT if rows[-1][0] & feed.END else 0)
    header = feed.Header(
        feed.KIND_D, flags, 12, 3, len(rows), feed.CODEC_MSGPACK, 99, 5, draw(st.integers(1, 1 << 62)), TIME_NS,
        draw(st.integers(0, feed.U32_MAX)),
    )  # fmt: skip
    instruments = [(name, draw(st.integers(1, 1 << 62))) for name in used]
    return Frame(header, rows, times, instruments, extras, [])


def encoded(frame: Frame) -> bytes:
    return feed.encode_frame(
        **STREAM,
        flags=frame.header.flags & feed.FRESH,
        first_seq=frame.header.first_seq,
        sent_ns=frame.header.sent_ns,
        times=frame.times,
        instruments=frame.instruments,
        rows=[value for row in frame.rows for value in row],
        extras=frame.extras,
        follows=frame.header.follows,
    )


def with_body(body: Any, count: int = 1, flags: int = feed.END_OF_EVENT, kind: int = feed.KIND_D) -> bytes:
    """A frame around any body: a thing to be packed, or bytes."""
    packed = body if isinstance(body, bytes) else msgpack.packb(body)
    head = feed.topic(kind, 12, 3) + (b"%010d" % body[1] if kind == feed.KIND_Q else b"")
    return feed._framed(head, flags, 12, 3, count, 99, 0, 5, 1, TIME_NS, packed)


def with_crc(frame: bytes) -> bytes:
    """The same bytes with a right crc, so that what else is wrong is reached."""
    at = (feed.TOPIC_SIZE_Q if frame[:1] == b"Q" else feed.TOPIC_SIZE) + 12
    if len(frame) < at + 36:
        return frame
    crc = zlib.crc32(frame[at + 4 :], zlib.crc32(frame[:at]))
    return frame[:at] + crc.to_bytes(4, "little") + frame[at + 4 :]


def refused(frame: bytes) -> str:
    with pytest.raises(FeedError) as caught:
        feed.decode(frame)
    return str(caught.value)


# What goes in comes out


@given(frames())
@settings(deadline=None, max_examples=150)
def test_a_frame_comes_out_as_it_went_in(frame: Frame) -> None:
    assert feed.decode(encoded(frame)) == frame


@given(frames())
@settings(deadline=None, max_examples=50)
def test_msgpack_and_msgspec_write_the_same_bytes(frame: Frame) -> None:
    body = encoded(frame)[feed.TOPIC_SIZE + feed.HEADER_SIZE :]
    assert msgpack.packb(msgpack.unpackb(body)) == body


u32 = st.integers(0, feed.U32_MAX)
digests = st.builds(
    lambda name, seq, side, bounds, hash_: feed.Digest(name, seq, side, min(bounds), max(bounds), hash_),
    st.integers(1, feed.U32_MAX),
    u64,
    st.integers(0, 1),
    st.tuples(*[st.integers(-LIMIT, LIMIT)] * 2),
    u64,
)


@given(st.lists(digests, max_size=5), st.sampled_from([0, feed.FRESH, feed.END_OF_STREAM]), u64, u32)
@settings(deadline=None, max_examples=50)
def test_a_heartbeat_comes_out_as_it_went_in(
    listed: list[feed.Digest], flags: int, next_seq: int, follows: int
) -> None:
    frame = feed.decode(
        feed.encode_heartbeat(
            **STREAM, flags=flags, next_seq=next_seq, sent_ns=TIME_NS, digests=listed, follows=follows
        )
    )
    flags |= feed.HEARTBEAT | (feed.DIGEST if listed else 0)
    assert frame.header == feed.Header(feed.KIND_D, flags, 12, 3, 0, 1, 99, 5, next_seq, TIME_NS, follows)
    assert frame.digests == listed


counts = st.integers(1, 1000)
sides = st.one_of(st.just((0, 0, 0)), st.tuples(prices, quantities, counts))


@given(st.integers(1, feed.U32_MAX), sides, sides, st.tuples(prices, quantities, ids))
@settings(deadline=None, max_examples=50)
def test_a_quote_comes_out_as_it_went_in(
    instrument: int, bid: tuple[int, int, int], ask: tuple[int, int, int], last: tuple[int, int, int]
) -> None:
    quote = feed.Quote(TIME_NS, instrument, 7, feed.OPEN, *bid, *ask, *last)
    frame = feed.decode(feed.encode_quote(**STREAM, as_of_seq=8, sent_ns=TIME_NS, quote=quote))
    assert frame.quote == quote
    assert frame.header == feed.Header(feed.KIND_Q, feed.END_OF_EVENT, 12, 3, 1, 1, 99, 5, 8, TIME_NS)


# Topics and rows


def test_a_topic_has_eight_characters_and_a_quotes_ten_more() -> None:
    assert feed.topic(feed.KIND_D, 1, 0) == b"D001001."
    assert feed.topic(feed.KIND_Q, 999, 99) == b"Q999991."
    assert feed.quote_topic(2, 3, 4_294_967_295) == b"Q002031.4294967295"


def several() -> Frame:
    return feed.decode(
        feed.encode_frame(
            **STREAM, flags=0, first_seq=11, sent_ns=TIME_NS,
            times=[(0, 500), (2, 600)], instruments=[(7, 3), (9, 1)],
            rows=[
                feed.ADD, 7, 1, 100, 5, 0,
                feed.ADD | feed.END, 9, 2, 50, 5, 0,
                feed.DELETE, 7, 1, 0, 0, 0,
                feed.CLEAR | feed.END, 9, 0, 0, 0, 0,
            ],
        )
    )  # fmt: skip


def test_rows_from_a_sequence_inside_a_frame_keep_their_instrument_sequences() -> None:
    frame = several()
    assert frame.next_seq == 15
    assert frame.rows_from(11) == (frame.rows, [(7, 3), (9, 1)])
    assert frame.rows_from(12) == (frame.rows[1:], [(9, 1), (7, 4)])
    assert frame.rows_from(14) == (frame.rows[3:], [(9, 2)])
    assert frame.rows_from(15) == ([], [])


def test_each_row_has_the_time_of_its_event() -> None:
    assert [several().time_of(row) for row in range(4)] == [500, 500, 600, 600]


def test_consecutive_adds_take_nine_bytes_or_less() -> None:
    rows = [v for i in range(64) for v in (feed.ADD | feed.END, 7, (1 << 48) + 5_000 + i, 10_000 + i % 5, 100, 0)]
    frame = feed.encode_frame(
        **STREAM, flags=0, first_seq=1, sent_ns=TIME_NS, times=[(0, 1)], instruments=[(7, 1)], rows=rows
    )
    assert len(frame) <= 64 * 5 + 90


def test_every_value_may_stand_at_its_limit() -> None:
    top, price = feed.ID_MAX, LIMIT - 1
    rows: list[Row] = [
        (feed.ADD, feed.U32_MAX, top, price, price, 0),
        (feed.ADD, feed.U32_MAX, 1, -price, 1, 0),
        (feed.DELETE, feed.U32_MAX, top, 0, 0, 0),
        (feed.EXECUTE, feed.U32_MAX, top, price, price, 1),
        (feed.MODIFY, feed.U32_MAX, top, 0, price, 0),
        (feed.TRADE, feed.U32_MAX, 0, -price, price, top),
        (feed.STATUS | feed.END, feed.U32_MAX, 0, 0, 0, 0),
    ]
    header = feed.Header(feed.KIND_D, 1, 999, 99, 7, 1, feed.U32_MAX, feed.U64_MAX, feed.U64_MAX - 7, feed.TIME_MAX)
    frame = Frame(
        header, rows, [(0, feed.TIME_MAX)], [(feed.U32_MAX, feed.U64_MAX)], [feed.Status(5, feed.U32_MAX)], []
    )
    sent = feed.encode_frame(
        999, 99, 0, feed.U32_MAX, feed.U64_MAX, feed.U64_MAX - 7, feed.TIME_MAX, frame.times, frame.instruments,
        [value for row in rows for value in row], frame.extras,
    )  # fmt: skip
    assert feed.decode(sent) == frame


# What is wrong is refused

HEADER_FAULTS = {
    "magic": (8, b"\xb8"),
    "version": (9, b"\x02"),
    "kind that differs from the topic": (10, b"Q"),
    "unknown flag": (11, b"\x21"),
    "highest flag": (11, b"\x81"),
    "heartbeat with deltas": (11, b"\x03"),
    "end of stream with deltas": (11, b"\x05"),
    "digest with deltas": (11, b"\x11"),
    "end of event that is none": (11, b"\x00"),
    "engine that differs from the topic": (12, b"\x02\x00"),
    "channel that differs from the topic": (14, b"\x02\x00"),
    "count too small": (16, b"\x03\x00"),
    "count too large": (16, b"\x05\x00"),
    "no count": (16, b"\x00\x00"),
    "codec": (18, b"\x02"),
    "reserved byte": (19, b"\x01"),
    "epoch 0": (32, b"\x00" * 8),
    "sequence 0": (40, b"\x00" * 8),
    "sequences that end beyond 64 bits": (40, b"\xff" * 8),
    "sent beyond 63 bits": (48, b"\xff" * 8),
    "unknown kind": (0, b"X"),
    "topic of another version": (6, b"2"),
    "topic without its stop": (7, b","),
}


def whole_frame() -> bytes:
    rows = [v for i in (1, 2, 3, 4) for v in (feed.ADD | feed.END, 7, i, 100, 5, 0)]
    return feed.encode_frame(
        **STREAM, flags=0, first_seq=1, sent_ns=TIME_NS, times=[(0, 1)], instruments=[(7, 1)], rows=rows
    )


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_header_with_one_fault_is_refused(fault: str) -> None:
    at, wrong = HEADER_FAULTS[fault]
    frame = whole_frame()
    damaged = frame[:at] + wrong + frame[at + len(wrong) :]
    assert damaged != frame
    refused(with_crc(damaged))


def test_a_quote_and_its_heartbeat_follow_no_frame() -> None:
    at = feed.TOPIC_SIZE_Q + 20
    quote = feed.Quote(TIME_NS, 7, 1, feed.OPEN, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    for frame in (
        feed.encode_quote(**STREAM, as_of_seq=1, sent_ns=TIME_NS, quote=quote),
        feed.encode_quote_heartbeat(**STREAM, flags=0, next_seq=1, sent_ns=TIME_NS),
    ):
        assert feed.decode(frame).header.follows == 0
        assert refused(with_crc(frame[:at] + b"\x01" + frame[at + 1 :])) == "a quote follows no frame"


def test_any_flipped_bit_is_refused() -> None:
    frame = whole_frame()
    for at in range(len(frame)):
        for bit in range(8):
            refused(frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :])


def test_any_truncation_is_refused() -> None:
    frame = whole_frame()
    for size in range(len(frame)):
        refused(frame[:size])
        refused(with_crc(frame[:size]))


def test_a_frame_too_long_is_refused() -> None:
    assert "65537 bytes" in refused(whole_frame().ljust(65_537, b"\0"))


GOOD = [1, 5, 100, [[7, 1], [8, 1]], [feed.ADD | feed.END, 0, 1, 0, 5]]
END = feed.END
BODY_FAULTS: dict[str, Any] = {
    "nothing": b"",
    "nil": None,
    "a map": {1: 2},
    "a number": 5,
    "four elements": GOOD[:4],
    "seven elements": [*GOOD, [], []],
    "no extras but their place": [*GOOD, []],
    "an array that is no fixarray": b"\xdc\x00\x05" + msgpack.packb(GOOD)[1:],
    "bytes behind": msgpack.packb(GOOD) + b"\x00",
    "a deep nest": b"\x95" * 5_000,
    "an array that claims four billion elements": b"\x95\x01\x05\x64\x90\xdd\xff\xff\xff\xff",
    "a negative time": [-1, *GOOD[1:]],
    "a time beyond 63 bits": [1 << 63, *GOOD[1:]],
    "a float for a time": [1.0, *GOOD[1:]],
    "a negative base": [1, -1, *GOOD[2:]],
    "a base beyond 63 bits": [1, 1 << 63, 0, GOOD[3], [feed.CLEAR | feed.END, 0]],
    "a price base of 2^40": [1, 5, 1 << 40, GOOD[3], [feed.CLEAR | feed.END, 0]],
    "a price base of -2^40": [1, 5, -(1 << 40), GOOD[3], [feed.CLEAR | feed.END, 0]],
    "no instruments": [*GOOD[:3], [], GOOD[4]],
    "instrument 0": [*GOOD[:3], [[0, 1], [8, 1]], GOOD[4]],
    "instrument 2^32": [*GOOD[:3], [[1 << 32, 1], [8, 1]], GOOD[4]],
    "instrument sequence 0": [*GOOD[:3], [[7, 0], [8, 1]], GOOD[4]],
    "an instrument twice": [*GOOD[:3], [[7, 1], [7, 2]], GOOD[4]],
    "an instrument of three": [*GOOD[:3], [[7, 1, 1], [8, 1]], GOOD[4]],
    "a text for an instrument": [*GOOD[:3], [["7", 1], [8, 1]], GOOD[4]],
}
DELTA_FAULTS: dict[str, list[Any]] = {
    "none": [],
    "op 0": [END, 0],
    "op 11": [11 | END, 0],
    "op 15": [15 | END, 0],
    "a negative op": [-1, 0, 1, 0, 5],
    "bit 7": [128 | feed.ADD | END, 0, 1, 0, 5],
    "a clear with a side": [feed.CLEAR | feed.SELL | END, 0],
    "an op alone": [feed.ADD | END],
    "a value too few": [feed.ADD | END, 0, 1, 0],
    "a value too many": [feed.ADD | END, 0, 1, 0, 5, 0],
    "an index beyond": [feed.ADD | END, 2, 1, 0, 5],
    "a negative index": [feed.ADD | END, -1, 1, 0, 5],
    "a quantity of 0": [feed.ADD | END, 0, 1, 0, 0],
    "a quantity below 0": [feed.ADD | END, 0, 1, 0, -5],
    "a quantity of 2^40": [feed.ADD | END, 0, 1, 0, 1 << 40],
    "an order id of 0": [feed.ADD | END, 0, -5, 0, 5],
    "an order id below 0": [feed.DELETE | END, 0, -6],
    "an order id beyond 63 bits": [feed.DELETE | END, 0, feed.ID_MAX],
    "a price of 2^40": [feed.ADD | END, 0, 1, (1 << 40) - 100, 5],
    "a price of -2^40": [feed.ADD | END, 0, 1, -(1 << 40) - 100, 5],
    "a float for a price": [feed.ADD | END, 0, 1, 0.0, 5],
    "nan for a price": [feed.ADD | END, 0, 1, float("nan"), 5],
    "true for a quantity": [feed.ADD | END, 0, 1, 0, True],
    "nil for a quantity": [feed.ADD | END, 0, 1, 0, None],
    "a text for a quantity": [feed.ADD | END, 0, 1, 0, "5"],
    "bytes for a quantity": [feed.ADD | END, 0, 1, 0, b"5"],
    "an array for a quantity": [feed.ADD | END, 0, 1, 0, [5]],
    "an execution of order 0": [feed.EXECUTE | END, 0, -5, 0, 5, 1],
    "a cancel of nothing": [feed.CANCEL | END, 0, 1, 0],
    "a modify to nothing": [feed.MODIFY | END, 0, 1, 0],
    "a trade id of 0": [feed.TRADE | END, 0, 0, 5, 0],
    "a trade id below 0": [feed.TRADE | END, 0, 0, 5, -1],
    "a trade of nothing": [feed.TRADE | END, 0, 0, 0, 1],
    "a definition without one": [feed.DEFINITION | END, 0, 0],
    "a time on the first delta": [feed.CLEAR | END | feed.TIMED, 0, 5],
}


@pytest.mark.parametrize("fault", BODY_FAULTS)
def test_a_body_with_one_fault_is_refused(fault: str) -> None:
    refused(with_body(BODY_FAULTS[fault]))


@pytest.mark.parametrize("fault", DELTA_FAULTS)
def test_a_delta_with_one_fault_is_refused(fault: str) -> None:
    refused(with_body([*GOOD[:4], DELTA_FAULTS[fault]]))


def test_the_body_those_faults_are_made_from_is_good() -> None:
    assert feed.decode(with_body(GOOD)).rows == [(feed.ADD | END, 7, 6, 100, 5, 0)]


def test_a_frame_of_one_instrument_has_no_indices() -> None:
    alone = [*GOOD[:3], [[7, 1]]]
    without = [feed.ADD | END, 1, 0, 5]
    assert feed.decode(with_body([*alone, without])).rows == [(feed.ADD | END, 7, 6, 100, 5, 0)]
    refused(with_body([*alone, GOOD[4]]))
    refused(with_body([*GOOD[:4], without]))


TWO_DELTA_FAULTS = {
    "a time inside an event": [feed.CLEAR, 0, feed.CLEAR | END | feed.TIMED, 0, 5],
    "a time that stands still": [feed.CLEAR | END, 0, feed.CLEAR | END | feed.TIMED, 0, 0],
    "a time that falls": [feed.CLEAR | END, 0, feed.CLEAR | END | feed.TIMED, 0, -1],
    "a time that leaves 63 bits": [feed.CLEAR | END, 0, feed.CLEAR | END | feed.TIMED, 0, feed.TIME_MAX],
    "a time that is missing": [feed.CLEAR | END, 0, feed.CLEAR | END | feed.TIMED, 0],
    "a trade id that falls": [feed.TRADE | END, 0, 0, 5, 9, feed.TRADE | END, 0, 0, 5, -1],
}


@pytest.mark.parametrize("fault", TWO_DELTA_FAULTS)
def test_two_deltas_that_do_not_go_together_are_refused(fault: str) -> None:
    refused(with_body([*GOOD[:4], TWO_DELTA_FAULTS[fault]], count=2))


def extra_body(code: int, extra: Any, nth: int = 0) -> list[Any]:
    return [1, 0, 0, [[7, 1], [8, 1]], [code | END, 0, nth], extra if isinstance(extra, list) and nth < 0 else [extra]]


ALFA = ["ALFA", "0.01", "1", 1, 100]
EXTRA_FAULTS = {
    "no array": (feed.DEFINITION, 5),
    "a text": (feed.DEFINITION, "ALFA"),
    "too few": (feed.DEFINITION, ALFA[:4]),
    "an empty symbol": (feed.DEFINITION, ["", *ALFA[1:]]),
    "a symbol of 17": (feed.DEFINITION, ["A" * 17, *ALFA[1:]]),
    "a symbol in small letters": (feed.DEFINITION, ["alfa", *ALFA[1:]]),
    "a symbol that ends a line": (feed.DEFINITION, ["ALFA\n", *ALFA[1:]]),
    "a number for a symbol": (feed.DEFINITION, [5, *ALFA[1:]]),
    "a tick of 0": (feed.DEFINITION, ["ALFA", "0.00", *ALFA[2:]]),
    "a tick below 0": (feed.DEFINITION, ["ALFA", "-1", *ALFA[2:]]),
    "a tick with an exponent": (feed.DEFINITION, ["ALFA", "1E3", *ALFA[2:]]),
    "a tick in other digits": (feed.DEFINITION, ["ALFA", "١", *ALFA[2:]]),
    "a lot that is not a number": (feed.DEFINITION, ["ALFA", "1", "NaN", 1, 100]),
    "limits the wrong way round": (feed.DEFINITION, [*ALFA[:3], 100, 1]),
    "a limit of 2^40": (feed.DEFINITION, [*ALFA[:3], 1, 1 << 40]),
    "a limit in text": (feed.DEFINITION, [*ALFA[:3], 1, "100"]),
    "a float inside": (feed.DEFINITION, [*ALFA[:3], 1, 100.0]),
    "an unknown state": (feed.STATUS, [6, 0]),
    "a negative state": (feed.STATUS, [-1, 0]),
    "a state without a reason": (feed.STATUS, [1]),
    "a negative reason": (feed.STATUS, [1, -1]),
    "six statistics": (feed.STATISTICS, [1] * 6),
    "a statistic of 2^40": (feed.STATISTICS, [1 << 40, *[1] * 6]),
    "a negative volume": (feed.STATISTICS, [1, 1, 1, 1, -1, 1, 1]),
}


@pytest.mark.parametrize("fault", EXTRA_FAULTS)
def test_an_extra_with_one_fault_is_refused(fault: str) -> None:
    refused(with_body(extra_body(*EXTRA_FAULTS[fault])))


def test_an_op_that_is_listed_and_not_decoded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(feed._CODES, 14 | END, 14)
    assert "KeyError: 14" in refused(with_body(extra_body(14, [1] * 7)))


def test_an_op_that_is_not_encoded_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        feed.encode_frame(**STREAM, flags=0, first_seq=1, sent_ns=1, times=[(0, 1)], instruments=[(7, 1)],
                          rows=[14, 7, 0, 0, 0, 0], extras=[[1, 0]])  # fmt: skip


def test_extras_must_be_used_in_order_each_once() -> None:
    good = [1, 0, 0, [[7, 1], [8, 1]], [feed.STATUS, 0, 0, feed.STATUS | END, 0, 1], [[1, 0], [2, 0]]]
    assert feed.decode(with_body(good, count=2)).extras == [feed.Status(1, 0), feed.Status(2, 0)]
    for order in ([1, 0], [0, 0], [0, 2], [0, -1]):
        flat = [feed.STATUS, 0, order[0], feed.STATUS | END, 0, order[1]]
        refused(with_body([*good[:4], flat, good[5]], count=2))
    refused(with_body([*good[:5], [*good[5], [3, 0]]], count=2))  # type: ignore[misc]


def test_what_a_later_version_adds_to_an_extra_is_ignored() -> None:
    frame = feed.decode(with_body(extra_body(feed.DEFINITION, [*ALFA, 5, "pro-rata"])))
    assert frame.extras == [feed.Definition("ALFA", "0.01", "1", 1, 100)]


HEARTBEAT_FAULTS: dict[str, tuple[int, Any]] = {
    "a body without the flag": (feed.HEARTBEAT, [[7, 1, 1, 1]]),
    "the flag without a body": (feed.HEARTBEAT | feed.DIGEST, b""),
    "no digest": (feed.HEARTBEAT | feed.DIGEST, []),
    "too many digests": (feed.HEARTBEAT | feed.DIGEST, [[7, 1, 1, 1]] * 1_025),
    "a digest of three": (feed.HEARTBEAT | feed.DIGEST, [[7, 1, 1]]),
    "instrument 0": (feed.HEARTBEAT | feed.DIGEST, [[0, 1, 1, 1]]),
    "a negative sequence": (feed.HEARTBEAT | feed.DIGEST, [[7, -1, 1, 1]]),
    "a negative hash": (feed.HEARTBEAT | feed.DIGEST, [[7, 1, -1, 1]]),
    "a crc of 33 bits": (feed.HEARTBEAT | feed.DIGEST, [[7, 1, 1, 1 << 32]]),
    "an end of event": (feed.HEARTBEAT | feed.END_OF_EVENT, b""),
}


@pytest.mark.parametrize("fault", HEARTBEAT_FAULTS)
def test_a_heartbeat_with_one_fault_is_refused(fault: str) -> None:
    flags, body = HEARTBEAT_FAULTS[fault]
    refused(with_body(body, count=0, flags=flags))


GOOD_QUOTE = [1, 7, 3, feed.OPEN, -5, 10, 2, 6, 10, 2, -5, 1, 1]
QUOTE_FAULTS = {
    "a negative time": (0, -1), "instrument 0": (1, 0), "a negative sequence": (2, -1), "an unknown state": (3, 6),
    "a bid of 2^40": (4, 1 << 40), "a negative quantity": (5, -1), "a quantity without orders": (6, 0),
    "orders without quantity": (8, 0), "a negative count": (9, -1), "a last price of -2^40": (10, -(1 << 40)),
    "a last quantity of 2^40": (11, 1 << 40), "a negative trade id": (12, -1), "a float": (7, 6.0),
}  # fmt: skip


@pytest.mark.parametrize("fault", QUOTE_FAULTS)
def test_a_quote_with_one_fault_is_refused(fault: str) -> None:
    assert feed.decode(with_body(GOOD_QUOTE, kind=feed.KIND_Q)).quote == tuple(GOOD_QUOTE)
    at, wrong = QUOTE_FAULTS[fault]
    refused(with_body([*GOOD_QUOTE[:at], wrong, *GOOD_QUOTE[at + 1 :]], kind=feed.KIND_Q))


def test_a_quote_on_another_instruments_topic_is_refused() -> None:
    frame = with_body(GOOD_QUOTE, kind=feed.KIND_Q)
    refused(with_crc(b"Q012031.0000000008" + frame[18:]))
    heartbeat = feed.encode_quote_heartbeat(**STREAM, flags=0, next_seq=1, sent_ns=1)
    refused(with_crc(b"Q012031.0000000008" + heartbeat[18:]))


# Hostile bytes

SOURCES = [
    whole_frame(),
    with_body(extra_body(feed.DEFINITION, ALFA)),
    feed.encode_heartbeat(**STREAM, flags=0, next_seq=9, sent_ns=1, digests=[feed.Digest(7, 1, 0, -2, 2, 3)] * 3),
    with_body(GOOD_QUOTE, kind=feed.KIND_Q),
]
TELLING = bytes([0, 1, 0x7F, 0x80, 0x90, 0x95, 0xA1, 0xC0, 0xC2, 0xC3, 0xC7, 0xCB, 0xCF, 0xD3, 0xD9, 0xDD, 0xDF, 0xFF])


def mutated(source: bytes, rng: random.Random) -> bytes:
    frame = bytearray(source)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(frame) + 1)
        kind = rng.random()
        if kind < 0.6:
            frame[at : at + 1] = bytes([rng.choice(TELLING) if rng.random() < 0.5 else rng.randrange(256)])
        elif kind < 0.8:
            del frame[at : at + rng.randint(1, 9)]
        else:
            frame[at:at] = rng.choices(TELLING, k=rng.randint(1, 9))
    return bytes(frame)


@given(st.sampled_from(SOURCES), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=1_500)
def test_mutated_frames_give_a_feed_error_or_a_frame(source: bytes, rng: random.Random) -> None:
    frame = with_crc(mutated(source, rng))
    with suppress(FeedError):
        assert isinstance(feed.decode(frame), Frame)


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None, max_examples=300)
def test_random_bytes_give_a_feed_error(noise: bytes, as_body: bool) -> None:
    refused(with_body(noise) if as_body else noise)


# Hashes


orders_in_a_row = st.lists(st.tuples(ids, prices, quantities), max_size=8)


@given(orders_in_a_row, orders_in_a_row)
@settings(deadline=None)
def test_the_hash_tells_any_two_rows_of_orders_apart(one: list[Any], other: list[Any]) -> None:
    first, second = ([word for order in orders for word in order] for orders in (one, other))
    assert (feed.orders_hash(first) == feed.orders_hash(second)) == (one == other)

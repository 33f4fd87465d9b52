"""A reader made from FEED.md alone sees what ours sees, and refuses what ours refuses."""

import asyncio
import random
import re
import zlib
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.stream.mirror import Mirror, MirrorBook, MirrorError
from bus.stream.sequencer import Sequencer
from engine.core.venue import Venue
from proto import cluster_pb2, cluster_pb2_grpc, feed
from proto.columns import LIMIT, Batch
from proto.snapshot import BookSnapshot, Snapshot, decode_snapshot, encode_snapshot
from tests import stranger
from tests.bus.test_node import SYMBOLS, TinyEngine
from tests.engines import cluster_of
from tests.patience import patience
from tests.proto import test_feed, test_snapshot
from tests.stranger import Follower, Told

PAGE = (Path(__file__).resolve().parents[2] / "proto" / "FEED.md").read_text()
GOLDEN = {
    name: bytes.fromhex(body)
    for name, body in re.findall(r"^#### ([^\n]+)\n+```\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
}
FRAMES = [name for name in GOLDEN if name != "snapshot"]
EMPTY = ("heartbeat", "end of stream", "quote heartbeat")
SIDES = ("bid", "ask")


# Ours, in the stranger's words


def in_their_words(frame: feed.Frame, data: bytes) -> Told:
    head = frame.header
    check_at = (18 if data[:1] == b"Q" else 8) + 12
    flags = {feed.END_OF_EVENT: "end", feed.HEARTBEAT: "beat", feed.END_OF_STREAM: "over", feed.FRESH: "fresh",
             feed.DIGEST: "digest"}  # fmt: skip
    told: Told = {
        "kind": chr(head.kind), "engine": head.engine, "channel": head.channel, "incarnation": head.incarnation,
        "epoch": head.epoch, "seq": head.first_seq, "sent": head.sent_ns, "count": head.count,
        "says": {word for flag, word in flags.items() if head.flags & flag},
        "about": frame.quote.instrument if frame.quote else 0, "behind": head.follows,
        "check": int.from_bytes(data[check_at : check_at + 4], "little"),
    }  # fmt: skip
    if frame.quote:
        names = ("time", "instrument", "seq", "state", "bid", "bid_quantity", "bid_orders", "ask", "ask_quantity",
                 "ask_orders", "last", "last_quantity", "trade")  # fmt: skip
        told["quote"] = dict(zip(names, frame.quote, strict=True))
    elif head.flags & feed.DIGEST:
        told["digests"] = [
            {"instrument": d.instrument, "seq": d.instrument_seq, "side": SIDES[d.side], "low": d.low, "high": d.high,
             "hash": d.order_hash} for d in frame.digests
        ]  # fmt: skip
    elif head.count:
        told["deltas"] = list(deltas(frame))
    return told


def deltas(frame: feed.Frame) -> list[Told]:
    seqs = dict(frame.instruments)
    found = []
    for at, (op, instrument, order, price, quantity, trade) in enumerate(frame.rows):
        code = op & feed.OP_MASK
        one: Told = {"what": stranger.WHAT[code], "instrument": instrument, "seq": seqs[instrument],
                     "end": bool(op & feed.END), "time": frame.time_of(at)}  # fmt: skip
        seqs[instrument] += 1
        if code <= feed.TRADE:
            one["side"] = SIDES[op & feed.SELL != 0]
        carries = {"o": ("order", order), "p": ("price", price), "q": ("quantity", quantity), "t": ("trade", trade),
                   "T": ("trade", trade)}  # fmt: skip
        for letter in stranger.CARRIES[one["what"]]:
            if letter == "x":
                one["extra"] = in_words(frame.extras[order])
            else:
                name, value = carries[letter]
                one[name] = value
        found.append(one)
    return found


def in_words(extra: feed.Extra | None) -> Told | None:
    if isinstance(extra, feed.Definition):
        symbol, tick, lot, low, high = extra
        return {"symbol": symbol, "tick": tick, "lot": lot, "low": low, "high": high}
    return extra._asdict() if extra is not None else None


def book_in_words(book: MirrorBook | BookSnapshot) -> Told:
    if isinstance(book, MirrorBook):
        book = book.snapshot()
    return {
        "seq": book.instrument_seq, "definition": in_words(book.definition), "statistics": in_words(book.statistics),
        "indication": in_words(book.indication),
        "state": book.status.state, "reason": book.status.reason,
        "last": (book.last_price, book.last_quantity, book.last_trade_id) if book.last_trade_id else None,
        "bid": [[price, order, size] for order, price, size in book.bids],
        "ask": [[price, order, size] for order, price, size in book.asks],
    }  # fmt: skip


def snapshot_in_words(snapshot: Snapshot) -> Told:
    return {
        "engine": snapshot.engine, "channel": snapshot.channel, "incarnation": snapshot.incarnation,
        "epoch": snapshot.epoch, "last_seq": snapshot.last_seq, "time": snapshot.time_ns,
        "books": {book.instrument: {**book_in_words(book), "next": book.next_trade_id} for book in snapshot.books},
    }  # fmt: skip


def ours(frame: bytes) -> Told | str:
    try:
        return in_their_words(feed.decode(frame), frame)
    except feed.FeedError:
        return "refused"


def theirs(frame: bytes) -> Told | str:
    try:
        return stranger.read(frame)
    except stranger.Refused:
        return "refused"


# Frames


@pytest.mark.parametrize("name", FRAMES)
def test_the_stranger_reads_the_golden_frames(name: str) -> None:
    assert theirs(GOLDEN[name]) == ours(GOLDEN[name]) != "refused"


def test_the_stranger_reads_the_golden_snapshot() -> None:
    told = stranger.read_snapshot(GOLDEN["snapshot"])
    assert told == snapshot_in_words(decode_snapshot(GOLDEN["snapshot"]))
    assert sorted(told["books"]) == [7, 9]


@given(test_feed.frames())
@settings(deadline=None, max_examples=150)
def test_the_stranger_reads_any_frame_of_deltas(frame: feed.Frame) -> None:
    data = test_feed.encoded(frame)
    assert theirs(data) == in_their_words(frame, data)


u32 = st.integers(0, feed.U32_MAX)
u63 = st.integers(0, feed.TIME_MAX)
limits = st.integers(-LIMIT, LIMIT)
digests = st.builds(
    lambda name, seq, side, ends, seen: feed.Digest(name, seq, side, min(ends), max(ends), seen),
    st.integers(1, feed.U32_MAX), st.integers(0, feed.U64_MAX), st.integers(0, 1), st.tuples(limits, limits),
    st.integers(0, feed.U64_MAX),
)  # fmt: skip
streams = st.fixed_dictionaries(
    {
        "engine": st.integers(1, 999),
        "channel": st.integers(0, 99),
        "incarnation": u32,
        "epoch": st.integers(1, feed.U64_MAX),
        "sent_ns": u63,
    }
)


@given(streams, st.integers(1, feed.U64_MAX), st.sampled_from([0, 4, 8, 12]), st.lists(digests, max_size=5), u32)
@settings(deadline=None, max_examples=100)
def test_the_stranger_reads_any_heartbeat(
    stream: Told, next_seq: int, flags: int, found: list[feed.Digest], follows: int
) -> None:
    frame = feed.encode_heartbeat(**stream, next_seq=next_seq, flags=flags, digests=found, follows=follows)
    assert theirs(frame) == ours(frame) != "refused"
    frame = feed.encode_quote_heartbeat(**stream, next_seq=next_seq, flags=flags & 4)
    assert theirs(frame) == ours(frame) != "refused"


tops = st.one_of(
    st.just((0, 0, 0)),
    st.tuples(test_feed.prices, st.integers(1, feed.U64_MAX), st.integers(1, feed.U32_MAX)),
)
lasts = st.one_of(st.just((0, 0, 0)), st.tuples(test_feed.prices, test_feed.quantities, test_feed.ids))


@given(streams, st.integers(1, feed.U64_MAX - 1), u63, st.integers(1, feed.U32_MAX), u63, st.integers(0, 5), tops,
       tops, lasts)  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_the_stranger_reads_any_quote(
    stream: Told, seq: int, time_ns: int, name: int, instrument_seq: int, state: int, bid: Any, ask: Any, last: Any
) -> None:
    quote = feed.Quote(time_ns, name, instrument_seq, state, *bid, *ask, *last)
    frame = feed.encode_quote(**stream, as_of_seq=seq, quote=quote)
    assert theirs(frame) == ours(frame) != "refused"


@given(test_snapshot.snapshots(), st.booleans())
@settings(deadline=None, max_examples=100)
def test_the_stranger_reads_any_snapshot(snapshot: Snapshot, packed: bool) -> None:
    data = encode_snapshot(snapshot, packed)
    assert stranger.read_snapshot(data) == snapshot_in_words(decode_snapshot(data))


# What is wrong is refused by both, or by neither


def spoiled(rng: random.Random, thing: Any) -> Any:
    """The same thing, but for one place in it."""
    if isinstance(thing, list) and thing and rng.random() < 0.9:
        at = rng.randrange(len(thing))
        changed = list(thing)
        chance = rng.random()
        if chance < 0.8:
            changed[at] = spoiled(rng, thing[at])
        elif chance < 0.87:
            del changed[at]
        elif chance < 0.94:
            changed.insert(at, rng.choice([0, 1, "A", [], 7, -1, thing[at]]))
        else:
            other = rng.randrange(len(thing))
            changed[at], changed[other] = changed[other], changed[at]
        return changed
    if type(thing) is int and rng.random() < 0.7:
        return thing + rng.choice([-1, 1, 1, 2, 16, 32, 64, 128, -thing, -2 * thing, LIMIT, 1 - LIMIT])
    return rng.choice([None, True, 1.5, "1", "0.00", "A" * 17, b"1", {}, [], 0, -1, 1, LIMIT, 2**63 - 1, 2**63,
                       2**64 - 1, -(2**63), 10, 42, "a", "1.", "12345678901234567"])  # fmt: skip


def reframed(frame: bytes, body: bytes) -> bytes:
    size = 18 if frame[:1] == b"Q" else 8
    return test_feed.with_crc(frame[: size + 48] + body)


@pytest.mark.parametrize("name", FRAMES)
def test_both_refuse_the_same_bodies(name: str) -> None:
    rng = random.Random(zlib.crc32(name.encode()))
    frame = GOLDEN[name]
    body = frame[(18 if frame[:1] == b"Q" else 8) + 48 :]
    read = 0
    for _ in range(1_500 if body else 50):
        thing = spoiled(rng, msgpack.unpackb(body) if body else [])
        while rng.random() < 0.3:
            thing = spoiled(rng, thing)
        try:
            changed = reframed(frame, msgpack.packb(thing))
        except OverflowError:
            continue
        mine = ours(changed)
        read += mine != "refused"
        assert theirs(changed) == mine, thing
    assert read or not body


@pytest.mark.parametrize("name", FRAMES)
def test_both_refuse_the_same_heads_and_bytes(name: str) -> None:
    rng = random.Random(zlib.crc32(name.encode()))
    for _ in range(1_500):
        frame = bytearray(GOLDEN[name])
        for _ in range(rng.randint(1, 3)):
            frame[rng.randrange(len(frame))] = rng.choice([0, 1, 2, 255, rng.randrange(256)])
        if rng.random() < 0.2:
            del frame[rng.randrange(len(frame)) :]
        elif rng.random() < 0.2:
            frame += bytes(rng.randint(1, 3))
        changed = test_feed.with_crc(bytes(frame))
        assert theirs(changed) == ours(changed), changed.hex()


def widened(thing: Any) -> bytes:
    """msgpack with every integer in 64 bits, every array and text counted in 16 bits."""
    if isinstance(thing, list):
        return b"\xdc" + len(thing).to_bytes(2, "big") + b"".join(map(widened, thing))
    if isinstance(thing, str):
        return b"\xda" + len(thing).to_bytes(2, "big") + thing.encode()
    return (b"\xcf" if thing >= 0 else b"\xd3") + thing.to_bytes(8, "big", signed=thing < 0)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in EMPTY])
def test_both_read_numbers_and_inner_arrays_of_any_width_and_refuse_a_wide_body_of_deltas(name: str) -> None:
    frame = GOLDEN[name]
    size = (18 if frame[:1] == b"Q" else 8) + 48
    thing = msgpack.unpackb(frame[size:])
    wide = reframed(frame, widened(thing))
    narrow = reframed(frame, bytes([0x90 + len(thing)]) + b"".join(map(widened, thing)))
    expected = ours(frame)
    assert isinstance(expected, dict)
    for data, refused in ((narrow, False), (wide, "deltas" in expected)):
        found = theirs(data)
        assert found == ours(data)
        if refused:
            assert found == "refused"
        else:
            assert isinstance(found, dict)
            assert {**found, "check": 0} == {**expected, "check": 0}


def test_both_refuse_the_same_snapshots() -> None:
    rng = random.Random(5)
    whole = GOLDEN["snapshot"]
    read = 0
    for _ in range(5_000):
        thing = msgpack.unpackb(whole[8:])
        thing = spoiled(rng, thing)
        try:
            raw = msgpack.packb(thing)
        except OverflowError:
            continue
        data = whole[:4] + len(raw).to_bytes(4, "little") + raw
        try:
            mine: Any = snapshot_in_words(decode_snapshot(data))
        except feed.FeedError:
            mine = "refused"
        try:
            found: Any = stranger.read_snapshot(data)
        except stranger.Refused:
            found = "refused"
        assert found == mine, thing
        read += mine != "refused"
    assert read > 100


# Books


def test_both_find_the_same_deltas_that_do_not_fit() -> None:
    rng = random.Random(6)
    fit = 0
    for _ in range(400):
        mirror = Mirror()
        books: dict[int, Any] = {}
        seqs = {7: 0, 9: 0}
        for _ in range(30):
            code, name = rng.choice([1, 1, 1, 2, 3, 4, 5, 5, 6, 7]), rng.choice([7, 9])
            side = rng.choice([0, 16]) if code < 7 else 0
            order, price, size, trade = rng.randint(1, 6), rng.randint(98, 102), rng.randint(1, 9), rng.randint(1, 50)
            carries = stranger.CARRIES[stranger.WHAT[code]]
            row = (code | side | feed.END, name, order if "o" in carries else 0, price if "p" in carries else 0,
                   size if "q" in carries else 0, trade if "t" in carries else 0)  # fmt: skip
            seqs[name] += 1
            frame = feed.Frame(
                feed.Header(feed.KIND_D, 1, 1, 0, 1, 1, 1, 5, 1, 1), [row], [(0, 1)], [(name, seqs[name])], [], []
            )
            try:
                mirror.apply([row])
                mine = True
            except MirrorError:
                mine = False
            try:
                stranger.happen(books, deltas(frame)[0])
                found = True
            except stranger.Refused:
                found = False
            assert found == mine, row
            if not mine:
                break
            fit += 1
            assert books == {i: book_in_words(book) for i, book in mirror.books.items()}
    assert fit > 300


@pytest.mark.parametrize("seed", range(5))
def test_the_stranger_keeps_the_venues_books(seed: int) -> None:
    """A run from the venue through the sequencer: the stranger's books are the venue's, order by order."""
    rng = random.Random(seed)
    cluster = cluster_of(1)
    venue, follower, mirror = Venue(1, cluster.instruments), Follower(), Mirror()
    names = [instrument.id for instrument in cluster.instruments]
    channel = cluster.instruments[0].channel
    sequencer = Sequencer(1, channel, 9, 5, fresh=True)
    frames: list[bytes] = []
    for position in range(6, 406):
        size = rng.randint(1, 4)
        live = [order.client_order_id for order in venue.open_orders(7)] or [1]
        targets = [rng.choice(live) for _ in range(size)]
        ops = [rng.choice((1, 1, 1, 2, 3)) for _ in range(size)]
        known = [venue.order(7, target) for target in targets]
        batch = Batch(
            7, 0, 1, ops, [position * 10 + i for i in range(size)],
            [rng.choice(names) if op == 1 or order is None else order.instrument
             for op, order in zip(ops, known, strict=True)],
            [rng.choice((0, 1)) for _ in range(size)], [rng.randint(95, 105) for _ in range(size)],
            [rng.randint(1, 20) for _ in range(size)],
            [0 if op == 1 else target for op, target in zip(ops, targets, strict=True)],
        )  # fmt: skip
        now = position * 1_000
        batch.account = rng.choice((7, 8)) if 1 in ops else 7
        for found in venue.apply(position, now, [batch]).deltas:
            sequencer.append(now, found.rows, found.extras)
        frames += sequencer.take(now, rng.random() < 0.3)
        if rng.random() < 0.05:
            frames += sequencer.take(now, True)
            parts = []
            for name in names:
                for side in (0, 1):
                    low, high, words, _ = venue.books[name].slice(side, None, 5)
                    seq = sequencer.instrument_seq(name)
                    parts.append(feed.Digest(name, seq, side, low, high, feed.orders_hash(words)))
            frames += sequencer.heartbeat(now, parts)
    frames += sequencer.end(10**9)
    for at, data in enumerate(frames):
        follower.hear(stranger.read(data))
        mirror.apply(feed.decode(data).rows)
        if at == len(frames) // 2 and not mirror.held:
            late = stranger.read_snapshot(encode_snapshot(mirror.snapshot(1, channel, 9, 5, 1)))
            for book in late["books"].values():
                del book["next"]
            follower.begin(late)
    assert follower.over
    assert follower.compared > 20
    assert follower.due == sequencer.next_seq > 500
    for name, book in venue.books.items():
        for side, word in enumerate(SIDES):
            assert [[o.price, o.order_id, o.open] for o in book.orders(side)] == follower.books[name][word]
        assert follower.books[name] == book_in_words(mirror.books[name])
        assert follower.books[name]["last"] == (book.last_price, book.last_quantity, book.next_trade_id - 1)


def trade(seq: int, follows: int) -> bytes:
    rows = [feed.TRADE | feed.END, 1, 0, 100, 1, seq]
    return feed.encode_frame(1, 1, 0, 9, 5, seq, seq * 1_000, [(0, 7)], [(1, seq)], rows, (), follows)


def test_the_stranger_refuses_what_follows_another_frame() -> None:
    first = trade(1, 0)
    second = trade(2, feed.crc_of(first))
    wrong = {
        "the first follows none": [trade(1, 7)],
        "a frame": [first, trade(2, 7)],
        "a heartbeat": [first, second, feed.encode_heartbeat(1, 1, 0, 9, 5, 3, 2_500, (), feed.crc_of(first))],
    }
    for what, frames in wrong.items():
        follower = Follower()
        for data in frames[:-1]:
            follower.hear(stranger.read(data))
        with pytest.raises(stranger.Refused, match="another frame was there before"):
            follower.hear(stranger.read(frames[-1]))
        assert follower.due == frames.index(frames[-1]) + 1, what


def test_the_stranger_finds_a_publisher_and_reads_it_from_the_first_frame_on() -> None:
    async def body() -> None:
        engine = TinyEngine()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        async with engine.serving():
            async with grpc.aio.insecure_channel(engine.grpc) as channel:
                stub: Any = cluster_pb2_grpc.DirectoryStub
                answer = await stub(channel).Exchange(cluster_pb2.DirectoryEntries())
            found = stranger.publishers(answer)
            assert found[1]["symbols"] == dict.fromkeys(SYMBOLS.values(), 1)
            assert found[1]["ask"] == [engine.grpc]
            [topic] = found[1]["topics"]
            socket = context.socket(zmq.SUB)
            socket.connect(found[1]["feed"])
            socket.subscribe(topic)
            frames: list[dict[str, Any]] = []
            async with asyncio.timeout(patience(10)):
                while not frames or not frames[-1].get("count"):
                    engine.trade(1)
                    await asyncio.sleep(0.01)
                    while socket.poll(0):
                        data = socket.recv()
                        assert data[: len(topic)] == topic
                        frames.append(stranger.read(data))
            assert (frames[-1]["engine"], frames[-1]["channel"]) == (1, 1)
            socket.close(linger=0)
        context.term()

    asyncio.run(body())


def test_statistics_are_none_before_any_were_told_and_zeros_behind_those_that_say_so() -> None:
    follower, mirror, sequencer = Follower(), Mirror(), Sequencer(1, 1, 9, 5, fresh=True)
    opened = [feed.DEFINITION, 1, 0, 0, 0, 0, feed.STATUS | feed.END, 1, 1, 0, 0, 0]
    zeros = [feed.STATISTICS | feed.END, 1, 0, 0, 0, 0]
    definition: list[Any] = ["ALFA", "0.01", "1", 1, 1_000]
    for seq, rows, extras in ((2, opened, [definition, [2, 0]]), (3, zeros, [[0] * 7])):
        sequencer.append(seq, rows, extras)
        [data] = sequencer.take(seq, True)
        follower.hear(stranger.read(data))
        mirror.apply(feed.decode(data).rows, feed.decode(data).extras)
        taken = stranger.read_snapshot(encode_snapshot(mirror.snapshot(1, 1, 9, 5, 1)))["books"][1]["statistics"]
        session = follower.books[1]["statistics"]
        assert taken == session
        assert session is None if seq == 2 else set(session.values()) == {0}

"""A second reader of the feed, written from FEED.md alone: it shares no code, no names and no manner with ours.

Frames become plain dicts, books plain dicts of lists. It is slow, and says why it refuses what it refuses. Where it had
to guess, FEED.md was mended.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgpack

Told = dict[str, Any]


class Refused(Exception):
    """The page forbids this."""


def must(fine: bool, why: str) -> None:
    if not fine:
        raise Refused(why)


def whole(value: Any, low: int, high: int, what: str) -> int:
    """An integer, not a boolean, from low to high."""
    must(type(value) is int and low <= value <= high, f"{what} is {value!r}")
    return int(value)


BIG = 2**63 - 1  # times, order ids, trade ids
VAST = 2**64 - 1  # sequences, epochs, sums
NEAR = 2**40 - 1  # prices, quantities
WHAT = ["", "add", "cancel", "modify", "delete", "execute", "trade", "clear", "definition", "status", "statistics",
        "indication", "bust", "correction"]  # fmt: skip
CARRIES: dict[str, str] = {
    "add": "opq", "cancel": "oq", "modify": "oq", "delete": "o", "execute": "opqt", "trade": "pqt",
    "clear": "", "definition": "x", "status": "x", "statistics": "x", "indication": "x", "bust": "T",
    "correction": "pqT",
}  # fmt: skip


# ---- one frame


def read(message: bytes) -> Told:
    """One ZeroMQ message, taken apart and checked whole."""
    must(len(message) <= 65536, "too long")
    topic = re.match(rb"([DQ])(\d{3})(\d\d)1\.", message)
    must(topic is not None, "topic")
    assert topic
    letter = topic[1].decode()
    about = 0
    cut = 8
    if letter == "Q":
        must(re.fullmatch(rb"\d{10}", message[8:18]) is not None, "instrument of the topic")
        about, cut = int(message[8:18]), 18
        must(about < 2**32, "instrument of the topic")
    must(len(message) >= cut + 48, "cut short")
    head = message[cut : cut + 48]
    (magic, version, kind, bits, engine, channel, count, codec, void, check, incarnation, behind, epoch, seq, sent) = (
        struct.unpack("<BBBBHHHBBIIIQQQ", head)
    )
    must((magic, version, codec, void) == (0xB7, 1, 1, 0), "header")
    must(letter == "D" or behind == 0, "a quote is behind nothing")
    must((chr(kind), engine, channel) == (letter, int(topic[2]), int(topic[3])), "topic and header differ")
    must(1 <= engine <= 999 and channel <= 99, "engine or channel")
    must(epoch >= 1 and seq >= 1 and seq + count <= VAST and sent <= BIG, "epoch, sequence or time")
    body = message[cut + 48 :]
    must(zlib.crc32(message[:cut] + head[:12] + head[16:] + body) == check, "crc")
    must(bits < 32, "flags")
    says = {name for at, name in enumerate(("end", "beat", "over", "fresh", "digest")) if bits >> at & 1}
    must("beat" in says or not says & {"over", "digest"}, "flag of a heartbeat")
    must(letter == "D" or not says & {"fresh", "digest"}, "flag of a stream")
    must(("beat" in says) == (count == 0), "count")
    must(not {"beat", "end"} <= says, "a heartbeat ends no event")
    told: Told = {
        "kind": letter, "engine": engine, "channel": channel, "incarnation": incarnation, "epoch": epoch, "seq": seq,
        "sent": sent, "count": count, "says": says, "about": about, "check": check, "behind": behind,
    }  # fmt: skip
    if "digest" in says:
        told["digests"] = list(digests(unpacked(body)))
    elif "beat" in says:
        must(body == b"" and about == 0, "a heartbeat with more than a heartbeat has")
    elif letter == "Q":
        must(count == 1 and "end" in says, "a quote is one, and whole")
        told["quote"] = quote(unpacked(body), about)
    else:
        must(body[:1] in (b"\x95", b"\x96"), "not a fixarray of 5 or 6")
        told["deltas"] = list(deltas(unpacked(body), count, "end" in says))
    return told


def unpacked(body: bytes) -> list[Any]:
    try:
        thing = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise Refused(f"msgpack: {error}") from error
    must(type(thing) is list, "not an array")
    return thing  # type: ignore[no-any-return]


def sized(value: Any, size: int, what: str) -> list[Any]:
    must(type(value) is list and len(value) == size, what)
    return value  # type: ignore[no-any-return]


def deltas(body: list[Any], count: int, ends: bool) -> Iterator[Told]:
    must(len(body) in (5, 6), "body")
    clock, base, price = whole(body[0], 0, BIG, "time"), whole(body[1], 0, BIG, "base"), body[2]
    whole(price, -NEAR, NEAR, "price0")
    must(type(body[3]) is list and type(body[4]) is list, "lists")
    where = [[whole(v, 1, top, "instrument") for v, top in zip(sized(p, 2, "pair"), (2**32 - 1, VAST), strict=True)]
             for p in body[3]]  # fmt: skip
    must(len({i for i, _ in where}) == len(where), "an instrument twice")
    extras = body[5] if len(body) == 6 else []
    must(type(extras) is list and (len(body) == 5 or len(extras) > 0), "extras")
    trades, steps, used, first, opens = dict.fromkeys(range(len(where)), 0), [0] * len(where), 0, True, True
    flat = iter(body[4])

    def take(what: str) -> int:
        value = next(flat, None)
        must(type(value) is int, what)
        return value  # type: ignore[return-value]

    ended = False
    for _ in range(count):
        op = whole(take("op"), 0, 127, "op")
        must(1 <= op & 15 <= 13, "operation")
        name = WHAT[op & 15]
        at = 0 if len(where) == 1 else whole(take("index"), 0, len(where) - 1, "index")
        sell, ended, timed = bool(op & 16), bool(op & 32), bool(op & 64)
        must(not sell or op & 15 <= 6, "a side where none is")
        one: Told = {"what": name, "instrument": where[at][0], "seq": where[at][1] + steps[at], "end": ended}
        steps[at] += 1
        if op & 15 <= 6:
            one["side"] = "ask" if sell else "bid"
        for letter in CARRIES[name]:
            value = take(letter)
            if letter == "o":
                one["order"] = whole(base + value, 1, BIG, "order id")
            elif letter == "p":
                price = one["price"] = whole(price + value, -NEAR, NEAR, "price")
            elif letter == "q":
                one["quantity"] = whole(value, 1, NEAR, "quantity")
            elif letter == "t":
                must(value >= 0, "a trade id that falls")
                trades[at] = one["trade"] = whole(trades[at] + value, 1, BIG, "trade id")
            elif letter == "T":
                one["trade"] = whole(value, 1, BIG, "trade id")
            else:
                must(value == used < len(extras), "extras in order")
                one["extra"] = EXTRAS[name](extras[used])
                used += 1
        if timed:
            must(opens and not first, "a time within an event")
            clock = whole(clock + whole(take("time"), 1, BIG, "time"), 0, BIG, "time")
        one["time"], first, opens = clock, False, ended
        yield one
    must(next(flat, None) is None, "more behind the last delta")
    must(used == len(extras), "an extra that nobody uses")
    must(ended == ends, "end of event")


def decimal_text(value: Any) -> str:
    must(type(value) is str and re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", value, re.ASCII) is not None, "decimal")
    must(value.strip("0.") != "", "decimal above 0")
    return str(value)


def plain(extra: Any, size: int, what: str) -> None:
    must(type(extra) is list and len(extra) >= size, what)
    for value in extra:
        must(type(value) is str or (type(value) is int and -(2**63) <= value <= VAST), what)


def definition(extra: Any) -> Told:
    plain(extra, 5, "definition")
    symbol, tick, lot, low, high = extra[:5]
    must(type(symbol) is str and re.fullmatch(r"[A-Z0-9._-]{1,16}", symbol) is not None, "symbol")
    whole(low, -NEAR, NEAR, "lowest")
    return {"symbol": symbol, "tick": decimal_text(tick), "lot": decimal_text(lot), "low": low,
            "high": whole(high, low, NEAR, "highest")}  # fmt: skip


def status(extra: Any) -> Told:
    plain(extra, 2, "status")
    return {"state": whole(extra[0], 0, 5, "state"), "reason": whole(extra[1], 0, 2**32 - 1, "reason")}


def statistics(extra: Any) -> Told:
    plain(extra, 7, "statistics")
    for price in extra[:4]:
        whole(price, -NEAR, NEAR, "a price of the session")
    whole(extra[4], 0, VAST, "volume")
    whole(extra[5], -(2**63), VAST, "turnover")
    whole(extra[6], 0, VAST, "trades")
    return dict(zip(("open", "high", "low", "last", "volume", "turnover", "trades"), extra, strict=False))


def indication(extra: Any) -> Told:
    plain(extra, 3, "indication")
    whole(extra[0], -NEAR, NEAR, "price")
    whole(extra[1], 0, VAST, "volume")
    whole(extra[2], -(2**63), VAST, "imbalance")
    return dict(zip(("price", "volume", "imbalance"), extra, strict=False))


EXTRAS: dict[str, Any] = {
    "definition": definition, "status": status, "statistics": statistics, "indication": indication,
}  # fmt: skip


def digests(body: list[Any]) -> Iterator[Told]:
    must(1 <= len(body) <= 1024, "digests")
    for row in body:
        instrument, seq, side, low, high, seen = sized(row, 6, "digest")
        whole(instrument, 1, 2**32 - 1, "instrument")
        whole(seq, 0, VAST, "instrument sequence")
        whole(side, 0, 1, "side")
        whole(low, -(2**40), 2**40, "low")
        whole(high, low, 2**40, "high")
        whole(seen, 0, 2**64 - 1, "hash")
        yield {"instrument": instrument, "seq": seq, "side": ("bid", "ask")[side], "low": low, "high": high,
               "hash": seen}  # fmt: skip


def quote(body: list[Any], about: int) -> Told:
    names = ("time", "instrument", "seq", "state", "bid", "bid_quantity", "bid_orders", "ask", "ask_quantity",
             "ask_orders", "last", "last_quantity", "trade")  # fmt: skip
    told = dict(zip(names, sized(body, 13, "quote"), strict=True))
    tops = {"time": BIG, "state": 5, "instrument": 2**32 - 1, "last_quantity": NEAR, "trade": BIG}
    for name, value in told.items():
        if name in ("bid", "ask", "last"):
            whole(value, -NEAR, NEAR, name)
        else:
            whole(value, 0, tops.get(name, VAST), name)
    must(told["instrument"] == about >= 1, "the topic's instrument")
    for side in ("bid", "ask"):
        some = told[f"{side}_orders"] > 0
        must(some == (told[f"{side}_quantity"] > 0), "orders without quantity, or the reverse")
        must(some or told[side] == 0, "a price of no orders")
    return told


# ---- books


def blank() -> Told:
    return {"seq": 0, "bid": [], "ask": [], "state": 0, "reason": 0, "definition": None, "statistics": None,
            "indication": None, "last": None}  # fmt: skip


def happen(books: dict[int, Told], one: Told) -> None:
    """One delta does its work on the books: each side a list of [price, order, quantity], in priority order."""
    book = books.setdefault(one["instrument"], blank())
    must(one["seq"] == book["seq"] + 1, "a delta of this instrument is missing")
    book["seq"] = one["seq"]
    what = one["what"]
    if what == "clear":
        book["bid"], book["ask"] = [], []
    elif what == "definition":
        book["definition"] = one["extra"]
    elif what == "status":
        book.update(one["extra"])
        book["indication"] = None
        if one["extra"]["reason"] == 49:
            book["definition"] = None
    elif what == "statistics":
        book["statistics"] = one["extra"]
    elif what == "indication":
        book["indication"] = one["extra"] if any(one["extra"].values()) else None
    elif what == "add":
        must(all(row[1] != one["order"] for row in book["bid"] + book["ask"]), "added twice")
        rows, better = book[one["side"]], (-1 if one["side"] == "bid" else 1)
        place = sum(row[0] * better <= one["price"] * better for row in rows)
        rows.insert(place, [one["price"], one["order"], one["quantity"]])
    elif what not in ("trade", "bust", "correction"):
        rows = book[one["side"]]
        place = next((n for n, row in enumerate(rows) if row[1] == one["order"]), -1)
        must(place >= 0, "not there")
        if what == "execute":
            past = one["price"] - rows[place][0]
            must((past <= 0) if one["side"] == "bid" else (past >= 0), "worse than the order's own price")
        left = {"cancel": rows[place][2] - one.get("quantity", 0), "execute": rows[place][2] - one.get("quantity", 0),
                "modify": one.get("quantity", 0), "delete": 0}[what]  # fmt: skip
        must(left > 0 or (left == 0 and what in ("delete", "execute")), "more than there is")
        rows[place][2] = left
        if left == 0:
            del rows[place]
    if what in ("trade", "execute"):
        must(book["last"] is None or one["trade"] >= book["last"][2], "a trade id that falls")
        if book["last"] is None or one["trade"] > book["last"][2]:
            book["statistics"] = with_trade(book["statistics"], one["price"], one["quantity"])
        book["last"] = (one["price"], one["quantity"], one["trade"])


def with_trade(session: Told | None, price: int, quantity: int) -> Told:
    """A session after one more trade."""
    if session is None or not session["trades"]:
        session = {"open": price, "high": price, "low": price, "volume": 0, "turnover": 0, "trades": 0}
    return {
        "open": session["open"], "high": max(session["high"], price), "low": min(session["low"], price), "last": price,
        "volume": session["volume"] + quantity, "turnover": session["turnover"] + price * quantity,
        "trades": session["trades"] + 1,
    }  # fmt: skip


def fingerprint(book: Told, side: str, low: int, high: int) -> int:
    """The hash of one side between two prices."""
    within = [row for row in book[side] if low <= row[0] <= high]
    wide = b"".join(struct.pack("<QqQ", order, price, size) for price, order, size in within)
    return int.from_bytes(hashlib.blake2b(wide, digest_size=8).digest(), "little")


class Follower:
    """Reads one stream without holes, from its fresh start or from a snapshot."""

    def __init__(self) -> None:
        self.books: dict[int, Told] = {}
        self.due = 1
        self.sent = 0
        self.link: int | None = 0  # the check of the frame that ended before `due`; None behind a snapshot
        self.over = False
        self.compared = 0

    def hear(self, told: Told) -> None:
        if told["sent"] <= self.sent:
            raise Refused("sent before the last one")
        self.sent = told["sent"]
        if told["seq"] == self.due and self.link is not None:
            must(told["behind"] == self.link, "another frame was there before")
        if "beat" in told["says"]:
            must(told["seq"] == self.due, "the tail is lost")
            self.link = told["behind"]
            self.over |= "over" in told["says"]
        for seq, one in enumerate(told.get("deltas", ()), told["seq"]):
            must(seq <= self.due, "a hole")
            if seq == self.due:
                happen(self.books, one)
                self.due += 1
                self.link = told["check"]
        for digest in told.get("digests", ()):
            book = self.books.get(digest["instrument"], blank())
            must(book["seq"] == digest["seq"], "instrument sequence")
            seen = fingerprint(book, digest["side"], digest["low"], digest["high"])
            must(seen == digest["hash"], "the book is wrong")
            self.compared += 1

    def begin(self, snapshot: Told) -> None:
        self.books, self.due, self.link = snapshot["books"], snapshot["last_seq"] + 1, None


# ---- snapshots


def read_snapshot(data: bytes) -> Told:
    must(len(data) >= 8, "cut short")
    version, packing, void, size = struct.unpack("<BBHI", data[:8])
    must(version in (1, 2) and packing in (0, 1) and void == 0 and size <= 67108864, "head of the snapshot")
    payload = data[8:]
    if packing == 1:
        unzip = zlib.decompressobj()
        try:
            payload = unzip.decompress(payload, size + 1)
        except zlib.error as error:
            raise Refused(str(error)) from error
        must(unzip.eof and not unzip.unused_data, "zlib")
    must(len(payload) == size, "size")
    engine, channel, incarnation, epoch, last_seq, taken, books = sized(unpacked(payload), 7, "snapshot")
    told: Told = {
        "engine": whole(engine, 1, 999, "engine"), "channel": whole(channel, 0, 99, "channel"),
        "incarnation": whole(incarnation, 0, 2**32 - 1, "incarnation"), "epoch": whole(epoch, 1, VAST, "epoch"),
        "last_seq": whole(last_seq, 0, VAST - 1, "last"), "time": whole(taken, 0, BIG, "time"), "books": {},
    }  # fmt: skip
    must(type(books) is list, "books")
    for row in books:
        if version == 1:
            row = [*row[:6], [], *row[6:]] if type(row) is list else row
        instrument, defined, stands, seq, last, session, would, bids, asks = sized(row, 9, "book")
        must(whole(instrument, 1, 2**32 - 1, "instrument") not in told["books"], "a book twice")
        book = blank()
        book["definition"] = None if defined == [] else definition(defined)
        book["statistics"] = None if session == [] else statistics(session)
        book["indication"] = None if would == [] else indication(would)
        book.update(status(stands))
        book["seq"] = whole(seq, 0, VAST, "instrument sequence")
        price, quantity, trade, following = sized(last, 4, "last trade")
        whole(price, -NEAR, NEAR, "last price")
        whole(quantity, 0, NEAR, "last quantity")
        whole(trade, 0, BIG, "last trade")
        whole(following, 1, BIG, "next trade")
        must(following > trade, "next trade")
        book["last"] = (price, quantity, trade) if trade else None
        book["next"] = following
        for side, columns, better in (("bid", bids, -1), ("ask", asks, 1)):
            ids, prices, sizes = sized(columns, 3, "columns")
            must(all(type(c) is list for c in (ids, prices, sizes)), "columns")
            must(len(ids) == len(prices) == len(sizes), "columns of one length")
            order = price = 0
            for n, (far, step, much) in enumerate(zip(ids, prices, sizes, strict=True)):
                order = whole(order + whole(far, -BIG, BIG, "id"), 1, BIG, "id")
                price = whole(price + whole(step, -2 * NEAR, 2 * NEAR, "price"), -NEAR, NEAR, "price")
                must(n == 0 or step * better >= 0, "not best first")
                book[side].append([price, order, whole(much, 1, NEAR, "quantity")])
        must(len({row[1] for row in book["bid"] + book["ask"]}) == len(ids) + len(bids[0]), "an id twice")
        told["books"][instrument] = book
    return told


def publishers(answer: Any) -> dict[int, Told]:
    """By engine: where it publishes, on which channels, and whom to ask for snapshots; out of an answer of Exchange."""
    machines: dict[str, Any] = {}
    for entry in answer.entries:
        known = machines.get(entry.name)
        if known is None or (known.epoch, known.version) < (entry.epoch, entry.version):
            machines[entry.name] = entry
    here = [entry for entry in machines.values() if not entry.left]
    nodes = [entry.grpc for entry in here if entry.fabric]
    return {
        entry.engine: {
            "feed": entry.feed,
            "topics": [b"D%03d%02d1." % (entry.engine, channel) for channel in range(1, entry.channels + 1)],
            "ask": [*nodes, entry.grpc],
            "symbols": {each.symbol: each.channel for each in entry.instruments},
        }
        for entry in here
        if not entry.fabric
    }

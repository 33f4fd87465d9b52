"""A stranger's view of the feed: its lines, its ladder, its second opinion, and the program itself."""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import random
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from bus.stream.actions import Action, Applied, State, StateChanged
from bus.stream.conflation import Quoted, QuoteReader
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus, Sequencer
from engine.client import Client, Session
from proto import cluster, feed
from proto.columns import BUY, SELL
from proto.feed import ADD, DEFINITION, DELETE, END, EXECUTE, MODIFY, STATUS
from proto.feed import SELL as ASK
from tools import tail_feed
from tools.chaos.plan import sealed
from tools.child import Child, Children
from tools.ladder import Level, draw, plain
from tools.run.layout import made_up
from tools.tail.lines import Line, book_line, frame_line, lines_of
from tools.tail.recording import (
    FRAME,
    MAGIC,
    RANGE,
    Record,
    RecordingError,
    Writer,
    range_body,
    range_of,
    read,
    venue_of,
)
from tools.tail.shadow import Recent, second_opinion
from tools.tail_feed import in_words

PATIENCE_S = 20.0
HANGS_S = 100.0  # all that a test waits for, one after the other, each with a deadline of its own; then it hangs
ROOT = Path(__file__).resolve().parents[2]
ALFA = [DEFINITION, 1, 0, 0, 0, 0, STATUS | END, 1, 1, 0, 0, 0]
EXTRAS: list[list[object]] = [["ALFA", "0.01", "10", 1, 1_000], [2, 0]]
BOUGHT = [ADD | END, 1, 11, 99, 5, 0]
OFFERED = [ADD | ASK | END, 1, 12, 101, 7, 0]
TRADED = [EXECUTE | ASK, 1, 12, 101, 3, 1, ADD | END, 1, 13, 98, 4, 0]
CHANGED = [MODIFY | END, 1, 11, 0, 2, 0]
GONE = [DELETE | END, 1, 13, 0, 0, 0]


class Stream:
    """A publisher and a reader in one process; frames may be kept from the reader."""

    def __init__(self) -> None:
        self.sequencer = Sequencer(1, 1, 77, 1, fresh=True)
        self.client = FeedClient(1, 1, random.Random(1))
        self.now_ns = 1_000
        self.client.start(self.now_ns)

    def publish(self, *events: list[int], extras: list[list[object]] | None = None) -> list[bytes]:
        self.now_ns += 1_000
        for event in events:
            self.sequencer.append(1_700_000_000, event, extras or [])
        return self.sequencer.take(self.now_ns, flush=True)

    def hear(self, frames: list[bytes]) -> list[Action]:
        self.now_ns += 1_000
        return [action for frame in frames for action in self.client.frame(frame, self.now_ns)]

    def lines(self, actions: list[Action]) -> list[Line]:
        return [line for action in actions for line in lines_of(self.client, action, lambda instrument: True)]


def opened() -> Stream:
    """A stream that is live, with a bid of 5 @ 99 and an offer of 7 @ 101."""
    stream = Stream()
    stream.hear(stream.publish(ALFA, extras=EXTRAS))
    stream.hear(stream.publish(BOUGHT, OFFERED))
    assert stream.client.state is State.LIVE
    return stream


def test_deltas_are_told_one_a_line_with_decimal_prices_and_quantities() -> None:
    stream = opened()
    lines = stream.lines(stream.hear(stream.publish(TRADED)))
    common = {"symbol": "ALFA", "epoch": 1, "time_ns": 1_700_000_000}
    assert lines == [
        {
            "event": "execute", **common, "seq": 5, "side": "sell", "order_id": 12, "price": "1.01", "quantity": "30",
            "trade_id": 1,
        },
        {
            "event": "add", **common, "seq": 6, "side": "buy", "order_id": 13, "price": "0.98", "quantity": "40",
            "end": True,
        },
    ]  # fmt: skip


def test_definitions_and_states_are_told_in_words() -> None:
    stream = Stream()
    state, definition, status = stream.lines(stream.hear(stream.publish(ALFA, extras=EXTRAS)))
    assert (state["event"], state["from"], state["to"]) == ("state", "joining", "live")
    assert {k: definition[k] for k in ("event", "symbol", "tick_size", "lot_size", "price_min", "price_max")} == {
        "event": "definition", "symbol": "ALFA", "tick_size": "0.01", "lot_size": "10", "price_min": 1,
        "price_max": 1_000,
    }  # fmt: skip
    assert (status["event"], status["state"], status["reason"], status["end"]) == ("status", "open", 0, True)


def test_a_gap_and_its_repair_are_told_and_so_are_the_books_that_are_not_valid() -> None:
    stream = opened()
    lost = stream.publish(TRADED)
    told = stream.lines(stream.hear(stream.publish(CHANGED)))
    assert told[0]["event"] == "state" or told[1]["event"] == "state"
    gap = next(line for line in told if line["event"] == "gap")
    assert gap == {
        "event": "gap", "engine": 1, "channel": 1, "epoch": 1, "first": 5, "last": 6, "cause": "frame",
        "not_valid": ["ALFA"],
    }  # fmt: skip
    asked = stream.client.tick(stream.now_ns + 1_000_000)[0]
    repaired = stream.lines(
        stream.client.range_reply(asked.ask, RangeStatus.OK, 1, lost, stream.now_ns + 3_000_000)  # type: ignore[union-attr]
    )
    events = [line["event"] for line in repaired]
    assert sorted(events) == ["add", "execute", "modify", "repaired", "state"]
    line = repaired[events.index("repaired")]
    assert (line["first"], line["last"], line["how"]) == (5, 6, "range")
    assert line["took_ms"] == 3.0


def test_a_book_is_told_by_order_in_queue_order() -> None:
    stream = opened()
    stream.hear(stream.publish([ADD | END, 1, 10, 99, 8, 0]))
    assert book_line(stream.client, 1) == {
        "event": "book",
        "symbol": "ALFA",
        "engine": 1,
        "channel": 1,
        "epoch": 1,
        "sequence": 5,
        "instrument_sequence": 5,
        "state": "valid",
        "trading_state": "open",
        "bids": [
            {"order_id": 11, "price": "0.99", "quantity": "50"},
            {"order_id": 10, "price": "0.99", "quantity": "80"},
        ],
        "asks": [{"order_id": 12, "price": "1.01", "quantity": "70"}],
    }


def recorded(stream: Stream, recent: Recent, actions: list[Action]) -> None:
    for action in actions:
        if type(action).__name__ == "Applied":
            recent.applied(action)  # type: ignore[arg-type]


def snapshot_of(stream: Stream) -> Any:
    return stream.client.mirror.snapshot(1, 1, 77, 1, 0)


def test_a_snapshot_that_is_behind_is_carried_forward_to_our_own_sequence_and_agrees() -> None:
    stream, recent = opened(), Recent()
    recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    old = snapshot_of(stream)
    recorded(stream, recent, stream.hear(stream.publish(TRADED, GONE)))
    assert second_opinion(stream.client, recent, old) == (3, ())
    assert second_opinion(stream.client, recent, snapshot_of(stream)) == (0, ())


def test_a_snapshot_from_the_middle_of_a_frame_is_carried_over_the_rest_of_it() -> None:
    stream, recent = opened(), Recent()
    other = opened()
    other.hear(other.publish(CHANGED))
    recorded(stream, recent, stream.hear(stream.publish(CHANGED, TRADED, GONE)))
    assert second_opinion(stream.client, recent, snapshot_of(other)) == (3, ())
    recorded(stream, recent, stream.hear(stream.publish([*BOUGHT[:2], 15, 97, 1, 0])))
    other.hear(other.publish(TRADED, GONE))
    assert second_opinion(stream.client, recent, snapshot_of(other)) == (1, ())


def test_one_wrong_quantity_or_two_orders_out_of_turn_are_found() -> None:
    stream, recent = opened(), Recent()
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 14, 99, 8, 0])))
    right = snapshot_of(stream)
    book = right.books[0]
    wrong = right._replace(books=[book._replace(asks=[(12, 101, 8)])])
    queue = right._replace(books=[book._replace(bids=book.bids[::-1])])
    recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    assert second_opinion(stream.client, recent, wrong) == (
        1, ("ALFA asks: 1 orders, 1 at its owner; they differ from #1",)
    )  # fmt: skip
    found = second_opinion(stream.client, recent, queue)
    assert found == (1, ("ALFA bids: 2 orders, 2 at its owner; they differ from #1",))


def test_an_order_that_the_other_machine_never_had_is_found() -> None:
    stream, recent = opened(), Recent()
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 14, 99, 8, 0])))
    snapshot = snapshot_of(stream)
    lacking = snapshot._replace(books=[snapshot.books[0]._replace(bids=[])])
    recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    carried, differing = second_opinion(stream.client, recent, lacking) or (0, ())
    assert carried == 1
    assert differing == ("order 11 of instrument 1 is not in the book on that side",)


def test_what_cannot_be_compared_is_not() -> None:
    stream, recent = opened(), Recent()
    old = snapshot_of(stream)
    assert second_opinion(stream.client, recent, old._replace(epoch=2)) is None
    assert second_opinion(stream.client, recent, old._replace(last_seq=9)) is None  # ahead of us
    stream.hear(stream.publish(CHANGED))  # not recorded
    assert second_opinion(stream.client, recent, old) is None
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 20, 90, 1, 0])))
    assert second_opinion(stream.client, recent, old) is None  # the deltas kept begin too late
    middle = snapshot_of(stream)
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 21, 90, 1, 0])))
    assert second_opinion(stream.client, recent, middle._replace(last_seq=9)) is None  # ahead of us, still
    stream.hear(stream.publish([ADD | END, 1, 22, 90, 1, 0]))  # not recorded
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 23, 90, 1, 0])))
    assert second_opinion(stream.client, recent, middle) is None  # a hole in what is kept


def test_only_the_last_deltas_are_kept() -> None:
    stream, recent = opened(), Recent(deltas_max=2)
    old = snapshot_of(stream)
    for _ in range(3):
        recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    assert not recent.reaches(1, old.last_seq)
    assert recent.reaches(1, old.last_seq + 1)


def test_from_a_snapshot_the_book_comes_first_and_only_later_deltas_follow() -> None:
    asyncio.run(_from_a_snapshot())


async def _from_a_snapshot() -> None:
    (instrument,) = made_up(1, 1).instruments
    args = tail_feed.parser().parse_args(["127.0.0.1:1", "--from-snapshot", "--count", "1"])
    listener = tail_feed.Listener(args, [], [instrument])
    try:
        stream = Stream()
        first = stream.publish(ALFA, extras=EXTRAS) + stream.publish(BOUGHT, OFFERED)
        for action in stream.hear(first):
            listener.on_action(stream.client, action)
        await asyncio.sleep(0)
        for action in stream.hear(stream.publish(CHANGED)):
            listener.on_action(stream.client, action)
        book, changed = [line for line in listener.said.lines if line["event"] != "state"]
        assert (book["event"], book["sequence"], len(book["bids"]), len(book["asks"])) == ("book", 4, 1, 1)
        assert (changed["event"], changed["seq"], listener.said.why) == ("modify", 5, "counted")
    finally:
        await listener.stop()


@pytest.mark.parametrize(
    ("bound", "told", "why"),
    [
        (["--until-seq", "4"], [3, 4], "reached"),
        (["--until-seq", "6"], [3, 4, 5, 6], "reached"),
        (["--count", "3"], [3, 4, 5], "counted"),
    ],
)
def test_deltas_that_come_while_older_ones_are_fetched_wait_and_the_bound_is_counted_from_the_oldest(
    bound: list[str], told: list[int], why: str
) -> None:
    asyncio.run(_older_first(bound, told, why))


async def _older_first(bound: list[str], told: list[int], why: str) -> None:
    (instrument,) = made_up(1, 1).instruments
    listener = tail_feed.Listener(
        tail_feed.parser().parse_args(["127.0.0.1:1", "--from-seq", "3", *bound]), [], [instrument]
    )
    stream = Stream()
    applied = [action for action in stream.hear(stream.publish(ALFA, extras=EXTRAS)) if isinstance(action, Applied)]
    applied += [action for action in stream.hear(stream.publish(BOUGHT, OFFERED)) if isinstance(action, Applied)]
    listener._subscriber.clients[1, 1] = stream.client

    async def older(client: FeedClient, first: int, last: int) -> list[Applied]:
        assert (first, last) == (3, 4)
        for action in stream.hear(stream.publish(TRADED) + stream.publish(CHANGED)):
            listener.on_action(client, action)
        return applied

    listener._older = older  # type: ignore[method-assign]
    try:
        await listener.tell_history()
        assert [line["seq"] for line in listener.said.lines if "seq" in line] == told
        assert (listener.said.why, listener.wants_history) == (why, False)
    finally:
        listener._subscriber.clients.clear()
        await listener.stop()


def test_a_bound_that_was_passed_ends_it_without_a_delta_beyond(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording(tmp_path / "a.rec")
    assert (
        tail_feed.main(["--play", str(tmp_path / "a.rec"), "--speed", "0", "--from-seq", "5", "--until-seq", "2"]) == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ([line for line in lines if "seq" in line], lines[-1]["why"]) == ([], "reached")


def test_of_a_recording_too_the_book_comes_first_and_later_deltas_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording(tmp_path / "a.rec")
    assert tail_feed.main(["--play", str(tmp_path / "a.rec"), "--speed", "0", "--from-snapshot"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (book,) = [line for line in lines if line["event"] == "book"]
    assert [line["seq"] for line in lines if "seq" in line] == list(range(book["sequence"] + 1, 9))
    assert book["sequence"] == 4


@pytest.mark.parametrize("quoted", [True, False])
def test_a_book_whose_stream_is_too_fast_is_lagged_or_its_best_prices_alone(quoted: bool) -> None:
    asyncio.run(_too_fast(quoted))


async def _too_fast(quoted: bool) -> None:
    (instrument,) = made_up(1, 1).instruments
    listener = tail_feed.Listener(tail_feed.parser().parse_args(["127.0.0.1:1", "--conflate"]), [], [instrument])
    try:
        stream = Stream()
        stream.hear(stream.publish(ALFA, extras=EXTRAS) + stream.publish(BOUGHT, OFFERED))
        stream.client.state = State.LAGGED
        listener._subscriber.clients[1, 1] = stream.client
        if quoted:
            quote = feed.Quote(77, 1, 9, 1, 12_340, 5, 2, 0, 0, 0, 12_345, 3, 8)
            reader = listener._subscriber.quotes[1, 1] = QuoteReader(1, 1)
            reader.state, reader.quotes[1] = State.LIVE, Quoted(4, 90, quote)
            listener.on_quote(reader, Quoted(4, 90, quote))
        view = tail_feed.view_of(listener, instrument, 5, 0)
        lines = list(listener.said.lines)
        if not quoted:
            assert (view.state, lines) == ("lagged", [])
            return
        assert (view.state, view.epoch, view.sequence, view.last) == ("conflated", 4, 90, (12_345, 3))
        assert view.lag_ms == 0  # of the quotes
        assert (list(view.bids), list(view.asks)) == ([Level(12_340, 5, 2)], [])
        assert "! CONFLATED" in plain(draw(view, 5, 100))[0]
        assert lines == [{
            "event": "quote", "symbol": "ALFA", "engine": 1, "channel": 1, "epoch": 4, "sequence": 90, "time_ns": 77,
            "state": "conflated", "trading_state": feed.STATE_NAMES[1],
            "bid": {"price": "123.40", "quantity": "50", "orders": 2}, "ask": None,
            "last": {"price": "123.45", "quantity": "30"},
        }]  # fmt: skip
        listener.on_quote(reader, StateChanged(State.LIVE, State.STALE, "3005 ms behind"))
        assert listener.said.lines[-1] == {
            "event": "quotes", "engine": 1, "channel": 1, "from": "live", "to": "stale", "why": "3005 ms behind"
        }  # fmt: skip
        assert listener.said.seen[-1].endswith("engine-1  best prices live to stale: 3005 ms behind")
    finally:
        listener._subscriber.clients.clear()
        await listener.stop()


def test_events_read_as_sentences() -> None:
    said = [
        in_words({"event": "gap", "engine": 1, "first": 3_001, "last": 3_007, "cause": "frame"}),
        in_words({"event": "repaired", "engine": 1, "first": 1, "last": 2, "how": "range", "took_ms": 3.21}),
        in_words({"event": "covered", "engine": 1, "first": 1, "last": 9}),
        in_words({"event": "alarm", "engine": 1, "what": "an old sequence in a new frame"}),
        in_words({"event": "doubted", "engine": 1, "symbol": "ALFA", "why": "digest"}),
    ]
    assert [text[10:] for text in said] == [
        "engine-1  gap 3,001 to 3,007 (frame)",
        "engine-1  repaired 1 to 2 by range in 3.2 ms",
        "engine-1  a snapshot stands for 1 to 9",
        "engine-1  ALARM an old sequence in a new frame",
        "engine-1  doubted ALFA digest",
    ]


def test_help_begins_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tail_feed.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("examples:\n  python -m tools.tail_feed 127.0.0.1:4001  ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nowhere"],
        ["127.0.0.1:1", "--play", __file__],
        ["--play", __file__, "--verify"],
        ["--play", __file__ + ".none"],
        ["127.0.0.1:1", "--depth", "0"],
        ["127.0.0.1:1", "--count", "x"],
        ["127.0.0.1:1", "--feed", "a b"],
        ["127.0.0.1:1", "--speed", "2"],
        ["127.0.0.1:1", "--step"],
        ["127.0.0.1:1", "--from-seq", "1", "--from-snapshot"],
        ["--play", __file__, "--conflate"],
        ["--play", __file__, "--from-time", "2026-01-01"],
        ["--play", __file__, "--step", "--speed", "1"],
        ["--play", __file__, "--speed", "-1"],
        ["--play", __file__, "--speed", "nan"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tail_feed.main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err[:11], err.count("\n")) == ("", "tail_feed: ", 1)


def test_nobody_there_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert tail_feed.main(["127.0.0.1:1"]) == 3
    assert capsys.readouterr() == ("", "tail_feed: 127.0.0.1:1: unavailable\n")


def test_a_frame_is_told_field_by_field() -> None:
    (frame,) = Stream().publish(ALFA, OFFERED, extras=EXTRAS)
    line = frame_line(frame, 5)
    assert line == {
        "event": "frame", "received_ns": 5, "bytes": len(frame), "topic": "D001011.", "kind": "D",
        "flags": ["end of event", "fresh"], "engine": 1, "channel": 1, "count": 3, "codec": 1, "incarnation": 77,
        "epoch": 1, "first_seq": 1, "sent_ns": line["sent_ns"], "follows": 0, "instruments": [[1, 1]],
        "times": line["times"],
        "deltas": [
            {"op": "definition", "sell": False, "end": False, "instrument": 1, "order_id": 0, "price": 0,
             "quantity": 0, "trade_id": 0},
            {"op": "status", "sell": False, "end": True, "instrument": 1, "order_id": 1, "price": 0, "quantity": 0,
             "trade_id": 0},
            {"op": "add", "sell": True, "end": True, "instrument": 1, "order_id": 12, "price": 101, "quantity": 7,
             "trade_id": 0},
        ],
        "extras": [
            {"symbol": "ALFA", "tick_size": "0.01", "lot_size": "10", "price_min": 1, "price_max": 1_000},
            {"state": 2, "reason": 0},
        ],
    }  # fmt: skip
    assert frame_line(frame[:-1], 5)["bad"] == "crc32 differs"
    assert frame_line(b"", 5) == {
        "event": "frame",
        "received_ns": 5,
        "bytes": 0,
        "bad": "a frame of 0 bytes",
        "hex": "",
    }


def recording(path: Path) -> list[Record]:
    """A stream with a gap that a range repairs, then another that only a snapshot does."""
    stream = Stream()
    venue = list(made_up(1, 1).instruments)
    records: list[Record] = []

    def keep(kind: bytes, body: bytes) -> None:
        stream.now_ns += 5_000_000
        records.append(Record(kind, stream.now_ns, 1, 1, body))

    keep(FRAME, stream.publish(ALFA, BOUGHT, OFFERED, extras=EXTRAS)[0])
    lost = stream.publish(TRADED)
    keep(FRAME, stream.publish(CHANGED)[0])
    keep(RANGE, range_body(RangeStatus.OK, 1, lost))
    keep(FRAME, stream.publish(GONE)[0])
    with path.open("wb") as file:
        writer = Writer(file, venue, 1)
        for record in records:
            writer.write(record)
    return records


def test_a_recording_holds_what_was_written_and_one_that_is_cut_short_holds_what_is_whole(tmp_path: Path) -> None:
    written = recording(tmp_path / "a.rec")
    whole = (tmp_path / "a.rec").read_bytes()
    venue, *records = read(io.BytesIO(whole))
    assert records == written
    assert venue_of(venue) == list(made_up(1, 1).instruments)
    assert range_of(records[2].body)[:2] == (RangeStatus.OK, 1)
    assert list(read(io.BytesIO(whole[:-1]))) == [venue, *records[:-1]]
    with pytest.raises(RecordingError, match="no recording"):
        list(read(io.BytesIO(b"x" + whole)))
    with pytest.raises(RecordingError, match="a record of 4,294,967,295 bytes"):
        list(read(io.BytesIO(MAGIC + b"\xff" * 4)))


def test_a_recording_is_played_through_the_same_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording(tmp_path / "a.rec")
    assert tail_feed.main(["--play", str(tmp_path / "a.rec"), "--speed", "0"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seq"] for line in lines if "seq" in line] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["event"] for line in lines if "seq" not in line] == [
        "state", "state", "state", "gap", "repaired", "state", "end"
    ]  # fmt: skip
    assert (lines[-1]["why"], lines[-1]["open_gaps"]) == ("end of the recording", 0)


def test_what_is_told_of_a_recording_can_be_bounded_by_sequence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording(tmp_path / "a.rec")
    arguments = ["--play", str(tmp_path / "a.rec"), "--speed", "0", "--from-seq", "3", "--until-seq", "6"]
    assert tail_feed.main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seq"] for line in lines if "seq" in line] == [3, 4, 5, 6]
    assert lines[-1]["why"] == "reached"


def test_a_recording_that_ends_with_an_open_gap_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording(tmp_path / "a.rec")
    assert tail_feed.main(["--play", str(tmp_path / "a.rec"), "--speed", "0", "--count", "4", "--raw"]) == 0
    raw = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["first_seq"] for line in raw if line["event"] == "frame"] == [1, 7, 8]
    kept = (tmp_path / "a.rec").read_bytes()
    venue, first, gap, *_ = read(io.BytesIO(kept))
    with (tmp_path / "b.rec").open("wb") as file:
        writer = Writer(file, venue_of(venue), 1)
        writer.write(first)
        writer.write(gap)
    assert tail_feed.main(["--play", str(tmp_path / "b.rec"), "--speed", "0"]) == 4
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["open_gaps"] == 1


@pytest.mark.processes
def test_a_recording_goes_on_by_a_frame_for_each_line_and_ends_when_told_to_though_none_comes(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    command = [sys.executable, "-m", "tools.tail_feed", "--play", str(tmp_path / "a.rec"), "--step"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as program:
        assert program.stdin
        assert program.stdout
        assert program.stderr
        program.stdin.write("\n")
        program.stdin.flush()
        told = [json.loads(program.stdout.readline()) for _ in range(6)]
        assert [line["seq"] for line in told if "seq" in line] == [1, 2, 3, 4]
        program.terminate()
        assert program.wait(10) == 0
        (last,) = program.stdout.read().splitlines()
        assert json.loads(last)["why"] == "interrupted"
        assert program.stderr.read() == ""
    stepped = subprocess.run(command, cwd=ROOT, text=True, input="\n\n", capture_output=True, timeout=20, check=False)
    assert [line["seq"] for line in map(json.loads, stepped.stdout.splitlines()) if "seq" in line] == [*range(1, 8)]
    assert stepped.returncode == 0


def on_terminal(recorded: Path, columns: int, rows: int = 40, **environment: str) -> str:
    """What a terminal of that size is sent while the recording is played."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    command = [sys.executable, "-m", "tools.tail_feed", "--play", str(recorded), "--speed", "0"]
    env = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    with subprocess.Popen(command, stdout=theirs, cwd=ROOT, env=env | {"TERM": "xterm"} | environment) as program:
        os.close(theirs)
        out = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while sent := os.read(ours, 65_536):
                out += sent
        os.close(ours)
        assert program.wait(10) == 0
    return out.decode()


@pytest.mark.processes
def test_on_a_terminal_it_is_a_ladder_as_wide_as_the_terminal(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    for columns in (80, 120):
        shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", on_terminal(tmp_path / "a.rec", columns))
        rules = [line.strip() for line in shown.splitlines() if set(line.strip()) == {"─"}]
        assert rules
        assert {len(rule) for rule in rules} == {columns - 1}
        assert "trades  bought 3 @ 1.01" in shown
        assert "lag 0 ms  gaps 1" in shown


@pytest.mark.processes
def test_on_a_low_terminal_there_are_fewer_levels_and_both_sides_are_seen(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    for rows in (24, 16):
        shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", on_terminal(tmp_path / "a.rec", 80, rows))
        *_, last = shown.split("ALFA  ")
        lines = last.rstrip().splitlines()
        (spread,) = [at for at, line in enumerate(lines) if "spread" in line]
        (trades,) = [at for at, line in enumerate(lines) if line.startswith("trades")]
        assert len(lines) < rows
        assert spread - 3 == trades - spread - 1 == (rows - 5 - (len(lines) - trades)) // 2


@pytest.mark.processes
def test_a_terminal_of_another_size_is_cleared_and_drawn_upon_anew(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, "-m", "tools.tail_feed", "--play", str(tmp_path / "a.rec"), "--step"]
    env = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}

    def read_until(wanted: bytes) -> bytes:
        out = b""
        while wanted not in out:
            out += os.read(ours, 65_536)
        return out

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, cwd=ROOT, env=env) as program:
        os.close(theirs)
        assert b"\x1b[2J" not in read_until("─".encode() * 99)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
        read_until(b"\x1b[2J")
        rule = re.sub(rb"\x1b\[[?0-9;]*[a-zA-Z]", b"", read_until(b"trades")).decode()
        assert "─" * 59 in rule
        assert "─" * 60 not in rule
        program.terminate()
        while program.poll() is None:
            with contextlib.suppress(OSError):
                os.read(ours, 65_536)
    os.close(ours)


@pytest.mark.processes
def test_without_colour_it_says_as_much(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    coloured, plain = on_terminal(tmp_path / "a.rec", 80), on_terminal(tmp_path / "a.rec", 80, NO_COLOR="1")
    assert "\x1b[31m" in coloured
    assert "\x1b[31m" not in plain
    assert "✓ valid" in plain


@pytest.mark.processes
def test_a_dumb_terminal_gets_json_lines(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    lines = on_terminal(tmp_path / "a.rec", 80, TERM="dumb").splitlines()
    assert [json.loads(line)["event"] for line in lines][-1] == "end"


def test_what_is_no_recording_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert tail_feed.main(["--play", __file__]) == 3
    assert capsys.readouterr() == ("", f"tail_feed: {__file__}: this is no recording\n")


# The program beside a real engine and a real fabric node


class Between:
    """A proxy in a thread: every message of a publisher, as `change` would have it; `more` is sent besides."""

    def __init__(self, upstream: str, change: Callable[[bytes], list[bytes]]) -> None:
        self.change = change
        self.more: list[bytes] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._in, self._out = self._context.socket(zmq.SUB), self._context.socket(zmq.PUB)
        self._in.setsockopt(zmq.SUBSCRIBE, b"")
        self._in.connect(upstream)
        self.endpoint = f"tcp://127.0.0.1:{self._out.bind_to_random_port('tcp://127.0.0.1')}"
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Between":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped = True
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        while not self._stopped:
            if self._in.poll(20):
                for frame in self.change(self._in.recv()):
                    self._out.send(frame)
            while self.more:
                self._out.send(self.more.pop(0))


class Falsifier:
    """One lot more of what the last delta adds, with right checksums; heartbeats without what would tell."""

    def __init__(self) -> None:
        self._last: bytes | None = None  # which the next one follows

    def __call__(self, frame: bytes) -> list[bytes]:
        header = feed.decode_header(frame)
        if header.kind != feed.KIND_D:
            return []
        follows = header.follows if self._last is None else feed.crc_of(self._last)
        if header.flags & feed.HEARTBEAT:
            flags, name = header.flags & feed.FRESH, (header.incarnation, header.epoch)
            return [feed.encode_heartbeat(1, 1, flags, *name, header.first_seq, header.sent_ns, (), follows)]
        at = feed.TOPIC_SIZE + feed.HEADER_SIZE
        head, packed = bytearray(frame[:at]), frame[at:]
        head[FOLLOWS_AT : FOLLOWS_AT + 4] = follows.to_bytes(4, "little")
        if feed.decode(frame).rows[-1][0] & feed.OP_MASK == ADD:
            body = msgspec.msgpack.decode(packed)
            body[4][-1] += 1
            packed = msgspec.msgpack.encode(body)
        self._last = sealed(head + packed)
        return [self._last]


FOLLOWS_AT = feed.TOPIC_SIZE + 20


async def _engine(children: Children, tmp_path: Path) -> Child:
    (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(1, 1)))
    arguments = ["--cluster", str(tmp_path / "cluster.toml"), "--engine", "1", "--data", str(tmp_path / "engine-1")]
    engine = await children.start(Child("engine-1", "engine", arguments, tmp_path / "engine.log.log"))
    await engine.wait_ready(20)
    return engine


@pytest.mark.processes
def test_a_book_that_was_falsified_on_the_way_is_found_by_another_opinion_and_ends_with_1(tmp_path: Path) -> None:
    async def venue() -> None:
        with Children() as children:
            engine = await _engine(children, tmp_path)
            with (
                Between(engine.ready["feed"], Falsifier()) as between,
                tail(engine.ready["grpc"], "--feed", between.endpoint, "--verify") as program,
            ):
                async with Client([engine.ready["grpc"]], account=7).session() as session:
                    await asyncio.to_thread(live, program)
                    await session.new("ALFA", BUY, price="10.00", quantity=5)
                    lines = await asyncio.to_thread(lines_until, program, "differs")
                    assert await asyncio.to_thread(program.wait, 10) == 1
            assert lines[-1]["differences"] == ["ALFA bids: 1 orders, 1 at its owner; they differ from #1"]
            await children.stop()

    asyncio.run(venue())


@pytest.mark.processes
def test_a_gap_that_nobody_can_fill_any_more_ends_with_4(tmp_path: Path) -> None:
    kept: list[bytes] = []

    def kept_back(frame: bytes) -> list[bytes]:
        kept.append(frame)
        return []

    async def venue() -> None:
        with Children() as children:
            engine = await _engine(children, tmp_path)
            with (
                Between(engine.ready["feed"], lambda frame: [frame]) as between,
                tail(engine.ready["grpc"], "--feed", between.endpoint) as program,
            ):
                async with Client([engine.ready["grpc"]], account=7).session() as session:
                    await asyncio.to_thread(live, program)
                    between.change = kept_back
                    await session.new("ALFA", BUY, price="10.00", quantity=5)
                    await session.new("ALFA", BUY, price="10.01", quantity=5)
                deadline = time.monotonic() + PATIENCE_S
                while len(added(kept)) < 2 and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                await engine.kill()
                between.more.append(added(kept)[1])
                gap = (await asyncio.to_thread(lines_until, program, "gap"))[-1]
                program.terminate()
                end = (await asyncio.to_thread(lines_until, program, "end"))[-1]
                assert await asyncio.to_thread(program.wait, 10) == 4
            assert (gap["first"], gap["last"], gap["not_valid"]) == (3, 3, ["ALFA"])
            assert (end["gaps"], end["open_gaps"]) == (1, 1)

    asyncio.run(venue())


def live(program: subprocess.Popen[str]) -> None:
    """Until its stream is live."""
    while lines_until(program, "state")[-1]["to"] != "live":
        pass


def added(frames: list[bytes]) -> list[bytes]:
    """Those that carry deltas."""
    headers = [(frame, feed.decode_header(frame)) for frame in frames]
    return [frame for frame, header in headers if header.count and header.kind == feed.KIND_D]


@pytest.mark.processes
def test_snapshots_that_are_refused_or_cut_on_the_way_are_asked_for_until_one_is_whole(tmp_path: Path) -> None:
    async def venue() -> None:
        with Children() as children:
            engine = await _engine(children, tmp_path)
            given = f"--market-data {engine.ready['grpc']} --answers fail=0.4,cut=0.6 --seed 6"
            proxy = await children.start(Child("faults", "tools.faults", given.split(), tmp_path / "faults.log"))
            source = (await proxy.wait_ready(20))["market_data"]["machine-1"]
            with tail(source, "--source", source, "--from-snapshot") as program:
                book = (await asyncio.to_thread(lines_until, program, "book"))[-1]
            assert (book["state"], book["sequence"]) == ("valid", 2)
            proxy.tell({"report": True})
            told = await proxy.line()
            assert told is not None
            answers = told["answers"]["machine-1"]
            spoilt = {"snapshots": 3, "fail": 1, "slow": 0, "stale": 0, "cut": 1}
            assert {kind: answers[kind] for kind in spoilt} == spoilt
            assert (told["counts"], answers["partition"]) == ({}, 0)
            await children.stop()

    asyncio.run(venue())


@pytest.mark.processes
def test_a_comparison_that_cannot_be_made_in_time_says_why_and_the_next_one_is_made(tmp_path: Path) -> None:
    async def venue() -> None:
        with Children() as children:
            engine = await _engine(children, tmp_path)
            with tail(engine.ready["grpc"], "--verify", "--quiet") as program:
                await asyncio.to_thread(lines_until, program, "verified")
                engine.pause()
                line = (await asyncio.to_thread(lines_until, program, "unverified"))[-1]
                assert line.keys() == {"event", "engine", "channel", "with", "why"}
                assert (line["with"], line["why"].partition(":")[0]) == ("engine-1", "DEADLINE_EXCEEDED")
                engine.resume()
                assert (await asyncio.to_thread(lines_until, program, "verified"))[-1]["with"] == "engine-1"
            await children.stop()

    asyncio.run(venue())


@pytest.mark.processes
def test_it_waits_for_a_venue_records_it_and_ends_with_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept.rec"

    async def venue() -> None:
        with Children() as children, socket.create_server(("127.0.0.1", 0)) as taken:
            target = f"127.0.0.1:{taken.getsockname()[1]}"
            taken.close()
            with tail(target, "--wait", "--record", str(kept), "--exit-at-end") as program:
                (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(1, 1)))
                given = f"--cluster {tmp_path}/cluster.toml --engine 1 --data {tmp_path}/engine-1 --grpc {target}"
                engine = await children.start(Child("engine-1", "engine", given.split(), tmp_path / "engine.log.log"))
                await engine.wait_ready(20)
                async with Client([target], account=7).session() as session:
                    told = await asyncio.to_thread(lines_until, program, "recording")
                    await session.new("ALFA", BUY, price="10.00", quantity=5)
                    told += await asyncio.to_thread(lines_until, program, "add")  # the recorder may have it later
                await children.stop()
                told += await asyncio.to_thread(lines_until, program, "end")
                assert await asyncio.to_thread(program.wait, 10) == 0
            assert (told[-1]["why"], told[-1]["gaps"]) == ("end of stream", 0)

    asyncio.run(venue())
    with tail("--play", str(kept), "--speed", "0") as program:
        told = lines_until(program, "end")
        assert program.wait(10) == 0
    assert [line["price"] for line in told if line["event"] == "add"] == ["10.00"]
    assert [line["to"] for line in told if line["event"] == "state"][-2:] == ["live", "ended"]


@contextmanager
def tail(target: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, its output piped; ended on the way out, or when it takes too long."""
    command = [sys.executable, "-m", "tools.tail_feed", target, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as program:
        deadline = threading.Timer(HANGS_S, program.kill)
        deadline.start()
        try:
            yield program
        finally:
            deadline.cancel()
            program.kill()


def lines_until(program: subprocess.Popen[str], event: str, times: int = 1) -> list[Line]:
    """Its lines up to that event."""
    assert program.stdout
    lines: list[Line] = []
    while times and (text := program.stdout.readline()):
        lines.append(json.loads(text))
        times -= lines[-1]["event"] == event
    return lines


@pytest.mark.processes
def test_beside_a_real_engine_it_tells_the_book_then_what_changes_and_agrees_with_the_engine(tmp_path: Path) -> None:
    asyncio.run(_beside_a_real_engine(tmp_path))


async def _beside_a_real_engine(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(1, 1)))
    with Children() as children:
        arguments = ["--cluster", str(tmp_path / "cluster.toml"), "--engine", "1", "--data", str(tmp_path / "engine-1")]
        engine = await children.start(Child("engine-1", "engine", arguments, tmp_path / "engine.log.log"))
        home = (await engine.wait_ready(20))["grpc"]
        fabric = await children.start(Child("fabric-1", "bus", ["--engine", "1", "--join", home], tmp_path / "bus.log"))
        target = (await fabric.wait_ready(20))["grpc"]
        maker, taker = Client([home], account=7), Client([home], account=8)
        async with maker.session() as resting, taker.session() as session:
            await resting.new("ALFA", BUY, price="10.00", quantity=5)
            await resting.new("ALFA", SELL, price="10.05", quantity=7)
            await asyncio.to_thread(_tells_all, target, session, asyncio.get_running_loop())
            await asyncio.to_thread(_ends_quietly_when_nobody_reads, target, session, asyncio.get_running_loop())
        await children.stop()


def _tells_all(target: str, session: Session, loop: asyncio.AbstractEventLoop) -> None:
    with tail(target, "--symbol", "ALFA", "--from-snapshot", "--verify") as program:
        book = lines_until(program, "book")[-1]
        assert [(o["price"], o["quantity"]) for o in book["bids"]] == [("10.00", "5")]
        assert [(o["price"], o["quantity"]) for o in book["asks"]] == [("10.05", "7")]
        asyncio.run_coroutine_threadsafe(session.new("ALFA", BUY, price="10.05", quantity=2), loop).result(10)
        executed = lines_until(program, "execute")[-1]
        assert (executed["seq"], executed["price"], executed["quantity"]) == (book["sequence"] + 1, "10.05", "2")
        verified = lines_until(program, "verified")[-1]
        assert (verified["with"], verified["sequence"], verified["orders"]) == ("engine-1", executed["seq"], 2)
        program.terminate()
        (*_, end) = lines_until(program, "end")
        assert {**end, "verified": 1} == {
            "event": "end", "why": "interrupted", "deltas": 1, "verified": 1, "gaps": 0, "open_gaps": 0
        }  # fmt: skip
        assert program.wait(10) == 0
        assert program.stderr
        assert program.stderr.read() == ""


def _ends_quietly_when_nobody_reads(target: str, session: Session, loop: asyncio.AbstractEventLoop) -> None:
    with tail(target, "--json") as program:
        lines_until(program, "state", times=3)
        assert program.stdout
        program.stdout.close()
        asyncio.run_coroutine_threadsafe(session.new("ALFA", BUY, price="9.00", quantity=2), loop).result(10)
        assert program.wait(10) == 0
        assert program.stderr
        assert program.stderr.read() == ""

"""A stranger's view of the feed: its lines, its ladder, its second opinion, and the program itself."""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from rich.console import Console

from bus.access.asking import Ranged
from bus.reader import Book, BookEvent, BookState, Event, Level
from bus.reader import Stream as Shelf
from bus.reader.teller import Teller
from bus.stream.actions import Action, State, StateChanged
from bus.stream.conflation import Quoted, QuoteReader
from bus.stream.sequencer import RangeStatus
from engine.client import Client, Session
from proto import cluster, feed
from proto.columns import BUY, SELL
from proto.feed import ADD, DEFINITION, END, STATUS
from proto.instrument import Instrument
from tests.bus.access.test_sockets import has_ipv6
from tests.patience import patience
from tests.published import ALFA, BOUGHT, CHANGED, EXTRAS, GONE, OFFERED, TRADED, Stream, opened
from tools import tail_feed
from tools.chaos.plan import sealed
from tools.child import Child, Children
from tools.ladder import draw, plain
from tools.run.layout import made_up
from tools.tail.lines import JsonLine, book_line, delta_lines, frame_line, in_words, line_of
from tools.tail.listener import Listener
from tools.tail.live import text_of, view_of
from tools.tail.play import Recording, RecordingError, range_of, venue_of
from tools.tail.record import FRAME, HEAD, LENGTH, MAGIC, RANGE, Recorder, TapeRecord, Writer, range_body

PATIENCE_S = patience(20.0)
HANGS_S = patience(
    100.0
)  # all that a test waits for, one after the other, each with a deadline of its own; then it hangs
ROOT = Path(__file__).resolve().parents[2]


def lines_of(stream: Stream, actions: list[Action]) -> list[JsonLine]:
    """All that is said of it."""
    said: list[JsonLine] = []
    for event in stream.events(actions):
        if isinstance(event, BookEvent):
            said += [line for line, _ in delta_lines([event])]
        elif (line := line_of(event)) is not None:
            said.append(line)
    return said


def test_deltas_are_told_one_a_line_with_decimal_prices_and_quantities() -> None:
    stream = opened()
    lines = lines_of(stream, stream.hear(stream.publish(TRADED)))
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
    state, definition, status = lines_of(stream, stream.hear(stream.publish(ALFA, extras=EXTRAS)))
    assert (state["event"], state["from"], state["to"]) == ("state", "joining", "live")
    assert {k: definition[k] for k in ("event", "symbol", "tick_size", "lot_size", "price_min", "price_max")} == {
        "event": "definition", "symbol": "ALFA", "tick_size": "0.01", "lot_size": "10", "price_min": 1,
        "price_max": 1_000,
    }  # fmt: skip
    assert (status["event"], status["state"], status["reason"], status["end"]) == ("status", "open", 0, True)


def test_a_gap_and_its_repair_are_told_and_so_are_the_books_that_are_not_valid() -> None:
    stream = opened()
    lost = stream.publish(TRADED)
    told = lines_of(stream, stream.hear(stream.publish(CHANGED)))
    assert told[0]["event"] == "state" or told[1]["event"] == "state"
    gap = next(line for line in told if line["event"] == "gap")
    assert gap == {
        "event": "gap", "engine": 1, "channel": 1, "epoch": 1, "first": 5, "last": 6, "cause": "frame",
        "not_valid": ["ALFA"],
    }  # fmt: skip
    asked = stream.client.tick(stream.now_ns + 1_000_000)[0]
    repaired = lines_of(
        stream,
        stream.client.range_reply(asked.ask, RangeStatus.OK, 1, lost, stream.now_ns + 3_000_000),  # type: ignore[union-attr]
    )
    events = [line["event"] for line in repaired]
    assert sorted(events) == ["add", "execute", "modify", "repaired", "state"]
    line = repaired[events.index("repaired")]
    assert (line["first"], line["last"], line["how"]) == (5, 6, "range")
    assert line["took_ms"] == 3.0


def test_a_book_is_told_by_order_in_queue_order() -> None:
    stream = opened()
    stream.hear(stream.publish([ADD | END, 1, 10, 99, 8, 0]))
    teller = Teller({(1, 1): stream.client}, {}, lambda event, *_: None, lambda: stream.now_ns)
    assert book_line(teller.book("ALFA"), 1, 1) == {
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


class Shown:
    """What a listener can look at: one stream, as its reader has it; and what it is told."""

    def __init__(self, stream: Stream, *options: str) -> None:
        (instrument,) = made_up(1, 1).instruments
        self.stream = stream
        self.quotes: dict[tuple[int, int], QuoteReader] = {}
        self.listener = Listener(tail_feed.parser().parse_args(["127.0.0.1:1", *options]), [instrument])
        self.teller = Teller({(1, 1): stream.client}, self.quotes, self._told, lambda: stream.now_ns)  # type: ignore[arg-type]

    def _told(self, event: Event, *_: object) -> None:
        self.listener.take(event, self)

    def hear(self, frames: list[bytes]) -> None:
        for action in self.stream.hear(frames):
            self.teller.on_action(self.stream.client, action)
        self.teller.on_heard(self.stream.client)

    def book(self, symbol: str, depth: int = 0) -> Book:
        return self.teller.book(symbol, depth)

    def streams(self) -> list[Shelf]:
        return self.teller.streams()

    @property
    def said(self) -> list[JsonLine]:
        return [line for line in self.listener.said.lines if line["event"] != "state"]


def test_from_a_snapshot_the_book_comes_first_and_only_later_deltas_follow() -> None:
    stream = Stream()
    shown = Shown(stream, "--from-snapshot", "--count", "1")
    first = stream.publish(ALFA, extras=EXTRAS) + stream.publish(BOUGHT, OFFERED)
    (definition, *rest) = first
    shown.hear([definition])
    book = shown.said[-1]
    assert (book["event"], book["sequence"], len(book["bids"]), len(book["asks"])) == ("book", 2, 0, 0)
    shown.hear(rest)
    assert (shown.said[-1]["event"], shown.said[-1]["seq"], shown.listener.said.why) == ("add", 3, "counted")


def test_what_a_book_holds_that_was_looked_at_late_is_not_told_again() -> None:
    stream = Stream()
    shown = Shown(stream, "--from-snapshot")
    stream.hear(stream.publish(ALFA, extras=EXTRAS))
    late = stream.events(stream.hear(stream.publish(BOUGHT, OFFERED)))
    shown.listener.take(BookState("ALFA", "valid", "unknown"), shown)
    for event in [*late, *stream.events(stream.hear(stream.publish(CHANGED)))]:
        shown.listener.take(event, shown)
    assert [(line["event"], line.get("seq", line.get("sequence"))) for line in shown.said] == [
        ("book", 4),
        ("modify", 5),
    ]


def test_an_event_or_an_action_that_nobody_tells_of_is_our_own_bug() -> None:
    new: Any = object()
    with pytest.raises(AssertionError):
        line_of(new)
    shown = Shown(Stream())
    with pytest.raises(AssertionError):
        shown.teller.on_action(shown.stream.client, new)


def test_what_one_command_changed_in_several_books_is_told_by_sequence() -> None:
    stream = Stream()
    two = [*ALFA[:-6], STATUS, 1, 1, 0, 0, 0, DEFINITION, 2, 2, 0, 0, 0, STATUS | END, 2, 3, 0, 0, 0]
    both = [ADD, 1, 11, 99, 5, 0, ADD, 2, 21, 50, 5, 0, ADD, 1, 12, 98, 5, 0, ADD | END, 2, 22, 49, 5, 0]
    shown = Shown(stream, "--until-seq", "6")
    shown.listener = Listener(
        tail_feed.parser().parse_args(["127.0.0.1:1", "--until-seq", "7"]), made_up(1, 2).instruments
    )
    shown.hear(stream.publish(two, extras=[*EXTRAS, ["BRAVO", "0.01", "10", 1, 1_000], [2, 0]]))
    shown.hear(stream.publish(both))
    assert [(line["seq"], line["symbol"]) for line in shown.said if line["event"] == "add"] == [
        (5, "ALFA"), (6, "BRAVO"), (7, "ALFA"),
    ]  # fmt: skip
    assert shown.listener.said.why == "reached"


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
    stream = Stream()
    shown = Shown(stream, "--from-seq", "3", *bound)
    stream.hear(stream.publish(ALFA, extras=EXTRAS))
    events = stream.events(stream.hear(stream.publish(BOUGHT, OFFERED)))

    class Past(Shown):
        async def history(self, *symbols: str, **asked: int) -> AsyncIterator[Event]:
            assert (symbols, asked) == (("ALFA",), {"first": 3, "last": 4, "epoch": 1})
            shown.hear(stream.publish(TRADED) + stream.publish(CHANGED))
            for event in events:
                yield event

    shown.__class__ = Past
    asyncio.run(shown.listener.tell_history(shown))  # type: ignore[arg-type]
    assert [line["seq"] for line in shown.said if "seq" in line] == told
    assert (shown.listener.said.why, shown.listener.wants_history) == (why, False)


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
    stream = opened()
    shown = Shown(stream, "--conflate")
    stream.client.state = State.LAGGED
    reader = QuoteReader(1, 1)
    if quoted:
        shown.quotes[1, 1] = reader
        quote = feed.Quote(77, 1, 9, 1, 12_340, 5, 2, 0, 0, 0, 12_345, 3, 8)
        reader.state, reader.quotes[1] = State.LIVE, Quoted(4, 90, quote)
        shown.teller.on_quote(reader, Quoted(4, 90, quote))
    (instrument,) = shown.listener.instruments
    view = view_of(shown, instrument, 5)
    if not quoted:
        assert (view.book.state, shown.said) == ("lagged", [])
        return
    book = view.book
    assert (book.state, book.epoch, book.sequence) == ("conflated", 4, 90)
    assert (book.last_price, book.last_quantity) == (Decimal("123.45"), 30)
    assert view.lag_ms == 0  # of the quotes
    assert (book.bids, book.asks) == ((Level(Decimal("123.40"), Decimal(50), 2),), ())
    assert "! CONFLATED" in plain(draw(view, 5, 100))[0]
    assert shown.said == [{
        "event": "quote", "symbol": "ALFA", "engine": 1, "channel": 1, "epoch": 4, "sequence": 90, "time_ns": 77,
        "state": "conflated", "trading_state": feed.STATE_NAMES[1],
        "bid": {"price": "123.40", "quantity": "50", "orders": 2}, "ask": None,
        "last": {"price": "123.45", "quantity": "30"},
    }]  # fmt: skip
    shown.teller.on_quote(reader, StateChanged(State.LIVE, State.STALE, "3005 ms behind"))
    assert shown.said[-1] == {
        "event": "quotes", "engine": 1, "channel": 1, "from": "live", "to": "stale", "why": "3005 ms behind"
    }  # fmt: skip
    assert shown.listener.said.seen[-1].endswith("engine-1  best prices live to stale: 3005 ms behind")


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
        ["127.0.0.1:1", "--depth", "0"],
        ["127.0.0.1:1", "--count", "x"],
        ["127.0.0.1:1", "--count", "-1"],
        ["127.0.0.1:1", "--count", "9" * 30],
        ["127.0.0.1:65536"],
        ["127.0.0.1:1", "--source", "127.0.0.1:70000"],
        ["127.0.0.1:1", "--feed", "1=tcp://127.0.0.1:70000"],
        ["127.0.0.1:1", "--feed", "0=tcp://127.0.0.1:7000"],
        ["127.0.0.1:1", "--from-time", "9999-12-31"],
        ["127.0.0.1:1", "--from-time", "0001-01-01T00:00+23:59"],
        ["127.0.0.1:1", "--feed", "a b"],
        ["127.0.0.1:1", "--speed", "2"],
        ["127.0.0.1:1", "--step"],
        ["127.0.0.1:1", "--from-seq", "1", "--from-snapshot"],
        ["--play", __file__, "--conflate"],
        ["--play", __file__, "--wait"],
        ["--play", __file__, "--record", "/nowhere/feed.rec"],
        ["--play", __file__, "--source", "127.0.0.1:1"],
        ["--play", __file__, "--feed", "1=tcp://127.0.0.1:6000"],
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


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("--record", "/"),
        ("--record", "/no/such/place/x"),
        ("--record", "/dev/full"),
        ("--play", "/"),
        ("--play", "/no"),
    ],
)
def test_a_file_that_cannot_be_used_is_found_before_anything_else(
    option: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option, path] if option == "--play" else ["127.0.0.1:1", option, path]
    assert tail_feed.main(given) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith(f"tail_feed: {path}: ")) == ("", 1, True)


class Full(io.RawIOBase):
    """A disk that takes so many bytes."""

    def __init__(self, room: int) -> None:
        self.kept = b""
        self._room = room

    def write(self, data: Any) -> int:
        taken = bytes(data)[: self._room - len(self.kept)]
        if not taken:
            raise OSError(28, "No space left on device")
        self.kept += taken
        return len(taken)


def test_when_the_disk_is_full_the_recording_ends_with_what_is_whole_and_says_what_is_missing() -> None:
    stream, said = Stream(), list[str]()
    first, second = stream.publish(ALFA, extras=EXTRAS), stream.publish(BOUGHT)
    disk = Full(2_000)
    writer = Writer(disk)  # type: ignore[arg-type]
    writer.begin(made_up(1, 1).instruments, 1)
    disk._room = writer.size + HEAD.size + LENGTH.size + len(first[0]) + 10
    recorder = Recorder(writer, said.append)
    for frame in first + second + second:
        recorder.tap(stream.client, frame, 5)
    assert len(said) == 1
    assert re.fullmatch(
        r"No space left on device: [0-9,]+ bytes are good, what came from [0-9:.]{15} on is missing", said[0]
    )
    recording = Recording(io.BytesIO(disk.kept))
    assert [record.body for record in recording][1:] == first
    assert recording.cut


def test_a_recording_keeps_all_that_defines_an_instrument() -> None:
    instrument = Instrument(
        7, "GOLD.X", 3, 2, Decimal("0.0025"), Decimal("0.5"), -100, 10_000, 5_000, 9_000_000, 40, 25, "pro-rata",
        5_000, "auction",
    )  # fmt: skip
    file = io.BytesIO()
    Writer(file).begin([instrument], 1)
    assert venue_of(next(iter(Recording(io.BytesIO(file.getvalue()))))) == [instrument]


HOSTILE_VENUES = ["[", "{}", "[1]", '[{"id": 0}]', '[{"symbol": "\\u001b[31m"}]', "[" * 100_000, '[{"nonsense": 1}]']


@pytest.mark.parametrize("venue", HOSTILE_VENUES, ids=range(len(HOSTILE_VENUES)))
def test_a_recording_whose_venue_is_none_ends_with_3(
    venue: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = HEAD.pack(b"V", 1, 0, 0) + venue.encode()
    (tmp_path / "a.rec").write_bytes(MAGIC + LENGTH.pack(len(body)) + body)
    assert tail_feed.main(["--play", str(tmp_path / "a.rec")]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.processes
def test_what_cannot_be_written_ends_it_with_74_and_one_line(tmp_path: Path) -> None:
    recording(tmp_path / "a.rec")
    command = [sys.executable, "-m", "tools.tail_feed", "--play", str(tmp_path / "a.rec"), "--speed", "0"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (
        74,
        "tail_feed: what it says cannot be written: No space left on device\n",
    )


def test_what_came_from_elsewhere_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recording(tmp_path / "a.rec")
    assert tail_feed.main(["--play", str(tmp_path / "a.rec"), "--symbol", "A\x1b[31m"]) == 3
    assert capsys.readouterr().err == "tail_feed: no such symbol: A?[31m; there are ALFA\n"
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True)
    console.print(text_of([("  engine-1  joining to snapshot: \x1b]0;title\x07", "dim")]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b]0" not in shown
    assert "\x07" not in shown


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


def recording(path: Path) -> list[TapeRecord]:
    """A stream with a gap that a range repairs, then another that only a snapshot does."""
    stream = Stream()
    venue = list(made_up(1, 1).instruments)
    records: list[TapeRecord] = []

    def keep(kind: bytes, body: bytes) -> None:
        stream.now_ns += 5_000_000
        records.append(TapeRecord(kind, body, stream.now_ns, 1, 1))

    keep(FRAME, stream.publish(ALFA, BOUGHT, OFFERED, extras=EXTRAS)[0])
    lost = stream.publish(TRADED)
    keep(FRAME, stream.publish(CHANGED)[0])
    keep(RANGE, range_body(Ranged(RangeStatus.OK, 1, lost)))
    keep(FRAME, stream.publish(GONE)[0])
    with path.open("wb", buffering=0) as file:
        writer = Writer(file)
        writer.begin(venue, 1)
        for record in records:
            writer.write(record)
    return records


def test_a_recording_holds_what_was_written_and_one_that_is_cut_short_holds_what_is_whole(tmp_path: Path) -> None:
    written = recording(tmp_path / "a.rec")
    whole = (tmp_path / "a.rec").read_bytes()
    venue, *records = Recording(io.BytesIO(whole))
    assert records == written
    assert venue_of(venue) == list(made_up(1, 1).instruments)
    assert range_of(records[2].body)[:2] == (RangeStatus.OK, 1)
    assert list(Recording(io.BytesIO(whole[:-1]))) == [venue, *records[:-1]]
    with pytest.raises(RecordingError, match="no recording"):
        list(Recording(io.BytesIO(b"x" + whole)))
    with pytest.raises(RecordingError, match="a record of 4,294,967,295 bytes"):
        list(Recording(io.BytesIO(MAGIC + b"\xff" * 4)))


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
    venue, first, gap, *_ = Recording(io.BytesIO(kept))
    with (tmp_path / "b.rec").open("wb", buffering=0) as file:
        writer = Writer(file)
        writer.begin(venue_of(venue), 1)
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
    stepped = subprocess.run(
        command, cwd=ROOT, text=True, input="\n\n", capture_output=True, timeout=patience(20), check=False
    )
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
        assert "trades  bought 30 @ 1.01" in shown
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


async def _engine(children: Children, tmp_path: Path, *more: str) -> Child:
    (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(1, 1)))
    arguments = ["--cluster", str(tmp_path / "cluster.toml"), "--engine", "1", "--new"]
    arguments += ["--data", str(tmp_path / "engine-1"), *more]
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
            with tail(source, "--source", "127.0.0.1:1") as program:  # where nobody is
                (*_, alarm) = await asyncio.to_thread(lines_until, program, "alarm")
            assert alarm["what"] == "--source 127.0.0.1:1: unavailable; trying on"
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
                given = f"--cluster {tmp_path}/cluster.toml --engine 1 --data {tmp_path}/engine-1 --new"
                given += f" --grpc {target}"
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


@pytest.mark.processes
def test_a_recording_that_outgrows_its_disk_ends_the_listening_with_74_over_ipv6_too(tmp_path: Path) -> None:
    host = "[::1]" if has_ipv6() else "127.0.0.1"
    kept = tmp_path / "kept.rec"

    async def venue() -> None:
        with Children() as children:
            engine = await _engine(children, tmp_path, "--grpc", f"{host}:0", "--feed", f"tcp://{host}:0")
            assert engine.ready["feed"].startswith(f"tcp://{host}:")
            command = [sys.executable, "-m", "tools.tail_feed", engine.ready["grpc"], "--json", "--record", str(kept)]
            limited = ["bash", "-c", 'ulimit -f 2; exec "$@"', "bash", *command]
            options: Any = {"capture_output": True, "text": True, "check": False, "timeout": HANGS_S}
            ended = await asyncio.to_thread(lambda: subprocess.run(limited, cwd=ROOT, **options))
            assert ended.returncode == 74, ended.stderr
            said = rf"tail_feed: {kept}: File too large: [0-9,]+ bytes are good, what came .*\n"
            assert re.fullmatch(said, ended.stderr)
            assert json.loads(ended.stdout.splitlines()[-1])["why"] == "the recording cannot be written"
            await children.stop()

    asyncio.run(venue())
    recording = Recording(io.BytesIO(kept.read_bytes()))
    assert (len(list(recording)) > 1, recording.cut) == (True, True)


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


def lines_until(program: subprocess.Popen[str], event: str, times: int = 1) -> list[JsonLine]:
    """Its lines up to that event."""
    assert program.stdout
    lines: list[JsonLine] = []
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
        arguments = ["--cluster", str(tmp_path / "cluster.toml"), "--engine", "1", "--new"]
        arguments += ["--data", str(tmp_path / "engine-1")]
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

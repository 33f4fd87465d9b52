"""A stranger's view of the feed: its lines, its ladder, its second opinion, and the program itself."""

import asyncio
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus.feed_client import Action, FeedClient, State
from bus.sequencer import RangeStatus, Sequencer
from engine.client import Client, Session
from engine.types import BUY, SELL
from proto import cluster
from proto.feed import ADD, DEFINITION, DELETE, END, EXECUTE, MODIFY, STATUS
from proto.feed import SELL as ASK
from tools import tail_feed
from tools.feed_lines import Line, book_line, lines_of
from tools.layout import made_up
from tools.processes import Child, Children
from tools.shadow import Recent, second_opinion
from tools.tail_feed import in_words

PATIENCE_S = 20.0
ROOT = Path(__file__).resolve().parents[1]
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
        ["127.0.0.1:1", "--depth", "0"],
        ["127.0.0.1:1", "--count", "x"],
        ["127.0.0.1:1", "--feed", "a b"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tail_feed.main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err[:7]) == ("", "usage: ")


def test_nobody_there_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert tail_feed.main(["127.0.0.1:1"]) == 3
    assert capsys.readouterr() == ("", "tail_feed: 127.0.0.1:1: unavailable\n")


# The program beside a real engine and a real fabric node


@contextmanager
def tail(target: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, its output piped; ended on the way out, or when it takes too long."""
    command = [sys.executable, "-m", "tools.tail_feed", target, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as program:
        deadline = threading.Timer(PATIENCE_S, program.kill)
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


def test_beside_a_real_engine_it_tells_the_book_then_what_changes_and_agrees_with_the_engine(tmp_path: Path) -> None:
    asyncio.run(_beside_a_real_engine(tmp_path))


async def _beside_a_real_engine(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(1, 1)))
    with Children() as children:
        arguments = ["--cluster", str(tmp_path / "cluster.toml"), "--engine", "1", "--data", str(tmp_path / "engine-1")]
        engine = await children.start(Child("engine-1", "engine", arguments, tmp_path / "engine.log"))
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

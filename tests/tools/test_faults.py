"""Fault specs as people write them, and the plan that decides from a seed what each message meets."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from bus.stream.sequencer import Sequencer
from proto import feed
from proto.feed import ADD, END
from tests.patience import patience
from tools import faults
from tools.chaos.plan import (
    BURST_MAX,
    DELAY_NS_MAX,
    HOLD_FRAMES_MAX,
    HOLD_NS,
    MESSAGE_FAULTS,
    PARTITION_NS,
    REPLAY_MAX,
    FaultError,
    FaultPlan,
    FaultSpec,
    MessageFault,
    TimedFault,
    numbered,
    parse,
    parse_script,
)
from tools.child import Child, Children

ROOT = Path(__file__).resolve().parents[2]
SEED = 5
ALL = tuple(MessageFault(kind, 0.1) for kind in MESSAGE_FAULTS if kind != "slow")
SNAPSHOT_KINDS = ("snapshot-fail", "snapshot-slow", "snapshot-stale", "snapshot-cut")
KINDS = ", ".join((*MESSAGE_FAULTS, *SNAPSHOT_KINDS, "kill", "restart", "pause", "leave", "join"))
NONE = dict.fromkeys(MESSAGE_FAULTS, 0)


def frames(count: int) -> list[bytes]:
    return [b"%d" % i for i in range(1, count + 1)]


def through(plan: FaultPlan, sent: list[bytes]) -> list[bytes]:
    """All that comes out, in order, when nothing comes in between and the last held ones time out."""
    out = [each for frame in sent for each in plan.frame(frame, 0)]
    return out + plan.due(HOLD_NS)


def test_a_spec_names_rates_and_timed_faults_in_order_of_time() -> None:
    spec = parse("reorder=.25, drop=0.05,restart=engine-2@9,kill=engine-2@5.5,pause=fabric-1@4:2")
    assert spec == FaultSpec(
        messages=(MessageFault("drop", 0.05), MessageFault("reorder", 0.25)),
        timed=(
            TimedFault("pause", "fabric-1", 4.0, 2.0),
            TimedFault("kill", "engine-2", 5.5),
            TimedFault("restart", "engine-2", 9.0),
        ),
    )
    assert parse(str(spec)) == spec


def test_no_faults_are_the_empty_text_and_rates_of_zero() -> None:
    assert parse("") == parse(" drop=0, ") == FaultSpec()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("drop=1.5", "'drop=1.5': a rate is a number from 0 to 1"),
        ("drop=nan", "'drop=nan': a rate is a number from 0 to 1"),
        ("drop=-0", "'drop=-0': a rate is a number from 0 to 1"),
        ("drop", "'drop': a rate is a number from 0 to 1"),
        ("drop=0.1,drop=0.2", "drop is given twice"),
        ("flood=1", f"'flood=1': no such fault; there are {KINDS}"),
        ("slow=0.5", "'slow=0.5': so many messages a second, 1 or more"),
        ("drop=1@3", "'drop=1@3' is not of the form drop=VALUE@SECONDS:FOR"),
        ("drop=1@3:0", "'drop=1@3:0' is not of the form drop=VALUE@SECONDS:FOR"),
        ("join=engine-4@3", "'join=engine-4@3' is not of the form join@SECONDS"),
        ("join", "'join' is not of the form join@SECONDS"),
        ("leave=engine-1@3,kill=engine-1@4", "'kill=engine-1@4': engine-1 is down by then"),
        ("kill=engine-1", "'kill=engine-1' is not of the form kill=NAME@SECONDS"),
        ("kill=engine-1@3:2", "'kill=engine-1@3:2' is not of the form kill=NAME@SECONDS"),
        ("pause=engine-1@3", "'pause=engine-1@3' is not of the form pause=NAME@SECONDS:FOR"),
        ("pause=engine-1@3:0", "'pause=engine-1@3:0': a pause lasts longer than 0 seconds"),
        ("kill=r-1@3", "'kill=r-1@3': 'r-1' is neither an engine (engine-1) nor a fabric node (fabric-1)"),
        ("restart=engine-1@3", "'restart=engine-1@3': engine-1 was not killed before"),
        ("kill=engine-1@3,kill=engine-1@4", "'kill=engine-1@4': engine-1 is down by then"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(FaultError) as raised:
        parse(text)
    assert raised.value.faults == (says,)


def test_a_wrong_spec_names_every_mistake_at_once() -> None:
    with pytest.raises(FaultError) as raised:
        parse("drop=2,flood=1,kill=x@1")
    assert len(raised.value.faults) == 3


def test_without_faults_every_message_passes_at_once() -> None:
    plan = FaultPlan((), SEED)
    assert through(plan, frames(100)) == frames(100)


def test_dropped_messages_are_gone_and_the_others_keep_their_order() -> None:
    plan = FaultPlan((MessageFault("drop", 0.25),), SEED)
    sent = frames(1_000)
    out = through(plan, sent)
    kept = dict.fromkeys(out)
    assert out == [frame for frame in sent if frame in kept]
    assert plan.counts == {"messages": 1_000, **NONE, "drop": 1_000 - len(out)}
    assert 200 < plan.counts["drop"] < 300


def test_a_duplicated_message_follows_itself() -> None:
    plan = FaultPlan((MessageFault("dup", 1.0),), SEED)
    assert plan.frame(b"a", 0) == [b"a", b"a"]


def test_a_reordered_message_goes_after_a_few_later_ones() -> None:
    plan = FaultPlan((MessageFault("reorder", 0.2),), SEED)
    out = through(plan, frames(1_000))
    assert sorted(out, key=int) == frames(1_000)
    late = [int(frame) - (at + 1) for at, frame in enumerate(out)]
    assert min(late) < 0  # some came after later ones
    assert min(late) >= -2 * HOLD_FRAMES_MAX
    assert plan.counts["reorder"] > 150


def test_a_reordered_message_at_the_end_of_a_burst_goes_when_its_time_has_come() -> None:
    plan = FaultPlan((MessageFault("reorder", 1.0),), SEED)
    assert plan.frame(b"last", 1_000) == []
    assert plan.next_due_ns() == 1_000 + HOLD_NS
    assert plan.due(1_000 + HOLD_NS - 1) == []
    assert plan.due(1_000 + HOLD_NS) == [b"last"]
    assert plan.next_due_ns() is None


def test_the_same_seed_and_line_meet_the_same_faults_and_others_do_not() -> None:
    once, again = FaultPlan(ALL, SEED, "engine-1"), FaultPlan(ALL, SEED, "engine-1")
    other, elsewhere = FaultPlan(ALL, SEED + 1, "engine-1"), FaultPlan(ALL, SEED, "engine-2")
    sent = frames(500)
    out = through(once, sent)
    assert out == through(again, sent)
    assert out != through(other, sent)
    assert out != through(elsewhere, sent)


def test_one_kinds_rate_does_not_change_which_messages_another_kind_picks() -> None:
    three = tuple(MessageFault(kind, 0.1) for kind in ("drop", "dup", "reorder"))
    alone, together = FaultPlan(three[:1], SEED), FaultPlan(three, SEED)
    sent = frames(500)
    lost = set(sent) - set(through(alone, sent))
    assert lost == set(sent) - set(through(together, sent))


@given(seed=st.integers(0, 2**32), count=st.integers(0, 60), rates=st.tuples(*[st.floats(0, 1)] * 3))
def test_what_comes_out_is_what_came_in_less_drops_plus_duplicates(
    seed: int, count: int, rates: tuple[float, float, float]
) -> None:
    plan = FaultPlan(tuple(map(MessageFault, ("drop", "dup", "reorder"), rates)), seed)
    sent = frames(count)
    out = through(plan, sent)
    assert set(out) <= set(sent)
    assert plan.counts["messages"] == count
    assert len(set(out)) == count - plan.counts["drop"]
    assert plan.next_due_ns() is None


MS = 1_000_000


def data(first_seq: int) -> bytes:
    """A frame of two deltas."""
    rows = [(ADD | END, 1, first_seq, 99, 5, 0), (ADD | END, 1, first_seq + 1, 99, 5, 0)]
    sequencer = Sequencer(1, 1, 77, 1, fresh=True)
    for row in rows:
        sequencer.append(1_700_000_000, list(row), [])
    (frame,) = sequencer.take(1_000, flush=True)
    return numbered(frame, first_seq)


def heartbeat(next_seq: int) -> bytes:
    return feed.encode_heartbeat(1, 1, 0, 77, 1, next_seq, 1_000)


def times_of(plan: FaultPlan, sent: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """What comes out, and at which millisecond, when the plan is asked at each of them."""
    out = []
    for at_ms in range(max(at for at, _ in sent) + 500):
        now_ns = at_ms * MS
        came = plan.due(now_ns) + [each for at, frame in sent if at == at_ms for each in plan.frame(frame, now_ns)]
        out += [(at_ms, frame) for frame in came]
    return out


def test_a_burst_takes_several_in_a_row() -> None:
    plan = FaultPlan((MessageFault("burst", 0.01),), SEED)
    out = [int(frame) for frame in through(plan, frames(2_000))]
    holes = [b - a - 1 for a, b in itertools.pairwise(out) if b - a > 1]
    assert sum(holes) == plan.counts["burst"]
    assert len(holes) > 5
    assert min(holes) >= 2
    assert max(holes) <= 2 * BURST_MAX  # one may follow another


def test_a_corrupted_message_differs_in_one_byte() -> None:
    plan = FaultPlan((MessageFault("corrupt", 1.0),), SEED)
    for frame in (data(5), b"x"):
        (out,) = plan.frame(frame, 0)
        assert len(out) == len(frame)
        assert sum(a != b for a, b in zip(out, frame, strict=True)) == 1
    assert plan.frame(b"", 0) == [b""]


def test_a_truncated_message_lacks_its_end() -> None:
    plan = FaultPlan((MessageFault("truncate", 1.0),), SEED)
    (out,) = plan.frame(data(5), 0)
    assert len(out) < len(data(5))
    assert data(5).startswith(out)


def test_replayed_messages_are_old_ones_in_a_row_behind_a_new_one() -> None:
    plan = FaultPlan((MessageFault("replay", 1.0),), SEED)
    assert plan.frame(b"1", 0) == [b"1"]  # there is nothing old yet
    for number in range(2, 100):
        new, *old = map(int, plan.frame(b"%d" % number, 0))
        assert new == number
        assert 1 <= len(old) <= REPLAY_MAX
        assert old == list(range(old[0], old[0] + len(old)))
        assert old[-1] < number


def test_a_delayed_line_stands_still_and_then_goes_on_in_order() -> None:
    plan = FaultPlan((MessageFault("delay", 0.02),), SEED)
    sent = [(at, b"%d" % at) for at in range(1_000)]
    out = times_of(plan, sent)
    assert [frame for _, frame in out] == [frame for _, frame in sent]
    late = [at - int(frame) for at, frame in out]
    assert max(late) * MS <= DELAY_NS_MAX
    assert sum(each > 0 for each in late) == plan.counts["delay"] > 100


def test_a_partition_lets_nothing_pass_for_its_time() -> None:
    plan = FaultPlan(parse("partition=1@1:2").messages, SEED, begun_ns=0)
    out = times_of(plan, [(at, b"%d" % at) for at in range(0, 4_000, 100)])
    assert [at for at, _ in out] == [at for at in range(0, 4_000, 100) if not 1_000 <= at < 3_000]
    assert plan.counts["partition"] == 20


def test_a_partition_by_chance_lasts_a_second() -> None:
    plan = FaultPlan((MessageFault("partition", 0.002),), SEED)
    out = [at for at, _ in times_of(plan, [(at, b"x") for at in range(5_000)])]
    holes = [b - a - 1 for a, b in itertools.pairwise(out) if b - a > 1]
    assert holes
    assert all(hole >= PARTITION_NS // MS for hole in holes)


def test_a_lost_tail_takes_deltas_and_leaves_heartbeats_and_then_takes_all() -> None:
    plan = FaultPlan((MessageFault("tail", 1.0, 0.0, 10.0),), SEED, begun_ns=0)
    sent = [(at, frame) for at in range(0, 1_400, 100) for frame in (data(at + 1), heartbeat(at + 3))]
    out = times_of(plan, sent)
    assert out[:3] == [(at, heartbeat(at + 3)) for at in (0, 100, 200)]
    assert out[3:] == [(1_300, heartbeat(1_303))]  # another begins


def test_a_publisher_that_goes_back_numbers_anew_with_a_right_checksum_in_the_same_epoch() -> None:
    plan = FaultPlan((MessageFault("regress", 1.0, 0.0, 0.5),), SEED, begun_ns=0)
    came = [each for at in range(0, 700, 100) for each in plan.frame(data(5_001 + at), at * MS)]
    assert [feed.decode(frame).header.first_seq for frame in came] == [1, 101, 201, 301, 401, 5_501, 5_601]
    damaged = data(5_001)[:-1] + b"\xff"
    assert [plan.frame(frame, 0) for frame in (b"no frame", damaged)] == [[b"no frame"], [damaged]]
    assert [feed.decode(frame).header.first_seq for frame in plan.frame(heartbeat(5_503), 0)] == [503]
    assert {feed.decode(frame).header.epoch for frame in came} == {1}


def test_a_slow_reader_takes_so_many_a_second() -> None:
    plan = FaultPlan((MessageFault("slow", 200.0),), SEED)
    now_ns = taken = 0
    while now_ns < 1_000 * MS:
        assert plan.frame(b"x", now_ns) == [b"x"]
        taken += 1
        now_ns = plan.closed_until_ns
    assert taken == 200


def test_a_fault_with_a_time_does_nothing_before_it_is_told_when_the_time_begins() -> None:
    plan = FaultPlan(parse("drop=1@1:1").messages, SEED)
    assert plan.frame(b"a", 1_500 * MS) == [b"a"]
    plan.begin(500 * MS)
    assert [plan.frame(b"a", at * MS) for at in (1_499, 1_500, 2_499, 2_500)] == [[b"a"], [], [], [b"a"]]


@given(seed=st.integers(0, 2**32), kind=st.sampled_from([*MESSAGE_FAULTS]), count=st.integers(0, 60))
def test_when_a_fault_has_ended_messages_pass_as_they_come(seed: int, kind: str, count: int) -> None:
    plan = FaultPlan((MessageFault(kind, 1.0, 0.0, 1.0),), seed, begun_ns=0)
    for frame in frames(count):
        plan.frame(frame, 500 * MS)
    end_ns = 1_000 * MS + HOLD_NS
    plan.due(end_ns)
    assert plan.next_due_ns() is None
    assert [plan.frame(frame, end_ns) for frame in frames(3)] == [[frame] for frame in frames(3)]


def test_a_script_has_an_entry_a_line_and_remarks() -> None:
    text = """
        # a bad afternoon
        drop=0.02                # always
        partition=1@3:2, kill=engine-1@4

        slow=200@10:5"""
    assert parse_script(text) == parse("drop=0.02,partition=1@3:2,kill=engine-1@4,slow=200@10:5")
    assert str(parse_script(text)) == "drop=0.02,partition=1@3:2,slow=200@10:5,kill=engine-1@4"


def received(socket: zmq.Socket[bytes], count: int, timeout_s: float = 5.0) -> list[bytes]:
    """The next `count` messages, or as many as come."""
    out: list[bytes] = []
    deadline = time.monotonic() + patience(timeout_s)
    while len(out) < count and socket.poll(max(0, int(1_000 * (deadline - time.monotonic())))):
        out.append(socket.recv())
    return out


def subscribed(publisher: zmq.Socket[bytes]) -> bool:
    """Wait until a subscription has reached an XPUB."""
    return bool(publisher.poll(5_000)) and publisher.recv()[:1] == b"\x01"


@pytest.mark.processes
def test_the_proxy_passes_on_what_the_plan_lets_through_also_from_a_publisher_that_comes_back(tmp_path: Path) -> None:
    asyncio.run(_proxy_test(tmp_path))


async def _proxy_test(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets: list[zmq.Socket[bytes]] = []

    def publisher() -> tuple[zmq.Socket[bytes], str]:
        socket = context.socket(zmq.XPUB)
        sockets.append(socket)
        return socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

    try:
        with Children() as children:
            first, first_endpoint = publisher()
            given = f"--upstream engine-1={first_endpoint} --faults drop=0.2,dup=0.1 --seed {SEED}"
            proxy = await children.start(Child("faults", "tools.faults", given.split(), tmp_path / "faults.log"))
            ready = await proxy.wait_ready(10)
            reader = context.socket(zmq.SUB)
            sockets.append(reader)
            reader.setsockopt(zmq.SUBSCRIBE, b"")
            reader.connect(ready["listen"]["engine-1"])
            assert subscribed(first)
            plan = FaultPlan((MessageFault("drop", 0.2), MessageFault("dup", 0.1)), SEED, "engine-1")
            # The reader's own connection to the proxy may come up after the proxy's to the publisher.
            warm_up = []
            while not reader.poll(20):
                warm_up.append(b"warm-up")
                first.send(b"warm-up")
            expected = sum(len(plan.frame(frame, 0)) for frame in warm_up)
            received(reader, expected, 0.2)
            sent = frames(200)
            expected_frames = [out for frame in sent for out in plan.frame(frame, 0)]
            for frame in sent:
                first.send(frame)
            assert received(reader, len(expected_frames)) == expected_frames

            second, second_endpoint = publisher()
            proxy.tell({"line": "engine-1", "upstream": second_endpoint})
            assert subscribed(second)
            assert first.poll(5_000)  # the old one is left
            assert first.recv()[:1] == b"\x00"
            expected_frames = [out for frame in sent for out in plan.frame(frame, 0)]
            for frame in sent:
                second.send(frame)
            assert received(reader, len(expected_frames)) == expected_frames

            proxy.tell({"report": True})
            assert await proxy.line() == {"counts": {"engine-1": plan.counts}}
            await proxy.stop()
            assert proxy.returncode == 0
    finally:
        for socket in sockets:
            socket.close(linger=0)
        context.term()


def test_a_wrong_spec_is_wrong_usage_and_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["--upstream", "tcp://127.0.0.1:1", "--faults", "drop=2"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "faults: 'drop=2': a rate is a number from 0 to 1\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--market-data", "foo"], "'foo' is not HOST:PORT"),
        (["--market-data", "127.0.0.1:0"], "'127.0.0.1:0': nobody is at port 0"),
        (["--upstream", "tcp://127.0.0.1:1", "--listen", "tcp://127.0.0.1:17001x"],
         "'127.0.0.1:17001x' is not HOST:PORT"),
        (["--market-data", "127.0.0.1:65536", "--upstream", "tcp://[::1]:70000"],
         "'127.0.0.1:65536': no port is above 65,535; '[::1]:70000': no port is above 65,535"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(arguments) == 2
    assert capsys.readouterr().err == f"faults: {says}\n"


@pytest.mark.processes
def test_what_stdin_says_that_is_no_order_is_told_in_a_line_and_it_goes_on() -> None:
    orders = [
        "[]",
        "1",
        "x",
        "{}",
        '{"line": "b"}',
        "[" * 100_000,
        '{"machine": "m", "market_data": "127.0.0.1:70000"}',
    ]
    arguments = ["--line", "a", "--machine", "m", "--listen", "tcp://127.0.0.1:*"]
    command = [sys.executable, "-m", "tools.faults", *arguments]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as proxy:
        assert proxy.stdin
        assert proxy.stdout
        assert json.loads(proxy.stdout.readline())["ready"]
        proxy.stdin.write("\n".join([*orders, '{"report": true}', ""]))
        proxy.stdin.flush()
        assert json.loads(proxy.stdout.readline())["counts"].keys() == {"a"}
        proxy.terminate()
        _, err = proxy.communicate(timeout=patience(20))
    assert (proxy.returncode, len(err.splitlines())) == (0, len(orders))
    assert all(line.startswith("faults: b") for line in err.splitlines())


@pytest.mark.processes
def test_a_ready_line_that_cannot_be_written_ends_it_as_any_program_does() -> None:
    command = [sys.executable, "-m", "tools.faults", "--line", "a"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=patience(30)
        )
    assert (ended.returncode, ended.stderr) == (
        74,
        "faults: what it says cannot be written: No space left on device\n",
    )


def test_a_script_that_cannot_be_read_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.txt"
    assert faults.main(["--upstream", "tcp://127.0.0.1:1", "--script", str(missing)]) == 2
    assert capsys.readouterr().err == f"faults: {missing}: No such file or directory\n"


def test_only_message_faults_belong_to_the_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["--upstream", "tcp://127.0.0.1:1", "--faults", "kill=engine-1@1"]) == 2
    assert capsys.readouterr().err == "faults: 'kill=engine-1@1': this proxy meets messages, not processes\n"


def test_an_address_that_is_taken_ends_with_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    taken = context.socket(zmq.XPUB)
    try:
        port = taken.bind_to_random_port("tcp://127.0.0.1")
        assert faults.main(["--upstream", "tcp://127.0.0.1:1", "--listen", f"tcp://127.0.0.1:{port}"]) == 3
    finally:
        taken.close(linger=0)
        context.term()
    assert capsys.readouterr().err == f"faults: tcp://127.0.0.1:{port}: Address already in use\n"

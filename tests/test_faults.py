"""Fault specs as people write them, and the plan that decides from a seed what each message meets."""

import asyncio
import time
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from tools import faults
from tools.fault_plan import HOLD_FRAMES_MAX, HOLD_NS, FaultError, FaultPlan, FaultSpec, TimedFault, parse
from tools.processes import Child, Children

SEED = 5
ALL = (("drop", 0.1), ("dup", 0.1), ("reorder", 0.1))


def frames(count: int) -> list[bytes]:
    return [b"%d" % i for i in range(1, count + 1)]


def through(plan: FaultPlan, sent: list[bytes]) -> list[bytes]:
    """All that comes out, in order, when nothing comes in between and the last held ones time out."""
    out = [each for frame in sent for each in plan.frame(frame, 0)]
    return out + plan.due(HOLD_NS)


def test_a_spec_names_rates_and_timed_faults_in_order_of_time() -> None:
    spec = parse("reorder=.25, drop=0.05,restart=engine-2@9,kill=engine-2@5.5,pause=fabric-1@4:2")
    assert spec == FaultSpec(
        rates=(("drop", 0.05), ("reorder", 0.25)),
        timed=(
            TimedFault("pause", "fabric-1", 4.0, 2.0),
            TimedFault("kill", "engine-2", 5.5),
            TimedFault("restart", "engine-2", 9.0),
        ),
    )
    assert parse(str(spec)) == spec


def test_no_faults_are_the_empty_text_and_rates_of_zero() -> None:
    assert parse("") == parse(" drop=0, ") == FaultSpec()


def test_who_stays_down_is_who_was_killed_and_not_restarted() -> None:
    spec = parse("kill=engine-1@1,kill=fabric-2@2,restart=engine-1@3,pause=engine-3@1:1")
    assert spec.killed() == ("fabric-2",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("drop=1.5", "'drop=1.5': a rate is a number from 0 to 1"),
        ("drop=nan", "'drop=nan': a rate is a number from 0 to 1"),
        ("drop=-0", "'drop=-0': a rate is a number from 0 to 1"),
        ("drop", "'drop': a rate is a number from 0 to 1"),
        ("drop=0.1,drop=0.2", "drop is given twice"),
        ("flood=1", "'flood=1': no such fault; there are drop, dup, reorder, kill, restart, pause"),
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
    plan = FaultPlan((("drop", 0.25),), SEED)
    sent = frames(1_000)
    out = through(plan, sent)
    kept = dict.fromkeys(out)
    assert out == [frame for frame in sent if frame in kept]
    assert plan.counts == {"messages": 1_000, "drop": 1_000 - len(out), "dup": 0, "reorder": 0}
    assert 200 < plan.counts["drop"] < 300


def test_a_duplicated_message_follows_itself() -> None:
    plan = FaultPlan((("dup", 1.0),), SEED)
    assert plan.frame(b"a", 0) == [b"a", b"a"]


def test_a_reordered_message_goes_after_a_few_later_ones() -> None:
    plan = FaultPlan((("reorder", 0.2),), SEED)
    out = through(plan, frames(1_000))
    assert sorted(out, key=int) == frames(1_000)
    late = [int(frame) - (at + 1) for at, frame in enumerate(out)]
    assert min(late) < 0  # some came after later ones
    assert min(late) >= -2 * HOLD_FRAMES_MAX
    assert plan.counts["reorder"] > 150


def test_a_reordered_message_at_the_end_of_a_burst_goes_when_its_time_has_come() -> None:
    plan = FaultPlan((("reorder", 1.0),), SEED)
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
    alone, together = FaultPlan((("drop", 0.1),), SEED), FaultPlan(ALL, SEED)
    sent = frames(500)
    lost = set(sent) - set(through(alone, sent))
    assert lost == set(sent) - set(through(together, sent))


@given(seed=st.integers(0, 2**32), count=st.integers(0, 60), rates=st.tuples(*[st.floats(0, 1)] * 3))
def test_what_comes_out_is_what_came_in_less_drops_plus_duplicates(
    seed: int, count: int, rates: tuple[float, float, float]
) -> None:
    plan = FaultPlan(tuple(zip(("drop", "dup", "reorder"), rates, strict=True)), seed)
    sent = frames(count)
    out = through(plan, sent)
    assert set(out) <= set(sent)
    assert plan.counts["messages"] == count
    assert len(set(out)) == count - plan.counts["drop"]
    assert plan.next_due_ns() is None


def received(socket: zmq.Socket[bytes], count: int, timeout_s: float = 5.0) -> list[bytes]:
    """The next `count` messages, or as many as come."""
    out: list[bytes] = []
    deadline = time.monotonic() + timeout_s
    while len(out) < count and socket.poll(max(0, int(1_000 * (deadline - time.monotonic())))):
        out.append(socket.recv())
    return out


def subscribed(publisher: zmq.Socket[bytes]) -> bool:
    """Wait until a subscription has reached an XPUB."""
    return bool(publisher.poll(5_000)) and publisher.recv()[:1] == b"\x01"


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
            plan = FaultPlan((("drop", 0.2), ("dup", 0.1)), SEED, "engine-1")
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

"""Snapshots spoiled on their way: which, how, and that a reader takes none of it for a book."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from proto import marketdata_pb2, marketdata_pb2_grpc
from proto.feed import FeedError
from proto.snapshot import Chunk, chunks, join_chunks
from tests.patience import patience
from tools.chaos.answers import AnswerPlan, AnswerProxy
from tools.chaos.plan import ANSWER_FAULTS, FaultError, MessageFault, parse, parse_answers

SEED = 5
S = 1_000_000_000  # nanoseconds
BODY = bytes(range(256)) * 40


class Machine(marketdata_pb2_grpc.MarketDataServicer):
    """Gives snapshots, each at a higher sequence."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk
        self._sequence = 0

    def GetSnapshot(self, request, context):  # type: ignore[no-untyped-def]
        self._sequence += 1
        for part in chunks(BODY, self._chunk):
            yield marketdata_pb2.SnapshotChunk(
                last_seq=self._sequence, index=part.index, count=part.count, crc32=part.crc32, body=part.body
            )

    def GetStreams(self, request, context):  # type: ignore[no-untyped-def]
        return marketdata_pb2.StreamsReply(streams=[marketdata_pb2.Stream(engine=1)])


def asked(
    answers: str, times: int, chunk: int = 1_000, deadline_s: float = patience(5)
) -> list[tuple[int, bytes] | str]:
    """What a reader has of each of several snapshots through the proxy: sequence and body, or why none."""
    server = grpc.server(ThreadPoolExecutor(2))
    marketdata_pb2_grpc.add_MarketDataServicer_to_server(Machine(chunk), server)  # type: ignore[no-untyped-call]
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    proxy = AnswerProxy(AnswerPlan(parse_answers(answers), SEED), SEED)
    proxy.follow(target)
    out: list[tuple[int, bytes] | str] = []
    try:
        with grpc.insecure_channel(proxy.serve()) as channel:
            stub = marketdata_pb2_grpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
            assert [
                s.engine for s in stub.GetStreams(marketdata_pb2.StreamsRequest(), timeout=patience(5)).streams
            ] == [1]
            for _ in range(times):
                try:
                    parts = list(
                        stub.GetSnapshot(marketdata_pb2.SnapshotRequest(engine=1, channel=1), timeout=deadline_s)
                    )
                    body = join_chunks(Chunk(p.index, p.count, p.crc32, p.body) for p in parts)
                    out.append((parts[-1].last_seq, body))
                except grpc.RpcError as e:
                    out.append(e.code().name)
                except FeedError:
                    out.append("no snapshot")
    finally:
        proxy.close()
        server.stop(0).wait()
    return out


def test_without_faults_every_snapshot_passes() -> None:
    assert asked("", 3) == [(1, BODY), (2, BODY), (3, BODY)]


def test_a_stale_one_is_the_first_again() -> None:
    assert asked("stale=1", 3) == [(1, BODY)] * 3


@pytest.mark.parametrize("chunk", [1_000, 100_000])
def test_one_that_was_cut_is_no_snapshot(chunk: int) -> None:
    assert asked("cut=1", 3, chunk) == ["no snapshot"] * 3


def test_one_that_is_refused_or_late_is_none_in_time() -> None:
    assert asked("fail=1", 2) == ["UNAVAILABLE"] * 2
    assert asked("slow=1", 1, deadline_s=1.0) == ["DEADLINE_EXCEEDED"]


def test_what_is_hit_is_decided_from_the_seed_kind_by_kind() -> None:
    every = parse_answers(",".join(f"{kind}=0.2" for kind in ANSWER_FAULTS))
    once, again, alone = AnswerPlan(every, SEED), AnswerPlan(every, SEED), AnswerPlan(every[:1], SEED)
    hits = [once.next(0) for _ in range(500)]
    assert hits == [again.next(0) for _ in range(500)]
    assert [hit == "fail" for hit in hits] == [alone.next(0) == "fail" for _ in range(500)]
    done = {kind: hits.count(kind) for kind in ANSWER_FAULTS}
    assert once.counts == {"calls": 0, "partition": 0, "snapshots": 500} | done
    assert [AnswerPlan(every, SEED, "fabric-2").next(0) for _ in range(500)] != hits


def test_one_that_has_its_time_hits_from_then_on_and_no_longer() -> None:
    plan = AnswerPlan(parse_answers("fail=1@2:3"), SEED)
    assert plan.next(2 * S) == ""
    plan.begin(10 * S)
    assert [plan.next(at * S) for at in (11, 12, 14, 15)] == ["", "fail", "fail", ""]


def test_while_there_is_a_partition_no_call_passes() -> None:
    plan = AnswerPlan((), SEED, "fabric-1", parse("drop=1,partition=1@2:3").partitions)
    plan.begin(10 * S)
    assert [plan.passes(at * S) for at in (11, 12, 14, 16)] == [True, False, False, True]
    assert (plan.counts["calls"], plan.counts["partition"]) == (4, 2)


def test_a_call_meets_the_partition_and_then_the_machine_that_is_followed_by_then() -> None:
    servers = [grpc.server(ThreadPoolExecutor(2)) for _ in range(2)]
    targets = []
    for server in servers:
        marketdata_pb2_grpc.add_MarketDataServicer_to_server(Machine(1_000), server)  # type: ignore[no-untyped-call]
        targets.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
    proxy = AnswerProxy(AnswerPlan((), SEED, "", parse("partition=1@0:1000").partitions), SEED)
    try:
        with grpc.insecure_channel(proxy.serve()) as channel:
            stub = marketdata_pb2_grpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]

            def answered() -> str:
                try:
                    stub.GetStreams(marketdata_pb2.StreamsRequest(), timeout=patience(5))
                except grpc.RpcError as e:
                    return str(e.details())
                return "streams"

            assert answered() == "not there yet"
            proxy.follow(targets[0])
            assert answered() == "streams"
            servers[0].stop(0).wait()
            proxy.follow(targets[1])  # it came back on another port
            assert answered() == "streams"
            proxy.begin(time.monotonic_ns())
            assert answered() == "so the faults have it: a partition"
    finally:
        proxy.close()
        for server in servers:
            server.stop(0).wait()


def test_the_faults_of_a_run_name_those_of_snapshots_too() -> None:
    spec = parse("snapshot-cut=0.1,drop=0.2,snapshot-stale=0.5@1:2,kill=engine-1@3")
    assert spec.answers == (MessageFault("stale", 0.5, 1, 2), MessageFault("cut", 0.1))
    assert str(spec) == "drop=0.2,snapshot-stale=0.5@1:2,snapshot-cut=0.1,kill=engine-1@3"
    assert parse(str(spec)) == spec
    for wrong in ("stale=0.1", "snapshot-drop=0.1", "snapshot-cut=2", "snapshot-cut=0.1,snapshot-cut=0.2"):
        with pytest.raises(FaultError):
            parse(wrong)


def test_a_cut_leaves_something_out() -> None:
    assert ANSWER_FAULTS["cut"].spoil([], [b"a", b"b"], random.Random(SEED)) == [b"a"]
    assert ANSWER_FAULTS["cut"].spoil([], [], random.Random(SEED)) == []


@pytest.mark.parametrize("kind", ANSWER_FAULTS)
def test_every_kind_does_something(kind: str) -> None:
    fault = ANSWER_FAULTS[kind]
    assert fault.refused or fault.late_s or fault.spoil([b"a", b"b"], [b"c", b"d"], random.Random(SEED)) != [b"c", b"d"]


def test_a_wrong_spec_names_every_mistake() -> None:
    with pytest.raises(FaultError) as raised:
        parse_answers("stale=2,flood=1")
    assert raised.value.faults == (
        "'stale=2': a rate is a number from 0 to 1",
        "'flood=1': no such fault of answers; there are fail, slow, stale, cut",
    )

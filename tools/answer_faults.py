"""A proxy before a machine's gRPC port that spoils the snapshots it gives: stale, slow, refused, cut in the middle.

    python -m tools.faults --market-data 127.0.0.1:4001 --answers stale=0.2,slow=0.1,fail=0.1,cut=0.1 --seed 5

Every other call without a stream of requests passes as it is. Which answer is hit is decided from the seed, call by
call; each kind draws from a random sequence of its own.
"""

import random
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from proto import marketdata_pb2
from tools.fault_plan import FaultError

SNAPSHOT: Final = "/lobmesh.v1.MarketData/GetSnapshot"
SLOW_S: Final = 3.0  # longer than a reader waits for a snapshot
CALLS: Final = 16  # at once
# What happens to a snapshot, by kind, in the order in which they are tried: the first that hits is done.
ANSWER_FAULTS: Final = {
    "fail": "is refused: UNAVAILABLE",
    "slow": f"comes {SLOW_S:g} s late",
    "stale": "is the first one that was ever given for that stream",
    "cut": "ends in the middle, as if it were whole",
}

Answers = tuple[tuple[str, float], ...]


def parse_answers(text: str) -> Answers:
    """Read `stale=0.2,cut=0.1`. Raises: FaultError with every mistake."""
    rates: dict[str, float] = {}
    wrong: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = item.partition("=")
        if kind not in ANSWER_FAULTS:
            wrong.append(f"{item!r}: no such fault of answers; there are {', '.join(ANSWER_FAULTS)}")
        elif not re.fullmatch(r"[01](\.[0-9]*)?|\.[0-9]+", value) or float(value) > 1:
            wrong.append(f"{item!r}: a rate is a number from 0 to 1")
        else:
            rates[kind] = float(value)
    if wrong:
        raise FaultError(wrong)
    return tuple((kind, rates[kind]) for kind in ANSWER_FAULTS if kind in rates)


class AnswerPlan:
    """Which snapshot meets what, one after the other; `counts` says what was done. One caller at a time."""

    def __init__(self, answers: Answers, seed: int) -> None:
        self.counts = {"snapshots": 0} | dict.fromkeys(ANSWER_FAULTS, 0)
        self._chances = [(kind, rate, random.Random(f"{seed}/answers/{kind}")) for kind, rate in answers]

    def next(self) -> str:
        """The fault of the next snapshot, or nothing."""
        self.counts["snapshots"] += 1
        hit = [kind for kind, rate, chance in self._chances if chance.random() < rate]
        if not hit:
            return ""
        self.counts[hit[0]] += 1
        return hit[0]


def cut(chunks: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """The beginning of a snapshot: fewer chunks, or, of a single one, less of its body under its old checksum."""
    if len(chunks) > 1:
        return list(chunks[: chance.randrange(1, len(chunks))])
    chunk = marketdata_pb2.SnapshotChunk.FromString(chunks[0])
    chunk.body = chunk.body[: chance.randrange(max(len(chunk.body), 1))]
    return [chunk.SerializeToString()]


class AnswerProxy(grpc.GenericRpcHandler):
    """Serves what `target` serves, snapshots as the plan has them. Every message passes as bytes."""

    def __init__(self, target: str, plan: AnswerPlan, seed: int) -> None:
        self.plan = plan
        self._channel = grpc.insecure_channel(target, [("grpc.max_receive_message_length", 64 << 20)])
        self._server = grpc.server(ThreadPoolExecutor(CALLS, "answers"), handlers=[self])
        self._lock = threading.Lock()
        self._first: dict[bytes, list[bytes]] = {}  # snapshots by request
        self._chance = random.Random(f"{seed}/answers")
        self._stopping = threading.Event()

    def serve(self, address: str = "127.0.0.1:0") -> str:
        """Where it listens, host:port. Raises: RuntimeError."""
        port = self._server.add_insecure_port(address)
        self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        self._stopping.set()
        self._server.stop(0).wait()
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method == SNAPSHOT:
            return grpc.unary_stream_rpc_method_handler(self._snapshot)
        call: Any = self._channel.unary_unary(method)

        def passed(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return bytes(call(request, timeout=context.time_remaining()))
            except grpc.RpcError as e:
                answer: Any = e
                context.abort(answer.code(), answer.details() or "")
                raise

        return grpc.unary_unary_rpc_method_handler(passed)

    def _snapshot(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._lock:
            fault = self.plan.next()
        if fault == "fail":
            context.abort(grpc.StatusCode.UNAVAILABLE, "so the faults have it")
        if fault == "slow":
            self._stopping.wait(SLOW_S)
        call: Any = self._channel.unary_stream(SNAPSHOT)
        try:
            chunks = [bytes(chunk) for chunk in call(request, timeout=context.time_remaining())]
        except grpc.RpcError as e:
            answer: Any = e
            context.abort(answer.code(), answer.details() or "")
        with self._lock:
            first = self._first.setdefault(request, chunks)
            if fault == "stale":
                chunks = first
            elif fault == "cut" and chunks:
                chunks = cut(chunks, self._chance)
        yield from chunks

"""A proxy before a machine's gRPC port that spoils the snapshots it gives: stale, slow, refused, cut in the middle.

    python -m tools.faults --market-data 127.0.0.1:4001 --answers stale=0.2,slow=0.1,fail=0.1,cut=0.1 --seed 5

Every other call without a stream of requests passes as it is. While there is a partition no call passes. Which answer
is hit is decided from the seed, call by call; each kind draws from a random sequence of its own.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from proto import connect
from tools.chaos.plan import ANSWER_FAULTS, UNHARMED, FaultPlan, MessageFault, Running

SNAPSHOT: Final = "/lobmesh.v1.MarketData/GetSnapshot"
STREAMS: Final = (SNAPSHOT, "/lobmesh.v1.MarketData/GetHistory", "/grpc.health.v1.Health/Watch")  # of answers
CALLS: Final = 32  # at once
MESSAGE_MAX: Final = 64 << 20


class AnswerPlan:
    """Which snapshot meets what, one after the other, and which calls meet a partition; `counts` says what was done.

    One caller at a time.
    """

    def __init__(
        self, answers: Sequence[MessageFault], seed: int, machine: str = "", partitions: Sequence[MessageFault] = ()
    ) -> None:
        self.counts = {"calls": 0, "partition": 0, "snapshots": 0} | dict.fromkeys(ANSWER_FAULTS, 0)
        self._running = []
        for fault in answers:
            when = "" if fault.for_s is None else f"@{fault.at_s:g}"
            running = Running(fault, random.Random(f"{seed}/{machine}/answers/{fault.kind}{when}"))
            if fault.for_s is not None:
                running.end_ns = 0  # not before it is known when it begins
            self._running.append(running)
        self._partitions = FaultPlan(partitions, seed, f"{machine}/calls")

    def begin(self, now_ns: int) -> None:
        """This is second 0 of timed faults."""
        self._partitions.begin(now_ns)
        for running in self._running:
            running.begin(now_ns)

    def passes(self, now_ns: int) -> bool:
        """Whether the next call comes through at all."""
        self.counts["calls"] += 1
        through = bool(self._partitions.frame(b"", now_ns))
        self.counts["partition"] += not through
        return through

    def next(self, now_ns: int) -> str:
        """The fault of the next snapshot, or nothing."""
        self.counts["snapshots"] += 1
        hit = [
            running.fault.kind
            for running in self._running
            if running.start_ns <= now_ns < running.end_ns and running.chance.random() < running.fault.value
        ]
        if not hit:
            return ""
        self.counts[hit[0]] += 1
        return hit[0]


class AnswerProxy(grpc.GenericRpcHandler):
    """Serves what the machine it follows serves, as the plan has it. Every message passes as bytes."""

    def __init__(self, plan: AnswerPlan, seed: int) -> None:
        self.plan = plan
        self._channel: grpc.Channel | None = None
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

    def follow(self, target: str) -> None:
        """Stand before this port from now on."""
        before, self._channel = self._channel, connect.blocking_channel(target, reply_max=MESSAGE_MAX)
        if before is not None:
            before.close()

    def begin(self, now_ns: int) -> None:
        """This is second 0 of timed faults."""
        with self._lock:
            self.plan.begin(now_ns)

    def close(self) -> None:
        self._stopping.set()
        self._server.stop(0).wait()
        if self._channel is not None:
            self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._streamed(method, request, context)
            )
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._passed(method, request, context))

    def _passed(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        call: Any = self._through(context).unary_unary(method)
        try:
            return bytes(call(request, timeout=context.time_remaining()))
        except (grpc.RpcError, ValueError) as e:
            _abort(context, e)
            raise

    def _streamed(self, method: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        call: Any = self._through(context).unary_stream(method)
        try:
            if method == SNAPSHOT:
                yield from self._snapshot(call, request, context)
            else:
                answers = call(request, timeout=context.time_remaining())
                context.add_callback(answers.cancel)
                yield from map(bytes, answers)
        except (grpc.RpcError, ValueError) as e:
            _abort(context, e)

    def _snapshot(self, call: Any, request: bytes, context: grpc.ServicerContext) -> list[bytes]:
        with self._lock:
            kind = self.plan.next(time.monotonic_ns())
        fault = ANSWER_FAULTS[kind] if kind else UNHARMED
        if fault.refused:
            context.abort(grpc.StatusCode.UNAVAILABLE, "so the faults have it")
        self._stopping.wait(fault.late_s)
        chunks = [bytes(chunk) for chunk in call(request, timeout=context.time_remaining())]
        with self._lock:
            return fault.spoil(self._first.setdefault(request, chunks), chunks, self._chance)

    def _through(self, context: grpc.ServicerContext) -> grpc.Channel:
        """The machine, if a call comes through to it."""
        with self._lock:
            passes = self.plan.passes(time.monotonic_ns())
        if not passes:
            context.abort(grpc.StatusCode.UNAVAILABLE, "so the faults have it: a partition")
        if self._channel is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not there yet")
        assert self._channel is not None
        return self._channel


def _abort(context: grpc.ServicerContext, error: Exception) -> None:
    """Pass on what the machine answered; ValueError: its channel was closed since another is followed."""
    if isinstance(error, ValueError):
        context.abort(grpc.StatusCode.UNAVAILABLE, "it is elsewhere now")
    answer: Any = error
    context.abort(answer.code(), answer.details() or "")

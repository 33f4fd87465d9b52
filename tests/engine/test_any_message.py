"""Any message of every service, with any values in its fields: refused by type, or logged so that it can be read back.

The messages are drawn over the descriptors, so that a field or a call that is added is drawn, too. The engine starts
again from its log after each hundred of them, and must come to the same state. LOBMESH_MESSAGES: how many a service.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from random import Random
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bus.access.directory import Directory
from bus.access.exchange import DirectoryLoop
from bus.service import MarketData
from engine.log.memory import Disk, MemoryLog
from engine.node import Engine
from engine.publish.source import EngineFeed
from proto import cluster_pb2, marketdata_pb2, orders_pb2
from proto.instrument import Instrument
from proto.orders_pb2 import CommandBatch
from tests.engines import cluster_of
from tests.patience import patience

MESSAGES = int(os.environ.get("LOBMESH_MESSAGES", "1000"))
AT_ONCE = 10  # messages
LIFE = 100  # messages, then the engine starts again
WAIT_S = 0.05  # for a stream that would go on for ever
BROKEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
NOT_SENT = "Internal error from Core"  # the client's own library, of a request that came after the end of the stream

FILES = (orders_pb2, marketdata_pb2, cluster_pb2)
SERVICES: dict[str, ServiceDescriptor] = {
    name: service for file in FILES for name, service in file.DESCRIPTOR.services_by_name.items()
}

# What means something is drawn as often as what cannot be: else nothing would come past the first check.
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 10, 11, 50, 100, 101, 255, 256, 300, 999, 1000, 4096, 65_536)
EDGES = tuple(2**bits + off for bits in (31, 32, 40, 62, 63, 64) for off in (-2, -1, 0))
TEXTS = (
    "", "E1A", "E1B", "E2A", "GOLD", "0.01", "1", "1.00", "100", "99.99", "-1", "0.005", "1e3", "1e999999", "NaN",
    "inf", "y" * 5_000, "fifo", "pro-rata", "open", "auction", "x" * 200, "\x00", "\u00e9\U0001f4c8", "127.0.0.1:1", "tcp://127.0.0.1:1",
)  # fmt: skip
LIKELY: dict[str, tuple[Any, ...]] = {  # by name: what a call needs to be let in
    "symbol": ("E1A", "E1B"), "account": (7, 8), "client_order_id": tuple(range(1, 60)), "side": (0, 1), "type": (0, 1),
    "time_in_force": (0, 1, 3), "target": tuple(range(1, 60)), "meaning": (0, 1, 2), "price": ("1.00", "1.01", "0.99"),
    "quantity": ("1", "5", "9"), "self_trade_prevention": (0, 1, 2, 3, 4), "trade_id": (1, 2, 3), "state": (1, 2, 3, 4),
    "stop_price": ("", "1.02"), "display": ("", "2"), "minimum": ("", "2"), "offset": ("",), "oco": (0,),
    "expires_ns": (0,), "cursors": (),
}  # fmt: skip
ROW = {
    "op": (1, 1, 1, 2, 3, 4), "client_order_id": range(1, 60), "instrument": (10, 11),
    "flags": (0, 1, 2, 3, 16, 32, 64), "price": range(95, 106), "quantity": range(1, 10), "target": range(1, 60),
}  # fmt: skip
LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Drawing:
    """Messages and calls, as `rng` has it. (Each value drawn by hypothesis itself costs ten times as much.)"""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def call(self, service: ServiceDescriptor) -> tuple[MethodDescriptor, list[bytes]]:
        """A call and what it is asked: one request, or a few where it takes a stream of them."""
        rng = self._rng
        method = rng.choice(list(service.methods))
        requests = [self.message(method.input_type) for _ in range(rng.randint(1, 4) if method.client_streaming else 1)]
        if method.client_streaming and rng.random() < 0.75:
            hello: Any = GetMessageClass(method.input_type)()
            if method.name == "Session":
                hello.hello.account = 7
                hello.hello.cancel_on_disconnect = rng.random() < 0.5
            else:
                hello.hello.engine = 2
            requests.insert(0, hello)
        return method, [request.SerializeToString() for request in requests]

    def message(self, kind: Descriptor) -> Any:
        """A message with any of its fields set, and one of each oneof; most of them could be let in."""
        if kind is CommandBatch.DESCRIPTOR:
            return self.commands()
        rng = self._rng
        message: Any = GetMessageClass(kind)()
        chosen = [rng.choice(list(one.fields)) for one in kind.oneofs]
        good = rng.random() < 0.7
        for field in [*chosen, *(one for one in kind.fields if one.containing_oneof is None)]:
            likely = LIKELY.get(field.name, ()) if good else ()
            if likely and isinstance(likely[0], str) == (field.cpp_type == FieldDescriptor.CPPTYPE_STRING):
                setattr(message, field.name, rng.choice(likely))
            elif field not in chosen and rng.random() < (0.5 if good else 0.25):
                continue
            elif field.is_repeated:
                getattr(message, field.name).extend([self.value(field) for _ in range(rng.randint(0, 2))])
            elif field.message_type is not None:
                getattr(message, field.name).CopyFrom(self.value(field))
            else:
                setattr(message, field.name, self.value(field))
        return message

    def commands(self) -> Any:
        """A batch whose columns are of one length, or not; many of its rows are such that they are let in."""
        rng = self._rng
        batch = CommandBatch()
        count, good = rng.randint(0, 4), rng.random() < 0.75
        for field in CommandBatch.DESCRIPTOR.fields:
            if field.name in ROW and good:
                column = [rng.choice(ROW[field.name]) for _ in range(count)]
            elif rng.random() < (0.9 if good else 0.5):
                continue
            else:
                column = [
                    self.value(cast(FieldDescriptor, field))
                    for _ in range(count if rng.random() < 0.8 else rng.randint(0, 4))
                ]
            getattr(batch, field.name).extend(column)
        return batch

    def value(self, field: FieldDescriptor) -> Any:
        rng = self._rng
        if field.cpp_type in LIMITS:
            least, most = LIMITS[field.cpp_type]
            known = rng.choice(NUMBERS if rng.random() < 0.5 else EDGES) * rng.choice((1, -1))
            return known if least <= known <= most and rng.random() < 0.8 else rng.randint(least, most)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if field.type == FieldDescriptor.TYPE_BYTES:
            batches = field.name == "commands" and rng.random() < 0.75
            return self.commands().SerializeToString() if batches else rng.randbytes(rng.randint(0, 40))
        if field.type == FieldDescriptor.TYPE_STRING:
            letters = (rng.choice((rng.randint(0, 127), rng.randint(0, 0xD7FF))) for _ in range(rng.randint(0, 20)))
            any_text = "".join(map(chr, letters))
            return rng.choice((rng.choice(TEXTS), any_text))
        assert field.message_type is not None, f"{field.full_name} is of a type that is not drawn"
        return self.message(field.message_type)


class Life:
    """An engine with all its services, which starts again from its log every hundred messages."""

    def __init__(self) -> None:
        self.disk = Disk(1)
        self.sent = self.logged = 0
        self.statuses: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    def ask(self, calls: list[tuple[MethodDescriptor, list[bytes]]]) -> None:
        self._loop.run_until_complete(self._ask(calls))
        self.sent += len(calls)
        if self.sent % LIFE == 0:
            self.again()

    def again(self) -> None:
        """Start it again: it does, and it is where it was."""

        async def again() -> None:
            before = await self._stop()
            await self._start(before)

        self._loop.run_until_complete(again())

    def end(self) -> None:
        self._loop.run_until_complete(self._stop())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _start(self, before: str | None = None) -> None:
        self.log = MemoryLog(self.disk)
        self.engine = engine = Engine(cluster_of(1), 1, self.log, where=lambda engine: None)
        for _ in engine.replay():
            pass
        assert before in (None, engine.venue.digest()), "it came to another state"
        engine.venue.check()
        begun = engine.begin()
        markets = engine.venue.markets.values()
        self.feed = feed = EngineFeed(
            engine.venue, [market.instrument for market in markets if not market.delisted], incarnation=1,
            epoch=begun.epoch, fresh=begun.fresh, endpoint="tcp://127.0.0.1:0", clock_ns=time.time_ns,
        )  # fmt: skip
        engine.publish, engine.listed = feed.publish, self._listed
        feed.open(begun.time_ns)
        port = await engine.serve("127.0.0.1:0", [MarketData(feed, Silent()), DirectoryLoop(Directory())])
        feed.publisher.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])

    async def _stop(self) -> str:
        await self.engine.committer.settled()
        assert not self.engine.stopping.done(), "the engine broke"
        digest = self.engine.venue.digest()
        await self.channel.close()
        await self.engine.stop()
        await self.feed.publisher.stop()
        self.logged += self.engine.committer.commands
        self.log.close()
        return digest

    def _listed(self, instrument: Instrument) -> None:
        delisted = self.engine.venue.markets[instrument.id].delisted
        (self.feed.forget if delisted else self.feed.learn)(instrument)

    async def _ask(self, calls: list[tuple[MethodDescriptor, list[bytes]]]) -> None:
        for status in await asyncio.gather(*(self._status(*call) for call in calls)):
            self.statuses[status] = self.statuses.get(status, 0) + 1
        assert not self.engine.stopping.done(), "the engine broke"

    async def _status(self, method: MethodDescriptor, requests: list[bytes]) -> str:
        path = f"/{method.containing_service.full_name}/{method.name}"
        ways = (
            self.channel.unary_unary,
            self.channel.unary_stream,
            self.channel.stream_unary,
            self.channel.stream_stream,
        )
        way: Any = ways[method.server_streaming + 2 * method.client_streaming](path)
        try:
            if not method.server_streaming:
                await way(requests[0], timeout=patience(10))
                return "OK"
            call = way(iter(requests) if method.client_streaming else requests[0], timeout=None)
            try:
                async with asyncio.timeout(patience(10) if method.client_streaming else WAIT_S):
                    async for _ in call:
                        pass
            except TimeoutError:
                assert not method.client_streaming, f"{method.name} does not end"
                return "goes on"
            finally:
                call.cancel()
            return "OK"
        except grpc.aio.AioRpcError as e:
            if e.code() in BROKEN and e.details() != NOT_SENT:
                raise AssertionError(f"{method.name} ends with {e.code().name}: {e.details()}") from e
            return e.code().name


class Silent:
    """A history of nothing: telling one takes a process."""

    async def tell(self, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[marketdata_pb2.HistoryReply, None]:
        yield marketdata_pb2.HistoryReply(end=marketdata_pb2.HistoryEnd())


@pytest.fixture(scope="module")
def lives() -> Iterator[dict[str, Life]]:
    found: dict[str, Life] = {}
    yield found
    for life in found.values():
        life.end()


@pytest.mark.timeout(600 + MESSAGES // 10)
@pytest.mark.parametrize("name", SERVICES)
def test_any_message_is_refused_by_type_or_leads_to_a_log_that_starts_again(name: str, lives: dict[str, Life]) -> None:
    life = lives[name] = Life()

    @settings(max_examples=MESSAGES // AT_ONCE, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(st.randoms(use_true_random=True))
    def ask(rng: Random) -> None:
        drawing = Drawing(rng)
        life.ask([drawing.call(SERVICES[name]) for _ in range(AT_ONCE)])

    ask()
    life.again()
    print(name, life.sent, "messages,", life.logged, "commands logged,", life.statuses)
    assert life.sent >= MESSAGES // 2
    assert life.logged > life.sent // 50 or name in ("MarketData", "Directory")  # enough of it was let in

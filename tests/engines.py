"""Engines for tests: real gRPC on ports the system picks, logs on simulated disks, all in one event loop."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any

import grpc

from engine.core.venue import RETAINED
from engine.entry.link import LinkState
from engine.log.memory import Disk, MemoryLog
from engine.log.records import Identity
from engine.node import Engine
from proto import orders_pb2 as pb
from proto import orders_pb2_grpc
from proto.cluster import Account, Cluster, EngineEntry
from proto.instrument import Instrument
from tests.patience import patience

TICK, LOT = Decimal("0.01"), Decimal(1)


def cluster_of(engines: int, accounts: tuple[int, ...] = ()) -> Cluster:
    """Engines 1 to n; instrument 10 * e, "E1A", "E2A", ..., and 10 * e + 1, "E1B", ..., have the home e."""
    ids = range(1, engines + 1)
    instruments = [
        Instrument(10 * engine + k, f"E{engine}{letter}", engine, 1, TICK, LOT, 1, 100_000)
        for engine in ids
        for k, letter in enumerate("AB")
    ]
    return Cluster(
        "test",
        tuple(EngineEntry(engine) for engine in ids),
        tuple(instruments),
        tuple(Account(account) for account in accounts),
    )


def identity_of(instruments: Sequence[Instrument], *, retained: int = RETAINED) -> Identity:
    """Of a log of engine-1 that begins with these."""
    return Identity("test", "engine-1", EngineEntry(instruments[0].engine), retained, tuple(instruments), ())


def order(id: int = 1, **changes: Any) -> pb.NewOrderRequest:
    """A new order as a call has it: account 7 buys 5 of E1A at 1.50."""
    fields: dict[str, Any] = {
        "account": 7,
        "client_order_id": id,
        "symbol": "E1A",
        "price": "1.50",
        "quantity": "5",
    } | changes
    return pb.NewOrderRequest(**fields)


class Engines:
    """A venue that is up while it is entered."""

    def __init__(
        self,
        count: int = 1,
        *,
        accounts: tuple[int, ...] = (),
        grace_s: float = 0.3,
        answer_s: float = 0.5,
        operator_token: str = "",
    ) -> None:
        self.cluster = cluster_of(count, accounts)
        self.disks = {engine: Disk(engine) for engine in range(1, count + 1)}
        self.engines: dict[int, Engine] = {}
        self.endpoints: dict[int, str] = {}
        self._grace_s = grace_s
        self._operator_token = operator_token
        self._answer_s = answer_s
        self._channels: list[grpc.aio.Channel] = []

    def __getitem__(self, engine: int) -> Engine:
        return self.engines[engine]

    async def __aenter__(self) -> "Engines":
        for engine in self.disks:
            await self.up(engine)
        await until(self.linked)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for channel in self._channels:
            await channel.close()
        for engine in list(self.engines):
            await self.down(engine)

    def linked(self) -> bool:
        """Every engine has its link to every other."""
        return all(link.state is LinkState.UP for one in self.engines.values() for link in one.links.values())

    async def up(self, engine: int) -> None:
        """Start it, or start it again from its disk, on a port that it had not before."""
        log = MemoryLog(self.disks[engine])
        one = Engine(
            self.cluster, engine, log, where=self._where, grace_s=self._grace_s, answer_s=self._answer_s,
            operator_token=self._operator_token,
        )  # fmt: skip
        for _ in one.replay():
            pass
        one.begin()
        self.endpoints[engine] = f"127.0.0.1:{await one.serve('127.0.0.1:0')}"
        self.engines[engine] = one

    def _where(self, engine: int) -> str | None:
        return self.endpoints.get(engine)

    async def down(self, engine: int) -> None:
        one = self.engines.pop(engine)
        await one.stop()
        one.log.close()

    def stub(self, engine: int = 1) -> Any:
        return orders_pb2_grpc.OrdersStub(self.channel(engine))  # type: ignore[no-untyped-call]

    def operator(self, engine: int = 1) -> Any:
        return orders_pb2_grpc.OperatorStub(self.channel(engine))  # type: ignore[no-untyped-call]

    def channel(self, engine: int = 1) -> grpc.aio.Channel:
        """A connection of its own, whose windows do not grow: a reader that does not read is soon a slow one."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        channel = grpc.aio.insecure_channel(self.endpoints[engine], options=options)
        self._channels.append(channel)
        return channel

    async def session(self, engine: int = 1, account: int = 7, **hello: Any) -> "Stream":
        """A session as a stranger would open it, without the SDK."""
        stream = Stream(self.stub(engine).Session(), account)
        await stream.call.write(pb.SessionRequest(hello=pb.Hello(account=account, **hello)))
        stream.welcome = (await stream.read()).welcome
        return stream


class Running:
    """A venue of one engine in a loop and a thread of its own, for what blocks."""

    def __init__(self) -> None:
        self.engines = Engines()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.engines.__aenter__(), self._loop).result(10)

    @property
    def address(self) -> str:
        return self.engines.endpoints[1]

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.engines.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Stream:
    """One raw session."""

    def __init__(self, call: Any, account: int) -> None:
        self.call = call
        self.account = account
        self.welcome = pb.Welcome()
        self.reports: list[tuple[int, int, pb.ReportBatch, int]] = []  # home, number, batch, row

    async def read(self) -> pb.SessionReply:
        try:
            reply = await asyncio.wait_for(self.call.read(), patience(10))
        except grpc.aio.AioRpcError as e:
            raise EndOfStream(e.code(), e.details() or "") from e
        if reply is grpc.aio.EOF:
            raise EndOfStream(grpc.StatusCode.OK, "")
        assert isinstance(reply, pb.SessionReply)
        return reply

    async def send(self, **columns: list[int]) -> None:
        await self.call.write(pb.SessionRequest(commands=pb.CommandBatch(**columns).SerializeToString()))

    async def new(self, id: int, instrument: int, side: int, price: int, quantity: int, flags: int = 0) -> None:
        columns = ([1], [id], [instrument], [side | flags], [price], [quantity])
        names = ("op", "client_order_id", "instrument", "flags", "price", "quantity")
        await self.send(**dict(zip(names, columns, strict=True)))

    async def new_many(self, first: int, count: int, instrument: int) -> None:
        """Orders that rest, under ids from `first` on."""
        ids, ones = list(range(first, first + count)), [1] * count
        await self.send(op=ones, client_order_id=ids, instrument=[instrument] * count, price=ones, quantity=ones)

    async def positions(self, count: int) -> list[int]:
        """Of the next reports, the log records that caused them."""
        return [batch.position for _, _, batch, _ in await self._take(count)]

    async def next(self, count: int) -> list[tuple[int, ...]]:
        """The next reports: (home, number, kind, command, client order id, quantity, open, reason)."""
        return [
            (
                home,
                seq,
                batch.kind[row],
                *(
                    (column or [0] * len(batch.kind))[row]
                    for column in (batch.command, batch.client_order_id, batch.quantity, batch.open, batch.reason)
                ),
            )
            for home, seq, batch, row in await self._take(count)
        ]

    async def _take(self, count: int) -> list[tuple[int, int, pb.ReportBatch, int]]:
        while len(self.reports) < count:
            batch = pb.ReportBatch.FromString((await self.read()).reports)
            self.reports += [
                (batch.home, batch.first_seq and batch.first_seq + row, batch, row) for row in range(len(batch.kind))
            ]
        taken, self.reports = self.reports[:count], self.reports[count:]
        return taken


class EndOfStream(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


async def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + patience(seconds)
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.005)


def run(test: Callable[[Engines], Awaitable[None]], count: int = 1, **options: Any) -> None:
    """Run a test against a venue of `count` engines."""

    async def main() -> None:
        async with Engines(count, **options) as engines:
            await test(engines)

    asyncio.run(main())


async def status_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The status that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as e:
        return e.code(), e.details() or ""
    return grpc.StatusCode.OK, ""


class Stuck:
    """A log whose appends hang until it is let go."""

    def __init__(self, engines: Engines, engine: int) -> None:
        self._go = threading.Event()
        engines.disks[engine].before_append = lambda bodies: self._wait()

    def _wait(self) -> None:
        assert self._go.wait(20)

    def let_go(self) -> None:
        self._go.set()

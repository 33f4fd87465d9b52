"""A whole venue to measure: an engine with its log on disk, a fabric node that mirrors it, and an echo beside them.

Three processes, and the one that measures is the client. The mirror whose times are taken is a fourth reader of the
feed, in this process, with the very code that a fabric node reads with.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from bus.access.asking import Machine
from proto import cluster as cluster_file
from proto.cluster import Cluster, EngineEntry
from proto.columns import IOC_REMAINDER, STP_NONE, TRADED
from proto.orders import read_reports, report_columns, unwrap, wrap
from proto.orders_pb2 import Hello, SelfTradePrevention, SessionRequest
from tools.bench import echo
from tools.bench.child import PipeChild
from tools.bench.flows import INSTRUMENT
from tools.child import Child, Children

START_S: Final = 30.0
REST_S: Final = 30.0
POLL_S: Final = 0.002


@dataclass(slots=True)
class BenchVenue:
    """Where its parts are: host:port of the engine, the fabric node and the echo; the feed and the ping."""

    engine: str
    feed: str
    fabric: str
    echo: str
    ping: str
    directory: Path
    machines: dict[str, Machine]

    async def next_seq(self, where: str) -> int:
        """The next sequence of the engine's stream, as the process at `where` has it."""
        if where not in self.machines:
            self.machines[where] = Machine(where)
        streams = await self.machines[where].streams(timeout_s=5.0)
        return max((stream.next_seq for stream in streams if stream.engine == INSTRUMENT.engine), default=0)

    async def mirrored(self, where: str) -> None:
        """Wait until the mirror at `where` has all that the engine published. Raises: TimeoutError."""
        async with asyncio.timeout(REST_S):
            due = await self.next_seq(self.engine)
            while await self.next_seq(where) < due:
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def running() -> AsyncIterator[BenchVenue]:
    """Start it; it is gone when the block is left. Raises: tools.child.StartError.

    What the block raises gets a note of how its processes fared: the cause is often theirs.
    """
    with (
        tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as name,
        Children() as children,
        PipeChild("tools.bench.echo:serve") as echoing,
    ):
        directory = Path(name)
        config = directory / "cluster.toml"
        config.write_text(cluster_file.dumps(Cluster("bench", (EngineEntry(INSTRUMENT.engine),), (INSTRUMENT,))))
        arguments = ["--cluster", str(config), "--engine", str(INSTRUMENT.engine), "--new"]
        arguments += ["--data", str(directory / "engine")]
        engine = await _start(children, Child("engine", "engine", arguments, directory / "engine.log.log"))
        arguments = ["--name", "fabric", "--join", engine["grpc"]]
        fabric = (await _start(children, Child("fabric", "bus", arguments, directory / "fabric.log")))["grpc"]
        echo_grpc, ping = echoing.answer()
        venue = BenchVenue(engine["grpc"], engine["feed"], fabric, echo_grpc, ping, directory, {})
        try:
            yield venue
        except Exception as e:
            e.add_note(children.account())
            raise
        finally:
            for machine in venue.machines.values():
                await machine.close()
            await children.stop()


async def _start(children: Children, child: Child) -> dict[str, Any]:
    await children.start(child)
    return await child.wait_ready(START_S)


class BatchStream:
    """A bidirectional stream of batches, whose far end answers commands in order. `answered` counts them."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.answered = 0

    async def send(self, batch: bytes) -> None:
        await self._call.write(batch)

    async def receive(self) -> None:
        """Take the next message, and count what it answers."""
        message = await self._call.read()
        if message is grpc.aio.EOF:
            raise ConnectionError(f"the stream ended: {await self._call.code()} {await self._call.details()}")
        self.answered += self._count(message)

    def _count(self, message: bytes) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self._call.cancel()


class EchoStream(BatchStream):
    """Columns that come back as they went; reading them is part of it."""

    def _count(self, message: bytes) -> int:
        return len(echo.columns_of(message)[0])


class SessionStream(BatchStream):
    """A session with the engine, as any client could hold one. All twelve columns of the reports are read."""

    @staticmethod
    async def open(channel: grpc.aio.Channel, account: int) -> "SessionStream":
        call: Any = channel.stream_stream("/lobmesh.v1.Orders/Session")()
        stp = SelfTradePrevention.Name(STP_NONE)
        hello = Hello(account=account, self_trade_prevention=stp)
        await call.write(SessionRequest(hello=hello).SerializeToString())
        await call.read()
        return SessionStream(call)

    async def send(self, batch: bytes) -> None:
        await self._call.write(wrap(batch))

    def _count(self, message: bytes) -> int:
        reports = unwrap(message)
        assert reports is not None
        columns = report_columns(read_reports(reports))
        # Every command has one report that is no trade; an IOC order's rest has one more.
        return len(columns[0]) - columns[0].count(TRADED) - columns[11].count(IOC_REMAINDER)

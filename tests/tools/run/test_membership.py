"""Machines that join and leave a venue at work, and those that claim what another has."""

import asyncio
import contextlib
import random
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from bus.access.asking import Machine, StreamStanding
from bus.access.subscriber import Subscriber
from bus.reader.verify import differences
from bus.stream.actions import State
from proto import cluster
from proto.columns import NEW, STP_NONE, Batch
from proto.orders import write_batch
from tests.patience import patience
from tools.bench.venue import SessionStream
from tools.child import Child, Children, StartError
from tools.run.evidence import Seen
from tools.run.layout import made_up
from tools.run.membership import UNDISTURBED, disturbed

ROOT = Path(__file__).resolve().parents[3]


def big_batch(first: int, count: int, chance: random.Random) -> bytes:
    """Bids that rest, at random: nothing that packs small."""
    ids = list(range(first, first + count))
    prices = [chance.randrange(1, 500_000) for _ in ids]
    quantities = [chance.randrange(1, 1_000_000) for _ in ids]
    rest = [0] * count
    return write_batch(Batch(7, 0, STP_NONE, [NEW] * count, ids, [1] * count, rest, prices, quantities, rest))


class Halfway:
    """A port before another, that lets so many bytes of answers pass and then no more; `reached` says that it has."""

    def __init__(self, target: str, bytes_max: int) -> None:
        self.reached = asyncio.Event()
        self._host, _, self._port = target.partition(":")
        self._left = bytes_max
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self) -> str:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._server = server
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked, asking = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, asking]
        self._tasks += [
            asyncio.ensure_future(each) for each in (self._pass(reader, asking), self._answer(asked, writer))
        ]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            passed = data[: self._left]
            self._left -= len(passed)
            writer.write(passed)
            if not self._left:
                self.reached.set()
        writer.close()


@pytest.mark.processes
def test_a_fabric_node_killed_while_it_serves_a_snapshot_costs_its_reader_a_moment_and_nobody_else_anything(
    tmp_path: Path,
) -> None:
    async def streams_at(machine: Machine) -> StreamStanding:
        return (await machine.streams())[0]

    async def until_level(machine: Machine, next_seq: int) -> None:
        async with asyncio.timeout(patience(20)):
            while [(each.state, each.next_seq) for each in await machine.streams()] != [("live", next_seq)]:
                await asyncio.sleep(0.02)

    async def venue() -> None:
        (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(1, 1)))
        with Children() as children:

            async def started(name: str, module: str, given: str) -> Child:
                child = await children.start(Child(name, module, given.split(), tmp_path / f"{name}.log"))
                await child.wait_ready(20)
                return child

            engine = await started(
                "engine-1", "engine", f"--cluster {tmp_path}/cluster.toml --engine 1 --data {tmp_path}/a --new"
            )
            target = engine.ready["grpc"]
            async with grpc.aio.insecure_channel(target) as channel:
                chance = random.Random(7)
                stream = await SessionStream.open(channel, 7)
                for first in range(1, 40_001, 4_000):
                    await stream.send(big_batch(first, 4_000, chance))
                    while stream.answered < first + 3_999:
                        await stream.receive()
                stream.close()
            owner = Machine(target)
            next_seq = (await streams_at(owner)).next_seq
            server = await started("fabric-1", "bus", f"--name fabric-1 --join {target}")
            other = await started("fabric-2", "bus", f"--name fabric-2 --join {target}")
            witness = Machine(other.ready["grpc"])
            for place in (Machine(server.ready["grpc"]), witness):
                await until_level(place, next_seq)
            before = (await streams_at(witness)).counters

            halfway = Halfway(server.ready["grpc"], 50_000)
            source = await halfway.serve()
            reader = Subscriber(lambda *_: [source, target], random.Random(7))
            reader.follow(1, engine.ready["feed"])
            async with asyncio.timeout(patience(20)):
                await halfway.reached.wait()
            client = reader.clients[1, 1]
            assert client.state is State.SNAPSHOT
            killed = time.monotonic()
            await server.kill()
            await halfway.close()
            while client.state is not State.LIVE:
                assert time.monotonic() < killed + 5, "not in step in time"
                await asyncio.sleep(0.01)
            mirrored = client.mirror.snapshot(1, 1, client.incarnation, client.epoch, 0)
            assert differences(await owner.snapshot(1, 1), mirrored) == ()
            after = (await streams_at(witness)).counters
            assert [after[name] for name in UNDISTURBED] == [before[name] for name in UNDISTURBED]
            await reader.stop()
            await children.stop()

    asyncio.run(venue())


@pytest.mark.processes
def test_readers_who_begin_anew_elsewhere_were_disturbed() -> None:
    before = [Seen("fabric-1", 1, {"joins": 1}), Seen("fabric-1", 2, {"joins": 1}), Seen("fabric-2", 1, {"joins": 1})]
    after = [
        Seen("fabric-1", 1, {"joins": 1, "resnapshots": 1}),
        Seen("fabric-1", 2, {"joins": 2}),  # of the engine that moved
        Seen("fabric-2", 1, {"joins": 2}),
        Seen("fabric-3", 1, {"joins": 1}),  # has just come
    ]
    assert disturbed(before, after, {2}, {"engine-2", "fabric-2"}) == ("fabric-1 began anew with engine-1",)


@pytest.mark.parametrize("claims", ["id", "instrument"])
@pytest.mark.processes
def test_an_engine_that_claims_what_another_has_is_refused_with_both_names(tmp_path: Path, claims: str) -> None:
    async def venue() -> str:
        first = made_up(2, 2)
        (tmp_path / "first.toml").write_text(cluster.dumps(first))
        alfa = first.instruments[0]
        if claims == "id":
            second = replace(first, instruments=(replace(first.instruments[1], engine=1),))
        else:
            second = replace(first, instruments=(replace(alfa, engine=2),))
        (tmp_path / "second.toml").write_text(cluster.dumps(second))
        with Children() as children:
            given = f"--cluster {tmp_path}/first.toml --engine 1 --data {tmp_path}/a --new"
            engine = await children.start(Child("engine-1", "engine", given.split(), tmp_path / "a.log"))
            await engine.wait_ready(20)
            given = f"--cluster {tmp_path}/second.toml --engine {1 if claims == 'id' else 2} --data {tmp_path}/b"
            given += f" --new --name newcomer --join {engine.ready['grpc']}"
            other = await children.start(Child("newcomer", "engine", given.split(), tmp_path / "b.log"))
            with pytest.raises(StartError) as refused:
                await other.wait_ready(20)
            assert (other.returncode, engine.alive) == (3, True)
            await children.stop()
            return str(refused.value)

    said = asyncio.run(venue())
    assert "newcomer" in said
    assert "engine-1" in said

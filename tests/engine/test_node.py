"""An engine in one piece: what it says of its health, and what becomes of it when its log fails."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from engine.entry.streams import PEERS
from engine.log.memory import Fault
from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    LOG_FAILED,
    REFUSED,
)
from tests.engines import EndOfStream, Engines, order, run
from tests.patience import patience


def test_a_failed_log_refuses_commands_with_its_reason_and_reads_go_on() -> None:
    async def test(engines: Engines) -> None:
        stub, stream = engines.stub(), await engines.session()
        await stub.NewOrder(order(1))
        await stream.next(1)
        before = engines[1].venue.digest()
        engines.disks[1].faults.append(Fault.BEFORE)
        await stream.new(2, 10, 0, 100, 5)
        assert await stream.next(1) == [(1, 0, REFUSED, 2, 2, 5, 0, LOG_FAILED)]
        report = await stub.NewOrder(order(3))
        assert (report.kind, report.reason) == (REFUSED, LOG_FAILED)
        assert engines[1].venue.digest() == before
        assert len((await stub.OpenOrders(pb.OpenOrdersRequest(account=7))).orders) == 1

    run(test)


def test_health_says_whether_the_log_takes_commands_and_trading_goes_on_when_it_does() -> None:
    async def test(engines: Engines) -> None:
        stub, health = engines.stub(), health_pb2_grpc.HealthStub(engines.channel())

        async def serves(status: int) -> bool:
            asked = [health.Check(health_pb2.HealthCheckRequest(service=name)) for name in ("", "lobmesh.v1.Orders")]
            return [(await reply).status for reply in asked] == [status, status]

        async def until_it(status: int) -> None:
            async with asyncio.timeout(patience(10)):
                while not await serves(status):
                    await asyncio.sleep(0.01)

        assert await serves(health_pb2.HealthCheckResponse.SERVING)
        engines.disks[1].faults.extend([Fault.FULL] * 1_000_000)
        engines[1].committer._resume_s = 0.01
        assert (await stub.NewOrder(order(1))).reason == LOG_FAILED
        await until_it(health_pb2.HealthCheckResponse.NOT_SERVING)
        assert (await stub.NewOrder(order(2))).reason == LOG_FAILED
        assert not (await stub.OpenOrders(pb.OpenOrdersRequest(account=7))).orders
        engines.disks[1].faults.clear()
        await until_it(health_pb2.HealthCheckResponse.SERVING)
        assert (await stub.NewOrder(order(1))).kind == ACCEPTED

    run(test)


def test_an_unknown_outcome_ends_the_engine_without_an_answer() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        engines.disks[1].faults.append(Fault.LOST)
        await stream.new(1, 10, 0, 100, 5)
        assert await asyncio.wait_for(engines[1].stopping, patience(5)) == 4
        with pytest.raises(EndOfStream) as ended:
            await stream.next(1)
        assert ended.value.code is grpc.StatusCode.UNAVAILABLE

    run(test)


def test_an_engine_says_whether_its_links_to_all_others_stand() -> None:
    async def test(engines: Engines) -> None:
        health = health_pb2_grpc.HealthStub(engines.channel())
        request = health_pb2.HealthCheckRequest(service=PEERS)

        async def told(serves: bool) -> None:
            async with asyncio.timeout(patience(10)):
                while ((await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING) is not serves:
                    await asyncio.sleep(0.01)

        await told(True)
        await engines.down(2)
        await told(False)
        await engines.up(2)
        await told(True)

    run(test, 2)


def test_health_and_reflection_answer() -> None:
    async def test(engines: Engines) -> None:
        channel = engines.channel()
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert "lobmesh.v1.Orders" in names
        call.cancel()

    run(test)

"""Connections: a port is had, or it is said why not; over IPv6 as over IPv4."""

import asyncio
import socket

import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from proto import connect
from tests.patience import patience


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_server_is_reached_where_it_is_bound(host: str) -> None:
    async def main() -> None:
        server = connect.server()
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        port = connect.bind(server, f"{host}:0")
        await server.start()
        async with connect.channel(f"{host}:{port}") as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=patience(5)
            )
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        await server.stop(None)

    asyncio.run(main())


def test_a_port_that_cannot_be_had_is_said_with_the_reason_and_by_us_alone(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(OSError, match=f"^{address}: Address already in use$"):
                connect.bind(connect.server(), address)
        with pytest.raises(OSError, match=r"^203\.0\.113\.9:1: Cannot assign requested address$"):
            connect.bind(connect.server(), "203.0.113.9:1")

    asyncio.run(main())
    assert capfd.readouterr() == ("", "")


def test_a_port_that_was_served_a_moment_ago_can_be_had_again() -> None:
    async def main() -> None:
        port = 0
        for _ in range(3):
            server = connect.server()
            health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
            port = connect.bind(server, f"127.0.0.1:{port}")
            await server.start()
            async with connect.channel(f"127.0.0.1:{port}") as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=patience(5))
            await server.stop(None)

    asyncio.run(main())

"""The baseline of order entry: a gRPC server that gives back what it is given, and does nothing else.

The same messages, the same library, the same loop. What the venue adds to this is what it costs. Beside it, on a thread
that waits for nothing else, a ZeroMQ socket that sends back what it receives: the bare ping. Both run in a process of
their own (`tools.bench.child`), which first says where.
"""

import asyncio
import gc
import threading
from multiprocessing.connection import Connection
from typing import Any, Final

import grpc
import uvloop
import zmq

from proto.orders_pb2 import CommandBatch

SERVICE: Final = "lobmesh.bench.Echo"
EMPTY: Final = f"/{SERVICE}/Empty"
COLUMNS: Final = f"/{SERVICE}/Columns"


def columns_of(message: bytes) -> tuple[list[int], ...]:
    """A CommandBatch as lists."""
    batch = CommandBatch.FromString(message)
    return (
        batch.op[:], batch.client_order_id[:], batch.instrument[:], batch.flags[:],
        batch.price[:], batch.quantity[:], batch.target[:],
    )  # fmt: skip


def serve(connection: "Connection[Any, Any]") -> None:
    """Tell (gRPC address, ping endpoint), then serve until the process is ended."""
    gc.freeze()
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(connection))


async def _serve(connection: "Connection[Any, Any]") -> None:
    handlers = {
        "Empty": grpc.unary_unary_rpc_method_handler(_back),
        "Columns": grpc.stream_stream_rpc_method_handler(
            _stream_back, CommandBatch.FromString, CommandBatch.SerializeToString
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection.send((f"127.0.0.1:{port}", _start_ping()))
    await server.wait_for_termination()


async def _back(request: Any, _: Any) -> Any:
    return request


async def _stream_back(_: Any, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request)


def _start_ping() -> str:
    """Begin to answer pings; where."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PAIR)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    def answer() -> None:
        while True:
            socket.send(socket.recv())

    threading.Thread(target=answer, name="ping", daemon=True).start()
    return f"tcp://127.0.0.1:{port}"

"""The baseline of order entry: a gRPC server that gives back what it is given, and does nothing else.

The same messages, the same library, the same loop; rows and columns, stream and unary. What the venue adds to this
is what it costs.

    python -m tools.bench.echo        serves until SIGTERM; one JSON line on stdout says where

Beside it, on a thread that waits for nothing else, a ZeroMQ socket that sends back what it receives: the bare ping.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop
import zmq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from proto.marketdata_pb2 import Book
from proto.orders_pb2 import CommandBatch
from tools.child import Child, Children

SERVICE: Final = "lobmesh.bench.Echo"
EMPTY: Final = f"/{SERVICE}/Empty"
BOOK: Final = f"/{SERVICE}/Book"
COLUMNS: Final = f"/{SERVICE}/Columns"
COLUMNS_UNARY: Final = f"/{SERVICE}/ColumnsUnary"
ROWS: Final = f"/{SERVICE}/Rows"
ROWS_UNARY: Final = f"/{SERVICE}/RowsUnary"
CHANNEL_OPTIONS: Final = [("grpc.max_send_message_length", 64 << 20), ("grpc.max_receive_message_length", 64 << 20)]
START_S: Final = 30.0
ROW_FIELDS: Final = ("op", "client_order_id", "instrument", "flags", "price", "quantity", "target")


def _row_messages() -> Any:
    """`Rows { repeated Row rows }`, a Row with the fields of one command: what the columns replace. Made here, since it
    is part of no contract."""
    file = descriptor_pb2.FileDescriptorProto(name="lobmesh_bench.proto", package="lobmesh.bench", syntax="proto3")
    row = file.message_type.add(name="Row")
    kinds = descriptor_pb2.FieldDescriptorProto
    types = (
        kinds.TYPE_UINT32, kinds.TYPE_UINT64, kinds.TYPE_UINT32, kinds.TYPE_UINT32,
        kinds.TYPE_SINT64, kinds.TYPE_UINT64, kinds.TYPE_UINT64,
    )  # fmt: skip
    for number, (name, kind) in enumerate(zip(ROW_FIELDS, types, strict=True), 1):
        row.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    rows = file.message_type.add(name="Rows")
    rows.field.add(
        name="rows", number=1, type=kinds.TYPE_MESSAGE, type_name=".lobmesh.bench.Row", label=kinds.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("lobmesh.bench.Rows"))


Rows: Final = _row_messages()


def columns_of(message: bytes) -> tuple[list[int], ...]:
    """A CommandBatch as lists."""
    batch = CommandBatch.FromString(message)
    return (
        batch.op[:], batch.client_order_id[:], batch.instrument[:], batch.flags[:],
        batch.price[:], batch.quantity[:], batch.target[:],
    )  # fmt: skip


def rows_from(columns: Iterable[Sequence[int]]) -> bytes:
    """Columns as a message of rows."""
    message = Rows()
    add = message.rows.add
    for op, client_order_id, instrument, flags, price, quantity, target in zip(*columns, strict=True):
        add(
            op=op, client_order_id=client_order_id, instrument=instrument, flags=flags,
            price=price, quantity=quantity, target=target,
        )  # fmt: skip
    data: bytes = message.SerializeToString()
    return data


def rows_of(message: bytes) -> list[tuple[int, ...]]:
    """A message of rows, every field read."""
    return [
        (row.op, row.client_order_id, row.instrument, row.flags, row.price, row.quantity, row.target)
        for row in Rows.FromString(message).rows
    ]


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """An echo server in a process of its own: its address. It is gone when the block is left."""
    with tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as directory, Children() as children:
        child = await children.start(Child("echo", "tools.bench.echo", [], Path(directory) / "echo.log"))
        ready = await child.wait_ready(START_S)
        yield ready["grpc"]
        await children.stop()


async def _back(request: Any, _: Any) -> Any:
    return request


async def _keep(request: Book, _: Any) -> bytes:
    assert request.bids
    return b""


async def _stream_back(_: Any, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request)


def _handlers() -> grpc.GenericRpcHandler:
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    columns = (CommandBatch.FromString, CommandBatch.SerializeToString)
    rows = (Rows.FromString, Rows.SerializeToString)
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Empty": unary(_back),
            "Book": unary(_keep, Book.FromString),
            "Columns": stream(_stream_back, *columns),
            "ColumnsUnary": unary(_back, *columns),
            "Rows": stream(_stream_back, *rows),
            "RowsUnary": unary(_back, *rows),
        },
    )


async def _serve() -> None:
    server = grpc.aio.server(options=CHANNEL_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ready = {"ready": True, "name": "echo", "grpc": f"127.0.0.1:{port}", "ping": _start_ping(), "pid": os.getpid()}
    print(json.dumps(ready), flush=True)
    await stop.wait()
    await server.stop(1.0)


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


def main() -> int:
    """Exit 0 after SIGTERM or SIGINT."""
    gc.freeze()
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())

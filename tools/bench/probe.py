"""One client that enters an order every few milliseconds, in a process of its own, and notes how long each took.

    python -m tools.bench.probe HOST:PORT ACCOUNT

On stdin, a line asks for what was noted since the last one; on stdout, the answer: JSON, [[due, seconds], ...], where
`due` is when the order was to be sent by the monotonic clock, and the seconds are from then to its acknowledgement.
"""

import asyncio
import gc
import json
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import grpc
import uvloop

from proto.columns import CANCEL, NEW, STP_NONE, Batch
from proto.orders import write_batch
from tools.bench.flows import INSTRUMENT
from tools.bench.venue import SessionStream

GAP_S: Final = 0.005
ROOT: Final = Path(__file__).resolve().parents[2]


class Probe:
    """Orders at their times, each of which is canceled by the next command."""

    def __init__(self, stream: SessionStream, account: int) -> None:
        self._stream = stream
        self._account = account
        self._due: deque[float] = deque()
        self.noted: list[tuple[float, float]] = []

    async def send(self) -> None:
        due, command = monotonic(), 0
        while True:
            due += GAP_S
            command += 1
            await asyncio.sleep(max(0.0, due - monotonic()))
            op, target = (CANCEL, command - 1) if command % 2 == 0 else (NEW, 0)
            batch = Batch(
                self._account, 0, STP_NONE, [op], [command], [INSTRUMENT.id], [0], [INSTRUMENT.price_min], [1], [target]
            )
            self._due.append(due)
            await self._stream.send(write_batch(batch))

    async def hear(self) -> None:
        while True:
            answered = self._stream.answered
            await self._stream.receive()
            now = monotonic()
            for _ in range(self._stream.answered - answered):
                due = self._due.popleft()
                self.noted.append((due, now - due))

    async def answer(self) -> None:
        """Until stdin ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("ready", flush=True)
        while await reader.readline():
            noted, self.noted = self.noted, []
            print(json.dumps(noted), flush=True)


class Orders:
    """The client that enters orders, in its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def taken(self) -> list[tuple[float, float]]:
        """When each order was due, and how long it took, since this was last asked."""
        found: list[tuple[float, float]] = json.loads(await asyncio.to_thread(self._ask))
        return found

    def _ask(self) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@asynccontextmanager
async def running(engine: str, account: int) -> AsyncIterator[Orders]:
    """The client in a process of its own, that orders from the engine at `engine`."""
    command = [sys.executable, "-m", "tools.bench.probe", engine, str(account)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            await asyncio.to_thread(process.stdout.readline)
            yield Orders(process)
        finally:
            process.kill()


async def probe(endpoint: str, account: int) -> None:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        found = Probe(await SessionStream.open(channel, account), account)
        tasks = [asyncio.create_task(work) for work in (found.send(), found.hear(), found.answer())]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in done:
            task.result()


def main(argv: list[str]) -> int:
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(probe(argv[0], int(argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Peers that only listen: a process with as many SUB sockets as it is told, which reads and counts.

python -m tools.bench.readers N        lines on stdin: an endpoint to follow; answers on stdout, one a line:
                                       "joined", and "ended" once every socket has seen the end of the stream
"""

import select
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import zmq

from proto import feed
from proto.feed import END_OF_STREAM, HEARTBEAT

PATIENCE_MS: Final = 20_000
TICK_S: Final = 0.005


class Crowd:
    """`count` peers in a process of their own."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.readers", str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def follow(self, endpoint: str, tick: Callable[[], None]) -> None:
        """Have every peer subscribe; all have when this returns. `tick` lets the publisher welcome them meanwhile."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(endpoint + "\n")
        self._process.stdin.flush()
        while not select.select([self._process.stdout], [], [], TICK_S)[0]:
            tick()
        self._expect("joined")

    def finished(self) -> None:
        """Wait until every peer has read to the end."""
        self._expect("ended")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line != word:
            raise ConnectionError(f"the readers said {line!r} instead of {word!r}")


def main() -> int:
    """Exit 0 when stdin ends."""
    count = int(sys.argv[1])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for line in sys.stdin:
        sockets = [context.socket(zmq.SUB) for _ in range(count)]
        poller = zmq.Poller()
        for socket in sockets:
            socket.set_hwm(0)
            socket.subscribe(b"D")
            socket.connect(line.strip())
            poller.register(socket, zmq.POLLIN)
        waiting = dict.fromkeys(sockets)
        silent = dict.fromkeys(sockets)
        while waiting:
            ready = poller.poll(PATIENCE_MS)
            if not ready:
                return 1
            for socket, _ in ready:
                _drain(socket, waiting)
                if socket in silent:
                    del silent[socket]
                    if not silent:
                        print("joined", flush=True)
        print("ended", flush=True)
        for socket in sockets:
            socket.close(linger=0)
    context.term()
    return 0


def _drain(socket: "zmq.Socket[bytes]", waiting: "dict[zmq.Socket[bytes], None]") -> None:
    while True:
        try:
            frame = socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        flags = feed.decode_header(frame).flags
        if flags & HEARTBEAT and flags & END_OF_STREAM:
            waiting.pop(socket, None)


if __name__ == "__main__":
    sys.exit(main())

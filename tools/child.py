"""Child processes and what they and their parent say to each other: one protocol for every program of a run.

A child says {"ready": true, "pid": N, ...} as its first line on stdout, then whatever it has to tell, a JSON object a
line; on stdin it is told what to do, likewise, and at the end of stdin, or on SIGTERM, it ends. The words that all
share:

    parent   {"go": true}      begin                 child    {"tally": {...}}            so far, twice a second
             {"stop": true}    come to an end                 {"tally": {...}, "done": true}    at that end
             {"report": true}  say all once more              {..., "reported": true}     the answer

The parent's side is Child and Children, the child's `say`, `told` and `run`. No child outlives its parent: started,
awaited until it serves, signalled, stopped, reaped.

Each child leads a process group of its own, so a Ctrl-C at the terminal reaches only the parent, which decides what
happens. On Linux the kernel kills a child whose parent dies, even by SIGKILL (PR_SET_PDEATHSIG, set by a few lines
that run in the child before it becomes the program); elsewhere only an orderly end is covered.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

STOP_S: Final = 15.0  # from SIGTERM to SIGKILL
POLL_S: Final = 0.02
TALLY_S: Final = 0.5
LINE_MAX: Final = 1 << 20
PATIENCE: Final = "LOBMESH_PATIENCE"
QUIET_START_S: Final = 1.0  # in which a process of ours serves on a machine that does nothing else
PATIENCE_MAX: Final = 30.0
ROOT: Final = Path(__file__).resolve().parents[1]
LOG_TAIL: Final = 600  # characters of a log that a failed start shows

# Run as `python -c BIRTH PARENT PROGRAM ARGUMENTS...`. The parent may have died before prctl took effect.
BIRTH: Final = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Patience:
    """How many times as long as on a quiet machine things may take on this one.

    It is what the processes that were started took to serve, beside QUIET_START_S, times LOBMESH_PATIENCE in the
    environment; it only grows. So a loaded machine makes a run slow, and not wrong.
    """

    def __init__(self) -> None:
        self._asked = patience_asked()
        self._measured = 1.0

    @property
    def factor(self) -> float:
        return self._asked * self._measured

    def started(self, seconds: float) -> None:
        """A process took so long from its birth until it served."""
        self._measured = max(self._measured, min(seconds / QUIET_START_S, PATIENCE_MAX))


def patience_asked() -> float:
    """LOBMESH_PATIENCE, a number from 1 on; 1 where it is none."""
    try:
        asked = float(os.environ.get(PATIENCE, "1"))
    except ValueError:
        return 1.0
    return min(asked, PATIENCE_MAX * PATIENCE_MAX) if asked > 1 else 1.0


def environment(patience: float = 1.0) -> dict[str, str]:
    """One in which a child finds this very code, from whatever directory it is begun, and is as patient as we are."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), PATIENCE: f"{max(patience, patience_asked()):.1f}"}


# The child's side


def say(line: dict[str, Any]) -> None:
    """A line to the parent; nothing happens if it is gone."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)


def ready(name: str, **more: Any) -> None:
    """The first line: from now on it serves."""
    say({"ready": True, "name": name, "pid": os.getpid(), **more})


async def say_tally(tally: Callable[[], dict[str, Any]]) -> None:
    """Say what there is so far, twice a second, without an end."""
    while True:
        await asyncio.sleep(TALLY_S)
        say({"tally": tally()})


async def told() -> AsyncIterator[dict[str, Any]]:
    """What the parent says, to the end of stdin."""
    reader = asyncio.StreamReader(limit=LINE_MAX)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        transport.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a child's program on a loop of its own, to its end or to SIGTERM or SIGINT. Raises: what it raises."""

    async def until_told() -> None:
        task = asyncio.current_task()
        assert task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await main()

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_told())


# The parent's side


class StartError(Exception):
    """A process did not come to serve: which, why, and the end of what it complained of."""


class Child:
    """One program of ours. `ready` is what its first line of output said; `returncode` is None while it lives."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], log: Path, patience: Patience | None = None
    ) -> None:
        self.name = name
        self._patience = patience or Patience()
        self._born_s = 0.0
        self.log = log
        self.ready: dict[str, Any] = {}
        self.paused = False
        self._argv = [sys.executable, "-P", "-m", module, *arguments]
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None
        self._output: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs or before it was started. Reaps it if it has just ended."""
        return self._popen.poll() if self._popen else None

    @property
    def pid(self) -> int:
        assert self._popen
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    async def start(self) -> None:
        """Start it; its complaints go to `log`, its output to `line`. From the main thread only: the kernel ties a
        child's life to the thread that made it."""
        assert self._popen is None
        assert threading.current_thread() is threading.main_thread()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_file = self.log.open("ab")
        birth = [sys.executable, "-I", "-S", "-c", BIRTH, str(os.getpid()), *self._argv]
        self._born_s = time.monotonic()
        self._popen = subprocess.Popen(  # noqa: ASYNC220  (made by this thread, to which the kernel ties its life)
            birth,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            process_group=0,
            env=environment(self._patience.factor),
        )
        loop = asyncio.get_running_loop()
        self._output = asyncio.StreamReader(limit=LINE_MAX)
        protocol = asyncio.StreamReaderProtocol(self._output)
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, self._popen.stdout)

    async def line(self) -> dict[str, Any] | None:
        """The next JSON line of its output; None at the end. Raises: ValueError when a line is something else."""
        assert self._output
        text = await self._output.readline()
        if not text:
            return None
        line = json.loads(text)
        if not isinstance(line, dict):
            raise ValueError(f"{self.name} printed {text[:80]!r}")
        return line

    async def wait_ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the line that says it serves; `timeout_s` is what it may take on a quiet machine.

        Raises: StartError when it ends, speaks otherwise, or takes longer.
        """
        timeout_s *= self._patience.factor
        try:
            line = await asyncio.wait_for(self.line(), timeout_s)
        except TimeoutError:
            raise StartError(self._failure(f"did not serve within {timeout_s:g} s")) from None
        except ValueError as e:
            raise StartError(self._failure(str(e))) from None
        if line is None:
            await self.reap(STOP_S)
            raise StartError(self._failure(f"ended with exit code {self.returncode} before it served"))
        if line.get("ready") is not True:
            raise StartError(self._failure(f"printed {line!r} instead of being ready"))
        self.ready = line
        self._patience.started(time.monotonic() - self._born_s)
        return line

    def tell(self, message: dict[str, Any]) -> None:
        """Write a JSON line to its input; nothing happens if it has ended."""
        if self._popen and self._popen.stdin and self.alive:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.write(json.dumps(message).encode() + b"\n")
                self._popen.stdin.flush()

    def signal(self, number: int) -> None:
        """Signal its whole group; nothing happens if it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self.paused = False

    def terminate(self) -> None:
        """Ask it to end; a paused one is woken to hear it."""
        self.signal(signal.SIGTERM)
        if self.paused:
            self.resume()

    async def reap(self, timeout_s: float) -> bool:
        """Wait until it has ended; False if it has not by then."""
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        self._close()
        return True

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """SIGTERM, then SIGKILL when it has not ended `timeout_s` later, as of a quiet machine. Reaped on return."""
        self.terminate()
        if not await self.reap(timeout_s * self._patience.factor):
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, as a power cut would; reaped on return."""
        self.signal(signal.SIGKILL)
        await self.reap(STOP_S)

    def kill_now(self) -> None:
        """SIGKILL and reap without an event loop: the last resort, for a way out that cannot wait."""
        self.signal(signal.SIGKILL)
        if self._popen:
            self._popen.wait()
        self._close()

    def complaints(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace").strip()[-LOG_TAIL:]
        return ""

    def _failure(self, what: str) -> str:
        complaints = self.complaints()
        return f"{self.name} {what}" + (f":\n{complaints}" if complaints else "")

    def _close(self) -> None:
        if self._transport:
            self._transport.close()
        if self._popen:
            for stream in (self._popen.stdin, self._popen.stdout):
                if stream:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        if self._log_file:
            self._log_file.close()
            self._log_file = None


class Children:
    """Every process of a run. Leaving the `with` block, however it happens, leaves none of them behind."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, where: TracebackType | None) -> None:
        for child in self._children:
            child.kill_now()

    async def start(self, child: Child) -> Child:
        self._children.append(child)
        await child.start()
        return child

    def account(self) -> str:
        """How each of them is, or how it ended, with the end of what it complained of."""
        lines = []
        for child in self._children:
            how = "runs" if child.alive else f"ended with exit code {child.returncode}"
            lines.append(f"{child.name} {how}" + (f":\n{said}" if (said := child.complaints()) else ""))
        return "\n".join(lines)

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """Stop all at once, and wait for all."""
        await asyncio.gather(*(child.stop(timeout_s) for child in self._children if child.alive))

"""The tour in the README is run as it is written."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import patience

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PATIENCE_S = patience(60.0)


def block(containing: str) -> str:
    """The code that README has between two fences."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return next(code for code in blocks if containing in code)


class Venue:
    """The command of the README, on a terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process = process
        self.shown = ""
        self._terminal = terminal

    def read(self, timeout_s: float) -> bool:
        """Take in some of what it shows; whether there was something, or may be."""
        if not select.select([self._terminal], [], [], timeout_s)[0]:
            return self.process.poll() is None
        with contextlib.suppress(OSError):  # the end of a terminal
            sent = os.read(self._terminal, 65_536).decode(errors="replace")
            self.shown += re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", sent)
            return bool(sent)
        return False

    def address(self) -> str:
        """Of any machine, as it is shown."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"tail_feed (127\.0\.0\.1:[0-9]+) ", self.shown)):
            assert self.read(0.1), self.shown
            assert time.monotonic() < deadline, self.shown
        return found[1]


@contextmanager
def venue(*options: str) -> Iterator[Venue]:
    command = re.search(r"python run_cluster\.py (--faults \S+)\n", README)
    assert command is not None
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 120, 0, 0))
    words = [sys.executable, "run_cluster.py", *command[1].split(), *options]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment) as process:
        os.close(theirs)
        try:
            yield Venue(process, ours)
        finally:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    os.read(ours, 65_536)
            os.close(ours)


@pytest.mark.processes
def test_the_listener_of_the_tour_survives_the_faults_of_the_tour(tmp_path: Path) -> None:
    code = block("with Feed(")
    assert len(code.strip().splitlines()) <= 12
    (tmp_path / "listen.py").write_text(code)
    with venue("--duration", "11", "--seed", "5") as running:
        words = [sys.executable, "-u", str(tmp_path / "listen.py"), running.address()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
        ) as listener:
            try:
                while "The verdict" not in running.shown:
                    assert running.read(0.1), running.shown
                    assert listener.poll() is None, listener.stderr and listener.stderr.read()
            finally:
                listener.send_signal(signal.SIGINT)
                out, err = listener.communicate(timeout=PATIENCE_S)
    lines = out[: out.rfind("\n") + 1].splitlines()  # the last one may have been interrupted
    trades = [line for line in lines if line.startswith("Trade(symbol='ALFA'")]
    assert len(trades) > 20
    assert all(re.search(r"book: (valid|doubtful|stale|lagged) at [0-9]+$", line) for line in lines)
    sequences = [int(found) for found in re.findall(r"sequence=([0-9]+)", "\n".join(trades))]
    assert sequences == sorted(sequences)
    repaired = [line for line in lines if line.startswith("GapRepaired(")]
    assert len(repaired) > 3
    assert err.splitlines()[-1:] == ["KeyboardInterrupt"]

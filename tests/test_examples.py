"""The examples that are no program of the SDKs: a venue on two machines, and an engine inside a test of one's own."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proto import cluster
from tests.patience import patience
from tools.child import environment

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "cluster.toml"

pytestmark = pytest.mark.processes


def on_this_machine(text: str) -> str:
    """The file with loopback's addresses and ports that nobody has."""
    for name, address in (("10.0.0.1", "127.0.0.1"), ("10.0.0.2", "127.0.0.2")):
        for port in sorted({*re.findall(rf"{re.escape(name)}:(\d+)", text)}):
            with socket.socket() as probe:
                probe.bind((address, 0))
                text = text.replace(f"{name}:{port}", f"{address}:{probe.getsockname()[1]}")
    return text


def lobmesh(command: str) -> list[str]:
    return [sys.executable, "-P", "-m", "tools.lobmesh", *command.split()]


def test_the_two_machines_of_the_file_are_one_venue(tmp_path: Path) -> None:
    """Its commands as they are written, in their order."""
    text = on_this_machine(EXAMPLE.read_text())
    (tmp_path / "cluster.toml").write_text(text)
    assert [engine.id for engine in cluster.load(tmp_path / "cluster.toml").engines] == [1, 2]
    *machines, order, tail = re.findall(r"^# {5}lobmesh (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in machines] == ["engine", "fabric"] * 2
    started: list[subprocess.Popen[str]] = []

    def start(command: str) -> str:
        """Its first line."""
        process = subprocess.Popen(
            lobmesh(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
            env=environment(),
        )  # fmt: skip
        started.append(process)
        assert process.stdout
        return process.stdout.readline()

    try:
        for command in machines:
            assert json.loads(start(command))["ready"], command
        assert json.loads(start(f"{tail} --json --count 1"))["event"] == "state"
        entered = subprocess.run(
            lobmesh(order), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
            timeout=patience(60),
        )  # fmt: skip
        assert (entered.returncode, entered.stderr) == (0, "")
        told, _ = started[-1].communicate(timeout=patience(60))
        assert [line["price"] for line in map(json.loads, told.splitlines()) if line["event"] == "add"] == ["50.00"]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.communicate(timeout=patience(30))


def test_an_engine_can_be_had_inside_a_test_of_ones_own() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_trader.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=patience(100))
    assert done.returncode == 0, done.stdout

"""A program ends with an exit code, whatever happens to its user, its reader or its disk; never with a traceback."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from proto import program
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]


class Output:
    """A stdout that cannot be written, once it is flushed."""

    def __init__(self, error: OSError | None) -> None:
        self._error = error

    def flush(self) -> None:
        if self._error is not None:
            raise self._error

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("outcome", "flushed", "code", "said"),
    [
        (0, None, 0, ""),
        (3, None, 3, ""),
        (SystemExit(2), None, 2, ""),
        (SystemExit(), None, 0, ""),
        (KeyboardInterrupt(), None, 130, ""),
        (BrokenPipeError(), None, 141, ""),
        (1, BrokenPipeError(), 1, ""),
        (SystemExit(0), BrokenPipeError(), 0, ""),
        (FULL, None, 74, "demo: what it says cannot be written: No space left on device\n"),
        (0, FULL, 74, "demo: what it says cannot be written: No space left on device\n"),
        (1, FULL, 1, "demo: what it says cannot be written: No space left on device\n"),
    ],
)
def test_a_program_ends_with_a_code(
    outcome: int | BaseException,
    flushed: OSError | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    demo = ModuleType("demo.process")
    demo.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "demo.process", demo)
    monkeypatch.setattr(sys, "stdout", Output(flushed))
    with pytest.raises(SystemExit) as left:
        program.run("demo.process")
    assert left.value.code == code
    assert capsys.readouterr().err == said


def test_what_is_a_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = ModuleType("demo.process")
    demo.main = lambda: os.stat("/none")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "demo.process", demo)
    with pytest.raises(FileNotFoundError):
        program.run("demo.process")


@pytest.mark.processes
@pytest.mark.parametrize("name", ["engine", "bus", "tools.orders", "tools.tail_feed", "tools.replay", "tools.faults"])
def test_an_interrupt_while_a_program_is_loaded_is_no_traceback(name: str, tmp_path: Path) -> None:
    # The first thing that the program loads interrupts it.
    (tmp_path / "argparse.py").write_text(f"import os\nos.kill(os.getpid(), {int(signal.SIGINT)})\n")
    run = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, timeout=patience(60),
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


@pytest.mark.processes
@pytest.mark.parametrize("name", ["engine", "bus"])
def test_a_full_disk_under_the_output_is_one_line(name: str) -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", name, "--help"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
            check=False, env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
            timeout=patience(60),
        )  # fmt: skip
    assert (run.returncode, run.stderr) == (74, f"{name}: what it says cannot be written: No space left on device\n")


@pytest.mark.processes
def test_who_closed_the_output_is_told_nothing_and_the_work_is_done() -> None:
    command = f"{sys.executable} -m engine --help >&-"
    run = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")

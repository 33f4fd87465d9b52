"""A flood of one and the same log line is one line a minute, and nothing is held back without being counted."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from proto.logs import KIND_MAX, KINDS_MAX, Flood

ROOT = Path(__file__).resolve().parents[2]


class Lines:
    """What comes out of a filter whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.out: list[str] = []
        self._flood = Flood(lambda: self.now)

    def warn(self, text: str, *args: object, level: int = logging.WARNING) -> None:
        record = logging.LogRecord("engine", level, __file__, 1, text, args, None)
        if self._flood.filter(record):
            self.out.append(record.getMessage())


def test_the_same_line_comes_once_a_minute_and_says_how_often_it_did_not() -> None:
    lines = Lines()
    for tenth in range(10 * 150):
        lines.now = tenth / 10
        lines.warn("checkpoint failed: %s", "disk full")
    more = "checkpoint failed: disk full (and 599 more like it were not shown)"
    assert lines.out == ["checkpoint failed: disk full", more, more]


def test_other_lines_are_not_held_back() -> None:
    lines = Lines()
    for _ in range(3):
        lines.warn("link to engine %d is down", 1)
        lines.warn("link to engine %d is down", 2)
        lines.warn("link to engine %d is down", 2, level=logging.ERROR)
        lines.warn("100 % of something else")
    assert lines.out == [*[f"link to engine {n} is down" for n in (1, 2, 2)], "100 % of something else"]


def test_one_kind_of_line_with_ever_other_numbers_is_bounded_and_counted() -> None:
    lines = Lines()
    for number in range(1_000):
        lines.warn("frame %d is no frame", number)
    assert lines.out == [f"frame {number} is no frame" for number in range(KIND_MAX)]
    lines.now = 61.0
    lines.warn("frame %d is no frame", 1_000)
    assert lines.out[KIND_MAX:] == [f"frame 1000 is no frame (and {1_000 - KIND_MAX} more like it were not shown)"]


@pytest.mark.processes
def test_a_program_that_sets_up_nothing_is_bounded_too() -> None:
    code = """
import sys
from types import ModuleType
def main():
    import logging
    for _ in range(1_000):
        logging.getLogger("bus").warning("nobody answers")
    return 0
sys.modules["flooding"] = ModuleType("flooding")
sys.modules["flooding"].main = main
from proto import program
program.run("flooding")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "nobody answers\n")


def test_what_is_remembered_is_bounded() -> None:
    lines = Lines()
    for number in range(3 * KINDS_MAX):
        lines.warn(f"kind {number}")
    assert len(lines.out) == 3 * KINDS_MAX
    assert len(lines._flood._kinds._seen) == len(lines._flood._texts._seen) == KINDS_MAX

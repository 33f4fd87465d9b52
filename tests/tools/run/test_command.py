"""Every option of run_cluster.py with what it cannot be: one line that says so, before anything is started."""

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

import run_cluster
from tools.findings import HOLDS, Finding
from tools.run import command
from tools.run.command import _close, _kept
from tools.run.verdict import Verdict

NUMBERS = ("--engines", "--instruments", "--traders", "--rate", "--seed", "--duration", "--port")
NONE_OF_THEM = ("", "x", "1.5x", "nan", "1e999", "0x10", "一二")
COUNTS = ("--engines", "--instruments", "--traders", "--rate")


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code, and the lines of complaint."""
    try:
        code = run_cluster.main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()


def is_one_line(result: tuple[int, list[str]], *codes: int) -> None:
    code, lines = result
    assert code in codes, result
    assert len(lines) == 1, lines
    assert lines[0].startswith("run_cluster: "), lines


@pytest.mark.parametrize(
    "arguments",
    [
        *([name, text] for name in NUMBERS for text in NONE_OF_THEM),
        *([name, text] for name in COUNTS for text in ("0", "-1", "1000001", "9" * 40, "2.5")),
        ["--duration", "-1"],
        ["--duration", "86401"],
        ["--duration", "inf"],
        ["--port", "0"],
        ["--port", "-5"],
        ["--port", "65436"],
        ["--port", "99999"],
        ["--seed", "1.5"],
        *([name] for name in (*NUMBERS, "--data-dir", "--report", "--faults", "--script", "--replay", "--check")),
        ["--nothing"],
        ["more"],
    ],
)
def test_values_that_are_none_are_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    is_one_line(said(arguments, capsys), 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--duration", "86401"], "argument --duration: 86401 is not within 0 .. 86,400 seconds"),
        (["--engines", "x"], "argument --engines: 'x' is not a whole number"),
        (["--serve", "--duration", "5"], "--serve: it has no --duration"),
        (["--serve", "--trading-day"], "--serve: a trading day has an end"),
        (["--duration", "0", "--replay", "x"], "--serve: recorded flow (--replay) has an end"),
        (["--serve", "--json"], "--json: --serve has no verdict"),
        (["--serve", "--report", "x"], "--report: --serve has no verdict"),
        (["--check", "x"], "--check: one file for each file of --replay"),
        (["--faults", ","], None),
        (["--faults", "drop=2"], None),
        (["--faults", "kill=engine-1@-1"], None),
        (["--faults", "drop=0.1@1:0"], None),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    arguments: list[str], says: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments == ["--faults", ","]:
        arguments = [*arguments, "--engines", "100", "--instruments", "100"]  # empty is no fault, too
    result = said(arguments, capsys)
    is_one_line(result, 2)
    assert says is None or result[1] == [f"run_cluster: {says}"]


@pytest.mark.parametrize("option", ["--script", "--replay", "--report", "--data-dir"])
@pytest.mark.parametrize("what", ["absent", "directory", "garbage", "unwritable", "empty"])
def test_paths_that_cannot_be_used_are_found_before_anything_is_started(
    option: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reads = option in ("--script", "--replay")
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    path = {
        "absent": "nowhere/at/all" if reads or option == "--report" else "garbage/below",
        "directory": "." if option != "--data-dir" else "garbage",
        "garbage": "garbage",
        "unwritable": "/proc/nowhere",
        "empty": "",
    }[what]
    arguments = [option, path if path.startswith("/") else str(tmp_path / path) if path else ""]
    if option == "--report" and what == "garbage":
        return  # it is overwritten
    if option == "--replay" and what == "garbage":
        return  # read by whoever sends it
    if option == "--data-dir" and what == "empty":
        return  # here
    before = sorted(os.listdir(tmp_path))
    is_one_line(said([*arguments, "--duration", "1"], capsys), 2)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_data_directory_with_a_file_that_is_no_venue_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (b"engines = 3", bytes(range(256)), b""):
        (tmp_path / "cluster.toml").write_bytes(content)
        is_one_line(said(["--data-dir", str(tmp_path)], capsys), 2)


def test_a_port_that_somebody_has_is_found_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, lines = said(["--serve", "--port", str(port)], capsys)
    assert code == 3
    assert lines[0] == f"run_cluster: could not start: 127.0.0.1:{port} for engine-1: address already in use (--port)"


def test_a_report_that_nothing_was_written_to_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    is_one_line(said(["--report", str(report), "--data-dir", "/proc/nowhere"], capsys), 2)
    assert not report.exists()
    report.write_text("of another run")
    is_one_line(said(["--report", str(report), "--data-dir", "/proc/nowhere"], capsys), 2)
    assert report.read_text() == "of another run"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_verdict_that_cannot_be_written_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict((Finding(HOLDS, "a", "b"),))
    path = Path("/dev/full")
    report = path.open("a", encoding="utf-8")
    assert not _kept(verdict, report, path)
    _close(report, path)
    assert capsys.readouterr() == ("", "run_cluster: --report /dev/full: no space left on device\n")


def test_lines_that_cannot_be_printed_are_lost_and_not_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict((Finding(HOLDS, "a", "b"),))
    gone = []
    monkeypatch.setattr(command, "_say_no_more", lambda: gone.append(True))
    for number, count in ((errno.ENOSPC, 1), (errno.EPIPE, 0)):
        lost: list[OSError] = []

        def fails(*text: object, number: int = number, **options: object) -> None:
            raise OSError(number, "there is no way")

        monkeypatch.setattr("builtins.print", fails)
        command._tell(verdict, command.parser().parse_args(["--json"]), lost)
        assert (len(lost), gone.pop()) == (count, True)

"""Whole clusters, for a few seconds each: real processes, real sockets, real kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import run_cluster
from proto import cluster
from tools.chaos.plan import ANSWER_FAULTS, KINDS_OF_PROCESS_FAULT, MESSAGE_FAULTS
from tools.run.layout import made_up, symbols_of

ROOT = Path(__file__).resolve().parents[3]
RECORDED = Path(os.environ.get("LOBMESH_DATA", ROOT.parent / "shared" / "data"))
LOBSTER = RECORDED / "lobster" / "msft_l50_1000"
SMALL = ["--engines", "2", "--instruments", "3", "--traders", "4", "--seed", "5", "--json"]
SNAPSHOT_KINDS = [f"snapshot-{kind}" for kind in ANSWER_FAULTS]
KINDS = ", ".join((*MESSAGE_FAULTS, *SNAPSHOT_KINDS, *KINDS_OF_PROCESS_FAULT))
PATIENCE_S = 60.0


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """run_cluster as a user starts it, killed on the way out if it still runs."""
    command = [sys.executable, "run_cluster.py", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as program:
        try:
            yield program
        finally:
            program.kill()


def verdict_of(program: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Exit code, verdict and complaints at its end."""
    out, err = program.communicate(timeout=PATIENCE_S)
    return program.returncode, json.loads(out), err


def finding(verdict: dict[str, Any], title: str) -> dict[str, Any]:
    return next(dict(each) for each in verdict["findings"] if each["title"] == title)


def processes_with(text: str) -> list[int]:
    """The processes whose command line has that text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if text.encode() in command:
                found.append(int(entry.name))
    return found


def stat_of(pid: int) -> list[str]:
    """State and parent of a process, among other things; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def runs(pid: int) -> bool:
    return stat_of(pid)[:1] not in ([], ["Z"])


def children_of(pid: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [child for child in pids if stat_of(child)[1:2] == [str(pid)]]


def wait_for(condition: Any, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.processes
def test_a_lossy_cluster_whose_engine_dies_and_comes_back_is_in_step_in_the_end(tmp_path: Path) -> None:
    faults = "drop=0.05,dup=0.02,reorder=0.02,kill=engine-2@1,restart=engine-2@2.5,pause=fabric-1@1:1"
    report = tmp_path / "report.json"
    arguments = [*SMALL, "--duration", "5", "--faults", faults, "--data-dir", str(tmp_path / "run")]
    with started(*arguments, "--report", str(report)) as program:
        code, verdict, err = verdict_of(program)
    assert (code, verdict["holds"], err) == (0, True, ""), verdict
    marks = {each["title"]: each["mark"] for each in verdict["findings"]}
    assert marks == {
        "every order answered": "holds",
        "executed quantity conserved": "holds",
        "mirrors equal": "holds",
        "gaps seen and repaired": "holds",
        "strangers agree": "holds",
        "digests agree": "holds",
        "the others went on": "holds",
        "engine-2 came back": "holds",
        "engine-2 back in step": "holds",
        "faults": "note",
        "rates": "note",
    }
    assert finding(verdict, "mirrors equal")["text"].startswith("4 of 4 copies on 2 machines: ")
    assert " by range" in finding(verdict, "gaps seen and repaired")["text"]
    assert json.loads(report.read_text()) == verdict
    assert processes_with(str(tmp_path)) == []


@pytest.mark.processes
def test_a_trading_day_goes_through_its_phases_and_holds_though_an_engine_dies_on_it(tmp_path: Path) -> None:
    faults = "drop=0.02,kill=engine-2@1.2,restart=engine-2@2"  # its auction begins while it is down
    arguments = [*SMALL, "--traders", "8", "--trading-day", "--duration", "12", "--faults", faults]
    with started(*arguments, "--data-dir", str(tmp_path / "run")) as program:
        code, verdict, err = verdict_of(program)
    assert (code, verdict["holds"], err) == (0, True, ""), verdict
    marks = {each["title"]: each["mark"] for each in verdict["findings"]}
    for title in ("phases of the day", "auctions", "volatility halt", "the close", "statistics"):
        assert marks[title] == "holds", verdict
    day = verdict["day"]
    assert list(day["phases"]) == list(day["statistics"]) == ["ALFA", "BRAVO", "CHARLIE"]
    events = {(event["symbol"], event["what"]) for event in day["events"]}
    assert {(symbol, "uncross") for symbol in day["phases"]} <= events
    assert "halt" in {what for _, what in events}
    assert processes_with(str(tmp_path)) == []


@pytest.mark.processes
def test_a_second_day_goes_on_from_the_first_and_ctrl_c_ends_it_early(tmp_path: Path) -> None:
    arguments = [*SMALL, "--trading-day", "--data-dir", str(tmp_path / "run")]
    log = tmp_path / "run" / "logs" / "fabric-2.log"
    for _ in range(2):
        log.unlink(missing_ok=True)
        with started(*arguments, "--duration", "600") as program:
            wait_for(log.exists)
            program.send_signal(signal.SIGINT)
            code, verdict, err = verdict_of(program)
        assert (code, verdict["holds"], err) == (0, True, ""), verdict
        assert finding(verdict, "phases of the day")["mark"] == "not judged"
        assert finding(verdict, "the close") == {
            "mark": "not judged", "title": "the close", "text": "the day was ended before it", "details": []
        }  # fmt: skip
    with pytest.raises(subprocess.CalledProcessError) as refused:
        subprocess.run([sys.executable, "run_cluster.py", *SMALL, "--data-dir", str(tmp_path / "run")],
                       check=True, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S)  # fmt: skip
    assert refused.value.returncode == 2
    assert refused.value.stderr.endswith("another run: --engines 2 --instruments 3 --trading-day\n")


@pytest.mark.processes
def test_ctrl_c_ends_trading_early_and_still_gives_the_verdict(tmp_path: Path) -> None:
    with started(*SMALL, "--duration", "600", "--data-dir", str(tmp_path / "run")) as program:
        wait_for((tmp_path / "run" / "logs" / "fabric-2.log").exists)
        program.send_signal(signal.SIGINT)
        code, verdict, _ = verdict_of(program)
    assert (code, verdict["holds"]) == (0, True), verdict
    assert processes_with(str(tmp_path)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.processes
def test_killed_outright_it_leaves_no_process_behind(tmp_path: Path) -> None:
    with started(*SMALL, "--duration", "600", "--data-dir", str(tmp_path / "run")) as program:
        wait_for((tmp_path / "run" / "logs" / "fabric-2.log").exists)
        children = children_of(program.pid)
        assert len(children) >= 4  # two engines, the traders, a fabric node at least
        program.kill()
    wait_for(lambda: not any(map(runs, children)), 5)


@pytest.mark.skipif(not LOBSTER.is_dir(), reason=f"no recorded flow at {LOBSTER}")
@pytest.mark.processes
def test_recorded_flow_sent_over_grpc_gives_nasdaqs_books_and_fills() -> None:
    files = ["--replay", str(LOBSTER / "MSFT_message_50.csv.gz"), "--check", str(LOBSTER / "MSFT_orderbook_50.csv.gz")]
    with started(*files, "--engines", "2", "--json") as program:
        code, verdict, err = verdict_of(program)
    assert (code, err) == (0, ""), verdict
    judged = finding(verdict, "MSFT_message_50")
    assert judged["text"].partition("; ")[2] == (
        "rows that end an event: 925 of 925 agree at ten levels; aggressive orders: 35 of 35 filled as on Nasdaq"
    )
    assert (judged["mark"], judged["details"]) == ("holds", [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--faults", "flood=1"], f"'flood=1': no such fault; there are {KINDS}"),
        (["--faults", "kill=engine-4@1"], "--faults kill=engine-4@1: there is no engine-4"),
        (["--faults", "kill=engine-1@20"], "--faults kill=engine-1@20: the run ends after 20 s (--duration)"),
        (["--instruments", "2"], "--instruments 2: every one of the 3 engines needs one"),
        (["--engines", "100", "--instruments", "100"], "--engines: at most 99"),
        (["--check", "setup.py"], "--check: one file for each file of --replay"),
        (["--replay", "nothing.gz"], "nothing.gz: no such file"),
        (["--trading-day", "--replay", "x"], "--trading-day: recorded flow (--replay) has no trading day"),
        (["--trading-day", "--duration", "9"], "--trading-day: it takes 10 s at least (--duration)"),
        (["--trading-day", "--traders", "1"], "--trading-day: it takes 2 traders at least (--traders)"),
        (
            ["--trading-day", "--faults", "kill=engine-1@40"],
            "--faults kill=engine-1@40: the run ends after 40 s (--duration)",
        ),
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cluster.main(arguments) == 2
    assert capsys.readouterr() == ("", f"run_cluster: {says}\n")


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--duration", "nan"], ["--engines", "x"], ["--seed", "1.5"]])
def test_numbers_that_are_none_are_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_cluster.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_a_data_directory_of_another_venue_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cluster.toml").write_text(cluster.dumps(made_up(2, 4)))
    assert run_cluster.main(["--data-dir", str(tmp_path)]) == 2
    says = f"run_cluster: {tmp_path} holds the venue of another run: --engines 2 --instruments 4\n"
    assert capsys.readouterr() == ("", says)


@pytest.mark.processes
def test_without_a_picture_it_says_line_by_line_where_to_listen_and_minds_no_reader_that_left() -> None:
    arguments = [word for word in SMALL if word != "--json"]
    with started(*arguments, "--duration", "1") as program:
        assert program.stdout
        said = program.stdout.readline()
        while "watch it: " not in said:
            assert re.match(" +[0-9.]+ s  ", said)
            said = program.stdout.readline()
        assert re.search(r"watch it: python -m tools.tail_feed 127.0.0.1:[0-9]+ --symbol ALFA$", said)
        program.stdout.close()
        assert program.wait(PATIENCE_S) == 0
        assert program.stderr
        assert program.stderr.read() == ""


@pytest.mark.processes
def test_an_engine_that_cannot_start_ends_it_with_3_and_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "engine-1").write_text("this is no directory")
    with started(*SMALL, "--data-dir", str(tmp_path)) as program:
        out, err = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, out) == (3, "")
    assert err.startswith("run_cluster: could not start: engine-1 ended with exit code ")
    assert processes_with(str(tmp_path)) == []


def test_instruments_are_dealt_out_to_engines_in_turn() -> None:
    venue = made_up(3, 28)
    assert [(i.symbol, i.engine) for i in venue.instruments[:4]] == [
        ("ALFA", 1), ("BRAVO", 2), ("CHARLIE", 3), ("DELTA", 1)
    ]  # fmt: skip
    assert [i.symbol for i in venue.instruments[25:]] == ["ZULU", "ALFA2", "BRAVO2"]
    assert cluster.loads(cluster.dumps(venue)) == venue


def test_recorded_flow_names_its_instruments() -> None:
    files = ["MSFT_message_50.csv.gz", "MSFT_message_10.csv", "normal.bin.gz", "____"]
    assert symbols_of(files) == ["MSFT", "MSFT.2", "NORMAL", "FLOW"]
    venue = made_up(2, 4, symbols_of(files))
    assert cluster.loads(cluster.dumps(venue)) == venue

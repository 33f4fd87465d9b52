"""Whole clusters, for a few seconds each: real processes, real sockets, real kills."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import run_cluster
from engine.client import Client
from proto import cluster
from proto.columns import BUY, TIF_IOC, TRADED
from tools.chaos.plan import ANSWER_FAULTS, MESSAGE_FAULTS, PROCESS_FAULTS
from tools.child import patience_asked
from tools.run.layout import made_up, symbols_of

ROOT = Path(__file__).resolve().parents[3]
RECORDED = Path(os.environ.get("LOBMESH_DATA", ROOT.parent / "shared" / "data"))
LOBSTER = RECORDED / "lobster" / "msft_l50_1000"
SMALL = ["--engines", "2", "--instruments", "3", "--traders", "4", "--seed", "5", "--json"]
SNAPSHOT_KINDS = [f"snapshot-{kind}" for kind in ANSWER_FAULTS]
KINDS = ", ".join((*MESSAGE_FAULTS, *SNAPSHOT_KINDS, *PROCESS_FAULTS))


def patient(seconds: float) -> float:
    """So long on this machine."""
    return seconds * patience_asked()


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
    out, err = program.communicate(timeout=patient(60))
    return program.returncode, json.loads(out), err


def finding(verdict: dict[str, Any], title: str) -> dict[str, Any]:
    return next(dict(each) for each in verdict["findings"] if each["title"] == title)


def wrong(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """What does not hold of it."""
    return [each for each in verdict["findings"] if each["mark"] == "fails"]


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


def wait_for(condition: Any, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + patient(timeout_s)
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.processes
def test_machines_join_leave_and_come_back_while_somebody_trades_and_nobody_is_disturbed(tmp_path: Path) -> None:
    """Without a picture, and with a reader who leaves: the verdict is in the report."""
    report = tmp_path / "report.json"
    moves = "join@0.7,leave=engine-3@1.6,leave=fabric-3@2.2"
    returns = "kill=engine-2@3,restart=engine-2@4,kill=fabric-1@5.5,restart=fabric-1@6.5"
    arguments = ["--engines", "3", "--instruments", "6", "--traders", "4", "--rate", "400", "--seed", "5"]
    with started(*arguments, "--duration", "8", "--faults", f"{moves},{returns}", "--report", str(report)) as program:
        assert program.stdout
        lines: list[str] = []
        while not (lines and "engine-3 at " in lines[-1]):
            lines.append(program.stdout.readline())
            assert re.match(" +[0-9.]+ s  ", lines[-1]), lines
        text = "".join(lines)
        assert re.search(r"watch it: python -m tools.tail_feed 127.0.0.1:[0-9]+ --symbol ALFA\n", text)
        target = re.search(r"engine-1 at (127\.0\.0\.1:[0-9]+): ALFA DELTA\n", text)
        assert target, text
        bought = asyncio.run(buy(target[1]))
        program.stdout.close()
        code = program.wait(patient(90))
        assert code == 0, wrong(json.loads(report.read_text()))
        assert program.stderr
        assert program.stderr.read() == ""
    verdict = json.loads(report.read_text())
    assert finding(verdict, "others")["details"] == [f"account 7: 1 order, {bought[0]} of {bought[1]} lots"]
    returned = ("engine-2 back in step", "fabric-1 back in step")
    for title in ("engine-4 joined", "engine-3 left", "fabric-3 left", *returned):
        moved = finding(verdict, title)
        assert moved["mark"] == "holds"
        assert "no reader of another engine had to begin anew" in str(moved["details"])
    for title in returned:
        now, before = re.findall(r"127\.0\.0\.1:\d+", str(finding(verdict, title)["details"]))
        assert now != before
    assert finding(verdict, "engine-2 came back")["mark"] == "holds"
    assert finding(verdict, "engine-3")["text"] == (
        "left at 1.6 s and not restarted: CHARLIE, FOXTROT stopped, the others went on"
    )
    assert str(finding(verdict, "mirrors equal")["text"]).startswith("9 of 9 copies on 3 machines: ")


async def buy(target: str) -> tuple[str, int]:
    """Take some of ALFA, as somebody who is none of the run's own: in how many trades, and how much."""
    async with Client([target], account=7).session() as session:
        await session.new("ALFA", BUY, price="9000.00", quantity=9, time_in_force=TIF_IOC)
        trades = []
        async for report in session:
            if report.kind == TRADED:
                trades.append(report.quantity)
            if sum(trades) == 9:
                return ("1 trade" if len(trades) == 1 else f"{len(trades)} trades"), 9
    raise AssertionError("the session ended")


@pytest.mark.processes
def test_under_every_kind_of_fault_the_verdict_holds(tmp_path: Path) -> None:
    timed = {"partition": "1@1:0.7", "tail": "1@2:1", "regress": "1@4:0.5", "slow": "30@5:1", "drop": "0.03"}
    faults = ",".join(f"{kind}={timed.get(kind, '0.01')}" for kind in MESSAGE_FAULTS)
    faults += ",snapshot-stale=0.3,snapshot-slow=0.05,snapshot-fail=0.3,snapshot-cut=0.2"
    faults += ",kill=engine-2@1.2,restart=engine-2@2.5,pause=fabric-1@1:1,kill=fabric-2@3,restart=fabric-2@4,join@3.5"
    arguments = [*SMALL, "--duration", "7", "--faults", faults, "--data-dir", str(tmp_path / "run")]
    with started(*arguments) as program:
        code, verdict, err = verdict_of(program)
    assert (code, verdict["holds"], err) == (0, True, ""), wrong(verdict)
    marks = {each["title"]: each["mark"] for each in verdict["findings"]}
    assert marks == {
        "every order answered": "holds",
        "executed quantity conserved": "holds",
        "never crossed while open": "holds",
        "price and time priority": "holds",
        "every order accounted for": "holds",
        "both sides of every trade": "holds",
        "positions net to zero": "holds",
        "books as the reports leave them": "holds",
        "what was acknowledged is there": "holds",
        "mirrors equal": "holds",
        "gaps seen and repaired": "holds",
        "late joiners agree": "holds",
        "digests agree": "holds",
        "the others went on": "holds",
        "engine-2 came back": "holds",
        "engine-2 back in step": "holds",
        "fabric-2 back in step": "holds",
        "engine-3 joined": "holds",
        "faults": "note",
        "faults of calls": "note",
        "rates": "note",
    }
    assert finding(verdict, "mirrors equal")["text"].startswith("9 of 9 copies on 3 machines: ")
    assert " by range" in finding(verdict, "gaps seen and repaired")["text"]
    told = str(finding(verdict, "faults")["text"])
    assert [kind.done for kind in MESSAGE_FAULTS.values() if kind.done not in told] == []
    told = str(finding(verdict, "faults of calls")["text"])
    assert [word for word in ("refused", "old ones", "cut in the middle", "kept away") if word not in told] == []
    assert processes_with(str(tmp_path)) == []


@pytest.mark.processes
def test_a_trading_day_goes_on_from_one_that_ctrl_c_ended_and_holds_though_an_engine_dies_on_it(tmp_path: Path) -> None:
    arguments = [*SMALL, "--traders", "8", "--trading-day", "--data-dir", str(tmp_path / "run")]
    with started(*arguments, "--duration", "600") as program:
        wait_for((tmp_path / "run" / "logs" / "fabric-2.log").exists)
        program.send_signal(signal.SIGINT)
        code, verdict, err = verdict_of(program)
    assert (code, verdict["holds"], err) == (0, True, ""), wrong(verdict)
    assert finding(verdict, "phases of the day")["mark"] == "not judged"
    assert finding(verdict, "the close") == {
        "mark": "not judged", "title": "the close", "text": "the day was ended before it", "details": []
    }  # fmt: skip
    faults = "drop=0.02,kill=engine-2@1.2,restart=engine-2@2"  # its auction begins while it is down
    with started(*arguments, "--duration", "12", "--faults", faults) as program:
        code, verdict, err = verdict_of(program)
    assert (code, verdict["holds"], err) == (0, True, ""), wrong(verdict)
    marks = {each["title"]: each["mark"] for each in verdict["findings"]}
    for title in ("phases of the day", "auctions", "volatility halt", "the close", "statistics"):
        assert marks[title] == "holds", verdict
    day = verdict["day"]
    assert list(day["phases"]) == list(day["statistics"]) == ["ALFA", "BRAVO", "CHARLIE"]
    events = {(event["symbol"], event["what"]) for event in day["events"]}
    assert {(symbol, "uncross") for symbol in day["phases"]} <= events
    assert "halt" in {what for _, what in events}
    assert processes_with(str(tmp_path)) == []
    with pytest.raises(subprocess.CalledProcessError) as refused:
        subprocess.run([sys.executable, "run_cluster.py", *SMALL, "--data-dir", str(tmp_path / "run")],
                       check=True, capture_output=True, text=True, cwd=ROOT, timeout=patient(60))  # fmt: skip
    assert refused.value.returncode == 2
    assert refused.value.stderr.endswith("another run: --engines 2 --instruments 3 --trading-day\n")


@pytest.mark.processes
def test_a_venue_to_play_with_has_its_ports_goes_on_and_ends_well_with_ctrl_c(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--engines", "1", "--instruments", "1", "--traders", "2", "--serve", "--port", str(port)]
    elsewhere = [sys.executable, str(ROOT / "run_cluster.py"), *arguments, "--data-dir", str(tmp_path / "run")]
    with subprocess.Popen(
        elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as program:
        try:
            assert program.stdout
            while f"engine-1 at 127.0.0.1:{port}: ALFA" not in program.stdout.readline():
                assert program.poll() is None
            for _ in range(2):
                assert asyncio.run(buy(f"127.0.0.1:{port}"))[1] == 9
            assert run_cluster.main(["--serve", "--port", str(port)]) == 3
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=patient(60))
        finally:
            program.kill()
    assert (program.returncode, err) == (0, "")
    assert out.endswith("all processes ended as they were asked to\n")
    assert processes_with(str(tmp_path)) == []


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
        (["--replay", "nothing.gz"], "nothing.gz: no such file or directory"),
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
def test_an_engine_that_cannot_start_ends_it_with_3_and_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "engine-1").write_text("this is no directory")
    with started(*SMALL, "--data-dir", str(tmp_path)) as program:
        out, err = program.communicate(timeout=patient(60))
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

"""The harness, not the figures: what it names, the shape of its lines, the hash of its work, and its comparisons.

No time is asserted anywhere. Flows are synthesised and short, so that every part runs in a moment.
"""

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.columns import DELTA_WIDTH
from proto.feed import END
from tools.bench import (
    codec,
    core,
    deltas,
    document,
    entry,
    feed,
    flows,
    log,
    peers,
    recovery,
    restart,
    scale,
    show,
    slices,
    venue,
    whole_book,
)
from tools.bench.__main__ import PARTS, chosen, main
from tools.bench.deltas import Event
from tools.bench.machine import Machine
from tools.bench.measure import Options, Report, Result, in_turns, ratio, spread
from tools.flow import messages as flow

ROWS = 1_500
KEYS = ["name", "value", "unit", "baseline", "ratio", "spread", "command", "digest"]
QUICK = Options(quick=True, rounds=1)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every flow is synthesised and short; a digest of the book comes often enough to be compared; and no engine of
    PyPI is installed."""
    whole = flows.load

    def load(name: str, data: Path | None, seed: int, count: int = 0) -> flows.Flow:
        return whole(name, None, seed, min(count or ROWS, ROWS))

    monkeypatch.setattr(flows, "load", load)
    monkeypatch.setattr(feed, "DIGEST_EVERY", 256)
    monkeypatch.setattr(scale, "SIZES", (100, 1_000))
    monkeypatch.setattr(scale, "PEERS", (1, 2))
    monkeypatch.setattr(whole_book, "LEVELS", (100,))
    monkeypatch.setattr(restart, "COMMANDS_QUICK", 4_000)
    monkeypatch.setattr(slices, "ORDERS_QUICK", 10_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sound(report: Report) -> list[str]:
    """The names of a report, whose every line is as it should be."""
    for result in report.results:
        line = json.loads(show.json_line(result))
        assert list(line) == KEYS
        assert line["value"] > 0
        assert line["digest"], line
        assert line["command"] == f"python -m tools.bench {report.part}"
        assert (line["baseline"] is None) == (line["ratio"] is None)
        assert line["ratio"] is None or math.isfinite(line["ratio"])
    return [result.name for result in report.results]


# What each part says


def test_core_names_every_regime_and_the_worst_of_the_five() -> None:
    report = core.run(QUICK)
    regimes = ["static", "normal", "swing-25", "swing-40", "flash-crash", "normal-large"]
    assert sound(report) == [f"core.{name}" for name in ["worst", *regimes]]
    by_name = {result.name: result for result in report.results}
    assert by_name["core.worst"].value == min(by_name[f"core.{name}"].value for name in regimes[:5])


def test_a_compiled_core_is_set_beside_the_same_source_in_plain_python() -> None:
    work = core.checked("normal", QUICK)
    report = Report("core", "", "", "")
    core.beside_plain(report, "normal", work, QUICK, 2)
    assert sound(report) == ["core.compiled"]


def test_codec_gives_the_size_of_a_delta_alone_and_in_batches() -> None:
    report = codec.run(QUICK)
    assert {"codec.bytes_per_delta", "codec.bytes_per_delta_1", "codec.encode", "codec.decode"} <= {*sound(report)}
    size = {result.name: result.value for result in report.results}
    assert size["codec.bytes_per_delta_64"] < size["codec.bytes_per_delta"] < size["codec.bytes_per_delta_1"]


def test_feed_is_applied_to_a_mirror_and_set_beside_whole_books() -> None:
    assert sound(feed.run(QUICK)) == ["feed.deltas", "feed.socket", "feed.book_100"]


def test_log_is_set_beside_a_bare_sync_and_a_restart_beside_an_empty_one() -> None:
    names = sound(log.run(QUICK))
    appends = [f"log.{what}_{size}" for size in (1, 64, 256, 2_048) for what in ("append", "fdatasync")]
    assert names == [*appends, "log.restart", "log.restart_whole"]


def test_a_restart_that_comes_to_other_books_stops_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(directory: Path, flow: flows.Flow, count: int) -> None:
        whole(directory, flow, count)
        made.append(directory)

    def copytree(_: Path, target: Path) -> None:
        fill(target, flows.load("normal", None, 8), 4_000)

    whole, made = restart.fill, list[Path]()
    monkeypatch.setattr(restart, "fill", fill)
    monkeypatch.setattr("tools.bench.restart.shutil.copytree", copytree)
    with pytest.raises(AssertionError, match="other books"):
        restart.run(QUICK, Report("log", "", "", ""))
    assert len(made) == 2


def test_scale_counts_resting_orders_peers_and_bytes() -> None:
    names = sound(scale.run(QUICK))
    assert names == [
        "scale.growth", "scale.order_100", "scale.order_1000", "scale.peers_1", "scale.peers_2",
        "scale.snapshot_slice", "scale.snapshot_slice_wall", "scale.snapshot_stall", "scale.snapshot_ack_p50",
        "scale.snapshot_ack_p99", "scale.snapshot_ack_p99_engine", "scale.snapshot_ack_p99_busy",
        "scale.memory_resting", "scale.memory_mirrored",
    ]  # fmt: skip


def test_a_snapshot_that_is_not_the_book_stops_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def books(floor: slices.Floor) -> list[list[tuple[int, int, int]]]:
        bids, asks = whole(floor)
        return [bids[1:], asks]

    whole = slices.Floor.books
    monkeypatch.setattr(slices.Floor, "books", books)
    with pytest.raises(AssertionError, match="is not the book as it stood there"):
        slices.run(QUICK, Report("scale", "", "", ""))


def test_what_breaks_in_a_venue_tells_how_its_processes_fared() -> None:
    async def broken() -> None:
        async with venue.running() as running:
            os.kill(running.pid, signal.SIGKILL)
            os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
            raise ConnectionError("the stream ended")

    with pytest.raises(ConnectionError) as failed:
        asyncio.run(broken())
    account = failed.value.__notes__[0].splitlines()
    assert account[0] == "engine ended with exit code -9"
    assert [line for line in account if line.startswith("fabric-1 runs")]


def test_entry_drives_a_whole_venue() -> None:
    report = entry.run(QUICK)
    names = sound(report)
    for load in (10, 50, 90):
        title = f"acknowledgement of a batch of 256 at {load} % of the rate: p50 "
        assert [note for note in report.notes if note.startswith(title) and "####" in note]
    loads = {f"entry.p{q}_{load}" for q in (50, 99) for load in (10, 50, 90)}
    assert {"entry.rate", "entry.rate_64", "entry.lonely_p50", "mirror.p50", "mirror.p99", *loads} <= {*names}


def test_recovery_is_set_beside_bare_calls_and_orders_meanwhile_beside_quiet_ones() -> None:
    names = sound(recovery.run(QUICK))
    assert names == [
        "recovery.gap_p50", "recovery.gap_p99", "recovery.gap_p99_snapshot", "recovery.range_p50",
        "recovery.range_p99", "recovery.snapshot_p50", "recovery.snapshot_p99", "recovery.herd", "recovery.ack_p50",
        "recovery.ack_p99", "recovery.ack_p99_calls",
    ]  # fmt: skip


def test_the_engines_of_pypi_stand_beside_ours_when_asked_for_or_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "peers" not in chosen("all", "")
    assert list(chosen("core", sys.executable)) == ["core", "peers"]
    assert "peers" not in chosen("log", sys.executable)
    monkeypatch.setattr(peers, "is_ready", lambda python: True)
    assert list(chosen("all", ""))[:3] == ["core", "peers", "codec"]


@pytest.mark.parametrize("argv", [["nothing"], ["log", "--peers"], ["core", "--no-such"], ["compare", "one"], []])
def test_what_is_not_known_is_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2


# The hash of the work


def _digests_of_core(options: Options) -> list[str]:
    return [core.checked(name, options).answers.sha256 for name in ("normal", "static")]


def _digests_of_codec(options: Options) -> list[str]:
    return [result.digest for result in codec.run(options).results]


@pytest.mark.parametrize("digests", [_digests_of_core, _digests_of_codec])
def test_the_same_work_has_the_same_digest_and_other_work_another(digests: Callable[[Options], list[str]]) -> None:
    first = digests(QUICK)
    assert digests(QUICK) == first
    assert digests(Options(quick=True, rounds=1, seed=8)) != first


def test_a_venue_that_trades_otherwise_stops_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(reports: list[int]) -> list[core.Trade]:
        return [*traded(reports), (1, 2, 3, 4)]

    traded = core.traded
    monkeypatch.setattr(core, "traded", one_more)
    with pytest.raises(AssertionError, match="trade differently"):
        core.prepare(flows.load("normal", None, 7))


# Flows and deltas


@pytest.mark.parametrize("name", [*flows.REGIMES, flows.LARGE])
def test_a_synthesised_flow_has_the_shape_of_a_recorded_one(name: str) -> None:
    rows = flows.synthesise(name, ROWS, 7)
    assert rows == flows.synthesise(name, ROWS, 7)
    assert rows != flows.synthesise(name, ROWS, 8)
    assert [row.sequence for row in rows] == list(range(ROWS))
    shares = [sum(row.kind == kind for row in rows) / ROWS for kind in (flow.NEW, flow.CANCEL, flow.MODIFY)]
    assert shares == pytest.approx([0.5, 0.41, 0.09], abs=0.05)
    assert core.prepare(flows.Flow(name, "", rows)).answers.trades > 0


def test_cuts_hold_every_delta_once_with_its_time() -> None:
    events = [Event(10 + i // 2, [1 | END, 1, 100 + i, 50, 1, 0] * (1 + i % 3)) for i in range(20)]
    for event in events:
        for at in range(0, len(event.rows) - DELTA_WIDTH, DELTA_WIDTH):
            event.rows[at] &= ~END
    cuts = deltas.cut(events, 4)
    whole = [value for event in events for value in event.rows]
    assert [value for piece in cuts for value in piece.rows] == whole[: len(cuts) * 4 * DELTA_WIDTH]
    times = [event.time_ns for event in events for _ in range(0, len(event.rows), DELTA_WIDTH)]
    for i, piece in enumerate(cuts):
        told = dict(piece.times)
        now = told[0]
        for row in range(4):
            now = told.get(row, now)
            assert now == times[i * 4 + row]


def test_what_arrives_during_a_commit_shares_the_next_time() -> None:
    events = [Event(time_ns, []) for time_ns in (1_000, 1_010, 1_050, 1_110, 1_500)]
    logged = deltas.logged(events, 100)
    assert [event.time_ns for event in logged] == [1_000, 1_100, 1_100, 1_200, 1_500]


# Figures


def test_rounds_take_turns_and_every_second_goes_backwards() -> None:
    order: list[str] = []

    def contender(name: str) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return float(len(order))

        return run

    assert in_turns({"a": contender("a"), "b": contender("b")}, 3) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    assert ratio([10, 5, 8], [5, 2.5, 8]) == 2
    assert spread([8, 10, 12]) == pytest.approx(0.4)
    assert spread([8]) == 0


def test_a_histogram_counts_every_value_once() -> None:
    text = show.histogram("waiting", [i / 1_000 for i in range(1, 501)])
    assert text.startswith("waiting: p50 251.00 ms, p90 451.00 ms, p99 496.00 ms") or "p50" in text
    assert sum(int(line.split()[-1].replace(",", "")) for line in text.splitlines()[2:]) == 500


# Comparing and writing


def lines(*results: Result) -> str:
    return "".join(show.json_line(result) + "\n" for result in results)


def result(value: float, ratio: float | None = None, *, unit: str = "orders/s", digest: str = "d") -> Result:
    baseline = value / ratio if ratio else None
    return Result("a.rate", value, unit, baseline, ratio, 0.10, "python -m tools.bench a", digest)


@pytest.mark.parametrize(
    ("before", "after", "code", "verdict"),
    [
        (result(100), result(104), 0, "within the spread"),
        (result(100), result(150), 0, "better by 50.0%"),
        (result(100), result(50), 1, "worse by 50.0%"),
        (result(100, unit="s"), result(50, unit="s"), 0, "better by 50.0%"),
        (result(100, unit="B"), result(150, unit="B"), 1, "worse by 50.0%"),
        (result(100, 0.5), result(50, 0.5), 0, "within the spread"),  # the machine was half as fast
        (result(100, 0.5), result(100, 0.25), 1, "worse by 50.0% beside the baseline"),
        (result(100), result(100, digest="e"), 0, "within the spread; not the same work"),
        (result(100), result(100, unit="s"), 0, "not comparable: orders/s and s"),
    ],
)
def test_compare_judges_beyond_the_spread_only(
    before: Result, after: Result, code: int, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text(lines(before))
    (tmp_path / "b").write_text(lines(after))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == code
    assert capsys.readouterr().out.splitlines()[1].endswith(f"  {verdict}")


def test_compare_names_what_only_one_run_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text(lines(result(1)))
    (tmp_path / "b").write_text(lines(Result("b.rate", 2, "orders/s", digest="d")))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] + line[-12:].strip() for line in out[1:]] == ["a.rateonly before", "b.rateonly after"]


@pytest.mark.parametrize("content", ["", "[1]\n", "{}\n", '{"name": "a"}\n', "no json\n"])
def test_compare_refuses_what_is_no_result(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text(content)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("bench compare: ")


def test_a_part_prints_its_lines_and_writes_its_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARTS, "core", lambda options: Report("core", "g", "w", "p", [result(3)]))
    monkeypatch.setattr("tools.bench.machine.build_of", lambda modules: "plain Python")
    page = tmp_path / "page.md"
    page.write_text("# Kept\n\n<!-- bench core -->\nold\n<!-- end of core -->\n\nkept too\n")
    assert main(["core", "--json", "--write", str(page)]) == 0
    assert [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()] == [3]
    text = page.read_text()
    assert text.startswith("# Kept\n\n<!-- bench core -->\n")
    assert text.endswith("\n<!-- end of core -->\n\nkept too\n")
    assert "old" not in text
    assert "| a.rate" in text


def test_a_part_that_breaks_down_does_not_take_the_others_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: Options) -> Report:
        raise ConnectionError("the engine is gone")

    monkeypatch.setattr("tools.bench.__main__.PARTS", {
        "core": broken, "log": lambda options: Report("log", "g", "w", "p", [result(3)]),
    })  # fmt: skip
    assert main(["all", "--json", "--write", str(tmp_path / "page.md")]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["value"] for line in out.splitlines()] == [3]
    assert "the engine is gone" in err
    assert "core broke down" in err
    assert "<!-- bench core" not in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(("cores", "section"), [("plain Python", "core"), ("compiled", "core compiled")])
def test_compiled_figures_do_not_replace_the_plain_ones(cores: str, section: str) -> None:
    machine = Machine("cpu", 2, "system", "3.11", "2026-11-22", cores, 0.0)
    assert document.section_of(Report("core", "g", "w", "p", machine=machine)) == section


def test_a_section_that_never_ends_is_left_alone() -> None:
    with pytest.raises(ValueError, match="is not followed by"):
        document.put("<!-- bench core -->\n", "core", "text")

"""The harness, not the figures: its arithmetic, the shape of its lines, the hash of its work; one part end to end.

No time is asserted anywhere. Flows are synthesised and short. All parts run whole in `make nightly`.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from proto.columns import DELTA_WIDTH
from proto.feed import END
from tools.bench import codec, core, deltas, flows, log, show
from tools.bench.__main__ import PARTS, main
from tools.bench.bare import Trade
from tools.bench.child import PipeChild
from tools.bench.deltas import Event
from tools.bench.measure import BenchOptions, PartReport, Result, in_turns, ratio, spread
from tools.flow import messages as flow

ROWS = 1_500
QUICK = BenchOptions(quick=True, rounds=1)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every flow is synthesised and short, and no engine of PyPI is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = flows.load

    def load(name: str, data: Path | None, seed: int, count: int = 0) -> flows.Flow:
        return whole(name, None, seed, min(count or ROWS, ROWS))

    monkeypatch.setattr(flows, "load", load)
    monkeypatch.setattr(log, "COMMANDS_QUICK", 4_000)


# One part, end to end


@pytest.mark.processes
def test_log_is_set_beside_a_bare_sync_and_a_restart_beside_an_empty_one() -> None:
    report = log.run(QUICK)
    for result in report.results:
        line = json.loads(show.json_line(result))
        assert list(line) == ["name", "value", "unit", "baseline", "ratio", "spread", "command", "digest"]
        assert line["value"] > 0
        assert line["digest"], line
        assert line["command"] == "python -m tools.bench log"
        assert (line["baseline"] is None) == (line["ratio"] is None)
        assert line["ratio"] is None or math.isfinite(line["ratio"])
    appends = [f"log.append_{size}" for size in (1, 64, 256, 2_048)]
    assert [result.name for result in report.results] == [*appends, "log.restart", "log.restart_whole"]


@pytest.mark.processes
def test_a_child_answers_with_the_rate_of_the_plain_source() -> None:
    with PipeChild("tools.bench.core:serve", plain=True) as twin:
        assert twin.ask(flows.batches(flows.synthesise("normal", ROWS, 7))) > 0


# The hash of the work


def _digests_of_core(options: BenchOptions) -> list[str]:
    return [core.checked(name, options).answers.sha256 for name in ("normal", "static")]


def _digests_of_codec(options: BenchOptions) -> list[str]:
    return [result.digest for result in codec.run(options).results]


@pytest.mark.parametrize("digests", [_digests_of_core, _digests_of_codec])
def test_the_same_work_has_the_same_digest_and_other_work_another(digests: Callable[[BenchOptions], list[str]]) -> None:
    first = digests(QUICK)
    assert digests(QUICK) == first
    assert digests(BenchOptions(quick=True, rounds=1, seed=8)) != first


def test_a_venue_that_trades_otherwise_stops_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(reports: list[int]) -> list[Trade]:
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


# The command line


@pytest.mark.parametrize("argv", [["nothing"], ["log", "--peers"], ["core", "--no-such"], []])
def test_what_is_not_known_is_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2


def reported(options: BenchOptions) -> PartReport:
    return PartReport("core", "g", "w", "p", [Result("a.rate", 3, "orders/s", digest="d")])


def test_a_part_prints_its_lines_and_writes_its_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARTS, "core", reported)
    monkeypatch.setattr("tools.bench.measure.build", lambda: "plain Python")
    page = tmp_path / "page.md"
    page.write_text("# Kept\n\n<!-- bench core -->\nold\n<!-- end of core -->\n\nkept too\n")
    assert main(["core", "--json", "--write", str(page)]) == 0
    assert [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()] == [3]
    text = page.read_text()
    assert text.startswith("# Kept\n\n<!-- bench core -->\n")
    assert text.endswith("\n<!-- end of core -->\n\nkept too\n")
    assert "old" not in text
    assert "| a.rate" in text


def test_compiled_figures_do_not_replace_the_plain_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARTS, "core", reported)
    page = tmp_path / "page.md"
    for build in ("plain Python", "compiled"):
        monkeypatch.setattr("tools.bench.measure.build", lambda build=build: build)
        assert main(["core", "--write", str(page)]) == 0
    assert [line for line in page.read_text().splitlines() if line.startswith("<!-- bench")] == [
        "<!-- bench core -->", "<!-- bench core compiled -->",
    ]  # fmt: skip


def test_a_part_that_breaks_down_does_not_take_the_others_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: BenchOptions) -> PartReport:
        raise ConnectionError("the engine is gone")

    monkeypatch.setattr("tools.bench.__main__.PARTS", {"log": broken, "core": reported})
    assert main(["all", "--json", "--write", str(tmp_path / "page.md")]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["value"] for line in out.splitlines()] == [3]
    assert "the engine is gone" in err
    assert "log broke down" in err
    assert "<!-- bench log" not in (tmp_path / "page.md").read_text()


def test_a_section_that_never_ends_is_left_alone() -> None:
    with pytest.raises(ValueError, match="is not followed by"):
        show.put("<!-- bench core -->\n", "core", "text")


@pytest.mark.parametrize("where", ["absent/figures.md", "."])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["core", "--quick", "--write", str(tmp_path / where)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    with pytest.raises(SystemExit) as left:
        main(["core", "--rounds", "-1"])
    assert left.value.code == 2

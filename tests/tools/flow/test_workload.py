"""The benchmark's workloads: a venue that gives the answers others agree on, in process and over gRPC."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import struct
from pathlib import Path

import pytest

from engine.client import Client
from engine.core.venue import Venue
from proto.columns import CANCEL, FLAG_SELL, MEANING_OPEN, NEW, REPLACE, REQUEUE, STP_NONE, TIF_IOC, Batch, report_rows
from tests.engines import Engines
from tools import replay
from tools.flow import messages as flow
from tools.flow import workload
from tools.flow.messages import WorkloadRow
from tools.flow.recorded import RecordedFlow, UsedBeforeError
from tools.flow.workload import OWN, Answers
from tools.replay import Progress

DATA = Path(os.environ.get("LOBMESH_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
needs_data = pytest.mark.skipif(not (DATA / "workload").is_dir(), reason=f"no recorded flow in {DATA}")

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flow.csv"

# What 160 independent engines agree on.
AGREED = {
    "static": Answers("4466040d984b108766fe0c099cb45730cf87dadc5dbe692d8cb35b6112ff0048", 8, 896),
    "normal": Answers("f04bbcd71a09950123ea2a6a81e4fe6d04f7324e7a4431c8739491fb43fe46eb", 1329, 120),
    "swing-25": Answers("fd5a24255d29d7d51e904c59bf05c446eb36eba55aafa17cbf46bcc2a9d9d0b8", 1395, 85),
    "swing-40": Answers("c51527b99719db310c64a50924514ebc50470f2a2fe4f2238abd5dd089e82301", 1399, 64),
    "flash-crash": Answers("af43141ec7bdbd1ec82803e19fb2f30dc23aa8dc6c3b5dcdf421dbc9729a93af", 1471, 24),
    "normal-large": Answers("0711f8ad9ec85f78f5c9b0a0a9dba2a5b2665e761deab19f4db9d4d8c2e431ab", 9267, 3069),
}

ROWS = [
    WorkloadRow(flow.NEW, 1, 0, 5, 0, 1, 100),
    WorkloadRow(flow.NEW, 0, 1, 7, 1, 2, 101),  # takes 5 of order 1, the rest is canceled
    WorkloadRow(flow.NEW, 1, 0, 5, 2, 3, 102),
    WorkloadRow(flow.MODIFY, 1, 0, 9, 3, 3, 103),
    WorkloadRow(flow.CANCEL, 1, 0, 0, 4, 3, 103),
    WorkloadRow(flow.CANCEL, 1, 0, 0, 5, 3, 103),
    WorkloadRow(flow.MODIFY, 1, 0, 9, 6, 3, 103),
    WorkloadRow(flow.NEW, 0, 0, 4, 7, 4, 99),
    WorkloadRow(flow.NEW, 1, 1, 1, 8, 5, 99),
    WorkloadRow(flow.MODIFY, 0, 0, 6, 9, 4, 98),  # of the 3 that are open
]
LINES = """0,0,1,1,100,5
0,1,0,2,101,7
1,1,100,5,1,2
2,1,0,2,101
0,2,1,3,102,5
3,3,1,3,103,9
2,4,1,3,103
4,5,3
5,6,3
0,7,0,4,99,4
0,8,1,5,99,1
1,8,99,1,4,5
3,9,0,4,98,6"""


def stored(tmp_path: Path, rows: list[WorkloadRow]) -> Path:
    path = tmp_path / "flow.bin"
    records = [
        struct.pack("<BBBxIQQqq", row.kind, row.side, row.ioc, row.quantity, row.sequence, row.order_id, row.price, 0)
        for row in rows
    ]
    path.write_bytes(struct.pack("<QII", int.from_bytes(b"100_WBEM", "little"), 1, len(rows)) + b"".join(records))
    return path


def test_messages_become_commands_whose_own_ids_are_no_orders() -> None:
    buy_ioc, back = TIF_IOC, MEANING_OPEN | REQUEUE
    assert list(workload.batches(ROWS[:5], account=7, instrument=3, size=4)) == [
        Batch(
            7, 0, STP_NONE, [NEW, NEW, NEW, REPLACE], [1, 2, 3, OWN | 3], [3] * 4,
            [FLAG_SELL, buy_ioc, FLAG_SELL, FLAG_SELL | back], [100, 101, 102, 103], [5, 7, 5, 9], [0, 0, 0, 3],
        ),
        Batch(7, 0, STP_NONE, [CANCEL], [OWN | 4], [3], [FLAG_SELL], [0], [0], [3]),
    ]  # fmt: skip


def test_reports_become_the_benchmarks_answers() -> None:
    venue = Venue(1, [replay.INSTRUMENT])
    (batch,) = workload.batches(ROWS, 1, replay.INSTRUMENT.id, 256)
    (reports,) = venue.apply(1, 1, [batch]).reports
    agreed = Answers(hashlib.sha256(LINES.encode()).hexdigest(), 2, 1)
    assert workload.answers(ROWS, report_rows(reports.rows)) == agreed


def test_a_message_without_an_answer_is_missed() -> None:
    venue = Venue(1, [replay.INSTRUMENT])
    (batch,) = workload.batches(ROWS, 1, replay.INSTRUMENT.id, 256)
    (reports,) = venue.apply(1, 1, [batch]).reports
    with pytest.raises(workload.AnswerError, match="1 messages have no answer"):
        workload.answers([*ROWS, WorkloadRow(flow.NEW, 0, 0, 4, 10, 6, 99)], report_rows(reports.rows))


@pytest.mark.parametrize(("maker", "taker"), [(2, 1), (1, 2)])
def test_a_trade_with_somebody_else_is_no_answer(maker: int, taker: int) -> None:
    venue = Venue(1, [replay.INSTRUMENT])
    sides = [WorkloadRow(flow.NEW, side, 0, 5, side, 4 + side, 100) for side in (0, 1)]
    reports = []
    for position, (account, row) in enumerate(zip((maker, taker), sides, strict=True), 1):
        outcome = venue.apply(position, position, [*workload.batches([row], account, replay.INSTRUMENT.id, 1)])
        reports += [row for said in outcome.reports if said.account == 1 for row in report_rows(said.rows)]
    with pytest.raises(workload.AnswerError, match=f"order {4 + (taker == 1)} traded with another account"):
        workload.answers(sides, reports)


@needs_data
@pytest.mark.parametrize("name", AGREED)
def test_the_answers_are_those_that_other_engines_agree_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = DATA / "workload" / f"{name}.bin.gz"
    assert replay.main([str(path), "--in-process", "--answers", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Answers(said["sha256"], said["trades"], said["resting"]) == AGREED[name]


def test_the_answers_over_grpc_are_those_in_process(tmp_path: Path) -> None:
    path = stored(tmp_path, ROWS)
    agreed = Answers(hashlib.sha256(LINES.encode()).hexdigest(), 2, 1)._asdict()

    async def scenario() -> None:
        async with Engines(2) as venue:
            for symbol in ("E1A", "E2A"):  # at the engine asked, and forwarded to the other
                assert await answers_over_grpc(venue, symbol, path, 3) == agreed

    asyncio.run(scenario())


async def answers_over_grpc(venue: Engines, symbol: str, path: Path, size: int) -> dict[str, object]:
    client = Client(
        [venue.endpoints[1]], 7, self_trade_prevention=STP_NONE, instruments=venue.cluster.instruments
    )  # fmt: skip
    flow = RecordedFlow.read(path, None, 7)
    await replay.send(client, symbol, flow, size, 0, Progress(flow.messages, io.StringIO()))
    return flow.outcome().figures


@needs_data
def test_a_recorded_flow_has_the_same_answers_over_grpc() -> None:
    async def scenario() -> dict[str, object]:
        async with Engines(1) as venue:
            return await answers_over_grpc(venue, "E1A", DATA / "workload" / "normal.bin.gz", 256)

    assert asyncio.run(scenario()) == AGREED["normal"]._asdict()


@pytest.mark.parametrize("other", [False, True])
def test_an_account_that_used_the_ids_before_is_told_so(tmp_path: Path, other: bool) -> None:
    """By the same file, whose answers come again, and by another, whose ids are refused."""
    path = stored(tmp_path, ROWS)

    async def scenario() -> None:
        async with Engines(1) as venue:
            await answers_over_grpc(venue, "E1A", path, 3)
            again = stored(tmp_path, [row._replace(quantity=row.quantity + other) for row in ROWS])
            await answers_over_grpc(venue, "E1A", again, 3)

    with pytest.raises(UsedBeforeError, match="account 7 has used these client order ids before"):
        asyncio.run(scenario())


def test_the_example_is_replayed_to_the_same_answers_however_it_is_batched(capsys: pytest.CaptureFixture[str]) -> None:
    for size in ("1", "7", "256"):
        assert replay.main([str(EXAMPLE), "--in-process", "--answers", "--batch", size]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [
            "46 trades, 61 orders resting at the end",
            "SHA-256 of the answers b54cc342a4f269be9c96bd8cf563f825017ba93bdbf679120f016fc08efed220",
        ]


def test_of_a_modify_the_side_may_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flow.csv"
    said = []
    for side in ("sell", ""):
        path.write_text(f"action,id,side,quantity,price,tif\nnew,1,sell,5,100,\nmodify,1,{side},7,101,\n")
        assert replay.main([str(path), "--in-process", "--answers"]) == 0
        said.append(capsys.readouterr().out.splitlines()[1:])
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing.bin", "--in-process"], "replay: missing.bin: No such file or directory\n"),
        (["{flow}", "--in-process", "--batch", "5000"], "replay: --batch 5000 is above 4,096\n"),
        (
            ["{flow}", "--cluster", "127.0.0.1:1", "--check", "x"],
            "replay: --check needs --in-process; run_cluster.py --replay FILE --check FILE compares books over gRPC\n",
        ),
        (["{broken}", "--in-process"], "replay: {broken}: row 2: quantity 0\n"),
        (["{flow}", "--in-process", "--symbol", "ALFA"], "replay: --symbol and --rate need --cluster\n"),
        (
            ["{flow}", "--in-process", "--check", "{flow}"],
            "replay: {flow}: has no book to check flow.bin with; see --answers\n",
        ),
        (
            ["{text}", "--in-process", "--answers"],
            "replay: {text}: is no workload, and only those have --answers; see --check\n",
        ),
        (["{text}", "--in-process"], "replay: {text}: row 1: 2 columns, not 6\n"),
        (["{empty}", "--in-process"], "replay: {empty}: has no message\n"),
        (["{zeros}", "--in-process"], "replay: {zeros}: row 1: longer than 65536 bytes\n"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    (tmp_path / "broken").mkdir()
    names = {
        "flow": stored(tmp_path, ROWS),
        "broken": stored(tmp_path / "broken", [ROWS[0], ROWS[1]._replace(quantity=0)]),
    }
    names["text"] = tmp_path / "text"
    names["text"].write_text("34200,1\n")
    names["empty"] = tmp_path / "empty"
    names["empty"].write_text("")
    names["zeros"] = tmp_path / "zeros"
    names["zeros"].write_bytes(gzip.compress(bytes(1 << 20)))
    assert replay.main([argument.format(**names) for argument in arguments]) == 2
    assert capsys.readouterr() == ("", complaint.format(**names))


@pytest.mark.parametrize("arguments", [["flow.bin"], ["flow.bin", "--in-process", "--rate", "0"], []])
def test_options_that_make_no_sense_are_refused_with_exit_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        replay.main(arguments)
    assert caught.value.code == 2


def test_a_cluster_that_does_not_answer_is_one_line_and_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PATIENCE_S", 0.2)
    assert replay.main([str(stored(tmp_path, ROWS)), "--cluster", "127.0.0.1:1"]) == 3
    said, complaint = capsys.readouterr()
    assert said == ""
    assert complaint.startswith("replay: 127.0.0.1:1: ")
    assert complaint.count("\n") == 1


def test_lines_for_a_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(stored(tmp_path, ROWS)), "--in-process", "--answers"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("flow.bin: 10 messages at ")
    digest = hashlib.sha256(LINES.encode()).hexdigest()
    assert rest == ["2 trades, 1 orders resting at the end", f"SHA-256 of the answers {digest}"]

"""Machines that join and leave a venue at work, and those that claim what another has."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proto import cluster
from tools.fault_plan import MESSAGE_FAULTS
from tools.layout import made_up
from tools.moves import disturbed
from tools.processes import Child, Children, StartError
from tools.verdict import Seen

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--engines", "2", "--instruments", "4", "--traders", "4", "--rate", "400", "--seed", "5", "--json"]


def run_of(*arguments: str) -> dict[str, dict[str, object]]:
    """The findings of a run that holds, by title."""
    command = [sys.executable, "run_cluster.py", *SMALL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=90, check=False)
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["holds"]) == (0, True), verdict
    return {each["title"]: each for each in verdict["findings"]}


def test_a_machine_joins_through_any_other_and_one_leaves_and_all_others_are_in_step() -> None:
    found = run_of("--duration", "5", "--faults", "join@1,leave=engine-2@2.5,leave=fabric-1@3.5")
    moved = [found[title] for title in ("engine-3 joined", "engine-2 left", "fabric-1 left")]
    assert [each["mark"] for each in moved] == ["holds"] * 3
    assert all("no reader of another engine had to begin anew" in str(each["details"]) for each in moved)
    assert found["engine-2"]["text"] == "left at 2.5 s and not restarted: BRAVO, DELTA stopped, the others went on"
    assert str(found["mirrors equal"]["text"]).startswith("4 of 4 copies on 2 machines: ")


def test_under_every_kind_of_message_fault_the_verdict_holds() -> None:
    timed = {"partition": "1@1:0.7", "tail": "1@2:1", "regress": "1@4:0.5", "slow": "200@5:1"}
    faults = ",".join(f"{kind}={timed.get(kind, '0.01')}" for kind in MESSAGE_FAULTS)
    found = run_of("--duration", "6.5", "--faults", f"{faults},join@3")
    told = str(found["faults"]["text"])
    assert [kind.done for kind in MESSAGE_FAULTS.values() if kind.done not in told] == []
    assert found["strangers agree"]["mark"] == found["engine-3 joined"]["mark"] == "holds"


def test_under_spoilt_snapshots_and_a_partition_the_verdict_holds() -> None:
    spoilt = "snapshot-stale=0.3,snapshot-slow=0.05,snapshot-fail=0.3,snapshot-cut=0.2"
    timed = "partition=1@1:0.7,kill=fabric-1@2,restart=fabric-1@3,join@3.5"
    found = run_of("--duration", "5.5", "--faults", f"{spoilt},drop=0.03,{timed}")
    told = str(found["faults of calls"]["text"])
    assert [word for word in ("refused", "old ones", "cut in the middle", "kept away") if word not in told] == []
    assert found["strangers agree"]["mark"] == found["engine-3 joined"]["mark"] == "holds"


def test_readers_who_begin_anew_elsewhere_were_disturbed() -> None:
    before = [Seen("fabric-1", 1, {"joins": 1}), Seen("fabric-1", 2, {"joins": 1}), Seen("fabric-2", 1, {"joins": 1})]
    after = [
        Seen("fabric-1", 1, {"joins": 1, "resnapshots": 1}),
        Seen("fabric-1", 2, {"joins": 2}),  # of the engine that moved
        Seen("fabric-2", 1, {"joins": 2}),
        Seen("fabric-3", 1, {"joins": 1}),  # has just come
    ]
    assert disturbed(before, after, 2, "fabric-2") == ("fabric-1 began anew with engine-1",)


@pytest.mark.parametrize("claims", ["id", "instrument"])
def test_an_engine_that_claims_what_another_has_is_refused_with_both_names(tmp_path: Path, claims: str) -> None:
    async def venue() -> str:
        first = made_up(2, 2)
        (tmp_path / "first.toml").write_text(cluster.dumps(first))
        alfa = first.instruments[0]
        if claims == "id":
            second = replace(first, instruments=(replace(first.instruments[1], engine=1),))
        else:
            second = replace(first, instruments=(replace(alfa, engine=2),))
        (tmp_path / "second.toml").write_text(cluster.dumps(second))
        with Children() as children:
            given = f"--cluster {tmp_path}/first.toml --engine 1 --data {tmp_path}/a"
            engine = await children.start(Child("engine-1", "engine", given.split(), tmp_path / "a.log"))
            await engine.wait_ready(20)
            given = f"--cluster {tmp_path}/second.toml --engine {1 if claims == 'id' else 2} --data {tmp_path}/b"
            given += f" --name newcomer --join {engine.ready['grpc']}"
            other = await children.start(Child("newcomer", "engine", given.split(), tmp_path / "b.log"))
            with pytest.raises(StartError) as refused:
                await other.wait_ready(20)
            assert (other.returncode, engine.alive) == (3, True)
            await children.stop()
            return str(refused.value)

    said = asyncio.run(venue())
    assert "newcomer" in said
    assert "engine-1" in said

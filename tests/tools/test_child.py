"""Real processes, started and ended in every way there is; none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import patience
from tools.chaos.plan import MESSAGE_FAULTS
from tools.child import Child, Children, Patience, StartError, environment

# A parent that starts a child, says its process id, and then does nothing.
PARENT = """
import asyncio, sys, time
from pathlib import Path
from tools.child import Child, Children

async def main():
    with Children() as children:
        child = await children.start(Child("faults", "tools.faults", ["--line", "a"], Path(sys.argv[1])))
        await child.wait_ready(10)
        if sys.argv[2] == "pause":
            child.pause()
        print(child.pid, flush=True)
        {then}

asyncio.run(main())
"""


def proxy(log: Path, *arguments: str) -> Child:
    return Child("faults", "tools.faults", arguments or ("--line", "a"), log)


def exists(pid: int) -> bool:
    """Whether a process runs under that id; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + patience(timeout_s)
    while exists(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.processes
def test_a_child_serves_speaks_and_ends_when_told_to(tmp_path: Path) -> None:
    async def run() -> None:
        with Children() as children:
            child = await children.start(proxy(tmp_path / "log"))
            ready = await child.wait_ready(10)
            assert ready["pid"] == child.pid
            assert child.alive
            child.tell({"report": True})
            assert await child.line() == {"counts": {"a": {"messages": 0, **dict.fromkeys(MESSAGE_FAULTS, 0)}}}
            await child.stop()
            assert child.returncode == 0
            assert gone(child.pid)

    asyncio.run(run())


@pytest.mark.processes
def test_a_paused_child_hears_that_it_shall_end(tmp_path: Path) -> None:
    async def run() -> None:
        with Children() as children:
            child = await children.start(proxy(tmp_path / "log"))
            await child.wait_ready(10)
            child.pause()
            await child.stop()
            assert child.returncode == 0

    asyncio.run(run())


@pytest.mark.processes
def test_a_killed_child_is_reaped(tmp_path: Path) -> None:
    async def run() -> None:
        with Children() as children:
            child = await children.start(proxy(tmp_path / "log"))
            await child.wait_ready(10)
            await child.kill()
            assert child.returncode == -signal.SIGKILL
            child.signal(signal.SIGTERM)  # as if nothing had happened

    asyncio.run(run())


@pytest.mark.processes
def test_a_child_that_ends_before_it_serves_fails_the_start_with_what_it_said(tmp_path: Path) -> None:
    async def run() -> str:
        with Children() as children:
            child = await children.start(proxy(tmp_path / "log", "--faults", "drop=2"))
            with pytest.raises(StartError) as raised:
                await child.wait_ready(10)
            return str(raised.value)

    assert asyncio.run(run()) == (
        "faults ended with exit code 2 before it served:\nfaults: 'drop=2': a rate is a number from 0 to 1"
    )


@pytest.mark.processes
def test_a_child_that_says_nothing_fails_the_start_in_time(tmp_path: Path) -> None:
    async def run() -> None:
        with Children() as children:
            child = await children.start(proxy(tmp_path / "log"))
            child.pause()
            with pytest.raises(StartError, match=r"faults did not serve within 0\.1 s"):
                await child.wait_ready(0.1)

    asyncio.run(run())


@pytest.mark.processes
def test_an_error_in_the_run_leaves_no_child(tmp_path: Path) -> None:
    pids: list[int] = []

    async def run() -> None:
        with Children() as children:
            for i in range(2):
                child = await children.start(proxy(tmp_path / f"log{i}"))
                await child.wait_ready(10)
                pids.append(child.pid)
            raise RuntimeError("an error in the run")

    with pytest.raises(RuntimeError):
        asyncio.run(run())
    assert [gone(pid) for pid in pids] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize("state", ["run", "pause"])
@pytest.mark.processes
def test_a_parent_killed_outright_takes_its_children_along(tmp_path: Path, state: str) -> None:
    script = PARENT.format(then="time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log"), state], stdout=subprocess.PIPE, cwd=os.getcwd()
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert exists(pid)
        parent.kill()
    assert gone(pid)


@pytest.mark.processes
def test_a_signal_to_the_terminals_group_does_not_reach_a_child(tmp_path: Path) -> None:
    async def run() -> None:
        with Children() as children:
            child = await children.start(proxy(tmp_path / "log"))
            await child.wait_ready(10)
            assert os.getpgid(child.pid) == child.pid != os.getpgid(0)

    asyncio.run(run())


def test_patience_grows_with_what_processes_took_to_start_and_with_what_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience = Patience()
    assert patience.factor == 1
    for seconds, factor in ((0.4, 1), (3.0, 3), (2.0, 3), (1_000.0, 30)):
        patience.started(seconds)
        assert patience.factor == factor
    for asked, said in (("2.5", 2.5), ("0.1", 1), ("x", 1), ("nan", 1), ("inf", 900), ("", 1)):
        monkeypatch.setenv("LOBMESH_PATIENCE", asked)
        assert Patience().factor == said
    monkeypatch.setenv("LOBMESH_PATIENCE", "2")
    assert environment(7.0)["LOBMESH_PATIENCE"] == "7.0"
    assert environment()["LOBMESH_PATIENCE"] == "2.0"

"""What takes minutes or the network: an installation in an environment of its own, and the compiled build.

`make test-extras` runs these. Both work on a copy of the checkout, so that nothing is left in it.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.patience import patience

ROOT = Path(__file__).resolve().parents[1]
NOT_OURS = ".venv*", ".git", "*_cache", "__pycache__", ".hypothesis", "build", "*.so", "*.egg-info"
FLOW_SHA = "b54cc342a4f269be9c96bd8cf563f825017ba93bdbf679120f016fc08efed220"

pytestmark = [pytest.mark.extras, pytest.mark.processes, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "lobmesh", ignore=shutil.ignore_patterns(*NOT_OURS))


def done(command: Sequence[str | Path], cwd: Path) -> str:
    """What it printed; it must end well."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        timeout=patience(900),
    )  # fmt: skip
    assert ended.returncode == 0, f"{command}: {ended.returncode}\n{ended.stdout[-4_000:]}\n{ended.stderr[-4_000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of an environment are that has the project and what running needs."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=True)
    pip: list[str | Path] = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done([*pip, "--requirement", checkout / "requirements.txt"], place)
    done([*pip, "--no-deps", checkout], place)
    done([place / "bin" / "python", "-m", "pip", "check"], place)  # what running needs is all there
    return place / "bin"


def test_the_command_works_from_any_directory(installed: Path, tmp_path: Path) -> None:
    assert done([installed / "lobmesh", "--help"], tmp_path).startswith("usage: lobmesh COMMAND ...")
    for word in ("run", "serve", "tail", "orders", "log", "replay", "faults", "bench", "engine", "fabric"):
        assert f"lobmesh {word}" in done([installed / "lobmesh", word, "--help"], tmp_path)
    said = done(
        [installed / "lobmesh", "replay", ROOT / "examples" / "flow.csv", "--in-process", "--answers"], tmp_path
    )
    assert said.splitlines()[-1] == f"SHA-256 of the answers {FLOW_SHA}"


def test_an_installed_venue_runs_and_judges_itself(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()  # a package of the same name where it is run from is not taken for ours
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit('not this one')\n")
    done([installed / "lobmesh", "run", "--duration", "3", "--engines", "2"], tmp_path)


def test_what_is_not_code_is_installed_beside_it(installed: Path, tmp_path: Path) -> None:
    code = "import os, proto, engine; print(*(name for m in (proto, engine) for name in os.listdir(m.__path__[0])))"
    names = done([installed / "python", "-c", code], tmp_path).split()
    assert {"FEED.md", "RULES.md", "orders.proto", "marketdata.proto", "cluster.proto"} <= {*names}


def test_compiled_cores_pass_the_tests_of_the_plain_ones(checkout: Path) -> None:
    python = sys.executable
    done([python, "-m", "tools.native"], checkout)
    try:
        done([python, "-m", "tools.native", "--check"], checkout)
        rooms = "tests/engine/core", "tests/engine/log", "tests/bus/stream", "tests/proto"
        done([python, "-m", "pytest", *rooms, "-m", "not processes and not extras"], checkout)
    finally:
        done([python, "-m", "tools.native", "--clean"], checkout)

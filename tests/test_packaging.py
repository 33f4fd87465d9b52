"""What is to be installed is said in one way: floors in pyproject.toml, and the versions that it is tested with."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned(name: str) -> dict[str, str]:
    """Version by package; every line is pinned."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-r "))]
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


def test_every_floor_is_kept_by_a_pinned_version() -> None:
    for floors, pins in (
        (PROJECT["dependencies"], pinned("requirements.txt")),
        (PROJECT["optional-dependencies"]["dev"], pinned("requirements-dev.txt")),
    ):
        for floor in map(Requirement, floors):
            assert floor.specifier.contains(pins[floor.name.lower().replace("_", "-")]), floor


def test_nothing_is_pinned_twice() -> None:
    assert not {*pinned("requirements.txt")} & {*pinned("requirements-dev.txt")}


def test_a_commit_is_checked_by_the_ruff_that_make_uses() -> None:
    hooks = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert set(hooks) == {pinned("requirements-dev.txt")["ruff"]}

"""Compiled or plain, it is one source: what a build leaves behind, what takes it away, and what it refuses."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tools import native


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The sources that are compiled, and all that a build leaves among them."""
    root = tmp_path / "checkout"
    for package in native.SEEN:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").write_text('"""A package."""\n')
    for module in native.MODULES:
        path = root / (module.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""{module}."""\n')
        path.with_suffix(EXTENSION_SUFFIXES[0]).write_bytes(b"code")
    (root / f"{native.GROUP}__mypyc{EXTENSION_SUFFIXES[0]}").write_bytes(b"code")
    return root


def test_cleaning_takes_the_machine_code_and_nothing_else(checkout: Path) -> None:
    before = tree(checkout)
    native.clean(checkout)
    after = tree(checkout)
    assert after == [name for name in before if name.endswith(".py")]
    assert len(before) - len(after) == len(native.MODULES) + 1


def test_every_module_to_compile_is_there() -> None:
    assert [
        module for module in native.MODULES if not (native.ROOT / (module.replace(".", "/") + ".py")).exists()
    ] == []


def test_what_is_compiled_keeps_its_docstring_and_refuses_a_changed_source(checkout: Path, tmp_path: Path) -> None:
    workshop = tmp_path / "workshop"
    native.prepare(checkout, workshop)
    assert [name for name in tree(workshop) if not name.endswith(".py")] == []
    compiled = (workshop / "engine" / "core" / "book.py").read_text()
    source = checkout / "engine" / "core" / "book.py"
    module = {"__file__": str(source.with_suffix(EXTENSION_SUFFIXES[0]))}
    exec(compiled, module)
    assert module["__doc__"] == "engine.core.book."
    source.write_text(source.read_text() + "\n")
    with pytest.raises(ImportError, match=r"engine\.core\.book has changed since it was compiled"):
        exec(compiled, module)


def test_a_check_says_how_each_module_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert native.main(["--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(native.MODULES)
    assert {line.partition(": ")[2] for line in lines} in ({"plain"}, {"compiled"})

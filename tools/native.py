"""Compiles the pure cores with mypyc, from the very source that runs without it.

    python -m tools.native            build; the machine code lies beside the sources and is used from then on
    python -m tools.native --check    say which modules run compiled; exit 1 if the machine code is of another source
    python -m tools.native --clean    go back to plain Python

There is no second truth: a compiled module carries the hash of its source and refuses to be imported once that has
changed. Nothing needs the build; it is made in a directory of its own, and only what came out is copied.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.native", "native")

import ast
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from proto.dial import Parser

ROOT: Final = Path(__file__).resolve().parents[1]
GROUP: Final = "lobmesh"
UNCOMPILED: Final = ("__init__", "commands")  # of the core: commands are made by msgspec
MODULES: Final = (
    "proto.columns",
    *(
        f"engine.core.{path.stem}"
        for path in sorted((ROOT / "engine" / "core").glob("*.py"))
        if path.stem not in UNCOMPILED
    ),
    "proto.feed",
    "proto.snapshot",
    "bus.stream.sequencer",
    "bus.stream.mirror",
    "bus.stream.held",
    "bus.stream.actions",
    "bus.stream.asking",
    "bus.stream.delay",
    "bus.stream.feed_client",
)
SEEN: Final = ("engine", "bus", "proto")  # packages whose types the compiler looks at

# Goes to the end of the source that is compiled, not of the one that is kept. (The compiler forgets docstrings.)
TAIL: Final = """

__doc__ = {doc!r}

import hashlib as _hashlib
import pathlib as _pathlib

_source = _pathlib.Path(__file__).with_name({file!r})
if _hashlib.sha256(_source.read_bytes()).hexdigest() != {digest!r}:
    raise ImportError(
        "{module} has changed since it was compiled: run `make native` again, or `python -m tools.native --clean`"
    )
"""

BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files = sys.argv[2:]
sys.argv = [sys.argv[0], "build_ext", "--inplace"]
setup(name={group!r}, packages=[], ext_modules=mypycify(files, group_name={group!r}, opt_level="3"))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0; 1 if --check finds a stale build, or the build fails; 2 for wrong usage."""
    parser = Parser(prog="python -m tools.native", description=(__doc__ or "").splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="say which modules run compiled")
    choice.add_argument("--clean", action="store_true", help="remove what was built")
    args = parser.parse_args(argv)
    if args.check:
        return check()
    clean(ROOT)
    return 0 if args.clean else build()


def check() -> int:
    """Import every module and say how it runs."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    code = 0
    for name in MODULES:
        try:
            file = importlib.import_module(name).__file__ or ""
            print(f"{name}: {'plain' if file.endswith('.py') else 'compiled'}")
        except ImportError as e:
            print(f"{name}: {e}", file=sys.stderr)
            code = 1
    return code


def build() -> int:
    """Compile in a temporary directory and copy the machine code beside the sources."""
    with tempfile.TemporaryDirectory(prefix="lobmesh-native-") as name:
        workshop = Path(name)
        prepare(ROOT, workshop)
        files = [_path(module) for module in MODULES]
        done = subprocess.run(
            [sys.executable, "-c", BUILD.format(group=GROUP), "-", *files],
            cwd=workshop,
            env={**os.environ, "PYTHONPATH": str(workshop)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            return 1
        for built in binaries(workshop):
            shutil.copy2(built, ROOT / built.relative_to(workshop))
    print(f"compiled {len(MODULES)} modules: {', '.join(MODULES)}")
    return 0


def prepare(root: Path, workshop: Path) -> None:
    """Copy the packages; what will be compiled gets the check of its own source."""
    for package in SEEN:
        shutil.copytree(root / package, workshop / package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for module in MODULES:
        path = workshop / _path(module)
        source = path.read_bytes()
        doc = ast.get_docstring(ast.parse(source), clean=False)
        tail = TAIL.format(doc=doc, file=path.name, digest=hashlib.sha256(source).hexdigest(), module=module)
        path.write_bytes(source + tail.encode())


def clean(root: Path) -> None:
    for built in list(binaries(root)):
        built.unlink()


def binaries(root: Path) -> Iterator[Path]:
    """What a build for this Python leaves in a tree."""
    for stem in (f"{GROUP}__mypyc", *(module.replace(".", "/") for module in MODULES)):
        for suffix in EXTENSION_SUFFIXES:
            built = root / (stem + suffix)
            if built.exists():
                yield built


def _path(module: str) -> str:
    return module.replace(".", "/") + ".py"

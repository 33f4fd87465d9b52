"""Who may import whom, and what a pure module may not touch: read from the sources, wherever an import stands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("proto", "bus", "engine", "tools", "run_cluster", "tests")

# Each room, and the rooms that it may import from beside itself: no room stands above one that it imports. A name
# stands for all that begins with it, unless a longer one is listed.
ENGINE = (
    "proto",
    "engine.core",
    "engine.clock",
    "engine.log",
    "engine.entry",
    "engine.publish",
    "engine.client",
    "engine",
)
BUS = ("proto", "bus.stream", "bus.access", "bus", "bus.reader")
MAY_IMPORT = {
    "proto": (),
    "bus.stream": ("proto",),
    "bus.access": ("proto", "bus.stream"),
    "bus.reader": ("proto", "bus.stream", "bus.access"),
    "bus": ("proto", "bus.stream", "bus.access"),
    "engine.core": ("proto",),
    "engine.clock": (),
    "engine.log": ("proto", "engine.core"),
    "engine.client": ("proto",),
    "engine.entry": ("proto", "engine.core", "engine.log"),
    "engine.publish": ("proto", "bus", "bus.stream", "engine.core", "engine.log"),
    "engine": (*ENGINE, "bus.stream", "bus.access", "bus"),
    "tools.child": ("proto",),
    "tools.findings": (),
    "tools.ladder": ("proto", "bus.reader"),
    "tools.native": ("proto",),
    "tools.chaos": ("proto", "bus.stream"),
    "tools.tail": (*BUS, "tools.ladder"),
    "tools.flow": (*ENGINE, *BUS, "tools.child", "tools.findings"),
    "tools.run": (*ENGINE, *BUS, "tools.child", "tools.findings", "tools.ladder", "tools.chaos", "tools.flow"),
    "tools.bench": (*ENGINE, *BUS, "tools.child", "tools.flow"),
    "tools.orders": ("proto", "engine.client"),
    "tools": (*ENGINE, *BUS, "tools.child", "tools.ladder", "tools.chaos", "tools.tail", "tools.flow"),
    "run_cluster": (*ENGINE, *BUS, "tools.child", "tools.ladder", "tools.chaos", "tools.flow", "tools.run"),
}

# Directions that do not hold yet: (module, what it imports).
OWED: frozenset[tuple[str, str]] = frozenset({})

# Whoever connects loads nothing of these: what serves, and what serving needs.
CONNECTS = ("engine.client", "bus.reader")
BENEATH = "asyncio, concurrent.futures, grpc, zmq.asyncio, msgspec"  # what these load is not ours to choose
SERVES = (
    "sqlite3", "fcntl", "grpc_health", "grpc_reflection",
    "engine.clock", "engine.core", "engine.log", "engine.entry", "engine.publish", "engine.node",
    "bus.publisher", "bus.service", "bus.node", "tools",
)  # fmt: skip

# No clock, file, socket, environment or random source; time arrives as an argument.
PURE_ROOMS = ("bus.stream", "engine.core", "tools.run.audit")
PURE = (
    "bus.access.claim",
    "bus.access.directory",
    "engine.clock.believed",
    "bus.reader.events",
    "engine.entry.door",
    "engine.entry.reference",
    "engine.log.edits",
    "engine.log.kept",
    "engine.log.numbering",
    "engine.log.records",
    "engine.log.state",
    "engine.publish.cut",
    "proto.columns",
    "proto.feed",
    "proto.orders",
    "proto.refusals",
    "proto.snapshot",
    "tools.flow.acknowledged",
    "tools.run.day.watch",
)
PACKAGES = ("bus", "engine", "proto", "tools")  # their __init__ has a docstring only
CONTRACTS = (
    "proto.cluster",
    "proto.instrument",
    "proto.table",
    "proto.orders_pb2",
    "proto.marketdata_pb2",
    "proto.cluster_pb2",
)
PURE_MAY_IMPORT = (
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "decimal",
    "enum",
    "functools",
    "google.protobuf.message",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "msgspec",
    "operator",
    "random",  # as the type of an argument: see below
    "re",
    "sortedcontainers",
    "struct",
    "typing",
    "zlib",
)
PURE_MAY_NOT_CALL = ("__import__", "breakpoint", "eval", "exec", "input", "open", "print")


def modules() -> dict[str, Path]:
    """Every module of ours, by name, but the tests."""
    paths = [path for root in ROOTS[:-2] for path in sorted((ROOT / root).rglob("*.py"))] + [ROOT / "run_cluster.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def imported(source: str) -> list[str]:
    """Every module that a source imports: `from a import b` gives a, and a.b if that is a module of ours."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            ours = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [node.module, *(name for name in ours if name in MODULES)]
    return found


def room(name: str) -> str:
    """The room that a module stands in: the longest name in the table that its own begins with."""
    return max((known for known in MAY_IMPORT if inside(name, known)), key=len, default=name.partition(".")[0])


def inside(name: str, of: str) -> bool:
    return name == of or name.startswith(of + ".")


def is_program(name: str) -> bool:
    """Whether it is run, not used. The benchmark is one program of many processes."""
    return name == "run_cluster" or (
        name.startswith("tools.")
        and room(name) != "tools.bench"
        and '\nif __name__ == "__main__":' in MODULES[name].read_text()
    )


PROGRAMS = tuple(name for name in MODULES if is_program(name))


def wrong_directions(name: str, source: str) -> list[str]:
    """What a module imports of a room that does not stand lower, or of a program."""
    own = room(name)
    ours = [other for other in dict.fromkeys(imported(source)) if other.partition(".")[0] in ROOTS]
    return [other for other in ours if other in PROGRAMS or room(other) not in (own, *MAY_IMPORT[own])]


def is_pure(name: str) -> bool:
    return name in PURE or any(inside(name, pure) for pure in PURE_ROOMS)


def impurities(source: str) -> list[str]:
    found = [
        other
        for other in imported(source)
        if other not in (*PURE_MAY_IMPORT, *CONTRACTS, *PACKAGES) and not is_pure(other)
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in PURE_MAY_NOT_CALL or called.startswith("random."):
                found.append(called)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random":
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module == "random":
            found.append("from random")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards_only(name: str) -> None:
    owed = {other for one, other in OWED if one == name}
    assert {*wrong_directions(name, MODULES[name].read_text())} <= owed


def test_no_room_stands_above_one_that_it_imports() -> None:
    standing: list[str] = []
    while len(standing) < len(MAY_IMPORT):
        lowest = [known for known in MAY_IMPORT if known not in standing and {*MAY_IMPORT[known]} <= {*standing, known}]
        assert lowest, f"a circle above {standing}"
        standing += lowest


def test_programs_are_known() -> None:
    assert {"run_cluster", "tools.orders.__main__", "tools.replay", "tools.tail_feed", "tools.faults"} <= set(PROGRAMS)


@pytest.mark.parametrize("name", [*PROGRAMS, "engine.__main__", "bus.__main__", "tools.bench.__main__"])
def test_a_program_ends_without_a_traceback_whatever_becomes_of_its_output(name: str) -> None:
    source = MODULES[name].read_text()
    assert "    program.run(" in source, "see proto/program.py"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_interrupted_while_it_is_loaded_shows_no_traceback(name: str) -> None:
    """It is loaded by proto/program.py, and nothing of ours or of others' before that."""
    before: list[str] = []
    for node in ast.parse(MODULES[name].read_text()).body:
        if isinstance(node, ast.If) and "program.run(" in ast.unparse(node):
            assert before == ["proto.program"]
            return
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            before += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            before += [alias.name for alias in node.names]
    pytest.fail("it is not run as a program")


@pytest.mark.parametrize("package", CONNECTS)
@pytest.mark.processes
def test_whoever_connects_loads_nothing_that_serves(package: str) -> None:
    names = [name for name in MODULES if inside(name, package)]
    source = f"import sys, {BENEATH}\nbefore = {{*sys.modules}}\nimport {', '.join(names)}\n"
    source += "print(*({*sys.modules} - before))"
    run = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert set(names) <= set(loaded)
    serving = {serves for serves in SERVES for name in loaded if inside(name, serves)}
    assert serving == set()


def test_connections_are_opened_in_one_place() -> None:
    opening = {name for name, path in MODULES.items() if "secure_channel(" in path.read_text()}
    assert opening == {"proto.connect"}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_by_itself_imports_nothing(name: str) -> None:
    assert imported(MODULES[name].read_text()) == []


@pytest.mark.parametrize("name", [name for name in MODULES if is_pure(name)])
def test_a_pure_module_touches_nothing_outside(name: str) -> None:
    assert impurities(MODULES[name].read_text()) == []


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("bus.stream.mirror", "from engine.core import book", ["engine.core", "engine.core.book"]),
        ("bus.stream.mirror", "import bus.publisher", ["bus.publisher"]),
        ("engine.client.client", "import engine.log.contract", ["engine.log.contract"]),
        ("engine.log.commit", "import engine.entry.door", ["engine.entry.door"]),
        ("engine.core.venue", "def f():\n    import bus.stream.mirror", ["bus.stream.mirror"]),
        ("engine.publish.source", "from bus.stream.sequencer import Sequencer", []),
        ("engine.publish.source", "import tools.replay", ["tools.replay"]),
        ("proto.feed", "import bus", ["bus"]),
        ("tools.replay", "import engine.core.venue, bus.stream.mirror, proto.feed", []),
        ("tools.replay", "import tests", ["tests"]),
        ("tools.replay", "import tools.orders, tools.flow.lobster", ["tools.orders"]),
        ("tools.flow.lobster", "import tools.run.venue", ["tools.run.venue"]),
        ("tools.run.venue", "import run_cluster", ["run_cluster"]),
    ],
)
def test_a_wrong_direction_is_found(name: str, source: str, wrong: list[str]) -> None:
    assert wrong_directions(name, source) == wrong


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", ["time"]),
        ("if x:\n    from socket import socket", ["socket"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio", ["asyncio"]),
        ("import engine.log.sqlite", ["engine.log.sqlite"]),
        ("from engine.log import memory", ["engine.log", "engine.log.memory"]),
        ("from bus.stream.mirror import Mirror", []),
        ("print(1)", ["print"]),
        ("import random\ndef f(rng: random.Random) -> None: ...", []),
        ("import random\nx = random.Random(1)", ["random.Random"]),
        ("import random\nx = random.random", ["random.random"]),
        ("from random import Random", ["from random"]),
    ],
)
def test_an_impurity_is_found(source: str, found: list[str]) -> None:
    assert impurities(source) == found

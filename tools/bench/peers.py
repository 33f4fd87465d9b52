"""The engines of PyPI beside ours, on the same flow: each in a process and an environment that is not ours.

`bench core --peers` or `bench all --peers` makes the environment once, below the user's cache directory, with pip;
what does not install is named and left out. Where it has been made, `core` and `all` drive them from then on.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from tools.bench import flows
from tools.bench.bare import Trade
from tools.bench.core import Work, prepare, venue_rate
from tools.bench.flows import REGIMES
from tools.bench.measure import Options, Report, result, say

PACKAGES: Final[dict[str, tuple[str, ...]]] = {  # with what they need and do not say
    "order-matching": ("polars", "pandera"),
    "matching-engine": (),
    "liquibook": (),
    "lightmatchingengine": (),
    "limit-order-book": (),
    "pyorderbook": (),
}
SLOW: Final = {"order-matching": 4_000}  # messages: every step looks at every order
INSTALL_S: Final = 300
DRIVE_S: Final = 300
COMMAND: Final = "python -m tools.bench core --peers"
FEW: Final = 5_000  # messages of one regime, when it has to be quick


def is_ready(python: str) -> bool:
    """Whether the environment for this interpreter has been made."""
    return (_directory(python) / "ready").exists()


def environment(python: str) -> Path:
    """The interpreter of an environment that has the packages, as far as they install. Cost: a minute, once."""
    directory = _directory(python)
    inside = directory / "bin" / "python"
    if not (directory / "ready").exists():
        say(f"peers: installing {len(PACKAGES)} engines below {directory}")
        subprocess.run([python, "-m", "venv", "--clear", str(directory)], check=True, timeout=INSTALL_S)
        for name, needed in PACKAGES.items():
            pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", name, *needed]
            done = subprocess.run(pip, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            if done.returncode:
                say(f"peers: {name} does not install for {python}")
        (directory / "ready").touch()
    return inside


def _directory(python: str) -> Path:
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "lobmesh-bench" / f"peers-{version}"


def run(options: Options) -> Report:
    """core.peer_<engine> for each engine, on the regime where it is slowest."""
    say("peers: reading and checking the flows")
    regimes = ("normal",) if options.quick else REGIMES
    works = {name: prepare(flows.load(name, options.data, options.seed, options.take(0, FEW))) for name in regimes}
    report = Report(
        "peers",
        "ahead of every engine of PyPI that reports its trades and can be driven on this flow",
        ", ".join(work.flow.source for work in works.values()),
        "one process at a time, one thread; processor time",
    )
    inside = environment(options.peers or sys.executable)
    notes = []
    with (
        tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as directory,
        ProcessPoolExecutor(1, get_context("spawn")) as alone,  # as they are
    ):
        files = {name: Path(directory) / name for name in works}
        for name, work in works.items():
            files[name].write_text(json.dumps([list(_spoken(row)) for row in work.flow.rows]))
        for name in PACKAGES:
            say(f"peers: {name}")
            try:
                notes.append(_compared(report, name, inside, files, works, alone, options.turns(3, 1)))
            except ChildProcessError as e:
                notes.append(f"    {name:20} not driven: {e}")
    report.notes.append("Each on the regime where it is slowest:\n\n" + "\n".join(notes))
    report.notes.append(
        "The venue's side has ids, deduplication, limits, reports and deltas on; the others have what they have, and "
        "what a reader of their trades has to keep beside them. One that reports no trades is listed all the same."
    )
    return report


def _compared(
    report: Report,
    name: str,
    inside: Path,
    files: dict[str, Path],
    works: dict[str, Work],
    alone: Executor,
    rounds: int,
) -> str:
    limit = SLOW.get(name, 1 << 30)
    theirs: dict[str, list[float]] = {flow: [] for flow in files}
    venue: dict[str, list[float]] = {flow: [] for flow in files}
    found: Any = None
    verdicts = []
    for _ in range(rounds):
        for flow, path in files.items():
            venue[flow].append(alone.submit(venue_rate, works[flow].batches).result())
            found = _drive(inside, name, path, limit)
            theirs[flow].append(found["rate"])
            verdicts.append(_verdict(found, works[flow].trades))
    worst = min(theirs, key=lambda flow: statistics.median(theirs[flow]))
    report.results.append(
        result(
            f"core.peer_{name.replace('-', '_')}", "messages/s", theirs[worst], venue[worst],
            command=COMMAND, digest=found["sha256"][:16],
            against="our venue on the same flow in the same round: below 1.00 means that ours is faster",
        )
    )  # fmt: skip
    part = f", the first {limit:,} messages of each flow" if name in SLOW else ""
    return f"    {name:20} {found['version']:10} worst on {worst}; {', '.join(dict.fromkeys(verdicts))}{part}"


def _drive(inside: Path, name: str, path: Path, limit: int) -> Any:
    script = Path(__file__).with_name("drivers.py")
    done = subprocess.run(
        [str(inside), "-W", "ignore", str(script), name, str(path), str(limit)],
        capture_output=True, text=True, timeout=DRIVE_S, check=False,
    )  # fmt: skip
    if done.returncode:
        complaint = done.stderr.strip().splitlines()
        if complaint and complaint[-1].startswith("ModuleNotFoundError"):
            raise ChildProcessError(f"does not install for Python {inside.parents[1].name.removeprefix('peers-')}")
        raise ChildProcessError(complaint[-1] if complaint else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _verdict(found: Any, right: list[Trade]) -> str:
    """Whether an engine's trades are the right ones; a part of the flow makes a beginning of them."""
    if found["trades"] is None:
        return "reports no trades"
    beginning = [list(trade) for trade in right[: found["trades"]]]
    same = hashlib.sha256(json.dumps(beginning).encode()).hexdigest() == found["sha256"]
    return "trades equal" if same else "trades differ"


def _spoken(row: Any) -> tuple[int, ...]:
    return row.kind, row.side, row.ioc, row.quantity, row.order_id, row.price

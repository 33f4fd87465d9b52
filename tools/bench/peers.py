"""The engines of PyPI beside ours, on the same flow: each in a process and an environment that is not ours.

`bench core --peers` or `bench all --peers` makes the environment once, below the user's cache directory, of exactly the
versions in peers.txt. Where it has been made, `core` and `all` drive them from then on.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from tools.bench import flows
from tools.bench.bare import Trade
from tools.bench.core import prepare, venue_rate
from tools.bench.drivers import ENGINES
from tools.bench.flows import REGIMES
from tools.bench.measure import BenchOptions, PartReport, say

PINNED: Final = Path(__file__).with_name("peers.txt")
SLOW: Final = {"order-matching": 4_000}  # messages: every step looks at every order
INSTALL_S: Final = 600
DRIVE_S: Final = 300
FEW: Final = 5_000  # messages of one regime, when it has to be quick


def directory() -> Path:
    """Where the environment is, or would be: one for each version of Python and of the pinned file."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pinned = hashlib.sha256(PINNED.read_bytes()).hexdigest()[:8]
    return cache / "lobmesh-bench" / f"peers-{sys.version_info.major}.{sys.version_info.minor}-{pinned}"


def is_ready() -> bool:
    """Whether the environment has been made."""
    return (directory() / "ready").exists()


def environment() -> str:
    """The interpreter of the environment. Cost: a minute, once. Raises: subprocess.CalledProcessError."""
    inside = directory() / "bin" / "python"
    if not is_ready():
        say(f"peers: installing {len(ENGINES)} engines below {directory()}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory())], check=True, timeout=INSTALL_S)
        pip = [
            str(inside),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
            str(PINNED),
        ]
        subprocess.run(pip, check=True, timeout=INSTALL_S)
        (directory() / "ready").touch()
    return str(inside)


def run(options: BenchOptions) -> PartReport:
    """core.peer_<engine> for each engine, on the regime where it is slowest."""
    say("peers: reading and checking the flows")
    regimes = ("normal",) if options.quick else REGIMES
    works = {name: prepare(flows.load(name, options.data, options.seed, options.take(0, FEW))) for name in regimes}
    report = PartReport(
        "peers",
        "ahead of every engine of PyPI that reports its trades and can be driven on this flow",
        ", ".join(work.flow.source for work in works.values()),
        "one process at a time, one thread; processor time",
    )
    inside = environment()
    notes = []
    with tempfile.TemporaryDirectory(prefix="lobmesh-bench-") as name, get_context("spawn").Pool(1) as alone:
        files = {regime: Path(name) / regime for regime in works}
        for regime, work in works.items():
            rows = [(row.kind, row.side, row.ioc, row.quantity, row.order_id, row.price) for row in work.flow.rows]
            files[regime].write_text(json.dumps(rows))
        for engine in ENGINES:
            say(f"peers: {engine}")
            ours: dict[str, list[float]] = {regime: [] for regime in works}
            theirs: dict[str, list[float]] = {regime: [] for regime in works}
            found: Any = None
            verdicts: dict[str, None] = {}
            for _ in range(options.turns(3, 1)):
                for regime, work in works.items():
                    ours[regime].append(alone.apply(venue_rate, (work.batches,)))
                    found = _drive(inside, engine, files[regime])
                    theirs[regime].append(found["rate"])
                    verdicts[_verdict(found, work.trades)] = None
            worst = min(theirs, key=lambda regime: statistics.median(theirs[regime]))
            report.add(
                f"core.peer_{engine.replace('-', '_')}", "messages/s", theirs[worst], ours[worst],
                digest=found["sha256"][:16],
                against="our venue on the same flow in the same round: below 1.00 means that ours is faster",
            )  # fmt: skip
            part = f", the first {SLOW[engine]:,} messages of each flow" if engine in SLOW else ""
            notes.append(f"    {engine:20} {found['version']:10} worst on {worst}; {', '.join(verdicts)}{part}")
    report.notes.append("Each on the regime where it is slowest:\n\n" + "\n".join(notes))
    report.notes.append(
        "The venue's side has ids, deduplication, limits, reports and deltas on; the others have what they have, and "
        "what a reader of their trades has to keep beside them. One that reports no trades is listed all the same."
    )
    return report


def _drive(inside: str, engine: str, path: Path) -> Any:
    script = Path(__file__).with_name("drivers.py")
    command = [inside, "-W", "ignore", str(script), engine, str(path), str(SLOW.get(engine, 1 << 30))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=DRIVE_S, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _verdict(found: Any, right: list[Trade]) -> str:
    """Whether an engine's trades are the right ones; a part of the flow makes a beginning of them."""
    if not found["trades"]:
        return "reports no trades"
    beginning = [list(trade) for trade in right[: found["trades"]]]
    same = hashlib.sha256(json.dumps(beginning).encode()).hexdigest() == found["sha256"]
    return "trades equal" if same else "trades differ"

"""Runs with random markets and random trouble, on a machine that has other things to do: every verdict must hold.

    python -m tests.soak_runs                     thirty runs beside two busy processes
    python -m tests.soak_runs --runs 1 --seed 17  the run that seed 17 was

A run is drawn from its seed alone. Exit 0 if every verdict holds, 1 if one does not (its logs and books are kept), 2
for wrong usage.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.chaos.plan import ANSWER_FAULTS

ROOT = Path(__file__).resolve().parents[1]
RUN_S = 600.0
BUSY = "while True: sum(range(10_000))"
ALWAYS = ("drop", "burst", "dup", "reorder", "delay", "corrupt", "truncate", "replay")


def drawn(seed: int) -> list[str]:
    """The options of a run."""
    chance = random.Random(f"soak/{seed}")
    engines = chance.randint(1, 4)
    day = chance.random() < 0.2
    seconds = chance.randint(12, 16) if day else chance.randint(5, 12)
    options = [
        "--engines", str(engines), "--instruments", str(engines * chance.randint(1, 3)), "--duration", str(seconds),
        "--traders", str(chance.choice((4, 8, 12, 20))), "--rate", str(chance.choice((200, 600, 1_500))),
        "--seed", str(chance.randrange(1 << 30)), *(["--trading-day"] if day else []),
    ]  # fmt: skip
    faults = [f"{kind}={chance.choice((0.01, 0.02, 0.05))}" for kind in ALWAYS if chance.random() < 0.3]
    if chance.random() < 0.3:
        faults += [f"snapshot-{kind}={chance.choice((0.05, 0.2))}" for kind in ANSWER_FAULTS]
    if chance.random() < 0.2:
        faults.append(f"partition=1@{chance.randint(1, 3)}:{chance.choice((0.5, 1.0))}")
    faults += list(_processes(chance, engines, seconds))
    return [*options, "--faults", ",".join(faults)] if faults else options


def _processes(chance: random.Random, engines: int, seconds: int) -> Iterator[str]:
    """Kills and restarts, one after the other; a pause of what is not down; a machine that joins or leaves."""
    at_s = 1.0
    down: set[tuple[str, int]] = set()  # by whole seconds
    while engines > 1 and at_s < seconds - 3 and chance.random() < 0.6:
        name = f"{chance.choice(('engine', 'fabric'))}-{chance.randint(1, engines)}"
        down_s = chance.choice((0.3, 1.0, 2.0))
        yield f"kill={name}@{at_s:g}"
        yield f"restart={name}@{at_s + down_s:g}"
        down |= {(name, second) for second in range(int(at_s), int(at_s + down_s) + 1)}
        at_s += down_s + 2
    if chance.random() < 0.3:
        name, at = f"{chance.choice(('engine', 'fabric'))}-{chance.randint(1, engines)}", chance.randint(1, 3)
        if (name, at) not in down:
            yield f"pause={name}@{at}:1"
    if chance.random() < 0.3:
        yield f"join@{chance.randint(1, seconds - 2)}"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that want a processor each."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def holds(seed: int) -> bool:
    options = drawn(seed)
    began = time.monotonic()
    command = [sys.executable, "run_cluster.py", *options, "--json"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"seed {seed}  it did not end: {' '.join(options)}", flush=True)
        return False
    failed = []
    if done.stdout.startswith("{"):
        failed = [each for each in json.loads(done.stdout)["findings"] if each["mark"] == "fails"]
    took_s = time.monotonic() - began
    print(f"seed {seed}  exit {done.returncode}  {took_s:5.1f} s  {' '.join(options)}", flush=True)
    for each in failed:
        print(f"    {each['title']}: {each['text']}", *each["details"], sep="\n        ", flush=True)
    if done.returncode:
        print("    " + done.stderr.strip()[-600:], flush=True)
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    out = argparse.ArgumentParser(prog="python -m tests.soak_runs", description=__doc__.split("\n\n")[0])
    out.add_argument("--runs", type=int, default=30)
    out.add_argument("--busy", type=int, default=2, help="processes that want a processor each")
    out.add_argument("--seed", type=int, default=1, help="of the first run; the others count on")
    args = out.parse_args(argv)
    with busy(args.busy):
        held = [holds(seed) for seed in range(args.seed, args.seed + args.runs)]
    print(f"{sum(held)} of {len(held)} verdicts hold")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Matching in plain Python, whatever lies compiled beside the source: what `core` measures the compiled build against.

    python -m tools.bench.plain < JSON LINES        each line a flow: {"name", "data", "seed", "count"}

On stdout a JSON line for each: messages a second through `Venue.apply`.
"""

import importlib.abc
import importlib.machinery
import json
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Final

ROOTS: Final = ("engine", "bus", "proto")


class Sources(importlib.abc.MetaPathFinder):
    """Finds our modules by their source, before anything else finds their machine code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None or fullname.partition(".")[0] not in ROOTS:
            return None
        for directory in path:
            spec = FileFinder(directory, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None:
                return spec
        return None


def main() -> int:
    """Exit 0 at the end of stdin."""
    sys.meta_path.insert(0, Sources())
    from tools.bench import core, flows
    from tools.bench.machine import build_of

    assert build_of(core.MODULES) == "plain Python"
    for line in sys.stdin:
        asked = json.loads(line)
        data = Path(asked["data"]) if asked["data"] else None
        flow = flows.load(asked["name"], data, asked["seed"], asked["count"])
        print(json.dumps(core.venue_rate(flows.batches(flow.rows))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

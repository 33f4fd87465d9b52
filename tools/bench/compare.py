"""What changed between two runs: by how much, whether by more than they stray, and whether they did the same work."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.bench import show

_KEYS: Final = ("name", "value", "unit", "ratio", "spread", "digest")


@dataclass(frozen=True, slots=True)
class Line:
    """What one run says of one name."""

    name: str
    value: float
    unit: str
    ratio: float | None
    spread: float
    digest: str


def main(before: Path, after: Path) -> int:
    """Exit 0, or 1 if something became worse by more than both runs stray, or 2 if a file cannot be read."""
    try:
        old, new = read(before), read(after)
    except (OSError, ValueError) as e:
        print(f"bench compare: {e}", file=sys.stderr)
        return 2
    lines, worse = compare(old, new)
    print("\n".join(lines))
    return 1 if worse else 0


def read(path: Path) -> dict[str, Line]:
    """The results of a file, by name; a name that comes twice counts as it came last. Raises: OSError, ValueError."""
    found = {}
    for i, text in enumerate(path.read_text().splitlines(), 1):
        if not text.strip():
            continue
        try:
            value: Any = json.loads(text)
            line = Line(*(value[key] for key in _KEYS))
            float(line.value), float(line.spread)
        except (ValueError, KeyError, TypeError) as e:
            raise ValueError(f"{path}: line {i} is no result: {e!r}") from None
        found[line.name] = line
    if not found:
        raise ValueError(f"{path}: no results")
    return found


def compare(old: dict[str, Line], new: dict[str, Line]) -> tuple[list[str], bool]:
    """A line for each name, and whether anything became worse by more than both runs stray."""
    lines = [f"{'name':28} {'before':>22} {'after':>22} {'change':>8}  verdict"]
    worse = False
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if a is None or b is None:
            only = a or b
            assert only is not None
            value = show.figure(only.value, only.unit)
            where = "before" if a else "after"
            lines.append(f"{name:28} {value if a else '':>22} {value if b else '':>22} {'':>8}  only {where}")
            continue
        verdict = judge(a, b)
        worse = worse or verdict.startswith("worse")
        change = f"{b.value / a.value - 1:+.1%}" if a.value else ""
        lines.append(
            f"{name:28} {show.figure(a.value, a.unit):>22} {show.figure(b.value, b.unit):>22} {change:>8}  {verdict}"
        )
    return lines, worse


def judge(a: Line, b: Line) -> str:
    """`better` or `worse` only beyond what both runs stray; the ratios decide where both have one, since the machine
    may have changed its speed between the runs."""
    if a.unit != b.unit:
        return f"not comparable: {a.unit} and {b.unit}"
    notes = "" if a.digest == b.digest else "; not the same work"
    by_ratio = a.ratio is not None and b.ratio is not None
    before, after = (a.ratio, b.ratio) if by_ratio else (a.value, b.value)
    if not before or after is None:
        return "the same" + notes if a.value == b.value else "changed" + notes
    gain = after / before - 1
    if not a.unit.endswith("/s"):
        gain = -gain
    stray = max(a.spread, b.spread) / 2
    if abs(gain) <= max(stray, 1e-9):
        return "within the spread" + notes
    return f"{'better' if gain > 0 else 'worse'} by {abs(gain):.1%}{' beside the baseline' if by_ratio else ''}" + notes

"""Results as people and programs read them: tables, one JSON object a line, a section of a Markdown file.

A part's section stands between two marks; what is outside them is not touched:

    <!-- bench core -->
    <!-- end of core -->
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.bench.measure import PartReport, Result

_KEYS: Final = ("name", "value", "unit", "baseline", "ratio", "spread", "command", "digest")


def json_line(result: Result) -> str:
    """The result as one JSON object."""
    return json.dumps({key: getattr(result, key) for key in _KEYS})


def figure(value: float, unit: str) -> str:
    """A value as people read it, with its unit."""
    if unit == "s":
        if value >= 1:
            return f"{value:.2f} s"
        if value >= 1e-3:
            return f"{value * 1e3:.2f} ms"
        return f"{value * 1e6:.1f} µs" if value >= 1e-5 else f"{value * 1e9:,.0f} ns"
    if unit == "B":
        return f"{value:,.2f} B"
    if unit == "x":
        return f"{value:.2f} x"
    return f"{value:,.0f} {unit}"


def table(report: PartReport) -> str:
    """The report's results as a Markdown table."""
    rows = [("name", "median", "spread", "baseline", "ratio", "goal", "work"), *map(_cells, report.results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        figure(result.value, result.unit),
        f"{result.spread:.0%}" if result.spread else "",
        figure(result.baseline, result.unit) if result.baseline is not None else "",
        f"{result.ratio:.2f}" if result.ratio is not None else "",
        result.goal,
        result.digest[:8],
    )


def text(report: PartReport) -> str:
    """All of a report, in Markdown that also reads well on a terminal."""
    head = {
        "goal": f"{report.goal}.",
        "workload": f"{report.workload}.",
        "processes": f"{report.processes}.",
        "machine": f"{report.machine}.",
        "command": f"`{report.command}`.",
    }
    parts = ["\n".join(f"- {name}: {said}" for name, said in head.items()), table(report)]
    baselines = dict.fromkeys((result.against, result.name) for result in report.results if result.against)
    named: dict[str, list[str]] = {}
    for against, name in baselines:
        named.setdefault(against, []).append(name)
    if named:
        every = len(named) == 1
        parts.append("\n".join(
            f"- baseline of {'every figure' if every else ', '.join(names)}: {against}"
            for against, names in named.items()
        ))  # fmt: skip
    return "\n\n".join(parts + report.notes)


def percentile(ordered: Sequence[float], q: float) -> float:
    """The value at quantile q of sorted values."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def write(path: Path, report: PartReport) -> None:
    """Put the report into its section; a compiled run has one of its own beside the plain one. Raises: OSError,
    ValueError when a section never ends."""
    part = report.part if ", plain Python," in report.machine else f"{report.part} compiled"
    path.write_text(put(path.read_text() if path.exists() else "", part, text(report)))


def put(content: str, part: str, section: str) -> str:
    """`content` with that part's section replaced or, if it has none, appended."""
    start, end = f"<!-- bench {part} -->", f"<!-- end of {part} -->"
    block = f"{start}\n{section}\n{end}"
    before, found, rest = content.partition(start)
    if not found:
        return f"{content.rstrip()}\n\n## {part}\n\n{block}\n".lstrip()
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"{start} is not followed by {end}")
    return before + block + after

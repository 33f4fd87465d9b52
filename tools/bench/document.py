"""Puts measured tables into a Markdown file, between the marks that belong to each part, and touches nothing else.

<!-- bench core -->
...
<!-- end of core -->
"""

from collections.abc import Sequence
from pathlib import Path

from tools.bench import show
from tools.bench.measure import Report


def write(path: Path, reports: Sequence[Report]) -> None:
    """Replace each part's section; a part without marks is added at the end. Raises: OSError."""
    content = path.read_text() if path.exists() else ""
    for report in reports:
        content = put(content, section_of(report), show.text(report))
    path.write_text(content)


def section_of(report: Report) -> str:
    """The part's name; of a run with compiled cores, `PART compiled`, which does not replace the plain one."""
    plain = report.machine is None or report.machine.cores == "plain Python"
    return report.part if plain else f"{report.part} compiled"


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

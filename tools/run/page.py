"""A verdict as a page for people."""

from typing import Final

from tools.findings import FAILS, HOLDS, NOTE, UNKNOWN
from tools.run.verdict import Verdict

MARKS: Final = {HOLDS: "✓", FAILS: "✗", UNKNOWN: "?", NOTE: "·"}
ASCII_MARKS: Final = {HOLDS: "ok", FAILS: "NO", UNKNOWN: "? ", NOTE: "- "}
DETAILS_MAX: Final = 16  # lines of detail a finding shows


def page(verdict: Verdict, width: int = 100, ascii_only: bool = False) -> list[tuple[str, str]]:
    """The verdict as lines of (style, text) to print; the styles are the findings' marks, `dim`, and `head`."""
    marks = ASCII_MARKS if ascii_only else MARKS
    lines = [
        ("head" if verdict.holds else FAILS, "The verdict holds." if verdict.holds else "The verdict does not hold.")
    ]
    room = max((len(finding.title) for finding in verdict.findings), default=0)
    for finding in verdict.findings:
        mark = f" {marks[finding.mark]} {finding.title:<{room}}  "
        lines += _wrapped(finding.mark, mark, finding.text, width)
        details = finding.details[:DETAILS_MAX]
        for detail in details:
            lines += _wrapped("dim", " " * (len(mark)), detail, width)
        if len(finding.details) > len(details):
            lines.append(("dim", " " * len(mark) + f"and {len(finding.details) - len(details):,} more"))
    return lines


def _wrapped(style: str, start: str, text: str, width: int) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    room = max(width - len(start), 20)
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > room:
            lines.append((style, start + line))
            start, line = " " * len(start), word
        else:
            line = f"{line} {word}" if line else word
    lines.append((style, start + line))
    return lines

"""What an account was told while a venue ran, in few numbers: enough to see later whether any of it was taken back.

Reports are numbered by home and account. Of each stretch of them a sum of hashes is kept, so that whoever reads the
same reports again, from a drop copy, can compare.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from proto.columns import ReportRow

STRETCH: Final = 256  # reports in a sum: a report that is not as it was is found to so many
STRETCHES_MAX: Final = 320  # of a home and an account: more than an engine keeps reports for

_MASK: Final = (1 << 64) - 1


class ReportSpan(NamedTuple):
    """Reports `first` to `last`, and the sum of their hashes."""

    first: int
    last: int
    sum: int


def report_hash(seq: int, row: ReportRow) -> int:
    """The same in every process of one interpreter: a hash of integers is not salted."""
    return hash((seq, *row)) & _MASK


class Acknowledged:
    """The spans of every (home, account). Constant memory each; O(1) a report."""

    def __init__(self) -> None:
        self._spans: dict[tuple[int, int], list[ReportSpan]] = {}

    def add(self, home: int, account: int, first_seq: int, rows: Sequence[ReportRow]) -> None:
        """Numbered reports that have come; those that came before are passed over."""
        spans = self._spans.setdefault((home, account), [])
        for seq, row in enumerate(rows, first_seq):
            last = spans[-1] if spans else None
            if last is not None and seq <= last.last:
                continue
            if last is None or seq != last.last + 1 or seq % STRETCH == 0:
                spans.append(ReportSpan(seq, seq, report_hash(seq, row)))
                del spans[:-STRETCHES_MAX]
            else:
                spans[-1] = ReportSpan(last.first, seq, last.sum + report_hash(seq, row) & _MASK)

    def to_json(self) -> dict[str, Any]:
        """What `spans_of` reads: by account, then home."""
        out: dict[str, Any] = {}
        for (home, account), spans in self._spans.items():
            out.setdefault(str(account), {})[str(home)] = spans
        return out


def spans_of(said: dict[str, Any]) -> dict[tuple[int, int], list[ReportSpan]]:
    """The spans of each (home, account), as `Acknowledged.to_json` said them."""
    return {
        (int(home), int(account)): [ReportSpan(*span) for span in spans]
        for account, homes in said.items()
        for home, spans in homes.items()
    }

"""What a judge says: findings, of recorded flow, of a trading day, of a whole run."""

from dataclasses import dataclass
from typing import Final

HOLDS: Final = "holds"
FAILS: Final = "fails"
UNKNOWN: Final = "not judged"
NOTE: Final = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing judged: `mark` is HOLDS, FAILS, UNKNOWN or NOTE."""

    mark: str
    title: str
    text: str
    details: tuple[str, ...] = ()


def of(count: int, what: str, many: str = "") -> str:
    """`1 trade`, `1,329 trades`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {many or what + 's'}"

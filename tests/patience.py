"""How long tests wait: so many seconds times a factor, so that load makes the suite slow and not wrong.

Every deadline of a test is `patience(seconds)`, in which it has seconds to spare on idle cores. The factor is
LOBMESH_PATIENCE, or, where that is not set, how much of the machine others were using when the tests began.
"""

import os
from typing import Final

_MOST: Final = 10.0


def _factor() -> float:
    named = os.environ.get("LOBMESH_PATIENCE")
    if named:
        return float(named)
    return min(_MOST, 1 + os.getloadavg()[0] / (os.cpu_count() or 1))


FACTOR: Final = _factor()


def patience(seconds: float) -> float:
    """So long on this machine, now."""
    return seconds * FACTOR

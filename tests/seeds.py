"""Which seeds a simulation tries: the first LOBMESH_SEEDS of each kind (6; 200 in `make nightly`), and each that ever
found something.

When a seed beyond the usual ones fails, mend what it found and enter it here, by its kind: it runs always from then on.
"""

import os
from typing import Final

SEEDS: Final = int(os.environ.get("LOBMESH_SEEDS", "6"))
FOUND: Final[dict[str, tuple[int, ...]]] = {
    "relapse": (38,),  # that a publisher's sequences fell by less than sixty went unnoticed
    "relapse and loss": (22,),  # the same
}


def tried(kind: str) -> list[int]:
    """The seeds of this kind, without repetition, in order."""
    return sorted({*range(SEEDS), *FOUND.get(kind, ())})

"""Several lines of one stream, of which the first to bring a frame wins: who is up, and who was first.

The lines carry the same frames (the same epoch and sequences), one directly and one through a relay, say. What one
loses another may bring a moment later, so a reader of two waits that moment before it asks anybody.
"""

from __future__ import annotations


class Lines:
    """What each of `count` lines has brought.

    first   by line: frames that it was the first to bring
    """

    __slots__ = ("_heard_ns", "first")

    def __init__(self, count: int) -> None:
        self.first = [0] * count
        self._heard_ns: list[int | None] = [None] * count

    def heard(self, line: int, now_ns: int) -> None:
        """A frame came over this line, whether another had it before or not."""
        self._heard_ns[line] = now_ns

    def up(self, now_ns: int, silence_ns: int) -> int:
        """How many lines were heard within `silence_ns`."""
        return sum([heard is not None and now_ns - heard < silence_ns for heard in self._heard_ns])

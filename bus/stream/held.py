"""Frames that came before their turn, and the holes between them.

Sequences from `due` to `top` are each in one piece or in one hole. A piece is a span of one frame; a frame that
fills two holes is two pieces. What is beyond `top` has not been heard of.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from bus.stream.ledger import Gap

Instruments = Sequence[tuple[int, int]]
_first: Final = attrgetter("first")


class Piece:
    """Sequences `first` up to, not including, `end`, to be taken from `frame`."""

    __slots__ = ("end", "first", "frame", "instruments", "repaired")

    def __init__(self, first: int, end: int, frame: bytes, repaired: bool, instruments: Instruments) -> None:
        self.first = first
        self.end = end
        self.frame = frame
        self.repaired = repaired  # fetched, not heard
        self.instruments = instruments  # and their sequences where the frame begins; empty if the piece does not


class Hole:
    """Sequences `first` up to, not including, `end`, that nobody has brought yet."""

    __slots__ = ("end", "first", "gap")

    def __init__(self, first: int, end: int, gap: Gap) -> None:
        self.first = first
        self.end = end
        self.gap = gap


class HeldFrames:
    """The frames of one stream that wait. Cost: O(1) at the end, O(n) for n pieces elsewhere."""

    __slots__ = ("holes", "pieces", "size", "top")

    def __init__(self, due: int) -> None:
        self.top = due  # the highest next sequence heard of
        self.pieces: list[Piece] = []  # ascending, apart
        self.holes: list[Hole] = []  # ascending, apart
        self.size = 0  # bytes, all pieces together

    @property
    def floor(self) -> int:
        """The first sequence that is held; what a snapshot must reach, less one."""
        return self.pieces[0].first if self.pieces else self.top

    def miss(self, end: int, gap: Gap) -> None:
        """Nothing from `top` to `end` has come."""
        assert end > self.top
        self.holes.append(Hole(self.top, end, gap))
        self.top = end

    def add(
        self, first: int, end: int, frame: bytes, repaired: bool, instruments: Instruments
    ) -> list[tuple[int, int, Gap]]:
        """Keep what is new of a frame; return the parts of holes it fills.

        What lies beyond `top` is kept only of a frame that was heard; `first` must not be beyond `top`.
        """
        assert first <= self.top
        filled: list[tuple[int, int, Gap]] = []
        if self.holes and first < self.holes[-1].end and end > self.holes[0].first:
            left: list[Hole] = []
            for hole in self.holes:
                low, high = max(first, hole.first), min(end, hole.end)
                if low >= high:
                    left.append(hole)
                    continue
                self._keep(Piece(low, high, frame, repaired, instruments if low == first else ()))
                filled.append((low, high, hole.gap))
                if hole.first < low:
                    left.append(Hole(hole.first, low, hole.gap))
                if high < hole.end:
                    left.append(Hole(high, hole.end, hole.gap))
            self.holes = left
        if end > self.top and not repaired:
            low = max(first, self.top)
            self._keep(Piece(low, end, frame, repaired, instruments if low == first else ()))
            self.top = end
        return filled

    def take(self, due: int) -> list[Piece]:
        """Take out the pieces that follow `due` without a hole."""
        ready = 0
        for piece in self.pieces:
            if piece.first != due:
                break
            due = piece.end
            ready += 1
        taken = self.pieces[:ready]
        del self.pieces[:ready]
        self.size -= sum(len(piece.frame) for piece in taken)
        return taken

    def forget_below(self, seq: int) -> None:
        """Drop the pieces, and the parts of pieces, below `seq`. Holes stay."""
        kept = [piece for piece in self.pieces if piece.end > seq]
        if kept and kept[0].first < seq:
            kept[0].first = seq
        self.pieces = kept
        self.size = sum(len(piece.frame) for piece in kept)

    def cover(self, last: int) -> list[tuple[int, int, Gap]]:
        """A snapshot stands for all up to `last`: drop it; return the parts of holes it covers."""
        self.forget_below(last + 1)
        covered: list[tuple[int, int, Gap]] = []
        left: list[Hole] = []
        for hole in self.holes:
            if hole.first <= last:
                high = min(hole.end, last + 1)
                covered.append((hole.first, high, hole.gap))
                if high < hole.end:
                    left.append(Hole(high, hole.end, hole.gap))
            else:
                left.append(hole)
        self.holes = left
        self.top = max(self.top, last + 1)
        return covered

    def _keep(self, piece: Piece) -> None:
        if self.pieces and piece.first < self.pieces[-1].first:
            insort(self.pieces, piece, key=_first)
        else:
            self.pieces.append(piece)
        self.size += len(piece.frame)

    def check(self, due: int) -> None:
        """Walk the invariants; AssertionError if one is broken."""
        assert self.size == sum(len(piece.frame) for piece in self.pieces)
        spans = sorted([(p.first, p.end) for p in self.pieces] + [(h.first, h.end) for h in self.holes])
        at = spans[0][0] if spans else due
        assert at >= due, (at, due)
        for first, end in spans:
            assert at <= first < end, (at, first, end)
            at = end
        assert not spans or at <= self.top

"""Whether a machine may begin under its name: what the venue knows of it, against what it holds. No I/O.

    of the name, or of the engine's id, the venue knows          then
    nothing                                                      it begins
    a machine that runs                                          it does not: the name, or the engine, is at HOST:PORT
    one that is gone, with a log that reached no further         it begins, and `follows` the one that is gone
    one that is gone, with a log that reached further            it does not by itself: so much is missing
    one that is gone, with another log                           it does not by itself: the other log is missing

What is missing may be accepted as lost: then the engine begins under an epoch above all that the venue has seen. Only
an engine has a log; for a fabric node nothing is ever missing. Who started last plays no part.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bus.access.directory import Entry


@dataclass(frozen=True, slots=True)
class Held:
    """The log that an engine is about to take up, before it opens an epoch. An empty one: all 0.

    next_seqs   by channel: the sequence that its next delta would have in `epoch`; none: 1
    """

    incarnation: int = 0
    epoch: int = 0
    position: int = 0
    next_seqs: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """One machine as the venue knows it."""

    entry: Entry
    runs: bool  # it was asked, and answered
    position: int = 0  # how far its log was heard to reach; 0: nothing was heard
    streams: tuple[tuple[int, int, int], ...] = ()  # (epoch, channel, next sequence) that others have of its streams


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of it. It may begin if `taken` and `missing` are empty, or, with the loss accepted, if `taken` is."""

    taken: str = ""  # by whom
    missing: str = ""
    follows: int = 0  # the start of the machine before, which is gone
    above: int = 0  # the highest epoch that the venue has seen; needed where something is missing


def claim(name: str, engine: int, seen: Iterable[Known], held: Held | None) -> Claim:
    """`engine` 0 and `held` None: a fabric node. Of what is missing the greatest loss is told. Cost: O(seen)."""
    follows = above = 0
    losses: list[tuple[int, str]] = []
    for one in seen:
        entry = one.entry
        if entry.name != name and (entry.fabric or not engine or entry.engine != engine):
            continue
        if one.runs:
            if entry.name == name:
                return Claim(taken=f"the name {name} is taken by another machine that runs at {entry.grpc}")
            return Claim(taken=f"engine {engine} belongs to {entry.name}, which runs at {entry.grpc}")
        if entry.name == name:
            follows = entry.start
        if held is not None and not entry.fabric and entry.incarnation:
            above = max(above, entry.epoch)
            losses += _loss(held, one)
    missing = max(losses)[1] if losses else ""
    return Claim(missing=missing, follows=follows, above=above)


def _loss(held: Held, one: Known) -> list[tuple[int, str]]:
    """How much, and how it is said."""
    entry = one.entry
    reached = one.position or entry.epoch  # an epoch is at most one record's position, unless a loss was accepted
    where = f"epoch {entry.epoch:,}, record {reached:,}"
    if entry.incarnation != held.incarnation:
        what = "this log is empty" if not held.position else "this is another log"
        return [(reached, f"{what}, and the venue has seen {entry.name} at {where}")]
    if held.epoch > entry.epoch:
        return []
    records = max((one.position if held.epoch == entry.epoch else reached) - held.position, 0)
    ends = f"this log ends at epoch {held.epoch:,}, record {held.position:,}"
    if records:
        return [(records, f"{ends}, and the venue has seen {where}: {records:,} records are missing")]
    if held.epoch < entry.epoch:
        return [(1, f"{ends}, and the venue has seen epoch {entry.epoch:,}, which is missing")]
    deltas = 0
    for epoch, channel, next_seq in one.streams:
        if epoch == held.epoch:
            deltas += max(next_seq - held.next_seqs.get(channel, 1), 0)
    if deltas:
        return [(deltas, f"{ends}, and {deltas:,} deltas that the venue has seen of that epoch are missing")]
    return []

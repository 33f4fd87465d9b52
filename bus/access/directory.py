"""Who is where: the entries a machine has heard of, how two accounts of one machine are settled, and what may not be.

Every machine writes its own entry and keeps everybody's. What is passed on may come late, twice and in any order, so
an entry is settled by what it says alone:

    name is    incarnation  start                    and (epoch, version) is  then
    new        any          any                      any                      believed
    known      the same     the same                 higher                   believed
    known      the same     the same                 equal or lower           dropped
    known      the same     follows the known one    epoch not lower          believed
    known      the same     another, the same place  higher                   believed
    known      any          what the known follows   any                      dropped: it is known to be gone
    known      the same     another                  epoch lower, or left     dropped (doubted if the known one left)
    known      the same     another                  otherwise                doubted, until `confirm` is called for it
    known      another      any                      any                      doubted likewise
    our own    any          follows ours             any                      Superseded: it found us silent
    our own    the same     ours                     not lower                ours is written again, above it
    our own    any          what ours follows        any                      dropped
    our own    the same     another                  any                      doubted: is there a twin of ours?
    our own    another      any                      any                      dropped: the others will ask us

An epoch is a log's, and rises with every start; a version rises with every change of the entry. A fabric node has no
log: its incarnation and epoch are 0, and its version begins at the time of its start. A log begun anew has another
incarnation and begins its epochs anew, so no number decides between the two: somebody has to ask the machine.

Two copies of one log have one incarnation, and may have one epoch: so each start of a machine has a random number of
its own (0: an older one tells none, and any number goes with it), and an entry names the start that it `follows`, the
one that it asked before it began and had no answer from (bus/access/claim.py). A twin of ours that answers is told
apart from us by what it holds: the one whose log reaches less far, or else has the lower epoch, or else the higher
number, is Displaced.

A believed entry holds its engine's id, and its instruments' ids and symbols. Another name that claims one of them is
refused with a `Conflict` and waits; it is believed once the holder gives way. First come, first served: which of two
is right is for people to say. A machine that has left (it said so) stays listed, and gives way to any claim.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from proto.instrument import Instrument

SILENT_NS: Final = 3_000_000_000  # an incarnation heard from more lately is not given up for another


@dataclass(frozen=True, slots=True)
class Entry:
    """One machine, as it describes itself."""

    name: str
    engine: int  # of a fabric node: the engine on its machine, 0 if there is none
    fabric: bool
    incarnation: int
    epoch: int
    version: int
    grpc: str  # host:port
    feed: str = ""  # tcp://host:port; engines only
    instruments: tuple[Instrument, ...] = ()
    channels: int = 1
    left: bool = False
    start: int = 0
    follows: int = 0

    def same_start(self, other: "Entry") -> bool:
        """Whether both are of one start of the machine, as far as they tell."""
        return self.start == other.start or not (self.start and other.start)

    def newer_than(self, other: "Entry") -> bool:
        """Of two entries of one incarnation. Two that differ under one version are ordered anyhow, but always alike."""
        mine, others = (self.epoch, self.version), (other.epoch, other.version)
        return mine > others or (mine == others and repr(self) > repr(other))


@dataclass(frozen=True, slots=True)
class Changed:
    """An entry is believed, instead of `before` (none: the name is new)."""

    entry: Entry
    before: Entry | None


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A known name with another incarnation: ask the machine at `entry.grpc`, then `confirm` or forget it."""

    entry: Entry
    believed: Entry


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two claim the same; the holder keeps it, the claimant is not listed."""

    what: str  # "name", "engine", "instrument", "symbol"
    value: int | str
    holder: str
    claimant: str

    def __str__(self) -> str:
        if self.what == "name":
            return f"{self.value} is at {self.holder} and at {self.claimant}: two machines have one name"
        return f"{self.what} {self.value} belongs to {self.holder}, and {self.claimant} claims it"


@dataclass(frozen=True, slots=True)
class Superseded:
    """Our own log has an owner with a higher epoch: we are not the engine any more."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Displaced:
    """Our name belongs to another machine that runs; `why` says to which."""

    why: str


Event: TypeAlias = Changed | Unconfirmed | Conflict | Superseded | Displaced


class Directory:
    """The entries one machine believes, and its own among them (none: an onlooker). No clock: times are arguments.

    `generation` rises whenever there is something new to tell the others.
    """

    __slots__ = (
        "_answered",
        "_doubted",
        "_entries",
        "_heard",
        "_holders",
        "_reached",
        "_refused",
        "_told",
        "generation",
        "own",
    )

    def __init__(self, own: Entry | None = None) -> None:
        self.own: Entry | None = None
        self.generation = 0
        self._entries: dict[str, Entry] = {}  # believed, by name
        self._refused: dict[str, Entry] = {}  # they claim what another holds, by name
        self._doubted: dict[str, Entry] = {}  # the last of another incarnation, by name
        self._answered: dict[str, int] = {}  # when a doubted machine first answered, monotonic
        self._told: dict[str, Conflict] = {}  # the conflict of each refused one
        self._heard: dict[str, int] = {}  # when the machine itself last spoke to us, monotonic
        self._holders: dict[int | str, str] = {}  # instrument ids and symbols: their engine's name
        self._reached: dict[str, dict[int, int]] = {}  # by name and start: the furthest position of the log
        if own is not None:
            self.write(own)

    # What is told

    def write(self, entry: Entry) -> list[Event]:
        """Make `entry` our own; its version is raised above the last one's if it is not. It may be refused, too."""
        if self.own is not None:
            assert (entry.name, entry.start) == (self.own.name, self.own.start)
            if entry.incarnation == self.own.incarnation and entry.epoch == self.own.epoch:
                entry = replace(entry, version=max(entry.version, self.own.version + 1))
        self.own = entry
        return self._admit(entry)

    def leave(self, version: int) -> list[Event]:
        """Say good-bye in our own entry."""
        assert self.own is not None
        return self.write(replace(self.own, version=version, left=True))

    def merge(self, entries: Iterable[Entry], sender: str = "") -> list[Event]:
        """Take in what the machine named `sender` knows. Cost: O(entries), and O(instruments) for each change."""
        events: list[Event] = []
        for entry in entries:
            if self.own is not None and entry.name == self.own.name:
                events += self._of_ourselves(entry, sender)
            else:
                events += self._of_another(entry)
        return events

    def confirm(self, entry: Entry, now_ns: int) -> list[Event]:
        """The machine at `entry.grpc`, asked just now, says that it is `entry`.

        If it was doubted, it is believed once the incarnation believed so far has been silent for three seconds, or at
        once if it was at the same place or has left. If that one speaks again meanwhile, there are two machines of one
        name: a Conflict.
        """
        if self.own is not None and entry.name == self.own.name:
            return self._settle_twins(self.own, entry)
        believed = self._entries.get(entry.name)
        if believed is None or (entry.incarnation == believed.incarnation and entry.same_start(believed)):
            return self.merge([entry])
        heard_ns = self._heard.get(entry.name)
        gone = believed.left or believed.grpc == entry.grpc or (entry.follows and entry.follows == believed.start)
        if heard_ns is not None and not gone:
            if heard_ns > self._answered.setdefault(entry.name, now_ns):
                return [Conflict("name", entry.name, believed.grpc, entry.grpc)]
            if now_ns - heard_ns < SILENT_NS:
                return []
        self._doubted.pop(entry.name, None)
        self._answered.pop(entry.name, None)
        self._heard.pop(entry.name, None)
        return self._admit(entry)

    def forget_doubt(self, name: str) -> list[Event]:
        """The doubted entry of that name was asked for and not confirmed; it is doubted anew when it comes again.

        One of our own name was of a past life: we are above it, or, if it has the higher epoch, behind it.
        """
        entry = self._doubted.pop(name, None)
        self._answered.pop(name, None)
        own = self.own
        if entry is None or own is None or name != own.name:
            return []
        return [Superseded(entry)] if entry.epoch > own.epoch else self.write(replace(own, version=entry.version + 1))

    def unreachable(self, grpc: str) -> None:
        """Nobody takes a call there: a machine that was there is silent, if another has its name."""
        for name in self._doubted:
            if name in self._entries and self._entries[name].grpc == grpc:
                self._heard.pop(name, None)

    def heard(self, entry: Entry, now_ns: int) -> None:
        """The machine of that entry has spoken to us itself, at that monotonic time."""
        believed = self._entries.get(entry.name)
        if believed is not None and believed.incarnation == entry.incarnation and believed.start == entry.start:
            self._heard[entry.name] = now_ns

    def reach(self, name: str, start: int, position: int) -> None:
        """The log of that start of a machine reaches so far. Kept for those who are believed, doubted or ourselves."""
        known = (self._entries.get(name), self._doubted.get(name))
        starts = {entry.start for entry in known if entry is not None}
        if start in starts:
            reached = {one: at for one, at in self._reached.get(name, {}).items() if one in starts}
            reached[start] = max(position, reached.get(start, 0))
            self._reached[name] = reached

    # What is asked

    def reached(self, entry: Entry) -> int:
        """How far the log of that start of a machine reached when it was last heard of; 0: that was not told."""
        return self._reached.get(entry.name, {}).get(entry.start, 0)

    def entries(self) -> tuple[Entry, ...]:
        """All that is believed, by name, those who left included: what is passed on."""
        return tuple(self._entries[name] for name in sorted(self._entries))

    def entry(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def peers(self) -> tuple[Entry, ...]:
        """All others who have not left, by name."""
        own = self.own.name if self.own is not None else ""
        return tuple(entry for entry in self.entries() if not entry.left and entry.name != own)

    def engines(self) -> tuple[Entry, ...]:
        """All engines, by id, those who left included."""
        return tuple(sorted((e for e in self._entries.values() if not e.fabric), key=_by_engine))

    def fabrics(self) -> tuple[Entry, ...]:
        """All fabric nodes that have not left, by name."""
        return tuple(entry for entry in self.entries() if entry.fabric and not entry.left)

    def engine(self, engine: int) -> Entry | None:
        """The engine of that id; of several who had it, the one that has not left, or the last."""
        found = [entry for entry in self.engines() if entry.engine == engine]
        return min(found, key=_left_last) if found else None

    def engine_of(self, instrument: int | str) -> Entry | None:
        """The home of an instrument, by id or symbol; it may have left. Cost: O(1)."""
        holder = self._holders.get(instrument)
        return None if holder is None else self._entries[holder]

    def instrument(self, instrument: int | str) -> Instrument | None:
        """An instrument, by id or symbol. Cost: O(instruments of its engine)."""
        home = self.engine_of(instrument)
        if home is not None:
            for found in home.instruments:
                if instrument in (found.id, found.symbol):
                    return found
        return None

    def instruments(self) -> tuple[Instrument, ...]:
        """All instruments that have a home, by id."""
        held = {
            instrument.id: instrument
            for entry in self._entries.values()
            for instrument in entry.instruments
            if self._holders[instrument.id] == entry.name
        }
        return tuple(held[instrument] for instrument in sorted(held))

    def knows(self, name: str, incarnation: int, epoch: int, version: int, start: int) -> bool:
        """Whether an entry that says so of itself would change nothing, being believed already. Cost: O(1)."""
        known = self._entries.get(name)
        told = (incarnation, epoch, version, start)
        return known is not None and (known.incarnation, known.epoch, known.version, known.start) == told

    def last_heard_ns(self, name: str) -> int | None:
        """When that machine itself last spoke to us, monotonic; none: never."""
        return self._heard.get(name)

    def doubted(self) -> tuple[Entry, ...]:
        """Entries to be confirmed, by name."""
        return tuple(self._doubted[name] for name in sorted(self._doubted))

    def conflict(self, name: str) -> Conflict | None:
        """Why the machine of that name is refused, if it is."""
        return self._told.get(name)

    def _of_ourselves(self, entry: Entry, sender: str) -> list[Event]:
        own = self.own
        assert own is not None
        if entry == own or (entry.left and not entry.same_start(own)):
            return []
        if own.start and entry.follows == own.start:
            return [Superseded(entry)]
        twin = entry.incarnation == own.incarnation and not entry.same_start(own)
        if sender == own.name and entry.grpc != own.grpc:
            return [Conflict("name", own.name, own.grpc, entry.grpc), *(self._doubt(entry, own) if twin else [])]
        if entry.incarnation != own.incarnation or self._is_gone(entry, own):
            return []
        if twin:
            return self._doubt(entry, own)
        if entry.epoch > own.epoch:
            return [Superseded(entry)]
        if (entry.epoch, entry.version) < (own.epoch, own.version):
            return []
        return self.write(replace(own, version=entry.version + 1))

    def _settle_twins(self, own: Entry, twin: Entry) -> list[Event]:
        """It has our name, and answers; both of us find the same one to be the rightful one."""
        self._doubted.pop(own.name, None)
        conflict = Conflict("name", own.name, own.grpc, twin.grpc)
        if twin.same_start(own) or twin.incarnation != own.incarnation:
            return [conflict]
        ours = (self.reached(own), own.epoch, -own.start)
        its = (self.reached(twin), twin.epoch, -twin.start)
        return [conflict] if ours > its else [Displaced(str(conflict))]

    def _of_another(self, entry: Entry) -> list[Event]:
        believed = self._entries.get(entry.name)
        refused = self._refused.get(entry.name)
        if believed is not None and self._is_gone(entry, believed):
            return []
        if believed is not None and entry.incarnation != believed.incarnation:
            return self._doubt(entry, believed)
        if believed is not None and not entry.same_start(believed):
            if entry.follows and entry.follows == believed.start and entry.epoch >= believed.epoch:
                return self._admit(entry)
            if entry.left or (entry.epoch < believed.epoch and not believed.left):
                return []
            if entry.epoch < believed.epoch:
                return self._doubt(entry, believed)
            if believed.grpc != entry.grpc and not believed.left:
                return self._doubt(entry, believed)
        for known in (believed, refused):
            if known is not None and known.incarnation == entry.incarnation and not entry.newer_than(known):
                return []
        return self._admit(entry)

    def _doubt(self, entry: Entry, believed: Entry) -> list[Event]:
        last = self._doubted.get(entry.name)
        self._doubted[entry.name] = entry
        return [] if last == entry else [Unconfirmed(entry, believed)]

    @staticmethod
    def _is_gone(entry: Entry, known: Entry) -> bool:
        """Whether `known` came after that start, and found it silent."""
        return known.follows != 0 and entry.start == known.follows

    def _admit(self, entry: Entry) -> list[Event]:
        """Believe an entry, if nobody else holds what it claims, and then those who waited for what it gave up."""
        conflict = self._conflict_of(entry)
        if conflict is not None:
            self._refused[entry.name] = entry
            told, self._told[entry.name] = self._told.get(entry.name), conflict
            return [] if told == conflict else [conflict]
        self._refused.pop(entry.name, None)
        self._told.pop(entry.name, None)
        before = self._entries.get(entry.name)
        self._entries[entry.name] = entry
        self._find_holders()
        self.generation += 1
        events: list[Event] = [Changed(entry, before)]
        if before is not None:
            for name in sorted(self._refused):
                if name in self._refused:
                    events += self._admit(self._refused[name])
        return events

    def _conflict_of(self, entry: Entry) -> Conflict | None:
        if entry.fabric or entry.left:
            return None
        for other in self._entries.values():
            same = other.engine == entry.engine and other.name != entry.name
            if same and not other.fabric and not other.left:
                return Conflict("engine", entry.engine, other.name, entry.name)
        for instrument in entry.instruments:
            claims: tuple[tuple[str, int | str], ...] = (("instrument", instrument.id), ("symbol", instrument.symbol))
            for what, value in claims:
                holder = self._holders.get(value, entry.name)
                if holder != entry.name and not self._entries[holder].left:
                    return Conflict(what, value, holder, entry.name)
        return None

    def _find_holders(self) -> None:
        self._holders.clear()
        for entry in sorted(self._entries.values(), key=_left_first):
            for instrument in entry.instruments:
                self._holders[instrument.id] = entry.name
                self._holders[instrument.symbol] = entry.name


def _by_engine(entry: Entry) -> tuple[int, str]:
    return entry.engine, entry.name


def _left_first(entry: Entry) -> tuple[bool, str]:
    return not entry.left, entry.name


def _left_last(entry: Entry) -> tuple[bool, str]:
    return entry.left, entry.name

"""What shall go wrong: faults as text, and what becomes of each message, decided from a seed.

    drop=0.05                  always: one message in twenty
    partition=1@3:2            from second 3, for 2 s: nothing passes
    slow=200@5:10              from second 5, for 10 s: 200 messages a second, and no more
    snapshot-stale=0.2         of the snapshots that a fabric node gives, one in five is an old one
    kill=engine-2@5            to a process of a run, once
    join@8                     a machine more

Entries stand in one text, with commas between, or in a script, one or more a line, `#` before a remark. The value of
a message fault is the chance that one message is hit, but for `slow`. Seconds count from the beginning of trading in
a run, else from when the proxy listens. Each kind draws from a random sequence of its own, so adding a kind, or
changing one's rate, does not change which messages the others pick.

The kinds of message faults are one table, MESSAGE_FAULTS: what each means, and what it makes of a message. Those of
snapshots are another, ANSWER_FAULTS, and those of processes a third, PROCESS_FAULTS; what is done to a process, says
tools/run/disruption.py.
"""

from __future__ import annotations

import heapq
import math
import random
import re
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proto import feed, marketdata_pb2
from proto.feed import CRC_AT, FeedError

MS: Final = 1_000_000
HOLD_FRAMES_MAX: Final = 4  # a reordered message lets up to so many later ones pass
HOLD_NS: Final = 20 * MS  # and goes out after this long even if none came
BURST_MAX: Final = 20  # messages lost in one burst, 2 at least
DELAY_NS_MAX: Final = 200 * MS  # how long a line stands still, 10 ms at least
REPLAY_KEPT: Final = 256  # messages kept to be sent again
REPLAY_MAX: Final = 8  # sent again at once
TAIL_NS: Final = 300 * MS  # deltas are lost, heartbeats pass: longer than one heartbeat
SILENT_NS: Final = 1_000 * MS  # then nothing comes: longer than three heartbeats
PARTITION_NS: Final = 1_000 * MS
REGRESS_NS: Final = 700 * MS
SECOND_NS: Final = 1_000_000_000

PROCESS: Final = re.compile(r"(?:engine|fabric)-[1-9][0-9]{0,2}")
LATE_S: Final = 3.0  # longer than a reader waits for a snapshot
SNAPSHOT: Final = "snapshot-"  # before a kind of them, where all kinds of faults have their names


@dataclass(frozen=True, slots=True)
class ProcessFault:
    """A kind of fault of processes.

    named   its entry names a process; else the run does
    lasts   its entry says for how long
    downs   who meets it is down from then on
    ups     it is done to who is down, and nobody else; they are up from then on
    """

    named: bool = True
    lasts: bool = False
    downs: bool = False
    ups: bool = False


PROCESS_FAULTS: Final = {
    "kill": ProcessFault(downs=True),
    "restart": ProcessFault(ups=True),
    "pause": ProcessFault(lasts=True),
    "leave": ProcessFault(downs=True),
    "join": ProcessFault(named=False),
}


class FaultError(ValueError):
    """A fault spec that cannot be used; `faults` has one line for each thing wrong with it."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class MessageFault:
    """Something done to messages, or to snapshots: a chance for each, or what `slow` lets through a second.

    `for_s` None: always.
    """

    kind: str
    value: float
    at_s: float = 0.0
    for_s: float | None = None

    def __str__(self) -> str:
        when = "" if self.for_s is None else f"@{self.at_s:g}:{self.for_s:g}"
        return f"{self.kind}={self.value:g}{when}"


@dataclass(frozen=True, slots=True)
class TimedFault:
    """Something done to a process, `at_s` seconds after trading began; `for_s` is how long a pause lasts."""

    kind: str
    name: str  # empty for join: the run names who comes
    at_s: float
    for_s: float = 0.0

    def __str__(self) -> str:
        length = f":{self.for_s:g}" if PROCESS_FAULTS[self.kind].lasts else ""
        return f"{self.kind}{'=' if self.name else ''}{self.name}@{self.at_s:g}{length}"


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A parsed spec: faults of messages and of snapshots in the order of their tables, then of time; timed faults in
    order of time. Those of snapshots have their kinds without the prefix."""

    messages: tuple[MessageFault, ...] = ()
    timed: tuple[TimedFault, ...] = ()
    answers: tuple[MessageFault, ...] = ()

    def __str__(self) -> str:
        return ",".join([*map(str, self.messages), *(f"{SNAPSHOT}{each}" for each in self.answers),
                         *map(str, self.timed)])  # fmt: skip

    @property
    def partitions(self) -> tuple[MessageFault, ...]:
        """Those of the messages that calls meet as well."""
        return tuple(fault for fault in self.messages if fault.kind == "partition")

    @property
    def meet_calls(self) -> bool:
        """Whether any of them is done to calls of machines, and not to messages alone."""
        return bool(self.answers or self.partitions)

    @property
    def joins(self) -> int:
        """How many machines will come."""
        return sum(fault.kind == "join" for fault in self.timed)


def parse(text: str) -> FaultSpec:
    """Read `drop=0.02,kill=engine-1@5,...`; the empty text means no faults. Raises: FaultError with every mistake."""
    messages: list[MessageFault] = []
    answers: list[MessageFault] = []
    timed: list[TimedFault] = []
    wrong: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind = re.split("[=@]", item, maxsplit=1)[0]
        try:
            if kind in MESSAGE_FAULTS:
                messages.append(_message(item, kind, MESSAGE_FAULTS[kind].paced))
            elif kind.removeprefix(SNAPSHOT) in ANSWER_FAULTS and kind.startswith(SNAPSHOT):
                answers.append(_message(item, kind.removeprefix(SNAPSHOT)))
            elif kind in PROCESS_FAULTS:
                timed.append(_timed(item, kind))
            else:
                known = ", ".join((*MESSAGE_FAULTS, *(SNAPSHOT + kind for kind in ANSWER_FAULTS), *PROCESS_FAULTS))
                raise FaultError([f"{item!r}: no such fault; there are {known}"])
        except FaultError as e:
            wrong += e.faults
    timed.sort(key=lambda fault: fault.at_s)
    hits = _ordered(messages, list(MESSAGE_FAULTS), "", wrong)
    spoilt = _ordered(answers, list(ANSWER_FAULTS), SNAPSHOT, wrong)
    wrong += _in_order(timed)
    if wrong:
        raise FaultError(wrong)
    return FaultSpec(hits, tuple(timed), spoilt)


def parse_answers(text: str) -> tuple[MessageFault, ...]:
    """Read `stale=0.2,cut=0.1@5:2`: kinds of ANSWER_FAULTS alone. Raises: FaultError with every mistake."""
    answers: list[MessageFault] = []
    wrong: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind = re.split("[=@]", item, maxsplit=1)[0]
        try:
            if kind not in ANSWER_FAULTS:
                raise FaultError([f"{item!r}: no such fault of answers; there are {', '.join(ANSWER_FAULTS)}"])
            answers.append(_message(item, kind))
        except FaultError as e:
            wrong += e.faults
    ordered = _ordered(answers, list(ANSWER_FAULTS), "", wrong)
    if wrong:
        raise FaultError(wrong)
    return ordered


def _ordered(
    faults: Sequence[MessageFault], kinds: Sequence[str], prefix: str, wrong: list[str]
) -> tuple[MessageFault, ...]:
    """In the order of their table, then of time; kinds that hold always may be given once."""
    always = [fault.kind for fault in faults if fault.for_s is None]
    wrong += [f"{prefix}{kind} is given twice" for kind in kinds if always.count(kind) > 1]
    ordered = sorted(faults, key=lambda fault: (kinds.index(fault.kind), fault.at_s))
    return tuple(fault for fault in ordered if fault.value)


def parse_script(text: str) -> FaultSpec:
    """Read a script: entries as above, one or more a line, `#` before a remark. Raises: FaultError."""
    return parse(",".join(line.partition("#")[0] for line in text.splitlines()))


def _message(item: str, kind: str, paced: bool = False) -> MessageFault:
    value_text, at, when = item.partition("=")[2].partition("@")
    start, colon, length = when.partition(":")
    value, at_s, for_s = _number(value_text), _number(start), _number(length)
    if paced:
        if value is None or value < 1:
            raise FaultError([f"{item!r}: so many messages a second, 1 or more"])
    elif value is None or value > 1:
        raise FaultError([f"{item!r}: a rate is a number from 0 to 1"])
    if not at:
        return MessageFault(kind, value)
    if at_s is None or not colon or not for_s:
        raise FaultError([f"{item!r} is not of the form {kind}=VALUE@SECONDS:FOR"])
    return MessageFault(kind, value, at_s, for_s)


def _timed(item: str, kind: str) -> TimedFault:
    head, at, when = item.partition("@")
    name = head.partition("=")[2]
    asked = PROCESS_FAULTS[kind]
    form = kind + ("=NAME" if asked.named else "") + "@SECONDS" + (":FOR" if asked.lasts else "")
    start, colon, length = when.partition(":")
    at_s = _number(start)
    for_s = _number(length) if colon else 0.0
    if not at or at_s is None or for_s is None or bool(colon) != asked.lasts or ("=" in head) != asked.named:
        raise FaultError([f"{item!r} is not of the form {form}"])
    if asked.named and not PROCESS.fullmatch(name):
        raise FaultError([f"{item!r}: {name!r} is neither an engine (engine-1) nor a fabric node (fabric-1)"])
    if asked.lasts and for_s == 0:
        raise FaultError([f"{item!r}: a {kind} lasts longer than 0 seconds"])
    return TimedFault(kind, name, at_s, for_s)


def _number(text: str) -> float | None:
    """A number as people write it; no sign, no infinity, not 'nan'."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _in_order(timed: Sequence[TimedFault]) -> list[str]:
    """Who is down cannot be killed or paused, who is up cannot be restarted."""
    wrong: list[str] = []
    down: dict[str, bool] = {}
    for fault in timed:
        kind, is_down = PROCESS_FAULTS[fault.kind], down.get(fault.name, False)
        if not kind.named:
            continue
        if kind.ups and not is_down:
            wrong.append(f"{str(fault)!r}: {fault.name} was not killed before")
        elif is_down and not kind.ups:
            wrong.append(f"{str(fault)!r}: {fault.name} is down by then")
        if kind.ups or kind.downs:
            down[fault.name] = kind.downs
    return wrong


@dataclass(order=True, slots=True)
class _Held:
    release_at: int  # index of the frame after which it goes
    release_ns: int
    order: int
    frame: bytes = field(compare=False)


class Running:
    """One message fault over a line's life: its chance, and what it has begun."""

    __slots__ = ("bases", "chance", "end_ns", "fault", "left", "start_ns", "until_ns")

    def __init__(self, fault: MessageFault, chance: random.Random) -> None:
        self.fault = fault
        self.chance = chance
        self.start_ns = 0  # while it may begin something
        self.end_ns = 1 << 62
        self.left = 0  # messages that what it has begun still takes
        self.until_ns = 0  # when what it has begun ends
        self.bases: dict[bytes, int] = {}  # by topic: the first sequence that was numbered anew

    def begin(self, now_ns: int) -> None:
        """Second 0 of a fault that has its time."""
        if self.fault.for_s is not None:
            self.start_ns = now_ns + int(self.fault.at_s * SECOND_NS)
            self.end_ns = self.start_ns + int(self.fault.for_s * SECOND_NS)

    def lasts(self, now_ns: int) -> bool:
        """Whether something that it has begun goes on."""
        return self.left > 0 or now_ns < self.until_ns

    def last(self, now_ns: int, length_ns: int) -> None:
        """Begin something, unless it goes on already; it ends with the fault's own time at the latest."""
        if now_ns >= self.until_ns:
            self.until_ns = min(now_ns + length_ns, self.end_ns)


class FaultPlan:
    """The messages of one line, one after the other: which go on, twice, changed, later or not at all.

    Deterministic in (seed, line, faults, number of the message) and, where a fault has to do with time, in the times
    given. `counts` says what was done: messages hit, by kind; `messages` counts what came in.
    """

    __slots__ = ("_held", "_old", "_order", "_running", "_stalled", "closed_until_ns", "counts", "index")

    def __init__(self, faults: Sequence[MessageFault], seed: int, line: str = "", begun_ns: int | None = None) -> None:
        self.index = 0
        self.counts: dict[str, int] = {"messages": 0} | dict.fromkeys(MESSAGE_FAULTS, 0)
        self.closed_until_ns = 0  # nothing is to be taken in before
        self._running: list[Running] = []
        for fault in faults:
            when = "" if fault.for_s is None else f"@{fault.at_s:g}"
            running = Running(fault, random.Random(f"{seed}/{line}/{fault.kind}{when}"))
            if fault.for_s is not None:
                running.end_ns = 0  # not before it is known when it begins
            self._running.append(running)
        self._held: list[_Held] = []
        self._order = 0
        self._stalled: deque[tuple[int, bytes]] = deque()
        self._old: deque[bytes] = deque(maxlen=REPLAY_KEPT)
        if begun_ns is not None:
            self.begin(begun_ns)

    def begin(self, now_ns: int) -> None:
        """This is second 0 of timed faults."""
        for running in self._running:
            running.begin(now_ns)

    @property
    def paced(self) -> bool:
        """Whether the line may ever be read slowly."""
        return any(MESSAGE_FAULTS[running.fault.kind].paced for running in self._running)

    def frame(self, frame: bytes, now_ns: int) -> list[bytes]:
        """What to send now that `frame` came in: it, or what became of it, then held ones whose time has come."""
        self.index += 1
        self.counts["messages"] += 1
        stalled = self._unstalled(now_ns)
        sent = [frame]
        for running in self._running:
            if not running.start_ns <= now_ns < running.end_ns:
                continue
            kind = MESSAGE_FAULTS[running.fault.kind]
            drawn = kind.paced or running.chance.random() < running.fault.value
            if sent and (drawn or running.lasts(now_ns)):
                self.counts[running.fault.kind] += 1
                sent = [out for each in sent for out in kind.hit(self, running, each, now_ns)]
        self._old.append(frame)
        while self._held and self._held[0].release_at <= self.index:
            sent.append(heapq.heappop(self._held).frame)
        return stalled + sent

    def due(self, now_ns: int) -> list[bytes]:
        """Held messages that have waited long enough, in the order they came."""
        due = sorted((held for held in self._held if held.release_ns <= now_ns), key=lambda held: held.order)
        if due:
            self._held = [held for held in self._held if held.release_ns > now_ns]
            heapq.heapify(self._held)
        return self._unstalled(now_ns) + [held.frame for held in due]

    def next_due_ns(self) -> int | None:
        """When `due` has something next; None when nothing is held."""
        due = [held.release_ns for held in self._held]
        due += [release_ns for release_ns, _ in list(self._stalled)[:1]]
        return min(due, default=None)

    def hold(self, frame: bytes, frames: int, now_ns: int) -> None:
        """Keep `frame` until `frames` later ones have passed, or HOLD_NS."""
        self._order += 1
        heapq.heappush(self._held, _Held(self.index + frames, now_ns + HOLD_NS, self._order, frame))

    def stall(self, frame: bytes, until_ns: int) -> None:
        """Keep `frame` until then, behind all that are kept so."""
        self._stalled.append((until_ns, frame))

    def older(self, chance: random.Random) -> list[bytes]:
        """A few of the messages that came before, in a row."""
        if not self._old:
            return []
        first = chance.randrange(len(self._old))
        return list(self._old)[first : first + chance.randint(1, REPLAY_MAX)]

    def _unstalled(self, now_ns: int) -> list[bytes]:
        out = []
        while self._stalled and self._stalled[0][0] <= now_ns:
            out.append(self._stalled.popleft()[1])
        return out


Hit = Callable[[FaultPlan, Running, bytes, int], list[bytes]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of message fault: what it does, in words and as a function; `paced`: its value is messages a second.

    `done` is what became of the messages hit, as a run's verdict counts them.
    """

    what: str
    done: str
    hit: Hit
    paced: bool = False


def _drop(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    return []


def _burst(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    if running.left == 0:
        running.left = running.chance.randint(2, BURST_MAX)
    running.left -= 1
    return []


def _duplicate(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    return [frame, frame]


def _reorder(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    plan.hold(frame, running.chance.randint(1, HOLD_FRAMES_MAX), now_ns)
    return []


def _delay(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    running.last(now_ns, running.chance.randint(10 * MS, DELAY_NS_MAX))
    plan.stall(frame, running.until_ns)
    return []


def _corrupt(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    at, change = running.chance.randrange(max(len(frame), 1)), running.chance.randint(1, 255)
    return [frame[:at] + bytes(byte ^ change for byte in frame[at : at + 1]) + frame[at + 1 :]]


def _truncate(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    return [frame[: running.chance.randrange(max(len(frame), 1))]]


def _replay(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    return [frame, *plan.older(running.chance)]


def _tail(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    running.last(now_ns, TAIL_NS + SILENT_NS)
    silent = now_ns >= running.until_ns - SILENT_NS
    return [frame] if not silent and frame_flags(frame) & feed.HEARTBEAT else []


def _partition(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    running.last(now_ns, PARTITION_NS)
    return []


def _regress(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    if now_ns >= running.until_ns:
        running.bases.clear()
    running.last(now_ns, REGRESS_NS)
    try:
        header = feed.decode(frame).header
    except FeedError:
        return [frame]  # damaged: with a right checksum it would be a frame that no publisher made
    if header.kind != feed.KIND_D:
        return [frame]
    base = running.bases.setdefault(frame[: feed.TOPIC_SIZE], header.first_seq)
    return [numbered(frame, max(1, header.first_seq - base + 1))]


def _slow(plan: FaultPlan, running: Running, frame: bytes, now_ns: int) -> list[bytes]:
    plan.closed_until_ns = max(plan.closed_until_ns, now_ns) + int(SECOND_NS / running.fault.value)
    return [frame]


def frame_flags(frame: bytes) -> int:
    """The flags of a frame of the feed (FEED.md); 0 of anything else."""
    try:
        return feed.decode_header(frame).flags
    except FeedError:
        return 0


_SEQUENCE_AT: Final = feed.TOPIC_SIZE + 32


def numbered(frame: bytes, first_seq: int) -> bytes:
    """A frame of deltas or its heartbeat, as if its publisher had given it this sequence: with a right checksum."""
    changed = bytearray(frame)
    changed[_SEQUENCE_AT : _SEQUENCE_AT + 8] = first_seq.to_bytes(8, "little")
    return sealed(changed)


def sealed(frame: bytes | bytearray) -> bytes:
    """A frame of deltas with the checksum that its bytes ask for."""
    crc = zlib.crc32(frame[CRC_AT + 4 :], zlib.crc32(frame[:CRC_AT]))
    return bytes(frame[:CRC_AT]) + crc.to_bytes(4, "little") + bytes(frame[CRC_AT + 4 :])


# What a hit does to a message, by kind, in the order in which they are tried.
MESSAGE_FAULTS: Final[dict[str, Kind]] = {
    "drop": Kind("a message is lost", "dropped", _drop),
    "burst": Kind(f"2 to {BURST_MAX} messages in a row are lost", "lost in bursts", _burst),
    "dup": Kind("a message comes twice", "doubled", _duplicate),
    "reorder": Kind(f"a message comes after up to {HOLD_FRAMES_MAX} later ones", "reordered", _reorder),
    "corrupt": Kind("a byte is changed", "damaged", _corrupt),
    "truncate": Kind("the end of a message is cut off", "cut short", _truncate),
    "replay": Kind(f"up to {REPLAY_MAX} old messages come again", "followed by old ones", _replay),
    "regress": Kind(
        f"the sequence begins again at 1 in the same epoch, for {REGRESS_NS / SECOND_NS:g} s",
        "numbered anew", _regress,
    ),
    "tail": Kind(
        f"deltas are lost for {TAIL_NS / SECOND_NS:g} s, then all is silent for {SILENT_NS / SECOND_NS:g} s",
        "lost in tails", _tail,
    ),
    "partition": Kind(f"nothing passes for {PARTITION_NS / SECOND_NS:g} s", "kept away", _partition),
    "delay": Kind(f"the line stands still for up to {DELAY_NS_MAX / SECOND_NS:g} s", "delayed", _delay),
    "slow": Kind("so many messages a second are read, the rest waits at the publisher", "read slowly", _slow, True),
}  # fmt: skip


def _whole(first: list[bytes], chunks: list[bytes], chance: random.Random) -> list[bytes]:
    return chunks


def _stale(first: list[bytes], chunks: list[bytes], chance: random.Random) -> list[bytes]:
    return first


def _cut(first: list[bytes], chunks: list[bytes], chance: random.Random) -> list[bytes]:
    """Fewer chunks, or, of a single one, less of its body under its old checksum."""
    if len(chunks) != 1:
        return chunks[: chance.randrange(1, len(chunks))] if chunks else chunks
    chunk = marketdata_pb2.SnapshotChunk.FromString(chunks[0])
    chunk.body = chunk.body[: chance.randrange(max(len(chunk.body), 1))]
    return [chunk.SerializeToString()]


@dataclass(frozen=True, slots=True)
class AnswerFault:
    """A kind of fault of snapshots: what it does, in words, and what became of those hit, as a verdict counts them.

    refused  it is not given at all
    late_s   how much later it is given
    spoil    its chunks, of the first snapshot that was given for that request, and those of this one
    """

    what: str
    done: str
    refused: bool = False
    late_s: float = 0.0
    spoil: Callable[[list[bytes], list[bytes], random.Random], list[bytes]] = _whole


# What happens to a snapshot, by kind, in the order in which they are tried: the first that hits is done.
ANSWER_FAULTS: Final = {
    "fail": AnswerFault("is refused: UNAVAILABLE", "refused", refused=True),
    "slow": AnswerFault(f"comes {LATE_S:g} s late", "late", late_s=LATE_S),
    "stale": AnswerFault("is the first one that was ever given for that stream", "old ones", spoil=_stale),
    "cut": AnswerFault("ends in the middle, as if it were whole", "cut in the middle", spoil=_cut),
}
UNHARMED: Final = AnswerFault("passes", "passed")
LOSSES: Final = ("drop", "burst", "corrupt", "truncate", "tail", "partition")  # kinds that open gaps


def in_words() -> str:
    """Every kind of message fault, one a line."""
    return "\n".join(f"  {name:<14} {kind.what}" for name, kind in MESSAGE_FAULTS.items())


def answers_in_words() -> str:
    """Every kind of fault of snapshots, one a line."""
    return "\n".join(f"  {SNAPSHOT + name:<14} a snapshot {kind.what}" for name, kind in ANSWER_FAULTS.items())

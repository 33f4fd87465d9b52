"""A reader's side of one sequenced stream: what to do with what comes, without sockets, clock or chance.

One FeedClient reads one (engine, channel). Frames, answers and the time go in; typed actions come out, and the
books of `mirror` are right wherever `standing()` calls them valid. Its table, one cell for every state and input:
next state, then what comes out. The tests read this table and walk it.

    input                   DOWN      JOINING   SNAPSHOT  LIVE      REPAIR    STALE     ENDED     LAGGED
    start                   J         J         S         L         R         T         E         G
    stop                    D         D         D wx      D         D wx      D         D         D
    data at the top         D         S s       S         L a       R         L a       L a       G
    fresh data from 1       D         L a       S         L         R         T         E         G
    data beyond the top     D         S s       S g       R gq      R g       R gq      R gq      G
    data far beyond         D         S s       S g       S gs      S gws     S gs      S gs      G
    data fills the hole     D         S s       S r       L         L raaw    L         E         G
    data wholly old         D         S s       S         L         R         T         E         G
    data old and new        D         S s       S         L a       R         L a       E         G
    data old, sent anew     D         S s       S !wxc    S !c      S !wxc    S !c      S !c      G
    data follows another    D         S !wc     S !wxc    S !c      S !wxc    S !c      S !c      G
    beat follows another    D         S !wc     S !wxc    S !c      S !wxc    S !c      S !c      G
    filler follows another  D         S s       S r       S !c      S r!wc    S !c      E         G
    another fills the hole  D         S s       S r       L         S ra!wc   L         E         G
    heartbeat at the top    D         S s       S         L         R         L         L         G
    heartbeat beyond        D         S s       S g       R gq      R g       R gq      R gq      G
    fresh heartbeat at 1    D         L         S         L         R         T         E         G
    end at the top          D         S s       S         E         R         E         E         G
    end beyond              D         S s       S g       R gq      R g       R gq      R gq      G
    digest equal            D         S s       S         L         R         L         L         G
    digest differs          D         S s       S         L di      R         L di      L di      G
    delta that misfits      D         S s       S         L dai     R         L dai     L dai     G
    filler that misfits     D         S s       S r       L         L rdaawi  L         E         G
    higher epoch            D         S s       S wxs     S s       S wxs     S s       S s       G
    higher epoch, fresh     D         L a       L wxa     L a       L wxa     L a       L a       G
    lower epoch             D         S s       S         L         R         T         E         G
    another incarnation     D         S s       S         L c       R         T c       E c       G
    damaged frame           D         J         S         L         R         T         E         G
    held too much           D         S s       S         L a       S ws      L a       L a       G
    lag above the limit     D         S s       G wl      G l       G wl      G l       G l       G
    rejoin                  D         J         S         L         R         T         E         J
    silence                 D         J         S         T         R         T         E         G
    tick, nothing due       D         J         S         L         R         T         E         G
    tick, ask overdue       D         J         S s       L         R q       T         E         G
    third time overdue      D         J         S s       L         S s       T         E         G
    range fills the hole    D         J         S         L         L aar     T         E         G
    range follows another   D         J         S         L         S !rc     T         E         G
    range fills a part      D         J         S         L         R aq      T         E         G
    range brings nothing    D         J         S         L         R q       T         E         G
    range out of range      D         J         S         L         S s       T         E         G
    range of another epoch  D         J         S         L         S s       T         E         G
    snapshot that splices   D         J         L mr      L         R         T         E         G
    snapshot before a hole  D         J         R mq      L         R         T         E         G
    snapshot too old        D         J         S s       L         R         T         E         G
    snapshot, older epoch   D         J         S s       L         R         T         E         G
    snapshot, newer epoch   D         J         L xm      L         R         T         E         G
    ask failed              D         J         S s       L         R q       T         E         G
    answer not asked for    D         J         S         L         R         T         E         G

    D J S L R E are the states by initial, T is STALE, G is LAGGED. a Applied; g GapOpened; r GapRepaired; x
    GapRepaired, as abandoned; m MissingSpan; q AskRange; s AskSnapshot of all; c the same, of the publisher alone;
    i AskSnapshot of one instrument; w Withdrawn; d Doubted; l Lagged; ! Alarm. Every change of state is also a
    StateChanged. An ask that is not due yet comes out of tick(), at `deadline_ns`.

"The top" is the highest next sequence heard of; in LIVE it is the sequence due. A frame that is older than the newest
heard (by its sent_ns) proves nothing about the present: it may fill a hole, and changes nothing else.

Rules beyond the table.
Doubt. In LIVE every book is valid except those set aside: a digest differed, or a delta did not fit. The deltas of such
a book are recorded, not applied, until a snapshot of it alone is spliced in by instrument sequence; with too many of
them, and when an instrument sequence does not go on, a snapshot of all is asked for. In REPAIR a book is valid, at its
own instrument sequence, if the first delta held of that instrument continues that sequence or a digest agreed since;
silence proves nothing.
End of stream. Noted in SNAPSHOT and REPAIR, and taken once no hole is left. Newer frames after it mean it was none.
Silence. Also noted in REPAIR, where it takes validity from all books; the repair goes on, and ends in STALE.
Lag. How much later than at its best the newest frame came: now less its sent_ns, less the least such difference of
the last five to ten minutes. Beyond `lag_ns` whatever waits in the line is of the past: it is neither applied nor
asked for, and the books stay as they are, stale, until the caller has dropped what waits (a new connection) and calls
rejoin(). From there a snapshot leads to the present; what was passed over is a gap, by cause "lag". With `conflate`
the caller reads the conflated quotes instead, until it is told to come back.
Two lines. The first to bring a frame wins. While two are up, a hole is asked for only after `reorder_ns`, in which the
other may bring it.
The chain. Every frame says which frame it follows. It is compared twice: what is newest, with the newest heard before,
if it goes on from there; and what was held or fetched, with what was applied last, unless that was a snapshot. In the
table "follows another" means behind the top or before the hole; if "another fills the hole", what is held behind it
follows another.
A run. After an old sequence in a newer frame, or a frame that follows another (the publisher broke its word), all
accounts of the epoch begin anew, and frames sent before the newest are refused. For the rest of the epoch only the
publisher itself is asked for snapshots, at growing intervals. What it answers is believed when a frame that was sent
`bear_ns` later or more, and follows the newest heard before, goes on from there; all that was held is dropped then,
and asked for. If that frame does not reach the snapshot, it is an old sequence, too. So is what a snapshot has
overtaken and was sent, going by the least delay, `silence_ns` after that came; and what is in a range and was sent
later, or earlier, than its sequence allows.
Asking. One ask at a time; a new one replaces the last, and an answer to any other is dropped. Delays are jittered by
the `random.Random` passed in.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final

from bus.stream.actions import (
    MS,
    Action,
    Alarm,
    Applied,
    AskRange,
    AskSnapshot,
    ClientLimits,
    Doubted,
    GapOpened,
    GapRepaired,
    Lagged,
    MissingSpan,
    Standing,
    State,
    StateChanged,
    Trusted,
)
from bus.stream.asking import Asking, Want
from bus.stream.delay import NEVER_NS, Delay
from bus.stream.held import HeldFrames
from bus.stream.ledger import Gap, Ledger
from bus.stream.lines import Lines
from bus.stream.mirror import Mirror, MirrorBook, MirrorError
from bus.stream.sequencer import FrameRing, RangeStatus
from proto import feed
from proto.feed import END, END_OF_STREAM, FRESH, KIND_D, OP_MASK, TOLD, Digest, Extra, FeedError, Frame, Header, Row
from proto.snapshot import Snapshot

RECORDED_MAX: Final = 65_536  # deltas of doubted books kept while their snapshots are waited for
LIMITS: Final = ClientLimits()
NO_CRC: Final = -1  # a snapshot is no frame
_NONE: Final[Mapping[bytes, Frame]] = {}


class FeedClient:
    """The reader of one stream. Inputs are methods; each returns what is to be done, in order.

    mirror       the books; see standing() for what each is worth
    next_seq     the sequence due
    ledger       counters and gaps
    asking       what is wanted of others, and asked for
    deadline_ns  when tick() is wanted next; None: not before another input
    Raises: nothing a peer can cause.
    """

    def __init__(
        self,
        engine: int,
        channel: int,
        rng: random.Random,
        ring: FrameRing | None = None,
        limits: ClientLimits = LIMITS,
    ) -> None:
        self.engine = engine
        self.channel = channel
        self.limits = limits
        self.lines: Lines | None = None  # where there are several
        self.ledger = Ledger()
        self.counters = self.ledger.counters
        self.ring = ring  # frames as published, for those who ask us
        self.state = State.DOWN
        self.mirror = Mirror()
        self.incarnation = 0
        self.epoch = 0  # 0: none heard of
        self.next_seq = 1
        self.heard_ns = 0  # when the newest frame came
        self.asking = Asking(limits, rng)
        self._kept = (0, 0)  # epoch and sequence of books of an earlier run, until they are replaced
        self._joined = False  # the mirror is of this run
        self._silent = False
        self._rejoining = False  # what comes next follows on what was passed over
        self._delay = Delay(limits.lag_ns)
        self._end_seq = 0  # next sequence at the end of stream, once it was announced
        self._top_sent_ns = 0  # of the newest frame
        self._top_next = 0  # next sequence after it
        self._top_crc = 0  # of the last frame of deltas up to it
        self._run_sent_ns = 0  # frames sent before belong to an earlier run
        self._seam = (0, 0)  # when the hole was seen: what is below this sequence was sent by this time, all else later
        self._claim: Snapshot | None = None  # by a publisher that broke its word: not borne out yet
        self._relapses = 0  # old sequences, sent anew, in this epoch
        self._loaded_ns = 0  # when the last snapshot was taken up
        self._foreign = 0  # an incarnation heard of, unconfirmed
        self._last_crc = NO_CRC  # of the frame that ends where the books stand
        self._held = HeldFrames(1)
        self._first_held: dict[int, int] = {}  # by instrument: its first sequence held
        self._proved: dict[int, int] = {}  # by instrument: its sequence when a digest agreed, behind the hole
        self._rows: list[Row] = []  # of an event that has not ended
        self._times: list[tuple[int, int]] = []
        self._extras: list[Extra] = []
        self._doubted: list[int] = []  # instruments set aside

    # What is known

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and sequence of the last event in the books."""
        return (self.epoch, self.mirror.last_seq) if self._joined else self._kept

    @property
    def doubted(self) -> list[int]:
        """Instruments set aside: their books are wrong, and asked for."""
        return list(self._doubted)

    def standing(self, instrument: int) -> Standing:
        """What this instrument's book is worth now. O(1)."""
        book = self.mirror.books.get(instrument)
        if book is None:
            return Standing.UNKNOWN
        if self.state in (State.DOWN, State.STALE, State.ENDED, State.LAGGED):
            return Standing.STALE
        if self.state in (State.JOINING, State.SNAPSHOT) or instrument in self._doubted:
            return Standing.DOUBTFUL
        if self.state is State.LIVE:
            return Standing.VALID
        if self._silent:
            return Standing.STALE
        if self._proved.get(instrument) == book.sequence:
            return Standing.VALID
        due = book.sequence + 1 + sum([row[1] == instrument for row in self._rows])
        return Standing.VALID if self._first_held.get(instrument) == due else Standing.DOUBTFUL

    def age_ns(self, now_ns: int) -> int:
        """How long ago the publisher said what the books now hold: since it was heard, and how late that was."""
        return max(0, now_ns - self.heard_ns) + self._delay.late_ns

    @property
    def deadline_ns(self) -> int | None:
        due_ns = self.asking.deadline_ns
        if self.state in (State.LIVE, State.REPAIR) and not self._silent:
            silent_ns = self.heard_ns + self.limits.silence_ns
            return silent_ns if due_ns is None else min(due_ns, silent_ns)
        return due_ns

    # Inputs

    def start(self, now_ns: int) -> list[Action]:
        """The caller has subscribed."""
        if self.state is not State.DOWN:
            return []
        actions: list[Action] = []
        self.heard_ns = now_ns
        self._go(State.JOINING, "started", actions)
        return actions

    def stop(self, now_ns: int) -> list[Action]:
        """No more frames will come; the books stay readable."""
        if self.state is State.DOWN:
            return []
        actions: list[Action] = []
        self._begin(0, 0, "stopped", now_ns, actions)
        self._go(State.DOWN, "stopped", actions)
        return actions

    def rejoin(self, now_ns: int) -> list[Action]:
        """What waited in the line has been dropped; what comes from here on was sent just now."""
        if self.state is not State.LAGGED:
            return []
        actions: list[Action] = []
        self._delay.forget()
        self._rejoining = True
        self._go(State.JOINING, "begins again in the present", actions)
        return actions

    def frame(self, data: bytes, now_ns: int, line: int = 0) -> list[Action]:
        """A frame as it came off the wire, over one of `lines`. O(deltas) where it is due."""
        if self.state is State.DOWN:
            return []
        if self.state is State.LAGGED:
            self.counters.passed_over += 1
            return []
        if self.lines is not None:
            self.lines.heard(line, now_ns)
            if self._had(data):
                self.counters.duplicates += 1
                return []
            self.lines.first[line] += 1
        try:
            frame = feed.decode(data)
        except FeedError:
            self.counters.bad_frames += 1
            return []
        header = frame.header
        if (
            self.state is State.LIVE
            and header.first_seq == self.next_seq
            and header.follows == self._last_crc
            and header.count
            and header.sent_ns > self._top_sent_ns
            and header.epoch == self.epoch
            and header.incarnation == self.incarnation
            and header.channel == self.channel
            and header.engine == self.engine
            and header.kind == KIND_D
            and not self._end_seq
            and (delay := self._delay).least_ns <= (delay_ns := now_ns - header.sent_ns) <= delay.most_ns
        ):
            self.heard_ns = now_ns
            delay.now_ns = delay_ns
            if delay_ns < delay.window_least_ns:
                delay.window_least_ns = delay_ns
            self._top_sent_ns = header.sent_ns
            self._top_next = end = header.first_seq + header.count
            actions: list[Action] = []
            if not self._apply(frame, data, header.first_seq, end, False, actions):
                self._misfit(end, now_ns, actions)
            self._top_crc = self._last_crc
            if self._doubted or self.state is not State.LIVE:
                self._send(now_ns, actions)
            return actions
        return self._judge(frame, data, now_ns)

    def tick(self, now_ns: int) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        self._delay.pass_time(now_ns)
        if (
            self.state in (State.LIVE, State.REPAIR)
            and not self._silent
            and now_ns - self.heard_ns >= self.limits.silence_ns
        ):
            self._silent = True
            if self.state is State.LIVE:
                self._go(State.STALE, "silence", actions)
        if self.asking.has_expired(now_ns):
            self._failed("no answer in time", 0, now_ns, actions)
        self._send(now_ns, actions)
        return actions

    def range_reply(
        self, ask: int, status: RangeStatus, epoch: int, frames: Sequence[bytes], now_ns: int
    ) -> list[Action]:
        """An answer to AskRange: original frames, which may overhang at both ends, or why there are none."""
        asked = self.asking.answered(ask)
        if not isinstance(asked, AskRange):
            return []
        actions: list[Action] = []
        if status is not RangeStatus.OK or epoch != self.epoch:
            reason = f"{status.name.lower().replace('_', ' ')}: {asked.first} to {asked.last} of epoch {asked.epoch}"
            self._to_snapshot(reason, now_ns, actions)
        else:
            self._take_range(frames, now_ns, actions)
        self._send(now_ns, actions)
        return actions

    def snapshot_reply(self, ask: int, snapshot: Snapshot, now_ns: int) -> list[Action]:
        """An answer to AskSnapshot."""
        asked = self.asking.answered(ask)
        if not isinstance(asked, AskSnapshot):
            return []
        actions: list[Action] = []
        if self.asking.want is Want.INSTRUMENT:
            self._judge_one(asked, snapshot, now_ns, actions)
        else:
            self._judge_all(asked, snapshot, now_ns, actions)
        self._send(now_ns, actions)
        return actions

    def failed(self, ask: int, reason: str, now_ns: int) -> list[Action]:
        """An ask could not be done: an error, an answer cut off or damaged, no source."""
        if self.asking.answered(ask) is None:
            return []
        actions: list[Action] = []
        self._failed(reason, self.limits.retry_ns, now_ns, actions)
        self._send(now_ns, actions)
        return actions

    # Frames out of the ordinary

    def _judge(self, frame: Frame, data: bytes, now_ns: int) -> list[Action]:
        header = frame.header
        if (header.kind, header.engine, header.channel) != (KIND_D, self.engine, self.channel):
            self.counters.bad_frames += 1
            return []
        actions: list[Action] = []
        if self.epoch and header.incarnation != self.incarnation:
            self.counters.foreign += 1
            self._doubt_incarnation(header.incarnation, now_ns, actions)
        elif header.epoch < self.epoch or header.sent_ns < self._run_sent_ns:
            self.counters.lower_epoch += 1
        else:
            if header.epoch > self.epoch:
                self._begin(header.epoch, header.incarnation, f"epoch {header.epoch}", now_ns, actions)
            if header.sent_ns > self._top_sent_ns and self._is_old(frame):
                self._regress(header.first_seq, header.sent_ns, self._sent_after(header.first_seq), now_ns, actions)
            elif header.follows != self._top_crc and header.sent_ns > self._top_sent_ns and self._breaks(header):
                self._part(header.first_seq, header.sent_ns, now_ns, actions)
            elif header.sent_ns < self._top_sent_ns and frame.next_seq > self._top_next:
                self.counters.regressions += 1  # sent before the newest, and beyond it
                return []
            elif header.follows != self._last_crc and self.state in _SETTLED and self._strays(frame):
                self._part(header.first_seq, header.sent_ns, now_ns, actions)
            newest = header.sent_ns > self._top_sent_ns
            if self._claim is not None and newest and self._bears_out(self._claim, header):
                self._believe(self._claim, now_ns, actions)
            if newest:
                delay_ns = now_ns - header.sent_ns
                if self._delay.is_too_late(delay_ns):
                    self._lag(delay_ns - self._delay.least_ns, actions)
                    return actions
                self._delay.now_ns = delay_ns
                self._hear(frame, data, now_ns, actions)
            self._place(frame, data, newest, now_ns, actions)
        self._send(now_ns, actions)
        return actions

    def _is_old(self, frame: Frame) -> bool:
        """Whether the newest frame has an old sequence: lower than an older frame's, or than what is certain."""
        header = frame.header
        if header.first_seq < self._top_next:
            return True
        claim, limits = self._claim, self.limits
        if claim is not None:
            return header.sent_ns > claim.time_ns + limits.bear_ns and frame.next_seq <= claim.last_seq
        if self.state not in _SETTLED or frame.next_seq >= self.next_seq or self._delay.least_ns == NEVER_NS:
            return False
        return header.sent_ns + self._delay.least_ns > self._loaded_ns + limits.silence_ns

    def _strays(self, frame: Frame) -> bool:
        """Whether a frame that is due follows another than the one applied last, or begins within it."""
        header = frame.header
        if self._last_crc == NO_CRC:
            return False
        if header.first_seq == self.next_seq:
            return header.follows != self._last_crc
        return header.first_seq < self.next_seq < frame.next_seq

    def _breaks(self, header: Header) -> bool:
        """Whether the newest goes on from the one heard before it, and follows another. The first follows none."""
        if self.state is State.SNAPSHOT and self._run_sent_ns:
            return False  # all is in doubt already
        if header.first_seq == 1:
            return header.follows != 0
        return header.first_seq == self._top_next and header.follows != self._top_crc

    def _bears_out(self, claim: Snapshot, header: Header) -> bool:
        """Whether the newest frame was sent so long after it, and follows the one heard before."""
        goes_on = header.first_seq == self._top_next and header.follows == self._top_crc
        return goes_on and header.sent_ns > claim.time_ns + self.limits.bear_ns

    def _had(self, data: bytes) -> bool:
        """Whether another line has brought this frame, told by its header: a damaged one is not worth a look."""
        if self.state is not State.LIVE:
            return False
        try:
            header = feed.decode_header(data)
        except FeedError:
            return False
        return (
            header.first_seq + header.count <= self.next_seq
            and header.sent_ns <= self._top_sent_ns
            and (header.epoch, header.incarnation) == (self.epoch, self.incarnation)
        )

    def _lag(self, lag_ns: int, actions: list[Action]) -> None:
        """Let go of what waits here and in the line; holes stay open until the snapshot that covers them."""
        self.counters.lags += 1
        if self.state in _SETTLED:
            self._held = HeldFrames(self.next_seq)
        else:
            self._held.forget_below(self._held.top)
        self.asking.drop(actions)
        self._silent = False
        self._first_held, self._proved = {}, {}
        self._go(State.LAGGED, f"{lag_ns // MS} ms behind", actions)
        actions.append(Lagged(lag_ns, self.limits.conflate))

    def _hear(self, frame: Frame, data: bytes, now_ns: int, actions: list[Action]) -> None:
        """This is the newest frame: the publisher lives, and has come so far."""
        header = frame.header
        if header.first_seq > self._top_next and self.state in _SETTLED:
            self._seam = (self._top_next, self._top_sent_ns)
        self._top_sent_ns = header.sent_ns
        self._top_next = frame.next_seq
        self._top_crc = feed.crc_of(data) if header.count else header.follows
        self.heard_ns = now_ns
        self._silent = False
        self._end_seq = frame.next_seq if header.flags & END_OF_STREAM else 0
        if self.state is State.STALE:
            self._go(State.LIVE, "heard again", actions)
        elif self.state is State.ENDED and (not self._end_seq or self._end_seq != self.next_seq):
            self._go(State.LIVE, "not the end", actions)

    def _place(self, frame: Frame, data: bytes, newest: bool, now_ns: int, actions: list[Action]) -> None:
        header = frame.header
        if not header.count:
            self.counters.heartbeats += 1
        if self.state is State.JOINING and self._rejoining:
            self._rejoining = False
            if header.first_seq > self._held.top:
                self._open_gap(frame, "lag", now_ns, actions)
            self._go(State.SNAPSHOT, f"first heard at {header.first_seq}", actions)
            self._ask_soon(Want.SNAPSHOT, now_ns, actions)
        elif self.state is State.JOINING:
            self._held = HeldFrames(header.first_seq)
            if header.flags & FRESH and header.first_seq == 1:
                self._replace(Mirror(), 1)
                self._go(State.LIVE, "fresh: every book is empty", actions)
            else:
                self._go(State.SNAPSHOT, f"first heard at {header.first_seq}", actions)
                self._ask_soon(Want.SNAPSHOT, now_ns, actions)
        if self.state in (State.LIVE, State.STALE, State.ENDED):
            self._place_live(frame, data, newest, now_ns, actions)
        else:
            self._place_held(frame, data, now_ns, actions)

    def _place_live(self, frame: Frame, data: bytes, newest: bool, now_ns: int, actions: list[Action]) -> None:
        header = frame.header
        if header.first_seq > self.next_seq:
            self._held = HeldFrames(self.next_seq)
            self._first_held, self._proved = {}, {}
            self._go(State.REPAIR, f"{self.next_seq} was due, {header.first_seq} came", actions)
            self._place_held(frame, data, now_ns, actions)
        elif frame.next_seq > self.next_seq:
            if not self._apply(frame, data, self.next_seq, frame.next_seq, False, actions):
                self._misfit(frame.next_seq, now_ns, actions)
        elif header.count:
            self._count_old(newest)
        else:
            if self._end_seq == self.next_seq and self.state is State.LIVE:
                self._go(State.ENDED, "end of stream", actions)
            if header.first_seq == self.next_seq and not self._rows:
                self._compare(frame, now_ns, actions)

    def _place_held(self, frame: Frame, data: bytes, now_ns: int, actions: list[Action]) -> None:
        """Keep what is new of a frame while a hole or a snapshot is waited for."""
        header = frame.header
        held = self._held
        if header.first_seq > held.top:
            cause = "frame" if header.count else "end" if header.flags & END_OF_STREAM else "heartbeat"
            self._open_gap(frame, cause, now_ns, actions)
        if header.count:
            top = held.top
            filled = held.add(header.first_seq, frame.next_seq, data, False, frame.instruments)
            for low, high, gap in filled:
                gap.late += high - low
            if held.top > top or filled:
                self._note_held(frame)
            else:
                self._count_old(False)
        elif header.first_seq == held.top:
            self._prove(frame)
        self._settle(now_ns, actions)
        if held.size > self.limits.held_max:
            self.counters.overflows += 1
            held.forget_below(held.top)
            self._to_snapshot("held more than its bound", now_ns, actions)
        elif self.state is State.REPAIR:
            self._drain(now_ns, actions)

    def _open_gap(self, frame: Frame, cause: str, now_ns: int, actions: list[Action]) -> None:
        header = frame.header
        held = self._held
        gap = Gap(self.epoch, held.top, header.first_seq - 1, cause, now_ns)
        held.miss(header.first_seq, gap)
        self.ledger.begin(gap)
        actions.append(GapOpened(gap))

    def _note_held(self, frame: Frame) -> None:
        """Which instruments continue their sequence behind the hole."""
        first_held = self._first_held
        for instrument, sequence in frame.instruments:
            if sequence < first_held.get(instrument, sequence + 1):
                first_held[instrument] = sequence

    def _note_all_held(self) -> None:
        self._first_held = {}
        for piece in self._held.pieces:
            for instrument, sequence in piece.instruments:
                self._first_held.setdefault(instrument, sequence)

    def _prove(self, frame: Frame) -> None:
        """A digest that agrees proves an instrument unchanged up to here, hole or not."""
        if self.state is not State.REPAIR:
            return
        for digest in frame.digests:
            book = self.mirror.books.get(digest.instrument)
            if book is not None and book.sequence == digest.instrument_seq and _agrees(book, digest):
                self.counters.digests_equal += 1
                self._proved[digest.instrument] = digest.instrument_seq

    def _count_old(self, newest: bool) -> None:
        if newest:
            self.counters.superseded += 1
        else:
            self.counters.duplicates += 1

    def _sent_after(self, sequence: int) -> str:
        newer = max(self._top_next, self.next_seq, 0 if self._claim is None else self._claim.last_seq + 1) - 1
        return f"sequence {sequence} was sent after {newer}, in the same epoch {self.epoch}"

    def _part(self, sequence: int, sent_ns: int, now_ns: int, actions: list[Action]) -> None:
        text = f"sequence {sequence} follows another frame than the one that came before it, in epoch {self.epoch}"
        self._regress(sequence, sent_ns, text, now_ns, actions)

    def _regress(self, sequence: int, sent_ns: int, text: str, now_ns: int, actions: list[Action]) -> None:
        """A sequence stands for two frames: of all that was heard in this epoch, nothing is certain."""
        self.counters.regressions += 1
        actions.append(Alarm(text))
        relapses = self._relapses + 1
        run_sent_ns = max(sent_ns, self._top_sent_ns)
        self._begin(self.epoch, self.incarnation, "a sequence sent anew", now_ns, actions)
        self._relapses = relapses
        self._run_sent_ns = run_sent_ns
        self._held = HeldFrames(sequence)
        self._go(State.SNAPSHOT, "a sequence sent anew", actions)
        self._ask_soon(Want.SNAPSHOT, now_ns, actions)
        if relapses > 1:
            self.asking.due_ns += self.asking.backoff(self.limits.retry_ns, relapses - 1)

    def _doubt_incarnation(self, incarnation: int, now_ns: int, actions: list[Action]) -> None:
        """It is believed once the publisher itself, asked over another line, says so."""
        self._foreign = incarnation
        if self.asking.want is Want.INSTRUMENT:
            self._ask_soon(Want.CONFIRM, now_ns, actions)

    # Books

    def _apply(self, frame: Frame, data: bytes, first: int, end: int, repaired: bool, actions: list[Action]) -> bool:
        """Take sequences `first`, which is due, to before `end` out of a frame.

        False, and nothing taken, if an instrument sequence does not go on: then no book can be trusted.
        """
        header = frame.header
        self._last_crc = feed.crc_of(data)
        rows, times, extras, instruments = frame.rows, frame.times, frame.extras, frame.instruments
        if end - first != header.count:
            rows, times, instruments = _cut(frame, first, end)
        books = self.mirror.books
        for name, sequence in instruments:
            book = books.get(name)
            if (book is None or book.sequence + 1 != sequence or self._rows) and self._received(name) + 1 != sequence:
                return self._contradicted(name, sequence, actions)
        if self._rows or not rows[-1][0] & END:
            rows, times, extras = self._whole(rows, times, extras)
            instruments = self._due(rows)
        if rows:
            try:
                self.mirror.apply(rows, extras)
            except MirrorError as e:
                self._apply_the_rest(rows, extras, instruments, str(e), actions)
        self.next_seq = end
        if repaired:
            self.counters.repaired += end - first
        else:
            self.counters.received += end - first
        if self.ring is not None:
            self.ring.append(self.epoch, header.first_seq, header.count, data)
        if rows:
            last = end - 1 - len(self._rows)
            actions.append(Applied(self.epoch, last + 1 - len(rows), last, rows, times, extras))
            if self._doubted:
                self.mirror.last_seq = last
                self._trust(actions)
        return True

    def _received(self, instrument: int) -> int:
        """The sequence of the instrument's last delta, those of an event that has not ended included."""
        return self.mirror.instrument_seq(instrument) + sum([row[1] == instrument for row in self._rows])

    def _due(self, rows: list[Row]) -> list[tuple[int, int]]:
        """The instruments of these rows, and the sequence due of each."""
        return [(name, self.mirror.instrument_seq(name) + 1) for name in dict.fromkeys([row[1] for row in rows])]

    def _contradicted(self, instrument: int, sequence: int, actions: list[Action]) -> bool:
        self.counters.misfits += 1
        last = self._received(instrument)
        actions.append(Alarm(f"{self.next_seq}: instrument {instrument} goes on at {sequence}, after {last}"))
        return False

    def _misfit(self, end: int, now_ns: int, actions: list[Action]) -> None:
        """What was said of the stream contradicts itself: begin again behind `end`."""
        if not self._held.pieces and not self._held.holes:
            self._held = HeldFrames(end)
        self._to_snapshot("the stream contradicts the books", now_ns, actions)

    def _whole(
        self, rows: list[Row], times: list[tuple[int, int]], extras: list[Extra]
    ) -> tuple[list[Row], list[tuple[int, int]], list[Extra]]:
        """What was left of an event, and these, as far as events have ended. The rest is left."""
        if self._rows:
            at, shift = len(self._rows), len(self._extras)
            if shift and extras:
                rows = [(op, i, ref + shift, p, q, t) if op & OP_MASK in TOLD else (op, i, ref, p, q, t)
                        for op, i, ref, p, q, t in rows]  # fmt: skip
            rows = self._rows + rows
            times = self._times + [(row + at, time_ns) for row, time_ns in times if time_ns != self._times[0][1]]
            extras = self._extras + extras
        whole = len(rows)
        while whole and not rows[whole - 1][0] & END:
            whole -= 1
        self._rows = rows[whole:]
        self._times = [(0, [time_ns for row, time_ns in times if row <= whole][-1])] if self._rows else []
        self._extras = extras if self._rows else []
        return rows[:whole], [(row, time_ns) for row, time_ns in times if row < whole], extras

    # One instrument in doubt

    def _apply_the_rest(
        self,
        rows: list[Row],
        extras: list[Extra],
        instruments: Sequence[tuple[int, int]],
        reason: str,
        actions: list[Action],
    ) -> None:
        """A delta did not fit: set its book aside, and go on with all others.

        A book counts a delta before it tries it, so the sequences tell which delta it was; no other book is harmed.
        """
        mirror = self.mirror
        while True:
            tried = sum([mirror.instrument_seq(name) - sequence + 1 for name, sequence in instruments])
            self.counters.misfits += 1
            self._set_aside(rows[tried - 1][1], reason, actions)
            rows = rows[tried:]
            instruments = self._due(rows)
            try:
                mirror.apply(rows, extras)
                return
            except MirrorError as e:
                reason = str(e)

    def _set_aside(self, instrument: int, reason: str, actions: list[Action]) -> None:
        self.mirror.set_aside(instrument)
        self._doubted.append(instrument)
        actions.append(Doubted(instrument, reason))

    def _trust(self, actions: list[Action]) -> None:
        """Those that have come back."""
        aside = self.mirror.aside
        if len(aside) < len(self._doubted):
            self.counters.instrument_repairs += len(self._doubted) - len(aside)
            actions.extend(Trusted(instrument) for instrument in self._doubted if instrument not in aside)
            self._doubted = aside

    def _compare(self, frame: Frame, now_ns: int, actions: list[Action]) -> None:
        """Digests taken where we stand."""
        for digest in frame.digests:
            instrument = digest.instrument
            if instrument in self._doubted:
                continue
            book = self.mirror.books.get(instrument)
            if book is not None and _agrees(book, digest):
                self.counters.digests_equal += 1
                continue
            self.counters.digests_differing += 1
            if book is not None and book.sequence == digest.instrument_seq:
                self._set_aside(instrument, "digest differs", actions)
            elif book is not None or digest.instrument_seq:
                self._misfit(self.next_seq, now_ns, actions)
                return

    def _judge_one(self, asked: AskSnapshot, snapshot: Snapshot, now_ns: int, actions: list[Action]) -> None:
        """A snapshot of one book is spliced by its instrument sequence; one ahead of the stream waits for it."""
        if asked.instrument not in self._doubted:  # the stream has reached an earlier answer meanwhile
            self.asking.want = Want.NOTHING
            return
        found = [book for book in snapshot.books if book.instrument == asked.instrument]
        if snapshot[:4] != (self.engine, self.channel, self.incarnation, self.epoch) or not found:
            self._failed("not the book that was asked for", self.limits.retry_ns, now_ns, actions)
            return
        try:
            spliced = self.mirror.splice(found[0])
        except MirrorError as e:
            actions.append(Alarm(f"instrument {asked.instrument}: {e}"))
            self._misfit(self.next_seq, now_ns, actions)
            return
        if not spliced:
            self._failed("a book of too early a sequence", self.limits.retry_ns, now_ns, actions)
            return
        self._trust(actions)
        if asked.instrument in self._doubted:
            self.asking.tries += 1
            self.asking.due_ns = now_ns + self.limits.snapshot_ns
        else:
            self.asking.want = Want.NOTHING

    # Holes and snapshots

    def _drain(self, now_ns: int, actions: list[Action], decoded: Mapping[bytes, Frame] = _NONE) -> None:
        """Apply what is held as far as the next hole. `decoded`: what has been decoded already, by its bytes."""
        held = self._held
        pieces = held.take(self.next_seq)
        for piece in pieces:
            frame = decoded.get(piece.frame) or feed.decode(piece.frame)
            if self._strays(frame):
                self._part(frame.header.first_seq, frame.header.sent_ns, now_ns, actions)
                return
            if not self._apply(frame, piece.frame, piece.first, piece.end, piece.repaired, actions):
                self._misfit(pieces[-1].end, now_ns, actions)
                return
        if self.next_seq == self._top_next and self._last_crc not in (NO_CRC, self._top_crc):
            self._part(self.next_seq, self._top_sent_ns, now_ns, actions)
            return
        self._settle(now_ns, actions)
        if not held.holes:
            assert not held.pieces
            assert held.top == self.next_seq
            self.asking.drop(actions)
            self._proved = {}
            if self._end_seq == self.next_seq:
                self._go(State.ENDED, "end of stream", actions)
            elif self._silent:
                self._go(State.STALE, "silence", actions)
            else:
                self._go(State.LIVE, f"all up to {self.next_seq - 1}", actions)
            return
        far = [hole for hole in held.holes if hole.end - hole.first > self.limits.hole_max]
        if far:
            held.forget_below(far[-1].end)
            self._to_snapshot(f"a hole of more than {self.limits.hole_max}", now_ns, actions)
            return
        if pieces:
            self._note_all_held()
        self._go(State.REPAIR, f"{self.next_seq} is due", actions)
        asked = self.asking.asked
        if isinstance(asked, AskRange) and asked.last < self.next_seq:
            self.asking.drop(actions)
        if self.asking.want is not Want.RANGE:
            self._ask_soon(Want.RANGE, now_ns, actions)

    def _take_range(self, data: Sequence[bytes], now_ns: int, actions: list[Action]) -> None:
        frames = [(one, frame) for one in data if (frame := self._fitting(one)) is not None]
        for _, frame in frames:
            if self._is_anew(frame):
                header = frame.header
                self._regress(header.first_seq, header.sent_ns, self._sent_after(header.first_seq), now_ns, actions)
                return
        if brought := self._fill(frames):
            self.asking.done()
            self._drain(now_ns, actions, brought)
        else:
            self._failed("a range that brings nothing", self.limits.retry_ns, now_ns, actions)

    def _fitting(self, data: bytes) -> Frame | None:
        """A frame of this run that may fill a hole."""
        try:
            frame = feed.decode(data)
        except FeedError:
            self.counters.bad_frames += 1
            return None
        header = frame.header
        ours = (header.kind, header.engine, header.channel) == (KIND_D, self.engine, self.channel)
        if not ours or (header.epoch, header.incarnation) != (self.epoch, self.incarnation):
            return None
        if header.sent_ns < self._run_sent_ns or header.first_seq > self._held.top or not header.count:
            return None
        return frame

    def _is_anew(self, frame: Frame) -> bool:
        """Whether it was sent at another time than it must have been, by its sequence."""
        header = frame.header
        sequence, sent_ns = self._seam
        if header.sent_ns > sent_ns if header.first_seq < sequence else header.sent_ns < sent_ns:
            return True
        return header.sent_ns > self._top_sent_ns and frame.next_seq <= self._top_next

    def _fill(self, frames: Sequence[tuple[bytes, Frame]]) -> dict[bytes, Frame]:
        """Keep what a range brings of what is missing; the frames that brought something."""
        brought: dict[bytes, Frame] = {}
        for data, frame in frames:
            first = frame.header.first_seq
            for low, high, gap in self._held.add(first, frame.next_seq, data, True, frame.instruments):
                gap.ranged += high - low
                brought[data] = frame
        return brought

    def _judge_all(self, asked: AskSnapshot, snapshot: Snapshot, now_ns: int, actions: list[Action]) -> None:
        retry_ns = self.limits.retry_ns
        if (snapshot.engine, snapshot.channel) != (self.engine, self.channel):
            self._failed("a snapshot of another stream", retry_ns, now_ns, actions)
        elif snapshot.incarnation != self.incarnation:
            if asked.home:
                actions.append(Alarm(f"incarnation {snapshot.incarnation} in place of {self.incarnation}"))
                self._begin(snapshot.epoch, snapshot.incarnation, "another incarnation", now_ns, actions)
                self._load(snapshot, now_ns, actions)
            else:
                self._foreign = snapshot.incarnation
                self._failed(f"a snapshot of incarnation {snapshot.incarnation}", retry_ns, now_ns, actions)
        elif self.asking.want is Want.CONFIRM:
            self._foreign = 0
            self.asking.want = Want.NOTHING
            self._want_next(now_ns, actions)
        elif snapshot.epoch < self.epoch:
            self._failed(f"a snapshot of epoch {snapshot.epoch}", retry_ns, now_ns, actions)
        elif snapshot.epoch > self.epoch:
            self._begin(snapshot.epoch, snapshot.incarnation, f"epoch {snapshot.epoch}", now_ns, actions)
            self._load(snapshot, now_ns, actions)
        elif self._run_sent_ns:
            self._claim = snapshot
            self.asking.due_ns = now_ns + self.limits.snapshot_ns  # for another, if nothing bears this one out
        elif snapshot.last_seq + 1 < self._held.floor:
            self._failed(
                f"a snapshot at {snapshot.last_seq}, and the next held is {self._held.floor}", retry_ns, now_ns, actions
            )
        else:
            self._load(snapshot, now_ns, actions)

    def _believe(self, claim: Snapshot, now_ns: int, actions: list[Action]) -> None:
        """A frame that was sent after it bears it out. Nothing that was held before that can be told from the truth."""
        for low, high, gap in self._held.cover(claim.last_seq):
            gap.snapshotted += high - low
        for hole in self._held.holes:
            hole.gap.abandoned += hole.end - hole.first
        self._held = HeldFrames(claim.last_seq + 1)
        self._load(claim, now_ns, actions)

    def _load(self, snapshot: Snapshot, now_ns: int, actions: list[Action]) -> None:
        """Swap the books, then apply what is held from there on."""
        mirror = Mirror()
        mirror.load(snapshot)
        last = snapshot.last_seq
        if self._joined:
            self.counters.resnapshots += 1
        else:
            self.counters.joins += 1
        self.counters.covered += last + 1 - self.next_seq
        first = self.next_seq - len(self._rows)  # what is left of an event was heard, not delivered
        if last >= first:
            actions.append(MissingSpan(self.epoch, first, last))
        self._replace(mirror, last + 1)
        for low, high, gap in self._held.cover(last):
            gap.snapshotted += high - low
        self._foreign = 0
        self._claim = None
        self._loaded_ns = now_ns
        self.asking.done()
        self._note_all_held()
        self._drain(now_ns, actions)

    def _replace(self, mirror: Mirror, next_seq: int) -> None:
        self.mirror = mirror
        self.next_seq = next_seq
        self._last_crc = NO_CRC if next_seq > 1 else 0  # nothing comes before the first
        self._joined = True
        self._rows, self._times, self._extras = [], [], []
        self._doubted = []

    def _begin(self, epoch: int, incarnation: int, reason: str, now_ns: int, actions: list[Action]) -> None:
        """Nothing of what was, but the books to look at, belongs to what comes."""
        self.asking.drop(actions)
        actions.extend(GapRepaired(gap) for gap in self.ledger.abandon(now_ns))
        self._kept = self.position
        self._joined = False
        self.epoch, self.incarnation = epoch, incarnation
        counters = self.counters
        counters.received = counters.repaired = counters.covered = 0
        self.next_seq = 1
        self._last_crc = NO_CRC
        self._held = HeldFrames(1)
        self._first_held, self._proved = {}, {}
        self._rows, self._times, self._extras = [], [], []
        self._doubted = []
        self._silent = self._rejoining = False
        self._claim = None
        self._relapses = 0
        self._delay.forget()
        self._end_seq = self._top_sent_ns = self._top_next = self._top_crc = self._run_sent_ns = self._foreign = 0
        self._seam = (0, 0)
        if self.ring is not None:
            self.ring.clear(epoch)
        self._go(State.JOINING, reason, actions)

    def _to_snapshot(self, reason: str, now_ns: int, actions: list[Action]) -> None:
        self._silent = False
        self._go(State.SNAPSHOT, reason, actions)
        if self.asking.want is not Want.SNAPSHOT:
            self._ask_soon(Want.SNAPSHOT, now_ns, actions)

    def _settle(self, now_ns: int, actions: list[Action]) -> None:
        if self.ledger.open:
            actions.extend(GapRepaired(gap) for gap in self.ledger.settle(now_ns))

    def _go(self, state: State, reason: str, actions: list[Action]) -> None:
        if state is not self.state:
            actions.append(StateChanged(self.state, state, reason))
            self.state = state

    # Asking

    def _ask_soon(self, want: Want, now_ns: int, actions: list[Action]) -> None:
        """Ask for something else than before; for a range once another line had the time to bring it."""
        several = want is Want.RANGE and self.lines is not None and self.lines.up(now_ns, self.limits.silence_ns) > 1
        self.asking.soon(want, now_ns, self.limits.reorder_ns if several else 0, actions)

    def _want_next(self, now_ns: int, actions: list[Action]) -> None:
        """With nothing more urgent on hand: confirm an incarnation, or mend a doubted book."""
        asking = self.asking
        if asking.want is Want.INSTRUMENT and asking.asked is None and not self._doubted:
            asking.want = Want.NOTHING
        if asking.want is not Want.NOTHING or self.state not in _SETTLED:
            return
        if self._foreign:
            self._ask_soon(Want.CONFIRM, now_ns, actions)
        elif len(self._doubted) > self.limits.doubted_max or self.mirror.recorded > RECORDED_MAX:
            self._to_snapshot(f"{len(self._doubted)} books in doubt", now_ns, actions)
        elif self._doubted:
            self._ask_soon(Want.INSTRUMENT, now_ns, actions)

    def _failed(self, reason: str, retry_ns: int, now_ns: int, actions: list[Action]) -> None:
        """Ask again; or give up on a range, and on one book."""
        if not self.asking.failed(retry_ns, now_ns):
            self._to_snapshot(f"{self.asking.tries} tries: {reason}", now_ns, actions)

    def _send(self, now_ns: int, actions: list[Action]) -> None:
        """Ask, if it is time to."""
        self._want_next(now_ns, actions)
        asking = self.asking
        if not asking.is_due(now_ns):
            return
        if asking.want is Want.RANGE:
            hole = self._held.holes[0]
            actions.append(asking.range(self.epoch, hole.first, hole.end - 1, now_ns))
        else:
            instrument = self._doubted[0] if asking.want is Want.INSTRUMENT else 0
            home = asking.want is Want.CONFIRM or self._run_sent_ns != 0 or self._foreign != 0
            actions.append(asking.snapshot(instrument, home, now_ns))


_SETTLED: Final = (State.LIVE, State.STALE, State.ENDED)


def _cut(frame: Frame, first: int, end: int) -> tuple[list[Row], list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows, times and instruments of a part of a frame."""
    low, high = first - frame.header.first_seq, end - frame.header.first_seq
    rows, instruments = frame.rows_from(first)
    rows = rows[: high - low]
    names = {row[1] for row in rows}
    times = [(0, frame.time_of(low)), *((row - low, time_ns) for row, time_ns in frame.times if low < row < high)]
    return rows, times, [(name, sequence) for name, sequence in instruments if name in names]


def _agrees(book: MirrorBook, digest: Digest) -> bool:
    return book.digest(digest.side, digest.low, digest.high) == digest

"""The judgement of a run: evidence in, findings out, and the page or the JSON object that says so.

Nothing is assumed of what could not be seen: a finding holds, or does not, or could not be judged, and then says why.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tools.chaos.plan import ANSWER_FAULTS, LOSSES, MESSAGE_FAULTS
from tools.flow.order_counts import Counted, Executed, TradeSum

HOLDS: Final = "holds"
FAILS: Final = "fails"
UNKNOWN: Final = "not judged"
NOTE: Final = "note"

MARKS: Final = {HOLDS: "✓", FAILS: "✗", UNKNOWN: "?", NOTE: "·"}
ASCII_MARKS: Final = {HOLDS: "ok", FAILS: "NO", UNKNOWN: "? ", NOTE: "- "}
DETAILS_MAX: Final = 16  # lines of detail a finding shows
SPOILT: Final = {"fail": "refused", "slow": "late", "stale": "old ones", "cut": "cut in the middle"}  # by the faults
DAMAGE_MIN: Final = 20  # messages damaged on purpose that must be noticed: fewer may all have been of no account
OUTAGE_S: Final = 1.5  # a shorter one proves nothing about the others


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing judged: `mark` is HOLDS, FAILS, UNKNOWN or NOTE."""

    mark: str
    title: str
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings, in the order in which they are read, and the numbers in them for a program."""

    findings: tuple[Finding, ...]
    figures: dict[str, float | int | None] = field(default_factory=dict)
    day: dict[str, Any] | None = None  # what a trading day went through

    @property
    def holds(self) -> bool:
        return not any(finding.mark == FAILS for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "figures": self.figures,
            "findings": [asdict(finding) for finding in self.findings],
            **({"day": self.day} if self.day is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's life. `epochs` are those it announced, one for each start; `down` if it was killed and stayed so."""

    id: int
    epochs: tuple[int, ...]
    down: bool = False
    killed_at_s: float | None = None
    left: bool = False  # it was told to leave, not killed
    symbols: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"engine-{self.id}"

    @property
    def restarted(self) -> bool:
        return len(self.epochs) > 1


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended when nobody had asked it to, or not as it was asked."""

    name: str
    how: str


@dataclass(frozen=True, slots=True)
class Mirror:
    """One machine's copy of one stream beside its owner's, both at rest. `differences` is empty when they are equal;
    `problem` says why they could not be compared."""

    machine: str
    engine: int
    channel: int
    epoch: int = 0
    last_seq: int = 0
    instruments: int = 0
    orders: int = 0
    differences: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Marked:
    """How a machine marks a stream whose engine is down: its state, and the states of its books."""

    machine: str
    engine: int
    stream: str
    books: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a machine's reader of one stream went through: FeedClient's counters. `gone`: that reader was killed, or
    has left, with whatever it had begun."""

    machine: str
    engine: int
    counters: dict[str, int]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """A time during which a process was killed or paused, and the orders that other engines answered meanwhile."""

    name: str
    how: str
    from_s: float
    to_s: float
    answered_elsewhere: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A machine that joined, left or came back while the others traded: how long until all were in step, what was
    missing then, whose readers had to begin anew, and the orders that others answered from its move until then."""

    name: str
    how: str
    at_s: float
    took_s: float
    missing: tuple[str, ...] = ()
    disturbed: tuple[str, ...] | None = ()  # None: others may have had reasons of their own
    answered_elsewhere: int = 0
    from_s: float = 0.0
    to_s: float = 0.0
    what: str = ""


@dataclass(frozen=True, slots=True)
class Strangers:
    """Readers who came and went in the middle: how many, over how many streams, how many they found equal elsewhere."""

    came: int
    streams: int
    verified: int
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a run leaves behind for its judge."""

    symbols: dict[int, str]  # by instrument
    homes: dict[int, int]  # engine by instrument
    engines: tuple[Engine, ...]
    counted: Counted
    feed: dict[int, TradeSum]  # trades by instrument, as the feed told them
    feed_missed: dict[int, int]  # deltas of each engine's feed that the observer did not see
    trade_ids: dict[int, int]  # trades by instrument, as its book numbered them during the run
    mirrors: tuple[Mirror, ...]
    seen: tuple[Seen, ...]
    seconds: float
    marked: tuple[Marked, ...] = ()
    ended: tuple[Ended, ...] = ()
    proxied: dict[str, dict[str, int]] = field(default_factory=dict)  # what the fault proxy did, line by line
    answers: dict[str, dict[str, int]] = field(default_factory=dict)  # and to calls, fabric node by fabric node
    opening: Counted = field(default_factory=Counted)  # what was counted before the seconds began
    strangers: Strangers | None = None
    outages: tuple[Outage, ...] = ()
    fabrics_down: tuple[tuple[str, float], ...] = ()  # killed and not restarted: name, and when
    moved: tuple[Moved, ...] = ()
    checks: tuple[Finding, ...] = ()  # of replayed flow against recorded books; of a trading day
    day: dict[str, Any] | None = None  # what that day went through, for a program


def judge(evidence: Evidence) -> Verdict:
    """Every finding of a run. Cost: O(machines x engines + instruments)."""
    findings = [
        _answered(evidence),
        _conserved(evidence),
        *_mirrors(evidence),
        *_gaps(evidence),
        *_strangers(evidence),
        *_integrity(evidence),
        *_outages(evidence),
        *_restarts(evidence),
        *_moved(evidence),
        *_down(evidence),
        *_ended(evidence),
        *evidence.checks,
        *_proxied(evidence),
        _rates(evidence),
    ]
    return Verdict(tuple(findings), figures(evidence), evidence.day)


def figures(evidence: Evidence) -> dict[str, float | int | None]:
    """The run in numbers. Rates are of the trading time, latencies in milliseconds, None if there were none."""
    counted, before, seen = evidence.counted, evidence.opening, evidence.seen
    p50, p99 = counted.latencies.quantile(0.5), counted.latencies.quantile(0.99)
    seconds = evidence.seconds or 1.0
    return {
        "orders_sent": counted.sent,
        "orders_answered": counted.answered,
        "orders_per_s": round((counted.answered - before.answered) / seconds, 1),
        "trades": _trades(counted),
        "trades_per_s": round((_trades(counted) - _trades(before)) / seconds, 1),
        "acknowledged_p50_ms": None if p50 is None else round(p50 / 1e6, 3),
        "acknowledged_p99_ms": None if p99 is None else round(p99 / 1e6, 3),
        "mirrors_compared": len(evidence.mirrors),
        "mirrors_equal": sum(not mirror.differences and not mirror.problem for mirror in evidence.mirrors),
        "orders_resting": sum({(m.engine, m.channel): m.orders for m in evidence.mirrors}.values()),
        "gaps": counter(seen, "gaps"),
        "gaps_by_range": counter(seen, "gaps_ranged"),
        "gaps_by_snapshot": counter(seen, "gaps_snapshotted"),
        "gaps_by_late_frames": counter(seen, "gaps_late"),
        "gaps_open": _open_gaps([each for each in seen if not each.gone]),
        "joins": counter(seen, "joins"),
        "later_snapshots": counter(seen, "resnapshots"),
    }


def _answered(evidence: Evidence) -> Finding:
    counted = evidence.counted
    down = {engine.id for engine in evidence.engines if engine.down}
    open_up = {i: n for i, n in counted.waiting.items() if evidence.homes.get(i) not in down}
    open_down = sum(counted.waiting.values()) - sum(open_up.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counted.answers.items(), key=lambda kv: -kv[1]))
    text = f"{counted.sent:,} sent, {counted.answered:,} answered" + (f" ({kinds})" if kinds else "")
    details = [f"{n:,} about {evidence.symbols.get(i, i)} unanswered" for i, n in sorted(open_up.items())]
    if counted.missed:
        details.append(f"{counted.missed:,} execution reports are missing by their numbers")
    if counted.refusals:
        reasons = sorted(counted.refusals.items(), key=lambda kv: -kv[1])
        details.append("refused: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons))
    if open_down:
        details.append(f"{open_down:,} went to engines that are down: what became of them could not be judged")
    if counted.unknown:
        details.append(f"{counted.unknown:,} times the outcome was unknown at first, and asked again under the same id")
    whole = not open_up and not counted.missed and counted.sent > 0
    if not counted.sent:
        details.append("nothing was sent")
    return Finding(HOLDS if whole else FAILS, "every order answered", text, tuple(details))


def _conserved(evidence: Evidence) -> Finding:
    """Buys, sells, makers', takers' and the feed's trades are the same trades, as many as the book numbered."""
    engines = {engine.id: engine for engine in evidence.engines}
    trades = lots = unpublished = 0
    wrong: list[str] = []
    open_points: list[str] = []
    for instrument, symbol in evidence.symbols.items():
        home = engines.get(evidence.homes[instrument])
        if home is None or home.down:
            continue
        executed = evidence.counted.executed.get(instrument, Executed())
        on_feed = evidence.feed.get(instrument, TradeSum())
        trades += executed.buys.count
        lots += executed.buys.quantity
        bought, sold, made, taken = executed.parts()
        if not bought == sold == made == taken:
            names = ("bought", "sold", "makers", "takers")
            sums = zip(names, executed.parts(), strict=True)
            wrong.append(f"{symbol}: " + ", ".join(f"{name} {s.quantity:,} in {s.count:,}" for name, s in sums))
        numbered = evidence.trade_ids.get(instrument)
        if numbered is None:
            open_points.append(f"{symbol}: its trades could not be counted at its engine")
        elif numbered != executed.buys.count:
            wrong.append(f"{symbol}: {numbered:,} trades at its engine, {executed.buys.count:,} reported")
        if on_feed != executed.buys and not (evidence.feed_missed.get(home.id) or home.restarted):
            wrong.append(
                f"{symbol}: {on_feed.quantity:,} in {on_feed.count:,} trades on the feed, "
                f"{executed.buys.quantity:,} in {executed.buys.count:,} reported"
            )
        elif on_feed.count > executed.buys.count:
            wrong.append(f"{symbol}: {on_feed.count:,} trades on the feed, {executed.buys.count:,} reported")
        else:
            unpublished += executed.buys.count - on_feed.count
    if unpublished:
        missed = sum(evidence.feed_missed.values())
        open_points.append(
            f"{of(unpublished, 'trade')} reported, and numbered by the book, but not seen on the feed: they fell into "
            f"the time around a restart ({of(missed, 'delta')} not heard by the observer)"
        )
    text = f"{of(trades, 'trade')}, {of(lots, 'lot')}: bought = sold = on the feed = in the books' trade ids"
    if wrong:
        text = f"{of(trades, 'trade')}, {of(lots, 'lot')} bought; not all agree"
    return Finding(FAILS if wrong else HOLDS, "executed quantity conserved", text, tuple(wrong + open_points))


def _mirrors(evidence: Evidence) -> list[Finding]:
    if not evidence.mirrors:
        return [Finding(UNKNOWN, "mirrors equal", "there was none to compare")]
    equal = [mirror for mirror in evidence.mirrors if not mirror.differences and not mirror.problem]
    streams = {(m.engine, m.channel): m for m in equal}
    books = sum(mirror.instruments for mirror in streams.values())
    orders = sum(mirror.orders for mirror in streams.values())
    machines = len({mirror.machine for mirror in evidence.mirrors})
    details = []
    for mirror in evidence.mirrors:
        where = f"{mirror.machine}, engine-{mirror.engine} channel {mirror.channel}"
        if mirror.problem:
            details.append(f"{where}: {mirror.problem}")
        details += [f"{where}: {difference}" for difference in mirror.differences]
    if not details:
        details = [
            f"engine-{m.engine} at epoch {m.epoch:,}, sequence {m.last_seq:,}: {m.orders:,} orders resting"
            for m in streams.values()
        ]
    text = (
        f"{len(equal)} of {len(evidence.mirrors)} copies on {of(machines, 'machine')}: "
        f"{of(orders, 'order')} in {of(books, 'book')}, each in its place"
    )
    mark = HOLDS if len(equal) == len(evidence.mirrors) else FAILS
    return [Finding(mark, "mirrors equal", text, tuple(details))]


def counter(seen: Sequence[Seen], *names: str) -> int:
    """The sum of these counters over all streams."""
    return sum(each.counters.get(name, 0) for each in seen for name in names)


def _open_gaps(seen: Sequence[Seen]) -> int:
    closed = counter(seen, "gaps_ranged", "gaps_snapshotted", "gaps_late", "gaps_abandoned")
    return counter(seen, "gaps") - closed


def _gaps(evidence: Evidence) -> list[Finding]:
    seen = evidence.seen
    gaps = counter(seen, "gaps")
    parts = [
        (counter(seen, "gaps_ranged"), "by range"),
        (counter(seen, "gaps_snapshotted"), "by snapshot"),
        (counter(seen, "gaps_late"), "by late frames"),
        (counter(seen, "gaps_abandoned"), "given up with their epoch or reader"),
        (_open_gaps([each for each in seen if each.gone]), "open when their reader was killed"),
    ]
    how = ", ".join(f"{count:,} {what}" for count, what in parts if count)
    down = {engine.id for engine in evidence.engines if engine.down}
    judged = [each for each in seen if each.engine not in down and not each.gone]
    still_open = _open_gaps(judged)
    lost = _done_to_messages(evidence, *LOSSES)
    text = "none seen" if not gaps else f"{gaps:,} seen" + (f": {how}" if how else "")
    joins, again = counter(seen, "joins"), counter(seen, "resnapshots")
    covered = of(counter(seen, "covered"), "delta")
    details = [f"{of(joins, 'join')} and {of(again, 'later snapshot')} stand for {covered} of the present epochs"]
    if still_open:
        details.insert(0, f"{still_open:,} not closed")
    if lost and not gaps:
        details.insert(0, f"{of(lost, 'message')} lost and nobody noticed")
    fails = still_open or (lost > 20 and not gaps)
    return [Finding(FAILS if fails else HOLDS, "gaps seen and repaired", text, tuple(details))]


def _strangers(evidence: Evidence) -> list[Finding]:
    strangers = evidence.strangers
    if strangers is None:
        return []
    text = (
        f"{of(strangers.came, 'reader')} came in the middle and left: {strangers.verified:,} of "
        f"{of(strangers.streams, 'stream')} found equal at another machine, order by order at one sequence"
    )
    rest = strangers.streams - strangers.verified - len(strangers.differing)
    details = strangers.differing
    if rest and not details:
        details = (f"{of(rest, 'stream')} could not be compared in time",)
    fails = strangers.differing or (strangers.came > 0 and not strangers.verified)
    return [Finding(FAILS if fails else HOLDS, "strangers agree", text, details)]


def _done_to_messages(evidence: Evidence, *kinds: str) -> int:
    """How many messages the fault proxy hit so, on all lines."""
    return sum(line.get(kind, 0) for line in evidence.proxied.values() for kind in kinds)


def _integrity(evidence: Evidence) -> list[Finding]:
    """Things that must never happen, whatever is lost on the way; and damage done on purpose, which must be noticed."""
    seen = evidence.seen
    never = [
        ("digests_differing", "digests differed from a book said to be valid"),
        ("misfits", "deltas did not fit the book"),
    ]
    made = [
        ("regressions", "times a publisher went back in its sequence", _done_to_messages(evidence, "regress")),
        ("bad_frames", "frames were damaged", _done_to_messages(evidence, "corrupt", "truncate")),
    ]
    wrong = [f"{count:,} {what}" for name, what in never if (count := counter(seen, name))]
    noticed = []
    for name, what, done in made:
        count = counter(seen, name)
        if count and done:
            noticed.append(f"{count:,} {what}, as the faults had it: seen, and nothing was taken from them")
        elif count:
            wrong.append(f"{count:,} {what}")
        elif done > DAMAGE_MIN:
            wrong.append(f"{of(done, 'message')} hit on purpose, and nobody noticed that {what}")
    text = f"{counter(seen, 'digests_equal'):,} compared along the way, {'not all well' if wrong else 'all equal'}"
    return [Finding(FAILS if wrong else HOLDS, "digests agree", text, (*wrong, *noticed))]


def _outages(evidence: Evidence) -> list[Finding]:
    """What stops in one place must not stop the others."""
    if not evidence.outages:
        return []
    details: list[str] = []
    stopped = 0
    for outage in evidence.outages:
        seconds = outage.to_s - outage.from_s
        rate = outage.answered_elsewhere / seconds if seconds > 0 else 0.0
        away = [o.name for o in evidence.outages if o.from_s < outage.to_s and outage.from_s < o.to_s]
        others_up = any(engine.name not in away for engine in evidence.engines)
        stopped += seconds >= OUTAGE_S and others_up and not outage.answered_elsewhere
        details.append(
            f"{outage.name} {outage.how} from {outage.from_s:.1f} to {outage.to_s:.1f} s: meanwhile "
            f"{of(outage.answered_elsewhere, 'order')} answered elsewhere ({rate:,.0f}/s)"
        )
    text = f"through {of(len(evidence.outages), 'outage')}"
    return [Finding(FAILS if stopped else HOLDS, "the others went on", text, tuple(details))]


def _restarts(evidence: Evidence) -> list[Finding]:
    out = []
    for engine in evidence.engines:
        if not engine.restarted or engine.down:
            continue
        rising = all(a < b for a, b in zip(engine.epochs, engine.epochs[1:], strict=False))
        epochs = " then ".join(f"{epoch:,}" for epoch in engine.epochs)
        orders = max((m.orders for m in evidence.mirrors if m.engine == engine.id), default=0)
        text = f"epoch {epochs}; {orders:,} orders in its books now"
        out.append(Finding(HOLDS if rising else FAILS, f"{engine.name} came back", text))
    return out


def _moved(evidence: Evidence) -> list[Finding]:
    """Who joined, who left, who came back: everybody knows in time, and nobody else is disturbed."""
    out = []
    for moved in evidence.moved:
        seconds = moved.to_s - moved.from_s
        text = f"at {moved.at_s:g} s; all in step within {moved.took_s:.1f} s"
        if moved.missing:
            text = f"at {moved.at_s:g} s; not all in step after {moved.took_s:.1f} s"
        stopped = seconds >= OUTAGE_S and not moved.answered_elsewhere
        details = (
            *moved.missing,
            *(moved.disturbed or ()),
            *([moved.what] if moved.what else []),
            f"meanwhile {of(moved.answered_elsewhere, 'order')} answered elsewhere in {seconds:.1f} s"
            + ("" if moved.disturbed != () else ", and no reader of another engine had to begin anew"),
        )
        fails = moved.missing or moved.disturbed or stopped
        out.append(Finding(FAILS if fails else HOLDS, f"{moved.name} {moved.how}", text, details))
    return out


def _down(evidence: Evidence) -> list[Finding]:
    """For an engine that was killed for good: what can be said, and what cannot."""
    out = []
    for engine in evidence.engines:
        if not engine.down:
            continue
        marked = [mark for mark in evidence.marked if mark.engine == engine.id]
        shown_valid = [mark for mark in marked if any(book == "valid" for book in mark.books)]
        how = "left" if engine.left else "killed"
        when = f"{how} at {engine.killed_at_s:g} s" if engine.killed_at_s is not None else "down"
        text = f"{when} and not restarted: {', '.join(engine.symbols) or 'its instruments'} stopped, the others went on"
        details = [
            f"judged: {len(marked) - len(shown_valid)} of {len(marked)} machines mark its books as not current"
            + "".join(f"; {mark.machine} shows them as valid" for mark in shown_valid),
            "not judged: its last answers, its executed quantity, and its books, which nobody can now be asked about",
        ]
        out.append(Finding(FAILS if shown_valid else UNKNOWN, engine.name, text, tuple(details)))
    for name, at_s in evidence.fabrics_down:
        text = f"killed at {at_s:g} s and not restarted: its engine and the other machines went on"
        out.append(Finding(UNKNOWN, name, text, ("not judged: its mirrors, which are gone with it",)))
    return out


def _ended(evidence: Evidence) -> list[Finding]:
    if not evidence.ended:
        return []
    details = tuple(f"{ended.name} {ended.how}" for ended in evidence.ended)
    return [Finding(FAILS, "processes", "not every process ended as it was asked to", details)]


def _proxied(evidence: Evidence) -> list[Finding]:
    if not evidence.proxied:
        return []
    messages = _done_to_messages(evidence, "messages")
    done = {kind: _done_to_messages(evidence, kind) for kind in MESSAGE_FAULTS}
    text = ", ".join(f"{count:,} {MESSAGE_FAULTS[kind].done}" for kind, count in done.items() if count) or "none hit"
    findings = [Finding(NOTE, "faults", f"of {messages:,} messages on the feeds {text}")]
    if evidence.answers:
        done = {kind: _done_to_calls(evidence, kind) for kind in ANSWER_FAULTS}
        text = ", ".join(f"{count:,} {SPOILT[kind]}" for kind, count in done.items() if count) or "none spoilt"
        text = f"of {of(_done_to_calls(evidence, 'snapshots'), 'snapshot')} asked of fabric nodes {text}"
        if kept := _done_to_calls(evidence, "partition"):
            text += f"; {kept:,} of {of(_done_to_calls(evidence, 'calls'), 'call')} kept away by partitions"
        findings.append(Finding(NOTE, "faults of calls", text))
    return findings


def _done_to_calls(evidence: Evidence, kind: str) -> int:
    """How many calls or snapshots the fault proxy hit so, before all fabric nodes."""
    return sum(machine.get(kind, 0) for machine in evidence.answers.values())


def _rates(evidence: Evidence) -> Finding:
    counted, before = evidence.counted, evidence.opening
    rate = (counted.answered - before.answered) / evidence.seconds if evidence.seconds else 0.0
    trades = _trades(counted) - _trades(before)
    text = (
        f"{rate:,.0f} orders/s and {trades / max(evidence.seconds, 1e-9):,.0f} trades/s over {evidence.seconds:.1f} s"
    )
    p50, p99 = counted.latencies.quantile(0.5), counted.latencies.quantile(0.99)
    if p50 is not None and p99 is not None:
        text += f"; acknowledged in {milliseconds(p50)} (p50), {milliseconds(p99)} (p99)"
    return Finding(NOTE, "rates", text)


def _trades(counted: Counted) -> int:
    return sum(executed.buys.count for executed in counted.executed.values())


def of(count: int, what: str, many: str = "") -> str:
    """`1 trade`, `1,329 trades`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {many or what + 's'}"


def milliseconds(ns: int) -> str:
    """Three figures: what a person compares."""
    ms = ns / 1e6
    return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:,.0f} ms"


def page(verdict: Verdict, width: int = 100, ascii_only: bool = False) -> list[tuple[str, str]]:
    """The verdict as lines of (style, text) to print; the styles are the findings' marks, `dim`, and `head`."""
    marks = ASCII_MARKS if ascii_only else MARKS
    lines = [
        ("head" if verdict.holds else FAILS, "The verdict holds." if verdict.holds else "The verdict does not hold.")
    ]
    room = max((len(finding.title) for finding in verdict.findings), default=0)
    for finding in verdict.findings:
        mark = f" {marks[finding.mark]} {finding.title:<{room}}  "
        lines += _wrapped(finding.mark, mark, finding.text, width)
        details = finding.details[:DETAILS_MAX]
        for detail in details:
            lines += _wrapped("dim", " " * (len(mark)), detail, width)
        if len(finding.details) > len(details):
            lines.append(("dim", " " * len(mark) + f"and {len(finding.details) - len(details):,} more"))
    return lines


def _wrapped(style: str, start: str, text: str, width: int) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    room = max(width - len(start), 30)
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > room:
            lines.append((style, start + line))
            start, line = " " * len(start), word
        else:
            line = f"{line} {word}" if line else word
    lines.append((style, start + line))
    return lines

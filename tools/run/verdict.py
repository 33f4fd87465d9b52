"""The judgement of a run: evidence in, findings out.

Nothing is assumed of what could not be seen: a finding holds, or does not, or could not be judged, and then says why.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tools.chaos.plan import ANSWER_FAULTS, LOSSES, MESSAGE_FAULTS
from tools.findings import FAILS, HOLDS, NOTE, UNKNOWN, Finding, of
from tools.flow.order_counts import Counted, Executed, TradeSum
from tools.run.audit.breaches import BOOKS, CROSSED, KEPT, LIFE, POSITIONS, PRIORITY, RULES, SIDES
from tools.run.evidence import Evidence, Outage, Seen, counter

DAMAGE_MIN: Final = 20  # messages damaged on purpose that must be noticed: fewer may all have been of no account
OUTAGE_S: Final = 1.5  # a shorter one proves nothing about the others
RATES_S: Final = 0.5  # a shorter time has no rates
SLOW_NS: Final = 1_000_000_000  # an answer that takes longer needs a reason


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


def judge(evidence: Evidence) -> Verdict:
    """Every finding of a run. Cost: O(machines x engines + instruments)."""
    findings = [
        _answered(evidence),
        _conserved(evidence),
        *_audited(evidence),
        *_mirrors(evidence),
        *_gaps(evidence),
        *_late_joiners(evidence),
        *_integrity(evidence),
        *_outages(evidence),
        *_restarts(evidence),
        *_moved(evidence),
        *_down(evidence),
        *_ended(evidence),
        *evidence.checks,
        *_others(evidence),
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
    if counted.altered:
        details.append(f"{of(counted.altered, 'order')} entered otherwise than they were sent")
    if counted.outlived:
        details.append(f"{of(counted.outlived, 'trade')} of orders that were to have expired before")
    if counted.refusals:
        reasons = sorted(counted.refusals.items(), key=lambda kv: -kv[1])
        details.append("refused: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons))
    if open_down:
        details.append(f"{open_down:,} went to engines that are down: what became of them could not be judged")
    if counted.unknown:
        details.append(f"{counted.unknown:,} times the outcome was unknown at first, and asked again under the same id")
    wrong = open_up or counted.missed or counted.altered or counted.outlived
    whole = not wrong and counted.sent > 0
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
        if home.id in evidence.audited.unasked:
            open_points.append(f"{symbol}: not all who traded at {home.name} could be asked")
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
            f"the time around a restart ({of(missed, 'delta')} not heard by the judge)"
        )
    text = f"{of(trades, 'trade')}, {of(lots, 'lot')}: bought = sold = on the feed = in the books' trade ids"
    if wrong:
        text = f"{of(trades, 'trade')}, {of(lots, 'lot')} bought; not all agree"
    return Finding(FAILS if wrong else HOLDS, "executed quantity conserved", text, tuple(wrong + open_points))


def _audited(evidence: Evidence) -> list[Finding]:
    """What the feeds and the reports say of the matching, whoever did it."""
    audited = evidence.audited
    priority = f"{of(audited.executions, 'resting order')} met at the best price, each in its turn"
    if audited.by_size:
        priority += f" or by its size ({of(audited.by_size, 'level')} shared out)"
    told = {
        CROSSED: f"{of(audited.events, 'event')} on the feeds, the bid below the offer after each",
        PRIORITY: priority,
        LIFE: f"{of(audited.orders, 'order')} in {of(audited.reports, 'report')}: entered = open + traded + canceled, "
        "and nothing behind an end",
        SIDES: f"{of(audited.trades, 'trade')} on the feeds: one buyer and one seller each, of one price and quantity",
        POSITIONS: "all accounts together hold nothing, in every instrument",
        BOOKS: f"{of(audited.resting, 'order')} on the feeds' books: live by their reports and at their engines",
        KEPT: f"{of(audited.received, 'report')} received while it ran are in the drop copies as they were",
    }
    out = []
    assert audited.breaches.counts.keys() <= set(RULES), "a rule that is not judged was broken"
    for rule in RULES:
        count = audited.breaches.counts.get(rule, 0)
        details = tuple(audited.breaches.texts.get(rule, ()))
        if count:
            more = (f"and {count - len(details):,} more",) if count > len(details) else ()
            out.append(Finding(FAILS, rule, f"{of(count, 'time')} not so", (*details, *more)))
        elif rule == POSITIONS and not audited.whole:
            out.append(Finding(UNKNOWN, rule, "the first reports are no longer kept"))
        else:
            out.append(Finding(HOLDS, rule, told[rule], audited.unheard if rule == SIDES else ()))
    return out


def _others(evidence: Evidence) -> list[Finding]:
    """Accounts that are none of the run's own: whoever likes may trade there."""
    if not evidence.others:
        return []
    details = tuple(
        f"account {other.account}: {of(other.orders, 'order')}, {of(other.trades, 'trade')} of {of(other.lots, 'lot')}"
        for other in evidence.others
    )
    return [Finding(NOTE, "others", f"{of(len(details), 'account')} beside the run's own traded there", details)]


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


def _late_joiners(evidence: Evidence) -> list[Finding]:
    joiners = evidence.late_joiners
    if joiners is None:
        return []
    text = (
        f"{of(joiners.came, 'reader')} came in the middle and left: {joiners.verified:,} of "
        f"{of(joiners.streams, 'stream')} found equal at another machine, order by order at one sequence"
    )
    rest = joiners.streams - joiners.verified - len(joiners.differing)
    details = joiners.differing
    if rest and not details:
        details = (f"{of(rest, 'stream')} could not be compared in time",)
    fails = joiners.differing or (joiners.came > 0 and not joiners.verified)
    return [Finding(FAILS if fails else HOLDS, "late joiners agree", text, details)]


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
        rate = f" ({outage.answered_elsewhere / seconds:,.0f}/s)" if seconds >= RATES_S else ""
        away = [o.name for o in evidence.outages if o.from_s < outage.to_s and outage.from_s < o.to_s]
        others_up = any(engine.name not in away for engine in evidence.engines)
        stopped += seconds >= OUTAGE_S and others_up and not outage.answered_elsewhere
        details.append(
            f"{_in_words(outage)}: meanwhile {of(outage.answered_elsewhere, 'order')} answered elsewhere{rate}"
        )
    text = f"through {of(len(evidence.outages), 'outage')}"
    return [Finding(FAILS if stopped else HOLDS, "the others went on", text, tuple(details))]


def _in_words(outage: Outage) -> str:
    """`engine-2 was killed at 6.0 s, started again at 9.0 s and served at 9.8 s`."""
    if outage.again_s is None:
        return f"{outage.name} was {outage.how} from {outage.from_s:.1f} to {outage.to_s:.1f} s"
    again = f"started again at {outage.again_s:.1f} s and served at {outage.to_s:.1f} s"
    return f"{outage.name} was {outage.how} at {outage.from_s:.1f} s, {again}"


def _restarts(evidence: Evidence) -> list[Finding]:
    """Engines that live again: under a higher epoch each time, and in step with all."""
    out = []
    for engine in evidence.engines:
        if not engine.restarted or engine.down:
            continue
        rising = all(a < b for a, b in zip(engine.epochs, engine.epochs[1:], strict=False))
        epochs = " then ".join(f"{epoch:,}" for epoch in engine.epochs)
        orders = max((m.orders for m in evidence.mirrors if m.engine == engine.id), default=0)
        text = f"epoch {epochs} (the position in its log where it began); {orders:,} orders in its books now"
        out.append(Finding(HOLDS if rising else FAILS, f"{engine.name} came back", text))
    return out


def _moved(evidence: Evidence) -> list[Finding]:
    """Who joined, who left, who came back: everybody knows in time, and nobody else is disturbed."""
    out = []
    for moved in evidence.moved:
        seconds = moved.to_s - moved.from_s
        if moved.missing:
            text = f"it {moved.began}; not all in step after {moved.took_s:.1f} s"
        else:
            text = f"it {moved.began}; all in step within {moved.took_s:.1f} s"
        stopped = seconds >= OUTAGE_S and not moved.answered_elsewhere
        others = "" if moved.disturbed != () else "no reader of another engine had to begin anew"
        answered = f"meanwhile {of(moved.answered_elsewhere, 'order')} answered elsewhere in {seconds:.1f} s"
        if not moved.outage:
            others = f"{answered}, and {others}" if others else answered
        details = (
            *moved.missing,
            *(moved.disturbed or ()),
            *([moved.what] if moved.what else []),
            *([others] if others else []),
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
        text = (
            ", ".join(f"{count:,} {ANSWER_FAULTS[kind].done}" for kind, count in done.items() if count) or "none spoilt"
        )
        text = f"of {of(_done_to_calls(evidence, 'snapshots'), 'snapshot')} asked of fabric nodes {text}"
        if kept := _done_to_calls(evidence, "partition"):
            text += f"; {kept:,} of {of(_done_to_calls(evidence, 'calls'), 'call')} kept away by partitions"
        findings.append(Finding(NOTE, "faults of calls", text))
    return findings


def _done_to_calls(evidence: Evidence, kind: str) -> int:
    """How many calls or snapshots the fault proxy hit so, before all fabric nodes."""
    return sum(machine.get(kind, 0) for machine in evidence.answers.values())


def _rates(evidence: Evidence) -> Finding:
    counted, before, seconds = evidence.counted, evidence.opening, evidence.seconds
    orders, trades = counted.answered - before.answered, _trades(counted) - _trades(before)
    if seconds < RATES_S:
        text = f"{of(orders, 'order')} and {of(trades, 'trade')}: too short a time for rates"
    else:
        text = f"{orders / seconds:,.0f} orders/s and {trades / seconds:,.0f} trades/s over {seconds:.1f} s"
    p50, p99 = counted.latencies.quantile(0.5), counted.latencies.quantile(0.99)
    details: tuple[str, ...] = ()
    if before.answered:  # or whoever divides what was sent by the seconds finds another rate
        details += (f"beside {of(before.answered, 'order')} answered before these seconds, in the opening",)
    if p50 is not None and p99 is not None:
        text += f"; acknowledged in {milliseconds(p50)} (p50), {milliseconds(p99)} (p99)"
        away = [o for o in evidence.outages if o.name.startswith("engine")]
        if p99 >= SLOW_NS and away:
            names = ", ".join(dict.fromkeys(outage.name for outage in away))
            details += (f"the slowest waited for {names} to come back, and count with all that time",)
    return Finding(NOTE, "rates", text, details)


def _trades(counted: Counted) -> int:
    return sum(executed.buys.count for executed in counted.executed.values())


def milliseconds(ns: int) -> str:
    """Three figures: what a person compares."""
    ms = ns / 1e6
    return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:,.0f} ms"

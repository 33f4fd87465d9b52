"""The judgement of a trading day: what every instrument went through, on the feed and in the mirrors, and what is left.

What the judge did not hear, or what pairs of orders took out of an auction under way, it does not judge, and says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from proto.columns import BAND, TIF_DAY, TIF_GTC, TIF_GTD, TIF_SHIFT
from proto.feed import AUCTION, CLOSED, OPEN, STATE_NAMES, Statistics
from proto.instrument import Instrument
from tools.findings import FAILS, HOLDS, UNKNOWN, Finding, of
from tools.ladder import price_text, quantity_text
from tools.run.day.plan import EXPECTED, Day
from tools.run.day.watch import InstrumentDay, Phase, Uncross
from tools.run.drop_copies import OpenOrder

SEEN_S: Final = 1.5  # a phase of that length cannot hide between two looks at a machine in peace


@dataclass(frozen=True, slots=True)
class DayEvidence:
    """All that a trading day leaves behind. Nothing of `away`, the instruments of engines that are down, is judged.

    began_ns    the venue's time at 0 s of the run
    cut_short   it was ended before its plan
    troubled    there were faults: a machine may have been blind for a while
    looks       by machine and instrument: the trading states that its mirror was seen in, each once in a row
    live        orders of the traders' accounts, as the engines say
    lasting     how many of each account are not good till a time, as its own reports say; None: they do not say all
    unasked     orders that nobody answered about: `at engine-2`
    present     the machines that were asked in the end, too
    patience    how many times as long as on a quiet machine things may take
    """

    day: Day
    instruments: tuple[Instrument, ...]
    watched: Mapping[int, InstrumentDay]
    began_ns: int
    looks: Mapping[tuple[str, int], Sequence[int]]
    live: Sequence[OpenOrder] = ()
    lasting: Mapping[int, int] | None = None
    present: frozenset[str] = frozenset()
    unasked: Sequence[str] = ()
    away: frozenset[int] = frozenset()
    cut_short: bool = False
    troubled: bool = False
    patience: float = 1.0

    def judged(self) -> Iterator[tuple[Instrument, InstrumentDay]]:
        return ((i, self.watched[i.id]) for i in self.instruments if i.id not in self.away)

    def at(self, time_ns: int) -> str:
        return f"{(time_ns - self.began_ns) / 1e9:.1f} s"


def judge_day(evidence: DayEvidence) -> tuple[Finding, ...]:
    """Every finding of a day. Cost: O(instruments x machines + what happened)."""
    return (_phases(evidence), _uncrosses(evidence), _halts(evidence), _close(evidence), _statistics(evidence))


# The phases


def without_halts(phases: Sequence[Phase]) -> list[Phase]:
    """The phases without the auctions that a band began, and the opening after each; one that lasted to the close was
    the closing auction."""
    out: list[Phase] = []
    for phase in phases:
        if out and out[-1].reason == BAND and phase.state == OPEN:
            out.pop()
        else:
            out.append(phase)
    return out


def in_order(seen: Sequence[int], told: Sequence[int]) -> bool:
    """Whether `seen` is `told` with some left out."""
    rest = iter(told)
    return all(state in rest for state in seen)


def _phases(evidence: DayEvidence) -> Finding:
    wrong: list[str] = []
    open_points: list[str] = []
    whole = 0
    for instrument, watched in evidence.judged():
        states = [phase.state for phase in without_halts(watched.phases)]
        names = ", ".join(STATE_NAMES[state] for state in states)
        if tuple(states) == EXPECTED:
            whole += 1
        elif evidence.cut_short and in_order(states, EXPECTED):
            open_points.append(f"{instrument.symbol} got as far as {names}")
        elif watched.doubted and in_order(states, EXPECTED):
            open_points.append(f"{instrument.symbol}: heard {names}; the rest fell into a restart of its engine")
        else:
            wrong.append(f"{instrument.symbol} went through {names}")
        wrong += _mirrored(evidence, instrument, watched)
    machines = len({machine for machine, _ in evidence.looks})
    names = ", ".join(STATE_NAMES[state] for state in EXPECTED)
    count = len(evidence.instruments) - len(evidence.away)
    text = f"{whole} of {of(count, 'instrument')} went through {names}, as mirrors on {of(machines, 'machine')} showed"
    mark = FAILS if wrong else HOLDS if whole == count and count else UNKNOWN
    return Finding(mark, "phases of the day", text, (*wrong, *open_points))


def _mirrored(evidence: DayEvidence, instrument: Instrument, watched: InstrumentDay) -> list[str]:
    """What a mirror showed that the feed did not say, or did not show though it had the time."""
    wrong = []
    told = [phase.state for phase in watched.phases]
    ends = [*(phase.time_ns for phase in watched.phases[1:]), None]
    long = [
        phase.state
        for phase, end_ns in zip(watched.phases, ends, strict=True)
        if end_ns is None or end_ns - max(phase.time_ns, evidence.began_ns) > SEEN_S * evidence.patience * 1e9
    ]
    for (machine, id), looks in evidence.looks.items():
        if id != instrument.id:
            continue
        names = ", ".join(STATE_NAMES[state] for state in looks)
        if not in_order(looks, told) and not watched.doubted:
            wrong.append(f"{machine} showed {instrument.symbol} in {names}, which is not what its feed told")
        elif not evidence.troubled and not in_order(long, looks):
            wrong.append(f"{machine} showed {instrument.symbol} only in {names}")
        elif machine in evidence.present and looks and told and looks[-1] != told[-1]:
            wrong.append(f"{machine} shows {instrument.symbol} as {STATE_NAMES[looks[-1]]} in the end")
    return wrong


# The auctions


def amiss(uncross: Uncross) -> str:
    """What is wrong with an uncross, or nothing."""
    indicated, prices = uncross.indicated, uncross.prices
    if not prices:
        return "did not trade what was indicated"
    if indicated is not None and prices[0] != indicated.price:
        return f"traded at {prices[0]:,} ticks, {indicated.price:,} indicated"
    if uncross.crossed:
        return "left orders that could still trade"
    if uncross.withdrawn:  # a pair's other half went with it: less than was indicated, perhaps a second price
        return ""
    if len(prices) > 1:
        return f"traded at {len(prices)} prices: " + ", ".join(f"{price:,}" for price in prices)
    if indicated is not None and uncross.volume != indicated.volume:
        return f"traded {of(uncross.volume, 'lot')}, {indicated.volume:,} indicated"
    if uncross.visible is not None and uncross.volume < uncross.visible:
        return f"traded {of(uncross.volume, 'lot')}, {uncross.visible:,} would have at another price"
    return ""


def _uncrosses(evidence: DayEvidence) -> Finding:
    wrong: list[str] = []
    lines: list[tuple[int, str]] = []
    in_part = unpublished = 0
    for instrument, watched in evidence.judged():
        for uncross in watched.uncrosses:
            bad = amiss(uncross)
            said = f"{evidence.at(uncross.time_ns)}  {uncross_in_words(instrument, uncross)}"
            if bad:
                wrong.append(f"{said}: {bad}")
            else:
                lines.append((uncross.time_ns, said))
            in_part += bool(uncross.withdrawn)
            unpublished += uncross.indicated is None or uncross.visible is None
    count = of(len(lines), "uncross", "uncrosses")
    text = f"{count}, each at the one price that was indicated, and no other would have traded more"
    if in_part:
        lines.append((1 << 63, f"{in_part} of them canceled other halves of pairs on the way: not judged by volume"))
    if unpublished:
        lines.append((1 << 63, f"{unpublished} of them came after a restart: judged only by what was heard since"))
    told = tuple(line for _, line in sorted(lines))
    if wrong:
        return Finding(FAILS, "auctions", f"{len(wrong)} of {len(told) + len(wrong)} went wrong", (*wrong, *told))
    return Finding(HOLDS if lines else UNKNOWN, "auctions", text if lines else "none was heard", told)


def uncross_in_words(instrument: Instrument, uncross: Uncross) -> str:
    """`ALFA opens with 1,234 at 152.40`."""
    how = "closes" if uncross.state == CLOSED else "opens"
    price = price_text(uncross.prices[0], instrument.tick_size) if uncross.prices else "no price"
    return f"{instrument.symbol} {how} with {quantity_text(uncross.volume, instrument.lot_size)} at {price}"


# The halts


def _halts(evidence: DayEvidence) -> Finding:
    shocked = next(instrument for instrument in evidence.instruments if instrument.id == evidence.day.shocked)
    jump = price_text(abs(evidence.day.jump), shocked.tick_size)
    way = "up" if evidence.day.jump > 0 else "down"
    text = f"{shocked.symbol} jumped {way} by {jump} at {evidence.day.shock_s:.1f} s"
    wrong: list[str] = []
    lines: list[str] = []
    halted = False
    for instrument, watched in evidence.judged():
        following = [*watched.phases[1:], None]
        for phase, after in zip(watched.phases, following, strict=True):
            if phase.reason != BAND or phase.state != AUCTION:
                continue
            halted = halted or instrument.id == shocked.id
            line = f"{evidence.at(phase.time_ns)}  {instrument.symbol} halted by its band"
            if after is None:
                (lines if evidence.cut_short else wrong).append(f"{line} and never opened again")
            else:
                lines.append(f"{line}; {after.name} again from {evidence.at(after.time_ns)}")
    if halted and not wrong:
        return Finding(HOLDS, "volatility halt", f"{text}: the venue halted it, and an auction opened it", tuple(lines))
    if not halted and evidence.cut_short:
        return Finding(UNKNOWN, "volatility halt", "the day was ended before it", (*wrong, *lines))
    if not halted and (shocked.id in evidence.away or evidence.watched[shocked.id].doubted):
        return Finding(UNKNOWN, "volatility halt", f"{text}: no halt was heard", (*wrong, *lines))
    return Finding(FAILS, "volatility halt", text if halted else f"{text} and was not halted", (*wrong, *lines))


# The close


def _close(evidence: DayEvidence) -> Finding:
    if evidence.cut_short:
        return Finding(UNKNOWN, "the close", "the day was ended before it")
    if not any(evidence.judged()):
        return Finding(UNKNOWN, "the close", "nobody is left to be asked about it")
    left = [order for order in evidence.live if order.force == TIF_DAY >> TIF_SHIFT]
    carried = sum(order.force == TIF_GTC >> TIF_SHIFT for order in evidence.live)
    others = len(evidence.live) - len(left) - carried
    wrong = [f"account {o.account}: day order {o.client_order_id:,} on {o.symbol} is live" for o in left]
    if not carried and not evidence.unasked:
        wrong.append("no order that is good till canceled is left")
    counts: dict[int, int] = {}
    for order in evidence.live:
        counts[order.account] = counts.get(order.account, 0) + (order.force != TIF_GTD >> TIF_SHIFT)
    if evidence.lasting is not None and not evidence.unasked:
        wrong += [
            f"account {account}: {of(counts.get(account, 0), 'order')} live at the engines, {known:,} by its reports"
            for account, known in evidence.lasting.items()
            if counts.get(account, 0) != known
        ]
    days = of(len(left), "day order")
    text = f"{days} live; {carried:,} good till canceled and {others:,} good till a time carried over"
    open_points = [f"not judged: the orders {whose}, about which nobody answered" for whose in evidence.unasked]
    return Finding(FAILS if wrong else HOLDS, "the close", text, (*wrong, *open_points))


# The statistics


def _statistics(evidence: DayEvidence) -> Finding:
    wrong: list[str] = []
    lines: list[str] = []
    judged = unheard = 0
    for instrument, watched in evidence.judged():
        for session in watched.sessions:
            if not session.whole:
                unheard += 1
                continue
            judged += 1
            if session.said != session.added:
                wrong.append(
                    f"{evidence.at(session.time_ns)}  {instrument.symbol}: {session.said} told, "
                    f"{session.added} by the trades heard"
                )
        closing = closing_of(watched)
        if closing is not None:
            lines.append(statistics_in_words(instrument, closing))
        if not evidence.cut_short and not (watched.sessions and watched.sessions[-1].rolled) and not watched.doubted:
            wrong.append(f"{instrument.symbol}: its day was not rolled")
    text = f"{judged:,} told on the feed, each equal to what the trades on it come to"
    if unheard:
        lines.append(f"{unheard:,} more not judged: trades fell into the time around a restart")
    mark = FAILS if wrong else HOLDS if judged else UNKNOWN
    return Finding(mark, "statistics", text if judged else "none to judge", (*wrong, *lines))


def closing_of(watched: InstrumentDay) -> Statistics | None:
    """The last statistics before the roll."""
    said = [session.said for session in watched.sessions if not session.rolled]
    return said[-1] if said and watched.state == CLOSED else None


def vwap(instrument: Instrument, statistics: Statistics) -> Decimal | None:
    """The volume-weighted average price; None without a trade."""
    if not statistics.volume:
        return None
    exact = Decimal(statistics.turnover) / statistics.volume * instrument.tick_size
    return exact.quantize(instrument.tick_size / 10)


def statistics_row(instrument: Instrument, s: Statistics) -> tuple[str, ...]:
    """Symbol, open, high, low, last, volume, trades and VWAP as text; `-` for a price of nothing."""
    prices = tuple(price_text(price, instrument.tick_size) if s.trades else "-" for price in s[:4])
    average = vwap(instrument, s)
    volume = quantity_text(s.volume, instrument.lot_size)
    return (instrument.symbol, *prices, volume, f"{s.trades:,}", "-" if average is None else f"{average:f}")


def statistics_in_words(instrument: Instrument, s: Statistics) -> str:
    if not s.trades:
        return f"{instrument.symbol} did not trade"
    symbol, first, high, low, last, volume, _, average = statistics_row(instrument, s)
    prices = f"open {first}, high {high}, low {low}, last {last}"
    return f"{symbol}: {prices}, volume {volume} in {of(s.trades, 'trade')}, VWAP {average}"


# What happened, one by one


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a day that people look out for: `what` is uncross or halt."""

    time_ns: int
    instrument: Instrument
    what: str
    text: str
    fields: dict[str, str | int]

    def to_json(self, began_ns: int) -> dict[str, Any]:
        at_s = round((self.time_ns - began_ns) / 1e9, 3)
        return {"at_s": at_s, "symbol": self.instrument.symbol, "what": self.what, **self.fields}


def happened(instrument: Instrument, watched: InstrumentDay) -> list[Happened]:
    """The uncrosses and halts of an instrument so far, in order; a later call gives these first, and then more."""
    out = []
    for uncross in watched.uncrosses:
        if not uncross.prices:
            continue
        fields: dict[str, str | int] = {
            "state": STATE_NAMES[uncross.state],
            "price": price_text(uncross.prices[0], instrument.tick_size),
            "volume": quantity_text(uncross.volume, instrument.lot_size).replace(",", ""),
            "trades": uncross.trades,
        }
        text = uncross_in_words(instrument, uncross)
        out.append(Happened(uncross.time_ns, instrument, "uncross", text, fields))
    for phase in watched.phases:
        if phase.reason == BAND and phase.state == AUCTION:
            text = f"{instrument.symbol} halted by its band: auction"
            out.append(Happened(phase.time_ns, instrument, "halt", text, {}))
    return sorted(out, key=lambda each: each.time_ns)


def day_to_json(evidence: DayEvidence) -> dict[str, Any]:
    """The day for a program: its phases, uncrosses, halts and statistics, instrument by instrument."""
    days = [(instrument, evidence.watched[instrument.id]) for instrument in evidence.instruments]
    events = sorted((event for each in days for event in happened(*each)), key=lambda event: event.time_ns)
    statistics: dict[str, dict[str, Any]] = {}
    for instrument, watched in days:
        closing = closing_of(watched)
        if closing is not None:
            average = vwap(instrument, closing)
            prices = {n: str(p * instrument.tick_size) for n, p in zip(closing._fields, closing[:4], strict=False)}
            statistics[instrument.symbol] = {
                **prices,
                "volume": str(closing.volume * instrument.lot_size),
                "trades": closing.trades,
                "vwap": None if average is None else str(average),
            }
    return {
        "phases": {
            i.symbol: [
                {"at_s": round((phase.time_ns - evidence.began_ns) / 1e9, 3), "state": phase.name} for phase in w.phases
            ]
            for i, w in days
        },
        "events": [event.to_json(evidence.began_ns) for event in events],
        "statistics": statistics,
    }

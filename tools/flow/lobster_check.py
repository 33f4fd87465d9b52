"""What a venue did with LOBSTER's orders, judged against what Nasdaq did with them.

`Checker` is told the execution reports and the book after each event. A row of the book file is judged where the event
that it ends is over: at each price that was in view before the event as well as after, to ten levels. What only then
came into view nobody could know; it is taken over (tools.lobster) and judged from the next row on.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proto.columns import ACCEPTED, CANCELED, MAKER, NEW, REFUSED, REPLACED, TRADED, ReportRow
from proto.orders_pb2 import Reason
from tools.flow.lobster import NAMELESS, Fill, FlowStep, Levels, is_taker, merged

LEVELS_JUDGED: Final = 10
SHOWN_MAX: Final = 10  # differences in a summary


class Difference(NamedTuple):
    """Where the venue and Nasdaq went apart: the event's last `row`, the `cause` in words.

    It is `explained` when the file itself is not in price-time priority there, so that no venue could agree, and ours
    did what price and time say. The plan puts that right behind the row (tools.flow.lobster): nothing follows from it.
    """

    row: int
    cause: str
    explained: bool = False


@dataclass(slots=True)
class FlowCheck:
    """What the checker found.

    `rows_agree` of the `rows` that end an event agree, to ten levels, at every price that was in view before the event
    as well; `rows_identical` are alike at ten levels without that proviso. `takers_agree` of the aggressive orders had
    just the fills they had on Nasdaq. Every difference is listed: `taker_differences`, `row_differences`, and what else
    the venue did that Nasdaq did not (`surprises`). `unanswered` commands have no report that says what became of them,
    `unjudged` steps no book.
    """

    rows: int = 0
    rows_agree: int = 0
    rows_identical: int = 0
    takers: int = 0
    takers_agree: int = 0
    unanswered: int = 0
    unjudged: int = 0
    taker_differences: list[Difference] = field(default_factory=list)
    row_differences: list[Difference] = field(default_factory=list)
    surprises: list[Difference] = field(default_factory=list)

    def holds(self) -> bool:
        """Whether all was judged, and whatever differs is the file's own doing."""
        return not (
            self.unanswered or self.unjudged or any(not difference.explained for difference in self.differences())
        )

    def differences(self) -> list[Difference]:
        """All of them, by row, those that are not explained first."""
        named = (
            ("aggressive order", self.taker_differences), ("book", self.row_differences), ("surprise", self.surprises),
        )  # fmt: skip
        every = [one._replace(cause=f"{what}: {one.cause}") for what, differences in named for one in differences]
        return sorted(every, key=lambda one: (one.explained, one.row))


class Checker:
    """Judges a venue by what it says: its execution reports and, after each of its events, its book.

    Reports and books may come interleaved in any way, each kind in its own order. Of each step's commands, the reports
    tell which had an effect (not one that was refused, nor an IOC order that met nothing), and so how many events there
    are; nobody else may trade on the instrument.

        checker = Checker(steps)
        checker.reported(row)            # each report of the account, in order
        checker.event(bids, asks)        # the book after each event: ten levels at least, or all there are
        checker.verdict()
    """

    def __init__(self, steps: Sequence[FlowStep]) -> None:
        self._steps = steps
        self._verdict = FlowCheck()
        self._books: deque[tuple[Levels, Levels]] = deque()
        self._book: tuple[Levels, Levels] = ((), ())
        self._judged = 0  # steps whose book has been judged
        self._passed = 0  # steps whose `after` is over, too
        self._undecided: dict[int, tuple[int, bool]] = {}  # command -> its step, whether before the book
        self._waiting = [[len(step.commands), len(step.after)] for step in steps]
        self._effects = [[0, 0] for _ in steps]
        self._takers: set[int] = set()
        self._entered: dict[int, int] = {}  # order -> row
        self._names: dict[int, int] = {}  # order that entered anew -> its id in the file
        self._fills: dict[int, list[tuple[int, int, int]]] = {}  # taker -> trade id, size, price
        self._makers: dict[int, int] = {}  # trade id -> resting order
        self._refused: dict[int, list[tuple[int, int]]] = {}  # index of the step -> orders concerned, reasons
        for i, step in enumerate(steps):
            self._undecided.update((command.client_order_id, (i, True)) for command in step.commands)
            self._undecided.update((command.client_order_id, (i, False)) for command in step.after)
            self._takers.update(command.client_order_id for command in step.commands if is_taker(command))
            self._entered.update(
                (command.client_order_id, step.row) for command in (*step.commands, *step.after) if command.op == NEW
            )
            self._names.update(step.again)

    def reported(self, report: ReportRow) -> None:
        """Take in the account's next report."""
        if report.kind == TRADED:
            if report.flags & MAKER:
                self._makers[report.trade_id] = report.client_order_id
                return
            fills = self._fills.setdefault(report.client_order_id, [])
            fills.append((report.trade_id, report.quantity, report.price))
            if report.open == 0:
                self._decide(report.client_order_id, True)
        elif report.kind == CANCELED:
            order = report.command or report.client_order_id
            self._decide(order, bool(report.command) or order in self._fills)
        elif report.kind == ACCEPTED:
            if report.client_order_id not in self._takers:
                self._decide(report.client_order_id, True)
        elif report.kind == REPLACED:
            self._decide(report.command, True)
        elif report.kind == REFUSED:
            place = self._undecided.get(report.command)
            if place is not None:
                self._refused.setdefault(place[0], []).append((report.client_order_id, report.reason))
            self._decide(report.command, False)

    def event(self, bids: Levels, asks: Levels) -> None:
        """Take in the book after the venue's next event, best levels first."""
        self._books.append((bids, asks))
        self._judge()

    def verdict(self) -> FlowCheck:
        """What was found so far; call it once, at the end."""
        verdict = self._verdict
        verdict.unanswered = len(self._undecided)
        verdict.unjudged = sum(1 for step in self._steps[self._judged :] if step.book is not None)
        for i, step in enumerate(self._steps):
            for command in (*step.commands, *step.after):
                if is_taker(command):
                    self._judge_taker(step, command.client_order_id)
                elif command.client_order_id in self._fills:
                    self._judge_crossing(step, command.client_order_id)
            verdict.surprises += [
                Difference(step.row, f"order {order_id} is named and rests nowhere", True) for order_id in step.absent
            ]
            for order_id, reason in self._refused.get(i, ()):
                what = f"a command about order {order_id} was refused ({Reason.Name(reason)})"
                verdict.surprises.append(Difference(step.row, what))
        explained = {difference.row for difference in verdict.taker_differences if difference.explained}
        verdict.row_differences = [
            difference._replace(explained=difference.row in explained) for difference in verdict.row_differences
        ]
        return verdict

    def _filled(self, taker: int) -> tuple[Fill, ...]:
        fills = self._fills.get(taker, [])
        return merged(Fill(self._makers.get(trade_id, 0), size, price) for trade_id, size, price in fills)

    def _judge_taker(self, step: FlowStep, taker: int) -> None:
        ours = self._filled(taker)
        self._verdict.takers += 1
        if ours == step.fills:
            self._verdict.takers_agree += 1
        else:
            cause = _taker_difference(self._by_name(ours), self._by_name(step.fills), self._entered)
            self._verdict.taker_differences.append(Difference(step.row, cause, ours == step.here))

    def _by_name(self, fills: Sequence[Fill]) -> list[Fill]:
        return [fill._replace(order_id=self._names.get(fill.order_id, fill.order_id)) for fill in fills]

    def _judge_crossing(self, step: FlowStep, order_id: int) -> None:
        """An order that rested on Nasdaq has traded on its entry."""
        maker = self._filled(order_id)[0].order_id
        whom = f"order {maker}" if maker else "another account"
        what = f"order {order_id} traded on its entry with {whom}; on Nasdaq it rested"
        self._verdict.surprises.append(Difference(step.row, what))

    def _decide(self, command: int, effect: bool) -> None:
        place = self._undecided.pop(command, None)
        if place is None:
            return
        i, before = place
        self._waiting[i][not before] -= 1
        self._effects[i][not before] += effect
        self._judge()

    def _judge(self) -> None:
        """Go as far as reports and books allow."""
        while self._passed < len(self._steps):
            i = self._passed
            if self._judged == i:
                if not self._caught_up(i, 0):
                    return
                self._judge_row(self._steps[i])
                self._judged += 1
            if not self._caught_up(i, 1):
                return
            self._passed += 1

    def _caught_up(self, i: int, part: int) -> bool:
        if self._waiting[i][part] or len(self._books) < self._effects[i][part]:
            return False
        for _ in range(self._effects[i][part]):
            self._book = self._books.popleft()
        return True

    def _judge_row(self, step: FlowStep) -> None:
        if step.book is None:
            return
        bids, asks = self._book
        verdict = self._verdict
        verdict.rows += 1
        verdict.rows_identical += (
            tuple(bids[:LEVELS_JUDGED]) == step.book.bids[:LEVELS_JUDGED]
            and tuple(asks[:LEVELS_JUDGED]) == step.book.asks[:LEVELS_JUDGED]
        )
        wrong = _wrong_level("bid", 1, bids, step.book.bids, step.floors[0]) or _wrong_level(
            "ask", -1, asks, step.book.asks, step.floors[1]
        )
        if wrong:
            verdict.row_differences.append(Difference(step.row, wrong))
        else:
            verdict.rows_agree += 1


def summary(verdict: FlowCheck) -> list[str]:
    """A verdict in lines for a reader: the first differences, those that are not explained before the others."""
    lines = []
    if verdict.rows:
        lines.append(f"rows that end an event: {verdict.rows_agree:,} of {verdict.rows:,} agree at ten levels")
    if verdict.rows_agree > verdict.rows_identical:
        revealing = verdict.rows_agree - verdict.rows_identical
        lines.append(f"  {revealing:,} of these apart from prices that only then came into view")
    lines.append(f"aggressive orders: {verdict.takers_agree:,} of {verdict.takers:,} filled as on Nasdaq")
    differences = verdict.differences()
    lines += [
        f"row {one.row}: {one.cause}" + (" (the file is not in price-time priority)" if one.explained else "")
        for one in differences[:SHOWN_MAX]
    ]
    if len(differences) > SHOWN_MAX:
        explained = sum(one.explained for one in differences)
        lines.append(f"{len(differences):,} differences in all, {explained:,} of them the file's own doing")
    if verdict.unanswered or verdict.unjudged:
        lines.append(f"not judged: {verdict.unanswered} commands unanswered, {verdict.unjudged} rows without a book")
        if verdict.unanswered:
            lines.append("  did this account use their ids before?")
    return lines


def figures(verdict: FlowCheck) -> dict[str, object]:
    """A verdict for a program: its counts, and its differences as (row, cause)."""
    return {
        name: [list(difference[:2]) for difference in value] if isinstance(value, list) else value
        for name in FlowCheck.__slots__
        for value in [getattr(verdict, name)]
    }


def _wrong_level(name: str, direction: int, ours: Levels, theirs: Levels, floor: int | None) -> str:
    """The first price at which two sides differ, of those in view before and after; empty if none does."""
    worst = theirs[LEVELS_JUDGED - 1][0] if len(theirs) >= LEVELS_JUDGED else None
    sizes = dict(theirs[:LEVELS_JUDGED])
    found = dict(ours)
    for price in sorted({*sizes, *found}, reverse=direction == 1):
        if any(bound is not None and price * direction < bound * direction for bound in (worst, floor)):
            return ""
        if sizes.get(price, 0) != found.get(price, 0):
            return f"{name} {price}: {found.get(price, 0)} here, {sizes.get(price, 0)} on Nasdaq"
    return ""


def _taker_difference(ours: Sequence[Fill], theirs: Sequence[Fill], entered: dict[int, int]) -> str:
    """How an aggressive order was filled otherwise: told where the two lists of fills part."""
    parted = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if parted is None:
        filled, wanted = (sum(fill.size for fill in fills) for fills in (ours, theirs))
        return f"{filled} filled here, {wanted} on Nasdaq"
    here, there = ours[parted], theirs[parted]
    what = f"filled by order {here.order_id} at {here.price} here, by order {there.order_id} at {there.price} on Nasdaq"
    if here.price != there.price or here.order_id == there.order_id:
        return f"{what}; {here.size} and {there.size}"
    if max(here.order_id, there.order_id) > NAMELESS:
        return f"{what}; which of them came first is not known, since one came out of view"
    later, earlier = entered.get(there.order_id, 0), entered.get(here.order_id, 0)
    return f"{what}, which entered {'later' if later > earlier else 'before'}: rows {earlier} and {later}"

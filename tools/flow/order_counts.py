"""What a run's order flow amounts to: commands answered or not, trades by account's reports, and how long answers took.

A tally is taken where commands are sent, in constant memory but for what is still unanswered, and goes to whoever
judges the run as JSON. Tallies of several processes add up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from proto.columns import (
    ACCEPTED,
    AUCTION_TRADE,
    CANCELED,
    FLAG_SELL,
    MAKER,
    MASS_CANCELED,
    REFUSED,
    REPLACED,
    TRADED,
    UNAVAILABLE,
    UNKNOWN,
    ReportRow,
)
from proto.feed import orders_hash
from proto.orders_pb2 import Reason
from tools.flow.acknowledged import Acknowledged

ANSWERS: Final = {
    ACCEPTED: "accepted",
    REPLACED: "replaced",
    CANCELED: "canceled",
    MASS_CANCELED: "mass canceled",
    REFUSED: "refused",
}
Key = TypeVar("Key")
_MASK: Final = (1 << 64) - 1
_FINE: Final = 5  # bits of a latency kept below its highest: steps of 3 %


class Latencies:
    """Durations in buckets of 3 %; adding one is O(1), a quantile O(buckets)."""

    __slots__ = ("buckets", "count")

    def __init__(self, buckets: dict[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})
        self.count = sum(self.buckets.values())

    def add(self, ns: int) -> None:
        shift = max(0, ns.bit_length() - 1 - _FINE)
        bucket = shift << (_FINE + 1) | ns >> shift
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1

    def merge(self, other: "Latencies") -> None:
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count

    def quantile(self, q: float) -> int | None:
        """The duration in ns that a share `q` of all does not exceed, at most 3 % too high; None without any."""
        left = max(1, -(-self.count * q // 1))
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                shift = bucket >> (_FINE + 1)
                return ((bucket & ((1 << (_FINE + 1)) - 1)) + 1 << shift) - 1
        return None


class TradeKey(NamedTuple):
    """A trade as everyone who saw it can name it."""

    trade_id: int
    price: int
    quantity: int


@dataclass(slots=True)
class TradeSum:
    """Any number of trades as a count, their quantity, and a sum of hashes that tells whether they are the same."""

    count: int = 0
    quantity: int = 0
    fingerprint: int = 0

    def add(self, trade: TradeKey) -> None:
        self.count += 1
        self.quantity += trade.quantity
        self.fingerprint = self.fingerprint + orders_hash((trade.trade_id, trade.price, trade.quantity)) & _MASK

    def merge(self, other: "TradeSum") -> None:
        self.count += other.count
        self.quantity += other.quantity
        self.fingerprint = self.fingerprint + other.fingerprint & _MASK

    def plus(self, other: "TradeSum") -> "TradeSum":
        """Both as one."""
        both = TradeSum(self.count, self.quantity, self.fingerprint)
        both.merge(other)
        return both

    def to_json(self) -> list[int]:
        return [self.count, self.quantity, self.fingerprint]


@dataclass(slots=True)
class Executed:
    """One instrument's trades as reports told them: to buyers and sellers; to makers and takers, and those of auctions,
    which have neither, to their buyers."""

    buys: TradeSum = field(default_factory=TradeSum)
    sells: TradeSum = field(default_factory=TradeSum)
    makers: TradeSum = field(default_factory=TradeSum)
    takers: TradeSum = field(default_factory=TradeSum)
    auctions: TradeSum = field(default_factory=TradeSum)

    def sums(self) -> tuple[TradeSum, TradeSum, TradeSum, TradeSum, TradeSum]:
        return self.buys, self.sells, self.makers, self.takers, self.auctions

    def parts(self) -> tuple[TradeSum, TradeSum, TradeSum, TradeSum]:
        """Four ways to count all trades: bought, sold, by makers, and by takers, each of these with the auctions'."""
        return self.buys, self.sells, self.makers.plus(self.auctions), self.takers.plus(self.auctions)


@dataclass(slots=True)
class OrderCounts:
    """See the module. `waiting` holds unanswered commands: (account, client order id) -> (time sent, instrument).

    A command that was sent again under its id may have had its effect the first time. That it now cannot be sent is
    therefore no answer.
    """

    sent: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    by_home: dict[int, int] = field(default_factory=dict)
    unknown: int = 0  # times that an answer was "unknown": the command is sent again
    missed: int = 0  # reports that never came, by their numbers
    altered: int = 0  # orders that entered otherwise than they were sent
    outlived: int = 0  # trades of orders that were to have expired
    executed: dict[int, Executed] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    waiting: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    _due: dict[tuple[int, int], int] = field(default_factory=dict)
    _again: dict[tuple[int, int], None] = field(default_factory=dict)  # sent more than once

    @property
    def answered(self) -> int:
        return sum(self.answers.values())

    def send(self, account: int, commands: Iterable[tuple[int, int]], now_ns: int) -> None:
        """Commands, as (client order id, instrument), have just been sent."""
        for client_order_id, instrument in commands:
            self.waiting[account, client_order_id] = (now_ns, instrument)
            self.sent += 1

    def send_again(self, account: int, client_order_id: int) -> None:
        """A command has been sent again, the same under the same id."""
        self._again[account, client_order_id] = None

    def is_open(self, account: int, row: ReportRow) -> bool:
        """Whether a report leaves open what became of its command, so that it is to be sent again."""
        if row.kind == UNKNOWN:
            return True
        return row.kind == REFUSED and row.reason == UNAVAILABLE and (account, row.command) in self._again

    def numbered(self, home: int, account: int, first_seq: int, rows: Sequence[ReportRow]) -> None:
        """Reports first_seq, ... came from `home`; 0: they have no numbers."""
        if not first_seq:
            return
        due = self._due.get((home, account), first_seq)
        self.missed += max(0, first_seq - due)
        self._due[home, account] = max(due, first_seq + len(rows))
        self.acknowledged.add(home, account, first_seq, rows)

    def report(self, home: int, account: int, row: ReportRow, now_ns: int) -> None:
        """One report has come."""
        if row.kind == TRADED:
            self._traded(row)
        elif self.is_open(account, row):
            self.unknown += 1
        elif row.command and (waiting := self.waiting.pop((account, row.command), None)):
            sent_ns, _ = waiting
            self.latencies.add(max(0, now_ns - sent_ns))
            self._again.pop((account, row.command), None)
            answer = ANSWERS[row.kind]
            self.answers[answer] = self.answers.get(answer, 0) + 1
            self.by_home[home] = self.by_home.get(home, 0) + 1
            if row.kind == REFUSED:
                reason = Reason.Name(Reason.ValueType(row.reason)).removeprefix("REASON_").lower().replace("_", " ")
                self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def _traded(self, row: ReportRow) -> None:
        executed = self.executed.setdefault(row.instrument, Executed())
        trade = TradeKey(row.trade_id, row.price, row.quantity)
        (executed.sells if row.flags & FLAG_SELL else executed.buys).add(trade)
        if row.flags & AUCTION_TRADE:
            if not row.flags & FLAG_SELL:
                executed.auctions.add(trade)
        else:
            (executed.makers if row.flags & MAKER else executed.takers).add(trade)

    def waiting_by_instrument(self) -> dict[int, int]:
        """How many commands about each instrument are unanswered."""
        counts: dict[int, int] = {}
        for _, instrument in self.waiting.values():
            counts[instrument] = counts.get(instrument, 0) + 1
        return counts

    def to_json(self) -> dict[str, Any]:
        """What `Counted.from_json` reads."""
        return {
            "sent": self.sent,
            "answers": self.answers,
            "refusals": self.refusals,
            "by_home": self.by_home,
            "unknown": self.unknown,
            "missed": self.missed,
            "altered": self.altered,
            "outlived": self.outlived,
            "waiting": self.waiting_by_instrument(),
            "executed": {i: [each.to_json() for each in e.sums()] for i, e in self.executed.items()},
            "latencies": self.latencies.buckets,
        }


@dataclass(slots=True)
class Counted:
    """A tally, or several, as the judge has it."""

    sent: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    by_home: dict[int, int] = field(default_factory=dict)
    unknown: int = 0
    missed: int = 0
    altered: int = 0
    outlived: int = 0
    waiting: dict[int, int] = field(default_factory=dict)
    executed: dict[int, Executed] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def answered(self) -> int:
        return sum(self.answers.values())

    def with_others(self, executed: Mapping[int, Executed]) -> "Counted":
        """The same, with the trades of accounts that were not counted here."""
        return added([self, Counted(executed=dict(executed))])

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "Counted":
        executed = {int(i): Executed(*(TradeSum(*numbers) for numbers in sums)) for i, sums in line["executed"].items()}
        return cls(
            sent=line["sent"],
            answers=dict(line["answers"]),
            refusals=dict(line["refusals"]),
            by_home={int(home): count for home, count in line["by_home"].items()},
            unknown=line["unknown"],
            missed=line["missed"],
            altered=line["altered"],
            outlived=line["outlived"],
            waiting={int(instrument): count for instrument, count in line["waiting"].items()},
            executed=executed,
            latencies=Latencies({int(bucket): count for bucket, count in line["latencies"].items()}),
        )


def added(counts: Sequence[Counted]) -> Counted:
    """All of them as one."""
    total = Counted()
    for each in counts:
        total.sent += each.sent
        total.unknown += each.unknown
        total.missed += each.missed
        total.altered += each.altered
        total.outlived += each.outlived
        _add(total.answers, each.answers)
        _add(total.refusals, each.refusals)
        _add(total.by_home, each.by_home)
        _add(total.waiting, each.waiting)
        total.latencies.merge(each.latencies)
        for instrument, executed in each.executed.items():
            mine = total.executed.setdefault(instrument, Executed())
            for into, sums in zip(mine.sums(), executed.sums(), strict=True):
                into.merge(sums)
    return total


def _add(into: dict[Key, int], counts: dict[Key, int]) -> None:
    for key, count in counts.items():
        into[key] = into.get(key, 0) + count

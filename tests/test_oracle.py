"""Random flows: the engine and the slow obvious matcher say the same, and a mirror of the feed shows the same book.

LOBMESH_ORACLE_COMMANDS is how many commands to try, about; `make oracle` tries a million.
"""

import os
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain, product
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bus.mirror import Mirror
from engine.types import (
    CANCEL,
    FLAG_SELL,
    MAKER,
    MASS_CANCEL,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    MEANING_TOTAL,
    NEW,
    NOTIONAL_LIMIT,
    POST_ONLY,
    PRICE_LIMIT,
    QUANTITY_LIMIT,
    REPLACE,
    REQUEUE,
    STP_CANCEL_NEWEST,
    STP_NONE,
    TIF_DAY,
    TIF_FOK,
    TIF_GTC,
    TIF_IOC,
    TRADED,
    TYPE_MARKET,
    Batch,
    Outcome,
    delta_rows,
    report_rows,
)
from engine.venue import Venue
from proto.cluster import Instrument
from proto.feed import DELETE, MODIFY, OP_MASK, orders_hash
from tests.oracle import Delta, Oracle, Said

COMMANDS = int(os.environ.get("LOBMESH_ORACLE_COMMANDS", "20000"))
FLOW_MAX = 80  # commands in a flow; half of it is what a flow has on average, at least
FLOWS = 500  # in a round: hypothesis remembers all that a test has tried, so that one long round would fill the memory
ROUNDS = max(1, COMMANDS // (FLOW_MAX // 2 * FLOWS))

ENGINE = 5
CENT, ONE = Decimal("0.01"), Decimal(1)
INSTRUMENTS = (
    Instrument(1, "ALFA", ENGINE, 1, CENT, ONE, 1, 6),
    Instrument(2, "BETA", ENGINE, 1, CENT, ONE, 1, 1 << 39),
    Instrument(3, "CHILL", ENGINE, 2, CENT, ONE, -3, 3),
)


class Step(NamedTuple):
    """One command of a flow, or the end of a session; ids and targets are told by their age."""

    op: int  # 0: a session ends
    account: int
    joins: int  # 0: a record of its own, 1: the record before, 2: the batch before, too
    reused: int  # 0: a new id, n: that of the account's nth last command
    again: bool  # with all that it said then
    astray: bool  # about an order of some other instrument
    meaning: int
    requeue: int
    stp: int
    session: int
    side: int
    kind: int
    instrument: int
    price: int  # above the lowest of the instrument, about
    target: int  # n: the account's nth last order, 0: its last command whatever that is, -1: nobody's
    quantity: int


# Few prices, few accounts, small sizes: what can collide should. Few choices a step, so that shrinking has few to go
# through, and the plainest first, since that is where it goes; but none among more than 128, of which hypothesis would
# draw the first few most of the time.
CHOICES = [
    list(product([NEW] * 17 + [REPLACE] * 12 + [CANCEL] * 5 + [MASS_CANCEL, 0], [1, 2, 3])),
    list(product([0, 0, 1, 2, 2], [0] * 20 + [1, 2, 3, 4])),
    list(product(
        [True, False], [False] * 4 + [True], [MEANING_TOTAL, MEANING_OPEN, MEANING_REDUCE_BY], [0, 0, 0, REQUEUE]
    )),
    list(product(
        [STP_NONE, STP_CANCEL_NEWEST],
        [0, 0, 1],
        [0, FLAG_SELL],
        [
            TIF_GTC, TIF_GTC, TIF_GTC, TIF_DAY, TIF_IOC, TIF_FOK, POST_ONLY, POST_ONLY | TIF_DAY,
            TYPE_MARKET | TIF_DAY, TYPE_MARKET | TIF_IOC, TYPE_MARKET | TIF_FOK,
        ],
    )),
    list(product([1, 1, 1, 1, 1, 3, 3, 3, 2, 9], [3, 4, 3, 4, 2, 5, 3, 4, 1, 6, 0, 7])),
    list(product([1, 2, 3, 1, 2, 3, 4, 5, 6, 8, 0, -1], [1, 2, 3, 4, 5, 6, 7, 9, (1 << 32) - 1, QUANTITY_LIMIT - 1])),
]  # fmt: skip
BOTTOM = {2: (1 << 30) - 3, 3: -4}  # of an instrument's prices, where it is not 0

steps = st.builds(lambda *choices: Step(*chain(*choices)), *map(st.sampled_from, CHOICES))


@st.composite
def flows(draw: st.DrawFn) -> list[Step]:
    return draw(st.lists(steps, min_size=draw(st.integers(0, FLOW_MAX)), max_size=FLOW_MAX))


class Pair:
    """The engine and the oracle side by side, with a mirror of each channel."""

    def __init__(self) -> None:
        self.venue = Venue(ENGINE, INSTRUMENTS)
        self.oracle = Oracle(ENGINE, INSTRUMENTS)
        self.mirrors = {1: Mirror(), 2: Mirror()}
        self.position = 0

    def apply(self, batches: Sequence[Batch]) -> None:
        self.position += 1
        self.compare(self.venue.apply(self.position, self.position, batches), self.oracle.apply(batches))

    def disconnect(self, account: int, session: int) -> None:
        self.position += 1
        outcome = self.venue.disconnect(self.position, self.position, account, session)
        self.compare(outcome, self.oracle.disconnect(account, session))

    def compare(self, outcome: Outcome, said: Said) -> None:
        heard = heard_from(outcome)
        assert heard == said
        assert_quantity_conserved(heard)
        self.venue.check()
        for channel in outcome.deltas:
            self.mirrors[channel.channel].apply(list(map(tuple, delta_rows(channel.rows))))
        for instrument in INSTRUMENTS:
            book = self.venue.books[instrument.id]
            mirror = self.mirrors[instrument.channel].books.get(instrument.id)
            for side in (0, 1):
                resting = [(order.order_id, order.price, order.open) for order in book.orders(side)]
                assert resting == self.oracle.resting(instrument.id, side)
                assert resting == (list(mirror.orders(side)) if mirror else [])
            for side in (0, 1):
                low, high, words, after = book.slice(side, None, 1 << 40)
                assert (low, high, after) == (-PRICE_LIMIT, PRICE_LIMIT, None)
                assert mirror is None or mirror.digest(side, low, high).order_hash == orders_hash(words)


def heard_from(outcome: Outcome) -> Said:
    """An outcome in the oracle's terms."""
    heard = Said()
    for reports in outcome.reports:
        rows = list(report_rows(reports.rows))
        if reports.first_seq:
            assert reports.account not in heard.reports, "an account's reports came in two parts"
            heard.reports[reports.account] = list(enumerate(rows, reports.first_seq))
        else:
            heard.repeats[reports.account] = rows
    for channel in outcome.deltas:
        heard.deltas[channel.channel] = [on_the_wire(row) for row in delta_rows(channel.rows)]
    return heard


def on_the_wire(row: Delta) -> Delta:
    """A delta without what its frame does not carry: a reader knows an order's price, and what is left of it."""
    op, instrument, order_id, price, quantity, trade_id = row
    if op & OP_MASK == DELETE:
        return op, instrument, order_id, 0, 0, 0
    if op & OP_MASK == MODIFY:
        return op, instrument, order_id, 0, quantity, 0
    return op, instrument, order_id, price, quantity, trade_id


def assert_quantity_conserved(heard: Said) -> None:
    """Each trade has a taker and a maker, on either side, for one price and quantity."""
    trades: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    for rows in heard.reports.values():
        for _, row in rows:
            if row.kind == TRADED:
                party = row.flags & MAKER, row.flags & FLAG_SELL, row.price, row.quantity
                trades.setdefault((row.instrument, row.trade_id), []).append(party)
    for taker, maker in (sorted(parties) for parties in trades.values()):
        assert (taker[0], maker[0]) == (0, MAKER)
        assert taker[1] != maker[1]
        assert taker[2:] == maker[2:]


def command(step: Step, own: int, before: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The columns of a step, zero where its op reads nothing, after what the account sent `before`."""
    instrument = step.instrument
    price, quantity = terms(step, instrument)
    orders = [row for row in before if row[0] == NEW and row[2] != 9] if step.target else before[-1:]
    if step.op == NEW or (step.op != MASS_CANCEL and not orders and step.target >= 0):
        return NEW, own, instrument, step.side | step.kind, price, quantity, 0
    if step.op == MASS_CANCEL:
        return MASS_CANCEL, own, 0 if step.astray else instrument, 0, 0, 0, 0
    target = 0
    if orders and step.target >= 0:
        about = orders[-1 - (step.target - 1) % len(orders)]
        target = about[1]
        instrument = instrument if step.astray else about[2]
        price, quantity = terms(step, instrument)
    if step.op == CANCEL:
        return CANCEL, own, instrument, 0, 0, 0, target
    return REPLACE, own, instrument, step.meaning | step.requeue, price, quantity, target


def terms(step: Step, instrument: int) -> tuple[int, int]:
    """Price and quantity that the door would let through."""
    price = BOTTOM.get(instrument, 0) + step.price
    return price, step.quantity if abs(price) * step.quantity < NOTIONAL_LIMIT else 1


def run(flow: Sequence[Step]) -> None:
    """Let the engine and the oracle go through a flow, and compare whatever either says after each record."""
    pair = Pair()
    record: list[Batch] = []
    sent: dict[int, list[tuple[int, ...]]] = {}
    for i, step in enumerate(flow, 1):
        if record and (step.joins == 0 or not step.op):
            pair.apply(record)
            record = []
        if not step.op:
            pair.disconnect(step.account, step.session)
            continue
        if not record or step.joins < 2:
            record.append(Batch(step.account, step.session, step.stp, [], [], [], [], [], [], []))
        batch = record[-1]
        before = sent.setdefault(batch.account, [])
        earlier = before[-1 - (step.reused - 1) % len(before)] if before and step.reused else None
        row = earlier if earlier and step.again else command(step, earlier[1] if earlier else i, before)
        before.append(row)
        columns = (
            batch.op, batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity, batch.target
        )  # fmt: skip
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    if record:
        pair.apply(record)


@pytest.mark.parametrize("_turn", range(ROUNDS))
@pytest.mark.timeout(3600)  # shrinking a failure takes its time
@settings(
    max_examples=min(FLOWS, COMMANDS // (FLOW_MAX // 2)),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(flow=flows())
def test_engine_and_slow_obvious_matcher_say_the_same(_turn: int, flow: list[Step]) -> None:
    run(flow)

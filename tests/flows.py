"""Random flows in which everything occurs that RULES.md knows, on few prices, few accounts and few ids: what can
collide should.

A flow is a list of steps, each drawn on its own, so that a failure shrinks by leaving steps out and by making the rest
plainer: the first of each choice is the plainest.
"""

from collections.abc import Sequence
from decimal import Decimal
from itertools import product
from typing import Any, NamedTuple, Protocol

from hypothesis import strategies as st

from engine.core.commands import AddInstrument, BustTrade, CorrectTrade, Delist, Kill, OperatorCommand, Roll, SetState
from proto.columns import (
    ALL_OR_NONE,
    CANCEL,
    CAPPED,
    FLAG_SELL,
    MASS_CANCEL,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    MEANING_TOTAL,
    NEW,
    POST_ONLY,
    QUANTITY_LIMIT,
    REPLACE,
    REQUEUE,
    STP_CANCEL_BOTH,
    STP_CANCEL_NEWEST,
    STP_CANCEL_OLDEST,
    STP_DECREMENT,
    STP_NONE,
    TIF_DAY,
    TIF_FOK,
    TIF_GTC,
    TIF_GTD,
    TIF_IOC,
    TIF_MASK,
    TYPE_ICEBERG,
    TYPE_LIMIT,
    TYPE_MARKET,
    TYPE_MASK,
    TYPE_PEG_BID,
    TYPE_PEG_MID,
    TYPE_PEG_OFFER,
    TYPE_STOP,
    TYPE_STOP_LIMIT,
    Batch,
    Terms,
)
from proto.instrument import PRO_RATA, Instrument

FLOW_MAX = 100  # steps in a flow; half of it is what a flow has on average

ENGINE = 5
UNUSED = 1 << 50  # a client order id
CENT, ONE = Decimal("0.01"), Decimal(1)
INSTRUMENTS = (
    Instrument(1, "ALFA", ENGINE, 1, CENT, ONE, 1, 6),
    Instrument(2, "BETA", ENGINE, 1, CENT, ONE, 1, 1 << 39, collar=1, allocation=PRO_RATA),
    Instrument(3, "CHILL", ENGINE, 2, CENT, ONE, -3, 6, collar=1, band=1, auction_reference=3),
    Instrument(
        4, "DELTA", ENGINE, 2, CENT, ONE, 1, 6, quantity_max=9, notional_max=30, band=1, allocation=PRO_RATA,
        auction_reference=3, state="pre-open",
    ),
)  # fmt: skip
ADDED = Instrument(5, "ECHO", ENGINE, 1, CENT, ONE, 1, 6, collar=2)
STATES = [2, 2, 2, 2, 4, 4, 1, 5, 3]  # open above all

# What a step does beside the commands of accounts.
ENDS, TICK, STATE, KILL, ADD, DELIST, BUST, CORRECT, ROLL = range(10, 19)


class Step(NamedTuple):
    """One command of a flow. Orders are told by their age among the account's: 1 is its last."""

    op: int
    account: int
    joins: int  # 0: a record of its own, 1: the record before, 2: the batch before, too
    reused: int  # 0: a new id
    again: bool  # what that id meant before, too
    side: int
    kind: int  # type, time in force and conditions
    meaning: int
    requeue: int
    stp: int
    price: int
    quantity: int
    instrument: int  # 0: that of the flow
    target: int  # 0: an id that nobody used
    session: int
    stop_price: int
    lots: int  # display or minimum
    later: int  # time since the record before; how soon it expires
    offset: int
    oco: int  # 0: none
    odd: bool  # every column is filled in, whether it has a meaning or not


TIMES = [TIF_GTC] * 4 + [TIF_DAY, TIF_GTD]
WITH_MINIMUM = 1 << 20  # beside the flags
PLAUSIBLE = [
    *[force for force in TIMES for _ in range(3)],
    TIF_IOC, TIF_IOC, TIF_FOK, TIF_FOK, POST_ONLY, POST_ONLY | TIF_DAY,
    *[ALL_OR_NONE | force for force in TIMES], ALL_OR_NONE | TIF_IOC,
    *[WITH_MINIMUM | force for force in TIMES], WITH_MINIMUM | TIF_IOC, WITH_MINIMUM | TIF_IOC,
    *[TYPE_ICEBERG | force for force in TIMES], TYPE_ICEBERG, TYPE_ICEBERG | POST_ONLY,
    TYPE_MARKET, TYPE_MARKET, TYPE_MARKET | TIF_IOC, TYPE_MARKET | TIF_FOK, TYPE_MARKET | TIF_DAY,
    *[TYPE_STOP | force for force in TIMES], *[TYPE_STOP_LIMIT | force for force in TIMES],
    *[peg | more for peg in (TYPE_PEG_BID, TYPE_PEG_OFFER, TYPE_PEG_MID, TYPE_PEG_MID)
      for more in (0, CAPPED, CAPPED, POST_ONLY, TIF_GTD)],
]  # fmt: skip
ODD = [  # these do not go together
    POST_ONLY | TIF_IOC,
    POST_ONLY | TIF_FOK,
    TYPE_MARKET | POST_ONLY, TYPE_MARKET | TIF_GTD, TYPE_STOP | TIF_IOC, TYPE_ICEBERG | TIF_FOK, TYPE_STOP | POST_ONLY,
    TYPE_LIMIT | CAPPED, TYPE_ICEBERG | ALL_OR_NONE, TYPE_PEG_MID | WITH_MINIMUM, ALL_OR_NONE | WITH_MINIMUM,
    ALL_OR_NONE | POST_ONLY, WITH_MINIMUM | TIF_FOK,
]  # fmt: skip
KINDS = PLAUSIBLE * 3 + ODD
FATES = list(product(
    [
        *[NEW] * 40, *[CANCEL] * 6, *[REPLACE] * 16, MASS_CANCEL, ENDS, TICK, STATE, STATE, STATE, STATE,
        KILL, ADD, BUST, CORRECT, ROLL,
    ],
    [1, 2, 1, 2, 3],
    [0, 0, 0, 1, 2],
    [0] * 24 + [1, 2, 4],
    [True, False],
)) + [(DELIST, 1, 0, 0, False)] * 45  # fmt: skip
MEANINGS = list(product(
    [0, FLAG_SELL],
    [MEANING_TOTAL, MEANING_TOTAL, MEANING_OPEN, MEANING_REDUCE_BY],
    [0, 0, REQUEUE],
    [STP_NONE, STP_NONE, STP_NONE, STP_CANCEL_NEWEST, STP_CANCEL_OLDEST, STP_CANCEL_BOTH, STP_DECREMENT],
))  # fmt: skip
TERMS = list(product(
    [2, 3, 3, 4, 2, 3, 3, 4, 1, 5, 5, 2, 4, 3, 0, 7],
    [1, 2, 3, 4, 5, 9, 2, 4, 7, 5, 3, QUANTITY_LIMIT - 1],
    [0] * 30 + [1, 2, 3, 4, 5, 9],
    [1, 2, 3, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 8, 11, 0],
    [0, 1, 2],
))  # fmt: skip
MORE = list(product(
    [3, 2, 4, 1, 5, 0],
    [1, 2, 3, 4, 6, 0],
    [1, 0, 2, 3, 5],
    [0, 0, 1, 2, -1],
    [0] * 12 + [1, 1, 2, 3],
    [False] * 39 + [True],
))  # fmt: skip
PLAIN = [0, 0, 0, TIF_DAY, TIF_IOC]
PLAIN_FATES = list(product([*[NEW] * 9, *[CANCEL] * 6, *[REPLACE] * 4], [1, 2, 3], [0, 1, 2], [0] * 9 + [1], [True]))
PLAIN_TERMS = list(product([2, 3, 3, 4, 1, 5], [1, 2, 3, 4, 5, 9], [0], [1, 2, 3, 4, 5, 6, 8], [0]))
# Small day orders, and a market that opens and closes.
DAY = [TIF_DAY, TIF_DAY, TIF_GTC]
DAY_FATES = list(product([*[NEW] * 12, CANCEL, REPLACE, STATE, STATE], [1, 2, 3], [0, 1, 2], [0], [True]))
DAY_TERMS = list(product([2, 3, 3, 4, 1, 5], [1, 1, 2, 3], [0], [1, 2, 3, 4, 5, 6, 8], [0]))


_INDEX = 3  # bytes that say which of a list


def steps_of(fates: Sequence[Any], kinds: Sequence[int], terms: Sequence[Any], more: Sequence[Any]) -> Any:
    """Steps of bytes: unlike integers, they are as often great as small, so that all of a list is drawn alike."""
    lists = (fates, kinds, MEANINGS, terms, more)

    def step(drawn: bytes) -> Step:
        fate, kind, meaning, its_terms, its_more = (
            choices[int.from_bytes(drawn[at * _INDEX : (at + 1) * _INDEX]) * len(choices) >> 8 * _INDEX]
            for at, choices in enumerate(lists)
        )
        return Step(*fate, meaning[0], kind, *meaning[1:], *its_terms, *its_more)  # type: ignore[call-arg]

    return st.binary(min_size=_INDEX * len(lists), max_size=_INDEX * len(lists)).map(step)


# Of everything; of plain orders only, which go ways of their own where nothing else is about; of days.
# In short flows what ends others' doings may come more often than in one that goes on.
SHORT_FATES = [*FATES, *[fate for fate in FATES if fate[0] == KILL] * 5, *[(DELIST, 1, 0, 0, False)] * 150]
STEPS = (
    steps_of(SHORT_FATES, KINDS, TERMS, MORE),
    steps_of(PLAIN_FATES, PLAIN, PLAIN_TERMS, MORE[:1]),
    steps_of(DAY_FATES, DAY, DAY_TERMS, MORE),
)
Flow = tuple[int, list[Step]]  # the instrument that it is mostly about, and what happens


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    home, which = draw(st.sampled_from([(1, 0), (3, 0), (4, 0), (2, 0), (1, 1), (1, 1), (1, 2)]))
    size = draw(st.integers(0, FLOW_MAX))
    return home, draw(st.lists(STEPS[which], min_size=size, max_size=FLOW_MAX))


class Door(Protocol):
    """The ways into a venue; each call is a record. `live`: (id, instrument, flags) of what there is to speak of."""

    def apply(self, time_ns: int, batches: Sequence[Batch]) -> object: ...
    def disconnect(self, time_ns: int, account: int, session: int) -> object: ...
    def tick(self, time_ns: int) -> object: ...
    def operate(self, time_ns: int, command: OperatorCommand) -> object: ...
    def live(self, account: int) -> list[tuple[int, int, int]]: ...


Row = tuple[int, int, int, int, int, int, int, Terms]


class Player:
    """Turns steps into records and hands them in."""

    def __init__(self, home: int, door: Door) -> None:
        self.home = home
        self._door = door
        self.time = 1
        self._record: list[Batch] = []
        self._sent: dict[int, list[Row]] = {}
        self._ids = 0

    def play(self, flow: Sequence[Step]) -> None:
        for step in flow:
            if step.op > MASS_CANCEL:
                self.flush()
                self.time += step.later
                self._other(step)
            else:
                if step.joins == 0:
                    self.flush()
                self._command(step)
        self.flush()

    def flush(self) -> None:
        if self._record:
            self._door.apply(self.time, self._record)
            self._record = []

    def _other(self, step: Step) -> None:
        instrument = step.instrument or self.home
        if step.op == ENDS:
            self._door.disconnect(self.time, step.account, step.session)
        elif step.op == TICK:
            self._door.tick(self.time)
        elif step.op == STATE:
            state = STATES[(step.lots + 6 * step.quantity) % len(STATES)]
            self._door.operate(self.time, SetState(instrument, state))
        elif step.op == KILL:
            account = step.account if step.lots else 0
            on = step.side == 0 and step.session == 0
            self._door.operate(self.time, Kill(account, instrument if step.target % 4 else 0, on))
        elif step.op == ADD:
            definition = ADDED if step.side or step.instrument == 5 else INSTRUMENTS[0]
            self._door.operate(self.time, AddInstrument.of(definition))
        elif step.op == DELIST:
            self._door.operate(self.time, Delist(instrument))
        elif step.op == BUST:
            self._door.operate(self.time, BustTrade(instrument, step.target))
        elif step.op == CORRECT:
            self._door.operate(self.time, CorrectTrade(instrument, step.target, step.price, step.quantity - 1))
        else:
            self._door.operate(self.time, Roll(instrument))

    def _command(self, step: Step) -> None:
        if not self._record:
            self.time += step.later
        if not self._record or step.joins < 2:
            self._record.append(Batch(step.account, step.session, step.stp, [], [], [], [], [], [], [], []))
        batch = self._record[-1]
        before = self._sent.setdefault(batch.account, [])
        self._ids += 1
        reused = before[-1 - step.reused % len(before)] if before and step.reused else None
        own = reused[1] if reused else self._ids
        if reused and step.again:
            row = reused
        elif reused and step.side:  # the same but for one column
            row = (
                (*reused[:5], reused[5] % 9 + 1, *reused[6:]) if reused[0] == NEW else (*reused[:6], UNUSED, reused[7])
            )
        else:
            row = self._row(step, batch.account, own, before)
        before.append(row)
        columns = (
            batch.op, batch.client_order_id, batch.instrument, batch.flags, batch.price, batch.quantity, batch.target,
            batch.terms,
        )  # fmt: skip
        for column, value in zip(columns, row, strict=True):
            column.append(value)  # type: ignore[union-attr, arg-type]

    def _row(self, step: Step, account: int, own: int, before: list[Row]) -> Row:
        """The columns of a step, zero where its op reads nothing."""
        instrument = step.instrument or self.home
        if step.op == NEW:
            flags = (step.side | step.kind) & ~WITH_MINIMUM
            quantity = step.quantity
            if step.kind & TYPE_MASK == TYPE_ICEBERG:
                quantity = min(quantity, 9) + (step.lots if step.offset else 0)
            return NEW, own, instrument, flags, step.price, quantity, 0, self._terms(step, account, before)
        if step.op == MASS_CANCEL:
            return MASS_CANCEL, own, instrument if step.price > 2 else 0, 0, 0, 0, 0, Terms()
        target = self._target(account, step.target, before)
        name = target[0] if target else UNUSED
        instrument = target[1] if target and not step.odd else instrument
        if step.op == CANCEL:
            return CANCEL, own, instrument, 0, 0, 0, name, Terms()
        stops = target is not None and target[2] & TYPE_MASK in (TYPE_STOP, TYPE_STOP_LIMIT)
        terms = Terms(stop_price=step.stop_price if stops or step.odd else 0)
        iceberg = target is not None and target[2] & TYPE_MASK == TYPE_ICEBERG
        quantity = min(step.quantity, 9) if iceberg else step.quantity
        price = step.price
        if iceberg and not step.offset:  # it keeps its place, if it shrinks
            price = next((row[4] for row in before if row[:2] == (NEW, name)), price)
        return REPLACE, own, instrument, step.meaning | step.requeue, price, quantity, name, terms

    def _target(self, account: int, age: int, before: list[Row]) -> tuple[int, int, int] | None:
        """One of the live orders, or, less often, one of all there were."""
        orders = self._door.live(account) if age % 4 else [row[1:4] for row in before if row[0] == NEW]
        return orders[-age % len(orders)] if orders and age else None

    def _terms(self, step: Step, account: int, before: list[Row]) -> Terms:
        partner = self._target(account, step.oco, before)
        kind = step.kind & TYPE_MASK
        stops, pegs = kind in (TYPE_STOP, TYPE_STOP_LIMIT), kind in (TYPE_PEG_BID, TYPE_PEG_OFFER, TYPE_PEG_MID)
        through = kind == (TYPE_PEG_BID if step.side else TYPE_PEG_OFFER) and step.lots > 0
        away = step.offset or int(through)
        return Terms(
            stop_price=step.stop_price if stops or step.odd else 0,
            display=step.lots if kind == TYPE_ICEBERG or step.odd else 0,
            minimum=step.lots if step.kind & WITH_MINIMUM or step.odd else 0,
            expires_ns=self.time + step.later if step.kind & TIF_MASK == TIF_GTD or step.odd else 0,
            offset=(away if step.side else -away) if pegs or step.odd else 0,
            oco=partner[0] if partner else 0,
        )

"""Seeded traders, without a venue: what they know is what was reported to them, and they return commands.

Market makers keep a ladder of quotes around a fair price that wanders; noise traders do everything else an order entry
allows: limits, market orders, IOC, FOK, post-only, cancels, and replaces in all three ways of stating a quantity. With
one seed and the same reports at the same times, an agent sends the same commands.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.types import (
    ACCEPTED,
    CANCEL,
    CANCELED,
    FLAG_SELL,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    MEANING_TOTAL,
    NEW,
    POST_ONLY,
    REFUSED,
    REPLACE,
    REPLACED,
    TIF_FOK,
    TIF_IOC,
    TOO_LATE,
    TRADED,
    TYPE_MARKET,
    UNAVAILABLE,
    UNKNOWN_ORDER,
    ReportRow,
)
from proto.cluster import Instrument

NEWS_STEP_S: Final = 0.25  # how often a fair price moves
RESTING_GOAL: Final = 1_400  # orders that the makers of a venue keep resting, all together
LEVELS_MIN: Final = 20  # quotes a side that a maker keeps at least
RESIZES_MAX: Final = 20  # quotes that a maker changes at once for no other reason than to be busy
NOISE_ORDERS_MAX: Final = 40  # an account of noise with more live orders cancels before it enters
AWAY_S: Final = 1.0  # how long an instrument whose engine does not answer is left alone


class Command(NamedTuple):
    """One row of a command batch."""

    op: int
    client_order_id: int
    instrument: int
    flags: int
    price: int
    quantity: int
    target: int


@dataclass(slots=True)
class OwnOrder:
    """A live order as the reports tell it; `wanted` is the price it is being moved to, or rests at."""

    instrument: int
    sell: int
    price: int
    open: int
    wanted: int
    busy: bool = False  # a command about it is on its way


class News:
    """The fair price of each instrument: a random walk that all agents of a run share, in ticks.

    Cost: O(1) for each step of time passed.
    """

    def __init__(self, instruments: Sequence[Instrument], seed: int) -> None:
        self._instruments = {instrument.id: instrument for instrument in instruments}
        self._chance = {i.id: random.Random(f"{seed}/news/{i.symbol}") for i in instruments}
        self._step = {i.id: 0 for i in instruments}
        self._fair: dict[int, int] = {}
        for i in instruments:
            low, high = max(i.price_min, 2_000), min(i.price_max, 20_000)
            self._fair[i.id] = self._chance[i.id].randint(low, high) if low < high else (i.price_min + i.price_max) // 2

    def fair(self, instrument: int, now_s: float) -> int:
        """The fair price at a time since the run's start; times must not fall."""
        limits = self._instruments[instrument]
        margin = min(200, (limits.price_max - limits.price_min) // 4)
        chance = self._chance[instrument]
        while self._step[instrument] < int(now_s / NEWS_STEP_S):
            self._step[instrument] += 1
            moved = self._fair[instrument] + chance.choice((-2, -1, -1, 0, 0, 0, 0, 1, 1, 2))
            self._fair[instrument] = min(max(moved, limits.price_min + margin), limits.price_max - margin)
        return self._fair[instrument]


class Agent:
    """One account: its live orders, its position, and the ids it gives. Subclasses decide what it does next."""

    kind = "agent"

    def __init__(
        self, account: int, instruments: Sequence[Instrument], news: News, seed: int, first_id: int = 1
    ) -> None:
        self.account = account
        self.instruments = tuple(instruments)
        self.news = news
        self.chance = random.Random(f"{seed}/agent/{account}")
        self.orders: dict[int, OwnOrder] = {}
        self.position: dict[int, int] = {instrument.id: 0 for instrument in instruments}
        self._limits = {instrument.id: instrument for instrument in instruments}
        self._next_id = first_id
        self._about: dict[int, int] = {}  # command id -> the order it is about
        self._unavailable: dict[int, float | None] = {}  # instruments left alone, and until when, once that is known

    def act(self, now_s: float, commands: int) -> list[Command]:
        """Up to `commands` commands to send now."""
        raise NotImplementedError

    def report(self, row: ReportRow) -> None:
        """Take in one report to this account."""
        order = self.orders.get(row.client_order_id)
        if row.command and (row.kind in (ACCEPTED, REPLACED, CANCELED, REFUSED)):
            target = self._about.pop(row.command, 0)
            if row.kind == REFUSED:
                self._refused(row, target)
                return
        if order is None:
            return
        if row.kind == TRADED:
            self.position[order.instrument] += -row.quantity if order.sell else row.quantity
            order.open = row.open
        elif row.kind == CANCELED:
            order.open = 0
        elif row.kind in (ACCEPTED, REPLACED):
            order.price = order.wanted = row.price
            order.open = row.open
            order.busy = False
        if order.open == 0:
            del self.orders[row.client_order_id]

    def _refused(self, row: ReportRow, target: int) -> None:
        """A refused order never was; a refused change leaves its target as it is, unless that is gone."""
        if row.reason == UNAVAILABLE:
            self._unavailable.setdefault(row.instrument, None)
        order = self.orders.get(target or row.command)
        if order is None:
            return
        if not target or row.reason in (UNKNOWN_ORDER, TOO_LATE):
            del self.orders[target or row.command]
        else:
            order.busy = False
            order.wanted = order.price

    def _open_to(self, now_s: float) -> tuple[Instrument, ...]:
        """The instruments whose engines answer, or may do so again."""
        if not self._unavailable:
            return self.instruments
        for instrument, until_s in list(self._unavailable.items()):
            if until_s is None:
                self._unavailable[instrument] = now_s + AWAY_S
            elif until_s <= now_s:
                del self._unavailable[instrument]
        return tuple(instrument for instrument in self.instruments if instrument.id not in self._unavailable)

    def _enter(self, instrument: int, sell: int, price: int, quantity: int, flags: int = 0) -> Command:
        limits = self._limits[instrument]
        price = min(max(price, limits.price_min), limits.price_max)
        command = Command(NEW, self._id(), instrument, flags | (FLAG_SELL if sell else 0), price, quantity, 0)
        self.orders[command.client_order_id] = OwnOrder(instrument, sell, price, quantity, price, busy=True)
        self._about[command.client_order_id] = 0
        return command

    def _cancel(self, target: int) -> Command:
        order = self.orders[target]
        order.busy = True
        command = Command(CANCEL, self._id(), order.instrument, 0, 0, 0, target)
        self._about[command.client_order_id] = target
        return command

    def _replace(self, target: int, price: int, quantity: int, meaning: int) -> Command:
        order = self.orders[target]
        limits = self._limits[order.instrument]
        price = min(max(price, limits.price_min), limits.price_max)
        order.busy = True
        order.wanted = price
        command = Command(REPLACE, self._id(), order.instrument, meaning, price, quantity, target)
        self._about[command.client_order_id] = target
        return command

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


class MarketMaker(Agent):
    """Keeps `levels` quotes a side on every instrument, one a tick, and moves those left behind when the fair price
    has moved. With time to spare, it changes their sizes. Its first commands are its opening ladders."""

    kind = "maker"

    def __init__(
        self,
        account: int,
        instruments: Sequence[Instrument],
        news: News,
        seed: int,
        first_id: int = 1,
        levels: int = LEVELS_MIN,
    ) -> None:
        super().__init__(account, instruments, news, seed, first_id)
        self.levels = levels
        self._half_spread = self.chance.randint(1, 3)
        self._next = 0  # the instrument to look after next, in turn

    def act(self, now_s: float, commands: int) -> list[Command]:
        sent: list[Command] = []
        instruments = self._open_to(now_s)
        for _ in instruments:
            if len(sent) >= commands:
                break
            instrument = instruments[self._next % len(instruments)]
            self._next += 1
            for sell in (0, 1):
                sent += self._requote(instrument.id, sell, now_s, commands - len(sent))
        return sent + self._resize(instruments, min(commands - len(sent), RESIZES_MAX))

    def _resize(self, instruments: Sequence[Instrument], commands: int) -> list[Command]:
        """With every quote in its place, change the sizes of some."""
        open_to = dict.fromkeys(instrument.id for instrument in instruments)
        idle = [i for i, order in self.orders.items() if not order.busy and order.instrument in open_to]
        chosen = self.chance.sample(idle, min(commands, len(idle)))
        return [self._replace(i, self.orders[i].price, self.chance.randint(1, 40), MEANING_OPEN) for i in chosen]

    def _requote(self, instrument: int, sell: int, now_s: float, commands: int) -> list[Command]:
        """Fill the missing prices, best first: with the quote that is farthest off where there is one."""
        lean = -self.position[instrument] // 200  # a long maker quotes lower, a short one higher
        best = self.news.fair(instrument, now_s) + max(-3, min(3, lean))
        best += self._half_spread if sell else -self._half_spread
        step = 1 if sell else -1
        wanted = [best + step * level for level in range(self.levels)]
        spare, quoted, count = self._quotes(instrument, sell, dict.fromkeys(wanted))
        sent: list[Command] = []
        for price in [price for price in wanted if price not in quoted][:commands]:
            if spare:
                target = spare.pop()
                sent.append(self._replace(target, price, self.orders[target].open, MEANING_OPEN))
            elif count + len(sent) < self.levels:
                sent.append(self._enter(instrument, sell, price, self.chance.randint(1, 40)))
        return sent

    def _quotes(self, instrument: int, sell: int, wanted: dict[int, None]) -> tuple[list[int], dict[int, int], int]:
        """The quotes on this side that may be moved, the prices that have or await one, and how many there are.

        Cost: O(own orders).
        """
        own = {i: o for i, o in self.orders.items() if o.instrument == instrument and o.sell == sell}
        quoted = {order.wanted: i for i, order in own.items() if order.busy}
        spare: list[int] = []
        for i, order in own.items():
            if order.busy:
                continue
            if order.wanted in wanted and order.wanted not in quoted:
                quoted[order.wanted] = i
            else:
                spare.append(i)
        return spare, quoted, len(own)


class Noise(Agent):
    """Enters, takes, changes its mind: one random thing after another, with no view of its own."""

    kind = "noise"

    def act(self, now_s: float, commands: int) -> list[Command]:
        instruments = self._open_to(now_s)
        return [self._one(now_s, instruments) for _ in range(commands)] if instruments else []

    def _one(self, now_s: float, instruments: Sequence[Instrument]) -> Command:
        chance = self.chance
        away = self._unavailable
        idle = [i for i, order in self.orders.items() if not order.busy and order.instrument not in away]
        if len(self.orders) >= NOISE_ORDERS_MAX and idle:
            return self._cancel(idle[0])
        dice = chance.random()
        if idle and dice < 0.12:
            return self._cancel(chance.choice(idle))
        if idle and dice < 0.24:
            return self._change(chance.choice(idle))
        instrument = chance.choice(instruments).id
        sell = chance.randint(0, 1)
        fair = self.news.fair(instrument, now_s)
        worse = -1 if sell else 1  # the way to a worse price for this side
        quantity = chance.randint(1, 30)
        if dice < 0.54:
            return self._enter(instrument, sell, fair - worse * int(abs(chance.gauss(0, 6))), quantity)
        if dice < 0.80:
            return self._enter(instrument, sell, fair + worse * chance.randint(2, 6), quantity, TIF_IOC)
        if dice < 0.88:
            return self._enter(instrument, sell, 0, quantity, TYPE_MARKET | TIF_IOC)
        if dice < 0.94:
            return self._enter(instrument, sell, fair + worse * chance.randint(1, 5), 2 * quantity, TIF_FOK)
        return self._enter(instrument, sell, fair - worse * chance.randint(-1, 4), quantity, POST_ONLY)

    def _change(self, target: int) -> Command:
        order = self.orders[target]
        price = order.price + self.chance.randint(-2, 2)
        meaning = self.chance.choice((MEANING_TOTAL, MEANING_OPEN, MEANING_REDUCE_BY))
        if meaning == MEANING_REDUCE_BY:
            return self._replace(target, order.price, self.chance.randint(1, order.open), meaning)
        return self._replace(target, price, order.open + self.chance.randint(0, 10), meaning)


def made_traders(
    traders: int, instruments: Sequence[Instrument], seed: int, first_id: int = 1, first_account: int = 1
) -> list[Agent]:
    """Half of them makers, at least one if any; the makers' ladders are deep enough for RESTING_GOAL orders."""
    news = News(instruments, seed)
    makers = (traders + 1) // 2
    sides = 2 * max(1, makers) * max(1, len(instruments))
    levels = max(LEVELS_MIN, -(-RESTING_GOAL // sides))
    agents: list[Agent] = []
    for i in range(traders):
        account = first_account + i
        if i < makers:
            agents.append(MarketMaker(account, instruments, news, seed, first_id, levels))
        else:
            agents.append(Noise(account, instruments, news, seed, first_id))
    return agents

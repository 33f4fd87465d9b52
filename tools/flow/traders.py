"""Seeded traders, without a venue: what they know is what was reported to them, and they return commands.

Market makers keep a ladder of quotes around a fair price that wanders; noise traders do everything else an order
entry allows: every type, time in force and condition, pairs of which one cancels the other, cancels, mass cancels,
and replaces in all three ways of stating a quantity. Together they use every mode of self-trade prevention. Every
other instrument is plain: nothing but limit and market orders is ever entered there, so that a venue's plain way is
gone as well as its careful one. While an instrument gathers orders for an auction, they enter only what may rest.
With one seed and the same reports and news at the same times, an agent sends the same commands.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    CANCEL,
    CANCELED,
    CAPPED,
    FLAG_SELL,
    MASS_CANCEL,
    MASS_CANCELED,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    MEANING_TOTAL,
    NEW,
    POST_ONLY,
    REFUSED,
    REPLACE,
    REPLACED,
    RESTATED,
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
    TOO_LATE,
    TRADED,
    TRIGGERED,
    TYPE_ICEBERG,
    TYPE_LIMIT,
    TYPE_MARKET,
    TYPE_MASK,
    TYPE_PEG_BID,
    TYPE_PEG_MID,
    TYPE_PEG_OFFER,
    TYPE_STOP,
    TYPE_STOP_LIMIT,
    UNAVAILABLE,
    UNKNOWN_ORDER,
    ReportRow,
    Terms,
)
from proto.feed import AUCTION, CLOSED, HALTED, OPEN, PRE_OPEN
from proto.instrument import Instrument

NEWS_STEP_S: Final = 0.25  # how often a fair price moves
RESTING_GOAL: Final = 1_400  # orders that the makers of a venue keep resting, all together
LEVELS_MIN: Final = 20  # quotes a side that a maker keeps at least
RESIZES_MAX: Final = 20  # quotes that a maker changes at once for no other reason than to be busy
NOISE_ORDERS_MAX: Final = 40  # an account of noise with more live orders cancels before it enters
AWAY_S: Final = 1.0  # how long an instrument whose engine does not answer is left alone
GTD_S: Final = (0.5, 5)  # how long an order that is good until a time may live
CROSSING_SD: Final = 6.0  # ticks around the fair price at which noise enters while an auction gathers orders
FIRST_ACCOUNT: Final = 101  # of a run's own; those below are for whoever plays with its venue
STP_MODES: Final = (STP_CANCEL_NEWEST, STP_NONE, STP_CANCEL_OLDEST, STP_CANCEL_BOTH, STP_DECREMENT)


class Command(NamedTuple):
    """One row of a command batch."""

    op: int
    client_order_id: int
    instrument: int
    flags: int
    price: int
    quantity: int
    target: int
    terms: Terms | None = None

    def entered_as(self, row: ReportRow) -> bool:
        """Whether an ACCEPTED tells of the very order that this is. A price that has no meaning is not looked at."""
        limit = self.price if self.flags & TYPE_MASK in (TYPE_LIMIT, TYPE_ICEBERG) else row.price
        return (self.instrument, self.flags & FLAG_SELL, self.quantity, limit) == (
            row.instrument, row.flags & FLAG_SELL, row.quantity, row.price,
        )  # fmt: skip


@dataclass(slots=True)
class OwnOrder:
    """A live order as the reports tell it; `wanted` is the price it is being moved to, or rests at."""

    instrument: int
    sell: int
    price: int
    open: int
    wanted: int
    busy: bool = False  # a command about it is on its way
    stop_price: int = 0  # of a stop that sleeps
    wanted_stop: int = 0  # where it is being moved to
    linked: bool = False  # one of a pair
    expires_ns: int = 0  # good till then; 0: without an end


class News:
    """The fair price of each instrument: a random walk that all agents of a run share, in ticks, and the trading states
    that they have heard of. An instrument with an auction reference begins there.

    Cost: O(1) for each step of time passed.
    """

    def __init__(self, instruments: Sequence[Instrument], seed: int) -> None:
        self._instruments = {instrument.id: instrument for instrument in instruments}
        self._chance = {i.id: random.Random(f"{seed}/news/{i.symbol}") for i in instruments}
        self._step = {i.id: 0 for i in instruments}
        self._fair: dict[int, int] = {}
        self.states = {i.id: OPEN for i in instruments}
        self.jumps = {i.id: 0 for i in instruments}  # how many there were
        for i in instruments:
            low, high = max(i.price_min, 2_000), min(i.price_max, 20_000)
            begin = self._chance[i.id].randint(low, high) if low < high else (i.price_min + i.price_max) // 2
            self._fair[i.id] = i.auction_reference or begin

    def jump(self, instrument: int, ticks: int) -> None:
        """Something happened: from now on an instrument is worth that much more."""
        self._fair[instrument] += ticks
        self.jumps[instrument] += 1

    def enter(self, states: Mapping[int, int]) -> None:
        """Instruments are in these trading states now."""
        self.states.update(states)

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
        self.stp = STP_CANCEL_NEWEST
        self.clock_ns = 0  # the venue's time at 0 s
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
        if row.command and (row.kind in (ACCEPTED, REPLACED, CANCELED, MASS_CANCELED, REFUSED)):
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
            if order.stop_price and row.kind == REPLACED:
                order.stop_price = order.wanted_stop
        elif row.kind == TRIGGERED:
            order.stop_price = 0
        elif row.kind == RESTATED:
            order.open = row.open
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
        """The instruments that take orders, whose engines answer, or may do so again."""
        for instrument, until_s in list(self._unavailable.items()):
            if until_s is None:
                self._unavailable[instrument] = now_s + AWAY_S
            elif until_s <= now_s:
                del self._unavailable[instrument]
        states, away = self.news.states, self._unavailable
        return tuple(i for i in self.instruments if i.id not in away and states[i.id] not in (HALTED, CLOSED))

    def _enter(
        self, instrument: int, sell: int, price: int, quantity: int, flags: int = 0, terms: Terms | None = None
    ) -> Command:
        price = self._within(instrument, price)
        flags |= FLAG_SELL if sell else 0
        command = Command(NEW, self._id(), instrument, flags, price, quantity, 0, terms)
        stop_price = terms.stop_price if terms else 0
        order = OwnOrder(instrument, sell, price, quantity, price, busy=True, stop_price=stop_price)
        if terms and flags & TIF_MASK == TIF_GTD:
            order.expires_ns = terms.expires_ns
        if terms and terms.oco:
            order.linked = self.orders[terms.oco].linked = True
        self.orders[command.client_order_id] = order
        self._about[command.client_order_id] = 0
        return command

    def _within(self, instrument: int, price: int) -> int:
        limits = self._limits[instrument]
        return min(max(price, limits.price_min), limits.price_max)

    def _cancel(self, target: int) -> Command:
        order = self.orders[target]
        order.busy = True
        command = Command(CANCEL, self._id(), order.instrument, 0, 0, 0, target)
        self._about[command.client_order_id] = target
        return command

    def _cancel_all(self, instrument: int) -> Command:
        command = Command(MASS_CANCEL, self._id(), instrument, 0, 0, 0, 0)
        self._about[command.client_order_id] = 0
        return command

    def _replace(self, target: int, price: int, quantity: int, meaning: int) -> Command:
        """A stop that sleeps is moved by as much as its limit."""
        order = self.orders[target]
        price = self._within(order.instrument, price)
        order.wanted_stop = self._within(order.instrument, order.stop_price + price - order.price)
        terms = Terms(order.wanted_stop) if order.stop_price else None
        order.busy = True
        order.wanted = price
        command = Command(REPLACE, self._id(), order.instrument, meaning, price, quantity, target, terms)
        self._about[command.client_order_id] = target
        return command

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


class MarketMaker(Agent):
    """Keeps `levels` quotes a side on every instrument, one a tick, and moves those left behind when the fair price
    has moved; when it has jumped, it pulls them all. With time to spare, it changes their sizes. Its first commands are
    its opening ladders."""

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
        self._force = TIF_DAY if account % 2 else TIF_GTC
        self._next = 0  # the instrument to look after next, in turn
        self._jumps = dict(news.jumps)  # those it has answered

    def act(self, now_s: float, commands: int) -> list[Command]:
        sent: list[Command] = []
        instruments = self._open_to(now_s)
        for _ in instruments:
            if len(sent) >= commands:
                break
            instrument = instruments[self._next % len(instruments)]
            self._next += 1
            if self._jumps[instrument.id] != self.news.jumps[instrument.id]:
                self._jumps[instrument.id] = self.news.jumps[instrument.id]
                sent.append(self._cancel_all(instrument.id))
                continue
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
                sent.append(self._enter(instrument, sell, price, self.chance.randint(1, 40), self._force))
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

    def __init__(
        self, account: int, instruments: Sequence[Instrument], news: News, seed: int, first_id: int = 1
    ) -> None:
        super().__init__(account, instruments, news, seed, first_id)
        resting: list[tuple[int, Callable[[Wish], Command]]] = [
            (6, self._iceberg), (4, self._stop), (4, self._stop_limit), (6, self._peg), (3, self._minimum),
            (3, self._all_or_none), (4, self._until), (4, self._pair), (7, self._post_only),
        ]  # fmt: skip
        at_once: list[tuple[int, Callable[[Wish], Command]]] = [
            (24, self._limit), (8, self._through), (26, self._ioc), (8, self._market), (8, self._fok),
            (2, self._minimum_at_once),
        ]  # fmt: skip
        self._open_kinds = Mix([*resting, *at_once])
        self._gathering_kinds = Mix([*resting, (40, self._crossing)])
        self._plain_open_kinds = Mix(
            [(48, self._limit), (12, self._through), (26, self._ioc), (8, self._market), (8, self._fok)]
        )
        self._plain_gathering_kinds = Mix([(1, self._crossing)])

    def act(self, now_s: float, commands: int) -> list[Command]:
        instruments = self._open_to(now_s)
        return [self._one(now_s, instruments) for _ in range(commands)] if instruments else []

    def _one(self, now_s: float, instruments: Sequence[Instrument]) -> Command:
        chance = self.chance
        open_to = dict.fromkeys(instrument.id for instrument in instruments)
        idle = [i for i, order in self.orders.items() if not order.busy and order.instrument in open_to]
        if len(self.orders) >= NOISE_ORDERS_MAX and idle:  # those good till a time are left to their end
            return self._cancel(next((i for i in idle if not self.orders[i].expires_ns), idle[0]))
        dice = chance.random()
        if idle and dice < 0.12:
            return self._cancel(chance.choice(idle))
        if idle and dice < 0.24:
            return self._change(chance.choice(idle))
        instrument = chance.choice(instruments).id
        if dice > 0.998:
            return self._cancel_all(instrument)
        sell = chance.randint(0, 1)
        fair = self.news.fair(instrument, now_s)
        wish = Wish(instrument, sell, fair, -1 if sell else 1, chance.randint(1, 30), now_s)
        gathering = self.news.states[instrument] in (PRE_OPEN, AUCTION)
        if is_plain(instrument):
            kinds = self._plain_gathering_kinds if gathering else self._plain_open_kinds
        else:
            kinds = self._gathering_kinds if gathering else self._open_kinds
        return kinds.drawn(chance)(wish)

    def _change(self, target: int) -> Command:
        order = self.orders[target]
        price = order.price + self.chance.randint(-2, 2)
        meaning = self.chance.choice((MEANING_TOTAL, MEANING_OPEN, MEANING_REDUCE_BY))
        if meaning == MEANING_REDUCE_BY:
            return self._replace(target, order.price, self.chance.randint(1, order.open), meaning)
        return self._replace(target, price, order.open + self.chance.randint(0, 10), meaning)

    # Kinds of orders

    def _rests_at(self, wish: "Wish") -> int:
        return wish.fair - wish.worse * int(abs(self.chance.gauss(0, 6)))

    def _force(self) -> int:
        return self.chance.choice((TIF_GTC, TIF_DAY))

    def _new(self, wish: "Wish", price: int, flags: int, terms: Terms | None = None) -> Command:
        return self._enter(wish.instrument, wish.sell, price, wish.quantity, flags, terms)

    def _limit(self, wish: "Wish") -> Command:
        return self._new(wish, self._rests_at(wish), self._force())

    def _through(self, wish: "Wish") -> Command:
        """Beyond the other side's best, so that it takes, and rests with what is left."""
        return self._new(wish, wish.fair + wish.worse * self.chance.randint(2, 6), self._force())

    def _crossing(self, wish: "Wish") -> Command:
        """Somewhere around the fair price, on either side of it."""
        return self._new(wish, wish.fair + int(self.chance.gauss(0, CROSSING_SD)), self._force())

    def _ioc(self, wish: "Wish") -> Command:
        return self._new(wish, wish.fair + wish.worse * self.chance.randint(2, 6), TIF_IOC)

    def _market(self, wish: "Wish") -> Command:
        return self._new(wish, 0, TYPE_MARKET | TIF_IOC)

    def _fok(self, wish: "Wish") -> Command:
        price = wish.fair + wish.worse * self.chance.randint(1, 5)
        return self._new(wish._replace(quantity=2 * wish.quantity), price, TIF_FOK)

    def _post_only(self, wish: "Wish") -> Command:
        return self._new(wish, wish.fair - wish.worse * self.chance.randint(-1, 4), POST_ONLY | self._force())

    def _iceberg(self, wish: "Wish") -> Command:
        quantity = wish.quantity + 10
        terms = Terms(display=self.chance.randint(1, quantity // 2))
        return self._new(wish._replace(quantity=quantity), self._rests_at(wish), TYPE_ICEBERG | self._force(), terms)

    def _stop_terms(self, wish: "Wish") -> Terms:
        return Terms(stop_price=self._within(wish.instrument, wish.fair + wish.worse * self.chance.randint(2, 25)))

    def _stop(self, wish: "Wish") -> Command:
        return self._new(wish, 0, TYPE_STOP | self._force(), self._stop_terms(wish))

    def _stop_limit(self, wish: "Wish") -> Command:
        terms = self._stop_terms(wish)
        price = terms.stop_price + wish.worse * self.chance.randint(0, 5)
        return self._new(wish, price, TYPE_STOP_LIMIT | self._force(), terms)

    def _peg(self, wish: "Wish") -> Command:
        """To the bid, the offer or the middle; at times with a worst price, at times post-only."""
        chance = self.chance
        kind = chance.choice((TYPE_PEG_BID, TYPE_PEG_OFFER, TYPE_PEG_MID))
        away = chance.randint(1, 5) if kind == (TYPE_PEG_BID if wish.sell else TYPE_PEG_OFFER) else chance.randint(0, 5)
        capped, post_only = chance.random() < 0.3, chance.random() < 0.2
        flags = kind | self._force() | (CAPPED if capped else 0) | (POST_ONLY if post_only else 0)
        worst = wish.fair + wish.worse * 10 if capped else 0
        return self._new(wish, worst, flags, Terms(offset=-wish.worse * away))

    def _minimum(self, wish: "Wish") -> Command:
        terms = Terms(minimum=self.chance.randint(1, wish.quantity))
        return self._new(wish, self._rests_at(wish), self._force(), terms)

    def _minimum_at_once(self, wish: "Wish") -> Command:
        terms = Terms(minimum=self.chance.randint(1, wish.quantity))
        return self._new(wish, wish.fair + wish.worse * self.chance.randint(2, 6), TIF_IOC, terms)

    def _all_or_none(self, wish: "Wish") -> Command:
        return self._new(wish, self._rests_at(wish), ALL_OR_NONE | self._force())

    def _until(self, wish: "Wish") -> Command:
        expires_ns = self.clock_ns + int((wish.now_s + self.chance.uniform(*GTD_S)) * 1e9)
        return self._new(wish, self._rests_at(wish), TIF_GTD, Terms(expires_ns=expires_ns))

    def _pair(self, wish: "Wish") -> Command:
        """A stop that goes when a limit order of ours goes, and the other way; that limit order, if there is none."""
        for i, order in self.orders.items():
            if order.instrument == wish.instrument and order.sell == wish.sell and not (order.linked or order.busy):
                terms = self._stop_terms(wish)._replace(oco=i)
                return self._new(wish._replace(quantity=order.open), 0, TYPE_STOP | self._force(), terms)
        return self._limit(wish)


class Wish(NamedTuple):
    """What a new order is to be about; `worse` is the way to a worse price for its side."""

    instrument: int
    sell: int
    fair: int
    worse: int
    quantity: int
    now_s: float


class Mix:
    """Kinds of orders, each with its weight."""

    def __init__(self, kinds: Sequence[tuple[int, Callable[[Wish], Command]]]) -> None:
        self._weights = [weight for weight, _ in kinds]
        self._kinds = [kind for _, kind in kinds]

    def drawn(self, chance: random.Random) -> Callable[[Wish], Command]:
        (kind,) = chance.choices(self._kinds, self._weights)
        return kind


def is_plain(instrument: int) -> bool:
    """Whether nothing but limit and market orders is entered there."""
    return instrument % 2 == 1


def made_traders(
    traders: int, instruments: Sequence[Instrument], seed: int, first_id: int = 1, first_account: int = 1
) -> list[Agent]:
    """Half of them makers, at least one if any; the makers' ladders are deep enough for RESTING_GOAL orders.

    The others take the modes of self-trade prevention in turn.
    """
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
            agents[-1].stp = STP_MODES[(i - makers) % len(STP_MODES)]
    return agents

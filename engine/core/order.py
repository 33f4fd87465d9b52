"""An order, and the account that entered it.

An account remembers its commands by their client order ids: its orders, live
and dead, and what it was answered to anything else. One look there finds an
order to cancel, tells a repeat from a new command, and tells an order that is
gone from one that never was.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, TypeAlias

from proto.columns import FLAG_SELL, Boxed, Terms


class Node:
    """A place in a ring; it has no neighbours until it is put into one."""

    __slots__ = ("next", "prev")

    prev: Node
    next: Node


NOWHERE: Final = Node()  # where an order points that rests in no ring


class Order(Node):
    """An order, from its entry until its account forgets it.

    `quantity` is the total, `open` what may still trade, `filled` what has
    traded; open + filled == quantity until the order is canceled, when open
    becomes 0. An order is live while open > 0. `entered` is None, or flags, price
    and quantity as they were entered, once a replace has changed them. `more` is
    None for a plain order. Both are in `past`, one field, since most orders have
    neither.
    """

    __slots__ = (
        "account",
        "client_order_id",
        "filled",
        "flags",
        "instrument",
        "open",
        "order_id",
        "past",
        "price",
        "quantity",
        "session",
        "side",
    )

    def __init__(
        self,
        account: Account,
        client_order_id: Boxed,
        order_id: Boxed,
        instrument: int,
        flags: int,
        price: Boxed,
        quantity: Boxed,
        session: int,
    ) -> None:
        self.account = account
        self.client_order_id = client_order_id
        self.order_id = order_id
        self.instrument = instrument
        self.flags = flags
        self.side = flags & FLAG_SELL
        self.price = price
        self.quantity = quantity
        self.open: Boxed = quantity
        self.filled: Boxed = 0
        self.session = session
        self.past: tuple[int, int, int] | More | None = None

    @property
    def entered(self) -> tuple[int, int, int] | None:
        past = self.past
        return past.entered if isinstance(past, More) else past

    @property
    def more(self) -> More | None:
        past = self.past
        return past if isinstance(past, More) else None

    def extend(self) -> More:
        """Make it more than a plain order."""
        past = self.past
        if isinstance(past, More):
            return past
        more = More()
        more.entered = past
        self.past = more
        return more

    def remember(self, flags: int, price: Boxed, quantity: Boxed) -> None:
        """Note how it was entered, before that is changed for the first time: a repeat says it again."""
        past = self.past
        if past is None:
            self.past = (flags, price, quantity)
        elif isinstance(past, More) and past.entered is None:
            past.entered = (flags, price, quantity)


# Where a live order is.
IN_BOOK: Final = 0  # itself, or by its tip
INCOMING: Final = 1
STOP: Final = 2  # sleeping until it is triggered
PEG: Final = 3  # sleeping until there is a price
CONDITIONAL: Final = 4  # off the visible book
LAPSED: Final = 5  # on its way into the book


class More:
    """What only some orders have, so that the others need not carry it.

    entered    flags, price and quantity as they were entered, once they were changed
    terms      as entered; None if there were none
    special    whether more than the book has to hear when it trades or goes: a tip, a peg, one of a pair
    where      one of the places above
    turn       its place among those of its kind that wait; 0: it waits nowhere
    stp        the self-trade prevention mode that goes with the order when it takes
    display    lots an iceberg shows at most; 0: it is none
    tip        the part of an iceberg that is on the book, an order of its own there; `tips`: how many there were
    whole      of a tip: the iceberg
    minimum    lots that it must get at once; 0: any, or no longer
    all_or_none
    stop_price, offset; `fired`: the stop was triggered
    cap        the worst price of a capped peg
    partner    the order that is canceled when something happens to this one
    """

    __slots__ = (
        "all_or_none",
        "cap",
        "display",
        "entered",
        "fired",
        "minimum",
        "offset",
        "partner",
        "special",
        "stop_price",
        "stp",
        "terms",
        "tip",
        "tips",
        "turn",
        "where",
        "whole",
    )

    def __init__(self) -> None:
        self.entered: tuple[int, int, int] | None = None
        self.terms: Terms | None = None
        self.special = False
        self.where = IN_BOOK
        self.turn = 0
        self.stp = 0
        self.display = 0
        self.tip: Order | None = None
        self.tips = 0
        self.whole: Order | None = None
        self.minimum = 0
        self.all_or_none = False
        self.stop_price = 0
        self.fired = False
        self.offset = 0
        self.cap = 0
        self.partner: Order | None = None

    def state(self) -> tuple[object, ...]:
        """All of it that decides something, as plain values."""
        partner = self.partner.order_id if self.partner is not None else 0
        tip = (self.tip.order_id, self.tip.open) if self.tip is not None else None
        return (
            self.terms, self.where, self.stp, self.display, tip, self.tips, self.minimum,
            self.all_or_none, self.stop_price, self.fired, self.offset, self.cap, partner,
        )  # fmt: skip


def needs(order: Order) -> int:
    """How much `order` must get at once, as a conditional order; 0 if any will do."""
    more = order.more
    if more is None:
        return 0
    open: int = order.open
    return open if more.all_or_none else min(more.minimum, open)


def whole_of(order: Order) -> Order:
    """The order that one in the book stands for: itself, or the iceberg it is the tip of."""
    more = order.more
    return order if more is None or more.whole is None else more.whole


# A command: op, its own client order id, instrument, flags, price, quantity, target.
Row: TypeAlias = tuple[int, Boxed, int, int, Boxed, Boxed, Boxed]

# What a command was that entered no order, the report it got, and its terms if it had any.
Answer: TypeAlias = tuple[Row, tuple[int, ...], Terms | None]


class Account:
    """An account as one engine knows it.

    `commands` holds every live order and what was done by other commands: an order
    also stands under the command that canceled it.
    `reports` and `repeats` are flat report rows not yet released; reports are
    numbered, and `next_seq` is the number of the first of them.
    """

    __slots__ = ("_aside", "_count", "_noted", "_passed", "commands", "id", "next_seq", "repeats", "reports")

    def __init__(self, id: int) -> None:
        self.id = id
        self.commands: dict[int, Order | Answer] = {}
        self._noted: deque[list[Boxed]] = deque()  # ids by batch, the oldest first
        self._passed = 0  # of the oldest batch, forgotten already
        self._count = 0  # ids in them, but for those
        self._aside: deque[Boxed] = deque()  # ids of orders that were live when they were the oldest
        self.next_seq = 1
        self.reports: list[int] = []
        self.repeats: list[int] = []

    def note(self, ids: list[Boxed], before: int) -> None:
        """Note the commands of a batch that has just been answered, in their order; the list must not change any more.

        `before` is how many commands were known before it. A repeat is no command of its own, and neither is one
        that was refused because its id is taken: they are not noted, or they would push out the command they repeat.
        """
        new = len(self.commands) - before
        if new != len(ids):
            ids = list(islice(reversed(self.commands), new))
            ids.reverse()
        if new:
            self._noted.append(ids)
            self._count += new

    def restore(self, noted: list[Boxed], aside: list[Boxed]) -> None:
        """Take up what `noted` and `aside` told."""
        self._noted.append(noted)
        self._count = len(noted)
        self._aside.extend(aside)

    def noted(self) -> list[int]:
        """The commands noted and not forgotten, the oldest first. Cost: O(n)."""
        return [id for ids in self._noted for id in ids][self._passed :]

    def aside(self) -> list[int]:
        """The orders that outlived what was noted with them, in the order in which they are looked at again."""
        return list(self._aside)

    def forget(self, retained: int, looks: int) -> None:
        """Drop the oldest commands beyond `retained`. Live orders are put aside, where they take no room; one that is
        seen to be dead, at one of so many `looks`, is noted as if it were new.

        Cost: O(1) for each command noted since the last time, and for each look.
        """
        commands = self.commands
        aside = self._aside
        while self._count > retained:
            first = self._passed
            oldest = self._noted[0][first : first + self._count - retained]
            self._count -= len(oldest)
            self._passed += len(oldest)
            if self._passed == len(self._noted[0]):
                self._noted.popleft()
                self._passed = 0
            for client_order_id in oldest:
                known = commands[client_order_id]
                if isinstance(known, Order) and known.open:
                    aside.append(client_order_id)
                else:
                    del commands[client_order_id]
        if aside:
            dead: list[Boxed] = []
            for _ in range(min(looks, len(aside))):
                client_order_id = aside.popleft()
                known = commands[client_order_id]
                if isinstance(known, Order) and known.open:
                    aside.append(client_order_id)
                else:
                    dead.append(client_order_id)
            if dead:
                self._noted.append(dead)
                self._count += len(dead)

    def live(self) -> list[Order]:
        """Its live orders, in the order of their entry. Cost: O(n log n) in the commands remembered."""
        live = [known for known in self.commands.values() if isinstance(known, Order) and known.open]
        live.sort(key=by_entry)
        return live


def by_entry(order: Order) -> Boxed:
    """A key that sorts orders of an engine by their entry."""
    return order.order_id

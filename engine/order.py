"""An order, and the account that entered it.

An account remembers its commands by their client order ids: its orders, live
and dead, and what it was answered to anything else. One look there finds an
order to cancel, tells a repeat from a new command, and tells an order that is
gone from one that never was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from engine.types import FLAG_SELL


class Node:
    """A place in a ring."""

    __slots__ = ("next", "prev")

    prev: Node
    next: Node


NOWHERE: Final = Node()  # where an order points that rests in no ring


class Order(Node):
    """An order, from its entry until its account forgets it.

    `quantity` is the total, `open` what may still trade, `filled` what has
    traded; open + filled == quantity until the order is canceled, when open
    becomes 0. An order is live while open > 0. `entered` is None, or flags, price
    and quantity as they were entered, once a replace has changed them.
    """

    __slots__ = (
        "account",
        "client_order_id",
        "entered",
        "filled",
        "flags",
        "instrument",
        "open",
        "order_id",
        "price",
        "quantity",
        "session",
        "side",
    )

    def __init__(
        self,
        account: Account,
        client_order_id: int,
        order_id: int,
        instrument: int,
        flags: int,
        price: int,
        quantity: int,
        session: int,
    ) -> None:
        self.prev: Node = NOWHERE
        self.next: Node = NOWHERE
        self.account = account
        self.client_order_id = client_order_id
        self.order_id = order_id
        self.instrument = instrument
        self.flags = flags
        self.side = flags & FLAG_SELL
        self.price = price
        self.quantity = quantity
        self.open = quantity
        self.filled = 0
        self.session = session
        self.entered: tuple[int, int, int] | None = None


class Answer:
    """What a command was that entered no order, and the report it got."""

    __slots__ = ("command", "report")

    def __init__(self, command: tuple[int, int, int, int, int, int], report: tuple[int, ...]) -> None:
        self.command = command  # op, instrument, flags, price, quantity, target
        self.report = report


class Account:
    """An account as one engine knows it.

    `commands` holds every live order and the last `retained` commands at least.
    `reports` and `repeats` are flat report rows not yet released; reports are
    numbered, and `next_seq` is the number of the first of them.
    """

    __slots__ = ("commands", "id", "next_seq", "recent", "repeats", "reports")

    def __init__(self, id: int) -> None:
        self.id = id
        self.commands: dict[int, Order | Answer] = {}
        self.recent: deque[int] = deque()
        self.next_seq = 1
        self.reports: list[int] = []
        self.repeats: list[int] = []

    def forget(self, retained: int) -> None:
        """Drop the oldest commands beyond `retained`; a live order is kept and stands as new again. Cost: O(1) each."""
        recent = self.recent
        for _ in range(len(recent) - retained):
            client_order_id = recent.popleft()
            known = self.commands.get(client_order_id)
            if isinstance(known, Order) and known.open:
                recent.append(client_order_id)
            elif known is not None:
                del self.commands[client_order_id]

    def live(self) -> Iterator[Order]:
        """Its live orders, in the order of their entry. Cost: O(commands remembered)."""
        for known in self.commands.values():
            if isinstance(known, Order) and known.open:
                yield known

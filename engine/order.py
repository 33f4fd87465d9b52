"""An order, and the account that entered it.

An account remembers its commands by their client order ids: its orders, live
and dead, and what it was answered to anything else. One look there finds an
order to cancel, tells a repeat from a new command, and tells an order that is
gone from one that never was.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from engine.types import FLAG_SELL, Boxed


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
        self.entered: tuple[int, int, int] | None = None


# A command: op, its own client order id, instrument, flags, price, quantity, target.
Row: TypeAlias = tuple[int, Boxed, int, int, Boxed, Boxed, Boxed]

# What a command was that entered no order, and the report it got.
Answer: TypeAlias = tuple[Row, tuple[int, ...]]


class Account:
    """An account as one engine knows it.

    `commands` holds every live order and what was done by other commands: an order
    also stands under the command that canceled it.
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

    def forget(self, retained: int, limit: int) -> None:
        """Drop the oldest commands beyond `retained`; a live order is kept and stands as new again.

        Cost: O(1) each, at most `limit`: with twice as many as came in, live orders
        beyond `retained` are passed over without being looked at again and again.
        """
        recent = self.recent
        commands = self.commands
        for _ in range(min(len(recent) - retained, limit)):
            client_order_id = recent.popleft()
            known = commands.pop(client_order_id, None)
            if isinstance(known, Order) and known.open:
                commands[client_order_id] = known
                recent.append(client_order_id)

    def live(self) -> list[Order]:
        """Its live orders, in the order of their entry. Cost: O(n log n) in the commands remembered."""
        live = [known for known in self.commands.values() if isinstance(known, Order) and known.open]
        live.sort(key=_by_entry)
        return live


def _by_entry(order: Order) -> Boxed:
    return order.order_id

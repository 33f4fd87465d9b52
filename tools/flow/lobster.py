"""LOBSTER's record of a day, turned into the orders that caused it.

`plan` makes steps out of messages and books; whoever has a venue sends their commands, in order, and may have its
answers judged by `tools.flow.lobster_check`. How commands travel is no business of either, so a core in process and a
cluster over gRPC are driven and judged alike.

How messages become commands:

- 1 is a limit order, 2 a replace that reduces, 3 a cancel. 5 (hidden), 6 (cross) and 7 (halt) change no visible book
  and become nothing; their rows are judged all the same.
- Adjacent 4s with one time and direction were one aggressive order: an IOC order of the other side with their size in
  all, at the worst of their prices. It must return the same fills.
- Ids rise with time and so are priority. One that enters behind higher ids at its price (the opening cross brings such)
  makes those give up their place and queue again.

What the file does not tell:

- Orders that rested before it begins. The first book says how much rested at each price. A first pass over the messages
  finds which orders that were, and their sizes: those never entered, at a price that stayed in view until they are
  named. What is left of a level is one order without a name.
- What happens out of view. A book file shows so many levels; an order at a price beyond them enters, shrinks and leaves
  in silence. When a row shows a price that the row before did not, its size is taken from the row: if it is more than
  was known, the rest is an order without a name, behind those known; if it is less, orders have gone, and those go that
  are not named again (the first pass knows), newest first. A message about an order that never entered is about
  those without a name at its price.

Nothing else looks ahead. A price in view in both rows is never put right: there the venue is judged.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from proto.columns import (
    CANCEL,
    FLAG_SELL,
    MEANING_OPEN,
    MEANING_REDUCE_BY,
    NEW,
    REPLACE,
    REQUEUE,
    TIF_IOC,
)
from tools.flow.messages import DELETED, EXECUTED, REDUCED, SUBMITTED, BookRow, Message

# Client order ids of what the file has no id for. Its own ids are far below.
NAMELESS: Final = 1 << 62  # resting orders
OWN: Final = 1 << 63  # aggressive orders, cancels and replaces

Levels = Sequence[tuple[int, int]]  # (price, size), best first


class Command(NamedTuple):
    """A command without account and instrument, which are the driver's business."""

    op: int
    client_order_id: int
    flags: int
    price: int
    quantity: int
    target: int


class Fill(NamedTuple):
    """A trade with a resting order: by the file's id, or, without a name, by NAMELESS and more."""

    order_id: int
    size: int
    price: int


class Step(NamedTuple):
    """What one event of the file becomes: `commands`, then the book is judged against `book`, then `after`.

    `row` is the event's last row, from 1; 0 stands for the seeding. `fills` are those of the aggressive order in
    `commands`, or none. `after` takes over what came into view. `floors` are the worst prices (bid, ask) that were in
    view before the event as well as after, None if all were.
    """

    row: int
    commands: tuple[Command, ...]
    fills: tuple[Fill, ...]
    book: BookRow | None
    floors: tuple[int | None, int | None]
    after: tuple[Command, ...]


def merged(fills: Iterable[Fill]) -> tuple[Fill, ...]:
    """Fills of one order at one price that follow each other, as one, since a venue would not part them."""
    result: list[Fill] = []
    for fill in fills:
        size = fill.size
        if result and result[-1].order_id == fill.order_id and result[-1].price == fill.price:
            size += result.pop().size
        result.append(Fill(fill.order_id, size, fill.price))
    return tuple(result)


def is_taker(command: Command) -> bool:
    """Whether this is an aggressive order, not one that came to rest."""
    return command.op == NEW and command.client_order_id > OWN


def plan(messages: Sequence[Message], books: Sequence[BookRow] = ()) -> Iterator[Step]:
    """The steps of a file, the seeding first. Cost: about 20 us a message.

    Without books, an order that never entered does so when it is first named, and no row can be judged.
    """
    return _Planner(messages, books).steps()


class _Planner:
    """The book as the file tells it, by order: bids and asks as price -> {order id: size}, in queue order."""

    def __init__(self, messages: Sequence[Message], books: Sequence[BookRow]) -> None:
        self._messages = messages
        self._books = books
        self._depth = max((max(len(book.bids), len(book.asks)) for book in books), default=0)
        self._sides: dict[int, dict[int, dict[int, int]]] = {1: {}, -1: {}}
        self._seniority: dict[int, int] = {}
        self._newest = 0  # the highest id that has entered
        self._nameless = NAMELESS
        self._own = OWN
        self._commands: list[Command] = []
        self._last_named: dict[int, int] = {}  # order id -> index of the last message about it
        self._never_entered: dict[int, tuple[int, Message, int]] = {}  # -> first index, first message, size in all
        self._first_pass()

    def steps(self) -> Iterator[Step]:
        before = self._seed()
        yield Step(0, self._taken(), (), None, (None, None), ())
        end = 0
        while end < len(self._messages):
            start, end = end, self._event_end(end)
            fills = self._event(start, end)
            commands = self._taken()
            if not self._books:
                yield Step(end, commands, fills, None, (None, None), ())
                continue
            book = self._books[end - 1]
            floors = self._look(end, 1, before.bids, book.bids), self._look(end, -1, before.asks, book.asks)
            yield Step(end, commands, fills, book, floors, self._taken())
            before = book

    # Before the first message

    def _first_pass(self) -> None:
        entered = {message.order_id for message in self._messages if message.kind == SUBMITTED}
        for i, message in enumerate(self._messages):
            if message.kind in (REDUCED, DELETED, EXECUTED):
                self._last_named[message.order_id] = i
                if message.order_id not in entered:
                    first, named, size = self._never_entered.get(message.order_id, (i, message, 0))
                    self._never_entered[message.order_id] = first, named, size + message.size

    def _seed(self) -> BookRow:
        """Enter what rested before the first message, and say what that was."""
        resting: dict[tuple[int, int], list[int]] = {}
        for order_id in sorted(self._never_entered):
            _, message, _ = self._never_entered[order_id]
            resting.setdefault((message.direction, message.price), []).append(order_id)
        if not self._books:
            return BookRow((), ())
        start = _before(self._books[0], self._messages[0])
        for direction, levels in ((1, start.bids), (-1, start.asks)):
            for price, size in levels:
                for order_id in resting.get((direction, price), ()):
                    first, _, known = self._never_entered[order_id]
                    if known <= size and self._stays_in_view(direction, price, first):
                        self._enter(direction, price, order_id, known)
                        size -= known
                if size:
                    self._enter_nameless(direction, price, size)
        return start

    def _stays_in_view(self, direction: int, price: int, until: int) -> bool:
        for book in self._books[:until]:
            floor = self._floor(book.bids if direction == 1 else book.asks)
            if floor is not None and price * direction < floor * direction:
                return False
        return True

    def _floor(self, levels: Levels) -> int | None:
        """The worst price in view; None when the side has room for more, so that all of it is."""
        return levels[-1][0] if len(levels) == self._depth else None

    # One event

    def _event_end(self, start: int) -> int:
        first = self._messages[start]
        end = start + 1
        if first.kind == EXECUTED:
            while end < len(self._messages) and _same_taker(first, self._messages[end]):
                end += 1
        return end

    def _event(self, start: int, end: int) -> tuple[Fill, ...]:
        message = self._messages[start]
        if message.kind == EXECUTED:
            return self._aggressive(start, end)
        if message.kind == SUBMITTED:
            self._newest = max(self._newest, message.order_id)
            self._enter(message.direction, message.price, message.order_id, message.size)
        elif message.kind in (REDUCED, DELETED):
            for order_id, size in self._named(start, message):
                self._reduce(message.direction, message.price, order_id, size)
        return ()

    def _aggressive(self, start: int, end: int) -> tuple[Fill, ...]:
        fills: list[Fill] = []
        direction = self._messages[start].direction
        size = 0
        for i in range(start, end):
            message = self._messages[i]
            size += message.size
            for order_id, part in self._named(i, message):
                self._forget(direction, message.price, order_id, part)
                fills.append(Fill(order_id, part, message.price))
        worst = min(fill.price * direction for fill in fills) * direction
        flags = TIF_IOC | (FLAG_SELL if direction == 1 else 0)
        self._commands.append(Command(NEW, self._next_own(), flags, worst, size, 0))
        return merged(fills)

    def _named(self, i: int, message: Message) -> list[tuple[int, int]]:
        """Which orders, as we know them, message `i` is about, and how much of each.

        The one it names; failing that those without a name at its price, one of just its size first; failing that
        those which are not named again, since one of them must have gone unseen and this one come.
        """
        level = self._sides[message.direction].get(message.price, {})
        if message.order_id in level:
            return [(message.order_id, message.size)]
        if not self._books:
            self._enter(message.direction, message.price, message.order_id, self._never_entered[message.order_id][2])
            return [(message.order_id, message.size)]
        stand_ins = [order_id for order_id in level if order_id >= NAMELESS]
        if message.kind != EXECUTED:
            stand_ins.sort(key=lambda order_id: level[order_id] != message.size)
        stand_ins += [order_id for order_id in level if order_id < NAMELESS and self._last_named.get(order_id, -1) < i]
        parts = []
        left = message.size
        for order_id in stand_ins:
            part = min(left, level[order_id])
            parts.append((order_id, part))
            left -= part
            if not left:
                return parts
        return [*parts, (message.order_id, left)]  # we never had it: the venue will say so

    # What came into view

    def _look(self, row: int, direction: int, before: Levels, after: Levels) -> int | None:
        """Take over, from the row, the prices of one side that were not in view before the event; say which were."""
        floor = self._floor(before)
        worst = self._floor(after)
        if floor is None:
            return worst
        shown = {price: size for price, size in after if price * direction < floor * direction}
        known = [
            price
            for price in self._sides[direction]
            if price * direction < floor * direction and (worst is None or price * direction >= worst * direction)
        ]
        for price in sorted({*shown, *known}):
            size = sum(self._sides[direction].get(price, {}).values())
            if shown.get(price, 0) > size:
                self._enter_nameless(direction, price, shown[price] - size)
            elif shown.get(price, 0) < size:
                self._gone(row, direction, price, size - shown.get(price, 0))
        return floor if worst is None or floor * direction > worst * direction else worst

    def _gone(self, row: int, direction: int, price: int, size: int) -> None:
        """Orders of `size` in all left this price unseen."""
        level = self._sides[direction][price]
        for order_id in sorted(level, reverse=True):
            if order_id < NAMELESS and self._last_named.get(order_id, -1) < row and level[order_id] <= size:
                size -= level[order_id]
                self._reduce(direction, price, order_id, level[order_id])
        for order_id in sorted(level, key=lambda order_id: self._last_named.get(order_id, -1)):
            part = min(size, level[order_id])
            if part:
                size -= part
                self._reduce(direction, price, order_id, part)

    # The book, and the commands that change it

    def _enter_nameless(self, direction: int, price: int, size: int) -> None:
        self._nameless += 1
        self._enter(direction, price, self._nameless, size)

    def _enter(self, direction: int, price: int, order_id: int, size: int) -> None:
        level = self._sides[direction].setdefault(price, {})
        seniority = order_id
        if order_id >= NAMELESS:
            seniority = max([self._newest, *(self._seniority[other] for other in level)])
        self._seniority[order_id] = seniority
        juniors = [other for other in level if self._seniority[other] > seniority]
        level[order_id] = size
        flags = 0 if direction == 1 else FLAG_SELL
        self._commands.append(Command(NEW, order_id, flags, price, size, 0))
        for junior in juniors:
            level[junior] = level.pop(junior)
            self._replace(flags | MEANING_OPEN | REQUEUE, price, level[junior], junior)

    def _reduce(self, direction: int, price: int, order_id: int, size: int) -> None:
        level = self._sides[direction].get(price, {})
        flags = 0 if direction == 1 else FLAG_SELL
        if size < level.get(order_id, 0):
            self._replace(flags | MEANING_REDUCE_BY, price, size, order_id)
        else:
            self._commands.append(Command(CANCEL, self._next_own(), flags, 0, 0, order_id))
        self._forget(direction, price, order_id, size)

    def _replace(self, flags: int, price: int, quantity: int, target: int) -> None:
        self._commands.append(Command(REPLACE, self._next_own(), flags, price, quantity, target))

    def _forget(self, direction: int, price: int, order_id: int, size: int) -> None:
        level = self._sides[direction].get(price, {})
        if order_id in level:
            level[order_id] -= size
            if level[order_id] <= 0:
                del level[order_id]
            if not level:
                del self._sides[direction][price]

    def _next_own(self) -> int:
        self._own += 1
        return self._own

    def _taken(self) -> tuple[Command, ...]:
        commands = tuple(self._commands)
        self._commands.clear()
        return commands


def _same_taker(first: Message, other: Message) -> bool:
    return other.kind == EXECUTED and other.time_ns == first.time_ns and other.direction == first.direction


def _before(book: BookRow, message: Message) -> BookRow:
    """The book before `message`, given the one after it."""
    change = {SUBMITTED: -1, REDUCED: 1, DELETED: 1, EXECUTED: 1}.get(message.kind, 0) * message.size
    levels = dict(book.bids if message.direction == 1 else book.asks)
    levels[message.price] = levels.get(message.price, 0) + change
    prices = sorted(levels, reverse=message.direction == 1)
    side = tuple((price, levels[price]) for price in prices if levels[price] > 0)
    return BookRow(book.asks, side) if message.direction == 1 else BookRow(side, book.bids)

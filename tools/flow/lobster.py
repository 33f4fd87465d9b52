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

A day holds a few rows that no venue in price-time priority can agree with: an execution of an order that was not the
first at its price. `FlowStep.here` says what price and time give there; what differs is put right behind the row, so
that the next one is judged afresh: orders that should have traded go, and those that traded in their stead enter again
in their old places, under ids of their own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from sortedcontainers import SortedDict

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
AGAIN: Final = 1 << 61  # resting orders that entered a second time
NAMELESS: Final = 1 << 62  # resting orders
OWN: Final = 1 << 63  # aggressive orders, cancels and replaces

Levels = Sequence[tuple[int, int]]  # (price, size), best first


class FlowCommand(NamedTuple):
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


class FlowStep(NamedTuple):
    """What one event of the file becomes: `commands`, then the book is judged against `book`, then `after`.

    `row` is the event's last row, from 1; 0 stands for the seeding. `fills` are those of the aggressive order in
    `commands`, or none; `here` those that it has by price and time, which are others only where the file is not in that
    priority. `after` puts that right and takes over what came into view. `floors` are the worst prices (bid, ask) that
    were in view before the event as well as after, None if all were. `absent` orders are named by the file and rest
    nowhere: nothing is sent for them. `again` are orders that enter anew in `after`: their ids now, and in the file.
    """

    row: int
    commands: tuple[FlowCommand, ...]
    fills: tuple[Fill, ...]
    book: BookRow | None
    floors: tuple[int | None, int | None]
    after: tuple[FlowCommand, ...]
    here: tuple[Fill, ...] = ()
    absent: tuple[int, ...] = ()
    again: tuple[tuple[int, int], ...] = ()


def merged(fills: Iterable[Fill]) -> tuple[Fill, ...]:
    """Fills of one order at one price that follow each other, as one, since a venue would not part them."""
    result: list[Fill] = []
    for fill in fills:
        size = fill.size
        if result and result[-1].order_id == fill.order_id and result[-1].price == fill.price:
            size += result.pop().size
        result.append(Fill(fill.order_id, size, fill.price))
    return tuple(result)


def is_taker(command: FlowCommand) -> bool:
    """Whether this is an aggressive order, not one that came to rest."""
    return command.op == NEW and command.client_order_id > OWN


def plan(messages: Sequence[Message], books: Sequence[BookRow] = ()) -> Iterator[FlowStep]:
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
        self._sides: dict[int, SortedDict[int, dict[int, int]]] = {1: SortedDict(), -1: SortedDict()}
        self._again: dict[int, int] = {}  # order id of the file -> ours, of one that entered a second time
        self._named_so: dict[int, int] = {}  # and the other way round
        self._seniority: dict[int, int] = {}
        self._newest = 0  # the highest id that has entered
        self._nameless = NAMELESS
        self._own = OWN
        self._absent: list[int] = []
        self._returned: list[tuple[int, int]] = []
        self._commands: list[FlowCommand] = []
        self._last_named: dict[int, int] = {}  # order id -> index of the last message about it
        self._never_entered: dict[int, tuple[int, Message, int]] = {}  # -> first index, first message, size in all
        self._first_pass()

    def steps(self) -> Iterator[FlowStep]:
        before = self._seed()
        yield FlowStep(0, self._taken(), (), None, (None, None), ())
        end = 0
        while end < len(self._messages):
            start, end = end, self._event_end(end)
            here, fills = self._event(start, end)
            commands = self._taken()
            self._put_right(self._messages[start].direction, here, fills)
            absent, again = tuple(self._absent), tuple(self._returned)
            self._absent.clear()
            self._returned.clear()
            if not self._books:
                yield FlowStep(
                    end, commands, merged(fills), None, (None, None), self._taken(), merged(here), absent, again
                )
                continue
            book = self._books[end - 1]
            floors = self._look(end, 1, before.bids, book.bids), self._look(end, -1, before.asks, book.asks)
            yield FlowStep(end, commands, merged(fills), book, floors, self._taken(), merged(here), absent, again)
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
        nearest = {1: self._nearest_floors(1), -1: self._nearest_floors(-1)}
        for direction, levels in ((1, start.bids), (-1, start.asks)):
            for price, size in levels:
                for order_id in resting.get((direction, price), ()):
                    first, _, known = self._never_entered[order_id]
                    floor = nearest[direction][first]
                    if known <= size and (floor is None or price * direction >= floor * direction):
                        self._enter(direction, price, order_id, known)
                        size -= known
                if size:
                    self._enter_nameless(direction, price, size)
        return start

    def _nearest_floors(self, direction: int) -> list[int | None]:
        """By number of rows: the best of the prices beyond which nothing was in view in one of them."""
        found: list[int | None] = [None]
        for book in self._books:
            nearest, floor = found[-1], self._floor(book.bids if direction == 1 else book.asks)
            if nearest is None or (floor is not None and floor * direction > nearest * direction):
                nearest = floor
            found.append(nearest)
        return found

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

    def _event(self, start: int, end: int) -> tuple[list[Fill], list[Fill]]:
        """Add the commands of an event; the fills of its aggressive order by price and time, and those of the file."""
        message = self._messages[start]
        if message.kind == EXECUTED:
            return self._aggressive(start, end)
        if message.kind == SUBMITTED:
            self._newest = max(self._newest, message.order_id)
            self._enter(message.direction, message.price, message.order_id, message.size)
        elif message.kind in (REDUCED, DELETED):
            for order_id, size in self._named(start, message):
                self._reduce(message.direction, message.price, order_id, size)
        return [], []

    def _aggressive(self, start: int, end: int) -> tuple[list[Fill], list[Fill]]:
        messages = self._messages[start:end]
        direction = messages[0].direction
        if not self._books:
            for message in messages:
                self._enter_late(message)
        size = sum(message.size for message in messages)
        worst = min(message.price * direction for message in messages) * direction
        here = self._by_priority(direction, worst, size)
        fills: list[Fill] = []
        for i, message in enumerate(messages, start):
            for order_id, part in self._named(i, message):
                self._forget(direction, message.price, order_id, part)
                fills.append(Fill(order_id, part, message.price))
        flags = TIF_IOC | (FLAG_SELL if direction == 1 else 0)
        self._commands.append(FlowCommand(NEW, self._next_own(), flags, worst, size, 0))
        return here, fills

    def _by_priority(self, direction: int, worst: int, size: int) -> list[Fill]:
        """What an order of the other side trades with: best price first, and first come, first served."""
        fills: list[Fill] = []
        side = self._sides[direction]
        for price in reversed(side) if direction == 1 else iter(side):
            if price * direction < worst * direction:
                break
            for order_id, rests in side[price].items():
                part = min(size, rests)
                size -= part
                fills.append(Fill(order_id, part, price))
                if not size:
                    return fills
        return fills

    def _put_right(self, direction: int, here: Sequence[Fill], there: Sequence[Fill]) -> None:
        """Bring a venue that filled `here` to the book of a file that filled `there`."""
        more: dict[tuple[int, int], int] = {}  # price and order -> how much more of it traded here
        for fills, sign in ((here, 1), (there, -1)):
            for order_id, size, price in fills:
                more[price, order_id] = more.get((price, order_id), 0) + sign * size
        for (price, order_id), size in more.items():
            if size < 0 and order_id not in self._absent:
                self._take_away(direction, price, order_id, -size)
        gone = []  # here, and not in the file
        for (price, order_id), size in more.items():
            if size > 0:
                left = self._sides[direction][price].pop(order_id)
                gone.append((price, order_id, left))
                if left > size:
                    self._commands.append(FlowCommand(CANCEL, self._next_own(), 0, 0, 0, order_id))
        for price, order_id, left in gone:
            self._enter_again(direction, price, order_id, left)

    def _named(self, i: int, message: Message) -> list[tuple[int, int]]:
        """Which orders, as we know them, message `i` is about, and how much of each.

        The one it names; failing that those without a name at its price, one of just its size first; failing that
        those which are not named again, since one of them must have gone unseen and this one come.
        """
        self._enter_late(message)
        level = self._sides[message.direction].get(message.price, {})
        own = self._again.get(message.order_id, message.order_id)
        if own in level:
            return [(own, message.size)]
        parts: list[tuple[int, int]] = []
        left = message.size
        if not self._books:
            self._absent.append(message.order_id)
            return [(message.order_id, left)]
        stand_ins = [order_id for order_id in level if order_id >= NAMELESS]
        if message.kind != EXECUTED:
            stand_ins.sort(key=lambda order_id: level[order_id] != message.size)
        stand_ins += [order_id for order_id in level if order_id < NAMELESS and self._last_named.get(order_id, -1) < i]
        for order_id in stand_ins:
            part = min(left, level[order_id])
            parts.append((order_id, part))
            left -= part
            if not left:
                return parts
        self._absent.append(message.order_id)
        return [*parts, (message.order_id, left)]

    def _enter_late(self, message: Message) -> None:
        """Without books, an order that never entered does so when it is first named."""
        known = self._never_entered.get(message.order_id)
        if not self._books and known is not None and message.order_id not in self._seniority:
            self._enter(message.direction, message.price, message.order_id, known[2])

    # What came into view

    def _look(self, row: int, direction: int, before: Levels, after: Levels) -> int | None:
        """Take over, from the row, the prices of one side that were not in view before the event; say which were."""
        floor = self._floor(before)
        worst = self._floor(after)
        if floor is None:
            return worst
        shown = {price: size for price, size in after if price * direction < floor * direction}
        between = (worst, floor) if direction == 1 else (floor, worst)
        known = [price for price in self._sides[direction].irange(*between) if price != floor]
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

    def _enter(self, direction: int, price: int, order_id: int, size: int, seniority: int = 0) -> None:
        """Have it rest: in its place, which is its seniority's (0: its id's)."""
        level = self._sides[direction].setdefault(price, {})
        youngest = self._seniority[next(reversed(level))] if level else 0
        if not seniority:
            seniority = max(self._newest, youngest) if order_id >= NAMELESS else order_id
        self._seniority[order_id] = seniority
        juniors = [other for other in level if self._seniority[other] > seniority] if youngest > seniority else []
        level[order_id] = size
        flags = 0 if direction == 1 else FLAG_SELL
        self._commands.append(FlowCommand(NEW, order_id, flags, price, size, 0))
        for junior in juniors:
            level[junior] = level.pop(junior)
            self._replace(flags | MEANING_OPEN | REQUEUE, price, level[junior], junior)

    def _enter_again(self, direction: int, price: int, order_id: int, size: int) -> None:
        """Have one rest that the venue has no more, in the place that it had."""
        if order_id >= NAMELESS:
            self._nameless += 1
            again = self._nameless
        else:
            again = AGAIN + len(self._named_so) + 1
            name = self._named_so[again] = self._named_so.get(order_id, order_id)
            self._again[name] = again
            self._returned.append((again, name))
            self._last_named[again] = self._last_named.get(name, -1)
        self._enter(direction, price, again, size, self._seniority[order_id])

    def _reduce(self, direction: int, price: int, order_id: int, size: int) -> None:
        """Have `size` of an order go; all of it if that is what is left."""
        self._forget(direction, price, order_id, size)
        self._take_away(direction, price, order_id, size)

    def _take_away(self, direction: int, price: int, order_id: int, size: int) -> None:
        """Send for what the book is without already."""
        if order_id in self._absent:
            return
        if self._sides[direction].get(price, {}).get(order_id):
            flags = 0 if direction == 1 else FLAG_SELL
            self._replace(flags | MEANING_REDUCE_BY, price, size, order_id)
        else:
            self._commands.append(FlowCommand(CANCEL, self._next_own(), 0, 0, 0, order_id))

    def _replace(self, flags: int, price: int, quantity: int, target: int) -> None:
        self._commands.append(FlowCommand(REPLACE, self._next_own(), flags, price, quantity, target))

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

    def _taken(self) -> tuple[FlowCommand, ...]:
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

"""The feed held against the reports: the two sides of each trade, shares by size, and what rests in the end."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from proto.columns import AUCTION_TRADE, MAKER
from tools.run.audit.breaches import BOOKS, LIFE, PRIORITY, SIDES, Breaches
from tools.run.audit.feed import FeedAudit, Shares, TradeTold, shared_by_size
from tools.run.audit.reports import Life, ReportAudit, Side


class Shown(NamedTuple):
    """An order that rests on a book of the feed."""

    instrument: int
    id: int
    sell: int
    price: int
    quantity: int


class Live(NamedTuple):
    """An order that its home says is live; `visible`: it, or a slice of it, is in the book. `expires_ns` 0: never."""

    order_id: int
    instrument: int
    open: int
    visible: bool
    expires_ns: int = 0


def shown(feed: FeedAudit) -> list[Shown]:
    """All that rests on the books of a stream now. O(orders)."""
    return [
        Shown(book.instrument, id, sell, price, quantity)
        for book in feed.mirror.books.values()
        for sell in (0, 1)
        for id, price, quantity in book.orders(sell)
    ]


def reconcile(feed: FeedAudit, reports: ReportAudit, until_ns: int) -> Breaches:
    """What the trades of a stream are on the feed and in the reports of all accounts, and how levels were shared out.

    Nothing that was told at `until_ns` of the venue's time or later is judged. O(trades).
    """
    out = Breaches()
    owner: dict[int, int] = {}  # the order of each public id that has traded
    for key, told in feed.told.items():
        if told.time_ns < until_ns and reports.whole:
            _two_sides(out, key, told, reports.trades.get(key, ()), owner)
    for (instrument, trade_id), sides in reports.trades.items():
        first = feed.told_from.get(instrument)
        if first is None or trade_id < first or not feed.following or sides[0].time_ns >= until_ns:
            continue
        if (instrument, trade_id) not in feed.told:
            out.add(SIDES, f"instrument {instrument} trade {trade_id:,} is reported, and not on the feed")
    for shares in feed.shares:
        _in_proportion(out, shares, reports)
    return out


def _two_sides(
    out: Breaches, key: tuple[int, int], told: TradeTold, sides: Sequence[Side], owner: dict[int, int]
) -> None:
    what = f"instrument {key[0]} trade {key[1]:,}"
    if sorted(side.sell for side in sides) != [0, 1]:
        bought = sum(not side.sell for side in sides)
        out.add(SIDES, f"{what} is told to {bought} buyers and {len(sides) - bought} sellers")
        return
    if any((side.price, side.quantity) != (told.price, told.quantity) for side in sides):
        out.add(SIDES, f"{what}: {told.quantity:,} at {told.price} on the feed, and something else in its reports")
    if sorted(side.role for side in sides) != ([AUCTION_TRADE] * 2 if len(told.resting) == 2 else [0, MAKER]):
        out.add(SIDES, f"{what}: its reports do not say who made it and who took")
        return
    for resting in told.resting:
        side = next(side for side in sides if side.sell == resting.side)
        if len(told.resting) == 1 and side.role != MAKER:
            out.add(SIDES, f"{what}: its maker is on one side on the feed, on the other by its reports")
            continue
        if owner.setdefault(resting.id, side.order_id) != side.order_id:
            out.add(SIDES, f"{what}: what traded as {resting.id} was another order before")
        if resting.emptied and side.open and not resting.next_id:
            out.add(PRIORITY, f"{what}: the next slice of order {side.order_id} did not come")
        if resting.next_id and side.open:
            owner[resting.next_id] = side.order_id


def _in_proportion(out: Breaches, shares: Shares, reports: ReportAudit) -> None:
    """Whether a level was shared out by size, if all of it was to be seen."""
    trades = [reports.trades.get((shares.instrument, trade_id), ()) for trade_id in shares.trades]
    takers = {side.order_id for sides in trades for side in sides if not side.role}
    if len(takers) != 1:
        return  # two in one event: where the first ended is not told
    for id, quantity in shares.queue:
        life = reports.orders.get(id)
        if life is None:
            return  # a later slice of an iceberg
        got = shares.got.get(id, 0)
        if got:
            before = [side.open + got for sides in trades for side in sides if side.order_id == id]
        else:
            if any(time_ns == shares.time_ns for time_ns, _ in life.opens):
                return  # before or after: nobody can tell
            before = [open for time_ns, open in life.opens if time_ns < shares.time_ns]
        if before[-1:] != [quantity]:
            return  # there is more of it than is shown
    expected = shared_by_size(shares.queue, sum(shares.got.values()))
    if expected != shares.got:
        where = f"instrument {shares.instrument} at {shares.price}: {dict(shares.queue)}"
        out.add(PRIORITY, f"{where} got {shares.got}; by size it is {expected}")


def resting(
    on_feed: Sequence[Shown],
    live: Sequence[Live] | None,
    reports: ReportAudit,
    until_ns: int,
    instruments: Iterable[int],
) -> Breaches:
    """What rests on the feed, what is live as the engines say, and what the reports leave open.

    Of these instruments. `on_feed` is as it was at `until_ns`; an order that was told of since is not judged. `live` is
    None if not all were asked.
    """
    out = Breaches()
    of = frozenset(instruments)
    lives = {id: life for id, life in reports.orders.items() if life.instrument in of}
    own = {each.id for each in on_feed}
    visible = {each.order_id for each in live or () if each.visible}
    sliced: dict[tuple[int, int, int], list[Life]] = {}  # orders that may stand there under another id
    changed = 0
    for id, life in lives.items():
        if life.since_ns >= until_ns:
            changed += 1
        elif not life.ended and id not in own and (live is None or id in visible):
            sliced.setdefault((life.instrument, life.sell, life.price), []).append(life)
    for each in on_feed:
        _rests(out, each, lives.get(each.id), sliced, until_ns, reports.whole and not changed)
    if live is not None:
        _live(out, live, lives, until_ns, reports.whole)
        for others in sliced.values():
            for life in others:
                out.add(BOOKS, f"{_named(life)} is said to be in the book, and is not on the feed")
    return out


def _named(life: Life) -> str:
    return f"account {life.account}, order {life.client_order_id:,} on instrument {life.instrument}"


def _rests(
    out: Breaches,
    each: Shown,
    life: Life | None,
    sliced: dict[tuple[int, int, int], list[Life]],
    until_ns: int,
    sure: bool,
) -> None:
    if life is None:
        others = sliced.get((each.instrument, each.sell, each.price), [])
        one = next((other for other in others if other.open >= each.quantity), None)
        if one is not None:
            others.remove(one)
        elif sure:
            out.add(BOOKS, f"order {each.id} rests on instrument {each.instrument} at {each.price}, and is nobody's")
    elif life.since_ns >= until_ns:
        return
    elif life.ended:
        out.add(BOOKS, f"{_named(life)} has come to its end, and rests on the feed at {each.price}")
    elif each.quantity > life.open:
        out.add(BOOKS, f"{_named(life)} shows {each.quantity:,} on the feed, and has {life.open:,} open")


def _live(out: Breaches, live: Sequence[Live], lives: Mapping[int, Life], until_ns: int, whole: bool) -> None:
    said = {each.order_id: each for each in live}
    for each in live:
        life = lives.get(each.order_id)
        if 0 < each.expires_ns <= until_ns:
            out.add(
                LIFE,
                f"order {each.order_id} was to expire {(until_ns - each.expires_ns) / 1e9:.1f} s before, and lives",
            )
        if life is None:
            if whole:
                out.add(BOOKS, f"order {each.order_id} is live at its engine, and no report tells of it")
        elif life.since_ns < until_ns and (life.ended or life.open != each.open):
            out.add(BOOKS, f"{_named(life)} has {each.open:,} open at its engine, {life.open:,} by its reports")
    for id, life in lives.items():
        if not life.ended and life.since_ns < until_ns and id not in said:
            out.add(BOOKS, f"{_named(life)} has {life.open:,} open by its reports, and is not live at its engine")

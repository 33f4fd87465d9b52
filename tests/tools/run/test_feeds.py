"""The judge's own ear on the feeds: it adds up trades once each, and knows what it did not hear."""

from bus.stream.actions import Applied
from proto.feed import ADD, END, EXECUTE, OPEN, SELL, TRADE, Row, Statistics, Status
from proto.snapshot import BookSnapshot, Snapshot
from tools.flow.order_counts import TradeKey, TradeSum
from tools.run.feeds import StreamWatch

ADDED: Row = (ADD | END, 1, 9, 100, 50, 0)


def books(last_seq: int, epoch: int = 1, last_trade: int = 0, quantity: int = 0) -> Snapshot:
    bids = [(9, 100, quantity)] if quantity else []
    last = (100, 5, last_trade) if last_trade else (0, 0, 0)
    book = BookSnapshot(1, None, Status(OPEN, 0), last_seq, *last, last_trade + 1, None, None, bids, [])
    return Snapshot(1, 1, 77, epoch, last_seq, 0, [book])


def applied(first: int, rows: list[Row], epoch: int = 1) -> Applied:
    return Applied(epoch, first, first + len(rows) - 1, rows, [(0, 1_000)], [])


def execute(trade_id: int, quantity: int = 5, price: int = 100) -> Row:
    return (EXECUTE | END, 1, 9, price, quantity, trade_id)


def unseen() -> Snapshot:
    raise AssertionError("something was passed over")


def begun() -> StreamWatch:
    watch = StreamWatch()
    watch.live(1, lambda: books(0))
    return watch


def total(*keys: TradeKey) -> TradeSum:
    out = TradeSum()
    for key in keys:
        out.add(key)
    return out


def test_every_trade_counts_once_also_one_that_a_snapshot_had() -> None:
    watch = begun()
    watch.applied(applied(1, [ADDED, execute(1)]), unseen)
    watch.applied(applied(1, [ADDED, execute(1)]), unseen)
    watch.applied(applied(3, [execute(2, 7)]), unseen)
    assert watch.trades == {1: total(TradeKey(1, 100, 5), TradeKey(2, 100, 7))}
    assert (watch.missed, watch.position, watch.audit.breaches.counts) == (0, (1, 3), {})


def test_a_trade_of_an_auction_which_executes_both_sides_counts_once_and_one_that_changes_no_book_counts() -> None:
    watch = begun()
    ask: Row = (ADD | SELL | END, 1, 10, 101, 5, 0)
    sold: Row = (EXECUTE | SELL | END, 1, 10, 101, 5, 1)
    watch.applied(applied(1, [(ADD | END, 1, 9, 101, 50, 0), ask, execute(1, 5, 101), sold]), unseen)
    watch.applied(applied(5, [(TRADE | END, 1, 0, 103, 3, 2)]), unseen)
    assert watch.trades == {1: total(TradeKey(1, 101, 5), TradeKey(2, 103, 3))}


def test_what_was_not_heard_is_counted_and_what_follows_judged_from_the_readers_books_on() -> None:
    watch = begun()
    watch.applied(applied(1, [ADDED, execute(1)]), unseen)
    watch.applied(applied(10, [execute(3)]), lambda: books(10, last_trade=3, quantity=30))
    assert (watch.missed, watch.position) == (8, (1, 10))
    watch.applied(applied(11, [execute(4, 30)]), unseen)
    assert (watch.trades[1].count, watch.audit.breaches.counts) == (2, {})
    watch.live(9, lambda: books(6, epoch=9, last_trade=4))
    assert (watch.missed, watch.position) == (14, (9, 6))


def test_books_that_are_being_replaced_are_waited_for() -> None:
    watch = begun()
    watch.audit.lose()
    watch.applied(applied(3, [ADDED]), lambda: books(3, quantity=50))
    assert watch.audit.following


def test_a_snapshot_is_brought_forward_by_what_was_heard_or_not_at_all() -> None:
    watch = begun()
    watch.applied(applied(1, [ADDED, execute(1)]), unseen)
    watch.applied(applied(3, [execute(2, 7), execute(3, 1)]), unseen)
    assert watch.carried(books(1, quantity=50), 3) == Snapshot(1, 1, 77, 1, 3, 0, watch_books(38, 2, 7, 3))
    assert watch.carried(books(4, last_trade=3, quantity=37), 4) is not None
    assert watch.carried(books(1, quantity=50), 5) is None
    assert watch.carried(books(1, epoch=2, quantity=50), 3) is None


def watch_books(quantity: int, last_trade: int, last_quantity: int, sequence: int) -> list[BookSnapshot]:
    session = (100, 100, 100, 100, 12, 1_200, 2)
    book = books(sequence, last_trade=last_trade, quantity=quantity).books[0]
    return [book._replace(last_quantity=last_quantity, statistics=Statistics(*session))]

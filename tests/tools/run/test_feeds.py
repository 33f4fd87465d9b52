"""The judge's own ear on the feeds: it adds up trades once each, and knows what it did not hear."""

from proto import feed
from proto.feed import ADD, END, EXECUTE, OPEN, PRE_OPEN, SELL, TRADE, Row, Status
from proto.snapshot import BookSnapshot
from tools.flow.order_counts import TradeKey, TradeSum
from tools.run.day.watch import InstrumentDay
from tools.run.observer import TradeWatch


def frame(first_seq: int, rows: list[Row], epoch: int = 1, engine: int = 1) -> bytes:
    flat = [value for row in rows for value in row]
    return feed.encode_frame(
        engine=engine,
        channel=1,
        flags=0,
        incarnation=77,
        epoch=epoch,
        first_seq=first_seq,
        sent_ns=epoch * 1_000 + first_seq,
        times=[(0, 1_000)],
        instruments=[(1, first_seq)],
        rows=flat,
    )


def heartbeat(next_seq: int) -> bytes:
    return feed.encode_heartbeat(
        engine=1, channel=1, flags=0, incarnation=77, epoch=1, next_seq=next_seq, sent_ns=5_000, digests=[]
    )


def execute(trade_id: int, quantity: int = 5, price: int = 100) -> Row:
    return (EXECUTE | END, 1, 9, price, quantity, trade_id)


ADDED: Row = (ADD | END, 1, 9, 100, 50, 0)


def total(*keys: TradeKey) -> TradeSum:
    out = TradeSum()
    for key in keys:
        out.add(key)
    return out


def test_every_trade_counts_once_also_when_frames_repeat_or_overlap() -> None:
    watch = TradeWatch()
    watch.frame(frame(1, [ADDED, execute(1)]))
    watch.frame(frame(1, [ADDED, execute(1)]))
    watch.frame(frame(2, [execute(1), execute(2, 7)]))
    assert watch.trades == {1: total(TradeKey(1, 100, 5), TradeKey(2, 100, 7))}
    assert watch.missed == {}


def test_what_was_not_heard_is_counted_by_engine() -> None:
    watch = TradeWatch()
    watch.frame(frame(3, [execute(1)]))  # from here on it is heard
    watch.frame(frame(10, [execute(2)]))
    watch.frame(frame(1, [execute(1)], engine=2))
    assert watch.missed == {1: 6}
    watch.frame(frame(4, [execute(3)], epoch=9))
    assert watch.missed == {1: 9}
    assert [watch.hears(engine) for engine in (1, 2, 3)] == [True, True, False]


def test_a_heartbeat_tells_of_a_lost_tail() -> None:
    watch = TradeWatch()
    watch.frame(frame(1, [ADDED, execute(1)]))
    watch.frame(heartbeat(3))
    assert watch.missed == {}
    watch.frame(heartbeat(9))
    assert watch.missed == {1: 6}


def test_a_higher_epoch_begins_anew_and_a_lower_one_is_over() -> None:
    watch = TradeWatch()
    watch.frame(frame(1, [execute(1)]))
    watch.frame(frame(1, [execute(2)], epoch=9))
    watch.frame(frame(2, [execute(8)]))
    assert watch.trades == {1: total(TradeKey(1, 100, 5), TradeKey(2, 100, 5))}
    assert watch.missed == {}


def test_a_damaged_frame_is_counted_and_nothing_else() -> None:
    watch = TradeWatch()
    watch.frame(frame(1, [execute(1)])[:-1] + b"x")
    assert (watch.trades, watch.bad_frames) == ({}, 1)


def test_a_trade_of_an_auction_which_executes_both_sides_counts_once_and_one_that_changes_no_book_counts() -> None:
    watch = TradeWatch()
    sold: Row = (EXECUTE | SELL | END, 1, 10, 100, 5, 1)
    watch.frame(frame(1, [execute(1), sold, (TRADE | END, 1, 0, 101, 3, 2)]))
    assert watch.trades == {1: total(TradeKey(1, 100, 5), TradeKey(2, 101, 3))}


def test_a_day_is_followed_row_by_row_and_doubted_when_something_was_missed_or_an_epoch_begins() -> None:
    watch = TradeWatch()
    watch.frame(frame(1, [ADDED]))
    watch.frame(frame(1, [ADDED], engine=2))
    assert (watch.stands_at(1, 1), watch.stands_at(3, 1)) == ((1, 2), (0, 0))
    days = {}
    for engine in (1, 2):
        days[engine] = InstrumentDay(engine)
        days[engine].begin(BookSnapshot(engine, None, Status(PRE_OPEN, 0), 0, 0, 0, 0, 1, None, None, [], []), 0)
    watch.days = days
    opened = feed.encode_frame(
        engine=1,
        channel=1,
        flags=0,
        incarnation=77,
        epoch=1,
        first_seq=2,
        sent_ns=2_000,
        times=[(0, 1_500)],
        instruments=[(1, 2)],
        rows=[feed.STATUS | END, 1, 0, 0, 0, 0],
        extras=[[OPEN, 0]],
    )
    watch.frame(opened)
    assert [(phase.state, phase.time_ns) for phase in days[1].phases] == [(PRE_OPEN, 0), (OPEN, 1_500)]
    assert not days[1].doubted
    watch.frame(frame(5, [ADDED]))
    assert (days[1].doubted, days[2].doubted) == (True, False)
    watch.frame(frame(1, [ADDED], epoch=9, engine=2))
    assert days[2].doubted

"""The mirror rebuilds books by whole events, knows a delta that does not fit, and its digest finds what is wrong."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.stream.mirror import BUY_SIDE, SELL_SIDE, TAPE_MAX, Mirror, MirrorBook, MirrorError
from bus.stream.sequencer import Sequencer
from proto import feed
from proto.feed import (
    ADD,
    CANCEL,
    CLEAR,
    DEFINITION,
    DELETE,
    END,
    EXECUTE,
    INDICATION,
    MODIFY,
    SELL,
    STATISTICS,
    STATUS,
    TRADE,
    Definition,
    Digest,
    Row,
    Statistics,
    Status,
)
from proto.snapshot import BookSnapshot, decode_snapshot, encode_snapshot

ALFA = Definition("ALFA", "0.01", "1", 1, 100_000)
SESSION = Statistics(1, 2, 3, 4, 5, 6, 7)
GATHERED = feed.Indication(101, 5, -2)
BOOK: list[Row] = [
    (ADD | END, 7, 1, 100, 5, 0),
    (ADD | END, 7, 2, 100, 6, 0),
    (ADD | END, 7, 3, 99, 7, 0),
    (ADD | SELL | END, 7, 4, 101, 8, 0),
    (ADD | SELL | END, 7, 5, 103, 9, 0),
    (ADD | SELL | END, 7, 6, 103, 1, 0),
]


def mirror(*rows: Row) -> Mirror:
    m = Mirror()
    m.apply([*BOOK, *rows])
    m.check()
    return m


def book(*rows: Row) -> MirrorBook:
    return mirror(*rows).books[7]


def orders(b: MirrorBook) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    return list(b.orders(BUY_SIDE)), list(b.orders(SELL_SIDE))


BIDS = [(1, 100, 5), (2, 100, 6), (3, 99, 7)]
ASKS = [(4, 101, 8), (5, 103, 9), (6, 103, 1)]

# Each operation


def test_orders_stand_best_price_first_then_in_order_of_arrival() -> None:
    assert orders(book()) == (BIDS, ASKS)


def test_levels_are_summed_best_first_to_any_depth() -> None:
    b = book()
    assert b.levels(BUY_SIDE) == [(100, 11, 2), (99, 7, 1)]
    assert b.levels(SELL_SIDE) == [(101, 8, 1), (103, 10, 2)]
    assert b.levels(SELL_SIDE, 1) == [(101, 8, 1)]
    assert (b.best(BUY_SIDE), b.best(SELL_SIDE), b.count) == (100, 101, 6)
    empty = MirrorBook(9)
    assert (empty.best(BUY_SIDE), empty.best(SELL_SIDE), empty.levels(BUY_SIDE)) == (None, None, [])


@pytest.mark.parametrize(
    ("row", "bids", "asks"),
    [
        ((CANCEL | END, 7, 1, 0, 2, 0), [(1, 100, 3), *BIDS[1:]], ASKS),
        ((MODIFY | END, 7, 1, 0, 9, 0), [(1, 100, 9), *BIDS[1:]], ASKS),
        ((MODIFY | SELL | END, 7, 5, 0, 2, 0), BIDS, [ASKS[0], (5, 103, 2), ASKS[2]]),
        ((DELETE | END, 7, 1, 0, 0, 0), BIDS[1:], ASKS),
        ((DELETE | END, 7, 3, 0, 0, 0), BIDS[:2], ASKS),
        ((DELETE | SELL | END, 7, 4, 0, 0, 0), BIDS, ASKS[1:]),
        ((EXECUTE | END, 7, 1, 100, 2, 1), [(1, 100, 3), *BIDS[1:]], ASKS),
        ((EXECUTE | END, 7, 1, 100, 5, 1), BIDS[1:], ASKS),
        ((EXECUTE | SELL | END, 7, 4, 101, 8, 1), BIDS, ASKS[1:]),
        ((EXECUTE | END, 7, 1, 98, 2, 1), [(1, 100, 3), *BIDS[1:]], ASKS),
        ((EXECUTE | SELL | END, 7, 4, 102, 3, 1), BIDS, [(4, 101, 5), *ASKS[1:]]),
        ((TRADE | END, 7, 0, 100, 2, 1), BIDS, ASKS),
        ((CLEAR | END, 7, 0, 0, 0, 0), [], []),
    ],
)
def test_each_operation_changes_what_it_names_and_no_more(row: Row, bids: list[Any], asks: list[Any]) -> None:
    b = book(row)
    assert orders(b) == (bids, asks)
    assert b.sequence == 7


def test_a_book_can_be_built_again_after_it_was_cleared() -> None:
    m = mirror((CLEAR | END, 7, 0, 0, 0, 0), *BOOK)
    assert orders(m.books[7]) == (BIDS, ASKS)
    assert [d.order_hash for d in m.digests(7)] == [d.order_hash for d in book().digests()]


@pytest.mark.parametrize("unread_max", [0, 3, 10_000])
def test_levels_that_come_and_go_between_two_readings_are_as_if_each_had_been_read(
    unread_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.stream.mirror.UNREAD_MAX", unread_max)
    chance = random.Random(unread_max)
    one, often = Mirror(), Mirror()
    resting: dict[int, int] = {}
    for order_id in range(1, 2_000):
        price = chance.randrange(100, 140)
        row: Row = (ADD | SELL | END, 7, order_id, price, 1, 0)
        if resting and (len(resting) > 20 or chance.random() < 0.4):
            gone = chance.choice(list(resting))
            del resting[gone]
            row = (DELETE | SELL | END, 7, gone, 0, 0, 0)
        else:
            resting[order_id] = price
        one.apply([row])
        often.apply([row])
        expected = sorted(set(resting.values()))
        assert [price for price, _, _ in often.books[7].levels(SELL_SIDE)] == expected
        assert often.books[7].best(SELL_SIDE) == (expected[0] if expected else None)
        if chance.random() < 0.02:
            assert [price for price, _, _ in one.books[7].levels(SELL_SIDE)] == expected
            one.check()
    assert one.digests(7) == often.digests(7)


def test_executions_and_trades_are_the_last_trade() -> None:
    b = book((EXECUTE, 7, 1, 100, 2, 4), (TRADE | END, 7, 0, 102, 3, 9))
    assert (b.last_price, b.last_quantity, b.last_trade_id) == (102, 3, 9)


def test_two_executions_may_be_one_trade() -> None:
    b = book((EXECUTE, 7, 1, 100, 2, 4), (EXECUTE | SELL | END, 7, 4, 101, 2, 4))
    assert b.last_trade_id == 4
    assert b.statistics == feed.Statistics(100, 100, 100, 100, 2, 200, 1)


def test_trades_add_to_the_statistics_that_were_told() -> None:
    m = mirror()
    m.apply([(STATISTICS | END, 7, 0, 0, 0, 0)], [SESSION])
    m.apply([(TRADE, 7, 0, SESSION.high + 1, 3, 5), (TRADE | END, 7, 0, SESSION.low - 1, 2, 6)])
    high, low = SESSION.high + 1, SESSION.low - 1
    turnover = SESSION.turnover + 3 * high + 2 * low
    counted = feed.Statistics(SESSION.open, high, low, low, SESSION.volume + 5, turnover, SESSION.trades + 2)
    assert m.books[7].statistics == counted
    m.apply([(STATISTICS | END, 7, 0, 0, 0, 0)], [feed.Statistics(*[0] * 7)])  # a new session
    m.apply([(TRADE | END, 7, 0, 99, 1, 7)])
    assert m.books[7].statistics == feed.Statistics(99, 99, 99, 99, 1, 99, 1)


def test_very_many_trades_are_added_up_on_the_way() -> None:
    m = mirror()
    m.apply([(TRADE | END, 7, 0, 100, 1, id) for id in range(1, 20_001)])
    assert len(m.books[7]._tape) < TAPE_MAX
    assert m.books[7].statistics == feed.Statistics(100, 100, 100, 100, 20_000, 2_000_000, 20_000)


def test_an_indication_holds_until_the_next_one_or_the_next_state() -> None:
    m = mirror()
    m.apply([(STATUS, 7, 0, 0, 0, 0), (INDICATION | END, 7, 1, 0, 0, 0)], [Status(feed.PRE_OPEN, 0), GATHERED])
    assert m.books[7].indication == GATHERED
    m.apply([(INDICATION | END, 7, 0, 0, 0, 0)], [feed.Indication(0, 0, 0)])
    assert m.books[7].indication is None
    m.apply([(INDICATION, 7, 0, 0, 0, 0), (STATUS | END, 7, 1, 0, 0, 0)], [GATHERED, Status(feed.OPEN, 0)])
    assert m.books[7].indication is None


def test_definition_state_and_statistics_are_kept() -> None:
    m = Mirror()
    m.apply(
        [(DEFINITION, 7, 0, 0, 0, 0), (STATUS, 7, 1, 0, 0, 0), (STATISTICS | END, 7, 2, 0, 0, 0)],
        [ALFA, Status(feed.OPEN, 3), SESSION],
    )
    b = m.books[7]
    assert (b.definition, b.status, b.state, b.statistics) == (ALFA, Status(2, 3), feed.OPEN, SESSION)


@pytest.mark.parametrize(
    "row",
    [
        (ADD | END, 7, 1, 100, 5, 0),
        (ADD | SELL | END, 7, 1, 105, 5, 0),
        (DELETE | END, 7, 9, 0, 0, 0),
        (DELETE | SELL | END, 7, 1, 0, 0, 0),
        (DELETE | END, 7, 4, 0, 0, 0),
        (DELETE | END, 8, 1, 0, 0, 0),
        (CANCEL | END, 7, 9, 0, 1, 0),
        (CANCEL | END, 7, 1, 0, 5, 0),
        (CANCEL | END, 7, 1, 0, 6, 0),
        (CANCEL | SELL | END, 7, 1, 0, 1, 0),
        (MODIFY | END, 7, 9, 0, 1, 0),
        (MODIFY | SELL | END, 7, 1, 0, 1, 0),
        (EXECUTE | END, 7, 9, 100, 1, 1),
        (EXECUTE | END, 7, 1, 100, 6, 1),
        (EXECUTE | END, 7, 1, 101, 1, 1),
        (EXECUTE | SELL | END, 7, 4, 100, 1, 1),
        (EXECUTE | SELL | END, 7, 1, 100, 1, 1),
    ],
)
def test_a_delta_that_does_not_fit_is_an_error(row: Row) -> None:
    with pytest.raises(MirrorError):
        mirror(row)


def test_an_order_at_a_price_both_sides_have_is_still_on_one_side() -> None:
    m = mirror((ADD | SELL | END, 7, 9, 100, 5, 0))
    with pytest.raises(MirrorError):
        m.apply([(DELETE | SELL | END, 7, 1, 0, 0, 0)])


@pytest.mark.parametrize("op", [EXECUTE, TRADE])
def test_a_trade_id_that_falls_is_an_error(op: int) -> None:
    m = mirror((TRADE | END, 7, 0, 100, 1, 5))
    with pytest.raises(MirrorError):
        m.apply([(op | END, 7, 1 if op == EXECUTE else 0, 100, 1, 4)])


# Whole events


def test_an_event_is_applied_when_its_end_has_come() -> None:
    m = mirror((ADD, 7, 10, 98, 1, 0), (STATUS, 7, 0, 0, 0, 0))
    assert orders(m.books[7]) == (BIDS, ASKS)
    assert (m.last_seq, m.held, m.next_seq) == (6, 2, 9)
    m.apply([(DELETE, 7, 10, 0, 0, 0)])
    assert (m.last_seq, m.held, m.next_seq) == (6, 3, 10)
    m.check()


def test_what_is_held_keeps_its_extras_apart_from_those_that_follow() -> None:
    m = Mirror()
    m.apply([(STATUS | END, 7, 0, 0, 0, 0), (STATUS, 7, 1, 0, 0, 0)], [Status(1, 0), Status(2, 0)])
    assert (m.books[7].state, m.held) == (1, 1)
    m.apply([(DEFINITION, 8, 0, 0, 0, 0)], [ALFA])
    m.apply([(STATUS | END, 8, 0, 0, 0, 0), (STATUS, 8, 1, 0, 0, 0)], [Status(3, 0), Status(4, 0)])
    assert (m.books[7].state, m.books[8].state, m.books[8].definition, m.held) == (2, 3, ALFA, 1)
    m.apply([(CLEAR | END, 8, 0, 0, 0, 0)])
    assert (m.books[8].state, m.last_seq, m.held) == (4, 6, 0)


def test_instrument_sequences_must_go_on_held_deltas_included() -> None:
    m = Mirror()
    m.apply([(ADD | END, 7, 1, 100, 5, 0), (ADD, 8, 2, 100, 5, 0)], [], [(7, 1), (8, 1)])
    assert (m.instrument_seq(7), m.instrument_seq(8), m.instrument_seq(9)) == (1, 1, 0)
    with pytest.raises(MirrorError):
        m.apply([(ADD | END, 8, 3, 100, 5, 0)], [], [(8, 1)])
    m.apply([(ADD | END, 8, 3, 100, 5, 0)], [], [(8, 2)])
    for wrong in (0, 1, 3):
        with pytest.raises(MirrorError):
            m.apply([(ADD | END, 7, 4, 100, 5, 0)], [], [(7, wrong)])
    with pytest.raises(MirrorError):
        m.apply([(ADD | END, 9, 4, 100, 5, 0)], [], [(9, 2)])
    m.apply([(ADD | END, 7, 4, 100, 5, 0)], [], [(7, 2)])


# Snapshots


def test_a_mirror_loaded_from_a_snapshot_is_the_mirror_it_was_taken_from() -> None:
    m = mirror((TRADE | END, 7, 0, 102, 3, 9), (ADD | END, 9, 11, -5, 2, 0))
    m.books[7].definition = ALFA
    m.books[7].status = Status(2, 1)
    assert m.books[7].statistics == feed.Statistics(102, 102, 102, 102, 3, 306, 1)
    m.books[7]._statistics = SESSION
    m.books[7].indication = GATHERED
    taken = m.snapshot(1, 0, 9, 5, 1_000)
    assert (taken.last_seq, [b.instrument for b in taken.books]) == (8, [7, 9])
    assert taken.books[0] == BookSnapshot(7, ALFA, Status(2, 1), 7, 102, 3, 9, 10, SESSION, GATHERED, BIDS, ASKS)
    other = mirror((ADD, 3, 77, 1, 1, 0))
    other.load(decode_snapshot(encode_snapshot(taken)))
    other.check()
    assert other.snapshot(1, 0, 9, 5, 1_000) == taken
    assert (other.held, other.next_seq, other.digests(7)) == (0, 9, m.digests(7))
    other.apply([(DELETE | END, 7, 3, 0, 0, 0)], [], [(7, 8)])
    assert orders(other.books[7]) == (BIDS[:2], ASKS)
    assert orders(m.books[7]) == (BIDS, ASKS)


def test_a_snapshot_may_name_its_instruments() -> None:
    m = mirror((ADD | END, 9, 11, -5, 2, 0))
    assert [b.instrument for b in m.snapshot(1, 0, 9, 5, 1, [9, 4]).books] == [9]


# Books set aside


def test_a_book_set_aside_stays_as_it_is_and_comes_back_from_a_snapshot_and_its_record() -> None:
    good, m = mirror(), mirror()
    m.books[7]._bids.levels[100].queue[1] ^= 2
    wrong = orders(m.books[7])
    m.set_aside(7)
    m.set_aside(7)
    more: list[Row] = [(STATUS | END, 7, 0, 0, 0, 0), (DELETE | END, 7, 1, 0, 0, 0), (ADD | END, 8, 1, 5, 5, 0)]
    for one in (good, m):
        one.apply(more[:2], [Status(3, 0)], [(7, 7)])
    content = good.snapshot(1, 0, 9, 5, 1).books[0]
    for one in (good, m):
        one.apply(more[2:])
        one.apply([(STATUS | END, 7, 0, 0, 0, 0), (DELETE | END, 7, 2, 0, 0, 0)], [Status(4, 0)], [(7, 9)])
    assert (m.aside, m.recorded, m.instrument_seq(7), m.last_seq) == ([7], 4, 10, 11)
    assert orders(m.books[7]) == wrong != (BIDS, ASKS)
    with pytest.raises(MirrorError):
        m.snapshot(1, 0, 9, 5, 1)
    assert [b.instrument for b in m.snapshot(1, 0, 9, 5, 1, [8]).books] == [8]
    assert m.splice(content)
    m.check()
    assert (m.aside, m.recorded) == ([], 0)
    assert (m.digests(7), m.books[7].state) == (good.digests(7), 4)
    assert m.snapshot(1, 0, 9, 5, 1) == good.snapshot(1, 0, 9, 5, 1)


def test_a_snapshot_ahead_of_the_stream_waits_for_it() -> None:
    good, m = mirror(), mirror()
    m.set_aside(7)
    rows: list[Row] = [(DELETE | END, 7, 1, 0, 0, 0), (DELETE | END, 7, 2, 0, 0, 0), (DELETE | END, 7, 3, 0, 0, 0)]
    m.apply(rows[:1])
    good.apply(rows[:2])
    assert m.splice(good.snapshot(1, 0, 9, 5, 1).books[0])
    assert not m.splice(good.snapshot(1, 0, 9, 5, 1).books[0])
    assert (m.aside, orders(m.books[7])) == ([7], (BIDS, ASKS))
    m.apply(rows[1:])
    good.apply(rows[2:])
    assert (m.aside, m.digests(7)) == ([], good.digests(7))
    m.check()


def test_a_snapshot_at_the_sequence_of_the_record_is_taken() -> None:
    good, m = mirror(), mirror()
    m.set_aside(7)
    assert m.splice(good.snapshot(1, 0, 9, 5, 1).books[0])
    assert (m.aside, m.digests(7)) == ([], good.digests(7))
    m.set_aside(7)
    good_content = good.snapshot(1, 0, 9, 5, 1).books[0]
    for one in (good, m):
        one.apply([(DELETE | END, 7, 1, 0, 0, 0)])
    assert m.splice(good_content)
    assert (m.aside, m.digests(7)) == ([], good.digests(7))
    m.check()


def test_a_snapshot_from_before_the_record_is_not_taken() -> None:
    m = mirror()
    content = m.snapshot(1, 0, 9, 5, 1).books[0]
    m.apply([(DELETE | END, 7, 1, 0, 0, 0)])
    m.set_aside(7)
    assert not m.splice(content)
    assert m.aside == [7]
    m.check()


# The digest


def test_the_digest_follows_the_orders_and_not_their_history() -> None:
    long_way = book((ADD | END, 7, 9, 50, 5, 0), (MODIFY | END, 7, 9, 0, 3, 0), (CANCEL | END, 7, 9, 0, 1, 0),
                    (EXECUTE | END, 7, 9, 50, 1, 1), (DELETE | END, 7, 9, 0, 0, 0))  # fmt: skip
    assert [d.order_hash for d in long_way.digests()] == [d.order_hash for d in book().digests()]
    for side, listed in ((BUY_SIDE, BIDS), (SELL_SIDE, ASKS)):
        words = [word for order in listed for word in order]
        assert book().digest(side).order_hash == feed.orders_hash(words)


def test_a_digest_covers_the_orders_between_two_prices_both_included() -> None:
    whole = book()
    prices = sorted({price for _, price, _ in ASKS})
    for low in prices:
        for high in prices:
            if low <= high:
                part = [word for order in ASKS for word in order if low <= order[1] <= high]
                assert whole.digest(SELL_SIDE, low, high) == Digest(
                    7, whole.sequence, SELL_SIDE, low, high, feed.orders_hash(part)
                )


@pytest.mark.parametrize("side", [BUY_SIDE, SELL_SIDE])
def test_one_flipped_quantity_is_found_by_the_digest(side: int) -> None:
    good, bad = mirror(), mirror()
    levels = bad.books[7]._ladder(side).levels
    for price in levels:
        order_id, quantity = next(iter(levels[price].queue.items()))
        levels[price].queue[order_id] = quantity ^ 2
        assert good.digests(7)[side] != bad.digests(7)[side]
        assert good.digests(7)[1 - side] == bad.digests(7)[1 - side]
        assert good.books[7].digest(side, price, price) != bad.books[7].digest(side, price, price)
        levels[price].queue[order_id] = quantity
        assert good.digests(7) == bad.digests(7)


def test_a_queue_in_another_order_is_found_by_the_digest() -> None:
    other = Mirror()
    other.apply([BOOK[1], BOOK[0], *BOOK[2:]])
    assert sorted(orders(other.books[7])[0]) == sorted(orders(mirror().books[7])[0])
    assert other.digests(7)[BUY_SIDE] != mirror().digests(7)[BUY_SIDE]


# Against a simple model


class Model:
    """Books as plain lists, in order of arrival: slow and obvious."""

    def __init__(self) -> None:
        self.orders: dict[int, list[list[int]]] = {}

    def take(self, row: Row) -> None:
        op, instrument, order_id, price, quantity, _ = row
        code = op & feed.OP_MASK
        rested = self.orders.setdefault(instrument, [])
        mine = [order for order in rested if order[1] == order_id]
        if code == ADD:
            rested.append([op >> 4 & 1, order_id, price, quantity])
        elif code == MODIFY:
            mine[0][3] = quantity
        elif code in (CANCEL, EXECUTE):
            mine[0][3] -= quantity
        elif code == DELETE:
            mine[0][3] = 0
        elif code == CLEAR:
            rested.clear()
        self.orders[instrument] = [order for order in rested if order[3]]

    def side(self, instrument: int, side: int) -> list[tuple[int, int, int]]:
        rested = [order for order in self.orders[instrument] if order[0] == side]
        rested.sort(key=lambda order: order[2] * (1 if side else -1))
        return [(order[1], order[2], order[3]) for order in rested]


def flow(rng: random.Random, count: int) -> list[Row]:
    """Deltas that fit, over three instruments, in events of one to four."""
    live: dict[int, list[list[int]]] = {1: [], 2: [], 3: []}
    trade_ids = dict.fromkeys(live, 0)
    rows: list[Row] = []
    for order_id in range(1, count + 1):
        name = rng.choice(list(live))
        rested = live[name]
        kind = rng.random()
        end = END if rng.random() < 0.7 else 0
        if not rested or kind < 0.5:
            side = rng.getrandbits(1)
            order = [side, order_id, rng.randint(-3, 3), rng.randint(1, 9)]
            rested.append(order)
            rows.append((ADD | side << 4 | end, name, order_id, order[2], order[3], 0))
            continue
        order = rng.choice(rested)
        op = order[0] << 4 | end
        if kind < 0.7:
            rested.remove(order)
            rows.append((DELETE | op, name, order[1], 0, 0, 0))
        elif kind < 0.78 and order[3] > 1:
            less = rng.randint(1, order[3] - 1)
            order[3] -= less
            rows.append((CANCEL | op, name, order[1], 0, less, 0))
        elif kind < 0.86:
            order[3] = rng.randint(1, 9)
            rows.append((MODIFY | op, name, order[1], 0, order[3], 0))
        elif kind < 0.96:
            less = rng.randint(1, order[3])
            order[3] -= less
            trade_ids[name] += 1
            if not order[3]:
                rested.remove(order)
            rows.append((EXECUTE | op, name, order[1], order[2], less, trade_ids[name]))
        elif kind < 0.99:
            trade_ids[name] += 1
            rows.append((TRADE | end, name, 0, 5, 5, trade_ids[name]))
        else:
            rested.clear()
            rows.append((CLEAR | end, name, 0, 0, 0, 0))
    op, *rest = rows[-1]
    return [*rows[:-1], (op | END, *rest)]  # type: ignore[list-item]


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=60)
def test_a_mirror_of_any_flow_is_the_model_of_it(seed: int) -> None:
    rng = random.Random(seed)
    rows = flow(rng, 150)
    m, model = Mirror(), Model()
    at = 0
    while at < len(rows):
        size = rng.randint(1, 12)
        m.apply(rows[at : at + size])
        at += size
    for row in rows:
        model.take(row)
    m.check()
    assert m.last_seq == len(rows)
    assert set(m.books) == set(model.orders)
    for name, b in m.books.items():
        assert orders(b) == (model.side(name, BUY_SIDE), model.side(name, SELL_SIDE))


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=30)
def test_a_mirror_behind_the_feed_is_the_mirror_before_it(seed: int) -> None:
    rng = random.Random(seed)
    rows = flow(rng, 200)
    direct, fed = Mirror(), Mirror()
    direct.apply(rows)
    s = Sequencer(1, 0, 9, 5, True)
    at = 0
    for i, row in enumerate(rows):
        if row[0] & END:
            s.append(i, [value for r in rows[at : i + 1] for value in r])
            at = i + 1
            for data in s.take(i, rng.random() < 0.1):
                frame = feed.decode(data)
                fed.apply(frame.rows, frame.extras, frame.instruments)
    digests = [digest for name in direct.books for digest in direct.digests(name)]
    *tail, last = map(feed.decode, s.heartbeat(1 << 40, digests))
    for frame in tail:
        fed.apply(frame.rows, frame.extras, frame.instruments)
    assert fed.next_seq == last.header.first_seq == s.next_seq
    assert [digest for name in direct.books for digest in fed.digests(name)] == last.digests == digests
    assert [s.instrument_seq(name) for name in direct.books] == [b.sequence for b in direct.books.values()]
    assert fed.snapshot(1, 0, 9, 5, 1) == direct.snapshot(1, 0, 9, 5, 1)


def test_an_op_that_is_decoded_and_not_applied_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        Mirror().apply([(14 | END, 7, 0, 0, 0, 0)])
    extra: Any = ("a new extra",)
    with pytest.raises(AssertionError):
        MirrorBook(7)._told(extra)

"""A second opinion on a book: it finds what differs, carries what is behind, and compares nothing that it cannot."""

from typing import Any

from bus.reader.verify import Recent, second_opinion
from bus.stream.actions import Action
from proto.feed import ADD, END
from tests.published import BOUGHT, CHANGED, GONE, TRADED, Stream, opened


def recorded(stream: Stream, recent: Recent, actions: list[Action]) -> None:
    for action in actions:
        if type(action).__name__ == "Applied":
            recent.applied(action)  # type: ignore[arg-type]


def snapshot_of(stream: Stream) -> Any:
    return stream.client.mirror.snapshot(1, 1, 77, 1, 0)


def test_a_snapshot_that_is_behind_is_carried_forward_to_our_own_sequence_and_agrees() -> None:
    stream, recent = opened(), Recent()
    recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    old = snapshot_of(stream)
    recorded(stream, recent, stream.hear(stream.publish(TRADED, GONE)))
    assert second_opinion(stream.client, recent, old) == (3, ())
    assert second_opinion(stream.client, recent, snapshot_of(stream)) == (0, ())


def test_a_snapshot_from_the_middle_of_a_frame_is_carried_over_the_rest_of_it() -> None:
    stream, recent = opened(), Recent()
    other = opened()
    other.hear(other.publish(CHANGED))
    recorded(stream, recent, stream.hear(stream.publish(CHANGED, TRADED, GONE)))
    assert second_opinion(stream.client, recent, snapshot_of(other)) == (3, ())
    recorded(stream, recent, stream.hear(stream.publish([*BOUGHT[:2], 15, 97, 1, 0])))
    other.hear(other.publish(TRADED, GONE))
    assert second_opinion(stream.client, recent, snapshot_of(other)) == (1, ())


def test_one_wrong_quantity_or_two_orders_out_of_turn_are_found() -> None:
    stream, recent = opened(), Recent()
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 14, 99, 8, 0])))
    right = snapshot_of(stream)
    book = right.books[0]
    wrong = right._replace(books=[book._replace(asks=[(12, 101, 8)])])
    queue = right._replace(books=[book._replace(bids=book.bids[::-1])])
    recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    assert second_opinion(stream.client, recent, wrong) == (
        1, ("ALFA asks: 1 orders, 1 at its owner; they differ from #1",)
    )  # fmt: skip
    found = second_opinion(stream.client, recent, queue)
    assert found == (1, ("ALFA bids: 2 orders, 2 at its owner; they differ from #1",))


def test_an_order_that_the_other_machine_never_had_is_found() -> None:
    stream, recent = opened(), Recent()
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 14, 99, 8, 0])))
    snapshot = snapshot_of(stream)
    lacking = snapshot._replace(books=[snapshot.books[0]._replace(bids=[])])
    recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    carried, differing = second_opinion(stream.client, recent, lacking) or (0, ())
    assert carried == 1
    assert differing == ("order 11 of instrument 1 is not in the book on that side",)


def test_what_cannot_be_compared_is_not() -> None:
    stream, recent = opened(), Recent()
    old = snapshot_of(stream)
    assert second_opinion(stream.client, recent, old._replace(epoch=2)) is None
    assert second_opinion(stream.client, recent, old._replace(last_seq=9)) is None  # ahead of us
    stream.hear(stream.publish(CHANGED))  # not recorded
    assert second_opinion(stream.client, recent, old) is None
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 20, 90, 1, 0])))
    assert second_opinion(stream.client, recent, old) is None  # the deltas kept begin too late
    middle = snapshot_of(stream)
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 21, 90, 1, 0])))
    assert second_opinion(stream.client, recent, middle._replace(last_seq=9)) is None  # ahead of us, still
    stream.hear(stream.publish([ADD | END, 1, 22, 90, 1, 0]))  # not recorded
    recorded(stream, recent, stream.hear(stream.publish([ADD | END, 1, 23, 90, 1, 0])))
    assert second_opinion(stream.client, recent, middle) is None  # a hole in what is kept


def test_only_the_last_deltas_are_kept() -> None:
    stream, recent = opened(), Recent(deltas_max=2)
    old = snapshot_of(stream)
    for _ in range(3):
        recorded(stream, recent, stream.hear(stream.publish(CHANGED)))
    assert not recent.reaches(1, old.last_seq)
    assert recent.reaches(1, old.last_seq + 1)

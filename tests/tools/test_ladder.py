"""The picture of a book, compared whole."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.reader import Book, Level
from tools.ladder import LadderView, draw, plain, price_text, quantity_text

TICK, LOT = Decimal("0.01"), Decimal("1")


def level(ticks: int, lots: int, count: int) -> Level:
    return Level(ticks * TICK, lots * LOT, count)


BOOK = Book(
    "ALFA", "valid", 0.1, 3, 34_512, 0, "open", Decimal("100.04"), Decimal(30),
    (level(10_003, 100, 1), level(10_001, 1_328, 3)),
    (level(10_005, 664, 1), level(10_007, 1, 2), level(10_009, 5, 5)),
)  # fmt: skip
VIEW = LadderView(BOOK, engine=1, channel=1, stream="LIVE", gaps=12)


def picture(view: LadderView, depth: int = 3, width: int = 80, ascii_only: bool = False) -> str:
    return "".join(line.rstrip() + "\n" for line in plain(draw(view, depth, width, ascii_only)))


def test_asks_stand_above_the_spread_and_bids_below_with_bars_outward() -> None:
    expected = """\
ALFA  ✓ valid                            engine-1 channel 1  epoch 3  seq 34,512
last 30 @ 100.04                                            stream LIVE  gaps 12
────────────────────────────────────────────────────────────────────────────────
                                        100.09           5    5 ▌
                                        100.07           1    2 ▌
                                        100.05         664    1 ████████
                           spread         0.02
               █    1         100       100.03
████████████████    3       1,328       100.01
                                             ·
"""
    assert picture(VIEW) == expected


def test_where_there_is_little_room_the_bars_go_first_then_the_numbers_of_orders_and_no_quantity_ever() -> None:
    expected = """\
ALFA  ✓ valid        epoch 3  seq 34,512
last 30 @ 100.04    stream LIVE  gaps 12
────────────────────────────────────────
                    100.09           5
                    100.07           1
                    100.05         664
       spread         0.02
          100       100.03
        1,328       100.01
                         ·
"""
    assert picture(VIEW, width=40) == expected
    assert picture(VIEW, width=50).splitlines()[3:6:2] == [
        "                         100.09           5    5", "                         100.05         664    1",
    ]  # fmt: skip


def test_a_stale_book_says_so_in_words_and_its_age_and_is_dim_throughout() -> None:
    lines = draw(replace(VIEW, book=replace(BOOK, state="stale", age_s=3.21), stream="STALE"), 3)
    assert plain(lines)[0].startswith("ALFA  ! STALE 3.2 s  ")
    assert lines[0][0][1] == "alarm"
    assert {style for line in lines[2:] for _, style in line} == {"dim"}


def test_a_doubtful_book_says_so() -> None:
    assert picture(replace(VIEW, book=replace(BOOK, state="doubtful"), stream="REPAIR")).splitlines()[:2] == [
        "ALFA  ! DOUBTFUL                         engine-1 channel 1  epoch 3  seq 34,512",
        "last 30 @ 100.04                                          stream REPAIR  gaps 12",
    ]


def test_a_note_follows_the_last_trade() -> None:
    line = picture(replace(VIEW, note="3 times verified")).splitlines()[1]
    assert line.startswith("last 30 @ 100.04  3 times verified   ")


def test_an_empty_book_has_the_same_size() -> None:
    empty = replace(VIEW, book=replace(BOOK, bids=(), asks=(), last_price=None))
    expected = """\
ALFA  ✓ valid                            engine-1 channel 1  epoch 3  seq 34,512
no trade yet                                                stream LIVE  gaps 12
────────────────────────────────────────────────────────────────────────────────
                                             ·
                                             ·
                                             ·

                                             ·
                                             ·
                                             ·
"""
    assert picture(empty) == expected


def test_without_unicode_bars_are_drawn_in_ascii() -> None:
    assert "################    3       1,328       100.01\n" in picture(VIEW, ascii_only=True)
    assert picture(VIEW, 5, ascii_only=True).isascii()


def test_a_quantity_too_wide_for_its_column_is_told_in_thousands_never_cut() -> None:
    wide = replace(VIEW, book=replace(BOOK, bids=(level(10_003, 123_456_789_012, 1),), asks=()))
    assert "    123,456M " in picture(wide)


def test_prices_are_decimal_text_with_the_ticks_own_places() -> None:
    assert price_text(-5, Decimal("0.25")) == "-1.25"
    assert price_text(7, Decimal("0.001")) == "0.007"
    assert price_text(12, Decimal("100")) == "1200"
    assert quantity_text(1_234_567, Decimal("0.1")) == "123,456.7"


levels = st.lists(
    st.builds(level, st.integers(-(2**40), 2**40), st.integers(1, 2**40), st.integers(1, 10**6)), max_size=30
)


@pytest.mark.parametrize("ascii_only", [False, True])
@given(bids=levels, asks=levels, depth=st.integers(1, 12), width=st.integers(1, 200), sequence=st.integers(0, 2**63))
def test_every_line_has_the_same_width_and_a_picture_always_the_same_number_of_lines(
    bids: list[Level], asks: list[Level], depth: int, width: int, sequence: int, ascii_only: bool
) -> None:
    view = replace(
        VIEW, book=replace(BOOK, bids=tuple(bids), asks=tuple(asks), sequence=sequence, symbol="A-VERY-LONG-NAME")
    )
    lines = plain(draw(view, depth, width, ascii_only))
    assert len(lines) == 2 * depth + 4
    assert len({len(line) for line in lines}) == 1

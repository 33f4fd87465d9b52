"""The picture of a running cluster, compared whole."""

from dataclasses import replace
from decimal import Decimal
from io import StringIO

from rich.console import Console

from tools.run.live_view import Board, InstrumentRow, MachineRow, render

BOARD = Board(
    "3 engines, 2 instruments",
    machines=[
        MachineRow(1, "up", "up", 531.2, "127.0.0.1:40123", 1, 5_182, 209, 183, 0, 26, 3, 3),
        MachineRow(2, "down", "paused", 0.0, "", 57, 987_123, 9, 8, 1, 0, 2, 3),
        MachineRow(3),
    ],
    instruments=[
        InstrumentRow("ALFA", 1, Decimal("0.01"), Decimal(1), "valid", (15_239, 17), (15_241, 20), 15_240, 5_062),
        InstrumentRow("BRAVO", 2, Decimal("0.5"), Decimal("0.1"), "stale", (7, 13), None, None, 15_768),
    ],
    happened=[f"{i:6.1f} s  engine-{i} killed" for i in range(1, 9)],
    phase="trading",
    now_s=3.21,
    duration_s=20,
)


DAY = Board(
    "3 engines, 2 instruments, a trading day",
    machines=BOARD.machines[:1],
    instruments=[
        replace(BOARD.instruments[0], phase="auction", indication=(15_240, 1_234, -57)),
        replace(BOARD.instruments[1], state="valid", phase="open", volume=768),
        InstrumentRow("CHARLIE", 3, Decimal("0.01"), Decimal(1), "valid", phase="halted", indication=(0, 0, 0)),
        InstrumentRow("DELTA", 3, Decimal("0.01"), Decimal(1), "valid", phase="closed"),
    ],
    happened=["   4.8 s  opening auction", "   8.1 s  BRAVO opens with 1.2 at 3.5"],
    closing=[("DELTA", "1.00", "1.02", "1.00", "1.01", "7", "2", "1.010")],
    refusals={"wrong state": 2, "would trade": 17},
    phase="opening auction",
    now_s=5.0,
    duration_s=40,
)


def picture(width: int, board: Board = BOARD) -> str:
    out = StringIO()
    Console(file=out, width=width).print(render(board))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def test_a_row_for_each_machine_and_each_instrument_and_what_happened_last() -> None:
    expected = """\
 lobmesh   trading  3.2 s of 20   3 engines, 2 instruments

           orders             feed              in           by        by  came
#  engine   per s  epoch  sequence  fabric    step  gaps  range  snapshot  late
───────────────────────────────────────────────────────────────────────────────
1  up         531      1     5,182  up      3 of 3   209    183         0    26
2  down         0     57   987,123  paused  2 of 3     9      8         1     0
3  starts       0      -         -  starts  0 of 0     0      0         0     0

symbol  home  bid size     bid   offer  offer size    last   volume  book
──────────────────────────────────────────────────────────────────────────
ALFA       1        17  152.39  152.41          20  152.40    5,062  valid
BRAVO      2       1.3     3.5       -           -       -  1,576.8  stale

     3.0 s  engine-3 killed
     4.0 s  engine-4 killed
     5.0 s  engine-5 killed
     6.0 s  engine-6 killed
     7.0 s  engine-7 killed
     8.0 s  engine-8 killed
"""
    assert picture(90) == expected


def test_it_fits_eighty_columns() -> None:
    assert picture(80) == picture(90)
    tables = picture(80, DAY).splitlines()[2:14]
    assert tables == picture(90, DAY).splitlines()[2:14]


def test_on_a_trading_day_phases_and_auctions_are_in_words_and_the_closing_statistics_below() -> None:
    expected = """\
 lobmesh   opening auction  5.0 s of 40   3 engines, 2 instruments, a trading day

           orders             feed              in           by        by  came
#  engine   per s  epoch  sequence  fabric    step  gaps  range  snapshot  late
───────────────────────────────────────────────────────────────────────────────
1  up         531      1     5,182  up      3 of 3   209    183         0    26

symbol   phase       bid   offer    last  volume     would trade  left     book
────────────────────────────────────────────────────────────────────────────────
ALFA     auction  152.39  152.41  152.40   5,062  1,234 @ 152.40  sell 57  valid
BRAVO    open        3.5       -       -    76.8                           valid
CHARLIE  halted        -       -       -       0         nothing           valid
DELTA    closed        -       -       -       0                           valid

  refused: would trade 17, wrong state 2

symbol  open  high   low  last  volume  trades   VWAP
─────────────────────────────────────────────────────
DELTA   1.00  1.02  1.00  1.01       7       2  1.010

     4.8 s  opening auction
     8.1 s  BRAVO opens with 1.2 at 3.5
"""
    assert picture(90, DAY) == expected


def test_a_narrow_screen_drops_columns_and_neither_digits_nor_the_address_to_copy() -> None:
    address = "trade there: python -m tools.orders --at 127.0.0.1:40123 book ALFA"
    told = replace(BOARD, addresses=[address], happened=[f"   0.0 s  {address}", *BOARD.happened])
    expected = """\
 lobmesh   trading  3.2 s of 20   3 engines, 2 instruments

           orders             feed              in
#  engine   per s  epoch  sequence  fabric    step  gaps
────────────────────────────────────────────────────────
1  up         531      1     5,182  up      3 of 3   209
2  down         0     57   987,123  paused  2 of 3     9
3  starts       0      -         -  starts  0 of 0     0

symbol     bid   offer    last   volume  book
──────────────────────────────────────────────
ALFA    152.39  152.41  152.40    5,062  valid
BRAVO      3.5       -       -  1,576.8  stale

  trade there: python -m tools.orders --at 127.0.0.1:40123
book ALFA

     3.0 s  engine-3 killed
"""
    assert picture(60, told).startswith(expected)
    for width in range(40, 121):
        shown = picture(width, replace(DAY, addresses=[address]))
        assert address in " ".join(shown.split())
        for price in ("152.39", "152.41"):
            assert price in shown
    assert "127.0.0.1:40123" in picture(100)

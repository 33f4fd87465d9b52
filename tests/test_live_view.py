"""The picture of a running cluster, compared whole."""

from decimal import Decimal
from io import StringIO

from rich.console import Console

from tools.live_view import Board, InstrumentRow, MachineRow, render

BOARD = Board(
    "3 engines, 2 instruments",
    machines=[
        MachineRow(1, "up", "up", 531.2, 1, 5_182, 209, 183, 0, 26, 3, 3),
        MachineRow(2, "down", "paused", 0.0, 57, 987_123, 9, 8, 1, 0, 2, 3),
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


def picture(width: int) -> str:
    out = StringIO()
    Console(file=out, width=width).print(render(BOARD))
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
    assert picture(100) == expected


def test_it_fits_eighty_columns() -> None:
    assert picture(80) == picture(100)

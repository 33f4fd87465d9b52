"""The witness of the random flows sees each thing that must not be, told to it here on purpose."""

from types import SimpleNamespace
from typing import Any

import pytest

from proto import feed
from proto.columns import ACCEPTED, AUCTION_TRADE, CANCELED, MAKER, TRADED, ReportRow
from tests.oracle import CLOSED, OPEN, Said
from tests.witness import Witness

ANN, BOB, ALFA = 1, 2, 7


def add(id: int, side: int, price: int, quantity: int) -> tuple[int | str, ...]:
    return feed.ADD | side * feed.SELL, ALFA, id, price, quantity, 0


def execute(id: int, side: int, price: int, quantity: int, trade: int = 1) -> tuple[int | str, ...]:
    return feed.EXECUTE | side * feed.SELL, ALFA, id, price, quantity, trade


def accepted(id: int, quantity: int, open: int = -1) -> ReportRow:
    return ReportRow(ACCEPTED, id, id, id, ALFA, 0, 100, quantity, quantity if open < 0 else open, 0, 0, 0)


def traded(id: int, flags: int, price: int, quantity: int, open: int, filled: int, trade: int = 1) -> ReportRow:
    return ReportRow(TRADED, 0, id, id, ALFA, flags, price, quantity, open, filled, trade, 0)


class Scene:
    """An instrument and who is live on it, as an oracle would say."""

    def __init__(self) -> None:
        self.market = SimpleNamespace(state=OPEN)
        self.orders: list[Any] = []
        oracle: Any = SimpleNamespace(markets={ALFA: self.market}, live=lambda: self.orders)
        self.witness = Witness(oracle)

    def hear(self, *told: Any) -> None:
        """Deltas, and reports to ann and bob in turn."""
        reports = [row for row in told if isinstance(row, ReportRow)]
        parties = {account: list(enumerate(reports[account - 1 :: 2], 1)) for account in (ANN, BOB)}
        self.witness.hear(Said(reports=parties, deltas={1: [row for row in told if not isinstance(row, ReportRow)]}))


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.hear(add(1, 0, 100, 5), add(2, 0, 99, 5), accepted(1, 5), accepted(2, 5))
    return scene


def fair() -> list[Any]:
    """Order 3 sells two lots to order 1."""
    return [accepted(3, 2), traded(1, MAKER, 100, 2, 3, 2), traded(3, 1, 100, 2, 0, 2), execute(1, 0, 100, 2)]


def test_a_fair_trade_is_fine(scene: Scene) -> None:
    scene.hear(*fair())


LIES: dict[str, tuple[str, list[Any]]] = {
    "crossed": ("crossed while open", [add(3, 1, 100, 1)]),
    "better price passed": (
        "through a better price",
        [accepted(3, 2), traded(2, MAKER, 99, 2, 3, 2), traded(3, 1, 99, 2, 0, 2), execute(2, 0, 99, 2)],
    ),
    "hidden trade passes a better price": (
        "through a better price",
        [accepted(3, 2), traded(2, MAKER, 99, 2, 3, 2), traded(3, 1, 99, 2, 0, 2),
         (feed.TRADE | feed.SELL, ALFA, 0, 99, 2, 1)],
    ),
    "sides of other prices": (
        "two sides",
        [accepted(3, 2), traded(1, MAKER, 100, 2, 3, 2), traded(3, 1, 99, 2, 0, 2), execute(1, 0, 100, 2)],
    ),
    "two buyers": ("of one side", [accepted(3, 2), traded(1, MAKER, 100, 2, 3, 2), traded(3, 0, 100, 2, 0, 2)]),
    "two makers": (
        "a taker and a maker", [accepted(3, 2), traded(1, MAKER, 100, 2, 3, 2), traded(3, MAKER | 1, 100, 2, 0, 2)]
    ),
    "half an auction": (
        "a taker and a maker",
        [accepted(3, 2), traded(1, AUCTION_TRADE, 100, 2, 3, 2), traded(3, 1, 100, 2, 0, 2)],
    ),
    "a trade the feed does not tell": ("the feed tells other trades", fair()[:-1]),
    "a trade of another size on the feed": ("the feed tells other trades", [*fair()[:-1], execute(1, 0, 100, 1)]),
    "filled without a trade": ("filled is what was traded", [traded(1, MAKER, 100, 2, 3, 3)]),
    "a lot lost": ("a lot is open, filled or nowhere", [accepted(3, 5, open=4)]),
    "more than was shown": (
        "more traded than was shown",
        [accepted(3, 6), traded(1, MAKER, 100, 6, 0, 6), traded(3, 1, 100, 6, 0, 6), execute(1, 0, 100, 6)],
    ),
    "beyond its limit": (
        "beyond an order's limit",
        [accepted(3, 2), traded(1, MAKER, 101, 2, 3, 2), traded(3, 1, 101, 2, 0, 2), execute(1, 0, 101, 2)],
    ),
    "twice": ("added twice", [add(1, 0, 100, 5)]),
}  # fmt: skip


@pytest.mark.parametrize(("says", "told"), LIES.values(), ids=LIES)
def test_what_must_not_be_is_seen(scene: Scene, says: str, told: list[Any]) -> None:
    with pytest.raises(AssertionError, match=says):
        scene.hear(*told)


def test_a_crossed_book_is_fine_where_nothing_trades(scene: Scene) -> None:
    scene.market.state = CLOSED
    scene.hear(add(3, 1, 100, 1))


def test_an_all_or_none_order_filled_in_part_and_a_tip_too_large_are_seen(scene: Scene) -> None:
    scene.orders = [SimpleNamespace(all_or_none=True, filled=1, instrument=ALFA, public_id=0, display=0)]
    with pytest.raises(AssertionError, match="an all-or-none order was partly filled"):
        scene.hear()
    scene.orders = [SimpleNamespace(all_or_none=False, filled=0, instrument=ALFA, public_id=1, display=4)]
    with pytest.raises(AssertionError, match="hidden quantity is shown"):
        scene.hear()


def test_a_canceled_order_keeps_what_was_filled(scene: Scene) -> None:
    scene.hear(*fair())
    gone = ReportRow(CANCELED, 9, 1, 1, ALFA, 0, 100, 5, 0, 1, 0, 0)
    with pytest.raises(AssertionError, match="filled is what was traded"):
        scene.hear(gone)

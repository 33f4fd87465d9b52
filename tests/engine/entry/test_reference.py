"""What is traded, where and by whom, as an engine hears of it."""

from dataclasses import replace
from decimal import Decimal

import pytest

from engine.entry.reference import Reference
from proto.columns import UNKNOWN_INSTRUMENT
from proto.instrument import Instrument
from proto.orders import BadValueError

ALFA = Instrument(10, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), 1, 100)
BETA = replace(ALFA, id=20, symbol="BETA", engine=2)


def known(*accounts: int) -> Reference:
    reference = Reference(1, lambda: accounts)
    reference.learn([ALFA, BETA])
    return reference


def test_the_home_of_an_instrument_is_its_engine_and_of_one_that_nobody_has_this_one() -> None:
    reference = known()
    assert [reference.home(instrument) for instrument in (10, 20, 99)] == [1, 2, 1]
    assert reference.all_here([10, 99])
    assert not reference.all_here([10, 20])


def test_an_instrument_that_moved_is_where_it_is_now() -> None:
    reference = known()
    reference.learn([replace(ALFA, engine=2), replace(BETA, engine=1)])
    assert [reference.home(instrument) for instrument in (10, 20)] == [2, 1]
    assert reference.all_here([20])


def test_a_symbol_that_was_given_up_names_nothing_and_one_taken_over_names_the_new() -> None:
    reference = known()
    reference.learn([replace(ALFA, symbol="NOVA")])
    assert reference.instrument("NOVA").id == 10
    with pytest.raises(BadValueError) as unknown:
        reference.instrument("ALFA")
    assert unknown.value.reason == UNKNOWN_INSTRUMENT
    assert str(unknown.value) == "there is no instrument 'ALFA': there are BETA, NOVA"
    reference.learn([replace(ALFA, id=30), replace(ALFA, symbol="STAR")])
    assert (reference.instrument("ALFA").id, reference.instrument("STAR").id) == (30, 10)


def test_without_a_list_every_account_may_trade() -> None:
    assert known().may_trade(7)
    assert known(7, 8).may_trade(7)
    assert not known(7, 8).may_trade(9)

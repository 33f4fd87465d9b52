"""Limits that change while orders of every kind are live: the engine and the slow obvious matcher say the same."""

from dataclasses import replace
from random import Random

import pytest

from engine.core.commands import ChangeInstrument
from proto.instrument import FIFO, PRO_RATA, Instrument
from tests.engine.log.test_replay import _steps as some_steps
from tests.flows import Player
from tests.pair import Pair


def edited(rng: Random, i: Instrument) -> Instrument:
    """Other limits, round the prices that the flows are about; now and then what may not be."""
    narrow = {"price_min": rng.choice((99, 100)), "price_max": rng.choice((100, 101))}
    change = rng.choice((
        narrow, narrow, {"price_min": 1, "price_max": 200}, {"band": rng.choice((0, 1, 3))},
        {"collar": rng.choice((0, 1, 2))}, {"quantity_max": rng.choice((0, 4, 20))},
        {"notional_max": rng.choice((0, 400, 3_000))}, {"allocation": rng.choice((FIFO, PRO_RATA))},
        {"price_min": 101, "price_max": 99}, {"channel": 3 - i.channel},
    ))  # fmt: skip
    return replace(i, **change)


@pytest.mark.parametrize("seed", range(6))
def test_orders_outside_narrower_limits_stay_and_new_ones_have_to_be_within(seed: int) -> None:
    rng = Random(seed)
    pair = Pair()
    player = Player(1, pair)
    changes = outside = 0
    for home in (1, 2, 3, 4) * 12:
        player.home = home
        player.play(some_steps(rng, 20))
        before = pair.venue.markets[home].instrument
        pair.operate(player.time, ChangeInstrument.of(edited(rng, before)))
        market = pair.venue.markets[home]
        changes += market.instrument != before
        shown = [price for side in (0, 1) for _, price, _ in pair.oracle.shown(home, side)]
        outside += sum(not market.price_min <= price <= market.price_max for price in shown)
    assert (changes > 10, outside > 0) == (True, True), (changes, outside)

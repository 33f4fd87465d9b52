"""Random flows: the engine and the slow obvious matcher say the same, and a mirror of the feed shows the same book.

LOBMESH_ORACLE_COMMANDS is how many commands to try, about; `make oracle` tries a million.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.flows import FLOW_MAX, Flow, Player, flows
from tests.pair import Pair

COMMANDS = int(os.environ.get("LOBMESH_ORACLE_COMMANDS", "12000"))
PART_MAX = 50_000  # commands; what has been tried is remembered to the end of a part, which costs memory


@pytest.mark.parametrize("part", range(-(-COMMANDS // PART_MAX)))
@settings(
    max_examples=max(1, min(COMMANDS, PART_MAX) // (FLOW_MAX // 2)),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(flow=flows())
def test_engine_and_slow_obvious_matcher_say_the_same(part: int, flow: Flow) -> None:
    home, steps = flow
    Player(home, Pair()).play(steps)

"""Random flows: the engine and the slow obvious matcher say the same, and a mirror of the feed shows the same book.

LOBMESH_ORACLE_COMMANDS is how many commands to try, about; `make oracle` tries a million. LOBMESH_ORACLE_SHRINK=0
leaves a failure as it was found.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.core.limits import LIMITS, Limits
from tests.flows import FLOW_MAX, Flow, Player, flows
from tests.pair import Pair

COMMANDS = int(os.environ.get("LOBMESH_ORACLE_COMMANDS", "12000"))
SHRINKING = [Phase.shrink] if os.environ.get("LOBMESH_ORACLE_SHRINK", "1") != "0" else []
PART_MAX = 50_000  # commands; what has been tried is remembered to the end of a part, which costs memory

TIGHT = Limits(trades=2, settling=3, slices=3, waiting=5, own=3)  # what a flow of so few orders runs into


@pytest.mark.parametrize("part", range(-(-COMMANDS // PART_MAX)))
@settings(
    max_examples=max(1, min(COMMANDS, PART_MAX) // (FLOW_MAX // 2)),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, *SHRINKING],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(flow=flows(), limits=st.sampled_from([LIMITS, TIGHT]))
def test_engine_and_slow_obvious_matcher_say_the_same(part: int, flow: Flow, limits: Limits) -> None:
    home, steps = flow
    Player(home, Pair(limits)).play(steps)

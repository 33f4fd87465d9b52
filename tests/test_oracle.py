"""Random flows: the engine and the slow obvious matcher say the same, and a mirror of the feed shows the same book.

LOBMESH_ORACLE_COMMANDS is how many commands to try, about; `make oracle` tries a million.
"""

import os

from hypothesis import HealthCheck, Phase, given, settings

from tests.flows import FLOW_MAX, Flow, Player, flows
from tests.pair import Pair

COMMANDS = int(os.environ.get("LOBMESH_ORACLE_COMMANDS", "12000"))


@settings(
    max_examples=max(1, COMMANDS // (FLOW_MAX // 2)),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(flows())
def test_engine_and_slow_obvious_matcher_say_the_same(flow: Flow) -> None:
    home, steps = flow
    Player(home, Pair()).play(steps)

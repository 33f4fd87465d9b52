"""What holds for every test: which of them may start processes, and how long a test may take.

`make test` runs those without processes first, so that a verdict comes early. A test that starts one says so by
`@pytest.mark.processes` (or `pytestmark` for a file of them); the others cannot, so the mark is never forgotten.
"""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.patience import patience

settings.register_profile("any machine", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("any machine")

_refused = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _refused and event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
        raise AssertionError(f"starts a process ({arguments[0]}): mark the test with @pytest.mark.processes")


sys.addaudithook(_audit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _refused  # an audit hook cannot be taken out again, so there is one for all tests
    _refused = item.get_closest_marker("processes") is None
    # A worker of pytest-xdist ignores interrupts, and so would its children; a program in process may leave a handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return (yield)
    finally:
        _refused = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that hangs is ended after its own `timeout`, or that of the command line or of pyproject.toml, times the
    patience."""
    usual_s = float(config.getoption("timeout") or config.getini("timeout"))
    for item in items:
        mark = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(patience(mark.args[0] if mark else usual_s)), append=False)

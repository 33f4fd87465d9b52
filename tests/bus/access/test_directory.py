"""The directory: what one machine believes of the others, and how machines find each other."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.access.directory import Changed, Conflict, Directory, Displaced, Entry, Event, Superseded, Unconfirmed
from bus.access.exchange import DirectoryError, DirectoryLoop, DirectoryRefused, ask, entry_of, message_of
from proto import cluster_pb2, cluster_pb2_grpc
from proto.instrument import Instrument
from tests.patience import patience

SECOND = 1_000_000_000


def instrument(number: int, engine: int, symbol: str = "") -> Instrument:
    return Instrument(number, symbol or f"S{number}", engine, 1, Decimal("0.01"), Decimal(1), 1, 1000)


def engine(
    number: int,
    epoch: int = 1,
    version: int = 1,
    *,
    name: str = "",
    incarnation: int = 0,
    instruments: tuple[Instrument, ...] = (),
    port: int = 0,
    left: bool = False,
) -> Entry:
    return Entry(
        name=name or f"engine-{number}",
        engine=number,
        fabric=False,
        incarnation=incarnation or 100 + number,
        epoch=epoch,
        version=version,
        grpc=f"127.0.0.1:{port or 4000 + number}",
        feed=f"tcp://127.0.0.1:{5000 + number}",
        instruments=instruments or (instrument(number, number),),
        left=left,
    )


def fabric(number: int, version: int = 1, *, port: int = 0, left: bool = False) -> Entry:
    where = f"127.0.0.1:{port or 6000 + number}"
    return Entry(f"fabric-{number}", number, True, 0, 0, version, where, left=left)


# Settling


@pytest.mark.parametrize(
    ("known", "told", "believed"),
    [
        (engine(1, 5, 5), engine(1, 5, 6), engine(1, 5, 6)),
        (engine(1, 5, 5), engine(1, 5, 5), engine(1, 5, 5)),
        (engine(1, 5, 5), engine(1, 5, 4), engine(1, 5, 5)),
        (engine(1, 5, 5), engine(1, 6, 1), engine(1, 6, 1)),
        (engine(1, 5, 5), engine(1, 4, 9), engine(1, 5, 5)),
        (engine(1, 5, 5), engine(1, 9, 9, incarnation=7), engine(1, 5, 5)),
        (fabric(1, 5), fabric(1, 6, left=True), fabric(1, 6, left=True)),
    ],
)
def test_the_higher_epoch_then_the_higher_version_of_one_incarnation_is_believed(
    known: Entry, told: Entry, believed: Entry
) -> None:
    directory = Directory()
    directory.merge([known])
    directory.merge([told])
    assert directory.entries() == (believed,)


ENTRIES = st.lists(
    st.one_of(
        st.builds(
            engine, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), port=st.integers(1, 2), left=st.booleans()
        ),
        st.builds(fabric, st.integers(1, 2), st.integers(1, 3), port=st.integers(1, 2), left=st.booleans()),
    ),
    max_size=8,
)


def merged(*parts: list[Entry]) -> Directory:
    directory = Directory()
    for part in parts:
        directory.merge(part)
    return directory


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ENTRIES, ENTRIES, ENTRIES)
def test_what_is_believed_depends_on_no_order_and_no_repetition(a: list[Entry], b: list[Entry], c: list[Entry]) -> None:
    together = merged(a, b, c)
    told_b_and_c = list(merged(b, c).entries())
    for other in (
        merged(c, a, b),
        merged(b, b, a, c, a),
        merged(a, told_b_and_c),
        merged([*a, *b, *c][::-1]),
    ):
        assert other.entries() == together.entries()
        assert other.instruments() == together.instruments()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.booleans()), max_size=12))
def test_whatever_is_claimed_an_instrument_has_one_home_at_most(claims: list[tuple[int, int, int, bool]]) -> None:
    directory = Directory()
    for number, instrument_id, version, left in claims:
        directory.merge([engine(number, 1, version, instruments=(instrument(instrument_id, number),), left=left)])
    holders: dict[int, list[str]] = {}
    for entry in directory.engines():
        for held in entry.instruments:
            if not entry.left:
                holders.setdefault(held.id, []).append(entry.name)
    for instrument_id, names in holders.items():
        home = directory.engine_of(instrument_id)
        assert home is not None
        assert names == [home.name]
    listed = [entry.name for entry in directory.engines()]
    refused = [conflict for number in (1, 2, 3) if (conflict := directory.conflict(f"engine-{number}"))]
    assert all(conflict.holder in listed for conflict in refused)


# Conflicts


@pytest.mark.parametrize(
    ("claimant", "conflict"),
    [
        (engine(1, name="other", instruments=(instrument(8, 1),)), Conflict("engine", 1, "engine-1", "other")),
        (engine(2, instruments=(instrument(1, 2, "X"),)), Conflict("instrument", 1, "engine-1", "engine-2")),
        (engine(2, instruments=(instrument(9, 2, "S1"),)), Conflict("symbol", "S1", "engine-1", "engine-2")),
    ],
)
def test_a_second_claim_is_refused_and_both_are_named(claimant: Entry, conflict: Conflict) -> None:
    directory = Directory()
    directory.merge([engine(1)])
    assert directory.merge([claimant]) == [conflict]
    assert directory.merge([claimant]) == []
    assert directory.entries() == (engine(1),)
    assert (directory.conflict(claimant.name), directory.conflict("engine-1")) == (conflict, None)
    assert conflict.holder in str(conflict)
    assert conflict.claimant in str(conflict)


def test_a_refused_entry_is_believed_when_the_holder_gives_way() -> None:
    directory = Directory()
    rival = engine(2, instruments=(instrument(1, 2),))
    gone = engine(1, version=2, left=True)
    directory.merge([engine(1), rival])
    assert directory.merge([gone]) == [Changed(gone, engine(1)), Changed(rival, None)]
    assert (directory.engine_of(1), directory.engine_of("S1"), directory.conflict(rival.name)) == (rival, rival, None)
    back = engine(1, epoch=2)
    assert directory.merge([back]) == [Conflict("instrument", 1, "engine-2", "engine-1")]
    assert directory.engine_of(1) == rival


def test_the_id_of_an_engine_that_left_is_free() -> None:
    directory = Directory()
    gone, heir = engine(1, left=True), engine(1, name="heir", instruments=(instrument(8, 1),))
    directory.merge([gone])
    assert directory.merge([heir]) == [Changed(heir, None)]
    assert directory.engine(1) == heir


def test_an_entry_whose_change_is_refused_stays_as_it_was() -> None:
    directory = Directory()
    directory.merge([engine(1), engine(2)])
    greedy = engine(2, version=2, instruments=(instrument(2, 2), instrument(1, 2)))
    assert directory.merge([greedy]) == [Conflict("instrument", 1, "engine-1", "engine-2")]
    assert directory.entries() == (engine(1), engine(2))


# Incarnations


def test_another_incarnation_is_believed_only_when_the_machine_itself_confirms_it() -> None:
    directory = Directory()
    directory.merge([engine(1, epoch=50)])
    anew = engine(1, epoch=1, incarnation=7, port=4999)
    assert directory.merge([anew]) == [Unconfirmed(anew, engine(1, epoch=50))]
    assert directory.merge([anew]) == []
    assert (directory.entry("engine-1"), directory.doubted()) == (engine(1, epoch=50), (anew,))
    assert directory.confirm(anew, 0) == [Changed(anew, engine(1, epoch=50))]
    assert (directory.entry("engine-1"), directory.doubted()) == (anew, ())
    # The old one is doubted in its turn, when a third machine still tells of it.
    assert directory.merge([engine(1, epoch=50)]) == [Unconfirmed(engine(1, epoch=50), anew)]


def test_two_incarnations_that_both_answer_are_two_machines_of_one_name() -> None:
    directory = Directory()
    old, anew = engine(1, epoch=50), engine(1, incarnation=7, port=4999)
    directory.merge([old, anew])
    directory.heard(old, 10 * SECOND)
    assert directory.confirm(anew, 11 * SECOND) == []
    directory.heard(old, 12 * SECOND)
    assert directory.confirm(anew, 13 * SECOND) == [Conflict("name", "engine-1", old.grpc, anew.grpc)]
    assert directory.entry("engine-1") == old


def test_another_incarnation_is_believed_when_the_one_before_has_been_silent() -> None:
    directory = Directory()
    old, anew = engine(1, epoch=50), engine(1, incarnation=7, port=4999)
    directory.merge([old, anew])
    directory.heard(old, 10 * SECOND)
    assert directory.confirm(anew, 13 * SECOND - 1) == []
    assert directory.confirm(anew, 13 * SECOND) == [Changed(anew, old)]
    assert directory.last_heard_ns("engine-1") is None


def test_another_incarnation_at_the_same_place_has_taken_the_place() -> None:
    directory = Directory()
    old, anew = engine(1, epoch=50), engine(1, incarnation=7)
    directory.merge([old, anew])
    directory.heard(old, 10 * SECOND)
    assert directory.confirm(anew, 11 * SECOND) == [Changed(anew, old)]


def test_a_doubt_that_was_forgotten_comes_back_when_it_is_told_again() -> None:
    directory = Directory()
    old, anew = engine(1, epoch=50), engine(1, incarnation=7)
    directory.merge([old, anew])
    directory.forget_doubt("engine-1")
    assert directory.doubted() == ()
    assert directory.merge([anew]) == [Unconfirmed(anew, old)]


# Our own entry


def test_nobody_else_writes_our_own_entry() -> None:
    own = engine(1, epoch=5, version=5)
    directory = Directory(own)
    assert directory.merge([engine(1, 5, 4), engine(1, 4, 9), engine(1, 9, 9, incarnation=7), own]) == []
    past_life = engine(1, 5, 9, port=4999)
    above = replace(own, version=10)
    assert directory.merge([past_life]) == [Changed(above, own)]
    assert (directory.own, directory.entries()) == (above, (above,))


def test_an_owner_of_our_log_with_a_higher_epoch_supersedes_us() -> None:
    directory = Directory(engine(1, epoch=5))
    successor = engine(1, epoch=6, port=4999)
    assert directory.merge([successor]) == [Superseded(successor)]


def test_a_machine_that_calls_itself_by_our_name_is_a_conflict() -> None:
    own = engine(1, epoch=5)
    twin = engine(1, epoch=5, port=4999)
    assert Directory(own).merge([twin], sender="engine-1") == [Conflict("name", "engine-1", own.grpc, twin.grpc)]


# Starts


def started(entry: Entry, start: int, follows: int = 0, *, port: int = 0) -> Entry:
    grpc = f"127.0.0.1:{port}" if port else entry.grpc
    return replace(entry, start=start, follows=follows, grpc=grpc)


@pytest.mark.parametrize("kind", [engine, fabric])
def test_a_machine_that_found_the_one_before_silent_is_believed_at_once_and_the_one_before_never_again(
    kind: Callable[..., Entry],
) -> None:
    before = started(kind(1, version=9), 11)
    heir = started(kind(1, version=2), 12, follows=11, port=4999)  # its clock may be behind
    directory = Directory()
    directory.merge([before])
    directory.heard(before, 10 * SECOND)
    assert directory.merge([heir]) == [Changed(heir, before)]
    assert directory.merge([before, replace(before, version=20)]) == []
    assert directory.entries() == (heir,)


def test_a_machine_at_the_place_of_the_one_before_has_taken_the_place() -> None:
    before, heir = started(engine(1, epoch=5), 11), started(engine(1, epoch=6), 12)
    directory = Directory()
    directory.merge([before])
    assert directory.merge([heir]) == [Changed(heir, before)]


@pytest.mark.parametrize("kind", [engine, fabric])
def test_two_starts_under_one_name_do_not_take_turns(kind: Callable[..., Entry]) -> None:
    first, second = started(kind(1, version=1), 11), started(kind(1, version=2), 12, port=4999)
    directory = Directory()
    directory.merge([first])
    for second_ns in range(1, 10):
        directory.heard(first, second_ns * SECOND)
        directory.merge([replace(first, version=2 * second_ns), replace(second, version=2 * second_ns + 1)])
        events = directory.confirm(second, second_ns * SECOND + 1)
        assert events == ([] if second_ns == 1 else [Conflict("name", first.name, first.grpc, second.grpc)])
        assert [entry.start for entry in directory.entries()] == [11]


def test_a_start_that_nobody_followed_is_given_up_when_nobody_takes_a_call_there() -> None:
    first, second = started(fabric(1, 1), 11), started(fabric(1, 2), 12, port=4999)
    directory = Directory()
    directory.merge([first])
    directory.heard(first, 10 * SECOND)
    directory.unreachable(first.grpc)  # nobody has its name yet: a call may fail now and then
    assert directory.merge([second]) == [Unconfirmed(second, first)]
    assert directory.confirm(second, 11 * SECOND) == []
    directory.unreachable(first.grpc)
    assert directory.confirm(second, 11 * SECOND) == [Changed(second, first)]


@pytest.mark.parametrize("own", [True, False])
def test_a_copy_that_says_good_bye_takes_the_machine_not_along(own: bool) -> None:
    one = started(engine(1, epoch=5), 11)
    directory = Directory(one if own else None)
    directory.merge([one])
    assert directory.merge([started(engine(1, epoch=5, version=9, left=True), 12, port=4999)]) == []
    assert (directory.entries(), directory.doubted()) == ((one,), ())


def test_who_found_us_silent_and_follows_us_supersedes_us() -> None:
    directory = Directory(started(fabric(1), 11))
    heir = started(fabric(1), 12, follows=11, port=4999)
    assert directory.merge([heir]) == [Superseded(heir)]
    assert Directory(started(fabric(1), 12, follows=11)).merge([started(fabric(1, 9), 11, port=4999)]) == []


@pytest.mark.parametrize(
    ("ours", "its", "stays"),
    [((11, 5, 70), (12, 5, 60), True), ((11, 5, 60), (12, 5, 70), False),
     ((11, 5, 60), (12, 5, 60), True), ((12, 5, 60), (11, 5, 60), False),
     ((11, 5, 60), (12, 6, 50), True), ((12, 5, 0), (11, 6, 0), False)],
)  # fmt: skip
def test_of_two_that_run_on_copies_of_one_log_the_one_that_holds_less_goes_and_both_agree(
    ours: tuple[int, int, int], its: tuple[int, int, int], stays: bool
) -> None:
    (our_start, our_epoch, our_reach), (its_start, its_epoch, its_reach) = ours, its
    one = started(engine(1, epoch=our_epoch), our_start)
    other = started(engine(1, epoch=its_epoch), its_start, port=4999)
    found: list[bool] = []
    for own, twin in ((one, other), (other, one)):
        directory = Directory(own)
        directory.merge([twin])
        for start, reached in ((our_start, our_reach), (its_start, its_reach)):
            directory.reach("engine-1", start, reached)
        events = directory.confirm(twin, 0)
        conflict = Conflict("name", "engine-1", own.grpc, twin.grpc)
        found.append(events == [conflict])
        assert found[-1] or events == [Displaced(str(conflict))]
    assert found == [stays, not stays]


def test_a_past_life_of_ours_that_does_not_answer_is_written_over_unless_it_is_ahead() -> None:
    own = started(fabric(1, version=3), 12)
    directory = Directory(own)
    past = started(fabric(1, version=7), 11, port=4999)
    assert directory.merge([past]) == [Unconfirmed(past, own)]
    above = replace(own, version=8)
    assert directory.forget_doubt("fabric-1") == [Changed(above, own)]
    assert directory.own == above

    behind = Directory(started(engine(1, epoch=5), 12))
    ahead = started(engine(1, epoch=9), 11, port=4999)
    behind.merge([ahead])
    assert behind.forget_doubt("engine-1") == [Superseded(ahead)]


def test_how_far_a_log_reached_is_kept_of_whom_it_is_asked_and_never_falls() -> None:
    directory = Directory()
    directory.merge([started(engine(1), 11)])
    for start, position in ((11, 5), (11, 4), (12, 99)):
        directory.reach("engine-1", start, position)
    directory.reach("nobody", 1, 9)
    assert directory.reached(started(engine(1), 11)) == 5
    assert directory.reached(started(engine(1), 12)) == 0
    heir = started(engine(1, epoch=2), 12, follows=11)
    directory.merge([heir])
    directory.reach("engine-1", 12, 6)
    assert (directory.reached(heir), directory.reached(started(engine(1), 11))) == (6, 0)


def test_each_writing_of_our_own_entry_has_a_higher_version() -> None:
    directory = Directory(fabric(1, version=7))
    moved = fabric(1, version=3, port=4999)
    assert directory.write(moved) == [Changed(replace(moved, version=8), fabric(1, version=7))]
    gone = replace(moved, version=9, left=True)
    assert directory.leave(2) == [Changed(gone, replace(moved, version=8))]
    assert directory.generation == 3


# Questions


def test_the_directory_answers_who_is_where() -> None:
    own = engine(2, instruments=(instrument(20, 2, "BETA"), instrument(3, 2, "GAMA")))
    directory = Directory(own)
    other, gone, node = engine(1), engine(3, left=True), fabric(1)
    directory.merge([gone, node, other, fabric(9, left=True)])
    assert [entry.name for entry in directory.entries()] == ["engine-1", "engine-2", "engine-3", "fabric-1", "fabric-9"]
    assert directory.engines() == (other, own, gone)
    assert directory.peers() == (other, node)
    assert directory.fabrics() == (node,)
    assert (directory.engine(2), directory.engine(3), directory.engine(4)) == (own, gone, None)
    assert (directory.engine_of(20), directory.engine_of("BETA"), directory.engine_of(1)) == (own, own, other)
    assert (directory.engine_of(3), directory.engine_of("S3")) == (own, gone)
    assert (directory.engine_of(99), directory.engine_of("NONE"), directory.engine_of("20")) == (None, None, None)
    assert directory.instrument("GAMA") == instrument(3, 2, "GAMA")
    assert directory.instruments() == (instrument(1, 1), instrument(3, 2, "GAMA"), instrument(20, 2, "BETA"))


def test_last_heard_is_of_the_machine_itself_and_of_the_incarnation_believed() -> None:
    directory = merged([engine(1)])
    assert directory.last_heard_ns("engine-1") is None
    directory.heard(engine(1, incarnation=7), 5)
    assert directory.last_heard_ns("engine-1") is None
    directory.heard(engine(1), 6)
    assert directory.last_heard_ns("engine-1") == 6


# The wire


@pytest.mark.parametrize(
    "entry", [engine(1), engine(2, 3, 4, left=True), replace(fabric(1, 9), start=2**64 - 1, follows=2**63)]
)
def test_an_entry_is_the_same_after_the_wire(entry: Entry) -> None:
    message = cluster_pb2.DirectoryEntry.FromString(message_of(entry).SerializeToString())
    assert entry_of(message) == entry


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a b"},
        {"engine": 0},
        {"engine": 1000},
        {"grpc": ""},
        {"grpc": "nowhere"},
        {"feed": "nowhere"},
        {"channels": 100},
        {"channels": 0},
    ],
)
def test_a_message_that_cannot_be_an_entry_is_refused(change: dict[str, Any]) -> None:
    message = message_of(engine(1))
    for field, value in change.items():
        setattr(message, field, value)
    with pytest.raises(DirectoryError):
        entry_of(message)


@pytest.mark.parametrize(
    "change",
    [
        {"id": 0},
        {"symbol": "lower"},
        {"engine": 2},
        {"channel": 0},
        {"channel": 2},
        {"tick_size": "1e5"},
        {"lot_size": "NaN"},
        {"price_min": 2000},
        {"price_max": 2**40},
    ],
)
def test_a_message_with_an_instrument_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    message = message_of(engine(1))
    for field, value in change.items():
        setattr(message.instruments[0], field, value)
    with pytest.raises(DirectoryError):
        entry_of(message)


# Loops


@dataclass
class Machine:
    loop: DirectoryLoop
    server: grpc.aio.Server
    port: int
    events: list[Event]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def names(self) -> list[str]:
        return [entry.name for entry in self.loop.directory.entries() if not entry.left]

    def quiet(self) -> bool:
        """No call is under way, and none will be before the next round is due."""
        return not self.loop._calls and not self.loop._wake.is_set()

    async def crash(self) -> None:
        """Go without a good-bye."""
        self.loop.directory.own = None
        await self.loop.stop()
        await self.server.stop(None)

    async def stop(self) -> None:
        await self.loop.stop()
        await self.server.stop(None)


class Cluster:
    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.machines: list[Machine] = []

    async def begin(self, entry: Entry, *seeds: str, position: int = 0) -> Machine:
        loop = DirectoryLoop(Directory(), seeds, period_s=self.period_s, deadline_s=0.3, position=lambda: position)
        server = grpc.aio.server()
        loop.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        machine = Machine(loop, server, port, [])
        loop.listen(machine.events.append)
        loop.announce(replace(entry, grpc=machine.target))
        loop.start()
        self.machines.append(machine)
        return machine


@asynccontextmanager
async def cluster(period_s: float = 0.1) -> AsyncIterator[Cluster]:
    made = Cluster(period_s)
    try:
        yield made
    finally:
        for machine in made.machines:
            await machine.stop()


async def until(condition: Callable[[], object], within_s: float = 10.0) -> float:
    """Wait until it holds; the seconds that took."""
    clock = asyncio.get_running_loop().time
    start = clock()
    while not condition():
        assert clock() < start + within_s, "not in time"
        await asyncio.sleep(0.005)
    return clock() - start


def scenario(play: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        asyncio.run(asyncio.wait_for(play(), patience(30)))

    test.__name__ = play.__name__
    return test


@scenario
async def test_machines_find_each_other_through_one_of_them_and_again_on_another_port() -> None:
    async with cluster() as c:
        first = await c.begin(engine(1))
        second = await c.begin(engine(2), first.target)
        third = await c.begin(fabric(3), first.target)
        assert await second.loop.joined(5)
        everyone = ["engine-1", "engine-2", "fabric-3"]
        await until(lambda: all(machine.names() == everyone for machine in c.machines))
        assert second.loop.directory.engine_of("S1") == first.loop.directory.own

        await second.crash()
        again = await c.begin(engine(2, epoch=2), third.target)
        assert again.port != second.port
        for machine in (first, third):
            await until(lambda m=machine: m.loop.directory.entry("engine-2") == again.loop.directory.own)  # type: ignore[misc]
        await until(lambda: first.loop.directory.last_heard_ns("engine-2") is not None)

        await again.stop()
        await until(lambda: first.names() == third.names() == ["engine-1", "fabric-3"])
        home = first.loop.directory.engine_of("S2")
        assert home is not None
        assert home.left


@scenario
async def test_a_change_reaches_everyone_before_the_next_round_is_due() -> None:
    async with cluster(period_s=30.0) as c:
        first = await c.begin(engine(1))
        others = [await c.begin(engine(n), first.target) for n in (2, 3)]
        await until(lambda: all(len(machine.names()) == 3 for machine in c.machines), within_s=5)
        await until(lambda: all(machine.quiet() for machine in c.machines), within_s=5)
        own = first.loop.directory.own
        assert own is not None
        first.loop.announce(replace(own, instruments=(instrument(7, 1),)))
        await until(lambda: all(machine.loop.directory.engine_of("S7") is not None for machine in others), within_s=5)


@scenario
async def test_a_machine_that_was_being_called_when_something_changed_is_called_again() -> None:
    class Slow:
        def __init__(self) -> None:
            self.versions: list[list[int]] = []
            self.answer = asyncio.Event()

        async def Exchange(self, request: Any, context: Any) -> Any:
            self.versions.append([entry.version for entry in request.entries if entry.name == "engine-1"])
            await self.answer.wait()
            return cluster_pb2.DirectoryEntries()

    slow, server = Slow(), grpc.aio.server()
    add: Any = cluster_pb2_grpc.add_DirectoryServicer_to_server
    add(slow, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    loop = DirectoryLoop(Directory(), [target], period_s=30.0, deadline_s=30.0)
    loop.announce(engine(1))
    loop.directory.merge([replace(engine(2), grpc=target)])
    loop.start()
    await until(lambda: slow.versions)
    loop.announce(engine(1, version=2))
    await until(lambda: not loop._wake.is_set())  # a round has begun, and passed over the one being called
    slow.answer.set()
    await until(lambda: [2] in slow.versions)
    await loop.stop()
    await server.stop(None)


@scenario
async def test_a_machine_that_hangs_holds_up_nobody() -> None:
    class Hung:
        async def Exchange(self, request: Any, context: Any) -> Any:
            await asyncio.sleep(60)

    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    slow = grpc.aio.server()  # takes calls and does not answer
    add: Any = cluster_pb2_grpc.add_DirectoryServicer_to_server
    add(Hung(), slow)
    ports = [silent.getsockname()[1], slow.add_insecure_port("127.0.0.1:0")]
    await slow.start()
    async with cluster() as c:
        first = await c.begin(engine(1))
        for number, port in enumerate(ports, 8):
            first.loop.directory.merge([engine(number, port=port)])
        took = [0.0]
        for number in range(2, 5):
            machine = await c.begin(engine(number), first.target)
            took.append(await until(lambda n=number: all(len(m.names()) == n + 2 for m in c.machines)))  # type: ignore[misc]
            assert await machine.loop.joined(1)
        print("seconds", took)
        assert max(took) < 1.0
    silent.close()
    await slow.stop(None)


@scenario
async def test_a_newcomer_that_claims_what_another_holds_is_told_so() -> None:
    async with cluster() as c:
        first = await c.begin(engine(1))
        rival = await c.begin(engine(2, instruments=(instrument(1, 2),)), first.target)
        with pytest.raises(DirectoryRefused, match="instrument 1 belongs to engine-1, and engine-2 claims it"):
            await rival.loop.joined(5)
        assert first.names() == ["engine-1"]


@pytest.mark.parametrize("epoch", [5, 6])
def test_two_engines_on_copies_of_one_log_that_began_unseen_of_each_other_end_as_one(epoch: int) -> None:
    async def play() -> None:
        async with cluster() as c:
            first = await c.begin(engine(1))
            second = await c.begin(engine(2), first.target)
            held = await c.begin(started(engine(3, epoch=5), 31), first.target, position=500)
            await until(lambda: all("engine-3" in machine.names() for machine in (first, second)))
            copy = await c.begin(started(engine(3, epoch=epoch), 30), second.target, position=499)
            gone = lambda: [event for event in copy.events if isinstance(event, Displaced)]  # noqa: E731
            await until(gone)
            await copy.stop()
            held_entry = held.loop.directory.own
            await until(lambda: all(m.loop.directory.entry("engine-3") == held_entry for m in (first, second)))
            assert not any(isinstance(event, Displaced | Superseded) for event in held.events)
            assert held.target in gone()[0].why  # type: ignore[no-untyped-call]

    asyncio.run(asyncio.wait_for(play(), patience(30)))


@scenario
async def test_a_machine_that_comes_late_under_the_name_of_one_that_runs_is_displaced() -> None:
    async with cluster() as c:
        probe = grpc.aio.server()
        port = probe.add_insecure_port("127.0.0.1:0")
        await probe.stop(None)
        late = await c.begin(started(engine(1, incarnation=7), 12), f"127.0.0.1:{port}")
        assert not await late.loop.joined(0.1)  # it began alone
        running = DirectoryLoop(Directory(), period_s=0.1)
        server = grpc.aio.server()
        running.add_to(server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        running.announce(started(engine(1, epoch=50), 11, port=port))
        await until(lambda: any(isinstance(event, Displaced) for event in late.events))
        assert [entry.start for entry in running.directory.entries()] == [11]
        await server.stop(None)


@scenario
async def test_an_engine_with_a_new_log_is_believed_once_it_has_been_asked() -> None:
    async with cluster() as c:
        first = await c.begin(engine(1))
        second = await c.begin(engine(2, epoch=50), first.target)
        third = await c.begin(engine(3), first.target)
        await until(lambda: all(len(machine.names()) == 3 for machine in c.machines))
        await second.crash()
        anew = await c.begin(engine(2, epoch=1, incarnation=7), third.target)
        for machine in (first, third):
            await until(lambda m=machine: m.loop.directory.entry("engine-2") == anew.loop.directory.own)  # type: ignore[misc]
            assert any(isinstance(event, Unconfirmed) for event in machine.events)
            assert not any(isinstance(event, Conflict) for event in machine.events)


@scenario
async def test_an_onlooker_may_ask_without_being_listed() -> None:
    async with cluster() as c:
        first = await c.begin(engine(1))
        assert [entry.name for entry in await ask(first.target, 5)] == ["engine-1"]
        watcher = DirectoryLoop(Directory(), [first.target], period_s=0.1)
        watcher.start()
        await until(lambda: watcher.directory.engine_of("S1") is not None)
        await watcher.stop()
        assert first.names() == ["engine-1"]


@scenario
async def test_a_seed_that_is_not_up_yet_is_called_until_it_answers() -> None:
    async with cluster() as c:
        probe = grpc.aio.server()
        port = probe.add_insecure_port("127.0.0.1:0")
        await probe.stop(None)
        early = await c.begin(engine(1), f"127.0.0.1:{port}")
        assert not await early.loop.joined(0.3)
        late = DirectoryLoop(Directory(), period_s=0.1)
        server = grpc.aio.server()
        late.add_to(server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        late.announce(replace(engine(2), grpc=f"127.0.0.1:{port}"))
        assert await early.loop.joined(10)
        await until(lambda: early.names() == ["engine-1", "engine-2"])
        await server.stop(None)


@scenario
async def test_garbled_entries_are_counted_and_the_others_taken() -> None:
    rng = random.Random(3)
    async with cluster() as c:
        first = await c.begin(engine(1))
        bad = message_of(engine(2))
        bad.grpc = rng.randbytes(8).hex()
        async with grpc.aio.insecure_channel(first.target) as channel:
            stub: Any = cluster_pb2_grpc.DirectoryStub(channel)  # type: ignore[no-untyped-call, unused-ignore]
            await stub.Exchange(
                cluster_pb2.DirectoryEntries(entries=[bad, message_of(engine(3, port=1))]), timeout=patience(5)
            )
        assert (first.loop.malformed, first.names()) == (1, ["engine-1", "engine-3"])

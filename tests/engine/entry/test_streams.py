"""An engine that leaves ends its streams in good order: what it took is answered, and the answers are sent."""

import asyncio

import grpc
import pytest

from engine import node
from proto import orders_pb2 as pb
from proto.columns import ACCEPTED
from tests.engines import EndOfStream, Engines, Stream, Stuck, run, until
from tests.patience import patience

E1A, E2A = 10, 20
STOPPING = (grpc.StatusCode.UNAVAILABLE, "the engine is stopping")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that goes waits for its readers as long as a busy machine may need."""
    monkeypatch.setattr(node, "STOP_S", 20.0)


async def end_of(stream: Stream) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(EndOfStream) as ended:
        await stream.next(1)
    return ended.value.code, ended.value.details


def test_what_was_taken_is_answered_before_an_engine_goes() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        copied: list[int] = []
        copy = engines.stub().Executions(pb.ExecutionsRequest(account=7))

        async def follow() -> None:
            async for batch in copy:
                copied.extend(batch.command)

        following = asyncio.ensure_future(follow())
        stuck = Stuck(engines, 1)
        await stream.new_many(1, 50, E1A)
        await until(lambda: engines[1].committer.backlog == 50)
        leaving = asyncio.ensure_future(engines.down(1))
        await until(lambda: not engines.engines)
        stuck.let_go()
        assert [(row[1], row[2], row[3]) for row in await stream.next(50)] == [(n, ACCEPTED, n) for n in range(1, 51)]
        assert await end_of(stream) == STOPPING
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(following, patience(5))
        assert (ended.value.code(), ended.value.details()) == STOPPING
        assert copied == list(range(1, 51))
        await leaving

    run(test)


@pytest.mark.parametrize("goes", [2, 1])
def test_what_came_over_a_link_is_answered_though_its_home_or_the_engine_that_sent_it_goes(goes: int) -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        stuck = Stuck(engines, 2)
        await stream.new_many(1, 3, E2A)
        await until(lambda: engines[2].committer.backlog == 3)
        leaving = asyncio.ensure_future(engines.down(goes))
        await until(lambda: goes not in engines.engines)
        stuck.let_go()
        assert [row[:4] for row in await stream.next(3)] == [(2, n, ACCEPTED, n) for n in (1, 2, 3)]
        if goes == 1:
            assert await end_of(stream) == STOPPING
        await leaving

    run(test, 2, answer_s=20)


def test_a_client_that_does_not_read_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "STOP_S", 0.2)

    async def test(engines: Engines) -> None:
        stream = await engines.session()
        for first in range(1, 12_000, 2_000):  # some 600 kB of reports, more than a connection takes unread
            await stream.new_many(first, 2_000, E1A)
        await until(lambda: engines[1].kept.last_seq(7) == 12_000)
        await asyncio.wait_for(engines.down(1), patience(15))

    run(test)

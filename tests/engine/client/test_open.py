"""When a session may be used, and how a machine is found."""

import asyncio
import socket
import time
from typing import Any

import pytest

from engine.client import BUY, Client, Commands, SessionClosedError, UnknownSymbolError, UnreachableError
from tests.engines import Engines, Running, run, until


def client_of(engines: Engines) -> Client:
    return Client(engines.endpoints[1], 7, instruments=engines.cluster.instruments)


def test_a_session_that_is_not_open_says_so_at_once() -> None:
    async def test(engines: Engines) -> None:
        session = client_of(engines).session()

        async def refuses(says: str) -> None:
            for call in (
                lambda: session.new("E1A", BUY, "1.50", 5),
                lambda: session.cancel("E1A", 1),
                lambda: session.replace("E1A", 1, "1.50", 5),
                lambda: session.mass_cancel(),
                lambda: session.mass_cancel("E1A"),
                lambda: session.submit(Commands()),
            ):
                with pytest.raises(SessionClosedError, match=says):
                    await asyncio.wait_for(call(), 1)

        await refuses("not open yet: enter it with `async with`")
        with pytest.raises(SessionClosedError, match="not open yet"):
            await asyncio.wait_for(anext(session.batches()), 1)
        async with session:
            await session.new("E1A", BUY, "1.50", 5)
            with pytest.raises(SessionClosedError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, session.new("E1A", BUY, "1.50", 5))
            with pytest.raises(SessionClosedError, match="entered once"):
                await session.__aenter__()
            await session.new("E1A", BUY, "1.50", 6)
        await refuses("the session is closed")
        assert [report.quantity async for report in session] == [5, 6]  # what came before can be read
        with pytest.raises(SessionClosedError, match="entered once"):
            await session.__aenter__()
        async with client_of(engines).session(reports=False) as deaf:
            with pytest.raises(SessionClosedError, match="without reports"):
                await anext(deaf.batches())

    run(test)


def test_a_session_left_open_neither_hangs_the_loop_nor_hides_what_was_raised() -> None:
    running = Running()
    left = []

    async def main() -> None:
        session = client_of(running.engines).session()
        left.append(session)
        await session.__aenter__()
        raise RuntimeError("seen")

    try:
        began = time.monotonic()
        with pytest.raises(RuntimeError, match="seen"):
            asyncio.run(main())
        assert time.monotonic() < began + 10
    finally:
        running.stop()
    with pytest.raises(SessionClosedError, match="its event loop has ended"):
        asyncio.run(left[0].new("E1A", BUY, "1.50", 5))


def test_a_wait_for_a_connection_that_is_given_up_leaves_nothing_running() -> None:
    async def test() -> None:
        session = Client("127.0.0.1:1", 7).session()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.__aenter__()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    asyncio.run(test())


def test_where_nobody_is_that_is_said_within_the_patience() -> None:
    async def test() -> None:
        began = time.monotonic()
        with pytest.raises(UnreachableError) as error:
            async with Client(["127.0.0.1:1", "localhost:2"], 7, patience_s=0.3).session():
                pass
        assert time.monotonic() < began + 5
        said = str(error.value)
        assert said.startswith("no engine is reached within 0.3 s: ")
        for each in ("127.0.0.1:1: nobody answers (", "localhost:2: nobody answers (", "refused"):
            assert each in said

    asyncio.run(test())


def test_one_who_accepts_and_never_answers_is_named() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = f"127.0.0.1:{mute.getsockname()[1]}"
            with pytest.raises(UnreachableError, match=rf"{address}: nobody answers \("):
                await Client(address, 7).open_orders()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ("nowhere", "'nowhere' is not HOST:PORT"),
        (["127.0.0.1:4000", "nowhere"], "'nowhere' is not HOST:PORT"),
        ("127.0.0.1:70000", "no port is above 65,535"),
        ([], "no machine is named"),
        ("", "'' is not HOST:PORT"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once(seeds: str | list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Client(seeds, 7)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"account": -1}, ValueError, "account is a whole number from 0 to"),
        ({"account": 1 << 64}, ValueError, "account is a whole number from 0 to"),
        ({"account": "7"}, TypeError, "account is a whole number, not str"),
        ({"account": None}, TypeError, "not NoneType"),
        ({"account": True}, TypeError, "not bool"),
        ({"account": 7, "engine": 1_000}, ValueError, "engine is a whole number from 0 to 999"),
        ({"account": 7, "throttle": 1 << 32}, ValueError, "throttle is"),
        ({"account": 7, "self_trade_prevention": 5}, ValueError, "self_trade_prevention is a whole number from 0 to 4"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(options: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        Client("127.0.0.1:4000", **options)


def test_cursors_that_cannot_be_are_refused_at_once() -> None:
    for cursors in ({1: -1}, {-1: 5}, {1_000: 1}):
        with pytest.raises(ValueError, match="cursors: a "):
            Client("127.0.0.1:4000", 7).session(cursors)
    with pytest.raises(TypeError):
        Client("127.0.0.1:4000", 7).session({"1": 5})  # type: ignore[dict-item]


def test_an_unknown_symbol_is_one_kind_of_error_wherever_it_is_asked_for() -> None:
    async def test(engines: Engines) -> None:
        async with client_of(engines).session() as session:
            for call in (
                session.client.open_orders("NOPE"),
                session.client.order("NOPE", 1),
                session.mass_cancel("NOPE"),
                session.mass_cancel(""),  # a name that came out empty does not cancel everything
                session.cancel("NOPE", 1),
            ):
                with pytest.raises(UnknownSymbolError, match="there are E1A, E1B"):
                    await call

    run(test)


def test_one_address_may_be_given_as_text() -> None:
    async def test(engines: Engines) -> None:
        async with client_of(engines).session() as session:
            assert (await session.new("E1A", BUY, "1.50", 5)).symbol == "E1A"
            await until(lambda: session.cursors == {1: 1})

    run(test)

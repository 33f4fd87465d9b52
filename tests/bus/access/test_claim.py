"""Whether a machine may begin under its name: each row of the table of bus/access/claim.py, and the calls behind it."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import grpc
import pytest

from bus.access.claim import Claim, Held, Known, claim
from bus.access.directory import Directory, Entry
from bus.access.exchange import DirectoryLoop
from bus.access.inquiry import inquire
from proto import cluster_pb2_grpc
from tests.patience import patience

ENGINE = Entry("engine-1", 1, False, 77, 50, 9, "host:1", start=11)
FABRIC = Entry("fabric-1", 1, True, 0, 0, 9, "host:2", start=21)
HELD = Held(77, 50, 60, {1: 900})


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ([], Claim()),
        ([Known(replace(ENGINE, name="engine-2", engine=2), runs=True)], Claim()),
        ([Known(FABRIC, runs=True)], Claim()),  # of an engine's id, but not the engine
        ([Known(ENGINE, runs=False, position=60)], Claim(follows=11, above=50)),
        ([Known(ENGINE, runs=False, position=60, streams=((50, 1, 900), (50, 1, 899), (49, 1, 9_999)))],
         Claim(follows=11, above=50)),
        ([Known(replace(ENGINE, epoch=49), runs=False, position=99)], Claim(follows=11, above=49)),  # ours is later
        ([Known(ENGINE, runs=True, position=60)],
         Claim(taken="the name engine-1 is taken by another machine that runs at host:1")),
        ([Known(replace(ENGINE, name="other"), runs=True)],
         Claim(taken="engine 1 belongs to other, which runs at host:1")),
        ([Known(replace(ENGINE, name="other"), runs=False, position=60)], Claim(above=50)),
    ],
)  # fmt: skip
def test_an_engine_begins_if_nobody_runs_under_its_name_and_nothing_is_missing(seen: list[Known], found: Claim) -> None:
    assert claim("engine-1", 1, seen, HELD) == found


@pytest.mark.parametrize(
    ("seen", "held", "missing"),
    [
        (Known(ENGINE, False, 75), HELD, "this log ends at epoch 50, record 60, and the venue has seen epoch 50, "
         "record 75: 15 records are missing"),
        (Known(replace(ENGINE, epoch=70), False), HELD, "this log ends at epoch 50, record 60, and the venue has seen "
         "epoch 70, record 70: 10 records are missing"),
        (Known(replace(ENGINE, epoch=58), False, 59), HELD, "this log ends at epoch 50, record 60, and the venue has "
         "seen epoch 58, which is missing"),
        (Known(ENGINE, False, 60, ((50, 1, 907), (50, 2, 3))), HELD, "this log ends at epoch 50, record 60, and 9 "
         "deltas that the venue has seen of that epoch are missing"),
        (Known(ENGINE, False, 75), Held(), "this log is empty, and the venue has seen engine-1 at epoch 50, record 75"),
        (Known(replace(ENGINE, left=True), False), Held(), "this log is empty, and the venue has seen engine-1 at "
         "epoch 50, record 50"),
        (Known(ENGINE, False), Held(5, 90, 99), "this is another log, and the venue has seen engine-1 at epoch 50, "
         "record 50"),
        (Known(replace(ENGINE, epoch=5_000), False, 70), replace(HELD, epoch=5_000), "this log ends at epoch 5,000, "
         "record 60, and the venue has seen epoch 5,000, record 70: 10 records are missing"),
    ],
)  # fmt: skip
def test_a_log_that_is_behind_what_the_venue_has_seen_says_how_much_is_missing(
    seen: Known, held: Held, missing: str
) -> None:
    found = claim("engine-1", 1, [Known(replace(ENGINE, epoch=3), False), seen], held)
    assert (found.taken, found.missing, found.above) == ("", missing, seen.entry.epoch)


def test_a_fabric_node_has_nothing_to_miss() -> None:
    assert claim("fabric-1", 0, [Known(FABRIC, False), Known(ENGINE, True)], None) == Claim(follows=21)
    taken = "the name fabric-1 is taken by another machine that runs at host:2"
    assert claim("fabric-1", 0, [Known(FABRIC, True)], None) == Claim(taken=taken)


def test_the_venue_is_asked_and_then_whoever_has_the_name() -> None:
    """One that runs, one that is gone, one whose place another has, one that hangs, one that said good-bye."""

    class Hung:
        async def Exchange(self, request: Any, context: Any) -> Any:
            await asyncio.sleep(60)

    async def serve(servicer: Any) -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server()
        add: Any = cluster_pb2_grpc.add_DirectoryServicer_to_server
        add(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, f"127.0.0.1:{port}"

    async def main() -> None:
        seed = DirectoryLoop(Directory(), position=lambda: 123)
        server, target = await serve(seed)
        seed.announce(replace(ENGINE, grpc=target))
        hung, hangs = await serve(Hung())
        nobody = socket.create_server(("127.0.0.1", 0))
        closed = f"127.0.0.1:{nobody.getsockname()[1]}"
        nobody.close()
        others = [
            replace(FABRIC, name="gone", grpc=closed),
            replace(FABRIC, name="moved", grpc=target),
            replace(FABRIC, name="hangs", grpc=hangs),
            replace(FABRIC, name="left", grpc=target, left=True),
        ]
        seed.directory.merge(others)
        answer = await inquire([target, closed, hangs], lambda entry: True, deadline_s=0.3)
        assert answer.answered == 1
        assert {one.entry.name: (one.runs, one.position) for one in answer.seen} == {
            "engine-1": (True, 123), "gone": (False, 0), "moved": (False, 0), "hangs": (False, 0), "left": (False, 0),
        }  # fmt: skip
        assert len(answer.now_ns) == 1
        assert (await inquire([closed], lambda entry: True)).answered == 0
        await server.stop(None)
        await hung.stop(None)

    asyncio.run(asyncio.wait_for(main(), patience(30)))

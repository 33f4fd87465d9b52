"""What an engine published long ago: the log tells the very deltas that were on the feed, under their sequences."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

import bus.service
import engine.publish.history
from bus.access.asking import HistoryError, Machine
from bus.reader.events import BookEvent, BookState, Event, Trade
from bus.reader.feed import Feed
from bus.service import MarketData
from engine.client import Client
from engine.core.rules import RULES
from engine.core.venue import Venue
from engine.log import records
from engine.log.condense import condense
from engine.log.replay import replay
from engine.log.sqlite import SqliteLog
from engine.log.state import EngineState
from engine.log.view import SqliteLogView
from engine.publish.history import Historian, HistorySpan, tell
from engine.publish.source import EngineFeed
from proto import feed, marketdata_pb2, marketdata_pb2_grpc
from proto.columns import BUY, SELL, Outcome
from proto.feed import END, OP_MASK, REFRAMED, TOLD
from tests import stranger
from tests.engine.log.test_replay import Recorder
from tests.engine.log.test_replay import _steps as some_steps
from tests.engine.test_process import Venue as Processes
from tests.engines import identity_of
from tests.flows import ENGINE, INSTRUMENTS, Player
from tests.patience import patience
from tools import tail_feed

SEED = 20261122
START_NS = 10**18
LAST = 4711  # lots of the last order of a life

PLACE: dict[str, Any] = {"fresh": False, "channels": 2, "endpoint": "tcp://127.0.0.1:0", "clock_ns": lambda: START_NS}

Delta = tuple[int, int, int, tuple[Any, ...], int]  # epoch, sequence, time, row, instrument sequence


def flat(frames: list[feed.Frame]) -> list[Delta]:
    """Each delta of these frames with all that belongs to it, however they were framed."""
    found: list[Delta] = []
    for frame in frames:
        sequences = dict(frame.instruments)
        times = dict(frame.times)
        time_ns = 0
        for at, row in enumerate(frame.rows):
            time_ns = times.get(at, time_ns)
            name = row[1]
            whole = (row[0], name, frame.extras[row[2]]) if row[0] & OP_MASK in TOLD else row
            found.append((frame.header.epoch, frame.header.first_seq + at, time_ns, whole, sequences[name]))
            sequences[name] += 1
    return found


class Published:
    """A log of two epochs with every rule in it, and by channel what its engines had on the feed."""

    def __init__(self, path: Path) -> None:
        rng = random.Random(SEED)
        recorder = Recorder()
        player = Player(1, recorder)
        for home in (1, 2, 3, 4) * 2:
            player.home = home
            player.play(some_steps(rng, 150))
        logged = [records.decode(body) for _, body in recorder.log.read(0)]
        half = len(logged) // 2
        before, after = logged[1:half], logged[half:]
        self.second = half + 1  # the epoch
        assert isinstance(before[-1], records.Group)
        time_ns = before[-1].time_ns
        self.records: list[records.Record] = [
            records.Epoch(0, "first", 1, RULES, identity_of(INSTRUMENTS)),
            *before,
            records.Epoch(1, "second", time_ns, RULES),
            *(records.Group(self.second, r.time_ns, r.parts) for r in after if isinstance(r, records.Group)),
        ]
        self.log = SqliteLog(path)
        self.log.append(0, [records.encode(record) for record in self.records])
        self.deltas: dict[int, list[Delta]] = {}
        self._follow()

    def _follow(self) -> None:
        """Publish as an engine does, and keep the frames."""
        venue = Venue(ENGINE, INSTRUMENTS)
        feeds: list[EngineFeed] = []

        def opened(epoch: int, time_ns: int) -> None:
            self._keep(feeds)
            traded = [market.instrument for market in venue.markets.values() if not market.delisted]
            feeds.append(EngineFeed(venue, traded, incarnation=self.log.incarnation, epoch=epoch, **PLACE))
            feeds[-1].open(max(time_ns, venue.time_ns))

        def release(position: int, time_ns: int, outcome: Outcome) -> None:
            feeds[-1].publish(time_ns, outcome.deltas, idle=position % 3 == 0)

        for _ in replay(self.log, EngineState(venue), 0, release, opened):
            pass
        self._keep(feeds)

    def _keep(self, feeds: list[EngineFeed]) -> None:
        for one in feeds:
            for channel in one.publisher.channels:
                one.publisher.heartbeat(channel, START_NS)
                last = one.publisher.next_seq(channel) - 1
                deltas = self.deltas.setdefault(channel, [])
                first = 1
                while first <= last:
                    found = one.find(ENGINE, channel, one.publisher.epoch, first, last)
                    assert found is not None
                    deltas += flat([feed.decode(frame) for frame in found.frames])
                    first = deltas[-1][1] + 1
            one.publisher.close()
        feeds.clear()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    path = tmp_path_factory.mktemp("log")
    found = Published(path)
    yield found
    found.log.close()


@pytest.fixture
def view(published: Published) -> Iterator[SqliteLogView]:
    found = SqliteLogView(published.log._directory)
    yield found
    found.close()


def span(channel: int = 1, **given: int) -> HistorySpan:
    fields = dict.fromkeys(("epoch", "first", "last", "from_ns", "to_ns", "instrument"), 0)
    return HistorySpan(channel=channel, **{**fields, "through": 1 << 62, **given})


def ask(view: SqliteLogView, asked: HistorySpan) -> tuple[list[Delta], marketdata_pb2.HistoryEnd]:
    *replies, last = tell(view, asked)
    assert not any(reply.HasField("end") for reply in replies)
    frames = [feed.decode_reframed(data) for reply in (*replies, last) for data in reply.frames]
    assert all(frame.header.flags & REFRAMED for frame in frames)
    sent = [frame.header.sent_ns for frame in frames]
    assert sent == sorted(set(sent))
    return flat(frames), last.end


def events(deltas: list[Delta]) -> list[list[Delta]]:
    found: list[list[Delta]] = [[]]
    for delta in deltas:
        found[-1].append(delta)
        if delta[3][0] & END:
            found.append([])
    return found[:-1]


def test_the_whole_log_tells_all_that_was_published(published: Published, view: SqliteLogView) -> None:
    assert len(published.deltas) > 1
    for channel, deltas in published.deltas.items():
        told, end = ask(view, span(channel, from_ns=1))
        assert told == deltas != []
        assert (end.status, end.epoch, end.next_seq) == (engine.publish.history.OK, published.second, deltas[-1][1] + 1)


@pytest.mark.parametrize("condensed", [False, True])
def test_any_part_of_it_is_told_by_sequence_by_instrument_and_by_time(
    published: Published, condensed: bool, tmp_path: Path
) -> None:
    log = SqliteLog(tmp_path)
    bodies = [body for _, body in published.log.read(0)]
    for upto in (len(bodies) // 4, 3 * len(bodies) // 4, len(bodies)) if condensed else (len(bodies),):
        log.append(log.position, bodies[log.position : upto])
        if condensed:
            view = SqliteLogView(tmp_path)
            condense(view)
            view.close()
    log.close()
    view = SqliteLogView(tmp_path)
    begun: list[int] = []
    reading = view.read

    def noted(after: int) -> Iterator[tuple[int, bytes]]:
        begun.append(after)
        return reading(after)

    view.read = noted  # type: ignore[method-assign]
    rng = random.Random(SEED)
    for _ in range(40):
        channel = rng.choice(list(published.deltas))
        deltas = published.deltas[channel]
        epoch = rng.choice((1, published.second))
        ours = [delta for delta in deltas if delta[0] == epoch]
        first, last = sorted(rng.choice(ours)[1] for _ in range(2))
        how = rng.choice(("sequence", "instrument", "time"))
        if how == "sequence":
            asked = span(channel, epoch=epoch, first=first, last=last)
            wanted = [e for e in events(ours) if e[-1][1] >= first and e[0][1] <= last]
        elif how == "instrument":
            name = rng.choice(ours)[3][1]
            first, last = sorted(rng.choice([delta[4] for delta in ours if delta[3][1] == name]) for _ in range(2))
            asked = span(channel, epoch=epoch, first=first, last=last, instrument=name)
            has = [[delta[4] for delta in e if delta[3][1] == name] for e in events(ours)]
            low = next(at for at, seqs in enumerate(has) if seqs and seqs[-1] >= first)
            high = next(at for at, seqs in enumerate(has) if seqs and seqs[-1] >= last)
            wanted = events(ours)[low : high + 1]
        else:
            from_ns, to_ns = sorted(rng.choice(deltas)[2] + rng.randrange(2) for _ in range(2))
            asked = span(channel, from_ns=max(from_ns, 1), to_ns=max(from_ns + 1, to_ns))
            wanted = [e for e in events(deltas) if from_ns <= e[0][2] < asked.to_ns]
        told, end = ask(view, asked)
        assert (told, end.status) == ([delta for e in wanted for delta in e], engine.publish.history.OK), asked
    view.close()
    assert any(after > 1 and after != published.second - 1 for after in begun) == condensed


def test_what_there_is_not_is_said(published: Published, view: SqliteLogView) -> None:
    last = [delta[1] for delta in published.deltas[1] if delta[0] == 1][-1]
    told, end = ask(view, span(epoch=1, first=last - 5, last=last + 5))
    assert [delta[1] for delta in told][-1] == last
    assert (end.status, end.reason) == (engine.publish.history.OUT_OF_RANGE, f"epoch 1 has 1 to {last} of channel 1")
    told, end = ask(view, span(epoch=1, first=last + 2))
    assert (told, end.status) == ([], engine.publish.history.OUT_OF_RANGE)
    told, end = ask(view, span(epoch=published.second, first=10**6))
    assert (told, end.status) == ([], engine.publish.history.OUT_OF_RANGE)
    for epoch in (2, 10**6):
        told, end = ask(view, span(epoch=epoch, first=1))
        assert (told, end.status, end.reason) == (
            [],
            engine.publish.history.UNKNOWN_EPOCH,
            f"there was no epoch {epoch}",
        )
    told, end = ask(view, span(from_ns=10**19))
    assert (told, end.status) == ([], engine.publish.history.OK)


def test_behind_the_end_of_an_epoch_the_next_one_is_told(published: Published, view: SqliteLogView) -> None:
    last = [delta[1] for delta in published.deltas[1] if delta[0] == 1][-1]
    told, end = ask(view, span(epoch=1, first=last + 1))
    assert told == [delta for delta in published.deltas[1] if delta[0] == published.second]
    assert end.status == engine.publish.history.OK


def test_nothing_behind_the_record_that_was_applied_is_told(published: Published, view: SqliteLogView) -> None:
    whole, _ = ask(view, span(from_ns=1))
    told, _ = ask(view, span(from_ns=1, through=published.second // 2))
    assert whole[: len(told)] == told != whole


def test_records_that_were_dropped_are_out_of_range(published: Published, tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    log.append(0, [body for _, body in published.log.read(0)])
    view = SqliteLogView(tmp_path)
    condense(view)
    view.close()
    log.drop_through(100)
    log.close()
    view = SqliteLogView(tmp_path)
    for asked in (span(from_ns=1), span(epoch=1, first=1)):
        told, end = ask(view, asked)
        assert (told, end.status, "begins behind its record 100" in end.reason) == (
            [],
            engine.publish.history.OUT_OF_RANGE,
            True,
        )
    view.close()


def test_a_long_history_is_cut_and_goes_on_where_it_was_cut(
    published: Published, view: SqliteLogView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.publish.history, "DELTAS_MAX", 100)
    told, end = ask(view, span(from_ns=1))
    assert (end.status, len(told) >= 100) == (engine.publish.history.CUT, True)
    while end.status == engine.publish.history.CUT:
        assert (end.epoch, end.next_seq) == (told[-1][0], told[-1][1] + 1)
        more, end = ask(view, span(epoch=end.epoch, first=end.next_seq))
        assert 0 < len(more) < 400
        told += more
    assert told == published.deltas[1]


@pytest.mark.parametrize("change", ["flag", "bit", "cut", "heartbeat", "follows"])
def test_a_frame_of_a_history_is_no_frame_of_the_stream_and_the_other_way_round(
    change: str, view: SqliteLogView
) -> None:
    data = next(iter(tell(view, span(from_ns=1)))).frames[0]
    with pytest.raises(feed.FeedError, match="reserved bits"):
        feed.decode(data)
    with pytest.raises(stranger.Refused):
        stranger.read(data)
    plain = feed.decode_reframed(data)
    spoiled = {
        "follows": feed.encode_frame(1, 1, REFRAMED, 1, 1, 1, 1, [(0, 1)], [(1, 1)], [7 | END, 1, 0, 0, 0, 0], (), 9),
        "flag": feed.encode_frame(1, 1, 0, 1, 1, 1, 1, [(0, 1)], [(1, 1)], [7 | END, 1, 0, 0, 0, 0]),
        "bit": data[:-1] + bytes([data[-1] ^ 1]),
        "cut": data[:20],
        "heartbeat": feed.encode_heartbeat(1, 1, REFRAMED, 1, 1, 1, 1),
    }
    assert plain.header.count == len(plain.rows)
    with pytest.raises(feed.FeedError):
        feed.decode_reframed(spoiled[change])


# Over gRPC


class Slow:
    """A historian that tells when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.go = asyncio.Event()

    async def tell(self, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[marketdata_pb2.HistoryReply, None]:
        self.begun += 1
        try:
            yield marketdata_pb2.HistoryReply(frames=[b"one"])
            await self.go.wait()
            yield marketdata_pb2.HistoryReply(end=marketdata_pb2.HistoryEnd())
        finally:
            self.ended += 1


class OneStream:
    def position(self, engine: int, channel: int) -> tuple[int, int, int] | None:
        return (1, 1, 1) if (engine, channel) == (1, 1) else None


def serving(historian: Any, body: Any) -> None:
    """Run `body(stub of a connection of its own)`, beside a server."""

    async def run() -> None:
        server = grpc.aio.server()
        MarketData(OneStream(), historian).add_to(server)  # type: ignore[arg-type]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channels: list[grpc.aio.Channel] = []

        def stub() -> Any:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options))
            make: Any = marketdata_pb2_grpc.MarketDataStub
            return make(channels[-1])

        try:
            await body(stub)
        finally:
            for channel in channels:
                await channel.close()
            await server.stop(0)

    asyncio.run(asyncio.wait_for(run(), patience(30)))


def wanted(**fields: int) -> marketdata_pb2.HistoryRequest:
    return marketdata_pb2.HistoryRequest(**{"engine": 1, "channel": 1, **fields})


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as e:
        return e.code(), e.details() or ""
    return grpc.StatusCode.OK, ""


def test_one_history_a_connection_and_two_in_all_are_told_at_a_time() -> None:
    slow = Slow()

    async def body(stub: Any) -> None:
        one, two, three = stub(), stub(), stub()
        calls = [one.GetHistory(wanted(first_seq=1)), two.GetHistory(wanted(first_seq=1))]
        for call in calls:
            assert (await call.read()).frames
        code, why = await code_of(one.GetHistory(wanted(first_seq=1)))
        assert (code, "over this connection" in why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        code, why = await code_of(three.GetHistory(wanted(first_seq=1)))
        assert (code, "2 are told already" in why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        calls[0].cancel()
        while slow.ended < 1:
            await asyncio.sleep(0.01)
        slow.go.set()
        assert (await code_of(three.GetHistory(wanted(first_seq=1))))[0] is grpc.StatusCode.OK
        assert (await calls[1].read()).HasField("end")

    serving(slow, body)
    assert (slow.begun, slow.ended) == (3, 3)


def test_a_history_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.service, "HISTORY_S", 0.2)
    slow = Slow()

    async def body(stub: Any) -> None:
        code, why = await code_of(stub().GetHistory(wanted(first_seq=1)))
        assert (code, "ask again" in why) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)

    serving(slow, body)
    assert slow.ended == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "either first_seq or from_ns"),
        ({"first_seq": 1, "from_ns": 1}, "either first_seq or from_ns"),
        ({"from_ns": 1, "last_seq": 2}, "go with first_seq"),
        ({"first_seq": 3, "last_seq": 2}, "from 3 to 2"),
        ({"first_seq": 3, "last_seq": 4, "to_ns": 2}, "either last_seq or to_ns"),
        ({"from_ns": 3, "to_ns": 3}, "from 3 ns to before 3 ns"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(fields: dict[str, int], why: str) -> None:
    async def body(stub: Any) -> None:
        code, said = await code_of(stub().GetHistory(wanted(**fields)))
        assert (code, why in said) == (grpc.StatusCode.INVALID_ARGUMENT, True)

    serving(Slow(), body)


def test_who_has_no_log_says_who_has_and_an_unknown_stream_is_said() -> None:
    async def without(stub: Any) -> None:
        code, why = await code_of(stub().GetHistory(wanted(first_seq=1)))
        assert (code, "engine alone" in why) == (grpc.StatusCode.UNIMPLEMENTED, True)

    async def unknown(stub: Any) -> None:
        (reply,) = [reply async for reply in stub().GetHistory(wanted(channel=9, first_seq=1))]
        assert reply.end.status == marketdata_pb2.HISTORY_UNKNOWN_STREAM

    serving(None, without)
    serving(Slow(), unknown)


@pytest.mark.processes
def test_a_log_that_cannot_be_played_is_said(tmp_path: Path) -> None:
    async def body() -> None:
        historian = Historian(["false"], lambda: (1, 1))
        (reply,) = [reply async for reply in historian.tell(wanted(first_seq=1))]
        assert reply.end.status == engine.publish.history.UNREADABLE

    asyncio.run(body())


# An engine's process, over two of its lives


def told(events: Sequence[Event]) -> list[Any]:
    """Events as values."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, BookEvent):
            found.append((event.epoch, event.sequence, event.time_ns, [repr(delta) for delta in event.deltas]))
        elif isinstance(event, Trade):
            found.append(event)
    return found


@pytest.mark.processes
def test_a_reader_is_told_by_the_log_what_another_heard_live_in_two_lives_of_an_engine(tmp_path: Path) -> None:
    async def trade(endpoint: str, count: int) -> None:
        async with Client([endpoint], 7).session() as session:
            for nth in range(count):
                await session.new("E1A", SELL if nth % 3 else BUY, f"1.{50 + nth % 7}", 1 + nth % 5)
                await session.new("E1B", BUY, "1.00", 1)
            await session.new("E1A", BUY, "0.01", LAST)

    async def listened(feed: Feed, heard: list[Event], work: Coroutine[Any, Any, None]) -> None:
        async def listen() -> None:
            async for event in feed.events(["E1A"]):
                heard.append(event)  # noqa: PERF401

        task = asyncio.create_task(listen())
        while not any(isinstance(event, BookState) and event.state == "valid" for event in heard):
            await asyncio.sleep(0.01)
        await work
        while not any(delta.lots == LAST for e in heard if isinstance(e, BookEvent) for delta in e.deltas):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def life(endpoint: str, count: int) -> list[Any]:
        heard: list[Event] = []
        async with Feed([endpoint]) as feed:
            await listened(feed, heard, trade(endpoint, count))
            live = told(heard)
            again = told([event async for event in feed.history("E1A", first=live[0][1])])
            assert again == live != []
            with pytest.raises(HistoryError, match="out of range: epoch"):
                async for _ in feed.history("E1A", first=10**6):
                    pass
            with pytest.raises(HistoryError, match="no engine is known"):
                async for _ in feed.history("NOPE", first=1):
                    pass
        return live

    async def both(endpoint: str, epoch: int) -> tuple[list[Delta], list[Delta]]:
        """How an epoch begins: as it was sent, and as its log tells it."""
        async with grpc.aio.insecure_channel(endpoint) as channel:
            stub = marketdata_pb2_grpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
            span = {"engine": 1, "channel": 1, "epoch": epoch, "first_seq": 1, "last_seq": 12}
            listed = await stub.GetInstruments(marketdata_pb2.InstrumentsRequest())
            assert [(one.id, one.price_max) for one in listed.instruments] == [
                (10, 90_000),
                (11, 100_000),
                (12, 100_000),
            ]
            sent = await stub.GetRange(marketdata_pb2.RangeRequest(**span))
            told = [reply async for reply in stub.GetHistory(marketdata_pb2.HistoryRequest(**span))]
            frames = [feed.decode_reframed(data) for reply in told for data in reply.frames]
            return flat([feed.decode(data) for data in sent.frames])[:12], flat(frames)[:12]

    with Processes(tmp_path, 1) as venue:
        first = asyncio.run(life(venue.start(1), 30))
        venue.signal(1, signal.SIGKILL)
        venue.processes[1].wait(10)
        file = tmp_path / "cluster.toml"  # what is edited in between is told from then on, and what was stays as it was
        edited = file.read_text().replace("price_max = 100000", "price_max = 90000", 1).replace("id = 11", "id = 12")
        file.write_text(edited.replace('"E1B"', '"NOVA"'))
        endpoint = venue.start(1)
        second = asyncio.run(life(endpoint, 20))
        with Feed([endpoint]) as reader:
            assert told(list(reader.history("E1A", first=first[0][1], epoch=1, last=first[-1][1]))) == first
            since = told(list(reader.history("E1A", from_ns=first[0][2])))
        sent, logged = asyncio.run(both(endpoint, second[0][0]))
    assert (since[: len(first)], since[-len(second) :]) == (first, second)
    assert sent == logged
    limits = [(whole[1], whole[2].price_max) for _, _, _, whole, _ in sent if isinstance(whole[2], feed.Definition)]
    assert limits == [(10, 100_000), (11, 100_000), (10, 90_000), (12, 100_000)]
    assert {one[0] for one in since if isinstance(one, tuple)} == {1, second[0][0]}


@pytest.mark.processes
def test_tail_feed_tells_what_is_kept_for_repair_no_more_and_earlier_epochs_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def trade(endpoint: str) -> None:
        async with Client([endpoint], 7).session() as session:
            for _ in range(10):
                await session.new("E1A", BUY, "1.00", 1)

    async def out_of_range(self: Machine, *asked: int) -> marketdata_pb2.RangeReply:
        return marketdata_pb2.RangeReply(status=marketdata_pb2.RANGE_OUT_OF_RANGE)

    def said(*options: str) -> tuple[int, list[Any]]:
        code = tail_feed.main([endpoint, "--json", *options])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    with Processes(tmp_path, 1) as venue:
        asyncio.run(trade(venue.start(1)))
        venue.signal(1, signal.SIGTERM)
        venue.processes[1].wait(10)
        endpoint = venue.start(1)
        asyncio.run(trade(endpoint))
        monkeypatch.setattr(Machine, "range", out_of_range)
        code, lines = said("--from-seq", "3", "--count", "12")
        assert (code, [line["seq"] for line in lines if "seq" in line]) == (0, list(range(3, 15)))
        code, lines = said("--from-time", "2000-01-01T00:00", "--count", "28")
        deltas = [(line["epoch"], line["seq"]) for line in lines if "seq" in line]
        second = deltas[-1][0]
        assert (code, deltas) == (0, [(epoch, seq) for epoch in (1, second) for seq in range(1, 15)])
        code, lines = said("--from-time", "2000-01-01T00:00", "--symbol", "E1B", "--count", "4")
        assert [line["symbol"] for line in lines if "seq" in line] == ["E1B"] * 4
    with pytest.raises(SystemExit):
        said("--from-time", "yesterday")
    assert "'yesterday' is not a time such as" in capsys.readouterr().err

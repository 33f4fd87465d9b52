"""cluster.toml: what is read, what is assumed, and every fault of a file named at once."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import feed
from proto.cluster import Account, Cluster, ClusterError, EngineEntry, dumps, load, loads
from proto.instrument import Instrument

WHOLE = """
[venue]
name = "demo"

[[engine]]
id = 1
grpc = "127.0.0.1:4001"
feed = "tcp://[::1]:5001"
channels = 2

[[engine]]
id = 2

[[instrument]]
id = 1
symbol = "ALFA"
engine = 1
channel = 2
tick_size = "0.01"
lot_size = "1"
price_min = 1
price_max = 1000000

[[instrument]]
id = 4294967295
symbol = "CL-Z6"
engine = 2
tick_size = "0.005"
lot_size = "1000"
price_min = -4000
price_max = 40000

[[account]]
id = 7
name = "maker"

[[account]]
id = 18446744073709551615
"""

CLUSTER = Cluster(
    name="demo",
    engines=(
        EngineEntry(1, "127.0.0.1:4001", "tcp://[::1]:5001", 2),
        EngineEntry(2, "127.0.0.1:0", "tcp://127.0.0.1:0", 1),
    ),
    instruments=(
        Instrument(1, "ALFA", 1, 2, Decimal("0.01"), Decimal(1), 1, 1_000_000),
        Instrument(2**32 - 1, "CL-Z6", 2, 1, Decimal("0.005"), Decimal(1000), -4000, 40_000),
    ),
    accounts=(Account(7, "maker"), Account(2**64 - 1, "")),
)

ENGINE = """
[[engine]]
id = 1
"""
INSTRUMENT = """
[[instrument]]
id = 1
symbol = "ALFA"
engine = 1
tick_size = "0.01"
lot_size = "1"
price_min = 1
price_max = 100
"""


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(ClusterError) as refused:
        loads(text)
    return refused.value.faults


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(WHOLE)
    assert load(path) == CLUSTER


def test_one_engine_is_enough() -> None:
    assert loads(ENGINE) == Cluster("venue", (EngineEntry(1),))


def test_what_is_written_is_read_as_the_same() -> None:
    assert loads(dumps(CLUSTER)) == CLUSTER
    assert dumps(loads(dumps(CLUSTER))) == dumps(CLUSTER)
    awkward = replace(CLUSTER, name='a "b" \\ \u00e9 \U0001f4c8', accounts=(Account(1, "#'x'"),))
    assert loads(dumps(awkward)) == awkward


def test_a_cluster_is_asked_for_its_parts() -> None:
    assert CLUSTER.engine(2) == CLUSTER.engines[1]
    assert CLUSTER.instruments_of(2) == CLUSTER.instruments[1:]
    with pytest.raises(KeyError):
        CLUSTER.engine(3)


@pytest.mark.parametrize(
    ("line", "instead", "fault"),
    [
        ("id = 1", "id = 0", "id = 0 is not within 1 .. 4294967295"),
        ("id = 1", "id = 4294967296", "id = 4294967296 is not within 1 .. 4294967295"),
        ("id = 1", "id = true", "id = True is not a whole number"),
        ("id = 1", "id = 1.0", "id = 1.0 is not a whole number"),
        ("id = 1", 'id = "1"', 'id = "1" is not a whole number'),
        ("id = 1", "id = 0x1" + "0" * 5000, "id = 0x1" + "0" * 54 + "... is not within 1 .. 4294967295"),
        ('symbol = "ALFA"', f'symbol = "{"A" * 17}"', f'symbol = "{"A" * 17}" is not 1-16 of A-Z 0-9 . - _'),
        ('symbol = "ALFA"', 'symbol = "ALFA\\n"', 'symbol = "ALFA\\u000a" is not 1-16 of A-Z 0-9 . - _'),
        ("engine = 1", "engine = 2", "engine = 2 is not in the file"),
        ("engine = 1", "engine = 1\nchannel = 2", "engine 1 has no channel 2"),
        ('tick_size = "0.01"', 'tick_size = "0.00"', 'tick_size = "0.00" is not above zero'),
        (
            'tick_size = "0.01"',
            "tick_size = 0.01",
            'tick_size = 0.01 is not a decimal number as text, such as "0.01"',
        ),
        (
            'lot_size = "1"',
            'lot_size = "NaN"',
            'lot_size = "NaN" is not a decimal number as text, such as "0.01"',
        ),
        (
            'tick_size = "0.01"',
            'tick_size = "0.0000000000001"',
            'tick_size = "0.0000000000001" is not a decimal number as text, such as "0.01"',
        ),
        (
            "price_max = 100",
            "price_max = 100\nauction_reference = 101",
            "auction_reference = 101 is not within the price limits",
        ),
        (
            "price_max = 100",
            "price_max = 100\nband = 5",
            "band = 5 needs an auction_reference: the first trade would halt trading",
        ),
        ("price_min = 1\n", "price_min = 101\n", "price_min = 101 is above price_max = 100"),
        (
            "price_max = 100",
            "price_max = 1099511627776",
            "price_max = 1099511627776 is not within -1099511627775 .. 1099511627775",
        ),
        ("price_max = 100", "", "price_max is missing"),
        ("price_max = 100", "price_max = 100\nprice_mx = 1", 'unknown key "price_mx"'),
    ],
)
def test_a_fault_of_an_instrument_is_named(line: str, instead: str, fault: str) -> None:
    assert line in INSTRUMENT
    named = "" if line.startswith("symbol") else " (ALFA)"
    assert faults(ENGINE + INSTRUMENT.replace(line, instead)) == (f"[[instrument]] 1{named}: {fault}",)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no [[engine]]"),
        ("[[engine]]\nid = 1000", "[[engine]] 1: id = 1000 is not within 1 .. 999"),
        ("[[engine]]\nid = 1\nchannels = 100", "[[engine]] 1: channels = 100 is not within 1 .. 99"),
        ('[[engine]]\nid = 1\ngrpc = "host"', "[[engine]] 1: grpc: 'host' is not HOST:PORT"),
        ('[[engine]]\nid = 1\ngrpc = "host:65536"', "[[engine]] 1: grpc: 'host:65536': no port is above 65,535"),
        (
            '[[engine]]\nid = 1\nfeed = "ipc://x:1"',
            "[[engine]] 1: feed: 'ipc://x:1' is not tcp://HOST:PORT",
        ),
        ("[[engine]]\nid = 1\n[[engine]]\nid = 1", "[[engine]] 2: id = 1 belongs to [[engine]] 1"),
        (
            '[[engine]]\nid = 1\ngrpc = "h:1"\n[[engine]]\nid = 2\ngrpc = "h:1"',
            '[[engine]] 2: grpc = "h:1" belongs to [[engine]] 1',
        ),
        (
            ENGINE + INSTRUMENT + INSTRUMENT.replace("id = 1", "id = 2"),
            '[[instrument]] 2: symbol = "ALFA" belongs to [[instrument]] 1',
        ),
        (
            ENGINE + INSTRUMENT + INSTRUMENT.replace("ALFA", "BETA"),
            "[[instrument]] 2: id = 1 belongs to [[instrument]] 1",
        ),
        (ENGINE + "[[account]]\nid = 0", "[[account]] 1: id = 0 is not within 1 .. 18446744073709551615"),
        (ENGINE + "[[account]]\nid = 1\n[[account]]\nid = 1", "[[account]] 2: id = 1 belongs to [[account]] 1"),
        (ENGINE + "[account]\nid = 1", "account is not a list of tables: write [[account]]"),
        ("venue = 3\n" + ENGINE, "[venue]: is not a table"),
        ("engine = [3]\n", "[[engine]] 1: is not a table"),
        ('[venue]\nname = ""\n' + ENGINE, '[venue]: name = "" is not 1-64 printable characters'),
        ("extra = 1\n" + ENGINE, 'unknown key "extra"'),
    ],
)
def test_a_fault_of_a_file_is_named(text: str, fault: str) -> None:
    assert fault in faults(text)


@pytest.mark.parametrize("size", ["0.000000000001", "999999999999.999999999999", "1"])
def test_the_feed_can_say_every_tick_and_lot_that_a_file_may_have(size: str) -> None:
    sized = INSTRUMENT.replace('tick_size = "0.01"', f'tick_size = "{size}"')
    read = loads(ENGINE + sized.replace('lot_size = "1"', f'lot_size = "{size}"')).instruments[0]
    definition = [read.symbol, f"{read.tick_size:f}", f"{read.lot_size:f}", read.price_min, read.price_max]
    row = [feed.DEFINITION | feed.END, 1, 0, 0, 0, 0]
    frame = feed.encode_frame(1, 1, 0, 7, 1, 1, 1, [(0, 1)], [(1, 1)], row, [definition])
    assert feed.decode(frame).extras == [feed.Definition("ALFA", size, size, 1, 100)]


def test_all_faults_of_a_file_are_named_at_once() -> None:
    text = ENGINE.replace("1", "0") + INSTRUMENT.replace("0.01", "0").replace("ALFA", "a b").replace("100", "-1")
    assert faults(text) == (
        "[[engine]] 1: id = 0 is not within 1 .. 999",
        '[[instrument]] 1: symbol = "a b" is not 1-16 of A-Z 0-9 . - _',
        '[[instrument]] 1: tick_size = "0" is not above zero',
        "[[instrument]] 1: price_min = 1 is above price_max = -1",
        "[[instrument]] 1: engine = 1 is not in the file",
    )


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    with pytest.raises(ClusterError, match=r"cluster\.toml: No such file or directory"):
        load(path)
    path.write_bytes(b"[venue]\nname = '\xff'\n")
    with pytest.raises(ClusterError, match="is not UTF-8 at byte 16"):
        load(path)
    path.write_text("[venue")
    with pytest.raises(ClusterError, match="is not TOML"):
        load(path)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "1" * 5000])
def test_a_hostile_file_is_refused(text: str) -> None:
    assert len(faults(text)) == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_a_file_with_lines_taken_out_or_spoilt_is_read_or_refused(data: st.DataObject) -> None:
    lines = WHOLE.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        spoilt = data.draw(st.sampled_from(["", "= 1", "id = -1", "x = []", "[engine]", 'symbol = ["A"]', "\x00"]))
        lines[at] = spoilt
    try:
        cluster = loads("\n".join(lines))
    except ClusterError:
        return
    assert loads(dumps(cluster)) == cluster

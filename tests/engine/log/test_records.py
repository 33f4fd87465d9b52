"""Records of the command log: golden bytes, and nothing but RecordError for what is not one."""

import random
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.commands import AddInstrument, CorrectTrade, Kill, SetAccounts, SetState
from engine.log.records import (
    Disconnected,
    Entered,
    Epoch,
    Group,
    Part,
    Record,
    RecordError,
    decode,
    encode,
    encode_commands,
    encode_part,
    epoch_at,
)
from proto.cluster import Account
from tests.engines import cluster_of

U64 = 2**64 - 1
E1A = cluster_of(1).instruments[0]

GOLDEN: list[tuple[Record, str]] = [
    (Epoch(0, "engine-1", 10**18), "97 01 00 a8656e67696e652d31 cf0de0b6b3a7640000 01 c0 00"),
    (Epoch(U64, ""), "97 01 cfffffffffffffffff a0 00 01 c0 00"),
    (Group(5, 1, []), "94 02 05 01 90"),
    (
        Group(300, 10**18, [Entered(7, 9, 1, b"\x0a\x01"), Disconnected(7, 9)]),
        "94 02 cd012c cf0de0b6b3a7640000 92 95 01 07 09 01 c4020a01 93 02 07 09",
    ),
]


@pytest.mark.parametrize(("record", "golden"), GOLDEN)
def test_golden_bytes(record: Record, golden: str) -> None:
    assert encode(record).hex() == golden.replace(" ", "")
    assert decode(bytes.fromhex(golden)) == record


def test_an_epoch_written_without_its_time_its_rules_and_an_identity_is_read() -> None:
    assert decode(bytes.fromhex("930100a8656e67696e652d31")) == Epoch(0, "engine-1", 0, 1)
    assert decode(bytes.fromhex("940100a8656e67696e652d3105")) == Epoch(0, "engine-1", 5, 1)


@pytest.mark.parametrize(
    ("position", "previous", "above", "epoch"),
    [(1, 0, 0, 1), (9, 3, 0, 9), (9, 3, 8, 9), (9, 3, 9, 10), (9, 3, 500, 501), (12, 501, 0, 502), (600, 501, 0, 600)],
)
def test_an_epoch_is_the_position_of_its_record_unless_a_higher_one_was_seen(
    position: int, previous: int, above: int, epoch: int
) -> None:
    assert epoch_at(position, Epoch(previous, "", above=above)) == epoch


def test_msgpack_reads_the_same() -> None:
    record = Group(300, 10**18, [Entered(7, 9, 1, b"as it came"), Disconnected(7, 9)])
    assert msgpack.unpackb(encode(record)) == [2, 300, 10**18, [[1, 7, 9, 1, b"as it came"], [2, 7, 9]]]


COUNTS = st.integers(0, U64)
PARTS = st.one_of(
    st.builds(Entered, COUNTS, COUNTS, st.integers(0, 255), st.binary(max_size=300)),
    st.builds(Disconnected, COUNTS, COUNTS),
)
RECORDS = st.one_of(
    st.builds(Epoch, COUNTS, st.text(max_size=512), COUNTS, above=COUNTS),
    st.builds(Group, COUNTS, COUNTS, st.lists(PARTS, max_size=9)),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RECORDS)
def test_a_record_is_the_same_after_writing_and_reading(record: Record) -> None:
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "part",
    [
        Entered(7, 9, 300, b""),
        Entered(7, 9, -1, b""),
        Entered(-7, 9, 1, b""),
        Entered(2**64, 9, 1, b""),
        Entered(7, 9, 1, "text"),  # type: ignore[arg-type]
        Disconnected(7, 0.5),  # type: ignore[arg-type]
        SetState(10, 300),
        Kill(7, -1, True),
        CorrectTrade(10, 1, 2**63, -1),
        AddInstrument.of(replace(E1A, symbol="two words")),
        AddInstrument.of(replace(E1A, price_max=2**40)),
        SetAccounts((Account(0),)),
    ],
    ids=repr,
)
def test_what_could_not_be_read_back_is_not_encoded(part: Part) -> None:
    with pytest.raises(RecordError, match="cannot be logged"):
        encode_part(part)
    with pytest.raises(RecordError, match="cannot be logged"):
        encode(Group(1, 1, [part]))


def test_parts_that_were_encoded_by_themselves_make_the_same_record() -> None:
    parts: list[Part] = [Entered(7, 9, 1, b"as it came"), Entered(8, 0, 4, b""), Disconnected(7, 9)]
    assert encode_commands(300, 10**18, [encode_part(part) for part in parts]) == encode(Group(300, 10**18, parts))


@pytest.mark.parametrize(
    "body",
    [
        None,
        0,
        [],
        {},
        [3, 1, 2],
        [1, 0],
        [1, 0, "engine-1", -1],
        [1, 0, "engine-1", 0, 0, 0],
        [1, 0, "engine-1", 0, 0, None, -1],
        [1, 0, "engine-1", 0, 0, None, 0, 0],
        [4, 1, 2],
        [1, -1, "engine-1"],
        [1, 0.0, "engine-1"],
        [1, True, "engine-1"],
        [1, 0, b"engine-1"],
        [1, 0, "x" * 513],
        [2, 1, 1],
        [2, 1, 1, None],
        [2, 1, 1, [[12, 1, 1]]],
        [2, 1, 1, [[1, 1, 1, 0]]],
        [2, 1, 1, [[1, 1, 1, 256, b""]]],
        [2, 1, 1, [[1, 1, 1, 0, "text"]]],
        [2, 1, 1, [[1, 1, 1, 0, b"", 0]]],
        [2, 1, 1, [[2, 1]]],
        [2, 1, 1, [[2, 1, -1]]],
    ],
)
def test_a_body_that_is_no_record_is_refused(body: object) -> None:
    with pytest.raises(RecordError):
        decode(msgpack.packb(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 10_000,
        b"\x94\x02\x01\x01\xdd\xff\xff\xff\xff",  # 4,294,967,295 parts announced
        b"\x94\x02\x01\x01\x91\x95\x01\x01\x01\x00\xc6\xff\xff\xff\xff",
        b"\x93\x01\x00\xa1\xff",  # not UTF-8
        bytes.fromhex("93 01 00 a0 00"),  # a byte too many
    ],
)
def test_hostile_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(RecordError):
        decode(body)


def test_damage_gives_a_record_or_a_record_error_and_never_anything_else() -> None:
    seed = 11
    print("seed", seed)
    rng = random.Random(seed)
    bodies = [encode(record) for record, _ in GOLDEN]
    refused = 0
    for _ in range(20_000):
        body = bytearray(rng.choice(bodies))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(3):
                case 0:
                    body[at : at + 1] = rng.randbytes(1)
                case 1:
                    body[at:at] = rng.randbytes(rng.randint(1, 4))
                case _:
                    del body[at:]
        try:
            decode(bytes(body))
        except RecordError:
            refused += 1
    assert 10_000 < refused < 20_000

"""Readers of recorded flow: what a good row becomes, and the one error of a bad one."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.flow import messages as flow
from tools.flow.messages import (
    BookRow,
    FlowError,
    Message,
    WorkloadRow,
    is_lobster,
    read_books,
    read_messages,
)

MAGIC = 0x4D4542575F303031  # "100_WBEM"


def workload(*records: bytes, magic: int = MAGIC, version: int = 1, count: int | None = None) -> bytes:
    return struct.pack("<QII", magic, version, len(records) if count is None else count) + b"".join(records)


def record(
    kind: int = 0,
    side: int = 0,
    ioc: int = 0,
    quantity: int = 5,
    sequence: int = 0,
    order_id: int = 1,
    price: int = 100,
) -> bytes:
    return struct.pack("<BBBxIQQqq", kind, side, ioc, quantity, sequence, order_id, price, 0)


def packed(content: bytes) -> bytes:
    """Always the same bytes, since a test is named after them."""
    return gzip.compress(content, mtime=0)


def stored(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "flow"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_workload_is_read_row_by_row(tmp_path: Path) -> None:
    golden = bytes.fromhex(
        "3130305f5742454d" "01000000" "02000000"
        "00" "01" "01" "00" "59000000" "0000000000000000" "15c4020000000000" "5784000000000000" "0000000000000000"
        "02" "00" "00" "00" "05000000" "0100000000000000" "15c4020000000000" "ffffffffffffffff" "0000000000000000"
    )  # fmt: skip
    assert flow.read_workload(stored(tmp_path, golden)) == [
        WorkloadRow(flow.NEW, 1, 1, 89, 0, 181269, 33879),
        WorkloadRow(flow.MODIFY, 0, 0, 5, 1, 181269, -1),
    ]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_may_be_plain_or_gzip(tmp_path: Path, pack: type[bytes]) -> None:
    path = stored(tmp_path, pack(workload(record())))
    assert not is_lobster(path)
    assert flow.read_workload(path) == [WorkloadRow(flow.NEW, 0, 0, 5, 0, 1, 100)]


def test_an_empty_workload_has_no_rows(tmp_path: Path) -> None:
    assert flow.read_workload(stored(tmp_path, workload())) == []


@pytest.mark.parametrize(
    ("content", "row", "what"),
    [
        (b"100_WBEM", 0, "8 bytes are too few for a workload's header"),
        (workload(count=1 << 31), 0, "names 2,147,483,648 records, more than 5,000,000"),
        (workload(record()) + bytes(1 << 20), 0, "names 1 records and holds more"),
        (packed(workload(count=5_000_000) + bytes(1 << 24)), 1, "order id 0, sequence 0 are out of reach"),
        (workload(version=2), 0, "is a workload of version 2, not 1"),
        (workload(record(), count=2), 0, "names 2 records and holds 1"),
        (workload(record(), record(), count=1), 0, "names 1 records and holds more"),
        (workload(record())[:-3], 0, "names 1 records and holds 0 and 37 bytes"),
        (workload(record(), record(kind=3)), 2, "type 3, side 0, ioc 0 mean nothing"),
        (workload(record(side=2)), 1, "type 0, side 2, ioc 0 mean nothing"),
        (workload(record(ioc=9)), 1, "type 0, side 0, ioc 9 mean nothing"),
        (workload(record(order_id=0)), 1, "order id 0, sequence 0 are out of reach"),
        (workload(record(order_id=1 << 62)), 1, f"order id {1 << 62}, sequence 0 are out of reach"),
        (workload(record(sequence=1 << 63)), 1, f"order id 1, sequence {1 << 63} are out of reach"),
        (workload(record(quantity=0)), 1, "quantity 0"),
        (workload(record(price=-(1 << 40))), 1, f"price {-(1 << 40)} is out of reach"),
        (packed(workload(record()))[:-9], 0, "damaged: Compressed file ended before the end-of-stream marker"),
        (b"\x1f\x8bnonsense", 0, "damaged: Unknown compression method"),
    ],
)
def test_a_bad_workload_is_one_error_with_its_row(tmp_path: Path, content: bytes, row: int, what: str) -> None:
    path = stored(tmp_path, content)
    with pytest.raises(FlowError) as caught:
        flow.read_workload(path)
    assert (caught.value.path, caught.value.row) == (str(path), row)
    assert str(caught.value).startswith(f"{path}: row {row}: {what}" if row else f"{path}: {what}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match="missing: No such file or directory"):
        flow.read_workload(tmp_path / "missing")
    with pytest.raises(FlowError, match="Is a directory"):
        is_lobster(tmp_path)


def test_what_is_no_workload_is_taken_for_lobsters_messages(tmp_path: Path) -> None:
    assert is_lobster(stored(tmp_path, "34200.1,1,2,3,4,1\n"))


HEAD = "action,id,side,quantity,price,tif\n"


def test_a_workload_may_be_text(tmp_path: Path) -> None:
    text = "new,7,buy,5,100,\nNEW, 8, sell, 5, 100, ioc\r\nmodify,7,,9,-3,\ncancel,7,,,,\n"
    path = stored(tmp_path, HEAD + text)
    assert not is_lobster(path)
    assert flow.read_workload(path) == [
        WorkloadRow(flow.NEW, 0, 0, 5, 0, 7, 100),
        WorkloadRow(flow.NEW, 1, 1, 5, 1, 8, 100),
        WorkloadRow(flow.MODIFY, 0, 0, 9, 2, 7, -3),
        WorkloadRow(flow.CANCEL, 0, 0, 0, 3, 7, 0),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("new,7,buy,5,100", "5 columns, not 6"),
        ("buy,7,buy,5,100,", "action 'buy' is none of new, cancel, modify"),
        ("new,7,,5,100,", "side '' is neither buy nor sell"),
        ("new,7,buy,5,100,gtd", "tif 'gtd' is neither nothing nor ioc, which only a new order may be"),
        ("cancel,7,,,,ioc", "tif 'ioc' is neither nothing nor ioc, which only a new order may be"),
        ("new,7,buy,5,100.5,", "'100.5' is not a whole number"),
        ("new,7,buy,,100,", "'' is not a whole number"),
        ("new,7,buy,-5,100,", "quantity -5"),
        ("new,-7,buy,5,100,", "order id -7, sequence 0 are out of reach"),
        (f"new,7,buy,5,{10**4000},", f"price {10**4000} is out of reach"),
        (f"new,7,buy,5,{'9' * 5000},", f"'{'9' * 40}' is not a whole number"),
    ],
)
def test_a_bad_line_of_a_workload_is_one_error_with_its_row(tmp_path: Path, line: str, what: str) -> None:
    path = stored(tmp_path, f"{HEAD}{line}\n")
    with pytest.raises(FlowError) as caught:
        flow.read_workload(path)
    assert str(caught.value) == f"{path}: row 2: {what}"


@pytest.mark.parametrize("read", [read_messages, read_books])
def test_gigabytes_of_zeros_cost_a_line(tmp_path: Path, read: Callable[[Path], Iterator[object]]) -> None:
    path = stored(tmp_path, gzip.compress(bytes(1 << 26)))
    tracemalloc.start()
    with pytest.raises(FlowError, match="row 1: longer than 65536 bytes"):
        next(read(path))
    assert tracemalloc.get_traced_memory()[1] < 1 << 21
    tracemalloc.stop()


def test_more_rows_or_levels_than_a_replay_can_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_ROWS_MAX", 3)
    monkeypatch.setattr(flow, "_LEVELS_MAX", 8)
    with pytest.raises(FlowError, match="row 4: more than 3 rows"):
        list(read_messages(stored(tmp_path, "34200,1,1,1,1,1\n" * 4)))
    with pytest.raises(FlowError, match="row 3: the books have more than 8 levels in all"):
        list(read_books(stored(tmp_path, "101,5,100,7,102,1,99,2\n" * 3)))


def test_messages_are_read_to_the_nanosecond(tmp_path: Path) -> None:
    text = "34200.017459617,5,0,1,2238200,-1\n34200.18960767,1,11885113,21,2238100,1\r\n35821.088778456004,7,0,0,-1,-1"
    assert list(read_messages(stored(tmp_path, text))) == [
        Message(34_200_017_459_617, flow.EXECUTED_HIDDEN, 0, 1, 2238200, -1),
        Message(34_200_189_607_670, flow.SUBMITTED, 11885113, 21, 2238100, 1),
        Message(35_821_088_778_456, flow.HALTED, 0, 0, -1, -1),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("34200.1,1,2,3,4", "5 columns, not 6"),
        ("", "1 columns, not 6"),
        ("noon,1,2,3,4,1", "time 'noon' is not in seconds after midnight"),
        ("nan,1,2,3,4,1", "time 'nan' is not in seconds after midnight"),
        ("inf,1,2,3,4,1", "time 'inf' is not in seconds after midnight"),
        ("1e999999999,1,2,3,4,1", "time '1e999999999' is not in seconds after midnight"),
        ("86400,1,2,3,4,1", "time '86400' is not in seconds after midnight"),
        ("34199,1,2,3,4,1", "its time is before that of the row above"),
        ("34200.1,8,2,3,4,1", "type 8 is not within 1 .. 7"),
        ("34200.1,1,2,3,4,0", "direction 0 is neither 1 nor -1"),
        ("34200.1,1,2,3.5,4,1", "'3.5' is not a whole number"),
        ("34200.1,1,0,3,4,1", "order id 0, size 3, price 4 cannot be an order's"),
        ("34200.1,1,2,0,4,1", "order id 2, size 0, price 4 cannot be an order's"),
        (f"34200.1,1,2,3,{1 << 40},1", f"order id 2, size 3, price {1 << 40} cannot be an order's"),
        (f"34200.1,1,{1 << 61},3,4,1", f"order id {1 << 61}, size 3, price 4 cannot be an order's"),
        ("34200.1,1,2,3,4,1" + " " * 70_000, "longer than 65536 bytes"),
        ("34200.1,1,2,3,4,\xff", "is not text"),
    ],
)
def test_a_bad_message_is_one_error_with_its_row(tmp_path: Path, line: str, what: str) -> None:
    path = stored(tmp_path, f"34200,1,1,1,1,1\n{line}\n".encode("latin-1"))
    rows = read_messages(path)
    assert next(rows).order_id == 1
    with pytest.raises(FlowError) as caught:
        next(rows)
    assert (caught.value.row, str(caught.value)) == (2, f"{path}: row 2: {what}")


def test_books_are_read_without_their_empty_slots(tmp_path: Path) -> None:
    text = "101,5,100,7,102,1,99,2\n101,5,100,7,9999999999,0,-9999999999,0\n"
    path = stored(tmp_path, text)
    assert list(read_books(path)) == [
        BookRow(((101, 5), (102, 1)), ((100, 7), (99, 2))),
        BookRow(((101, 5),), ((100, 7),)),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("101,5,100", "3 columns, not 8"),
        ("101,5,100,7,101,1,99,2", "its asks do not rise"),
        ("101,5,100,7,102,1,100,2", "its bids do not fall"),
        ("101,-5,100,7,102,1,99,2", "a size below zero"),
        ("101,5,100,7,102,one,99,2", "'one' is not a whole number"),
    ],
)
def test_a_bad_book_is_one_error_with_its_row(tmp_path: Path, line: str, what: str) -> None:
    path = stored(tmp_path, f"101,5,100,7,102,1,99,2\n{line}\n")
    rows = read_books(path)
    next(rows)
    with pytest.raises(FlowError) as caught:
        next(rows)
    assert (caught.value.row, str(caught.value)) == (2, f"{path}: row 2: {what}")

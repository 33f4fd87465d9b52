"""Recorded order flow, read from files: a workload, as text or as a benchmark has it, and LOBSTER's days.

Files may be plain or gzip; which it is, their first bytes say. Everything a row can get wrong is one `FlowError` that
names the file and the row, so that whoever reads a row may trust it.

Limits, so that no file costs more than it should: 5,000,000 rows, 65,536 bytes a line, 10,000,000 levels of books.

A workload as text: this line first, then a row a line, in order. `examples/flow.csv` is one.

    action,id,side,quantity,price,tif

    action    new, cancel, modify
    id        of the order, 1 or more, the sender's own; of a cancel or a modify: of the order that it is about
    side      buy, sell; of a new order, else it may be left out
    quantity  lots; of a modify: what is to be open from now on; of a cancel it may be left out
    price     whole ticks; of a cancel it may be left out
    tif       nothing, or ioc: of a new order, whose rest is then canceled

A modify gives up its place: cancel, then enter again.

The same as a benchmark has it, little-endian: a header of 16 bytes, then `count` records of 40.

    Offset  Size  Header field  Notes
    0       8     magic         0x4d4542575f303031, "100_WBEM" as the bytes stand
    8       4     version       1
    12      4     count         records that follow, and nothing follows those

    Offset  Size  Record field  Notes
    0       1     kind          0 new, 1 cancel, 2 modify
    1       1     side          0 buy, 1 sell
    2       1     ioc           0 or 1
    3       1     (padding)
    4       4     quantity
    8       8     sequence      of the message; answers are sorted by it
    16      8     order_id      the client's
    24      8     price         ticks, signed
    32      8     (reserved)

LOBSTER, text, a row a line: messages are `time,type,order id,size,price,direction` with the time in seconds after
midnight and the price in dollars times 10,000; row i of a book file is the book after message i, as `ask price, ask
size, bid price, bid size` for level 1, 2, and so on, an empty slot with size 0 and a price of ±9999999999.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from proto.columns import LIMIT

NEW: Final = 0
CANCEL: Final = 1
MODIFY: Final = 2

# LOBSTER message types.
SUBMITTED: Final = 1
REDUCED: Final = 2
DELETED: Final = 3
EXECUTED: Final = 4
EXECUTED_HIDDEN: Final = 5
CROSSED: Final = 6
HALTED: Final = 7

_HEADER: Final = struct.Struct("<QII")
_RECORD: Final = struct.Struct("<BBBxIQQq8x")
_MAGIC: Final = int.from_bytes(b"100_WBEM", "little")
_VERSION: Final = 1
_NO_PRICE: Final = 9_999_999_999
_ID_LIMIT: Final = 1 << 61  # of what a file numbers; ids above are for those who replay it
_LINE_MAX: Final = 65_536
_ROWS_MAX: Final = 5_000_000
_LEVELS_MAX: Final = 10_000_000  # of all books together
_COLUMNS: Final = "action,id,side,quantity,price,tif"
_ACTIONS: Final = {"new": NEW, "cancel": CANCEL, "modify": MODIFY}
_NANOSECOND: Final = Decimal("1e-9")
_DAY_S: Final = 86_400


class FlowError(ValueError):
    """A file that cannot be used: its `path`, the `row` (from 1; 0: the file as a whole), and what is wrong."""

    def __init__(self, path: str, row: int, what: str) -> None:
        super().__init__(f"{path}: row {row}: {what}" if row else f"{path}: {what}")
        self.path = path
        self.row = row


class WorkloadRow(NamedTuple):
    """A message of a workload: `kind` is NEW, CANCEL or MODIFY, `side` 0 to buy and 1 to sell."""

    kind: int
    side: int
    ioc: int
    quantity: int
    sequence: int
    order_id: int
    price: int


class Message(NamedTuple):
    """A LOBSTER message: `direction` is that of the resting order, 1 a buy, -1 a sell; `price` dollars x 10,000."""

    time_ns: int
    kind: int
    order_id: int
    size: int
    price: int
    direction: int


class BookRow(NamedTuple):
    """The (price, size) levels after a message, best first, without the empty slots."""

    asks: tuple[tuple[int, int], ...]
    bids: tuple[tuple[int, int], ...]


def is_lobster(path: str | PathLike[str]) -> bool:
    """Whether a file is none of the workloads: those say what they are. Raises: FlowError when it cannot be read."""
    with _open(path) as file:
        begins = _read(file, str(path), len(_COLUMNS))
    return not (begins.startswith(_MAGIC.to_bytes(8, "little")) or begins == _COLUMNS.encode())


def read_workload(path: str | PathLike[str]) -> list[WorkloadRow]:
    """All messages of a workload, in the file's order. Cost: 1 to 2 us a row. Raises: FlowError."""
    name = str(path)
    with _open(path) as file:
        head = _read(file, name, _HEADER.size)
        if head[:8] != _MAGIC.to_bytes(8, "little"):
            return list(_text_rows(path))
        if len(head) < _HEADER.size:
            raise FlowError(name, 0, f"{len(head)} bytes are too few for a workload's header")
        _, version, count = _HEADER.unpack(head)
        if version != _VERSION:
            raise FlowError(name, 0, f"is a workload of version {version}, not {_VERSION}")
        if count > _ROWS_MAX:
            raise FlowError(name, 0, f"names {count:,} records, more than {_ROWS_MAX:,}")
        rows: list[WorkloadRow] = []
        while len(rows) < count:
            raw = _read(file, name, _RECORD.size * min(4_096, count - len(rows)))
            if not raw or len(raw) % _RECORD.size:
                held, over = divmod(len(raw), _RECORD.size)
                held += len(rows)
                raise FlowError(
                    name, 0, f"names {count} records and holds {held}" + (f" and {over} bytes" * bool(over))
                )
            for row in map(WorkloadRow._make, _RECORD.iter_unpack(raw)):
                rows.append(_sound(name, len(rows) + 1, row))
        if _read(file, name, 1):
            raise FlowError(name, 0, f"names {count} records and holds more")
    return rows


def _text_rows(path: str | PathLike[str]) -> Iterator[WorkloadRow]:
    name = str(path)
    for i, text in _lines(path):
        fields = [field.strip().lower() for field in text.split(",")]
        if i == 1:
            if ",".join(fields) != _COLUMNS:
                raise FlowError(name, 1, f"is not {_COLUMNS}")
            continue
        if len(fields) != 6:
            raise FlowError(name, i, f"{len(fields)} columns, not 6")
        action, order_id, side, quantity, price, tif = fields
        if action not in _ACTIONS:
            raise FlowError(name, i, f"action {action[:40]!r} is none of {', '.join(_ACTIONS)}")
        kind = _ACTIONS[action]
        if side not in ("buy", "sell") and (kind == NEW or side):
            raise FlowError(name, i, f"side {side[:40]!r} is neither buy nor sell")
        if tif not in ("", "ioc") or (tif and kind != NEW):
            raise FlowError(name, i, f"tif {tif[:40]!r} is neither nothing nor ioc, which only a new order may be")
        if kind == CANCEL:
            quantity, price = quantity or "0", price or "0"
        numbers = _ints(name, i, [quantity, order_id, price])
        row = WorkloadRow(kind, int(side == "sell"), int(tif == "ioc"), numbers[0], i - 2, numbers[1], numbers[2])
        yield _sound(name, i, row)


def _sound(name: str, i: int, row: WorkloadRow) -> WorkloadRow:
    """The row, if it is one. Raises: FlowError."""
    if row.kind > MODIFY or row.side > 1 or row.ioc > 1:
        raise FlowError(name, i, f"type {row.kind}, side {row.side}, ioc {row.ioc} mean nothing")
    if not 0 < row.order_id < _ID_LIMIT or not 0 <= row.sequence < _ID_LIMIT:
        raise FlowError(name, i, f"order id {row.order_id}, sequence {row.sequence} are out of reach")
    if row.kind != CANCEL and not 0 < row.quantity < LIMIT:
        raise FlowError(name, i, f"quantity {row.quantity}")
    if not -LIMIT < row.price < LIMIT:
        raise FlowError(name, i, f"price {row.price} is out of reach")
    return row


def read_messages(path: str | PathLike[str]) -> Iterator[Message]:
    """The messages of a LOBSTER file, in order; time never falls. Raises: FlowError, also midway."""
    name = str(path)
    last_ns = 0
    for i, text in _lines(path):
        fields = text.split(",")
        if len(fields) != 6:
            raise FlowError(name, i, f"{len(fields)} columns, not 6")
        time_ns = _nanoseconds(name, i, fields[0])
        if time_ns < last_ns:
            raise FlowError(name, i, "its time is before that of the row above")
        last_ns = time_ns
        kind, order_id, size, price, direction = _ints(name, i, fields[1:])
        if not SUBMITTED <= kind <= HALTED:
            raise FlowError(name, i, f"type {kind} is not within {SUBMITTED} .. {HALTED}")
        if direction not in (1, -1):
            raise FlowError(name, i, f"direction {direction} is neither 1 nor -1")
        if kind <= EXECUTED and not (0 < order_id < _ID_LIMIT and 0 < size < LIMIT and -LIMIT < price < LIMIT):
            raise FlowError(name, i, f"order id {order_id}, size {size}, price {price} cannot be an order's")
        yield Message(time_ns, kind, order_id, size, price, direction)


def read_books(path: str | PathLike[str]) -> Iterator[BookRow]:
    """The books of a LOBSTER file, in order. Raises: FlowError, also midway."""
    name = str(path)
    width = levels = 0
    for i, text in _lines(path):
        fields = text.split(",")
        width = width or len(fields)
        levels += width // 2
        if levels > _LEVELS_MAX:
            raise FlowError(name, i, f"the books have more than {_LEVELS_MAX:,} levels in all")
        if len(fields) != width or width % 4:
            raise FlowError(name, i, f"{len(fields)} columns, not {width if width % 4 == 0 else 'four a level'}")
        values = _ints(name, i, fields)
        asks, bids = _side(values[0::4], values[1::4]), _side(values[2::4], values[3::4])
        if any(later <= price for (price, _), (later, _) in pairwise(asks)):
            raise FlowError(name, i, "its asks do not rise")
        if any(later >= price for (price, _), (later, _) in pairwise(bids)):
            raise FlowError(name, i, "its bids do not fall")
        if any(size < 0 for _, size in asks + bids):
            raise FlowError(name, i, "a size below zero")
        yield BookRow(asks, bids)


def _side(prices: list[int], sizes: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple((price, size) for price, size in zip(prices, sizes, strict=True) if abs(price) != _NO_PRICE)


def _nanoseconds(name: str, row: int, text: str) -> int:
    try:
        seconds = Decimal(text)
        if 0 <= seconds < _DAY_S:
            return int((seconds / _NANOSECOND).to_integral_value())  # some files carry the dust of a float
    except (ArithmeticError, ValueError):
        pass
    raise FlowError(name, row, f"time {text[:40]!r} is not in seconds after midnight")


def _ints(name: str, row: int, fields: list[str]) -> list[int]:
    try:
        return list(map(int, fields))
    except ValueError:
        bad = next(field for field in fields if not _is_int(field))
        raise FlowError(name, row, f"{bad[:40]!r} is not a whole number") from None


def _is_int(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _lines(path: str | PathLike[str]) -> Iterator[tuple[int, str]]:
    """Numbered rows, without what ends them."""
    name = str(path)
    with _open(path) as file:
        i = 0
        while line := _readline(file, name, i + 1):
            i += 1
            if i > _ROWS_MAX:
                raise FlowError(name, i, f"more than {_ROWS_MAX:,} rows")
            if len(line) > _LINE_MAX:
                raise FlowError(name, i, f"longer than {_LINE_MAX} bytes")
            try:
                yield i, line.decode("ascii").rstrip("\r\n")
            except UnicodeDecodeError:
                raise FlowError(name, i, "is not text") from None


def _open(path: str | PathLike[str]) -> BinaryIO:
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return cast(BinaryIO, gzip.open(path, "rb")) if packed else Path(path).open("rb")
    except OSError as e:
        raise FlowError(str(path), 0, e.strerror or str(e)) from e


def _read(file: BinaryIO, name: str, size: int) -> bytes:
    try:
        return file.read(size)
    except (EOFError, OSError, zlib.error) as e:
        raise FlowError(name, 0, f"damaged: {e}") from e


def _readline(file: BinaryIO, name: str, row: int) -> bytes:
    try:
        return file.readline(_LINE_MAX + 1)
    except (EOFError, OSError, zlib.error) as e:
        raise FlowError(name, row, f"damaged: {e}") from e

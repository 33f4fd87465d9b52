"""Records out of a log's files page by page, where SQLite gives up: what one damaged page hides, the others still have.

SQLite reads a database along its tree, and its write-ahead log up to the first frame that is not as it was written.
Here every page and every frame is looked at by itself: a frame counts if its checksum continues the one stored before
it, and a record if its CRC agrees. The format is the one described at sqlite.org/fileformat2.html. No I/O: files come
as bytes (or mapped), and nothing in them is trusted.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from engine.log.rows import Row, crc_of

Bytes: TypeAlias = "bytes | memoryview"

WAL_HEADER: Final = 32
FRAME_HEADER: Final = 24
PAGE_BYTES: Final = 4096  # where nothing says otherwise
_LEAF: Final = 0x0D
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes of a serial type
_MASK: Final = 0xFFFF_FFFF


class WalFrame(NamedTuple):
    """A page as a transaction left it; `commit`: the last of its transaction."""

    page: int
    commit: bool
    sound: bool
    image: Bytes


def page_bytes(database: Bytes) -> int:
    """The size of its pages, as the header has it, if that can be."""
    size = int.from_bytes(database[16:18], "big") if database[:16] == b"SQLite format 3\0" else 0
    size = 65_536 if size == 1 else size
    return size if size >= 512 and size & (size - 1) == 0 else PAGE_BYTES


def frames(wal: Bytes, size: int = PAGE_BYTES) -> list[WalFrame]:
    """The frames of a write-ahead log's last generation, in order. Cost: 0.1 ms a frame."""
    step = FRAME_HEADER + size
    starts = range(WAL_HEADER, len(wal) - step + 1, step)
    heads = [struct.unpack_from(">IIIIII", wal, at) for at in starts]
    salts = struct.unpack_from(">II", wal, 16) if len(wal) >= WAL_HEADER else (0, 0)
    if heads and heads[0][2:4] != salts:  # the header, or the first frame, is damaged: what do the others say?
        salts = Counter(head[2:4] for head in heads).most_common(1)[0][0]
    order = ">" if wal[3:4] == b"\x83" else "<"
    stored = computed = struct.unpack_from(">II", wal, 24) if len(wal) >= WAL_HEADER else (0, 0)
    found: list[WalFrame] = []
    for at, head in zip(starts, heads, strict=True):
        page, commit, *_ = head
        if head[2:4] != salts and not any(later[2:4] == salts for later in heads[len(found) + 1 :][:64]):
            break  # of an earlier generation, or never written
        seeds = dict.fromkeys((stored, computed))
        stored = (head[4], head[5])
        results = [_checksum(wal, at, size, order, seed) for seed in seeds]
        computed = stored if stored in results else results[0]
        sound = head[2:4] == salts and stored in results and page > 0
        found.append(WalFrame(page, commit > 0, sound, wal[at + FRAME_HEADER : at + step]))
    return found


def _checksum(wal: Bytes, at: int, size: int, order: str, seed: tuple[int, int]) -> tuple[int, int]:
    one, two = seed
    for part in (wal[at : at + 8], wal[at + FRAME_HEADER : at + FRAME_HEADER + size]):
        for x, y in struct.iter_unpack(f"{order}II", part):
            one = (one + x + two) & _MASK
            two = (two + y + one) & _MASK
    return one, two


def lost_frame(found: list[WalFrame]) -> int | None:
    """The first frame that was durable and is damaged: a sound one of a later transaction stands behind it.

    None: there is none. What is not whole at the very end was never acknowledged: an append that was cut off.
    """
    for index, frame in enumerate(found):
        if not frame.sound:
            ends = next((i for i in range(index, len(found)) if found[i].commit), len(found))
            return index if any(later.sound for later in found[ends + 1 :]) else None
    return None


class Pages:
    """A database's pages as its file and the sound frames of its write-ahead log have them."""

    def __init__(self, database: Bytes, wal: Bytes) -> None:
        self.size = page_bytes(database)
        self.frames = frames(wal, self.size)
        self._database = database
        self._count = len(database) // self.size
        self._newest: dict[int, Bytes] = {frame.page: frame.image for frame in self.frames if frame.sound}

    def records(self) -> Iterator[Row]:
        """Every record that can be read, older images of a page before newer ones; some more than once."""
        for number in range(1, self._count + 1):
            yield from self._in(self._at(number), number)
        for frame in self.frames:
            if frame.sound:
                yield from self._in(frame.image, frame.page)

    def _at(self, number: int) -> Bytes:
        return self._database[(number - 1) * self.size : number * self.size]

    def _in(self, page: Bytes, number: int) -> Iterator[Row]:
        base = 100 if number == 1 else 0
        if page[base] != _LEAF:
            return
        for nth in range(min(int.from_bytes(page[base + 3 : base + 5], "big"), self.size // 4)):
            pointer = base + 8 + 2 * nth
            row = self._cell(page, int.from_bytes(page[pointer : pointer + 2], "big"))
            if row is not None:
                yield row

    def _cell(self, page: Bytes, at: int) -> Row | None:
        length, at = _varint(page, at)
        position, at = _varint(page, at)
        local = _local(length, self.size)
        head = page[at : at + local]
        if length > len(self._database) + len(self.frames) * self.size or len(head) < local or position == 0:
            return None
        if local == length:
            return _row(position, bytes(head))
        first = int.from_bytes(page[at + local : at + local + 4], "big")
        for images in (self._newest, {}):
            row = _row(position, bytes(head) + self._overflow(first, length - local, images))
            if row is not None:
                return row
        return None

    def _overflow(self, number: int, length: int, newest: Mapping[int, Bytes]) -> bytes:
        parts: list[bytes] = []
        while length > 0 and number:
            image = newest.get(number)
            if image is None:
                if number > self._count:
                    break
                image = self._at(number)
            number = int.from_bytes(image[:4], "big")
            parts.append(bytes(image[4 : 4 + min(length, self.size - 4)]))
            length -= len(parts[-1])
        return b"".join(parts)


def _local(length: int, usable: int) -> int:
    """How many bytes of a payload stand in the leaf itself."""
    most, least = usable - 35, (usable - 12) * 32 // 255 - 23
    if length <= most:
        return length
    fitting = least + (length - least) % (usable - 4)
    return fitting if fitting <= most else least


def _row(position: int, payload: bytes) -> Row | None:
    """The record of a payload, if it is one."""
    ends, at = _varint(payload, 0)
    types: list[int] = []
    while at < min(ends, len(payload)) and len(types) < 5:
        kind, at = _varint(payload, at)
        types.append(kind)
    if len(types) != 4 or types[0] != 0 or types[2] != 12 + 2 * 16 or types[3] < 12 or types[3] % 2:
        return None
    width = _INTEGERS.get(types[1], 0)
    crc = int.from_bytes(payload[ends : ends + width], "big", signed=True) if width else types[1] - 8
    link = payload[ends + width : ends + width + 16]
    body = payload[ends + width + 16 : ends + width + 16 + (types[3] - 12) // 2]
    row = Row(position, crc, link, body)
    return row if len(link) == 16 and len(body) * 2 + 12 == types[3] and crc == crc_of(position, body) else None


def _varint(page: Bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it; beyond the end, 0."""
    value = 0
    for nth in range(9):
        if at >= len(page):
            return 0, at
        byte = page[at]
        at += 1
        if nth == 8:
            return (value << 8) | byte, at
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at
    return value, at

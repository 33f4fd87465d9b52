"""The mark: the last acknowledged position of a log and its link, in a file of their own, never synced."""

import os
import struct
import zlib
from enum import Enum
from typing import Final, NamedTuple

_MARK: Final = struct.Struct("<IQ16sI")  # incarnation, position, link, CRC32 of those


class Mark(NamedTuple):
    position: int
    link: bytes


class NoMark(Enum):
    """Why there is none to believe."""

    MISSING = "is missing"
    TORN = "is damaged"
    FOREIGN = "is of another log"


def read_mark(fd: int, incarnation: int) -> Mark | NoMark:
    mark = os.pread(fd, _MARK.size + 1, 0)
    if not mark:
        return NoMark.MISSING
    if len(mark) != _MARK.size or _MARK.unpack(mark)[3] != zlib.crc32(mark[:-4]):
        return NoMark.TORN
    of, position, link, _ = _MARK.unpack(mark)
    return Mark(position, link) if of == incarnation else NoMark.FOREIGN


def write_mark(fd: int, incarnation: int, position: int, link: bytes) -> None:
    """Raises: OSError."""
    fields = _MARK.pack(incarnation, position, link, 0)[:-4]
    os.pwrite(fd, fields + zlib.crc32(fields).to_bytes(4, "little"), 0)

"""What a command log holds: records, each a body of msgpack, written and read without looking at a disk.

    record    [kind, ...]
    Epoch     [1, previous, owner]
    Commands  [2, epoch, time_ns, [part, ...]]

    part          [kind, ...]
    Entered       [1, account, session, stp, commands]
    Disconnected  [2, account, session]

A record is read by the meaning its kind had when it was written, so a kind never changes its meaning; a new one takes
the next number. A body of an unknown kind is an error and not skipped: an older engine must not run on half a log.
An epoch record counts only if its `previous` is the current epoch (the epoch becomes the record's position), commands
only if their epoch is the current one; `Commands` without parts only moves the time on.
"""

from typing import Annotated, Final, TypeAlias

import msgspec

OWNER_MAX: Final = 128  # characters

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]  # unsigned, 64 bits: msgpack has no larger ones
_Byte: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Owner: TypeAlias = Annotated[str, msgspec.Meta(max_length=OWNER_MAX)]


class RecordError(ValueError):
    """A body is not a record: damaged, or written by a newer engine."""


class Epoch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Someone took the log over from the epoch `previous` (0: the first); `owner` is for people to read."""

    previous: _Count
    owner: _Owner


class Entered(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1, gc=False):
    """A batch of one account's commands: a serialized CommandBatch, the bytes as they came in.

    `session` 0: none that could disconnect. `stp`: SelfTradePrevention.
    """

    account: _Count
    session: _Count
    stp: _Byte
    commands: bytes


class Disconnected(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2, gc=False):
    """A session ended that asked for its orders to be canceled then."""

    account: _Count
    session: _Count


Part: TypeAlias = Entered | Disconnected


class Commands(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """What one owner took in together, in this order, at one logged time (nanoseconds since the Unix epoch)."""

    epoch: _Count
    time_ns: _Count
    parts: list[Part]


Record: TypeAlias = Epoch | Commands

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The body of a record. Cost: O(bytes). Raises: nothing for numbers of 64 bits."""
    return _encoder.encode(record)


def decode(body: bytes) -> Record:
    """The record of a body. Cost: O(bytes). Raises: RecordError, and nothing else, whatever the bytes."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise RecordError(f"not a record of a log: {e}") from e

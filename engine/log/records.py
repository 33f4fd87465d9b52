"""What a command log holds: records, each a body of msgpack, written and read without looking at a disk.

    record    [kind, ...]
    Epoch     [1, previous, owner, time_ns, rules, identity, above]
    Group     [2, epoch, time_ns, [part, ...]]
    Skipped   [3, position, who, why, time_ns]

    part          [kind, ...]
    Entered       [1, account, session, stp, commands]
    Disconnected  [2, account, session]
    3 and above   what an operator said, or what was edited in the venue's file: alone in its record
                  (engine/core/commands.py; their fields in the order in which they stand there)

    identity      [venue, name, engine, retained, instruments, accounts]

A record is read by the meaning its kind had when it was written, so a kind never changes its meaning; a new one takes
the next number. A body of an unknown kind is an error and not skipped: an older engine must not run on half a log.
An epoch record counts only if its `previous` is the current epoch (the epoch becomes the record's position, or what
`epoch_at` says), commands only if their epoch is the current one; a `Group` without parts only moves the time on, so
that what is due happens.

The first epoch record has the log's identity: whose log it is, and all that the core begins with. A later one has it
only where it changed: whenever the file was edited. What follows from an edit stands behind it, as commands. So a
replay needs no file; a log that was begun before there were identities takes up the first that it comes to have.

What cannot be read back is not written: `encode` and `encode_part` check what `decode` does.
"""

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from engine.core.commands import Byte, Count, OperatorCommand
from proto.cluster import Account, Cluster, EngineEntry
from proto.instrument import Instrument

OWNER_MAX: Final = 512  # characters
WHY_MAX: Final = 1_024  # characters

_Owner: TypeAlias = Annotated[str, msgspec.Meta(max_length=OWNER_MAX)]


class RecordError(ValueError):
    """A body is not a record: damaged, or written by a newer engine; or a record would not be read as it is."""


class _Array(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Identity(_Array, frozen=True):
    """Whose log it is, and what cluster.toml said when it was last heeded: what the engine begins with, if it begins.

    retained   commands an account can repeat and be recognised, at least
    """

    venue: str
    name: str
    engine: EngineEntry
    retained: Count
    instruments: tuple[Instrument, ...]
    accounts: tuple[Account, ...]


class Epoch(_Array, frozen=True, tag=1):
    """Someone took the log over from the epoch `previous` (0: the first); `owner` is for people to read.

    `time_ns` is that of its first event on the feed; older records do not have it (0). `rules` is the version of the
    rules that its commands are acknowledged under (engine/core/rules.py). `above` is not 0 where an owner answers for
    records that the venue has seen and the log has not: the highest epoch seen.
    """

    previous: Count
    owner: _Owner
    time_ns: Count = 0
    rules: Count = 1
    identity: Identity | None = None
    above: Count = 0


def epoch_at(position: int, record: Epoch) -> int:
    """The epoch that a record at that position opens: higher than any before it, and than any that was seen."""
    return max(position, record.previous + 1, record.above + 1)


class Entered(_Array, frozen=True, tag=1, gc=False):
    """A batch of one account's commands: a serialized CommandBatch, the bytes as they came in.

    `session` 0: none that could disconnect. `stp`: SelfTradePrevention.
    """

    account: Count
    session: Count
    stp: Byte
    commands: bytes


class Disconnected(_Array, frozen=True, tag=2, gc=False):
    """A session ended that asked for its orders to be canceled then."""

    account: Count
    session: Count


Part: TypeAlias = Entered | Disconnected | OperatorCommand


class Group(_Array, frozen=True, tag=2):
    """What one owner took in together, in this order, at one logged time (nanoseconds since the Unix epoch)."""

    epoch: Count
    time_ns: Count
    parts: list[Part]


class Skipped(_Array, frozen=True, tag=3):
    """The record at `position` cannot be applied, and somebody answers for going on without it: it is as if void."""

    position: Count
    who: _Owner
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=WHY_MAX)]
    time_ns: Count


class _Encoded(_Array, frozen=True, tag=2):
    """A group whose parts have been encoded."""

    epoch: Count
    time_ns: Count
    parts: list[msgspec.Raw]


Record: TypeAlias = Epoch | Group | Skipped

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)
_part_decoder: Final[msgspec.msgpack.Decoder[Part]] = msgspec.msgpack.Decoder(Part)


def encode(record: Record) -> bytes:
    """The body of a record. Cost: O(bytes), twice. Raises: RecordError if it would not be read as this record."""
    return _checked(record, _decoder)


def encode_part(part: Part) -> bytes:
    """A part of a record, for `encode_commands`. Cost: 1 µs, and O(bytes). Raises: RecordError, as `encode`."""
    return _checked(part, _part_decoder)


def encode_commands(epoch: int, time_ns: int, parts: list[bytes]) -> bytes:
    """The body of a Group whose parts have passed `encode_part`. Cost: O(bytes)."""
    return _encoder.encode(_Encoded(epoch, time_ns, [msgspec.Raw(part) for part in parts]))


def decode(body: bytes) -> Record:
    """The record of a body. Cost: O(bytes). Raises: RecordError, and nothing else, whatever the bytes."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise RecordError(f"not a record of a log: {e}") from e


def is_rare(body: bytes) -> bool:
    """Whether it can be anything but commands. Cost: 50 ns."""
    return body[1:2] != b"\x02"


def identity_of(cluster: Cluster, engine: int, name: str, retained: int) -> Identity:
    """What the file says of an engine. Raises: KeyError if there is none of that id."""
    return Identity(
        cluster.name, name, cluster.engine(engine), retained, cluster.instruments_of(engine), cluster.accounts
    )


def _checked(value: Any, decoder: msgspec.msgpack.Decoder[Any]) -> bytes:
    try:
        body = _encoder.encode(value)
        if decoder.decode(body) == value:
            return body
    except (msgspec.MsgspecError, OverflowError, UnicodeError, TypeError) as e:
        raise RecordError(f"cannot be logged: {e}") from e
    raise RecordError("cannot be logged: it would be read as something else")

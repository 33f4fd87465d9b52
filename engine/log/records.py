"""What a command log holds: records, each a body of msgpack, written and read without looking at a disk.

    record    [kind, ...]
    Epoch     [1, previous, owner, time_ns]
    Commands  [2, epoch, time_ns, [part, ...]]

    part          [kind, ...]
    Entered       [1, account, session, stp, commands]
    Disconnected  [2, account, session]
    SetState      [3, instrument, state]                      what an operator said, from here on
                                                              (engine/core/commands.py):
    Kill          [4, account, instrument, on]                alone in its record
    AddInstrument [5, id, symbol, engine, channel, tick size, lot size, price_min, price_max, quantity_max,
                      notional_max, collar, band, allocation, auction_reference, state]
    Delist        [6, instrument]
    BustTrade     [7, instrument, trade_id]
    CorrectTrade  [8, instrument, trade_id, price, quantity]
    Roll          [9, instrument]

A record is read by the meaning its kind had when it was written, so a kind never changes its meaning; a new one takes
the next number. A body of an unknown kind is an error and not skipped: an older engine must not run on half a log.
An epoch record counts only if its `previous` is the current epoch (the epoch becomes the record's position), commands
only if their epoch is the current one; `Commands` without parts only moves the time on, so that what is due happens.
"""

from decimal import Decimal
from typing import Annotated, Final, TypeAlias

import msgspec

from engine.core import commands
from proto.cluster import Instrument

OWNER_MAX: Final = 128  # characters

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]  # unsigned, 64 bits: msgpack has no larger ones
_Byte: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Size: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}(\.[0-9]{1,18})?$")]
_Owner: TypeAlias = Annotated[str, msgspec.Meta(max_length=OWNER_MAX)]


class RecordError(ValueError):
    """A body is not a record: damaged, or written by a newer engine."""


class Epoch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Someone took the log over from the epoch `previous` (0: the first); `owner` is for people to read.

    `time_ns` is that of its first event on the feed; older records do not have it (0).
    """

    previous: _Count
    owner: _Owner
    time_ns: _Count = 0


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


class SetState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3, gc=False):
    instrument: _Count
    state: _Byte


class Kill(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4, gc=False):
    account: _Count
    instrument: _Count
    on: bool


class AddInstrument(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5, gc=False):
    id: _Count
    symbol: str
    engine: _Count
    channel: _Count
    tick_size: _Size
    lot_size: _Size
    price_min: int
    price_max: int
    quantity_max: _Count
    notional_max: _Count
    collar: _Count
    band: _Count
    allocation: str
    auction_reference: int
    state: str


class Delist(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6, gc=False):
    instrument: _Count


class BustTrade(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7, gc=False):
    instrument: _Count
    trade_id: _Count


class CorrectTrade(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8, gc=False):
    instrument: _Count
    trade_id: _Count
    price: int
    quantity: _Count


class Roll(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9, gc=False):
    instrument: _Count


Operated: TypeAlias = SetState | Kill | AddInstrument | Delist | BustTrade | CorrectTrade | Roll
Part: TypeAlias = Entered | Disconnected | Operated


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


def part_of(command: commands.OperatorCommand) -> Operated:
    """What is logged of an operator's command."""
    if isinstance(command, commands.SetState):
        return SetState(command.instrument, command.state)
    if isinstance(command, commands.Kill):
        return Kill(command.account, command.instrument, command.on)
    if isinstance(command, commands.AddInstrument):
        i = command.definition
        return AddInstrument(
            i.id, i.symbol, i.engine, i.channel, f"{i.tick_size:f}", f"{i.lot_size:f}", i.price_min, i.price_max,
            i.quantity_max, i.notional_max, i.collar, i.band, i.allocation, i.auction_reference, i.state,
        )  # fmt: skip
    if isinstance(command, commands.Delist):
        return Delist(command.instrument)
    if isinstance(command, commands.BustTrade):
        return BustTrade(command.instrument, command.trade_id)
    if isinstance(command, commands.CorrectTrade):
        return CorrectTrade(command.instrument, command.trade_id, command.price, command.quantity)
    return Roll(command.instrument)


def command_of(part: Operated) -> commands.OperatorCommand:
    """What the operator said."""
    if isinstance(part, SetState):
        return commands.SetState(part.instrument, part.state)
    if isinstance(part, Kill):
        return commands.Kill(part.account, part.instrument, part.on)
    if isinstance(part, AddInstrument):
        return commands.AddInstrument(Instrument(
            part.id, part.symbol, part.engine, part.channel, Decimal(part.tick_size), Decimal(part.lot_size),
            part.price_min, part.price_max, part.quantity_max, part.notional_max, part.collar, part.band,
            part.allocation, part.auction_reference, part.state,
        ))  # fmt: skip
    if isinstance(part, Delist):
        return commands.Delist(part.instrument)
    if isinstance(part, BustTrade):
        return commands.BustTrade(part.instrument, part.trade_id)
    if isinstance(part, CorrectTrade):
        return commands.CorrectTrade(part.instrument, part.trade_id, part.price, part.quantity)
    return commands.Roll(part.instrument)

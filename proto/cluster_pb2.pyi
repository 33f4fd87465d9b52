from proto import marketdata_pb2 as _marketdata_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DirectoryEntry(_message.Message):
    __slots__ = ("name", "engine", "fabric", "incarnation", "epoch", "version", "grpc", "feed", "instruments", "channels", "left", "start", "follows")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    FABRIC_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GRPC_FIELD_NUMBER: _ClassVar[int]
    FEED_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    engine: int
    fabric: bool
    incarnation: int
    epoch: int
    version: int
    grpc: str
    feed: str
    instruments: _containers.RepeatedCompositeFieldContainer[_marketdata_pb2.Instrument]
    channels: int
    left: bool
    start: int
    follows: int
    def __init__(self, name: _Optional[str] = ..., engine: _Optional[int] = ..., fabric: _Optional[bool] = ..., incarnation: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., grpc: _Optional[str] = ..., feed: _Optional[str] = ..., instruments: _Optional[_Iterable[_Union[_marketdata_pb2.Instrument, _Mapping]]] = ..., channels: _Optional[int] = ..., left: _Optional[bool] = ..., start: _Optional[int] = ..., follows: _Optional[int] = ...) -> None: ...

class Reached(_message.Message):
    __slots__ = ("name", "start", "position")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    name: str
    start: int
    position: int
    def __init__(self, name: _Optional[str] = ..., start: _Optional[int] = ..., position: _Optional[int] = ...) -> None: ...

class DirectoryEntries(_message.Message):
    __slots__ = ("entries", "reached", "now_ns")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[DirectoryEntry]
    reached: _containers.RepeatedCompositeFieldContainer[Reached]
    now_ns: int
    def __init__(self, entries: _Optional[_Iterable[_Union[DirectoryEntry, _Mapping]]] = ..., reached: _Optional[_Iterable[_Union[Reached, _Mapping]]] = ..., now_ns: _Optional[int] = ..., **kwargs) -> None: ...

from proto import marketdata_pb2 as _marketdata_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DirectoryEntry(_message.Message):
    __slots__ = ("name", "engine", "fabric", "incarnation", "epoch", "version", "grpc", "feed", "instruments", "channels", "left")
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
    def __init__(self, name: _Optional[str] = ..., engine: _Optional[int] = ..., fabric: _Optional[bool] = ..., incarnation: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., grpc: _Optional[str] = ..., feed: _Optional[str] = ..., instruments: _Optional[_Iterable[_Union[_marketdata_pb2.Instrument, _Mapping]]] = ..., channels: _Optional[int] = ..., left: _Optional[bool] = ...) -> None: ...

class DirectoryEntries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[DirectoryEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[DirectoryEntry, _Mapping]]] = ..., **kwargs) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RangeStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANGE_OK: _ClassVar[RangeStatus]
    RANGE_OUT_OF_RANGE: _ClassVar[RangeStatus]
    RANGE_WRONG_EPOCH: _ClassVar[RangeStatus]
    RANGE_UNKNOWN_STREAM: _ClassVar[RangeStatus]

class HistoryStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HISTORY_OK: _ClassVar[HistoryStatus]
    HISTORY_CUT: _ClassVar[HistoryStatus]
    HISTORY_OUT_OF_RANGE: _ClassVar[HistoryStatus]
    HISTORY_UNKNOWN_EPOCH: _ClassVar[HistoryStatus]
    HISTORY_UNKNOWN_STREAM: _ClassVar[HistoryStatus]
    HISTORY_UNREADABLE: _ClassVar[HistoryStatus]

class BookState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOOK_UNKNOWN: _ClassVar[BookState]
    BOOK_VALID: _ClassVar[BookState]
    BOOK_DOUBTFUL: _ClassVar[BookState]
    BOOK_STALE: _ClassVar[BookState]
RANGE_OK: RangeStatus
RANGE_OUT_OF_RANGE: RangeStatus
RANGE_WRONG_EPOCH: RangeStatus
RANGE_UNKNOWN_STREAM: RangeStatus
HISTORY_OK: HistoryStatus
HISTORY_CUT: HistoryStatus
HISTORY_OUT_OF_RANGE: HistoryStatus
HISTORY_UNKNOWN_EPOCH: HistoryStatus
HISTORY_UNKNOWN_STREAM: HistoryStatus
HISTORY_UNREADABLE: HistoryStatus
BOOK_UNKNOWN: BookState
BOOK_VALID: BookState
BOOK_DOUBTFUL: BookState
BOOK_STALE: BookState

class SnapshotRequest(_message.Message):
    __slots__ = ("engine", "channel", "instruments")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    engine: int
    channel: int
    instruments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, engine: _Optional[int] = ..., channel: _Optional[int] = ..., instruments: _Optional[_Iterable[int]] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("engine", "channel", "incarnation", "epoch", "last_seq", "index", "count", "crc32", "body")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    engine: int
    channel: int
    incarnation: int
    epoch: int
    last_seq: int
    index: int
    count: int
    crc32: int
    body: bytes
    def __init__(self, engine: _Optional[int] = ..., channel: _Optional[int] = ..., incarnation: _Optional[int] = ..., epoch: _Optional[int] = ..., last_seq: _Optional[int] = ..., index: _Optional[int] = ..., count: _Optional[int] = ..., crc32: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class RangeRequest(_message.Message):
    __slots__ = ("engine", "channel", "epoch", "first_seq", "last_seq")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    engine: int
    channel: int
    epoch: int
    first_seq: int
    last_seq: int
    def __init__(self, engine: _Optional[int] = ..., channel: _Optional[int] = ..., epoch: _Optional[int] = ..., first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ...) -> None: ...

class RangeReply(_message.Message):
    __slots__ = ("status", "epoch", "held_first", "held_last", "frames")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HELD_FIRST_FIELD_NUMBER: _ClassVar[int]
    HELD_LAST_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    status: RangeStatus
    epoch: int
    held_first: int
    held_last: int
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, status: _Optional[_Union[RangeStatus, str]] = ..., epoch: _Optional[int] = ..., held_first: _Optional[int] = ..., held_last: _Optional[int] = ..., frames: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("engine", "channel", "epoch", "first_seq", "last_seq", "from_ns", "to_ns", "instrument")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    FROM_NS_FIELD_NUMBER: _ClassVar[int]
    TO_NS_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    engine: int
    channel: int
    epoch: int
    first_seq: int
    last_seq: int
    from_ns: int
    to_ns: int
    instrument: int
    def __init__(self, engine: _Optional[int] = ..., channel: _Optional[int] = ..., epoch: _Optional[int] = ..., first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ..., from_ns: _Optional[int] = ..., to_ns: _Optional[int] = ..., instrument: _Optional[int] = ...) -> None: ...

class HistoryEnd(_message.Message):
    __slots__ = ("status", "reason", "epoch", "next_seq")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    status: HistoryStatus
    reason: str
    epoch: int
    next_seq: int
    def __init__(self, status: _Optional[_Union[HistoryStatus, str]] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ..., next_seq: _Optional[int] = ...) -> None: ...

class HistoryReply(_message.Message):
    __slots__ = ("frames", "end")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    end: HistoryEnd
    def __init__(self, frames: _Optional[_Iterable[bytes]] = ..., end: _Optional[_Union[HistoryEnd, _Mapping]] = ...) -> None: ...

class BookRequest(_message.Message):
    __slots__ = ("symbol", "depth", "by_order")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    BY_ORDER_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    depth: int
    by_order: bool
    def __init__(self, symbol: _Optional[str] = ..., depth: _Optional[int] = ..., by_order: _Optional[bool] = ...) -> None: ...

class BookOrder(_message.Message):
    __slots__ = ("order_id", "quantity")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    quantity: int
    def __init__(self, order_id: _Optional[int] = ..., quantity: _Optional[int] = ...) -> None: ...

class BookLevel(_message.Message):
    __slots__ = ("price", "quantity", "count", "orders")
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    price: int
    quantity: int
    count: int
    orders: _containers.RepeatedCompositeFieldContainer[BookOrder]
    def __init__(self, price: _Optional[int] = ..., quantity: _Optional[int] = ..., count: _Optional[int] = ..., orders: _Optional[_Iterable[_Union[BookOrder, _Mapping]]] = ...) -> None: ...

class Book(_message.Message):
    __slots__ = ("symbol", "instrument", "engine", "channel", "epoch", "sequence", "instrument_sequence", "state", "age_ns", "trading_state", "bids", "asks", "last_price", "last_quantity", "last_trade_id", "tick_size", "lot_size", "statistics", "indication", "trading_state_reason")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_NS_FIELD_NUMBER: _ClassVar[int]
    TRADING_STATE_FIELD_NUMBER: _ClassVar[int]
    BIDS_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    LAST_PRICE_FIELD_NUMBER: _ClassVar[int]
    LAST_QUANTITY_FIELD_NUMBER: _ClassVar[int]
    LAST_TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    TICK_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOT_SIZE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    INDICATION_FIELD_NUMBER: _ClassVar[int]
    TRADING_STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    instrument: int
    engine: int
    channel: int
    epoch: int
    sequence: int
    instrument_sequence: int
    state: BookState
    age_ns: int
    trading_state: str
    bids: _containers.RepeatedCompositeFieldContainer[BookLevel]
    asks: _containers.RepeatedCompositeFieldContainer[BookLevel]
    last_price: int
    last_quantity: int
    last_trade_id: int
    tick_size: str
    lot_size: str
    statistics: Statistics
    indication: Indication
    trading_state_reason: int
    def __init__(self, symbol: _Optional[str] = ..., instrument: _Optional[int] = ..., engine: _Optional[int] = ..., channel: _Optional[int] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., instrument_sequence: _Optional[int] = ..., state: _Optional[_Union[BookState, str]] = ..., age_ns: _Optional[int] = ..., trading_state: _Optional[str] = ..., bids: _Optional[_Iterable[_Union[BookLevel, _Mapping]]] = ..., asks: _Optional[_Iterable[_Union[BookLevel, _Mapping]]] = ..., last_price: _Optional[int] = ..., last_quantity: _Optional[int] = ..., last_trade_id: _Optional[int] = ..., tick_size: _Optional[str] = ..., lot_size: _Optional[str] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., indication: _Optional[_Union[Indication, _Mapping]] = ..., trading_state_reason: _Optional[int] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("open", "high", "low", "last", "volume", "turnover", "trades", "vwap")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    TURNOVER_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    VWAP_FIELD_NUMBER: _ClassVar[int]
    open: int
    high: int
    low: int
    last: int
    volume: int
    turnover: int
    trades: int
    vwap: str
    def __init__(self, open: _Optional[int] = ..., high: _Optional[int] = ..., low: _Optional[int] = ..., last: _Optional[int] = ..., volume: _Optional[int] = ..., turnover: _Optional[int] = ..., trades: _Optional[int] = ..., vwap: _Optional[str] = ...) -> None: ...

class Indication(_message.Message):
    __slots__ = ("price", "volume", "imbalance")
    PRICE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    price: int
    volume: int
    imbalance: int
    def __init__(self, price: _Optional[int] = ..., volume: _Optional[int] = ..., imbalance: _Optional[int] = ...) -> None: ...

class InstrumentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Instrument(_message.Message):
    __slots__ = ("id", "symbol", "engine", "channel", "tick_size", "lot_size", "price_min", "price_max", "quantity_max", "notional_max", "collar", "band", "allocation", "auction_reference", "first_state", "trading_state", "statistics")
    ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    TICK_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOT_SIZE_FIELD_NUMBER: _ClassVar[int]
    PRICE_MIN_FIELD_NUMBER: _ClassVar[int]
    PRICE_MAX_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_MAX_FIELD_NUMBER: _ClassVar[int]
    NOTIONAL_MAX_FIELD_NUMBER: _ClassVar[int]
    COLLAR_FIELD_NUMBER: _ClassVar[int]
    BAND_FIELD_NUMBER: _ClassVar[int]
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    AUCTION_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_STATE_FIELD_NUMBER: _ClassVar[int]
    TRADING_STATE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    id: int
    symbol: str
    engine: int
    channel: int
    tick_size: str
    lot_size: str
    price_min: int
    price_max: int
    quantity_max: int
    notional_max: int
    collar: int
    band: int
    allocation: str
    auction_reference: int
    first_state: str
    trading_state: str
    statistics: Statistics
    def __init__(self, id: _Optional[int] = ..., symbol: _Optional[str] = ..., engine: _Optional[int] = ..., channel: _Optional[int] = ..., tick_size: _Optional[str] = ..., lot_size: _Optional[str] = ..., price_min: _Optional[int] = ..., price_max: _Optional[int] = ..., quantity_max: _Optional[int] = ..., notional_max: _Optional[int] = ..., collar: _Optional[int] = ..., band: _Optional[int] = ..., allocation: _Optional[str] = ..., auction_reference: _Optional[int] = ..., first_state: _Optional[str] = ..., trading_state: _Optional[str] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ...) -> None: ...

class InstrumentsReply(_message.Message):
    __slots__ = ("instruments",)
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    instruments: _containers.RepeatedCompositeFieldContainer[Instrument]
    def __init__(self, instruments: _Optional[_Iterable[_Union[Instrument, _Mapping]]] = ...) -> None: ...

class StreamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Gap(_message.Message):
    __slots__ = ("epoch", "first", "last", "cause", "how", "took_ns", "late", "ranged", "snapshotted", "abandoned", "missing", "source")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    TOOK_NS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    RANGED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTTED_FIELD_NUMBER: _ClassVar[int]
    ABANDONED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    first: int
    last: int
    cause: str
    how: str
    took_ns: int
    late: int
    ranged: int
    snapshotted: int
    abandoned: int
    missing: int
    source: str
    def __init__(self, epoch: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., cause: _Optional[str] = ..., how: _Optional[str] = ..., took_ns: _Optional[int] = ..., late: _Optional[int] = ..., ranged: _Optional[int] = ..., snapshotted: _Optional[int] = ..., abandoned: _Optional[int] = ..., missing: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("engine", "channel", "epoch", "state", "next_seq", "counters", "gaps")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    engine: int
    channel: int
    epoch: int
    state: str
    next_seq: int
    counters: _containers.ScalarMap[str, int]
    gaps: _containers.RepeatedCompositeFieldContainer[Gap]
    def __init__(self, engine: _Optional[int] = ..., channel: _Optional[int] = ..., epoch: _Optional[int] = ..., state: _Optional[str] = ..., next_seq: _Optional[int] = ..., counters: _Optional[_Mapping[str, int]] = ..., gaps: _Optional[_Iterable[_Union[Gap, _Mapping]]] = ...) -> None: ...

class StreamsReply(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    def __init__(self, streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ...) -> None: ...

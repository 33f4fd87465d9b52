from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Op(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OP_UNSPECIFIED: _ClassVar[Op]
    OP_NEW: _ClassVar[Op]
    OP_CANCEL: _ClassVar[Op]
    OP_REPLACE: _ClassVar[Op]
    OP_MASS_CANCEL: _ClassVar[Op]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_BUY: _ClassVar[Side]
    SIDE_SELL: _ClassVar[Side]

class OrderType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_TYPE_LIMIT: _ClassVar[OrderType]
    ORDER_TYPE_MARKET: _ClassVar[OrderType]
    ORDER_TYPE_STOP: _ClassVar[OrderType]
    ORDER_TYPE_STOP_LIMIT: _ClassVar[OrderType]
    ORDER_TYPE_ICEBERG: _ClassVar[OrderType]
    ORDER_TYPE_PEG_BID: _ClassVar[OrderType]
    ORDER_TYPE_PEG_OFFER: _ClassVar[OrderType]
    ORDER_TYPE_PEG_MID: _ClassVar[OrderType]

class TimeInForce(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIME_IN_FORCE_GTC: _ClassVar[TimeInForce]
    TIME_IN_FORCE_DAY: _ClassVar[TimeInForce]
    TIME_IN_FORCE_GTD: _ClassVar[TimeInForce]
    TIME_IN_FORCE_IOC: _ClassVar[TimeInForce]
    TIME_IN_FORCE_FOK: _ClassVar[TimeInForce]

class QuantityMeaning(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUANTITY_TOTAL: _ClassVar[QuantityMeaning]
    QUANTITY_OPEN: _ClassVar[QuantityMeaning]
    QUANTITY_REDUCE_BY: _ClassVar[QuantityMeaning]

class SelfTradePrevention(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STP_CANCEL_NEWEST: _ClassVar[SelfTradePrevention]
    STP_NONE: _ClassVar[SelfTradePrevention]
    STP_CANCEL_OLDEST: _ClassVar[SelfTradePrevention]
    STP_CANCEL_BOTH: _ClassVar[SelfTradePrevention]
    STP_DECREMENT: _ClassVar[SelfTradePrevention]

class ReportKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_UNSPECIFIED: _ClassVar[ReportKind]
    REPORT_ACCEPTED: _ClassVar[ReportKind]
    REPORT_TRADED: _ClassVar[ReportKind]
    REPORT_CANCELED: _ClassVar[ReportKind]
    REPORT_REPLACED: _ClassVar[ReportKind]
    REPORT_REFUSED: _ClassVar[ReportKind]
    REPORT_MASS_CANCELED: _ClassVar[ReportKind]
    REPORT_TRIGGERED: _ClassVar[ReportKind]
    REPORT_RESTATED: _ClassVar[ReportKind]
    REPORT_BUSTED: _ClassVar[ReportKind]
    REPORT_CORRECTED: _ClassVar[ReportKind]
    REPORT_UNKNOWN: _ClassVar[ReportKind]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_NONE: _ClassVar[Reason]
    REASON_MALFORMED: _ClassVar[Reason]
    REASON_BAD_QUANTITY: _ClassVar[Reason]
    REASON_BAD_PRICE: _ClassVar[Reason]
    REASON_NOTIONAL_TOO_LARGE: _ClassVar[Reason]
    REASON_THROTTLED: _ClassVar[Reason]
    REASON_BATCH_TOO_LARGE: _ClassVar[Reason]
    REASON_BAD_CLIENT_ORDER_ID: _ClassVar[Reason]
    REASON_UNKNOWN_ACCOUNT: _ClassVar[Reason]
    REASON_UNKNOWN_INSTRUMENT: _ClassVar[Reason]
    REASON_PRICE_OUT_OF_LIMITS: _ClassVar[Reason]
    REASON_DUPLICATE_ID: _ClassVar[Reason]
    REASON_UNKNOWN_ORDER: _ClassVar[Reason]
    REASON_TOO_LATE: _ClassVar[Reason]
    REASON_NO_LIQUIDITY: _ClassVar[Reason]
    REASON_WOULD_TRADE: _ClassVar[Reason]
    REASON_NOT_FILLABLE: _ClassVar[Reason]
    REASON_BELOW_FILLED: _ClassVar[Reason]
    REASON_NOTHING_TO_CHANGE: _ClassVar[Reason]
    REASON_WRONG_INSTRUMENT: _ClassVar[Reason]
    REASON_WRONG_STATE: _ClassVar[Reason]
    REASON_KILLED: _ClassVar[Reason]
    REASON_QUANTITY_ABOVE_MAX: _ClassVar[Reason]
    REASON_NOTIONAL_ABOVE_MAX: _ClassVar[Reason]
    REASON_BAD_EXPIRY: _ClassVar[Reason]
    REASON_BAD_OFFSET: _ClassVar[Reason]
    REASON_BAD_LINK: _ClassVar[Reason]
    REASON_UNKNOWN_TRADE: _ClassVar[Reason]
    REASON_DISPLAY_TOO_SMALL: _ClassVar[Reason]
    REASON_TOO_MANY_WAITING: _ClassVar[Reason]
    REASON_IOC_REMAINDER: _ClassVar[Reason]
    REASON_MARKET_REMAINDER: _ClassVar[Reason]
    REASON_SELF_TRADE: _ClassVar[Reason]
    REASON_MASS_CANCEL: _ClassVar[Reason]
    REASON_DISCONNECTED: _ClassVar[Reason]
    REASON_EXPIRED: _ClassVar[Reason]
    REASON_COLLAR: _ClassVar[Reason]
    REASON_OCO: _ClassVar[Reason]
    REASON_HALTED: _ClassVar[Reason]
    REASON_DELISTED: _ClassVar[Reason]
    REASON_BAND: _ClassVar[Reason]
    REASON_TOO_MANY_TRADES: _ClassVar[Reason]
    REASON_UNAVAILABLE: _ClassVar[Reason]
    REASON_OUTCOME_UNKNOWN: _ClassVar[Reason]
    REASON_LOG_FAILED: _ClassVar[Reason]

class Liquidity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIQUIDITY_NONE: _ClassVar[Liquidity]
    LIQUIDITY_MAKER: _ClassVar[Liquidity]
    LIQUIDITY_TAKER: _ClassVar[Liquidity]
    LIQUIDITY_AUCTION: _ClassVar[Liquidity]

class TradingState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRADING_STATE_UNKNOWN: _ClassVar[TradingState]
    TRADING_STATE_PRE_OPEN: _ClassVar[TradingState]
    TRADING_STATE_OPEN: _ClassVar[TradingState]
    TRADING_STATE_HALTED: _ClassVar[TradingState]
    TRADING_STATE_AUCTION: _ClassVar[TradingState]
    TRADING_STATE_CLOSED: _ClassVar[TradingState]
OP_UNSPECIFIED: Op
OP_NEW: Op
OP_CANCEL: Op
OP_REPLACE: Op
OP_MASS_CANCEL: Op
SIDE_BUY: Side
SIDE_SELL: Side
ORDER_TYPE_LIMIT: OrderType
ORDER_TYPE_MARKET: OrderType
ORDER_TYPE_STOP: OrderType
ORDER_TYPE_STOP_LIMIT: OrderType
ORDER_TYPE_ICEBERG: OrderType
ORDER_TYPE_PEG_BID: OrderType
ORDER_TYPE_PEG_OFFER: OrderType
ORDER_TYPE_PEG_MID: OrderType
TIME_IN_FORCE_GTC: TimeInForce
TIME_IN_FORCE_DAY: TimeInForce
TIME_IN_FORCE_GTD: TimeInForce
TIME_IN_FORCE_IOC: TimeInForce
TIME_IN_FORCE_FOK: TimeInForce
QUANTITY_TOTAL: QuantityMeaning
QUANTITY_OPEN: QuantityMeaning
QUANTITY_REDUCE_BY: QuantityMeaning
STP_CANCEL_NEWEST: SelfTradePrevention
STP_NONE: SelfTradePrevention
STP_CANCEL_OLDEST: SelfTradePrevention
STP_CANCEL_BOTH: SelfTradePrevention
STP_DECREMENT: SelfTradePrevention
REPORT_UNSPECIFIED: ReportKind
REPORT_ACCEPTED: ReportKind
REPORT_TRADED: ReportKind
REPORT_CANCELED: ReportKind
REPORT_REPLACED: ReportKind
REPORT_REFUSED: ReportKind
REPORT_MASS_CANCELED: ReportKind
REPORT_TRIGGERED: ReportKind
REPORT_RESTATED: ReportKind
REPORT_BUSTED: ReportKind
REPORT_CORRECTED: ReportKind
REPORT_UNKNOWN: ReportKind
REASON_NONE: Reason
REASON_MALFORMED: Reason
REASON_BAD_QUANTITY: Reason
REASON_BAD_PRICE: Reason
REASON_NOTIONAL_TOO_LARGE: Reason
REASON_THROTTLED: Reason
REASON_BATCH_TOO_LARGE: Reason
REASON_BAD_CLIENT_ORDER_ID: Reason
REASON_UNKNOWN_ACCOUNT: Reason
REASON_UNKNOWN_INSTRUMENT: Reason
REASON_PRICE_OUT_OF_LIMITS: Reason
REASON_DUPLICATE_ID: Reason
REASON_UNKNOWN_ORDER: Reason
REASON_TOO_LATE: Reason
REASON_NO_LIQUIDITY: Reason
REASON_WOULD_TRADE: Reason
REASON_NOT_FILLABLE: Reason
REASON_BELOW_FILLED: Reason
REASON_NOTHING_TO_CHANGE: Reason
REASON_WRONG_INSTRUMENT: Reason
REASON_WRONG_STATE: Reason
REASON_KILLED: Reason
REASON_QUANTITY_ABOVE_MAX: Reason
REASON_NOTIONAL_ABOVE_MAX: Reason
REASON_BAD_EXPIRY: Reason
REASON_BAD_OFFSET: Reason
REASON_BAD_LINK: Reason
REASON_UNKNOWN_TRADE: Reason
REASON_DISPLAY_TOO_SMALL: Reason
REASON_TOO_MANY_WAITING: Reason
REASON_IOC_REMAINDER: Reason
REASON_MARKET_REMAINDER: Reason
REASON_SELF_TRADE: Reason
REASON_MASS_CANCEL: Reason
REASON_DISCONNECTED: Reason
REASON_EXPIRED: Reason
REASON_COLLAR: Reason
REASON_OCO: Reason
REASON_HALTED: Reason
REASON_DELISTED: Reason
REASON_BAND: Reason
REASON_TOO_MANY_TRADES: Reason
REASON_UNAVAILABLE: Reason
REASON_OUTCOME_UNKNOWN: Reason
REASON_LOG_FAILED: Reason
LIQUIDITY_NONE: Liquidity
LIQUIDITY_MAKER: Liquidity
LIQUIDITY_TAKER: Liquidity
LIQUIDITY_AUCTION: Liquidity
TRADING_STATE_UNKNOWN: TradingState
TRADING_STATE_PRE_OPEN: TradingState
TRADING_STATE_OPEN: TradingState
TRADING_STATE_HALTED: TradingState
TRADING_STATE_AUCTION: TradingState
TRADING_STATE_CLOSED: TradingState

class CommandBatch(_message.Message):
    __slots__ = ("op", "client_order_id", "instrument", "flags", "price", "quantity", "target", "stop_price", "display", "minimum", "expires_ns", "offset", "oco")
    OP_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STOP_PRICE_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OCO_FIELD_NUMBER: _ClassVar[int]
    op: _containers.RepeatedScalarFieldContainer[int]
    client_order_id: _containers.RepeatedScalarFieldContainer[int]
    instrument: _containers.RepeatedScalarFieldContainer[int]
    flags: _containers.RepeatedScalarFieldContainer[int]
    price: _containers.RepeatedScalarFieldContainer[int]
    quantity: _containers.RepeatedScalarFieldContainer[int]
    target: _containers.RepeatedScalarFieldContainer[int]
    stop_price: _containers.RepeatedScalarFieldContainer[int]
    display: _containers.RepeatedScalarFieldContainer[int]
    minimum: _containers.RepeatedScalarFieldContainer[int]
    expires_ns: _containers.RepeatedScalarFieldContainer[int]
    offset: _containers.RepeatedScalarFieldContainer[int]
    oco: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, op: _Optional[_Iterable[int]] = ..., client_order_id: _Optional[_Iterable[int]] = ..., instrument: _Optional[_Iterable[int]] = ..., flags: _Optional[_Iterable[int]] = ..., price: _Optional[_Iterable[int]] = ..., quantity: _Optional[_Iterable[int]] = ..., target: _Optional[_Iterable[int]] = ..., stop_price: _Optional[_Iterable[int]] = ..., display: _Optional[_Iterable[int]] = ..., minimum: _Optional[_Iterable[int]] = ..., expires_ns: _Optional[_Iterable[int]] = ..., offset: _Optional[_Iterable[int]] = ..., oco: _Optional[_Iterable[int]] = ...) -> None: ...

class ReportBatch(_message.Message):
    __slots__ = ("home", "account", "first_seq", "position", "time_ns", "kind", "command", "client_order_id", "order_id", "instrument", "flags", "price", "quantity", "open", "filled", "trade_id", "reason")
    HOME_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    home: int
    account: int
    first_seq: int
    position: int
    time_ns: int
    kind: _containers.RepeatedScalarFieldContainer[int]
    command: _containers.RepeatedScalarFieldContainer[int]
    client_order_id: _containers.RepeatedScalarFieldContainer[int]
    order_id: _containers.RepeatedScalarFieldContainer[int]
    instrument: _containers.RepeatedScalarFieldContainer[int]
    flags: _containers.RepeatedScalarFieldContainer[int]
    price: _containers.RepeatedScalarFieldContainer[int]
    quantity: _containers.RepeatedScalarFieldContainer[int]
    open: _containers.RepeatedScalarFieldContainer[int]
    filled: _containers.RepeatedScalarFieldContainer[int]
    trade_id: _containers.RepeatedScalarFieldContainer[int]
    reason: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, home: _Optional[int] = ..., account: _Optional[int] = ..., first_seq: _Optional[int] = ..., position: _Optional[int] = ..., time_ns: _Optional[int] = ..., kind: _Optional[_Iterable[int]] = ..., command: _Optional[_Iterable[int]] = ..., client_order_id: _Optional[_Iterable[int]] = ..., order_id: _Optional[_Iterable[int]] = ..., instrument: _Optional[_Iterable[int]] = ..., flags: _Optional[_Iterable[int]] = ..., price: _Optional[_Iterable[int]] = ..., quantity: _Optional[_Iterable[int]] = ..., open: _Optional[_Iterable[int]] = ..., filled: _Optional[_Iterable[int]] = ..., trade_id: _Optional[_Iterable[int]] = ..., reason: _Optional[_Iterable[int]] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("home", "last_seq")
    HOME_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    home: int
    last_seq: int
    def __init__(self, home: _Optional[int] = ..., last_seq: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("account", "cancel_on_disconnect", "self_trade_prevention", "throttle", "cursors", "session", "skip_lost")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    SELF_TRADE_PREVENTION_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SKIP_LOST_FIELD_NUMBER: _ClassVar[int]
    account: int
    cancel_on_disconnect: bool
    self_trade_prevention: SelfTradePrevention
    throttle: int
    cursors: _containers.RepeatedCompositeFieldContainer[Cursor]
    session: int
    skip_lost: bool
    def __init__(self, account: _Optional[int] = ..., cancel_on_disconnect: _Optional[bool] = ..., self_trade_prevention: _Optional[_Union[SelfTradePrevention, str]] = ..., throttle: _Optional[int] = ..., cursors: _Optional[_Iterable[_Union[Cursor, _Mapping]]] = ..., session: _Optional[int] = ..., skip_lost: _Optional[bool] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("hello", "commands")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    commands: bytes
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., commands: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("engine", "session", "cursors", "engines")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    engine: int
    session: int
    cursors: _containers.RepeatedCompositeFieldContainer[Cursor]
    engines: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, engine: _Optional[int] = ..., session: _Optional[int] = ..., cursors: _Optional[_Iterable[_Union[Cursor, _Mapping]]] = ..., engines: _Optional[_Iterable[int]] = ...) -> None: ...

class SessionReply(_message.Message):
    __slots__ = ("welcome", "reports")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reports: bytes
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reports: _Optional[bytes] = ...) -> None: ...

class NewOrderRequest(_message.Message):
    __slots__ = ("account", "client_order_id", "symbol", "side", "type", "time_in_force", "price", "quantity", "post_only", "self_trade_prevention", "stop_price", "display", "minimum", "all_or_none", "expires_ns", "offset", "oco")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIME_IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    POST_ONLY_FIELD_NUMBER: _ClassVar[int]
    SELF_TRADE_PREVENTION_FIELD_NUMBER: _ClassVar[int]
    STOP_PRICE_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    ALL_OR_NONE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OCO_FIELD_NUMBER: _ClassVar[int]
    account: int
    client_order_id: int
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: str
    quantity: str
    post_only: bool
    self_trade_prevention: SelfTradePrevention
    stop_price: str
    display: str
    minimum: str
    all_or_none: bool
    expires_ns: int
    offset: str
    oco: int
    def __init__(self, account: _Optional[int] = ..., client_order_id: _Optional[int] = ..., symbol: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., type: _Optional[_Union[OrderType, str]] = ..., time_in_force: _Optional[_Union[TimeInForce, str]] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., post_only: _Optional[bool] = ..., self_trade_prevention: _Optional[_Union[SelfTradePrevention, str]] = ..., stop_price: _Optional[str] = ..., display: _Optional[str] = ..., minimum: _Optional[str] = ..., all_or_none: _Optional[bool] = ..., expires_ns: _Optional[int] = ..., offset: _Optional[str] = ..., oco: _Optional[int] = ...) -> None: ...

class CancelOrderRequest(_message.Message):
    __slots__ = ("account", "client_order_id", "symbol", "target")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    account: int
    client_order_id: int
    symbol: str
    target: int
    def __init__(self, account: _Optional[int] = ..., client_order_id: _Optional[int] = ..., symbol: _Optional[str] = ..., target: _Optional[int] = ...) -> None: ...

class ReplaceOrderRequest(_message.Message):
    __slots__ = ("account", "client_order_id", "symbol", "target", "price", "quantity", "meaning", "self_trade_prevention", "stop_price")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    SELF_TRADE_PREVENTION_FIELD_NUMBER: _ClassVar[int]
    STOP_PRICE_FIELD_NUMBER: _ClassVar[int]
    account: int
    client_order_id: int
    symbol: str
    target: int
    price: str
    quantity: str
    meaning: QuantityMeaning
    self_trade_prevention: SelfTradePrevention
    stop_price: str
    def __init__(self, account: _Optional[int] = ..., client_order_id: _Optional[int] = ..., symbol: _Optional[str] = ..., target: _Optional[int] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., meaning: _Optional[_Union[QuantityMeaning, str]] = ..., self_trade_prevention: _Optional[_Union[SelfTradePrevention, str]] = ..., stop_price: _Optional[str] = ...) -> None: ...

class MassCancelRequest(_message.Message):
    __slots__ = ("account", "client_order_id", "symbol")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    account: int
    client_order_id: int
    symbol: str
    def __init__(self, account: _Optional[int] = ..., client_order_id: _Optional[int] = ..., symbol: _Optional[str] = ...) -> None: ...

class MassCancelReply(_message.Message):
    __slots__ = ("reports", "engines_missing")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    ENGINES_MISSING_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    engines_missing: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., engines_missing: _Optional[_Iterable[int]] = ...) -> None: ...

class GetOrderRequest(_message.Message):
    __slots__ = ("account", "symbol", "client_order_id")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    account: int
    symbol: str
    client_order_id: int
    def __init__(self, account: _Optional[int] = ..., symbol: _Optional[str] = ..., client_order_id: _Optional[int] = ...) -> None: ...

class OpenOrdersRequest(_message.Message):
    __slots__ = ("account", "symbol")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    account: int
    symbol: str
    def __init__(self, account: _Optional[int] = ..., symbol: _Optional[str] = ...) -> None: ...

class OpenOrdersReply(_message.Message):
    __slots__ = ("orders", "engines_missing")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    ENGINES_MISSING_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[Order]
    engines_missing: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, orders: _Optional[_Iterable[_Union[Order, _Mapping]]] = ..., engines_missing: _Optional[_Iterable[int]] = ...) -> None: ...

class ExecutionsRequest(_message.Message):
    __slots__ = ("account", "cursors")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    account: int
    cursors: _containers.RepeatedCompositeFieldContainer[Cursor]
    def __init__(self, account: _Optional[int] = ..., cursors: _Optional[_Iterable[_Union[Cursor, _Mapping]]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("kind", "reason", "home", "seq", "account", "client_order_id", "order_id", "symbol", "side", "price", "quantity", "open", "filled", "time_ns", "priority_kept", "repeat", "liquidity", "trade_id", "position", "then", "detail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_KEPT_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    LIQUIDITY_FIELD_NUMBER: _ClassVar[int]
    TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: ReportKind
    reason: Reason
    home: int
    seq: int
    account: int
    client_order_id: int
    order_id: int
    symbol: str
    side: Side
    price: str
    quantity: str
    open: str
    filled: str
    time_ns: int
    priority_kept: bool
    repeat: bool
    liquidity: Liquidity
    trade_id: int
    position: int
    then: _containers.RepeatedCompositeFieldContainer[Report]
    detail: str
    def __init__(self, kind: _Optional[_Union[ReportKind, str]] = ..., reason: _Optional[_Union[Reason, str]] = ..., home: _Optional[int] = ..., seq: _Optional[int] = ..., account: _Optional[int] = ..., client_order_id: _Optional[int] = ..., order_id: _Optional[int] = ..., symbol: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., open: _Optional[str] = ..., filled: _Optional[str] = ..., time_ns: _Optional[int] = ..., priority_kept: _Optional[bool] = ..., repeat: _Optional[bool] = ..., liquidity: _Optional[_Union[Liquidity, str]] = ..., trade_id: _Optional[int] = ..., position: _Optional[int] = ..., then: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., detail: _Optional[str] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("account", "client_order_id", "order_id", "symbol", "side", "type", "time_in_force", "price", "quantity", "open", "filled", "live", "stop_price", "triggered", "display", "minimum", "all_or_none", "expires_ns", "offset", "oco", "visible", "post_only")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIME_IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FILLED_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    STOP_PRICE_FIELD_NUMBER: _ClassVar[int]
    TRIGGERED_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    ALL_OR_NONE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OCO_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_FIELD_NUMBER: _ClassVar[int]
    POST_ONLY_FIELD_NUMBER: _ClassVar[int]
    account: int
    client_order_id: int
    order_id: int
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: str
    quantity: str
    open: str
    filled: str
    live: bool
    stop_price: str
    triggered: bool
    display: str
    minimum: str
    all_or_none: bool
    expires_ns: int
    offset: str
    oco: int
    visible: bool
    post_only: bool
    def __init__(self, account: _Optional[int] = ..., client_order_id: _Optional[int] = ..., order_id: _Optional[int] = ..., symbol: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., type: _Optional[_Union[OrderType, str]] = ..., time_in_force: _Optional[_Union[TimeInForce, str]] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., open: _Optional[str] = ..., filled: _Optional[str] = ..., live: _Optional[bool] = ..., stop_price: _Optional[str] = ..., triggered: _Optional[bool] = ..., display: _Optional[str] = ..., minimum: _Optional[str] = ..., all_or_none: _Optional[bool] = ..., expires_ns: _Optional[int] = ..., offset: _Optional[str] = ..., oco: _Optional[int] = ..., visible: _Optional[bool] = ..., post_only: _Optional[bool] = ...) -> None: ...

class SetStateRequest(_message.Message):
    __slots__ = ("symbol", "state")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    state: TradingState
    def __init__(self, symbol: _Optional[str] = ..., state: _Optional[_Union[TradingState, str]] = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("account", "symbol", "lift")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    LIFT_FIELD_NUMBER: _ClassVar[int]
    account: int
    symbol: str
    lift: bool
    def __init__(self, account: _Optional[int] = ..., symbol: _Optional[str] = ..., lift: _Optional[bool] = ...) -> None: ...

class AddInstrumentRequest(_message.Message):
    __slots__ = ("id", "symbol", "channel", "tick_size", "lot_size", "price_min", "price_max", "quantity_max", "notional_max", "collar", "band", "allocation", "auction_reference", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
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
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    symbol: str
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
    state: str
    def __init__(self, id: _Optional[int] = ..., symbol: _Optional[str] = ..., channel: _Optional[int] = ..., tick_size: _Optional[str] = ..., lot_size: _Optional[str] = ..., price_min: _Optional[int] = ..., price_max: _Optional[int] = ..., quantity_max: _Optional[int] = ..., notional_max: _Optional[int] = ..., collar: _Optional[int] = ..., band: _Optional[int] = ..., allocation: _Optional[str] = ..., auction_reference: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class DelistRequest(_message.Message):
    __slots__ = ("symbol",)
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    def __init__(self, symbol: _Optional[str] = ...) -> None: ...

class BustTradeRequest(_message.Message):
    __slots__ = ("symbol", "trade_id")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    trade_id: int
    def __init__(self, symbol: _Optional[str] = ..., trade_id: _Optional[int] = ...) -> None: ...

class CorrectTradeRequest(_message.Message):
    __slots__ = ("symbol", "trade_id", "price", "quantity")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    trade_id: int
    price: str
    quantity: str
    def __init__(self, symbol: _Optional[str] = ..., trade_id: _Optional[int] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ...) -> None: ...

class RollRequest(_message.Message):
    __slots__ = ("symbol",)
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    def __init__(self, symbol: _Optional[str] = ...) -> None: ...

class ConfirmClockRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OperatorReply(_message.Message):
    __slots__ = ("reason", "detail", "position", "engine")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    detail: str
    position: int
    engine: int
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ..., position: _Optional[int] = ..., engine: _Optional[int] = ...) -> None: ...

class LinkHello(_message.Message):
    __slots__ = ("engine",)
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    engine: int
    def __init__(self, engine: _Optional[int] = ...) -> None: ...

class LinkSession(_message.Message):
    __slots__ = ("session", "account", "cancel_on_disconnect", "closed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    session: int
    account: int
    cancel_on_disconnect: bool
    closed: bool
    def __init__(self, session: _Optional[int] = ..., account: _Optional[int] = ..., cancel_on_disconnect: _Optional[bool] = ..., closed: _Optional[bool] = ...) -> None: ...

class LinkFollow(_message.Message):
    __slots__ = ("account", "after_seq", "live_only", "stop")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    LIVE_ONLY_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    account: int
    after_seq: int
    live_only: bool
    stop: bool
    def __init__(self, account: _Optional[int] = ..., after_seq: _Optional[int] = ..., live_only: _Optional[bool] = ..., stop: _Optional[bool] = ...) -> None: ...

class LinkCommands(_message.Message):
    __slots__ = ("account", "session", "self_trade_prevention", "commands")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SELF_TRADE_PREVENTION_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    account: int
    session: int
    self_trade_prevention: SelfTradePrevention
    commands: bytes
    def __init__(self, account: _Optional[int] = ..., session: _Optional[int] = ..., self_trade_prevention: _Optional[_Union[SelfTradePrevention, str]] = ..., commands: _Optional[bytes] = ...) -> None: ...

class LinkRequest(_message.Message):
    __slots__ = ("hello", "session", "follow", "commands")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    hello: LinkHello
    session: LinkSession
    follow: LinkFollow
    commands: LinkCommands
    def __init__(self, hello: _Optional[_Union[LinkHello, _Mapping]] = ..., session: _Optional[_Union[LinkSession, _Mapping]] = ..., follow: _Optional[_Union[LinkFollow, _Mapping]] = ..., commands: _Optional[_Union[LinkCommands, _Mapping]] = ...) -> None: ...

class LinkWelcome(_message.Message):
    __slots__ = ("engine", "epoch", "incarnation")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    engine: int
    epoch: int
    incarnation: int
    def __init__(self, engine: _Optional[int] = ..., epoch: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class LinkReply(_message.Message):
    __slots__ = ("welcome", "reports", "following", "answered")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    welcome: LinkWelcome
    reports: bytes
    following: Following
    answered: int
    def __init__(self, welcome: _Optional[_Union[LinkWelcome, _Mapping]] = ..., reports: _Optional[bytes] = ..., following: _Optional[_Union[Following, _Mapping]] = ..., answered: _Optional[int] = ...) -> None: ...

class Following(_message.Message):
    __slots__ = ("account", "last_seq", "first_held")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    FIRST_HELD_FIELD_NUMBER: _ClassVar[int]
    account: int
    last_seq: int
    first_held: int
    def __init__(self, account: _Optional[int] = ..., last_seq: _Optional[int] = ..., first_held: _Optional[int] = ...) -> None: ...

class FindOrdersRequest(_message.Message):
    __slots__ = ("account", "instrument", "client_order_id")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    account: int
    instrument: int
    client_order_id: int
    def __init__(self, account: _Optional[int] = ..., instrument: _Optional[int] = ..., client_order_id: _Optional[int] = ...) -> None: ...

class FindOrdersReply(_message.Message):
    __slots__ = ("orders",)
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[Order]
    def __init__(self, orders: _Optional[_Iterable[_Union[Order, _Mapping]]] = ...) -> None: ...

"""A dataclass as a table of TOML: what each of its fields may hold is said once, in its annotation, and checked here.

Annotated[int, Meta(ge=1, le=999)]                              whole numbers; without `le`: of 64 bits
Annotated[str, Meta(pattern=..., description="what it is")]     text that the whole pattern matches
Decimal                                                         above zero, with at most 12 digits either side
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar, get_type_hints

import msgspec

from proto.feed import SIZE, SYMBOL, U64_MAX

T = TypeVar("T")


class Table:
    """One table of a file: hands out checked values, notes what is wrong, and goes on with a stand-in."""

    __slots__ = ("_faults", "_read", "_values", "where")

    def __init__(self, values: object, where: str, faults: list[str]) -> None:
        self._values: dict[str, object] = {}
        self._faults = faults
        self._read: list[str] = []
        self.where = where
        if isinstance(values, dict):
            self._values = values
        else:
            self.fault("is not a table")

    def fault(self, what: str) -> None:
        self._faults.append(f"{self.where}: {what}" if self.where else what)

    def read(self, kind: type[T], defaults: Mapping[str, object] | None = None) -> T:
        """One `kind`, from the keys named as its fields are; no other may be left. `defaults` go before its own."""
        found: dict[str, object] = {}
        for field in fields(kind):  # type: ignore[arg-type]  # the dataclass is the caller's
            default = (defaults or {}).get(field.name, field.default)
            value = self._value(field.name, default)
            wrong = None if value is MISSING else fault(kind, field.name, value)
            if wrong is not None:
                self.fault(wrong)
            missing = value is MISSING or wrong is not None
            found[field.name] = _stand_in(kind, field.name) if missing else _held(kind, field.name, value)
        self.end()
        return kind(**found)

    def table(self, key: str) -> "Table":
        self._read.append(key)
        return Table(self._values.get(key, {}), f"[{key}]", self._faults)

    def tables(self, key: str) -> list["Table"]:
        self._read.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list):
            self.fault(f"{key} is not a list of tables: write [[{key}]]")
            return []
        return [Table(value, place(key, i, value), self._faults) for i, value in enumerate(values, 1)]

    def end(self) -> None:
        """Every key has been asked for: what is left over is a mistake, most likely in its spelling."""
        for key in self._values:
            if key not in self._read:
                self.fault(f"unknown key {shown(key)}")

    def _value(self, key: str, default: object) -> object:
        self._read.append(key)
        if key not in self._values and default is MISSING:
            self.fault(f"{key} is missing")
        return self._values.get(key, default)


def fault(kind: type, key: str, value: object) -> str | None:
    """What is wrong with a value of that field, if anything. A Decimal may come as its text."""
    type_, rule = _rules(kind)[key]
    said = f"{key} = {shown(value)}"
    if type_ is int:
        least, most = (0 if rule.ge is None else rule.ge), (U64_MAX if rule.le is None else rule.le)
        if type(value) is not int:
            return f"{said} is not a whole number"
        return None if least <= value <= most else f"{said} is not within {least} .. {most}"
    if type_ is Decimal:
        text = f"{value:f}" if isinstance(value, Decimal) else value
        if not isinstance(text, str) or not SIZE.fullmatch(text):
            return f'{said} is not a decimal number as text, such as "0.01"'
        return None if Decimal(text) > 0 else f"{said} is not above zero"
    good = isinstance(value, str) and re.fullmatch(rule.pattern or ".*", value)
    return None if good else f"{said} is not {rule.description}"


def lines(value: Any) -> list[str]:
    """The keys and values of its table; nothing is left to a default."""
    return [f"{field.name} = {written(getattr(value, field.name))}" for field in fields(value)]


def edited(before: Any, after: Any) -> list[str]:
    """The fields in which two of a kind differ, in their order."""
    return [f.name for f in fields(before) if getattr(before, f.name) != getattr(after, f.name)]


def written(value: object) -> str:
    """A value as TOML has it."""
    if isinstance(value, int):
        return str(value)
    return quote(f"{value:f}" if isinstance(value, Decimal) else str(value))


def shown(value: object) -> str:
    """Somebody's input, quoted and cut for a message."""
    if isinstance(value, str | Decimal):
        text = written(value)
    elif type(value) is int:
        text = f"{value:#x}" if abs(value) > U64_MAX else str(value)
    else:
        text = type(value).__name__ if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def quote(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'


def place(key: str, i: int, value: object) -> str:
    """Where a table stands, with its symbol when it has a proper one: easier to find in a long file."""
    symbol = value.get("symbol") if isinstance(value, dict) else None
    named = isinstance(symbol, str) and SYMBOL.fullmatch(symbol)
    return f"[[{key}]] {i} ({symbol})" if named else f"[[{key}]] {i}"


def repeats(of: str, key: str, values: Sequence[int | str]) -> list[str]:
    """A line for each value that stood in a table before. Those at fault already (0, "") are passed over."""
    first: dict[int | str, int] = {}
    return [
        f"[[{of}]] {i}: {key} = {shown(value)} belongs to [[{of}]] {first[value]}"
        for i, value in enumerate(values, 1)
        if value and first.setdefault(value, i) != i
    ]


def _held(kind: type, key: str, value: object) -> object:
    return Decimal(value) if _rules(kind)[key][0] is Decimal and isinstance(value, str) else value


def _stand_in(kind: type, key: str) -> object:
    """What passes every later check of the file, so that one fault is told once."""
    type_, rule = _rules(kind)[key]
    if type_ is int:
        return (rule.le or 0) if key.endswith("_max") else (rule.ge or 0) if key.endswith("_min") else 0
    return Decimal(1) if type_ is Decimal else ""


@cache
def _rules(kind: type) -> dict[str, tuple[type, msgspec.Meta]]:
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        rule = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, msgspec.Meta)), None)
        found[name] = (getattr(hint, "__origin__", hint), rule or msgspec.Meta())
    return found


def field_types(kind: type) -> list[Any]:
    """The fields of a dataclass, their annotations and defaults: as msgspec.defstruct takes them."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        (field.name, hints[field.name], *([] if field.default is MISSING else [field.default]))
        for field in fields(kind)
    ]

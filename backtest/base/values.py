"""The base class of frozen values such as Venue and Account."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked, checked_only
from backtest.base.errors import BacktestError, ParameterError, join_phrases
from backtest.base.fields import Declaration, FloatSeries, check_names
from backtest.base.frozen_values import FrozenTable
from backtest.base.json_values import repr_plain
from backtest.base.units import SECOND, IntArray


@dataclass(frozen=True, eq=False, repr=False)
class Value:
    """A frozen dataclass that is checked, equal, hashed, printed and stored by its content.

    A field declared as ``Annotated[type, declaration]`` is checked by the declaration; one whose
    default is None may be None. A field that is a Value, or a sequence of them, is a part. A
    declaration with a true ``is_table`` reads a table of names itself.
    """

    _omitted: ClassVar[frozenset[str]] = frozenset()
    """Fields that are stored only if they are not at their default.

    Fields of later versions are, so that what earlier ones stored stays the same data.
    """
    _refused: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Names that are no fields: why, and the cure."""
    _needed: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Fields that have no default: why, and the cure."""

    is_written_plainly: ClassVar[bool] = False
    """Whether a field that may hold this value may also hold a number or a text."""

    def __new__(cls, *args: object, **content: object) -> Self:
        names = [each.name for each in fields(cls)]
        if args and fields(cls)[0].kw_only:
            raise ParameterError(
                f"{cls.__name__} takes keyword arguments only, got {repr_plain(args[0])}",
                where=f"{cls.__name__}(...)",
                cure=f"write {cls.__name__}({names[0]}=...)",
            )
        given = dict(zip(names, args, strict=False)) | content
        _check_names(cls, given, where=f"{cls.__name__}(...)")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        declarations = find_declarations(type(self))  # type: ignore[arg-type] # classes do hash
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in declarations and not (value is None and each.default is None):
                where = f"{type(self).__name__}.{each.name}"
                settled = declarations[each.name].check(each.name, value, where=where)
                self._set_fields(**{each.name: settled})
        self._check_rules()

    def _check_rules(self) -> None:
        """Check rules that involve more than one field."""

    def _set_fields(self, **checked: object) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = _content(self), _content(other)
        return all(_is_same(value, theirs[name]) for name, value in mine.items())

    def __hash__(self) -> int:
        return hash((type(self).__name__, *map(_hashable, _content(self).values())))

    def __repr__(self) -> str:
        shown = (each for each in fields(self) if not _is_default(each, getattr(self, each.name)))
        parts = (f"{each.name}={_text(getattr(self, each.name))}" for each in shown)
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[object, ...]:
        # Copies and other processes construct it anew, so that their series are read-only too.
        return partial(type(self), **_content(self)), ()

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        return changes

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as data for JSON or TOML; infinity is ``"inf"``, None is left out.

        So are the defaults of :attr:`_omitted` fields.
        """
        unset = {
            each.name
            for each in fields(self)
            if each.name in self._omitted and _is_default(each, getattr(self, each.name))
        }
        content = _content(self).items()
        return {
            name: _plain(value)
            for name, value in content
            if value is not None and name not in unset
        }

    @classmethod
    @checked_only("where")
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:
        """Return the value that :meth:`to_dict` wrote; nothing in the data is executed.

        Parameters
        ----------
        data : Mapping
            One entry per field; absent ones take their defaults.
        where : str
            The file and table the data come from, for error messages.

        Raises
        ------
        ParameterError, VenueError
            If an entry is unknown, missing, of the wrong shape, or breaks a rule of the value.
        """
        place = where or cls.__name__
        _check_names(cls, data, where=place)
        parts = _find_parts(cls)  # type: ignore[arg-type] # classes do hash
        tables = _find_tables(cls)  # type: ignore[arg-type]
        content = {
            name: entry
            if name in tables
            else _read(entry, part=parts.get(name), where=f"{place}.{name}")
            for name, entry in data.items()
        }
        try:
            return cls(**content)
        except BacktestError as error:
            if not where:
                raise
            found = f"{where}: {error.where}"
            raise type(error)(error.problem, where=found, cure=error.cure) from error

    @checked
    def override(self, changes: Mapping[str, object] | None = None, /, **groups: object) -> Self:
        """Return the value with some of its content changed, and checked again.

        Parameters
        ----------
        changes : Mapping, optional
            New values by name; a dot leads into a part: ``{"fees.taker": 0.0004}``.
        **groups
            The same by keyword; a part may be given as a table of what changes in it:
            ``fees={"taker": 0.0004}``.

        Raises
        ------
        ParameterError, VenueError
            If a name is unknown or given twice, or a value breaks a rule.
        """
        where = f"{type(self).__name__}.override"
        nested: dict[str, Any] = {}
        for name, entry in [*(changes or {}).items(), *groups.items()]:
            _put(nested, str(name).split("."), entry, where=where)
        return _override(self, nested, where=where)


_V = TypeVar("_V", bound=Value)


def _put(nested: dict[str, Any], names: list[str], entry: Any, *, where: str) -> None:
    head, rest = names[0], names[1:]
    below = nested.setdefault(head, {}) if rest or isinstance(entry, Mapping) else None
    if not rest and below is None and head not in nested:
        nested[head] = entry
    elif isinstance(below, dict) and rest:
        _put(below, rest, entry, where=where)
    elif isinstance(below, dict) and not set(below) & set(entry):
        below.update(entry)
    else:
        raise ParameterError(
            f"each field can be changed once, {head!r} was given twice",
            where=where,
            cure="give each name once, in one of its forms",
        )


def _override(value: _V, changes: Mapping[str, Any], *, where: str) -> _V:
    _check_names(type(value), {**_content(value), **changes}, where=where)
    parts = _find_parts(type(value))  # type: ignore[arg-type] # classes do hash
    tables = _find_tables(type(value))  # type: ignore[arg-type]
    content: dict[str, Any] = {}
    for name, entry in changes.items():
        place, held = f"{where}, {name}", getattr(value, name)
        if name in tables:
            is_change = isinstance(entry, Mapping) and isinstance(held, Mapping)
            content[name] = {**held, **entry} if is_change else entry
        elif isinstance(held, Value) and isinstance(entry, Mapping):
            content[name] = _override(held, entry, where=place)
        elif isinstance(entry, Mapping) or (name in parts and _is_plain(entry)):
            content[name] = _read(entry, part=parts.get(name), where=place)
        else:
            content[name] = entry
    return replace(value, **value._complete_changes(content))


def _is_plain(entry: object) -> bool:
    return isinstance(entry, list | tuple) and any(isinstance(each, Mapping) for each in entry)


def _content(value: Value) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


@dataclass(frozen=True)
class PartDeclaration:
    of: type[Value]
    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> Value:
        if not isinstance(value, self.of):
            raise ParameterError(
                f"{name} must be a {self.of.__name__}, got {repr_plain(value)}",
                where=where,
                cure=f"give {name}={self.of.__name__}(...)",
            )
        return value


@cache
def find_declarations(cls: type[Value]) -> dict[str, Declaration]:
    found: dict[str, Declaration] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Annotated:
            found[name] = hint.__metadata__[0]
        elif isinstance(hint, type) and issubclass(hint, Value):
            found[name] = PartDeclaration(hint)
    return found


@cache
def _find_parts(cls: type[Value]) -> dict[str, type[Value]]:
    hints = {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(cls).items()}
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, Value)
    }


@cache
def _find_tables(cls: type[Value]) -> frozenset[str]:
    found = find_declarations(cls)  # type: ignore[arg-type]
    return frozenset(name for name, each in found.items() if getattr(each, "is_table", False))


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and bool(_hashable(one) == _hashable(other))


def _is_default(each: Field[Any], value: object) -> bool:
    return each.default is not MISSING and _is_same(each.default, value)


def _hashable(value: object) -> object:
    if isinstance(value, pd.Series):
        return (_nanoseconds(value).tobytes(), value.to_numpy().tobytes())
    return value


def _nanoseconds(series: FloatSeries) -> IntArray:
    return pd.DatetimeIndex(series.index).asi8


def _write_times(series: FloatSeries) -> list[str]:
    times = _nanoseconds(series)
    stamps = times.view("datetime64[ns]")
    unit: Any = "ns" if (times % SECOND).any() else "s"
    return [str(stamp) for stamp in np.datetime_as_string(stamps, unit=unit)]


def _text(value: object) -> str:
    if isinstance(value, pd.Series):
        index = f"pd.DatetimeIndex({_write_times(value)!r}, tz='UTC')"
        return f"pd.Series({value.tolist()!r}, index={index})"
    return repr(value)


def _plain(value: object) -> object:
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, FrozenTable):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, pd.Series):
        numbers = [_plain(each) for each in value.tolist()]
        return {"time": [f"{text}Z" for text in _write_times(value)], "value": numbers}
    if value in (math.inf, -math.inf):
        return str(value)
    return value


def _check_names(cls: type[Value], data: object, *, where: str) -> None:
    known = [each.name for each in fields(cls)]
    if not isinstance(data, Mapping):
        raise ParameterError(
            f"a {cls.__name__} must be a table of its fields, got {repr_plain(data)}",
            where=where,
            cure=f"give a table with {', '.join(known)}",
        )
    for name in cls._refused.keys() & data.keys():
        reason, cure = cls._refused[name]
        raise ParameterError(f"{reason}, got {name}={data[name]!r}", where=where, cure=cure)
    needed = [each.name for each in fields(cls) if each.default is MISSING]
    explained = [name for name in needed if name in cls._needed and name not in data]
    rest = [name for name in needed if name not in explained]
    check_names(cls.__name__, data, known, rest, where=where)
    for name in explained:
        reason, cure = cls._needed[name]
        raise ParameterError(f"{cls.__name__} needs {name}: {reason}", where=where, cure=cure)


def _read(entry: object, *, part: type[Value] | None, where: str) -> object:
    if part is not None and (isinstance(entry, Mapping) or not part.is_written_plainly):
        if isinstance(entry, list | tuple):
            return _read_all(entry, part=part, where=where)
        return part.from_dict(entry, where=where)  # type: ignore[arg-type] # checked there
    if isinstance(entry, Mapping):
        if not {"time", "value", "times", "values"} & set(entry):  # a table of names
            return FrozenTable({k: _read(v, part=None, where=where) for k, v in entry.items()})
        return _read_series(entry, where=where)
    return float(str(entry)) if entry in ("inf", "-inf") else entry


def _read_all(entries: Sequence[Any], *, part: type[Value], where: str) -> tuple[Value, ...]:
    found: list[Value] = []
    errors: list[BacktestError] = []
    for position, entry in enumerate(entries):
        try:
            found.append(part.from_dict(entry, where=f"{where}[{position}]"))
        except BacktestError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(
            "\n".join(error.problem for error in errors),
            where="; ".join(error.where for error in errors),
            cure=join_phrases("; ", [error.cure for error in errors]),
        )
    return tuple(found)


def _read_series(entry: Mapping[str, Any], *, where: str) -> FloatSeries:
    times: Any = entry.get("time")
    values: Any = entry.get("value")
    are_lists = isinstance(times, list) and isinstance(values, list)
    if set(entry) != {"time", "value"} or not are_lists or len(times) != len(values):
        raise ParameterError(
            "a series must be a table of two lists of one length, time and value, "
            f"got {dict(entry)!r:.80}",
            where=where,
            cure="write time = ['2021-05-19T00:00:00Z'] and value = [0.05]",
        )
    try:
        index = pd.DatetimeIndex(pd.to_datetime(times, utc=True, format="ISO8601"))
    except (ValueError, TypeError) as error:
        raise ParameterError(
            f"the times of a series must be readable, got: {error}",
            where=where,
            cure="write times as '2021-05-19T00:00:00Z'",
        ) from error
    numbers = [float(each) if each in ("inf", "-inf") else each for each in values]
    series: FloatSeries = pd.Series(numbers, index=index)
    return series

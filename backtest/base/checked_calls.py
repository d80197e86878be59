"""Check the arguments of public functions against the types that their signatures declare."""

from __future__ import annotations

import builtins
import datetime as dt
import functools
import inspect
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.base import units
from backtest.base.errors import BacktestError, DataError, ParameterError
from backtest.base.json_values import repr_plain

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")

REFUSED: Any = object()
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes that file systems allow in the name of a file, and in a path."""
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NUMERIC = "biuf"


class Kind(NamedTuple):
    noun: str
    read: Callable[[Any], Any]
    error: type[BacktestError] = ParameterError


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function so that its arguments are checked against its annotations."""
    return check_some(function, frozenset(inspect.signature(function).parameters))


def checked_only(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    return lambda function: check_some(function, frozenset(names))


def check_some(function: Callable[P, T], names: frozenset[str]) -> Callable[P, T]:
    parameters = inspect.signature(function).parameters.values()
    order = [each.name for each in parameters if each.kind in BY_PLACE]
    rest = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), "")

    @functools.cache
    def find_asked() -> tuple[list[Kind | None], dict[str, Kind]]:
        kinds = find_kinds(function)  # at the first call: annotations may name later modules
        asked = {name: kind for name, kind in kinds.items() if name in names}
        return [asked.get(name) for name in order], asked

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        places, asked = find_asked()
        read: list[Any] = list(args)
        named: dict[str, Any] = dict(kwargs)
        for k, (kind, given) in enumerate(zip(places, args, strict=False)):
            if kind is not None and (found := kind.read(given)) is not given:
                read[k] = require_read(function, order[k], kind, given, found)
        for name, given in kwargs.items():
            if name in asked and (found := asked[name].read(given)) is not given:
                named[name] = require_read(function, name, asked[name], given, found)
        if rest in asked and len(read) > len(order):
            more = tuple(read[len(order) :])
            kind = asked[rest]
            read[len(order) :] = require_read(function, rest, kind, more, kind.read(more))
        return function(*read, **named)

    return call


def require_read(
    function: Callable[..., Any], name: str, kind: Kind, given: Any, found: Any
) -> Any:
    if found is REFUSED:
        call = name_call(function)
        raise kind.error(f"{call}: {name} must be {kind.noun}, got {repr_plain(given)}")
    return found


def name_call(function: Callable[..., Any]) -> str:
    name = function.__qualname__.removesuffix(".__init__")
    is_public = hasattr(sys.modules["backtest"], name.partition(".")[0])
    return f"bt.{name}" if is_public else name


def checked_fields(cls: type[C]) -> type[C]:
    cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
    return cls


class Names(dict[str, Any]):
    def __init__(self, scope: Mapping[str, Any]) -> None:
        super().__init__()
        public = vars(sys.modules["backtest"])
        own = {"Path": Path, "Progress": sys.modules["backtest.engine"].Progress}
        self.scopes = (scope, vars(builtins), vars(units), public, own)

    def __missing__(self, name: str) -> Any:
        return next((scope[name] for scope in self.scopes if name in scope), Any)


@functools.cache
def find_kinds(function: Callable[..., Any]) -> dict[str, Kind]:
    names = Names(function.__globals__)
    found = {}
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is each.VAR_KEYWORD or each.annotation is each.empty:
            continue
        kind = read_kind(resolve(each.annotation, names))
        if kind is not None and each.kind is each.VAR_POSITIONAL:
            found[name] = make_tuple_kind(kind)
        elif kind is not None:
            may_be_left_out = each.default is None and kind.read(None) is REFUSED
            found[name] = join_kinds([kind, NOTHING]) if may_be_left_out else kind
    return found


def resolve(annotation: Any, names: Names) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, {}, names, include_extras=True)["it"]
    except (AttributeError, TypeError):
        return Any


def check_shape(name: str, values: Any, shape: tuple[int, ...], *, where: str = "") -> None:
    """Check the shape of an array; -1 in ``shape`` stands for any length but 0."""
    found = np.shape(values)
    is_fit = len(found) == len(shape) and all(
        n == asked or (asked < 0 < n) for n, asked in zip(found, shape, strict=True)
    )
    if not is_fit:
        asked = ", ".join("n" if each < 0 else f"{each:,}" for each in shape)
        place = f"{where}: " if where else ""
        raise ParameterError(f"{place}{name} must be an array of shape ({asked}), got {found}")


def check_lengths(*, where: str = "", **arrays: Any) -> None:
    first = next(iter(arrays.values()))
    for name, values in arrays.items():
        check_shape(name, values, (len(first),) if np.ndim(first) else (-1,), where=where)


def check_broadcast(*, where: str = "", **arrays: Any) -> None:
    """Check that the shapes of arrays fit each other."""
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        found = ", ".join(f"{name} of {shape}" for name, shape in shapes.items())
        place = f"{where}: " if where else ""
        raise ParameterError(f"{place}arrays must be of shapes that fit, got {found}") from error


# ------------------------------------------------------------------------------------------ kinds


def read_kind(hint: Any) -> Kind | None:
    if hint in PLAIN:
        return PLAIN[hint]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [read_kind(each) for each in parts if not (each is str and Path in parts)]
        return None if None in kinds else join_kinds([each for each in kinds if each])
    if origin is Literal:
        named = ", ".join(map(str, parts))
        return Kind(f"one of {named}", keep_if(lambda it: type(it) is str and it in parts))
    if origin is type:
        return read_class_kind(parts[0])
    if origin in MAKERS:
        return MAKERS[origin](*parts)
    return read_instance_kind(hint)


def keep_if(admits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    return lambda value: value if admits(value) else REFUSED


def join_kinds(kinds: Sequence[Kind]) -> Kind:
    def read(value: Any) -> Any:
        for kind in kinds:
            found = kind.read(value)
            if found is not REFUSED:
                return found
        return REFUSED

    nouns = dict.fromkeys(kind.noun for kind in kinds)
    is_file = any(kind.error is DataError for kind in kinds)
    return Kind(" or ".join(nouns), read, DataError if is_file else ParameterError)


def read_class_kind(base: Any) -> Kind | None:
    if not isinstance(base, type):
        return None
    noun = f"a class of {base.__name__}"
    return Kind(noun, keep_if(lambda it: isinstance(it, type) and issubclass(it, base)))


def read_instance_kind(hint: Any) -> Kind | None:
    if not isinstance(hint, type) or hint is object or getattr(hint, "_is_protocol", False):
        return None
    article = "an" if hint.__name__[0] in "AEIO" else "a"
    return Kind(f"{article} {hint.__name__}", keep_if(lambda it: isinstance(it, hint)))


def read_number(value: Any) -> Any:
    if type(value) is float:
        return value
    if isinstance(value, np.ndarray):
        return value if not value.ndim and is_numeric(value.dtype) else REFUSED
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return REFUSED
    try:
        plain = float(value)
    except OverflowError:
        return REFUSED
    return value if isinstance(value, int) and not isinstance(value, np.generic) else plain


def read_whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return REFUSED
    whole = int(value)
    return whole if -(2**63) <= whole < 2**63 else REFUSED


def read_array(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        is_table = value.shape[1] > 0 and all(map(is_numeric, value.dtypes))
        return value.to_numpy(dtype=np.float64) if is_table else REFUSED
    if isinstance(value, np.ndarray | pd.Series | pd.Index):
        return value if is_numeric(value.dtype) and value.ndim else REFUSED
    if not isinstance(value, list | tuple):
        return REFUSED
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return REFUSED


def read_floats(value: Any) -> Any:
    values = read_array(value)
    is_plain = values is REFUSED or values.dtype.kind not in "bu"
    return values if is_plain else values.astype(np.float64)


def is_numeric(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in NUMERIC


def make_sequence_kind(*parts: Any) -> Kind:
    item = read_kind(parts[0]) if parts else None

    def read(value: Any) -> Any:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return REFUSED
        if isinstance(value, np.ndarray | pd.DataFrame) and value.ndim != 1:
            return REFUSED
        is_kept = isinstance(value, Sequence | np.ndarray | pd.Series | pd.Index)
        items = value if is_kept else tuple(value)
        is_fit = item is None or all(item.read(each) is not REFUSED for each in items)
        return items if is_fit else REFUSED

    return Kind("a sequence" + (f" ({item.noun} each)" if item else ""), read)


def make_fixed_kind(*parts: Any) -> Kind | None:
    if not parts or parts[-1] is Ellipsis:
        return make_sequence_kind(*parts[:1])
    kinds, n = [read_kind(each) for each in parts], len(parts)

    def admits(value: Any) -> bool:
        if not isinstance(value, tuple | list) or len(value) != n:
            return False
        pairs = zip(kinds, value, strict=True)
        return all(kind is None or kind.read(each) is not REFUSED for kind, each in pairs)

    named = ", ".join(kind.noun if kind else "any" for kind in kinds)
    return Kind(f"a tuple ({named})", keep_if(admits))


def make_tuple_kind(item: Kind) -> Kind:
    def read(values: Any) -> Any:
        found = tuple(map(item.read, values))
        return REFUSED if any(each is REFUSED for each in found) else found

    return Kind(f"each {item.noun}", read, item.error)


def make_mapping_kind(*parts: Any) -> Kind:
    key, item = map(read_kind, parts) if parts else (None, None)

    def admits(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and (key is None or all(key.read(each) is not REFUSED for each in value))
            and (item is None or all(item.read(each) is not REFUSED for each in value.values()))
        )

    return Kind("a mapping" + (f" to {item.noun} each" if item else ""), keep_if(admits))


def is_path(value: Any) -> bool:
    """Return whether a value can be the path of a file."""
    if type(value) is not str and not isinstance(value, Path):
        return False
    try:
        name = os.fsencode(value)
    except (UnicodeEncodeError, TypeError):
        return False
    is_short = len(name) < LONGEST_PATH
    return b"\0" not in name and is_short and max(map(len, name.split(b"/"))) <= LONGEST_NAME


ARRAY = Kind("an array of numbers", read_array)
FLOATS = ARRAY._replace(read=read_floats)
TIME = Kind("a time", keep_if(lambda value: isinstance(value, units.TIMES)))
NOTHING = Kind("None", keep_if(lambda value: value is None))
PLAIN: dict[Any, Kind | None] = {
    Any: None,
    float: Kind("a number", read_number),
    int: Kind("a whole number", read_whole),
    bool: Kind("True or False", keep_if(lambda value: isinstance(value, bool | np.bool_))),
    str: Kind("text", keep_if(lambda value: isinstance(value, str))),
    type(None): NOTHING,
    npt.ArrayLike: ARRAY,
    **dict.fromkeys((dt.datetime, np.datetime64, pd.Timestamp), TIME),
    Path: Kind("the path of a file or folder", keep_if(is_path), DataError),
}
MAKERS: dict[Any, Callable[..., Kind | None]] = {
    np.ndarray: lambda *parts: FLOATS if np.dtype[np.float64] in parts else ARRAY,
    Sequence: make_sequence_kind,
    list: make_sequence_kind,
    Mapping: make_mapping_kind,
    dict: make_mapping_kind,
    Callable: lambda *_: Kind("a function", keep_if(callable)),
    tuple: make_fixed_kind,
    typing.Annotated: lambda *_: None,
}

"""Check the arguments of public functions against the types that their signatures declare."""

from __future__ import annotations

import builtins
import datetime as dt
import functools
import inspect
import itertools
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


class Kind(NamedTuple):
    noun: str
    read: Callable[[Any], Any]
    """The value as the function takes it, or REFUSED."""
    error: type[BacktestError] = ParameterError


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function so that its arguments are checked against its annotations."""
    return checked_only(*inspect.signature(function).parameters)(function)


def checked_only(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        parameters = inspect.signature(function).parameters.values()
        order = [each.name for each in parameters if each.kind in BY_PLACE]
        order += [each.name for each in parameters if each.kind is each.VAR_POSITIONAL]

        @functools.cache
        def find_asked() -> dict[
            str, Kind
        ]:  # at the first call: annotations may name later modules
            return {k: kind for k, kind in find_kinds(function).items() if k in names}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            asked = find_asked()
            places = itertools.chain(order, itertools.repeat(order[-1] if order else ""))
            read: Any = [read_one(function, asked, *each) for each in zip(places, args)]  # noqa: B905 - places go on
            named: Any = {name: read_one(function, asked, name, kwargs[name]) for name in kwargs}
            return function(*read, **named)

        return call

    return wrap


def checked_fields(cls: type[C]) -> type[C]:
    cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
    return cls


def read_one(function: Callable[..., Any], asked: Mapping[str, Kind], name: str, value: Any) -> Any:
    if (kind := asked.get(name)) is None:
        return value
    found = kind.read(value)
    if found is REFUSED:
        call = function.__qualname__.removesuffix(".__init__")
        call = f"bt.{call}" if hasattr(sys.modules["backtest"], call.partition(".")[0]) else call
        raise kind.error(f"{call}: {name} must be {kind.noun}, got {repr_plain(value)}")
    return found


class Names(dict[str, Any]):
    def __init__(self, scope: Mapping[str, Any]) -> None:
        super().__init__()
        public = vars(sys.modules["backtest"])
        own = {"Path": Path, "Progress": sys.modules["backtest.engine"].Progress}
        self.scopes = (scope, vars(builtins), vars(units), public, own)

    def __missing__(self, name: str) -> Any:
        return next((scope[name] for scope in self.scopes if name in scope), Any)


def find_kinds(function: Callable[..., Any]) -> dict[str, Kind]:
    names = Names(function.__globals__)
    found = {}
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is each.VAR_KEYWORD or each.annotation is each.empty:
            continue
        kind = read_kind(resolve(each.annotation, names))
        if kind is not None:
            may_be_left_out = each.default is None and kind.read(None) is REFUSED
            found[name] = join_kinds([kind, NOTHING]) if may_be_left_out else kind
    return found


def resolve(annotation: Any, names: Names) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, {}, names, include_extras=True)["it"]
    except (AttributeError, TypeError):
        return Any


def check_shape(name: str, values: Any, shape: tuple[int, ...]) -> None:
    """Check the shape of an array; -1 in ``shape`` stands for any length but 0."""
    found = np.shape(values)
    is_fit = len(found) == len(shape) and all(
        n == asked or (asked < 0 < n) for n, asked in zip(found, shape, strict=True)
    )
    if not is_fit:
        asked = ", ".join("n" if each < 0 else f"{each:,}" for each in shape)
        raise ParameterError(f"{name} must be an array of shape ({asked}), got {found}")


def check_lengths(**arrays: Any) -> None:
    first = next(iter(arrays.values()))
    for name, values in arrays.items():
        check_shape(name, values, (len(first),) if np.ndim(first) else (-1,))


def check_broadcast(**arrays: Any) -> None:
    """Check that the shapes of arrays fit each other."""
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        found = ", ".join(f"{name} of {shape}" for name, shape in shapes.items())
        raise ParameterError(f"arrays must be of shapes that fit, got {found}") from error


# ------------------------------------------------------------------------------------------ kinds


def read_kind(hint: Any) -> Kind | None:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN or origin in PLAIN:
        return PLAIN[hint if hint in PLAIN else origin]
    if origin in (typing.Union, types.UnionType):
        kinds = [read_kind(each) for each in parts if not (each is str and Path in parts)]
        return None if None in kinds else join_kinds([each for each in kinds if each])
    if origin is Literal:
        named = ", ".join(map(str, parts))
        return keep_if(f"one of {named}", lambda it: type(it) is str and it in parts)
    if origin is np.ndarray:
        return FLOATS if np.dtype[np.float64] in parts else ARRAY
    if origin in (Sequence, list, tuple):
        return make_sequence_kind(*parts, is_fixed=origin is tuple and Ellipsis not in parts)
    if origin in (Mapping, dict):
        return make_mapping_kind(*parts)
    return make_class_kind(parts[0] if origin is type else hint, is_class=origin is type)


def make_class_kind(base: Any, *, is_class: bool) -> Kind | None:
    if not isinstance(base, type) or base is object or getattr(base, "_is_protocol", False):
        return None
    if is_class:
        noun = f"a class of {base.__name__}"
        return keep_if(noun, lambda it: isinstance(it, type) and issubclass(it, base))
    article = "an" if base.__name__[0] in "AEIO" else "a"
    return keep_if(f"{article} {base.__name__}", lambda it: isinstance(it, base))


def keep_if(noun: str, admits: Callable[[Any], bool]) -> Kind:
    return Kind(noun, lambda value: value if admits(value) else REFUSED)


def join_kinds(kinds: Sequence[Kind]) -> Kind:
    def read(value: Any) -> Any:
        found = (kind.read(value) for kind in kinds)
        return next((each for each in found if each is not REFUSED), REFUSED)

    is_file = any(kind.error is DataError for kind in kinds)
    nouns = dict.fromkeys(kind.noun for kind in kinds)
    return Kind(" or ".join(nouns), read, DataError if is_file else ParameterError)


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
    try:
        is_list = isinstance(value, list | tuple)
        return np.asarray(value, dtype=np.float64) if is_list else REFUSED
    except (TypeError, ValueError, OverflowError):
        return REFUSED


def read_floats(value: Any) -> Any:
    values = read_array(value)
    is_plain = values is REFUSED or values.dtype.kind not in "bu"
    return values if is_plain else values.astype(np.float64)


def is_numeric(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def make_sequence_kind(*parts: Any, is_fixed: bool) -> Kind:
    kinds = [read_kind(each) for each in parts if each is not Ellipsis]
    nouns = [kind.noun if kind else "any" for kind in kinds]

    def read(value: Any) -> Any:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return REFUSED
        if isinstance(value, np.ndarray | pd.DataFrame) and value.ndim != 1:
            return REFUSED
        is_kept = isinstance(value, Sequence | np.ndarray | pd.Series | pd.Index)
        items: Any = value if is_kept else tuple(value)
        if is_fixed and len(items) != len(kinds):
            return REFUSED
        pairs = zip(itertools.cycle(kinds), items)
        is_fit = all(kind is None or kind.read(each) is not REFUSED for kind, each in pairs)
        return items if is_fit else REFUSED

    named = f"a tuple ({', '.join(nouns)})" if is_fixed else f"a sequence ({nouns[0]} each)"
    return Kind(named if parts and any(kinds) else "a sequence", read)


def make_mapping_kind(*parts: Any) -> Kind:
    key, item = map(read_kind, parts) if parts else (None, None)

    def admits(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and (key is None or all(key.read(each) is not REFUSED for each in value))
            and (item is None or all(item.read(each) is not REFUSED for each in value.values()))
        )

    return keep_if("a mapping" + (f" to {item.noun} each" if item else ""), admits)


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
NOTHING = keep_if("None", lambda value: value is None)
TIME = keep_if("a time", lambda value: isinstance(value, units.TIMES))
PLAIN: dict[Any, Kind | None] = {
    Any: None,
    float: Kind("a number", read_number),
    int: Kind("a whole number", read_whole),
    bool: keep_if("True or False", lambda value: isinstance(value, bool | np.bool_)),
    str: keep_if("text", lambda value: isinstance(value, str)),
    type(None): NOTHING,
    npt.ArrayLike: ARRAY,
    Callable: keep_if("a function", callable),
    **dict.fromkeys((dt.datetime, np.datetime64, pd.Timestamp), TIME),
    Path: keep_if("the path of a file or folder", is_path)._replace(error=DataError),
}

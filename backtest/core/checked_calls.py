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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from backtest.core import units
from backtest.core.code_names import is_column, is_frame
from backtest.core.errors import BacktestError, DataError, ParameterError
from backtest.core.json_values import repr_plain

_P = ParamSpec("_P")
_T = TypeVar("_T")
_C = TypeVar("_C")

REFUSED: Any = object()
POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


class Admitted(NamedTuple):
    """What an argument may be; ``read`` returns it as the function expects it, or REFUSED."""

    noun: str
    read: Callable[[Any], Any]
    error: type[BacktestError] = ParameterError


CHECKED: dict[str, Callable[[], Mapping[str, Admitted]]] = {}
"""What the arguments of each checked function may be, read at its first call."""


def checked(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Wrap a function so that its arguments are checked against its annotations."""
    return checked_only(*inspect.signature(function).parameters)(function)


def checked_only(*names: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Return a decorator that checks the arguments of these names before each call.

    An argument is read by its annotation: it is converted to what that says, such as a text to a
    path, or refused with an error. Other arguments are passed on as they are.
    """

    def wrap(function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Return the function with a check of its arguments before each call."""
        # The names of arguments given by position. More than these go to the last one, *args.
        parameters = inspect.signature(function).parameters.values()
        positional = [parameter.name for parameter in parameters if parameter.kind in POSITIONAL]
        name_of_others = positional[-1] if positional else ""

        # Read at the first call and kept: annotations may name modules that are loaded later.
        read_annotations = functools.cache(lambda: find_admitted(function, names))
        CHECKED[f"{function.__module__}.{function.__qualname__}"] = read_annotations

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            """Check and convert the arguments by their annotations, then call the function."""
            admitted = read_annotations()
            read: list[Any] = []
            for place, value in enumerate(args):
                name = positional[place] if place < len(positional) else name_of_others
                read.append(read_one(function, admitted, name, value))

            read_by_name: Any = {}
            for name, value in kwargs.items():
                read_by_name[name] = read_one(function, admitted, name, value)
            return function(*read, **read_by_name)

        return call

    return wrap


def checked_fields(cls: type[_C]) -> type[_C]:
    cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
    return cls


def read_one(
    function: Callable[..., Any], asked: Mapping[str, Admitted], name: str, value: Any
) -> Any:
    """Return an argument as the function expects it, such as a path for a text.

    ``asked`` says by name what the arguments may be; those that it leaves out are not checked.
    Raises the error of what is asked (:class:`Admitted`) if the value is no such thing.
    """
    admitted = asked.get(name)
    if admitted is None:
        return value
    value_read = admitted.read(value)
    if value_read is not REFUSED:
        return value_read

    call = name_call(function)
    text = f"{call}: {name} must be {admitted.noun}, got {repr_plain(value)}"
    kind = inspect.signature(function).parameters[name].kind
    if isinstance(value, list | tuple) and kind is inspect.Parameter.VAR_POSITIONAL:
        text = f"{text}; {call}(*{name}) gives one argument for each"
    raise admitted.error(text)


def name_call(function: Callable[..., Any]) -> str:
    """Return a function as users call it: ``bt.stress``, ``bt.Backtest.sweep``, ``bt.math.ema``.

    The package lists its public names (``__all__``), the functions that are methods of a backtest,
    and its namespaces, such as ``math``, with the module of each.
    """
    call = function.__qualname__.removesuffix(".__init__")
    head = call.partition(".")[0]
    package = sys.modules["backtest"]
    if head in package.__all__:
        return f"bt.{call}"
    if head in package._METHODS:
        return f"bt.Backtest.{call}"

    for name, place in package._MODULES.items():
        namespace = sys.modules.get(f"backtest.{place}")
        if head in getattr(namespace, "__all__", ()):
            return f"bt.{name}.{call}"
    return call


def find_admitted(function: Callable[..., Any], asked: Sequence[str]) -> dict[str, Admitted]:
    """Return what the arguments of these names may be, without those that are not checked.

    Raises TypeError, which names function and argument, if an annotation cannot be read.
    """
    # Annotations are texts. Names that are imported for a checker alone are unknown here: Any.
    names: dict[str, Any] = defaultdict(lambda: Any, {"Path": Path, **vars(units)})
    names |= vars(builtins)
    names |= function.__globals__

    parameters = inspect.signature(function).parameters
    admitted_by_name = {}
    for name in asked:
        if name not in function.__annotations__:
            continue
        try:
            hint = read_annotation(function.__annotations__[name], names)
            admitted = read_hint(hint)
        except Exception as error:
            title = f"{function.__module__}.{function.__qualname__}"
            raise TypeError(f"{title}: the annotation of {name} is none: {error}") from error

        if admitted is None:
            continue
        # An argument whose default is None may be None, whatever its annotation says.
        if parameters[name].default is None and admitted.read(None) is REFUSED:
            admitted = join_admitted([admitted, ABSENT])
        admitted_by_name[name] = admitted
    return admitted_by_name


def read_annotation(annotation: Any, names: dict[str, Any]) -> Any:
    """Return the type that an annotation, which may be a text, is of, among some names."""
    # Python reads the annotations of objects, all at once: so here is an object with this one.
    holder = types.SimpleNamespace(__annotations__={"argument": annotation})
    hints = typing.get_type_hints(holder, {}, names, include_extras=True)
    return hints["argument"]


def read_hint(hint: Any) -> Admitted | None:
    """Return what an annotation admits as an argument, None where that is not checked.

    ``hint`` is a type, or a type of parts, such as ``Sequence[float]``: its origin is Sequence, its
    parts are float.
    """
    origin = typing.get_origin(hint)
    parts = typing.get_args(hint)
    for key in (hint, origin):
        if key in PLAIN:
            return PLAIN[key]
    if origin in (typing.Union, types.UnionType):
        return read_union(parts)
    if origin is Literal:
        names = ", ".join(map(str, parts))
        return keep_if(f"one of {names}", lambda it: type(it) is str and it in parts)
    if origin is np.ndarray:
        return FLOATS if np.dtype[np.float64] in parts else ARRAY

    if origin in (Sequence, list, tuple):
        return read_items(*parts, is_fixed=origin is tuple and Ellipsis not in parts)
    if origin in (Mapping, dict):
        return read_mapping(parts)
    if origin is type:
        return read_class(parts[0], is_class=True)
    return read_class(hint, is_class=False)


def read_union(parts: Sequence[Any]) -> Admitted | None:
    """Return what ``int | str``, an annotation of several types, admits; None if anything.

    A text beside a path is read as a path, so ``str`` adds nothing there.
    """
    kinds = []
    for part in parts:
        if part is str and Path in parts:
            continue

        # One type that is not checked leaves all of them unchecked.
        kind = read_hint(part)
        if kind is None:
            return None
        kinds.append(kind)
    return join_admitted(kinds)


def read_mapping(parts: Sequence[Any]) -> Admitted:
    item = None
    noun = "a mapping"
    if parts:
        item = read_hint(parts[1])
    if item:
        noun = f"a mapping to {item.noun} each"
    return keep_if(noun, lambda it: isinstance(it, Mapping) and fits([item], it.values()))


def read_class(base: Any, *, is_class: bool) -> Admitted | None:
    """Return what admits objects of a class or, with ``is_class``, classes derived from it.

    None where that is not checked: of ``object``, a protocol, or what is no class.
    """
    if not isinstance(base, type) or base is object or getattr(base, "_is_protocol", False):
        return None
    if is_class:
        noun = f"a class of {base.__name__}"
        return keep_if(noun, lambda it: isinstance(it, type) and issubclass(it, base))
    noun = f"a {base.__name__}"
    if base.__name__[0] in "AEIO":
        noun = f"an {base.__name__}"
    return keep_if(noun, lambda it: isinstance(it, base))


def keep_if(noun: str, admits: Callable[[Any], bool]) -> Admitted:
    """Return what admits the values for which a function is true, as they are."""

    def read(value: Any) -> Any:
        if admits(value):
            return value
        return REFUSED

    return Admitted(noun, read)


def join_admitted(kinds: Sequence[Admitted]) -> Admitted:
    """Return what one of several kinds admits, read by the first that does."""

    def read(value: Any) -> Any:
        for kind in kinds:
            value_read = kind.read(value)
            if value_read is not REFUSED:
                return value_read
        return REFUSED

    error: type[BacktestError] = ParameterError
    if any(kind.error is DataError for kind in kinds):
        error = DataError
    nouns = dict.fromkeys(kind.noun for kind in kinds)
    return Admitted(" or ".join(nouns), read, error)


def fits(kinds: Sequence[Admitted | None], items: Iterable[Any]) -> bool:
    """Return whether all items are of their kinds, which are taken in turn."""
    pairs = zip(itertools.cycle(kinds), items)
    return all(kind is None or kind.read(item) is not REFUSED for kind, item in pairs)


def read_items(*parts: Any, is_fixed: bool) -> Admitted:
    """Return what a hint of a sequence admits: how to read a value, and how an error names it.

    ``parts`` are the hints of its items: one for all of them, or with ``is_fixed``, of a tuple, one
    for each place. A kind of None stands for a hint that is not checked.
    """
    kinds = [read_hint(part) for part in parts if part is not Ellipsis] or [None]

    def read(value: Any) -> Any:
        """Return the items of a flat sequence of some kinds, else REFUSED."""
        is_flat = getattr(value, "ndim", 1) == 1 and isinstance(value, Iterable)
        if not is_flat or isinstance(value, str | bytes | Mapping):
            return REFUSED

        items: Any = value
        if not isinstance(value, Sequence | np.ndarray) and not is_column(value):
            items = tuple(value)
        if is_fixed and len(items) != len(kinds):
            return REFUSED
        if not fits(kinds, items):
            return REFUSED
        return items

    # Where no hint is checked, any sequence will do.
    if not any(kinds):
        return Admitted("a sequence", read)
    nouns = [kind.noun if kind else "any" for kind in kinds]
    if is_fixed:
        return Admitted(f"a tuple ({', '.join(nouns)})", read)
    return Admitted(f"a sequence ({nouns[0]} each)", read)


def admit_number(value: Any) -> Any:
    """Return a real number of Python or NumPy as a plain one, else REFUSED."""
    number = value
    if isinstance(value, np.ndarray) and not value.ndim:
        number = value[()]
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        return REFUSED

    try:
        plain = float(number)
    except OverflowError:
        return REFUSED

    # A whole number of Python may be larger than a float can tell apart.
    if isinstance(number, int) and not isinstance(number, np.generic):
        return number
    return plain


def admit_whole(value: Any) -> Any:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        return REFUSED
    if not -(2**63) <= int(value) < 2**63:
        return REFUSED
    return int(value)


def admit_array(value: Any) -> Any:
    """Return an array of numbers, or a list or table as one; REFUSED for anything else.

    A single number is refused too. What is an array or a column stays the same object.
    """
    if isinstance(value, np.ndarray) or is_column(value):
        # Kinds of NumPy: bools, whole numbers with and without a sign, and floats.
        is_numeric = isinstance(value.dtype, np.dtype) and value.dtype.kind in "biuf"
        if not is_numeric or not value.ndim:
            return REFUSED
        return value

    if not isinstance(value, list | tuple) and not is_frame(value):
        return REFUSED
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return REFUSED


def admit_floats(value: Any) -> Any:
    values = admit_array(value)
    if values is REFUSED or values.dtype.kind not in "bu":
        return values
    return values.astype(np.float64)


def is_path(value: Any) -> bool:
    """Return whether a value can be the path of a file: 255 bytes a name, 4,096 in all."""
    if type(value) is not str and not isinstance(value, Path):
        return False
    try:
        name = os.fsencode(value)
    except (UnicodeEncodeError, TypeError):
        return False
    return b"\0" not in name and len(name) < 4096 and max(map(len, name.split(b"/"))) <= 255


ARRAY = Admitted("an array of numbers", admit_array)
FLOATS = ARRAY._replace(read=admit_floats)
ABSENT = keep_if("None", lambda value: value is None)
TIME = keep_if("a time", lambda value: isinstance(value, units.TIMES))
PLAIN: dict[Any, Admitted | None] = {
    Any: None,
    float: Admitted("a number", admit_number),
    int: Admitted("a whole number", admit_whole),
    bool: keep_if("True or False", lambda value: isinstance(value, bool | np.bool_)),
    str: keep_if("text", lambda value: isinstance(value, str)),
    type(None): ABSENT,
    npt.ArrayLike: ARRAY,
    Callable: keep_if("a function", callable),
    **dict.fromkeys((dt.datetime, np.datetime64), TIME),
    Path: keep_if("the path of a file or folder", is_path)._replace(error=DataError),
}


def check_shape(name: str, values: Any, shape: tuple[int, ...]) -> None:
    """Check the shape of an array; -1 in ``shape`` stands for any length but 0."""
    lengths = np.shape(values)
    if len(lengths) == len(shape):
        pairs = zip(lengths, shape, strict=True)
        if all(length == asked or (asked < 0 < length) for length, asked in pairs):
            return
    texts = ["n" if asked < 0 else f"{asked:,}" for asked in shape]
    raise ParameterError(f"{name} must be an array of shape ({', '.join(texts)}), got {lengths}")


def check_broadcast(**arrays: Any) -> None:
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        texts = [f"{name} of {shape}" for name, shape in shapes.items()]
        raise ParameterError(
            f"arrays must be of shapes that fit, got {', '.join(texts)}"
        ) from error

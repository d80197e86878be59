"""Conversion of values for JSON, including NaN and infinity, and for messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MOST_PLAIN = 1e15
"""Whole floats below this are written without a decimal point in messages."""
WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_plain(value: Any) -> Any:
    """Convert data for JSON; numbers that are not finite become the words nan, inf, -inf.

    Examples
    --------
    >>> to_plain({"since": math.inf, "memory": (1.0, math.nan)})
    {'since': 'inf', 'memory': [1.0, 'nan']}
    """
    return _convert(value, str)


def to_json(value: Any) -> Any:
    """Convert data for JSON; arrays become lists, numbers that are not finite become null.

    Examples
    --------
    >>> to_json({"ruin_time": math.nan, "sharpe": np.array([1.0])})
    {'ruin_time': None, 'sharpe': [1.0]}
    """
    return _convert(value, lambda _: None)


def _convert(value: Any, write_special: Callable[[float], str | None]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _convert(item, write_special) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_convert(item, write_special) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _convert(value.tolist(), write_special)
    is_special = isinstance(value, float) and not math.isfinite(value)
    return write_special(value) if is_special else value


def repr_plain(value: object) -> str:
    """Return the repr of a value for messages, with numpy numbers written as Python numbers.

    Examples
    --------
    >>> repr_plain(np.float64(1.5)), repr_plain((np.int64(2), [np.bool_(True)]))
    ('1.5', '(2, [True])')
    """
    return repr(_strip(value))


def repr_given(value: object) -> str:
    """Return the repr of a value that a user gave; a whole float is written without ``.0``.

    Examples
    --------
    >>> repr_given(-5.0), repr_given(np.float64(0.25)), repr_given("abc")
    ('-5', '0.25', "'abc'")
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < MOST_PLAIN:
        return f"{value:.0f}"
    return repr_plain(value)


def _strip(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_strip, value))
    if type(value) in (tuple, list):
        return type(value)(map(_strip, value))
    if type(value) is dict:
        return {_strip(key): _strip(item) for key, item in value.items()}
    return value


def from_plain(value: Any) -> Any:
    """Reverse :func:`to_plain`, for data without texts that equal one of its words."""
    if isinstance(value, dict):
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return WORDS.get(value, value) if isinstance(value, str) else value

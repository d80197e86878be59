"""Numbers that JSON has no word for, and back; and values as a reader writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_plain(value: Any) -> Any:
    """Return data for JSON: numbers that are not finite become the words nan, inf, -inf.

    Examples
    --------
    >>> to_plain({"since": math.inf, "memory": (1.0, math.nan)})
    {'since': 'inf', 'memory': [1.0, 'nan']}
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_json(value: Any) -> Any:
    """Return data for JSON: arrays as lists, numbers that are not finite as null.

    Examples
    --------
    >>> to_json({"ruin_time": math.nan, "sharpe": np.array([1.0])})
    {'ruin_time': None, 'sharpe': [1.0]}
    """
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def repr_plain(value: object) -> str:
    """Return the text of a value for messages, numbers of numpy as those of Python.

    Examples
    --------
    >>> show(np.float64(1.5)), show((np.int64(2), [np.bool_(True)]))
    ('1.5', '(2, [True])')
    """
    return repr(_strip(value))


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
    """Return what :func:`to_plain` wrote, where no text of its own can be one of the words."""
    if isinstance(value, dict):
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return WORDS.get(value, value) if isinstance(value, str) else value

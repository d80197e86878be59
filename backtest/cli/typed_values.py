"""Parse values, ranges and bounds of the command line and of files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from backtest.base import ParameterError, read_range, repr_given

WORDS: Mapping[str, Any] = {"none": None, "true": True, "false": False}
MOST_VALUES = 1_000_000


def split_pair(name: str, text: str, example: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ParameterError(
            f"{name} takes NAME=VALUE, {shlex.quote(example)} for example, got {text!r}"
        )
    return key, value


def parse_typed(text: str) -> Any:
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def parse_entries(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: parse_entries(each) for name, each in given.items()}
    return parse_typed(given) if isinstance(given, str) else given


def format_typed(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr_given(value) if isinstance(value, float) else str(value)


def read_values(given: Any, *, name: str) -> list[Any]:
    """Read values: a list, ``24,72``, ``LOW:HIGH:COUNT`` or ``log:LOW:HIGH:COUNT``."""
    if not isinstance(given, str):
        return list(given) if isinstance(given, list) else [given]
    if ":" not in given:
        return read_list(given, name=name)
    low, high, count, is_log = read_numbers(given, 3, name=name)
    if count != round(count) or not 1 <= count <= MOST_VALUES or (is_log and min(low, high) <= 0):
        raise range_error(given, 3, name=name)
    space = np.geomspace if is_log else np.linspace
    values: list[Any] = space(low, high, int(count)).tolist()
    return values


def read_bounds(given: Any, *, name: str) -> Any:
    """Read what a search may choose from: a list, ``LOW:HIGH`` or ``log:LOW:HIGH``."""
    if not isinstance(given, str):
        return given if isinstance(given, list) else [given]
    if ":" not in given:
        return read_list(given, name=name)
    low, high, is_log = read_numbers(given, 2, name=name)
    between = read_range(name, low, high, is_log=bool(is_log))
    return between if is_log else (low, high)


def read_list(text: str, *, name: str) -> list[Any]:
    words = text.split(",")
    if not all(word.strip() for word in words):
        raise ParameterError(f"{name} must be values between commas, got {text!r}")
    return [parse_typed(word) for word in words]


def read_numbers(text: str, n: int, *, name: str) -> Sequence[float]:
    """Return the ``n`` numbers between colons, and whether they are of a logarithmic scale."""
    parts = text.split(":")
    is_log = parts[0].strip().lower() == "log"
    numbers = [parse_typed(part) for part in parts[is_log:]]
    is_number = [isinstance(each, int | float) and abs(each) < np.inf for each in numbers]
    if len(numbers) != n or not all(is_number):
        raise range_error(text, n, name=name)
    return [*map(float, numbers), is_log]


def range_error(text: str, n: int, *, name: str) -> ParameterError:
    form = "LOW:HIGH:COUNT" if n == 3 else "LOW:HIGH"
    return ParameterError(f"{name} must be {form}, or log:{form} above 0, got {text!r}")


def read_objective(text: str) -> str | dict[str, float]:
    if "=" not in text:
        return text
    weights = {}
    for part in text.split(","):
        name, weight = split_pair("--objective", part, "sharpe=1,turnover=-0.01")
        number = parse_typed(weight)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ParameterError(
                f"a weight of an objective must be a number, got {weight!r} for {name}"
            )
        weights[name] = float(number)
    return weights


def read_bound(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\w+)\s*((?:<=|>=|==|<|>).*)", text)
    if match is None:
        raise ParameterError(
            "a constraint is one bound for a measure, 'max_drawdown<=0.4' for example, got "
            f"{text!r}"
        )
    return match[1], match[2].strip()

"""Weight frames for the signal of instruments: read, computed, and checked for lookahead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import (
    BacktestError,
    Choice,
    FloatArray,
    ParameterError,
    PolicyError,
)
from backtest.engine.lookahead import LookAheadCheck
from backtest.engine.run_warnings import warn_of_weights
from backtest.engine.signal_checks import (
    Sides,
    find_name,
    find_tolerance,
    locate_in,
    mark_checked,
)
from backtest.market import (
    Markets,
    check_columns_of_frame,
    lend,
    name_as_panel,
    read_stamps,
    read_weights,
    require_panel,
    weights_to_frame,
)

SHAPE = "a frame by markets.times and name, or an array of shape (n_bars, n_instruments)"
Function: TypeAlias = Callable[[Markets], Any]
"""Returns the weights of a panel, as a frame or an array of shape (n_bars, n_instruments)."""


def compute_frame(
    markets: Markets,
    function: Function,
    sides: Sides = "both",
    *,
    name: str = "",
    is_checked: bool = True,
) -> pd.DataFrame:
    name = name or getattr(function, "__name__", type(function).__name__)
    answers: list[Any] = []

    def observe_part(part: Markets) -> dict[str, FloatArray] | None:
        try:
            answer = function(part)
        except Exception:  # of too few bars; the whole raises it again
            return None
        _read_answer(answer, part, name)
        return _name_columns(answer, part, markets.names)

    def observe_whole() -> dict[str, FloatArray]:
        answer = _call(function, markets, name)
        answers.append(_read_answer(answer, markets, name))
        return _name_columns(answer, markets, markets.names)

    if not is_checked:
        observe_whole()
        return weights_to_frame(_keep_sides(answers[0], sides), markets)
    check = LookAheadCheck(f"the signal {name}", observe_part, markets, find_tolerance(function))
    check.run(observe_whole)
    frame = weights_to_frame(_keep_sides(answers[0], sides), markets)
    return mark_checked(frame, check.causality.cuts)


def read_frame(
    markets: Markets, frame: pd.DataFrame, sides: Sides = "both", *, carry: bool = False
) -> pd.DataFrame:
    require_panel(markets)
    if not isinstance(frame, pd.DataFrame):
        raise ParameterError(
            f"weights must be a frame by time and instrument, were a {type(frame).__name__}; give "
            "pd.DataFrame(values, index=markets.times, columns=markets.names)"
        )
    given = _carry(markets, frame) if carry else frame
    weights = read_weights(given, markets)
    warn_of_weights(given, markets)
    return weights_to_frame(_keep_sides(weights, sides), markets)


def describe_weights(signal: Any, weights: FloatArray) -> str:
    if len(weights) == 1 and (signal is None or np.ndim(signal) == 0):
        return f"constant {weights[0, -1]:g}"
    if signal is None:
        return "equal weights"
    name = find_name(signal) or ("series" if np.ndim(signal) == 1 else "frame")
    return f"{name} sha256:{hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()}"


def _carry(markets: Markets, frame: pd.DataFrame) -> pd.DataFrame:
    frame = name_as_panel(frame, markets)
    check_columns_of_frame(frame, markets, "signal")
    order = np.argsort(stamps := read_stamps(frame.index, "signal"), kind="stable")
    last = np.searchsorted(stamps[order], markets.time + markets.interval, side="left") - 1
    found = frame.iloc[order[np.maximum(last, 0)]].set_axis(markets.times)
    return found.where(pd.Series(last >= 0, index=markets.times), np.nan)


def _keep_sides(weights: FloatArray, sides: Sides) -> FloatArray:
    Choice("both", "long", "short").check("sides", sides)
    low, high = {"both": (-np.inf, np.inf), "long": (0.0, np.inf), "short": (-np.inf, 0.0)}[sides]
    return np.clip(weights, low, high)


def _call(function: Function, markets: Markets, name: str) -> Any:
    try:
        return function(lend(markets))
    except BacktestError:
        raise
    except Exception as error:
        raise PolicyError(
            f"the signal {name} raised {type(error).__name__}: {error}, in "
            f"{locate_in(function, error)}, given {markets!r}; it also receives parts of the "
            "panel, in which instruments that are not listed yet are missing"
        ) from error


def _read_answer(answer: Any, markets: Markets, name: str) -> FloatArray:
    if not isinstance(answer, pd.DataFrame | np.ndarray | Mapping):
        raise PolicyError(
            f"the signal {name} must return {SHAPE}, returned a {type(answer).__name__}"
        )
    if isinstance(answer, pd.DataFrame) and not _has_all_bars(answer, markets):
        raise PolicyError(
            f"the signal {name} must return {SHAPE}, returned a frame of {len(answer)} by other "
            "times"
        )
    return read_weights(answer, markets, argument=f"the signal {name}")


def _has_all_bars(frame: pd.DataFrame, markets: Markets) -> bool:
    return isinstance(frame.index, pd.DatetimeIndex) and frame.index.equals(markets.times)


def _name_columns(answer: Any, markets: Markets, names: Sequence[str]) -> dict[str, FloatArray]:
    values = _list_values(answer, markets)
    columns = {name: np.zeros(markets.n_bars) for name in names}
    for name, (first, stop) in zip(markets.names, markets.spans, strict=True):
        columns[name][first:stop] = values[name][first:stop] if name in values else np.nan
    return columns


def _list_values(answer: Any, markets: Markets) -> dict[str, FloatArray]:
    if isinstance(answer, pd.DataFrame | np.ndarray):
        values = np.array(answer, dtype=np.float64)
        names = answer.columns if isinstance(answer, pd.DataFrame) else markets.names
        return {str(name): values[:, row] for row, name in enumerate(names)}
    return dict(zip(markets.names, read_weights(answer, markets), strict=True))

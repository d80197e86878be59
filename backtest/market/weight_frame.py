"""Read the signal of several instruments: direction times weight; and the index of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from backtest import base
from backtest.base import DataError, FloatArray, IntArray, ParameterError, check_number, format_time
from backtest.market.files import read_file
from backtest.market.market import Market
from backtest.market.tables import find_stamps, nearest_minute, to_floats, to_utc

Weights: TypeAlias = "pd.DataFrame | FloatArray | Mapping[str, float] | None"
CARRY = "bt.signals.from_frame(markets, frame, carry=True)"


def read_weights(
    signal: Weights,
    markets: Any,
    *,
    first: int = 0,
    argument: str = "signal",
) -> FloatArray:
    """Return the weights decided at each close, of shape (n_instruments, n_bars).

    Parameters
    ----------
    signal : DataFrame, array of shape (n_bars, n_instruments), mapping or None
        Direction times weight: 0.5 is long half of the equity per turn of leverage, -0.5 short. A
        frame has UTC times and names of the panel or of its instruments; one that it lacks is flat,
        and so is a bar that it lacks. A mapping holds constants. None is 1/n in each of the n
        tradable instruments.
    markets : Markets
        The panel. Where an instrument is not tradable, its weight is ignored.
    argument : str
        The name of the argument, for errors.
    first : int
        The bar from which an array may begin instead of the first one.

    Returns
    -------
    FloatArray of shape (n_instruments, n_bars)
        0 where flat, unknown (NaN) or not tradable.
    """
    tradable = markets.tradable()
    if signal is None:
        count = tradable.sum(axis=0)
        return np.where(tradable, 1.0 / np.maximum(count, 1), 0.0)
    values = read_raw_weights(signal, markets, first=first, argument=argument)
    return np.where(tradable & ~np.isnan(values), values, 0.0)


def read_raw_weights(
    signal: Any, markets: Any, *, first: int = 0, argument: str = "signal"
) -> FloatArray:
    """Return weights of shape (n_instruments, n_bars) with NaN where there are none."""
    if isinstance(signal, pd.DataFrame):
        values = _read_frame(name_as_panel(signal, markets), markets, argument)
    elif isinstance(signal, Mapping):
        aliases = find_aliases(signal, markets)
        named: Any = {aliases.get(name, name): value for name, value in signal.items()}
        values = _read_constants(named if len(named) == len(signal) else signal, markets, argument)
    else:
        values = _read_array(signal, markets, argument, first)
    _check_finite(values, markets, argument)
    return values


def name_as_panel(frame: pd.DataFrame, markets: Any) -> pd.DataFrame:
    aliases = find_aliases(frame.columns, markets)
    return frame.rename(columns=aliases) if aliases else frame


def find_aliases(given: Iterable[object], markets: Any) -> dict[object, str]:
    found: dict[object, list[str]] = {}
    for name, market in markets.items():
        found.setdefault(market.instrument, []).append(name)
    known = markets.names_of_whole
    return {
        each: found[each][0]
        for each in given
        if each not in known and len(found.get(each, ())) == 1
    }


def weights_to_frame(weights: FloatArray, markets: Any) -> pd.DataFrame:
    """Return weights of shape (n_instruments, n_bars) by time and instrument."""
    return pd.DataFrame(weights.T, index=markets.times, columns=[*markets.names])


def _read_frame(frame: pd.DataFrame, markets: Any, argument: str) -> FloatArray:
    check_columns_of_frame(frame, markets, argument)
    stamps = read_stamps(frame.index, argument)
    _check_bars(stamps, markets, argument)
    read = pd.DataFrame(_read_numbers(frame, argument), stamps, frame.columns)
    return read.reindex(index=markets.time, columns=[*markets.names]).to_numpy().T.copy()


def check_columns_of_frame(frame: pd.DataFrame, markets: Any, argument: str) -> None:
    check_names(frame.columns, markets, argument)
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ParameterError(f"{argument}: each instrument has one column, {twice!r} has several")


def check_names(names: Any, markets: Any, argument: str) -> None:
    known = markets.names_of_whole
    for name in names:
        if name not in known:
            raise ParameterError(
                f"{argument}: a weight must be of an instrument of the panel, {', '.join(known)}, "
                f"got one of {name!r}{base.did_you_mean(name, known)}"
            )


def read_stamps(index: pd.Index, argument: str) -> IntArray:
    """Return the stamps of an index as int64 UTC ns, each once, in any order."""
    if not isinstance(index, pd.DatetimeIndex):
        raise ParameterError(
            f"{argument} must be indexed by time, was by {type(index).__name__}; "
            "pd.DataFrame(values, index=markets.times, columns=markets.names)"
        )
    if index.tz is None:
        raise ParameterError(
            f"{argument}: the times of weights must be in UTC, have no time zone; "
            "frame.tz_localize('UTC')"
        )
    if index.has_duplicates or index.hasnans:
        raise ParameterError(
            f"{argument} must have one row per time, the index has duplicates or NaT; "
            "frame[~frame.index.duplicated() & frame.index.notna()]"
        )
    return np.asarray(index.as_unit("ns").asi8)


def _check_bars(stamps: IntArray, markets: Any, argument: str) -> None:
    inside = np.sort(stamps[(stamps >= markets.start) & (stamps < markets.end)])
    if not inside.size:
        raise ParameterError(
            f"{argument} must have a row inside the panel, has none from "
            f"{format_time(markets.start)} to {format_time(markets.end)}"
        )
    odd = inside[~np.isin(inside, markets.time)]
    if odd.size:
        raise ParameterError(
            f"{argument}: each row must be stamped with the open of a bar, {odd.size} of "
            f"{inside.size} are not, the first at {format_time(int(odd[0]))}; stamp each "
            f"with the moment from which it is known, and use {CARRY}"
        )
    first, last = np.searchsorted(markets.time, inside[[0, -1]])
    spanned = int(last - first) + 1
    if 2 * inside.size < spanned:
        raise ParameterError(
            f"{argument} must have a row for the bars that it spans, has {inside.size:,} for "
            f"{spanned:,}; bars without one would be flat: stamp each row with the moment from "
            f"which it is known (for daily bars the next midnight), and use {CARRY}"
        )


def _read_constants(given: Mapping[str, float], markets: Any, argument: str) -> FloatArray:
    check_names(given, markets, argument)
    told = {x: check_number(f"{argument}: the weight of {x!r}", each) for x, each in given.items()}
    held = np.array([told.get(name, np.nan) for name in markets.names])
    return np.repeat(held[:, None], markets.n_bars, axis=1)


def _read_array(given: Any, markets: Any, argument: str, first: int) -> FloatArray:
    wanted = (markets.n_bars, len(markets))
    is_array = isinstance(given, np.ndarray | list | tuple)
    values = _read_numbers(given, argument) if is_array else np.empty(0)
    values = values[:, None] if values.ndim == 1 == len(markets) else values
    if values.ndim != 2:
        is_array = np.iterable(given) and not isinstance(given, str)
        kind = f"a {type(given).__name__}" if is_array else base.repr_plain(given)
        raise ParameterError(
            f"{argument} of several instruments must have a value for each of them, got {kind}; "
            f"for constants {{{markets.names[0]!r}: 1.0}}"
        )
    if first and len(values) == markets.n_bars - first:
        values = np.concatenate([np.full((first, values.shape[1]), np.nan), values])
    if values.shape != wanted:
        raise ParameterError(
            f"{argument} must have a row for each bar and a column for each instrument, {wanted}, "
            f"got {values.shape}"
        )
    return values.T.copy()


def _read_numbers(values: Any, argument: str) -> FloatArray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{argument}: weights must be numbers: {error}") from error


def _check_finite(values: FloatArray, markets: Any, argument: str) -> None:
    bad = np.argwhere(np.isinf(values.T))
    if len(bad):
        bar, row = (int(each) for each in bad[0])
        first = format_time(int(markets.time[bar]))
        raise ParameterError(
            f"{argument} must be finite, or NaN for flat, {len(bad):,} of {values.size:,} are not, "
            f"first that of {markets.names[row]!r} at {first}, {values[row, bar]}"
        )


def read_weight_file(path: Path, timezone: str | None = None) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(
            f"a file of weights must exist, {str(path)!r} does not; searched from {Path.cwd()}"
        )
    frame = read_file(path)
    stamps, column = find_stamps(frame, name=path.name)
    times = to_utc(stamps, name=path.name, timezone=timezone)
    names = [name for name in frame.columns if name != column]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(
            f"each instrument must have one column, {str(doubled)!r} has {names.count(doubled)} "
            f"({path.name})"
        )
    values = {str(name): to_floats(frame[name], column=str(name), name=path.name) for name in names}
    return pd.DataFrame(values, index=base.utc_index(times))


NAME = "portfolio"


def make_index(markets: Any, weights: FloatArray) -> Market:
    """Return the index of weights decided at each close, of shape (n_instruments, n_bars).

    Notes
    -----
    Bar t holds the weights w of t - 1, none in the first bar, bought at the opens O of bar t
    without costs. Inside the bar V(u) = V_open (1 + sum_i w_i (P_i(u) / O_i - 1)) along the
    waypoints; the next open is V_open (1 + sum_i w_i (O_i' / O_i - 1)), with the close in place of
    O_i' where an instrument has no next bar. Mark prices are the value of the same holdings at the
    marks.
    """
    panel = markets.panel()
    held = np.zeros_like(weights)
    held[:, 1:] = weights[:, :-1]
    gains = _follow(panel, held)
    opens = _chain(panel, held)
    prices = {name: opens * (1.0 + gain) for name, gain in gains.items()}
    _check_positive(prices, markets, weights)
    none = np.empty(0)
    settled = (
        _sum_settlements(panel, held) if panel.funding_time.size else (none.astype(np.int64), none)
    )
    return Market(
        instrument=NAME,
        interval=markets.interval,
        time=markets.time,
        **prices,
        volume=np.full(markets.n_bars, np.nan),
        has_mark=any(market.has_mark for market in markets.values()),
        funding_time=settled[0],
        funding_rate=settled[1],
        funding_mark=np.full(settled[0].size, np.nan),
        columns={},
        synthetic=markets.synthetic,
        sessions=markets.sessions,
        decide=0,
        filled={},
        source=f"{markets!r}.index(...)",
    )


def _add(held: FloatArray, price: FloatArray, opens: FloatArray) -> FloatArray:
    """Return sum_i w_i (P_i / O_i - 1), of shape (n_bars,), without what is not held."""
    total = np.zeros(held.shape[1])
    for weight, one, other in zip(held, price, opens, strict=True):
        total += np.where(weight != 0.0, weight * (one / other - 1.0), 0.0)
    return total


def _follow(panel: Any, held: FloatArray) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    is_low_first = panel.close >= panel.open
    for lead in ("", "mark_"):
        begin, high, low, end = (
            getattr(panel, f"{lead}{n}") for n in ("open", "high", "low", "close")
        )
        first, second = np.where(is_low_first, low, high), np.where(is_low_first, high, low)
        points = [_add(held, price, panel.open) for price in (begin, first, second, end)]
        found[f"{lead}open"], found[f"{lead}close"] = points[0], points[3]
        found[f"{lead}high"] = np.max(points, axis=0)
        found[f"{lead}low"] = np.min(points, axis=0)
    return found


def _chain(panel: Any, held: FloatArray) -> FloatArray:
    following = np.roll(panel.open, -1, axis=1)
    following[:, -1] = np.nan
    following = np.where(np.isnan(following), panel.close, following)
    growth = 1.0 + _add(held, following, panel.open)
    return np.concatenate([[1.0], np.cumprod(growth[:-1])])


def _sum_settlements(panel: Any, held: FloatArray) -> tuple[IntArray, FloatArray]:
    bar = panel.funding_bar - panel.funding_is_open
    weight = np.where(bar >= 0, held[panel.funding_instrument, np.maximum(bar, 0)], 0.0)
    moments = np.stack(
        [panel.funding_bar, panel.funding_is_open, nearest_minute(panel.funding_time)]
    )
    is_new = np.concatenate([[True], np.any(np.diff(moments, axis=1) != 0, axis=0)])
    group = np.cumsum(is_new) - 1
    rates = np.zeros(int(group[-1]) + 1)
    np.add.at(rates, group, weight * panel.funding_rate)
    return panel.funding_time[is_new], rates


def _check_positive(prices: dict[str, Any], markets: Any, weights: FloatArray) -> None:
    lowest = np.minimum(prices["low"], prices["mark_low"])
    bad = np.flatnonzero(~(lowest > 0.0))
    if not bad.size:
        return
    bar = int(bad[0])
    gross = float(np.abs(weights[:, max(bar - 1, 0)]).sum())
    raise DataError(
        f"the portfolio index must stay over 0, falls to {lowest[bar]:.4g} with weights of "
        f"{gross:.4g} in total in bar {bar}, {format_time(int(markets.time[bar]))} UTC; leverage "
        "belongs to the policies, the weights to 1 in total"
    )

"""Signals that users give, read as numbers by bar, or refused with a cure."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest import market as m
from backtest.core.code_names import is_frame, is_series, pd
from backtest.market import Market, Markets
from backtest.signals.computed import NOTE, read_note, require_unit, write_note

CARRY_SERIES = f"{m.CARRIED}bt.signals.from_series(market, signal.shift(1), carry=True)"


def read_signal(signal: object, market: Market, first: int = 0) -> core.FloatArray:
    """Return the signal as an array of shape (n_bars,), or (1,) for a constant, checked."""
    n = market.n_bars
    if signal is None:
        return np.ones(1)
    if np.ndim(signal) == 0:  # type: ignore[arg-type]
        return np.array([core.check_range("signal", signal, low=-1.0, high=1.0)])
    if is_series(signal):
        signal = core.by_dates(signal)
        m.read_dates(signal.index, "signal", m.BY_BARS)
        values = core.to_numbers(signal.reindex(market.times), "signal")
    else:
        values = core.to_numbers(signal, "signal")
    if len(values) == n - first and first > 0:
        values = np.concatenate([np.full(first, np.nan), values])
    if values.shape != (n,):
        raise core.ParameterError(
            f"signal must have one value per bar, {n}, got {values.shape}; give a Series indexed "
            "as market.times"
        )
    is_late = np.arange(n) >= first
    require_unit(
        "signal", values, ~(np.abs(values) <= 1.0) & is_late, market, suggest(signal, values)
    )
    return np.ascontiguousarray(values)


def suggest(signal: object, values: core.FloatArray) -> str:
    if (np.abs(values) > 1.0).any():
        return "; np.clip(signal, -1, 1)"
    if not is_series(signal):
        return "; flat where it is unknown: np.nan_to_num(signal)"
    if 2 * np.isnan(values).sum() < len(values):
        return "; flat where it is unknown: bt.signals.from_series(market, signal)"
    return f"; {CARRY_SERIES}"


def cut_rows(given: Any, whole: Market | Markets, part: Market | Markets) -> Any:
    """Return the rows of a signal of a market that are of a part of it, with its note."""
    if isinstance(given, pd.Series | pd.DataFrame):
        given = core.by_dates(given)
        index, time = given.index, core.utc_index(part.time)
        if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
            return given  # refused where it is read
        note, is_kept = read_note(given), index < time[-1] + pd.Timedelta(part.interval)
        if part.start > whole.start:
            is_kept &= index >= time[0]
        kept: Any = given[is_kept]
        return write_note(kept, **note) if note else kept
    if not isinstance(given, np.ndarray | list | tuple):
        return given
    known, own = (m.find_clock(each).seen.time for each in (whole, part))
    first = int(np.searchsorted(known, own[0]))
    gone = len(known) - first - len(own)
    return given[min(first, len(given)) : max(len(given) - gone, 0)]


def describe_weights(signal: Any, values: core.FloatArray) -> str:
    if len(np.atleast_2d(values)) == 1 and (signal is None or np.ndim(signal) == 0):
        return f"constant {values.flat[-1]:g}"
    if signal is None:
        return "equal weights"
    name = read_note(signal).get("text") or (
        "series" if values.ndim == 1 or np.ndim(signal) == 1 else "frame"
    )
    return f"{name} sha256:{hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


class Directions(NamedTuple):
    """A signal as it was given, and its values at the bars that policies see of a market.

    ``values`` are of shape (n_bars,), (1,) for a constant, or (n_instruments, n_bars).
    """

    given: Any
    values: core.FloatArray
    market: Any

    def describe(self) -> str:
        return describe_weights(self.given, self.values)

    def keep_times(self) -> Any:
        copy: Any
        if self.values.ndim == 2:
            copy = None if self.given is None else m.weights_to_frame(self.values, self.market)
        elif len(self.values) == 1:
            copy = float(self.values[0])
        else:
            copy = pd.Series(self.values, index=self.market.times)
        if isinstance(self.given, pd.Series | pd.DataFrame) and NOTE in self.given.attrs:
            copy.attrs[NOTE] = self.given.attrs[NOTE]
        return copy


def read_directions(signal: Any, market: Market | Markets, first: int = 0) -> Directions:
    """Return the signal on the bars of policies; before bar ``first`` it may be unknown."""
    clock = m.find_clock(market)
    read = m.read_weights if isinstance(clock.seen, Markets) else read_signal
    return Directions(signal, read(signal, clock.seen, first=clock.at(first)), clock.seen)


def warn_of_weights(signal: object, markets: Markets) -> None:
    signal = core.by_dates(signal)
    index = getattr(signal, "index", None)
    is_table = is_series(signal) or is_frame(signal)
    if is_table and isinstance(index, pd.DatetimeIndex):
        stamps = core.read_stamps(index, name="signal", error=core.ParameterError)
        what = "rows of the signal lie outside the market and are not used"
        core.warn_of_outside(what, stamps, markets.start, markets.end)
    frame: Any = None
    if is_frame(signal):
        frame, times = signal, m.find_clock(markets).seen.times[:-1]
        has_row = np.asarray(times.isin(frame.index))
        lacking, rows = np.flatnonzero(~has_row & (np.cumsum(has_row) > 0)), int(has_row.sum())
        if len(lacking):
            core.warn_caller(
                f"the weights have {rows:,} row{'s' * (rows != 1)}, and the {len(lacking):,} bars "
                f"without one are flat, first at {times[lacking[0]]:%Y-%m-%d %H:%M} UTC; "
                f"{m.CARRY}, or --carry-weights if so",
                core.WeightWarning,
            )
    elif isinstance(signal, np.ndarray) and signal.ndim == 2:
        frame = pd.DataFrame(signal, columns=[*markets.names])
    if frame is None or not len(frame):
        return
    if unknown := [str(name) for name in frame.columns[frame.isna().all()]]:
        core.warn_caller(
            f"the weights of {', '.join(unknown)} are NaN in all {len(frame):,} rows, which "
            "trades nothing; give numbers, 0 for flat, or leave the column out",
            core.WeightWarning,
        )

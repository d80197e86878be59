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


def read_signal(
    signal: object,
    market: Market,
    first: int = 0,
) -> core.FloatArray:
    """Return the signal as an array of shape (n_bars,), or (1,) for a constant, checked.

    None is a constant 1, long. Bars before ``first`` are not traded, so their values may be
    anything. Raises ParameterError for another number of values, or one outside [-1, 1].
    """
    n_bars = market.n_bars
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

    # An array may have values for the bars from ``first`` on alone.
    if len(values) == n_bars - first and first > 0:
        unknown = np.full(first, np.nan)
        values = np.concatenate([unknown, values])
    if values.shape != (n_bars,):
        raise core.ParameterError(
            f"signal must have one value per bar, {n_bars}, got {values.shape}; give a Series "
            "indexed as market.times"
        )

    # NaN is no direction either.
    is_inside = np.abs(values) <= 1.0
    is_traded = np.arange(n_bars) >= first
    is_bad = ~is_inside & is_traded
    require_unit(
        "signal",
        values,
        is_bad,
        market,
        suggest(signal, values),
    )
    return np.ascontiguousarray(values)


def suggest(signal: object, values: core.FloatArray) -> str:
    """Return the clause that tells a user how to mend a signal with wrong values."""
    if (np.abs(values) > 1.0).any():
        return "; np.clip(signal, -1, 1)"

    # All other wrong values are NaN.
    if not is_series(signal):
        return "; flat where it is unknown: np.nan_to_num(signal)"

    # A series that misses most bars was made from longer ones, and holds between them.
    n_missing = int(np.isnan(values).sum())
    if 2 * n_missing < len(values):
        return "; flat where it is unknown: bt.signals.from_series(market, signal)"
    return f"; {CARRY_SERIES}"


def cut_rows(
    signal: Any,
    whole: Market | Markets,
    part: Market | Markets,
) -> Any:
    """Return the rows of a signal of a market that are of a part of it, with its note.

    Of an array, as many rows are cut at each end as the part lacks bars there: one of a wrong
    length stays wrong by as many rows, so that its reader refuses it.
    """
    if isinstance(signal, pd.Series | pd.DataFrame):
        return cut_table(signal, whole, part)
    if not isinstance(signal, np.ndarray | list | tuple):
        return signal

    whole_times = m.find_clock(whole).seen.time
    part_times = m.find_clock(part).seen.time
    n_before = int(np.searchsorted(whole_times, part_times[0]))
    n_after = len(whole_times) - n_before - len(part_times)

    first = min(n_before, len(signal))
    stop = max(len(signal) - n_after, 0)
    return signal[first:stop]


def cut_table(
    signal: pd.Series | pd.DataFrame,
    whole: Market | Markets,
    part: Market | Markets,
) -> Any:
    """Return the rows of a table that lie in a part of a market.

    A part that begins with the market has the rows before it too.
    """
    table = core.by_dates(signal)
    index = table.index
    time = core.utc_index(part.time)
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        return table  # refused where it is read

    note = read_note(table)
    end = time[-1] + pd.Timedelta(part.interval)
    is_inside = index < end
    if part.start > whole.start:
        is_inside &= index >= time[0]
    rows: Any = table[is_inside]
    if not note:
        return rows
    return write_note(rows, **note)


def describe_weights(signal: Any, values: core.FloatArray) -> str:
    """Return what a signal is in a manifest: a constant, or its name with a hash of its values."""
    is_single = len(np.atleast_2d(values)) == 1
    if is_single and (signal is None or np.ndim(signal) == 0):
        return f"constant {values.flat[-1]:g}"
    if signal is None:
        return "equal weights"

    name = "frame"
    if values.ndim == 1 or np.ndim(signal) == 1:
        name = "series"
    name = read_note(signal).get("text") or name
    content = np.ascontiguousarray(values).tobytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{name} sha256:{digest}"


class Directions(NamedTuple):
    """A signal as it was given, and its values at the bars that policies see of a market.

    ``values`` are of shape (n_bars,), (1,) for a constant, or (n_instruments, n_bars).
    """

    given: Any
    values: core.FloatArray
    market: Any

    def describe(self) -> str:
        """Return what the signal is in a manifest."""
        return describe_weights(self.given, self.values)

    def keep_times(self) -> Any:
        """Return the signal by time, as it may be given again with another market.

        That is a number, a series, a frame of weights by instrument, or None if there was none.
        The note that says how it was made stays with it.
        """
        by_time = self._index_by_time()
        if isinstance(self.given, pd.Series | pd.DataFrame) and NOTE in self.given.attrs:
            by_time.attrs[NOTE] = self.given.attrs[NOTE]
        return by_time

    def _index_by_time(self) -> Any:
        """Return the values as a number, a series or a frame, as :meth:`keep_times` says."""
        is_of_several = self.values.ndim == 2
        if is_of_several:
            # Weights that nobody gave are those of a market without a signal.
            if self.given is None:
                return None
            return m.weights_to_frame(self.values, self.market)

        # A single value is the same at all bars.
        if len(self.values) == 1:
            return float(self.values[0])
        return pd.Series(self.values, index=self.market.times)


def read_directions(
    signal: Any,
    market: Market | Markets,
    first: int = 0,
) -> Directions:
    """Return the signal on the bars of policies; before bar ``first`` it may be unknown."""
    clock = m.find_clock(market)
    read: Any = read_signal
    if isinstance(clock.seen, Markets):
        read = m.read_weights
    values = read(signal, clock.seen, first=clock.at(first))
    return Directions(signal, values, clock.seen)


def warn_of_weights(signal: object, markets: Markets) -> None:
    """Warn of rows that are not used, of bars without a row, and of columns without a number."""
    signal = core.by_dates(signal)
    index = getattr(signal, "index", None)
    is_table = is_series(signal) or is_frame(signal)
    if is_table and isinstance(index, pd.DatetimeIndex):
        stamps = core.read_stamps(index, name="signal", error=core.ParameterError)
        what = "rows of the signal lie outside the market and are not used"
        core.warn_of_outside(what, stamps, markets.start, markets.end)

    if is_frame(signal):
        warn_of_missing_rows(signal, markets)
        warn_of_unknown(signal)
    elif isinstance(signal, np.ndarray) and signal.ndim == 2:
        warn_of_unknown(pd.DataFrame(signal, columns=[*markets.names]))


def warn_of_missing_rows(frame: pd.DataFrame, markets: Markets) -> None:
    """Warn of bars after the first row that have none: they are flat."""
    times = m.find_clock(markets).seen.times[:-1]
    has_row = np.asarray(times.isin(frame.index))
    is_after_first = np.cumsum(has_row) > 0
    missing = np.flatnonzero(~has_row & is_after_first)
    if len(missing):
        core.warn_caller(
            f"the weights have {core.count_nouns(int(has_row.sum()), 'row')}, and the "
            f"{len(missing):,} bars without one are flat, first at "
            f"{times[missing[0]]:%Y-%m-%d %H:%M} UTC; {m.CARRY}",
            core.WeightWarning,
        )


def warn_of_unknown(frame: pd.DataFrame) -> None:
    """Warn of instruments whose weights are all NaN."""
    if not len(frame):
        return
    unknown = [str(name) for name in frame.columns[frame.isna().all()]]
    if unknown:
        core.warn_caller(
            f"the weights of {', '.join(unknown)} are NaN in all {len(frame):,} rows, which "
            "trades nothing; give numbers, 0 for flat, or leave the column out",
            core.WeightWarning,
        )

"""Read the signal of several instruments: direction times weight; and the index of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from backtest import core
from backtest.core import ANY_NUMBER, DataError, FloatArray, IntArray, ParameterError, format_time
from backtest.core.code_names import is_frame, pd
from backtest.market.files import read_file
from backtest.market.market import Market
from backtest.market.tables import Defects, Schema, nearest_minute, read_dates, read_frame

Weights: TypeAlias = "pd.DataFrame | FloatArray | Mapping[str, float] | None"
CARRIED = (
    "values of longer bars hold from the stamp of the next, when theirs is over (without shift(1) "
    "if the stamp is when they are known): "
)
CARRY = f"{CARRIED}bt.signals.from_frame(markets, frame.shift(1), carry=True)"


def read_weights(
    signal: Weights, markets: Any, *, first: int = 0, argument: str = "signal"
) -> FloatArray:
    """Return the weights decided at each close, of shape (n_instruments, n_bars).

    ``signal`` is direction times weight: 0.5 is long half of the equity per turn of leverage, -0.5
    short. A frame has UTC times and names of the panel or of its instruments; one that it lacks is
    flat, and so is a bar that it lacks. A mapping holds constants, None is 1/n in each of the n
    tradable instruments. An array, of shape (n_bars, n_instruments), may begin at bar ``first``.
    Weights are 0 where flat, unknown (NaN) or not tradable. ``argument`` is named in errors.
    """
    tradable = markets.tradable()
    if signal is None:
        count = tradable.sum(axis=0)
        equal_weight = 1.0 / np.maximum(count, 1)
        return np.where(tradable, equal_weight, 0.0)

    values = read_raw_weights(signal, markets, first=first, argument=argument)
    is_known = ~np.isnan(values)
    return np.where(tradable & is_known, values, 0.0)


def read_raw_weights(
    signal: Any, markets: Any, *, first: int = 0, argument: str = "signal"
) -> FloatArray:
    """Return weights of shape (n_instruments, n_bars), NaN where none was decided.

    ``signal`` is a mapping of constants, a frame by time and name, or an array of shape (n_bars,
    n_instruments), which may begin at bar ``first``. ``argument`` is its name in errors.
    """
    try:
        if isinstance(signal, Mapping):
            values = read_constants(signal, markets, argument)
        elif is_frame(signal):
            values = read_frame_values(signal, markets, argument)
        elif isinstance(signal, np.ndarray | list | tuple):
            values = core.to_real(signal)
        else:
            values = np.empty(0)  # whose shape is refused
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{argument}: weights must be numbers: {error}") from error

    # One instrument needs no columns. Bars before ``first`` have no weight.
    if values.ndim == 1 == len(markets):
        values = values[:, None]
    if first and values.ndim == 2 and len(values) == markets.n_bars - first:
        before = np.full((first, values.shape[1]), np.nan)
        values = np.concatenate([before, values])

    shape = (markets.n_bars, len(markets))
    if values.shape != shape:
        wrong_shape: object = values.shape
        if not values.size:
            wrong_shape = core.repr_plain(signal)
        raise ParameterError(
            f"{argument} of several instruments must have a row for each bar and a column for each "
            f"instrument, {shape}, got {wrong_shape}; for constants {{{markets.names[0]!r}: 1.0}}"
        )
    check_finite(values, markets, argument)
    return values.T.copy()


def check_finite(values: FloatArray, markets: Any, argument: str) -> None:
    """Raise ParameterError if a weight of shape (n_bars, n_instruments) is infinite."""
    infinite = np.argwhere(np.isinf(values))
    if not len(infinite):
        return

    bar, column = infinite[0].tolist()
    first_time = format_time(int(markets.time[bar]))
    raise ParameterError(
        f"{argument} must be finite, or NaN for flat, {len(infinite):,} of {values.size:,} are "
        f"not, first for {markets.names[column]!r} at {first_time}, {values[bar, column]}"
    )


def read_constants(weights: Mapping[Any, Any], markets: Any, argument: str) -> FloatArray:
    """Return constant weights by instrument as an array, the same at each bar: (n_bars, n).

    NaN for an instrument that has none. ``argument`` is named in errors.
    """
    constants = {}
    for name, weight in weights.items():
        constants[name] = ANY_NUMBER.check(f"{argument}: the weight of {name!r}", weight)

    names = name_instruments(constants, markets, argument)
    by_name = dict(zip(names, constants.values(), strict=True))
    row = np.full(len(markets), np.nan)
    for i, name in enumerate(markets.names):
        if name in by_name:
            row[i] = by_name[name]
    return np.broadcast_to(row, (markets.n_bars, len(markets)))


def read_frame_values(frame: pd.DataFrame, markets: Any, argument: str) -> FloatArray:
    """Return a frame of weights by bar and instrument, (n_bars, n), NaN where it lacks one."""
    named = name_columns(frame, markets, argument)
    stamps = read_dates(named.index, argument)
    check_bars(stamps, markets, argument, CARRY)
    weights = pd.DataFrame(core.to_real(named), stamps, named.columns)
    return weights.reindex(index=markets.time, columns=[*markets.names]).to_numpy()


def name_columns(frame: pd.DataFrame, markets: Any, argument: str) -> pd.DataFrame:
    """Return a frame with names of the panel for the names of its instruments."""
    return frame.set_axis(name_instruments(frame, markets, argument), axis=1)


def name_instruments(columns: Iterable[Any], markets: Any, argument: str) -> list[Any]:
    """Return for each name that a signal uses the name that the panel has for it.

    A signal may name an instrument as the panel does, or by the instrument's own name, where only
    one market of the panel is of it. Raises ParameterError for an unknown name, or two of one.
    """
    known = markets.last_opens
    names_by_instrument: dict[object, list[str]] = {}
    for name, market in markets.items():
        names_by_instrument.setdefault(market.instrument, []).append(name)

    names_of_panel: list[Any] = []
    for column in columns:
        name = column
        names = names_by_instrument.get(column, [])
        if column not in known and len(names) == 1:
            name = names[0]
        names_of_panel.append(name)

    for k, name in enumerate(names_of_panel):
        core.Choice(*known).check(f"{argument}: the instrument of a weight", name)
        if name in names_of_panel[:k]:
            raise ParameterError(
                f"{argument}: each instrument has one column, {name!r} has several"
            )
    return names_of_panel


def weights_to_frame(weights: FloatArray, markets: Any) -> pd.DataFrame:
    """Return weights of shape (n_instruments, n_bars) by time and instrument."""
    return pd.DataFrame(weights.T, index=markets.times, columns=[*markets.names])


def check_bars(stamps: IntArray, markets: Any, argument: str, cure: str) -> None:
    """Raise ParameterError if rows of a signal are no opens of bars, or lack half of those spanned.

    ``stamps`` are the times of its rows, UTC ns; ``cure`` ends the messages. Rows outside the time
    of the markets are ignored.
    """
    inside = np.sort(stamps[(stamps >= markets.start) & (stamps < markets.end)])
    if not inside.size:
        raise ParameterError(
            f"{argument} must have a row inside the {markets.noun}, has none from "
            f"{format_time(markets.start)} to {format_time(markets.end)}"
        )
    off_bars = inside[~np.isin(inside, markets.time)]
    if off_bars.size:
        raise ParameterError(
            f"{argument}: each row must be stamped with the open of a bar, {off_bars.size} of "
            f"{inside.size} are not, the first at {format_time(int(off_bars[0]))}; {cure}"
        )

    first = np.searchsorted(markets.time, inside[0])
    last = np.searchsorted(markets.time, inside[-1])
    spanned = int(last - first) + 1
    if 2 * inside.size < spanned:
        raise ParameterError(
            f"{argument} must have a row for the bars that it spans, has {inside.size:,} for "
            f"{spanned:,}; bars without one would be flat; {cure}"
        )


def read_weight_file(path: Path, timezone: str | None = None) -> pd.DataFrame:
    """Return weights from a file: any columns of numbers, by UTC time."""
    defects = Defects()
    any_columns = Schema((), 0, "keep")
    frame = read_file(path)
    table = read_frame(frame, any_columns, defects, name=path.name, timezone=timezone, is_file=True)
    defects.refuse(path.name)
    index = core.utc_index(table.time)
    return pd.DataFrame(table.columns, index=index)


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
    prices = compute_index_prices(panel, held)
    check_index(prices, held, markets)
    settled = sum_funding(panel, held)
    return Market(
        instrument="portfolio",
        interval=markets.interval,
        time=markets.time,
        **prices,
        volume=np.full(markets.n_bars, np.nan),
        has_mark=any(market.has_mark for market in markets.values()),
        funding_time=settled["time"].to_numpy(),
        funding_rate=settled["rate"].to_numpy(),
        funding_mark=np.full(len(settled), np.nan),
        columns={},
        synthetic=markets.synthetic,
        sessions=markets.sessions,
        filled={},
        source=f"{markets!r}.index(...)",
    )


def compute_index_prices(panel: Any, held: FloatArray) -> dict[str, Any]:
    """Return last and mark prices of the index, (n_bars,), of what is held in each bar.

    ``held`` are weights of shape (n_instruments, n_bars), bought at the opens of their bar. The
    formulas are those of :func:`make_index`.
    """

    def sum_gains(prices: FloatArray) -> FloatArray:
        """Return the gain since the open of each bar at some prices, as a part of the value."""
        total = np.zeros(held.shape[1])
        for weight, price, opened in zip(held, prices, panel.open, strict=True):
            gain = weight * (price / opened - 1.0)
            total += np.where(weight != 0.0, gain, 0.0)
        return total

    # From open to open; an instrument without a next bar ends at its close.
    ends = np.roll(panel.open, -1, axis=1)
    ends[:, -1] = np.nan
    ends = np.where(np.isnan(ends), panel.close, ends)
    growth = 1.0 + sum_gains(ends)
    opens = np.ones(held.shape[1])
    opens[1:] = np.cumprod(growth[:-1])

    # All instruments are at their first extreme together, and then at their second.
    is_low_first = panel.close >= panel.open
    index: dict[str, Any] = {}
    for lead in ("", "mark_"):
        high = getattr(panel, f"{lead}high")
        low = getattr(panel, f"{lead}low")
        at_open = sum_gains(getattr(panel, f"{lead}open"))
        at_first = sum_gains(np.where(is_low_first, low, high))
        at_second = sum_gains(np.where(is_low_first, high, low))
        at_close = sum_gains(getattr(panel, f"{lead}close"))

        gains = np.stack([at_open, at_first, at_second, at_close])
        index[f"{lead}open"] = opens * (1.0 + at_open)
        index[f"{lead}high"] = opens * (1.0 + gains.max(axis=0))
        index[f"{lead}low"] = opens * (1.0 + gains.min(axis=0))
        index[f"{lead}close"] = opens * (1.0 + at_close)
    return index


def check_index(prices: Mapping[str, Any], held: FloatArray, markets: Any) -> None:
    """Raise DataError if the value of an index falls to 0 or under, from which it has no returns.

    ``prices`` are those of the index by name, ``held`` the weights of shape (n, n_bars).
    """
    lowest = np.minimum(prices["low"], prices["mark_low"])
    bars = np.flatnonzero(~(lowest > 0.0))
    if not bars.size:
        return

    bar = int(bars[0])
    gross = float(np.abs(held[:, bar]).sum())
    raise DataError(
        f"the portfolio index must stay over 0, falls to {lowest[bar]:.4g} with weights of "
        f"{gross:.4g} in total in bar {bar}, {format_time(int(markets.time[bar]))} UTC; "
        "leverage belongs to the policies, the weights to 1 in total"
    )


def sum_funding(panel: Any, held: FloatArray) -> pd.DataFrame:
    """Return time and rate of the settlements of the index: of equal minutes they are added.

    A settlement at an open is paid on what was held in the bar before.
    """
    # Before the first bar nothing was held.
    bars = panel.funding_bar - panel.funding_is_open
    weights = held[panel.funding_instrument, np.maximum(bars, 0)]
    weights = np.where(bars >= 0, weights, 0.0)

    settlements = pd.DataFrame(
        {
            "bar": panel.funding_bar,
            "is_open": panel.funding_is_open,
            "minute": nearest_minute(panel.funding_time),
            "time": panel.funding_time,
            "rate": weights * panel.funding_rate,
        }
    )

    # By names of columns: of arrays pandas writes each as a text to see that it is no name.
    moments = settlements.groupby(["bar", "is_open", "minute"], sort=False)
    return pd.DataFrame({"time": moments["time"].first(), "rate": moments["rate"].sum()})

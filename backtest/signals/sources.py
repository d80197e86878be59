"""Signals of a Series, a frame, a function or a portfolio of vectorbt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

from backtest import core
from backtest import market as m
from backtest.core.code_names import is_frame, is_series, pd
from backtest.market import Market, Markets
from backtest.signals.computed import Sides, compute_signal, keep_sides, make_signal
from backtest.signals.directions import CARRY_SERIES, warn_of_weights


def find_carried(stamps: core.IntArray, market: Market | Markets) -> core.IntArray:
    """Return for each bar the place of the row that holds: the last stamped before its close.

    -1 where there is none. Warns of rows outside the market.
    """
    what = "rows of the carried signal lie outside the market"
    earlier = stamps[stamps < market.start]
    if earlier.size:
        last = core.format_time(int(earlier[-1]))
        what = f"{what}, whose first bars hold the row of {last}"

    # The first stamp after the end is expected: rows of longer bars are stamped at their ends.
    later = stamps[stamps >= market.end]
    end = market.end
    if later.size:
        end = int(later[0]) + 1
    core.warn_of_outside(what, stamps, market.start, end)

    closes = market.time + market.interval
    return np.searchsorted(stamps, closes, side="left") - 1


Fills: TypeAlias = Literal["close", "open"]


@core.checked_only("sides", "carry")
def from_series(
    market: Market,
    series: pd.Series,
    sides: Sides = "both",
    *,
    carry: bool = False,
) -> pd.Series:
    """Return a Series by UTC time as a signal.

    Parameters
    ----------
    market : Market
        Whose bars it is for.
    series : Series
        Numbers in [-1, 1], or True and False for long and flat; NaN is flat.
    sides : str
        ``"both"``, ``"long"`` or ``"short"``.
    carry : bool
        False: each stamp is the open of one of the market's bars, and the value was made of
        nothing after that bar's close; bars without a value are flat. True: each stamp is the
        moment from which the value is known, and it holds until the next: for slower bars
        stamped at their open, add their length to the index, ``daily.set_axis(daily.index +
        pd.Timedelta("1D"))``.

    Returns
    -------
    Series of shape (n_bars,)

    Notes
    -----
    With ``carry`` a bar takes the last value stamped before its close, never at it. Without it,
    values for fewer than half of the bars between the first stamp and the last are refused: they
    are mostly those of longer bars, known only when these close.
    """
    market = m.unwrap_market(
        market,
        "a signal of this kind is of one market (call it for each, markets[name], or use "
        "from_frame or from_function)",
    )
    if not is_series(series):
        raise core.ParameterError(
            f"signal must be a Series by time, got a {type(series).__name__}; give "
            "pd.Series(values, index=market.times)"
        )
    stamps = m.read_dates(series.index, "signal", m.BY_BARS)
    values = core.to_numbers(series, "signal")
    if not series.index.is_monotonic_increasing:
        raise core.ParameterError(
            "signal must be in order of time, its index goes back; sort_index()"
        )

    # Each stamp is when its value is known: a bar has the last one, NaN before the first.
    if carry:
        last = find_carried(stamps, market)
        carried = np.where(last >= 0, values[last], np.nan)
        return make_signal(market, carried, sides)

    # Each stamp is the open of a bar.
    m.check_bars(stamps, market, "signal", CARRY_SERIES)
    warn_of_weights(series, m.as_markets(market))
    by_bar = pd.Series(values, stamps).reindex(market.time).to_numpy()
    return make_signal(market, by_bar, sides)


@core.checked_only("sides", "carry")
def from_frame(
    markets: Markets,
    frame: pd.DataFrame,
    sides: Sides = "both",
    *,
    carry: bool = False,
) -> pd.DataFrame:
    """Return weights by UTC time and instrument as the signal of several instruments.

    Parameters
    ----------
    markets : Markets
        Whose bars it is for.
    frame : DataFrame
        Direction times weight, NaN for flat; the columns are names of instruments.
    sides : str
        ``"both"``, ``"long"`` or ``"short"``.
    carry : bool
        As in :func:`from_series`: True if each stamp is the moment from which its row is known.

    Returns
    -------
    DataFrame of shape (n_bars, n_instruments)
        0 where flat, and where an instrument cannot be traded.
    """
    m.require_panel(markets)
    if not is_frame(frame):
        raise core.ParameterError(
            f"weights must be a frame by time and instrument, got a {type(frame).__name__}; give "
            "pd.DataFrame(values, index=markets.times, columns=markets.names)"
        )
    by_bar = carry_rows(frame, markets) if carry else frame
    weights = m.read_weights(by_bar, markets)
    warn_of_weights(by_bar, markets)
    return m.weights_to_frame(keep_sides(weights, sides, np.inf), markets)


def carry_rows(frame: pd.DataFrame, markets: Markets) -> pd.DataFrame:
    """Return the last row of a frame that is known at each bar, NaN before the first."""
    named = m.name_columns(frame, markets, "signal")
    stamps = m.read_dates(named.index, "signal")
    order = np.argsort(stamps, kind="stable")
    last = find_carried(stamps[order], markets)

    # Where none is known the last row of all stands in, and is taken out again.
    rows = named.iloc[order[last]].set_axis(markets.times)
    is_known = pd.Series(last >= 0, index=markets.times)
    return rows.where(is_known, np.nan)


@core.checked_only("market", "sides")
def from_function(
    market: Market | Markets,
    function: Callable[[Any], Any],
    sides: Sides = "both",
) -> Any:
    """Return the signal that a function computes from the market, checked for lookahead.

    Parameters
    ----------
    market : Market or Markets
        Whose bars it is for.
    function : callable
        Takes a market; returns one number in [-1, 1] per bar, as a Series by ``market.times`` or an
        array, True and False for long and flat; NaN is flat. Of several instruments it takes the
        markets and returns weights, as a frame by ``markets.times`` and name or an array of shape
        (n_bars, n_instruments); in a part of the panel, instruments that are not listed yet are
        missing.
    sides : str
        ``"both"``, ``"long"`` or ``"short"``.

    Returns
    -------
    Series of shape (n_bars,), or DataFrame of shape (n_bars, n_instruments)

    Raises
    ------
    PolicyError
        If it raises, looks ahead, or returns something else.

    Notes
    -----
    The market is cut at some 56 bars, and the values up to a cut must be the same whether the
    market ends there or goes on. Cuts are spread over the market, before large moves, where the
    signal changes, and at ends of days. They are a sample, not a proof: a function that looks ahead
    rarely, and elsewhere, is not found. See :mod:`backtest.policies.lookahead`.

    Examples
    --------
    >>> market = Market.sample(bars=48)
    >>> rising = from_function(market, lambda seen: seen.bars()["close"].diff() > 0, "long")
    >>> int(rising.sum())
    25
    """
    return compute_signal(market, function, sides)


@core.checked_only("fills", "sized")
def from_vectorbt(
    portfolio: Any,
    fills: Fills = "close",
    *,
    sized: bool = False,
) -> pd.Series:
    """Return what a portfolio of vectorbt held as a signal.

    Parameters
    ----------
    portfolio : vectorbt.Portfolio
        Of one column, and not grouped; its index is in UTC.
    fills : str
        ``"close"``: its orders filled at the close of their bar, where they were decided, as
        vectorbt does by default; the signal of a bar is what was held at its close. ``"open"``:
        they filled at the open, decided at the close before; the signal comes a bar earlier.
    sized : bool
        False for the direction, -1, 0 or 1; True for the share of its value that was invested, cut
        to [-1, 1].

    Returns
    -------
    Series of shape (n_bars,)
        By UTC time. It is data: a run says that it was not checked for lookahead.
    """
    if not (hasattr(portfolio, "asset_value") and hasattr(portfolio, "wrapper")):
        raise core.ParameterError(
            f"portfolio must be a vectorbt.Portfolio, got a {type(portfolio).__name__}"
        )
    assets = portfolio.asset_value()
    whole = portfolio.value()
    if np.ndim(assets) != 1 or np.ndim(whole) != 1:
        raise core.ParameterError(
            f"portfolio must have one column, portfolio['name'], got {np.shape(assets)[1:]}"
        )
    stamps = core.read_stamps(
        portfolio.wrapper.index,
        name="the portfolio",
        timezone="UTC",
        error=core.ParameterError,
    )

    # An empty account has no share: it is flat.
    invested = np.asarray(assets, dtype=np.float64)
    equity = np.asarray(whole, dtype=np.float64)
    share = np.divide(
        invested,
        equity,
        out=np.zeros(len(invested)),
        where=equity > 0.0,
    )
    values = np.sign(share)
    if sized:
        values = np.clip(share, -1.0, 1.0)

    # What fills at an open was decided at the close before; the last bar repeats itself.
    if fills == "open":
        values = np.append(values[1:], values[-1:])

    # Adding 0 leaves no -0.
    return pd.Series(values + 0.0, index=core.utc_index(stamps), name="signal")

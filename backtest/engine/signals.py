"""Directions for ``bt.run(signal=...)``: from named rules, a Series, or a function.

Each returns a Series by the opens of the market's bars, in [-1, 1]: 1 long, -1 short, 0 flat; for
several instruments a frame of weights, of a rule the direction of each times 1/n, where n can be
traded. The signal of a bar is known at its close and trades at the next open. Unknown values (NaN)
are flat. The values of a function are compared with those it computes when the market ends earlier,
to find functions that look ahead. A :class:`SignalRule` has named parameters that sweeps and
searches vary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd

from backtest.base import Choice, ParameterError, checked_only
from backtest.engine import signal_rules
from backtest.engine.signal_rules import (
    Bollinger,
    Breakout,
    MaCross,
    Rsi,
    Sides,
    SignalRule,
)
from backtest.market import Market, Markets, unwrap_market

__all__ = [
    "Bollinger",
    "Breakout",
    "MaCross",
    "Rsi",
    "Sides",
    "SignalRule",
    "from_frame",
    "from_function",
    "from_series",
    "from_vectorbt",
]


Fills: TypeAlias = Literal["close", "open"]


@checked_only("carry")
def from_series(
    market: Market, series: pd.Series, sides: Sides = "both", *, carry: bool = False
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
        moment from which the value is known, and it holds until the next: for slower bars add
        their length to the index, ``daily.set_axis(daily.index + pd.Timedelta("1D"))``.

    Returns
    -------
    Series of shape (n_bars,)

    Raises
    ------
    ParameterError
        If the index is not one of UTC times, each once, that fit; or a value is out of range.

    Notes
    -----
    With ``carry`` a bar takes the last value stamped before its close, never at it. Without it,
    values for fewer than half of the bars between the first stamp and the last are refused: they
    are mostly those of longer bars, known only when these close.
    """
    market = unwrap_market(
        market,
        "a signal of this kind is of one market (call it for each, markets[name], or use "
        "from_frame or from_function)",
    )
    stamps, values = signal_rules.read_series_stamps(series), signal_rules.read_numbers(series)
    if carry:
        last = np.searchsorted(stamps, market.time + market.interval, side="left") - 1
        raw = np.where(last >= 0, values[np.maximum(last, 0)], np.nan)
    else:
        raw = signal_rules.align_to_opens(market, stamps, values)
        signal_rules.check_density(market, stamps)
    return signal_rules.make_signal(market, raw, sides)


@checked_only("carry")
def from_frame(
    markets: Markets, frame: pd.DataFrame, sides: Sides = "both", *, carry: bool = False
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

    Raises
    ------
    ParameterError
        If a name is unknown, the index is not one of UTC times, each once, that fit, or a value is
        not finite.
    """
    return signal_rules.read_frame(markets, frame, sides, carry=carry)


@overload
def from_function(
    market: Market, function: Callable[[Market], Any], sides: Sides = "both"
) -> pd.Series: ...


@overload
def from_function(
    market: Markets, function: Callable[[Markets], Any], sides: Sides = "both"
) -> pd.DataFrame: ...


@checked_only("market")
def from_function(
    market: Market | Markets, function: Callable[[Any], Any], sides: Sides = "both"
) -> pd.Series | pd.DataFrame:
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
    ParameterError
        If a value is out of range.

    Notes
    -----
    The market is cut at some 56 bars, and the values up to a cut must be the same whether the
    market ends there or goes on. Cuts are spread over the market, before large moves, where the
    signal changes, and at ends of days. They are a sample, not a proof: a function that looks ahead
    rarely, and elsewhere, is not found. See :mod:`backtest.engine.lookahead`.

    Examples
    --------
    >>> market = Market.sample(bars=48)
    >>> rising = from_function(market, lambda seen: seen.bars()["close"].diff() > 0, "long")
    >>> int(rising.sum())
    25
    """
    signal: pd.Series | pd.DataFrame = signal_rules.compute_signal(market, function, sides)
    return signal


@checked_only("sized")
def from_vectorbt(portfolio: Any, fills: Fills = "close", *, sized: bool = False) -> pd.Series:
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

    Raises
    ------
    ParameterError
        If it is no portfolio, or has several columns.
    """
    return read_portfolio(portfolio, fills, sized=sized)


def read_portfolio(portfolio: Any, fills: Fills, *, sized: bool) -> pd.Series:
    Choice("close", "open").check("fills", fills)
    if not (hasattr(portfolio, "asset_value") and hasattr(portfolio, "wrapper")):
        raise ParameterError(
            f"portfolio must be a vectorbt.Portfolio, got a {type(portfolio).__name__}"
        )
    held, worth = portfolio.asset_value(), portfolio.value()
    if np.ndim(held) != 1 or np.ndim(worth) != 1:
        raise ParameterError(
            f"portfolio must have one column, portfolio['name'], got {np.shape(held)[1:]}"
        )
    index = pd.DatetimeIndex(portfolio.wrapper.index)
    index = pd.DatetimeIndex(pd.to_datetime(index, utc=True))
    money, wealth = (np.asarray(each, dtype=np.float64) for each in (held, worth))
    share = np.divide(money, wealth, out=np.zeros(len(money)), where=wealth > 0.0)
    values = np.clip(share, -1.0, 1.0) if sized else np.sign(share)
    if fills == "open":
        values = np.append(values[1:], values[-1:])
    return pd.Series(values + 0.0, index=index, name="signal")

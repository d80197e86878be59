"""What a funding event costs a position, and how venues derive their funding rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base.compiled_twins import make_array_twins
from backtest.base.ranges import Choice, check_range
from backtest.base.units import TimeLike, parse_duration
from backtest.venue import contract_value, preset_files
from backtest.venue.preset_files import FundingTerms

if TYPE_CHECKING:
    from backtest.base.units import FloatArray
    from backtest.venue.venue import Contract

    Numbers = float | FloatArray


ARRAYS = make_array_twins(contract_value)
"""The formulas of value and payment, on arrays."""


def payment(
    contract: Contract,
    quantity: float | FloatArray,
    price: float | FloatArray,
    rate: float | FloatArray,
) -> Any:
    """Return what a position pays at one funding settlement: ``q |u(P)| r``.

    Parameters
    ----------
    contract : Contract
        Linear or inverse, with its size.
    quantity : float or array
        Signed contracts held at the stamp.
    price : float or array
        The price the venue settles on, usually the mark price at the stamp.
    rate : float or array
        Fraction of the notional for this settlement.

    Returns
    -------
    float or array
        In the settlement currency; positive is paid, negative received. With a positive rate
        longs pay and shorts receive.

    Raises
    ------
    ParameterError
        If a price is not positive.

    Examples
    --------
    >>> from backtest import Contract
    >>> payment(Contract(), 10.0, 2.0, 0.0001)
    0.002
    """
    q, p, r = (np.asarray(each, dtype=np.float64) for each in (quantity, price, rate))
    smallest = float(np.min(p)) if p.size else 1.0
    check_range("price", smallest, where="bt.funding.payment", low=0.0, open_low=True)
    value = ARRAYS.compute_value(contract.size, contract.kind == "inverse", p)
    paid = ARRAYS.compute_payment(q, value, r)
    return float(paid) if np.ndim(paid) == 0 else paid


def rate(
    premium: Numbers, interest: Numbers = 1e-4, clamp: Numbers = 5e-4, cap: Numbers = math.inf
) -> Any:
    """Return the funding rate of a period, from the average premium of it.

    Parameters
    ----------
    premium : float or array
        Average premium of the perpetual future over its index, a fraction.
    interest : float or array
        Interest of the period, a fraction; 0.01 % for 8 hours at most venues.
    clamp : float or array
        How far the interest may pull the rate from the premium; 0.05 % at most venues.
    cap : float or array
        Largest rate of either sign; default none.

    Returns
    -------
    float or array
        Fraction of the notional for the period, positive: longs pay.

    Notes
    -----
    F = P + clamp(I - P, -c, c), then clamped to the cap. Where |I - P| <= c it is the interest.
    Source: Binance, Introduction to Binance Futures Funding Rates; BitMEX, Perpetual Contracts
    Guide; Hyperliquid, Funding (its hour pays an eighth). Deribit's damper is I = 0.

    Examples
    --------
    >>> round(rate(0.0012), 6), round(rate(0.0003), 6)
    (0.0007, 0.0001)
    """
    p = np.asarray(premium, dtype=np.float64)
    pull = np.clip(np.asarray(interest, dtype=np.float64) - p, np.negative(clamp), clamp)
    found = np.clip(p + pull, np.negative(cap), cap)
    return float(found) if np.ndim(found) == 0 else found


def terms(venue: str, symbol: str, at: TimeLike | None = None) -> FundingTerms | None:
    """Return how a preset's venue makes its funding rate at a day; None where it is not known.

    Raises
    ------
    VenueError
        If there is no such venue or symbol.
    """
    return preset_files.funding_terms(venue, symbol, at)


def rate_of(terms: FundingTerms, premium: Numbers) -> Any:
    """Return the rate of one settlement of a venue, from the average premium.

    Parameters
    ----------
    terms : FundingTerms
        Those of a venue, as :func:`terms` returns them.
    premium : float or array
        Average premium of the perpetual future over its index, a fraction.

    Returns
    -------
    float or array
        Fraction of the notional for one interval between settlements, positive: longs pay.

    Notes
    -----
    :func:`rate` of the venue's period times interval / period, then clamped to the cap.

    Examples
    --------
    >>> round(rate_of(terms("hyperliquid", "BTC"), 0.01), 7)
    0.0011875
    """
    interval = parse_duration(terms.interval, where="FundingTerms.interval")
    share = interval / parse_duration(terms.period, where="FundingTerms.period")
    found = np.clip(rate(premium, terms.interest, terms.clamp) * share, -terms.cap, terms.cap)
    return float(found) if np.ndim(found) == 0 else found


def impact_premium(bid: Numbers, ask: Numbers, index: Numbers) -> Any:
    """Return the premium of impact prices over the index, a fraction.

    Parameters
    ----------
    bid, ask : float or array
        Average prices of selling and of buying the venue's impact notional.
    index : float or array
        The index, or the oracle price.

    Raises
    ------
    ParameterError
        If an index is not positive.

    Notes
    -----
    (max(bid - index, 0) - max(index - ask, 0)) / index. Source: Binance, Introduction to Binance
    Futures Funding Rates; Hyperliquid, Funding.

    Examples
    --------
    >>> impact_premium(9_990.0, 9_992.0, 10_000.0)
    -0.0008
    """
    low, high, centre = (np.asarray(each, dtype=np.float64) for each in (bid, ask, index))
    smallest = float(np.min(centre)) if centre.size else 1.0
    check_range("index", smallest, where="bt.funding.impact_premium", low=0.0, open_low=True)
    found = (np.maximum(low - centre, 0.0) - np.maximum(centre - high, 0.0)) / centre
    return float(found) if np.ndim(found) == 0 else found


def interest_rate(quote: Numbers, base: Numbers, per_day: Numbers = 3.0) -> Any:
    """Return the interest of a period: (quote - base) / per_day, of daily rates of two currencies.

    Source: Bybit, What is Funding Rate and Predicted Rate; BitMEX, Perpetual Contracts Guide.

    Raises
    ------
    ParameterError
        If there are no periods in a day.

    Examples
    --------
    >>> round(interest_rate(0.0006, 0.0003), 6)
    0.0001
    """
    count = np.asarray(per_day, dtype=np.float64)
    smallest = float(np.min(count)) if count.size else 1.0
    check_range("per_day", smallest, where="bt.funding.interest_rate", low=0.0, open_low=True)
    found = (np.asarray(quote, dtype=np.float64) - np.asarray(base, dtype=np.float64)) / count
    return float(found) if np.ndim(found) == 0 else found


def average_premium(premium: FloatArray, weights: str = "linear") -> Any:
    """Return the average premium of each period, from those measured during it.

    Parameters
    ----------
    premium : array of shape (..., n)
        The n premiums of a period, in order of time, fractions; a path of whole periods is
        ``path.reshape(-1, n)``.
    weights : str
        ``"linear"``: the i-th weighs i (Binance, Bybit); ``"equal"``: all the same (BitMEX,
        Hyperliquid).

    Returns
    -------
    float or array of shape (...)
        A fraction; :func:`rate` makes a funding rate of it.

    Raises
    ------
    ParameterError
        If the weights are neither, or a period has no premium.

    Notes
    -----
    P = sum_i i p_i / sum_i i. Source: Bybit, Funding Rate Calculation; Binance, Introduction to
    Binance Futures Funding Rates.

    Examples
    --------
    >>> round(average_premium(np.array([0.0, 0.0003])), 6)
    0.0002
    """
    where = "bt.funding.average_premium"
    Choice("linear", "equal").check("weights", weights, where=where)
    p = np.atleast_1d(np.asarray(premium, dtype=np.float64))
    check_range("premiums of a period", p.shape[-1], where=where, low=1)
    weight = np.arange(1.0, p.shape[-1] + 1.0) if weights == "linear" else np.ones(p.shape[-1])
    found = p @ weight / weight.sum()
    return float(found) if np.ndim(found) == 0 else found

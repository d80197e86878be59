"""Funding: what a settlement costs a position, and how venues compute their funding rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from backtest import base
from backtest.base import Duration, Number, check_broadcast, check_range, checked, float_if_single
from backtest.base.fields import NOT_NEGATIVE
from backtest.venue import preset_files
from backtest.venue.requirement import compute_payment, compute_value

if TYPE_CHECKING:
    from backtest.base import FloatArray, Numbers
    from backtest.venue.venue import Contract


@checked
def payment(
    contract: Contract,
    quantity: float | FloatArray,
    price: float | FloatArray,
    rate: float | FloatArray,
) -> Any:
    """Return what positions pay at one settlement, ``q |u(P)| r``, in the settlement currency.

    Positive is paid, negative received. ``quantity`` is in signed contracts, ``price`` what the
    venue settles on, usually the mark price at the stamp, ``rate`` a fraction of the notional.

    Examples
    --------
    >>> from backtest import Contract
    >>> payment(Contract(), 10.0, 2.0, 0.0001)
    0.002
    """
    check_broadcast(quantity=quantity, price=price, rate=rate)
    given: Any = (np.asarray(each, dtype=np.float64) for each in (quantity, price, rate))
    q, p, r = given
    check_range("price", float(np.min(p, initial=math.inf)), low=0.0, open_low=True)
    value = compute_value(contract.size, contract.kind == "inverse", p)
    paid: Any = compute_payment(q, value, r)
    return float_if_single(paid)


@checked
def rate(
    premium: Numbers, interest: Numbers = 1e-4, clamp: Numbers = 5e-4, cap: Numbers = math.inf
) -> Any:
    """Return the funding rate of a period from its average premium, a fraction of the notional.

    ``premium`` is that of the perpetual future over its index, ``interest`` that of the period
    (0.01 % for 8 hours at most venues), ``clamp`` the largest distance of the rate from the
    premium, ``cap`` the largest rate of either sign. If the rate is positive, longs pay.

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
    check_broadcast(premium=premium, interest=interest, clamp=clamp, cap=cap)
    p = np.asarray(premium, dtype=np.float64)
    pull = np.clip(np.asarray(interest, dtype=np.float64) - p, np.negative(clamp), clamp)
    return float_if_single(np.clip(p + pull, np.negative(cap), cap))


@base.declared(kw_only=True)
class FundingTerms(base.Value):
    """How a venue computes its funding rate; ``interest`` and ``clamp`` are those of :func:`rate`.

    Parameters
    ----------
    interval : str
        The time between settlements.
    period : str, optional
        What ``interest``, ``clamp`` and the rate are for. Default: the interval.
    cap : float
        The largest payment of one interval, of either sign.
    date, source : str
        The day from which the terms hold (or on which they were read), and their source.
    """

    interval: Annotated[str, Duration()]
    period: Annotated[str | None, Duration()] = None
    interest: Annotated[float, Number()]
    clamp: Annotated[float, NOT_NEGATIVE]
    cap: Annotated[float, Number(0, may_be_infinite=True)] = math.inf
    date: str = ""
    source: str = ""

    def _settle(self) -> None:
        self._set_fields(period=self.period or self.interval)


@checked
def terms(venue: str, symbol: str, at: base.TimeLike | None = None) -> FundingTerms | None:
    """Return how a preset's venue computes its funding rate at a day; None if it is unknown.

    Examples
    --------
    >>> found = terms("binance-usdm", "BTCUSDT")
    >>> found.interval, found.interest, found.clamp
    ('8h', 0.0001, 0.0005)
    """
    found = preset_files.find_preset(venue, symbol).choose(preset_files.read_choice(at))
    if "funding" not in found:
        return None
    return FundingTerms.from_dict(found["funding"][0], where=f"{venue}:{symbol}.funding")


@checked
def rate_of(terms: FundingTerms, premium: Numbers) -> Any:
    """Return the rate of one settlement at a venue from the average premium of its period.

    It is :func:`rate` of the venue's period times interval / period, then clamped to the cap.

    Examples
    --------
    >>> round(rate_of(terms("hyperliquid", "BTC"), 0.01), 7)
    0.0011875
    """
    share = base.parse_duration(terms.interval) / base.parse_duration(str(terms.period))
    found = np.clip(rate(premium, terms.interest, terms.clamp) * share, -terms.cap, terms.cap)
    return float_if_single(found)

"""Funding: what a settlement costs a position, and the terms of venues' funding rates."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from backtest import core
from backtest.core import Duration, FloatArray, Real, check_broadcast, check_range, checked
from backtest.core.fields import NOT_NEGATIVE
from backtest.venue import preset_files
from backtest.venue.contract_value import compute_payment, compute_value
from backtest.venue.venue import Contract


@checked
def payment(
    contract: Contract,
    quantity: float | FloatArray,
    price: float | FloatArray,
    rate: float | FloatArray,
) -> Any:
    """Return what positions pay at one settlement, ``q |u(P)| r``, in the settlement currency.

    Positive is paid, negative received. ``quantity`` is in signed contracts, ``price`` usually the
    mark price at the stamp, ``rate`` a fraction of the notional.

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
    return core.float_if_single(paid)


class FundingTerms(core.Value, kw_only=True):
    """How a venue computes its funding rate F from the average premium P of a period.

    ``F = P + clamp(interest - P, -clamp, clamp)``, times interval / period, then at most the cap of
    either sign. Source: Binance, Introduction to Binance Futures Funding Rates; BitMEX, Perpetual
    Contracts Guide; Hyperliquid, Funding (an hour pays an eighth). Deribit's damper has interest 0.

    Parameters
    ----------
    interval : str
        The time between settlements.
    interest, clamp : float
        Of the period, as fractions of the notional.
    period : str, optional
        Default: the interval.
    cap : float
        The largest payment of one interval, of either sign.
    date, source : str
        The day from which the terms hold (or on which they were read), and their source.
    """

    interval: Annotated[str, Duration()]
    period: Annotated[str | None, Duration()] = None
    interest: Annotated[float, Real()]
    clamp: Annotated[float, NOT_NEGATIVE]
    cap: Annotated[float, Real(0, may_be_infinite=True)] = math.inf
    date: str = ""
    source: str = ""

    def _settle(self) -> None:
        self._set_fields(period=self.period or self.interval)


@checked
def terms(venue: str, symbol: str, at: core.TimeLike | None = None) -> FundingTerms | None:
    """Return how a preset's venue computes its funding rate at a day; None if it is unknown.

    Examples
    --------
    >>> found = terms("binance-usdm", "BTCUSDT")
    >>> found.interval, found.interest, found.clamp
    ('8h', 0.0001, 0.0005)
    """
    found = preset_files.find_preset(venue, symbol).choose(preset_files.read_day(at))
    if "funding" not in found:
        return None
    return FundingTerms.from_dict(found["funding"][0], where=f"{venue}:{symbol}.funding")


__all__ = ["FundingTerms", "payment", "terms"]


def __dir__() -> list[str]:
    return __all__

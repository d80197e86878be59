"""Funding: what a settlement costs a position, and the terms of venues' funding rates."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from backtest import core
from backtest.core import Duration, FloatArray, Real, check_broadcast, check_range, checked
from backtest.core.fields import NOT_NEGATIVE
from backtest.venue import listing, preset_files
from backtest.venue.contract import Contract
from backtest.venue.contract_value import compute_payment, compute_value


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
    quantities: Any = np.asarray(quantity, dtype=np.float64)
    prices: Any = np.asarray(price, dtype=np.float64)
    rates: Any = np.asarray(rate, dtype=np.float64)
    lowest_price = float(np.min(prices, initial=math.inf))
    check_range("price", lowest_price, low=0.0, open_low=True)

    is_inverse = contract.kind == "inverse"
    value = compute_value(contract.size, is_inverse, prices)
    paid: Any = compute_payment(quantities, value, rates)
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
        The largest payment of one interval, of either sign; infinite if it is not known.
    floor : float, optional
        The least payment of one interval, negative. Default: that of the cap.
    date, source : str
        The day from which the terms hold (or on which they were read), and their source.
    """

    interval: Annotated[str, Duration()]
    period: Annotated[str | None, Duration()] = None
    interest: Annotated[float, Real()]
    clamp: Annotated[float, NOT_NEGATIVE]
    cap: Annotated[float, Real(0, may_be_infinite=True)] = math.inf
    floor: Annotated[float | None, Real(high=0, may_be_infinite=True)] = None
    date: str = ""
    source: str = ""

    _omitted = frozenset({"floor"})

    def _settle(self) -> None:
        self._set_fields(period=self.period or self.interval)

    @property
    def least(self) -> float:
        """The least payment of one interval: the floor, or the cap of the other sign."""
        if self.floor is None:
            return -self.cap
        return self.floor


@checked
def terms(venue: str, symbol: str, at: core.TimeLike | None = None) -> FundingTerms | None:
    """Return how a preset's venue computes its funding rate at a day; None if it is unknown.

    Examples
    --------
    >>> found = terms("binance-usdm", "BTCUSDT")
    >>> found.interval, found.interest, found.clamp
    ('8h', 0.0001, 0.0005)
    """
    groups = preset_files.find_preset(venue, symbol).choose(preset_files.read_day(at))
    if "funding" not in groups:
        return None
    table, _ = groups["funding"]
    return FundingTerms.from_dict(table, where=f"{venue}:{symbol}.funding")


def read_terms(
    source: Any,
    symbol: str,
    like: str = listing.DEFAULT_LIKE,
    date: core.TimeLike | None = None,
) -> FundingTerms | None:
    """Return how the venue of a listing computes its funding; None if its preset does not say.

    Interval, cap and floor are those of Binance's ``fundingInfo`` where the listing has them for
    the symbol, which it has only of adjusted symbols; interest and clamp are those of the preset
    ``like``. Arguments are those of :meth:`backtest.Venue.read`.
    """
    newest = listing.find_listings(source, symbol, date)[-1]
    _, name = listing.read_like(like, newest)
    venue, _, like_symbol = name.rpartition(":")
    general = terms(venue, like_symbol)
    row = newest.funding
    if general is None or row is None:
        return general

    place = f"{newest.name}: {symbol}.funding"
    changes: dict[str, object] = {
        "floor": listing.read_number(row, "adjustedFundingRateFloor", place),
        "date": newest.day or "",
        "source": f"{newest.name}: interval, cap and floor; {name}: interest and clamp",
    }
    hours = listing.read_number(row, "fundingIntervalHours", place)
    if hours is not None:
        changes["interval"] = f"{hours:g}h"
    cap = listing.read_number(row, "adjustedFundingRateCap", place)
    if cap is not None:
        changes["cap"] = cap
    return general.override(changes)


__all__ = ["FundingTerms", "payment", "read_terms", "terms"]


def __dir__() -> list[str]:
    return __all__

"""Liquidation calculator: margins, prices, and probabilities for one position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from backtest.base import Choice, ParameterError, checked
from backtest.base.fields import POSITIVE
from backtest.base.units import TOLERANCE, YEAR_DAYS
from backtest.features.first_passage import touch_probability
from backtest.venue import Venue
from backtest.venue import margin as margin_functions

DAYS = (1.0, 7.0, 30.0)


class Calculation(NamedTuple):
    """Margins of a position and its distance to liquidation; money in the settlement currency.

    ``quantity`` is in contracts, negative for a short. ``collateral`` backs the position.
    ``distance`` is the move of the price from the entry to the liquidation price, a fraction,
    negative for a long. ``daily_sigmas`` is the logarithm of that move in standard deviations of a
    day. ``probabilities`` maps days to the probability of a liquidation within them. Prices and
    distances are NaN if no price liquidates. Fields that need a volatility are NaN without one.
    """

    side: str
    margin: str
    entry: float
    leverage: float
    quantity: float
    notional: float
    collateral: float
    initial_margin: float
    maintenance_margin: float
    liquidation_price: float
    bankruptcy_price: float
    distance: float
    volatility: float
    daily_sigmas: float
    probabilities: dict[float, float]


@checked
def calculate_liquidation(
    venue: Venue,
    *,
    side: str,
    entry: float,
    leverage: float,
    margin: str = "isolated",
    capital: float | None = None,
    quantity: float | None = None,
    volatility: float | None = None,
    multiplier: float = 1.0,
    days: Sequence[float] = DAYS,
) -> Calculation:
    """Return margins, liquidation price, and bankruptcy price of a position, with probabilities.

    Parameters
    ----------
    venue : Venue
        The venue, for its margin rules.
    side : str
        ``"long"`` or ``"short"``.
    entry : float
        The price at which the position is opened.
    leverage : float
        The leverage set at the venue: the initial margin is the notional over it.
    margin : str
        ``"isolated"``: the initial margin backs the position; ``"cross"``: the capital does.
    capital : float, optional
        The account, in the settlement currency. Default: the initial margin.
    quantity : float, optional
        Contracts, positive. Default: the quantity that ``capital`` opens at the leverage, or one
        coin without it.
    volatility : float, optional
        Volatility of the price, per sqrt(year).
    multiplier : float
        Multiplier of dynamic margin: scales maintenance rates and divides the allowed leverages.
    days : sequence of float
        The horizons of the probabilities.

    Returns
    -------
    Calculation

    Raises
    ------
    ParameterError
        If an argument is out of its range, the venue does not allow the leverage for the notional,
        or the capital does not cover the initial margin.

    Notes
    -----
    Fees for opening are not deducted. The price is modeled as a geometric Brownian motion without
    drift, observed continuously. The probability that it touches the liquidation price within T is
    ``2 Phi(-abs(ln(P / entry)) / (sigma sqrt(T)))``. Quantities are not rounded to lots.

    Examples
    --------
    >>> venue = Venue.preset("binance-usdm", "BTCUSDT")
    >>> found = calculate_liquidation(venue, side="long", entry=30_000, leverage=10)
    >>> found.initial_margin, found.maintenance_margin, round(found.liquidation_price, 2)
    (3000.0, 120.0, 27108.43)
    """
    Choice("long", "short").check("side", side)
    sign = 1.0 if side == "long" else -1.0
    Choice("isolated", "cross").check("margin", margin)
    for name, value in (("entry", entry), ("leverage", leverage), ("capital", capital),
                        ("quantity", quantity), ("volatility", volatility),
                        ("multiplier", multiplier)):  # fmt: skip
        if value is not None:
            POSITIVE.check(name, value)
    unit = _find_unit(venue, entry)
    size = _find_size(unit, leverage, capital, quantity, venue, entry)
    notional = size * unit
    is_of_capital = quantity is None and capital is not None
    _check_notional(venue, notional, "capital" if is_of_capital else "quantity")
    _check_leverage(venue, notional, leverage, multiplier)
    initial = notional / leverage
    collateral = initial if margin == "isolated" or capital is None else float(capital)
    _check_capital(initial, capital)
    price = margin_functions.liquidation_price(venue, sign * size, entry, collateral, multiplier)
    distance = math.log(price / entry) if price > 0.0 else math.nan
    sigma = math.nan if volatility is None else float(volatility)
    return Calculation(
        side=side,
        margin=margin,
        entry=float(entry),
        leverage=float(leverage),
        quantity=sign * size,
        notional=notional,
        collateral=collateral,
        initial_margin=initial,
        maintenance_margin=margin_functions.maintenance(venue, notional, multiplier),
        liquidation_price=price,
        bankruptcy_price=margin_functions.bankruptcy_price(venue, sign * size, entry, collateral),
        distance=price / entry - 1.0,
        volatility=sigma,
        daily_sigmas=abs(distance) / (sigma / math.sqrt(YEAR_DAYS)),
        probabilities={float(n): _find_odds(distance, sigma, n) for n in days},
    )


def _find_unit(venue: Venue, entry: float) -> float:
    """Return the value of one contract at the entry, in the settlement currency."""
    contract = venue.contract
    return contract.size / entry if contract.kind == "inverse" else contract.size * entry


def _find_size(
    unit: float,
    leverage: float,
    capital: float | None,
    quantity: float | None,
    venue: Venue,
    entry: float,
) -> float:
    if quantity is not None:
        return float(quantity)
    if capital is not None:
        return capital * leverage / unit
    coin = 1.0 if venue.contract.kind == "inverse" else float(entry)
    return coin / unit


def _check_notional(venue: Venue, notional: float, name: str) -> None:
    if notional * (1.0 - TOLERANCE) > venue.brackets[-1].cap:
        raise ParameterError(
            f"{name} must give a notional of at most {venue.brackets[-1].cap:,.12g}, where the "
            f"venue's table ends, got {notional:,.12g}"
        )


def _check_leverage(venue: Venue, notional: float, leverage: float, multiplier: float) -> None:
    room = notional * (1.0 - TOLERANCE)
    allowed = [row.max_leverage / multiplier for row in venue.brackets if row.cap >= room]
    if leverage * (1.0 - TOLERANCE) > allowed[0]:
        raise ParameterError(
            f"leverage must be at most {allowed[0]:g} for a notional of {notional:,.12g}, "
            f"got {leverage:g}"
        )


def _check_capital(initial: float, capital: float | None) -> None:
    if capital is not None and capital * (1.0 + TOLERANCE) < initial:
        raise ParameterError(
            f"capital must cover the initial margin, {initial:,.12g}, got {capital:,.12g}"
        )


def _find_odds(distance: float, sigma: float, days: float) -> float:
    if math.isnan(sigma):
        return math.nan
    if math.isnan(distance):
        return 0.0
    return float(touch_probability(distance, sigma, days / YEAR_DAYS))

"""What trading and settling options costs at a venue."""

from __future__ import annotations

from typing import Annotated

from backtest.base import Duration, Number, ParameterError, Value, declared
from backtest.base.fields import COST, NOT_NEGATIVE

CAP = Number(0, 1, open_low=True)


@declared(kw_only=True)
class OptionCosts(Value):
    """Fees, ticks and spread of the options on an instrument.

    Nothing is free, so fees and tick have no default.

    Parameters
    ----------
    fee : float
        Fee of a trade per unit of the underlying: a fraction of its price, in coins for options
        settled in coins.
    fee_cap : float
        The most that the fee may be, as a fraction of the premium; 1 for no cap below it.
    delivery_fee, delivery_cap : float
        The same for the payoff at expiry.
    tick : float
        The least distance of a fill from the mark, per unit of the underlying, in the settlement
        currency.
    spread : float, optional
        From bid to ask in implied volatility, 0.02 for two points, where no quote says it. Fills
        there are half of it from the mark.
    delivery_window : str, optional
        The time before an expiry whose mark closes are averaged for the settlement price, where
        bars are shorter. Default: the mark price at the expiry.

    Examples
    --------
    >>> OptionCosts(fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125,
    ...             tick=0.0001, delivery_window="30m").fee_cap
    0.125
    """

    fee: Annotated[float, COST]
    fee_cap: Annotated[float, CAP]
    delivery_fee: Annotated[float, COST]
    delivery_cap: Annotated[float, CAP]
    tick: Annotated[float, NOT_NEGATIVE]
    spread: Annotated[float | None, NOT_NEGATIVE] = None
    delivery_window: Annotated[str | None, Duration()] = None


def require_costs(given: object, name: str) -> OptionCosts:
    if isinstance(given, OptionCosts):
        return given
    raise ParameterError(
        f"options on {name} need venue.option_costs, got {given!r}; "
        "bt.OptionCosts(fee=, fee_cap=, delivery_fee=, delivery_cap=, tick=)"
    )

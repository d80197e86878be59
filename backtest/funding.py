"""What a funding event costs a position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.params import check_range

if TYPE_CHECKING:
    from backtest.units import FloatArray
    from backtest.venue import Contract


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
    notional = contract.size / p if contract.kind == "inverse" else contract.size * p
    paid = q * notional * r
    return float(paid) if np.ndim(paid) == 0 else paid

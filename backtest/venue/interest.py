"""Which interest rates of a venue are charged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base import Faults

RATES = ("borrow_rate", "cash_rate", "short_rate")


def read_rate(rate: object) -> np.ndarray:
    values = rate.get("value", ()) if isinstance(rate, Mapping) else rate
    return np.atleast_1d(np.asarray(values, dtype=np.float64))


def find_charged(rates: Mapping[str, object]) -> dict[str, object]:
    return {
        name: rates[name]
        for name in RATES
        if name in rates and bool((read_rate(rates[name]) != 0.0).any())
    }


def find_interest_faults(venue: Any) -> Faults:
    """Yield rates that are charged on nothing."""
    charged = find_charged(venue.rates())
    if charged and venue.interest_on is None:
        rule = "must be 'loan' (margin loans) or 'balance' (derivatives) when a rate is not 0"
        yield "interest_on", f"{rule}: {', '.join(charged)}"
    if venue.interest_on == "balance" and "short_rate" in charged:
        yield "short_rate", "must be 0 with interest_on='balance', which never charges it"

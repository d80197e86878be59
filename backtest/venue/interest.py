"""Interest rates of a venue: checks, and a description of which are charged on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base import Faults

RATES = ("borrow_rate", "cash_rate", "short_rate")
WORDS = {
    "balance": {"borrow_rate": "a negative balance pays", "cash_rate": "a positive balance earns"},
    "loan": {
        "borrow_rate": "borrowed cash pays",
        "cash_rate": "cash earns",
        "short_rate": "a short pays",
    },
}


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


def describe_interest(interest_on: str | None, rates: Mapping[str, object]) -> str:
    charged = find_charged(rates)
    if not charged or interest_on is None:
        return ""
    parts = [
        f"{WORDS[interest_on][name]} {format_rate(rate)} a year" for name, rate in charged.items()
    ]
    return f"on the {interest_on}: {', '.join(parts)}"


def format_rate(rate: object) -> str:
    values = read_rate(rate)
    low, high = 100.0 * values.min(), 100.0 * values.max()
    return f"{low:.4g} %" if low == high else f"{low:.4g} to {high:.4g} %"

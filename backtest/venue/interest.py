"""Interest rates of a venue: checks, and a description of which are charged on what."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from backtest.base import ParameterError

RATES = ("borrow_rate", "cash_rate", "short_rate")
WORDS = {
    "balance": {"borrow_rate": "a negative balance pays", "cash_rate": "a positive balance earns"},
    "loan": {
        "borrow_rate": "borrowed cash pays",
        "cash_rate": "cash earns",
        "short_rate": "a short pays",
    },
}
"""The subject of each rate, by ``interest_on``."""


def read_rate(rate: object) -> np.ndarray:
    """Return the values of a rate: a number, a Series, or a series as stored in a manifest."""
    values = rate.get("value", ()) if isinstance(rate, Mapping) else rate
    return np.atleast_1d(np.asarray(values, dtype=np.float64))


def find_charged(rates: Mapping[str, object]) -> dict[str, object]:
    """Return the rates that are not 0; a series counts if any of its values is not 0.

    Examples
    --------
    >>> find_charged({"borrow_rate": 0.05, "cash_rate": 0.0})
    {'borrow_rate': 0.05}
    """
    return {
        name: rates[name]
        for name in RATES
        if name in rates and bool((read_rate(rates[name]) != 0.0).any())
    }


def check_interest(interest_on: str | None, rates: Mapping[str, object]) -> None:
    """Check that every rate that is not 0 is charged on something."""
    charged = find_charged(rates)
    if charged and interest_on is None:
        found = ", ".join(f"{name} {format_found_rate(rate)}" for name, rate in charged.items())
        raise ParameterError(
            f"interest_on must be given when a rate is not 0, got None with {found}",
            where="Venue.interest_on",
            cure="give interest_on='loan' (spot margin, stocks: borrowed cash and shorts pay) or "
            "interest_on='balance' (derivatives: only a negative balance pays)",
        )
    if interest_on == "balance" and "short_rate" in charged:
        raise ParameterError(
            "short_rate must be 0 with interest_on='balance', which never charges it, "
            f"got {format_found_rate(charged['short_rate'])}",
            where="Venue.short_rate",
            cure="choose interest_on='loan', or leave short_rate out",
        )


def format_found_rate(rate: object) -> str:
    """Format a rate for an error message."""
    return f"a series of {len(rate)} values" if isinstance(rate, pd.Series) else repr(rate)


def describe_interest(interest_on: str | None, rates: Mapping[str, object]) -> str:
    """Describe which rates are charged on what; empty if all are 0.

    Examples
    --------
    >>> describe_interest("loan", {"borrow_rate": 0.08, "cash_rate": 0.0})
    'on the loan: borrowed cash pays 8 % a year'
    """
    charged = find_charged(rates)
    if not charged or interest_on is None:
        return ""
    parts = [
        f"{WORDS[interest_on][name]} {format_rate(rate)} a year" for name, rate in charged.items()
    ]
    return f"on the {interest_on}: {', '.join(parts)}"


def format_rate(rate: object) -> str:
    """Format a rate in percent, or the range of a series."""
    values = read_rate(rate)
    low, high = 100.0 * values.min(), 100.0 * values.max()
    return f"{low:.4g} %" if low == high else f"{low:.4g} to {high:.4g} %"

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


def read_rate(rate: object) -> np.ndarray:
    values = rate.get("value", ()) if isinstance(rate, Mapping) else rate
    return np.atleast_1d(np.asarray(values, dtype=np.float64))


def find_charged(rates: Mapping[str, object]) -> dict[str, object]:
    return {
        name: rates[name]
        for name in RATES
        if name in rates and bool((read_rate(rates[name]) != 0.0).any())
    }


def check_interest(interest_on: str | None, rates: Mapping[str, object]) -> None:
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
    return f"a series of {len(rate)} values" if isinstance(rate, pd.Series) else repr(rate)


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

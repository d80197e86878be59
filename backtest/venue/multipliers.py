"""Multipliers of a venue's margin, and initial margin that rises with open interest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd

from backtest.base import ParameterError, Rate, Text, Value
from backtest.base.fields import NOT_NEGATIVE, POSITIVE


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OpenInterestMargin(Value):
    """Initial margin that rises with the open interest of the market, as on dYdX.

    The initial margin fraction is ``min(b + max((OI - lower) / (upper - lower) (1 - b), 0), 1)``,
    b the fraction of the brackets, 1 / max_leverage. Maintenance margin does not change. A bar uses
    the open interest of the bar before it.

    Parameters
    ----------
    column : str
        The column of the market with the open notional at each close, in the settlement currency.
    lower, upper : float
        The open notional from which the fraction rises, and that at which it is 1.
    """

    column: Annotated[str, Text()] = "open_interest"
    lower: Annotated[float, NOT_NEGATIVE]
    upper: Annotated[float, POSITIVE]

    def _check_rules(self) -> None:
        if not self.lower < self.upper:
            raise ParameterError(
                f"upper must be over lower {self.lower:g}, got {self.upper:g}",
                where="OpenInterestMargin.upper",
                cure="choose an upper cap over the lower one",
            )


def is_one(multiplier: Rate) -> bool:
    return not isinstance(multiplier, pd.Series) and multiplier == 1.0


def choose_multipliers(venue: Any) -> dict[str, Rate]:
    names = ("initial_multiplier", "maintenance_multiplier")
    given = [name for name in names if getattr(venue, name) is not None]
    return {name: getattr(venue, name) for name in given} or {
        "margin_multiplier": venue.margin_multiplier
    }


def check_multipliers(venue: Any) -> None:
    names = ("initial_multiplier", "maintenance_multiplier")
    given = [name for name in names if getattr(venue, name) is not None]
    if given and not is_one(venue.margin_multiplier):
        raise ParameterError(
            f"margin_multiplier must be left out with {' and '.join(given)}: it sets both, "
            f"got {format_multiplier(venue.margin_multiplier)}",
            where="Venue.margin_multiplier",
            cure="give initial_multiplier and maintenance_multiplier instead of margin_multiplier",
        )
    if venue.open_interest_margin is not None:
        check_rising(venue, venue.open_interest_margin)


def check_rising(venue: Any, rising: object) -> None:
    """Check that open interest alone decides the initial margin, from one fraction."""
    where = "Venue.open_interest_margin"
    if not isinstance(rising, OpenInterestMargin):
        raise ParameterError(
            f"open_interest_margin must be an OpenInterestMargin, got {rising!r}",
            where=where,
            cure="give bt.OpenInterestMargin(lower=..., upper=...), or leave it out",
        )
    name = "margin_multiplier" if venue.initial_multiplier is None else "initial_multiplier"
    multiplier = getattr(venue, name)
    if name == "initial_multiplier" or not is_one(multiplier):
        raise ParameterError(
            f"open_interest_margin must be the only rule of initial margin, {name} was given too: "
            f"{format_multiplier(multiplier)}",
            where=where,
            cure=f"leave {name} out; maintenance_multiplier may be given for the other margin",
        )
    for table in venue.tables():
        most = sorted({row.max_leverage for row in table})
        if len(most) > 1 or most[0] < 1.0:
            raise ParameterError(
                "open_interest_margin needs one max_leverage of at least 1 in all brackets, got "
                f"{', '.join(f'{each:g}' for each in most)}",
                where=where,
                cure="give all brackets one max_leverage, or an initial_multiplier by time, made "
                "with bt.margin_rules.by_open_interest",
            )


def format_multiplier(value: Rate) -> str:
    return f"a series of {len(value)} values" if isinstance(value, pd.Series) else f"{value:g}"

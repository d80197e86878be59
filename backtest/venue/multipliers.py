"""Multipliers of a venue's margin, and initial margin that rises with open interest."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd

from backtest.base import Faults, Rate, Text, Value, declared
from backtest.base.fields import NOT_NEGATIVE, POSITIVE


@declared(kw_only=True)
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

    def faults(self) -> Faults:
        """Yield an upper notional that is not over the lower one."""
        if not self.lower < self.upper:
            yield "upper", f"must be over lower {self.lower:g}"


def is_one(multiplier: Rate) -> bool:
    return not isinstance(multiplier, pd.Series) and multiplier == 1.0


def choose_multipliers(venue: Any) -> dict[str, Rate]:
    names = ("initial_multiplier", "maintenance_multiplier")
    given = [name for name in names if getattr(venue, name) is not None]
    return {name: getattr(venue, name) for name in given} or {
        "margin_multiplier": venue.margin_multiplier
    }


def find_multiplier_faults(venue: Any) -> Faults:
    """Yield more than one source of the multiplier of a margin."""
    given = choose_multipliers(venue)
    if "margin_multiplier" not in given and not is_one(venue.margin_multiplier):
        yield "margin_multiplier", f"must be left out with {' and '.join(given)}: it sets both"
    if venue.open_interest_margin is None:
        return
    if venue.initial_multiplier is not None or not is_one(venue.margin_multiplier):
        rule = "must be the only rule of initial margin: leave multipliers of it out"
        yield "open_interest_margin", rule
    for table in venue.tables():
        most = {row.max_leverage for row in table}
        if len(most) > 1 or min(most) < 1.0:
            rule = "must have one max_leverage of at least 1 in all brackets"
            yield "open_interest_margin", rule
            return

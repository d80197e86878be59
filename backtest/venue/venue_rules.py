"""Rules between the parts of a venue: interest, multipliers of margin, spot contracts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd

from backtest.base import Faults, Rate, Text, Value, VenueError, declared
from backtest.base.fields import NOT_NEGATIVE, POSITIVE
from backtest.venue.brackets import Bracket
from backtest.venue.trading_terms import Contract, Liquidation

if TYPE_CHECKING:
    from backtest.base import Cost, Rate

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


ACCOUNT_FIELDS = (
    "interest_on", "borrow_rate", "cash_rate", "short_rate", "day_count", "funding_jitter",
    "call_grace",
)  # fmt: skip


def choose_leverage(haircut: float, max_leverage: float | None) -> float:
    if max_leverage is not None:
        return max_leverage
    if haircut > 0.0:
        return 0.5 / haircut
    raise VenueError("max_leverage is needed with a haircut of 0, 10 for example")


def list_spot_parts(
    haircut: float, borrow_rate: Rate, max_leverage: float | None, lot: float, like: Any
) -> dict[str, Any]:
    shared = {} if like is None else {name: getattr(like, name) for name in ACCOUNT_FIELDS}
    contract = Contract(
        kind="spot", haircut=haircut, borrow_rate=borrow_rate, lot=lot, tick=1e-8, min_notional=0.0
    )
    most = choose_leverage(haircut, max_leverage)
    return {"contract": contract, "brackets": [Bracket(0.0, math.inf, most, 0.0)], **shared}


def force_spot(fee: Cost, slippage: Cost, like: Any) -> Liquidation:
    forced = Liquidation(mode="close", fee=fee, slippage=slippage)
    if like is None:
        return forced
    shared = {name: getattr(like.liquidation, name) for name in ("mode", "order")}
    if not isinstance(like.liquidation.step, str):
        shared["step"] = like.liquidation.step
    return forced.override(shared)


def find_spot_faults(venue: Any) -> Faults:
    """Yield settings of margin that a spot leg has no use for."""
    haircut = venue.contract.haircut or 0.0
    if len(venue.brackets) != 1 or venue.earlier:
        yield "brackets", "must be one for a spot contract, of rate 0"
    elif haircut * venue.brackets[0].max_leverage >= 1.0:
        rule = f"must be under 1 / haircut, {1.0 / haircut:g}, or a long backs nothing"
        yield "brackets.0.max_leverage", rule
    only = {
        "includes_close_fee": False,
        "maintenance_at": "mark",
        "profit_counts": "all",
        "open_interest_margin": None,
        "liquidation.full_below_health": 0.0,
    }
    for name, value in only.items():
        if attrgetter(name)(venue) != value:
            yield name, f"must be {value!r} for a spot contract"
    for name, multiplier in choose_multipliers(venue).items():
        if not is_one(multiplier):
            yield name, "must be 1 for a spot contract: change the haircut or max_leverage"
    if venue.liquidation.step == "bracket":
        yield "liquidation.step", "must be a fraction for a spot contract"
    if venue.interest_on == "loan":
        yield "interest_on", "must be 'balance' for a spot contract: what is borrowed is a balance"

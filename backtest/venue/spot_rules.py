"""Rules of a venue whose contract is spot: a paid leg of an account with several positions."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from backtest.base import Faults, VenueError
from backtest.venue.brackets import Bracket
from backtest.venue.multipliers import choose_multipliers, is_one
from backtest.venue.trading_terms import Contract, Liquidation

if TYPE_CHECKING:
    from backtest.base import Cost, Rate

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

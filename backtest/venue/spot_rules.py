"""Rules of a venue whose contract is spot: a paid leg of an account with several positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from backtest.base import VenueError
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
    raise VenueError(
        "max_leverage is needed with a haircut of 0, got None",
        where="Venue.spot, max_leverage",
        cure="give max_leverage=10, or a haircut over 0",
    )


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


def check_spot(venue: Any) -> None:
    multipliers = choose_multipliers(venue)
    demand = (venue.contract.haircut or 0.0) * venue.brackets[0].max_leverage
    rules: tuple[tuple[bool, str, Any, str, str], ...] = (
        (len(venue.brackets) == 1 and not venue.earlier, "brackets",
         f"{len(venue.brackets)} of {1 + len(venue.earlier)} tables",
         "must be one, of rate 0", "give brackets=[bt.Bracket(0, inf, max_leverage, 0)]"),
        (demand < 1.0, "brackets", f"{demand:g}",
         "must have max_leverage x haircut under 1, or a long at max_leverage backs nothing",
         "lower max_leverage or the haircut"),
        (not venue.includes_close_fee, "includes_close_fee", True, "must be False",
         "leave it out: a spot leg has no requirement"),
        (venue.maintenance_at == "mark", "maintenance_at", venue.maintenance_at,
         "must be 'mark'", "leave it out: a spot leg has no requirement"),
        (venue.profit_share() == 1.0, "profit_counts", venue.profit_counts, "must be 'all'",
         "leave it out: the coins are owned, and the haircut is what does not count"),
        (all(is_one(each) for each in multipliers.values()), ", ".join(multipliers), "others",
         "must be 1", "change the haircut or max_leverage instead"),
        (venue.open_interest_margin is None, "open_interest_margin", "one", "must be None",
         "leave it out: it is of margined contracts"),
        (venue.liquidation.full_below_health == 0.0, "liquidation.full_below_health",
         venue.liquidation.full_below_health, "must be 0", "leave it out"),
        (venue.liquidation.step != "bracket", "liquidation.step", "bracket",
         "must be a fraction", "give liquidation={'step': 0.5}"),
        (venue.interest_on != "loan", "interest_on", "loan", "must be 'balance'",
         "give interest_on='balance': money borrowed for a spot leg is a negative balance"),
    )  # fmt: skip
    for holds, name, found, rule, cure in rules:
        if not holds:
            raise VenueError(
                f"{name} of a spot contract {rule}, got {found}", where=f"Venue.{name}", cure=cure
            )

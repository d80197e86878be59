"""The hedging error of options and what hedges them, against what their gamma says they earn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import Choice, utc_index
from backtest.base.units import DAY, YEAR_DAYS
from backtest.measures import weigh_gamma

if TYPE_CHECKING:
    from backtest.base import BoolArray, FloatArray
    from backtest.engine.run_closes import RunCloses
    from backtest.engine.run_options import RunOptions

HedgeSplit: TypeAlias = Literal["instrument", "bar"]
HEDGE_SPLITS = Choice("instrument", "bar")
MONEY = ("options", "hedge", "profit", "theory", "error")
COLUMNS = (
    *MONEY, "deviation", "expected_deviation", "volatility", "implied_volatility", "costs", "bars",
)  # fmt: skip
PAID = ("fees", "slippage", "impact", "funding", "liquidation_loss")


class Hedge(NamedTuple):
    money: dict[str, FloatArray]
    weights: FloatArray
    implied: FloatArray
    variance: float
    is_held: BoolArray
    costs: float


def tabulate_hedging(run: RunCloses, options: RunOptions | None, by: HedgeSplit) -> pd.DataFrame:
    hedges = {} if options is None else follow_hedges(run, options)
    if by == "instrument":
        rows = [describe_hedge(each) for each in hedges.values()]
        return pd.DataFrame(rows, columns=[*COLUMNS], index=pd.Index([*hedges], name="instrument"))
    time = utc_index(run.time if hedges else run.time[:0])
    nothing = np.zeros(len(time))
    sums = {name: sum((each.money[name] for each in hedges.values()), nothing) for name in MONEY}
    return pd.DataFrame(sums, index=time)


def follow_hedges(run: RunCloses, options: RunOptions) -> dict[str, Hedge]:
    given = (options.terms, options.quotes, options.carried, options.opened)
    weights, implied = weigh_gamma(*given)
    is_exposed = (options.carried != 0.0) | (options.opened != 0.0)
    found = {}
    for i in options.hedged:
        own = options.terms.instruments == i
        held, quantity = is_exposed[:, own].any(axis=1), run.of_positions("quantity")[:, i]
        variance = measure_variance(run, i, held)
        made = options.record.price_pnl[:, own].sum(axis=1)
        hedged, weight = run.of_positions("price_pnl")[:, i], weights[:, own].sum(axis=1)
        meant = implied[:, own].sum(axis=1)
        profit, theory = made + hedged, 0.5 * (variance * weight - meant)
        money = dict(zip(MONEY, (made, hedged, profit, theory, profit - theory), strict=True))
        costs = sum(float(run.of_positions(each)[:, i].sum()) for each in PAID)
        found[run.names[i]] = Hedge(money, weight, meant, variance, held | (quantity != 0.0), costs)
    return found


def measure_variance(run: RunCloses, i: int, is_exposed: BoolArray) -> float:
    """Return the variance per year of an instrument while options on it were held."""
    marks, ends = run.marks[:, i], run.span.closes
    moves, years = np.diff(np.log(marks)), np.diff(ends) / (YEAR_DAYS * DAY)
    rows = is_exposed[1:] & np.isfinite(moves)
    return float((moves[rows] ** 2).sum() / years[rows].sum()) if rows.any() else math.nan


def describe_hedge(hedge: Hedge) -> dict[str, float]:
    sums = {name: float(each.sum()) for name, each in hedge.money.items()}
    errors, n = hedge.money["error"][hedge.is_held], int(hedge.is_held.sum())
    weight = float(np.abs(hedge.weights).sum())
    mean = float(np.abs(hedge.implied).sum()) / weight if weight > 0.0 else math.nan
    return {
        **sums,
        "deviation": float(errors.std(ddof=1)) * math.sqrt(n) if n > 1 else math.nan,
        "expected_deviation": hedge.variance * math.sqrt(0.5 * float((hedge.weights**2).sum())),
        "volatility": math.sqrt(hedge.variance),
        "implied_volatility": math.sqrt(mean),
        "costs": hedge.costs,
        "bars": n,
    }

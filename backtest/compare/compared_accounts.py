"""The accounts of a comparison: a row of measures each, and their returns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, ParameterError
from backtest.base.units import DAY, YEAR_DAYS
from backtest.compare.shared_terms import SharedTerms
from backtest.engine import (
    Result,
    as_of,
    count_at,
    count_periods,
    earn_cash,
    finish,
    mark_samples,
    measure_years,
    run_account,
)
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.measures import Sampled, find_cost_rates
from backtest.measures.performance import LEAST_DEVIATION


def tabulate_accounts(
    results: Mapping[str, Any], scaled: Mapping[str, ScaledAccount] | None
) -> pd.DataFrame:
    rows = {}
    for name, result in results.items():
        own = measure_account(result) if isinstance(result, Result) else result.metrics
        if scaled is not None:
            own |= {"scale": scaled[name].scale, "unscaled_volatility": scaled[name].volatility}
        rows[name] = own
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def measure_account(result: Result) -> dict[str, float]:
    """Return log growth, all measures of a run, and its costs per year over mean equity.

    Of an account in coins also its growth and deepest fall in the quote currency.
    """
    rates = find_cost_rates(result.tally, result.span)
    return {
        "log_growth": find_growth(result, count_years(result)),
        **result.metrics,
        **{f"{name}_annual": rate for name, rate in rates.items()},
        **measure_in_quote(result),
    }


def measure_in_quote(result: Result) -> dict[str, float]:
    """Return growth and deepest fall at closes in the quote currency, of an account in one coin."""
    venues = zip(result.list_venues(), result.marks.T, strict=True)
    of_coins = [marks for venue, marks in venues if venue.contract.kind == "inverse"]
    marks = next((each for each in of_coins if np.isfinite(each).all()), None)
    if marks is None:
        return {}
    metrics = count_at(result, marks, float(marks[0])).metrics
    return {f"{name}_quote": metrics[name] for name in ("total_return", "max_drawdown")}


def count_years(result: Any) -> float:
    years: float = (int(result.span.closes[-1]) - result.span.start) / (YEAR_DAYS * DAY)
    return years


def find_growth(result: Any, years: float) -> float:
    """Return the log growth of the unit value per year; -inf after ruin."""
    if not isinstance(result, Result):
        return float(result.metrics["log_growth"])
    if result.metrics["ruined"]:
        return -math.inf
    return float(np.sum(np.log1p(result.returns.to_numpy()))) / years


def sample_free(setting: SharedTerms) -> FloatArray:
    """Return the simple risk-free return of each sampling period, of shape (n,)."""
    market, venue, first = setting.market, setting.first_venue, setting.first
    rates = as_of(venue.cash_rate, market.time, "Venue.cash_rate")
    years = measure_years(market, venue, first, int(market.time[first]))
    free = earn_cash(rates, years, market.n_bars)[first:]
    ends = np.flatnonzero(mark_samples(market, setting.sampling)[first:])
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.asarray(np.expm1(np.add.reduceat(np.log1p(free), starts)))


def sample_returns(results: Mapping[str, Any], setting: SharedTerms) -> Sampled:
    """Return the sampled returns of all accounts, of shape (k, n)."""
    first = next(iter(results.values()))
    rows = np.array([result.returns.to_numpy() for result in results.values()])
    free = sample_free(setting) if isinstance(first, Result) else first.sample_free(setting)
    periods = count_periods(setting.calendar, setting.sampling, setting.market, setting.first)
    return Sampled(rows, free, rows.shape[1] / count_years(first), periods)


def remove_residual_risk(sampled: Sampled, scaled: Mapping[str, ScaledAccount] | None) -> Sampled:
    if scaled is None:
        return sampled
    rest = np.array([each.rest for each in scaled.values()])
    return sampled._replace(returns=sampled.returns * rest[:, None])


MOST_RUNS = 6
"""The most runs of one account in the search for its scale."""
EXACT = 1e-6
"""The relative distance from the target volatility at which the search ends."""
NEAR = 0.01
"""The relative distance above which a comparison warns that risk is not equal."""
ELASTICITY = (0.25, 4.0)
"""Bounds on the elasticity of volatility to scale, for the next step of the search."""


class ScaledAccount(NamedTuple):
    result: Result
    scale: float
    volatility: float
    target: float

    @property
    def distance(self) -> float:
        return abs(self.result.metrics["volatility"] / self.target - 1.0)

    @property
    def rest(self) -> float:
        rest = self.target / self.result.metrics["volatility"] if self.distance <= NEAR else 1.0
        return rest if rest * float(self.result.returns.min()) > -1.0 else 1.0


def equalize_risk(
    results: Mapping[str, Result],
    setting: SharedTerms,
    on_done: Callable[[], None],
) -> dict[str, ScaledAccount]:
    known = {name: result.metrics["volatility"] for name, result in results.items()}
    moving = [each for each in known.values() if each > LEAST_DEVIATION]
    if not moving:
        raise ParameterError("equal_risk needs an account that moves, all have a volatility of 0")
    found = {}
    for name, result in results.items():
        found[name] = ScaledAccount(result, 1.0, known[name], min(moving))
        if known[name] > LEAST_DEVIATION:
            found[name] = search_scale(name, found[name], setting)
        on_done()
    return found


def search_scale(name: str, given: ScaledAccount, setting: SharedTerms) -> ScaledAccount:
    """Search for the scale that brings the volatility of an account nearest to its target.

    Notes
    -----
    Secant steps in logarithms: ln c <- ln c + ln(target / sigma) / e, with the elasticity e = 1 at
    first, and then d ln sigma / d ln c of the last two runs.
    """
    best, target = given, given.target
    scale, volatility, elasticity = 1.0, given.volatility, 1.0
    for _ in range(MOST_RUNS):
        if best.distance <= EXACT:
            break
        step = math.exp(math.log(target / volatility) / elasticity)
        again = given._replace(scale=min(1.0, scale * step))
        again = again._replace(result=run_scaled(name, given.result, again.scale, setting))
        if again.distance < best.distance:
            best = again
        after = again.result.metrics["volatility"]
        if not after > LEAST_DEVIATION or again.scale == scale:
            break
        answer = math.log(after / volatility) / math.log(again.scale / scale)
        elasticity = float(np.clip(answer, *ELASTICITY))
        scale, volatility = again.scale, after
    return best


def run_scaled(name: str, result: Any, scale: float, setting: SharedTerms) -> Result:
    policies = result.policies
    is_retuned = "switches" in result.manifest["policy"]
    if is_retuned or not policies:
        what = f"result {name!r} changed its parameters on the way"
        raise ParameterError(
            "equal_risk runs every policy again, the "
            + (what if is_retuned else f"loaded result {name!r} has no policy")
            + "; give its policy"
        )
    scaled = result.setup.scale(scale)
    with warnings.catch_warnings():
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        outcome = run_account(scaled, is_compiled=setting.compile, progress=None)
        return finish(scaled, outcome, calendar=setting.calendar)

"""Equal risk: an account, or a constant leverage on its terms, scaled to a given volatility."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest import core
from backtest.engine import run_again
from backtest.engine.policies import observe_policies
from backtest.market import find_clock
from backtest.policies import Policy
from backtest.results import compound_growth
from backtest.results.performance import LEAST_DEVIATION
from backtest.results.result import EqualRisk, Result
from backtest.results.run_record import measure_holding

BUY_AND_HOLD, CONSTANT = "buy and hold", "constant leverage at equal risk"
"""The benchmark lines of an account."""
MOST_RUNS = 6
"""The most runs of one account in the search for its scale."""
MOST_PLAIN = 5_000
"""Bars times instruments up to which an account in plain Python gets its line at equal risk."""
EXACT = 1e-6
"""The relative distance from the target volatility at which the search ends."""
NEAR = 0.01
"""The relative distance up to which the risk of two accounts counts as equal."""
ELASTICITY = (0.25, 4.0)
"""Bounds on the elasticity of volatility to scale, for the next step of the search."""


class ScaledAccount(NamedTuple):
    """An account at a scale of its positions, and the annual volatility that it should have.

    ``volatility`` is that at scale 1.
    """

    result: Result
    scale: float
    volatility: float
    target: float

    @property
    def distance(self) -> float:
        return abs(self.result.metrics["volatility"] / self.target - 1.0)

    @property
    def rest(self) -> float:
        """Return by what returns are still to be multiplied; 1 where they cannot be."""
        rest = self.target / self.result.metrics["volatility"] if self.distance <= NEAR else 1.0
        return rest if rest * float(self.result.returns.min()) > -1.0 else 1.0


def scale_to_volatility(
    result: Result, target: float, most: float = 1.0, exact: float = EXACT
) -> ScaledAccount:
    """Scale all positions of an account, and run it again, until it has an annual volatility.

    ``most`` is the largest scale. Secant steps in logarithms: ln c <- ln c + ln(target / sigma) /
    e, with the elasticity e = 1 at first, and then d ln sigma / d ln c of the last two runs. The
    nearest of at most 6 runs is returned; ``distance`` says how near, ``exact`` how near suffices.
    """
    volatility = result.metrics["volatility"]
    best = ScaledAccount(result, 1.0, volatility, target)
    scale, elasticity = 1.0, 1.0
    for _ in range(MOST_RUNS):
        if best.distance <= exact or not volatility > LEAST_DEVIATION:
            break
        step = math.exp(math.log(target / volatility) / elasticity)
        last, scale = scale, min(most, scale * step)
        again = best._replace(result=run_again(result, result.setup.scale(scale)), scale=scale)
        if again.distance < best.distance:
            best = again
        after = again.result.metrics["volatility"]
        if not after > LEAST_DEVIATION or scale == last:
            break
        answer = math.log(after / volatility) / math.log(scale / last)
        elasticity = float(np.clip(answer, *ELASTICITY))
        volatility = after
    return best


class ConstantLeverage(Policy):
    turns: Annotated[float, core.Range(0.0, math.inf)] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - it knows nothing
        return self.turns


def hold_at_equal_risk(
    result: Any, volatility: float | None = None, exact: float = EXACT
) -> ScaledAccount | None:
    """Return a constant leverage on the terms of an account, at its annual volatility or another.

    It trades the same bars and signal, under the same overlay, at the same costs and limits. The
    scale is known only afterwards: to compare, not to trade. None of an account that was loaded or
    ruined, did not move, or trades options, which have no leverage of their own.
    """
    target = result.metrics["volatility"] if volatility is None else volatility
    setup = result.setup
    is_ruined = volatility is None and bool(result.metrics["ruined"])
    is_still = not target > LEAST_DEVIATION
    if setup is None or result.options is not None or is_ruined or is_still:
        return None
    clock = find_clock(setup.markets)
    policies: dict[str, Policy] = dict.fromkeys(setup.markets.names, ConstantLeverage())
    seen = clock.pick(setup.signal)
    observed = observe_policies(
        policies, setup.overlay, clock.seen, setup.venues, seen, is_checked=False
    )
    constant = run_again(result, setup.change(policies=policies, observed=observed))
    return scale_to_volatility(constant, target, most=math.inf, exact=exact)


def find_equal_risk(result: Any) -> EqualRisk | None:
    """Return the constant leverage with the account's volatility, within 1 %; None if none has it.

    Nor has a long account in plain Python, as it takes some runs.
    """
    is_long = len(result.time) * len(result.names) > MOST_PLAIN
    if is_long and result.manifest["compiled"] != "yes":
        return None
    held = hold_at_equal_risk(result, exact=NEAR)
    if held is None or not held.distance <= NEAR:
        return None
    return EqualRisk(held.scale, held.result.of_account("unit") / held.result.tally.first_unit)


def measure_market(result: Result) -> dict[str, float]:
    """Return the measures of buying and holding the market, or its index, without costs."""
    held = measure_holding(result)
    names = ("total_return", "volatility", "sharpe", "max_drawdown")
    found = {name: float(getattr(held, name)) for name in names}
    return {**found, "cagr": float(compound_growth(1.0 + held.total_return, result.span.years))}


def name_better(
    lines: Mapping[str, Mapping[str, float]], own: Mapping[str, float], whose: str = "its"
) -> str:
    """Return the benchmark lines that grew more than an account, as a clause; empty if none did."""

    def say(row: Mapping[str, float]) -> str:
        growth, volatility = map(core.format_percent, (row["cagr"], row["volatility"]))
        return f"{growth} a year at a volatility of {volatility}"

    better = [f"{name} grew by {say(row)}" for name, row in lines.items()
              if row["cagr"] > own["cagr"]]  # fmt: skip
    return f"{' and '.join(better)}, more than {whose} {say(own)}" if better else ""


def find_growth(result: Result) -> float:
    """Return the log growth of the unit value per year; -inf after ruin."""
    if result.metrics["ruined"]:
        return -math.inf
    return float(np.sum(np.log1p(result.returns.to_numpy()))) / result.span.years

"""Scale accounts down to the same realised volatility, by running the market again.

A policy that only holds smaller positions has smaller losses and smaller gains, which is no merit.
Every account is therefore scaled to the volatility of the calmest one and run again, with its
costs, funding and liquidations. The scale multiplies positions, not returns; the policy decides as
before. The scale is known only afterwards: such an account could not have been traded, and serves
only to compare. Lots and bands leave small differences in volatility; tests remove a rest of up to
1 % by scaling returns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.base import Argument, Either, ParameterError, Phrase, Place
from backtest.compare.shared_terms import SharedTerms
from backtest.engine import Result, finish, run_account
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.measures.performance import LEAST_DEVIATION

MOST_RUNS = 6
"""The most runs of one account in the search for its scale."""
EXACT = 1e-6
"""The relative distance from the target volatility at which the search ends."""
NEAR = 0.01
"""The relative distance above which a comparison warns that risk is not equal."""
ELASTICITY = (0.25, 4.0)
"""Bounds on the elasticity of volatility to scale, for the next step of the search."""

AS_THEY_ARE = Either("equal_risk=False", Phrase("leave out {}", Argument("equal_risk")))


class ScaledAccount(NamedTuple):
    """A scaled account: the scale of its positions, its volatility before, and the target."""

    result: Result
    scale: float
    volatility: float
    target: float

    @property
    def distance(self) -> float:
        """The relative distance of the volatility from the target."""
        return abs(self.result.metrics["volatility"] / self.target - 1.0)

    @property
    def rest(self) -> float:
        """The factor that brings the volatility of the returns to the target, for tests.

        It is 1 if the distance exceeds :data:`NEAR`, or if a scaled return would be -1 or less.
        """
        rest = self.target / self.result.metrics["volatility"] if self.distance <= NEAR else 1.0
        return rest if rest * float(self.result.returns.min()) > -1.0 else 1.0


def equalize_risk(
    results: Mapping[str, Result],
    settings: Mapping[str, SharedTerms],
    on_done: Callable[[], None],
) -> dict[str, ScaledAccount]:
    """Scale every account to the volatility of the calmest one; call ``on_done`` after each.

    ``settings`` has the terms of each account.
    """
    known = {name: result.metrics["volatility"] for name, result in results.items()}
    moving = [each for each in known.values() if each > LEAST_DEVIATION]
    if not moving:
        raise ParameterError(
            "equal risk needs an account that moves, all have a volatility of 0",
            where=Place("equal_risk", of="bt.compare"),
            cure=Phrase("give policies that trade on this market, or {}", AS_THEY_ARE),
        )
    found = {}
    for name, result in results.items():
        found[name] = ScaledAccount(result, 1.0, known[name], min(moving))
        if known[name] > LEAST_DEVIATION:
            found[name] = search_scale(name, found[name], settings[name])
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
    """Run an account again with all positions multiplied by a scale in (0, 1].

    The signal is scaled, after the bounds of policy and account, so that any leverage, even an
    infinite one, is reduced by the scale. Bands, lots and minimum orders apply to the smaller
    positions. The policies see the unscaled signal: one that estimates the risk of it would
    otherwise lever up against the scale.
    """
    policies = result.policies
    is_retuned = "switches" in result.manifest["policy"]
    if is_retuned or not policies:
        what = f"result {name!r} changed its parameters on the way"
        raise ParameterError(
            "equal risk runs every policy again, the "
            + (what if is_retuned else f"loaded result {name!r} has no policy"),
            where=f"bt.compare, policies[{name!r}]",
            cure=Phrase("pass the policy in place of the result, or {}", AS_THEY_ARE),
        )
    scaled = result.setup.scale(scale)
    with warnings.catch_warnings():
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        outcome = run_account(scaled, is_compiled=setting.compile, progress=None)
        return finish(scaled, outcome, calendar=setting.calendar)

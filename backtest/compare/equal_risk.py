"""Bring accounts to the same realised volatility, by living through the market again with less.

A policy that only holds less than another has smaller losses, and smaller gains: that is no merit.
Every account is therefore scaled down to the volatility of the calmest one, and run again, with its
costs, its funding and its liquidations. The scale multiplies the position, not the returns; the
policy itself is asked as before. It is known only afterwards, so that no such account could have
been traded: it serves to compare, and for nothing else. Lots and bands keep the volatilities from
being equal to the last digit; in tests of differences what is left, at most 1 %, is taken out by
scaling returns.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.phrases import Argument, Either, Phrase, Place
from backtest.base.units import FloatArray
from backtest.compare.shared_terms import SharedTerms
from backtest.engine.result import Result
from backtest.market.market import Market
from backtest.measures.performance import LEAST_DEVIATION
from backtest.policy.policy import Columns, Policy

MOST_RUNS = 6
"""Runs of one account in search of its scale."""
EXACT = 1e-6
"""Relative distance of the volatility from the one asked for at which the search ends."""
NEAR = 0.01
"""The distance over which a comparison says that risk is not equal."""
ELASTICITY = (0.25, 4.0)
"""How much a volatility may answer to its scale, in percent to the percent, for the next guess."""

AS_THEY_ARE = Either("equal_risk=False", Phrase("leave out {}", Argument("equal_risk")))


class Scaled(NamedTuple):
    """An account at the common risk.

    The scale of its positions, its volatility before, and the one it was to have.
    """

    result: Result
    scale: float
    volatility: float
    target: float

    @property
    def distance(self) -> float:
        """How far its volatility is from the target, relative to it."""
        return abs(self.result.metrics["volatility"] / self.target - 1.0)

    @property
    def rest(self) -> float:
        """What its returns are multiplied by for tests, so that no risk is left to differ.

        1 where that is far, and where the account would fall below nothing by it.
        """
        rest = self.target / self.result.metrics["volatility"] if self.distance <= NEAR else 1.0
        return rest if rest * float(self.result.returns.min()) > -1.0 else 1.0


def equalize_risk(
    results: Mapping[str, Result], setting: SharedTerms, tell: Callable[[], None]
) -> dict[str, Scaled]:
    """Return every account at the volatility of the calmest one.

    Parameters
    ----------
    results : mapping of str to Result
        Accounts as they were.
    setting : SharedTerms
        What they share.
    tell : callable
        Called when one is done.
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
        found[name] = Scaled(result, 1.0, known[name], min(moving))
        if known[name] > LEAST_DEVIATION:
            found[name] = search_scale(name, found[name], setting)
        tell()
    return found


def search_scale(name: str, given: Scaled, setting: SharedTerms) -> Scaled:
    """Return an account at the scale that brings its volatility nearest to the target.

    Notes
    -----
    Secant steps in logarithms: ln c <- ln c + ln(target / sigma) / e, with the elasticity e = 1 at
    first, and then d ln sigma / d ln c of the last two runs.
    """
    best, target, policy = given, given.target, given.result.policy
    scale, volatility, elasticity = 1.0, given.volatility, 1.0
    for _ in range(MOST_RUNS):
        if best.distance <= EXACT:
            break
        step = math.exp(math.log(target / volatility) / elasticity)
        again = given._replace(scale=min(1.0, scale * step))
        again = again._replace(result=run_scaled(name, policy, again.scale, setting))
        if again.distance < best.distance:
            best = again
        after = again.result.metrics["volatility"]
        if not after > LEAST_DEVIATION or again.scale == scale:
            break
        answer = math.log(after / volatility) / math.log(again.scale / scale)
        elasticity = float(np.clip(answer, *ELASTICITY))
        scale, volatility = again.scale, after
    return best


def run_scaled(name: str, policy: Policy | None, scale: float, setting: SharedTerms) -> Result:
    """Return the account of a policy whose positions are multiplied by a scale in (0, 1].

    The signal is what is scaled: after the policy's and the account's own bounds, so that
    everything it asks for, infinite leverage too, becomes as much less. Bands, lots and least
    orders are those of the smaller account.
    """
    if policy is None:
        raise ParameterError(
            f"equal risk runs every policy again, the result {name!r} was loaded without its own",
            where=f"bt.compare, policies[{name!r}]",
            cure=Phrase("pass the policy in place of the result, or {}", AS_THEY_ARE),
        )
    directions = setting.directions
    given = directions * scale
    signal = float(given[0]) if len(given) == 1 else given
    whole = np.broadcast_to(directions, setting.market.n_bars)
    result = setting.run(hide_scale(policy, setting.market, whole), signal=signal)
    return dataclasses.replace(result, policy=policy)


def hide_scale(policy: Policy, whole: Market, directions: FloatArray) -> Policy:
    """Return the policy observing the market with these directions, whatever is traded.

    One that estimates what it trades would see it become calmer, and lever up against the scale.
    """
    blind = copy.copy(policy)

    def observe(market: Market) -> Columns:
        first = int(np.searchsorted(whole.time, market.start))
        return policy.observe(market.with_signal(directions[first : first + market.n_bars]))

    object.__setattr__(blind, "observe", observe)
    return blind

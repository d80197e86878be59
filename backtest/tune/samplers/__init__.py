"""Samplers choose the points of the unit cube to evaluate next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from backtest.base import Choice, Whole
from backtest.tune.samplers.auto import start_auto
from backtest.tune.samplers.cmaes import Cmaes
from backtest.tune.samplers.gaussian_process import GaussianProcess
from backtest.tune.samplers.grid import Grid
from backtest.tune.samplers.protocol import Capped, Sampler, SamplerName, SamplerTerms
from backtest.tune.samplers.sobol_random import Random, Sobol

if TYPE_CHECKING:
    from backtest.sweep import Space

__all__ = ["Sampler", "SamplerName", "make_sampler"]

SAMPLERS: dict[SamplerName, Callable[[SamplerTerms], Sampler]] = {
    "auto": start_auto,
    "cmaes": Cmaes,
    "gp": GaussianProcess,
    "sobol": Sobol,
    "random": Random,
    "grid": Grid,
}


def make_sampler(
    name: SamplerName,
    space: Space,
    *,
    seed: int,
    trials: int | None = None,
    batch: int | None = None,
) -> Sampler:
    Choice(*get_args(SamplerName)).check("sampler", name)
    Whole(0).check("seed", seed)
    for what, count in (("trials", trials), ("batch", batch)):
        if count is not None:
            Whole(1).check(what, count)
    terms = SamplerTerms(space, seed, trials, batch)
    sampler = SAMPLERS[name](terms)
    return sampler if trials is None else Capped(sampler, trials, terms.n_dimensions)

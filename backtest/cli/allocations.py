"""Weights of several markets by the name of a rule, as ``--allocate`` and ``[run] allocate``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from backtest import allocate
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.ranges import Choice
from backtest.market import Markets

ALLOCATIONS: dict[str, Callable[..., pd.DataFrame]] = {
    "equal": allocate.equal,
    "inverse-volatility": allocate.inverse_volatility,
    "equal-risk": allocate.equal_risk,
    "minimum-variance": allocate.minimum_variance,
    "hierarchical": allocate.hierarchical,
}
"""The rules of :mod:`backtest.allocate` that need nothing but markets, by their names."""


def allocate_by_name(
    name: str, markets: Markets, settings: Mapping[str, Any], *, where: str
) -> pd.DataFrame:
    """Return the weights of a rule; ``settings`` are its keyword arguments.

    ``where`` is the flag or table that gave them, for messages.
    """
    Choice(*ALLOCATIONS).check("allocate", name, where=where)
    rule = ALLOCATIONS[name]
    known = [each for each in inspect.signature(rule).parameters if each != "markets"]
    for each in settings:
        if each not in known:
            raise ParameterError(
                f"{name} has no setting {each!r}{did_you_mean(each, known)}",
                where=where,
                cure=f"use {', '.join(known)}" if known else "leave allocate_settings out",
            )
    return rule(markets, **settings)

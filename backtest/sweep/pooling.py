"""How the measures of several markets become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest.base import FloatArray, ParameterError, name_callable, repr_plain
from backtest.measures import find_direction
from backtest.measures.ranking import NEVER

Pool: TypeAlias = "str | Callable[[FloatArray], FloatArray] | Pooling"

POOLS = ("mean", "median", "worst")


class Pooling(NamedTuple):
    """How measures of several markets become one: its name, and the function.

    ``join`` takes the name of a measure and values of shape (n_markets, n_sets).
    """

    name: str
    join: Callable[[str, FloatArray], FloatArray]

    @property
    def is_mean(self) -> bool:
        return self.name == "mean"

    def describe(self) -> dict[str, str]:
        return {"accounts": "separate", "pool": self.name}


def read_pool(pool: Pool) -> Pooling:
    if isinstance(pool, Pooling):
        return pool
    if callable(pool):
        name = f"function {name_callable(pool)}"
        return Pooling(name, lambda _, values: check_pooled(pool(values), values))
    if not isinstance(pool, str) or pool not in POOLS:
        raise ParameterError(
            f"pool must be 'mean', 'median', 'worst' or a function, got {repr_plain(pool)}"
        )
    joins = {"mean": lambda _, values: values.mean(axis=0),
             "median": lambda _, values: np.median(values, axis=0),
             "worst": take_worst}  # fmt: skip
    return Pooling(pool, joins[pool])


def refuse_pool(pool: Pool) -> None:
    pooling = read_pool(pool)
    if not pooling.is_mean:
        raise ParameterError(
            f"pool needs accounts='separate', whose measures it joins, got {pooling.name!r} for "
            "one account"
        )


def take_worst(name: str, values: FloatArray) -> FloatArray:
    direction = find_direction(name)
    if direction == 0:
        return np.asarray(values.mean(axis=0))
    return np.asarray(values.min(axis=0) if direction > 0 else values.max(axis=0))


def check_pooled(found: Any, values: FloatArray) -> FloatArray:
    pooled = np.asarray(found)
    if pooled.shape != values.shape[1:] or pooled.dtype.kind not in "iuf":
        raise ParameterError(
            f"pool must return a number for each set, of shape {values.shape[1:]}, "
            f"as lambda values: values.min(axis=0) does, got shape {pooled.shape}"
        )
    return pooled.astype(np.float64)


def pool_measure(name: str, values: FloatArray, pool: Pooling) -> FloatArray:
    """Return one measure of all sets from that of each market, of shape (n_markets, n_sets)."""
    if name == "ruined":
        return np.asarray(values.sum(axis=0))
    if name not in NEVER:
        return pool.join(name, values)
    came = ~np.isnan(values)
    total = np.where(came, values, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / came.sum(axis=0))

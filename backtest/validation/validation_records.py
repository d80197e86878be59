"""The contents of validations, as their files hold them; :mod:`walk` and others add methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.validation.interval_estimates import (
    ChanceCount,
    ClearCount,
    Estimate,
    count_better_than_median,
    count_clear,
    count_evidence,
)
from backtest.validation.validation_files import Validation
from backtest.validation.walk_figures import read_figures

if TYPE_CHECKING:
    from backtest.compare import Comparison
    from backtest.validation.walk_figures import Account


@dataclass(frozen=True, eq=False, repr=False)
class WalkRecord(Validation):
    """Contents of a validation; :class:`WalkForward` describes the fields and adds methods."""

    folds: pd.DataFrame
    result: Account | None
    fixed: Account
    stability: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]
    parts: tuple[Account, ...] = ()

    @property
    def efficiency(self) -> float:
        """Log growth per year out of sample over that in sample; NaN if that is not positive."""
        return read_figures(self.figures, "efficiency")

    @property
    def efficiency_difference(self) -> float:
        """Log growth per year out of sample less that in sample."""
        return read_figures(self.figures, "efficiency_difference")

    @property
    def pbo(self) -> Estimate:
        """Share of folds whose winner was no better than the median set out of sample."""
        found = {name: read_figures(self.figures["pbo"], name) for name in ("value", "low", "high")}
        return Estimate(**found)

    @property
    def chance(self) -> dict[str, ChanceCount]:
        """Counts of folds beside what chance alone gives.

        ``better_than_median``: winners that were better than the median set out of sample.
        ``searches_with_evidence``: searches whose own deflated Sharpe ratio is 0.95 or more.
        """
        ranks, deflated = (
            self.folds[name].to_numpy(dtype=np.float64) for name in ("rank", "deflated_sharpe")
        )
        return {
            "better_than_median": count_better_than_median(ranks),
            "searches_with_evidence": count_evidence(deflated),
        }


@dataclass(frozen=True, eq=False, repr=False)
class CrossRecord(Validation):
    """Contents of a validation; :class:`CrossValidation` describes the fields and adds methods."""

    splits: pd.DataFrame
    paths: pd.DataFrame
    matrix: pd.DataFrame
    sets: pd.DataFrame
    curves: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def pbo(self) -> Estimate:
        """Share of splits whose winner was no better than the median set out of sample."""
        found = {name: read_figures(self.figures["pbo"], name) for name in ("value", "low", "high")}
        return Estimate(**found)

    @property
    def ranks(self) -> pd.Series:
        """The winner's rank out of sample in each split."""
        return self.splits["rank"]


@dataclass(frozen=True, eq=False, repr=False)
class ScheduleRecord(Validation):
    """Contents of a validation; :class:`Schedules` describes the fields and adds methods."""

    table: pd.DataFrame
    folds: pd.DataFrame
    returns: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]
    comparison: Comparison | None = None

    @property
    def chance(self) -> ClearCount:
        """How many intervals of differences leave zero out, and how many do so by chance alone."""
        low, high = (self.table[name].to_numpy(dtype=np.float64) for name in ("low", "high"))
        return count_clear(low, high, float(self.manifest["confidence"]))

    @property
    def baseline(self) -> str:
        """The schedule that the others are compared with."""
        return str(self.manifest["baseline"])

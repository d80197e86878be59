"""What a comparison measured: the accounts, their returns, and their differences in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.compare.pairs import correct_p_values, orient_pairs
from backtest.compare.shared_terms import check_baseline
from backtest.measures.influence import Sampled

if TYPE_CHECKING:
    from backtest.engine.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonRecord:
    """What a comparison measured: what its files hold and its texts show.

    :class:`backtest.compare.comparison.Comparison` describes the fields and adds what a user asks.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    returns: pd.DataFrame
    risk_free: pd.Series[float]
    manifest: Mapping[str, Any]
    results: Mapping[str, Result] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The policies, in the order given."""
        return tuple(map(str, self.table.index))

    @property
    def baseline(self) -> str:
        """The policy the others are compared with."""
        return str(self.manifest["baseline"])

    @property
    def confidence(self) -> float:
        """Of intervals and decisions."""
        return float(self.manifest["confidence"])

    @property
    def draws(self) -> int:
        """Resampled histories behind every interval and p-value."""
        return int(self.manifest["draws"])

    @property
    def seed(self) -> int:
        """Of the histories."""
        return int(self.manifest["seed"])

    @property
    def is_equal_risk(self) -> bool:
        """Whether all accounts were scaled to one volatility."""
        return bool(self.manifest["equal_risk"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know, one sentence each."""
        return tuple(self.manifest["warnings"])

    @property
    def ruined(self) -> tuple[str, ...]:
        """The policies whose account was ruined, the longest lived first."""
        fallen = self.table[self.table["ruined"] != 0.0]
        rows = fallen.sort_values("ruin_time", ascending=False, kind="stable")
        return tuple(map(str, rows.index))

    @property
    def order(self) -> tuple[str, ...]:
        """The policies by log growth, the highest first; ruined ones last, by their time."""
        growth = self.table["log_growth"].sort_values(ascending=False, kind="stable")
        return (*(str(name) for name in growth.index if name not in self.ruined), *self.ruined)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """The rows of ``pairs`` that hold the baseline, as differences of the others from it.

        Holm's correction is over these comparisons of a measure alone.
        """
        return self.against(self.baseline)

    def against(self, baseline: str) -> pd.DataFrame:
        """Return what :attr:`differences` holds, from another baseline.

        Raises
        ------
        ParameterError
            If no policy has this name.
        """
        name = check_baseline(baseline, self.names, where="Comparison.against")
        return correct_p_values(orient_pairs(self.pairs, name), self.confidence)

    def sample(self, names: list[str]) -> Sampled:
        """Return the returns of some accounts as tests take them, with what annualises them."""
        rest = np.array([self.manifest["policies"][name]["rest"] for name in names])
        rows = np.ascontiguousarray(self.returns[names].to_numpy(dtype=np.float64).T)
        rows = rows * rest[:, None]
        samples = self.manifest["samples"]
        free = np.asarray(self.risk_free, dtype=np.float64)
        return Sampled(rows, free, float(samples["per_year"]), float(samples["periods"]))

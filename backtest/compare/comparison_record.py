"""The data of a comparison: the accounts, their returns, and the differences of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.compare.pairs import correct_p_values, orient_pairs
from backtest.compare.shared_terms import check_baseline
from backtest.measures import Sampled, is_lost

if TYPE_CHECKING:
    from backtest.engine import Result


OF_EACH = ("log_growth", "sharpe", "total_return", "max_drawdown", "ruined")


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonRecord:
    """The data of a comparison, as its files hold them.

    :class:`backtest.compare.comparison.Comparison` describes the fields and adds public methods.
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
        """The policy that the others are compared with."""
        return str(self.manifest["baseline"])

    @property
    def confidence(self) -> float:
        """The confidence of intervals and decisions."""
        return float(self.manifest["confidence"])

    @property
    def draws(self) -> int:
        """The number of resampled histories for every interval and p-value."""
        return int(self.manifest["draws"])

    @property
    def seed(self) -> int:
        """The seed of the histories."""
        return int(self.manifest["seed"])

    @property
    def is_equal_risk(self) -> bool:
        """Whether all accounts were scaled to one volatility."""
        return bool(self.manifest["equal_risk"])

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets with an account each; empty if every policy has one account."""
        heads = (str(name).partition(" ") for name in self.table)
        return tuple(name for measure, _, name in heads if measure == "sharpe" and name)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the comparison, one sentence each."""
        return tuple(self.manifest["warnings"])

    @property
    def ruined(self) -> tuple[str, ...]:
        """The policies whose account was ruined, latest ruin first."""
        fallen = self.table[self.table["ruined"] != 0.0]
        rows = fallen.sort_values("ruin_time", ascending=False, kind="stable")
        return tuple(map(str, rows.index))

    @property
    def lost(self) -> tuple[str, ...]:
        """The policies whose account was lost: ruined, or 99 % of its unit value is gone."""
        rows = self.table[["ruined", "total_return"]].to_dict("index")
        return tuple(str(name) for name, row in rows.items() if is_lost(row))

    @property
    def order(self) -> tuple[str, ...]:
        """The policies by log growth, highest first; ruined ones last, latest ruin first."""
        growth = self.table["log_growth"].sort_values(ascending=False, kind="stable")
        return (*(str(name) for name in growth.index if name not in self.ruined), *self.ruined)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """The rows of ``pairs`` with the baseline, as differences of the others from it.

        Holm's correction covers only these comparisons of a measure.
        """
        return self.against(self.baseline)

    def against(self, baseline: str) -> pd.DataFrame:
        """Return :attr:`differences` from another baseline.

        Raises
        ------
        ParameterError
            If no policy has this name.
        """
        name = check_baseline(baseline, self.names)
        return correct_p_values(orient_pairs(self.pairs, name), self.confidence)

    def sample(self, names: list[str]) -> Sampled:
        """Return the sampled returns of some accounts for the tests, with annualization factors."""
        rest = np.array([self.manifest["policies"][name]["rest"] for name in names])
        rows = np.ascontiguousarray(self.returns[names].to_numpy(dtype=np.float64).T)
        rows = rows * rest[:, None]
        samples = self.manifest["samples"]
        free = np.asarray(self.risk_free, dtype=np.float64)
        return Sampled(rows, free, float(samples["per_year"]), float(samples["periods"]))

"""Comparison: several accounts on one market, and what can be said of their differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.json_values import to_plain
from backtest.compare.best_of_many import (
    ConfidenceSet,
    SuperiorityTest,
    build_confidence_set,
    judge_superiority,
)
from backtest.compare.pairs import LEAST_SAMPLES, decide, turn_towards
from backtest.compare.shared_terms import check_baseline
from backtest.measures.influence import Sampled

if TYPE_CHECKING:
    from backtest.engine.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Several accounts on the same market, under the same signal, venue and account.

    Attributes
    ----------
    table : DataFrame
        One row per policy: ``log_growth`` per year (-inf after ruin), all measures of a run, and
        ``liquidation_loss_annual``; at equal risk also ``scale`` and ``unscaled_volatility``.
    pairs : DataFrame
        One row per measure and pair: ``policy``, ``against``, ``measure`` (log_growth, sharpe,
        volatility, es_95), ``difference`` of the first less the second, ``low`` and ``high`` of its
        interval, ``p_value``, ``p_holm`` (corrected over the pairs of the measure),
        ``distinguishable``, and its ``basis``: a ``test``; ``alike``, hardly apart at any time;
        ``ruin``, which decides without a test; ``too few returns``; ``undefined``.
    returns : DataFrame
        Simple returns per sampling period, one column per policy.
    risk_free : Series
        The risk-free return of the same periods.
    manifest : mapping
        Data, venue, account, policies, settings, versions: what made this comparison.
    results : mapping of str to Result, or None
        The accounts themselves, scaled at equal risk; None in a comparison that was loaded.
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
        return decide(turn_towards(self.pairs, name), self.confidence)

    def spa(self, measure: str = "log_growth", baseline: str | None = None) -> SuperiorityTest:
        """Test whether any policy is better than the baseline, where so many were tried.

        Parameters
        ----------
        measure : str
            ``"log_growth"``, or ``"sharpe"`` (to first order, by what each return does to it).
        baseline : str, optional
            That of the comparison by default.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or there are fewer than 30 returns.

        Notes
        -----
        Hansen (2005); see :func:`backtest.measures.superiority.find_superiority`.
        """
        return judge_superiority(self, measure, baseline)

    def confidence_set(self, measure: str = "log_growth") -> ConfidenceSet:
        """Return the policies that may be the best: the others are worse than one of them.

        Parameters
        ----------
        measure : str
            ``"log_growth"``, or ``"sharpe"`` (to first order, by what each return does to it).

        Raises
        ------
        ParameterError
            If the measure is not one of these, or there are fewer than 30 returns.

        Notes
        -----
        Hansen, Lunde and Nason (2011); see
        :func:`backtest.measures.superiority.find_confidence_set`.
        """
        return build_confidence_set(self, measure)

    def sample(self, names: list[str]) -> Sampled:
        """Return the returns of some accounts as tests take them, with what annualises them."""
        rest = np.array([self.manifest["policies"][name]["rest"] for name in names])
        rows = np.ascontiguousarray(self.returns[names].to_numpy(dtype=np.float64).T)
        rows = rows * rest[:, None]
        samples = self.manifest["samples"]
        free = np.asarray(self.risk_free, dtype=np.float64)
        return Sampled(rows, free, float(samples["per_year"]), float(samples["periods"]))

    # ------------------------------------------------------------------------------- telling of it

    def summary(self) -> str:
        """Return the tables and what follows from them, for a terminal of 100 columns."""
        from backtest.compare.comparison_text import write_summary  # noqa: PLC0415 - only when printed

        return write_summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        data = self.manifest["data"]
        risk = " at equal risk" if self.is_equal_risk else ""
        return f"<Comparison of {', '.join(self.names)}{risk} on {data['source']}>"

    def _repr_html_(self) -> str:
        from backtest.report.notebook import write_comparison_cell  # noqa: PLC0415 - in notebooks

        return write_comparison_cell(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as data for JSON, with the tests of many where they can be done."""
        has_tests = len(self.returns) >= LEAST_SAMPLES
        data: dict[str, Any] = to_plain(
            {
                "comparison": self.manifest,
                "table": self.table.reset_index().to_dict("records"),
                "differences": self.differences.to_dict("records"),
                "pairs": self.pairs.to_dict("records"),
                "order": list(self.order),
                "spa": self.spa()._asdict() if has_tests else None,
                "confidence_set": self.confidence_set()._asdict() if has_tests else None,
            }
        )
        return data

    def report(self, path: str | Path, format: str | None = None) -> Path:  # noqa: A002
        """Write a report to read; see :meth:`backtest.engine.result.Result.report`."""
        from backtest.report.write import write_report  # noqa: PLC0415 - only when asked for

        return write_report(self, path, format)

    def save(self, folder: str | Path = "results") -> Path:
        """Write the comparison into a folder of its own inside ``folder``; return that folder."""
        from backtest.compare.comparison_files import save_comparison  # noqa: PLC0415 - not always needed

        return save_comparison(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Return a saved comparison; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        from backtest.compare.comparison_files import load_comparison  # noqa: PLC0415 - not always needed

        return load_comparison(Path(folder))

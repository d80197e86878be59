"""Comparison: several accounts on one market, and the tests of their differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtest.base.checked_calls import checked
from backtest.base.json_values import to_plain
from backtest.base.reportable import Reportable
from backtest.compare.best_of_many import (
    ConfidenceSet,
    SuperiorityTest,
    build_confidence_set,
    run_superiority_test,
)
from backtest.compare.comparison_files import load_comparison, save_comparison
from backtest.compare.comparison_record import ComparisonRecord
from backtest.compare.comparison_text import write_summary
from backtest.compare.pairs import LEAST_SAMPLES


class Comparison(ComparisonRecord, Reportable):
    """Several accounts on the same market and signal: of several policies, or on several terms.

    Attributes
    ----------
    table : DataFrame
        One row per policy: ``log_growth`` per year (-inf after ruin), all measures of a run, and
        ``liquidation_loss_annual``; at equal risk also ``scale`` and ``unscaled_volatility``.
    pairs : DataFrame
        One row per measure and pair: ``policy``, ``against``, ``measure`` (log_growth, sharpe,
        volatility, es_95), ``difference`` of the first less the second, ``low`` and ``high`` of its
        interval, ``p_value``, ``p_holm`` (corrected over the pairs of the measure),
        ``distinguishable``, and its ``basis``: ``test``; ``alike`` (almost equal returns);
        ``ruin`` (decided without a test); ``too few returns``; ``undefined``.
    returns : DataFrame
        Simple returns per sampling period, one column per policy.
    risk_free : Series
        The risk-free return of the same periods.
    manifest : mapping
        Data, venue, account, policies, settings and versions. Where terms differ, ``policies`` has
        the ``terms``, venue and account of each, and those on top are the baseline's.
    results : mapping of str to Result, or None
        The results of the policies, scaled at equal risk; None in a loaded comparison.
    """

    def spa(self, measure: str = "log_growth", baseline: str | None = None) -> SuperiorityTest:
        """Test whether any policy is better than the baseline, given how many were tried.

        Parameters
        ----------
        measure : str
            ``"log_growth"``, or ``"sharpe"`` (to first order, by the influence of each return).
        baseline : str, optional
            The baseline of the comparison by default.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or there are fewer than 30 returns.

        Notes
        -----
        Hansen (2005); see :func:`backtest.measures.superiority.find_superiority`.
        """
        return run_superiority_test(self, measure, baseline)

    def confidence_set(self, measure: str = "log_growth") -> ConfidenceSet:
        """Return the policies that may be the best; all others are worse than one of them.

        Parameters
        ----------
        measure : str
            ``"log_growth"``, or ``"sharpe"`` (to first order, by the influence of each return).

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

    def summary(self) -> str:
        """Return the tables and conclusions as text of 100 columns."""
        return write_summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        data = self.manifest["data"]
        risk = " at equal risk" if self.is_equal_risk else ""
        return f"<Comparison of {', '.join(self.names)}{risk} on {data['source']}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as data for JSON, with the joint tests if there are 30 returns."""
        has_tests = len(self.returns) >= LEAST_SAMPLES
        data: dict[str, Any] = to_plain(
            {
                "comparison": self.manifest,
                "table": self.table.reset_index().to_dict("records"),
                "differences": self.differences.to_dict("records"),
                "pairs": self.pairs.to_dict("records"),
                "break_even": self.break_even.to_dict("records"),
                "order": list(self.order),
                "spa": self.spa()._asdict() if has_tests else None,
                "confidence_set": self.confidence_set()._asdict() if has_tests else None,
            }
        )
        return data

    def save(self, folder: str | Path = "results") -> Path:
        """Write the comparison into a folder of its own inside ``folder``; return that folder."""
        return save_comparison(self, Path(folder))

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> Comparison:
        """Load a saved comparison; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        return load_comparison(Path(folder), cls)

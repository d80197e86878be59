"""CrossValidation: the result of :func:`backtest.cross_validate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from backtest.base.json_values import to_plain
from backtest.base.result_parts import Headline
from backtest.validation.cross_text import summarize_luck, write_summary, write_verdict
from backtest.validation.plain_rows import list_rows
from backtest.validation.validation_files import select_metrics
from backtest.validation.validation_records import CrossRecord
from backtest.validation.walk_figures import read_figures


class CrossValidation(CrossRecord):
    """Result of a combinatorial cross-validation of choosing the best of many sets.

    Attributes
    ----------
    splits : DataFrame
        One row per split: ``groups`` (those of the test), ``in_sample`` and ``out_of_sample`` (the
        winner's objective), ``rank`` of the winner among all sets out of sample (1 best, 0 worst),
        and its parameters.
    paths : DataFrame
        One row per path, with measures by the names of ``result.metrics``.
    matrix : DataFrame
        The objective of each set (row) in each group (column).
    sets : DataFrame
        The parameters of the sets, in the rows of the matrix.
    curves : DataFrame
        Unit value of each path (column) at the end of each sampling period.
    trials : DataFrame
        Both objectives of all sets in some splits.
    figures : mapping
        Headline figures as data: ``scored_by`` (``"groups"`` or ``"stretches"``), the embargo, the
        memory of the columns.
    manifest : mapping
        Everything that decides the numbers.
    """

    kind = "cross-validation"
    table_names = ("splits", "paths", "matrix", "sets", "curves", "trials")

    @property
    def verdict(self) -> str:
        """Whether the best set in one time is good in another, in one sentence."""
        return write_verdict(self)

    @property
    def note(self) -> str:
        """The numbers of splits and paths."""
        return f"{len(self.splits):,} splits, {len(self.paths)} paths"

    @property
    def heading(self) -> str:
        """The title of the page."""
        sets = f"{self.figures['sets']:,} sets"
        return f"{self.policy_name}: {sets} over {len(self.splits)} splits of time"

    @property
    def details(self) -> str:
        """What winners were worth, and what luck alone would show, in sentences."""
        return summarize_luck(self)

    def list_measures(self) -> Mapping[str, float]:
        """Return the medians over paths."""
        return select_metrics(self.paths.median().to_dict())

    def list_numbers(self) -> list[Headline]:
        """Return the probability of overfitting, and the objective in and out of sample."""
        pbo, figures = self.pbo, self.figures
        inside, outside = (read_figures(figures, f"median_{k}_sample") for k in ("in", "out_of"))
        return [
            Headline("pbo", "Overfitting", float(pbo), "decimals", "share of winners no better "
                     f"than the median; {pbo.low:.2f} to {pbo.high:.2f}", "less"),
            Headline("deflated_sharpe", "Deflated Sharpe", self.deflated_sharpe, "probability",
                     "probability that the best set is more than luck", "more"),
            Headline("median_in_sample", "In sample", inside, "decimals",
                     "median objective of the winners", "more"),
            Headline("median_out_of_sample", "Out of sample", outside, "decimals",
                     "of the same winners", "more"),
        ]  # fmt: skip

    def summary(self) -> str:
        """Return the verdict and the figures as text for a terminal."""
        return write_summary(self)

    def __repr__(self) -> str:
        name = self.manifest["policy"]["name"]
        return f"<CrossValidation of {name}: {len(self.splits)} splits, PBO {self.pbo:.2f}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the cross-validation as data for JSON."""
        data: dict[str, Any] = to_plain(
            {
                "cross_validation": self.manifest,
                "verdict": self.verdict,
                "figures": self.figures,
                "splits": list_rows(self.splits),
                "paths": list_rows(self.paths),
            }
        )
        return data

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        """Return the tables as files hold them."""
        splits = self.splits.reset_index()
        return {
            "splits": splits.assign(groups=splits["groups"].map(list)),
            "paths": self.paths.reset_index(),
            "matrix": self.matrix.rename(columns=str),
            "sets": self.sets,
            "curves": self.curves.rename(columns=str).reset_index(),
            "trials": self.trials,
        }

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        """Return tables as they are in memory."""
        splits = tables["splits"].set_index("split")
        return {
            "splits": splits.assign(groups=splits["groups"].map(read_groups)),
            "paths": tables["paths"].set_index("path"),
            "matrix": tables["matrix"].rename(columns=int).rename_axis("set"),
            "sets": tables["sets"],
            "curves": tables["curves"].set_index("time").rename(columns=int),
            "trials": tables["trials"],
        }


def read_groups(stored: Iterable[int]) -> tuple[int, ...]:
    """Return the test groups of a split as they are in memory."""
    return tuple(map(int, stored))

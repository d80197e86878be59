"""CrossValidation: the result of :func:`backtest.cross_validate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.base.json_values import to_plain
from backtest.base.reportable import Reportable
from backtest.validation.cross_text import write_summary, write_verdict
from backtest.validation.estimates import Estimate
from backtest.validation.validation_files import load_tables, save_validation
from backtest.validation.walk_figures import read_figures


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation(Reportable):
    """A combinatorial cross-validation of choosing the best of many sets.

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

    @property
    def deflated_sharpe(self) -> float:
        """Deflated Sharpe ratio of the best set over all groups."""
        return read_figures(self.figures, "deflated_sharpe")

    @property
    def warnings(self) -> list[str]:
        """Warnings, one sentence each."""
        return list(self.figures["warnings"])

    @property
    def verdict(self) -> str:
        """Whether the best set in one time is good in another, in one sentence."""
        return write_verdict(self)

    def summary(self) -> str:
        """Return the verdict and the figures as text for a terminal."""
        return write_summary(self)

    def __str__(self) -> str:
        return self.summary()

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
                "splits": self.splits.reset_index().to_dict("records"),
                "paths": self.paths.reset_index().to_dict("records"),
            }
        )
        return data

    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder."""
        splits = self.splits.reset_index()
        tables = {
            "splits": splits.assign(groups=splits["groups"].map(list)),
            "paths": self.paths.reset_index(),
            "matrix": self.matrix.rename(columns=str),
            "sets": self.sets,
            "curves": self.curves.rename(columns=str).reset_index(),
            "trials": self.trials,
        }
        return save_validation(self, Path(folder), tables, {})

    @classmethod
    def load(cls, folder: str | Path) -> CrossValidation:
        """Load a saved cross-validation; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        found = load_tables(Path(folder), "cross-validation")
        tables = found.tables
        splits = tables["splits"].set_index("split")
        made = cls(
            splits=splits.assign(groups=splits["groups"].map(read_groups)),
            paths=tables["paths"].set_index("path"),
            matrix=tables["matrix"].rename(columns=int).rename_axis("set"),
            sets=tables["sets"],
            curves=tables["curves"].set_index("time").rename(columns=int),
            trials=tables["trials"],
            figures=found.figures,
            manifest=found.manifest,
        )
        found.attach(made)
        return made


def read_groups(stored: Iterable[int]) -> tuple[int, ...]:
    """Return the test groups of a split as they are in memory."""
    return tuple(map(int, stored))

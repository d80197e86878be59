"""CrossValidation: the result of :func:`backtest.cross_validate`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backtest.base.checked_calls import checked
from backtest.base.json_values import to_plain
from backtest.base.reportable import Reportable
from backtest.validation.cross_text import write_summary, write_verdict
from backtest.validation.plain_rows import list_rows
from backtest.validation.validation_files import load_tables, save_validation
from backtest.validation.validation_records import CrossRecord


class CrossValidation(CrossRecord, Reportable):
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
                "splits": list_rows(self.splits),
                "paths": list_rows(self.paths),
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
    @checked
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

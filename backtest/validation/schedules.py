"""Schedules: the result of :func:`backtest.schedules`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.base.json_values import to_plain
from backtest.base.reportable import Reportable
from backtest.validation.schedule_text import write_summary, write_verdict
from backtest.validation.validation_files import load_tables, save_validation
from backtest.validation.walk_figures import read_figures

if TYPE_CHECKING:
    from backtest.compare import Comparison


@dataclass(frozen=True, eq=False, repr=False)
class Schedules(Reportable):
    """Schedules of re-tuning, compared by what their accounts earned out of sample.

    Attributes
    ----------
    table : DataFrame
        One row per schedule: ``train``, ``test``, ``folds``, ``pbo``, measures of the account
        (``log_growth`` per year), and its growth less that of the baseline: ``difference``,
        ``low``, ``high``, ``p_value``, ``p_holm``, ``distinguishable``, ``basis``.
    folds : DataFrame
        The folds of all schedules, as those of a walk.
    returns : DataFrame
        Sampled returns of each account.
    figures : mapping
        The best schedule by Sharpe ratio and its deflated Sharpe ratio; every schedule is a trial.
    manifest : mapping
        Everything that decides the numbers.
    comparison : Comparison or None
        All measures compared, as :func:`backtest.compare` returns them; None if loaded.
    """

    table: pd.DataFrame
    folds: pd.DataFrame
    returns: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]
    comparison: Comparison | None = None

    @property
    def baseline(self) -> str:
        """The schedule that the others are compared with."""
        return str(self.manifest["baseline"])

    @property
    def deflated_sharpe(self) -> float:
        """Deflated Sharpe ratio of the best schedule, given how many were tried."""
        return read_figures(self.figures, "deflated_sharpe")

    @property
    def warnings(self) -> list[str]:
        """Warnings, one sentence each."""
        return list(self.figures["warnings"])

    @property
    def verdict(self) -> str:
        """Whether any schedule grows faster than the baseline, in one sentence."""
        return write_verdict(self)

    def summary(self) -> str:
        """Return the verdict and the table as text for a terminal."""
        return write_summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        name = self.manifest["policy"]["name"]
        return f"<Schedules of {name}: {len(self.table)} against {self.baseline}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison of schedules as data for JSON."""
        data: dict[str, Any] = to_plain(
            {
                "schedules": self.manifest,
                "verdict": self.verdict,
                "figures": self.figures,
                "table": self.table.reset_index().to_dict("records"),
            }
        )
        return data

    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder."""
        tables = {
            "table": self.table.reset_index(),
            "folds": self.folds,
            "returns": self.returns.rename_axis("time").reset_index(),
        }
        return save_validation(self, Path(folder), tables, {})

    @classmethod
    def load(cls, folder: str | Path) -> Schedules:
        """Load a saved comparison of schedules; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        found = load_tables(Path(folder), "schedules")
        made = cls(
            table=found.tables["table"].set_index("schedule"),
            folds=found.tables["folds"],
            returns=found.tables["returns"].set_index("time"),
            figures=found.figures,
            manifest=found.manifest,
        )
        found.attach(made)
        return made

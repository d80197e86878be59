"""Schedules: the result of :func:`backtest.schedules`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtest.base.checked_calls import checked
from backtest.base.json_values import to_plain
from backtest.base.reportable import Reportable
from backtest.validation.plain_rows import list_rows
from backtest.validation.schedule_text import write_summary, write_verdict
from backtest.validation.validation_files import load_tables, save_validation
from backtest.validation.validation_records import ScheduleRecord


class Schedules(ScheduleRecord, Reportable):
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
                "chance": self.chance._asdict(),
                "table": list_rows(self.table),
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
    @checked
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

"""WalkForward: the result of :func:`backtest.walk_forward`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtest.base.checked_calls import checked
from backtest.base.json_values import to_plain
from backtest.base.reportable import Reportable
from backtest.validation.plain_rows import list_rows
from backtest.validation.validation_files import load_tables, save_validation
from backtest.validation.validation_records import WalkRecord
from backtest.validation.walk_text import write_summary, write_verdict


class WalkForward(WalkRecord, Reportable):
    """Result of a walk-forward: tuned on each train span, tested on the span after it.

    Attributes
    ----------
    folds : DataFrame
        One row per fold: ``train_start, train_end, test_start, test_end`` (UTC, half-open), the
        winner's parameters, ``in_sample`` and ``out_of_sample`` (the objective), ``rank`` of the
        winner among all sets out of sample (1 best, 0 worst), ``shrinkage`` (out / in; NaN where
        in is not positive), ``difference`` (out - in), ``trials``, ``deflated_sharpe``.
    result : Result or None
        The account that lived through all test spans while its parameters changed; None with
        ``carry=False``.
    fixed : Result
        The account with the winner of the first train span, left alone.
    stability : DataFrame
        See :func:`backtest.validation.walk_stability.measure_stability`.
    trials : DataFrame
        One row per fold and set tried: ``fold, in_sample, out_of_sample, is_winner``, and its
        parameters.
    figures : mapping
        Headline figures as data; the properties below name the most important.
    manifest : mapping
        Everything that decides the numbers.
    parts : tuple of Result
        The accounts of the folds with ``carry=False``.
    """

    @property
    def verdict(self) -> str:
        """Whether the procedure found anything that lasted, in one sentence."""
        return write_verdict(self)

    def summary(self) -> str:
        """Return the verdict and the figures as text for a terminal."""
        return write_summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        name = self.manifest["policy"]["name"]
        return f"<WalkForward of {name}: {len(self.folds)} folds, efficiency {self.efficiency:.2f}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the walk as data for JSON."""
        data: dict[str, Any] = to_plain(
            {
                "walk": self.manifest,
                "verdict": self.verdict,
                "figures": self.figures,
                "chance": {name: each._asdict() for name, each in self.chance.items()},
                "folds": list_rows(self.folds),
                "stability": list_rows(self.stability),
                "metrics": None if self.result is None else dict(self.result.metrics),
                "metrics_fixed": dict(self.fixed.metrics),
            }
        )
        return data

    def save(self, folder: str | Path = "results") -> Path:
        """Write the walk into a folder of its own inside ``folder``; return that folder."""
        tables = {
            "folds": self.folds.reset_index(),
            "stability": self.stability.reset_index(),
            "trials": self.trials,
        }
        accounts = {"fixed": self.fixed}
        accounts |= {} if self.result is None else {"result": self.result}
        return save_validation(self, Path(folder), tables, accounts)

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> WalkForward:
        """Load a saved walk; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        found = load_tables(Path(folder), "walk-forward")
        walk = cls(
            folds=found.tables["folds"].set_index("fold"),
            result=found.accounts.get("result"),
            fixed=found.accounts["fixed"],
            stability=found.tables["stability"].set_index("parameter"),
            trials=found.tables["trials"],
            figures=found.figures,
            manifest=found.manifest,
        )
        found.attach(walk)
        return walk

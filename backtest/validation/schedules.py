"""Schedules: the result of :func:`backtest.schedules`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.base import Headline, Part, format_number, list_records, to_plain
from backtest.compare import show_accounts, show_gaps
from backtest.validation.schedule_text import describe_best, write_summary, write_verdict
from backtest.validation.validation_files import select_metrics
from backtest.validation.validation_records import ScheduleRecord


class Schedules(ScheduleRecord):
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

    kind = "schedules"
    plural = "schedules"
    table_names = ("table", "folds", "returns")

    @property
    def verdict(self) -> str:
        """Whether any schedule grows faster than the baseline, in one sentence."""
        return write_verdict(self)

    @property
    def note(self) -> str:
        """The number of schedules."""
        return f"{len(self.table):,} schedules"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return f"{self.policy_name}: {len(self.table)} schedules of re-tuning"

    @property
    def details(self) -> str:
        """The deflated Sharpe ratio of the best schedule, in a sentence."""
        return describe_best(self)

    def list_parts(self) -> list[Part]:
        """Return the differences from the baseline, and the accounts."""
        title = f"Growth less that of {self.baseline}"
        order = self.table.sort_values("log_growth", ascending=False, kind="stable")
        before = ("folds", "log_growth", "sharpe", "max_drawdown", "fees", "pbo")
        others = [name for name in self.returns if name != self.baseline]
        units = (1.0 + self.returns[[self.baseline, *others]]).cumprod()
        return [
            Part("differences", "What differs by more than noise",
                 f"Log growth per year of each schedule less that of {self.baseline}.",
                 show_gaps("gaps", title, order, "growth", before)),
            Part("accounts", "The accounts", "One unit of money under each schedule, over the "
                 "same bars.", (show_accounts(units),)),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how the intervals were computed."""
        facts = self.manifest
        return (
            f"Intervals of {facts['confidence']:.0%}: stationary bootstrap of {facts['draws']:,} "
            f"histories, seed {facts['seed']}, all accounts drawn together. Decisions allow for "
            "the number of schedules (Holm).",
        )

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the schedule with the fastest growth."""
        return select_metrics(
            self.table.sort_values("log_growth", kind="stable").iloc[-1].to_dict()
        )

    def list_numbers(self) -> list[Headline]:
        """Return the growth of the fastest schedules and of the baseline."""
        order = self.table["log_growth"].sort_values(ascending=False, kind="stable")
        names = [*order.index[:3], self.baseline]
        return [
            Headline(f"log_growth {name}", f"Growth, {name}", float(order[name]), "percent",
                     "log growth per year; Sharpe "
                     f"{format_number(float(self.table['sharpe'][name]))}", "more")
            for name in dict.fromkeys(map(str, names))
        ]  # fmt: skip

    def summary(self) -> str:
        """Return the verdict and the table as text for a terminal."""
        return write_summary(self)

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
                "table": list_records(self.table),
            }
        )
        return data

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        """Return the tables as files hold them."""
        return {
            "table": self.table.reset_index(),
            "folds": self.folds,
            "returns": self.returns.rename_axis("time").reset_index(),
        }

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:
        """Return which schedule an unfinished comparison is in."""
        done = len(list(folder.glob("schedule-*")))
        return f"in schedule {done:,} of {len(manifest['schedules']):,}" if done else "no set yet"

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        """Return tables as they are in memory."""
        return {
            "table": tables["table"].set_index("schedule"),
            "folds": tables["folds"],
            "returns": tables["returns"].set_index("time"),
        }

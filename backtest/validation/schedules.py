"""Schedules: the result of :func:`backtest.schedules`, and its text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.base import (
    Headline,
    Part,
    format_number,
    format_paragraph,
    format_percent,
    format_probability,
    format_span,
    list_records,
    to_plain,
)
from backtest.compare import show_accounts, show_gaps
from backtest.validation.validation_files import ScheduleRecord, select_metrics
from backtest.validation.walk_text import describe_pool, name_procedure


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
        return {
            "table": self.table.reset_index(),
            "folds": self.folds,
            "returns": self.returns.rename_axis("time").reset_index(),
        }

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:
        done = len(list(folder.glob("schedule-*")))
        return f"in schedule {done:,} of {len(manifest['schedules']):,}" if done else "no set yet"

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        return {
            "table": tables["table"].set_index("schedule"),
            "folds": tables["folds"],
            "returns": tables["returns"].set_index("time"),
        }


NEVER = "never"


def write_verdict(found: ScheduleRecord) -> str:
    others = found.table.drop(index=found.baseline)
    better = others[others["distinguishable"] & (others["difference"] > 0.0)]
    worse = others[others["distinguishable"] & (others["difference"] < 0.0)]
    against = "never re-tuning" if found.baseline == NEVER else f"re-tuning {found.baseline}"
    n = len(others)
    if not len(better) and not len(worse):
        return (
            f"no evidence for any of {n} schedules: none differs from {against} beyond noise; "
            f"{found.chance}"
        )
    parts = []
    if len(better):
        parts.append(f"{', '.join(map(str, better.index))} grew faster than {against}")
    if len(worse):
        parts.append(f"{', '.join(map(str, worse.index))} grew slower than {against}")
    return (
        f"{'; '.join(parts)}, beyond noise and corrected for {n} schedules; before that "
        f"correction, {found.chance}"
    )


def write_summary(found: ScheduleRecord) -> str:
    parts = [
        [*format_paragraph("Verdict", write_verdict(found)), *describe_data(found)],
        list(describe_table(found)),
        list(describe_luck(found)),
        [line for text in found.warnings for line in format_paragraph("Warning", text)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_data(found: ScheduleRecord) -> Iterator[str]:
    facts = found.manifest
    yield from format_paragraph("Schedules", f"{name_procedure(facts)}: test span on train span")
    data = facts["data"]
    notes = ["SYNTHETIC: these prices are made up"] if data["synthetic"] else []
    name = data["instrument"] or "unnamed instrument"
    first = f"{found.folds['test_start'].min():%Y-%m-%d}"
    span = format_span({**data, "start": first}).removesuffix(" UTC")
    yield from format_paragraph("Data", f"{name}, tested {span}", *notes)
    yield from describe_pool(facts)


def describe_table(found: ScheduleRecord) -> Iterator[str]:
    yield (
        f"  {'schedule':16}{'folds':>6}{'growth':>10}{'less ' + found.baseline[:9]:>15}"
        f"{'95 % interval':>22}{'p, Holm':>9}"
    )
    order = found.table.sort_values("log_growth", ascending=False, kind="stable")
    for row in order.reset_index().to_dict("records"):
        gap, low, high, p = (float(row[name]) for name in ("difference", "low", "high", "p_holm"))
        span = f"{format_percent(low)} to {format_percent(high)}" if math.isfinite(low) else "-"
        yield (
            f"  {row['schedule']:16}{row['folds']:>6}{format_percent(float(row['log_growth'])):>10}"
            f"{'-' if math.isnan(gap) else format_percent(gap):>15}{span:>22}"
            f"{'-' if math.isnan(p) else format_number(p):>9}"
        )


def describe_luck(found: ScheduleRecord) -> Iterator[str]:
    if math.isnan(found.deflated_sharpe):
        return
    yield from format_paragraph(
        "Luck",
        f"the highest Sharpe ratio is that of {found.figures['best']}; as the best of "
        f"{len(found.table)} schedules its deflated Sharpe ratio is "
        f"{format_probability(found.deflated_sharpe)}",
    )


def describe_best(found: ScheduleRecord) -> str:
    if math.isnan(found.deflated_sharpe):
        return "Every schedule ended in ruin, or there are too few returns."
    return (
        f"The highest Sharpe ratio is that of {found.figures['best']}; as the best of "
        f"{len(found.table)} schedules its deflated Sharpe ratio is "
        f"{format_probability(found.deflated_sharpe)}."
    )

"""Text summary of a comparison of schedules, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backtest.base import (
    format_number,
    format_paragraph,
    format_percent,
    format_probability,
    format_span,
)
from backtest.validation.walk_text import describe_pool, name_procedure

if TYPE_CHECKING:
    from backtest.validation.validation_records import ScheduleRecord

NEVER = "never"


def write_verdict(found: ScheduleRecord) -> str:
    """Return whether any schedule grows faster than the baseline, without a full stop."""
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
    """Return the verdict, the table and the luck of the best schedule."""
    parts = [
        [*format_paragraph("Verdict", write_verdict(found)), *describe_data(found)],
        list(describe_table(found)),
        list(describe_luck(found)),
        [line for text in found.warnings for line in format_paragraph("Warning", text)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_data(found: ScheduleRecord) -> Iterator[str]:
    """Yield the lines on policy and data."""
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
    """Yield a line per schedule, the fastest growth first."""
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
    """Yield the deflated Sharpe ratio of the best schedule."""
    if math.isnan(found.deflated_sharpe):
        return
    yield from format_paragraph(
        "Luck",
        f"the highest Sharpe ratio is that of {found.figures['best']}; as the best of "
        f"{len(found.table)} schedules its deflated Sharpe ratio is "
        f"{format_probability(found.deflated_sharpe)}",
    )


def describe_best(found: ScheduleRecord) -> str:
    """Return the deflated Sharpe ratio of the best schedule in a sentence."""
    if math.isnan(found.deflated_sharpe):
        return "Every schedule ended in ruin, or there are too few returns."
    return (
        f"The highest Sharpe ratio is that of {found.figures['best']}; as the best of "
        f"{len(found.table)} schedules its deflated Sharpe ratio is "
        f"{format_probability(found.deflated_sharpe)}."
    )

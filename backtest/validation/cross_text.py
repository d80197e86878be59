"""Text summary of a cross-validation, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backtest.base import (
    capitalize,
    format_number,
    format_paragraph,
    format_percent,
    format_probability,
    format_span,
)
from backtest.validation.interval_estimates import EVIDENCE
from backtest.validation.walk_figures import read_figures
from backtest.validation.walk_text import EVEN, describe_others, describe_pool, name_procedure

if TYPE_CHECKING:
    from backtest.validation.validation_records import CrossRecord

PATHS = ("sharpe", "cagr", "max_drawdown")
SPREAD = "the spread of the paths is not an interval"
"""What the lowest and the highest path must not be read as; see docs/validation.md."""


def write_verdict(found: CrossRecord) -> str:
    """Return whether the best set in one time is good in another, without a full stop.

    The best set is trusted if its deflated Sharpe ratio is 0.95 or more, and the choice if the
    interval of the probability of overfitting is below a half.
    """
    pbo, deflated = found.pbo, found.deflated_sharpe
    if math.isnan(pbo):
        return "no verdict: there is nothing to choose among"
    lost = (
        f"in {float(pbo):.0%} of {len(found.splits)} splits the winner was no better than the "
        "median set, where chance alone gives half"
    )
    number = f"the best set has a deflated Sharpe ratio of {format_probability(deflated)}"
    if math.isnan(deflated):
        return f"no verdict: no set has a Sharpe ratio over all groups; {lost}"
    if deflated < EVIDENCE:
        return f"no evidence that the best set is more than luck: {number}, and {lost}"
    if pbo > EVEN:
        return f"the policy gains, but choosing its best set adds nothing: {number}, yet {lost}"
    if pbo.high >= EVEN:
        return (
            f"the policy gains, and it is not clear that choosing its best set adds anything: "
            f"{number}, and {lost}"
        )
    return f"evidence that the choice lasts: {number}, and only {lost}"


def write_summary(found: CrossRecord) -> str:
    """Return the verdict, how splits were scored, the paths and the warnings."""
    parts = [
        [*format_paragraph("Verdict", write_verdict(found)), *describe_splits(found)],
        list(describe_paths(found)),
        list(describe_luck(found)),
        [line for text in found.warnings for line in format_paragraph("Warning", text)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_splits(found: CrossRecord) -> Iterator[str]:
    """Yield the lines on splits and their scoring."""
    facts, figures = found.manifest, found.figures
    n, k = facts["groups"], facts["test_groups"]
    yield from format_paragraph(
        "Splits",
        f"{name_procedure(facts)}: {figures['sets']:,} sets, {len(found.splits)} splits of {n} "
        f"groups, {k} for the test; {len(found.paths)} paths",
    )
    data = facts["data"]
    notes = ["SYNTHETIC: these prices are made up"] if data["synthetic"] else []
    name = data["instrument"] or "unnamed instrument"
    yield from format_paragraph("Data", f"{name}, {format_span(data)}", *notes)
    yield from describe_pool(facts)
    how = "the accounts of groups" if figures["scored_by"] == "groups" else "runs of each segment"
    known = figures["memory_bars"]
    memory = "" if known is None else f", for a memory of the columns of {known:,} bars"
    yield from format_paragraph(
        "Scores",
        f"{facts['objective']}, from {how}; embargo {figures['embargo_bars']:,} bars{memory}",
    )


def describe_paths(found: CrossRecord) -> Iterator[str]:
    """Yield the spread of the paths."""
    yield f"  {'paths':26}{'lowest':>14}{'median':>14}{'highest':>14}"
    for name in PATHS:
        write = format_number if name == "sharpe" else format_percent
        column = found.paths[name]
        cells = (column.min(), column.median(), column.max())
        yield f"  {name:26}" + "".join(f"{write(float(each)):>14}" for each in cells)
    yield f"  {SPREAD}: all are made of one history"
    ruined = int((found.paths["ruined"] != 0.0).sum())
    if ruined:
        yield f"  {ruined} of {len(found.paths)} paths end in ruin"


def describe_luck(found: CrossRecord) -> Iterator[str]:
    """Yield the probability of overfitting, and what luck alone would show."""
    figures, pbo = found.figures, found.pbo
    yield from format_paragraph(
        "Winners",
        f"median objective {format_number(read_figures(figures, 'median_in_sample'))} in sample, "
        f"{format_number(read_figures(figures, 'median_out_of_sample'))} out of sample; mean rank "
        f"{read_figures(figures, 'mean_rank'):.2f} (1 best, 0.5 the median)",
        f"probability of overfitting {pbo:.2f}, 95 % interval {pbo.low:.2f} to {pbo.high:.2f}",
    )
    yield from format_paragraph(
        "Luck",
        f"the best Sharpe ratio over all groups is "
        f"{format_number(read_figures(figures, 'best_sharpe'))}; the luckiest of as many sets "
        f"without skill would show about {format_number(read_figures(figures, 'lucky_sharpe'))}"
        f"{describe_others(figures)}",
    )


def summarize_luck(found: CrossRecord) -> str:
    """Return what winners were worth, and what luck alone would show, in sentences."""
    lines = " ".join(" ".join(line.split()) for line in describe_luck(found))
    text = lines.replace("Winners ", "", 1).replace(" probability of", "; probability of", 1)
    first, _, second = text.partition(" Luck ")
    return f"{capitalize(first)}. {capitalize(second)}."

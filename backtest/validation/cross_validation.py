"""CrossValidation: the result of :func:`backtest.cross_validate`, and its text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    Head,
    Headline,
    Part,
    ShownChart,
    ShownTable,
    capitalize,
    format_number,
    format_paragraph,
    format_percent,
    format_probability,
    format_span,
    list_records,
    to_plain,
)
from backtest.validation.interval_estimates import EVIDENCE
from backtest.validation.validation_files import CrossRecord, select_metrics, show_choice
from backtest.validation.walk_figures import read_figures
from backtest.validation.walk_text import EVEN, describe_others, describe_pool, name_procedure

MEASURES = ("sharpe", "cagr", "total_return", "volatility", "max_drawdown", "fees", "ruined")
BINS = 10
BARS = {"no better than the median set": "loss", "better": "accent"}


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
        Headline figures as data: ``scored_by`` (``"groups"`` or ``"stretches"``), the embargo.
    manifest : mapping
        Everything that decides the numbers.
    """

    kind = "cross-validation"
    call = "bt.cross_validate"
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

    def list_parts(self) -> list[Part]:
        """Return the paths out of sample, and what choosing was worth."""
        measures = tuple(name for name in MEASURES if name in self.paths)
        caption = (
            f"{self.curves.shape[1]} paths, gray; the blue line is their median at each time. "
            f"{capitalize(SPREAD)}: all are made of one history, and the true figure is often "
            "outside."
        )
        note = (
            "The drawdown is the deepest inside a group, or across groups by sampled returns. "
            f"{capitalize(SPREAD)}."
        )
        splits = self.splits.assign(
            groups=[" and ".join(map(str, each)) for each in self.splits["groups"]]
        )
        return [
            Part("paths", "What the procedure would have earned", "Paths through all groups of "
                 "time, each group under the winner of a split that did not train on it.", (
                     ShownChart("fan", "Paths out of sample", caption,
                                self.curves.rename_axis(columns="path"), "fan", has_legend=True,
                                height=420),
                     ShownTable(self.paths, "Paths", note, columns=measures))),
            Part("choice", "What choosing was worth", "Winners of the train groups, in the test "
                 "groups.", (
                     show_choice(self.trials, self.objective),
                     ShownChart("ranks", "Ranks of the winners", "Orange: no better than the "
                                "median set. Skill piles up at 1; noise is even.",
                                count_ranks(self.ranks), "bars", BARS,
                                "rank of the winner out of sample", "splits", height=280),
                     ShownTable(splits, "Splits", heads={"groups": Head("tested on groups")},
                                most=len(splits), is_searched=True))),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how splits were scored."""
        how = (
            "the fresh accounts of their groups, one after another"
            if self.figures["scored_by"] == "groups"
            else "runs of each segment of consecutive groups"
        )
        return (
            f"Splits are scored from {how}. {self.figures['embargo_bars']:,} bars after a test "
            f"group do not count in training ({self.figures['embargo_samples']} sampled returns). "
            "Paths are made of fresh accounts, without trades of switching; ruin ends a path. "
            f"Sets: scrambled Sobol points, seed {self.manifest['seed']}.",
        )

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
                "splits": list_records(self.splits),
                "paths": list_records(self.paths),
            }
        )
        return data

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        splits = self.splits.reset_index()
        return {
            "splits": splits.assign(groups=splits["groups"].map(list)),
            "paths": self.paths.reset_index(),
            "matrix": self.matrix.rename(columns=str),
            "sets": self.sets,
            "curves": self.curves.rename(columns=str).reset_index(),
            "trials": self.trials,
        }

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:  # noqa: ARG004
        n = len(list(folder.glob("sets-*.parquet")))
        return f"{n:,} batch{'es' if n != 1 else ''} of sets"

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        splits = tables["splits"].set_index("split")
        return {
            "splits": splits.assign(groups=splits["groups"].map(read_groups)),
            "paths": tables["paths"].set_index("path"),
            "matrix": tables["matrix"].rename(columns=int).rename_axis("set"),
            "sets": tables["sets"],
            "curves": tables["curves"].set_index("time").rename(columns=int),
            "trials": tables["trials"],
        }


def count_ranks(ranks: pd.Series) -> pd.DataFrame:
    known = ranks.to_numpy(dtype=np.float64)
    counts, edges = np.histogram(known[~np.isnan(known)], bins=BINS, range=(0.0, 1.0))
    middle = np.round(0.5 * (edges[:-1] + edges[1:]), 6)
    is_low = middle < 0.5
    worse, better = BARS
    table = {worse: np.where(is_low, counts, 0), better: np.where(is_low, 0, counts)}
    return pd.DataFrame(table, index=middle)


def read_groups(stored: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(int, stored))


PATHS = ("sharpe", "cagr", "max_drawdown")
SPREAD = "the spread of the paths is not an interval"


def write_verdict(found: CrossRecord) -> str:
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
    parts = [
        [*format_paragraph("Verdict", write_verdict(found)), *describe_splits(found)],
        list(describe_paths(found)),
        list(describe_luck(found)),
        [line for text in found.warnings for line in format_paragraph("Warning", text)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_splits(found: CrossRecord) -> Iterator[str]:
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
    yield from format_paragraph(
        "Scores",
        f"{facts['objective']}, from {how}; embargo {figures['embargo_bars']:,} bars",
    )


def describe_paths(found: CrossRecord) -> Iterator[str]:
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
    lines = " ".join(" ".join(line.split()) for line in describe_luck(found))
    text = lines.replace("Winners ", "", 1).replace(" probability of", "; probability of", 1)
    first, _, second = text.partition(" Luck ")
    return f"{capitalize(first)}. {capitalize(second)}."

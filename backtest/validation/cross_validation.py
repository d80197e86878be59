"""CrossValidation: the result of :func:`backtest.cross_validate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    format_probability,
    list_records,
    to_plain,
)
from backtest.validation.validation import (
    EVEN,
    EVIDENCE,
    Validation,
    read_figures,
    select_metrics,
    show_choice,
)

MEASURES = ("sharpe", "cagr", "total_return", "volatility", "max_drawdown", "fees", "ruined")
BINS = 10
BARS = {"no better than the median set": "loss", "better": "accent"}
SPREAD = "the spread of the paths is not an interval"


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation(Validation):
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

    splits: pd.DataFrame
    paths: pd.DataFrame
    matrix: pd.DataFrame
    sets: pd.DataFrame
    curves: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    kind = "cross-validation"
    call = "bt.cross_validate"
    table_names = ("splits", "paths", "matrix", "sets", "curves", "trials")

    @property
    def ranks(self) -> pd.Series:
        """The winner's rank out of sample in each split."""
        return self.splits["rank"]

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
        """What was searched, and what luck alone would show, in sentences."""
        best, lucky = (read_figures(self.figures, f"{k}_sharpe") for k in ("best", "lucky"))
        rank = read_figures(self.figures, "mean_rank")
        return (
            f"{self.describe_search()} The mean rank of winners out of sample is "
            f"{format_number(rank)} (1 best, 0.5 the median). The best Sharpe ratio over all "
            f"groups is {format_number(best)}; the luckiest of as many sets without skill would "
            f"show about {format_number(lucky)}."
        )

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
            Part("spread", "Paths", "", (ShownTable(summarize_paths(self.paths, measures), "Paths",
                 f"{capitalize(SPREAD)}: all are made of one history.", Head("of paths")),),
                 "summary"),
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
        n = len(list(folder.glob("sets-*.npz")))
        return f"{n:,} batch{'es' if n != 1 else ''} of sets"

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        splits = tables["splits"].set_index("split")
        groups: Any = [tuple(map(int, each)) for each in splits["groups"]]
        return {
            "splits": splits.assign(groups=groups),
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


def summarize_paths(paths: pd.DataFrame, measures: tuple[str, ...]) -> pd.DataFrame:
    rows = {"lowest": paths.min(), "median": paths.median(), "highest": paths.max()}
    return pd.DataFrame(rows).T[list(measures)]


def write_verdict(found: CrossValidation) -> str:
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

"""WalkForward: the result of :func:`backtest.walk_forward`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    Head,
    Headline,
    Part,
    Shown,
    ShownChart,
    ShownTable,
    format_number,
    format_percent,
    format_probability,
    list_records,
    to_plain,
    utc_index,
)
from backtest.compare import show_accounts
from backtest.engine import Result
from backtest.sweep import Dimension, name_column
from backtest.tune import name_evidence, name_short
from backtest.validation.procedure import AnyAccount, SeparateAccounts
from backtest.validation.validation import (
    ACCOUNTS,
    EVEN,
    EVIDENCE,
    ChanceCount,
    Validation,
    count_by_chance,
    read_figures,
    select_metrics,
    show_choice,
)

MEASURES = ("cagr", "volatility", "sharpe", "max_drawdown", "total_return", "turnover", "fees",
            "funding", "liquidations")  # fmt: skip
OF_SPANS = {"train_start": Head("trained from", "UTC"), "test_start": Head("tested from", "UTC")}
OF_STABILITY = {
    "interquartile_range": Head("interquartile range of winners", "", "decimals"),
    "plateau_held": Head("plateau held", "", "decimals"),
    "rank_correlation": Head("rank correlation of all sets", "", "decimals"),
}
OF_ACCOUNTS = {"re-tuned": "accent", "tuned once": "neutral"}
RANK = "Rank: 1 is the best set of the test span, 0.5 the median, 0 the worst."
STABILITY = (
    "Range: as a share of the declared range, on its scale. Plateau held: share of folds whose "
    "winner lies in the box of the last one. Correlation: of the objectives of all sets between "
    "consecutive folds; train spans that overlap share bars."
)
EDGES = "Thin lines are the boundaries, where parameters may change."
BESIDE = (
    "Constant leverage pays the same costs, and has the volatility of the re-tuned account; the "
    "market is held at 1x without costs."
)
PLATEAU_WIDTH = 0.1
PARAMETER = (
    "Blue: the winner of each fold. Gray: the box of its neighbors, 10 % of the range on either "
    "side. A winner that leaves the last box every time was chosen by noise."
)


@dataclass(frozen=True, eq=False, repr=False)
class WalkForward(Validation):
    """Result of a walk-forward: tuned on each train span, tested on the span after it.

    Attributes
    ----------
    folds : DataFrame
        One row per fold: ``train_start, train_end, test_start, test_end`` (UTC, half-open), the
        winner's parameters, ``in_sample`` and ``out_of_sample`` (the objective), ``rank`` of the
        winner among all sets out of sample (1 best, 0 worst), ``shrinkage`` (out / in; NaN where
        in is not positive), ``difference`` (out - in), ``trials``, ``deflated_sharpe``.
    result : Result, SeparateAccounts or None
        The account that lived through all test spans while its parameters changed; None with
        ``carry=False``. Of separate accounts, ``result.results`` has one for each market.
    fixed : Result
        The account with the winner of the first train span, left alone.
    stability : DataFrame
        Per parameter: ``interquartile_range`` of the winners as a share of the declared range,
        ``plateau_held`` (share of folds whose winner lies near the last one), and the
        ``rank_correlation`` of all sets between consecutive folds.
    trials : DataFrame
        One row per fold and set tried: ``fold, in_sample, out_of_sample, is_winner``, and its
        parameters.
    figures : mapping
        Headline figures as data; the properties below name the most important. ``broken`` are the
        constraints of the search that the re-tuned account broke, ``beside`` the measures of the
        market and of a constant leverage at equal risk.
    manifest : mapping
        Everything that decides the numbers.
    parts : tuple of Result
        The accounts of the folds with ``carry=False``.
    """

    folds: pd.DataFrame
    result: AnyAccount | None
    fixed: AnyAccount
    stability: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]
    parts: tuple[AnyAccount, ...] = ()

    kind = "walk-forward"
    plural = "walk-forward validations"
    inner = (ACCOUNTS,)
    table_names = ("folds", "stability", "trials")

    @property
    def efficiency(self) -> float:
        """Log growth per year out of sample over that in sample; NaN if that is not positive."""
        return read_figures(self.figures, "efficiency")

    @property
    def efficiency_difference(self) -> float:
        """Log growth per year out of sample less that in sample."""
        return read_figures(self.figures, "efficiency_difference")

    @property
    def chance(self) -> dict[str, ChanceCount]:
        """Counts of folds beside what chance alone gives.

        ``better_than_median``: winners that were better than the median set out of sample.
        ``searches_with_evidence``: searches whose own deflated Sharpe ratio is 0.95 or more.
        """
        names = ("rank", "deflated_sharpe")
        ranks, deflated = (self.folds[name].to_numpy(dtype=np.float64) for name in names)
        ranks, deflated = ranks[~np.isnan(ranks)], deflated[~np.isnan(deflated)]
        return {
            "better_than_median": count_by_chance(ranks > EVEN, 0.5),
            "searches_with_evidence": count_by_chance(deflated >= EVIDENCE, 1.0 - EVIDENCE),
        }

    @property
    def verdict(self) -> str:
        """Whether the procedure found anything that lasted, in one sentence."""
        return write_verdict(self)

    @property
    def note(self) -> str:
        """The number of folds."""
        return f"{len(self.folds):,} folds"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return f"{self.policy_name} walked forward over {len(self.folds)} folds"

    @property
    def details(self) -> str:
        """What was searched, and what re-tuning gained, in sentences."""
        return f"{self.describe_search()} {' '.join(describe_choice(self))}"

    def list_parts(self) -> list[Part]:
        """Return the accounts, what choosing was worth, and the parameters through time."""
        folds = self.folds.drop(columns=["train_end", "test_end", "shrinkage"])
        return [
            Part("account", "The account over time", "One account through all test spans: it "
                 "trades from what it holds when parameters change.",
                 self._show_accounts(), "both"),
            Part("choice", "What choosing was worth", "Winners of the train spans, in their test "
                 "spans.", (
                     show_choice(self.trials, self.objective),
                     self._show_winners(),
                     ShownTable(folds, "Folds", RANK, heads=OF_SPANS))),
            Part("parameters", "Parameters through time", "The winner of each fold, with the "
                 "plateau around it.", (
                     *show_parameters(self.folds, self.manifest),
                     ShownTable(self.stability, "Stability", STABILITY, heads=OF_STABILITY))),
        ]  # fmt: skip

    def _show_accounts(self) -> tuple[Shown, ...]:
        kept: dict[str, Any] = {"tuned once": self.fixed}
        kept = kept if self.result is None else {"re-tuned": self.result, **kept}
        units = {name: follow_unit(each) for name, each in kept.items()}
        rows = {name: dict(each.metrics) for name, each in kept.items()}
        beside = self.figures["beside"]
        rows |= {name: {k: read_figures(row, k) for k in row} for name, row in beside.items()}
        table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(MEASURES))
        edges = pd.DatetimeIndex(self.folds["test_start"]).as_unit("ns").asi8
        return (
            show_accounts(pd.DataFrame(units), OF_ACCOUNTS, tuple(map(float, edges)), EDGES),
            ShownTable(table, "Measures over all test spans", BESIDE if beside else "",
                       labels=Head("account"), columns=MEASURES),
        )  # fmt: skip

    def _show_winners(self) -> ShownChart:
        caption = (
            f"The winner's {self.objective} on the train span, and what it made of the test span "
            "after it."
        )
        colors = {"in sample": "neutral", "out of sample": "accent"}
        table = self.folds.set_index("test_start")[["in_sample", "out_of_sample"]]
        return ShownChart(
            "folds", f"{self.objective} of the winners, fold by fold", caption,
            table.set_axis([*colors], axis=1), "points", colors, "test span from",
            has_legend=True,
        )  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how the walk was made."""
        facts = self.manifest
        return (
            f"Each fold was searched with {facts['trials']:,} trials at most, seed "
            f"{facts['seed']}, sampler {facts['sampler']}. The deflated Sharpe ratio of the "
            "account counts the independent sets of all folds.",
        )

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the re-tuned account."""
        return {} if self.result is None else select_metrics(self.result.metrics)

    def list_numbers(self) -> list[Headline]:
        """Return the Sharpe ratios of both accounts, and what says whether the choice lasts."""
        pbo, figures = self.pbo, self.figures
        tried, known = int(self.folds["trials"].sum()), read_figures(figures, "effective_trials")
        of_sets = f"that it is more than the luck of {tried:,} sets ({known:,.0f} independent)"
        numbers = [
            Headline("deflated_sharpe", name_short(self.manifest), self.deflated_sharpe,
                     "probability", of_sets, "more"),
            Headline("efficiency", "Efficiency", self.efficiency, "decimals",
                     "growth out of sample over in sample", "more"),
            Headline("pbo", "Overfitting", float(pbo), "decimals", "share of winners no better "
                     f"than the median, 0.5 by chance; {pbo.low:.2f} to {pbo.high:.2f}", "less"),
        ]  # fmt: skip
        if self.result is None:
            return numbers
        return [
            Headline("sharpe", "Sharpe, re-tuned", self.result.metrics["sharpe"], "decimals",
                     "out of sample", "more"),
            *numbers,
            Headline("sharpe_fixed", "Sharpe, tuned once", self.fixed.metrics["sharpe"],
                     "decimals", "over the same bars", "more"),
        ]  # fmt: skip

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
                "folds": list_records(self.folds),
                "stability": list_records(self.stability),
                "metrics": None if self.result is None else dict(self.result.metrics),
                "metrics_fixed": dict(self.fixed.metrics),
            }
        )
        return data

    @property
    def accounts(self) -> Mapping[str, Result]:
        """The account tuned once, and the re-tuned one; of separate ones, one per market."""
        found: dict[str, Result] = {}
        for title, account in {"fixed": self.fixed, "result": self.result}.items():
            if isinstance(account, Result):
                found[title] = account
            elif account is not None:
                names = [*self.manifest["data"]["instruments"]]
                found |= {
                    f"{title}-{names.index(name)}": each for name, each in account.results.items()
                }
        return found

    @classmethod
    def _read_accounts(
        cls, accounts: Mapping[str, Result], manifest: Mapping[str, Any]
    ) -> dict[str, Any]:
        if "pool" not in manifest:
            return dict(accounts)
        names = [*manifest["data"]["instruments"]]
        found: defaultdict[str, dict[str, Result]] = defaultdict(dict)
        for folder, account in accounts.items():
            title, _, place = folder.partition("-")
            found[title][names[int(place)]] = account
        return {title: SeparateAccounts(each) for title, each in found.items()}

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        return {
            "folds": self.folds.reset_index(),
            "stability": self.stability.reset_index(),
            "trials": self.trials,
        }

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:
        done = len(list(folder.glob("fold-*")))
        return f"in fold {done:,} of {len(manifest['spans']['rows']):,}" if done else "no set yet"

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        return {
            "folds": tables["folds"].set_index("fold"),
            "stability": tables["stability"].set_index("parameter"),
            "trials": tables["trials"],
            "result": None,  # without ``carry`` there is no re-tuned account
        }


def follow_unit(account: Any) -> pd.Series:
    if isinstance(account, SeparateAccounts):
        return (1.0 + account.returns).cumprod()
    index = utc_index(account.span.named)
    return pd.Series(account.of_account("unit") / account.tally.first_unit, index)


def write_verdict(walk: WalkForward) -> str:
    if walk.result is None:
        return "no verdict: accounts that begin anew in every fold pay nothing for switching"
    if walk.result.metrics["ruined"]:
        n, where = walk.result.metrics["ruined"], ""
        if "pool" in walk.manifest:
            where = f" in {n:.0f} of {len(walk.manifest['data']['instruments'])} markets"
        return f"do not trust it: the re-tuned account was ruined out of sample{where}"
    clauses = [judge_account(walk)]
    broken = walk.figures["broken"]
    if broken:
        told = ", ".join(f"{rule} (it came to {value:.4g})" for rule, value in broken.items())
        clauses.append(f"out of sample the account broke a constraint of the search: {told}")
    if walk.pbo > EVEN:
        clauses.append(
            f"the choice is no better than chance: the overfitting probability is {walk.pbo:.2f}"
        )
    return "; ".join(clauses)


def judge_account(walk: WalkForward) -> str:
    deflated, pbo = walk.deflated_sharpe, walk.pbo
    sets = int(walk.folds["trials"].sum())
    number = f"{name_evidence(walk.manifest)} {format_probability(deflated)} out of sample"
    number += f" after {sets:,} sets in {len(walk.folds)} folds" if sets > len(walk.folds) else ""
    count = walk.chance["better_than_median"]
    n, by_chance = count.n, f", where chance alone gives {count.expected:g}"
    lost = f"{n - count.found} of {n} winners were no better than the median set{by_chance}"
    won = f"{count.found} of {n} winners were better than the median set{by_chance}"
    if deflated < EVIDENCE:
        return (
            f"no evidence that re-tuning finds what lasts: {number}, and {EVIDENCE} or more would "
            f"be evidence; {lost if n else 'a single set leaves nothing to choose'}"
        )
    if math.isnan(pbo):
        return f"evidence of a gain out of sample, {number}; a single set leaves nothing to choose"
    if pbo > EVEN:
        return (
            f"the policy gains out of sample, but choosing its parameters adds nothing: {number}, "
            f"yet {lost}"
        )
    if pbo.high >= EVEN:
        return (
            f"the policy gains out of sample, and it is not clear that choosing its parameters "
            f"adds anything: {number}; {won}, and as many or more with probability "
            f"{format_probability(count.p_value)}"
        )
    return f"evidence that it lasts: {number}, and {won}"


def describe_choice(walk: WalkForward) -> Iterator[str]:
    figures = walk.figures
    inside, outside = (read_figures(figures, f"growth_{k}_sample") for k in ("in", "out_of"))
    ratio = "" if math.isnan(walk.efficiency) else f", efficiency {walk.efficiency:.2f}"
    yield (
        f"Log growth per year was {format_percent(inside)} in sample and {format_percent(outside)} "
        f"out of sample{ratio}."
    )
    if not math.isnan(walk.pbo):
        rank = format_number(read_figures(figures, "mean_rank"))
        yield f"The mean rank of winners out of sample is {rank} (1 best, 0.5 the median)."
    searches = walk.chance["searches_with_evidence"]
    if searches.n:
        yield (
            f"{searches.found} of {searches.n} train spans had a winner with a deflated Sharpe "
            f"ratio of {EVIDENCE} or more; chance alone gives {searches.expected:.2g}."
        )
    gap = figures["against_fixed"]
    if gap and math.isfinite(read_figures(gap, "low")):
        words = "more than noise" if read_figures(gap, "p_value") <= 1.0 - EVIDENCE else "noise"
        low, gain, high = (format_percent(read_figures(gap, k))
                           for k in ("low", "difference", "high"))  # fmt: skip
        yield (
            f"Re-tuning changed log growth per year by {gain} against tuning once, 95 % interval "
            f"{low} to {high}: {words}."
        )


def show_parameters(folds: pd.DataFrame, manifest: Mapping[str, Any]) -> Iterator[ShownChart]:
    rule = manifest["robust"] or {}
    width = float(rule.get("width", PLATEAU_WIDTH)) if isinstance(rule, dict) else PLATEAU_WIDTH
    for facts in manifest["space"]["dimensions"]:
        each = Dimension(**{name: facts[name] for name in Dimension._fields})
        if not each.options:
            yield show_parameter(each, folds, width)


def show_parameter(each: Dimension, folds: pd.DataFrame, width: float) -> ShownChart:
    values = folds[name_column(each.name)].to_numpy(dtype=np.float64)
    ends = {
        f"{word} end of its plateau": each.decode(np.clip(each.encode(values) + side, 0.0, 1.0))
        for word, side in (("lower", -width), ("upper", width))
    }
    table = pd.DataFrame({**ends, "winner": values}, folds["test_start"])
    table.loc[folds["test_end"].iloc[-1]] = table.iloc[-1]
    colors = dict(zip(map(str, table), ("neutral", "neutral", "accent"), strict=True))
    return ShownChart(
        f"parameter-{each.name}", each.name.replace("_", " "), PARAMETER, table, "steps",
        colors, log="y" if each.log else "", size="half", height=240,
    )  # fmt: skip

"""WalkForward: the result of :func:`backtest.walk_forward`, and how much its winners move."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import (
    Head,
    Headline,
    Part,
    Shown,
    ShownChart,
    ShownTable,
    capitalize,
    list_records,
    to_plain,
    utc_index,
)
from backtest.compare import show_accounts
from backtest.engine import Result
from backtest.sweep import Dimension, name_column
from backtest.tune import find_extent, name_short
from backtest.validation.interval_estimates import correlate_ranks
from backtest.validation.terms import SeparateAccounts
from backtest.validation.validation_files import (
    ACCOUNTS,
    WalkRecord,
    select_metrics,
    show_choice,
)
from backtest.validation.walk_text import OF_FOLDS, summarize_choice, write_summary, write_verdict

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.validation.fold_search import SearchedFold
    from backtest.validation.tuning_procedure import Procedure


MEASURES = ("total_return", "cagr", "volatility", "sharpe", "max_drawdown", "turnover", "fees",
            "funding", "liquidations")  # fmt: skip
OF_SPANS = {"train_start": Head("trained from", "UTC"), "test_start": Head("tested from", "UTC")}
OF_STABILITY = {
    "interquartile_range": Head("interquartile range of winners", "", "decimals"),
    "plateau_held": Head("plateau held", "", "decimals"),
    "rank_correlation": Head("rank correlation of all sets", "", "decimals"),
}
RANK = "Rank: 1 is the best set of the test span, 0.5 the median, 0 the worst."
STABILITY = (
    "Range: as a share of the declared range, on its scale. Plateau held: share of folds whose "
    "winner lies in the box of the last one. Correlation: of the objectives of all sets between "
    "consecutive folds; train spans that overlap share bars."
)
EDGES = "Thin lines are the boundaries, where parameters may change."
OF_ACCOUNTS = {"re-tuned": "accent", "tuned once": "neutral"}


def follow_unit(account: Any) -> pd.Series:
    if isinstance(account, SeparateAccounts):
        return (1.0 + account.returns).cumprod()
    index = utc_index(account.span.named)
    return pd.Series(account.of_account("unit") / account.tally.first_unit, index)


class WalkForward(WalkRecord):
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
        See :func:`backtest.validation.walk.measure_stability`.
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

    kind = "walk-forward"
    plural = "walk-forward validations"
    inner = (ACCOUNTS,)
    table_names = ("folds", "stability", "trials")

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
        """Efficiency, ranks and the gain of re-tuning, in sentences."""
        return summarize_choice(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """The warnings but those that the searches repeat."""
        return tuple(f"{capitalize(text)}." for text in self.warnings if not OF_FOLDS.match(text))

    def list_parts(self) -> list[Part]:
        """Return the accounts, what choosing was worth, and the parameters through time."""
        lasting = (f"{capitalize(text)}." for text in self.warnings if OF_FOLDS.match(text))
        folds = self.folds.drop(columns=["train_end", "test_end", "shrinkage"])
        return [
            Part("account", "The account over time", "One account through all test spans: it "
                 "trades from what it holds when parameters change.", self._show_accounts()),
            Part("choice", "What choosing was worth", "Winners of the train spans, in their test "
                 "spans.", (
                     show_choice(self.trials, self.objective),
                     self._show_winners(),
                     ShownTable(folds, "Folds", RANK, heads=OF_SPANS),
                     *lasting)),
            Part("parameters", "Parameters through time", "The winner of each fold, with the "
                 "plateau around it.", (
                     *show_parameters(self.folds, self.manifest),
                     ShownTable(self.stability, "Stability", STABILITY, heads=OF_STABILITY))),
        ]  # fmt: skip

    def _show_accounts(self) -> tuple[Shown, ...]:
        kept: dict[str, Any] = {"tuned once": self.fixed}
        kept = kept if self.result is None else {"re-tuned": self.result, **kept}
        units = {name: follow_unit(each) for name, each in kept.items()}
        table = {name: {of: each.metrics[of] for of in MEASURES} for name, each in kept.items()}
        edges = pd.DatetimeIndex(self.folds["test_start"]).as_unit("ns").asi8
        return (
            show_accounts(pd.DataFrame(units), OF_ACCOUNTS, tuple(map(float, edges)), EDGES),
            ShownTable(pd.DataFrame(table), "Measures over all test spans",
                       labels=Head("measure"), has_measures=True),
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
            f"{facts['seed']}, sampler {facts['sampler']}; sets must keep: "
            f"{', '.join(facts['constraints'])}. The deflated Sharpe ratio of the walk counts one "
            "trial, as the account was not chosen among others.",
        )

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the re-tuned account."""
        return {} if self.result is None else select_metrics(self.result.metrics)

    def list_numbers(self) -> list[Headline]:
        """Return the Sharpe ratios of both accounts, and what says whether the choice lasts."""
        once = self.fixed.metrics["sharpe"]
        tuned = None if self.result is None else self.result.metrics["sharpe"]
        pbo, below = self.pbo, "share of winners no better than the median, 0.5 by chance"
        numbers = [
            Headline("deflated_sharpe", name_short(self.manifest), self.deflated_sharpe,
                     "probability", "that the Sharpe ratio out of sample is above 0", "more"),
            Headline("efficiency", "Efficiency", self.efficiency, "decimals",
                     "growth out of sample over in sample", "more"),
            Headline("pbo", "Overfitting", float(pbo), "decimals",
                     f"{below}; {pbo.low:.2f} to {pbo.high:.2f}", "less"),
        ]  # fmt: skip
        if tuned is None:
            return numbers
        return [
            Headline("sharpe", "Sharpe, re-tuned", tuned, "decimals", "out of sample", "more"),
            *numbers,
            Headline("sharpe_fixed", "Sharpe, tuned once", once, "decimals", "over the same bars",
                     "more"),
        ]  # fmt: skip

    def summary(self) -> str:
        """Return the verdict and the figures as text for a terminal."""
        return write_summary(self)

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


PLATEAU_WIDTH = 0.1
PARAMETER = (
    "Blue: the winner of each fold. Gray: the box of its neighbors, 10 % of the range on either "
    "side. A winner that leaves the last box every time was chosen by noise."
)


def measure_stability(procedure: Procedure, found: Sequence[SearchedFold]) -> pd.DataFrame:
    correlation = correlate_folds(found)
    rows = {
        each.name: {
            "interquartile_range": measure_spread(each, found),
            "plateau_held": measure_held(each, found, procedure.rule.width),
            "rank_correlation": correlation,
        }
        for each in procedure.space.dimensions
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


def read_values(dimension: Dimension, found: Sequence[SearchedFold]) -> np.ndarray:
    values = [fold.values[dimension.name] for fold in found]
    return np.array(values, dtype=object if dimension.options else np.float64)


def measure_spread(dimension: Dimension, found: Sequence[SearchedFold]) -> float:
    if dimension.options:
        return math.nan
    low, high = np.quantile(dimension.encode(read_values(dimension, found)), [0.25, 0.75])
    return float(high - low)


def measure_held(dimension: Dimension, found: Sequence[SearchedFold], width: float) -> float:
    values = read_values(dimension, found)
    if len(values) < 2:
        return math.nan
    if dimension.options:
        return float(np.mean(values[1:] == values[:-1]))
    place = dimension.encode(values)
    down, up = find_extent(dimension, values[:-1], width)
    move: FloatArray = np.diff(place)
    return float(np.mean((move >= -down - 1e-12) & (move <= up + 1e-12)))


def correlate_folds(found: Sequence[SearchedFold]) -> float:
    values = [correlate_pair(one, other) for one, other in itertools.pairwise(found)]
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def correlate_pair(one: SearchedFold, other: SearchedFold) -> float:
    names = list(one.sets)
    tables = [pd.DataFrame(dict(fold.sets)).assign(score=fold.inside) for fold in (one, other)]
    shared = tables[0].merge(tables[1], on=names, suffixes=("_one", "_other"))
    scores = [shared[name].to_numpy(dtype=np.float64) for name in ("score_one", "score_other")]
    return correlate_ranks(scores[0], scores[1])


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

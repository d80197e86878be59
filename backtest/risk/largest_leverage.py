"""max_leverage(): the largest leverage at a probability of liquidation."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import Progress
from backtest.core.fields import INNER_SHARE
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.market import label_names
from backtest.results.settings_result import SettingsResult
from backtest.risk import liquidations as r
from backtest.risk import path_models
from backtest.risk.funding_process import summarize_funding
from backtest.risk.leverage_sizes import choose_grid, scale_policy
from backtest.risk.leverage_trials import (
    HISTORY,
    LONG_RUN,
    HistoryTrials,
    PathTrials,
    bisect_leverage,
    name_models,
    search_grid,
)
from backtest.risk.liquidations import LiquidationRisk
from backtest.risk.past_starts import describe_apart
from backtest.risk.path_drift import Drift, describe_drift
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths, choose_funding, simulate_paths
from backtest.risk.replays import replay_held
from backtest.risk.scores import ALL, show_scores, write_score

USUAL_MODELS = ("filtered", "stationary", "gbm")
LEAST_HITS = 20
"""Expected liquidations below which paths are too few for a probability."""


@dataclass(frozen=True, eq=False, repr=False)
class MaxLeverage(SettingsResult):
    """Largest leverage, or factor on a policy, at a probability of liquidation.

    Attributes
    ----------
    table : DataFrame
        A row per model, those with a volatility of today's again with the long-run one
        (``filtered, long run``), ``history`` where it has a year, and ``worst`` last: ``leverage``
        (or the factor) and its standard error over the paths, ``leverage_error`` (NaN for history,
        at the end of the grid, and with ``evaluations``), ``p_liquidation`` at it with
        ``p_liquidation_simulation_low`` and ``p_liquidation_simulation_high`` (NaN for history),
        ``paths`` (of history: starts) behind them, ``wiped_out``, the share of the first 2,000
        paths that leave nothing (NaN as the error is), ``is_monotone`` (whether the probability
        never fell along the scanned grid), ``is_limited`` (whether no leverage allowed by venue and
        account reaches the probability: it is the end of the grid).
    grid : DataFrame
        The probability by leverage, a column per row, on the first 256 paths or on all starts. With
        ``evaluations`` a leverage that is over the probability has a lower bound of it.
    scores, forecasts : DataFrame, optional
        With ``score``: the leverage found, held at past dates: what was told and what came.
    """

    table: pd.DataFrame
    grid: pd.DataFrame
    scores: pd.DataFrame | None = None
    forecasts: pd.DataFrame | None = None

    kind = "max-leverage"
    called = "largest leverage"
    long_tables = ("forecasts",)

    @property
    def note(self) -> str:
        return f"{self.leverage:.3g} at {self.settings['probability']:g}"

    @property
    def leverage(self) -> float:
        """The smallest over the models."""
        return float(self.table["leverage"].iloc[-1])

    @property
    def heading(self) -> str:
        chance = core.format_chance(self.settings["probability"])
        return f"Largest {self.grid.index.name} at {chance} in {self.settings['horizon']}"

    @property
    def bound_by(self) -> str:
        """The row that decides, the smallest."""
        return str(self.table.index[int(np.argmin(self.table["leverage"].iloc[:-1].to_numpy()))])

    @property
    def verdict(self) -> str:
        bound = core.format_chance(self.settings["probability"])
        row: Any = self.table.iloc[-1]
        name, chance = self.bound_by, core.format_chance(row["p_liquidation"])
        if name == HISTORY:
            past = self.settings["history"]
            apart = describe_apart(past["hits"], past["apart"], past["high"])
            name = f"history's own frequency, {chance} there ({apart})"
        else:
            name = f"{self._describe_model(name)}, {chance} there"
        error = f" ± {row['leverage_error']:.2g}" if row["leverage_error"] > 0.0 else ""
        end = ", the end of those tried" if row["is_limited"] else ""
        lost = ""
        if row["wiped_out"] >= 0.0:
            lost = f", and {core.format_chance(float(row['wiped_out']))} of accounts are wiped out"
        return (
            f"Up to a {self.grid.index.name} of {self.leverage:.3g}{error}{end}, the account is "
            f"liquidated within {self.settings['horizon']} with a probability of at most {bound}; "
            f"the bound is {name}{lost}."
        )

    def _describe_model(self, name: str) -> str:
        if name.endswith(LONG_RUN):
            return f"{name.removesuffix(LONG_RUN)} from the long-run volatility"
        if name + LONG_RUN in self.table.index:
            return f"{name} from today's volatility"
        return name

    @property
    def details(self) -> str:
        past = self.settings["history"]
        history = "History is too short to count: a year is needed."
        if past is not None:
            apart = describe_apart(past["hits"], past["apart"], past["high"])
            history = f"History: {past['starts']:,} starts, one a day, {apart}."
        held = self.settings["weights"]
        weights = (f"{text or 'signal'} {held[x]:.3g}" for x, text in label_names(held).items())
        return (
            "The smallest of all rows is the one to use: models start at today's volatility and at "
            f"the long-run one. Their paths have {describe_drift(self._drawn)}. "
            f"{history} Weights: {', '.join(weights)}.{self._write_held()}"
        )

    def _write_held(self) -> str:
        """Return what came where today's number was held at past dates, if that was asked for."""
        if self.scores is None:
            return ""
        whole = self.scores[self.scores["days"] == ALL]
        texts = [write_score(str(name), row) for name, row in whole.iterrows()]
        return f" Held at past dates, {'; '.join(texts)}."

    @property
    def _drawn(self) -> Any:
        return next(iter(self.settings["paths"].values()))  # all models draw the same funding

    def list_numbers(self) -> list[Headline]:
        return [
            Headline("leverage", f"largest {self.grid.index.name}", self.leverage,
                     note=self.bound_by, text=f"{self.leverage:.3g}")
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        size, (low, high) = str(self.grid.index.name), r.name_interval("p_liquidation")
        heads = {
            "leverage": Head(size),
            "leverage_error": Head("± its error", "over paths", "decimals"),
            "wiped_out": Head("wiped out", "of accounts", "chance"),
            low: Head("95 % interval of the simulation", "", "chance", high),
            "paths": Head("paths", "or starts", "count"),
            "is_monotone": Head("monotone in size", "", "claim"),
            "is_limited": Head("venue's maximum", "", "claim"),
        }
        chart = ShownChart(
            "grid", "Probability by size", "On the first 256 paths of each model.", self.grid,
            x=size, y="probability", has_legend=True, height=320,
        )  # fmt: skip
        models = ShownTable(self.table, labels=Head("model"), heads=heads)
        funding = summarize_funding(self._drawn.get("funding_fit", {}))
        lead = "All sizes see the same paths."
        parts = [Part("models", "By model", lead, (models, chart, *funding), shows="both")]
        if self.scores is not None:
            parts.append(show_scores(self.scores))
        return parts


@core.checked_only("compile", "progress", "models")
def max_leverage(  # noqa: PLR0913 - as the method
    conditions: Conditions,
    policy: AnyPolicy | None = None,
    *,
    probability: float = 0.01,
    horizon: str = "30d",
    models: Sequence[str | path_models.PathModel | type[path_models.PathModel]] = USUAL_MODELS,
    paths: int = 10_000,
    seed: int = 0,
    drift: Drift | None = None,
    evaluations: int | None = None,
    score: bool = False,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> MaxLeverage:
    """Answer :meth:`backtest.Backtest.max_leverage`, which documents it."""
    INNER_SHARE.check("probability", probability)
    if not models:
        raise core.ParameterError("models must be a list with at least one model, got none")
    if evaluations is not None:
        core.Whole(1).check("evaluations", evaluations)
        if len(models) != 1:
            raise core.ParameterError(
                f"evaluations are of one model, ['filtered'] for example, got {len(models)} models"
            )
    test: Any = plain(conditions)
    how: Any = {"paths": paths, "horizon": horizon, "seed": seed, "drift": drift}
    how["funding"] = choose_funding(test.venue)
    drawn = [simulate_paths(test.market, each, **how) for each in models]
    return search_paths(
        conditions,
        policy,
        drawn,
        probability=probability,
        horizon=horizon,
        evaluations=evaluations,
        score=score,
        threads=threads,
        compile=compile,
        progress=progress,
    )


def search_paths(
    conditions: Conditions,
    policy: AnyPolicy | None,
    drawn: Sequence[Paths],
    *,
    probability: float,
    horizon: str,
    evaluations: int | None,
    score: bool,
    threads: int,
    compile: bool,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    risk: LiquidationRisk | None = None,
) -> MaxLeverage:
    """Return the largest leverage on paths, one batch a model; :func:`max_leverage` checks.

    ``risk`` is that of the policy itself on the first batch, if it was measured before: the first
    of the ``evaluations`` is then known.
    """
    chance = probability
    paths = drawn[0].count
    if not chance * paths >= LEAST_HITS:
        raise core.ParameterError(
            f"paths must be at least {math.ceil(LEAST_HITS / chance)} for the probability "
            f"{chance:g}, got {paths}"
        )
    sizes = choose_grid(policy, conditions, drawn[0])
    named = name_models(drawn)
    if evaluations is not None:
        named = dict(itertools.islice(named.items(), 1))

    begun: dict[int, PathsRunner] = {}

    def make(each: Paths, size: float) -> PathsRunner:
        """Return the account of a size; what does not depend on the size is made once."""
        scaled = scale_policy(policy, size)
        if id(each) not in begun:
            begun[id(each)] = PathsRunner(each, scaled, conditions, compile=compile)
            return begun[id(each)]
        return begun[id(each)].with_policy(scaled)

    core.report_progress(progress, 0, len(named) + 1)
    bars, span = r.read_horizons(drawn[0], horizon)[horizon], core.parse_duration(horizon)
    trials: list[PathTrials] = [
        PathTrials(name, each, functools.partial(make, each), bars, span, threads)
        for name, each in named.items()
    ]
    first = make(drawn[0], float(sizes[0]))
    start = float(sizes[0])
    if evaluations is not None:
        start = 1.0 if policy is not None else math.sqrt(float(sizes[0] * sizes[-1]))
    past = HistoryTrials(HISTORY, drawn[0], functools.partial(make, drawn[0]), bars, span)
    if risk is None:
        past.begin(start)
    else:
        share: Any = risk.table.loc[horizon, "p_liquidation"]
        trials[0].counted[start] = round(float(share) * paths)
        past.begin(start, risk.find_past(horizon))
    if past.count:
        trials.append(past)
    if evaluations is None:
        tried = search_grid(trials, sizes, chance, progress)
    else:
        drawn[0].keep_all()
        quick_first = trials[::-1]  # history takes a third of the time of the paths
        most = float(sizes[-1])
        tried = bisect_leverage(quick_first, start, most, chance, evaluations, progress)
    sizes, rows, columns = tried
    least = min(rows, key=lambda name: rows[name]["leverage"])
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="model"))
    table.loc["worst"] = table.loc[least]
    label = "leverage" if policy is None else "factor"
    weights = first.list_weights(drawn[0].markets)[:, -1].tolist()
    settings = r.describe_terms(policy or "one position, held", conditions) | {
        "probability": chance,
        "horizon": horizon,
        "signal": None if conditions.signal is None else first.signal,
        "weights": dict(zip(drawn[0].names, weights, strict=True)),
        "history": past.describe(rows[HISTORY]["leverage"]) if past.count else None,
        **({} if evaluations is None else {"evaluations": evaluations}),
        "paths": {name: each.describe() for name, each in named.items()},
    }
    grid = pd.DataFrame(columns, index=pd.Index(sizes, name=label))
    found = MaxLeverage(table, grid, settings=settings, market=conditions.market)
    if not score:
        return found
    name = f"{label} {found.leverage:.3g} liquidated within {horizon}"
    held = replay_held(make(drawn[0], found.leverage), name, bars, chance).tabulate()
    return replace(found, scores=held.scores, forecasts=held.forecasts)

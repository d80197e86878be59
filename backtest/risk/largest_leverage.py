"""max_leverage(): the largest leverage at a probability of liquidation."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
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
from backtest.risk.leverage_sizes import choose_grid, find_cap, name_size, scale_policy
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
        ``paths`` (of history: starts) behind them, ``wiped_out``, the share of them that leaves
        nothing (NaN as the error is), ``is_monotone`` (whether the probability never fell along the
        scanned grid; with ``evaluations``, up to the leverage found), ``is_limited`` (whether no
        size that was tried reaches the probability: it is the end of the search, of a position's
        leverage the most that venue and account allow).
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
        return f"{self._write_size()} at {self.settings['probability']:g}"

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
        sizes = self.table["leverage"].iloc[:-1].to_numpy()
        return str(self.table.index[int(np.argmin(sizes))])

    @property
    def is_limited(self) -> bool:
        """Whether no size that was tried is over the probability: then there is no answer."""
        return bool(self.table["is_limited"].iloc[-1])

    def _write_size(self) -> str:
        """Return the size, or over what it is where the search ended without one that is over."""
        if not self.is_limited:
            return f"{self.leverage:.3g}"
        if self._is_most_allowed:
            return f"{self.leverage:.3g}, the most allowed"
        return f"over {math.floor(self.leverage)}"

    @property
    def _is_most_allowed(self) -> bool:
        """Whether the grid of a position ended at the most that venue and account allow."""
        is_policy = self.grid.index.name == "factor"
        return self.is_limited and not is_policy and "evaluations" not in self.settings

    @property
    def verdict(self) -> str:
        row: Any = self.table.iloc[-1]
        size = f"{self.leverage:.3g}"
        if row["leverage_error"] > 0.0:
            size = f"{size} ± {row['leverage_error']:.2g}"

        name = self.grid.index.name
        allowed = core.format_chance(self.settings["probability"])
        bound = self._describe_bound(core.format_chance(row["p_liquidation"]))
        text = (
            f"Up to a {name} of {size}, the account is liquidated within "
            f"{self.settings['horizon']} with a probability of at most {allowed}; the bound is "
            f"{bound}"
        )
        if self.is_limited:
            end = "the end of the search"
            if self._is_most_allowed:
                end = "the most that venue and account allow"
            text = (
                f"No {name} up to {size}, {end}, has the account liquidated within "
                f"{self.settings['horizon']} with a probability over {allowed}; the highest is "
                f"{bound}"
            )

        if row["wiped_out"] >= 0.0:
            lost = core.format_chance(float(row["wiped_out"]))
            return f"{text}, and {lost} of accounts are wiped out."
        return f"{text}."

    def _describe_bound(self, chance: str) -> str:
        """Return the row that decides, in words, and the probability there."""
        if self.bound_by != HISTORY:
            return f"{self._describe_model(self.bound_by)}, {chance} there"
        past = self.settings["history"]
        apart = describe_apart(past["hits"], past["apart"], past["high"])
        return f"history's own frequency, {chance} there ({apart})"

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

        weights = []
        of_instruments = self.settings["weights"]
        for name, label in label_names(of_instruments).items():
            weights.append(f"{label or 'signal'} {of_instruments[name]:.3g}")
        return (
            f"{self._write_cap()}"
            "The smallest of all rows is the one to use: models start at today's volatility and at "
            f"the long-run one. Their paths have {describe_drift(self._drawn)}. "
            f"{history} Weights: {', '.join(weights)}.{self._write_held()}"
        )

    def _write_cap(self) -> str:
        """Return which limit holds the account back at the end of the search, if one does."""
        cap = self.settings.get("cap")
        if cap is None:
            return ""
        return (
            f"At {self.leverage:.3g} {cap['cause']} cuts {core.format_percent(cap['share'])} of "
            f"the decisions on the first path, to {cap['leverage']:.2f}x on average: a larger "
            f"{self.grid.index.name} changes little. "
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
            Headline(
                "leverage",
                f"largest {self.grid.index.name}",
                self.leverage,
                note="none tried is over the probability" if self.is_limited else self.bound_by,
                text=self._write_size(),
            )
        ]

    def list_parts(self) -> list[Part]:
        size = str(self.grid.index.name)
        low, high = r.name_interval("p_liquidation")
        heads = {
            "leverage": Head(size),
            "leverage_error": Head("± its error", "over paths", "decimals"),
            "wiped_out": Head("wiped out", "of accounts", "chance"),
            low: Head("95 % interval of the simulation", "", "chance", high),
            "paths": Head("paths", "or starts", "count"),
            "is_monotone": Head("monotone in size", "", "claim"),
            "is_limited": Head("none was over", "end of search", "claim"),
        }

        chart = ShownChart(
            key="grid",
            title="Probability by size",
            caption="On the first 256 paths of each model.",
            table=self.grid,
            x=size,
            y="probability",
            has_legend=True,
            height=320,
        )

        models = ShownTable(self.table, labels=Head("model"), heads=heads)
        funding = summarize_funding(self._drawn.get("funding_fit", {}))
        lead = "All sizes see the same paths."
        parts = [
            Part(
                key="models",
                title="By model",
                lead=lead,
                blocks=(models, chart, *funding),
                shows="both",
            )
        ]
        if self.scores is not None:
            parts.append(show_scores(self.scores))
        return parts


@core.record_making
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
    drawn = [simulate_paths(test.market, model, **how) for model in models]
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
    paths = drawn[0]
    if not probability * paths.count >= LEAST_HITS:
        raise core.ParameterError(
            f"paths must be at least {math.ceil(LEAST_HITS / probability)} for the probability "
            f"{probability:g}, got {paths.count}"
        )
    sizes = choose_grid(policy, conditions, paths)
    models = name_models(drawn)
    if evaluations is not None:
        models = dict(itertools.islice(models.items(), 1))

    # What the policy observes on the first batch was checked with its risk.
    trusted = paths if risk is not None else None
    make = SizedAccounts(conditions, policy, compile=compile, trusted=trusted).make

    core.report_progress(progress, 0, len(models) + 1)
    bars = r.read_horizons(paths, horizon)[horizon]
    span = core.parse_duration(horizon)
    trials: list[PathTrials] = [
        PathTrials(name, of_model, functools.partial(make, of_model), bars, span, threads)
        for name, of_model in models.items()
    ]

    first = make(paths, float(sizes[0]))
    start = choose_start(policy, sizes, evaluations)

    # History is one more model, of accounts that began on past days. Where the policy itself was
    # measured, its share of liquidations is known, and so is that of the first batch.
    past = HistoryTrials(HISTORY, paths, functools.partial(make, paths), bars, span)
    if risk is None:
        past.begin(start)
    else:
        share: Any = risk.table.loc[horizon, "p_liquidation"]
        trials[0].counted[start] = round(float(share) * paths.count)
        past.begin(start, risk.find_past(horizon))

    if past.count:
        trials.append(past)

    # All sizes of a grid, or a bisection that pays for few of them.
    if evaluations is None:
        searched = search_grid(trials, sizes, probability, progress)
    else:
        paths.keep_all()
        quick_first = trials[::-1]  # history takes a third of the time of the paths
        largest = float(sizes[-1])
        searched = bisect_leverage(quick_first, start, largest, probability, evaluations, progress)

    terms = {"probability": probability, "horizon": horizon, "history": None}
    terms |= describe_accounts(conditions, first)
    if past.count:
        terms["history"] = past.describe(searched.rows[HISTORY]["leverage"])
    if evaluations is not None:
        terms["evaluations"] = evaluations
    terms["paths"] = {name: of_model.describe() for name, of_model in models.items()}

    label = name_size(policy)
    terms["cap"] = describe_cap(policy, searched.rows, functools.partial(make, paths))
    result = MaxLeverage(
        table=tabulate_rows(searched.rows),
        grid=pd.DataFrame(searched.columns, index=pd.Index(searched.sizes, name=label)),
        settings=r.describe_terms(policy or "one position, held", conditions) | terms,
        market=conditions.market,
    )
    if not score:
        return result

    name = f"{label} {result.leverage:.3g} liquidated within {horizon}"
    held = replay_held(make(paths, result.leverage), name, bars, probability).tabulate()
    return replace(result, scores=held.scores, forecasts=held.forecasts)


class SizedAccounts:
    """Makes accounts of several sizes on some batches of paths.

    What does not depend on the size, as what the policy observes, is made once a batch. The columns
    of the policy on the batch ``trusted`` need no check for look-ahead.
    """

    def __init__(
        self,
        conditions: Conditions,
        policy: AnyPolicy | None,
        *,
        compile: bool,  # noqa: A002 - the word of bt.run
        trusted: Paths | None,
    ) -> None:
        self.conditions = conditions
        self.policy = policy
        self.compile = compile
        self.trusted = trusted
        self._first_runners: dict[int, PathsRunner] = {}

    def make(self, paths: Paths, size: float) -> PathsRunner:
        """Return what runs accounts of a size, and keep it if it is the first on these paths."""
        scaled = scale_policy(self.policy, size)
        first = self._first_runners.get(id(paths))
        if first is not None:
            return first.with_policy(scaled)

        runner = PathsRunner(
            paths,
            scaled,
            self.conditions,
            compile=self.compile,
            is_trusted=paths is self.trusted,
        )
        self._first_runners[id(paths)] = runner
        return runner


def describe_cap(
    policy: AnyPolicy | None,
    rows: dict[str, dict[str, Any]],
    make: Callable[[float], PathsRunner],
) -> Any:
    """Return the limit that cuts the first path at the end of a search that found no size over.

    A limit of venue or account may be why none was; None without one, and where one was over. The
    search for one position ends at what they allow, and none cuts it.
    """
    if policy is None:
        return None

    worst = min(rows.values(), key=lambda row: float(row["leverage"]))
    if not worst["is_limited"]:
        return None
    cap = find_cap(make(float(worst["leverage"])).run_path(0))
    if cap is None:
        return None
    return cap._asdict()


def choose_start(
    policy: AnyPolicy | None,
    sizes: core.FloatArray,
    evaluations: int | None,
) -> float:
    """Return the size that is tried first: the least of a grid, or where a bisection begins."""
    if evaluations is None:
        return float(sizes[0])
    if policy is None:
        return math.sqrt(float(sizes[0] * sizes[-1]))
    return 1.0


def describe_accounts(conditions: Conditions, runner: PathsRunner) -> dict[str, Any]:
    """Return the signal that was given, and the weights of the instruments at the end."""
    signal = None
    if conditions.signal is not None:
        signal = runner.signal
    paths = runner.paths
    weights = runner.list_weights(paths.markets)[:, -1].tolist()
    return {"signal": signal, "weights": dict(zip(paths.names, weights, strict=True))}


def tabulate_rows(rows: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return a row per source, and the one with the smallest leverage again, as the worst."""
    least = min(rows, key=lambda name: rows[name]["leverage"])
    table = pd.DataFrame(rows.values(), index=pd.Index(rows, name="model"))
    table.loc["worst"] = table.loc[least]
    return table

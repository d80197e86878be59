"""leverage_frontier(): growth of the median account against the probability of liquidation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.results.settings_result import SettingsResult
from backtest.risk import liquidations as r
from backtest.risk import path_models
from backtest.risk.leverage_sizes import (
    choose_grid,
    find_binding_factor,
    find_cap,
    name_size,
    scale_policy,
)
from backtest.risk.leverage_trials import HISTORY
from backtest.risk.path_drift import Drift, describe_drift
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths, simulate_paths

YEAR = YEAR_DAYS * DAY
MOST_CUT = 0.5
"""A limit that cuts more than this share of decisions is named beside the best size: growth there
says more of the limit than of the size."""


@dataclass(frozen=True, eq=False, repr=False)
class LeverageFrontier(SettingsResult):
    """Growth against the probability of liquidation, by leverage or by factor on a policy.

    Attributes
    ----------
    table : DataFrame
        By ``source`` (paths with the drift, paths with none, history) and ``leverage`` or
        ``factor``: ``growth``, the median log growth per year (minus infinity where half of the
        accounts have nothing left), ``p_liquidation`` with ``p_liquidation_simulation_low`` and
        ``p_liquidation_simulation_high`` (95 %, Clopper and Pearson), and ``accounts``, their
        number: paths, or starts in history that have no bar in common.
    best : DataFrame
        By ``source``, where the median account grows most: ``size``, ``growth``, their standard
        errors over the accounts, ``size_error`` and ``growth_error`` (bootstrap), there
        ``p_liquidation`` and ``wiped_out``, the share of ruined accounts, and ``is_at_end``:
        whether it is the lowest or the highest size that was tried. On paths it is refined between
        the sizes of the table.
    """

    table: pd.DataFrame
    best: pd.DataFrame

    kind = "leverage-frontier"
    called = "leverage frontier"

    @property
    def heading(self) -> str:
        return f"How much leverage within {self.settings['horizon']}"

    @property
    def note(self) -> str:
        return f"{self.settings['drift']}, and none beside it"

    @property
    def verdict(self) -> str:
        source = self.best.index[0]
        size = self.table.index.names[1]
        row: Any = self.best.iloc[0]
        best = f"{row['size']:.3g}"
        if row["size_error"] > 0.0:
            best = f"{best} ± {row['size_error']:.2g}"
        if row["is_at_end"]:
            best = f"{best}, the end of those tried,"

        outcome = f"The median account grows most at a {size} of {best} on {source}"
        if row["growth"] < 0.0:
            outcome = (
                f"At no {size} that was tried does the median account grow on {source}. It shrinks "
                f"least at {best.removesuffix(',')}"
            )
        outcome += self._write_past_cap(float(row["size"]))

        lost = core.format_chance(float(row["wiped_out"]))
        liquidated = core.format_chance(float(row["p_liquidation"]))
        return (
            f"{outcome}; {lost} are wiped out, and {liquidated} of accounts are liquidated there."
        )

    def _write_past_cap(self, size: float) -> str:
        """Return that a size is past where a limit cuts most decisions, as a clause, if it is."""
        cap = self.settings["cap"]
        if cap is None or cap["share"] <= MOST_CUT or not size > cap["binds_from"]:
            return ""
        return (
            f", past about {cap['binds_from']:.2g}, from where {cap['cause']} binds and growth is "
            "nearly flat"
        )

    def _write_cap(self) -> str:
        """Return which limit cuts the largest best size, and from which size on, if one does."""
        cap = self.settings["cap"]
        if cap is None:
            return ""
        size = self.table.index.names[1]
        text = (
            f"At {cap['size']:.3g} {cap['cause']} cuts {core.format_percent(cap['share'])} of the "
            f"decisions on the first path, to {cap['leverage']:.2f}x on average"
        )
        if math.isnan(cap["binds_from"]):
            return f" {text}."
        return (
            f" {text}: {cap['cause']} binds from a {size} of about {cap['binds_from']:.2g} on, "
            "and a larger one changes little."
        )

    def find_best(self, source: str) -> float:
        """Return the leverage, or factor, at which the median account of a source grows most."""
        best: Any = self.best.loc[source, "size"]
        return float(best)

    @property
    def details(self) -> str:
        past = "History's accounts are new at opens a horizon apart."
        if HISTORY not in self.table.index.get_level_values(0):
            past = f"History has no row: it is no longer than {self.settings['horizon']}."
        sources = list(dict.fromkeys(self.table.index.get_level_values(0)))
        others = [f"{self.find_best(name):.3g} on {name}" for name in sources[1:]]
        return (
            f"Its best is {', '.join(others)}.{self._write_cap()} The drift is an assumption: "
            "without one, the median only falls with leverage, and that of history is mostly "
            f"noise. {past}"
        )

    def list_parts(self) -> list[Part]:
        size = str(self.table.index.names[1])
        low, high = r.name_interval("p_liquidation")
        heads = {
            "growth": Head("median log growth", "per year", "growth"),
            low: Head("95 % interval", "", "chance", high),
            "accounts": Head("accounts", "", "count"),
        }
        best = {
            "size": Head(size, "highest growth", "decimals"),
            "size_error": Head("± its error", "", "decimals"),
            "growth": Head("median log growth", "per year", "growth"),
            "growth_error": Head("± its error", "", "growth"),
            "wiped_out": Head("wiped out", "of accounts", "chance"),
            "is_at_end": Head("at the end of the grid", "", "claim"),
        }
        return [
            Part(
                key="frontier",
                title="Growth and risk",
                lead="All leverages see the same paths.",
                blocks=(
                    *self._chart_growth(size),
                    ShownTable(
                        self.best,
                        "Highest median growth",
                        labels=Head("source"),
                        heads=best,
                    ),
                    ShownTable(self.table, labels=Head("source"), heads=heads),
                ),
                shows="both",
            )
        ]

    def _chart_growth(self, size: str) -> tuple[ShownChart, ...]:
        """Draw growth by the probability of liquidation, and by size, a color per source.

        Where all drawn accounts have the same probability, growth by size says everything.
        """
        sources = self.table.index.get_level_values("source")
        names = list(dict.fromkeys(sources))
        colors = dict(zip(names, ("accent", "neutral", "ink"), strict=False))
        growth = self.table["growth"]
        growth = growth.where(growth >= -1.0)
        left_out = "Growth under -100 % a year is not drawn."

        by_size = ShownChart(
            key="size",
            title=f"Median log growth a year by {size}",
            caption=left_out,
            table=growth.unstack(0)[names].dropna(how="all"),
            kind="points",
            colors=colors,
            x=size,
            percent="y",
            has_legend=True,
        )
        probability = self.table["p_liquidation"]
        if probability[growth.notna()].nunique() < 2:
            return (by_size,)

        of_source = {}
        for name in names:
            of_source[name] = growth.where(sources == name).to_numpy()
        by_risk = ShownChart(
            key="risk",
            title="Median log growth a year by probability of liquidation",
            caption=left_out,
            table=pd.DataFrame(of_source, pd.Index(probability, name="p_liquidation")),
            kind="cloud",
            colors=colors,
            x="probability of liquidation",
            y="log growth",
            percent="xy",
            has_legend=True,
            height=380,
        )
        return by_risk, by_size


class Outcomes(NamedTuple):
    """What became of the accounts of one size, each of shape (n,): log growth per year, events."""

    growth: core.FloatArray
    is_liquidated: core.BoolArray
    is_ruined: core.BoolArray

    @property
    def median(self) -> float:
        return float(np.median(self.growth))


GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
REFINED = 12
"""Evaluations of the golden section, which narrow the gap to .618^11 = .5 % of it."""
RESAMPLED = 200
"""Bootstrap samples of the accounts behind a standard error."""


def refine_best(
    known: dict[float, Outcomes],
    simulate: Callable[[float], Outcomes],
) -> None:
    """Add sizes between the neighbors of the best one, by the golden section of its log.

    Writes the outcomes of the sizes that it tries into ``known``, whose best is the answer.
    """
    sizes = sorted(known)
    medians = [known[size].median for size in sizes]
    best = max(range(len(sizes)), key=medians.__getitem__)
    last = len(sizes) - 1
    low = math.log(sizes[max(best - 1, 0)])
    high = math.log(sizes[min(best + 1, last)])
    if not high > low:
        return

    def measure_at(log: float) -> float:
        """Return the growth of the median account at the log of a size."""
        size = math.exp(log)
        if size not in known:
            known[size] = simulate(size)
        return known[size].median

    # Two points inside the gap; the worse one becomes its end, the better one stays inside.
    inner = high - GOLDEN * (high - low)
    outer = low + GOLDEN * (high - low)
    at_inner = measure_at(inner)
    at_outer = measure_at(outer)

    for _ in range(REFINED - 2):
        if at_inner >= at_outer:
            high = outer
            outer = inner
            at_outer = at_inner
            inner = high - GOLDEN * (high - low)
            at_inner = measure_at(inner)
        else:
            low = inner
            inner = outer
            at_inner = at_outer
            outer = low + GOLDEN * (high - low)
            at_outer = measure_at(outer)


def describe_best(
    known: Mapping[float, Outcomes],
    seed: int,
) -> dict[str, Any]:
    """Return the size whose median account grows most, and standard errors over the accounts.

    They are the deviations of its size, and of its growth, over bootstrap samples of the accounts,
    the same accounts at all sizes.
    """
    sizes = np.array(sorted(known))
    by_size = [known[size].growth for size in sizes.tolist()]
    growth = np.array(by_size)
    medians = np.median(growth, axis=1)
    best = int(np.argmax(medians))

    rng = np.random.default_rng(seed)
    n = growth.shape[1]
    drawn_sizes = np.empty(RESAMPLED)
    drawn_growth = np.empty(RESAMPLED)
    for k in range(RESAMPLED):
        chosen_accounts = rng.integers(0, n, n)
        drawn_medians = np.median(growth[:, chosen_accounts], axis=1)
        drawn_best = int(np.argmax(drawn_medians))
        drawn_sizes[k] = sizes[drawn_best]
        drawn_growth[k] = drawn_medians[best]

    growth_error = math.nan
    finite = drawn_growth[np.isfinite(drawn_growth)]
    if len(finite):
        growth_error = float(np.std(finite))
    best_size = float(sizes[best])
    chosen = known[best_size]
    return {
        "size": best_size,
        "size_error": float(np.std(drawn_sizes)),
        "growth": float(medians[best]),
        "growth_error": growth_error,
        "p_liquidation": float(np.mean(chosen.is_liquidated)),
        "wiped_out": float(np.mean(chosen.is_ruined)),
        "is_at_end": best in {0, len(sizes) - 1},
    }


@core.record_making
@core.checked_only("compile", "progress", "model")
def leverage_frontier(
    conditions: Conditions,
    policy: AnyPolicy | None = None,
    *,
    drift: Drift,
    horizon: str = "90d",
    model: str | path_models.PathModel | type[path_models.PathModel] = "filtered",
    paths: int = 2_000,
    seed: int = 0,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> LeverageFrontier:
    """Answer :meth:`backtest.Backtest.leverage_frontier`, which documents it.

    An account of each size of a grid is simulated on three sources: paths with the drift, the same
    paths without one, and history.
    """
    # The same seed, so that the two sets of paths differ in their drift alone.
    market = plain(conditions).market
    drawn = []
    for rate in (drift, 0.0):
        batch = simulate_paths(
            market,
            model,
            paths=paths,
            horizon=horizon,
            seed=seed,
            drift=rate,
        )
        drawn.append(batch)
    with_drift = drawn[0]
    sources = {name_source(batch): batch for batch in drawn}

    # Sizes are leverages of a position that is held, or factors of the policy's leverage.
    sizes = choose_grid(policy, conditions, with_drift).tolist()
    account = conditions.account
    capital = float(account.capital + account.reserve)
    terms = Terms(
        policy=policy,
        conditions=conditions,
        bars=r.read_horizons(with_drift, horizon)[horizon],
        years=core.parse_duration(horizon) / YEAR,
        capital=capital,
        compile=compile,
    )

    # Progress counts simulations: the grid on paths and on history, and on paths the sizes between
    # those of the grid, by which the best one is refined.
    n_grid = len(sizes) * (len(sources) + 1)
    total = n_grid + REFINED * len(sources)
    count = itertools.count(1)

    def report() -> None:
        core.report_progress(progress, min(next(count), total), total)

    # By source and size. History may be too short.
    outcomes: dict[str, dict[float, Outcomes]] = {}
    for source, batch in sources.items():
        outcomes[source] = run_on_paths(terms, batch, sizes, report)
    past = simulate_history(terms, with_drift, sizes, report)
    if past:
        outcomes[HISTORY] = past

    # The sizes of the grid are rows. Sizes between them, such as the best one, are not.
    rows: dict[tuple[str, float], dict[str, float]] = {}
    for source, of_sizes in outcomes.items():
        for size in sizes:
            if size in of_sizes:
                rows[source, size] = describe_outcomes(of_sizes[size])
    label = name_size(policy)
    index = pd.MultiIndex.from_tuples(rows, names=["source", label])
    table = pd.DataFrame(list(rows.values()), index=index)

    # The best size of each source is a row of its own table.
    described = {}
    for source, of_sizes in outcomes.items():
        described[source] = describe_best(of_sizes, seed)
    best = pd.DataFrame(described).T.rename_axis("source")
    types = dict.fromkeys(best, float) | {"is_at_end": bool}

    best = best.astype(types)
    settings = r.describe_terms(policy or "one position, held", conditions) | {
        "cap": describe_cap(terms, with_drift, size=float(best["size"].max())),
        "horizon": horizon,
        "drift": next(iter(sources)),
        "paths": with_drift.describe(),
    }
    return LeverageFrontier(
        table,
        best,
        settings=settings,
        market=conditions.market,
    )


class Terms(NamedTuple):
    """What all accounts of a frontier have in common; ``bars`` and ``years`` are the horizon."""

    policy: AnyPolicy | None
    conditions: Conditions
    bars: int
    years: float
    capital: float
    compile: bool

    def begin(self, paths: Paths, size: float) -> PathsRunner:
        """Return what runs accounts of a size; others of it have what does not depend on size."""
        return PathsRunner(
            paths,
            scale_policy(self.policy, size),
            self.conditions,
            compile=self.compile,
        )

    def read(
        self,
        wealth: Any,
        is_liquidated: Any,
        is_ruined: Any,
    ) -> Outcomes:
        """Return the outcomes of accounts by their wealth at the end."""
        with np.errstate(divide="ignore"):
            multiples = np.maximum(wealth, 0.0) / self.capital
            growth = np.log(multiples) / self.years
        return Outcomes(
            growth,
            np.asarray(is_liquidated),
            np.asarray(is_ruined),
        )


def describe_cap(terms: Terms, paths: Paths, size: float) -> dict[str, Any] | None:
    """Return the limit that cuts most decisions of an account of a size, on the first path.

    With ``binds_from``, the size from which it binds, about. None without such a limit, and for one
    position that is held: its grid ends at what venue and account allow.
    """
    if terms.policy is None:
        return None
    result = terms.begin(paths, size).run_path(0)
    cap = find_cap(result)
    if cap is None:
        return None
    binds_from = min(find_binding_factor(cap, result), 1.0) * size
    return {**cap._asdict(), "size": size, "binds_from": binds_from}


def name_source(paths: Paths) -> str:
    """Return the words for paths with their drift."""
    drift = describe_drift(paths.describe()).partition(";")[0]
    if drift == "no drift":
        return "paths without drift"
    return f"paths with {drift}"


def describe_outcomes(outcomes: Outcomes) -> dict[str, float]:
    """Return a row of the table."""
    n = len(outcomes.growth)
    hits = int(outcomes.is_liquidated.sum())
    share = r.describe_share("p_liquidation", hits, n)
    return {"growth": outcomes.median, **share, "accounts": n}


def run_on_paths(
    terms: Terms,
    paths: Paths,
    sizes: list[float],
    report: Callable[[], None],
) -> dict[float, Outcomes]:
    """Return the outcomes of sizes on paths, and of those between that refine the best one."""
    first = terms.begin(paths, sizes[0])
    bars = terms.bars

    def simulate(size: float) -> Outcomes:
        runner = first.with_policy(scale_policy(terms.policy, size))
        chunks = [*runner.run_chunks()]
        report()

        wealth = []
        hits = []
        is_ruined = []
        for chunk in chunks:
            wealth.append(chunk.wealth[:, bars - 1])
            hits.append(r.find_first(chunk.liquidations[:, :bars]) < bars)
            is_ruined.append(chunk.is_ruined[:, bars - 1] != 0.0)
        return terms.read(
            np.concatenate(wealth),
            np.concatenate(hits),
            np.concatenate(is_ruined),
        )

    outcomes = {size: simulate(size) for size in sizes}
    refine_best(outcomes, simulate)
    return outcomes


def simulate_history(
    terms: Terms,
    paths: Paths,
    sizes: list[float],
    report: Callable[[], None],
) -> dict[float, Outcomes]:
    """Return the outcomes of sizes in history, of accounts that have no bar in common.

    Each account is new, and lives as long as the horizon. Empty if history is too short.
    """
    # The bars after which accounts begin, the length of the horizon apart.
    last_start = paths.markets.n_bars - terms.bars
    starts = np.arange(0, last_start, terms.bars)

    outcomes: dict[float, Outcomes] = {}
    runner_of_first = terms.begin(paths, sizes[0])
    for size in sizes:
        runner = runner_of_first.with_policy(scale_policy(terms.policy, size))

        # Columns of the policy must be known.
        starts = starts[starts >= runner.warm_up.known]
        if not len(starts):
            continue

        # Rows of an account by bar; its first bar is the one that it begins after.
        wealth = []
        is_liquidated = []
        is_ruined = []
        for _, rows in runner.simulate_starts(starts, terms.bars + 1):
            wealth.append(rows[engine.WEALTH, -1])
            is_liquidated.append(rows[engine.LIQUIDATED, 1:].any())
            is_ruined.append(rows[engine.RUINED, -1] != 0.0)
        outcomes[size] = terms.read(np.array(wealth), is_liquidated, is_ruined)
        report()
    return outcomes

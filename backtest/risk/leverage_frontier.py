"""leverage_frontier(): growth of the median account against the probability of liquidation."""

from __future__ import annotations

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
from backtest.risk.leverage_sizes import choose_grid, scale_policy
from backtest.risk.leverage_trials import HISTORY
from backtest.risk.path_drift import Drift, describe_drift
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import simulate_paths

YEAR = YEAR_DAYS * DAY


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
        return f"How much leverage: {self.note}, within {self.settings['horizon']}"

    @property
    def note(self) -> str:
        return f"{self.settings['drift']}, and none beside it"

    @property
    def verdict(self) -> str:
        source, size = self.best.index[0], self.table.index.names[1]
        row: Any = self.best.iloc[0]
        chance, lost = (core.format_chance(float(row[x])) for x in ("p_liquidation", "wiped_out"))
        error = f" ± {row['size_error']:.2g}" if row["size_error"] > 0.0 else ""
        end = ", the end of those tried," if row["is_at_end"] else ""
        return (
            f"The median account grows most at a {size} of {row['size']:.3g}{error}{end} on "
            f"{source}; {lost} are wiped out, and {chance} of accounts are liquidated there."
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
            f"It grows most at {', '.join(others)}. The drift is an assumption: without one, the "
            f"median only falls with leverage, and that of history is mostly noise. {past}"
        )

    def list_parts(self) -> list[Part]:
        flat = self.table.reset_index()
        sources, size = list(dict.fromkeys(flat["source"])), self.table.index.names[1]
        colors = dict(zip(sources, ("accent", "neutral", "ink"), strict=False))
        growth = self.table["growth"].replace(-np.inf, np.nan)
        risk = pd.DataFrame({name: growth.where(flat["source"].to_numpy() == name).to_numpy()
                             for name in sources}, flat["p_liquidation"])  # fmt: skip
        by_size = growth.where(growth >= -1.0).unstack(0)[sources].dropna(how="all")
        caption = "Growth under -100 % a year is not drawn."
        low, high = r.name_interval("p_liquidation")
        heads = {
            "growth": Head("median log growth", "per year", "growth"),
            low: Head("95 % interval", "", "chance", high),
            "accounts": Head("accounts", "", "count"),
        }
        best = {
            "size": Head(str(size), "highest growth", "decimals"),
            "size_error": Head("± its error", "", "decimals"),
            "growth": Head("median log growth", "per year", "growth"),
            "growth_error": Head("± its error", "", "growth"),
            "wiped_out": Head("wiped out", "of accounts", "chance"),
            "is_at_end": Head("at the end of the grid", "", "claim"),
        }
        return [Part("frontier", "Growth and risk", "All leverages see the same paths.", (
            ShownChart("risk", "Median log growth a year by probability of liquidation", "",
                       risk, "cloud", colors, "probability of liquidation", "log growth",
                       percent="xy", has_legend=True, height=380),
            ShownChart("size", f"Median log growth a year by {size}", caption, by_size, "points",
                       colors, str(size), percent="y", has_legend=True),
            ShownTable(self.best, "Highest median growth", labels=Head("source"), heads=best),
            ShownTable(self.table, labels=Head("source"), heads=heads),
        ), shows="both")]  # fmt: skip


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


def refine_best(known: dict[float, Outcomes], simulate: Callable[[float], Outcomes]) -> None:
    """Add sizes between the neighbors of the best one, by the golden section of its log."""
    sizes = sorted(known)
    place = max(range(len(sizes)), key=lambda k: known[sizes[k]].median)
    low = math.log(sizes[max(place - 1, 0)])
    high = math.log(sizes[min(place + 1, len(sizes) - 1)])
    if not high > low:
        return

    def measure_at(log: float) -> float:
        size = math.exp(log)
        if size not in known:
            known[size] = simulate(size)
        return known[size].median

    inner = high - GOLDEN * (high - low)
    outer = low + GOLDEN * (high - low)
    at_inner, at_outer = measure_at(inner), measure_at(outer)
    for _ in range(REFINED - 2):
        if at_inner >= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - GOLDEN * (high - low)
            at_inner = measure_at(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + GOLDEN * (high - low)
            at_outer = measure_at(outer)


def describe_best(known: Mapping[float, Outcomes], seed: int) -> dict[str, Any]:
    """Return the size whose median account grows most, and standard errors over the accounts.

    They are the deviations of its size, and of its growth, over bootstrap samples of the accounts,
    the same accounts at all sizes.
    """
    sizes = np.array(sorted(known))
    growth = np.array([known[size].growth for size in sizes.tolist()])
    medians = np.median(growth, axis=1)
    best = int(np.argmax(medians))
    rng, n = np.random.default_rng(seed), growth.shape[1]
    drawn_sizes, drawn_growth = np.empty((2, RESAMPLED))
    for k in range(RESAMPLED):
        again = np.median(growth[:, rng.integers(0, n, n)], axis=1)
        drawn_sizes[k] = sizes[int(np.argmax(again))]
        drawn_growth[k] = again[best]
    finite = drawn_growth[np.isfinite(drawn_growth)]
    chosen = known[float(sizes[best])]
    return {
        "size": float(sizes[best]),
        "size_error": float(np.std(drawn_sizes)),
        "growth": float(medians[best]),
        "growth_error": float(np.std(finite)) if len(finite) else math.nan,
        "p_liquidation": float(np.mean(chosen.is_liquidated)),
        "wiped_out": float(np.mean(chosen.is_ruined)),
        "is_at_end": best in {0, len(sizes) - 1},
    }


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
    """Answer :meth:`backtest.Backtest.leverage_frontier`, which documents it."""
    how: Any = {"paths": paths, "horizon": horizon, "seed": seed}
    drawn = [simulate_paths(plain(conditions).market, model, **how, drift=x) for x in (drift, 0.0)]
    sizes = choose_grid(policy, conditions, drawn[0])
    bars = r.read_horizons(drawn[0], horizon)[horizon]
    years = core.parse_duration(horizon) / YEAR
    begun = float(conditions.account.capital + conditions.account.reserve)
    told = [describe_drift(each.describe()).partition(";")[0] for each in drawn]
    named = {
        "paths without drift" if x == "no drift" else f"paths with {x}": each
        for x, each in zip(told, drawn, strict=True)
    }
    rows: dict[tuple[str, float], dict[str, float]] = {}
    found: dict[str, dict[float, Outcomes]] = {}
    total = len(sizes) * (len(named) + 1) + REFINED * len(named)

    def report() -> None:
        core.report_progress(progress, min(sum(map(len, found.values())), total), total)

    def read(wealth: Any, is_hit: Any, is_ruined: Any) -> Outcomes:
        with np.errstate(divide="ignore"):
            growth = np.log(np.maximum(wealth, 0.0) / begun) / years
        return Outcomes(growth, np.asarray(is_hit), np.asarray(is_ruined))

    def add(source: str, size: float, known: Outcomes) -> None:
        n = len(known.growth)
        share = r.describe_share("p_liquidation", int(known.is_liquidated.sum()), n)
        rows[source, size] = {"growth": known.median, **share, "accounts": n}

    for source, each in named.items():
        known = found[source] = {}
        first = PathsRunner(each, scale_policy(policy, sizes[0]), conditions, compile=compile)

        def simulate(size: float, first: PathsRunner = first) -> Outcomes:
            runner = first.with_policy(scale_policy(policy, size))
            lives = [*runner.run_chunks()]
            report()
            return read(
                np.concatenate([x.wealth[:, bars - 1] for x in lives]),
                np.concatenate([r.find_first(x.liquidations[:, :bars]) < bars for x in lives]),
                np.concatenate([x.is_ruined[:, bars - 1] != 0.0 for x in lives]),
            )

        for size in sizes.tolist():
            known[size] = simulate(size)
            add(source, size, known[size])
        refine_best(known, simulate)
    begins = np.arange(0, drawn[0].markets.n_bars - bars, bars)  # no bar is in two accounts
    first = PathsRunner(drawn[0], scale_policy(policy, sizes[0]), conditions, compile=compile)
    for size in sizes.tolist() if len(begins) else ():
        runner = first.with_policy(scale_policy(policy, size))
        begins = begins[begins >= runner.warm_up.known]
        if not len(begins):
            continue
        past = [
            (life[engine.WEALTH, -1], life[engine.LIQUIDATED, 1:].any(), life[engine.RUINED, -1])
            for _, life in runner.live_past(begins, bars + 1)
        ]
        wealth, is_hit, is_ruined = map(np.array, zip(*past, strict=True))
        found.setdefault(HISTORY, {})[size] = read(wealth, is_hit, is_ruined != 0.0)
        add(HISTORY, size, found[HISTORY][size])
        report()
    label = "leverage" if policy is None else "factor"
    index = pd.MultiIndex.from_tuples(rows, names=["source", label])
    settings = r.describe_terms(policy or "one position, held", conditions) | {
        "horizon": horizon, "drift": next(iter(named)), "paths": drawn[0].describe(),
    }  # fmt: skip
    table = pd.DataFrame(list(rows.values()), index=index)
    best = pd.DataFrame(
        {source: describe_best(known, seed) for source, known in found.items()}
    ).T.rename_axis("source")
    best = best.astype({name: bool if name == "is_at_end" else float for name in best})
    return LeverageFrontier(table, best, settings=settings, market=conditions.market)

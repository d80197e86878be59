"""What sweeps and studies declare: the best sets, where they lie, and their selection bias."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import STYLES, Head
from backtest.core.result_parts import (
    Headline,
    Part,
    Shown,
    ShownChart,
    ShownExplorer,
    ShownTable,
)
from backtest.engine import count_unfilled
from backtest.report.explorer import describe_sets
from backtest.report.page import format_measure, format_span, list_heads
from backtest.report.write import draw_chart
from backtest.results import (
    count_cautions,
    find_cautions,
    find_far_bounds,
    name_measure,
    read_constraints,
)
from backtest.results.measure_table import ABOUT
from backtest.results.ranking import order_sets, read_objective
from backtest.results.run_record import EXTRAPOLATED, describe_short, shows_growth
from backtest.search import GrowthTest, Study
from backtest.search.equal_risk import CONSTANT
from backtest.search.growth_test import OWN
from backtest.search.signal_shifts import SignalTest
from backtest.sweep import Sweep, find_failed

NO_HOLDOUT = (
    "A sweep has no holdout: its best set is chosen and measured on the same prices. "
    "backtest tune estimates its selection bias."
)
TOP, LISTED = 10, 500
WORTH_A_FOREST = 500
"""Least trials of a study whose page shows the importance of parameters."""
SHOWN = ("sharpe", "total_return", "max_drawdown", "turnover", "liquidations")

NEAR = 0.1
"""Largest distance of neighbors, as a fraction of a parameter's range, or one grid step."""
TIED = 1e-9


HARDLY = 0.1
"""Mean leverage under which an account is hardly invested."""

MAX_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""

BINS = 24


def is_numeric(column: pd.Series) -> bool:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return is_number and not column.isna().any()


def read_axis(column: pd.Series, is_log: bool) -> tuple[core.IntArray, list[str]]:
    """Return the cell of each set, and the name of each cell."""
    if not is_numeric(column):
        cells, names = pd.factorize(column.astype(object).fillna("none").astype(str), sort=True)
        return cells, [*names]
    numbers = column.to_numpy(dtype=np.float64)
    values = np.unique(numbers)
    if len(values) <= MAX_VALUES:
        return np.searchsorted(values, numbers), [f"{value:.6g}" for value in values]
    is_log = is_log and bool(values[0] > 0.0)
    numbers = np.log(numbers) if is_log else numbers
    edges = np.linspace(numbers.min(), numbers.max(), BINS + 1)
    cells = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, BINS - 1)
    edges = np.exp(edges) if is_log else edges
    return cells, [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]


class Explored(NamedTuple):
    """Sets of parameters and their outcomes, in arrays of shape (n_sets,)."""

    table: pd.DataFrame
    parameters: Mapping[str, Mapping[str, Any]]
    name: str
    values: core.FloatArray
    better: int
    order: core.IntArray
    is_ruined: core.BoolArray

    @property
    def near(self) -> core.BoolArray:
        return find_neighbors(self)

    @property
    def best(self) -> int:
        return int(self.order[0])

    @property
    def varied(self) -> list[str]:
        return [name for name in self.parameters if self.table[name].nunique(dropna=False) > 1]

    def name_best(self, names: list[str]) -> str:
        return ", ".join(f"{name} = {core.format_value(self.table[name].iloc[self.best])}"
                         for name in names)  # fmt: skip


def explore_sweep(sweep: Sweep, objective: Any = None) -> Explored:
    objective, metrics = objective or sweep.ranked_by, sweep.metrics
    order = sweep.rank(objective, sweep.ranked_where)
    if isinstance(objective, str) and objective in metrics:
        name, values, better = objective, metrics[objective], ABOUT[objective].better or 1
    else:
        score = read_objective(objective)
        name, values, better = score.name, score.score(metrics), 1
    ruined = np.nan_to_num(metrics["ruined"], nan=0.0) > 0.0
    return Explored(
        table=sweep.table,
        parameters=sweep.manifest["parameters"],
        name=name,
        values=np.where(ruined | find_failed(sweep.table), np.nan, values),
        better=better,
        order=order,
        is_ruined=ruined,
    )


def explore_study(study: Study) -> Explored:
    table = study.table
    name = study.objective
    ruins = np.nan_to_num(table["ruined"].to_numpy(), nan=0.0)
    scores, violations = table[["score", "violation"]].to_numpy(dtype=np.float64).T
    order = order_sets(scores, violations, ruins, table["ruin_time"].to_numpy(), find_failed(table))
    if study.best_trial >= 0:
        order = np.concatenate([[study.best_trial], order[order != study.best_trial]])
    dimensions = study.manifest["space"]["dimensions"]
    names = [own if (own := f"policy.{each['name']}") in table else each["name"]
             for each in dimensions]  # fmt: skip
    return Explored(
        table=table,
        parameters=dict(zip(names, ({"unit": "", **each} for each in dimensions), strict=True)),
        name=name,
        values=np.where(ruins > 0.0, np.nan, table[name] if name in ABOUT else scores),
        better=(ABOUT[name].better or 1) if name in ABOUT else 1,
        order=order.astype(np.int64),
        is_ruined=ruins > 0.0,
    )


def find_neighbors(explored: Explored) -> core.BoolArray:
    near = np.ones(len(explored.table), dtype=np.bool_)
    for name in explored.varied:
        column = explored.table[name]
        if is_numeric(column):
            place = column.to_numpy(dtype=np.float64)
            is_log = explored.parameters[name]["log"] and place.min() > 0.0
            place = np.clip(np.log(place) if is_log else place, -1e300, 1e300)
        else:
            place = read_axis(column, is_log=False)[0].astype(np.float64)
        place = (place - place.min()) / (float(np.ptp(place)) or 1.0)
        distance = np.abs(place - place[explored.best])
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            near &= distance <= TIED
            continue
        steps = np.diff(np.unique(place))
        reach = max(NEAR, float(np.min(steps[steps > TIED], initial=1.0))) if len(steps) else NEAR
        near &= distance <= reach + TIED
    near[explored.best] = False
    return near


def write_sweep_verdict(sweep: Sweep) -> str:
    explored = explore_sweep(sweep)
    near, values = find_neighbors(explored), explored.name_best(explored.varied)
    beside = "No other set is near it."
    if np.isfinite(explored.values[near]).any():
        median = format_explored(explored, find_median(explored.values[near]))
        beside = f"The {near.sum():,} near it have a median of {median}."
    pool = sweep.manifest.get("pool")
    of = f" ({pool} of {len(sweep.manifest['data']['instruments'])} markets)" if pool else ""
    return (
        f"The best {name_measure(explored.name)}{of} of {sweep.note} is "
        f"{format_explored(explored, explored.values[explored.best])}, with {values}. {beside}"
    )


def list_sweep_numbers(sweep: Sweep) -> list[Headline]:
    explored = explore_sweep(sweep)
    near = find_neighbors(explored)
    best, what = float(explored.values[explored.best]), name_measure(explored.name)
    failed = find_failed(sweep.table).sum()
    fates = f"{explored.is_ruined.sum():,} ruined, {failed:,} failed"
    median, beside = find_median(explored.values), find_median(explored.values[near])
    rows = [
        (explored.name, f"Best {what}", best, "by its own score"),
        ("near", "Near it", beside, f"median of {near.sum():,}"),
        ("all", "All parameter sets", median, f"median of {len(explored.table):,}"),
    ]
    return [
        *(Headline(name, title, value, note=note, text=format_explored(explored, value))
          for name, title, value, note in rows),
        Headline("ruined", "Ruined", float(explored.is_ruined.mean()), "percent", fates),
    ]  # fmt: skip


def list_sweep_notices(sweep: Sweep) -> Iterator[str]:
    explored = explore_sweep(sweep)
    if not sweep.complete:
        asked = sweep.manifest["sets"]["asked"]
        yield f"Interrupted: {len(sweep.table):,} of {asked:,} parameter sets were run."
    if explored.is_ruined[explored.best]:
        yield "Every set was ruined; the best set is the one that survived longest."
    if unfilled := count_unfilled(sweep.metrics):
        cure = "run one of them to see why"
        yield f"{unfilled:,} of {len(sweep.table):,} parameter sets filled no order; {cure}."
    for text in find_far_bounds(read_constraints(sweep.ranked_where), sweep.metrics):
        yield f"{core.capitalize(text)}."
    if cold := sweep.manifest.get("warm_up"):
        yield f"{core.capitalize(cold)}."
    if caution := count_cautions(read_rows(explored, TOP)):
        yield f"{core.capitalize(caution)}: see their notes."


def list_sweep_parts(sweep: Sweep) -> list[Part]:
    explored = explore_sweep(sweep)
    lead = f"Ranked by {name_measure(explored.name)}; ruined sets come last."
    best = Part("best", "Best parameter sets", lead, lambda: [tabulate_sets(explored, TOP)], "both")
    return [*list_landscape(explored, sweep.curves, "sweep.table", best)]


def list_sweep_assumptions(sweep: Sweep) -> Iterator[str]:
    drawn, asked = sweep.manifest["drawn"], sweep.manifest["sets"]["asked"]
    how = f"drawn by Sobol's sequence, seed {drawn['seed']}" if drawn else "given"
    yield f"{asked:,} parameter sets were {how}; {len(sweep.table):,} were run."
    if taken := sweep.manifest.get("simulated"):
        yield taken
    yield NO_HOLDOUT


def list_landscape(
    explored: Explored, curves: pd.DataFrame | None, whole: str, *first: Part
) -> list[Part]:
    """Return the map of the sets, the parts that are given, the plateau and all sets."""
    total = len(explored.table)
    note = f"The best {LISTED} of {total:,}: all are in {whole}." if total > LISTED else ""
    lead = (
        "Choose what the axes and the colors show. Click a set, or walk to it by the arrow keys: "
        "its equity stands beside that of the best set and of constant leverage."
    )
    return [
        Part("map", "Where the best lie", lead, lambda: [show_explorer(explored, curves)]),
        *first,
        Part("plateau", "The plateau around the best", "Whether the best set is one of many "
             "good ones, or isolated.", lambda: [tabulate_plateau(explored)], "both"),
        Part("sets", "All parameter sets", "Search by any word or number.",
             lambda: [tabulate_sets(explored, LISTED)._replace(is_searched=True, note=note)],
             is_folded=True),
    ]  # fmt: skip


def show_explorer(explored: Explored, curves: pd.DataFrame | None) -> ShownExplorer:
    text = (
        "Best, neighbors and default are marked; ruined sets are hatched. Neighbors differ from "
        "the best by at most a tenth of the range, or one step of the grid, in every parameter. A "
        "wide area of good sets can be relied on more than a speck."
    )
    return ShownExplorer("map", "Map", text, describe_sets(explored, curves))


def draw_sweep_map(sweep: Sweep, x: str, y: str, metric: str) -> Any:
    return draw_chart(draw_map(explore_sweep(sweep, metric), x, y))


def draw_study_map(study: Study) -> Any:
    explored = explore_study(study)
    pair = explored.varied[:2]
    return draw_chart(draw_map(explored, *pair) if len(pair) == 2 else ShownChart("", "", "", None))


def draw_map(explored: Explored, x: str, y: str) -> ShownChart:
    (across, heads), (along, labels) = (
        read_axis(explored.table[each], explored.parameters[each]["log"]) for each in (x, y)
    )
    place = along * len(heads) + across
    share = pd.Series(explored.is_ruined).groupby(place).mean()
    median = pd.Series(explored.values).groupby(place).median().where(share < 0.5)
    words = [(one, other) for other in labels for one in heads]
    index = pd.MultiIndex.from_tuples(words, names=[x, y])
    what = name_measure(explored.name)
    table = pd.DataFrame({what: median.reindex(range(len(words))).to_numpy()}, index=index)
    caption = (
        f"Median {what} of the sets in each cell, over all other parameters; cells that are mostly "
        f"ruined are blank. The best set has {explored.name_best([x, y])}. A wide area can be "
        "relied on more than a speck."
    )
    color = "accent" if explored.better > 0 else "loss"
    return ShownChart(f"map-{x}-{y}", f"{what} by {x} and {y}", caption, table, "heat",
                      colors={what: color}, size="narrow", height=400)  # fmt: skip


def tabulate_plateau(explored: Explored) -> ShownTable:
    near = find_neighbors(explored)
    if not near.any():
        empty = "No other set is near the best: whether it is a plateau or a spike is unknown."
        return ShownTable({}, empty=empty)
    words, rows = ("lowest", "10 %", "median", "90 %", "highest"), {}
    for name, chosen in {"its neighbors": near, "all": np.ones(len(near), np.bool_)}.items():
        values = explored.values[chosen]
        known = values[np.isfinite(values)]
        levels = np.quantile(known, (0.0, 0.1, 0.5, 0.9, 1.0)) if len(known) else [math.nan] * 5
        rows[name] = {
            "sets": f"{chosen.sum():,}",
            **dict(zip(words, (format_explored(explored, x) for x in levels), strict=True)),
            "ruined": core.format_percent(float(explored.is_ruined[chosen].mean())),
        }
    note = (
        "Neighbors differ from the best by at most a tenth of the range covered, or one step of "
        "the grid, in every parameter. A best far above them sits on a spike: it may be chance."
    )
    heads = list_heads("decimals", ("sets", *words, "ruined"), "")
    caption = f"{name_measure(explored.name)} around the best"
    return ShownTable(rows, caption, note, Head("sets"), heads)


def tabulate_sets(explored: Explored, count: int) -> ShownTable:
    chosen = explored.table.iloc[explored.order[:count]]
    measures = [name for name in dict.fromkeys((explored.name, *SHOWN)) if name in chosen]
    names = explored.varied or list(explored.parameters)
    table = pd.DataFrame({
        **{name: list(map(core.format_value, chosen[name].tolist())) for name in names},
        **{name: [format_measure(name, float(x)) if name in ABOUT else core.format_number(float(x))
                  for x in chosen[name].tolist()] for name in measures},
    })  # fmt: skip
    notes = [find_cautions(row) for row in read_rows(explored, count)]
    if any(notes):
        table["note"] = notes
    table.index = pd.Index([f"{place:,}" for place in range(1, len(chosen) + 1)])
    heads = {name: Head(name, str(explored.parameters[name]["unit"]),
                        "decimals" if explored.table[name].dtype.kind in "fiu" else "number")
             for name in names}  # fmt: skip
    heads |= {name: Head(name_measure(name), "", "decimals") for name in measures}
    return ShownTable(table, "Best parameter sets", "", Head("rank"), heads, most=LISTED)


def read_rows(explored: Explored, count: int) -> list[dict[Any, float]]:
    names = [x for x in ("ruined", "ruin_time", "cagr", "max_drawdown") if x in explored.table]
    return explored.table[names].iloc[explored.order[:count]].to_dict("records")


def find_median(values: core.FloatArray) -> float:
    return float(pd.Series(values[np.isfinite(values)]).median())


def format_explored(explored: Explored, value: float) -> str:
    if explored.name in ABOUT:
        return format_measure(explored.name, float(value))
    return core.format_number(float(value))


COMPARED = (
    "total_return", "cagr", "volatility", "sharpe", "max_drawdown", "calmar", "turnover",
    "liquidations",
)  # fmt: skip


def write_study_title(study: Study) -> str:
    sets = core.count_nouns(study.trials, "parameter set")
    return f"{study.policy_name}: {sets} searched for the best {name_measure(study.objective)}"


def write_study_details(study: Study) -> str:
    if study.best_trial < 0:
        return ""
    remarks = " ".join(map(core.capitalize, study.list_remarks()))
    explored, verdict = explore_study(study), study.verdict
    values = ", ".join(f"{x} = {core.format_value(each)}" for x, each in study.best_values.items())
    found = format_explored(explored, explored.values[study.best_trial])
    text = (
        f"The best of {study.trials:,} parameter sets is {values}, with a "
        f"{name_measure(explored.name)} of {found} in the search."
    )
    if verdict is not None and not math.isnan(verdict.holdout_score):
        text += f" On the holdout, outside the search, it is {format_holdout(study)}."
    data, searched = study.manifest["data"], study.manifest["searched"]
    parts = {
        " of the search": (data["start"], searched),
        " on the holdout": (searched, data["end"]),
    }
    text += "".join(f" {describe_short(*span, of)}".rstrip() for of, span in parts.items())
    if kept := name_constraints(study.manifest):
        text += f" Subject to {kept}."
    if pool := study.manifest.get("pool"):
        count = len(study.manifest["data"]["instruments"])
        text += f" Accounts: one in each of {count} markets; measures are their {pool}."
    return f"{remarks} {text}".lstrip()


def list_study_notices(study: Study) -> Iterator[str]:
    if not study.complete:
        more = "; it can be resumed" if study.folder is not None else "; nothing of it is stored"
        yield f"UNFINISHED: the best so far, by its own score{more}."
    if study.trials and study.best_trial < 0:
        yield "No parameter set can be chosen."
    elif study.trials and (idle := describe_idle(study)):
        yield idle
    if study.best_trial >= 0 and (cautions := find_cautions(study.table.iloc[study.best_trial])):
        yield f"The chosen set has {cautions} in the search."
    if study.trials and (unfilled := study.count_unfilled()):
        yield f"{unfilled:,} of {study.trials:,} parameter sets filled no order."
    names = tuple(f"{each['name']} =" for each in study.manifest["space"]["dimensions"])
    for text in study.warnings:
        yield f"{text if text.startswith(names) else core.capitalize(text)}."


def describe_idle(study: Study) -> str:
    """Return that the best trial was hardly invested, empty if it was."""
    held = measure_held(study)
    if not held < HARDLY:
        return ""
    return (
        f"Hardly invested: the best trial held a mean leverage of {held:.3f}x in the search. Its "
        f"ratios are those of an account that is mostly cash."
    )


def name_constraints(facts: Mapping[str, Any]) -> str:
    return ", ".join(facts["constraints"]).replace("ruined == 0", "no ruin")


def list_study_assumptions(study: Study) -> tuple[str, ...]:
    facts = study.manifest
    kept = f"the rest ({facts['holdout']}) is the holdout" if facts["holdout"] else "no holdout"
    searched = format_span({**facts["data"], "end": facts["searched"]})
    trials, seconds = facts["trials"], facts["seconds"]
    limits = [f"{trials:,} trials"] if trials is not None else []
    limits += [f"{seconds:g} s"] if seconds is not None else []
    limits += [f"{facts['patience']:,} without a gain"] if "patience" in facts else []
    how = "plateaus before spikes" if facts["robust"] else "the highest objective"
    return (
        f"Searched on {searched}; {kept}. Subject to {name_constraints(facts)}.",
        f"Sampler: {facts['sampler']} for {' or '.join(limits)} at most, seed {facts['seed']}; "
        f"{how}.",
    )


def list_study_numbers(study: Study) -> list[Headline]:
    if not study.trials or study.best_trial < 0:
        return [Headline("sets", "Sets", study.trials, "count", "none can be chosen")]
    explored, verdict = explore_study(study), study.verdict
    best = float(explored.values[study.best_trial])
    found = [Headline("best", f"Best {name_measure(explored.name)}", best, note="search",
                      text=format_explored(explored, best))]  # fmt: skip
    found.append(describe_held(study))
    if verdict is not None:
        found += [
            Headline("holdout", "On the holdout", verdict.holdout_score,
                     note=describe_looks(verdict.looks), text=format_holdout(study)),
            Headline("deflated_sharpe", "Deflated Sharpe ratio", verdict.deflated_sharpe,
                     "probability", "of the difference from constant leverage"),
            Headline("overfitting", "Overfitting", verdict.overfitting, "decimals",
                     "probability that the best is no better than the median"),
        ]  # fmt: skip
    return found


def measure_held(study: Study) -> float:
    """Return the mean leverage of the best trial in the search; NaN of an unfinished study."""
    lines = () if study.outcome is None else study.outcome.lines
    return float(lines[0][OWN]["mean_leverage"]) if lines else math.nan


def describe_held(study: Study) -> Headline:
    held = measure_held(study)
    note = "hardly invested" if held < HARDLY else "of the best trial, in the search"
    return Headline("mean_leverage", "Mean leverage", held, "turns", note)


def describe_looks(looks: int | None) -> str:
    if looks is None:
        return "accesses not counted: no store"
    if looks == 0:
        return "never accessed"
    return "accessed once" if looks == 1 else f"accessed {looks:,} times"


def format_holdout(study: Study) -> str:
    name, outcome = study.objective, study.outcome
    if outcome is not None and name in outcome.holdout:
        return format_measure(name, outcome.holdout[name])
    return core.format_number(math.nan if study.verdict is None else study.verdict.holdout_score)


def list_study_parts(study: Study) -> list[Part]:
    if not study.trials:
        return []
    explored = explore_study(study)
    luck = "What the best trial is worth, given the number of trials."
    parts = [
        Part("equity", "The best trial over time", "In the search, and after the line on the "
             "holdout, which was not searched.", lambda: [*draw_winner(study)]),
        Part("winner", "Best trial", "In the search, and where it was not searched.",
             lambda: list_winner(study), "both"),
        Part("verdict", "Selection bias", luck, lambda: list_luck(study), "both"),
    ]  # fmt: skip
    more = [
        Part("history", "History of the search", "Scores in the order of the trials.",
             lambda: [draw_history(study)], is_half=True),
    ]  # fmt: skip
    if study.trials >= WORTH_A_FOREST:
        share = "Share of the variance of the score over the declared ranges."
        more.append(
            Part("importance", "Which parameters matter", share, lambda: list_importance(study),
                 is_half=True)
        )  # fmt: skip
    return [*parts, *list_landscape(explored, study.curves, "study.table", *more)]


def draw_winner(study: Study) -> Iterator[ShownChart]:
    """Yield the equity of the best trial beside constant leverage, over search and holdout."""
    if study.curves is None:
        return
    names = [name for name in (OWN, CONSTANT) if name in study.curves]
    split = core.to_nanoseconds(study.manifest["searched"], "searched")
    ends = pd.DatetimeIndex(study.curves.index).as_unit("ns").asi8[[0, -1]]
    has_holdout = bool(ends[0] < split < ends[1])
    about = (
        "One unit of money. Constant leverage has the costs and the volatility of the best trial, "
        "in the search and on the holdout each; where none has it, there is no line."
    )
    yield ShownChart(
        "equity", "The best trial over time", about, study.curves[names], "accounts",
        {OWN: "accent", CONSTANT: "neutral"}, has_legend=True, height=400,
        lines=((split, "holdout"),) if has_holdout else (),
    )  # fmt: skip


def draw_history(study: Study) -> ShownChart:
    """Draw the scores of the trials in their order, and the best so far."""
    table = study.table
    score = table["score"].to_numpy(dtype=np.float64)
    is_feasible = (table["violation"].to_numpy() == 0.0) & np.isfinite(score)
    known = np.where(is_feasible, score, np.nan)
    best = np.fmax.accumulate(known) if len(known) else known
    left_out = int(np.sum(~is_feasible))
    about = "The line is the best so far; the lowest twentieth lies below the chart. "
    about += f"{left_out:,} of {len(score):,} trials are not drawn: "
    about += "they were ruined, failed, filled no order or break a constraint."
    name = name_measure(study.objective)
    drawn = pd.DataFrame({name: known, "best so far": best}, index=np.arange(1, len(score) + 1))
    return ShownChart("history", "History of the search", about, drawn, "history",
                      {name: "step_3", "best so far": "accent"}, "trial", name,
                      height=320)  # fmt: skip


def list_importance(study: Study) -> list[Shown]:
    try:
        table = study.importance()
    except core.ParameterError as error:  # scores do not differ
        return [f"{core.capitalize(str(error))}."]
    heads = {"share": Head("share", "of the variance", "percent"),
             "noise": Head("of permuted scores", "largest of 19", "percent"),
             "is_over_noise": Head("over it", "", "claim")}  # fmt: skip
    bars = 100.0 * table["share"].rename_axis(["parameters"])
    bars.index = pd.MultiIndex.from_product([bars.index, [1]])
    return [
        ShownChart("importance", "Importance", "% of the variance.", bars, "tornado"),
        ShownTable(table, labels=Head("parameters"), heads=heads),
    ]


def list_luck(study: Study) -> list[Shown]:
    verdict = study.verdict
    growth = GrowthTest() if verdict is None else verdict.growth
    if verdict is None or study.best_trial < 0:
        return ["No verdict: the study is unfinished, or no set can be chosen."]
    signal = verdict.signal or SignalTest()
    policies = ", ".join(verdict.other_policies)
    candidates = 0 if study.outcome is None else len(study.outcome.candidates)
    median = verdict.plain_plateau
    around = f"; the median of the neighbors there is {core.format_number(median)}"
    around *= math.isfinite(median)
    known = {
        "parameter sets tried": (verdict.trials, "count", "in this study"),
        "parameter sets tried elsewhere": (verdict.other_trials, "count", "in other "
                                           "searches of the store on some of the same bars"
                                           f"{': ' * bool(policies)}{policies}"),
        "log growth over constant leverage": (growth.difference, "percent", "a year, at "
                                              "equal risk, over search and holdout"),
        "p-value, adjusted": (growth.p_adjusted, "probability", "of that difference, for its "
                              f"{growth.trials:,.0f} independent differences"),
        "p-value of shifts in time": (signal.p_value, "probability", "share of "
                                      f"{signal.shifts:,} shifts whose best set is as good"),
        "independent trials": (verdict.effective_trials, "count",
                               "by how these differences correlate"),
        "expected maximum Sharpe": (verdict.lucky_sharpe, "decimals",
                                    "of that many trials under the null"),
        "deflated Sharpe ratio": (verdict.deflated_sharpe, "probability",
                                  "of the returns less those of constant leverage"),
        "probability of backtest overfitting (CSCV)": (
            verdict.overfitting, "decimals",
            "how often the best of one half of time was no better than the median in the other"),
        "objective of the chosen set": (verdict.score, "decimals", "its own"),
        "median of its neighbors": (verdict.plateau, "decimals", "near its own on a plateau"),
        "highest": (verdict.plain_score if candidates > 1 else math.nan,
                                     "decimals", f"objective of {candidates} candidates{around}"),
        "neighbors within constraints": (verdict.kept, "percent", ""),
        "objective on the holdout": (verdict.holdout_score, "decimals", "outside the search"),
    }  # fmt: skip
    rows = {
        name: {"value": STYLES[style](value), "what it is": words}
        for name, (value, style, words) in known.items()
        if math.isfinite(value) and (value or name != "parameter sets tried elsewhere")
    }
    return [ShownTable(rows, "Selection bias", heads={"value": Head("value", "", "decimals")})]


def find_short_parts(study: Study) -> dict[str, tuple[str, ...]]:
    """Return the measures that are not shown of the search, and of the holdout."""
    found = {}
    for where, days in zip(("search", "holdout"), study.days_of_parts, strict=True):
        names = () if shows_growth(days) else EXTRAPOLATED
        found[where] = tuple(name for name in names if name not in study.objective)
    return found


def list_winner(study: Study) -> list[Shown]:
    space, best = study.manifest["space"], study.best
    values, settings = study.best_values if best is not None else {}, {}
    for each in space["dimensions"]:
        if each["kind"] in ("float", "int"):
            span = f"{each['low']:g} to {each['high']:g}"
        else:
            span = ", ".join(map(str, each["options"]))
        settings[each["name"]] = {"value": core.format_value(values.get(each["name"])),
                                  "searched": span + ", log" * bool(each["log"])}  # fmt: skip
    settings |= {name: {"value": core.format_value(value), "searched": "fixed"}
                 for name, value in space.get("fixed", {}).items()}  # fmt: skip
    known: dict[str, Any] = {} if best is None else dict(best)
    outcome = study.outcome
    holdout, parts = ({}, ()) if outcome is None else (outcome.holdout, outcome.lines)
    found = pd.DataFrame({"search": known, "holdout": holdout} if holdout else {"search": known})
    words = [study.objective, *study.manifest["constraints"]]
    own = (word.removeprefix("-").partition(" ")[0] for word in words)
    names = [n for n in dict.fromkeys((*COMPARED, *own)) if n in ABOUT and n in known]
    measured = found.loc[names]
    hidden = find_short_parts(study)
    for where, of_part in hidden.items():
        if where in measured:
            measured.loc[[name for name in of_part if name in names], where] = math.nan
    lines = {
        f"{name}, {where}": {
            measure: math.nan if measure in hidden[where] else line.get(measure, math.nan)
            for measure in COMPARED[1:]
        }
        for where, each in zip(("search", "holdout"), parts, strict=False)
        for name, line in each.items()
    }
    fresh = "The account begins with fresh capital at the first bar of the holdout."
    note = (
        "Constant leverage has the signal, the costs and the volatility of the best trial; buy and "
        "hold is the unlevered market without costs."
    )
    lacks = () if outcome is None else outcome.lacks
    for where, lack in zip(("in the search", "on the holdout"), lacks, strict=False):
        if lack:
            note += f" There is no constant leverage {where}: {lack}."
    heads = list_heads("decimals", ("value", "search", "holdout"), "")
    return [
        ShownTable(settings if values else None, "Parameters of the best trial", "",
                   Head("parameter"), heads),
        ShownTable(measured if names else None,
                   "Best trial, search and holdout" if holdout else "Best trial",
                   fresh if holdout else "", Head("measure"), heads, has_measures=True),
        ShownTable(lines or None, "Against its benchmarks", note, Head("account"),
                   columns=COMPARED[1:]),
    ]  # fmt: skip

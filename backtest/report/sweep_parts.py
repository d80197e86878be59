"""What a sweep declares: its figures, sentences and parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from backtest import core
from backtest.core.result_parts import (
    Headline,
    Part,
)
from backtest.engine import count_unfilled
from backtest.report.explored_sets import (
    explore_sweep,
    find_median,
    find_neighbors,
    format_explored,
    read_rows,
)
from backtest.report.set_parts import TOP, draw_map, list_landscape, tabulate_sets
from backtest.report.write import draw_chart
from backtest.results import (
    count_cautions,
    find_far_bounds,
    name_measure,
    read_constraints,
)
from backtest.sweep import Sweep, find_failed

NO_HOLDOUT = (
    "A sweep has no holdout: its best set is chosen and measured on the same prices. "
    "backtest tune estimates its selection bias."
)


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


def draw_sweep_map(sweep: Sweep, x: str, y: str, metric: str) -> Any:
    return draw_chart(draw_map(explore_sweep(sweep, metric), x, y))

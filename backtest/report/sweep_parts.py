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
    near = find_neighbors(explored)
    around = "No other set is near it."
    if np.isfinite(explored.values[near]).any():
        median = format_explored(explored, find_median(explored.values[near]))
        around = f"The {near.sum():,} near it have a median of {median}."

    measure = name_measure(explored.name)
    pool = sweep.manifest.get("pool")
    if pool:
        n_markets = len(sweep.manifest["data"]["instruments"])
        measure = f"{measure} ({pool} of {n_markets} markets)"

    best = format_explored(explored, explored.values[explored.best])
    parameters = explored.name_best(explored.varied)
    return f"The best {measure} of {sweep.note} is {best}, with {parameters}. {around}"


def list_sweep_numbers(sweep: Sweep) -> list[Headline]:
    explored = explore_sweep(sweep)
    is_near = find_neighbors(explored)
    best = float(explored.values[explored.best])
    near = find_median(explored.values[is_near])
    median = find_median(explored.values)
    n_ruined = explored.is_ruined.sum()
    n_failed = find_failed(sweep.table).sum()

    return [
        Headline(
            name=explored.name,
            title=f"Best {name_measure(explored.name)}",
            value=best,
            note="by its own score",
            text=format_explored(explored, best),
        ),
        Headline(
            name="near",
            title="Near it",
            value=near,
            note=f"median of {is_near.sum():,}",
            text=format_explored(explored, near),
        ),
        Headline(
            name="all",
            title="All parameter sets",
            value=median,
            note=f"median of {len(explored.table):,}",
            text=format_explored(explored, median),
        ),
        Headline(
            name="ruined",
            title="Ruined",
            value=float(explored.is_ruined.mean()),
            style="percent",
            note=f"{n_ruined:,} ruined, {n_failed:,} failed",
        ),
    ]


def list_sweep_notices(sweep: Sweep) -> Iterator[str]:
    explored = explore_sweep(sweep)
    n_sets = len(sweep.table)
    if not sweep.complete:
        asked = sweep.manifest["sets"]["asked"]
        yield f"Interrupted: {n_sets:,} of {asked:,} parameter sets were run."
    if explored.is_ruined[explored.best]:
        yield "Every set was ruined; the best set is the one that survived longest."

    unfilled = count_unfilled(sweep.metrics)
    if unfilled:
        yield (
            f"{unfilled:,} of {n_sets:,} parameter sets filled no order; "
            "run one of them to see why."
        )
    for text in find_far_bounds(read_constraints(sweep.ranked_where), sweep.metrics):
        yield f"{core.capitalize(text)}."

    warm_up = sweep.manifest.get("warm_up")
    if warm_up:
        yield f"{core.capitalize(warm_up)}."
    cautions = count_cautions(read_rows(explored, TOP))
    if cautions:
        yield f"{core.capitalize(cautions)}: see their notes."


def list_sweep_parts(sweep: Sweep) -> list[Part]:
    explored = explore_sweep(sweep)
    best = Part(
        key="best",
        title="Best parameter sets",
        lead=f"Ranked by {name_measure(explored.name)}; ruined sets come last.",
        blocks=lambda: [tabulate_sets(explored, TOP)],
        shows="both",
    )
    return list_landscape(explored, sweep.curves, "sweep.table", best)


def list_sweep_assumptions(sweep: Sweep) -> Iterator[str]:
    drawn = sweep.manifest["drawn"]
    how = "given"
    if drawn:
        how = f"drawn by Sobol's sequence, seed {drawn['seed']}"
    asked = sweep.manifest["sets"]["asked"]
    yield f"{asked:,} parameter sets were {how}; {len(sweep.table):,} were run."

    simulated = sweep.manifest.get("simulated")
    if simulated:
        yield simulated
    yield NO_HOLDOUT


def draw_sweep_map(
    sweep: Sweep,
    x: str,
    y: str,
    metric: str,
) -> Any:
    """Return a figure whose table pages made of notebooks show."""
    from backtest.report.notebook_map import MapFigure  # noqa: PLC0415 - it loads Plotly

    return MapFigure(draw_chart(draw_map(explore_sweep(sweep, metric), x, y)))

"""Parts that sweeps and studies share: the map of the sets, the plateau, and lists of sets."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import Head
from backtest.core.result_parts import (
    Part,
    ShownChart,
    ShownExplorer,
    ShownTable,
)
from backtest.report.explored_sets import (
    Explored,
    find_neighbors,
    format_explored,
    read_axis,
    read_rows,
)
from backtest.report.explorer import describe_sets
from backtest.report.page import format_measure, list_heads
from backtest.results import (
    find_cautions,
    name_measure,
)
from backtest.results.measure_table import ABOUT

TOP = 10
"""Sets of the list of the best."""
LISTED = 500
"""Most sets of a page."""
SHOWN = ("sharpe", "total_return", "max_drawdown", "turnover", "liquidations")
"""Measures of a list of sets, beside the objective."""


def list_landscape(
    explored: Explored,
    curves: pd.DataFrame | None,
    whole: str,
    *first: Part,
) -> list[Part]:
    """Return the map of the sets, the parts that are given, the plateau and all sets."""
    return [
        Part(
            key="map",
            title="Where the best lie",
            lead=(
                "Choose what the axes and the colors show. Click a set, or walk to it by the "
                "arrow keys: its equity stands beside that of the best set and of constant "
                "leverage."
            ),
            blocks=lambda: [show_explorer(explored, curves)],
        ),
        *first,
        Part(
            key="plateau",
            title="The plateau around the best",
            lead="Whether the best set is one of many good ones, or isolated.",
            blocks=lambda: [tabulate_plateau(explored)],
            shows="both",
        ),
        Part(
            key="sets",
            title="All parameter sets",
            lead="Search by any word or number.",
            blocks=lambda: [tabulate_all_sets(explored, whole)],
            is_folded=True,
        ),
    ]


def show_explorer(explored: Explored, curves: pd.DataFrame | None) -> ShownExplorer:
    return ShownExplorer(
        key="map",
        title="Map",
        caption=(
            "Best, neighbors and default are marked; ruined sets are hatched. Neighbors differ "
            "from the best by at most a tenth of the range, or one step of the grid, in every "
            "parameter. A wide area of good sets can be relied on more than a speck."
        ),
        data=describe_sets(explored, curves),
    )


def draw_map(explored: Explored, x: str, y: str) -> ShownChart:
    """Return a map of the median outcome over two parameters."""
    columns, heads = read_axis(explored.table[x], explored.parameters[x]["log"])
    rows, labels = read_axis(explored.table[y], explored.parameters[y]["log"])

    # Cells are numbered row by row.
    cells = rows * len(heads) + columns
    ruined_share = pd.Series(explored.is_ruined).groupby(cells).mean()
    median = pd.Series(explored.values).groupby(cells).median()
    median = median.where(ruined_share < 0.5)

    measure = name_measure(explored.name)
    names = [(head, label) for label in labels for head in heads]
    index = pd.MultiIndex.from_tuples(names, names=[x, y])
    values = median.reindex(range(len(names))).to_numpy()
    return ShownChart(
        key=f"map-{x}-{y}",
        title=f"{measure} by {x} and {y}",
        caption=(
            f"Median {measure} of the sets in each cell, over all other parameters; cells that "
            f"are mostly ruined are blank. The best set has {explored.name_best([x, y])}. A wide "
            "area can be relied on more than a speck."
        ),
        table=pd.DataFrame({measure: values}, index=index),
        kind="heat",
        colors={measure: "accent" if explored.better > 0 else "loss"},
        size="narrow",
        height=400,
    )


LEVELS = {
    "lowest": 0.0,
    "10 %": 0.1,
    "median": 0.5,
    "90 %": 0.9,
    "highest": 1.0,
}
"""Quantiles of the plateau."""


def tabulate_plateau(explored: Explored) -> ShownTable:
    near = find_neighbors(explored)
    if not near.any():
        empty = "No other set is near the best: whether it is a plateau or a spike is unknown."
        return ShownTable({}, empty=empty)

    rows = {
        "its neighbors": describe_chosen(explored, near),
        "all": describe_chosen(explored, np.ones(len(near), np.bool_)),
    }
    return ShownTable(
        rows,
        caption=f"{name_measure(explored.name)} around the best",
        note=(
            "Neighbors differ from the best by at most a tenth of the range covered, or one step "
            "of the grid, in every parameter. A best far above them sits on a spike: it may be "
            "chance."
        ),
        labels=Head("sets"),
        heads=list_heads("decimals", ("sets", *LEVELS, "ruined"), unit=""),
    )


def describe_chosen(explored: Explored, is_chosen: core.BoolArray) -> dict[str, str]:
    """Return how many sets there are, the quantiles of their outcomes, and how many are ruined."""
    values = explored.values[is_chosen]
    known = values[np.isfinite(values)]

    row = {"sets": f"{is_chosen.sum():,}"}
    for words, level in LEVELS.items():
        value = math.nan
        if len(known):
            value = float(np.quantile(known, level))
        row[words] = format_explored(explored, value)

    share_ruined = float(explored.is_ruined[is_chosen].mean())
    row["ruined"] = core.format_percent(share_ruined)
    return row


def tabulate_all_sets(explored: Explored, whole: str) -> ShownTable:
    """Show all sets, or the best of many; ``whole`` is the name of the table that has all."""
    n_sets = len(explored.table)
    note = ""
    if n_sets > LISTED:
        note = f"The best {LISTED} of {n_sets:,}: all are in {whole}."
    return tabulate_sets(explored, LISTED)._replace(is_searched=True, note=note)


def tabulate_sets(explored: Explored, count: int) -> ShownTable:
    """Show the best sets: their parameters, measures, and cautions."""
    chosen = explored.table.iloc[explored.order[:count]]
    parameters = explored.varied or list(explored.parameters)
    measures = [name for name in dict.fromkeys((explored.name, *SHOWN)) if name in chosen]

    columns = {}
    for name in parameters:
        columns[name] = [core.format_value(value) for value in chosen[name].tolist()]
    for name in measures:
        write = partial(format_measure, name) if name in ABOUT else core.format_number
        columns[name] = [write(float(value)) for value in chosen[name].tolist()]
    table = pd.DataFrame(columns)

    cautions = [find_cautions(row) for row in read_rows(explored, count)]
    if any(cautions):
        table["note"] = cautions
    table.index = pd.Index([f"{rank:,}" for rank in range(1, len(chosen) + 1)])

    heads = {name: name_parameter(explored, name) for name in parameters}
    for name in measures:
        heads[name] = Head(name_measure(name), "", "decimals")
    return ShownTable(
        table,
        caption="Best parameter sets",
        labels=Head("rank"),
        heads=heads,
        most=LISTED,
    )


def name_parameter(explored: Explored, name: str) -> Head:
    """Return the head of the column of a parameter."""
    style = "number"
    if explored.table[name].dtype.kind in "fiu":
        style = "decimals"
    return Head(name, str(explored.parameters[name]["unit"]), style)

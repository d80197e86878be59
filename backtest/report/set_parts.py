"""Parts that sweeps and studies share: the map of the sets, the plateau, and lists of sets."""

from __future__ import annotations

import math

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

TOP, LISTED = 10, 500


SHOWN = ("sharpe", "total_return", "max_drawdown", "turnover", "liquidations")


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

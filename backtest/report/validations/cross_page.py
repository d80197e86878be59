"""The report page of a cross-validation: paths as a fan, winners in and out of sample, ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base.text_layout import capitalize
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_and_command import Background
from backtest.report.page.axis_scale import choose_scale, drop_dust
from backtest.report.page.figures import (
    LIGHT,
    build_chart,
    build_layout,
    draw_line,
    to_datetimes,
)
from backtest.report.page.page import Chart, SearchTable, Section, Table, name_columns
from backtest.report.page.report_numbers import format_measure, name_measure
from backtest.report.page.thinning import thin_rows
from backtest.report.validations.validation_charts import (
    draw_scatter,
    format_entry,
    name_objective,
)
from backtest.validation.cross_text import SPREAD
from backtest.validation.progress_folder import name_result

if TYPE_CHECKING:
    from backtest.validation.cross_validation import CrossValidation

MEASURES = ("sharpe", "cagr", "total_return", "volatility", "max_drawdown", "fees", "ruined")
BINS = 10


def build_cross_sections(found: CrossValidation, background: Background) -> list[Section]:
    """Return the sections of the report."""
    what = name_objective(found.manifest)
    return [
        Section("paths", "What the procedure would have earned",
                "Paths through all groups of time, each group under the winner of a split that did "
                "not train on it.", [draw_fan(found), tabulate_paths(found)]),
        Section("choice", "What choosing was worth", "Winners of the train groups, in the test "
                "groups.", [draw_scatter(found.trials, what, "scatter"), draw_ranks(found),
                            list_all_splits(found)]),
        *build_assumptions(dict(found.manifest), [name_result(found.manifest)],
                           (describe_scores(found),), background),
    ]  # fmt: skip


def describe_scores(found: CrossValidation) -> str:
    """Describe how splits were scored."""
    how = (
        "the fresh accounts of their groups, one after another"
        if found.figures["scored_by"] == "groups"
        else "runs of each stretch of consecutive groups"
    )
    return (
        f"Splits are scored from {how}. {found.figures['embargo_bars']:,} bars after a test group "
        f"do not count in training ({found.figures['embargo_samples']} sampled returns). Paths are "
        "made of fresh accounts, without trades of switching; ruin ends a path. Sets: scrambled "
        f"Sobol points, seed {found.manifest['seed']}."
    )


def draw_fan(found: CrossValidation) -> Chart:
    """Draw all paths, and their median."""
    closes = pd.DatetimeIndex(found.curves.index).as_unit("ns").asi8
    units = found.curves.to_numpy(dtype=np.float64)
    middle = np.median(units, axis=1)
    rows = thin_rows(closes, *units.T)
    x = to_datetimes(closes[rows])
    traces = [
        draw_line(x, drop_dust(unit)[rows], f"path {k}", "neutral", opacity=0.5,
                  line={"width": 1.0}, hovertemplate="%{y:.3f}")
        for k, unit in enumerate(units.T)
    ]  # fmt: skip
    traces.append(draw_line(x, drop_dust(middle)[rows], "median", "accent", line={"width": 2.2},
                            showlegend=True, hovertemplate="%{y:.3f}"))  # fmt: skip
    layout = build_layout(420, showlegend=True)
    layout["margin"]["t"] = 40
    layout["xaxis"] = {"type": "date", "showgrid": False}
    choose_scale(layout, np.concatenate([drop_dust(unit) for unit in units.T]))
    caption = (
        f"{units.shape[1]} paths, gray; the blue line is their median at each time. "
        f"{capitalize(SPREAD)}: all are made of one history, and the true figure is often outside."
    )
    return build_chart("fan", "Paths out of sample", caption, traces, layout)


def tabulate_paths(found: CrossValidation) -> Table:
    """Return the measures of each path."""
    names = [name for name in MEASURES if name in found.paths]
    rows = tuple(
        (str(path), *(format_measure(name, float(row[name])) for name in names))
        for path, row in zip(found.paths.index, found.paths.to_dict("records"), strict=True)
    )
    note = (
        "The drawdown is the deepest inside a group, or across groups by sampled returns. "
        f"{capitalize(SPREAD)}."
    )
    return Table("Paths", name_columns("path", *map(name_measure, names)), rows, note)


def draw_ranks(found: CrossValidation) -> Chart:
    """Draw how often winners had each rank out of sample."""
    ranks = found.ranks.to_numpy(dtype=np.float64)
    counts, edges = np.histogram(ranks[~np.isnan(ranks)], bins=BINS, range=(0.0, 1.0))
    middle = 0.5 * (edges[:-1] + edges[1:])
    colors = [LIGHT["loss"] if at < 0.5 else LIGHT["accent"] for at in middle]
    trace = {"type": "bar", "x": middle, "y": counts, "marker": {"color": colors},
             "width": 0.9 / BINS, "hovertemplate": "%{y} splits<extra></extra>"}  # fmt: skip
    layout = build_layout(280)
    layout["xaxis"] = {"title": {"text": "rank of the winner out of sample"}, "range": [0, 1]}
    layout["yaxis"] = {"title": {"text": "splits"}}
    caption = "Orange: no better than the median set. Skill piles up at 1; noise is even."
    return build_chart("ranks", "Ranks of the winners", caption, [trace], layout)


def list_all_splits(found: CrossValidation) -> SearchTable:
    """Return all splits as a table to search."""
    names = [str(name) for name in found.splits if name != "groups"]
    rows = tuple(
        (str(split), " and ".join(map(str, row["groups"])),
         *(format_entry(name, row[name]) for name in names))
        for split, row in zip(found.splits.index, found.splits.to_dict("records"), strict=True)
    )  # fmt: skip
    heads = ("tested on groups", *(name.replace("_", " ") for name in names))
    columns = name_columns("split", *heads, text=("tested on groups",))
    return SearchTable(Table("Splits", columns, rows), ())

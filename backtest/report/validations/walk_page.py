"""The report page of a walk: the walked account, winners in and out of sample, parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.text_layout import capitalize
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_and_command import Background
from backtest.report.page.figures import build_chart, build_layout, draw_line, stack_panels
from backtest.report.page.page import (
    Block,
    Chart,
    Paragraph,
    Section,
    Table,
    name_columns,
)
from backtest.report.page.report_numbers import format_measure, name_measure
from backtest.report.validations.validation_charts import (
    draw_scatter,
    draw_units,
    format_entry,
    name_objective,
    read_units,
)
from backtest.sweep.sets.dimension import Dimension
from backtest.sweep.tabulate import name_column
from backtest.validation.progress_folder import name_result
from backtest.validation.walk_text import OF_FOLDS

if TYPE_CHECKING:
    from backtest.validation.walk import WalkForward

MEASURES = ("total_return", "cagr", "volatility", "sharpe", "max_drawdown", "turnover", "fees",
            "funding", "liquidations")  # fmt: skip
PLATEAU_WIDTH = 0.1


def build_walk_sections(walk: WalkForward, background: Background) -> list[Section]:
    """Return the sections of the report."""
    what = name_objective(walk.manifest)
    blocks: list[Block] = [draw_accounts(walk), tabulate_accounts(walk)]
    choice: list[Block] = [
        draw_scatter(walk.trials, what, "scatter"),
        draw_folds(walk, what),
        tabulate_folds(walk),
        *(
            Paragraph(f"{capitalize(text)}.", "note")
            for text in walk.warnings
            if OF_FOLDS.match(text)
        ),
    ]
    return [
        Section("account", "The account over time",
                "One account through all test spans: it trades from what it holds when parameters "
                "change.", blocks),
        Section("choice", "What choosing was worth", "Winners of the train spans, in their test "
                "spans.", choice),
        Section("parameters", "Parameters through time", "The winner of each fold, with the "
                "plateau around it.", [*draw_parameters(walk), tabulate_stability(walk)]),
        *build_assumptions(dict(walk.manifest), [name_result(walk.manifest)],
                           (describe_walking(walk),), background),
    ]  # fmt: skip


def describe_walking(walk: WalkForward) -> str:
    """Describe how the walk was made."""
    return (
        f"Each fold was searched with {walk.manifest['trials']:,} trials at most, seed "
        f"{walk.manifest['seed']}, sampler {walk.manifest['sampler']}; sets must keep: "
        f"{', '.join(walk.manifest['constraints'])}. The deflated Sharpe ratio of the walk counts "
        "one trial, as the account was not chosen among others."
    )


def draw_accounts(walk: WalkForward) -> Chart:
    """Draw the re-tuned account and the one tuned once, with the boundaries of folds."""
    units = {"tuned once": read_units(walk.fixed)}
    if walk.result is not None:
        units = {"re-tuned": read_units(walk.result), **units}
    styles = (("accent", "solid"), ("neutral", "solid"))
    edges = pd.DatetimeIndex(walk.folds["test_start"]).as_unit("ns").asi8.tolist()
    return draw_units(walk.fixed.span.named, units, styles[-len(units) :], edges)


def tabulate_accounts(walk: WalkForward) -> Table:
    """Return the measures of both accounts."""
    results = {"re-tuned": walk.result, "tuned once": walk.fixed}
    kept = {name: each for name, each in results.items() if each is not None}
    rows = tuple(
        (name_measure(name), *(format_measure(name, each.metrics[name]) for each in kept.values()))
        for name in MEASURES
    )
    return Table("Measures over all test spans", name_columns("measure", *kept), rows)


def draw_folds(walk: WalkForward, what: str) -> Chart:
    """Draw the objective of each winner in and out of sample."""
    x = [f"{time:%Y-%m-%d}" for time in walk.folds["test_start"]]
    traces = [
        {**draw_line(x, walk.folds[name].to_numpy(dtype=np.float64), label, color,
                     showlegend=True, hovertemplate="%{y:.2f}"), "mode": "lines+markers"}
        for name, label, color in (("in_sample", "in sample", "neutral"),
                                   ("out_of_sample", "out of sample", "accent"))
    ]  # fmt: skip
    layout = build_layout(300, showlegend=True)
    layout["margin"]["t"] = 40
    layout["xaxis"] = {"type": "category", "nticks": 8, "title": {"text": "test span from"}}
    caption = f"The winner's {what} on the train span, and what it made of the test span after it."
    return build_chart("folds", f"{what} of the winners, fold by fold", caption, traces, layout)


def tabulate_folds(walk: WalkForward) -> Table:
    """Return a row per fold."""
    names = [name for name in walk.folds if name not in ("train_end", "test_end", "shrinkage")]
    rows = tuple(
        (str(fold), *(format_entry(str(name), row[name]) for name in names))
        for fold, row in zip(walk.folds.index, walk.folds.to_dict("records"), strict=True)
    )
    columns = name_columns("fold", *(str(name).replace("_", " ") for name in names))
    note = "Rank: 1 is the best set of the test span, 0.5 the median, 0 the worst."
    return Table("Folds", columns, rows, note)


def read_dimensions(walk: WalkForward) -> list[Dimension]:
    """Return the dimensions of the space, as the manifest has them."""
    fields = Dimension._fields
    return [
        Dimension(**{name: each[name] for name in fields})
        for each in walk.manifest["space"]["dimensions"]
    ]


def draw_parameters(walk: WalkForward) -> list[Chart]:
    """Draw each number through time with its plateau, on its declared scale."""
    shown = [each for each in read_dimensions(walk) if not each.options]
    if not shown:
        return []
    panels = stack_panels([each.name for each in shown], [1] * len(shown), 0.3 / len(shown))
    layout = build_layout(110 + 130 * len(shown), **panels)
    layout["margin"]["t"] = 30
    x = [f"{time:%Y-%m-%d %H:%M}" for time in walk.folds["test_start"]]
    x.append(f"{walk.folds['test_end'].iloc[-1]:%Y-%m-%d %H:%M}")
    traces = []
    for k, each in enumerate(shown):
        axis = {"yaxis": f"y{k + 1}" if k else "y"}
        traces += draw_parameter(walk, each, x, axis)
        layout[f"yaxis{k + 1}" if k else "yaxis"] |= {"type": "log"} if each.log else {}
    caption = (
        "Blue: the winner of each fold. Gray: the box of its neighbors, 10 % of the range on "
        "either side. A winner that leaves the last box every time was chosen by noise."
    )
    return [build_chart("parameters", "Parameters through time", caption, traces, layout)]


def draw_parameter(
    walk: WalkForward, each: Dimension, x: list[str], axis: dict[str, str]
) -> list[dict[str, Any]]:
    """Draw one parameter as steps over its plateau."""
    values = walk.folds[name_column(each.name)].to_numpy(dtype=np.float64)
    place = each.encode(values)
    rule = walk.manifest["robust"] or {}
    width = float(rule.get("width", PLATEAU_WIDTH)) if isinstance(rule, dict) else PLATEAU_WIDTH
    low, high = (
        np.asarray(each.decode(np.clip(place + side, 0.0, 1.0)), dtype=np.float64)
        for side in (-width, width)
    )
    step = {"shape": "hv"}
    lower, upper, line = (np.append(part, part[-1]) for part in (low, high, values))
    return [
        draw_line(x, lower, "low", "neutral_soft", line=step, hoverinfo="skip", **axis),
        draw_line(x, upper, "high", "neutral_soft", line=step, hoverinfo="skip", fill="tonexty",
                  **axis),
        draw_line(x, line, each.name, "accent", line=step, hovertemplate="%{y:.4g}", **axis),
    ]  # fmt: skip


def tabulate_stability(walk: WalkForward) -> Table:
    """Return how much each parameter moved."""
    rows = tuple(
        (str(name), *(format_share(row[column]) for column in walk.stability))
        for name, row in zip(walk.stability.index, walk.stability.to_dict("records"), strict=True)
    )
    columns = name_columns("parameter", "interquartile range of winners", "plateau held",
                           "rank correlation of all sets")  # fmt: skip
    note = (
        "Range: as a share of the declared range, on its scale. Plateau held: share of folds "
        "whose winner lies in the box of the last one. Correlation: of the objectives of all sets "
        "between consecutive folds; train spans that overlap share bars."
    )
    return Table("Stability", columns, rows, note)


def format_share(value: float) -> str:
    """Return a share or correlation with two digits."""
    return "n/a" if math.isnan(value) else f"{value:.2f}"

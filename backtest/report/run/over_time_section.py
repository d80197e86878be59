"""Report sections on months, drawdowns, rolling measures and targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    format_days,
    format_leverage,
    format_percent,
)
from backtest.engine import sample_risk_free
from backtest.engine.target_cuts_text import WORDS
from backtest.measures import monthly_returns, rolling_measures, worst_drawdowns
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    draw_series,
    stack_panels,
)
from backtest.report.page.page import Block, Cell, Chart, Paragraph, Section, Table, name_columns
from backtest.report.page.report_numbers import format_close, name_period

if TYPE_CHECKING:
    import pandas as pd

    from backtest.engine import Result
    from backtest.measures import RunSpan

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DATED = ("peak", "trough", "recovery")
WORST = 10
WINDOWS = ((365, 90), (90, 30), (30, 10))
"""Least number of samples, and the rolling window that it allows."""
TINTS = (0.0, 0.03, 0.10, 0.25)
"""Sizes of a monthly return above which the tint of its cell gets stronger."""
WITH_ZERO = {"zeroline": True, "zerolinecolor": LIGHT["neutral"]}
TARGETS_NOTE = (
    "Leverage at the price of the fill, before its costs. {} Shortfall is what the limit of the "
    "row took away, negative where it left more than was asked; distance is the same without sign."
)
CUT_BY_SEVERAL = "A decision may be cut by several limits, one after the other."
CUT_BY_ONE = (
    "After the least and the most leverage of the account, what is missing counts as the cut of "
    "the first limit that explains it."
)


def build_time(result: Result) -> Section:
    falls = find_drawdowns(result)
    blocks = [
        tabulate_months(find_months(result)),
        tabulate_drawdowns(falls, is_daily=result.span.is_daily),
        *build_rolling(result),
    ]
    lead = "Monthly returns, worst drawdowns, and rolling measures."
    return Section("time", "Over time", lead, blocks)


# ----------------------------------------------------------------------------- months, drawdowns


def find_months(result: Result) -> pd.DataFrame:
    return monthly_returns(result.time, result.of_account("unit"), result.tally.first_unit)


def tabulate_months(months: pd.DataFrame) -> Table:
    columns = name_columns("year", *((name, "%") for name in (*MONTHS, "year")))
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (str(year), *map(tint_return, values))
        for year, values in zip(months.index, months.to_numpy().tolist(), strict=True)
    )
    note = "Simple returns of the unit value by calendar month, UTC, in per cent."
    return Table("Monthly returns", columns, rows, note)


def tint_return(value: float) -> Cell:
    if math.isnan(value):
        return Cell("")
    strength = int(np.searchsorted(TINTS, abs(value), side="left"))
    return Cell(f"{100.0 * value + 0.0:,.1f}", strength if value > 0.0 else -strength)


def find_drawdowns(result: Result) -> pd.DataFrame:
    unit, span, first_peak = result.of_account("unit"), result.span, result.first_peak
    falls = worst_drawdowns(unit, span.closes, start=span.start, first_peak=first_peak, count=WORST)
    for name in DATED:
        falls[name] = name_closes(span, falls[name])
    return falls


def name_closes(span: RunSpan, stamps: pd.Series) -> pd.Series:
    shift = pd.Timedelta(int(span.closes[0] - span.named[0]), "ns")
    return stamps.where(stamps <= pd.Timestamp(span.start, tz="UTC"), stamps - shift)


def tabulate_drawdowns(falls: pd.DataFrame, *, is_daily: bool) -> Block:
    if falls.empty:
        return Paragraph("The account never closed below an earlier peak: there is no drawdown.")
    rows = tuple(
        (
            str(place),
            format_percent(row["depth"]),
            *(format_close(row[name], is_daily=is_daily) for name in DATED),
            *(format_days(row[name]) for name in ("days_down", "days_under_water")),
        )
        for place, row in enumerate(falls.to_dict("records"), start=1)
    )
    columns = name_columns(
        "rank", "depth", ("peak", "UTC"), ("trough", "UTC"), ("recovered", "UTC"),
        ("falling", "days"), ("under water", "days"),
    )  # fmt: skip
    title = "Worst drawdown" if len(rows) == 1 else f"Worst {len(rows)} drawdowns"
    note = "At bar closes, free of deposits. One that has not recovered counts to the end."
    return Table(title, columns, rows, note)


# ---------------------------------------------------------------------------------------- rolling


def build_rolling(result: Result) -> Iterator[Block]:
    samples = len(result.returns)
    window = next((window for least, window in WINDOWS if samples >= least), 0)
    if window:
        yield draw_rolling(result, window)
    else:
        yield Paragraph("Too few returns for rolling measures: they need thirty.", "note")


def average_leverage(result: Result) -> FloatArray:
    leverage = result.bars["gross_leverage"].to_numpy()
    leverage = np.where(np.isfinite(leverage), leverage, 0.0)
    ends = np.flatnonzero(result.ends_sample != 0.0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    total = np.add.reduceat(leverage[: ends[-1] + 1], starts)
    mean: FloatArray = total / (ends - starts + 1)
    return mean


def draw_rolling(result: Result, window: int) -> Chart:
    returns = result.returns.to_numpy()
    measured = rolling_measures(returns, sample_risk_free(result), result.span.periods, window)
    leverage = pd.Series(average_leverage(result)).rolling(window).mean().to_numpy()
    closes = result.span.named[result.ends_sample != 0.0]
    sampling = str(result.manifest["sampling"])
    from_zero = {"rangemode": "tozero"}
    panels: tuple[tuple[str, FloatArray, str, str, dict[str, Any]], ...] = (
        ("Sharpe ratio", measured["sharpe"].to_numpy(), "", ".2f", WITH_ZERO),
        ("Volatility, annual", measured["volatility"].to_numpy(), PERCENTS, ".1%", from_zero),
        ("Leverage, mean without sign", leverage, "", ".2f", from_zero),
    )
    span = (result.span.start, int(result.span.closes[-1]))
    layout = build_layout(460, **stack_panels([name for name, *_ in panels], (1, 1, 1), 0.09, span))
    traces = []
    for place, (name, values, ticks, style, axis) in enumerate(panels, start=1):
        number = "" if place == 1 else str(place)
        layout[f"yaxis{number}"] |= {"nticks": 4, "tickformat": ticks, **axis}
        traces.append(
            draw_series(closes, values, name, yaxis=f"y{number}",
                        hovertemplate=f"%{{y:{style}}}")
        )  # fmt: skip
    caption = f"Each point measures the {window} {name_period(sampling)}s up to it."
    return build_chart("rolling", "Rolling measures", caption, traces, layout)


# ---------------------------------------------------------------------------------------- targets


def build_targets(result: Result) -> Section:
    lead = "How far each limit kept the account from the leverage that was asked for."
    return Section("targets", "Targets", lead, [tabulate_targets(result.target_cut_rows)])


def tabulate_targets(cuts: Sequence[Mapping[str, Any]]) -> Block:
    if not cuts:
        return Paragraph("The result was saved without how far its targets were cut.", "note")
    means = ("asked", "held", "shortfall", "distance")
    of = ["instrument"] if "instrument" in cuts[0] else []
    columns = name_columns(
        *of, "limit", "decisions", ("share", "%"), *((name, "mean") for name in means), "days"
    )
    rows = tuple(
        (
            *(row[name] for name in of),
            WORDS.get(row["cause"], "all decisions"),
            f"{row['decisions']:,}",
            f"{100.0 * row['share']:.1f}",
            *(format_leverage(row[f"mean_{name}"]) for name in means),
            f"{row['days']:,}" if "days" in row else "",
        )
        for row in cuts
    )
    note = TARGETS_NOTE.format(CUT_BY_ONE if of else CUT_BY_SEVERAL)
    return Table("Targets, and what was held", columns, rows, note)

"""Report sections on months, drawdowns, rolling measures and the use of leverage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.errors import ParameterError
from backtest.base.number_text import (
    format_days,
    format_leverage,
    format_number,
    format_percent,
    format_signed,
)
from backtest.base.units import FloatArray
from backtest.engine.result_text import sample_risk_free
from backtest.engine.target_cuts_text import WORDS
from backtest.measures.history import monthly_returns, rolling_measures, worst_drawdowns
from backtest.report.page.figures import LIGHT, chart, frame, line, stack, stamps
from backtest.report.page.page import Block, Cell, Chart, Column, Section, Table, Text
from backtest.report.page.report_numbers import list_rows, on_day, period
from backtest.report.page.thinning import thin
from backtest.report.run.risk_section import choose_horizon

if TYPE_CHECKING:
    from backtest.engine.result import Result
    from backtest.measures.leverage_cycle import LeverageProfile

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WORST = 10
WINDOWS = ((365, 90), (90, 30), (30, 10))
"""Samples from which on a rolling window of so many is used."""
TINTS = (0.0, 0.03, 0.10, 0.25)
"""From which size of a monthly return on a cell has the next stronger tint."""
TARGETS_NOTE = (
    "Leverage at the open where a decision fills, before the costs of the fill. A decision may be "
    "cut by several limits, one after the other: shortfall is what the limit of the row took away, "
    "negative where it left more than was asked; distance is the same without sign."
)


def build_time(result: Result) -> Section:
    """Return the section on the run over time."""
    falls = find_drawdowns(result)
    blocks: list[Block] = [tabulate_months(find_months(result)), tabulate_drawdowns(falls)]
    blocks += build_rolling(result)
    lead = "Month by month, at its worst, and how steady its measures were."
    return Section("time", "How it went over time", lead, blocks)


# ----------------------------------------------------------------------------- months, drawdowns


def find_months(result: Result) -> pd.DataFrame:
    """Return the returns by month and year."""
    return monthly_returns(result.time, result.record[6], result.tally.first_unit)


def tabulate_months(months: pd.DataFrame) -> Table:
    """Return the returns by month, tinted by size."""
    columns = (Column("year", is_number=False), *(Column(name, "%") for name in MONTHS))
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (str(year), *map(tint, values))
        for year, values in zip(months.index, months.to_numpy().tolist(), strict=True)
    )
    note = "Simple returns of the unit value by calendar month, UTC, in per cent."
    return Table("Monthly returns", (*columns, Column("year", "%")), rows, note)


def tint(value: float) -> Cell:
    """Return a return in per cent with the tint of its size.

    Examples
    --------
    >>> tint(-0.034), tint(0.4), tint(float("nan"))
    (Cell(text='-3.4', tint=-2), Cell(text='40.0', tint=4), Cell(text='', tint=0))
    """
    if math.isnan(value):
        return Cell("")
    strength = int(np.searchsorted(TINTS, abs(value), side="left"))
    return Cell(f"{100.0 * value + 0.0:,.1f}", strength if value > 0.0 else -strength)


def find_drawdowns(result: Result) -> pd.DataFrame:
    """Return the ten deepest drawdowns."""
    return worst_drawdowns(
        result.record[6],
        result.span.closes,
        start=result.span.start,
        first_peak=result.first_peak,
        count=WORST,
    )


def tabulate_drawdowns(falls: pd.DataFrame) -> Block:
    """Return the worst drawdowns with their dates."""
    if falls.empty:
        return Text("The account never closed below an earlier peak: there is no drawdown.")
    rows = tuple(
        (
            str(place),
            format_percent(row["depth"]),
            on_day(row["peak"]),
            on_day(row["trough"]),
            on_day(row["recovery"]),
            format_days(row["days_down"]),
            format_days(row["days_under_water"]),
        )
        for place, row in enumerate(list_rows(falls), start=1)
    )
    columns = (
        Column("rank", is_number=False),
        Column("depth"),
        Column("peak", "UTC"),
        Column("trough", "UTC"),
        Column("recovered", "UTC"),
        Column("falling", "days"),
        Column("under water", "days"),
    )
    title = "Worst drawdown" if len(rows) == 1 else f"Worst {len(rows)} drawdowns"
    note = "At bar closes, free of deposits. One that has not recovered counts to the end."
    return Table(title, columns, rows, note)


# ---------------------------------------------------------------------------------------- rolling


def choose_window(samples: int) -> int:
    """Return how many samples a rolling window holds; 0 where there are too few."""
    return next((window for least, window in WINDOWS if samples >= least), 0)


def build_rolling(result: Result) -> Iterator[Block]:
    """Yield rolling Sharpe ratio, volatility and leverage."""
    window = choose_window(len(result.returns))
    if not window:
        yield Text("Too few returns for rolling measures: they need thirty.", "note")
        return
    yield draw_rolling(result, window)


def average_leverage(result: Result) -> FloatArray:
    """Return the mean leverage, without sign, over the bars of each sampling period."""
    leverage = np.abs(result.bars["leverage"].to_numpy())
    leverage = np.where(np.isfinite(leverage), leverage, 0.0)
    ends = np.flatnonzero(result.ends_sample != 0.0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    total = np.add.reduceat(leverage[: ends[-1] + 1], starts)
    mean: FloatArray = total / (ends - starts + 1)
    return mean


def draw_rolling(result: Result, window: int) -> Chart:
    """Return Sharpe ratio, volatility and leverage over a rolling window."""
    returns = result.returns.to_numpy()
    measured = rolling_measures(returns, sample_risk_free(result), result.span.periods, window)
    leverage = pd.Series(average_leverage(result)).rolling(window).mean().to_numpy()
    closes = result.span.closes[result.ends_sample != 0.0]
    sampling = str(result.manifest["sampling"])
    panels = (
        ("Sharpe ratio", measured["sharpe"].to_numpy(), "accent", ".2f"),
        ("Volatility, annual", measured["volatility"].to_numpy(), "accent", ".0%"),
        ("Leverage, mean without sign", leverage, "accent", ".2f"),
    )
    span = (result.span.start, int(result.span.closes[-1]))
    layout = frame(460, **stack([name for name, *_ in panels], (1, 1, 1), 0.09, span))
    traces = []
    for place, (name, values, colour, style) in enumerate(panels, start=1):
        rows = thin(closes, values)
        number = "" if place == 1 else str(place)
        layout[f"yaxis{number}"] |= {"nticks": 4, "tickformat": "" if style == ".2f" else style}
        if name != "Sharpe ratio":
            layout[f"yaxis{number}"]["rangemode"] = "tozero"
        else:
            layout[f"yaxis{number}"] |= {"zeroline": True, "zerolinecolor": LIGHT["neutral"]}
        traces.append(
            line(stamps(closes[rows]), values[rows], name, colour, yaxis=f"y{number}",
                 hovertemplate=f"%{{y:{'.1%' if '%' in style else style}}}")
        )  # fmt: skip
    caption = f"Each point measures the {window} {period(sampling)}s up to it."
    return chart("rolling", "Rolling measures", caption, traces, layout)


# --------------------------------------------------------------------------------------- leverage


def build_use(result: Result) -> Section:
    """Return the section on how leverage was used, and what followed it."""
    lead = "How much leverage was carried, for how long, and what the market did next."
    blocks: list[Block]
    try:
        profile = result.leverage_profile()
    except ParameterError as error:
        blocks = [Text(error.problem, "note")]
    else:
        ahead = period(choose_horizon(result))
        blocks = [draw_levels(profile), draw_next(profile, ahead), tabulate_next(profile, ahead)]
    blocks.append(tabulate_targets(result))
    return Section("leverage", "How leverage was used", lead, blocks)


def draw_levels(profile: LeverageProfile) -> Chart:
    """Return the share of time at each level of leverage."""
    names = ["none", *(f"{each.left:g} to {each.right:g}" for each in profile.time_at.index[1:])]
    share = profile.time_at["share"].to_numpy()
    trace = {
        "type": "bar", "x": names, "y": share, "marker": {"color": LIGHT["accent"]},
        "hovertemplate": "%{x}: %{y:.1%} of the time<extra></extra>", "name": "time",
    }  # fmt: skip
    layout = frame(260, bargap=0.25)
    layout["xaxis"] |= {"title": {"text": "leverage, turns of equity"}, "type": "category"}
    layout["yaxis"] |= {"tickformat": ".0%", "title": {"text": "share of time"}}
    caption = (
        f"Mean {profile.mean:.2f}, median {profile.median:.2f}, skew "
        f"{format_number(profile.skew)}: positive where leverage is mostly low and seldom high."
    )
    return chart("levels", "Time at each leverage", caption, [trace], layout, "narrow")


def draw_next(profile: LeverageProfile, ahead: str) -> Chart:
    """Return what followed low and high leverage, over a period such as the next day."""
    table = profile.next_by_leverage
    leverage = table["leverage"].to_numpy()
    error: dict[str, Any] = {
        "type": "data", "array": 1.96 * table["next_return_error"].fillna(0.0).to_numpy(),
        "color": LIGHT["accent"], "thickness": 1, "width": 4,
    }  # fmt: skip
    layout = frame(380, **stack((f"Return of 1x over the next {ahead}, 95 % intervals",
                                 "Volatility within it, annual"), (1, 1), 0.16))  # fmt: skip
    layout["xaxis"] |= {"type": "linear", "hoverformat": ".2f",
                        "title": {"text": f"leverage at the start of the {ahead}"}}  # fmt: skip
    layout["yaxis"] |= {"tickformat": ".2~%", "zeroline": True, "zerolinecolor": LIGHT["neutral"]}
    layout["yaxis2"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    traces = [
        line(leverage, table["next_return"].to_numpy(), "return", mode="lines+markers",
             error_y=error, marker={"size": 7, "color": LIGHT["accent"]},
             line={"width": 1}, hovertemplate="%{y:.2%}"),
        line(leverage, table["next_volatility"].to_numpy(), "volatility", "loss", yaxis="y2",
             mode="lines+markers", marker={"size": 7, "color": LIGHT["loss"]},
             line={"width": 1}, hovertemplate="%{y:.1%}"),
    ]  # fmt: skip
    caption = (
        f"Each {ahead} in groups by the leverage it began with. A policy that times the market has "
        "a rising upper line; one that times volatility a falling lower one."
    )
    heading = f"Leverage against the {ahead} that followed"
    return chart("next", heading, caption, traces, layout, "narrow")


def tabulate_next(profile: LeverageProfile, ahead: str) -> Table:
    """Return the same as numbers, with the correlations."""
    rows = tuple(
        (
            str(group),
            f"{row['leverage']:.2f}",
            f"{row['periods']:,}",
            format_percent(row["next_return"]),
            format_percent(row["next_return_error"]),
            format_percent(row["next_volatility"]),
        )
        for group, row in enumerate(list_rows(profile.next_by_leverage), start=1)
    )
    columns = (
        Column("group", is_number=False),
        Column("leverage", "turns"),
        Column(f"{ahead}s"),
        Column("next return"),
        Column("standard error"),
        Column("next volatility", "annual"),
    )
    note = (
        f"Correlation of leverage with the next return {format_signed(profile.return_correlation)} "
        f"(standard error {format_number(profile.return_correlation_error)}), with the next "
        f"volatility {format_signed(profile.volatility_correlation)} "
        f"({format_number(profile.volatility_correlation_error)})."
    )
    return Table("What followed leverage", columns, rows, note)


def in_signed(value: float) -> str:
    """Return a number with its sign."""
    return "n/a" if math.isnan(value) else f"{value:+.2f}"


def tabulate_targets(result: Result) -> Block:
    """Return mean asked against mean held leverage, over all decisions and limit by limit."""
    if not result.cut_rows:
        text = "How far targets were cut is not known: an earlier version saved the result."
        return Text(text, "note")
    columns = (
        Column("limit", is_number=False),
        Column("decisions"),
        Column("share", "%"),
        Column("asked", "mean"),
        Column("held", "mean"),
        Column("shortfall", "mean"),
        Column("distance", "mean"),
    )
    rows = tuple(
        (
            WORDS.get(row["cause"], "all decisions"),
            f"{row['decisions']:,}",
            f"{100.0 * row['share']:.1f}",
            *(
                format_leverage(row[f"mean_{name}"])
                for name in ("asked", "held", "shortfall", "distance")
            ),
        )
        for row in result.cut_rows
    )
    return Table("Targets, and what was held", columns, rows, TARGETS_NOTE)

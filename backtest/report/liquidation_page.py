"""Report page of a liquidation risk: the verdict, its figures, the data and the assumptions."""

from __future__ import annotations

import pandas as pd

from backtest.base.number_text import format_chance, format_money
from backtest.paths import LiquidationRisk
from backtest.report.basis.assumptions import build_pair_table
from backtest.report.page.figures import LIGHT, build_chart, build_layout, draw_line
from backtest.report.page.page import Block, Chart, Fact, Page, Section, Table, name_columns
from backtest.report.risk_blocks import (
    DATES,
    describe_source,
    list_assumptions,
    list_notices,
    list_times,
    to_records,
)

KINDS = {"p_liquidation": "liquidation", "p_ruin": "ruin", "p_margin_call": "margin call"}
ESTIMATORS = {
    "plain": "share of independent paths",
    "antithetic": "share of paths in mirrored pairs",
    "tilt": "paths of a tilted model and plain ones, weighted",
    "split": "paths split near a liquidation, weighted",
}
"""The estimators of rows by their names."""
DAYS_SHOWN = 60


def build_liquidation(risk: LiquidationRisk) -> Page:
    """Return the page of a liquidation risk."""
    manifest = describe_source(risk)
    facts = [
        Fact(f"liquidated within {name}", format_chance(row["p_liquidation"]),
             f"{write_interval(row, 'p_liquidation')}; {row['method']}")
        for name, row in risk.table.iterrows()
    ]  # fmt: skip
    return Page(
        kind="risk",
        manifest=manifest,
        title=f"Risk of liquidation: {risk.settings['policy']}",
        notices=list_notices(manifest),
        summary=risk.verdict,
        facts=facts,
        write_sections=lambda: list_risk_sections(risk),
        collect=lambda: {
            "verdict": risk.verdict,
            "table": to_records(risk.table),
            "funding": to_records(risk.funding),
            "settings": risk.manifest["settings"],
        },
    )


def write_interval(row: pd.Series, kind: str) -> str:
    """Return the interval of a probability."""
    return f"{format_chance(row[f'{kind}_low'])} to {format_chance(row[f'{kind}_high'])}"


def list_risk_sections(risk: LiquidationRisk) -> list[Section]:
    """Return the sections of a liquidation risk."""
    ways: list[Block] = [draw_fan(risk)]
    if risk.typical is not None:
        ways.append(draw_typical(risk.typical))
    return [
        Section("horizons", "By horizon", "From the last close of the data on. All figures of a "
                "row come from one estimator.", [
            tabulate_chances(risk), tabulate_wealth(risk.table), list_estimators(risk.table),
        ]),
        Section("paths", "What happens on the way", "Wealth by time, over the plain paths.", ways),
        Section("hazard", "Hazard by day", "First liquidations, of those not liquidated before, on "
                "the plain paths.", [draw_hazard(risk.hazard), tabulate_days(risk.hazard)]),
        *list_assumptions(risk),
    ]  # fmt: skip


def tabulate_chances(risk: LiquidationRisk) -> Table:
    """Return the probabilities with their intervals, a row per horizon."""
    table = risk.table
    interval = f"{100 * risk.settings['confidence']:g} % interval"
    kinds = [kind for kind in KINDS if not table[kind].isna().all()]
    heads: list[str | tuple[str, str]] = ["horizon"]
    for kind in kinds:
        heads += [(f"{KINDS[kind]}", "probability"), f"{interval} of {KINDS[kind]}"]
    rows = tuple(
        (
            str(name),
            *(
                text
                for kind in kinds
                for text in (format_chance(row[kind]), write_interval(row, kind))
            ),
            str(row["method"]),
        )
        for name, row in table.iterrows()
    )
    return Table("Probabilities", name_columns(*heads, "estimator", text=["estimator"]), rows)


def tabulate_wealth(table: pd.DataFrame) -> Table:
    """Return bad debt, quantiles of wealth, and the time to a liquidation, by horizon."""
    money = "settlement currency"
    heads = name_columns(
        "horizon", ("5 % quantile", money), ("median", money),
        ("95 % quantile", money), ("expected bad debt", money),
        ("median time to a liquidation", "days"), "estimator", text=["estimator"],
    )  # fmt: skip
    rows = tuple(
        (
            str(name),
            *(format_money(row[each]) for each in ("equity_05", "equity_50", "equity_95")),
            format_money(row["bad_debt"]),
            "-" if pd.isna(row["days_to_liquidation"]) else f"{row['days_to_liquidation']:.3g}",
            str(row["method"]),
        )
        for name, row in table.iterrows()
    )
    return Table("Wealth at the horizon", heads, rows)


def list_estimators(table: pd.DataFrame) -> Table:
    """Return what the estimators of the table are."""
    used = dict.fromkeys(table["method"])
    return build_pair_table("Estimators", ((name, ESTIMATORS[name]) for name in used))


def tabulate_days(hazard: pd.DataFrame) -> Table:
    """Return the hazard by day as a table."""
    heads = name_columns(
        "day", ("not liquidated before", "paths"), ("liquidated in it", "paths"),
        ("hazard", "share of those"),
    )  # fmt: skip
    rows = tuple(
        (str(day), f"{row['at_risk']:,.0f}", f"{row['liquidated']:,.0f}",
         format_chance(row["hazard"]))
        for day, row in hazard.head(DAYS_SHOWN).iterrows()
    )  # fmt: skip
    return Table("By day", heads, rows)


def draw_fan(risk: LiquidationRisk) -> Chart:
    """Return the quantiles of wealth by time."""
    fan, closes = risk.fan, list_times(risk.fan)
    traces = [
        draw_line(closes, fan[name].to_numpy(), str(name).replace("equity_", "") + " %",
                  "accent" if name == "equity_50" else "neutral")
        for name in fan
    ]  # fmt: skip
    return build_chart(
        "fan", "Wealth", "Quantiles of 5, 25, 50, 75 and 95 % at each close.", traces,
        build_layout(320, xaxis=DATES),
    )  # fmt: skip


def draw_typical(typical: pd.DataFrame) -> Chart:
    """Return the mean path given a liquidation."""
    trace = draw_line(list_times(typical), typical["price"].to_numpy(), "price", "loss")
    caption = "Mean price, over the last close, of the paths that are liquidated."
    return build_chart(
        "typical",
        "The typical path to liquidation",
        caption,
        [trace],
        build_layout(260, xaxis=DATES),
    )


def draw_hazard(hazard: pd.DataFrame) -> Chart:
    """Return the hazard by day as bars."""
    bars = {
        "type": "bar", "x": list(hazard.index), "y": list(hazard["hazard"]),
        "marker": {"color": LIGHT["loss"]}, "showlegend": False,
    }  # fmt: skip
    caption = "Share of the accounts not liquidated before that is liquidated in each day."
    return build_chart("hazard", "Hazard", caption, [bars], build_layout(240))

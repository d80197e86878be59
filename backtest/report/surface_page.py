"""The report page of a volatility surface, and its picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.base import capitalize, count_nouns
from backtest.base.units import YEAR_DAYS
from backtest.options import Surface, is_out_of_the_money
from backtest.options.chain_inspection import CHECKS
from backtest.options.surface import describe_crossings
from backtest.report.basis.data_quality import NOTHING, Background
from backtest.report.page.figures import LIGHT, TEMPLATE, build_chart, build_layout, draw_line
from backtest.report.page.page import Chart, Fact, Page, Paragraph, Section, Table, name_columns

REACH = 3.0
"""Standard deviations of log-moneyness that the charts show."""
TENORS = (1, 3, 7, 14, 30, 60, 90, 180, 365, 730)
"""Days that axes of time to expiry mark."""
ASSUMPTIONS = (
    "Black-76 on the forward of the same expiry, without discounting; years have 365 days.",
    "Each smile is fitted to the volatilities of bids and asks out of the money, by least squares "
    "in units of half the spread plus half a volatility point. Quotes beyond 2.5 standard "
    "deviations weigh by their vega.",
    "Between expiries total variance is linear in time at constant log-moneyness; volatility is "
    "flat before the first expiry and after the last. Strikes far from the quotes are "
    "extrapolated.",
    "The size of quotes is not in the data.",
)


def build_surface(found: Surface, background: Background = NOTHING) -> Page:  # noqa: ARG001
    name = found.underlying or "options"
    days = YEAR_DAYS * found.years
    return Page(
        kind="surface",
        manifest={"id": found.identity},
        title=f"Implied volatility of {name}",
        about=f"{name}, {found.time:%Y-%m-%d %H:%M} UTC, "
        f"{count_nouns(len(found.quotes), 'two-sided quote')} in "
        f"{count_nouns(len(days), 'expiry', 'expiries')}",
        notices=[],
        summary=found.summary,
        facts=list_facts(found),
        write_sections=lambda: [
            Section("smiles", "Smiles", "Lines: the fit. Bars: bid to ask.", [
                *(draw_smile(found, k) for k in range(len(days)))]),
            *(list_time_sections(found) if len(days) > 1 else ()),
            Section("quality", "Quality of the fit", "By expiry.", [
                write_fits(found), *write_arbitrage(found)]),
            Section("data", "Data", "What the inspection of the quotes found.", [
                *write_defects(found)]),
            Section("assumptions", "Assumptions", "What the figures rest on.", [
                Paragraph(each) for each in ASSUMPTIONS]),
        ],
        collect=lambda: {"fits": found.fits.astype(str).to_dict("records"),
                         "left_out": found.left_out.astype(str).to_dict("records")},
    )  # fmt: skip


def list_time_sections(found: Surface) -> list[Section]:
    return [
        Section("term", "Term structure", "Volatility by time to expiry.", [draw_term(found)]),
        Section("surface", "Surface", "Volatility by moneyness and time.", [draw_map(found)]),
    ]


def list_facts(found: Surface) -> list[Fact]:
    tenor = found.headline_tenor
    days = f"{YEAR_DAYS * tenor:.3g} days"
    return [
        Fact(f"at the money, {days}", f"{100 * found.atm(tenor):.1f} %", "a year"),
        Fact("skew, 25 delta", f"{100 * found.skew(tenor):+.1f} pt", f"put less call, {days}"),
        Fact(f"model-free, {days}", f"{100 * found.vix(tenor):.1f} %", "a year"),
        Fact(
            "quotes that contain the fit", f"{100 * found.inside:.1f} %", "widened by half a point"
        ),
    ]


def draw_smile(found: Surface, place: int) -> Chart:
    row, smile = found.fits.iloc[place], found.smiles[place]
    part = found.quotes[found.quotes["expiry"] == row["expiry"]]
    money = float(np.sqrt(smile.total_variance(0.0)))
    part = part[
        is_out_of_the_money(part) & part["bid_iv"].notna() & (part["k"].abs() <= REACH * money)
    ]
    part = part.sort_values("strike")
    k = np.linspace(-REACH * money, REACH * money, 121)
    fitted = 100.0 * np.sqrt(smile.total_variance(k) / row["years"])
    middle = 50.0 * (part["bid_iv"] + part["ask_iv"])
    bars = {
        "type": "scatter", "mode": "markers", "x": part["strike"].to_numpy(),
        "y": middle.to_numpy(), "name": "bid to ask", "showlegend": False,
        "marker": {"size": 3, "color": LIGHT["neutral"]},
        "error_y": {"type": "data", "array": (100.0 * part["ask_iv"] - middle).to_numpy(),
                    "color": LIGHT["neutral"], "thickness": 1.2, "width": 2},
    }  # fmt: skip
    line = draw_line(row["forward"] * np.exp(k), fitted, "fit")
    layout = build_layout(
        240, xaxis={"title": {"text": "strike"}}, yaxis={"title": {"text": "% a year"}}
    )
    title = f"{row['expiry']:%Y-%m-%d %H:%M}, {YEAR_DAYS * row['years']:.1f} days"
    caption = f"{100 * row['inside']:.0f} % of {row['quotes']} quotes contain the fit."
    return build_chart(f"smile-{place}", title, caption, [bars, line], layout, "half")


def draw_term(found: Surface) -> Chart:
    years = np.geomspace(found.years[0], found.years[-1], 60)
    money = [100.0 * found.atm(float(each)) for each in years]
    free = [100.0 * found.vix(float(each)) for each in years]
    traces = [
        draw_line(YEAR_DAYS * years, money, "at the money"),
        draw_line(YEAR_DAYS * years, free, "model-free", "loss"),
        draw_line(YEAR_DAYS * found.years, [100.0 * found.atm(float(each)) for each in found.years],
                  "expiries", mode="markers"),
    ]  # fmt: skip
    layout = build_layout(
        300,
        xaxis=build_days_axis(),
        yaxis={"title": {"text": "% a year"}},
    )
    caption = "Blue: at the forward, with the expiries as dots. Orange: the model-free volatility."
    return build_chart("term", "At the money and model-free", caption, traces, layout)


def build_days_axis() -> dict[str, Any]:
    return {
        "type": "log",
        "title": {"text": "days to expiry"},
        "tickvals": list(TENORS),
        "ticktext": [str(each) for each in TENORS],
    }


def draw_map(found: Surface) -> Chart:
    traces, layout = write_map(found)
    caption = (
        "Moneyness in standard deviations: ln(K / F) over volatility at the money times root time."
    )
    return build_chart("map", "Map of volatility", caption, traces, layout)


def write_map(found: Surface) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    years = np.geomspace(found.years[0], found.years[-1], 60)
    steps = np.linspace(-2.5, 2.5, 61)
    rows = []
    for each in years:
        k = steps * found.atm(float(each)) * np.sqrt(each)
        rows.append(100.0 * np.sqrt(found.total_variance(k, float(each)) / each))
    shades = [LIGHT[f"step_{k}"] for k in range(1, 6)]
    heat = {
        "type": "heatmap", "x": steps, "y": YEAR_DAYS * years, "z": np.stack(rows),
        "colorscale": [[k / 4, shade] for k, shade in enumerate(shades)],
        "colorbar": {"title": {"text": "% a year", "side": "right"}, "thickness": 12},
        "hovertemplate": "%{x:.1f} deviations, %{y:.0f} days: %{z:.1f} %<extra></extra>",
    }  # fmt: skip
    layout = build_layout(
        380,
        xaxis={"title": {"text": "moneyness"}},
        yaxis=build_days_axis(),
    )
    return [heat], layout


def draw_surface(found: Surface) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    traces, layout = write_map(found)
    return go.Figure({"data": traces, "layout": layout}).update_layout(
        template={"layout": TEMPLATE}
    )


def write_fits(found: Surface) -> Table:
    heads = name_columns(
        "expiry", ("time", "days"), "forward", "from", "quotes", ("inside", "%"),
        ("median error", "points"), ("worst error", "points"), "least density", text={"from"},
    )  # fmt: skip
    rows = tuple(
        (
            f"{row['expiry']:%Y-%m-%d %H:%M}", f"{YEAR_DAYS * row['years']:.1f}",
            f"{row['forward']:,.6g}", str(row["forward_source"]), str(row["quotes"]),
            f"{100 * row['inside']:.1f}", f"{100 * row['median_error']:.2f}",
            f"{100 * row['worst_error']:.2f}", f"{row['least_density']:.3g}",
        )
        for row in found.fits.to_dict("records")
    )  # fmt: skip
    note = "Errors against the venue's marks, of two-sided quotes within 2.5 standard deviations."
    return Table("Fits", heads, rows, note)


def write_arbitrage(found: Surface) -> list[Paragraph]:
    table = found.arbitrage()
    butterflies = int(table["butterfly"].sum())
    text = f"Butterfly arbitrage in {butterflies} of {len(table)} expiries. "
    return [Paragraph(text + capitalize(describe_crossings(table)) + ".")]


def write_defects(found: Surface) -> list[Table | Paragraph]:
    totals = found.inspection.total
    rows = tuple((CHECKS[name].text, f"{totals[name]:,}") for name in CHECKS)
    heads = name_columns("check", "rows")
    reasons = found.left_out["reason"].value_counts()
    left = tuple((str(reason), f"{count:,}") for reason, count in reasons.items())
    tables: list[Table | Paragraph] = [Table("Inspection", heads, rows)]
    if left:
        tables.append(Table("Left out of the fit", name_columns("reason", "quotes"), left))
    return tables

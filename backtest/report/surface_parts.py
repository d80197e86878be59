"""What a volatility surface declares: its figures, tables and charts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, Shown, ShownChart, ShownTable
from backtest.core.units import YEAR_DAYS
from backtest.options import Surface, is_out_of_the_money
from backtest.options.chain import CHECKS
from backtest.options.fitted_surface import describe_crossings
from backtest.report.page import list_heads

REACH = 3.0
"""Standard deviations of log-moneyness that the charts show."""


def list_numbers(surface: Surface) -> list[Headline]:
    tenor = surface.headline_tenor
    days = f"{YEAR_DAYS * tenor:.3g} days"
    skew = surface.skew(tenor)
    return [
        Headline(
            name="atm",
            title=f"at the money, {days}",
            value=surface.atm(tenor),
            style="percent",
            note="a year",
        ),
        Headline(
            name="skew",
            title="skew, 25 delta",
            value=skew,
            note=f"put less call, {days}",
            text=f"{100 * skew:+z.1f} points",
        ),
        Headline(
            name="vix",
            title=f"model-free, {days}",
            value=surface.vix(tenor),
            style="percent",
            note="a year",
        ),
        Headline(
            name="inside",
            title="quotes that contain the fit",
            value=surface.inside,
            style="percent",
            note="widened by half a point",
        ),
    ]


def list_parts(surface: Surface) -> list[Part]:
    n_expiries = len(surface.years)
    parts = [
        Part(
            key="quality",
            title="Quality of the fit",
            lead="By expiry.",
            blocks=lambda: list_fits(surface),
            shows="both",
        ),
        Part(
            key="smiles",
            title="Smiles",
            lead="Lines: the fit. Bars: bid to ask.",
            blocks=lambda: [draw_smile(surface, place) for place in range(n_expiries)],
        ),
        Part(
            key="defects",
            title="Data",
            lead="What the inspection of the quotes found.",
            blocks=lambda: tabulate_defects(surface),
        ),
    ]
    if n_expiries > 1:
        map_part = Part(
            key="surface",
            title="Surface",
            lead="Volatility by moneyness and time to expiry.",
            blocks=lambda: [draw_map(surface)],
        )
        parts.insert(1, map_part)
    return parts


def draw_smile(surface: Surface, place: int) -> ShownChart:
    """Return the fit of an expiry, and its quotes out of the money from bid to ask."""
    fit = surface.fits.iloc[place]
    smile = surface.smiles[place]
    reach = REACH * float(np.sqrt(smile.total_variance(0.0)))

    k = np.linspace(-reach, reach, 121)
    volatility = np.sqrt(smile.total_variance(k) / fit["years"])
    fitted = pd.DataFrame({"fit": volatility}, index=fit["forward"] * np.exp(k))

    quotes = surface.quotes[surface.quotes["expiry"] == fit["expiry"]]
    is_near = quotes["k"].abs() <= reach
    is_shown = is_out_of_the_money(quotes) & quotes["bid_iv"].notna() & is_near
    quoted = quotes[is_shown].set_index("strike")[["bid_iv", "ask_iv"]]
    return ShownChart(
        key=f"smile-{place}",
        title=f"{fit['expiry']:%Y-%m-%d %H:%M}, {YEAR_DAYS * fit['years']:.1f} days",
        caption=f"{100 * fit['inside']:.0f} % of {fit['quotes']} quotes contain the fit.",
        table=pd.concat([fitted, quoted]).sort_index(kind="stable"),
        kind="quotes",
        x="strike",
        percent="y",
        y="a year",
        size="half",
        height=240,
    )


def draw_map(surface: Surface) -> ShownChart:
    steps = np.linspace(-2.5, 2.5, 41)
    columns = {}
    for years in np.geomspace(surface.years[0], surface.years[-1], 24):
        k = steps * surface.atm(float(years)) * np.sqrt(years)
        variance = surface.total_variance(k, float(years))
        columns[YEAR_DAYS * years] = 100.0 * np.sqrt(variance / years)

    names = ["days to expiry", "moneyness, standard deviations"]
    cells: Any = pd.DataFrame(columns, index=steps).unstack()
    return ShownChart(
        key="map",
        title="Map of volatility",
        caption=(
            "% a year. Moneyness is ln(K / F) over the volatility at the money times root time."
        ),
        table=cells.rename_axis(names).swaplevel().to_frame("volatility"),
        kind="heat",
        colors={"volatility": "accent"},
        height=380,
    )


def list_fits(surface: Surface) -> list[Shown]:
    arbitrage = surface.arbitrage()
    n_butterflies = int(arbitrage["butterfly"].sum())
    crossings = core.capitalize(describe_crossings(arbitrage))
    return [
        tabulate_fits(surface),
        f"Butterfly arbitrage in {n_butterflies} of {len(arbitrage)} expiries. {crossings}.",
    ]


def tabulate_fits(surface: Surface) -> ShownTable:
    fits = surface.fits
    columns = {
        "days": YEAR_DAYS * fits["years"],
        "forward": fits["forward"],
        "from": fits["forward_source"].astype(str),
        "quotes": fits["quotes"],
        "inside": fits["inside"],
        "median_error": fits["median_error"],
        "worst_error": fits["worst_error"],
        "least_density": fits["least_density"],
    }
    labels = [f"{expiry:%Y-%m-%d %H:%M}" for expiry in fits["expiry"]]
    return ShownTable(
        pd.DataFrame(columns).set_axis(labels),
        caption="Fits",
        note=(
            "Errors against the venue's marks, of two-sided quotes within 2.5 standard deviations."
        ),
        labels=Head("expiry"),
        heads={
            **list_heads("percent", ("inside", "median_error", "worst_error"), unit=""),
            "days": Head("days", "", "days"),
            "forward": Head("forward", "", "price"),
            "quotes": Head("quotes", "", "count"),
        },
    )


def tabulate_defects(surface: Surface) -> Iterator[Shown]:
    totals = surface.chain.inspect().total
    counts = [totals[name] for name in CHECKS]
    names = [words for words, *_ in CHECKS.values()]
    checks = pd.DataFrame({"rows": counts}, index=names)
    yield ShownTable(
        checks[checks["rows"] > 0],
        caption="Inspection",
        labels=Head("check"),
        heads={"rows": Head("rows", "", "count")},
        empty="The inspection found nothing.",
    )

    reasons = surface.left_out["reason"].value_counts()
    if len(reasons):
        yield ShownTable(
            reasons.to_frame(),
            caption="Left out of the fit",
            labels=Head("reason"),
            heads={"count": Head("quotes", "", "count")},
        )


def describe_quotes(surface: Surface) -> str:
    expiries = core.count_nouns(len(surface.years), "expiry", "expiries")
    quotes = core.count_nouns(len(surface.quotes), "two-sided quote")
    name = surface.underlying or "options"
    return f"{name}, {surface.time:%Y-%m-%d %H:%M} UTC, {quotes} in {expiries}"


def collect(surface: Surface) -> dict[str, Any]:
    return {
        "fits": surface.fits.astype(str).to_dict("records"),
        "left_out": surface.left_out.astype(str).to_dict("records"),
    }

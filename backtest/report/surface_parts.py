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


def list_numbers(found: Surface) -> list[Headline]:
    tenor = found.headline_tenor
    days = f"{YEAR_DAYS * tenor:.3g} days"
    skew = found.skew(tenor)
    return [
        Headline("atm", f"at the money, {days}", found.atm(tenor), "percent", "a year"),
        Headline("skew", "skew, 25 delta", skew, note=f"put less call, {days}",
                 text=f"{100 * skew:+.1f} points"),
        Headline("vix", f"model-free, {days}", found.vix(tenor), "percent", "a year"),
        Headline("inside", "quotes that contain the fit", found.inside, "percent",
                 "widened by half a point"),
    ]  # fmt: skip


def list_parts(found: Surface) -> list[Part]:
    several = len(found.years) > 1
    return [
        Part("quality", "Quality of the fit", "By expiry.", lambda: list_fits(found), "both"),
        Part("surface", "Surface", "Volatility by moneyness and time to expiry.",
             lambda: [draw_map(found)] if several else []),
        Part("smiles", "Smiles", "Lines: the fit. Bars: bid to ask.",
             lambda: [draw_smile(found, place) for place in range(len(found.years))]),
        Part("defects", "Data", "What the inspection of the quotes found.",
             lambda: tabulate_defects(found)),
    ]  # fmt: skip


def draw_smile(found: Surface, place: int) -> ShownChart:
    row, smile = found.fits.iloc[place], found.smiles[place]
    part = found.quotes[found.quotes["expiry"] == row["expiry"]]
    money = float(np.sqrt(smile.total_variance(0.0)))
    part = part[
        is_out_of_the_money(part) & part["bid_iv"].notna() & (part["k"].abs() <= REACH * money)
    ]
    k = np.linspace(-REACH * money, REACH * money, 121)
    fitted = pd.DataFrame({"fit": np.sqrt(smile.total_variance(k) / row["years"])},
                          index=row["forward"] * np.exp(k))  # fmt: skip
    quoted = part.set_index("strike")[["bid_iv", "ask_iv"]]
    table = pd.concat([fitted, quoted]).sort_index(kind="stable")
    title = f"{row['expiry']:%Y-%m-%d %H:%M}, {YEAR_DAYS * row['years']:.1f} days"
    caption = f"{100 * row['inside']:.0f} % of {row['quotes']} quotes contain the fit."
    return ShownChart(f"smile-{place}", title, caption, table, "quotes", x="strike",
                      percent="y", y="a year", size="half", height=240)  # fmt: skip


def draw_map(found: Surface) -> ShownChart:
    years = np.geomspace(found.years[0], found.years[-1], 24)
    steps = np.linspace(-2.5, 2.5, 41)
    rows = {}
    for each in years:
        k = steps * found.atm(float(each)) * np.sqrt(each)
        rows[YEAR_DAYS * each] = 100.0 * np.sqrt(found.total_variance(k, float(each)) / each)
    names = ["days to expiry", "moneyness, standard deviations"]
    found_at: Any = pd.DataFrame(rows, index=steps).unstack()
    table = found_at.rename_axis(names).swaplevel().to_frame("volatility")
    caption = "% a year. Moneyness is ln(K / F) over the volatility at the money times root time."
    return ShownChart("map", "Map of volatility", caption, table, "heat",
                      colors={"volatility": "accent"}, height=380)  # fmt: skip


def list_fits(found: Surface) -> list[Shown]:
    fits, arbitrage = found.fits, found.arbitrage()
    butterflies = f"{int(arbitrage['butterfly'].sum())} of {len(arbitrage)} expiries"
    table = pd.DataFrame({
        "days": YEAR_DAYS * fits["years"], "forward": fits["forward"],
        "from": fits["forward_source"].astype(str), "quotes": fits["quotes"],
        "inside": fits["inside"], "median_error": fits["median_error"],
        "worst_error": fits["worst_error"], "least_density": fits["least_density"],
    }).set_axis([f"{each:%Y-%m-%d %H:%M}" for each in fits["expiry"]])  # fmt: skip
    heads = list_heads("percent", ("inside", "median_error", "worst_error"), "") | {
        "days": Head("days", "", "days"), "forward": Head("forward", "", "price"),
        "quotes": Head("quotes", "", "count"),
    }  # fmt: skip
    note = "Errors against the venue's marks, of two-sided quotes within 2.5 standard deviations."
    crossings = core.capitalize(describe_crossings(arbitrage))
    return [
        ShownTable(table, "Fits", note, Head("expiry"), heads),
        f"Butterfly arbitrage in {butterflies}. {crossings}.",
    ]


def tabulate_defects(found: Surface) -> Iterator[Shown]:
    totals = found.chain.inspect().total
    rows = pd.DataFrame({"rows": [totals[name] for name in CHECKS]},
                        index=[CHECKS[name][0] for name in CHECKS])  # fmt: skip
    count = {"rows": Head("rows", "", "count"), "count": Head("quotes", "", "count")}
    yield ShownTable(rows[rows["rows"] > 0], "Inspection", "", Head("check"), count,
                     empty="The inspection found nothing.")  # fmt: skip
    left = found.left_out["reason"].value_counts()
    yield ShownTable(left.to_frame() if len(left) else None, "Left out of the fit", "",
                     Head("reason"), count)  # fmt: skip


def describe_quotes(found: Surface) -> str:
    expiries = core.count_nouns(len(found.years), "expiry", "expiries")
    quotes = core.count_nouns(len(found.quotes), "two-sided quote")
    name = found.underlying or "options"
    return f"{name}, {found.time:%Y-%m-%d %H:%M} UTC, {quotes} in {expiries}"


def collect(found: Surface) -> dict[str, Any]:
    return {
        "fits": found.fits.astype(str).to_dict("records"),
        "left_out": found.left_out.astype(str).to_dict("records"),
    }

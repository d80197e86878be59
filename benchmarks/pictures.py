"""Draw the README's pictures from the embedded sample, with the Chromium that is installed.

    python benchmarks/pictures.py [--out docs/pictures] [--bars 8760] [--sets 24] [--hedges FILE]

Prints where they are, as JSON. ``--sets`` is the number of values in each direction of the sweep.
With ``--hedges``, only the picture of docs/options.md is drawn, from the JSON that
``simulated_hedge.py --sweep`` printed. The numbers in them are the same everywhere; fonts and
pixels are those of the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import backtest as bt
from backtest.report.page.figures import (
    build_chart,
    build_layout,
    color_key,
    draw_line,
    draw_points,
    stack_panels,
)
from backtest.report.page.formats import write_page
from backtest.report.page.page import Chart, Page, Section
from backtest.strategies import Constant, Cppi, VolTarget

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
COLORS = ("ink", "accent", "loss")
"""Of the deltas, from the farthest out of the money on."""


def draw_run(market: bt.Market, folder: Path) -> Path:
    """Return the picture of an account that asks for five times its equity."""
    account = bt.Account(capital=10_000, margin="isolated", venue_leverage=10, band=0.5)
    result = bt.run(market, Constant(leverage=5.0), venue=VENUE, account=account)
    return result.report(folder / "run.png")


def draw_sweep(market: bt.Market, folder: Path, sets: int) -> Path:
    """Return the picture of where the good volatility targets lie."""
    values = {
        "target": np.geomspace(0.1, 1.6, sets),
        "half_life": np.geomspace(6.0, 720.0, sets),
        "account.band": [0.0, 0.1],
    }
    swept = bt.sweep(market, VolTarget, values, venue=VENUE, account=bt.Account(capital=10_000))
    return swept.report(folder / "sweep.png")


def draw_comparison(market: bt.Market, folder: Path) -> Path:
    """Return the picture of three policies over each other."""
    policies = {
        "volatility target": VolTarget(target=0.4),
        "constant 1x": Constant(leverage=1.0),
        "CPPI": Cppi(multiplier=3.0),
    }
    account = bt.Account(capital=10_000, band=0.05)
    compared = bt.compare(market, policies, venue=VENUE, account=account)
    return compared.report(folder / "compare.png")


def draw_hedges(found: Mapping[str, Any], folder: Path) -> Path:
    """Return the picture of growth against ruin by tenor, delta and budget of a tail hedge."""
    budgets = ", ".join(f"{100 * each:g} %" for each in list_values(found, "budget"))
    lead = (
        f"Up and to the left is better. Each line begins without a hedge (gray) and goes on to "
        f"budgets of {budgets} of equity a roll."
    )
    section = Section("hedges", "Growth against ruin", lead, [chart_hedges(found)])
    page = Page(
        kind="benchmark", manifest={"id": "hedges"}, title="Tail hedges on simulated paths",
        notices=(), summary="", facts=(),
        write_sections=lambda: [section],
        about=f"{found['paths']:,} paths, {found['leverage']:g} turns, options at "
        f"{found['ratio']:g} times the volatility of the path",
    )  # fmt: skip
    path = folder / "hedges.png"
    write_page(page, path)
    return path


def list_values(found: Mapping[str, Any], name: str) -> list[float]:
    """Return the values of a parameter of the sweep, in order."""
    return sorted({float(row[name]) for row in found["sweep"]})


def chart_hedges(found: Mapping[str, Any]) -> Chart:
    """Return a panel for each tenor with a line for each delta."""
    tenors, deltas = list_values(found, "tenor"), list_values(found, "delta")
    pairs = [*zip(reversed(deltas), COLORS, strict=True)]
    keys = ", ".join(color_key(f"delta {delta:g}", color) for delta, color in pairs)
    titles = [f"{tenor:g} days: {keys}" for tenor in tenors]
    layout = build_layout(800, **stack_panels(titles, [1.0] * len(titles), 0.07))
    ends = {"type": "linear", "showgrid": True, "tickformat": ".1~%"}
    layout["xaxis"] |= ends | {"title": {"text": "paths ruined"}}
    traces = []
    for panel, tenor in enumerate(tenors, 1):
        axis = {"tickformat": ".1~%", "title": {"text": "mean log growth"}}
        layout["yaxis" if panel == 1 else f"yaxis{panel}"] |= axis | {"matches": "y"}
        for delta, color in pairs:
            traces += draw_hedge(found, tenor, delta, color, f"y{panel}")
    ruin, n = found["no_hedge"]["ruin"], found["paths"]
    error = 100.0 * (ruin * (1.0 - ruin) / n) ** 0.5
    caption = f"All have the same {n:,} paths. The standard error of a ruin is {error:.1f} points."
    return build_chart("hedges", "By tenor and delta", caption, traces, layout)


def draw_hedge(
    found: Mapping[str, Any], tenor: float, delta: float, color: str, axis: str
) -> Iterator[dict[str, Any]]:
    """Yield the line of a tenor and a delta: no hedge, then the budgets, in larger points."""
    rows = [row for row in found["sweep"] if (row["tenor"], row["delta"]) == (tenor, delta)]
    points = [found["no_hedge"], *sorted(rows, key=lambda row: row["budget"])]
    x, y = ([row[name] for row in points] for name in ("ruin", "mean_log_growth"))
    name = f"delta {delta:g}"
    yield draw_line(x, y, name, color, yaxis=axis)
    for k, (ruin, growth) in enumerate(zip(x, y, strict=True)):
        by = color if k else "neutral"
        yield draw_points([ruin], [growth], name, by, size=6 + 2 * k, yaxis=axis)


def main() -> None:
    """Draw all of them, and print where they are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--bars", type=int, default=8760)
    parser.add_argument("--sets", type=int, default=24)
    parser.add_argument("--hedges", type=Path, help="JSON of simulated_hedge.py --sweep")
    wanted = parser.parse_args()
    if wanted.hedges is not None:
        drawn = [draw_hedges(json.loads(wanted.hedges.read_text("utf-8")), wanted.out)]
        print(json.dumps({"pictures": list(map(str, drawn))}))  # noqa: T201 - a script
        return
    market, folder = bt.Market.sample(bars=wanted.bars), wanted.out
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        draw_run(market, folder),
        draw_sweep(market, folder, wanted.sets),
        draw_comparison(market, folder),
    ]
    print(json.dumps({"pictures": list(map(str, drawn))}))  # noqa: T201 - a script


if __name__ == "__main__":
    main()

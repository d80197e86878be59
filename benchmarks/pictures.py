"""Draw the README's pictures from the embedded sample, with Playwright and Chromium.

    python benchmarks/pictures.py [--out docs/pictures] [--bars 8760] [--sets 24]

Prints where they are, as JSON. ``--sets`` is the number of values in each direction of the sweep.
The numbers in them are the same everywhere; fonts and pixels are those of the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

import backtest as bt
from backtest.report.page.formats import write_page
from backtest.report.page.page import Page
from backtest.report.write import build_page
from backtest.strategies import Constant, Cppi, VolTarget

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
ASIDE = "nav, .skip, #theme, .controls, .modebar-container"
"""Parts of a page that a picture leaves out."""


def draw(page: Page, path: Path) -> Path:
    """Return the picture of the head of a page and its first chart."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        source = write_page(page, Path(folder) / "page.html")
        launched = started.chromium.launch(executable_path=browser, args=FLAGS)
        window = launched.new_page(viewport={"width": 1280, "height": 900})
        window.goto(source.as_uri())
        window.wait_for_selector("html[data-ready=yes]", state="attached")
        window.add_style_tag(content=f"{ASIDE} {{ display: none !important; }}")
        box = window.locator("figure").first.bounding_box()
        high = box["y"] + box["height"] + 24.0
        clip = {"x": 0.0, "y": 0.0, "width": 1280.0, "height": high}
        window.screenshot(path=path, clip=clip, full_page=True)
        launched.close()
    return path


def draw_run(market: bt.Market, folder: Path) -> Path:
    """Return the picture of an account that asks for five times its equity."""
    account = bt.Account(capital=10_000, margin="isolated", venue_leverage=10, band=0.5)
    result = bt.run(market, Constant(leverage=5.0), venue=VENUE, account=account)
    return draw(build_page(result), folder / "run.png")


def draw_sweep(market: bt.Market, folder: Path, sets: int) -> Path:
    """Return the picture of where the good volatility targets lie."""
    values = {
        "target": np.geomspace(0.1, 1.6, sets),
        "half_life": np.geomspace(6.0, 720.0, sets),
        "account.band": [0.0, 0.1],
    }
    swept = bt.sweep(market, VolTarget, values, venue=VENUE, account=bt.Account(capital=10_000))
    return draw(build_page(swept), folder / "sweep.png")


def draw_comparison(market: bt.Market, folder: Path) -> Path:
    """Return the picture of three policies over each other."""
    policies = {
        "volatility target": VolTarget(target=0.4),
        "constant 1x": Constant(leverage=1.0),
        "CPPI": Cppi(multiplier=3.0),
    }
    account = bt.Account(capital=10_000, band=0.05)
    compared = bt.compare(market, policies, venue=VENUE, account=account)
    return draw(build_page(compared), folder / "compare.png")


def main() -> None:
    """Draw all of them, and print where they are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--bars", type=int, default=8760)
    parser.add_argument("--sets", type=int, default=24)
    wanted = parser.parse_args()
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

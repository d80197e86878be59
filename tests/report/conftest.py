"""A run, its page, a sweep, and a browser.

Browser tests need Chromium (Debian: ``apt install chromium``) and Playwright; they are skipped
where one is missing.
"""

import shutil

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.render import write_html
from backtest.report.write import build_page
from backtest.strategies import Constant, VolTarget
from tests.kit import AT_BINANCE

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def result():
    days = pd.to_datetime(["2023-01-20", "2023-02-10"], utc=True)
    return live(
        Constant(leverage=8.0), days=80, margin="isolated", venue_leverage=20, margin_call=0.6,
        reserve=3000.0, top_up_to=0.3, flows=pd.Series([2000.0, -500.0], index=days),
    )  # fmt: skip


@pytest.fixture(scope="session")
def page(result):
    return build_page(result)


@pytest.fixture(scope="session")
def html(page):
    return write_html(page)


@pytest.fixture(scope="session")
def sweep():
    values = {"target": np.linspace(0.1, 1.5, 5), "half_life": [12.0, 24.0, 72.0]}
    values["account.band"] = [0.0, 0.1]
    return bt.Backtest(bt.Market.sample(bars=24 * 5), **AT_BINANCE).sweep(VolTarget, values)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


def live(policy, days=40, **settings):
    """Run on days of the sample."""
    market = bt.Market.sample(bars=24 * days)
    return bt.run(market, policy, **{**AT_BINANCE, "account": bt.Account(**settings)})

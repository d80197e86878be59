"""The summary tells what happened, in lines that fit, with numbers that are the result's."""

import math
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.engine.run_record import measure_holding, sample_risk_free
from tests.kit import bars_market

ROOT = Path(__file__).parents[2]
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
FREE = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.001, max_leverage=100, liquidation_fee=0.0
)


class Hold(bt.Policy):
    """Hold a leverage."""

    turns: Annotated[float, bt.Range(0, 125)] = 1.0

    def leverage(self, bar, account):
        return self.turns


def live(market, turns=1.0, venue=VENUE, **settings):
    return bt.run(market, Hold(turns), venue=venue, account=bt.Account(**settings), compile=False)


@pytest.fixture(scope="module")
def market():
    return bt.Market.sample(bars=24 * 60)


@pytest.fixture(scope="module")
def calm(market):
    return live(market)


@pytest.fixture(scope="module")
def wild():
    """Liquidated every day: 5 % of the notional is posted, and the price falls by 6 %."""
    return live(make_market([-0.06] * 20), 2.0, margin="isolated", venue_leverage=20.0)


def make_market(steps):
    """Return daily bars whose closes move by these fractions."""
    close = 100.0 * np.cumprod(1.0 + np.asarray(steps))
    return bars_market(np.concatenate(([100.0], close[:-1])), close, "1D", volume=1.0)


def test_it_shows_the_result_own_numbers(calm):
    text, metrics = calm.summary(), calm.metrics
    for name in ("total_return", "volatility", "max_drawdown", "es_95", "cagr"):
        assert f"{100 * metrics[name]:,.2f} %" in text
    for name in ("sharpe", "calmar", "mean_leverage", "peak_leverage", "turnover"):
        assert f"{metrics[name]:,.2f}" in text
    assert f"{metrics['final_equity']:,.2f}" in text
    assert "causality" in text


def test_the_statement_adds_up(wild, calm):
    for result in (wild, calm):
        block = result.summary().split("equity at the start", 1)[1].split("equity at the end")
        amounts = [
            float(x.replace(",", "")) for x in re.findall(r"[-+]?[\d,]+\.\d\d(?! %)", block[0])
        ]
        final = float(block[1].split()[0].replace(",", ""))
        assert amounts[0] == 10_000.0
        assert sum(amounts) == pytest.approx(final, abs=0.06)


def test_buy_and_hold_is_the_mark_price_itself():
    """Closes 100 · 1.1 · 0.5 · 1.2: from the first close 110, a fall of 50 %, then + 20 %."""
    result = live(make_market([0.1, -0.5, 0.2]))
    held = measure_holding(result)
    assert held.total_return == pytest.approx(0.5 * 1.2 - 1.0)
    assert held.max_drawdown == pytest.approx(0.5)
    returns = np.array([0.0, -0.5, 0.2])
    spread = returns.std(ddof=1)
    assert held.volatility == pytest.approx(spread * math.sqrt(365))
    assert held.sharpe == pytest.approx(returns.mean() / spread * math.sqrt(365))


def test_buy_and_hold_at_1x_without_costs_is_what_an_account_would_have(market):
    """No fee, no funding, bought at the second open, which is the first close."""
    held = bt.Market.from_frames(market.bars())
    result = live(held, venue=FREE, band=1e9)
    bought = held.open[1] / held.close[0]
    ours = 1.0 + measure_holding(result).total_return
    if (result.bars["position"].iloc[1:] > 0).all():
        assert 1.0 + result.metrics["total_return"] == pytest.approx(ours / bought, rel=1e-9)


def test_the_risk_free_rate_is_taken_off_both():
    venue = FREE.override(interest_on="balance", cash_rate=0.0365)
    result = live(make_market([0.01, -0.02, 0.03]), venue=venue)
    assert sample_risk_free(result) == pytest.approx([1e-4] * 3)
    assert (
        measure_holding(result).sharpe
        < measure_holding(live(make_market([0.01, -0.02, 0.03]))).sharpe
    )


def test_every_metric_is_explained_and_nothing_else(calm):
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    text = text.partition("## Functions of arrays")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(explained) == sorted(calm.metrics)

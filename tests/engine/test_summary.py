"""The summary tells what happened, in lines that fit, with numbers that are the result's."""

import math
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.number_text import format_price
from backtest.engine.result_text import measure_holding, write_summary
from backtest.engine.run_record import sample_risk_free
from backtest.strategies import Constant

ROOT = Path(__file__).parents[2]
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


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


def make_market(steps, **settings):
    """Return daily bars whose closes move by these fractions."""
    close = 100.0 * np.cumprod(1.0 + np.asarray(steps))
    opened = np.concatenate(([100.0], close[:-1]))
    bars = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close),
            "low": np.minimum(opened, close),
            "close": close,
            "volume": 1.0,
        },
        index=pd.date_range("2021-01-01", periods=len(close), freq="1D", tz="UTC"),
    )
    return bt.Market.from_frames(bars, instrument="TEST", **settings)


def test_lines_fit_a_terminal_of_80_columns_and_hold_no_color_codes(calm, wild):
    for result in (calm, wild):
        text = result.summary()
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
        assert not any(line != line.rstrip() for line in text.splitlines())


def test_synthetic_data_and_missing_marks_are_said(calm, wild):
    assert "SYNTHETIC" in calm.summary()
    assert "liquidations tested on last prices" not in calm.summary()
    assert "SYNTHETIC" not in wild.summary()
    assert "liquidations tested on last prices" in flat(wild.summary())


def test_it_shows_the_result_own_numbers(calm):
    text, metrics = calm.summary(), calm.metrics
    for name in ("total_return", "volatility", "max_drawdown", "var_95", "es_99", "cagr"):
        assert f"{100 * metrics[name]:,.2f} %" in text
    for name in ("sharpe", "sortino", "calmar", "mean_leverage", "peak_leverage", "turnover"):
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
    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.001, max_leverage=100, liquidation_fee=0.0
    )
    bars = market.bars()
    held = bt.Market.from_frames(bars)
    result = live(held, venue=venue, band=1e9)
    bought = held.open[1] / held.close[0]
    ours = 1.0 + measure_holding(result).total_return
    if (result.bars["position"].iloc[1:] > 0).all():
        assert 1.0 + result.metrics["total_return"] == pytest.approx(ours / bought, rel=1e-9)


def test_the_risk_free_rate_is_taken_off_both():
    venue = bt.Venue.simple(
        taker=0.0,
        slippage=0.0,
        maintenance_rate=0.001,
        max_leverage=100,
        liquidation_fee=0.0,
        interest_on="balance",
        cash_rate=0.0365,
    )
    result = live(make_market([0.01, -0.02, 0.03]), venue=venue)
    assert sample_risk_free(result) == pytest.approx([1e-4] * 3)
    assert (
        measure_holding(result).sharpe
        < measure_holding(live(make_market([0.01, -0.02, 0.03]))).sharpe
    )


def test_what_interest_is_charged_on_is_said():
    market = make_market([0.01, -0.02, 0.03])
    terms = {
        "taker": 0.0, "slippage": 0.0, "maintenance_rate": 0.001, "max_leverage": 100,
        "liquidation_fee": 0.0,
    }  # fmt: skip
    on_loan = bt.Venue.simple(**terms, interest_on="loan", borrow_rate=0.08)
    text = flat(live(market, venue=on_loan).summary())
    assert "interest on the loan: borrowed cash pays 8 % a year" in text
    rates = pd.Series([0.01, 0.02], index=market.times[:2])
    on_balance = bt.Venue.simple(**terms, interest_on="balance", cash_rate=rates)
    text = live(market, venue=on_balance).summary()
    assert "interest on the balance: a positive balance earns 1 to 2 % a year" in flat(text)
    assert re.search(r"^  interest on the balance +\+", text, re.MULTILINE)
    free = bt.Venue.simple(**terms, interest_on="loan")
    assert "on the loan" not in live(market, venue=free).summary()


def test_the_line_of_ruin_is_said_with_what_was_left():
    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.001, max_leverage=100, liquidation_fee=0.0
    )
    text = flat(live(make_market([0.0, -0.3, 0.0]), 2.0, venue=venue, ruin_at=0.5).summary())
    assert "ruined at 0.5" in text
    assert "equity 4,000.00, its line 50 % of the capital paid in, no trade since" in text


def test_liquidations_are_listed_up_to_eight_and_the_rest_counted(wild):
    count = int(wild.metrics["liquidations"])
    assert count > 8
    text = wild.summary()
    listed = re.findall(r"^  \d{4}-\d\d-\d\d \d\d:\d\d", text, re.MULTILINE)
    assert len(listed) == 8
    assert f"and {count - 8} more" in text
    first = wild.events[wild.events["kind"] == "liquidation"].iloc[0]
    assert format_price(first["price"]) in text
    assert f"{first['time']:%Y-%m-%d %H:%M}" in text


def test_the_drawdown_has_dates_and_says_whether_it_is_over():
    over = flat(live(make_market([0.1, 0.1, -0.2, 0.1, 0.3])).summary())
    assert "from 2021-01-02 to 2021-01-03, recovered 2021-01-05" in over
    lasting = flat(live(make_market([0.1, 0.1, -0.2, 0.1])).summary())
    assert "not recovered by the end" in lasting


def test_ruin_is_said_with_its_time():
    venue = bt.Venue.simple(
        taker=0.0,
        slippage=0.0,
        maintenance_rate=0.01,
        max_leverage=20,
        liquidation_fee=0.0,
        mode="takeover",
    )
    text = live(make_market([0.0, 0.0, -0.3, 0.1]), 10.0, venue=venue).summary()
    assert "RUINED" in text
    assert "n/a" in text
    assert "Sharpe (0 after ruin)" in text
    assert "Sortino (0 after ruin)" in text
    assert "Returns after the ruin count as 0 in Sharpe, Sortino, volatility, VaR and ES." in text


def test_filled_gaps_are_said(market):
    bars, mark = market.bars(), market.mark()
    filled = bt.Market.from_frames(
        bars, mark=mark.drop(mark.index[100:110]), mark_gaps="last", instrument="X"
    )
    text = live(filled).summary()
    assert "mark_gaps" in text
    assert "the data had no gaps" not in text


def test_small_amounts_keep_their_figures(market):
    """An account of 0.5 coins shows more than two decimals."""
    venue = bt.Venue(
        contract=bt.Contract(kind="inverse", size=1.0, lot=1.0, min_notional=0.0),
        brackets=[bt.Bracket(0.0, 1e6, 50.0, 0.01)],
        fees=bt.Fees(taker=5e-4, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(fee=0.0, slippage=0.0),
    )
    text = live(market, venue=venue, capital=0.5).summary()
    assert "0.500000" in text
    assert "in the quote currency" in flat(text)


def test_a_loaded_result_has_the_same_summary(calm, wild, tmp_path):
    for result in (calm, wild):
        loaded = bt.Result.load(result.save(tmp_path))
        assert write_summary(loaded) == write_summary(result)


def test_every_metric_is_explained_and_nothing_else(calm):
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    text = text.partition("## Functions of arrays")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(explained) == sorted(calm.metrics)


def flat(text):
    """Return a text on one line, so that a line's end hides nothing."""
    return re.sub(r"\s+", " ", text)


def test_terms_of_orders_calls_and_automatic_margin_are_said(market):
    venue = bt.Venue(
        contract=bt.Contract(),
        brackets=[bt.Bracket(0.0, 1e9, 50.0, 0.01)],
        fees=bt.Fees(taker=5e-4, maker=0.0, per_order=1.5),
        slippage=bt.Slippage(rate=1e-4),
        liquidation=bt.Liquidation(fee=0.01, slippage=0.002, impact=0.3),
        profit_counts=0.25,
    )
    account = bt.Account(margin="isolated", venue_leverage=20, auto_margin=True, margin_call=0.21)
    result = bt.run(market, Constant(5.0), venue=venue, account=account, compile=False)
    text = flat(result.summary())
    for words in (
        "1.5 per order", "impact 0.3", "25% of unrealized profit backs orders", "automatic margin",
        "the rest of the wallet is added to it before a liquidation",
    ):  # fmt: skip
        assert words in text
    assert f"margin calls {result.metrics['margin_calls']:.0f}" in text

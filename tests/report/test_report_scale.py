"""Charts of money are drawn on the scale that they ask for, and survive zero and ruin."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.page.figures import choose_scale, drop_dust, encode_figure
from backtest.report.run.story_section import TRACE_HELD, draw_story
from backtest.report.write import build_page
from backtest.strategies import Constant

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
FREE = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=20, liquidation_fee=0.0,
    mode="takeover",
)  # fmt: skip


def grow(step, n=200):
    """Return a market whose price moves by a fraction each hour."""
    close = 100.0 * (1.0 + step) ** np.arange(1, n + 1)
    opens = np.concatenate([[100.0], close[:-1]])
    bars = pd.DataFrame(
        {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
         "close": close, "volume": 1e6},
        index=pd.date_range("2023-01-01", periods=n, freq="1h", tz="UTC"),
    )  # fmt: skip
    return bt.Market.from_frames(bars)


def story(step, leverage, venue=VENUE):
    account = bt.Account()
    result = bt.run(grow(step), Constant(leverage), venue=venue, account=account, compile=False)
    return result, draw_story(result).figure


def test_an_account_under_a_much_larger_price_is_on_a_log_scale_of_both_or_its_own():
    """The price rises 7 times, the account at half of it 2.7 times: together they are wide."""
    _, figure = story(0.01, 0.5)
    meta = figure["layout"]["meta"]
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert meta["is_log"]
    assert meta["held"] == [TRACE_HELD]
    assert figure["data"][TRACE_HELD]["name"] == "buy and hold 1x"
    assert max(meta["axes"]["own"]["tickvals"]) < max(meta["axes"]["all"]["tickvals"])
    assert "buy and hold" in meta["titles"][0]
    assert "buy and hold" not in meta["titles"][1]


def test_a_calm_account_is_on_a_linear_scale_and_may_be_put_on_a_log_one():
    _, figure = story(0.001, 0.5)
    assert figure["layout"]["yaxis"].get("type") is None
    assert not figure["layout"]["meta"]["is_log"]
    assert figure["layout"]["meta"]["axes"]["all"]["type"] == "log"


def test_a_ruined_account_is_drawn_on_both_scales():
    result, figure = story(-0.2, 6.0, FREE)
    assert result.metrics["ruined"] == 1.0
    equity = next(each for each in figure["data"] if each["name"] == "equity")["y"]
    assert equity[-1] == 0.0
    for axis in figure["layout"]["meta"]["axes"].values():
        assert all(value > 0.0 for value in axis.get("tickvals", ()))
    encode_figure(figure)


@pytest.mark.parametrize("values", [np.zeros(3), np.array([-1.0, -2.0]), np.full(3, np.nan)])
def test_without_a_positive_value_there_is_no_log_scale_to_choose(values):
    layout = {"yaxis": {}}
    choose_scale(layout, values)
    assert layout == {"yaxis": {}}


def test_dust_is_dropped_at_the_end_only():
    values = np.array([1.0, 1e-7, 0.5, 1e-8, 0.0])
    assert drop_dust(values).tolist() == [1.0, 1e-7, 0.5, 0.0, 0.0]


def test_accounts_of_a_comparison_have_the_same_choice():
    policies = {"half": Constant(0.5), "two": Constant(2.0)}
    market = grow(0.003, 24 * 32)
    made = bt.compare(market, policies, venue=VENUE, account=bt.Account(), compile=False, draws=99)
    meta = build_page(made).charts[0].figure["layout"]["meta"]
    assert meta["is_log"]
    assert meta["held"] == []

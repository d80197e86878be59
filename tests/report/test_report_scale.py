"""Charts of money survive zero and ruin."""

import numpy as np
import pandas as pd

import backtest as bt
from backtest.report.page.figures import drop_dust, encode_figure
from backtest.report.run.story_section import draw_story
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


def test_a_ruined_account_is_drawn_on_both_scales():
    result, figure = story(-0.2, 6.0, FREE)
    assert result.metrics["ruined"] == 1.0
    equity = next(each for each in figure["data"] if each["name"] == "equity")["y"]
    assert equity[-1] == 0.0
    for axis in figure["layout"]["meta"]["axes"].values():
        assert all(value > 0.0 for value in axis.get("tickvals", ()))
    encode_figure(figure)


def test_dust_is_dropped_at_the_end_only():
    values = np.array([1.0, 1e-7, 0.5, 1e-8, 0.0])
    assert drop_dust(values).tolist() == [1.0, 1e-7, 0.5, 0.0, 0.0]

"""The worst days of real prices, where the data are at hand."""

from pathlib import Path
from typing import Annotated

import pytest

import backtest as bt

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "btc-usdm-1h"
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


class OpenedOnce(bt.Policy):
    """Open at the first close, then leave the position alone."""

    turns: Annotated[float, bt.Range(0, 125)] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return self.turns if account.days < 0.05 else float("nan")


@pytest.fixture(scope="module")
def market() -> bt.Market:
    if not FOLDER.is_dir():
        pytest.skip(f"no real data at {FOLDER}")
    return bt.Market.load(FOLDER, between=("2020-01-01", "2024-01-01"))


def live(market, start, end, turns, signal):
    account = bt.Account(margin="isolated", venue_leverage=turns)
    return bt.run(
        market.between(start, end),
        OpenedOnce(turns=turns),
        venue=VENUE,
        account=account,
        signal=signal,
        compile=False,
    )


@pytest.mark.parametrize(("start", "end", "turns", "hour"), [
    ("2020-03-12", "2020-03-14", 3.0, "2020-03-12 23:00"),
    ("2020-03-12", "2020-03-14", 10.0, "2020-03-12 10:00"),
    ("2020-03-12", "2020-03-14", 25.0, "2020-03-12 02:00"),
    ("2021-05-19", "2021-05-21", 10.0, "2021-05-19 11:00"),
    ("2021-05-19", "2021-05-21", 25.0, "2021-05-19 01:00"),
])  # fmt: skip
def test_a_long_dies_on_the_day_at_a_price_inside_its_mark_bar(market, start, end, turns, hour):
    """The first mark bar whose low is at or under the liquidation price of the calculator."""
    result = live(market, start, end, turns, 1.0)
    dead = result.events[result.events["kind"] == "liquidation"]
    assert list(dead["time"].dt.strftime("%Y-%m-%d %H:%M")) == [hour]
    t = int(market.times.get_indexer(dead["time"])[0])
    assert market.mark_low[t] <= dead["price"].iloc[0] <= market.mark_high[t]
    fill = result.events[result.events["kind"] == "fill"].iloc[0]
    margin = fill.amount / turns
    stated = bt.margin.liquidation_price(VENUE, fill.quantity, fill.price, margin)
    assert dead["price"].iloc[0] == pytest.approx(stated, rel=2e-3)  # funding moves it a little
    lived = market.times.slice_indexer(result.bars.index[1], dead["time"].iloc[0])
    crossed = market.times[lived][market.mark_low[lived] <= dead["price"].iloc[0]]
    assert crossed[0] == dead["time"].iloc[0]


@pytest.mark.parametrize(
    ("start", "end"), [("2020-03-12", "2020-03-14"), ("2021-05-19", "2021-05-21")]
)
def test_unlevered_longs_and_shorts_live_through_it(market, start, end):
    for side in (1.0, -1.0):
        result = live(market, start, end, 1.0, side)
        assert result.metrics["liquidations"] == 0

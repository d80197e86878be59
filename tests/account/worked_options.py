"""Four accounts that hold options and trade them by quantities, worked by hand."""

import math
from typing import Annotated

import numpy as np
import pandas as pd

import backtest as bt


def make_market(prices):
    """Return hourly bars from one price to the next."""
    time = pd.date_range("2023-01-01 12:00", periods=len(prices) - 1, freq="1h", tz="UTC")
    bars = pd.DataFrame({"open": prices[:-1], "close": prices[1:], "volume": 0.0}, index=time)
    ends = bars[["open", "close"]]
    return bt.Market.from_frames(bars.assign(high=ends.max(axis=1), low=ends.min(axis=1)))


class Buy(bt.Policy):
    """Buy a leverage of futures at the first close, and leave it alone."""

    level: Annotated[float, bt.Range(0, 20, "turns")] = 0.0

    def leverage(self, bar, account):
        return self.level if account.days < 0.05 else math.nan


def live(prices, options, contracts, level, capital, rule, maintenance, **costs):
    """Return the run of an account that trades options after the first bar."""
    market, surfaces = make_market(prices), bt.Surfaces.fit(bt.Chain.sample())
    markets = bt.Markets({"BTC": market, **options}, surfaces={"BTC": surfaces}, currency="USDT")
    venue = bt.Venue.simple(
        taker=0,
        slippage=0,
        maintenance_rate=maintenance,
        max_leverage=1 / maintenance,
        liquidation_fee=0,
    ).override(option_costs=bt.OptionCosts(**costs))
    return bt.run(
        markets,
        Buy(level),
        venue=venue,
        account=bt.Account(capital=capital, requirement=rule),
        option_quantities=pd.DataFrame(contracts, index=market.times[:1]),
    )


free = {"fee": 0, "fee_cap": 1, "delivery_fee": 0, "delivery_cap": 1, "tick": 0, "spread": 0}
paid = {
    "fee": 0.0003,
    "fee_cap": 0.125,
    "delivery_fee": 0.00015,
    "delivery_cap": 0.125,
    "tick": 5,
    "spread": 0.01,
}
standard = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
net = bt.ScenarioMargin(
    moves=bt.margin.scenario_grid([-0.15, -0.075, 0, 0.075, 0.15], [0.3, 0.0, -0.3]),
    options=bt.OptionShocks(),
)


def make_option(kind, strike, day):
    return bt.Option(kind=kind, strike=strike, expiry=f"2023-01-{day} 12:00", underlying="BTC")


fall = np.linspace(100_000, 60_000, 161)  # 250 down in an hour
strangle = live(
    fall,
    {"put": make_option("put", 80_000, 31), "call": make_option("call", 120_000, 31)},
    {"put": -1.0, "call": -1.0},
    0.0,
    25_000,
    standard,
    0.05,
    **paid,
)
rise = np.concatenate((np.full(2, 1e5), np.linspace(1e5, 1.4e5, 119), [1.4e5]))
call = {"call": make_option("call", 105_000, "06")}
covered = live(rise, call, {"call": -1.0}, 2.0, 50_000, "reg-t", 0.25, **free)
naked = live(rise, call, {"call": -1.0}, 0.0, 50_000, "reg-t", 0.25, **free)
down, up = np.linspace(100_000, 65_000, 101), np.linspace(65_000, 90_000, 18)
dip = np.concatenate((np.full(2, 1e5), down, up, [90_000]))
put = {"put": make_option("put", 95_000, "06")}
lost = live(dip, put, {"put": 1.0}, 5.0, 20_000, standard, 0.05, **free)
saved = live(dip, put, {"put": 1.0}, 5.0, 20_000, net, 0.05, **free)

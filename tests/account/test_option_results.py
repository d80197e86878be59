"""What results say of options, on four accounts worked by hand."""

import functools

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import options
from backtest.results.option_profit import EXPLAINED
from tests.kit import Once, ask_test, bars_market, check_refused, make_venue

STRANGLE = [
    (99_500, 827.65, 594.45, 16_347.10, 9_981.76, 24_906.76, 0.03),
    (89_750, 1_652.08, 81.87, 15_196.45, 11_132.41, 24_594.91, 0.65),
    (79_750, 4_249.53, 6.52, 16_218.55, 10_110.31, 22_072.81, 1.69),
    (74_750, 6_894.24, 1.57, 18_108.31, 8_220.55, 19_433.05, 2.57),
]
"""Closes of the strangle: price, put, call, requirement, what is left, equity, leverage."""
COSTS = ["fees", "slippage", "impact", "funding", "interest", "liquidation_loss"]
pytestmark = pytest.mark.slow


def live(prices, options, contracts, level, capital, rule, maintenance, **costs):
    market = bars_market(prices[:-1], prices[1:], start="2023-01-01 12:00", volume=0.0)
    surfaces = bt.Surfaces.fit(bt.Chain.sample())
    venue = make_venue(maintenance_rate=maintenance, max_leverage=1 / maintenance)
    venue = venue.override(option_costs=bt.OptionCosts(**costs))
    markets = bt.Markets({"BTC": market, **options}, surfaces={"BTC": surfaces}, currency="USDT")
    account = bt.Account(capital=capital, requirement=rule)
    wanted = pd.DataFrame(contracts, index=market.times[:1])
    return bt.run(markets, Once(level), venue=venue, account=account, option_quantities=wanted)


FREE = {"fee": 0, "fee_cap": 1, "delivery_fee": 0, "delivery_cap": 1, "tick": 0, "spread": 0}
PAID = {
    "fee": 0.0003, "fee_cap": 0.125, "delivery_fee": 0.00015, "delivery_cap": 0.125, "tick": 5,
    "spread": 0.01,
}  # fmt: skip
STANDARD = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
NET = bt.ScenarioMargin(
    moves=[(m, 1.0, v) for m in (-0.15, -0.075, 0, 0.075, 0.15) for v in (0.3, 0.0, -0.3)],
    options=bt.OptionShocks(),
)


def make_option(kind, strike, day):
    return bt.Option(kind=kind, strike=strike, expiry=f"2023-01-{day} 12:00", underlying="BTC")


FALL = np.linspace(100_000, 60_000, 161)  # 250 down in an hour
RISE = np.concatenate((np.full(2, 1e5), np.linspace(1e5, 1.4e5, 119), [1.4e5]))
DIP = np.concatenate((
    np.full(2, 1e5), np.linspace(100_000, 65_000, 101), np.linspace(65_000, 90_000, 18), [90_000],
))  # fmt: skip
BOTH = {"put": make_option("put", 80_000, 31), "call": make_option("call", 120_000, 31)}
CALL = {"call": make_option("call", 105_000, "06")}
PUT = {"put": make_option("put", 95_000, "06")}
RUNS = {
    "strangle": (FALL, BOTH, {"put": -1.0, "call": -1.0}, 0.0, 25_000, STANDARD, 0.05, PAID),
    "covered": (RISE, CALL, {"call": -1.0}, 2.0, 50_000, "reg-t", 0.25, FREE),
    "naked": (RISE, CALL, {"call": -1.0}, 0.0, 50_000, "reg-t", 0.25, FREE),
    "lost": (DIP, PUT, {"put": 1.0}, 5.0, 20_000, STANDARD, 0.05, FREE),
    "saved": (DIP, PUT, {"put": 1.0}, 5.0, 20_000, NET, 0.05, FREE),
}
"""Four accounts that trade options after the first bar, the last with two rules."""


@functools.cache
def example(name):
    *given, costs = RUNS[name]
    return live(*given, **costs)


def test_a_strangle_fails_where_marks_and_margin_take_the_balance():
    """0.15 S and the marks of put and call reach the balance at S = 62,950."""
    result = example("strangle")
    first = result.bars.iloc[1]
    marks = result.positions.pivot(index="time", columns="instrument", values="mark")
    put, call = marks.loc[result.bars.index[1], ["put", "call"]]
    balance = 25_000 + 792.929309 + 595.777899 - 2 * 0.0003 * 99_750
    assert first["balance"] == first["backing"] == pytest.approx(balance, rel=1e-9)
    needed = 2 * 0.075 * 99_500 + put + call
    assert first["requirement"] == pytest.approx(needed, rel=1e-12)
    closed = result.events[result.events["kind"] == "liquidation"]
    assert (balance - closed["price"].sum()) / 0.15 == pytest.approx(62_950.4, abs=0.1)
    surface, when = bt.Surfaces.fit(bt.Chain.sample()).surfaces[0], closed["time"].iloc[0]
    assert surface.time < when
    bars = result.bars.join(marks)
    for price, *shown in STRANGLE:
        bar = bars.loc[(bars["BTC"] - price).abs().idxmin()]
        left, leverage = bar["backing"] - bar["requirement"], bar["options_leverage"]
        found = [bar["put"], bar["call"], bar["requirement"], left, bar["equity"], leverage]
        assert shown == [round(each, 2) for each in found]
    told = result.explained().loc["total", ["delta", "gamma", "vega", "theta", "vanna", "rest"]]
    assert told.round().tolist() == [-16_777, -127, 1_041, 410, 9, -3]


def read_premium(result):
    return result.fills.loc[result.fills["instrument"] != "BTC", "price"].iloc[0]


def test_a_covered_call_gives_the_strike_and_the_premium():
    """50,000 + 601.48 + 40,000 - 35,000; alone the call fails where its mark + S / 5 is M."""
    premium = read_premium(example("covered"))
    assert example("covered").metrics["final_equity"] == pytest.approx(55_000 + premium, abs=1e-9)
    row = example("covered").bars.loc["2023-01-03 04:00"]
    assert row["requirement"] == pytest.approx(0.25 * row["close"] + row["close"] - 105_000)
    (hit,) = example("naked").events.loc[example("naked").events["kind"] == "liquidation", "price"]
    spot = (50_000 + premium - hit) / 0.2
    assert spot == pytest.approx(129_644.9, abs=0.1)
    assert hit > spot - 105_000
    found = [premium, example("covered").metrics["final_equity"], hit, 0.2 * spot]
    assert [round(each, 2) for each in found] == [601.48, 55_601.48, 24_672.50, 25_928.98]


def test_a_put_saves_the_account_only_where_it_counts():
    """Truth 6: M = 20,000 - premium - (100,000 - S) alone fails at R = S / 20."""
    premium = read_premium(example("lost"))
    (hit,) = example("lost").events.loc[example("lost").events["kind"] == "liquidation", "price"]
    assert hit == pytest.approx((80_000 + premium) / 0.95, rel=1e-12)
    assert example("lost").metrics["final_equity"] == pytest.approx(0.05 * hit + 5_000, rel=1e-12)
    assert example("saved").metrics["liquidations"] == 0.0
    assert example("saved").metrics["final_equity"] == pytest.approx(15_000 - premium, rel=1e-12)
    assert example("saved").events["kind"].eq("expiry").sum() == 1
    certain, bars = 15_000 - premium, example("saved").bars
    assert bars["requirement"].max() == pytest.approx(0.15 * 90_000)
    assert certain > 13_500
    assert (bars["backing"] > bars["requirement"]).all()
    assert [round(each, 2) for each in (hit, certain)] == [85_015.36, 14_235.41]


@pytest.mark.parametrize("name", ["strangle", "covered", "naked", "lost", "saved"])
def test_all_money_adds_up(name):
    """Explained parts to price profits, positions and trades to the change of equity."""
    result = example(name)
    explained = result.explained()
    np.testing.assert_allclose(explained[list(EXPLAINED)].sum(axis=1), explained["price_pnl"])
    assert result.metrics["unexplained_share"] < 0.02
    made = result.attribution()
    own = result.positions.groupby("instrument", observed=True)[["price_pnl", *COSTS[:4]]].sum()
    np.testing.assert_allclose(own, made.loc[own.index, own.columns], atol=1e-9)
    change = result.metrics["final_equity"] - result.account.capital
    assert made.loc["total", "net"] == pytest.approx(change, abs=1e-7)
    assert made.loc["account", "net"] == pytest.approx(0.0, abs=1e-7)
    money = result.trades["profit"].sum() + result.trades.unallocated.sum()
    assert money == pytest.approx(change, abs=1e-7)
    bars = result.bars
    assert (bars["realized_pnl"] + bars["unrealized_pnl"].diff().fillna(0.0)).sum() == (
        pytest.approx(change + bars["fees"].sum() + bars["liquidation_loss"].sum(), abs=1e-6)
    )


def test_a_saved_result_reads_back_with_its_options(tmp_path):
    """Tables, measures and the page are those of the run."""
    result = example("strangle")
    loaded = bt.Result.load(result.save(tmp_path))
    for table in ("positions", "greeks", "events", "bars", "fills"):
        pd.testing.assert_frame_equal(getattr(loaded, table), getattr(result, table))
    pd.testing.assert_frame_equal(loaded.explained("day"), result.explained("day"))
    np.testing.assert_equal(dict(loaded.metrics), dict(result.metrics))
    assert loaded.summary() == result.summary()


def test_stress_moves_price_and_volatility():
    """In one bar without a move, a put at 1.5 times its volatility gains its price difference."""
    result = live(np.full(12, 1e5), PUT, {"put": 1.0}, 0.0, 20_000, NET, 0.05, **FREE)
    ladder = {"price": [-0.2, 0.0], "implied_volatility": [0.0, 0.5]}
    losses = bt.stress(result, bt.Scenario("still"), ladder=ladder).ladder["loss"]
    row = result.positions.iloc[-1]
    forward, years = result.options.quotes.forward_close[-1, 0], row["days"] / 365 - 1 / 8760
    new = options.price("put", forward, 95_000.0, years, 1.5 * row["volatility"])
    assert -losses[0.0, 0.5] == pytest.approx(new - row["mark"], rel=2e-3)
    assert losses[-0.2, 0.5] < losses[-0.2, 0.0] < losses[0.0, 0.0]
    assert not bt.stress(result, bt.Scenario("still")).notices


def test_stress_says_that_a_long_option_backs_nothing():
    held = live(np.full(12, 1e5), PUT, {"put": 1.0}, 0.0, 20_000, "deribit-standard", 0.05, **FREE)
    (notice,) = bt.stress(held, bt.Scenario("still")).notices
    worth = held.positions.iloc[-1]["mark"]
    told = f"options held are worth {worth:,.2f}, which back no position"
    assert notice.startswith(f"The {told}")
    text = " ".join(held.summary().split())
    assert told in text
    assert "against 0.00 % for buy and hold" in text


def test_options_are_refused_where_nothing_values_them():
    result = example("saved")
    markets, terms = result.markets, {"venue": result.venue, "account": result.account}
    said = "cannot hold options, got 'put'"
    check_refused(lambda: ask_test("replay", markets, result.fills, **terms), said)
    check_refused(lambda: ask_test("decide", markets, Once(), state=result, **terms), said)

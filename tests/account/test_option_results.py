"""What results say of options, on four accounts worked by hand."""

import functools

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import options
from backtest.report.option_charts import list_first_charts
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
    """Run options of one day's surfaces, ordered in the first bar, beside a leverage of BTC."""
    market = bars_market(prices[:-1], prices[1:], start="2023-01-01 12:00", volume=0.0)
    surfaces = bt.Surfaces.fit(bt.Chain.sample())
    markets = bt.Markets({"BTC": market, **options}, surfaces={"BTC": surfaces}, currency="USDT")

    venue = make_venue(maintenance_rate=maintenance, max_leverage=1 / maintenance)
    venue = venue.override(option_costs=bt.OptionCosts(**costs))
    account = bt.Account(capital=capital, requirement=rule)
    ordered = pd.DataFrame(contracts, index=market.times[:1])
    return bt.run(markets, Once(level), venue=venue, account=account, option_quantities=ordered)


FREE = {
    "fee": 0, "fee_cap": 1, "delivery_fee": 0, "delivery_cap": 1, "tick": 0, "spread": 0,
}  # fmt: skip
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
RUNS = {  # name: prices, options, contracts, leverage, capital, rule, maintenance, costs
    "strangle": (FALL, BOTH, {"put": -1.0, "call": -1.0}, 0.0, 25_000, STANDARD, 0.05, PAID),
    "covered": (RISE, CALL, {"call": -1.0}, 2.0, 50_000, "reg-t", 0.25, FREE),
    "naked": (RISE, CALL, {"call": -1.0}, 0.0, 50_000, "reg-t", 0.25, FREE),
    "lost": (DIP, PUT, {"put": 1.0}, 5.0, 20_000, STANDARD, 0.05, FREE),
    "saved": (DIP, PUT, {"put": 1.0}, 5.0, 20_000, NET, 0.05, FREE),
}
"""Four accounts that trade options after the first bar, the last with two rules."""


def find_liquidated(result):
    """Return the price of the one liquidation of a result."""
    (price,) = result.events.loc[result.events["kind"] == "liquidation", "price"]
    return price


@functools.cache
def example(name):
    *terms, costs = RUNS[name]
    return live(*terms, **costs)


def test_a_strangle_fails_where_marks_and_margin_take_the_balance():
    """0.15 S and the marks of put and call reach the balance at S = 62,950."""
    result = example("strangle")
    bars = result.bars
    marks = result.positions.pivot(index="time", columns="instrument", values="mark")

    first = bars.iloc[1]
    put, call = marks.loc[bars.index[1], ["put", "call"]]
    balance = 25_000 + 792.929309 + 595.777899 - 2 * 0.0003 * 99_750
    needed = 2 * 0.075 * 99_500 + put + call
    assert first["balance"] == first["backing"] == pytest.approx(balance, rel=1e-9)
    assert first["requirement"] == pytest.approx(needed, rel=1e-12)

    closed = result.events[result.events["kind"] == "liquidation"]
    surface = bt.Surfaces.fit(bt.Chain.sample()).surfaces[0]
    assert (balance - closed["price"].sum()) / 0.15 == pytest.approx(62_950.4, abs=0.1)
    assert surface.time < closed["time"].iloc[0]

    table = bars.join(marks)
    for price, *expected in STRANGLE:
        bar = table.loc[(table["BTC"] - price).abs().idxmin()]
        left = bar["backing"] - bar["requirement"]
        row = [bar["put"], bar["call"], bar["requirement"], left, bar["equity"]]
        row.append(bar["options_leverage"])
        assert expected == [round(number, 2) for number in row]

    parts = ["delta", "gamma", "vega", "theta", "vanna", "rest"]
    explained = result.explained().loc["total", parts]
    assert explained.round().tolist() == [-16_777, -127, 1_041, 410, 9, -3]


def read_premium(result):
    return result.fills.loc[result.fills["instrument"] != "BTC", "price"].iloc[0]


def test_a_covered_call_gives_the_strike_and_the_premium():
    """50,000 + 601.48 + 40,000 - 35,000; alone the call fails where its mark + S / 5 is M."""
    covered = example("covered")
    premium = read_premium(covered)
    final = covered.metrics["final_equity"]
    assert final == pytest.approx(55_000 + premium, abs=1e-9)

    row = covered.bars.loc["2023-01-03 04:00"]
    assert row["requirement"] == pytest.approx(0.25 * row["close"] + row["close"] - 105_000)

    mark = find_liquidated(example("naked"))
    spot = (50_000 + premium - mark) / 0.2
    assert spot == pytest.approx(129_644.9, abs=0.1)
    assert mark > spot - 105_000

    # in numbers
    assert round(premium, 2) == 601.48
    assert round(final, 2) == 55_601.48
    assert round(mark, 2) == 24_672.50
    assert round(0.2 * spot, 2) == 25_928.98


def test_a_put_saves_the_account_only_where_it_counts():
    """Truth 6: M = 20,000 - premium - (100,000 - S) alone fails at R = S / 20."""
    lost = example("lost")
    premium = read_premium(lost)
    price = find_liquidated(lost)
    assert price == pytest.approx((80_000 + premium) / 0.95, rel=1e-12)
    assert lost.metrics["final_equity"] == pytest.approx(0.05 * price + 5_000, rel=1e-12)

    saved = example("saved")
    certain = 15_000 - premium
    assert saved.metrics["liquidations"] == 0.0
    assert saved.metrics["final_equity"] == pytest.approx(certain, rel=1e-12)
    assert saved.events["kind"].eq("expiry").sum() == 1

    # what is certain is more than scenarios ever require
    assert saved.bars["requirement"].max() == pytest.approx(0.15 * 90_000)
    assert certain > 13_500
    assert (saved.bars["backing"] > saved.bars["requirement"]).all()

    # in numbers
    assert round(price, 2) == 85_015.36
    assert round(certain, 2) == 14_235.41


@pytest.mark.parametrize("name", ["strangle", "covered", "naked", "lost", "saved"])
def test_all_money_adds_up(name):
    """Explained parts to price profits, positions and trades to the change of equity."""
    result = example(name)
    explained = result.explained()
    np.testing.assert_allclose(explained[list(EXPLAINED)].sum(axis=1), explained["price_pnl"])
    assert result.metrics["unexplained_share"] < 0.02

    attribution = result.attribution()
    names = ["price_pnl", *COSTS[:4]]
    sums = result.positions.groupby("instrument", observed=True)[names].sum()
    np.testing.assert_allclose(sums, attribution.loc[sums.index, sums.columns], atol=1e-9)

    change = result.metrics["final_equity"] - result.account.capital
    assert attribution.loc["total", "net"] == pytest.approx(change, abs=1e-7)
    assert attribution.loc["account", "net"] == pytest.approx(0.0, abs=1e-7)

    of_trades = result.trades["profit"].sum() + result.trades.unallocated.sum()
    assert of_trades == pytest.approx(change, abs=1e-7)

    bars = result.bars
    profits = bars["realized_pnl"] + bars["unrealized_pnl"].diff().fillna(0.0)
    before_costs = change + bars["fees"].sum() + bars["liquidation_loss"].sum()
    assert profits.sum() == pytest.approx(before_costs, abs=1e-6)


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
    forward = result.options.quotes.forward_close[-1, 0]
    years = row["days"] / 365 - 1 / 8760
    price = options.price("put", forward, 95_000.0, years, 1.5 * row["volatility"])
    assert -losses[0.0, 0.5] == pytest.approx(price - row["mark"], rel=2e-3)
    assert losses[-0.2, 0.5] < losses[-0.2, 0.0] < losses[0.0, 0.0]
    assert not bt.stress(result, bt.Scenario("still")).notices


def test_stress_says_that_a_long_option_backs_nothing():
    held = live(np.full(12, 1e5), PUT, {"put": 1.0}, 0.0, 20_000, "deribit-standard", 0.05, **FREE)
    worth = held.positions.iloc[-1]["mark"]
    words = f"options held are worth {worth:,.2f}, which back no position"

    (notice,) = bt.stress(held, bt.Scenario("still")).notices
    assert notice.startswith(f"The {words}")

    text = " ".join(held.summary().split())
    assert words in text
    assert "against 0.00 % for buy and hold" in text


def test_options_are_refused_where_nothing_values_them():
    result = example("saved")
    markets = result.markets
    terms = {"venue": result.venue, "account": result.account}
    words = "cannot hold options, got 'put'"

    check_refused(lambda: ask_test("replay", markets, result.fills, **terms), words)
    check_refused(lambda: ask_test("decide", markets, Once(), state=result, **terms), words)


def test_a_payoff_is_that_of_the_contracts_held_last():
    """A strangle owes 10,000 at 70,000 and 130,000; a coin beside a call gains with the price."""
    payoff, greeks = list_first_charts(example("strangle"))
    table = payoff.table["options"]
    assert table[80_000.0] == table[120_000.0] == 0.0
    owed = np.interp([70_000.0, 125_000.0], table.index, table)
    assert owed == pytest.approx([-10_000.0, -5_000.0], rel=1e-9)
    assert len(greeks.panels) == 4

    covered = next(list_first_charts(example("covered"))).table
    gained = covered["with the position"] - covered["options"]
    slopes = np.diff(gained) / np.diff(covered.index)
    assert slopes == pytest.approx(np.full(len(slopes), slopes[0]))
    assert slopes[0] > 0.5

"""stress(): against margin formulas, hand-computed cases and runs on the same bars."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.records import CASH
from backtest.risk.stress_account import NO_STOPS
from backtest.strategies import VolTarget
from tests.risk.accounts import Hold, free_account, free_venue


def steady(n: int = 60, **columns) -> bt.Market:
    """Return hourly bars that wiggle a little around 100."""
    index = pd.date_range("2023-01-01", periods=n, freq="1h", tz="UTC")
    close = 100 + 0.1 * np.sin(np.arange(n))
    opens = np.concatenate([[100.0], close[:-1]])
    frame = {
        "open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
        "close": close, "volume": np.full(n, 1000.0), **columns,
    }  # fmt: skip
    return bt.Market.from_frames(pd.DataFrame(frame, index=index))


def held(lever: float = 10.0, signal: float = 1.0, venue=None, **terms) -> bt.Result:
    return bt.run(
        steady(),
        Hold(lever),
        venue=free_venue() if venue is None else venue,
        account=free_account(**terms),
        signal=signal,
        compile=False,
    )


def test_an_empty_scenario_changes_nothing():
    result = held()
    row = bt.stress(result, bt.Scenario("nothing")).table.loc["nothing"]
    assert row["equity"] == result.metrics["final_equity"]
    assert row["loss"] == 0.0
    assert not row["liquidated"]
    assert row[["fees", "slippage", "impact", "funding", "lost_to_adl"]].eq(0.0).all()


@pytest.mark.parametrize("signal", [1.0, -1.0])
@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_the_break_even_of_a_bar_is_the_liquidation_price(signal, margin):
    terms = {"margin": margin} | ({"venue_leverage": 10.0} if margin == "isolated" else {})
    result = held(8.0, signal, **terms)
    table = bt.stress(result, bt.Scenario("fall", price=-0.01, shape="bar")).table
    wanted = result.bars["liquidation_price"].iloc[-1]
    even = result.market.close[-1] * (1.0 + table["break_even"].iloc[0])
    assert even == pytest.approx(wanted, rel=1e-11)
    assert table["distance"].iloc[0] > 0.0


def test_an_account_lost_before_is_said_to_be_lost(tmp_path):
    """It printed an account worth 0.00, and "liquidated no" for every scenario."""
    market = steady()
    bars = market.bars()
    bars.loc[bars.index[30:], ["open", "high", "low", "close"]] *= 0.5
    result = bt.run(
        bt.Market.from_frames(bars), Hold(10.0), venue=free_venue(), account=free_account(),
        compile=False,
    )  # fmt: skip
    assert result.metrics["ruined"]
    found = bt.stress(result, bt.Scenario("fall", price=-0.3))
    told = "The account was ruined in the run, at 2023-01-02 07:00 UTC with 0.00 left: no"
    for made in (found, bt.Stress.load(found.save(tmp_path))):
        assert f"{told} scenario can change it." in " ".join(made.summary().split())


def test_a_fall_by_hand():
    # a long of q = 10 * 1000 / 100.0909 at the second open; -5 % from the last close in one bar
    result = held()
    state = result.state
    quantity, last = state.held.quantities[0], result.market.close[-1]
    row = bt.stress(result, bt.Scenario("fall", price=-0.05, shape="bar")).table.iloc[0]
    assert row["loss"] == pytest.approx(0.05 * last * quantity, rel=1e-12)
    # the distance from the low, 0.95 last, to the liquidation price
    price = result.bars["liquidation_price"].iloc[-1]
    assert row["distance"] == pytest.approx((0.95 * last - price) / (0.95 * last), rel=1e-9)


def test_funding_basis_and_margin_by_hand():
    result = held()
    quantity, last = result.state.held.quantities[0], result.market.close[-1]
    given = [
        bt.Scenario("rate", funding=0.001),
        bt.Scenario("discount", basis=-0.02, shape="bar"),
        bt.Scenario("double", margin=2.0, shape="bar"),
    ]
    table = bt.stress(result, given).table
    assert table.loc["rate", "funding"] == pytest.approx(0.001 * quantity * last)
    assert table.loc["discount", "loss"] == pytest.approx(0.02 * quantity * last)
    # with 1 % instead of 0.5 % maintenance: (w + q P) = 0.01 q P, w the cash
    cash = result.state.wallet[CASH]
    price = -cash / (quantity * 0.99)
    assert table.loc["double", "break_even"] == pytest.approx(price / last - 1.0, rel=1e-9)


def test_spread_and_depth_scale_the_costs_of_a_liquidation():
    venue = bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[bt.Bracket(0.0, np.inf, 200, 0.005)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0001, impact=0.5),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.001, impact=0.5),
    )
    result = bt.run(
        steady(), VolTarget(target=0.5), venue=venue, account=free_account(), compile=False
    )
    calm, thin = (
        bt.Scenario("calm", over="3h"),
        bt.Scenario("thin", over="3h", depth=0.25, spread=3),
    )
    table = bt.stress(result, [calm, thin]).table
    assert table.loc["thin", "slippage"] == pytest.approx(
        3 * table.loc["calm", "slippage"], rel=0.02
    )
    assert table.loc["thin", "impact"] == pytest.approx(2 * table.loc["calm", "impact"], rel=0.02)
    assert table.loc["calm", "impact"] > 0.0


def test_in_an_outage_stops_and_decisions_do_not_act_and_liquidations_do():
    result = held(10.0, stop_loss=0.02)
    fall = bt.Scenario("fall", price=-0.05, over="2h")
    out = fall.override(name="out", outage="2h")
    deep = bt.Scenario("deep", price=-0.2, over="2h", outage="2h")
    table = bt.stress(result, [fall, out, deep]).table
    # the stop acts at -2 %, the policy opens again at -2.5 %, and the stop acts again
    assert table.loc["fall", "loss"] < 0.8 * table.loc["out", "loss"]
    assert table.loc["deep", "liquidated"]
    assert not table.loc["out", "liquidated"]


def test_no_stop_of_an_account_acts_in_an_outage():
    named = {each.name for each in dataclasses.fields(bt.Account) if "stop" in each.name}
    assert {*named, "take_profit", "max_holding"} == {*NO_STOPS}


def test_a_winner_is_closed_at_the_bankruptcy_price_of_its_counterparty():
    # a short; the price falls by 10 %, a long of 20x is bankrupt at -5 %: a quarter of the position
    # loses the profit from there to -10 %
    result = held(5.0, signal=-1.0)
    shock = bt.Scenario("fall", price=-0.1, shape="bar", adl=0.25, adl_leverage=20)
    row = bt.stress(result, shock).table.iloc[0]
    quantity, last = result.state.held.quantities[0], result.market.close[-1]
    assert row["lost_to_adl"] == pytest.approx(0.25 * 0.05 * last * abs(quantity))
    small = shock.override(price=-0.04)
    assert bt.stress(result, small).table["lost_to_adl"].iloc[0] == 0.0


def test_a_default_of_the_venue_takes_its_share_of_the_equity_there():
    """A fall of 5 % costs 500 of 1,000; 40 % of the 500 left are lost, and the reserve is not."""
    result = held(10.0, reserve=300.0, margin_call=0.8, top_up_to=0.5)
    equity = result.of_account("equity")[-1]
    fall = bt.Scenario("fall", price=-0.05, shape="bar")
    given = [fall, bt.Scenario("now", venue_default=0.4),
             fall.override(name="both", venue_default=0.4)]  # fmt: skip
    table = bt.stress(result, given).table
    assert table.loc["now", "loss"] == table.loc["now", "lost_to_default"] == 0.4 * equity
    assert table.loc["now", "equity"] == pytest.approx(0.6 * equity + 300.0, rel=1e-12)
    left = equity - table.loc["fall", "loss"]
    assert table.loc["fall", "lost_to_default"] == 0.0
    assert table.loc["both", "lost_to_default"] == pytest.approx(0.4 * left, rel=1e-12)
    assert table.loc["both", "equity"] == pytest.approx(0.6 * left + 300.0, rel=1e-12)
    assert table.loc["both", "break_even"] == table.loc["fall", "break_even"]
    assert not table["liquidated"].any()


def test_a_bridge_without_volatility_is_a_line_and_a_seed_repeats():
    result = held(5.0)
    line = bt.Scenario("line", price=-0.1, over="6h", shape="line")
    still = line.override(name="still", shape="bridge", volatility=0.0)
    wild = line.override(name="wild", shape="bridge", volatility=30.0, seed=3)
    again = wild.override(name="again")
    table = bt.stress(result, [line, still, wild, again]).table
    assert table.loc["line"].equals(table.loc["still"])
    assert table.loc["wild", "distance"] < table.loc["line", "distance"]
    assert table.loc["wild", "equity"] == table.loc["again", "equity"]
    # a bridge of the volatility of the month before, unless said otherwise
    usual = bt.Scenario("usual", price=-0.1, over="6h")
    assert (usual.shape, usual.volatility) == ("bridge", 1.0)


@pytest.mark.parametrize("policy", [Hold(6.0), VolTarget(target=1.0)])
def test_a_replay_on_its_own_day_equals_the_run(policy):
    market = bt.Market.sample(bars=400)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account(capital=10_000)
    first = market.prefix(300)
    before = bt.run(first, policy, venue=venue, account=account, compile=False)
    span = {"date": str(market.times[300]), "until": str(market.times[360])}
    row = bt.stress(before, bt.Scenario("then", **span), rules="then", data=market).table.iloc[0]
    whole = bt.run(
        market.prefix(360), policy, venue=venue, account=account, resume=before, compile=False
    )
    assert row["from"] == "data"
    assert row["bars"] == 60
    assert row["equity"] == whole.metrics["final_equity"]
    assert row["funding"] == pytest.approx(whole.bars["funding"].sum(), rel=1e-12)


def test_an_episode_is_replayed_only_from_data_of_its_kind_of_asset():
    # regression: stocks of March 2020 were read from the bars of whatever market there was
    market = bt.Market.sample(bars=400)
    span = {"date": str(market.times[300]), "until": str(market.times[305]), "price": -0.1}
    given = [bt.Scenario(asset, **span, asset=asset) for asset in ("stocks", "crypto", "any")]
    table = bt.stress(held(), given, data=market).table
    assert table["from"].to_list() == ["figures", "data", "data"]
    kinds = {each.name: each.asset for each in bt.crashes()}
    assert kinds["1987-10-19"] == kinds["2020-03 stocks"] == "stocks"
    assert kinds["2020-03-12"] == "crypto"


def test_the_crashes_have_dates_and_sources_and_order_by_leverage():
    episodes = bt.crashes()
    assert {"2020-03-12", "2021-05-19", "2022-06-13", "2022-11-08", "2024-08-05", "2025-10-10",
            "1987-10-19"} <= {each.name for each in episodes}  # fmt: skip
    assert all(each.source and each.date and each.price < 0.0 for each in episodes)
    assert all(type(each).from_dict(each.to_dict()) == each for each in episodes)
    short = [each for each in episodes if each.over in ("5h", "8h", "14h", "24h", "1d")]
    levers = (1.0, 5.0, 10.0)
    losses = [bt.stress(held(lever), short).table["liquidated"].sum() for lever in levers]
    assert losses == sorted(losses)
    assert losses[-1] == len(short) > 3
    assert losses[0] == 0


def test_a_ladder_is_a_grid():
    found = bt.stress(
        held(5.0), bt.Scenario("nothing"), ladder={"price": (-0.3, 0.3, 7), "margin": (1.0, 2.0)}
    )
    ladder = found.ladder
    assert list(ladder.index.names) == ["price", "margin"]
    assert len(ladder) == 14
    up = ladder.xs(1.0, level="margin")["equity"]
    assert up.is_monotonic_increasing
    assert ladder.xs(-0.3, level="price")["liquidated"].all()
    assert not ladder.xs(0.3, level="price")["liquidated"].any()
    one = bt.stress(held(5.0), bt.Scenario("nothing"), ladder={"price": (-0.3, 0.3, 3)}).summary()
    assert [line.split()[0] for line in one.splitlines() if line.endswith("yes")][-1] == "-0.3"


@pytest.mark.parametrize(("settings", "words"), [
    ({"scenarios": ["fall"]}, "list of bt.Scenario"),
    ({"scenarios": bt.Scenario("a", correlation=0.5)}, "several instruments"),
    ({"ladder": {"prize": (0, 1, 5)}}, "did you mean 'price'"),
    ({"ladder": {"price": (0.0, math.nan)}}, "finite"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, words):
    given = {"result": held(), **settings}
    with pytest.raises(bt.ParameterError, match=words):
        bt.stress(given.pop("result"), given.pop("scenarios", bt.Scenario("x")), **given)


def test_what_does_not_count_and_the_date_of_the_rules_are_said(tmp_path):
    bars = steady().bars()
    market = bt.Market.from_frames(bars, instrument="DOGEUSDT")
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    result = bt.run(market, Hold(2.0), venue=venue, account=bt.Account(), compile=False)
    found = bt.stress(result, rules="then")
    for made in (found, bt.Stress.load(found.save(tmp_path))):
        text = " ".join(made.summary().split())
        assert "! DOGEUSDT: no hours of their own in crashes, so the median of ADA, LTC," in text
        assert "Margin tables in force since 2021-03-18, 2022-12-29, 2024-10-24." in text
        assert "2020-03-12 are older than any table known, of 2021-03-18, which stands" in text
    plain = bt.stress(result, bt.Scenario("fall", price=-0.1))
    assert not plain.notices
    assert "Margin tables in force since 2022-12-29." in plain.details
    assert "Margin tables" not in bt.stress(held(), bt.Scenario("fall", price=-0.1)).details

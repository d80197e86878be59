"""stress(): margin formulas, cases by hand, runs on the same bars, several positions, crashes."""

import dataclasses
import importlib
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import engine
from backtest.engine import batch
from backtest.risk.path_bars import PRICES
from backtest.risk.scenario_bars import read_bars, replay_crash
from backtest.risk.stressed_account import NO_STOPS
from backtest.strategies import Constant, VolTarget
from tests import kit
from tests.kit import check_refused
from tests.risk.accounts import Hold, free_account, free_venue

TWINS = {"A": 0.5, "B": 0.5}
LATER = float(pd.Timestamp("2023-01-03 11:00").value)
CRASHES = {each.name: each for each in bt.crashes()}


def steady(n: int = 60, level: float = 100.0, wave: float = 0.1) -> bt.Market:
    """Return hourly bars that wiggle a little around a level."""
    close = level + wave * np.sin(np.arange(n))
    return kit.market_of(close, start="2023-01-01", volume=1000.0)


def wild() -> bt.Market:
    """Return bars that move twice as much as steady ones."""
    return steady(level=50.0)


def held(lever=10.0, signal=1.0, venue=None, market=None, policy=None, **terms):
    given = {"venue": venue or free_venue(), "account": free_account(**terms), "signal": signal}
    return bt.run(market or steady(), policy or Hold(lever), **given)


class Halve(bt.Policy):
    """Hold 18 turns, and 2 after 60 bars: the order fills at the first open of a scenario."""

    def leverage(self, bar, account):
        return 18.0 if bar.time < LATER else 2.0


def stress_one(result, **scenario):
    return bt.stress(result, bt.Scenario("one", **scenario)).table.iloc[0]


def test_an_empty_scenario_changes_nothing():
    result = held()
    row = stress_one(result)

    assert row["equity"] == result.metrics["final_equity"]
    assert row["loss"] == 0.0
    assert not row["liquidated"]
    assert row[["fees", "slippage", "impact", "funding", "lost_to_adl"]].eq(0.0).all()


@pytest.mark.parametrize(("most", "is_compiled"), [(50_000, False), (0, True)])
def test_a_few_bars_after_a_run_do_not_wait_for_the_compiler(most, is_compiled, monkeypatch):
    """As the run itself did not: its bits are those of compiled code."""
    result = held()
    monkeypatch.setenv("BACKTEST_COMPILE", "auto")
    monkeypatch.setattr(batch, "MOST_PLAIN", most)
    monkeypatch.setattr(engine, "is_loop_compiled", lambda **_: False)

    chosen = []

    class Noted(engine.LaterBars):
        def __init__(self, *given, is_compiled):
            chosen.append(is_compiled)
            super().__init__(*given, is_compiled=False)

    monkeypatch.setattr(engine, "LaterBars", Noted)
    stress_one(result, price=-0.2)
    assert {*chosen} == {is_compiled}


@pytest.mark.parametrize("signal", [1.0, -1.0])
@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_the_break_even_of_a_bar_is_the_liquidation_price(signal, margin):
    terms = {"margin": margin} | ({"venue_leverage": 10.0} if margin == "isolated" else {})
    result = held(8.0, signal, **terms)
    row = stress_one(result, price=-0.01, shape="bar")

    even = result.market.close[-1] * (1.0 + row["break_even"])
    assert even == pytest.approx(result.bars["liquidation_price"].iloc[-1], rel=1e-11)
    assert row["distance"] > 0.0


def test_an_account_lost_before_is_refused():
    """It printed an account worth 0.00, and "liquidated no" for every scenario."""
    bars = steady().bars()
    bars.loc[bars.index[30:], ["open", "high", "low", "close"]] *= 0.5
    result = held(market=bt.Market.from_frames(bars))

    assert result.metrics["ruined"]

    told = "ruined in the run, at 2023-01-02 07:00 UTC with 0.00 left: no scenario can change it"
    check_refused(lambda: bt.stress(result, bt.Scenario("fall", price=-0.3)), told)


def test_a_fall_by_hand():
    # a long of q = 10 * 1000 / 100.0909 at the second open; -5 % from the last close in one bar
    result = held()
    quantity = result.state.held.quantities[0]
    last = result.market.close[-1]
    row = stress_one(result, price=-0.05, shape="bar")

    assert row["loss"] == pytest.approx(0.05 * last * quantity, rel=1e-12)

    # the distance from the low, 0.95 last, to the liquidation price
    price = result.bars["liquidation_price"].iloc[-1]
    assert row["distance"] == pytest.approx((0.95 * last - price) / (0.95 * last), rel=1e-9)


def test_funding_basis_and_margin_by_hand():
    result = held()
    quantity = result.state.held.quantities[0]
    last = result.market.close[-1]
    given = [
        bt.Scenario("rate", funding=0.001),
        bt.Scenario("discount", basis=-0.02, shape="bar"),
        bt.Scenario("double", margin=2.0, shape="bar"),
    ]
    table = bt.stress(result, given).table

    assert table.loc["rate", "funding"] == pytest.approx(0.001 * quantity * last)
    assert table.loc["discount", "loss"] == pytest.approx(0.02 * quantity * last)

    # with 1 % instead of 0.5 % maintenance: (w + q P) = 0.01 q P, w the cash
    price = -result.state.wallet.cash / (quantity * 0.99)
    assert table.loc["double", "break_even"] == pytest.approx(price / last - 1.0, rel=1e-9)


def test_spread_and_depth_scale_the_costs_of_a_liquidation():
    venue = free_venue().override(
        slippage={"rate": 0.0001, "impact": 0.5}, liquidation={"slippage": 0.001, "impact": 0.5}
    )
    result = held(venue=venue, policy=VolTarget(target=0.5, half_life=12.0))

    calm, thin = (stress_one(result, over="3h", **x) for x in ({}, {"depth": 0.25, "spread": 3}))

    assert thin["slippage"] == pytest.approx(3 * calm["slippage"], rel=0.02)
    assert thin["impact"] == pytest.approx(2 * calm["impact"], rel=0.02)
    assert calm["impact"] > 0.0


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

    named |= {"take_profit", "max_holding", "daily_loss", "weekly_loss", "daily_basis", "day"}
    assert named == {*NO_STOPS}


def test_an_outage_takes_an_account_whose_days_and_pauses_are_its_own():
    """No limit acts in the outage, and none may need another that is gone.

    2 turns of 1,000 fall by 30 %: 600, and what they have grown before.
    """
    limits = {"equity_stop": 0.3, "after_stop": "halt", "daily_loss": 0.2}
    result = held(2.0, **limits, day="Asia/Tokyo", daily_basis="initial")

    out = bt.Scenario("out", price=-0.3, over="2h", outage="2h")
    assert bt.stress(result, [out]).table.loc["out", "loss"] == pytest.approx(600, rel=2e-3)


def test_a_winner_is_closed_at_the_bankruptcy_price_of_its_counterparty():
    # a short; the price falls by 10 %, a long of 20x is bankrupt at -5 %: a quarter of the position
    # loses the profit from there to -10 %
    result = held(5.0, signal=-1.0)
    shock = bt.Scenario("fall", price=-0.1, shape="bar", adl=0.25, adl_leverage=20)
    row = bt.stress(result, shock).table.iloc[0]
    quantity = result.state.held.quantities[0]
    last = result.market.close[-1]

    assert row["lost_to_adl"] == pytest.approx(0.25 * 0.05 * last * abs(quantity))
    assert bt.stress(result, shock.override(price=-0.04)).table["lost_to_adl"].iloc[0] == 0.0


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
    table = bt.stress(result, [line, still, wild, wild.override(name="again")]).table

    assert table.loc["line"].equals(table.loc["still"])
    assert table.loc["wild", "distance"] < table.loc["line", "distance"]
    assert table.loc["wild", "equity"] == table.loc["again", "equity"]

    # a bridge of the volatility of the month before, unless said otherwise
    usual = bt.Scenario("usual", price=-0.1, over="6h")
    assert (usual.shape, usual.volatility) == ("bridge", 1.0)


@pytest.mark.parametrize("policy", [Hold(6.0), VolTarget(target=1.0)])
def test_a_replay_on_its_own_day_equals_the_run(policy):
    market = bt.Market.sample(bars=400)

    before = bt.run(market.prefix(300), policy, **kit.AT_BINANCE)
    span = {"date": str(market.times[300]), "until": str(market.times[360])}
    row = bt.stress(before, bt.Scenario("then", **span), rules="then", data=market).table.iloc[0]

    whole = bt.run(market.prefix(360), policy, **kit.AT_BINANCE, resume=before)
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


@pytest.mark.slow
def test_the_crashes_have_dates_and_sources_and_order_by_leverage():
    episodes = bt.crashes()
    assert {"2020-03-12", "2021-05-19", "2022-06-13", "2022-11-08", "2024-08-05", "2025-10-10",
            "1987-10-19"} <= {each.name for each in episodes}  # fmt: skip

    assert all(each.source and each.date and each.price < 0.0 for each in episodes)
    assert all(type(each).from_dict(each.to_dict()) == each for each in episodes)

    short = [each for each in episodes if each.over in ("5h", "8h", "14h", "24h", "1d")]
    losses = [bt.stress(held(lever), short).table["liquidated"].sum() for lever in (1.0, 10.0)]

    assert losses == [0, len(short)]
    assert len(short) > 3


def test_a_ladder_is_a_grid():
    ladder = bt.stress(
        held(5.0), bt.Scenario("nothing"), ladder={"price": (-0.3, 0.3, 7), "margin": (1.0, 2.0)}
    ).ladder

    assert list(ladder.index.names) == ["price", "margin"]
    assert len(ladder) == 14
    assert (ladder.xs(1.0, level="margin")["equity"].diff().dropna() > -1e-9).all()
    assert ladder.xs(-0.3, level="price")["liquidated"].all()
    assert not ladder.xs(0.3, level="price")["liquidated"].any()

    one = bt.stress(held(5.0), bt.Scenario("nothing"), ladder={"price": (-0.3, 0.3, 3)}).summary()
    assert [line.split()[0] for line in one.splitlines() if line.endswith("yes")][-1] == "-0.3"


def test_a_list_of_a_ladder_holds_values_also_if_the_last_is_whole():
    still = bt.Scenario("nothing")
    axes = {"margin": [1.0, 2.0, 3]}
    found = bt.stress(held(5.0), still, ladder=axes).ladder
    assert found.index.get_level_values("margin").tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("settings", "words"), [
    ({"scenarios": ["fall"]}, "a Scenario each"),
    ({"scenarios": bt.Scenario("a", correlation=0.5)}, "several instruments"),
    ({"ladder": {"prize": (0, 1, 5)}}, "did you mean 'price'"),
    ({"ladder": {"price": (0.0, math.nan)}}, "finite"),
    ({"ladder": [0.1]}, "ladder must be a mapping"),
    ({"ladder": {"price": "a:b"}}, "ladder must be a mapping to a sequence"),
    ({"ladder": {"shape": (0, 1)}}, "ladder.shape: must be"),
    ({"ladder": {"name": (0, 1)}}, "ladder.name: must be text"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, words):
    given = {"scenarios": bt.Scenario("x"), **settings}
    check_refused(lambda: bt.stress(held(), **given), words, bt.ParameterError)


@pytest.mark.parametrize(("price", "title", "worst", "said"), [
    (0.1, "smallest gain", "100.00", "in one it gains 100.00 of"),
    (-0.02, "largest loss", "20.00", "in one it loses 20.00 of"),
])  # fmt: skip
def test_the_worst_scenario_may_be_a_gain(price, title, worst, said):
    """A long of 1x on 1,000 moves with the price."""
    market = kit.market_of(np.full(60, 100.0), start="2023-01-01", volume=1000.0)
    found = bt.stress(held(1.0, market=market), bt.Scenario("one", price=price))

    number = found.list_numbers()[1]
    assert (number.title, str(number)) == (title, worst)
    assert said in found.verdict
    assert number.value == pytest.approx(float(found.table["loss"].max()))


@pytest.mark.slow
def test_what_does_not_count_and_the_date_of_the_rules_are_said(tmp_path):
    market = bt.Market.from_frames(steady().bars(), instrument="DOGEUSDT")
    result = bt.run(market, Hold(2.0), **kit.AT_BINANCE)
    found = bt.stress(result, rules="then")
    for made in (found, bt.Stress.load(found.save(tmp_path))):
        text = " ".join(made.summary().split())
        assert "! Bars of some scenarios are those of another coin" in text
        assert {"history; DOGEUSDT: rows of ADA", "history; DOGEUSDT: rows of LTC"} < {
            *made.table["from"]
        }
        assert "Margin tables in force since 2021-03-18, 2022-12-29, 2024-10-24." in text
        assert "2020-03-12 is older than any table known, of 2021-03-18, which stands" in text

    plain = bt.stress(result, bt.Scenario("fall", price=-0.1))
    assert not plain.notices
    assert "Margin tables in force since 2022-12-29." in plain.details
    assert "Margin tables" not in bt.stress(held(), bt.Scenario("fall", price=-0.1)).details


@pytest.mark.slow
def test_shocks_by_instrument_and_correlations_by_hand():
    result = held(2.0, {"A": 0.5, "B": -0.5}, market=bt.Markets({"A": steady(), "B": wild()}))
    quantity = result.state.held.quantities
    last = result.marks[-1]
    sigma = [np.std(np.diff(np.log(each.close))) for each in (steady(), wild())]

    follow = math.expm1(0.5 * sigma[1] / sigma[0] * math.log(0.9))
    whole = math.expm1(sigma[1] / sigma[0] * math.log(0.9))
    for terms, move in (
        ({"prices": {"B": 0.1}}, (0.0, 0.1)),
        ({"price": -0.1, "prices": {"B": 0.1}}, (-0.1, 0.1)),
        ({"price": -0.1, "correlation": 0.5}, (-0.1, follow)),
        ({"prices": {"A": -0.1}, "correlation": 0.5}, (-0.1, follow)),
        ({"prices": {"A": -0.1}, "correlation": 1.0}, (-0.1, whole)),
    ):
        wanted = -float(np.sum(quantity * last * np.array(move)))
        loss = stress_one(result, **terms, shape="bar")["loss"]
        assert loss == pytest.approx(wanted, rel=1e-9), terms


def test_a_hedge_survives_a_common_move_and_not_one_of_its_legs():
    twins = bt.Markets(dict.fromkeys(TWINS, steady()))
    result = held(10.0, {"A": 1.0, "B": -1.0}, market=twins, max_leverage=20)

    leg = bt.Scenario("leg", prices={"A": -0.3}, shape="bar")
    table = bt.stress(result, [bt.Scenario("fall", price=-0.3, shape="bar"), leg]).table

    assert not table.loc["fall", "liquidated"]
    assert abs(table.loc["fall", "loss"]) < 1e-6
    assert table.loc["leg", "liquidated"]

    # equity + q_a (P_a - P) = 0.005 (q_a P_a + q_b P), of the legs q P = 10,000 at the last close
    q = result.state.held.quantities[0]
    last = result.marks[-1, 0]
    price = (q * last * 1.005 - float(result.of_account("equity")[-1])) / (0.995 * q)
    assert table.loc["leg", "break_even"] == pytest.approx(price / last - 1.0, rel=1e-6)


def test_instruments_that_ended_long_ago_are_left_out(monkeypatch):
    monkeypatch.setattr(importlib.import_module("backtest.risk.warm_up"), "LEAST_BARS", 20)
    market = bt.Market.sample(bars=100)
    given = {"A": market, "B": market.prefix(60), "C": market}
    with pytest.warns(UserWarning, match="ends before"):
        result = held(2.0, None, market=bt.Markets(given))
    row = stress_one(result, prices={"C": -0.1}, shape="bar")
    quantity = result.state.held.quantities[2]
    last = market.mark_close[-1]
    assert row["loss"] == pytest.approx(0.1 * quantity * last, rel=1e-9)

    gone = bt.Scenario("fall", prices={"B": -0.1})
    check_refused(lambda: bt.stress(result, gone), "no instrument 'B'")


def test_a_contract_that_expires_in_a_scenario_is_closed_at_its_mark():
    market = steady()
    ends = str(market.times[-1] + pd.Timedelta("2h"))[:16]
    venues = {"A": free_venue(), "B": free_venue().override({"contract.expires": ends})}
    result = held(4.0, None, venues, bt.Markets({"A": market, "B": market}))
    row = stress_one(result, price=-0.1, over="4h", shape="line")

    # B is closed after one of four bars, at 0.9 ** 0.25 of the last close
    quantities = result.state.held.quantities
    last = market.close[-1]
    wanted = last * (0.1 * quantities[0] + (1.0 - 0.9**0.25) * quantities[1])
    assert row["loss"] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_collateral_moves_by_its_own_prices_and_a_constant_one_where_it_is_named():
    assets = [
        bt.Collateral("COIN", 2.0, prices="A", rate=0.9),
        bt.Collateral("GOLD", 3.0, prices=wild(), rate=0.5),
        bt.Collateral("USDC", 50.0, prices=1.0, rate=1.0),
    ]
    market = bt.Markets({"A": steady(), "B": wild()})
    result = held(3.0, None, market=market, collateral=assets, negative_limit=1e6)
    quantities = result.state.held.quantities
    last = result.marks[-1]
    for terms, (a, b, gold, peg) in (
        ({"prices": {"USDC": -0.2}}, (0.0, 0.0, 0.0, -0.2)),
        ({"prices": {"GOLD": 0.1, "B": -0.1}}, (0.0, -0.1, 0.1, 0.0)),
        ({"price": -0.1}, (-0.1, -0.1, -0.1, 0.0)),
    ):
        row = stress_one(result, **terms, shape="bar")
        gained = a * last[0] * (quantities[0] + 2.0) + b * last[1] * quantities[1]
        gained += 3.0 * gold * last[1] + 50.0 * peg
        assert row["loss"] == pytest.approx(-gained, rel=1e-9), terms
    assert -1.0 < row["break_even"] < -0.1


def test_collateral_beside_one_instrument_moves_if_named_and_stays_in_a_replay():
    market = bt.Markets({"A": steady()})
    assets = [bt.Collateral("USDC", 50.0, prices=1.0, rate=1.0)]
    terms = {"collateral": assets, "negative_limit": 1e6}
    head = held(3.0, None, market=market.prefix(40), **terms)
    peg = bt.Scenario("peg", prices={"USDC": -0.2}, shape="bar")
    assert bt.stress(head, peg).table.loc["peg", "loss"] == pytest.approx(10.0, rel=1e-9)

    days = bt.Scenario("then", date=str(market.times[40]), until=str(market.times[50]))
    row = bt.stress(head, days, data=market).table.iloc[0]
    assert row["from"] == "data"

    whole = held(3.0, None, market=market.prefix(50), **terms)
    assert row["equity"] == pytest.approx(whole.metrics["final_equity"], rel=1e-9)


def test_the_distance_is_that_of_all_marks_at_a_waypoint():
    """Of a hedge, the other leg moves too: frozen, each leg would be near its liquidation."""
    hedge = held(8.0, {"A": 1.0, "B": -1.0}, market=bt.Markets(dict.fromkeys(TWINS, steady())))
    row = stress_one(hedge, price=-0.3, shape="bar")

    # nearest at the open: B fails d above P, where E - q d = 0.005 q (2 P + d). With A frozen, B
    # would be liquidated by the fall, and with B frozen A.
    quantity = hedge.state.held.quantities[0]
    last = hedge.marks[-1, 0]
    gap = (hedge.metrics["final_equity"] / quantity - 0.01 * last) / 1.005
    assert row["distance"] == pytest.approx(gap / last, rel=1e-9)


@pytest.mark.parametrize("terms", [
    {"margin": "isolated", "venue_leverage": 20.0},
    {},
    {"equity_stop": 0.15},
    {"margin": "isolated", "venue_leverage": 20.0, "trailing_stop": 0.03},
])  # fmt: skip
@pytest.mark.parametrize("policy", [Hold(18.0), Halve()])
def test_only_liquidated_rows_have_a_distance_of_zero(monkeypatch, policy, terms):
    """With a stop in the bar, the distance was that of a position that was gone: 0."""
    stress = importlib.import_module("backtest.risk.stress")
    monkeypatch.setattr(stress, "find_break_even", lambda *_: ("A", 0.0))
    terms = {"stop_loss": 0.02, **terms} if "trailing_stop" not in terms else terms
    result = held(policy=policy, **terms)
    given = [
        bt.Scenario(f"{move} in {bars}", price=move, over=f"{bars}h", shape=shape, seed=3)
        for move in (-0.08, -0.3, 0.1)
        for bars, shape in ((1, "line"), (3, "bridge"))
    ]
    found = bt.stress(result, given)
    assert ((found.table["distance"] == 0.0) == found.table["liquidated"]).all()
    assert not found.table["liquidated"].all()

    said = " ".join(found.summary().split())
    assert said.count("figures") == len(given)  # bars from: not a hidden column
    assert "the policy continues to trade at the closes" in said


def test_the_break_even_is_explained_where_a_scenario_has_one():
    """Under a column of dashes stood whose move it was."""
    settings = {"leads": {"a fall": "BTC"}}
    row = {"break_even": -0.2}
    with_one = SimpleNamespace(settings=settings, table=pd.DataFrame([row]))
    assert "Break-even: the move of BTC in a fall" in bt.Stress._explain_table(with_one)

    without = SimpleNamespace(settings=settings, table=pd.DataFrame([{"break_even": math.nan}]))
    told = bt.Stress._explain_table(without)
    assert "Break-even: " not in told
    assert "no price move liquidates the account" in told


def test_the_distance_of_a_stopped_position_is_measured_at_its_stop():
    result = held(10.0, margin="isolated", venue_leverage=20.0, stop_loss=0.02)
    row = stress_one(result, price=-0.2, shape="bar")

    entry = result.state.held.entries[0]
    price = result.bars["liquidation_price"].iloc[-1]
    assert not row["liquidated"]
    assert row["distance"] == pytest.approx(1.0 - price / (0.98 * entry), rel=1e-9)


@pytest.mark.slow
def test_a_market_gets_the_crashes_of_its_kind_alone():
    names = {*bt.stress(held(), bt.crashes()).table.index}
    stocks = {each.name for each in bt.crashes() if each.asset == "stocks"}
    assert names == {each.name for each in bt.crashes()} - stocks
    terms = {"venue": free_venue(), "account": free_account(), "calendar": "252"}

    run = bt.run(market_of("SPX", sessions=True), Hold(1.0), **terms)
    by_default = bt.stress(run).table
    assert {*by_default.index} == stocks
    assert {*by_default["from"]} == {"history"}

    # What is asked for by name is shown, as before.
    assert [*bt.stress(run, CRASHES["2020-03-12"]).table["from"]] == ["figures"]


def test_the_data_of_a_stress_test_begin_where_its_account_did():
    market = market_of("BTCUSDT")
    terms = {"venue": free_venue(), "account": free_account()}
    run = bt.run(market, Constant(leverage=1.0), **terms, start="2024-01-10")
    data = bt.stress(run, bt.Scenario("fall", price=-0.1)).describe_data()
    assert (data["start"], data["bars"]) == ("2024-01-10", 400 - 9 * 24)


def market_of(name: str, freq: str = "1h", n: int = 400, *, sessions: bool = False) -> bt.Market:
    """Return bars of a walk of 60 % a year."""
    freq = "B" if sessions else freq
    first, second = pd.date_range("2024-01-01", periods=2, freq=freq)
    sigma = 0.6 / np.sqrt(365 * 86_400 / (second - first).total_seconds())
    close = 100.0 * np.exp(np.cumsum(sigma * np.random.default_rng(1).standard_normal(n)))
    terms = {"instrument": name, "sessions": sessions}
    return kit.market_of(close, freq, start="2024-01-01", terms=terms, volume=1000.0)


def replay(name: str, *markets: bt.Market):
    given = {each.instrument: each for each in markets}
    found = replay_crash(CRASHES[name], given, set(), set())
    assert found is not None
    return found


def test_each_coin_has_its_own_hours_and_the_others_those_of_the_coin_that_fell_most():
    markets = [market_of(name) for name in ("BTCUSDT", "ADAUSDT", "SOLUSDT")]
    bars, source = replay("2025-10-10", *markets)

    hours = read_bars(CRASHES["2025-10-10"])
    assert source == "history; SOLUSDT: rows of ADA"
    assert (bars["ADAUSDT"].mark == hours["ADA"][1]).all()

    # marks fell by 16.5 % (BTC) to 66.5 % (ADA) from their highs
    assert (bars["SOLUSDT"].last == bars["ADAUSDT"].last).all()
    assert (bars["SOLUSDT"].mark == bars["ADAUSDT"].mark).all()
    _, high, low, _ = bars["BTCUSDT"].mark
    assert low.min() / high.max() - 1 == pytest.approx(-0.165, abs=0.01)


@pytest.mark.parametrize(("freq", "hours"), [("15min", 0.25), ("1h", 1), ("4h", 4), ("1D", 24)])
def test_bars_of_any_length_keep_the_extremes_and_the_close(freq: str, hours: float):
    """Of 28 hours the file has last and mark prices: open, high, low, close."""
    bars, _ = replay("2020-03-12", market_of("BTCUSDT", freq, n=60))
    whole = read_bars(CRASHES["2020-03-12"])["BTC"]

    for found, expected in zip((bars["BTCUSDT"].last, bars["BTCUSDT"].mark), whole, strict=True):
        assert found.shape == (4, int(np.ceil(28 / hours)))
        if hours <= 1:
            assert (found[:, :: round(1 / hours)] == expected).all()

        # The highest high, the lowest low and the last close are those of the hours.
        opens, highs, lows, closes = found
        _, known_highs, known_lows, known_closes = expected
        assert highs.max() == pytest.approx(known_highs.max(), rel=1e-12)
        assert lows.min() == pytest.approx(known_lows.min(), rel=1e-12)
        assert closes[-1] == pytest.approx(known_closes[-1], rel=1e-12)

        # Each bar is one: no open and no close lies outside.
        assert (highs >= np.maximum(opens, closes) * (1 - 1e-12)).all()
        assert (lows <= np.minimum(opens, closes) * (1 + 1e-12)).all()


def test_days_of_stocks_are_replayed_in_sessions_and_hours_of_coins_in_markets_that_never_close():
    stocks = market_of("SPX", sessions=True)
    bars, source = replay("2020-03 stocks", stocks)
    assert source == "history"
    assert bars["SPX"].last.shape == (4, 23)
    for name, market in (("2020-03 stocks", market_of("BTCUSDT", "1D")), ("2020-03-12", stocks)):
        assert replay_crash(CRASHES[name], {"A": market}, set(), set()) is None


def test_a_volatility_target_loses_what_it_loses_on_the_real_days():
    """On a straight line it levered up, and lost far more."""
    before = market_of("SPX", sessions=True)
    scenario = CRASHES["2020-03 stocks"]
    terms = {"venue": free_venue(), "account": free_account(), "calendar": "252"}
    run = bt.run(before, VolTarget(target=0.2, half_life=20.0), **terms)
    row = bt.stress(run, scenario).table.iloc[0]
    real = next(iter(read_bars(scenario).values()))[0].T * before.close[-1]

    index = pd.bdate_range(before.times[-1] + pd.Timedelta("1D"), periods=23, tz="UTC")
    more = pd.DataFrame(real, columns=list(PRICES), index=index).assign(volume=1000.0)
    whole = bt.Market.from_frames(pd.concat([before.bars(), more]), sessions=True)

    after = bt.run(whole, VolTarget(target=0.2, half_life=20.0), **terms)
    expected = after.bars["equity"].iloc[-1] / after.bars["equity"].iloc[-24] - 1.0

    assert -row["loss"] / run.metrics["final_equity"] == pytest.approx(expected, abs=0.02)
    assert row["from"] == "history"


def test_a_book_of_three_coins_at_four_turns_does_not_survive_october_2025():
    markets = {name: market_of(name) for name in ("BTCUSDT", "ETHUSDT", "ADAUSDT")}
    weights = pd.DataFrame(dict.fromkeys(markets, 1 / 3), index=markets["BTCUSDT"].times)
    account = bt.Account(capital=10_000, intrabar="worst")
    terms = {"venue": free_venue(), "account": account, "signal": weights}
    run = bt.run(bt.Markets(markets), Constant(leverage=4.0), **terms)
    row = bt.stress(run, CRASHES["2025-10-10"]).table.iloc[0]
    assert row["liquidated"]
    assert row["bars"] == 12


def test_a_crash_that_is_moved_is_made_of_its_figures():
    run = held(1.0, None, market=market_of("BTCUSDT"), policy=Constant(leverage=1.0))
    crash = CRASHES["2024-08-05"]

    given = [crash, crash.override(name="mine"), crash.override(price=-0.3)]
    found = [bt.stress(run, each).table["from"].iloc[0] for each in given]
    assert found == ["history", "figures", "figures"]

    wide = crash.override(spread=3.0)
    assert bt.stress(run, wide).table["from"].iloc[0] == "history"

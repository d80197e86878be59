"""stress() on accounts with several positions: against one position, by hand, and against runs."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.risk import stress_account
from tests.risk.accounts import Hold, free_account, free_venue
from tests.risk.test_stress import steady

TWINS = {"A": 0.5, "B": 0.5}


def wild(n: int = 60, seed: int = 5) -> bt.Market:
    """Return hourly bars that move twice as much as steady ones."""
    market = steady(n)
    index = market.times
    close = 50 + 0.2 * 0.5 * np.sin(np.arange(n) + 0.0 * seed)
    opens = np.concatenate([[50.0], close[:-1]])
    frame = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
             "close": close, "volume": np.full(n, 1000.0)}  # fmt: skip
    return bt.Market.from_frames(pd.DataFrame(frame, index=index))


def held(market, lever=10.0, signal=None, policy=None, **terms):
    return bt.run(
        market, Hold(lever) if policy is None else policy, venue=free_venue(),
        account=free_account(**terms), signal=signal, compile=False,
    )  # fmt: skip


@pytest.mark.slow
def test_shocks_by_instrument_and_correlations_by_hand():
    result = held(bt.Markets({"A": steady(), "B": wild()}), 2.0, {"A": 0.5, "B": -0.5})
    quantity, last = result.state.held.quantities, result.marks[-1]
    sigma = [np.std(np.diff(np.log(each.close))) for each in (steady(), wild())]
    follow = math.expm1(0.5 * sigma[1] / sigma[0] * math.log(0.9))
    moves = {
        "own": (bt.Scenario("own", prices={"B": 0.1}, shape="bar"), (0.0, 0.1)),
        "both": (bt.Scenario("both", price=-0.1, prices={"B": 0.1}, shape="bar"), (-0.1, 0.1)),
        "follow": (bt.Scenario("follow", price=-0.1, correlation=0.5, shape="bar"),
                   (-0.1, follow)),
        "led": (bt.Scenario("led", prices={"A": -0.1}, correlation=0.5, shape="bar"),
                (-0.1, follow)),
        "one": (bt.Scenario("one", prices={"A": -0.1}, correlation=1.0, shape="bar"),
                (-0.1, math.expm1(sigma[1] / sigma[0] * math.log(0.9)))),
    }  # fmt: skip
    table = bt.stress(result, [scenario for scenario, _ in moves.values()]).table
    for name, (_, move) in moves.items():
        wanted = -float(np.sum(quantity * last * np.array(move)))
        assert table.loc[name, "loss"] == pytest.approx(wanted, rel=1e-9), name


def test_a_hedge_survives_a_common_move_and_not_one_of_its_legs():
    result = held(
        bt.Markets(dict.fromkeys(TWINS, steady())), 10.0, {"A": 1.0, "B": -1.0}, max_leverage=20
    )
    fall = bt.Scenario("fall", price=-0.3, shape="bar")
    leg = bt.Scenario("leg", prices={"A": -0.3}, shape="bar")
    table = bt.stress(result, [fall, leg]).table
    assert not table.loc["fall", "liquidated"]
    assert abs(table.loc["fall", "loss"]) < 1e-6
    assert table.loc["leg", "liquidated"]
    # equity + q_a (P_a - P) = 0.005 (q_a P_a + q_b P), of the legs q P = 10,000 at the last close
    q, last = result.state.held.quantities[0], result.marks[-1, 0]
    equity = float(result.of_account("equity")[-1])
    price = (q * last * 1.005 - equity) / (0.995 * q)
    assert table.loc["leg", "break_even"] == pytest.approx(price / last - 1.0, rel=1e-6)


@pytest.mark.slow
def test_scenarios_are_the_same_compiled_and_plain(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "now")
    market = bt.Markets({"A": steady(), "B": wild()})
    fall = bt.Scenario("fall", price=-0.05, over="4h", outage="1h")
    tables = []
    for is_compiled in (True, False):
        result = bt.run(
            market, Hold(8.0), venue=free_venue(), account=free_account(stop_loss=0.02),
            signal=TWINS, compile=is_compiled,
        )  # fmt: skip
        tables.append(bt.stress(result, fall).table)
    assert tables[0].equals(tables[1])


def test_instruments_that_ended_long_ago_are_left_out(monkeypatch):
    monkeypatch.setattr(stress_account, "WARMUP", 20)
    market = bt.Market.sample(bars=100)
    given = {"A": market, "B": market.prefix(60), "C": market}
    with pytest.warns(UserWarning, match="ends before"):
        result = held(bt.Markets(given), 2.0)
    row = bt.stress(result, bt.Scenario("fall", prices={"C": -0.1}, shape="bar")).table.iloc[0]
    quantity, last = result.state.held.quantities[2], market.mark_close[-1]
    assert row["loss"] == pytest.approx(0.1 * quantity * last, rel=1e-9)
    with pytest.raises(bt.ParameterError, match="got 'B'"):
        bt.stress(result, bt.Scenario("fall", prices={"B": -0.1}))


def test_a_contract_that_expires_in_a_scenario_is_closed_at_its_mark():
    market = steady()
    ends = str(market.times[-1] + pd.Timedelta("2h"))[:16]
    future = free_venue().override({"contract.expires": ends})
    result = bt.run(
        bt.Markets({"A": market, "B": market}), Hold(4.0), account=free_account(), compile=False,
        venue={"A": free_venue(), "B": future},
    )  # fmt: skip
    fall = bt.Scenario("fall", price=-0.1, over="4h", shape="line")
    row = bt.stress(result, fall).table.iloc[0]
    # B is closed after one of four bars, at 0.9 ** 0.25 of the last close
    quantities, last = result.state.held.quantities, market.close[-1]
    wanted = last * (0.1 * quantities[0] + (1.0 - 0.9**0.25) * quantities[1])
    assert row["loss"] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_collateral_moves_by_its_own_prices_and_a_constant_one_where_it_is_named():
    assets = [
        bt.Collateral("COIN", 2.0, prices="A", rate=0.9),
        bt.Collateral("GOLD", 3.0, prices=wild(), rate=0.5),
        bt.Collateral("USDC", 50.0, prices=1.0, rate=1.0),
    ]
    account = free_account(collateral=assets, negative_limit=1e6)
    market = bt.Markets({"A": steady(), "B": wild()})
    result = bt.run(market, Hold(3.0), venue=free_venue(), account=account, compile=False)
    quantities, last = result.state.held.quantities, result.marks[-1]
    given = {
        "all": (bt.Scenario("all", price=-0.1, shape="bar"), (-0.1, -0.1, -0.1, 0.0)),
        "peg": (bt.Scenario("peg", prices={"USDC": -0.2}, shape="bar"), (0.0, 0.0, 0.0, -0.2)),
        "gold": (bt.Scenario("gold", prices={"GOLD": 0.1, "B": -0.1}, shape="bar"),
                 (0.0, -0.1, 0.1, 0.0)),
    }  # fmt: skip
    table = bt.stress(result, [scenario for scenario, _ in given.values()]).table
    for name, (_, (a, b, gold, peg)) in given.items():
        gained = a * last[0] * (quantities[0] + 2.0) + b * last[1] * quantities[1]
        gained += 3.0 * gold * last[1] + 50.0 * peg
        assert table.loc[name, "loss"] == pytest.approx(-gained, rel=1e-9), name
    assert -1.0 < table.loc["all", "break_even"] < -0.1


def test_collateral_beside_one_instrument_moves_if_named_and_stays_in_a_replay():
    market = bt.Markets({"A": steady()})
    assets = [bt.Collateral("USDC", 50.0, prices=1.0, rate=1.0)]
    account = free_account(collateral=assets, negative_limit=1e6)
    head = bt.run(market.prefix(40), Hold(3.0), venue=free_venue(), account=account, compile=False)
    peg = bt.Scenario("peg", prices={"USDC": -0.2}, shape="bar")
    assert bt.stress(head, peg).table.loc["peg", "loss"] == pytest.approx(10.0, rel=1e-9)
    days = bt.Scenario("then", date=str(market.times[40]), until=str(market.times[50]))
    row = bt.stress(head, days, data=market).table.iloc[0]
    assert row["from"] == "data"
    whole = bt.run(market.prefix(50), Hold(3.0), venue=free_venue(), account=account, compile=False)
    assert row["equity"] == pytest.approx(whole.metrics["final_equity"], rel=1e-9)


def test_the_distance_is_that_of_all_marks_at_a_waypoint():
    """Of a hedge, the other leg moves too: frozen, each leg would be near its liquidation."""
    hedge = held(bt.Markets(dict.fromkeys(TWINS, steady())), 8.0, {"A": 1.0, "B": -1.0})
    deep = bt.Scenario("deep", price=-0.3, shape="bar")
    row = bt.stress(hedge, deep).table.iloc[0]
    # nearest at the open: B fails d above P, where E - q d = 0.005 q (2 P + d). With A frozen, B
    # would be liquidated by the fall, and with B frozen A.
    quantity, last = hedge.state.held.quantities[0], hedge.marks[-1, 0]
    gap = (hedge.metrics["final_equity"] / quantity - 0.01 * last) / 1.005
    assert row["distance"] == pytest.approx(gap / last, rel=1e-9)

"""Ruin: when it is, how the account ends, and that a ruined set stands below every other."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.account_records import Position
from backtest.account.liquidation import liquidate
from backtest.account.position import make_balances
from backtest.account.records import PAID_IN
from backtest.measures.ranking import order_sets
from backtest.report.explored import explore_study
from backtest.store import sort_entries
from backtest.strategies import Constant
from backtest.sweep.set_evaluator import Evaluator
from tests.scenes import (
    NAN,
    account_of,
    bracket,
    equities,
    happened,
    isolated,
    play,
    quote_of,
    rules_of,
    series,
    venue_of,
)
from tests.store.test_results import entry
from tests.sweep.test_lanes import assert_rows_are_runs

FIVE = (5.0, NAN)
"""Five times long from the second bar on."""


def is_(value: float) -> object:
    return pytest.approx(value, rel=1e-9)


# ------------------------------------------------------------------------- nothing but rounding


def test_a_fee_of_the_maintenance_rate_leaves_nothing():
    # 100 contracts at 100 against -9,000 of cash; 100 P - 9,000 = 0.05 x 100 P at P = 94.7368,
    # where the fee of 0.05 x 9,473.68 is all of the 473.68 that are left
    venue = venue_of(brackets=[bracket(leverage=20.0, rate=0.05)], liquidation={"fee": 0.05})
    result = play(100, 100, (100, 100, 90, 95), 95, 95, targets=10.0, venue=venue)
    assert equities(result)[2:] == [0.0, 0.0, 0.0]
    assert result.metrics["ruined"] == 1.0
    assert result.metrics["ruin_time"] == is_(3 / 24)
    assert happened(result, "ruin")["quantity"].tolist() == [0.0]
    assert len(happened(result, "fill")) == 1


@pytest.mark.parametrize("account", [account_of(), isolated(20.0)])
def test_no_rounding_is_left_after_such_a_fee(account):
    rng = np.random.default_rng(0)
    for rate, entry_price in zip(
        rng.uniform(0.002, 0.05, 300), rng.uniform(1, 9e4, 300), strict=True
    ):
        venue = venue_of(brackets=[bracket(leverage=20.0, rate=rate)], liquidation={"fee": rate})
        rules = rules_of(venue, account).instrument
        margin = entry_price / 20.0
        base = margin if account.margin == "isolated" else margin - entry_price
        backed = base - entry_price if account.margin == "isolated" else base
        value = -backed / (1.0 - rate)  # q = 1: backed + u = rate u
        cash, posted = (0.0, margin) if account.margin == "isolated" else (base, 0.0)
        balances = make_balances(cash, Position(1.0, entry_price, posted, entry_price))
        done = liquidate(rules, balances, value, quote_of(value, value, value, value))
        assert done.balances.cash + done.balances.positions[0].margin == 0.0


def test_a_fee_a_little_under_what_is_left_leaves_the_rest():
    venue = venue_of(brackets=[bracket(leverage=20.0, rate=0.05)], liquidation={"fee": 0.04})
    result = play(100, 100, (100, 100, 90, 95), 95, targets=(10.0, NAN), venue=venue)
    assert equities(result)[-1] == is_(0.01 * 100 * 9000 / 95)
    assert result.metrics["ruined"] == 0.0


def test_an_equity_of_a_billionth_of_the_capital_is_none():
    # 9 of 10 are lost at each close: after nine such bars 1e-9 of the capital is left
    bars = [(p, p, 0.9 * p, 0.9 * p) for p in 100.0 * 0.9 ** np.arange(12)]
    venue = venue_of(brackets=[bracket(leverage=20.0, rate=0.001)])
    result = play(100, *bars, targets=9.0, venue=venue)
    ruin = happened(result, "ruin")
    left = result.bars["equity"].loc[ruin["time"].iloc[0]]
    before = result.bars["equity"].shift(1).loc[ruin["time"].iloc[0]]
    assert (left, before) == (is_(1e-6), is_(1e-5))
    assert result.metrics["final_equity"] == left > 0.0


# ------------------------------------------------------------------------------ the line of ruin


def test_a_loss_to_the_line_closes_the_account_at_the_mark_close():
    # 50 contracts at 100; at 91 the equity is 1,000 - 450 = 550, 55 % of the capital
    bars = (100, 100, (100, 100, 91, 91), 91, 120)
    result = play(*bars, targets=FIVE, account=account_of(ruin_at=0.55))
    assert equities(result) == [1000.0, 1000.0, 550.0, 550.0, 550.0]
    row = happened(result, "ruin").iloc[0]
    assert (row["price"], row["quantity"], row["amount"]) == (91.0, -50.0, 50.0 * 91.0)
    assert result.bars["position"].tolist() == [0.0, 50.0, 0.0, 0.0, 0.0]
    metrics = result.metrics
    assert (metrics["ruined"], metrics["ruin_time"]) == (1.0, is_(3 / 24))
    assert (metrics["cagr"], metrics["final_equity"]) == (-1.0, 550.0)
    assert metrics["total_return"] == is_(-0.45)
    assert math.isnan(metrics["leverage_decay"])
    spared = play(*bars, targets=FIVE, account=account_of(ruin_at=0.5499))
    assert equities(spared)[-1] == 1000.0 + 50 * 20
    assert spared.metrics["ruined"] == 0.0


def test_the_costs_of_ruin_are_those_of_the_trades_before():
    venue = venue_of(fees={"taker": 0.001, "maker": 0.0}, slippage={"rate": 0.001})
    account = account_of(ruin_at=0.6)
    result = play(100, 100, (100, 100, 90, 90), targets=FIVE, venue=venue, account=account)
    row = result.bars.iloc[-1]
    assert (row["fees"], row["slippage"], row["position"]) == (0.0, 0.0, 0.0)
    assert row["equity"] == is_(result.bars["equity"].iloc[1] + row["price_pnl"])


def test_an_isolated_account_ends_with_wallet_and_margin():
    # 2,000 of notional posts 500 at 4x; at 70 the loss is 600: the margin goes, the wallet stays
    account = isolated(4.0, ruin_at=0.72)
    result = play(100, 100, (100, 100, 86, 86), 86, targets=(2.0, NAN), account=account)
    # 20 contracts lose 14 each: 720 are left, wallet 500 and margin 500 - 280
    assert equities(result)[2:] == [720.0, 720.0]
    assert result.bars[["cash", "margin"]].iloc[-1].tolist() == [720.0, 0.0]
    assert result.metrics["ruined"] == 1.0


def test_a_deposit_adds_to_the_capital_paid_in():
    # 1,000 and 1,000 paid in at bar 2; 50 contracts lose 500 each at 90 and at 80
    flows = series({2: 1000.0})
    bars = (100, 100, (100, 100, 90, 90), (90, 90, 80, 80), 80)
    kept = play(*bars, targets=FIVE, account=account_of(ruin_at=0.49, flows=flows))
    lost = play(*bars, targets=FIVE, account=account_of(ruin_at=0.51, flows=flows))
    assert equities(kept)[2:] == [1500.0, 1000.0, 1000.0]
    assert (kept.metrics["ruined"], lost.metrics["ruined"]) == (0.0, 1.0)
    assert lost.metrics["ruin_time"] == is_(4 / 24)


def test_a_withdrawal_brings_ruin_no_nearer():
    # 1,000 grow to 1,500, of which 1,200 are withdrawn: 200 of the 1,000 count as still paid in
    flows = series({4: -1200.0})
    bars = (100, 100, (100, 110, 100, 110), 110, 110)
    targets = (5.0, NAN, 0.0, 1.0, NAN)
    last = [(110, 110, low, low) for low in (70.0, 69.0)]
    account = account_of(ruin_at=0.9534, flows=flows)
    kept = play(*bars, last[0], targets=targets, account=account)
    # 300 / 110 contracts lose 300 x 40 / 110 = 109.09: 190.91 of 200 are 95.45 %
    assert kept.state.wallet[PAID_IN] == is_(200.0)
    assert kept.bars["equity"].iloc[-1] == is_(300 - 300 * 40 / 110)
    assert kept.metrics["ruined"] == 0.0
    # 300 x 41 / 110 = 111.82: 188.18 are 94.09 %
    assert play(*bars, last[1], targets=targets, account=account).metrics["ruined"] == 1.0


def test_what_was_withdrawn_is_no_loss():
    flows = series({2: -900.0})
    result = play(*[100] * 5, targets=0.0, account=account_of(ruin_at=0.9, flows=flows))
    assert equities(result)[-1] == 100.0
    assert result.state.wallet[PAID_IN] == is_(100.0)
    assert result.metrics["ruined"] == 0.0


def test_wealth_counts_the_reserve_and_so_does_the_capital_paid_in():
    # 1,000 in the account and 500 in the reserve; at 90 the wealth is 500 + 500 of 1,500
    terms = {"reserve": 500.0, "margin_call": 0.9, "top_up_to": 0.5}
    bars = (100, 100, (100, 100, 90, 90), 90)
    for line, ruined in ((0.66, 0.0), (0.67, 1.0)):
        result = play(*bars, targets=FIVE, account=account_of(ruin_at=line, **terms))
        assert result.metrics["ruined"] == ruined
        assert result.metrics["final_equity"] == 500.0


def test_interest_and_deposits_after_ruin_change_no_measure():
    venue = venue_of(interest_on="loan", cash_rate=0.365)
    account = account_of(ruin_at=0.6, flows=series({4 * 24: 1000.0}))
    bars = (100, 100, (100, 100, 90, 90), 90, 90, 90)
    result = play(*bars, targets=FIVE, venue=venue, account=account, interval="1d")
    assert result.metrics["ruined"] == 1.0
    units = result.bars["unit"].tolist()
    assert units[2:] == [units[2]] * 4
    assert result.bars["equity"].iloc[-1] > 1500.0


# ------------------------------------------------------------------------- under the least order


def test_a_flat_account_under_one_lot_is_ruined():
    # a lot of 6 bought at 100 and sold at 60, the next open: 1,000 - 240 = 760 are left, and at
    # the close a lot is worth 6 x 130 = 780, or 6 x 126 = 756
    venue = venue_of(contract={"lot": 6.0})
    for close, ruined in ((130, 1.0), (126, 0.0)):
        bars = (100, 100, (60, close, 60, close), close)
        account = account_of(max_leverage=1.0)
        result = play(*bars, targets=(1.0, 0.0), venue=venue, account=account)
        assert equities(result)[2:] == [760.0, 760.0]
        assert result.metrics["ruined"] == ruined


def test_a_flat_account_under_the_least_order_is_ruined():
    # 760 bought at a fee of 1 % and sold at 60 of 100: 1,000 - 7.6 - 304 - 4.56 = 683.84
    venue = venue_of(contract={"min_notional": 700.0}, fees={"taker": 0.01, "maker": 0.0})
    bars = (100, 100, (100, 100, 60, 60), 60, 60)
    targets = (0.76, NAN, 0.0)
    poor = play(*bars, targets=targets, venue=venue, account=account_of(max_leverage=1.0))
    assert poor.metrics["final_equity"] == is_(683.84)
    assert poor.metrics["ruin_time"] == is_(4 / 24)
    # at twice the leverage the order of 700 can be made
    rich = play(*bars, targets=targets, venue=venue, account=account_of(max_leverage=2.0))
    assert rich.metrics["ruined"] == 0.0


def test_an_account_that_never_could_trade_is_not_ruined():
    venue = venue_of(contract={"min_notional": 5000.0})
    result = play(*[100, 90, 80, 70], venue=venue, account=account_of(max_leverage=1.0))
    assert result.metrics["ruined"] == 0.0


# ------------------------------------------------------------------------ a sweep's rows are runs


@pytest.fixture(scope="module")
def swept() -> tuple[Evaluator, dict[str, np.ndarray]]:
    """Return sets of which many are ruined, at lines of their own."""
    venue = bt.Venue.simple(
        taker=5e-4, slippage=0.0, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.005
    )
    rng = np.random.default_rng(1)
    sets = {
        "leverage": np.r_[rng.uniform(0.5, 60.0, 60), 3.0, 20.0, 30.0, 45.0],
        "account.ruin_at": np.r_[rng.choice([0.1, 0.5, 0.8, 0.9, 0.98], 60), [np.nan] * 4],
        "account.capital": np.r_[rng.uniform(100.0, 1e6, 60), [1e4] * 4],
    }
    market = bt.Market.sample(bars=1_500)
    return Evaluator(market, Constant, venue=venue, account=bt.Account()), sets


@pytest.mark.slow  # compiles a kind of account for itself
def test_rows_with_a_line_of_ruin_are_their_runs(swept):
    evaluator, sets = swept
    rows = evaluator.evaluate(sets, returns=True)
    ruined = rows.metrics["ruined"]
    assert 20 < ruined.sum() < 64
    assert (rows.metrics["final_equity"][ruined > 0.0] > 0.0).sum() > 10
    picked = np.r_[0:60:5, 60:64]
    some = {name: column[picked] for name, column in sets.items()}
    found = rows._replace(
        metrics={name: column[picked] for name, column in rows.metrics.items()},
        returns=rows.returns[:, picked],
        errors=[rows.errors[k] for k in picked],
        done=rows.done[picked],
    )
    assert_rows_are_runs(evaluator, some, found)


# ---------------------------------------------------------------------------------- every ranking


@pytest.mark.slow
def test_a_ruined_set_never_leads_a_sweep_though_its_ratio_is_the_highest(swept):
    base = swept[0].base
    sweep = bt.sweep(
        bt.Market.sample(bars=1_500), Constant, {"leverage": [0.5, 1.0, 2.0, 20.0, 50.0, 80.0]},
        venue=base.venue, account=bt.Account(ruin_at=0.5),
    )  # fmt: skip
    table = sweep.table
    ruined = (table["ruined"] > 0.0).to_numpy()
    assert 0 < ruined.sum() < len(table)
    for objective in ("sharpe", "total_return", "-volatility", "final_equity", "-max_drawdown"):
        places = sweep.rank(objective)
        assert not ruined[places[: (~ruined).sum()]].any()
        lived = table["ruin_time"].to_numpy()[places[(~ruined).sum() :]]
        assert (np.diff(lived) <= 0.0).all()
        assert sweep.best(objective)["ruined"] == 0.0


def test_the_page_of_a_study_ranks_the_ruined_below_those_that_break_a_bound():
    nan = math.nan
    table = pd.DataFrame(
        {
            "x": [0.0, 1.0, 2.0, 3.0, 4.0],
            "sharpe": [9.0, 8.0, 1.0, 2.0, nan],
            "ruined": [1.0, 1.0, 0.0, 0.0, nan],
            "ruin_time": [3.0, 5.0, nan, nan, nan],
            "score": [9.0, 8.0, 1.0, 2.0, nan],
            "violation": [math.inf, math.inf, 0.5, 0.0, math.inf],
            "error": ["", "", "", "", "failed"],
        }
    )
    dimension = {"name": "x", "log": False}
    study = SimpleNamespace(
        table=table, objectives=("sharpe",), best_trial=3,
        facts={"space": {"dimensions": [dimension]}},
    )  # fmt: skip
    assert explore_study(study).order.tolist() == [3, 2, 1, 0, 4]


def test_a_list_of_results_ends_with_the_ruined_the_longest_lived_first():
    of = {
        "early": {"sharpe": 9.0, "ruined": 1.0, "ruin_time": 3.0},
        "late": {"sharpe": 5.0, "ruined": 1.0, "ruin_time": 30.0},
        "blank": {"sharpe": math.nan, "ruined": 0.0},
        "poor": {"sharpe": -2.0, "ruined": 0.0},
        "good": {"sharpe": 2.0, "ruined": 0.0},
    }
    entries = [entry(name, metrics=metrics) for name, metrics in of.items()]
    names = [each.name for each in sort_entries(entries, "sharpe")]
    assert names == ["good", "poor", "blank", "late", "early"]
    back = [each.name for each in sort_entries(entries, "sharpe", is_reversed=True)]
    assert back == ["early", "late", "blank", "poor", "good"]


def test_a_constraint_that_is_met_lifts_no_ruined_set():
    places = order_sets(
        scores=np.array([9.0, 1.0, 5.0]),
        violations=np.array([0.0, 0.5, np.inf]),
        ruined=np.array([True, False, True]),
        ruin_time=np.array([2.0, math.nan, 4.0]),
        failed=np.zeros(3, dtype=bool),
    )
    assert places.tolist() == [1, 2, 0]

"""What holds in every run, on random markets, venues and accounts.

The runs are those of the reference (``tests/cases.py``: fat tails, gaps, several brackets, all
modes), drawn by seed, so that the suite is the same every time.
"""

import dataclasses
import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from tests.cases import Case, make_case
from tests.scenes import TRADES, Follow, happened

COSTS = ["fees", "slippage", "impact", "funding", "interest", "liquidation_loss"]
RUNS = 150
seeds = st.integers(0, RUNS - 1)
repeatable = settings(max_examples=RUNS)
fewer = settings(repeatable, max_examples=40)


def in_every_run(check):
    """Hold a check of a seed to all runs."""
    return pytest.mark.slow(repeatable(given(seeds)(check)))


def run(case: Case, **changes) -> bt.Result:
    """Run a case in plain Python."""
    return bt.run(policy=Follow(), compile=False, **case.for_engine(bt) | changes)


@cache
def lived(seed: int) -> tuple[Case, bt.Result]:
    """Return a case and its result; each is run once for all tests."""
    case = make_case(seed)
    return case, run(case)


def scaled(case: Case, factor: float) -> Case:
    """Return the case with all money times a factor: capital, flows, reserve, fees, volume."""
    account, flows = dict(case.account), case.account["flows"]
    account["capital"] *= factor
    account["reserve"] *= factor
    account["flows"] = None if flows is None else flows * factor
    brackets = [
        row | {"floor": row["floor"] * factor, "cap": row["cap"] * factor, "amount": None}
        for row in case.brackets
    ]
    liquidation = case.liquidation | {"full_below": case.liquidation["full_below"] * factor}
    free = {"lot": 0.0, "min_notional": 0.0}
    return dataclasses.replace(
        case,
        bars=case.bars.assign(volume=case.bars["volume"] * factor),
        account=account,
        brackets=brackets,
        fees=case.fees | {"per_order": case.fees["per_order"] * factor},
        liquidation=liquidation,
        contract=case.contract | free,
    )


@in_every_run
def test_the_change_of_equity_is_the_sum_of_its_terms(seed):
    case, result = lived(seed)
    bars = result.bars
    terms = bars["price_pnl"] - bars[COSTS].sum(axis=1) + bars["flows"] + bars["bad_debt"]
    equity = np.array([case.account["capital"], *bars["equity"]])
    trades = result.events[result.events["kind"].isin(TRADES)]
    traded = trades.groupby("time")["amount"].sum().reindex(bars.index, fill_value=0.0)
    held = np.abs(bars["leverage"] * bars["equity"]).fillna(0.0)
    scale = np.maximum.reduce([equity[:-1], equity[1:], traded.to_numpy(), held.to_numpy()])
    assert (np.abs(np.diff(equity) - terms.to_numpy()) <= 2e-9 * scale).all()


@in_every_run
def test_equity_cash_margin_and_reserve_are_never_negative_where_they_may_not_be(seed):
    case, result = lived(seed)
    bars = result.bars
    assert bars["equity"].min() >= 0.0
    assert bars["reserve"].min() >= 0.0
    assert bars["unit"].min() >= 0.0
    assert bars["bad_debt"].min() >= 0.0
    if case.account["margin"] == "isolated":
        assert bars["cash"].min() >= 0.0
        assert (bars.loc[bars["position"] == 0.0, "margin"] == 0.0).all()


@in_every_run
def test_a_ruined_account_stays_flat(seed):
    _, result = lived(seed)
    bars = result.bars
    had = bars["equity"].shift(1, fill_value=result.account.capital) + bars["flows"]
    lost = (bars["equity"] <= 0.0) & (had > 1e-9)  # an account its owner empties is not ruined
    ruin = happened(result, "ruin")
    assert result.metrics["ruined"] == len(ruin) >= float(lost.any())
    if len(ruin):
        first = ruin["time"].iloc[0]
        assert (bars.loc[first:, "position"] == 0.0).all()
        assert not result.events.loc[result.events["time"] > first, "kind"].isin(TRADES).any()
        assert bars.loc[first, "equity"] < had[first]


@repeatable
@given(seeds)
def test_positions_are_whole_lots_until_a_liquidation_leaves_a_part(seed):
    case, result = lived(seed)
    lot = case.contract["lot"]
    if lot == 0.0:
        return
    clean = result.bars["position"].to_numpy() / lot
    liquidated = np.isin(result.bars.index, happened(result, "liquidation")["time"])
    forced = np.maximum.accumulate(liquidated) if case.liquidation["mode"] == "partial" else False
    assert (np.abs(clean - np.round(clean)) < 1e-6)[~np.broadcast_to(forced, clean.shape)].all()


@in_every_run
def test_nothing_trades_in_bar_0_and_an_order_fills_at_the_open_worsened(seed):
    case, result = lived(seed)
    events = result.events
    trades = events[events["kind"] == "fill"]
    assert not trades["time"].eq(result.bars.index[0]).any()
    opens = case.bars["open"].reindex(trades["time"]).to_numpy()
    worse = np.sign(trades["quantity"].to_numpy()) * (trades["price"].to_numpy() / opens - 1)
    assert (worse >= case.slippage["rate"] * (1 - 1e-9) - 1e-12).all()


@in_every_run
def test_a_liquidation_happens_at_a_price_that_its_bar_contains(seed):
    case, result = lived(seed)
    mark = case.bars if case.mark is None else case.mark
    events = happened(result, "liquidation")
    low, high = (mark[name].reindex(events["time"]).to_numpy() for name in ("low", "high"))
    price = events["price"].to_numpy()
    assert (price >= low * (1 - 1e-9)).all()
    assert (price <= high * (1 + 1e-9)).all()


@in_every_run
def test_a_stop_happens_at_a_price_that_its_bar_contains_worsened(seed):
    case, result = lived(seed)
    events = happened(result, "stop")
    low, high = (case.bars[name].reindex(events["time"]).to_numpy() for name in ("low", "high"))
    worse = 1 + np.sign(events["quantity"].to_numpy()) * case.slippage["rate"]
    price = events["price"].to_numpy() / worse
    assert (price >= low * (1 - 1e-9)).all()
    assert (price <= high * (1 + 1e-9)).all()


@in_every_run
def test_a_position_at_a_close_meets_its_requirement_unless_the_close_is_the_first_to_fail(seed):
    """The close lies between the extremes, so it cannot fail where they did not."""
    _, result = lived(seed)
    held = result.bars[result.bars["position"] != 0.0]
    assert (held["margin_ratio"] < 1.0 + 1e-9).all()


@in_every_run
def test_the_liquidation_price_lies_on_the_losing_side_of_the_mark(seed):
    _, result = lived(seed)
    held = result.bars[(result.bars["position"] != 0.0) & result.bars["liquidation_price"].notna()]
    side = np.sign(held["position"])
    assert (side * (held["mark"] - held["liquidation_price"]) >= -1e-9 * held["mark"]).all()


@in_every_run
def test_every_settlement_of_a_held_position_is_paid_once(seed):
    case, result = lived(seed)
    events = happened(result, "funding")
    if case.funding is None:
        assert events.empty
        return
    assert len(events) <= len(case.funding)
    paid = events["quantity"].to_numpy()
    assert (paid != 0.0).all()
    # the payments of a bar are no more than the stamps from a jitter before it to a jitter after
    inside = case.funding.index.asi8
    width = pd.Timedelta(case.venue["funding_jitter"]).value
    for time, count in events["time"].value_counts().items():
        opened = time.as_unit("ns").value
        near = (inside >= opened - width) & (inside <= opened + case.interval + width)
        assert count <= near.sum()


@in_every_run
def test_the_ledger_explains_the_position_and_the_columns(seed):
    _, result = lived(seed)
    bars = result.bars
    trades = result.events[result.events["kind"].isin(TRADES)]
    moved = trades.groupby("time")["quantity"].sum().reindex(bars.index, fill_value=0.0).cumsum()
    scale = max(1.0, float(bars["position"].abs().max()))
    assert np.abs(moved.to_numpy() - bars["position"].to_numpy()).max() <= 1e-6 * scale
    for kind, column in (("fee", "fees"), ("funding", "funding"), ("interest", "interest")):
        amount = happened(result, kind)["amount"].sum()
        assert amount == pytest.approx(bars[column].sum(), rel=1e-9, abs=1e-9)


@pytest.mark.slow
@fewer
@given(seeds, st.sampled_from([0.01, 7.3, 1000.0]))
def test_money_times_a_factor_changes_no_return(seed, factor):
    case = make_case(seed)
    one, other = run(scaled(case, 1.0)), run(scaled(case, factor))
    same = pytest.approx(one.bars["unit"].to_numpy(), rel=1e-6, abs=1e-9)
    assert other.bars["unit"].to_numpy() == same
    # fills and their costs aside: what rounding leaves in a wallet may buy 1e-16 of the position
    acted = [
        run_.events["kind"][run_.events["kind"].isin(["stop", "liquidation", "margin_call"])]
        for run_ in (one, other)
    ]
    assert acted[0].tolist() == acted[1].tolist()


@pytest.mark.slow
@fewer
@given(seeds)
def test_a_run_repeats_to_the_bit(seed):
    case, result = lived(seed)
    again = run(case)
    assert again.record.values.tobytes() == result.record.values.tobytes()
    assert again.entries.tobytes() == result.entries.tobytes()
    assert again.manifest == result.manifest


@pytest.mark.slow
@fewer
@given(seeds, st.integers(5, 25))
def test_the_bars_after_t_change_nothing_up_to_t(seed, k):
    """Cut the market at any bar: what was recorded before stays the same bits."""
    case, result = lived(seed)
    if k >= len(case.bars):
        return
    given_ = case.for_engine(bt)
    market = given_["market"]
    short = market.between(None, market.times[k])
    head = run(case, market=short, signal=case.signal.iloc[:k])
    assert head.record.values.tobytes() == result.record.values[:k].tobytes()


@pytest.mark.slow
@fewer
@given(seeds)
def test_higher_fees_never_leave_more_of_a_position_that_is_only_held(seed):
    case = make_case(seed)
    held = case.bars.assign(
        target=[case.bars["target"].iloc[0], *[math.nan] * (len(case.bars) - 1)]
    )
    quiet = case.account | {"stop_loss": None, "margin_call": None, "reserve": 0.0}
    quiet |= {"top_up_to": None, "max_leverage": 0.5, "min_leverage": 0.0}
    cheap, dear = (
        run(
            dataclasses.replace(
                case,
                bars=held,
                account=quiet,
                signal=pd.Series(1.0, index=held.index),
                fees=case.fees | {"taker": rate, "maker": rate},
                venue=case.venue | {"includes_close_fee": False, "call_grace": None},
            )
        )
        for rate in (0.0, 0.001)
    )
    if happened(cheap, "liquidation").empty and happened(dear, "liquidation").empty:
        assert (dear.bars["equity"] <= cheap.bars["equity"] * (1 + 1e-9)).all()

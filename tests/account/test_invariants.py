"""What holds in every run, on random markets, venues and accounts.

The runs are those of the reference (``tests/cases.py``: fat tails, gaps, several brackets, all
modes), which proves their money bar by bar; here is what it does not say.
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
from tests.scenes import Follow, happened

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

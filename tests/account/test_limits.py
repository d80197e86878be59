"""Limits of leverage by date: the rule by hand, and the reference."""

from dataclasses import replace

import numpy as np
import pytest

import backtest as bt
from backtest.base.json_values import to_plain
from backtest.report.basis import find_changes
from backtest.strategies import Constant
from backtest.venue.preset_files import parse_name
from tests.agreement import assert_agrees
from tests.cases import make_case, with_limits
from tests.kit import every_nth
from tests.scenes import INF, NAN, account_of, at, is_, market_of, play, series, venue_of

DATED = series({0: INF, 3: 2.0, 5: 0.0, 7: 4.0})


def leverage_of(result):
    return result.bars["leverage"].tolist()


# ------------------------------------------------------------------------------------- by hand


def test_the_value_in_force_at_the_open_of_the_fill_limits_the_target():
    result = play(*[100] * 9, targets=5.0, account=account_of(max_leverage=DATED))
    # the decision of bar 2 fills at the open of bar 3, where 2 is in force; 0 closes; then 4
    assert leverage_of(result) == [0.0, *[is_(5.0)] * 2, *[is_(2.0)] * 2, 0.0, 0.0, *[is_(4.0)] * 2]


def test_a_change_between_two_opens_holds_from_the_next_open():
    limit = series({0: INF, 2.5: 2.0})
    result = play(*[100] * 5, targets=5.0, account=account_of(max_leverage=limit))
    assert leverage_of(result) == [0.0, *[is_(5.0)] * 2, *[is_(2.0)] * 2]


def test_a_position_that_is_left_alone_outlives_a_limit():
    account = account_of(max_leverage=series({0: INF, 3: 0.0}))
    result = play(*[100] * 6, targets=(5.0, NAN), account=account)
    assert leverage_of(result)[1:] == [is_(5.0)] * 5


def test_an_infinite_leverage_asks_for_the_limit():
    account = account_of(max_leverage=series({0: 3.0, 3: INF}))
    result = play(*[100] * 5, targets=INF, account=account)
    assert leverage_of(result) == [0.0, is_(3.0), is_(3.0), is_(16.0), is_(16.0)]


def test_a_ban_ruins_no_flat_account():
    venue = venue_of(contract={"min_notional": 5.0}, fees={"taker": 0.001, "maker": 0.001})
    account = account_of(max_leverage=series({0: INF, 2: 0.0, 4: 1.0}))
    result = play(*[100] * 6, targets=2.0, venue=venue, account=account)
    # the fee of closing is a loss, and 0 turns of any wealth are under the least order of 5
    assert result.metrics["ruined"] == 0.0
    assert leverage_of(result)[2:5] == [0.0, 0.0, is_(1.0 / (1.0 - 0.001))]


def test_ruin_by_the_least_order_uses_the_limit_in_force():
    # 1,000 at 2 turns, 40 % down: 200 are left, and a limit of 0.02 allows 4 < 5
    venue = venue_of(contract={"min_notional": 5.0})
    account = account_of(max_leverage=series({0: 2.0, 3: 0.02}), stop_loss=0.4)
    bars = [100, 100, 100, (100, 100, 60, 60), 60, 60]
    result = play(*bars, targets=(2.0, NAN), venue=venue, account=account)
    assert result.metrics["ruined"] == 1.0
    before = replace(account, max_leverage=series({0: 2.0, 4: 0.02}))
    assert play(*bars, targets=(2.0, NAN), venue=venue, account=before).metrics["ruined"] == 0.0


def test_a_constant_series_is_a_number_to_the_bit():
    bars = [100, 99, 97.5, 96, 98, 94, 90, 91]
    one = play(*bars, targets=7.0, account=account_of(max_leverage=3.3))
    two = play(*bars, targets=7.0, account=account_of(max_leverage=series({-5: 3.3})))
    assert one.record.values.tobytes() == two.record.values.tobytes()


@pytest.mark.parametrize("seed", every_nth(range(40), 4))
def test_random_cases_equal_the_reference(seed):
    case = with_limits(make_case(seed), np.random.default_rng([seed, 3]))
    assert_agrees(case.whole(), f"with_limits, {seed}")


# ------------------------------------------------------------------------------ stored and resumed


def test_a_run_under_a_limit_equals_its_parts(tmp_path):
    rng = np.random.default_rng(1)
    bars = (100 * np.exp(np.cumsum(rng.normal(0, 0.01, 12)))).tolist()
    run = {"venue": venue_of(), "account": account_of(max_leverage=DATED), "compile": False}
    market = market_of(*bars)
    whole = bt.run(market, Constant(5.0), **run)
    head = bt.run(market.between(None, at(4)), Constant(5.0), **run)
    saved = bt.Result.load(head.save(tmp_path))
    assert saved.account == head.account
    for earlier in (head, saved):
        tail = bt.run(market, Constant(5.0), resume=earlier, **run)
        both = np.concatenate([head.record.values, tail.record.values])
        assert both.tobytes() == whole.record.values.tobytes()


def test_a_report_names_the_fields_that_a_preset_leaves_out():
    venue = bt.Venue.preset("dydx", "BTC-USD").override(
        {"contract.round_to_tick": True, "fees.tiers": [bt.FeeTier(1e6, 1e-4, 0.0)]},
        maintenance_multiplier=2.0,
    )
    changes = find_changes(parse_name("dydx:BTC-USD"), to_plain(venue.to_dict()))
    assert changes == {
        "contract": ["round_to_tick True"],
        "fees": ["tiers of this run's own"],
        "rules": ["maintenance multiplier 2"],
    }


def test_a_limit_tells_its_days():
    # 24 hours a day: the limit of 2 binds the fills of bars 24 to 47, one day of two
    account = account_of(max_leverage=series({0: INF, 24: 2.0}))
    bars = np.linspace(100, 110, 48).tolist()
    result = bt.run(
        market_of(*bars), Constant(4.0), account=account, venue=venue_of(), compile=False
    )
    table = result.target_cuts()
    assert table.loc["all", "days"] == 2
    assert table.loc["max_leverage", "days"] == 1


# -------------------------------------------------------------------------------------- bad input


def test_min_leverage_must_be_at_most_the_least_limit():
    with pytest.raises(bt.ParameterError, match="at most max_leverage 0 at its lowest, got 1"):
        account_of(max_leverage=DATED, min_leverage=1.0)


def test_a_limit_must_begin_by_the_first_bar():
    with pytest.raises(
        bt.ParameterError, match=r"account\.max_leverage: .* begin by the first bar"
    ):
        play(100, 100, account=account_of(max_leverage=series({1: 2.0})))

"""A policy is asked from the bar on at which each of its columns has had a value (§4)."""

import math
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.baselines.policy_contract import check_policy
from backtest.engine import find_first_value, find_warm_up
from backtest.strategies import Capped, Constant, Lowest
from tests.agreement import Counting
from tests.kit import AT_BINANCE

BARS = 200
KNOWN = 30


def begin_at(market: bt.Market, bar: int) -> np.ndarray:
    """Return the closes from a bar of the market on, NaN before: by time, so that cuts agree."""
    bars = (market.time - bt.Market.sample(bars=2).time[0]) // market.interval
    return np.where(bars >= bar, market.close / market.close, np.nan)


class Eager(bt.Policy):
    """Answer 2 where the column is unknown, which a formula that hides NaN does."""

    known: Annotated[int, bt.Range(0, 10_000, "bars")] = KNOWN

    def observe(self, market):
        return {"one": begin_at(market, self.known), "never": np.full(market.n_bars, np.nan)}

    def leverage(self, bar, account):
        return min(2.0, 0.5 / bar.one)


class Counted(Counting):
    """Answer 2 over how often it was asked."""

    known: Annotated[int, bt.Range(0, 10_000, "bars")] = KNOWN

    def observe(self, market):
        return {
            "target": 2.0 * begin_at(market, self.known),
            "never": np.full(market.n_bars, np.nan),
        }


class Gap(Eager):
    def observe(self, market):
        column = begin_at(market, self.known)
        column[self.known + 5 : self.known + 8] = np.nan
        return {"one": column}


class SetsMargin(Eager):
    def venue_leverage(self, bar, account):
        return min(5.0, 10.0 / bar.one)


def find_targets(policy: bt.Policy, **fields) -> np.ndarray:
    """Return what a policy asked for at each close of the sample, NaN where it was not asked."""
    market = fields.pop("market", None) or bt.Market.sample(bars=BARS)
    result = bt.run(market, policy, compile=False, **{**AT_BINANCE, **fields})
    return result.of_positions("target")[:, 0]


def test_nothing_is_decided_before_each_column_has_had_a_value():
    target = find_targets(Eager())

    assert np.isnan(target[:KNOWN]).all()
    assert (target[KNOWN:] == 0.5).all()


def test_a_column_that_never_has_a_value_is_no_reason_to_wait():
    columns = {"a": np.array([math.nan, 1.0]), "b": np.full(2, math.nan)}
    assert find_warm_up(columns) == (1, ("b",))

    known_at_once = find_targets(Eager(known=0))
    assert (known_at_once == 0.5).all()
    never_known = find_targets(Eager(known=BARS + 1))  # which `backtest check` warns of
    assert (never_known == 2.0).all()


@pytest.mark.parametrize("first", [0, 1, 63, 64, 65, 1023, 1024, 5000, None])
def test_the_first_value_is_found_wherever_it_is(first):
    column = np.full(5001, np.nan)
    if first is not None:
        column[first] = math.inf

    assert find_first_value(column) == first


def test_memory_stays_as_it_began_until_the_policy_is_asked():
    target = find_targets(Counted())
    np.testing.assert_array_equal(target[KNOWN:], 2.0 / np.arange(1, BARS - KNOWN + 1))


def test_what_is_unknown_later_is_left_to_the_formula():
    target = find_targets(Gap())
    assert target[KNOWN + 4 : KNOWN + 9].tolist() == [0.5, 2.0, 2.0, 2.0, 0.5]


@pytest.mark.parametrize("policy", [
    Lowest(Constant(0.3), Eager()), Capped(Eager(), cap=0.3), Lowest(Eager(known=7), Eager()),
])  # fmt: skip
def test_a_combinator_waits_for_the_columns_of_all_its_policies(policy):
    target = find_targets(policy)

    assert np.isnan(target[:KNOWN]).all()
    assert np.isfinite(target[KNOWN:]).all()


def test_an_overlay_scales_nothing_before_its_columns_are_known():
    """It is asked from the close of bar 30 on; before, positions are what their policies want."""
    market = bt.Market.sample(bars=BARS)
    markets = bt.Markets({"A": market, "B": market})
    equal = bt.allocate.equal(markets)
    result = bt.run(
        markets, Constant(1.0), signal=equal, overlay=Eager(), compile=False, **AT_BINANCE
    )

    overlay = result.of_account("overlay")
    assert np.isnan(overlay[:KNOWN]).all()
    assert (overlay[KNOWN:] == 0.5).all()


def test_margin_is_not_set_before_the_columns_are_known():
    account = bt.Account(margin="isolated", venue_leverage=3.0)
    market = bt.Market.sample(bars=BARS)
    result = bt.run(
        market, SetsMargin(), venue="binance-usdm:BTCUSDT", account=account, compile=False
    )

    held = result.bars["position"].to_numpy() != 0.0
    assert np.flatnonzero(held)[0] == KNOWN + 1


def test_longer_bars_of_the_policy_are_counted_in_those():
    """Known from the third bar of 4 h on, whose close is that of hour 12."""

    class Slow(Eager):
        def observe(self, market):
            return {"one": np.where(np.arange(market.n_bars) >= 2, 1.0, np.nan)}

    target = find_targets(Slow(), decision_interval="4h")
    assert np.flatnonzero(~np.isnan(target))[0] == 11


def test_what_the_history_knows_is_known_at_the_start_of_a_run():
    market = bt.Market.sample(bars=BARS)

    later = find_targets(Counted(), start=market.times[KNOWN + 10])
    assert later[:2].tolist() == [2.0, 1.0]

    sooner = find_targets(Counted(), start=market.times[KNOWN - 10])
    assert np.isnan(sooner[:10]).all()
    assert sooner[10] == 2.0


@pytest.mark.parametrize("cut", [KNOWN, KNOWN + 20])
def test_a_resumed_run_goes_on_where_the_whole_one_would_be(cut):
    """Its policy is asked at once, with its memory: the columns were known in the first part."""
    market = bt.Market.sample(bars=BARS)
    terms = {**AT_BINANCE, "compile": False}

    whole = bt.run(market, Counted(), **terms)
    first = bt.run(market.prefix(cut + 1), Counted(), **terms)
    rest = bt.run(market, Counted(), resume=first, **terms)

    joined = np.concatenate([first.of_positions("target"), rest.of_positions("target")])
    np.testing.assert_array_equal(joined, whole.of_positions("target"))


def list_late_starts(result):
    return [notice for notice in result.notices if notice.startswith("Decided from")]


def test_a_run_says_from_which_bar_it_decided():
    market = bt.Market.sample(bars=BARS)
    result = bt.run(market, Eager(), compile=False, **AT_BINANCE)
    (notice,) = list_late_starts(result)
    assert notice.startswith("Decided from 2023-01-02 06:00 UTC on, bar 30: ")

    known = bt.run(market, Eager(), compile=False, start=market.times[KNOWN], **AT_BINANCE)
    assert not list_late_starts(known)


class Dying(bt.Policy):
    """A column that is known at 20 closes, the last of them that of bar 19."""

    def observe(self, market):
        return {"x": np.where(np.arange(market.n_bars) < 20, 1.0, np.nan)}

    def leverage(self, bar, account):
        return bar.x


def test_a_column_that_dies_is_said_by_the_run_and_by_the_check():
    market = bt.Market.sample(bars=BARS)
    result = bt.run(market, Dying(), compile=False, **AT_BINANCE)
    told = [notice for notice in result.notices if notice.startswith("No decision at the last")]
    assert len(told) == 1
    assert f"last {BARS - 20} closes, from 2023-01-01 20:00 UTC on" in told[0]

    checks = check_policy(Dying, market)
    (finite,) = [each for each in checks if each.name == "decisions are finite"]
    assert f"NaN again at {BARS - 20} closes" in finite.detail


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("policy", [
    Eager(), Counted(), Gap(), Capped(Counted(), cap=0.3), Lowest(Eager(known=7), Counted()),
])  # fmt: skip
def test_compiled_and_called_back_code_wait_as_plain_python_does(policy):
    market = bt.Market.sample(bars=BARS)
    plain = bt.run(market, policy, compile=False, **AT_BINANCE)
    compiled = bt.run(market, policy, compile="now", **AT_BINANCE)

    for name in ("target", "quantity"):
        assert plain.of_positions(name).tobytes() == compiled.of_positions(name).tobytes()

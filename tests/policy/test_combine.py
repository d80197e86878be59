"""Policies over policies: the algebra, bit for bit, and that they are ordinary policies."""

import math
import pickle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Choice, ParameterError, PolicyError
from backtest.experiments.policy_names import read_policy
from backtest.results import hash_source
from backtest.strategies import (
    Average,
    Capped,
    Constant,
    Cooldown,
    Cppi,
    Lowest,
    Scheduled,
    Smoothed,
    TrendVol,
    VolTarget,
)
from tests.kit import AT_BINANCE, check_refused, free_venue
from tests.scenes import market_of

INF = math.inf
MARKET = bt.Market.sample(bars=400)
ACCOUNT = bt.Account(max_leverage=10)
DEEP = Smoothed(Lowest(VolTarget(0.6), Cppi(5.0)), up=2.0)


def live(policy: bt.Policy, **terms: Any) -> bt.Result:
    terms = {**AT_BINANCE, "account": ACCOUNT, "compile": False, **terms}
    return bt.run(terms.pop("market", MARKET), policy, **terms)


def same(one: bt.Result, other: bt.Result) -> bool:
    """Tell whether two accounts lived the same, to the bit."""
    return np.array_equal(one.record.values, other.record.values, equal_nan=True)


class Asks(bt.Policy):
    column: Annotated[str, Choice("a", "b")] = "a"

    def observe(self, market: Any) -> Any:
        return {"asked": market.columns[self.column]}

    def leverage(self, bar: Any, account: Any) -> float:
        return bar.asked


def asked(policy: bt.Policy, a: list[float], b: list[float] | None = None) -> list[float]:
    """Return what a policy over :class:`Asks` decides, on a price that stands still."""
    columns = {"a": a, "b": a if b is None else b}
    frame = market_of(*[100.0] * len(a)).bars().assign(**columns)
    market = bt.Market.from_frames(frame)

    result = live(policy, market=market, venue=free_venue())
    return result.bars["target"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("inner", [VolTarget(target=0.9), Cppi(multiplier=5.0)], ids=repr)
def test_what_changes_nothing_is_the_policy_itself(inner: bt.Policy):
    alone = live(inner)
    for policy in (
        Lowest(inner),
        Average(inner),
        Average(inner, inner),
        Capped(inner, INF),
        Smoothed(inner, up=INF, down=INF),
        Cooldown(inner, bars=0),
        Scheduled(inner, Constant(), since=2100_01_01),
        Scheduled(Constant(), inner, since=2000_01_01),
        Capped(Smoothed(Lowest(inner), up=INF), cap=INF),
    ):
        assert same(live(policy), alone), policy


def test_the_cap_holds_also_where_the_position_is_left_alone():
    """At 3x a fall of 10 % makes 2.7 / 0.7 = 3.86x of it, which nobody asked for."""
    found = asked(Capped(Asks(), 2.0), [1.0, 2.5, math.nan, 0.0])
    np.testing.assert_array_equal(found, [1.0, 2.0, math.nan, 0.0])

    left_alone = [3.0, math.nan, math.nan, math.nan]
    bars = market_of(100.0, 100.0, 90.0, 90.0).bars().assign(a=left_alone)
    result = live(Capped(Asks(), 3.0), market=bt.Market.from_frames(bars), venue=free_venue())
    assert result.bars["leverage"].iloc[2] == pytest.approx(2.7 / 0.7)
    assert result.bars["target"].iloc[2] == 3.0


def test_the_lowest_and_the_mean_of_two():
    a = [1.0, 3.0, math.nan, math.nan, 2.0]
    b = [2.0, 1.0, 4.0, math.nan, 0.0]
    both = (Asks("a"), Asks("b"))

    lowest = asked(Lowest(*both), a, b)
    # in the third, what is held is less than 4x
    np.testing.assert_array_equal(lowest, [1.0, 1.0, math.nan, math.nan, 0.0])

    mean = asked(Average(*both), a, b)
    assert mean[:3] == [1.5, 2.0, 3.0]  # of 2x, where it stands, and 4x
    assert mean[4] == 1.0


def test_smoothed_moves_by_its_speed_limit():
    """Hourly bars, 24 turns a day up and 12 down: at most 1 up and 0.5 down at each close."""
    policy = Smoothed(Asks(), up=24.0, down=12.0)

    found = asked(policy, [3.0, 3.0, 3.0, 3.0, 0.0, 0.0, math.nan, 0.0])

    np.testing.assert_allclose(found, [1.0, 2.0, 3.0, 3.0, 2.5, 2.0, math.nan, 1.5], rtol=1e-9)


def test_smoothed_begins_anew_after_a_stop_and_while_the_signal_is_flat():
    """At 24 turns a day, 1 a bar: the stop in the fourth bar takes it back to 1x."""
    bars = [100.0, 100.0, 100.0, (100.0, 100.0, 90.0, 95.0), 95.0, 95.0]
    account = bt.Account(stop_loss=0.05)
    policy = Smoothed(Constant(3.0), up=24.0)
    market = market_of(*bars)

    result = live(policy, market=market, account=account, venue=free_venue())

    assert result.bars["target"].tolist() == pytest.approx([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])

    signal = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    market = market_of(*[100.0] * 6)
    flat = live(policy, market=market, signal=signal, venue=free_venue()).bars["target"]
    assert flat.tolist() == pytest.approx([1.0, 2.0, 1.0, 1.0, 2.0, 3.0])


def test_scheduled_changes_at_midnight():
    """Bars of an hour: the close of the 23:00 bar is the first at or after midnight."""
    policy = Scheduled(Constant(1.0), Constant(2.0), since=2024_01_02)
    market = market_of(*[100.0] * 30)

    target = live(policy, market=market, venue=free_venue()).bars["target"]

    first = target[target == 2.0].index[0]
    assert first == pd.Timestamp("2024-01-01 23:00", tz="UTC")


def test_cooldown_stays_out_after_a_stop_and_not_after_a_planned_exit():
    """3x stopped out by a fall of 10 % in the bar; three bars of pause; then in again."""
    market = market_of(*[100.0, 100.0, (100.0, 100.0, 90.0, 95.0), *[95.0] * 6])
    policy = Cooldown(Constant(3.0), bars=3)
    account = bt.Account(stop_loss=0.05)

    result = live(policy, market=market, account=account, venue=free_venue())

    assert result.events["kind"].tolist().count("stop") == 1
    assert result.bars["target"].tolist() == [3.0, 3.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0]

    out = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert asked(Cooldown(Asks(), bars=3), out) == out

    signal = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    closed = live(policy, market=market_of(*[100.0] * 9), signal=signal, venue=free_venue())
    assert (closed.bars["target"] == 3.0).all()


def test_parameters_of_the_policies_have_their_names_in_front():
    own = [f"lowest_vol_target_{name}" for name in VolTarget.parameters()]
    own += [f"lowest_cppi_{name}" for name in Cppi.parameters()]
    assert list(type(DEEP).parameters()) == ["up", "down", *own]

    twice = Lowest(VolTarget(0.3), VolTarget(0.5))
    assert twice.settings()["vol_target_2_target"] == 0.5
    assert twice.policies == (VolTarget(0.3), VolTarget(0.5))


def test_a_combination_is_its_text_and_survives_the_post():
    for policy in (DEEP, Capped(VolTarget(), INF), Lowest(VolTarget(0.3), VolTarget(0.5))):
        assert eval(repr(policy)) == policy
        assert pickle.loads(pickle.dumps(policy)) == policy
        assert type(policy).from_settings(policy.settings()) == policy

    assert Smoothed(Lowest(VolTarget(0.7), Cppi(5.0)), up=2.0) != DEEP
    assert type(Lowest(VolTarget(0.3))) is Lowest.over(VolTarget)


@pytest.mark.slow
def test_compiled_it_gives_the_bits_of_plain_python():
    result = live(DEEP, compile=True)

    assert result.manifest["compiled"] == "yes"
    assert same(result, live(DEEP))


@pytest.mark.slow
def test_a_sweep_over_parameters_of_the_policies_is_the_runs():
    values = {"lowest_vol_target_target": [0.3, 0.6], "lowest_cppi_multiplier": [2.0, 8.0]}
    test = bt.Backtest(MARKET, venue=AT_BINANCE["venue"], account=ACCOUNT)

    table = test.sweep(DEEP, values).table

    for row in table.itertuples():
        vol_target = VolTarget(row.lowest_vol_target_target)
        cppi = Cppi(row.lowest_cppi_multiplier)
        alone = live(Smoothed(Lowest(vol_target, cppi), up=2.0))
        assert row.final_equity == alone.metrics["final_equity"]


def test_the_code_of_the_policies_is_part_of_the_hash():
    assert hash_source(Lowest.over(VolTarget)) != hash_source(Lowest.over(Cppi))
    assert hash_source(Lowest.over(VolTarget)) == hash_source(type(Lowest(VolTarget(0.1))))


class Unhappy(bt.Policy):
    fails: Annotated[str, Choice("observe", "leverage")] = "observe"

    def observe(self, market: Any) -> Any:
        return {"x": market.close / (0 if self.fails == "leverage" else market.nothing)}

    def leverage(self, bar: Any, account: Any) -> float:
        return bar.nothing


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("fails", ["observe", "leverage"])
def test_what_a_policy_of_a_combinator_raises_is_named_by_its_own_line(fails):
    with pytest.raises(PolicyError, match="nothing") as caught:
        live(Lowest(Capped(Unhappy(fails)), Constant(1.0)), compile=False)

    line = getattr(Unhappy, fails).__code__.co_firstlineno + 1
    assert f"{Path(__file__).name}, line {line}" in str(caught.value)


class Trend(bt.Policy):
    def observe(self, market: Any) -> Any:
        return {"vol_sigma": np.full(market.n_bars, 9.0)}

    def leverage(self, bar: Any, account: Any) -> float:
        return bar.vol_sigma


def test_a_policy_sees_its_own_columns_and_no_others():
    """``trend`` with ``vol_sigma`` and ``trend_vol`` with ``sigma`` were one and the same."""
    inner = TrendVol(short=2, middle=3, long=4, half_life=10.0)

    both = live(Average(Trend(), inner)).bars["target"]
    alone = live(inner).bars["target"]

    np.testing.assert_allclose(both[20:], (9.0 + alone[20:]) / 2.0, rtol=1e-12)


class Shadowing(bt.Combinator):
    def observe(self, market: Any) -> Any:
        return {"vol_target__sigma": market.close}

    def combine(self, bar: Any, account: Any, asked: Any) -> float:
        return asked[0]


@pytest.mark.parametrize(("make", "text"), [
    (Capped, "must be given 1 policy, got 0"),
    (Lowest, "must be given at least 1 policy"),
    (lambda: Capped(VolTarget(), -1.0), "cap must be 0 to inf"),
    (lambda: Capped(VolTarget(), 1.0, cap=2.0), "cap was given twice"),
    (lambda: Capped.over(VolTarget).over(Cppi), "has its policies already"),
    (lambda: Capped(VolTarget), "must be instances and come before"),
    (lambda: Capped(1.0, VolTarget()), "must be instances and come before"),
    (lambda: Capped(VolTarget(), 1.0, 2.0), "needs policies, then cap; also got"),
    (lambda: live(Shadowing(VolTarget())), "two are called vol_target__sigma"),
])  # fmt: skip
def test_what_cannot_be_combined_is_refused(make: Any, text: str):
    with pytest.raises((ParameterError, PolicyError), match=text):
        make()


@pytest.mark.parametrize(("text", "policy"), [
    ("Capped(VolTarget(target=0.6), cap=3)", Capped(VolTarget(0.6), 3.0)),
    ("Capped(Cppi, inf)", Capped(Cppi(), INF)),
    (repr(Capped(DEEP, INF)), Capped(DEEP, INF)),
    (" Lowest( VolTarget(.5),Constant(2) ) ", Lowest(VolTarget(0.5), Constant(2.0))),
])  # fmt: skip
def test_a_combination_can_be_written_at_the_command_line(text: str, policy: bt.Policy):
    assert read_policy(text, {}) == policy


@pytest.mark.parametrize("text", [
    "Capped(VolTarget(), cap=__import__('os').getpid())",
    "Capped(**{})",
    "Capped(Constant.__class__, cap=2)",
    "(lambda: 1)()",
    "float('inf')",
    "VolTarget(target=0.5, target=0.6)",
])  # fmt: skip
def test_any_other_text_is_refused_and_never_run(text: str):
    check_refused(lambda: read_policy(text, {}), "a policy must be", ParameterError)

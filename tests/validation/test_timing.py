"""timing_test(): its shifts and p by hand, replays against runs, and its size and power."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.search import timing as t
from backtest.strategies import Constant, VolTarget
from benchmarks.skill import measure_share
from tests.kit import check_refused, free_venue, simulate_pair

HOURS = bt.Market.sample(bars=120)
TEST = bt.Backtest(HOURS, venue="binance-usdm:BTCUSDT", account=bt.Account())


def decide(target: np.ndarray, unit: int = 1, day: float = 1.0) -> t.Decided:
    closes = (np.arange(len(target)) * day * t.DAY).astype(np.int64)
    return t.Decided(closes, target[:, None], np.ones((len(target), 1)), unit, ("",))


def test_p_counts_what_reaches_the_unshifted_one():
    assert t.find_p(np.array([2.0, 1.0, 2.0, 3.0, -np.inf])) == 3 / 5
    assert t.find_p(np.array([1.0, 0.0, 0.5])) == 1 / 3
    assert t.find_p(np.array([-np.inf, 0.0, -np.inf])) == 1.0


def test_shifts_are_whole_days_far_from_both_ends():
    rng = np.random.default_rng(0)
    noise = decide(rng.standard_normal(400))
    assert t.find_memory(noise.target) < 30
    assert t.find_shifts(noise, 999).tolist() == list(range(30, 371))
    few = t.find_shifts(noise, 99)
    assert (len(few), few[0], few[-1]) == (99, 30, 370)
    assert set(np.diff(few)) == {3, 4}
    assert t.find_shifts(decide(rng.standard_normal(24 * 100), 24, 1 / 24), 999).tolist() == [
        24 * k for k in range(30, 71)
    ]


def test_the_memory_of_targets_sets_the_least_shift():
    """A wave of 240 days has an autocorrelation near cos(2 pi k / 240), 0 at 60, less its end."""
    wave = decide(2.0 + np.sin(2.0 * np.pi * np.arange(2_400) / 240.0))
    assert t.find_memory(wave.target) == pytest.approx(59, abs=3)
    assert t.find_shifts(wave, 999)[0] == t.find_memory(wave.target)
    kept = wave.target.copy()
    kept[::2] = np.nan
    assert t.find_memory(kept) == pytest.approx(59, abs=3)
    assert t.find_memory(np.full((50, 1), 2.0)) == 0


@pytest.mark.parametrize("test", [
    TEST, TEST.replace(signal="ma-cross:3:9"), TEST.replace(overlay=Constant(leverage=0.5)),
    TEST.replace(decision_interval="4h"),
    TEST.replace(overlay=Constant(leverage=1.5), account=bt.Account(max_leverage=0.5)),
], ids=["plain", "signal", "overlay", "longer bars", "overlay over a limit"])  # fmt: skip
def test_what_is_not_shifted_earns_what_the_run_did(test):
    """VolTarget reads nothing of its account, so that its open-loop replay is its run."""
    result = test.run(VolTarget(half_life=12.0))
    cut = t.cut_test(result)
    decided = t.read_decided(result, cut.market)
    table = t.replay_shifts(cut, decided, np.array([0]))
    assert table["log_growth"].iloc[0] == pytest.approx(np.log1p(result.metrics["total_return"]))
    assert table["sharpe"].iloc[0] == pytest.approx(result.metrics["sharpe"])


def test_a_shifted_replay_is_the_run_of_the_shifted_targets():
    result = TEST.replace(start=HOURS.times[20]).run(VolTarget(half_life=12.0))
    cut = t.cut_test(result)
    decided = t.read_decided(result, cut.market)
    assert len(decided.closes) == 100
    found = t.replay_shifts(cut, decided, np.array([24]))["log_growth"].iloc[0]
    policy, _ = t.make_replayed(decided._replace(leverage=np.roll(decided.leverage, 24, axis=0)))
    again = cut.run(policy())
    assert found == pytest.approx(np.log1p(again.metrics["total_return"]), rel=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_several_instruments_shift_together():
    pair = simulate_pair(80)
    test = bt.Backtest(pair, venue=free_venue(), account=bt.Account(), signal="ma-cross:3:9")
    result = test.run(VolTarget(half_life=12.0))
    cut = t.cut_test(result)
    decided = t.read_decided(result, cut.market)
    table = t.replay_shifts(cut, decided, np.array([0, 24]))
    assert table["log_growth"].iloc[0] == pytest.approx(np.log1p(result.metrics["total_return"]))
    assert table["log_growth"].iloc[1] != table["log_growth"].iloc[0]


def test_what_has_no_timing_or_too_few_days_says_so():
    held = TEST.timing_test(Constant(leverage=2.0))
    assert held.verdict == "The leverage is constant: it has no timing."
    short = TEST.timing_test(VolTarget(half_life=12.0))
    assert short.verdict.startswith("Not computed: 5 days allow 0 shifts")
    assert np.isnan(short.p_growth)
    check_refused(lambda: TEST.timing_test(Constant(), shifts=98), "at least 99")
    run = TEST.run(Constant(leverage=2.0))
    assert TEST.timing_test(run).verdict == held.verdict
    other = TEST.replace(account=bt.Account(capital=5e3))
    check_refused(lambda: other.timing_test(run), "bt.timing_test(result) accepts any")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_study_is_tested_on_its_holdout():
    how = {"space": {"leverage": (0.5, 2.0)}, "trials": 4, "robust": False, "sampler": "sobol"}
    test = TEST.replace(sampling="1h")
    study = test.tune(Constant, **how)
    held = study.replay_holdout()
    assert (held.time[0], len(held.time)) == (HOURS.time[90], 30)
    assert bt.timing_test(study).settings["run"] == held.manifest["id"]
    whole = test.tune(Constant, **how, holdout=None)
    check_refused(lambda: bt.timing_test(whole), "needs one account and a holdout")


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_size_and_power_on_seeded_draws():
    """Of 2,000 draws, docs/found.md: 5 % without skill; here 30 of each."""
    assert measure_share(30, 300, 0.0) <= 0.1
    assert measure_share(30, 300, 0.3) >= 0.5


def test_weeks_are_shifted_in_a_market_with_sessions():
    days = pd.bdate_range("2020-01-01", periods=300, tz="UTC")
    close = pd.Series(100.0 * 1.001 ** np.arange(300), index=days)
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close))
    market = bt.Market.from_frames(bars, sessions=True)
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account(), calendar="252")
    decided = t.read_decided(test.run(Constant()), market)
    assert decided.unit == 5

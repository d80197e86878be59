"""timing_test(): its shifts and p by hand, replays against runs, and its size and power."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.search import shifts as s
from backtest.search import timing as t
from backtest.strategies import Constant, VolTarget
from tests.kit import check_refused, free_venue, simulate_pair

HOURS = bt.Market.sample(bars=120)
TEST = bt.Backtest(HOURS, venue="binance-usdm:BTCUSDT", account=bt.Account())


DAY = 86_400_000_000_000


def decide(target: np.ndarray, per_day: int = 1, *, is_session: bool = False) -> t.Decided:
    interval = DAY // per_day
    closes = (np.arange(len(target)) + 1) * interval
    circle = s.find_circle(closes, interval, first=0, is_session=is_session)
    return t.Decided(closes, target[:, None], np.ones((len(target), 1)), circle, ("",))


def test_p_is_the_share_that_reaches_the_unshifted_one_with_itself():
    assert s.find_p(np.array([2.0, 1.0, 2.0, 3.0, -np.inf])) == 3 / 5
    assert s.find_p(np.array([1.0, 0.0, 0.5])) == 1 / 3
    assert s.find_p(np.array([-np.inf, 0.0, -np.inf])) == 1.0


def test_shifts_are_all_whole_days_of_a_circle():
    """Of 2.5 days of 4 decisions, 2 days are whole; the rows of the last half day stay."""
    circle = decide(np.arange(10.0), per_day=4).circle
    assert circle.n_days == 2
    assert circle.begins.tolist() == [0, 4, 8]
    assert circle.shift(0).tolist() == list(range(10))
    assert circle.shift(1).tolist() == [4, 5, 6, 7, 0, 1, 2, 3, 8, 9]
    assert circle.shift(2).tolist() == circle.shift(0).tolist()

    days = decide(np.arange(5.0)).circle
    assert days.shift(1).tolist() == [4, 0, 1, 2, 3]


def test_days_begin_with_the_first_decision():
    """Three days of 4 decisions; the first decision is the third one, so that two days are left."""
    closes = (np.arange(12) + 1) * DAY // 4
    circle = s.find_circle(closes, DAY // 4, first=2, is_session=False)

    assert circle.begins.tolist() == [2, 6, 10]
    assert circle.shift(1).tolist() == [0, 1, 6, 7, 8, 9, 2, 3, 4, 5, 10, 11]


def test_sessions_shift_as_a_whole_and_a_longer_one_repeats_its_last_decision():
    """Sessions of 3, 2 and 3 decisions: the second is a half day."""
    closes = np.array([1, 2, 3, 25, 26, 49, 50, 51]) * (DAY // 24)
    circle = s.find_circle(closes, DAY // 24, first=0, is_session=True)

    assert circle.begins.tolist() == [0, 3, 5, 8]
    assert circle.shift(1).tolist() == [5, 6, 7, 0, 1, 3, 4, 4]


def test_over_twenty_seconds_expected_every_kth_shift_is_taken():
    """1,000 accounts of 10,000 bars in plain Python, 2.05 s each, are 2,050 s: one in 103."""
    seconds = s.expect_seconds(10_000, 1, is_compiled=False, in_lanes=False, has_own_signal=False)
    assert seconds == pytest.approx(2.05)

    assert s.choose_every(1_000, seconds) == 103
    assert s.choose_every(9, seconds) == 1

    compiled = s.expect_seconds(8_760, 1, is_compiled=True, in_lanes=True, has_own_signal=False)
    assert s.choose_every(365, compiled) == 1


def test_the_memory_of_targets_is_the_first_lag_without_correlation():
    """A wave of 240 days has an autocorrelation near cos(2 pi k / 240), 0 at 60, less its end."""
    wave = decide(2.0 + np.sin(2.0 * np.pi * np.arange(2_400) / 240.0))
    assert s.find_memory(wave.target) == pytest.approx(59, abs=3)

    kept = wave.target.copy()
    kept[::2] = np.nan
    assert s.find_memory(kept) == pytest.approx(59, abs=3)

    assert s.find_memory(np.full((50, 1), 2.0)) == 0


@pytest.mark.parametrize("test", [
    TEST, TEST.replace(signal="ma-cross:3:9"), TEST.replace(signal="ma-cross:3:9:long"),
    TEST.replace(overlay=Constant(leverage=0.5)),
    TEST.replace(decision_interval="4h"),
    TEST.replace(overlay=Constant(leverage=1.5), account=bt.Account(max_leverage=0.5)),
    TEST.replace(signal="ma-cross:3:9:short", account=bt.Account(min_leverage=0.2)),
], ids=["plain", "signal", "long signal", "overlay", "longer bars", "overlay over a limit",
        "limit from below"])  # fmt: skip
def test_what_is_not_shifted_earns_what_the_run_did(test):
    """VolTarget reads nothing of its account, so that its open-loop replay is its run."""
    result = test.run(VolTarget(half_life=12.0))
    cut = t.cut_test(result)
    decided = t.fold_signal(t.read_decided(result, cut.market), cut.account)
    table = t.replay_shifts(cut, decided, np.array([0]))

    assert table["log_growth"].iloc[0] == pytest.approx(np.log1p(result.metrics["total_return"]))


def test_a_shifted_replay_is_the_run_of_the_shifted_targets():
    """From bar 20 and after 12 more for the estimator, 88 bars: 3 whole days of 24, and 16."""
    result = TEST.replace(start=HOURS.times[20]).run(VolTarget(half_life=12.0))
    cut = t.cut_test(result)
    decided = t.read_decided(result, cut.market)
    first = int(np.argmax(~np.isnan(decided.leverage[:, 0])))
    assert len(decided.closes) == 100
    days = [first + 24 * k for k in range(5)]
    assert decided.circle.begins.tolist() == [begin for begin in days if begin <= 100]

    found = t.replay_shifts(cut, decided, np.array([1]))["log_growth"].iloc[0]

    whole = slice(decided.circle.begins[0], decided.circle.begins[-1])
    rolled = decided.leverage.copy()
    rolled[whole] = np.roll(rolled[whole], 24, axis=0)
    policy, _ = t.make_replayed(decided._replace(leverage=rolled))

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
    table = t.replay_shifts(cut, decided, np.array([0, 1]))

    assert table["log_growth"].iloc[0] == pytest.approx(np.log1p(result.metrics["total_return"]))
    assert table["log_growth"].iloc[1] != table["log_growth"].iloc[0]


def test_what_has_no_timing_too_few_days_or_fills_is_not_tested():
    held = bt.timing_test(TEST.run(Constant(leverage=2.0)))
    assert held.verdict == "The leverage is constant: it has no timing."

    short = bt.timing_test(TEST.run(VolTarget(half_life=12.0)))
    assert short.verdict.startswith("Not tested: 4 whole days give 4 shifts, and p cannot be .05")
    assert np.isnan(short.p_growth)
    assert len(short.table) == 0

    wide = TEST.replace(account=bt.Account(band=0.8)).run(VolTarget(half_life=12.0))
    assert wide.metrics["fills"] == 1.0
    once = bt.timing_test(wide)
    assert once.verdict == "Not tested: 1 fill, under 10 are too few."
    assert np.isnan(once.p_growth)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_study_is_tested_on_its_holdout():
    how = {"space": {"leverage": (0.5, 2.0)}, "trials": 4, "robust": False, "sampler": "sobol"}
    test = TEST.replace(sampling="1h")
    study = test.tune(Constant, **how)

    held = study.replay_holdout()
    assert held.time[0] == HOURS.time[90]
    assert len(held.time) == 30
    assert bt.timing_test(study).settings["run"] == held.manifest["id"]

    whole = test.tune(Constant, **how, holdout=None)
    check_refused(lambda: bt.timing_test(whole), "needs one account and a holdout")


def test_of_all_shifts_each_account_has_one_rank():
    """Shifts of a shifted account are the same circle: the p values are 1/n to n/n, each once."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal(40)
    found = [s.find_p(np.roll(values, -k)) for k in range(40)]
    assert sorted(found) == pytest.approx(np.arange(1, 41) / 40)


def test_sessions_are_shifted_in_a_market_with_sessions():
    days = pd.bdate_range("2020-01-01", periods=300, tz="UTC")
    close = pd.Series(100.0 * 1.001 ** np.arange(300), index=days)
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close))
    market = bt.Market.from_frames(bars, sessions=True)
    test = bt.Backtest(market, venue=free_venue(), account=bt.Account(), calendar="252")

    decided = t.read_decided(test.run(Constant()), market)
    assert decided.circle.n_days == 300

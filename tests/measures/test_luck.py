"""Luck among trials and differences of pairs: published figures, hand-computed cases, and noise.

The published figures are those of ``stats.*`` in the project's collection of vectors, each with its
source.
"""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from backtest import ParameterError
from backtest.results import differences, luck, overfitting, trial_luck
from tests.kit import check_refused

OF_THE_PAPER = {"periods": 250, "n": 1250, "sharpe": 2.5, "skew": -3.0, "kurtosis": 10.0}
"""Bailey and Lopez de Prado (2014), the numerical example: five years of 250 days."""
OF_JESSE = {"periods": 365, "n": 365, "sharpe": 2.0}
"""jesse-ai/jesse, tests/test_deflated_sharpe.py at 09e2785: a year of days."""
OF_AIFINHUB = {"periods": 252, "n": 504, "sharpe": 1.8, "skew": -0.6, "kurtosis": 4.5}
"""https://aifinhub.io/articles/deflated-sharpe-low-trial-regimes/: two years of 252 days."""
ONE = np.array([[0, 1]])


def noise_of(seed: int, samples: int = 1000, trials: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, (samples, trials))


def test_psr_of_a_hedge_fund():
    """Bailey and Lopez de Prado (2012): 24 months of mean 3.6 %, deviation 7.9 %."""
    found = luck.probabilistic_sharpe(0.036 / 0.079, 24, skew=-2.448, kurtosis=10.164)
    assert found == pytest.approx(0.913, abs=6e-4)


@pytest.mark.parametrize(("case", "n_trials", "std", "expected", "error"), [
    (OF_THE_PAPER, 100, math.sqrt(0.5 / 250), 0.9004, 6e-5),
    (OF_THE_PAPER, 46, math.sqrt(0.5 / 250), 0.9505, 6e-5),
    (OF_JESSE, 200, 1.0 / math.sqrt(364), 0.221787790810632, 1e-7),
    (OF_JESSE, 1, 1.0 / math.sqrt(364), 0.9768039819822307, 1e-7),
    (OF_AIFINHUB, 1, 1.0 / math.sqrt(252), 0.993, 1.5e-3),
    (OF_AIFINHUB, 100, 1.0 / math.sqrt(252), 0.16, 1.5e-3),
])  # fmt: skip
def test_published_deflated_sharpe_ratios(case, n_trials, std, expected, error):
    moments = {name: case[name] for name in case if name not in ("sharpe", "periods")}
    sharpe = case["sharpe"] / math.sqrt(case["periods"])

    found = luck.deflated_sharpe(sharpe, **moments, n_trials=n_trials, std=std)

    assert found == pytest.approx(expected, abs=error)


@pytest.mark.parametrize(("n_trials", "std", "expected", "error"), [
    (100, math.sqrt(0.5 / 250), 0.1132, 6e-5),  # of the paper
    (1, 1.0, 0.0, 1e-4),  # of aifinhub, as is the next
    (100, 1.0, 2.531, 1.5e-3),
])  # fmt: skip
def test_published_benchmarks(n_trials, std, expected, error):
    assert luck.expected_max_sharpe(n_trials, std) == pytest.approx(expected, abs=error)


def test_moments_by_hand():
    """Returns 1, 1, 4: mean 2, squares 1 + 1 + 4, cubes -1 - 1 + 8, fourth powers 1 + 1 + 16."""
    found = luck.estimate_moments(np.array([1.0, 1.0, 4.0]))

    assert found.n == 3
    assert found.sharpe == pytest.approx(2.0 / math.sqrt(3.0), rel=1e-12)
    assert found.skew == pytest.approx((6 / 3) / 2.0**1.5, rel=1e-12)
    assert found.kurtosis == pytest.approx((18 / 3) / 2.0**2, rel=1e-12)


def test_psr_by_hand():
    """S = 0.5, n = 10, normal: 0.5 * 3 / sqrt(1 + 0.5 * 0.25) = sqrt 2."""
    expected = NormalDist().cdf(math.sqrt(2.0))
    assert luck.probabilistic_sharpe(0.5, 10) == pytest.approx(expected, rel=1e-14)
    assert luck.probabilistic_sharpe(0.5, 10, benchmark=0.5) == 0.5


def test_far_in_the_tail_a_probability_is_still_exact():
    """Phi(-10) = 7.62e-24, where 1 - Phi(10) would be 0."""
    benchmark = 10.0 / math.sqrt(100.0)

    found = luck.probabilistic_sharpe(0.0, 101, benchmark=benchmark)

    assert found == pytest.approx(7.619853024160526e-24, rel=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.1, -0.3, 1e6])
def test_returns_that_stand_still_tell_nothing(level: float):
    returns = np.full(50, level)

    assert luck.estimate_moments(returns) == (0.0, 50, 0.0, 3.0)
    assert luck.deflated_sharpe_of_returns(returns, n_trials=1, std=0.1) == 0.5
    assert luck.deflated_sharpe_of_returns(returns, n_trials=9, std=0.1) < 0.5


def plain_cscv(returns: np.ndarray, splits: int, metric: str) -> list[float]:
    """Return the logits by the paper's steps, one after another."""

    def judge(rows: np.ndarray) -> list[float]:
        if metric == "mean":
            return [float(np.mean(column)) for column in rows.T]
        ratios = []
        for column in rows.T:
            is_still = np.ptp(column) == 0.0
            ratios.append(0.0 if is_still else float(np.mean(column) / np.std(column, ddof=1)))
        return ratios

    blocks = np.array_split(returns, splits)
    logits = []
    for chosen in itertools.combinations(range(splits), splits // 2):
        others = [i for i in range(splits) if i not in chosen]
        inside = judge(np.concatenate([blocks[i] for i in chosen]))
        outside = judge(np.concatenate([blocks[i] for i in others]))

        winner = outside[inside.index(max(inside))]
        equal = sum(value == winner for value in outside)
        rank = sum(value < winner for value in outside) + (equal + 1) / 2
        share = rank / (len(outside) + 1)
        logits.append(math.log(share / (1 - share)))
    return logits


@pytest.mark.parametrize("metric", ["sharpe", "mean"])
@pytest.mark.parametrize(("samples", "splits"), [(60, 6), (61, 6), (65, 8), (4, 2), (6, 6)])
def test_cscv_is_the_plain_one(metric: str, samples: int, splits: int):
    returns = noise_of(samples, samples, 7) + 0.001
    returns[:, 5] = 0.0  # never traded
    returns[samples // 2 :, 6] = 0.0  # ruined

    logits = plain_cscv(returns, splits, metric)
    found = overfitting.probability_of_backtest_overfitting(returns, n_splits=splits, metric=metric)

    np.testing.assert_allclose(np.sort(found.logits), np.sort(logits), rtol=1e-12)
    assert found.pbo == np.mean(np.array(logits) <= 0.0)


def test_the_best_everywhere_is_not_overfit():
    """The published case of four trials in a constant order: no half prefers another."""
    trials = [
        # by quarter
        [0.3, 0.32, 0.31, 0.33],
        [0.1, 0.09, 0.11, 0.08],
        [0.05, 0.06, 0.04, 0.07],
        [0.01, 0.02, 0.0, 0.03],
    ]

    found = overfitting.probability_of_backtest_overfitting(
        np.transpose(trials), n_splits=4, metric="mean"
    )

    assert found.pbo == 0.0
    np.testing.assert_allclose(found.logits, [math.log(4.0)] * 6)


def test_trials_that_are_all_alike_share_the_median():
    """Nothing is gained by choosing: logit 0, which counts as overfit."""
    same = np.repeat(noise_of(0, 100, 1), 9, axis=1)
    for returns in (same, np.zeros((100, 9)), np.full((100, 9), 0.1)):
        found = overfitting.probability_of_backtest_overfitting(returns, n_splits=10)
        assert (found.logits == 0.0).all()
        assert found.pbo == 1.0


def test_copies_of_a_trial_are_one_trial():
    one = noise_of(0, trials=1)
    for returns in (one, np.repeat(one, 30, axis=1), np.zeros((9, 4)), np.full((9, 4), 0.1)):
        assert trial_luck.effective_trials(returns) == pytest.approx(1.0, rel=1e-9)

    scaled = one * np.array([1.0, 2.0, 5.0])
    assert trial_luck.effective_trials(scaled) == pytest.approx(1.0, rel=1e-9)

    nearly = one * np.linspace(0.2, 1.5, 12) + 0.02 * noise_of(1, trials=12)
    assert trial_luck.effective_trials(nearly) < 1.2  # 12 of 12 were said


def luck_of(returns, **given):
    """Return the expected highest ratio of trials without skill, in standard errors of one."""
    found = trial_luck.simulate_luck(returns, **given)
    return luck.expected_max_sharpe(found.n, found.deviation)


def test_copies_add_no_luck_and_new_trials_add_theirs():
    """Ten trials have an expected maximum of 1.539, 128 of 2.59 and 2,000 of 3.44 (exact)."""
    ten = np.repeat(noise_of(3, 500, 10), 12, axis=1)
    assert luck_of(ten, n_trials=2_000) == pytest.approx(1.539, rel=0.02)

    many = noise_of(4, 1_000, 128)
    assert luck_of(many) == pytest.approx(2.59, rel=0.03)
    assert luck_of(many, n_trials=2_000) == pytest.approx(3.44, rel=0.03)


def test_trials_with_a_common_part_expect_the_best_that_is_seen():
    """The luck that all share does not choose: with correlation 0.8, sqrt(0.2) of 2.75 is left."""
    rng = np.random.default_rng(4)
    common = rng.standard_normal((2_000, 1))
    own = rng.standard_normal((2_000, 200))
    returns = math.sqrt(0.8) * common + math.sqrt(0.2) * own

    assert luck_of(returns) == pytest.approx(math.sqrt(0.2) * 2.746, rel=0.03)
    assert trial_luck.effective_trials(returns) == pytest.approx(5.6, rel=0.03)  # 200 were said


FAILED = np.where(np.arange(400).reshape(50, 8) == 59, math.nan, noise_of(0, 50, 8))


@pytest.mark.parametrize(("call", "match"), [
    (lambda: luck.probabilistic_sharpe(math.nan, 10), "sharpe"),
    (lambda: luck.probabilistic_sharpe(0.1, 1), "n must be"),
    (lambda: luck.probabilistic_sharpe(0.1, 10, kurtosis=0.0), "kurtosis must be at least"),
    (lambda: luck.expected_max_sharpe(0, 1.0), "n_trials"),
    (lambda: luck.estimate_moments(np.array([0.1, math.nan])), "finite"),
    (lambda: overfitting.probability_of_backtest_overfitting(noise_of(0), n_splits=5), "even"),
    (
        lambda: overfitting.probability_of_backtest_overfitting(noise_of(0, 9), n_splits=10),
        "10 samples",
    ),
    (lambda: overfitting.probability_of_backtest_overfitting(noise_of(0)[:, 0]), "shape"),
    (lambda: overfitting.probability_of_backtest_overfitting(FAILED, n_splits=4),
        "not in 1 of 8 trials, first in column 3"),
])  # fmt: skip
def test_bad_input_is_refused(call, match: str):
    check_refused(call, match, ParameterError)


def sample(returns, free=0.0):
    """Return accounts of a market that never closes, sampled by day."""
    n = returns.shape[1]
    return differences.Sampled(returns, np.full(n, free), per_year=365.0, periods=365.0)


def compute_intervals(returns, measure="log_growth", pairs=ONE, seed=0, **settings):
    settings = {"confidence": 0.95, "draws": 199, **settings}
    rng = np.random.default_rng(seed)
    return differences.compare_pairs(sample(returns), pairs, measure, rng=rng, **settings)


def noise(k, n, seed, *, persistence=0.0, common=0.0):
    """Return standard normal series of shape (k, n), with an AR(1) and a common part."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(n + 100)
    own = rng.standard_normal((k, n + 100))
    steps = math.sqrt(common) * shared + math.sqrt(1.0 - common) * own

    series = np.empty_like(steps)
    series[:, 0] = steps[:, 0]
    for t in range(1, n + 100):
        series[:, t] = persistence * series[:, t - 1] + steps[:, t]
    return series[:, 100:] * math.sqrt(1.0 - persistence**2)


def ladder(k):
    """Return the pairs (0, 1), (2, 3), ..."""
    return np.arange(k).reshape(-1, 2)


def test_estimates_are_those_of_numpy():
    x = 0.01 * noise(3, 200, seed=1) + 0.001

    found = {name: its.estimate(x)[0] for name, its in differences.STATISTICS.items()}

    deviation = np.std(x, axis=1, ddof=1)
    np.testing.assert_allclose(found["log_growth"], np.mean(x, axis=1))
    np.testing.assert_allclose(found["sharpe"], np.mean(x, axis=1) / deviation)


@pytest.mark.parametrize("measure", ["log_growth", "sharpe"])
def test_an_influence_is_what_a_little_more_weight_on_a_return_does(measure):
    """Weight is added by repeating all returns 400 times, and one of them once more."""
    x = 0.01 * noise(1, 60, seed=2) + 0.002
    estimate = differences.STATISTICS[measure].estimate
    base = np.repeat(x, 400, axis=1)
    values, _ = estimate(base)
    _, influences = estimate(x)
    influence = influences[0]
    assert abs(influence.mean()) < 1e-12

    for t in range(0, 60, 7):
        more, _ = estimate(np.append(base, x[:, t : t + 1], axis=1))
        change = (more[0] - values[0]) * (base.shape[1] + 1)
        assert change == pytest.approx(influence[t], abs=2e-3 * np.abs(influence).max())


@pytest.mark.slow
@pytest.mark.parametrize(("n", "block"), [(365, 11), (37, 5), (50, 1)])
def test_resampled_histories_are_those_of_arch(n, block):
    arch = pytest.importorskip("arch.bootstrap")
    drawn = [*differences.draw_histories(n, block, 20, np.random.default_rng(5))]
    reference = arch.StationaryBootstrap(block, np.arange(n), seed=np.random.default_rng(5))

    for history, (rows, _) in zip(drawn, reference.bootstrap(20), strict=True):
        assert history.periods.tolist() == rows[0].tolist()
        assert np.diff(history.periods)[history.starts[1:] - 1].tolist().count(1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "persistence", "block"),
    [("log_growth", 0.0, 5), ("sharpe", 0.0, 5), ("log_growth", 0.4, 10)],
)
def test_an_interval_of_95_percent_holds_the_true_difference_that_often(
    measure, persistence, block
):
    """200 pairs of 250 returns correlated by a half; the first of each earns and moves more. 3
    standard errors: of 200 replications sqrt(0.05 x 0.95 / 200) = 0.0154, and of a quantile of 499
    draws that all share 0.0098, together 0.018."""
    z = noise(400, 250, seed=3, persistence=persistence, common=0.5)
    mean = np.array([[0.002], [0.0]])
    deviation = np.array([[0.02], [0.015]])
    returns = mean + deviation * z.reshape(200, 2, 250)
    if measure == "log_growth":
        returns = np.expm1(returns)  # so that its mean is known
        true = 0.002 * 365.0
    else:
        true = 0.1 * math.sqrt(365.0)

    rows = returns.reshape(400, 250)
    found = compute_intervals(rows, measure, pairs=ladder(400), draws=499, block=block)

    is_inside = (found.low <= true) & (true <= found.high)
    assert abs(np.mean(is_inside) - 0.95) <= 3 * 0.018


@pytest.mark.parametrize("measure", ["log_growth", "sharpe"])
def test_the_interval_leaves_out_no_difference_exactly_where_p_is_small(measure):
    rows = 0.01 * noise(120, 80, seed=5)
    rows[::2] += 0.002 * np.linspace(0.0, 2.0, 60)[:, None]
    rows[::2] *= np.linspace(1.0, 3.0, 60)[:, None]

    found = compute_intervals(rows, measure, pairs=ladder(120), confidence=0.9, draws=99)

    outside = (found.low > 0.0) | (found.high < 0.0)
    assert 0 < outside.sum() < 60
    np.testing.assert_array_equal(outside, found.p_value <= 0.1 + 1e-12)


@pytest.mark.parametrize("measure", ["log_growth", "sharpe"])
def test_an_account_does_not_differ_from_itself(measure):
    one = 0.01 * noise(1, 100, seed=7)

    found = compute_intervals(np.tile(one, (2, 1)), measure)

    assert found.difference[0] == 0.0
    assert found.low[0] == 0.0
    assert found.high[0] == 0.0
    assert found.p_value[0] == 1.0


def test_what_was_planted_is_found_though_each_account_alone_is_uncertain():
    """Both earn 0 ± 2 % a day; the second pays 0.05 % more, known to ± 0.02 %."""
    first = 0.02 * noise(1, 400, seed=8)[0]
    second = first - 5e-4 + 2e-4 * noise(1, 400, seed=9)[0]

    found = compute_intervals(np.array([first, second]))

    assert found.low[0] > 0.0

    assert found.p_value[0] == pytest.approx(1 / 200)
    error = 2e-4 * math.sqrt(1 / 400) * 365
    assert found.difference[0] == pytest.approx(5e-4 * 365, abs=5 * error)


def test_a_difference_that_lies_in_one_day_cannot_be_told():
    """A third of all histories lack that day: no bound can be given with 95 %."""
    first = 0.01 * noise(1, 100, seed=10)[0]
    second = first.copy()
    second[50] -= 0.3

    found = compute_intervals(np.array([first, second]))

    assert math.isinf(found.high[0])
    assert found.p_value[0] > 0.2


def test_the_error_is_the_spread_of_means_over_histories():
    """The standard error of a deviation of 2,000 draws is 1 / sqrt(4,000) = 1.6 % of it."""
    series = noise(1, 150, seed=14, persistence=0.5)
    histories = differences.draw_histories(150, 8, 2_000, np.random.default_rng(0))
    means = [series[0, chosen].mean() for chosen, _ in histories]
    error = differences.resampling_error(series, 8)[0]
    assert error == pytest.approx(np.std(means), rel=3 * 0.016)


def test_blocks_are_long_where_returns_follow_each_other():
    calm = noise(1, 500, seed=15)
    persistent = noise(1, 500, seed=15, persistence=0.8)
    least = math.ceil(500 ** (1 / 3))
    longer = differences.choose_block(persistent)

    assert differences.choose_block(calm) == least
    assert longer > 2 * least
    assert differences.choose_block(np.vstack([calm, persistent, persistent])) == longer
    assert differences.choose_block(np.zeros((1, 500))) == least


def test_holm_multiplies_by_what_is_left():
    p_values = np.array([0.04, 0.01, math.nan, 0.02, 0.5])
    np.testing.assert_allclose(differences.holm(p_values), [0.08, 0.04, math.nan, 0.06, 0.5])
    assert differences.holm(np.array([math.nan])).tolist() == pytest.approx([math.nan], nan_ok=True)

"""Sets that no other beats in every objective, standard errors, and patience."""

import math
import sys
from typing import Annotated

import numpy as np
import pytest

import backtest as bt
from backtest.core.errors import ParameterError
from backtest.report.write import draw_chart
from backtest.results import read_objective, sharpe_error
from backtest.results.ranking import find_knee, is_dominated
from backtest.search import trials, winner
from backtest.search.evolution import Chebyshev
from backtest.search.importance import measure_importance
from backtest.search.patience import Patience, Span, measure_returns, resample_scores
from tests.kit import check_refused
from tests.tuning import Columns, seek, space_of

pytestmark = pytest.mark.usefixtures("made_up")


def test_measures_of_returns_by_hand():
    """Returns 10 %, -20 %, 25 %: the account is 1.1, .88, 1.1 in a quarter, 12 samples a year."""
    found = measure_returns(np.array([[0.1, -0.2, 0.25]]), Span(0.25, 12.0))

    # The mean is 5 %: they are 5, -25 and 20 % from it.
    deviation = math.sqrt((0.05**2 + 0.25**2 + 0.2**2) / 2)

    assert found["total_return"][0] == pytest.approx(0.1)
    assert found["cagr"][0] == pytest.approx(1.1**4 - 1)
    assert found["volatility"][0] == pytest.approx(deviation * math.sqrt(12))
    assert found["sharpe"][0] == pytest.approx(0.05 / deviation * math.sqrt(12))
    assert found["sortino"][0] == pytest.approx(0.05 / math.sqrt(0.04 / 3) * math.sqrt(12))
    assert found["max_drawdown"][0] == pytest.approx(0.2)
    assert found["calmar"][0] == pytest.approx((1.1**4 - 1) / 0.2)

    worth = (1.1**-2 + 0.8**-2 + 1.25**-2) / 3
    assert found["certainty_equivalent"][0] == pytest.approx(worth**-6 - 1)


def test_standard_errors_are_those_of_closed_forms():
    """Of independent returns: Mertens for Sharpe, and sd(log returns) / sqrt(n) for growth."""
    returns = np.random.default_rng(3).normal(0.001, 0.01, (800, 2))
    span = Span(800 / 365, 365.0)
    own = measure_returns(returns.T, span)

    goal = trials.Goal(read_objective("sharpe"), (), (read_objective("cagr"),))
    errors = np.std([*resample_scores(goal, own, returns, span, 400, 0)], axis=0)
    growth = np.std(np.log1p(returns), axis=0) / math.sqrt(800) * 365 * (1 + own["cagr"])

    for k in (0, 1):
        assert errors[k, 0] == pytest.approx(sharpe_error(returns[:, k], 365.0), rel=0.12)
        assert errors[k, 1] == pytest.approx(growth[k], rel=0.12)


def test_sets_that_none_beats_are_those_of_brute_force():
    rng = np.random.default_rng(0)

    for m in (1, 2, 3):
        scores = rng.integers(0, 6, (60, m)).astype(float)
        scores[::7, 0] = np.nan

        beats = (scores[:, None] >= scores).all(2) & (scores[:, None] > scores).any(2)
        expected = beats.any(axis=0) | np.isnan(scores).any(axis=1)
        np.testing.assert_array_equal(is_dominated(scores), expected)


def test_a_search_without_gains_ends_after_as_many_evaluations_as_its_patience(on):
    """The first set is the only gain: on a plain every other one is as good."""
    on(lambda sets: {"sharpe": np.ones(len(sets["x"]))})
    study = seek(patience=50, robust=False)

    assert sum(batch.stage == "search" for batch in study.batches) > 1
    assert int((study.table["stage"] == "search").sum()) == 51
    assert study.manifest["patience"] == 50


def test_gains_under_a_quarter_of_the_standard_error_do_not_count(monkeypatch):
    def estimate(goal: object, evaluator: object, sets: Columns, seed: int) -> np.ndarray:
        return np.full((len(sets["x"]), 1), 0.4)

    monkeypatch.setattr(sys.modules[Patience.__module__], "estimate_errors", estimate)
    goal = trials.Goal(read_objective("sharpe"), ())
    patience = Patience(10, goal, None, 0)

    def count(*sharpes: float) -> int:
        n = len(sharpes)
        rows = {"sharpe": np.array(sharpes)}
        sets = {"x": np.arange(float(n))}
        batch = trials.Batch("search", 0.0, sets, rows, rows["sharpe"], np.zeros(n), [""] * n)
        patience.count(batch)
        return patience.left

    assert count(1.0, 0.5, 0.9) == 8  # the first set is a gain
    assert count(1.05, 1.09) == 6  # under 1 + .1, also together
    assert count(1.11, 0.0) == 9
    assert count(1.2, math.nan) == 7


def test_a_patient_search_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    whole = seek(patience=60, store=tmp_path / "whole")

    def stop(now: object) -> None:
        if now.trials > 40:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        assert not seek(patience=60, store=tmp_path / "killed", progress=stop).complete
    assert seek(patience=60, store=tmp_path / "killed", resume=True).table.equals(whole.table)
    assert len(whole.table) < 400
    check_refused(lambda: seek(patience=0), "patience must be at least 1, got 0", ParameterError)


def spread(sets: Columns) -> Columns:
    """Return growth x (1 + y / 100) and drawdown (x / 10)^2: the frontier is y = 100."""
    x = sets["x"]
    y = sets["y"]
    ruined = ((x > 9.0) & (y > 50.0)).astype(float)
    return {"cagr": x * (1 + y / 100), "max_drawdown": (x / 10) ** 2, "ruined": ruined}


def test_a_frontier_has_the_sets_that_none_beats_and_no_ruined_one(on):
    on(spread)
    study = seek(objective=["cagr", "max_drawdown"], trials=300, robust=False)
    found = study.frontier(draws=20)

    table = study.table[study.table["ruined"] == 0.0]
    growth = table["cagr"].to_numpy()
    fall = table["max_drawdown"].to_numpy()
    beats = (growth[:, None] >= growth) & (fall[:, None] <= fall)
    beats &= (growth[:, None] > growth) | (fall[:, None] < fall)
    assert found.found == int((~beats.any(axis=0)).sum())

    front = found.points[found.points["point"] == "frontier"]
    assert front["cagr"].is_monotonic_decreasing
    assert front["max_drawdown"].is_monotonic_decreasing

    default = found.points[found.points["point"] == "default"].iloc[0]
    assert default["x"] == 5.0
    assert default["y"] == 10.0
    assert found.is_beaten(int(default.name))

    assert found.verdict.startswith("The knee has CAGR")
    assert "on the holdout" in found.verdict

    assert any("The default set is beaten" in notice for notice in found.notices)
    assert {"holdout_cagr", "holdout_max_drawdown", "non_dominated"} <= {*found.points}
    assert "not deflated" in found.details

    assert study.best["x"] == pytest.approx(found.points.loc[found.knee, "x"])
    assert study.outcome.chosen_by == "knee"


def test_the_chosen_set_of_a_frontier_is_the_best_one_of_its_study(on):
    """Of many sets, and of those on the chord, it is one set; the listed ones are 64."""

    def same(sets: Columns) -> Columns:
        return {"cagr": sets["x"], "max_drawdown": sets["x"]}

    for many, rule in ((300, spread), (12, same), (9, spread)):
        on(rule)
        study = seek(objective=["cagr", "max_drawdown"], trials=many, robust=False, sampler="sobol")

        found = study.frontier(draws=5)
        assert (found.points["point"] == "frontier").sum() == min(found.found, 64)
        assert not found.is_beaten(found.knee)
        assert study.best["x"] == found.points.loc[found.knee, "x"]


def test_the_knee_is_farthest_from_the_chord():
    """On the circle around (0, 0) it is at 45 degrees, whatever the units."""
    angle = np.linspace(0.0, np.pi / 2, 19)
    assert find_knee(np.column_stack([np.sin(angle), 50 * np.cos(angle)])) == (9, True)

    corner = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.7, 0.7, 0.7], [0.4, 0.4, 0.4]])
    assert find_knee(corner) == (3, True)


def test_a_frontier_that_is_nearly_straight_has_no_knee():
    """The chord is x + y = 1; (.5 + h, .5 + h) lies h sqrt(2) from it: .0495 at .035, .0509 at
    .036. Without a knee, the best of the first objective is chosen."""
    for bulge, knee in ((0.0, (0, False)), (0.035, (0, False)), (0.036, (1, True))):
        middle = 0.5 + bulge
        assert find_knee(np.array([[1.0, 0.0], [middle, middle], [0.0, 1.0]])) == knee

    assert find_knee(np.array([[3.0, 4.0]])) == (0, False)


def test_sets_without_fills_are_never_on_a_frontier_or_chosen(on):
    """Under x = 3 no set fills an order: without a drawdown, none of the others would beat it."""

    def fill_some(sets: Columns) -> Columns:
        is_filled = sets["x"] >= 3.0
        return {
            "cagr": np.where(is_filled, 0.1 * sets["x"], 0.0),
            "max_drawdown": np.where(is_filled, (sets["x"] / 10) ** 2, 0.0),
            "turnover": is_filled * 1.0,
            "fills": np.where(is_filled, np.where(sets["x"] < 5.0, 4.0, 20.0), 0.0),
        }

    on(fill_some)
    study = seek(objective=["cagr", "max_drawdown"], trials=60, robust=False)
    found = study.frontier(draws=5)
    assert found.points["x"].min() >= 3.0
    assert found.trials["cagr"].min() >= 0.3
    assert found.unfilled == int((study.table["fills"] == 0).sum()) > 0
    assert f"{found.unfilled} sets that filled no order are left out." in found.notices
    assert any(notice.startswith("Under 10 fills") for notice in found.notices)
    assert study.best["fills"] > 0

    best = seek(objective="calmar", trials=60, robust=False).best
    assert best["fills"] > 0


def test_a_search_in_which_no_set_fills_an_order_says_so(on, monkeypatch):
    on(lambda sets: {"sharpe": np.zeros(len(sets["x"])), "turnover": np.zeros(len(sets["x"]))})
    monkeypatch.setattr(winner, "explain_unfilled", lambda *_: "the signal was 0")

    study = seek(trials=20, robust=False)
    assert study.best is None
    assert any(
        "filled no order; no order was filled: the signal was 0" in text for text in study.warnings
    )


def test_shares_are_those_of_paired_histories():
    """A set that is another one plus a constant a day is never beaten, the other always."""
    noise = np.random.default_rng(1).normal(0.0, 0.01, (200, 1))
    returns = noise + np.array([0.0, 0.001])
    span = Span(200 / 365, 365.0)
    goal = trials.Goal(read_objective("cagr"), (), (read_objective("max_drawdown"),))

    own = measure_returns(returns.T, span)
    drawn = resample_scores(goal, own, returns, span, 50, 0)

    assert np.mean([~is_dominated(each) for each in drawn], axis=0).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("wrong", "words"), [
    (["cagr"], "two or three different measures"),
    (["cagr", "cagr"], "two or three different measures"),
    (["cagr", "mean_leverage"], "with a better direction, got 'mean_leverage'"),
    (["cagr", "es_95"], "need no path of an account, got es_95"),
    (["cagr", "sharp"], "did you mean 'sharpe'"),
])  # fmt: skip
def test_objectives_without_a_direction_are_refused(wrong, words):
    check_refused(lambda: seek(objective=wrong), words, ParameterError)


def test_a_search_for_a_frontier_covers_it_with_few_evaluations():
    """Hypervolume of 1,000 sets over the exact one, from the worst values; 4 parameters."""
    shares = []
    for seed in range(5):
        sampler = Chebyshev(4, seed, 1000, 2)
        scores = np.empty((0, 2))
        for _ in range(15):
            cube = sampler.ask()
            off = 1 + 16 * np.mean((cube[:, 1:] - 0.6) ** 2, axis=1)
            new = np.column_stack([-cube[:, 0], -off * (1 - (cube[:, 0] / off) ** 2)])
            sampler.tell(cube, new, np.zeros(len(cube)))
            scores = np.vstack([scores, new])

        front = scores[~is_dominated(scores)] + [1.0, 6.76]
        front = front[np.argsort(-front[:, 0])]
        tops = np.maximum.accumulate(np.concatenate([[0.0], front[:, 1]]))
        shares.append(float(np.sum(front[:, 0] * np.diff(tops))) / (5.76 + 1 / 3))

    assert np.median(shares) > 0.98


@pytest.mark.slow
def test_importance_is_that_of_ishigamis_function():
    """S1 .314, S2 .442, S13 .244 (Ishigami and Homma 1990), at 2,000 uniform trials."""

    class Three(bt.Policy):
        a: Annotated[float, bt.Range(-math.pi, math.pi)] = 0.0
        b: Annotated[float, bt.Range(-math.pi, math.pi)] = 0.0
        c: Annotated[float, bt.Range(-math.pi, math.pi)] = 0.0

        def leverage(self, bar, account):
            return 1.0

    space = space_of(Three)
    sets = space.decode(np.random.default_rng(0).random((2000, 3)))
    a = sets["a"]
    b = sets["b"]
    c = sets["c"]
    scores = np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)
    batch = trials.Batch("search", 0.0, sets, {}, scores, np.zeros(2000), [""] * 2000)

    table = measure_importance(space, batch, 0)
    share = table["share"]

    assert share["a"] == pytest.approx(0.314, abs=0.05)
    assert share["b"] == pytest.approx(0.442, abs=0.05)
    assert share["a x c"] == pytest.approx(0.244, abs=0.05)
    assert table.loc[["a", "b", "a x c"], "is_over_noise"].all()
    assert share["c"] < 0.02
    assert share.sum() == pytest.approx(1.0)


@pytest.mark.slow
def test_the_page_of_a_long_study_shows_which_parameters_matter():
    """The dome falls by ((x - 6) / 5)^2 and by ln(y / 20)^2: y matters most."""
    study = seek(trials=600, robust=False)

    share = study.importance()["share"]
    assert share["y"] > 0.9 > share["x"] > 0.005  # exactly 0.976 and 0.024

    part = next(part for part in study.list_parts() if part.key == "importance")
    chart, table = part.list_blocks()
    assert draw_chart(chart) is not None
    assert list(table.table.index) == ["x", "y", "x x y", "rest"]


def test_a_parameter_may_be_called_rest(monkeypatch):
    class Resting(bt.Policy):
        rest: Annotated[float, bt.Range(0.0, 1.0)] = 0.0
        other: Annotated[float, bt.Range(0.0, 1.0)] = 0.0

        def leverage(self, bar, account):
            return 1.0

    monkeypatch.setattr("backtest.search.importance.TREES", 2)
    monkeypatch.setattr("backtest.search.importance.PERMUTATIONS", 1)
    space = space_of(Resting)
    sets = space.decode(np.random.default_rng(0).random((500, 2)))
    scores = sets["rest"]
    batch = trials.Batch("search", 0.0, sets, {}, scores, np.zeros(500), [""] * 500)

    share = measure_importance(space, batch, 0)["share"]
    assert [*share.index] == ["rest", "other", "rest x other", "rest of the variance"]
    assert share["rest"] > 0.9
    assert share.sum() == pytest.approx(1.0)


def test_importance_needs_500_sets():
    study = seek(trials=20, robust=False)
    check_refused(study.importance, "importance needs 500 sets whose scores differ, got 20")


@pytest.mark.slow
def test_a_score_of_noise_gives_no_parameter_importance(monkeypatch):
    """The largest share of four is over 19 of permuted scores once in 20: 1 of 20 is expected.

    That holds for forests of any size, so small ones do.
    """
    monkeypatch.setattr("backtest.search.importance.TREES", 4)

    class Four(bt.Policy):
        a: Annotated[float, bt.Range(0.0, 1.0)] = 0.0
        b: Annotated[float, bt.Range(0.0, 1.0)] = 0.0
        c: Annotated[float, bt.Range(0.0, 1.0)] = 0.0
        d: Annotated[float, bt.Range(0.0, 1.0)] = 0.0

        def leverage(self, bar, account):
            return 1.0

    space = space_of(Four)
    claims = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sets = space.decode(rng.random((500, 4)))
        noise = rng.standard_normal(500)

        batch = trials.Batch("search", 0.0, sets, {}, noise, np.zeros(500), [""] * 500)
        claims += measure_importance(space, batch, seed)["is_over_noise"].iloc[:4].any()
    assert claims <= 4  # fixed seeds: 5 or more of 20 at a rate of 1 in 20 is 1 in 400


@pytest.mark.slow
def test_a_parameter_that_explains_a_tenth_of_the_score_is_over_the_noise():
    """x is uniform, so that sqrt(12 / 9) x has the variance 1/9, beside noise of variance 1."""

    class Two(bt.Policy):
        x: Annotated[float, bt.Range(0.0, 1.0)] = 0.0
        y: Annotated[float, bt.Range(0.0, 1.0)] = 0.0

        def leverage(self, bar, account):
            return 1.0

    space = space_of(Two)
    rng = np.random.default_rng(1)
    sets = space.decode(rng.random((500, 2)))
    scores = math.sqrt(12.0 / 9.0) * sets["x"] + rng.standard_normal(500)
    batch = trials.Batch("search", 0.0, sets, {}, scores, np.zeros(500), [""] * 500)

    table = measure_importance(space, batch, 0)
    assert table.loc["x", "is_over_noise"]
    assert not table.loc["y", "is_over_noise"]

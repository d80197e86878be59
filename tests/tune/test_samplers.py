"""Samplers: they find what there is to find, keep constraints, and are the same for one seed."""

import numpy as np
import pytest

from backtest.search.points import build_grid, grade
from backtest.search.samplers import make_sampler
from backtest.sweep.sets import Dimension, Space


def number(name, kind="float", low=0.0, high=1.0, *, log=False, when=None):
    return Dimension(name, kind, low, high, log, (), when, low)


def choice(name, *options, when=None):
    return Dimension(name, "choice", 0.0, float(len(options)), False, options, when, options[0])


def space(*dimensions):
    return Space(dimensions, {})


SQUARE = space(number("x"), number("y"))
MIXED = space(
    number("x"),
    number("count", "int", 1, 40),
    choice("mode", "slow", "fast", "off"),
    number("extra", when=("mode", ("fast",))),
    Dimension("flag", "bool", 0.0, 2.0, False, (False, True), None, False),
)


def search(name, where, judge, *, trials=None, seed=0, enough=np.inf):
    """Return what was asked, its scores and its violations; a score over ``enough`` ends it."""
    sampler = make_sampler(name, where, seed=seed, trials=trials)
    left = trials or 10**6
    parts = []

    while left > 0:
        cube = sampler.ask()[:left]
        if not len(cube):
            break
        assert cube.dtype == np.float64
        assert cube.shape[1:] == (len(where.dimensions),)
        assert ((cube >= 0.0) & (cube <= 1.0)).all()

        parts.append((cube, *judge(cube)))
        if parts[-1][1].max() > enough:
            break
        left -= len(cube)
        if left > 0:
            sampler.tell(*parts[-1])

    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def free(score):
    return score, np.zeros(len(score))


def bowl(cube):
    return free(-np.sum((cube - [0.3, 0.7]) ** 2, axis=1))


def wall(cube):
    """Uphill to a wall: best at x + y = 1, x = 0.5, where the score is 1."""
    x, y = cube.T
    return x + y - (x - y) ** 2, np.maximum(x + y - 1.0, 0.0)


def rugged(cube):
    x, y = cube.T
    height = -((x - 0.6) ** 2) - (y - 0.4) ** 2 + 0.2 * np.sin(37 * x) * np.cos(53 * y)
    height = height + 0.05 * np.round(np.sin(997.0 * x + 499.0 * y))

    return np.where(y > 0.8, -1.0, height), np.where(x > 0.62, np.inf, 0.0)


def mixed(cube):
    """Best (0) at count 17, fast, extra 0.25, flag True, x 0.5."""
    sets = MIXED.decode(cube)
    fast = sets["mode"] == "fast"
    score = -((sets["x"] - 0.5) ** 2) - ((sets["count"] - 17) / 40.0) ** 2 - 0.5 * ~sets["flag"]
    return free(score - np.where(fast, (sets["extra"] - 0.25) ** 2, 0.3))


@pytest.mark.parametrize(("name", "trials", "short"), [
    ("auto", 2000, 1e-6),
    ("gp", 30, 2e-3),
    ("sobol", 4096, 1e-3),
    ("random", 4096, 2e-3),
    ("grid", 4096, 1e-3),
])  # fmt: skip
def test_each_finds_the_bottom_of_a_bowl(name, trials, short):
    _, scores, _ = search(name, SQUARE, bowl, trials=trials)
    assert len(scores) <= trials
    assert scores.max() > -short


def test_an_optimum_on_the_edge_of_a_constraint_is_approached_from_inside():
    _, scores, violations = search("auto", SQUARE, wall, trials=3000)
    assert 1.0 - 1e-4 < scores[violations == 0.0].max() <= 1.0


@pytest.mark.parametrize(("name", "trials", "short"), [("auto", 6000, 1e-3), ("sobol", 8192, 0.05)])
def test_whole_numbers_options_and_conditions(name, trials, short):
    _, scores, _ = search(name, MIXED, mixed, trials=trials)
    assert scores.max() > -short


def two_hills(cube):
    """Return a broad hill of height 1 and a narrow one of height 1.05; z does not matter."""
    broad = np.abs(cube[:, :2] - [0.3, 0.6]).max(axis=1)
    narrow = np.abs(cube[:, :2] - [0.85, 0.2]).max(axis=1)
    return free(np.maximum(1.0 - 0.5 * broad, 1.05 - 5.0 * narrow))


@pytest.mark.slow
def test_the_higher_of_two_hills_is_found_by_nearly_every_seed():
    """Without restarts every other seed stays on the broad hill, 4.8 % short."""
    where = space(*map(number, "xyz"))
    found = 1.05 * 0.995
    highest = []
    for seed in range(6):
        _, scores, _ = search("auto", where, two_hills, trials=40_000, seed=seed, enough=found)
        highest.append(scores.max())

    assert sum(height > found for height in highest) >= 5


@pytest.mark.slow
def test_auto_ends_when_nothing_is_gained():
    asked, scores, _ = search("auto", SQUARE, bowl)
    assert len(asked) < 100_000
    assert scores.max() > -1e-12


@pytest.mark.parametrize(("name", "highest"), [("auto", 7), ("gp", 6)])
def test_every_set_of_a_small_space_is_asked_for_once(name, highest):
    where = space(number("n", "int", 1, highest), choice("mode", "a", "b"))
    asked, _, _ = search(name, where, lambda cube: free(cube[:, 0]))

    sets = where.decode(asked)
    combinations = set(zip(sets["n"].tolist(), sets["mode"].tolist(), strict=True))
    assert len(asked) == len(combinations) == 2 * highest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "sobol", "random", "grid"])
def test_the_same_seed_and_answers_give_the_same_questions(name):
    trials = 800
    for where, judge in ((MIXED, mixed), (SQUARE, rugged)):
        first, _, _ = search(name, where, judge, trials=trials, seed=3)
        again, _, _ = search(name, where, judge, trials=trials, seed=3)
        assert np.array_equal(first, again)

    other, _, _ = search(name, SQUARE, rugged, trials=trials, seed=4)
    assert not np.array_equal(first, other)


def test_grades_follow_debs_rules():
    """Kept by score, none last; then broken by how much, whatever the score; ruined last."""
    score = np.array([1.0, 3.0, np.nan, 99.0, 50.0, np.nan, 7.0])
    broken_by = np.array([0.0, 0.0, 0.0, 2.0, 1.0, np.inf, np.nan])
    grades = grade(np.empty((7, 1)), score, broken_by)

    assert grades.sort().tolist() == [1, 0, 2, 4, 3, 5, 6]
    assert grades.rank().tolist() == [6.0, 7.0, 5.0, 3.0, 4.0, 1.5, 1.5]


def test_a_grid_has_all_options_and_both_bounds():
    where = space(number("x"), number("n", "int", 1, 3), choice("mode", *"abcd"))
    sets = where.decode(build_grid(where, 100))

    assert len(sets["x"]) == 96
    assert set(sets["mode"]) == set("abcd")
    assert set(sets["n"]) == {1, 2, 3}
    assert np.array_equal(np.unique(sets["x"]), np.linspace(0.0, 1.0, 8))


def test_a_grid_asks_once_for_what_does_not_matter():
    """``extra`` has 4 levels where the mode is fast, and one elsewhere."""
    where = space(choice("mode", "slow", "fast"), number("extra", when=("mode", ("fast",))))
    asked, _, _ = search("grid", where, lambda cube: free(cube[:, 0]), trials=8)

    assert len(asked) == 5

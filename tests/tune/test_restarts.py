"""A search that ends on the first hill it climbs is not a search: the default sampler starts again.

The surfaces are made up: a broad hill that most populations end on, and a narrow one that is
higher; and a ridge with spikes.
"""

import numpy as np
import pytest

from backtest.sweep.sets.dimension import Dimension
from backtest.sweep.sets.space import Space
from backtest.tune.samplers import make_sampler
from backtest.tune.samplers.auto import Points, drop_equals
from backtest.tune.samplers.population import Axes, Population
from backtest.tune.samplers.protocol import Grades

SPACE = Space(tuple(Dimension(name, "float", 0.0, 1.0, False, (), None, 0.0) for name in "xyz"), {})
BROAD, NARROW = np.array([0.3, 0.6, 0.5]), np.array([0.85, 0.2, 0.5])
TRIALS = 60_000


def two_hills(cube):
    """Return a broad hill of height 1 and a narrow one of height 1.05; z does not matter."""
    away = (np.abs(cube[:, :2] - hill[:2]).max(axis=1) for hill in (BROAD, NARROW))
    broad, narrow = away
    return np.maximum(1.0 - 0.5 * broad, 1.05 - 5.0 * narrow)


def spiked_ridge(cube):
    """Return a ridge along y = 0.2 + 0.6 x with 1,000 spikes; z does not matter.

    At (0.4295, 0.4577), half a spike from the top of the ridge, it is highest: 1 - 0.1 * 0.0005.
    """
    x, y = cube[:, 0], cube[:, 1]
    away = 0.1 * np.abs(x - 0.43) + 4.0 * np.abs(y - 0.2 - 0.6 * x)
    return 1.0 - away - 0.01 * np.abs((1000.0 * x) % 1.0 - 0.5)


def climb(seed, trials=TRIALS, surface=two_hills):
    """Return the best score of a search."""
    sampler = make_sampler("auto", SPACE, seed=seed)
    best, done = -np.inf, 0
    while done < trials and len(cube := sampler.ask()):
        score = surface(cube)
        sampler.tell(cube, score, np.zeros(len(cube)))
        best, done = max(best, float(score.max())), done + len(cube)
    return best


@pytest.mark.slow
def test_the_higher_of_two_hills_is_found_by_nearly_every_seed():
    """Without restarts every other seed stays on the broad hill, 4.8 % short."""
    found = [climb(seed) for seed in range(20)]
    assert sum(best > 1.05 * 0.995 for best in found) >= 19


def test_one_round_alone_ends_on_the_broad_hill_too_often():
    """The surface is hard enough to tell: the test above would fail of a single climb."""
    found = [climb(seed, trials=3_000) for seed in range(20)]
    assert sum(best > 1.05 * 0.995 for best in found) <= 12


@pytest.mark.slow
def test_the_spikes_of_a_ridge_across_the_axes_are_compared():
    """Of 60 seeds 56 lose less; of 30 without reunions 2, of 30 without moves along lines 7."""
    lost = [1.0 - climb(seed, trials=30_000, surface=spiked_ridge) for seed in range(20)]
    assert sum(each < 0.6e-4 for each in lost) >= 17


def test_small_moves_along_lines_stay_on_the_line_of_the_members():
    """Members on y = 2 x stay there, and reach far beyond themselves; an option is kept."""
    x = np.linspace(0.2, 0.3, 8)
    cube = np.column_stack([x, 2.0 * x, np.full(8, 0.7)])
    axes = Axes(np.zeros(3), np.array([False, False, True]))
    population = Population(cube, Grades(np.zeros(8), -x), axes, share_along=1.0)
    moved = population.breed(200, np.random.default_rng(0)).cube[8:]
    inside = moved[(moved[:, 0] > 0.0) & (moved[:, 1] < 1.0)]
    assert len(inside) > 150
    assert len(np.unique(inside[:, 0])) > 150
    assert np.ptp(inside[:, 0]) > 4.0 * np.ptp(x)
    np.testing.assert_allclose(inside[:, 1], 2.0 * inside[:, 0], atol=1e-12)
    np.testing.assert_array_equal(moved[:, 2], 0.7)


def test_sets_of_equal_grade_join_a_population_once():
    """Of six points with scores 1, 3, 3, 2, 1, 0 four are left, best first."""
    score = np.array([1.0, 3.0, 3.0, 2.0, 1.0, 0.0])
    points = Points(np.arange(6.0)[:, None], Grades(np.zeros(6), score))
    assert drop_equals(points).cube[:, 0].tolist() == [1.0, 3.0, 0.0, 5.0]


def test_sets_that_are_all_equal_are_still_a_population():
    """A population needs four members."""
    points = Points(np.arange(6.0)[:, None], Grades(np.zeros(6), np.ones(6)))
    assert len(drop_equals(points).cube) == 6

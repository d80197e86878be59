"""A search that ends on the first hill it climbs is not a search: the default sampler starts again.

The surface is made up: a broad hill that most populations end on, and a narrow one that is higher.
"""

import numpy as np
import pytest

from backtest.sweep.sets.dimension import Dimension
from backtest.sweep.sets.space import Space
from backtest.tune.samplers import make_sampler

SPACE = Space(tuple(Dimension(name, "float", 0.0, 1.0, False, (), None, 0.0) for name in "xyz"), {})
BROAD, NARROW = np.array([0.3, 0.6, 0.5]), np.array([0.85, 0.2, 0.5])
TRIALS = 60_000


def two_hills(cube):
    """Return a broad hill of height 1 and a narrow one of height 1.05; z does not matter."""
    away = (np.abs(cube[:, :2] - hill[:2]).max(axis=1) for hill in (BROAD, NARROW))
    broad, narrow = away
    return np.maximum(1.0 - 0.5 * broad, 1.05 - 5.0 * narrow)


def climb(seed, trials=TRIALS):
    """Return the best score of a search, and how many sets it took."""
    sampler = make_sampler("auto", SPACE, seed=seed)
    best, done = -np.inf, 0
    while done < trials and len(cube := sampler.ask()):
        score = two_hills(cube)
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

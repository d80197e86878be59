"""Spaces to draw sets from: their bounds, options and conditions, and how they are drawn."""

import math

import numpy as np
import pytest

from backtest import ParameterError, Range
from backtest.features import VOLATILITY_ESTIMATORS, WEIGHTED_ESTIMATORS
from backtest.strategies import SharpeScaling, VolTarget
from backtest.sweep.sets.space import draw_sets
from tests.kit import check_refused
from tests.sweep.test_space import Bare, Modes, check, space_of


def test_a_space_is_all_declared_ranges_unless_told_otherwise():
    space = space_of(VolTarget, power=2)
    target, half_life, estimator = space.dimensions
    assert target[:7] == ("target", "float", 0.05, 2.0, True, (), None)
    assert half_life.default == 72.0
    assert half_life.when == ("estimator", WEIGHTED_ESTIMATORS)
    assert estimator.options == VOLATILITY_ESTIMATORS
    assert space.fixed == {"power": 2.0}
    assert len(space_of(VolTarget, power=2, estimator="ewma").dimensions) == 2
    assert len(space_of(VolTarget, power=2, estimator="garch").dimensions) == 1


def test_a_space_reads_bounds_ranges_options_and_fields():
    given = {
        "target": (0.1, 1.0),
        "window": (24.0, 100.5),
        "account.margin": ["cross", "isolated"],
        "account.stop_loss": [None, 0.1],
        "account.band": Range(0.0, 0.2),
        "venue.liquidation.step": [0.2, "bracket"],
    }
    dimensions = space_of(SharpeScaling, given).dimensions
    kinds = ["float", "int", "choice", "choice", "float", "choice"]
    assert [each.kind for each in dimensions] == kinds
    assert dimensions[1][2:5] == (24, 100, True)
    assert dimensions[2].options == ("cross", "isolated")


def test_all_defects_of_a_space_are_listed_at_once():
    given = {"targt": (0, 1), "half_life": (1, 9000), "power": "high", "target": (0.1, 0.2, 0.3)}
    with pytest.raises(ParameterError) as caught:
        space_of(VolTarget, given, power=99.0)
    for text in (
        "nothing named 'targt'",
        "half_life must be 2 to 2000 bars, got 1",
        "power must be given as bounds or as a list of options, got 'high'",
        r"bounds of target must be (low, high), got (0.1, 0.2, 0.3)",
        "power must not be both varied and fixed",
        "power must be 0.5 to 3, got 99",
    ):
        assert text in str(caught.value)


CIRCLE = {"mode": ["plain", "both"], "scale": Range(0.5, 1, when=("scale", 1))}
ALL_FIXED = {"target": 0.1, "half_life": 5, "power": 1, "estimator": "ewma"}


@pytest.mark.parametrize(("make", "words"), [
    (lambda: space_of(SharpeScaling, {"window": (10, 100)}), "window must be 24 to 20000"),
    (lambda: space_of(VolTarget, {"target": (1.0, 0.1)}), "bounds of target must be low <= high"),
    (lambda: space_of(Bare), "must be finite to be drawn from, size has 0 to inf"),
    (lambda: space_of(Bare, {"window": (2, 3)}), "size has no default"),
    (lambda: space_of(VolTarget, **ALL_FIXED), "space must have something to vary"),
    (lambda: space_of(Modes, {"scale": (0.5, 1.0)}), "no effect in any set: it is used only where"),
    (lambda: space_of(Modes, CIRCLE), "when must name another parameter"),
    (lambda: draw_sets(space_of(VolTarget), 4, method="sobl"), "method must be one of sobol"),
    (lambda: draw_sets(space_of(VolTarget), 0), "the number of sets must be"),
    (lambda: space_of(VolTarget, ["target"]), "space must be a mapping"),
])  # fmt: skip
def test_bad_spaces_are_refused(make, words):
    check_refused(make, words, ParameterError)


def test_points_become_sets_and_sets_become_points():
    space = space_of(
        Modes, {"mode": ["plain", "both"], "scale": (0.5, 2), "count": (1, 4)}, kind="y"
    )
    cube = np.array([[0.9, 0.0, 0.0], [0.9, 1.0, 1.0], [0.6, 0.5, 0.3], [0.1, 0.9, 0.9]])
    sets = space.decode(cube)
    assert sets["mode"].tolist() == ["both", "both", "both", "plain"]
    assert sets["scale"].tolist() == [0.5, 2.0, 1.0, 1.0]
    assert sets["count"].tolist() == [1, 4, 2, 2]
    assert sets["kind"].tolist() == ["y"] * 4
    assert sets["count"].dtype == np.int64
    again = space.decode(space.encode(sets))
    for name, column in sets.items():
        assert again[name].tolist() == pytest.approx(column.tolist()) or name in ("mode", "kind")
    check(Modes, sets)


def test_a_parameter_that_never_matters_is_no_dimension():
    names = [each.name for each in space_of(Modes, mode="plain").dimensions]
    assert names == ["is_on"]
    reduced = space_of(Modes, mode="both").dimensions
    assert {each.name: each.when for each in reduced}["scale"] is None
    assert {each.name: each.when for each in reduced}["count"] == ("kind", ("y",))
    chained = space_of(Modes, kind="y").dimensions
    assert {each.name: each.when for each in chained}["count"] == ("mode", ("both",))


@pytest.mark.parametrize("method", ["sobol", "lhs", "uniform"])
def test_draws_fill_the_space_and_depend_on_the_seed_alone(method):
    space = space_of(VolTarget)
    one, same = (
        draw_sets(space, 300, method=method, seed=1),
        draw_sets(space, 300, method=method, seed=1),
    )
    other = draw_sets(space, 300, method=method, seed=2)
    for name in one:
        assert (one[name] == same[name]).all()
        assert not (one[name] == other[name]).all()
    assert np.median(one["half_life"]) == pytest.approx(math.sqrt(2 * 2000), rel=0.25)
    assert len(check(VolTarget, one)["target"]) == 300

"""An objective is known by its code, and by what it is bound to and reads."""

import functools

import numpy as np
import pytest

from backtest.tune.search import describe_objective

pytestmark = pytest.mark.usefixtures("made_up")


class Weighted:
    """An objective with a number of its own."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, row) -> float:
        return row["sharpe"] - self.weight * row["turnover"]


def weigh(row, weight: float) -> float:
    return row["sharpe"] - weight * row["turnover"]


def test_what_is_bound_to_an_objective_counts():
    makes = [Weighted, lambda weight: functools.partial(weigh, weight=weight)]
    for make in makes:
        assert describe_objective(make(1.0)) == describe_objective(make(1.0))
        assert describe_objective(make(1.0)) != describe_objective(make(2.0))
    assert describe_objective(np.max) != describe_objective(Weighted(1.0))


LIMITS = {"weights": [1.0]}


def read_limits(row):
    return row["sharpe"] * LIMITS["weights"][0]


def score_by_limits(row):
    return read_limits(row)


def test_the_content_of_a_table_that_an_objective_reads_counts(monkeypatch):
    for function in (read_limits, score_by_limits, functools.partial(read_limits)):
        before = describe_objective(function)
        assert describe_objective(function) == before
        with monkeypatch.context() as patch:
            patch.setitem(LIMITS, "weights", [2.0])
            assert describe_objective(function) != before
        assert describe_objective(function) == before

"""Objectives, constraints, and the order they put sets in."""

import math
from pathlib import Path

import numpy as np
import pytest

from backtest import ParameterError
from backtest.measures.measure_table import ABOUT, METRICS
from backtest.measures.ranking import (
    Constraint,
    order_sets,
    rank_by_objective,
    read_constraints,
    read_objective,
    total_violation,
)
from tests.kit import check_refused

NAN = math.nan
TABLE = {
    "sharpe": np.array([3.0, 1.0, 2.0, NAN, NAN, 1.5]),
    "max_drawdown": np.array([0.9, 0.2, 0.5, 0.0, NAN, 0.3]),
    "turnover": np.array([10.0, 20.0, 30.0, 40.0, NAN, 60.0]),
    "ruined": np.array([1.0, 0.0, 0.0, 0.0, NAN, 0.0]),
    "ruin_time": np.array([5.0, NAN, NAN, NAN, NAN, NAN]),
}
FAILED = np.array([False, False, False, False, True, False])


def test_every_measure_has_a_unit_and_a_direction():
    assert tuple(ABOUT) == METRICS
    assert {each.better for each in ABOUT.values()} == {-1, 0, 1}
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in documented for name in ABOUT)


@pytest.mark.parametrize(("objective", "name", "scores"), [
    ("sharpe", "sharpe", [3.0, 1.0]),
    ("-sharpe", "-sharpe", [-3.0, -1.0]),
    ("max_drawdown", "-max_drawdown", [-0.9, -0.2]),
    ("-max_drawdown", "-max_drawdown", [-0.9, -0.2]),
    ({"sharpe": 1.0, "turnover": -0.01}, "sharpe - 0.01 * turnover", [2.9, 0.8]),
    (lambda row: row["sharpe"] / row["max_drawdown"], "<lambda>", [3.0 / 0.9, 5.0]),
])  # fmt: skip
def test_an_objective_is_a_measure_a_sum_or_a_function(objective, name, scores):
    read = read_objective(objective)
    assert read.name == name
    assert read.score(TABLE)[:2].tolist() == pytest.approx(scores)
    assert np.isnan(read.score(TABLE)[4])


BAD = {
    "a mistyped measure": (lambda: read_objective("sharp"), "did you mean 'sharpe'"),
    "weights of one": (lambda: read_objective({"sharp": 1.0}), "no measure 'sharp'"),
    "a NaN weight": (lambda: read_objective({"sharpe": NAN}), "weight of sharpe must be a number"),
    "no measure": (lambda: read_objective({}), "objective must be a measure"),
    "not taken": (lambda: read_objective("sortino").score(TABLE), "metrics='all'"),
    "of a path": (lambda: read_objective("es_95").score(TABLE), "sweep.detail"),
    "a function that raises": (
        lambda: read_objective(lambda row: row["sharp"]).score(TABLE), "raised KeyError: 'sharp'"),
    "no mapping": (lambda: read_constraints("max_drawdown <= 0.4"), "constraints must map"),
    "no comparison": (lambda: read_constraints({"max_drawdown": 0.4}), "got 0.4 for max_drawdown"),
    "a NaN bound": (lambda: read_constraints({"max_drawdown": "<= nan"}), "got '<= nan'"),
    "a mistyped bound": (lambda: read_constraints({"max_drawdwn": "<= 1"}), "'max_drawdown'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    check_refused(*BAD[case], kind=ParameterError)


@pytest.mark.parametrize(("text", "value", "violation"), [
    ("<= 0.4", 0.4, 0.0),
    ("<= 0.4", 0.5, 0.25),
    ("<=0.4", 0.3, 0.0),
    (">= 2", 1.0, 0.5),
    (">= 2", 3.0, 0.0),
    ("== 0", 0.0, 0.0),
    ("== 0", -3.0, 3.0),
    ("< 1", 2.0, 1.0),
    ("> -1", -0.5, 0.0),
    ("<= 0.4", NAN, math.inf),
    (">= 2", math.inf, 0.0),
    ("<= 2", math.inf, math.inf),
])  # fmt: skip
def test_a_violation_is_in_units_of_the_bound(text, value, violation):
    _, constraint = read_constraints({"sharpe": text})
    assert constraint.violation({"sharpe": np.array([value])})[0] == pytest.approx(violation)


@pytest.mark.parametrize("text", ["< 1", "> 1"])
def test_a_strict_bound_is_broken_by_equality(text):
    _, constraint = read_constraints({"sharpe": text})
    assert constraint.violation({"sharpe": np.array([1.0])})[0] > 0.0


@pytest.mark.parametrize("name", ["time_to_first_liquidation", "ruin_time"])
def test_what_never_came_came_later_than_any_bound_but_not_in_a_set_that_failed(name):
    metrics = {name: np.array([NAN, 45.0, 15.0, NAN]), "ruined": np.array([0.0, 0.0, 0.0, NAN])}
    for text, expected in [
        (">= 30", [0.0, 0.0, 0.5, math.inf]),
        ("> 30", [0.0, 0.0, 0.5, math.inf]),
        ("<= 30", [math.inf, 0.5, 0.0, math.inf]),
    ]:
        constraint = read_constraints({name: text})[1]
        assert constraint.violation(metrics).tolist() == expected
    assert np.isnan(metrics[name][0])


def test_no_ruin_is_always_a_constraint():
    assert read_constraints() == (Constraint("ruined", "==", 0.0),)
    assert read_constraints({"ruined": "== 0"}) == read_constraints(None)
    assert [str(each) for each in read_constraints({"sharpe": "> 1"})] == [
        "ruined == 0",
        "sharpe > 1",
    ]


def test_a_lucky_sharpe_before_ruin_never_wins():
    assert rank_by_objective(TABLE, "sharpe", None, FAILED).tolist() == [2, 5, 1, 3, 0, 4]


def test_constraints_come_before_objectives():
    found = rank_by_objective(TABLE, "sharpe", {"max_drawdown": "<= 0.2"}, FAILED)
    assert found.tolist() == [1, 3, 5, 2, 0, 4]
    assert total_violation(read_constraints({"max_drawdown": "<= 0.2"}), TABLE)[2] == pytest.approx(
        1.5
    )


def test_the_ruined_are_ordered_by_how_long_they_lived():
    n = 4
    ruined = np.ones(n, dtype=bool)
    lived = np.array([1.0, 9.0, 4.0, 9.0])
    scores = np.array([9.0, 0.0, 5.0, 7.0])
    found = order_sets(scores, np.full(n, np.inf), ruined, lived, np.zeros(n, dtype=bool))
    assert found.tolist() == [1, 3, 2, 0]

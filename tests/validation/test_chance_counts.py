"""Counts of good outcomes are said beside what chance alone gives."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from backtest.validation.interval_estimates import (
    count_better_than_median,
    count_by_chance,
    count_evidence,
)
from backtest.validation.walk import WalkForward

FIGURES = {
    "pbo": {"value": 0.4, "low": 0.1, "high": 0.8},
    "growth_in_sample": 0.5,
    "growth_out_of_sample": 0.1,
    "efficiency": 0.2,
    "efficiency_difference": -0.4,
    "mean_rank": 0.55,
    "deflated_sharpe": 0.4,
}


class Account:
    """The measures of an account, which a verdict reads."""

    def __init__(self):
        self.metrics = {"ruined": 0.0}


def make_walk(ranks, deflated, **figures):
    folds = pd.DataFrame({"rank": ranks, "deflated_sharpe": deflated})
    made = {**FIGURES, **figures}
    return WalkForward(folds, Account(), Account(), None, None, made, {})


def test_chance_alone_by_hand():
    """3 of 4 fair cases or more: (4 + 1) / 16; 1 of 20 or more at 5 %: 1 - 0.95 ** 20."""
    assert count_by_chance(np.array([1, 1, 1, 0]), 0.5)[2:] == (2.0, 0.3125)
    one = count_evidence(np.array([0.95, *[0.5] * 19, np.nan]))
    assert one[:2] == (1, 20)
    assert one[2:] == pytest.approx((1.0, 1.0 - 0.95**20))
    assert count_better_than_median(np.array([0.5, 0.51, np.nan])) == (1, 2, 1.0, 0.75)


@pytest.mark.parametrize(("deflated", "pbo", "words"), [
    (0.4, 0.4, "2 of 5 winners were no better than the median set, where chance alone"),
    (0.99, 0.8, "yet 2 of 5 winners were no better than the median set, where chance"),
    (0.99, 0.4, "3 of 5 winners were better than the median set, where chance alone gives"),
])  # fmt: skip
def test_a_verdict_says_what_chance_would_give(deflated, pbo, words):
    walk = make_walk([0.9, 0.8, 0.7, 0.2, 0.5], [0.1] * 4 + [0.96], deflated_sharpe=deflated)
    walk = replace(walk, figures={**walk.figures, "pbo": {"value": pbo, "low": 0.1, "high": 0.8}})
    assert words in walk.verdict
    assert walk.chance["searches_with_evidence"][:3] == (1, 5, pytest.approx(0.25))

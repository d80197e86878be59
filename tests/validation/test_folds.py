"""Spans of folds equal those found by brute force."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.units import DAY
from backtest.validation.validation import (
    folds,
    list_paths,
    list_splits,
    plan_spans,
    split_groups,
)

MARKET = bt.Market.sample(bars=24 * 100)


@pytest.mark.parametrize(
    ("n", "k", "splits", "paths"), [(6, 2, 15, 5), (10, 2, 45, 9), (10, 8, 45, 36)]
)
def test_the_published_numbers_of_splits_and_paths(n, k, splits, paths):
    assert (len(list_splits(n, k)), len(list_paths(n, k))) == (splits, paths)


@pytest.mark.parametrize("n", range(2, 9))
def test_each_path_has_each_group_once_and_each_group_is_tested_in_as_many_splits(n):
    for k in range(1, n):
        splits, paths = list_splits(n, k), list_paths(n, k)
        phi = k * math.comb(n, k) // n
        counts = [sum(g in split for split in splits) for g in range(n)]
        assert counts == [phi] * n
        assert all(g in splits[path[g]] for path in paths for g in range(n))
        used = {(path[g], g) for path in paths for g in range(n)}
        assert len(used) == phi * n == k * len(splits)


@pytest.mark.parametrize("n", range(2, 9))
def test_boundaries_of_splits_equal_those_found_bar_by_bar(n):
    market = bt.Market.sample(bars=24 * 80 + 5)  # ends inside a day
    edges = split_groups(market, n, "1d").edges
    group_of = np.searchsorted(edges, np.arange(market.n_bars), side="right") - 1
    assert not (edges[:-1] % 24).any()  # cut at days
    for k in range(1, n):
        for embargo in range(6):
            table = folds(market, groups=n, test_groups=k, embargo=embargo)
            starts, ends = (
                np.searchsorted(market.time, pd.DatetimeIndex(table[name]).as_unit("ns").asi8)
                for name in ("start", "end")
            )
            is_test, group = (table[name].to_numpy() for name in ("is_test", "group"))
            for rows in np.arange(len(table)).reshape(-1, n):
                for wanted in (False, True):
                    found = np.zeros(market.n_bars, dtype=bool)
                    for row in rows[is_test[rows] == wanted]:
                        found[starts[row] : ends[row]] = True
                    tested = set(group[rows[is_test[rows]]])
                    assert np.array_equal(found, brute(group_of, tested, embargo, wanted))


def brute(group_of, tested, embargo, is_test):
    """Return which bars are tested, or trained on: not within the embargo after a tested bar."""
    is_tested = np.isin(group_of, list(tested))
    if is_test:
        return is_tested
    late = is_tested.copy()
    for lag in range(1, embargo + 1):
        late[lag:] |= is_tested[:-lag]
    return ~is_tested & ~late


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("start", [0, 7])
def test_walk_spans_equal_those_found_bar_by_bar(anchored, gap, start):
    market = MARKET.slice(start, MARKET.n_bars)
    spans = plan_spans(market, "30d", "9d", anchored, f"{gap}d")
    since = market.time - market.start
    for k, span in enumerate(spans):
        opened = (30 + gap + 9 * k) * DAY
        low = 0 if anchored else opened - gap * DAY - 30 * DAY
        train = np.flatnonzero((since >= low) & (since < opened - gap * DAY))
        last = k == len(spans) - 1
        test = np.flatnonzero((since >= opened) & ((since < opened + 9 * DAY) | last))
        assert (span.train, span.train_stop) == (train[0], train[-1] + 1)
        assert (span.test, span.stop) == (test[0], test[-1] + 1)
    assert spans[-1].stop == market.n_bars


@pytest.mark.parametrize(("given", "match"), [
    ({"train": "200d"}, "train must leave bars to test on, '[0-9]+d' for example"),
    ({"train": "5d", "test": "5d"}, "train span must have 200 bars"),
    ({"train": "30d", "test": "10d", "gap": "10d"}, "gap must be shorter"),
    ({"groups": 6, "test_groups": 6}, "test_groups"),
    ({"groups": 6, "embargo": 300}, "embargo must leave"),
])  # fmt: skip
def test_spans_that_cannot_be_are_refused(given, match):
    with pytest.raises(bt.ParameterError, match=match):
        folds(MARKET, **given)

"""Spans equal those found by brute force, and a split is what fresh accounts in its groups say."""

import dataclasses
import math
from itertools import combinations
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core.units import DAY
from backtest.results.luck import expected_max_sharpe
from backtest.search.cross_validate import choose_winners, count_independent
from backtest.search.group_moments import combine_parts, sum_moments
from backtest.search.validation import (
    estimate_overfitting,
    folds,
    list_paths,
    plan_spans,
    split_groups,
)
from backtest.strategies import VolTarget
from tests.kit import AT_BINANCE, ask_test, check_refused
from tests.validation.worlds import TERMS, Lever, make_market

HOURS = bt.Market.sample(bars=24 * 100)
MARKET = make_market(320)
SMALL = {"groups": 6, "test_groups": 2, "trials": 6}


def test_the_published_numbers_of_splits_and_paths():
    for n, k, splits, paths in ((6, 2, 15, 5), (10, 2, 45, 9), (10, 8, 45, 36)):
        assert math.comb(n, k) == splits
        assert len(list_paths(n, k)) == paths


@pytest.mark.parametrize("n", range(2, 9))
def test_each_path_has_each_group_once_and_each_group_is_tested_in_as_many_splits(n):
    for k in range(1, n):
        splits = list(combinations(range(n), k))
        paths = list_paths(n, k)
        phi = k * math.comb(n, k) // n

        counts = [sum(g in split for split in splits) for g in range(n)]
        assert counts == [phi] * n

        assert all(g in splits[path[g]] for path in paths for g in range(n))
        used = {(path[g], g) for path in paths for g in range(n)}
        assert len(used) == phi * n == k * len(splits)


@pytest.mark.parametrize("n", range(2, 9))
def test_boundaries_of_splits_equal_those_found_bar_by_bar(n):
    market = bt.Market.sample(bars=24 * 80 + 5)  # ends inside a day
    edges = split_groups(market, n, 1, "1d")[0].edges
    group_of = np.searchsorted(edges, np.arange(market.n_bars), side="right") - 1
    assert not (edges[:-1] % 24).any()  # cut at days

    for k in range(1, n):
        for embargo in range(6):
            table = folds(market, groups=n, test_groups=k, embargo=embargo)
            starts = find_bars(market, table["start"])
            ends = find_bars(market, table["end"])
            is_test = table["is_test"].to_numpy()
            group = table["group"].to_numpy()

            for rows in np.arange(len(table)).reshape(-1, n):
                for wanted in (False, True):
                    found = np.zeros(market.n_bars, dtype=bool)
                    for row in rows[is_test[rows] == wanted]:
                        found[starts[row] : ends[row]] = True

                    tested = set(group[rows[is_test[rows]]])
                    assert np.array_equal(found, brute(group_of, tested, embargo, wanted))


def find_bars(market, times):
    """Return the bar that each time opens."""
    return np.searchsorted(market.time, pd.DatetimeIndex(times).as_unit("ns").asi8)


def brute(group_of, tested, embargo, is_test):
    """Return which bars are tested, or trained on: not within the embargo after a tested bar."""
    is_tested = np.isin(group_of, list(tested))
    late = is_tested.copy()
    for lag in range(1, embargo + 1):
        late[lag:] |= is_tested[:-lag]

    return is_tested if is_test else ~late


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("start", [0, 7])
def test_walk_spans_equal_those_found_bar_by_bar(anchored, gap, start):
    market = HOURS.slice(start, HOURS.n_bars)
    spans = plan_spans(market, "30d", "9d", anchored, f"{gap}d")
    since = market.time - market.start
    for k, span in enumerate(spans):
        opened = (30 + gap + 9 * k) * DAY
        low = 0 if anchored else opened - gap * DAY - 30 * DAY
        train = np.flatnonzero((since >= low) & (since < opened - gap * DAY))
        assert span.train == train[0]
        assert span.train_stop == train[-1] + 1

        # The last test has what is left.
        is_last = k == len(spans) - 1
        test = np.flatnonzero((since >= opened) & ((since < opened + 9 * DAY) | is_last))
        assert span.test == test[0]
        assert span.stop == test[-1] + 1

    assert spans[-1].stop == market.n_bars


@pytest.mark.parametrize("anchored", [False, True])
def test_spans_from_a_start_are_those_of_the_market_cut_there(anchored):
    """In bars of the whole market: 7 hours later, each is the span of the part plus 7."""
    part = HOURS.slice(7, HOURS.n_bars)
    for first in (0, 7):
        market = HOURS if first else part
        spans = plan_spans(market, "30d", "9d", anchored, "2d", first=first)

        assert spans[0].train == first

        moved = [tuple(bar + 7 - first for bar in span) for span in spans]
        assert moved[0] == (7, 7 + 720, 7 + 768, 7 + 984)

        cuts = split_groups(market, 6, 2, "1d", first=first)[0]
        assert (cuts.edges + 7 - first).tolist()[:2] == [7, 17 * 24]  # 17 of 100 days, to midnight
        assert cuts.samples.tolist() == [0, 17, 34, 51, 68, 84, 100]

    for how in ({"train": "30d", "test": "9d"}, {"groups": 6, "embargo": 20}):
        cut = folds(part, **how)
        pd.testing.assert_frame_equal(folds(HOURS, start=part.times[0], **how), cut)


@pytest.mark.parametrize(("given", "match"), [
    ({"train": "200d"}, "train must leave bars to test on, '50d' for example"),
    ({"train": "5d", "test": "5d"}, "train span must have 200 bars"),
    ({"train": "30d", "test": "10d", "gap": "10d"}, "gap must be shorter"),
    ({"groups": 6, "test_groups": 6}, "test_groups"),
    ({"groups": 6, "embargo": 300}, "embargo must leave"),
])  # fmt: skip
def test_spans_that_cannot_be_are_refused(given, match):
    check_refused(lambda: folds(HOURS, **given), match, bt.ParameterError)


@pytest.fixture(scope="module")
def found():
    return ask_test("cross_validate", MARKET, Lever, **TERMS, **SMALL, embargo=0)


def run_group(row, group, **changes):
    first, stop = split_groups(MARKET, 6, 2, "1d")[0].span(group)
    policy = Lever(size=float(row["size"]), window=int(row["window"]))
    return bt.run(MARKET.prefix(stop), policy, **{**TERMS, **changes}, start=MARKET.times[first])


def test_the_matrix_has_the_objective_of_a_fresh_account_in_each_group(found):
    for group in (0, 3, 5):
        for row in (0, 4):
            alone = run_group(found.sets.iloc[row], group)
            assert found.matrix.loc[row, group] == alone.metrics["sharpe"]


def test_groups_after_a_start_are_warmed_by_the_bars_before_it():
    """From bar 202 of 1,280: half a day and 269 whole ones, in four groups 68, 68, 67 and 67."""
    begins = 202
    four = {"groups": 4, "test_groups": 2, "trials": 6}
    late = ask_test("cross_validate", MARKET, Lever, **TERMS, **four, start=MARKET.times[begins])

    edges = split_groups(MARKET, 4, 2, "1d", first=begins)[0].edges.tolist()
    assert edges == [begins, begins + 270, begins + 542, begins + 810, 1_280]
    assert late.figures["embargo_bars"] == 11  # 1 % of 1,078, rounded up

    for group in (0, 3):
        row = late.sets.iloc[2]
        policy = Lever(size=float(row["size"]), window=int(row["window"]))
        seen = MARKET.prefix(edges[group + 1])
        start = MARKET.times[edges[group]]
        alone = bt.run(seen, policy, **TERMS, start=start)
        assert late.matrix.loc[2, group] == alone.metrics["sharpe"]


def test_the_score_of_a_split_equals_fresh_runs_group_by_group(found):
    split = found.splits.iloc[7]
    inside = [g for g in range(6) if g not in split["groups"]]

    for name, groups in {"out_of_sample": split["groups"], "in_sample": inside}.items():
        runs = [run_group(split, group) for group in groups]
        returns = np.concatenate([run.returns.to_numpy() for run in runs])
        sharpe = returns.mean() / returns.std(ddof=1) * math.sqrt(365)
        assert split[name] == pytest.approx(sharpe, rel=1e-9)


def test_measures_of_groups_add_up_as_one_series():
    """Sums and maxima by hand: fees 1 + 2 = 3, drawdown max(0.1, 0.3); 0.1 and 0.2 compound."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0.001, 0.01, (60, 2))
    cuts = (returns[:25], returns[25:])

    metrics = [
        {"fees": np.array([1.0, 0.0]), "max_drawdown": np.array([0.1, 0.0]), "ruined": np.zeros(2),
         "turnover": np.array([4.0, 0.0])},
        {"fees": np.array([2.0, 0.0]), "max_drawdown": np.array([0.3, 0.0]), "ruined": np.zeros(2),
         "turnover": np.array([8.0, 0.0])},
    ]  # fmt: skip
    parts = []
    for cut, each in zip(cuts, metrics, strict=True):
        parts.append({**each, **sum_moments(cut, np.zeros(len(cut)), len(cut) / 365)})

    found = combine_parts(parts, 365.0)

    assert found["fees"][0] == 3.0
    assert found["max_drawdown"][0] == 0.3
    assert found["turnover"][0] == pytest.approx((4 * 25 + 8 * 35) / 60)

    growth = np.prod(1.0 + returns, axis=0)
    assert found["total_return"] == pytest.approx(growth - 1.0, rel=1e-12)
    assert found["cagr"] == pytest.approx(growth ** (365 / 60) - 1.0, rel=1e-9)

    scale = math.sqrt(365)
    assert found["volatility"] == pytest.approx(returns.std(axis=0, ddof=1) * scale, rel=1e-9)
    sharpe = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * scale
    assert found["sharpe"] == pytest.approx(sharpe, rel=1e-9)
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=0))
    assert found["sortino"] == pytest.approx(returns.mean(axis=0) / downside * scale, rel=1e-9)
    assert found["calmar"][0] == pytest.approx(found["cagr"][0] / 0.3, rel=1e-12)
    assert np.isnan(found["calmar"][1])  # no fall to compare with


def test_a_path_is_stitched_from_the_winners_of_its_groups(found):
    """Its drawdown is the deepest in a group, or across groups by sampled returns."""
    winners = [(found.splits.iloc[split], group) for group, split in enumerate(list_paths(6, 2)[0])]
    runs = [run_group(row, group) for row, group in winners]
    curve = np.cumprod([1.0, *(1.0 + np.concatenate([run.returns for run in runs]))])

    assert found.paths["total_return"].iloc[0] == pytest.approx(curve[-1] - 1.0, rel=1e-9)

    across = np.max(1.0 - curve / np.maximum.accumulate(curve))
    fall = max(across, *(run.metrics["max_drawdown"] for run in runs))
    assert found.paths["max_drawdown"].iloc[0] == pytest.approx(fall, rel=1e-12)


def judge_panel(panel: np.ndarray, n: int, k: int):
    sums = np.stack([part.sum(axis=0) for part in np.array_split(panel, n)])
    outside = np.stack([sums[list(tested)].sum(axis=0) for tested in combinations(range(n), k)])
    return choose_winners(sums.sum(axis=0) - outside, outside)


@pytest.mark.parametrize(("n", "k"), [(10, 5), (10, 2), (6, 2)])
def test_overfitting_is_certain_if_columns_are_demeaned_and_0_if_one_is_always_better(n, k):
    panel = np.random.default_rng(1).normal(0.0, 0.01, (600, 20))
    assert estimate_overfitting(judge_panel(panel - panel.mean(axis=0), n, k)["rank"], n) == 1.0

    common = np.repeat(panel[:, :1], 20, axis=1)
    common[:, 7] += 0.001
    better = judge_panel(common, n, k)
    assert estimate_overfitting(better["rank"], n) == 0.0
    assert set(better["row"]) == {7}


class Idle(bt.Policy):
    level: Annotated[float, bt.Range(0.0, 1.0)] = 1.0

    def leverage(self, bar, account):
        return math.nan * self.level


@pytest.mark.parametrize(("policy", "space", "reason"), [
    (Idle, {"level": (0.1, 0.9)},
     "6 of 6 splits have no set with a finite sharpe; 16 of 16 accounts, of a set in a group each, "
     "filled no order: run one of them to see why"),
    (VolTarget, {"half_life": (800.0, 900.0)},
     "3 of 6 splits have no set with a finite sharpe; 12 of 16 accounts, of a set in a group each, "
     "never decided, since their columns were not known before its end: too long a warm-up; give "
     "more bars, or shorter windows"),
])  # fmt: skip
def test_a_split_without_a_best_set_says_why(policy, space, reason):
    """Four groups of 240 hours: half-lives of over 720 are known in the last alone."""
    market = bt.Market.sample(bars=24 * 40)
    given = {"groups": 4, "test_groups": 2, "trials": 4, "space": space, "compile": False}
    result = bt.Backtest(market, **AT_BINANCE).cross_validate(policy, **given)
    assert result.figures["warnings"] == [reason]


def test_a_score_of_minus_infinity_out_of_sample_is_explained(found):
    assert "-inf" not in found._tabulate_splits().note
    splits = found.splits.copy()
    splits.loc[[2, 5], "out_of_sample"] = -math.inf
    note = dataclasses.replace(found, splits=splits)._tabulate_splits().note
    assert note == (
        "-inf out of sample (2 splits): in the test groups the chosen set was ruined, or has no "
        f"finite {found.objective}, as an account that never traded."
    )


@pytest.mark.parametrize(("n", "k", "spread"), [(10, 5, 0.17), (10, 2, 0.23)])
def test_on_noise_half_of_the_splits_are_overfit_and_intervals_hold_it(n, k, spread):
    """T = 1000, 50 sets: mean 1/2, standard deviation 0.17 with ten blocks in halves."""
    rng = np.random.default_rng(2)
    panels = rng.normal(size=(60, 1000, 50))
    worth = count_independent(n, k)
    found = [estimate_overfitting(judge_panel(panel, n, k)["rank"], worth) for panel in panels]

    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    assert np.std(found) == pytest.approx(spread, abs=0.035)
    assert 0.86 <= np.mean([each.low <= 0.5 <= each.high for each in found]) <= 1.0


def test_the_best_of_sets_without_skill_is_lucky_in_sample_and_zero_out_of_sample():
    """E[max of 45 normals] = 2.208; the approximation of the deflated ratio gives 2.236."""
    rng = np.random.default_rng(3)
    inside = []
    outside = []
    for _ in range(400):
        panel = rng.normal(0.0, 0.01, (2, 365, 45))  # two years: one to choose, one to test
        sharpe = panel.mean(axis=1) / panel.std(axis=1, ddof=1) * math.sqrt(365)
        winner = choose_winners([sharpe[0]], [sharpe[1]])
        inside.append(winner["in_sample"][0])
        outside.append(winner["out_of_sample"][0])

    # sd of the maximum 0.47, of one normal 1: errors 0.024 and 0.05 over 400 panels
    assert np.mean(inside) == pytest.approx(2.208, abs=0.08)
    assert np.mean(outside) == pytest.approx(0.0, abs=0.16)
    assert expected_max_sharpe(45, 1.0) == pytest.approx(2.236, abs=5e-4)


def test_an_embargo_leaves_out_the_first_days_of_groups_after_a_test():
    """The usual one is 1 % of all bars, here of 1,280: 13, in the fourth day of 4 bars each."""
    usual = ask_test("cross_validate", MARKET, Lever, **TERMS, **SMALL)
    assert usual.figures["embargo_bars"] == 13
    assert usual.figures["embargo_samples"] == 4

    split = usual.splits.iloc[0]  # tested on groups 0 and 1: group 2 is embargoed
    first = run_group(split, 2).returns.to_numpy()[4:]
    others = [run_group(split, group).returns.to_numpy() for group in (3, 4, 5)]
    returns = np.concatenate([first, *others])
    sharpe = returns.mean() / returns.std(ddof=1) * math.sqrt(365)
    assert split["in_sample"] == pytest.approx(sharpe, rel=1e-9)


@pytest.mark.parametrize(("given", "match"), [
    ({"groups": 30}, "200 bars"),
    ({"resume": True}, "resume needs the store"),
    ({"store": 5}, "store must be"),
    ({"embargo": 100}, "embargo must leave"),
    ({"objective": ["sharpe", "cagr"]}, "needs one objective, got 2"),
    ({"objective": lambda row: -row["peak_leverage"]}, "must add up over groups, .* a function"),
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused(given, match):
    with pytest.raises(bt.ParameterError, match=match):
        ask_test("cross_validate", MARKET, Lever, **TERMS, **{**SMALL, **given})

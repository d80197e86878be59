"""Weight frames come from returns up to each bar, are made anew in time, and do not look ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import PolicyError
from backtest.signals import describe_signal_check, weights
from backtest.strategies import Constant
from tests.kit import ask_test, check_refused, free_venue, market_of

A, B, C = (bt.Market.sample(bars=24 * 30, seed=seed) for seed in range(3))
# ruff: noqa: N803 - X is what fit calls its argument
MARKETS = bt.Markets({"A": A, "B": B, "C": C.slice(100, 500)})
DAYS = A.resample("1d").bars()
SESSIONS = bt.Market.from_frames(DAYS[DAYS.index.day_of_week < 5], sessions=True)


def ewma(names: list[str], t: int, half_life: float) -> np.ndarray:
    """Return the variances at bar t of the panel, each of all returns of its instrument."""
    variances = []
    for name in names:
        close = MARKETS.panel().close[MARKETS.names.index(name)][: t + 1]
        squares = np.diff(np.log(close[~np.isnan(close)]))[::-1] ** 2
        weights = 0.5 ** (np.arange(len(squares)) / half_life)
        variances.append(float(weights @ squares / weights.sum()))
    return np.array(variances)


def weigh(variances: np.ndarray) -> np.ndarray:
    """Return weights in proportion to 1 / sigma."""
    inverse = 1.0 / np.sqrt(variances)
    return inverse / np.sum(inverse)


def test_equal_weights_are_those_of_a_run_without_a_signal():
    frame = bt.allocate.equal(MARKETS)
    two = [0.5, 0.5, 0.0]
    three = [1 / 3, 1 / 3, 1 / 3]

    # C has the bars 100 to 499, and is not traded in the last of them.
    rows = frame.iloc[[0, 99, 100, 498, 499, 719]].to_numpy().tolist()
    assert rows == [two, two, three, three, two, two]

    np.testing.assert_array_equal(MARKETS.index(frame).close, MARKETS.index().close)


def test_a_run_says_how_its_weights_were_made():
    sample = bt.Market.sample(bars=240)
    other = bt.Market.sample(bars=240, seed=1)
    markets = bt.Markets({"A": sample, "B": other})
    weights_by_text = {
        "equal": bt.allocate.equal(markets),
        "inverse volatility": bt.allocate.inverse_volatility(markets),
        "risk budget": bt.allocate.risk_budget(markets),
    }
    for text, frame in weights_by_text.items():
        result = bt.run(
            markets,
            Constant(1.0),
            venue=free_venue(),
            account=bt.Account(),
            signal=frame,
            compile=False,
        )
        assert result.manifest["signal"].startswith(f"{text} sha256:")


def test_inverse_volatility_of_two_by_hand():
    """Moves of 2 % and of 6 % at each bar: volatilities of 1 to 3, weights of 3/4 and 1/4."""
    moves = np.where(np.arange(20) % 2 == 0, 1.0, -1.0)
    a = market_of(np.exp(0.02 * moves / 2))
    b = market_of(np.exp(0.06 * moves / 2))

    frame = bt.allocate.inverse_volatility(bt.Markets({"A": a, "B": b}), half_life=3.0)

    np.testing.assert_allclose(frame.iloc[-1], [0.75, 0.25], rtol=1e-12)


def test_weights_are_those_of_the_variances_at_the_last_fit():
    frame = bt.allocate.inverse_volatility(MARKETS, half_life=48.0, every=24)

    # Bar 71 is that from 23:00 to midnight. Two instruments have returns from bar 1 on.
    two = weigh(ewma(["A", "B"], 71, 48.0))
    np.testing.assert_allclose(frame.iloc[71, :2], two, rtol=1e-9)
    np.testing.assert_array_equal(frame.iloc[94].to_numpy(), frame.iloc[71].to_numpy())

    # C is listed at bar 100 and has 48 returns at bar 148, at which weights are made anew.
    assert (frame["C"].to_numpy()[:148] == 0.0).all()
    three = weigh(ewma(["A", "B", "C"], 148, 48.0))
    np.testing.assert_allclose(frame.iloc[148], three, rtol=1e-9)

    # In the last bar of C, 499, its weight is gone, and the others are made anew.
    assert frame["C"].to_numpy()[498] != 0.0
    assert (frame["C"].to_numpy()[499:] == 0.0).all()

    np.testing.assert_allclose(frame.sum(axis=1).to_numpy()[48:], 1.0, rtol=1e-12)
    assert (frame.to_numpy()[:48] == 0.0).all()


def test_the_ratio_of_two_weights_is_the_same_whoever_else_is_listed():
    """Another that is listed late, or delisted early, moves no ratio."""
    alone = bt.allocate.inverse_volatility(bt.Markets({"A": A, "B": B}), half_life=48.0, every=1)
    frame = bt.allocate.inverse_volatility(MARKETS, half_life=48.0, every=1)

    for first, stop in ((48, 148), (148, 499), (499, 720)):
        both = frame.iloc[first:stop]
        pair = alone.iloc[first:stop]
        np.testing.assert_allclose(both["A"] / both["B"], pair["A"] / pair["B"], rtol=1e-12)


@pytest.mark.parametrize("n", [101, 501])
def test_weights_of_a_part_are_the_part_of_the_weights(n):
    whole = bt.allocate.inverse_volatility(MARKETS, half_life=48.0)
    part = bt.allocate.inverse_volatility(MARKETS.prefix(n), half_life=48.0)
    np.testing.assert_array_equal(part, whole.iloc[:n][part.columns])


@pytest.mark.parametrize(("market", "half_life", "every", "known"), [
    (A, 24.0, 24, 24), (A, 2.5, 1, 3), (A, 1.0, 1, 2), (SESSIONS, 2.0, 5, 2)
])  # fmt: skip
def test_an_instrument_takes_part_after_a_half_life(market, half_life, every, known):
    markets = bt.Markets({"A": market})

    frame = bt.allocate.inverse_volatility(markets, half_life=half_life, every=every)

    assert frame["A"].tolist() == [0.0] * known + [1.0] * (len(market) - known)
    assert "signal checked at " in describe_signal_check(frame)


class Momentum:
    def fit(self, X: pd.DataFrame) -> Momentum:
        self.weights_ = np.sign(X.mean()) / X.shape[1]
        return self


def test_a_fitted_estimator_sees_the_last_returns_only():
    frame = bt.allocate.fitted(MARKETS, Momentum(), window=48)

    moves = pd.DataFrame({"A": A.close, "B": B.close}).pct_change()
    expected = np.sign(moves.iloc[72 - 48 : 72].mean()) / 2
    assert frame.iloc[71, :2].tolist() == expected.tolist()

    assert (frame["C"].to_numpy()[:148] == 0.0).all()
    assert abs(frame["C"].iloc[148]) == 1 / 3
    assert "signal checked at" in describe_signal_check(frame)


def test_an_estimator_receives_times_and_names_and_keeps_nothing():
    class Curious:
        def __init__(self) -> None:
            self.fits = 0

        def fit(self, X: pd.DataFrame) -> Curious:
            assert X.columns.tolist() in (["A", "B"], ["A", "B", "C"])
            assert X.index.tz is not None
            assert len(X) == 100
            assert not X.isna().any(axis=None)
            X.iloc[:] = np.nan  # its own copy
            self.fits += 1
            self.weights_ = [self.fits, *[0.0] * (X.shape[1] - 1)]
            return self

    estimator = Curious()
    seen = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    frame = bt.allocate.fitted(MARKETS, estimator, window=100, every=48, progress=note)

    assert frame["A"].iloc[-1] == 1.0
    assert estimator.fits == 0
    assert seen == [(k + 1, len(seen)) for k in range(len(seen))]


@pytest.mark.slow
def test_skfolios_estimators_fit():
    optimization = pytest.importorskip("skfolio.optimization", reason="skfolio is not installed")
    estimator = optimization.InverseVolatility()

    frame = bt.allocate.fitted(MARKETS, estimator, window=96, every=24 * 7)

    moves = pd.DataFrame({"A": A.close, "B": B.close}).pct_change()
    inverse = 1.0 / moves.iloc[97 - 96 : 97].std()
    np.testing.assert_allclose(frame.iloc[96, :2], inverse / inverse.sum(), rtol=1e-9)
    np.testing.assert_allclose(frame.iloc[-1].sum(), 1.0)


class Forgetful:
    rng = np.random.default_rng(0)

    def fit(self, X: pd.DataFrame) -> Forgetful:
        self.weights_ = self.rng.dirichlet(np.ones(X.shape[1]))
        return self

    def __deepcopy__(self, memo: object) -> Forgetful:
        return self


class Bad:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def fit(self, X: pd.DataFrame) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            self.weights_ = self.answer
        return self


FIT = bt.allocate.fitted
BAD = {
    "one market": (lambda: bt.allocate.inverse_volatility(A), "must be a Markets, got Market"),
    "random": (lambda: FIT(MARKETS, Forgetful(), 48), "not repeatable"),
    "no fit": (lambda: FIT(MARKETS, "equal", 48), "must be an object with fit, got 'equal'"),
    "no weights": (lambda: FIT(MARKETS, Bad(None), 48), "raised AttributeError"),
    "nan weights": (lambda: FIT(MARKETS, Bad([np.nan, 1.0]), 48), "a finite weight for each of 2"),
    "nan half-life": (lambda: bt.allocate.inverse_volatility(MARKETS, half_life=np.nan),
        "half_life"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_allocations_are_refused(case):
    check_refused(*BAD[case])


@pytest.mark.peeks
def test_planted_peeks_into_the_returns_are_found(monkeypatch):
    honest = weights.find_returns

    def peek(markets: bt.Markets) -> np.ndarray:
        returns = honest(markets)
        return np.concatenate([returns[1:], returns[-1:]])

    monkeypatch.setattr(weights, "find_returns", peek)

    with pytest.raises(PolicyError, match="looks ahead"):
        bt.allocate.inverse_volatility(MARKETS, half_life=48.0, every=1)


def two_moves(rho: float, s1: float, s2: float) -> bt.Markets:
    """Return two markets whose returns have exact deviations and correlation over four bars."""
    one = np.tile([1.0, 1.0, -1.0, -1.0], 30)
    other = np.tile([1.0, -1.0, 1.0, -1.0], 30)
    mixed = rho * one + np.sqrt(1.0 - rho * rho) * other
    a = market_of(np.exp(np.cumsum(s1 * one)))
    b = market_of(np.exp(np.cumsum(s2 * mixed)))
    return bt.Markets({"A": a, "B": b})


@pytest.mark.parametrize(("rho", "b"), [(0.0, 0.5), (0.4, 0.7), (-0.6, 0.2), (0.9, 0.05)])
def test_risk_budgets_of_two_have_a_closed_form(rho, b):
    """The first weight is the root that leaves the first a share b of the variance."""
    s1 = 0.01
    s2 = 0.03
    pushed = (b - 0.5) * rho
    root = np.sqrt((b - 0.5) ** 2 * rho**2 + b * (1.0 - b))
    above = pushed * s1 * s2 - b * s2**2 + s1 * s2 * root
    wanted = above / ((1.0 - b) * s1**2 - b * s2**2 + 2.0 * pushed * s1 * s2)

    covariance = np.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]])
    found = weights.spend_budgets(covariance, np.array([b, 1.0 - b]))

    assert found[0] == pytest.approx(wanted, rel=1e-9)


def covariance_at(returns, bar):
    """Return the covariances of pandas at a bar, of products about zero."""
    known = np.where(np.isfinite(returns).all(axis=1, keepdims=True), returns, np.nan)
    products = (known[:, :, None] * known[:, None, :]).reshape(len(returns), -1)
    n = returns.shape[1]
    means = pd.DataFrame(products).ewm(halflife=20.0).mean().to_numpy()
    return means[bar].reshape(n, n)


def test_the_frame_spends_the_budgets_of_the_weighted_covariance():
    budgets = {"A": 0.5, "B": 0.3, "C": 0.2}
    frame = bt.allocate.risk_budget(MARKETS, budgets, half_life=20, every=1)
    returns = np.diff(np.log(MARKETS.panel().close), prepend=np.nan).T
    assert frame.iloc[:20].to_numpy().sum() == 0.0

    held = frame.iloc[450].to_numpy()
    shares = shares_of(held, covariance_at(returns, 450))
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=1e-9)

    # C is gone: .5 and .3 of what is left
    pair = frame.iloc[700].to_numpy()[:2]
    shares = shares_of(pair, covariance_at(returns[:, :2], 700))
    np.testing.assert_allclose(shares, [0.625, 0.375], atol=1e-9)


def shares_of(held, covariance):
    """Return each weight's share of the variance."""
    return held * (covariance @ held) / (held @ covariance @ held)


def test_contributions_to_the_variance_are_the_budgets():
    rng = np.random.default_rng(5)
    for n in (2, 5, 12):
        loads = rng.normal(size=(n, n + 2))
        covariance = loads @ loads.T * 10.0 ** rng.uniform(-6, 0)
        budgets = rng.dirichlet(np.full(n, 0.5)) + 1e-4
        budgets /= budgets.sum()

        found = weights.spend_budgets(covariance, budgets)
        np.testing.assert_allclose(shares_of(found, covariance), budgets, atol=1e-9)

        order = rng.permutation(n)
        again = weights.spend_budgets(covariance[np.ix_(order, order)], budgets[order])
        np.testing.assert_allclose(again, found[order], rtol=1e-9)


def test_a_short_has_the_risk_of_its_own_returns():
    markets = bt.Markets({"A": A, "B": B})
    long = bt.allocate.risk_budget(markets, {"A": 0.5, "B": 0.5})
    hedged = bt.allocate.risk_budget(markets, directions={"A": 1, "B": -1})

    assert np.abs(hedged.iloc[-1]).sum() == pytest.approx(1.0)
    assert hedged["B"].iloc[-1] < 0.0
    assert long["B"].iloc[-1] > 0.0


def test_budgets_that_cannot_be_spent_are_refused():
    markets = bt.Markets({"A": A, "B": B})
    check_refused(lambda: bt.allocate.risk_budget(markets, {"A": 1.0}), "lacks B|needs B")
    check_refused(lambda: bt.allocate.risk_budget(markets, {"A": 0.0, "B": 1.0}), "budgets of A")

    perfect = two_moves(-1.0, 0.01, 0.01)
    check_refused(lambda: bt.allocate.risk_budget(perfect, half_life=4.0), "must have risk")


LATER = bt.Markets({"A": A.prefix(300), "B": B.prefix(300), "C": C.slice(50, 300)})
TERMS = {"venue": free_venue(), "account": bt.Account()}


def test_budgets_vary_in_sets_as_in_runs():
    rule = bt.allocate.RiskBudget({"A": 0.5, "B": 0.3, "C": 0.2}, half_life=48.0)
    wanted = {"signal.budgets.B": [0.1, 0.3, 0.9], "signal.half_life": [24.0, 48.0]}
    test = bt.Backtest(LATER, signal=rule, **TERMS)

    swept = test.sweep(Constant(leverage=2.0), wanted)

    for _, row in swept.table.iterrows():
        budgets = {"A": 0.5, "B": row["signal.budgets.B"], "C": 0.2}
        alone = bt.allocate.RiskBudget(budgets, half_life=row["signal.half_life"])
        result = bt.run(LATER, Constant(leverage=2.0), signal=alone, **TERMS)
        assert row["total_return"] == pytest.approx(result.metrics["total_return"], rel=1e-9)
        assert row["max_drawdown"] == pytest.approx(result.metrics["max_drawdown"], rel=1e-9)

    frame = bt.allocate.risk_budget(LATER, {"A": 0.5, "B": 0.3, "C": 0.2}, half_life=48.0)
    assert rule.weigh(LATER).equals(frame)


def test_budgets_are_by_name_whatever_the_order_of_instruments():
    budgets = {"A": 0.5, "B": 0.3, "C": 0.2}
    other = bt.Markets({name: LATER[name] for name in "CAB"})

    one = bt.allocate.RiskBudget(budgets).weigh(LATER)
    two = bt.allocate.RiskBudget(budgets).weigh(other)
    np.testing.assert_allclose(two[[*"ABC"]], one, rtol=1e-9, atol=1e-12)

    sets = {"signal.budgets.A": [0.2, 0.8]}
    turned = {name: budgets[name] for name in "BCA"}
    totals = []
    for markets, given in ((LATER, budgets), (other, turned)):
        test = bt.Backtest(markets, signal=bt.allocate.RiskBudget(given), **TERMS)
        totals.append(test.sweep(Constant(), sets).table["total_return"])
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-9)


@pytest.mark.slow
def test_searches_choose_budgets():
    rule = bt.allocate.RiskBudget({"A": 0.5, "B": 0.3, "C": 0.2})
    terms = {"signal": rule, "trials": 4, "sampler": "sobol", **TERMS}
    space = {"signal.budgets.A": (0.1, 0.9)}

    study = ask_test("tune", LATER, Constant(), space=space, robust=False, **terms)
    chosen = study.best_values["signal.budgets.A"]
    assert study.best_signal == bt.allocate.RiskBudget({"A": chosen, "B": 0.3, "C": 0.2})

    frontier = ask_test("frontier", LATER, Constant(), space=space, **terms)
    assert "signal.budgets.A" in frontier.points

    test = bt.Backtest(LATER, signal=rule, **TERMS)
    steps = test.sensitivity(Constant(), parameters=True)
    assert {f"signal.budgets.{name}" for name in "ABC"} < {*steps.verdicts.index}


@pytest.mark.parametrize(("budgets", "sets", "words"), [
    ({"A": 0.5, "B": 0.3, "C": 0.2}, {"signal.budgets.D": [1.0]}, "did you mean 'signal.budgets."),
    ({"A": 0.5, "B": 0.3, "C": 0.2}, {"signal.budgets.A": [0.0]}, "budgets.A must be 1e-06 to"),
    ({"A": 0.5, "B": 0.3}, {"signal.budgets.A": [1.0]}, "budgets needs C"),
    ({"A": 1.0, "B": 1.0, "D": 1.0}, {"signal.every": [1]}, "budgets has no instrument 'D'"),
    (0.5, {}, "RiskBudget.budgets must be numbers by name, each 1e-06 to 1e"),
    ({"A": 0.0}, {}, "RiskBudget.budgets.A must be 1e-06 to"),
])  # fmt: skip
def test_budgets_of_a_rule_that_cannot_be_are_refused(budgets, sets, words):
    def sweep():
        rule = bt.allocate.RiskBudget(budgets)
        return bt.Backtest(LATER, signal=rule, **TERMS).sweep(Constant(), sets)

    check_refused(sweep, words)


def test_a_risk_budget_of_one_market_is_refused():
    rule = bt.allocate.RiskBudget({"A": 1.0})
    check_refused(lambda: bt.run(A, Constant(), signal=rule, **TERMS), "for several instruments")

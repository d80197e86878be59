"""A verdict counts what was tried, says what chance gives, what broke, and what stands beside."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.measures.luck import probability_of_skill
from backtest.tune import deflate_alone
from backtest.validation.validation import count_by_chance
from tests.kit import bars_market
from tests.validation.worlds import ACCOUNT, PLAIN, VENUE, Lever, make_market

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # test spans under 200 bars
MARKET = make_market(110)  # 440 bars of 6 h
GIVEN = {"trials": 4, "robust": False, "sampler": "sobol", "train": "50d", "test": "20d"}
FALLEN = 0.3


@pytest.fixture(scope="module")
def walk():
    bars = MARKET.bars()
    bars.loc[bars.index[300:], ["open", "high", "low", "close"]] *= 0.5
    terms = {**PLAIN, "account": bt.Account(capital=10_000.0, max_leverage=1.0)}
    keep = {"max_drawdown": f"<= {FALLEN}"}
    return bt.walk_forward(bt.Market.from_frames(bars), Lever, **terms, **GIVEN, constraints=keep)


def make_walk(walk, *, deflated=0.4, pbo=0.4, **figures):
    """Return the same walk with 3 of 5 winners over the median, 1 of 5 searches with evidence."""
    folds = pd.DataFrame({"rank": [0.9, 0.8, 0.7, 0.2, 0.5], "trials": [4] * 5,
                          "deflated_sharpe": [0.1] * 4 + [0.96]})  # fmt: skip
    found = {"pbo": {"value": pbo, "low": 0.1, "high": 0.8}, "deflated_sharpe": deflated}
    return replace(walk, folds=folds, figures={**walk.figures, "broken": {}, **found, **figures})


def test_chance_alone_by_hand():
    """3 of 4 fair cases or more: (4 + 1) / 16; 1 of 20 or more at 5 %: 1 - 0.95 ** 20."""
    assert count_by_chance(np.array([1, 1, 1, 0]), 0.5) == (3, 4, 2.0, 0.3125)
    one = count_by_chance(np.array([1] + [0] * 19), 0.05)
    assert one == pytest.approx((1, 20, 1.0, 1.0 - 0.95**20))


@pytest.mark.parametrize(("deflated", "pbo", "words"), [
    (0.4, 0.4, "2 of 5 winners were no better than the median set, where chance alone"),
    (0.99, 0.8, "yet 2 of 5 winners were no better than the median set, where chance"),
    (0.99, 0.4, "3 of 5 winners were better than the median set, where chance alone gives"),
    (0.4, 0.56, "the choice is no better than chance: the overfitting probability is 0.56"),
    (0.99, 0.56, "the choice is no better than chance: the overfitting probability is 0.56"),
])  # fmt: skip
def test_a_verdict_says_what_chance_would_give(walk, deflated, pbo, words):
    made = make_walk(walk, deflated=deflated, pbo=pbo)
    assert words in made.verdict
    assert ("than chance:" in made.verdict) == (pbo > 0.5)
    assert made.chance[:3] == (3, 5, 2.5)


def test_the_deflated_ratio_of_a_walk_counts_the_sets_of_all_folds(walk):
    """One trial deflates nothing: the probability of skill was called the deflated ratio."""
    quiet = bt.walk_forward(MARKET, Lever, **PLAIN, **GIVEN)
    returns = quiet.result.returns.to_numpy()
    tried = quiet.figures["effective_trials"]
    assert 1.0 < tried <= quiet.folds["trials"].sum() == 12
    assert quiet.deflated_sharpe == pytest.approx(deflate_alone(returns, tried)[0], rel=1e-12)
    assert quiet.deflated_sharpe < probability_of_skill(returns)
    assert f"after {12} sets in 3 folds" in quiet.verdict
    alone = bt.walk_forward(
        MARKET, Lever, **PLAIN, **GIVEN, space={"size": [1.5]}, fix={"window": 5}
    )
    assert alone.figures["effective_trials"] == 1.0
    returns = alone.result.returns.to_numpy()
    assert alone.deflated_sharpe == pytest.approx(probability_of_skill(returns), rel=1e-12)


def test_a_constraint_that_the_account_broke_stands_in_the_verdict(walk, tmp_path):
    """30 % were asked, more came, and the page said so nowhere."""
    fall = walk.result.metrics["max_drawdown"]
    assert fall > FALLEN
    assert walk.figures["broken"] == {"max_drawdown <= 0.3": fall}
    assert f"max_drawdown <= 0.3 (it came to {fall:.4g})" in walk.verdict
    assert walk.verdict in bt.WalkForward.load(walk.save(tmp_path)).verdict
    assert "broke" not in make_walk(walk).verdict


def test_the_market_and_constant_leverage_at_equal_risk_are_rows_of_the_table(walk):
    quiet = bt.walk_forward(MARKET, Lever, **PLAIN, **GIVEN)
    held = quiet.figures["beside"]["constant leverage at equal risk"]
    assert held["volatility"] == pytest.approx(quiet.result.metrics["volatility"], rel=1e-3)
    assert held["fees"] > 0.0
    market = quiet.figures["beside"]["the market"]
    close = MARKET.close[-len(quiet.result.close) :]
    assert market["total_return"] == pytest.approx(close[-1] / close[0] - 1.0, rel=1e-9)
    text = quiet.summary()
    for name in ("re-tuned", "tuned once", "constant leverage at equal risk", "the market"):
        assert f"\n{name} " in text
    # an account that may hold 1x cannot take more risk than the market at 1x
    assert [*walk.figures["beside"]] == ["the market", "constant leverage at equal risk"]


DAYS = 365 * 4
PLANTED = {"trials": 16, "sampler": "sobol", "robust": False}


class Lucky(bt.Policy):
    phase: Annotated[int, bt.Range(0, 999)] = 0

    def observe(self, market):
        day = market.time // 86_400_000_000_000
        value = np.sin((day + 1.0) * (self.phase + 1.0) * 12.9898) * 43758.5453
        return {"bet": (value - np.floor(value) > 0.5).astype(np.float64)}

    def leverage(self, bar, account):
        return bar.bet


class Good(bt.Policy):
    threshold: Annotated[float, bt.Range(-3.0, 3.0)] = 0.0

    def observe(self, market):
        return {"hint": market.columns["hint"]}

    def leverage(self, bar, account):
        return 1.0 if bar.hint > self.threshold else 0.0


def plant() -> bt.Market:
    """Return a random walk of days whose column hint has a correlation of 0.33 with the next."""
    rng = np.random.default_rng(5)
    steps = rng.normal(0.0, 0.02, DAYS)
    hint = np.append(steps[1:], 0.0) / 0.02 * 0.35 + rng.normal(0.0, 1.0, DAYS)
    close = 100.0 * np.exp(np.cumsum(steps))
    opened = np.concatenate(([100.0], close[:-1]))
    return bars_market(opened, close, "D", terms={"instrument": "PLANTED"}, hint=hint)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "word"), [(Lucky, "no evidence"), (Good, "evidence that it lasts")]
)
def test_the_verdict_of_a_walk_tells_luck_from_skill(policy, word):
    terms = {"venue": VENUE.override(fees={"taker": 1e-4, "maker": 1e-4}), "account": ACCOUNT}
    walk = bt.walk_forward(plant(), policy, **terms, train="365d", test="120d", compile=False,
                           **PLANTED)  # fmt: skip
    print(walk)  # noqa: T201 - the page of validations quotes it
    assert walk.verdict.startswith(word)

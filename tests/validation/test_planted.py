"""From the verdicts it is plain which of a planted lucky policy and a planted good one to trust."""

from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.validation.worlds import ACCOUNT, VENUE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
DAYS = 365 * 4
GIVEN = {"trials": 16, "sampler": "sobol", "robust": False}


class Lucky(bt.Policy):
    """Bet on days picked by a pseudo-random function of the parameter."""

    phase: Annotated[int, bt.Range(0, 999)] = 0

    def observe(self, market):
        day = market.time // 86_400_000_000_000
        value = np.sin((day + 1.0) * (self.phase + 1.0) * 12.9898) * 43758.5453
        return {"bet": (value - np.floor(value) > 0.5).astype(np.float64)}

    def leverage(self, bar, account):
        return bar.bet


class Good(bt.Policy):
    """Bet when a column that foretells the next day is over a threshold."""

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
    frame = pd.DataFrame(
        {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close),
         "close": close, "hint": hint},
        index=pd.date_range("2020-01-01", periods=DAYS, freq="D", tz="UTC"),
    )  # fmt: skip
    return bt.Market.from_frames(frame, instrument="PLANTED")


@pytest.mark.parametrize(
    ("policy", "word"), [(Lucky, "no evidence"), (Good, "evidence that it lasts")]
)
def test_the_verdict_of_a_walk_tells_luck_from_skill(policy, word):
    terms = {"venue": VENUE.override(fees={"taker": 1e-4, "maker": 1e-4}), "account": ACCOUNT}
    walk = bt.walk_forward(plant(), policy, **terms, train="365d", test="120d", compile=False,
                           **GIVEN)  # fmt: skip
    print(walk)  # noqa: T201 - the page of validations quotes it
    assert walk.verdict.startswith(word)

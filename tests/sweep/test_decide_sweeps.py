"""Sweeps, searches and validations of policies that decide on longer bars."""

from dataclasses import replace
from typing import Annotated, Any

import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import VolTarget
from tests.kit import compare_policies
from tests.sweep.sweeps import are_equal

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account()


class Reading(bt.Policy):
    """Read a column, the bar, and what the account counts."""

    target: Annotated[float, bt.Range(0, 50, "turns")] = 3.0
    window: Annotated[int, bt.Range(2, 50, "bars")] = 5

    def observe(self, market):
        """Return a moving average."""
        return {"mean": pd.Series(market.close).rolling(self.window).mean().to_numpy()}

    def leverage(self, bar, account):
        """Return more after time without an event, and less after losses."""
        level = self.target * (1.0 - account.drawdown) + 0.001 * account.days
        level += 0.1 * min(account.bars_since_stop, 5.0)
        level += 0.1 * min(account.bars_since_liquidation, 9.0)
        return level if bar.high > bar.mean else 0.5 * level


@pytest.fixture(scope="module")
def market() -> bt.Market:
    """Return bars that begin and end inside a longer bar."""
    return bt.Market.sample(bars=1500).slice(2, 1499)


def check_rows(market: Any, account: bt.Account, **terms: Any) -> pd.DataFrame:
    """Require rows that equal runs in plain Python."""
    grid = {"target": [1.0, 5.0, 49.0], "window": [3, 8]}
    given = {"venue": VENUE, "account": account, "decide": "4h", **terms}
    table = bt.sweep(market, Reading, grid, **given).table
    for _, row in table.iterrows():
        policy = Reading(float(row["target"]), int(row["window"]))
        metrics = bt.run(market, policy, compile=False, **given).metrics
        for name in row.index.intersection(list(metrics)):
            assert are_equal(name, row[name], metrics[name], account.capital), name
    return table


@pytest.mark.parametrize("account", [
    ACCOUNT, replace(ACCOUNT, stop_loss=0.03), replace(ACCOUNT, fill="next_close"),
    replace(ACCOUNT, reserve=500.0, margin_call=0.8, top_up_to=0.5),
    replace(ACCOUNT, max_holding="2d"),
])  # fmt: skip
def test_rows_of_a_sweep_are_runs(market, account):
    """Each row equals the run of its set, in lanes and where sets run one by one."""
    table = check_rows(market, account)
    assert table["max_drawdown"].max() > 0.5  # the sets differ in what they live through


def test_searches_and_validations_take_the_clock(market):
    """``tune``, ``compare``, the validations and paths decide on the longer bars."""
    terms: dict[str, Any] = {"venue": VENUE, "account": ACCOUNT, "decide": "4h"}
    space = {"target": (0.5, 1.9)}
    study = bt.tune(market, VolTarget, trials=32, space=space, holdout="20%", **terms)
    best = bt.run(market, VolTarget(float(study.best["target"])), **terms)
    assert best.manifest["data"]["decide"] == "4h"
    walk = bt.walk_forward(
        market, VolTarget, train="20d", test="10d", trials=16, space=space, **terms
    )
    assert set(walk.result.events.query("kind == 'fill'")["time"].dt.hour % 4) == {0}
    crossed = bt.cross_validate(market, VolTarget, groups=4, trials=8, space=space, **terms)
    assert crossed is not None
    compared = compare_policies(market, {"a": VolTarget(0.5), "b": VolTarget(2.0)}, **terms)
    assert compared.results["b"].manifest["data"]["decide"] == "4h"

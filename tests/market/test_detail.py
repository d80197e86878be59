"""Shorter bars in the place of longer ones where they are known."""

import warnings
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest import BacktestError
from backtest.market import with_clock
from backtest.strategies import VolTarget
from tests.kit import AT_BINANCE, check_refused

MINUTE = 60_000_000_000


def run(market: Any, policy: Any = None, **terms: Any) -> bt.Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.run(market, policy or VolTarget(half_life=8), **AT_BINANCE, **terms)


@pytest.fixture(scope="module")
def quarters() -> bt.Market:
    return bt.Market.sample(bars=960, interval="15m")


def test_full_detail_is_the_shorter_market_with_a_slow_policy(quarters):
    """Where all of the detail is known, ``detail`` is ``decision_interval`` on it."""
    one = run(quarters.resample("1h"), detail=quarters)

    assert one.bars.equals(run(quarters, decision_interval="1h").bars)
    assert "15m in 240 of 240 bars of 1h" in one.manifest["data"]["filled"]["detail"]
    assert one.manifest["data"]["decision_interval"] == "1h"


def test_the_account_lives_the_detail_where_it_is_known(quarters):
    """Hours without detail are one bar, and nothing is decided between hours."""
    hours = quarters.resample("1h")
    part = quarters.slice(202, 602)

    result = run(hours, detail=part)

    lengths = np.diff(result.bars.index.as_unit("ns").asi8) // MINUTE
    assert sorted(set(lengths.tolist())) == [15, 60]
    # 400 quarters; the half hours at both ends, two quarters each, are lived as hours of one bar
    assert (lengths == 15).sum() == 400 - 2 - 2

    filled = result.manifest["data"]["filled"]["detail"]
    assert "from 2023-01-03 03:00 to 2023-01-07 06:00" in filled

    assert set(result.events.query("kind == 'fill'")["time"].dt.minute) == {0}

    coarse = run(hours)
    assert result.bars["equity"].iloc[:40].tolist() == coarse.bars["equity"].iloc[:40].tolist()
    assert result.metrics["sharpe"] == pytest.approx(coarse.metrics["sharpe"], rel=0.2)

    slower = run(hours, detail=part, decision_interval="4h")
    assert set(slower.events.query("kind == 'fill'")["time"].dt.hour % 4) == {0}


def test_columns_of_the_longer_bars_are_known_at_their_closes(quarters):
    """A column of an hour stands at its last quarter, and policies see it then."""
    hours = quarters.resample("1h").with_columns(iv=np.arange(240.0))
    found = with_clock(hours, None, quarters)

    assert np.isnan(found.columns["iv"][:3]).all()
    assert found.columns["iv"][3:11].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_several_instruments_have_detail_together(quarters):
    """An hour is lived by its detail where all instruments have it."""
    other = bt.Market.sample(bars=960, interval="15m", seed=1)

    hours = bt.Markets({"A": quarters.resample("1h"), "B": other.resample("1h")})
    result = run(hours, detail={"A": quarters.slice(0, 400), "B": other.slice(200, 960)})
    lengths = np.diff(result.bars.index.as_unit("ns").asi8) // MINUTE
    assert (lengths == 15).sum() == 200


def test_the_detail_counts_where_it_differs_and_says_so(quarters):
    """A difference over 1e-6 is told with its count and the worst, one over 1 % is refused."""
    hours = quarters.resample("1h")
    has_room = hours.high[7] > hours.close[7] * 1.003
    close = hours.close.copy()
    close[7] *= 1.002 if has_room else 0.998
    near = bt.Market(**{**hours.fields(), "close": close}, source="near")

    with pytest.warns(UserWarning, match=r"1 of 240 bars differ.* 0\.002 at 2023-01-01 07:00"):
        found = with_clock(near, None, quarters)
    assert found.close[31] == quarters.close[31]

    far = bt.Market(**{**hours.fields(), "close": close * 1.02}, source="far")
    check_refused(lambda: run(far, detail=quarters), "differs by")


def test_detail_that_does_not_fit_is_refused(quarters, tmp_path):
    """One clear error each."""
    hours = quarters.resample("1h")
    fields = quarters.fields()
    named = bt.Market(**{**fields, "instrument": "OTHER"}, source="other")
    late = bt.Market(**{**fields, "time": fields["time"] + 10**18}, source="late")
    pair = bt.Markets({"A": hours, "B": bt.Market.sample(bars=960, interval="1h", seed=1)})

    cases: tuple[tuple[Any, Any, dict[str, Any], str], ...] = (
        # market, detail, other terms, words of the refusal
        (hours, quarters.resample("2h"), {}, "shorter bars"),
        (hours, named, {}, "same instrument"),
        (hours, late, {}, "must cover"),
        (hours, 7, {}, "must be a Market"),
        (hours, tmp_path / "nothing", {}, "no|does not exist|found"),
        (pair, {"A": quarters}, {}, "none of B"),
        (pair, quarters, {}, "one for each"),
        (hours, quarters, {"decision_interval": "30m"}, "multiple"),
        (bt.decide_every(hours, "4h"), quarters, {}, "another clock"),
    )  # fmt: skip
    for market, detail, terms, words in cases:
        check_refused(
            lambda m=market, d=detail, t=terms: run(m, detail=d, **t), words, BacktestError
        )

"""bounds(): bars in which the order of prices matters, by hand and against finer bars."""

import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import paths as models
from backtest.risk.bounds import bounds_run
from backtest.risk.bounds.bar_orders import low_first_probability
from backtest.risk.bounds.bounds_run import BoundsRun
from backtest.strategies import Constant
from tests.risk.accounts import Hold, free_account, free_venue, still_market


def bars_of(rows, mark=None, freq="1h", funding=None) -> bt.Market:
    """Return a market of rows (open, high, low, close)."""
    index = pd.date_range("2023-01-01", periods=len(rows), freq=freq, tz="UTC")
    names = ["open", "high", "low", "close"]
    frame = pd.DataFrame(rows, columns=names, index=index, dtype=float)
    marks = None if mark is None else pd.DataFrame(mark, columns=names, index=index, dtype=float)
    return bt.Market.from_frames(frame, mark=marks, funding=funding)


FLAT = (100, 100, 100, 100)


def bound(market, lever=2.0, venue=None, **terms):
    return bt.bounds(
        market,
        Hold(lever),
        venue=free_venue() if venue is None else venue,
        account=free_account(**terms),
        compile=False,
    )


def test_the_low_of_a_rising_brownian_bar_is_first_as_often_as_known():
    # 0.886 of the bars that close above their open; and the forecasts are calibrated
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.standard_normal((1500, 3000)) / 60, axis=1) * 0.01
    walk = np.concatenate([np.zeros((1500, 1)), walk], axis=1)
    high, low, close = (np.exp(x) for x in (walk.max(axis=1), walk.min(axis=1), walk[:, -1]))
    known = walk.argmin(axis=1) < walk.argmax(axis=1)
    found = np.array(
        [low_first_probability(1.0, *bar) for bar in zip(high, low, close, strict=True)]
    )
    up = close > 1.0
    assert found[up].mean() == pytest.approx(0.886, abs=0.015)
    assert known[up].mean() == pytest.approx(0.886, abs=0.03)
    for lower in (0.0, 0.25, 0.5, 0.75):
        part = (found >= lower) & (found < lower + 0.25)
        assert known[part].mean() == pytest.approx(found[part].mean(), abs=0.09)
    assert low_first_probability(1.0, 1.0, 0.9, 0.95) == 0.0  # the high was the open
    assert low_first_probability(1.0, 1.0, 1.0, 1.0) == 0.5


def test_a_stop_and_a_take_profit_in_one_bar_by_hand():
    # 2x of 1000 at 100: 20 contracts; the stop at 95 loses 100, the profit at 105 earns 100
    market = bars_of([FLAT, FLAT, (100, 106, 94, 100), FLAT])
    found = bound(market, stop_loss=0.05, take_profit=0.05)
    row = found.table.loc["final_equity"]
    assert row["worst"] == pytest.approx(900.0)
    assert row["best"] == pytest.approx(1100.0)
    assert row["as_run"] == pytest.approx(900.0)
    # high 106, low 94: log distances differ a little, so the orders are nearly equally likely
    assert row["expected"] == pytest.approx(1000.0, abs=5.0)
    bar = found.bars.iloc[0]
    assert bar["events"] == "stop or take-profit"
    assert bar["width"] == pytest.approx(200.0)
    assert found.result.ambiguous == 1
    assert "1 bar is ambiguous" in found.verdict


def test_a_stop_on_last_against_a_liquidation_on_mark():
    # 10x: the liquidation price is 90 / 0.995 = 90.45; mark falls to 90, last to 91: the stop at
    # 91.5 leaves 150, the liquidation at 90.45 leaves 0.45 + 45 = 45.2
    rows = [FLAT, FLAT, (100, 100, 91, 92), (92, 92, 92, 92)]
    marks = [FLAT, FLAT, (100, 100, 90, 92), (92, 92, 92, 92)]
    found = bound(bars_of(rows, marks), 10.0, stop_loss=0.085)
    row = found.table.loc["final_equity"]
    assert row["best"] == pytest.approx(1000.0 - 100 * 8.5)
    assert row["worst"] == pytest.approx(1000.0 - 100 * (100 - 90 / 0.995))
    assert row["as_run"] == row["best"]  # the nearer one
    assert found.bars["events"].iloc[0] == "liquidation or stop"
    assert found.table.loc["liquidations", ["worst", "best"]].tolist() == [1.0, 0.0]


def test_levels_on_the_same_side_of_the_same_price_are_never_ambiguous():
    market = bars_of([FLAT, FLAT, (100, 101, 80, 85), (85, 85, 85, 85)])
    found = bound(market, 5.0, stop_loss=0.1)
    assert found.bars.empty
    assert found.lives == 1
    assert "does not matter" in found.verdict


def test_a_settlement_inside_a_bar_before_or_after_an_extreme():
    # a daily bar, 10x of 1000 at 100: 100 contracts; a rate of 0.5 % costs 50 of 1000 at 08:00
    # paid first, as in a run, the liquidation price rises to (9000 + 50) / 99.5 = 90.95; the low is
    # 90.7. Paid while the price is at its low, the position is liquidated there: 1000 - 50 - 930.
    # Paid after the price has come back, it survives.
    funding = pd.DataFrame(
        {"rate": [0.005]}, index=pd.DatetimeIndex(["2023-01-03 08:00"], tz="UTC")
    )
    rows = [FLAT, FLAT, (100, 100, 90.7, 95), (95, 95, 95, 95)]
    names = ["open", "high", "low", "close"]
    index = pd.date_range("2023-01-01", periods=4, freq="1D", tz="UTC")
    market = bt.Market.from_frames(
        pd.DataFrame(rows, columns=names, index=index, dtype=float),
        funding=funding,
        funding_gaps="zero",
    )
    found = bound(market, 10.0)
    row = found.table.loc["final_equity"]
    assert row["as_run"] == pytest.approx(1000 - 50 - 100 * (100 - 9050 / 99.5))
    assert row["worst"] == pytest.approx(20.0)
    assert row["best"] == pytest.approx(1000 - 50 - 100 * 5.0)
    assert found.bars["events"].iloc[0] == "liquidation or nothing"


def random_market(seed: int, hours: int = 48) -> bt.Market:
    model = models.GBM(volatility=1.5)
    return bt.simulate_paths(
        still_market(), model, paths=1, horizon=f"{hours}h", seed=seed, bridge=4
    )[0]


def test_without_stops_the_width_is_nothing():
    for seed in range(4):
        found = bound(random_market(seed), 12.0)
        assert found.lives == 1
        assert found.bars.empty
        table = found.table.dropna()
        assert (table["worst"] == table["as_run"]).all()
        assert (table["best"] == table["as_run"]).all()


def test_the_run_lies_between_the_bounds_and_refined_bounds_inside_coarse_ones():
    """Twelve simulated lives on minutes, run on hours: the truth is inside the bounds."""
    ambiguous = 0
    for seed in range(12):
        model = models.GBM(volatility=1.5)
        minutes = bt.simulate_paths(
            still_market("10min"), model, paths=1, horizon="48h", seed=seed, bridge=4
        )[0]
        minutes = minutes.slice(1, minutes.n_bars)
        coarse = minutes.resample("2h")
        given = {"venue": free_venue(), "account": free_account(stop_loss=0.02, take_profit=0.02)}
        wide = bt.bounds(coarse, Hold(5.0), **given, compile=False)
        fine = bt.bounds(coarse, Hold(5.0), **given, compile=False, refine=minutes)
        ambiguous += wide.result.ambiguous
        for name, row in wide.table.dropna().iterrows():
            low, high = sorted((row["worst"], row["best"]))
            assert low <= row["as_run"] <= high
            assert low - 1e-9 <= row["expected"] <= high + 1e-9
            if name in ("final_equity", "price_pnl"):
                others = fine.table.loc[name, ["worst", "best", "expected"]]
                assert low - 1e-6 <= others.min()
                assert others.max() <= high + 1e-6
    assert ambiguous > 3


def test_merging_lives_loses_nothing(monkeypatch):
    market = random_market(5, 60).resample("2h")
    given = {"stop_loss": 0.015, "take_profit": 0.015}
    merged = bound(market, 5.0, **given)
    monkeypatch.setattr(bounds_run, "merge", lambda lanes, _: lanes)
    whole = bound(market, 5.0, **given)
    assert 1 < merged.lives <= whole.lives
    for column in ("worst", "best", "expected"):
        both = merged.table[column], whole.table[column]
        assert np.allclose(*(each.to_numpy(float) for each in both), rtol=1e-8, equal_nan=True)


def test_too_many_lives_are_said():
    market = random_market(5, 60).resample("2h")
    given = {"stop_loss": 0.015, "take_profit": 0.015}
    account = free_account(**given)
    few = bt.bounds(market, Hold(5.0), venue=free_venue(), account=account, depth=1, compile=False)
    assert few.is_inner
    assert few.lives == 2
    assert "at least" in few.verdict
    row = few.table.loc["final_equity"]
    assert row["worst"] <= row["as_run"] <= row["best"]


def test_lives_that_are_dropped_leave_their_probability_to_the_nearest():
    # regression: the rest was scaled up to 1 instead, as if the dropped lives were like all others
    # 2x of 1000 at 100 three times, each ends at 0.9 or 1.1 of it with 94.4 as likely as 106 is:
    # 729, 891 x 3, 1089 x 3, 1331, the run's own life being the worst
    names = ["worst", "as_run", "best", "expected"]
    bar = (100, 106, 100 / 1.06, 100)
    market = bars_of([FLAT, FLAT, bar, bar, bar, FLAT])
    terms = {"stop_loss": 0.05, "take_profit": 0.05}
    rows = {}
    for depth in (12, 1, 0):
        found = bt.bounds(
            market, Hold(2.0), venue=free_venue(), account=free_account(**terms), depth=depth,
            compile=False,
        )  # fmt: skip
        rows[depth] = found.table.loc["final_equity", names].to_list()
        assert found.is_inner == (depth < 12)
    assert rows[12] == pytest.approx([729.0, 729.0, 1331.0, 1000.0])
    # after two bars 810, 990 and 1210 with 1/4, 1/2 and 1/4: 990 is nearer to 810 than to 1210
    # then 729 and 891 with 3/8 each, 1089 and 1331 with 1/8 each: 891 goes to 729, 1089 to 1331
    assert rows[1] == pytest.approx([729.0, 729.0, 1331.0, 0.75 * 729.0 + 0.25 * 1331.0])
    assert rows[0] == pytest.approx([729.0] * 4)


@pytest.mark.parametrize(("settings", "words"), [
    ({"depth": -1}, "depth must be"),
    ({"depth": 17}, "at most 16"),
    ({"depth": math.nan}, "depth must be a number"),
    ({"refine": 3}, "refine must be a Market"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, words):
    given = {"venue": free_venue(), "account": free_account(), "compile": False, **settings}
    with pytest.raises(bt.ParameterError, match=words):
        bt.bounds(bars_of([FLAT] * 4), Hold(2.0), **given)


def test_an_equity_stop_against_a_take_profit():
    """2x of 1000 at 100: the account closes at 98, where 960 is left, or the target at 105."""
    market = bars_of([FLAT, FLAT, (100, 106, 94, 100), FLAT])
    found = bound(market, 2.0, equity_stop=0.04, take_profit=0.05)
    row = found.table.loc["final_equity"]
    assert (row["worst"], row["best"]) == (pytest.approx(960.0), pytest.approx(1100.0))
    assert row["as_run"] == found.result.metrics["final_equity"]
    assert found.bars["events"].tolist() == ["stop or take-profit (market)"]
    with pytest.raises(bt.ParameterError, match="refine is for one position without margin calls"):
        bt.bounds(market, Hold(2.0), venue=free_venue(), account=free_account(equity_stop=0.04),
                  refine=market, compile=False)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("terms", [{"trailing_stop": 0.006}, {"stop_loss": 0.004}, {}])
def test_the_count_looks_only_at_bars_that_may_be_ambiguous(terms):
    """It is that of every bar lived in all orders; funding at 08:00 falls inside bars of a day."""
    account = free_account(take_profit=0.005 if terms else None, **terms)
    market = bt.Market.sample(bars=240, seed=2)
    if not terms:
        market = market.resample("1d")
    signal = np.where(np.arange(market.n_bars) // 5 % 2, -1.0, 1.0)
    run = bt.run(market, Constant(leverage=20.0), venue=free_venue(), account=account,
                 signal=signal, compile=False)  # fmt: skip
    assert run.ambiguous == len(BoundsRun(run, None, 0).live(None)[1]) > 0


def test_finer_bars_must_add_up():
    coarse = bars_of([FLAT, FLAT, (100, 106, 94, 100), FLAT])
    fine = bars_of([(100, 105, 94, 100)] * 8, freq="30min")
    with pytest.raises(bt.DataError, match="must add up"):
        bt.bounds(
            coarse, Hold(2.0), venue=free_venue(), refine=fine, compile=False,
            account=free_account(stop_loss=0.05, take_profit=0.05),
        )  # fmt: skip


def test_a_bar_that_ends_the_same_in_every_order_is_not_ambiguous():
    # regression: the peak of an equity stop that is not there made every stopped bar ambiguous
    rows = [FLAT, (100, 120, 100, 120), (120, 120, 120, 120), (120, 121, 90, 95), (95, 95, 95, 95)]
    found = bound(bars_of([FLAT, *rows]), 2.0, stop_loss=0.05, take_profit=0.5)
    assert found.bars.empty

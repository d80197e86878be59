"""The shipped hours and days of crashes: each instrument its own, in the bars of the run."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.units import DAY, HOUR
from backtest.risk.scenario import FIELDS, list_days, read_hours, replay_crash
from backtest.strategies import Constant, VolTarget
from tests.risk.accounts import free_account, free_venue

CRASHES = {each.name: each for each in bt.crashes()}


def market_of(name: str, freq: str = "1h", n: int = 400, *, sessions: bool = False) -> bt.Market:
    """Return bars of a walk of 60 % a year."""
    index = pd.date_range("2024-01-01", periods=n, freq=freq, tz="UTC")
    index = pd.bdate_range("2024-01-01", periods=n, tz="UTC") if sessions else index
    sigma = 0.6 / np.sqrt(365 * 86_400 / (index[1] - index[0]).total_seconds())
    close = 100.0 * np.exp(np.cumsum(sigma * np.random.default_rng(1).standard_normal(n)))
    opens = np.append(close[:1], close[:-1])
    frame = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
             "close": close, "volume": 1000.0}  # fmt: skip
    bars = pd.DataFrame(frame, index=index)
    return bt.Market.from_frames(bars, instrument=name, sessions=sessions)


def replay(name: str, *markets: bt.Market):
    given = {each.instrument: each for each in markets}
    found = replay_crash(CRASHES[name], CRASHES, given, set(), set())
    assert found is not None
    return found


def test_each_coin_has_its_own_hours_and_the_others_the_median_of_three():
    markets = [market_of(name) for name in ("BTCUSDT", "ADAUSDT", "SOLUSDT")]
    bars, source = replay("2025-10-10", *markets)
    hours = read_hours(CRASHES["2025-10-10"])
    assert source == "history; SOLUSDT: median of ADA, LTC, XRP"
    assert (bars["ADAUSDT"].mark == hours["ADA"][1]).all()
    assert bars["BTCUSDT"].mark[2].min() / bars["BTCUSDT"].mark[1].max() - 1 == pytest.approx(
        -0.165, abs=0.01
    )
    median = np.median([hours[coin][0] for coin in ("ADA", "LTC", "XRP")], axis=0)
    assert (bars["SOLUSDT"].last == median).all()


@pytest.mark.parametrize(("freq", "hours"), [("15min", 0.25), ("1h", 1), ("4h", 4), ("1D", 24)])
def test_bars_of_any_length_keep_the_extremes_and_the_close(freq: str, hours: float):
    bars, _ = replay("2020-03-12", market_of("BTCUSDT", freq, n=60))
    whole = read_hours(CRASHES["2020-03-12"])["BTC"]
    for found, expected in zip((bars["BTCUSDT"].last, bars["BTCUSDT"].mark), whole, strict=True):
        assert found.shape == (4, int(np.ceil(28 / hours)))
        assert found[1].max() == pytest.approx(expected[1].max(), rel=1e-12)
        assert found[2].min() == pytest.approx(expected[2].min(), rel=1e-12)
        assert found[3, -1] == pytest.approx(expected[3, -1], rel=1e-12)
        assert (found[1] >= np.maximum(found[0], found[3]) * (1 - 1e-12)).all()
        assert (found[2] <= np.minimum(found[0], found[3]) * (1 + 1e-12)).all()


def test_days_of_stocks_are_sessions_where_the_market_has_them_and_weekends_stand_still():
    days, scenario = market_of("SPX", sessions=True), CRASHES["2020-03 stocks"]
    bars, source = replay(scenario.name, days)
    assert source == "history"
    assert bars["SPX"].last.shape == (4, 23)
    whole, _ = replay(scenario.name, market_of("BTCUSDT", "1D"))
    assert whole["BTCUSDT"].last.shape == (4, 33)
    saturday = whole["BTCUSDT"].last[:, 2]  # 22 February 2020
    assert (saturday == whole["BTCUSDT"].last[3, 1]).all()
    hours, _ = replay(scenario.name, market_of("BTCUSDT"))
    assert hours["BTCUSDT"].last.shape == (4, 33 * DAY // HOUR)


def test_a_volatility_target_loses_what_it_loses_on_the_real_days():
    """On a straight line it levered up, and lost far more."""
    before, scenario = market_of("SPX", sessions=True), CRASHES["2020-03 stocks"]
    terms = {"venue": free_venue(), "account": free_account(), "compile": False, "calendar": "252"}
    run = bt.run(before, VolTarget(target=0.2, half_life=20.0), **terms)
    row = bt.stress(run, scenario).table.iloc[0]
    real = list_days(scenario)[list(FIELDS)].to_numpy() * before.close[-1]
    index = pd.bdate_range(before.times[-1] + pd.Timedelta("1D"), periods=23, tz="UTC")
    more = pd.DataFrame(real, columns=list(FIELDS), index=index).assign(volume=1000.0)
    whole = bt.Market.from_frames(pd.concat([before.bars(), more]), sessions=True)
    after = bt.run(whole, VolTarget(target=0.2, half_life=20.0), **terms)
    expected = after.bars["equity"].iloc[-1] / after.bars["equity"].iloc[-24] - 1.0
    lost = -row["loss"] / run.metrics["final_equity"]
    assert lost == pytest.approx(expected, abs=0.02)
    assert row["from"] == "history"


def test_a_book_of_three_coins_at_four_turns_does_not_survive_october_2025():
    markets = {name: market_of(name) for name in ("BTCUSDT", "ETHUSDT", "ADAUSDT")}
    weights = pd.DataFrame(dict.fromkeys(markets, 1 / 3), index=markets["BTCUSDT"].times)
    run = bt.run(
        bt.Markets(markets), Constant(leverage=4.0), venue=dict.fromkeys(markets, free_venue()),
        account=bt.Account(capital=10_000, intrabar="worst"), signal=weights, compile=False,
    )  # fmt: skip
    row = bt.stress(run, CRASHES["2025-10-10"]).table.iloc[0]
    assert row["liquidated"]
    assert row["bars"] == 12


def test_a_crash_that_is_moved_is_made_of_its_figures():
    run = bt.run(
        market_of("BTCUSDT"), Constant(leverage=1.0), venue=free_venue(), account=free_account(),
        compile=False,
    )  # fmt: skip
    crash = CRASHES["2024-08-05"]
    given = [crash, crash.override(name="mine"), crash.override(price=-0.3)]
    found = [bt.stress(run, each).table["from"].iloc[0] for each in given]
    assert found == ["history", "figures", "figures"]
    wide = crash.override(spread=3.0)
    assert bt.stress(run, wide).table["from"].iloc[0] == "history"

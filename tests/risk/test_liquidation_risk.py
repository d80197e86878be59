"""liquidation_risk(): against closed forms, against single runs bit for bit, and its intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

import backtest as bt
from backtest import paths as models
from backtest.features import touch_probability
from backtest.risk.liquidations import estimate
from backtest.strategies import Constant, TailHedge, VolTarget
from tests.options.listed_markets import make_markets, make_venue
from tests.risk.accounts import Hold, free_account, free_venue, liquidation_distance, still_market

SIGMA = 0.8
TERMS = {"venue": free_venue(), "account": free_account()}


def known(lever: float, days: float, *, drift: float = 0.0) -> float:
    """Return the probability that Brownian motion falls to the liquidation price."""
    return touch_probability(
        liquidation_distance(lever), SIGMA, days / 365, drift=drift - 0.5 * SIGMA**2
    )


def gbm_paths(**settings) -> bt.Paths:
    model = models.GBM(volatility=SIGMA)
    return bt.simulate_paths(still_market(), model, **{"horizon": "7d", "seed": 2, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 7, 30])
def test_paths_find_the_closed_form_from_2x_to_100x(days):
    # 7 leverages x 3 horizons at 99.99 % bounds, shared by 21 (Bonferroni)
    horizon = f"{days}d"
    for lever in (2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0):
        wanted = known(lever, days)
        row = bt.liquidation_risk(
            gbm_paths(paths=10_000, horizon=horizon), Hold(lever), **TERMS,
            horizons=(horizon,), confidence=1 - 1e-4 / 21,
        ).table.iloc[0]  # fmt: skip
        assert row.p_liquidation_low <= wanted <= row.p_liquidation_high, lever


@pytest.mark.slow
def test_paths_with_jumps_find_the_closed_form():
    """Jumps of about -1 liquidate: the account lives without one, and where a GBM of the rest does.

    Of 20 jumps a year, 7 days have none with a probability of exp(-20 7 / 365) = 0.681.
    """
    model = models.Merton(volatility=0.5, jumps=20, jump_mean=-1.0, jump_deviation=0.01)
    drawn = bt.simulate_paths(still_market(), model, paths=20_000, horizon="7d", seed=6)
    risk = bt.liquidation_risk(drawn, Hold(8.0), **TERMS, horizons=("7d",), confidence=0.9999)
    drift = -0.5 * 0.5**2 + 20 * (1.0 - math.exp(-1.0 + 0.5 * 0.01**2))
    touched = touch_probability(liquidation_distance(8.0), 0.5, 7 / 365, drift=drift)
    wanted = 1.0 - math.exp(-20 * 7 / 365) * (1.0 - touched)
    row = risk.table.iloc[0]
    assert row.p_liquidation_low <= wanted <= row.p_liquidation_high


def test_a_result_goes_on_as_a_resumed_run_does():
    market = bt.Market.sample(bars=600)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account(capital=10_000)
    result = bt.run(market, VolTarget(target=1.5), venue=venue, account=account, compile=False)
    drawn = bt.simulate_paths(market, "stationary", paths=3, horizon="3d", seed=4)
    risk = bt.liquidation_risk(
        drawn, VolTarget(target=1.5), venue=venue, account=result, compile=False
    )
    runner = risk.runner
    lives = next(iter(runner.run_chunks()))
    resumed = bt.run(
        drawn[2], VolTarget(target=1.5), venue=venue, account=account, resume=result, compile=False
    )
    assert np.array_equal(lives.wealth[2], resumed.bars["equity"].to_numpy())
    other = bt.simulate_paths(market, "stationary", paths=3, start=market.times[500])
    with pytest.raises(bt.DataError, match="begin where the result ended"):
        bt.liquidation_risk(other, VolTarget(target=1.5), venue=venue, account=result)


@pytest.mark.slow
def test_compiled_and_plain_are_the_same_bits_in_any_number_of_threads():
    tables = [
        bt.liquidation_risk(
            gbm_paths(paths=300, horizon="2d"), Hold(30.0), **TERMS, compile=flag, threads=threads
        )
        for flag, threads in ((True, 1), (True, 3), (False, 1))
    ]
    first = tables[0]
    for other in tables[1:]:
        assert first.table.equals(other.table)
        assert first.fan.equals(other.fan)
        assert first.hazard.equals(other.hazard)


def test_the_interval_is_that_of_clopper_and_pearson():
    found = estimate(10, 100, 0.95)
    assert found == pytest.approx((0.1, beta.ppf(0.025, 10, 91), beta.ppf(0.975, 11, 90)))
    assert estimate(0, 100, 0.95)[1:] == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))


@pytest.mark.slow
def test_the_report_of_a_risk_says_what_happened():
    risk = bt.liquidation_risk(gbm_paths(paths=2000), Hold(30.0), **TERMS, horizons=("1d", "7d"))
    last = risk.table.iloc[-1]
    hazard = risk.hazard
    assert hazard["at_risk"].iloc[0] == 2000
    assert hazard["liquidated"].sum() == round(last.p_liquidation * 2000)
    assert 1 - np.prod(1 - hazard["hazard"]) == pytest.approx(last.p_liquidation)
    assert list(risk.fan.iloc[-1]) == sorted(risk.fan.iloc[-1])
    path = risk.path()
    assert path["price"].iloc[-1] < 1.0
    assert 0.0 < path["equity"].iloc[-1] < 1000.0
    assert math.isnan(last.p_margin_call)
    quiet = bt.liquidation_risk(gbm_paths(paths=50, horizon="1d"), Hold(0.0), **TERMS)
    with pytest.raises(bt.ParameterError, match="no path was liquidated"):
        quiet.path()
    said = " ".join(quiet.summary().split())
    assert "No path was liquidated within 1d: 50 paths show nothing under 6 %." in said


@pytest.mark.parametrize(("settings", "words"), [
    ({"horizons": ("8d",)}, "horizons must lie"),
    ({"confidence": math.nan}, "confidence must be a number"),
    ({"policy": Hold}, r"add \(\)"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, words):
    given = {"paths": gbm_paths(paths=10), "policy": Hold(5.0), **TERMS, **settings}
    with pytest.raises(bt.ParameterError, match=words):
        bt.liquidation_risk(given.pop("paths"), given.pop("policy"), **given)


def test_accounts_that_trade_options_are_refused():
    """Also under an overlay; stress answers for them."""
    paths, rule = gbm_paths(paths=4, horizon="1d"), TailHedge(Constant(2.0))
    said = r"(?s)trade options, got .*TailHedge.*bt\.stress"
    with pytest.raises(bt.ParameterError, match=said):
        bt.liquidation_risk(paths, rule, **TERMS)
    with pytest.raises(bt.ParameterError, match=said):
        bt.liquidation_risk(paths, Hold(2.0), overlay=rule, **TERMS)
    with pytest.raises(bt.ParameterError, match=said):
        bt.max_leverage(still_market(), rule, **TERMS, models=[models.GBM(volatility=SIGMA)])
    with pytest.raises(bt.ParameterError, match=r"(?s)no prices of options, got 'PUT'.*bt\.stress"):
        bt.simulate_paths(make_markets(), "gbm")


@pytest.mark.filterwarnings("ignore:volatility is flat")
def test_a_result_that_holds_options_is_refused_until_they_are_closed():
    """Two puts of the tenth bar until 2023-01-08 12:00."""
    account = bt.Account(capital=100_000.0, requirement="deribit-standard")
    for bars, is_held in ((96, True), (24 * 9, False)):
        markets = make_markets(bars=bars)
        result = bt.run(
            markets, Constant(0.5), venue=make_venue(), account=account, compile=False,
            option_quantities=pd.DataFrame({"PUT": [2.0]}, index=markets["BTC"].times[10:11]),
        )  # fmt: skip
        history = bt.Markets({"BTC": markets["BTC"]})
        paths = bt.simulate_paths(
            history, models.GBM(volatility=SIGMA), paths=4, horizon="4h", funding=None
        )
        terms = {"venue": make_venue(), "account": result, "compile": False}
        if is_held:
            with pytest.raises(bt.ParameterError, match=r"(?s)a result that holds PUT.*bt\.stress"):
                bt.liquidation_risk(paths, Constant(0.5), **terms)
        else:
            found = bt.liquidation_risk(paths, Constant(0.5), **terms)
            assert found.table["equity_50"].notna().all()

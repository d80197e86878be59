"""Policies that follow the account's path: DrawdownControl, Ladder and MarginBuffer."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.strategies import DrawdownControl, Ladder, MarginBuffer
from backtest.strategies.margin_buffer import find_notional
from backtest.venue.requirement import read_rules
from tests.kit import YEAR, bars_market, free_venue, live, market_of, walk


def gentle_walk(n: int, largest: float, seed: int) -> bt.Market:
    """Return bars without gaps that move by up to ``largest``, often by all of it."""
    moves = np.clip(np.random.default_rng(seed).normal(0.0, largest, n), -largest, largest)
    return market_of(100.0 * np.cumprod(1.0 + moves))


def test_drawdown_control_is_its_formula_at_every_bar():
    market = bt.Market.sample(bars=300)
    bars = live(market, DrawdownControl(at_peak=2.0, floor=0.8), compile=False).bars
    equity = bars["equity"].to_numpy()
    expected = 2.0 * (1.0 - 0.8 * np.maximum.accumulate(equity) / equity) / 0.2
    np.testing.assert_allclose(bars["target"], np.maximum(expected, 0.0), rtol=1e-9)
    assert bars["target"].iloc[0] == pytest.approx(2.0, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("at_peak", "floor"), [(4.0, 0.5), (1.5, 0.7), (4.0, 0.9)])
def test_the_drawdown_stays_under_its_limit_without_gaps(at_peak: float, floor: float):
    """No bar takes more than (1 - alpha) / k off the price: equity never reaches alpha M."""
    for seed in range(5):
        market = gentle_walk(3000, 0.999 * (1.0 - floor) / at_peak, seed)
        equity = live(market, DrawdownControl(at_peak=at_peak, floor=floor)).bars["equity"]
        share = (equity / equity.cummax()).to_numpy()
        assert (share >= floor * (1.0 - 1e-12)).all()
        assert share.min() < floor + 0.1 * (1.0 - floor)


@pytest.mark.parametrize(("at_peak", "floor", "gap"), [(1.5, 0.7, 0.3), (4.0, 0.9, 0.1)])
def test_a_gap_breaches_the_limit_by_the_closed_form_and_ends_all_trading(at_peak, floor, gap):
    """From M to M (1 - k d): (d k / (1 - alpha) - 1) (1 - alpha) M under the floor."""
    close = np.array([100.0] * 5 + [100.0 * (1.0 - gap)] * 5 + [200.0] * 3)
    bars = live(
        bars_market(close, close), DrawdownControl(at_peak=at_peak, floor=floor), compile=False
    ).bars
    shortfall = 10_000.0 * floor - bars["equity"].iloc[5]
    over = (gap * at_peak / (1.0 - floor) - 1.0) * (1.0 - floor) * 10_000.0
    assert shortfall == pytest.approx(over, rel=1e-9)
    assert (bars["target"].iloc[5:] == 0.0).all()
    assert (bars["position"].iloc[6:] == 0.0).all()


@pytest.fixture(scope="module")
def controlled() -> SimpleNamespace:
    """Return 23 years of Kelly's leverage over a floor of nine tenths, and the same without it.

    mu 2, sigma 0.5: SR 4, Kelly 8; ``unfloored`` is ln V of an account that always holds 8.
    """
    alpha, kelly = 0.9, 8.0
    market = walk(200_000, 2.0, 0.5, seed=41)
    result = live(market, DrawdownControl(at_peak=kelly * (1.0 - alpha), floor=alpha))
    returns = np.concatenate([[0.0], market.close[1:] / market.close[:-1] - 1.0])
    equity = result.bars["equity"].to_numpy()
    peak = np.maximum.accumulate(equity)
    return SimpleNamespace(
        alpha=alpha,
        equity=equity,
        over=(equity / peak - alpha) / (1.0 - alpha),
        unfloored=np.cumsum(np.log1p(kelly * returns)),
        years=market.n_bars / YEAR,
        metrics=result.metrics,
    )


@pytest.mark.slow
def test_what_lies_over_the_floor_is_an_account_without_one_against_its_peak(controlled):
    """(E / M - alpha) / (1 - alpha) = V / max V at every bar: the cushion has k / (1 - alpha) turns
    and starts anew at each peak. Cvitanic and Karatzas (1995), in discrete time."""
    expected = np.exp(controlled.unfloored - np.maximum.accumulate(controlled.unfloored))
    np.testing.assert_allclose(controlled.over, expected, rtol=1e-6, atol=1e-9)
    assert controlled.metrics["max_drawdown"] < 1.0 - controlled.alpha


@pytest.mark.slow
def test_at_kellys_leverage_the_time_under_water_is_spread_evenly_down_to_the_floor(controlled):
    """ln(V / max V) is a Brownian motion with drift SR^2 / 2 and variance SR^2, reflected at 0:
    exponential with mean 1, so that V / max V is uniform.

    It forgets in 8 / SR^2 years: 46 independent values, a standard error of 0.07 for a half. Seen
    by the hour the share is lower by 0.58 SR / sqrt(8760) = 2.5 %.
    """
    for share in (0.25, 0.5, 0.75):
        error = math.sqrt(share * (1.0 - share) / 46)
        assert np.mean(controlled.over < share) == pytest.approx(share * 0.975, abs=3 * error)
    assert 30.0 < controlled.metrics["drawdown_days"] < 3 * 365


@pytest.mark.slow
def test_growth_under_the_drawdown_limit_is_that_of_grossman_and_zhou(controlled):
    """(1 - alpha) SR^2 / 2 a year, within three standard errors of (1 - alpha) SR / sqrt(years)."""
    growth = math.log(controlled.equity[-1] / 10_000.0) / controlled.years
    part = 1.0 - controlled.alpha
    assert growth == pytest.approx(part * 8.0, abs=3 * part * 4.0 / math.sqrt(controlled.years))


def climb(policy: Ladder, values: np.ndarray) -> np.ndarray:
    """Return the leverage at each of some volatilities, or drawdowns."""
    memory, levels = policy.start(), []
    by_volatility = float(policy.by == "volatility")
    for x in values:
        bar = SimpleNamespace(sigma=x if by_volatility else 0.0, by_volatility=by_volatility)
        level, memory = policy.leverage(bar, SimpleNamespace(drawdown=x), memory)
        levels.append(level)
    return np.array(levels)


STEPS: dict[str, Any] = {"level_1": 3.0, "level_2": 1.5, "level_3": 0.5, "band": 0.2}


def test_a_ladder_steps_at_its_thresholds_and_back_under_their_bands():
    """Thresholds 0.5 and 1.0, band a fifth: passed back under 0.4 and 0.8, not before."""
    policy = Ladder(by="volatility", volatility_1=0.5, volatility_2=1.0, **STEPS)
    sigma = np.array([0.3, 0.499, 0.5, 0.41, 0.399, 1.2, 0.81, 0.79, 0.45, 0.39, 1.0, 0.1])
    expected = [3.0, 3.0, 1.5, 1.5, 3.0, 0.5, 0.5, 1.5, 1.5, 3.0, 0.5, 3.0]
    assert climb(policy, sigma).tolist() == expected


def test_a_ladder_by_drawdown_follows_the_account():
    """Levels 2, 1 and 0.5 at falls of 10 % and 20 %, each held until the next close."""
    close = 100.0 * np.cumprod([1.0, 1.0, 0.96, 0.98, 0.9, 0.9, 1.1, 1.3, 1.3, 1.3, 1.01])
    policy = Ladder(
        by="drawdown", level_1=2.0, level_2=1.0, level_3=0.5, drawdown_1=0.1, drawdown_2=0.2
    )
    bars = live(market_of(close), policy, compile=False).bars
    returns = close[1:] / close[:-1] - 1.0
    equity, peak, step, expected = 1.0, 1.0, 0, []
    for r in [0.0, *returns]:
        equity *= 1.0 + (expected[-1] if expected else 0.0) * r
        peak = max(peak, equity)
        fall = 1.0 - equity / peak
        step = max(step, sum(fall >= t for t in (0.1, 0.2)))
        step = min(step, sum(fall >= 0.8 * t for t in (0.1, 0.2)))
        expected.append((2.0, 1.0, 0.5)[step])
    assert bars["target"].tolist() == expected
    assert set(expected) == {2.0, 1.0, 0.5}


PRESET = bt.Venue.preset("binance-usdm", "BTCUSDT")


def tiered(**terms: Any) -> bt.Venue:
    """Return a venue with the brackets of a real one, without costs."""
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=PRESET.brackets,
        fees=terms.pop("fees", bt.Fees(taker=0.0, maker=0.0)),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
        **terms,
    )


@pytest.mark.parametrize("multiplier", [1.0, 3.0])
@pytest.mark.parametrize("close_fee", [0.0, 0.0005])
def test_the_notional_of_a_margin_is_the_inverse_of_the_margin_of_a_notional(
    multiplier: float, close_fee: float
):
    """Over all brackets, at their floors and beyond the last; and with a single bracket."""
    floors = [row.floor for row in PRESET.brackets[1:]]
    for venue in (tiered(), free_venue()):
        rules = read_rules(venue)._replace(multiplier=multiplier, close_fee=close_fee)
        for notional in [1e-3, *np.geomspace(10.0, 1e10, 60), *floors]:
            needed = bt.margin.maintenance(rules, notional)
            assert find_notional(rules, needed) == pytest.approx(notional, rel=1e-9)
    single = read_rules(tiered())._replace(
        floors=(0.0,), caps=(math.inf,), rates=(0.01,), amounts=(0.0,), leverages=(50.0,)
    )
    assert find_notional(single, 25.0) == pytest.approx(2500.0, rel=1e-12)


@pytest.mark.parametrize("capital", [1e4, 3e6, 1e8])
@pytest.mark.parametrize("signal", [1.0, -1.0, 0.5])
def test_margin_buffer_starts_at_its_target_in_any_bracket(capital: float, signal: float):
    """At a standing price the ratio is the target, or half of it with half a signal."""
    market = market_of(np.full(10, 20_000.0))
    account = bt.Account(capital=capital)
    policy = MarginBuffer(target=0.03)
    result = live(market, policy, venue=tiered(), account=account, signal=signal, compile=False)
    bars = result.bars
    expected = 0.03 * abs(signal)
    np.testing.assert_allclose(bars["margin_ratio"].to_numpy()[1:], expected, rtol=1e-9)
    assert bars["target"].isna().tolist() == [False] + 9 * [True]


def move(ratio: float, by: float, rate: float) -> float:
    """Return a margin ratio after a move of the price against the position.

    At most ratio / rate turns are held. The marginal rate of a bracket is at most 1.3 times the
    mean one up to there, near enough for moves of less than a percent.
    """
    turns = ratio / rate
    return ratio * (1.0 + 1.3 * by) / (1.0 - turns * by)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_margin_ratio_leaves_the_band_for_one_close_at_most(side: float):
    """Moves of up to 0.3 % an hour: over the band only where the bar itself took it there, by no
    more than one such move, and from the next open on at the target but for that bar's move."""
    market = gentle_walk(6000, 0.003, seed=44)
    account = bt.Account(capital=5e6)
    policy = MarginBuffer(target=0.06, low=0.8, high=1.25)
    result = live(market, policy, venue=tiered(), account=account, signal=side)
    bars = result.bars[1:]
    ratio, target = bars["margin_ratio"].to_numpy(), bars["target"].to_numpy()
    is_out = (ratio < 0.048) | (ratio > 0.075)
    np.testing.assert_array_equal(is_out, ~np.isnan(target))
    assert is_out.sum() > 3
    assert not (is_out[1:] & is_out[:-1]).any()
    rate = bt.margin.maintenance(PRESET, 1.0)
    assert ratio.max() <= move(0.075, 0.003, rate)
    after = ratio[1:][is_out[:-1]]
    assert after.max() <= move(0.06, 0.003, rate)
    assert after.min() >= move(0.06, -0.003, rate)
    assert result.metrics["liquidations"] == 0


def test_margin_buffer_takes_up_leverage_again_when_the_price_has_run_with_it():
    """A rate of 0.4 %, 5 turns, and the price doubles: 5 * 2 / 6 turns, a third of the target."""
    market = market_of(np.array([100.0, 100.0, 200.0, 200.0, 200.0]))
    settings = {"venue": tiered(), "account": bt.Account(capital=1000.0), "compile": False}
    bars = live(market, MarginBuffer(target=0.02), **settings).bars
    np.testing.assert_allclose(bars["leverage"][1:4], [5.0, 5.0 * 2.0 / 6.0, 5.0], rtol=1e-9)
    assert bars["margin_ratio"].iloc[3] == pytest.approx(0.02, rel=1e-9)


def test_margin_buffer_follows_the_signal_at_once():
    """Long, short, half, out and in again, at a standing price."""
    signal = np.repeat([1.0, -1.0, -0.5, -1.0, 0.0, 1.0], 4)
    market = market_of(np.full(24, 20_000.0))
    bars = live(
        market, MarginBuffer(target=0.02, low=0.9, high=1.5), venue=tiered(), signal=signal,
        compile=False,
    ).bars  # fmt: skip
    held = bars["position"].to_numpy()[2::4]
    full = held[0]
    assert full > 0.0
    np.testing.assert_allclose(held, full * np.array([1, -1, -0.5, -1, 0, 1]), rtol=1e-9)

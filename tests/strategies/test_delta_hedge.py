"""Delta hedging: quantities by hand, and truth 4 on simulated paths."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import options
from backtest.strategies import Constant, DeltaHedge
from benchmarks.hedging_error import (
    ALWAYS,
    SIGMA,
    SPOT,
    YEARS,
    compute_error,
    find_gains,
    hedge,
    integrate_gamma,
    simulate,
)

pytestmark = pytest.mark.filterwarnings("ignore:volatility is flat before")
N_PATHS = 40


def test_at_its_true_volatility_it_earns_nothing_and_errs_by_the_root_of_the_steps():
    """Truth 4: zero within two standard errors; the error is that of the theorem, halved by 4 n."""
    spreads = []
    for n in (16, 64):
        gains = find_gains(hedge(simulate(n, N_PATHS, finest=64), SIGMA), N_PATHS)
        error = gains.std(ddof=1)
        assert abs(gains.mean()) < 2.0 * error / math.sqrt(N_PATHS)
        assert error == pytest.approx(compute_error(n), rel=3.0 / math.sqrt(2 * N_PATHS))
        spreads.append(error)
    assert spreads[0] / spreads[1] == pytest.approx(2.0, rel=0.3)


@pytest.mark.parametrize("implied", [0.45, 0.8])
def test_at_a_wrong_volatility_it_earns_the_integral_of_gamma(implied: float):
    """Truth 4: bought and hedged at 45 % it earns what gamma gives; at 80 % it loses that."""
    paths = simulate(64, N_PATHS, finest=64)
    gains = find_gains(hedge(paths, implied), N_PATHS)
    expected = integrate_gamma(paths, implied)
    rest = gains - expected
    assert abs(rest.mean()) < 2.0 * rest.std(ddof=1) / math.sqrt(N_PATHS)
    assert abs(expected.mean()) > 5.0 * abs(rest.mean())
    assert np.sign(gains.mean()) == np.sign(SIGMA - implied)


def test_the_hedge_is_the_delta_of_the_last_close_in_cash_and_in_coins():
    """In cash -delta F / S coins; in coins (delta - V/F) S / m contracts of m = 1e-6 dollars."""
    path = simulate(16, 1, finest=64)
    for kind in ("linear", "inverse"):
        result = hedge(path, SIGMA, ALWAYS, kind=kind)
        spot, years = path[0][1], YEARS * 15 / 16
        place = ("call", spot, SPOT, years, SIGMA)
        delta, value = options.greeks(*place).delta, options.price(*place)
        known = -delta if kind == "linear" else -(delta - value / spot) * spot
        assert result.bars["position"].iloc[3] * 1e-6 == pytest.approx(known, rel=1e-9)


def test_a_band_waits_and_its_edge_is_as_far_as_a_hedge_goes():
    """After a hedge the exposure at the close that ordered it is 0, or at the edge of the band."""
    for edge, kept in (("zero", 0.0), ("band", 0.02)):
        policy = DeltaHedge(Constant(0.0), band=0.02, edge=edge)
        result = hedge(simulate(16, 1, finest=64), SIGMA, policy, quantity=100.0)
        bars, events = result.bars, result.events
        fills = events[(events["kind"] == "fill") & (events["instrument"] == "A0")]
        assert 1 < len(fills) < 16
        after = bars.index.get_indexer(pd.DatetimeIndex(fills["time"]))
        calls = result.positions[result.positions["instrument"] == "CA0"].set_index("time")
        delta = calls["notional"][bars.index[after - 1]].to_numpy()
        held = 1e-6 * bars["position"].to_numpy()[after] * fills["price"].to_numpy()
        exposure = (delta + held) / bars["equity"].to_numpy()[after - 1]
        assert np.abs(exposure) == pytest.approx(kept, abs=1e-9)


def test_in_money_the_coins_count():
    """100 coins are sold short in full, one turn; with a target of 1 they are kept."""
    given = {"kind": "inverse", "quantity": 0.0}
    for target, leverage in ((0.0, -1.0), (1.0, 0.0)):
        policy = DeltaHedge(Constant(0.0), band=0.0, numeraire="money", target=target)
        found = hedge(simulate(16, 1, finest=64), SIGMA, policy, **given).bars["leverage"]
        assert found.iloc[3:].to_numpy() == pytest.approx(leverage, rel=1e-9)


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_a_result_tells_the_hedging_error(kind: str, tmp_path: Path):
    """Theory is gamma of each close times the realized variance less the implied; in coins over S.

    The account holds the call from the first of two quiet bars on. The mark has its first return in
    the second one: 65 returns, the last 64 on the path. Both quiet bars earn theta alone.
    """
    paths, implied = simulate(64, 2, finest=64), 0.45
    result = hedge(paths, implied, ALWAYS, kind=kind)
    table = result.hedging_error()
    assert table.index.tolist() == ["A0", "A1"]
    for i, path in enumerate(paths):
        row, step = table.iloc[i], YEARS / 64
        moves = np.diff(np.log(np.concatenate(([path[0]], path))))
        variance = (moves**2).sum() / (65 * step)
        spots = np.concatenate(([path[0]], path[:-1]))
        left = YEARS + step - step * np.arange(65)
        gamma = options.greeks("call", spots, SPOT, left, implied).gamma
        weights = gamma * spots ** (2 if kind == "linear" else 1) * step
        assert row["volatility"] == pytest.approx(math.sqrt(variance), rel=1e-9)
        assert row["implied_volatility"] == pytest.approx(implied, rel=1e-9)
        theory = 0.5 * (variance - implied**2) * weights.sum()
        assert row["theory"] == pytest.approx(theory, rel=1e-6)
        spread = variance * math.sqrt(0.5 * (weights**2).sum())
        assert row["expected_deviation"] == pytest.approx(spread, rel=1e-6)
        own = result.positions[result.positions["instrument"].isin([f"A{i}", f"CA{i}"])]
        assert row["profit"] == pytest.approx(own["price_pnl"].sum())
        assert row["error"] == pytest.approx(row["profit"] - theory)
        assert 0.3 < row["deviation"] / spread < 2.0
    by_bar = result.hedging_error("bar")
    assert by_bar.sum().tolist() == pytest.approx(table[[*by_bar]].sum().tolist())
    assert bt.Result.load(result.save(tmp_path)).hedging_error().equals(table)
    assert "Hedging error of each instrument" in result.summary()
    assert "Hedging error of each instrument" in result.report(tmp_path / "run.md").read_text()

"""``max_gross_leverage`` is a cap on targets, and isolated margin is posted in full."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.agreement import assert_agrees, bracket, flat, scene, tape
from tests.draws import HOUR, START, utc
from tests.kit import make_market, make_venue

NAN, INF = math.nan, math.inf
TEN = {"*": {"brackets": [bracket(0.02, 10.0)]}}


def held_after(targets: dict[str, tuple[float, ...]], equity: float, **account) -> list[float]:
    """Return what is held in turns after the last fill; at its open the equity is 10,000.

    The account begins with ``equity`` and withdraws the rest. Reference and engine agree on it.
    """
    flows = pd.Series([10_000.0 - equity], index=utc([START + 2 * HOUR]))
    tapes = {name: tape([flat(100)] * 3, target) for name, target in targets.items()}
    signal = dict.fromkeys(tapes, 1.0)
    given = {"capital": equity, "flows": flows, "max_gross_leverage": 2.0, **account}
    out = assert_agrees(scene(tapes, signal, venues=TEN, **given), "by hand")
    return [float(quantity) * 100 / 10_000 for quantity in out.quantity[2]]


@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_what_has_no_target_counts_with_what_it_holds(margin):
    """A holds 1.5; B decides 1.2 and gets the 0.5 that are left of 2."""
    terms = {"margin": margin, "venue_leverage": 10.0, "band": 0.1}
    held = held_after({"A": (15 / 11, NAN), "B": (7 / 11, 1.2)}, 11_000.0, **terms)
    assert held == pytest.approx([1.5, 0.5], abs=1e-12)


def test_what_has_no_target_may_leave_nothing():
    """A has risen to 2.2 of a cap of 2, by the withdrawal; B closes, within its band or not."""
    held = held_after({"A": (1.8, NAN), "B": (0.1, 0.1)}, 12_222.0, band=0.2)
    assert held == pytest.approx([1.8 * 1.2222, 0.0], abs=1e-12)


def test_the_band_is_tested_on_the_scaled_target():
    """2.2 become 1.364 and 0.636; A fills, B is kept: 2.064 stand, as they are not over 2.2."""
    held = held_after({"A": (15 / 11, 1.5), "B": (7 / 11, 0.7)}, 11_000.0, band=0.1)
    assert held == pytest.approx([15 / 11, 0.7], abs=1e-12)


def test_bands_keep_at_most_a_tenth_above_the_cap():
    """Ten coins at 0.29 decide 0.2, within a band of 0.1: 2.9 are over 2.2, so all trade."""
    targets = {f"C{k}": (0.2, 0.2) for k in range(10)}
    assert held_after(targets, 14_500.0, band=0.1) == pytest.approx([0.2] * 10, abs=1e-12)
    # at 0.21 the 2.1 stand
    assert held_after(targets, 10_500.0, band=0.1) == pytest.approx([0.21] * 10, abs=1e-12)


def test_an_infinite_target_is_what_the_margin_allows_in_it_alone():
    """10 of A and 0.5 of B, scaled to 2."""
    held = held_after({"A": (0.0, INF), "B": (0.0, 0.5)}, 10_000.0)
    assert held == pytest.approx([20 / 10.5, 1 / 10.5], abs=1e-12)
    assert [round(each, 3) for each in held] == [1.905, 0.095]


# ------------------------------------------------------------------------------- whole runs


def make_coin(seed: int) -> bt.Market:
    """Return 120 wild hours without funding."""
    rng = np.random.default_rng(seed)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 240))).reshape(-1, 2)
    high, low = prices.max(axis=1), prices.min(axis=1)
    return make_market(np.column_stack([prices[:, 0], high, low, prices[:, 1]]))


COINS = {name: make_coin(seed) for seed, name in enumerate(("A", "B", "C"))}
MIXED = {"margin": {"A": "cross", "B": "isolated", "C": "cross"}, "venue_leverage": 12.0}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("policy", "cap", "overlay", "terms"), [
    (Constant(leverage=4.0), 2.0, None, {}),
    (Constant(leverage=4.0), 2.0, None, {"band": 0.05}),
    (Constant(leverage=1.0), 2.0, Constant(leverage=3.0), {}),
    (Constant(leverage=6.0), 5.0, None, MIXED),
])  # fmt: skip
def test_gross_leverage_after_fills_is_at_most_the_cap(policy, cap, overlay, terms):
    """With bands at most 1.1 times the cap; the table of cuts and the summary tell of it."""
    account = bt.Account(capital=10_000.0, max_gross_leverage=cap, **terms)
    markets, venue = bt.Markets(COINS), make_venue(taker=5e-4, maintenance_rate=0.02)
    weights = dict.fromkeys(COINS, 1.0)
    result = bt.run(
        markets, policy, venue=venue, account=account, signal=weights, overlay=overlay,
    )  # fmt: skip
    gross = gross_after_fills(result)
    assert gross.max() <= cap * (1.1 if "band" in terms else 1.0) * (1.0 + 1e-9)
    assert gross.max() >= cap * (1.0 - 1e-9)
    closes = result.risk()["gross_leverage"]
    metrics = result.metrics
    assert metrics["gross_over_cap"] == pytest.approx((closes > cap).mean(), abs=1e-12)
    assert 0.0 < metrics["gross_over_cap"] < 1.0
    assert metrics["peak_leverage"] == pytest.approx(closes.max(), rel=1e-12)
    text = " ".join(result.summary().split())
    assert f"above the cap of {cap:.2f}x at" in text
    cuts = result.target_cuts().loc["all"]
    assert cuts.loc["max_gross_leverage", "decisions"] > 50
    others = {"wallet", "initial_margin"} if "margin" in terms else {"band"}
    assert set(cuts.index) <= {"all", "max_gross_leverage", *others}


def gross_after_fills(result) -> np.ndarray:
    """Return gross leverage after the fills of each bar but the first, by the opens."""
    opens = np.column_stack([market.open for market in COINS.values()])
    closes = np.column_stack([market.close for market in COINS.values()])
    held, equity = result.quantities.to_numpy(), result.bars["equity"].to_numpy()
    moved = (held[:-1] * (opens[1:] - closes[:-1])).sum(axis=1)
    return np.abs(held[1:] * opens[1:]).sum(axis=1) / (equity[:-1] + moved)


# --------------------------------------------------------------------- isolated and cross orders


def test_isolated_margin_leaves_the_fees_of_cross_orders():
    """A, cross, has gained half at bar 3; there it is raised to 3x, and B is opened isolated.

    The balance is 998 after a fee of 2; 3x of 1998 trade 2994, a fee of 2.994; 995.006 carry B.
    """
    tapes = {
        "A": tape([flat(100), flat(100), flat(150), flat(150)], (2.0, NAN, 3.0)),
        "B": tape([flat(1)] * 4, (0.0, 0.0, 10.0)),
    }
    terms = {
        "margin": {"A": "cross", "B": "isolated"},
        "venue_leverage": {"A": None, "B": 10.0},
        "venues": {"*": {"fees": {"taker": 0.001}}},
    }
    out = assert_agrees(scene(tapes, {"A": 1.0, "B": 1.0}, **terms), "by hand")
    notional = (998 - Fraction(2994, 1000)) / (Fraction(1, 10) + Fraction(1, 1000))
    assert float(out.quantity[3][0]) == pytest.approx(3 * 1998 / 150, rel=1e-12)
    assert float(out.quantity[3][1]) == pytest.approx(float(notional), rel=1e-12)
    assert float(out.margin[3][1]) == pytest.approx(float(notional / 10), rel=1e-12)


def test_the_loss_of_a_cross_flip_does_not_shrink_isolated_margin():
    """A flips at a loss of 600; B posts its 600 of a balance of 1000, which is then -200."""
    tapes = {
        "A": tape([flat(100), flat(100), flat(80), flat(80)], (3.0, NAN, 1.0)),
        "B": tape([flat(1)] * 4, (0.0, 0.0, 6.0)),
        "C": tape([flat(10), flat(10), flat(16), flat(16)], (1.0, NAN)),
    }
    out = assert_agrees(
        scene(
            tapes,
            {"A": [1.0, 1.0, -1.0, -1.0], "B": 1.0, "C": 1.0},
            margin={"A": "cross", "B": "isolated", "C": "cross"},
            venue_leverage={"A": None, "B": 10.0, "C": None},
        ),
        "by hand",
    )
    assert float(out.quantity[3][1]) == pytest.approx(6000)
    assert float(out.margin[3][1]) == pytest.approx(600)
    # w and the entries of A and C: 1000 - 600 - 600 = -200
    assert float(out.cash[3] + out.quantity[3][0] * 80 + out.quantity[3][2] * 10) == pytest.approx(
        -200
    )

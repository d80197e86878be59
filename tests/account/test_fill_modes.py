"""Fills at the next open, at the next close, and at the close of the decision."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.agreement import FLAT, near, play

FREE = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.001, max_leverage=100, liquidation_fee=0.0
)
MODES = ("next_open", "next_close", "same_close")


def make_market(n: int = 300, seed: int = 0, **columns: object) -> bt.Market:
    """Return daily bars with gaps, for which 3x is never liquidated."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    start = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0.0, 0.005, n))
    frame = pd.DataFrame(
        {
            "open": start,
            "high": 1.001 * np.maximum(start, close),
            "low": 0.999 * np.minimum(start, close),
            "close": close,
            "volume": 1e6,
            **columns,
        },
        index=pd.date_range("2020-01-01", periods=n, freq="D", tz="UTC"),
    )
    return bt.Market.from_frames(frame, instrument="TEST")


MARKET = make_market()
RETURNS = MARKET.close[1:] / MARKET.close[:-1] - 1.0


def run(leverage: float, market: bt.Market = MARKET, **terms: object) -> bt.Result:
    given = {"venue": FREE, "account": bt.Account(fill="same_close"), "compile": False, **terms}
    return bt.run(market, Constant(leverage=leverage), **given)


@pytest.mark.parametrize("leverage", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_same_close_compounds_leverage_times_each_return(leverage, side):
    """Without costs a constant leverage L is the product of 1 + L r_t, the formula of funds."""
    found = run(leverage, signal=side)
    expected = np.cumprod(1.0 + side * leverage * RETURNS)
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[1:], expected, rtol=1e-9)


def test_same_close_pays_interest_on_the_new_loan():
    """prod(1 + L r_t - (L - 1) f dt): what was borrowed at a close pays from that close on."""
    rate, leverage = 0.05, 3.0
    venue = FREE.override(borrow_rate=rate, interest_on="loan")
    found = run(leverage, venue=venue)
    expected = np.cumprod(1.0 + leverage * RETURNS - (leverage - 1.0) * rate / 365.0)
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[1:], expected, rtol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_same_close_of_an_inverse_contract(side):
    """In the coin: q u = L E, so E' / E = 1 + s L (1 - P0 / P1)."""
    contract = bt.Contract(kind="inverse", size=100.0, lot=0.0, tick=0.1)
    venue = FREE.override(contract=contract)
    account = bt.Account(capital=1.0, fill="same_close")
    found = run(2.0, venue=venue, account=account, signal=side)
    factors = 1.0 + side * 2.0 * (1.0 - MARKET.close[:-1] / MARKET.close[1:])
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[1:], np.cumprod(factors), rtol=1e-9)


def test_same_close_is_said_to_be_optimistic():
    assert "are optimistic" in " ".join(run(1.0).list_assumptions())
    assert "are optimistic" not in " ".join(run(1.0, account=bt.Account()).list_assumptions())


def test_same_close_has_nothing_to_attribute_to_fills():
    """The leverage held over each bar is the target, and its return that of the bar."""
    found = run(2.0)
    assert abs(found.attribution().fills) < 1e-12
    assert found.metrics["mean_leverage"] == pytest.approx(2.0, abs=0.1)
    cuts = found.target_cuts()
    assert cuts.loc["all", "mean_held"] == pytest.approx(2.0, rel=1e-12)
    assert list(cuts.index) == ["all"]


def test_next_close_is_same_close_one_bar_later():
    """A buyer at the next close misses the return of one more bar."""
    account = bt.Account(fill="next_close")
    found = run(1.0, account=account)
    expected = np.cumprod(1.0 + RETURNS[1:])
    np.testing.assert_allclose(found.bars["unit"].to_numpy()[2:], expected, rtol=1e-9)
    assert found.bars["position"].iloc[0] == 0.0
    assert found.bars["position"].iloc[1] > 0.0
    assert abs(found.attribution().fills) < 1e-12


def test_fills_by_hand():
    """Bars end at 100, 110, 99; a target of 2 decided at the first close.

    next_open: 20 at the open of 104: 1000 + 20 (110 - 104) = 1120... with 2000 / 104 contracts.
    next_close: 2000 / 110 contracts at 110. same_close: 20 contracts at 100.
    """
    bars = (FLAT, (104.0, 112.0, 103.0, 110.0), (108.0, 109.0, 98.0, 99.0))
    known = {
        "next_open": (2000 / 104, 1000 + 2000 / 104 * 6),
        "next_close": (2000 / 110, 1000.0),
        "same_close": (20.0, 1200.0),
    }
    for mode, (quantity, equity) in known.items():
        out = play(*bars, targets=(2.0, np.nan), fill=mode)
        assert near(out.quantity[1], quantity)
        assert near(out.equity[1], equity)
        assert near(out.equity[2], equity + quantity * (99 - 110))


def test_same_close_meets_the_gap_and_the_funding_of_the_next_open():
    """The position bought at the close of 100 pays funding at the open, and falls with the gap."""
    bars, funding = (FLAT, (90.0, 90.0, 90.0, 90.0)), ((1.0, 0.01, 90.0),)
    early = play(*bars, targets=(2.0,), fill="same_close", funding=funding)
    # 20 contracts: 20 * 90 * 1 % = 18 paid, 20 * 10 = 200 lost
    assert near(early.funding[1], 18)
    assert near(early.equity[1], 782)
    late = play(*bars, targets=(2.0,), fill="next_close", funding=funding)
    assert late.funding[1] == 0
    assert near(late.equity[1], 1000)


def test_a_liquidation_in_the_bar_drops_the_decision_of_a_late_fill():
    """Position of 10x bought at the close of bar 1 dies in bar 2; bar 2 opens no new one."""
    bars = (FLAT, FLAT, (100.0, 100.0, 80.0, 100.0), FLAT)
    out = play(*bars, targets=(10.0,), fill="next_close")
    assert [float(x) for x in out.quantity[:3]] == [0.0, pytest.approx(100.0), 0.0]
    assert out.quantity[3] > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_goes_on_bit_for_bit(mode, tmp_path):
    """Saved after 150 bars and resumed, with stops of every kind: the same bars and events."""
    width = np.full(300, 2.0)
    market = make_market(width=width)
    account = bt.Account(
        fill=mode,
        stop_loss=bt.Multiple(3.0, "width"),
        trailing_stop=0.04,
        take_profit=0.05,
        equity_stop=0.15,
    )
    whole = run(3.0, market, account=account)
    half = run(3.0, market.slice(0, 150), account=account)
    loaded = bt.Result.load(half.save(tmp_path))
    assert loaded.account == account
    rest = run(3.0, market, account=account, resume=loaded)
    for name in ("equity", "position", "price_pnl", "fees"):
        np.testing.assert_array_equal(rest.bars[name], whole.bars[name].iloc[150:])
    for name in ("stops", "take_profits", "liquidations"):
        assert half.metrics[name] + rest.metrics[name] == whole.metrics[name], name
    assert whole.metrics["stops"] > 3
    assert whole.metrics["take_profits"] > 3


@pytest.mark.parametrize("mode", MODES)
def test_target_cuts_add_up_in_every_mode(mode):
    """Lots, band, bounds and the margin: what each took adds up to asked less held."""
    venue = FREE.override(
        contract=bt.Contract(lot=3.0, min_notional=100.0), slippage=bt.Slippage(rate=1e-3)
    )
    account = bt.Account(fill=mode, band=0.05, max_leverage=2.5, margin_call=None, stop_loss=0.03)
    found = run(2.7, venue=venue, account=account, signal=0.9)
    cuts = found.target_cuts()
    total = cuts.loc["all"]
    parts = cuts.drop(index="all")
    missing = total["mean_asked"] - total["mean_held"]
    share = (parts["mean_shortfall"] * parts["share"]).sum()
    assert missing == pytest.approx(share, abs=1e-9)
    assert {"max_leverage", "lot", "band"} <= set(parts.index)
    assert "margin_call" not in parts.index

"""A result of one instrument and one of several answer to the same names."""

import numpy as np
import pytest

import backtest as bt

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=1_000)


def test_results_of_one_and_of_several_have_the_same_names():
    """Instruments, venues, policies, markets, marks and fields of the record."""
    market = bt.Market.sample(bars=60)
    policy = bt.strategies.Constant(2.0)
    one = bt.run(market, policy, venue=VENUE, account=ACCOUNT, compile=False)
    pair = bt.Markets({"A": market, "B": market})
    two = bt.run(pair, policy, venue=VENUE, account=ACCOUNT, compile=False)
    for result, n in ((one, 1), (two, 2)):
        assert len(result.names) == n
        assert list(result.venues) == list(result.policies) == list(result.names)
        assert result.overlay is None
        assert result.markets.names == result.names
        assert result.spans.tolist() == [[0, 60]] * n
        assert list(result.contagion().columns[:3]) == ["liquidation", "time", "cause"]
        assert result.contagion().empty
        assert len(result.diversity) == 2 * (n > 1)
        assert result.last_time == result.time[-1] == market.time[-1]
        assert result.marks.shape == result.of_positions("quantity").shape == (60, n)
        np.testing.assert_array_equal(result.of_account("equity"), result.bars["equity"])
    np.testing.assert_array_equal(one.of_positions("quantity")[:, 0], one.bars["position"])


PAIR = bt.Markets(
    {"A": bt.Market.sample(bars=240), "B": bt.Market.sample(bars=240, seed=3).between("2023-01-03")}
)


@pytest.fixture(scope="module")
def two():
    """Return a run of two instruments, one of them listed later."""
    policy = bt.strategies.Constant(2.0)
    return bt.run(PAIR, policy, venue=VENUE, account=ACCOUNT, compile=False)


def test_several_positions_have_what_one_has(two, tmp_path):
    """The use of capital, forecasts and attribution by period; loaded as made."""
    bars = two.bars
    assert np.all(bars["available"] <= bars["backing"] + 1e-9)
    np.testing.assert_allclose(
        bars["unrealized_pnl"].iloc[-1], two.positions["profit"].iloc[-2:].sum()
    )
    gained = (bars["price_pnl"] - bars["slippage"] - bars["impact"]).sum()
    realized = bars["realized_pnl"].sum() + bars["unrealized_pnl"].iloc[-1]
    assert realized == pytest.approx(gained, rel=1e-9)
    assert two.volatility_forecast.shape == (240, 2)
    assert np.isnan(two.volatility_forecast[:48, 1]).all()
    weekly = two.attribution("week").groupby(level="instrument").sum()
    whole = two.attribution()
    np.testing.assert_allclose(weekly.loc[whole.index], whole, atol=1e-9)
    loaded = bt.Result.load(two.save(tmp_path))
    assert loaded.bars.equals(bars)


@pytest.mark.slow
def test_the_returns_at_vectorbt_are_those_of_the_account(two):
    total = two.to_vectorbt().total()
    assert total == pytest.approx(two.metrics["total_return"], rel=1e-9)


def test_a_resumed_run_of_several_needs_no_earlier_bars(two):
    """Markets that begin after the start get the bars of the earlier run in front."""
    terms = {"venue": VENUE, "account": ACCOUNT, "compile": False}
    policy = bt.strategies.Constant(2.0)
    head = bt.run(PAIR.prefix(100), policy, **terms)
    tail = bt.run(PAIR.slice(90, 240), policy, resume=head, **terms)
    np.testing.assert_array_equal(tail.record.values, two.record.values[100:])
    np.testing.assert_array_equal(tail.bars["unit"], two.bars["unit"].iloc[100:])
    with pytest.raises(bt.ParameterError, match="single venue, got 2 instruments"):
        _ = two.venue
    with pytest.raises(bt.ParameterError, match="the same instruments in the same order, A, B"):
        bt.run(PAIR.select("A"), policy, resume=head, overlay=policy, **terms)
    fees = VENUE.override({"fees.taker": 0.001})
    others = {"venue": {"A": fees, "B": VENUE}, "account": bt.Account(capital=2_000)}
    with pytest.raises(bt.ParameterError, match=r"another account\.capital, venue\.fees of A"):
        bt.run(PAIR, policy, resume=head, **terms | others)

"""An account with several positions: by hand, compiled and plain, saved, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError, PolicyError
from backtest.engine import Result
from backtest.measures.history import diversification_ratio, risk_shares
from backtest.strategies import VolTarget
from tests.kit import (
    Hold,
    Once,
    flat,
    make_market,
    make_venue,
    simulate_pair,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def run(markets, policy=None, **terms):
    given = {"venue": make_venue(), "account": bt.Account(capital=1_000.0)}
    return bt.run(markets, policy or Hold(1.0), **{**given, **terms})


def two(first, second):
    return bt.Markets({"A": make_market(first), "B": make_market(second)}, currency="USDT")


def test_two_positions_share_one_equity():
    # 1/2 in each of 1,000: 5 A at 100, 10 B at 50. A falls to 90: -50, B rises to 55: +50.
    markets = two(
        [flat(100), flat(100), (100, 100, 90, 90)], [flat(50), flat(50), (50, 55, 50, 55)]
    )
    result = run(markets, Once(1.0))
    assert result.quantities.iloc[-1].tolist() == [5.0, 10.0]
    assert result.bars["equity"].tolist() == [1_000.0, 1_000.0, 1_000.0]
    assert result.bars["gross_leverage"].iloc[-1] == (5 * 90 + 10 * 55) / 1_000
    assert result.attribution()["net"].to_dict() == {
        "A": -50.0, "B": 50.0, "account": 0.0, "total": 0.0,
    }  # fmt: skip


def test_a_loss_of_one_position_liquidates_the_other():
    # 5x in each half: long 2,500 of A and short 2,500 of B. B rises from 50 to 70: -1,000, so the
    # equity of 1,000 is under 5 % of 2,500 + 3,500 before: A closes though it is at 100 unchanged.
    markets = two([flat(100)] * 3, [flat(50), flat(50), (50, 70, 50, 70)])
    signal = {"A": 0.5, "B": -0.5}
    result = run(markets, Once(5.0), signal=signal)
    assert result.quantities.iloc[-1].tolist() == [0.0, 0.0]
    table = result.contagion()
    assert table["share"].sum() == pytest.approx(1.0, abs=1e-12)
    assert table["cause"].tolist() == ["B"]
    # A fails where 1,000 - 50 d = .05 (2,500 + 2,500 + 50 d) for a rise d of B: d = 750 / 52.5
    place = 50.0 + 750.0 / 52.5
    hit = result.events[result.events["kind"] == "liquidation"].set_index("instrument")
    assert hit.loc["B", "price"] == pytest.approx(place, rel=1e-12)
    assert result.bars["equity"].iloc[-1] == pytest.approx(1_000.0 - 50.0 * (place - 50.0))


def test_isolated_positions_do_not_pull_each_other_down():
    markets = two([flat(100)] * 3, [flat(50), flat(50), (50, 70, 50, 70)])
    account = bt.Account(capital=1_000.0, margin="isolated", venue_leverage=10.0)
    result = run(markets, Once(2.0), signal={"A": 0.5, "B": -0.5}, account=account)
    assert result.quantities.iloc[-1].tolist() == [10.0, 0.0]  # 1,000 of A stay
    assert result.contagion().empty


def test_increases_shrink_by_one_factor():
    # 30x in each half asks for 15,000 + 15,000 with 1,000 and 20x: both become 10,000
    venue = make_venue(maintenance_rate=0.02)
    result = run(two([flat(100)] * 3, [flat(50)] * 3), Once(30.0), venue=venue)
    assert result.quantities.iloc[-1].tolist() == pytest.approx([100.0, 200.0], rel=1e-12)


def test_gross_leverage_is_limited():
    account = bt.Account(capital=1_000.0, max_gross_leverage=3.0)
    result = run(two([flat(100)] * 3, [flat(50)] * 3), Once(4.0), account=account)
    assert result.bars["gross_leverage"].iloc[-1] == pytest.approx(3.0, rel=1e-12)


def test_an_overlay_scales_all_targets():
    result = run(simulate_pair(200), Hold(1.0), overlay=Hold(0.5))
    known = result.bars["gross_leverage"].iloc[60:150]
    assert 0.4 < known.median() < 0.6
    limited = run(
        simulate_pair(200), overlay=Hold(9.0), account=bt.Account(capital=1e3, max_overlay=2.0)
    )
    assert limited.bars["overlay"].iloc[-1] == 2.0


def test_a_delisted_instrument_is_closed_with_an_event():
    with pytest.warns(UserWarning, match="BBB ends before"):
        result = run(simulate_pair(100))
    events = result.events[result.events["kind"] == "delisted"]
    assert events["instrument"].tolist() == ["BBB"]
    assert result.quantities["BBB"].iloc[-1] == 0.0


def test_collateral_backs_positions_and_is_sold_when_money_is_short():
    # 1 C worth 500 at rate .8; money 1,000. 10x long of A: 15,000 of equity 1,500, falls by 10 %:
    # B = -1,500 under the limit 0 once it is closed. Interest aside nothing else moves.
    index = make_market([flat(500)] * 4)
    asset = bt.Collateral("C", amount=1.0, prices=index, rate=0.8, slippage=0.1)
    account = bt.Account(capital=1_000.0, collateral=[asset], negative_limit=0.0)
    markets = two([flat(100), flat(100), flat(90), flat(90)], [flat(50)] * 4)
    result = run(
        markets, {"A": Once(1.0), "B": Hold(0.0)}, signal={"A": 1, "B": 1}, account=account
    )
    bars = result.bars
    assert bars["equity"].iloc[0] == 1_500.0
    assert bars["backing"].iloc[0] == 1_400.0
    assert result.quantities["A"].iloc[-1] == 15.0  # 1x of the equity of 1,500
    assert bars["equity"].iloc[-1] == 1_350.0
    assert bars["collateral_pnl"].sum() == 0.0


def test_the_terms_of_all_instruments_add_up():
    venue = make_venue(taker=5e-4, slippage=1e-4, liquidation_fee=0.01)
    result = run(simulate_pair(400), Hold(18.0), venue=venue)
    bars, table = result.bars, result.attribution()
    costs = ["fees", "slippage", "impact", "funding", "interest", "liquidation_loss", "conversion"]
    gains = bars[["price_pnl", "collateral_pnl", "flows", "bad_debt"]].sum(axis=1)
    change = bars["equity"].diff().fillna(bars["equity"].iloc[0] - 1_000.0)
    assert np.allclose(change, gains - bars[costs].sum(axis=1), atol=1e-9 * 1_000.0)
    parts = table.drop(index="total").sum()
    assert np.allclose(parts, table.loc["total"], atol=1e-9)
    assert result.metrics["liquidations"] >= 1.0


@pytest.mark.slow
def test_compiled_and_plain_give_the_same_bits():
    venue = make_venue(taker=5e-4, slippage=1e-4, liquidation_fee=0.01, mode="partial")
    for account in (
        bt.Account(capital=1_000.0, stop_loss=0.05, band=0.1),
        bt.Account(capital=1_000.0, margin={"AAA": "cross", "BBB": "isolated"}, venue_leverage=8.0),
        bt.Account(
            capital=1_000.0,
            requirement=bt.ScenarioMargin(moves=[(-0.1, 1), (0.1, 1)], initial=(1.5, 0.01)),
        ),
    ):
        for policy in (Hold(6.0), VolTarget(target=2.0)):
            terms = {"venue": venue, "account": account, "overlay": VolTarget(target=0.5)}
            plain = run(simulate_pair(300), policy, **terms)
            compiled = run(simulate_pair(300), policy, **terms, compile=True)
            assert np.array_equal(plain.record.values, compiled.record.values, equal_nan=True)
            assert np.array_equal(plain.entries, compiled.entries, equal_nan=True)
            for one, other in zip(plain.closes, compiled.closes, strict=True):
                assert np.array_equal(one, other, equal_nan=True)


def test_one_instrument_is_the_single_run():
    market = bt.Market.sample(bars=300)
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT")}
    account = bt.Account(capital=1_000.0)
    alone = bt.run(market, VolTarget(target=1.0), account=account, **terms)
    named = bt.run(
        bt.Markets({"A": market}), {"A": VolTarget(target=1.0)}, account=account, **terms
    )
    assert type(named) is type(alone)
    assert named.manifest["id"] == alone.manifest["id"]
    assert np.array_equal(named.record.values, alone.record.values, equal_nan=True)
    assert np.array_equal(named.entries, alone.entries, equal_nan=True)


def test_a_saved_result_is_the_same(tmp_path):
    result = run(simulate_pair(200), Hold(4.0))
    folder = result.save(tmp_path)
    again = Result.load(folder)
    assert [str(value) for value in again.metrics.values()] == [
        str(value) for value in result.metrics.values()
    ]
    pd.testing.assert_frame_equal(again.positions, result.positions)
    pd.testing.assert_frame_equal(again.events, result.events)
    pd.testing.assert_frame_equal(again.contagion(), result.contagion())
    assert again.save(tmp_path / "again").name == folder.name
    assert (tmp_path / "again" / folder.name / "metrics.json").read_bytes() == (
        folder / "metrics.json"
    ).read_bytes()


def test_risk_of_two_uncorrelated_positions_of_equal_risk():
    weights, covariance = np.array([0.5, 0.25]), np.diag([0.04, 0.16])
    assert risk_shares(weights, covariance).tolist() == [0.5, 0.5]
    # (.5 x .2 + .25 x .4) / sqrt(.25 x .04 + .0625 x .16) = .2 / sqrt(.02)
    assert diversification_ratio(weights, covariance) == pytest.approx(2**0.5)


def test_risk_of_a_flat_portfolio_is_unknown():
    assert np.isnan(risk_shares(np.zeros(2), np.eye(2))).all()
    assert np.isnan(diversification_ratio(np.zeros(2), np.eye(2)))


def test_an_infinite_overlay_is_an_error():
    class Endless(bt.Policy):
        def leverage(self, bar, account):
            return float("inf")

    with pytest.raises(PolicyError, match="that of an overlay finite"):
        run(simulate_pair(20), overlay=Endless())


def test_a_policy_sees_gross_and_net_leverage():
    seen = []

    class Look(bt.Policy):
        def leverage(self, bar, account):
            seen.append((account.gross_leverage, account.net_leverage, account.leverage))
            return 1.0

    run(two([flat(100)] * 3, [flat(50)] * 3), Look(), signal={"A": 0.5, "B": -0.5})
    assert seen[-2:] == [(1.0, 0.0, 0.5), (1.0, 0.0, -0.5)]


def test_a_row_of_a_sweep_is_its_run():
    markets = simulate_pair(120)
    terms = {"venue": make_venue(), "account": bt.Account(capital=1_000.0)}
    sets = {"level": [1.0, 2.0]}
    sweep = bt.sweep(markets, Hold, sets, overlay=Hold(0.5), compile=False, **terms)
    for level, row in zip((1.0, 2.0), sweep.table.itertuples(), strict=True):
        alone = bt.run(markets, Hold(level), overlay=Hold(0.5), **terms)
        assert row.final_equity == alone.metrics["final_equity"]
        assert row.turnover == alone.metrics["turnover"]


class TenPercent:
    """A requirement of a tenth of the gross notional, initial margin of a fifth."""

    def requirement(self, positions, prices):
        return 0.1 * sum(abs(quantity) * prices[name] for name, quantity in positions.items())

    def initial(self, positions, prices):
        return 2.0 * self.requirement(positions, prices)


def test_a_requirement_of_ones_own_is_asked():
    # B rises from 50 by d: 1,000 - 20 d = .1 (1,000 + 1,000 + 20 d), so d = 800 / 22
    markets = two([flat(100)] * 3, [flat(50), flat(50), (50, 99, 50, 99)])
    account = bt.Account(capital=1_000.0, requirement=TenPercent())
    result = run(markets, Once(2.0), signal={"A": 0.5, "B": -0.5}, account=account)
    hit = result.events[result.events["kind"] == "liquidation"].set_index("instrument")
    assert hit.loc["B", "price"] == pytest.approx(50.0 + 800.0 / 22.0, rel=1e-12)
    # initial margin of a fifth: 5x at most, whatever the brackets allow
    limited = run(two([flat(100)] * 3, [flat(50)] * 3), Once(9.0), account=account)
    assert limited.bars["gross_leverage"].iloc[-1] == pytest.approx(5.0, rel=1e-12)


def test_collateral_takes_its_price_from_an_instrument_or_a_constant(tmp_path):
    # 2 of A at 100, then 110, and 50 coins at 1: equity 1,250, then 1,270; at rates .9 and 1
    markets = two([flat(100), flat(100), flat(110)], [flat(50)] * 3)
    held = [
        bt.Collateral("COIN", 2.0, prices="A", rate=0.9),
        bt.Collateral("USDC", 50.0, prices=1.0, rate=1.0),
    ]
    account = bt.Account(capital=1_000.0, collateral=held, negative_limit=100.0)
    result = run(markets, Hold(0.0), account=account)
    assert result.bars["equity"].tolist() == [1_250.0, 1_250.0, 1_270.0]
    alike = replace(account, collateral=[replace(held[0], name="A"), held[1]])
    assert "A" in {*run(markets, Hold(1.0), account=alike).events["instrument"]}  # it raised
    given = [replace(held[0], prices=markets["A"]), held[1]]
    other = run(markets, Hold(0.0), account=replace(account, collateral=given))
    assert other.bars.equals(result.bars)
    for each in (result, other):
        again = Result.load(each.save(tmp_path))
        assert again.bars.equals(each.bars)
    unknown = replace(account, collateral=[replace(held[0], prices="C")])
    with pytest.raises(ParameterError, match="an instrument of the run, got 'C'"):
        run(markets, account=unknown)


class Seen(bt.Policy):
    """Hold the number of bars whose closes are known."""

    def observe(self, market):
        return {"count": np.arange(1.0, market.n_bars + 1.0)}

    def leverage(self, bar, account):
        return bar.count


def test_an_overlay_sees_the_index_from_the_first_weight_on():
    # the first weight is decided at the close of bar 2; bar 3 is the first that holds it
    markets = two([flat(100)] * 6, [flat(50)] * 6)
    weights = np.zeros((6, 2))
    weights[2:, 0] = 1.0
    result = run(markets, Hold(1.0), signal=weights, overlay=Seen())
    assert result.bars["overlay"].tolist()[2:] == [1.0, 2.0, 3.0, 4.0]
    assert result.bars["overlay"].iloc[:2].isna().all()
    # one instrument that is flat first gives the overlay no calm that never was
    quiet = run(
        simulate_pair(80),
        Hold(1.0),
        overlay=VolTarget(0.4, half_life=10.0),
        signal=bt.allocate.inverse_volatility(simulate_pair(80), half_life=10.0),
    )
    assert not quiet.metrics["ruined"]


class Halve(bt.Policy):
    """Hold 1.6 from the first close on, and 0.8 from the third on."""

    def leverage(self, bar, account):
        return 1.6 if account.days < 1.5 else float("nan") if account.days < 2.5 else 0.8


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_volume_of_the_account_chooses_the_fee_tier_of_each_instrument(is_compiled):
    # 800 of each are bought on day 2: 1,600 in all reach the tier of A, not that of B; neither
    # would reach any by itself. Half of it is sold on day 4, as no fee of day 2 changes 1,000 much
    index = pd.date_range("2024-01-01", periods=5, freq="1D", tz="UTC")
    bars = pd.DataFrame(100.0, index=index, columns=["open", "high", "low", "close"])
    market = bt.Market.from_frames(bars.assign(volume=1e6))
    markets = bt.Markets({"A": market, "B": market}, currency="USDT")
    base = make_venue(taker=0.001)
    venues = {
        "A": base.override({"fees.tiers": [bt.FeeTier(1_500.0, 0.0005, 0.0)]}),
        "B": base.override({"fees.tiers": [bt.FeeTier(2_500.0, 0.0002, 0.0)]}),
    }
    result = run(markets, Halve(), venue=venues, compile=is_compiled)
    events = result.events
    fills = events[events["kind"] == "fill"].reset_index()
    fees = events[events["kind"] == "fee"].reset_index()
    rates = fees["amount"] / fills["amount"]
    assert fees["instrument"].tolist() == ["A", "B"] * 3
    assert rates.tolist() == pytest.approx([1e-3, 1e-3, 5e-4, 1e-3, 5e-4, 1e-3])
    row = bt.sweep(
        markets, Halve, pd.DataFrame({"account.band": [0.0]}), venue=venues,
        account=bt.Account(capital=1_000.0), compile=is_compiled,
    )  # fmt: skip
    assert row.table["fees"].tolist() == [result.metrics["fees"]]

"""An account with several positions, by hand: one equity, caps, modes of filling, expiry."""

import math
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core import PolicyError
from backtest.results import Result
from backtest.results.performance import diversification_ratio, risk_shares
from backtest.strategies import Constant, VolTarget
from tests.agreement import (
    assert_agrees,
    asset,
    bracket,
    check_outcome,
    make_scene,
    near,
    play_case,
    play_legs,
    run_engine,
    scenarios,
    scene,
    tape,
)
from tests.cases import PortfolioCase
from tests.draws import HOUR, START, utc
from tests.kit import Hold, Once, check_refused, flat, make_market, make_venue, simulate_pair
from tests.oracle import Outcome
from tests.scenes import Hand, by_hand, happened

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EXPIRING = {"account": bt.Account(capital=1_000.0), "compile": False}
NAN = math.nan
INF = math.inf
TEN = {"*": {"brackets": [bracket(0.02, 10.0)]}}
MOVED = ([flat(100), flat(110), flat(100), flat(100)], (NAN, NAN, 20.0, NAN))
"""Its impact is known from the close of bar 2 on; then 20x are wanted."""


def run(markets, policy=None, **terms):
    settings = {"venue": make_venue(), "account": bt.Account(capital=1_000.0), **terms}
    return bt.run(markets, policy or Hold(1.0), **settings)


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


def test_an_overlay_scales_all_targets():
    result = run(simulate_pair(200), Hold(1.0), overlay=Hold(0.5))
    assert 0.4 < result.bars["gross_leverage"].iloc[60:150].median() < 0.6

    limited = run(simulate_pair(200), overlay=Hold(9.0), account=bt.Account(max_overlay=2.0))
    assert limited.bars["overlay"].iloc[-1] == 2.0


def test_risk_of_two_uncorrelated_positions_of_equal_risk():
    weights = np.array([0.5, 0.25])
    covariance = np.diag([0.04, 0.16])
    assert risk_shares(weights, covariance).tolist() == [0.5, 0.5]

    # (.5 x .2 + .25 x .4) / sqrt(.25 x .04 + .0625 x .16) = .2 / sqrt(.02)
    assert diversification_ratio(weights, covariance) == pytest.approx(2**0.5)


def test_an_infinite_overlay_is_an_error():
    endless = type("Endless", (Hold,), {"leverage": lambda self, bar, account: math.inf})()
    check_refused(lambda: run(simulate_pair(20), overlay=endless), "overlay finite", PolicyError)


def test_a_policy_sees_gross_and_net_leverage():
    seen = []

    class Look(bt.Policy):
        def leverage(self, bar, account):
            seen.append((account.gross_leverage, account.net_leverage, account.leverage))
            return 1.0

    run(two([flat(100)] * 3, [flat(50)] * 3), Look(), signal={"A": 0.5, "B": -0.5})
    assert seen[-2:] == [(1.0, 0.0, 0.5), (1.0, 0.0, -0.5)]


class TenPercent:
    def requirement(self, positions, prices):
        notionals = [abs(quantity) * prices[name] for name, quantity in positions.items()]
        return 0.1 * sum(notionals)

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


class Between(TenPercent):
    """A requirement of a hundredth of the notional, and a sum while A stands between two prices."""

    def __init__(self, low, high, more):
        self.low = low
        self.high = high
        self.more = more

    def requirement(self, positions, prices):
        is_inside = self.low < prices.get("A", math.nan) < self.high
        notionals = [abs(quantity) * prices[name] for name, quantity in positions.items()]
        return 0.01 * sum(notionals) + (self.more if is_inside else 0.0)


@pytest.mark.parametrize("more", [1e4, 1e9, math.inf])
def test_a_requirement_of_ones_own_may_jump_on_the_way_of_a_bar(more):
    """20 A at 100 fail at 73.1, where the requirement jumps on the way to 60."""
    markets = two([flat(100), flat(100), (100, 100, 60, 90)], [flat(50)] * 3)
    account = bt.Account(capital=1_000.0, requirement=Between(0.0, 73.1, more))
    result = run(markets, Once(2.0), signal={"A": 1.0, "B": 0.0}, account=account)

    hit = result.events[result.events["kind"] == "liquidation"].set_index("instrument")
    assert hit.loc["A", "price"] == pytest.approx(73.1, rel=1e-12)


@pytest.mark.parametrize("more", [1e4, 1e9, math.inf])
def test_the_liquidation_price_finds_a_requirement_that_is_high_in_a_band_alone(more):
    """20 A at 100 fail between 70 and 80: the next such price below is 80."""
    markets = two([flat(100)] * 3, [flat(50)] * 3)
    account = bt.Account(capital=1_000.0, requirement=Between(70.0, 80.0, more))
    result = run(markets, Once(2.0), signal={"A": 1.0, "B": 0.0}, account=account)

    of_a = result.positions[result.positions["instrument"] == "A"]
    assert of_a["liquidation_price"].iloc[-1] == pytest.approx(80.0, rel=1e-12)


def test_collateral_takes_its_price_from_an_instrument_or_a_constant(tmp_path):
    # 2 of A at 100, then 110, and 50 coins at 1: equity 1,250, then 1,270; at rates .9 and 1
    markets = two([flat(100), flat(100), flat(110)], [flat(50)] * 3)
    coin = bt.Collateral("COIN", 2.0, prices="A", rate=0.9)
    dollars = bt.Collateral("USDC", 50.0, prices=1.0, rate=1.0)
    account = bt.Account(capital=1_000.0, collateral=[coin, dollars], negative_limit=100.0)
    result = run(markets, Hold(0.0), account=account)
    assert result.bars["equity"].tolist() == [1_250.0, 1_250.0, 1_270.0]

    # Collateral that is named as an instrument is another owner of the log.
    alike = replace(account, collateral=[replace(coin, name="A"), dollars])
    events = run(markets, Hold(1.0), account=alike).events
    assert "A" in {*events["instrument"]}

    by_market = replace(account, collateral=[replace(coin, prices=markets["A"]), dollars])
    other = run(markets, Hold(0.0), account=by_market)
    assert other.bars.equals(result.bars)

    for saved in (result, other):
        assert Result.load(saved.save(tmp_path)).bars.equals(saved.bars)

    unknown = replace(account, collateral=[replace(coin, prices="C")])
    check_refused(lambda: run(markets, account=unknown), "an instrument of the run, got 'C'")


class Seen(bt.Policy):
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
    assert result.bars["overlay"].iloc[:2].isna().all()
    assert result.bars["overlay"].tolist()[2:] == [1.0, 2.0, 3.0, 4.0]


def test_one_instrument_that_is_flat_first_gives_the_overlay_no_calm_that_never_was():
    weights = bt.allocate.inverse_volatility(simulate_pair(80), half_life=10.0)
    overlay = VolTarget(0.4, half_life=10.0)
    result = run(simulate_pair(80), overlay=overlay, signal=weights)

    assert not result.metrics["ruined"]


class Halve(bt.Policy):
    """Hold 1.6 from the first close on, and 0.8 from the third on."""

    def leverage(self, bar, account):
        if account.days < 1.5:
            return 1.6
        if account.days < 2.5:
            return float("nan")
        return 0.8


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

    fills = happened(result, "fill").reset_index()
    fees = happened(result, "fee").reset_index()
    rates = fees["amount"] / fills["amount"]
    assert fees["instrument"].tolist() == ["A", "B"] * 3
    assert rates.tolist() == pytest.approx([1e-3, 1e-3, 5e-4, 1e-3, 5e-4, 1e-3])

    test = bt.Backtest(markets, venue=venues, account=bt.Account(capital=1_000.0))
    sets = pd.DataFrame({"account.band": [0.0]})
    swept = test.sweep(Halve, sets, compile=is_compiled)
    assert swept.table["fees"].tolist() == [result.metrics["fees"]]


def held_after(targets: dict[str, tuple[float, ...]], equity: float, **account) -> list[float]:
    """Return what is held in turns after the last fill; at its open the equity is 10,000. The
    account begins with ``equity`` and withdraws the rest. Reference and engine agree on it."""
    flows = pd.Series([10_000.0 - equity], index=utc([START + 2 * HOUR]))
    tapes = {name: tape([flat(100)] * 3, target) for name, target in targets.items()}
    signal = dict.fromkeys(tapes, 1.0)
    settings = {"capital": equity, "flows": flows, "max_gross_leverage": 2.0, **account}

    out = assert_agrees(scene(tapes, signal, venues=TEN, **settings), "by hand")
    return [float(quantity) * 100 / 10_000 for quantity in out.quantity[2]]


CAPS = {  # name: (targets, equity at first, terms of the account, turns held in the end)
    # A holds 1.5; B decides 1.2 and gets the 0.5 that are left of 2
    **{
        f"what has no target counts with what it holds, {margin}": (
            {"A": (15 / 11, NAN), "B": (7 / 11, 1.2)}, 11_000.0,
            {"margin": margin, "venue_leverage": 10.0, "band": 0.1}, [1.5, 0.5])
        for margin in ("cross", "isolated")
    },
    # A has risen to 2.2 of a cap of 2, by the withdrawal; B closes, within its band or not
    "what has no target may leave nothing": (
        {"A": (1.8, NAN), "B": (0.1, 0.1)}, 12_222.0, {"band": 0.2}, [1.8 * 1.2222, 0.0]),
    # 2.2 become 1.364 and 0.636; A fills, B is kept: 2.064 stand, as they are not over 2.2
    "the band is tested on the scaled target": (
        {"A": (15 / 11, 1.5), "B": (7 / 11, 0.7)}, 11_000.0, {"band": 0.1}, [15 / 11, 0.7]),
    # ten coins at 0.29 decide 0.2, within a band of 0.1: 2.9 are over 2.2, so all trade; at 0.21
    # the 2.1 stand
    **{
        f"bands keep at most a tenth above the cap, {held}": (
            {f"C{k}": (0.2, 0.2) for k in range(10)}, equity, {"band": 0.1}, [held] * 10)
        for equity, held in ((14_500.0, 0.2), (10_500.0, 0.21))
    },
    # ten coins at 0.19 decide 0.1, within the band, and A buys 1: 2.9 in all, so the coins trade
    "what fills counts with its target beside what bands would keep": (
        {"A": (0.0, 1.0)} | {f"C{k}": (0.2, 0.1) for k in range(10)}, 9_500.0, {"band": 0.1},
        [1.0, *[0.1] * 10]),
    # 10 of A and 0.5 of B, scaled to 2
    "an infinite target is what the margin allows in it alone": (
        {"A": (0.0, INF), "B": (0.0, 0.5)}, 10_000.0, {}, [20 / 10.5, 1 / 10.5]),
}  # fmt: skip


@pytest.mark.parametrize(("targets", "equity", "account", "held"), [*CAPS.values()], ids=[*CAPS])
def test_the_cap_of_gross_leverage(targets, equity, account, held):
    assert held_after(targets, equity, **account) == pytest.approx(held, abs=1e-12)


def test_a_hedge_passes_where_no_order_at_all_would():
    """A and B are one group; initial margin is .12 of their net notional, maintenance .1. 80 A at
    100 need 960 of 1,000. At 99 they need 950.4 of the 920 that are left: nothing passes as it is.
    B wants a short of 20 x 920 = 18,400, too much: a net of -10,480 needs 1,257.6. The largest part
    of it leaves a net of -920 / .12 = -7,666.67, so B is 7,920 + 7,666.67 = 15,586.67 short."""
    one_group = scenarios(
        moves={"g": [(-0.1, 1.0), (0.1, 1.0)]}, groups={"g": ["A", "B"]}, initial=(1.2, 0.0)
    )
    first = tape([flat(100), (100, 100, 99, 99), flat(99)], (8.0, NAN))
    second = tape([flat(100)] * 3, (NAN, 20.0))
    tapes = {"A": first, "B": second}

    out = play_case(scene(tapes, {"A": 1.0, "B": -1.0}, venues=TEN, requirement=one_group))

    check_outcome(out, {"quantity 2 0": 80.0, "quantity 2 1": -155.8666666666667})


def expire(when: str | None) -> dict[str, bt.Venue]:
    venue = make_venue(taker=0.01)
    contract = {"lot": venue.contract.lot, "min_notional": 0.0}
    return {"A": venue, "B": venue.override(contract=bt.Contract(expires=when, **contract))}


def make_pair() -> bt.Markets:
    """Return A, which stays at 100, and B, which rises by 10 an hour from 50."""
    rising = [(50.0 + 10 * k, 60.0 + 10 * k, 50.0 + 10 * k, 60.0 + 10 * k) for k in range(6)]
    return bt.Markets({"A": make_market([flat(100)] * 6), "B": make_market(rising)})


def run_half(venue: object) -> Result:
    """Hold half of the equity in B, beside A at nothing."""
    policies = {"A": Hold(0.0), "B": Hold(1.0)}
    signal = {"A": 0, "B": 0.5}
    return bt.run(make_pair(), policies, venue=venue, signal=signal, **EXPIRING)


def test_the_price_of_the_settlement_is_not_rounded_to_a_tick():
    venues = expire("2024-01-01T03:00")
    contract = venues["B"].contract.override(tick=33.0, round_to_tick=True)
    venues["B"] = venues["B"].override(contract=contract)

    with pytest.warns(UserWarning, match="history of B ends"):
        result = run_half(venues)

    # it buys at 66, the next tick over 60; the last bar closes at 80, between 66 and 99
    assert happened(result, "fill")["price"].iloc[0] == 66.0
    assert happened(result, "delisted")["price"].iloc[0] == 80.0


def test_an_expired_contract_is_closed_at_the_mark_close_of_its_last_bar():
    # B is bought at the open of 01:00, at 60: 500 / 60 = 8.333 contracts. Its last bar before 03:00
    # closes at 80, where what is held is sold for a fee of 1 %.
    with pytest.warns(UserWarning, match="history of B ends"):
        result = run_half(expire("2024-01-01T03:00"))

    events = result.events
    closed = events[events["kind"] == "delisted"].iloc[0]
    assert (closed["instrument"], closed["price"]) == ("B", 80.0)
    assert str(closed["time"]) == "2024-01-01 02:00:00+00:00"

    after = events.loc[closed.name + 1]
    assert after["kind"] == "fee"
    assert after["amount"] == pytest.approx(0.01 * 80.0 * abs(closed["quantity"]))

    assert (result.quantities["B"].iloc[2:] == 0.0).all()
    assert result.bars["equity"].iloc[2:].nunique() == 1


def test_a_contract_that_expires_before_the_market_or_inside_it_is_refused():
    check_refused(lambda: run_half(expire("2023-12-31")), "no bar before it expires")

    alone = make_pair()["B"]
    venue = expire("2024-01-01T03:00")["B"]
    cut = "cut it: market.between(end='2024-01-01T03:00')"
    check_refused(lambda: bt.run(alone, Hold(), venue=venue, **EXPIRING), cut)


def test_a_preset_is_resolved_for_the_instruments_of_the_run():
    markets = bt.Markets({name: bt.Market.sample(bars=150) for name in "AB"})
    account = bt.Account(capital=10_000, requirement="okx-portfolio")
    result = run(markets, Constant(3.0), account=account, compile=False)
    assert set(result.manifest["account"]["requirement"]["moves"]) == {"A", "B"}


def test_an_account_reads_the_name_of_a_preset():
    account = bt.Account.from_dict({"requirement": "binance-portfolio"})
    assert account.requirement == bt.PresetMargin(preset="binance-portfolio")
    assert bt.Account.from_dict(account.to_dict()) == account


SAFE = {"*": {"brackets": [bracket(0.02)]}}
TWO = [bracket() | {"cap": 5000.0}, bracket(0.1, 5.0) | {"floor": 5000.0}]
LATE = utc([START + 3 * HOUR])
STILL = [flat(1)] * 4
DEAR_FEES = {"*": {"fees": {"taker": 0.1}}}
STEPS = {"mode": "partial", "step": 0.1}
HALVES = {"mode": "partial", "step": 0.5}
CARRIED = {"A": {"brackets": [bracket() | {"cap": 1000.0}]}, "*": {"fees": {"per_order": 50.0}}}
COIN = tape([flat(2000)] * 3, ())
MARGINAL = [(0.0, 1000.0, 0.95), (1000.0, 2000.0, 0.5)]
GROUP = scenarios(
    moves={"g": [(-0.1, 1.0), (0.1, 1.0)]}, groups={"g": ["A", "B"]}, factor=0.5, contingency=0.01,
    initial=(1.0, 0.01),
)  # fmt: skip


def rising(fill: str) -> Outcome:
    """A and B, each at 2x: A opens at 100, closes at 110, then 110 to 121; B falls from 1 to .9."""
    first = ([(100, 110, 100, 110), (110, 121, 110, 121), flat(121)], (2.0,))
    second = ([(1, 1, 0.9, 0.9), (0.9, 0.9, 0.81, 0.81), flat(0.81)], (2.0,))
    return play_legs(first, second, venues=SAFE, fill=fill)


def falling(**changes: Any) -> Outcome:
    """A: 4x long, falls by 10 % on a straight line; B: 2x long, rises by 5 % after it."""
    first = ([flat(100), flat(100), (100, 100, 90, 90), flat(90)], (4.0,))
    second = ([flat(1), flat(1), (1, 1.05, 1, 1.05), flat(1.05)], (2.0,))
    return play_legs(first, second, venues=SAFE, **changes)


def pooled(first: float, second: float, health: float, **terms: Any) -> Outcome:
    """A at 4x and B at 6x, which open at other prices; steps of a tenth, or all under a health."""
    falling = ([flat(100), flat(100), flat(first)], (4.0, NAN))
    other = ([flat(1), flat(1), flat(second)], (6.0, NAN))
    venues = {"*": {"liquidation": STEPS | {"full_below_health": health}}}
    return play_legs(falling, other, venues=venues, **terms)


def long_and_short(**changes: Any) -> PortfolioCase:
    """A: 4x long at 100, B: 6x short at 1; A rises by 4 %, B by 25 % along its bar."""
    first = ([flat(100), flat(100), (100, 104, 100, 104)], (4.0, NAN))
    second = ([flat(1), flat(1), (1, 1.25, 1, 1.25)], (6.0, NAN))
    return make_scene(first, second, signal=(1.0, -1.0), **changes)


def apart(**changes: Any) -> Outcome:
    """A long 4x falls 5 %, B short 6x rises 5 %; both also move the other way by 1 %."""
    first = ([flat(100), flat(100), (100, 101, 95, 100)], (4.0, NAN))
    second = ([flat(1), flat(1), (1, 1.05, 0.99, 1)], (6.0, NAN))
    return play_legs(first, second, signal=(1.0, -1.0), **changes)


def find_impact(closes: list[float], rate: float, size: float, power: int = 1) -> dict[str, Any]:
    """Return slippage with this impact rate at a size; power -1 counts notionals in coins."""
    sigma = np.std(np.diff(np.log(closes)), ddof=1) * 24**0.5
    traded = 24e9 * np.mean(np.array(closes[1:], float) ** power)
    impact = rate / sigma * (traded / size) ** 0.5
    return {"slippage": {"impact": impact, "impact_window": "2h"}}


def selling(*names: str) -> Outcome:
    """Isolated sales of 1 to 3 times the equity more than the wallet can post, in an order."""
    legs = {  # the target, the rate of impact at 5,000, and the setting
        "A": (20.0, 0.02, 10.0),
        "B": (11.0, 0.01, 5.0),
        "C": (25.0, 0.03, 20.0),
    }
    tapes = {}
    settings = {}
    venues = {}
    for name in names:
        target, rate, settings[name] = legs[name]
        tapes[name] = tape(MOVED[0], (NAN, NAN, target, NAN))
        impact = find_impact([100, 110, 100], rate, 5e3)
        venues[name] = impact | {"brackets": [bracket(0.001)]}

    signal = dict.fromkeys(names, -1.0)
    return play_case(
        scene(tapes, signal, margin="isolated", venue_leverage=settings, venues=venues)
    )


PLACE = Fraction(500, 1423)
"""Where the pool of long_and_short fails: M = 1000 + 160 x - 1500 x = 5 % of 10000 + 1660 x."""
ALONE = Fraction(300, 1575)
"""Where B fails with a margin of 600: 600 - 1500 x = 5 % of 6000 + 1500 x."""
SECOND = (650 - 750 * PLACE) / (590 + Fraction(455, 10))
"""M = 1000 - 1340 x0 - 590 (x - x0), R = 5 % of 7000 + 160 x + 750 x: 1000 - 750 x0 - 350 = 590 x +
45.5 x; .608, so a second half of B goes there."""
ROOM = (998 - Fraction(2994, 1000)) / (Fraction(1, 10) + Fraction(1, 1000))
"""What 995.006 buy at a margin of a tenth and a fee of a thousandth."""
SOLD = Fraction(15025, 10_000) / (2000 * Fraction(99, 100))
"""Coins of 2,000, less 1 %, that bring 1.5025."""
HAND: Hand = {
    # A, cross, has gained half at bar 3; there it is raised to 3x, and B is opened isolated. The
    # balance is 998 after a fee of 2; 3x of 1998 trade 2994, a fee of 2.994; 995.006 carry B
    "isolated margin leaves the fees of cross orders": (
        lambda: play_legs(
            ([flat(100), flat(100), flat(150), flat(150)], (2.0, NAN, 3.0)),
            (STILL, (0.0, 0.0, 10.0)), margin=("cross", "isolated"), venue_leverage=(None, 10.0),
            venues={"*": {"fees": {"taker": 0.001}}}),
        {"quantity 3": [Fraction(3 * 1998, 150), ROOM], "margin 3": [0, ROOM / 10]}),
    # A flips at a loss of 600; B posts its 600 of a balance of 1000. The balance is w and the
    # entries of A and C sum to 1000 - 600 - 600 = -200; A has -1000 of it, C has 1000
    "the loss of a cross flip does not shrink isolated margin": (
        lambda: play_legs(
            ([flat(100), flat(100), flat(80), flat(80)], (3.0, NAN, 1.0)),
            (STILL, (0.0, 0.0, 6.0)),
            ([flat(10), flat(10), flat(16), flat(16)], (1.0, NAN)),
            signal=([1.0, 1.0, -1.0, -1.0], 1.0, 1.0), margin=("cross", "isolated", "cross"),
            venue_leverage=(None, 10.0, None)),
        {"quantity 3": [-12.5, 6000, 100], "margin 3 1": 600, "cash 3": -200}),
    # impact at 5000 is 2 %, at the 22000 that are wanted 4.2 %: each alone may sell 7261. Margin
    # and fee are 11 % at 100, the price without impact: 1100 carry 5000 each. They fill at 98: 490
    # are posted and 49 paid for each, and 22 stay in the wallet
    "isolated sales post in full at the price of their fill": (
        lambda: play_legs(
            MOVED, MOVED, signal=(-1.0, -1.0), margin="isolated", venue_leverage=10.0,
            capital=1100.0,
            venues={"*": {"fees": {"taker": 0.01}} | find_impact([100, 110, 100], 0.02, 5e3)}),
        {"quantity 3": [-50, -50], "margin 3": [490, 490], "fees 3": 98, "cash 3": 22}),
    # a short of 50 at 100 gains 1000 to 80; 12x of 2000 are 24000, 4000 are held. Impact at 20000
    # is 4 %. The wallet of 500 posts 5000 at 80: 62.5 more, at 2 %: 62.5 x 78.4 / 10 = 490
    "an isolated sale alone posts in full": (
        lambda: play_legs(
            ([flat(100), flat(100), flat(80), flat(80)], (5.0, NAN, 12.0, NAN)), signal=(-1.0,),
            margin="isolated", venue_leverage=10.0,
            venues={"*": find_impact([100, 100, 80], 0.04, 2e4)}),
        {"quantity 3": [-112.5], "margin 3": [990], "cash 3": 10}),
    # in coins it is the buyer who posts more for a cheaper fill: 5000 / 102 / 10 of 10 coins
    "isolated purchases of inverse contracts post in full": (
        lambda: play_legs(
            MOVED, MOVED, margin="isolated", venue_leverage=10.0, capital=10.0,
            venues={"*": {"contract": {"kind": "inverse"}}
                    | find_impact([100, 110, 100], 0.04, 200.0, -1)}),
        {"quantity 3": [5000, 5000], "margin 3": [Fraction(500, 102)] * 2,
         "cash 3": 10 - Fraction(1000, 102)}),
    # A posts 600, B 400, nothing is left; an hour of 9000 owed at 8.76 a year costs 9
    "margins pay interest pro rata where the wallet is empty": (
        lambda: play_legs(
            ([flat(100)] * 3, (6.0, NAN)), (STILL[:3], (4.0, NAN)), margin="isolated",
            venue_leverage=10.0, venues={"*": {"venue": {"interest_on": "loan",
                                                         "borrow_rate": 8.76}}}),
        {"interest 2": 9, "margin 2": [600 - 5.4, 400 - 3.6], "cash 2": 0}),
    # 20 A are worth 2200 at their mark open, 1000 B 1200: 8.76 % and 4.38 % of it for an hour
    "longs and shorts pay the expense of a contract on the notional at the mark open": (
        lambda: play_legs(
            ([flat(100), flat(100), flat(110)], (2.0, NAN)),
            ([flat(1), flat(1), flat(1.2)], (1.0, NAN)), signal=(1.0, -1.0),
            venues={"A": {"contract": {"expense": 0.0876}},
                    "B": {"contract": {"expense": 0.0438}}}),
        {"expense.amount": [0.022, 0.006], "expense.instrument": ["A", "B"],
         "equity 2": 1000 + 200 - 200 - 0.028}),
    # A posts 600, B 400: 6000 x 1e-5 of A, paid by both
    "isolated margins share an expense where the wallet is empty": (
        lambda: play_legs(
            ([flat(100)] * 3, (6.0, NAN)), (STILL[:3], (4.0, NAN)), margin="isolated",
            venue_leverage=10.0, venues={"A": {"contract": {"expense": 0.0876}}}),
        {"expense 2": 0.06, "interest 2": 0, "margin 2": [600 - 0.036, 400 - 0.024], "cash 2": 0}),
    # bar 1: 2x of 110 and of .9 bought with 1000 earn 10 % and lose 10 %; bar 2 rebalances
    "same_close trades at the price that decided": (
        lambda: rising("same_close"),
        {"quantity 1 0": Fraction(2000, 110), "equity 1": 1000 + 200 - 200,
         "quantity 2": [Fraction(2000, 121), Fraction(200_000, 81)]}),
    # the decision of bar 0 fills at 121 and .81, the close of bar 1, which earns nothing
    "next_close trades a bar later at the close": (
        lambda: rising("next_close"),
        {"equity 1": 1000, "quantity 1": [Fraction(2000, 121), Fraction(200_000, 81)]}),
    # on the way to the lows, which B does not leave, E = 1000 - 400 x: 800 with A at 95. At the
    # close of bar 2 it decides again, on what is left
    "the equity stop closes all positions at one place": (
        lambda: falling(equity_stop=0.2),
        {"equity_stop.bar": [2, 2], "equity_stop.instrument": ["A", "B"],
         "equity_stop.amount 0": 40 * 95, "equity 2": 800, "quantity 3 0": Fraction(4 * 800, 90)}),
    # A opens at 94: 1000 - 240 is under 800; nothing fills at that open, B included
    "the equity stop at the open drops all decisions": (
        lambda: play_legs(([flat(100), flat(100), flat(94)], (4.0,)), (STILL[:3], (0.5, 2.0)),
                          equity_stop=0.2, venues=SAFE),
        {"equity_stop.bar": [2, 2], "equity_stop.instrument": ["A", "B"], "fill.bar": [1, 1],
         "equity 2": 760}),
    # A posts 400 at 10x, B 200: at the same place as in cross margin 800 are cash
    "isolated positions return what is left at the equity stop": (
        lambda: falling(equity_stop=0.2, margin="isolated", venue_leverage=10.0),
        {"cash 2": 800, "margin 2": [0, 0]}),
    # 1000 more double the highest to 2000; a fall of 10 % at 4x is 400 of 2000: no stop at .5
    "a deposit moves the highest equity": (
        lambda: falling(equity_stop=0.5, flows=pd.Series([1000.0], utc([START + 2 * HOUR]))),
        {"equity_stop.n": 0}),
    # longs of 3200 + 6000 owe 9000, health 95 % of 9200 / 9000 = .971: a step of .1 sells 4 of A,
    # and at a health under .98 all 40 go, as they bring less than is owed
    **{
        f"a pool of low health repays its whole debt, {health}": (
            lambda health=health: pooled(80, 1, health), {"liquidation.quantity 0": sold})
        for health, sold in ((0.97, -4), (0.98, -40))
    },
    # longs of 3450 + 6000, less 5 % of maintenance, are 8977.5: exactly .9975 of the 9000 owed
    **{
        f"a pool repays its whole debt also at that health itself, {health}": (
            lambda health=health: pooled(86.25, 1, health), {"liquidation.quantity 0": sold})
        for health, sold in ((0.9974, -4), (0.9975, -40))
    },
    # assets 95 % of 4000 and 3000 of cash, debts 105 % of 6600: health .981
    **{
        f"a pool of low health buys a short back whole, {health}": (
            lambda health=health: pooled(100, 1.1, health, signal=(1.0, -1.0)),
            {"liquidation.quantity 0": bought})
        for health, bought in ((0.98, 600), (0.985, 6000))
    },
    "a cross failure closes the winner too": (
        lambda: play_case(long_and_short()),
        {"cash 1": 1000 - 4000 + 6000, "liquidation.bar": [2, 2],
         "liquidation.instrument": ["A", "B"], "liquidation.amount 0": 4000 + 160 * PLACE,
         "liquidation.price 0": 100 + 4 * PLACE, "equity 2": 1000 - 1340 * PLACE}),
    # B dies with its 600, A keeps 400 + 160
    "isolated the winner survives": (
        lambda: play_case(long_and_short(margin="isolated", venue_leverage=10.0)),
        {"liquidation.instrument": ["B"], "cash 2": 600 - 1500 * ALONE,
         "equity 2": 600 - 1500 * ALONE + 560}),
    # of a wallet of 450 at 11 % for margin and fee: A turns with 400 of its margin less 40, B adds;
    # 810 + 450 are asked of 450 + 360
    "a turn and an addition share the wallet after the fee of closing": (
        lambda: play_legs(([flat(100)] * 3, (4.0, INF)), ([flat(1)] * 3, (1.0, INF)),
                          signal=((1.0, -1.0, -1.0), 1.0), margin="isolated",
                          venue_leverage=10.0, venues={"*": {"fees": {"taker": 0.01}}}),
        {"quantity 2": [-Fraction(3645, 77), 1000 + Fraction(202500, 77)]}),
    # 5 % initial margin of 12 + 18 turns is 1.5 equities: both get 2/3
    **{
        f"increases share what the margin admits, {fill}": (
            lambda fill=fill: play_legs(([flat(100)] * 2, (12.0,)), (STILL[:2], (18.0,)),
                                        venues=SAFE, fill=fill),
            {"quantity 1": [80, 12_000]})
        for fill in ("next_open", "next_close")
    },
    # A goes from 10x to 5x, B wants 20x: 250 of margin stay, 750 carry 15x of B
    "reductions fill first and are not scaled": (
        lambda: play_legs(([flat(100)] * 3, (10.0, 5.0)), (STILL[:3], (0.0, 20.0)), venues=SAFE),
        {"quantity 2": [50, 15_000]}),
    # up to 5000 at 20x, above at 5x: with 4x of B, A stops at the cap of its first bracket. It
    # wants 6000: 6000/5 = 1200 is too much. At f = 5/6 it needs 250, B 4000·5/6/20 = 167
    "a cap is an edge of the common factor": (
        lambda: play_legs(([flat(100)] * 2, (6.0,)), (STILL[:2], (4.0,)),
                          venues={"A": {"brackets": TWO}}),
        {"quantity 1": [50, 4000 * Fraction(5, 6)]}),
    # A gains 1000 on 1000: E = 2000 and B = 1000 still; 20x at setting 10 needs 2000, 1000 carry
    "isolated margin is not funded by unrealized profit": (
        lambda: play_legs(
            ([flat(100), flat(100), flat(150), flat(150)], (2.0, NAN)), (STILL, (0.0, 0.0, 10.0)),
            margin=("cross", "isolated"), venue_leverage=(None, 10.0)),
        {"equity 2": 2000, "margin 3 1": 1000, "quantity 3 1": 10_000}),
    # at the failure A is up and B is down. Half of B at 1 + x/4; R falls by 5 % of 3000 + 750 x, M
    # stays: it holds until it fails again
    "partial takes the position with the largest loss first": (
        lambda: play_case(long_and_short(venues={"*": {"liquidation": HALVES}})),
        {"liquidation.instrument 0": "B", "liquidation.quantity 0": 3000,
         "liquidation.instrument 1": "B", "liquidation.quantity 1": 1500,
         "liquidation.amount 1": 1500 * (1 + SECOND / 4)}),
    # A at 6 % maintenance relieves more per notional than B at 5 %
    "partial by relief prefers the dearer bracket": (
        lambda: play_case(long_and_short(venues={
            "*": {"liquidation": HALVES | {"order": "most_relief"}},
            "A": {"brackets": [bracket(0.06, 16.0)]}})),
        {"liquidation.instrument 0": "A"}),
    # the pool of 600 with 6x short of B is taken; A's 400 at setting 10 stay and gain 160
    "takeover leaves isolated margin": (
        lambda: play_case(long_and_short(
            margin=("isolated", "cross"), venue_leverage=(10.0, None),
            venues={"*": {"liquidation": {"mode": "takeover"}}})),
        {"liquidation.instrument": ["B"], "liquidation_loss 2": 600 - 1500 * ALONE,
         "equity 2": 560}),
    # one 10x long: low 94 is first, high later; a stop at 3 % is nearer than 94.74
    "one position goes to its adverse extreme first": (
        lambda: play_legs(([flat(100), flat(100), (100, 106, 94, 106)], (10.0, NAN)),
                          (STILL[:3], (0.0,)), stop_loss=(0.03, None)),
        {"equity 2": 1000 - 100 * 3}),
    # long and short of one group at +-10 %: nothing at risk but 1 % of the gross of 60000, which is
    # 600; brackets would have needed 3000
    "scenarios net within a group": (
        lambda: play_legs(([flat(100)] * 2, (30.0,)), (STILL[:2], (30.0,)), signal=(1.0, -1.0),
                          requirement=GROUP),
        {"quantity 1 0": 300, "margin_ratio 1": 0.6}),
    # both long: 10 % of N + 1 % of N <= 1000
    "scenarios of one side do not net": (
        lambda: play_legs(([flat(100)] * 2, (30.0,)), (STILL[:2], (30.0,)), requirement=GROUP),
        {"quantity 1 0": Fraction(1000) / Fraction(11, 100) / 2 / 100}),
    # .5 coins at 2000 count 500 in M and 1000 in E: notional 2502.5, fee 2.5025, B = 1 - 2.5025.
    # Bar 2 sells 1.5025 / (2000 * .99) coins, with a haircut of 1 % of 2000 on each
    "collateral backs at its rate and is sold where the balance is negative": (
        lambda: play_legs(
            ([flat(100)] * 3, (2.5, NAN)), (STILL[:3], (0.0,)), capital=1.0, negative_limit=0.0,
            venues={"*": {"fees": {"taker": 0.001}}},
            collateral=[(asset("COIN", 0.5, rate=0.5, slippage=0.01), COIN)]),
        {"fees 1": 2.5025, "collateral 2 0": Fraction(1, 2) - SOLD, "conversion 2": SOLD * 20,
         "equity 2": 1001 - Fraction(25025, 10_000) - SOLD * 20}),
    # 1000 at 95 %, the next 1000 at 50 %, nothing beyond: M = 1000 + 1450 carries 20 x 2450
    "marginal tiers of collateral": (
        lambda: play_legs(
            ([flat(100)] * 2, (100.0,)), (STILL[:2], (0.0,)), negative_limit=0.0, venues=SAFE,
            collateral=[(asset("COIN", 1.0, tiers=MARGINAL), tape([flat(3000)] * 2, ()))]),
        {"quantity 1 0": 490}),
    # B ends at 1.1 in bar 2: 4000 gain 400, less 0.1 % of 4400
    "a delisted position closes at the mark close with its fee": (
        lambda: play_legs(
            ([flat(100)] * 5, (0.0,)), ([flat(1), flat(1), (1, 1.1, 1, 1.1)], (4.0, NAN)),
            venues={"*": {"fees": {"taker": 0.001, "maker_share": 1.0}}}),
        {"fill.instrument": ["B"], "delisted.instrument": ["B"], "fee.amount": [4.4],
         "equity 2": 1000 + 400 - Fraction(44, 10)}),
    # 50 A for a fee of 500. At 95 the equity is 250, over 5 % of 4,750; to close costs 475
    "a fee of delisting that cannot be paid is bad debt": (
        lambda: play_legs(([flat(100), flat(100), (100, 100, 95, 95)], (5.0, NAN)),
                          ([flat(50)] * 4, (0.0,)), venues=DEAR_FEES),
        {"bad_debt": [0, 0, 225, 0], "equity": [1000, 500, 0, 0]}),
    # 45 A for a fee of 450, 10 B for one of 50 and a margin of 100: 400 left. A loses 135 and costs
    # 436.5 to close
    "the margin of an isolated position pays no debt of the account": (
        lambda: play_legs(([flat(100), flat(100), (100, 100, 97, 97)], (4.5, NAN)),
                          ([flat(50)] * 4, (0.5, NAN)), venues=DEAR_FEES,
                          margin=("cross", "isolated"), venue_leverage=(20.0, 5.0)),
        {"bad_debt": [0, 0, 171.5, 0], "equity": [1000, 500, 100, 100], "quantity 3": [0, 10]}),
    # 40 A for a fee of 400 and a margin of 400, 10 B for 50 and 100: 50 left. To close A at 98
    # returns 400 - 80 - 392 = -72, so 22 are owed: bad debt, whatever else is ordered
    **{
        f"no isolated margin pays what another position's close left owing, {case}": (
            lambda closing=closing, kept=kept, other=other, terms=terms: play_legs(
                ([flat(100), (100, 100, 98, 98), flat(98), flat(98)], closing),
                ([flat(50)] * 4, kept), (STILL, other), margin="isolated",
                venue_leverage=(10.0, 5.0, 5.0), **{"venues": DEAR_FEES, **terms}),
            {"bad_debt": [0, 0, 22, 0], "equity 2": 100, "margin 2": [0, 100, 0],
             "quantity 2": [0, 10, 0]})
        for case, closing, kept, other, terms in (
            ("nothing", (4.0, 0.0), (0.5, NAN), (0.0,), {}),
            ("one that buys nothing", (4.0, 0.0), (0.5, NAN), (0.0, 0.5, 0.0), {}),
            ("one that adds nothing", (4.0, 0.0), (0.5, 2.0, NAN), (0.0,), {}),
            ("a flip that only closes", (4.0, 4.0, 0.0), (0.5, NAN), (0.0,),
             {"signal": ([1.0, -1.0, -1.0, -1.0], 1.0, 1.0)}),
            ("interest comes after it", (4.0, 0.0), (0.5, NAN), (0.0,),
             {"fill": "same_close",
              "venues": {"*": DEAR_FEES["*"] | {"venue": {"borrow_rate": 0.1}}}}),
        )
    },
    # 25 A at 100 and 50 B at 50. The open loses 25 x 40 + 50 x 10 = 1,500 of 1,000
    "a gap past bankruptcy leaves nothing and books what is missing": (
        lambda: play_legs(([flat(100), flat(100), flat(60)], (2.5, NAN)),
                          ([flat(50), flat(50), flat(40)], (2.5, NAN))),
        {"bad_debt": [0, 0, 500], "equity": [1000, 1000, 0]}),
    # A gains 1000 unrealized: M = 2000, initial 5 % of 3000; B = 1000 is all that may leave
    "a withdrawal leaves the initial margin and the balance": (
        lambda: play_legs(([flat(100), flat(100), flat(150), flat(150)], (2.0, NAN)),
                          (STILL, (0.0,)), flows=pd.Series([-5000.0], index=LATE)),
        {"flows 3": -1000}),
    # at once M = 1000 - 500 x, R = 5 % of 4000 (1 - .05 x) + 6000 (1 + .05 x): 505 x = 500
    "worst takes each position to its own extreme": (
        lambda: apart(intrabar="worst"), {"equity 2": 1000 - 500 * Fraction(500, 505)}),
    "along the path both rise, then both fall, and M stays over R": (
        apart, {"liquidation.n": 0}),
    # A holds 10 at 110, over the cap of 1000, for a fee of 50: E = 1050, at 10x. Cross, 10500 less
    # 10 x the fee of B and the 1100 of A; isolated, B is 900, less a margin of 100
    **{
        f"an order that its cap cuts to nothing needs no room for its fee, {margin}": (
            lambda margin=margin: play_legs(
                ([flat(100), flat(100), flat(110), flat(110)], (5.0,)), (STILL, (0.0, 30.0)),
                venues=CARRIED, margin=margin, venue_leverage=10.0),
            {"quantity 2 1": bought})
        for margin, bought in (("cross", 8900), ("isolated", 8000))
    },
}  # fmt: skip


@by_hand(HAND)
def test_several_positions(run, numbers):
    check_outcome(run(), numbers)


def test_the_order_of_instruments_moves_no_isolated_margin():
    first = selling("A", "B", "C")
    for names in ("CBA", "BCA"):
        other = selling(*names)
        for k, name in enumerate("ABC"):
            place = names.index(name)
            assert near(other.quantity[3][place], float(first.quantity[3][k]))
            assert near(other.margin[3][place], float(first.margin[3][k]))

    for k, (name, setting) in enumerate({"A": 10, "B": 5, "C": 20}.items()):
        fill = next(event for event in first.of_kind("fill") if event.instrument == name)
        notional = float(abs(first.quantity[3][k]) * fill.price)
        assert near(first.margin[3][k], notional / setting)

    assert first.cash[3] > 0


def test_contagion_names_the_short_that_ran_and_what_the_winner_had_won():
    """The gain of A is 160 x, its share of R grows by 8 x; B loses 1500 x, its share grows by 75 x.
    So M - R, 500 at the last close, fell by B alone."""
    table = run_engine(long_and_short()).contagion().set_index("cause")

    assert table["share"].sum() == pytest.approx(1.0, rel=1e-12)
    assert table.loc["B", "share"] == pytest.approx(1.0, rel=1e-12)
    assert table.loc["A", "profit"] == pytest.approx(160 * 500 / 1423, rel=1e-12)
    assert table["profit"].drop("A").eq(0.0).all()


def test_contagion_in_steps_names_no_winner_that_stays():
    """The position with the largest loss is reduced: B. A stays, and is not pulled down."""
    steps = {"*": {"liquidation": HALVES | {"order": "largest_loss"}}}
    result = run_engine(long_and_short(venues=steps))

    assert set(result.events.query("kind == 'liquidation'")["instrument"]) == {"B"}
    assert list(result.contagion()["cause"].unique()) == ["B"]
    assert result.contagion()["profit"].eq(0.0).all()


def test_the_capital_that_instruments_tie_up_by_hand():
    """A: 5 at 100, then 90 and 120; B: 10 at 50, sold at the last open. At 20x, of 1,000."""
    markets = two(
        [flat(100), flat(100), (100, 100, 90, 90), (90, 120, 90, 120)],
        [flat(50), flat(50), (50, 55, 50, 55), flat(55)],
    )
    weights = {"A": [0.5] * 4, "B": [0.5, 0.5, 0.0, 0.0]}
    signal = pd.DataFrame(weights, markets["A"].times)
    result = run(markets, Once(1.0), signal=signal)
    capital = result.capital()

    # The notional of A is 500, 450 and 600 in three bars of four, that of B 500 and 550 in two.
    most = result.venues["A"].brackets[0].max_leverage
    means = [1_550 / most / 4, 1_050 / most / 4, 0, 2_600 / most / 4]
    peaks = [600 / most, 550 / most, 0, 1_000 / most]
    assert capital["mean_margin"].tolist() == pytest.approx(means)
    assert capital["peak_margin"].tolist() == pytest.approx(peaks)

    # Of the equity, which is 1,000 but for the last bar.
    use_of_a = (0.5 + 0.45 + 600 / 1_150) / most / 4
    use_of_b = (0.5 + 0.55) / most / 4
    use = [use_of_a, use_of_b, 0.0, use_of_a + use_of_b]
    assert capital["margin_use"].tolist() == pytest.approx(use)

    assert capital["profit"].tolist() == pytest.approx([100.0, 50.0, 0.0, 150.0])
    assert capital["time_in_position"].tolist()[:2] == [0.75, 0.5]

    return_of_a = 100.0 / (1_550 / most / 4) / result.span.years
    assert capital["return_on_margin"]["A"] == pytest.approx(return_of_a)

    total = capital.loc["total"]
    assert result.metrics["mean_margin_use"] == pytest.approx(total["margin_use"])
    assert result.metrics["return_on_margin"] == pytest.approx(total["return_on_margin"])

    # a rule of one's own: a fifth of the notional, by shares of the requirement
    own_rule = bt.Account(capital=1_000.0, requirement=TenPercent())
    capital = run(markets, Once(1.0), signal=signal, account=own_rule).capital()
    assert capital["mean_margin"].tolist() == pytest.approx([77.5, 52.5, 0.0, 130.0], abs=1e-6)


@pytest.mark.slow
def test_the_risk_of_instruments_before_and_after_weights():
    """Volatilities of 1 and 3 % uncorrelated: .1 and .9 of equal weights, halves of 3 to 1."""
    rng = np.random.default_rng(5)
    calm, wild = rng.standard_normal((2, 600)) * [[0.01], [0.03]]
    markets = bt.Markets({"A": walk_of(calm), "B": walk_of(wild)}, currency="USDT")
    signal = pd.DataFrame({"A": 0.75, "B": 0.25}, markets["A"].times)
    result = run(markets, Hold(1.0), signal=signal, compile=False)

    capital = result.capital()
    assert capital["risk_before"].tolist()[:2] == pytest.approx([0.1, 0.9], abs=0.03)
    assert capital["risk_after"].tolist()[:2] == pytest.approx([0.5, 0.5], abs=0.05)
    assert capital["risk_after"]["A"] == pytest.approx(result.risk()["A"].mean())

    totals = capital.loc["total", ["risk_before", "risk_after"]]
    assert totals.tolist() == pytest.approx([1.0, 1.0])


def walk_of(steps):
    close = 100.0 * np.exp(np.cumsum(steps))
    opens = np.concatenate([[100.0], close[:-1]])
    highs = np.maximum(opens, close)
    lows = np.minimum(opens, close)
    return make_market(list(zip(opens, highs, lows, close, strict=True)))


def list_filled(result):
    return result.events.query("kind == 'fill'")["amount"].tolist()


def test_an_order_takes_its_share_of_the_equity_as_margin_by_hand():
    """At 20x, fees of .1 %: N = 20 x .3 (1,000 - .001 N) = 6,000 / 1.006 of the 10,000 wanted.

    B asks for 2,000, a margin of 100, and its share allows 20 %. Prices that rise reduce nothing.
    """
    market = make_market([flat(100), flat(100), (100, 150, 100, 150), flat(150)])
    account = bt.Account(capital=1_000.0, margin_share=0.3)
    venue = make_venue(taker=0.001)
    result = run(market, Once(10.0), account=account, venue=venue)

    assert list_filled(result) == pytest.approx([6_000 / 1.006])
    assert result.target_cuts().loc["margin_share", "mean_shortfall"] > 3.9
    assert "the account's margin_share" in result.summary()

    # each instrument has a share of its own
    pair = bt.Markets({"A": market, "B": market}, currency="USDT")
    shares = account.override({"margin_share": {"A": 0.3, "B": 0.2}})
    result = run(pair, {"A": Once(20.0), "B": Once(4.0)}, account=shares, venue=venue)

    assert list_filled(result) == pytest.approx([6_000 / 1.006, 2_000.0])
    cuts = result.target_cuts()
    assert cuts.loc[("A", "margin_share"), "decisions"] == 1
    assert ("B", "margin_share") not in cuts.index

    # at a setting of 10: N = 10 x .3 (1,000 - .001 N)
    isolated = account.override({"margin": "isolated", "venue_leverage": 10.0})
    result = run(market, Once(9.0), account=isolated, venue=venue)
    assert list_filled(result) == pytest.approx([3_000 / 1.003])


def test_a_share_of_the_equity_as_margin_needs_brackets():
    words = re.escape("needs bt.Brackets(): under another rule")
    with pytest.raises(bt.ParameterError, match=words):
        bt.Account(margin_share=0.3, requirement=TenPercent())


@pytest.mark.parametrize(
    ("terms", "owner", "ratio"),
    [
        # cross: 5 % of 7,280 over the equity of 1,000 is the account's own
        ({"margin_call": 0.3}, "", 0.364),
        # isolated: 5 % of 7,200 over the margin of 720, a tenth of the notional
        ({"margin_call": 0.4, "margin": {"A": "isolated", "B": "cross"},
          "venue_leverage": {"A": 10.0, "B": 10.0}}, "A", 0.5),
    ],
)  # fmt: skip
def test_a_margin_call_is_of_the_account_or_of_its_isolated_position(terms, owner, ratio):
    markets = two([flat(100), flat(100), flat(99)], [flat(100)] * 3)
    account = bt.Account(capital=1_000.0, **terms)
    result = run(markets, Constant(8.0), account=account, signal={"A": 0.9, "B": 0.01})

    calls = result.events[result.events["kind"] == "margin_call"]
    assert calls["instrument"].tolist() == [owner]
    np.testing.assert_allclose(calls["amount"], [ratio])


def test_the_price_that_liquidates_moves_the_group_of_its_instrument_alone():
    """Long 20 A and short 20 C at 100, of 1,000. The bar has the profit of A at 105, and 45, on the
    way to which A has lost all. C, which would gain as much at 45, is in no group of A; B, which
    is, holds nothing."""
    moves = [(-0.01, 1.0), (0.01, 1.0)]
    rule = scenarios(moves={"pair": moves, "*": moves}, groups={"pair": ["A", "B"]})
    still = [flat(100)] * 3
    out = play_legs(
        ([flat(100), flat(100), (100, 106, 45, 100)], (2.0, NAN)), (still, (0.0,)),
        (still, (2.0, NAN)), signal=(1.0, 1.0, -1.0), requirement=rule, take_profit=0.05,
    )  # fmt: skip

    check_outcome(out, {"both_reached": [False, False, True]})
    assert out.of_kind("liquidation")[0].instrument == "A"

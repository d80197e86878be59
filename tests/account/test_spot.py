"""Spot legs: paid when they are bought, with a haircut instead of a requirement."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Carry, Constant
from tests.agreement import bracket, check_outcome, flat, near, play_case, scene, tape
from tests.cases import PortfolioCase
from tests.kit import Hold, Once, check_refused, make_market, make_venue
from tests.scenes import Hand, by_hand, happened

NAN = math.nan
INF = math.inf
YEAR = 365 * 24
LOAN = {"venue": {"borrow_rate": 0.001 * YEAR}}  # 0.1 % an hour
IDLE = tape([flat(1)] * 4, (0.0,))
STILL = [flat(100)] * 4
APART = {"margin": {"S": "cross", "P": "isolated"}, "venue_leverage": {"S": None, "P": 4.0}}
PREMIUMS = [-0.2, -0.05, -0.02, 0.0, 0.02, 0.05, 0.2]
PERP = make_venue(taker=5e-4, slippage=1e-4, interest_on="balance", borrow_rate=0.3)
SPOT = bt.Venue.spot(taker=1e-3, slippage=1e-4, haircut=0.1, borrow_rate=0.2, like=PERP)
VENUES = {"S": SPOT, "P": PERP}


def coin(haircut: float = 0.1, leverage: float = 8.0, rate: float = 0.0) -> dict[str, Any]:
    """Return the venue of a spot leg."""
    terms = {"kind": "spot", "haircut": haircut, "borrow_rate": rate}
    return {"contract": terms, "brackets": [bracket(0.0, leverage)]}


def pair(spot: Any, perp: Any, **terms: Any) -> PortfolioCase:
    """Return an account of 1,000: a spot leg S with a haircut of 10 %, a perpetual P at 5 %."""
    venues = {"S": coin(), **terms.pop("venues", {})}
    signal = terms.pop("signal", {"S": 1.0, "P": -1.0})
    return scene({"S": spot, "P": perp}, signal, venues=venues, **terms)


def held(spot: tuple[float, ...], perp: tuple[float, ...] | None = None, **terms: Any) -> Any:
    """Play leverages of S at 100 and of P, which is idle or at 100, when it is called."""
    other = IDLE if perp is None else tape(STILL, perp)
    return lambda: play_case(pair(tape(STILL, spot), other, **terms))


HAND: Hand = {
    # 3x of 1,000 at 100: w = B = -2,000; M = 3,000 x 0.9 - 2,000; 0.1 % an hour on 2,000. Initial
    # margin is 1/8 less the haircut of 0.1
    "a long bought on credit is in equity in full, and backs less its haircut": (
        held((3.0, NAN), venues={"*": LOAN}),
        {"cash 1": -2000, "backing 1": 700, "requirement 1": 0, "interest 2": 2,
         "equity 3": Fraction(1000) - 2 - Fraction(2002, 1000),
         "initial_margin 1": 3000 / Fraction(8) - 300}),
    # 1,000.1 after an hour; half is spent, and the rest earns 0.01 % an hour
    "a long bought with cash pays nothing and the rest earns": (
        held((0.5, NAN), venues={"*": {"venue": {"cash_rate": 0.0001 * YEAR}}}),
        {"cash 1": Fraction(10_001, 20), "interest 2": Fraction(-10_001, 200_000)}),
    "it pays no funding": (
        lambda: play_case(pair(tape(STILL, (2.0, NAN), funding=[(2.0, 0.01, NAN)]), IDLE)),
        {"equity 3": 1000}),
    # 2x short: M = E = 1,000, w = 3,000 earn nothing here; 0.1 % an hour of 2,000, then 2,200
    "a short counts in full and pays for its coins": (
        lambda: play_case(pair(tape([*STILL[:3], flat(110)], (2.0, NAN)), IDLE,
                               signal={"S": -1.0, "P": 1.0},
                               venues={"S": coin(rate=0.001 * YEAR)})),
        {"backing 1": 1000, "interest 2": 2, "interest 3": Fraction(22, 10),
         "equity 3": 1000 - 200 - 2 - Fraction(22, 10)}),
    # 8x of 1,000 at 100, long or short: the haircut of 10 % is within 1/8
    **{
        f"an infinite target is the leverage of the bracket, {side}": (
            held((INF, NAN), signal={"S": side, "P": 1.0}), {"quantity 1 0": 80 * side})
        for side in (1.0, -1.0)
    },
    # 10x and 5x need 10/8 + 5/20 = 1.5 equities: both get 2/3
    "orders of both legs share the margin": (
        held((10.0, NAN), (5.0, NAN)), {"quantity 1": [Fraction(200, 3), Fraction(-100, 3)]}),
    "gross leverage counts both legs": (
        held((3.0, NAN), (3.0, NAN), max_gross_leverage=4.0), {"quantity 1": [20, -20]}),
    # from 8x long to 8x short: what closes frees 800, and the new short needs 1,000
    "a flip of a spot leg gives back its haircut": (
        held((8.0, 8.0, NAN), signal={"S": [1.0, -1.0, -1.0, -1.0], "P": 1.0}),
        {"quantity 2 0": -80}),
    # 1.5x bought of 1,000 leaves B at -500: nothing is posted for the perpetual
    "what is bought at spot is not there for isolated margin": (
        held((1.5, NAN), (2.0, NAN), **APART), {"quantity 1 1": 0}),
    "what is left of spot is there for isolated margin": (  # 250, at 4x
        held((0.75, NAN), (2.0, NAN), **APART), {"quantity 1 1": -10}),
}  # fmt: skip


@by_hand(HAND)
def test_spot_legs_by_hand(run, numbers):
    check_outcome(run(), numbers)


def find_ratio(premium: float) -> float:
    """Return the price ratio at which a pair of 4x opened at par fails at a premium. w = E; M = E +
    n r ((1 - h) - (1 + b)) E, R = m n r (1 + b) E; M = R gives r."""
    needed = 0.1 + premium + 0.05 * (1.0 + premium)
    return 0.25 / needed if needed > 0.0 else INF


@pytest.mark.parametrize("premium", PREMIUMS)
def test_the_liquidation_price_of_a_pair(premium):
    """Just under it both legs stay, just over it both close, and the account keeps M."""
    ratio = find_ratio(premium)
    for factor in (0.999, 1.001):
        price = 100.0 * min(ratio * factor, 50.0)
        at_premium = price * (1.0 + premium)
        spot = tape([flat(100), flat(100), flat(price), flat(price)], (4.0, NAN))
        perp = tape([flat(100), flat(100), flat(at_premium), flat(at_premium)], (4.0, NAN))
        out = play_case(pair(spot, perp))

        is_liquidated = factor > 1.0 and ratio < 50.0
        closed = [event.instrument for event in out.of_kind("liquidation")]
        assert closed == (["S", "P"] if is_liquidated else [])
        assert near(out.equity[3], 1000 - 40 * (at_premium - price))


def test_a_pair_of_4x_at_a_premium_of_20_percent_fails_under_par():
    """(0.1 + 0.2 + 0.05 x 1.2) x 4 = 1.44 equities."""
    assert find_ratio(0.2) == pytest.approx(0.25 / 0.36)

    ratios = [round(find_ratio(premium), 2) for premium in PREMIUMS[1:-1]]
    assert ratios == [2.56, 1.94, 1.67, 1.46, 1.23]


@pytest.mark.parametrize("premium", [0.0, 0.02, 0.05])
def test_the_book_calculator_gives_the_liquidation_price_of_a_pair(premium):
    """B is -3,000 after buying 40 at 100; both prices rise together from a premium."""
    spot = bt.Venue.spot(
        taker=0.0, slippage=0.0, haircut=0.1, borrow_rate=0.0, max_leverage=8.0, like=make_venue()
    )
    book = bt.calculate_book(
        {"S": spot, "P": make_venue()},
        {"S": 40.0, "P": -40.0},
        {"S": 100.0, "P": 100.0 * (1.0 + premium)},
        balance=-3000.0,
        entries={"S": 100.0, "P": 100.0},
    )

    assert book.backing == pytest.approx(600.0 - 4000.0 * premium)
    assert book.equity == pytest.approx(1000.0 - 4000.0 * premium)
    assert book.moves["up"].iloc[-1] == pytest.approx(find_ratio(premium) - 1.0)
    assert book.initial == pytest.approx(100.0 + 0.05 * 4000.0 * (1.0 + premium))


def test_inside_a_bar_the_pair_fails_where_its_margin_does():
    """S and P rise to 200 and 206: M = 600 - 640 x, R = 5 % of 4000 + 4240 x."""
    spot = tape([flat(100), flat(100), (100, 200, 100, 200)], (4.0, NAN))
    perp = tape([flat(100), flat(100), (100, 206, 100, 206)], (4.0, NAN))
    out = play_case(pair(spot, perp))

    x = Fraction(600 - 200, 400 + 240 + 212)  # M at par is 600, R 200
    assert near(out.equity[2], 1000 - 240 * x)
    assert near(out.of_kind("liquidation")[0].amount, 4000 + 4000 * x)


def test_in_parts_the_step_that_relieves_more_comes_first():
    """Per notional the spot leg frees its 10 %, the perpetual its 5 %."""
    venues = {"*": {"liquidation": {"mode": "partial", "step": 0.5, "order": "most_relief"}}}
    spot = tape([flat(100), flat(100), flat(130), flat(130)], (4.0, NAN))
    perp = tape([flat(100), flat(100), flat(137), flat(137)], (4.0, NAN))

    out = play_case(pair(spot, perp, venues=venues))
    assert out.of_kind("liquidation")[0].instrument == "S"


def make_coins(n: int = 300, seed: int = 0, **more: Any) -> bt.Market:
    """Return bars of a random path that turns nowhere inside a bar."""
    rng = np.random.default_rng(seed)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 2 * n))).reshape(-1, 2)
    opens = prices[:, 0]
    closes = prices[:, 1]
    rows = np.column_stack([opens, prices.max(axis=1), prices.min(axis=1), closes])
    return make_market(rows, **more)


def run_pair(policy: Any = None, **more: Any) -> bt.Result:
    markets = bt.Markets({"S": make_coins(), "P": make_coins(seed=1)}, currency="USDT")
    settings = {
        "venue": VENUES,
        "account": bt.Account(capital=1e4, band=0.2),
        "signal": {"S": -1.0, "P": 1.0},
        **more,
    }
    return bt.run(markets, policy or Constant(1.5), **settings)


def test_trades_of_spot_legs_add_up():
    """The interest of borrowed coins is a cost of the short; that of money belongs to no trade."""
    result = run_pair()
    trades = result.trades

    gain = float(result.bars["equity"].iloc[-1]) - 1e4
    total = float(trades["profit"].sum() + trades.unallocated.sum())
    assert total == pytest.approx(gain, abs=1e-9 * 1e4)

    of_coins = happened(result, "interest").query("instrument == 'S'")
    paid = trades[trades["instrument"] == "S"]["funding"].sum()
    assert paid == pytest.approx(of_coins["amount"].sum())
    assert paid > 10.0
    assert -trades.unallocated["interest"] + paid == pytest.approx(result.metrics["interest"])


def test_a_spot_leg_that_is_never_held_changes_no_bit():
    """Also where the perpetual is alone in a bar, and liquidated in it."""
    account = bt.Account(capital=1e4)
    alone = bt.run(make_coins(seed=1), Once(level=18.0), venue=PERP, account=account)
    beside = run_pair(Once(level=18.0), account=account, signal={"S": 0.0, "P": 1.0})

    assert alone.metrics["liquidations"] == 1
    assert beside.bars["equity"].tolist() == alone.bars["equity"].tolist()


def test_the_liquidation_price_of_a_spot_leg_counts_its_haircut():
    """2x of 1,000 at 100: 0.9 x 20 P = 1,000."""
    market = make_market([flat(100)] * 3)
    venue = bt.Venue.spot(taker=0.0, slippage=0.0, haircut=0.1, borrow_rate=0.0)

    result = bt.run(market, Hold(level=2.0), venue=venue, account=bt.Account(capital=1e3))
    assert result.bars["liquidation_price"].iloc[-1] == pytest.approx(1000 / 18)
    assert result.bars["requirement"].iloc[-1] == 0.0


def run_carry(rate: float, policy: Carry, n: int = 300) -> bt.Result:
    """Run cash and carry at a price of 100 with a funding rate every 8 hours."""
    stamps = pd.date_range("2024-01-01", periods=-(-n // 8), freq="8h", tz="UTC")
    market = make_market([flat(100)] * n, funding=pd.Series(rate, index=stamps))
    markets = bt.Markets({"S": market, "P": market})
    account = bt.Account(capital=1e4)
    return bt.run(markets, policy, signal={"S": 1.0, "P": -1.0}, venue=VENUES, account=account)


@pytest.mark.parametrize(("rate", "size"), [
    (0.10, 0.0),  # under the costs of 12.17 % a year
    (0.20, 1.0),  # over them, but not over them and the 30 % of a loan
    (0.50, 1.0 / (1.5 * (0.1 + 0.1 + 0.05 * 1.1))),  # 2.61
])  # fmt: skip
def test_the_pair_is_as_large_as_its_carry_pays_for(rate, size):
    """0.02 of both legs, held for 60 days, cost 12.17 % a year."""
    policy = Carry(rise=0.5, premium=0.1, haircut=0.1, maintenance=0.05, borrow_rate=0.3, cost=0.02)
    result = run_carry(rate / 1095, policy)

    last = result.bars.iloc[-1]
    assert last["gross_leverage"] == pytest.approx(2.0 * size, rel=1e-3)
    assert last["net_leverage"] == pytest.approx(0.0, abs=1e-3)


def test_the_carry_is_funding_less_interest_and_costs():
    """What it earns on flat prices, to the last cent."""
    result = run_carry(0.001, Carry(rise=0.5, haircut=0.1, maintenance=0.05))
    metrics = result.metrics

    earned = -metrics["funding"] - metrics["interest"] - metrics["fees"] - metrics["slippage"]
    assert result.bars["equity"].iloc[-1] - 1e4 == pytest.approx(earned, abs=1e-6)
    assert metrics["funding"] < -100.0
    assert metrics["interest"] > 1.0


BAD: dict[str, tuple[Any, str]] = {  # name: (what is called, words of its refusal)
    "collateral by its name": (
        lambda: run_pair(account=bt.Account(
            negative_limit=0.0,
            collateral=[bt.Collateral("BTC", amount=1.0, prices="S", rate=0.9)])),
        "a spot leg or collateral"),
    "other money rates": (
        lambda: run_pair(venue={"S": SPOT.override({"borrow_rate": 0.1}), "P": PERP}),
        "borrow_rate must be the same"),
    "a crowd": (
        lambda: bt.cascade(
            bt.Crowd.from_positions(pd.DataFrame(
                [{"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 10.0}])),
            SPOT, shock=-0.1, impact=bt.Linear(0.0)),
        "must have margined positions"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), [*BAD.values()], ids=[*BAD])
def test_bad_input_is_refused(make, words):
    check_refused(make, words)

"""Runs whose answer is known in closed form, from vectorbt, or from a run in other units.

Unless said otherwise: 1,000 of capital, one bracket of 16x and 5 % maintenance, no costs.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account.events import ENTRY, Event
from backtest.results.run_data import find_causes
from backtest.strategies import Constant
from tests.agreement import flat, make_scene, run_engine, scenarios
from tests.scenes import (
    NAN,
    ONCE,
    YEAR,
    Follow,
    account_of,
    equities,
    happened,
    is_,
    market_of,
    play,
    series,
    total,
    venue_of,
    walk,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def decayed(result: bt.Result, inverse: bool = False) -> float:
    """Return the leverage decay of §7 for a run that holds a position in every bar but 0."""
    bars = result.bars
    mark = bars["mark"].to_numpy()
    mark_before = mark[:-1]
    equity = np.array([1000.0, *bars["equity"]])

    # The return of a bar, and the value of a contract at its start, in the account's currency.
    if inverse:
        r = 1 - mark_before / mark[1:]
        contract_value = 1 / mark_before
    else:
        r = mark[1:] / mark_before - 1
        contract_value = mark_before

    leverage = bars["position"].to_numpy()[1:] * contract_value / equity[1:-1]
    return float(np.sum(leverage * np.log1p(r) - np.log1p(leverage * r)))


@pytest.mark.parametrize("leverage", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_rebalanced_leverage_compounds_the_returns_it_multiplies(leverage, side):
    bars = walk(60, sigma=0.02)
    result = play(*bars, targets=leverage, signal=side)

    # Each bar is traded at its open; the last one is held to its close.
    prices = np.array([bar[0] for bar in bars[1:]] + [bars[-1][3]])
    r = prices[1:] / prices[:-1] - 1
    assert equities(result)[-1] == is_(1000 * np.prod(1 + side * leverage * r))


@pytest.mark.parametrize("leverage", [0.5, 1.0, 2.0, 3.0])
def test_leverage_decay_is_the_log_growth_lost(leverage):
    bars = walk(24 * 40, sigma=0.01)
    result = play(*bars, targets=leverage)
    years = len(bars) / 24 / YEAR

    assert result.metrics["leverage_decay"] == is_(decayed(result) / years, 1e-9)

    # half of (l^2 - l) sigma^2 for a constant leverage
    log_returns = np.diff(np.log(result.bars["mark"].to_numpy()))
    sigma_squared = np.var(log_returns) * 24 * YEAR
    rough = 0.5 * (leverage**2 - leverage) * sigma_squared
    assert result.metrics["leverage_decay"] == pytest.approx(rough, rel=0.1, abs=0.02)


def test_a_path_up_and_back_down_costs_what_the_product_says():
    # +10 % and back, twice, at 2x: (1.2 x (1 - 2/11))^2 = (1.2 x 9/11)^2
    result = play(100, (100, 110, 100, 110), (110, 110, 100, 100), (100, 110, 100, 110),
                  (110, 110, 100, 100), targets=2.0)  # fmt: skip
    assert equities(result)[-1] == is_(1000 * (1.2 * 9 / 11) ** 2)


@pytest.mark.parametrize("interval", ["1h", "8h", "1d"])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_funding_carry_of_a_flat_market_is_days_times_three_times_rate(interval, side):
    rate = 0.0001
    leverage = 3.0
    per_day = {"1h": 24, "8h": 3, "1d": 1}[interval]

    # bought one day (or bar) after the start; then seven days of three settlements
    bars = [100.0] * (8 * per_day)
    targets = [*[NAN] * (per_day - 1), leverage, NAN]
    # half past, so that no stamp is at an open
    stamps = [(h + 0.5, rate) for h in range(0, 24 * 8, 8)]
    result = play(*bars, targets=targets, signal=side, funding=stamps, interval=interval)

    # three turns of 1,000 pay the rate 21 times; a short is paid
    paid = side * 7 * 3 * rate * 3000
    assert len(happened(result, "funding")) == 7 * 3
    assert total(result, "funding") == is_(paid)
    assert equities(result)[-1] == is_(1000 - paid)


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_a_long_and_a_short_of_equal_size_sum_to_zero_before_costs(kind):
    bars = walk(80, sigma=0.01, gap=0.003)
    stamps = [(h + 0.0, 0.0004 * math.sin(h)) for h in range(2, 80, 3)]
    terms = {"targets": ONCE, "funding": stamps, "venue": venue_of(contract={"kind": kind})}
    long = play(*bars, signal=1.0, **terms)
    short = play(*bars, signal=-1.0, **terms)

    assert long.bars["position"].iloc[-1] == -short.bars["position"].iloc[-1]
    assert total(long, "funding") == is_(-total(short, "funding"))

    gains = long.bars["equity"] + short.bars["equity"] - 2000.0
    assert np.abs(gains.to_numpy()).max() < 1e-9


def test_hourly_and_daily_bars_of_one_path_give_a_held_position_the_same_equity():
    bars = walk(24 * 6, sigma=0.01)
    stamps = [(h + 0.0, 0.0004 * math.cos(h), 100.0 + h) for h in range(0, 24 * 6, 8)]
    hourly = market_of(*bars, targets=[*[NAN] * 23, 1.0, NAN], funding=stamps)
    daily = hourly.resample("1d")
    assert daily.funding_time.tolist() == hourly.funding_time.tolist()

    terms = {"venue": venue_of(), "account": account_of(), "compile": False}
    fine = bt.run(hourly, Follow(), **terms)
    coarse = bt.run(daily, Follow(), **terms)

    # the hourly order of 23:00 and the daily one both fill at 0:00 of the second day; the target
    # of a day is the last one of its hours, which from the second day on is NaN
    assert total(fine, "funding") == is_(total(coarse, "funding"))
    last_of_days = fine.bars["equity"].to_numpy()[23::24]
    assert coarse.bars["equity"].to_numpy() == is_(last_of_days)


@pytest.mark.filterwarnings("ignore")  # vectorbt warns of deprecated calls of its own
@pytest.mark.slow
@pytest.mark.parametrize("fee", [0.0, 0.0007])
@pytest.mark.parametrize("calm", [False, True])
def test_an_unlevered_run_with_fees_equals_vectorbts_portfolio(fee, calm):
    vectorbt = pytest.importorskip("vectorbt")
    rng = np.random.default_rng(5)
    bars = walk(400, seed=3, sigma=0.01, gap=0.004)

    # at most 0.99 of the equity, so that neither shrinks an order to what is there for its fee
    targets = 0.99 * rng.random(400)
    if calm:
        targets[rng.random(400) < 0.8] = NAN

    market = market_of(*bars, targets=targets.tolist())
    venue = venue_of(fees={"taker": fee, "maker": fee})
    ours = bt.run(market, Follow(), venue=venue, account=account_of(), compile=False)

    # vectorbt fills in the bar of the size, so the target of the bar before is its size
    opens = pd.Series(market.open, index=market.times)
    closes = pd.Series(market.close, index=market.times)
    size = pd.Series(targets, index=market.times).shift(1)
    theirs = vectorbt.Portfolio.from_orders(
        closes,
        size=size,
        size_type="targetpercent",
        price=opens,
        val_price=opens,
        fees=fee,
        init_cash=1000.0,
        freq="1h",
    )

    value = theirs.value().to_numpy()
    held = theirs.assets().to_numpy()
    assert equities(ours) == pytest.approx(value, rel=1e-9)
    assert ours.bars["position"].to_numpy() == pytest.approx(held, rel=1e-9, abs=1e-12)


def test_a_deposit_does_not_look_like_decay():
    bars = [(100, 101, 100, 101), (101, 101, 100, 100)] * 20
    result = play(*bars, targets=1.0, account=account_of(flows=series({3: 99_000.0})))
    assert result.metrics["leverage_decay"] == pytest.approx(0.0, abs=1e-9)


def test_an_account_emptied_by_its_owner_is_not_ruined_and_trades_again():
    flows = series({3: -1000.0, 6: 500.0})
    targets = [NAN] * 7 + [1.0] * 3
    result = play(*[100] * 10, targets=targets, account=account_of(flows=flows))

    assert result.bars["equity"].iloc[4] == 0.0
    assert result.metrics["ruined"] == 0.0
    assert result.bars["position"].iloc[-1] == is_(5.0)


def volatile(seed: int = 0) -> bt.Market:
    """Return bars that a leverage of 20 does not survive for long."""
    funding = [(h, 1e-4) for h in range(0, 120, 8)]
    return market_of(*walk(120, seed=seed, sigma=0.02), funding=funding)


def simple(mode: str = "close") -> bt.Venue:
    return bt.Venue.simple(
        taker=5e-4, slippage=2e-4, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.002
    ).override({"liquidation.mode": mode})


def together(
    markets: dict[str, bt.Market], signal: dict[str, float], leverage: float, **terms: Any
) -> bt.Result:
    """Run several markets at one leverage, each with a signal of its own."""
    settings = {"venue": simple(), "account": bt.Account(capital=10_000), **terms}
    several = bt.Markets(markets, currency="USDT")
    return bt.run(several, Constant(leverage=leverage), signal=signal, **settings)


@pytest.mark.parametrize("mode", ["close", "takeover"])
def test_two_halves_of_a_market_are_the_whole(mode):
    """Half the weight under each of two names: the single account to 1e-9."""
    market = volatile()
    terms = {"venue": simple(mode), "account": bt.Account(capital=10_000)}
    one = bt.run(market, Constant(leverage=20.0), **terms)
    halves = together({"A": market, "B": market}, {"A": 0.5, "B": 0.5}, 20.0, **terms)
    assert one.metrics["liquidations"] >= 1

    scale = 1e-9 * np.maximum(one.bars["equity"], 10_000)
    assert (np.abs(one.bars["equity"] - halves.bars["equity"]) <= scale).all()

    held = halves.positions.pivot_table(index="time", columns="instrument", values="quantity")
    assert np.allclose(held.sum(axis=1), one.bars["position"], rtol=1e-9, atol=1e-9)
    assert np.allclose(held["A"], held["B"], rtol=1e-12)


def hedge(requirement: dict[str, Any] | None, **account: Any) -> bt.Result:
    """Long 4x and short 4x of one market that falls by 20 % and rises by 30 % inside a bar."""
    market = market_of(100, 100, (100, 130, 80, 110), targets=(4.0, NAN))
    markets = bt.Markets({"A": market, "B": market}, currency="USDT")

    rule: bt.Brackets | bt.ScenarioMargin = bt.Brackets()
    if requirement is not None:
        rule = bt.ScenarioMargin(**requirement)

    terms = {"venue": venue_of(), "account": account_of(requirement=rule, **account)}
    return bt.run(markets, Follow(), signal={"A": 1.0, "B": -1.0}, **terms)


def scenario(**terms: Any) -> dict[str, Any]:
    """Return scenarios of 15 % on one group of A and B."""
    return scenarios(moves={"g": [(-0.15, 1.0), (0.15, 1.0)]}, groups={"g": ["A", "B"]}, **terms)


def test_a_hedge_needs_twice_the_margin_under_brackets_and_little_under_scenarios():
    """8000 gross: 5 % is 400; one group nets to nothing but 1 % contingency or 2 % minimum."""
    gross = hedge(None).bars["requirement"].iloc[1]
    assert gross == pytest.approx(400.0, rel=1e-12)

    contingency = hedge(scenario(contingency=0.01)).bars["requirement"].iloc[1]
    assert contingency == pytest.approx(80.0, rel=1e-12)

    minimum = hedge(scenario(minimum=0.02)).bars["requirement"].iloc[1]
    assert minimum == pytest.approx(160.0, rel=1e-12)


@pytest.mark.parametrize("requirement", [None, scenario(contingency=0.01)])
@pytest.mark.parametrize("intrabar", ["path", "worst"])
def test_a_hedge_is_not_liquidated_while_the_margin_holds_at_every_price(requirement, intrabar):
    """M stays 1000; the requirement is at most 5 % of 8 x 130 x 10."""
    result = hedge(requirement, intrabar=intrabar)
    assert result.metrics["liquidations"] == 0
    assert result.bars["equity"].iloc[-1] == pytest.approx(1000.0, rel=1e-12)


def test_an_option_that_closed_makes_no_position_of_the_next_liquidation_a_victim():
    """Owner 6 is an option. Causes of two positions have five numbers, so 6 of the first
    liquidation stands where 1 of the second does."""
    rows = [
        # kind, owner, value, amount
        (Event.CAUSED, 0, 1.0, -5.0),
        (Event.LIQUIDATED, 0, 90.0, -5.0),
        (Event.LIQUIDATED, 6, 2.0, -1.0),
        (Event.CAUSED, 0, 1.0, -4.0),
        (Event.CAUSED, 1, 0.0, 3.0),
        (Event.LIQUIDATED, 0, 80.0, -4.0),
    ]
    entries = np.zeros(len(rows), ENTRY)
    for entry, (kind, owner, value, amount) in zip(entries, rows, strict=True):
        entry["kind"] = kind
        entry["owner"] = owner
        entry["value"] = value
        entry["amount"] = amount
    run: Any = SimpleNamespace(
        entries=entries,
        has_one_position=False,
        names=["A", "B"],
        time=np.arange(2),
        span=SimpleNamespace(first=0),
    )

    found = find_causes(run)
    assert found["cause"].tolist() == ["A", "A"]
    assert found["liquidation"].tolist() == [1, 2]

    # Where the second one closes B, B is a victim with its profit.
    entries["owner"][-1] = 1
    assert find_causes(run)["profit"].tolist() == [0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("move", "first", "left"), [(0.05, 0.475, 500.0), (0.08, 0.16, 600 - 80 / 0.95)]
)
def test_two_causes_share_a_fall(move, first, left):
    """A long 5x falls and B short 5x rises: at the lows A has fallen alone, at the highs B risen.
    Then A falls by x and the account fails: 1000 - 5000 m - 5000 x = 250 (1 + m) + 250 (1 - x). Of
    a fall of D by 500, A's loss less the fall of its requirement is 4750 x = 500 - 5250 m."""
    low = 100 * (1 - move)
    high = 100 * (1 + move)
    falling = ([flat(100), flat(100), (100, 100, low, low)], (5, NAN))
    rising = ([flat(100), flat(100), (100, high, 100, high)], (5, NAN))
    result = run_engine(make_scene(falling, rising, signal=(1.0, -1.0)))

    table = result.contagion().set_index("cause")
    assert table.loc["A", "share"] == pytest.approx(first, rel=1e-9)
    assert table.loc["B", "share"] == pytest.approx(1 - first, rel=1e-9)
    assert result.bars["equity"].iloc[-1] == pytest.approx(left, rel=1e-9)

"""Runs whose answer is known in closed form, from numpy, from vectorbt, or from another run.

Unless said otherwise: 1,000 of capital, one bracket of 16x and 5 % maintenance, no costs.
"""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest as bt
from tests.fast_cases import every_nth
from tests.scenes import (
    INF,
    NAN,
    START,
    TRADES,
    Follow,
    account_of,
    bracket,
    equities,
    happened,
    isolated,
    market_of,
    play,
    series,
    total,
    venue_of,
)

ONCE = (1.0, NAN)
YEAR = 365.0


def is_(value, rel=1e-12):
    return pytest.approx(value, rel=rel, abs=1e-9)


def walk(n, *, seed=0, sigma=0.01, gap=0.0, price=100.0):
    """Return a random path of bars: each opens at the last close, or a gap away from it."""
    rng = np.random.default_rng(seed)
    moves = sigma * rng.standard_normal(n)
    gaps = gap * rng.standard_normal(n)
    close = price * np.exp(np.cumsum(moves + gaps))
    start = close / np.exp(moves)
    wick = np.exp(0.3 * sigma * np.abs(rng.standard_normal((2, n))))
    high, low = np.maximum(start, close) * wick[0], np.minimum(start, close) / wick[1]
    return [tuple(map(float, bar)) for bar in zip(start, high, low, close, strict=True)]


def decayed(result: bt.Result, inverse: bool = False) -> float:
    """Return the leverage decay of §7 for a run that holds a position in every bar but 0."""
    bars = result.bars
    mark, equity = bars["mark"].to_numpy(), np.array([1000.0, *bars["equity"]])
    before = mark[:-1]
    r = 1 - before / mark[1:] if inverse else mark[1:] / before - 1
    unit = 1 / before if inverse else before
    held = bars["position"].to_numpy()[1:] * unit / equity[1:-1]
    return float(np.sum(held * np.log1p(r) - np.log1p(held * r)))


# --------------------------------------------------------------------------- leverage and carry


@pytest.mark.parametrize("leverage", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_rebalanced_leverage_compounds_the_returns_it_multiplies(leverage, side):
    bars = walk(60, sigma=0.02)
    result = play(*bars, targets=leverage, signal=side)
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
    mark = result.bars["mark"].to_numpy()
    sigma_squared = np.var(np.diff(np.log(mark))) * 24 * YEAR
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
    rate, leverage = 0.0001, 3.0
    per_day = {"1h": 24, "8h": 3, "1d": 1}[interval]
    # bought one day (or bar) after the start; then seven days of three settlements
    bars = [100.0] * (8 * per_day)
    wait = [NAN] * (per_day - 1)
    # half past, so that no stamp is at an open
    stamps = [(h + 0.5, rate) for h in range(0, 24 * 8, 8)]
    result = play(
        *bars, targets=[*wait, leverage, NAN], signal=side, funding=stamps, interval=interval
    )
    assert len(happened(result, "funding")) == 7 * 3
    assert total(result, "funding") == is_(side * 7 * 3 * rate * 3000)
    assert equities(result)[-1] == is_(1000 - side * 7 * 3 * rate * 3000)


def test_a_long_and_a_short_of_equal_size_sum_to_zero_before_costs():
    bars = walk(80, sigma=0.01, gap=0.003)
    stamps = [(h + 0.0, 0.0004 * math.sin(h)) for h in range(2, 80, 3)]
    both = [
        play(*bars, targets=ONCE, signal=side, funding=stamps, venue=v)
        for v in (venue_of(), venue_of(contract={"kind": "inverse"}))
        for side in (1.0, -1.0)
    ]
    for long, short in (both[:2], both[2:]):
        assert long.bars["position"].iloc[-1] == -short.bars["position"].iloc[-1]
        gains = long.bars["equity"] + short.bars["equity"] - 2000.0
        assert np.abs(gains.to_numpy()).max() < 1e-9
        assert total(long, "funding") == is_(-total(short, "funding"))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    leverage=st.floats(0.5, 16.0),
    setting=st.floats(1.0, 16.0),
    side=st.sampled_from([1.0, -1.0]),
    mode=st.sampled_from(["close", "takeover", "partial"]),
    gap=st.sampled_from([0.0, 0.1]),
)
def test_an_isolated_loss_is_never_over_the_posted_margin_and_fees(
    seed, leverage, setting, side, mode, gap
):
    bars = walk(12, seed=seed, sigma=0.05, gap=gap)
    fees = {"taker": 0.0006, "maker": 0.0006}
    liquidation = {"mode": mode, "fee": 0.01, "slippage": 0.02}
    result = play(
        *bars,
        targets=(leverage, NAN),
        signal=side,
        venue=venue_of(fees=fees, slippage={"rate": 0.0005}, liquidation=liquidation),
        account=isolated(setting),
    )
    bought = happened(result, "fill")["amount"].iloc[0]
    worst = bought / setting + bought * 0.0006
    assert result.bars["equity"].min() >= 1000 - worst * (1 + 1e-12)
    assert result.bars["cash"].min() >= 1000 - worst * (1 + 1e-12)


# -------------------------------------------------------------------------------- change of unit


@pytest.mark.parametrize("kind", ["linear", "inverse"])
@pytest.mark.parametrize("margin", ["cross", "isolated"])
def test_the_price_times_a_thousand_changes_no_return(kind, margin):
    bars = walk(150, sigma=0.02, gap=0.005)
    larger = [tuple(1000 * p for p in bar) for bar in bars]
    stamps = [(h + 0.0, 0.0004 * math.sin(h)) for h in range(4, 150, 4)]
    venue = venue_of(
        contract={"kind": kind},
        fees={"taker": 0.0005, "maker": 0.0005},
        slippage={"rate": 0.0002},
        liquidation={"fee": 0.01, "slippage": 0.01},
    )
    account = isolated() if margin == "isolated" else account_of()
    small, large = (
        play(*path, targets=[4, NAN, NAN], venue=venue, account=account, funding=stamps)
        for path in (bars, larger)
    )
    assert large.bars["unit"].to_numpy() == pytest.approx(small.bars["unit"].to_numpy(), rel=1e-9)
    assert len(small.events) == len(large.events)


@pytest.mark.parametrize("gap", [0.0, 0.002])
def test_a_minute_and_an_hour_differ_by_no_more_than_what_an_open_can_jump(gap):
    """The same path, liquidated: by the hour at the price, by the minute at the open beyond it.

    Between two minutes the price jumps by ``gap``; the liquidation of the finer bars is at most
    that much beyond the price, for a notional of 10 times the capital: a bound of 10 ``gap`` of it.
    """
    steps = 100 * np.cumprod(np.full(60, 1 - 0.0015 - gap)) / (1 - gap)
    minutes, last = [], 100.0
    for k, step in enumerate(steps):
        opened = last * (1 - gap) if k else 100.0
        minutes.append((opened, opened, min(step, opened), min(step, opened)))
        last = minutes[-1][3]
    low = min(bar[2] for bar in minutes)
    fine = play(100.0, 100.0, *minutes, targets=(10.0, NAN), interval="1m")
    hour = (100.0, 100.0, low, last)
    coarse = play(100.0, 100.0, hour, targets=(10.0, NAN), interval="1h")
    assert len(happened(fine, "liquidation")) == len(happened(coarse, "liquidation")) == 1
    loss = equities(coarse)[-1] - equities(fine)[-1]
    assert -1e-9 <= loss <= 10 * gap * 1000 + 1e-9


def test_hourly_and_daily_bars_of_one_path_give_a_held_position_the_same_equity():
    bars = walk(24 * 6, sigma=0.01)
    stamps = [(h + 0.0, 0.0004 * math.cos(h), 100.0 + h) for h in range(0, 24 * 6, 8)]
    hourly = market_of(*bars, targets=[*[NAN] * 23, 1.0, NAN], funding=stamps)
    daily = hourly.resample("1d")
    fine, coarse = (
        bt.run(each, Follow(), venue=venue_of(), account=account_of(), compile=False)
        for each in (hourly, daily)
    )
    assert daily.funding_time.tolist() == hourly.funding_time.tolist()
    # the hourly order of 23:00 and the daily one both fill at 0:00 of the second day; the target
    # of a day is the last one of its hours, which from the second day on is NaN
    assert total(fine, "funding") == is_(total(coarse, "funding"))
    ends = fine.bars["equity"].to_numpy()[23::24]
    assert coarse.bars["equity"].to_numpy() == is_(ends)


# ------------------------------------------------------------------------------------- vectorbt


@pytest.mark.slow
@pytest.mark.parametrize("fee", [0.0, 0.0007])
@pytest.mark.parametrize("calm", [False, True])
def test_an_unlevered_run_with_fees_equals_vectorbts_portfolio(fee, calm):
    with warnings.catch_warnings():
        # on import vectorbt's dependencies warn about their own deprecated calls
        warnings.simplefilter("ignore")
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
    opens, closes = (pd.Series(x, index=market.index) for x in (market.open, market.close))
    with warnings.catch_warnings():
        # vectorbt 1.0 touches pandas options and numba features that are deprecated
        warnings.simplefilter("ignore")
        theirs = vectorbt.Portfolio.from_orders(
            closes,
            size=pd.Series(targets, index=market.index).shift(1),
            size_type="targetpercent",
            price=opens,
            val_price=opens,
            fees=fee,
            init_cash=1000.0,
            freq="1h",
        )
        value, held = theirs.value().to_numpy(), theirs.assets().to_numpy()
    assert equities(ours) == pytest.approx(value, rel=1e-9)
    assert ours.bars["position"].to_numpy() == pytest.approx(held, rel=1e-9, abs=1e-12)


def test_resampled_bars_keep_every_settlement():
    stamps = [(h + 0.0, 0.0001 * (h + 1)) for h in range(0, 96, 8)]
    market = market_of(*[100] * 96, funding=stamps)
    for interval, interval_hours in (("4h", 4), ("8h", 8), ("1d", 24)):
        coarse = market.resample(interval)
        assert coarse.funding_rate.tolist() == market.funding_rate.tolist()
        result = bt.run(coarse, Follow(), venue=venue_of(), account=account_of(), compile=False)
        # rebalanced to 1x each bar, so pays as it holds: all stamps after the first purchase
        paid = [rate for hour, rate in stamps if hour > interval_hours]
        assert len(happened(result, "funding")) == len(paid)


# --------------------------------------------------------------------- the whole equals its parts


class Wealth(NamedTuple):
    """What a Ratchet remembers."""

    floor: float
    calls: float


class Ratchet(bt.Policy):
    """Lever the distance to a floor that only rises, sometimes leave the position alone."""

    multiple: Annotated[float, bt.Range(0.5, 20.0, "turns")] = 6.0

    def observe(self, market):
        close = pd.Series(market.close)
        return {"trend": close.ewm(halflife=12).mean().to_numpy()}

    def start(self):
        return Wealth(0.7, 0.0)

    def leverage(self, bar, account, memory):
        unit = account.peak_equity / 1000.0
        floor = max(memory.floor, 0.7 * unit, memory.floor * (1 + 1e-5))
        after = Wealth(floor, memory.calls + 1.0)
        if after.calls % 5 == 0:
            return math.nan, after
        tilt = 1.2 if bar.close > bar.trend else 0.8
        cushion = max(account.equity / 1000.0 - 0.5 * floor, 0.05)
        return self.multiple * tilt * cushion, after


FEES = {"taker": 0.0006, "maker": 0.0002, "maker_share": 0.3}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cross, all costs": (
        {
            "fees": FEES,
            "slippage": {"rate": 0.0002, "impact": 0.3, "impact_window": "6h"},
            "interest_on": "balance",
            "cash_rate": 0.03,
            "borrow_rate": 0.08,
            "margin_multiplier": series({0: 1.0, 50: 1.5, 100: 1.0}),
        },
        {
            "band": 0.2,
            "stop_loss": 0.06,
            "flows": series({30.5: 150.0, 60: 90.0, 61: -400.0}),
            "margin_call": 0.19,
            "reserve": 300.0,
            "top_up_to": 0.12,
        },
    ),
    "isolated, partial, loan": (
        {
            "fees": FEES,
            "slippage": {"rate": 0.0002, "max_participation": 0.2, "impact_window": "6h"},
            "interest_on": "loan",
            "borrow_rate": series({0: 0.05, 70: 0.2}),
            "short_rate": 0.04,
            "brackets": [bracket(0.0, 4000.0, 16.0, 0.04), bracket(4000.0, INF, 9.0, 0.09)],
            "liquidation": {
                "mode": "partial",
                "step": 0.3,
                "fee": 0.01,
                "slippage": 0.002,
                "impact": 0.2,
            },
        },
        {"margin": "isolated", "venue_leverage": 12.0, "margin_call": 0.5},
    ),
    "inverse, graced": (
        {
            "contract": {"kind": "inverse", "lot": 10.0},
            "fees": FEES,
            "call_grace": 2,
            "liquidation": {"mode": "takeover"},
        },
        {"margin_call": 0.22, "flows": series({40: -200.0})},
    ),
    "ruined at a line": (
        {
            "fees": FEES,
            "slippage": {"rate": 0.0002},
            "interest_on": "loan",
            "borrow_rate": 0.05,
            "cash_rate": 0.02,
        },
        {
            "ruin_at": 0.8,
            "flows": series({20: 300.0, 25: -150.0, 110: 100.0}),
            "margin_call": 0.19,
            "reserve": 200.0,
            "top_up_to": 0.12,
        },
    ),
    "isolated, guarded by its wallet": (
        {
            "fees": FEES | {"per_order": series({0: 0.5, 60: 2.0})},
            "slippage": {"rate": 0.0002},
            "brackets": [bracket(0.0, 4000.0, 16.0, 0.045), bracket(4000.0, INF, 15.0, 0.055)],
            "profit_counts": 0.5,
            "call_grace": 8,
        },
        {
            "capital": 600.0,
            "margin": "isolated",
            "venue_leverage": 14.0,
            "margin_call": 0.7,
            "reserve": 15.0,
            "top_up_to": 0.65,
            "auto_margin": True,
        },
    ),
}


def lived(setting, *, seed=4):
    """Return a market with mark prices and funding, and the other arguments of a run."""
    n = 140
    bars = walk(n, seed=seed, sigma=0.012, gap=0.003)
    marks = [tuple(p * (1 + 0.0004 * math.sin(t)) for p in bar) for t, bar in enumerate(bars)]
    stamps = [(h + 0.001 * math.sin(h), 0.0005 * math.cos(h)) for h in range(4, n, 4)]
    stamps += [(h + 0.4, 0.0002, 99.0) for h in range(6, n, 16)]
    market = market_of(*bars, mark=marks, funding=sorted(stamps), volume=400.0)
    venue, account = SETTINGS[setting]
    signal = pd.Series([1.0 if t % 40 < 25 else -0.7 for t in range(n)], index=market.index)
    return market, {
        "policy": Ratchet(),
        "venue": venue_of(**venue),
        "account": account_of(**account),
        "signal": signal,
        "compile": False,
    }


def assert_same_bits(whole, head, tail):
    """The recorded bars and events of two parts, put together, are those of the whole."""
    both = np.concatenate([head.record, tail.record], axis=1)
    assert both.tobytes() == whole.record.tobytes()
    assert np.concatenate([head.entries, tail.entries]).tobytes() == whole.entries.tobytes()
    assert tail.memory == whole.memory
    mine, theirs = tail.state._asdict(), whole.state._asdict()
    for name in ("funding_next", "flow_next"):  # positions in the feed of each run
        mine.pop(name), theirs.pop(name)
    assert repr(mine) == repr(theirs)
    assert pd.concat([head.bars, tail.bars])["equity"].equals(whole.bars["equity"])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("overlap", every_nth([0, 1, 20], 4))
def test_a_run_equals_its_parts_bit_for_bit(setting, overlap):
    market, settings_ = lived(setting)
    whole = bt.run(market, **settings_)
    held = whole.bars["position"].to_numpy() != 0.0
    cuts = [2, 31, 61, 62, 99, 138] if overlap == 0 else [41, 101]
    assert any(held[k - 1] for k in cuts)
    for k in cuts:
        edge = market.index[k]
        head = bt.run(market.between(None, edge), **settings_ | cut_signal(settings_, None, edge))
        later = market.index[max(k - overlap, 1)]
        rest = market.between(later, None)
        tail = bt.run(rest, **settings_ | cut_signal(settings_, later, None), resume=head)
        assert_same_bits(whole, head, tail)


def cut_signal(settings_, start, end):
    signal = settings_["signal"]
    if end is not None:
        signal = signal[signal.index < end]
    if start is not None:
        signal = signal[signal.index >= start]
    return {"signal": signal}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_scenes_of_the_parts_are_lively(setting):
    market, settings_ = lived(setting)
    result = bt.run(market, **settings_)
    kinds = set(result.events["kind"])
    wanted = {
        "cross, all costs": {"impact", "interest", "margin_call", "top_up", "flow", "stop"},
        "isolated, partial, loan": {"interest", "margin_call", "liquidation", "funding"},
        "inverse, graced": {"margin_call", "funding", "flow"},
        "ruined at a line": {"ruin", "flow", "top_up", "interest"},
        "isolated, guarded by its wallet": {
            "margin_call",
            "call_met",
            "call_partly_met",
            "call_failed",
            "margin_added",
            "top_up",
        },
    }[setting]
    assert wanted <= kinds
    assert result.metrics["ruined"] == float(setting == "ruined at a line")


def test_resuming_in_three_parts_and_on_the_whole_market_gives_the_same_bits():
    market, settings_ = lived("cross, all costs")
    whole = bt.run(market, **settings_)
    part = bt.run(market.between(None, market.index[50]), **settings_ | cut_signal(
        settings_, None, market.index[50]))  # fmt: skip
    middle = bt.run(market.between(None, market.index[90]), **settings_ | cut_signal(
        settings_, None, market.index[90]), resume=part)  # fmt: skip
    last = bt.run(market, **settings_, resume=middle)
    pieces = np.concatenate([part.record, middle.record, last.record], axis=1)
    assert pieces.tobytes() == whole.record.tobytes()


# ------------------------------------------------------------------------------------- measures


def measure(result: bt.Result, periods: float = YEAR) -> dict[str, float]:
    """Return the measures of §7 from the tables alone."""
    bars, returns = result.bars, result.returns.to_numpy()
    hours = (bars.index[1] - bars.index[0]) / pd.Timedelta("1h")
    years = len(bars) * hours / 24 / YEAR
    unit = np.array([1.0, *bars["unit"]])
    bars_held = np.full(len(returns), 24 / hours)
    bars_held[0] -= 1  # bar 0 earns no interest
    free = (1 + result.venue.cash_rate * hours / 24 / YEAR) ** bars_held - 1
    excess = returns - free
    peak = np.maximum.accumulate(unit)
    fall = 1 - unit / peak
    trough = int(np.argmax(fall))
    top = int(np.flatnonzero(unit[: trough + 1] == peak[trough])[-1])
    back = np.flatnonzero(unit[trough:] >= peak[trough])
    end = trough + int(back[0]) if back.size else len(bars)
    losses = np.sort(-returns)
    tail = {}
    for level in (95, 99):
        var = losses[math.ceil(level / 100 * (len(losses) - 1))]
        tail |= {f"var_{level}": var, f"es_{level}": losses[losses >= var].mean()}
    traded = result.events[result.events["kind"].isin(TRADES)]
    cagr = unit[-1] ** (1 / years) - 1
    near = np.abs(bars["mark"] / bars["liquidation_price"] - 1) <= 0.1
    return (
        tail
        | {
            "total_return": unit[-1] - 1,
            "cagr": cagr,
            "volatility": returns.std(ddof=1) * math.sqrt(periods),
            "sharpe": excess.mean() / excess.std(ddof=1) * math.sqrt(periods),
            "sortino": excess.mean()
            / math.sqrt(np.mean(np.minimum(excess, 0) ** 2))
            * math.sqrt(periods),
            "max_drawdown": fall.max(),
            "drawdown_days": (end - top) * hours / 24,
            "recovered": float(back.size > 0),
            "calmar": cagr / fall.max(),
            "turnover": traded["amount"].sum() / bars["equity"].mean() / years,
            "mean_leverage": bars["leverage"].abs().mean(),
            "peak_leverage": bars["leverage"].abs().max(),
            "peak_margin_ratio": bars["margin_ratio"].max(),
            "near_liquidation_share": near.mean(),
            "final_equity": bars["equity"].iloc[-1],
            "liquidations": float((result.events["kind"] == "liquidation").sum()),
            "stops": float((result.events["kind"] == "stop").sum()),
            "margin_calls": float((result.events["kind"] == "margin_call").sum()),
            "fees_annual": bars["fees"].sum() / bars["equity"].mean() / years,
        }
        | {name: bars[name].sum() for name in ("price_pnl", "fees", "slippage", "funding")}
    )


def measured(seed, *, leverage=3.0, inverse=False, liquidated=False, **market):
    bars = walk(24 * 30, seed=seed, sigma=0.006 if not liquidated else 0.008)
    stamps = [(h + 0.0, 0.0003 * math.cos(h)) for h in range(8, 24 * 30, 8)]
    venue = venue_of(
        contract={"kind": "inverse"} if inverse else {},
        fees={"taker": 0.0004, "maker": 0.0004},
        slippage={"rate": 0.0002},
        # the traded notional of a liquidation is the one at its price: no worsening here
        liquidation={"fee": 0.01, "slippage": 0.0},
        interest_on="balance",
        cash_rate=0.04,
    )
    account = account_of(band=0.3, flows=series({24 * 10: 300.0, 24 * 20 + 5.5: -200.0}))
    targets = [leverage, *[NAN] * 23] * 30 if liquidated else leverage
    return play(*bars, targets=targets, venue=venue, account=account, funding=stamps, **market)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_measures_equal_an_independent_computation(seed, inverse):
    result = measured(seed, inverse=inverse)
    expected = measure(result)
    found = {name: result.metrics[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_measures_hold_with_liquidations_near_misses_and_bad_days(seed):
    result = measured(seed, leverage=9.0, liquidated=True)
    expected = measure(result)
    found = {name: result.metrics[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.slow
def test_the_runs_of_the_measures_cover_both_ways():
    runs = [measured(seed, leverage=9.0, liquidated=True) for seed in (1, 2, 3, 4)]
    runs += [measured(seed) for seed in (1, 2, 3, 4)]
    assert {run.metrics["recovered"] for run in runs} == {0.0, 1.0}
    assert sum(run.metrics["liquidations"] for run in runs) > 0
    assert max(run.metrics["near_liquidation_share"] for run in runs) > 0.1


def test_the_sampling_period_and_the_sessions_scale_the_ratios():
    bars = walk(24 * 20, seed=8, sigma=0.006)
    market = market_of(*bars)
    for sampling, calendar, periods in (("1d", "252", 252.0), ("4h", "365", 6 * YEAR)):
        result = bt.run(
            market, Follow(), venue=venue_of(), account=account_of(), sampling=sampling,
            calendar=calendar, compile=False,
        )  # fmt: skip
        expected = measure(result, periods)
        for name in ("sharpe", "sortino", "volatility", "var_95", "es_95"):
            assert result.metrics[name] == is_(expected[name], 1e-9), name
        assert len(result.returns) == (20 if sampling == "1d" else 120)


def test_daily_returns_are_those_of_the_last_closes_of_the_days():
    result = measured(1)
    unit = result.bars["unit"]
    ends = np.array([1.0, *unit[unit.index.hour == 23]])
    assert result.returns.to_numpy() == is_(ends[1:] / ends[:-1] - 1)


def test_a_deviation_of_zero_gives_nan_and_not_infinity():
    metrics = play(*[100] * 96, targets=1.0).metrics
    assert math.isnan(metrics["sharpe"])
    assert math.isnan(metrics["sortino"])
    assert metrics["max_drawdown"] == 0.0
    assert metrics["recovered"] == 1.0
    assert math.isnan(metrics["calmar"])


def test_the_drawdown_runs_from_its_peak_to_its_recovery():
    # 1x by the day: peak at the close of day 2, trough on day 4, back at the peak on day 6
    closes = [100, 100, 120, 110, 90, 100, 120, 130]
    bars = [(a, max(a, b), min(a, b), b) for a, b in zip([100, *closes], closes, strict=False)]
    metrics = play(*bars, targets=(1.0, NAN), interval="1d").metrics
    assert metrics["max_drawdown"] == is_(0.25)
    assert metrics["drawdown_days"] == is_(4.0)
    assert metrics["recovered"] == 1.0


def test_ruin_is_dated_and_later_returns_are_zero():
    result = play(100, 100, 80, *[90.0] * 5, targets=(10.0, 1.0), interval="1d")
    metrics = result.metrics
    assert metrics["ruined"] == 1.0
    assert metrics["ruin_time"] == is_(3.0)
    assert metrics["time_to_first_liquidation"] == is_(3.0)
    assert metrics["cagr"] == -1.0
    assert math.isnan(metrics["leverage_decay"])
    assert result.returns.tolist() == [0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert metrics["max_drawdown"] == 1.0
    assert metrics["recovered"] == 0.0


def test_returns_after_ruin_are_zero_also_where_wealth_is_left_and_earns():
    # ruined on day 2 with 500 of wealth in the reserve; a deposit on day 3 earns 0.1 % a day
    account = account_of(flows=series({72: 1000.0}), reserve=500.0, margin_call=0.8, top_up_to=0.5)
    venue = venue_of(interest_on="balance", cash_rate=0.365)
    result = play(
        100, 100, 10, *[100] * 3, targets=10.0, venue=venue, account=account, interval="1d"
    )
    assert result.metrics["ruined"] == 1.0
    assert result.returns.tolist()[3:] == [0.0, 0.0, 0.0]


def test_wealth_counts_the_reserve():
    account = account_of(margin_call=0.8, top_up_to=0.5, reserve=500.0)
    result = play(100, (100, 100, 95.5, 95.5), 95.5, targets=(10.0, NAN), account=account)
    # 1,500 of wealth lose 450; the top-up moves 405 within it
    assert result.bars["unit"].tolist() == [1.0, is_(1050 / 1500), is_(1050 / 1500)]
    assert result.metrics["total_return"] == is_(-0.3)


# --------------------------------------------------------------------------- ledger, save, load

COLUMN_OF_KIND = {
    "fee": "fees",
    "slippage": "slippage",
    "impact": "impact",
    "funding": "funding",
    "interest": "interest",
    "liquidation_loss": "liquidation_loss",
    "bad_debt": "bad_debt",
    "top_up": "top_up",
}


def lively(name):
    if name == "measured":
        return measured(2, leverage=9.0, liquidated=True)
    market, settings_ = lived(name)
    return bt.run(market, **settings_)


@pytest.mark.parametrize("name", [*SETTINGS, "measured"])
def test_the_ledger_and_the_table_of_bars_agree(name):
    result = lively(name)
    bars = result.bars
    for kind, column in COLUMN_OF_KIND.items():
        by_bar = happened(result, kind).groupby("time")["amount"].sum()
        found = by_bar.reindex(bars.index, fill_value=0.0).to_numpy()
        assert found == pytest.approx(bars[column].to_numpy(), rel=1e-9, abs=1e-9), kind
    flows = total(result, "flow") + total(result, "top_up")
    assert flows == is_(bars["flows"].sum(), 1e-9)
    trades = result.events[result.events["kind"].isin(TRADES)]
    moved = trades.groupby("time")["quantity"].sum().reindex(bars.index, fill_value=0.0)
    assert moved.cumsum().to_numpy() == pytest.approx(bars["position"].to_numpy(), abs=1e-6)
    for measure_name in ("fees", "slippage", "impact", "funding", "interest", "bad_debt"):
        assert result.metrics[measure_name] == is_(bars[measure_name].sum(), 1e-9)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_saved_result_is_loaded_whole_and_can_be_resumed(name, tmp_path):
    market, settings_ = lived(name)
    whole = bt.run(market, **settings_)
    edge = market.index[70]
    head = bt.run(market.between(None, edge), **settings_ | cut_signal(settings_, None, edge))
    loaded = bt.Result.load(head.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.bars, head.bars)
    pd.testing.assert_frame_equal(loaded.events, head.events)
    assert repr(dict(loaded.metrics)) == repr(dict(head.metrics))
    tail = bt.run(market, **settings_, resume=loaded)
    assert_same_bits(whole, head, tail)


def test_the_start_is_the_first_open():
    assert market_of(*[100] * 2).index[0] == START


@pytest.mark.parametrize("interval", ["1h", "1d"])
def test_an_account_of_cash_alone_earns_the_risk_free_rate_and_no_more(interval):
    bars = [100] * (24 * 12 if interval == "1h" else 12)
    result = play(
        *bars, targets=NAN, interval=interval, venue=venue_of(interest_on="balance", cash_rate=0.05)
    )
    assert result.metrics["total_return"] > 0.0
    assert math.isnan(result.metrics["sharpe"])


def test_a_deposit_does_not_look_like_decay():
    bars = [(100, 101, 100, 101), (101, 101, 100, 100)] * 20
    result = play(*bars, targets=1.0, account=account_of(flows=series({3: 99_000.0})))
    assert result.metrics["leverage_decay"] == pytest.approx(0.0, abs=1e-9)


def test_an_account_emptied_by_its_owner_is_not_ruined_and_trades_again():
    flows = series({3: -1000.0, 6: 500.0})
    empty = play(*[100] * 10, targets=[NAN] * 7 + [1.0] * 3, account=account_of(flows=flows))
    assert empty.bars["equity"].iloc[4] == 0.0
    assert empty.metrics["ruined"] == 0.0
    assert empty.bars["position"].iloc[-1] == is_(5.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"venue": venue_of(contract={"size": 0.01})}, "venue.contract"),
        ({"account": account_of(band=0.5)}, "account.band"),
        ({"account": account_of(flows=series({1: 5.0}))}, "account.flows"),
        ({"policy": Ratchet(multiple=5.0)}, "policy"),
    ],
)
def test_resuming_under_other_rules_is_refused_naming_what_differs(change, named):
    market, _ = lived("cross, all costs")
    rules = {"policy": Ratchet(), "venue": venue_of(), "account": account_of()}
    part = bt.run(market.between(None, market.index[50]), **rules, compile=False)
    with pytest.raises(bt.ParameterError, match=named):
        bt.run(market, **(rules | change), resume=part, compile=False)

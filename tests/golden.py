"""Accounts in which everything happens; ``data/before.json`` has what they were."""

import math
from collections.abc import Callable
from typing import Any

import backtest as bt
from tests.scenes import Follow, account_of, bracket, isolated, market_of, series, venue_of

BARS = 72
TWO = [bracket(0.0, 6000.0, 20.0, 0.02), bracket(6000.0, 1e6, 8.0, 0.06)]
COSTS: dict[str, Any] = {
    "fees": {"taker": 0.0006, "maker": 0.0002, "maker_share": 0.25},
    "slippage": {"rate": 0.0004},
}


def path(swing: float, *, falls_at: int = 0) -> list[tuple[float, float, float, float]]:
    """Return bars on a wave of so many percent, with gaps, and a fall of 15 % at one bar."""
    bars = []
    for t in range(BARS):
        level = 0.85 if falls_at and t >= falls_at else 1.0
        start = 100 * level * (1 + swing * math.sin(0.7 * t) + 0.002 * math.cos(3 * t))
        close = 100 * level * (1 + swing * math.sin(0.7 * (t + 1)))
        wick = 0.3 * swing * (1 + math.sin(1.9 * t))
        bars.append((start, max(start, close) * (1 + wick), min(start, close) * (1 - wick), close))
    return [(round(a, 4), round(b, 4), round(c, 4), round(d, 4)) for a, b, c, d in bars]


def mark(bars: list[tuple[float, float, float, float]]) -> list[tuple[float, float, float, float]]:
    return [(a * 1.0005, b * 1.0005, c * 1.0005, d * 1.0005) for a, b, c, d in bars]


def funding(every: int, price: float = math.nan) -> list[tuple[float, float, float]]:
    return [(h + 4e-6, 0.0004 * math.cos(h), price) for h in range(every, BARS, every)]


def run(bars: list[tuple[float, float, float, float]], targets: list[float], **more: Any) -> Any:
    signal = more.pop("signal", None)
    given = {name: more.pop(name) for name in ("venue", "account")}
    market = market_of(*bars, targets=targets, mark=mark(bars), **more)
    return bt.run(market, Follow(), signal=signal, compile=False, **given)


def linear_cross() -> bt.Result:
    impact = {"rate": 0.0004, "impact": 0.5, "impact_window": "6h", "max_participation": 0.5}
    return run(
        path(0.02),
        [3 + 2 * math.sin(t) for t in range(BARS)],
        venue=venue_of(
            **{**COSTS, "slippage": impact}, contract={"lot": 0.01, "min_notional": 50.0}
        ),
        account=account_of(band=0.3, stop_loss=0.03, flows=series({10.5: 200.0, 40.0: -100.0})),
        funding=funding(8),
        volume=40.0,
    )


def linear_cross_liquidated() -> bt.Result:
    """A long of 15x that is liquidated inside a bar, buys again, and is gapped into bad debt."""
    return run(
        path(0.025, falls_at=50),
        [15.0, *[math.nan] * 8] * (BARS // 9),
        venue=venue_of(**COSTS, brackets=TWO, liquidation={"fee": 0.01, "slippage": 0.002}),
        account=account_of(capital=300.0),
        funding=funding(8),
    )


def isolated_partial() -> bt.Result:
    liquidation = {"mode": "partial", "step": "bracket", "fee": 0.005, "slippage": 0.002}
    return run(
        path(0.09),
        [7.0, *[math.nan] * 11] * (BARS // 12),
        signal=-1.0,
        venue=venue_of(**COSTS, brackets=TWO, liquidation=liquidation, funding_jitter="1s"),
        account=isolated(8.0, capital=2000.0),
        funding=[(h + 0.5, rate, price) for h, rate, price in funding(4, 101.0)],
    )


def inverse_called() -> bt.Result:
    return run(
        path(0.04),
        [7.0, *[math.nan] * 5] * (BARS // 6),
        signal=[1.0 if t % 24 < 12 else -1.0 for t in range(BARS)],
        venue=venue_of(
            **COSTS,
            contract={"kind": "inverse", "size": 10.0, "lot": 1.0},
            brackets=[bracket(leverage=10.0, rate=0.04)],
            interest_on="balance",
            cash_rate=0.05,
            borrow_rate=0.1,
        ),
        account=account_of(capital=20.0, reserve=5.0, margin_call=0.5, top_up_to=0.35),
        funding=funding(8),
    )


def loan_taken_over() -> bt.Result:
    return run(
        path(0.01),
        [4.0] * BARS,
        signal=-1.0,
        venue=venue_of(
            **COSTS,
            interest_on="loan",
            cash_rate=0.02,
            short_rate=0.08,
            margin_multiplier=series({0: 1.0, 30: 2.0, 60: 6.0}),
            liquidation={"mode": "takeover"},
        ),
        account=account_of(band=0.05, after_liquidation="halt"),
    )


def isolated_guarded() -> bt.Result:
    """A long whose calls are met, partly met and fail, and whose wallet adds margin to the end."""
    return run(
        path(0.02, falls_at=50),
        [5.0, *[math.nan] * 7] * (BARS // 8),
        venue=venue_of(
            fees={"taker": 0.0006, "maker": 0.0006, "per_order": series({0: 0.5, 30: 2.0})},
            slippage={"rate": 0.0004, "impact_window": "6h"},
            brackets=[bracket(leverage=20.0, rate=0.03)],
            liquidation={"fee": 0.01, "slippage": 0.002, "impact": 0.2},
            profit_counts=0.5,
        ),
        account=isolated(20.0, reserve=70.0, margin_call=0.65, top_up_to=0.5, auto_margin=True),
        volume=400.0,
    )


def late_with_stops() -> bt.Result:
    return run(
        path(0.03, falls_at=50),
        [2 + math.sin(t) for t in range(BARS)],
        venue=venue_of(**COSTS),
        account=account_of(
            fill="next_close", take_profit=0.03, trailing_stop=0.025, equity_stop=0.06
        ),
        funding=funding(8),
    )


def dividends_both_ways() -> bt.Result:
    bars = path(0.02)
    paid = {20: 0.7, 50: 1.1}
    return run(
        bars, [1.5] * BARS, signal=[1.0 if t < 30 else -1.0 for t in range(BARS)],
        venue=venue_of(**COSTS, contract={"lot": 0.01}), account=account_of(band=0.2),
        funding=[(t, -each / bars[t - 1][3], bars[t - 1][3]) for t, each in paid.items()],
    )  # fmt: skip


RUNS: dict[str, Callable[[], bt.Result]] = {
    each.__name__: each
    for each in (
        linear_cross,
        linear_cross_liquidated,
        isolated_partial,
        inverse_called,
        loan_taken_over,
        isolated_guarded,
        late_with_stops,
        dividends_both_ways,
    )
}

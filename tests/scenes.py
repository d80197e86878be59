"""Small hand-made markets, and venues and accounts without a cost or a rule unless one is said.

``play`` takes bars of (open, high, low, close), or one number for a bar that stands still, and the
leverage decided at each close; it runs them in plain Python, which gives the same bits as compiled
code and has nothing to compile.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account import InstrumentRules, Quote
from backtest.engine.inputs import read_instrument_rules
from backtest.margin import read_rules

GROUPS: dict[str, dict[str, Any]] = {
    "contract": {"kind": "linear", "size": 1.0, "lot": 0.0, "tick": 1e-8, "min_notional": 0.0},
    "fees": {"taker": 0.0, "maker": 0.0, "maker_share": 0.0},
    "slippage": {"rate": 0.0, "impact": 0.0, "impact_window": "1d", "max_participation": None},
    "liquidation": {"mode": "close", "fee": 0.0, "slippage": 0.0, "step": 0.2, "full_below": 0.0}
    | {"order": None},
}
TERMS: dict[str, Any] = {
    "interest_on": "balance", "borrow_rate": 0.0, "cash_rate": 0.0, "short_rate": 0.0,
    "day_count": 365, "funding_jitter": "60s", "isolated_funding": "margin",
    "maintenance_at": "mark", "includes_close_fee": False, "margin_multiplier": 1.0,
    "call_grace": None, "profit_counts": "all",
}  # fmt: skip
PLAIN_ACCOUNT: dict[str, Any] = {
    "capital": 1000.0, "margin": "cross", "venue_leverage": None, "min_leverage": 0.0,
    "max_leverage": math.inf, "band": 0.0, "stop_loss": None, "margin_call": None, "reserve": 0.0,
    "top_up_to": None, "after_liquidation": "continue", "flows": None, "ruin_at": None,
}  # fmt: skip
NAN = math.nan
INF = math.inf
START = pd.Timestamp("2024-01-01", tz="UTC")
Prices = tuple[float, float, float, float] | float
TRADES = ("fill", "stop", "liquidation", "ruin")
"""The kinds of events that change the position."""
Hand = dict[str, tuple[Callable[[], bt.Result], dict[str, Any]]]
"""Accounts worked by hand: a run, and its numbers. A name without a dot is a column of the bars, of
which a list has every value and a number the last; "metrics.x" is a measure; "kind.x" are events:
their number ``n``, the ``total`` of their amounts, their ``hours`` since the start, or a column."""


class Follow(bt.Policy):
    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target


def at(hours: float, seconds: float = 0.0) -> pd.Timestamp:
    return START + pd.Timedelta(hours * 3600 + seconds, unit="s")


def series(values: dict[float, float]) -> pd.Series:
    return pd.Series([float(value) for value in values.values()], index=[at(h) for h in values])


def widen(bar: Prices) -> tuple[float, float, float, float]:
    """Return the four prices of a bar, also of one that stands still."""
    if isinstance(bar, tuple):
        return bar
    return (bar, bar, bar, bar)


def frame(bars: Sequence[Prices], interval: str = "1h") -> pd.DataFrame:
    rows = [widen(bar) for bar in bars]
    step = pd.Timedelta(interval.replace("d", "D"))
    index = pd.date_range(START, periods=len(rows), freq=step, unit="ns")
    return pd.DataFrame(rows, index=index, columns=["open", "high", "low", "close"], dtype=float)


def market_of(
    *bars: Prices,
    targets: Sequence[float] | float = 1.0,
    mark: Sequence[Prices] | None = None,
    funding: Sequence[tuple[float, ...]] = (),
    volume: float | Sequence[float] = 1e9,
    interval: str = "1h",
) -> bt.Market:
    """Return a market; the last target is repeated; funding of (hours, rate, own price)."""
    column = list(targets) if isinstance(targets, Sequence) else [targets]
    column += [column[-1]] * (len(bars) - len(column))

    table = frame(bars, interval).assign(volume=volume, target=column)
    table["volume"] = table["volume"].astype(float)

    settlements = None
    if funding:
        # Without a price of its own, a settlement takes that of the bars: NaN.
        rows = [(*event, NAN)[1:3] for event in funding]
        stamps = pd.DatetimeIndex([at(event[0]) for event in funding])
        settlements = pd.DataFrame(rows, index=stamps, columns=["rate", "mark"], dtype=float)

    return bt.Market.from_frames(
        table,
        mark=None if mark is None else frame(mark, interval),
        funding=settlements,
        funding_gaps="zero" if funding else None,
        interval=interval,
    )


def bracket(floor=0.0, cap=INF, leverage: float = 16.0, rate: float = 0.05) -> bt.Bracket:
    """Return a bracket; by default one of any size with 5 % maintenance."""
    return bt.Bracket(floor, cap, leverage, rate)


def venue_of(**changes: Any) -> bt.Venue:
    """Return a venue without costs and with one bracket; parts are given as dicts."""
    kinds = {
        "contract": bt.Contract,
        "fees": bt.Fees,
        "slippage": bt.Slippage,
        "liquidation": bt.Liquidation,
    }
    parts: dict[str, Any] = {}
    for name, kind in kinds.items():
        parts[name] = kind(**GROUPS[name] | changes.pop(name, {}))

    return bt.Venue(**parts, **{"brackets": [bracket()]} | changes)


def account_of(**changes: Any) -> bt.Account:
    return bt.Account(**{"capital": 1000.0} | changes)


def rules_of(venue: bt.Venue, account: bt.Account) -> InstrumentRules:
    margin = read_rules(venue, account.venue_leverage or 0.0, account.margin == "isolated")
    return read_instrument_rules(venue, account, margin)


def quote_of(start: float, low: float, high: float, close: float) -> Quote:
    return Quote(
        open=start, low=low, high=high, mark_open=start, mark_low=low, mark_high=high,
        mark_close=close, multiplier=1.0, volume=0.0, sigma=0.0, adv=0.0, order_fee=0.0,
        initial=1.0, limit=np.inf, fill=start, stop_scale=1.0, profit_scale=1.0, trail_scale=1.0,
    )  # fmt: skip


def isolated(leverage: float = 10.0, **changes: Any) -> bt.Account:
    return account_of(margin="isolated", venue_leverage=leverage, **changes)


def play(
    *bars: Prices,
    targets: Sequence[float] | float = 1.0,
    signal: Any = None,
    venue: bt.Venue | None = None,
    account: bt.Account | None = None,
    policy: bt.Policy | None = None,
    **market: Any,
) -> bt.Result:
    values = None
    if signal is not None:
        values = np.asarray(signal, dtype=float)[()]

    return bt.run(
        market_of(*bars, targets=targets, **market),
        policy or Follow(),
        venue=venue or venue_of(),
        account=account or account_of(),
        signal=values,
        compile=False,
    )


def later(*bars: Prices, **terms: Any) -> Callable[[], bt.Result]:
    return functools.partial(play, *bars, **terms)


def by_hand(cases: Hand) -> Any:
    return pytest.mark.parametrize(("run", "numbers"), [*cases.values()], ids=[*cases])


def check_numbers(result: bt.Result, numbers: dict[str, Any]) -> None:
    """Compare a run with its numbers, whose names are those of :data:`Hand`."""
    for name, wanted in numbers.items():
        kind, _, what = name.partition(".")

        if not what:
            value = result.bars[kind].tolist()
            if not isinstance(wanted, list):
                value = value[-1]
        elif kind == "metrics":
            value = result.metrics[what]
        else:
            value = read_events(result, kind, what)

        assert value == pytest.approx(wanted, rel=1e-12, abs=1e-9, nan_ok=True), name


def read_events(result: bt.Result, kind: str, what: str) -> Any:
    """Return the number, the total, the hours or a column of the events of a kind."""
    events = happened(result, kind)

    if what == "n":
        return len(events)
    if what == "total":
        return events["amount"].sum()
    if what == "hours":
        return ((events["time"] - START) / pd.Timedelta("1h")).tolist()

    return events[what].tolist()


def happened(result: bt.Result, kind: str) -> pd.DataFrame:
    return result.events[result.events["kind"] == kind]


def total(result: bt.Result, kind: str) -> float:
    return float(happened(result, kind)["amount"].sum())


def equities(result: bt.Result) -> list[float]:
    return [float(value) for value in result.bars["equity"]]


ONCE = (1.0, NAN)


TEN = (10.0, NAN)


FEE = {"taker": 0.001, "maker": 0.001}


YEAR = 365.0


LP = 90 / 0.95
"""Where 10x long from 100 is liquidated: -9000 + 100 P = 0.05 x 100 P, P = 94.7368."""


def is_(value, rel=1e-12):
    return pytest.approx(value, rel=rel, abs=1e-9)


def slip(rate=0.01, **more):
    return venue_of(slippage={"rate": rate, **more})


def coin_venue(**changes):
    return venue_of(contract={"kind": "inverse"}, **changes)


def dies(**liquidation):
    return venue_of(liquidation=liquidation)


def walk(n, *, seed=0, sigma=0.01, gap=0.0, price=100.0):
    """Return a random path of bars: each opens at the last close, or a gap away from it."""
    rng = np.random.default_rng(seed)
    moves = sigma * rng.standard_normal(n)
    gaps = gap * rng.standard_normal(n)

    close = price * np.exp(np.cumsum(moves + gaps))
    start = close / np.exp(moves)

    wick = np.exp(0.3 * sigma * np.abs(rng.standard_normal((2, n))))
    high = np.maximum(start, close) * wick[0]
    low = np.minimum(start, close) / wick[1]
    return [tuple(map(float, bar)) for bar in zip(start, high, low, close, strict=True)]


def measured(seed, *, leverage=3.0, inverse=False, liquidated=False, **market):
    """Play a month with every cost but impact, fed by flows; some are liquidated."""
    # Of 30 days, funding every 8 hours.
    sigma = 0.008 if liquidated else 0.006
    bars = walk(24 * 30, seed=seed, sigma=sigma)
    stamps = [(hour + 0.0, 0.0003 * math.cos(hour)) for hour in range(8, 24 * 30, 8)]

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

    # What is liquidated is opened once a day, and left alone.
    targets = leverage
    if liquidated:
        targets = [leverage, *[NAN] * 23] * 30

    return play(*bars, targets=targets, venue=venue, account=account, funding=stamps, **market)

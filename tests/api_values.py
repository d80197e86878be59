"""Arguments for calls of the public API: some that fit, and some that no function expects."""

import datetime as dt
import functools
import inspect
import math
import random
import tempfile
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.strategies import Average, Capped, Constant, VolTarget

BARS = 24 * 12
FORMULAS = {"leverage", "observe", "start", "remember", "check", "invalid"}
"""Methods of policies and declarations, which are called with what this package made itself."""


class Mute:
    """An object that cannot be written, compared or measured."""

    def __repr__(self) -> str:
        raise RuntimeError("it has no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("it has no equal")

    def __bool__(self) -> bool:
        raise RuntimeError("it is neither true nor false")

    __hash__ = None  # type: ignore[assignment]


class Lying(str):
    """A text whose text is none."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("it has no text")


def index(n: int = 3, tz: str | None = "UTC") -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=n, freq="h", tz=tz)


def bars_frame(n: int = 60) -> pd.DataFrame:
    close = 100.0 + np.arange(n) % 7
    columns = {"open": close, "high": close + 1.0, "low": close - 1.0, "close": close}
    return pd.DataFrame({**columns, "volume": 5.0}, index=index(n))


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame["close"]], axis=1)


NASTY: tuple[Callable[[], Any], ...] = (
    *((lambda each=each: each) for each in (
        None, True, False, 0, -1, 1, 2, 10**18, 10**400, -(10**400), 0.0, -0.0, 1e-320, 1e308,
        0.5, 1.5, -3.5, math.nan, math.inf, -math.inf, 1j, complex("nan"), Decimal("NaN"),
        Decimal("0.5"), Fraction(1, 3), np.float32(0.5), np.int8(-1), np.float64("nan"),
        np.uint64(2**64 - 1), np.bool_(True), np.str_("x"), np.datetime64("NaT"), np.complex64(1),
        "", " ", "a", "nan", "1", "-1", "é", "\0", "a\0b", "\ud800", "a" * 300, "a" * 100_000, "%s",
        "BTCUSDT", "sharpe", "1h", "0h", "9" * 400 + "h", "99999999999d", "2024-01-01", "now",
        "9999-12-31", "0000-00-00", "1e5", "../x", "/dev/null", "target", "close", "none", b"",
        b"x", b"\xff", bytearray(b"a"), (), (1,), (1, 2), (None,), ("a", "b"), (math.nan,) * 3,
        ((1, 2), (3,)), frozenset(), frozenset({1}), range(0), range(3), slice(None), Ellipsis,
        NotImplemented, int, float, dict, bt.Policy, Constant, bt.Market, bt, len, print,
        dt.datetime(2024, 1, 1), dt.date(1, 1, 1), dt.timedelta(1), pd.NaT, pd.NA,  # noqa: DTZ001
        pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta("1h"),
        Path("x"), Path("\0"), Path("a" * 5_000),
    )),
    *(list, dict, set, object, Mute, pd.DataFrame, lambda: pd.Series(dtype=float)),
    *(lambda: Lying("x"), lambda: (lambda *_: None), lambda: (lambda: 1 / 0), lambda: iter([1])),
    *(lambda: [None], lambda: [1, 2], lambda: [math.nan], lambda: [[]], lambda: ["a"] * 3,
      lambda: [10**400], lambda: [Mute()], lambda: {1: 2}, lambda: {"a": None}, lambda: {"": {}},
      lambda: {"target": math.nan}, lambda: {None: Mute()}, lambda: {"x": 10**400},
      lambda: {"BTCUSDT": 1}, lambda: {"leverage": (0.1, 2.0)}, lambda: {"leverage": []}),
    *(lambda: np.array([]), lambda: np.array(1.0), lambda: np.zeros((2, 2)), lambda: np.zeros(1),
      lambda: np.full(5, np.nan), lambda: np.array([np.inf, 1.0]), lambda: np.array(["a", "b"]),
      lambda: np.array([None, 1], dtype=object), lambda: np.array([1j]), lambda: np.zeros(3, bool),
      lambda: np.zeros(3, "datetime64[ns]"), lambda: np.zeros((0, 3)), lambda: -np.ones(BARS),
      lambda: np.arange(BARS), lambda: np.zeros((2, 3, 4)), lambda: np.array([2**63], "uint64")),
    *(lambda: pd.Series([1.0, 2.0, 3.0], index=index()),
      lambda: pd.Series([1.0, 2.0, 3.0], index=index(tz=None)),
      lambda: pd.Series([1.0, 2.0, 3.0], index=index()[[0, 0, 1]]),
      lambda: pd.Series([1.0, 2.0, 3.0], index=index()[::-1]),
      lambda: pd.Series(["a", None, 1], index=index()), lambda: pd.Series([math.nan] * 3),
      lambda: pd.Series([1.0], index=pd.DatetimeIndex([pd.NaT], tz="UTC")),
      lambda: pd.Series([1.0, 2.0], index=["a", "a"]), lambda: pd.Series([True], dtype="boolean")),
    *(lambda: bars_frame(0), lambda: bars_frame(1), lambda: bars_frame(3),
      lambda: bars_frame().iloc[::-1], lambda: bars_frame().tz_localize(None),
      lambda: bars_frame().astype(str), lambda: -bars_frame(), lambda: bars_frame() * math.nan,
      lambda: twice(bars_frame()), lambda: bars_frame().iloc[[0, 0, 1]],
      lambda: bars_frame().reset_index(), lambda: bars_frame()[["close"]],
      lambda: bars_frame().astype(complex), lambda: bars_frame() * 1e308,
      lambda: pd.DataFrame({"a": [1, "x", None]}), lambda: pd.DataFrame(index=index()),
      lambda: pd.DataFrame({("a", "b"): [1.0]}), lambda: pd.DataFrame([[1.0, 2.0]], columns=[1, 1]),
      lambda: pd.concat([bars_frame(3)] * 2, axis=1, keys=["a", "b"])),
    *(lambda: build_objects()["market"], lambda: build_objects()["markets"],
      lambda: build_objects()["result"], lambda: build_objects()["account"],
      lambda: build_objects()["venue"], lambda: Constant(1.0), lambda: bt.Range(0, 1),
      lambda: bt.Scenario("fall", price=-0.1), lambda: build_objects()["paths"]),
)  # fmt: skip
"""Values that few parameters expect, each made when it is drawn."""


@functools.cache
def build_objects() -> dict[str, Any]:
    """Return one of each object that calls need and whose methods are called."""
    market = bt.Market.sample(bars=BARS)
    markets = bt.Markets({"A": market, "B": bt.Market.sample(bars=BARS, seed=2)})
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    account = bt.Account()
    terms = {"venue": venue, "account": account, "compile": False}
    result = bt.run(market, VolTarget(), **terms)
    crowd = bt.Crowd.from_leverage(
        leverage=5.0, accounts=30, open_interest=1e6, entries=100.0, price=100.0, venue=venue
    )
    paths = bt.simulate_paths(market, "gbm", paths=10, horizon="6h")
    risk = bt.liquidation_risk(paths, Constant(5.0), **terms)
    return {
        "market": market,
        "markets": markets,
        "venue": venue,
        "account": account,
        "policy": VolTarget(),
        "result": result,
        "panel_result": bt.run(markets, Constant(1.0), **terms),
        "sweep": bt.sweep(market, VolTarget, {"target": [0.2, 0.4]}, **terms),
        "paths": paths,
        "risk": risk,
        "crowd": crowd,
        "signal": bt.signals.MaCross(3, 9),
        "scenario": bt.Scenario("fall", price=-0.1),
        "choice": bt.Choice("a", "b"),
        "range": bt.Range(0.0, 1.0),
        "stress": bt.stress(result, bt.Scenario("fall", price=-0.1)),
    }


@functools.cache
def save_some() -> str:
    """Return the folder of a saved run."""
    return str(build_objects()["result"].save(tempfile.mkdtemp(prefix="api-fuzz-")))


def history(n: int = 50) -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, 0.01, n)


VALID: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: build_objects()[name] for name in (
        "market", "markets", "venue", "account", "policy", "result", "paths", "crowd")},
    "policies": lambda: Constant(1.0), "overlay": VolTarget, "data": dict,
    "signal": lambda: 1.0, "compile": lambda: False, "sampling": lambda: "1h",
    "calendar": lambda: "365", "trials": lambda: 4, "sampler": lambda: "sobol",
    "robust": lambda: False, "train": lambda: "9d", "test": lambda: "1d", "groups": lambda: 2,
    "test_groups": lambda: 1, "embargo": lambda: 0, "steps": lambda: 50, "bars": lambda: 48,
    "depth": lambda: 3, "starts": lambda: 1, "draws": lambda: 20, "threads": lambda: 1,
    "accounts": lambda: 20, "store": lambda: None, "horizon": lambda: "6h", "seed": lambda: 1,
    "confidence": lambda: 0.9, "objective": lambda: "sharpe", "space": lambda: {"target": (0.1, 1)},
    "fix": dict, "sets": lambda: {"target": [0.2, 0.4]}, "start": lambda: "2024-01-03",
    "symbol": lambda: "BTCUSDT", "name": lambda: "esma", "folder": save_some,
    "capital": lambda: 1000.0, "leverage": lambda: 3.0, "side": lambda: "long",
    "entry": lambda: 100.0, "price": lambda: 100.0, "quantity": lambda: 1.0,
    "equity": lambda: 1000.0, "notional": lambda: 100.0, "collateral": lambda: 50.0,
    "open_interest": lambda: 1e6, "impact": lambda: bt.Linear(0.1), "shock": lambda: -0.1,
    "shares": lambda: (0.0, 0.05), "capitals": lambda: [1e3],
    "factors": lambda: ["fees"], "scenarios": lambda: bt.Scenario("fall", price=-0.1),
    "models": lambda: ["gbm"], "model": lambda: "gbm", "probability": lambda: 0.05,
    "frame": bars_frame, "series": lambda: bars_frame()["close"], "function": lambda: np.sign,
    "returns": history, "excess": history, "gains": history, "moves": history, "move": history,
    "volatility": lambda: 0.5, "sigma": lambda: 0.5, "periods": lambda: 365.0, "years": lambda: 1.0,
    "time": lambda: build_objects()["market"].time, "level": lambda: 0.95, "window": lambda: 20,
    "half_life": lambda: 12.0, "estimator": lambda: "ewma", "lookback": lambda: 20,
    "fast": lambda: 3, "slow": lambda: 9, "taker": lambda: 5e-4, "maker": lambda: 2e-4,
    "slippage": lambda: 1e-4, "rate": lambda: 1e-4, "fee": lambda: 0.01, "mode": lambda: "close",
    "lot": lambda: 0.001, "tick": lambda: 0.1, "floor": lambda: 0.0, "cap": lambda: 1e6,
    "max_leverage": lambda: 50.0, "maintenance_rate": lambda: 0.005, "low": lambda: 0.0,
    "liquidation_fee": lambda: 0.01, "high": lambda: 1.0, "settings": dict, "where": lambda: "x",
    "problem": lambda: "x", "cure": lambda: "x", "preset": lambda: "binance-usdm",
    "sharpe": lambda: 1.0, "benchmark": lambda: 0.0, "skew": lambda: 0.0, "kurtosis": lambda: 3.0,
    "std": lambda: 0.5, "n": lambda: 100, "n_trials": lambda: 10, "balance": lambda: 1000.0,
    "quantities": lambda: {"A": 1.0}, "prices": lambda: {"A": 100.0},
    "venues": lambda: {"A": build_objects()["venue"]}, "premium": history,
    "weights": lambda: "equal",
    "violations": lambda: np.zeros(50, bool), "p_values": lambda: np.array([0.1, 0.01]),
    "progress": lambda: None, "contract": bt.Contract, "text": lambda: "x",
    "options": lambda: "a", "value": lambda: 1.0, "distance": lambda: 0.1,
    "maintenance": lambda: 0.005,
    "agents": bt.agents.Thurner, "rng": lambda: np.random.default_rng(0),
    "column": lambda: "volume", "estimators": lambda: ["ewma"], "share": lambda: 0.5,
    "finer": lambda: build_objects()["market"], "instrument": lambda: "BTCUSDT",
    "hazard": lambda: 0.1, "recovery": lambda: 0.5, "coefficient": lambda: 0.1,
    "ratio": lambda: 0.5,
    "multiple": lambda: 2.0, "terms": lambda: bt.funding.terms("binance-usdm", "BTCUSDT"),
    "at": lambda: "2024-01-01", "multiplier": lambda: 1.0, "format": lambda: "html",
    "path": lambda: "page.html", "metric": lambda: np.mean, "drift": lambda: 0.0,
    "history": lambda: build_objects()["market"], "count": lambda: 5, "initial": lambda: 0.01,
    "lower": lambda: 1e6, "upper": lambda: 2e6, "first": lambda: 50, "baseline": history,
    "excess_returns": history, "forecast": lambda: np.full(50, 0.1), "out": lambda: "out",
    "happened": lambda: np.zeros(50, bool), "is_counted": lambda: np.ones(50, bool),
    "liquidations": lambda: np.zeros(50, np.int64), "unit": lambda: np.linspace(1.0, 2.0, 50),
    "closes": lambda: np.arange(50) * 3_600_000_000_000, "life": lambda: None,
}  # fmt: skip
"""Values that fit most parameters of a name."""
OWN: dict[str, Callable[[], Any]] = {
    "Market.from_frames.bars": bars_frame,
    "Markets.from_frames.bars": lambda: {"A": bars_frame(), "B": bars_frame()},
    "Market.load.paths": lambda: "bars.csv",
    "Markets.load.paths": lambda: "bars.csv",
    "import_market.paths": lambda: "bars.csv",
    "Markets.markets": lambda: {"A": build_objects()["market"]},
    "tune.policy": lambda: VolTarget,
    "sweep.policy": lambda: VolTarget,
    "walk_forward.policy": lambda: VolTarget,
    "cross_validate.policy": lambda: VolTarget,
    "schedules.policy": lambda: VolTarget,
    "simulate_paths.paths": lambda: 10,
    "paths.simulate_paths.paths": lambda: 10,
    "max_leverage.paths": lambda: 10,
    "paths.max_leverage.paths": lambda: 10,
    "tune.paths": lambda: None,
    "sensitivity.paths": lambda: None,
    "compare.policies": lambda: [Constant(1.0), VolTarget()],
    "Venue.preset.venue": lambda: "binance-usdm",
    "funding.terms.venue": lambda: "binance-usdm",
    "quality.data": lambda: build_objects()["market"],
    "stress.data": lambda: None,
    "margin_preset.name": lambda: "okx-portfolio",
    "Crowd.from_leverage.entries": lambda: 100.0,
    "strategies.Average.policies": lambda: Average,
    "strategies.Capped.policies": lambda: Capped,
    **{f"measures.{name}.equity": lambda: np.linspace(1.0, 2.0, 50)
       for name in ("max_drawdown", "ulcer_index", "idle_cash", "worst_drawdowns")},
    **{f"measures.{name}.price": lambda: np.linspace(1.0, 2.0, 50)
       for name in ("find_bulls", "realization")},
    "measures.realization.quantity": lambda: np.ones(50),
    "measures.fit_market.market": history,
    "measures.find_thirds.volatility": lambda: np.linspace(0.1, 1.0, 50),
}  # fmt: skip


def draw_valid(rng: random.Random, name: str, parameter: inspect.Parameter) -> Any:
    """Return a value that fits a parameter, or ``...`` where none is known."""
    make = OWN.get(f"{name}.{parameter.name}") or VALID.get(parameter.name)
    return ... if make is None else make()

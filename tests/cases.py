"""Random cases for the reference: one seed, one market, venue and account.

Wild on purpose: position sizes reach several brackets, bars move by a good part of the margin, and
opens gap, so that stops, partial liquidations, bad debt and ruin are common. Every random amount is
continuous, so that an exact tie (a size exactly on a lot, an equity exactly at the requirement)
has probability 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from backtest import Multiple

MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_600_000_000_000_000_000 // DAY * DAY


@dataclass(frozen=True)
class Case:
    """Constructor arguments of one random run."""

    seed: int
    interval: int
    bars: pd.DataFrame  # open, high, low, close, volume, target
    mark: pd.DataFrame | None
    funding: pd.DataFrame | None  # rate, mark
    signal: pd.Series
    contract: dict[str, Any]
    brackets: list[dict[str, Any]]
    fees: dict[str, Any]
    slippage: dict[str, Any]
    liquidation: dict[str, Any]
    venue: dict[str, Any]
    account: dict[str, Any]

    def for_reference(self) -> tuple[Any, np.ndarray, np.ndarray, Any, Any]:
        """Return market, targets, signals, venue and account as the reference takes them."""
        mark = self.bars if self.mark is None else self.mark
        funding = pd.DataFrame({"rate": [], "mark": []}, index=utc([]))
        funding = funding if self.funding is None else self.funding
        market = SimpleNamespace(
            time=self.bars.index.asi8,
            interval=self.interval,
            **{
                name: self.bars[name].to_numpy()
                for name in ("open", "high", "low", "close", "volume")
            },
            **{f"mark_{name}": mark[name].to_numpy() for name in ("open", "high", "low", "close")},
            funding_time=funding.index.asi8,
            funding_rate=funding["rate"].to_numpy(),
            funding_mark=funding["mark"].to_numpy(),
            columns={name: self.bars[name].to_numpy() for name in self.bars},
        )
        venue = SimpleNamespace(
            contract=SimpleNamespace(**self.contract),
            brackets=[SimpleNamespace(**row) for row in self.brackets],
            fees=SimpleNamespace(**self.fees),
            slippage=SimpleNamespace(**self.slippage),
            liquidation=SimpleNamespace(**self.liquidation),
            **self.venue,
        )
        account = SimpleNamespace(**self.account)
        return market, self.bars["target"].to_numpy(), self.signal.to_numpy(), venue, account

    def for_engine(self, bt: Any) -> dict[str, Any]:
        """Return the keyword arguments ``market``, ``venue``, ``account``, ``signal`` of bt.run."""
        return {
            "market": bt.Market.from_frames(
                self.bars,
                funding=self.funding,
                mark=self.mark,
                instrument="TEST",
                funding_gaps=None if self.funding is None else "zero",  # stamps anywhere
            ),
            "venue": bt.Venue(
                contract=bt.Contract(**self.contract),
                brackets=[bt.Bracket(**row) for row in self.brackets],
                fees=bt.Fees(**self.fees),
                slippage=bt.Slippage(**self.slippage),
                liquidation=bt.Liquidation(**self.liquidation),
                **self.venue | self._make_rising(bt),
            ),
            "account": bt.Account(**self.account),
            "signal": self.signal,
        }

    def _make_rising(self, bt: Any) -> dict[str, Any]:
        rising = self.venue.get("open_interest_margin")
        if rising is None:
            return {}
        return {"open_interest_margin": bt.OpenInterestMargin(**vars(rising))}


def utc(stamps: Any) -> pd.DatetimeIndex:
    """Return UTC nanoseconds as an index, to the nanosecond."""
    return pd.DatetimeIndex(np.asarray(stamps, dtype=np.int64).view("datetime64[ns]"), tz="UTC")


@dataclass(frozen=True)
class Scene:
    """What the parts of a case have in common, so that they meet: sizes, speed, clock."""

    rng: np.random.Generator
    n_bars: int
    interval: int
    price: float
    capital: float
    leverage: float  # typical target
    sigma: float  # of one bar
    is_linear: bool
    is_isolated: bool

    @property
    def time(self) -> np.ndarray:
        """Open stamps."""
        return START + self.interval * np.arange(self.n_bars)

    @property
    def end(self) -> int:
        """The end of the last bar."""
        return START + self.interval * self.n_bars

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        """Draw evenly."""
        return float(self.rng.uniform(low, high))

    def spread(self, low: float, high: float) -> float:
        """Draw evenly in the logarithm."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def pick(self, *options: Any) -> Any:
        """Draw one of some values."""
        return options[self.rng.integers(len(options))]

    def sometimes(self, probability: float, low: float, high: float, other: Any = 0.0) -> Any:
        """Draw evenly with a probability, else the other value."""
        return self.uniform(low, high) if self.chance(probability) else other


def make_case(seed: int) -> Case:
    """Return the random case of a seed."""
    scene = make_scene(np.random.default_rng(seed))
    bars, mark = make_prices(scene)
    contract = make_contract(scene)
    bars["volume"] = make_volume(scene, bars, contract)
    bars["target"] = make_targets(scene)
    fees = make_fees(scene)
    brackets = make_brackets(scene, fees["taker"])
    case = Case(
        seed=seed,
        interval=scene.interval,
        bars=bars,
        mark=mark,
        funding=make_funding(scene, bars),
        signal=pd.Series(make_signals(scene), index=bars.index),
        contract=contract,
        brackets=brackets,
        fees=fees,
        slippage=make_slippage(scene),
        liquidation=make_liquidation(scene),
        venue=make_venue(scene),
        account=make_account(scene, brackets),
    )
    case = with_ruin(case, np.random.default_rng([seed, 1]))
    return with_terms(replace(scene, rng=np.random.default_rng([seed, 2])), case)


def with_ruin(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a line of ruin, or a liquidation that takes all, now and then.

    A fee of exactly the maintenance rate leaves nothing but rounding where one bracket holds.
    """
    if rng.random() < 0.3:
        case = replace(case, account={**case.account, "ruin_at": float(rng.uniform(0.02, 0.95))})
    if rng.random() < 0.2:
        first = case.brackets[0]
        whole = {**first, "cap": np.inf}
        fee = {"fee": first["maintenance_rate"], "slippage": 0.0}
        case = replace(case, brackets=[whole], liquidation={**case.liquidation, **fee})
    return case


def with_two_multipliers(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a multiplier for each kind of margin, or one from open interest."""
    venue = {**case.venue, "margin_multiplier": 1.0}
    if rng.random() < 0.5:
        venue["maintenance_multiplier"] = float(rng.uniform(0.8, 2.5))
    n = len(case.bars)
    if rng.random() < 0.5:
        stamps = np.unique(np.r_[START - DAY, rng.integers(START, START + n * case.interval, 6)])
        values = pd.Series(rng.uniform(0.5, 4.0, stamps.size), index=utc(stamps))
        return replace(case, venue={**venue, "initial_multiplier": values})
    venue["open_interest_margin"] = SimpleNamespace(column="open_interest", lower=2e7, upper=5e7)
    most = case.brackets[-1]["max_leverage"]
    if most < max(1.0, case.account["venue_leverage"] or 0.0, case.account["min_leverage"]):
        return case
    brackets = [{**row, "max_leverage": most} for row in case.brackets]
    bars = case.bars.assign(open_interest=rng.uniform(0.0, 7e7, n))
    return replace(case, bars=bars, brackets=brackets, venue=venue)


def with_limits(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a limit of leverage by date: none, some of the targets, or a ban."""
    stamps = np.unique(
        np.r_[START - DAY, rng.integers(START, START + len(case.bars) * case.interval, 6)]
    )
    most = np.nanmax(np.where(np.isfinite(case.bars["target"]), case.bars["target"], 0.0))
    values = rng.uniform(0.1, 1.0, stamps.size) * most + 0.01
    values[rng.random(stamps.size) < 0.2] = np.inf
    values[rng.random(stamps.size) < 0.15] = 0.0
    limit = pd.Series(values, index=utc(stamps))
    account = {**case.account, "max_leverage": limit, "min_leverage": 0.0}
    return replace(case, account=account)


def with_terms(scene: Scene, case: Case) -> Case:
    """Return a case with a fixed fee, profits that do not count, calls with a grace, and so on."""
    fees, liquidation = dict(case.fees), dict(case.liquidation)
    account, venue = dict(case.account), dict(case.venue)
    fee = scene.capital * scene.spread(1e-5, 0.02)
    kind = scene.pick("none", "none", "one", "series")
    fees["per_order"] = {"none": 0.0, "one": fee}.get(kind)
    if kind == "series":
        fees["per_order"] = make_series(scene, 0.0, fee)
    liquidation["impact"] = 0.0
    if case.liquidation["mode"] != "takeover" and scene.chance(0.3):
        liquidation["impact"] = scene.uniform(0.05, 0.4) / (DAY // scene.interval) ** 0.5
    venue["profit_counts"] = scene.pick("all", "all", "losses", scene.uniform(0.0, 1.0))
    if account["margin_call"] is not None and scene.chance(0.35):
        venue["call_grace"] = int(scene.rng.integers(0, 4))
    account["auto_margin"] = scene.is_isolated and scene.chance(0.4)
    return replace(case, fees=fees, liquidation=liquidation, venue=venue, account=account)


def make_exit_case(seed: int) -> Case:
    """Return the case of a seed with a fill mode, and stops of every kind now and then."""
    case, rng = make_case(seed), np.random.default_rng([seed, 2])
    bars = case.bars
    moves = np.abs(np.log(bars["close"] / bars["open"])).rolling(5).mean().to_numpy() + 1e-4
    width = moves * bars["close"].to_numpy()
    width[rng.random(len(width)) < 0.1] = np.nan
    exits = {
        "fill": str(rng.choice(["next_open", "next_close", "same_close"])),
        "equity_stop": float(rng.uniform(0.05, 0.6)) if rng.random() < 0.4 else None,
    }
    typical = float(np.nanmean(moves))
    for name in ("stop_loss", "trailing_stop", "take_profit"):
        factor = float(np.exp(rng.uniform(np.log(0.7), np.log(6.0))))
        kind = rng.choice(["none", "plain", "price", "fraction"], p=[0.4, 0.3, 0.15, 0.15])
        exits[name] = {
            "none": None,
            "plain": min(0.9, factor * typical),
            "price": Multiple(factor, "width"),
            "fraction": Multiple(factor, "sigma", unit="fraction"),
        }[kind]
    bars = bars.assign(width=width, sigma=moves)
    return replace(case, bars=bars, account={**case.account, **exits})


def make_scene(rng: np.random.Generator) -> Scene:
    """Draw what the parts share; bars move by a good part of what the leverage bears."""
    is_linear, is_isolated = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    leverage = float(np.exp(rng.uniform(np.log(0.7), np.log(40))))
    wildest = 0.4 if is_isolated else 1.0  # of the margin, per bar; cross bears more
    reach = float(np.exp(rng.uniform(np.log(0.03), np.log(wildest))))
    return Scene(
        rng=rng,
        n_bars=int(rng.integers(30, 61)),
        interval=int(rng.choice([HOUR // 4, HOUR, 4 * HOUR, 8 * HOUR, DAY])),
        price=float(np.exp(rng.uniform(np.log(10), np.log(50_000)))),
        capital=float(rng.uniform(5_000, 50_000) if is_linear else rng.uniform(0.5, 5)),
        leverage=leverage,
        sigma=min(0.2, reach / max(leverage, 1.0)),
        is_linear=is_linear,
        is_isolated=is_isolated,
    )


# ----- market -----


def make_prices(scene: Scene) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Draw fat-tailed bars with gaps, and mark prices around them (or none)."""
    rng, n, sigma = scene.rng, scene.n_bars, scene.sigma
    moves = np.clip(rng.standard_t(3, n) * 0.6 * sigma, -0.7, 0.7)
    gaps = np.where(rng.random(n) < scene.pick(0.0, 0.1, 0.5), rng.normal(0, 2 * sigma, n), 0.0)
    gaps[0] = 0.0
    close = np.log(scene.price) + np.cumsum(moves + gaps)
    start = close - moves
    bars = frame_of(scene, start, close, sigma)
    if scene.chance(0.4):
        return bars, None
    basis = sigma * scene.pick(0.02, 0.3)
    mark = frame_of(scene, start + rng.normal(0, basis, n), close + rng.normal(0, basis, n), sigma)
    return bars, mark


def frame_of(scene: Scene, start: np.ndarray, close: np.ndarray, sigma: float) -> pd.DataFrame:
    """Return bars of log opens and closes, with wicks."""
    wick = np.abs(scene.rng.normal(0, 0.5 * sigma, (2, scene.n_bars)))
    high, low = np.maximum(start, close) + wick[0], np.minimum(start, close) - wick[1]
    columns = {"open": start, "high": high, "low": low, "close": close}
    return pd.DataFrame(
        {name: np.exp(values) for name, values in columns.items()}, index=utc(scene.time)
    )


def make_contract(scene: Scene) -> dict[str, Any]:
    """Draw a contract; lots and smallest trades are felt, but do not stop all trading."""
    size = scene.pick(1.0, 0.001, 0.37) if scene.is_linear else scene.pick(1.0, 100.0, 7.3)
    unit = size * scene.price if scene.is_linear else size / scene.price
    lot = scene.sometimes(0.4, 0.003, 0.2) * scene.capital / unit
    return {
        "kind": "linear" if scene.is_linear else "inverse",
        "size": size,
        "lot": lot,
        "tick": 0.01,
        "min_notional": scene.sometimes(0.3, 0.01, 0.4) * scene.capital,
    }


def make_volume(scene: Scene, bars: pd.DataFrame, contract: dict[str, Any]) -> np.ndarray:
    """Draw volumes, in contracts, that large orders can feel."""
    close = bars["close"].to_numpy()
    unit = contract["size"] * (close if scene.is_linear else 1.0 / close)
    money = scene.capital * scene.leverage * scene.spread(2, 500)
    return money / unit * np.exp(scene.rng.normal(0, 0.7, scene.n_bars))


def make_funding(scene: Scene, bars: pd.DataFrame) -> pd.DataFrame | None:
    """Draw settlements: at opens but for some milliseconds or seconds, or anywhere in the bar."""
    if scene.chance(0.15):
        return None
    rng = scene.rng
    every = int(scene.pick(HOUR, 4 * HOUR, 8 * HOUR, scene.interval, scene.interval // 3))
    stamps = START + np.arange(-(-(scene.end - START) // every) + 1) * every  # to the end and on
    off = scene.pick(5e6, 5e9, 70e9, every / 3)  # 5 ms, 5 s, 70 s (over the jitter), anywhere
    stamps = stamps + rng.uniform(-off, off, stamps.size).astype(np.int64)
    stamps = np.unique(stamps)
    bar = np.clip((stamps - START) // scene.interval, 0, scene.n_bars - 1)
    last = bars["close"].to_numpy()[bar]
    own = last * np.exp(rng.normal(0, scene.sigma, stamps.size))
    known = rng.random(stamps.size) < scene.pick(0.0, 0.5, 1.0)
    rate = rng.normal(0, scene.pick(1e-4, 0.02 / scene.leverage, 0.1 / scene.leverage), stamps.size)
    rate = np.clip(rate, -0.099, 0.099)
    return pd.DataFrame({"rate": rate, "mark": np.where(known, own, np.nan)}, index=utc(stamps))


def make_targets(scene: Scene) -> np.ndarray:
    """Draw leverages around the typical one; some NaN, infinite, zero."""
    rng, n = scene.rng, scene.n_bars
    keep = rng.random(n) < scene.pick(0.0, 0.7)
    level = scene.leverage * np.exp(rng.normal(0, scene.pick(0.05, 0.6), n))
    holding = np.maximum.accumulate(np.where(keep, 0, np.arange(n)))
    targets = level[holding]
    targets[rng.random(n) < scene.pick(0.0, 0.15)] = np.nan
    targets[rng.random(n) < scene.pick(0.0, 0.0, 0.1, 0.9)] = np.inf
    targets[rng.random(n) < scene.pick(0.0, 0.05)] = 0.0
    return targets


def make_signals(scene: Scene) -> np.ndarray:
    """Draw directions: long, short, flipping, partial, with times out of the market."""
    rng, n = scene.rng, scene.n_bars
    side = scene.pick(1.0, -1.0)
    flips = np.cumprod(np.where(rng.random(n) < scene.pick(0.0, 0.1, 0.4), -1.0, 1.0))
    signals = side * flips
    if scene.chance(0.3):
        signals = signals * rng.uniform(0.2, 1.0, n)
    signals[rng.random(n) < scene.pick(0.0, 0.1)] = 0.0
    return signals


# ----- venue -----


def make_brackets(scene: Scene, taker: float) -> list[dict[str, Any]]:
    """Draw 1 to 4 brackets that the position crosses, each clearly dearer than the last."""
    count = int(scene.rng.integers(1, 5))
    rate = min(scene.spread(0.002, 0.03), 0.6 / scene.leverage)
    floor, cap = 0.0, scene.capital * scene.leverage * scene.spread(0.1, 3.0)
    most = 1e9
    rows = []
    for k in range(count):
        most = max(1.0, min(0.98 * most, scene.uniform(0.4, 0.95) / (rate + taker)))
        is_last = k == count - 1
        cap = cap * (scene.pick(1.0, 1e6) if is_last else 1.0)
        rows.append({"floor": floor, "cap": cap, "max_leverage": most, "maintenance_rate": rate})
        floor, cap = cap, cap * scene.uniform(1.3, 3.0)
        rate = min(0.8, rate * scene.uniform(1.3, 3.0))
    return rows


def make_fees(scene: Scene) -> dict[str, Any]:
    """Draw fees, rebates among them."""
    return {
        "taker": scene.pick(0.0, 5e-4, 2e-3),
        "maker": scene.pick(-2e-4, 0.0, 2e-4),
        "maker_share": scene.sometimes(0.3, 0.0, 1.0),
    }


def make_slippage(scene: Scene) -> dict[str, Any]:
    """Draw slippage, impact and the share of the volume."""
    per_day = DAY // scene.interval
    return {
        "rate": scene.sometimes(0.7, 1e-5, 3e-3),
        "impact": scene.sometimes(0.4, 0.05, 0.4) / per_day**0.5,
        "impact_window": f"{scene.pick(3, 4, 10, 24) * scene.interval // MINUTE}m",
        "max_participation": scene.sometimes(0.2, 0.005, 0.2, None),
    }


def make_liquidation(scene: Scene) -> dict[str, Any]:
    """Draw how the venue liquidates."""
    mode = scene.pick("close", "takeover", "partial", "partial")
    full_below = scene.sometimes(0.4, 0.0, 1.0) * scene.capital * scene.leverage
    return {
        "mode": mode,
        "fee": scene.sometimes(0.8, 0.0, 0.3 / max(scene.leverage, 6.0)),
        "slippage": scene.sometimes(0.7, 0.0, 0.3 / max(scene.leverage, 6.0)),
        "step": "bracket" if scene.chance(0.4) else scene.uniform(0.1, 0.7),
        "full_below": full_below if mode == "partial" else 0.0,
    }


def make_rate(scene: Scene, high: float) -> Any:
    """Draw an annual rate: none, one, or a series that starts before the market."""
    kind = scene.pick("none", "one", "series")
    if kind == "series":
        return make_series(scene, 0.0, high)
    return scene.uniform(0, high) if kind == "one" else 0.0


def make_series(scene: Scene, low: float, high: float) -> pd.Series:
    """Draw values that change at odd times."""
    stamps = scene.rng.integers(START, scene.end, 6)
    stamps = np.unique(np.concatenate([[START - DAY], stamps]))
    return pd.Series(scene.rng.uniform(low, high, stamps.size), index=utc(stamps))


def make_venue(scene: Scene) -> dict[str, Any]:
    """Draw the rest of the venue; rates are those of a crisis, to be felt in a few days."""
    kind = scene.pick("one", "one", "scalar", "series")
    multiplier = {"one": 1.0, "scalar": scene.uniform(1.0, 3.0)}.get(kind)
    interest_on = scene.pick("balance", "loan")
    return {
        "interest_on": interest_on,
        "borrow_rate": make_rate(scene, 3.0),
        "cash_rate": make_rate(scene, 0.5),
        "short_rate": make_rate(scene, 3.0) if interest_on == "loan" else 0.0,
        "day_count": scene.pick(365, 360),
        "funding_jitter": scene.pick("60s", "60s", "2s"),
        "isolated_funding": scene.pick("margin", "wallet"),
        "maintenance_at": "entry" if scene.chance(0.2) else "mark",
        "includes_close_fee": scene.chance(0.3),
        "margin_multiplier": make_series(scene, 1.0, 2.5) if multiplier is None else multiplier,
        "call_grace": None,
    }


# ----- account -----


def make_account(scene: Scene, brackets: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw the account."""
    call = scene.spread(0.05, 0.9) if scene.chance(0.5) else None
    has_reserve = call is not None and scene.chance(0.8)
    most = brackets[0]["max_leverage"]
    setting = min(most, max(1.0, scene.leverage * scene.spread(0.5, 4.0)))
    is_plain = not scene.is_isolated and scene.chance(0.6)
    return {
        "capital": scene.capital,
        "margin": "isolated" if scene.is_isolated else "cross",
        "venue_leverage": None if is_plain else setting,
        "min_leverage": scene.sometimes(0.15, 0.0, 0.5) * scene.leverage,
        "max_leverage": scene.sometimes(0.3, 0.6, 2.0, np.inf) * scene.leverage,
        "band": scene.sometimes(0.4, 0.0, 0.3) * scene.leverage,
        "stop_loss": min(0.9, scene.uniform(0.3, 4.0) * scene.sigma)
        if scene.chance(0.35)
        else None,
        "margin_call": call,
        "reserve": scene.uniform(0.0, 1.5) * scene.capital if has_reserve else 0.0,
        "top_up_to": call * scene.uniform(0.3, 0.9) if has_reserve else None,
        "after_liquidation": "halt" if scene.chance(0.15) else "continue",
        "flows": make_flows(scene) if scene.chance(0.4) else None,
    }


def make_flows(scene: Scene) -> pd.Series:
    """Draw deposits and withdrawals at odd times, the last at or before the last open."""
    count = int(scene.rng.integers(1, 7))
    stamps = np.unique(scene.rng.integers(START, scene.end - scene.interval, count))
    amounts = scene.rng.normal(0, scene.pick(0.2, 1.0), stamps.size) * scene.capital
    return pd.Series(amounts, index=utc(stamps))

"""Random draws of markets, costs and terms of several instruments: what their cases are made of."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tests.cases import PortfolioCase, Swing, Tape
from tests.draws import (
    DAY,
    HOUR,
    START,
    Scene,
    frame_of,
    make_brackets,
    make_carry,
    make_contract,
    make_fees,
    make_funding,
    make_liquidation,
    make_series,
    make_slippage,
    make_targets,
    make_volume,
    utc,
)

DATED = (
    ("fees", "taker"), ("fees", "maker"), ("slippage", "rate"), ("slippage", "spread"),
    ("liquidation", "fee"), ("liquidation", "slippage"),
)  # fmt: skip


def draw_costs(
    rng: np.random.Generator, tape: Tape, venue: dict[str, Any]
) -> tuple[Tape, dict[str, Any]]:
    """Draw costs of one instrument over time; a requirement with a closing fee has one taker."""
    groups = {name: dict(venue[name]) for name in ("fees", "slippage", "liquidation")}
    stamps, columns = tape.bars.index.asi8, {}
    for group, name in DATED:
        if rng.random() < 0.3 or (name == "taker" and venue["venue"]["includes_close_fee"]):
            continue
        n = len(stamps)
        values = max(abs(groups[group].get(name, 0.0)), 1e-4) * rng.uniform(0.1, 3.0, n)
        if rng.random() < 0.5:
            at = np.r_[START - DAY, np.sort(rng.choice(stamps, 3, replace=False)) + 1]
            groups[group][name] = pd.Series(np.resize(values, 4), index=utc(at))
            continue
        values[1:][rng.random(n - 1) < 0.2] = np.nan
        groups[group][name] = f"{group}_{name}"
        columns[f"{group}_{name}"] = values
    if any(isinstance(groups["fees"][name], str | pd.Series) for name in ("taker", "maker")):
        groups["fees"].pop("tiers", None)
    return replace(tape, bars=tape.bars.assign(**columns)), venue | groups


def draw_spot(rng: np.random.Generator, venue: dict[str, Any]) -> dict[str, Any]:
    """Return a venue as that of a spot leg."""
    haircut = 0.0 if rng.random() < 0.15 else float(rng.uniform(0.01, 0.3))
    most = float(rng.uniform(0.2, 0.95)) / max(haircut, 0.04)
    cap = 10.0 ** float(rng.uniform(3.5, 12))
    own = venue["venue"] | {
        "maintenance_at": "mark", "includes_close_fee": False, "margin_multiplier": 1.0,
        "profit_counts": "all",
    }  # fmt: skip
    forced = venue["liquidation"]
    if forced["step"] == "bracket":
        forced = forced | {"step": float(rng.uniform(0.1, 0.7))}
    terms = {"kind": "spot", "haircut": haircut, "borrow_rate": float(rng.uniform(0.0, 3.0))}
    row = {"floor": 0.0, "cap": cap, "max_leverage": most, "maintenance_rate": 0.0}
    changes = {"contract": venue["contract"] | terms, "brackets": [row]}
    return venue | changes | {"venue": own, "liquidation": forced}


def draw_holding(rng: np.random.Generator, case: PortfolioCase) -> dict[str, Any]:
    """Draw the longest time of a position, now and then."""
    if rng.random() > 0.4:
        return {}
    hours = next(iter(case.tapes.values())).interval // HOUR
    longest = {
        name: f"{int(rng.integers(1, 4)) * hours}h" if rng.random() < 0.7 else None
        for name in case.tapes
    }
    return {"max_holding": longest}


def draw_terms(
    rng: np.random.Generator,
    case: PortfolioCase,
    tape: Tape,
    venue: dict[str, Any],
    has_scenarios: bool,
) -> tuple[Tape, dict[str, Any]]:
    """Draw what an instrument may have besides: columns of the market, terms of the venue."""
    bars, own, capital = tape.bars, dict(venue["venue"]), case.account["capital"]
    moves = np.abs(np.log(bars["close"] / bars["open"])).to_numpy() + 1e-4
    width = np.where(rng.random(len(bars)) < 0.1, np.nan, moves * bars["close"].to_numpy())
    bars = bars.assign(sigma=moves, width=width)
    fees, contract, brackets = dict(venue["fees"]), dict(venue["contract"]), venue["brackets"]
    if rng.random() < 0.4:
        fees["per_order"] = capital * float(np.exp(rng.uniform(np.log(1e-5), np.log(0.01))))
    if rng.random() < 0.3 and not own["includes_close_fee"]:
        volumes = capital * np.cumsum(rng.uniform(0.5, 20.0, 2))
        fees["tiers"] = [
            SimpleNamespace(volume=float(v), taker=fees["taker"] * cut, maker=-1e-4)
            for v, cut in zip(volumes, (0.7, 0.4), strict=True)
        ]
    if rng.random() < 0.3:
        contract |= {"round_to_tick": True, "tick": float(bars["low"].min()) * 0.003}
    if not has_scenarios and rng.random() < 0.3:
        own["margin_multiplier"] = 1.0
        own["maintenance_multiplier"] = float(rng.uniform(0.8, 2.0))
        own["initial_multiplier"] = float(rng.uniform(0.5, 2.0))
    venue = venue | {"fees": fees, "contract": contract, "venue": own, "brackets": brackets}
    return replace(tape, bars=bars), venue


def make_stage(rng: np.random.Generator, settles: str | None = None) -> Scene:
    """Draw what all instruments share; bars move by a good part of what the leverage bears."""
    is_linear = bool(rng.random() < 0.85) if settles is None else settles == "cash"
    leverage = float(np.exp(rng.uniform(np.log(1.0), np.log(25))))
    reach = float(np.exp(rng.uniform(np.log(0.1), np.log(1.5))))
    return Scene(
        rng=rng,
        n_bars=int(rng.integers(6, 13)),
        interval=int(rng.choice([HOUR, 4 * HOUR, 8 * HOUR, DAY])),
        price=1.0,
        capital=float(rng.uniform(5_000, 50_000) if is_linear else rng.uniform(0.5, 5)),
        leverage=leverage,
        sigma=min(0.2, reach / max(leverage, 1.0)),
        is_linear=is_linear,
        is_isolated=False,
    )


def make_moves(scene: Scene) -> np.ndarray:
    """Draw fat-tailed moves of bars: row 0 inside the bars, row 1 between them."""
    rng, n, sigma = scene.rng, scene.n_bars, scene.sigma
    inside = np.clip(rng.standard_t(3, n) * 0.6 * sigma, -0.6, 0.6)
    gaps = np.where(rng.random(n) < scene.pick(0.0, 0.1, 0.4), rng.normal(0, 2 * sigma, n), 0.0)
    gaps[0] = 0.0
    return np.stack([inside, gaps])


def make_tape(scene: Scene, common: np.ndarray) -> Tape:
    """Draw an instrument that moves with the others, against them, or alone."""
    rng, n, sigma = scene.rng, scene.n_bars, scene.sigma
    share = scene.pick(0.0, 0.6, 0.95, -0.5)
    moves, gaps = share * common + math.sqrt(1.0 - share**2) * make_moves(scene)
    close = np.log(scene.price) + np.cumsum(moves + gaps)
    start = close - moves
    bars = frame_of(scene, start, close, sigma)
    mark = None
    if scene.chance(0.5):
        basis = sigma * scene.pick(0.02, 0.3)
        shift = rng.normal(0, basis, (2, n))
        mark = frame_of(scene, start + shift[0], close + shift[1], sigma)
    contract = {"size": 1.0}
    bars["volume"] = make_volume(scene, bars, contract)
    bars["target"] = make_targets(scene)
    return Tape(bars, mark, make_funding(scene, bars), scene.interval)


def list_and_delist(scene: Scene, tapes: dict[str, Tape]) -> dict[str, Tape]:
    """Cut some of the instruments; one stays whole."""
    whole = scene.pick(*tapes)
    result = {}
    for name, tape in tapes.items():
        n = len(tape.bars)
        first, last = 0, n
        if name != whole and scene.chance(0.25):
            first = int(scene.rng.integers(0, n // 2))
        if name != whole and scene.chance(0.25):
            last = int(scene.rng.integers(n // 2 + 2, n + 1))
        result[name] = cut(tape, first, last)
    return result


def cut(tape: Tape, first: int, last: int) -> Tape:
    """Return some bars of a tape, with the funding that falls into them."""
    bars = tape.bars.iloc[first:last]
    mark = None if tape.mark is None else tape.mark.iloc[first:last]
    funding = tape.funding
    if funding is not None:
        start, end = bars.index[0], bars.index[-1] + pd.Timedelta(tape.interval, "ns")
        funding = funding[(funding.index >= start) & (funding.index < end)]
        funding = funding if len(funding) else None
    return replace(tape, bars=bars, mark=mark, funding=funding)


def make_overlay(scene: Scene, tapes: Mapping[str, Tape]) -> Swing | None:
    """Draw an overlay now and then, where no short of a portfolio of 1x is lost within a bar."""
    rises = [
        np.fmax(tape.bars["high"], tape.bars["open"].shift(-1)) / tape.bars["open"]
        for tape in tapes.values()
    ]
    swing = Swing(scene.uniform(0.3, 1.3), scene.interval) if scene.chance(0.3) else None
    return swing if max(float(rise.max()) for rise in rises) < 1.9 else None


def make_signal(
    scene: Scene, tapes: Mapping[str, Tape], weights: Mapping[str, float]
) -> pd.DataFrame:
    """Draw direction x weight by bar and instrument; some flips, some cells empty."""
    rng = scene.rng
    clock = utc(scene.time)
    columns = {}
    for name in tapes:
        n = len(clock)
        flips = np.cumprod(np.where(rng.random(n) < scene.pick(0.0, 0.1, 0.3), -1.0, 1.0))
        signal = scene.pick(1.0, -1.0) * weights[name] * flips
        if scene.chance(0.3):
            signal = signal * rng.uniform(0.2, 1.0, n)
        signal[rng.random(n) < scene.pick(0.0, 0.1)] = np.nan
        columns[name] = signal
    return pd.DataFrame(columns, index=clock)


def make_shared(scene: Scene) -> dict[str, Any]:
    """Draw what belongs to the account and must agree between venues."""
    return {
        **make_carry(scene),
        "call_grace": int(scene.rng.integers(0, 3)) if scene.chance(0.3) else None,
        "mode": scene.pick("close", "takeover", "partial", "partial", "partial"),
    }


def make_one_venue(scene: Scene, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the venue of one instrument."""
    fees = make_fees(scene)
    liquidation = make_liquidation(scene) | {"mode": shared["mode"]}
    if shared["mode"] != "partial":
        liquidation["full_below"] = 0.0
    liquidation["impact"] = 0.0
    if shared["mode"] != "takeover" and scene.chance(0.2):
        liquidation["impact"] = scene.uniform(0.05, 0.4) / (DAY // scene.interval) ** 0.5
    kind = scene.pick("one", "one", "scalar", "series")
    multiplier = {"one": 1.0, "scalar": scene.uniform(1.0, 2.0)}.get(kind)
    own = {name: value for name, value in shared.items() if name != "mode"}
    own |= {
        "maintenance_at": "entry" if scene.chance(0.15) else "mark",
        "includes_close_fee": scene.chance(0.25),
        "margin_multiplier": make_series(scene, 1.0, 2.0) if multiplier is None else multiplier,
        "profit_counts": scene.pick("all", "all", "losses", scene.uniform(0.0, 1.0)),
    }
    return {
        "contract": make_contract(scene),
        "brackets": make_brackets(scene, fees["taker"]),
        "fees": fees,
        "slippage": make_slippage(scene),
        "liquidation": liquidation,
        "venue": own,
    }

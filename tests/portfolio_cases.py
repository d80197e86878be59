"""Random accounts of 1 to 5 instruments: one seed, its markets, venues and account.

Wild on purpose, like those of ``tests/cases.py``: opens gap, weights change, instruments are listed
and delisted, and the account carries what its margin bears for a few bars. Every amount is
continuous, so that a tie has probability 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tests.cases import PortfolioCase, Tape
from tests.draws import HOUR, Scene, draw_exits, make_flows
from tests.portfolio_draws import (
    draw_costs,
    draw_holding,
    draw_spot,
    draw_terms,
    list_and_delist,
    make_moves,
    make_one_venue,
    make_overlay,
    make_shared,
    make_signal,
    make_stage,
    make_tape,
)

GROUP = "pair"


def make_portfolio_case(seed: int, settles: str | None = None) -> PortfolioCase:
    """Return the random account of a seed; all of it settles in "cash" or in a "coin" if said."""
    rng = np.random.default_rng([seed, 18])
    scene = make_stage(rng, settles)
    names = [f"I{k}" for k in range(int(rng.integers(1, 6)))]
    weights = rng.dirichlet(np.full(len(names), 2.0)) if len(names) > 1 else np.ones(1)
    common = make_moves(scene)
    scenes = {
        name: replace(
            scene,
            price=scene.spread(10, 50_000),
            capital=scene.capital * float(weight),
            is_linear=scene.is_linear if scene.chance(0.95) or settles else not scene.is_linear,
        )
        for name, weight in zip(names, weights, strict=True)
    }
    shared = make_shared(scene)
    tapes = {name: make_tape(each, common) for name, each in scenes.items()}
    if len(names) > 1:
        tapes = list_and_delist(scene, tapes)
    venues = {name: make_one_venue(each, shared) for name, each in scenes.items()}
    requirement = make_requirement(scene, names, venues)
    collateral = make_collateral(scene, common, requirement)
    account = make_account(scene, names, venues, has_collateral=bool(collateral))
    order = make_order(scene, names, is_scenario=bool(requirement and "moves" in requirement))
    for venue in venues.values():
        venue["liquidation"]["order"] = order
        is_bracket = venue["liquidation"]["step"] == "bracket"
        if is_bracket and requirement is not None and "moves" in requirement:
            venue["liquidation"]["step"] = scene.uniform(0.1, 0.7)
    return PortfolioCase(
        seed=seed,
        tapes=tapes,
        venues=venues,
        account=account,
        requirement=requirement,
        collateral=collateral,
        signal=make_signal(scene, tapes, dict(zip(names, weights, strict=True))),
        overlay=make_overlay(scene, tapes),
    )


def make_mode_case(seed: int) -> PortfolioCase:
    """Return the account of a seed with a fill mode, and an equity stop or a health factor.

    A health factor needs partial liquidations under brackets.
    """
    case, rng = make_portfolio_case(seed), np.random.default_rng([seed, 19])
    stop = float(rng.uniform(0.05, 0.6)) if rng.random() < 0.6 else None
    fill = str(rng.choice(["next_open", "next_close", "same_close"], p=[0.2, 0.4, 0.4]))
    has_scenarios = case.requirement is not None and "moves" in case.requirement
    for venue in case.venues.values():
        is_partial = venue["liquidation"]["mode"] == "partial" and not has_scenarios
        if is_partial and rng.random() < 0.6:
            venue["liquidation"]["full_below_health"] = float(rng.uniform(0.9, 1.0))
    return replace(case, account={**case.account, "fill": fill, "equity_stop": stop})


def make_full_case(seed: int) -> PortfolioCase:
    """Return the account of a seed with terms that few accounts have, and stops of every kind.

    Fixed fees, tiers, ticks, automatic margin, two multipliers, open interest, exits by columns.
    """
    case, rng = make_mode_case(seed), np.random.default_rng([seed, 20])
    tapes, venues, account = {}, {}, dict(case.account)
    is_isolated = set(account["margin"].values()) == {"isolated"}
    account["auto_margin"] = is_isolated and bool(rng.random() < 0.6)
    sigma = float(
        np.mean(
            [np.mean(np.abs(np.log(t.bars["close"] / t.bars["open"]))) for t in case.tapes.values()]
        )
    )
    account |= draw_exits(rng, sigma + 1e-4, "trailing_stop", "take_profit")
    has_scenarios = case.requirement is not None and "moves" in case.requirement
    for name, tape in case.tapes.items():
        tapes[name], venues[name] = draw_terms(rng, case, tape, case.venues[name], has_scenarios)
    return replace(case, tapes=tapes, venues=venues, account=account)


def make_margin_case(seed: int) -> PortfolioCase:
    """Return the account of a seed whose isolated positions have a setting for each bar.

    Now and then NaN, infinite, over what the venue allows or under what the wallet can post. Also
    with time stops.
    """
    case, rng = make_full_case(seed), np.random.default_rng([seed, 36])
    account, tapes = dict(case.account) | draw_holding(rng, case), {}
    for venue in case.venues.values():
        venue["fees"].pop("tiers", None)
    account["margin"], account["venue_leverage"] = dict(account["margin"]), {}
    for name, tape in case.tapes.items():
        most = case.venues[name]["brackets"][0]["max_leverage"]
        usual = float(min(most, max(1.0, most ** rng.uniform(0.1, 1.0))))
        given = case.account["venue_leverage"][name]
        is_isolated = account["margin"][name] == "isolated" or rng.random() < 0.7
        account["margin"][name] = "isolated" if is_isolated else "cross"
        account["venue_leverage"][name] = usual if is_isolated and given is None else given
        tapes[name] = tape
        if is_isolated:
            n = len(tape.bars)
            asked = usual * rng.choice([0.3, 0.7, 1.0, 1.0, 1.5, 4.0, np.inf], n)
            asked[rng.random(n) < 0.3] = np.nan
            tapes[name] = replace(tape, bars=tape.bars.assign(setting=asked))
    return replace(case, tapes=tapes, account=account)


def make_dated_case(seed: int) -> PortfolioCase:
    """Return the account of a seed with costs that change over time: series, columns, spreads."""
    case, rng = make_full_case(seed), np.random.default_rng([seed, 21])
    tapes, venues = {}, {}
    for name, tape in case.tapes.items():
        tapes[name], venues[name] = draw_costs(rng, tape, case.venues[name])
    return replace(case, tapes=tapes, venues=venues)


def make_limit_case(seed: int) -> PortfolioCase:
    """Return the account of a seed whose decisions are limit orders."""
    case, rng = make_dated_case(seed), np.random.default_rng([seed, 22])
    account = {**case.account, "fill": "limit", "intrabar": "path"}
    typical = np.mean([np.mean(t.bars["high"] / t.bars["low"] - 1.0) for t in case.tapes.values()])
    offsets = {name: float(typical * rng.uniform(0.0, 0.6)) for name in case.tapes}
    account["offset"] = offsets if rng.random() < 0.5 else offsets[min(offsets)]
    account["closing"] = str(rng.choice(["market", "limit"]))
    if rng.random() < 0.3:
        hours = int(rng.integers(1, 5)) * next(iter(case.tapes.values())).interval // HOUR
        account["max_holding"] = f"{max(hours, 1)}h"
    venues = {
        name: venue | {"fees": venue["fees"] | {"maker_share": 0.0}}
        for name, venue in case.venues.items()
    }
    return replace(case, account=account, venues=venues)


def make_spot_case(seed: int) -> PortfolioCase:
    """Return the account of a seed with some of its linear instruments as spot legs.

    The next seed's, if all of its instruments are inverse.
    """
    case, rng = make_mode_case(seed), np.random.default_rng([seed, 21])
    linear = [n for n, each in case.venues.items() if each["contract"]["kind"] == "linear"]
    if not linear:
        return make_spot_case(seed + 1)
    legs = [name for name in linear if rng.random() < 0.4] or linear[:1]
    account, venues = dict(case.account), {}
    for name, venue in case.venues.items():
        own = venue["venue"] | {"interest_on": "balance", "short_rate": 0.0}
        forced = {k: v for k, v in venue["liquidation"].items() if k != "full_below_health"}
        venues[name] = venue | {"venue": own, "liquidation": forced}
        if name in legs:
            venues[name] = draw_spot(rng, venues[name])
            account["margin"] = account["margin"] | {name: "cross"}
            most = venues[name]["brackets"][0]["max_leverage"]
            setting = account["venue_leverage"][name]
            setting = None if setting is None else min(setting, most)
            account["venue_leverage"] = account["venue_leverage"] | {name: setting}
    for name in case.venues:  # the pool is liquidated in one mode
        if account["margin"][name] == "cross":
            mode = venues[legs[0]]["liquidation"]["mode"]
            assert venues[name]["liquidation"]["mode"] == mode
    return replace(case, venues=venues, account=account)


# ----- markets -----


# ----- venues -----


def make_order(scene: Scene, names: list[str], *, is_scenario: bool) -> Any:
    """Draw the order of a partial liquidation."""
    kind = scene.pick(
        None, "most_relief", "largest_loss", "largest_requirement", "largest_notional", "names"
    )
    if kind == "names":
        return tuple(scene.rng.permutation(names))
    return kind


def make_requirement(
    scene: Scene, names: list[str], venues: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Draw standard cross, with a level now and then, or portfolio margin."""
    level = scene.sometimes(0.4, 0.9, 1.3, 1.0)
    if scene.chance(0.5):
        return None if level == 1.0 else {"level": level}
    for venue in venues.values():
        venue["venue"]["margin_multiplier"] = 1.0
    grouped = [name for name in names if scene.chance(0.5)]
    groups = {GROUP: grouped} if len(grouped) > 1 else {}
    free = [name for name in names if not groups or name not in grouped]
    across = scene.pick("independent", "same row")
    reach = min(0.5, scene.spread(0.02, 0.5) / scene.leverage**0.5)
    steps = np.linspace(-1.0, 1.0, int(scene.rng.integers(2, 6)))
    rows = [
        (float(step * reach), scene.uniform(0.7, 1.0)) for step in steps if abs(step * reach) > 1e-3
    ]
    moves = {
        group: [(move * scale, weight) for move, weight in rows]
        for group in (*groups, *free)
        for scale in [scene.uniform(0.5, 1.5)]
    }
    factor, contingency = scene.uniform(0.7, 1.1), scene.sometimes(0.4, 0.0, 0.02)
    initial = (factor * scene.uniform(1.05, 1.6), contingency + scene.sometimes(0.4, 0.0, 0.02))
    in_products = across == "same row" and len(moves) > 1 and scene.chance(0.4)
    return {
        "level": level,
        "moves": moves,
        "groups": groups or None,
        "products": {"first": list(moves)[:-1]} if in_products else None,
        "across": across,
        "offset": scene.pick(0.0, 1.0, scene.uniform(0.0, 1.0)) if across == "same row" else 0.0,
        "factor": factor,
        "minimum": scene.sometimes(0.4, 0.0, 0.03),
        "contingency": contingency,
        "pair_contingency": scene.sometimes(0.3, 0.0, 0.03),
        "initial": initial if scene.chance(0.8) or level > 1.0 else None,
    }


def make_collateral(
    scene: Scene, common: np.ndarray, requirement: dict[str, Any] | None
) -> list[tuple[dict[str, Any], Tape]]:
    """Draw no collateral, or up to two assets with a rate or tiers."""
    if not scene.chance(0.35):
        return []
    result = []
    for k in range(int(scene.rng.integers(1, 3))):
        tape = make_tape(replace(scene, price=scene.spread(1.0, 1000.0)), common)
        tape = replace(tape, funding=None, bars=tape.bars.drop(columns="target"))
        worth = scene.capital * scene.spread(0.05, 1.5)
        rate = scene.uniform(0.5, 1.0)
        cap = worth * scene.uniform(0.4, 1.2)
        tiers = [(0.0, cap, rate), (cap, 3.0 * cap, rate * scene.uniform(0.2, 0.95))]
        has_tiers = scene.chance(0.5)
        cancels = None
        if requirement is not None and "moves" in requirement and scene.chance(0.5):
            cancels = scene.pick(*requirement["moves"])
        asset = {
            "name": f"C{k}",
            "amount": worth / float(tape.bars["open"].iloc[0]),
            "rate": None if has_tiers else rate,
            "tiers": tiers if has_tiers else None,
            "slippage": scene.sometimes(0.7, 0.0, 0.02),
            "cancels_risk": cancels,
        }
        result.append((asset, tape))
    return result


# ----- account -----


def make_account(
    scene: Scene, names: list[str], venues: Mapping[str, dict[str, Any]], *, has_collateral: bool
) -> dict[str, Any]:
    """Draw the account: margin modes and settings by instrument, or one for all."""
    call = scene.spread(0.05, 0.9) if scene.chance(0.5) else None
    if call is None:
        for venue in venues.values():
            venue["venue"]["call_grace"] = None
    has_reserve = call is not None and scene.chance(0.6)
    kind = scene.pick("cross", "cross", "cross", "mixed", "mixed", "isolated")
    margin = {name: kind if kind != "mixed" else scene.pick("cross", "isolated") for name in names}
    settings = {
        name: min(
            venues[name]["brackets"][0]["max_leverage"],
            max(1.0, scene.leverage * scene.spread(0.5, 4.0)),
        )
        for name in names
    }
    plain = scene.chance(0.6)
    setting = {
        name: None if plain and margin[name] == "cross" else x for name, x in settings.items()
    }
    stops = {name: min(0.9, scene.uniform(0.5, 4.0) * scene.sigma) for name in names}
    return {
        "capital": scene.capital,
        "margin": margin,
        "venue_leverage": setting,
        "min_leverage": 0.0,
        "max_leverage": scene.sometimes(0.3, 0.6, 2.0, np.inf) * scene.leverage,
        "band": scene.sometimes(0.4, 0.0, 0.25) * scene.leverage,
        "stop_loss": stops if scene.chance(0.35) else None,
        "margin_call": call,
        "reserve": scene.uniform(0.0, 1.5) * scene.capital if has_reserve else 0.0,
        "top_up_to": call * scene.uniform(0.3, 0.9) if has_reserve else None,
        "after_liquidation": "halt" if scene.chance(0.15) else "continue",
        "flows": make_flows(scene) if scene.chance(0.4) else None,
        "ruin_at": scene.sometimes(0.3, 0.02, 0.6, None),
        "intrabar": scene.pick("path", "path", "worst"),
        "max_gross_leverage": scene.sometimes(0.5, 0.15, 1.2, np.inf) * scene.leverage,
        "max_overlay": scene.sometimes(0.3, 0.5, 1.5, np.inf),
        "negative_limit": scene.pick(0.0, 0.2) * scene.capital if has_collateral else None,
        "conversion": scene.pick("listed", "pro_rata") if has_collateral else "listed",
    }

"""Published cases of portfolio margin, collateral and conversions, through the public functions.

``data/portfolio_vectors.json`` holds all but Derive's books with options, with their sources. Each
area has one function that computes the expected figures.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.account.balance import sell_collateral
from backtest.account.records import N_TERMS, EventLog
from tests.option_books import FREE, hold
from tests.scenes import bracket, venue_of

FILE = Path(__file__).parents[1] / "data" / "portfolio_vectors.json"
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in json.loads(FILE.read_text())}


def derive(case: dict[str, Any]) -> dict[str, float]:
    """The margin balance: what backs the account less its requirement.

    Collateral has one haircut for maintenance and a further one for initial margin, so that each
    figure is computed with its own rates. Prices of collateral are divided by that of the stable
    coin in which the account settles. The contingency is on the notional at the spot price.
    """
    rule = bt.ScenarioMargin(
        moves=[(price - 1.0, weight) for price, weight in case["scenarios"]],
        groups={"coin": ["PERP"]},
        factor=case["factors"][0],
        contingency=case["contingencies"][0],
        initial=(case["factors"][1], case["contingencies"][1]),
    )
    margins = {"MM": bt.margin.requirement, "IM": bt.margin.initial}
    found = {}
    for name, compute in margins.items():
        held = [read_asset(each, case["stable"], name) for each in case["collateral"]]
        backing = case["cash"] + case["profit"] + case["funding"] + bt.margin.collateral_value(held)
        price, index = {"PERP": case["perp_price"] or case["spot"]}, {"PERP": case["spot"]}
        needed = compute(FREE, {"PERP": case["perps"]}, price, rule, collateral=held, index=index)
        found[name] = backing - needed
    return found


def read_asset(asset: dict[str, Any], stable: float, margin: str) -> bt.Collateral:
    haircut = asset["MMHaircut"] + (asset["IMHaircut"] if margin == "IM" else 0.0)
    return bt.Collateral(
        asset["Name"],
        asset["Amount"],
        prices=asset["Price"] / stable,
        rate=max(0.0, 1.0 - haircut),
        cancels_risk="coin" if asset["IsRiskCancelling"] else None,
    )


def deribit(case: dict[str, Any]) -> dict[str, Any]:
    """Charges on futures that offset and on options net short by strike; moves of volatility."""
    if "rate" in case:  # futures of two expiries: a charge on what offsets
        pair = {"first": case["long"], "second": case["short"]}
        return {"contingency": charge(pair, pair_contingency=case["rate"])}
    if "move" in case:
        return {"shock": [find_shock(days, case["move"], case["power"]) for days in case["days"]]}
    given = {"index": 1.0, "strike": 1.0, "settlement": "coin"}
    options = [hold(case["calls"], "call", **given), hold(case["puts"], "put", **given)]
    shocks = bt.OptionShocks(short_charge=(case["per_option"], case["per_option"]))
    rule = bt.ScenarioMargin(moves=[0.0], options=shocks)
    return {"contingency": bt.margin.requirement({}, {}, {}, rule, options=options)}


def find_shock(days: float, move: float, power: float) -> float:
    """The move of a volatility of 100 % that gives the requirement of one option sold."""
    sold = hold(-1.0, "call", index=1.0, strike=1.0, days=days, volatility=1.0)
    shocks = bt.OptionShocks(power=(power, power))
    rule = bt.ScenarioMargin(moves=[(0.0, 1.0, move)], options=shocks)
    needed = bt.margin.requirement({}, {}, {}, rule, options=sold)
    years = days / 365.0
    moved = needed + bt.options.price("call", 1.0, 1.0, years, 1.0)
    return bt.options.implied_volatility("call", moved, 1.0, 1.0, years) - 1.0


def charge(pair: dict[str, float], **terms: float) -> float:
    """The requirement of a pair on a price that does not move: the charges alone."""
    rule = bt.ScenarioMargin(moves=[0.0], groups={"coin": list(pair)}, **terms)
    return bt.margin.requirement(FREE, pair, dict.fromkeys(pair, 1.0), rule)


def tiers(case: dict[str, Any]) -> dict[str, float]:
    asset = bt.Collateral("BTC", case["quantity"], prices=case["price"], tiers=case["tiers"])
    return {"collateral_value": bt.margin.collateral_value(asset)}


def conversion(case: dict[str, Any]) -> dict[str, float]:
    """The venue's exchange rate against the index is the slippage of a conversion."""
    sold, tables = (
        np.array([2.0 * case["deficit"]]),
        SimpleNamespace(slippages=[1.0 - case["rate"]]),
    )
    held = SimpleNamespace(amounts=sold.copy(), prices=np.ones(1))
    terms: Any = SimpleNamespace(
        rules=SimpleNamespace(collateral=tables), conversion_is_pro_rata=False
    )
    state: Any = SimpleNamespace(held=held, priced=np.ones(1), margin=(), wallet=np.zeros(20))
    log = EventLog(None, np.empty((0, 9)), np.zeros(1, np.int64))
    bar: Any = SimpleNamespace(terms=terms, state=state, ledger=np.zeros((N_TERMS, 1)), log=log)
    sell_collateral(bar, 0, case["deficit"])
    return {"sold": float((sold - held.amounts)[0])}


def haircut(case: dict[str, Any]) -> dict[str, float]:
    asset = bt.Collateral("BNB", case["value"], prices=1.0, rate=case["rate"])
    return {"margin_value": bt.margin.collateral_value(asset)}


def borrowable(case: dict[str, Any]) -> dict[str, float]:
    asset = bt.Collateral("HYPE", case["balance"], prices=case["price"], rate=case["ltv"])
    return {"borrowable": bt.margin.collateral_value(asset)}


def okx(case: dict[str, Any]) -> dict[str, float]:
    """The charge on hedges across stable coins has marginal tiers, as margin brackets have."""
    rows = [bracket(floor, cap, rate=rate) for floor, cap, rate in case["tiers"]]
    return {"mr9": bt.margin.maintenance(venue_of(brackets=rows), case["hedged_usd"])}


def dederi(case: dict[str, Any]) -> dict[str, float | list[float]]:
    """Futures: losses on the forward, the contingency on the index."""
    forward = case["index"] * (1.0 + case["basis_rate"] * case["days"] / 365.0)

    def margin(move: float, **terms: float) -> float:
        rule = bt.ScenarioMargin(moves=[move], **terms)
        held, index = {"F": case["quantity"]}, {"F": case["index"]}
        return bt.margin.requirement(FREE, held, {"F": forward}, rule, index=index)

    gains = [margin(-move) if move > 0 else -margin(move) for move in case["shocks"]]
    return {
        "forward": forward,
        "contingency": margin(0.0, contingency=case["contingency"]),
        "pnl": gains,
    }


def other_maintenance(case: dict[str, Any]) -> dict[str, float]:
    held = case["position"]
    rate = held["maintenance_rate"]
    venue = venue_of(brackets=[bracket(rate=rate)])
    price = bt.margin.liquidation_price(
        venue,
        held["quantity"],
        held["mark"],
        case["equity"],
        other_maintenance=case["other_maintenance"],
    )
    return {"liquidation_price": price}


COMPUTE = {
    "derive": derive,
    "portfolio_margin.deribit": deribit,
    "collateral.tiers": tiers,
    "collateral.conversion": conversion,
    "collateral.haircut": haircut,
    "collateral.ltv": borrowable,
    "portfolio_margin.okx": okx,
    "portfolio_margin.dederi": dederi,
    "cross.liquidation": other_maintenance,
}


def test_every_area_is_there():
    counts = dict.fromkeys(COMPUTE, 0)
    for case in CASES.values():
        counts[case["area"]] += 1
    assert counts["derive"] == 8
    assert counts["portfolio_margin.deribit"] == 3
    assert all(counts.values())


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_case(name):
    case = CASES[name]
    found = COMPUTE[case["area"]](case["inputs"])
    for figure, expected in case["expected"].items():
        assert found[figure] == pytest.approx(expected, **case["tolerance"]), case["source"]


def test_the_other_position_is_left_out_at_a_price():
    """A liquidation price without the other position's margin promises 4.6 % of room for 0.6 %."""
    venue = venue_of(brackets=[bracket(rate=0.004)])
    alone = bt.margin.liquidation_price(venue, 1.0, 100.0, 5.0)
    both = bt.margin.liquidation_price(venue, 1.0, 100.0, 5.0, other_maintenance=4.0)
    assert alone == pytest.approx(95.0 / 0.996)  # 5 + P - 100 = .004 P
    assert both == pytest.approx(99.0 / 0.996)  # 5 + P - 100 = .004 P + 4
    backed = bt.margin.liquidation_price(
        venue, 1.0, 100.0, 5.0, other_backing=4.0, other_maintenance=4.0
    )
    assert backed == pytest.approx(alone)

"""Margin of options: published books and strategies.

``data/derive_books.json`` and ``data/option_margins.json`` hold the published cases with their
sources.
"""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

import backtest as bt
from tests.option_books import FREE, NOW, SHARES, hold, stock_option

DATA = Path(__file__).parents[1] / "data"

# ------------------------------------------------------------------------------------- Derive

DERIVE = json.loads((DATA / "derive_books.json").read_text())
VOLATILITY = {"Up": 0.5, "Down": -0.275, "None": 0.0}


def derive_rule(given):
    """The rule of a case's parameters."""
    vol, margin, skew = given["VolShock"], given["Margin"], given["SkewShock"]
    basis, other = given["BasisContingency"], given["OtherContingency"]
    rows = [
        (price - 1.0, weight, VOLATILITY[way])
        for price, way, weight in given["Scenarios"]
        if way in VOLATILITY
    ]
    turned = {way: weight for _, way, weight in given["Scenarios"]}["LINEAR"] > 0.0
    long_and_short = [
        [
            margin[f"BASE_STATIC_DISCOUNT{end}"],
            margin[f"{side}_MULTSCALE"],
            margin[f"{side}_ADDSCALE"],
        ]
        for end, side in (("", "LONG_RATE"), ("_NEG", "SHORT_RATE"))
    ]
    shocks = bt.OptionShocks(
        power=(vol["SHORTTERMPOWER"], vol["LONGTERMPOWER"]),
        least_days=vol["DTE_FLOOR"],
        least_volatility=vol["MIN_VOL_EVAL_SHOCKED"],
        short_charge=(
            other["MM_OPTION_PERCENT"],
            other["MM_OPTION_PERCENT"] + other["IM_OPTION_PERCENT"],
        ),
        discounts=[*long_and_short[0], *long_and_short[1]],
        skew=list(skew.values()) if turned else None,
        expiry_charge=(
            round(basis["SCENARIO_SPOT_UP"] - 1.0, 12),
            basis["BASIS_CONT_ADD_FACTOR"],
            basis["BASIS_CONT_MULT_FACTOR"],
        ),
    )
    contingency = other["MM_PERP_PERCENT"]
    return bt.ScenarioMargin(
        moves=rows,
        groups={"coin": ["PERP"]},
        factor=margin["MM_LOSS_FACTOR"],
        contingency=contingency,
        initial=(margin["IM_LOSS_FACTOR"], contingency + other["IM_PERP_PERCENT"]),
        options=shocks,
    )


def derive_options(packed):
    """The options of a book, with the forward of their expiry."""
    found = []
    for seconds, strike, is_call, amount, volatility, discount in packed["options"]:
        option = bt.Option(
            kind="call" if is_call else "put",
            strike=strike,
            expiry=str(NOW + pd.Timedelta(seconds=seconds)),
            underlying="coin",
        )
        years = seconds / 31_536_000
        found.append(
            bt.OptionPosition(
                option,
                amount,
                packed["spot"],
                str(NOW),
                volatility=volatility,
                forward=packed["feeds"][str(seconds)][0],
                rate=-math.log(discount) / years,
            )
        )
    return found


def charge_confidence(packed):
    """The initial charge of feeds with low confidence, which no rule here has: by hand."""
    spot, perps = packed["spot"], abs(packed["perps"])
    least = min([packed["confidence"]] + [packed["perp_confidence"]] * bool(perps))
    parts = [(least, perps * spot)]
    for seconds, (_, *confidences) in packed["feeds"].items():
        held = sum(abs(row[3]) for row in packed["options"] if row[0] == int(seconds))
        parts.append((min(least, *confidences), held * spot))
    for _, amount, price, *_, confidence in packed["collateral"]:
        parts.append((min(least, confidence), amount * price / packed["stable"]))
    return sum((1.0 - each) * notional for each, notional in parts if each < 0.55)


@pytest.mark.parametrize("case", DERIVE["cases"], ids=lambda case: case["id"])
def test_derive_books_with_options(case):
    packed = DERIVE["books"][case["book"]]
    rule, options = derive_rule(DERIVE["parameters"] | case["parameters"]), derive_options(packed)
    for name, compute in (("MM", bt.margin.requirement), ("IM", bt.margin.initial)):
        held = [
            bt.Collateral(
                each,
                amount,
                prices=price / packed["stable"],
                rate=max(0.0, 1.0 - lower - (higher if name == "IM" else 0.0)),
                cancels_risk="coin" if cancels else None,
            )
            for each, amount, price, lower, higher, cancels, _ in packed["collateral"]
        ]
        backing = packed["cash"] + packed["profit"] + bt.margin.collateral_value(held)
        backing += bt.margin.option_value(options, rule.override({"groups": None}))
        prices = {"PERP": packed["perp_price"] or packed["spot"]}
        needed = compute(
            FREE,
            {"PERP": packed["perps"]},
            prices,
            rule,
            collateral=held,
            index={"PERP": packed["spot"]},
            options=options,
        )
        charged = charge_confidence(packed) if name == "IM" else 0.0
        assert backing - needed - charged == pytest.approx(case[name], rel=1e-6)


def test_the_derive_preset_is_that_of_its_cases():
    """The preset of BTC has the figures of the cases, but for the weights of tails."""
    preset = bt.margin_preset("derive", ["BTC-PERP"]).requirement
    cases = derive_rule(DERIVE["parameters"])
    assert preset.options == cases.options
    regular = [[row for row in rule.rows_of("BTC") if row[1] == 1.0] for rule in (preset, cases)]
    assert {(round(m, 12), *rest) for m, *rest in regular[0]} == {
        (round(m, 12), *rest) for m, *rest in regular[1]
    }
    assert (preset.factor, preset.contingency) == (cases.factor, cases.contingency)


# --------------------------------------------------------------------- strategies and standard

CASES = json.loads((DATA / "option_margins.json").read_text())


def cboe(given):
    """The deposit of a strategy of Cboe's manual."""
    stock = given["underlying"]
    rate = {"broad": 0.15}.get(stock.get("etf_type"), 0.2)
    leverage = stock.get("leverage_factor", 1.0)
    rule = bt.Strategy(
        naked=rate * leverage,
        least_call=0.1 * leverage,
        least_put=0.1 * leverage,
        covered_itm=False,
    )
    options = [
        stock_option(
            leg["type"], leg["strike"], leg["quantity"], leg["price"], stock["price"], leg["days"]
        )
        for leg in given["legs"]
        if leg["kind"] == "option"
    ]
    shares = [leg for leg in given["legs"] if leg["kind"] == "shares"]
    held = dict.fromkeys(["XYZ"] * len(shares), sum(leg["quantity"] for leg in shares))
    prices = dict.fromkeys(held, sum(leg["price"] for leg in shares))
    venues = dict.fromkeys(held, SHARES)
    found = bt.margin.strategy_deposit(venues, held, prices, rule, options=options)
    return {"margin_requirement": found}


def lean(given):
    """Initial and maintenance margin of a strategy of LEAN's."""
    stock = given["underlying"]
    options = [
        stock_option(
            kind, strike, quantity, mark, stock, {"far": 60}.get(*rest, 30) if rest else 30
        )
        for kind, strike, mark, quantity, *rest in given["legs"]
        if kind != "stock"
    ]
    shares = [leg for leg in given["legs"] if leg[0] == "stock"]
    held = dict.fromkeys(["XYZ"] * len(shares), sum(leg[3] for leg in shares))
    prices = dict.fromkeys(held, sum(leg[2] for leg in shares))
    venues = dict.fromkeys(held, SHARES)
    return {
        "initial": bt.margin.strategy_deposit(
            venues, held, prices, "reg-t", options=options, proceeds=False
        ),
        "maintenance": bt.margin.requirement(venues, held, prices, "reg-t", options=options),
    }


def naked(given):
    option = stock_option(
        given["type"], given["strike"], given["contracts"], given["price"], given["underlying"]
    )
    found = bt.margin.requirement({}, {}, {}, "reg-t", options=option)
    return {"maintenance": found, "broker_observed": found}


def covered_call(given):
    """A broker that asks 25 % of the stock, initially too."""
    ((kind, strike, mark, quantity),) = given["legs"]
    option = stock_option(kind, strike, quantity, mark, given["stock_price"])
    held, prices = {"XYZ": given["stock"]}, {"XYZ": given["stock_price"]}
    found = bt.margin.requirement(SHARES, held, prices, "reg-t", options=option)
    return {"broker_observed_initial": found}


def standard(given):
    """Deribit's and OKX's margin per option, in coins."""
    option = hold(
        given["position"],
        given["type"],
        given["strike"],
        index=given.get("underlying") or given["forward"],
        settlement="coin",
        mark=given["mark"],
    )
    names = {None: "deribit-standard", 0.03: "okx-standard-btc", 0.05: "okx-standard-eth"}
    rule = names[given.get("c")]
    initial = bt.margin.initial({}, {}, {}, rule, options=option)
    found = bt.margin.requirement({}, {}, {}, rule, options=option)
    return {"IM": initial, "IMR": initial, "MM": found, "MMR": found}


COMPUTE = {
    "regt.naked": naked,
    "ib.naked": naked,
    "ib.covered_call": covered_call,
    "options.deribit_standard": standard,
    "options.okx": standard,
}
TICKS = {"ib_naked_4": 0.01, "ib_naked_5": 0.013}
"""Broker observations that the published rule itself is further from than their tolerance."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_published_case(case):
    given, tolerance = case["inputs"], case["tolerance"]
    if case["system"] == "regt.strategy":
        compute = cboe if isinstance(given["underlying"], dict) else lean
    else:
        compute = COMPUTE[case["system"]]
    if case["id"] in TICKS:
        tolerance = {"rel": TICKS[case["id"]]}
    for figure, value in compute(given).items():
        if figure in case["expected"]:
            assert value == pytest.approx(case["expected"][figure], **tolerance), case["source"]


def test_all_published_cases_are_there():
    systems = [case["system"] for case in CASES]
    assert systems.count("regt.strategy") == 30
    assert len(DERIVE["cases"]) == 34

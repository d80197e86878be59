"""Published vectors of venues, for one position and for portfolios."""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import indicators
from backtest.account import EventLog
from backtest.account.balance import sell_collateral
from backtest.account.events import ENTRY
from backtest.account.money import Money, Wallet
from backtest.core.structs import Structs
from tests.option_books import FREE, hold
from tests.scenes import INF, NAN, account_of, bracket, happened, isolated, play, total, venue_of

DATA = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())
CASES = {case["id"]: case for case in DATA["cases"]}

DISPUTED = {
    "ft_funding_8h_30_early": "the position opens exactly at a stamp, and the source lets it pay; "
    "here who held the position at the stamp pays (§2, step 2), so the payment is tested on a "
    "position carried into it, and the opening at the stamp is tested to pay nothing"
}
"""Cases that are used for their arithmetic alone, and why; none is left out."""
FILE = Path(__file__).parents[1] / "data" / "portfolio_vectors.json"
PORTFOLIO_CASES: dict[str, Any] = {case["id"]: case for case in json.loads(FILE.read_text())}


def venue_of_table(name: str) -> bt.Venue:
    """Return a venue with a published table; an absent cap is infinite."""
    rows = DATA["tables"][name]["rows"]
    brackets = [bt.Bracket(floor, cap or INF, *rest) for floor, cap, *rest in rows]
    return venue_of(brackets=brackets)


def venue_at(rate: float, amount: float = 0.0, **changes: Any) -> bt.Venue:
    """Return a venue whose last bracket has this rate and this cumulative amount."""
    if amount == 0.0:
        return venue_of(brackets=[bracket(leverage=1.0, rate=rate)], **changes)
    floor = amount / (rate - rate / 2)

    table = [bracket(0.0, floor, 1.0, rate / 2), bracket(floor, INF, 1.0, rate)]
    return venue_of(brackets=table, **changes)


def coin(size: float = 1.0) -> dict[str, Any]:
    return {"kind": "inverse", "size": size}


def read_bracket(venue: bt.Venue, notional: float) -> dict[str, float]:
    step = 1e-3 * notional
    needed = bt.margin.maintenance(venue, notional)
    rate = (needed - bt.margin.maintenance(venue, notional - step)) / step
    leverages = sorted({row.max_leverage for row in venue.brackets})
    reached = bt.margin.largest_notional(venue, 1e15, leverages) >= notional

    return {
        "bracket": 1 + sum(row.floor < notional for row in venue.brackets[1:]),
        "mmr": rate,
        "cum": rate * notional - needed,
        "maint_margin": needed,
        "max_leverage": float(np.max(np.array(leverages)[reached])),
    }


def pick(case: dict[str, Any], *names: str) -> Any:
    """Return the figure of a case, which each source calls by its own name."""
    return next(case[name] for name in names if name in case)


def find_venue(case: dict[str, Any], **changes: Any) -> bt.Venue:
    """Return a venue with the table of a case, or with one bracket of its rate."""
    if "table" in case:
        return venue_of_table(case["table"])
    if "taker_fee" in case:
        changes["fees"] = {"taker": case["taker_fee"], "maker": case["taker_fee"]}
        changes["includes_close_fee"] = True
    if "qty_usd" in case:
        changes["contract"] = coin()
    hyperliquid = {"half": 1 / (2 * case.get("max_leverage", NAN))}
    rate = pick(case | hyperliquid, "mmr", "mmf", "maintenance", "half")
    return venue_at(rate, case.get("cum", 0.0), **changes)


def liquidation(case: dict[str, Any], **changes: Any) -> dict[str, float]:
    """Return where one position is liquidated; its margin is given, or follows from leverage."""
    if "positions" in case:
        return cross_liquidation(case)

    venue = find_venue(case, **changes)
    quantity = case.get("side", 1) * pick(case | {"one": 1.0}, "qty", "size", "qty_usd", "one")
    entry = pick(case, "entry", "oracle", "price")

    share = case.get("initial", 1 / case.get("leverage", NAN))
    given = case | {"own": abs(quantity) * entry * share}
    margin = pick(given, "wallet", "margin", "margin_btc", "isolated_margin", "equity", "own")

    price = bt.margin.liquidation_price(venue, quantity, entry, margin)
    found = {"liq_price": price, "call_price": price}
    if "table" in case:
        found["bracket_at_liq"] = read_bracket(venue, abs(quantity) * price)["bracket"]
    return found


def cross_liquidation(case: dict[str, Any]) -> dict[str, float]:
    """The other contract's requirement and profit are frozen at its mark price."""
    (other,) = (p for p in case["positions"] if p["symbol"] != case["target"])
    (mine,) = (p for p in case["positions"] if p["symbol"] == case["target"])
    collateral = case["wallet"] + other["side"] * other["qty"] * (other["mark"] - other["entry"])
    theirs = venue_at(other["mmr"], other["cum"])

    needed = bt.margin.maintenance(theirs, other["qty"] * other["mark"])
    venue = venue_at(mine["mmr"], mine["cum"])
    quantity = mine["side"] * mine["qty"]
    price = bt.margin.liquidation_price(venue, quantity, mine["entry"], collateral - needed)
    return {"liq_price": price}


def maintenance(case: dict[str, Any]) -> dict[str, float]:
    found = read_bracket(find_venue(case), pick(case, "notional", "position_value"))
    deducted = dict.fromkeys(("mm_deduction", "maintenance_deduction"), found["cum"])
    return found | deducted | {"tier": found["bracket"]}


def binance_usdm_leverage(case: dict[str, Any]) -> dict[str, float]:
    venue = venue_of_table(case["table"])
    return {"max_leverage": bt.margin.largest_notional(venue, case["stake"]) / case["stake"]}


def binance_coinm_brackets(case: dict[str, Any]) -> dict[str, float]:
    floor = case["cum_prev"] / (case["mmr_prev"] / 2)
    table = [
        bracket(0.0, floor, 1.0, case["mmr_prev"] / 2),
        bracket(floor, case["floor_btc"], 1.0, case["mmr_prev"]),
        bracket(case["floor_btc"], INF, 1.0, case["mmr_n"]),
    ]
    venue = venue_of(contract=coin(), brackets=table)

    wanted = case["mmr_n"] * 60 - bt.margin.maintenance(venue, 60)
    assert venue.brackets[2].amount == pytest.approx(wanted, abs=1e-12)
    return {"cum": venue.brackets[2].amount}


def binance_coinm_liquidation(case: dict[str, Any]) -> dict[str, float]:
    # 200 to 400 BTC at 12.5 %, cumulative amount 11.605, as the venue's example for 300 BTC has it.
    venue = venue_at(0.125, 11.605, contract=coin(case["contract_usd"]))
    quantity = case["side"] * case["contracts"]
    wallet = case["wallet_btc"]
    return {"liq_price": bt.margin.liquidation_price(venue, quantity, case["entry"], wallet)}


def bybit_inverse(case: dict[str, Any]) -> dict[str, float]:
    """One contract is one dollar; the requirement is valued at the entry."""
    rate = case.get("mmr", 0.005)
    leverage = case["leverage"]
    table = [bracket(leverage=leverage, rate=rate)]
    venue = venue_of(contract=coin(), brackets=table, maintenance_at="entry")
    entry = case.get("entry", case.get("price"))
    size = case.get("qty_usd", entry)

    value = bt.funding.payment(venue.contract, size, entry, 1.0)
    margin = value / leverage
    assert bt.margin.largest_notional(venue, margin, leverage) == pytest.approx(value)

    long = bt.margin.liquidation_price(venue, size, entry, margin)
    short = bt.margin.liquidation_price(venue, -size, entry, margin)
    side = case.get("side", 1)
    broke = NAN
    if side in (1, -1):
        broke = bt.margin.bankruptcy_price(venue, side * size, entry, margin)

    return {
        "position_value": value,
        "maint_margin": bt.margin.maintenance(venue, value),
        "initial_margin": margin,
        "bankruptcy_price": broke,
        "liq_long": long,
        "liq_short": short,
        "liq_price": long if side == 1 else short,
    }


def regt_interest(case: dict[str, Any]) -> dict[str, float]:
    """One share bought with a loan, and one bar as long as the loan runs."""
    table = [bracket(leverage=1 / case["initial"], rate=case["maintenance"])]
    loan = {"interest_on": "loan", "borrow_rate": case["rate"], "day_count": case["basis"]}
    venue = venue_of(brackets=table, **loan)
    account = account_of(capital=case["initial"] * case["price"])
    bars = [case["price"]] * 3
    interval = f"{case['days']}d"
    wanted = [1 / case["initial"], NAN]

    result = play(*bars, targets=wanted, venue=venue, account=account, interval=interval)

    last = result.bars.iloc[-1]
    assert last["position"] == 1.0
    assert total(result, "interest") == pytest.approx(1.0)
    return {"loan": -last["cash"], "call_price": last["liquidation_price"]}


def composite(case: dict[str, Any]) -> dict[str, float]:
    """A run: 1 contract bought at the open of bar 1, then one settlement per bar."""
    venue = venue_of(brackets=[bracket(leverage=case["leverage"], rate=case["mmr"])])
    count = case["n_funding"]
    bars = [case["entry"]] * (count + 2)
    account = isolated(case["leverage"], capital=case["entry"] * case["qty"])
    stamps = [(8.0 * (2 + k), case["funding_rate"], case["mark_at_funding"]) for k in range(count)]
    terms = {"signal": case["side"], "funding": stamps, "interval": "8h"}

    result = play(*bars, targets=[1.0, NAN], venue=venue, account=account, **terms)

    last = result.bars.iloc[-1]
    assert last["position"] == case["side"] * case["qty"]
    assert len(happened(result, "funding")) == count

    margin = float(last["margin"])
    broke = bt.margin.bankruptcy_price(venue, last["position"], case["entry"], margin)
    price = last["liquidation_price"]
    return {"margin_after": margin, "liq_price": price, "bankruptcy_price": broke}


def funding_accounting(case: dict[str, Any]) -> dict[str, Any]:
    """The expectations are the cash flows of a short: what its payment is not."""
    if "stamps" in case:
        flow = hold_short(case["size"], opened=1, closed=4, stamps=[(0, 0.1, 3), (8, 0.1, 3)])
        return {"cashflow_short": flow}

    contract = venue_of().contract
    marks = np.array(case.get("marks", case.get("mark")), dtype=float)
    rates = np.array(case.get("rates", case.get("rate")), dtype=float)
    flows = -bt.funding.payment(contract, case["side"] * float(case["size"]), marks, rates)

    spacing = 1 if marks.size > 2 else 8
    rows = zip(np.atleast_1d(rates), np.atleast_1d(marks), strict=True)
    stamps = [(24 + spacing * k, rate, mark) for k, (rate, mark) in enumerate(rows)]
    closed = 24 + spacing * marks.size
    lived = hold_short(case["size"], opened=23, closed=closed, stamps=stamps)
    assert lived == pytest.approx(np.sum(flows), abs=1e-13)

    return {
        "cashflow_short": lived,
        "binance": lived,
        "fees": flows,
        "kraken_time_ratio": lived * case.get("time_in_ratio", 1.0),
        "total": float(np.sum(flows)),
    }


def hold_short(size: float, opened: int, closed: int, stamps: list[Any]) -> float:
    """Return what funding brought to a short from the open of one hour to that of another."""
    targets = [NAN] * (closed + 2)
    targets[opened - 1] = 1.0
    targets[closed - 1] = 0.0
    bars = [100.0] * (closed + 2)
    account = account_of(capital=100.0 * size)

    result = play(*bars, targets=targets, signal=-1.0, account=account, funding=stamps)

    position = result.bars["position"].to_numpy()
    assert set(position[opened:closed]) == {-size}
    assert position[closed] == 0.0
    return -total(result, "funding")


def volatility_estimators(case: dict[str, Any]) -> dict[str, float]:
    """All bars weigh the same; per bar, where ours are annual."""
    index = pd.date_range("2024-01-01", periods=len(case["close"]), freq="D", tz="UTC")
    market = bt.Market.from_frames(pd.DataFrame(case, index=index))
    per_bar = 1.0 / math.sqrt(indicators.bars_per_year(market))
    return {
        name.replace("-", "_"): indicators.volatility(market, name, math.inf)[-1] * per_bar
        for name in ("parkinson", "garman-klass")
    }


COMPUTE: dict[str, tuple[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "binance_usdm.liquidation": (9, liquidation), "binance_usdm.maintenance": (7, maintenance),
    "binance_usdm.leverage": (3, binance_usdm_leverage),
    "binance_coinm.brackets": (1, binance_coinm_brackets),
    "binance_coinm.liquidation": (1, binance_coinm_liquidation),
    "bybit_linear.liquidation": (4, functools.partial(liquidation, maintenance_at="entry")),
    "bybit_linear.maintenance": (2, maintenance), "bybit_inverse.liquidation": (2, bybit_inverse),
    "bybit_inverse.bankruptcy": (2, bybit_inverse), "bybit_inverse.margin": (1, bybit_inverse),
    "okx_gate.liquidation": (4, liquidation), "hyperliquid.liquidation": (18, liquidation),
    "hyperliquid.maintenance": (3, maintenance), "dydx.liquidation": (1, liquidation),
    "regt.margin_call": (3, liquidation), "regt.interest": (1, regt_interest),
    "funding.accounting": (5, funding_accounting), "composite": (1, composite),
    "stats.vol_estimators": (1, volatility_estimators),
}  # fmt: skip
"""How many cases each area has, and what answers them."""


@pytest.mark.parametrize("name", CASES)
def test_a_published_case_has_its_published_answer(name):
    case = CASES[name]
    _, compute = COMPUTE[case["area"]]
    found = compute(case["inputs"])

    rel = max(case["tolerance"].get("rel", 0.0), 1e-12)
    absolute = case["tolerance"].get("abs", 0.0)

    for figure, expected in case["expected"].items():
        # 1e-12: what is expected is itself a rounded decimal, also where it is said to be exact
        wanted = pytest.approx(expected, rel=rel, abs=absolute)
        assert found[figure] == wanted, figure


def test_no_published_case_is_lost():
    counts = Counter(case["area"] for case in CASES.values())
    assert counts == {area: count for area, (count, _) in COMPUTE.items()}
    assert len(DATA["cases"]) == 69
    assert len(CASES) == 69
    assert counts.total() == 69
    assert set(DISPUTED) <= set(CASES)

    portfolios = Counter(case["area"] for case in PORTFOLIO_CASES.values())
    assert {*portfolios} == {*COMPUTE_PORTFOLIO}
    assert portfolios["derive"] == 8
    assert portfolios["portfolio_margin.deribit"] == 3


def test_rates_of_a_bracket_table_are_found_exactly_not_within_a_case_tolerance():
    """The cases of tables allow 0.02, more than most rates: here the rates themselves."""
    for case in CASES.values():
        if "mmr" not in case["expected"]:
            continue
        notional = pick(case["inputs"], "notional", "position_value")
        found = read_bracket(venue_of_table(case["inputs"]["table"]), notional)
        assert found["mmr"] == pytest.approx(case["expected"]["mmr"], rel=1e-9)


def test_a_position_opened_exactly_at_a_stamp_does_not_pay_it():
    """The disputed case: sold at the open of the stamp itself, bought back before the next."""
    case = CASES["ft_funding_8h_30_early"]["inputs"]

    stamps = [(24.0, case["rates"][0], case["marks"][0])]

    assert hold_short(case["size"], opened=24, closed=31, stamps=stamps) == 0.0
    paid = hold_short(case["size"], opened=23, closed=24, stamps=stamps)
    assert paid == pytest.approx(-0.0006648, abs=1e-12)


def test_the_liquidation_price_is_where_backing_meets_the_requirement():
    """The functions agree with each other on every table: W + q (u(P) - u(E)) = MM(N(P))."""
    for name in DATA["tables"]:
        venue = venue_of_table(name)
        for side in (1.0, -1.0):
            prices = bt.margin.liquidation_price(venue, side * np.array([0.1, 10.0]), 900.0, 80.0)
            for quantity, price in zip((0.1, 10.0), prices, strict=True):
                if math.isnan(price):
                    continue
                backing = 80.0 + side * quantity * (price - 900.0)
                needed = bt.margin.maintenance(venue, quantity * price)
                assert backing == pytest.approx(needed, rel=1e-9, abs=1e-9)


def derive(case: dict[str, Any]) -> dict[str, float]:
    """The margin balances; the contingency is on the notional at the spot price."""
    rule = bt.ScenarioMargin(
        moves=[(price - 1.0, weight) for price, weight in case["scenarios"]],
        groups={"BTC": ["PERP"]},
        factor=case["factors"][0],
        contingency=case["contingencies"][0],
        initial=(case["factors"][1], case["contingencies"][1]),
    )
    names = ("Name", "Amount", "Price", "MMHaircut", "IMHaircut", "IsRiskCancelling")
    assets = [[asset[name] for name in names] for asset in case["collateral"]]

    return {margin: balance_of(case, rule, assets, margin) for margin in ("MM", "IM")}


def balance_of(book, rule: bt.ScenarioMargin, assets, margin: str, options: Any = ()) -> float:
    """Return what backs a book of Derive's less its requirement, for MM or for IM. Collateral has
    one haircut for maintenance and a further one for initial margin, so that each figure is
    computed with its own rates. Prices of collateral are divided by that of the stable coin in
    which the account settles."""
    compute = {"MM": bt.margin.requirement, "IM": bt.margin.initial}[margin]

    held = []
    for name, amount, price, lower, higher, cancels, *_ in assets:
        rate = 1.0 - lower
        if margin == "IM":
            rate -= higher
        terms = {"rate": max(0.0, rate), "cancels_risk": "BTC" if cancels else None}
        held.append(bt.Collateral(name, amount, prices=price / book["stable"], **terms))

    backing = book["cash"] + book["profit"] + book.get("funding", 0.0)
    backing += bt.margin.collateral_value(held)
    backing += bt.margin.option_value(options, rule.override({"groups": None}))

    position = {"PERP": book["perps"]}
    price = {"PERP": book["perp_price"] or book["spot"]}
    index = {"PERP": book["spot"]}
    terms = {"collateral": held, "index": index, "options": options}
    return backing - compute(FREE, position, price, rule, **terms)


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


def collateral(case: dict[str, Any]) -> dict[str, float]:
    amount = pick(case, "quantity", "value", "balance")

    rates = {"rate": case.get("rate", case.get("ltv")), "tiers": case.get("tiers")}
    asset = bt.Collateral("BTC", amount, prices=case.get("price", 1.0), **rates)
    value = bt.margin.collateral_value(asset)
    return dict.fromkeys(("collateral_value", "margin_value", "borrowable"), value)


def conversion(case: dict[str, Any]) -> dict[str, float]:
    """The venue's exchange rate against the index is the slippage of a conversion."""
    # An account with one coin, worth 1, of which twice the deficit is held.
    amount = np.array([2.0 * case["deficit"]])
    tables = SimpleNamespace(slippages=[1.0 - case["rate"]])
    held = SimpleNamespace(amounts=amount.copy(), prices=np.ones(1))
    rules = SimpleNamespace(collateral=tables)
    terms: Any = SimpleNamespace(rules=rules, conversion_is_pro_rata=False)
    state: Any = SimpleNamespace(held=held, priced=np.ones(1), positions=(), wallet=Wallet())
    log = EventLog(np.empty(0, ENTRY), *np.zeros((2, 1), np.int64))
    bar: Any = SimpleNamespace(terms=terms, state=state, ledger=Structs(Money, 1), log=log)

    sell_collateral(bar, 0, case["deficit"])

    return {"sold": float((amount - held.amounts)[0])}


def okx(case: dict[str, Any]) -> dict[str, float]:
    """The charge on hedges across stable coins has marginal tiers, as margin brackets have."""
    rows = [bracket(floor, cap, rate=rate) for floor, cap, rate in case["tiers"]]
    return {"mr9": bt.margin.maintenance(venue_of(brackets=rows), case["hedged_usd"])}


def dederi(case: dict[str, Any]) -> dict[str, float | list[float]]:
    """Futures: losses on the forward, the contingency on the index."""
    forward = case["index"] * (1.0 + case["basis_rate"] * case["days"] / 365.0)

    def margin(move: float, **terms: float) -> float:
        rule = bt.ScenarioMargin(moves=[move], **terms)
        held = {"F": case["quantity"]}
        index = {"F": case["index"]}
        return bt.margin.requirement(FREE, held, {"F": forward}, rule, index=index)

    gains = [margin(-move) if move > 0 else -margin(move) for move in case["shocks"]]

    contingency = margin(0.0, contingency=case["contingency"])
    return {"forward": forward, "contingency": contingency, "pnl": gains}


def other_maintenance(case: dict[str, Any]) -> dict[str, float]:
    held = case["position"]
    venue = venue_of(brackets=[bracket(rate=held["maintenance_rate"])])
    price = bt.margin.liquidation_price(
        venue,
        held["quantity"],
        held["mark"],
        case["equity"],
        other_maintenance=case["other_maintenance"],
    )
    return {"liquidation_price": price}


COMPUTE_PORTFOLIO = {
    "derive": derive, "portfolio_margin.deribit": deribit, "collateral.tiers": collateral,
    "collateral.conversion": conversion, "collateral.haircut": collateral,
    "collateral.ltv": collateral, "portfolio_margin.okx": okx, "portfolio_margin.dederi": dederi,
    "cross.liquidation": other_maintenance,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PORTFOLIO_CASES))
def test_published_case(name):
    case = PORTFOLIO_CASES[name]

    found = COMPUTE_PORTFOLIO[case["area"]](case["inputs"])
    for figure, expected in case["expected"].items():
        assert found[figure] == pytest.approx(expected, **case["tolerance"]), case["source"]


def test_the_other_position_is_left_out_at_a_price():
    """A liquidation price without the other position's margin promises 4.6 % of room for 0.6 %."""
    venue = venue_of(brackets=[bracket(rate=0.004)])

    alone = bt.margin.liquidation_price(venue, 1.0, 100.0, 5.0)
    both = bt.margin.liquidation_price(venue, 1.0, 100.0, 5.0, other_maintenance=4.0)
    assert alone == pytest.approx(95.0 / 0.996)  # 5 + P - 100 = .004 P
    assert both == pytest.approx(99.0 / 0.996)  # 5 + P - 100 = .004 P + 4

    terms = {"other_backing": 4.0, "other_maintenance": 4.0}
    backed = bt.margin.liquidation_price(venue, 1.0, 100.0, 5.0, **terms)
    assert backed == pytest.approx(alone)

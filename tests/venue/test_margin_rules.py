"""Margin rules: what they refuse, those of venues by day, and margin of options."""

import inspect
import itertools
import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import backtest as bt
from backtest import BacktestError
from backtest.margin import MarginRule, list_presets, read_rules
from backtest.margin.collateral import StoredMarket
from backtest.margin.preset_tables import find_asset
from backtest.strategies import Constant
from tests.kit import ask_test, check_refused
from tests.option_books import FREE, SHARES, hold, stock_option
from tests.scenes import bracket, market_of, venue_of
from tests.venue import test_vectors as vectors

NAN = math.nan
INF = math.inf
PLAIN = venue_of()
RULES = {"A": read_rules(PLAIN), "B": read_rules(PLAIN)}
ROWS = [(-0.1, 1), (0.1, 1)]
COINS = ["BTCUSDT", "ETHUSDT"]
PRICES = {
    "BTCUSDT": 50_000.0, "ETHUSDT": 2_500.0, "SOL-USDT-SWAP": 100.0, "ETH-PERP": 3_100.0
}  # fmt: skip
ONE_BRACKET = venue_of(brackets=[bracket(leverage=50.0, rate=0.01)])
DATA = Path(__file__).parents[1] / "data"

DERIVE = json.loads((DATA / "derive_books.json").read_text())
VOLATILITY = {"Up": 0.5, "Down": -0.275, "None": 0.0}
CASES = json.loads((DATA / "option_margins.json").read_text())


def scenario(**changes):
    return bt.ScenarioMargin(**{"moves": ROWS} | changes)


def coin(**changes):
    return bt.Collateral(**{"name": "BTC", "amount": 1.0, "prices": 100.0, "rate": 0.9} | changes)


def run_with(*collateral):
    account = bt.Account(collateral=collateral, negative_limit=1.0)
    markets = bt.Markets({"BTCUSDT": bt.Market.sample(bars=48)}, currency="USDT")
    return bt.run(markets, Constant(1.0), venue=PLAIN, account=account, compile=False)


def ask(rule, *options):
    return bt.margin.requirement({}, {}, {}, rule, options=options)


BAD = {
    "moves of nobody": (lambda: scenario(moves={"A": ROWS, "B": ROWS, "BB": ROWS}).pack(RULES),
        "moves: the account has no group 'BB' (did you mean 'B'?); use A, B"),
    "a group without moves": (lambda: scenario(moves={"A": ROWS}).pack(RULES), "got none for B"),
    "the account's own money": (lambda: run_with(coin(name="USDT")),
        "must not be the money in which the account settles, got 'USDT'"),
    "prices of no instrument": (lambda: run_with(coin(prices="BTCUSD")),
        "name an instrument of the run, got 'BTCUSD' (did you mean 'BTCUSDT'?)"),
    "a NaN price": (lambda: bt.margin.requirement(PLAIN, 1.0, NAN), "prices"),
    "an unknown position": (lambda: bt.margin.requirement({"A": PLAIN}, {"B": 1.0}, {"A": 1.0}),
        "quantities must have one number for each of A"),
    "a symbol twice": (lambda: bt.Venue.preset("binance-usdm", ["BTCUSDT", "BTCUSDT"]),
        "list of different names"),
    "options under brackets": (lambda: ask(bt.Brackets(), hold(-1.0)), "options need portfolio"),
    "options of no figures": (lambda: ask("okx-portfolio", hold(-1.0)),
        "figures for options on nothing"),
    "no volatility": (lambda: ask(scenario(), hold(-1.0, mark=10.0)), "needs the volatility"),
    "coins and cash": (lambda: ask(scenario(), hold(1.0), hold(1.0, settlement="coin")),
        "settle in one currency"),
    "two indices": (lambda: ask("reg-t", hold(1.0), hold(1.0, index=61e3)), "must have one index"),
    "a negative answer": (lambda: bt.margin.requirement(PLAIN, 1.0, 1.0, Negative()),
        "Negative.requirement must be at least 0, got -1"),
    "no answer": (lambda: bt.margin.initial(PLAIN, 1.0, 1.0, Negative()), "Negative.initial"),
    "an unknown preset": (lambda: bt.margin_preset("okx-portfolios"), "mean 'okx-portfolio'?"),
    "a coin without moves": (lambda: bt.margin_preset("derive", ["XRPUSDT"]), "got 'XRP'"),
    "a text of instruments": (lambda: bt.margin_preset("derive", "BTC"), "must be a list of names"),
    "no day": (lambda: bt.margin_preset("derive", at="soon"), "time"),
    "an unknown rule": (lambda: bt.PresetMargin(preset="none"), "there are no margin rules"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    check_refused(*BAD[name])


class Negative:
    def requirement(self, positions, prices):
        return -1.0

    def initial(self, positions, prices):
        return NAN


VALUES = (
    bt.Brackets(),
    bt.Brackets(level=1.05),
    scenario(),
    scenario(moves={"A": ROWS, "*": [(-0.5, 0.25), (0.5, 0.25)]}, groups={"g": ["B", "C"]},
        products={"p": ["A", "g"]}, across="same row", offset=0.25, initial=(1.5, 0.01), level=1.2),
    coin(),
    coin(rate=None, tiers=[(0, 1e6, 1.0), (1e6, INF, 0.5)]),
    coin(prices="BTCUSDT", cancels_risk="g", slippage=0.01),
)  # fmt: skip


STORED = (
    *VALUES, hold(-1.0, mark=0.1),
    *(bt.margin_preset(name, ["BTC-PERPETUAL"]).requirement
      for name in ("derive", "deribit-portfolio", "reg-t", "deribit-standard")),
)  # fmt: skip


@pytest.mark.parametrize("value", STORED, ids=repr)
def test_values_are_stored_and_read_without_loss(value):
    kind = MarginRule if isinstance(value, MarginRule) else type(value)
    assert kind.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    assert pickle.loads(pickle.dumps(value)) == value
    names = {name: getattr(bt, name) for name in bt.__all__} | {"inf": INF}
    assert eval(repr(value), names) == value
    assert hash(value) == hash(kind.from_dict(value.to_dict()))
    assert value.override() == value


def test_collateral_keeps_its_market_and_stores_its_hash():
    market = market_of(100.0, 101.0)
    held = coin(prices=market)
    assert held.last_price() == 101.0
    assert bt.margin.collateral_value(held) == pytest.approx(90.9)

    stored = bt.Collateral.from_dict(held.to_dict())
    assert isinstance(stored.prices, StoredMarket)
    assert stored.prices.content == market.content_hash
    assert bt.Collateral.from_dict(stored.to_dict()) == stored
    check_refused(stored.last_price, "'BTC' needs a price", bt.ParameterError)


def test_debts_count_in_full():
    assert bt.margin.collateral_value(coin(amount=-2.0)) == -200.0
    tiers = [(0, 100, 1.0), (100, 200, 0.5)]

    rich = [bt.Collateral("X", n, prices=1.0, tiers=tiers) for n in (50, 150, 250, -250)]
    # 50; 100 + .5 * 50; 100 + .5 * 100, and nothing beyond 200; a debt of 250
    assert [bt.margin.collateral_value(held) for held in rich] == [50.0, 125.0, 150.0, -250.0]

    much = bt.Collateral("BTC", 5500, 2e4, tiers=[(0, 1e8, 1.0), (1e8, 1.2e8, 0.975)])
    assert much.value_at(2e4) == 109_750_000.0
    little = bt.Collateral("X", 0.5, prices=1.0, tiers=[(0, 100, 0.5)])
    assert bt.margin.collateral_value(little) == 0.25


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset.name)
def test_a_rule_of_a_preset_fits_any_account_and_is_stored(preset):
    held = dict.fromkeys(COINS, 1.0)
    prices = {name: PRICES[name] for name in COINS}

    for day in preset.dates:
        of_coins = bt.margin_preset(preset.name, COINS, at=day)
        of_none = bt.margin_preset(preset.name, at=day)
        assert of_coins.date == day

        needed = bt.margin.requirement(ONE_BRACKET, held, prices, of_coins.requirement)
        assert needed > 0
        assert bt.margin.requirement(ONE_BRACKET, held, prices, of_none.requirement) == needed

    test_values_are_stored_and_read_without_loss(preset.requirement)


NEAR = "BTC-PERPETUAL"
FAR = "BTC-USDT-SWAP"
OF_PRESETS = {
    # preset, day, quantities, maintenance and initial margin
    # 50,000 long and 25,000 short of two stocks: 15 % of each at once, initial is maintenance
    "tims": ("occ-tims", None, {"BTCUSDT": 1.0, "ETHUSDT": -10.0}, [11_250, 11_250]),
    # 15 %, and half of 30 %, of 50,000; initial is 1.3 of it
    "okx": ("okx-portfolio", "2024-06-01", {"BTCUSDT": 1.0}, [7_500, 9_750]),
    "a day before every table takes the oldest": (
        "okx-portfolio", "2019-06-01", {"BTCUSDT": 1.0}, [7_500, 9_750]),
    # from January 2025 12 %
    "okx after its change": ("okx-portfolio", "2025-06-01", {"BTCUSDT": 1.0}, [6_000, 7_800]),
    # 25 % under the spot shock, more than half of 36 %
    "okx, another coin": ("okx-portfolio", None, {"SOL-USDT-SWAP": 10.0}, [250]),
    # 100 against -100 at 1: nothing moves, 1 % of 100
    "deribit charged futures that offset": (
        "deribit-portfolio", "2019-06-01", {NEAR: 100.0, FAR: -100.0}, [1]),
    "now it does not": ("deribit-portfolio", None, {NEAR: 100.0, FAR: -100.0}, [0]),
    "deribit, .8 of 16 %": ("deribit-portfolio", None, {NEAR: 100.0, FAR: 0.0}, [12.8]),
    # published case 29: 1 ETH at 3,100 with the index at 3,000
    "derive": ("derive", None, {"ETH-PERP": 1.0}, [0.8 * 558 + 45, 558 + 60]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "day", "held", "wanted"), OF_PRESETS.values(), ids=[*OF_PRESETS])
def test_a_rule_of_a_preset_by_hand(name, day, held, wanted):
    """Maintenance, and initial margin where it is worked out."""
    prices = {instrument: PRICES.get(instrument, 1.0) for instrument in held}
    rule = bt.margin_preset(name, list(held), at=day).requirement
    index = None
    if name == "derive":
        index = prices | {"ETH-PERP": 3_000.0}

    maintenance = bt.margin.requirement(ONE_BRACKET, held, prices, rule, index=index)
    initial = bt.margin.initial(ONE_BRACKET, held, prices, rule, index=index)

    assert [maintenance, initial][: len(wanted)] == pytest.approx(wanted)


def test_levels_rates_and_grace_of_presets():
    assert bt.margin_preset("occ-tims").call_grace_days == 3
    assert bt.margin_preset("binance-portfolio", COINS).requirement == bt.Brackets(level=1.05)
    assert bt.PresetMargin(preset="binance-portfolio").level == 1.05

    old = bt.margin_preset("binance-multi-assets", COINS, at="2022-01-01")
    new = bt.margin_preset("binance-multi-assets", COINS)
    assert old.negative_limit == 10_000.0
    assert new.negative_limit == 5_000.0
    assert old.rates["BTC"] == 0.95
    assert old.conversion == "pro_rata"
    assert old.slippage == 0.025

    coin = bt.Collateral("BTC", 1.0, prices=50_000.0, rate=old.rates["BTC"])
    assert bt.margin.collateral_value(coin) == 47_500.0


def test_the_coin_of_an_instrument_is_read_from_its_name():
    coins = ["BTCUSDT", "BTC-PERPETUAL", "BTC-USDT-SWAP", "BTCUSD_PERP", "XBTUSD"]

    preset = bt.margin_preset("okx-portfolio", [*coins, "ETH/USDT", "SPY"])

    groups = dict(preset.requirement.groups)
    assert groups == {"BTC": tuple(coins), "ETH": ("ETH/USDT",), "SPY": ("SPY",)}


def derive_rule(given):
    """The rule of a case's parameters."""
    vol = given["VolShock"]
    margin = given["Margin"]
    skew = given["SkewShock"]
    basis = given["BasisContingency"]
    other = given["OtherContingency"]

    rows = [(x - 1.0, n, VOLATILITY[way]) for x, way, n in given["Scenarios"] if way in VOLATILITY]
    weights = {way: weight for _, way, weight in given["Scenarios"]}
    turned = weights["LINEAR"] > 0.0

    discounts = [
        margin[name]
        for end, side in (("", "LONG_RATE"), ("_NEG", "SHORT_RATE"))
        for name in (f"BASE_STATIC_DISCOUNT{end}", f"{side}_MULTSCALE", f"{side}_ADDSCALE")
    ]

    added = basis["BASIS_CONT_ADD_FACTOR"]
    factor = basis["BASIS_CONT_MULT_FACTOR"]
    share = other["MM_OPTION_PERCENT"]
    shocks = bt.OptionShocks(
        power=(vol["SHORTTERMPOWER"], vol["LONGTERMPOWER"]),
        least_days=vol["DTE_FLOOR"],
        least_volatility=vol["MIN_VOL_EVAL_SHOCKED"],
        short_charge=(share, share + other["IM_OPTION_PERCENT"]),
        discounts=discounts,
        skew=list(skew.values()) if turned else None,
        expiry_charge=(round(basis["SCENARIO_SPOT_UP"] - 1.0, 12), added, factor),
    )

    contingency = other["MM_PERP_PERCENT"]
    return bt.ScenarioMargin(
        moves=rows,
        groups={"BTC": ["PERP"]},
        factor=margin["MM_LOSS_FACTOR"],
        contingency=contingency,
        initial=(margin["IM_LOSS_FACTOR"], contingency + other["IM_PERP_PERCENT"]),
        options=shocks,
    )


def derive_options(packed):
    """The options of a book, with the forward of their expiry."""
    held = []
    for seconds, strike, is_call, amount, volatility, discount in packed["options"]:
        kind = "call" if is_call else "put"
        rate = -math.log(discount) * 31_536_000 / seconds
        forward = packed["feeds"][str(seconds)][0]
        place = (kind, strike, seconds / 86_400, packed["spot"])
        held.append(hold(amount, *place, volatility=volatility, forward=forward, rate=rate))
    return held


def charge_confidence(packed):
    """The initial charge of feeds with low confidence, which no rule here has: by hand."""
    spot = packed["spot"]
    perps = abs(packed["perps"])
    least = packed["confidence"]
    if perps:
        least = min(least, packed["perp_confidence"])

    parts = [(least, perps * spot)]
    for seconds, (_, *confidences) in packed["feeds"].items():
        held = sum(abs(row[3]) for row in packed["options"] if row[0] == int(seconds))
        parts.append((min(least, *confidences), held * spot))
    for _, amount, price, *_, confidence in packed["collateral"]:
        parts.append((min(least, confidence), amount * price / packed["stable"]))

    return sum((1.0 - confidence) * notional for confidence, notional in parts if confidence < 0.55)


@pytest.mark.parametrize("case", DERIVE["cases"], ids=lambda case: case["id"])
def test_derive_books_with_options(case):
    packed = DERIVE["books"][case["book"]]
    rule = derive_rule(DERIVE["parameters"] | case["parameters"])
    options = derive_options(packed)

    for name in ("MM", "IM"):
        found = vectors.balance_of(packed, rule, packed["collateral"], name, options)
        charged = charge_confidence(packed) if name == "IM" else 0.0
        assert found - charged == pytest.approx(case[name], rel=1e-6)


def test_the_derive_preset_is_that_of_its_cases():
    """The preset of BTC has the figures of the cases, but for the weights of tails."""
    preset = bt.margin_preset("derive", ["BTC-PERP"]).requirement
    cases = derive_rule(DERIVE["parameters"])

    assert preset.options == cases.options
    assert list_regular_moves(preset) == list_regular_moves(cases)
    assert preset.factor == cases.factor
    assert preset.contingency == cases.contingency


def list_regular_moves(rule):
    """Return the moves of BTC that count in full, the others being tails."""
    rows = [row for row in rule.rows_of("BTC") if row[1] == 1.0]
    return {(round(move, 12), *rest) for move, *rest in rows}


def shares_of(legs):
    """Return venues, quantities and prices of rows (price, quantity) of shares of one stock."""
    if not legs:
        return {}, {}, {}
    price, quantity = np.sum(legs, axis=0)
    return {"XYZ": SHARES}, {"XYZ": float(quantity)}, {"XYZ": float(price)}


def cboe(given):
    """The deposit of a strategy of Cboe's manual."""
    stock = given["underlying"]
    rate = {"broad": 0.15}.get(stock.get("etf_type"), 0.2)
    leverage = stock.get("leverage_factor", 1.0)
    least = 0.1 * leverage
    rule = bt.Strategy(naked=rate * leverage, least_call=least, least_put=least, covered_itm=False)

    options = []
    shares = []
    for leg in given["legs"]:
        if leg["kind"] == "option":
            terms = (leg["type"], leg["strike"], leg["quantity"], leg["price"])
            options.append(stock_option(*terms, stock["price"], leg["days"]))
        elif leg["kind"] == "shares":
            shares.append((leg["price"], leg["quantity"]))

    found = bt.margin.strategy_deposit(*shares_of(shares), rule, options=options)
    return {"margin_requirement": found}


def lean(given):
    """Initial and maintenance margin of a strategy of LEAN's."""
    options = []
    legs = []
    for kind, strike, mark, size, *rest in given["legs"]:
        if kind == "stock":
            legs.append((mark, size))
        else:
            days = 60 if rest == ["far"] else 30
            options.append(stock_option(kind, strike, size, mark, given["underlying"], days))

    shares = shares_of(legs)
    terms = {"rule": "reg-t", "options": options}
    return {
        "initial": bt.margin.strategy_deposit(*shares, **terms, proceeds=False),
        "maintenance": bt.margin.requirement(*shares, **terms),
    }


def naked(given):
    names = ("type", "strike", "contracts", "price", "underlying")
    found = ask("reg-t", stock_option(*(given[name] for name in names)))
    return {"maintenance": found, "broker_observed": found}


def covered_call(given):
    """A broker that asks 25 % of the stock, initially too."""
    ((kind, strike, mark, quantity),) = given["legs"]
    option = stock_option(kind, strike, quantity, mark, given["stock_price"])
    held = {"XYZ": given["stock"]}
    prices = {"XYZ": given["stock_price"]}
    found = bt.margin.requirement(SHARES, held, prices, "reg-t", options=option)
    return {"broker_observed_initial": found}


def standard(given):
    """Deribit's and OKX's margin per option, in coins."""
    index = given.get("underlying") or given["forward"]
    terms = {"index": index, "settlement": "coin", "mark": given["mark"]}
    option = hold(given["position"], given["type"], given["strike"], **terms)
    names = {None: "deribit-standard", 0.03: "okx-standard-btc", 0.05: "okx-standard-eth"}
    rule = names[given.get("c")]

    initial = bt.margin.initial({}, {}, {}, rule, options=option)
    found = ask(rule, option)
    return {"IM": initial, "IMR": initial, "MM": found, "MMR": found}


TICKS = {"ib_naked_4": 0.01, "ib_naked_5": 0.013}
"""Broker observations that the published rule itself is further from than their tolerance."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_published_case(case):
    given = case["inputs"]
    tolerance = case["tolerance"]
    if case["system"] == "regt.strategy":
        compute = cboe if isinstance(given["underlying"], dict) else lean
    else:
        compute = {
            "regt.naked": naked,
            "ib.naked": naked,
            "ib.covered_call": covered_call,
            "options.deribit_standard": standard,
            "options.okx": standard,
        }[case["system"]]
    if case["id"] in TICKS:
        tolerance = {"rel": TICKS[case["id"]]}

    for figure, value in compute(given).items():
        if figure in case["expected"]:
            assert value == pytest.approx(case["expected"][figure], **tolerance), case["source"]


def test_all_published_cases_are_there():
    systems = [case["system"] for case in CASES]
    assert systems.count("regt.strategy") == 30
    assert len(DERIVE["cases"]) == 34


ITM = {"kind": "call", "strike": 50_000.0, "days": 0.0}  # 10,000 in the money at expiry
ATM = {"kind": "call", "strike": 60_000.0, "days": 0.0}
PUT = {"strike": 60_000.0, "index": 50_000.0, "mark": 0.21, "settlement": "coin"}
STOCK = {"strike": 80.0, "index": 95.0, "mark": 2.0, "size": 100.0}
BY_HAND = {
    # preset, day, option, sold: M - R changes by what the sale requires without the mark
    "deribit-standard": ("deribit-standard", None, PUT, -1, -0.075),  # max(.075, .075 * .21)
    "okx-standard-btc": ("okx-standard-btc", None, PUT, -1, -0.03),
    "okx-standard-eth": ("okx-standard-eth", None, PUT, -1, -0.05),
    "reg-t": ("reg-t", None, STOCK, -1, -800.0),  # max(.2 * 95 - 15, .1 * 80) * 100
    "cboe-index": ("cboe-index", None, STOCK, -1, -800.0),  # max(.15 * 95 - 15, .1 * 80) * 100
    "occ-tims": ("occ-tims", None, ITM, -1, -9_000.0),  # 69,000 - 60,000
    "derive": ("derive", None, ATM, -1, -8_820.0),  # .8 * .18 * 60,000 + .3 % of 60,000
    # 9,600 / 69,600 coins and the charge on a delta of one half; tails are relieved
    "deribit-portfolio": ("deribit-portfolio", None, ATM | {"settlement": "coin"}, -1,
                          -0.8 * (9_600 / 69_600 + 0.5 * 0.01)),
    "deribit-portfolio 2019": ("deribit-portfolio", "2019-06-01", ATM | {"settlement": "coin"}, -1,
                               -(6_000 / 66_000 + 0.01)),
    # bought: M - R falls by the value that is withheld, and by what the purchase requires
    "a long that counts none": ("deribit-standard", None, PUT, 1, -0.21),
    "a long of strategies": ("reg-t", None, STOCK, 1, -200.0),
    "a long over nine months": ("reg-t", None, STOCK | {"days": 300.0}, 1, -150.0),  # 75 % of it
    "a long that counts": ("occ-tims", None, ITM, 1, -9_000.0),  # from 10,000 to 1,000
    # .95 of 10,000 is left where nothing moves, 0.95 * 1,000 at -13.5 %... the worst is -18 %
    "a long that is discounted": ("derive", None, ITM, 1, -0.8 * 10_000.0),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_trade_at_the_mark_changes_free_margin_by_what_it_requires(name):
    preset, day, terms, quantity, expected = BY_HAND[name]
    rule = bt.PresetMargin(preset=preset, at=day)
    option = hold(quantity, **terms)
    priced = hold(1.0, **terms)
    if "mark" in terms:
        long = terms["mark"] * terms.get("size", 1.0)
    else:
        long = bt.margin.option_value(priced, bt.ScenarioMargin(moves=[0.1]))

    cash = 100.0 - quantity * long
    change = cash + bt.margin.option_value(option, rule) - ask(rule, option) - 100.0

    assert change == pytest.approx(expected, rel=1e-12)


def test_every_preset_with_options_is_traded_by_hand():
    traded = {preset for preset, *_ in BY_HAND.values()}

    with_options = set()
    for preset in list_presets():
        try:
            ask(preset.name, hold(1.0))
        except BacktestError as error:
            if "coins" in str(error):
                with_options.add(preset.name)
            continue
        with_options.add(preset.name)

    assert traded == with_options


def test_longs_that_count_are_in_the_backing_once():
    """B2: a mark is never in M and in R together."""
    rule = bt.Standard(initial=0.15, least=0.1, maintenance=0.075, option_value="long")
    long = hold(2.0, mark=0.03, settlement="coin")
    assert bt.margin.option_value(long, rule) == 0.06

    assert ask(rule, long) == 0.0
    short = hold(-2.0, mark=0.03, settlement="coin")
    assert bt.margin.option_value(short, rule) == 0.0
    assert ask(rule, short) == pytest.approx(0.21)


def test_moves_of_volatility_have_the_tenor_of_the_published_rule():
    """38 % at 30 days, .38 * 2^.3 at 15; at half a day that of one day; a floor where it rises."""
    shocks = bt.OptionShocks(power=(0.3, 0.13), least_volatility=0.5)

    def value(volatility, days):
        return bt.options.price("put", 60_000.0, 50_000.0, days / 365.0, volatility)

    for days, scale in ((30.0, 1.0), (15.0, 2.0**0.3), (0.5, 30.0**0.3), (60.0, 0.5**0.13)):
        rule = bt.ScenarioMargin(moves=[(0.0, 1.0, 0.38)], options=shocks)

        needed = ask(rule, hold(-1.0, days=days))
        moved = 0.6 * (1.0 + 0.38 * scale)
        assert needed == pytest.approx(value(moved, days) - value(0.6, days), rel=1e-9)

        low = ask(rule, hold(-1.0, days=days, volatility=0.1))
        floor = max(0.5, 0.1 * (1.0 + 0.38 * scale))
        assert low == pytest.approx(value(floor, days) - value(0.1, days), rel=1e-9)


def test_span_like_scenarios_by_hand():
    """Sixteen rows; the last two move twice as far and count a third. Ours, not SPAN's."""
    thirds = [k / 3 * 0.1 for k in (0, 1, -1, 2, -2, 3, -3)]
    rows = [(move, 1.0, volatility) for move in thirds for volatility in (0.2, -0.2)]
    rows += [(0.2, 0.33), (-0.2, 0.33)]
    assert len(rows) == 16
    rule = bt.ScenarioMargin(moves=rows, options=bt.OptionShocks(short_charge=(0.01, 0.01)))

    short = hold(-1.0, "call", 60_000.0, days=0.0)
    # 6,000 at +10 %, 12,000 * .33 at +20 %; 1 % of 60,000
    assert ask(rule, short) == pytest.approx(6_600.0)


def test_a_charge_by_expiry_is_a_share_of_the_worse_move():
    """A put at the money owes 6,000 after a tenth down and nothing after a tenth up."""
    shocks = bt.OptionShocks(expiry_charge=(0.1, 0.5, 2.0))
    rule = bt.ScenarioMargin(moves=[-0.01, 0.01], options=shocks)
    assert ask(rule, hold(-1.0, strike=60_000.0, days=0.0)) == pytest.approx(3_000.0)


def test_futures_hedge_options_of_their_group():
    """A short call at expiry and a future: the loss of one is the gain of the other."""
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"BTC": ["F"]})

    short = hold(-1.0, **ITM)
    assert ask(rule.override({"groups": None}), short) == pytest.approx(6_000.0)
    hedged = bt.margin.requirement(FREE, {"F": 1.0}, {"F": 60_000.0}, rule, options=short)

    assert hedged == pytest.approx(0.0)

    apart = bt.ScenarioMargin(moves=[-0.1, 0.1])
    both = bt.margin.requirement(FREE, {"F": 1.0}, {"F": 60_000.0}, apart, options=short)
    assert both == pytest.approx(12_000.0)


def test_a_conversion_and_a_reversal_need_a_tenth_of_the_strike():
    """LEAN's figures without options that lock the price: 25 % of the shares."""
    held = {"XYZ": 100.0}
    prices = {"XYZ": 110.0}
    call = stock_option("call", 100.0, -1, 12.0, 110.0)
    put = stock_option("put", 100.0, 1, 1.0, 110.0)
    covered = bt.margin.requirement(SHARES, held, prices, "reg-t", options=call)

    assert covered == pytest.approx(2_750.0 + 1_000.0)  # 25 % and what it is in the money
    locked = bt.margin.requirement(SHARES, held, prices, "reg-t", options=[call, put])
    assert locked == pytest.approx(1_000.0 + 1_000.0)


def test_calculate_book_counts_options_in_equity_and_moves_them():
    """A short put at expiry under TIMS owes m more after a fall of m, and needs 15 %."""
    option = hold(-1.0, strike=60_000.0, days=0.0)
    found = bt.calculate_book({}, {}, {}, balance=30_000.0, rule="occ-tims", options=option)

    assert found.equity == 30_000.0
    assert found.backing == 30_000.0
    assert found.option_value == 0.0

    assert found.requirement == pytest.approx(9_000.0)
    assert found.options_leverage == pytest.approx(1.0)  # half a coin of 60,000

    ((name, _, down, up),) = found.moves.itertuples()
    assert name == "index BTC"
    # 30,000 - 60,000 m = .15 * 60,000 (1 - m)
    assert down == pytest.approx(-21_000 / 51_000)
    assert math.isnan(up)
    assert found.options["delta"].item() == 0.5


def test_a_search_for_moves_leaves_options_at_their_marks():
    short = hold(-1.0, "call", 60_000.0, days=0.0, mark=100.0, volatility=0.6)
    rule = bt.ScenarioMargin(moves=[-0.1, 0.1])

    found = bt.calculate_book(
        {"BTC": PLAIN}, {"BTC": 1.0}, {"BTC": 60_000.0}, balance=1e9, rule=rule, options=short
    )

    assert found.options[["price", "mark"]].to_numpy().tolist() == [[60_000.0, 100.0]]
    assert found.equity == 1e9 - 100.0
    assert found.option_value == -100.0


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_cheapest_pairing_counts_in_any_order(order):
    """The short of February under the long of February, that of April under that of April. Each
    pair can lose nothing: R is 0, though the long of April could cover February's short too."""
    february = "2026-02-27"
    april = "2026-04-24"
    legs = [
        # expiry, strike, quantity, mark
        (february, 100.0, -1, 6.0),
        (april, 120.0, -1, 3.0),
        (april, 100.0, 1, 10.0),
        (february, 100.0, 1, 6.0),
    ]

    held = []
    for k in order:
        expiry, strike, quantity, mark = legs[k]
        call = bt.Option(kind="call", strike=strike, expiry=expiry, underlying="X")
        position = bt.OptionPosition(call, quantity, mark=mark, index=100.0, at="2026-01-02")
        held.append(position)

    assert bt.margin.requirement({}, {}, {}, bt.Strategy(), options=held) == 0.0


@pytest.mark.slow
def test_a_venue_is_given_as_the_name_of_a_preset_everywhere():
    name = "binance-usdm:BTCUSDT@2023-01-01"
    market = bt.Market.sample(bars=60)
    terms = {"account": bt.Account(), "compile": False}
    crowd = bt.Crowd.from_leverage(
        open_interest=1e6, leverage=5.0, price=30_000.0, accounts=10, venue=name
    )

    def ask(venue: object) -> list[object]:
        return [
            bt.run(market, Constant(), venue=venue, **terms).manifest["id"],
            bt.run(bt.Markets({"A": market}), Constant(), venue={"A": venue}, **terms).metrics,
            ask_test(
                "sweep", market, Constant(), {"leverage": [1.0]}, venue=venue, **terms
            ).manifest["id"],
            ask_test(
                "sensitivity", market, Constant(), venue=venue, factors=["fees"], **terms
            ).summary(),
            bt.calculate_liquidation(venue, side="long", entry=30_000, leverage=10),
            bt.margin.liquidation_price(venue, 1.0, 30_000, 3_000),
            bt.margin.requirement(venue, 1.0, 30_000),
            bt.cascade(
                crowd, venue=venue, shock=-0.1, impact=bt.Linear(0.1), volume=1e6
            ).final_price,
            crowd.liquidation_prices(venue).tolist(),
            bt.Venue.spot(taker=0.0, slippage=0.0, haircut=0.1, borrow_rate=0.0, like=venue),
        ]

    rules = bt.Venue.preset("binance-usdm", "BTCUSDT@2023-01-01")
    assert list(map(repr, ask(name))) == list(map(repr, ask(rules)))


def test_every_function_that_takes_a_venue_takes_its_name():
    public = [getattr(bt, name) for name in bt.__all__]
    for function in filter(inspect.isfunction, public):
        taken = inspect.signature(function).parameters.values()
        hints = [str(x.annotation) for x in taken if x.name in ("venue", "venues")]
        assert all(re.search(r"VenueLike|\bstr\b|Venues|Any", hint) for hint in hints), function

    with pytest.raises(BacktestError, match="did you mean 'binance-usdm:BTCUSDT'"):
        bt.calculate_liquidation("binance-usdm", side="long", entry=30_000, leverage=10)


@pytest.mark.parametrize(("name", "asset"), [
    ("BNBUSD", "BNB"), ("BNBUSDT", "BNB"), ("SHIBUSD", "SHIB"), ("DOTUSD", "DOT"),
    ("BTC-PERPETUAL", "BTC"), ("PF_XBTUSD", "BTC"), ("btc", "BTC"), ("STETH", "STETH"),
])  # fmt: skip
def test_instruments_of_one_coin_are_one_group(name, asset):
    assert find_asset(name) == asset

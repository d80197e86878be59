"""Bad rules, collateral and books: one clear error each, with rule, value, place and cure."""

import math
import pickle

import pytest

import backtest as bt
from backtest.strategies import Constant
from backtest.venue.collateral import StoredMarket
from backtest.venue.requirement import read_rules
from backtest.venue.requirement_rule import MarginRule
from tests.refusals import check_refused
from tests.scenes import market_of, venue_of

NAN, INF = math.nan, math.inf
PLAIN = venue_of()
RULES = {"A": read_rules(PLAIN), "B": read_rules(PLAIN)}
ROWS = [(-0.1, 1), (0.1, 1)]


def scenario(**changes):
    return bt.ScenarioMargin(**{"moves": ROWS} | changes)


def coin(**changes):
    return bt.Collateral(**{"name": "BTC", "amount": 1.0, "prices": 100.0, "rate": 0.9} | changes)


def run_with(*collateral):
    account = bt.Account(collateral=collateral, negative_limit=1.0)
    markets = bt.Markets({"BTCUSDT": bt.Market.sample(bars=48)}, currency="USDT")
    return bt.run(markets, Constant(1.0), venue=PLAIN, account=account, compile=False)


def tiered(*rows):
    return coin(rate=None, tiers=list(rows))


BAD = {
    "level 0": (lambda: bt.Brackets(level=0), "level must be over 0, got 0"),
    "level NaN": (lambda: bt.Brackets(level=NAN), "level"),
    "level True": (lambda: bt.Brackets(level="high"), "level"),
    "no moves": (lambda: scenario(moves=[]), "moves must be a list of at least one"),
    "no groups of moves": (lambda: scenario(moves={}), "at least one group"),
    "a text of moves": (lambda: scenario(moves="10 %"), "moves must be a list"),
    "an empty row": (lambda: scenario(moves={"A": []}), "moves must be a list of at least one"),
    "five numbers": (lambda: scenario(moves=[(0.1, 1, 2, 3, 4)]), "a move, or (move, weight)"),
    "a fall of more than all": (lambda: scenario(moves=[(-1.1, 1)]), "at least -1"),
    "a negative weight": (lambda: scenario(moves=[(0.1, -1)]), "at least 0"),
    "a NaN move": (lambda: scenario(moves=[(NAN, 1)]), "move must be"),
    "a NaN weight": (lambda: scenario(moves=[(0.1, NAN)]), "weight must be"),
    "an infinite move": (lambda: scenario(moves=[(INF, 1)]), "all finite"),
    "a word as a move": (lambda: scenario(moves=[("up", 1)]), "move must be"),
    "groups as a list": (lambda: scenario(groups=["A", "B"]), "table of lists of names"),
    "an empty group": (lambda: scenario(groups={"g": []}), "at least one instrument"),
    "a text as a group": (lambda: scenario(groups={"g": "AB"}), "at least one instrument"),
    "an instrument twice": (lambda: scenario(groups={"g": ["A"], "h": ["A"]}), "got A twice"),
    "products without same row": (lambda: scenario(products={"p": ["A"]}), "products must be left"),
    "offset without same row": (lambda: scenario(offset=0.5), "offset must be left out"),
    "offset over 1": (lambda: scenario(offset=1.1, across="same row"), "offset must be"),
    "offset under 0": (lambda: scenario(offset=-0.1, across="same row"), "offset must be"),
    "offset NaN": (lambda: scenario(offset=NAN, across="same row"), "offset must be"),
    "an unknown way": (lambda: scenario(across="same rows"), "did you mean 'same row'?"),
    "rows of two lengths": (lambda: scenario(moves={"A": ROWS, "B": [0.1]}, across="same row"),
        "as many scenarios each with across='same row', got 'A' 2, 'B' 1"),
    "rows of two lengths in a product": (
        lambda: scenario(
            moves={"A": ROWS, "*": [0.1]}, across="same row", products={"p": ["A", "B"]}
        ),
        "got 'A' 2, 'B' 1",
    ),
    "a negative factor": (lambda: scenario(factor=-1), "factor must be at least 0"),
    "nothing required": (lambda: scenario(factor=0), "nothing is required"),
    "a negative minimum": (lambda: scenario(minimum=-0.1), "minimum must be at least 0"),
    "contingency NaN": (lambda: scenario(contingency=NAN), "contingency"),
    "pair contingency inf": (lambda: scenario(pair_contingency=INF), "pair_contingency"),
    "initial of one number": (lambda: scenario(initial=1.2), "must be (factor, contingency)"),
    "initial under maintenance": (lambda: scenario(initial=(0.9, 0)), "liquidated at once"),
    "initial left out over a level": (lambda: scenario(level=1.05), "liquidated at once"),
    "an unknown field": (lambda: scenario(move=[0.1]), "did you mean 'moves'?"),
    "no moves at all": (bt.ScenarioMargin, "ScenarioMargin needs moves"),
    "a group that names nobody": (lambda: scenario(groups={"g": ["A", "C"]}).pack(RULES),
        "group 'g' must name instruments of the account, got 'C'"),
    "moves of nobody": (lambda: scenario(moves={"A": ROWS, "B": ROWS, "BB": ROWS}).pack(RULES),
        "moves must name groups of the account, got 'BB'; did you mean 'B'?"),
    "a group without moves": (lambda: scenario(moves={"A": ROWS}).pack(RULES), "got none for B"),
    "a product of nobody": (lambda: scenario(products={"p": ["C"]}, across="same row").pack(RULES),
        "product 'p' must name groups of the account, got 'C'"),
    "a cancelled group of nobody": (lambda: scenario().pack(RULES, [coin(cancels_risk="C")]),
        "collateral 'BTC' must name groups of the account, got 'C'"),
    "cancelling under brackets": (lambda: bt.Brackets().pack(RULES, [coin(cancels_risk="A")]),
        "cancels_risk must be None under brackets"),
    "an inverse contract at 0": (
        lambda: scenario(moves=[-1.0]).pack(
            {"A": read_rules(venue_of(contract={"kind": "inverse"}))}
        ),
        "must be over -1",
    ),
    "a negative rate": (lambda: coin(rate=-0.1), "rate must be at least 0 and at most 1"),
    "a rate over 1": (lambda: coin(rate=1.1), "rate must be at least 0 and at most 1"),
    "a rate of NaN": (lambda: coin(rate=NAN), "rate must be"),
    "no rate": (lambda: coin(rate=None), "either rate or tiers must be given, got neither"),
    "rate and tiers": (lambda: coin(tiers=[(0, 1, 0.5)]), "got both"),
    "an amount of NaN": (lambda: coin(amount=NAN), "amount"),
    "an infinite amount": (lambda: coin(amount=INF), "amount must be finite"),
    "no name": (lambda: coin(name=""), "name must be text"),
    "no prices": (lambda: bt.Collateral("BTC", 1.0, rate=0.9), "Collateral needs prices"),
    "prices 0": (lambda: coin(prices=0.0), "prices must be over 0"),
    "prices NaN": (lambda: coin(prices=NAN), "prices"),
    "prices of a list": (lambda: coin(prices=[1.0]), "prices must be a Market"),
    "its own equity": (lambda: coin(prices="equity"), "the account's own equity"),
    "slippage of all": (lambda: coin(slippage=1.0), "slippage must be"),
    "a number as cancelled group": (lambda: coin(cancels_risk=1), "cancels_risk must be text"),
    "no tiers": (tiered, "tiers must be a list of (floor, cap, rate)"),
    "a tier of two numbers": (lambda: tiered((0, 1)), "a tier must be (floor, cap, rate)"),
    "rising rates": (lambda: tiered((0, 1, 0.5), (1, 2, 0.6)), "row 2: rate must be at most the"),
    "a negative rate in a tier": (lambda: tiered((0, 1, -0.5)), "rate must be at least 0"),
    "a gap between tiers": (lambda: tiered((0, 1, 0.5), (2, 3, 0.4)), "floor must be 1, where the"),
    "tiers not from 0": (lambda: tiered((1, 2, 0.5)), "floor must be 0"),
    "a cap under its floor": (lambda: tiered((0, 0, 0.5)), "cap must be over its floor"),
    "a floor of NaN": (lambda: tiered((NAN, 1, 0.5)), "floor must be"),
    "the account's own money": (lambda: run_with(coin(name="USDT")),
        "must not be the money of the account, got 'USDT'"),
    "prices of no instrument": (lambda: run_with(coin(prices="BTCUSD")),
        "prices must name an instrument of the run, got 'BTCUSD'; did you mean 'BTCUSDT'?"),
    "collateral of no price": (lambda: bt.margin.collateral_value(coin(prices="A")),
        "a price is needed to value collateral whose prices are 'A'"),
    "too few prices of collateral": (
        lambda: bt.margin.collateral_value([coin(), coin(name="ETH")], [1.0]),
        "one number for each of BTC, ETH"),
    "a number as collateral": (lambda: bt.margin.collateral_value(5.0), "must be a Collateral"),
    "a price of 0": (lambda: bt.margin.requirement(PLAIN, 1.0, 0.0), "prices must be over 0"),
    "a NaN price": (lambda: bt.margin.requirement(PLAIN, 1.0, NAN), "prices"),
    "a NaN quantity": (lambda: bt.margin.requirement(PLAIN, NAN, 1.0), "quantities"),
    "a price too few": (lambda: bt.margin.requirement(PLAIN, {"A": 1.0, "B": 1.0}, {"A": 1.0}),
        "prices must have one number for each of A, B"),
    "an unknown position": (lambda: bt.margin.requirement({"A": PLAIN}, {"B": 1.0}, {"A": 1.0}),
        "quantities must have one number for each of A"),
    "lengths that differ": (lambda: bt.margin.requirement(PLAIN, [1.0, 2.0], [1.0]),
        "must have one length, got [2, 1]"),
    "no venue": (lambda: bt.margin.requirement({"A": 1}, 1.0, 1.0), "must give a Venue"),
    "no rule": (lambda: bt.margin.requirement(PLAIN, 1.0, 1.0, "brackets"),
        "there are no margin rules 'brackets'"),
    "a negative index": (lambda: bt.margin.requirement(PLAIN, 1.0, 1.0, scenario(), index=-1.0),
        "index must be over 0"),
    "a leverage of 0": (lambda: bt.margin.initial(PLAIN, 1.0, 1.0, venue_leverage=0),
        "venue_leverage must be over 0"),
    "a symbol twice": (lambda: bt.Venue.preset("binance-usdm", ["BTCUSDT", "BTCUSDT"]),
        "list of different names"),
    "no symbols": (lambda: bt.Venue.preset("binance-usdm", []), "list of different names"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    check_refused(*BAD[name])


class Negative:
    def requirement(self, positions, prices):
        return -1.0

    def initial(self, positions, prices):
        return NAN


def test_the_answers_of_a_rule_of_ones_own_are_checked():
    with pytest.raises(bt.ParameterError, match="at least 0, got -1"):
        bt.margin.requirement(PLAIN, 1.0, 1.0, Negative())
    with pytest.raises(bt.ParameterError, match=r"Negative\.initial"):
        bt.margin.initial(PLAIN, 1.0, 1.0, Negative())


VALUES = (
    bt.Brackets(),
    bt.Brackets(level=1.05),
    scenario(),
    scenario(moves={"A": ROWS, "*": [(-0.5, 0.25), (0.5, 0.25)]}, groups={"g": ["B", "C"]},
        products={"p": ["A", "g"]}, across="same row", offset=0.25, initial=(1.5, 0.01), level=1.2),
    coin(),
    tiered((0, 1e6, 1.0), (1e6, INF, 0.5)),
    coin(prices="BTCUSDT", cancels_risk="g", slippage=0.01),
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_stored_and_read_without_loss(value):
    kind = MarginRule if isinstance(value, MarginRule) else type(value)
    assert kind.from_dict(value.to_dict()) == value
    assert pickle.loads(pickle.dumps(value)) == value
    names = {name: getattr(bt, name) for name in bt.__all__} | {"inf": INF}
    assert eval(repr(value), names) == value
    assert hash(value) == hash(kind.from_dict(value.to_dict()))
    assert value.override() == value


def test_overrides_of_tables_change_the_groups_that_they_name():
    rule = scenario(moves={"A": ROWS, "*": [0.2]})
    changed = rule.override({"moves.A": [0.3]})
    assert changed.moves == scenario(moves={"A": [0.3], "*": [0.2]}).moves
    assert rule.override(groups={"g": ["B"]}).groups["g"] == ("B",)


def test_collateral_keeps_its_market_and_stores_its_hash():
    market = market_of(100.0, 101.0)
    held = coin(prices=market)
    assert held.last_price() == 101.0
    assert bt.margin.collateral_value(held) == pytest.approx(90.9)
    stored = bt.Collateral.from_dict(held.to_dict())
    assert isinstance(stored.prices, StoredMarket)
    assert stored.prices.content == market.content_hash
    assert bt.Collateral.from_dict(stored.to_dict()) == stored
    with pytest.raises(bt.ParameterError, match="a price is needed"):
        stored.last_price()


def test_debts_count_in_full():
    assert bt.margin.collateral_value(coin(amount=-2.0)) == -200.0
    tiers = [(0, 100, 1.0), (100, 200, 0.5)]
    rich = [bt.Collateral("X", n, prices=1.0, tiers=tiers) for n in (50, 150, 250, -250)]
    # 50; 100 + .5 * 50; 100 + .5 * 100, and nothing beyond 200; a debt of 250
    assert [bt.margin.collateral_value(each) for each in rich] == [50.0, 125.0, 150.0, -250.0]
    little = bt.Collateral("X", 0.5, prices=1.0, tiers=[(0, 100, 0.5)])
    assert bt.margin.collateral_value(little) == 0.25

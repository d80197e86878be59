"""Bad rules, collateral, options and books: one clear error each."""

import math
import pickle

import pytest

import backtest as bt
from backtest.strategies import Constant
from backtest.venue.collateral import StoredMarket
from backtest.venue.requirement import read_rules
from backtest.venue.requirement_rule import MarginRule
from tests.kit import check_refused
from tests.option_books import hold
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


def ask(rule, *options):
    return bt.margin.requirement({}, {}, {}, rule, options=options)


BAD = {
    "moves of nobody": (lambda: scenario(moves={"A": ROWS, "B": ROWS, "BB": ROWS}).pack(RULES),
        "moves must name groups of the account, A, B, got 'BB'; did you mean 'B'?"),
    "a group without moves": (lambda: scenario(moves={"A": ROWS}).pack(RULES), "got none for B"),
    "the account's own money": (lambda: run_with(coin(name="USDT")),
        "must not be the money in which the account settles, got 'USDT'"),
    "prices of no instrument": (lambda: run_with(coin(prices="BTCUSD")),
        "name an instrument of the run, got 'BTCUSD'; did you mean 'BTCUSDT'?"),
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


def test_collateral_keeps_its_market_and_stores_its_hash():
    market = market_of(100.0, 101.0)
    held = coin(prices=market)
    assert held.last_price() == 101.0
    assert bt.margin.collateral_value(held) == pytest.approx(90.9)
    stored = bt.Collateral.from_dict(held.to_dict())
    assert isinstance(stored.prices, StoredMarket)
    assert stored.prices.content == market.content_hash
    assert bt.Collateral.from_dict(stored.to_dict()) == stored
    with pytest.raises(bt.ParameterError, match="'BTC' needs a price"):
        stored.last_price()


def test_debts_count_in_full():
    assert bt.margin.collateral_value(coin(amount=-2.0)) == -200.0
    tiers = [(0, 100, 1.0), (100, 200, 0.5)]
    rich = [bt.Collateral("X", n, prices=1.0, tiers=tiers) for n in (50, 150, 250, -250)]
    # 50; 100 + .5 * 50; 100 + .5 * 100, and nothing beyond 200; a debt of 250
    assert [bt.margin.collateral_value(each) for each in rich] == [50.0, 125.0, 150.0, -250.0]
    little = bt.Collateral("X", 0.5, prices=1.0, tiers=[(0, 100, 0.5)])
    assert bt.margin.collateral_value(little) == 0.25

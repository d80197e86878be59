"""Margin rules: what they refuse, and those of venues by day."""

import math
import pickle

import pytest

import backtest as bt
from backtest.strategies import Constant
from backtest.venue.collateral import StoredMarket
from backtest.venue.margin_presets import list_presets
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


COINS = ["BTCUSDT", "ETHUSDT"]
PRICES = {"BTCUSDT": 50_000.0, "ETHUSDT": 2_500.0}
ONE_BRACKET = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.0
)


@pytest.mark.parametrize("preset", list_presets(), ids=lambda each: each.name)
def test_a_rule_of_a_preset_fits_any_account_and_is_stored(preset):
    rule = preset.requirement
    for day in preset.dates:
        dated = bt.margin_preset(preset.name, COINS, at=day)
        assert dated.date == day
        needed = bt.margin.requirement(
            ONE_BRACKET, dict.fromkeys(COINS, 1.0), PRICES, dated.requirement
        )
        same = bt.margin_preset(preset.name, at=day).requirement
        assert (
            bt.margin.requirement(ONE_BRACKET, dict.fromkeys(COINS, 1.0), PRICES, same)
            == needed
            > 0
        )
    assert MarginRule.from_dict(rule.to_dict()) == rule
    assert eval(repr(rule), {name: getattr(bt, name) for name in bt.__all__}) == rule


def needed(name, at=None, **quantities):
    rule = bt.margin_preset(name, COINS, at=at).requirement
    held = {"BTCUSDT": 0.0, "ETHUSDT": 0.0} | quantities
    terms = (ONE_BRACKET, held, PRICES, rule)
    return bt.margin.requirement(*terms), bt.margin.initial(*terms)


def test_tims_requires_fifteen_percent_at_once():
    """50,000 long and 25,000 short of two stocks: 15 % of each, initial is maintenance."""
    assert needed("occ-tims", BTCUSDT=1, ETHUSDT=-10) == pytest.approx((11_250, 11_250))
    assert bt.margin_preset("occ-tims").call_grace_days == 3


def test_okx_before_and_after_its_change():
    """BTC: 15 %, and half of 30 %, of 50,000; from January 2025 12 %. Initial is 1.3 of it."""
    assert needed("okx-portfolio", "2024-06-01", BTCUSDT=1) == pytest.approx((7_500, 9_750))
    # a day before every table takes the oldest
    assert needed("okx-portfolio", "2019-06-01", BTCUSDT=1) == pytest.approx((7_500, 9_750))
    assert needed("okx-portfolio", "2025-06-01", BTCUSDT=1) == pytest.approx((6_000, 7_800))
    # SOL: 25 % under the spot shock, more than half of 36 %
    rule = bt.margin_preset("okx-portfolio", ["SOL-USDT-SWAP"]).requirement
    assert bt.margin.requirement(
        ONE_BRACKET, {"SOL-USDT-SWAP": 10.0}, 100.0, rule
    ) == pytest.approx(250)


def test_deribit_charges_futures_that_offset():
    """2019: 100 against -100 at 1: nothing moves, 1 % of 100."""
    groups = {"BTC": ["near", "far"]}
    old = bt.margin_preset("deribit-portfolio", groups, at="2019-06-01").requirement
    new = bt.margin_preset("deribit-portfolio", groups).requirement
    held, prices = {"near": 100.0, "far": -100.0}, {"near": 1.0, "far": 1.0}
    assert bt.margin.requirement(ONE_BRACKET, held, prices, old) == pytest.approx(1.0)
    assert bt.margin.requirement(ONE_BRACKET, held, prices, new) == 0.0
    # now: .8 of 16 %
    assert bt.margin.requirement(
        ONE_BRACKET, {"near": 100.0, "far": 0.0}, prices, new
    ) == pytest.approx(12.8)


def test_derive_has_the_published_case_of_one_perpetual():
    """Case 29: 1 ETH at 3,100 with the index at 3,000: .8 * 558 + 45, and 558 + 60."""
    rule = bt.margin_preset("derive", {"ETH": ["ETH-PERP"]}).requirement
    terms = (ONE_BRACKET, {"ETH-PERP": 1.0}, {"ETH-PERP": 3_100.0}, rule)
    index = {"ETH-PERP": 3_000.0}
    assert bt.margin.requirement(*terms, index=index) == pytest.approx(0.8 * 558 + 45)
    assert bt.margin.initial(*terms, index=index) == pytest.approx(558 + 60)


def test_binance_levels_and_rates():
    assert bt.margin_preset("binance-portfolio", COINS).requirement == bt.Brackets(level=1.05)
    assert bt.PresetMargin(preset="binance-portfolio").level == 1.05
    old = bt.margin_preset("binance-multi-assets", COINS, at="2022-01-01")
    new = bt.margin_preset("binance-multi-assets", COINS)
    assert (old.negative_limit, new.negative_limit) == (10_000.0, 5_000.0)
    assert (old.rates["BTC"], old.conversion, old.slippage) == (0.95, "pro_rata", 0.025)
    coin = bt.Collateral("BTC", 1.0, prices=50_000.0, rate=old.rates["BTC"])
    assert bt.margin.collateral_value(coin) == 47_500.0


def test_the_coin_of_an_instrument_is_read_from_its_name():
    names = [
        "BTCUSDT",
        "BTC-PERPETUAL",
        "BTC-USDT-SWAP",
        "BTCUSD_PERP",
        "XBTUSD",
        "ETH/USDT",
        "SPY",
    ]
    groups = dict(bt.margin_preset("okx-portfolio", names).requirement.groups)
    assert groups == {"BTC": tuple(names[:5]), "ETH": ("ETH/USDT",), "SPY": ("SPY",)}


UNKNOWN = {
    "an unknown preset": (lambda: bt.margin_preset("okx-portfolios"),
        "did you mean 'okx-portfolio'?"),
    "a coin without moves": (lambda: bt.margin_preset("derive", ["XRPUSDT"]), "got 'XRP'"),
    "a text of instruments": (lambda: bt.margin_preset("derive", "BTC"), "must be a list of names"),
    "no day": (lambda: bt.margin_preset("derive", at="soon"), "time"),
    "an unknown rule": (lambda: bt.PresetMargin(preset="none"), "there are no margin rules"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_rules_get_one_clear_error(name):
    check_refused(*UNKNOWN[name])

"""Presets of margin rules: dated tables, each figure with its status and source."""

import pytest

import backtest as bt
from backtest.venue.margin_presets import list_presets
from backtest.venue.requirement_rule import MarginRule
from tests.kit import check_refused

COINS = ["BTCUSDT", "ETHUSDT"]
PRICES = {"BTCUSDT": 50_000.0, "ETHUSDT": 2_500.0}
PLAIN = bt.Venue.simple(
    taker=0.0, slippage=0.0, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.0
)


@pytest.mark.parametrize("preset", list_presets(), ids=lambda each: each.name)
def test_a_rule_of_a_preset_fits_any_account_and_is_stored(preset):
    rule = preset.requirement
    for day in preset.dates:
        dated = bt.margin_preset(preset.name, COINS, at=day)
        assert dated.date == day
        needed = bt.margin.requirement(PLAIN, dict.fromkeys(COINS, 1.0), PRICES, dated.requirement)
        same = bt.margin_preset(preset.name, at=day).requirement
        assert bt.margin.requirement(PLAIN, dict.fromkeys(COINS, 1.0), PRICES, same) == needed > 0
    assert MarginRule.from_dict(rule.to_dict()) == rule
    assert eval(repr(rule), {name: getattr(bt, name) for name in bt.__all__}) == rule


def needed(name, at=None, **quantities):
    rule = bt.margin_preset(name, COINS, at=at).requirement
    held = {"BTCUSDT": 0.0, "ETHUSDT": 0.0} | quantities
    terms = (PLAIN, held, PRICES, rule)
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
    assert bt.margin.requirement(PLAIN, {"SOL-USDT-SWAP": 10.0}, 100.0, rule) == pytest.approx(250)


def test_deribit_charges_futures_that_offset():
    """2019: 100 against -100 at 1: nothing moves, 1 % of 100."""
    groups = {"BTC": ["near", "far"]}
    old = bt.margin_preset("deribit-portfolio", groups, at="2019-06-01").requirement
    new = bt.margin_preset("deribit-portfolio", groups).requirement
    held, prices = {"near": 100.0, "far": -100.0}, {"near": 1.0, "far": 1.0}
    assert bt.margin.requirement(PLAIN, held, prices, old) == pytest.approx(1.0)
    assert bt.margin.requirement(PLAIN, held, prices, new) == 0.0
    # now: .8 of 16 %
    assert bt.margin.requirement(PLAIN, {"near": 100.0, "far": 0.0}, prices, new) == pytest.approx(
        12.8
    )


def test_derive_has_the_published_case_of_one_perpetual():
    """Case 29: 1 ETH at 3,100 with the index at 3,000: .8 * 558 + 45, and 558 + 60."""
    rule = bt.margin_preset("derive", {"ETH": ["ETH-PERP"]}).requirement
    terms = (PLAIN, {"ETH-PERP": 1.0}, {"ETH-PERP": 3_100.0}, rule)
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


BAD = {
    "an unknown preset": (lambda: bt.margin_preset("okx-portfolios"),
        "did you mean 'okx-portfolio'?"),
    "a coin without moves": (lambda: bt.margin_preset("derive", ["XRPUSDT"]), "got 'XRP'"),
    "a text of instruments": (lambda: bt.margin_preset("derive", "BTC"), "must be a list of names"),
    "no day": (lambda: bt.margin_preset("derive", at="soon"), "time"),
    "an unknown rule": (lambda: bt.PresetMargin(preset="none"), "there are no margin rules"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    check_refused(*BAD[name])

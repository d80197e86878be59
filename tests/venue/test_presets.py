"""The venue tables that come with the package: dated, sourced, right where answers are known."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from backtest.venue import preset_files
from backtest.venue.venue import InForce, Venue
from tests.kit import check_refused, every_nth, market_of

BTC = ("binance-usdm", "BTCUSDT")
PUBLISHED = ("binance-usdm", "BTCUSDT", "2024-10-24")
"""The table of the day to which the published cases belong."""
ALL = preset_files.available()
LISTED = [each for each in ALL if each.source.startswith("freqtrade ")]
SOME = [*(each for each in ALL if each not in LISTED), *every_nth(LISTED, 12)]
"""Every preset; of those whose tables are listed together, the fast tests take some."""


@pytest.mark.parametrize("preset", SOME, ids=lambda each: each.name)
def test_every_table_of_a_preset_builds_and_says_when_and_where_from(preset):
    for date in preset.dates:
        venue = Venue.preset(preset.venue, preset.symbol, at=date)
        assert venue.in_force.since == date
        assert Venue.from_dict(json.loads(json.dumps(venue.to_dict()))) == venue
        found = preset_files.origins(preset.venue, preset.symbol, date)
        assert {each.group for each in found} >= {*preset_files.GROUPS} - {"rules", "funding"}
        for origin in found:
            assert pd.Timestamp(origin.date) <= pd.Timestamp("2026-11-20")
            assert len(origin.source) > 20


@pytest.mark.parametrize("preset", SOME, ids=lambda each: each.name)
def test_every_preset_carries_an_account_through_a_market(preset):
    venue = Venue.preset(preset.venue, preset.symbol)
    price = 10_000.0 * np.array([1.0, 1.0, 1.001, 0.999, 0.5, 0.5])
    capital = 1e-2 * min(venue.brackets[0].cap, 1e6)
    account = bt.Account(capital=capital)
    market = market_of(price, "1D")

    class Most(bt.Policy):
        def leverage(self, bar, account):
            return 0.9 * venue.brackets[0].max_leverage

    result = bt.run(market, Most(), venue=venue, account=account, compile=False)
    # The books balance at every bar, or run would have raised; half the price kills each of them.
    assert (result.events.kind == "liquidation").any()
    assert result.manifest["venue"]["in_force"]["preset"] == preset.name


def test_an_old_day_has_the_table_of_that_day():
    venue = Venue.preset(*BTC, at="2021-05-19")
    assert [row.cap for row in venue.brackets[:3]] == [50_000.0, 250_000.0, 1_000_000.0]
    assert venue.in_force == InForce(
        preset="binance-usdm:BTCUSDT", since="2021-03-18", until="2022-12-29"
    )
    assert bt.margin.maintenance(venue, 3_500_032.458) == pytest.approx(71_200.81145, abs=1e-5)


@pytest.mark.parametrize(("at", "since"), [
    ("2019-01-01", "2021-03-18"), ("2021-03-17T23:59", "2021-03-18"), ("2021-03-18", "2021-03-18"),
    ("2022-12-28T23:59:59", "2021-03-18"), ("2024-10-23T23:59:59", "2022-12-29"),
    ("2024-10-24", "2024-10-24"),
    (pd.Timestamp("2024-10-24 23:00", tz="America/New_York"), "2024-10-24"),
    ("latest", "2026-09-29"), (pd.Timestamp("2021-05-19"), "2021-03-18"),
])  # fmt: skip
def test_the_table_in_force_is_the_last_that_began_by_the_day(at, since):
    venue = Venue.preset(*BTC, at=at)
    assert venue.in_force.since == since
    assert venue.earlier == ()


def test_a_symbol_may_end_with_its_day():
    venue, symbol = BTC
    for at in ("2021-05-19", "latest", "history"):
        assert Venue.preset(venue, f"{symbol}@{at}") == Venue.preset(venue, symbol, at=at)
    each = Venue.preset(venue, ["BTCUSDT@2021-05-19", "ETHUSDT"], at=None)
    assert {name: one.days()[0] for name, one in each.items()} == {
        "BTCUSDT": "2021-03-18", "ETHUSDT": "2022-12-29"
    }  # fmt: skip


def test_an_override_changes_what_it_names_and_nothing_else():
    venue = Venue.preset(*BTC)
    changed = venue.override({"fees.taker": 4e-4, "margin_multiplier": 2.0}, slippage={"rate": 0.0})
    back = changed.override(
        {"fees.taker": venue.fees.taker, "slippage.rate": 1e-4}, margin_multiplier=1.0
    )
    assert (changed.fees.taker, changed.fees.maker, changed.slippage.rate) == (4e-4, 2e-4, 0.0)
    assert changed.in_force == venue.in_force
    assert back == venue


def test_a_least_notional_does_not_follow_a_contract_into_another_currency():
    """5 USDT are not 5 coins: an inverse contract of a USDT preset has no least notional."""
    venue = Venue.preset("binance-usdm", "BTCUSDT")
    assert venue.override(contract={"kind": "inverse"}).contract.min_notional == 0.0
    assert venue.override({"contract.kind": "spot", "contract.haircut": 0.05,
        "contract.borrow_rate": 0.04, "brackets": [bt.Bracket(0.0, math.inf, 10.0, 0.0)],
    }).contract.min_notional == venue.contract.min_notional  # fmt: skip
    given = venue.override(contract={"kind": "inverse", "min_notional": 0.1})
    assert given.contract.min_notional == 0.1


GOOD = """
[BTCUSDT]
title = "mine"
[BTCUSDT.contract]
date = "2024-01-01"
source = "a"
[BTCUSDT.fees]
date = "2024-01-01"
source = "a"
taker = 0.001
maker = 0.0
[BTCUSDT.slippage]
date = "2024-01-01"
source = "a"
rate = 0.0
[BTCUSDT.liquidation]
date = "2024-01-01"
source = "a"
fee = 0.0
slippage = 0.0
[[BTCUSDT.brackets]]
date = "2024-01-01"
source = "a"
brackets = [{floor = 0, cap = inf, max_leverage = 20, maintenance_rate = 0.01}]
"""


def test_a_file_of_the_user_is_a_venue_too(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    venue = Venue.preset(str(file), "BTCUSDT")
    assert venue.fees.taker == 0.001
    assert venue.in_force.preset == "mine:BTCUSDT"
    file.write_text(GOOD.replace("taker = 0.001", "taker = 0.003"))
    assert Venue.preset(str(file), "BTCUSDT").fees.taker == 0.003


BAD = {
    "no fees": (GOOD.replace("BTCUSDT.fees", "BTCUSDT.fee"), "BTCUSDT.fees: is needed"),
    "no date": (GOOD.replace('date = "2024-01-01"\nsource = "a"\ntaker', 'source = "a"\ntaker'),
                "fees: must have a date"),
    "no source": (GOOD.replace('source = "a"\ntaker', "taker"), "fees: must have a source"),
    "tables out of order": (GOOD + GOOD[GOOD.index("[[BTC"):], "rising dates"),
    "a bracket without a rate": (GOOD.replace(", maintenance_rate = 0.01", ""),
                                 "brackets.0.maintenance_rate: is needed"),
    "no TOML": ("[BTCUSDT", "mine.toml must be TOML"),
    "no symbol": ("", "at least one symbol"),
    "a common entry that is no table": ("common = 5\n" + GOOD, "'common' must be a table"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_name_and_the_rule(tmp_path, name):
    text, words = BAD[name]
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(BacktestError) as caught:
        Venue.preset(str(file), "BTCUSDT")
    assert words in str(caught.value)
    assert "mine" in str(caught.value)


def change(changes=None, **groups):
    return Venue.preset(*BTC).override(changes, **groups)


PAIR, TWICE = "a preset is a venue, a colon and a symbol", "must be changed once, was given twice"
REFUSED = {
    "no date": (lambda: Venue.preset("binance-usdm", "BTCUSDT@"), "must be given once"),
    "two days": (lambda: Venue.preset("binance-usdm", "BTCUSDT@2021-05-19", "2022-01-01"),
        "must be given once"),
    "a day that is none": (lambda: Venue.preset("binance-usdm", "BTCUSDT@soon"), "must be a time"),
    "a number as a name": (lambda: Venue.preset("binance-usdm", ["BTCUSDT", 3]),
        "a list of different names"),
    "no file": (lambda: Venue.preset("nowhere/mine.toml", "BTCUSDT"), "does not exist"),
    "a venue alone": (lambda: preset_files.parse_name("binance"), PAIR),
    "a change given twice": (lambda: change({"fees.taker": 1e-4}, fees={"taker": 2e-4}), TWICE),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize(("text", "name"), [
    ("a@b/mine.toml:BTCUSDT", ("a@b/mine.toml", "BTCUSDT", None)),
    ("a@b/mine.toml:BTCUSDT@2021-05-19", ("a@b/mine.toml", "BTCUSDT", "2021-05-19")),
    ("okx:BTC-USDT-SWAP@2021-05-19T12:00", ("okx", "BTC-USDT-SWAP", "2021-05-19")),
    *((f"binance-usdm:BTCUSDT@{word}", (*BTC, word)) for word in ("history", "latest")),
    ("binance-usdm:BTCUSDT", (*BTC, None)),
])  # fmt: skip
def test_a_name_may_have_a_path_and_a_day(text, name):
    assert preset_files.parse_name(text) == name


def test_rules_that_tell_venues_apart_stand_in_their_presets():
    assert Venue.preset("bybit-linear", "BTCUSDT").maintenance_at == "entry"
    assert Venue.preset("bybit-inverse", "BTCUSD").maintenance_at == "entry"
    assert Venue.preset("okx", "BTC-USDT-SWAP").includes_close_fee
    assert Venue.preset("reg-t", "STOCK").interest_on == "loan"
    assert Venue.preset("reg-t", "STOCK").day_count == 360.0
    hyperliquid = Venue.preset("hyperliquid", "BTC").liquidation
    # hl_partial_liq_20pct: of 250,000 USDC 50,000 are sold; up to 100,000 all of it
    assert hyperliquid.step * 250_000 == pytest.approx(50_000)
    assert hyperliquid.full_below == 100_000


@pytest.mark.parametrize(("symbol", "coins", "index", "initial", "needed"), [
    # Deribit, Linear Perpetual: its examples of initial and maintenance margin
    ("BTC_USDC-PERPETUAL", 25, 100_000, 53_125.0, 28_125.0),
    ("BTC_USDC-PERPETUAL", 350, 100_000, 1_312_500.0, 35e6 * (0.01 + 350 * 5e-5)),
    ("SOL_USDC-PERPETUAL", 25, 200, 200.625, 100.625),
    ("SOL_USDC-PERPETUAL", 6000, 200, 84_000.0, 1.2e6 * (0.02 + 6000 * 5e-6)),
])  # fmt: skip
def test_deribit_asks_for_what_its_examples_ask(symbol, coins, index, initial, needed):
    venue = Venue.preset("deribit", symbol)
    notional = float(coins * index)
    assert bt.margin.maintenance(venue, notional) == pytest.approx(needed, rel=1e-9)
    assert bt.margin.largest_notional(venue, initial) == pytest.approx(notional, rel=1e-9)


def test_deribit_is_never_asked_for_less_than_its_formula_asks():
    venue = Venue.preset("deribit", "BTC_USDC-PERPETUAL")
    coins = np.linspace(0.1, 350.0, 701)
    asked = coins * 1e5 * (0.01 + 5e-5 * coins)
    assert (bt.margin.maintenance(venue, coins * 1e5) >= asked * (1 - 1e-12)).all()


def test_coin_margined_tables_give_the_amounts_of_the_venues_examples():
    old, new = (Venue.preset("binance-coinm", "BTCUSD_PERP", at=d) for d in ("2020-06-11", None))
    assert old.brackets[4].amount == pytest.approx(1.81, abs=1e-12)  # bin_coinm_cum_level5
    assert old.brackets[6].amount == pytest.approx(11.81, abs=1e-12)
    assert new.brackets[6].amount == pytest.approx(11.605, abs=1e-12)
    # bin_coinm_liq_forum, at the table of the day
    price = bt.margin.liquidation_price(new, 100_000.0, 45_000.0, 101.0)
    assert price == pytest.approx(33_599.4, abs=0.05)


def test_the_health_factor_is_one_where_the_lending_market_liquidates():
    # 10,000 of collateral at a threshold of 82.5 % carry a debt of 8,250: the equity is 1,750.
    venue = Venue.preset("lending", "WETH")
    assert bt.margin.maintenance(venue, 10_000.0) == pytest.approx(1_750.0)
    # 5 coins at 2,000 on 2,500 of one's own: a debt of 7,500, liquidated at 7500 / (5 x 0.825)
    price = bt.margin.liquidation_price(venue, 5.0, 2_000.0, 2_500.0)
    assert price == pytest.approx(7_500.0 / (5.0 * 0.825))
    # of each unit of collateral sold 1 / 1.05 repays debt
    assert venue.liquidation.fee == pytest.approx(1.0 - 1.0 / 1.05, abs=1e-10)

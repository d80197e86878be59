"""Venues: derived amounts, equality, what is stored, and the presets by day."""

import copy
import itertools
import json
import math
import pickle
import warnings
from dataclasses import replace
from fractions import Fraction
from math import inf

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Bracket, Contract, Fees, Liquidation, Slippage, Venue, VenueDateWarning
from backtest.margin import read_rules
from backtest.venue import preset_files
from backtest.venue.margin_table import InForce, derive_amounts
from tests.kit import Hold, check_refused, market_of, slow
from tests.scenes import venue_of
from tests.venue import test_vectors as vectors

ROWS = [
    Bracket(0.0, 50_000.0, 100.0, 0.005),
    Bracket(50_000.0, 250_000.0, 50.0, 0.01),
    Bracket(250_000.0, inf, 20.0, 0.025),
]
TABLE = vectors.DATA["tables"]["binance_usdm.BTCUSDT"]
OLDEST = ["the oldest", "is of 2021-03-18", "the run uses it from 2021-01-01"]
VENUE = "binance-usdm"
TABLES = {symbol: read() for symbol, read in preset_files.read_tables(VENUE).items()}
COLUMNS = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")
BTC = ("binance-usdm", "BTCUSDT")
HYPERLIQUID = ("hyperliquid", "BTC")
KRAKEN = ("kraken-futures", "PF_XBTUSD")
ALL = preset_files.available()
LISTED = [preset for preset in ALL if preset.source.startswith("freqtrade ")]
OTHERS = [preset for preset in ALL if preset not in LISTED]
SOME = [*OTHERS, LISTED[0], *slow(LISTED[1:])]
"""Every preset; of those whose tables are listed together, the fast tests take one."""


def by_day(*values: object, start: str = "2021-01-01", tz: str | None = "UTC") -> pd.Series:
    return pd.Series(list(values), index=pd.date_range(start, periods=len(values), tz=tz))


def test_amounts_that_venues_round_are_accepted_and_stored_exact() -> None:
    rows = [ROWS[0], replace(ROWS[1], amount=250.02), replace(ROWS[2], amount=3_999.99)]
    venue = venue_of(brackets=rows)
    assert [row.amount for row in venue.brackets] == [0.0, 250.0, 4_000.0]


def test_published_amounts_are_derived_to_the_last_digit() -> None:
    for name in ("binance_usdm.BTCUSDT", "bybit_linear.BTCUSDT"):
        rows = vectors.DATA["tables"][name]["rows"]
        table = [Bracket(*edges, round(rate, 9)) for *edges, rate, _ in rows]
        assert derive_amounts(table) == [amount for *_, amount in rows]


def test_a_series_is_copied_held_in_utc_and_read_only() -> None:
    mine = by_day(0.01, 0.02, tz="Asia/Tokyo")
    venue = venue_of(interest_on="balance", cash_rate=mine)
    mine.iloc[0] = 9.0

    held = venue.cash_rate
    assert isinstance(held, pd.Series)
    assert held.tolist() == [0.01, 0.02]
    assert held.index[0] == pd.Timestamp("2020-12-31T15:00", tz="UTC")

    for copied in (venue, copy.deepcopy(venue), pickle.loads(pickle.dumps(venue))):
        assert copied == venue
        with pytest.raises(ValueError, match="read-only"):
            copied.cash_rate.iloc[0] = 9.0


def test_venues_are_equal_and_hash_alike_by_content() -> None:
    assert venue_of() == venue_of()
    assert venue_of() != venue_of(day_count=360)
    assert venue_of() != "venue"

    series = venue_of(interest_on="balance", cash_rate=by_day(0.0, 0.01))
    same = venue_of(interest_on="balance", cash_rate=by_day(-0.0, 0.01).rename("other"))
    later = venue_of(interest_on="balance", cash_rate=by_day(0.0, 0.01, start="2021-01-02"))

    assert series == same
    assert hash(series) == hash(same)
    assert len({venue_of(), venue_of(), series, same, later}) == 3


def test_a_simple_venue_has_one_bracket_no_lot_and_the_costs_that_were_said() -> None:
    costs = {"taker": 6e-4, "slippage": 3e-4, "liquidation_fee": 0.01}
    groups = {
        "contract": Contract(kind="linear", lot=0.0, tick=1e-8, min_notional=0.0),
        "brackets": [Bracket(0.0, inf, 50.0, 0.01, 0.0)],
        "fees": Fees(taker=6e-4, maker=6e-4),
        "liquidation": Liquidation(fee=0.01, slippage=3e-4),
    }

    made = Venue.simple(**costs, maintenance_rate=0.01, max_leverage=50)
    assert made == Venue(**groups, slippage=Slippage(rate=3e-4))


def test_the_binance_preset_is_the_published_table() -> None:
    venue = Venue.preset("binance-usdm", "BTCUSDT", at=TABLE["date"])
    assert [list(vars(row).values()) for row in venue.brackets] == TABLE["rows"]
    assert venue.contract == Contract(lot=0.001, tick=0.1, min_notional=100.0, settles="USDT")
    assert venue.fees == Fees(taker=5e-4, maker=2e-4)
    assert venue.liquidation == Liquidation(mode="close", fee=0.0125, slippage=0.002)


def test_a_bracket_holds_a_notional_up_to_its_cap():
    """100x up to 50,000 and 50x beyond: 50,000 / 100, and 50,100 / 50; .5 % each, less 250 of 1 %.
    Maintenance is continuous at the cap: .005 * 50,000 = .01 * 50,000 - 250."""
    venue = venue_of(brackets=ROWS)

    assert bt.margin.initial(venue, 500.0, 100.0) == 500.0
    assert bt.margin.initial(venue, 501.0, 100.0) == 1002.0
    assert bt.margin.requirement(venue, 500.0, 100.0) == 250.0
    assert bt.margin.requirement(venue, 501.0, 100.0) == 251.0

    assert bt.margin.largest_notional(venue, 500.0) == 50_000.0
    doubled = read_rules(venue)._replace(initial_multiplier=2.0)  # 50x, and 25x beyond
    assert bt.margin.largest_notional(doubled, 5_000.0, 40.0) == 50_000.0


@pytest.mark.parametrize("preset", SOME, ids=lambda preset: preset.name)
def test_every_preset_carries_an_account_through_a_market(preset):
    """The books balance at every bar, or run would have raised; half the price kills each."""
    venue = Venue.preset(preset.venue, preset.symbol)
    bracket = venue.brackets[0]
    account = bt.Account(capital=1e-2 * min(bracket.cap, 1e6))
    policy = Hold(0.9 * bracket.max_leverage)

    price = 10_000.0
    if venue.contract.lot and venue.contract.kind == "linear":  # an order of a hundred lots or more
        price = min(price, 0.01 * policy.level * account.capital / venue.contract.lot)
    market = market_of(price * np.array([1.0, 1.0, 1.001, 0.999, 0.5, 0.5]), "1D")

    result = bt.run(market, policy, venue=venue, account=account, compile=False)

    assert (result.events.kind == "liquidation").any()
    assert result.manifest["venue"]["in_force"]["preset"] == preset.name


@pytest.mark.parametrize("preset", SOME, ids=lambda preset: preset.name)
def test_every_table_of_a_preset_builds_and_says_when_and_where_from(preset):
    newest = Venue.preset(preset.venue, preset.symbol, at="latest")
    every = Venue.preset(preset.venue, preset.symbol)
    assert (every == newest) == (len(preset.dates) == 1)
    assert every.days() == preset.dates

    for date in preset.dates:
        venue = Venue.preset(preset.venue, preset.symbol, at=date)
        assert venue.in_force.since == date
        assert Venue.from_dict(json.loads(json.dumps(venue.to_dict()))) == venue

        origins = preset_files.origins(preset.venue, preset.symbol, date)
        assert {origin.group for origin in origins} >= {*preset_files.GROUPS} - {"rules", "funding"}
        for origin in origins:
            assert pd.Timestamp(origin.date) <= pd.Timestamp.now()
            assert len(origin.source) > 20

    last = Venue.preset(preset.venue, preset.symbol, at=preset.dates[-1])
    assert newest.tables() == last.tables()
    assert newest.in_force == last.in_force


def test_an_old_day_has_the_table_of_that_day():
    venue = Venue.preset(*BTC, at="2021-05-19")
    assert [row.cap for row in venue.brackets[:3]] == [50_000.0, 250_000.0, 1_000_000.0]

    name = "binance-usdm:BTCUSDT"
    assert venue.in_force == InForce(preset=name, since="2021-03-18", until="2022-12-29")
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
    for at in ("2021-05-19", "latest"):
        assert Venue.preset(venue, f"{symbol}@{at}") == Venue.preset(venue, symbol, at=at)

    pair = Venue.preset(venue, ["BTCUSDT@2021-05-19", "ETHUSDT"], at=None)
    assert [*pair] == ["BTCUSDT", "ETHUSDT"]
    assert pair["BTCUSDT"].days()[0] == "2021-03-18"
    assert pair["ETHUSDT"].days()[0] == "2022-12-29"


def test_an_override_changes_what_it_names_and_nothing_else():
    venue = Venue.preset(*BTC)

    changed = venue.override({"fees.taker": 4e-4, "margin_multiplier": 2.0}, slippage={"rate": 0.0})
    assert changed.fees.taker == 4e-4
    assert changed.fees.maker == 2e-4
    assert changed.slippage.rate == 0.0
    assert changed.in_force == venue.in_force

    old = {"fees.taker": venue.fees.taker, "slippage.rate": 1e-4}
    back = changed.override(old, margin_multiplier=1.0)
    assert back == venue


def test_a_least_notional_does_not_follow_a_contract_into_another_currency():
    """5 USDT are not 5 coins: an inverse contract of a USDT preset has no least notional."""
    venue = Venue.preset("binance-usdm", "BTCUSDT")

    inverse = venue.override(contract={"kind": "inverse"})
    assert inverse.contract.min_notional == 0.0

    terms_of_spot = {
        "contract.kind": "spot",
        "contract.haircut": 0.05,
        "contract.borrow_rate": 0.04,
        "brackets": [bt.Bracket(0.0, math.inf, 10.0, 0.0)],
    }
    spot = venue.override(terms_of_spot)
    assert spot.contract.min_notional == venue.contract.min_notional

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
    for encoding in ("utf-8-sig", "utf-16"):  # with a byte order mark
        file.write_text(GOOD.replace("taker = 0.001", "taker = 0.0025"), encoding=encoding)
        assert Venue.preset(str(file), "BTCUSDT").fees.taker == 0.0025


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
    (tmp_path / "mine.toml").write_text(text)
    for part in (words, "mine"):
        check_refused(lambda: Venue.preset(str(tmp_path / "mine.toml"), "BTCUSDT"), part)


PAIR = "a preset is a venue, a colon and a symbol"
TWICE = "must be changed once, was given twice"
REFUSED = {
    "no date": (lambda: Venue.preset("binance-usdm", "BTCUSDT@"), "must be given once"),
    "two days": (lambda: Venue.preset("binance-usdm", "BTCUSDT@2021-05-19", "2022-01-01"),
        "must be given once"),
    "a day that is none": (lambda: Venue.preset("binance-usdm", "BTCUSDT@soon"), "must be a time"),
    "a number as a name": (lambda: Venue.preset("binance-usdm", ["BTCUSDT", 3]),
        "a list of different names"),
    "no file": (lambda: Venue.preset("nowhere/mine.toml", "BTCUSDT"), "does not exist"),
    "a venue alone": (lambda: preset_files.parse_name("binance"), PAIR),
    "terms of an unknown venue": (lambda: bt.funding.terms("binance", "BTCUSDT"), "known preset"),
    "a change given twice": (
        lambda: Venue.preset(*BTC).override({"fees.taker": 1e-4}, fees={"taker": 2e-4}), TWICE),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize(("text", "name"), [
    ("a@b/mine.toml:BTCUSDT", ("a@b/mine.toml", "BTCUSDT", None)),
    ("a@b/mine.toml:BTCUSDT@2021-05-19", ("a@b/mine.toml", "BTCUSDT", "2021-05-19")),
    ("okx:BTC-USDT-SWAP@2021-05-19T12:00", ("okx", "BTC-USDT-SWAP", "2021-05-19")),
    ("binance-usdm:BTCUSDT@latest", (*BTC, "latest")),
    ("binance-usdm:BTCUSDT", (*BTC, None)),
])  # fmt: skip
def test_a_name_may_have_a_path_and_a_day(text, name):
    assert preset_files.parse_name(text) == name


def test_rules_that_tell_venues_apart_stand_in_their_presets():
    assert Venue.preset("bybit-inverse", "BTCUSD").maintenance_at == "entry"
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
    # its notice of 11 January 2022: 2 % and 1 %, and .005 % per BTC or .0004 % per ETH, in coins
    ("BTC-PERPETUAL", 100, 1, 100 * (0.02 + 100 * 5e-5), 100 * (0.01 + 100 * 5e-5)),
    ("ETH-PERPETUAL", 1000, 1, 1000 * (0.02 + 1000 * 4e-6), 1000 * (0.01 + 1000 * 4e-6)),
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

    in_coins = Venue.preset("deribit", "BTC-PERPETUAL")
    assert (bt.margin.maintenance(in_coins, coins) >= asked / 1e5 * (1 - 1e-12)).all()


def test_coin_margined_tables_give_the_amounts_of_the_venues_examples():
    old = Venue.preset("binance-coinm", "BTCUSD_PERP", at="2020-06-11")
    new = Venue.preset("binance-coinm", "BTCUSD_PERP")

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


def test_a_preset_has_the_tables_of_all_days_unless_one_is_asked_for():
    venue = Venue.preset(*BTC)

    assert venue.days() == ("2021-03-18", "2022-12-29", "2024-10-24", "2026-09-29")
    days = ("2021-05-19", "2023-01-01", "2024-10-24", "latest")
    assert venue.tables() == tuple(Venue.preset(*BTC, at=day).brackets for day in days)
    assert venue.in_force == InForce(preset="binance-usdm:BTCUSDT", since="2021-03-18")


def live(start: str, venue: Venue, leverage: float = 0.5) -> bt.Result:
    """Run five days at a price of 100 from a day on."""
    market = market_of(np.full(5, 100.0), "1D", start=start)
    return bt.run(market, Hold(leverage), venue=venue, account=bt.Account(), compile=False)


@pytest.mark.parametrize(("start", "at", "used", "words"), [
    # first day, day of the preset, tables used as (of, from, bars), words of the warning
    ("2021-01-01", None, [("2021-03-18", "2021-01-01", 5)], OLDEST),
    ("2021-01-01", "2021-01-01", [("2021-03-18", "2021-01-01", 5)], OLDEST[1:]),
    ("2021-01-01", "latest", [("2026-09-29", "2021-01-01", 5)], ["is of 2026-09-29", *OLDEST[2:]]),
    ("2024-10-22", "2024-10-22", [("2022-12-29", "2024-10-22", 5)],
     ["is of 2022-12-29", "replaced on 2024-10-24"]),
    ("2021-05-19", None, [("2021-03-18", "2021-05-19", 5)], []),
    ("2025-01-01", None, [("2024-10-24", "2025-01-01", 5)], []),
    ("2024-10-22", None, [("2022-12-29", "2024-10-22", 2), ("2024-10-24", "2024-10-24", 3)], []),
])  # fmt: skip
def test_a_run_says_once_which_table_was_used_at_which_bars(tmp_path, start, at, used, words):
    """In the manifest, and with a warning outside the days of the table."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = live(start, Venue.preset(*BTC, at=at))

    told = [warning for warning in caught if issubclass(warning.category, VenueDateWarning)]
    assert len(told) == (1 if words else 0)
    for warning in told:
        assert warning.filename == __file__
        said = str(warning.message)
        margin_table = result.manifest["margin_table"]
        assert all(word in said for word in (*words, "@DATE", margin_table))
        assert margin_table.lower() in " ".join(result.summary().split()).lower()

    rows = [{"of": of, "from": first, "bars": bars} for of, first, bars in used]
    kept = bt.Result.load(result.save(tmp_path))
    assert result.manifest["margin_tables"] == rows
    assert kept.manifest["margin_tables"] == rows


@pytest.mark.filterwarnings("ignore::backtest.VenueDateWarning")
@pytest.mark.parametrize("start", ["2020-01-01", "2024-10-22", "2025-01-01"])
def test_other_brackets_take_the_place_of_the_tables_of_all_days(start):
    rows = [bt.Bracket(0.0, math.inf, 10.0, 0.05)]
    all_days = Venue.preset(*BTC).override(brackets=rows)
    one = Venue.preset(*BTC, at="latest").override(brackets=rows)

    assert all_days == one
    ratio = live(start, all_days).bars["margin_ratio"].iloc[-1]
    assert ratio == pytest.approx(0.05 * 0.5, rel=1e-3)


def rate_of(its: bt.funding.FundingTerms, premium: float) -> float:
    """The rate of one settlement: the premium, drawn to the interest by at most the clamp."""
    drawn = premium + np.clip(its.interest - premium, -its.clamp, its.clamp)
    share = pd.Timedelta(its.interval) / pd.Timedelta(its.period)
    return float(np.clip(drawn * share, -its.cap, its.cap))


DOLLARS = bt.Contract(kind="inverse", size=1.0)
FUNDING = {
    # preset, premium, rate, and size and payment where the source has one
    # within the clamp the rate is the interest
    **{f"bin_funding_clamp_5 and _6, {premium}": (BTC, premium, rate, None)
       for premium, rate in ((6e-4, 1e-4), (-4e-4, 1e-4), (1.2e-3, 7e-4), (-1e-3, -5e-4))},
    # an eighth of the rate of 8 hours, on the oracle's price of 10,000
    **{f"hl_funding_3 to _5, {premium}": (HYPERLIQUID, premium, rate, (size, paid))
       for size, premium, rate, paid in ((-10, -8e-4, -3.75e-5, 3.75), (5, 0.01, 0.0011875, 59.375),
                                         (1, 0.0, 1.25e-5, 0.125))},
    "the cap of an hour": (HYPERLIQUID, 1.0, 0.04, None),
    "a 24th of the premium each hour": (KRAKEN, 0.0012, 0.0012 / 24, None),
    "up to a quarter percent": (KRAKEN, 0.5, 0.0025, None),
}  # fmt: skip


@pytest.mark.parametrize(("preset", "premium", "rate", "payment"), FUNDING.values(), ids=[*FUNDING])
def test_funding_of_a_premium(preset, premium, rate, payment):
    found = rate_of(bt.funding.terms(*preset), premium)

    assert found == pytest.approx(rate, rel=1e-12, abs=1e-15)
    if payment is not None:
        size, paid = payment
        contract = Venue.preset(*preset).contract
        assert bt.funding.payment(contract, size, 10_000, found) == pytest.approx(paid, abs=1e-9)


def test_a_broker_has_no_terms_of_funding():
    assert bt.funding.terms("reg-t", "STOCK") is None


@pytest.mark.parametrize(("mark", "damper", "hours", "usd", "rate", "paid"), [
    (9990, None, 4.0, 50_000, -0.00075, -0.001875),
    (10_010, 0.0005, 1 / 60, 10_000, 0.0005, 1.0416666666666667e-06),
])  # fmt: skip
def test_deribit_funding_is_damped_and_paid_by_time(mark, damper, hours, usd, rate, paid):
    """deribit_funding_3 and _4: the second by the damper of older documents; in the coin."""
    its = bt.funding.terms("deribit", "BTC_USDC-PERPETUAL")
    if damper is not None:
        its = its.override(clamp=damper)

    found = 8.0 * rate_of(its, (mark - 10_000) / 10_000)
    assert found == pytest.approx(rate, abs=1e-14)
    payment = bt.funding.payment(DOLLARS, usd, 10_000, found * hours / 8)
    assert payment == pytest.approx(paid, abs=1e-14)


def test_the_costs_of_a_day():
    contract = Venue.preset(*BTC).contract
    paid = bt.funding.payment(contract, 1.0, 20_000.0, np.full(3, 1e-4))
    assert paid.sum() == pytest.approx(6.0, abs=1e-9)  # bin_funding_day_cost
    # thalex_funding: a premium of 0.2 % in a day, 4 coins for 3 hours, no damper
    rate = 100 / 50_000 * 3 / 24
    assert bt.funding.payment(contract, 4.0, 50_000.0, rate) == pytest.approx(50.0, abs=1e-9)

    # kraken_funding_abs_rate: per contract of 1 USD, in the coin
    paid = bt.funding.payment(DOLLARS, 1.0, 7_000, 0.0005)
    assert paid == pytest.approx(7.142e-8, rel=1e-3)


FREQTRADE = "freqtrade/freqtrade, tests/freqtradebot/test_freqtradebot.py, test_execute_entry"
DYDX = (
    "dydxprotocol/v4-documentation, docs/pages/concepts/trading/liquidations.mdx at "
    "df2cc995218196355dacc139d6695536947c0e7e"
)

PUBLISHED_PRICES = {
    "dydx, isolated short of 3 ETH": (("dydx", "BTC-USD"), 0.05, -3.0, 3_000.0, 1_000.0,
         3_174.60, 2, DYDX),
    # the requirement of the other position, 175, backs nothing
    "dydx, short of 1.5 ETH beside another position": (("dydx", "BTC-USD"), 0.05, -1.5, 3_000.0,
         1_000.0 - 175.0, 3_380.95, 2, DYDX),
    "okx, long at 5x": (("okx", "BTC-USDT-SWAP"), 0.01, 1.0, 10.0, 2.0,
         8.085708510208207, 12, FREQTRADE),
    "bybit, long at 5x": (("bybit-linear", "BTCUSDT"), 0.01, 1.0, 10.0, 2.0, 8.1, 9, FREQTRADE),
    "bybit, short at 5x": (("bybit-linear", "BTCUSDT"), 0.01, -1.0, 10.0, 2.0, 11.9, 9,
         FREQTRADE),
    "broker, long of 20 at 40 %": (("reg-t", "STOCK"), 0.25, 1.0, 20.0, 8.0, 16.0, 9,
         "analystforum.com/t/margin-call/96666"),
    "broker, long of 40 at 60 %": (("reg-t", "STOCK"), 0.25, 1.0, 40.0, 24.0, 21.33, 2,
         "sapling.com/6522069/calculate-maintenance-margin"),
    "broker, long of 20 at 60 %": (("reg-t", "STOCK"), 0.20, 1.0, 20.0, 12.0, 10.0, 9,
         "gradestack.com, Review CFA Level 1, Margin Calls"),
    "broker, short of 40 at 50 %": (("reg-t", "STOCK"), 0.30, -1.0, 40.0, 20.0, 46.15, 2,
         "analystforum.com/t/margin-call-price-for-short-sales/25013"),
    "broker, short of 50 at 40 %": (("reg-t", "STOCK"), 0.30, -1.0, 50.0, 20.0, 53.8462, 4,
         "analystforum.com/t/margin-call-for-short-position/12606"),
    # collateral at a threshold of 80 % and 85 %: the rate is what the threshold leaves
    "loan of 2,250 against 1 ETH at 3,000": (("lending", "WETH"), 0.20, 1.0, 3_000.0, 750.0,
         2_812.5, 1,
         "lemonwheel.com/defi/help-understanding-liquidation-treshold-with-actual-numbers"),
    # the page has no price at which the loan was sound: it is that of the debt, whatever was paid
    "loan of 10,000 against 5 ETH": (("lending", "WETH"), 0.20, 5.0, 2_600.0, 3_000.0,
         2_500.0, 6, "cryptomaa.com/how-to-calculate-aave-liquidation-price"),
}  # fmt: skip
"""Preset; maintenance rate of the page; quantity, entry, and what stands behind it there; price and
how many decimals the page prints; source."""


@pytest.mark.parametrize("name", PUBLISHED_PRICES)
def test_a_published_price_is_that_of_the_preset(name):
    """At the page's rate, and at the taker fee of OKX's, which alone includes one."""
    preset, rate, quantity, entry, backing, price, digits, _ = PUBLISHED_PRICES[name]
    rows = [Bracket(0.0, math.inf, 0.9 / rate, rate)]
    fees = Fees(taker=0.0006, maker=0.0006)
    venue = Venue.preset(*preset).override(brackets=rows, fees=fees, contract=Contract(lot=0.0))

    found = bt.margin.liquidation_price(venue, quantity, entry, backing)
    assert found == pytest.approx(price, abs=0.51 * 10.0**-digits)

    valued_at = entry if venue.maintenance_at == "entry" else found
    needed = bt.margin.maintenance(venue, abs(quantity) * valued_at)
    assert backing + quantity * (found - entry) == pytest.approx(needed, rel=1e-9)


@pytest.mark.parametrize(("rate", "coins", "price", "debt", "factor", "digits", "source"), [
    (0.20, 1.0, 10_000.0, 6_000.0, 1.333, 3, "aave.com/help/borrowing/liquidations"),
    (0.15, 0.5, 600.0, 200.0, 1.275, 3,
     "lemonwheel.com/defi/help-understanding-aaves-automatic-liquidation-threshold"),
])  # fmt: skip
def test_a_published_health_factor_is_that_of_liquidation(
    rate, coins, price, debt, factor, digits, source
):
    assert source
    rows = [bt.Bracket(0.0, math.inf, 1.0 / rate, rate)]
    venue = bt.Venue.preset("lending", "WETH").override(brackets=rows)
    found = bt.margin.liquidation_price(venue, coins, price, coins * price - debt)
    assert price / found == pytest.approx(factor, abs=0.51 * 10.0**-digits)


@pytest.mark.parametrize(("symbol", "day", "rows"), [
    # cap, largest leverage, maintenance rate, amount
    ("ADAUSDT", "2026-09-29", [
        (10_000, 75, 0.005, 0), (50_000, 50, 0.01, 50), (200_000, 40, 0.015, 300),
        (1_000_000, 25, 0.02, 1_300), (2_000_000, 20, 0.025, 6_300),
        (10_000_000, 10, 0.05, 56_300), (20_000_000, 5, 0.1, 556_300),
        (25_000_000, 4, 0.125, 1_056_300), (50_000_000, 2, 0.25, 4_181_300),
        (100_000_000, 1, 0.5, 16_681_300)]),
    ("SOLUSDT", "2024-10-31", [
        (20_000, 100, 0.005, 0), (100_000, 75, 0.0065, 30), (800_000, 50, 0.01, 380),
        (4_000_000, 25, 0.02, 8_380), (8_000_000, 20, 0.025, 28_380),
        (40_000_000, 10, 0.05, 228_380), (80_000_000, 5, 0.1, 2_228_380),
        (100_000_000, 4, 0.125, 4_228_380), (200_000_000, 2, 0.25, 16_728_380),
        (400_000_000, 1, 0.5, 66_728_380)]),
    ("MATICUSDT", "2022-12-29", [
        (50_000, 25, 0.01, 0), (150_000, 20, 0.025, 750), (250_000, 10, 0.05, 4_500),
        (500_000, 5, 0.1, 17_000), (750_000, 4, 0.125, 29_500), (1_000_000, 2, 0.25, 123_250),
        (8_000_000, 1, 0.5, 373_250)]),
])  # fmt: skip
def test_a_table_has_the_figures_of_its_source(symbol, day, rows):
    found = bt.Venue.preset(VENUE, f"{symbol}@{day}").brackets
    assert [(r.cap, r.max_leverage, r.maintenance_rate, r.amount) for r in found] == rows


@pytest.mark.parametrize("symbol", TABLES)
def test_the_requirement_of_each_table_has_no_jump_and_rises(symbol):
    """At every cap r_k N - c_k = r_{k+1} N - c_{k+1}, with the amounts as published, exactly."""
    for table in TABLES[symbol].brackets:
        rows = [[Fraction(repr(row[name])) for name in COLUMNS] for row in table["brackets"]]
        assert rows[0][0] == 0
        assert rows[0][4] == 0

        for lower, upper in itertools.pairwise(rows):
            _, cap, most, rate, amount = lower
            floor, _, least, higher, more = upper
            assert floor == cap
            assert higher > rate
            assert least <= most
            assert rate * cap - amount == higher * cap - more

        preset = bt.Venue.preset(VENUE, symbol, at=table["date"])
        assert preset.in_force.since == table["date"]


def test_a_position_in_ada_is_liquidated_where_the_table_says():
    # 500,000 coins at 0.60 are 300,000: 2 % of it less 1,300. On 30,000 the long falls to
    # (300,000 - 30,000 - 1,300) / (500,000 x 0.98)
    venue = bt.Venue.preset(VENUE, "ADAUSDT@2026-09-29")
    assert bt.margin.maintenance(venue, 300_000.0) == pytest.approx(4_700.0, rel=1e-12)

    price = bt.margin.liquidation_price(venue, 500_000.0, 0.60, 30_000.0)
    assert price == pytest.approx((270_000.0 - 1_300.0) / (500_000.0 * 0.98), rel=1e-12)
    assert math.isclose(bt.margin.largest_notional(venue, 12_000.0), 300_000.0)


@pytest.mark.parametrize(("symbol", "near"), [
    ("COMPUSDT", ""), ("BCTUSDT", "BTCUSDT"), ("BTCUSD", "BTCUSDT"), ("btcusdt", "BTCUSDT"),
])  # fmt: skip
def test_another_coin_is_no_slip_of_a_symbol(symbol, near):
    """COMP is a coin of its own, and OPUSDT is alike by its end alone."""
    with pytest.raises(bt.VenueError) as caught:
        bt.Venue.preset("binance-usdm", symbol)
    said = str(caught.value)
    assert "--venue file:LISTING.json" in said
    assert "--venue auto" in said
    assert ("did you mean" in said) == bool(near)
    assert not near or f"did you mean {near!r}?" in said

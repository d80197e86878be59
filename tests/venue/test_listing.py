"""A venue from its own listing: what exchanges and tools write, read as rules.

``data/listing_tiers.json`` has the tiers of eight symbols as freqtrade 2026.9 ships them
(freqtrade/exchange/binance_leverage_tiers.json, of 2026-09-29: figures of the venue).
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest.venue import listing, preset_files
from backtest.venue.listing import name_plainly
from tests.kit import check_refused, market_of

FILE = Path(__file__).parents[1] / "data" / "listing_tiers.json"
DAY = "2026-09-29"
TIERS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))

PNUT = "PNUT/USDT:USDT"
MARKET = {
    "id": "PNUTUSDT", "symbol": PNUT, "base": "PNUT", "quote": "USDT", "settle": "USDT",
    "spot": False, "swap": True, "contract": True, "linear": True, "inverse": False,
    "taker": 0.0004, "maker": 0.00018, "contractSize": 1.0, "expiry": None,
    "precision": {"amount": 1.0, "price": 0.00001},
    "limits": {"amount": {"min": 1.0, "max": 1e7}, "cost": {"min": 5.0}},
    "info": {},
}  # fmt: skip
"""As ccxt 4.5.64, ``binance.parse_market``, writes a perpetual."""
ENTRY = {
    "symbol": "PNUTUSDT", "pair": "PNUTUSDT", "contractType": "PERPETUAL", "status": "TRADING",
    "deliveryDate": 4133404800000, "baseAsset": "PNUT", "quoteAsset": "USDT",
    "marginAsset": "USDT", "liquidationFee": "0.012500",
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.00001", "tickSize": "0.00001"},
        {"filterType": "LOT_SIZE", "minQty": "1", "stepSize": "1"},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "1", "stepSize": "1"},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
    ],
}  # fmt: skip
"""As Binance's ``exchangeInfo`` writes one."""


def read(source: Any, symbol: str = PNUT, **terms: Any) -> bt.Venue:
    return bt.Venue.read(source, symbol, **terms)


def change_tier(k: int, **fields: Any) -> dict[str, Any]:
    """Return the tiers of one symbol with fields of its k-th tier changed, without the amounts."""
    rows = copy.deepcopy(TIERS[PNUT])
    for row in rows:
        row["info"] = {}
    rows[k].update(fields)
    return {PNUT: rows}


@pytest.mark.parametrize("symbol", [symbol for symbol in TIERS if symbol != PNUT])
def test_the_tiers_of_another_tool_are_the_table_of_the_preset_to_the_bit(symbol):
    venue = read(TIERS, symbol, date=DAY)
    preset = bt.Venue.preset("binance-usdm", f"{name_plainly(symbol)}@{DAY}")

    assert venue.brackets == preset.brackets
    assert venue.override({"in_force": None}) == preset.override({"in_force": None})
    assert venue.in_force.since == DAY


def test_a_symbol_of_no_preset_has_the_rules_of_the_preset_and_its_own_brackets():
    venue = read(FILE, date=DAY)
    like = bt.Venue.preset("binance-usdm", "BTCUSDT@latest")

    assert [row.max_leverage for row in venue.brackets][:2] == [50.0, 20.0]
    assert venue.liquidation == like.liquidation
    assert venue.slippage == like.slippage
    assert venue.fees == like.fees

    assert venue.contract.unknown == ("lot", "tick", "min_notional")
    assert venue.contract.size == 1.0
    assert venue.contract.settles == "USDT"

    source = venue.in_force
    assert source.preset == "listing_tiers.json#PNUTUSDT"
    assert source.symbol == "PNUTUSDT"
    assert source.like == "binance-usdm:BTCUSDT"
    assert source.listed[0] == "brackets"

    assert bt.Venue.from_dict(venue.to_dict()) == venue


@pytest.mark.parametrize("name", [PNUT, "PNUTUSDT"])
@pytest.mark.parametrize("part", ["markets", "exchangeInfo"])
def test_markets_and_tiers_are_read_together_by_either_name(part, name):
    listed = {"markets": {PNUT: MARKET}, "exchangeInfo": {"symbols": [ENTRY]}}[part]
    venue = read({part: listed, "tiers": TIERS, "time": "2026-09-30T00:00Z"}, name)
    contract = venue.contract
    assert contract.kind == "linear"
    assert contract.size == 1.0
    assert contract.settles == "USDT"
    assert contract.lot == 1.0
    assert contract.tick == 0.00001
    assert contract.min_notional == 5.0
    assert contract.unknown == ()
    assert venue.in_force.since == "2026-09-30"
    assert venue.fees.taker == (0.0004 if part == "markets" else 0.0005)


def test_brackets_of_binance_are_those_of_ccxt():
    rows = [row["info"] for row in TIERS[PNUT]]
    exchange_info = {"symbols": [ENTRY]}
    brackets = [{"symbol": "PNUTUSDT", "brackets": rows}]

    venue = read({"exchangeInfo": exchange_info, "leverageBracket": brackets})

    assert venue.brackets == read(TIERS).brackets
    assert read(brackets, "PNUTUSDT").brackets == venue.brackets

    scaled = [{"symbol": "PNUTUSDT", "brackets": rows, "notionalCoef": 1.5}]
    said = "PNUTUSDT.notionalCoef: must be 1"
    check_refused(lambda: read(scaled, "PNUTUSDT"), said, bt.VenueError)


def test_coins_bound_and_settle_an_inverse_contract():
    entry = {**ENTRY, "symbol": "BTCUSD_PERP", "baseAsset": "BTC", "quoteAsset": "USD",
             "marginAsset": "BTC", "contractSize": 100}  # fmt: skip
    row = {"bracket": 1, "initialLeverage": 125, "qtyCap": 5, "qtyFloor": 0,
           "maintMarginRatio": 0.004, "cum": 0}  # fmt: skip
    given = {
        "exchangeInfo": {"symbols": [entry]},
        "leverageBracket": [{"symbol": "BTCUSD_PERP", "brackets": [row]}],
    }

    venue = read(given, "BTCUSD_PERP", like="binance-coinm")

    assert venue.contract.kind == "inverse"
    assert venue.contract.size == 100.0
    assert venue.contract.settles == "BTC"
    assert venue.brackets[0].cap == 5.0
    assert venue.contract.min_notional == 5.0


@pytest.mark.parametrize(("precision", "least", "lot", "tick"), [
    ({"amount": 0.1, "price": 0.001}, 0.1, 0.1, 0.001),
    ({"amount": 3, "price": 2}, 0.001, 0.001, 0.01),  # decimals: a step over the smallest order
    ({"amount": 0, "price": 4}, 1.0, 1.0, 0.0001),
    ({"amount": 10.0, "price": 0.5}, 10.0, 10.0, 0.5),
    ({"amount": None, "price": None}, None, None, None),
])  # fmt: skip
def test_a_precision_of_decimals_is_told_from_a_step(precision, least, lot, tick):
    market = {**MARKET, "precision": precision, "limits": {"amount": {"min": least}}}
    contract = read({"markets": {PNUT: market}, "tiers": TIERS}).contract
    if lot is None:
        assert contract.lot is None
        assert contract.tick is None
    else:
        assert contract.lot == pytest.approx(lot, rel=1e-12)
        assert contract.tick == pytest.approx(tick, rel=1e-12)


def test_orders_are_whole_multiples_of_a_smallest_order_over_the_lot():
    entry = copy.deepcopy(ENTRY)
    entry["filters"][1]["minQty"] = "3"
    entry["filters"][2]["minQty"] = "3"

    contract = read({"exchangeInfo": {"symbols": [entry]}, "tiers": TIERS}).contract

    assert contract.lot == 1.0
    assert contract.min_quantity == 3.0
    assert contract.order_step == 3.0


@pytest.mark.parametrize("form", ["MIN_NOTIONAL", "NOTIONAL", "limits.cost", "minNotionalValue"])
def test_orders_under_the_listed_least_notional_are_none_but_those_that_close(form):
    """1,000 at a price of 1: 60 is under 100; 600 is not, nor a change by 60 of it; 0 closes 90."""
    entry = copy.deepcopy(ENTRY)
    market = copy.deepcopy(MARKET)

    market["limits"]["cost"] = {"min": None}
    given: dict[str, Any] = {"tiers": TIERS}
    if "NOTIONAL" in form:
        name = {"MIN_NOTIONAL": "notional", "NOTIONAL": "minNotional"}[form]
        entry["filters"][3] = {"filterType": form, name: "100"}
        given["exchangeInfo"] = {"symbols": [entry]}
    elif form == "limits.cost":
        market["limits"]["cost"] = {"min": 100.0}
        given["markets"] = {PNUT: market}
    else:
        market["info"] = {"lotSizeFilter": {"minNotionalValue": "100"}}
        given["markets"] = {PNUT: market}
    free = {"fees.taker": 0.0, "slippage.rate": 0.0}

    venue = read(given).override(free)
    assert venue.contract.min_notional == 100.0

    targets = [0.06, 0.6, 0.66, 0.54, 0.09, 0.0, 0.0]
    bars = market_of(np.ones(7)).with_columns(target=targets)
    account = bt.Account(capital=1_000, band=0.0)

    result = bt.run(bars, Follow(), venue=venue, account=account, compile=False)

    assert result.bars["position"].tolist() == [0, 0, 600, 600, 600, 90, 0]
    assert "min_notional" in result.target_cuts().to_string()


class Follow(bt.Policy):
    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target


@pytest.mark.parametrize(("given", "said"), [
    (change_tier(1, minNotional=6000.0), "brackets.1.floor: must be 5000, the cap before it"),
    (change_tier(1, minNotional=4000.0), "brackets.1.floor: must be 5000, the cap before it"),
    (change_tier(1, maintenanceMarginRate=0.001), "brackets.1.maintenance_rate: must be over"),
    (change_tier(1, maxLeverage=60, maintenanceMarginRate=0.016),
     "brackets.1.max_leverage: must be at most 50"),
    (change_tier(0, maxNotional=0.0), "brackets.0.cap: must be over 0"),
    (change_tier(0, maintenanceMarginRate=None), "brackets.0.maintenance_rate: is needed"),
    (change_tier(0, maxLeverage="much"), "maxLeverage: must be a number, got 'much'"),
    (change_tier(2, info={"cum": 999.0}), "brackets.2.amount: must be 300.0, derived"),
    (change_tier(0, info={"minSz": "0", "maxSz": "10"}),
     "brackets.0.floor: must be a notional, OKX"),
    ({PNUT: []}, "brackets: are needed, the listing has no tiers of it"),
    ({"markets": {PNUT: MARKET}}, "brackets: are needed"),
    ({"markets": {PNUT: {**MARKET, "contractSize": 0}}, "tiers": TIERS},
     "contract.size: must be over 0, got 0"),
    ({"markets": {PNUT: {**MARKET, "spot": True}}, "tiers": {}}, "is a spot market"),
    ({"a": 1}, "a listing must be ccxt's load_markets()"),
    ([], "a listing must be"), (7, "a listing must be a path"),
    ("nowhere.json", "listing 'nowhere.json' does not exist"),
])  # fmt: skip
def test_a_bad_listing_is_refused_by_the_field(given, said):
    check_refused(lambda: read(given), said, bt.BacktestError)


OF_CCXT = [
    ("BTC/USDT:USDT", 0.1, 63000.5, 630.005, 56928.2),
    ("BTC/USDT:USDT", -0.05, 63000.5, 157.50125, 65887.0),
    ("ADA/USDT:USDT", 12_000.0, 0.4321, 1037.04, 0.3474),
    ("ADA/USDT:USDT", -9_000.0, 0.4321, 486.1125, 0.4837),
    (PNUT, 8_000.0, 0.25, 500.0, 0.19036),
    ("KSM/USDT:USDT", -150.0, 20.5, 512.5, 23.563),
]
"""Symbol, contracts, entry, isolated wallet and the liquidation price that ccxt 4.5.64 gives,
``binance.parse_account_position`` on these tiers, rounded to the tick. It knows no cumulative
amounts, so the positions stay in one bracket, of the first or of a rate whose amount is small."""


@pytest.mark.parametrize(("symbol", "quantity", "entry", "wallet", "price"), OF_CCXT)
def test_liquidation_prices_are_those_of_ccxt_to_its_tick(symbol, quantity, entry, wallet, price):
    venue = read(TIERS, symbol)
    ours = bt.margin.liquidation_price(venue, quantity, entry, wallet)

    # theirs has no cumulative amount
    row = next(row for row in TIERS[symbol] if abs(quantity) * ours <= row["maxNotional"])
    amount = row["info"]["cum"]
    rate = row["maintenanceMarginRate"]
    side = 1.0 if quantity > 0.0 else -1.0
    ours_without_amount = ours + amount / (abs(quantity) * (1.0 - side * rate)) * side

    tick = {"BTC": 0.1, "ADA": 1e-4, "PNU": 1e-5, "KSM": 1e-3}[symbol[:3]]
    assert ours_without_amount == pytest.approx(price, abs=0.51 * tick)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize(("symbol", "entry", "notional", "leverage"), [
    ("BTC/USDT:USDT", 65_000.0, 290_000.0, 10.0), ("BTC/USDT:USDT", 65_000.0, 805_000.0, 8.0),
    ("BTC/USDT:USDT", 65_000.0, 3_100_000.0, 5.0), ("ETH/USDT:USDT", 2_500.0, 9e6, 6.0),
    ("ADA/USDT:USDT", 0.5, 120_000.0, 4.0), ("DOGE/USDT:USDT", 0.2, 1.1e6, 3.0),
    ("SOL/USDT:USDT", 150.0, 2.2e6, 5.0), ("1000PEPE/USDT:USDT", 0.012, 240_000.0, 7.0),
    ("KSM/USDT:USDT", 20.0, 24_000.0, 3.0), (PNUT, 0.3, 45_000.0, 2.0),
])  # fmt: skip
def test_liquidation_prices_follow_the_published_formula_across_brackets(
    symbol, entry, notional, leverage, side
):
    """LP = (W + cum - s q E) / (q (m - s)), the bracket that holds q LP: Binance's own formula,
    which freqtrade's ``dry_run_liquidation_price`` has too, with the figures of the venue."""
    quantity = notional / entry
    wallet = notional / leverage

    inside = []
    for row in TIERS[symbol]:
        rate = row["maintenanceMarginRate"]
        amount = row["info"]["cum"]
        price = (wallet + amount - side * quantity * entry) / (quantity * (rate - side))
        if row["minNotional"] < quantity * price <= row["maxNotional"]:
            inside.append(price)

    (expected,) = inside
    ours = bt.margin.liquidation_price(read(TIERS, symbol), side * quantity, entry, wallet)
    assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("asked", "nearest"), [
    ("PNUTT/USDT:USDT", "'PNUT/USDT:USDT'"), ("pnutusdt", "'PNUT/USDT:USDT'"),
    ("ADAUST", "'ADA/USDT:USDT'"), ("QQQQ", "it has 8 others"),
])  # fmt: skip
def test_an_unknown_symbol_is_refused_with_the_nearest_names(asked, nearest):
    with pytest.raises(bt.VenueError, match="symbol must be listed") as caught:
        read(TIERS, asked)
    assert nearest in str(caught.value)


def test_a_contract_whose_size_nothing_says_is_refused():
    """OKX's contracts are of .01 BTC and .1 ETH: that of another coin cannot be guessed."""
    check_refused(lambda: read(TIERS, like="okx"), "contract.size: is needed", bt.VenueError)


def test_a_folder_of_dated_listings_is_a_table_by_date(tmp_path):
    older = change_tier(0, maxLeverage=40.0)
    for name, tiers in ((f"tiers-{DAY}.json", TIERS), ("2025-01-01.json", older)):
        (tmp_path / name).write_text(json.dumps(tiers), encoding="utf-8")
    of_another = {"X/USDT:USDT": TIERS[PNUT]}
    (tmp_path / "2024-01-01.json").write_text(json.dumps(of_another), encoding="utf-8")

    venue = read(tmp_path)
    assert venue.days() == ("2025-01-01", DAY)
    assert [table[0].max_leverage for table in venue.tables()] == [40.0, 50.0]
    assert read(tmp_path, date="2025-06-01").brackets[0].max_leverage == 40.0
    assert read(tmp_path, date="latest").brackets[0].max_leverage == 50.0

    assert venue.earlier[0].until == DAY

    # of 2023: before any table
    bars = bt.Market.sample(bars=30).bars()
    market = bt.Market.from_frames(bars, instrument="PNUTUSDT")

    said = venue.describe_misfit(market.start, market.end)
    assert "is of 2025-01-01, but the run uses it from 2023-01-01 on" in said

    (tmp_path / "tiers.json").write_text(json.dumps(TIERS), encoding="utf-8")
    check_refused(lambda: read(tmp_path), "must have a day in its name or content", bt.VenueError)


def test_a_listing_with_a_day_takes_no_other():
    dated = {"tiers": TIERS, "time": f"{DAY}T12:00Z"}
    assert read(dated, date=DAY).in_force.since == DAY
    check_refused(lambda: read(dated, date="2024-01-01"), "date must be left out", bt.VenueError)


def test_a_text_names_file_symbol_and_preset():
    text = f"file:{FILE}#{PNUT}?like=binance-usdm&date={DAY}"

    test = bt.Backtest(bt.Market.sample(bars=30), venue=text, account=bt.Account())
    assert test.venue == read(FILE, date=DAY)

    misspelt = "file:a.json#B?lke=c"
    said = "did you mean 'like'"
    check_refused(lambda: listing.parse_listing_name(misspelt), said, bt.ParameterError)

    assert "file" not in preset_files.find_files()


def test_funding_terms_have_the_interval_and_the_cap_of_the_symbol():
    row = {"symbol": "PNUTUSDT", "adjustedFundingRateCap": "0.02000000",
           "adjustedFundingRateFloor": "-0.01000000", "fundingIntervalHours": 4}  # fmt: skip
    given = {"tiers": TIERS, "fundingInfo": [row], "time": f"{DAY}T00:00Z"}

    terms = bt.funding.read_terms(given, PNUT)

    assert terms.interval == "4h"
    assert terms.cap == 0.02
    assert terms.least == -0.01
    assert terms.date == DAY
    assert terms.interest == 0.0001
    assert terms.clamp == 0.0005

    general = bt.funding.read_terms(TIERS, PNUT)
    assert general.interval == "8h"
    assert general.cap == float("inf")

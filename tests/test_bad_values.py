"""Bad fields of declared values: each is refused with its dotted place, its rule and the value."""

from math import inf, nan
from typing import Any, cast

import pandas as pd
import pytest

import backtest as bt
from backtest.core import FrozenTable, ParameterError, Value
from backtest.core.values import name_place
from backtest.paths import GBM, Filtered, Stationary
from backtest.venue import ChangedFrom, Earlier, InForce


def days(*values: Any, tz: str | None = "UTC") -> "pd.Series[float]":
    return pd.Series([*values], index=pd.date_range("2021-01-01", periods=len(values), tz=tz))


UP = bt.FeeTier(1.0, 5e-4, 0.0)
DOWN = bt.FeeTier(0.5, 4e-4, 0.0)
ROW = bt.Bracket(0.0, 1e5, 50.0, 0.01)
NEXT = bt.Bracket(1e5, inf, 20.0, 0.025)
FEES = bt.Fees(taker=5e-4, maker=2e-4)
SLIP = bt.Slippage(rate=1e-4)
CLOSE = bt.Liquidation(fee=0.01, slippage=0.002)
OLD = Earlier(until="2021-01-01", brackets=[ROW])
NEW = Earlier(until="2022-01-01", brackets=[ROW])
SPOT = bt.Contract(kind="spot", haircut=0.05, borrow_rate=0.08)
ON_SPOT = {"contract": SPOT, "brackets": [bt.Bracket(0.0, inf, 3.0, 0.0)]}
COIN = bt.Collateral("BTC", 1.0, prices=100.0, rate=0.9)
MOVES = [(-0.1, 1), (0.1, 1)]
TIERS = [(0, 1, 0.5)]
CALL = {"kind": "call", "strike": 5e4, "expiry": "2026-01-31", "underlying": "BTC"}
GOOD: dict[type[Value], dict[str, Any]] = {
    bt.Bracket: {"floor": 0.0, "cap": 1e5, "max_leverage": 50.0, "maintenance_rate": 0.01},
    bt.FeeTier: {"volume": 1.0, "taker": 5e-4, "maker": 0.0},
    bt.Fees: {"taker": 5e-4, "maker": 2e-4},
    bt.Slippage: {"rate": 1e-4},
    bt.Liquidation: {"fee": 0.01, "slippage": 0.002},
    InForce: {"preset": "binance-usdm:BTCUSDT", "since": "2021-01-01"},
    ChangedFrom: {"preset": "reg-t:STOCK", "stated": ["borrow_rate"]},
    Earlier: {"until": "2021-01-01", "brackets": [ROW, NEXT]},
    bt.Venue: {"contract": bt.Contract(), "brackets": [ROW, NEXT], "fees": FEES, "slippage": SLIP,
        "liquidation": CLOSE},
    bt.OptionCosts: {"fee": 3e-4, "fee_cap": 0.125, "delivery_fee": 1e-4, "delivery_cap": 0.125,
        "tick": 5e-4},
    bt.Collateral: {"name": "BTC", "amount": 1.0, "prices": 100.0, "rate": 0.9},
    bt.ScenarioMargin: {"moves": MOVES},
    bt.Standard: {"initial": 0.15, "least": 0.1, "maintenance": 0.075},
    bt.PresetMargin: {"preset": "binance-portfolio"},
    bt.Option: CALL,
    bt.OptionPosition: {"option": bt.Option(**CALL), "quantity": 1.0, "index": 6e4,
        "at": "2026-01-01", "volatility": 0.5},
    bt.RateCurve: {"base": 0.0, "slope1": 0.04, "slope2": 0.6, "optimal": 0.9},
    bt.Multiple: {"multiple": 2.0, "column": "atr"},
    bt.Scenario: {"name": "fall"},
    bt.Linear: {"coefficient": 1.0},
    GBM: {"volatility": 0.5},
    Stationary: {"block": 24.0},
    Filtered: {"block": 24.0, "omega": 1e-6, "alpha": 0.1, "beta": 0.8, "variance_now": 1e-4},
}  # fmt: skip
"""The least that makes a value of each class; the others need nothing."""


def then(*row: float) -> dict[str, Any]:
    """Return a table of two brackets; this is the second."""
    return {"brackets": [ROW, bt.Bracket(*row)]}


Row = tuple[type[Value], dict[str, Any], str]
# What is changed in the least of a class (... leaves it out), and how the refusal begins.
BAD: list[Row] = [
    (bt.Account, {"max_holding": "0d"}, "max_holding: must be a duration such as"),
    (bt.Account, {"collateral": [COIN, COIN], "negative_limit": 1.0},
     "collateral: must have different names, BTC occurs twice"),
    (bt.Account, {"max_leverage": "none"}, "max_leverage: must be a number"),
    (bt.Scenario, {"shape": "bar", "over": "2h"}, "over: must be left out with shape 'bar'"),
    (bt.Scenario, {"date": "2021-05-19"}, "until: must be given with date"),
    (bt.Scenario, {"date": "2021-05-19", "until": "2021-05-18"}, "until: must be after date"),
    (bt.Scenario, {"prices": {"A": -0.1}, "price": -0.2, "correlation": 0.5},
     "price: must be left out"),
    (bt.Liquidation, {"order": "biggest"}, "order: must be one of most_relief"),
    (bt.Liquidation, {"order": ["A", "A"]}, "order: must name each instrument once"),
    (bt.Account, {"margin": None}, "margin: must be one of cross, isolated, got None"),
    (bt.Account, {"requirement": "nope"}, "requirement: there are no margin rules 'nope'"),
    (bt.Account, {"stop_loss": {"multiple": -2, "column": "atr"}},
     "stop_loss.multiple: must be over 0, got -2"),
    (bt.Account, {"hedge_mode": True}, "hedge_mode: an account has one net position in each"),
    (bt.Account, {"venue_leverage": {}}, "venue_leverage: must name at least one instrument,"),
    (bt.Account, {"min_leverage": 3, "max_leverage": 2},
     "min_leverage: must be at most max_leverage 2, got 3"),
    (bt.Account, {"min_leverage": 3, "max_leverage": days(4, 2)},
     "min_leverage: must be at most max_leverage 2 at its lowest, got 3"),
    (bt.Account, {"max_leverage": days(2, 3, tz=None)}, "max_leverage: must be indexed by UTC"),
    (bt.Account, {"max_leverage": days(2, nan)}, "max_leverage: must be numbers, got nan in 1 of"),
    (bt.Account, {"stop_loss": 1}, "stop_loss: must be over 0 and below 1, got 1"),
    (bt.Account, {"stop_loss": "2atr"}, "stop_loss: must be a fraction, or a multiple of a column"),
    (bt.Account, {"reserve": 100.0}, "reserve: is used only with margin_call and top_up_to, 0.8"),
    (bt.Account, {"top_up_to": 0.5}, "top_up_to: is used only with a margin_call, 0.8 for"),
    (bt.Account, {"top_up_to": 0.9, "margin_call": 0.8, "reserve": 1.0},
     "top_up_to: must be below margin_call 0.8, or it does not end the call, got 0.9"),
    (bt.Account, {"flows": 100.0}, "flows: must be a series indexed by UTC time, got 100"),
    (bt.Account, {"flows": days("a")}, "flows: must hold numbers, got a series of str"),
    (bt.Account, {"flows": days()}, "flows: must have at least one value, got an empty series"),
    (bt.Account, {"auto_margin": 1, "margin": "isolated", "venue_leverage": 5},
     "auto_margin: must be True or False, got 1"),
    (bt.Account, {"auto_margin": True}, "auto_margin: must be False in cross margin, where all"),
    (bt.Account, {"margin": "isolated"}, "venue_leverage: is needed with isolated margin, 5 for"),
    (bt.Account, {"fill": "limit"}, "offset: is needed with fill='limit', 0.001 of the close for"),
    (bt.Account, {"fill": "limit", "offset": 1e-3, "intrabar": "worst"},
     "intrabar: must be 'path' with fill='limit': worst extremes have no path of prices, got"),
    (bt.Account, {"offset": 1e-3}, "offset: is used only with fill='limit', the fill is"),
    (bt.Account, {"closing": "limit"}, "closing: is used only with fill='limit', the fill is"),
    (bt.Account, {"collateral": COIN}, "collateral: must be a list, got Collateral(name='BTC'"),
    (bt.Account, {"collateral": [COIN]}, "negative_limit: is needed with collateral, which is"),
    (bt.Account, {"negative_limit": 1.0}, "negative_limit: is used only with collateral, got 1"),
    (bt.Account, {"requirement": bt.Brackets}, "requirement: must have the methods requirement"),
    (bt.Contract, {"lot": nan}, "lot: must be a number, got nan"),
    (bt.Contract, {"expires": "soon"}, "expires: must be a time such as '2021-05-19' or"),
    (bt.Contract, {"settles": "btc"}, "settles: must be a currency in capital letters, 'USDT' for"),
    (bt.Contract, {"haircut": 0.05}, "haircut: is of spot contracts only, the kind is 'linear',"),
    (bt.Contract, {"borrow_rate": 0.08}, "borrow_rate: is of spot contracts only, the kind is"),
    (bt.Contract, {"kind": "spot", "borrow_rate": 0.08}, "haircut: is needed by a spot contract,"),
    (bt.Bracket, {"floor": 1e5}, "cap: must be over the floor 100000, got 100000"),
    (bt.Bracket, {"max_leverage": 101}, "max_leverage: must be at most 1 / maintenance_rate, or"),
    (bt.Fees, {"tiers": "vip"}, "tiers: "),
    (bt.Fees, {"tiers": [(1.0, 5e-4, 0.0)]}, "tiers.0: must be a FeeTier or a table of its"),
    (bt.Liquidation, {"step": "brackets"}, "step: must be a share from 0.001 to 1, or 'bracket'"),
    (bt.Liquidation, {"full_below": 100}, "full_below: must be 0 unless mode is 'partial', the"),
    (bt.Liquidation, {"full_below_health": 0.95, "mode": "takeover"},
     "full_below_health: must be 0 unless mode is 'partial', the mode is 'takeover', got 0.95"),
    (bt.Liquidation, {"impact": 1.0, "mode": "takeover"}, "impact: must be 0 with mode"),
    (InForce, {"preset": ""}, "preset: must be text, got ''"),
    (Earlier, {"brackets": [NEXT]}, "brackets.0.floor: must be 0, where the table begins, got"),
    (bt.Venue, {"brackets": [NEXT]}, "brackets.0.floor: must be 0, where the table begins, got"),
    (bt.Venue, then(2e5, inf, 20.0, 0.025), "brackets.1.floor: must be 100000, the cap before"),
    (bt.Venue, then(1e5, inf, 20.0, 0.01), "brackets.1.maintenance_rate: must be over 0.01, the"),
    (bt.Venue, then(1e5, inf, 60.0, 0.012), "brackets.1.max_leverage: must be at most 50, the one"),
    (bt.Venue, then(1e5, inf, 20.0, 0.025, 7.0), "brackets.1.amount: must be 1500.0, derived from"),
    (bt.Venue, {"brackets": [bt.Bracket(0.0, inf, 20.0, 0.0)]},
     "brackets.0.maintenance_rate: must be 0 of a spot contract, and over 0 of others, got 0"),
    (bt.Venue, {"brackets": [bt.Bracket(0.0, inf, 50.0, 0.02)], "includes_close_fee": True},
     "brackets.0.max_leverage: must be at most 1 / (maintenance_rate + closing fee), or an order"),
    (bt.Venue, {"borrow_rate": 0.05}, "interest_on: must be 'loan' (margin loans) or 'balance'"),
    (bt.Venue, {"short_rate": 0.05, "interest_on": "balance"},
     "short_rate: must be 0 with interest_on='balance', which never charges it, got 0.05"),
    (bt.Venue, {"includes_close_fee": True, "fees": bt.Fees(taker=days(1e-3), maker=0.0)},
     "fees.taker: must be a number where includes_close_fee is True, got a Series of shape (1,)"),
    (bt.Venue, {"includes_close_fee": True, "fees": bt.Fees(taker=1e-3, maker=0.0, tiers=[UP])},
     "fees.tiers: must be left out where includes_close_fee is True: give one taker rate, got"),
    (bt.Venue, {"fees": bt.Fees(taker=days(1e-3), maker=0.0, tiers=[UP])},
     "fees.tiers: must be left out with costs over time: fees.taker, got (FeeTier(volume=1.0,"),
    (bt.Venue, {"profit_counts": "none"}, "profit_counts: must be a share from 0 to 1, or 'all'"),
    (bt.Venue, {"brackets": []}, "brackets: must have at least one bracket, got ()"),
    (bt.Venue, {"margin_multiplier": 2.0, "initial_multiplier": 1.5},
     "margin_multiplier: must be left out with initial_multiplier: it sets both, got 2"),
    (bt.Venue, {"call_grace": 1.5}, "call_grace: must be a whole number, got 1.5"),
    (bt.Venue, {"earlier": [NEW, OLD]}, "earlier.1.until: must be after the table before"),
    (bt.Venue, {"earlier": "2023-01-01"}, "earlier: "),
    (bt.Venue, {**ON_SPOT, "brackets": [bt.Bracket(0.0, inf, 20.0, 0.0)]},
     "brackets.0.max_leverage: must be under 1 / haircut, 20, or a long backs nothing, got 20"),
    (bt.Venue, {**ON_SPOT, "maintenance_at": "entry"}, "maintenance_at: must be 'mark' for a spot"),
    (bt.Venue, {**ON_SPOT, "profit_counts": "losses"}, "profit_counts: must be 'all' for a spot"),
    (bt.Venue, {**ON_SPOT, "margin_multiplier": 2.0}, "margin_multiplier: must be 1 for a spot"),
    (bt.Venue, {**ON_SPOT, "liquidation": CLOSE.override(step="bracket")},
     "liquidation.step: must be a fraction for a spot contract, got 'bracket'"),
    (bt.Venue, {**ON_SPOT, "interest_on": "loan"}, "interest_on: must be 'balance' for a spot"),
    (bt.Collateral, {"prices": None}, "prices: must be a Market, the name of an instrument of"),
    (bt.Collateral, {"rate": None}, "rate: must be given, or tiers, and not both, got None"),
    (bt.Collateral, {"tiers": TIERS}, "rate: must be given, or tiers, and not both, got 0.9"),
    (bt.Collateral, {"rate": None, "tiers": [(0, 1)]}, "tiers: must be rows of (floor, cap,"),
    (bt.Collateral, {"rate": None, "tiers": [(0, 1, 0.5), (1, 2, 0.6)]},
     "tiers.1: must end over its floor, and rates must fall, got (1.0, 2.0, 0.6)"),
    (bt.Collateral, {"rate": None, "tiers": [(0, 1, 0.5), (2, 3, 0.4)]},
     "tiers.1: must begin at 1, where the one before it ends, got (2.0, 3.0, 0.4)"),
    (bt.ScenarioMargin, {"moves": []}, "moves: must be lists of at least one (move, weight),"),
    (bt.ScenarioMargin, {"moves": {}}, "moves: must have scenarios for at least one group,"),
    (bt.ScenarioMargin, {"moves": [(-1.1, 1)]}, "moves: must be moves of at least -1, weights and"),
    (bt.ScenarioMargin, {"moves": [(0.1,)]}, "moves: must be rows of (move, weight), and for"),
    (bt.ScenarioMargin, {"moves": {"A": MOVES, "B": [0.1]}, "across": "same row"},
     "moves: must have as many scenarios for each group of a product with across='same row': 'A'"),
    (bt.ScenarioMargin, {"groups": {"g": []}}, "groups: must list the names of at least one"),
    (bt.ScenarioMargin, {"groups": {"g": ["A"], "h": ["A"]}}, "groups: must name each instrument"),
    (bt.ScenarioMargin, {"products": {"p": ["g"]}}, "products: must be left out with"),
    (bt.ScenarioMargin, {"offset": 0.5}, "offset: must be left out with across='independent', in"),
    (bt.ScenarioMargin, {"initial": (0.9, 0)}, "initial: must be at least (1, 0), or an order is"),
    (bt.ScenarioMargin, {"initial": (1.1, 0), "level": 1.2}, "initial: must be at least (1.2, 0)"),
    (bt.ScenarioMargin, {"initial": 1.2}, "initial: must be 2 numbers, got 1.2"),
    (bt.ScenarioMargin, {"level": 1.2}, "initial: must be at least (1.2, 0), or an order is"),
    (bt.OptionShocks, {"short_charge": (0.2, 0.1)}, "short_charge: must have an initial charge of"),
    (bt.OptionShocks, {"expiry_charge": (1.5, 0.5, 2.0)}, "expiry_charge: must have a move"),
    (bt.OptionShocks, {"skew": (1, 2)}, "skew: must be 8 numbers, got (1, 2)"),
    (bt.Standard, {"least": 0.05}, "least: must be at least level times maintenance, 0.075, or an"),
    (bt.Standard, {"least": 0.08, "level": 1.2}, "least: must be at least level times maint"),
    (bt.PresetMargin, {"level": 1.1}, "level: must match the preset, 1.05, got 1.1"),
    (bt.Option, {"style": "american"}, "style: must be european, got 'american' (did you mean"),
    (bt.Option, {"strike": None}, "strike: is needed without a name as Deribit's"),
    (bt.Option, {"name": "BTC-26JUN26-60000-P", "kind": "call", "strike": None, "expiry": None},
     "kind: must match the name 'BTC-26JUN26-60000-P', 'put', or be left out, got 'call'"),
    (bt.OptionPosition, {"option": 3}, "option: must be an Option or a name,"),
    (bt.OptionPosition, {"at": "2026-02-01"}, "at: must not be after the expiry 2026-01-31"),
    (bt.OptionPosition, {"volatility": None}, "volatility: is needed, or a mark: 0.55 per"),
    (bt.Multiple, {"column": ""}, "column: must be text"),
    (bt.Scenario, {"prices": -0.5}, "prices: must name instruments, {'ETHUSDT': -0.4}; price is"),
]  # fmt: skip


def make(cls: type[Value], changes: dict[str, Any]) -> Value:
    """Return a value with good fields but for changes; ``...`` leaves a field out."""
    fields = GOOD.get(cls, {}) | changes
    return cls(**{name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(("cls", "changes", "words"), BAD)
def test_a_bad_field_is_refused_with_its_place(
    cls: type[Value], changes: dict[str, Any], words: str
) -> None:
    make(cls, ON_SPOT if changes.items() >= ON_SPOT.items() else {})  # the least is sound

    with pytest.raises(bt.ParameterError) as caught:
        make(cls, changes)

    assert str(caught.value).startswith(f"{name_place(cls)}.{words}")


ROWS = [ROW, bt.Bracket(1e5, 1e6, 20.0, 0.025, 9.0), bt.Bracket(1e6, inf, 10.0, 0.05, 9.0)]
SEVERAL: list[tuple[type[Value], dict[str, Any], list[str]]] = [
    (bt.Bracket, {"floor": -1.0, "cap": -2.0, "max_leverage": inf, "maintenance_rate": 1.5}, [
        "bracket.floor: must be at least 0, got -1",
        "bracket.cap: must be over 0, got -2",
        "bracket.max_leverage: must be finite, got inf",
        "bracket.maintenance_rate: must be at least 0 and below 1, got 1.5",
    ]),
    (bt.Venue, {"fees": {"taker": 2.0}, "contract": {"lott": 1.0}, "day_count": 300}, [
        "venue.contract.lott: Contract has no such field (did you mean 'lot'?)",
        "venue.fees.taker: must be at least 0 and below 1, got 2",
        "venue.fees.maker: is needed",
        "venue.day_count: must be at least 360 and at most 366, got 300",
    ]),
    (bt.Venue, {"brackets": ROWS, "borrow_rate": 0.1}, [
        "venue.brackets.1.amount: must be", "venue.brackets.2.amount: must be",
        "venue.interest_on: must be",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "changes", "faults"), SEVERAL)
def test_all_faults_are_listed_a_line_each(cls: Any, changes: Any, faults: list[str]) -> None:
    with pytest.raises(bt.ParameterError) as caught:
        make(cls, changes)

    lines = sorted(str(caught.value).splitlines())
    assert len(lines) == len(faults)
    for line, words in zip(lines, sorted(faults), strict=True):
        assert line.startswith(words)


@pytest.mark.parametrize(("data", "words"), [
    ({"taker": 0.1}, "x.toml, fees.maker: is needed"),
    ({"taker": 0.1, "maker": 0.0, "tackr": 0}, "x.toml, fees.tackr: Fees has no such field"),
    (3, "x.toml, fees: must be a table of taker, maker"),
])  # fmt: skip
def test_stored_data_is_refused_with_its_own_place(data: Any, words: str) -> None:
    with pytest.raises(bt.ParameterError) as caught:
        bt.Fees.from_dict(data, where="x.toml, fees")
    assert str(caught.value).startswith(words)


def test_a_value_is_made_by_the_names_of_its_fields() -> None:
    with pytest.raises(bt.ParameterError, match="no positional value: write Contract"):
        bt.Contract("linear")  # type: ignore[misc] # on purpose


def test_a_table_by_instrument_is_replaced() -> None:
    account = bt.Account(venue_leverage={"A": 5, "B": 3})
    assert account.override(venue_leverage={"A": 4}).venue_leverage == FrozenTable({"A": 4.0})


def test_a_part_of_a_kind_of_its_own_keeps_its_kind() -> None:
    account = bt.Account(requirement=bt.ScenarioMargin(moves=MOVES))
    changed = account.override(requirement={"minimum": 0.1}).requirement
    assert changed == bt.ScenarioMargin(moves=MOVES, minimum=0.1)


def test_a_time_in_nanoseconds_is_read_back() -> None:
    contract = bt.Contract(expires=cast("str", pd.Timestamp("2027-05-19").value))
    assert contract.expires == "2027-05-19T00:00:00+00:00"
    assert bt.Contract.from_dict(contract.to_dict()) == contract


def test_a_place_with_backslashes_is_written_as_it_is() -> None:
    place = r"C:\Users\x\manifest.json, account"
    with pytest.raises(ParameterError) as caught:
        bt.Account.from_dict({"requirement": {"level": -1}}, where=place)
    assert str(caught.value) == f"{place}.requirement.level: must be over 0, got -1"

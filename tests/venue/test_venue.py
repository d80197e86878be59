"""The rules of a venue: what is accepted, what is refused and why, and the published tables."""

from __future__ import annotations

import copy
import json
import pickle
import tomllib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.base.errors import BacktestError, ParameterError, VenueError
from backtest.venue import preset_files
from backtest.venue.brackets import Bracket, derive_amounts
from backtest.venue.venue import Contract, Fees, Liquidation, Slippage, Venue

NAMES = {
    "Bracket": Bracket,
    "Contract": Contract,
    "Fees": Fees,
    "Liquidation": Liquidation,
    "Slippage": Slippage,
    "Venue": Venue,
    "inf": inf,
    "pd": pd,
}

# Binance USD-M BTCUSDT as of 2024-10-24: floor, cap, leverage, rate, cumulative amount.
BTCUSDT = [
    (0.0, 50_000.0, 125.0, 0.004, 0.0),
    (50_000.0, 600_000.0, 100.0, 0.005, 50.0),
    (600_000.0, 3_000_000.0, 75.0, 0.0065, 950.0),
    (3_000_000.0, 12_000_000.0, 50.0, 0.01, 11_450.0),
    (12_000_000.0, 70_000_000.0, 25.0, 0.02, 131_450.0),
    (70_000_000.0, 100_000_000.0, 20.0, 0.025, 481_450.0),
    (100_000_000.0, 230_000_000.0, 10.0, 0.05, 2_981_450.0),
    (230_000_000.0, 480_000_000.0, 5.0, 0.1, 14_481_450.0),
    (480_000_000.0, 600_000_000.0, 4.0, 0.125, 26_481_450.0),
    (600_000_000.0, 800_000_000.0, 3.0, 0.15, 41_481_450.0),
    (800_000_000.0, 1_200_000_000.0, 2.0, 0.25, 121_481_450.0),
    (1_200_000_000.0, 1_800_000_000.0, 1.0, 0.5, 421_481_450.0),
]

# Bybit BTCUSDT, the first six of its risk limits and their published deductions.
BYBIT = [
    (0, 2_000_000, 100, 0.005, 0),
    (2_000_000, 2_600_000, 90, 0.0056, 1_200),
    (2_600_000, 3_200_000, 80, 0.0063, 3_020),
    (3_200_000, 3_800_000, 75, 0.0067, 4_300),
    (3_800_000, 4_400_000, 70, 0.0071, 5_820),
    (4_400_000, 5_000_000, 65, 0.0077, 8_460),
]


def make_brackets(*changes: tuple[int, str, object]) -> list[Bracket]:
    """Return three sound brackets, with fields changed by (row, name, value)."""
    rows = [
        Bracket(0.0, 50_000.0, 100.0, 0.005),
        Bracket(50_000.0, 250_000.0, 50.0, 0.01),
        Bracket(250_000.0, inf, 20.0, 0.025),
    ]
    for row, name, value in changes:
        rows[row] = replace(rows[row], **{name: value})
    return rows


def make_venue(**changes: Any) -> Venue:
    """Return a sound venue with some fields changed."""
    rules: dict[str, Any] = {
        "contract": Contract(),
        "brackets": make_brackets(),
        "fees": Fees(taker=5e-4, maker=2e-4),
        "slippage": Slippage(rate=1e-4),
        "liquidation": Liquidation(fee=0.0125, slippage=0.002),
    }
    return Venue(**{**rules, **changes})


def by_day(*values: object, start: str = "2021-01-01", tz: str | None = "UTC") -> pd.Series:
    """Return values one day apart."""
    return pd.Series(list(values), index=pd.date_range(start, periods=len(values), tz=tz))


def liquidation(**changes: Any) -> Liquidation:
    """Return a liquidation rule with some fields changed."""
    return Liquidation(**{"fee": 0.0125, "slippage": 0.002, **changes})


Bad = tuple[Callable[[], object], type[BacktestError], str, str, str, str]

# What is built, the error, then a piece of each: the rule, the value, the place, the cure.
BAD: dict[str, Bad] = {
    "a contract of an unknown kind": (
        lambda: Contract(kind="inverted"), ParameterError,
        "one of linear, inverse", "'inverted'; did you mean 'inverse'?", "Contract.kind", "choose"),
    "a contract without size": (
        lambda: Contract(size=0), ParameterError,
        "size must be over 0", "was 0", "Contract.size", "over 0"),
    "a contract of infinite size": (
        lambda: Contract(size=inf), ParameterError,
        "size must be finite", "was inf", "Contract.size", "finite number"),
    "a negative lot": (
        lambda: Contract(lot=-0.001), ParameterError,
        "lot must be at least 0", "-0.001", "Contract.lot", "at least 0"),
    "a lot that is NaN": (
        lambda: Contract(lot=nan), ParameterError,
        "lot must be a number", "was nan", "Contract.lot", "as a number"),
    "a tick of zero": (
        lambda: Contract(tick=0), ParameterError,
        "tick must be over 0", "was 0", "Contract.tick", "over 0"),
    "a negative least notional": (
        lambda: Contract(min_notional=-5), ParameterError,
        "min_notional must be at least 0", "-5", "Contract.min_notional", "at least 0"),
    "a negative taker fee": (
        lambda: Fees(taker=-1e-4, maker=0.0), ParameterError,
        "taker must be at least 0", "-0.0001", "Fees.taker", "choose"),
    "a taker fee of all the notional": (
        lambda: Fees(taker=1, maker=0.0), ParameterError,
        "below 1", "was 1", "Fees.taker", "choose"),
    "a maker fee that is NaN": (
        lambda: Fees(taker=5e-4, maker=nan), ParameterError,
        "maker must be a number", "was nan", "Fees.maker", "as a number"),
    "a maker fee that is a text": (
        lambda: Fees(taker=5e-4, maker="0.02%"), ParameterError,  # type: ignore[arg-type]
        "maker must be a number", "0.02%", "Fees.maker", "as a number"),
    "a maker share in percent": (
        lambda: Fees(taker=5e-4, maker=2e-4, maker_share=50), ParameterError,
        "at most 1", "was 50", "Fees.maker_share", "at most 1"),
    "a negative fee per order": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=-1), ParameterError,
        "per_order must be at least 0", "was -1", "Fees.per_order", "at least 0"),
    "a fee per order that is NaN": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=nan), ParameterError,
        "per_order must be a number", "was nan", "Fees.per_order", "as a number"),
    "an infinite fee per order": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=inf), ParameterError,
        "per_order must be finite", "was inf", "Fees.per_order", "finite number"),
    "a fee per order that is a text": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order="2 USD"),  # type: ignore[arg-type]
        ParameterError, "per_order must be a number", "2 USD", "Fees.per_order", "as a number"),
    "fees per order that fall under 0": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, -2.0)), ParameterError,
        "per_order must be at least 0", "was -2", "Fees.per_order, at 2021-01-02", "at least 0"),
    "fees per order with a hole": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, nan)), ParameterError,
        "per_order must be finite", "was nan in 1 of 2", "first at 2021-01-02", "fill or drop"),
    "profits that count for an unknown thing": (
        lambda: make_venue(profit_counts="gains"), ParameterError,
        "profit_counts must be one of all, losses", "was 'gains'",
        "Venue.profit_counts (a share from 0 to 1", "choose"),
    "profits that count more than once": (
        lambda: make_venue(profit_counts=1.5), ParameterError,
        "profit_counts must be", "was 1.5", "Venue.profit_counts", "at most 1"),
    "profits that count less than nothing": (
        lambda: make_venue(profit_counts=-0.1), ParameterError,
        "profit_counts must be", "was -0.1", "Venue.profit_counts", "at least 0"),
    "profits whose share is NaN": (
        lambda: make_venue(profit_counts=nan), ParameterError,
        "profit_counts must be a number", "was nan", "Venue.profit_counts", "as a number"),
    "a negative impact of liquidations": (
        lambda: liquidation(impact=-0.1), ParameterError,
        "impact must be at least 0", "was -0.1", "Liquidation.impact", "at least 0"),
    "an impact of liquidations that is NaN": (
        lambda: liquidation(impact=nan), ParameterError,
        "impact must be a number", "was nan", "Liquidation.impact", "as a number"),
    "an impact where all margin is taken": (
        lambda: liquidation(mode="takeover", impact=0.5), ParameterError,
        "impact must be 0 with mode 'takeover'", "was 0.5", "Liquidation.impact", "leave impact"),
    "slippage of all the price": (
        lambda: Slippage(rate=1.0), ParameterError,
        "rate must be", "was 1", "Slippage.rate", "below 1"),
    "a negative impact": (
        lambda: Slippage(rate=0.0, impact=-1), ParameterError,
        "impact must be at least 0", "was -1", "Slippage.impact", "at least 0"),
    "an impact window without a unit": (
        lambda: Slippage(rate=0.0, impact_window="24"), ParameterError,
        "a duration is", "'24'", "Slippage.impact_window", "'1d'"),
    "no participation at all": (
        lambda: Slippage(rate=0.0, max_participation=0), ParameterError,
        "max_participation must be over 0", "was 0", "Slippage.max_participation", "at most 1"),
    "an unknown liquidation mode": (
        lambda: liquidation(mode="partly"), ParameterError,
        "close, takeover, partial", "'partly'; did you mean 'partial'?", "Liquidation.mode",
        "choose"),
    "a liquidation fee that is NaN": (
        lambda: liquidation(fee=nan), ParameterError,
        "fee must be a number", "was nan", "Liquidation.fee", "as a number"),
    "a negative liquidation slippage": (
        lambda: liquidation(slippage=-0.01), ParameterError,
        "slippage must be at least 0", "-0.01", "Liquidation.slippage", "choose"),
    "a step of nothing": (
        lambda: liquidation(mode="partial", step=0), ParameterError,
        "step must be at least 0.001", "was 0", "Liquidation.step", "at most 1"),
    "a step that is an unknown word": (
        lambda: liquidation(mode="partial", step="braket"), ParameterError,
        "step must be one of bracket", "'braket'; did you mean 'bracket'?", "Liquidation.step",
        "choose"),
    "full_below where nothing is partial": (
        lambda: liquidation(full_below=5_000), ParameterError,
        "unless mode is 'partial'", "5000 with mode 'close'", "Liquidation.full_below", "leave"),
    "a bracket whose cap is its floor": (
        lambda: Bracket(5.0, 5.0, 10, 0.05), VenueError,
        "cap must be over the floor", "was 5.0", "Bracket(floor=5.0", "floor < cap"),
    "a bracket that demands no margin": (
        lambda: Bracket(0.0, 5.0, 10, 0.0), VenueError,
        "maintenance_rate must be over 0 and below 1", "was 0.0", "Bracket(floor=0.0", "0 < maint"),
    "a bracket without leverage": (
        lambda: Bracket(0.0, 5.0, 0, 0.01), VenueError,
        "max_leverage must be over 0", "was 0.0", "Bracket(floor=0.0", "max_leverage"),
    "a bracket whose orders are liquidated at once": (
        lambda: Bracket(0.0, 5.0, 100, 0.02), VenueError,
        "must be at most 1", "was 2", "Bracket(floor=0.0", "1 / maintenance_rate"),
    "a bracket whose rate is NaN": (
        lambda: Bracket(0.0, 5.0, 100, nan), VenueError,
        "maintenance_rate must be a number", "was nan", "Bracket(floor=0.0", "0 < maint"),
    "a bracket of negative amount": (
        lambda: Bracket(0.0, 5.0, 100, 0.01, -1.0), VenueError,
        "amount must be at least 0", "was -1.0", "Bracket(floor=0.0", "give"),
    "no brackets": (
        lambda: make_venue(brackets=[]), VenueError,
        "at least one Bracket", "was []", "Venue.brackets", "give brackets="),
    "brackets that are no list": (
        lambda: make_venue(brackets=Bracket(0.0, 5.0, 100, 0.01)), VenueError,
        "a list of at least one Bracket", "was Bracket(", "Venue.brackets", "give brackets="),
    "a table that does not begin at 0": (
        lambda: make_venue(brackets=make_brackets()[1:]), VenueError,
        "floor must be 0", "was 50000", "Venue.brackets", "mend those rows"),
    "a table with a gap": (
        lambda: make_venue(brackets=make_brackets((1, "floor", 60_000))), VenueError,
        "floor must be 50000, the cap before it", "was 60000", "Venue.brackets", "mend"),
    "a table that goes on after infinity": (
        lambda: make_venue(brackets=make_brackets((0, "cap", inf))), VenueError,
        "bracket 2 (floor 50000): floor must be inf", "was 50000", "Venue.brackets", "mend"),
    "a rate that does not rise": (
        lambda: make_venue(brackets=make_brackets((1, "maintenance_rate", 0.005))), VenueError,
        "maintenance_rate must be over 0.005", "was 0.005", "Venue.brackets", "mend"),
    "a leverage that rises": (
        lambda: make_venue(brackets=make_brackets(
            (2, "max_leverage", 40), (1, "max_leverage", 30))), VenueError,
        "max_leverage must be at most 30", "was 40", "Venue.brackets", "mend"),
    "a wrong amount": (
        lambda: make_venue(brackets=make_brackets((1, "amount", 251.0))), VenueError,
        "amount must be 250.0", "was 251.0", "Venue.brackets", "leave amounts out"),
    "a first amount": (
        lambda: make_venue(brackets=make_brackets((0, "amount", 10.0))), VenueError,
        "amount must be 0.0", "was 10.0", "Venue.brackets", "leave amounts out"),
    "a closing fee that leaves no room": (
        lambda: make_venue(
            brackets=[Bracket(0.0, inf, 100, 0.0099)], includes_close_fee=True), VenueError,
        "with the closing fee x max_leverage", "was 1.04", "Venue.brackets", "mend"),
    "a contract that is a text": (
        lambda: make_venue(contract="linear"), ParameterError,
        "must be a Contract", "'linear'", "Venue.contract", "contract=Contract("),
    "fees that are a number": (
        lambda: make_venue(fees=5e-4), ParameterError,
        "must be a Fees", "0.0005", "Venue.fees", "fees=Fees("),
    "interest on something else": (
        lambda: make_venue(interest_on="balanced"), ParameterError,
        "one of balance, loan", "did you mean 'balance'?", "Venue.interest_on", "choose"),
    "a borrow rate in percent": (
        lambda: make_venue(borrow_rate=12.0), ParameterError,
        "at most 10", "was 12", "Venue.borrow_rate", "at most 10"),
    "a cash rate that is NaN": (
        lambda: make_venue(cash_rate=nan), ParameterError,
        "cash_rate must be a number", "was nan", "Venue.cash_rate", "as a number"),
    "a short rate that is never charged": (
        lambda: make_venue(interest_on="balance", short_rate=0.02), ParameterError,
        "short_rate must be 0 with interest_on='balance'", "was 0.02", "Venue.short_rate",
        "interest_on='loan'"),
    "a rate on nothing": (
        lambda: make_venue(borrow_rate=0.05), ParameterError,
        "interest_on must be given", "borrow_rate 0.05", "Venue.interest_on", "'balance'"),
    "a series of rates on nothing": (
        lambda: make_venue(cash_rate=by_day(0.0, 0.02)), ParameterError,
        "interest_on must be given", "cash_rate a series of 2 values", "Venue.interest_on",
        "'loan'"),
    "a year of 400 days": (
        lambda: make_venue(day_count=400), ParameterError,
        "day_count must be", "was 400", "Venue.day_count", "at most 366"),
    "a jitter of zero": (
        lambda: make_venue(funding_jitter="0s"), ParameterError,
        "a duration is", "'0s'", "Venue.funding_jitter", "'60s'"),
    "funding paid by nobody": (
        lambda: make_venue(isolated_funding="walet"), ParameterError,
        "margin, wallet", "did you mean 'wallet'?", "Venue.isolated_funding", "choose"),
    "maintenance at another price": (
        lambda: make_venue(maintenance_at="last"), ParameterError,
        "mark, entry", "'last'", "Venue.maintenance_at", "choose"),
    "a flag that is a number": (
        lambda: make_venue(includes_close_fee=1), ParameterError,
        "True or False", "was 1", "Venue.includes_close_fee", "write True"),
    "a multiplier of zero": (
        lambda: make_venue(margin_multiplier=0.0), ParameterError,
        "margin_multiplier must be over 0", "was 0", "Venue.margin_multiplier", "over 0"),
    "a grace of half a bar": (
        lambda: make_venue(call_grace=0.5), ParameterError,
        "a whole number", "was 0.5", "Venue.call_grace", "whole"),
    "an endless grace": (
        lambda: make_venue(call_grace=inf), ParameterError,
        "must be finite", "was inf", "Venue.call_grace", "finite"),
    "a series without a zone": (
        lambda: make_venue(cash_rate=by_day(0.01, 0.02, tz=None)), ParameterError,
        "indexed by UTC time", "without a time zone", "Venue.cash_rate", "tz_localize"),
    "a series that is not by time": (
        lambda: make_venue(cash_rate=pd.Series([0.01])), ParameterError,
        "indexed by UTC time", "RangeIndex", "Venue.cash_rate", "pd.DatetimeIndex"),
    "a series out of order": (
        lambda: make_venue(cash_rate=by_day(0.01, 0.02)[::-1]), ParameterError,
        "increase strictly", "2021-01-01 00:00:00+00:00 in row 1", "Venue.cash_rate", "sort_index"),
    "a series with one time twice": (
        lambda: make_venue(cash_rate=by_day(0.01, 0.02).iloc[[0, 0]]), ParameterError,
        "increase strictly", "in row 1", "Venue.cash_rate", "one value per time"),
    "a series with a hole": (
        lambda: make_venue(borrow_rate=by_day(0.01, nan, nan)), ParameterError,
        "must be finite", "was nan in 2 of 3 rows", "first at 2021-01-02 UTC", "fill or drop"),
    "a series with a time that is none": (
        lambda: make_venue(borrow_rate=pd.Series(
            [0.0, 0.1], index=pd.DatetimeIndex(["2021-01-01", None], tz="UTC"))), ParameterError,
        "increase strictly", "NaT in row 1", "Venue.borrow_rate", "sort"),
    "a series beyond the calendar": (
        lambda: make_venue(borrow_rate=by_day(0.1, start="2500-01-01")), ParameterError,
        "times from 1678 to 2261", "2500-01-01", "Venue.borrow_rate", "out of range"),
    "a series out of range": (
        lambda: make_venue(borrow_rate=by_day(0.01, 11.0)), ParameterError,
        "at most 10", "was 11", "Venue.borrow_rate, at 2021-01-02 UTC", "at most 10"),
    "a multiplier that is zero for a day": (
        lambda: make_venue(margin_multiplier=by_day(1.0, 0.0)), ParameterError,
        "over 0", "was 0", "Venue.margin_multiplier, at 2021-01-02 UTC", "over 0"),
    "an empty series": (
        lambda: make_venue(borrow_rate=by_day()), ParameterError,
        "at least one value", "an empty series", "Venue.borrow_rate", "leave borrow_rate out"),
    "a series of texts": (
        lambda: make_venue(borrow_rate=by_day("a", "b")), ParameterError,
        "must hold numbers", "a series of str", "Venue.borrow_rate", "astype(float)"),
    "an unknown preset venue": (
        lambda: Venue.preset("binance-usd", "BTCUSDT"), VenueError,
        "a known preset", "'binance-usd'; did you mean 'binance-usdm'?", "Venue.preset",
        "choose one of"),
    "an unknown preset symbol": (
        lambda: Venue.preset("binance-usdm", "btcusd"), VenueError,
        "has a table for", "'btcusd'; did you mean 'BTCUSDT'?", "'binance-usdm'", "BTCUSDT"),
    "an unknown field in stored data": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "borow_rate": 0.1}), ParameterError,
        "has no field", "'borow_rate'; did you mean 'borrow_rate'?", "Venue", "use contract"),
    "an unknown field in a stored part": (
        lambda: Venue.from_dict(
            {**make_venue().to_dict(), "fees": {"taker": 0.1, "make": 0.1}}), ParameterError,
        "has no field", "'make'; did you mean 'maker'?", "Venue.fees", "use taker"),
    "stored fees that say no maker rate": (
        lambda: Fees.from_dict({"taker": 0.1}, where="x.toml, fees"), ParameterError,
        "needs maker", "no default", "x.toml, fees", "add maker"),
    "a stored part that is no table": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "fees": 0.1}), ParameterError,
        "a table of its fields", "was 0.1", "Venue.fees", "give a table"),
    "a stored series of unequal lists": (
        lambda: Venue.from_dict(
            {**make_venue().to_dict(), "cash_rate": {"time": ["2021"], "value": []}}),
        ParameterError, "two lists of one length", "'value': []", "Venue.cash_rate", "write time"),
    "a stored series with an unreadable time": (
        lambda: Venue.from_dict(
            {**make_venue().to_dict(), "cash_rate": {"time": ["soon"], "value": [0.0]}}),
        ParameterError, "must be readable", "soon", "Venue.cash_rate", "write times as"),
    "a bad number in a file": (
        lambda: Contract.from_dict({"lot": -1}, where="x.toml, contract"), ParameterError,
        "lot must be at least 0", "was -1", "x.toml, contract: Contract.lot", "at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_breaks_a_rule_is_refused_with_rule_value_place_and_cure(case: str) -> None:
    build, kind, rule, value, place, cure = BAD[case]
    with pytest.raises(kind) as caught:
        build()
    assert rule in caught.value.problem
    assert value in caught.value.problem
    assert place in caught.value.where
    assert cure in caught.value.cure


@pytest.mark.parametrize(
    "build", [Fees, lambda: Fees(taker=5e-4), Slippage, Liquidation, lambda: Liquidation(fee=0.01)]
)
def test_costs_are_said_and_never_assumed(build: Callable[[], object]) -> None:
    with pytest.raises(ParameterError, match="needs"):
        build()


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: Contract(knid="linear"), "did you mean 'kind'"),
        (lambda: Contract("linear"), "takes keyword arguments only"),
    ],
)
def test_a_value_is_made_by_the_names_of_its_fields(build: Callable[[], object], rule: str) -> None:
    with pytest.raises(ParameterError, match=rule):
        build()


def test_all_defects_of_a_table_are_listed_at_once() -> None:
    rows = [
        Bracket(10.0, 50.0, 100.0, 0.005, 3.0),
        Bracket(60.0, 70.0, 100.0, 0.004),
        Bracket(70.0, 80.0, 120.0, 0.006),
    ]
    with pytest.raises(VenueError) as caught:
        make_venue(brackets=rows)
    listed = caught.value.problem.splitlines()[1:]
    assert [line.split(":")[0].strip() for line in listed] == [
        "bracket 1 (floor 10)",
        "bracket 1 (floor 10)",
        "bracket 2 (floor 60)",
        "bracket 2 (floor 60)",
        "bracket 3 (floor 70)",
    ]


def test_every_wrong_amount_is_listed_with_the_derived_one() -> None:
    rows = [Bracket(*row) for row in BTCUSDT]
    rows[2] = replace(rows[2], amount=900.0)
    rows[11] = replace(rows[11], amount=421_482_500.0)
    with pytest.raises(VenueError) as caught:
        make_venue(brackets=rows)
    assert "bracket 3 (floor 600000): amount must be 950.0" in caught.value.problem
    assert "bracket 12 (floor 1200000000): amount must be 421481450.0" in caught.value.problem
    assert len(caught.value.problem.splitlines()) == 3


def test_all_defects_of_one_bracket_are_listed_at_once() -> None:
    with pytest.raises(VenueError) as caught:
        Bracket(-1.0, -2.0, inf, 1.5)
    for name in ("floor", "cap", "max_leverage", "maintenance_rate"):
        assert f"{name} must be" in caught.value.problem


def test_all_impossible_rows_of_a_stored_table_are_named_at_once() -> None:
    data = make_venue().to_dict()
    data["brackets"][0]["maintenance_rate"] = nan
    data["brackets"][2]["max_leverage"] = -1
    with pytest.raises(VenueError) as caught:
        Venue.from_dict(data, where="x.toml")
    assert "x.toml.brackets[0]" in caught.value.where
    assert "x.toml.brackets[2]" in caught.value.where
    assert "was nan" in caught.value.problem
    assert "was -1.0" in caught.value.problem


def test_amounts_that_venues_round_are_accepted_and_stored_exact() -> None:
    rows = make_brackets((1, "amount", 250.02), (2, "amount", 3_999.99))
    assert [row.amount for row in make_venue(brackets=rows).brackets] == [0.0, 250.0, 4_000.0]


def test_published_amounts_are_derived_to_the_last_digit() -> None:
    for table in (BTCUSDT, BYBIT):
        rows = [Bracket(*row[:4]) for row in table]
        assert derive_amounts(rows) == [row[4] for row in table]


def test_the_requirement_is_continuous_where_brackets_meet() -> None:
    floors, _, rates, amounts, _ = make_venue().bracket_arrays()
    below = rates[:-1] * floors[1:] - amounts[:-1]
    above = rates[1:] * floors[1:] - amounts[1:]
    np.testing.assert_allclose(below, above, rtol=1e-15)


def test_bracket_arrays_are_float64_columns_in_the_order_they_are_named() -> None:
    arrays = make_venue().bracket_arrays()
    assert all(column.dtype == np.float64 and column.shape == (3,) for column in arrays)
    assert arrays.floors.tolist() == [0.0, 50_000.0, 250_000.0]
    assert arrays.caps.tolist() == [50_000.0, 250_000.0, inf]
    assert arrays.rates.tolist() == [0.005, 0.01, 0.025]
    assert arrays.amounts.tolist() == [0.0, 250.0, 4_000.0]
    assert arrays.leverages.tolist() == [100.0, 50.0, 20.0]
    floors, caps, rates, amounts, leverages = arrays
    assert (floors, caps, rates, amounts, leverages) == tuple(arrays)


def test_a_maker_rebate_a_step_by_bracket_and_a_leap_year_are_allowed() -> None:
    assert Fees(taker=5e-4, maker=-1e-4).maker == -1e-4
    assert liquidation(mode="partial", step="bracket", full_below=100).step == "bracket"
    assert make_venue(day_count=365.25, call_grace=0, interest_on="loan", short_rate=0.1)


def test_whole_numbers_and_numpy_numbers_settle_as_floats() -> None:
    contract = Contract(size=np.float32(2), lot=1, min_notional=np.int64(5))  # type: ignore[arg-type]
    assert [type(each) for each in (contract.size, contract.lot, contract.min_notional)] == [
        float
    ] * 3
    assert contract == Contract(size=2.0, lot=1.0, min_notional=5.0)


def test_a_venue_cannot_be_changed_only_replaced() -> None:
    venue = make_venue()
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        venue.day_count = 360  # type: ignore[misc]
    assert replace(venue, day_count=360).day_count == 360
    assert venue.day_count == 365


def test_a_series_is_copied_held_in_utc_and_read_only() -> None:
    mine = by_day(0.01, 0.02, tz="Asia/Tokyo")
    venue = make_venue(interest_on="balance", cash_rate=mine)
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
    assert make_venue() == make_venue()
    assert make_venue() != make_venue(day_count=360)
    assert make_venue() != "venue"
    series = make_venue(interest_on="balance", cash_rate=by_day(0.0, 0.01))
    same = make_venue(interest_on="balance", cash_rate=by_day(-0.0, 0.01).rename("other"))
    later = make_venue(interest_on="balance", cash_rate=by_day(0.0, 0.01, start="2021-01-02"))
    assert series == same
    assert hash(series) == hash(same)
    assert len({make_venue(), make_venue(), series, same, later}) == 3


def test_a_repr_says_what_differs_from_the_defaults() -> None:
    assert repr(Contract(lot=0)) == "Contract(lot=0.0, min_notional=5.0)"
    assert repr(Bracket(0, inf, 10, 0.05)) == (
        "Bracket(floor=0.0, cap=inf, max_leverage=10.0, maintenance_rate=0.05)"
    )
    assert (
        "cash_rate=pd.Series([0.01], index=pd.DatetimeIndex(['2021-01-01T00:00:00'], tz='UTC'))"
        in (repr(make_venue(interest_on="balance", cash_rate=by_day(0.01))))
    )


@st.composite
def series(draw: st.DrawFn, low: float, high: float) -> pd.Series:
    """Draw a series at distinct times, to the nanosecond."""
    times = sorted(draw(st.sets(st.integers(0, 2_000_000_000 * 10**9), min_size=1, max_size=4)))
    values = [draw(st.floats(low, high)) for _ in times]
    return pd.Series(values, index=pd.DatetimeIndex(pd.to_datetime(times, utc=True)))


@st.composite
def tables(draw: st.DrawFn) -> list[Bracket]:
    """Draw a sound table of brackets."""
    rates = sorted(draw(st.sets(st.floats(1e-4, 0.9), min_size=1, max_size=6)))
    caps = sorted(draw(st.sets(st.floats(1, 1e12), min_size=len(rates), max_size=len(rates))))
    caps[-1] = draw(st.sampled_from([caps[-1], inf]))
    share = draw(st.floats(0.1, 1.0))
    floors = [0.0, *caps[:-1]]
    return [
        Bracket(floor, cap, share / (rate + 0.01), rate)
        for floor, cap, rate in zip(floors, caps, rates, strict=True)
    ]


@st.composite
def venues(draw: st.DrawFn) -> Venue:
    """Draw a sound venue."""
    small = st.floats(0, 0.01)
    mode = draw(st.sampled_from(["close", "takeover", "partial"]))
    interest_on = draw(st.sampled_from(["balance", "loan"]))
    annual = st.floats(-1, 10) | series(-1, 10)
    return Venue(
        contract=Contract(
            kind=draw(st.sampled_from(["linear", "inverse"])),
            size=draw(st.floats(1e-6, 1e6)),
            lot=draw(small),
        ),
        brackets=draw(tables()),
        fees=Fees(taker=draw(small), maker=draw(st.floats(-0.01, 0.01)), maker_share=draw(small)),
        slippage=Slippage(rate=draw(small), max_participation=draw(st.none() | st.floats(0.1, 1))),
        liquidation=Liquidation(
            mode=mode,
            fee=draw(small),
            slippage=draw(small),
            step=draw(st.just("bracket") | st.floats(0.1, 1)),
            full_below=draw(st.floats(0, 1e5)) if mode == "partial" else 0.0,
        ),
        interest_on=interest_on,
        borrow_rate=draw(annual),
        cash_rate=draw(annual),
        short_rate=draw(annual) if interest_on == "loan" else 0.0,
        day_count=draw(st.floats(360, 366)),
        includes_close_fee=draw(st.booleans()),
        margin_multiplier=draw(st.floats(0.1, 5) | series(0.1, 5)),
        call_grace=draw(st.none() | st.integers(0, 10)),
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(venues())
def test_any_venue_goes_to_text_and_to_data_and_back(venue: Venue) -> None:
    assert eval(repr(venue), dict(NAMES)) == venue
    assert Venue.from_dict(venue.to_dict()) == venue
    stored = json.dumps(venue.to_dict(), allow_nan=False)
    read = Venue.from_dict(json.loads(stored))
    assert read == venue
    assert hash(read) == hash(venue)


def test_stored_data_can_be_read_from_toml_with_its_own_times_and_infinity() -> None:
    text = """
    contract = {}
    fees = {taker = 5e-4, maker = 2e-4}
    slippage = {rate = 1e-4}
    liquidation = {fee = 0.0125, slippage = 0.002}
    interest_on = "balance"
    cash_rate = {time = [2021-01-01T00:00:00Z, 2021-01-02T00:00:00Z], value = [0.01, 0.02]}
    brackets = [
      {floor = 0, cap = 50_000, max_leverage = 100, maintenance_rate = 0.005},
      {floor = 50_000, cap = 250_000, max_leverage = 50, maintenance_rate = 0.01},
      {floor = 250_000, cap = inf, max_leverage = 20, maintenance_rate = 0.025},
    ]
    """
    venue = Venue.from_dict(tomllib.loads(text.replace("      {", "{").replace("\n    ", "\n")))
    assert venue == make_venue(interest_on="balance", cash_rate=by_day(0.01, 0.02))


def test_a_simple_venue_has_one_bracket_no_lot_and_the_costs_that_were_said() -> None:
    venue = Venue.simple(
        taker=6e-4, slippage=3e-4, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.01
    )
    assert venue.brackets == (Bracket(0.0, inf, 50.0, 0.01, 0.0),)
    assert venue.fees == Fees(taker=6e-4, maker=6e-4)
    assert venue.slippage == Slippage(rate=3e-4)
    assert venue.liquidation == Liquidation(fee=0.01, slippage=3e-4)
    assert (venue.contract.kind, venue.contract.lot, venue.contract.min_notional) == (
        "linear",
        0,
        0,
    )


def test_the_binance_preset_is_the_published_table() -> None:
    venue = Venue.preset("binance-usdm", "BTCUSDT")
    rows = [
        (row.floor, row.cap, row.max_leverage, row.maintenance_rate, row.amount)
        for row in venue.brackets
    ]
    assert rows == BTCUSDT
    held = next(row for row in venue.brackets if row.floor < 550_000 <= row.cap)
    assert (held.maintenance_rate, held.amount) == (0.005, 50.0)
    assert venue.contract == Contract(lot=0.001, tick=0.1, min_notional=100.0)
    assert venue.fees == Fees(taker=5e-4, maker=2e-4)
    assert venue.liquidation == Liquidation(mode="close", fee=0.0125, slippage=0.002)


def test_every_preset_builds_with_a_date_and_a_source_for_each_group() -> None:
    listed = preset_files.available()
    assert ("binance-usdm", "BTCUSDT", "2024-10-24") in [
        (each.venue, each.symbol, each.date) for each in listed
    ]
    for preset in listed:
        assert Venue.preset(preset.venue, preset.symbol)
        origins = preset_files.origins(preset.venue, preset.symbol)
        assert {"contract", "fees", "slippage", "liquidation", "brackets"} <= {
            origin.group for origin in origins
        }
        for origin in origins:
            assert pd.Timestamp(origin.date)
            assert len(origin.source) > 20

"""What breaks a rule of a venue is refused with the rule, the value, the place and the cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

import pandas as pd
import pytest

from backtest.base.errors import BacktestError, ParameterError, VenueError
from backtest.venue.brackets import Bracket
from backtest.venue.venue import Contract, Fees, Liquidation, Slippage, Venue
from tests.venue.published_tables import BTCUSDT, by_day, liquidation, make_brackets, make_venue

Bad = tuple[Callable[[], object], type[BacktestError], str, str, str, str]
# What is built, the error, then a piece of each: the rule, the value, the place, the cure.
BAD: dict[str, Bad] = {
    "a contract of an unknown kind": (
        lambda: Contract(kind="inverted"), ParameterError,
        "one of linear, inverse", "'inverted'; did you mean 'inverse'?", "Contract.kind", "choose"),
    "a contract without size": (
        lambda: Contract(size=0), ParameterError,
        "size must be over 0", "got 0", "Contract.size", "over 0"),
    "a contract of infinite size": (
        lambda: Contract(size=inf), ParameterError,
        "size must be finite", "got inf", "Contract.size", "finite number"),
    "a negative lot": (
        lambda: Contract(lot=-0.001), ParameterError,
        "lot must be at least 0", "-0.001", "Contract.lot", "at least 0"),
    "a lot that is NaN": (
        lambda: Contract(lot=nan), ParameterError,
        "lot must be a number", "got nan", "Contract.lot", "as a number"),
    "a tick of zero": (
        lambda: Contract(tick=0), ParameterError,
        "tick must be over 0", "got 0", "Contract.tick", "over 0"),
    "a negative least notional": (
        lambda: Contract(min_notional=-5), ParameterError,
        "min_notional must be at least 0", "-5", "Contract.min_notional", "at least 0"),
    "a negative taker fee": (
        lambda: Fees(taker=-1e-4, maker=0.0), ParameterError,
        "taker must be at least 0", "-0.0001", "Fees.taker", "choose"),
    "a taker fee of all the notional": (
        lambda: Fees(taker=1, maker=0.0), ParameterError,
        "below 1", "got 1", "Fees.taker", "choose"),
    "a maker fee that is NaN": (
        lambda: Fees(taker=5e-4, maker=nan), ParameterError,
        "maker must be a number", "got nan", "Fees.maker", "as a number"),
    "a maker fee that is a text": (
        lambda: Fees(taker=5e-4, maker="0.02%"), ParameterError,  # type: ignore[arg-type]
        "maker must be a number", "0.02%", "Fees.maker", "as a number"),
    "a maker share in percent": (
        lambda: Fees(taker=5e-4, maker=2e-4, maker_share=50), ParameterError,
        "at most 1", "got 50", "Fees.maker_share", "at most 1"),
    "a negative fee per order": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=-1), ParameterError,
        "per_order must be at least 0", "got -1", "Fees.per_order", "at least 0"),
    "a fee per order that is NaN": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=nan), ParameterError,
        "per_order must be a number", "got nan", "Fees.per_order", "as a number"),
    "an infinite fee per order": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=inf), ParameterError,
        "per_order must be finite", "got inf", "Fees.per_order", "finite number"),
    "a fee per order that is a text": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order="2 USD"),  # type: ignore[arg-type]
        ParameterError, "per_order must be a number", "2 USD", "Fees.per_order", "as a number"),
    "fees per order that fall under 0": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, -2.0)), ParameterError,
        "per_order must be at least 0", "got -2", "Fees.per_order, at 2021-01-02", "at least 0"),
    "fees per order with a hole": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, nan)), ParameterError,
        "per_order must be finite", "got nan in 1 of 2", "first at 2021-01-02", "fill or drop"),
    "profits that count for an unknown thing": (
        lambda: make_venue(profit_counts="gains"), ParameterError,
        "profit_counts must be one of all, losses", "got 'gains'",
        "Venue.profit_counts (a share from 0 to 1", "choose"),
    "profits that count more than once": (
        lambda: make_venue(profit_counts=1.5), ParameterError,
        "profit_counts must be", "got 1.5", "Venue.profit_counts", "at most 1"),
    "profits that count less than nothing": (
        lambda: make_venue(profit_counts=-0.1), ParameterError,
        "profit_counts must be", "got -0.1", "Venue.profit_counts", "at least 0"),
    "profits whose share is NaN": (
        lambda: make_venue(profit_counts=nan), ParameterError,
        "profit_counts must be a number", "got nan", "Venue.profit_counts", "as a number"),
    "a negative impact of liquidations": (
        lambda: liquidation(impact=-0.1), ParameterError,
        "impact must be at least 0", "got -0.1", "Liquidation.impact", "at least 0"),
    "an impact of liquidations that is NaN": (
        lambda: liquidation(impact=nan), ParameterError,
        "impact must be a number", "got nan", "Liquidation.impact", "as a number"),
    "an impact where all margin is taken": (
        lambda: liquidation(mode="takeover", impact=0.5), ParameterError,
        "impact must be 0 with mode 'takeover'", "got 0.5", "Liquidation.impact", "leave impact"),
    "slippage of all the price": (
        lambda: Slippage(rate=1.0), ParameterError,
        "rate must be", "got 1", "Slippage.rate", "below 1"),
    "a negative impact": (
        lambda: Slippage(rate=0.0, impact=-1), ParameterError,
        "impact must be at least 0", "got -1", "Slippage.impact", "at least 0"),
    "an impact window without a unit": (
        lambda: Slippage(rate=0.0, impact_window="24"), ParameterError,
        "a duration is", "'24'", "Slippage.impact_window", "'1d'"),
    "no participation at all": (
        lambda: Slippage(rate=0.0, max_participation=0), ParameterError,
        "max_participation must be over 0", "got 0", "Slippage.max_participation", "at most 1"),
    "an unknown liquidation mode": (
        lambda: liquidation(mode="partly"), ParameterError,
        "close, takeover, partial", "'partly'; did you mean 'partial'?", "Liquidation.mode",
        "choose"),
    "a liquidation fee that is NaN": (
        lambda: liquidation(fee=nan), ParameterError,
        "fee must be a number", "got nan", "Liquidation.fee", "as a number"),
    "a negative liquidation slippage": (
        lambda: liquidation(slippage=-0.01), ParameterError,
        "slippage must be at least 0", "-0.01", "Liquidation.slippage", "choose"),
    "a step of nothing": (
        lambda: liquidation(mode="partial", step=0), ParameterError,
        "step must be at least 0.001", "got 0", "Liquidation.step", "at most 1"),
    "a step that is an unknown word": (
        lambda: liquidation(mode="partial", step="braket"), ParameterError,
        "step must be one of bracket", "'braket'; did you mean 'bracket'?", "Liquidation.step",
        "choose"),
    "full_below where nothing is partial": (
        lambda: liquidation(full_below=5_000), ParameterError,
        "unless mode is 'partial'", "5000 with mode 'close'", "Liquidation.full_below", "leave"),
    "a bracket whose cap is its floor": (
        lambda: Bracket(5.0, 5.0, 10, 0.05), VenueError,
        "cap must be over the floor", "got 5.0", "Bracket(floor=5.0", "floor < cap"),
    "a bracket that demands no margin": (
        lambda: Bracket(0.0, 5.0, 10, 0.0), VenueError,
        "maintenance_rate must be over 0 and below 1", "got 0.0", "Bracket(floor=0.0", "0 < maint"),
    "a bracket without leverage": (
        lambda: Bracket(0.0, 5.0, 0, 0.01), VenueError,
        "max_leverage must be over 0", "got 0.0", "Bracket(floor=0.0", "max_leverage"),
    "a bracket whose orders are liquidated at once": (
        lambda: Bracket(0.0, 5.0, 100, 0.02), VenueError,
        "must be at most 1", "got 2", "Bracket(floor=0.0", "1 / maintenance_rate"),
    "a bracket whose rate is NaN": (
        lambda: Bracket(0.0, 5.0, 100, nan), VenueError,
        "maintenance_rate must be a number", "got nan", "Bracket(floor=0.0", "0 < maint"),
    "a bracket of negative amount": (
        lambda: Bracket(0.0, 5.0, 100, 0.01, -1.0), VenueError,
        "amount must be at least 0", "got -1.0", "Bracket(floor=0.0", "give"),
    "no brackets": (
        lambda: make_venue(brackets=[]), VenueError,
        "at least one Bracket", "got []", "Venue.brackets", "give brackets="),
    "brackets that are no list": (
        lambda: make_venue(brackets=Bracket(0.0, 5.0, 100, 0.01)), VenueError,
        "a list of at least one Bracket", "got Bracket(", "Venue.brackets", "give brackets="),
    "a table that does not begin at 0": (
        lambda: make_venue(brackets=make_brackets()[1:]), VenueError,
        "floor must be 0", "got 50000", "Venue.brackets", "mend those rows"),
    "a table with a gap": (
        lambda: make_venue(brackets=make_brackets((1, "floor", 60_000))), VenueError,
        "floor must be 50000, the cap before it", "got 60000", "Venue.brackets", "mend"),
    "a table that goes on after infinity": (
        lambda: make_venue(brackets=make_brackets((0, "cap", inf))), VenueError,
        "bracket 2 (floor 50000): floor must be inf", "got 50000", "Venue.brackets", "mend"),
    "a rate that does not rise": (
        lambda: make_venue(brackets=make_brackets((1, "maintenance_rate", 0.005))), VenueError,
        "maintenance_rate must be over 0.005", "got 0.005", "Venue.brackets", "mend"),
    "a leverage that rises": (
        lambda: make_venue(brackets=make_brackets(
            (2, "max_leverage", 40), (1, "max_leverage", 30))), VenueError,
        "max_leverage must be at most 30", "got 40", "Venue.brackets", "mend"),
    "a wrong amount": (
        lambda: make_venue(brackets=make_brackets((1, "amount", 251.0))), VenueError,
        "amount must be 250.0", "got 251.0", "Venue.brackets", "leave amounts out"),
    "a first amount": (
        lambda: make_venue(brackets=make_brackets((0, "amount", 10.0))), VenueError,
        "amount must be 0.0", "got 10.0", "Venue.brackets", "leave amounts out"),
    "a closing fee that leaves no room": (
        lambda: make_venue(
            brackets=[Bracket(0.0, inf, 100, 0.0099)], includes_close_fee=True), VenueError,
        "with the closing fee x max_leverage", "got 1.04", "Venue.brackets", "mend"),
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
        "at most 10", "got 12", "Venue.borrow_rate", "at most 10"),
    "a cash rate that is NaN": (
        lambda: make_venue(cash_rate=nan), ParameterError,
        "cash_rate must be a number", "got nan", "Venue.cash_rate", "as a number"),
    "a short rate that is never charged": (
        lambda: make_venue(interest_on="balance", short_rate=0.02), ParameterError,
        "short_rate must be 0 with interest_on='balance'", "got 0.02", "Venue.short_rate",
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
        "day_count must be", "got 400", "Venue.day_count", "at most 366"),
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
        "True or False", "got 1", "Venue.includes_close_fee", "write True"),
    "a multiplier of zero": (
        lambda: make_venue(margin_multiplier=0.0), ParameterError,
        "margin_multiplier must be over 0", "got 0", "Venue.margin_multiplier", "over 0"),
    "a grace of half a bar": (
        lambda: make_venue(call_grace=0.5), ParameterError,
        "a whole number", "got 0.5", "Venue.call_grace", "whole"),
    "an endless grace": (
        lambda: make_venue(call_grace=inf), ParameterError,
        "must be finite", "got inf", "Venue.call_grace", "finite"),
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
        "must be finite", "got nan in 2 of 3 rows", "first at 2021-01-02 UTC", "fill or drop"),
    "a series with a time that is none": (
        lambda: make_venue(borrow_rate=pd.Series(
            [0.0, 0.1], index=pd.DatetimeIndex(["2021-01-01", None], tz="UTC"))), ParameterError,
        "increase strictly", "NaT in row 1", "Venue.borrow_rate", "sort"),
    "a series beyond the calendar": (
        lambda: make_venue(borrow_rate=by_day(0.1, start="2500-01-01")), ParameterError,
        "times from 1678 to 2261", "2500-01-01", "Venue.borrow_rate", "out of range"),
    "a series out of range": (
        lambda: make_venue(borrow_rate=by_day(0.01, 11.0)), ParameterError,
        "at most 10", "got 11", "Venue.borrow_rate, at 2021-01-02 UTC", "at most 10"),
    "a multiplier that is zero for a day": (
        lambda: make_venue(margin_multiplier=by_day(1.0, 0.0)), ParameterError,
        "over 0", "got 0", "Venue.margin_multiplier, at 2021-01-02 UTC", "over 0"),
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
        "a table of its fields", "got 0.1", "Venue.fees", "give a table"),
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
        "lot must be at least 0", "got -1", "x.toml, contract: Contract.lot", "at least 0"),
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
    assert "got nan" in caught.value.problem
    assert "got -1.0" in caught.value.problem

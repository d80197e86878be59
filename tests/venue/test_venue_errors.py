"""What breaks a rule of a venue is refused with the rule, the value, the place and the cure."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

import pandas as pd
import pytest

from backtest.base.errors import BacktestError, ParameterError, VenueError
from backtest.venue.brackets import Bracket
from backtest.venue.venue import Contract, Fees, Liquidation, Slippage, Venue
from tests.venue.published_tables import BTCUSDT, by_day, liquidation, make_brackets, make_venue

Bad = tuple[Callable[[], object], str, str]
# What is built, then what is found and where.
BAD: dict[str, Bad] = {
    "a contract of an unknown kind": (
        lambda: Contract(kind="inverted"), "'inverted'; did you mean 'inverse'?", "Contract.kind"),
    "a contract without size": (lambda: Contract(size=0), "got 0", "Contract.size"),
    "a contract of infinite size": (lambda: Contract(size=inf), "got inf", "Contract.size"),
    "a negative lot": (lambda: Contract(lot=-0.001), "-0.001", "Contract.lot"),
    "a lot that is NaN": (lambda: Contract(lot=nan), "got nan", "Contract.lot"),
    "a tick of zero": (lambda: Contract(tick=0), "got 0", "Contract.tick"),
    "a negative least notional": (lambda: Contract(min_notional=-5), "-5", "Contract.min_notional"),
    "a negative taker fee": (lambda: Fees(taker=-1e-4, maker=0.0), "-0.0001", "Fees.taker"),
    "a taker fee of all the notional": (lambda: Fees(taker=1, maker=0.0), "got 1", "Fees.taker"),
    "a maker fee of all the notional": (lambda: Fees(taker=0, maker=1), "got 1", "Fees.maker"),
    "a maker fee that is NaN": (lambda: Fees(taker=5e-4, maker=nan), "got nan", "Fees.maker"),
    "a maker fee that is a text": (
        lambda: Fees(taker=5e-4, maker="0.02%"),  # type: ignore[arg-type]
        "0.02%", "Fees.maker"),
    "a maker share in percent": (
        lambda: Fees(taker=5e-4, maker=2e-4, maker_share=50), "got 50", "Fees.maker_share"),
    "a negative fee per order": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=-1), "got -1", "Fees.per_order"),
    "a fee per order that is NaN": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=nan), "got nan", "Fees.per_order"),
    "an infinite fee per order": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=inf), "got inf", "Fees.per_order"),
    "a fee per order that is a text": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order="2 USD"),  # type: ignore[arg-type]
        "2 USD", "Fees.per_order"),
    "fees per order that fall under 0": (
        lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, -2.0)),
        "got -2", "Fees.per_order, at 2021-01-02"),
    "fees per order with a hole": (lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, nan)),
        "got nan in 1 of 2", "first at 2021-01-02"),
    "profits that count for an unknown thing": (lambda: make_venue(profit_counts="gains"),
        "got 'gains'", "Venue.profit_counts (a share from 0 to 1"),
    "profits that count more than once": (
        lambda: make_venue(profit_counts=1.5), "got 1.5", "Venue.profit_counts"),
    "profits that count less than nothing": (
        lambda: make_venue(profit_counts=-0.1), "got -0.1", "Venue.profit_counts"),
    "profits whose share is NaN": (
        lambda: make_venue(profit_counts=nan), "got nan", "Venue.profit_counts"),
    "a negative impact of liquidations": (
        lambda: liquidation(impact=-0.1), "got -0.1", "Liquidation.impact"),
    "an impact of liquidations that is NaN": (
        lambda: liquidation(impact=nan), "got nan", "Liquidation.impact"),
    "an impact where all margin is taken": (
        lambda: liquidation(mode="takeover", impact=0.5), "got 0.5", "Liquidation.impact"),
    "slippage of all the price": (lambda: Slippage(rate=1.0), "got 1", "Slippage.rate"),
    "a negative impact": (lambda: Slippage(rate=0.0, impact=-1), "got -1", "Slippage.impact"),
    "an impact window without a unit": (
        lambda: Slippage(rate=0.0, impact_window="24"), "'24'", "Slippage.impact_window"),
    "no participation at all": (
        lambda: Slippage(rate=0.0, max_participation=0), "got 0", "Slippage.max_participation"),
    "an unknown liquidation mode": (lambda: liquidation(mode="partly"),
        "'partly'; did you mean 'partial'?", "Liquidation.mode"),
    "a liquidation fee that is NaN": (lambda: liquidation(fee=nan), "got nan", "Liquidation.fee"),
    "a negative liquidation slippage": (
        lambda: liquidation(slippage=-0.01), "-0.01", "Liquidation.slippage"),
    "a step of nothing": (lambda: liquidation(mode="partial", step=0), "got 0", "Liquidation.step"),
    "a step that is an unknown word": (lambda: liquidation(mode="partial", step="braket"),
        "'braket'; did you mean 'bracket'?", "Liquidation.step"),
    "full_below where nothing is partial": (
        lambda: liquidation(full_below=5_000), "5000 with mode 'close'", "Liquidation.full_below"),
    "a bracket whose cap is its floor": (
        lambda: Bracket(5.0, 5.0, 10, 0.05), "got 5.0", "Bracket(floor=5.0"),
    "a bracket that demands no margin": (
        lambda: make_venue().override(brackets=[Bracket(0.0, 5.0, 10, 0.0)]), "got 0.0",
        "Venue.brackets"),
    "a bracket without leverage": (
        lambda: Bracket(0.0, 5.0, 0, 0.01), "got 0.0", "Bracket(floor=0.0"),
    "a bracket whose orders are liquidated at once": (
        lambda: Bracket(0.0, 5.0, 100, 0.02), "got 2", "Bracket(floor=0.0"),
    "a bracket whose rate is NaN": (
        lambda: Bracket(0.0, 5.0, 100, nan), "got nan", "Bracket(floor=0.0"),
    "a bracket of negative amount": (
        lambda: Bracket(0.0, 5.0, 100, 0.01, -1.0), "got -1.0", "Bracket(floor=0.0"),
    "no brackets": (lambda: make_venue(brackets=[]), "got []", "Venue.brackets"),
    "brackets that are no list": (lambda: make_venue(brackets=Bracket(0.0, 5.0, 100, 0.01)),
        "got Bracket(", "Venue.brackets"),
    "a table that does not begin at 0": (
        lambda: make_venue(brackets=make_brackets()[1:]), "got 50000", "Venue.brackets"),
    "a table with a gap": (lambda: make_venue(brackets=make_brackets((1, "floor", 60_000))),
        "got 60000", "Venue.brackets"),
    "a table that goes on after infinity": (
        lambda: make_venue(brackets=make_brackets((0, "cap", inf))), "got 50000", "Venue.brackets"),
    "a rate that does not rise": (
        lambda: make_venue(brackets=make_brackets((1, "maintenance_rate", 0.005))),
        "got 0.005", "Venue.brackets"),
    "a leverage that rises": (
        lambda: make_venue(brackets=make_brackets((2, "max_leverage", 40), (1, "max_leverage",
            30))),
        "got 40", "Venue.brackets"),
    "a wrong amount": (lambda: make_venue(brackets=make_brackets((1, "amount", 251.0))),
        "got 251.0", "Venue.brackets"),
    "a first amount": (lambda: make_venue(brackets=make_brackets((0, "amount", 10.0))), "got 10.0",
        "Venue.brackets"),
    "a closing fee that leaves no room": (
        lambda: make_venue(brackets=[Bracket(0.0, inf, 100, 0.0099)], includes_close_fee=True),
        "got 1.04", "Venue.brackets"),
    "a contract that is a text": (
        lambda: make_venue(contract="linear"), "'linear'", "Venue.contract"),
    "fees that are a number": (lambda: make_venue(fees=5e-4), "0.0005", "Venue.fees"),
    "interest on something else": (
        lambda: make_venue(interest_on="balanced"), "did you mean 'balance'?", "Venue.interest_on"),
    "a borrow rate in percent": (
        lambda: make_venue(borrow_rate=12.0), "got 12", "Venue.borrow_rate"),
    "a cash rate that is NaN": (lambda: make_venue(cash_rate=nan), "got nan", "Venue.cash_rate"),
    "a short rate that is never charged": (
        lambda: make_venue(interest_on="balance", short_rate=0.02), "got 0.02", "Venue.short_rate"),
    "a rate on nothing": (
        lambda: make_venue(borrow_rate=0.05), "borrow_rate 0.05", "Venue.interest_on"),
    "a series of rates on nothing": (lambda: make_venue(cash_rate=by_day(0.0, 0.02)),
        "cash_rate a series of 2 values", "Venue.interest_on"),
    "a year of 400 days": (lambda: make_venue(day_count=400), "got 400", "Venue.day_count"),
    "a jitter of zero": (lambda: make_venue(funding_jitter="0s"), "'0s'", "Venue.funding_jitter"),
    "funding paid by nobody": (lambda: make_venue(isolated_funding="walet"),
        "did you mean 'wallet'?", "Venue.isolated_funding"),
    "maintenance at another price": (
        lambda: make_venue(maintenance_at="last"), "'last'", "Venue.maintenance_at"),
    "a flag that is a number": (
        lambda: make_venue(includes_close_fee=1), "got 1", "Venue.includes_close_fee"),
    "a multiplier of zero": (
        lambda: make_venue(margin_multiplier=0.0), "got 0", "Venue.margin_multiplier"),
    "a grace of half a bar": (lambda: make_venue(call_grace=0.5), "got 0.5", "Venue.call_grace"),
    "an endless grace": (lambda: make_venue(call_grace=inf), "got inf", "Venue.call_grace"),
    "a series without a zone": (lambda: make_venue(cash_rate=by_day(0.01, 0.02, tz=None)),
        "without a time zone", "Venue.cash_rate"),
    "a series that is not by time": (
        lambda: make_venue(cash_rate=pd.Series([0.01])), "RangeIndex", "Venue.cash_rate"),
    "a series out of order": (lambda: make_venue(cash_rate=by_day(0.01, 0.02)[::-1]),
        "2021-01-01 00:00:00+00:00 in row 1", "Venue.cash_rate"),
    "a series with one time twice": (lambda: make_venue(cash_rate=by_day(0.01, 0.02).iloc[[0, 0]]),
        "in row 1", "Venue.cash_rate"),
    "a series with a hole": (lambda: make_venue(borrow_rate=by_day(0.01, nan, nan)),
        "got nan in 2 of 3 rows", "first at 2021-01-02 UTC"),
    "a series with a time that is none": (
        lambda: make_venue(borrow_rate=pd.Series([0.0, 0.1], index=pd.DatetimeIndex(["2021-01-01",
            None], tz="UTC"))),
        "NaT in row 1", "Venue.borrow_rate"),
    "a series beyond the calendar": (
        lambda: make_venue(borrow_rate=by_day(0.1, start="2500-01-01")),
        "2500-01-01", "Venue.borrow_rate"),
    "a series out of range": (lambda: make_venue(borrow_rate=by_day(0.01, 11.0)), "got 11",
        "Venue.borrow_rate, at 2021-01-02 UTC"),
    "a multiplier that is zero for a day": (lambda: make_venue(margin_multiplier=by_day(1.0, 0.0)),
        "got 0", "Venue.margin_multiplier, at 2021-01-02 UTC"),
    "an empty series": (
        lambda: make_venue(borrow_rate=by_day()), "an empty series", "Venue.borrow_rate"),
    "a series of texts": (
        lambda: make_venue(borrow_rate=by_day("a", "b")), "a series of str", "Venue.borrow_rate"),
    "an unknown preset venue": (lambda: Venue.preset("binance-usd", "BTCUSDT"),
        "'binance-usd'; did you mean 'binance-usdm'?", "Venue.preset"),
    "an unknown preset symbol": (lambda: Venue.preset("binance-usdm", "btcusd"),
        "'btcusd'; did you mean 'BTCUSDT'?", "'binance-usdm'"),
    "an unknown field in stored data": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "borow_rate": 0.1}),
        "'borow_rate'; did you mean 'borrow_rate'?", "Venue"),
    "an unknown field in a stored part": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "fees": {"taker": 0.1, "make": 0.1}}),
        "'make'; did you mean 'maker'?", "Venue.fees"),
    "stored fees that say no maker rate": (
        lambda: Fees.from_dict({"taker": 0.1}, where="x.toml, fees"), "no default", "x.toml, fees"),
    "a stored part that is no table": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "fees": 0.1}), "got 0.1", "Venue.fees"),
    "a stored series of unequal lists": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "cash_rate": {"time": ["2021"],
            "value": []}}),
        "'value': []", "Venue.cash_rate"),
    "a stored series with an unreadable time": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "cash_rate": {"time": ["soon"],
            "value": [0.0]}}),
        "soon", "Venue.cash_rate"),
    "a bad number in a file": (lambda: Contract.from_dict({"lot": -1}, where="x.toml, contract"),
        "got -1", "x.toml, contract: Contract.lot"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_breaks_a_rule_is_refused_with_value_and_place(case: str) -> None:
    build, value, place = BAD[case]
    with pytest.raises(BacktestError) as caught:
        build()
    assert value in caught.value.problem
    assert place in caught.value.where
    assert caught.value.cure


@pytest.mark.parametrize(
    "build", [Fees, lambda: Fees(taker=5e-4), Slippage, Liquidation, lambda: Liquidation(fee=0.01)]
)
def test_costs_are_said_and_never_assumed(build: Callable[[], object]) -> None:
    with pytest.raises(ParameterError, match="needs"):
        build()


@pytest.mark.parametrize(("build", "rule"), [
    (lambda: Contract(knid="linear"), "did you mean 'kind'"),
    (lambda: Contract("linear"), "takes keyword arguments only"),
])  # fmt: skip
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

"""What breaks a rule of a venue is refused with the rule, the value, the place and the cure."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan

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
    "a lot that is NaN": (lambda: Contract(lot=nan), "got nan", "Contract.lot"),
    "a taker fee of all the notional": (lambda: Fees(taker=1, maker=0.0), "got 1", "Fees.taker"),
    "a maker share in percent": (
        lambda: Fees(taker=5e-4, maker=2e-4, maker_share=50), "got 50", "Fees.maker_share"),
    "fees per order with a hole": (lambda: Fees(taker=5e-4, maker=2e-4, per_order=by_day(1.0, nan)),
        "got nan in 1 of 2", "first at 2021-01-02"),
    "slippage of all the price": (lambda: Slippage(rate=1.0), "got 1", "Slippage.rate"),
    "an unknown liquidation mode": (lambda: liquidation(mode="partly"),
        "'partly'; did you mean 'partial'?", "Liquidation.mode"),
    "a bracket whose orders are liquidated at once": (
        lambda: Bracket(0.0, 5.0, 100, 0.02), "got 2", "Bracket(floor=0.0"),
    "a table with a gap": (lambda: make_venue(brackets=make_brackets((1, "floor", 60_000))),
        "got 60000", "Venue.brackets"),
    "a rate that does not rise": (
        lambda: make_venue(brackets=make_brackets((1, "maintenance_rate", 0.005))),
        "got 0.005", "Venue.brackets"),
    "a wrong amount": (lambda: make_venue(brackets=make_brackets((1, "amount", 251.0))),
        "got 251.0", "Venue.brackets"),
    "a borrow rate in percent": (
        lambda: make_venue(borrow_rate=12.0), "got 12", "Venue.borrow_rate"),
    "a rate on nothing": (
        lambda: make_venue(borrow_rate=0.05), "borrow_rate 0.05", "Venue.interest_on"),
    "a series without a zone": (lambda: make_venue(cash_rate=by_day(0.01, 0.02, tz=None)),
        "without a time zone", "Venue.cash_rate"),
    "a series out of order": (lambda: make_venue(cash_rate=by_day(0.01, 0.02)[::-1]),
        "2021-01-01 00:00:00+00:00 in row 1", "Venue.cash_rate"),
    "a series out of range": (lambda: make_venue(borrow_rate=by_day(0.01, 11.0)), "got 11",
        "Venue.borrow_rate, at 2021-01-02 UTC"),
    "an unknown preset symbol": (lambda: Venue.preset("binance-usdm", "btcusd"),
        "'btcusd'; did you mean 'BTCUSDT'?", "'binance-usdm'"),
    "an unknown field in stored data": (
        lambda: Venue.from_dict({**make_venue().to_dict(), "borow_rate": 0.1}),
        "'borow_rate'; did you mean 'borrow_rate'?", "Venue"),
    "stored fees that say no maker rate": (
        lambda: Fees.from_dict({"taker": 0.1}, where="x.toml, fees"), "no default", "x.toml, fees"),
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

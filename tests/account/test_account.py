"""The settings of an account: what is accepted, and what is refused and why."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from math import inf, nan
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.account.account import Account
from backtest.account.account_checks import check_account
from backtest.base.errors import ParameterError
from backtest.venue.venue import Venue

VENUE = Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.01, max_leverage=50, liquidation_fee=0.0125
)
CALLED = {"margin_call": 0.8, "reserve": 5_000.0, "top_up_to": 0.5}


def by_day(*values: object, tz: str | None = "UTC") -> pd.Series:
    """Return values one day apart from 2021-01-01."""
    return pd.Series(list(values), index=pd.date_range("2021-01-01", periods=len(values), tz=tz))


def fit(venue: Venue = VENUE, **choices: Any) -> None:
    """Check an account against a venue."""
    check_account(Account(**choices), venue)


Bad = tuple[Callable[[], object], str, str, str, str]

# What is built, then a piece of each: the rule, the value, the place, the cure.
BAD: dict[str, Bad] = {
    "capital that is NaN": (
        lambda: Account(capital=nan),
        "capital must be a number", "got nan", "Account.capital", "as a number"),
    "isolated margin without a leverage": (
        lambda: fit(margin="isolated"),
        "isolated margin needs", "a venue_leverage", "Account.venue_leverage",
        "give venue_leverage="),
    "a venue leverage over what the venue allows": (
        lambda: fit(venue_leverage=51),
        "at most 50", "got 51", "Account.venue_leverage", "up to 50"),
    "bounds of leverage the wrong way round": (
        lambda: fit(min_leverage=3, max_leverage=2),
        "min_leverage must be at most max_leverage 2", "got 3", "Account.min_leverage", "lower"),
    "a least leverage that can never be held": (
        lambda: fit(venue_leverage=2, min_leverage=3),
        "min_leverage must be at most 2", "got 3", "Account.min_leverage", "up to 2"),
    "a stop of the whole price": (
        lambda: Account(stop_loss=1.0),
        "stop_loss must be over 0 and below 1", "got 1", "Account.stop_loss", "below 1"),
    "a margin call after liquidation": (
        lambda: Account(margin_call=1.2),
        "margin_call must be", "got 1.2", "Account.margin_call", "at most 1"),
    "a reserve that is never used": (
        lambda: fit(reserve=1_000),
        "is used only with", "reserve 1000, margin_call None", "Account.reserve",
        "margin_call=0.8"),
    "a top-up without a reserve": (
        lambda: fit(margin_call=0.8, top_up_to=0.5),
        "is used only with margin_call and a reserve", "reserve 0", "Account.top_up_to",
        "reserve=5000"),
    "a top-up that does not help": (
        lambda: fit(**{**CALLED, "top_up_to": 0.8}),
        "top_up_to must be below margin_call 0.8", "got 0.8", "Account.top_up_to", "lower"),
    "a venue that reduces on calls that are never made": (
        lambda: fit(venue=replace(VENUE, call_grace=3)),
        "needs a margin_call", "call_grace 3", "Account.margin_call", "margin_call=0.8"),
    "automatic margin where all money backs the position": (
        lambda: Account(auto_margin=True),
        "auto_margin must be False in cross margin", "got True", "Account.auto_margin",
        "margin='isolated'"),
    "flows without a zone": (
        lambda: Account(flows=by_day(1.0, tz=None)),
        "indexed by UTC time", "without a time zone", "Account.flows", "tz_localize"),
    "an infinite deposit": (
        lambda: Account(flows=by_day(1.0, inf)),
        "must be finite", "got inf in 1 of 2 rows", "first at 2021-01-02 UTC", "fill or drop"),
    "an unknown stored field": (
        lambda: Account.from_dict({"capitol": 1}),
        "Account has no field", "'capitol'; did you mean 'capital'?", "Account", "use capital"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_breaks_a_rule_is_refused_with_rule_value_place_and_cure(case: str) -> None:
    build, rule, value, place, cure = BAD[case]
    with pytest.raises(ParameterError) as caught:
        build()
    assert rule in caught.value.problem
    assert value in caught.value.problem
    assert place in caught.value.where
    assert cure in caught.value.cure


@pytest.mark.parametrize("choices", [
    {},
    {"venue_leverage": 50},
    {"margin": "isolated", "venue_leverage": 10, "min_leverage": 10},
    {"margin_call": 1.0},
    CALLED,
    {"flows": by_day(100, -50)},
])  # fmt: skip
def test_sound_accounts_fit_a_venue(choices: dict[str, Any]) -> None:
    fit(**choices)


def test_a_venue_that_reduces_on_calls_takes_an_account_that_makes_them() -> None:
    fit(venue=replace(VENUE, call_grace=3), margin_call=0.8)


def test_the_defaults_are_those_of_the_design() -> None:
    assert Account() == Account(
        capital=10_000,
        margin="cross",
        venue_leverage=None,
        min_leverage=0.0,
        max_leverage=inf,
        band=0.0,
        stop_loss=None,
        margin_call=None,
        reserve=0.0,
        top_up_to=None,
        after_liquidation="continue",
        flows=None,
        ruin_at=None,
    )
    assert repr(Account()) == "Account()"


def test_an_account_cannot_be_changed_and_its_flows_are_its_own() -> None:
    mine = by_day(100, -50)
    account = Account(flows=mine)
    mine.iloc[0] = 0
    assert account.flows is not None
    assert account.flows.tolist() == [100.0, -50.0]
    with pytest.raises(ValueError, match="read-only"):
        account.flows.iloc[0] = 1.0
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        account.capital = 1.0  # type: ignore[misc]


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """Draw a sound account."""
    is_isolated = draw(st.booleans())
    setting = st.floats(0.1, 125)
    least = draw(st.floats(0, 10))
    amounts = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=4)
    return Account(
        capital=draw(st.floats(1e-3, 1e12)),
        margin="isolated" if is_isolated else "cross",
        venue_leverage=draw(setting if is_isolated else st.none() | setting),
        min_leverage=least,
        max_leverage=draw(st.just(inf) | st.floats(10, 100)),
        band=draw(st.floats(0, 1)),
        stop_loss=draw(st.none() | st.floats(0.01, 0.99)),
        after_liquidation=draw(st.sampled_from(["continue", "halt"])),
        flows=draw(st.none() | amounts.map(lambda values: by_day(*values))),
        **draw(st.sampled_from([{}, {"margin_call": 0.9}, CALLED])),
    )


@settings(max_examples=60)
@given(accounts())
def test_any_account_goes_to_text_and_to_data_and_back(account: Account) -> None:
    assert eval(repr(account), {"Account": Account, "inf": inf, "pd": pd}) == account
    stored = json.dumps(account.to_dict(), allow_nan=False)
    read = Account.from_dict(json.loads(stored))
    assert read == account
    assert hash(read) == hash(account)

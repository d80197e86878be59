"""The settings of an account: what is accepted, and what is refused and why."""

import json
from dataclasses import FrozenInstanceError, replace
from math import inf
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.account.account import Account, check_setting
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
    check_setting(Account(**choices), venue)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a venue leverage over what the venue allows": ({"venue_leverage": 51}, "at most 50, .*got 51"),
    "a least leverage that can never be held": (
        {"venue_leverage": 2, "min_leverage": 3}, "min_leverage must be at most 2, .*got 3"),
    "a venue that reduces on calls that are never made": (
        {"venue": replace(VENUE, call_grace=3)}, "call_grace 3 needs a margin_call"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_an_account_that_does_not_fit_a_venue_is_refused(case: str) -> None:
    choices, words = BAD[case]
    with pytest.raises(ParameterError, match=words):
        fit(**choices)


@pytest.mark.parametrize("choices", [
    {},
    {"venue_leverage": 50},
    {"margin": "isolated", "venue_leverage": 10, "min_leverage": 10},
    {"margin_call": 1.0},
    CALLED,
    {"flows": by_day(100, -50)},
    {"venue": replace(VENUE, call_grace=3), "margin_call": 0.8},
])  # fmt: skip
def test_sound_accounts_fit_a_venue(choices: dict[str, Any]) -> None:
    fit(**choices)


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

"""Peeks that hide are refused by a run, each with an error that fits its kind."""

from typing import Any

import pytest

import backtest as bt
from tests.fast_cases import every_nth
from tests.hidden_peeks import POLICIES, forget
from tests.markets import free_venue
from tests.peeks import MARKET

TERMS: dict[str, Any] = {"venue": free_venue(), "account": bt.Account(), "compile": False}
VERIFY, AHEAD = "cannot be verified: column 'x'", "looks ahead: column 'x' is"
SETTLED = "looks ahead: column 'x' uses the settlement stamped at the close of its bar"
IN_PLACE = {
    "seed of all closes, 90 %": VERIFY,
    "drawn flags": VERIFY,
    "last digits of each close": AHEAD,
    "market written to": "cannot set WRITEABLE flag",
    "base of a view": AHEAD,
    "settled around the close": SETTLED,
    "market on self": AHEAD,
    "decided by a market on self": "no attribute 'kept'",
    "seed of all closes, 50 %": VERIFY,
    "seed of all highs": VERIFY,
    "seed of the sum": AHEAD,
    "seed of the last close": VERIFY,
    "seed of a rolling mean": VERIFY,
    "jitter": VERIFY,
    "drawn sizes": VERIFY,
    "drawn, float32": VERIFY,
    "drawn from float32": VERIFY,
    "chaos": VERIFY,
    "bootstrap": VERIFY,
    "column on self": AHEAD,
    "market written through a view": "cannot set WRITEABLE flag",
    "market replaced": AHEAD,
    "past the end": r"looks ahead|not repeatable",
    "1 row in 20": AHEAD,
    "1 row in 50": AHEAD,
    "before large moves": AHEAD,
    "late in long markets": AHEAD,
    "at day ends": AHEAD,
    "settled at the close": SETTLED,
    "next settlement": AHEAD,
}
"""Kinds that comparisons inside this process find, with the text of the error."""


DENSE = ("1 row in 200", "1 row in 200, first", "one hour of the day", "one day of the week",
         "1 time in 50", "on much volume")  # fmt: skip
"""Kinds that cuts at consecutive bars find, the first time that the code is seen."""
KEPT = [name for name in POLICIES if name not in (*IN_PLACE, *DENSE)]
"""Kinds that only a fresh process finds."""


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    forget()
    yield
    forget()


@pytest.mark.parametrize(("name", "text"), every_nth(IN_PLACE.items(), 4))
def test_a_hidden_peek_is_refused(name: str, text: str):
    with pytest.raises(bt.PolicyError, match=text):
        bt.run(MARKET, POLICIES[name](), **TERMS)


@pytest.mark.fresh
@pytest.mark.parametrize("name", DENSE)
def test_a_peek_in_few_rows_is_refused(name: str):
    with pytest.raises(bt.PolicyError, match=AHEAD):
        bt.run(MARKET, POLICIES[name](), **TERMS)


@pytest.mark.slow
@pytest.mark.fresh
@pytest.mark.parametrize("name", KEPT)
def test_a_peek_at_what_was_kept_is_refused(name: str):
    with pytest.raises(bt.PolicyError, match=r"keeps something between calls: .* in a fresh one"):
        bt.run(MARKET, POLICIES[name](), **TERMS)

"""Peeks that hide are refused by a run, each with an error that fits its kind."""

from typing import Any

import pytest

import backtest as bt
from tests.hidden_peeks import POLICIES, forget
from tests.kit import every_nth, free_venue
from tests.peeks import MARKET

TERMS: dict[str, Any] = {"venue": free_venue(), "account": bt.Account(), "compile": False}
SETTLED = "looks ahead: column 'x' uses the settlement stamped at the close of its bar"
MISSED = (
    "memo by time",
    "fitted once",
    "lru_cache",
    "objects in memory",
    "frames of callers",
    "1 row in 200",
    "1 row in 200, first",
    "decided by a market in the module",
)
"""Kinds that no run finds: docs/policies.md lists them."""
TEXTS = {
    "market written to": "cannot set WRITEABLE flag",
    "market written through a view": "cannot set WRITEABLE flag",
    "decided by a market on self": "no attribute 'kept'",
    "settled at the close": SETTLED,
    "settled around the close": SETTLED,
}
FOUND = [name for name in POLICIES if name not in MISSED]


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    forget()
    yield
    forget()


def test_few_kinds_are_missed():
    assert len(FOUND) >= 45


@pytest.mark.parametrize("name", every_nth(FOUND, 4))
def test_a_hidden_peek_is_refused(name: str):
    text = TEXTS.get(name, "(looks ahead|is not repeatable): column 'x'")
    with pytest.raises(bt.PolicyError, match=text):
        bt.run(MARKET, POLICIES[name](), **TERMS)

"""Venues, accounts and margin modes compared."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant
from tests.markets import free_venue

# 60 hours at 100, but the last is at 100.03; funding of 0 is settled at hours 0, 8, ... 56
CLOSES = np.append(np.full(59, 100.0), 100.03)
INDEX = pd.date_range("2020-01-01", periods=60, freq="1h", tz="UTC")
BARS = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), CLOSES), index=INDEX)
BARS.loc[INDEX[-1], ["open", "low"]] = 100.0
FUNDING = pd.DataFrame({"rate": np.zeros(8)}, index=INDEX[::8])
MARKET = bt.Market.from_frames(BARS, mark=BARS, funding=FUNDING)
LAZY = bt.Account(band=0.5)
"""One position of 1x or 2x is opened at 100, and kept."""
QUICK = {"draws": 99, "confidence": 0.9, "sampling": "1h", "compile": False}


def compare(policies, **terms):
    return bt.compare(MARKET, policies, **{"account": LAZY, **QUICK, **terms})


def test_rows_are_runs_under_their_terms_and_labels_name_what_differs():
    cheap, dear = free_venue(), free_venue().override({"fees.taker": 0.001})
    isolated = dataclasses.replace(LAZY, venue_leverage=5.0)
    done = compare(
        Constant(leverage=2.0),
        venues={"cheap": cheap, "dear": dear},
        account=isolated,
        margins=["cross", "isolated"],
        baseline="dear/cross",
    )
    assert done.names == ("cheap/cross", "cheap/isolated", "dear/cross", "dear/isolated")
    for name in done.names:
        venue, margin = name.split("/")
        alone = bt.run(
            MARKET, Constant(leverage=2.0), venue={"cheap": cheap, "dear": dear}[venue],
            account=dataclasses.replace(isolated, margin=margin), sampling="1h", compile=False,
        )  # fmt: skip
        assert done.results[name].manifest["id"] == alone.manifest["id"]
        assert done.manifest["policies"][name]["account"]["margin"] == margin
    assert done.manifest["policies"]["dear/isolated"]["terms"] == "venue dear, margin isolated"
    assert done.manifest["venue"]["fees"]["taker"] == 0.001  # the baseline's
    row = done.differences.set_index(["policy", "measure"]).loc[("cheap/cross", "log_growth")]
    assert row["difference"] > 0.0
    assert "venue dear, margin isolated" in done.summary()


def test_accounts_cross_policies():
    policies = {"one": Constant(leverage=1.0), "two": Constant(leverage=2.0)}
    accounts = {"small": bt.Account(capital=1_000.0), "large": bt.Account(capital=1e6)}
    done = compare(policies, venue=free_venue(), account=None, accounts=accounts)
    assert done.names == ("one/small", "one/large", "two/small", "two/large")
    assert done.results["two/large"].account.capital == 1e6


def test_a_comparison_with_terms_is_saved_and_reported(tmp_path):
    venues = {"a": free_venue(), "b": free_venue().override({"fees.taker": 0.001})}
    done = compare(Constant(leverage=2.0), venues=venues)
    again = bt.Comparison.load(done.save(tmp_path))
    assert again.summary() == done.summary()


INVERSE = bt.Venue.preset("bybit-inverse", "BTCUSD")
WRONG = {
    "no venue": ({"venue": None}, "a comparison needs venue or venues"),
    "both": ({"venues": {"a": free_venue()}, "venue": free_venue()}, "give either venue or venues"),
    "a list": ({"venues": [free_venue()]}, "must be a mapping of labels"),
    "one row": ({"venues": {"a": free_venue()}}, "needs two accounts or more, got 1"),
    "a word": ({"margins": "cross", "venue": free_venue()}, "must be a list of different modes"),
    "a mode": ({"margins": ["crss"], "venue": free_venue()}, "margin must be one of"),
    "kinds": ({"venues": {"a": free_venue(), "b": INVERSE}}, "settle in the same kind"),
}  # fmt: skip


@pytest.mark.parametrize(("terms", "message"), WRONG.values(), ids=WRONG)
def test_wrong_terms_are_one_clear_error(terms, message):
    with pytest.raises(bt.ParameterError, match=message):
        compare(Constant(leverage=1.0), **terms)

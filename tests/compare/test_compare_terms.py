"""Venues, accounts and margin modes compared, and the costs at which their order turns."""

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


@pytest.mark.slow
def test_the_order_turns_where_the_arithmetic_says():
    """E(2x) = 1 + 2 (0.0003 - f - 7 x) and E(1x) = 1 + 0.0003 - f - 7 x are equal at 0.

    f is the fee of the only fill, x the rate of seven settlements, all on notionals at 100: the
    fee at which both stand still is 3 bp, the funding 3 / 7 bp.
    """
    policies = {"one": Constant(leverage=1.0), "two": Constant(leverage=2.0)}
    turns = compare(policies, venue=free_venue(), break_even=True).break_even
    assert turns[["policy", "against", "cost"]].to_numpy().tolist() == [
        ["two", "one", "fee"],
        ["two", "one", "funding"],
    ]
    assert turns["added"].to_numpy() == pytest.approx([3e-4, 3e-4 / 7], abs=2e-7)
    assert (turns["gap"] > 0.0).all()
    assert (turns["low"][0], turns["high"][0]) == (0.0, 0.005)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the band")
def test_the_order_of_accounts_with_several_positions_turns_where_the_arithmetic_says():
    """With half in each, and B at 100, E(2x) = 1 + 2 (0.0003 / 2 - f - 7 x): 1.5 and 1.5 / 7."""
    still = BARS.assign(close=100.0, high=100.0)
    other = bt.Market.from_frames(still, mark=still, funding=FUNDING)
    policies = {"one": Constant(leverage=1.0), "two": Constant(leverage=2.0)}
    venues = {"A": free_venue(), "B": free_venue()}
    turns = bt.compare(
        bt.Markets({"A": MARKET, "B": other}), policies, venue=venues, account=LAZY,
        break_even=True, **QUICK,
    ).break_even  # fmt: skip
    assert turns["added"].to_numpy() == pytest.approx([1.5e-4, 1.5e-4 / 7], abs=2e-7)
    assert (turns["gap"] > 0.0).all()
    assert (turns["low"][0], turns["high"][0]) == (0.0, 0.005)


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
    done = compare(Constant(leverage=2.0), venues=venues, break_even=True)
    again = bt.Comparison.load(done.save(tmp_path))
    pd.testing.assert_frame_equal(again.break_even, done.break_even)
    assert again.summary() == done.summary()
    assert "none in range" in done.break_even["note"].tolist()  # a fee for both turns nothing
    page = done.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "When the order reverses" in page
    assert "a stays ahead of b" in page


INVERSE = bt.Venue.preset("bybit-inverse", "BTCUSD")
WRONG = {
    "no venue": ({"venue": None}, "a comparison needs venue or venues"),
    "both": ({"venues": {"a": free_venue()}, "venue": free_venue()}, "give either venue or venues"),
    "a list": ({"venues": [free_venue()]}, "must be a mapping of labels"),
    "one row": ({"venues": {"a": free_venue()}}, "needs two accounts or more, got 1"),
    "a word": ({"margins": "cross", "venue": free_venue()}, "must be a list of different modes"),
    "a mode": ({"margins": ["crss"], "venue": free_venue()}, "margin must be one of"),
    "kinds": ({"venues": {"a": free_venue(), "b": INVERSE}}, "settle in the same kind"),
    "equal": (
        {"margins": ["cross", "isolated"], "venue": free_venue(), "break_even": True,
         "equal_risk": True, "account": bt.Account(venue_leverage=5.0)},
        "equal_risk scales them",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("terms", "message"), WRONG.values(), ids=WRONG)
def test_wrong_terms_are_one_clear_error(terms, message):
    with pytest.raises(bt.ParameterError, match=message):
        compare(Constant(leverage=1.0), **terms)

"""Interest and dividends that are 0 or assumed by default are said over a tenth of the profit."""

import math
import re

import pandas as pd
import pytest

import backtest as bt
from backtest.report import basis
from tests.kit import AT_BINANCE, make_venue

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Keep(bt.Policy):
    """Take twice the equity once, and leave it alone."""

    def leverage(self, bar, account):
        return 2.0 if account.leverage == 0.0 else math.nan


def hold_week(last: float, venue: bt.Venue, *, sessions: bool = True, dividend: float = 0.0):
    """Hold twice 10,000 from Tuesday on, Monday to Friday at 100, at last at another price."""
    index = pd.date_range("2024-01-01", periods=5, freq="1D", tz="UTC")
    closes = [100.0, 100.0, 100.0, 100.0, last]
    frame = pd.DataFrame({"open": 100.0, "high": max(100.0, last), "low": 100.0, "close": closes,
                          "volume": 1e6}, index=index)  # fmt: skip

    paid = None
    gaps: dict[str, str] = {}
    if dividend:
        gaps = {"funding_gaps": "zero"}
        paid = pd.DataFrame({"rate": [-dividend], "mark": [100.0]}, index=index[3:4])

    market = bt.Market.from_frames(frame, sessions=sessions, funding=paid, **gaps)
    return bt.run(market, Keep(), venue=venue, account=bt.Account(), compile=False)


def find_notes(result: bt.Result) -> list[str]:
    heads = ("Interest of", "Borrowed without", "Cash earns", "No dividends")
    return [each for each in result.notices if each.startswith(heads)]


def test_free_loans_and_missing_dividends_are_said_over_a_tenth_of_the_profit():
    """200 contracts gain 0.1 each, 20. At the closes 0, 10,000 x 4 were borrowed, 8,000 on average:
    5 % of it for 5 / 365 of a year is 5.48. Stocks of (3 x 20,000 + 20,020) / 5 = 16,004: 4.38."""
    loan, dividends = find_notes(hold_week(100.1, make_venue()))
    assert loan == (
        "Borrowed without interest: on 8,000.00 on average, 5 % a year would be 5.48, 27.40 % "
        "of the profit or loss; set venue.borrow_rate."
    )
    assert dividends == (
        "No dividends are paid: on 16,004.00 on average, 2 % a year would be 4.38, 21.92 % of "
        "the profit or loss; if the prices are not adjusted, give them as funding."
    )


def test_dividends_are_named_apart_from_costs():
    """200 contracts receive 0.001 x 100 each, 20; a fee of 1 in 1,000 of 20,000 is 20."""
    result = hold_week(100.1, make_venue(taker=0.001), dividend=0.001)
    assert result.metrics["funding"] == pytest.approx(-20.0)
    assert result.verdict.endswith("and paid 20.00 in fees, and received 20.00 in dividends.")
    assert "for buy and hold without dividends. The account" in result.verdict

    # The costs of the statement are the fee: 20 of 10,004 on average, and not 20 less 20.
    page = result.summary()
    assert "Costs                  0.20 %   of mean equity in 5 days, without dividends" in page
    assert re.search(r"\ndividends +\+20\.00 +0\.20 %\n", page)
    assert "\nfunding" not in page

    perpetual = hold_week(100.1, make_venue(taker=0.001), sessions=False, dividend=0.001)
    assert "in fees and funding." in perpetual.verdict


def test_nothing_is_said_of_rates_that_are_given_or_small():
    given = make_venue(interest_on="loan", borrow_rate=0.05, cash_rate=0.03)
    assert find_notes(hold_week(101.0, make_venue())) == []  # 5.48 of 200
    assert find_notes(hold_week(100.1, given, dividend=0.001)) == []


def test_the_rate_that_a_preset_assumes_is_said_where_it_is_much_of_the_profit():
    """10,000 for 3 days of 360 at 8 %: 6.67 of some 20, less fees and slippage."""
    reg_t = bt.Venue.preset("reg-t", "STOCK")
    notes = find_notes(hold_week(100.1, reg_t))
    (note,) = [text for text in notes if text.startswith("Interest")]
    assert "at rates that its preset assumes, borrow_rate 8 %: give yours" in note

    own = hold_week(100.1, reg_t.override({"borrow_rate": 0.07}))
    assert not [x for x in find_notes(own) if x.startswith("Interest")]


def test_perpetuals_lend_nothing_and_pay_no_dividends():
    result = bt.run(bt.Market.sample(bars=200), Keep(), compile=False, **AT_BINANCE)
    assert find_notes(result) == []


def test_a_rate_that_is_still_assumed_is_said_with_brackets_of_ones_own():
    """Before: an account with its own table had its rate from nowhere, so nothing was said."""
    reg_t = bt.Venue.preset("reg-t", "STOCK")
    own = reg_t.override(brackets=[bt.Bracket(0.0, math.inf, 2.0, 0.25)])
    assert (own.in_force, own.preset_of_rules) == (None, "reg-t:STOCK")
    assert bt.Venue.from_dict(own.to_dict()) == own

    result = hold_week(100.1, own)
    (note,) = [text for text in find_notes(result) if text.startswith("Interest")]
    assert "at rates that its preset assumes, borrow_rate 8 %: give yours" in note

    rules = dict(basis.describe_venue(result.manifest, result.manifest["venue"]))["rules"]
    assert rules == "a margin table of your own; all others of reg-t:STOCK"
    sources = basis.list_sources(result.manifest["venue"], days=())
    assert sources.text == f"The rules: {rules}."


def test_a_rate_that_was_stated_is_no_assumption():
    """The user's broker may take what the preset assumes: setting it silences the warning."""
    reg_t = bt.Venue.preset("reg-t", "STOCK")
    stated = reg_t.override(borrow_rate=0.08)
    assert stated.changed_from.stated == ("borrow_rate",)
    for venue in (stated, stated.override({"fees.taker": 0.0}), reg_t.override(
        {"borrow_rate": 0.07}).override({"borrow_rate": 0.08}),
    ):  # fmt: skip
        notes = find_notes(hold_week(100.1, venue))
        assert not [text for text in notes if text.startswith("Interest")]

    # A rate that the preset leaves at 0 was assumed by none, and names no preset.
    perpetual = AT_BINANCE["venue"].override(interest_on="loan", borrow_rate=0.08)
    assert perpetual.changed_from is None

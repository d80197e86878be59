"""Runs of several positions that do not fit, and settings that are not allowed."""

import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from tests.portfolio.portfolio_helpers import Hold, make_venue, simulate_pair
from tests.portfolio.test_portfolio_run import run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_markets_in_a_plain_mapping_are_sent_to_bt_markets():
    """The cure was bt.Market.load, though the markets were there."""
    with pytest.raises(ParameterError, match="market must be a Market, got") as found:
        bt.run({"AAA": bt.Market.sample(bars=24)}, Hold(), venue=make_venue(), account=bt.Account())
    assert "cure:  pass bt.Markets(market)" in str(found.value)


REFUSED = [
    ({"policy": {"AAA": Hold()}}, "policies by instrument must have one for each"),
    ({"venue": {"AAA": make_venue()}}, "venues by instrument must have one for each"),
    (
        {"venue": {"AAA": make_venue(), "BBB": make_venue(interest_on="loan", borrow_rate=0.1)}},
        "interest_on must be the same for all venues",
    ),
    (
        {"venue": {"AAA": make_venue(), "BBB": make_venue(mode="takeover")}},
        "modes of cross positions must be the same",
    ),
    (
        {"venue": make_venue(mode="partial").override({"liquidation.order": ["AAA", "BBX"]})},
        "order must name instruments of the markets, got an unknown 'BBX'",
    ),
    ({"account": bt.Account(venue_leverage=50.0)}, "venue_leverage must be at most 20"),
    (
        {"account": bt.Account(min_leverage=30.0, max_leverage=40.0)},
        "min_leverage must be at most 20",
    ),
    ({"start": "2030-01-01"}, "start must lie before the last bar"),
]


@pytest.mark.parametrize(("terms", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_run_that_does_not_fit_is_refused(terms, message):
    policy = terms.pop("policy", Hold())
    with pytest.raises(ParameterError, match=message):
        run(simulate_pair(20), policy, **terms)


ACCOUNTS = [
    ({"margin": {"A": "half"}}, "margin"),
    ({"band": {"A": float("nan")}}, "band"),
    ({"negative_limit": 100.0}, "is used only with collateral"),
    ({"max_gross_leverage": float("nan")}, "max_gross_leverage"),
    ({"max_overlay": -1.0}, "max_overlay"),
]


@pytest.mark.parametrize(("fields", "message"), ACCOUNTS, ids=[str(each) for each, _ in ACCOUNTS])
def test_settings_that_are_not_allowed_are_refused(fields, message):
    with pytest.raises(ParameterError, match=message):
        bt.Account(**fields)

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
    ({"policy": {"AAA": Hold(), "BBB": Hold(), "CCC": Hold()}}, "an unknown 'CCC'"),
    ({"policy": {"AAA": Hold(), "BBB": Hold}}, "a policy must be a Policy"),
    ({"venue": {"AAA": make_venue()}}, "venues by instrument must have one for each"),
    ({"venue": {"AAA": make_venue(), "BBB": 1}}, "venue must be a Venue"),
    (
        {"venue": {"AAA": make_venue(), "BBB": make_venue(interest_on="loan", borrow_rate=0.1)}},
        "interest_on must be the same for all venues",
    ),
    (
        {"venue": {"AAA": make_venue(), "BBB": make_venue(mode="takeover")}},
        "modes of cross positions must be the same",
    ),
    (
        {"venue": {"AAA": make_venue(), "BBB": make_venue().override(call_grace=2)}},
        "call_grace must be the same for all venues",
    ),
    (
        {
            "venue": {
                "AAA": make_venue(),
                "BBB": make_venue().override({"liquidation.order": "most_relief"}),
            }
        },
        "liquidation.order must be the same for all venues",
    ),
    (
        {"venue": make_venue(mode="partial").override({"liquidation.order": ["AAA", "BBX"]})},
        "order must name instruments of the markets, got an unknown 'BBX'",
    ),
    ({"account": bt.Account(margin={"AAA": "cross"})}, "a table by instrument"),
    ({"account": bt.Account(band={"AAA": 0.1, "BBB": 0.1, "C": 1.0})}, "an unknown 'C'"),
    ({"account": bt.Account(venue_leverage=50.0)}, "venue_leverage must be at most 20"),
    (
        {"account": bt.Account(min_leverage=30.0, max_leverage=40.0)},
        "min_leverage must be at most 20",
    ),
    ({"account": "all"}, "account must be an Account"),
    ({"overlay": 1.0}, "a policy must be a Policy"),
    ({"signal": {"AAA": 1.0, "CCC": 1.0}}, "CCC"),
    ({"start": "2030-01-01"}, "start must lie before the last bar"),
    ({"start": "2024-01-01 19:00"}, "a run needs at least 2 bars, got 1"),
    ({"sampling": "1d", "calendar": "360"}, "calendar must be"),
]


@pytest.mark.parametrize(("terms", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_run_that_does_not_fit_is_refused(terms, message):
    policy = terms.pop("policy", Hold())
    with pytest.raises(ParameterError, match=message):
        run(simulate_pair(20), policy, **terms)


ACCOUNTS = [
    ({"margin": {}}, "must name at least one"),
    ({"margin": {"A": "half"}}, "margin"),
    ({"band": {"A": float("nan")}}, "band"),
    ({"collateral": "BTC"}, "collateral must be a list"),
    ({"negative_limit": 100.0}, "is used only with collateral"),
    ({"max_gross_leverage": 0.0}, "max_gross_leverage"),
    ({"max_gross_leverage": float("nan")}, "max_gross_leverage"),
    ({"max_overlay": -1.0}, "max_overlay"),
    ({"intrabar": "best"}, "intrabar"),
    ({"requirement": 1.0}, "requirement must have the methods"),
    ({"conversion": "never"}, "conversion"),
]


@pytest.mark.parametrize(("fields", "message"), ACCOUNTS, ids=[str(each) for each, _ in ACCOUNTS])
def test_settings_that_are_not_allowed_are_refused(fields, message):
    with pytest.raises(ParameterError, match=message):
        bt.Account(**fields)

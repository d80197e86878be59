"""Runs of several positions that do not fit."""

import pytest

import backtest as bt
from tests.kit import Hold, check_refused, make_venue, simulate_pair
from tests.portfolio.test_portfolio_run import run


class Careful(bt.Policy):
    """Read what an overlay has not."""

    def leverage(self, bar, account):
        return 1.0 if account.liquidation_price > 0.0 else 0.5


def with_other(**terms):
    return {"venue": {"AAA": make_venue(), "BBB": make_venue(**terms)}}


REFUSED = [
    ({"policy": {"AAA": Hold()}}, "policy must be one for all, or one for each of AAA, BBB"),
    ({"venue": {"AAA": make_venue()}}, "got none for BBB"),
    (with_other(interest_on="loan", borrow_rate=0.1), "interest_on must be the same"),
    (with_other(mode="takeover"), "liquidation.mode of cross positions must be the same"),
    (
        {"venue": make_venue(mode="partial").override({"liquidation.order": ["AAA", "BBX"]})},
        "order must name instruments of the markets, AAA, BBB, got an unknown 'BBX'",
    ),
    ({"account": bt.Account(venue_leverage=50.0)}, "venue_leverage must be at most 20 for AAA"),
    ({"account": bt.Account(max_holding={"C": "1d"})}, "max_holding must be one value for all"),
    ({"overlay": Careful()}, "Careful, which reads account.liquidation_price"),
    ({"start": "2030-01-01"}, "start must lie before the last bar"),
    ({"markets": {"AAA": bt.Market.sample(bars=24)}}, "; pass bt.Markets(market)"),
]


@pytest.mark.parametrize(("terms", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_bad_input_is_refused(terms, words):
    given = {"policy": Hold(), **terms}
    markets = given.pop("markets", None) or simulate_pair(20)
    check_refused(lambda: run(markets, **given), words, bt.ParameterError)

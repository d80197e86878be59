"""What an account cannot pay is bad debt: nothing is left, and no less than nothing."""

import pytest

import backtest as bt
from tests.kit import Once, flat, make_market, make_venue


def test_a_gap_past_bankruptcy_leaves_nothing_and_books_what_is_missing():
    # 2.5x in each: 25 A at 100 and 50 B at 50. The open loses 25 x 40 + 50 x 10 = 1,500 of 1,000
    prices = {"A": [flat(100), flat(100), flat(60)], "B": [flat(50), flat(50), flat(40)]}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    account = bt.Account(capital=1_000.0)
    result = bt.run(markets, Once(5.0), venue=make_venue(), account=account)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(500.0)]
    assert result.bars["equity"].tolist() == [1_000.0, 1_000.0, 0.0]


@pytest.mark.filterwarnings("ignore:the history of A ends:UserWarning")
def test_a_fee_of_delisting_that_cannot_be_paid_is_bad_debt():
    # 50 A for a fee of 500. At 95 the equity is 250, over 5 % of 4,750; to close costs 475
    prices = {"A": [flat(100), flat(100), (100, 100, 95, 95)], "B": [flat(50)] * 4}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    terms = {"venue": make_venue(taker=0.1), "account": bt.Account(capital=1_000.0)}
    result = bt.run(markets, Once(5.0), signal={"A": 1.0, "B": 0.0}, **terms)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(225.0), 0.0]
    assert result.bars["equity"].tolist() == [1_000.0, 500.0, 0.0, 0.0]


@pytest.mark.filterwarnings("ignore:the history of A ends:UserWarning")
def test_the_margin_of_an_isolated_position_pays_no_debt_of_the_account():
    # 45 A for a fee of 450, 10 B for one of 50 and a margin of 100: 400 left. A loses 135 and
    # costs 436.5 to close
    prices = {"A": [flat(100), flat(100), (100, 100, 97, 97)], "B": [flat(50)] * 4}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    margin = {"A": "cross", "B": "isolated"}
    account = bt.Account(capital=1_000.0, margin=margin, venue_leverage={"A": 20.0, "B": 5.0})
    terms = {"venue": make_venue(taker=0.1), "account": account}
    result = bt.run(markets, Once(5.0), signal={"A": 0.9, "B": 0.1}, **terms)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(171.5), 0.0]
    assert result.bars["equity"].tolist() == [1_000.0, 500.0, 100.0, 100.0]
    assert result.quantities.iloc[-1].tolist() == [0.0, 10.0]

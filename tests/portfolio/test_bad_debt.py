"""What a gap past the bankruptcy of a whole account leaves: nothing, and the rest is bad debt."""

from __future__ import annotations

import pytest

import backtest as bt
from tests.portfolio.book_helpers import Once, flat, make_market, make_venue


def test_a_gap_past_bankruptcy_leaves_nothing_and_books_what_is_missing():
    # 2.5x in each: 25 A at 100 and 50 B at 50. The open loses 25 x 40 + 50 x 10 = 1,500 of 1,000
    prices = {"A": [flat(100), flat(100), flat(60)], "B": [flat(50), flat(50), flat(40)]}
    markets = bt.Markets({k: make_market(rows) for k, rows in prices.items()}, currency="USDT")
    account = bt.Account(capital=1_000.0)
    result = bt.run(markets, Once(5.0), venue=make_venue(), account=account, compile=False)
    assert result.bars["bad_debt"].tolist() == [0.0, 0.0, pytest.approx(500.0)]
    assert result.bars["equity"].tolist() == [1_000.0, 1_000.0, 0.0]

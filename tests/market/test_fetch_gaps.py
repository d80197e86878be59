"""Gaps in fetched data: named all at once, accepted by choice, and asked for again."""

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import DataError
from backtest.base.units import DAY, HOUR, MINUTE
from backtest.market.fetch.binance_archive import months
from backtest.market.fetch.gaps import find_bar_gaps, find_end, find_funding_gaps, longest_complete
from tests.market.fetches import at, fetch
from tests.replay import epoch, kline_text, klines

pytest.importorskip("httpx", reason="downloads need httpx: pip install 'leverage-backtest[fetch]'")


def test_gaps_are_named_all_at_once_with_the_nearest_whole_span(tmp_path, torn):
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "btc", torn)
    text = str(caught.value)
    assert "3 bars from 2024-01-05 03:00 to 2024-01-05 06:00" in text
    assert "24 mark bars from 2024-02-02 to 2024-02-03" in text
    assert "2 settlements from 2024-02-04 to 2024-02-04 16:00" in text
    assert "start='2024-01-06' and end='2024-02-02'" in text
    assert "without=" not in text  # bars lack something, too
    torn.asked.clear()
    fetch(tmp_path / "btc", torn, "2024-01-06", "2024-02-02")
    assert torn.asked[torn.path("funding", "2024-01")] == 0
    assert bt.Market.load(tmp_path / "btc").n_bars == 27 * 24


def test_accepted_gaps_are_stored_as_they_are_and_noted(tmp_path, torn):
    facts = fetch(tmp_path / "btc", torn, accept_gaps=True).facts
    assert [gap["kind"] for gap in facts["gaps"]] == ["bars", "mark", "funding"]
    assert facts["rows"] == {"bars": 1437, "mark": 1416, "funding": 178}
    with pytest.raises(DataError, match="3 missing in 1 gap"):
        bt.Market.load(tmp_path / "btc")
    span = ("2024-01-06", "2024-03-01")
    market = bt.Market.load(tmp_path / "btc", between=span, mark_gaps="last", funding_gaps="zero")
    assert market.n_bars == 55 * 24


def test_accepted_gaps_do_not_let_wrong_prices_in(tmp_path, torn):
    rows = klines(epoch("2024-02-01"), epoch("2024-03-01"), torn.length)
    rows[7, 2] = 1.0
    torn.put("bars", "2024-02", kline_text(rows, torn.length))
    with pytest.raises(DataError, match="high must be at least"):
        fetch(tmp_path / "btc", torn, accept_gaps=True)


@pytest.mark.slow
def test_holes_are_asked_for_again_by_the_next_fetch(tmp_path, torn):
    fetch(tmp_path / "btc", torn, accept_gaps=True)
    torn.publish("2024-01", "2024-02")
    torn.asked.clear()
    fetch(tmp_path / "btc", torn)
    assert torn.asked[torn.path("bars", "2024-01")] == 1
    assert torn.asked[torn.path("bars", "2024-02")] == 0
    assert bt.Market.load(tmp_path / "btc").n_bars == 1440


def test_a_month_before_the_listing_costs_two_answers_not_thirty(tmp_path, server):
    with pytest.raises(DataError, match="from 2023-10-01 to 2024-01-01") as caught:
        fetch(tmp_path / "btc", server, "2023-10-01", "2024-03-01")
    assert "start='2024-01-01' and end='2024-03-01'" in str(caught.value)
    assert sum("/daily/klines/" in path for path in server.asked) == 6


@pytest.mark.slow
def test_what_no_venue_has_is_said_so(tmp_path, server):
    with pytest.raises(DataError, match="has no bars and no mark and no funding there"):
        fetch(tmp_path / "btc", server, symbol="NOPE")
    assert not (tmp_path / "btc").exists()
    with pytest.raises(DataError, match=r"has no funding there.*without=\['funding'\]"):
        fetch(tmp_path / "btc", server, "2024-03-01", None)


def test_bar_gaps_at_either_end_and_inside():
    time = np.array([1, 2, 5]) * MINUTE
    found = find_bar_gaps("bars", time, MINUTE, 0, 7 * MINUTE)
    assert [(g.start // MINUTE, g.end // MINUTE, g.missing) for g in found] == [
        (0, 1, 1),
        (3, 5, 2),
        (6, 7, 1),
    ]
    assert find_bar_gaps("bars", np.arange(7) * MINUTE, MINUTE, 0, 7 * MINUTE) == []
    assert find_bar_gaps("bars", np.empty(0, np.int64), MINUTE, 0, 7 * MINUTE)[0].missing == 7


def test_funding_gaps_at_either_end_inside_and_altogether():
    whole = np.arange(0, 3 * DAY, 8 * HOUR) + 5_000_000
    assert find_funding_gaps(whole, 0, 3 * DAY) == []
    assert [g.missing for g in find_funding_gaps(whole[3:], 0, 3 * DAY)] == [3]
    assert [g.missing for g in find_funding_gaps(whole[:6], 0, 3 * DAY)] == [3]
    assert [g.missing for g in find_funding_gaps(np.delete(whole, 4), 0, 3 * DAY)] == [1]
    assert [g.missing for g in find_funding_gaps(whole[:0], 0, 3 * DAY)] == [9]
    hourly = np.concatenate([whole[:4], np.arange(DAY + HOUR, 3 * DAY, HOUR)])
    assert find_funding_gaps(hourly, 0, 3 * DAY) == []


def test_data_reach_to_the_last_whole_day():
    assert find_end(np.arange(0, 2 * DAY - HOUR, HOUR), "bars", HOUR, 0) == DAY
    assert find_end(np.arange(0, 2 * DAY, HOUR), "bars", HOUR, 0) == 2 * DAY
    assert find_end(np.arange(0, 2 * DAY, 8 * HOUR) + 7, "funding", HOUR, 0) == 2 * DAY
    assert find_end(np.empty(0, np.int64), "bars", HOUR, 5) == 5
    assert longest_complete(find_funding_gaps(np.empty(0, np.int64), 0, DAY), 0, DAY) is None


def test_months_are_whole_whatever_the_span():
    assert list(months(at("2023-12-31"), at("2024-02-02"))) == [
        (at("2023-12-01"), at("2024-01-01")),
        (at("2024-01-01"), at("2024-02-01")),
        (at("2024-02-01"), at("2024-03-01")),
    ]

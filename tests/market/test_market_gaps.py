"""Session bars, and gaps in marks and funding that are filled by choice."""

import numpy as np
import pandas as pd
import pytest

from backtest.base.errors import DataError
from backtest.base.units import DAY, HOUR
from backtest.market.market import Market
from tests.kit import check_refused
from tests.market.good_frames import SAMPLE, four_bars


def weekdays() -> pd.DataFrame:
    index = pd.bdate_range("2023-01-02", periods=10, tz="UTC")
    frame = four_bars().iloc[[0] * 10]
    return frame.set_axis(index)


def test_session_bars_may_be_further_apart_than_their_length():
    with pytest.raises(DataError, match=r"2 missing in 1 gap.*sessions=True"):
        Market.from_frames(weekdays())
    market = Market.from_frames(weekdays(), sessions=True)
    assert market.sessions
    assert market.interval == DAY
    assert market.n_bars == 10
    assert market.end == pd.Timestamp("2023-01-14").value
    assert market.between("2023-01-06", "2023-01-10").n_bars == 2
    assert Market.from_frames(weekdays(), mark=weekdays(), sessions=True).has_mark


def test_the_length_of_a_session_bar_is_the_smallest_gap_and_may_be_given():
    frame = weekdays().iloc[[0, 2, 3, 7]]
    assert Market.from_frames(frame, sessions=True).interval == DAY
    assert Market.from_frames(frame, sessions=True, interval="8h").interval == 8 * HOUR
    with pytest.raises(DataError, match="bars must open at least 2d apart, 1 of 4 open at other"):
        Market.from_frames(frame, sessions=True, interval="2d")


def test_missing_mark_bars_take_last_prices_when_asked_and_the_market_says_how_many():
    mark = four_bars() * 2
    market = Market.from_frames(four_bars(), mark=mark.iloc[[1, 3]], mark_gaps="last")
    assert market.mark_open.tolist() == [100.0, 202.0, 103.0, 204.0]
    assert market.mark_low.tolist() == [98.0, 198.0, 100.0, 198.0]
    assert market.has_mark
    assert market.filled["mark_gaps"] == ("last: 2 of 4 bars, 2023-01-01 to 2023-01-01 03:00 UTC")
    whole = Market.from_frames(four_bars(), mark=mark, mark_gaps="last")
    assert "mark_gaps" not in whole.filled


def test_a_mark_that_matches_no_bar_is_not_filled():
    with pytest.raises(DataError, match=r"4 of 4 bars lie outside them.*leave one out"):
        Market.from_frames(four_bars(), mark=four_bars().shift(9, freq="D"), mark_gaps="last")


def test_missing_settlements_are_accepted_when_asked_and_the_market_says_how_many():
    funding = SAMPLE.funding().drop(SAMPLE.funding().index[[0, 1, 2, 9, 20, 21]])
    bars = SAMPLE.bars()
    check_refused(lambda: Market.from_frames(bars, funding=funding), "2 defects", DataError)
    market = Market.from_frames(bars, funding=funding, funding_gaps="zero")
    assert market.funding_time.size == 54
    assert market.filled["funding_gaps"] == (
        "zero: 5 settlements missing in 2023-01-01 to 2023-01-21 UTC"
    )  # those at 08:00 and 16:00 of the first day, and three inside; none is due before the open
    whole = Market.from_frames(bars, funding=SAMPLE.funding(), funding_gaps="zero")
    assert "funding_gaps" not in whole.filled


def cadence(*hours: int) -> pd.Series:
    index = SAMPLE.times[np.cumsum([0, *hours])]
    return pd.Series(1e-4, index=index)


@pytest.mark.parametrize("hours", [
    [8] * 9,
    [8] * 5 + [4] * 9,
    [4] * 9 + [8] * 5,
    [8] * 3 + [4] * 3 + [1] * 12,
    [1] * 12 + [8] * 3,
    [8, 4, 4, 4],
    [24] * 4,
])  # fmt: skip
def test_a_change_of_cadence_is_no_gap(hours):
    funding = cadence(*hours)
    bars = SAMPLE.bars().loc[: funding.index[-1]]
    assert Market.from_frames(bars, funding=funding).funding_rate.size == len(hours) + 1


@pytest.mark.parametrize(("hours", "missing"), [
    ([8, 8, 16, 8, 8], 1),
    ([8, 8, 24, 8, 8], 2),
    ([4, 4, 8, 4, 4], 1),
    ([1, 1, 1, 2, 1, 1], 1),
    ([8, 8, 9, 8, 8], 1),
    ([8, 8, 12, 4, 4, 4, 4], 2),
    ([8, 16, 16, 8, 8], 2),
    ([24, 24, 48, 24], 1),
])  # fmt: skip
def test_a_spacing_longer_than_its_neighbours_or_than_8_hours_is_a_gap(hours, missing):
    funding = cadence(*hours)
    bars = SAMPLE.bars().loc[: funding.index[-1]]
    with pytest.raises(DataError, match=f"{missing} missing in"):
        Market.from_frames(bars, funding=funding)

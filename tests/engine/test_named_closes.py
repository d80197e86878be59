"""What closes are called: daily bars by their dates, shorter ones by the time of the close."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.units import format_span
from backtest.report.run_parts import find_drawdowns, list_falls
from backtest.strategies import Constant
from tests.kit import free_venue

DAYS = pd.bdate_range("2000-03-13", periods=15, tz="UTC")
"""Business days: the market peaks on Friday 2000-03-24 and recovers on Friday 2000-03-31."""
CLOSES = [100, 101, 102, 103, 104, 105, 106, 107, 108, 120, 110, 100, 105, 115, 125]


def sessions(closes=CLOSES, index=DAYS, **more):
    start = np.concatenate(([closes[0]], closes[:-1])).astype(float)
    start[10] = closes[10]  # a gap after the peak
    frame = pd.DataFrame(
        {"open": start, "high": np.maximum(start, closes), "low": np.minimum(start, closes),
         "close": closes, "volume": 1e6}, index=index[: len(closes)], dtype=float)  # fmt: skip
    return bt.Market.from_frames(frame, **more)


def run(market, leverage=1.0, **more):
    return bt.run(
        market, Constant(leverage=leverage), venue=free_venue(), account=bt.Account(),
        compile=False, **more,
    )  # fmt: skip


def words(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def daily():
    return run(sessions(interval="1d", sessions=True), calendar="252")


def test_business_days_are_named_by_their_sessions(daily):
    """The close of Friday, midnight of Saturday, is called Friday."""
    text = words(daily.summary())
    assert "2000-03-24 to 2000-03-28, recovered 2000-03-31; 7 days under water" in text
    assert "2000-03-13 to 2000-03-31 UTC, 15 bars of 1d" in text
    assert "2000-03-25" not in text
    worst = find_drawdowns(daily).iloc[0]
    assert [f"{worst[name]:%a %d}" for name in ("peak", "trough", "recovery")] == [
        "Fri 24", "Tue 28", "Fri 31",
    ]  # fmt: skip
    assert (worst["days_down"], worst["days_under_water"]) == (4.0, 7.0)
    row = list_falls(daily)[0].table.iloc[0]
    assert row[["peak", "trough", "recovery"]].tolist() == [
        "2000-03-24", "2000-03-28", "2000-03-31",
    ]  # fmt: skip


def test_the_close_of_an_hour_at_midnight_belongs_to_the_day_that_ends():
    """The peak is the close of 23:00 to 24:00 on Friday, the low that of 01:00 to 02:00."""
    hours = pd.date_range("2000-03-24 14:00", periods=15, freq="1h", tz="UTC")
    result = run(sessions(index=hours))
    assert "2000-03-24 to 2000-03-25, recovered 2000-03-25" in words(result.summary())
    row = list_falls(result)[0].table.iloc[0]
    assert row[["peak", "trough"]].tolist() == ["2000-03-25 00:00", "2000-03-25 02:00"]
    days = {"start": "2000-03-13", "end": "2000-03-25", "interval": "1d"}
    assert format_span(days) == "2000-03-13 to 2000-03-24 UTC"
    assert format_span({**days, "interval": "1h"}) == "2000-03-13 to 2000-03-25 UTC"

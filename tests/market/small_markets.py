"""Four bars, and a short sample with a further column."""

import numpy as np
import pandas as pd

from backtest.market.market import Market

ARRAYS = [
    "time", "open", "high", "low", "close", "volume", "mark_open", "mark_high", "mark_low",
    "mark_close", "funding_time", "funding_rate", "funding_mark",
]  # fmt: skip


def four_bars(**changes: object) -> pd.DataFrame:
    """Four hours from 2023-01-01; high and low two beyond open and close."""
    columns = {
        "open": [100.0, 101.0, 103.0, 102.0],
        "high": [103.0, 105.0, 105.0, 104.0],
        "low": [98.0, 99.0, 100.0, 99.0],
        "close": [101.0, 103.0, 102.0, 101.0],
        "volume": [1.0, 2.0, 3.0, 4.0],
    }
    index = pd.date_range("2023-01-01", periods=4, freq="h", tz="UTC")
    return pd.DataFrame(columns | changes, index=index)


SAMPLE = Market.sample(bars=24 * 20)
WITH_COLUMN = Market.from_frames(
    SAMPLE.bars().assign(regime=np.arange(480.0)), funding=SAMPLE.funding(), mark=SAMPLE.mark()
)

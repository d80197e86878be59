"""The folder of real data, frames without a defect, and ways to spoil them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest import Market

REAL = Path(__file__).parents[3] / "shared" / "data"
DAYS = 3
Frames = dict[str, pd.DataFrame]
ARRAYS = [
    "time", "open", "high", "low", "close", "volume", "mark_open", "mark_high", "mark_low",
    "mark_close", "funding_time", "funding_rate", "funding_mark",
]  # fmt: skip
SAMPLE = Market.sample(bars=24 * 20)
WITH_COLUMN = Market.from_frames(
    SAMPLE.bars().assign(regime=np.arange(480.0)), funding=SAMPLE.funding(), mark=SAMPLE.mark()
)


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"the real data are not at {REAL}")
    return REAL


def hourly(hours: int = 24 * DAYS, start: str = "2023-01-01", zone: str | None = "UTC"):
    return pd.date_range(start, periods=hours, freq="h", tz=zone)


def good() -> Frames:
    """Three days of hourly bars, mark bars and 8-hour funding, without a defect."""
    last = pd.DataFrame(
        {"open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "volume": 5.0}, index=hourly()
    )
    stamps = pd.date_range("2023-01-01", periods=3 * DAYS, freq="8h", tz="UTC")
    return {
        "bars": last,
        "mark": last[["open", "high", "low", "close"]].copy(),
        "funding": pd.DataFrame({"rate": 1e-4}, index=stamps),
    }


def load(frames: Frames, **arguments: object) -> Market:
    bars = frames.pop("bars")
    return Market.from_frames(bars, **frames, **arguments)


def cell(frame: str, column: str, row: int, value: object) -> Callable[[Frames], None]:
    def spoil(frames: Frames) -> None:
        if isinstance(value, str):
            frames[frame][column] = frames[frame][column].astype(object)
        frames[frame].iloc[row, frames[frame].columns.get_loc(column)] = value

    return spoil


def replace(frame: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Frames], None]:
    def spoil(frames: Frames) -> None:
        frames[frame] = change(frames[frame])

    return spoil


def reindexed(stamps: Callable[[pd.DatetimeIndex], object]) -> Callable[[Frames], None]:
    return replace("bars", lambda f: f.set_axis(pd.Index(stamps(f.index), name="time")))


def without(*rows: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(frame.index[list(rows)])


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[0, 1, 3, 2, *range(4, len(frame))]]


def doubled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[0, 1, 2, 2, *range(3, len(frame))]]


def shifted(row: int, by: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        stamps = frame.index.to_series().reset_index(drop=True)
        stamps.iloc[row] += pd.Timedelta(by)
        return frame.set_axis(pd.DatetimeIndex(stamps))

    return change


def coarse_mark(frames: Frames) -> None:
    frames["mark"] = frames["mark"].iloc[::8]


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

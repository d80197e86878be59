"""A folder of freqtrade's with two files of the same settlements: both are one table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest import DataError, Market
from tests.layouts import MARKET, write_freqtrade_feather

LONG = "BTC_USDT_USDT-8h-funding_rate.feather"
SHORT = "BTC_USDT_USDT-1h-funding_rate.feather"


def write(folder: Path, rows: slice = slice(0, 8), rate: float | None = None) -> Path:
    """Write a market, and some of its settlements under another interval as well."""
    folder.mkdir(exist_ok=True)
    write_freqtrade_feather(folder)
    frame = pd.read_feather(folder / LONG).iloc[rows].reset_index(drop=True)
    if rate is not None:
        frame.loc[0, "open"] = rate
    frame.to_feather(folder / SHORT)
    return folder


@pytest.mark.parametrize(("long", "short"), [
    (slice(None), slice(0, 8)), (slice(None), slice(4, None)), (slice(3, None), slice(0, 6)),
    (slice(0, 8), slice(6, None)),
])  # fmt: skip
def test_both_are_one_table_of_the_settlements_that_either_has(tmp_path, long, short):
    write(tmp_path, short)
    frame = pd.read_feather(tmp_path / LONG).iloc[long].reset_index(drop=True)
    frame.to_feather(tmp_path / LONG)
    market = Market.load(tmp_path)
    np.testing.assert_array_equal(market.funding_rate, MARKET.funding_rate)
    assert dict(market.filled) == {}


def test_files_that_disagree_are_refused(tmp_path):
    write(tmp_path, rate=0.0123)
    with pytest.raises(DataError, match="funding stamps must have each time once, 1 of 13"):
        Market.load(tmp_path)

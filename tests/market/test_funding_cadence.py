"""Funding of any cadence settles each event once; predictions are known from their stamp on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market
from backtest.core.units import HOUR
from backtest.strategies import Constant
from tests.kit import check_refused, live
from tests.layouts import MARKET, write_freqtrade_feather

START = pd.Timestamp("2024-01-01", tz="UTC")
ACCOUNT = bt.Account(capital=10_000.0, band=0.9)
"""A band so wide that what is bought at first is kept."""
CHANGING = [*range(0, 33, 8), *range(36, 61, 4), *range(61, 96)]
"""Every 8 hours, from 32:00 every 4, from 60:00 every hour."""
LONG = "BTC_USDT_USDT-8h-funding_rate.feather"


def flat_bars(freq: str, days: int = 4, **columns: object) -> pd.DataFrame:
    """Return bars at a price of 100."""
    index = pd.date_range(START, START + pd.Timedelta(days=days), freq=freq, inclusive="left")
    prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    return pd.DataFrame({**prices, **columns}, index=index)


def settled(hours: list[float], rates: list[float] | float, **columns: object) -> pd.DataFrame:
    index = pd.DatetimeIndex([START + pd.Timedelta(hours=hour) for hour in hours])
    return pd.DataFrame({"rate": rates, **columns}, index=index)


def hold(market: bt.Market) -> bt.Result:
    return live(market, Constant(leverage=1.0), account=ACCOUNT, compile=False)


def payments(result: bt.Result) -> pd.DataFrame:
    return result.events[result.events.kind == "funding"]


def test_a_cadence_that_changes_settles_every_event_once_at_its_own_rate():
    """100 contracts at 100 from 01:00 on: each pays 10,000 times its rate."""
    rates = [1e-4 * (1 + k % 3) for k in range(len(CHANGING))]
    funding = settled(CHANGING, rates)

    result = hold(bt.Market.from_frames(flat_bars("1h"), funding=funding))
    paid = payments(result)

    assert len(paid) == len(CHANGING) - 1  # nothing is held at 00:00
    assert paid["amount"].to_numpy() == pytest.approx(1e4 * np.array(rates[1:]), rel=1e-12)

    hours = (pd.DatetimeIndex(paid["time"]) - START) / pd.Timedelta(hours=1)
    assert hours.tolist() == CHANGING[1:]
    assert result.metrics["funding"] == pytest.approx(1e4 * sum(rates[1:]), rel=1e-12)


@pytest.mark.parametrize("freq", ["30min", "1h", "8h", "1D"])
def test_hours_are_settled_in_bars_of_any_length(freq: str):
    """What is bought at the open of bar 1 pays every hour from there on."""
    rates = (1e-5 * np.arange(96)).tolist()
    market = bt.Market.from_frames(flat_bars(freq), funding=settled([*range(96)], rates))
    result = hold(market)

    bought = round(market.interval / HOUR) if market.interval >= HOUR else 0
    first = bought + 1  # a settlement at the open is for whoever carried the position in
    expected = 1e4 * sum(rates[first:])

    assert len(payments(result)) == 96 - first
    assert result.metrics["funding"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("milliseconds", [-900, -13, 29, 900])
@pytest.mark.parametrize("freq", ["5min", "1h", "1D"])
def test_stamps_around_an_open_belong_to_it_and_count_once(freq: str, milliseconds: int):
    bars = flat_bars(freq, days=2)
    exact_hours = [*range(1, 48)]
    late_hours = [hour + milliseconds / 3_600_000 for hour in exact_hours]

    found = hold(bt.Market.from_frames(bars, funding=settled(late_hours, 1e-5)))
    exact = hold(bt.Market.from_frames(bars, funding=settled(exact_hours, 1e-5)))

    assert len(payments(found)) == len(payments(exact))
    assert found.metrics["funding"] == exact.metrics["funding"]


def test_a_settlement_at_an_odd_minute_falls_into_its_bar():
    funding = settled([0, 8, 13 + 37 / 60, 16, 24], [9.0e-4, 1e-4, 3e-4, 1e-4, 1e-4])
    market = bt.Market.from_frames(flat_bars("1h", days=1), funding=funding)

    paid = hold(market).bars["funding"]

    # 100 contracts at 100 pay 10,000 times the rate; 13:37 falls into the bar of 13:00
    assert paid.iloc[[8, 13, 16]].to_numpy() == pytest.approx([1.0, 3.0, 1.0], rel=1e-12)
    assert paid.sum() == pytest.approx(5.0, rel=1e-12)


def write(folder: Path, rows: slice = slice(0, 8), rate: float | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_freqtrade_feather(folder)
    frame = pd.read_feather(folder / LONG).iloc[rows].reset_index(drop=True)
    if rate is not None:
        frame.loc[0, "open"] = rate
    frame.to_feather(folder / "BTC_USDT_USDT-1h-funding_rate.feather")
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

    said = "funding stamps must have each time once, 1 of 13"
    check_refused(lambda: Market.load(tmp_path), said)


def weekdays_of_a_year() -> pd.DataFrame:
    index = pd.bdate_range("2024-01-01", "2024-12-31", tz="UTC")
    closes = np.linspace(100.0, 120.0, len(index))
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes), index=index)


def test_dividends_have_no_cadence():
    """Four quarters, of 91, 92 and 93 days, and a special one: nothing is missing."""
    bars = weekdays_of_a_year()
    days = pd.DatetimeIndex(["2024-03-05", "2024-06-04", "2024-09-03", "2024-09-20", "2024-12-05"])
    paid = pd.DataFrame({"rate": -0.004}, index=days.tz_localize("UTC"))

    market = bt.Market.from_frames(bars, funding=paid, sessions=True)
    assert market.funding_time.size == 5
    assert "funding_gaps" not in market.filled
    asked = bt.Market.from_frames(bars, funding=paid, sessions=True, funding_gaps="zero")
    assert "funding_gaps" not in asked.filled
    assert not bt.quality(market).find("funding", "missing").count

    with pytest.raises(bt.DataError, match="funding must cover the bars"):
        bt.Market.from_frames(bars, funding=paid.shift(-3, freq="365D"), sessions=True)


@pytest.mark.parametrize("name", ["dividend", "Dividends", "divCash", "dividend amount"])
def test_a_column_of_dividends_is_said_to_pay_nothing_and_the_cure_pays(name):
    dividends = np.zeros(262)
    dividends[[40, 100]] = 0.5
    bars = weekdays_of_a_year().assign(**{name: dividends})
    with pytest.warns(UserWarning, match="the 2 dividends of the column .* are not paid"):
        bt.Market.from_frames(bars, sessions=True)

    before = bars["close"].shift()
    funding = pd.DataFrame({"rate": -bars[name] / before, "mark": before})[bars[name] > 0.0]
    market = bt.Market.from_frames(bars, funding=funding, sessions=True)
    np.testing.assert_allclose(-market.funding_rate * market.funding_mark, 0.5)

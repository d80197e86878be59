"""A rate in force that is sampled is one settlement, at the time of its payment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market
from backtest.strategies import Constant
from tests.kit import check_refused, free_venue

HOURS = pd.date_range("2024-03-01", periods=96, freq="h", tz="UTC")
FLAT = pd.DataFrame({"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0}, index=HOURS)
DUE = pd.date_range("2024-03-01 08:00", periods=11, freq="8h", tz="UTC")
FEEDS = {
    "Tardis": ("exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,"
        "predicted_funding_rate,open_interest,last_price,index_price,mark_price",
        "binance,BTCUSDT,{us},{us},{due_us},{rate},0.0002,5,100,100,100", "1min"),
    "Bybit, tickers": ("ts,symbol,lastPrice,fundingRate,nextFundingTime",
        "{ms},BTCUSDT,100,{rate},{due}", "5min"),
    "ccxt": ("symbol,markPrice,indexPrice,interestRate,timestamp,datetime,fundingRate,"
        "fundingTimestamp,fundingDatetime,nextFundingRate,nextFundingTimestamp,nextFundingDatetime,"
        "previousFundingRate,previousFundingTimestamp", "BTC/USDT:USDT,100,100,0.0001,{ms},{iso},"
        "{rate},{due},{due_iso},,{later},,,{before}", "15min"),
    "ccxt, of one time": ("symbol,timestamp,datetime,fundingRate,fundingTimestamp,"
        "nextFundingTimestamp", "BTC/USDT:USDT,{ms},{iso},{rate},,{due}", "1h"),
    "ccxt, without its stamp": ("time,timestamp,datetime,fundingRate,fundingTimestamp",
        "{ms},,,{rate},{due}", "1h"),
    "Binance, premiumIndex": ("symbol,time,markPrice,lastFundingRate,nextFundingTime",
        "BTCUSDT,{ms},100,{rate},{due}", "30min"),
    "Gate": ("time,funding_rate,funding_next_apply", "{s},{rate},{due_s}", "1h"),
    "OKX": ("ts,fundingTime,nextFundingTime,fundingRate", "{ms},{due},{later},{rate}", "10min"),
    "OKX, of one time": ("ts,fundingTime,fundingRate", "{ms},{due},{rate}", "1h"),
    "KuCoin, of its own name": ("timestamp,value,fundingRate,nextFundingRateTime",
        "{ms},7,{rate},{due}", "1h"),
    "nextUpdate": ("ts,rate,nextUpdate", "{ms},{rate},{due}", "5min"),
    "nextSettleTime, in s beside ms": ("timestamp,fundingRate,nextSettleTime",
        "{ms},{rate},{due_s}", "1h"),
    "nextFundingDatetime": ("time,fundingRate,nextFundingDatetime", "{ms},{rate},{due_iso}", "1h"),
    "fundingDatetime": ("timestamp,datetime,fundingRate,fundingDatetime",
        "{ms},{iso},{rate},{due_iso}", "15min"),
    "settlement_time": ("time,symbol,rate,settlement_time", "{s},BTCUSDT,{rate},{due_s}", "1h"),
    "nextFunding": ("date,funding_rate,nextFunding", "{iso},{rate},{due}", "2h"),
    "fundingTime, two samples each": ("timestamp,fundingTime,fundingRate", "{ms},{due},{rate}",
        "4h"),
    "settleTime": ("timestamp,settleTime,fundingRate,markPrice", "{ms},{due},{rate},100", "1h"),
    "apply": ("ts,apply,previous,rate,interval_hours", "{us},{due_us},{before},{rate},8", "1h"),
    "texts": ("timestamp,next_funding_time,rate", "{iso},{due_iso},{rate}", "1h"),
}  # fmt: skip
"""The columns of feeds with the next rate, a row, and how often it is written."""


def write(folder: Path, head: str, row: str, freq: str, *, end: str = "2024-03-05") -> Path:
    """Write bars, and rates of 1, 2, 3, ... 1e-5 that are paid every 8 hours."""
    FLAT.to_csv(folder / "bars.csv", index_label="time")
    stamps = pd.date_range("2024-03-01", end, freq=freq, tz="UTC", inclusive="left")

    lines = []
    for number, stamp in enumerate(stamps):
        due = stamp.floor("8h") + pd.Timedelta("8h")
        period = (due - HOURS[0]) // pd.Timedelta("8h")

        # A forecast that moves until the last sample before the payment.
        is_last = number + 1 == stamps.size or stamps[number + 1] >= due
        rate = f"{period}e-5" if is_last else "0.0005"

        rate = f"{period}e-5" if is_last else "0.0005"

        second = int(stamp.timestamp())
        paid = int(due.timestamp())
        cells = {
            "s": second, "ms": second * 1000, "us": second * 10**6, "iso": stamp.isoformat(),
            "due_s": paid, "due": paid * 1000, "due_us": paid * 10**6, "due_iso": due.isoformat(),
            "later": (paid + 28_800) * 1000, "before": (paid - 28_800) * 1000,
        }  # fmt: skip
        lines.append(row.format(rate=rate, **cells))

    (folder / "funding.csv").write_text("\n".join([head, *lines]))
    return folder


@pytest.mark.parametrize("feed", FEEDS)
def test_a_rate_in_force_is_one_settlement_for_each_payment(tmp_path, feed):
    """Four days have payments at 8, 16, 24, ... 88 and 96 h: the last is after the file's end."""
    write(tmp_path, *FEEDS[feed])

    with pytest.warns(UserWarning, match="11 settlements of .* in force, .*; 1 payment after the"):
        market = Market.load(tmp_path)

    assert market.funding_time.tolist() == DUE.as_unit("ns").asi8.tolist()
    assert market.funding_rate.tolist() == pytest.approx([k * 1e-5 for k in range(1, 12)])
    assert np.isnan(market.funding_mark).all()
    assert market.filled["sampled_rates"].startswith("11 settlements of ")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_long_position_pays_each_payment_once(tmp_path):
    """.01 % per 8 h on 10,000 at 1x for four days: 11 settlements of 1 USDT."""
    head, row, freq = FEEDS["Tardis"]
    write(tmp_path, head, row.replace("{rate}", "0.0001"), freq)

    account = bt.Account(capital=10_000.0, band=0.5)
    market = Market.load(tmp_path)
    result = bt.run(market, Constant(1.0), venue=free_venue(), account=account, compile=False)

    assert result.metrics["funding"] == pytest.approx(11.0, abs=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_of_days_are_one_feed(tmp_path):
    """The payment at midnight is after the first file's end, and not after the second's."""
    head, row, freq = FEEDS["Bybit, tickers"]
    whole = Market.load(write(tmp_path, head, row, freq))
    lines = (tmp_path / "funding.csv").read_text().split("\n")[1:]

    files = []
    for day in range(4):
        files.append(tmp_path / f"rates-{day}.csv")
        files[-1].write_text("\n".join([head, *lines[288 * day : 288 * day + 288]]))

    market = Market.load(tmp_path / "bars.csv", funding=files)
    assert market.funding() is not None
    assert market.funding().equals(whole.funding())


def test_settlements_that_say_their_own_payment_are_what_they_are(tmp_path):
    FLAT.to_csv(tmp_path / "bars.csv", index_label="time")
    rows = [f"{stamp.isoformat()},{stamp.isoformat()},0.0001" for stamp in DUE]
    (tmp_path / "funding.csv").write_text("\n".join(["time,fundingTimestamp,rate", *rows]))

    market = Market.load(tmp_path)
    assert market.funding_time.tolist() == DUE.as_unit("ns").asi8.tolist()
    assert dict(market.filled) == {}


def test_frames_and_chosen_columns_have_payments_too(tmp_path):
    stamps = HOURS[:95]
    payments = stamps.floor("8h") + pd.Timedelta("8h")
    rates = pd.DataFrame({"rate": 1e-4, "payment": payments}, stamps)

    with pytest.warns(UserWarning, match="11 settlements of 95 rates"):
        market = Market.from_frames(FLAT, funding=rates)
    assert market.funding_time.tolist() == DUE.as_unit("ns").asi8.tolist()

    write(tmp_path, "when,due,r", "{ms},{due},{rate}", "1h")
    names = {name: name for name in ("time", "open", "high", "low", "close")}
    names |= {"funding.time": "when", "funding.payment": "due", "funding.rate": "r"}
    with pytest.warns(UserWarning, match="11 settlements of 96 rates"):
        assert Market.load(tmp_path, columns=names).funding_time.size == 11


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_chosen_columns_of_a_rate_in_force_keep_the_time_of_its_payment(tmp_path):
    write(tmp_path, "when,due,r", "{ms},{due},{rate}", "1h")
    names = {name: name for name in ("time", "open", "high", "low", "close")}
    names |= {"funding.time": "when", "funding.rate": "r"}

    with pytest.warns(UserWarning, match="read from 'due', which columns= does not choose"):
        market = Market.load(tmp_path, columns=names)

    assert market.funding_time.tolist() == DUE.as_unit("ns").asi8.tolist()


@pytest.mark.parametrize(("head", "row", "freq"), [
    ("time,fundingRate,closed", "{iso},{rate},{due_iso}", "8h"),
    ("time,fundingRate,received", "{ms},{rate},{ms}", "1h"),
    ("time,fundingRate,previous", "{ms},{rate},{before}", "1h"),
    ("time,fundingRate,expiry", "{ms},{rate},1735200000000", "1h"),
    ("time,fundingRate,interval,count", "{ms},{rate},8,1709251200", "1h"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_columns_beside_settlements_are_no_payments(tmp_path, head, row, freq):
    """Settlements every 8 hours, receipts, a payment before, an expiry, counts."""
    write(tmp_path, head, row, freq)

    market = Market.load(tmp_path)
    assert market.funding_time.size == pd.Timedelta("96h") // pd.Timedelta(freq)
    assert "sampled_rates" not in market.filled


def test_a_payment_before_its_stamp_is_refused(tmp_path):
    """The column holds the payment before; 84 of 96 stamps lie after it."""
    write(tmp_path, "time,fundingTimestamp,rate", "{ms},{before},{rate}", "1h")

    said = "needs the time of its payment, at its stamp or later, got fundingTimestamp before it"
    check_refused(lambda: Market.load(tmp_path), said, bt.DataError)


@pytest.mark.parametrize(("freq", "periods", "count"), [
    ("1h", 8, 11), ("15min", 8, 11), ("1h", 4, 23), ("1h", 1, 0), ("1h", 6, 0), ("8h", 8, 0),
])  # fmt: skip
def test_rates_of_an_hour_that_change_every_four_or_eight_are_a_doubt(freq, periods, count):
    """Four days: 11 changes every 8 h, 23 every 4 h; every hour and every 6 h are no doubt."""
    stamps = pd.date_range("2024-03-01", "2024-03-05", freq=freq, tz="UTC", inclusive="left")
    hours = (stamps - stamps[0]) // pd.Timedelta(hours=periods)
    rates = pd.Series(1e-5 * (1.0 + np.asarray(hours, dtype=float)), stamps)

    report = bt.quality(Market.from_frames(FLAT, funding=rates))
    doubt = report.find("funding", "the rate in force, sampled?")

    assert doubt.count == count
    assert doubt.level == ("doubt" if count else "")


def test_five_changes_are_too_few_to_tell():
    rates = pd.Series(np.repeat([1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5], 16), HOURS)
    report = bt.quality(Market.from_frames(FLAT, funding=rates))

    assert not report.find("funding", "the rate in force, sampled?").count

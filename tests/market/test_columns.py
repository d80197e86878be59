"""A column of a file is what its name says, or it is asked for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, Market
from tests.kit import check_refused

HOURS = [1_709_251_200 + 3600 * hour for hour in range(48)]
HEAD = "time,open,high,low,close,volume\n"
ROWS = "".join(f"{stamp},100,102,98,100.5,1000\n" for stamp in HOURS)
POSITIONS = {"time": 0, "open": "1", "high": 2, "low": 3, "close": "4", "volume": 5}
TOPS = ["https://www.CryptoDataDownload.com", "sep=,", "# me\n\n2024-03-01"]
NAMES = {name: name for name in ("time", "open", "high", "low", "close", "volume")}


def load(folder: Path, text: str, name: str = "prices.csv", **terms: object) -> Market:
    (folder / name).write_text(text)
    return Market.load(folder / name, **terms)


def test_without_a_header_no_row_is_lost_and_digits_are_positions(tmp_path):
    """The first row's volume is 4, which is no name of the column of closes."""
    volumes = [4, *[3.9] * 5]
    rows = [f"2024-03-01 0{h}:00:00,2.5,5.5,1.5,3.5,{x}\n" for h, x in enumerate(volumes)]
    market = load(tmp_path, "".join(rows), timezone="UTC", columns=POSITIONS)

    assert market.n_bars == 6
    assert market.close.tolist() == [3.5] * 6
    assert market.volume.tolist() == [4.0, *[3.9] * 5]

    assert load(tmp_path, "\n\r\n" + ROWS).n_bars == 48

    named = [f"{stamp},100,101,99,100,5,BTCUSDT\n" for stamp in HOURS[:6]]
    assert load(tmp_path, "".join(named), columns=POSITIONS).n_bars == 6


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("columns", [None, NAMES])
def test_text_above_the_only_header_is_skipped_with_a_notice(tmp_path, top, columns):
    with pytest.warns(UserWarning, match="above the header skipped"):
        market = load(tmp_path, f"{top}\n{HEAD}{ROWS}", columns=columns)

    assert market.n_bars == 48
    assert market.volume.tolist() == [1000.0] * 48


@pytest.mark.parametrize(("text", "said"), [
    (f"# mine\n{ROWS}", "every line must have 1 cell, as line 1 has, line 2 could not be read"),
    (f"{HEAD}{ROWS}1,2\n", r"line 50 could not be read, it has 2: '1,2'"),
    (f"# mine\n{HEAD}{HEAD}{ROWS}", "line 2 is one and line 3 could not be read"),
    (f"{ROWS[:30]}\n{HEAD}{ROWS}", "line 2 is one and line 1 could not be read"),
    (f"{HEAD}{ROWS}".replace(",", ";").replace("100.5", "1,005"), "comma may be a decimal"),
])  # fmt: skip
def test_a_line_that_cannot_be_read_is_named(tmp_path, text, said):
    check_refused(lambda: load(tmp_path, text), said, DataError)


def test_a_decimal_comma_is_read_beside_another_delimiter(tmp_path):
    text = ROWS.replace(".", "@").replace(",", ";").replace("@", ",")

    assert load(tmp_path, text).close.tolist() == [100.5] * 48


@pytest.mark.parametrize(("head", "terms"), [
    ("time,open,high,low,close,Volume", {}),
    ("TIME,Open,high,LOW,close,VOLUME", {}),
    ("time,open,high,low,close,Volume BTC", {"instrument": "BTCUSDT"}),
    ("timestamp,Open,High,Low,Close,Volume (BTC)", {"instrument": "BTC/USDT:USDT"}),
    ("Time,OPEN,High,Low,CLOSE,VOLUME", {"columns": NAMES}),
])  # fmt: skip
def test_names_are_matched_without_regard_to_case(tmp_path, head, terms):
    market = load(tmp_path, f"{head}\n{ROWS}", **terms)

    assert market.volume.tolist() == [1000.0] * 48
    assert list(market.columns) == []
    assert bt.quality(market).findings == ()

    if "BTC" not in head:
        columns = ["time", *head.split(",")[1:]]
        frame = pd.read_csv(tmp_path / "prices.csv").set_axis(columns, axis=1)
        assert Market.from_frames(frame) == load(tmp_path, HEAD + ROWS)


def test_fills_and_chains_have_names_in_any_case_too():
    fills = pd.DataFrame({"Time": HOURS[:2], "QUANTITY": 0.1, "price": 100.0, "Fee": 0.5})
    assert bt.read_fills(fills)["fee"].tolist() == [0.5, 0.5]

    twice = fills.assign(fee=0.0)
    check_refused(lambda: bt.read_fills(twice), "found 'Fee' and 'fee'", DataError)

    chain = bt.Chain.sample().table
    names = ["time", "expiry", "strike", "kind", "bid", "ask", "mark"]
    chain = chain.assign(underlying="BTC")[names]
    lower = bt.Chain.from_frame(chain, settlement="coin")
    titled = bt.Chain.from_frame(chain.rename(columns=str.title), settlement="coin")

    assert lower.table["mark"].notna().all()
    assert titled.table["mark"].equals(lower.table["mark"])


def test_a_column_of_numbers_is_kept_whatever_it_is_called(tmp_path):
    periods = np.arange(48.0)
    market = load(tmp_path, HEAD + ROWS).with_columns(period=periods, vol=2.0 * np.ones(48))
    again = Market.load(market.save(tmp_path / "saved"))

    assert again.columns["period"].tolist() == list(range(48))
    assert again == market


def test_the_volume_of_another_coin_is_told_and_left_out(tmp_path):
    text = ROWS.replace("\n", ",7\n")
    head = "time,open,high,low,close,Volume USDT,Volume ETH\n"

    with pytest.warns(UserWarning, match="Volume USDT left out"):
        market = load(tmp_path, head + text, instrument="ETHUSDT")
    assert market.volume.tolist() == [7.0] * 48

    with pytest.warns(UserWarning, match="Volume USDT, Volume ETH left out"):
        assert not load(tmp_path, head + text).volume.any()


def test_bars_that_are_stamped_with_their_end_are_told(tmp_path):
    head = "timestamp,open,high,low,close,volume,homeNotional,foreignNotional\n"
    with pytest.warns(UserWarning, match="BitMEX stamps a bar with its end"):
        load(tmp_path, head + ROWS.replace("\n", ",1,2\n"))


def test_two_columns_of_one_name_are_an_error_that_names_both(tmp_path):
    text = ROWS.replace("\n", ",7\n")
    for head in ("time,open,high,low,close,Close", "time,Open,High,Low,Close,CLOSE"):
        check_refused(lambda head=head: load(tmp_path, f"{head},x\n{text}"), "'close'", DataError)

    head = "time,open,high,low,close,v,V\n"
    wrong = NAMES | {"volume": "vOl"}
    check_refused(lambda: load(tmp_path, head + text, columns=wrong), "'vOl' is not")

    for name in ("v", "V"):
        assert load(tmp_path, head + text, columns=NAMES | {"volume": name}).n_bars == 48

    rows = ROWS.replace("\n", ",BTCUSDT\n", 1).replace("1000\n", "1000,ETHUSDT\n")
    several = HEAD.replace("\n", ",symbol\n") + rows
    check_refused(lambda: load(tmp_path, several), "'BTCUSDT' and 'ETHUSDT'", DataError)


DAYS = pd.date_range("2024-03-01", periods=6, freq="8h", tz="UTC")
RATE = "0.00012"
FUNDING = {
    "ours": "time,rate\n{iso},0.00012\n",
    "Binance's archive": "calc_time,funding_interval_hours,last_funding_rate\n{ms},8,0.00012\n",
    "Binance": "symbol,fundingTime,fundingRate,markPrice\nBTCUSDT,{ms},0.00012,61000\n",
    "Bybit": "symbol,fundingRate,fundingRateTimestamp\nDOGEUSDT,0.00012,{ms}\n",
    "OKX": "formulaType,fundingRate,fundingTime,instId,instType,method,realizedRate\n"
    "noRate,0.018,{ms},BTC-USDT-SWAP,SWAP,current_period,0.00012\n",
    "Hyperliquid": "coin,fundingRate,premium,time\nDOGE,0.00012,0.0003,{ms}\n",
    "BitMEX": "timestamp,symbol,fundingInterval,fundingRate,fundingRateDaily\n"
    "{iso},XBTUSD,2000-01-01T08:00:00.000Z,0.00012,0.00036\n",
    "Deribit": "timestamp,index_price,prev_index_price,interest_8h,interest_1h\n"
    "{ms},8222.87,8305.72,-0.09,0.00012\n",
    "dYdX": "ticker,rate,price,effectiveAtHeight,effectiveAt\n"
    "BTC-USD,0.00012,61000,44865196,{iso}\n",
    "Kraken": "timestamp,fundingRate,relativeFundingRate\n{iso},7.32,0.00012\n",
    "ccxt": "symbol,fundingRate,timestamp,datetime\nBTC/USDT:USDT,0.00012,{ms},{iso}\n",
}
"""A settlement in the columns of each venue: see the sources in docs/venues.md."""


@pytest.mark.parametrize("venue", FUNDING)
def test_the_fraction_paid_is_read_from_a_venues_funding(tmp_path, venue):
    (tmp_path / "bars.csv").write_text(HEAD + ROWS)
    head, row, _ = FUNDING[venue].split("\n")
    rows = [row.format(iso=day.isoformat(), ms=day.value // 10**6) for day in DAYS]
    (tmp_path / "funding.csv").write_text("\n".join([head, *rows]))

    market = Market.load(tmp_path)
    assert market.funding_time.tolist() == DAYS.as_unit("ns").asi8.tolist()
    assert market.funding_rate.tolist() == [0.00012] * 6

    mark = 61000.0 if venue in ("Binance", "dYdX") else np.nan
    assert np.array_equal(market.funding_mark, [mark] * 6, equal_nan=True)


@pytest.mark.parametrize("name", ["interest_8h", "fundingRateDaily", "Rate (%)", "annualized"])
def test_a_rate_of_another_unit_is_refused_by_name(tmp_path, name):
    (tmp_path / "bars.csv").write_text(HEAD + ROWS)
    (tmp_path / "funding.csv").write_text(f"time,{name}\n{HOURS[0]},0.01\n")

    check_refused(lambda: Market.load(tmp_path), f"{name!r} is per cent or of another", DataError)


def test_two_rates_are_an_error(tmp_path):
    (tmp_path / "bars.csv").write_text(HEAD + ROWS)
    (tmp_path / "funding.csv").write_text(f"time,rate,fundingRate\n{HOURS[0]},1,2\n")

    check_refused(lambda: Market.load(tmp_path), "found 'rate' and 'fundingRate'", DataError)


@pytest.mark.parametrize(
    "name", ["bars.csv", "BTCUSDT-1mo-2020-01.csv", "BTC_USDT_USDT-1M-futures.csv"]
)
def test_bars_of_months_have_a_sentence_whose_cure_loads_them(tmp_path, name):
    months = pd.date_range("2020-01-01", periods=24, freq="MS", tz="UTC")
    text = "".join(f"{month.value // 10**6},100,110,90,105,5\n" for month in months)
    said = "bars of calendar months have no one length, they are 28 to 31 days long"

    check_refused(lambda: load(tmp_path, text, name), said, DataError)
    assert load(tmp_path, text, name, sessions=True).n_bars == 24


def test_columns_that_are_not_chosen_are_found_by_their_own_names(tmp_path):
    """Without a chosen open, the prices and the volume are those of our names, in any case."""
    plain = load(tmp_path, HEAD + ROWS)
    renamed = f"when,Open,high,low,close,Volume\n{ROWS}"
    assert load(tmp_path, renamed, columns={"time": "when"}) == plain
    assert load(tmp_path, HEAD + ROWS, columns={"high": 2}) == plain

    # Adjusted closes of 101 in the place of closes; a chosen column has no second name.
    adjusted = "".join(f"{row},101\n" for row in ROWS.splitlines())
    head = f"{HEAD.strip()},adjusted\n"
    market = load(tmp_path, head + adjusted, columns={"close": "adjusted"})
    assert market.close.tolist() == [101.0] * 48
    assert list(market.columns) == []

    # A complete choice leaves out what it does not name.
    chosen = {name: name for name in NAMES if name != "volume"}
    assert load(tmp_path, HEAD + ROWS, columns=chosen).volume.tolist() == [0.0] * 48

    lacking = f"when,first,high,low,close\n{ROWS}".replace(",1000", "")
    check_refused(
        lambda: load(tmp_path, lacking, columns={"time": "when"}),
        "a column 'open' is needed",
        DataError,
    )


def test_a_column_of_funding_that_is_not_chosen_is_found_too(tmp_path):
    rates = "".join(f"{stamp},0.0001,100\n" for stamp in HOURS[::8])
    (tmp_path / "funding.csv").write_text(f"time,paid,mark\n{rates}")
    market = load(
        tmp_path, HEAD + ROWS, columns={"funding.rate": "paid"}, funding=[tmp_path / "funding.csv"]
    )
    assert market.funding_rate.tolist() == [0.0001] * 6
    assert market.funding_mark.tolist() == [100.0] * 6

"""Files as venues and other programs write them, and drawn ones, are read right or refused."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from backtest import DataError, Market
from tests.market.conftest import four_bars

HOURS = four_bars().index
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
STAMPS: dict[str, list[Any]] = {
    **{unit: [hour.value // n for hour in HOURS] for unit, n in UNITS.items()},
    "end": [hour.value // 10**6 + 3_599_999 for hour in HOURS],
    "iso": [f"{hour:%Y-%m-%dT%H:%M:%S.000Z}" for hour in HOURS],
    "local": [f"{hour:%Y-%m-%d %H:%M:%S}" for hour in HOURS],
    "day": ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"],
}
KLINE = "{ms},{o},{h},{l},{c},{v},{end},1.5,7,0.5,0.25,0"
UTC, DAYS = {"timezone": "UTC"}, {"timezone": "America/New_York", "sessions": True}
SHORT = {"time": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
TITLED = (
    "Open time,Open,High,Low,Close,Volume,Close time,Quote asset volume,Number of trades,"
    "Taker buy base asset volume,Taker buy quote asset volume,Ignore"
)
NAMED = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
SPELLINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Binance archive": ("", KLINE, {}),
    "Binance archive, us": ("", KLINE.replace("{ms}", "{us}"), {}),
    "Binance archive, header": (NAMED, KLINE, {}),
    "python-binance": (TITLED, KLINE, {}),
    "TradingView": ("time,open,high,low,close,Volume", "{s},{o},{h},{l},{c},{v}", {}),
    "TradingView, ISO": ("time,open,high,low,close,Volume", "{iso},{o},{h},{l},{c},{v}", {}),
    "TradingView, plots": ("time,open,high,low,close,Volume,Volume MA",
        "{s},{o},{h},{l},{c},{v},", {}),
    "CryptoDataDownload": ("https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,"
        "close,Volume BTC,Volume USD", "{s},{local},BTC/USD,{o},{h},{l},{c},{v},7", {}),
    "CryptoDataDownload, later": ("Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,"
        "tradecount", "{ms},{local},BTCUSDT,{o},{h},{l},{c},{v},7,3", {}),
    "Bitstamp": ("https://www.bitstamp.net/api/v2/ohlc/,,,,,,\nunix,date,symbol,open,high,low,"
        "close,volume", "{s},{local},BTC/USD,{o},{h},{l},{c},{v}", {}),
    "Kraken archive": ("", "{s},{o},{h},{l},{c},{v},12", {}),
    "Kraken Futures": ("time,open,high,low,close,volume", "{ms},{o},{h},{l},{c},{v}", {}),
    "ccxt": ("", "{ms},{o},{h},{l},{c},{v}", {}),
    "ccxt, header": ("timestamp,open,high,low,close,volume", "{ms},{o},{h},{l},{c},{v}", {}),
    "ccxt, frame": (",timestamp,open,high,low,close,volume", "0,{ms},{o},{h},{l},{c},{v}",
        {"columns": {**SHORT, "time": 1, "open": 2, "high": 3, "low": 4, "close": 5, "volume": 6}}),
    "Bybit": ("startTime,openPrice,highPrice,lowPrice,closePrice,volume,turnover",
        "{ms},{o},{h},{l},{c},{v},9", {}),
    "OKX archive": ("instrument_name,open,high,low,close,vol,vol_ccy,vol_quote,open_time,confirm",
        "BTC-USDT-SWAP,{o},{h},{l},{c},{v},0.1,9,{ms},1", {}),
    "OKX": ("ts,o,h,l,c,vol,volCcy,volCcyQuote,confirm", "{ms},{o},{h},{l},{c},{v},1,1,1",
        {"columns": {**SHORT, "time": "ts", "volume": "vol"}}),
    "Hyperliquid": ("t,T,s,i,o,c,h,l,v,n", "{ms},{end},BTC,1h,{o},{c},{h},{l},{v},3",
        {"columns": SHORT}),
    "Gate": ("t,v,c,h,l,o,sum", "{s},{v},{c},{h},{l},{o},9", {"columns": SHORT}),
    "BitMEX": ("timestamp,symbol,open,high,low,close,trades,volume,vwap,lastSize,turnover,"
        "homeNotional,foreignNotional", "{iso},XBTUSD,{o},{h},{l},{c},3,{v},,1,2,3,4", {}),
    "Deribit": ("ticks,open,high,low,close,volume,cost", "{ms},{o},{h},{l},{c},{v},9",
        {"columns": {name: name for name in ("open", "high", "low", "close", "volume")}
         | {"time": "ticks"}}),
    "dYdX": ("startedAt,ticker,resolution,low,high,open,close,baseTokenVolume,usdVolume,trades,"
        "startingOpenInterest", "{iso},BTC-USD,1HOUR,{l},{h},{o},{c},{v},9,3,4", {}),
    "Coinbase": ("start,low,high,open,close,volume", "{s},{l},{h},{o},{c},{v}", {}),
    "CryptoCompare": ("time,high,low,open,volumefrom,volumeto,close",
        "{s},{h},{l},{o},{v},9,{c}", {}),
    "Polygon": ("ticker,volume,open,close,high,low,window_start,transactions",
        "X:BTCUSD,{v},{o},{c},{h},{l},{ns},3", {}),
    "Alpaca": ("symbol,timestamp,open,high,low,close,volume,trade_count,vwap",
        "BTC/USD,{iso},{o},{h},{l},{c},{v},3,100", {}),
    "Tiingo": ("date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash",
        "{iso},{c},{h},{l},{o},{v},1,1,1,1,1,0", {}),
    "Alpha Vantage": ("timestamp,open,high,low,close,volume", "{local},{o},{h},{l},{c},{v}", UTC),
    "Yahoo": ("Date,Open,High,Low,Close,Adj Close,Volume", "{day},{o},{h},{l},{c},1,{v}", DAYS),
    "Stooq": ("Date,Open,High,Low,Close,Volume", "{day},{o},{h},{l},{c},{v}", DAYS),
    "Excel": ("sep=;\nDate;Open;High;Low;Close;Volume", "{local};{o};{h};{l};{c};{v}", UTC),
    "pandas, numbered": (",time,open,high,low,close,volume", "0,{iso},{o},{h},{l},{c},{v}", {}),
    "pandas": (",Open,High,Low,Close,Volume", "{local},{o},{h},{l},{c},{v}",
        UTC | {"columns": {"time": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}}),
}  # fmt: skip
"""Header, row and terms of exports, as their documentation and public readers of them have it."""
NAMES = ("open", "high", "low", "close", "volume")
CASES = (str.lower, str.upper, str.title, str.swapcase)
PREAMBLES = ("", "", "", "https://www.example.com\n", "# exported by me\n\n", "sep={}\n")


@pytest.mark.parametrize("export", SPELLINGS)
def test_the_exports_of_venues_are_read(tmp_path: Path, export):
    head, row, terms = SPELLINGS[export]
    bars = four_bars()
    lines = [
        row.format(o=o, h=h, l=low, c=c, v=v, **{name: each[n] for name, each in STAMPS.items()})
        for n, (o, h, low, c, v) in enumerate(bars.to_numpy().tolist())
    ]
    path = tmp_path / "export.csv"
    for rows in (lines, lines[::-1]):  # many export the newest first
        path.write_text("\n".join([*([head] if head else []), *rows, ""]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            market = Market.load(path, **terms)
        for name in bars.columns:
            assert getattr(market, name).tolist() == bars[name].tolist(), name
        if "sessions" not in terms:
            assert market.times.equals(HOURS.as_unit("ns"))


class Drawn(NamedTuple):
    """The text of a file, the terms to read it with, and what it was written from."""

    text: str
    terms: dict[str, Any]
    time: np.ndarray
    values: np.ndarray
    is_sound: bool


def draw_file(seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    n, digits = int(rng.integers(12, 40)), int(rng.integers(1, 7))
    delimiter = str(rng.choice([",", ";", "\t", "|"]))
    first = pd.Timestamp("2010-01-04", tz="UTC") + pd.Timedelta(hours=int(rng.integers(130_000)))
    time = pd.date_range(first, periods=n, freq=str(rng.choice(["1min", "1h", "1D"])))
    close = 10.0 ** rng.uniform(0, 5) * np.exp(np.cumsum(rng.normal(0.0, 0.01, n)))
    opens = np.append(close[:1], close[:-1])
    prices = [opens, np.maximum(opens, close) * 1.01, np.minimum(opens, close) * 0.99, close]
    cells = [[f"{x:.{digits}f}" for x in each] for each in (*prices, rng.uniform(1, 2000, n))]
    values = np.array(cells, dtype=np.float64)
    stamps, terms = write_stamps(time, rng)
    if delimiter != "," and rng.random() < 0.4:
        cells = [[x.replace(".", ",") for x in each] for each in cells]
    table = dict(zip(("time", *NAMES), [stamps, *cells], strict=True))
    rows = rng.permutation(n) if rng.random() < 0.15 else np.arange(n)
    rows = rows[::-1] if rng.random() < 0.3 else rows
    rows = np.append(rows, rows[-2:]) if rng.random() < 0.15 else rows
    repairs = ["sort", "drop-duplicates"]
    if rng.random() < 0.8:
        terms["repair"] = repairs
    order = [str(name) for name in rng.permutation([*table])]
    kind = str(rng.choice(["names", "names", "names", "columns", "positions", "none"]))
    order = ["time", *NAMES] if kind == "none" else order
    if kind == "positions":
        terms["columns"] = {name: place for place, name in enumerate(order)}
    spelled = [CASES[int(rng.integers(4))](name) for name in order]
    if kind == "columns":
        terms["columns"] = {name: name[0] + name[-1].upper() for name in order}
        spelled = [CASES[int(rng.integers(4))](terms["columns"][name]) for name in order]
    has_header = kind in ("names", "columns")
    top = str(rng.choice(PREAMBLES)).format(delimiter) if has_header or rng.random() < 0.1 else ""
    lines = [delimiter.join(table[name][row] for name in order) for row in rows]
    head = [delimiter.join(spelled)] if has_header else []
    end = str(rng.choice(["\n", "\r\n"]))
    text = top.replace("\n", end) + end.join([*head, *lines, ""])
    is_sound = np.array_equal(np.sort(rows), np.arange(n)) and len({*np.sign(np.diff(rows))}) == 1
    is_sound |= "repair" in terms
    is_sound &= has_header or not top
    return Drawn(text, terms, time.as_unit("ns").asi8, values, bool(is_sound))


def write_stamps(time: pd.DatetimeIndex, rng: np.random.Generator) -> tuple[list[str], Any]:
    kind = str(rng.choice(["s", "ms", "us", "ns", "Z", "offset", "local", "zone"]))
    if kind in UNITS:
        return [str(value // UNITS[kind]) for value in time.as_unit("ns").asi8.tolist()], {}
    if kind == "Z":
        return [f"{each:%Y-%m-%dT%H:%M:%SZ}" for each in time], {}
    if kind == "offset":
        return [each.isoformat() for each in time.tz_convert("Asia/Kolkata")], {}
    zone = "UTC" if kind == "local" else "Asia/Tokyo"
    return [f"{each:%Y-%m-%d %H:%M:%S}" for each in time.tz_convert(zone)], {"timezone": zone}


def check_refusal(drawn: Drawn, said: str) -> None:
    assert max(map(len, said.splitlines())) < 500
    assert "comma may be a decimal" in said or not drawn.is_sound, f"{said}\n{drawn.text[:300]}"


def count_read(folder: Path, seeds: range) -> int:
    """Return how many drawn files are read; each is read right, or refused in one sentence."""
    read = 0
    for seed in seeds:
        drawn = draw_file(seed)
        path = folder / f"{seed}.csv"
        path.write_bytes(drawn.text.encode())
        try:
            market = Market.load(path, **drawn.terms)
        except DataError as error:
            check_refusal(drawn, str(error))
            continue
        read += 1
        assert market.time.tolist() == drawn.time.tolist(), seed
        found = np.array([getattr(market, name) for name in NAMES])
        assert np.array_equal(found, drawn.values), seed
    return read


@pytest.mark.filterwarnings("ignore:.*above the header skipped")
def test_drawn_files_are_read_right_or_refused(tmp_path: Path):
    assert count_read(tmp_path, range(20)) >= 14


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*above the header skipped")
def test_most_of_many_drawn_files_are_read_right(tmp_path: Path):
    assert count_read(tmp_path, range(200)) >= 140

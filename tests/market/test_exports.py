"""Files as venues and other programs write them are read right."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from backtest import Market
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
UTC = {"timezone": "UTC"}
DAYS = {"timezone": "America/New_York", "sessions": True}
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
    "tabs": ("time\topen\thigh\tlow\tclose\tvolume\r", "{iso}\t{o}\t{h}\t{l}\t{c}\t{v}\r", {}),
    "bars": ("TIME|OPEN|HIGH|LOW|CLOSE|VOLUME", "{us}|{o}|{h}|{l}|{c}|{v}", {}),
    "pandas, numbered": (",time,open,high,low,close,volume", "0,{iso},{o},{h},{l},{c},{v}", {}),
    "pandas": (",Open,High,Low,Close,Volume", "{local},{o},{h},{l},{c},{v}",
        UTC | {"columns": {"time": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}}),
}  # fmt: skip
"""Header, row and terms of exports, as their documentation and public readers of them have it."""


@pytest.mark.parametrize("export", SPELLINGS)
def test_the_exports_of_venues_are_read(tmp_path: Path, export):
    head, row, terms = SPELLINGS[export]
    bars = four_bars()
    lines = [head] if head else []
    body = []
    for n, (o, h, low, c, v) in enumerate(bars.to_numpy().tolist()):
        stamps = {name: spelled[n] for name, spelled in STAMPS.items()}
        body.append(row.format(o=o, h=h, l=low, c=c, v=v, **stamps))

    path = tmp_path / "export.csv"
    for rows in (body, body[::-1]):  # many export the newest first
        path.write_text("\n".join([*lines, *rows, ""]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            market = Market.load(path, **terms)

        for name in bars.columns:
            assert getattr(market, name).tolist() == bars[name].tolist(), name
        if "sessions" not in terms:
            assert market.times.equals(HOURS.as_unit("ns"))

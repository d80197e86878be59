"""Fills in the files that the web sites of exchanges export; the tests write the files."""

import pytest

import backtest as bt

BINANCE = """Uid,Time,Symbol,Side,Price,Quantity,Amount,Fee,Realized Profit,Maker
1,26-03-17 09:34:12,BTCUSDC,BUY,"73,822.3",0.01,738.223,0.2953 USDC,0,false
1,2026-03-16 01:00:00,BTCUSDT,SELL,80600.2,0.007,564.2014,0.0004BNB,1.5,true
"""
OLD_BINANCE = """Date(UTC),Symbol,Side,Price,Quantity,Amount,Fee,Realized Profit,Quote Asset
2026-03-17 09:34:12,BTCUSDC,BUY,73822.3,0.01,738.223,0.2953,0,USDC
2026-03-16 01:00:00,BTCUSDT,SELL,80600.2,0.007,564.2014,0.0004,1.5,BNB
"""
BYBIT = """contracts,Order No.,Direction,Order Type,Filled Qty,Filled Price,Order Price,\
Filled Type,Trading Fee Rate,Fees Paid,Trasaction ID,Transaction Time(UTC+10),Final Balance (USDT)
BTCUSDC,a,Open Long,Market,0.01,73822.3,0,Trade,0.0004,0.2953,t1,19:34:12 2026-03-17,1000
BTCUSDT,b,Close Long,Market,0.007,80600.2,0,Liquidation,0.0004,0.0004,t2,16/03/2026 11:00:00,1000
BTCUSDT,c,Buy,,0.007,80600.2,0,Funding,0.0001,0.05,t3,16/03/2026 12:00:00,1000
"""
SAME_BYBIT = BYBIT.replace("19:34:12 2026-03-17", "17/03/2026 19:34:12")
LOG = """Uid,Currency,Contract,Type,Direction,Quantity,Position,Filled Price,Funding,Fee Paid,\
Cash Flow,Change,Wallet Balance,Action,Time(UTC)
1,USDC,BTCUSDC,TRADE,BUY,0.01,0.01,73822.3,0,-0.2953,0,-0.29,300,OPEN,2026-03-17 09:34:12
1,BNB,BTCUSDT,LIQUIDATION,SELL,0.007,0,80600.2,0,-0.0004,1,1,300,CLOSE,2026-03-16 01:00:00
1,USDT,BTCUSDT,SETTLEMENT,BUY,--,0.02,--,-0.004,0,0,-0.004,300,SETTLEMENT,2026-03-16 08:00:00
1,USDT,,TRANSFER_IN,--,--,--,--,0,0,0,100,400,--,2026-03-16 09:00:00
"""
OKX = """\ufeffUID:1,Account Type:Main,Time Zone:UTC-6
id,Order id,Time,Trade Type,Symbol,Action,Amount,Trading Unit,Filled Price,PnL,Fee,Fee Unit,Balance
1,1,2026-03-17 03:34:12,Swap,BTC-USDC-SWAP,Open long,0.01,cont,73822.3,0,-0.2953,USDC,1
2,2,2026-03-15 19:00:00,Swap,BTC-USDT-SWAP,Liquidation long,0.007,cont,80600.2,0,-0.0004,BNB,1
3,3,2026-03-15 20:00:00,Swap,BTC-USDT-SWAP,Funding fee,0,cont,0,0,0,USDT,1
4,4,2026-03-15 20:00:00,Transfer,,Transfer in,0,cont,0,0,0,USDT,1
"""


def read(tmp_path, text):
    path = tmp_path / "export.csv"
    path.write_text(text, encoding="utf-8")
    return bt.read_fills(path)


@pytest.mark.parametrize(("text", "kind", "has_coins"), [
    (BINANCE, "order", True),
    (OLD_BINANCE, "order", True),
    (SAME_BYBIT, "liquidation", False),
    (LOG, "liquidation", True),
    (OKX, "liquidation", True),
], ids=["binance", "old binance", "bybit", "bybit log", "okx"])  # fmt: skip
def test_an_export_is_the_fills_in_it_in_the_order_of_time(text, kind, has_coins, tmp_path):
    found = read(tmp_path, text)
    times = ["2026-03-16 01:00:00+00:00", "2026-03-17 09:34:12+00:00"]
    assert found["time"].astype(str).tolist() == times
    assert found["instrument"].tolist() == ["BTCUSDT", "BTCUSDC"]
    assert found["quantity"].tolist() == [-0.007, 0.01]
    assert found["price"].tolist() == [80600.2, 73822.3]
    assert found["fee"].tolist() == [0.0004, 0.2953]
    assert found["fee_currency"].tolist() == (["BNB", "USDC"] if has_coins else ["", ""])
    assert found["kind"].tolist() == [kind, "order"]


def test_a_time_may_stand_before_its_date(tmp_path):
    rows = [row for row in BYBIT.splitlines() if "/03/" not in row]
    found = read(tmp_path, "\n".join(rows))
    assert str(found["time"][0]) == "2026-03-17 09:34:12+00:00"


@pytest.mark.parametrize(("text", "problem"), [
    (BINANCE.replace("BUY", "HOLD"), "a side must be one of buy, open long"),
    (BINANCE.replace("0.2953 USDC", "free"), "a fee must be an amount, got 'free'"),
    (BINANCE.replace("Time,", "When,"), "no column Date or Time"),
    (BINANCE.replace("26-03-17", "26-13-17"), "cannot be read"),
    (BYBIT.replace("UTC+10", "Sydney"), "a time zone must be UTC or UTC.8, got 'Sydney'"),
    (LOG.replace("LIQUIDATION", "AUCTION"), "got 'AUCTION'"),
    (OKX.replace("Swap,BTC-USDC-SWAP", "Spot,BTC-USDC"), "a row for each coin"),
    (OKX.replace("Open long", "Rest"), "got 'rest'"),
    (OKX.replace("0.01,cont", "many,cont"), "cannot be read"),
])  # fmt: skip
def test_an_export_that_cannot_be_read_is_one_error(text, problem, tmp_path):
    with pytest.raises(bt.DataError, match=problem) as caught:
        read(tmp_path, text)
    assert caught.value.cure

"""What other programs write for unknown numbers, unfinished bars and empty minutes is no price."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, Market
from backtest.cli import main
from backtest.market.tables import SUMMED
from tests.kit import check_refused
from tests.layouts import MARKET, kline_text
from tests.market.conftest import good, hourly, load

LIMITS = [
    sys.float_info.max, sys.float_info.min, 5e-324, 3.4028234663852886e38, 1e200, 9.9e-16, 1.1e15,
    2.0**31 - 1, 2.0**32 - 1, 2.0**63, 2.0**63 - 2**10, 2.0**64,
]  # fmt: skip
HOURS = hourly(96)
FLAT = pd.DataFrame(
    {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0, "volume": 1.0}, index=HOURS
)


@pytest.mark.parametrize("value", LIMITS)
@pytest.mark.parametrize("table", ["bars", "mark"])
def test_the_limit_of_a_type_is_no_price(value, table):
    frames = good()
    is_high = value > 1.0
    word = "high" if is_high else "low"
    frames[table].loc[frames[table].index[7], word] = value

    noun = "mark " if table == "mark" else ""
    said = f"{noun}{word} must be from 1e-15 to 1e+15 and not the largest whole number of a type, "
    said += f"got {value} in 1 of 72 bars ({table}, first at 2023-01-01 07:00 UTC)"
    check_refused(lambda: load(frames), said, DataError)


def test_prices_and_volumes_within_the_limits_are_taken():
    """Smallest and largest coins: 1e-15 and 1e15, a volume of 1e18."""
    for price in (1e-15, 1e15, 2.0**31, 2.0**31 - 2.0):
        frames = {"bars": good()["bars"]}
        frames["bars"][["open", "high", "low", "close"]] = price
        frames["bars"]["volume"] = 1e18
        assert load(dict(frames)).close.tolist() == [price] * 72

    frames["bars"].iloc[9, 4] = 1.01e18
    said = "volume must be at most 1e+18, got 1.01e+18 in 1 of 72 bars"
    check_refused(lambda: load(frames), said, DataError)


CLOCKS_OF_1904 = {"s": 1, "ms": 1000, "us": 10**6}


@pytest.mark.parametrize("unit", CLOCKS_OF_1904)
def test_stamps_since_1904_are_bars_of_the_future_and_named(tmp_path, unit):
    """2,082,844,800 s lie between 1904 and 1970: the formula gives back 2023-01-01."""
    stamps = (HOURS.as_unit("s").asi8 + 2_082_844_800) * CLOCKS_OF_1904[unit]
    cells = "100,101,99,100,1"
    lines = [f"{stamp},{cells}" for stamp in stamps]
    (tmp_path / "bars.csv").write_text("\n".join(["time,open,high,low,close,volume", *lines]))

    said = "no bar may open after tomorrow, the last opens at 2089-01-04 23:00 UTC (bars.csv); as"
    said += " counted since 1904, as old Macs do, they begin at 2023-01-01: less 2_082_844_800 in "
    said += "s, 2_082_844_800_000 in ms and 2_082_844_800_000_000 in us they count from 1970"
    check_refused(lambda: Market.load(tmp_path), said, DataError)
    assert said in bt.quality(tmp_path).defects[0]

    stamps_of_1970 = stamps - 2_082_844_800 * CLOCKS_OF_1904[unit]
    lines = [f"{stamp},{cells}" for stamp in stamps_of_1970]
    (tmp_path / "bars.csv").write_text("\n".join(["time,open,high,low,close,volume", *lines]))
    assert Market.load(tmp_path).times[0] == HOURS[0]


def test_a_last_bar_after_tomorrow_is_a_defect(tmp_path):
    """The last of 96 hours opens on 2023-01-04 at 23:00: tomorrow of 2023-01-03 at 23:00."""
    FLAT.to_csv(tmp_path / "bars.csv", index_label="time")
    for make in (
        lambda now: Market.from_frames(FLAT, now=now),
        lambda now: Market.load(tmp_path, now=now),
        lambda now: bt.Markets.load(tmp_path, now=now),
    ):
        assert make("2023-01-03 23:00").n_bars == 96
        said = "no bar may open after tomorrow, the last opens at 2023-01-04 23:00 UTC"
        check_refused(lambda make=make: make("2023-01-03 22:59"), said, DataError)

    future = FLAT.set_axis(HOURS + pd.Timedelta(days=365 * 200))
    said = "give now= if they were generated"
    check_refused(lambda: Market.from_frames(future), said, DataError)
    assert Market.from_frames(future, now="2223-01-01").n_bars == 96


def test_generated_bars_of_the_future_load_as_they_were_saved(tmp_path):
    market = Market.sample(bars=24 * 365 * 12)
    assert Market.load(market.save(tmp_path / "saved")) == market


def write_rows(folder: Path, cells: str, *, at: slice, head: str = "volume") -> Path:
    """Write hours at 100 whose rows of a slice hold other cells."""
    rows = ["100,101,99,100,1"] * 96
    for row in range(96)[at]:
        rows[row] = cells

    lines = [f"{stamp.isoformat()},{row}" for stamp, row in zip(HOURS, rows, strict=True)]
    (folder / "bars.csv").write_text("\n".join([f"time,open,high,low,close,{head}", *lines]))
    return folder


@pytest.mark.parametrize("cells", ["NaN,NaN,NaN,NaN,NaN", ",,,,0", ",,,,", "nan,nan,nan,nan,5"])
def test_rows_without_a_price_are_missing_bars_and_the_cure_works(tmp_path, cells):
    write_rows(tmp_path, cells, at=slice(3, 96, 7))  # 3, 10, ... 94: 14 rows

    said = "every bar needs prices, 14 of 96 have none at all (bars.csv, first at 2023-01-01 03:00,"
    check_refused(lambda: Market.load(tmp_path), said, DataError)
    check_refused(lambda: Market.load(tmp_path), "; repair='bar-gaps=flat' fills them", DataError)

    market = Market.load(tmp_path, repair="bar-gaps=flat")
    assert market.n_bars == 96
    assert market.close.tolist() == [100.0] * 96
    assert market.high[3::7].tolist() == [100.0] * 14
    assert market.low[3::7].tolist() == [100.0] * 14
    assert market.volume[3::7].tolist() == [0.0] * 14
    assert market.filled["bar_gaps"].startswith("flat: 14 of 96 in bars, first at 2023-01-01 03:00")


def test_empty_rows_at_the_ends_repeat_the_last_close_or_are_left_out(tmp_path):
    write_rows(tmp_path, ",,,,0", at=slice(0, 4))
    said = "4 rows before the first close left out, from 2023-01-01 UTC: no close is before them"

    with pytest.warns(UserWarning, match=said):
        market = Market.load(tmp_path, repair="bar-gaps=flat")
    assert market.n_bars == 92
    assert market.times[0] == HOURS[4]
    assert "flat: 4 of 96" in market.filled["bar_gaps"]

    write_rows(tmp_path, ",,,,0", at=slice(90, 96))
    market = Market.load(tmp_path, repair="bar-gaps=flat")
    assert market.n_bars == 96
    assert market.low[90:].tolist() == [100.0] * 6

    write_rows(tmp_path, ",,,,0", at=slice(0, 96))
    said = "every bar needs prices, 96 of 96"
    check_refused(lambda: Market.load(tmp_path, repair="bar-gaps=flat"), said, DataError)


def test_empty_rows_of_a_frame_may_be_left_out():
    bars = FLAT.copy()
    bars.iloc[[5, 6, 50]] = np.nan

    said = "frame.dropna(subset=['close']) and sessions=True leave them out"
    check_refused(lambda: Market.from_frames(bars), said, DataError)
    assert Market.from_frames(bars.dropna(subset=["close"]), sessions=True).n_bars == 93


@pytest.mark.parametrize("cells", ["100,,,,0", "100,101,99,,7", "100,101,99,nan,7"])
def test_a_row_without_a_close_is_a_missing_bar_to_the_repair(tmp_path, capsys, cells):
    write_rows(tmp_path, cells, at=slice(3, 6))
    said = "close must be positive and finite, got nan in 3 of 96 bars"
    check_refused(lambda: Market.load(tmp_path), said, DataError)

    market = Market.load(tmp_path, repair="bar-gaps=flat")
    assert market.n_bars == 96
    assert market.close.tolist() == [100.0] * 96
    assert market.high[3:6].tolist() == [100.0] * 3
    assert market.volume[3:6].tolist() == [0.0] * 3
    assert market.filled["bar_gaps"].startswith("flat: 3 of 96 in bars")

    # The command names its own flag, and it works.
    words = ["data", "import", str(tmp_path / "bars.csv"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--repair bar-gaps=flat, which takes bars without" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*words, "--repair", "bar-gaps=flat"]) == 0


def test_mark_rows_without_a_price_are_bars_without_a_mark():
    frames = good()
    frames["mark"].iloc[5:9] = np.nan

    said = "every mark bar needs prices, 4 of 72 have none at all"
    check_refused(lambda: load(dict(frames)), said, DataError)

    market = load(dict(frames), mark_gaps="last")
    assert market.mark_high[5:9].tolist() == market.high[5:9].tolist()
    assert market.filled["mark_gaps"].startswith("last: 4 of 72 bars")


FLAGS = {
    "confirm": ("1", "0"), "complete": ("true", "false"), "is_closed": ("True", "False"),
    "Is Closed": ("1", "0"), "finished": ("yes", "no"), "closed": ("Y", "N"),
    "is_final": ("t", "f"), "candle_closed": ("done", "open"), "complete ": ("TRUE", "FALSE"),
    "barComplete": ("closed", "open"), "is_done": ("complete", "partial"), "final": ("True", ""),
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("is_newest_first", [False, True])
def test_an_unfinished_last_bar_is_left_out_and_told(tmp_path, flag, is_newest_first):
    done, opened = FLAGS[flag]

    lines = [f"{stamp.isoformat()},100,101,99,100,1,{done}" for stamp in HOURS]
    lines[-1] = f"{HOURS[-1].isoformat()},100,101,99,100.9,1,{opened}"
    if is_newest_first:
        lines = lines[::-1]
    head = f"time,open,high,low,close,volume,{flag}"
    (tmp_path / "bars.csv").write_text("\n".join([head, *lines]))

    said = "the last bar left out, 2023-01-04 23:00 UTC: .* marks it as unfinished .bars.csv"
    with pytest.warns(UserWarning, match=said):
        market = Market.load(tmp_path)
    assert market.n_bars == 95
    assert set(market.close) == {100.0}

    names = {name: name for name in ("time", "open", "high", "low", "close")}
    with pytest.warns(UserWarning, match=said):
        assert Market.load(tmp_path / "bars.csv", columns=names).n_bars == 95


@pytest.mark.parametrize("head", ["time,open,high,low,close,volume\n", ""])
@pytest.mark.parametrize("marks", [0, 1, 2, 3])
def test_byte_order_marks_of_a_table_are_no_part_of_it(tmp_path, head, marks):
    lines = [f"{stamp.isoformat()},100,101,99,100,1" for stamp in HOURS]
    path = tmp_path / "bars.csv"
    path.write_text("\ufeff" * marks + head + "\n".join(lines), encoding="utf-8")

    assert Market.load(path).n_bars == 96


def test_a_flag_of_unknown_words_is_refused_and_its_cure_keeps_no_unfinished_bar(tmp_path):
    lines = [f"{stamp.isoformat()},100,101,99,100,yes" for stamp in HOURS]
    lines[95] = lines[95].replace("yes", "maybe")
    (tmp_path / "bars.csv").write_text("\n".join(["time,open,high,low,close,confirm", *lines]))

    said = "confirm must be yes or no, true or false or 1 or 0 by whether a bar is finished, got"
    said += " 'maybe' (bars.csv, row 95); write it so, or leave out the bars that are not finished"
    check_refused(lambda: Market.load(tmp_path), said, DataError)

    names = {name: name for name in ("time", "open", "high", "low", "close")}
    check_refused(lambda: Market.load(tmp_path, columns=names), said, DataError)


def test_words_of_an_unfinished_bar_inside_are_a_doubt_in_frames_too():
    words = np.where(np.isin(np.arange(96), (40, 41, 95)), "no", "yes")

    report = bt.quality(Market.from_frames(FLAT.assign(confirm=words)))
    assert report.find("bars", "unfinished").count == 3


STREAM = "t,T,s,i,o,c,h,l,v,n,x,q,V,Q"


@pytest.mark.parametrize("head", [STREAM, "t,T,o,h,l,c,x", "t,o,h,l,c,v", "t,o,h,l,c,v,n,vw", "t,T,"
    "o,h,l,c,v,x,e,E"])  # fmt: skip
def test_the_letters_of_streams_are_read_without_names(tmp_path, head):
    cells = {"o": 100, "h": 101, "l": 99, "c": 100, "v": 5, "n": 7, "q": 500, "V": 2, "Q": 200,
             "s": "BTCUSDT", "i": "1h", "x": "true", "e": "kline", "vw": 100.5}  # fmt: skip

    rows = []
    for k, stamp in enumerate(HOURS):
        ms = stamp.value // 10**6
        row = {**cells, "t": ms, "T": ms + 3_599_999, "E": ms + 5}
        if k == 95:
            row |= {"x": "false", "c": 100.9}
        rows.append(",".join(str(row[name]) for name in head.split(",")))
    (tmp_path / "stream.csv").write_text("\n".join([head, *rows]))

    if "x" not in head.split(","):
        assert Market.load(tmp_path / "stream.csv").n_bars == 96
        return

    with pytest.warns(UserWarning, match="the last bar left out, .* 'is_closed' marks it"):
        market = Market.load(tmp_path / "stream.csv")
    assert market.n_bars == 95
    assert market.close[-1] == 100.0
    assert market.high[0] == 101.0

    if head == STREAM:
        assert market.instrument == ""  # the letter s is no column that is read
        sums = {name: market.columns[name][0] for name in SUMMED[1:]}
        assert sums == {"taker_buy_volume": 2.0, "quote_volume": 500.0, "trades": 7.0}


def test_the_x_of_a_stream_says_that_a_bar_is_open(tmp_path):
    lines = [f"{stamp.value // 10**6},1,BTCUSDT,100,100,101,99,5,true" for stamp in HOURS]
    lines[-1] = lines[-1].replace("true", "false")
    (tmp_path / "stream.csv").write_text("\n".join(["t,T,s,o,c,h,l,v,x", *lines]))
    names = {"time": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}

    with pytest.warns(UserWarning, match="the last bar left out"):
        assert Market.load(tmp_path / "stream.csv", columns=names).n_bars == 95


def test_an_unfinished_bar_inside_is_a_doubt_and_a_signal_is_none():
    flags = np.ones(96)
    flags[[40, 41, 95]] = 0.0

    report = bt.quality(Market.from_frames(FLAT.assign(confirm=flags)))
    assert report.find("bars", "unfinished").count == 3
    assert report.find("bars", "unfinished").places == ("confirm is 0",)

    assert Market.from_frames(FLAT.assign(complete=1.0)).n_bars == 96
    with pytest.warns(UserWarning, match="the last bar left out"):
        market = Market.from_frames(FLAT.assign(complete=np.append(np.ones(95), 0.0)))
    assert not bt.quality(market).find("bars", "unfinished").count

    for signal in (np.arange(96) % 2, np.zeros(96), np.linspace(0.0, 1.0, 96)):
        market = Market.from_frames(FLAT.assign(complete=signal))
        assert market.n_bars == 96
        assert not bt.quality(market).find("bars", "unfinished").count


def test_prices_in_half_precision_are_told_and_noted():
    """60,017 in 16 bits is 60,032: the step there is 32."""
    bars = FLAT.assign(open=60_017.0, high=60_017.0, low=60_017.0, close=60_017.0)
    halves = bars.astype({"open": "float16", "high": "float16", "low": "float16"})
    halves["close"] = bars["close"].astype("float16")

    said = r"open, high, low, close of bars in half .* 60,017 became"
    with pytest.warns(UserWarning, match=said):
        market = Market.from_frames(halves)

    assert market.close[0] == 60_032.0
    assert market.filled["half_precision"].startswith("open, high, low, close of bars in half")
    assert bt.quality(market).find("bars", "half precision").count == 96

    singles = Market.from_frames(bars.astype("float32"))
    assert dict(singles.filled) == {"funding": "none given"}


@pytest.mark.parametrize("has_header", [False, True])
def test_what_klines_carry_is_kept_and_part_of_the_digest(tmp_path, has_header):
    text = kline_text(MARKET.bars(), unit=1_000_000, has_header=has_header)
    (tmp_path / "BTCUSDT-1h-2023-01.csv").write_text(text)

    market = Market.load(tmp_path)

    firsts = {name: values[0] for name, values in market.columns.items()}
    assert firsts == {"quote_volume": 1.5, "trades": 7.0, "taker_buy_volume": 0.5}

    other = market.with_columns(trades=np.append(market.columns["trades"][1:], 8.0))
    assert other.content_hash != market.content_hash
    assert Market.load(market.save(tmp_path / "saved")) == market


def test_volumes_and_trades_add_up_over_longer_bars_and_are_none_in_a_filled_bar():
    """Four hours of 7 trades are 28; what is no sum has its last value."""
    columns = dict.fromkeys(SUMMED, 7.0) | {"funding_seen": np.arange(96.0)}
    market = Market.from_frames(FLAT.assign(**columns))
    longer = market.resample("4h")

    assert [longer.columns[name][0] for name in SUMMED[1:]] == [28.0] * 3
    assert longer.volume[0] == 28.0
    assert longer.columns["funding_seen"][:2].tolist() == [3.0, 7.0]


def test_a_filled_bar_has_no_trades_and_a_redenomination_divides_what_takers_bought(tmp_path):
    frame = FLAT.assign(trades=7.0, taker_buy_volume=3.0, quote_volume=100.0)
    frame.drop(HOURS[[10]]).to_csv(tmp_path / "bars.csv", index_label="time")

    repair = "bar-gaps=flat,redenomination=2023-01-01 02:00x1000"
    columns = Market.load(tmp_path, repair=repair).columns

    for name in ("trades", "taker_buy_volume", "quote_volume"):
        assert columns[name][10] == 0
    assert columns["taker_buy_volume"][:3].tolist() == [0.003, 0.003, 3.0]
    assert columns["quote_volume"][:3].tolist() == [100.0] * 3

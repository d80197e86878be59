"""Files of other tools give the same market; hostile and broken ones are refused."""

import gzip
import os
import pickle
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main
from backtest.market import files
from backtest.market.rules import KINDS
from backtest.strategies import Constant
from tests.kit import AT_BINANCE, check_refused
from tests.layouts import LAYOUTS, MARKET, OF_KLINES, kline_text, own_files, zip_text
from tests.market.conftest import doubled

TERMS = {**AT_BINANCE, "account": bt.Account(band=0.1)}
GOOD = kline_text(MARKET.bars(), unit=1_000_000, has_header=True)
IN_MS = kline_text(MARKET.bars()[:48], unit=1_000_000, has_header=False)
IN_US = kline_text(MARKET.bars()[48:], unit=1_000, has_header=False)
PLAIN = MARKET.bars().to_csv(index_label="time")
LARGE = "0" * 100_001


def run(market: bt.Market) -> bt.Result:
    return bt.run(market, Constant(leverage=3.0), **TERMS)


@pytest.fixture(scope="module")
def expected() -> bt.Result:
    return run(MARKET)


def bytes_of(result: bt.Result) -> tuple[bytes, bytes, dict[str, bytes]]:
    metrics = {name: np.float64(value).tobytes() for name, value in result.metrics.items()}
    events = result.events.to_csv().encode()
    return result.bars.to_numpy(dtype=np.float64).tobytes(), events, metrics


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_on_what_a_layout_holds_has_the_same_bytes(tmp_path: Path, layout: str, expected):
    paths, terms = LAYOUTS[layout](tmp_path)
    market = bt.Market.load(*paths, **terms)

    original = OF_KLINES if layout == "binance_zip" else MARKET
    assert {*market.columns} == {*original.columns}

    again = bt.Market.load(market.save(tmp_path / "imported"))
    assert again.content_hash == market.content_hash
    assert market.content_hash == original.content_hash
    assert dict(again.filled) == {}
    assert bytes_of(run(again)) == bytes_of(expected)


def test_columns_may_be_named_by_position_and_others_are_left_out(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text(kline_text(MARKET.bars(), unit=1_000_000, has_header=False))
    columns = {"time": 0, "open": 1, "high": 2, "low": 3, "close": 4, "count": 8}
    market = bt.Market.load(path, columns=columns)

    assert list(market.columns) == ["count"]
    assert not market.volume.any()
    assert market.close.tolist() == MARKET.close.tolist()


def test_columns_of_funding_are_named_with_its_kind(tmp_path: Path):
    (bars,) = own_files(tmp_path, ("bars",))
    rates = MARKET.funding()[["rate"]].rename(columns={"rate": "fr"})
    rates.to_csv(tmp_path / "fees.csv", index_label="at")

    columns = {"funding.time": "at", "funding.rate": "fr"}
    market = bt.Market.load(bars, funding=[tmp_path / "fees.csv"], columns=columns)
    assert market.funding_rate.tolist() == MARKET.funding_rate.tolist()

    with pytest.raises(bt.ParameterError, match=r"did you mean 'funding\.rate'"):
        bt.Market.load(bars, columns={"funding.rte": "fr"})
    check_refused(lambda: bt.Market.load(bars, columns={"time": "zz"}), "'zz' is not", bt.DataError)


def test_newest_first_is_read_from_a_file_but_disorder_is_refused(tmp_path: Path):
    MARKET.bars().iloc[::-1].to_csv(tmp_path / "bars.csv", index_label="time")
    assert bt.Market.load(tmp_path).close.tolist() == MARKET.close.tolist()

    with pytest.raises(bt.DataError, match="bars must be in order of time"):
        bt.Market.from_frames(MARKET.bars().iloc[::-1])

    mixed = MARKET.bars().iloc[[*range(95, 2, -1), 0, 1, 2]]
    mixed.to_csv(tmp_path / "bars.csv", index_label="time")
    check_refused(lambda: bt.Market.load(tmp_path), "bars must be in order of time", bt.DataError)


def test_naive_sessions_of_yahoo_ask_for_a_zone_and_for_sessions(tmp_path: Path):
    days = pd.bdate_range("2024-01-02", periods=20)
    price = np.linspace(100.0, 110.0, 20)
    frame = pd.DataFrame(
        {"Open": price, "High": price + 1, "Low": price - 1, "Close": price, "Volume": 5.0,
         "Adj Close": price / 2, "Dividends": 0.0},
        index=days.rename("Date"),
    )  # fmt: skip
    frame.to_csv(tmp_path / "SPY.csv")
    check_refused(lambda: bt.Market.load(tmp_path / "SPY.csv"), "stamps must have a time zone")

    market = bt.Market.load(tmp_path / "SPY.csv", timezone="America/New_York", sessions=True)
    assert market.sessions
    assert market.close.tolist() == price.tolist()
    assert list(market.columns) == ["adj_close"]


def differing(frame: pd.DataFrame) -> pd.DataFrame:
    twice = doubled(frame).copy()
    twice.iloc[3, 4] += 1.0
    return twice


def set_cells(rows: slice, **values: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        for name, value in values.items():
            changed.iloc[rows, changed.columns.get_loc(name)] = value
        return changed

    return change


REPAIRS = [
    ("open=close", "bars", set_cells(slice(3, 5), open=0.0), "open", "close: 2 of 96 in bars"),
    ("range", "mark", set_cells(slice(3, 6), low=1e6), "range", "3 of 96 in mark, first at 2023-"),
    ("sort", "bars", lambda f: f.iloc[[0, 2, 1, *range(3, 96)]], "sort", "1 of 96 in bars"),
    ("drop-duplicates", "bars", doubled, "drop_duplicates", "1 of 97 in bars, first at 2023"),
    ("drop-duplicates", "mark", doubled, "drop_duplicates", "1 of 97 in mark"),
    ("drop-duplicates", "funding", doubled, "drop_duplicates", "1 of 13 in funding"),
    ("drop-duplicates=first", "bars", differing, "drop_duplicates", "first: 1 of 97 in bars"),
    ("bar-gaps=flat", "bars", lambda f: f.drop(f.index[[10, 11]]), "bar_gaps", "flat: 2 of 94"),
    ("mark-gaps=last", "mark", lambda f: f[6:], "mark_gaps", "last: 6 of 96 bars"),
    ("funding-gaps=zero", "funding", lambda f: f.drop(f.index[4]), "funding_gaps", "zero: 1 "),
]  # fmt: skip


@pytest.mark.parametrize(("repair", "kind", "change", "key", "note"), REPAIRS)
def test_a_repair_is_done_when_asked_and_recorded(tmp_path: Path, repair, kind, change, key, note):
    paths = own_files(tmp_path, **{kind: change})
    with pytest.raises(bt.DataError) as first:
        bt.Market.load(*paths)

    # Another repair leaves the error as it is.
    other = "bar-gaps=flat" if repair == "sort" else "sort"
    with pytest.raises(bt.DataError, match=re.escape(str(first.value))):
        bt.Market.load(*paths, repair=other)

    market = bt.Market.load(*paths, repair=repair)
    assert len(market) == 96
    assert note in market.filled[key]

    again = bt.Market.load(market.save(tmp_path / "out"))
    assert dict(again.filled) == dict(market.filled)
    assert run(again).manifest["data"]["filled"][key] == market.filled[key]


def test_a_repair_with_nothing_to_do_changes_and_records_nothing(tmp_path: Path):
    every = ["drop-duplicates=last", "sort", "bar-gaps=flat", "mark-gaps=last", "range",
             "funding-gaps=zero", "open=close", "redenomination=2022-01-01x10"]  # fmt: skip

    market = bt.Market.load(*own_files(tmp_path), repair=every, instrument="BTCUSDT")

    assert market == MARKET
    assert dict(market.filled) == {}
    assert len(every) == len(KINDS)


@pytest.mark.parametrize("repair", ["srt", "sort,sort", "mark-gaps=zero", "", "redenomination=x2"])
def test_a_repair_that_is_not_known_is_refused(tmp_path: Path, repair):
    with pytest.raises(bt.ParameterError, match=r"a re(pair must be known|denomination must be a)"):
        bt.Market.load(*own_files(tmp_path), repair=[repair])


def test_an_open_takes_the_close_that_is_asked_for(tmp_path: Path):
    """The bar at 03:00 has no open, that at 04:00 one of zero; the closes are 101 to 106."""
    index = pd.date_range("2024-01-01", periods=6, freq="h", tz="UTC")
    opens = [100.5, 101.0, 102.0, np.nan, 0.0, 105.0]
    prices = {"open": opens, "high": 110.0, "low": 90.0, "close": np.arange(101, 107)}
    pd.DataFrame(prices).set_index(index).to_csv(tmp_path / "bars.csv", index_label="time")
    check_refused(lambda: bt.Market.load(tmp_path), "repair='open=close' or repair='open=previous'")

    for way, filled in (("close", [104.0, 105.0]), ("previous", [103.0, 104.0])):
        market = bt.Market.load(tmp_path, repair=f"open={way}")
        assert market.open.tolist() == [*opens[:3], *filled, 105.0]
        assert market.filled["open"] == f"{way}: 2 of 6 in bars, first at 2024-01-01 03:00 UTC"


def test_a_range_is_widened_to_open_and_close(tmp_path: Path):
    """BitMEX's own buckets open at the close before, here twice under the low."""
    opens = [9854, 9853, 9854, 9854, 9853, 9854]
    times = [1709251200 + 3600 * hour for hour in range(6)]
    rows = "".join(
        f"{time},{first},9855,9854,9854.5,9\n" for time, first in zip(times, opens, strict=True)
    )
    (tmp_path / "bars.csv").write_text(f"time,open,high,low,close,volume\n{rows}")
    check_refused(lambda: bt.Market.load(tmp_path), "repair='range' where the venue itself")

    market = bt.Market.load(tmp_path, repair="range")
    assert market.low.tolist() == opens
    assert market.high.tolist() == [9855.0] * 6
    assert market.filled["range"].startswith("2 of 6 in bars")


@pytest.mark.parametrize("role", ["bars", "mark"])
def test_highs_and_lows_with_each_others_names_are_named_and_not_repaired(tmp_path, capsys, role):
    """Each bar breaks the rule: not the download is wrong, but the names of two columns."""
    swap = {"high": "low", "low": "high"}
    paths = own_files(tmp_path, **{role: lambda frame: frame.rename(columns=swap)})
    prefix = "mark." if role == "mark" else ""
    cure = f"columns={{'{prefix}high': 'low', '{prefix}low': 'high'}}"
    check_refused(lambda: bt.Market.load(*paths), f"are high and low swapped? {cure}")

    text = "a repair must change at most 50 % of the rows, repair='range' would change 96 of 96"
    check_refused(lambda: bt.Market.load(*paths, repair="range"), text)

    words = ["data", "import", *map(str, paths), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    named = f"--columns {prefix}high=low,{prefix}low=high"
    assert f"swapped? {named}" in " ".join(capsys.readouterr().err.split())
    assert main([*words, *named.split()]) == 0
    market = bt.Market.load(tmp_path / "out")
    assert np.array_equal(market.high, MARKET.high)
    assert np.array_equal(market.mark_low, MARKET.mark_low)


def test_a_repair_does_not_make_up_most_of_the_bars(tmp_path: Path):
    paths = own_files(tmp_path, bars=lambda frame: frame.assign(open=0.0))
    text = "a repair must change at most 50 % of the rows, repair='open=close' would change 96"
    check_refused(lambda: bt.Market.load(*paths, repair="open=close"), text)

    paths = own_files(tmp_path, bars=lambda frame: frame.iloc[[*range(30), *range(90, 96)]])
    terms = {"interval": "1h", "repair": "bar-gaps=flat"}
    text = "repair='bar-gaps=flat' would change 60 of 96 (bars"
    check_refused(lambda: bt.Market.load(*paths, **terms), text)


def test_a_redenomination_that_is_declared_multiplies_what_came_before(tmp_path: Path):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        """Divide the prices of the first 48 bars by 1,000, and multiply their volume."""
        changed = frame.copy()
        for name in frame.columns:
            factor = 1000.0 if name == "volume" else 0.001
            changed[name] = np.where(np.arange(len(frame)) < 48, frame[name] * factor, frame[name])
        return changed

    paths = own_files(tmp_path, bars=change, mark=change)

    assert bt.quality(paths).find("bars", "change of unit").count == 1
    market = bt.Market.load(*paths, repair="redenomination=2023-01-03x1000")
    for name in ("open", "low", "mark_high", "close", "volume"):
        np.testing.assert_allclose(getattr(market, name), getattr(MARKET, name), rtol=1e-12)

    note = "2023-01-03x1000: 48 of 96 in bars, first at 2023-01-01 UTC; 2023-01-03x1000: 48 of 96"
    assert market.filled["redenomination"].startswith(note)


def text(content: str | bytes, name: str = "x.csv") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        return folder / name

    return write


def archive(*entries: tuple[str, str], mode: int = 0) -> Callable[[Path], Path]:
    """Return a writer of a zip with these entries; the first may have another file mode."""

    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for number, (name, content) in enumerate(entries):
                info = zipfile.ZipInfo(name)
                info.external_attr = 0 if number else mode << 16
                file.writestr(info, content)
        return folder / "x.zip"

    return write


def locked(folder: Path) -> Path:
    path = archive(("x.csv", GOOD))(folder)
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + place] |= 1
    path.write_bytes(data)
    return path


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.csv")
    return folder / "x.csv"


def twice(folder: Path) -> Path:
    (folder / "BTCUSDT-1h-2023-01.csv").write_text(GOOD)
    zip_text(folder / "BTCUSDT-1h-2023-01.zip", "BTCUSDT-1h-2023-01.csv", GOOD)
    return folder


def changed(cell: str, column: int = 4, row: int = 3) -> str:
    lines = PLAIN.splitlines()
    cells = lines[row].split(",")
    cells[column] = cell
    return "\n".join([*lines[:row], ",".join(cells), *lines[row + 1 :]])


HOSTILE: list[tuple[str, Callable[[Path], Path], str]] = [
    ("zip-slip", archive(("../../evil.csv", "x")), "must have rows, found none"),
    ("zip-slip beside a good file", archive(("x.csv", GOOD), ("../e.csv", "")), "found 2"),
    ("zip with a link", archive(("x.csv", "/etc/passwd"), mode=stat.S_IFLNK | 0o777),
     "must have rows, found none"),
    ("zip in a zip", archive(("x.zip", "PK")), "must hold one .csv"),
    ("zip with a password", locked, "must be whole and readable.*password"),
    ("zip of a thousand", archive(*((f"{n}.csv", "") for n in range(1001))), "found 1001"),
    ("pickle in a gzip", text(gzip.compress(pickle.dumps([1, 2])), "x.csv.gz"), "must be whole"),
    ("pickle", text(pickle.dumps([1, 2]), "x.pkl"), "a file must end in"),
    ("pickle under another name", text(pickle.dumps([1, 2]), "x.parquet"), "must be whole"),
    ("formula in a price", text(changed("=1+2")), "must be numbers, got '=1"),
    ("huge field", text(changed("9" * 5_000_000)), "got inf"),
    ("zero bytes", text(PLAIN[:200].encode() + b"\0" * 5000), "line 4 could not be read"),
    ("months in ms and us", text(IN_MS + IN_US), "epochs must all be in one unit"),
    ("a month twice", twice, "bars must have each time once"),
    ("a pipe, which is not waited for", pipe, "must be a plain file"),
    ("large", text(LARGE), "a file must hold at most"),
    ("large in a zip", archive(("x.csv", LARGE)), "a file must hold at most"),
    ("large in a gzip", text(gzip.compress(LARGE.encode()), "x.csv.gz"), "a file must hold at"),
]  # fmt: skip


def test_a_table_that_would_expand_to_too_much_is_refused(tmp_path, monkeypatch):
    """24 MB of zeros; the bound is lowered to 400 kB."""
    monkeypatch.setattr(files, "LARGEST", 100_000)
    frame = pd.DataFrame(np.zeros((500_000, 6)), columns=list("abcdef"))
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_feather(tmp_path / "x.feather", compression="zstd")

    said = "at most 400,000 bytes, got 500,000 rows of 6 columns"
    for path in (tmp_path / "x.parquet", tmp_path / "x.feather"):
        check_refused(lambda path=path: bt.Market.load(path), said, bt.DataError)


@pytest.mark.parametrize(("name", "write", "rule"), HOSTILE, ids=[name for name, *_ in HOSTILE])
def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path, monkeypatch, name, write, rule):
    if name.startswith("large"):
        monkeypatch.setattr(files, "LARGEST", 100_000)

    inside = tmp_path / "in"
    inside.mkdir()
    path = write(inside)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(bt.DataError, match=rule) as refused:
        bt.Market.load(path).save(tmp_path / "out")

    assert len(str(refused.value)) < 5000
    assert sorted(tmp_path.rglob("*")) == before

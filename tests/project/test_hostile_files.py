"""Hostile and broken files are refused, and leave nothing."""

import gzip
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.market.read import files, packed_files
from tests.fast_cases import every_nth
from tests.layouts import LAYOUTS, MARKET, kline_text

GOOD = kline_text(MARKET.bars(), unit=1_000_000, has_header=True)


HEADER, ROW = GOOD.splitlines()[:2]


PLAIN = MARKET.bars().to_csv(index_label="time")


OHLCV = [[1_672_531_200_000 + i * 3_600_000, 1.0, 1.0, 1.0, 1.0, 1.0] for i in range(24)]


def text(content: str | bytes, name: str = "x.csv") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        return folder / name

    return write


def archive(*entries: tuple[str, str], **settings: int) -> Callable[[Path], Path]:
    """Return a writer of a zip with these entries; settings of the first one's header."""

    def write(folder: Path) -> Path:
        path = folder / "x.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for number, (name, content) in enumerate(entries):
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                if number == 0:
                    for key, value in settings.items():
                        setattr(info, key, value)
                file.writestr(info, content)
        return path

    return write


def locked(folder: Path) -> Path:
    """Write a zip whose headers say it needs a password."""
    path = archive(("x.csv", GOOD))(folder)
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + place] |= 1
    path.write_bytes(data)
    return path


def packed_json(value: object, name: str = "x.json") -> Callable[[Path], Path]:
    return text(json.dumps(value), name)


def changed(cell: str, column: int = 4, row: int = 3) -> str:
    lines = PLAIN.splitlines()
    cells = lines[row].split(",")
    cells[column] = cell
    return "\n".join([*lines[:row], ",".join(cells), *lines[row + 1 :]])


def huge_parquet(folder: Path) -> Path:
    """Write a small file that holds one long text many times."""
    import pyarrow as pa  # noqa: PLC0415 - the one test that needs them
    from pyarrow import parquet  # noqa: PLC0415 - as above

    note = pa.array(["x" * (17 << 20)]).dictionary_encode().take(pa.array([0] * 1000))
    parquet.write_table(pa.table({"time": [1] * 1000, "note": note}), folder / "x.parquet")
    return folder / "x.parquet"


HOSTILE: list[tuple[str, Callable[[Path], Path], str]] = [
    ("zip-slip", archive(("../../evil.csv", GOOD)), "leads out of its folder"),
    ("zip-slip with backslashes", archive(("..\\evil.csv", GOOD)), "leads out of its folder"),
    ("zip with an absolute name", archive(("/etc/x.csv", GOOD)), "leads out of its folder"),
    ("zip with a drive", archive(("C:x.csv", GOOD)), "leads out of its folder"),
    ("zip-slip beside a good file", archive(("x.csv", GOOD), ("../e.csv", "")), "leads out of"),
    ("zip with a link", archive(("x.csv", "/etc/passwd"),
     external_attr=(stat.S_IFLNK | 0o777) << 16), "is a link"),
    ("zip in a zip", archive(("x.zip", "PK")), "is an archive itself"),
    ("gzip in a zip", archive(("x.csv.gz", "x")), "is an archive itself"),
    ("zip with a password", locked, "needs a password"),
    ("zip of two tables", archive(("a.csv", GOOD), ("b.csv", GOOD)), "must hold one table"),
    ("zip of nothing", archive(("a/", "")), "must hold one table"),
    ("zip of a program", archive(("x.py", "import os")), "must hold a .csv or .json file"),
    ("zip of a thousand", archive(*((f"{n}.csv", "") for n in range(1001))), "got 1001 entries"),
    ("zip bomb", archive(("x.csv", "0" * (20 << 20))), "at most 200 times its size"),
    ("gzip bomb", text(gzip.compress(b"0" * (20 << 20)), "x.csv.gz"), "at most 200 times"),
    ("JSON bomb", text(gzip.compress(b" " * (20 << 20)), "x.json.gz"), "at most 200 times"),
    ("parquet bomb", huge_parquet, "a cell of text must be short"),
    ("zip cut short", text(b"PK\x03\x04" + b"\x14" * 40, "x.zip"), "must be whole and readable"),
    ("text named zip", text(GOOD, "x.zip"), "a file named .zip must be one"),
    ("zip named csv", text(b"PK\x03\x04" + b"x" * 40), "a file named .csv must be one"),
    ("gzip cut short", text(gzip.compress(GOOD.encode())[:200], "x.csv.gz"), "must be whole"),
    ("pickle in a gzip", text(gzip.compress(pickle.dumps([1, 2])), "x.csv.gz"), "must be whole"),
    ("pickle", text(pickle.dumps([1, 2]), "x.pkl"), "a file must end in"),
    ("tar", text(b"x" * 512, "x.tar"), "a file must end in"),
    ("formula in a price", text(changed("=1+2")), "must not be a formula"),
    ("formula in a time", text(changed("=cmd|' /C calc'!A0", 0)), "must not be a formula"),
    ("formula by plus", text(changed("+SUM(A1)")), "must not be a formula"),
    ("formula by minus", text(changed("-1+cmd")), "must not be a formula"),
    ("formula by at", text(changed("@SUM(A1)")), "must not be a formula"),
    ("formula in a further column", text(PLAIN.replace("volume", "volume,note", 1).replace(
        "\n", ",=HYPERLINK(1)\n").replace("note,=HYPERLINK(1)", "note")), "must not be a formula"),
    ("formula in the header", text(PLAIN.replace("close", "=close()", 1)), "must not be a formula"),
    ("formula in JSON", packed_json([[*OHLCV[0][:5], "=1+1"], *OHLCV[1:]]), "not be a formula"),
    ("formula in the names of JSON", packed_json([{"=a()": 1.0}]), "must not be a formula"),
    ("huge field", text(changed("9" * 70_000)), "a line must be at most 65536 characters"),
    ("long field", text(changed("x" * 2000)), "must be at most 1024 characters"),
    ("one endless line", text("1," * 100_000), "a line must be at most"),
    ("thousands of columns", text(",".join(f"c{n}" for n in range(600)) + "\n1"), "at most 500"),
    ("zero bytes", text(PLAIN[:200].encode() + b"\0" * 5000), "neither table nor text"),
    ("zero bytes far down", text(PLAIN.encode() + b"\0"), "it holds zero bytes"),
    ("another encoding", text("préis,time\n".encode("latin-1") * 20), "it is not UTF-8"),
    ("another encoding of two bytes", text(PLAIN.encode("utf-16")), "neither table nor text"),
    ("rows of unequal width", text(PLAIN + "1,2,3\n"), "as the header, 6, found 3"),
    ("an unclosed quote", text(PLAIN + '"2023'), "as many cells as the header"),
    ("spaces alone", text("  \n \n"), "data must have rows"),
    ("a header alone", text(HEADER + "\n"), "data must have rows"),
    ("a page instead of a file", text("<!DOCTYPE html>\n<html><body>404</body></html>\n"),
     "one column of times is needed"),
    ("words", text("once upon a time"), "data must have rows"),
    ("no header, five columns", text("1672531200000,1,1,1,1\n" * 3), "whose|known number"),
    ("deep JSON", text("[" * 100_000 + "]" * 100_000, "x.json"), "nested too deeply"),
    ("deep JSON in rows", text('[[1,{"a":' + "[" * 900 + "]" * 900 + "}]]", "x.json"), "nested"),
    ("JSON of an object", packed_json({"data": OHLCV}), "must be an array of rows, got type"),
    ("empty JSON", packed_json([]), "got an empty array"),
    ("JSON of numbers", packed_json([1, 2, 3]), "rows of one kind"),
    ("JSON of unequal rows", packed_json([*OHLCV, [1, 2]]), "the same 6 plain values"),
    ("JSON of rows in rows", packed_json([[*OHLCV[0][:5], [1]]]), "or nested ones"),
    ("JSON of two kinds", packed_json([OHLCV[0], {"a": 1}]), "rows of one kind"),
    ("JSON cut short", text(json.dumps(OHLCV)[:-40], "x.json"), "a file must be JSON"),
    ("JSON of a huge number", text(json.dumps(OHLCV).replace("1.0", "9" * 5000, 1), "x.json"),
     "a file must be JSON"),
    ("JSON of a large time", text(json.dumps(OHLCV).replace("1672531200000", "1" + "0" * 30),
     "x.json"), "time"),
    ("JSON of infinity", text(json.dumps(OHLCV).replace("1.0", "1e999", 1), "x.json"),
     "open must be positive and finite"),
    ("JSON without values", packed_json([[None] * 6] * 5), "every row needs a readable time"),
    ("JSON of texts", packed_json([["a"] * 6] * 5), "every row needs a readable time"),
    ("JSON of a wide row", packed_json([[1.0] * 600]), "the same 600 plain values"),
    ("parquet of nothing", lambda f: (pd.DataFrame().to_parquet(f / "x.parquet"),
     f / "x.parquet")[1], "data must have rows"),
    ("parquet of wide rows", lambda f: (pd.DataFrame(np.ones((2, 600)), columns=[f"c{n}" for n in
     range(600)]).to_parquet(f / "x.parquet"), f / "x.parquet")[1], "at most 500 columns"),
    ("parquet cut short", text(b"PAR1" + b"x" * 100 + b"PAR1", "x.parquet"), "must be whole"),
    ("feather cut short", text(b"ARROW1\0\0" + b"x" * 100, "x.feather"), "must be whole"),
    ("feather of two instruments", lambda f: (pd.concat({"A": MARKET.bars(), "B": MARKET.bars()},
     axis=1).to_parquet(f / "x.parquet"), f / "x.parquet")[1], "one instrument is loaded at"),
    ("two levels that say nothing", lambda f: (pd.concat({"A": MARKET.bars()[["open"]]},
     axis=1).to_parquet(f / "x.parquet"), f / "x.parquet")[1], "one must hold open, high, low"),
    ("times that go backwards by a day", text("\n".join([*PLAIN.splitlines()[:30],
     *PLAIN.splitlines()[3:60]])), "bars must be in order of time"),
    ("a time of 1970 in ms", text(PLAIN.replace("2023-01-01 01:00:00+00:00", "3600000", 1)),
     "time"),
    ("dates without a zone", text(PLAIN.replace("+00:00", "")), "stamps must have a time zone"),
    ("negative prices", text(changed("-5.0")), "close must be positive and finite"),
    ("prices with decimal commas", text(PLAIN.replace(",", ";").replace(".", ",")),
     "must be numbers"),
    ("prices with spaces in thousands", text(changed("30 000")), "close must be numbers"),
    ("hexadecimal prices", text(changed("0x10")), "close must be numbers"),
    ("prices in other digits", text(changed("\u0663\u0660")), "close must be numbers|positive"),
    ("no close", text(PLAIN.replace("close", "cloze", 1)), "a column 'close' is needed"),
    ("one column twice", text(PLAIN.replace("high", "open", 1)), "column names must be unique"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place"), [("x.csv", "x.csv, line 3"), ("x.json", "row 1")])
def test_a_formula_is_named_with_its_line_or_row(tmp_path, name, place):
    rows = [*map(list, OHLCV)]
    rows[1][4] = "=1+1"
    lines = (",".join(map(str, row)) for row in rows)
    csv = "\n".join(["time,open,high,low,close,volume", *lines])
    (tmp_path / name).write_text(csv if name == "x.csv" else json.dumps(rows))
    with pytest.raises(bt.DataError, match="must not be a formula") as refused:
        bt.import_market(tmp_path / name)
    assert refused.value.where.endswith(place)


@pytest.mark.parametrize(
    ("name", "write", "rule"), every_nth(HOSTILE, 2), ids=[each[0] for each in HOSTILE]
)
def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path: Path, name, write, rule):
    inside = tmp_path / "in"
    inside.mkdir()
    path = write(inside)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(bt.DataError, match=rule) as refused:
        bt.import_market(path).save(tmp_path / "out")
    assert len(str(refused.value)) < 5000
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_larger_than_the_limit_is_refused_packed_or_not(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(packed_files, "LARGEST", 5_000)
    for write in (
        text(GOOD),
        archive(("x.csv", GOOD)),
        text(gzip.compress(GOOD.encode()), "x.csv.gz"),
    ):
        with pytest.raises(bt.DataError, match="a file must hold at most"):
            bt.import_market(write(tmp_path))


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_table_of_too_many_cells_is_refused(tmp_path: Path, monkeypatch, suffix: str):
    monkeypatch.setattr(files, "MOST_CELLS", 500)
    frame = MARKET.bars().reset_index(names="time")
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_feather(tmp_path / "x.feather")
    with pytest.raises(bt.DataError, match="a table has at most 500 cells"):
        bt.import_market(tmp_path / f"x.{suffix}")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(bt.DataError, match="must be a plain file"):
        bt.import_market(tmp_path / "x.csv")


def test_a_size_that_the_archive_lies_about_does_not_help(tmp_path: Path):
    path = archive(("x.csv", "0" * (20 << 20)))(tmp_path)
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(bt.DataError, match=r"must be whole|times its size"):
        bt.import_market(path)


def test_a_name_with_a_formula_for_a_shell_is_only_a_name(tmp_path: Path):
    (tmp_path / "$(touch hacked); x.csv").write_text(PLAIN)
    market = bt.import_market(tmp_path / "$(touch hacked); x.csv")
    assert len(market) == 96
    assert not (tmp_path / "hacked").exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["freqtrade_json", "binance_zip", "ccxt", "own_csv",
                                    "freqtrade_feather", "yahoo_parquet"])  # fmt: skip
def test_a_damaged_file_is_refused_or_read_but_never_crashes(tmp_path: Path, layout: str):
    paths, terms = LAYOUTS[layout](tmp_path)
    files = [f for p in paths for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
    path = min((f for f in files if "mark" not in str(f).lower()), key=lambda f: -f.stat().st_size)
    sound = path.read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for number in range(30):
        damaged = bytearray(sound)
        if number % 3 == 0:
            damaged = damaged[: rng.integers(1, len(sound))]
        else:
            for place in rng.integers(0, len(sound), 1 + number):
                damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            market = bt.import_market(*paths, **terms)
        except (bt.DataError, bt.ParameterError):
            refused += 1
        else:
            assert np.isfinite(market.close).all()
    assert refused > 10

"""``backtest data import`` and ``inspect``: what they write, print and refuse."""

import json
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli import main
from tests.commands import call
from tests.layouts import LAYOUTS, MARKET, own_files


def test_an_import_is_a_folder_that_every_command_reads(capsys, folder: Path):
    (folder / "in").mkdir()
    paths, _ = LAYOUTS["binance_zip"](folder / "in")
    code, out, err = call(capsys, "data", "import", *paths, "--out", "btc")
    assert (code, err) == (0, "")
    assert out.startswith("BTCUSDT 1h\n  96 bars, 2023-01-01 to 2023-01-05 UTC; with mark prices")
    assert "liquidation: yes" in out
    assert out.endswith("saved: btc\n")
    assert bt.Market.load("btc") == MARKET
    assert main(["run", "--data", "btc", "--no-compile", "--no-save", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["content_hash"] == MARKET.content_hash


def test_flags_say_roles_columns_zone_span_and_name(capsys, folder: Path):
    mark, funding = own_files(folder, ("mark", "funding"))
    bars = MARKET.bars().tz_localize(None).rename(columns={"close": "last"})
    bars.to_csv("prices.csv", index_label="at")
    code, out, err = call(
        capsys, "data", "import", "prices.csv", "--out", "x", "--mark", mark, "--funding", funding,
        "--columns", "time=at,open=open,high=2,low=low,close=last", "--timezone", "UTC",
        "--instrument", "BTC", "--from", "2023-01-02", "--to", "2023-01-04", "--resample", "4h",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert (found["instrument"], found["interval"], found["bars"]) == ("BTC", "4h", 12)
    assert (found["start"], found["end"]) == ("2023-01-02", "2023-01-04")
    assert found["has_mark"] is True
    assert found["path"] == "x"
    assert {each["use"] for each in found["verdicts"]} == {
        "loading", "liquidation", "funding", "minutes",
    }  # fmt: skip
    assert bt.Market.load("x").content_hash == found["content_hash"]


def test_repairs_are_named_recorded_and_printed(capsys, folder: Path):
    paths = own_files(folder)
    bars = MARKET.bars()
    bars.iloc[[0, 1, 1, *range(2, 96)]].to_csv("bars.csv", index_label="time")
    MARKET.mark()[5:].to_csv("mark.csv", index_label="time")
    code, out, err = call(capsys, "data", "import", *paths, "--out", "x")
    assert code == 2
    assert out == ""
    assert "market data has 2 defects" in err
    assert not Path("x").exists()
    repairs = ["--repair", "drop-duplicates", "--repair", "mark-gaps=last"]
    code, out, _ = call(capsys, "data", "import", *paths, *repairs, "--out", "x")
    assert code == 0
    assert "drop_duplicates: 1 of 97 in bars" in out
    assert set(bt.Market.load("x").filled) == {"drop_duplicates", "mark_gaps"}


def test_data_that_do_not_load_are_inspected_all_the_same(capsys, folder: Path):
    own_files(folder)
    bars = MARKET.bars().drop(MARKET.times[[10, 11]])
    bars.iloc[[0, 1, 1, *range(2, 94)]].to_csv("bars.csv", index_label="time")
    MARKET.funding()[["rate"]].drop(MARKET.funding().index[4]).to_csv(
        "funding.csv", index_label="time"
    )
    with pytest.raises(bt.DataError, match="3 defects"):
        bt.Market.load(folder)
    code, out, _ = call(capsys, "data", "inspect", folder)
    assert code == 0
    assert "What the loader refuses" in out
    assert "2 in 1 gap, longest 2" in out
    assert "2023-01-01 10:00 to 2023-01-01 12:00" in out
    assert "1 settlement missing" in out
    assert "bars must have each time once" in out


DAYS = bt.Market.sample(bars=72).bars().to_csv(index_label="time")


def cell(line: int, column: int, text: str) -> str:
    """Return a table with another cell; lines count from 1."""
    lines = DAYS.splitlines()
    cells = lines[line - 1].split(",")
    cells[column] = text
    return "\n".join([*lines[: line - 1], ",".join(cells), *lines[line:], ""])


@pytest.mark.parametrize(("text", "place"), [
    (cell(4, 4, "abc"), "bars.csv, line 4"),
    (cell(9, 0, "noon"), "bars.csv, line 9"),
    ("# a comment\n" + cell(4, 4, "abc"), "bars.csv, line 5"),
    (cell(4, 4, "abc").replace("\n", "\r\n"), "bars.csv, line 4"),
    (cell(6, 4, "30,5"), "bars.csv, line 6"),
    (cell(4, 4, "abc").replace("\n", "\n\n", 1), "bars.csv, row 2"),
])  # fmt: skip
def test_the_line_of_the_file_is_named_where_it_is_known(folder: Path, text, place):
    (folder / "bars.csv").write_bytes(text.encode())
    with pytest.raises(bt.DataError, match=place):
        bt.Market.load("bars.csv")


def test_decimal_commas_are_recognized_and_read_when_that_is_said(capsys, folder: Path):
    (folder / "eu.csv").write_text(DAYS.replace(",", ";").replace(".", ","))
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x")
    assert code == 2
    assert "got '30000,0' in 72 of 72 cells" in err
    assert "decimal commas" in err
    code, _, err = call(capsys, "data", "import", "eu.csv", "--out", "x", "--decimal", ",")
    assert (code, err) == (0, "")
    assert bt.Market.load("x").bars().equals(bt.Market.sample(bars=72).bars())
    assert bt.quality("eu.csv", decimal=",").fit_for("loading") == "yes"


def test_what_is_refused_is_listed_on_screen_and_as_json(capsys, folder: Path):
    (folder / "bars.csv").write_text(DAYS.replace("+00:00", ""))
    assert "stamps must have a time zone" in call(capsys, "data", "inspect", "bars.csv")[1]
    found = json.loads(call(capsys, "data", "inspect", "bars.csv", "--json")[1])
    assert "timezone='UTC'" in found["defects"][0]


def test_the_report_as_json_is_one_object(capsys, folder: Path):
    own_files(folder, ("bars",))
    code, out, _ = call(capsys, "data", "inspect", "bars.csv", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["bars"]["rows"] == 96
    assert found["mark"] is None
    assert found["bars"]["outliers"]["rule"].startswith("a close over 20 typical moves")
    assert found["verdicts"][2] == {"use": "funding", "fit": "no", "reasons": ["no funding"]}


@pytest.mark.parametrize("layout", ["freqtrade_json", "ccxt", "yahoo_csv", "vectorbt"])
def test_every_kind_of_file_is_inspected(capsys, folder: Path, layout: str):
    (folder / "in").mkdir()
    paths, _ = LAYOUTS[layout](folder / "in")
    code, out, err = call(capsys, "data", "inspect", *paths, "--json")
    assert code == 0, err
    assert json.loads(out)["bars"]["rows"] == 96

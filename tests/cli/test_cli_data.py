"""``backtest data import`` and ``inspect``: what they write, print and refuse."""

import json
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli import main
from tests.kit import call
from tests.layouts import LAYOUTS, MARKET, own_files


def test_an_import_is_a_folder_that_every_command_reads(capsys, folder: Path):
    (folder / "in").mkdir()
    paths, _ = LAYOUTS["binance_zip"](folder / "in")
    code, out, err = call(capsys, "data", "import", *paths, "--out", "btc")
    assert (code, err) == (0, "")
    assert out.startswith("BTCUSDT 1h\n  96 bars, 2023-01-01 to 2023-01-05 UTC; with mark prices")
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
    assert (found["instrument"], found["bars"]) == ("BTC", 12)
    assert found["path"] == "x"
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
    assert "what the loader refuses" in out
    assert "2023-01-01 10:00 to 2023-01-01 12:00: 2" in out
    assert "bars must have each time once" in out

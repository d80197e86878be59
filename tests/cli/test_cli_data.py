"""Commands of data, venues, books and options: what they write, print and refuse."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.venue import preset_files
from tests.kit import ask, call, check_refused
from tests.layouts import LAYOUTS, MARKET, OF_KLINES, own_files
from tests.options.listed_markets import make_chain
from tests.replay import Replay

BTC = "binance-usdm:BTCUSDT"


def test_an_import_is_a_folder_that_every_command_reads(capsys, folder: Path):
    (folder / "in").mkdir()
    paths, _ = LAYOUTS["binance_zip"](folder / "in")

    code, out, err = call(capsys, "data", "import", *paths, "--out", "btc")
    assert code == 0
    assert err == ""
    assert out.startswith("BTCUSDT 1h\n  96 bars, 2023-01-01 to 2023-01-05 UTC; with mark prices")
    assert out.endswith("saved: btc\n")
    assert bt.Market.load("btc") == OF_KLINES

    data = ask(capsys, "run", "--data", "btc", "--no-compile", "--no-save")["data"]
    assert data["content_hash"] == OF_KLINES.content_hash


def test_flags_say_roles_columns_zone_span_and_name(capsys, folder: Path):
    mark, funding = own_files(folder, ("mark", "funding"))
    bars = MARKET.bars().tz_localize(None).rename(columns={"close": "last"})
    bars.to_csv("prices.csv", index_label="at")

    found = ask(
        capsys, "data", "import", "prices.csv", "--out", "x", "--mark", mark, "--funding", funding,
        "--columns", "time=at,open=open,high=2,low=low,close=last", "--timezone", "UTC",
        "--instrument", "BTC", "--from", "2023-01-02", "--to", "2023-01-04", "--resample", "4h",
    )  # fmt: skip

    assert found["instrument"] == "BTC"
    assert found["bars"] == 12
    assert found["path"] == "x"
    assert bt.Market.load("x").content_hash == found["content_hash"]


def test_repairs_are_named_recorded_and_printed(capsys, folder: Path):
    paths = own_files(folder)
    MARKET.bars().iloc[[0, 1, 1, *range(2, 96)]].to_csv("bars.csv", index_label="time")
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

    check_refused(lambda: bt.Market.load(folder), "3 defects", bt.DataError)

    code, out, _ = call(capsys, "data", "inspect", folder)
    assert code == 0
    assert "what the loader refuses" in out
    assert "2023-01-01 10:00 to 2023-01-01 12:00: 2" in out
    assert "bars must have each time once" in out


def test_every_finding_is_shown_also_beside_stamps_without_a_zone(capsys, folder: Path):
    bars = MARKET.bars().tz_localize(None)
    bars.iloc[3, 4] = -1.0
    bars.to_csv("bars.csv", index_label="time")

    code, out, _ = call(capsys, "data", "inspect", "bars.csv")
    assert code == 0
    assert "stamps must have a time zone" in out
    assert "volume must not be negative" in " ".join(out.split())

    out = call(capsys, "data", "inspect", "bars.csv", "--timezone", "UTC")[1]
    assert "time zone" not in out
    assert "volume must not be negative" in " ".join(out.split())


def test_the_sample_is_inspected_as_it_is_run(capsys, folder: Path):
    found = ask(capsys, "data", "inspect", "sample:1", "sample:2")
    assert [*found] == ["sample-1", "sample-2"]
    assert ask(capsys, "data", "inspect", "sample")["facts"]["bars"]["rows"] == 8760

    code, _, err = call(capsys, "data", "inspect", "sample", "--sessions")
    assert code == 2
    assert "the sample accepts no sessions" in err


@pytest.fixture
def two_symbols():
    pytest.importorskip("httpx", reason="downloads need httpx")
    server = Replay().publish("2024-01")
    server.files |= Replay("ETHUSDT").publish("2024-01").files
    with server.serve():
        yield server


def test_several_symbols_are_fetched_into_folders_of_their_own(capsys, folder: Path, two_symbols):
    flags = ("--from", "2024-01-01", "--to", "2024-02-01", "--interval", "1h", "--out", "data")
    flags += ("--base-url", two_symbols.url)

    code, out, err = call(capsys, "data", "fetch", "BTCUSDT", "ETHUSDT", *flags)
    assert code == 0
    assert err == ""
    assert out.count("93 funding, 744 mark, 744 bars") == 2
    assert out.endswith("backtest run --data data/BTCUSDT --data data/ETHUSDT\n")

    markets = bt.Markets.load("data")
    assert markets.names == ("BTCUSDT", "ETHUSDT")
    assert markets["ETHUSDT"].instrument == "ETHUSDT"

    found = ask(capsys, "data", "fetch", "BTCUSDT", "ETHUSDT", *flags)
    assert found["folder"] == "data"
    assert [each["is_new"] for each in found["markets"]] == [False, False]

    code, _, err = call(capsys, "data", "fetch", "BTCUSDT", "NOPEUSDT", *flags)
    assert code == 2
    assert "NOPEUSDT" in err
    assert not (folder / "data" / "NOPEUSDT").exists()

    code, _, err = call(
        capsys, "data", "fetch", "BTCUSDT", "ETHUSDT", *flags[:-4], "--out", "data/BTCUSDT"
    )
    assert code == 2
    assert "holds one market" in err

    assert sorted(path.name for path in (folder / "data").iterdir()) == ["BTCUSDT", "ETHUSDT"]


def test_one_market_of_a_folder_of_folders_is_inspected_alone(capsys, folder: Path):
    bt.Market.sample(bars=72).save("data/A")
    bt.Market.sample(bars=48, seed=1).save("data/B")

    code, out, err = call(capsys, "data", "inspect", "data", "--instrument", "B")
    assert code == 0
    assert err == ""
    assert out == call(capsys, "data", "inspect", "data/B")[1]


def read_manifest(capsys, *words: str) -> dict[str, Any]:
    found = ask(capsys, "run", *words, "--to", "2023-01-03", "--no-compile")
    return bt.Result.load(found["path"]).manifest


@pytest.mark.parametrize("words", [(BTC + "@2021-05-19",), (BTC, "--at", "2021-05-19")])
def test_a_day_shows_the_table_the_prices_and_the_sources_of_that_day(capsys, words):
    code, out, _ = call(capsys, "venues", *words)
    text = " ".join(out.split())

    assert code == 0
    assert out.startswith(f"{BTC}@2021-05-19\n")
    assert "margin table from 2021-03-18" in text
    assert "All margin tables: 2021-03-18, 2022-12-29, 2024-10-24, 2026-09-29." in text


def test_a_preset_as_json_is_the_venue_the_funding_and_the_sources(capsys):
    found = ask(capsys, "venues", BTC, "--at", "2021-05-19")
    assert bt.Venue.from_dict(found["venue"]) == bt.Venue.preset(
        "binance-usdm", "BTCUSDT", at="2021-05-19"
    )
    assert found["funding"]["interval"] == "8h"
    assert found["sources"]["brackets"]["until"] == "2022-12-29"


@pytest.mark.slow
def test_a_file_of_venues_can_be_named_wherever_a_venue_is(capsys, folder):
    (folder / "venues").mkdir()
    shutil.copy(preset_files.FOLDER / "binance-usdm.json", folder / "venues" / "mine.json")
    name = "venues/mine.json:ETHUSDT"

    assert call(capsys, "venues", name)[0] == 0
    assert call(capsys, "liq", "--venue", name, "--side", "long", "--entry", "2000",
                "--leverage", "10")[0] == 0  # fmt: skip

    found = read_manifest(capsys, "--venue", name)
    assert found["venue"]["in_force"]["preset"] == "mine:ETHUSDT"

    (folder / "sub").mkdir()
    (folder / "sub" / "e.toml").write_text('[venue]\npreset = "../venues/mine.json:ETHUSDT"\n')
    assert read_manifest(capsys, "sub/e.toml")["venue"] == found["venue"]


@pytest.mark.parametrize("preset", ["", f'preset = "{BTC}"\n'])
def test_brackets_of_an_experiment_are_of_no_preset(capsys, folder, preset):
    (folder / "e.toml").write_text(
        f"[venue]\n{preset}"
        "brackets = [{floor = 0, cap = inf, max_leverage = 10, maintenance_rate = 0.05}]\n"
    )

    found = read_manifest(capsys, "e.toml")
    assert "in_force" not in found["venue"]
    assert found["venue"]["earlier"] == []
    assert found["margin_tables"] == [{"of": None, "from": "2023-01-01", "bars": 48}]


TEXT = """
[data]
path = "sample"
to = "2023-01-15"

[options]
chains = "quotes.csv"
settlement = "cash"
quantities = "puts.csv"

[[options.contracts]]
kind = "put"
strike = 30_000
expiry = "2023-01-08 12:00"
underlying = "SYNTHETIC-PERP"

[venue]
preset = "binance-usdm:BTCUSDT"

[venue.option_costs]
fee = 0.0003
fee_cap = 0.125
delivery_fee = 0.00015
delivery_cap = 0.125
tick = 0.1
spread = 0.02
"""
NAME = "SYNTHETIC-PERP-2023-01-08-30000-P"


@pytest.fixture
def puts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = ["time", "expiry", "strike", "kind", "bid", "ask", "mark", "iv", "forward", "index"]
    make_chain(["2023-01-01 12:20"]).table[kept].to_csv(tmp_path / "quotes.csv", index=False)

    times = pd.date_range("2023-01-02", periods=3, freq="1h", tz="UTC")
    pd.DataFrame({"time": times, NAME: 2.0}).to_csv(tmp_path / "puts.csv", index=False)

    (tmp_path / "puts.toml").write_text(TEXT)
    return tmp_path


@pytest.mark.slow
def test_a_file_lists_options_and_holds_them(puts, capsys):
    words = ["run", "puts.toml", "--results", "kept", "--no-compile"]
    code, _, err = call(capsys, *words, "--set", "target=0.3")
    assert code == 0, err

    (manifest,) = puts.glob("kept/*/manifest.json")
    listed = json.loads(manifest.read_text())["data"]["options"]
    assert [*listed["contracts"]] == [NAME]
    assert listed["underlyings"] == {NAME: "SYNTHETIC-PERP"}
    assert {*listed["quantities"]} <= {*"0123456789abcdef"}


def test_the_sample_chain_values_options_of_the_sample(puts, capsys):
    text = TEXT.replace('"quotes.csv"', '"sample"').replace('settlement = "cash"\n', "")
    (puts / "puts.toml").write_text(text)
    words = ["run", "puts.toml", "--no-save", "--no-compile", "--to", "2023-01-10"]

    code, out, err = call(capsys, *words, "--policy", "constant")
    assert code == 0, err
    assert f"{NAME}  " in out
    assert re.search(r"expiry +1\n", out)


@pytest.mark.parametrize(("before", "after", "told"), [
    ("spread = 0.02", "spread = 0.02\nlot = 4", "must hold whole lots, of 4"),
    ('settlement = "cash"', "", "a chain must settle as its options, in cash, got prices in coin"),
])  # fmt: skip
def test_lots_and_the_settlement_of_a_chain_are_checked_before_it_is_fitted(
    puts, capsys, monkeypatch, before, after, told
):
    monkeypatch.setattr(bt.Surfaces, "fit", None)
    monkeypatch.setattr(bt.Chain, "load", lambda *_, **__: bt.Chain.sample())
    (puts / "puts.toml").write_text(TEXT.replace(before, after))
    code, _, err = call(capsys, "run", "puts.toml", "--no-compile")

    assert code == 2, err
    assert told in err


@pytest.mark.parametrize(("before", "after", "told"), [
    ('settlement = "cash"', 'settlement = "coin"', "options.settlement must match the"),
    ('kind = "put"', 'kind = "put"\nsettlement = "coin"', "'cash' beside the linear contract"),
])  # fmt: skip
def test_mixed_settlements_are_refused_before_quotes_are_read(puts, capsys, before, after, told):
    (puts / "puts.toml").write_text(TEXT.replace(before, after))
    (puts / "quotes.csv").unlink()
    code, _, err = call(capsys, "run", "puts.toml", "--no-compile")

    assert code == 2, err
    assert told in err

"""``backtest venues``: list, show, import, and what other commands make of a preset's name."""

import json
import warnings
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.venue import preset_files
from tests.kit import call

BTC = "binance-usdm:BTCUSDT"


def manifest(out: str) -> dict[str, Any]:
    """Return the manifest of the run that was printed."""
    return bt.Result.load(json.loads(out)["path"]).manifest


def squeeze(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("words", [(BTC + "@2021-05-19",), ("show", BTC, "--at", "2021-05-19")])
def test_a_day_shows_the_table_the_prices_and_the_sources_of_that_day(capsys, words):
    code, out, _ = call(capsys, "venues", *words)
    text = squeeze(out)
    assert code == 0
    assert out.startswith(f"{BTC}@2021-05-19\n")
    assert "margin table from 2021-03-18" in text
    assert "All margin tables: 2021-03-18, 2022-12-29, 2024-10-24, 2026-09-29." in text


def test_a_preset_as_json_is_the_venue_the_funding_and_the_sources(capsys):
    code, out, _ = call(capsys, "venues", "show", BTC, "--at", "2021-05-19", "--json")
    found = json.loads(out)
    assert code == 0
    assert bt.Venue.from_dict(found["venue"]) == bt.Venue.preset(
        "binance-usdm", "BTCUSDT", at="2021-05-19"
    )
    assert found["funding"]["interval"] == "8h"
    assert found["sources"]["brackets"]["until"] == "2022-12-29"


def tier(floor, cap, leverage, rate, **more):
    sizes = {"minNotional": floor, "maxNotional": cap, "maxLeverage": leverage}
    return {"tier": 1, "symbol": "ETH/USDT:USDT", **sizes, "maintenanceMarginRate": rate, **more}


TIERS = [
    tier(0, 50_000.0, 100.0, 0.005, info={"bracket": "1", "cum": "0.0"}),
    tier(50_000, 250_000.0, 50.0, 0.01, info={"bracket": "2", "cum": "250.0"}),
]
IMPORT = ("import", "tiers.json", "--venue", "mine", "--symbol", "ETH/USDT:USDT", "--like", BTC)


def write(folder, content) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "tiers.json").write_text(text)


@pytest.mark.parametrize("content", [
    {"ETH/USDT:USDT": TIERS},  # ccxt's fetchLeverageTiers, freqtrade's binance_leverage_tiers.json
    TIERS,  # ccxt's fetchMarketLeverageTiers
    {"ETH/USDT:USDT": [  # freqtrade's own form
        {"minNotional": "0", "maxNotional": "50000", "maintenanceMarginRate": "0.005",
         "maxLeverage": "100", "maintAmt": 0.0},
        {"minNotional": 50_000, "maxNotional": 250_000, "maintenanceMarginRate": 0.01,
         "maxLeverage": 50, "maintAmt": 250.0}]},
], ids=["of ccxt", "of one market", "of freqtrade"])  # fmt: skip
def test_tiers_of_other_programs_become_a_venue(capsys, folder, content):
    write(folder, content)
    code, out, _ = call(capsys, "venues", *IMPORT, "--date", "2023-03-01")
    assert code == 0
    assert "--venue venues/mine.json:ETHUSDT" in out
    venue = bt.Venue.preset("venues/mine.json", "ETHUSDT")
    assert [(row.floor, row.cap, row.max_leverage, row.amount) for row in venue.brackets] == [
        (0.0, 50_000.0, 100.0, 0.0), (50_000.0, 250_000.0, 50.0, 250.0)
    ]  # fmt: skip
    like = bt.Venue.preset("binance-usdm", "BTCUSDT")
    assert (venue.fees, venue.liquidation) == (like.fees, like.liquidation)
    assert venue.contract.lot == 0.0
    assert venue.in_force.since == "2023-03-01"
    sources = {
        each.group: each.source for each in preset_files.origins("venues/mine.json", "ETHUSDT")
    }
    assert sources["brackets"] == "tiers.json, ETH/USDT:USDT"
    assert sources["fees"].startswith(f"as {BTC}: ")


@pytest.mark.slow
def test_what_was_imported_can_be_named_wherever_a_venue_is(capsys, folder):
    write(folder, {"ETH/USDT:USDT": TIERS})
    call(capsys, "venues", *IMPORT)
    name = "venues/mine.json:ETHUSDT"
    assert call(capsys, "venues", "show", name)[0] == 0
    assert call(capsys, "liq", "--venue", name, "--side", "long", "--entry", "2000",
                "--leverage", "10")[0] == 0  # fmt: skip
    short = ("--to", "2023-01-03", "--no-compile", "--json")
    code, out, _ = call(capsys, "run", "--venue", name, *short)
    assert code == 0
    assert manifest(out)["venue"]["in_force"]["preset"] == "mine:ETHUSDT"
    (folder / "sub").mkdir()
    (folder / "sub" / "e.toml").write_text('[venue]\npreset = "../venues/mine.json:ETHUSDT"\n')
    assert call(capsys, "run", "sub/e.toml", *short)[0] == 0


def test_sizes_in_contracts_need_their_worth(capsys, folder):
    sized = [tier(0, 1000, 100, 0.004, info={"maxSz": "1000"})]
    write(folder, {"ETH/USDT:USDT": sized})
    code, _, err = call(capsys, "venues", *IMPORT)
    assert code == 2
    assert "in contracts or coins" in err
    assert call(capsys, "venues", *IMPORT, "--unit", "200")[0] == 0
    assert bt.Venue.preset("venues/mine.json", "ETHUSDT").brackets[0].cap == 200_000.0


BAD = {
    "no json": ("{", "must be JSON"),
    "other symbols": ({"ETH/USD:ETH": TIERS}, "did you mean 'ETH/USD:ETH'?"),
    "a rate in percent": ({"ETH/USDT:USDT": [tier(0, 1, 10, 0.5)]}, "must be at most 1"),
    "a wrong amount": ({"ETH/USDT:USDT": [tier(0, 1, 10, 0.01, maintAmt=7)]}, "amount: must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tiers_are_refused_and_nothing_is_written(capsys, folder, name):
    content, words = BAD[name]
    write(folder, content)
    code, out, err = call(capsys, "venues", *IMPORT)
    assert (code, out) == (2, "")
    assert words in err
    assert not (folder / "venues").exists()


@pytest.mark.slow
def test_a_run_by_the_rules_of_a_day_says_where_that_does_not_fit(capsys, folder, recwarn):
    index = pd.date_range("2021-05-01", periods=48, freq="h", tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume"), 100.0), index)
    bars.rename_axis("time").to_csv("bars.csv")
    words = ("run", "--data", "bars.csv", "--no-compile", "--json")
    code, out, err = call(capsys, *words, "--venue", f"{BTC}@2021-05-19")
    found = manifest(out)
    assert code == 0
    assert found["margin_table"] == "in force"
    assert found["venue"]["in_force"] == {
        "preset": BTC, "since": "2021-03-18", "until": "2022-12-29"
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("default", bt.VenueDateWarning)
        code, out, err = call(capsys, *words, "--venue", f"{BTC}@latest")
    assert code == 0
    assert err.count("warning: the margin table of binance-usdm:BTCUSDT is of 2026-09-29") == 1
    assert "the run uses it from 2021-05-01" in manifest(out)["margin_table"]
    for preset in ((), ("--venue", f"{BTC}@history")):
        code, out, err = call(capsys, *words, *preset)
        assert (code, "margin table" in err) == (0, False)
        assert [each["of"] for each in manifest(out)["margin_tables"]] == ["2021-03-18"]


@pytest.mark.parametrize("preset", ["", f'preset = "{BTC}@history"\n'])
def test_brackets_of_an_experiment_are_of_no_preset(capsys, folder, preset):
    (folder / "e.toml").write_text(
        f"[venue]\n{preset}"
        "brackets = [{floor = 0, cap = inf, max_leverage = 10, maintenance_rate = 0.05}]\n"
    )
    short = ("--to", "2023-01-03", "--no-compile", "--json")
    code, out, _ = call(capsys, "run", "e.toml", *short)
    assert code == 0
    assert "in_force" not in manifest(out)["venue"]
    assert manifest(out)["venue"]["earlier"] == []
    assert manifest(out)["margin_tables"] == [{"of": None, "from": "2023-01-01", "bars": 48}]

"""An experiment with options: a file, its flags, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import backtest as bt
from tests.commands import call
from tests.options.listed_markets import make_chain

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
def folder(tmp_path, monkeypatch):
    """Return a folder with an experiment, its quotes and a schedule."""
    monkeypatch.chdir(tmp_path)
    chain = make_chain(["2023-01-01 12:20"])
    kept = ["time", "expiry", "strike", "kind", "bid", "ask", "mark", "iv", "forward", "index"]
    chain.table[kept].to_csv(tmp_path / "quotes.csv", index=False)
    times = pd.date_range("2023-01-02", periods=3, freq="1h", tz="UTC")
    pd.DataFrame({"time": times, NAME: 2.0}).to_csv(tmp_path / "puts.csv", index=False)
    (tmp_path / "puts.toml").write_text(TEXT)
    return tmp_path


@pytest.mark.slow
def test_a_file_lists_options_and_holds_them(folder, capsys):
    words = ["run", "puts.toml", "--results", "kept", "--no-compile"]
    code, _, err = call(capsys, *words, "--set", "target=0.3")
    assert code == 0, err
    (manifest,) = folder.glob("kept/*/manifest.json")
    listed = json.loads(manifest.read_text())["data"]["options"]
    assert [*listed["contracts"]] == [NAME]
    assert listed["underlyings"] == {NAME: "SYNTHETIC-PERP"}
    assert {*listed["quantities"]} <= {*"0123456789abcdef"}


@pytest.mark.parametrize(("line", "words"), [
    ('chains = "quotes.csv"', "got no chains"),
    ('quantities = "puts.csv"', ""),
    ("strike = 30_000", "an option needs a name as Deribit's, or strike"),
    ("fee = 0.0003", "fee"),
])  # fmt: skip
def test_what_lacks_is_said(folder, capsys, line, words):
    text = TEXT.replace(line, "" if words else 'quantities = "none.csv"')
    (folder / "puts.toml").write_text(text)
    code, _, err = call(capsys, "run", "puts.toml", "--no-save", "--no-compile")
    assert code == 2
    assert (words or "must exist") in err


def test_names_and_quotes_are_flags(folder, capsys):
    words = ["run", "--to", "2023-01-15", "--no-save", "--no-compile", "--chains", "quotes.csv"]
    code, _, err = call(capsys, *words, "--option", "BTC-27JAN23-30000-P")
    assert code == 2
    assert "of an instrument of the markets" in err


@pytest.mark.parametrize(("text", "words"), [
    (TEXT.partition("[venue.option_costs]")[0], "in a file [venue.option_costs]"),
    (TEXT.replace("puts.csv", "typo.csv"), f"got '{NAME}T'; did you mean '{NAME}'"),
    (TEXT.replace("quotes.csv", "nowhere"), "a file or folder of quotes must exist"),
    (f"balance = 1{TEXT}", "backtest liq --book puts.toml"),
])  # fmt: skip
def test_slips_are_found_before_surfaces_are_fitted(folder, capsys, monkeypatch, text, words):
    monkeypatch.setattr(bt.Surfaces, "fit", None)
    typo = pd.read_csv(folder / "puts.csv").rename(columns={NAME: f"{NAME}T"})
    typo.to_csv(folder / "typo.csv", index=False)
    (folder / "puts.toml").write_text(text)
    code, _, err = call(capsys, "run", "puts.toml", "--no-save", "--no-compile")
    assert code == 2
    assert words in " ".join(err.split())


def test_the_sample_chain_values_options_of_the_sample(folder, capsys):
    text = TEXT.replace('"quotes.csv"', '"sample"').replace('settlement = "cash"\n', "")
    (folder / "puts.toml").write_text(text)
    words = ["run", "puts.toml", "--no-save", "--no-compile", "--to", "2023-01-10"]
    code, out, err = call(capsys, *words, "--policy", "constant")
    assert code == 0, err
    assert f"{NAME}  " in out
    assert "expiries 1" in out


def test_paths_have_options_of_their_own(folder, capsys):
    (folder / "puts.toml").write_text(f"{TEXT}\n[paths.surfaces]\nratio = 1.2\n")
    words = ["--surfaces", "spread=0.02", "--surfaces", "factors=2", "--paths", "3", "--json"]
    code, out, err = call(capsys, "paths", "puts.toml", *words, "--horizon", "1d")
    assert code == 0, err
    (model,) = json.loads(out)["paths"]["surfaces"].values()
    assert (model["ratio"], model["spread"], model["reversion"]) == (1.2, 0.02, 12.0)


def test_surfaces_do_not_change_the_form_of_the_json_of_paths(capsys):
    given = ["paths", "--paths", "2", "--horizon", "1h", "--model", "gbm", "--json"]
    spread = json.loads(call(capsys, *given, "--surfaces", "ratio=1.1")[1])["spread"]
    assert isinstance(spread, list)  # of one market


@pytest.mark.parametrize(("entry", "words"), [
    ("ratoi=1", "did you mean 'ratio'"),
    ("factors=3", "give 1 for bt.paths.SimulatedSurface, 2 for"),
    ("ratio", "--surfaces ratio=1.1"),
])  # fmt: skip
def test_slips_in_the_surfaces_of_paths_are_named(capsys, entry, words):
    code, _, err = call(capsys, "paths", "--surfaces", entry)
    assert code == 2
    assert words in err


@pytest.mark.parametrize(("table", "flags", "words"), [
    ("ratoi = 1.1", [], "where: puts.toml, [paths.surfaces] cure"),
    ("ratio = 1.1\nfactors = 3", [], "where: puts.toml, [paths.surfaces] cure"),
    ("ratio = 1.1\nspread = 0", [], "where: puts.toml, [paths.surfaces]: "),
    ("spread = 0.02", [], "where: puts.toml, [paths.surfaces] cure: begin with ratio=1.1"),
    ("", ["spread=0.02"], "where: --surfaces cure: begin with ratio=1.1"),
    ("ratio = 1.1", ["ratoi=1"], "where: puts.toml, [paths.surfaces], --surfaces cure"),
])  # fmt: skip
def test_a_slip_in_the_surfaces_names_the_file_or_the_flag(folder, capsys, table, flags, words):
    text = f"\n[paths.surfaces]\n{table}\n" if table else ""
    (folder / "puts.toml").write_text(f"{TEXT}{text}")
    given = [word for each in flags for word in ("--surfaces", each)]
    code, _, err = call(capsys, "paths", "puts.toml", *given)
    assert code == 2
    assert words in " ".join(err.split())


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Return the words that take two markets."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("BTCUSDT", "ETHUSDT")):
        market = bt.Market.sample(bars=120, seed=k)
        replace(market, instrument=name).save(tmp_path / name)
    draw = ["--paths", "2", "--horizon", "1h", "--model", "gbm", "--json"]
    return ["paths", "--data", "BTCUSDT", "--data", "ETHUSDT", *draw]


def test_one_of_several_markets_has_the_surface(two, capsys):
    code, out, err = call(
        capsys, *two, "--surfaces", "ETHUSDT.ratio=1.2", "--surfaces", "ETHUSDT.factors=2"
    )
    assert code == 0, err
    ((name, model),) = json.loads(out)["paths"]["surfaces"].items()
    assert (name, model["name"], model["ratio"]) == ("ETHUSDT", "TwoFactorSurface", 1.2)
    (two_file := Path("two.toml")).write_text("[paths.surfaces.ETHUSDT]\nratio = 1.3\n")
    code, out, err = call(capsys, two[0], str(two_file), *two[1:])
    assert code == 0, err
    assert json.loads(out)["paths"]["surfaces"]["ETHUSDT"]["ratio"] == 1.3


@pytest.mark.parametrize(("entries", "words"), [
    (
        ["ratio=1.1"],
        "cure: give fields of one of BTCUSDT, ETHUSDT alone: --surfaces BTCUSDT.ratio=1.1",
    ),
    (["BTCUSDT.ratio=1.1", "spread=0.02"], "write BTCUSDT.spread with --surfaces"),
    (["BTCUSDT.spread=0.02"], "where: --surfaces, BTCUSDT cure: begin with ratio=1.1"),
    (
        ["ETHUSTD.ratio=1.1"],
        "a model for 'ETHUSTD', but the paths are of BTCUSDT, ETHUSDT; did you mean 'ETHUSDT'",
    ),
])  # fmt: skip
def test_surfaces_of_several_markets_are_refused_in_words_of_the_command(
    two, capsys, entries, words
):
    given = [word for each in entries for word in ("--surfaces", each)]
    code, _, err = call(capsys, *two, *given)
    assert code == 2
    assert words in " ".join(err.split())

"""An experiment with options: a file, its flags, and what it refuses."""

import json
import re

import pandas as pd
import pytest

from tests.kit import call
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


def test_the_sample_chain_values_options_of_the_sample(folder, capsys):
    text = TEXT.replace('"quotes.csv"', '"sample"').replace('settlement = "cash"\n', "")
    (folder / "puts.toml").write_text(text)
    words = ["run", "puts.toml", "--no-save", "--no-compile", "--to", "2023-01-10"]
    code, out, err = call(capsys, *words, "--policy", "constant")
    assert code == 0, err
    assert f"{NAME}  " in out
    assert re.search(r"expiry +1\n", out)


@pytest.mark.parametrize("command", ["paths", "risk"])
def test_paths_of_listed_options_are_refused(folder, capsys, command):
    (folder / "puts.toml").write_text(TEXT)
    code, _, err = call(capsys, command, "puts.toml", "--paths", "3", "--horizon", "1d")
    assert code == 2
    assert "bt.stress answers for accounts that hold them" in err


@pytest.mark.parametrize(("before", "after", "told"), [
    ('settlement = "cash"', 'settlement = "coin"', "options.settlement must be that of the"),
    ('kind = "put"', 'kind = "put"\nsettlement = "coin"', "'cash' beside the linear contract"),
])  # fmt: skip
def test_a_mixture_of_settlements_is_refused_before_quotes_are_read(
    folder, capsys, before, after, told
):
    (folder / "puts.toml").write_text(TEXT.replace(before, after))
    (folder / "quotes.csv").unlink()
    code, _, err = call(capsys, "run", "puts.toml", "--no-compile")
    assert (code, told in err) == (2, True), err

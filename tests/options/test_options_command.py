"""Chains and surfaces at the command line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from backtest.cli import main
from tests.options.quotes import NOW, make_rows


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["options", *words])
    return code, *capsys.readouterr()


def test_chains_and_surfaces_at_the_command_line(capsys, tmp_path: Path):
    file = str(tmp_path / "chain.parquet")
    rows = make_rows()
    rows.loc[0, "bid"] = 1.0
    rows.to_parquet(file)
    code, text, _ = call(capsys, "chain", file, "--settlement", "coin")
    assert code == 0
    assert "1 (1.3%): the bid is above the ask" in text
    code, text, _ = call(capsys, "chain", file, "--settlement", "coin", "--json")
    assert json.loads(text)["defects"][0]["check"] == "crossed"
    code, text, _ = call(capsys, "surface", file, "--settlement", "coin", "--json")
    assert len(json.loads(text)["fits"]) == 3


def test_a_surface_is_of_one_snapshot_of_many(capsys, tmp_path: Path):
    for k in range(2):
        rows = make_rows(time=NOW + pd.Timedelta(days=k), days=(7.0, 30.0))
        both = pd.concat([rows, rows.assign(underlying="ETH")])
        both.to_parquet(tmp_path / f"{k}.parquet")
    given = (str(tmp_path), "--settlement", "coin", "--underlying", "ETH")
    assert "104 quotes in 2 snapshots" in call(capsys, "chain", *given)[1]
    code, text, error = call(capsys, "surface", *given)
    assert (code, text) == (2, "")
    assert "a surface is of one snapshot, got 2: choose one with --at" in error
    text = call(capsys, "surface", *given, "--at", str(NOW), "--json")[1]
    assert len(json.loads(text)["fits"]) == 2


def test_bad_words_end_with_exit_code_2(capsys):
    code, _, error = call(capsys, "chain", "nowhere.parquet")
    assert (code, "error: " in error, "'nowhere.parquet' does not" in error) == (2, True, True)

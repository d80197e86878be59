"""The commands paths, risk, and stress: output, JSON, reports and exit codes."""

import json
import warnings

import pytest

from backtest.cli import main

POLICY = ["--policy", "constant", "--set", "leverage=8", "--no-compile"]
CONSTANT = [*POLICY, "--to", "2023-01-20"]


def test_paths_are_shown_and_written(capsys, tmp_path):
    given = ["paths", "--paths", "50", "--horizon", "2d", "--model", "gbm"]
    assert main([*given, "--write", "out", "--number", "2"]) == 0
    assert "GBM" in capsys.readouterr().out
    assert (tmp_path / "out" / "path-1").is_dir()
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paths"]["model"]["name"] == "GBM"


def test_a_risk_is_estimated_and_repeats(capsys, tmp_path):
    given = ["risk", *CONSTANT, "--paths", "40", "--horizon", "1d"]
    assert main([*given, "--model", "gbm", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["table"][0]
    assert first["horizon"] == "1d"
    assert 0.0 <= first["p_liquidation"] <= 1.0
    assert main([*given, "--model", "gbm", "--report", "risk.html"]) == 0
    assert "liquidation" in capsys.readouterr().out
    assert (tmp_path / "risk.html").exists()
    assert main([*given, "--model", "gbm", "--from-run"]) == 0


def test_the_most_leverage_is_found(capsys):
    given = ["risk", "--no-compile", "--to", "2023-01-20", "--find-leverage", "0.5"]
    drawn = ["--paths", "40", "--horizon", "2h", "--model", "gbm", "--json"]
    assert main([*given, *drawn]) == 0
    held = json.loads(capsys.readouterr().out)["table"]
    assert [row["model"] for row in held] == ["gbm", "worst"]
    assert held[0]["p_liquidation"] <= 0.5
    words = [each for each in [*given, *drawn] if each != "--json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*words, "--policy", "constant", "--set", "leverage=8"]) == 0
    assert "largest factor" in capsys.readouterr().out


def test_shocks_and_ladders_are_read_from_flags(capsys):
    given = ["stress", *CONSTANT, "--shock", "price=-0.05", "--shock", "over=2h", "--json"]
    assert main([*given, "--ladder", "price=-0.1:0.1:3", "--ladder", "margin=1,2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["scenario"] for row in found["table"]] == ["shock"]
    assert found["table"][0]["loss"] > 0.0
    assert len(found["ladder"]) == 6
    assert main(["stress", *CONSTANT, "--scenario", "2020-03-12"]) == 0
    assert "2020-03-12" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "kind"), [
    (["risk", "--paths", "40", "--horizon", "2h", "--model", "gbm"],
     "liquidation-risk"),
    (["stress", "--shock", "price=-0.05"], "stress"),
    (["bounds"], "bounds"),
    (["sensitivity", "--factors", "funding"], "sensitivity"),
])  # fmt: skip
def test_results_are_saved_unless_told_otherwise(words, kind, capsys, tmp_path):
    given = [words[0], *POLICY, *words[1:], "--to", "2023-01-10", "--json"]
    assert main([*given, "--no-save"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] is None
    assert not (tmp_path / "results").exists()
    assert main([*given, "--results", "kept"]) == 0
    folder = json.loads(capsys.readouterr().out)["path"]
    assert folder.startswith(f"kept/{kind}-")
    assert main(["results", "show", folder]) == 0
    assert f"backtest {words[0]}" in capsys.readouterr().out

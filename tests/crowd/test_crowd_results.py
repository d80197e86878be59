"""Cascades are saved, listed, verified and reported."""

import json
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from tests.crowd.crowds import (
    longs_failing_at,
    make_cascade,
    plain_venue,
)
from tests.kit import call


def test_a_loaded_cascade_has_all_but_its_crowd(tmp_path):
    made = make_cascade()
    loaded = bt.Cascade.load(made.save(tmp_path))
    assert loaded.me == pytest.approx(made.me, nan_ok=True)
    assert loaded.payers() == made.payers()
    assert (loaded.haircuts == made.haircuts).all()
    pd.testing.assert_frame_equal(loaded.ladder, made.ladder)
    assert loaded.crowd is None


def test_a_cascade_of_given_positions_has_a_report(tmp_path):
    """Without a market the page has no time, and an infinite fund is no number."""
    hit = bt.cascade(
        longs_failing_at([99.0, 98.0]), plain_venue(), shock=-0.05, impact=bt.Linear(0.0),
        insurance=float("inf"),
    )  # fmt: skip
    text = hit.report(tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Positions given" in text
    assert "unlimited" in text


CASCADE = ("cascade", "--shock", "-0.1", "--open-interest", "3e9",
           "--set", "cascade.accounts=2000", "--from", "2023-11-01")  # fmt: skip


@pytest.fixture
def _plainly(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "no")


@pytest.mark.usefixtures("_plainly")
def test_cascade_prints_saves_and_reports(capsys, tmp_path):
    code, out, err = call(capsys, *CASCADE, "--results", tmp_path, "--policy", "constant")
    assert code == 0, err
    assert "multiplier" in out
    assert "own account" in out
    (folder,) = tmp_path.iterdir()
    code, _, err = call(
        capsys, "report", folder.name, "--results", tmp_path, "--out", tmp_path / "page.html"
    )
    assert code == 0, err


@pytest.mark.usefixtures("_plainly")
def test_cascade_gives_json_and_changes_with_its_options(capsys):
    def run(*more: str) -> dict[str, Any]:
        code, out, err = call(capsys, *CASCADE, "--no-save", "--json", *more)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    plain = run()
    assert plain["shock"] == -0.1
    assert plain == run()
    for more in (("--insurance", "1e9"), ("--impact", "linear:0.5"), ("--leverage", "constant:20"),
                 ("--set", "cascade.seed=1"), ("--recovery", "1m")):  # fmt: skip
        assert run(*more)["rounds"] != plain["rounds"], more
    bare = ("--insurance", "0", "--jump")  # nobody trades on the way: accounts go bankrupt
    assert run(*bare, "--adl", "none")["rounds"] != run(*bare)["rounds"]


@pytest.mark.usefixtures("_plainly")
@pytest.mark.parametrize("words", [
    ("cascade", "--open-interest", "1e9"),
    (*CASCADE, "--impact", "cubic:1"),
    (*CASCADE, "--leverage", "much"),
])  # fmt: skip
def test_bad_flags_exit_with_2_and_save_nothing(capsys, tmp_path, words):
    code, out, err = call(capsys, *words, "--results", tmp_path)
    assert code == 2
    assert err.startswith("error: ")
    assert out == ""
    assert not list(tmp_path.iterdir())

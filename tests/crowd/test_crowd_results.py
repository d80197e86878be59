"""Cascades, simulated markets and crowding are saved, listed, verified and reported."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.crowd.crowd_record import CrowdRecord
from backtest.strategies import Constant
from tests.commands import call
from tests.crowd.crowds import longs_failing_at, plain_venue, uniform_ladder
from tests.fast_cases import first_only
from tests.markets import free_venue


def make_cascade() -> bt.Cascade:
    """Return a cascade with rounds, a deficit and an own account."""
    me = {"side": "long", "quantity": 1.0, "entry": 100.0, "collateral": 20.0}
    return bt.cascade(
        uniform_ladder(200, 0.2), plain_venue(slippage=0.02), shock=-0.03, insurance=20.0,
        impact=bt.Linear(5e-5), volume=1.0, me=me,
    )  # fmt: skip


def make_simulation() -> bt.SimulatedMarket:
    return bt.simulate_market(bt.agents.Thurner(cap=5), steps=300, compile=False)


def make_crowding() -> bt.Crowding:
    return bt.crowding(
        Constant(leverage=2.0), bt.Market.sample(bars=60), venue=free_venue(),
        account=bt.Account(), open_interest=1e8, impact=bt.SquareRoot(1.0), shares=(0.0, 0.01),
        starts=0, compile=False,
    )  # fmt: skip


MAKERS = (make_cascade, make_simulation, make_crowding)


@pytest.mark.parametrize("make", first_only(MAKERS))
def test_saved_and_loaded_it_is_the_same(make, tmp_path):
    made: CrowdRecord = make()
    folder = made.save(tmp_path)
    assert folder.name == f"{made.kind}-{made.manifest['id']}"
    loaded = type(made).load(folder)
    assert loaded.manifest == made.manifest
    assert loaded.summary() == made.summary()
    for name, table in made.tables.items():
        pd.testing.assert_frame_equal(loaded.tables[name], table, check_names=False)
    assert made.save(tmp_path) == folder
    json.dumps(made.to_dict(), allow_nan=False)


def test_a_loaded_market_is_the_simulated_one(tmp_path):
    made = make_simulation()
    loaded = bt.SimulatedMarket.load(made.save(tmp_path))
    assert loaded.market == made.market
    assert loaded.market.synthetic
    pd.testing.assert_frame_equal(loaded.leverage, made.leverage, check_freq=False)


def test_a_loaded_cascade_has_all_but_its_crowd(tmp_path):
    made = make_cascade()
    loaded = bt.Cascade.load(made.save(tmp_path))
    assert loaded.me == made.me
    assert loaded.payers() == made.payers()
    assert (loaded.haircuts == made.haircuts).all()
    pd.testing.assert_frame_equal(loaded.ladder, made.ladder)
    with pytest.raises(bt.ParameterError, match="no crowd"):
        _ = loaded.crowd


@pytest.mark.parametrize("make", MAKERS)
def test_a_damaged_folder_is_an_error(make, tmp_path):
    made = make()
    folder = made.save(tmp_path)
    path = folder / made.files()[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(bt.DataError):
        type(made).load(folder)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("ending", ["html", "md", "json"])
def test_reports_have_the_numbers(make, ending, tmp_path):
    made = make()
    text = made.report(tmp_path / f"page.{ending}").read_text(encoding="utf-8")
    assert made.manifest["id"] in text
    expected = {
        "cascade": "multiplier", "simulation": "kurtosis", "crowding": "reproduction",
    }[made.kind] if ending == "json" else {
        "cascade": "The ladder of liquidations", "simulation": "BTC daily",
        "crowding": "Measures by share",
    }[made.kind]  # fmt: skip
    assert expected in text


def test_a_cascade_of_given_positions_has_a_report(tmp_path):
    """Without a market the page has no time, and an infinite fund is no number."""
    hit = bt.cascade(
        longs_failing_at([99.0, 98.0]), plain_venue(), shock=-0.05, impact=bt.Linear(0.0),
        insurance=float("inf"),
    )  # fmt: skip
    text = hit.report(tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Positions given" in text
    assert "unlimited" in text


def test_the_store_lists_and_verifies_them(tmp_path, capsys):
    for make in MAKERS:
        make().save(tmp_path)
    code, out, _ = call(capsys, "results", "list", "--results", tmp_path)
    assert code == 0
    assert all(kind in out for kind in ("cascade", "simulation", "crowding"))
    code, out, _ = call(capsys, "results", "list", "--results", tmp_path, "--kind", "cascade")
    assert (code, "crowding" in out) == (0, False)
    code, out, _ = call(capsys, "results", "verify", "--results", tmp_path)
    assert code == 0
    assert "3 whole, 0 damaged" in out


CASCADE = ("cascade", "--shock", "-0.1", "--open-interest", "3e9", "--accounts", "2000",
           "--from", "2023-11-01")  # fmt: skip
CROWD = ("crowd", "--open-interest", "3e9", "--shares", "0,0.01", "--starts", "0", "--from",
         "2023-12-25", "--policy", "constant", "--set", "leverage=2")  # fmt: skip


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
    outcome = plain["cascade"]["outcome"]
    assert outcome["shock"] == -0.1
    assert plain == run()
    for more in (("--insurance", "1e9"), ("--impact", "linear:0.5"),
                 ("--jump",), ("--leverage", "constant:20"), ("--long-share", "0.9"),
                 ("--crowd-seed", "1"), ("--volume", "1e8"), ("--recovery", "1m")):  # fmt: skip
        assert run(*more)["rounds"] != plain["rounds"], more
    bare = ("--insurance", "0", "--jump")  # nobody trades on the way: accounts go bankrupt
    assert run(*bare, "--adl", "none")["rounds"] != run(*bare)["rounds"]


@pytest.mark.usefixtures("_plainly")
def test_crowd_prints_and_saves(capsys, tmp_path):
    code, out, err = call(capsys, *CROWD, "--results", tmp_path)
    assert code == 0, err
    assert "of open interest" in out
    code, out, err = call(capsys, *CROWD, "--no-save", "--json")
    assert code == 0, err
    assert [row["share"] for row in json.loads(out)["table"]] == [0.0, 0.01]


@pytest.mark.usefixtures("_plainly")
@pytest.mark.parametrize("words", [
    ("cascade", "--open-interest", "1e9"),
    ("cascade", "--shock", "nan", "--open-interest", "1e9"),
    ("cascade", "--shock", "-0.1", "--open-interest", "nan"),
    (*CASCADE, "--impact", "cubic:1"),
    (*CASCADE, "--impact", "sqrt:x"),
    (*CASCADE, "--leverage", "much"),
    (*CASCADE, "--adl", "later"),
    (*CASCADE, "--accounts", "0"),
    (*CROWD, "--shares", "some"),
    (*CROWD, "--shares", "2"),
    (*CROWD, "--horizon", "99999d", "--starts", "2"),
    ("crowd",),
])  # fmt: skip
def test_bad_flags_exit_with_2_and_save_nothing(capsys, tmp_path, words):
    code, out, err = call(capsys, *words, "--results", tmp_path)
    assert code == 2
    assert "cure" in err
    assert out == ""
    assert not list(tmp_path.iterdir())

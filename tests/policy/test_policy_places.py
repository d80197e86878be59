"""Policies that are named by a module and a class, and those that installed packages declare."""

import json
import sys
from pathlib import Path

import pytest

import backtest as bt
from backtest import ParameterError, PolicyError
from backtest.experiments.policy_names import list_installed, load_policies, read_policy
from backtest.strategies import Capped
from tests.kit import MY_POLICY, call, check_refused

SPAN = ("--to", "2023-01-09", "--no-save", "--json")


@pytest.fixture(autouse=True)
def packages(tmp_path, monkeypatch):
    """Write packages into the working directory; forget their modules afterwards."""
    package = tmp_path / "deskpolicies"
    package.mkdir()

    (package / "__init__.py").write_text("from deskpolicies.steady import Mine as Offered\n")
    (package / "steady.py").write_text(f"from .units import HALF\n{MY_POLICY}")
    (package / "units.py").write_text("HALF = 0.5\n")
    (package / "fails.py").write_text("import backtest\n1 / 0\n")
    (package / "needs.py").write_text("import deskpolicies_of_others\n")
    (package / "syntax.py").write_text("def\n")
    (package / "leaves.py").write_text("raise SystemExit(3)\n")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield

    for name in [name for name in sys.modules if name.startswith("deskpolicies")]:
        del sys.modules[name]


def test_a_class_of_a_module_is_a_policy():
    (cls,) = load_policies("deskpolicies.steady:Mine")
    assert cls.__module__ == "deskpolicies.steady"
    assert cls.__name__ == "Mine"

    assert load_policies("deskpolicies:Offered") == [cls]  # passed on by the package


def test_calls_of_policies_name_modules_and_texts_keep_their_colons():
    policy = read_policy("Capped(deskpolicies.steady:Mine, cap=3)", {})
    assert isinstance(policy, Capped)
    assert "Mine" in repr(policy)

    text = "Capped('deskpolicies.fails:Mine', cap=3)"
    said = "Capped must be given 1 policy, got 0"
    check_refused(lambda: read_policy(text, {}), said, ParameterError)
    assert "deskpolicies.fails" not in sys.modules  # a text names no module


REFUSED = {
    "deskpolicies.stedy:Mine": "'deskpolicies.stedy' is not (did you mean 'steady'?)",
    "deskpolicis.steady:Mine": "'deskpolicis' is not (did you mean 'deskpolicies'?)",
    "deskpolicies.steady.more:Mine": "'deskpolicies.steady.more' is not",
    "deskpolicies.steady:Mne": "of deskpolicies.steady must be one of Mine, Other, got 'Mne'",
    "deskpolicies.steady:HALF": "must be one of Mine, Other, got 'HALF'",
    "deskpolicies.steady:bt": "must be one of Mine, Other, got 'bt'",
    "deskpolicies.units:HALF": "must define a policy, deskpolicies.units defines none",
    "json:loads": "must define a policy, json defines none",
    "deskpolicies:": "policy must be a known name, FILE.py:Class or package.module:Class, got",
    ":Mine": "policy must be a known name, FILE.py:Class or package.module:Class, got",
    "deskpolicies..steady:Mine": "policy must be a known name, FILE.py:Class or",
    "deskpolicies.steady": "policy must be a known name, FILE.py:Class or package.module:Class",
    "deskpolicies.steady:Mine.leverage": "policy must be a known name, FILE.py:Class or",
    "1desk:Mine": "policy must be a known name, FILE.py:Class or package.module:Class",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_place_that_has_no_policy_is_refused(text):
    check_refused(lambda: load_policies(text), REFUSED[text], ParameterError)


@pytest.mark.parametrize(("name", "said"), [
    ("fails", "deskpolicies.fails:2 raised ZeroDivisionError: division by zero"),
    ("needs", "deskpolicies.needs:1 raised ModuleNotFoundError: No module named"),
    ("syntax", "deskpolicies.syntax:1 raised SyntaxError: invalid syntax"),
    ("leaves", "deskpolicies.leaves:1 raised SystemExit: 3"),
])  # fmt: skip
def test_a_module_that_raises_is_named_with_its_line(name, said):
    check_refused(lambda: load_policies(f"deskpolicies.{name}:Mine"), said, PolicyError)


def test_the_command_line_and_files_of_experiments_name_modules(tmp_path, capsys):
    code, out, err = call(capsys, "run", "--policy", "deskpolicies.steady:Mine", *SPAN)
    assert code == 0
    assert err == ""

    (tmp_path / "other").mkdir()
    file = tmp_path / "other" / "steady.toml"
    file.write_text('[policy]\nname = "deskpolicies.steady:Mine"\n')
    code, again, err = call(capsys, "run", str(file), *SPAN)
    assert code == 0
    assert err == ""
    assert json.loads(again)["metrics"] == json.loads(out)["metrics"]

    compared = ("--policy", "deskpolicies.steady:Mine", "--policy", "constant")
    code, out, _ = call(capsys, "compare", *compared, "--to", "2023-03-01", *SPAN[2:])
    assert code == 0
    assert '"mine"' in out  # its label, as of a class of a file


def test_an_overlay_of_a_package_is_saved_by_its_module(tmp_path):
    overlay = read_policy("deskpolicies.steady:Mine", {})
    markets = bt.Markets({"A": bt.Market.sample(seed=1), "B": bt.Market.sample(seed=2)})
    test = bt.Backtest(
        markets,
        venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
        account=bt.Account(),
        overlay=overlay,
    )

    saved = test.save(tmp_path / "test.toml")
    text = (saved / "experiment.toml").read_text("utf-8")
    assert 'name = "deskpolicies.steady:Mine"' in text
    assert bt.Backtest.load(saved).overlay == overlay


def test_entry_points_of_installed_packages_are_listed_and_not_imported(tmp_path, capsys):
    declared = tmp_path / "site" / "desk-1.0.dist-info"
    declared.mkdir(parents=True)
    (declared / "METADATA").write_text("Name: desk\nVersion: 1.0\n")
    (declared / "entry_points.txt").write_text(
        "[backtest.policies]\nwild = desk_that_is_not:Wild [extra]\n"
        "steady = deskpolicies.steady:Mine\n"
    )
    sys.path.append(str(declared.parent))

    places = {"steady": "deskpolicies.steady:Mine", "wild": "desk_that_is_not:Wild"}
    assert list_installed() == places
    code, out, err = call(capsys, "policies")
    assert code == 0
    assert err == ""
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert dict(rows) == places

    code, out, _ = call(capsys, "policies", "--json")
    assert json.loads(out)[-1] == {"name": "wild", "policy": "desk_that_is_not:Wild"}
    assert not any(name.startswith("desk") for name in sys.modules)

    code, _, err = call(capsys, "run", "--policy", "steady", *SPAN)
    assert code == 2
    assert "an installed package has it as deskpolicies.steady:Mine" in err
    assert Path("site").is_dir()

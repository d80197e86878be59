"""``backtest tune``: what it finds, prints and stores, and what it says to a mistake."""

import json
import math
import re
import shlex
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli import searches, typed_values
from tests.kit import call

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "btc-vol-target.toml")
SHORT = ("--to", "2023-01-15", "--no-compile", "--sampler", "random")
"""Two weeks in plain Python: nothing is compiled."""
FEW = (*SHORT, "--trials", "24")


@pytest.fixture
def studies(monkeypatch):
    """Return a list that the studies made by the command line are put on."""
    made = []
    make = bt.tune

    def listen(*given, **settings):
        made.append(make(*given, **settings))
        return made[-1]

    monkeypatch.setattr(searches.backtest, "tune", listen)
    return made


def ask(capsys, *arguments):
    """Tune on two weeks, and return the JSON."""
    code, out, err = call(capsys, "tune", *FEW, "--json", "--no-save", *arguments)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_a_search_prints_its_summary_and_the_command_that_runs_the_winner(capsys, studies):
    flags = ("--space", "target=0.1:1", "--space", "account.band=0:0.2", "--fix", "half_life=48")
    given = (
        "--capital",
        "777",
        "--set",
        "target=2",
        "--set",
        "venue.fees.taker=0.0003",
        "--signal",
        "-0.5",
    )
    code, out, err = call(capsys, "tune", *FEW, *flags, *given)
    assert (code, err) == (0, "")
    assert "sets searched for the best sharpe" in out
    assert "deflated Sharpe ratio" in out
    assert "On the holdout" in out
    assert Path(out.rsplit("full result: ", 1)[1].strip()) == studies[0].folder
    line = shlex.split(re.search(r"`backtest run` with\n(.*)$", out, re.MULTILINE)[1])
    assert "half_life=48" in line
    code, out, err = call(capsys, "run", *SHORT[:3], *given, *line, "--json", "--no-save")
    assert code == 0, err
    again = json.loads(out)["metrics"]
    for name, value in studies[0].replay().metrics.items():
        assert again[name] == (None if math.isnan(value) else value)


@pytest.mark.slow
def test_flags_reach_the_search(capsys):
    found = ask(
        capsys, "--objective", "calmar=1,turnover=-0.01", "--constraint", "max_drawdown<=0.9",
        "--constraint", "liquidations==0", "--space", "half_life=log:10:100", "--space",
        "power=1,2", "--fix", "target=0.3", "--no-robust", "--holdout", "none", "--seconds", "99",
    )  # fmt: skip
    study = found["study"]
    assert study["objective"] == "calmar - 0.01 * turnover"
    assert study["constraints"] == ["ruined == 0", "max_drawdown <= 0.9", "liquidations == 0"]
    half_life, power = study["space"]["dimensions"]
    assert (half_life["low"], half_life["high"], half_life["log"]) == (10, 100, True)
    assert power["options"] == [1, 2]
    assert study["space"]["fixed"] == {"target": 0.3}
    assert study["robust"] is False
    assert study["holdout"] is None
    assert study["budget"] == {"trials": 24, "seconds": 99.0}


@pytest.mark.slow
def test_no_set_that_keeps_the_constraints_is_told(capsys):
    code, out, _ = call(capsys, "tune", *FEW, "--no-save", "--constraint", "fees<0")
    assert code == 1
    assert "constraints" in out.replace("\n", " ").replace("  ", "")
    assert "backtest run" not in out


@pytest.mark.slow
@pytest.mark.filterwarnings("always::UserWarning")
def test_an_interrupted_search_says_how_to_go_on_and_ends_the_same(capsys, monkeypatch, studies):
    code, whole, _ = call(capsys, "tune", *FEW, "--results", "whole")
    assert code == 0

    def stop(now):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searches, "show_search", lambda *_: watch(stop))
        code, out, err = call(capsys, "tune", *FEW)
    assert code == 130
    assert err == "warning: interrupted: the study is unfinished, 16 sets were evaluated\n"
    assert "UNFINISHED" in out
    assert "it can be resumed" in out
    assert "continue with the same command and --resume" in out
    code, out, _ = call(capsys, "tune", *FEW, "--resume")
    assert code == 0
    assert without_places(out) == without_places(whole)


class watch:  # noqa: N801 - a context
    def __init__(self, report):
        self.report = report

    def __enter__(self):
        return self.report

    def __exit__(self, *_):
        return False


def without_places(out):
    return out.rsplit("full result:", 1)[0]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-17, 3, True, None, "isolated", float("inf")])
def test_a_value_is_written_as_it_is_read_again(value):
    assert typed_values.parse_typed(typed_values.format_typed(value)) == value

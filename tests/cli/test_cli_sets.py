"""The commands sweep, tune, compare, risk and stress: what they run, print and save."""

import functools
import math
import re
import shlex
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

import backtest as bt
from backtest.cli import experiment, main, searches
from backtest.strategies import Constant, Cppi, VolTarget
from backtest.sweep.lanes import runner
from tests.kit import AT_BINANCE, ask, call

ROOT = Path(__file__).parents[2]
SHORT = ("--to", "2023-01-08")
SHORT_TUNE = ("--to", "2023-01-15", "--sampler", "random")
FEW = (*SHORT_TUNE, "--trials", "24")
SHORT_COMPARE = ("--to", "2023-02-05", "--set", "data.resample=4h", "--draws", "99")
POLICY = ["--policy", "constant", "--set", "leverage=8"]
CONSTANT = [*POLICY, "--to", "2023-01-20"]


def ask_sweep(capsys, *arguments):
    return ask(capsys, "sweep", *SHORT, "--no-save", *arguments)


@pytest.mark.slow
def test_the_best_row_is_the_run_of_the_printed_settings(capsys):
    """The best trial's settings go over those of the flags and the preset."""
    given = ("--capital", "777", "--signal", "-0.5", "--set", "account.band=0.3")
    vary = ("target=0.3:0.9:4", "account.band=0,0.1", "account.stop_loss=none,0.1",
            "venue.fees.taker=0.0009")  # fmt: skip
    varied = [word for each in vary for word in ("--vary", each)]

    best = ask_sweep(capsys, *given, *varied)["top"][0]
    out = call(capsys, "sweep", *SHORT, "--no-save", *given, *varied)[1]
    words = shlex.split(out.rsplit("other options and\n", 1)[1])
    assert len(words) == 8

    metrics = ask(capsys, "run", *SHORT, *given, *words, "--no-save")["metrics"]
    for name in ("final_equity", "sharpe", "fees", "max_drawdown"):
        assert metrics[name] == pytest.approx(best[name], rel=1e-9)


@pytest.mark.slow
def test_the_command_line_and_python_agree(capsys):
    found = ask_sweep(capsys, "--draws", "8", "--seed", "3", "--metrics", "core")
    market = bt.Market.sample().between(None, "2023-01-08")
    swept = bt.Backtest(market, **AT_BINANCE).sweep(VolTarget(), 8, seed=3, metrics="core")

    assert found["id"] == swept.manifest["id"]
    assert found["path"] is None
    assert found["top"][0]["row"] == swept.best().name
    assert found["top"][0]["final_equity"] == swept.best()["final_equity"]
    assert found["sets"] == {"asked": 8, "done": 8, "ruined": 0, "failed": 0}


def test_ruined_failed_and_forbidden_sets_stand_below_and_are_counted(capsys, folder):
    (folder / "fragile.py").write_text('''
from typing import Annotated

import backtest as bt


class Fragile(bt.Policy):
    """Refuses some sizes."""

    size: Annotated[float, bt.Range(-10.0, 100.0)] = 1.0

    def leverage(self, bar, account):
        return self.size
''')
    flags = ("--policy", "fragile.py", "--vary", "size=-1,0.1,2,90", "--constraints", "fees<=40")
    harsh = ("--set", "account.after_liquidation=halt", "--set", "venue.slippage.rate=0.05")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = call(capsys, "sweep", *SHORT, "--no-save", *flags, *harsh)

    assert code == 0
    assert "1 of 4 sets failed" in err

    order = re.findall(r"^ *(\d)  +(-?[\d.]+)", out, re.MULTILINE)
    # 0.1x alone keeps its fees under 40; 2x does not, 90x is ruined and -1x fails.
    assert order == [("1", "0.1"), ("2", "2"), ("3", "90"), ("4", "-1")]
    assert "1 ruined, 1 failed" in out


def test_ctrl_c_prints_and_saves_what_is_done(capsys, monkeypatch):
    """Sets are simulated one by one: as a block, all eight are done at once."""
    monkeypatch.setattr(runner, "LEAST_LANES", 1_000)
    run = bt.Backtest.sweep

    @functools.wraps(run)
    def stop_early(*given, **settings):
        def stop(done, total):
            if done == 3:
                raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="5 of 8 sets were not done"):
            return run(*given, **{**settings, "progress": stop})

    monkeypatch.setattr(bt.Backtest, "sweep", stop_early)
    code, out, _ = call(capsys, "sweep", *SHORT, "--draws", "8")
    assert code == 130
    assert "3 of 8 parameter sets were run" in out

    assert len(bt.Sweep.load(next(Path("results").iterdir())).table) == 3


@pytest.fixture
def studies(monkeypatch):
    made = []
    make = bt.Backtest.tune

    @functools.wraps(make)  # flags are made of its signature
    def listen(*given, **settings):
        made.append(make(*given, **settings))
        return made[-1]

    monkeypatch.setattr(bt.Backtest, "tune", listen)
    return made


def test_progress_is_a_line_again_and_again_where_stderr_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(searches.printing, "EVERY", 0.01)
    _, _, err = call(capsys, "tune", *SHORT_TUNE, "--trials", "8", "--no-robust", "--no-save")
    assert re.search(r"^VolTarget: \d+ sets of \d+.*, \d+ s$", err, re.MULTILINE)


@pytest.mark.slow
def test_a_search_prints_its_summary_and_the_command_that_runs_the_winner(capsys, studies):
    flags = ("--space", "target=0.1:1", "--space", "account.band=0:0.2", "--fix", "half_life=48")
    given = shlex.split("--capital 777 --signal -0.5 --set target=2 --set venue.fees.taker=0.0003")
    code, out, err = call(capsys, "tune", *FEW, *flags, *given)
    assert code == 0
    assert err == ""

    assert "sets searched for the best Sharpe" in out
    assert "Deflated Sharpe ratio" in out
    assert "On the holdout" in out
    assert Path(out.rsplit("full result: ", 1)[1].strip()) == studies[0].folder

    line = shlex.split(re.search(r"`backtest run`, .* and\n(.*)$", out, re.MULTILINE)[1])
    assert "half_life=48" in line

    again = ask(capsys, "run", *SHORT_TUNE[:2], *given, *line, "--no-save")["metrics"]
    for name, value in studies[0].replay().metrics.items():
        assert again[name] == (None if math.isnan(value) else value)


@pytest.mark.slow
def test_flags_reach_the_search(capsys):
    words = "--objective calmar=1,turnover=-0.01 --constraints max_drawdown<=0.9 --constraints "
    words += "liquidations==0 --space half_life=log:10:100 --space power=1,2 --fix target=0.3 "
    words += "--no-robust --holdout none --seconds 99"
    found = ask(capsys, "tune", *FEW, "--no-save", *words.split())

    study = found["study"]
    half_life, power = study["space"]["dimensions"]
    assert half_life["low"] == 10
    assert half_life["high"] == 100
    assert half_life["log"] is True
    assert power["options"] == [1, 2]
    assert study["space"]["fixed"] == {"target": 0.3}

    expected = {
        "objective": "calmar - 0.01 * turnover", "robust": False, "holdout": None, "trials": 24,
        "constraints": ["ruined == 0", "max_drawdown <= 0.9", "liquidations == 0"], "seconds": 99.0,
    }  # fmt: skip
    assert {name: study[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("is_evidence", [True, False])
def test_a_gate_follows_the_verdict(capsys, monkeypatch, is_evidence):
    monkeypatch.setattr(bt.Study, "has_evidence", is_evidence)
    code, out, _ = call(capsys, "tune", *FEW, "--no-save", "--gate")
    assert code == int(not is_evidence)
    assert "beats constant leverage at equal risk" in " ".join(out.split())


@pytest.mark.slow
def test_no_set_that_keeps_the_constraints_is_told(capsys):
    code, out, _ = call(capsys, "tune", *FEW, "--no-save", "--constraints", "fees<0")
    assert code == 1
    assert "constraints" in out.replace("\n", " ").replace("  ", "")
    assert "backtest run" not in out


@pytest.mark.slow
@pytest.mark.filterwarnings("always::UserWarning")
def test_an_interrupted_search_says_how_to_go_on_and_ends_the_same(capsys, monkeypatch):
    code, whole, _ = call(capsys, "tune", *FEW, "--results", "whole")
    assert code == 0

    def stop(now, objective):
        raise KeyboardInterrupt

    shown = nullcontext(SimpleNamespace(report_search=stop))
    with monkeypatch.context() as patch:
        patch.setattr(searches.printing, "show_progress", lambda *_: shown)
        code, out, err = call(capsys, "tune", *FEW)

    assert code == 130
    assert err == "warning: interrupted: the study is unfinished, 16 sets were evaluated\n"
    assert "UNFINISHED" in out
    assert "it can be resumed" in out
    assert "continue with the same command and --resume" in out

    code, out, _ = call(capsys, "tune", *FEW, "--resume")
    assert code == 0
    assert out.rsplit("full result:", 1)[0] == whole.rsplit("full result:", 1)[0]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-17, 3, True, None, "isolated", float("inf")])
def test_a_value_is_written_as_it_is_read_again(value):
    assert experiment.parse_typed(experiment.format_typed(value)) == value


TABLE = """
[compare]
baseline = "bold"
equal_risk = true
confidence = 0.9
seed = 7
policies.calm.name = "constant"
policies.bold = {name = "constant", settings = {leverage = 2}}
policies.cppi = {name = "cppi", settings = {multiplier = 4}}
"""
TYPED = "--policy calm=constant --policy bold=constant --policy cppi --set bold.leverage=2"


@pytest.mark.filterwarnings("ignore:cppi was scaled")
@pytest.mark.parametrize(("words", "terms"), [
    (f"{TYPED} --baseline bold", {}),
    ("c.toml", {"equal_risk": True, "confidence": 0.9}),
], ids=["flags", "a table and flags over it"])  # fmt: skip
def test_a_comparison_of_the_command_line_is_that_of_python(capsys, folder, words, terms):
    """Policies go by their labels and have settings of their own."""
    (folder / "c.toml").write_text(TABLE)
    typed = f"{words} --set cppi.multiplier=5 --set account.band=0.3 --seed 3"
    found = ask(capsys, "compare", *typed.split(), *SHORT_COMPARE, "--no-save")

    market = bt.Market.sample().between(None, "2023-02-05").resample("4h")
    account = {**AT_BINANCE, "account": bt.Account(band=0.3)}
    policies = {"calm": Constant(), "bold": Constant(leverage=2.0), "cppi": Cppi(multiplier=5.0)}
    results = {name: bt.run(market, each, **account) for name, each in policies.items()}
    compared = bt.compare(results, baseline="bold", draws=99, seed=3, **terms)

    assert found["comparison"]["id"] == compared.manifest["id"]
    assert found["path"] is None
    assert [row["policy"] for row in found["table"]] == [*policies]
    assert found["differences"][0]["against"] == "bold"
    assert found["differences"][0]["low"] == compared.differences["low"].iloc[0]


def test_a_risk_is_estimated_and_repeats(capsys, tmp_path):
    given = ["risk", *CONSTANT, "--paths", "40", "--horizon", "1d"]
    first = ask(capsys, *given, "--model", "gbm")["table"][0]
    assert first["horizon"] == "1d"
    assert 0.0 <= first["p_liquidation"] <= 1.0

    assert main([*given, "--model", "gbm", "--report", "risk.html"]) == 0
    assert "liquidation" in capsys.readouterr().out
    assert (tmp_path / "risk.html").exists()

    assert main([*given, "--model", "gbm", "--from-run"]) == 0


def test_the_most_leverage_is_found(capsys):
    given = ["risk", "--to", "2023-01-20", "--find-leverage", "0.5"]
    given += ["--paths", "40", "--horizon", "2h", "--model", "gbm"]

    held = ask(capsys, *given)["table"]
    assert [row["model"] for row in held] == ["gbm", "worst"]
    assert held[0]["p_liquidation"] <= 0.5

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*given, "--policy", "constant", "--set", "leverage=8"]) == 0

    said = capsys.readouterr()
    assert "Largest factor" in said.out
    assert "largest leverage: 1 of 1 models searched, " in said.err  # stderr is no terminal


def test_shocks_and_ladders_are_read_from_flags(capsys):
    given = ["stress", *CONSTANT, "--shock", "price=-0.05", "--shock", "over=2h"]
    found = ask(capsys, *given, "--ladder", "price=-0.1:0.1:3", "--ladder", "margin=1,2,3")
    assert [row["scenario"] for row in found["table"]] == ["shock"]
    assert found["table"][0]["loss"] > 0.0
    assert sorted({row["margin"] for row in found["ladder"]}) == [1.0, 2.0, 3.0]
    assert len(found["ladder"]) == 9

    assert main(["stress", *CONSTANT, "--scenarios", "2020-03-12"]) == 0
    assert "2020-03-12" in capsys.readouterr().out


def test_a_ladder_of_a_file_is_that_of_python(capsys, tmp_path):
    """For a while, the count of a range was a third value, a price 41 times as high."""
    file = tmp_path / "stress.toml"
    file.write_text("[stress.ladder]\nprice = [-0.5, 0.5, 41]\n", encoding="utf-8")
    found = ask(capsys, "stress", file, *CONSTANT, "--shock", "price=-0.05")
    assert len(found["ladder"]) == 41


@pytest.mark.parametrize(("words", "kind"), [
    (["risk", "--paths", "40", "--horizon", "2h", "--model", "gbm"],
     "liquidation-risk"),
    (["stress", "--shock", "price=-0.05"], "stress"),
    (["bounds"], "bounds"),
    (["bands", "--n", "3", "--goal", "0.5"], "bands"),
    (["sensitivity", "--factors", "funding"], "sensitivity"),
    (["timing"], "timing"),
])  # fmt: skip
def test_results_are_saved_unless_told_otherwise(words, kind, capsys, tmp_path):
    given = [words[0], *POLICY, *words[1:], "--to", "2023-01-10"]
    assert ask(capsys, *given, "--no-save")["path"] is None
    assert not (tmp_path / "results").exists()

    folder = ask(capsys, *given, "--results", "kept")["path"]
    assert folder.startswith(f"kept/{kind}-")

    assert main(["results", "show", folder]) == 0
    assert f"backtest {words[0]}" in capsys.readouterr().out


def test_paths_are_shown(capsys):
    given = ["paths", "--paths", "50", "--horizon", "2d", "--model", "gbm"]
    code, out, err = call(capsys, *given)
    assert code == 0
    assert err == ""
    assert out.startswith("50 paths of 48 bars, GBM, seed 0, no drift")

    spread = ask(capsys, *given)["spread"]
    (rows,) = spread.values()
    assert [row["days"] for row in rows] == ["1", "2"]

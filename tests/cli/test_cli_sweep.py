"""``backtest sweep``: what it runs, ranks, prints and saves, and what it says to a mistake."""

import json
import re
import shlex
import warnings
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli import searches
from backtest.strategies import VolTarget
from tests.kit import call

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "btc-vol-target.toml")
SHORT = ("--to", "2023-01-08", "--no-compile")
"""A week in plain Python: nothing is compiled."""

FRAGILE = '''
from typing import Annotated

import backtest as bt


class Fragile(bt.Policy):
    """Refuses some sizes."""

    size: Annotated[float, bt.Range(-10.0, 100.0)] = 1.0

    def leverage(self, bar, account):
        return self.size
'''


def ask(capsys, *arguments):
    """Sweep a week, and return the JSON."""
    code, out, err = call(capsys, "sweep", *SHORT, "--json", "--no-save", *arguments)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_the_best_row_is_the_run_of_the_printed_settings(capsys):
    """The winner's settings go over those of the flags and the preset."""
    given = ("--capital", "777", "--signal", "-0.5", "--set", "account.band=0.3")
    vary = ("target=0.3:0.9:4", "account.band=0,0.1", "account.stop_loss=none,0.1",
            "venue.fees.taker=0.0009")  # fmt: skip
    varied = [word for each in vary for word in ("--vary", each)]
    best = ask(capsys, *given, *varied)["top"][0]
    out = call(capsys, "sweep", *SHORT, "--no-save", *given, *varied)[1]
    words = shlex.split(out.rsplit("`backtest run` with\n", 1)[1])
    assert len(words) == 8
    code, out, err = call(capsys, "run", *SHORT, *given, *words, "--json", "--no-save")
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    for name in ("final_equity", "sharpe", "fees", "max_drawdown"):
        assert metrics[name] == pytest.approx(best[name], rel=1e-9)


@pytest.mark.slow
def test_the_command_line_and_python_agree(capsys):
    found = ask(capsys, "--draws", "8", "--seed", "3", "--method", "lhs", "--metrics", "core")
    swept = bt.sweep(
        bt.Market.sample().between(None, "2023-01-08"),
        VolTarget(),
        8,
        venue=bt.Venue.preset("binance-usdm", "BTCUSDT"),
        account=bt.Account(),
        method="lhs",
        seed=3,
        metrics="core",
        compile=False,
    )
    assert found["id"] == swept.manifest["id"]
    assert found["path"] is None
    assert found["top"][0]["row"] == swept.best().name
    assert found["top"][0]["final_equity"] == swept.best()["final_equity"]
    fates = {"ruined": 0, "failed": 0, "breaking": 0}
    assert found["sets"] == {"asked": 8, "done": 8, **fates}


def test_ruined_failed_and_forbidden_sets_stand_below_and_are_counted(capsys, folder):
    (folder / "fragile.py").write_text(FRAGILE)
    flags = ("--policy", "fragile.py", "--vary", "size=-1,0.1,2,90", "--constraint", "fees<=40")
    harsh = ("--set", "account.after_liquidation=halt", "--set", "venue.slippage.rate=0.05")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = call(capsys, "sweep", *SHORT, "--no-save", *flags, *harsh)
    assert code == 0
    assert "1 of 4 sets failed" in err
    order = re.findall(r"^ *(\d)  +(-?[\d.]+)", out, re.MULTILINE)
    assert order[0] == ("1", "0.1")
    assert order[-1] == ("4", "-1")
    assert "1 failed" in out


def test_ctrl_c_prints_and_saves_what_is_done(capsys, monkeypatch):
    run = bt.sweep

    def stop_early(*given, **settings):
        def stop(done, total):
            if done == 3:
                raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="5 of 8 sets were not done"):
            return run(*given, **{**settings, "progress": stop})

    monkeypatch.setattr(searches.backtest, "sweep", stop_early)
    code, out, _ = call(capsys, "sweep", *SHORT, "--draws", "8")
    assert code == 130
    assert "3 of 8 sets were run" in out
    assert len(bt.Sweep.load(next(Path("results").iterdir())).table) == 3

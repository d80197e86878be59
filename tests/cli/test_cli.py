"""The command line: what it prints and where it saves."""

import json
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli import policies
from backtest.cli.build import build_experiment
from backtest.cli.experiment import draft_experiment
from backtest.engine.policy_contract import Finding
from backtest.strategies import VolTarget
from tests.kit import call, run_python

ROOT = Path(__file__).parents[2]
SHORT = ("--to", "2023-01-15", "--no-compile")
"""Two weeks in plain Python: nothing is compiled."""

MY_POLICY = '''
import backtest as bt


class Mine(bt.Policy):
    """Hold one."""

    def leverage(self, bar, account):
        return 1.0


class Other(bt.Policy):
    """Hold two."""

    def leverage(self, bar, account):
        return 2.0
'''


def test_what_a_policy_prints_is_no_part_of_the_json(capsys, folder):
    noisy = MY_POLICY.replace("return 1.0", 'print("at", bar.close); return 1.0')
    (folder / "noisy.py").write_text('print("imported")\n' + noisy)
    words = ("--policy", "noisy.py:Mine", "--json", "--no-save", "--to", "2023-01-02")
    code, out, err = call(capsys, "run", "--no-compile", *words)
    assert code == 0
    assert json.loads(out)["policy"] == "Mine()"
    assert err.startswith("imported\nat ")
    assert "imported" in call(capsys, "run", "--no-compile", *words[:2], *words[3:])[1]


def test_json_is_one_object_with_null_for_nan_and_nothing_else(capsys):
    code, out, _ = call(capsys, "run", *SHORT, "--json", "--results", "there")
    found = json.loads(out)
    assert code == 0
    assert found["metrics"]["ruin_time"] is None
    assert found["data"]["synthetic"] is True
    assert found["path"].startswith("there/")
    assert bt.Result.load(found["path"]).manifest["id"] == found["id"]


def test_flags_reach_policy_venue_account_and_run(capsys):
    settings = [
        "target=0.6", "half_life=24", "venue.fees.taker=0.0003", "venue.slippage.rate=0.0002",
        "account.venue_leverage=7", "account.band=0.1", "account.stop_loss=0.2",
        "account.ruin_at=0.3", "run.sampling=12h", "account.auto_margin=true",
        "venue.fees.per_order=2", "venue.profit_counts=losses", "venue.liquidation.impact=0.1",
        "venue.liquidation.mode=close",
    ]  # fmt: skip
    flags = [word for each in settings for word in ("--set", each)]
    flags += ["--capital", "500", "--margin", "isolated", "--max-leverage", "4", "--signal", "-0.5"]
    code, _, err = call(capsys, "run", *SHORT, *flags, "--results", "r")
    assert code == 0, err
    result = bt.Result.load(next(Path("r").iterdir()))
    assert result.manifest["policy"]["settings"] == VolTarget(0.6, 24.0).settings()
    assert result.venue.fees.taker == pytest.approx(3e-4)
    assert result.venue.slippage.rate == pytest.approx(2e-4)
    assert result.account == bt.Account(
        capital=500,
        margin="isolated",
        venue_leverage=7,
        band=0.1,
        max_leverage=4,
        stop_loss=0.2,
        ruin_at=0.3,
        auto_margin=True,
    )
    assert result.venue.fees.per_order == 2.0
    assert result.venue.profit_counts == "losses"
    assert result.venue.liquidation.impact == 0.1
    assert result.manifest["signal"] == "constant -0.5"
    assert result.manifest["sampling"] == "12h"
    assert (result.bars["position"].iloc[-100:] <= 0).all()


def test_a_venue_may_be_given_whole(folder):
    venue = bt.Venue.simple(
        taker=1e-3,
        slippage=0.0,
        maintenance_rate=0.01,
        max_leverage=50,
        liquidation_fee=0.01,
        interest_on="balance",
    )
    lines = ["[venue]", 'interest_on = "balance"']
    for name in ("contract", "fees", "slippage", "liquidation"):
        content = venue.to_dict()[name]
        lines += [f"[venue.{name}]", *(f"{k} = {json.dumps(v)}" for k, v in content.items())]
    lines += ["[[venue.brackets]]", "floor = 0", "cap = inf", "max_leverage = 50"]
    lines += ["maintenance_rate = 0.01"]
    (folder / "e.toml").write_text("\n".join(lines))
    assert build(folder).terms["venue"] == venue


def test_an_experiment_may_hold_a_multiple(folder):
    (folder / "e.toml").write_text(
        '[account]\nstop_loss = {multiple = 2, column = "atr"}\ntake_profit = "3*atr"\n'
        'trailing_stop = 0.1\nfill = "next_close"\n'
    )
    account = build(folder).terms["account"]
    assert account == bt.Account(
        stop_loss=bt.Multiple(2.0, "atr"),
        take_profit=bt.Multiple(3.0, "atr"),
        trailing_stop=0.1,
        fill="next_close",
    )


def build(folder, *flags):
    return build_experiment(draft_experiment(folder / "e.toml", list(flags)))


def test_check_exits_with_1_where_a_check_fails(capsys, folder, monkeypatch):
    (folder / "mine.py").write_text(MY_POLICY)
    seen = []

    def find(policy, market):
        seen.append((policy.__name__, market))
        passed = policy.__name__ == "Mine"
        return [Finding("sees no future", passed, "" if passed else "column x looks ahead")]

    monkeypatch.setattr(policies, "check_policy", find)
    code, out, _ = call(capsys, "check", "mine.py")
    assert code == 1
    assert "Mine: keeps the contract" in out
    assert "column x looks ahead" in out
    assert seen == [("Mine", None), ("Other", None)]
    assert call(capsys, "check", "mine.py:Mine")[0] == 0
    code, out, _ = call(capsys, "check", "mine.py:Other", "--json")
    assert code == 1
    assert json.loads(out)["Other"][0]["passed"] is False


@pytest.mark.slow
def test_lists_and_help_do_not_load_the_compiler():
    code = (
        "import sys; from backtest.cli import main; main(['policies']); main(['run', '--help']);"
        "print([m for m in ('numba', 'vectorbt', 'plotly', 'scipy') if m in sys.modules])"
    )
    printed = run_python(code)
    assert printed.endswith("[]")

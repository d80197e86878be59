"""Fill modes and stops at the command line and in experiment files."""

import json
from pathlib import Path

import backtest as bt
from backtest.cli.experiment import build_experiment, draft_experiment
from tests.commands import call

SHORT = ("--to", "2023-01-15", "--no-compile", "--no-save")


def test_flags_set_fill_mode_and_stops(capsys):
    flags = ("--fill", "same_close", "--take-profit", "0.05", "--trailing-stop", "0.04")
    code, out, err = call(capsys, "run", *SHORT, *flags, "--equity-stop", "0.3")
    assert code == 0, err
    words = " ".join(out.split())
    for text in ("fill same_close", "take_profit 0.05", "trailing_stop 0.04", "equity_stop 0.3"):
        assert text in words


def test_an_experiment_may_hold_a_multiple():
    Path("mine.toml").write_text(
        '[account]\nstop_loss = {multiple = 2, column = "atr"}\ntake_profit = "3*atr"\n'
        'trailing_stop = 0.1\nfill = "next_close"\n'
    )
    account = build_experiment(draft_experiment(Path("mine.toml"), [])).terms["account"]
    assert account == bt.Account(
        stop_loss=bt.Multiple(2.0, "atr"),
        take_profit=bt.Multiple(3.0, "atr"),
        trailing_stop=0.1,
        fill="next_close",
    )


def test_json_counts_take_profits(capsys):
    code, out, _ = call(capsys, "run", *SHORT, "--json", "--take-profit", "0.01")
    assert code == 0
    assert json.loads(out)["metrics"]["take_profits"] > 0

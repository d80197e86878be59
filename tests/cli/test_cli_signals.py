"""Signals at the command line and in files: rules, their settings, and columns."""

import json

import backtest as bt
from backtest.cli import main
from backtest.strategies import VolTarget

FAST = ("--to", "2023-01-20", "--no-compile", "--no-save", "--json")


def run_json(capsys, *words):
    assert main([*words, *FAST]) == 0
    return json.loads(capsys.readouterr().out)


def test_flags_and_files_give_the_run_of_python(tmp_path, capsys):
    market = bt.Market.sample().between(None, "2023-01-20")
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    expected = bt.run(
        market, VolTarget(), venue=venue, account=bt.Account(), signal="breakout:24", compile=False
    )
    identity = expected.manifest["id"]
    assert run_json(capsys, "run", "--signal", "breakout:24")["id"] == identity
    named = run_json(capsys, "run", "--signal", "breakout", "--set", "signal.window=24")
    assert named["id"] == identity
    file = tmp_path / "breakout.toml"
    file.write_text("[run]\nsignal = 'breakout'\nsignal_settings = {window = 24}\n")
    assert run_json(capsys, "run", str(file))["id"] == identity
    other = run_json(capsys, "run", str(file), "--signal", "rsi:30:40:60")
    assert other["id"] != identity  # the settings of the file belong to its rule

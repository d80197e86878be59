"""``backtest regress`` on experiments with limit orders, time stops, spot legs and their like."""

import json

import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main
from tests.portfolio.portfolio_helpers import simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FILE = """
[data]
path = "data"
[policy]
name = "constant"
{policy}
[venue]
preset = "binance-usdm:BTCUSDT"
{venue}
[account]
capital = 10_000
{account}
[run]
compile = false
sampling = "1h"
"""
SPOT = """brackets = [{floor = 0, cap = inf, max_leverage = 10, maintenance_rate = 0}]
[venue.contract]
kind = "spot"
haircut = 0.02
"""
KEEPER = """[policy.settings]
target = 2.0
distance = 0.1"""
CASES = {
    "limit": ("account", 'fill = "limit"\noffset = 0.001', ("0.001", "0.02"), "account.offset"),
    "time stop": ("account", 'max_holding = "5h"', ("5h", "9h"), "account.max_holding"),
    "margin": ("policy", KEEPER, ("0.1", "0.2"), "policy.settings.distance"),
    "dated": ("venue", '[venue.fees]\ntaker = "cost"', ("cost", "more"), "venue.AAA.fees.taker"),
    "spread": ("venue", "[venue.slippage]\nspread = 0.001", ("0.001", "0.002"),
               "venue.slippage.spread"),
    "spot": ("venue", SPOT + "borrow_rate = 0.04", ("0.04", "0.05"),
             "venue.AAA.contract.borrow_rate"),
}  # fmt: skip


def write_file(folder, table, words):
    """Write an experiment with some words in one of its tables."""
    tables = dict.fromkeys(("policy", "venue", "account"), "") | {table: words}
    text = FILE.format(**tables)
    if "distance" in words:
        text = text.replace('"constant"', '"liquidation-distance"')
        text = text.replace("capital", 'margin = "isolated"\nvenue_leverage = 10\ncapital')
    if words.startswith(SPOT):
        text = text.replace('"constant"', '"constant"\nsettings = {leverage = 0.5}')
        text = text.replace("compile", "signal = -1\ncompile")
    (folder / "own.toml").write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("words")
    market = simulate_pair(60)["AAA"]
    frame = market.bars()
    frame["cost"], frame["more"] = 0.0004, 0.001
    funding = pd.DataFrame({"rate": market.funding()["rate"]})
    bt.Market.from_frames(frame, funding=funding, instrument="AAA").save(place / "data")
    return place


@pytest.mark.parametrize("name", CASES)
def test_a_word_is_recorded_found_the_same_and_named_when_it_changes(
    name, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    table, words, (was, now), changed = CASES[name]
    write_file(folder, table, words)
    where = ["--out", str(tmp_path)]
    assert main(["regress", "record", "own.toml", *where]) == 0
    assert main(["regress", "check", str(tmp_path)]) == 0
    write_file(folder, table, words.replace(was, now))
    capsys.readouterr()
    assert main(["regress", "check", str(tmp_path), "--json"]) == 1
    printed = capsys.readouterr().out
    assert changed in printed
    assert json.loads(printed)

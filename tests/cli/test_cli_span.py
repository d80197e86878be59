"""``--start`` and ``--end``: what an account lives through, and what only warms its policy."""

import json

import pytest

import backtest as bt
from backtest.strategies import VolTarget
from tests.kit import call

pytestmark = pytest.mark.filterwarnings("always::UserWarning")  # they are what is looked at

PLAIN = ("--no-compile", "--no-save", "--json")
SPAN = ("--start", "2023-02-01", "--set", "run.end=2023-02-08")
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


def ask(capsys, *words: object):
    code, out, err = call(capsys, *words)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_a_run_from_a_start_is_that_of_python_with_the_bars_before_it_as_history(capsys):
    found = ask(capsys, "run", *SPAN, *PLAIN)
    market = bt.Market.sample().between(None, "2023-02-08")
    account = bt.Account()
    result = bt.run(
        market, VolTarget(), venue=VENUE, account=account, start="2023-02-01", compile=False
    )
    assert found["metrics"]["sharpe"] == result.metrics["sharpe"]
    assert found["data"]["start"] == "2023-02-01"
    assert found["data"]["end"] == "2023-02-08"
    assert found["data"]["bars"] == 7 * 24
    cold = ask(capsys, "run", "--from", "2023-02-01", "--to", "2023-02-08", *PLAIN)
    assert cold["data"]["bars"] == 7 * 24
    assert cold["metrics"]["sharpe"] != found["metrics"]["sharpe"]


@pytest.mark.slow
def test_a_sweep_cuts_the_data_there_and_says_so(capsys, folder):
    words = ("--vary", "target=0.3,0.6", *SPAN, "--no-compile", "--no-save", "--json")
    code, out, err = call(capsys, "sweep", *words)
    assert code == 0
    assert err.count("warning") == 1
    assert "the data are cut at the start, 2023-02-01" in err
    found = json.loads(out)
    best = ("--set", f"target={found['top'][0]['target']}")
    again = ask(capsys, "run", "--from", "2023-02-01", "--to", "2023-02-08", *best, *PLAIN)
    assert again["metrics"]["sharpe"] == found["top"][0]["sharpe"]

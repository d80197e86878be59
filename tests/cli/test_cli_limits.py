"""Limits of leverage, multipliers, ticks and fee tiers at the command line and in TOML."""

import json

import backtest as bt
from backtest.cli import main

SHORT = ("--to", "2023-01-05", "--no-compile", "--no-save")


def call(capsys, *words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), " ".join(err.split())


def test_a_file_gives_dates_multipliers_ticks_and_tiers(capsys, folder):
    (folder / "e.toml").write_text(
        """
        [policy]
        name = "constant"
        settings = { leverage = 3.0 }
        [account]
        max_leverage = { time = ["2022-01-01T00:00:00Z", "2023-01-02T00:00:00Z"], value = [inf, 2] }
        [venue]
        preset = "binance-usdm:BTCUSDT"
        initial_multiplier = 1.5
        maintenance_multiplier = { time = ["2022-01-01T00:00:00Z"], value = [2.0] }
        contract = { round_to_tick = true }
        fees = { tiers = [ { volume = 10000, taker = 0.0001, maker = 0.0 } ] }
        """
    )
    code, out, err = call(capsys, "run", "e.toml", "--to", "2023-01-05", "--no-compile", "--json")
    assert code == 0, err
    result = bt.Result.load(json.loads(out)["path"])
    assert result.venue.contract.round_to_tick
    assert result.venue.initial_multiplier == 1.5
    assert result.venue.fees.tiers[0].taker == 0.0001
    leverage = result.bars["leverage"]
    assert leverage["2023-01-01"].max() > 2.9
    assert leverage["2023-01-03":].max() < 2.2
    tick = result.venue.contract.tick
    fills = result.events[result.events["kind"] == "fill"]
    assert (abs(fills["price"] / tick - (fills["price"] / tick).round()) < 1e-6).all()


def test_open_interest_margin_is_given_in_a_file_or_by_set(capsys):
    words = ("--set", "venue.open_interest_margin.lower=2e7", "--set",
             "venue.open_interest_margin.upper=5e7", "--venue", "dydx:BTC-USD")  # fmt: skip
    code, _, err = call(capsys, "run", *words, *SHORT)
    assert code != 0
    assert "open_interest" in err  # the sample has no such column

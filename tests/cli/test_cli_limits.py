"""Limits of leverage, multipliers, ticks and fee tiers in TOML."""

import json

import backtest as bt
from tests.commands import call


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

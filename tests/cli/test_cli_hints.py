"""What is allowed and yet hardly meant is said once, and done all the same."""

import pytest

import backtest as bt
from backtest.cli.typed_values import describe_bars
from backtest.strategies import Capped, Ladder, LiquidationProbability, VolTarget
from tests.commands import call

pytestmark = pytest.mark.filterwarnings("always::UserWarning")  # they are what is looked at

WEEK = ("--to", "2023-01-08", "--no-compile", "--no-save")


def save(folder, instrument: str | None) -> None:
    bars = bt.Market.sample(bars=72).bars()
    bt.Market.from_frames(bars, instrument=instrument or "").save(folder / "data")


UNNAMED = "the data do not name their instrument"


def test_named_prices_are_compared_and_own_rules_are_nobodys(capsys, folder):
    save(folder, "ETHUSDT")
    err = call(capsys, "run", "--data", "data", "--no-compile", "--no-save")[2]
    assert UNNAMED not in err
    assert "the prices are those of ETHUSDT" in err


HOURS = bt.Market.sample(bars=24 * 30)


@pytest.mark.parametrize(("policy", "said"), [
    (VolTarget(), "half_life=72.0 is 72 d"),
    (Capped(VolTarget(), cap=2), "vol_target_half_life=72.0 is 72 d"),
    (LiquidationProbability(), "horizon=168.0 is 168 d"),
    (Ladder(by="volatility"), "half_life=168.0 is 168 d"),
])  # fmt: skip
def test_defaults_for_hours_are_told_on_other_bars(policy, said):
    note = describe_bars(policy, HOURS.resample("1d"))
    assert note is not None
    assert note.startswith("bars are 1d, and the policy's defaults are for 1h: ")
    assert said in note
    assert describe_bars(policy, HOURS) is None
    assert describe_bars(policy, HOURS.resample("2h")) is None

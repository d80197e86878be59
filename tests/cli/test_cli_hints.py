"""What is allowed and yet hardly meant is said once, and done all the same."""

import pytest

import backtest as bt
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

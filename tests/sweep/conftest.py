"""Sweeps of these tests take lanes, however short they are."""

import pytest

from backtest.sweep.lanes import runner


@pytest.fixture(autouse=True)
def _short_sweeps_take_lanes(monkeypatch):
    monkeypatch.setattr(runner, "LEAST_BAR_SETS", 0)

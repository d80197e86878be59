"""A made-up surface of scores in place of the evaluator."""

import pytest

from backtest.tune.trials import Examiner
from tests.tuning import Clock, MadeUp, stand_in


@pytest.fixture
def made_up(monkeypatch):
    """Put the made-up surface in place of the evaluator."""
    stand_in(put=monkeypatch.setattr)


@pytest.fixture
def on(monkeypatch):
    """Return a way to choose another surface."""
    return lambda surface: stand_in(surface, put=monkeypatch.setattr)


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of searches, which only pauses move on."""
    made = Clock()
    monkeypatch.setitem(Examiner.__init__.__kwdefaults__, "clock", made)
    monkeypatch.setattr(MadeUp, "wait", made.pause)
    return made

"""A made-up surface of scores in place of the evaluator."""

import pytest

from backtest.search.trials import Examiner
from tests.tuning import Clock, MadeUp, stand_in


@pytest.fixture
def made_up(monkeypatch):
    stand_in(put=monkeypatch.setattr)


@pytest.fixture
def on(monkeypatch):
    return lambda surface: stand_in(surface, put=monkeypatch.setattr)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setitem(Examiner.__init__.__kwdefaults__, "clock", made)
    monkeypatch.setattr(MadeUp, "wait", made.pause)
    return made

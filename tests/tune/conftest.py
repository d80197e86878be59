"""A made-up surface of scores in place of the evaluator."""

import pytest

from tests.tuning import stand_in


@pytest.fixture
def made_up(monkeypatch):
    """Put the made-up surface in place of the evaluator."""
    stand_in(put=monkeypatch.setattr)


@pytest.fixture
def on(monkeypatch):
    """Return a way to choose another surface."""
    return lambda surface: stand_in(surface, put=monkeypatch.setattr)

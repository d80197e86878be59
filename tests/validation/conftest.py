"""Fewer bootstrap draws, which decide no number that these tests look at."""

import importlib

import pytest


@pytest.fixture(scope="module", autouse=True)
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("backtest.validation.walk_forward"), "DRAWS", 199)
        yield

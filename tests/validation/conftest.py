"""Fewer bootstrap draws, which decide no number that these tests look at."""

import pytest

from backtest.validation import walk_figures


@pytest.fixture(scope="module", autouse=True)
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk_figures, "DRAWS", 199)
        yield

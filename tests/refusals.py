"""Calls that must be refused with one clear error."""

from collections.abc import Callable

import pytest

from backtest.base.errors import BacktestError


def check_refused(
    make: Callable[[], object], words: str, kind: type[BacktestError] = BacktestError
) -> None:
    """Require an error with one of the words, which ``|`` separates."""
    with pytest.raises(kind) as caught:
        make()
    assert any(part in str(caught.value) for part in words.split("|")), caught.value

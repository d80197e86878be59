"""Compare saved runs as they lie in the store: nothing is run again."""

from __future__ import annotations

from collections.abc import Sequence

from backtest.base.errors import ParameterError
from backtest.compare import Comparison
from backtest.engine.result import Result
from backtest.store.compare_saved import compare_saved, name_saved

DRAWS = 999
"""Resampled histories: half of what the command draws, for an answer while one waits."""
MOST = 12
"""Accounts in one chart that can still be told apart."""


def overlay(results: Sequence[Result]) -> Comparison:
    """Return the comparison of saved runs, the first the baseline.

    Parameters
    ----------
    results : sequence of Result
        Made on the same market under the same terms.

    Raises
    ------
    ParameterError
        If there are fewer than two or too many, or one was made under other terms, naming them.
    """
    if len(results) > MOST:
        raise ParameterError(
            f"at most {MOST} runs can be told apart in a chart, {len(results)} were chosen",
            where="compare",
            cure="choose fewer",
        )
    names = name_saved(results)
    return compare_saved(dict(zip(names, results, strict=True)), draws=DRAWS)

"""Evaluator of sets on one span of a market, warmed by the bars before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtest.sweep import Evaluator

if TYPE_CHECKING:
    from backtest.engine import Progress, Result
    from backtest.sweep import Sets
    from backtest.sweep.set_rows import Rows


class SpanEvaluator(Evaluator):
    """Evaluator for bars ``first`` up to ``stop`` of the market of another evaluator.

    Accounts begin with fresh capital at the first bar of the span; the columns of policies are
    computed on all bars before its end, and on none after it. Bars are counted from the span.
    """

    def __init__(self, whole: Evaluator, first: int, stop: int) -> None:
        vars(self).update(vars(whole))
        self.whole = whole
        self.first, self.stop = first, stop
        self.market = whole.market.slice(first, stop)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        """Return the measures of all sets, as :meth:`Evaluator.evaluate` does."""
        end = self.stop if stop is None else self.first + stop
        rows = self.whole.evaluate(
            sets, first=self.first + first, stop=end, returns=returns, progress=progress
        )
        super().copy_fallback(self.whole)
        return rows

    def replay(
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> Result:
        """Return the full run of one set on the span."""
        end = self.stop if stop is None else self.first + stop
        return self.whole.replay(values, first=self.first + first, stop=end)

    def check_causal(self, sets: Sets) -> None:
        """Raise if the columns look ahead."""
        self.whole.check_causal(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        """Raise if the columns of one set look ahead."""
        self.whole.check_set(values)

    @property
    def doubts(self) -> list[str]:
        """Warnings about columns and a signal that were not checked enough."""
        return self.whole.doubts

    def copy_fallback(self, other: Evaluator) -> None:
        """Run in plain Python if another evaluator of the same policy does."""
        super().copy_fallback(other)
        self.whole.copy_fallback(other)

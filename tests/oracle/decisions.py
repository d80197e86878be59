"""When the policy of an instrument is asked, and what it decides (§4)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Answers = Sequence[float] | Callable[[Mapping[str, float], Any], tuple[float, Any]]
"""Leverages at the closes of the clock, or a function of observed values and memory."""


class Decisions:
    """The policy of one instrument, from bar to bar."""

    def __init__(self, market: Any, answers: Answers, first: int) -> None:
        self.answers, self.first = answers, first  # the bar of the clock with its first bar
        self.observed = {name: market.columns[name] for name in getattr(market, "observed", ())}
        self.memory: Any = None

    def is_asked(self, row: int) -> bool:
        """Whether each observed column has had a value by a bar; one that never has one is no
        reason to wait."""
        return all(
            any(is_known(value) for value in column[: row + 1])
            for column in self.observed.values()
            if any(is_known(value) for value in column)
        )

    def decide(self, row: int) -> float:
        """The leverage decided at the close of a bar of the market, to be called once for each
        bar: NaN, with the memory as it was, while the policy is not asked."""
        if not self.is_asked(row):
            return math.nan
        if not callable(self.answers):
            return float(self.answers[self.first + row])
        values = {name: float(column[row]) for name, column in self.observed.items()}
        leverage, self.memory = self.answers(values, self.memory)
        return leverage


def is_known(value: float) -> bool:
    return not math.isnan(value)

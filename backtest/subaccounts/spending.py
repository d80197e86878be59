"""Spending rules: how much is paid out of the wealth, and how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from backtest.base import Choice, Duration, FloatArray, Number, ParameterError, Value
from backtest.base.fields import NOT_NEGATIVE

MOST = Number(0, open_low=True, may_be_infinite=True)


@dataclass(frozen=True, eq=False, repr=False)
class Spending(Value):
    """A rule of spending from an account.

    Parameters
    ----------
    share : float
        What is spent each time, over 0 and up to 1.
    every : str
        The time between spendings, ``"30d"`` by default.
    of : str
        What the share is of: ``"wealth"`` at that time, or ``"start"``, the wealth at the start.
    least, most : float
        The least and the most that is spent each time, in money.

    Examples
    --------
    >>> Spending(0.01, least=50.0).amount(np.array([10_000.0, 2_000.0]), 10_000.0).tolist()
    [100.0, 50.0]
    """

    share: Annotated[float, Number(0, 1, open_low=True)]
    every: Annotated[str, Duration()] = "30d"
    of: Annotated[str, Choice("wealth", "start")] = "wealth"
    least: Annotated[float, NOT_NEGATIVE] = 0.0
    most: Annotated[float, MOST] = math.inf

    def _check_rules(self) -> None:
        if not self.least <= self.most:
            raise ParameterError(
                f"least must not be above most, {self.most:g}, got {self.least:g}",
                where="Spending.least",
                cure="lower least, or raise most",
            )

    def amount(self, wealth: FloatArray, start: float) -> FloatArray:
        """Return what is to be spent at each wealth, of an account that began with ``start``."""
        base = wealth if self.of == "wealth" else np.full_like(wealth, start)
        return np.clip(self.share * base, self.least, self.most)

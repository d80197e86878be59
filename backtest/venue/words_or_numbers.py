"""Declarations of the venue's fields that hold a word or a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backtest.base.fields import SHARE
from backtest.base.ranges import Choice, Number

LEAST_STEP = 0.001
"""The smallest step of a partial liquidation: smaller ones would need thousands in one bar."""


@dataclass(frozen=True)
class Step:
    """A fraction from 0.001 to 1, or ``"bracket"``."""

    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> float | str:
        """Return the fraction or the word."""
        if isinstance(value, str):
            return Choice("bracket").check(name, value, where=f"{where} (a fraction may be given)")
        return Number(LEAST_STEP, 1).check(name, value, where=where)


@dataclass(frozen=True)
class ProfitShare:
    """``"all"``, ``"losses"``, or a share from 0 to 1."""

    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> float | str:
        """Return the share or the word."""
        if isinstance(value, str):
            place = f"{where} (a share from 0 to 1 may be given)"
            return Choice("all", "losses").check(name, value, where=place)
        return SHARE.check(name, value, where=where)

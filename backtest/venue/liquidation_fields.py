"""Declarations of the venue's fields that hold a word or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from backtest.base import Choice, Number, ParameterError
from backtest.base.fields import SHARE

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


ORDERS = (
    "most_relief", "largest_loss", "largest_requirement", "largest_notional",
    "futures_then_options",
)  # fmt: skip
"""The orders in which a partial liquidation may reduce several positions."""


@dataclass(frozen=True)
class ReductionOrder:
    """One of :data:`ORDERS`, or names of instruments in their order."""

    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> str | tuple[str, ...]:
        """Return the word, or the names as a tuple."""
        if isinstance(value, str):
            return Choice(*ORDERS).check(name, value, where=f"{where} (or a list of names)")
        is_list = isinstance(value, Sequence) and bool(value)
        if not is_list or not all(isinstance(each, str) and each for each in value):  # type: ignore[attr-defined]
            raise ParameterError(
                f"{name} must be one of {', '.join(ORDERS)}, or a list of names, got {value!r}",
                where=where,
                cure="give order='largest_loss', or order=['BTCUSDT', 'ETHUSDT']",
            )
        names: tuple[str, ...] = tuple(value)  # type: ignore[arg-type]
        if len(set(names)) < len(names):
            raise ParameterError(
                f"{name} must name each instrument once, got {', '.join(names)}",
                where=where,
                cure="leave the repeated name out",
            )
        return names

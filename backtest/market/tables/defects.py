"""Defects of market data, one sentence each, and the error that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from backtest.base import DataError, IntArray, format_time

DECIMAL_COMMA = "for decimal commas bt.import_market(..., decimal=',')"

_T = TypeVar("_T")


class Defect(str):
    """What is wrong with data, where, and how to mend it: ``rule, value (place); cure``."""


def locate_rows(name: str, times: IntArray) -> str:
    """Locate rows with these times (UTC ns): the file or frame, the first and the last."""
    last = f", last at {format_time(int(times[-1]))}" if len(times) > 1 else ""
    return f"{name}, first at {format_time(int(times[0]))}{last} UTC"


def unreadable(reason: object, where: str) -> Defect:
    short = str(reason).strip().split("\n")[0][:160] or type(reason).__name__
    return Defect(f"a file must be whole and readable, got one that is not: {short} ({where})")


def require(found: _T | Defect) -> _T:
    if isinstance(found, Defect):
        raise DataError(str(found))
    return found


def refuse(defects: Sequence[Defect], *, where: str) -> None:
    if len(defects) == 1:
        raise DataError(str(defects[0]))
    if defects:
        listed = "".join(f"\n{n:>3}. {each}" for n, each in enumerate(defects, start=1))
        raise DataError(f"market data has {len(defects)} defects ({where}){listed}")

"""Defects of market data: what is wrong, where, and the cure; and the error that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from backtest.base import Argument, DataError, Either, IntArray, Phrase, format_time, join_phrases

DECIMAL_COMMA = Either("bt.import_market(..., decimal=',')", Argument("decimal", ","))

_T = TypeVar("_T")


class Defect(NamedTuple):
    rule: str
    found: str
    where: str
    cure: str

    def __str__(self) -> str:
        return f"{self.rule}, {self.found}" if self.found else self.rule


def locate_rows(name: str, times: IntArray) -> str:
    """Locate rows with these times (UTC ns): the file or frame, the first and the last."""
    last = f", last at {format_time(int(times[-1]))}" if len(times) > 1 else ""
    return f"{name}, first at {format_time(int(times[0]))}{last} UTC"


def unreadable(reason: object, where: str, cure: str = "download or write it again") -> Defect:
    short = str(reason).strip().split("\n")[0][:160] or type(reason).__name__
    return Defect("a file must be whole and readable", f"got one that is not: {short}", where, cure)


def require(found: _T | Defect) -> _T:
    if isinstance(found, Defect):
        raise DataError(str(found), where=found.where, cure=found.cure)
    return found


def refuse(defects: Sequence[Defect], *, where: str) -> None:
    if not defects:
        return
    if len(defects) == 1:
        require(defects[0])
    form = "{:>3}. {}\n     where: {}\n     cure:  {}"
    listed = [
        Phrase(form, str(n), str(each), each.where, each.cure)
        for n, each in enumerate(defects, start=1)
    ]
    problem = join_phrases("\n", [f"market data has {len(defects)} defects", *listed])
    raise DataError(problem, where=where, cure="correct each of the defects listed above")

"""Defects of market data: what is wrong, where, and the cure; and the error that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from backtest.base import Argument, DataError, Either, IntArray, Phrase, format_time, join_phrases

DECIMAL_COMMA = Either("bt.import_market(..., decimal=',')", Argument("decimal", ","))
"""How a file with decimal commas is read."""

_T = TypeVar("_T")


class Defect(NamedTuple):
    """A rule that the data break.

    Parameters
    ----------
    rule : str
        What must hold, for example ``"close must be positive"``.
    found : str
        The value that broke it and how often, for example ``"was -1.0 in 3 of 8760 bars"``.
    where : str
        The file or frame, the first time, and the last if there are several.
    cure : str
        What to do about it.
    """

    rule: str
    found: str
    where: str
    cure: str

    def __str__(self) -> str:
        return f"{self.rule}, {self.found}" if self.found else self.rule


def locate_rows(name: str, times: IntArray) -> str:
    """Return where rows with these times (UTC ns) are: the file or frame, the first and the last.

    Examples
    --------
    >>> import numpy as np
    >>> locate_rows("bars.csv", np.array([0]))
    'bars.csv, first at 1970-01-01 UTC'
    >>> locate_rows("bars.csv", np.array([0, 3_600_000_000_000]))
    'bars.csv, first at 1970-01-01, last at 1970-01-01 01:00 UTC'
    """
    last = f", last at {format_time(int(times[-1]))}" if len(times) > 1 else ""
    return f"{name}, first at {format_time(int(times[0]))}{last} UTC"


def unreadable(reason: object, where: str, cure: str = "download or write it again") -> Defect:
    """Return the defect of a file that is damaged; of the reason, the first line is shown."""
    short = str(reason).strip().split("\n")[0][:160] or type(reason).__name__
    return Defect("a file must be whole and readable", f"got one that is not: {short}", where, cure)


def require(found: _T | Defect) -> _T:
    """Return what was read; raise a DataError if it is a defect."""
    if isinstance(found, Defect):
        raise DataError(str(found), where=found.where, cure=found.cure)
    return found


def refuse(defects: Sequence[Defect], *, where: str) -> None:
    """Raise one DataError that lists all defects; do nothing if there are none.

    Examples
    --------
    >>> refuse([], where="doc")
    >>> refuse([Defect("close must be positive", "was -1.0", "bars", "drop it")], where="doc")
    Traceback (most recent call last):
    backtest.base.errors.DataError: close must be positive, was -1.0
      where: bars
      cure:  drop it
    """
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

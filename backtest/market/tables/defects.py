"""One thing wrong with market data, and the error that lists them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backtest.base.errors import DataError


class Defect(NamedTuple):
    """A rule that the data break.

    Parameters
    ----------
    rule : str
        What must hold, for example ``"close must be positive"``.
    found : str
        The value that broke it and how often, for example ``"was -1.0 in 3 of 8760 bars"``.
    where : str
        The file or frame, and the first time.
    cure : str
        What to do about it.
    """

    rule: str
    found: str
    where: str
    cure: str


def refuse(defects: Sequence[Defect], *, where: str) -> None:
    """Raise one error that lists all defects; do nothing where there is none.

    Parameters
    ----------
    defects : sequence of Defect
        In the order in which they should be read.
    where : str
        What was examined, for example ``"Market.load('btc/')"``.

    Raises
    ------
    DataError
        With each defect's own place and cure in the text.

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
        raise DataError(_statement(defects[0]), where=defects[0].where, cure=defects[0].cure)
    lines = [f"market data has {len(defects)} defects"]
    for number, defect in enumerate(defects, start=1):
        lines += [
            f"{number:>3}. {_statement(defect)}",
            f"     where: {defect.where}",
            f"     cure:  {defect.cure}",
        ]
    raise DataError("\n".join(lines), where=where, cure="mend each of the defects listed above")


def _statement(defect: Defect) -> str:
    return f"{defect.rule}, {defect.found}" if defect.found else defect.rule

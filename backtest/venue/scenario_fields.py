"""Declarations of the fields of portfolio margin that hold tables of names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from backtest.base import Declaration, Fault, FrozenTable, read_number, repr_plain
from backtest.base.fields import NOT_NEGATIVE

EVERY = "*"
EXAMPLE = "[(-0.15, 1), (0.15, 1)]"
MOST_NUMBERS = 4
Row: TypeAlias = tuple[float, ...]


def is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


class Moves(Declaration):
    is_table: ClassVar[bool] = True

    def read(self, value: Any) -> FrozenTable:
        table = value if isinstance(value, Mapping) else {EVERY: value}
        if not table:
            raise Fault(f"must have scenarios for at least one group, {{'BTC': {EXAMPLE}}}")
        return FrozenTable({str(group): read_rows(rows) for group, rows in table.items()})


def read_rows(rows: Any) -> tuple[Row, ...]:
    if not is_list(rows) or not rows:
        raise Fault(f"must be lists of at least one (move, weight), {EXAMPLE}", repr_plain(rows))
    return tuple(map(read_row, rows))


def read_row(row: Any) -> Row:
    """Return move, weight, and for options move of volatility and relief, without zeros at its end.

    A move alone has the weight 1.
    """
    given = tuple(row) if is_list(row) else (row, 1.0)
    if not 2 <= len(given) <= MOST_NUMBERS:
        rule = "must be rows of (move, weight), and for options a move of volatility and a relief"
        raise Fault(rule, repr_plain(row))
    try:
        found = [float(read_number(each)) for each in given]
    except Fault as fault:
        raise Fault(str(fault), repr_plain(row)) from None
    move, weight, volatility, relief = (*found, 0.0, 0.0)[:4]
    is_low = move < -1.0 or volatility < -1.0 or weight < 0.0 or relief < 0.0
    if is_low or not math.isfinite(sum(found)):
        rule = "must be moves of at least -1, weights and reliefs of at least 0, all finite"
        raise Fault(rule, repr_plain(row))
    return (*found[:2], *((volatility, relief) if relief else (volatility,) if volatility else ()))


@dataclass(frozen=True)
class NameGroups(Declaration):
    member: str
    is_table: ClassVar[bool] = True

    def read(self, value: Any) -> FrozenTable:
        if not isinstance(value, Mapping) or not value:
            raise Fault(f"must be a table of lists of names, {{'first': ['{self.member} 1']}}")
        table = {str(group): self._read_names(names) for group, names in value.items()}
        flat = [each for names in table.values() for each in names]
        twice = sorted({each for each in flat if flat.count(each) > 1})
        if twice:
            raise Fault(f"must name each {self.member} once", f"{', '.join(twice)} twice")
        return FrozenTable(table)

    def _read_names(self, names: Any) -> tuple[str, ...]:
        if not is_list(names) or not names or not all(isinstance(each, str) for each in names):
            rule = f"must list the names of at least one {self.member} each"
            raise Fault(rule, repr_plain(names))
        return tuple(names)


class InitialTerms(Declaration):
    def read(self, value: Any) -> tuple[float, float]:
        if not is_list(value) or len(value) != 2:
            raise Fault("must be (factor, contingency), (1.2, 0.02) for example")
        factor, contingency = map(NOT_NEGATIVE.read, value)
        return factor, contingency

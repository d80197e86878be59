"""Declarations of the fields of portfolio margin that hold tables of names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from backtest.base import FrozenTable, ParameterError, check_number, repr_plain
from backtest.base.fields import NOT_NEGATIVE

EVERY = "*"
EXAMPLE = "[(-0.15, 1), (0.15, 1)]"
NOUNS = ("move", "weight", "move of volatility", "relief")
Row: TypeAlias = tuple[float, ...]


def is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


@dataclass(frozen=True)
class Moves:
    kind: ClassVar[type] = object
    is_table: ClassVar[bool] = True

    def check(self, name: str, value: object, *, where: str) -> FrozenTable:
        table = value if isinstance(value, Mapping) else {EVERY: value}
        if not table:
            raise ParameterError(
                f"{name} must have scenarios for at least one group, got {value!r}",
                where=where,
                cure=f"give moves={{'BTC': {EXAMPLE}}}",
            )
        return FrozenTable(
            {
                str(group): read_rows(name, rows, where=f"{where}, group {group!r}")
                for group, rows in table.items()
            }
        )


def read_rows(name: str, rows: Any, *, where: str) -> tuple[Row, ...]:
    if not is_list(rows) or not rows:
        raise ParameterError(
            f"{name} must be a list of at least one (move, weight), got {repr_plain(rows)}",
            where=where,
            cure=f"give moves={{'BTC': {EXAMPLE}}}",
        )
    return tuple(read_row(row, where=f"{where}, row {k + 1}") for k, row in enumerate(rows))


def read_row(row: Any, *, where: str) -> Row:
    given = tuple(row) if is_list(row) else (row, 1.0)
    if not 2 <= len(given) <= len(NOUNS):
        raise ParameterError(
            "a scenario must be a move, or (move, weight) and for options a move of volatility "
            f"and a relief, got {repr_plain(row)}",
            where=where,
            cure="write (-0.15, 1) for a fall of 15 % that counts in full, and (-0.15, 1, 0.5) "
            "with volatilities half as high again",
        )
    found = [
        float(check_number(noun, each, where=where))
        for noun, each in zip(NOUNS, given, strict=False)
    ]
    move, weight, volatility, relief = (*found, 0.0, 0.0)[:4]
    is_low = move < -1.0 or volatility < -1.0 or weight < 0.0 or relief < 0.0
    if is_low or not math.isfinite(sum(found)):
        text = ", ".join(f"{each:g}" for each in found)
        raise ParameterError(
            "moves of price and volatility must be at least -1, a weight and a relief at least 0, "
            f"all finite, got ({text})",
            where=where,
            cure="write moves as fractions, such as -0.15",
        )
    return (*found[:2], *((volatility, relief) if relief else (volatility,) if volatility else ()))


@dataclass(frozen=True)
class NameGroups:
    member: str
    kind: ClassVar[type] = object
    is_table: ClassVar[bool] = True

    def check(self, name: str, value: object, *, where: str) -> FrozenTable:
        if not isinstance(value, Mapping) or not value:
            raise ParameterError(
                f"{name} must be a table of lists of names, got {repr_plain(value)}",
                where=where,
                cure=f"give {name}={{'first': ['{self.member} 1', '{self.member} 2']}}, or leave "
                "it out",
            )
        table = {str(group): self._read(name, names, where) for group, names in value.items()}
        flat = [each for names in table.values() for each in names]
        twice = sorted({each for each in flat if flat.count(each) > 1})
        if twice:
            raise ParameterError(
                f"{name} must name each {self.member} once, got {', '.join(twice)} twice",
                where=where,
                cure="leave it in one of them",
            )
        return FrozenTable(table)

    def _read(self, name: str, names: Any, where: str) -> tuple[str, ...]:
        if not is_list(names) or not names or not all(isinstance(each, str) for each in names):
            raise ParameterError(
                f"{name} must list the names of at least one {self.member} each, "
                f"got {repr_plain(names)}",
                where=where,
                cure="list names, or leave that entry out",
            )
        return tuple(names)


@dataclass(frozen=True)
class InitialTerms:
    kind: ClassVar[type] = object

    def check(self, name: str, value: Any, *, where: str) -> tuple[float, float]:
        if not is_list(value) or len(value) != 2:
            raise ParameterError(
                f"{name} must be (factor, contingency), got {repr_plain(value)}",
                where=where,
                cure="give initial=(1.2, 0.02), or leave it out for the terms of maintenance",
            )
        factor, contingency = (NOT_NEGATIVE.check(name, each, where=where) for each in value)
        return float(factor), float(contingency)

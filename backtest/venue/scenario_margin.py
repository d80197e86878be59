"""Portfolio margin: the worst loss of the whole book in scenarios of the price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.fields import NOT_NEGATIVE, SHARE
from backtest.base.frozen_tables import FrozenTable
from backtest.base.ranges import Choice, check_number
from backtest.venue.requirement_rule import MarginRule

if TYPE_CHECKING:
    from backtest.venue.collateral import Collateral

EVERY = "*"
"""The name under which ``moves`` has the scenarios of all groups that it does not name."""


@dataclass(frozen=True)
class Moves:
    """Scenarios by group: relative moves of the price, with weights."""

    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> FrozenTable:
        """Return the table of rows ``(move, weight)``; a list holds for every group."""
        table = value if isinstance(value, Mapping) else {EVERY: value}
        if not table:
            raise ParameterError(
                f"{name} must have scenarios for at least one group, was {value!r}",
                where=where,
                cure="give moves={'BTC': [(-0.15, 1), (0.15, 1)]}",
            )
        return FrozenTable(
            {
                str(group): _read_rows(name, rows, where=f"{where}, group {group!r}")
                for group, rows in table.items()
            }
        )


def _read_rows(name: str, rows: object, *, where: str) -> tuple[tuple[float, float], ...]:
    if isinstance(rows, str) or not isinstance(rows, Sequence) or not rows:
        raise ParameterError(
            f"{name} must be a list of at least one (move, weight), was {rows!r}",
            where=where,
            cure="give moves={'BTC': [(-0.15, 1), (0.15, 1)]}",
        )
    return tuple(_read_row(row, where=f"{where}, row {k + 1}") for k, row in enumerate(rows))


def _read_row(row: Any, *, where: str) -> tuple[float, float]:
    pair = row if isinstance(row, Sequence) and not isinstance(row, str) else (row, 1.0)
    if len(pair) != 2:
        raise ParameterError(
            f"a scenario must be a move or (move, weight), was {row!r}",
            where=where,
            cure="write (-0.15, 1) for a fall of 15 % that counts in full",
        )
    move, weight = (
        float(check_number(noun, each, where=where))
        for noun, each in zip(("move", "weight"), pair, strict=True)
    )
    if not -1.0 <= move < math.inf or not 0.0 <= weight < math.inf:
        raise ParameterError(
            f"a move must be at least -1 and a weight at least 0, was ({move:g}, {weight:g})",
            where=where,
            cure="write moves as fractions of the price, such as -0.15",
        )
    return move, weight


@dataclass(frozen=True)
class NameGroups:
    """Lists of names by the name of their group; no name is in two of them."""

    member: str
    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> FrozenTable:
        """Return the table of tuples of names."""
        if not isinstance(value, Mapping):
            raise ParameterError(
                f"{name} must be a table of lists of names, was {value!r}",
                where=where,
                cure=f"give {name}={{'BTC': [{self.member!r}, ...]}}",
            )
        table = {str(group): self._read(name, names, where) for group, names in value.items()}
        flat = [each for names in table.values() for each in names]
        twice = sorted({each for each in flat if flat.count(each) > 1})
        if twice:
            raise ParameterError(
                f"{name} must name each {self.member} once, was {', '.join(twice)} twice",
                where=where,
                cure="leave it in one of them",
            )
        return FrozenTable(table)

    def _read(self, name: str, names: object, where: str) -> tuple[str, ...]:
        is_list = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_list or not names or not all(isinstance(each, str) for each in names):  # type: ignore[attr-defined]
            raise ParameterError(
                f"{name} must list the names of at least one {self.member} each, was {names!r}",
                where=where,
                cure=f"give {name}={{'BTC': ['{self.member}', ...]}}, or leave the group out",
            )
        return tuple(names)  # type: ignore[arg-type]


@dataclass(frozen=True)
class InitialTerms:
    """The factor and the contingency of initial margin."""

    kind: ClassVar[type] = object

    def check(self, name: str, value: object, *, where: str) -> tuple[float, float]:
        """Return both as floats of at least 0."""
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
            raise ParameterError(
                f"{name} must be (factor, contingency), was {value!r}",
                where=where,
                cure="give initial=(1.2, 0.02), or leave it out for that of maintenance",
            )
        factor, contingency = (NOT_NEGATIVE.check(name, each, where=where) for each in value)
        return float(factor), float(contingency)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ScenarioMargin(MarginRule):
    """Portfolio margin: the worst loss of the whole book in scenarios of the price.

    With S the worst loss, G the gross notional and O the notional that offsets within groups (the
    smaller side of each), the requirement is
    ``max(factor S, minimum G) + contingency G + pair_contingency O``.

    Parameters
    ----------
    moves : Mapping or list
        Scenarios by group: lists of ``(move, weight)``, the move a fraction of the price and the
        weight the share of its loss that counts. A list, or the group ``"*"``, holds for all groups
        that are not named.
    groups : Mapping, optional
        Names of instruments by group; the instruments of a group move together. Those in no group
        are one each, by their own name.
    products : Mapping, optional
        Names of groups by product, with ``across="same row"``. Default: one product of all.
    across : str
        ``"independent"``: each group has its own worst row, and gains count nothing. ``"same row"``
        : each product has one worst row, in which losses count in full and gains by ``offset``.
    offset : float
        The share of a group's gain that offsets losses of its product, from 0 to 1.
    factor, minimum, contingency, pair_contingency : float
        As above, at least 0.
    initial : (float, float), optional
        The factor and the contingency of initial margin. Default: those of maintenance.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    moves: Annotated[Mapping[str, Sequence[tuple[float, float]]] | Sequence[Any], Moves()]
    groups: Annotated[Mapping[str, Sequence[str]] | None, NameGroups("instrument")] = None
    products: Annotated[Mapping[str, Sequence[str]] | None, NameGroups("group")] = None
    across: Annotated[str, Choice("independent", "same row")] = "independent"
    offset: Annotated[float, SHARE] = 0.0
    factor: Annotated[float, NOT_NEGATIVE] = 1.0
    minimum: Annotated[float, NOT_NEGATIVE] = 0.0
    contingency: Annotated[float, NOT_NEGATIVE] = 0.0
    pair_contingency: Annotated[float, NOT_NEGATIVE] = 0.0
    initial: Annotated[Sequence[float] | None, InitialTerms()] = None

    # ------------------------------------------------------------------- groups of an account

    def list_groups(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the instruments of each group: the given ones, then the rest one by one."""
        given = {group: tuple(members) for group, members in (self.groups or {}).items()}
        grouped = {each for members in given.values() for each in members}
        return given | {name: (name,) for name in names if name not in grouped}

    def name_groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the groups, in order."""
        return tuple(self.list_groups(names))

    def rows_of(self, group: str) -> tuple[tuple[float, float], ...]:
        """Return the scenarios of a group."""
        moves: Any = self.moves
        rows: tuple[tuple[float, float], ...] = moves[group if group in moves else EVERY]
        return rows

    def number_products(self, groups: Sequence[str]) -> list[int]:
        """Return the number of each group's product; groups in none are one each."""
        if self.products is None:
            return [0] * len(groups) if self.across == "same row" else list(range(len(groups)))
        table = {each: p for p, each_of in enumerate(self.products.values()) for each in each_of}
        free = [group for group in groups if group not in table]
        table |= {group: len(self.products) + k for k, group in enumerate(free)}
        return [table[group] for group in groups]

    def initial_terms(self) -> tuple[float, float]:
        """Return the factor and the contingency of initial margin."""
        if self.initial is None:
            return self.factor, self.contingency
        return self.initial[0], self.initial[1]

    def check_names(self, names: Sequence[str], collateral: Sequence[Collateral]) -> None:
        """Check that the groups of moves, groups, products and collateral are there."""
        groups = self.list_groups(names)
        known = list(names)
        for group, members in (self.groups or {}).items():
            _check_known(f"group {group!r}", members, known, noun="instrument", field="groups")
        _check_known("moves", [each for each in self.moves if each != EVERY], list(groups))
        for product, members in (self.products or {}).items():
            _check_known(f"product {product!r}", members, list(groups), field="products")
        for each in collateral:
            if each.cancels_risk is not None:
                _check_known(f"collateral {each.name!r}", [each.cancels_risk], list(groups))
        self._check_rows(list(groups))

    def _check_rows(self, groups: Sequence[str]) -> None:
        """Check that each group has scenarios, as many as the others of its product."""
        missing = [each for each in groups if each not in self.moves and EVERY not in self.moves]
        if missing:
            raise ParameterError(
                f"moves must have scenarios for every group, was without {', '.join(missing)}",
                where="ScenarioMargin.moves",
                cure=f"add them, or scenarios for all others under {EVERY!r}",
            )


def _check_known(
    owner: str,
    given: Sequence[str],
    known: Sequence[str],
    *,
    noun: str = "group",
    field: str = "moves",
) -> None:
    """Check that all names are among the known ones."""
    unknown = [f"{each!r}{did_you_mean(each, known)}" for each in given if each not in known]
    if unknown:
        raise ParameterError(
            f"{owner} must name {noun}s of the account, was {', '.join(unknown)}",
            where=f"ScenarioMargin.{field}",
            cure=f"use {', '.join(known)}",
        )


MarginRule.kinds["scenarios"] = ScenarioMargin

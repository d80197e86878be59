"""Portfolio margin: the worst loss of the whole portfolio in scenarios of the price."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from backtest.base import Choice, Faults, ParameterError, declared, did_you_mean
from backtest.base.fields import NOT_NEGATIVE, SHARE
from backtest.venue.option_shocks import OptionShocks
from backtest.venue.portfolio_rules import ScenarioTables
from backtest.venue.portfolio_tables import pack_scenarios
from backtest.venue.requirement_rule import MarginRule
from backtest.venue.scenario_fields import EVERY, InitialTerms, Moves, NameGroups, Row

if TYPE_CHECKING:
    from backtest.venue.collateral import Collateral

NO_SHOCKS = OptionShocks()


@declared(kw_only=True)
class ScenarioMargin(MarginRule):
    """Portfolio margin: the worst loss of the whole portfolio in scenarios of the price.

    With S the worst loss, G the gross notional and O the notional that offsets within groups (the
    smaller side of each), the requirement is
    ``max(factor S, minimum G) + contingency G + pair_contingency O``.

    Parameters
    ----------
    moves : Mapping or list
        Scenarios by group: lists of ``(move, weight)``, the move a fraction of the price and the
        weight the share of its loss that counts. A list, or the group ``"*"``, holds for all groups
        that are not named. For options a row goes on with a relative move of their volatility, and
        with an amount that is taken off its loss.
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
    options : OptionShocks
        What is added for options.
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    moves: Annotated[Mapping[str, Sequence[Row]] | Sequence[Any], Moves()]
    groups: Annotated[Mapping[str, Sequence[str]] | None, NameGroups("instrument")] = None
    products: Annotated[Mapping[str, Sequence[str]] | None, NameGroups("group")] = None
    across: Annotated[str, Choice("independent", "same row")] = "independent"
    offset: Annotated[float, SHARE] = 0.0
    factor: Annotated[float, NOT_NEGATIVE] = 1.0
    minimum: Annotated[float, NOT_NEGATIVE] = 0.0
    contingency: Annotated[float, NOT_NEGATIVE] = 0.0
    pair_contingency: Annotated[float, NOT_NEGATIVE] = 0.0
    initial: Annotated[Sequence[float] | None, InitialTerms()] = None
    options: OptionShocks = NO_SHOCKS

    _omitted = frozenset({"options"})

    def faults(self) -> Faults:
        """Yield what does nothing, what liquidates an order at once, and rows that do not match."""
        if self.across == "independent":
            rule = "must be left out with across='independent', in which gains count nothing"
            if self.products is not None:
                yield "products", rule
            if self.offset > 0.0:
                yield "offset", rule
        factor, contingency = self.initial_terms()
        is_enough = factor >= self.factor and contingency >= self.contingency
        if not is_enough or (self.initial is None and self.level > 1.0):
            least = max(1.0, self.level)
            terms = f"({least * self.factor:g}, {least * self.contingency:g})"
            yield "initial", f"must be at least {terms}, or an order is liquidated at once"
        if not (self.factor > 0.0 or self.minimum > 0.0 or self.contingency > 0.0):
            yield "factor", "must be over 0, or minimum or contingency, or nothing is required"
        if self.across == "same row":
            yield from self._find_product_faults()

    def _find_product_faults(self) -> Faults:
        moves: Any = self.moves
        table = {"all": tuple(moves)} if self.products is None else self.products
        for groups in table.values():
            found = {group: moves.get(group, moves.get(EVERY)) for group in groups}
            rows = {group: len(each) for group, each in found.items() if each is not None}
            if len(set(rows.values())) > 1:
                listed = ", ".join(f"{group!r} {count}" for group, count in rows.items())
                rule = "must have as many scenarios for each group of a product with across='same "
                yield "moves", f"{rule}row': {listed}"

    # ------------------------------------------------------------------- groups of an account

    def list_groups(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the instruments of each group: the given ones, then the rest one by one."""
        given = {group: tuple(members) for group, members in (self.groups or {}).items()}
        grouped = {each for members in given.values() for each in members}
        return given | {name: (name,) for name in names if name not in grouped}

    def name_groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the groups, in order."""
        return tuple(self.list_groups(names))

    def rows_of(self, group: str) -> tuple[Row, ...]:
        """Return the scenarios of a group."""
        moves: Any = self.moves
        rows: tuple[Row, ...] = moves[group if group in moves else EVERY]
        return rows

    def linear_rows_of(self, group: str) -> list[tuple[float, float]]:
        """Return the scenarios of a group without options: each move once, with its weight.

        With the same row for all groups of a product every row stays, or they would not match.
        """
        limit = self.options.futures_range
        rows = [(min(limit, max(-limit, row[0])), row[1]) for row in self.rows_of(group)]
        if self.across == "same row":
            return rows
        largest: dict[float, float] = {}
        for move, weight in rows:
            largest[move] = max(weight, largest.get(move, 0.0))
        return list(largest.items())

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

    def without(self, gone: Collection[str]) -> ScenarioMargin:
        """Return the rule without some instruments, and without groups that have no others."""
        whole = self.groups or {}
        left = {
            group: tuple(each for each in members if each not in gone)
            for group, members in whole.items()
        }
        groups = {group: members for group, members in left.items() if members}
        lost = {*gone, *whole} - {*groups}
        whole_moves: Any = self.moves
        moves = {group: rows for group, rows in whole_moves.items() if group not in lost}
        products = {
            product: tuple(each for each in members if each not in lost)
            for product, members in (self.products or {}).items()
        }
        kept = {product: members for product, members in products.items() if members}
        return replace(self, moves=moves, groups=groups or None, products=kept or None)

    def pack_scenarios(
        self, names: Sequence[str], underlyings: Sequence[str] = ()
    ) -> ScenarioTables:
        """Return the scenarios of these instruments, and of underlyings of options, as arrays."""
        return pack_scenarios(self, names, underlyings)

    def check_names(
        self,
        names: Sequence[str],
        collateral: Sequence[Collateral],
        underlyings: Sequence[str] = (),
    ) -> None:
        """Check that the groups of moves, groups, products and collateral are there."""
        groups = [*self.list_groups(names), *underlyings]
        known = list(names)
        for group, members in (self.groups or {}).items():
            _check_known(f"groups.{group}", members, known, noun="instrument")
        _check_known("moves", [each for each in self.moves if each != EVERY], groups)
        for product, members in (self.products or {}).items():
            _check_known(f"products.{product}", members, groups)
        for each in collateral:
            if each.cancels_risk is not None:
                _check_known(
                    f"cancels_risk of collateral {each.name!r}", [each.cancels_risk], groups
                )
        self.check_rows(groups)

    def check_rows(self, groups: Sequence[str]) -> None:
        """Check that each group has scenarios, as many as the others of its product."""
        missing = [each for each in groups if each not in self.moves and EVERY not in self.moves]
        if missing:
            raise ParameterError(
                f"moves must have scenarios for every group, or for all others under {EVERY!r}, "
                f"got none for {', '.join(missing)}"
            )


def _check_known(
    owner: str, given: Sequence[str], known: Sequence[str], noun: str = "group"
) -> None:
    unknown = [f"{each!r}{did_you_mean(each, known)}" for each in given if each not in known]
    if unknown:
        raise ParameterError(
            f"{owner} must name {noun}s of the account, {', '.join(known)}, "
            f"got {', '.join(unknown)}"
        )


MarginRule.kinds["moves"] = ScenarioMargin

"""Margin requirement of an account with several positions: the protocol and the bracket rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import (
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    Protocol,
    Self,
    runtime_checkable,
)

from backtest.base import ParameterError, Value, declared
from backtest.base.fields import POSITIVE
from backtest.venue.collateral import Collateral, pack_collateral
from backtest.venue.contract_value import compute_value
from backtest.venue.portfolio_requirement import (
    compute_portfolio_initial,
    compute_portfolio_requirement,
)
from backtest.venue.portfolio_rules import Holdings, PortfolioRules, ScenarioTables
from backtest.venue.portfolio_tables import (
    pack_brackets,
    pack_holdings,
    pack_no_scenarios,
    pack_spot,
)
from backtest.venue.requirement import MarginRules


@runtime_checkable
class RequirementRule(Protocol):
    """What a requirement of one's own has: two methods, and ``level`` if it is not 1.

    ``positions`` has the signed quantity of each cross position by instrument, and ``prices`` the
    mark prices. Both methods return an amount of the settlement currency, at least 0. The cross
    positions are liquidated where what backs them is at most ``level`` times ``requirement``; an
    order passes if what backs them afterwards is at least ``initial``.
    """

    def requirement(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:
        """Return the maintenance requirement."""

    def initial(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:
        """Return the initial margin."""


@declared(kw_only=True)
class MarginRule(Value):
    """Base class of the rules that compile: :class:`Brackets` and :class:`ScenarioMargin`.

    Parameters
    ----------
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement.
    """

    level: Annotated[float, POSITIVE] = 1.0

    kinds: ClassVar[dict[str, type[MarginRule]]] = {}
    """The rules by the field that tells them apart from others in stored data."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:
        """Return the rule that :meth:`to_dict` wrote; the kind follows from its fields."""
        if cls is not MarginRule:
            return super().from_dict(data, where=where)
        given = data if isinstance(data, Mapping) else {}
        kind = next((kind for field, kind in cls.kinds.items() if field in given), Brackets)
        found: Any = kind.from_dict(data, where=where)
        return found  # type: ignore[no-any-return]

    def resolve(self, names: Sequence[str], underlyings: Sequence[str] = ()) -> MarginRule:  # noqa: ARG002 - of presets
        """Return the rule for some instruments and underlyings: itself, or that of a preset."""
        return self

    def check_names(
        self,
        names: Sequence[str],
        collateral: Sequence[Collateral],
        underlyings: Sequence[str] = (),
    ) -> None:
        """Check that the rule, and what collateral cancels, fit the instruments of an account."""

    def name_groups(self, names: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002 - of scenarios
        """Return the groups of the instruments, in order; brackets have none."""
        return ()

    def pack_scenarios(
        self,
        names: Sequence[str],  # noqa: ARG002
        underlyings: Sequence[str] = (),  # noqa: ARG002
    ) -> ScenarioTables | None:
        """Return the scenarios as arrays; brackets have none."""
        return None

    def pack(
        self,
        rules: Mapping[str, MarginRules],
        collateral: Sequence[Collateral] = (),
        width: int = 1,
        underlyings: Sequence[str] = (),
    ) -> PortfolioRules:
        """Return the margin rules of an account as arrays, with room for ``width`` brackets."""
        names = list(rules)
        self.check_names(names, collateral, underlyings)
        scenarios = self.pack_scenarios(names, underlyings)
        packed = PortfolioRules(
            brackets=pack_brackets(list(rules.values()), width),
            scenarios=pack_no_scenarios() if scenarios is None else scenarios,
            collateral=pack_collateral(collateral, self.name_groups(names)),
            has_scenarios=scenarios is not None,
            level=self.level,
            spot=pack_spot(),
        )
        check_inverse(packed, names)
        return packed

    def bind(
        self,
        rules: Mapping[str, MarginRules],
        collateral: Sequence[Collateral] = (),
        collateral_prices: Sequence[float] = (),
        entries: Mapping[str, float] | None = None,
    ) -> BoundRule:
        """Return the rule for some venues and collateral, with the methods of the protocol."""
        return BoundRule(
            self, dict(rules), tuple(collateral), tuple(collateral_prices), dict(entries or {})
        )


class BoundRule(NamedTuple):
    rule: MarginRule
    rules: dict[str, MarginRules]
    collateral: tuple[Collateral, ...]
    collateral_prices: tuple[float, ...]
    entries: dict[str, float]
    haircuts: tuple[float | None, ...] = ()
    underlyings: tuple[str, ...] = ()

    def requirement(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:
        return float(compute_portfolio_requirement(*self.value(positions, prices)))

    def initial(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:
        return float(compute_portfolio_initial(*self.value(positions, prices)))

    def value(
        self, positions: Mapping[str, float], prices: Mapping[str, float]
    ) -> tuple[PortfolioRules, Holdings]:
        names = list(self.rules)
        held = pack_holdings(
            quantities=[positions.get(name, 0.0) for name in names],
            values=[self._value_one(name, prices[name]) for name in names],
            entries=[self._value_one(name, self.entries.get(name, prices[name])) for name in names],
            amounts=[each.amount for each in self.collateral],
            prices=self.collateral_prices,
        )
        packed = self.rule.pack(self.rules, self.collateral, underlyings=self.underlyings)
        return packed._replace(spot=pack_spot(self.haircuts)), held

    def _value_one(self, name: str, price: float) -> float:
        return compute_value(self.rules[name].size, self.rules[name].is_inverse, price)


@declared(kw_only=True)
class Brackets(MarginRule):
    """The sum of the positions' bracket requirements: standard cross margin.

    Parameters
    ----------
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement;
        Binance portfolio margin has 1.05.
    """

    def check_names(
        self,
        names: Sequence[str],  # noqa: ARG002
        collateral: Sequence[Collateral],
        underlyings: Sequence[str] = (),  # noqa: ARG002
    ) -> None:
        """Refuse collateral that cancels the risk of a group: brackets have no groups."""
        for each in collateral:
            if each.cancels_risk is not None:
                raise ParameterError(
                    "cancels_risk must be None under brackets, which have no groups, "
                    f"got {each.cancels_risk!r} of collateral {each.name!r}"
                )


def check_inverse(packed: PortfolioRules, names: Sequence[str]) -> None:
    tables = packed.scenarios
    for g in range(len(tables.products)):
        lowest = float(tables.moves[g, : tables.counts[g]].min())
        for i in tables.members[tables.starts[g] : tables.starts[g + 1]]:
            if lowest <= -1.0 and packed.brackets.are_inverse[i]:
                raise ParameterError(
                    f"moves of a group with an inverse contract must be over -1, got {lowest:g} "
                    f"for {names[i]}"
                )

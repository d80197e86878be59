"""The margin requirement of an account with several positions: the protocol and the bracket rule.

A rule says what the cross positions of an account need. :class:`Brackets` adds up what each needs
by its venue's brackets; :class:`backtest.venue.scenario_margin.ScenarioMargin` is portfolio margin.
A rule of one's own is an object with two methods, :class:`RequirementRule`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, runtime_checkable

from backtest.base.errors import ParameterError
from backtest.base.fields import POSITIVE
from backtest.base.values import Value

if TYPE_CHECKING:
    from backtest.venue.collateral import Collateral


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


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
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
        """Return the rule that :meth:`to_dict` wrote: portfolio margin if it has ``moves``."""
        if cls is not MarginRule:
            return super().from_dict(data, where=where)
        kind = "scenarios" if isinstance(data, Mapping) and "moves" in data else "brackets"
        found: Any = cls.kinds[kind].from_dict(data, where=where or cls.kinds[kind].__name__)
        return found  # type: ignore[no-any-return]

    def check_names(self, names: Sequence[str], collateral: Sequence[Collateral]) -> None:
        """Check that the rule, and what collateral cancels, fit the instruments of an account."""

    def name_groups(self, names: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002 - of scenarios
        """Return the groups of the instruments, in order; brackets have none."""
        return ()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Brackets(MarginRule):
    """The sum of the positions' bracket requirements: standard cross margin.

    Parameters
    ----------
    level : float
        The cross positions fail where what backs them is at most ``level`` times the requirement;
        Binance portfolio margin has 1.05.
    """

    def check_names(self, names: Sequence[str], collateral: Sequence[Collateral]) -> None:  # noqa: ARG002
        """Refuse collateral that cancels the risk of a group: brackets have no groups."""
        for each in collateral:
            if each.cancels_risk is not None:
                raise ParameterError(
                    "cancels_risk must be None under brackets, which have no groups, "
                    f"was {each.cancels_risk!r}",
                    where=f"Collateral {each.name!r}",
                    cure="leave cancels_risk out, or give the account a bt.ScenarioMargin",
                )


MarginRule.kinds["brackets"] = Brackets

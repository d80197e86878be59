"""A requirement of the user's own: a Python object, which an account asks in plain Python.

The kernels of a portfolio call it through its number in :data:`portfolio_kernels.OWN_RULES`.
Nothing is known of its shape, so that a segment of a bar is tested at 16 places and bisected, and
Euler shares are differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np

from backtest import base
from backtest.base import BacktestError, Declaration, Fault, Faults, ParameterError
from backtest.base.fields import POSITIVE
from backtest.venue import portfolio_kernels
from backtest.venue.collateral import Collateral
from backtest.venue.contract_value import compute_price
from backtest.venue.portfolio_kernels import Holdings, PortfolioRules, ScenarioTables, is_in_pool
from backtest.venue.requirement import MarginRules
from backtest.venue.requirement_rule import MarginRule, RequirementRule, pack_no_scenarios


class OwnRule(Declaration):
    def read(self, value: Any) -> RequirementRule:
        if isinstance(value, type) or not isinstance(value, RequirementRule):
            raise Fault("must have the methods requirement and initial, or be bt.Brackets()")
        return value


@base.declared(kw_only=True)
class OwnMargin(MarginRule):
    rule: Annotated[Any, OwnRule()] = field()

    def faults(self) -> Faults:
        try:
            POSITIVE.read(getattr(self.rule, "level", 1.0))
        except Fault as fault:
            yield "rule.level", str(fault)

    def _settle(self) -> None:
        self._set_fields(level=float(getattr(self.rule, "level", 1.0)))

    def pack_scenarios(
        self,
        names: Sequence[str],
        underlyings: Sequence[str] = (),  # noqa: ARG002 - as the others
    ) -> ScenarioTables:
        count = len(names)
        return pack_no_scenarios()._replace(
            counts=np.ones(count, dtype=np.int64),
            moves=np.zeros((count, 1)),
            weights=np.zeros((count, 1)),
            members=np.arange(count, dtype=np.int64),
            starts=np.arange(count + 1, dtype=np.int64),
            products=np.arange(count, dtype=np.int64),
            n_products=count,
            nets=np.zeros((count, 2)),
        )

    def pack(
        self,
        rules: Mapping[str, MarginRules],
        collateral: Sequence[Collateral] = (),
        width: int = 1,
        underlyings: Sequence[str] = (),
    ) -> PortfolioRules:
        asked = AskedRule(self.rule, tuple(rules))
        if asked not in portfolio_kernels.OWN_RULES:
            portfolio_kernels.OWN_RULES.append(asked)
        own = portfolio_kernels.OWN_RULES.index(asked) + 1
        return super().pack(rules, collateral, width, underlyings)._replace(own=own)

    def to_dict(self) -> dict[str, Any]:
        own = self.rule.name if isinstance(self.rule, StoredRule) else type(self.rule).__name__
        return {"level": self.level, "own": own}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:  # noqa: ARG003
        return cls(rule=StoredRule(str(data.get("own")), data.get("level", 1.0)))


@dataclass(frozen=True)
class StoredRule:
    name: str
    level: float

    def requirement(self, positions: Mapping[str, float], prices: Mapping[str, float]) -> float:  # noqa: ARG002
        raise ParameterError(
            f"account.requirement is not stored with a result: pass the {self.name} again"
        )

    initial = requirement


MarginRule.kinds["own"] = OwnMargin


class Requirement(Declaration):
    def read(self, value: Any) -> MarginRule:
        if isinstance(value, MarginRule):
            return value
        if isinstance(value, str):
            return MarginRule.from_dict({"preset": value})
        if isinstance(value, Mapping):
            return MarginRule.from_dict(value)
        return OwnMargin(rule=OwnRule().read(value))


def ask_rule(
    rule: RequirementRule, method: str, positions: Mapping[str, float], prices: Mapping[str, float]
) -> float:
    name = f"{type(rule).__name__}.{method}"
    try:
        answer = getattr(rule, method)(positions, prices)
    except BacktestError:
        raise
    except Exception as error:
        raise ParameterError(
            f"{name} must answer for any positions, and for none; given {dict(positions)!r:.200} "
            f"it raised {type(error).__name__}: {error}"
        ) from error
    return float(base.Number(0, may_be_infinite=True).check(name, base.check_number(name, answer)))


class AskedRule:
    def __init__(self, rule: RequirementRule, names: tuple[str, ...]) -> None:
        self.rule, self.names = rule, names

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AskedRule):
            return NotImplemented
        return other.rule is self.rule and other.names == self.names

    def __hash__(self) -> int:
        return hash((id(self.rule), self.names))

    def __call__(self, rules: PortfolioRules, held: Holdings, is_initial: bool) -> float:
        positions, prices = {}, {}
        for i, name in enumerate(self.names):
            value = float(held.values[i])
            if not math.isnan(value):
                size = float(rules.brackets.sizes[i])
                prices[name] = compute_price(size, bool(rules.brackets.are_inverse[i]), value)
            if is_in_pool(rules, held, i):
                positions[name] = float(held.quantities[i])
        method = "initial" if is_initial else "requirement"
        return ask_rule(self.rule, method, positions, prices)

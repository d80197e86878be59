"""A requirement of the user's own: a Python object, run uncompiled.

The kernels of a portfolio call a few functions for the requirement. For a rule of the user's own
they run as twins in which these functions ask the rule instead (:func:`make_own_twins`). Nothing is
known of its shape, so that a segment of a bar is tested at 16 places and bisected, and Euler shares
are differences.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from backtest import base
from backtest.base import BacktestError, Declaration, Fault, Faults, FloatArray, ParameterError
from backtest.base.fields import POSITIVE
from backtest.venue import portfolio_kernels
from backtest.venue.contract_value import compute_price
from backtest.venue.portfolio_kernels import (
    Holdings,
    PortfolioRules,
    ScenarioTables,
    Waypoint,
    is_in_pool,
    move_holdings,
)
from backtest.venue.requirement_rule import MarginRule, RequirementRule, pack_no_scenarios

PARTS = 16
"""Places at which a segment of a bar is tested."""
HALVINGS = 60
"""Steps of bisection: beyond the last digit."""
STEP = 1e-6
"""The relative change of a quantity for its Euler share."""


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


# ------------------------------------------------------------------------------------- the twins


def make_own_twins(
    modules: Sequence[types.ModuleType],
    rule: RequirementRule,
    names: Sequence[str],
    extra: Mapping[str, Any] | None = None,
) -> types.SimpleNamespace:
    scopes = [dict(vars(module)) for module in modules]
    twins: dict[int, Any] = {}
    for module, scope in zip(modules, scopes, strict=True):
        for _, function in base.find_own_functions(module):
            twins[id(function)] = base.make_twin(
                function, scope, Path(function.__code__.co_filename)
            )
    own = OwnFunctions(rule, names, twins[id(portfolio_kernels.is_pool_failing)])
    twins |= {id(replaced): function for replaced, function in own.replacements()}
    found: dict[str, Any] = {}
    for scope in scopes:
        for name, value in list(scope.items()):
            given = (extra or {}).get(name, value)
            scope[name] = found[name] = twins.get(id(given), given)
    return types.SimpleNamespace(**found)


class OwnFunctions:
    def __init__(
        self, rule: RequirementRule, names: Sequence[str], is_failing: Callable[..., bool]
    ) -> None:
        self.rule = rule
        self.names = tuple(names)
        self.is_failing = is_failing

    def replacements(self) -> list[tuple[Callable[..., Any], Callable[..., Any]]]:
        return [
            (portfolio_kernels.compute_portfolio_requirement, self.compute_requirement),
            (portfolio_kernels.compute_portfolio_initial, self.compute_initial),
            (portfolio_kernels.fill_shares, self.fill_shares),
            (portfolio_kernels.find_failure, self.find_failure),
        ]

    def compute_requirement(self, rules: PortfolioRules, held: Holdings) -> float:
        return ask_rule(self.rule, "requirement", *self.describe(rules, held))

    def compute_initial(self, rules: PortfolioRules, held: Holdings) -> float:
        return ask_rule(self.rule, "initial", *self.describe(rules, held))

    def fill_shares(self, rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
        shares[:] = 0.0
        for i, quantity in enumerate(held.quantities.tolist()):
            if is_in_pool(rules, held, i):
                held.quantities[i] = quantity * (1.0 + STEP)
                more = self.compute_requirement(rules, held)
                held.quantities[i] = quantity * (1.0 - STEP)
                shares[i] = (more - self.compute_requirement(rules, held)) / (2.0 * STEP)
                held.quantities[i] = quantity

    def find_failure(
        self,
        rules: PortfolioRules,
        held: Holdings,
        cash: float,
        start: Waypoint,
        end: Waypoint,
        shares: FloatArray,  # noqa: ARG002 - as the function that it replaces
    ) -> float:
        def fails(place: float) -> bool:
            move_holdings(held, start, end, place)
            return self.is_failing(rules, held, cash)

        return find_first_place(fails)

    def describe(
        self, rules: PortfolioRules, held: Holdings
    ) -> tuple[dict[str, float], dict[str, float]]:
        positions, prices = {}, {}
        for i, name in enumerate(self.names):
            value = float(held.values[i])
            if not math.isnan(value):
                size = float(rules.brackets.sizes[i])
                prices[name] = compute_price(size, bool(rules.brackets.are_inverse[i]), value)
            if is_in_pool(rules, held, i):
                positions[name] = float(held.quantities[i])
        return positions, prices


def find_first_place(fails: Callable[[float], bool]) -> float:
    if fails(0.0):
        return 0.0
    for part in range(1, PARTS + 1):
        if fails(part / PARTS):
            sound, failing = (part - 1) / PARTS, part / PARTS
            for _ in range(HALVINGS):
                middle = 0.5 * (sound + failing)
                sound, failing = (sound, middle) if fails(middle) else (middle, failing)
            fails(failing)  # the holdings are valued there afterwards
            return failing
    return math.nan

"""The parts of a combinator: namespaces for their parameters, columns and memory."""

from __future__ import annotations

import functools
import inspect
import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

from backtest.base import PolicyError
from backtest.policy.formula_rewriter import rewrite_formula
from backtest.policy.policy import (
    BAR_FIELDS,
    Columns,
    Policy,
    formula_for,
    margin_formula_for,
    return_parameter,
    start_memory,
)


class CombinedPart(NamedTuple):
    policy: type[Policy]
    name: str

    @property
    def prefix(self) -> str:
        return f"{self.name}__"


def find_flat_names(part: CombinedPart) -> dict[str, str]:
    return {name: f"{part.name}_{name}" for name in part.policy.parameters()}


@functools.cache
def view_class(part: CombinedPart) -> Any:
    names = find_flat_names(part)

    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807 - it is the method
        if name in names:
            return getattr(object.__getattribute__(self, "_whole"), names[name])
        return object.__getattribute__(self, name)

    body = {"__getattribute__": __getattribute__, "__module__": part.policy.__module__}
    return type(part.policy.__name__, (part.policy,), body)


def view_part(whole: Any, part: CombinedPart) -> Any:
    seen = object.__new__(view_class(part))
    object.__setattr__(seen, "_whole", whole)
    return seen


def make_observe(cls: type[Policy], parts: tuple[CombinedPart, ...]) -> Callable[..., Any]:
    def observe(self: Any, market: Any) -> Columns:
        columns = dict(cls.observe(self, market))
        for part in parts:
            own = view_part(self, part).observe(market)
            add_unique(columns, {f"{part.prefix}{name}": column for name, column in own.items()})
        return columns

    observe.written = (cls.observe, *(part.policy.observe for part in parts))  # type: ignore[attr-defined] # for messages
    return observe


def add_unique(held: dict[str, Any], more: dict[str, Any]) -> None:
    double = next((name for name in more if name in held), None)
    if double is not None:
        raise PolicyError(
            f"columns and memory fields must have different names, two are called {double}; names "
            "with __ belong to the policies of a combinator"
        )
    held.update(more)


def make_start(cls: type[Policy], parts: tuple[CombinedPart, ...]) -> Callable[..., Any]:
    def start(self: Any) -> Any:
        slots: dict[str, float] = {}
        if hasattr(cls, "start"):
            slots |= cls.start(self)._asdict()
        for part in parts:
            if hasattr(part.policy, "start"):
                memory = start_memory(view_part(self, part))
                add_unique(slots, {f"{part.prefix}{k}": v for k, v in memory._asdict().items()})
        return name_tuple("Memory", tuple(slots))(**slots)

    return start


@functools.cache
def name_tuple(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


# --------------------------------------------------------------------------------- the formula


def write_formula(whole: Any, start: Any, columns: tuple[str, ...]) -> Callable[..., Any]:
    scope: dict[str, Any] = {
        "__name__": type(whole).__module__,
        "combine": rewrite_formula(type(whole).combine),
    }
    lines: list[str] = []
    slots: dict[str, str] = {}
    for k, (part, policy) in enumerate(zip(whole.parts, whole.policies, strict=True)):
        lines += write_part(scope, k, part, policy, columns)
        memory = getattr(start_memory(policy), "_fields", ())
        slots |= {f"{part.prefix}{name}": f"after_{k}[{i}]" for i, name in enumerate(memory)}
    asked = f"self, bar, account, ({', '.join(f'asked_{k}' for k in range(len(whole.parts)))},)"
    if start is None:
        lines += [f"leverage = combine({asked})"]
    else:
        own = start(whole)._fields
        scope["Own"] = name_tuple("Own", own)
        kept = ", ".join(f"memory.{name}" for name in own)
        lines += [f"leverage, after = combine({asked}, Own({kept}))"]
        slots = {**{name: f"after[{i}]" for i, name in enumerate(own)}, **slots}
    if slots:
        scope["Memory"] = name_tuple("Memory", tuple(slots))
        lines += [f"return leverage, Memory({', '.join(slots.values())})"]
    else:
        lines += ["return leverage"]
    head = f"def leverage(self, bar, account{', memory' if slots else ''}):"
    text = "\n".join([head, *(f"    {line}" for line in lines)])
    exec(compile(text, f"<{type(whole).__name__}>", "exec"), scope)  # our own text
    formula: Callable[..., Any] = scope["leverage"]
    return formula


def write_part(
    scope: dict[str, Any], k: int, part: CombinedPart, policy: Policy, columns: tuple[str, ...]
) -> list[str]:
    seen = find_own_columns(part, columns)
    rule = formula_for(policy, seen)
    if rule is return_parameter:
        return [f"asked_{k} = 1.0 * self.{part.name}_leverage"]
    scope[f"rule_{k}"] = rule
    given = write_arguments(scope, k, part, seen)
    memory = start_memory(policy)
    if memory is None:
        return [f"asked_{k} = 1.0 * rule_{k}({given})"]
    scope[f"Memory_{k}"] = type(memory)
    before = ", ".join(f"memory.{part.prefix}{name}" for name in memory._fields)
    return [
        f"answer_{k}, after_{k} = rule_{k}({given}, Memory_{k}({before}))",
        f"asked_{k} = 1.0 * answer_{k}",
    ]


def find_own_columns(part: CombinedPart, columns: tuple[str, ...]) -> tuple[str, ...]:
    prefix = part.prefix
    return tuple(name.removeprefix(prefix) for name in columns if name.startswith(prefix))


def write_arguments(
    scope: dict[str, Any], k: int, part: CombinedPart, seen: tuple[str, ...]
) -> str:
    scope[f"Settings_{k}"] = make_settings_class(part.policy)  # type: ignore[arg-type] # classes can be hashed
    scope[f"Bar_{k}"] = name_tuple("Bar", (*BAR_FIELDS, *seen))
    settings = [f"self.{flat}" for flat in find_flat_names(part).values()] or ["0.0"]
    bar = [*(f"bar.{name}" for name in BAR_FIELDS), *(f"bar.{part.prefix}{name}" for name in seen)]
    return f"Settings_{k}({', '.join(settings)}), Bar_{k}({', '.join(bar)}), account"


def write_margin_formula(whole: Any, columns: tuple[str, ...]) -> Callable[..., Any] | None:
    scope: dict[str, Any] = {"__name__": type(whole).__module__, "choose_lower": choose_lower}
    lines: list[str] = []
    for k, (part, policy) in enumerate(zip(whole.parts, whole.policies, strict=True)):
        seen = find_own_columns(part, columns)
        rule = margin_formula_for(policy, seen)
        if rule is not None:
            scope[f"rule_{k}"] = rule
            found = f"1.0 * rule_{k}({write_arguments(scope, k, part, seen)})"
            lines.append(f"asked = choose_lower(asked, {found})" if lines else f"asked = {found}")
    if not lines:
        return None
    text = "\n    ".join(["def venue_leverage(self, bar, account):", *lines, "return asked"])
    exec(compile(text, f"<{type(whole).__name__}>", "exec"), scope)  # our own text
    formula: Callable[..., Any] = scope["venue_leverage"]
    return formula


def choose_lower(one: float, other: float) -> float:
    return other if math.isnan(one) or other < one else one


@functools.cache
def make_settings_class(cls: type[Policy]) -> Any:
    base: Any = namedtuple("Settings", tuple(cls.parameters()) or ("nothing",))  # type: ignore[misc] # they are found here

    def __getattr__(self: object, name: str) -> Any:  # noqa: N807 - it is the method
        found = inspect.getattr_static(cls, name)
        return found.__get__(self, cls) if hasattr(found, "__get__") else found

    return type("Settings", (base,), {"__getattr__": __getattr__, "__slots__": ()})

"""The policies inside a combinator: their settings, columns and memory, and text of formulas."""

from __future__ import annotations

import functools
import inspect
import math
from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

from backtest.core import PolicyError
from backtest.policies import policy as p
from backtest.policies.policy import Policy


class CombinedPart(NamedTuple):
    policy: type[Policy]
    name: str

    @property
    def prefix(self) -> str:
        return f"{self.name}__"

    @property
    def flat(self) -> dict[str, str]:
        return {name: f"{self.name}_{name}" for name in self.policy.parameters()}

    def view(self, whole: Any) -> Any:
        """Return the policy with the settings of the whole; it reads those that it uses."""
        seen = object.__new__(view_class(self))
        object.__setattr__(seen, "_whole", whole)
        return seen

    def find_own(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(c.removeprefix(self.prefix) for c in columns if c.startswith(self.prefix))

    def add_to(self, held: dict[str, Any], own: Mapping[str, Any]) -> None:
        more = {f"{self.prefix}{name}": value for name, value in own.items()}
        double = next((name for name in more if name in held), None)
        if double is not None:
            raise PolicyError(
                f"columns and memory fields must have different names, two are called {double}; "
                "names with __ belong to the policies of a combinator"
            )
        held.update(more)


@functools.cache
def view_class(part: CombinedPart) -> Any:
    names = part.flat

    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807 - it is the method
        if name in names:
            return getattr(object.__getattribute__(self, "_whole"), names[name])
        return object.__getattribute__(self, name)

    body = {"__getattribute__": __getattribute__, "__module__": part.policy.__module__}
    return type(part.policy.__name__, (part.policy,), body)


def observe_parts(self: Any, market: Any) -> p.Columns:
    columns = dict(self.written.observe(self, market))
    for part in self.parts:
        part.add_to(columns, part.view(self).observe(market))
    return columns


def start_parts(self: Any) -> Any:
    slots = self.written.start(self)._asdict() if hasattr(self.written, "start") else {}
    for part in self.parts:
        if hasattr(part.policy, "start"):
            part.add_to(slots, p.start_memory(part.view(self))._asdict())
    return name_tuple("Memory", tuple(slots))(**slots)


@functools.cache
def name_tuple(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def build(whole: Any, name: str, more: str, lines: list[str], scope: dict[str, Any]) -> Any:
    text = "\n    ".join([f"def {name}(self, bar, account{more}):", *lines])
    scope["__name__"] = type(whole).__module__
    exec(compile(text, f"<{type(whole).__name__}>", "exec"), scope)  # our own text
    return scope[name]


def write_arguments(
    scope: dict[str, Any], k: int, part: CombinedPart, columns: tuple[str, ...]
) -> str:
    seen = part.find_own(columns)
    scope[f"Settings_{k}"] = make_settings_class(part.policy)  # type: ignore[arg-type] # classes can be hashed
    scope[f"Bar_{k}"] = name_tuple("Bar", (*p.BAR_FIELDS, *seen))
    settings = [f"self.{flat}" for flat in part.flat.values()] or ["0.0"]
    bar = [
        *(f"bar.{name}" for name in p.BAR_FIELDS),
        *(f"bar.{part.prefix}{name}" for name in seen),
    ]
    return f"Settings_{k}({', '.join(settings)}), Bar_{k}({', '.join(bar)}), account"


def choose_lower(one: float, other: float) -> float:
    return other if math.isnan(one) or other < one else one


@functools.cache
def make_settings_class(cls: type[Policy]) -> Any:
    base: Any = namedtuple("Settings", tuple(cls.parameters()) or ("nothing",))  # type: ignore[misc] # they are known here

    def __getattr__(self: object, name: str) -> Any:  # noqa: N807 - it is the method
        attribute = inspect.getattr_static(cls, name)
        return attribute.__get__(self, cls) if hasattr(attribute, "__get__") else attribute

    return type("Settings", (base,), {"__getattr__": __getattr__, "__slots__": ()})

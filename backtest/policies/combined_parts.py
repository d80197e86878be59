"""The policies inside a combinator: their settings, columns and memory, and text of formulas."""

from __future__ import annotations

import functools
import inspect
import math
from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

from backtest._compile.bytecode import ACCOUNT, BAR, READ, find_fields
from backtest.core import PolicyError
from backtest.policies import policy as p
from backtest.policies.policy import Policy


class CombinedPart(NamedTuple):
    """A policy inside a combinator, by the name that its settings and columns begin with."""

    policy: type[Policy]
    name: str

    @property
    def prefix(self) -> str:
        """What its columns and fields of memory begin with on the bar of the combinator."""
        return f"{self.name}__"

    @property
    def flat(self) -> dict[str, str]:
        """The names of its parameters among those of the combinator."""
        return {name: f"{self.name}_{name}" for name in self.policy.parameters()}

    def view(self, whole: Any) -> Any:
        """Return the policy with the settings of the whole; it reads those that it uses."""
        seen = object.__new__(view_class(self))
        object.__setattr__(seen, "_whole", whole)
        return seen

    def find_own(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return its columns among those of the combinator, by its own names."""
        prefixed = [column for column in columns if column.startswith(self.prefix)]
        return tuple(column.removeprefix(self.prefix) for column in prefixed)

    def name_in_whole(self, field: str) -> str:
        """Return the name that a field of its bar has on that of the combinator."""
        if field == "*" or field in p.BAR_FIELDS:
            return field
        return f"{self.prefix}{field}"

    def add_to(self, combined: dict[str, Any], values: Mapping[str, Any]) -> None:
        """Add its columns, or fields of memory, to those of the combinator; none may be there."""
        for name in values:
            flat = f"{self.prefix}{name}"
            if flat in combined:
                raise PolicyError(
                    f"columns and memory fields must have different names, two are called {flat}; "
                    "names with __ belong to the policies of a combinator"
                )
        for name, value in values.items():
            combined[f"{self.prefix}{name}"] = value


@functools.cache
def view_class(part: CombinedPart) -> Any:
    """Return a subclass of a combined policy that reads its parameters from the combinator.

    A combinator has the parameters of its policies as fields of its own, such as ``first_target``.
    So its view of a policy has no fields: :meth:`CombinedPart.view` makes one with the combinator
    as ``_whole``, and ``view.target`` is ``_whole.first_target``. Methods are those of the policy.
    """
    names_in_whole = part.flat  # by name of the policy's parameter

    # Every attribute is asked for here first. ``__getattr__`` would not do: it is only asked for
    # what is missing, and the policy's class has the defaults of its parameters as attributes.
    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807 - it is the method
        if name in names_in_whole:
            whole = object.__getattribute__(self, "_whole")
            return getattr(whole, names_in_whole[name])
        return object.__getattribute__(self, name)

    body = {"__getattribute__": __getattribute__, "__module__": part.policy.__module__}
    return type(part.policy.__name__, (part.policy,), body)


def observe_parts(self: Any, market: Any) -> p.Columns:
    """Return the columns of a combinator and of its policies: ``observe`` of combined classes."""
    columns = dict(self.written.observe(self, market))
    for part in self.parts:
        part.add_to(columns, part.view(self).observe(market))
    return columns


def start_parts(self: Any) -> Any:
    """Return the memory of a combinator and of its policies: ``start`` of combined classes.

    It is a named tuple with the fields of the combinator first, and then those of each policy with
    memory, in their order, by names such as ``first__count``.
    """
    fields: dict[str, Any] = {}
    if hasattr(self.written, "start"):
        fields = self.written.start(self)._asdict()

    # A policy starts with its own parameters, which are fields of the combinator: it is shown them
    # by its view.
    for part in self.parts:
        if hasattr(part.policy, "start"):
            memory = p.start_memory(part.view(self))
            part.add_to(fields, memory._asdict())
    return name_tuple("Memory", tuple(fields))(**fields)


@functools.cache
def name_tuple(name: str, fields: tuple[str, ...]) -> Any:
    """Return the named tuple of some fields, always the same one: code is compiled for it."""
    return namedtuple(name, fields)


class FormulaWriter:
    """Writes a formula of a combinator, line by line, as a function that compiles.

    The combined policies are known only when a combinator is made, and compiled code can neither
    loop over different functions nor take a policy as an argument. So the text of the formula calls
    each of them in a line of its own, by numbered names, as for two policies with a parameter each:

        def venue_leverage(self, bar, account):
            asked = 1.0 * rule_0(Settings_0(self.first_target), Bar_0(bar.time, ...), account)
            asked = choose_lower(asked, 1.0 * rule_1(Settings_1(...), Bar_1(...), account))
            return asked

    ``scope`` says what each of these names is, ``lines`` are those of the body, and ``rules`` are
    the formulas of the policies that are called. ``columns`` are those on the combinator's bar.
    """

    def __init__(self, whole: Any, columns: tuple[str, ...]) -> None:
        self.whole = whole
        self.columns = columns
        self.scope: dict[str, Any] = {"__name__": type(whole).__module__}
        self.lines: list[str] = []
        self.rules: dict[CombinedPart, Any] = {}

    def write_call(self, k: int, part: CombinedPart, rule: Any, *more: str) -> str:
        """Return the text that calls the rule of policy k, and name in the scope what it needs.

        Its arguments are the settings of the policy, its bar, the account, and the texts ``more``.
        """
        own_columns = part.find_own(self.columns)
        self.rules[part] = rule
        self.scope[f"rule_{k}"] = rule
        self.scope[f"Settings_{k}"] = make_settings_class(part.policy)  # type: ignore[arg-type] # classes can be hashed
        self.scope[f"Bar_{k}"] = name_tuple("Bar", (*p.BAR_FIELDS, *own_columns))

        # The one field of a policy without parameters is not used.
        settings = [f"self.{flat}" for flat in part.flat.values()]
        if not settings:
            settings = ["0.0"]

        # The columns of a policy have a prefix in the bar of the combinator.
        values = [f"bar.{name}" for name in p.BAR_FIELDS]
        values += [f"bar.{part.prefix}{name}" for name in own_columns]
        arguments = [
            f"Settings_{k}({', '.join(settings)})",
            f"Bar_{k}({', '.join(values)})",
            "account",
            *more,
        ]
        return f"rule_{k}({', '.join(arguments)})"

    def build(self, name: str, arguments: str) -> Any:
        """Return the formula of the lines so far, with a note of the fields that it reads."""
        text = "\n    ".join([f"def {name}({arguments}):", *self.lines])
        exec(compile(text, f"<{type(self.whole).__name__}>", "exec"), self.scope)  # our own text
        return note_read(self.scope[name], self.scope.get("combine"), self.rules)


def note_read(
    formula: Any,
    own: Any,
    rules: Mapping[CombinedPart, Any],
) -> Any:
    """Return the formula of a combinator, with a note of the fields that its formulas read.

    The formula hands bar and account on whole, so its own text would say that any field may be
    read, and the account would be prepared in full at each close. What is read is what ``own``
    reads, the combinator's rule if it has one, and the ``rules`` of the combined policies.
    """
    of_bar: frozenset[str] = frozenset()
    of_account: frozenset[str] = frozenset()
    if own is not None:
        of_bar = find_fields(own, BAR)
        of_account = find_fields(own, ACCOUNT)

    for part, rule in rules.items():
        of_bar |= {part.name_in_whole(field) for field in find_fields(rule, BAR)}
        of_account |= find_fields(rule, ACCOUNT)
    setattr(formula, READ, {BAR: of_bar, ACCOUNT: of_account})
    return formula


def choose_lower(one: float, other: float) -> float:
    """Return the lower of two margin settings; NaN, which decides nothing, counts as none."""
    return other if math.isnan(one) or other < one else one


@functools.cache
def make_settings_class(cls: type[Policy]) -> Any:
    """Return a named tuple that stands for a policy in formulas: ``self`` of its methods.

    numba compiles named tuples of numbers, but no policies. The fields are the parameters of the
    policy; without any there is one that is not used, as numba needs one. Methods and constants of
    the policy are found by their names too, in plain Python.
    """
    fields = tuple(cls.parameters()) or ("nothing",)
    base: Any = namedtuple("Settings", fields)  # type: ignore[misc] # they are known here

    # Asked for what is no field. A function of the class becomes a method of the tuple.
    def __getattr__(self: object, name: str) -> Any:  # noqa: N807 - it is the method
        attribute = inspect.getattr_static(cls, name)
        if hasattr(attribute, "__get__"):
            return attribute.__get__(self, cls)
        return attribute

    # Without slots each tuple would carry a dict.
    body = {"__getattr__": __getattr__, "__slots__": ()}
    return type("Settings", (base,), body)

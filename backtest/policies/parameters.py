"""Parameters with a range or a choice: declared in a class, checked, changed and written."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np

from backtest import core
from backtest._compile.bytecode import LARGEST_INTEGER
from backtest.core import checked

RESERVED = frozenset((
    "combine", "fails_when", "faults", "from_settings", "limits", "make_formula",
    "may_hold_nothing", "observe", "option_orders", "over", "parameters", "parts", "policies",
    "promises", "settings", "start", "summary", "takes", "title", "tolerance", "venue_leverage",
    "written",
))  # fmt: skip
"""Names that a policy or a combinator has a meaning for: no parameter may have them."""


class Parameter(NamedTuple):
    """A declared parameter; of a list or a table, ``kind`` is that of one of its numbers."""

    name: str
    kind: type
    space: core.Range | core.Choice | None
    default: object
    is_table: bool = False
    """Whether it holds numbers by name: of rules of signals."""

    @property
    def length(self) -> int:
        """How many numbers a list has, 0 if it is none."""
        return getattr(self.space, "length", 0)

    def list_elements(self) -> list[Parameter]:
        """Return its numbers as parameters, ``levels.0`` or ``budgets.BTC``, or itself."""
        if not isinstance(self.space, core.Range) or not (self.length or self.is_table):
            return [self]

        defaults: Any = self.default
        if defaults is None:
            defaults = [None] * self.length
        places = defaults.items() if isinstance(defaults, Mapping) else enumerate(defaults)

        space = dataclasses.replace(self.space, length=0)
        elements = []
        for place, default in places:
            name = f"{self.name}.{place}"
            elements.append(Parameter(name, kind=self.kind, space=space, default=default))
        return elements


class Parameterized:
    """The base of frozen dataclasses whose fields are parameters with a range or a choice."""

    instead_of: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Parameters that are left out where another one is given, whose default is that it is not."""
    _has_tables: ClassVar[bool] = True
    """Whether a parameter may hold numbers by name: of rules of signals, not of policies."""

    def __post_init__(self) -> None:
        # Each value in its range. The class is frozen, but values are not yet as they are held.
        cls = type(self)
        for parameter in self.parameters().values():
            value = check_value(cls, parameter, getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)

        # All that does not fit together is said at once.
        values = number_elements(self.settings())
        problems = []
        for name, rule in self.faults():
            value = values.get(name, getattr(self, name, ""))
            problems.append(f"{cls.__name__}.{name} {rule}, got {value}")
        if problems:
            raise core.ParameterError("\n".join(problems))

    def faults(self) -> core.Faults:
        """Yield the name of a parameter and a rule that it breaks: of what must fit together."""
        return iter(())

    def __repr__(self) -> str:
        settings = [f"{name}={write_value(value)}" for name, value in self.settings().items()]
        return f"{type(self).__name__}({', '.join(settings)})"

    @classmethod
    def parameters(cls) -> Mapping[str, Parameter]:
        """Return the declared parameters by name, in order."""
        return find_parameters(cls)  # type: ignore[arg-type] # classes are hashable

    @classmethod
    def title(cls) -> str:
        """Return the name at the command line, for example ``vol-target``."""
        return format_title(cls.__name__)

    @classmethod
    @checked
    def from_settings(cls, settings: Mapping[str, object]) -> Self:
        """Create one from its parameters; numbers may be given as text."""
        merged = merge_elements(cls, settings)
        check_settings(cls, merged)
        values = {}
        for name, value in merged.items():
            parameter = cls.parameters()[name]
            refuse_quoted(cls, parameter, value)
            values[name] = parse_value(parameter, value)
        return cls(**values)

    def settings(self) -> dict[str, Any]:
        """Return the values of all parameters by name."""
        return {name: getattr(self, name) for name in self.parameters()}


_T = TypeVar("_T", bound="Parameterized")


def freeze(cls: Any) -> None:
    """Make a class a frozen dataclass whose errors name its parameters."""
    dataclasses.dataclass(frozen=True, repr=False)(cls)
    build = cls.__init__

    @functools.wraps(build)
    def __init__(self: Any, *args: object, **settings: object) -> None:  # noqa: N807 - it is the method
        check_settings(cls, settings, len(args))
        check_left_out(cls, args, settings)
        build(self, *args, **settings)

    cls.__init__ = __init__


def number_elements(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return settings by name, the numbers of a list under ``levels.0`` and so on."""
    elements: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, tuple):
            for place, number in enumerate(value):
                elements[f"{name}.{place}"] = number
        else:
            elements[name] = value
    return elements


def split_name(name: str) -> tuple[str, str]:
    """Return whose a parameter is, ``BTCUSDT`` or nothing, and its own name (``levels.0``)."""
    owner, _, name = name.rpartition(".")
    if not name.isdecimal():
        return owner, name

    # A number of a list has its place behind the name of the list.
    owner, _, field = owner.rpartition(".")
    return owner, f"{field}.{name}"


def merge_elements(owner: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes in which single elements have become whole lists and tables.

    ``{"weights.0": 0.5}`` becomes ``{"weights": [0.5, ...]}``, and ``{"sizes.BTC": 2.0}`` a table
    with that key. The other elements come from the whole list or table in ``changes``, if it is
    there, or else from ``owner``, a policy. Where the owner is a class, they are the defaults of a
    list, and a table has no others. Names that are no element stay as they are, for the caller.
    """
    declared = owner.parameters()
    merged = dict(changes)
    for name in changes:
        field, _, element = name.partition(".")
        parameter = declared.get(field)
        if parameter is None or not element:
            continue

        held = None
        if not isinstance(owner, type):
            held = getattr(owner, field)

        # ``merged`` and not ``changes``: an element before this one may be in the list already.
        if parameter.is_table:
            table = merged.get(field) or held or {}
            merged[field] = {**table, element: merged.pop(name)}
        elif element.isdecimal() and int(element) < parameter.length:
            numbers = list_numbers(parameter, merged.get(field), held)
            numbers[int(element)] = merged.pop(name)
            merged[field] = numbers
    return merged


def list_numbers(parameter: Parameter, value: Any, held: Any) -> list[Any]:
    """Return the numbers of a list: of a value that was given, held, or declared, or all None."""
    if value is None:
        value = held or parameter.default or [None] * parameter.length
    if isinstance(value, str):
        value = parse_value(parameter, value)
    return [*value]


def write_value(value: object) -> str:
    """Return a value as Python reads it again."""
    if isinstance(value, tuple):
        numbers = ", ".join(map(write_value, value))
        return f"({numbers},)" if len(value) == 1 else f"({numbers})"
    return "float('inf')" if value == math.inf else repr(value)


def format_title(class_name: str) -> str:
    """Return the name of a class at the command line: ``vol-target`` of ``VolTarget``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


def list_fields(cls: type[Parameterized]) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a class that declares parameters."""
    if not dataclasses.is_dataclass(cls):
        raise core.ParameterError(f"{cls.__name__} is a base class: derive a class from it")
    return dataclasses.fields(cls)


@functools.cache
def find_parameters(cls: type[Parameterized]) -> Mapping[str, Parameter]:
    """Return the declared parameters of a class; raise ParameterError for a bad declaration."""
    fields = list_fields(cls)
    hints = typing.get_type_hints(cls, include_extras=True)

    parameters: dict[str, Parameter] = {}
    for field in fields:
        if field.name in RESERVED or field.name.startswith("_"):
            raise core.ParameterError(
                f"the name of a parameter must not be reserved or start with _, got "
                f"{cls.__name__}.{field.name}"
            )
        parameters[field.name] = read_parameter(cls, field, hints[field.name])

    # Conditions may name parameters that are declared later.
    for parameter in parameters.values():
        check_conditions(cls, parameter, parameters)
    return MappingProxyType(parameters)


def read_parameter(cls: type[Parameterized], field: dataclasses.Field[Any], hint: Any) -> Parameter:
    """Return the parameter that a field declares by its annotation and default."""
    kind = hint
    space = None
    if typing.get_origin(hint) is Annotated:
        kind, *notes = typing.get_args(hint)
        spaces = (note for note in notes if isinstance(note, (core.Range, core.Choice)))
        space = next(spaces, None)

    # Of a list or a table, the kind is that of one number.
    origin = typing.get_origin(kind)
    is_list = origin is tuple and typing.get_args(kind)[1:] == (Ellipsis,)
    is_table = origin is Mapping and cls._has_tables
    if is_list:
        kind = typing.get_args(kind)[0]
    if is_table:
        kind = typing.get_args(kind)[1]

    if is_list != bool(getattr(space, "length", 0)):
        raise core.ParameterError(
            f"a list needs its length, and nothing else has one, {cls.__name__}.{field.name} "
            f"has {field.type!r}; declare {field.name}: Annotated[tuple[float, ...], "
            "bt.Range(low, high, length=3)]"
        )
    if kind not in (float, int, str, bool) or (space is None and kind is not bool):
        raise core.ParameterError(
            f"a parameter needs a type and a range, {cls.__name__}.{field.name} has "
            f"{field.type!r}; declare {field.name}: Annotated[float, bt.Range(low, high)]"
        )
    default = None if field.default is dataclasses.MISSING else field.default
    return Parameter(field.name, kind, space, default, is_table)


def check_conditions(
    cls: type[Parameterized],
    parameter: Parameter,
    parameters: Mapping[str, Parameter],
) -> None:
    """Require that the condition of a parameter can hold: ``when`` names another, and its values.

    That one may have a condition too, and so on: the chain of conditions must end at a parameter
    without one, and not lead back to one that is in it.
    """
    conditioned = parameter
    in_chain = [parameter.name]
    while conditioned.space is not None and conditioned.space.when is not None:
        name, values = conditioned.space.when
        allowed = [other for other in parameters if other not in in_chain]
        if name not in allowed:
            raise core.ParameterError(
                f"when must name another parameter, and not in a circle, "
                f"{cls.__name__}.{conditioned.name} has {name!r}{core.did_you_mean(name, allowed)}"
            )

        if not isinstance(values, tuple):
            values = (values,)
        for value in values:
            check_value(cls, parameters[name], value)

        conditioned = parameters[name]
        in_chain.append(name)


def check_settings(
    cls: type[Parameterized],
    settings: Mapping[str, object],
    n_positional: int | None = None,
) -> None:
    """Require that settings are parameters of a class, and none is missing.

    The first ``n_positional`` parameters were given by position, and need no setting. Where it is
    None, as for changes of a policy that is there, any may be missing.
    """
    fields = list_fields(cls)
    names = [field.name for field in fields]

    required: list[str] = []
    if n_positional is not None:
        if n_positional > len(fields):
            raise core.ParameterError(
                f"{cls.__name__} has {len(fields)} parameters ({', '.join(names)}), "
                f"got {n_positional}"
            )
        by_name = fields[n_positional:]
        required = [field.name for field in by_name if field.default is dataclasses.MISSING]
    core.check_names(cls.__name__, settings, names, required, noun="parameter")


def check_left_out(
    cls: type[Parameterized],
    args: Sequence[object],
    settings: Mapping[str, object],
) -> None:
    """Raise ParameterError if a parameter is given beside the one that replaces it.

    A copy with changes, or a policy that is read back, gives every parameter, as no caller does.
    """
    fields = list_fields(cls)
    names = [field.name for field in fields]
    positional = dict(zip(names, args, strict=False))
    values = {**positional, **settings}
    if len(values) == len(names):
        return

    # ``instead_of`` names, for a parameter, the one that replaces it where that is no default.
    for field in fields:
        if values.get(field.name, field.default) == field.default:
            continue
        for name, other in cls.instead_of.items():
            if other == field.name and name in values:
                raise core.ParameterError(
                    f"{cls.__name__}.{name} must be left out where {other} is given, got "
                    f"{values[name]}"
                )


def check_value(cls: type[Parameterized], parameter: Parameter, value: Any) -> object:
    """Return a value as it is held: of a list, a tuple of its numbers.

    Raises ParameterError if it is not of the kind, or not in the range, of the parameter.
    """
    if parameter.is_table:
        return check_table(cls, parameter, value)
    if not parameter.length:
        return check_one(cls, parameter, value)

    elements = parameter.list_elements()
    values = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(values, list | tuple) or len(values) != len(elements):
        raise core.ParameterError(
            f"{cls.__name__}.{parameter.name} must be {parameter.space}, got "
            f"{core.repr_plain(value):.60}"
        )
    pairs = zip(elements, values, strict=True)
    return tuple(check_one(cls, element, number) for element, number in pairs)


def check_table(cls: type[Parameterized], parameter: Parameter, value: Any) -> core.FrozenTable:
    """Return numbers by name as they are held; raise ParameterError for any other value."""
    if not isinstance(value, Mapping) or not value:
        raise core.ParameterError(
            f"{cls.__name__}.{parameter.name} must be numbers by name, each {parameter.space}, got "
            f"{core.repr_plain(value):.60}; {{'BTC': 0.7, 'ETH': 0.3}}, for example"
        )
    numbers = {}
    for name, number in value.items():
        element = parameter._replace(name=f"{parameter.name}.{name}", is_table=False)
        numbers[name] = check_one(cls, element, number)
    return core.FrozenTable(numbers)


def check_one(cls: type[Parameterized], parameter: Parameter, value: object) -> object:
    """Return one number, text or flag as it is held."""
    name = f"{cls.__name__}.{parameter.name}"
    if parameter.space is None or parameter.kind is bool:
        return core.Flag().check(name, value)

    is_whole = parameter.kind is int
    checked = parameter.space.check(name, value, whole=is_whole)
    if is_whole and isinstance(value, int | float) and abs(value) > LARGEST_INTEGER:
        raise core.ParameterError(
            f"{name} must be at most 2^53 in size, beyond which numbers are not exact, got {value}"
        )
    return checked


class QuotedText(str):
    """A text that an experiment file has in quotes: no number, unlike one at the command line."""

    __slots__ = ()


def refuse_quoted(cls: type[Parameterized], parameter: Parameter, value: object) -> None:
    """Raise ParameterError if a number or a flag, or one of a list, is in quotes."""
    elements = [value]
    if isinstance(value, list | tuple):
        elements = [*value]
    for text in elements:
        if isinstance(text, QuotedText) and parse_value(parameter, text) != text:
            noun = "true or false" if parameter.kind is bool else "a number"
            raise core.ParameterError(
                f"{cls.__name__}.{parameter.name} must be {noun}, got the text {str(text)!r}; "
                f"write {text} without quotes"
            )


def parse_value(parameter: Parameter, value: object) -> object:
    """Return what a text says: numbers of a list, a flag or a number; unchanged if it is neither.

    Values that are no text are returned as they are.
    """
    # A list: "(1, 2)" or "1,2", or a list of texts. Without a space a parameter is one number.
    if parameter.length and isinstance(value, str):
        parts = value.strip("()[] ").split(",")
        value = [part for part in parts if part.strip()]
    if parameter.length and isinstance(value, list | tuple):
        one = parameter._replace(space=None)
        return tuple(parse_value(one, part) for part in value)

    if not isinstance(value, str) or parameter.kind is str:
        return value
    if parameter.kind is bool:
        return {"true": True, "false": False}.get(value.lower(), value)
    try:
        return float(value)
    except ValueError:
        return value


def change_settings(policy: type[_T] | _T, changes: Mapping[str, Any]) -> _T:
    """Return a policy or rule with some settings changed; of a class, an instance.

    One that holds nothing but its settings is copied, and only the changes are checked.
    """
    if any("." in name for name in changes):
        changes = merge_elements(policy, changes)
    if isinstance(policy, type):
        return policy(**changes)

    # What a class checks or makes of its settings by itself must happen again.
    cls = type(policy)
    if not holds_settings_alone(policy):
        return cls(**{**policy.settings(), **changes})

    # A copy whose ``__init__`` is not called: what is not changed was checked before.
    declared = policy.parameters()
    checked = {name: check_value(cls, declared[name], value) for name, value in changes.items()}
    changed = object.__new__(cls)
    vars(changed).update({**vars(policy), **checked})
    return changed


def holds_settings_alone(policy: Parameterized) -> bool:
    """Return whether nothing is checked or made of settings but what their declarations say."""
    cls = type(policy)
    is_plain = (
        cls.__post_init__ is Parameterized.__post_init__ and cls.faults is Parameterized.faults
    )
    return is_plain and vars(policy).keys() == policy.parameters().keys()

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

TAKEN = frozenset((
    "combine", "fails_when", "faults", "from_settings", "limits", "make_formula",
    "may_hold_nothing", "observe", "option_orders", "over", "parameters", "parts", "policies",
    "promises", "settings", "start", "summary", "takes", "title", "tolerance", "venue_leverage",
    "written",
))  # fmt: skip


class Parameter(NamedTuple):
    name: str
    kind: type
    space: core.Range | core.Choice | None
    default: object
    is_table: bool = False
    """Whether it holds numbers by name, ``kind`` that of one: of rules of signals."""

    @property
    def length(self) -> int:
        """How many numbers a list has, 0 if it is none; ``kind`` is that of one."""
        return getattr(self.space, "length", 0)

    def list_elements(self) -> list[Parameter]:
        """Return its numbers as parameters, ``levels.0`` or ``budgets.BTC``, or itself."""
        if not isinstance(self.space, core.Range) or not (self.length or self.is_table):
            return [self]
        space, default = dataclasses.replace(self.space, length=0), self.default
        values: Any = [None] * self.length if default is None else default
        pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
        one = self._replace(space=space, is_table=False)
        return [one._replace(name=f"{self.name}.{k}", default=value) for k, value in pairs]


class Parameterized:
    """The base of frozen dataclasses whose fields are parameters with a range or a choice."""

    instead_of: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Parameters that are left out where another one is given, whose default is that it is not."""
    _has_tables: ClassVar[bool] = True
    """Whether a parameter may hold numbers by name: of rules of signals, not of policies."""

    def __post_init__(self) -> None:
        for parameter in self.parameters().values():
            value = check_value(type(self), parameter, getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)
        held = number_elements(self.settings())
        texts = [
            f"{type(self).__name__}.{name} {rule}, got {held.get(name, getattr(self, name, ''))}"
            for name, rule in self.faults()
        ]
        if texts:
            raise core.ParameterError("\n".join(texts))

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
        given = merge_elements(cls, settings)
        check_settings(cls, given)
        declared = cls.parameters()
        return cls(**{name: parse_value(declared[name], v) for name, v in given.items()})

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
        elements |= (
            {f"{name}.{k}": each for k, each in enumerate(value)}
            if isinstance(value, tuple)
            else {name: value}
        )
    return elements


def split_name(name: str) -> tuple[str, str]:
    """Return whose a parameter is, ``BTCUSDT`` or nothing, and its own name (``levels.0``)."""
    head, _, own = name.rpartition(".")
    if not own.isdecimal():
        return head, own
    head, _, field = head.rpartition(".")
    return head, f"{field}.{own}"


def merge_elements(owner: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes with lists and tables in the place of their numbers.

    The other numbers of one are those of ``owner``, or the defaults of a class.
    """
    declared, merged = owner.parameters(), dict(changes)
    for name in changes:
        field, _, place = name.partition(".")
        known = declared.get(field)
        if known is None or not place:
            continue
        held = None if isinstance(owner, type) else getattr(owner, field)
        if known.is_table:
            merged[field] = {**(merged.get(field) or held or {}), place: merged.pop(name)}
        elif place.isdecimal() and int(place) < known.length:
            values: Any = merged.get(field)
            if values is None:
                values = held or known.default or [None] * known.length
            given: Any = parse_value(known, values) if isinstance(values, str) else values
            merged[field] = [*given]
            merged[field][int(place)] = merged.pop(name)
    return merged


def write_value(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(write_value, value))}{',' * (len(value) == 1)})"
    return "float('inf')" if value == math.inf else repr(value)


def format_title(class_name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


def list_fields(cls: type[Parameterized]) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(cls):
        raise core.ParameterError(f"{cls.__name__} is a base class: derive a class from it")
    return dataclasses.fields(cls)


@functools.cache
def find_parameters(cls: type[Parameterized]) -> Mapping[str, Parameter]:
    declared, hints = list_fields(cls), typing.get_type_hints(cls, include_extras=True)
    parameters: dict[str, Parameter] = {}
    for field in declared:
        if field.name in TAKEN or field.name.startswith("_"):
            raise core.ParameterError(
                f"the name of a parameter must not be reserved or start with _, got "
                f"{cls.__name__}.{field.name}"
            )
        hint = hints[field.name]
        kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        space = next((note for note in notes if isinstance(note, (core.Range, core.Choice))), None)
        is_list = typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (Ellipsis,)
        is_table = typing.get_origin(kind) is Mapping and cls._has_tables
        kind = typing.get_args(kind)[1 if is_table else 0] if is_list or is_table else kind
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
        parameters[field.name] = Parameter(field.name, kind, space, default, is_table)
    for parameter in parameters.values():
        last, seen = parameter, [parameter.name]
        while last.space is not None and last.space.when is not None:
            name, values = last.space.when
            others = [other for other in parameters if other not in seen]
            if name not in others:
                raise core.ParameterError(
                    f"when must name another parameter, and not in a circle, "
                    f"{cls.__name__}.{last.name} has {name!r}{core.did_you_mean(name, others)}"
                )
            for value in values if isinstance(values, tuple) else (values,):
                check_value(cls, parameters[name], value)
            last = parameters[name]
            seen.append(name)
    return MappingProxyType(parameters)


def check_settings(
    cls: type[Parameterized], settings: Mapping[str, object], n_positional: int | None = None
) -> None:
    declared = list_fields(cls)
    known = [field.name for field in declared]
    rest = () if n_positional is None else declared[n_positional:]
    if n_positional is not None and n_positional > len(declared):
        taken = f"{len(declared)} parameters ({', '.join(known)})"
        raise core.ParameterError(f"{cls.__name__} has {taken}, got {n_positional}")
    needed = [field.name for field in rest if field.default is dataclasses.MISSING]
    core.check_names(cls.__name__, settings, known, needed, noun="parameter")


def check_left_out(
    cls: type[Parameterized], args: Sequence[object], settings: Mapping[str, object]
) -> None:
    """Raise ParameterError if a parameter is given beside the one that replaces it.

    A copy with changes, or a policy that is read back, gives every parameter, as no caller does.
    """
    fields = list_fields(cls)
    names = [field.name for field in fields]
    given = dict(zip(names, args, strict=False)) | dict(settings)
    if len(given) == len(names):
        return
    for field in fields:
        for name in [name for name, other in cls.instead_of.items() if other == field.name]:
            if name in given and given.get(field.name, field.default) != field.default:
                raise core.ParameterError(
                    f"{cls.__name__}.{name} must be left out where {field.name} is given, got "
                    f"{given[name]}"
                )


def check_value(cls: type[Parameterized], parameter: Parameter, value: Any) -> object:
    """Return a value as it is held: of a list, a tuple of its numbers."""
    if parameter.is_table and isinstance(value, Mapping) and value:
        one = parameter._replace(is_table=False)
        parts = {k: one._replace(name=f"{one.name}.{k}") for k in value}
        return core.FrozenTable({k: check_one(cls, parts[k], value[k]) for k in value})
    if parameter.is_table:
        raise core.ParameterError(
            f"{cls.__name__}.{parameter.name} must be numbers by name, each {parameter.space}, got "
            f"{core.repr_plain(value):.60}; {{'BTC': 0.7, 'ETH': 0.3}}, for example"
        )
    if not parameter.length:
        return check_one(cls, parameter, value)
    elements = parameter.list_elements()
    values = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(values, list | tuple) or len(values) != len(elements):
        raise core.ParameterError(
            f"{cls.__name__}.{parameter.name} must be {parameter.space}, got "
            f"{core.repr_plain(value):.60}"
        )
    return tuple(check_one(cls, *each) for each in zip(elements, values, strict=True))


def check_one(cls: type[Parameterized], parameter: Parameter, value: object) -> object:
    name = f"{cls.__name__}.{parameter.name}"
    if parameter.space is None or parameter.kind is bool:
        return core.Flag().check(name, value)
    checked = parameter.space.check(name, value, whole=parameter.kind is int)
    if parameter.kind is int and isinstance(value, int | float) and abs(value) > LARGEST_INTEGER:
        raise core.ParameterError(
            f"{name} must be at most 2^53 in size, beyond which numbers are not exact, got {value}"
        )
    return checked


def parse_value(parameter: Parameter, value: object) -> object:
    if parameter.length and isinstance(value, str):
        value = [each for each in value.strip("()[] ").split(",") if each.strip()]
    if parameter.length and isinstance(value, list | tuple):
        return tuple(parse_value(parameter._replace(space=None), each) for each in value)
    if not isinstance(value, str) or parameter.kind is str:
        return value
    if parameter.kind is bool:
        return {"true": True, "false": False}.get(value.lower(), value)
    try:
        return float(value)
    except ValueError:
        return value


def change_settings(given: type[_T] | _T, changes: Mapping[str, Any]) -> _T:
    """Return a policy or rule with some settings changed.

    One that holds nothing but its settings is copied, and only the changes are checked.
    """
    if any("." in name for name in changes):
        changes = merge_elements(given, changes)
    if isinstance(given, type):
        return given(**changes)
    cls, held, declared = type(given), vars(given), given.parameters()
    is_checked = cls.__post_init__ is Parameterized.__post_init__ and (
        cls.faults is Parameterized.faults
    )
    if held.keys() != declared.keys() or not is_checked:
        return cls(**{**given.settings(), **changes})
    changed = object.__new__(cls)
    checked = {name: check_value(cls, declared[name], value) for name, value in changes.items()}
    vars(changed).update({**held, **checked})
    return changed

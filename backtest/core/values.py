"""Declared values such as Venue and Account: frozen, checked whole, compared by their content.

A class is declared once: its fields with their types, and the rules between them in ``faults``.
All faults of a value come as one ParameterError with a line each, ``account.band: must be at least
0, got -1``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property, partial, wraps
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pydantic_core
from pydantic_core import ArgsKwargs, PydanticCustomError, ValidationError, core_schema

from backtest.core.checked_calls import checked
from backtest.core.code_names import is_series, pd
from backtest.core.errors import ParameterError, did_you_mean
from backtest.core.fields import Declaration, FloatSeries
from backtest.core.json_values import PLAIN, WORDS, repr_given, to_plain
from backtest.core.moments import read_stamps
from backtest.core.number_text import format_setting
from backtest.core.units import SECOND, utc_index

Faults: TypeAlias = Iterator[tuple[str, str]]
"""Dotted names of fields, and the rule that each breaks: ``"tiers.1.volume", "must be ..."``."""
MAX_LINES = 12
"""Faults that an error lists; the brackets of a venue may break one rule each."""


class AsTuple:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(tuple, handler(source))


AS_TUPLE = AsTuple()


@cache
def find_validator(cls: type[Any]) -> Any:
    """Return what reads a class from arguments or a table; it is built at the first use."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - loads much

    return TypeAdapter(cls).validator


@typing.dataclass_transform(frozen_default=True, eq_default=False)
class Value:
    """A frozen dataclass that is checked, equal, hashed, printed and stored by its content.

    A field declared as ``Annotated[type, declaration]`` is read by the declaration. A field that is
    a Value may be given as a table of its fields.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "arbitrary_types_allowed": True}
    _omitted: ClassVar[frozenset[str]] = frozenset()
    """Fields that are stored only if they are not at their default."""
    _refused: ClassVar[Mapping[str, str]] = {}
    """Names that are no fields, and why."""

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        made: Any = dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=kw_only)(cls)

        @wraps(made.__init__)
        def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807 - of the class
            try:
                find_validator(made).validate_python(ArgsKwargs(args, given), self_instance=self)
            except ValidationError as error:
                raise explain(error, cls) from None

        made.__init__ = __init__

    def __post_init__(self) -> None:
        """Check the rules that span fields; ValidationError lists all that are broken."""
        faults: list[pydantic_core.InitErrorDetails] = []
        for name, rule in self.faults():
            place = _split_place(name)
            problem = PydanticCustomError("rule", "{rule}", {"rule": rule})
            faults.append({"type": problem, "loc": place, "input": self._find_at(place)})

        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        self._settle()

    def _find_at(self, place: tuple[int | str, ...]) -> Any:
        """Return what stands at a place: an entry of tables and lists, a field of values."""
        value: Any = self
        for part in place:
            if isinstance(value, Mapping | Sequence):
                value = value[part]  # type: ignore[index] # of a table or a list
            else:
                value = getattr(value, str(part))
        return value

    def faults(self) -> Faults:
        """Yield each broken rule between fields: the dotted name of a field, and the rule."""
        yield from ()

    def _settle(self) -> None:
        """Set fields that follow from others, once the rules hold."""

    def _set_fields(self, **checked: object) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        theirs = _content(other)
        return all(_is_same(value, theirs[name]) for name, value in _content(self).items())

    def __hash__(self) -> int:
        return hash((type(self).__name__, *map(_hashable, _content(self).values())))

    def __repr__(self) -> str:
        parts = []
        for field in _fields(self):
            value = getattr(self, field.name)
            if not _is_default(field, value):
                parts.append(f"{field.name}={_text(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[object, ...]:
        # Copies and other processes construct it anew, so that their series are read-only too.
        return partial(type(self), **_content(self)), ()

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        return changes

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as data for JSON or TOML; infinity is ``"inf"``, None is left out.

        So are the defaults of :attr:`_omitted` fields.
        """
        data = {}
        for field in _fields(self):
            value = getattr(self, field.name)
            is_omitted = field.name in self._omitted and _is_default(field, value)
            if value is not None and not is_omitted:
                data[field.name] = _plain(value)
        return data

    @cached_property
    def _plain_text(self) -> str:
        return json.dumps(to_plain(self.to_dict()))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "") -> Self:
        """Return the value that :meth:`to_dict` wrote; nothing in the data is executed.

        Parameters
        ----------
        data : Mapping
            One entry per field; absent ones take their defaults.
        where : str
            The dotted name of the table for messages. Default: the name of the class.

        Raises
        ------
        ParameterError
            If an entry is unknown, missing, of the wrong shape, or breaks a rule of the value. All
            faults are listed.
        """
        if not isinstance(data, Mapping):
            names = ", ".join(field.name for field in _fields(cls))
            raise ParameterError(
                f"{where or name_place(cls)}: must be a table of {names}, got {repr_given(data)}"
            )

        content = {}
        try:
            for name, entry in data.items():
                content[str(name)] = read_plain(entry)
            return find_validator(cls).validate_python(content)  # type: ignore[no-any-return, arg-type]
        except ParameterError as error:
            raise ParameterError(f"{where or name_place(cls)}.{name}: {error}") from error
        except ValidationError as error:
            raise explain(error, cls, where) from None

    @checked
    def override(self, changes: Mapping[str, object] | None = None, /, **groups: object) -> Self:
        """Return the value with some of its content changed, and checked again.

        Parameters
        ----------
        changes : Mapping, optional
            New values by name; a dot leads into a part: ``{"fees.taker": 0.0004}``.
        **groups
            The same by keyword; a part may be given as a table of what changes in it:
            ``fees={"taker": 0.0004}``.

        Raises
        ------
        ParameterError
            If a name is unknown or given twice, or a value breaks a rule.
        """
        nested: dict[str, Any] = {}
        for name, entry in [*(changes or {}).items(), *groups.items()]:
            _put(nested, str(name).split("."), entry)
        try:
            content = {**_content(self), **_merge(self, nested)}
            return find_validator(type(self)).validate_python(content)  # type: ignore[no-any-return, arg-type]
        except ValidationError as error:
            raise explain(error, type(self)) from None


def _split_place(name: str) -> tuple[int | str, ...]:
    """Return the parts of a dotted name; those of digits are places in lists."""
    place: list[int | str] = []
    for part in name.split("."):
        if part.isdecimal():
            place.append(int(part))
        else:
            place.append(part)
    return tuple(place)


def _put(nested: dict[str, Any], names: list[str], entry: Any) -> None:
    """Write a change at a dotted name into ``nested``, tables in tables by name.

    ``names`` are the parts of the dotted name: ``["fees", "taker"]``. A change that is a table goes
    into the table at that name. Raises ParameterError if a name is changed twice.
    """
    head, *below = names
    # A value at the last name.
    if not below and not isinstance(entry, Mapping):
        if head in nested:
            raise _refuse_second(head)
        nested[head] = entry
        return

    # A table at this name, which may be there already; a value there was another change of it.
    table = nested.setdefault(head, {})
    if not isinstance(table, dict):
        raise _refuse_second(head)
    if below:
        _put(table, below, entry)
        return
    names_in_both = set(table) & set(entry)
    if names_in_both:
        raise _refuse_second(head)
    table.update(entry)


def _refuse_second(name: str) -> ParameterError:
    return ParameterError(f"{name}: must be changed once, was given twice")


def _merge(held: Value, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changed fields of a value, each with all of its content after the change.

    ``changes`` have an entry for each field to change. An entry that is a table goes into what the
    field holds, a part or a table of names: what it does not name there stays. Anything else
    replaces the field.
    """
    declarations = find_declarations(type(held))  # type: ignore[arg-type] # classes do hash
    parts = _find_parts(type(held))  # type: ignore[arg-type]
    merged: dict[str, Any] = {}
    for name, entry in held._complete_changes(dict(changes)).items():
        content = getattr(held, name, None)
        if not isinstance(entry, Mapping) or not isinstance(content, Value | FrozenTable):
            merged[name] = read_plain(entry)

        # Other names of a table stay, but a table that is one setting is replaced.
        elif isinstance(content, FrozenTable):
            table = dict(read_plain(entry))
            has_other_names = getattr(declarations.get(name), "is_table", False)
            merged[name] = {**content, **table} if has_other_names else table

        # A part is made again by the class of its field, or keeps its own.
        elif parts.get(name) is type(content):
            merged[name] = {**_content(content), **_merge(content, entry)}
        else:
            merged[name] = content.override(entry)
    return merged


def _fields(value: object) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(value)  # type: ignore[arg-type] # every class of values is declared


def _content(value: Value) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in _fields(value)}


def list_changed(value: Value, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted names and texts of what is not at its default, also in parts."""
    for field in _fields(value):
        held = getattr(value, field.name)
        if isinstance(held, Value):
            yield from list_changed(held, f"{place}{field.name}.")
        elif not _is_default(field, held):
            yield f"{place}{field.name}", format_setting(_plain(held))


def explain(error: ValidationError, cls: type[Any], where: str = "") -> ParameterError:
    """Return the faults that pydantic found in a value as one error, a line each, without repeats.

    ``cls`` is the class of the value; ``where`` names it in messages, by default by its class.
    """
    positional = [field.name for field in _fields(cls) if not field.kw_only]
    head = where or name_place(cls)
    faults: list[Any] = error.errors(include_url=False)
    lines: dict[str, None] = {}
    for fault in faults:
        # The place of a fault: names of fields and numbers of entries, from the outside in.
        place = list(fault["loc"])
        if place and isinstance(place[0], int) and place[0] < len(positional):
            place[0] = positional[place[0]]  # given by its position
        if fault["type"] == "unexpected_positional_argument":
            place = []

        base = ".".join([head, *map(str, place)])
        line = _explain_fault(fault, cls, place, base)
        lines[line] = None

    shown = [*lines][:MAX_LINES]
    if len(lines) > MAX_LINES:
        shown.append(f"and {len(lines) - MAX_LINES} more")
    return ParameterError("\n".join(shown))


def _explain_fault(fault: Any, cls: type[Any], place: Sequence[object], base: str) -> str:
    """Return the lines of one fault; one of a value inside has lines of its own."""
    if fault["type"] == "inner":
        return "\n".join(_move_inside(fault["ctx"]["text"], base))
    rule, got = find_rule(fault, cls, place)
    if got:
        return f"{base}: {rule}, got {got}"
    return f"{base}: {rule}"


def _move_inside(text: str, base: str) -> Iterator[str]:
    """Yield the lines of an inner error, each with the place of its value before it."""
    first, *others = text.splitlines()
    if not INNER.match(first):
        first = f"it: {first}"
    for line in (first, *others):
        match = INNER.match(line)
        if match:
            yield f"{base}{match[1]}: {line[match.end() :]}"
        else:
            yield line


INNER = re.compile(r"^\w+((?:\.\w+)*): ")
"""The place of a fault in a value that a declaration reads: its class, and fields below it."""


def find_rule(fault: Any, cls: type[Any], place: Sequence[object]) -> tuple[str, str]:
    """Return the rule that a fault of pydantic breaks, and what was found there, as texts.

    ``place`` has the names of fields and the numbers of entries from the outside in; ``cls`` is the
    class of the whole value. What was found is "" where that says nothing.
    """
    # The class of the part in which the fault is.
    owner = cls
    for part in place[:-1]:
        owner = _find_parts(owner).get(str(part), owner)  # type: ignore[arg-type] # classes do hash

    # By the kinds of pydantic; what has no case here has its own text.
    context = fault.get("ctx", {})
    got = repr_given(fault["input"])
    match fault["type"]:
        case "rule":
            return fault["msg"], context.get("found") or got
        case "unexpected_keyword_argument":
            return _explain_unknown(owner, str(place[-1])), ""
        case "unexpected_positional_argument":
            count = sum(not field.kw_only for field in _fields(cls))
            if count:
                return f"accepts {count} positional values", got
            first = _fields(cls)[0].name
            return f"accepts no positional value: write {cls.__name__}({first}=...)", got
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return "is needed", ""
        case "dataclass_type":
            kind = context["class_name"]
            article = "an" if kind[0] in "AEIO" else "a"
            return f"must be {article} {kind} or a table of its fields", got
        case "is_instance_of" | "sequence_str":
            return "must be a list", got

    if fault["type"] == "value_error":  # raised by code of the user's, which says it all
        got = ""
    rule = str(fault["msg"]).replace("Input should be", "must be")
    return rule, got


def _explain_unknown(owner: Any, name: str) -> str:
    """Return why a name is no field of a class: a reason of its own, or the nearest field."""
    known = [field.name for field in _fields(owner)]
    near = did_you_mean(name, known) or f"; known are {', '.join(known)}"
    return owner._refused.get(name) or f"{owner.__name__} has no such field{near}"


def name_place(cls: type[Any]) -> str:
    """Return the name of a class as in a table of settings: ``fee_tier`` of ``FeeTier``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


@cache
def find_declarations(cls: type[Any]) -> dict[str, Declaration]:
    """Return the declarations of the fields of a class, without those of its parts."""
    declarations = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if typing.get_origin(hint) is Annotated:
            declaration = hint.__metadata__[0]
            if isinstance(declaration, Declaration):
                declarations[name] = declaration
    return declarations


@cache
def _find_parts(cls: type[Any]) -> dict[str, type[Value]]:
    """Return the fields of a class that are values themselves, with their classes."""
    parts = {}
    for name, hint in typing.get_type_hints(cls).items():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, Value):
                parts[name] = part
    return parts


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and bool(_hashable(one) == _hashable(other))


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    return field.default is not dataclasses.MISSING and _is_same(field.default, value)


def _hashable(value: object) -> object:
    if is_series(value):
        return (pd.DatetimeIndex(value.index).asi8.tobytes(), value.to_numpy().tobytes())
    return value


def _write_times(series: FloatSeries) -> list[str]:
    """Return the times of a series as texts, in nanoseconds if they are not whole seconds."""
    times = pd.DatetimeIndex(series.index).asi8
    stamps = times.view("datetime64[ns]")
    unit: Any = "s"
    if (times % SECOND).any():
        unit = "ns"
    return [*map(str, np.datetime_as_string(stamps, unit=unit))]


def describe_value(value: Value) -> dict[str, Any]:
    """Return what ``to_dict`` does as plain data, in containers of its own; it is written once."""
    described: dict[str, Any] = json.loads(value._plain_text)
    return described


def _text(value: object) -> str:
    if is_series(value):
        index = f"pd.DatetimeIndex({_write_times(value)!r}, tz='UTC')"
        return f"pd.Series({value.tolist()!r}, index={index})"
    return repr(value)


def _plain(value: object) -> object:
    """Return a held value as data for JSON or TOML."""
    if type(value) in PLAIN:  # most of what is held
        return value
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, tuple):
        return [*map(_plain, value)]
    if isinstance(value, FrozenTable):
        return {name: _plain(item) for name, item in value.items()}
    if is_series(value):
        stamps = [f"{text}Z" for text in _write_times(value)]
        return {"time": stamps, "value": [*map(_plain, value.tolist())]}

    # JSON has no number for them.
    if value in (math.inf, -math.inf):
        return str(value)
    return value


def read_plain(entry: Any) -> Any:
    """Return data of TOML or JSON with series and infinities in the place of their texts."""
    if isinstance(entry, Mapping):
        if {"time", "value"} == set(entry):
            return _read_series(entry)
        return {name: read_plain(item) for name, item in entry.items()}

    # A named tuple is a value of the program, not data.
    if isinstance(entry, tuple) and not hasattr(entry, "_fields"):
        return tuple(map(read_plain, entry))
    if isinstance(entry, list):
        return [*map(read_plain, entry)]
    if isinstance(entry, str):
        return WORDS.get(entry, entry)
    return entry


def _read_series(entry: Mapping[str, Any]) -> FloatSeries:
    """Return the series of a table with ``time`` and ``value``."""
    times = entry["time"]
    values = entry["value"]
    are_lists = isinstance(times, list) and isinstance(values, list)
    if not are_lists or len(times) != len(values):
        raise ParameterError(
            "a series must be a table of two lists of one length, time and value, "
            f"got {dict(entry)!r:.80}"
        )

    texts = pd.Series(times, dtype=object)
    stamps = read_stamps(texts, name="a series", timezone="UTC", error=ParameterError)
    return pd.Series([*map(read_plain, values)], index=utc_index(stamps))


ArrayT = TypeVar("ArrayT", bound="npt.NDArray[Any]")


def freeze(array: ArrayT) -> ArrayT:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if array.flags.c_contiguous and not array.flags.writeable and isinstance(base, bytes):
        return array
    frozen: Any = np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)
    return frozen  # type: ignore[no-any-return]


class FrozenTable(Mapping[str, Any]):
    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenTable):
            return NotImplemented
        return list(self._entries.items()) == list(other._entries.items())

    def __hash__(self) -> int:
        return hash(tuple(self._entries.items()))

    def __repr__(self) -> str:
        return repr(self._entries)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._entries,)


def pick_value(value: Any, name: str) -> Any:
    """Return the value of a name, or the one value of all."""
    if isinstance(value, Mapping):
        return value[name]
    return value


def list_values(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value.values()]
    return [value]


def float_if_single(values: npt.NDArray[np.float64]) -> Any:
    if values.ndim:
        return values
    return float(values)

"""The base class of policies, with their parameters, columns and memory."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import keyword
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np

from backtest import core
from backtest._compile.bytecode import LARGEST_INTEGER, rewrite_formula
from backtest.core import checked
from backtest.core.code_names import is_series, pd

Columns: TypeAlias = Mapping[str, core.FloatArray]
_T = TypeVar("_T", bound="Parameterized")

BAR_FIELDS = ("time", "open", "high", "low", "close", "mark", "volume", "funding")

TAKEN = frozenset((
    "combine", "fails_when", "faults", "from_settings", "limits", "make_formula",
    "may_hold_nothing", "observe", "option_orders", "over", "parameters", "parts", "policies",
    "promises", "settings", "start", "summary", "takes", "title", "tolerance", "venue_leverage",
    "written",
))  # fmt: skip
ARGUMENTS = {"venue_leverage": "self, bar, account", "option_orders": "self, bar, account, chain"}


class Bar:
    """The closed bar a policy decides on; it also has the policy's own columns.

    ``time`` is the open in seconds since 1970, UTC, prices in quote currency, ``mark`` the mark
    close, ``funding`` the last settled funding rate (NaN before the first).

    A formula may also read ``stop_distance``: how far the nearest of stop-loss and trailing stop
    would be from an entry at this close with slippage, as a fraction of its price (NaN where a
    column gives none); and ``slippage`` and ``taker``, the rates of the venue. An account without a
    stop is refused then.
    """

    time: float
    open: float
    high: float
    low: float
    close: float
    mark: float
    volume: float
    funding: float
    stop_distance: float
    slippage: float
    taker: float

    def __getattr__(self, name: str) -> float:
        raise AttributeError(name)


class Promise(NamedTuple):
    """What a policy promises of an account: a measure at most, at least or about a bound.

    ``measure`` is one of a run, ``lowest_unit`` (the lowest unit value at a close) or
    ``margin_ratio_twice`` (the highest that two closes in a row reached, of the equity).
    ``tolerance`` is a share of the bound. With a ``horizon`` in bars: ``es_99`` or ``var_99`` of
    returns over it, or the probability of ``liquidations`` within it. The report judges them.
    """

    name: str
    measure: str
    bound: float
    tolerance: float
    rule: Literal["at most", "at least", "about"] = "at most"
    horizon: float = 0.0

    def limit(self) -> Promise:
        """Return what is left of it with less leverage: no more than what was about the bound."""
        return self._replace(rule="at most") if self.rule == "about" else self


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


@typing.dataclass_transform(frozen_default=True)
class Policy(Parameterized):
    """The base of all policies; a subclass becomes a frozen dataclass of its parameters.

    Declare parameters as ``name: Annotated[float, Range(low, high, unit)] = default`` (or int with
    a Range, str with a Choice, or bool, or ``tuple[float, ...]`` with a Range that has a length:
    the numbers of ``levels`` are ``levels.0`` and so on in sweeps). What must hold between them is
    said by ``faults(self)``, which yields a name and a rule, ``("levels.1", "must be below
    levels.0")``. Define ``leverage(self, bar, account)``. A policy with
    memory also defines ``start(self)``, which returns a NamedTuple of floats, and takes and returns
    it: ``leverage(self, bar, account, memory) -> (leverage, memory)``.

    A policy may also define ``venue_leverage(self, bar, account)``: the leverage setting of an
    isolated position from the next open on, to which its margin is brought. NaN leaves it alone.
    One that trades options defines ``option_orders(self, bar, account, chain)``: the contracts to
    hold after the next open, ``{leg: (contract, quantity)}``; ``chain`` has those that are listed.
    ParameterError is raised if a parameter is unknown, out of range or of the wrong type.
    """

    fails_when: ClassVar[str] = ""
    """In one sentence, the market in which the rule does badly; optional."""
    charts: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Columns of ``observe`` that the page of a run draws, each with a sentence; optional."""
    takes_arrays: ClassVar[bool] = False
    """Whether ``observe`` also takes numbers of shape (k,), or prices of shape (n_bars, k).

    It then returns (n_bars, k): sweeps observe 64 sets at once, simulated paths 32. Said by the
    class that defines ``observe``."""
    may_hold_nothing: ClassVar[bool] = False
    """Whether ``backtest check`` passes where the policy held nothing in any account."""
    tolerance: ClassVar[float] = 1e-9
    """Share of a column's value by which later bars may change it, as rounding does.

    Columns computed by FFT or in single precision declare 1e-4, for example."""

    def __init_subclass__(cls) -> None:
        if isinstance(vars(cls).get("__init__"), FunctionType):
            raise core.PolicyError(
                f"a policy must not define __init__, {cls.__name__} does; its parameters are "
                "fields of the class: window: Annotated[int, bt.Range(1, 1000, 'bars')] = 24"
            )
        for name, taken in ARGUMENTS.items():
            rule = vars(cls).get(name)
            given = ", ".join(inspect.signature(rule).parameters) if callable(rule) else repr(rule)
            if rule is not None and given.count(",") != taken.count(","):
                raise core.PolicyError(
                    f"{cls.__name__}.{name} must be a plain method with the arguments ({taken}), "
                    f"got ({given})"
                )
        if "leverage" in vars(cls).get("__annotations__", {}) and "leverage" not in vars(cls):
            bare: Any = dataclasses.field()  # or it would inherit the formula as its default
            setattr(cls, "leverage", bare)  # noqa: B010 - a method for the type checker
        freeze(cls)

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    def observe(self, market: Any) -> Columns:  # noqa: ARG002 - for subclasses
        """Return named columns of shape (n_bars,), each value known at its bar's close."""
        return {}

    def promises(self) -> tuple[Promise, ...]:
        """Return what holds of an account that follows it, for the table of the report."""
        return ()

    def leverage(self, *_: Any, **__: Any) -> Any:
        """Return the target leverage, at least 0; NaN keeps the position unchanged.

        A subclass takes ``(self, bar, account)``, or ``(self, bar, account, memory)``.
        """
        raise core.PolicyError(
            f"a policy must define leverage, {type(self).__name__} does not; add "
            "def leverage(self, bar, account): return 1.0"
        )


def format_title(class_name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


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


def formula_of(cls: type[Policy]) -> Callable[..., Any]:
    if any(field.name == "leverage" for field in dataclasses.fields(cls)):  # type: ignore[arg-type]
        return return_parameter
    rule: Any = inspect.getattr_static(cls, "leverage")
    fault = find_rule_fault(rule, 3 + hasattr(cls, "start"))
    if fault and rule is not Policy.leverage and not hasattr(cls, "make_formula"):
        raise core.PolicyError(
            f"{cls.__name__}.leverage must be an undecorated method (it is compiled anyway) with "
            f"the arguments (self, bar, account{', memory' * hasattr(cls, 'start')}), got {fault}"
        )
    formula: Callable[..., Any] = rule
    return formula


@functools.cache
def find_rule_fault(rule: Any, n: int) -> str:
    """Return why something is no method that returns a number for ``n`` arguments, or nothing."""
    if not isinstance(rule, FunctionType):
        return repr(rule)
    odd = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_odd(rule) for is_odd in odd):
        return "one that is async or yields"
    taken = inspect.signature(rule, follow_wrapped=False).parameters.values()
    needed = [each for each in taken if each.default is each.empty]
    n_most = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in taken)
    return "" if len(needed) <= n <= n_most else str(inspect.signature(rule))


def formula_for(policy: Policy, columns: tuple[str, ...]) -> Any:
    made = getattr(policy, "make_formula", None)
    return rewrite_formula(formula_of(type(policy)) if made is None else made(columns))


def margin_formula_for(policy: Policy, columns: tuple[str, ...]) -> Any:
    made = getattr(policy, "make_margin_formula", None)
    own = getattr(type(policy), "venue_leverage", None)
    return rewrite_formula(own if made is None else made(columns))


def sets_margin(given: object) -> bool:
    return defines(given, "venue_leverage")


def trades_options(given: object) -> bool:
    return defines(given, "option_orders")


def defines(given: object, method: str) -> bool:
    if isinstance(given, Mapping):
        return any(defines(each, method) for each in given.values())
    cls = given if isinstance(given, type) else type(given)
    if not issubclass(cls, Policy):
        return False
    parts = getattr(cls, "parts", ())
    return hasattr(cls, method) or any(defines(each.policy, method) for each in parts)


def return_parameter(self: Any, bar: Any, account: Any) -> Any:  # noqa: ARG001 - the signature of a formula
    return self.leverage


def start_memory(policy: Policy) -> Any:
    if not hasattr(policy, "start"):
        return None
    name = f"{type(policy).__name__}.start"
    try:
        memory = policy.start()
    except core.RAISED as error:
        raise core.PolicyError(f"{name} raised {type(error).__name__}: {error}") from error
    is_named = isinstance(memory, tuple) and bool(getattr(memory, "_fields", ()))
    numbers = (int, float, np.number)
    if not is_named or not all(isinstance(value, numbers) for value in memory):
        raise core.PolicyError(
            f"{name} must return a NamedTuple of floats, returned {core.repr_plain(memory)}; for "
            "example Memory(peak=0.0) of class Memory(NamedTuple): peak: float"
        )
    return memory


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
        is_table = typing.get_origin(kind) is Mapping and not issubclass(cls, Policy)
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


def check_columns(policy: Policy, columns: object, n_bars: int) -> dict[str, core.FloatArray]:
    own = f"{type(policy).__name__}.observe"
    if not isinstance(columns, Mapping):
        kind = type(columns).__name__
        raise core.PolicyError(f'{own} must return columns, {{"sigma": array}}, returned {kind}')
    checked = {}
    for name, given in columns.items():
        word = str(name)
        is_word = word.isidentifier() and not keyword.iskeyword(word) and word[0] != "_"
        if not is_word or name in BAR_FIELDS:
            raise core.PolicyError(
                f"a column of {own} must be named by an identifier other than "
                f"{', '.join(BAR_FIELDS)}, got {name!r}"
            )
        column = core.by_dates(given)
        is_by_bars = not is_series(column) or (
            isinstance(column.index, pd.DatetimeIndex | pd.RangeIndex)
            and column.index.is_monotonic_increasing
        )
        if not is_by_bars:
            raise core.PolicyError(
                f"column {name!r} of {own} must be an array, or a Series by market.times, was by "
                f"{type(column.index).__name__}; pd.Series(values, index=market.times)"
            )
        try:
            array = np.ascontiguousarray(core.to_real(column))
            kind = f"an array of shape {array.shape}"
        except (TypeError, ValueError):
            array, kind = np.empty(0), str(getattr(column, "dtype", type(column).__name__))
        if array.shape != (n_bars,):
            raise core.PolicyError(
                f"column {name!r} of {own} must be {n_bars} numbers, one per bar, got {kind}"
            )
        checked[str(name)] = array
    return checked


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

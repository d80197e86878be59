"""Parameter sets: what a sweep may vary, the run that one set describes, and checks of many."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from backtest.account import Account, Multiple, check_setting
from backtest.base import (
    BacktestError,
    BoolArray,
    Condition,
    Flag,
    FloatArray,
    FrozenTable,
    IntArray,
    ParameterError,
    Value,
    did_you_mean,
    find_declarations,
    pick_value,
)
from backtest.engine import SignalRule, change_rule
from backtest.market import Market, Markets
from backtest.policy import Policy
from backtest.venue import Venue

Venues: TypeAlias = Venue | Mapping[str, Venue]

Sets: TypeAlias = Mapping[str, np.ndarray]
"""Arrays of shape (n_sets,) by name: int64, bool, object, else float64 (NaN: the field is None)."""

MOST_CELLS = 1_000_000_000
"""Most values in a grid; more are treated as a mistake."""

SIGNAL = "signal."
"""The beginning of the names of parameters of a signal's rule."""

OVERLAY = "overlay"
RESERVED = ("account", "venue", "signal", OVERLAY)

_FIXED = ("contract.kind", "contract.expires", "contract.settles")

_T = TypeVar("_T")


class Setting(NamedTuple):
    name: str
    kind: type
    space: Any
    check: Callable[..., object]
    value: object
    may_be_none: bool

    @property
    def dtype(self) -> type:
        if self.kind is int:
            return np.float64 if self.may_be_none else np.int64
        if self.kind is float:
            return np.float64
        return np.bool_ if self.kind is bool else object

    @property
    def unit(self) -> str:
        return getattr(self.space, "unit", "")

    @property
    def condition(self) -> Condition:
        when: Condition = getattr(self.space, "when", None)
        head, dot, _ = self.name.rpartition(".")
        return when if when is None else (f"{head}{dot}{when[0]}", when[1])


class Trio(NamedTuple):
    policy: Any
    venue: Any
    account: Account


@dataclass(frozen=True, eq=False)
class BaseTerms:
    """The terms of a run that sets vary, and the run that one set describes.

    ``names`` are the instruments whose policies may have parameters of their own.
    """

    policy: type[Policy] | Policy
    venue: Any
    account: Account
    signal: SignalRule | None = None
    names: tuple[str, ...] = ()
    overlay: Policy | None = None

    @property
    def policy_class(self) -> type[Policy]:
        return self.policy if isinstance(self.policy, type) else type(self.policy)

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """What may vary, by name."""
        own = [*list_parameters(self.policy)]
        of_each = (
            each._replace(name=f"{name}.{each.name}")
            for name in self.names
            if name not in RESERVED
            for each in own
        )
        settings = (
            *of_each,
            *own,
            *list_fields(self.account, "account"),
            *list_venues(self.venue),
            *(() if self.signal is None else list_parameters(self.signal, SIGNAL)),
            *(() if self.overlay is None else list_parameters(self.overlay, f"{OVERLAY}.")),
        )
        return {setting.name: setting for setting in settings}

    def has_own(self, names: Iterable[str]) -> bool:
        heads = {name.rpartition(".")[0] for name in names}
        return bool(heads & ({*self.names} - {*RESERVED} | {OVERLAY}))

    def build_trio(self, values: Mapping[str, Any]) -> Trio:
        policy: Any = self.build_policy(values)
        if any(find_own(values, name) for name in self.names):
            policy = {name: self.build_policy(find_values(values, name)) for name in self.names}
        return Trio(policy, self.build_venue(values), self.build_account(values))

    def build_policy(self, values: Mapping[str, Any]) -> Policy:
        own = {name: value for name, value in values.items() if "." not in name}
        held = self.policy.settings() if isinstance(self.policy, Policy) else {}
        return self.policy_class(**{**held, **self._read(own)})

    def build_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        own = find_own(values, OVERLAY)
        if self.overlay is None or not own:
            return self.overlay
        chosen = self._read(own, f"{OVERLAY}.")
        return type(self.overlay)(**{**self.overlay.settings(), **chosen})

    def build_signal(self, values: Mapping[str, Any]) -> SignalRule | None:
        if self.signal is None:
            return None
        return change_rule(self.signal, self._read(take_part(values, SIGNAL), SIGNAL))

    def build_account(self, values: Mapping[str, Any]) -> Account:
        changes = self._read(take_part(values, "account."), "account.")
        return self.account.override(changes) if changes else self.account

    def build_venue(self, values: Mapping[str, Any]) -> Any:
        changes = self._read(take_part(values, "venue."), "venue.")
        if not changes:
            return self.venue
        if isinstance(self.venue, Venue):
            return self.venue.override(changes)
        return {name: each.override(changes) for name, each in self.venue.items()}

    def _read(self, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        return {k: to_plain_value(self.settings[f"{prefix}{k}"], v) for k, v in values.items()}


def list_parameters(
    owner: type[Policy] | Policy | SignalRule, prefix: str = ""
) -> Iterator[Setting]:
    for each in owner.parameters().values():
        space: Any = Flag() if each.space is None else each.space
        check = partial(space.check, whole=True) if each.kind is int else space.check
        default = dataclasses.MISSING if each.default is None else each.default
        value = default if isinstance(owner, type) else getattr(owner, each.name)
        yield Setting(f"{prefix}{each.name}", each.kind, space, check, value, may_be_none=False)


def list_venues(venue: Venues) -> Iterator[Setting]:
    if isinstance(venue, Venue):
        yield from list_fields(venue, "venue")
        return
    found = [{each.name: each for each in list_fields(own, "venue")} for own in venue.values()]
    for name, setting in found[0].items():
        if all(name in each for each in found):
            values = {key: each[name].value for key, each in zip(venue, found, strict=True)}
            is_same = len({repr(value) for value in values.values()}) == 1
            yield setting if is_same else setting._replace(value=FrozenTable(values))


def list_fields(value: Value, prefix: str) -> Iterator[Setting]:
    declarations = find_declarations(type(value))  # type: ignore[arg-type] # classes do hash
    for each in dataclasses.fields(value):  # type: ignore[arg-type] # every class is declared
        space = declarations.get(each.name)
        name, content = f"{prefix}.{each.name}", getattr(value, each.name)
        if space is None and isinstance(content, Value) and each.default is not None:
            yield from list_fields(content, name)
        elif space is not None and getattr(space, "constant", True) and not name.endswith(_FIXED):
            yield Setting(name, space.kind, space, space.check, content, each.default is None)
            if isinstance(content, Value):
                yield from list_fields(content, name)


def suggest_name(name: str, known: Mapping[str, object]) -> str:
    same = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
    return did_you_mean(name, same) or did_you_mean(name, known)


def find_own(values: Mapping[str, _T], owner: str) -> dict[str, _T]:
    if owner in RESERVED and owner != OVERLAY:
        return {}
    split = ((name.rpartition("."), value) for name, value in values.items())
    return {own: value for (head, _, own), value in split if head == owner}


def find_values(values: Mapping[str, _T], owner: str) -> dict[str, _T]:
    return {**values, **({} if owner == OVERLAY else find_own(values, owner))}


def take_part(values: Mapping[str, _T], prefix: str) -> dict[str, _T]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def to_plain_value(setting: Setting, value: object) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    if setting.may_be_none and isinstance(value, float) and math.isnan(value):
        return None
    return value


def names_signal(names: Iterable[str]) -> bool:
    return any(name.startswith(SIGNAL) for name in names)


def list_names(market: Market | Markets) -> tuple[str, ...]:
    return market.names if isinstance(market, Markets) else ()


def count_sets(sets: Sets) -> int:
    return len(next(iter(sets.values())))


def take_sets(sets: Sets, rows: int | slice | np.ndarray) -> dict[str, Any]:
    return {name: values[rows] for name, values in sets.items()}


def find_codes(values: np.ndarray) -> IntArray:
    if values.dtype == object:
        places: dict[str, int] = {}
        return np.array([places.setdefault(repr(value), len(places)) for value in values.tolist()])
    found: IntArray = np.unique(values, return_inverse=True)[1]
    return found


def number_rows(columns: Iterable[np.ndarray], n: int) -> IntArray:
    """Return numbers of shape (n,), the same for rows that are equal in all columns."""
    codes = np.zeros(n, dtype=np.int64)
    for column in columns:
        key = find_codes(column)
        codes = find_codes(codes * (int(key.max()) + 1) + key)
    return codes


def group_rows(codes: IntArray) -> list[IntArray]:
    """Return the rows of each number, in the order of the numbers."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
    return np.split(order, ends[:-1])


# ------------------------------------------------------------------------------ sources of sets


def grid(values: Mapping[str, Any]) -> Sets:
    axes = {name: as_column(name, axis) for name, axis in values.items()}
    n_sets = math.prod(len(axis) for axis in axes.values())
    if not axes or not 0 < n_sets * len(axes) <= MOST_CELLS:
        sizes = " x ".join(f"{name} {len(axis)}" for name, axis in axes.items()) or "nothing"
        raise ParameterError(
            f"a grid must have values for every name, {MOST_CELLS:,} in all at most, got {sizes}; "
            "sets=100000 draws from a large space"
        )
    lengths = [len(axis) for axis in axes.values()]
    places = np.unravel_index(np.arange(n_sets), lengths)
    return {name: axis[place] for (name, axis), place in zip(axes.items(), places, strict=True)}


def from_frame(frame: pd.DataFrame) -> Sets:
    if frame.empty or not frame.columns.is_unique:
        repeated = [str(name) for name in frame.columns[frame.columns.duplicated()]]
        raise ParameterError(
            "a table of sets must have rows, and one column per name, got "
            + (f"one with {', '.join(repeated)} twice" if repeated else f"of shape {frame.shape}")
        )
    return {str(name): as_column(str(name), frame[name].array) for name in frame.columns}


def as_column(name: str, values: Any) -> np.ndarray:
    if isinstance(values, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        column = values.to_numpy()
    elif isinstance(values, (list, tuple, set, range)):
        column = _from_list(list(values))
    else:
        column = np.atleast_1d(np.asarray(values))
    if column.ndim != 1:
        raise ParameterError(f"values of {name} must be a list, got shape {column.shape}")
    return column.astype(object) if column.dtype.kind in "UST" else column


def _from_list(values: list[object]) -> np.ndarray:
    kinds = {type(value) for value in values}
    is_plain = len(kinds) == 1 or all(issubclass(kind, int | float) for kind in kinds - {bool})
    if is_plain and bool not in kinds - {next(iter(kinds), None)}:
        return np.atleast_1d(np.asarray(values))
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


class CheckedColumn(NamedTuple):
    values: np.ndarray
    refused: BoolArray


def check_sets(base: BaseTerms, sets: Mapping[str, Any]) -> Sets:
    settings = base.settings
    given = {str(name): as_column(str(name), values) for name, values in sets.items()}
    faults = [*find_unknown(settings, given), *find_uneven(given), *find_missing(settings, given)]
    columns = {
        name: convert_column(settings[name], values)
        for name, values in given.items()
        if name in settings
    }
    for name, column in columns.items():
        faults += find_refused(settings[name], given[name], column.refused)
    converted = {name: column.values for name, column in columns.items()}
    raise_faults(faults or list_contradictions(base, converted))
    return reset_inactive(settings, converted)


def raise_faults(faults: list[str]) -> None:
    if faults:
        raise ParameterError("\n".join(faults))


# ---------------------------------------------------------------------------- names and lengths


def find_unknown(settings: Mapping[str, Setting], given: Mapping[str, object]) -> Iterator[str]:
    for name in given:
        if name.startswith(SIGNAL) and not names_signal(settings):
            yield f"{name} needs a signal rule, the signal is none; rsi:14:30:70 for example"
        elif name not in settings:
            own = ", ".join(each for each in settings if "." not in each)
            known = f"{own or 'no parameters'}, account.band, venue.fees.taker and such"
            near = suggest_name(name, settings) or f"; there are {known}"
            yield f"there is nothing named {name!r} to vary{near}"


def find_uneven(given: Mapping[str, np.ndarray]) -> Iterator[str]:
    lengths = {len(values) for values in given.values()}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(f"{name} {len(values)}" for name, values in given.items())
        yield f"sets must be arrays of one length, at least 1, got {found or 'nothing'}"


def find_missing(settings: Mapping[str, Setting], given: Mapping[str, object]) -> Iterator[str]:
    for name, setting in settings.items():
        if setting.value is dataclasses.MISSING and not {name, name.rpartition(".")[2]} & {*given}:
            yield f"{name} has no default and must be given"


# -------------------------------------------------------------------------------- types and ranges


def convert_column(setting: Setting, values: np.ndarray) -> CheckedColumn:
    is_number = values.dtype.kind in "iuf"
    if is_number and setting.kind in (float, int) and hasattr(setting.space, "admits"):
        return _convert_numbers(setting, values)
    if values.dtype.kind == "b" and setting.kind is bool:
        return CheckedColumn(values, np.zeros(len(values), dtype=np.bool_))
    return _convert_objects(setting, values.astype(object))


def _convert_numbers(setting: Setting, values: np.ndarray) -> CheckedColumn:
    # Adding 0.0 turns -0.0 into 0.0, so that equal sets have equal bits.
    numbers: FloatArray = values.astype(np.float64) + 0.0
    admitted: BoolArray = setting.space.admits(numbers)
    if setting.kind is int:
        admitted = admitted & (numbers == np.rint(numbers))
    if setting.may_be_none:
        admitted = admitted | np.isnan(numbers)
    converted = np.where(admitted, numbers, 0.0) if setting.dtype is np.int64 else numbers
    return CheckedColumn(converted.astype(setting.dtype), ~admitted)


def _convert_objects(setting: Setting, values: np.ndarray) -> CheckedColumn:
    codes, different = _find_different(values)
    converted = np.empty(len(different), dtype=object)
    refused = np.zeros(len(different), dtype=np.bool_)
    for k, value in enumerate(different):
        try:
            converted[k] = convert_value(setting, value)
        except BacktestError:
            converted[k], refused[k] = setting.dtype(), True
    return CheckedColumn(converted.astype(setting.dtype)[codes], refused[codes])


def _find_different(values: np.ndarray) -> tuple[np.ndarray, list[object]]:
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        codes, words = pd.factorize(values)
        return codes, list(words)
    keys = [(type(value), repr(value)) for value in values]
    places = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    codes = np.fromiter((places[key] for key in keys), dtype=np.int64, count=len(keys))
    firsts = dict(zip(reversed(keys), reversed(values), strict=True))
    return codes, [firsts[key] for key in places]


def convert_value(setting: Setting, value: object) -> object:
    value = to_plain_value(setting, value)
    if value is None and setting.may_be_none:
        return math.nan
    checked = setting.check(setting.name, value)
    if setting.kind is float and isinstance(checked, Multiple | str | pd.Series):
        cure = (
            f"give the account the multiple, and vary {setting.name}.multiple"
            if isinstance(checked, Multiple)
            else "compare two venues, one with each"
        )
        raise ParameterError(f"{setting.name} must be a number to vary, got {value!r:.80}; {cure}")
    return checked


def find_refused(setting: Setting, values: np.ndarray, refused: BoolArray) -> Iterator[str]:
    places = np.flatnonzero(refused)
    if not len(places):
        return
    try:
        convert_value(setting, values[places[0]])
    except BacktestError as error:
        yield f"{error}{name_sets(places, len(values))}"


def name_sets(places: IntArray, n: int) -> str:
    return f", in {len(places)} of {n} sets, first in set {places[0]}" if n > 1 else ""


# ------------------------------------------------------------------------ what must go together


def list_contradictions(base: BaseTerms, sets: Sets) -> list[str]:
    found: dict[str, tuple[str, list[IntArray]]] = {}
    for rows, error in find_contradictions(base, sets):
        for line in str(error).splitlines():
            _, places = found.setdefault(line.split()[0], (line, []))  # one for each field
            places.append(rows)
    n = count_sets(sets)
    return [line + name_sets(np.unique(np.concatenate(rows)), n) for line, rows in found.values()]


def find_contradictions(base: BaseTerms, sets: Sets) -> Iterator[tuple[IntArray, BacktestError]]:
    """Yield the rows of sets whose account and venue break a rule, and the rule.

    Each different account and venue is built once.
    """
    of_account, of_venue = (
        {name: values for name, values in sets.items() if name.startswith(part)}
        for part in ("account.", "venue.")
    )
    if not (of_account or of_venue):
        return
    accounts: dict[int, Account] = {}
    venues: dict[int, Any] = {}
    n = count_sets(sets)
    codes = [number_rows(part.values(), n) for part in (of_account, of_venue)]
    for rows in group_rows(number_rows(codes, n)):
        values = take_sets({**of_account, **of_venue}, rows[0])
        one, other = (int(code[rows[0]]) for code in codes)
        try:
            if one not in accounts:
                accounts[one] = base.build_account(values)
            if other not in venues:
                venues[other] = base.build_venue(values)
            check_together(accounts[one], venues[other])
        except BacktestError as error:
            yield rows, error


def check_together(account: Account, venue: Any) -> None:
    tables: list[Mapping[str, Any]] = [
        each for each in vars(account).values() if isinstance(each, FrozenTable)
    ]
    tables += [] if isinstance(venue, Venue) else [venue]
    if not tables:
        check_setting(account, venue)
        return
    for name in tables[0]:
        if all(name in each for each in tables):
            check_setting(account.for_instrument(name), pick_value(venue, name), name)


# ------------------------------------------------------------------------------ unused parameters


def reset_inactive(settings: Mapping[str, Setting], sets: Sets) -> Sets:
    reset = dict(sets)
    for name in sets:
        is_active = find_active(settings, sets, name)
        default: Any = settings[name].value
        if default is not dataclasses.MISSING and not np.all(is_active):
            reset[name] = np.where(is_active, sets[name], default).astype(sets[name].dtype)
    return reset


def find_active(settings: Mapping[str, Setting], sets: Sets, name: str) -> BoolArray:
    is_active = np.ones(count_sets(sets), dtype=np.bool_)
    condition = settings[name].condition
    while condition is not None:
        other, wanted = condition
        of_all = other.rpartition(".")[2]  # an instrument has the value of all, unless its own
        is_own = other not in sets and of_all in settings and of_all in sets
        known = of_all if is_own else other
        values: Any = sets[known] if known in sets else settings[other].value
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        is_active &= np.isin(values, np.array(options, dtype=settings[other].dtype))
        condition = settings[other].condition
    return is_active

"""Parameter sets: what may vary, the run that one set describes, and spaces to draw from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from backtest import core
from backtest.account import Account, Multiple, check_setting
from backtest.engine import Conditions
from backtest.market import Market
from backtest.policies import Policy, change_settings, split_name
from backtest.signals import SignalRule
from backtest.venue import Venue

Venues: TypeAlias = Venue | Mapping[str, Venue]

Sets: TypeAlias = Mapping[str, np.ndarray]
"""Arrays of shape (n_sets,) by name: int64, bool, object, else float64 (NaN: the field is None)."""

MOST_CELLS = 1_000_000_000
"""Most values in a grid; more are treated as a mistake."""

SIGNAL, MARGIN = "signal.", "venue.margin."
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
    def when(self) -> core.Condition:
        when: core.Condition = getattr(self.space, "when", None)
        head, _ = split_name(self.name)
        return when if when is None else (f"{head}{'.' * bool(head)}{when[0]}", when[1])


@dataclass(frozen=True, eq=False)
class VariedTest:
    """A test and a policy whose settings sets vary, and the run that one set describes.

    ``names`` are the instruments whose policies may have parameters of their own. ``rule`` is the
    test's signal if sets may vary it.
    """

    test: Conditions
    policy: type[Policy] | Policy
    names: tuple[str, ...] = ()
    rule: SignalRule | None = None

    def __post_init__(self) -> None:
        if not issubclass(self.policy_class, Policy):
            is_table = isinstance(self.policy, Mapping)
            found = "a table of policies" if is_table else f"{self.policy!r:.60}"
            raise core.ParameterError(
                "policy must be one policy for all instruments, or its class, whose parameters the "
                f"sets vary, got {found}"
            )

    @property
    def policy_class(self) -> type[Policy]:
        return self.policy if isinstance(self.policy, type) else type(self.policy)

    @cached_property
    def settings(self) -> dict[str, Setting]:
        own, above = [*list_parameters(self.policy)], self.test.overlay
        names = (name for name in self.names if name not in RESERVED)
        found = [each._replace(name=f"{name}.{each.name}") for name in names for each in own]
        found += [*own, *list_fields(self.test.account, "account"), *list_venues(self.venue)]
        found += [] if self.rule is None else list_parameters(self.rule, SIGNAL)
        found += [] if above is None else list_parameters(above, f"{OVERLAY}.")
        return {setting.name: setting for setting in found}

    @property
    def venue(self) -> Any:
        return self.test.venue

    def for_instrument(self, name: str, market: Market) -> VariedTest:
        """Return the test of a separate account in one of several instruments."""
        own = {"venue": pick(self.venue, name), "signal": pick(self.test.signal, name)}
        account = self.test.account.for_instrument(name)
        return dataclasses.replace(
            self, test=self.test.replace(market=market, account=account, **own)
        )

    def has_own(self, names: Iterable[str]) -> bool:
        heads = {split_name(name)[0] for name in names}
        return bool(heads & ({*self.names} - {*RESERVED} | {OVERLAY}))

    def build_test(self, values: Mapping[str, Any], **changes: Any) -> Conditions:
        found = {"venue": self.build_venue(values), "account": self.build_account(values),
                 "overlay": self.build_overlay(values)}  # fmt: skip
        if self.rule is not None:
            found["signal"] = self.build_signal(values)
        return self.test.replace(**{**found, **changes})

    def build_policies(self, values: Mapping[str, Any]) -> Any:
        if any(find_own(values, name) for name in self.names):
            return {name: self.build_policy(find_values(values, name)) for name in self.names}
        return self.build_policy(values)

    def build_policy(self, values: Mapping[str, Any]) -> Policy:
        own = {name: value for name, value in values.items() if not split_name(name)[0]}
        return change_settings(self.policy, self._read(own, ""))

    def change_policy(self, policy: Policy, values: Mapping[str, Any]) -> Policy:
        """Return a policy of another set with the parameters of this one, all of them its own."""
        return change_settings(policy, self._read(values, ""))

    def build_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        above, own = self.test.overlay, self._read(values, f"{OVERLAY}.")
        return change_settings(above, own) if above and own else above

    def build_signal(self, values: Mapping[str, Any]) -> SignalRule | None:
        rule = self.rule
        return rule if rule is None else change_settings(rule, self._read(values, SIGNAL))

    def build_account(self, values: Mapping[str, Any]) -> Account:
        changes, account = self._read(values, "account."), self.test.account
        return account.override(changes) if changes else account

    def build_venue(self, values: Mapping[str, Any]) -> Any:
        changes = self._read(values, "venue.")
        if not changes:
            return self.venue
        if isinstance(self.venue, Venue):
            return self.venue.override(changes)
        return {name: each.override(changes) for name, each in self.venue.items()}

    def _read(self, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        own = take_part(values, prefix)
        return {k: to_plain_value(self.settings[f"{prefix}{k}"], v) for k, v in own.items()}


def list_parameters(
    owner: type[Policy] | Policy | SignalRule, prefix: str = ""
) -> Iterator[Setting]:
    held = {} if isinstance(owner, type) else owner.settings()
    own = (
        each._replace(default=held.get(k, each.default)) for k, each in owner.parameters().items()
    )
    for each in (part for one in own for part in one.list_elements()):
        space: Any = core.Flag() if each.space is None else each.space
        flag = core.Flag().check if each.kind is bool else space.check
        check = partial(space.check, whole=True) if each.kind is int else flag
        value = dataclasses.MISSING if each.default is None else each.default
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
            yield setting if is_same else setting._replace(value=core.FrozenTable(values))


def list_fields(value: core.Value, prefix: str) -> Iterator[Setting]:
    declarations = core.find_declarations(type(value))  # type: ignore[arg-type] # classes do hash
    for each in dataclasses.fields(value):  # type: ignore[arg-type] # every class is declared
        space = declarations.get(each.name)
        name, content = f"{prefix}.{each.name}", getattr(value, each.name)
        if space is None and isinstance(content, core.Value) and each.default is not None:
            yield from list_fields(content, name)
        elif space is not None and getattr(space, "constant", True) and not name.endswith(_FIXED):
            yield Setting(name, space.kind, space, space.check, content, each.default is None)
            if isinstance(content, core.Value):
                yield from list_fields(content, name)


def find_own(values: Mapping[str, _T], owner: str) -> dict[str, _T]:
    if owner in RESERVED:
        return {}
    split = ((split_name(name), value) for name, value in values.items())
    return {own: value for (head, own), value in split if head == owner}


def find_values(values: Mapping[str, _T], owner: str) -> dict[str, _T]:
    return {**values, **find_own(values, owner)}


def take_part(values: Mapping[str, _T], prefix: str) -> dict[str, _T]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def to_plain_value(setting: Setting, value: object) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    if setting.may_be_none and isinstance(value, float) and math.isnan(value):
        return None
    return value


def pick(given: Any, name: str) -> Any:
    if isinstance(given, Mapping):
        if name not in given:
            raise core.ParameterError(
                f"venue and signal must be one for all markets, or one for each; {name} has none"
            )
        return given[name]
    return given[name] if hasattr(given, "columns") else given


def count_sets(sets: Sets) -> int:
    return len(next(iter(sets.values())))


def take_sets(sets: Sets, rows: int | slice | np.ndarray) -> dict[str, Any]:
    return {name: values[rows] for name, values in sets.items()}


def find_codes(values: np.ndarray) -> core.IntArray:
    if values.dtype == object:
        values = pd.factorize(np.array([repr(value) for value in values.tolist()], object))[0]
    found: core.IntArray = np.unique(values, return_inverse=True)[1]
    return found


def number_rows(sets: Sets, n: int) -> core.IntArray:
    """Return numbers of shape (n,), the same for equal sets, in the order in which they appear."""
    if not sets:
        return np.zeros(n, dtype=np.int64)
    groups = pd.DataFrame(dict(sets)).groupby(list(sets), sort=False, dropna=False)
    return groups.ngroup().to_numpy().astype(np.int64)


def group_rows(codes: core.IntArray) -> Iterator[core.IntArray]:
    """Yield the rows that have the same code, one group at a time: there may be as many as rows."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
    yield from cut_rows_at(order, ends)


def cut_rows_at(rows: core.IntArray, ends: core.IntArray) -> Iterator[core.IntArray]:
    first = 0
    for stop in ends:
        yield rows[first:stop]
        first = stop


def grid(values: Mapping[str, Any]) -> Sets:
    axes = {name: as_column(name, axis) for name, axis in values.items()}
    n_sets = math.prod(len(axis) for axis in axes.values())
    if not axes or not 0 < n_sets * len(axes) <= MOST_CELLS:
        sizes = " x ".join(f"{name} {len(axis)}" for name, axis in axes.items()) or "nothing"
        raise core.ParameterError(
            f"a grid must have values for every name, {MOST_CELLS:,} in all at most, got {sizes}; "
            "sets=100000 draws from a large space"
        )
    lengths = [len(axis) for axis in axes.values()]
    places = np.unravel_index(np.arange(n_sets), lengths)
    return {name: axis[place] for (name, axis), place in zip(axes.items(), places, strict=True)}


def from_frame(frame: pd.DataFrame) -> Sets:
    if frame.empty or not frame.columns.is_unique:
        repeated = [str(name) for name in frame.columns[frame.columns.duplicated()]]
        raise core.ParameterError(
            "a table of sets must have rows, and one column per name, got "
            + (f"one with {', '.join(repeated)} twice" if repeated else f"of shape {frame.shape}")
        )
    return {str(name): as_column(str(name), frame[name].array) for name in frame.columns}


def as_column(name: str, values: Any) -> np.ndarray:
    if isinstance(values, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        values = values.to_numpy()
    values = list(values) if isinstance(values, (tuple, set, range)) else values
    kinds = {type(value) for value in values} if isinstance(values, list) else {float}
    is_plain = len(kinds) == 1 or all(issubclass(kind, int | float) for kind in kinds - {bool})
    if is_plain and bool not in kinds - {next(iter(kinds), None)}:
        column = np.atleast_1d(np.asarray(values))
    else:
        column = np.empty(len(values), dtype=object)
        column[:] = values
    if column.ndim != 1:
        raise core.ParameterError(f"values of {name} must be a list, got shape {column.shape}")
    return column.astype(object) if column.dtype.kind in "UST" else column


def check_sets(varied: VariedTest, sets: Mapping[str, Any]) -> Sets:
    settings = varied.settings
    given = {str(name): as_column(str(name), values) for name, values in sets.items()}
    faults, lengths = [*find_unknown(settings, given)], {len(each) for each in given.values()}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(f"{name} {len(values)}" for name, values in given.items())
        faults.append(f"sets must be arrays of one length, at least 1, got {found or 'nothing'}")
    faults += find_missing(settings, given)
    known = {name: each for name, each in given.items() if name in settings}
    converted = {k: convert_column(settings[k], each, faults) for k, each in known.items()}
    if faults:
        raise core.ParameterError("\n".join(faults))
    n = count_sets(converted)
    own = {k: each for k, each in converted.items() if k.startswith(("account.", "venue."))}
    for rows in group_rows(number_rows(own, n)) if own else ():
        values = take_sets(own, rows[0])
        try:
            account, venue = varied.build_account(values), varied.build_venue(values)
            tables = [each for each in vars(account).values() if isinstance(each, core.FrozenTable)]
            tables += [] if isinstance(venue, Venue) else [venue]
            if not tables:
                check_setting(account, venue)
            for name in tables[0] if tables else ():
                if all(name in each for each in tables):
                    check_setting(account.for_instrument(name), core.pick_value(venue, name), name)
        except core.BacktestError as error:
            raise core.ParameterError(f"{error}{name_sets(rows, n)}") from None
    return reset_inactive(settings, converted)


def find_unknown(settings: Mapping[str, Setting], given: Mapping[str, object]) -> Iterator[str]:
    for name in given:
        if name.startswith(SIGNAL) and not any(each.startswith(SIGNAL) for each in settings):
            yield f"{name} needs a signal rule, the signal is none; rsi:14:30:70 for example"
        elif name not in settings:
            own = ", ".join(each for each in settings if not split_name(each)[0])
            known = f"{own or 'no parameters'}, account.band, venue.fees.taker and such"
            same = [each for each in settings if split_name(each)[1] == split_name(name)[1]]
            near = core.did_you_mean(name, same) or core.did_you_mean(name, settings)
            near = near or f"; there are {known}"
            yield f"there is nothing named {name!r} to vary{near}"


def find_missing(settings: Mapping[str, Setting], given: Mapping[str, object]) -> Iterator[str]:
    for name, setting in settings.items():
        if setting.value is dataclasses.MISSING and not {name, split_name(name)[1]} & {*given}:
            yield f"{name} has no default and must be given"


def convert_column(setting: Setting, given: np.ndarray, faults: list[str]) -> np.ndarray:
    """Return values in the type of a setting; a fault says which it refuses."""
    if setting.kind is float and given.dtype == np.float64 and is_in_range(setting.space, given):
        return given + 0.0
    codes, told = find_codes(given), dict[int, str]()
    different = given[np.unique(codes, return_index=True)[1]]
    converted = np.empty(len(different), object)
    for k, value in enumerate(different):
        try:
            converted[k] = convert_value(setting, value)
        except core.BacktestError as error:
            converted[k], told[k] = setting.dtype(), str(error)
    places = np.flatnonzero(np.isin(codes, [*told]))
    if len(places):
        faults.append(f"{told[int(codes[places[0]])]}{name_sets(places, len(given))}")
    found: np.ndarray = converted[codes].astype(setting.dtype)
    # Adding 0.0 turns -0.0 into 0.0, so that equal sets have equal bits.
    return found + 0.0 if found.dtype.kind == "f" else found


def is_in_range(space: object, values: np.ndarray) -> bool:
    """Return whether all values lie in a range, both ends included; NaN does not."""
    if not isinstance(space, core.Range):
        return False
    return bool(np.all((values >= space.low) & (values <= space.high)))


def convert_value(setting: Setting, value: object) -> object:
    value = to_plain_value(setting, value)
    if value is None and setting.may_be_none:
        return math.nan
    checked = setting.check(setting.name, value)
    if setting.kind is float and isinstance(checked, Multiple | str | pd.Series):
        cure = "compare two venues, one with each"
        if isinstance(checked, Multiple):
            cure = f"give the account the multiple, and vary {setting.name}.multiple"
        raise core.ParameterError(
            f"{setting.name} must be a number to vary, got {value!r:.80}; {cure}"
        )
    return checked


def name_sets(places: core.IntArray, n: int) -> str:
    return f", in {len(places)} of {n} sets, first in set {places[0]}" if n > 1 else ""


def reset_inactive(settings: Settings, sets: Sets) -> Sets:
    reset = dict(sets)
    for name in sets.keys() & settings.keys():
        is_active = find_active(settings, sets, name)
        default: Any = settings[name].value
        if default is not dataclasses.MISSING and not np.all(is_active):
            reset[name] = np.where(is_active, sets[name], default).astype(sets[name].dtype)
    return reset


def find_active(settings: Settings, sets: Sets, name: str) -> core.BoolArray:
    is_active = np.ones(count_sets(sets), dtype=np.bool_)
    when = settings[name].when
    while when is not None:
        other, wanted = when
        known = find_known(other, settings, sets)
        values: Any = sets[known] if known in sets else settings[other].value
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        is_active &= np.isin(values, np.array(options, dtype=settings[other].dtype))
        when = settings[other].when
    return is_active


def find_known(name: str, settings: Settings, given: Mapping[str, Any]) -> str:
    """Return the name of all instruments in place of one's own that is not given."""
    of_all = split_name(name)[1]
    return of_all if name not in given and of_all in settings and of_all in given else name


class Dimension(NamedTuple):
    name: str
    kind: str
    low: float
    high: float
    log: bool
    options: tuple[Any, ...]
    when: core.Condition
    value: Any

    @property
    def dtype(self) -> type:
        if self.kind in ("float", "int", "bool"):
            return {"float": np.float64, "int": np.int64, "bool": np.bool_}[self.kind]
        kinds = {type(option) for option in self.options}
        if kinds <= {int, float}:
            return np.int64 if kinds == {int} else np.float64
        return object

    def decode(self, part: core.FloatArray) -> np.ndarray:
        """Return the values at numbers in [0, 1], of shape (n,)."""
        if self.options:
            places = np.minimum((part * len(self.options)).astype(np.int64), len(self.options) - 1)
            return np.array(self.options, dtype=self.dtype)[places]
        low, high = self._edges()
        values = low + part * (high - low)
        values = np.exp(values) if self.log else values
        values = np.rint(values) if self.kind == "int" else values
        values = np.where(part <= 0.0, self.low, np.where(part >= 1.0, self.high, values))
        return np.clip(values, self.low, self.high).astype(self.dtype)

    def encode(self, values: np.ndarray) -> core.FloatArray:
        """Return the numbers in [0, 1] that are decoded to these values, of shape (n,)."""
        if self.options:
            options = np.array(self.options, dtype=self.dtype).tolist()
            places = {repr(option): k for k, option in enumerate(options)}
            found = [places.get(repr(value), 0) for value in values.tolist()]
            return (np.array(found) + 0.5) / len(self.options)
        low, high = self._edges()
        numbers = values.astype(np.float64)
        numbers = np.log(numbers) if self.log else numbers
        if not high > low:
            return np.full(numbers.shape, 0.5)
        part: core.FloatArray = np.clip((numbers - low) / (high - low), 0.0, 1.0)
        return part

    def _edges(self) -> tuple[float, float]:
        """Return the ends of the range on its scale, widened by a half for whole numbers."""
        half = 0.5 if self.kind == "int" else 0.0
        low, high = self.low - half, self.high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)


Settings: TypeAlias = Mapping[str, Setting | Dimension]


def read_dimension(setting: Setting, want: Any) -> Dimension:
    name, value = setting.name, setting.value
    options: tuple[Any, ...] = ()
    if isinstance(want, tuple) and setting.kind not in (str, bool):
        if len(want) != 2:
            raise core.ParameterError(
                f"bounds of {name} must be (low, high), got {want!r}; options are written as [...]"
            )
        low, high = (core.ANY_NUMBER.check(name, bound) for bound in want)
        is_log = getattr(setting.space, "log", False)
        if not low <= high or (is_log and not low > 0.0):
            raise core.ParameterError(
                f"bounds of {name} must be low <= high{', over 0' * is_log}, got {want!r}"
            )
        want = core.Range(low, high, log=is_log)
    if isinstance(want, core.Range):
        low, high, is_log, kind = want.low, want.high, want.log, "float"
        if not (math.isfinite(low) and math.isfinite(high)):
            raise core.ParameterError(
                f"a range must be finite to be drawn from, {name} has {low:g} to {high:g}; give "
                "its bounds, or fix it"
            )
        if setting.kind is int:
            low, high, kind = math.ceil(low), math.floor(high), "int"
        for bound in (low, high):
            setting.check(name, bound)
    else:
        if isinstance(want, core.Choice):
            want = want.options
        elif not isinstance(want, (list, np.ndarray, range)) or len(want) == 0:
            raise core.ParameterError(
                f"{name} must be given as bounds or as a list of options, got {want!r}; one value "
                "belongs in fix"
            )
        options = tuple(dict.fromkeys(convert_value(setting, each) for each in want))
        low, high, is_log = 0.0, float(len(options)), False
        kind = "bool" if setting.kind is bool else "choice"
    if value is dataclasses.MISSING or isinstance(value, core.FrozenTable):
        value = options[0] if options else low
    value = math.nan if value is None else value
    return Dimension(name, kind, low, high, is_log, options, None, value)


Given = Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    dimensions: tuple[Dimension, ...]
    fixed: dict[str, Any]

    @property
    def by_name(self) -> dict[str, Dimension]:
        return {each.name: each for each in self.dimensions}

    def decode(self, cube: core.FloatArray) -> Sets:
        """Return the sets at points of shape (n_sets, n_dimensions) in [0, 1]."""
        n = len(cube)
        sets = {each.name: each.decode(cube[:, k]) for k, each in enumerate(self.dimensions)}
        for name, value in self.fixed.items():
            sets[name] = np.full(n, value, dtype=object if isinstance(value, str) else None)
        return reset_inactive(self.by_name, sets)

    def encode(self, sets: Sets) -> core.FloatArray:
        """Return points of shape (n_sets, n_dimensions) that decode to these sets."""
        return np.column_stack([each.encode(sets[each.name]) for each in self.dimensions])

    def list_ends(self) -> Sets:
        counts = [len(each.options) or 1 for each in self.dimensions]
        rows = [tuple(k % n for n in counts) for k in range(max(counts))]  # each word once
        options = (np.array(rows, dtype=np.float64) + 0.5) / np.array(counts)
        is_number = np.array([not each.options for each in self.dimensions], dtype=np.bool_)
        ends = [np.where(is_number, end, options) for end in (0.0, 1.0)]
        return self.decode(np.concatenate(ends).reshape(-1, len(counts)))

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Self:
        """Return the space that :meth:`describe` wrote into a manifest."""
        dimensions = []
        for row in described["dimensions"]:
            when = row["when"] and (row["when"][0], tuple(row["when"][1]))
            options = tuple(row["options"])
            dimensions.append(Dimension(**{**row, "options": options, "when": when}))
        return cls(tuple(dimensions), dict(described["fixed"]))

    def describe(self) -> dict[str, Any]:
        rows = [each._asdict() for each in self.dimensions]
        plain: dict[str, Any] = core.to_plain({"dimensions": rows, "fixed": self.fixed})
        return plain


def read_space(
    varied: VariedTest, given: Given | None = None, *, fix: Given | None = None
) -> Space:
    for name, value in (("space", given), ("fix", fix)):
        if value is not None and not isinstance(value, Mapping):
            example = "(0.1, 1.0)" if name == "space" else "0.4"
            raise core.ParameterError(
                f"{name} must be a mapping by the names of parameters, {{'target': {example}}} for "
                f"example, got {core.repr_plain(value)}"
            )
    settings, fixed = varied.settings, dict(fix or {})
    free = [each for each in list_parameters(varied.policy_class) if each.name not in fixed]
    free = [each for each in free if getattr(each.space, "searched", True)]
    spaces = {each.name: [False, True] if each.kind is bool else each.space for each in free}
    wanted = spaces if given is None else dict(given)
    faults = [*find_unknown(settings, {**wanted, **fixed})]
    faults += [] if wanted else ["space must have something to vary, got nothing"]
    faults += [f"{k} must not be both varied and fixed" for k in fixed if k in wanted]
    faults += find_missing(settings, {**wanted, **fixed})
    dimensions = []
    for name in (name for name in wanted if name in settings):
        try:
            dimensions.append(read_dimension(settings[name], wanted[name]))
        except core.BacktestError as error:
            faults.append(str(error))
    for name in (name for name in fixed if name in settings):
        try:
            fixed[name] = convert_value(settings[name], fixed[name])
        except core.BacktestError as error:
            faults.append(str(error))
    if faults:
        raise core.ParameterError("\n".join(faults))
    varying = {each.name: each for each in dimensions}
    kept, n_before = dict[str, Dimension](), -1
    while n_before != len(varying):  # without one, others may not be used either
        n_before, kept = len(varying), {}
        for each in list(varying.values()):
            when, never = find_condition(each.name, varying, settings, fixed)
            if not never:
                kept[each.name] = each._replace(when=when)
            elif given is not None:
                raise core.ParameterError(
                    f"{each.name} has no effect in any set: it is used only where {never}"
                )
            else:
                del varying[each.name]
    return Space(tuple(kept.values()), fixed)


def find_condition(
    name: str, varying: Given, settings: Mapping[str, Setting], fixed: Given
) -> tuple[core.Condition, str]:
    """Return on what varying parameter it depends whether one is used, and why if it never is."""
    when, found = settings[name].when, None
    while when is not None:
        other, wanted = when
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        known = find_known(other, settings, {**varying, **fixed})
        if known in varying:
            found = found or (known, options)
        elif fixed.get(known, settings[other].value) not in options:
            return None, f"{other} is {' or '.join(map(repr, options))}"
        when = settings[other].when
    return found, ""


def draw_sets(space: Space, n: int, *, seed: int = 0) -> Sets:
    n = int(core.Range(1, MOST_CELLS).check("the number of sets", n, whole=True))
    return space.decode(draw_cube(len(space.dimensions), n, np.random.default_rng(seed)))


def draw_cube(d: int, n: int, rng: np.random.Generator) -> core.FloatArray:
    # The sequence is balanced for powers of two; points beyond n are dropped.
    cube = core.sp.stats.qmc.Sobol(d, rng=rng).random_base2(max(n - 1, 0).bit_length())
    return cube[:n]

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

SetValues: TypeAlias = Mapping[str, Any]
"""One parameter set: its values by the names of what it varies."""

MOST_CELLS = 1_000_000_000
"""Most values in a grid; more are treated as a mistake."""

SIGNAL = "signal."
"""The beginning of the names of parameters of a signal's rule."""

MARGIN = "venue.margin."
"""The beginning of the names of fields of a venue's margin."""

OVERLAY = "overlay"
RESERVED = ("account", "venue", "signal", OVERLAY)

_FIXED = ("contract.kind", "contract.expires", "contract.settles")
"""The ends of names of fields that all sets share."""

_T = TypeVar("_T")


class Setting(NamedTuple):
    """What sets may vary: a parameter, or a field of account or venue, and its value as it is."""

    name: str
    kind: type
    space: Any
    check: Callable[..., object]
    value: object
    may_be_none: bool

    @property
    def dtype(self) -> type:
        """The type of a column of it; None is NaN, so whole numbers that may be None are floats."""
        if self.kind is int and not self.may_be_none:
            return np.int64
        if self.kind in (int, float):
            return np.float64
        if self.kind is bool:
            return np.bool_
        return object

    @property
    def when(self) -> core.Condition:
        """The setting that this one depends on, by its whole name, and the values that use it."""
        when: core.Condition = getattr(self.space, "when", None)
        head, _ = split_name(self.name)
        if when is None or not head:
            return when
        other, wanted = when
        return f"{head}.{other}", wanted


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
        if issubclass(self.policy_class, Policy):
            return
        found = f"{self.policy!r:.60}"
        if isinstance(self.policy, Mapping):
            found = "a table of policies"
        raise core.ParameterError(
            "policy must be one policy for all instruments, or its class, whose parameters the "
            f"sets vary, got {found}"
        )

    @property
    def policy_class(self) -> type[Policy]:
        """The class of the policy."""
        if isinstance(self.policy, type):
            return self.policy
        return type(self.policy)

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """All that sets may vary, by name: first the parameters of single instruments."""
        parameters = [*list_parameters(self.policy)]
        settings = []
        for instrument in self.names:
            if instrument in RESERVED:
                continue
            for parameter in parameters:
                own = parameter._replace(name=f"{instrument}.{parameter.name}")
                settings.append(own)

        settings += parameters
        settings += list_fields(self.test.account, "account")
        settings += list_venues(self.venue)

        if self.rule is not None:
            settings += list_parameters(self.rule, SIGNAL)
        if self.test.overlay is not None:
            settings += list_parameters(self.test.overlay, f"{OVERLAY}.")
        return {setting.name: setting for setting in settings}

    @property
    def venue(self) -> Any:
        """The venue of the test, or the venues by instrument."""
        return self.test.venue

    def for_instrument(self, name: str, market: Market) -> VariedTest:
        """Return the test of a separate account in one of several instruments."""
        alone = self.test.replace(
            market=market,
            account=self.test.account.for_instrument(name),
            venue=pick(self.venue, name),
            signal=pick(self.test.signal, name),
        )
        return dataclasses.replace(self, test=alone)

    def has_own(self, names: Iterable[str]) -> bool:
        """Return whether some names are of single instruments, or of the overlay."""
        instruments = {*self.names} - {*RESERVED}
        owners = {*instruments, OVERLAY}
        heads = {split_name(name)[0] for name in names}
        return bool(heads & owners)

    def build_test(self, values: SetValues, **changes: Any) -> Conditions:
        """Return the test that a set describes; ``changes`` replace fields of it."""
        fields = {
            "venue": self.build_venue(values),
            "account": self.build_account(values),
            "overlay": self.build_overlay(values),
        }
        if self.rule is not None:
            fields["signal"] = self.build_signal(values)
        return self.test.replace(**(fields | changes))

    def build_policies(self, values: SetValues) -> Any:
        """Return the policy that a set describes, or those of the instruments."""
        if not any(find_own(values, name) for name in self.names):
            return self.build_policy(values)

        by_instrument = {}
        for name in self.names:
            by_instrument[name] = self.build_policy(find_values(values, name))
        return by_instrument

    def build_policy(self, values: SetValues) -> Policy:
        """Return the policy with the parameters of a set that are of all instruments."""
        of_all = {name: value for name, value in values.items() if not split_name(name)[0]}
        return change_settings(self.policy, self._read(of_all, ""))

    def change_policy(self, policy: Policy, values: SetValues) -> Policy:
        """Return a policy of another set with the parameters of this one, all of them its own."""
        return change_settings(policy, self._read(values, ""))

    def build_overlay(self, values: SetValues) -> Policy | None:
        """Return the overlay that a set describes, None without one."""
        overlay = self.test.overlay
        changes = self._read(values, f"{OVERLAY}.")
        if not overlay or not changes:
            return overlay
        return change_settings(overlay, changes)

    def build_signal(self, values: SetValues) -> SignalRule | None:
        """Return the rule of the signal that a set describes, None without one."""
        if self.rule is None:
            return None
        return change_settings(self.rule, self._read(values, SIGNAL))

    def build_account(self, values: SetValues) -> Account:
        """Return the account that a set describes."""
        changes = self._read(values, "account.")
        if not changes:
            return self.test.account
        return self.test.account.override(changes)

    def build_venue(self, values: SetValues) -> Any:
        """Return the venue that a set describes, or the venues by instrument."""
        changes = self._read(values, "venue.")
        if not changes:
            return self.venue
        if isinstance(self.venue, Venue):
            return self.venue.override(changes)
        return {name: venue.override(changes) for name, venue in self.venue.items()}

    def _read(self, values: SetValues, prefix: str) -> dict[str, Any]:
        """Return the values of a set under a prefix, without it, as plain ones."""
        plain = {}
        for name, value in take_part(values, prefix).items():
            setting = self.settings[f"{prefix}{name}"]
            plain[name] = to_plain_value(setting, value)
        return plain


def list_parameters(
    owner: type[Policy] | Policy | SignalRule,
    prefix: str = "",
) -> Iterator[Setting]:
    """Yield the parameters of a policy or rule, those with several elements one by one."""
    held = {}
    if not isinstance(owner, type):
        held = owner.settings()
    for name, parameter in owner.parameters().items():
        current = parameter._replace(default=held.get(name, parameter.default))
        for element in current.list_elements():
            yield read_parameter(element, prefix)


def read_parameter(parameter: Any, prefix: str) -> Setting:
    """Return a parameter as a setting."""
    space: Any = parameter.space
    if space is None:
        space = core.Flag()
    check = space.check
    if parameter.kind is int:
        check = partial(space.check, whole=True)
    elif parameter.kind is bool:
        check = core.Flag().check

    value = parameter.default
    if value is None:
        value = dataclasses.MISSING
    name = f"{prefix}{parameter.name}"
    return Setting(
        name,
        parameter.kind,
        space,
        check,
        value,
        may_be_none=False,
    )


def list_venues(venue: Venues) -> Iterator[Setting]:
    """Yield the fields of a venue; of several, those that all of them have."""
    if isinstance(venue, Venue):
        yield from list_fields(venue, "venue")
        return

    by_instrument = {}
    for instrument, venue_of_one in venue.items():
        fields = list_fields(venue_of_one, "venue")
        by_instrument[instrument] = {setting.name: setting for setting in fields}

    first = next(iter(by_instrument.values()))
    for field, setting in first.items():
        if not all(field in settings for settings in by_instrument.values()):
            continue

        # Venues that agree have the value itself, others a table of their values.
        values = {name: settings[field].value for name, settings in by_instrument.items()}
        if len({repr(value) for value in values.values()}) == 1:
            yield setting
        else:
            yield setting._replace(value=core.FrozenTable(values))


def list_fields(value: core.Value, prefix: str) -> Iterator[Setting]:
    """Yield the declared fields of an account or venue, and those of the values in them.

    Names have the ``prefix``: ``venue.fees.taker`` is a field of the value ``venue.fees``.
    """
    declarations = core.find_declarations(type(value))  # type: ignore[arg-type] # classes do hash
    for field in dataclasses.fields(value):  # type: ignore[arg-type] # every class is declared
        space = declarations.get(field.name)
        name = f"{prefix}.{field.name}"
        content = getattr(value, field.name)
        may_be_none = field.default is None

        # A value without a range of its own, such as a contract: its fields vary.
        if space is None:
            if isinstance(content, core.Value) and not may_be_none:
                yield from list_fields(content, name)
            continue
        if not getattr(space, "constant", True) or name.endswith(_FIXED):
            continue

        # A value with a range, such as a margin rule: it varies whole, or a field of it.
        yield Setting(
            name,
            space.kind,
            space,
            space.check,
            content,
            may_be_none,
        )
        if isinstance(content, core.Value):
            yield from list_fields(content, name)


def find_own(values: Mapping[str, _T], owner: str) -> dict[str, _T]:
    """Return the values of one instrument, by the names of its parameters."""
    if owner in RESERVED:
        return {}

    # ``BTC.target`` is the target of BTC.
    own_values: dict[str, _T] = {}
    for name, value in values.items():
        head, parameter = split_name(name)
        if head == owner:
            own_values[parameter] = value
    return own_values


def find_values(values: Mapping[str, _T], owner: str) -> dict[str, _T]:
    """Return the values of a set as one instrument has them: its own where there are such."""
    return {**values, **find_own(values, owner)}


def take_part(values: Mapping[str, _T], prefix: str) -> dict[str, _T]:
    """Return the values under a prefix, without it."""
    part = {}
    for name, value in values.items():
        if name.startswith(prefix):
            part[name.removeprefix(prefix)] = value
    return part


def to_plain_value(setting: Setting, value: object) -> object:
    """Return a value of a column as Python's own; NaN is None where that is allowed."""
    if isinstance(value, np.generic):
        value = value.item()
    if setting.may_be_none and isinstance(value, float) and math.isnan(value):
        return None
    return value


def pick(given: Any, name: str) -> Any:
    """Return what one instrument has of a venue or signal: its own, or the one of all."""
    if isinstance(given, Mapping):
        if name not in given:
            raise core.ParameterError(
                f"venue and signal must be one for all markets, or one for each; {name} has none"
            )
        return given[name]

    # A frame of weights, by instrument.
    if hasattr(given, "columns"):
        return given[name]
    return given


def count_sets(sets: Sets) -> int:
    """Return how many sets there are."""
    return len(next(iter(sets.values())))


def take_sets(sets: Sets, rows: int | slice | np.ndarray) -> dict[str, Any]:
    """Return some of the sets, or the values of one."""
    return {name: values[rows] for name, values in sets.items()}


def find_codes(values: np.ndarray) -> core.IntArray:
    """Return numbers of shape (n,), the same for equal values."""
    if values.dtype == object:
        texts = [repr(value) for value in values.tolist()]
        values = pd.factorize(np.array(texts, object))[0]
    codes: core.IntArray
    _, codes = np.unique(values, return_inverse=True)
    return codes


def number_rows(sets: Sets, n: int) -> core.IntArray:
    """Return numbers of shape (n,), the same for equal sets, in the order in which they appear."""
    if not sets:
        return np.zeros(n, dtype=np.int64)
    table = pd.DataFrame(dict(sets))
    groups = table.groupby(list(sets), sort=False, dropna=False)
    return groups.ngroup().to_numpy().astype(np.int64)


def group_rows(codes: core.IntArray) -> Iterator[core.IntArray]:
    """Yield the rows that have the same code, one group at a time: there may be as many as rows."""
    order = np.argsort(codes, kind="stable")
    is_last = np.diff(codes[order], append=-1)  # of its group, where it is not 0
    ends = np.flatnonzero(is_last) + 1
    yield from cut_rows_at(order, ends)


def cut_rows_at(rows: core.IntArray, ends: core.IntArray) -> Iterator[core.IntArray]:
    """Yield rows in parts that end before each of some places."""
    first = 0
    for stop in ends:
        yield rows[first:stop]
        first = stop


def grid(values: Mapping[str, Any]) -> Sets:
    """Return the product of the values of each name; the last name varies fastest."""
    axes = {name: as_column(name, axis) for name, axis in values.items()}
    lengths = [len(axis) for axis in axes.values()]
    n_sets = math.prod(lengths)
    n_cells = n_sets * len(axes)

    if not 0 < n_cells <= MOST_CELLS:
        sizes = " x ".join(f"{name} {len(axis)}" for name, axis in axes.items()) or "nothing"
        raise core.ParameterError(
            f"a grid must have values for every name, {MOST_CELLS:,} in all at most, got {sizes}; "
            "sets=100000 draws from a large space"
        )

    # For each set, the place of its value on each axis.
    places = np.unravel_index(np.arange(n_sets), lengths)
    columns = {}
    for name, place in zip(axes, places, strict=True):
        columns[name] = axes[name][place]
    return columns


def from_frame(frame: pd.DataFrame) -> Sets:
    """Return the sets of a table, one a row."""
    if not frame.empty and frame.columns.is_unique:
        return {str(name): as_column(str(name), frame[name].array) for name in frame.columns}

    found = f"of shape {frame.shape}"
    repeated = [str(name) for name in frame.columns[frame.columns.duplicated()]]
    if repeated:
        found = f"one with {', '.join(repeated)} twice"
    raise core.ParameterError(
        f"a table of sets must have rows, and one column per name, got {found}"
    )


def as_column(name: str, values: Any) -> np.ndarray:
    """Return values as an array of shape (n,); of mixed kinds, as objects."""
    if isinstance(values, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)):
        values = values.to_numpy()
    if isinstance(values, (tuple, set, range)):
        values = list(values)

    # numpy would turn a list of numbers and texts into texts.
    if isinstance(values, list) and not are_alike(values):
        column = np.empty(len(values), dtype=object)
        column[:] = values
    else:
        column = np.atleast_1d(np.asarray(values))
    if column.ndim != 1:
        raise core.ParameterError(f"values of {name} must be a list, got shape {column.shape}")

    # Texts are objects, which have no longest length.
    if column.dtype.kind in "UST":
        return column.astype(object)
    return column


def are_alike(values: list[Any]) -> bool:
    """Return whether an array keeps the values of a list: of one type, or numbers but no bools."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1:
        return True
    if bool in kinds:
        return False
    return all(issubclass(kind, int | float) for kind in kinds)


def check_sets(varied: VariedTest, sets: Mapping[str, Any]) -> Sets:
    """Return sets in the types of their settings; refuse them with all faults at once."""
    settings = varied.settings
    columns = {str(name): as_column(str(name), values) for name, values in sets.items()}

    faults = [*find_unknown(settings, columns)]
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        counts = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        faults.append(f"sets must be arrays of one length, at least 1, got {counts or 'nothing'}")
    faults += find_missing(settings, columns)

    converted = {}
    for name, column in columns.items():
        if name in settings:
            converted[name] = convert_column(settings[name], column, faults)
    if faults:
        raise core.ParameterError("\n".join(faults))

    check_all_terms(varied, converted)
    return reset_inactive(settings, converted)


def check_all_terms(varied: VariedTest, sets: Sets) -> None:
    """Check accounts and venues, once for all sets that have the same ones."""
    prefixes = ("account.", "venue.")
    terms = {name: column for name, column in sets.items() if name.startswith(prefixes)}
    if not terms:
        return

    n = count_sets(sets)
    for rows in group_rows(number_rows(terms, n)):
        try:
            check_terms(varied, take_sets(terms, rows[0]))
        except core.BacktestError as error:
            raise core.ParameterError(f"{error}{name_sets(rows, n)}") from None


def check_terms(varied: VariedTest, values: SetValues) -> None:
    """Check the account and venue of a set together, those of each instrument apart."""
    account = varied.build_account(values)
    venue = varied.build_venue(values)

    # What has a value for each instrument: some fields of an account, or venues.
    tables = [field for field in vars(account).values() if isinstance(field, core.FrozenTable)]
    if not isinstance(venue, Venue):
        tables.append(venue)
    if not tables:
        check_setting(account, venue)
        return

    # An instrument that a table lacks is refused where the test is built.
    for name in tables[0]:
        if all(name in table for table in tables):
            check_setting(account.for_instrument(name), core.pick_value(venue, name), name)


def find_unknown(settings: Settings, given: Mapping[str, object]) -> Iterator[str]:
    """Yield a fault for each name that is no setting, with the nearest ones."""
    has_rule = any(name.startswith(SIGNAL) for name in settings)
    for name in given:
        if name.startswith(SIGNAL) and not has_rule:
            yield f"{name} needs a signal rule, the signal is none; rsi:14:30:70 for example"
        elif name not in settings:
            yield f"there is nothing named {name!r} to vary{suggest_names(settings, name)}"


def suggest_names(settings: Settings, name: str) -> str:
    """Return the names that are near one: first those of the same parameter; else all there are."""
    _, parameter = split_name(name)
    same = [known for known in settings if split_name(known)[1] == parameter]
    near = core.did_you_mean(name, same) or core.did_you_mean(name, settings)
    if near:
        return near
    parameters = ", ".join(known for known in settings if not split_name(known)[0])
    return f"; there are {parameters or 'no parameters'}, account.band, venue.fees.taker and such"


def find_missing(settings: Settings, given: Mapping[str, object]) -> Iterator[str]:
    """Yield a fault for each setting without a default that is not given.

    The parameter of one instrument may be given by that of all.
    """
    for name, setting in settings.items():
        of_all = split_name(name)[1]
        is_given = name in given or of_all in given
        if setting.value is dataclasses.MISSING and not is_given:
            yield f"{name} has no default and must be given"


def convert_column(
    setting: Setting,
    given: np.ndarray,
    faults: list[str],
) -> np.ndarray:
    """Return values in the type of a setting; add a fault that says which it refuses.

    ``given`` (n_sets,) are of any type. A refused value is returned as the zero of the type.
    """
    # Numbers in their range need no check one by one. Adding 0.0 turns -0.0 into 0.0, so that equal
    # sets have equal bits.
    is_float = setting.kind is float and given.dtype == np.float64
    if is_float and is_in_range(setting.space, given):
        return given + 0.0

    # Each different value is checked once. ``codes`` number the values, so that equal ones have the
    # same number, and ``refused`` has the reason by number.
    codes = find_codes(given)
    _, firsts = np.unique(codes, return_index=True)
    different = given[firsts]
    refused = dict[int, str]()
    converted = np.empty(len(different), object)
    for code, value in enumerate(different):
        try:
            converted[code] = convert_value(setting, value)
        except core.BacktestError as error:
            converted[code] = setting.dtype()
            refused[code] = str(error)

    # All sets with a refused value are one fault, which gives the reason of the first.
    places = np.flatnonzero(np.isin(codes, [*refused]))
    if len(places):
        reason = refused[int(codes[places[0]])]
        faults.append(f"{reason}{name_sets(places, len(given))}")

    column: np.ndarray = converted[codes].astype(setting.dtype)
    if column.dtype.kind != "f":
        return column
    return column + 0.0


def is_in_range(space: object, values: np.ndarray) -> bool:
    """Return whether all values lie in a range, both ends included; NaN does not."""
    if not isinstance(space, core.Range):
        return False
    return bool(np.all((values >= space.low) & (values <= space.high)))


def convert_value(setting: Setting, value: object) -> object:
    """Return a value as a column holds it: checked, and NaN for None."""
    value = to_plain_value(setting, value)
    if value is None and setting.may_be_none:
        return math.nan

    checked = setting.check(setting.name, value)
    if setting.kind is not float or not isinstance(checked, Multiple | str | pd.Series):
        return checked

    # A field may be given by a rule or over time, but no column holds such values.
    cure = "compare two venues, one with each"
    if isinstance(checked, Multiple):
        cure = f"give the account the multiple, and vary {setting.name}.multiple"
    raise core.ParameterError(f"{setting.name} must be a number to vary, got {value!r:.80}; {cure}")


def name_sets(places: core.IntArray, n: int) -> str:
    """Return which of n sets a fault is of."""
    if n == 1:
        return ""
    return f", in {len(places)} of {n} sets, first in set {places[0]}"


def reset_inactive(settings: Settings, sets: Sets) -> Sets:
    """Return sets with the defaults of parameters where another one leaves them without effect.

    So sets that differ in nothing that counts are equal, and are run once.
    """
    reset = dict(sets)
    for name in sets.keys() & settings.keys():
        column = sets[name]
        default: Any = settings[name].value
        is_active = find_active(settings, sets, name)
        if default is not dataclasses.MISSING and not np.all(is_active):
            reset[name] = np.where(is_active, column, default).astype(column.dtype)
    return reset


def find_active(settings: Settings, sets: Sets, name: str) -> core.BoolArray:
    """Return in which sets a parameter has an effect, (n_sets,), by those that it depends on."""
    is_active = np.ones(count_sets(sets), dtype=np.bool_)
    when = settings[name].when

    # A parameter may depend on one that depends on another.
    while when is not None:
        other, values_needed = when
        dtype = settings[other].dtype
        options: np.ndarray = np.array(list_options(values_needed), dtype=dtype)

        # The values of the other one: from the sets, or what it has where they do not vary it.
        values: Any = settings[other].value
        name_in_sets = find_known(other, settings, sets)
        if name_in_sets in sets:
            values = sets[name_in_sets]

        is_active &= np.isin(values, options)
        when = settings[other].when
    return is_active


def list_options(wanted: Any) -> tuple[Any, ...]:
    """Return the values that a condition names, one or several."""
    if isinstance(wanted, tuple):
        return wanted
    return (wanted,)


def find_known(name: str, settings: Settings, given: Mapping[str, Any]) -> str:
    """Return the name of all instruments in place of one's own that is not given."""
    of_all = split_name(name)[1]
    if name not in given and of_all in settings and of_all in given:
        return of_all
    return name


class Dimension(NamedTuple):
    """What a space varies: a range of numbers, or options.

    ``value`` is that of sets in which it has no effect.
    """

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
        """The type of its values; options of numbers are numbers."""
        if self.kind == "float":
            return np.float64
        if self.kind == "int":
            return np.int64
        if self.kind == "bool":
            return np.bool_

        kinds = {type(option) for option in self.options}
        if kinds == {int}:
            return np.int64
        if kinds <= {int, float}:
            return np.float64
        return object

    def decode(self, part: core.FloatArray) -> np.ndarray:
        """Return the values at numbers in [0, 1], of shape (n,), which ``encode`` turns back."""
        # Options have equal shares of [0, 1]; 1 itself is of the last one.
        if self.options:
            n_options = len(self.options)
            places = (part * n_options).astype(np.int64)
            places = np.minimum(places, n_options - 1)
            return np.array(self.options, dtype=self.dtype)[places]

        low, high = self._edges()
        values = low + part * (high - low)
        if self.log:
            values = np.exp(values)
        if self.kind == "int":
            values = np.rint(values)

        # The ends are exact, whatever exp and the widened edges of whole numbers give.
        values = np.where(part >= 1.0, self.high, values)
        values = np.where(part <= 0.0, self.low, values)
        return np.clip(values, self.low, self.high).astype(self.dtype)

    def encode(self, values: np.ndarray) -> core.FloatArray:
        """Return the numbers in [0, 1] that are decoded to these values, of shape (n,).

        That of an option is the middle of its share. What is no option counts as the first one.
        """
        if self.options:
            # Found by its text: some options cannot be hashed, and True must not be 1.
            options = np.array(self.options, dtype=self.dtype).tolist()
            place_of = {repr(option): place for place, option in enumerate(options)}
            places = [place_of.get(repr(value), 0) for value in values.tolist()]
            middles = np.array(places) + 0.5
            return middles / len(self.options)

        low, high = self._edges()
        numbers = values.astype(np.float64)
        if self.log:
            numbers = np.log(numbers)

        # A range of one number is decoded from anywhere.
        if not high > low:
            return np.full(numbers.shape, 0.5)
        part: core.FloatArray = (numbers - low) / (high - low)
        return np.clip(part, 0.0, 1.0)

    def _edges(self) -> tuple[float, float]:
        """Return the ends of the range on its scale, natural logs where that is logarithmic.

        Whole numbers are rounded, so their range is wider by a half: the ends are drawn as often as
        the others.
        """
        low = self.low
        high = self.high
        if self.kind == "int":
            low -= 0.5
            high += 0.5

        if self.log:
            return math.log(low), math.log(high)
        return low, high


Settings: TypeAlias = Mapping[str, Setting | Dimension]


def read_dimension(setting: Setting, want: Any) -> Dimension:
    """Return the dimension of a setting: ``want`` is a range, bounds, or a list of options.

    Raises ParameterError for anything else, and for options that the setting refuses.
    """
    if isinstance(want, tuple) and setting.kind not in (str, bool):
        want = read_bounds(setting, want)
    if isinstance(want, core.Range):
        return read_range(setting, want)

    name = setting.name
    if isinstance(want, core.Choice):
        want = want.options
    elif not isinstance(want, (list, np.ndarray, range)) or len(want) == 0:
        raise core.ParameterError(
            f"{name} must be given as bounds or as a list of options, got {want!r}; one value "
            "belongs in fix"
        )

    options = tuple(dict.fromkeys(convert_value(setting, option) for option in want))
    kind = "choice"
    if setting.kind is bool:
        kind = "bool"
    return Dimension(
        name,
        kind,
        low=0.0,
        high=float(len(options)),
        log=False,
        options=options,
        when=None,
        value=choose_value(setting, options[0]),
    )


def read_bounds(setting: Setting, want: tuple[Any, ...]) -> core.Range:
    """Return the range of bounds (low, high), on the scale that the setting declares."""
    name = setting.name
    if len(want) != 2:
        raise core.ParameterError(
            f"bounds of {name} must be (low, high), got {want!r}; options are written as [...]"
        )

    # Comparisons are written so that NaN fails them.
    low = core.ANY_NUMBER.check(name, want[0])
    high = core.ANY_NUMBER.check(name, want[1])
    is_log = getattr(setting.space, "log", False)
    if is_log and not (low <= high and low > 0.0):
        raise core.ParameterError(f"bounds of {name} must be low <= high, over 0, got {want!r}")
    if not low <= high:
        raise core.ParameterError(f"bounds of {name} must be low <= high, got {want!r}")
    return core.Range(low, high, log=is_log)


def read_range(setting: Setting, want: core.Range) -> Dimension:
    """Return the dimension of a range; that of whole numbers ends at whole numbers inside it."""
    name = setting.name
    low = want.low
    high = want.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise core.ParameterError(
            f"a range must be finite to be drawn from, {name} has {low:g} to {high:g}; give "
            "its bounds, or fix it"
        )

    kind = "float"
    if setting.kind is int:
        kind = "int"
        low = math.ceil(low)
        high = math.floor(high)
    setting.check(name, low)
    setting.check(name, high)

    return Dimension(
        name,
        kind,
        low=low,
        high=high,
        log=want.log,
        options=(),
        when=None,
        value=choose_value(setting, low),
    )


def choose_value(setting: Setting, first: Any) -> Any:
    """Return the value that counts where a dimension has no effect: its own, NaN, or the first."""
    value = setting.value
    if value is dataclasses.MISSING or isinstance(value, core.FrozenTable):
        value = first
    if value is None:
        return math.nan
    return value


Given = Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    """The dimensions that are varied, and the values that all sets have."""

    dimensions: tuple[Dimension, ...]
    fixed: dict[str, Any]

    @property
    def by_name(self) -> dict[str, Dimension]:
        """The dimensions by name."""
        return {dimension.name: dimension for dimension in self.dimensions}

    def decode(self, cube: core.FloatArray) -> Sets:
        """Return the sets at points of shape (n_sets, n_dimensions) in [0, 1]."""
        sets = {}
        for k, dimension in enumerate(self.dimensions):
            sets[dimension.name] = dimension.decode(cube[:, k])

        # Texts are objects, as in all sets.
        for name, value in self.fixed.items():
            dtype = object if isinstance(value, str) else None
            sets[name] = np.full(len(cube), value, dtype=dtype)
        return reset_inactive(self.by_name, sets)

    def encode(self, sets: Sets) -> core.FloatArray:
        """Return points of shape (n_sets, n_dimensions) that decode to these sets."""
        columns = [dimension.encode(sets[dimension.name]) for dimension in self.dimensions]
        return np.column_stack(columns)

    def list_ends(self) -> Sets:
        """Return sets at the lower and at the upper ends of all ranges, with each option once."""
        # The middles of the options, (most options, n_dimensions): they begin again where a
        # dimension has fewer than another one.
        counts = np.array([len(dimension.options) or 1 for dimension in self.dimensions])
        places = np.arange(max(counts))[:, None] % counts
        options = (places + 0.5) / counts

        is_range = np.array([not dimension.options for dimension in self.dimensions])
        lower = np.where(is_range, 0.0, options)
        upper = np.where(is_range, 1.0, options)
        return self.decode(np.concatenate([lower, upper]))

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Self:
        """Return the space that :meth:`describe` wrote into a manifest."""
        dimensions = []
        for row in described["dimensions"]:
            # JSON has lists in the place of tuples.
            when = row["when"]
            if when:
                other, wanted = when
                when = (other, tuple(wanted))
            facts = {**row, "options": tuple(row["options"]), "when": when}
            dimensions.append(Dimension(**facts))
        return cls(tuple(dimensions), dict(described["fixed"]))

    def describe(self) -> dict[str, Any]:
        """Return the space as plain data, for a manifest."""
        rows = [dimension._asdict() for dimension in self.dimensions]
        plain: dict[str, Any] = core.to_plain({"dimensions": rows, "fixed": self.fixed})
        return plain


def read_space(
    varied: VariedTest,
    given: Given | None = None,
    *,
    fix: Given | None = None,
) -> Space:
    """Return the space that is given, or that of all declared ranges; refuse all faults at once."""
    check_mapping("space", given, example="(0.1, 1.0)")
    check_mapping("fix", fix, example="0.4")
    settings = varied.settings
    fixed = dict(fix or {})
    wanted = list_declared(varied, fixed)
    if given is not None:
        wanted = dict(given)

    faults = [*find_unknown(settings, {**wanted, **fixed})]
    if not wanted:
        faults.append("space must have something to vary, got nothing")
    faults += [f"{name} must not be both varied and fixed" for name in fixed if name in wanted]
    faults += find_missing(settings, {**wanted, **fixed})

    dimensions = read_known(settings, wanted, read_dimension, faults)
    fixed_values = read_known(settings, fixed, convert_value, faults)
    if faults:
        raise core.ParameterError("\n".join(faults))

    used = find_used(
        settings,
        dimensions,
        fixed_values,
        is_given=given is not None,
    )
    return Space(tuple(used.values()), fixed_values)


def read_known(
    settings: Mapping[str, Setting],
    given: Given,
    read: Callable[[Setting, Any], _T],
    faults: list[str],
) -> dict[str, _T]:
    """Return what ``read`` makes of each known setting; add a fault for what it refuses."""
    values = {}
    for name, value in given.items():
        # A name that is unknown is a fault already.
        if name not in settings:
            continue
        try:
            values[name] = read(settings[name], value)
        except core.BacktestError as error:
            faults.append(str(error))
    return values


def check_mapping(name: str, value: object, *, example: str) -> None:
    """Refuse what is no mapping by the names of parameters."""
    if value is not None and not isinstance(value, Mapping):
        raise core.ParameterError(
            f"{name} must be a mapping by the names of parameters, {{'target': {example}}} for "
            f"example, got {core.repr_plain(value)}"
        )


def list_declared(varied: VariedTest, fixed: Given) -> dict[str, Any]:
    """Return the declared ranges of the parameters of a policy that searches vary."""
    spaces = {}
    for setting in list_parameters(varied.policy_class):
        is_searched = getattr(setting.space, "searched", True)
        if setting.name in fixed or not is_searched:
            continue

        spaces[setting.name] = setting.space
        if setting.kind is bool:
            spaces[setting.name] = [False, True]
    return spaces


def find_used(
    settings: Mapping[str, Setting],
    dimensions: Mapping[str, Dimension],
    fixed: Given,
    *,
    is_given: bool,
) -> dict[str, Dimension]:
    """Return the dimensions with an effect in some set, each with what it depends on.

    One that the user gives must have an effect; a declared one is left out.
    """
    varying = dict(dimensions)
    while True:
        used = dict[str, Dimension]()
        for name, dimension in varying.items():
            when, unmet = find_condition(name, varying, settings, fixed)
            if not unmet:
                used[name] = dimension._replace(when=when)
            elif is_given:
                raise core.ParameterError(
                    f"{name} has no effect in any set: it is used only where {unmet}"
                )

        # Without one, others may not be used either.
        if len(used) == len(varying):
            return used
        varying = used


def find_condition(
    name: str,
    varying: Given,
    settings: Mapping[str, Setting],
    fixed: Given,
) -> tuple[core.Condition, str]:
    """Return when a parameter has an effect: ``(condition, unmet)``.

    A parameter may be used only where another has certain values, which may itself be used only
    where a third has. ``condition`` is the nearest of these that varies from set to set, as (name,
    values); None where none varies. ``unmet`` is the first of these that no set meets, in words, as
    in ``"mode is 'trend'"``; empty where the parameter has an effect in some set.
    """
    nearest: core.Condition = None
    condition = settings[name].when
    while condition is not None:
        owner, used_at = condition
        options = list_options(used_at)

        # An instrument's own parameter may be given for all instruments at once.
        owner_in_sets = find_known(owner, settings, {**varying, **fixed})
        if owner_in_sets in varying:
            nearest = nearest or (owner_in_sets, options)
        elif fixed.get(owner_in_sets, settings[owner].value) not in options:
            return None, f"{owner} is {' or '.join(map(repr, options))}"
        condition = settings[owner].when
    return nearest, ""


def draw_sets(space: Space, n: int, *, seed: int = 0) -> Sets:
    """Return n sets that are drawn from a space."""
    n = int(core.Range(1, MOST_CELLS).check("the number of sets", n, whole=True))
    cube = draw_cube(len(space.dimensions), n, np.random.default_rng(seed))
    return space.decode(cube)


def draw_cube(d: int, n: int, rng: np.random.Generator) -> core.FloatArray:
    """Return n points in d dimensions, (n, d), of a scrambled Sobol sequence."""
    # The sequence is balanced for powers of two; points beyond n are dropped.
    sequence = core.sp.stats.qmc.Sobol(d, rng=rng)
    power = max(n - 1, 0).bit_length()
    return sequence.random_base2(power)[:n]

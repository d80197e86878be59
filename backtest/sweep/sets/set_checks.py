"""Check many parameter sets at once: names, types, ranges, and rules between several values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account, Multiple, check_setting
from backtest.base import (
    BacktestError,
    BoolArray,
    FloatArray,
    FrozenTable,
    IntArray,
    ParameterError,
    pick_value,
)
from backtest.engine import SignalRule
from backtest.policy import Policy
from backtest.sweep.sets.sets import (
    SIGNAL,
    BaseTerms,
    Sets,
    Setting,
    Venues,
    as_column,
    change_account,
    change_venue,
    count_sets,
    group_rows,
    names_signal,
    number_rows,
    read_settings,
    suggest_name,
    take_sets,
    to_plain_value,
)
from backtest.venue import Venue


class CheckedColumn(NamedTuple):
    values: np.ndarray
    refused: BoolArray


def check_sets(
    policy: type[Policy] | Policy,
    account: Account,
    venue: Venues,
    sets: Mapping[str, Any],
    *,
    signal: SignalRule | None = None,
    names: tuple[str, ...] = (),
    overlay: Policy | None = None,
) -> Sets:
    base = BaseTerms(policy, venue, account, signal, names, overlay)
    settings = read_settings(base)
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
    raise_faults(faults or list_contradictions(base, settings, converted))
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


def list_contradictions(base: BaseTerms, settings: Mapping[str, Setting], sets: Sets) -> list[str]:
    found: dict[str, tuple[str, list[IntArray]]] = {}
    for rows, error in find_contradictions(base, settings, sets):
        for line in str(error).splitlines():
            _, places = found.setdefault(line.split()[0], (line, []))  # one for each field
            places.append(rows)
    n = count_sets(sets)
    return [line + name_sets(np.unique(np.concatenate(rows)), n) for line, rows in found.values()]


def find_contradictions(
    base: BaseTerms, settings: Mapping[str, Setting], sets: Sets
) -> Iterator[tuple[IntArray, BacktestError]]:
    """Yield the rows of sets whose account and venue break a rule, and the rule.

    Each different account and venue is built once.
    """
    of_account, of_venue = (
        {name: values for name, values in sets.items() if name.startswith(f"{part}.")}
        for part in ("account", "venue")
    )
    if not (of_account or of_venue):
        return
    accounts: dict[int, Account] = {}
    venues: dict[int, Any] = {}
    n = count_sets(sets)
    account_codes = number_rows(of_account.values(), n)
    venue_codes = number_rows(of_venue.values(), n)
    for rows in group_rows(number_rows((account_codes, venue_codes), n)):
        account_code, venue_code = account_codes[rows[0]], venue_codes[rows[0]]
        values = take_sets({**of_account, **of_venue}, rows[0])
        try:
            if account_code not in accounts:
                accounts[account_code] = change_account(base, settings, values)
            if venue_code not in venues:
                venues[venue_code] = change_venue(base, settings, values)
            check_together(accounts[account_code], venues[venue_code])
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

"""Check many sets of parameters at once: names, types, ranges, and what must go together.

Numbers are checked as whole columns; the error of the first one refused is that of the check which
a single value goes through. Nothing is repaired.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account.account import Account, check_account
from backtest.base.errors import BacktestError, ParameterError
from backtest.base.units import TOLERANCE, BoolArray, FloatArray
from backtest.policy.policy import Policy
from backtest.sweep.sets.sets import (
    Base,
    Sets,
    Setting,
    as_column,
    build_terms,
    count_sets,
    read_settings,
    suggest,
    to_plain_value,
)
from backtest.venue.interest import RATES
from backtest.venue.venue import Venue


class Defect(NamedTuple):
    """One thing that is wrong with some sets."""

    problem: str
    where: str
    cure: str


class Column(NamedTuple):
    """The values of one name in their settled type, and which of them are refused."""

    values: np.ndarray
    refused: BoolArray


def check_sets(
    policy: type[Policy] | Policy, account: Account, venue: Venue, sets: Mapping[str, Any]
) -> Sets:
    """Return sets in their settled types; where a parameter does not matter, at its default.

    Parameters
    ----------
    policy, account, venue
        What the sets are laid over.
    sets : mapping of str to array of shape (n_sets,)
        Parameters of the policy; ``account.band``, ``venue.fees.taker`` and so on. None stands
        where a field may be None.

    Raises
    ------
    ParameterError
        Listing everything that is wrong: unknown names, types, ranges, contradictions.
    """
    base = Base(policy, venue, account)
    settings = read_settings(base)
    given = {str(name): as_column(str(name), values) for name, values in sets.items()}
    defects = [*find_unknown(settings, given), *find_uneven(given), *find_missing(settings, given)]
    columns = {
        name: settle(settings[name], values) for name, values in given.items() if name in settings
    }
    for name, column in columns.items():
        defects += find_refused(settings[name], given[name], column.refused)
    if not defects:
        settled = {name: column.values for name, column in columns.items()}
        defects += find_contradictions(base, settings, settled)
    raise_defects(defects)
    return settle_inactive(settings, settled)


def raise_defects(defects: list[Defect]) -> None:
    """Raise one error of all that is wrong, if anything is.

    Raises
    ------
    ParameterError
        If there is a defect.
    """
    if not defects:
        return
    raise ParameterError(
        "\n".join(each.problem for each in defects),
        where="; ".join(dict.fromkeys(each.where for each in defects)),
        cure="; ".join(dict.fromkeys(each.cure for each in defects)),
    )


# ---------------------------------------------------------------------------- names and lengths


def find_unknown(settings: Mapping[str, Setting], given: Mapping[str, object]) -> Iterator[Defect]:
    """Yield the names that nothing has."""
    for name in given:
        if name not in settings:
            own = [each for each in settings if "." not in each]
            yield Defect(
                f"there is nothing named {name!r} to vary{suggest(name, settings)}",
                f"sets, {name}",
                f"use {', '.join(own) or 'no parameters'}, or fields such as account.band and "
                "venue.fees.taker",
            )


def find_uneven(given: Mapping[str, np.ndarray]) -> Iterator[Defect]:
    """Yield that there are no sets, or that arrays differ in length."""
    lengths = {len(values) for values in given.values()}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(f"{name} {len(values)}" for name, values in given.items())
        yield Defect(
            f"sets must be arrays of one length, at least 1, was {found or 'nothing'}",
            "sets",
            "give one value per set and name",
        )


def find_missing(settings: Mapping[str, Setting], given: Mapping[str, object]) -> Iterator[Defect]:
    """Yield the parameters that have no default and are not given."""
    for name, setting in settings.items():
        if setting.value is dataclasses.MISSING and name not in given:
            yield Defect(
                f"{name}, which has no default, must be given, was not",
                f"sets, {name}",
                f"add values of {name}, or pass a policy that has one",
            )


# -------------------------------------------------------------------------------- types and ranges


def settle(setting: Setting, values: np.ndarray) -> Column:
    """Return a column in its settled type, and what of it is refused."""
    is_number = values.dtype.kind in "iuf"
    if is_number and setting.kind in (float, int) and hasattr(setting.space, "admits"):
        return _settle_numbers(setting, values)
    if values.dtype.kind == "b" and setting.kind is bool:
        return Column(values, np.zeros(len(values), dtype=np.bool_))
    return _settle_objects(setting, values.astype(object))


def _settle_numbers(setting: Setting, values: np.ndarray) -> Column:
    # Adding 0.0 turns -0.0 into 0.0, so that equal sets have equal bits.
    numbers: FloatArray = values.astype(np.float64) + 0.0
    admitted: BoolArray = setting.space.admits(numbers)
    if setting.kind is int:
        admitted = admitted & (numbers == np.rint(numbers))
    if setting.may_be_none:
        admitted = admitted | np.isnan(numbers)
    settled = np.where(admitted, numbers, 0.0) if setting.dtype is np.int64 else numbers
    return Column(settled.astype(setting.dtype), ~admitted)


def _settle_objects(setting: Setting, values: np.ndarray) -> Column:
    """Check each different object once."""
    codes, different = _find_different(values)
    settled = np.empty(len(different), dtype=object)
    refused = np.zeros(len(different), dtype=np.bool_)
    for k, value in enumerate(different):
        try:
            settled[k] = settle_value(setting, value)
        except BacktestError:
            settled[k], refused[k] = setting.dtype(), True
    return Column(settled.astype(setting.dtype)[codes], refused[codes])


def _find_different(values: np.ndarray) -> tuple[np.ndarray, list[object]]:
    """Return the different objects, and which of them each entry is; 1, 1.0 and True differ."""
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        codes, words = pd.factorize(values)
        return codes, list(words)
    keys = [(type(value), repr(value)) for value in values]
    places = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    codes = np.fromiter((places[key] for key in keys), dtype=np.int64, count=len(keys))
    firsts = dict(zip(reversed(keys), reversed(values), strict=True))
    return codes, [firsts[key] for key in places]


def settle_value(setting: Setting, value: object) -> object:
    """Return one value in its settled type; None as NaN in a column of numbers.

    Raises
    ------
    ParameterError
        If it is refused.
    """
    value = to_plain_value(setting, value)
    if value is None and setting.may_be_none:
        return math.nan
    return setting.check(setting.name, value, where=f"sets, {setting.name}")


def find_refused(setting: Setting, values: np.ndarray, refused: BoolArray) -> Iterator[Defect]:
    """Yield the first value that is refused, with how many there are."""
    places = np.flatnonzero(refused)
    if not len(places):
        return
    try:
        settle_value(setting, values[places[0]])
    except BacktestError as error:
        more = f", in {len(places)} of {len(values)} sets" if len(values) > 1 else ""
        yield Defect(
            f"{error.problem}{more}", f"sets, {setting.name}, first in set {places[0]}", error.cure
        )


# ------------------------------------------------------------------------ what must go together


def find_contradictions(
    base: Base, settings: Mapping[str, Setting], sets: Sets
) -> Iterator[Defect]:
    """Yield what an account or a venue refuses as a whole, explained by the first such set.

    The rules are those of :class:`Account`, :class:`Venue` and :func:`check_account` again, for
    columns; a test holds them together.
    """
    n = count_sets(sets)
    found: dict[str, Defect] = {}
    for rule in find_broken_rules(settings, sets, base.venue):
        places = np.flatnonzero(np.broadcast_to(rule, n))
        if len(places):
            first = int(places[0])
            defect = explain(base, settings, {name: sets[name][first] for name in sets}, first)
            if defect is not None:
                more = f", in {len(places)} of {n} sets" if n > 1 else ""
                found[defect.problem] = defect._replace(problem=defect.problem + more)
    yield from found.values()


def explain(
    base: Base, settings: Mapping[str, Setting], values: Mapping[str, object], place: int
) -> Defect | None:
    """Return why the account and the venue of one set cannot be; None where they can."""
    fields = {name: value for name, value in values.items() if "." in name}
    try:
        venue, account = build_terms(base, settings, fields)
        check_account(account, venue)
    except BacktestError as error:
        return Defect(error.problem, f"sets, {error.where}, first in set {place}", error.cure)
    return None


def find_broken_rules(settings: Mapping[str, Setting], sets: Sets, venue: Venue) -> Iterator[Any]:
    """Yield for each rule which sets break it: an array of shape (n_sets,), or one answer."""

    def read(name: str) -> Any:
        value = sets[name] if name in sets else settings[name].value
        return np.nan if value is None else value

    low, high = read("account.min_leverage"), read("account.max_leverage")
    setting, call = read("account.venue_leverage"), read("account.margin_call")
    reserve, top = read("account.reserve"), read("account.top_up_to")
    most = min(table[0].max_leverage for table in venue.tables())
    yield low > high
    yield (read("account.margin") == "isolated") & np.isnan(setting)
    yield (reserve > 0) & (np.isnan(call) | np.isnan(top))
    yield ~np.isnan(top) & (np.isnan(call) | (reserve <= 0))
    yield top >= call
    yield setting > most * (1 + TOLERANCE)
    yield low > np.where(np.isnan(setting), most, setting) * (1 + TOLERANCE)
    yield ~np.isnan(read("venue.call_grace")) & np.isnan(call)
    yield (read("venue.liquidation.full_below") > 0) & (read("venue.liquidation.mode") != "partial")

    def is_charged(name: str) -> Any:
        rates = np.asarray(read(name)) != 0
        return rates if name in sets else np.any(rates)

    interest_on = read("venue.interest_on")
    is_unsaid = (interest_on != "balance") & (interest_on != "loan")
    for name in RATES:
        yield is_unsaid & is_charged(f"venue.{name}")
    yield (interest_on == "balance") & is_charged("venue.short_rate")
    fee = np.where(read("venue.includes_close_fee"), read("venue.fees.taker"), 0.0)
    for row in (row for table in venue.tables() for row in table):
        yield (row.maintenance_rate + fee) * row.max_leverage > 1 + TOLERANCE


# ------------------------------------------------------------------- what does not matter in a set


def settle_inactive(settings: Mapping[str, Setting], sets: Sets) -> Sets:
    """Return sets with every parameter that does not matter in a set at its default there."""
    settled = dict(sets)
    for name in sets:
        is_active = find_active(settings, sets, name)
        default: Any = settings[name].value
        if default is not dataclasses.MISSING and not np.all(is_active):
            settled[name] = np.where(is_active, sets[name], default).astype(sets[name].dtype)
    return settled


def find_active(settings: Mapping[str, Setting], sets: Sets, name: str) -> BoolArray:
    """Tell in which sets a parameter matters; ``when`` may lead over several others."""
    is_active = np.ones(count_sets(sets), dtype=np.bool_)
    condition = settings[name].condition
    while condition is not None:
        other, wanted = condition
        values: Any = sets[other] if other in sets else settings[other].value
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        is_active &= np.isin(values, np.array(options, dtype=settings[other].dtype))
        condition = settings[other].condition
    return is_active

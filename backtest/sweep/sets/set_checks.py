"""Check many parameter sets at once: names, types, ranges, and rules between several values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account, Multiple, check_account, find_least
from backtest.account.account import WHOLE
from backtest.base import (
    BacktestError,
    BoolArray,
    FloatArray,
    FrozenTable,
    ParameterError,
    Place,
    join_phrases,
    pick_value,
)
from backtest.base.units import TOLERANCE
from backtest.engine import SignalRule
from backtest.policy import Policy
from backtest.sweep.sets.sets import (
    SIGNAL,
    BaseTerms,
    Sets,
    Setting,
    Venues,
    as_column,
    build_terms,
    count_sets,
    names_signal,
    read_settings,
    suggest_name,
    take_sets,
    to_plain_value,
)
from backtest.venue import Venue, find_newest, is_one
from backtest.venue.interest import RATES

OF_SEVERAL = frozenset(f"account.{name}" for name in WHOLE)


class SetDefect(NamedTuple):
    problem: str
    where: str
    cure: str


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
    defects = [*find_unknown(settings, given), *find_uneven(given), *find_missing(settings, given)]
    columns = {
        name: convert_column(settings[name], values)
        for name, values in given.items()
        if name in settings
    }
    for name, column in columns.items():
        defects += find_refused(settings[name], given[name], column.refused)
    if not defects:
        converted = {name: column.values for name, column in columns.items()}
        defects += find_contradictions(base, converted)
    raise_defects(defects)
    return reset_inactive(settings, converted)


def raise_defects(defects: list[SetDefect]) -> None:
    if not defects:
        return
    raise ParameterError(
        "\n".join(each.problem for each in defects),
        where=join_phrases("; ", [each.where for each in defects]),
        cure=join_phrases("; ", [each.cure for each in defects]),
    )


# ---------------------------------------------------------------------------- names and lengths


def find_unknown(
    settings: Mapping[str, Setting], given: Mapping[str, object], argument: str = "sets"
) -> Iterator[SetDefect]:
    for name in given:
        if name not in settings:
            own = [each for each in settings if "." not in each]
            if name.startswith(SIGNAL) and not names_signal(settings):
                yield SetDefect(
                    f"{name} needs a signal rule, the signal is none",
                    Place(argument, name),
                    "name a rule as the signal, such as rsi:14:30:70",
                )
                continue
            yield SetDefect(
                f"there is nothing named {name!r} to vary{suggest_name(name, settings)}",
                Place(argument, name),
                f"use {', '.join(own) or 'no parameters'}, or fields such as account.band and "
                "venue.fees.taker",
            )


def find_uneven(given: Mapping[str, np.ndarray]) -> Iterator[SetDefect]:
    lengths = {len(values) for values in given.values()}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(f"{name} {len(values)}" for name, values in given.items())
        yield SetDefect(
            f"sets must be arrays of one length, at least 1, got {found or 'nothing'}",
            Place("sets"),
            "give one value per set and name",
        )


def find_missing(
    settings: Mapping[str, Setting], given: Mapping[str, object]
) -> Iterator[SetDefect]:
    for name, setting in settings.items():
        if setting.value is dataclasses.MISSING and not {name, name.rpartition(".")[2]} & {*given}:
            yield SetDefect(
                f"{name} has no default and must be given",
                Place("sets", name),
                f"add values of {name}, or pass a policy that has one",
            )


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
    checked = setting.check(setting.name, value, where=Place("sets", setting.name))
    if setting.kind is float and isinstance(checked, Multiple | str | pd.Series):
        raise refuse_variation(setting, value, is_multiple=isinstance(checked, Multiple))
    return checked


def refuse_variation(setting: Setting, value: object, *, is_multiple: bool) -> ParameterError:
    cure = f"give the account the multiple, and vary {setting.name}.multiple"
    return ParameterError(
        f"{setting.name} must be a number to vary, got {value!r:.80}",
        where=Place("sets", setting.name),
        cure=cure if is_multiple else "compare two venues, one with each: bt.compare",
    )


def find_refused(setting: Setting, values: np.ndarray, refused: BoolArray) -> Iterator[SetDefect]:
    places = np.flatnonzero(refused)
    if not len(places):
        return
    try:
        convert_value(setting, values[places[0]])
    except BacktestError as error:
        more = f", in {len(places)} of {len(values)} sets" if len(values) > 1 else ""
        yield SetDefect(
            f"{error.problem}{more}",
            Place("sets", setting.name, f"first in set {places[0]}"),
            error.cure,
        )


# ------------------------------------------------------------------------ what must go together


def find_contradictions(base: BaseTerms, sets: Sets) -> Iterator[SetDefect]:
    n = count_sets(sets)
    found: dict[str, SetDefect] = {}
    of_one = {name: each for name, each in sets.items() if name not in OF_SEVERAL}
    for own in list_single_bases(base):
        settings = read_settings(own)
        for rule in find_broken_rules(settings, of_one, own.venue):
            places = np.flatnonzero(np.broadcast_to(rule, n))
            if len(places):
                first = int(places[0])
                defect = explain_contradiction(own, settings, take_sets(of_one, first), first)
                if defect is not None:
                    more = f", in {len(places)} of {n} sets" if n > 1 else ""
                    found[defect.problem] = defect._replace(problem=defect.problem + more)
    yield from found.values()


def list_single_bases(base: BaseTerms) -> list[BaseTerms]:
    tables: list[Mapping[str, Any]] = [
        each for each in vars(base.account).values() if isinstance(each, FrozenTable)
    ]
    tables += [base.venue] if isinstance(base.venue, Mapping) else []
    names = [name for name in tables[0] if all(name in each for each in tables)] if tables else [""]
    return [
        BaseTerms(base.policy, pick_value(base.venue, name), base.account.for_instrument(name))
        for name in names
    ]


def explain_contradiction(
    base: BaseTerms, settings: Mapping[str, Setting], values: Mapping[str, object], place: int
) -> SetDefect | None:
    try:
        venue, account = build_terms(base, settings, values)
        check_account(account, venue)
    except BacktestError as error:
        where = Place("sets", error.where, f"first in set {place}")
        return SetDefect(error.problem, where, error.cure)
    return None


def find_broken_rules(settings: Mapping[str, Setting], sets: Sets, venue: Venue) -> Iterator[Any]:
    """Yield for each rule which sets break it: an array of shape (n_sets,), or one bool."""

    def read(name: str) -> Any:
        value = sets[name] if name in sets else settings[name].value
        return np.nan if value is None else value

    low = read("account.min_leverage")
    limit: Any = settings["account.max_leverage"].value
    high = sets.get("account.max_leverage", find_least(limit))
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
    mode = read("venue.liquidation.mode")
    yield (read("venue.liquidation.full_below") > 0) & (mode != "partial")
    yield (read("venue.liquidation.full_below_health") > 0) & (mode != "partial")
    yield (read("venue.liquidation.impact") > 0) & (mode == "takeover")
    yield read("account.auto_margin") & (read("account.margin") != "isolated")

    def is_charged(name: str) -> Any:
        rates = np.asarray(read(name)) != 0
        return rates if name in sets else np.any(rates)

    def is_given(name: str) -> Any:
        return ~np.isnan(sets[name]) if name in sets else settings[name].value is not None

    interest_on = read("venue.interest_on")
    is_unsaid = (interest_on != "balance") & (interest_on != "loan")
    for name in RATES:
        yield is_unsaid & is_charged(f"venue.{name}")
    yield (interest_on == "balance") & is_charged("venue.short_rate")
    both = read("venue.margin_multiplier")
    is_set = both != 1.0 if "venue.margin_multiplier" in sets else not is_one(both)
    for name in ("venue.initial_multiplier", "venue.maintenance_multiplier"):
        yield is_set & is_given(name)
    if venue.open_interest_margin is not None:
        yield is_set | is_given("venue.initial_multiplier")
    taker = read("venue.fees.taker")
    taker = taker if "venue.fees.taker" in sets else find_newest(taker)
    fee = np.where(read("venue.includes_close_fee"), taker, 0.0)
    for row in (row for table in venue.tables() for row in table):
        yield (row.maintenance_rate + fee) * row.max_leverage > 1 + TOLERANCE


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

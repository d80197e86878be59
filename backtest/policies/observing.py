"""Observe the columns of policies, checked once for each policy and market."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backtest import core
from backtest._compile.bytecode import describe_function, format_location
from backtest.core import RAISED, BacktestError, FloatArray, PolicyError
from backtest.core.code_names import is_series, pd
from backtest.market import Market
from backtest.policies.combinators import list_written
from backtest.policies.lookahead import ENOUGH, Causality, LookAheadCheck
from backtest.policies.parameters import change_settings, number_elements
from backtest.policies.policy import BAR_FIELDS, Columns, Policy

OURS = ("backtest", "strategies", "builtins")
OBSERVED, CHECKED = "observed", "checked"
"""Facts of a market: the columns of the last policy, and the kinds of policies checked in full."""


def observe(policy: Policy, market: Market) -> dict[str, FloatArray]:
    """Return the policy's columns, each of one number per bar."""
    try:
        columns = policy.observe(market)
    except BacktestError:
        raise
    except RAISED as error:
        written = [cls.observe for cls in list_written(type(policy))]
        raise PolicyError(
            f"{type(policy).__name__}.observe raised {type(error).__name__}: {error}, in "
            f"{format_location(error, *written)}"
            + f"; the further columns of this market are {', '.join(market.columns) or 'none'}"
            * isinstance(error, KeyError)
        ) from error
    return check_columns(policy, columns, market.n_bars)


def takes_arrays(policy: Policy) -> bool:
    """Return whether the class that defines ``observe`` declares that it takes arrays."""
    return is_of_arrays(type(policy))


def is_of_arrays(cls: type[Policy]) -> bool:
    owner = next(each for each in cls.__mro__ if "observe" in vars(each))
    return bool(vars(owner).get("takes_arrays", False))


def parts_take_arrays(policy: Policy) -> bool:
    """Return whether a policy takes arrays, or all policies that it combines."""
    cls: Any = type(policy)
    parts = getattr(cls, "parts", ())
    if not parts or cls.written.observe is not Policy.observe:
        return is_of_arrays(cls)
    return all(is_of_arrays(part.policy) for part in parts)


def observe_together(
    observe: Callable[[], Columns], alone: Mapping[int, Mapping[str, FloatArray]], n: int
) -> dict[str, FloatArray]:
    """Return the columns (n_bars, n) of n settings or paths; none where they are not those alone.

    ``alone`` are the columns (n_bars,) of some of the n, by place.
    """
    try:
        seen = observe()
    except Exception:  # it takes one value
        return {}
    is_same = all(
        seen.keys() == own.keys()
        and all(np.shape(seen[name]) == (len(each), n) for name, each in own.items())
        and all(
            np.array_equal(seen[name][:, k], each, equal_nan=True) for name, each in own.items()
        )
        for k, own in alone.items()
    )
    return dict(seen) if is_same else {}


def observe_checked(
    policy: Policy, market: Market, *, effort: int = 1
) -> tuple[dict[str, FloatArray], Causality]:
    key, kept = find_key(policy, market), vars(market)["facts"]
    last = kept.get(OBSERVED)  # read once: another thread may keep those of its own policy
    if key is not None and effort == 1 and last is not None and last[0] == key:
        return dict(last[1]), last[2]

    def observe_whole() -> Columns:
        return observe(change_settings(policy, {}), market)

    columns, causality = check_once(policy, market, observe_whole, effort=effort)
    if key is not None:
        kept[OBSERVED] = key, dict(columns), causality
    return dict(columns), causality


def check_once(
    policy: Policy, market: Market, observe_whole: Callable[[], Columns], *, effort: int = 1
) -> tuple[Columns, Causality]:
    """Return the columns of the whole market, and how they were checked for looking ahead.

    The first policy of some code is checked in full, those with other numbers at the largest moves.
    """
    check = start_check(policy, market, effort)
    kind = find_kind(policy, market) if effort == 1 else None
    kinds: dict[object, Causality] = vars(market)["facts"].setdefault(CHECKED, {})
    if kind in kinds:
        columns = check.run_briefly(observe_whole, kinds[kind])
        if columns is not None:
            return columns, check.causality

    columns = check.run(observe_whole)
    if kind is not None and check.causality.cuts >= ENOUGH:
        kinds[kind] = check.causality
    return columns, check.causality


def start_check(policy: Policy, market: Market, effort: int = 1) -> LookAheadCheck:
    def observe_part(part: Market) -> Columns | None:
        try:
            seen = change_settings(policy, {}).observe(part)
        except RAISED:  # of too few bars; the whole raises it again
            return None
        return check_columns(policy, seen, part.n_bars)

    name = type(policy).__name__
    return LookAheadCheck(name, observe_part, market, find_tolerance(policy), effort)


def find_tolerance(policy: Policy) -> float:
    parts = getattr(policy, "parts", ())
    return max([policy.tolerance, *(find_tolerance(part.policy) for part in parts)])


def find_key(policy: Policy, market: Market) -> tuple[object, ...] | None:
    """Return what columns depend on but bars; None of a user's policy, or if the signal varies."""
    cls, signal = type(policy), market.signal
    if getattr(policy, "parts", ()) or not is_ours(cls) or np.any(signal != signal[0]):
        return None
    return cls, cls.observe, float(signal[0]), repr(policy)


def is_ours(cls: type[Policy]) -> bool:
    return all(base.__module__.partition(".")[0] in OURS for base in cls.__mro__)


def find_kind(policy: Policy, market: Market) -> tuple[object, ...] | None:
    """Return what columns depend on but bars and numbers: code, choices, the names of all values.

    None if the signal varies, or the code refers to what may change, as a table does.
    """
    cls, signal = type(policy), market.signal
    if getattr(policy, "parts", ()) or np.any(signal != signal[0]):
        return None
    source = ""
    if not is_ours(cls):
        code = describe_function(cls.observe, {})
        if not code.is_complete or vars(policy).keys() != policy.parameters().keys():
            return None
        source = code.text
    values = number_elements(policy.settings())
    choices = tuple((k, None if type(x) in {int, float} else x) for k, x in values.items())
    return cls, cls.observe, source, policy.tolerance, float(signal[0]), choices


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

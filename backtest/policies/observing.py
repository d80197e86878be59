"""Observe the columns of policies, checked once for each policy and market."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest._compile.bytecode import describe_function, format_location
from backtest.core import RAISED, BacktestError, FloatArray, PolicyError
from backtest.core.code_names import is_series, pd
from backtest.market import Market, find_facts, find_shared_facts
from backtest.policies.combinators import list_written
from backtest.policies.lookahead import ENOUGH, Causality, LookAheadCheck
from backtest.policies.parameters import change_settings, number_elements
from backtest.policies.policy import BAR_FIELDS, Columns, Policy

OURS = ("backtest", "strategies", "builtins")
"""Modules whose policies compute from the market and their parameters alone."""
OBSERVED = "observed"
"""Fact of a market: the columns of the last policy."""
LONGER = 2
"""How many times as many bars a market may have as the beginning on which code was checked."""


def observe(policy: Policy, market: Market) -> dict[str, FloatArray]:
    """Return the policy's columns, each of one number per bar."""
    try:
        columns = policy.observe(market)
    except BacktestError:
        raise
    except RAISED as error:
        formulas = [cls.observe for cls in list_written(type(policy))]
        message = (
            f"{type(policy).__name__}.observe raised {type(error).__name__}: {error}, in "
            f"{format_location(error, *formulas)}"
        )

        # A name that is missing may be that of a column which the market lacks.
        if isinstance(error, KeyError):
            names = ", ".join(market.columns) or "none"
            message = f"{message}; the further columns of this market are {names}"
        raise PolicyError(message) from error
    return check_columns(policy, columns, market.n_bars)


def takes_arrays(policy: Policy) -> bool:
    """Return whether the class that defines ``observe`` declares that it takes arrays."""
    return is_of_arrays(type(policy))


def is_of_arrays(cls: type[Policy]) -> bool:
    """Return whether the class in which ``observe`` is defined declares that it takes arrays."""
    owner = next(base for base in cls.__mro__ if "observe" in vars(base))
    return bool(vars(owner).get("takes_arrays", False))


def parts_take_arrays(policy: Policy) -> bool:
    """Return whether a policy takes arrays, or all policies that it combines."""
    cls: Any = type(policy)
    parts = getattr(cls, "parts", ())
    if not parts or cls.written.observe is not Policy.observe:
        return is_of_arrays(cls)
    return all(is_of_arrays(part.policy) for part in parts)


def observe_together(
    observe: Callable[[], Columns],
    alone: Mapping[int, Mapping[str, FloatArray]],
    n: int,
) -> dict[str, FloatArray]:
    """Return the columns of n settings or paths observed in one call, (n_bars, n) by name.

    ``alone`` are the columns (n_bars,) of some of the n observed by themselves, by place. Nothing
    is returned if the policy cannot take n values at once, or then computes other columns.
    """
    try:
        together = observe()
    except Exception:  # code of a policy that takes one value may raise anything
        return {}
    for place, columns in alone.items():
        if not holds_at(together, place, columns, n):
            return {}
    return dict(together)


def holds_at(
    together: Columns,
    place: int,
    alone: Mapping[str, FloatArray],
    n: int,
) -> bool:
    """Return whether columns (n_bars, n) have at a place the columns (n_bars,) observed alone."""
    if together.keys() != alone.keys():
        return False
    for name, column in alone.items():
        if np.shape(together[name]) != (len(column), n):
            return False
        if not np.array_equal(together[name][:, place], column, equal_nan=True):
            return False
    return True


def observe_checked(
    policy: Policy,
    market: Market,
    *,
    effort: int = 1,
) -> tuple[dict[str, FloatArray], Causality]:
    """Return a policy's columns, and how they were checked for looking ahead.

    The last ones of a market are kept with it, as a fact of its own, for a policy that is equal. A
    check of more than the usual ``effort`` is always made anew.
    """
    key = find_key(policy, market)
    facts = find_facts(market)

    # Read once: another thread may keep the columns of its own policy meanwhile.
    last: Observed | None = facts.get(OBSERVED)
    if key is not None and effort == 1 and last is not None and last.key == key:
        return dict(last.columns), last.causality

    def observe_whole() -> Columns:
        """Observe a copy of the policy, which holds nothing of the calls for parts."""
        return observe(change_settings(policy, {}), market)

    columns, causality = check_once(policy, market, observe_whole, effort=effort)
    if key is not None:
        facts[OBSERVED] = Observed(key, dict(columns), causality)
    return dict(columns), causality


class Observed(NamedTuple):
    """The columns of the last policy of a market, and how they were checked."""

    key: tuple[object, ...]
    columns: Columns
    causality: Causality


def check_once(
    policy: Policy,
    market: Market,
    observe_whole: Callable[[], Columns],
    *,
    effort: int = 1,
) -> tuple[Columns, Causality]:
    """Return the columns of the whole market, and how they were checked for looking ahead.

    Code is checked in full once, and the check is kept. Policies of the same code with other
    numbers are then checked briefly, at the largest moves of the market. An ``effort`` over 1 is
    always a full check, and is not kept.
    """
    check = start_check(policy, market, effort)
    if effort != 1:
        columns = check.run(observe_whole)
        return columns, check.causality

    # Brief, where the code was checked in full; None if the columns are known at too few moves.
    kind = find_kind(policy, market)
    full_check = find_full_check(kind, market)
    if full_check is not None:
        brief_columns = check.run_briefly(observe_whole, full_check.causality)
        if brief_columns is not None:
            return brief_columns, check.causality

    # In full, for the policies that come after it too.
    columns = check.run(observe_whole)
    keep_full_check(kind, market, check.causality)
    return columns, check.causality


class CheckedKind(NamedTuple):
    """How code was checked in full, and the bars of the market on which it was."""

    causality: Causality
    n_bars: int


def find_full_check(kind: tuple[object, ...] | None, market: Market) -> CheckedKind | None:
    """Return the full check of a kind of policy that holds for a market, None if there is none.

    It was made on this market, on a longer one that this is the beginning of, or on a beginning of
    it: there it holds up to ``LONGER`` times as many bars, as code may look ahead only later.
    """
    full_check: CheckedKind | None = find_shared_facts(market).get(kind)
    if full_check is None or market.n_bars > LONGER * full_check.n_bars:
        return None
    return full_check


def keep_full_check(
    kind: tuple[object, ...] | None,
    market: Market,
    causality: Causality,
) -> None:
    """Keep a full check with the market and its beginnings, for other policies of the kind.

    A policy without a kind (:func:`find_kind`), and a check of too few cuts, vouch for no other.
    """
    if kind is not None and causality.cuts >= ENOUGH:
        find_shared_facts(market)[kind] = CheckedKind(causality, market.n_bars)


def start_check(
    policy: Policy,
    market: Market,
    effort: int = 1,
) -> LookAheadCheck:
    """Return the check of a policy on a market; parts with too few bars for it count as none."""

    def observe_part(part: Market) -> Columns | None:
        try:
            columns = change_settings(policy, {}).observe(part)
        except RAISED:  # of too few bars; the whole raises it again
            return None
        return check_columns(policy, columns, part.n_bars)

    return LookAheadCheck(
        type(policy).__name__,
        observe_part,
        market,
        tolerance=find_tolerance(policy),
        effort=effort,
    )


def find_tolerance(policy: Policy) -> float:
    """Return the tolerance of a policy, the largest of those inside it."""
    parts = getattr(policy, "parts", ())
    return max([policy.tolerance, *(find_tolerance(part.policy) for part in parts)])


def find_key(policy: Policy, market: Market) -> tuple[object, ...] | None:
    """Return what columns depend on beside the bars: code, signal and parameters of a policy.

    None where that cannot be said: of a user's policy, whose code may depend on anything, of a
    combinator, and of a signal that is not one number.
    """
    cls = type(policy)
    signal = market.signal
    has_parts = bool(getattr(policy, "parts", ()))
    varies = bool(np.any(signal != signal[0]))
    if has_parts or varies or not is_ours(cls):
        return None
    return cls, cls.observe, float(signal[0]), repr(policy)


def is_ours(cls: type[Policy]) -> bool:
    """Return whether a class and all its bases are of this package."""
    return all(base.__module__.partition(".")[0] in OURS for base in cls.__mro__)


def find_kind(policy: Policy, market: Market) -> tuple[object, ...] | None:
    """Return what columns depend on beside bars and numbers: code, choices, names of all values.

    Policies of one kind look ahead alike, so one of them is checked in full. None if the signal
    varies, or the code refers to what may change, as a table does: such a policy has no kind.
    """
    cls = type(policy)
    signal = market.signal
    has_parts = bool(getattr(policy, "parts", ()))
    varies = bool(np.any(signal != signal[0]))
    if has_parts or varies:
        return None

    # Ours refer to nothing that may change, so the class says what their code is.
    source = ""
    if not is_ours(cls):
        code = describe_function(cls.observe, {})
        holds_parameters_alone = vars(policy).keys() == policy.parameters().keys()
        if not code.is_complete or not holds_parameters_alone:
            return None
        source = code.text

    # A number has a name alone, and a choice its value too.
    choices: list[tuple[str, object]] = []
    for name, value in number_elements(policy.settings()).items():
        if type(value) in {int, float}:
            choices.append((name, None))
        else:
            choices.append((name, value))
    return cls, cls.observe, source, policy.tolerance, float(signal[0]), tuple(choices)


def check_columns(
    policy: Policy,
    columns: object,
    n_bars: int,
) -> dict[str, FloatArray]:
    """Return what ``observe`` returned as arrays of numbers, one per bar.

    Raises PolicyError for columns of another shape, kind or name.
    """
    method = f"{type(policy).__name__}.observe"
    if not isinstance(columns, Mapping):
        kind = type(columns).__name__
        raise PolicyError(f'{method} must return columns, {{"sigma": array}}, returned {kind}')

    # A formula reads a column as an attribute of the bar.
    checked = {}
    for name, values in columns.items():
        word = str(name)
        is_word = word.isidentifier() and not keyword.iskeyword(word) and word[0] != "_"
        if not is_word or name in BAR_FIELDS:
            raise PolicyError(
                f"a column of {method} must be named by an identifier other than "
                f"{', '.join(BAR_FIELDS)}, got {name!r}"
            )
        checked[word] = read_column(name, values, method, n_bars)
    return checked


def read_column(
    name: object,
    values: object,
    method: str,
    n_bars: int,
) -> FloatArray:
    """Return one column as floats; a Series must be by times, or by numbers that rise."""
    column = core.by_dates(values)
    if is_series(column):
        index = column.index
        is_by_bars = isinstance(index, pd.DatetimeIndex | pd.RangeIndex)
        if not is_by_bars or not index.is_monotonic_increasing:
            raise PolicyError(
                f"column {name!r} of {method} must be an array, or a Series by market.times, was "
                f"by {type(index).__name__}; pd.Series(values, index=market.times)"
            )

    try:
        array = np.ascontiguousarray(core.to_real(column))
        kind = f"an array of shape {array.shape}"
    except (TypeError, ValueError):
        array = np.empty(0)
        kind = str(getattr(column, "dtype", type(column).__name__))

    if array.shape != (n_bars,):
        raise PolicyError(
            f"column {name!r} of {method} must be {n_bars} numbers, one per bar, got {kind}"
        )
    return array

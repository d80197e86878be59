"""Filter and sort the list of saved results."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from backtest.base import ParameterError, did_you_mean, parse_duration, to_nanoseconds
from backtest.measures.measure_names import ABOUT
from backtest.store.entry import StoreEntry
from backtest.store.kinds import list_kinds

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq,
    "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
BOUND = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")
FIELDS = ("saved", "name", "kind", "policy", "size", "seconds")
"""The columns a list can be sorted by, besides measures."""


class Bound(NamedTuple):
    """A bound on a measure, such as ``sharpe>1``."""

    measure: str
    sign: str
    value: float

    def matches(self, entry: StoreEntry) -> bool:
        """Return whether an entry has the measure and satisfies the bound."""
        found = entry.metrics.get(self.measure, math.nan)
        return not math.isnan(found) and OPERATORS[self.sign](found, self.value)


class Filter(NamedTuple):
    """Conditions that select entries of a list; an entry must satisfy all.

    Attributes
    ----------
    kinds : tuple of str
        The kinds selected; empty for all.
    policy, text : str
        Substrings of the policy, and of name, policy, data or note; case is ignored.
    bounds : tuple of Bound
        Bounds on measures. An entry without the measure does not match.
    since, before : int or None
        Saved at or after, and before, in nanoseconds since 1970.
    """

    kinds: tuple[str, ...] = ()
    policy: str = ""
    text: str = ""
    bounds: tuple[Bound, ...] = ()
    since: int | None = None
    before: int | None = None

    def matches(self, entry: StoreEntry) -> bool:
        """Return whether an entry is selected; an unreadable one never is."""
        words = (entry.name, entry.policy, entry.instrument, entry.source, entry.note)
        return (
            not entry.trouble
            and (not self.kinds or entry.kind in self.kinds)
            and normalize_name(self.policy) in normalize_name(entry.policy)
            and any(self.text.casefold() in word.casefold() for word in words)
            and all(bound.matches(entry) for bound in self.bounds)
            and (self.since is None or entry.saved >= self.since)
            and (self.before is None or entry.saved < self.before)
        )


def normalize_name(text: str) -> str:
    """Return a policy's name without case and separators, for comparison.

    Examples
    --------
    >>> normalize_name("vol-target") == normalize_name("VolTarget")
    True
    """
    return re.sub(r"[\s_-]", "", text).casefold()


def read_kinds(texts: Iterable[str]) -> tuple[str, ...]:
    """Check the values of ``--kind``."""
    found = tuple(texts)
    for each in found:
        if each not in list_kinds():
            raise ParameterError(
                f"a kind must be one of {', '.join(list_kinds())}, got {each!r}"
                + did_you_mean(each, list_kinds()),
                where="--kind",
                cure="write for example --kind run",
            )
    return found


def read_bound(text: str, *, where: str = "--where") -> Bound:
    """Parse a bound such as ``"sharpe>1"``.

    Examples
    --------
    >>> read_bound("max_drawdown <= 0.4")
    Bound(measure='max_drawdown', sign='<=', value=0.4)
    """
    match, value = BOUND.fullmatch(text), math.nan
    with suppress(ValueError):
        value = float(match[3]) if match else math.nan
    if match is None or math.isnan(value):
        raise ParameterError(
            f"a bound must be MEASURE, a sign and a number, got {text!r:.80}",
            where=where,
            cure="write for example --where 'max_drawdown<=0.4', in quotes",
        )
    return Bound(check_measure(match[1], where=where), match[2], value)


def check_measure(name: str, *, where: str, others: Sequence[str] = ()) -> str:
    """Check that a name is a measure, or one of some other words."""
    known = (*others, *ABOUT)
    if name not in known:
        raise ParameterError(
            f"a measure must be known, got {name!r:.40}{did_you_mean(name, known)}",
            where=where,
            cure="docs/metrics.md lists the measures"
            + (f"; or use {', '.join(others)}" if others else ""),
        )
    return name


def read_time_or_age(text: str, now: int, *, where: str) -> int:
    """Return the time of a date, or of an age before ``now`` such as ``"7d"``, in nanoseconds."""
    with suppress(ParameterError):
        return now - parse_duration(text, where=where)
    return to_nanoseconds(text, where=where)


def sort_entries(
    entries: Iterable[StoreEntry], by: str = "saved", *, is_reversed: bool = False
) -> list[StoreEntry]:
    """Sort entries by a measure (best first) or one of :data:`FIELDS`.

    Times and sizes fall, text and seconds rise. ``is_reversed`` reverses the order, but entries
    without the value stay last. If more or less of a measure is better, ruined accounts follow all
    others, the longest lived first: their ratios ignore everything after the ruin.
    """
    check_measure(by, where="--sort", others=FIELDS)
    named = sorted(entries, key=lambda each: each.name)
    if by == "seconds":
        sign = -1.0 if is_reversed else 1.0
        return sorted(
            named, key=lambda each: math.inf if each.seconds is None else sign * each.seconds
        )
    if by in FIELDS:
        falls = (by in ("saved", "size")) != is_reversed
        return sorted(named, key=lambda each: getattr(each, by), reverse=falls)
    return sort_by_measure(named, by, is_reversed=is_reversed)


def sort_by_measure(entries: list[StoreEntry], by: str, *, is_reversed: bool) -> list[StoreEntry]:
    """Sort entries by a measure, as :func:`sort_entries` describes."""
    is_ranked = ABOUT[by].better != 0
    sign = -1.0 if (ABOUT[by].better >= 0) != is_reversed else 1.0
    turn = -1 if is_reversed else 1

    def find_rank(each: StoreEntry) -> tuple[int, float]:
        value, ruined, days = (
            each.metrics.get(name, math.nan) for name in (by, "ruined", "ruin_time")
        )
        if is_ranked and ruined > 0.0:
            return turn, 0.0 if math.isnan(days) else -turn * days
        if not math.isnan(value):
            return -turn, sign * value
        return (0 if is_ranked and ruined == 0.0 else 2), 0.0

    return sorted(entries, key=find_rank)

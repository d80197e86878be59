"""Filter and sort the list of saved results."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.units import parse_duration, to_nanoseconds
from backtest.measures.measure_names import ABOUT
from backtest.store.entry import StoreEntry
from backtest.store.kinds import KINDS

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq,
    "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
BOUND = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")
FIELDS = ("saved", "name", "kind", "policy", "size", "seconds")
"""What a list can be sorted by besides measures."""


class Bound(NamedTuple):
    """A bound on a measure, such as ``sharpe>1``."""

    measure: str
    sign: str
    value: float

    def matches(self, entry: StoreEntry) -> bool:
        """Return whether an entry has the measure, and keeps the bound."""
        found = entry.metrics.get(self.measure, math.nan)
        return not math.isnan(found) and OPERATORS[self.sign](found, self.value)


class Filter(NamedTuple):
    """Which entries of a list are meant: all conditions must hold.

    Attributes
    ----------
    kinds : tuple of str
        One of these; any where there is none.
    policy, text : str
        Parts of the policy, and of name, policy, data or note; upper and lower case are alike.
    bounds : tuple of Bound
        All must hold. An entry that has not the measure is left out.
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
        """Return whether an entry is meant; one that cannot be read never is."""
        words = (entry.name, entry.policy, entry.instrument, entry.source, entry.note)
        return (
            not entry.trouble
            and (not self.kinds or entry.kind in self.kinds)
            and fold_name(self.policy) in fold_name(entry.policy)
            and any(self.text.casefold() in word.casefold() for word in words)
            and all(bound.matches(entry) for bound in self.bounds)
            and (self.since is None or entry.saved >= self.since)
            and (self.before is None or entry.saved < self.before)
        )


def fold_name(text: str) -> str:
    """Return the letters of a policy's name without case and separators.

    Examples
    --------
    >>> fold_name("vol-target") == fold_name("VolTarget")
    True
    """
    return re.sub(r"[\s_-]", "", text).casefold()


def read_kinds(texts: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of results."""
    found = tuple(texts)
    for each in found:
        if each not in KINDS:
            raise ParameterError(
                f"a kind must be one of {', '.join(KINDS)}, was {each!r}"
                + did_you_mean(each, KINDS),
                where="--kind",
                cure="write for example --kind run",
            )
    return found


def read_bound(text: str, *, where: str = "--where") -> Bound:
    """Return a bound such as ``"sharpe>1"``.

    Examples
    --------
    >>> read_bound("max_drawdown <= 0.4")
    Bound(measure='max_drawdown', sign='<=', value=0.4)
    """
    match = BOUND.fullmatch(text)
    value = math.nan
    if match is not None:
        try:
            value = float(match[3])
        except ValueError:
            match = None
    if match is None or math.isnan(value):
        raise ParameterError(
            f"a bound must be MEASURE, a sign and a number, was {text!r:.80}",
            where=where,
            cure="write for example --where 'max_drawdown<=0.4', in quotes",
        )
    return Bound(check_measure(match[1], where=where), match[2], value)


def check_measure(name: str, *, where: str, others: Sequence[str] = ()) -> str:
    """Return the name of a measure, or one of some other words."""
    known = (*others, *ABOUT)
    if name not in known:
        raise ParameterError(
            f"a measure must be known, was {name!r:.40}{did_you_mean(name, known)}",
            where=where,
            cure="docs/metrics.md lists the measures"
            + (f"; or use {', '.join(others)}" if others else ""),
        )
    return name


def read_time_or_age(text: str, now: int, *, where: str) -> int:
    """Return the time of a date, or of an age such as ``"7d"`` or ``"12h"``, in nanoseconds."""
    with suppress(ParameterError):
        return now - parse_duration(text, where=where)
    return to_nanoseconds(text, where=where)


def sort_entries(
    entries: Iterable[StoreEntry], by: str = "saved", *, is_reversed: bool = False
) -> list[StoreEntry]:
    """Sort entries: measures from the best, times from the newest, words from A.

    By a measure of which more or less is better, ruined accounts are worse than all others, the
    longest lived first: their ratios keep the returns from before.

    Parameters
    ----------
    entries : iterable of StoreEntry
        What is listed.
    by : str
        A measure; or saved, name, kind, policy, size, seconds (from the shortest).
    is_reversed : bool
        The other way round; entries of which the measure is not known stay last.
    """
    check_measure(by, where="--sort", others=FIELDS)
    named = sorted(entries, key=lambda each: each.name)
    if by == "seconds":
        timed = [each for each in named if each.seconds is not None]
        rest = [each for each in named if each.seconds is None]
        return sorted(timed, key=lambda each: each.seconds or 0.0, reverse=is_reversed) + rest
    if by in FIELDS:
        falls = (by in ("saved", "size")) != is_reversed
        return sorted(named, key=lambda each: getattr(each, by), reverse=falls)
    return sort_by_measure(named, by, is_reversed=is_reversed)


def sort_by_measure(entries: list[StoreEntry], by: str, *, is_reversed: bool) -> list[StoreEntry]:
    """Return entries from the best by a measure, as :func:`sort_entries` says."""
    falls = (ABOUT[by].better >= 0) != is_reversed

    def find_tier(each: StoreEntry) -> int:
        ruined = each.metrics.get("ruined", math.nan)
        is_known = not math.isnan(each.metrics.get(by, math.nan))
        if ABOUT[by].better == 0:
            return 0 if is_known else 3
        if ruined > 0.0:
            return 2
        return 0 if is_known else 1 if ruined == 0.0 else 3

    tiers: list[list[StoreEntry]] = [[], [], [], []]
    for each in entries:
        tiers[find_tier(each)].append(each)
    known, living, ruined, unknown = tiers
    known = sorted(known, key=lambda each: each.metrics[by], reverse=falls)
    ruined = sorted(ruined, key=find_ruin_time, reverse=not is_reversed)
    return (ruined + living + known if is_reversed else known + living + ruined) + unknown


def find_ruin_time(entry: StoreEntry) -> float:
    """Return the days until a ruined account was ruined; 0 where they are not known."""
    days = entry.metrics.get("ruin_time", math.nan)
    return 0.0 if math.isnan(days) else days

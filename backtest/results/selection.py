"""Which entries of a store a list shows, and in which order."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest.results.listing import KINDS, StoreEntry
from backtest.results.measure_table import ABOUT
from backtest.results.ranking import Constraint, order_sets

FIELDS = ("saved", "name", "kind", "policy", "size", "seconds")
"""What entries are sorted by beside measures."""
LARGEST_FIRST = ("saved", "size")


class Filter(NamedTuple):
    """Conditions that select entries; an entry must satisfy all.

    ``policy`` is a part of the policy, ``text`` one of name, policy, data or note; case is ignored.
    An entry without a measure matches no bound on it. ``since`` and ``before`` are in ns.
    """

    kinds: tuple[str, ...] = ()
    policy: str = ""
    text: str = ""
    bounds: tuple[Constraint, ...] = ()
    since: int | None = None
    before: int | None = None

    def matches(self, entry: StoreEntry) -> bool:
        """Return whether an entry satisfies all conditions; one in trouble satisfies none."""
        if entry.trouble:
            return False
        if self.kinds and entry.kind not in self.kinds:
            return False
        if self.policy and normalize_name(self.policy) not in normalize_name(entry.policy):
            return False

        if not self.has_text(entry):
            return False
        if self.bounds and not self.is_within_bounds(entry):
            return False

        if self.since is not None and entry.saved < self.since:
            return False
        return self.before is None or entry.saved < self.before

    def has_text(self, entry: StoreEntry) -> bool:
        """Return whether one of the texts of an entry has that of the filter."""
        texts = (entry.name, entry.policy, entry.instrument, entry.source, entry.note)
        return any(self.text.casefold() in text.casefold() for text in texts)

    def is_within_bounds(self, entry: StoreEntry) -> bool:
        """Return whether the measures of an entry violate no bound; NaN violates all."""
        names = ["ruined", *(bound.name for bound in self.bounds)]
        measures = {name: read_measure([entry], name) for name in names}
        return all(bound.violation(measures)[0] == 0.0 for bound in self.bounds)


def normalize_name(text: str) -> str:
    """Return a name without case, spaces, hyphens and underscores: VolTarget is vol-target."""
    return re.sub(r"[\s_-]", "", text).casefold()


def read_kinds(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(core.Choice(*KINDS).check("kind", text) for text in texts)


def read_time_or_age(text: str, now: int, *, where: str) -> int:
    """Return the time of a date, or of an age before ``now`` such as ``"7d"``, in nanoseconds."""
    with contextlib.suppress(core.ParameterError):
        return now - core.parse_duration(text)
    return core.to_nanoseconds(text, where)


def sort_entries(
    entries: Iterable[StoreEntry],
    by: str = "saved",
    *,
    is_reversed: bool = False,
) -> list[StoreEntry]:
    """Return entries by a field or a measure, equal ones by name, those without it last."""
    if by not in (*FIELDS, *ABOUT):
        raise core.ParameterError(
            f"sort must be a measure (docs/metrics.md) or one of {', '.join(FIELDS)}, got "
            f"{by!r:.40}{core.did_you_mean(by, (*FIELDS, *ABOUT))}"
        )

    named = sorted(entries, key=lambda entry: entry.name)
    if by not in FIELDS:
        return sort_by_measure(named, by, is_reversed=is_reversed)
    known = [entry for entry in named if getattr(entry, by) is not None]
    unknown = [entry for entry in named if getattr(entry, by) is None]
    is_falling = (by in LARGEST_FIRST) != is_reversed
    known.sort(key=lambda entry: getattr(entry, by), reverse=is_falling)
    return known + unknown


def sort_by_measure(
    entries: list[StoreEntry],
    by: str,
    *,
    is_reversed: bool,
) -> list[StoreEntry]:
    """Return entries from the best to the worst, those without the measure last."""
    # Equal entries stay in the order in which they are ranked, that of names. So those of a list
    # from the worst to the best are reversed before they are ranked, and again after it.
    ordered = entries[::-1] if is_reversed else entries
    values = read_measure(ordered, by)
    ruined = read_measure(ordered, "ruined")
    days = read_measure(ordered, "ruin_time")

    # Of a measure that is neither good nor bad, ruin decides nothing.
    better = ABOUT[by].better
    if better == 0:
        ruined = np.full(len(ordered), math.nan)
    is_unknown = np.isnan(values) & np.isnan(ruined)
    scores = -values if better < 0 else values
    order = order_sets(
        scores,
        violations=np.zeros(len(ordered)),
        ruined=ruined,
        ruin_time=days,
        failed=is_unknown,
    )

    ranked = [ordered[place] for place in order]
    if not is_reversed:
        return ranked
    n_known = int(np.sum(~is_unknown))
    return ranked[:n_known][::-1] + ranked[n_known:][::-1]


def read_measure(entries: Iterable[StoreEntry], name: str) -> core.FloatArray:
    """Return a measure of entries, of shape (n_entries,), NaN of those without it."""
    return np.array([entry.metrics.get(name, math.nan) for entry in entries])

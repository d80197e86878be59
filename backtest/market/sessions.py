"""When the next sessions of a market are expected: its weekdays, without its holidays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest.core import IntArray
from backtest.core.code_names import pd
from backtest.core.units import DAY

WEEKDAYS_SEEN = 364 * DAY
"""Weekdays of sessions are those of the last 52 weeks of the data."""
ENOUGH_WEEKS = 0.5
"""A weekday has sessions if at least this share of the weeks had one on it."""
BY_DATE = "date"
YEARS_BY_DATE = 2
YEARS_BY_RULE = 3
"""A rule makes a holiday if so many of its last days were closed. A holiday of a date may fall on
the last Monday of its month two years in a row, so the others need three."""


def find_later_sessions(time: IntArray, count: int) -> list[pd.Timestamp]:
    """Return the UTC days on which the next sessions after the last bar are expected.

    ``time`` of shape (n_bars,) holds the opens of a market with sessions, UTC ns. A day is left out
    if the data have no sessions on its weekday, or if it is a holiday by their own past: closed at
    the same date, the n-th or last such weekday of the month, or the same distance from Easter.
    """
    days = pd.DatetimeIndex(np.unique(time // DAY) * DAY)
    weekdays = find_weekdays(days)

    later: list[pd.Timestamp] = []
    day = days[-1]
    while len(later) < count:
        day += pd.Timedelta(days=1)
        if day.weekday() in weekdays and not is_holiday(day, days, weekdays):
            later.append(day)
    return later


def find_weekdays(days: pd.DatetimeIndex) -> set[int]:
    """Return the weekdays with sessions, 0 for Monday, by the last 52 weeks of ``days``.

    All weekdays if the data are under a week long.
    """
    before = days[-1] - pd.Timedelta(WEEKDAYS_SEEN, unit="ns")
    seen = days[days > before]
    span = seen[-1] - seen[0]
    weeks = (span.days + 1) / 7.0
    if weeks < 1.0:
        return {*range(7)}

    counts = np.bincount(seen.day_of_week, minlength=7)
    weekdays = np.flatnonzero(counts >= ENOUGH_WEEKS * weeks)
    return {*weekdays.tolist()}


def is_holiday(day: pd.Timestamp, days: pd.DatetimeIndex, weekdays: set[int]) -> bool:
    """Return whether a market is expected to be closed on a day of sessions, by its own past.

    ``days`` are all days with sessions, ``weekdays`` those that have them. A rule may close the day
    itself, or a holiday of a date that falls on the weekend beside it.
    """
    if find_closed_rules(day, days, weekdays):
        return True

    # A date on a weekend is observed on the Friday before or the Monday after.
    for step in (-1, 1):
        beside = day + pd.Timedelta(days=step)
        is_weekend = beside.weekday() not in weekdays
        if not is_weekend:
            continue
        rules = find_closed_rules(beside, days, weekdays)
        if BY_DATE in rules:
            return True
    return False


def find_closed_rules(day: pd.Timestamp, days: pd.DatetimeIndex, weekdays: set[int]) -> set[str]:
    """Return the rules of holidays by which a day is closed, by its own past.

    A rule puts a day of each past year beside the day: the same date, the same such weekday of the
    month, the same distance from Easter. It closes the day if all of them were closed in the last
    years. ``days`` are those with sessions; only ``weekdays`` count.
    """
    # Of each rule, whether its day was closed: last year, the year before, and so on.
    closed_by_rule: dict[str, list[bool]] = {}
    first_day = days[0]
    for year in range(day.year - 1, first_day.year - 1, -1):
        for rule, earlier in list_anniversaries(day, year):
            if earlier < first_day or earlier.weekday() not in weekdays:
                continue
            was_closed = earlier not in days
            closed_by_rule.setdefault(rule, []).append(was_closed)

    rules = set()
    for rule, were_closed in closed_by_rule.items():
        years = YEARS_BY_RULE
        if rule == BY_DATE:
            years = YEARS_BY_DATE
        has_years = len(were_closed) >= years
        if has_years and all(were_closed[:years]):
            rules.add(rule)
    return rules


def list_anniversaries(day: pd.Timestamp, year: int) -> Iterator[tuple[str, pd.Timestamp]]:
    """Yield by the name of each rule of holidays the day of an earlier year that is like a day."""
    first = pd.Timestamp(year, day.month, 1)
    if day.day <= first.days_in_month:
        yield BY_DATE, first.replace(day=day.day)

    # The n-th such weekday of the month: the 3rd Monday, for example.
    first_such_day = 1 + (day.weekday() - first.weekday()) % 7
    weeks_before = (day.day - 1) // 7
    nth_such_day = first_such_day + 7 * weeks_before
    if nth_such_day <= first.days_in_month:
        yield "weekday", first.replace(day=nth_such_day)

    # The last such weekday of the month.
    is_last = day.day + 7 > day.days_in_month
    if is_last:
        weeks_left = (first.days_in_month - first_such_day) // 7
        yield "last weekday", first.replace(day=first_such_day + 7 * weeks_left)

    since_easter = day - find_easter(day.year)
    yield "Easter", find_easter(year) + since_easter


def find_easter(year: int) -> pd.Timestamp:
    """Return the day of Easter Sunday."""
    return pd.Timestamp(year, 1, 1) + pd.offsets.Easter()

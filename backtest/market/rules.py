"""The rules of market data in one table: what is an error, what a doubt, and what repairs it.

Loading raises all errors at once; :func:`backtest.quality` counts all of them. Repairs are
requested by name and leave a note; none is a default.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core import BoolArray, FloatArray, IntArray, format_duration, format_time
from backtest.core.code_names import pd
from backtest.core.units import DAY, HOUR, MINUTE, SECOND
from backtest.market import tables
from backtest.market.rule_subjects import Hit, Rule, Subject, find_rows
from backtest.market.shifted import find_late_marks, find_odd_hours
from backtest.market.tables import (
    PRICES,
    USUAL,
    Span,
    TimedTable,
    is_increasing,
    is_price,
    lacks_prices,
    spacing,
)

MAX_MARK = 0.20
"""How far marks may be from last prices at the median of a stretch, as a fraction. On hourly BTC,
ETH and LTC perpetuals of 2019 to 2023 the largest median of 48 bars is 0.2 %."""

STRETCH = 1000
"""Bars in a stretch."""

FEWEST = 24
"""The fewest bars with marks that are checked: fewer may all lie in one crash."""

HIGHEST_RATE = 0.005
"""The largest median size of funding rates per 8 hours over 20 days, as a fraction: 548 % a year.
On the same perpetuals the largest is 0.16 %, in the spring of 2021."""

PERIOD = 20 * DAY
"""The time over which the median of rates is taken: a squeeze ends sooner."""

ONE_SIDED = 0.75
"""The share of a stretch's rates with the same sign from which the stretch is checked. Markets lean
to one side for weeks; rates generated as noise around 0 do not, whatever their size."""

DOUBTFUL_MARK = 0.01
DOUBTFUL_RATE = 0.0025
"""The same measures of marks and of rates from which they are a doubt."""

MAX_MOVES = 20.0
WINDOW = 201
MIN_MOVE = 1e-4
"""An outlier is this many typical moves away: the median of this many bars, at least 1 bp."""

WICK = 0.01
"""The distance beyond the mark's range from which a wick is counted, as a fraction."""

UNIT_CHANGE = 3.0
NEAR_CLOSES = 24
"""How many times the median of so many closes before is a change of unit, or the inverse of it."""

FEWEST_CHANGES = 6
"""Changes of a rate from which on their times are judged: by chance, all fit once in 4,096."""

MOST_REPAIRED = 0.5
"""The largest share of rows that a repair may change. What most bars break is no fault of single
bars: other columns were read. BitMEX, whose open is the close before, has an open outside of the
range only where the first trade of a bar jumps."""

STILL_BAD = 0.01
"""The share of bars that may break the rule of ranges after high and low are swapped, and the swap
still be the cure: single bars are bad in most files."""

LISTED = 10
"""How many places of a rule are listed."""

NOUNS = {"bars": "bars", "mark": "mark bars", "funding": "funding stamps"}


def find_disorder(subject: Subject) -> list[Hit]:
    """Find rows that are stamped before the row above them."""
    time = subject.table.time
    is_earlier = np.diff(time, prepend=time[:1]) < 0
    noun = NOUNS[subject.role]
    text = f"{noun} must be in order of time, {{n}} of {{of}} came before the one above"
    return find_rows(time, is_earlier, text)


def find_repeats(subject: Subject) -> list[Hit]:
    """Find the rows of a table whose time a row before them has already.

    The finding says how many of them have other values than the row before: those cannot be dropped
    without a choice.
    """
    table = subject.table
    if is_increasing(table.time):
        return []
    order = np.argsort(table.time, kind="stable")
    time = table.time[order]
    cells = np.array([*table.columns.values()])[:, order]

    # A repeat that says the same as the row before is dropped without loss.
    is_again = np.diff(time, prepend=time[0] - 1) == 0
    repeats = cells[:, is_again]
    originals = cells[:, np.flatnonzero(is_again) - 1]
    are_both_unknown = np.isnan(repeats) & np.isnan(originals)
    are_same = (repeats == originals) | are_both_unknown
    differs = ~are_same.all(axis=0)

    noun = NOUNS[subject.role]
    text = f"{noun} must have each time once, {{n}} of {{of}} are duplicates"
    place = f"{differs.sum()} of {differs.size} with other values"
    return find_rows(time, is_again, text, places=(place,))


def is_off_grid(subject: Subject) -> BoolArray:
    """Return which bars open at other times than most: bool of shape (n,).

    Opens of bars lie on a grid of their length. In a market with sessions they may be any time
    apart, but no nearer than the length of a bar.
    """
    time = subject.time
    interval = subject.interval
    if not interval:
        return np.zeros(time.size, dtype=np.bool_)

    # Sessions may be any time apart, but no shorter than a bar.
    if subject.sessions:
        gaps = np.diff(time, prepend=time[:1] - interval)
        return np.asarray(gaps < interval)

    # The usual case, known without sorting.
    are_regular = np.diff(time) == interval
    if are_regular.all():
        return np.zeros(time.size, dtype=np.bool_)

    phase = time % interval
    phases, counts = np.unique(phase, return_counts=True)
    usual_phase = phases[counts.argmax()]
    return np.asarray(phase != usual_phase)


def find_off_grid(subject: Subject) -> list[Hit]:
    """Find bars that open at other times than most."""
    length = format_duration(subject.interval or 0)
    if subject.sessions:
        length = f"at least {length}"
    text = f"bars must open {length} apart, {{n}} of {{of}} open at other times"
    return find_rows(subject.time, is_off_grid(subject), text)


def find_bar_gaps(subject: Subject) -> list[Hit]:
    """Find the gaps between bars, and how many are missing in each.

    Not in a market with sessions, whose bars are not missing while it is closed. The cure names the
    longest stretch without a gap.
    """
    interval = subject.interval
    if not interval or subject.sessions:
        return []
    time = subject.time[~is_off_grid(subject)]
    steps = np.diff(time)
    holes = np.flatnonzero(steps > interval)
    if not holes.size:
        return []

    # The longest stretch between two holes, for the cure.
    stretches = np.split(time, holes + 1)
    longest = max(stretches, key=len)
    end = int(longest[-1]) + interval
    span = name_span(int(longest[0]), end)
    cure = (
        f"download them, or take the longest whole stretch, {span}, or give sessions=True if the "
        "market was closed then"
    )
    return hits_of_gaps(
        subject.table,
        f"bars must follow each other every {format_duration(interval)}",
        starts=time[holes] + interval,
        ends=time[holes + 1],
        missing=steps[holes] // interval - 1,
        cure=cure,
    )


def name_span(start: int, end: int) -> str:
    return f"since={format_time(start)!r}, until={format_time(end)!r}"


def hits_of_gaps(
    table: TimedTable, text: str, starts: IntArray, ends: IntArray, missing: IntArray, cure: str
) -> list[Hit]:
    """Return all gaps of a table as one finding, with how many rows lack in each and where.

    ``starts``, ``ends`` and ``missing`` have an entry for each gap: times in UTC ns, and how many
    rows lack. ``text`` says the rule, ``cure`` what to do.
    """
    spans = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        spans.append(f"{format_time(start)} to {format_time(end)}")

    place = f"{table.name}, first gap from {spans[0]}"
    if len(spans) > 1:
        place = f"{place}, last from {spans[-1]}"
    places = []
    for span, count in zip(spans[:LISTED], missing, strict=False):
        places.append(f"{span}: {count:,}")

    gaps = core.count_nouns(len(spans), "gap")
    return [
        Hit(
            starts,
            f"{text}, {missing.sum()} missing in {gaps}",
            missing=missing,
            place=f"{place} UTC",
            cure=cure,
            places=tuple(places),
        )
    ]


def find_bad_prices(subject: Subject) -> list[Hit]:
    """Find the bars without any price, and those with a price that is impossible or unlikely."""
    table = subject.table
    noun = ""
    cure = _EMPTY_BARS
    if subject.role == "mark":
        noun = "mark "
        cure = _EMPTY_MARKS

    is_empty = lacks_prices(table)
    text = f"every {noun}bar needs prices, {{n}} of {{of}} have none at all"
    hits = [hit._replace(cure=cure) for hit in find_rows(table.time, is_empty, text)]
    for name in PRICES:
        if name in table.columns:
            hits += find_bad_column(table, name, noun, is_empty)
    return hits


def find_bad_column(table: TimedTable, name: str, noun: str, is_empty: BoolArray) -> list[Hit]:
    """Return the faults of a column of prices: what is no price, then what is an unlikely one.

    ``noun`` says of which table the column is, as ``"mark "``. Rows that are ``is_empty`` have no
    price at all, which is a fault of its own. ``{got}``, ``{n}`` and ``{of}`` of a text are filled
    in by :func:`find_rows`.
    """
    values = table.columns[name]
    is_positive = (values > 0) & (values < np.inf)
    text = f"{noun}{name} must be positive and finite, got {{got}} in {{n}} of {{of}} bars"
    hits = find_rows(table.time, ~is_positive & ~is_empty, text, values.__getitem__)

    # Opens that are missing beside a close have repairs of their own.
    if name == "open" and (lacks_open(table) == ~is_positive).all():
        hits = [hit._replace(cure=_OPENS) for hit in hits]

    # A bar without a close is a missing one to the repair of gaps.
    is_of_bars = noun == ""
    if is_of_bars and name == "close" and (np.isnan(values) == ~is_positive).all():
        hits = [hit._replace(cure=_CLOSES) for hit in hits]

    # The largest number of a type is what programs write for an unknown one.
    text = (
        f"{noun}{name} must be from {tables.LEAST_PRICE:g} to {tables.MOST_PRICE:g} and not "
        "the largest whole number of a type, got {got} in {n} of {of} bars"
    )
    is_unlikely = is_positive & ~is_price(values)
    return hits + find_rows(table.time, is_unlikely, text, values.__getitem__)


def lacks_open(table: TimedTable) -> BoolArray:
    """Return which opens are zero or missing beside a close, of shape (n,)."""
    opens = table.columns["open"]
    no_closes = np.zeros(table.time.size)
    closes = table.columns.get("close", no_closes)
    is_missing = np.isnan(opens) | (opens == 0.0)
    return np.asarray(is_missing & is_price(closes))


def find_bad_ranges(subject: Subject) -> list[Hit]:
    """Find the bars whose high is under, or whose low is over, their own open or close.

    Where most bars are so, the columns are others than their names say.
    """
    table = subject.table
    if not table.has_prices:
        return []

    noun = ""
    if subject.role == "mark":
        noun = "mark "
    top, bottom = measure_bodies(table)
    highs = table.columns["high"]
    lows = table.columns["low"]

    cure = ""
    is_bad = (highs < top) | (lows > bottom)
    if np.count_nonzero(is_bad) > MOST_REPAIRED * is_bad.size:
        is_bad_if_swapped = (lows < top) | (highs > bottom)
        is_cured = bool(np.count_nonzero(is_bad_if_swapped) <= STILL_BAD * is_bad.size)
        cure = name_columns(subject.role, is_cured=is_cured)

    ends = "open and close, got {got} in {n} of {of} bars"
    under = find_rows(
        table.time,
        highs < top,
        f"{noun}high must be at least {ends}",
        got=lambda row: f"{highs[row]} under {top[row]}",
    )
    over = find_rows(
        table.time,
        lows > bottom,
        f"{noun}low must be at most {ends}",
        got=lambda row: f"{lows[row]} over {bottom[row]}",
    )
    return [hit._replace(cure=cure) for hit in (*under, *over)]


def name_columns(role: str, *, is_cured: bool) -> str:
    """Return the cure of columns of prices that have each other's names, for ``str.format``.

    ``is_cured`` says that high and low in each other's place break no rule. ``role`` is that of the
    table, bars or mark.
    """
    if not is_cured:
        return (
            "are the columns others? columns= of Market.load names them, --columns of data import"
        )
    prefix = ""
    if role == "mark":
        prefix = "mark."
    return (
        "are high and low swapped? "
        f"columns={{{{'{prefix}high': 'low', '{prefix}low': 'high'}}}} of files; "
        "frame.rename(columns={{'high': 'low', 'low': 'high'}})"
    )


def measure_bodies(table: TimedTable) -> tuple[FloatArray, FloatArray]:
    """Return the top and the bottom of the body of each bar: the larger and smaller of its ends.

    Two arrays of shape (n,), from open and close. Both are NaN in a bar that has an impossible
    price, so that comparisons with them are False: that price is reported by a rule of its own.
    """
    opens = table.columns["open"]
    closes = table.columns["close"]
    top = np.maximum(opens, closes)
    bottom = np.minimum(opens, closes)

    for name in PRICES:
        is_impossible = ~is_price(table.columns[name])
        top[is_impossible] = np.nan
        bottom[is_impossible] = np.nan
    return top, bottom


def find_bad_volume(subject: Subject) -> list[Hit]:
    """Find the bars whose volume is negative, NaN, or larger than that of any market."""
    table = subject.table
    volume = table.columns.get("volume")
    if volume is None:
        return []

    # A row without any price is a fault of its own.
    is_possible = (volume >= 0) & (volume < np.inf)
    is_bad = ~is_possible & ~lacks_prices(table)
    text = "volume must not be negative or NaN, got {got} in {n} of {of} bars"
    impossible = find_rows(table.time, is_bad, text, volume.__getitem__)

    is_limit = (volume > tables.MOST_VOLUME) & (volume < np.inf)
    text = f"volume must be at most {tables.MOST_VOLUME:g}, got {{got}} in {{n}} of {{of}} bars"
    return [*impossible, *find_rows(table.time, is_limit, text, volume.__getitem__)]


def find_unfinished(subject: Subject) -> list[Hit]:
    """Find bars inside the data that a column marks as unfinished.

    The column is 1 where a bar is finished, and must be 1 in most: else it says something else.
    """
    table = subject.table.ordered
    hits = []
    for name, values in table.columns.items():
        if not tables.is_flag(name):
            continue
        is_yes_or_no = np.isin(values, (0.0, 1.0))
        if not is_yes_or_no.all():
            continue

        is_mostly_finished = 2.0 * values.sum() > values.size
        if is_mostly_finished:
            is_unfinished = values == 0.0
            hits += find_rows(table.time, is_unfinished, places=(f"{name} is 0",))
    return hits


class Outlier(NamedTuple):
    """A price away from its neighbors: by typical moves, and as a logarithm of a ratio."""

    moves: float
    name: str
    time: int
    distance: float

    def __str__(self) -> str:
        return (
            f"{format_time(self.time)}: {self.name} "
            f"{core.format_percent(abs(self.distance), 1)} away, "
            f"{self.moves:.0f} typical moves"
        )


def find_outliers(subject: Subject) -> list[Hit]:
    """Find single prices that are far from their neighbors; the furthest are listed first.

    Distances are logs of price ratios, in typical moves: the median absolute log return of the 201
    bars around. Over 20 of these are far. Judged is:

    - a close by its distance from the nearer of two medians, of the three closes before it and of
      the three after it. A lasting step of the price is so near to one of them;
    - a high or low by how far it is beyond the open and close of its bar and beyond the high or low
      of the bars beside it.
    """
    table = subject.table.ordered
    if not table.has_prices or table.time.size < 7:
        return []
    opens = pd.Series(_log_of(table.columns["open"]))
    highs = pd.Series(_log_of(table.columns["high"]))
    lows = pd.Series(_log_of(table.columns["low"]))
    closes = pd.Series(_log_of(table.columns["close"]))
    typical = measure_typical_moves(closes)

    # A high may be as high as its own open and close, and as the highs beside it; a low likewise.
    top = np.maximum(opens, closes)
    bottom = np.minimum(opens, closes)
    highest = np.maximum(top, np.fmax(highs.shift(), highs.shift(-1)))
    lowest = np.minimum(bottom, np.fmin(lows.shift(), lows.shift(-1)))
    offsets = {
        "close": measure_nearer_offsets(closes),
        "high": np.fmax(highs - highest, 0.0),
        "low": np.fmin(lows - lowest, 0.0),
    }

    outliers = []
    for name, offset in offsets.items():
        is_far = np.abs(offset) > MAX_MOVES * typical
        for row in np.flatnonzero(is_far):
            outlier = Outlier(
                moves=abs(offset[row]) / typical[row],
                name=name,
                time=int(table.time[row]),
                distance=math.expm1(offset[row]),
            )
            outliers.append(outlier)
    if not outliers:
        return []

    times = np.unique([outlier.time for outlier in outliers])
    outliers.sort(reverse=True)
    places = [str(outlier) for outlier in outliers[:LISTED]]
    return [Hit(times, places=tuple(places))]


def measure_typical_moves(closes: pd.Series) -> FloatArray:
    """Return the median absolute log return of the bars around each, at least MIN_MOVE."""
    moves = closes.diff().abs()
    around = moves.rolling(WINDOW, center=True, min_periods=1)
    typical = around.median().to_numpy(dtype=np.float64)
    return np.asarray(np.maximum(typical, MIN_MOVE))


def measure_nearer_offsets(closes: pd.Series) -> pd.Series:
    """Return how far each log close is from the nearer of two medians; NaN if it lacks one.

    One is the median of the three closes before it, the other that of the three closes after it: a
    spike is far from both, a step of the price only from one.
    """
    median_before = closes.rolling(3, min_periods=1).median().shift()
    backward = closes[::-1]
    median_backward = backward.rolling(3, min_periods=1).median().shift()
    median_after = median_backward[::-1]
    from_before = closes - median_before
    from_after = closes - median_after

    # The first and the last close have one side alone. There the second median is that of up to 24
    # closes of the same side: three may be rough, as thin trade is.
    last = closes.size - 1
    closes_after_first = closes[1 : 1 + NEAR_CLOSES]
    closes_before_last = closes[max(last - NEAR_CLOSES, 0) : last]
    from_before[0] = closes[0] - closes_after_first.median()
    from_after[last] = closes[last] - closes_before_last.median()

    is_nearer_before = from_before.abs() <= from_after.abs()
    nearer = from_before.where(is_nearer_before, from_after)
    has_both = from_before.notna() & from_after.notna()
    return nearer.where(has_both)


def _log_of(prices: FloatArray) -> FloatArray:
    """Return the logarithms of prices, NaN of what is none."""
    sound = np.where(is_price(prices), prices, np.nan)
    return np.asarray(np.log(sound))


def find_unit_changes(subject: Subject) -> list[Hit]:
    """Find where the unit of prices changes: from there on closes are a multiple of those before.

    The close, and the median of the 24 closes after it, are over UNIT_CHANGE times the median of
    the 24 closes before, or under the inverse of that.
    """
    closes = pd.Series(subject.table.ordered.columns.get("close", np.zeros(0)))
    medians = closes.rolling(NEAR_CLOSES).median()
    median_before = medians.shift()
    median_after = medians.shift(-NEAR_CLOSES)

    # Both the close and the median after it are far, on the same side: a single bad close is none.
    nearer_above = np.minimum(closes, median_after) / median_before
    nearer_below = np.maximum(closes, median_after) / median_before
    is_far_above = nearer_above > UNIT_CHANGE
    is_far_below = nearer_below < 1.0 / UNIT_CHANGE
    is_far = (is_far_above | is_far_below).to_numpy()

    # Of a run of such closes the first is where the unit changes.
    was_far = np.zeros_like(is_far)
    was_far[1:] = is_far[:-1]
    is_first = is_far & ~was_far
    factors = nearer_above.where(nearer_above > 1.0, nearer_below)
    places = []
    for row in np.flatnonzero(is_first)[:LISTED]:
        time = format_time(int(subject.time[row]))
        places.append(f"{time}: {factors[row]:.4g} times")
    return find_rows(subject.time, is_first, places=tuple(places))


def find_stretches(subject: Subject) -> list[Hit]:
    """Find stretches of up to 24 bars on another level: closes jump by over 3 times, and back.

    A stretch at either end of the data has one jump. What counts as another level is far from that
    of the 100 bars on either side.
    """
    closes = subject.table.ordered.columns.get("close", np.zeros(0))
    moves = np.diff(_log_of(closes))
    jumps = np.flatnonzero(np.abs(moves) > math.log(UNIT_CHANGE)) + 1
    if not jumps.size:
        return []

    # Run k is the bars from edge k to the next: closes on one level.
    edges = [0, *jumps.tolist(), closes.size]
    offsets = measure_level_offsets(edges, moves[jumps - 1])

    is_inside = np.zeros(closes.size, dtype=np.bool_)
    places = []
    for first_run, stop_run in group_odd_runs(offsets):
        first = edges[first_run]
        stop = edges[stop_run]
        if stop - first > NEAR_CLOSES or not jumps_back(moves, first, stop):
            continue

        is_inside[first:stop] = True
        furthest = max(offsets[first_run:stop_run], key=abs)
        places.append(describe_stretch(subject.time[first:stop], furthest))
    return find_rows(subject.time, is_inside, places=tuple(places[:LISTED]))


def jumps_back(moves: FloatArray, first: int, stop: int) -> bool:
    """Return whether the jump after bars ``first`` to ``stop`` undoes the jump before them.

    ``moves`` (n - 1,) are the log returns to bars 1 to n - 1. Bars at an end of the data have one
    jump, which counts as undone.
    """
    n_bars = len(moves) + 1
    if first == 0 or stop == n_bars:
        return True
    jump_before = moves[first - 1]
    jump_after = moves[stop - 1]
    return bool(jump_before * jump_after <= 0.0)


def group_odd_runs(offsets: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last of odd runs in a row: those with an offset.

    They are one stretch, which jumps back where it ends.
    """
    first = 0
    for is_odd, group in itertools.groupby(offset != 0.0 for offset in offsets):
        stop = first + len([*group])
        if is_odd:
            yield first, stop
        first = stop


def describe_stretch(time: IntArray, offset: float) -> str:
    """Return when a stretch was, how long, and how far off: exp of its log offset."""
    span = f"{format_time(int(time[0]))} to {format_time(int(time[-1]))}"
    bars = core.count_nouns(time.size, "bar")
    return f"{span}: {bars}, {math.exp(offset):.4g} times"


def measure_level_offsets(edges: Sequence[int], jump_sizes: FloatArray) -> list[float]:
    """Return how far short runs between jumps are from the level around; 0 of all others.

    Jumps alone make levels, so that a trend makes none.
    """
    levels = [0.0, *np.cumsum(jump_sizes).tolist()]
    level_of_bar = np.repeat(levels, np.diff(edges))
    half_window = WINDOW // 2

    offsets = []
    for run, level in enumerate(levels):
        first = edges[run]
        stop = edges[run + 1]

        # The lower median, which is a level that there is.
        begin = max(first - half_window, 0)
        around = np.sort(level_of_bar[begin : stop + half_window])
        usual = around[(around.size - 1) // 2]

        offset = level - usual
        is_far = abs(offset) > math.log(UNIT_CHANGE)
        is_short = stop - first <= NEAR_CLOSES
        if not (is_far and is_short):
            offset = 0.0
        offsets.append(offset)
    return offsets


def find_other_length(subject: Subject) -> list[Hit]:
    """Find the mark bars that open between the bars of the market, as they have another length.

    ``subject.misaligned`` are their times.
    """
    if not subject.misaligned.size or subject.bars is None:
        return []

    length = "unknown"
    apart = spacing(subject.time)
    if apart:
        length = format_duration(apart)
    usual = format_duration(spacing(subject.bars.time) or subject.interval or 0)
    text = (
        "mark bars must open with the bars and be as long, mark bars are "
        f"{length} apart, bars {usual}"
    )
    return [Hit(subject.misaligned, text)]


def find_unmarked(subject: Subject) -> list[Hit]:
    """Find bars of the market without a mark bar: outside of all marks, and between marks.

    Each of the two has a text and a cure of its own. Marks of another length are a fault of their
    own.
    """
    if subject.misaligned.size or subject.bars is None or subject.is_marked.all():
        return []

    time = subject.bars.time
    marked = np.flatnonzero(subject.is_marked)
    absent = np.flatnonzero(~subject.is_marked)
    is_outside = np.ones(absent.size, dtype=np.bool_)
    if marked.size:
        first = marked[0]
        last = marked[-1]
        is_outside = (absent < first) | (absent > last)

    hits = []
    if is_outside.any():
        text = (
            f"mark bars must cover the bars, {is_outside.sum()} of {time.size} bars lie outside "
            "them"
        )
        marks = subject.whole.time
        end = int(marks[-1]) + (subject.interval or 0)
        covered = Span(int(marks[0]), end)
        place = f"{subject.table.name}, {covered}; bars {subject.span}"
        hits.append(Hit(time[absent[is_outside]], text, place=place))

    inside = absent[~is_outside]
    if inside.size:
        text = f"every bar must have a mark bar, {inside.size} of {time.size} bars have none"
        hits.append(Hit(time[inside], text, cure="mark_gaps='last' uses last prices"))
    return hits


class Stretch(NamedTuple):
    """Rows in a row, and the median of their values."""

    median: float
    rows: slice
    size: int


def find_furthest(values: FloatArray, numbers: IntArray, least: float = 0.0) -> Stretch:
    """Return the stretch of rows whose median value is furthest from 0.

    ``values`` has the shape (n,), and ``numbers`` says for each row in which stretch it lies,
    rising. A stretch does not count if less than the share ``least`` of its values has the sign of
    its median. If none counts, it is the first one, with a median of 0.
    """
    is_first = np.diff(numbers, prepend=numbers[0] - 1) != 0
    starts = np.flatnonzero(is_first).tolist()
    edges = [*starts, values.size]

    furthest = Stretch(0.0, slice(0, edges[1]), edges[1])
    for first, stop in itertools.pairwise(edges):
        part = values[first:stop]
        median = float(np.median(part))
        if abs(median) <= abs(furthest.median):
            continue

        has_sign = part * median > 0.0
        if float(np.mean(has_sign)) >= least:
            furthest = Stretch(median, slice(first, stop), stop - first)
    return furthest


def find_other_scale(subject: Subject, *, doubts: bool = False) -> list[Hit]:
    """Find marks that are on another scale than last prices: too far from them for long.

    Bars are judged in stretches of STRETCH bars, by the median of mark / last price; the stretch
    with the furthest median is reported. Two rules share this function. The one that refuses data
    finds distances that are impossible (MAX_MARK); the other, with ``doubts``, finds those that are
    only unlikely (from DOUBTFUL_MARK on) and warns.
    """
    bars, mark = subject.marked
    if subject.misaligned.size or not ("close" in bars.columns and "close" in mark.columns):
        return []

    last_prices = bars.columns["close"]
    marks = mark.columns["close"]
    rows = np.flatnonzero(is_price(last_prices) & is_price(marks))
    if not rows.size:
        return []

    # The number of the stretch of each bar. The last stretch also has the bars that are left over.
    last_place = rows.size // STRETCH * STRETCH - 1
    numbers = np.minimum(np.arange(rows.size), last_place) // STRETCH
    log_ratios = np.log(marks[rows]) - np.log(last_prices[rows])
    furthest = find_furthest(log_ratios, numbers)

    distance = math.expm1(abs(furthest.median))
    is_error = rows.size >= FEWEST and distance >= MAX_MARK
    if is_error is doubts or distance < DOUBTFUL_MARK:
        return []

    start = rows[furthest.rows.start]
    time = mark.time[start : start + furthest.size]
    ratio = math.exp(furthest.median)
    text = f"{ratio:.4g} times the last price at the median of {furthest.size} bars"
    rule = f"mark prices must stay within {100.0 * MAX_MARK:g} % of last prices, got {text}"
    place = f"{mark.name}, from {format_time(int(time[0]))} UTC"
    return [Hit(time, rule, place=place, places=(text,))]


def find_wicks(subject: Subject) -> list[Hit]:
    """Find the bars whose high or low is far beyond that of their mark bar.

    Liquidations are tested on marks, so such prices liquidate nobody.
    """
    bars, mark = subject.marked
    if not (bars.has_prices and mark.has_prices and mark.time.size):
        return []

    highs = _log_of(bars.columns["high"])
    lows = _log_of(bars.columns["low"])
    mark_highs = _log_of(mark.columns["high"])
    mark_lows = _log_of(mark.columns["low"])

    # Each as a fraction of the mark; a bar inside of its mark bar has none.
    wicks_above = np.expm1(highs - mark_highs)
    wicks_below = -np.expm1(lows - mark_lows)
    longer = np.fmax(wicks_above, wicks_below)
    wicks = np.fmax(longer, 0.0)

    longest = f"the longest {core.format_percent(wicks.max())} beyond the mark"
    return find_rows(mark.time, wicks > WICK, places=(longest,))


def find_stale(subject: Subject) -> list[Hit]:
    """Find mark bars whose prices all repeat the last mark close, while the last price moves."""
    bars, mark = subject.marked
    if not (mark.has_prices and "close" in bars.columns and mark.time.size):
        return []

    last_close = np.roll(mark.columns["close"], 1)
    is_same = np.ones(mark.time.size, dtype=np.bool_)
    is_same[:1] = False  # the first has none before it
    for name in PRICES:
        is_same &= mark.columns[name] == last_close

    closes = bars.columns["close"]
    closes_before = np.roll(closes, 1)
    is_moving = closes != closes_before
    return find_rows(mark.time, is_same & is_moving)


def find_settled_twice(subject: Subject) -> list[Hit]:
    """Find the settlements that another one follows within a minute: two sources of one payment."""
    time = subject.time
    gaps = np.diff(time)
    is_repeat = gaps < tables.JITTER

    count = int(is_repeat.sum())
    pairs = f"{count} pairs are"
    if count == 1:
        pairs = "1 pair is"
    least = format_duration(tables.JITTER)
    text = f"each settlement must occur once, {pairs} under {least} apart, the first by {{got}} ms"
    milliseconds = gaps / 1e6
    return find_rows(time[:-1], is_repeat, text, lambda row: f"{milliseconds[row]:g}")


def find_bad_rates(subject: Subject) -> list[Hit]:
    """Find the settlements whose rate is too large, or whose mark price is impossible."""
    time = subject.table.time
    columns = subject.table.columns
    got = ", got {got} in {n} of {of} settlements"
    hits = []

    rate = columns.get("rate")
    if rate is not None:
        most = tables.MAX_RATE
        text = (
            f"funding rates must lie within {100.0 * most:+.0f} % and {-100.0 * most:+.0f} % per "
            f"settlement (0.0001 is 0.01 %){got}"
        )
        is_within = np.abs(rate) <= most
        hits += find_rows(time, ~is_within, text, rate.__getitem__)

    mark = columns.get("mark")
    if mark is not None:
        text = f"the mark of a settlement must be positive, or NaN if unknown{got}"
        is_possible = is_price(mark) | np.isnan(mark)
        hits += find_rows(time, ~is_possible, text, mark.__getitem__)
    return hits


def find_high_rates(subject: Subject, *, doubts: bool = False) -> list[Hit]:
    """Find funding rates that are too high for long, as rates in per cent or per year would be.

    Rates are judged in periods of 20 days, by the median per 8 hours; the period with the largest
    one is reported. Two rules share this function. The one that refuses data finds rates that are
    impossible (HIGHEST_RATE); the other, with ``doubts``, finds those that are only unlikely (from
    DOUBTFUL_RATE on) and warns.
    """
    time = subject.whole.time
    rate = subject.whole.columns.get("rate", np.zeros(0))
    rows = np.flatnonzero(np.isfinite(rate))
    if not rows.size:
        return []

    # Periods of 20 days; the last one is longer, with the days that are left over.
    every = tables.cadence(time)
    since = time[rows] - time[rows[0]]
    n_periods = int((since[-1] + every) // PERIOD)
    last_period = max(n_periods, 1) - 1
    periods = np.minimum(since // PERIOD, last_period)
    per_8_hours = rate[rows] * (USUAL / every)
    furthest = find_furthest(per_8_hours, periods, ONE_SIDED)

    # Under 20 days of rates are never impossible, as a squeeze may last as long.
    highest = abs(furthest.median)
    is_impossible = n_periods > 0 and highest >= HIGHEST_RATE
    is_unlikely = highest >= DOUBTFUL_RATE and not is_impossible
    is_hit = is_unlikely if doubts else is_impossible
    if not is_hit:
        return []

    start = rows[furthest.rows.start]
    stamps = time[start : start + furthest.size]
    size = f"{highest:.3g} in size per 8 hours"
    a_year = core.format_percent(highest * 365 * DAY / USUAL, 0)
    text = (
        "funding rates must be fractions per settlement, 0.0001 is 0.01 %: their median was "
        f"{size} in {furthest.size} settlements, {a_year} a year"
    )
    place = f"{subject.table.name}, from {format_time(int(stamps[0]))} UTC"
    return [Hit(stamps, text, place=place, places=(f"{size}: in per cent?",))]


def find_sampled(subject: Subject) -> list[Hit]:
    """Find rates of an hour or less that look like samples of a rate paid every 4 or 8 hours.

    They change only at multiples of 4 hours. Too few changes say nothing, as they may by chance.
    """
    time = subject.whole.time
    rate = subject.whole.columns.get("rate", np.zeros(0))
    every = tables.cadence(time)
    changes = np.flatnonzero(rate[1:] != rate[:-1]) + 1
    if every > HOUR or changes.size < FEWEST_CHANGES:
        return []

    # A change inside 4 hours is of a rate that is paid more often.
    periods = tables.nearest_minute(time) // (4 * HOUR)
    is_inside_period = periods[changes] == periods[changes - 1]
    if is_inside_period.any():
        return []

    text = f"{changes.size} changes in {time.size:,} rates every {format_duration(every)}"
    return [Hit(time[changes], places=(f"{text}, all at multiples of 4 hours",))]


FIRST_OPEN_DAILY = 1_230_940_800 * SECOND
"""2009-01-03, the first block of Bitcoin: no market before it was open each day."""
SINCE_2001 = 978_307_200 * SECOND
"""2001-01-01, from which Cocoa and Core Data of Apple count seconds."""


def find_early_bars(subject: Subject) -> list[Hit]:
    """Find bars of a market that never closes, if all are older than any such market.

    Their times count from another beginning than 1970.
    """
    time = subject.time
    never_closes = not subject.sessions and subject.interval is not None and subject.interval <= DAY
    if not never_closes or not time.size or int(time[-1]) >= FIRST_OPEN_DAILY:
        return []

    shown = format_time(int(time[0]) + SINCE_2001)
    place = f"as seconds since 2001, as Apple counts, they begin at {shown} UTC: time + 978_307_200"
    return find_rows(time, np.ones(time.size, dtype=np.bool_), places=(place,))


def find_closing_stamps(subject: Subject) -> list[Hit]:
    """Find bars that are stamped with their close, 00:59:59.999, in place of their open.

    They are told by their stamps: bars are whole minutes long, but no stamp is on a whole minute.
    """
    time = subject.time
    every = subject.interval
    if every is None or every % MINUTE or not time.size:
        return []
    if not (time % MINUTE).all():
        return []

    place = (
        "a bar is stamped with its open; the time at which it closes, 00:59:59.999, makes it "
        f"known {format_duration(every)} late"
    )
    return find_rows(time, np.ones(time.size, dtype=np.bool_), places=(place,))


def find_settlement_gaps(subject: Subject) -> list[Hit]:
    """Find where settlements lack between others.

    Not in a market with sessions: dividends are paid on days of their own.
    """
    if subject.sessions:
        return []
    span = subject.span
    holes = tables.missing_settlements(subject.once, span.start, span.end)
    if not holes:
        return []

    usual = format_duration(holes[0].distance)
    return hits_of_gaps(
        subject.table,
        f"settlements must follow each other every {usual}",
        starts=np.array([hole.before for hole in holes]),
        ends=np.array([hole.after for hole in holes]),
        missing=np.array([hole.missing for hole in holes]),
        cure="",
    )


def count_uncovered(span: Span, covered: Span, step: int) -> IntArray:
    """Return how many settlements lack before and after what is covered, of shape (2,)."""
    lacks = np.array([covered.start - span.start, span.end - covered.end])
    within = np.minimum(lacks, span.end - span.start)
    return np.where(lacks > 0, within // step + 1, 0)


def find_uncovered(subject: Subject) -> list[Hit]:
    """Find the ends of the time of the bars that no settlement of funding covers.

    One gap before the first and one after the last settlement, with how many lack in each. In a
    market with sessions, whose dividends have no cadence, only where no bar has any of them.
    """
    span = subject.span
    covered = subject.covered
    if subject.bars is None or covered is None or covered == span:
        return []
    if subject.sessions and subject.table.time.size:
        return []

    time = subject.once
    step = tables.cadence(time)
    missing = count_uncovered(span, covered, step)
    starts = np.array([span.start, covered.end])
    is_lacking = missing > 0

    text = (
        f"funding must cover the bars, one settlement each {format_duration(step)}, settlements "
        f"run from {Span(int(time[0]), int(time[-1]))}"
    )
    place = f"{subject.table.name}; bars {span}"
    return [Hit(starts[is_lacking], text, missing=missing[is_lacking], place=place)]


def find_off_hour(subject: Subject) -> list[Hit]:
    """Find settlements off the whole hour, or off the steps of a shorter cadence."""
    time = subject.time
    step = min(tables.cadence(time), HOUR)
    half = step // 2
    from_nearest = (time + half) % step - half
    return find_rows(time, np.abs(from_nearest) > tables.JITTER)


ERROR, DOUBT = "error", "doubt"
_EMPTY_BARS = (
    "repair='bar-gaps=flat' fills them with the close before and no volume; of a frame, "
    "frame.dropna(subset=['close']) and sessions=True leave them out"
)
_EMPTY_MARKS = "mark_gaps='last' uses last prices there"
_BARS = ("bars",)
_MARK = ("mark",)
_FUNDING = ("funding",)
_ALL = (*NOUNS,)
_AGAIN = "download those bars again"
_CLOSES = (
    f"{_AGAIN}, or repair='bar-gaps=flat', which takes bars without a close as missing: flat at "
    "the close before, without volume"
)
_OPENS = (
    f"{_AGAIN}, or repair='open=close' or repair='open=previous', which uses the close of the "
    "bar or of the one before"
)

RULES = (
    Rule("out of order", _ALL, ERROR, find_disorder,
         "frame.sort_index(), or repair='sort'", "sort"),
    Rule("repeated times", _ALL, ERROR, find_repeats,
         "frame[~frame.index.duplicated()], or repair='drop-duplicates' (=first or =last where "
         "they differ)", "drop-duplicates"),
    Rule("off the grid", _BARS, ERROR, find_off_grid,
         "give interval= if they are of another length"),
    Rule("missing", _BARS, ERROR, find_bar_gaps, repair="bar-gaps=flat"),
    Rule("impossible prices", ("bars", "mark"), ERROR, find_bad_prices,
         f"{_AGAIN}, or cut them off with since= and until=, or (of marks) drop them and give "
         "mark_gaps='last'"),
    Rule("impossible ranges", ("bars", "mark"), ERROR, find_bad_ranges,
         f"{_AGAIN}, or repair='range' where the venue itself publishes them so, as BitMEX does: a "
         "range that excludes its own prices hides liquidations"),
    Rule("impossible volume", _BARS, ERROR, find_bad_volume,
         f"{_AGAIN}, or drop the column"),
    Rule("of another length", _MARK, ERROR, find_other_length),
    Rule("bars without a mark", _MARK, ERROR, find_unmarked,
         "{span}; or mark_gaps='last' to test liquidations on last prices there",
         "mark-gaps=last"),
    Rule("on another scale", _MARK, ERROR, find_other_scale,
         "of another instrument, currency or scale?"),
    Rule("stamped at other times", _MARK, ERROR, find_late_marks),
    Rule("settled twice", _FUNDING, ERROR, find_settled_twice,
         "like two sources of one event; keep one stamp of each pair"),
    Rule("not believable", _FUNDING, ERROR, find_bad_rates),
    Rule("on another scale", _FUNDING, ERROR, find_high_rates,
         "divide by 100 if they are in per cent, by the settlements of a year if they are annual"),
    Rule("beyond the settlements", _FUNDING, ERROR, find_uncovered,
         "{span}; or funding_gaps='zero' to charge none there", "funding-gaps=zero"),
    Rule("missing", _FUNDING, ERROR, find_settlement_gaps,
         "funding_gaps='zero' charges none there", "funding-gaps=zero"),
    Rule("away from last prices", _MARK, DOUBT, lambda s: find_other_scale(s, doubts=True)),
    Rule("stale", _MARK, DOUBT, find_stale),
    Rule("outliers", ("bars", "mark"), DOUBT, find_outliers),
    Rule("change of unit", ("bars", "mark"), DOUBT, find_unit_changes),
    Rule("stretch", ("bars", "mark"), DOUBT, find_stretches),
    Rule("unfinished", _BARS, DOUBT, find_unfinished),
    Rule("wicks", _MARK, DOUBT, find_wicks),
    Rule("flat", ("bars", "mark"), DOUBT,
         lambda s: find_rows(s.time, s.get("high") == s.get("low"))),
    Rule("without volume", _BARS, DOUBT,
         lambda s: find_rows(s.time, ~(s.get("volume", 1.0) > 0.0))),
    Rule("seconds since 2001?", _BARS, DOUBT, find_early_bars),
    Rule("stamped at the close?", _BARS, DOUBT, find_closing_stamps),
    Rule("the rate in force, sampled?", _FUNDING, DOUBT, find_sampled),
    Rule("high", _FUNDING, DOUBT, lambda s: find_high_rates(s, doubts=True)),
    Rule("off the hour", _FUNDING, DOUBT, find_off_hour),
    Rule("at hours of no venue", _FUNDING, DOUBT, find_odd_hours),
)  # fmt: skip
"""Every rule. Errors are those that the loader raises."""


def list_defects(subject: Subject, span: str, repairs: Sequence[str]) -> Iterator[str]:
    """Yield what is an error and not repaired, a sentence each; ``span`` is for the cures."""
    for rule in RULES:
        if subject.role not in rule.roles or rule.level != ERROR or rule.repair in repairs:
            continue
        for hit in rule.find(subject):
            yield describe_hit(subject, rule, hit, span)


def describe_hit(subject: Subject, rule: Rule, hit: Hit, span: str) -> str:
    """Return what a table breaks of a rule as a sentence: what, where, and its cure.

    ``span`` is the advice which part of the bars is covered, for cures that hold ``{span}``.
    """
    place = hit.place
    if not place:
        place = f"{subject.table.name}, first at {format_time(int(hit.time[0]))}"
        if len(hit.time) > 1:
            place = f"{place}, last at {format_time(int(hit.time[-1]))}"
        place = f"{place} UTC"

    sentence = f"{hit.text} ({place})"
    cure = (hit.cure or rule.cure).format(span=span)
    if cure:
        sentence = f"{sentence}; {cure}"
    return sentence


FILLING = frozenset({"bar_gaps", "mark_gaps", "funding_gaps"})
MAX_FLAT = 10_000_000
"""The largest number of bars that is filled in."""


def split_notes(notes: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return two tables of the notes of loading: of data that was filled in, and all others.

    A note says what was done to the data when it was loaded, by the name of the repair.
    """
    filled = {}
    others = {}
    for name, how in notes.items():
        if name in FILLING:
            filled[name] = how
        else:
            others[name] = how
    return filled, others


Repaired: TypeAlias = tuple[TimedTable, IntArray]
"""The table, and the times of the rows that changed."""
Repair: TypeAlias = Callable[[TimedTable, str, int | None], Repaired]
"""Of a table, the way of the repair, and the length of a bar in ns."""


def _sort(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    """Return a table in order of time, and the times that came before the one above."""
    is_moved = np.diff(table.time, prepend=table.time[:1]) < 0
    order = np.argsort(table.time, kind="stable")
    return table.rows(order), table.time[is_moved]


def drop_duplicates(table: TimedTable, way: str, _interval: int | None) -> Repaired:
    """Return a table without repeated rows, and the times that were dropped.

    ``way`` is which of the rows with one time stays, "first" or "last"; "" drops only rows that are
    equal in all columns.
    """
    frame = pd.DataFrame({"": table.time, **table.columns})
    compared = None  # all columns
    kept: Any = "first"
    if way:
        compared = ""
        kept = way

    is_dropped = frame.duplicated(compared, keep=kept).to_numpy()
    return table.rows(~is_dropped), np.sort(table.time[is_dropped])


def read_redenomination(way: str) -> tuple[int, float]:
    """Return the time, UTC ns, before which prices are multiplied, and the factor."""
    match = re.fullmatch(r"(?P<time>.+)x(?P<factor>\d*\.?\d+)", way)
    if match is None or float(match["factor"]) == 0.0:
        raise core.ParameterError(
            f"a redenomination must be a time and a positive factor, 2024-01-31x1000, got {way!r}"
        )
    return core.to_nanoseconds(match["time"], "redenomination"), float(match["factor"])


def _redenominate(table: TimedTable, way: str, _interval: int | None) -> Repaired:
    """Return a table in the units after a redenomination, and the times that it changes.

    ``way`` has the time and the factor: prices before it are multiplied, volumes divided.
    """
    time, factor = read_redenomination(way)
    is_before = table.time < time
    price_factors = np.where(is_before, factor, 1.0)
    volume_factors = np.where(is_before, 1.0 / factor, 1.0)

    columns = {}
    for name, values in table.columns.items():
        if name in PRICES or name == "mark":
            columns[name] = values * price_factors
        elif name in ("volume", "taker_buy_volume"):
            columns[name] = values * volume_factors
        else:
            columns[name] = values
    return TimedTable(table.name, table.time, columns), table.time[is_before]


def _fill_opens(table: TimedTable, way: str, _interval: int | None) -> Repaired:
    """Return a table with the opens that were missing, and their times.

    They are the close of the bar before (``way`` "previous"), or that of the same bar. An open
    stays missing where that close is no price.
    """
    if "open" not in table.columns:
        return table, table.time[:0]

    no_closes = np.zeros(table.time.size)
    fill = table.columns.get("close", no_closes)
    if way == "previous":
        fill = np.append(np.nan, fill[:-1])

    is_filled = lacks_open(table) & is_price(fill)
    columns = dict(table.columns)
    columns["open"] = np.where(is_filled, fill, table.columns["open"])
    return TimedTable(table.name, table.time, columns), table.time[is_filled]


def _widen(table: TimedTable, _way: str, _interval: int | None) -> Repaired:
    """Return a table whose highs and lows include open and close, and the times that changed."""
    if not table.has_prices:
        return table, table.time[:0]

    top, bottom = measure_bodies(table)
    highs = table.columns["high"]
    lows = table.columns["low"]
    is_changed = (highs < top) | (lows > bottom)

    # A high or low that is missing, NaN, becomes that of the body.
    columns = dict(table.columns)
    columns["high"] = np.fmax(highs, top)
    columns["low"] = np.fmin(lows, bottom)
    return TimedTable(table.name, table.time, columns), table.time[is_changed]


def _fill_bars(table: TimedTable, _way: str, interval: int | None) -> Repaired:
    """Return a table with flat bars in its gaps, and the times that it changes.

    A flat bar repeats the last close, with a volume of 0. The table stays as it is where bars are
    off the grid, or too many are missing: these are errors of their own. Rows before the first
    close are dropped with a warning.
    """
    if interval is None or "close" not in table.columns or not is_increasing(table.time):
        return table, table.time[:0]

    # A row without a close is a missing bar; before the first close there is nothing to repeat.
    priced = table.rows(~np.isnan(table.columns["close"]))
    if not priced.time.size:
        return table, table.time[:0]

    # Bars off the grid are an error of their own.
    end = table.time[-1] + interval
    gaps = np.diff(priced.time, append=end)
    is_off_grid_anywhere = (gaps % interval).any()
    missing = gaps // interval - 1
    if is_off_grid_anywhere or int(missing.sum()) > MAX_FLAT:
        return table, table.time[:0]

    time = np.arange(priced.time[0], end, interval)
    row = np.searchsorted(priced.time, time, side="right") - 1
    is_new = priced.time[row] != time
    last_close = priced.columns["close"][row]
    columns = {}
    for name, values in priced.columns.items():
        filling: Any = np.nan
        if name in PRICES:
            filling = last_close
        elif name in tables.SUMMED:
            filling = 0.0
        columns[name] = np.where(is_new, filling, values[row])

    dropped = table.time[table.time < priced.time[0]]
    if dropped.size:
        core.warn_caller(
            f"{core.count_nouns(dropped.size, 'row')} before the first close left out, from "
            f"{format_time(int(dropped[0]))} UTC: no close is before them ({table.name})"
        )
    return TimedTable(table.name, time, columns), np.append(dropped, time[is_new])


KINDS: Mapping[tuple[str, ...], tuple[str, Repair | None]] = {
    ("sort",): ("sort rows by time, which a file from new to old does not need", _sort),
    ("drop-duplicates", "drop-duplicates=first", "drop-duplicates=last"): (
        "keep one of several equal rows; with =first or =last, also of rows that differ",
        drop_duplicates,
    ),
    ("redenomination=TIMExFACTOR",): (
        "multiply prices before that time (UTC) by the factor, and divide volume by it",
        _redenominate,
    ),
    ("open=close", "open=previous"): (
        "take the close of the bar, or of the one before, for an open that is zero or missing",
        _fill_opens,
    ),
    ("range",): ("widen high and low to open and close", _widen),
    ("bar-gaps=flat",): (
        "fill missing bars, and rows without a close, with the last close and no volume",
        _fill_bars,
    ),
    ("mark-gaps=last",): ("use last prices for bars without a mark bar", None),
    ("funding-gaps=zero",): ("treat missing settlements as no payment", None),
}
"""The words for each repair, what it does, and the function of one that changes a table."""
WORDS = [*itertools.chain.from_iterable(KINDS)]
BY_NAME = {words[0].partition("=")[0]: repair for words, (_, repair) in KINDS.items()}


LIMITED = ("open", "range", "bar-gaps")
"""The repairs that make up prices; the others move, drop or convert rows."""


def parse_repairs(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of repairs in the order in which they are applied, each once.

    A text may name several, separated by commas; one may have a way, after ``=``. Raises
    ParameterError for one that is unknown or given twice.
    """
    repairs: list[str] = []
    for text in texts:
        repairs += map(str.strip, text.split(","))

    chosen: dict[str, str] = {}
    for repair in repairs:
        name, _, way = repair.partition("=")
        is_known = repair in WORDS or (name == "redenomination" and bool(read_redenomination(way)))
        if not is_known or name in chosen:
            raise core.ParameterError(
                f"a repair must be known, and given once, got {repair!r}"
                f"{core.did_you_mean(repair, WORDS)}; there are {', '.join(WORDS)}"
            )
        chosen[name] = repair
    return tuple(chosen[name] for name in BY_NAME if name in chosen)


def apply_repairs(
    table: TimedTable,
    role: str,
    repairs: Sequence[str],
    interval: int | None,
    notes: dict[str, str],
    defects: tables.Defects,
) -> TimedTable:
    """Return a table after the repairs for its role, and note in ``notes`` what each changed.

    ``interval`` is the length of a bar, ns, None if unknown. A note counts the rows that changed.
    One of :data:`LIMITED` that would change most of the rows is not made, and is a defect.
    """
    for word in repairs:
        name, _, way = word.partition("=")
        apply = BY_NAME[name]
        if apply is None or (name == "bar-gaps" and role != "bars"):
            continue

        n_rows = table.time.size
        repaired, changed = apply(table, way, interval)
        if name in LIMITED and changed.size > MOST_REPAIRED * repaired.time.size:
            defects.append(
                f"a repair must change at most {100.0 * MOST_REPAIRED:g} % of the rows, "
                f"repair={word!r} would change {changed.size} of {repaired.time.size} "
                f"({table.name}); correct the file"
            )
            continue

        table = repaired
        if changed.size:
            first = format_time(int(changed[0]))
            note = f"{changed.size} of {n_rows} in {role}, first at {first} UTC"
            if way:
                note = f"{way}: {note}"
            add_note(notes, name.replace("-", "_"), note)
    return table


def add_note(notes: dict[str, str], key: str, note: str) -> None:
    """Add a note to ``notes``, after those of its key."""
    if key in notes:
        note = f"{notes[key]}; {note}"
    notes[key] = note

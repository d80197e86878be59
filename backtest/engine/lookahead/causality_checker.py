"""Checker: finds columns that look ahead by cutting the market and comparing what is observed.

A column is causal where the bars after a row do not change the row. The market is cut at some
places, and what is observed of each part must equal what is observed of longer parts that begin
with the same bar, in every row of the shorter one. Parts are only as long as the columns take to
warm up, and some bars: 25 cuts cost less than observing a year of hours once.

How many cuts are made depends on the number of bars and on the columns' warm-up, never on a clock.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from backtest.base.errors import PolicyError
from backtest.base.units import FloatArray, IntArray, format_time
from backtest.base.work_budget import WorkMeter, measure_work
from backtest.engine.lookahead.alternative_futures import rewrite_after
from backtest.engine.lookahead.column_rounding import (
    FEW_ROWS,
    NOISE,
    SINGLE_NOISE,
    TRIES,
    add_noise,
    find_differences,
    fits_single,
    is_clear,
    leave_out_spread,
)
from backtest.engine.lookahead.market_cuts import ORDER, Kind, Places
from backtest.market.market import Market

Seen: TypeAlias = Mapping[str, FloatArray]
Look: TypeAlias = Callable[[Market], Seen | None]
"""Returns the columns of a market; None where it cannot, because the market is too short."""

KNOWN = 32
"""Rows of the shortest part in which the columns are known."""
LENGTHS = (256, 1024)
"""Shorter warm-ups that are tried where the columns of the whole market begin late."""
GROWTHS = (10.0, 4.0, 2.0)
"""How many times as long as its first part a chain's last one is: the first that is cheap."""
STEPS = (1, 7, 48)
"""By how many bars parts grow where more is too dear."""
GROWTH_BARS = 25_000
"""Bars that may be observed, besides a quarter of the market, for parts to grow."""
MOST_BARS = 100_000
"""Bars that may be observed at all, besides a quarter of the work that the whole market took."""
LONGEST = 16_384
"""Bars of the longest part that begins with the market, where columns warm up in less."""
CURE = (
    "use only values up to each bar: rolling and ewm, not mean() of the whole, not shift(-1), no "
    "centered windows, no backward fill"
)


class Plan(NamedTuple):
    """How many cuts are made: so many chains of parts with one start each, of so many cuts each.

    ``prefixes`` are parts that begin with the market, compared with all of it; ``wanted`` is the
    number of cuts that are made in all where chains make fewer.
    """

    chains: int
    links: int
    prefixes: int
    wanted: int
    budget: float = 1.0


USUAL = Plan(chains=8, links=3, prefixes=4, wanted=28)
"""In every run: 28 cuts. 20 are enough for a chance of 1e-6."""
FULL = Plan(chains=64, links=4, prefixes=16, wanted=256, budget=16.0)
"""What ``backtest check`` does."""


FUTURES = 6
"""Other futures that are tried after a cut before which columns are not known."""
ENOUGH = 20
"""Cuts by which one peek in a million passes, if it is seen at each with a chance of one half."""


class Part(NamedTuple):
    """Bars from ``first`` up to ``stop``, and what is observed of them.

    ``is_continued`` where other bars followed them, as many as the whole market has.
    """

    first: int
    stop: int
    seen: Seen
    is_continued: bool = False


class Causality(NamedTuple):
    """How well columns were checked: the number of cuts. A peek passes each in one case of two.

    ``cuts`` is that of the column with the fewest; ``unseen`` are columns that no part was long
    enough for, though they are known in the whole market.
    """

    cuts: int
    has_columns: bool
    unseen: tuple[str, ...] = ()

    @property
    def is_weak(self) -> bool:
        """Whether a peek in half of the rows passes with a chance of more than 1e-6."""
        return self.has_columns and self.cuts < ENOUGH

    def __str__(self) -> str:
        if not self.has_columns:
            return "no columns to check"
        if self.cuts == 0:
            names = f": {', '.join(self.unseen)} known in too few bars" if self.unseen else ""
            return f"columns not checked{names}"
        return describe_cuts("columns", self.cuts)


def describe_cuts(what: str, cuts: int) -> str:
    """Return what was checked by how many cuts, and with which chance a peek passes.

    Examples
    --------
    >>> describe_cuts("columns", 28)
    'columns checked at 28 cuts; a peek in half of the rows passes with a chance of 3.7e-09'
    """
    places = "1 cut" if cuts == 1 else f"{cuts} cuts"
    chance = f"a peek in half of the rows passes with a chance of {0.5**cuts:.2g}"
    return f"{what} checked at {places}; {chance}"


# ----------------------------------------------------------------------------------------- the cuts


class Checker:
    """Cuts a market and compares what is observed of its parts.

    Parameters
    ----------
    name, where : str
        What is checked, and where it stands, for messages.
    look : callable
        Returns the columns of a part, None where it is too short.
    market, columns
        All bars, and what is observed of them; a column without a name is ``name`` itself.
    plan : Plan
        How many cuts are made.
    meter : Meter or None
        What counted the work of observing the whole market.
    """

    def __init__(
        self,
        name: str,
        where: str,
        look: Look,
        market: Market,
        columns: Seen,
        plan: Plan = USUAL,
        meter: WorkMeter | None = None,
    ) -> None:
        self.name = name
        self.where = where
        self._look = look
        self.market = market
        self.columns = columns
        self.plan = plan
        self.meter = meter or WorkMeter()
        self.places = Places(market, columns)
        n = market.n_bars
        firsts = {name: find_first(column) for name, column in columns.items()}
        self.firsts = {name: first for name, first in firsts.items() if first < n}
        self.warm = max(self.firsts.values(), default=0)
        self.work = -self.meter.bars
        self.budget = plan.budget * max(MOST_BARS, (n + self.meter.bars) / 4)
        self.cuts: dict[str, set[int]] = {name: set() for name in columns}
        self.whole = Part(0, n, columns)
        self.futures = 2

    def check(self) -> Causality:
        """Make the cuts.

        Raises
        ------
        PolicyError
            If a part differs from a longer one.
        """
        if not self.columns or self.market.n_bars < 2:
            return Causality(0, bool(self.columns))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short parts; the whole market has warned already
            self._cut_from_the_start()
            self._cut_chains()
            self._cut_more()
        unseen = tuple(name for name in self.firsts if not self.cuts[name])
        names = list(self.firsts) or list(self.columns)
        return Causality(min(len(self.cuts[name]) for name in names), True, unseen)

    # ------------------------------------------------------------- parts that begin with the market

    def _cut_from_the_start(self) -> None:
        """Compare parts that begin with the market with all of it: the columns that are traded."""
        n = self.market.n_bars
        low = min(self.warm + KNOWN, max(self.warm + 1, n // 2), n - 1)
        high = max(low, min(n - 1, LONGEST))
        lengths = np.geomspace(low, high, self.plan.prefixes)
        for k, length in enumerate(lengths.tolist()):
            spare = int(0.1 * length)
            stop = self.places.draw(int(length), min(high, int(length) + spare))
            stop = high if k == len(lengths) - 1 else stop
            if k == 0 or self._can_afford(stop):
                self._compare_with_whole(stop)

    def _cut_more(self) -> None:
        """Cut where chains made fewer cuts than are wanted: the market, or the budget, is short."""
        n = self.market.n_bars
        low = min(self.warm + 1, n - 1)
        tried: set[int] = set()
        while self._count() < self.plan.wanted and len(tried) < 2 * self.plan.wanted:
            high = min(n - 1, max(low + 2 * self.plan.wanted, 2 * low))
            stop = self.places.draw_anywhere(low, high, "any")
            if stop in tried:
                stop = next((c for c in range(low, high + 1) if c not in tried), n)
            if stop >= n or not self._can_afford(stop):
                return
            tried.add(stop)
            self._compare_with_whole(stop)

    def _compare_with_whole(self, stop: int) -> None:
        part = self._observe(0, stop)
        if part is not None:
            self._compare(part, self.whole)
        is_unknown = part is None or not self._is_known(part)
        if is_unknown and self.futures and self._can_afford(self.market.n_bars):
            self.futures -= 1
            self._compare_futures(stop)

    def _compare_futures(self, stop: int) -> None:
        """Compare with other bars after a cut: what is observed of fewer bars says nothing."""
        n, rng = self.market.n_bars, np.random.default_rng(stop)
        for _ in range(FUTURES):
            self.work += n
            seen = self._look(rewrite_after(self.market, stop - 1, rng))
            if seen is None or not self._can_afford(n):
                return
            past = {name: column[:stop] for name, column in seen.items()}
            self._compare(Part(0, stop, past, is_continued=True), self.whole)

    def _count(self) -> int:
        return min((len(self.cuts[name]) for name in self.firsts), default=self.plan.wanted)

    # ------------------------------------------------------------------------ parts from the middle

    def _cut_chains(self) -> None:
        """Compare parts that begin with the same bar, one after the other, at several places."""
        for length in self._list_lengths():
            chained = 0
            for k in range(self.plan.chains):
                is_known = self._cut_chain(length, ORDER[k % len(ORDER)])
                if not is_known and chained == 0:
                    break
                chained += 1
            if chained:
                return

    def _list_lengths(self) -> Iterator[int]:
        """Yield lengths of the first part of a chain, until columns are known in one."""
        n, least = self.market.n_bars, self.warm + KNOWN
        yield from (length + KNOWN for length in LENGTHS if 4 * length < least)
        while least < n - 1:
            yield least
            least *= 2
        if self.warm + KNOWN >= n - 1:
            yield max(2, min(self.warm + 2, n // 2))

    def _cut_chain(self, length: int, kind: Kind) -> bool:
        """Compare parts of one start; tell whether they were long enough to know the columns."""
        room = self.market.n_bars - 1 - length
        high = length + max(room // 2, room - int(GROWTHS[0] * length))
        low = min(high, length if length > self.warm else self.warm + length)
        stop = self.places.draw_anywhere(low, high, kind)
        first = max(0, stop - length)
        if not self._can_afford(stop - first):
            return False
        before = self.meter.bars
        part = self._observe(first, stop)
        if part is None or not self._is_known(part):
            return False
        is_dear = self.meter.bars - before > stop - first
        for link in range(self.plan.links):
            stop = self._grow(first, part.stop, link, length, is_dear=is_dear)
            longer = self._observe(first, stop) if self._can_afford(stop - first) else None
            if stop == part.stop or longer is None:
                break
            self._compare(part, longer)
            part = longer
        return True

    def _grow(self, first: int, stop: int, link: int, length: int, *, is_dear: bool) -> int:
        """Return where the next part of a chain ends."""
        n, links = self.market.n_bars, self.plan.links
        step = STEPS[link % len(STEPS)]
        if not is_dear:
            step = max(step, int((stop - first) * (self._find_ratio(length) - 1.0)))
        step = min(step, max(1, (n - stop) // (links - link)))
        return self.places.draw(min(n, stop + step), min(n, stop + step + step // 4))

    def _find_ratio(self, length: int) -> float:
        """Return how many times as long each part is than the one before; 1 where that is dear."""
        links, most = self.plan.links, max(GROWTH_BARS, self.market.n_bars / 4)
        for growth in GROWTHS:
            ratio: float = growth ** (1.0 / links)
            bars = self.plan.chains * length * sum(ratio**k for k in range(links + 1))
            if bars <= self.plan.budget * most:
                return ratio
        return 1.0

    def _is_known(self, part: Part) -> bool:
        """Tell whether every column that is known in these bars of the whole is known in a part."""
        rows = slice(part.stop - KNOWN, part.stop)
        expected = [name for name in self.firsts if is_any_known(self.columns[name][rows])]
        return all(name in part.seen and is_any_known(part.seen[name]) for name in expected)

    # ------------------------------------------------------------------------------- one comparison

    def _can_afford(self, length: int) -> bool:
        return self.work + self.meter.bars + length <= self.budget

    def _observe(self, first: int, stop: int) -> Part | None:
        self.work += stop - first
        with measure_work(self.meter):
            seen = self._look(self.market.slice(first, stop))
        return None if seen is None else Part(first, stop, seen)

    def _compare(self, part: Part, longer: Part) -> None:
        """Refuse columns of a part that are others in a longer part; note which were known."""
        for name in self.columns:
            one = part.seen.get(name)
            other = longer.seen.get(name)
            if one is None or other is None or not is_any_known(one):
                continue  # not warm in so few bars
            rows = find_differences(one, other[: len(one)])
            if len(rows) and not is_clear(one, other[: len(one)], rows, KNOWN):
                rows = self._leave_out_rounding(name, part, rows, other[rows])
                if len(rows) and longer.stop - longer.first <= LONGEST:
                    rows = self._leave_out_rounding(name, longer, rows, one[rows])
            if len(rows):
                raise self._blame(name, part, longer, int(rows[0]))
            if is_any_known(one[-KNOWN:]):
                self.cuts[name].add(part.stop)

    def _leave_out_rounding(
        self, name: str, part: Part, rows: IntArray, other: FloatArray
    ) -> IntArray:
        """Return the rows whose difference is more than rounding makes of them in a part."""
        market = self.market.slice(part.first, part.stop)
        rng = np.random.default_rng(0)
        if part.is_continued:
            return rows
        size = SINGLE_NOISE if fits_single(part.seen[name]) else NOISE
        values = np.full((2, 2 * TRIES + 1, len(rows)), np.nan)
        values[:, 0] = part.seen[name][rows]
        left = rows
        for k in range(TRIES if len(rows) > FEW_ROWS else 2 * TRIES):
            for half in (0, 1):
                seen = self._look(add_noise(market, rng, half, size))
                if seen is None or name not in seen:
                    return rows
                values[half, k + 1] = seen[name][rows]
            left = leave_out_spread(rows, values[:, : k + 2], other, market.n_bars)
            if not len(left):
                break  # more tries only explain more
        return left

    def _blame(self, name: str, part: Part, longer: Part, t: int) -> PolicyError:
        """Return the error of a column that looks ahead: the bar, both values and both parts."""
        bar = part.first + t
        again: Seen | None = part.seen
        if not part.is_continued:
            again = self._look(self.market.slice(part.first, part.stop))
        where = f"{self.where}, bar {bar}, {format_time(int(self.market.time[bar]))}"
        which = f"column {name!r}" if name else "it"
        is_steady = again is not None and not len(find_differences(part.seen[name], again[name]))
        if not is_steady:
            return PolicyError(
                f"{self.name} says something else each time: {which} differs between two calls on "
                f"the same {part.stop - part.first} bars",
                where=where,
                cure="use no random numbers, no clock, and nothing that is kept between calls",
            )
        whole, less = float(longer.seen[name][t]), float(part.seen[name][t])
        return PolicyError(
            f"{self.name} looks ahead: {which} is {whole!r} when "
            f"{self._describe(longer)} are seen, {less!r} when {self._describe(part)} are",
            where=where,
            cure=CURE,
        )

    def _describe(self, part: Part) -> str:
        if part.is_continued:
            return f"other bars after bar {part.stop - 1}"
        if part.stop - part.first == self.market.n_bars:
            return f"all {self.market.n_bars} bars"
        if part.first == 0:
            return f"the first {part.stop}"
        return f"bars {part.first} to {part.stop - 1}"


def find_first(column: FloatArray) -> int:
    """Return the bar of the first value that is no NaN; the number of bars where there is none."""
    known = ~np.isnan(column)
    first = int(known.argmax())
    return first if known[first] else len(column)


def is_any_known(column: FloatArray) -> bool:
    """Tell whether some value is no NaN."""
    return not bool(np.isnan(column).all())

"""Find columns that look ahead, by cutting the market and comparing the columns of its parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest.base import FloatArray, IntArray, WorkMeter, measure_work
from backtest.engine.lookahead.code_origin import is_ours
from backtest.engine.lookahead.market_ends import ORDER, CutKind, CutPlaces, rewrite_future
from backtest.engine.lookahead.peek_errors import (
    KNOWN,
    Difference,
    MarketPart,
    ObserveColumn,
    PeekErrors,
)
from backtest.engine.lookahead.rounding_noise import (
    UNSTABLE,
    find_differences,
    find_unstable_share,
    leave_out_spread,
    leave_out_ties,
)
from backtest.market import Market, Markets, detach
from backtest.policy import Columns

Observe: TypeAlias = Callable[[Any], Columns | None]

LENGTHS = (256, 1024)
"""Shorter warm-ups that are tried if the columns of the whole market begin late."""
GROWTHS = (10.0, 4.0, 2.0)
"""Lengths of a chain's last part, as multiples of its first; the first affordable one is used."""
STEPS = (1, 7, 48)
"""Bars by which parts grow if more would cost too much."""
GROWTH_BARS = 25_000
"""Bars that may be observed for growing parts, or a quarter of the market if that is more."""
MOST_BARS = 100_000
"""Bars that may be observed at all, or a quarter of the work for the whole market if more."""


class CutPlan(NamedTuple):
    chains: int
    links: int
    prefixes: int
    wanted: int
    budget: float = 1.0
    longest: int = 16_384
    dense: int = 256


USUAL = CutPlan(chains=8, links=3, prefixes=4, wanted=28, longest=8192)
SWEPT = CutPlan(chains=6, links=3, prefixes=3, wanted=21, longest=4096)
FULL = CutPlan(chains=64, links=4, prefixes=16, wanted=256, budget=16.0, dense=1024)
FUTURES = 6
"""Alternative futures that are tried after a cut if no columns are known before it."""
ENOUGH = 20
"""Cuts after which a peek that shows at half of the cuts is missed once in a million times."""


class Causality(NamedTuple):
    cuts: int
    has_columns: bool
    unseen: tuple[str, ...] = ()
    fresh: str = ""

    @property
    def is_weak(self) -> bool:
        return self.has_columns and self.cuts < ENOUGH

    def __str__(self) -> str:
        if not self.has_columns:
            return "no columns to check"
        if self.cuts == 0:
            names = f": {', '.join(self.unseen)} known in too few bars" if self.unseen else ""
            return f"columns not checked{names}"
        return "; ".join(filter(None, (describe_cuts("columns", self.cuts), self.fresh)))


def describe_cuts(what: str, cuts: int) -> str:
    places = "1 cut" if cuts == 1 else f"{cuts} cuts"
    chance = f"a peek in half of the rows passes with a chance of {0.5**cuts:.2g}"
    return f"{what} checked at {places}; {chance}"


# ----------------------------------------------------------------------------------------- the cuts


class CausalityChecker:
    def __init__(
        self,
        name: str,
        observe: Observe,
        market: Market | Markets,
        columns: Columns,
        plan: CutPlan = USUAL,
        meter: WorkMeter | None = None,
        lanes: int = 1,
    ) -> None:
        self.errors = PeekErrors(name, market)
        self._observe_part = observe
        self.market = market
        self.columns = columns
        self.plan = plan
        self.meter = meter or WorkMeter()
        self.lanes = lanes
        self.places = CutPlaces(market, columns)
        n = market.n_bars
        firsts = {name: find_first(column) for name, column in columns.items()}
        self.firsts = {name: first for name, first in firsts.items() if first < n}
        self.warm = max(self.firsts.values(), default=0)
        self.work = -self.meter.bars
        self.budget = plan.budget * max(MOST_BARS * lanes, (n * lanes + self.meter.bars) / 4)
        self.cuts: dict[str, set[int]] = {name: set() for name in columns}
        self.whole = MarketPart(0, n, columns)
        self.futures = 2
        self.parts: list[MarketPart] = []
        self.is_counting = True
        self.is_ours = isinstance(observe, partial) and is_ours(observe)

    def check(self) -> Causality:
        if not self.columns or self.market.n_bars < 2:
            return Causality(0, bool(self.columns))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short parts: the whole market has warned already
            self._cut_from_the_start()
            self._cut_chains()
            self._cut_more()
        unseen = tuple(name for name in self.firsts if not self.cuts[name])
        names = list(self.firsts) or list(self.columns)
        return Causality(min(len(self.cuts[name]) for name in names), True, unseen)

    def cut_densely(self) -> None:
        if not self.columns or self.market.n_bars < 2:
            return
        low, self.is_counting = self.warm + KNOWN, False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for stop in range(low, min(low + self.plan.dense, self.market.n_bars)):
                part = self._observe(0, stop) if self._can_afford(stop) else None
                if part is None:
                    return
                self._compare(part, self.whole)

    # ------------------------------------------------------------- parts that begin with the market

    def _cut_from_the_start(self) -> None:
        n = self.market.n_bars
        low = min(self.warm + KNOWN, max(self.warm + 1, n // 2), n - 1)
        high = max(low, min(n - 1, self.plan.longest))
        lengths = np.geomspace(low, high, self.plan.prefixes)
        before = 0
        for k, length in enumerate(lengths.tolist()):
            stop = self.places.draw(int(length), min(high, int(length) + int(0.1 * length)))
            stop = high if k == len(lengths) - 1 else stop
            if k == 0 or (stop != before and self._can_afford(stop)):
                self._compare_with_whole(stop)
            before = stop

    def _cut_more(self) -> None:
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
        n, rng = self.market.n_bars, np.random.default_rng(stop)
        for _ in range(FUTURES):
            self.work += n * self.lanes
            seen = self._observe_part(rewrite_future(self.market, stop - 1, rng))
            if seen is None or not self._can_afford(n):
                return
            past = {name: column[:stop] for name, column in seen.items()}
            self._compare(MarketPart(0, stop, past, is_continued=True), self.whole)

    def _count(self) -> int:
        return min((len(self.cuts[name]) for name in self.firsts), default=self.plan.wanted)

    # ------------------------------------------------------------------------ parts from the middle

    def _cut_chains(self) -> None:
        for length in self._list_lengths():
            if self._cut_chain(length, ORDER[0]):
                for k in range(1, self.plan.chains):
                    self._cut_chain(length, ORDER[k % len(ORDER)])
                return

    def _list_lengths(self) -> Iterator[int]:
        n, least = self.market.n_bars, self.warm + KNOWN
        yield from (length + KNOWN for length in LENGTHS if 4 * length < least)
        while least < n - 1:
            yield least
            least *= 2
        if self.warm + KNOWN >= n - 1:
            yield max(2, min(self.warm + 2, n // 2))

    def _cut_chain(self, length: int, kind: CutKind) -> bool:
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
        is_costly = self.meter.bars - before > stop - first
        for link in range(self.plan.links):
            stop = self._grow(first, part.stop, link, length, is_costly=is_costly)
            longer = self._observe(first, stop) if self._can_afford(stop - first) else None
            if stop == part.stop or longer is None:
                break
            self._compare(part, longer)
            part = longer
        return True

    def _grow(self, first: int, stop: int, link: int, length: int, *, is_costly: bool) -> int:
        n, links = self.market.n_bars, self.plan.links
        step = STEPS[link % len(STEPS)]
        if not is_costly:
            step = max(step, int((stop - first) * (self._find_ratio(length) - 1.0)))
        step = min(step, max(1, (n - stop) // (links - link)))
        return self.places.draw(min(n, stop + step), min(n, stop + step + step // 4))

    def _find_ratio(self, length: int) -> float:
        links, most = self.plan.links, max(GROWTH_BARS, self.market.n_bars / 4)
        for growth in GROWTHS:
            ratio: float = growth ** (1.0 / links)
            bars = self.plan.chains * length * sum(ratio**k for k in range(links + 1))
            if bars <= self.plan.budget * most:
                return ratio
        return 1.0

    def _is_known(self, part: MarketPart) -> bool:
        rows = slice(part.stop - KNOWN, part.stop)
        expected = [name for name in self.firsts if is_any_known(self.columns[name][rows])]
        return all(name in part.seen and is_any_known(part.seen[name]) for name in expected)

    # ------------------------------------------------------------------------------- one comparison

    def _can_afford(self, length: int) -> bool:
        return self.work + self.meter.bars + length * self.lanes <= self.budget

    def take(self, first: int, stop: int) -> Any:
        part = self.market.slice(first, stop)
        return part if self.is_ours else detach(part)

    def _observe(self, first: int, stop: int) -> MarketPart | None:
        self.work += (stop - first) * self.lanes
        with measure_work(self.meter):
            seen = self._observe_part(self.take(first, stop))
        if seen is None:
            return None
        part = MarketPart(first, stop, seen)
        if self.is_counting:
            self.parts.append(part)
        return part

    def observe(self, market: Market | Markets) -> Columns | None:
        return self._observe_part(market)

    def _compare(self, part: MarketPart, longer: MarketPart) -> None:
        for name in self.columns:
            one = part.seen.get(name)
            other = longer.seen.get(name)
            if one is None or other is None or not is_any_known(one):
                continue  # not warm in so few bars
            rows = find_differences(one, other[: len(one)])
            if len(rows):
                self._judge(Difference(name, part, longer, rows))
            if self.is_counting and is_any_known(one[-KNOWN:]):
                self.cuts[name].add(part.stop)

    def _judge(self, found: Difference) -> None:
        def observe_column(market: Market | Markets) -> FloatArray | None:
            return (self._observe_part(market) or {}).get(found.column)

        shorter = self.take(found.part.first, found.part.stop)
        if not found.part.is_continued:
            rows = self._leave_out_rounding(found, observe_column, shorter)
            found = found._replace(rows=rows)
        if len(found.rows):
            raise self.errors.describe(found, observe_column, shorter)

    def _leave_out_rounding(
        self, found: Difference, observe: ObserveColumn, shorter: Market | Markets
    ) -> IntArray:
        rows, market = found.rows, self.take(found.longer.first, found.longer.stop)
        one, other = (each.seen[found.column] for each in (found.part, found.longer))
        again = observe(shorter)
        if again is None or len(find_differences(one, again)):
            return rows  # not repeatable
        share = find_unstable_share(observe, shorter, one)
        if share > UNSTABLE:
            rows = leave_out_ties(observe, market, shorter, rows)
            if len(rows) > max(8, 2.0 * UNSTABLE * len(one)):  # more than a few: drawn anew
                raise self.errors.describe_unstable(found._replace(rows=rows), share)
        reach = 4.0 if share <= UNSTABLE else 1.0
        rows = leave_out_spread(observe, shorter, rows, one, other, reach)
        if len(rows):
            rows = leave_out_spread(observe, market, rows, other, one, reach)
        return leave_out_ties(observe, market, shorter, rows) if len(rows) else rows


def find_first(column: FloatArray) -> int:
    first, size = 0, 256
    while first < len(column):
        known = ~np.isnan(column[first : first + size])
        place = int(known.argmax())
        if known[place]:
            return first + place
        first, size = first + size, 8 * size
    return len(column)


def is_any_known(column: FloatArray) -> bool:
    return not bool(np.isnan(column[-1:]).all() and np.isnan(column).all())

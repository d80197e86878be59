"""Observe the columns of policies and signals, and refuse those that later bars change.

Parts of the market are observed before the whole, in the order of their ends: whatever is kept
between calls cannot hold bars that the next part does not have. Parts that begin at one bar and
grow form a chain, and every row of a part must stay the same in the next one.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from backtest.core import FloatArray, IntArray, PolicyError, format_time
from backtest.core.units import DAY
from backtest.market import Market, Markets, detach
from backtest.policies.policy import (
    Columns,
    Policy,
)

KNOWN = 32
"""Last rows of a part; one of them must be known for its end to count as a cut."""
SHORTEST = 32
"""Bars of the first part; it is replaced by one twice as long until all columns are known."""
LONGEST = 8000
"""Bars by which the longest part may exceed the warm-up."""
WORK = 2
"""Bars of all parts, as a multiple of those of the whole market."""
MIN_WORK = 49_152
"""Bars that may be observed in any case: those of short markets cost next to nothing."""
CHAINS = 6
LINKS = 12
"""Chains in the middle of the market, and the parts of each."""
NEAR = 480
"""Bars after the first end of a chain within which most of its other ends lie."""
FUTURES = 4
"""Other bars that follow a part in which nothing is known, though a longer one knows its rows."""
ENOUGH = 20
"""Cuts after which a peek that shows at half of the cuts is missed once in a million times."""
TOLERANCE = Policy.tolerance
FEWEST = 3
"""Cuts that must count where a policy of a checked kind is checked with other numbers."""

CURE = (
    "use only values up to each bar: rolling and ewm, not mean() of the whole, not shift(-1), no "
    "centered windows, no backward fill, no settlement stamped at the close itself; for columns "
    "that only rounding changes (FFT, float32) declare tolerance = 1e-4, for example"
)
STEADY = "use no random numbers, no clock, and nothing that is kept between calls"

Observe = Callable[[Any], Columns | None]
"""Returns the columns of a part of the market, None where the code under test raises."""


class Causality(NamedTuple):
    """At how many cuts columns were checked.

    ``is_of_kind`` says that these were the cuts of a policy of the same code with other numbers,
    and that this one was checked at the largest moves.
    """

    cuts: int
    has_columns: bool
    unseen: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    is_of_kind: bool = False

    @property
    def is_weak(self) -> bool:
        return self.has_columns and self.cuts < ENOUGH

    def __str__(self) -> str:
        names = f"; not checked, as data of the market: {', '.join(self.given)}"
        text = "no columns to check"
        if self.has_columns and self.cuts > 0:
            text = describe_cuts("columns", self.cuts)
            if self.is_of_kind:
                text += " with other numbers, and with these at the largest moves"
        elif self.has_columns:
            unseen = f": {', '.join(self.unseen)} known in too few bars" if self.unseen else ""
            text = f"columns not checked{unseen}"
        return text + names * bool(self.given)


def describe_cuts(what: str, cuts: int) -> str:
    return f"{what} checked at {cuts} cut{'s' * (cuts != 1)}"


class Part(NamedTuple):
    first: int
    stop: int
    seen: Columns


class LookAheadCheck:
    """Observes parts of a market in the order of their ends, then the whole, then a part again."""

    def __init__(
        self,
        name: str,
        observe_part: Observe,
        market: Market | Markets,
        tolerance: float = TOLERANCE,
        effort: int = 1,
    ) -> None:
        self.name = name
        self.market = market
        self.tolerance = tolerance
        self.effort = effort
        self.cuts: dict[str, set[int]] = {}
        self.causality = Causality(0, has_columns=False)
        self._observe_part = observe_part
        self._observe_whole: Callable[[], Columns] = dict
        self._room = max(WORK * market.n_bars, MIN_WORK) * effort
        self._close = follow_largest_moves(market)
        if isinstance(market, Market):  # by bar, the next rate's; a change of sign above all
            last = market.funding_rate[-1] if len(market.funding_rate) else 0.0
            rates = np.append(market.funding_rate, last)
            turns, moves = (np.abs(np.diff(x, prepend=x[0])) for x in (np.sign(rates), rates))
            places = np.searchsorted(market.funding_time, market.time)
            self._funding_changes = (turns + moves)[places]
        self._rng = np.random.default_rng(np.frombuffer(self._close[:256].tobytes(), np.uint32))

    def run(self, observe_whole: Callable[[], Columns]) -> Columns:
        """Return the columns of the whole market; raise a PolicyError if they look ahead."""
        self._observe_whole = observe_whole
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts: the whole market warns once
            begun = self._find_warm_up()
            if begun and begun[-1].seen:
                self._cut_chains(begun)
        columns = observe_whole()
        whole = Part(0, self.market.n_bars, columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in begun:
                self._compare(part, whole)
            if begun and columns:
                self._check_steady(begun[0])
        known = [name for name, column in columns.items() if not np.isnan(column).all()]
        counts = {name: len(self.cuts.get(name, ())) for name in known or columns}
        unseen = tuple(name for name, count in counts.items() if known and count == 0)
        given = tuple(self.market.columns) if isinstance(self.market, Market) else ()
        self.causality = Causality(min(counts.values(), default=0), bool(columns), unseen, given)
        return columns

    def run_briefly(
        self, observe_whole: Callable[[], Columns], of_kind: Causality
    ) -> Columns | None:
        """Return the columns of the whole market, compared with those of beginnings of it.

        The beginnings end before the largest moves of prices and funding; ``of_kind`` is the full
        check of a policy of the same code. None if too few of them show a value of each column.
        """
        self._observe_whole = observe_whole
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = [self._observe(0, stop) for stop in self._find_largest_moves()]
        if len(parts) < FEWEST or None in parts:
            return None

        columns = observe_whole()
        whole = Part(0, self.market.n_bars, columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in parts:
                self._compare(part, whole)  # type: ignore[arg-type] # none is None
        known = [name for name, column in columns.items() if is_any_known(column)]
        if any(len(self.cuts.get(name, ())) < FEWEST for name in known):
            return None
        self.causality = of_kind._replace(is_of_kind=True)
        return columns

    def _find_largest_moves(self) -> list[int]:
        """Return the bars of the largest moves, but for the beginning, at which columns warm up."""
        first = max(2, self.market.n_bars // 4)
        moves = np.diff(np.log(self._close[first - 1 :]))
        if len(moves) < FEWEST:
            return []
        places = {int(moves.argmax()), int(moves.argmin())}
        for place in np.argsort(-np.abs(moves), kind="stable"):
            if len(places) == FEWEST:
                break
            places.add(int(place))
        funded = self._funding_changes[first:]
        if funded.any():
            places.add(int(funded.argmax()))
        return sorted(first + place for place in places)

    def _find_warm_up(self) -> list[Part]:
        """Return parts that begin with the market, up to one in which every column is known."""
        n, parts = self.market.n_bars, list[Part]()
        length = min(SHORTEST, max(2, n // 4))
        while length < n and length <= self._room:
            part = self._observe(0, length)
            if part is not None:
                if parts:
                    self._compare(parts[-1], part)
                    self._change_future(parts[-1], part)
                parts.append(part)
                if all(is_any_known(column) for column in part.seen.values()):
                    break
            length = max(length + 1, min(2 * length, (length + n) // 2))
        return parts

    def _change_future(self, part: Part, longer: Part) -> None:
        """Let other bars follow a part in which nothing is known: only so a backward fill shows."""
        stop, market = part.stop, self.market
        if not isinstance(market, Market):
            return
        filled = [name for name, column in longer.seen.items() if is_any_known(column[:stop])]
        filled = [name for name in filled if not is_any_known(part.seen.get(name, np.zeros(1)))]
        for _ in range(FUTURES if filled else 0):
            other = rewrite_after(market.prefix(longer.stop), stop - 1, self._rng)
            self._room -= longer.stop
            seen = self._observe_part(other) or {}
            for name in [each for each in filled if each in seen]:
                column, after = longer.seen[name], seen[name][:stop]
                for row in find_differences(after, column, self.tolerance).tolist():
                    text = (
                        f"looks ahead: {name_column(name)} is {float(column[row])!r}, and "
                        f"{float(after[row])!r} when other bars follow bar {stop - 1}"
                    )
                    raise self._refuse(part, row, text, CURE)

    def _cut_chains(self, begun: list[Part]) -> None:
        """Observe the chains; those that begin with the market are added to ``begun``."""
        known = [name for name, column in begun[-1].seen.items() if is_any_known(column)]
        firsts = (int((~np.isnan(begun[-1].seen[name])).argmax()) for name in known)
        warm = max(firsts, default=0)
        chains: dict[int, Part] = {}
        length = min(warm + KNOWN, max(warm + 2, self.market.n_bars // 2))
        for stop, chain in self._plan(begun[-1].stop, length):
            before = begun[-1] if chain < 0 else chains.get(chain)
            if before is not None:
                part = self._observe(before.first, stop)
            else:
                part = self._observe(max(0, stop - length), stop)
                while part is None or not all(is_any_known(part.seen[name]) for name in known):
                    length = 2 * length
                    if length > min(stop, warm + LONGEST):
                        break
                    part = self._observe(stop - length, stop)
            if part is None:
                continue
            if before is not None:
                self._compare(before, part)
            chains[chain] = part
            if chain < 0:
                begun.append(part)

    def _plan(self, least: int, length: int) -> list[tuple[int, int]]:
        """Return the ends of parts and their chains, in order; chain -1 begins with the market."""
        n, room, plan = self.market.n_bars, self._room, set[tuple[int, int]]()
        longest = min(n - 1, least + LONGEST)
        for stop in (longest, longest // 4):
            if least < stop <= room // 2:
                plan.add((stop, -1))
                room -= stop
        low = max(least, length)
        most = room // (LINKS * (length + NEAR // 2))
        n_chains = max(1, min(CHAINS * self.effort, most))
        edges = np.linspace(low, max(low, n - 2), n_chains + 1).astype(int)
        for chain in range(n_chains):
            if low + 1 >= n:
                break
            begin = int(self._rng.integers(edges[chain], edges[chain + 1] + 1)) + 1
            if chain < 2:  # before the largest move up, or down
                moves = (-1) ** chain * self._close[low + 1 :] / self._close[low:-1]
                begin = max(low + 1, low + 1 + int(moves.argmax()) - int(self._rng.integers(24)))
            for stop in self._choose_ends(begin):
                if room >= length + stop - begin:
                    plan.add((stop, chain))
                    room -= length + stop - begin
        return sorted(plan)

    def _choose_ends(self, stop: int) -> list[int]:
        """Return ends from one on: the next bar, drawn ones, and those before what is rare.

        Rare are large moves up and down, much volume, other funding or signals, and a day's end.
        """
        market, close = self.market, self._close
        last = min(market.n_bars - 1, stop + NEAR)
        if last <= stop + 1:
            return [each for each in (stop, stop + 1) if each < market.n_bars]
        near = np.arange(stop + 1, last + 1)
        moves = close[near] / close[near - 1]
        rare = [moves, -moves]
        if isinstance(market, Market):
            rare += [market.volume[near - 1], self._funding_changes[near]]
            rare.append(np.abs(market.signal[near] - market.signal[near - 1]))
        ends = {stop, stop + 1, *(last - int(sizes[::-1].argmax()) for sizes in rare)}
        ends.update(near[market.time[near] // DAY != market.time[near - 1] // DAY][:1].tolist())
        ends.update(self._rng.integers(stop, last + 1, max(1, LINKS - len(ends))).tolist())
        return sorted(ends)

    def _observe(self, first: int, stop: int) -> Part | None:
        self._room -= stop - first
        try:
            seen = self._observe_part(detach(self.market.slice(first, stop)))
        except PolicyError:  # of another number of rows: say it of the whole, if that is wrong too
            self._observe_whole()
            raise
        return None if seen is None else Part(first, stop, seen)

    def _compare(self, part: Part, longer: Part) -> None:
        for name in part.seen:
            if name not in longer.seen:
                continue
            rows = find_differences(part.seen[name], longer.seen[name], self.tolerance)
            if len(rows):
                self._check_steady(part)
                whole, less = (float(each.seen[name][rows[0]]) for each in (longer, part))
                text = (
                    f"looks ahead: {name_column(name)} is {whole!r} when {self._name_bars(longer)} "
                    f"are seen, {less!r} when {self._name_bars(part)} are"
                )
                raise self._refuse(part, int(rows[0]), text, CURE)
            if is_any_known(part.seen[name][-KNOWN:]):
                self.cuts.setdefault(name, set()).add(part.stop)

    def _check_steady(self, part: Part) -> None:
        again = self._observe(part.first, part.stop)
        seen: Columns = {} if again is None else again.seen
        for name, column in part.seen.items():
            rows = find_differences(column, seen[name], self.tolerance) if name in seen else [0]
            if len(rows):
                problem = (
                    f"is not repeatable: {name_column(name)} differs between two calls on the same "
                    f"{part.stop - part.first} bars"
                )
                raise self._refuse(part, int(rows[0]), problem, STEADY)

    def _refuse(self, part: Part, row: int, problem: str, cure: str) -> PolicyError:
        bar = part.first + row
        time = format_time(int(self.market.time[bar]))
        return PolicyError(f"{self.name} {problem}, at bar {bar}, {time} UTC; {cure}")

    def _name_bars(self, part: Part) -> str:
        if part.stop - part.first == self.market.n_bars:
            return f"all {self.market.n_bars} bars"
        if part.first == 0:
            return f"the first {part.stop}"
        return f"bars {part.first} to {part.stop - 1}"


def name_column(name: str) -> str:
    return f"column {name!r}" if name else "it"


def is_any_known(column: FloatArray) -> bool:
    return not bool(np.isnan(column).all())


def find_differences(one: FloatArray, longer: FloatArray, tolerance: float) -> IntArray:
    """Return the rows in which a column and a longer one differ.

    ``tolerance`` is a share of the larger value; near 0 a thousandth of it, or all of a tolerance
    above the default, is a share of the column's median size.
    """
    other = longer[: len(one)]
    unlike = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    rows = np.flatnonzero(unlike)
    if len(rows) == 0:
        return rows
    x, y = one[rows], other[rows]
    sizes = np.abs(longer[np.isfinite(longer) & (longer != 0.0)])
    scale = float(np.median(sizes)) if len(sizes) else 0.0
    near_zero = tolerance if tolerance > TOLERANCE else tolerance / 1000.0
    with np.errstate(all="ignore"):
        allowed = np.maximum(tolerance * np.maximum(np.abs(x), np.abs(y)), near_zero * scale)
        is_same = (np.abs(x - y) <= allowed) & np.isfinite(x) & np.isfinite(y)
    return rows[~is_same]


def follow_largest_moves(market: Market | Markets) -> FloatArray:
    """Return a price that moves as the instrument that moves most, of shape (n_bars,)."""
    if isinstance(market, Market):
        return market.close
    moves = np.zeros(market.n_bars)
    for each, (first, stop) in zip(market.values(), market.spans, strict=True):
        changes = np.abs(np.diff(np.log(each.close)))
        moves[first + 1 : stop] = np.maximum(moves[first + 1 : stop], changes)
    turns = np.where(np.arange(market.n_bars) % 2 == 0, -1.0, 1.0)
    return np.exp(np.cumsum(moves * turns))


def make_futures(market: Market, t: int, rng: np.random.Generator) -> Iterator[tuple[str, Market]]:
    yield "when the market ends with bar", market.prefix(t + 1)
    yield "when other bars follow bar", rewrite_after(market, t, rng)


def rewrite_after(market: Market, t: int, rng: np.random.Generator) -> Market:
    """Return a market whose bars after bar t are others, drawn by ``rng``."""
    n = market.n_bars - t - 1
    closes = market.close[t] * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    opens = np.concatenate([market.close[t : t + 1], closes[:-1]])
    wick = 1.0 + np.abs(rng.normal(0.0, 0.01, (2, n)))
    basis = 1.0 + rng.normal(0.0, 1e-3) if market.has_mark else 1.0
    prices = {
        "open": opens,
        "high": np.maximum(opens, closes) * wick[0],
        "low": np.minimum(opens, closes) / wick[1],
        "close": closes,
    }
    marks = {f"mark_{name}": values * basis for name, values in prices.items()}
    later = {**prices, **marks, "volume": market.volume[t + 1 :] * rng.uniform(0.5, 2.0, n)}
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(market, name)[: t + 1], values])
        for name, values in later.items()
    }
    follows = market.funding_time >= market.time[t] + market.interval
    rates = np.where(follows, rng.normal(0.0, 1e-3, len(follows)), market.funding_rate)
    columns = {
        name: np.concatenate([column[: t + 1], rng.permutation(column[t + 1 :]) + 1.0])
        for name, column in market.columns.items()
    }
    return dataclasses.replace(
        market,
        funding_rate=rates,
        funding_mark=np.where(follows, np.nan, market.funding_mark),
        columns=columns,
        source=f"{market.source}, made anew after bar {t}",
        **arrays,
    )

"""Observe the columns of policies and signals, and refuse those that later bars change.

Parts of the market are observed before the whole, in the order of their ends: whatever is kept
between calls cannot hold bars that the next part does not have. Parts that begin at one bar and
grow form a chain, and every row of a part must stay the same in the next one.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
DIRECTIONS = (1, -1)
"""Signs of the moves before which the first chains end: the largest up, and the largest down."""
BEFORE_MOVE = 24
"""Bars before such a move among which the end is drawn."""
FROM_START = -1
"""The number of the chain of parts that begin with the market."""
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

    ``unseen`` are columns known in too few bars, ``market_columns`` are data.
    ``is_of_kind`` says that these were the cuts of a policy of the same code with other numbers,
    and that this one was checked at the largest moves.
    """

    cuts: int
    has_columns: bool
    unseen: tuple[str, ...] = ()
    market_columns: tuple[str, ...] = ()
    is_of_kind: bool = False

    @property
    def is_weak(self) -> bool:
        """Whether a peek could have been missed."""
        return self.has_columns and self.cuts < ENOUGH

    def __str__(self) -> str:
        text = self._describe_columns()
        if self.market_columns:
            names = ", ".join(self.market_columns)
            return f"{text}; not checked, as data of the market: {names}"
        return text

    def _describe_columns(self) -> str:
        if not self.has_columns:
            return "no columns to check"
        if self.cuts == 0:
            if self.unseen:
                return f"columns not checked: {', '.join(self.unseen)} known in too few bars"
            return "columns not checked"

        text = describe_cuts("columns", self.cuts)
        if self.is_of_kind:
            return f"{text} with other numbers, and with these at the largest moves"
        return text


def describe_cuts(what: str, cuts: int) -> str:
    """Return at how many cuts something was checked, in words."""
    noun = "cut" if cuts == 1 else "cuts"
    return f"{what} checked at {cuts} {noun}"


@contextmanager
def ignoring_warnings() -> Iterator[None]:
    """Silence the warnings of parts of a market: the whole market warns of the same, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Part(NamedTuple):
    """The columns of bars ``first`` up to, but not including, ``stop``."""

    first: int
    stop: int
    columns: Columns


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
        self._observe_whole: Callable[[], Columns] = dict  # given to ``run``
        self._room = max(WORK * market.n_bars, MIN_WORK) * effort  # bars left to observe

        # Parts end before large moves and changes of funding: there a peek changes columns most.
        self._close = follow_largest_moves(market)
        if isinstance(market, Market):
            self._funding_changes = find_funding_changes(market)

        # The seed is the market's first prices, so that equal markets are cut at equal places.
        seed = np.frombuffer(self._close[:256].tobytes(), np.uint32)
        self._rng = np.random.default_rng(seed)

    def run(self, observe_whole: Callable[[], Columns]) -> Columns:
        """Return the columns of the whole market; raise a PolicyError if they look ahead.

        Each step compares columns that must be equal on the bars that they share. Writes the
        number of cuts into ``causality``.
        """
        self._observe_whole = observe_whole

        # Longer and longer beginnings of the market, until one has a value in each column. Then
        # parts in the middle, as long as that; more beginnings may be added to the list.
        with ignoring_warnings():
            beginnings = self._find_warm_up()
            if beginnings and beginnings[-1].columns:
                self._cut_chains(beginnings)

        # The whole market comes after its parts: what a policy keeps between calls holds no later
        # bars while the parts are observed.
        columns = observe_whole()
        with ignoring_warnings():
            self._compare_with_whole(beginnings, columns)
            # A part again, now that the policy has seen all: it must not depend on earlier calls.
            if beginnings and columns:
                self._check_steady(beginnings[0])
        self.causality = self._count_cuts(columns)
        return columns

    def _compare_with_whole(self, beginnings: Sequence[Part], columns: Columns) -> None:
        """Raise PolicyError if columns of the whole market differ from those of its beginnings."""
        whole = Part(0, self.market.n_bars, columns)
        for part in beginnings:
            self._compare(part, whole)

    def _count_cuts(self, columns: Columns) -> Causality:
        """Return at how many cuts the columns were checked: the fewest of any of them.

        Columns without a value at any bar do not count, unless all are such.
        """
        known = [name for name, column in columns.items() if is_any_known(column)]
        n_cuts = {name: len(self.cuts.get(name, ())) for name in known or columns}
        unseen: tuple[str, ...] = ()
        if known:
            unseen = tuple(name for name, count in n_cuts.items() if count == 0)

        market_columns: tuple[str, ...] = ()
        if isinstance(self.market, Market):
            market_columns = tuple(self.market.columns)
        return Causality(
            cuts=min(n_cuts.values(), default=0),
            has_columns=bool(columns),
            unseen=unseen,
            market_columns=market_columns,
        )

    def run_briefly(
        self,
        observe_whole: Callable[[], Columns],
        of_kind: Causality,
    ) -> Columns | None:
        """Return the columns of the whole market, compared with those of beginnings of it.

        The beginnings end before the largest moves of prices and funding; ``of_kind`` is the full
        check of a policy of the same code. None if too few of them show a value of each column.
        """
        self._observe_whole = observe_whole
        with ignoring_warnings():
            parts = [self._observe(0, stop) for stop in self._find_largest_moves()]

        # The code may raise on a part, which then is None.
        beginnings = [part for part in parts if part is not None]
        if len(parts) < FEWEST or len(beginnings) < len(parts):
            return None

        # The whole market comes after its parts, as in ``run``.
        columns = observe_whole()
        with ignoring_warnings():
            self._compare_with_whole(beginnings, columns)

        known = [name for name, column in columns.items() if is_any_known(column)]
        if any(len(self.cuts.get(name, ())) < FEWEST for name in known):
            return None
        self.causality = of_kind._replace(is_of_kind=True)
        return columns

    def _find_largest_moves(self) -> list[int]:
        """Return the bars of the largest moves, but for the beginning, at which columns warm up.

        A beginning of the market that ends before one of them does not have the move, so a peek
        shows. They are the largest moves up and down and the next largest, and the largest change
        of funding; none of a market with too few bars.
        """
        # Columns warm up in the first quarter. Moves are by bar from ``first`` on.
        first = max(2, self.market.n_bars // 4)
        moves = np.diff(np.log(self._close[first - 1 :]))
        if len(moves) < FEWEST:
            return []

        # The largest up and down, then the next largest of either sign.
        places = {int(moves.argmax()), int(moves.argmin())}
        largest_first = np.argsort(-np.abs(moves), kind="stable")
        for place in largest_first.tolist():
            if len(places) == FEWEST:
                break
            places.add(place)

        funding_changes = self._funding_changes[first:]
        if funding_changes.any():
            places.add(int(funding_changes.argmax()))
        return sorted(first + place for place in places)

    def _find_warm_up(self) -> list[Part]:
        """Return parts that begin with the market, up to one in which every column is known."""
        n_bars = self.market.n_bars
        parts: list[Part] = []
        length = min(SHORTEST, max(2, n_bars // 4))

        while length < n_bars and length <= self._room:
            part = self._observe(0, length)

            # The code under test may raise on a short part; a longer one follows.
            if part is not None:
                if parts:
                    self._compare(parts[-1], part)
                    self._change_future(parts[-1], part)
                parts.append(part)
                if all(is_any_known(column) for column in part.columns.values()):
                    break

            # Twice as long, or half of what is left, and one bar more at least.
            halfway = (length + n_bars) // 2
            length = max(length + 1, min(2 * length, halfway))
        return parts

    def _change_future(self, part: Part, longer: Part) -> None:
        """Check columns that a part knows nowhere, though a longer part knows them in its bars.

        A column may be unknown until it has had enough bars, or be filled backward from later ones,
        and the two parts cannot say which. So other bars are put behind the part: the column must
        stay as it is in the bars of the part. Raises PolicyError if it does not; draws random
        numbers, and uses up room.
        """
        stop = part.stop
        market = self.market
        if not isinstance(market, Market):
            return

        # A column that the part does not have at all is not such a one: a zero is known.
        known_later = []
        for name, column in longer.columns.items():
            column_of_part = part.columns.get(name, np.zeros(1))
            if is_any_known(column[:stop]) and not is_any_known(column_of_part):
                known_later.append(name)
        if not known_later:
            return

        for _ in range(FUTURES):
            other = rewrite_after(market.prefix(longer.stop), stop - 1, self._rng)
            self._room -= longer.stop
            columns = self._observe_part(other) or {}
            for name in known_later:
                if name in columns:
                    self._check_future(part, name, longer.columns[name], columns[name][:stop])

    def _check_future(
        self,
        part: Part,
        name: str,
        column: FloatArray,
        changed: FloatArray,
    ) -> None:
        """Raise PolicyError if a column of a part differs when other bars follow it."""
        rows = find_differences(changed, column, self.tolerance).tolist()
        if rows:
            row = rows[0]
            text = (
                f"looks ahead: {name_column(name)} is {float(column[row])!r}, and "
                f"{float(changed[row])!r} when other bars follow bar {part.stop - 1}"
            )
            raise self._refuse(part, row, text, CURE)

    def _cut_chains(self, beginnings: list[Part]) -> None:
        """Observe the planned parts, and compare each with the one before it in its chain.

        Parts that begin with the market are added to ``beginnings``.
        """
        columns = beginnings[-1].columns
        known = [name for name, column in columns.items() if is_any_known(column)]

        # The first part of a chain has all columns known in its last rows, or half of the market.
        warm_up = max((find_first_known(columns[name]) for name in known), default=0)
        half = self.market.n_bars // 2
        length = min(warm_up + KNOWN, max(warm_up + 2, half))

        last_of_chain = {FROM_START: beginnings[-1]}
        for stop, chain in self._plan(beginnings[-1].stop, length):
            shorter = last_of_chain.get(chain)
            if shorter is None:
                part, length = self._start_chain(stop, length, known, most=warm_up + LONGEST)
            else:
                part = self._observe(shorter.first, stop)

            # The code under test may raise on a part; the chain goes on with the next one.
            if part is None:
                continue
            if shorter is not None:
                self._compare(shorter, part)
            last_of_chain[chain] = part
            if chain == FROM_START:
                beginnings.append(part)

    def _start_chain(
        self,
        stop: int,
        length: int,
        known: list[str],
        *,
        most: int,
    ) -> tuple[Part | None, int]:
        """Return the part that begins a chain, None without one, and the length tried last.

        Parts up to ``stop`` double their length until all ``known`` columns have a value in them,
        or the next would be longer than ``most`` or the market.
        """

        def shows_all(part: Part) -> bool:
            return all(is_any_known(part.columns[name]) for name in known)

        part = self._observe(max(0, stop - length), stop)
        while part is None or not shows_all(part):
            length = 2 * length
            if length > min(stop, most):
                break
            part = self._observe(stop - length, stop)
        return part, length

    def _plan(self, least: int, length: int) -> list[tuple[int, int]]:
        """Return which parts to observe, as (end, number of the chain), in the order of the ends.

        A chain is parts that begin at the same bar; its first part has ``length`` bars, enough for
        all columns to be known. Chain FROM_START begins with the market, and was observed up to
        bar ``least`` already. The plan stays within the room: the bars that may still be observed.
        """
        room = self._room
        plan: set[tuple[int, int]] = set()

        # Two parts more from the start of the market, where they take no more than half the room.
        longest = min(self.market.n_bars - 1, least + LONGEST)
        for stop in (longest, longest // 4):
            if least < stop <= room // 2:
                plan.add((stop, FROM_START))
                room -= stop

        # Chains in the middle. A part that the room no longer allows is left out; one that is
        # shorter may follow.
        first_ends = self._choose_first_ends(max(least, length), length, room)
        for chain, first_end in enumerate(first_ends):
            for stop in self._choose_ends(first_end):
                n_observed = length + stop - first_end
                if room >= n_observed:
                    plan.add((stop, chain))
                    room -= n_observed
        return sorted(plan)

    def _choose_first_ends(
        self,
        low: int,
        length: int,
        room: int,
    ) -> Iterator[int]:
        """Yield the bar at which the first part of each chain ends, over ``low``.

        The parts of a chain begin at one bar. The first has ``length`` bars, and each of the others
        ends a little later than the one before. There are as many chains as ``room``, in bars to
        observe, allows. The market from ``low`` on is divided into equal stretches, one a chain,
        and the end is drawn from the stretch. But the first chain ends shortly before the largest
        move up of a close, and the second before the largest down, where a peek shows most.

        Ends are yielded one by one, not in a list: the caller draws the other ends of a chain
        before it asks for the next one. In another order the same seed would give other cuts.
        """
        n_bars = self.market.n_bars
        if low + 1 >= n_bars:
            return

        # Of a chain LINKS parts are observed, which are longer by half of NEAR on average.
        bars_of_chain = LINKS * (length + NEAR // 2)
        most_chains = CHAINS * self.effort
        n_chains = max(1, min(most_chains, room // bars_of_chain))
        edges = np.linspace(low, max(low, n_bars - 2), n_chains + 1).astype(int)
        for chain in range(n_chains):
            # Drawn even where it is not used, so that the number of draws is the same for all.
            drawn = int(self._rng.integers(edges[chain], edges[chain + 1] + 1)) + 1
            if chain >= len(DIRECTIONS):
                yield drawn
                continue

            # The first two chains: the largest move up, then the largest down.
            ratios = self._close[low + 1 :] / self._close[low:-1]
            moves = DIRECTIONS[chain] * ratios
            largest_move = low + 1 + int(moves.argmax())
            bars_before = int(self._rng.integers(BEFORE_MOVE))
            yield max(low + 1, largest_move - bars_before)

    def _choose_ends(self, stop: int) -> list[int]:
        """Return the bars at which the parts of a chain end, sorted; ``stop`` is the first.

        The others are within NEAR bars of it: the next bar, those before something rare, where a
        peek shows, and drawn ones. Rare are the largest move up, the largest down, the most volume,
        the largest change of funding and of the signal, and the end of a day.
        """
        market = self.market
        last = min(market.n_bars - 1, stop + NEAR)

        # At the end of the market nothing is left to choose among.
        if last <= stop + 1:
            return [end for end in (stop, stop + 1) if end < market.n_bars]

        # What may be rare, as a size for each end ``near``. A part that ends at a bar does not
        # have that bar, so moves are into it; volume is that of the last bar it has.
        near = np.arange(stop + 1, last + 1)
        moves = self._close[near] / self._close[near - 1]
        sizes = [moves, -moves]
        if isinstance(market, Market):
            sizes.append(market.volume[near - 1])
            sizes.append(self._funding_changes[near])
            sizes.append(np.abs(market.signal[near] - market.signal[near - 1]))

        # The end with the largest of each size; of equal ones the last.
        ends = {stop, stop + 1}
        for size in sizes:
            bars_from_last = int(size[::-1].argmax())
            ends.add(last - bars_from_last)

        # The first end of a day.
        days = market.time // DAY
        is_new_day = days[near] != days[near - 1]
        ends.update(near[is_new_day][:1].tolist())

        # The others are drawn; a repeated one is no further end.
        n_drawn = max(1, LINKS - len(ends))
        ends.update(self._rng.integers(stop, last + 1, n_drawn).tolist())
        return sorted(ends)

    def _observe(self, first: int, stop: int) -> Part | None:
        """Return the columns of a part, None where the code under test raises; uses up room."""
        self._room -= stop - first
        try:
            columns = self._observe_part(detach(self.market.slice(first, stop)))
        except PolicyError:  # of another number of rows: say it of the whole, if that is wrong too
            self._observe_whole()
            raise
        return None if columns is None else Part(first, stop, columns)

    def _compare(self, part: Part, longer: Part) -> None:
        """Compare the columns of a part with those of a longer part that begins at the same bar.

        Raises PolicyError if one differs. Otherwise the end of the part is added to ``cuts``, for
        each column that is known near it.
        """
        for name, column in part.columns.items():
            if name not in longer.columns:
                continue

            longer_column = longer.columns[name]
            rows = find_differences(column, longer_column, self.tolerance)
            if len(rows):
                # Random numbers differ too, which is another error and raised first.
                self._check_steady(part)

                row = int(rows[0])
                value = float(column[row])
                value_in_longer = float(longer_column[row])
                text = (
                    f"looks ahead: {name_column(name)} is {value_in_longer!r} "
                    f"when {self._name_bars(longer)} are seen, {value!r} when "
                    f"{self._name_bars(part)} are"
                )
                raise self._refuse(part, row, text, CURE)

            # A column that is not known at the end says nothing about it.
            if is_any_known(column[-KNOWN:]):
                self.cuts.setdefault(name, set()).add(part.stop)

    def _check_steady(self, part: Part) -> None:
        """Raise PolicyError if columns of a part differ, or are missing, in a second call."""
        again = self._observe(part.first, part.stop)
        columns: Columns = {} if again is None else again.columns
        for name, column in part.columns.items():
            row = 0
            if name in columns:
                rows = find_differences(column, columns[name], self.tolerance)
                if len(rows) == 0:
                    continue
                row = int(rows[0])

            text = (
                f"is not repeatable: {name_column(name)} differs between two calls on the same "
                f"{part.stop - part.first} bars"
            )
            raise self._refuse(part, row, text, STEADY)

    def _refuse(
        self,
        part: Part,
        row: int,
        problem: str,
        cure: str,
    ) -> PolicyError:
        """Return the error of a row of a part."""
        bar = part.first + row
        time = format_time(int(self.market.time[bar]))
        return PolicyError(f"{self.name} {problem}, at bar {bar}, {time} UTC; {cure}")

    def _name_bars(self, part: Part) -> str:
        """Return which bars a part has, in words."""
        if part.stop - part.first == self.market.n_bars:
            return f"all {self.market.n_bars} bars"
        if part.first == 0:
            return f"the first {part.stop}"
        return f"bars {part.first} to {part.stop - 1}"


def name_column(name: str) -> str:
    """Return a column in words; a signal has no name."""
    return f"column {name!r}" if name else "it"


def is_any_known(column: FloatArray) -> bool:
    """Return whether a column has a number."""
    return not bool(np.isnan(column).all())


def find_first_known(column: FloatArray) -> int:
    """Return the first row of a column that holds a number."""
    return int((~np.isnan(column)).argmax())


def find_differences(
    one: FloatArray,
    longer: FloatArray,
    tolerance: float,
) -> IntArray:
    """Return the rows in which a column and a longer one differ by more than a tolerance.

    Two values may differ by ``tolerance`` times the larger of them. Near 0 that is next to nothing,
    so they may also differ by a share of the median size of the column: a thousandth of the
    tolerance, or all of a tolerance above the default.
    """
    # Most rows have the same bits, or are unknown in both.
    other = longer[: len(one)]
    are_unknown = np.isnan(one) & np.isnan(other)
    is_equal = (one == other) | are_unknown
    rows = np.flatnonzero(~is_equal)
    if len(rows) == 0:
        return rows

    # The median size of the column, without zeros.
    is_sized = np.isfinite(longer) & (longer != 0.0)
    sizes = np.abs(longer[is_sized])
    usual_size = 0.0
    if len(sizes):
        usual_size = float(np.median(sizes))
    share_of_usual = tolerance
    if tolerance <= TOLERANCE:
        share_of_usual = tolerance / 1000.0

    # A value that is known in one column alone, or infinite, differs in any case.
    x = one[rows]
    y = other[rows]
    with np.errstate(all="ignore"):
        larger = np.maximum(np.abs(x), np.abs(y))
        allowed = np.maximum(tolerance * larger, share_of_usual * usual_size)
        are_finite = np.isfinite(x) & np.isfinite(y)
        is_within = (np.abs(x - y) <= allowed) & are_finite
    return rows[~is_within]


def follow_largest_moves(market: Market | Markets) -> FloatArray:
    """Return a price that moves as the instrument that moves most, of shape (n_bars,).

    It serves to find the bars of large moves. Of a single market it is the close.
    """
    if isinstance(market, Market):
        return market.close

    # The largest log move of each bar, of either sign, among the instruments that are listed. An
    # instrument has bars from ``first`` on, before ``stop``, and its first bar has no move.
    moves = np.zeros(market.n_bars)
    for instrument, (first, stop) in zip(market.values(), market.spans, strict=True):
        moves_of_one = np.abs(np.diff(np.log(instrument.close)))
        moves[first + 1 : stop] = np.maximum(moves[first + 1 : stop], moves_of_one)

    # Down and up in turn, so that the price stays a price.
    is_even = np.arange(market.n_bars) % 2 == 0
    signs = np.where(is_even, -1.0, 1.0)
    log_price = np.cumsum(moves * signs)
    return np.exp(log_price)


def find_funding_changes(market: Market) -> FloatArray:
    """Return a score for each bar, (n_bars,), of how much its next funding rate is news.

    It serves to choose at which bars to cut, so only its order counts: 0 where the next rate is the
    one before, the size of the change where the sign stays, and at least 1 where the sign turns, as
    rates are far below 1.
    """
    # After the last settlement nothing changes: a bar behind it has that rate once more.
    last = market.funding_rate[-1] if len(market.funding_rate) else 0.0
    rates = np.append(market.funding_rate, last)

    # By settlement; the first one has no change.
    signs = np.sign(rates)
    turns = np.abs(np.diff(signs, prepend=signs[0]))
    moves = np.abs(np.diff(rates, prepend=rates[0]))
    scores = turns + moves

    # The next rate of a bar settles at its open, or after.
    next_rate = np.searchsorted(market.funding_time, market.time)
    changes: FloatArray = scores[next_rate]
    return changes


def make_futures(
    market: Market,
    t: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, Market]]:
    """Yield markets that are equal up to bar t and differ after it, each with words for how."""
    yield "when the market ends with bar", market.prefix(t + 1)
    yield "when other bars follow bar", rewrite_after(market, t, rng)


def rewrite_after(market: Market, t: int, rng: np.random.Generator) -> Market:
    """Return a market whose bars after bar t are others, drawn by ``rng``.

    Prices, marks, volumes, funding and columns after it are all others; those up to it stay.
    """
    arrays: dict[str, Any] = {}
    for name, later in draw_bars(market, t, rng).items():
        before = getattr(market, name)[: t + 1]
        arrays[name] = np.concatenate([before, later])

    # Rates that settle at the close of bar t or after it are not known at it.
    follows = market.funding_time >= market.time[t] + market.interval
    drawn = rng.normal(0.0, 1e-3, len(follows))
    rates = np.where(follows, drawn, market.funding_rate)

    # Columns in another order, and larger by 1, so that a constant one changes as well.
    columns = {}
    for name, column in market.columns.items():
        others = rng.permutation(column[t + 1 :]) + 1.0
        columns[name] = np.concatenate([column[: t + 1], others])

    return dataclasses.replace(
        market,
        funding_rate=rates,
        funding_mark=np.where(follows, np.nan, market.funding_mark),
        columns=columns,
        source=f"{market.source}, made anew after bar {t}",
        **arrays,
    )


def draw_bars(
    market: Market,
    t: int,
    rng: np.random.Generator,
) -> dict[str, FloatArray]:
    """Return other prices, marks and volumes of the bars after bar t, by name.

    A walk from its close on, with moves of 2 % a bar and wicks of about 1 %; a bar opens where the
    one before closed. Marks are a constant basis away.
    """
    n_later = market.n_bars - t - 1
    moves = rng.normal(0.0, 0.02, n_later)
    growth = np.exp(np.cumsum(moves))
    closes = market.close[t] * growth
    opens = np.concatenate([market.close[t : t + 1], closes[:-1]])

    # How far a bar goes over its higher end, and under its lower one.
    over, under = 1.0 + np.abs(rng.normal(0.0, 0.01, (2, n_later)))
    prices = {
        "open": opens,
        "high": np.maximum(opens, closes) * over,
        "low": np.minimum(opens, closes) / under,
        "close": closes,
    }

    basis = 1.0
    if market.has_mark:
        basis += rng.normal(0.0, 1e-3)
    later = dict(prices)
    for name, values in prices.items():
        later[f"mark_{name}"] = values * basis

    later["volume"] = market.volume[t + 1 :] * rng.uniform(0.5, 2.0, n_later)
    return later

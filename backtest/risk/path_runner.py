"""An account on simulated paths, and from every day of history."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest import core, engine, policies, signals
from backtest.core import Progress
from backtest.core.units import DAY
from backtest.engine import AnyPolicy, Conditions
from backtest.market import Market, Markets, as_markets, find_clock, read_weights
from backtest.policies import trades_options
from backtest.results import Result
from backtest.risk import warm_up
from backtest.risk.past_starts import YEAR, PastStarts, measure_calm
from backtest.risk.path_bars import MARKS, PRICES, PathBars, PathMarkets
from backtest.risk.paths import Paths
from backtest.risk.scenarios import fix_margin_tables
from backtest.venue import check_no_column, list_dated, pick_cost

DEPENDENT = ("multiplier", "initial", "sigma", "adv", "stop_scale", "profit_scale", "trail_scale")
"""Fields of a feed that have a row for each bar where they depend on its prices."""


NOTHING = np.empty((0, 0))


class PathLives(NamedTuple):
    """What became of an account on paths from number ``first`` on, (n_paths, n_bars) each.

    ``closes`` are those of the instruments, (n, n_paths, n_bars). The base of the day, and the
    least and the most wealth of a bar, are empty unless the runner ``has_extremes``.
    """

    first: int
    wealth: core.FloatArray
    liquidations: core.FloatArray
    bad_debt: core.FloatArray
    calls: core.FloatArray
    is_ruined: core.FloatArray
    closes: core.FloatArray
    day_open: core.FloatArray = NOTHING
    least: core.FloatArray = NOTHING
    most: core.FloatArray = NOTHING


PathColumns: TypeAlias = tuple[list[dict[str, core.FloatArray]], core.IntArray]
KEPT_BYTES = 1 << 28
"""Bytes of columns of paths that are kept for policies which observe the same ones."""


class KeptBlocks:
    """Columns of blocks of paths, which runners that differ only in a policy's size share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], PathColumns] = OrderedDict()
        self._size = 0

    def find(self, block: tuple[int, int], make: Callable[[], PathColumns]) -> PathColumns:
        """Return the columns of a block; threads that need the same one wait for it."""
        with self._lock:
            if block not in self._kept:
                self._keep(block, make())
            return self._kept[block]

    def _keep(self, block: tuple[int, int], columns: PathColumns) -> None:
        """Keep the columns of a block, and drop the oldest ones that leave no room for them."""
        self._kept[block] = columns
        self._size += measure_bytes(columns)
        while self._size > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._size -= measure_bytes(oldest)


def measure_bytes(columns: PathColumns) -> int:
    by_policy, _ = columns
    total = 0
    for columns_of_policy in by_policy:
        total += sum(values.nbytes for values in columns_of_policy.values())
    return total


class RowMemory(threading.local):
    """Arrays of a thread in which paths lie behind history, by instrument and field.

    All blocks of paths have the same history in front, so the next one finds it there.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, core.FloatArray]] = {}


ROWS = RowMemory()


@dataclass(eq=False)
class PathsRunner(core.Carried):
    """An account on paths; ``setup`` is the account at the start of each, ``seen`` the first one.

    ``warm_up`` says when the policy's columns are known on history. Where paths differ in more than
    prices, funding and columns, ``is_own``, each is set up by itself, with history in front. A
    policy whose columns were found not to look ahead ``is_trusted``. Lives have what prices do on
    the way to a close if it ``has_extremes``.
    """

    paths: Paths
    policy: AnyPolicy
    test: Conditions
    resume: Result | None = None
    compile: bool = True
    is_trusted: bool = False
    has_extremes: bool = False

    def __post_init__(self) -> None:
        markets = self.paths.markets
        overlay = self.test.overlay
        self.account = self.test.account
        check_start(self)
        chosen, above = engine.assign_policies(self.policy, markets, overlay)
        self.signal = read_constant_signal(self.test.signal, markets)
        venues = engine.read_venues(self.test.venue, markets)
        engine.check_run(markets, venues, self.account)
        self._check_simulated(venues)

        # Paths have the margin tables of their first bar, and columns that history has made warm.
        self.venues = fix_margin_tables(venues, self.paths.calendar.time[0])
        history = as_markets(self.paths.history)
        weights = self.list_weights(history)
        observed = warm_up.observe_history(chosen, above, history, self.venues, weights)
        warm_up.check_known(observed, history, history.n_bars - 1, "paths")
        self.warm_up = warm_up.measure_warm_up(observed, history)

        self.blocks: KeptBlocks | None = None
        self.known_pasts: dict[int, PastStarts] = {}
        bars = self.paths.first_bars
        self.seen = self.join(bars, 0, 0)
        self.setup, self.is_own = self.begin(bars)

    def _check_simulated(self, venues: Mapping[str, Any]) -> None:
        """Refuse what no path has: prices of collateral, another overlay, costs by time."""
        if self.account.collateral:
            raise core.ParameterError(
                "simulated paths have no prices of account.collateral; count it as capital"
            )

        overlay = self.test.overlay
        if self.resume is not None and (overlay is None) != (self.resume.overlay is None):
            raise core.ParameterError(
                f"overlay must match the result, {self.resume.overlay!r}, got {overlay!r}"
            )

        for venue in venues.values():
            for name in list_dated(venue):
                check_no_column(pick_cost(venue, name), f"venue.{name}", "on simulated paths")

    def with_policy(self, policy: AnyPolicy) -> PathsRunner:
        """Return the runner of a policy that observes the same columns as this one's.

        They are neither observed nor checked again, and both share those of blocks of paths.
        """
        self.blocks = self.blocks or KeptBlocks()
        names = self.paths.names
        chosen, _ = engine.assign_policies(policy, self.paths.markets, None)
        observed = list(self.setup.observed)
        for k, name in enumerate(names):
            observed[k] = observed[k]._replace(policy=chosen[name])

        runner = copy(self)
        vars(runner).pop("loop", None)  # which has the formula of this one's policy
        runner.policy = policy
        runner.known_pasts = {}
        runner.setup = self.setup._replace(policies=chosen, observed=observed)
        return runner

    def find_past(
        self,
        bars: int,
        least: int = 0,
        most: float = math.inf,
    ) -> PastStarts:
        """Return what happened to the account, new at each day's first open of history.

        Each is followed for ``bars`` bars, or to the end of the data. A history of less than a year
        is too short: no account begins. Nor does one before the policy's columns are known, or with
        under ``least`` bars to the end. Over ``most`` liquidations it ends, and the others count as
        not liquidated.
        """
        if bars in self.known_pasts:
            return self.known_pasts[bars]
        past = self.simulate_days(bars, least, most)
        if np.count_nonzero(past.firsts < bars) <= most:
            self.known_pasts[bars] = past
        return past

    def simulate_days(self, bars: int, least: int, most: float) -> PastStarts:
        """Run the account from each day on, as :meth:`find_past` says, which keeps the answer."""
        markets = as_markets(self.paths.history)
        time = markets.time
        has_marks = all(market.has_mark for market in markets.values())
        if markets.end - time[0] < YEAR:
            none = time[:0]
            return PastStarts(none, none, none, none, has_marks)

        # The last bars of days: the account begins at the open after them.
        day = time // DAY
        begins = np.flatnonzero(day[1:] != day[:-1])
        begins = begins[begins >= self.warm_up.known]
        n_ahead = markets.n_bars - 1 - begins
        begins = begins[n_ahead >= least]

        # In bars after the start; of ``bars`` where there is no such event.
        firsts = np.full(len(begins), bars, np.int64)
        losses = np.full(len(begins), bars, np.int64)
        for k, lives in self.simulate_starts(begins, bars + 1):
            is_liquidated = lives[engine.LIQUIDATED, 1:] != 0.0
            is_lost = is_liquidated | (lives[engine.RUINED, 1:] != 0.0)
            if is_liquidated.any():
                firsts[k] = is_liquidated.argmax()
            if is_lost.any():
                losses[k] = is_lost.argmax()
            if np.count_nonzero(firsts < bars) > most:
                break
        return PastStarts(
            times=time[begins + 1],
            firsts=firsts,
            losses=losses,
            room=markets.n_bars - 1 - begins,
            has_marks=has_marks,
        )

    def measure_calm(self) -> dict[str, float]:
        """Return today's volatility over that of the last 365 days, by instrument that is held.

        Those with under a year of data are left out.
        """
        weights = self.list_weights(self.paths.markets)[:, -1].tolist()
        ratios = {}
        for name, weight in zip(self.paths.names, weights, strict=True):
            if weight == 0.0:
                continue

            ratio = measure_calm(self.paths.pasts[name])
            if not math.isnan(ratio):
                ratios[name] = ratio

        return ratios

    def simulate_starts(
        self,
        begins: core.IntArray,
        width: int,
    ) -> Iterator[tuple[int, core.FloatArray]]:
        """Yield what the account becomes that begins anew after each of some bars of history.

        ``begins`` are these bars, rising; each account goes on for ``width`` bars, its first row
        that of the bar it begins at. Yields the place of a bar in ``begins``, and rows of shape
        (k, width), which the next one overwrites: ``BatchLoop.simulate_from`` says of what.
        """
        setup = self.set_up_history()
        loop = engine.BatchLoop(setup, is_compiled=self.compile, has_extremes=self.has_extremes)
        try:
            yield from loop.simulate_from(begins, width)
            loop.warn_of_overflow()
        except engine.LaneFault as fault:
            # The loop knows that an account failed, not why. Run alone, it raises the reason.
            first = int(begins[fault.lane])
            started = int(setup.markets.time[first])
            alone = setup.change(first=first, started=started)
            engine.run_account(alone, is_compiled=False, progress=None)
            raise

    def set_up_history(self) -> engine.Setup:
        """Return the setup of a new account on the bars of history.

        It has no flows, whose times are those of another start, and does not warn: the setup of
        the paths has warned of the same terms.
        """
        markets = as_markets(self.paths.history)
        account = replace(self.account, flows=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return engine.set_up_again(
                self.setup._replace(account=account, resume=None),
                markets,
                self.list_weights(markets),
                first=0,
                started=int(markets.time[0]),
            )

    def list_weights(self, markets: Markets) -> core.FloatArray:
        """Return the signal on the bars of a path, of shape (n, n_bars)."""
        names = self.paths.names
        chosen = self.signal
        if chosen is None and self.resume is not None:
            last = self.resume.state.positions.column("signal")
            chosen = dict(zip(names, map(float, last), strict=True))
        elif isinstance(chosen, float):
            chosen = dict.fromkeys(names, chosen)

        return read_weights(chosen, markets, first=0)

    @functools.cached_property
    def weights_seen(self) -> core.FloatArray:
        """The signal on the first path with history in front, (n, bars): that of all paths."""
        return self.list_weights(self.seen)

    def run_path(self, i: int) -> Result:
        """Return the result of path i, which is run alone."""
        # A negative i counts from the last path.
        number = i % self.paths.count
        bars = self.paths.draw_all(number, number + 1)
        joined = self.join(bars, 0, number)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = self.set_up_on(joined, self.setup)
            if isinstance(self.signal, float):
                setup = setup._replace(given=self.signal)
            outcome = engine.run_account(setup, is_compiled=self.compile, progress=None)
            return engine.finish(setup, outcome)

    def run_chunks(
        self,
        *,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[PathLives]:
        """Yield what became of the account on all paths, block by block in their order."""
        _ = self.loop  # compiled before threads start
        total = self.paths.count
        size = self.paths.block
        firsts = range(0, total, size)
        stops = [min(first + size, total) for first in firsts]

        with ThreadPoolExecutor(threads, thread_name_prefix="paths") as pool:
            run_all = map if threads == 1 else pool.map
            for lives in run_all(self.run_block, firsts, stops):
                core.report_progress(progress, lives.first + len(lives.wealth), total)
                yield lives

        ROWS.rows.clear()
        self.loop.warn_of_overflow()

    @functools.cached_property
    def repeated(self) -> dict[int, engine.AccountInputs]:
        """What blocks of paths have in common, by their number of paths."""
        return {}

    @functools.cached_property
    def first_paths(self) -> dict[str, Market]:
        """A path of each instrument, as its policy sees it: blocks of paths fill in their own."""
        return {}

    @functools.cached_property
    def loop(self) -> engine.BatchLoop:
        return engine.BatchLoop(
            self.setup, is_compiled=self.compile, has_extremes=self.has_extremes
        )

    def begin(self, bars: Mapping[str, PathBars]) -> tuple[engine.Setup, bool]:
        """Return the setup of an account on paths, and whether each path has its own setup.

        ``bars`` are those of the first path. ``seen``, that path behind history, must be there.
        """
        # Set up on bars whose times are those of all paths. Flows may be of times that the bars do
        # not have, and come back below; measures of a path are of days.
        seen = self.seen
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            test = self.test.replace(
                market=seen,
                venue=self.venues,
                account=replace(self.account, flows=None),
                signal=self.list_weights(find_clock(seen).seen).T,
                sampling="1d",
                calendar="252" if self.paths.markets.sessions else "365",
                start=None,
            )
            setup = engine.set_up(test, self.policy, observed=self.observe_trusted())
        warm_up.check_known(setup.observed, seen, seen.n_bars - self.paths.width, "paths")

        account = replace(setup.account, flows=self.account.flows)
        setup = setup._replace(account=account, resume=self.resume)
        if self._needs_own_setup(setup):
            return self.set_up_on(seen, setup), True

        # Only prices, funding and columns differ: the bars of one path do for all.
        path = self.paths.markets_of(bars, 0, 0)
        observed = []
        for policy, market in zip(setup.observed, path.values(), strict=True):
            observed.append(policy._replace(market=market))
        shared = setup.change(
            markets=path,
            signal=self.list_weights(path),
            observed=observed,
            **self.find_start(path),
        )
        return shared, False

    def _needs_own_setup(self, setup: engine.Setup) -> bool:
        """Return whether paths differ in more than prices, funding and columns."""
        if self.test.overlay is not None or self.seen.decision_interval > 0:
            return True
        feed = setup.inputs.feed
        return any(len(getattr(feed, name)) > 1 for name in DEPENDENT)

    def observe_trusted(self) -> list[engine.ObservedPolicy] | None:
        """Return the columns on the first path, of a policy that needs no check for look-ahead."""
        if not self.is_trusted:
            return None
        seen = find_clock(self.seen).seen
        chosen, above = engine.assign_policies(self.policy, self.paths.markets, self.test.overlay)
        weights = self.list_weights(seen)
        return engine.observe_policies(chosen, above, seen, self.venues, weights, is_checked=False)

    def join(
        self,
        bars: Mapping[str, PathBars],
        k: int,
        number: int,
    ) -> Markets:
        """Return path k of some, with the history that its columns need, or the run's, in front."""
        history = as_markets(self.paths.history)
        n_bars_before = self.warm_up.count_bars(history, self.venues)
        joined = self.paths.markets_of(bars, k, number, n_bars_before)
        if self.resume is None:
            return joined
        resumed, _ = engine.join_resumed(self.resume, joined)
        return resumed

    def set_up_on(self, joined: Markets, setup: engine.Setup) -> engine.Setup:
        """Return a setup like another one, on a path with what stands in front of it."""
        weights = self.list_weights(joined)
        return engine.set_up_again(setup, joined, weights, **self.find_start(joined))

    def find_start(self, markets: Markets) -> dict[str, Any]:
        """Return the first bar of an account on a path, and when it started."""
        first = markets.n_bars - self.paths.width
        if self.resume is None:
            return {"first": first, "started": int(markets.time[first])}
        return {"first": first + 1, "started": self.resume.span.start}

    def run_block(self, first: int, stop: int) -> PathLives:
        """Return what became of the account on paths ``first`` to ``stop``, a row for each.

        The paths of a block are simulated side by side; where each has a setup of its own, one by
        one.
        """
        n_paths = stop - first
        bars = self.paths.draw_all(first, stop)
        n_at_once = n_paths
        if self.is_own:
            n_at_once = 1

        # Rows of the loop have the shape (fields, paths, bars).
        parts = []
        for k in range(0, n_paths, n_at_once):
            lives = self._simulate(self._lay(bars, first, stop, k), number=first + k)
            # What stands before the bars of a path is the history in front of it.
            parts.append(lives[:, :, -self.paths.n_bars :])
        rows = parts[0]
        if len(parts) > 1:
            rows = np.concatenate(parts, axis=1)

        # The first close of a path is the last one of history.
        closes = np.array([path.close[:, 1:] for path in bars.values()])
        of_closes = rows[: engine.N_CLOSES]
        block = PathLives(first, *of_closes, closes=closes)  # type: ignore[misc] # rows are its fields
        if not self.has_extremes:
            return block
        day_open, least, most = rows[engine.N_CLOSES :]
        return block._replace(day_open=day_open, least=least, most=most)

    def _simulate(self, laid: Any, *, number: int) -> core.FloatArray:
        """Return the rows of the loop on paths from a number on.

        A fault of the loop says which path failed, but not why: run alone in plain Python, that
        path raises the reason.
        """
        try:
            return self.loop.simulate(laid, self.setup.first)
        except engine.LaneFault as fault:
            plain = replace(self, compile=False)
            plain.run_path(number + fault.lane)
            raise

    def _lay(
        self,
        bars: Mapping[str, PathBars],
        first: int,
        stop: int,
        k: int,
    ) -> Any:
        """Return the inputs of the loop: of path k with its own setup, or of a whole block."""
        if self.is_own:
            joined = self.join(bars, k, first + k)
            return engine.lay(self.set_up_on(joined, self.setup))

        n = stop - first
        make = functools.partial(self.observe_block, bars, n, is_first=first == 0)
        if self.blocks is None:
            columns, known = make()
        else:
            columns, known = self.blocks.find((first, stop), make)

        drawn = self.draw_fields(bars, n)
        repeated = self.repeated.get(n)
        if repeated is None:
            repeated = engine.repeat_inputs(self.setup, n, drawn)
            self.repeated[n] = repeated
        return engine.lay(self.setup, n, columns, known, repeated, **drawn)

    def observe_block(
        self,
        bars: Mapping[str, PathBars],
        n: int,
        *,
        is_first: bool,
    ) -> PathColumns:
        """Return the columns of the policies along n paths, and when each is asked (n, names)."""
        names = self.paths.names
        columns = []
        known = np.zeros((n, len(names)), np.int64)
        for i, (name, observed) in enumerate(zip(names, self.setup.observed, strict=True)):
            seen, known[:, i] = self.observe(observed, name, bars[name], is_first=is_first)
            columns.append(seen)
        return columns, known

    def observe(
        self,
        observed: engine.ObservedPolicy,
        name: str,
        bars: PathBars,
        *,
        is_first: bool = True,
    ) -> tuple[dict[str, core.FloatArray], core.IntArray]:
        """Return the columns of a policy along some paths, and when each path asks it.

        ``bars`` are the paths of the instrument ``name``, the first block of all if it
        ``is_first``, and ``observed`` is what its policy saw on the first path. A column has the
        paths end to end, (n_paths * width,). When, (n_paths,), is the bar of a path at which all
        columns have had a value, before it or on it.

        Some paths are also observed alone, and must have the same columns then. Keeps the first
        path of the instrument, and rows of history in the memory of the thread.
        """
        if not observed.columns:
            return {}, np.zeros(len(bars.volume), np.int64)

        # One path with history and signal, which is the same for all blocks.
        width = self.paths.width
        first_path = self.first_paths.get(name)
        if first_path is None:
            first_path = self.make_first_path(name, bars)
            self.first_paths[name] = first_path

        # A column that a path does not have keeps its last value.
        last_values = {key: column[-1] for key, column in observed.columns.items()}
        parts: dict[str, list[core.FloatArray]] = {key: [] for key in observed.columns}
        known: list[core.IntArray] = []
        memory = ROWS.rows.setdefault(name, {})
        for markets in self.paths.members[name].list_markets(bars, first_path, memory):
            n_paths = len(markets.rows["close"])
            compared = self._choose_compared(n_paths, is_very_first=is_first and not known)
            for columns in observe_paths(observed.policy, markets, compared):
                n_columns = count_paths(columns)
                for key, last_value in last_values.items():
                    values = np.full(n_columns * width, last_value)
                    if key in columns:
                        of_paths = columns[key][-width:]  # behind history
                        values = np.ravel(of_paths.T)
                    parts[key].append(values)
                known.append(find_known(columns, n_columns, width))

        joined = {key: np.concatenate(pieces) for key, pieces in parts.items()}
        return joined, np.concatenate(known)

    def _choose_compared(self, n_paths: int, *, is_very_first: bool) -> set[int]:
        """Return which of some paths are also observed alone: the first and the last.

        A policy that is trusted was compared on other paths: the very first of all is enough.
        """
        if not self.is_trusted:
            return {0, n_paths - 1}
        if is_very_first:
            return {0}
        return set()

    def make_first_path(self, name: str, bars: PathBars) -> Market:
        """Return the first of some paths of an instrument, behind history and with the signal."""
        seen = self.seen[name]
        before = seen.slice(0, seen.n_bars - self.paths.width + 1)
        signal = self.weights_seen[self.paths.names.index(name)]
        return self.paths.members[name].market_of(
            bars,
            0,
            before,
            source=seen.source,
            signal=np.clip(signal, -1.0, 1.0),
        )

    def draw_fields(self, bars: Mapping[str, PathBars], n: int) -> dict[str, core.FloatArray]:
        """Return the fields of the feed that paths differ in: prices, volumes and funding rates.

        Prices and volumes have n paths end to end, (n * width, n_instruments), and rates too, (n *
        settlements,).
        """
        paths = bars.values()
        by_instrument = [(*path.prices, *path.marks, path.volume) for path in paths]
        fields = {}
        names = (*PRICES, *MARKS, "volume")
        for name, *arrays in zip(names, *by_instrument, strict=True):
            if len(arrays) == 1:
                fields[name] = arrays[0].reshape(-1, 1)  # without a copy
            else:
                fields[name] = np.stack([array.ravel() for array in arrays], axis=1)

        # Settlements of history in front, if there are any, keep their rates.
        feed = self.setup.inputs.feed
        rates = np.tile(feed.funding_rate, (n, 1))
        for i, path in enumerate(paths):
            own_settlements = np.flatnonzero(feed.funding_instrument == i)
            n_rates = path.rates.shape[1]
            if n_rates and len(own_settlements):  # a spot leg pays none
                rates[:, own_settlements[-n_rates:]] = path.rates
        fields["funding_rate"] = rates.ravel()
        return fields


def observe_paths(
    policy: policies.Policy,
    paths: PathMarkets,
    compared: Collection[int],
) -> list[dict[str, core.FloatArray]]:
    """Return the columns of some paths: of all together, (n_bars, k), or of each alone, (n_bars,).

    They are observed together where those that are ``compared`` have the same columns alone.
    """
    n = len(paths.rows["close"])
    alone = {}
    if policies.parts_take_arrays(policy):
        for k in compared:
            alone[k] = policies.observe(policy, paths.pick(k))
        together = policies.observe_together(lambda: policy.observe(paths.join()), alone, n)

        # A column that is the same for all paths has one axis: it cannot be told apart by path.
        has_all_paths = all(np.shape(column) == (paths.n_bars, n) for column in together.values())
        if together and has_all_paths:
            return [together]

    for k in range(n):
        if k not in alone:
            alone[k] = policies.observe(policy, paths.pick(k))
    return [alone[k] for k in range(n)]


def count_paths(columns: Mapping[str, core.FloatArray]) -> int:
    """Return how many paths have these columns: one, or those of their second axis."""
    n_paths = 1
    for column in columns.values():
        if column.ndim > 1:
            n_paths = max(n_paths, column.shape[1])
    return n_paths


def find_known(
    columns: Mapping[str, core.FloatArray],
    n: int,
    width: int,
) -> core.IntArray:
    """Return the bar of each of n paths at which all columns have had a value, before it or on it.

    Paths are the last ``width`` bars. Columns that never have a value do not count. A column has
    the shape (n_bars,) or (n_bars, n).
    """
    known = np.zeros(n, np.int64)
    for values in columns.values():
        n_bars = len(values)
        n_before = n_bars - width

        # Most are known before the paths begin.
        if not np.isnan(values[n_before]).any():
            continue

        # Of a value in front of the paths the bar is negative, and 0 is later.
        has_value = ~np.isnan(values.reshape(n_bars, n))
        first = has_value.argmax(axis=0) - n_before
        first[~has_value.any(axis=0)] = 0
        known = np.maximum(known, first)
    return known


def check_start(runner: PathsRunner) -> None:
    """Refuse a result that ended elsewhere, and options, which no path has prices of."""
    resume = runner.resume
    begins = int(runner.paths.calendar.time[0])
    if resume is not None and resume.last_time != begins:
        raise core.DataError(
            f"paths must begin where the result ended, {core.format_time(resume.last_time)}, "
            f"got {core.format_time(begins)}; start='now' begins at the end of the market"
        )

    for culprit in find_options(runner):
        raise core.ParameterError(
            f"no risk is simulated of accounts that hold or trade options, got {culprit}; use "
            "bt.stress"
        )


def find_options(runner: PathsRunner) -> Iterator[str]:
    """Yield what holds or trades options: a result, a policy, the overlay."""
    options = None if runner.resume is None else runner.resume.options
    if options is not None:
        last = options.record.quantity[-1].tolist()
        for name, quantity in zip(options.terms.names, last, strict=True):
            if quantity != 0.0:
                yield f"a result that holds {name}"

    for policy in (runner.policy, runner.test.overlay):
        if trades_options(policy):
            yield repr(policy)


def read_constant_signal(signal: Any, markets: Markets) -> float | dict[str, float] | None:
    """Return the direction, or the weights by instrument: of a table, those of its last row."""
    is_one = len(markets) == 1
    if signal is None:
        return 1.0 if is_one else None

    if isinstance(signal, pd.DataFrame):
        signal = signal.iloc[-1].fillna(0.0).to_dict()
    if isinstance(signal, str | pd.Series | signals.SignalRule):
        raise core.ParameterError(
            "signal must be a number on simulated paths, or one by instrument, columns and rules "
            f"end with the data: got {core.repr_plain(signal)}"
        )

    by_name = engine.give_each(signal, markets, one="signal")
    if is_one:
        name = markets.names[0]
        return float(core.Range(-1.0, 1.0).check("signal", by_name[name]))

    weights = {}
    for name, weight in by_name.items():
        weights[name] = float(core.Real().check(f"signal of {name}", weight))
    return weights

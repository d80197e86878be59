"""Lives of an account on paths, and from every day of history; liquidation_risk()."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest import core, engine, policies, results, signals
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import AnyPolicy, Conditions
from backtest.indicators import ewma_volatility, log_returns
from backtest.market import Market, Markets, as_markets, find_clock, label_names, read_weights
from backtest.policies import trades_options
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.risk import warm_up
from backtest.risk.path_models import HALF_LIFE, count_per_year, describe_drift, summarize_funding
from backtest.risk.paths import MARKS, PRICES, PathBars, PathMarkets, Paths
from backtest.risk.scores import ALL, estimate, show_scores, write_score
from backtest.risk.stress import fix_margin_tables
from backtest.venue import check_no_column, list_dated, pick_cost

PAST = ("history", "history_starts", "history_apart", "history_high", "history_worst_year")
YEAR = 365 * DAY
CALM = 0.75
"""Volatility of today over that of the last 365 days, under which a market is calm. There paths
forecast .147 and .188 came on unseen markets, since calm ends without a warning; the larger of
the paths' share and history's frequency was right within its error. On BTC, ETH and LTC of 2021 to
2023, years that calmed down, it was too high (docs/forecasts.md)."""
ONE_SIDED = 0.95
"""Confidence of the largest probability that starts apart leave possible."""
DEPENDENT = ("multiplier", "initial", "sigma", "adv", "stop_scale", "profit_scale", "trail_scale")
"""Fields of a feed that have a row for each bar where they depend on its prices."""


class PathLives(NamedTuple):
    """Outcomes on paths from ``first`` on, (n_paths, n_bars); ``closes`` (n, n_paths, n_bars)."""

    first: int
    wealth: core.FloatArray
    liquidations: core.FloatArray
    bad_debt: core.FloatArray
    calls: core.FloatArray
    is_ruined: core.FloatArray
    day_open: core.FloatArray
    least: core.FloatArray
    most: core.FloatArray
    closes: core.FloatArray


class PastStarts(NamedTuple):
    """Accounts that began at the days' first opens of history, ``times`` (n_starts,) in ns.

    ``firsts`` are their bars up to the first liquidation, ``losses`` up to the first liquidation or
    ruin, ``room`` the bars until the data end.
    """

    times: core.IntArray
    firsts: core.IntArray
    losses: core.IntArray
    room: core.IntArray
    has_marks: bool

    def summarize(self, bars: int, horizon: int) -> dict[str, float]:
        """Return the share lost within some bars, of those with so many, and the worst year.

        ``horizon`` is their time in ns; so far apart, starts have no bar in common. Of those the
        share leaves a largest probability possible.
        """
        whole = self.room >= bars
        times, hit = self.times[whole], self.losses[whole] < bars
        if len(times) == 0:
            return dict.fromkeys(PAST, math.nan)
        ends = np.searchsorted(times, times + YEAR)
        full = times + YEAR <= times[-1] + DAY
        total = np.concatenate([[0], np.cumsum(hit)])
        years = (total[ends] - total[:-1])[full] / (ends - np.arange(len(ends)))[full]
        share = float(np.mean(hit))
        apart = max(int((times[-1] - times[0] + DAY) // horizon), 1)
        _, high = bound_apart(share, apart)
        found = (share, len(times), apart, high, max([share, *years]))
        return dict(zip(PAST, found, strict=True))


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
                self._kept[block] = made = make()
                self._size += measure_bytes(made)
                while self._size > KEPT_BYTES and len(self._kept) > 1:
                    self._size -= measure_bytes(self._kept.popitem(last=False)[1])
            return self._kept[block]


def measure_bytes(columns: PathColumns) -> int:
    return sum(each.nbytes for own in columns[0] for each in own.values())


@dataclass(eq=False)
class PathsRunner(core.Carried):
    """An account on paths; ``setup`` is the account at the start of each, ``seen`` the first one.

    ``warm_up`` says when the policy's columns are known on history. Where paths differ in more than
    prices, funding and columns, ``is_own``, each is set up by itself, with history in front. A
    policy whose columns were found not to look ahead ``is_trusted``.
    """

    paths: Paths
    policy: AnyPolicy
    test: Conditions
    resume: Result | None = None
    compile: bool = True
    is_trusted: bool = False

    def __post_init__(self) -> None:
        markets, overlay = self.paths.markets, self.test.overlay
        self.account = self.test.account
        check_start(self)
        chosen, above = engine.assign_policies(self.policy, markets, overlay)
        self.signal = read_constant_signal(self.test.signal, markets)
        venues = engine.read_venues(self.test.venue, markets)
        engine.check_run(markets, venues, self.account)
        if self.account.collateral:
            raise core.ParameterError(
                "simulated paths have no prices of account.collateral; count it as capital"
            )
        if self.resume is not None and (overlay is None) != (self.resume.overlay is None):
            raise core.ParameterError(
                f"overlay must match the result, {self.resume.overlay!r}, got {overlay!r}"
            )
        for venue in venues.values():
            for name in list_dated(venue):
                check_no_column(pick_cost(venue, name), f"venue.{name}", "on simulated paths")
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

    def with_policy(self, policy: AnyPolicy) -> PathsRunner:
        """Return the runner of a policy that observes the same columns as this one's.

        They are neither observed nor checked again, and both share those of blocks of paths.
        """
        self.blocks = self.blocks or KeptBlocks()
        runner = copy(self)
        vars(runner).pop("loop", None)  # which has the formula of this one's policy
        chosen, _ = engine.assign_policies(policy, self.paths.markets, None)
        names = self.paths.names
        own = self.setup.observed[: len(names)]
        observed = [x._replace(policy=chosen[name]) for x, name in zip(own, names, strict=True)]
        observed += self.setup.observed[len(names) :]
        runner.policy = policy
        runner.known_pasts = {}
        runner.setup = self.setup._replace(policies=chosen, observed=observed)
        return runner

    def find_past(self, bars: int, least: int = 0) -> PastStarts:
        """Return what happened to the account, new at each day's first open of history.

        Each is followed for ``bars`` bars, or to the end of the data. A history of less than a year
        is too short: no account begins. Nor does one before the policy's columns are known, or with
        under ``least`` bars to the end.
        """
        if bars not in self.known_pasts:
            self.known_pasts[bars] = self.live_past_days(bars, least)
        return self.known_pasts[bars]

    def live_past_days(self, bars: int, least: int) -> PastStarts:
        markets = as_markets(self.paths.history)
        time, day = markets.time, markets.time // DAY
        has_marks = all(each.has_mark for each in markets.values())
        if markets.end - time[0] < YEAR:
            return PastStarts(time[:0], time[:0], time[:0], time[:0], has_marks)
        begins = np.flatnonzero(day[1:] != day[:-1])
        begins = begins[begins >= self.warm_up.known]
        begins = begins[markets.n_bars - 1 - begins >= least]
        firsts, losses = np.full((2, len(begins)), bars, np.int64)
        for k, lives in self.live_past(begins, bars + 1):
            is_liquidated = lives[engine.LIQUIDATED, 1:] != 0.0
            is_lost = is_liquidated | (lives[engine.RUINED, 1:] != 0.0)
            for found, hit in ((firsts, is_liquidated), (losses, is_lost)):
                found[k] = hit.argmax() if hit.any() else bars
        room = markets.n_bars - 1 - begins
        return PastStarts(time[begins + 1], firsts, losses, room, has_marks)

    def measure_calm(self) -> dict[str, float]:
        """Return today's volatility over that of the last 365 days, by instrument that is held.

        Those with under a year of data are left out.
        """
        weights = self.list_weights(self.paths.markets)[:, -1].tolist()
        pasts = self.paths.pasts
        pairs = zip(self.paths.names, weights, strict=True)
        ratios = {name: measure_calm(pasts[name]) for name, weight in pairs if weight != 0.0}
        return {name: ratio for name, ratio in ratios.items() if not math.isnan(ratio)}

    def live_past(self, begins: core.IntArray, width: int) -> Iterator[tuple[int, core.FloatArray]]:
        """Yield what ``live_from`` of the loop does, of the account at some bars of history."""
        markets = as_markets(self.paths.history)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = self.setup._replace(account=replace(self.account, flows=None), resume=None)
            weights, started = self.list_weights(markets), int(markets.time[0])
            setup = engine.set_up_again(setup, markets, weights, first=0, started=started)
            loop = engine.BatchLoop(setup, is_compiled=self.compile)
        try:
            yield from loop.live_from(begins, width)
            loop.tell_overflow()
        except engine.LaneFault as fault:
            first = int(begins[fault.lane])
            own = setup.change(first=first, started=int(markets.time[first]))
            engine.run_account(own, is_compiled=False, progress=None)  # it says what
            raise

    def list_weights(self, markets: Markets) -> core.FloatArray:
        """Return the signal on the bars of a path, of shape (n, n_bars)."""
        names, chosen = self.paths.names, self.signal
        if chosen is None and self.resume is not None:
            last = self.resume.state.positions.column("signal")
            chosen = dict(zip(names, map(float, last), strict=True))
        elif isinstance(chosen, float):
            chosen = dict.fromkeys(names, chosen)
        return read_weights(chosen, markets, first=0)

    def run_path(self, i: int) -> Result:
        number = i % self.paths.count
        joined = self.join(self.paths.draw_all(number, number + 1), 0, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = self.set_up_on(joined, self.setup)
            if isinstance(self.signal, float):
                setup = setup._replace(given=self.signal)
            outcome = engine.run_account(setup, is_compiled=self.compile, progress=None)
            return engine.finish(setup, outcome)

    def run_chunks(
        self, *, threads: int = 1, progress: Progress | None = None
    ) -> Iterator[PathLives]:
        _ = self.loop  # compiled before threads start
        total, size = self.paths.count, self.paths.block
        firsts = range(0, total, size)
        with ThreadPoolExecutor(threads, thread_name_prefix="paths") as pool:
            live = map if threads == 1 else pool.map
            for lives in live(self.run_block, firsts, [min(k + size, total) for k in firsts]):
                core.report_progress(progress, lives.first + len(lives.wealth), total)
                yield lives
        self.loop.tell_overflow()

    @functools.cached_property
    def loop(self) -> engine.BatchLoop:
        return engine.BatchLoop(self.setup, is_compiled=self.compile)

    def begin(self, bars: Mapping[str, PathBars]) -> tuple[engine.Setup, bool]:
        """Return the setup of an account on paths, and whether each path has its own setup."""
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
        feed = setup.inputs.feed
        if (
            self.test.overlay is not None
            or seen.decision_interval > 0
            or any(len(getattr(feed, name)) > 1 for name in DEPENDENT)
        ):
            return self.set_up_on(seen, setup), True
        path = self.paths.markets_of(bars, 0, 0)
        observed = [
            own._replace(market=market)
            for own, market in zip(setup.observed, path.values(), strict=True)
        ]
        signal, start = self.list_weights(path), self.find_start(path)
        return setup.change(markets=path, signal=signal, observed=observed, **start), False

    def observe_trusted(self) -> list[engine.ObservedPolicy] | None:
        """Return the columns on the first path, of a policy that needs no check for look-ahead."""
        if not self.is_trusted:
            return None
        seen = find_clock(self.seen).seen
        chosen, above = engine.assign_policies(self.policy, self.paths.markets, self.test.overlay)
        weights = self.list_weights(seen)
        return engine.observe_policies(chosen, above, seen, self.venues, weights, is_checked=False)

    def join(self, bars: Mapping[str, PathBars], k: int, number: int) -> Markets:
        behind = self.warm_up.count_bars(as_markets(self.paths.history), self.venues)
        joined = self.paths.markets_of(bars, k, number, behind)
        return joined if self.resume is None else engine.join_resumed(self.resume, joined)[0]

    def set_up_on(self, joined: Markets, setup: engine.Setup) -> engine.Setup:
        weights = self.list_weights(joined)
        return engine.set_up_again(setup, joined, weights, **self.find_start(joined))

    def find_start(self, markets: Markets) -> dict[str, Any]:
        first = markets.n_bars - self.paths.width
        if self.resume is None:
            return {"first": first, "started": int(markets.time[first])}
        return {"first": first + 1, "started": self.resume.span.start}

    def run_block(self, first: int, stop: int) -> PathLives:
        paths = self.paths
        bars, n = paths.draw_all(first, stop), stop - first
        size, parts = 1 if self.is_own else n, []
        for k in range(0, n, size):
            if self.is_own:
                laid = engine.lay(self.set_up_on(self.join(bars, k, first + k), self.setup))
            else:
                make = functools.partial(self.observe_block, bars, n)
                kept = self.blocks
                columns, known = make() if kept is None else kept.find((first, stop), make)
                drawn = self.draw_fields(bars, n)
                laid = engine.lay(self.setup, n, columns, known, **drawn)
            try:
                parts.append(self.loop.live(laid, self.setup.first)[:, :, -paths.n_bars :])
            except engine.LaneFault as fault:
                replace(self, compile=False).run_path(first + k + fault.lane)  # it says what
                raise
        closes = np.array([each.prices[3, :, 1:] for each in bars.values()])
        lives = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        return PathLives(first, *lives, closes=closes)  # type: ignore[misc] # its fields

    def observe_block(self, bars: Mapping[str, PathBars], n: int) -> PathColumns:
        """Return the columns of the policies along n paths, and when each is asked (n, names)."""
        names = self.paths.names
        columns, known = [], np.zeros((n, len(names)), np.int64)
        for i, (name, own) in enumerate(zip(names, self.setup.observed, strict=True)):
            seen, known[:, i] = self.observe(own, name, bars[name])
            columns.append(seen)
        return columns, known

    def observe(
        self, own: engine.ObservedPolicy, name: str, bars: PathBars
    ) -> tuple[dict[str, core.FloatArray], core.IntArray]:
        """Return the columns of a policy along some paths, end to end, and when each asks it.

        That is the bar of each path at which all columns have had a value, before it or on it.
        """
        if not own.columns:
            return {}, np.zeros(len(bars.volume), np.int64)
        member, width, seen = self.paths.members[name], self.paths.width, self.seen
        signal = self.list_weights(seen)[self.paths.names.index(name)]
        before = seen[name].slice(0, seen.n_bars - width + 1)
        fields = {"source": seen[name].source, "signal": np.clip(signal, -1.0, 1.0)}
        last = {name: column[-1:].repeat(width) for name, column in own.columns.items()}
        found: dict[str, list[core.FloatArray]] = {name: [] for name in own.columns}
        known: list[int] = []
        for some in member.list_markets(bars, before, **fields):
            paths = observe_paths(own.policy, some)
            for each, parts in found.items():
                parts.append(np.concatenate([x.get(each, last[each])[-width:] for x in paths]))
            for columns in paths:
                front = max(map(len, columns.values()), default=width) - width
                known.append(max(engine.find_warm_up(columns).bar - front, 0))
        joined = {each: np.concatenate(parts) for each, parts in found.items()}
        return joined, np.array(known, np.int64)

    def draw_fields(self, bars: Mapping[str, PathBars], n: int) -> dict[str, core.FloatArray]:
        """Return prices and volumes of some paths, (bars, n), and their rates of funding."""
        each, feed = [*bars.values()], self.setup.inputs.feed
        fields = [(*own.prices, *own.marks, own.volume) for own in each]
        found = {
            name: columns[0].reshape(-1, 1)
            if len(each) == 1
            else np.stack([values.ravel() for values in columns], axis=1)
            for name, columns in zip(
                (*PRICES, *MARKS, "volume"), zip(*fields, strict=True), strict=True
            )
        }
        rates = np.tile(feed.funding_rate, (n, 1))
        for i, own in enumerate(each):
            paid = np.flatnonzero(feed.funding_instrument == i)
            if own.rates.shape[1] and len(paid):  # a spot leg pays none
                rates[:, paid[-own.rates.shape[1] :]] = own.rates
        return found | {"funding_rate": rates.ravel()}


def measure_calm(history: Market) -> float:
    """Return the volatility of the last days over that of the last 365; NaN under a year of data.

    That of the last days has the half-life of the model ``Filtered``.
    """
    if history.end - history.time[0] < YEAR:
        return math.nan
    half_life = max(HALF_LIFE * DAY / history.interval, 1.0)
    today = float(ewma_volatility(history, half_life)[-1])
    is_recent = history.time[1:] >= history.end - YEAR
    square = float(np.mean(log_returns(history)[1:][is_recent] ** 2))
    return today / math.sqrt(square * count_per_year(history)) if square > 0.0 else math.nan


def bound_apart(share: float, apart: int) -> tuple[int, float]:
    """Return how many starts apart a share is, and the largest probability that they leave.

    That is the upper end of the one-sided 95 % interval of Clopper and Pearson.
    """
    hits = round(share * apart)
    if hits >= apart:
        return hits, 1.0
    return hits, float(core.sp.special.betaincinv(hits + 1, apart - hits, ONE_SIDED))


def format_bound(chance: float) -> str:
    """Format a largest probability with two digits: the third is below what starts show."""
    return f"{100.0 * chance:.2g} %"


def describe_apart(hits: int, apart: int, high: float) -> str:
    return f"{hits:,} of {apart:,} apart: at most {format_bound(high)}"


def observe_paths(policy: policies.Policy, paths: PathMarkets) -> list[dict[str, core.FloatArray]]:
    """Return the columns of some paths: observed together where the first and last are the same."""
    lanes = range(len(paths.rows["close"]))
    if not policies.parts_take_arrays(policy):
        return [policies.observe(policy, paths.pick(k)) for k in lanes]
    alone = {k: policies.observe(policy, paths.pick(k)) for k in (0, lanes[-1])}
    seen = policies.observe_together(lambda: policy.observe(paths.join()), alone, len(lanes))
    if not seen:
        return [alone[k] if k in alone else policies.observe(policy, paths.pick(k)) for k in lanes]
    return [{name: each[:, k] for name, each in seen.items()} for k in lanes]


def check_start(runner: PathsRunner) -> None:
    """Refuse a result that ended elsewhere, and options, which no path has prices of."""
    resume, begins = runner.resume, int(runner.paths.calendar.time[0])
    if resume is not None and resume.last_time != begins:
        raise core.DataError(
            f"paths must begin where the result ended, {core.format_time(resume.last_time)}, "
            f"got {core.format_time(begins)}; start='now' begins at the end of the market"
        )
    found = [repr(each) for each in (runner.policy, runner.test.overlay) if trades_options(each)]
    options = None if resume is None else resume.options
    if options is not None:
        last = zip(options.terms.names, options.record.quantity[-1].tolist(), strict=True)
        found = [f"a result that holds {name}" for name, held in last if held != 0.0] + found
    if found:
        raise core.ParameterError(
            "no risk is simulated of accounts that hold or trade options, got "
            f"{found[0]}; use bt.stress"
        )


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
    bound = core.Range(-1.0, 1.0) if is_one else core.Real()
    found = {
        name: float(bound.check("signal" if is_one else f"signal of {name}", each))
        for name, each in engine.give_each(signal, markets, one="signal").items()
    }
    return found[markets.names[0]] if is_one else found


USUAL = ("1d", "7d", "30d")
SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> dict[str, int]:
    """Return the bars of a path that have closed by each horizon."""
    time, given = paths.calendar.time, [horizons] if isinstance(horizons, str) else horizons
    if given is None:
        usual = {core.parse_duration(x): x for x in (core.format_duration(paths.horizon), *USUAL)}
        room = int(time[1] - time[0])
        given = [x for span, x in sorted(usual.items()) if room <= span <= paths.horizon]
    found = {}
    for name in given:
        span = core.parse_duration(name, "horizons")
        found[name] = int(np.sum(time[1:] <= time[0] + span))
        if span > paths.horizon or found[name] < 1:
            raise core.ParameterError(
                "horizons must lie between a bar and the length of the paths, "
                f"{core.format_duration(paths.horizon)}, got {name}"
            )
    return found


class PathEvents(NamedTuple):
    """Events of paths, and what is left at the horizons.

    ``firsts`` (4, n_paths) are the bars of the first liquidation, ruin, call and default, or the
    number of bars; ``wealth`` and ``bad_debt`` (n_horizons, n_paths), ``shown`` (up to 2000,
    n_bars), and ``doomed`` (2, n_bars) mean close (relative) and wealth of liquidated paths.
    """

    firsts: core.IntArray
    wealth: core.FloatArray
    bad_debt: core.FloatArray
    shown: core.FloatArray
    doomed: core.FloatArray | None


def find_first(values: core.FloatArray) -> core.IntArray:
    is_set = values != 0.0
    return np.asarray(np.where(is_set.any(axis=1), is_set.argmax(axis=1), values.shape[1]))


def reduce_lives(
    lives: Iterable[PathLives],
    bars: Sequence[int],
    last: core.FloatArray,
    ended: core.IntArray,
    find_left: Callable[[core.FloatArray], core.FloatArray],
) -> PathEvents:
    """Return the events until the bars at which paths have ``ended`` by a default of the venue.

    ``find_left`` returns the wealth that such a default leaves of that before it.
    """
    firsts, ends, shown, at = [], [], [], np.array(bars) - 1
    doomed, n_doomed = np.zeros((2, 1)), 0
    for each in lives:  # dropped one after the other
        n, n_bars = each.wealth.shape
        over = ended[each.first : each.first + n]
        is_over = np.arange(n_bars) >= over[:, None]
        left = find_left(each.wealth[np.arange(n), np.minimum(over, n_bars - 1)])
        wealth = np.where(is_over, left[:, None], each.wealth)
        liquidations, ruins, calls, debt = (
            np.where(is_over, 0.0, x)
            for x in (each.liquidations, each.is_ruined, each.calls, each.bad_debt)
        )
        firsts.append([*map(find_first, (liquidations, ruins, calls)), over])
        ends.append([wealth[:, at].T, np.cumsum(debt, axis=1)[:, at].T])
        if each.first < SHOWN:
            shown.append(wealth[: SHOWN - each.first])
        hit = firsts[-1][0] < n_bars
        price = np.mean(each.closes[:, hit] / last[:, None, None], axis=0)
        doomed = doomed + np.array([np.sum(price, axis=0), np.sum(wealth[hit], axis=0)])
        n_doomed += int(np.sum(hit))
    wealth, debt = np.concatenate(ends, axis=2)
    return PathEvents(
        np.concatenate(firsts, axis=1), wealth, debt, np.concatenate(shown),
        doomed / n_doomed if n_doomed else None,
    )  # fmt: skip


DEFAULTS = 7
"""Which random numbers of a path its default draws."""


def draw_defaults(rate: float, paths: Paths, times: core.FloatArray) -> core.IntArray:
    """Return the bar of each path in which the venue defaults, or the number of bars.

    It does at an exponential time; ``times`` (n_bars,) are the years from the start to each close.
    """
    if rate == 0.0:
        return np.full(paths.count, len(times))
    draws = (np.random.default_rng([paths.seed, DEFAULTS, k]) for k in range(paths.count))
    return np.searchsorted(times, np.array([each.exponential() for each in draws]) / rate)


EVENTS = {
    "p_liquidation": "liquidation", "p_ruin": "ruin", "p_margin_call": "margin call",
    "p_default": "default of the venue",
}  # fmt: skip
LOSSES = [name for name in EVENTS if name != "p_margin_call"]
"""What loses the account."""
BY_MODEL = "model_probability"
QUANTILES = {"equity_05": 0.05, "equity_50": 0.5, "equity_95": 0.95}
FAN = {f"equity_{each:02d}": each / 100 for each in (5, 25, 50, 75, 95)}


def name_interval(kind: str) -> tuple[str, str]:
    """Return the columns of the ends of a probability's interval."""
    return f"{kind}_simulation_low", f"{kind}_simulation_high"


def describe_share(kind: str, hits: float, n: int, confidence: float = 0.95) -> dict[str, float]:
    return dict(zip((kind, *name_interval(kind)), estimate(hits, n, confidence), strict=True))


def describe_horizon(
    events: PathEvents, k: int, bars: int, days: core.FloatArray, confidence: float
) -> dict[str, Any]:
    """Return the row of horizon k; ``days`` (n_bars,) are those from the start to each close."""
    by_kind = dict(zip(EVENTS, events.firsts, strict=True))
    lost = np.minimum.reduce([by_kind[kind] for kind in LOSSES])
    row = {"probability": math.nan}  # from the model, or from history
    for kind, first in {BY_MODEL: lost, **by_kind}.items():
        row |= describe_share(kind, int(np.sum(first < bars)), len(first), confidence)
    died = events.firsts[0][events.firsts[0] < bars]
    return {
        **row,
        "bad_debt": float(np.mean(events.bad_debt[k])),
        **{name: float(np.quantile(events.wealth[k], q)) for name, q in QUANTILES.items()},
        "days_to_liquidation": float(np.median(days[died])) if died.size else math.nan,
    }


def choose_probability(row: Mapping[str, float], default: float, *, is_calm: bool) -> float:
    """Return the probability of losing the account: of the model, in calm at least history's.

    ``default`` is the probability that the venue defaults, which history does not have.
    """
    by_model, past = row[BY_MODEL], row["history"]
    if not is_calm or math.isnan(past):
        return by_model
    return max(by_model, 1.0 - (1.0 - past) * (1.0 - default))


PAST_HEADS = {
    "history": Head("lost", "share of starts", "percent"),
    "history_starts": Head("starts", "daily", "count"),
    "history_apart": Head("starts apart", "no common bar", "count"),
    "history_high": Head("at most", "by starts apart, 95 %", "chance"),
    "history_worst_year": Head("worst year", "365 days", "percent"),
}
MONEY = "settlement currency"
WEALTH = {
    "equity_05": Head("5 % quantile", MONEY, "money"),
    "equity_50": Head("median", MONEY, "money"),
    "equity_95": Head("95 % quantile", MONEY, "money"),
    "bad_debt": Head("expected bad debt", MONEY, "money"),
    "days_to_liquidation": Head("median time to a liquidation", "days"),
}


@dataclass(frozen=True, eq=False, repr=False)
class LiquidationRisk(SettingsResult):
    """Risk of losing an account on many paths.

    Attributes
    ----------
    table : DataFrame
        A row per horizon: ``probability`` of losing the account by any cause, by liquidation, ruin
        or a default of the venue; ``model_probability``, the share of the paths; its parts
        ``p_liquidation``, ``p_ruin`` and ``p_default`` (with a ``default_rate`` only), and
        ``p_margin_call`` (NaN without margin calls). Shares of paths have ``_simulation_low`` and
        ``_simulation_high``, the ends of their interval, which counts paths and nothing else.
        ``history`` is the share lost of the accounts that began anew at each day's first open of
        the data, of ``history_starts``; of them ``history_apart`` have no bar in common,
        ``history_high`` is the largest probability that these leave possible (one-sided 95 %), and
        ``history_worst_year`` the largest share of 365 days of starts (all NaN with less than a
        year of data). ``bad_debt`` is the expected loss of the venue; ``equity_05``,
        ``equity_50``, ``equity_95``, quantiles of wealth at the horizon; ``days_to_liquidation``,
        the median over the liquidated paths.
    fan, hazard : DataFrame
        Quantiles of wealth by time, of the first 2,000 paths; and by day the paths liquidated in it
        for the first time, over those not liquidated before.
    scores, intervals, forecasts : DataFrame, optional
        With ``score``: how good such forecasts were at past dates, by ``forecast`` and ``days``
        (all, calm, other); how often intervals held, of mean funding and of a value at risk; and
        each dated forecast. ``recalibrated`` is what the record makes of today's.
    settings : dict
        What the numbers come from.
    paths : Paths
        The paths that the account was taken through.
    """

    table: pd.DataFrame
    fan: pd.DataFrame
    hazard: pd.DataFrame
    typical: pd.DataFrame | None
    scores: pd.DataFrame | None = None
    intervals: pd.DataFrame | None = None
    forecasts: pd.DataFrame | None = None
    paths: Paths | None = None
    runner: PathsRunner | None = None

    kind = "liquidation-risk"
    called = "risk"
    long_tables = ("fan", "hazard", "typical", "forecasts")

    @property
    def note(self) -> str:
        if self.settings.get("no_fill"):
            return "no order was filled"
        chance = core.format_chance(self.table["probability"].iloc[-1])
        return f"{chance} lost in {self.table.index[-1]}"

    def find_past(self, horizon: str) -> PastStarts:
        """Return what became of the accounts that were new on each day of history."""
        if self.runner is None:
            raise core.ParameterError(
                "a risk loaded from files cannot be replayed; Backtest.liquidation_risk makes it "
                "again"
            )
        return self.runner.find_past(read_horizons(self.runner.paths, horizon)[horizon])

    def path(self) -> pd.DataFrame:
        """Return the mean of the paths that are liquidated, by time.

        ``price`` is the close over the last one of history, ``equity`` the wealth.
        """
        if self.typical is None:
            raise core.ParameterError("there is no typical path: no path was liquidated")
        return self.typical

    @core.checked
    def run(self, i: int) -> Result:
        """Return the full result of path i, the same bits as in the risk."""
        if self.runner is None:
            raise core.ParameterError(
                "a risk loaded from files has no paths to run; Backtest.liquidation_risk makes it "
                "again"
            )
        count = self.runner.paths.count
        core.Range(-count, count - 1).check("i", i, whole=True)
        return self.runner.run_path(i)

    @property
    def verdict(self) -> str:
        row, horizon = self.table.iloc[-1], self.table.index[-1]
        chance = core.format_chance(row["probability"])
        text = f"The account is lost within {horizon} with a probability of {chance}"
        if row["probability"] > row[BY_MODEL]:
            by_model = core.format_chance(row[BY_MODEL])
            return f"{text}, history's frequency, as the market is calm (the model: {by_model})."
        return f"{text}: {self._write_causes(row)}; history: {write_past(row)}."

    def _write_causes(self, row: Any) -> str:
        """Write the parts of the model's probability; history's has no parts."""
        kinds = [kind for kind in LOSSES if kind in row]
        return ", ".join(f"{EVENTS[kind]} {core.format_chance(row[kind])}" for kind in kinds)

    @property
    def details(self) -> str:
        drawn = self.settings["paths"]
        model, drift = drawn["model"]["name"], describe_drift(drawn)
        texts = [f"{drawn['paths']:,} paths of the model {model}, {drift}."]

        unseen = self.table.index[self.table[BY_MODEL] == 0.0]
        if len(unseen):
            texts.append(
                f"No path lost the account within {unseen[-1]}: {drawn['paths']:,} paths show "
                f"nothing under {core.format_chance(3.0 / drawn['paths'])}."
            )

        calm = {name: x for name, x in self.settings["calm"].items() if x < CALM}
        if calm:
            names = label_names(calm)
            ratios = [f"{names[name]} {x:.2f}".strip() for name, x in calm.items()]
            rule = "the larger of the model's and history's probability counts"
            if self.settings["resumed"] is not None:
                rule = "history knows no account that goes on, so expect more than the model's"
            texts.append(
                f"The market is calm, with a volatility of {', '.join(ratios)} of the last "
                f"year's: {rule}."
            )
        if scored := self.list_scored():
            texts.append(f"At past dates, {'; '.join(scored)}.")
        return " ".join(texts)

    def list_scored(self) -> list[str]:
        """Return what was told at past dates and what came, a clause for each forecast."""
        if self.scores is None:
            return []
        whole = self.scores[self.scores["days"] == ALL]
        return [write_score(str(name), row) for name, row in whole.iterrows()]

    @property
    def _sure(self) -> str:
        return f"{100.0 * self.settings['confidence']:g} %"

    @property
    def heading(self) -> str:
        return f"Risk of liquidation: {self.title}"

    @property
    def notices(self) -> tuple[str, ...]:
        no_fill = self.settings.get("no_fill")
        return (f"No order was filled on any path: {no_fill}.",) if no_fill else ()

    def list_numbers(self) -> list[Headline]:
        return [
            Headline(f"probability_{name}", f"lost within {name}", float(row["probability"]),
                     "chance", self._write_note(row))
            for name, row in self.table.iterrows()
        ]  # fmt: skip

    def _write_note(self, row: Any) -> str:
        causes = self._write_causes(row)
        if row["probability"] > row[BY_MODEL]:
            causes = f"history's frequency; the model: {causes}"
        if math.isnan(row["history"]):
            return f"{causes}; history: too short"
        hits, apart = round(row["history"] * row["history_apart"]), int(row["history_apart"])
        worst = core.format_percent(row["history_worst_year"])
        prices = "" if self.settings["history_has_marks"] else ", last prices"
        bound = describe_apart(hits, apart, row["history_high"])
        return f"{causes}; history: {write_past(row)}, {bound}, worst year {worst}{prices}"

    def list_parts(self) -> list[Part]:
        heads = {
            "probability": Head("any cause", "", "chance"),
            BY_MODEL: Head("any, by model", "", "chance"),
        }
        ranges: dict[str, Head] = {}
        low, high = name_interval(BY_MODEL)
        ranges[low] = Head("any cause", "", "chance", high)
        for kind in (*LOSSES, "p_margin_call"):
            if kind not in self.table or self.table[kind].isna().all():
                continue
            noun = EVENTS[kind]
            low, high = name_interval(kind)
            heads[kind] = Head(noun, "", "chance")
            ranges[low] = Head(noun, "", "chance", high)
        fan = self.fan.rename(columns=lambda name: f"{str(name).removeprefix('equity_')} %")
        colors = {str(name): "accent" if name == "50 %" else "neutral" for name in fan}
        labels, fits = Head("horizon"), self.settings["paths"].get("funding_fit", {})
        past = ShownTable(self.table, "What history did", labels=labels, heads=PAST_HEADS,
                          columns=PAST)  # fmt: skip
        return [
            Part("horizons", "By horizon", "From the last close of the data on.", (
                ShownTable(self.table, "Probability of losing the account, and of its causes",
                           labels=labels, heads=heads, columns=tuple(heads)),
                *([past] if self.table["history"].notna().any() else []),
                ShownTable(self.table, f"{self._sure} intervals of the simulation", labels=labels,
                           heads=ranges, columns=tuple(ranges)),
                ShownTable(self.table, "Wealth at the horizon", labels=labels, heads=WEALTH,
                           columns=tuple(WEALTH)),
                *summarize_funding(fits),
            ), shows="both"),
            Part("paths", "What happens on the way", "Wealth by time.", (
                ShownChart("fan", "Wealth", "Quantiles of 5, 25, 50, 75 and 95 % at each "
                           "close.", fan, colors=colors, height=320),
                ShownChart("typical", "The typical path to liquidation",
                           "Mean price, over the last close, of the liquidated paths.",
                           None if self.typical is None else self.typical["price"],
                           colors={"price": "loss"}, height=260),
            )),
            Part("hazard", "Hazard by day", "First liquidations, of those not liquidated "
                 "before.", (
                ShownChart("hazard", "Hazard", "Share of the accounts not liquidated before "
                           "that is liquidated in each day.", self.hazard["hazard"], "bars",
                           {"hazard": "loss"}, x="day", height=240),
            )),
            *self.show_scores(),
        ]  # fmt: skip

    def show_scores(self) -> list[Part]:
        """Return the section on the scores, if there are any."""
        if self.scores is None or self.intervals is None:
            return []
        return [show_scores(self.scores, self.intervals)]


def write_past(row: Any) -> str:
    if math.isnan(row["history"]):
        return "too short"
    return f"{core.format_percent(row['history'])} of {row['history_starts']:,.0f} starts"


def tabulate_horizons(
    runner: PathsRunner, events: PathEvents, past: PastStarts, bars: Mapping[str, int],
    days: core.FloatArray, confidence: float, default_rate: float, calm: Mapping[str, float],
) -> pd.DataFrame:  # fmt: skip
    """Return the table of a risk: a row per horizon of ``bars``, by name.

    ``days`` (n_bars,) are those from the start to each close.
    """
    is_calm = runner.resume is None and any(ratio < CALM for ratio in calm.values())
    rows = []
    for k, (name, n) in enumerate(bars.items()):
        row = describe_horizon(events, k, n, days, confidence)
        row |= past.summarize(n, core.parse_duration(name))
        default = 1.0 - math.exp(-default_rate * float(days[n - 1]) / YEAR_DAYS)
        row["probability"] = choose_probability(row, default, is_calm=is_calm)
        rows.append(row)

    table = pd.DataFrame(rows, index=pd.Index(bars, name="horizon"))
    if runner.account.margin_call is None:
        table[["p_margin_call", *name_interval("p_margin_call")]] = math.nan
    if not default_rate:
        table = table.drop(columns=["p_default", *name_interval("p_default")])
    return table


def measure_risk(
    runner: PathsRunner,
    horizons: Sequence[str] | None,
    *,
    confidence: float = 0.95,
    default_rate: float = 0.0,
    recovery: float = 0.0,
    threads: int = 1,
    progress: Progress | None = None,
) -> LiquidationRisk:
    """Return the risk of an account on paths; :func:`liquidation_risk` checks the arguments."""
    paths = runner.paths
    sure = confidence
    rate = default_rate
    bars = read_horizons(paths, horizons)
    if (
        paths.bridge == 1
        and not paths.is_resampled
        and any(own.columns for own in runner.setup.observed)
    ):
        runner = replace(runner, paths=replace(paths, bridge=4))
    lives = runner.run_chunks(threads=threads, progress=progress)
    last = np.array([each.close[-1] for each in paths.markets.values()])
    days = np.diff(runner.paths.calendar.time).cumsum() / DAY
    ended = draw_defaults(rate, runner.paths, days / YEAR_DAYS)

    def find_left(wealth: core.FloatArray) -> core.FloatArray:
        kept = np.minimum(wealth, runner.account.reserve)
        return np.asarray(kept + recovery * (wealth - kept))

    events = reduce_lives(lives, [*bars.values()], last, ended, find_left)
    no_fill = ""
    if not any((each != each[:, :1]).any() for each in (events.wealth, events.shown.T)):
        no_fill = replace(runner, compile=False).run_path(0).no_fill
    if no_fill:
        core.warn_caller(
            f"no order was filled on any of {runner.paths.count:,} paths, so nothing can be "
            f"liquidated: {no_fill}",
            core.NoFillWarning,
        )
    drawn, later, resume = runner.paths, runner.paths.time[1:], runner.resume
    past = runner.find_past(max(bars.values()), least=min(bars.values()))
    calm = runner.measure_calm()
    table = tabulate_horizons(runner, events, past, bars, days, sure, rate, calm)
    typical = None
    if events.doomed is not None:
        typical = pd.DataFrame(events.doomed.T, later, ["price", "equity"])
    settings = describe_terms(runner.policy, runner.test) | {
        "resumed": None if resume is None else resume.manifest["id"],
        "signal": runner.signal,
        "no_fill": no_fill,
        "confidence": sure,
        "history_has_marks": past.has_marks,
        "calm": calm,
        **({"default_rate": rate, "recovery": recovery} if rate else {}),
        "paths": drawn.describe(),
    }
    day, firsts = np.ceil(days - 1e-9).astype(np.int64), events.firsts[0]
    counts = np.bincount(day[firsts[firsts < len(day)]] - 1, minlength=int(day[-1]))
    at_risk = len(firsts) - np.concatenate([[0], np.cumsum(counts)[:-1]])
    hazard = {"at_risk": at_risk, "liquidated": counts, "hazard": counts / np.maximum(at_risk, 1)}
    return LiquidationRisk(
        table=table,
        fan=pd.DataFrame(np.quantile(events.shown, [*FAN.values()], axis=0).T, later, [*FAN]),
        hazard=pd.DataFrame(hazard, index=pd.RangeIndex(1, len(counts) + 1, name="day")),
        typical=typical,
        settings=settings,
        paths=drawn,
        runner=runner,
        market=drawn.history,
    )


def describe_terms(policy: object, test: Conditions) -> dict[str, Any]:
    by_name = policy.items() if isinstance(policy, Mapping) else ()
    venue: Any = test.venue
    return {
        "policy": ", ".join(f"{name}: {each!r}" for name, each in by_name) or str(policy),
        "venue": results.describe_venue(venue),
        "account": test.account.to_dict(),
        "overlay": None if test.overlay is None else repr(test.overlay),
    }

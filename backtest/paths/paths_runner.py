"""Take one account and policy through many paths, a chunk at a time."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account, Log
from backtest.base.caller_warnings import warn_caller
from backtest.base.errors import AccountingError, BacktestError, DataError, ParameterError
from backtest.base.units import FloatArray, format_time
from backtest.engine import Result
from backtest.engine.bar_loop import BROKEN, Formula, Seen
from backtest.engine.compile.recipe import ROOT_NAMES, pack_brackets, pack_columns, write_recipe
from backtest.engine.lookahead.causality import observe, observe_checked
from backtest.engine.loop_driver import explain_refusal
from backtest.engine.loop_inputs import Inputs, read_inputs
from backtest.engine.run import find_loop_start, run
from backtest.engine.run_history import History, join_markets
from backtest.engine.signal_input import read_signal
from backtest.market import Market
from backtest.paths import paths_loop
from backtest.paths.path_set import DrawPlan, Paths
from backtest.paths.path_writer import PathBars
from backtest.policy import Policy
from backtest.policy.error_location import bind_plain
from backtest.venue import Venue

CHUNK_BARS = 65_536
"""Bars of the paths that are drawn at once: more would only take memory."""
OWN_BLOCK = 16
"""Paths drawn at once where each is prepared by itself."""
WARMUP = 2000
"""Bars of history in front of a path, for the columns of a policy."""
PRICES = ("open", "high", "low", "close")
DEPENDENT = ("sigma", "adv", "stop_scale", "profit_scale", "trail_scale")
"""Fields of the feed that depend on the prices of a path."""

Progress = Callable[[int, int], None]


class PathLives(NamedTuple):
    """Outcomes of an account on some paths.

    Each field of :data:`backtest.paths.paths_loop.LIVED` has shape (n_paths, n_bars), for the bars
    after history; ``first`` is the number of the first path. ``price`` (n_paths, n_bars) are
    last closes. ``ratio`` is 0 unless asked for.
    """

    first: int
    wealth: FloatArray
    liquidations: FloatArray
    bad_debt: FloatArray
    calls: FloatArray
    is_ruined: FloatArray
    ratio: FloatArray
    price: FloatArray


class Prepared(NamedTuple):
    """The arguments of the loop on the first path, as a pattern for all of them.

    ``offset`` is the bar of ``inputs`` that is the first of a path, ``first`` the bar of a path
    where the account begins: 0 for a new one, 1 for one that goes on. ``is_own``: inputs or columns
    depend on the prices of a path, so that they are made for each one.
    """

    inputs: Inputs
    columns: Mapping[str, FloatArray]
    state: Any
    memory: Any
    offset: int
    first: int
    is_own: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class PathsRunner:
    """One account and policy, to be taken through paths.

    Parameters
    ----------
    paths : Paths
        The bars.
    policy, venue : Policy, Venue
        As in :func:`backtest.run`. Of dated margin tables, that in force at the start holds for all
        bars.
    account : Account or Result
        A new account, which decides first at the last close of history; or a result that ended
        there, to go on from.
    signal : float
        Direction and scale in [-1, 1], the same at all times.
    compile : bool
        False runs the policy in plain Python; the numbers are the same bits.
    """

    paths: Paths
    policy: Policy
    venue: Venue
    account: Account | Result
    signal: float = 1.0
    compile: bool = True

    @property
    def resume(self) -> Result | None:
        """The result to continue, None for a new account."""
        return self.account if isinstance(self.account, Result) else None

    @property
    def terms(self) -> Account:
        """The account as it was opened."""
        return self.account.account if isinstance(self.account, Result) else self.account

    def join(self, path: Market) -> History:
        """Return a path with history in front, the bar the account begins at, and when it began."""
        if self.resume is not None:
            if self.resume.last_time != int(path.time[0]):
                raise DataError(
                    f"paths must begin where the result ended, {format_time(self.resume.last_time)}"
                    f", their first bar is {format_time(int(path.time[0]))}",
                    where="account=result",
                    cure="simulate paths of the market that the result ran on, with start='now'",
                )
            return join_markets(self.resume, path)
        market = self.paths.join_history(path, WARMUP)
        first = market.n_bars - self.paths.width
        return History(market, first, int(market.time[first]))

    def run_path(self, i: int) -> Result:
        """Return the whole result of path i, from :func:`backtest.run`."""
        return self.run_market(self.paths[i], is_compiled=self.compile)

    def run_market(self, path: Market, *, is_compiled: bool) -> Result:
        """Return the result of :func:`backtest.run` on one path."""
        joined = self.join(path)
        began: dict[str, Any] = {"resume": self.resume}
        if self.resume is None:
            began = {"start": np.datetime64(int(joined.market.time[joined.first]), "ns")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(
                joined.market,
                self.policy,
                venue=self.fixed_venue,
                account=self.terms,
                signal=self.signal,
                calendar="252" if joined.market.sessions else "365",
                compile=is_compiled,
                **began,
            )

    @property
    def base(self) -> float:
        """The price that moves of lives are relative to: the last close of history."""
        return float(self.paths.history.close[-1])

    @property
    def has_columns(self) -> bool:
        """Whether the policy reads columns, which may depend on ranges."""
        return bool(self.prepared.columns)

    @functools.cached_property
    def fixed_venue(self) -> Venue:
        """The venue with the margin table that is in force at the start."""
        return self.venue.with_table(self.venue.in_use(self.paths.calendar.time[:1])[0])

    def read(self, joined: History) -> Inputs:
        """Return the inputs of the loop on a joined path."""
        return read_inputs(
            joined.market,
            self.fixed_venue,
            self.terms,
            signal=read_signal(self.signal, joined.market, joined.first),
            sampling="1d",
            first=joined.first,
            started=joined.started,
        )

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The arguments of the loop on the first path."""
        joined = self.join(self.paths.market_of(self.paths.draw(0, 1), 0, 0))
        joined = joined._replace(market=joined.market.with_signal(np.array([self.signal])))
        columns, _ = observe_checked(self.policy, joined.market)
        inputs = self.read(joined)
        if inputs.fees is not None:
            raise ParameterError(
                "paths need one fee rate, was a venue with fee tiers",
                where="Venue.fees.tiers",
                cure="give the rates of your tier: venue.override(fees=bt.Fees(taker=..., ...))",
            )
        begin = find_loop_start(self.resume, self.terms, self.policy, joined.first)
        depends = any(len(getattr(inputs.feed, name)) > 1 for name in DEPENDENT)
        depends |= self.venue.open_interest_margin is not None
        drawn = inputs.feed.funding_bar >= joined.first + (self.resume is None)
        depends |= int(drawn.sum()) != len(self.paths.calendar.stamps)
        offset = joined.market.n_bars - self.paths.width
        return Prepared(
            inputs=inputs,
            columns=columns,
            state=begin.state,
            memory=begin.memory,
            offset=offset,
            first=joined.first - offset,
            is_own=bool(columns) or depends,
        )

    def run_chunks(
        self,
        plans: Callable[[int, int], DrawPlan] | None = None,
        *,
        count: int | None = None,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[PathLives]:
        """Yield the outcomes of the account on chunks of paths, in order.

        ``plans`` says what draws the paths from one number up to another, by default those of
        ``paths``. Results do not depend on the number of threads.
        """
        self.prepare()  # compiled before threads start
        total = self.paths.count if count is None else count
        edges = list_blocks(total, self.paths.width, is_own=self.prepared.is_own)
        draw = self.paths.plan if plans is None else plans

        def work(edge: tuple[int, int]) -> PathLives:
            return self.run_plan(draw(*edge), edge[0])

        yield from run_blocks(work, edges, threads, progress)

    def prepare(self) -> None:
        """Check the policy on the first path, and compile the loop around it."""
        self.simulate  # noqa: B018 - it is kept

    def run_plan(self, plan: DrawPlan, number: int, *, has_ratio: bool = False) -> PathLives:
        """Return the outcomes of the account on the paths that a plan draws."""
        paths, bars = self.paths, self.paths.draw_plan(plan)
        n, width = len(plan.keys), paths.width
        lived = np.zeros((len(paths_loop.LIVED), n * width))
        arguments = self.lay_out(bars, n, number)
        prepared = self.prepared
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        feed = arguments[2]
        events = (len(feed.funding_bar) // n, len(feed.flow_bar) // n)
        cursor = np.array([0, *events, has_ratio], dtype=np.int64)
        given = (*arguments, prepared.state, prepared.memory, log, lived, cursor, width)
        with np.errstate(all="ignore"):
            why = self.simulate(*given, prepared.first)
        if why != 0:
            raise self.explain(why, plan, int(cursor[0]) // width)
        shaped = lived.reshape(len(lived), n, width)[:, :, 1:]
        closes = bars.prices[3].reshape(n, width)
        return PathLives(number, *tuple(shaped), price=closes[:, 1:])  # type: ignore[misc] # its rows

    def explain(self, why: int, plan: DrawPlan, k: int) -> Exception:
        """Return the error of path k of a plan: run it in plain Python, which raises."""
        one = slice(k, k + 1)
        part = DrawPlan(plan.keys[one], plan.since[one], plan.mirrored[one])
        path = self.paths.market_of(self.paths.draw_plan(part), 0, k)
        try:
            self.run_market(path, is_compiled=False)
        except BacktestError as error:
            return error
        return AccountingError(
            f"path {k} {'did not balance' if why == BROKEN else 'got a negative leverage'}, "
            "though not in plain Python",
            where=repr(self.paths),
            cure="this is a defect of the engine: please report it with this text",
        )

    def lay_out(self, bars: PathBars, n: int, number: int) -> tuple[Any, ...]:
        """Return rules, plan, feed, market and formula for n paths laid end to end."""
        prepared = self.prepared
        parts = [self.read_own(bars, k, number + k) for k in range(n)] if prepared.is_own else []
        base = prepared.inputs
        feed = self.tile_feed(bars, n) if not parts else self.join_feeds([p for p, _ in parts])
        columns = {
            name: np.concatenate([own[name] for _, own in parts]) for name in prepared.columns
        }
        seen = Seen(
            time=feed.time,
            **{name: getattr(feed, name) for name in PRICES},
            mark=feed.mark_close,
            volume=feed.volume,
            interval=base.seen.interval,
            start=base.seen.start,
        )
        if not self.is_compiled:
            return base.rules, base.plan, feed, seen, Formula(None, tuple(columns.values()), True)
        packed = base.rules.with_margin(pack_brackets(base.rules.instrument.margin))
        formula = Formula(
            params=tuple(self.policy.settings().values()) or (0.0,),
            columns=pack_columns(columns),
            wants_root=True if self.recipe.names & ROOT_NAMES else None,
        )
        return packed, base.plan, feed, seen, formula

    def read_own(self, bars: PathBars, k: int, number: int) -> tuple[Any, Mapping[str, FloatArray]]:
        """Return the feed and the columns of one path, whose prices they depend on."""
        joined = self.join(self.paths.market_of(bars, k, number))
        market = joined.market.with_signal(np.array([self.signal]))
        columns = observe(self.policy, market)
        offset = self.prepared.offset
        return self.read(joined).feed, {name: each[offset:] for name, each in columns.items()}

    def cut(self, name: str, values: Any) -> Any:
        """Return a field of the feed from the first bar of a path on."""
        offset, width = self.prepared.offset, self.paths.width
        if name in ("funding_bar", "flow_bar"):
            return values - offset
        return values[offset:] if len(values) == offset + width and len(values) > 1 else values

    def join_feeds(self, feeds: list[Any]) -> Any:
        """Return the feeds of several paths laid end to end."""
        width, fields = self.paths.width, {}
        events = [name for name in feeds[0]._fields if name.startswith(("funding_", "flow_"))]
        for name in feeds[0]._fields:
            cut = [self.cut(name, getattr(feed, name)) for feed in feeds]
            if name.endswith("_bar"):
                cut = [each + k * width for k, each in enumerate(cut)]
            is_single = name not in events and len(cut[0]) == 1 and width > 1
            fields[name] = cut[0] if is_single else np.concatenate(cut)
        return type(feeds[0])(**fields)

    def tile_feed(self, bars: PathBars, n: int) -> Any:
        """Return the feed of n paths that differ in prices, volume and funding only."""
        feed, width = self.prepared.inputs.feed, self.paths.width
        marks = bars.prices if bars.marks is None else bars.marks
        fields = {name: bars.prices[j] for j, name in enumerate(PRICES)}
        fields |= {f"mark_{name}": marks[j] for j, name in enumerate(PRICES)}
        fields["volume"] = bars.volume
        for name in feed._fields:
            if name not in fields:
                cut = self.cut(name, getattr(feed, name))
                is_event = name.startswith(("funding_", "flow_"))
                is_tiled = is_event or len(cut) > 1
                fields[name] = np.tile(cut, n) if is_tiled else cut
        for name in ("funding_bar", "flow_bar"):
            each = len(fields[name]) // n
            fields[name] = fields[name] + np.repeat(np.arange(n) * width, each)
        rates = fields["funding_rate"].reshape(n, -1)
        n_drawn = bars.rates.shape[1]
        if n_drawn:
            rates[:, rates.shape[1] - n_drawn :] = bars.rates
        fields["funding_rate"] = rates.ravel()
        return type(feed)(**fields)

    @functools.cached_property
    def recipe(self) -> Any:
        """The policy's part of the loop."""
        return write_recipe(self.policy, tuple(self.prepared.columns))

    @functools.cached_property
    def is_compiled(self) -> bool:
        """Whether the loop runs compiled; finds out by compiling it on one path."""
        return not isinstance(self.simulate, types.FunctionType)

    @functools.cached_property
    def simulate(self) -> Callable[..., int]:
        """The loop over paths around the policy, compiled where the policy compiles."""
        if self.compile:
            because = self.try_compiled()
            if not isinstance(because, str):
                return because
            warn_caller(
                f"{type(self.policy).__name__} runs in plain Python, some hundred times slower: "
                f"{because}"
            )
        bound = {
            **vars(paths_loop),
            "decide": bind_plain(self.policy, tuple(self.prepared.columns)),
        }
        own = types.FunctionType(paths_loop.live_path.__code__, bound, "live_path")
        return types.FunctionType(
            paths_loop.live_paths.__code__, bound | {"live_path": own}, "live_paths"
        )

    def try_compiled(self) -> Callable[..., int] | str:
        """Return the compiled loop, compiled on no bars, or why it does not compile."""
        from backtest.paths.paths_compiler import load_paths_loop  # noqa: PLC0415 - loads numba

        prepared = self.prepared
        loop = load_paths_loop(self.recipe)
        vars(self)["simulate"] = loop
        given = self.lay_out(self.paths.draw(0, 1), 1, 0)
        del vars(self)["simulate"], vars(self)["is_compiled"]
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        rest = (prepared.state, prepared.memory, log, np.zeros((len(paths_loop.LIVED), 0)))
        try:
            loop(*given, *rest, np.zeros(4, dtype=np.int64), self.paths.width, prepared.first)
        except Exception as refusal:  # numba raises what it likes; the policy does not run here
            return explain_refusal(refusal, self.policy)
        return loop


def list_blocks(total: int, width: int, *, is_own: bool) -> list[tuple[int, int]]:
    """Return the first and last paths of the blocks that are drawn at once.

    The first of several blocks is small, so that the time that paths take is soon known.
    ``is_own``: each path is prepared by itself, which is slow.
    """
    size = OWN_BLOCK if is_own else max(CHUNK_BARS // width, 1)
    size += size % 2
    starts = [0] if total <= OWN_BLOCK else [0, *range(2, total, size)]
    return [(k, min(stop, total)) for k, stop in zip(starts, [*starts[1:], total], strict=True)]


def run_blocks(
    work: Callable[[tuple[int, int]], PathLives],
    edges: list[tuple[int, int]],
    threads: int,
    progress: Progress | None,
) -> Iterator[PathLives]:
    """Yield the lives of blocks of paths in order, and report the paths done."""
    done = 0
    for lives in map_in_order(work, edges, threads):
        done += len(lives.wealth)
        if progress is not None:
            progress(done, edges[-1][1])
        yield lives


def map_in_order(work: Callable[[Any], Any], items: list[Any], threads: int) -> Iterator[Any]:
    """Yield the results of some work in order, a few ahead in threads."""
    if threads == 1 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="paths") as pool:
        waiting = [pool.submit(work, item) for item in items[: 2 * threads]]
        for k in range(len(items)):
            yield waiting[k].result()
            waiting[k] = None  # type: ignore[call-overload] # its memory is free again
            if k + 2 * threads < len(items):
                waiting.append(pool.submit(work, items[k + 2 * threads]))

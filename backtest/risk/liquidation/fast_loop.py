"""Take one position through many paths side by side, in compiled code where its policy compiles."""

from __future__ import annotations

import functools
import time
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from backtest.account import Account, Log, check_account
from backtest.base import AccountingError, BacktestError, FloatArray, hash_texts, warn_caller
from backtest.engine import (
    Formula,
    History,
    Inputs,
    Recipe,
    Result,
    Seen,
    explain_refusal,
    find_loop_start,
    join_market,
    load_policy_loop,
    observe_checked,
    pack_brackets,
    pack_columns,
    read_inputs,
    read_signal,
    read_venues,
    run,
    write_recipe,
)
from backtest.engine.bar_loop import BROKEN
from backtest.engine.compile.recipe import ROOT_NAMES
from backtest.market import Market, Markets
from backtest.policy import Policy, bind_plain
from backtest.risk.liquidation import paths_loop
from backtest.risk.liquidation.path_columns import observe_paths
from backtest.risk.liquidation.path_events import OWN_BLOCK, WARMUP, PathLives
from backtest.risk.liquidation.paths_account import PathsAccount
from backtest.risk.liquidation.paths_loop import begin_path, live_path, live_paths
from backtest.risk.paths.instrument_paths import MARKS, PRICES, InstrumentPaths
from backtest.risk.paths.path_set import Paths
from backtest.risk.paths.path_writer import PathBars
from backtest.venue import Venue

CHUNK_BARS = 65_536
"""Bars of the paths that are drawn at once: more would only take memory."""
DEPENDENT = ("sigma", "adv", "stop_scale", "profit_scale", "trail_scale")


class Prepared(NamedTuple):
    market: Market
    inputs: Inputs
    columns: Mapping[str, FloatArray]
    state: Any
    memory: Any
    offset: int
    first: int
    is_own: bool


@dataclass(frozen=True, eq=False)
class FastLoop:
    runner: PathsAccount

    @property
    def paths(self) -> Paths:
        return self.runner.paths

    @property
    def name(self) -> str:
        return self.paths.names[0]

    @property
    def member(self) -> InstrumentPaths:
        return self.paths.leader

    @property
    def policy(self) -> Policy:
        return cast("Policy", self.runner.policy)  # of one instrument

    @property
    def venue(self) -> Venue:
        return self.runner.venues[self.name]

    @property
    def signal(self) -> float:
        return cast("float", self.runner.signal)  # of one instrument

    @property
    def terms(self) -> Account:
        terms = self.runner.terms
        return terms.for_instrument(self.name) if terms.has_tables() else terms

    @property
    def block(self) -> int:
        if self.prepared.is_own:
            return OWN_BLOCK
        return max(CHUNK_BARS // self.paths.width, 1)

    @property
    def has_columns(self) -> bool:
        return bool(self.prepared.columns)

    def check(self) -> None:
        check_account(self.terms, read_venues(self.runner.venue, self.paths.markets)[self.name])

    def join(self, path: Market) -> History:
        if self.runner.resume is not None:
            return join_market(self.runner.resume, path)
        market = self.member.join_history(path, WARMUP)
        first = market.n_bars - self.paths.width
        return History(market, first, int(market.time[first]))

    def run_path(self, path: Markets, *, is_compiled: bool) -> Result:
        return self.run_market(path[self.name], is_compiled=is_compiled)

    def run_market(self, path: Market, *, is_compiled: bool) -> Result:
        joined, resume = self.join(path), self.runner.resume_in_force
        began: dict[str, Any] = {
            "start": np.datetime64(int(joined.market.time[joined.first]), "ns")
        }
        if resume is not None:
            began = {"resume": resume}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(
                joined.market,
                self.policy,
                venue=self.venue,
                account=self.terms,
                signal=self.signal,
                calendar="252" if joined.market.sessions else "365",
                compile=is_compiled,
                **began,
            )

    def read(self, joined: History) -> Inputs:
        return read_inputs(
            joined.market,
            self.venue,
            self.terms,
            signal=read_signal(self.signal, joined.market, joined.first),
            sampling="1d",
            first=joined.first,
            started=joined.started,
        )

    @functools.cached_property
    def prepared(self) -> Prepared:
        joined = self.join(self.path_of(self.paths.draw(0, 1), 0, 0))
        joined = joined._replace(market=joined.market.with_signal(np.array([self.signal])))
        columns, _ = observe_checked(self.policy, joined.market)
        inputs = self.read(joined)
        begin = find_loop_start(self.runner.resume, self.terms, self.policy, joined.first)
        depends = any(len(getattr(inputs.feed, name)) > 1 for name in DEPENDENT)
        depends |= self.venue.open_interest_margin is not None
        drawn = inputs.feed.funding_bar >= joined.first + (self.runner.resume is None)
        depends |= int(drawn.sum()) != len(self.paths.calendar.stamps)
        offset = joined.market.n_bars - self.paths.width
        return Prepared(
            market=joined.market,
            inputs=inputs,
            columns=columns,
            state=begin.state,
            memory=begin.memory,
            offset=offset,
            first=joined.first - offset,
            is_own=depends,
        )

    def path_of(self, bars: PathBars, k: int, number: int) -> Market:
        return self.member.market_of(bars, k, f"{self.paths!r}[{number}]")

    def prepare(self) -> None:
        self.simulate  # noqa: B018 - it is kept

    def run_block(self, first: int, stop: int) -> PathLives:
        bars, n, width = self.paths.draw(first, stop), stop - first, self.paths.width
        lived = np.zeros((len(paths_loop.LIVED), n * width))
        arguments = self.lay_out(bars, n, first)
        prepared = self.prepared
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        feed = arguments[2]
        events = (len(feed.funding_bar) // n, len(feed.flow_bar) // n)
        cursor = np.array([0, *events], dtype=np.int64)
        given = (*arguments, prepared.state, prepared.memory, log, lived, cursor, width)
        with np.errstate(all="ignore"):
            why = self.simulate(*given, prepared.first)
        if why != 0:
            raise self.explain(why, first + int(cursor[0]) // width)
        shaped = lived.reshape(len(lived), n, width)[:, :, 1:]
        closes = bars.prices[3].reshape(n, width)
        return PathLives(first, *tuple(shaped), closes=closes[None, :, 1:])  # type: ignore[misc] # its rows

    def explain(self, why: int, number: int) -> Exception:
        path = self.path_of(self.paths.draw(number, number + 1), 0, number)
        try:
            self.run_market(path, is_compiled=False)
        except BacktestError as error:
            return error
        return AccountingError(
            f"internal error: compiled code and plain Python differ on path {number}, "
            f"compiled code {'did not balance' if why == BROKEN else 'got a negative leverage'}"
        )

    def lay_out(self, bars: PathBars, n: int, number: int) -> tuple[Any, ...]:
        prepared = self.prepared
        feeds = [self.read_own(bars, k, number + k) for k in range(n)] if prepared.is_own else []
        base = prepared.inputs
        feed = self.join_feeds(feeds) if feeds else self.tile_feed(bars, n)
        columns = self.observe(bars)
        seen = Seen(
            time=feed.time,
            **{name: getattr(feed, name) for name in PRICES},
            mark=feed.mark_close,
            volume=feed.volume,
            interval=base.seen.interval,
            start=base.seen.start,
            rows=np.zeros(1, np.int64),
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

    def observe(self, bars: PathBars) -> dict[str, FloatArray]:
        prepared = self.prepared
        if not prepared.columns:
            return {}
        width = self.paths.width
        return observe_paths(self.policy, prepared.market, bars, prepared.columns, width)

    def time_columns(self) -> float:
        bars, start = self.paths.draw(0, 1), time.perf_counter()
        self.observe(bars)
        return time.perf_counter() - start

    def read_own(self, bars: PathBars, k: int, number: int) -> Any:
        return self.read(self.join(self.path_of(bars, k, number))).feed

    def cut(self, name: str, values: Any) -> Any:
        offset, width = self.prepared.offset, self.paths.width
        if name in ("funding_bar", "flow_bar"):
            return values - offset
        return values[offset:] if len(values) == offset + width and len(values) > 1 else values

    def join_feeds(self, feeds: list[Any]) -> Any:
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
        marks = bars.prices if bars.marks is None else bars.marks
        tiled = self.tiled.get(n) or self.tile_shared(n)
        self.tiled[n] = tiled
        rates = tiled["funding_rate"].reshape(n, -1).copy()
        n_drawn = bars.rates.shape[1]
        rates[:, rates.shape[1] - n_drawn :] = bars.rates
        drawn: dict[str, Any] = {name: bars.prices[j] for j, name in enumerate(PRICES)}
        drawn |= {name: marks[j] for j, name in enumerate(MARKS)}
        drawn |= {"volume": bars.volume, "funding_rate": rates.ravel()}
        return type(self.prepared.inputs.feed)(**(tiled | drawn))

    @functools.cached_property
    def tiled(self) -> dict[int, dict[str, Any]]:
        return {}

    def tile_shared(self, n: int) -> dict[str, Any]:
        feed, width, fields = self.prepared.inputs.feed, self.paths.width, {}
        for name in feed._fields:
            if name not in (*PRICES, *MARKS, "volume"):
                cut = self.cut(name, getattr(feed, name))
                is_event = name.startswith(("funding_", "flow_"))
                fields[name] = np.tile(cut, n) if is_event or len(cut) > 1 else cut
        for name in ("funding_bar", "flow_bar"):
            each = len(fields[name]) // n
            fields[name] = fields[name] + np.repeat(np.arange(n) * width, each)
        return fields

    @functools.cached_property
    def recipe(self) -> Any:
        return write_recipe(self.policy, tuple(self.prepared.columns))

    @functools.cached_property
    def is_compiled(self) -> bool:
        return not isinstance(self.simulate, types.FunctionType)

    @functools.cached_property
    def simulate(self) -> Callable[..., int]:
        if self.runner.compile:
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
        from backtest.risk.liquidation.fast_loop import load_paths_loop  # noqa: PLC0415 - loads numba

        prepared = self.prepared
        loop = load_paths_loop(self.recipe)
        vars(self)["simulate"] = loop
        given = self.lay_out(self.paths.draw(0, 1), 1, 0)
        del vars(self)["simulate"], vars(self)["is_compiled"]
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        rest = (prepared.state, prepared.memory, log, np.zeros((len(paths_loop.LIVED), 0)))
        try:
            loop(*given, *rest, np.zeros(3, dtype=np.int64), self.paths.width, prepared.first)
        except Exception as refusal:  # numba raises what it likes; the policy does not run here
            return explain_refusal(refusal, self.policy)
        return loop


def load_paths_loop(recipe: Recipe) -> Callable[..., Any]:
    own = hash_texts(Path(str(paths_loop.__file__)).read_text(encoding="utf-8"))
    named = recipe._replace(name=f"paths_{own}_{recipe.name}")
    return load_policy_loop(named, live_paths, (begin_path, live_path), nogil=True)

"""sweep(): run many sets of parameters; what its sets and those of a search share."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, TypeGuard, get_args

import numpy as np
import pandas as pd

from backtest import core, engine, results, signals
from backtest.account import list_shared_settings
from backtest.account.account import WHOLE
from backtest.core import Choice, ParameterError, Progress, Whole, checked_only, record_making
from backtest.engine import Conditions, count_unfilled, plain, setting
from backtest.market import Market, Markets, as_markets
from backtest.market.markets import rebuild
from backtest.policies import Policy
from backtest.results import rank_by_objective
from backtest.results.measure_table import METRICS
from backtest.signals import SignalRule
from backtest.sweep import sets as s
from backtest.sweep import sweep_table
from backtest.sweep.cluster import on_cluster
from backtest.sweep.set_evaluator import Evaluator, Metrics, Pool, PooledEvaluator

Accounts = Literal["shared", "separate"]


@dataclass(frozen=True, eq=False)
class SetRuns:
    """How sets are run: the test that they vary, in one account or one for each market.

    The signal of the test is over time, by instrument of separate accounts.
    """

    varied: s.VariedTest
    is_separate: bool
    pool: Pool
    compile: bool
    threads: int | None
    memory: str

    @property
    def test(self) -> Conditions:
        return self.varied.test

    @property
    def market(self) -> Any:
        return self.varied.test.market

    @property
    def first(self) -> int:
        """The bar with which accounts begin; the bars before it warm the columns of policies."""
        return engine.find_first_bar(self.market, self.test.start)

    def fit_to(self, names: Iterable[str]) -> Self:
        """Return the runs of sets with these names, which may vary the signal or not."""
        if any(name.startswith(s.SIGNAL) for name in names):
            return self
        return dataclasses.replace(self, varied=dataclasses.replace(self.varied, rule=None))

    def make(self, market: Any, signal: Any, metrics: Metrics) -> Evaluator:
        varied = self.varied
        if market is not self.market or signal is not self.test.signal:
            changed = self.test.replace(market=market, signal=signal)
            varied = dataclasses.replace(varied, test=changed)
        settings = {"threads": self.threads, "memory": self.memory, "compile": self.compile}
        make = choose_evaluator(self.pool, is_separate=self.is_separate)
        return make(varied, metrics=metrics, **settings)

    def keep_times(self) -> Any:
        """Return the signal with the times of its bars, for some of the bars."""
        if self.is_separate:
            return self.test.signal
        return signals.read_directions(self.test.signal, self.market, self.first).keep_times()

    def describe_signal(self) -> str:
        signal: Any = self.test.signal
        if not self.is_separate:
            return signals.read_directions(signal, self.market, self.first).describe()
        found = []
        for name, one in self.market.items():
            first = engine.find_first_bar(one, self.test.start)
            found.append(signals.read_directions(signal[name], one, first))
        return "; ".join(dict.fromkeys(each.describe() for each in found))

    def describe(self, kind: str, names: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
        """Return the manifest of a result of sets that vary the settings with these names."""
        test, market, cls = self.test, self.market, self.varied.policy_class
        known, varied = self.varied.settings, {*names}
        own = (each.name for each in s.list_parameters(cls) if each.name not in varied)
        held = {x: known[x].value for x in own if known[x].value is not dataclasses.MISSING}
        source, begins = results.hash_source(cls), self.first
        manifest: dict[str, Any] = core.to_plain(
            {
                "kind": kind,
                "data": results.describe_data(
                    market,
                    test.account,
                    int(market.time[begins]),
                    market.time[begins:] + market.interval,
                ),
                "policy": {"name": cls.__name__, "source_hash": source, "settings": held},
                "venue": results.describe_venue(self.varied.venue),
                "account": test.account.to_dict(),
                "signal": self.describe_signal(),
                **({} if test.overlay is None else {"overlay": repr(test.overlay)}),
                **({"accounts": "separate", "pool": self.pool} if self.is_separate else {}),
                "sampling": test.sampling,
                "calendar": test.calendar,
                **settings,
            }
        )
        beside = {"policy_module": cls.__module__, "versions": core.find_versions()}
        return {"id": core.compute_id(manifest), **manifest, **beside}


def read_runs(
    test: Conditions,
    policy: type[Policy] | Policy,
    *,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    compile: bool = True,  # noqa: A002 - the word users know
    threads: int | None = None,
    memory: str = "1GiB",
) -> SetRuns:
    Choice(*get_args(Accounts)).check("accounts", accounts)
    is_separate = accounts == "separate"
    if is_separate and isinstance(test.market, Market):
        raise ParameterError(
            f"accounts='separate' needs several markets, {{'BTC': btc, 'ETH': eth}}, "
            f"got {core.repr_plain(test.market)}"
        )
    shared = [each for each in list_shared_settings(test.account) if each in WHOLE]
    if is_separate and shared:
        raise ParameterError(f"account.{shared[0]} needs accounts='shared'")
    if is_separate and test.overlay is not None:
        raise ParameterError("overlay needs accounts='shared': it scales a portfolio")
    test = plain(test)
    engine.check_bars_left(test.market, test.start)
    market = engine.end_expired(test.market, test.venue)
    if is_separate and test.start is not None:
        market = drop_ended(market, test.start)
    first = engine.find_first_bar(market, test.start)
    named = signals.read_named(test.signal, market)
    rule = named if isinstance(named, SignalRule) else None
    names = market.names if isinstance(market, Markets) and not is_separate else ()
    varied = s.VariedTest(test.replace(market=market), policy, names, rule)
    signal: Any
    if is_separate:
        signal = {}
        for name, one in market.items():
            own = varied.for_instrument(name, one).test
            found = signals.resolve_signal(s.pick(named, name), one)
            begins = engine.find_first_bar(one, test.start)
            signal[name] = signals.read_directions(found, own.market, begins).keep_times()
    else:
        setting(test)  # the markets fit one account
        signal = signals.resolve_signal(named, market)
        signals.warn_of_weights(signal, as_markets(market))
    engine.warn_of_market(market, test.venue, first)
    engine.warn_of_flows(test.account, as_markets(market), int(market.time[first]))
    varied = dataclasses.replace(varied, test=varied.test.replace(signal=signal))
    return SetRuns(varied, is_separate, pool, compile, threads, memory)


def drop_ended(markets: Markets, start: core.TimeLike) -> Markets:
    """Return the markets without those that have no two bars left from the start on."""
    firsts = {name: engine.find_first_bar(one, start) for name, one in markets.items()}
    kept = {name: one for name, one in markets.items() if one.n_bars - firsts[name] >= 2}
    if len(kept) == len(markets):
        return markets
    source = f"{markets.source}.select({', '.join(map(repr, kept))})"
    return rebuild(kept, markets.currency, source, markets.last_opens, markets.listing)


def choose_evaluator(pool: Pool, *, is_separate: bool) -> Callable[..., Evaluator]:
    Choice(*get_args(Pool)).check("pool", pool)
    if is_separate:
        return functools.partial(PooledEvaluator, pool=pool)
    if pool != "mean":
        raise ParameterError(
            f"pool needs accounts='separate', whose measures it joins, got {pool!r} for one account"
        )
    return Evaluator


SetsLike: TypeAlias = "Mapping[str, Any] | pd.DataFrame | int"


@record_making
@checked_only("progress")
def sweep(  # noqa: PLR0913 - as the method
    conditions: Conditions,
    policy: type[Policy] | Policy,
    sets: SetsLike,
    *,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    metrics: Metrics = "all",
    space: Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int | None = None,
    memory: str = "1GiB",
    compile: bool = True,  # noqa: A002 - the word users know
    cluster: str | None = None,
    progress: Progress | None = None,
) -> sweep_table.Sweep:
    """Answer :meth:`backtest.Backtest.sweep`, which documents it."""
    runs = read_runs(
        conditions, policy, accounts=accounts, pool=pool, compile=compile,
        threads=threads, memory=memory,
    )  # fmt: skip
    Choice("all", "core").check("metrics", metrics)
    given = build_sets(sets, runs.varied, space=space, seed=seed)
    chosen = s.check_sets(runs.varied, given)
    runs = runs.fit_to(chosen)
    evaluator = runs.make(runs.market, runs.test.signal, metrics)
    evaluator.check_causal(chosen)
    with on_cluster(evaluator, cluster) as working:
        built = sweep_table.build_table(working, chosen, progress)
    table = built.table
    metrics_of = {name: table[name].to_numpy() for name in METRICS if name in table}
    best = rank_by_objective(metrics_of, "sharpe", None, sweep_table.find_failed(table))[0]
    evaluator.check_set(s.take_sets(chosen, int(table.index[best])))
    if n := count_unfilled({"turnover": table["turnover"].to_numpy()}):
        core.warn_caller(
            f"{n:,} of {len(table):,} parameter sets filled no order; run one of them to see why",
            core.NoFillWarning,
        )
    parameters, digest = {}, hashlib.sha256()
    for name, column in chosen.items():
        digest.update(f"{name} {column.dtype} ".encode())
        is_plain = column.dtype != object
        digest.update(column.tobytes() if is_plain else json.dumps(column.tolist()).encode())
        each = runs.varied.settings[name]
        shown: dict[str, Any] = {"unit": getattr(each.space, "unit", "")}
        shown["log"] = getattr(each.space, "log", False)
        default = each.value
        is_number = isinstance(default, int | float) and math.isfinite(default)
        if is_number or isinstance(default, str):
            shown["default"] = default
        parameters[sweep_table.name_column(name)] = shown
    manifest = runs.describe(
        "sweep",
        chosen,
        parameters=parameters,
        metrics=metrics,
        drawn={"seed": seed} if is_count(sets) else None,
        sets={"asked": s.count_sets(chosen), "hash": digest.hexdigest()},
        done=len(table),
    )
    found = {"causality": evaluator.causality, "simulated": str(evaluator.taken)}
    if built.decided:
        found["warm_up"] = built.decided
    return sweep_table.Sweep(table, {**manifest, **found}, evaluator, built.sampled)


def build_sets(
    sets: SetsLike, varied: s.VariedTest, *, space: Mapping[str, Any] | None, seed: int
) -> s.Sets:
    Whole(0).check("seed", seed)
    if is_count(sets):
        found = s.read_space(varied, space)
        return s.draw_sets(found, int(sets), seed=seed)
    if space is not None:
        raise ParameterError(
            "space needs a number of sets to draw from it, sets=1000 for example, "
            f"got {type(sets).__name__}"
        )
    if isinstance(sets, pd.DataFrame):
        for name in sets.columns:
            if name in sweep_table.TAKEN and name not in varied.settings:
                raise ParameterError(
                    "sets must hold parameters only, table[list(sweep.parameters)], got the "
                    f"measure {name}"
                )
        return s.from_frame(sets.rename(columns=lambda name: sweep_table.name_parameter(str(name))))
    if isinstance(sets, Mapping):
        return s.grid(sets)
    raise ParameterError(
        "sets must be arrays by name, {'target': [0.2, 0.4]} for example, a DataFrame or a number "
        f"of draws, got {sets!r:.60}"
    )


def is_count(sets: SetsLike) -> TypeGuard[int]:
    return isinstance(sets, int | np.integer) and not isinstance(sets, bool)

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
from backtest.sweep import sweep_table
from backtest.sweep.cluster import on_cluster
from backtest.sweep.set_evaluator import Evaluator, Metrics, Pool, PooledEvaluator
from backtest.sweep.sets import (
    SIGNAL,
    Sets,
    Setting,
    VariedTest,
    check_sets,
    count_sets,
    draw_sets,
    from_frame,
    grid,
    list_parameters,
    pick,
    read_space,
    take_sets,
)

Accounts = Literal["shared", "separate"]


@dataclass(frozen=True, eq=False)
class SetRuns:
    """How sets are run: the test that they vary, in one account or one for each market.

    The signal of the test is over time, by instrument of separate accounts.
    """

    varied: VariedTest
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
        if any(name.startswith(SIGNAL) for name in names):
            return self
        return dataclasses.replace(self, varied=dataclasses.replace(self.varied, rule=None))

    def make(
        self,
        market: Any,
        signal: Any,
        metrics: Metrics,
    ) -> Evaluator:
        """Return an evaluator of the sets, also on other bars or another signal than the test's."""
        varied = self.varied
        if market is not self.market or signal is not self.test.signal:
            changed = self.test.replace(market=market, signal=signal)
            varied = dataclasses.replace(varied, test=changed)
        make = choose_evaluator(self.pool, is_separate=self.is_separate)
        return make(
            varied,
            metrics=metrics,
            threads=self.threads,
            memory=self.memory,
            compile=self.compile,
        )

    def keep_times(self) -> Any:
        """Return the signal with the times of its bars, for some of the bars."""
        if self.is_separate:
            return self.test.signal
        return signals.read_directions(self.test.signal, self.market, self.first).keep_times()

    def describe_signal(self) -> str:
        """Return what the signal is, in words; of separate accounts, each signal once."""
        signal: Any = self.test.signal
        if not self.is_separate:
            return signals.read_directions(signal, self.market, self.first).describe()

        descriptions: dict[str, None] = {}
        for name, one in self.market.items():
            first = engine.find_first_bar(one, self.test.start)
            directions = signals.read_directions(signal[name], one, first)
            descriptions[directions.describe()] = None
        return "; ".join(descriptions)

    def describe(
        self,
        kind: str,
        names: Iterable[str] = (),
        **settings: Any,
    ) -> dict[str, Any]:
        """Return the manifest of a result of sets that vary the settings with these names."""
        test = self.test
        times = self.market.time
        policy_class = self.varied.policy_class
        data = results.describe_data(
            self.market,
            test.account,
            start=int(times[self.first]),
            closes=times[self.first :] + self.market.interval,
        )
        content = {
            "kind": kind,
            "data": data,
            "policy": {
                "name": policy_class.__name__,
                "source_hash": results.hash_source(policy_class),
                "settings": self._list_held({*names}),
            },
            "venue": results.describe_venue(self.varied.venue),
            "account": test.account.to_dict(),
            "signal": self.describe_signal(),
        }
        if test.overlay is not None:
            content["overlay"] = repr(test.overlay)
        if self.is_separate:
            content |= {"accounts": "separate", "pool": self.pool}
        content |= {
            "sampling": test.sampling,
            "calendar": test.calendar,
            **settings,
        }

        # Versions are outside of what the id stands for.
        manifest: dict[str, Any] = core.to_plain(content)
        beside = {"policy_module": policy_class.__module__, "versions": core.find_versions()}
        return {
            "id": core.compute_id(manifest),
            **manifest,
            **beside,
        }

    def _list_held(self, varied: set[str]) -> dict[str, Any]:
        """Return the parameters of the policy that sets do not vary, and that have a value."""
        held = {}
        for parameter in list_parameters(self.varied.policy_class):
            value = self.varied.settings[parameter.name].value
            if parameter.name not in varied and value is not dataclasses.MISSING:
                held[parameter.name] = value
        return held


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
    """Return how sets of a policy run in a test; refuse what does not fit, and warn of doubts.

    The market is read first, as the signal is read on it. The signal comes before the checks, which
    need it, and warnings come last: what is refused needs none.
    """
    Choice(*get_args(Accounts)).check("accounts", accounts)
    is_separate = accounts == "separate"
    if is_separate:
        check_separate(test)

    # The market: contracts end when they expire, and accounts need two bars from the start on.
    test = plain(test)
    engine.check_bars_left(test.market, test.start)
    market = engine.end_expired(test.market, test.venue)
    if is_separate and test.start is not None:
        market = drop_ended(market, test.start)
    first = engine.find_first_bar(market, test.start)

    # What sets vary: of one account the parameters by instrument too, and of a signal that is a
    # rule those of the rule.
    named_signal: Any = signals.read_named(test.signal, market)
    rule = None
    if isinstance(named_signal, SignalRule):
        rule = named_signal
    names: tuple[str, ...] = ()
    if isinstance(market, Markets) and not is_separate:
        names = market.names
    varied = VariedTest(test.replace(market=market), policy, names, rule)

    # The signal of each market, or that of one account.
    if is_separate:
        signal = resolve_by_instrument(named_signal, varied)
    else:
        # Raises the errors of markets, venues and an account that do not fit one another.
        setting(test)
        signal = signals.resolve_signal(named_signal, market)
        signals.warn_of_weights(signal, as_markets(market))
    engine.warn_of_market(market, test.venue, first)
    engine.warn_of_flows(test.account, as_markets(market), int(market.time[first]))

    varied = dataclasses.replace(varied, test=varied.test.replace(signal=signal))
    return SetRuns(
        varied,
        is_separate,
        pool,
        compile,
        threads,
        memory,
    )


def check_separate(test: Conditions) -> None:
    """Refuse accounts by instrument for one market, and with what joins several in one account."""
    if isinstance(test.market, Market):
        raise ParameterError(
            f"accounts='separate' needs several markets, {{'BTC': btc, 'ETH': eth}}, "
            f"got {core.repr_plain(test.market)}"
        )
    for name in list_shared_settings(test.account):
        if name in WHOLE:
            raise ParameterError(f"account.{name} needs accounts='shared'")
    if test.overlay is not None:
        raise ParameterError("overlay needs accounts='shared': it scales a portfolio")


def resolve_by_instrument(signal: Any, varied: VariedTest) -> dict[str, Any]:
    """Return the signal of each account, with the times of its bars."""
    by_name = {}
    for name, market in as_markets(varied.test.market).items():
        own = varied.for_instrument(name, market).test
        resolved = signals.resolve_signal(pick(signal, name), market)
        first = engine.find_first_bar(market, own.start)
        by_name[name] = signals.read_directions(resolved, own.market, first).keep_times()
    return by_name


def drop_ended(markets: Markets, start: core.TimeLike) -> Markets:
    """Return the markets without those that have no two bars left from the start on."""
    remaining = {}
    for name, market in markets.items():
        n_bars_left = market.n_bars - engine.find_first_bar(market, start)
        if n_bars_left >= 2:
            remaining[name] = market
    if len(remaining) == len(markets):
        return markets

    # The source says how a user gets the same markets.
    names = ", ".join(map(repr, remaining))
    source = f"{markets.source}.select({names})"
    return rebuild(
        remaining,
        markets.currency,
        source,
        markets.last_opens,
        markets.listing,
    )


def choose_evaluator(pool: Pool, *, is_separate: bool) -> Callable[..., Evaluator]:
    """Return what makes the evaluator: of one account, or of one for each market."""
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
        conditions,
        policy,
        accounts=accounts,
        pool=pool,
        compile=compile,
        threads=threads,
        memory=memory,
    )
    Choice("all", "core").check("metrics", metrics)
    built_sets = build_sets(sets, runs.varied, space=space, seed=seed)
    chosen = check_sets(runs.varied, built_sets)
    runs = runs.fit_to(chosen)

    evaluator = runs.make(runs.market, runs.test.signal, metrics)
    evaluator.check_causal(chosen)
    with on_cluster(evaluator, cluster) as working:
        built = sweep_table.build_table(working, chosen, progress)
    table = built.table

    # The best set is checked for look-ahead too, beside those at the ends of their parameters.
    measured = {name: table[name].to_numpy() for name in METRICS if name in table}
    failed = sweep_table.find_failed(table)
    best, *_ = rank_by_objective(measured, "sharpe", None, failed)
    evaluator.check_set(take_sets(chosen, int(table.index[best])))
    warn_of_unfilled(table)

    parameters = {}
    for name in chosen:
        shown = describe_parameter(runs.varied.settings[name])
        parameters[sweep_table.name_column(name)] = shown

    drawn = None
    if is_count(sets):
        drawn = {"seed": seed}
    manifest = runs.describe(
        "sweep",
        chosen,
        parameters=parameters,
        metrics=metrics,
        drawn=drawn,
        sets={"asked": count_sets(chosen), "hash": hash_sets(chosen)},
        done=len(table),
    )
    manifest["causality"] = evaluator.causality
    manifest["simulated"] = str(evaluator.simulated)
    if built.decided:
        manifest["warm_up"] = built.decided
    return sweep_table.Sweep(
        table,
        manifest,
        evaluator=evaluator,
        sampled=built.sampled,
    )


def describe_parameter(varied: Setting) -> dict[str, Any]:
    """Return unit, scale and default of what sets vary; the default if a manifest can hold it."""
    shown: dict[str, Any] = {"unit": getattr(varied.space, "unit", "")}
    shown["log"] = getattr(varied.space, "log", False)
    default = varied.value
    is_number = isinstance(default, int | float) and math.isfinite(default)
    if is_number or isinstance(default, str):
        shown["default"] = default
    return shown


def hash_sets(sets: Sets) -> str:
    """Return the SHA-256 of names, types and values; values of any kind count as JSON."""
    digest = hashlib.sha256()
    for name, column in sets.items():
        digest.update(f"{name} {column.dtype} ".encode())

        # The bytes of objects are addresses, which say nothing.
        content = column.tobytes()
        if column.dtype == object:
            content = json.dumps(column.tolist()).encode()
        digest.update(content)
    return digest.hexdigest()


def warn_of_unfilled(table: pd.DataFrame) -> None:
    """Warn of sets that filled no order."""
    n_unfilled = count_unfilled({"turnover": table["turnover"].to_numpy()})
    if n_unfilled:
        core.warn_caller(
            f"{n_unfilled:,} of {len(table):,} parameter sets filled no order; run one of them to "
            "see why",
            core.NoFillWarning,
        )


def build_sets(
    sets: SetsLike,
    varied: VariedTest,
    *,
    space: Mapping[str, Any] | None,
    seed: int,
) -> Sets:
    """Return the sets of a number of draws, of a table, or of the product of lists.

    Only draws need ``space`` and ``seed``. Raises ParameterError for other ``sets``.
    """
    Whole(0).check("seed", seed)
    if is_count(sets):
        return draw_sets(read_space(varied, space), int(sets), seed=seed)

    if space is not None:
        raise ParameterError(
            "space needs a number of sets to draw from it, sets=1000 for example, "
            f"got {type(sets).__name__}"
        )

    # A table, maybe that of another sweep: its measures are no parameters.
    if isinstance(sets, pd.DataFrame):
        for name in sets.columns:
            if name in sweep_table.TAKEN and name not in varied.settings:
                raise ParameterError(
                    "sets must hold parameters only, table[list(sweep.parameters)], got the "
                    f"measure {name}"
                )
        names = {name: sweep_table.name_parameter(str(name)) for name in sets.columns}
        return from_frame(sets.rename(columns=names))

    if isinstance(sets, Mapping):
        return grid(sets)
    raise ParameterError(
        "sets must be arrays by name, {'target': [0.2, 0.4]} for example, a DataFrame or a number "
        f"of draws, got {sets!r:.60}"
    )


def is_count(sets: SetsLike) -> TypeGuard[int]:
    """Return whether sets are given as a number of draws."""
    return isinstance(sets, int | np.integer) and not isinstance(sets, bool)

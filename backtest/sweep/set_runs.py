"""What all sets of a sweep or a search share: the test that they vary, and how sets are run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from backtest import core, engine, results, signals
from backtest.account import list_shared_settings
from backtest.account.account import WHOLE
from backtest.engine import Backtest
from backtest.market import Market, as_markets
from backtest.policies import Policy
from backtest.signals import SignalRule
from backtest.sweep.set_evaluator import Evaluator, Metrics, Pool, PooledEvaluator
from backtest.sweep.sets import VariedTest, list_names, names_signal, pick

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
    def test(self) -> Backtest:
        return self.varied.test

    @property
    def market(self) -> Any:
        return self.varied.test.market

    def fit_to(self, names: Iterable[str]) -> Self:
        """Return the runs of sets with these names, which may vary the signal or not."""
        if names_signal(names):
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
        return signals.read_directions(self.test.signal, self.market).keep_times()

    def describe_signal(self) -> str:
        signal: Any = self.test.signal
        if not self.is_separate:
            return signals.read_directions(signal, self.market).describe()
        found = (signals.read_directions(signal[k], one) for k, one in self.market.items())
        return "; ".join(dict.fromkeys(each.describe() for each in found))

    def describe(self, kind: str, names: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
        """Return the manifest of a result of sets that vary the settings with these names."""
        test, market, cls = self.test, self.market, self.varied.policy_class
        known, varied = self.varied.settings, {*names}
        own = [part for each in cls.parameters().values() for part in each.list_elements()]
        held = {each.name: known[each.name].value for each in own if each.name not in varied}
        held = {name: each for name, each in held.items() if each is not dataclasses.MISSING}
        manifest: dict[str, Any] = core.to_plain(
            {
                "kind": kind,
                "data": results.describe_data(
                    market, test.account, market.start, market.time + market.interval
                ),
                "policy": {
                    "name": cls.__name__,
                    "source_hash": results.hash_source(cls),
                    "settings": held,
                },
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
    test: Backtest,
    policy: type[Policy] | Policy,
    *,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    compile: bool = True,  # noqa: A002 - the word users know
    threads: int | None = None,
    memory: str = "1GiB",
) -> SetRuns:
    """Return how the sets of a policy are run under a test, after warning of the test."""
    core.Choice(*get_args(Accounts)).check("accounts", accounts)
    is_separate = accounts == "separate"
    if is_separate and isinstance(test.market, Market):
        raise core.ParameterError(
            f"accounts='separate' needs several markets, {{'BTC': btc, 'ETH': eth}}, "
            f"got {core.repr_plain(test.market)}"
        )
    shared = [each for each in list_shared_settings(test.account) if each in WHOLE]
    if is_separate and shared:
        raise core.ParameterError(f"account.{shared[0]} needs accounts='shared'")
    if is_separate and test.overlay is not None:
        raise core.ParameterError("overlay needs accounts='shared': it scales a portfolio")
    test = test.plain
    if test.start is not None:  # the accounts of sets begin with their market
        core.warn_caller(
            f"the data are cut at the start, {test.start}: here the bars before it do not warm the "
            "columns of policies, which trade as soon as those are known; `backtest run` and "
            "`backtest compare` keep them"
        )
        part = test.market.slice(test.start, None)
        rows = signals.cut_rows(test.signal, test.market, part)
        test = test.replace(market=part, signal=rows, start=None)
    market = engine.end_expired(test.market, test.venue)
    named = signals.read_named(test.signal, market)
    rule = named if isinstance(named, SignalRule) else None
    names = () if is_separate else list_names(market)
    varied = VariedTest(test.replace(market=market), policy, names, rule)
    signal: Any
    if is_separate:
        signal = {}
        for name, one in market.items():
            own = varied.for_instrument(name, one).test
            found = signals.resolve_signal(pick(named, name), one)
            signal[name] = signals.read_directions(found, own.market).keep_times()
    else:
        _ = test.setting  # the markets fit one account
        signal = signals.resolve_signal(named, market)
        signals.warn_of_weights(signal, as_markets(market))
    engine.warn_of_market(market, test.venue)
    engine.warn_of_flows(test.account, as_markets(market), market.start)
    varied = dataclasses.replace(varied, test=varied.test.replace(signal=signal))
    return SetRuns(varied, is_separate, pool, compile, threads, memory)


def choose_evaluator(pool: Pool, *, is_separate: bool) -> Callable[..., Evaluator]:
    core.Choice(*get_args(Pool)).check("pool", pool)
    if is_separate:
        return functools.partial(PooledEvaluator, pool=pool)
    if pool != "mean":
        raise core.ParameterError(
            f"pool needs accounts='separate', whose measures it joins, got {pool!r} for one account"
        )
    return Evaluator

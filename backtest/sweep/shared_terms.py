"""What all sets of a sweep or a search share: its arguments, read once, and their description."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, Self, get_args

from backtest import engine
from backtest.account import list_shared_settings
from backtest.account.account import WHOLE
from backtest.base import Choice, ParameterError, compute_id, find_versions, repr_plain, to_plain
from backtest.market import Market, as_given, as_markets, with_clock
from backtest.sweep.set_evaluator import Evaluator, Metrics, Pool, PooledEvaluator
from backtest.sweep.sets import BaseTerms, list_names, names_signal, pick
from backtest.venue import read_venue

Accounts = Literal["shared", "separate"]


@dataclass(frozen=True, eq=False)
class SharedTerms:
    """What all sets share.

    ``signal`` is over time, by instrument of separate accounts. The signal of ``base`` is the rule
    where sets may vary it.
    """

    market: Any
    base: BaseTerms
    signal: Any
    is_separate: bool
    pool: Pool
    sampling: str
    calendar: str
    compile: bool
    threads: int | None
    memory: str

    @property
    def terms(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("sampling", "calendar", "compile")}

    def fit_to(self, names: Iterable[str]) -> Self:
        """Return the terms of sets with these names, which may vary the signal or not."""
        if names_signal(names):
            return self
        return dataclasses.replace(self, base=dataclasses.replace(self.base, signal=None))

    def make(self, market: Any, signal: Any, metrics: Metrics) -> Evaluator:
        make = choose_evaluator(self.pool, is_separate=self.is_separate)
        settings = {"metrics": metrics, "threads": self.threads, "memory": self.memory}
        return make(market, self.base, signal=signal, **settings, **self.terms)

    def keep_times(self) -> Any:
        """Return the signal with the times of its bars, for some of the bars."""
        if self.is_separate:
            return self.signal
        return engine.read_directions(self.signal, self.market).keep_times()

    def describe_signal(self) -> str:
        if not self.is_separate:
            return engine.read_directions(self.signal, self.market).describe()
        found = (engine.read_directions(self.signal[k], one) for k, one in self.market.items())
        return "; ".join(dict.fromkeys(each.describe() for each in found))

    def describe(self, kind: str, varied: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
        market, base, cls = self.market, self.base, self.base.policy_class
        held = {name: base.settings[name].value for name in cls.parameters() if name not in varied}
        held = {name: each for name, each in held.items() if each is not dataclasses.MISSING}
        manifest: dict[str, Any] = to_plain(
            {
                "kind": kind,
                "data": engine.describe_data(
                    market, base.account, market.start, market.time + market.interval
                ),
                "policy": {
                    "name": cls.__name__,
                    "source_hash": engine.hash_source(cls),
                    "settings": held,
                },
                "venue": engine.describe_venue(base.venue),
                "account": base.account.to_dict(),
                "signal": self.describe_signal(),
                **({} if base.overlay is None else {"overlay": repr(base.overlay)}),
                **({"accounts": "separate", "pool": self.pool} if self.is_separate else {}),
                "sampling": self.sampling,
                "calendar": self.calendar,
                **settings,
            }
        )
        beside = {"policy_module": cls.__module__, "versions": find_versions()}
        return {"id": compute_id(manifest), **manifest, **beside}


def read_shared(arguments: Mapping[str, Any]) -> SharedTerms:
    given = SimpleNamespace(**arguments)
    policy, venue, account = given.policy, read_venue(given.venue), given.account
    market, signal = with_clock(given.market, given.decide, given.detail), given.signal
    is_separate, market = read_accounts(given, market)
    market = engine.end_expired(market, venue)
    named = engine.read_named(signal, market)
    rule = named if isinstance(named, engine.SignalRule) else None
    names = () if is_separate else list_names(market)
    base = BaseTerms(policy, venue, account, rule, names, engine.check_overlay(given.overlay))
    if is_separate:
        signal = {}
        for name, one in market.items():
            own = base.for_instrument(name)
            engine.check_terms(one, policy, own.venue, own.account, given.sampling, given.calendar)
            found = engine.resolve_signal(pick(named, name), one)
            signal[name] = engine.read_directions(found, one).keep_times()
    else:
        engine.check_terms(market, policy, venue, account, given.sampling, given.calendar)
        signal = engine.resolve_signal(named, market)
        engine.warn_of_weights(signal, as_markets(market))
    engine.warn_of_market(market, venue)
    engine.warn_of_flows(account, as_markets(market), market.start)
    same = ("pool", "sampling", "calendar", "compile", "threads", "memory")
    return SharedTerms(
        market=market,
        base=base,
        signal=signal,
        is_separate=is_separate,
        **{name: getattr(given, name) for name in same},
    )


def read_accounts(given: SimpleNamespace, market: Any) -> tuple[bool, Any]:
    Choice(*get_args(Accounts)).check("accounts", given.accounts)
    is_separate, markets = given.accounts == "separate", as_markets(market)
    if is_separate and isinstance(market, Market):
        raise ParameterError(
            f"accounts='separate' needs several markets, {{'BTC': btc, 'ETH': eth}}, "
            f"got {repr_plain(market)}"
        )
    shared = [each for each in list_shared_settings(given.account) if each in WHOLE]
    if is_separate and shared:
        raise ParameterError(f"account.{shared[0]} needs accounts='shared'")
    if is_separate and given.overlay is not None:
        raise ParameterError("overlay needs accounts='shared': it scales a portfolio")
    return is_separate, as_given(markets, market)


def choose_evaluator(pool: Pool, *, is_separate: bool) -> Callable[..., Evaluator]:
    Choice(*get_args(Pool)).check("pool", pool)
    if is_separate:
        return functools.partial(PooledEvaluator, pool=pool)
    if pool != "mean":
        raise ParameterError(
            f"pool needs accounts='separate', whose measures it joins, got {pool!r} for one account"
        )
    return Evaluator

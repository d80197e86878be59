"""What all sets of a sweep or a search share: its arguments, read once, and their description."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, Self, get_args

from backtest import engine
from backtest.base import Choice, ParameterError, compute_id, find_versions, repr_plain, to_plain
from backtest.market import Market, as_given, as_markets, with_clock
from backtest.sweep.set_evaluator import Evaluator, Pool, PooledEvaluator, pick
from backtest.sweep.sets import BaseTerms, list_names, names_signal

Accounts = Literal["shared", "separate"]


@dataclass(frozen=True, eq=False)
class SharedTerms:
    """What all sets share.

    ``rule`` is the signal if it is a rule, and ``signal`` what it says over time. The signal of
    ``base`` is the rule where sets may vary it.
    """

    market: Any
    base: BaseTerms
    rule: engine.SignalRule | None
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

    def make(self, market: Any, signal: Any, **settings: Any) -> Evaluator:
        make = choose_evaluator(self.pool, is_separate=self.is_separate)
        return make(
            market,
            policy=self.base.policy,
            venue=self.base.venue,
            account=self.base.account,
            overlay=self.base.overlay,
            signal=signal,
            **settings,
        )

    def describe(self, kind: str, varied: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
        market, base, cls = self.market, self.base, self.base.policy_class
        whole = self.make(market, base.signal or self.signal)
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
                "signal": whole.describe_signals(),
                **({} if base.overlay is None else {"overlay": repr(base.overlay)}),
                **whole.describe_pool(),
                "sampling": self.sampling,
                "calendar": self.calendar,
                **settings,
            }
        )
        beside = {"policy_module": cls.__module__, "versions": find_versions()}
        return {"id": compute_id(manifest), **manifest, **beside}


def read_shared(arguments: Mapping[str, Any]) -> SharedTerms:
    given = SimpleNamespace(**arguments)
    policy, venue, account = given.policy, given.venue, given.account
    market, signal = with_clock(given.market, given.decide, given.detail), given.signal
    is_separate, market = read_accounts(given.accounts, market, venue)
    market = engine.end_expired(market, venue)
    if not is_separate:
        engine.check_terms(market, policy, venue, account, given.sampling, given.calendar)
    engine.warn_of_market(market, venue)
    named = engine.read_named(signal, market)
    rule = named if isinstance(named, engine.SignalRule) else None
    names = () if is_separate else list_names(market)
    if is_separate:
        signal = {
            name: engine.resolve_signal(pick(named, name), one) for name, one in market.items()
        }
    else:
        signal = engine.resolve_signal(named, market)
        engine.warn_of_weights(signal, as_markets(market))
    same = ("pool", "sampling", "calendar", "compile", "threads", "memory")
    return SharedTerms(
        market=market,
        base=BaseTerms(policy, venue, account, rule, names, engine.check_overlay(given.overlay)),
        rule=rule,
        signal=signal,
        is_separate=is_separate,
        **{name: getattr(given, name) for name in same},
    )


def read_accounts(accounts: str, market: Any, venue: Any) -> tuple[bool, Any]:
    Choice(*get_args(Accounts)).check("accounts", accounts)
    is_separate, markets = accounts == "separate", as_markets(market)
    if is_separate and isinstance(market, Market):
        raise ParameterError(
            f"accounts='separate' needs several markets, {{'BTC': btc, 'ETH': eth}}, "
            f"got {repr_plain(market)}"
        )
    for name in markets if is_separate else ():
        pick(venue, name)
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

"""What a run needs, checked and read from its arguments, and which loop will run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from backtest.account import Account, check_account, list_shared_settings
from backtest.account.account import GENERAL, WHOLE
from backtest.base import FloatArray, ParameterError, TimeLike, list_values, repr_plain
from backtest.engine.benchmark import Benchmark, BenchmarkLike, read_own_benchmark
from backtest.engine.indicator_rules import read_named, resolve_signal
from backtest.engine.lookahead import observe_checked
from backtest.engine.loop_inputs import read_inputs
from backtest.engine.option_checks import warn_of_options
from backtest.engine.portfolio_checks import (
    check_account_kind,
    check_expiry,
    check_instruments,
    check_periods,
    count_periods,
    read_venues,
)
from backtest.engine.portfolio_policies import ObservedPolicy, assign_policies
from backtest.engine.portfolio_setup import Setup, drop_other_instruments, end_expired, set_up
from backtest.engine.record import Outcome
from backtest.engine.result import Result
from backtest.engine.resumed_run import check_rules, find_start_bar, join_resumed, read_resume
from backtest.engine.run_warnings import warn_of_market, warn_of_weights
from backtest.engine.signal_checks import describe_signal, read_signal, recall_signal
from backtest.engine.signal_rule import SignalRule
from backtest.engine.target_cuts_text import measure_cuts
from backtest.market import Market, Markets, as_markets, find_clock, read_weights, show_signal
from backtest.policy import Policy, sets_margin, trades_options
from backtest.venue import Venue, list_dated


class FastSetup(Setup):
    """A run of one position before its loop: ``inputs`` are its :class:`Inputs`.

    ``signal`` has shape (n_bars,) or (1,).
    """

    __slots__ = ()

    @property
    def is_of_fast_loop(self) -> bool:
        return True

    def find_benchmark(self) -> Benchmark | None:
        return self.benchmark

    def describe_signal(self) -> str:
        return describe_signal(self.given, find_clock(self.markets).pick(self.signal))

    def charge(self, outcome: Outcome) -> Self:
        fees = self.inputs.fees
        if fees is None:
            return self
        charged = fees._replace(charged=outcome.charged)
        return self._replace(inputs=self.inputs._replace(fees=charged))

    def measure_cuts(self, run: Any) -> Sequence[Mapping[str, Any]]:
        return measure_cuts(self.inputs, run.record, run.entries, self.first)

    def quote(self, name: str) -> FloatArray:
        values = super().quote(name)
        if name == "signal":
            values = np.broadcast_to(values, self.markets.n_bars)
        return values[:, None]

    def extend(self, markets: Markets, account: Account, signal: FloatArray, first: int) -> Self:
        (name,) = markets.names
        given: dict[str, Any] = {"signal": signal, "first": first, "started": self.started}
        own = (markets[name], self.venues[name], account)
        inputs = read_inputs(*own, sampling=self.sampling, **given)
        return self._replace(markets=markets, account=account, inputs=inputs, first=first)

    def begin_at(self, started: int) -> Self:
        """Return the setup of an account that began at another time, ns."""
        seen = self.inputs.seen._replace(start=started)
        return self._replace(inputs=self.inputs._replace(seen=seen), started=started)

    def warn(self, outcome: Outcome) -> None:
        """Warn of nothing: its checks warned of all."""


def set_up_run(
    market: Any,
    policy: Any,
    *,
    venue: Any,
    account: Account,
    signal: Any,
    overlay: Policy | None,
    sampling: str = "1d",
    calendar: str = "365",
    start: TimeLike | None = None,
    resume: Any = None,
    benchmark: BenchmarkLike = None,
) -> Setup:
    market, signal = widen_market(
        market, signal, policy=policy, venue=venue, account=account, overlay=overlay
    )
    markets = take_markets(market, policy, venue, account, resume)
    has_one = fits_one_position(markets, policy, venue, account, overlay)
    earlier: Any = read_resume(resume, start, is_of_fast_loop=has_one)
    if has_one:
        signal = resolve_signal(signal, market)
        policy, venue, account, signal = take_only(markets, policy, venue, account, signal)
        check_settings(next(iter(markets.values())), account, venue, sampling, calendar)
        return set_up_one(
            markets,
            policy,
            venue=venue,
            account=account,
            signal=signal,
            sampling=sampling,
            calendar=calendar,
            start=start,
            resume=earlier,
            benchmark=benchmark,
        )
    check_periods(markets, sampling, calendar)
    setup = set_up(
        markets,
        policy,
        venue=venue,
        account=account,
        signal=signal,
        overlay=overlay,
        sampling=sampling,
        periods=count_periods(calendar, sampling, markets),
        start=start,
        resume=earlier,
        benchmark=benchmark,
    )
    check_rules(earlier, setup.policies, setup.overlay, setup.venues, setup.account)
    warn_of_market(setup.markets, setup.venues, setup.first)
    warn_of_weights(setup.given, markets)
    warn_of_options(setup.markets, setup.inputs.feed.options, setup.policies, setup.overlay)
    return setup


def set_up_one(
    markets: Markets,
    policy: Policy,
    *,
    venue: Venue,
    account: Account,
    signal: Any,
    sampling: str,
    calendar: str,
    start: TimeLike | None,
    resume: Result | None,
    benchmark: BenchmarkLike,
) -> Setup:
    (name,) = markets.names
    check_rules(resume, {name: policy}, None, {name: venue}, account)
    if resume is None:
        first = find_start_bar(markets[name], start)
    else:
        markets, first = join_resumed(resume, markets)
    market = markets[name]
    compared = read_own_benchmark(benchmark, market, venue, name, first)
    clock = find_clock(market)
    directions = clock.hold(read_signal(signal, clock.seen, clock.at(first)))
    warn_of_market(markets, venue, first)
    market = market.with_signal(recall_signal(directions, market, resume, first))
    seen = show_signal(market, clock)
    columns, causality = observe_checked(policy, seen)
    started = int(market.time[first]) if resume is None else resume.started
    inputs = read_inputs(
        market,
        venue,
        account,
        signal=directions,
        sampling=sampling,
        first=first,
        started=started,
    )
    return FastSetup(
        markets=Markets({name: market}),
        policies={name: policy},
        overlay=None,
        venues={name: venue},
        account=account,
        signal=directions,
        observed=[ObservedPolicy(policy, seen, columns, 0, str(causality))],
        inputs=inputs,
        first=first,
        periods=count_periods(calendar, sampling, market, first),
        sampling=sampling,
        resume=resume,
        benchmark=compared,
        given=signal,
        started=started,
    )


def take_only(
    markets: Markets, policy: object, venue: object, account: Account, signal: Any
) -> tuple[Policy, Venue, Account, Any]:
    (name,), account = markets.names, drop_other_instruments(account, markets)
    policies, _ = assign_policies(policy, markets, None)
    check_instruments(account, markets.names)
    own = account.for_instrument(name) if account.has_tables() else account
    warn_of_weights(signal, markets)
    if isinstance(signal, pd.DataFrame | Mapping) or np.ndim(signal) == 2:
        seen = find_clock(markets).seen
        signal = pd.Series(read_weights(signal, seen)[0], index=seen.times)
    return policies[name], read_venues(venue, markets)[name], own, signal


def take_markets(market: Any, policy: object, venue: Any, account: Any, resume: object) -> Markets:
    if isinstance(market, Markets):
        check_account_kind(account)
        ended: Markets = end_expired(market, venue)
        return ended
    check_kinds(market, policy, venue, account, resume)
    return as_markets(market)


def check_kinds(
    market: object, policy: object, venue: object, account: object, resume: object
) -> None:
    wanted: tuple[tuple[str, object, type], ...] = (
        ("market", market, Market),
        ("policy", policy, Policy),
        ("venue", venue, Venue),
        ("account", account, Account),
        ("resume", resume, Result),
    )
    for name, value, kind in wanted:
        if not isinstance(value, kind) and not (name == "resume" and value is None):
            cure = "; pass bt.Markets(market)" * isinstance(value, Mapping) * (name == "market")
            cure += "; add () to make one of the class" * isinstance(value, type)
            noun = f"{'an' if kind is Account else 'a'} {kind.__name__}"
            raise ParameterError(f"{name} must be {noun}, got {repr_plain(value)}{cure}")


def check_settings(
    market: Market, account: Account, venue: Venue, sampling: str, calendar: str
) -> None:
    check_account(account, venue)
    check_periods(market, sampling, calendar)
    check_expiry(market, venue)


def fits_one_position(
    markets: Markets, policy: object, venue: object, account: Account, overlay: object
) -> bool:
    fresh = all(getattr(account, name) == value for name, value in WHOLE.items())
    is_general = needs_general_loop(policy, venue, account) or bool(markets.options)
    return len(markets) == 1 and fresh and overlay is None and not is_general


def needs_general_loop(policy: object, venue: object, account: object) -> bool:
    return any(
        [
            has_general_account(account),
            *map(has_general_venue, list_values(venue)),
            sets_margin(policy),
            trades_options(policy),
        ]
    )


def has_general_account(account: object) -> bool:
    if not isinstance(account, Account):
        return False
    is_general = any(getattr(account, name) != value for name, value in GENERAL.items())
    return is_general or account.fill == "limit"


def has_general_venue(venue: object) -> bool:
    is_spot = getattr(getattr(venue, "contract", None), "kind", "") == "spot"
    return is_spot or (isinstance(venue, Venue) and bool(list_dated(venue)))


def widen_market(
    market: Any, signal: Any, *, policy: object, venue: object, account: object, overlay: object
) -> tuple[Any, Any]:
    by_name = any(isinstance(each, Mapping | pd.DataFrame) for each in (signal, policy, venue))
    is_wide = by_name or overlay is not None or needs_general_loop(policy, venue, account)
    is_wide = is_wide or (isinstance(account, Account) and bool(list_shared_settings(account)))
    if not is_wide or not isinstance(market, Market):
        return market, signal
    markets = as_markets(market)
    return markets, widen_signal(read_named(signal, market), markets)


def widen_signal(signal: Any, markets: Markets) -> Any:
    if signal is None or isinstance(signal, SignalRule | Mapping | pd.DataFrame):
        return signal
    (name,) = markets.names
    if isinstance(signal, pd.Series):
        return signal.to_frame(name)
    return signal if isinstance(signal, np.ndarray | list | tuple) else {name: signal}

"""What a run needs, checked and read from its arguments, for the loop that will run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from backtest.account import Account
from backtest.account.account import BY_INSTRUMENT
from backtest.account.account_checks import check_account
from backtest.account.by_instrument import check_instruments
from backtest.base.errors import ParameterError
from backtest.base.json_values import repr_plain
from backtest.base.units import TimeLike
from backtest.engine.benchmark import BenchmarkLike, read_own_benchmark
from backtest.engine.cut_terms import cut_account
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.loop_choice import fits_one_position
from backtest.engine.loop_inputs import read_inputs
from backtest.engine.named_signals import resolve_signal
from backtest.engine.portfolio_checks import check_expiry, read_venues
from backtest.engine.portfolio_policies import Panelist, assign_policies
from backtest.engine.portfolio_setup import Setup, set_up
from backtest.engine.result import Result
from backtest.engine.resumed_markets import find_start_bar, join_resumed
from backtest.engine.resumed_rules import check_rules, read_resume
from backtest.engine.run_warnings import warn_of_market, warn_of_weights
from backtest.engine.sampling_periods import check_periods, count_periods
from backtest.engine.signal_input import read_signal, recall_signal
from backtest.market import Market, Markets
from backtest.market.weight_frame import read_weights
from backtest.policy import Policy
from backtest.venue import Venue


def set_up_run(
    markets: Markets,
    policy: Any,
    *,
    venue: Any,
    account: Account,
    signal: Any,
    overlay: Policy | None,
    sampling: str,
    calendar: str,
    start: TimeLike | None,
    resume: Any,
    benchmark: BenchmarkLike,
) -> Setup:
    """Check and read everything that a run needs, and choose its loop."""
    has_one = fits_one_position(markets, policy, venue, account, overlay)
    earlier: Any = read_resume(resume, start, is_of_fast_loop=has_one)
    if has_one:
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
    warn_of_weights(signal, markets)
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
    """Read everything that a run of one position needs."""
    (name,) = markets.names
    check_rules(resume, {name: policy}, None, {name: venue}, account)
    if resume is None:
        first = find_start_bar(markets[name], start)
    else:
        markets, first = join_resumed(resume, markets)
    market = markets[name]
    compared = read_own_benchmark(benchmark, market, venue, name, first)
    given = resolve_signal(signal, market)
    directions = read_signal(given, market, first)
    warn_of_market(market, venue, first)
    market = market.with_signal(recall_signal(directions, market, resume, first))
    columns, causality = observe_checked(policy, market)
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
    return Setup(
        markets=Markets({name: market}),
        policies={name: policy},
        overlay=None,
        venues={name: venue},
        account=account,
        signal=directions,
        panelists=[Panelist(policy, market, columns, 0, str(causality))],
        inputs=inputs,
        first=first,
        periods=count_periods(calendar, sampling, market, first),
        sampling=sampling,
        resume=resume,
        benchmark=compared,
        given=given,
        is_of_fast_loop=True,
        started=started,
    )


def take_only(
    markets: Markets, policy: object, venue: object, account: Account, signal: Any
) -> tuple[Policy, Venue, Account, Any]:
    """Return policy, venue, account and signal of the only instrument."""
    (name,), account = markets.names, cut_account(account, markets)
    policies, _ = assign_policies(policy, markets, None)
    for field in BY_INSTRUMENT:
        check_instruments(getattr(account, field), markets.names, where=f"Account.{field}")
    own = account.for_instrument(name) if account.has_tables() else account
    warn_of_weights(signal, markets)
    if isinstance(signal, pd.DataFrame | Mapping):
        signal = pd.Series(read_weights(signal, markets, where="bt.run")[0], index=markets.times)
    return policies[name], read_venues(venue, markets)[name], own, signal


def check_kinds(
    market: object, policy: object, venue: object, account: object, resume: object
) -> None:
    """Require arguments of the right classes."""
    wanted: tuple[tuple[str, object, type, str], ...] = (
        ("market", market, Market, "pass bt.Market.load(...), from_frames(...) or sample()"),
        ("policy", policy, Policy, "pass an instance of a class derived from bt.Policy"),
        ("venue", venue, Venue, "pass bt.Venue(...), or bt.Venue.preset(...)"),
        ("account", account, Account, "pass bt.Account(...)"),
        ("resume", resume, Result, "pass the earlier result, or bt.Result.load(folder)"),
    )
    for name, value, kind, cure in wanted:
        if not isinstance(value, kind) and not (name == "resume" and value is None):
            raise ParameterError(
                f"{name} must be a {kind.__name__}, got {repr_plain(value)}",
                where=f"bt.run, {name}",
                cure=f"{cure}: add ()" if isinstance(value, type) else cure,
            )


def check_settings(
    market: Market, account: Account, venue: Venue, sampling: str, calendar: str
) -> None:
    """Require settings that fit together."""
    check_account(account, venue)
    check_periods(market, sampling, calendar)
    check_expiry(market, venue)
